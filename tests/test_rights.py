"""Rights: what the evidence allows, and never more."""

import itertools

import pytest

from avignon.museums import rights
from avignon.records import Access

YEAR = 2026
OPEN, RESTRICTED, UNKNOWN = Access.OPEN, Access.RESTRICTED, Access.UNKNOWN


@pytest.mark.parametrize(
    ("openaccess", "maxpixels", "died", "access"),
    [
        ("1", "", 1910, OPEN),
        ("1", "", None, OPEN),
        (" 1 ", "", 1973, OPEN),
        ("0", "900", 1973, RESTRICTED),
        ("0", "4000", 1910, RESTRICTED),
        ("0", "", 1910, RESTRICTED),
        ("", "", 1910, UNKNOWN),
        ("yes", "", 1910, UNKNOWN),
        (None, "900", 1910, RESTRICTED),
        (None, "4000", 1910, RESTRICTED),
        (None, "", 1910, OPEN),
        (None, "", 1973, UNKNOWN),
        (None, "", None, UNKNOWN),
        (None, "", 0, UNKNOWN),
        (None, "", 1955, OPEN),
        (None, "", 1956, UNKNOWN),
    ],
)
def test_museum_signals(openaccess: str | None, maxpixels: str, died: int | None, access: Access) -> None:
    """The museum's release decides; without the column, a cap bars, and only the term of protection opens."""
    found = rights.from_museum(openaccess, maxpixels, died, YEAR)
    assert found.access is access
    assert f"maxpixels={maxpixels or 'none'}" in found.evidence
    assert ("year of death unknown" in found.evidence) is not bool(died)
    assert "\n" not in found.evidence


def test_evidence_names_its_values() -> None:
    """Who reads the ledger sees the values that decided."""
    assert rights.from_museum("0", "900", 1973, YEAR).evidence == "openaccess=0; maxpixels=900; artist died 1973"
    assert rights.from_museum(None, "", 1910, YEAR).evidence.startswith("openaccess not in this export; maxpixels=none")
    assert rights.from_statement("CC0", 1910, YEAR).evidence == "index states 'CC0'; artist died 1910"


@pytest.mark.parametrize(
    ("statement", "died", "access"),
    [
        ("", None, UNKNOWN),
        ("", 0, UNKNOWN),
        ("", 1973, UNKNOWN),
        ("", 1910, OPEN),
        ("", 1955, OPEN),
        ("", 1956, UNKNOWN),
        ("public domain (author died at least 70 years ago)", None, OPEN),
        ("CC0", 1973, OPEN),
        ("CC-0 1.0", None, OPEN),
        ("https://creativecommons.org/publicdomain/zero/1.0/", None, OPEN),
        ("https://creativecommons.org/publicdomain/mark/1.0/", None, OPEN),
        ("No known copyright restrictions", None, OPEN),
        ("my own photograph", None, UNKNOWN),
        ("my own photograph", 1910, OPEN),
        ("CC BY 4.0", None, UNKNOWN),
        ("public domain?", None, UNKNOWN),
        ("probably public domain", None, UNKNOWN),
        ("unknown, perhaps CC0", None, UNKNOWN),
        ("unrestricted", None, UNKNOWN),
        ("account001", None, UNKNOWN),
        ("In copyright", 1910, RESTRICTED),
        ("http://rightsstatements.org/vocab/InC/1.0/", 1910, RESTRICTED),
        ("© the museum", 1910, RESTRICTED),
        ("all rights reserved", 1910, RESTRICTED),
        ("restricted", 1910, RESTRICTED),
        ("CC BY-NC 4.0", 1910, RESTRICTED),
        ("CC BY-ND 4.0", 1910, RESTRICTED),
        ("non-commercial use only", 1910, RESTRICTED),
        ("by permission of the estate", 1910, RESTRICTED),
        ("fair use", 1910, RESTRICTED),
        ("not public domain", 1910, RESTRICTED),
        ("not in the public domain", 1910, RESTRICTED),
        ("not known to be in the public domain", None, RESTRICTED),
        ("not CC0", None, RESTRICTED),
    ],
)
def test_statements(statement: str, died: int | None, access: Access) -> None:
    """What an index states counts as it reads: a denial or a doubt never opens, a claim of rights always bars."""
    assert rights.from_statement(statement, died, YEAR).access is access


def test_protection_ends_with_the_year() -> None:
    """Life + 70 runs to the end of the calendar year: who died in 1955 is free on 1 January 2026, not before."""
    assert [rights.term_is_over(1955, year) for year in (2024, 2025, 2026)] == [False, False, True]
    assert not rights.term_is_over(None, YEAR)


def test_nothing_is_open_without_evidence() -> None:
    """Over all signals: open needs the museum's 1, an opening word, or a year of death long past."""
    for openaccess, cap, died in itertools.product((None, "", "0", "1", "x"), ("", "900"), (None, 0, 1956, 1955, 1500)):
        if rights.from_museum(openaccess, cap, died, YEAR).access is OPEN:
            assert openaccess == "1" or (openaccess is None and not cap and died in (1955, 1500))
    for statement, died in itertools.product(("", "mine", "ask", "n/a", "CC BY-SA"), (None, 0, 1956, 2020)):
        assert rights.from_statement(statement, died, YEAR).access is not OPEN
