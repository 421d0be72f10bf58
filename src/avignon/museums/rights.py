"""From evidence to rights. Pure: the year is an argument, so that the answer can be tested.

Sources: the National Gallery of Art's open-access policy and data dictionary (`openaccess`, `maxpixels`); the Art
Institute of Chicago's API (`is_public_domain`). Terms of protection and the vocabulary of statements are data, with
their own sources: `terms.toml`, `statements.toml`.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

from avignon.core.records import Access, Rights
from avignon.museums import dates, statements, words
from avignon.museums.statements import Reading

terms = functools.partial(words.vocabulary, "terms.toml")


@dataclass(frozen=True)
class Evidence:
    """What is known of an image, and nothing that is not."""

    died: int | None = None
    """The artist's year of death. In a museum's table 0 stands for an unknown year: there is no year 0."""
    born: int | None = None
    years: dates.Years = field(default_factory=dates.Years)
    """When the work was made; its last year is the best that is known of its publication."""
    flag: str | None = None
    """The museum's own release of the image as it stands in its data (`1`, `0`, …); None where the data has no flag."""
    flag_name: str = ""
    """What the museum calls that flag; empty for a source that has none."""
    cap: str = ""
    """`maxpixels` as it stands: the museum shows the image no larger. Empty where it is not capped."""
    statement: str | None = None
    """What the index of one's own scans states; None for a museum."""
    unread: tuple[str, ...] = ()
    """What else is written and was not understood, e.g. `date 'cast by the estate'`."""
    claims: tuple[str, ...] = ()
    """Rights that are claimed in other places than the statement, e.g. `credit says '© 2019 Doe'`."""


def judged(evidence: Evidence, year: int) -> Rights:
    """Rights of an image in a given year, by the first of six rules that applies.

    1. The museum's own flag: 1 is open, 0 restricted, anything else unknown. (0 means "not released", which is not
       proof of a copyright, and asks for the same care.)
    2. A claim of rights in any other place restricts. Of a statement, the strictest part counts: claimed rights, denied
       or later freedom restrict; what is not understood is unknown; freedom is open, with the condition that a licence
       sets. Age never speaks against it.
    3. A capped image is restricted: the museum shows it small, under fair use.
    4. Where every term of protection is over, the image is open, unless it was made after the artist's death: then one
       of the years is wrong.
    5. Where at least one is known to run and none is known to be over, it is restricted.
    6. All else is unknown: what is free in one country and not in another, and whatever there is no evidence for.
    """
    ends = {term["name"]: _end(evidence, term, year) for term in terms()["terms"]}
    statement = evidence.statement or ""
    stated = None if statements.is_nothing(statement) else statements.read(statement, year)
    access = _by_source(evidence, stated) or _by_age(evidence, ends, year)
    running = [f"{name} runs to the end of {end}" for name, end in ends.items() if end is not None and end >= year]
    return Rights(access, "; ".join([*_facts(evidence, stated), *running]), stated.condition if stated else "")


def _by_source(evidence: Evidence, stated: Reading | None) -> Access | None:
    """What the image's owner says; None where they say nothing."""
    if evidence.flag is not None:
        return {"1": Access.OPEN, "0": Access.RESTRICTED}.get(evidence.flag.strip(), Access.UNKNOWN)
    if evidence.cap.strip() or evidence.claims:
        return Access.RESTRICTED
    return stated.access if stated else None


def _by_age(evidence: Evidence, ends: dict[str, int | None], year: int) -> Access:
    over = [end is not None and end < year for end in ends.values()]
    runs = [end is not None and end >= year for end in ends.values()]
    if all(over):
        return Access.UNKNOWN if _made_after_death(evidence) else Access.OPEN
    return Access.RESTRICTED if any(runs) and not any(over) else Access.UNKNOWN


def _end(evidence: Evidence, term: dict[str, Any], year: int) -> int | None:
    """The last protected year under a term of `terms.toml`; None where it is not known."""
    died, born, made = evidence.died or None, evidence.born or None, evidence.years.end or None
    length: int = term["years"]
    if term["after"] == "publication":
        # At the latest in the year of death, unless a date of the work is later, or is not understood.
        is_limit = not (evidence.unread or evidence.years.reissued) and (evidence.years.latest or 0) <= (died or 0)
        last = made or (died if is_limit else None)
        return None if last is None else last + length
    if died is not None:
        return died + length
    life: dict[str, int] = terms()["life"]
    if made is not None and made + life["years_after_work"] + length < year:
        return made + life["years_after_work"] + length
    # An artist born less than the term ago cannot have been dead for so long.
    return born + life["longest"] + length if born is not None and born + length >= year else None


def _made_after_death(evidence: Evidence) -> bool:
    """Whether the years contradict each other, so that one of them is wrong."""
    died, begin = evidence.died or None, evidence.years.begin
    return died is not None and begin is not None and begin > died


def _facts(evidence: Evidence, stated: Reading | None) -> list[str]:
    facts = []
    if evidence.flag_name:
        flag = " not in this export" if evidence.flag is None else f"={evidence.flag or 'none'}"
        facts.append(evidence.flag_name + flag)
    if evidence.statement is None and (evidence.cap or evidence.flag_name == "openaccess"):
        facts.append(f"maxpixels={evidence.cap or 'none'}")
    if evidence.statement is not None:
        facts.append(f"index states {evidence.statement!r}" if stated else "no statement")
    if stated and stated.unread:
        facts.append(f"not understood: {stated.unread!r}")
    facts.append(f"artist died {evidence.died}" if evidence.died else "artist's year of death unknown")
    if evidence.born and not evidence.died:
        facts.append(f"artist born {evidence.born}")
    years, made = evidence.years, "not dated"
    if years.latest:
        made = f"made {years.end}" if years.end else f"made in {years.latest} or later"
    if years.reissued:
        made += ", cast or printed in an unknown year, perhaps after the artist's death"
    if _made_after_death(evidence):
        made += ", after the artist's death"
    return [*facts, made, *(f"{each} is not understood" for each in evidence.unread), *evidence.claims]
