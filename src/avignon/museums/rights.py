"""From evidence to rights. Pure: the year is an argument, so that the answer can be tested and never drifts unseen.

Sources: the National Gallery of Art's open-access policy and data dictionary (`openaccess`, `maxpixels`); terms of
protection: Directive 2006/116/EC, art. 1 and 8 (life + 70, running to the end of the calendar year).
"""

import re

from avignon.records import Access, Rights

LIFE_PLUS = 70
"""Years of protection after the author's death in most countries."""

_OPEN_WORDS = re.compile(r"public domain|publicdomain/|\bcc-?0\b|creative commons zero|no known copyright|\bpdm\b")
_CLOSED_WORDS = re.compile(
    r"in.copyright|copyrighted|all rights reserved|\brestricted|©|/inc\b|\bby-n[cd]|non-?commercial|permission|fair use"
    r"|\bnot\b.*(public domain|cc-?0)"
)
_DOUBTS = re.compile(r"\?|\b(unknown|perhaps|probably|possibly|maybe|may be|unclear|unsure)\b")


def term_is_over(died: int | None, year: int) -> bool:
    """Whether life + 70 has run out in `year`; without a year of death nothing is known."""
    # There is no year 0: in a table, 0 stands for an unknown one.
    return died is not None and died != 0 and died + LIFE_PLUS < year


def from_museum(openaccess: str | None, maxpixels: str, died: int | None, year: int) -> Rights:
    """Rights of an image by the National Gallery's own signals.

    Args:
        openaccess: the column's value; None in exports that do not have the column.
        maxpixels: the column's value; empty where the museum does not cap the image.
        died: the artist's year of death, if the museum knows one.
        year: the present year.
    """
    facts = [f"maxpixels={maxpixels or 'none'}", f"artist died {died}" if died else "artist's year of death unknown"]
    if openaccess is not None:
        facts.insert(0, f"openaccess={openaccess or 'none'}")
        access = {"1": Access.OPEN, "0": Access.RESTRICTED}.get(openaccess.strip(), Access.UNKNOWN)
        return Rights(access, "; ".join(facts))
    facts.insert(0, "openaccess not in this export")
    if maxpixels.strip():
        return Rights(Access.RESTRICTED, "; ".join(facts))
    return Rights(Access.OPEN if term_is_over(died, year) else Access.UNKNOWN, "; ".join(facts))


def from_statement(statement: str, died: int | None, year: int) -> Rights:
    """Rights of one's own scan: what its index states, and the term of protection."""
    facts = [
        f"index states {statement!r}" if statement else "no statement",
        f"artist died {died}" if died else "artist's year of death unknown",
    ]
    evidence = "; ".join(facts)
    words = statement.lower()
    if _CLOSED_WORDS.search(words):
        return Rights(Access.RESTRICTED, evidence)
    stated = _OPEN_WORDS.search(words) and not _DOUBTS.search(words)
    if stated or term_is_over(died, year):
        return Rights(Access.OPEN, evidence)
    return Rights(Access.UNKNOWN, evidence)
