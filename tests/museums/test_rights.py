"""Rights: what the evidence allows, and never more."""

import itertools

import pytest

from avignon.core.records import Access
from avignon.museums import rights
from avignon.museums.dates import Years
from avignon.museums.rights import Evidence

YEAR = 2026
OPEN, RESTRICTED, UNKNOWN = Access.OPEN, Access.RESTRICTED, Access.UNKNOWN

HOMER, PICASSO, GRIS, LEGER, NOBODY = 1910, 1973, 1927, 1955, None
"""Years of death."""


def museum(flag: str | None, cap: str, died: int | None, made: int | None, born: int | None = None) -> Evidence:
    """What the National Gallery's tables say of an image."""
    return Evidence(died=died, born=born, years=Years(end=made), flag=flag, flag_name="openaccess", cap=cap)


def scan(statement: str, died: int | None, made: int | None = None) -> Evidence:
    """What the index of one's own scans says."""
    return Evidence(died=died, years=Years(end=made), statement=statement)


MUSEUM = [
    # The museum's own word decides, whatever else is known.
    ("Homer, released", museum("1", "", HOMER, 1876), OPEN),
    ("released, written with blanks", museum(" 1 ", "", HOMER, 1876), OPEN),
    ("Homer, not released", museum("0", "", HOMER, 1876), RESTRICTED),
    ("Homer, not released and capped at 900", museum("0", "900", HOMER, 1876), RESTRICTED),
    ("Homer, not released and capped at 4000", museum("0", "4000", HOMER, 1876), RESTRICTED),
    ("Homer, released and capped at 4000", museum("1", "4000", HOMER, 1876), OPEN),
    ("a flag that is empty", museum("", "", HOMER, 1876), UNKNOWN),
    ("a flag that nobody understands", museum("yes", "", HOMER, 1876), UNKNOWN),
    ("a flag of 2", museum("2", "", HOMER, 1876), UNKNOWN),
    ("Picasso before 1931, not released and capped", museum("0", "900", PICASSO, 1905), RESTRICTED),
    ("Picasso before 1931, released", museum("1", "", PICASSO, 1905), OPEN),
    ("Picasso after 1931, not released", museum("0", "900", PICASSO, 1937), RESTRICTED),
    ("Gris, released", museum("1", "", GRIS, 1913), OPEN),
    ("an anonymous work, released", museum("1", "", NOBODY, 1500), OPEN),
    ("an anonymous work, not released", museum("0", "", NOBODY, 1500), RESTRICTED),
    ("a living artist, released", museum("1", "", NOBODY, 2001, 1960), OPEN),
    ("a living artist, not released", museum("0", "900", NOBODY, 2001, 1960), RESTRICTED),
    ("no dates at all, released", museum("1", "", NOBODY, None), OPEN),
    # Older exports have no flag: a cap bars, and only terms that are over open.
    ("flag absent, Homer", museum(None, "", HOMER, 1876), OPEN),
    ("flag absent, Homer capped at 900", museum(None, "900", HOMER, 1876), RESTRICTED),
    ("flag absent, Homer capped at 4000", museum(None, "4000", HOMER, 1876), RESTRICTED),
    ("flag absent, a cap that is no number", museum(None, "small", HOMER, 1876), RESTRICTED),
    ("flag absent, a cap of blanks is none", museum(None, " ", HOMER, 1876), OPEN),
    ("flag absent, Homer undated: he did not work on after his death", museum(None, "", HOMER, None), OPEN),
    ("flag absent, Picasso 1905: free in the United States alone", museum(None, "", PICASSO, 1905), UNKNOWN),
    ("flag absent, Picasso 1930: the last year that is free there", museum(None, "", PICASSO, 1930), UNKNOWN),
    ("flag absent, Picasso 1931: protected everywhere", museum(None, "", PICASSO, 1931), RESTRICTED),
    ("flag absent, Picasso 1937", museum(None, "", PICASSO, 1937), RESTRICTED),
    ("flag absent, Picasso undated", museum(None, "", PICASSO, None), RESTRICTED),
    ("flag absent, Picasso 1905 capped", museum(None, "900", PICASSO, 1905), RESTRICTED),
    ("flag absent, Gris 1913", museum(None, "", GRIS, 1913), OPEN),
    ("flag absent, Gris in the year of his death", museum(None, "", GRIS, 1927), OPEN),
    ("flag absent, Léger 1913: free this January", museum(None, "", LEGER, 1913), OPEN),
    ("flag absent, Léger 1950: free, but not in the United States", museum(None, "", LEGER, 1950), UNKNOWN),
    ("flag absent, Léger undated: perhaps of his last years", museum(None, "", LEGER, None), UNKNOWN),
    ("flag absent, died 1956, work of 1913: free next January", museum(None, "", 1956, 1913), UNKNOWN),
    ("flag absent, anonymous of 1500", museum(None, "", NOBODY, 1500), OPEN),
    ("flag absent, anonymous of 1855: nobody lived on so long", museum(None, "", NOBODY, 1855), OPEN),
    ("flag absent, anonymous of 1856", museum(None, "", NOBODY, 1856), UNKNOWN),
    ("flag absent, anonymous of 1950", museum(None, "", NOBODY, 1950), RESTRICTED),
    ("flag absent, anonymous and undated", museum(None, "", NOBODY, None), UNKNOWN),
    ("flag absent, year 0 is no year", museum(None, "", 0, 0), UNKNOWN),
    ("flag absent, a living artist's work of 2001", museum(None, "", NOBODY, 2001, 1960), RESTRICTED),
    ("flag absent, a living artist's undated work", museum(None, "", NOBODY, None, 1960), RESTRICTED),
    ("flag absent, born 1940, no death known, undated", museum(None, "", NOBODY, None, 1940), UNKNOWN),
    ("flag absent, born 1940, no death known, work of 1990", museum(None, "", NOBODY, 1990, 1940), RESTRICTED),
]

STATEMENTS = [
    ("", None, UNKNOWN),
    ("", 0, UNKNOWN),
    ("", 1973, RESTRICTED),
    ("", 1910, OPEN),
    ("", 1955, UNKNOWN),
    ("", 1956, RESTRICTED),
    ("public domain (author died at least 70 years ago)", None, OPEN),
    ("CC0", 1973, OPEN),
    ("CC-0 1.0", None, OPEN),
    ("https://creativecommons.org/publicdomain/zero/1.0/", None, OPEN),
    ("https://creativecommons.org/publicdomain/mark/1.0/", None, OPEN),
    ("No known copyright restrictions", None, OPEN),
    ("my own photograph", None, UNKNOWN),
    ("my own photograph", 1910, UNKNOWN),
    ("CC BY 4.0", None, OPEN),
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
]


@pytest.mark.parametrize(("evidence", "access"), [row[1:] for row in MUSEUM], ids=[row[0] for row in MUSEUM])
def test_museum_signals(evidence: Evidence, access: Access) -> None:
    """The museum's release decides; without it, a cap bars, and only terms of protection that are over open."""
    found = rights.judged(evidence, YEAR)
    assert found.access is access
    assert f"maxpixels={evidence.cap or 'none'}" in found.evidence
    assert ("year of death unknown" in found.evidence) is not bool(evidence.died)
    assert "\n" not in found.evidence


@pytest.mark.parametrize(("statement", "died", "access"), STATEMENTS)
def test_statements(statement: str, died: int | None, access: Access) -> None:
    """What an index states counts as it reads: a denial or a doubt never opens, a claim of rights always bars."""
    assert rights.judged(scan(statement, died), YEAR).access is access


def test_evidence_names_its_values() -> None:
    """Who reads the ledger sees the values that decided, and until when a term runs."""
    assert rights.judged(museum("0", "900", 1973, 1905), YEAR).evidence == (
        "openaccess=0; maxpixels=900; artist died 1973; made 1905; life + 70 runs to the end of 2043"
    )
    assert rights.judged(museum(None, "", 1910, 1876), YEAR).evidence == (
        "openaccess not in this export; maxpixels=none; artist died 1910; made 1876"
    )
    assert rights.judged(scan("CC0", 1955, 1950), YEAR).evidence == (
        "index states 'CC0'; artist died 1955; made 1950; 95 years from publication runs to the end of 2045"
    )
    assert rights.judged(museum("1", "", None, None, 1960), YEAR).evidence.startswith(
        "openaccess=1; maxpixels=none; artist's year of death unknown; artist born 1960; not dated"
    )


@pytest.mark.parametrize(
    ("died", "years", "access"),
    [
        # Nobody works on after death; casts and prints are made then, too.
        (1917, Years(), OPEN),
        (1917, Years(1890, None, since=1890), OPEN),
        (1917, Years(1890, None), OPEN),
        (1917, Years(1890, None, since=1890, reissued=True), UNKNOWN),
        (1917, Years(reissued=True), UNKNOWN),
        (1917, Years(None, None, since=1932), UNKNOWN),
        (1917, Years(1885, None, since=1919), UNKNOWN),
        # One of the years is wrong.
        (1873, Years(1925, 1925), UNKNOWN),
        (1873, Years(1874, 1874), UNKNOWN),
        (1873, Years(1801, 1900), OPEN),
        (1873, Years(1935, 1935), UNKNOWN),
        (None, Years(1801, 1801), OPEN),
    ],
)
def test_death_is_the_last_year_only_of_what_the_artist_made(died: int | None, years: Years, access: Access) -> None:
    """A later year that is named, a cast of an unknown year, or a work made after death keep age from opening."""
    for evidence in (Evidence(died=died, years=years), Evidence(died=died, years=years, statement="n/a")):
        found = rights.judged(evidence, YEAR)
        assert found.access is access
        assert ("after the artist's death" in found.evidence) is bool(
            years.reissued or (died and years.begin and years.begin > died)
        )


@pytest.mark.parametrize("statement", ["", "CC0", "public domain", "CC BY 4.0"])
def test_a_claim_in_another_place_restricts(statement: str) -> None:
    """Rights that are claimed beside the statement count, whatever it says, and are said."""
    found = rights.judged(Evidence(died=1750, statement=statement, claims=("credit says '© Doe'",)), YEAR)
    assert found.access is RESTRICTED
    assert found.evidence.endswith("credit says '© Doe'")


def test_terms_move_each_january() -> None:
    """Life + 70 and 95 years from publication run to the end of a calendar year, and the year alone moves them."""
    died_1955 = museum(None, "", 1955, 1913)
    assert [rights.judged(died_1955, year).access for year in (2024, 2025, 2026)] == [UNKNOWN, UNKNOWN, OPEN]
    made_1931 = museum(None, "", 1940, 1931)
    assert [rights.judged(made_1931, year).access for year in (2010, 2011, 2026, 2027)] == [
        *(RESTRICTED, UNKNOWN, UNKNOWN, OPEN)
    ]
    assert [rights.judged(museum(None, "", PICASSO, 1905), year).access for year in (2043, 2044)] == [UNKNOWN, OPEN]


def test_terms_are_data_with_sources() -> None:
    """Each term of protection says where it holds, for how long, and by which law."""
    terms = rights.terms()["terms"]
    assert {(term["after"], term["years"]) for term in terms} == {("death", 70), ("publication", 95)}
    assert all(term["where"] and term["source"] for term in terms)


def test_each_level_has_its_sentence() -> None:
    """The three levels are three sentences for a wall label; only the open one allows."""
    assert len({access.sentence for access in Access}) == len(Access) == 3
    assert [
        access for access in Access if "may be used freely." in access.sentence and "nothing" not in access.sentence
    ] == [OPEN]


def test_nothing_is_open_without_evidence() -> None:
    """Over all signals: open needs the museum's 1, an opening word, or terms that are all over."""
    years = (None, 0, 1500, 1855, 1930, 1931, 1955, 1956)
    for flag, cap, died, made in itertools.product((None, "", "0", "1", "x"), ("", "900"), years, years):
        if rights.judged(museum(flag, cap, died, made), YEAR).access is OPEN:
            over = (died or (made or 9999) + 100) + 70 < YEAR and (made or died or 9999) + 95 < YEAR
            assert flag == "1" or (flag is None and not cap and over)
    for statement, died in itertools.product(("", "mine", "ask", "n/a", "CC BY-NC-SA"), (None, 0, 1956, 2020)):
        assert rights.judged(scan(statement, died), YEAR).access is not OPEN
