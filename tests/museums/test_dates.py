"""Dates as museums write them: the years that each means, and that nothing is guessed."""

import itertools
import unicodedata

import pytest

from avignon.museums import date_words, dates
from avignon.museums.dates import Years, known, read

UNDERSTOOD: list[tuple[str, int | None, int | None]] = [
    # Plain, and as spreadsheets leave it.
    ("1885", 1885, 1885),
    (" 1885 ", 1885, 1885),
    ("1885.0", 1885, 1885),
    ("1905-01-01 00:00:00", 1905, 1905),
    ("[1885]", 1885, 1885),
    # Ranges, shortened and not.
    ("1930-31", 1930, 1931),
    ("1929–35", 1929, 1935),
    ("1929 — 35", 1929, 1935),
    ("1929/35", 1929, 1935),
    ("1885-6", 1885, 1886),
    ("1885/86", 1885, 1886),
    ("1898-02", 1898, 1902),
    ("1905-10", 1905, 1910),
    ("1910-05", 1910, 1910),
    ("1873-1876", 1873, 1876),
    ("1885/1890", 1885, 1890),
    ("1911/1923", 1911, 1923),
    ("between 1885 and 1890", 1885, 1890),
    ("from 1873 to 1876", 1873, 1876),
    ("1873 until 1876", 1873, 1876),
    ("1873 or 1876", 1873, 1876),
    ("1873; 1876", 1873, 1876),
    ("1876, 1873", 1873, 1876),
    # EDTF, level 1.
    ("1885-12", 1885, 1885),
    ("1885-05-12", 1885, 1885),
    ("1885-05-12T10:00:00Z", 1885, 1885),
    ("1885-21", 1885, 1885),
    ("1885?", 1880, 1890),
    ("1885~", 1880, 1890),
    ("1885%", 1880, 1890),
    ("1885-XX", 1885, 1885),
    ("1885-XX-XX", 1885, 1885),
    ("188X", 1880, 1889),
    ("18XX", 1800, 1899),
    ("1885/..", 1885, None),
    ("1885/", 1885, None),
    ("../1885", None, 1885),
    ("/1885", None, 1885),
    ("1885-05/1890-08-01", 1885, 1890),
    # Libraries.
    ("[188-?]", 1875, 1894),
    ("188-", 1880, 1889),
    ("18--", 1800, 1899),
    # About.
    ("c1885", 1880, 1890),
    ("c. 1885", 1880, 1890),
    ("ca. 1885", 1880, 1890),
    ("CA 1885", 1880, 1890),
    ("circa 1885", 1880, 1890),
    ("c. 1885–90", 1880, 1895),
    ("probably 1885", 1880, 1890),
    ("1885 (?)", 1880, 1890),
    ("um 1885", 1880, 1890),
    ("wohl 1885", 1880, 1890),
    ("vers 1885", 1880, 1890),
    ("hacia 1885", 1880, 1890),
    ("omstreeks 1885", 1880, 1890),
    # Decades.
    ("1890s", 1890, 1899),
    ("the 1890's", 1890, 1899),
    ("1870er", 1870, 1879),
    ("1870er Jahre", 1870, 1879),
    ("années 1890", 1890, 1899),
    ("anni 1890", 1890, 1899),
    ("década de 1890", 1890, 1899),
    ("jaren 1890", 1890, 1899),
    ("early 1890s", 1890, 1894),
    ("mid-1890s", 1892, 1897),
    ("late 1890s", 1895, 1899),
    ("1880s–90s", 1880, 1899),
    ("1880-1890s", 1880, 1899),
    ("c. 1890s", 1885, 1904),
    # What has no end or no beginning.
    ("before 1890", None, 1890),
    ("by 1890", None, 1890),
    ("1890 or earlier", None, 1890),
    ("vor 1890", None, 1890),
    ("avant 1890", None, 1890),
    ("antes de 1890", None, 1890),
    ("prima del 1890", None, 1890),
    ("voor 1890", None, 1890),
    ("after 1890", 1890, None),
    ("not before 1890", 1890, None),
    ("1890 or later", 1890, None),
    ("since 1890", 1890, None),
    ("begun 1873", 1873, None),
    ("1890-", 1890, None),
    ("1890-?", 1890, None),
    ("nach 1890", 1890, None),
    ("après 1890", 1890, None),
    ("después de 1890", 1890, None),
    ("dopo il 1890", 1890, None),
    ("na 1890", 1890, None),
    ("1885, after 1890", 1885, None),
    ("after 1890, before 1895", 1890, 1895),
    ("after 1890 and before 1895", 1890, 1895),
    ("after 1885-1890", 1885, None),
    # Centuries.
    ("18th century", 1701, 1800),
    ("19th c.", 1801, 1900),
    ("1800s", 1800, 1899),
    ("1900s", 1900, 1999),  # Some mean 1900 to 1909.
    ("early 19th century", 1801, 1850),
    ("mid-19th century", 1826, 1875),
    ("late 19th/early 20th century", 1851, 1950),
    ("early to mid 19th century", 1801, 1875),
    ("third quarter of the 19th century", 1851, 1875),
    ("19th century, second half", 1851, 1900),
    ("18th or 19th century", 1701, 1900),
    ("18th–19th centuries", 1701, 1900),
    ("probably 19th century", 1781, 1920),
    ("19. Jh.", 1801, 1900),
    ("19./20. Jahrhundert", 1801, 2000),
    ("1. Hälfte 19. Jh.", 1801, 1850),
    ("Ende des 19. Jahrhunderts", 1851, 1900),
    ("XIXe siècle", 1801, 1900),
    ("XIXᵉ siècle", 1801, 1900),
    ("fin du XIXe siècle", 1851, 1900),
    ("2e moitié du XIXe siècle", 1851, 1900),
    ("siglo XIX", 1801, 1900),
    ("s. XIX", 1801, 1900),
    ("siglos XVIII-XIX", 1701, 1900),
    ("XIX secolo", 1801, 1900),
    ("Ottocento", 1801, 1900),
    ("19e eeuw", 1801, 1900),
    ("eerste helft 19e eeuw", 1801, 1850),
    # Days, months and seasons.
    ("March 1885", 1885, 1885),
    ("March 5, 1885", 1885, 1885),
    ("12th March 1885", 1885, 1885),
    ("März 1885", 1885, 1885),
    ("5. März 1885", 1885, 1885),
    ("août 1885", 1885, 1885),
    ("marzo de 1885", 1885, 1885),
    ("05/1885", 1885, 1885),
    ("12.5.1885", 1885, 1885),
    ("summer 1885", 1885, 1885),
    ("Winter 1885–86", 1885, 1886),
    # What was done to the work: the latest counts.
    ("1873, reworked 1876", 1873, 1876),
    ("begun 1873, completed 1876", 1873, 1876),
    ("von 1873 bis 1876", 1873, 1876),
    ("entre 1873 et 1876", 1873, 1876),
    ("1885, printed 1990", 1885, 1990),
    # Before Christ.
    ("500 B.C.", -500, -500),
    ("500-450 BCE", -500, -450),
    ("5th century BC", -500, -401),
    ("early 5th century BC", -500, -451),
    ("ca. 500 v. Chr.", -505, -495),
    ("50 BC-50 AD", -50, 50),
    ("A.D. 200", 200, 200),
    ("100 av. J.-C.", -100, -100),
    ("100 avant Jésus-Christ", -100, -100),
    ("100 ap. J.-C.", 100, 100),
    # Short forms of catalogues.
    ("XIXe s.", 1801, 1900),
    ("XIXème s.", 1801, 1900),
    ("19e s.", 1801, 1900),
    ("19. Jhs.", 1801, 1900),
    ("2. H. 19. Jh.", 1851, 1900),
    ("1. V. 20. Jh.", 1901, 1925),
    ("letztes Drittel 19. Jh.", 1867, 1900),
    ("dernier tiers du XIXe siècle", 1867, 1900),
    ("primo terzo del XIX secolo", 1801, 1834),
    ("2a mitad s. XIX", 1851, 1900),
    ("seconda metà XIX sec.", 1851, 1900),
    ("peut-être 1885", 1880, 1890),
    ("1885-86.", 1885, 1886),
    ("1885-90?", 1880, 1895),
    ("dat. 1885", 1885, 1885),
    ("sign. 1885", 1885, 1885),
    ("n.d. (1885)", 1885, 1885),
    ("n.d. (c. 1885)", 1880, 1890),
    # Words for a part of a century, directly before a year.
    ("Ende 1885", 1885, 1885),
    ("fin 1885", 1885, 1885),
    ("1880s and 90s", 1880, 1899),
    ("1885-90s", 1885, 1899),
]

OPEN_ENDED: list[tuple[str, int | None, int, bool]] = [
    # What goes on is not ended by what was before it, or by another act.
    ("modeled 1885, cast after 1919", 1885, 1919, True),
    ("cast from 1919", 1919, 1919, True),
    ("1885, cast 1919 or later", 1885, 1919, True),
    ("cast after 1917; modeled before 1885", 1885, 1917, True),
    ("cast after 1917; modeled before 1985", 1917, 1985, True),
    ("gegossen nach 1917, entworfen vor 1985", 1917, 1985, True),
    ("printed after 1930, designed by 1890", 1890, 1930, True),
    ("published from 1930, drawn 1885", 1885, 1930, True),
    ("begun 1885, retouched 1890", 1885, 1890, False),
    ("after 1890, after 1930, before 1895", 1890, 1930, False),
    # Both ends open is not undated.
    ("before 1890, cast after 1932", None, 1932, True),
    ("before 1890 or after 1932", None, 1932, False),
    ("until 1885 and later", None, 1885, False),
    # Later, in a year that nobody says.
    *((f"1885, {word}", 1885, 1885, False) for word in ("später", "later", "plus tard", "más tarde", "più tardi")),
    *((f"1885, {word}", 1885, 1885, False) for word in ("reworked", "überarbeitet", "retouché", "später vollendet")),
    # Casts and prints without a year: others make them, too.
    *((f"1885, {word}", 1885, 1885, True) for word in ("später gegossen", "gedruckt später", "cast later", "recast")),
    *((f"1885, {word}", 1885, 1885, True) for word in ("published", "cast posthumously", "à titre posthume", "fondu")),
    *((f"1885, {word}", 1885, 1885, True) for word in ("fundición póstuma", "ristampa", "herdrukt", "posthumer Guss")),
    ("1885 (gegossen)", 1885, 1885, True),
    ("modeled 1885 and cast", 1885, 1885, True),
    ("cast; 1885", 1885, 1885, True),
    ("cast, modeled 1885", 1885, 1885, True),
    ("cast after 1905", 1905, 1905, True),
    ("n.d., cast; 1885", 1885, 1885, True),
]

UNDATED = [
    "",
    " ",
    "n.d.",
    "n. d.",
    "nd",
    "No date",
    "undated",
    "Unknown",
    "o. J.",
    "s.d.",
    "s.f.",
    "sans date",
    "z.j.",
    *("(n.d.)", "[undated]", "ohne Datum", "k. A.", "keine Angabe", "n/a", "-", "–"),
]

NOT_UNDERSTOOD = [
    *("xyz", "0", "0000", "85", "'85", "12", "XIX", "NA", "nan", "?", "1,885", "31048", "18851890"),
    *("painted in Maine, 1885", "copy after a work of 1885", "after Rembrandt, 1885", "1885, cast by the estate"),
    *("1885 or 86", "1935-29", "1885/86/87", "1905/06/07", "1885 - present", "1885BC", "1985 BC", "-1985", "–1985"),
    *("before", "after", "c.", "century", "early", "1885 before", "99th century", "1885a", "Vancouver, BC, 1985"),
    *("明治18年", "1885 г.", "not 1885", "1885 [recte 1985]", "90s", "1 January", "1885 x 1990"),
    # A part that belongs to nothing, a decade that may be the next century's, an era before its year.
    *("1885, late cast", "1885, imprimé fin", "1885 (late)", "1885, Ende", "late 19th century, early", "1885-9?"),
    *("1885, printed 70s", "1899, printed 20s", "1885, cast 00s", "1885, printed 90s", "1885, 70s", "BC 500"),
]


@pytest.mark.parametrize(("text", "begin", "end"), UNDERSTOOD)
def test_dates_as_museums_write_them(text: str, begin: int | None, end: int | None) -> None:
    """Each spelling gives its first and its last year, or that there is none."""
    found = read(text)
    assert found is not None
    assert (found.begin, found.end) == (begin, end)


@pytest.mark.parametrize(("text", "begin", "since", "reissued"), OPEN_ENDED)
def test_no_word_ends_what_is_open(text: str, begin: int | None, since: int, reissued: bool) -> None:
    """An end that is not known stays so, with the latest year that is named, whatever else is said."""
    assert read(text) == Years(begin, None, since=since, reissued=reissued)


@pytest.mark.parametrize("text", UNDATED)
def test_undated_is_understood(text: str) -> None:
    """That there is no date is something that a date can say."""
    assert read(text) == Years()


@pytest.mark.parametrize("text", NOT_UNDERSTOOD)
def test_what_is_not_understood_is_not_guessed(text: str) -> None:
    """A date with one word that nobody knows gives no year at all, though there is one in it."""
    assert read(text) is None


@pytest.mark.parametrize(("text", "begin", "end"), UNDERSTOOD)
def test_spelling_does_not_matter(text: str, begin: int | None, end: int | None) -> None:
    """Capitals, composed accents and brackets around a date change nothing."""
    for spelled in (text.upper(), text.lower(), unicodedata.normalize("NFD", text)):
        found = read(spelled)
        assert found is not None
        assert (found.begin, found.end) == (begin, end)


def test_every_short_range_ends_where_it_says() -> None:
    """Over a century of years: a shortened range has the end that it writes, and never an earlier one."""
    for first, ahead, dash in itertools.product(range(1850, 1950, 7), range(1, 60), "-–/"):
        last = first + ahead
        found = read(f"{first}{dash}{last % 100:02}")
        if last % 100 > first % 100 or ahead <= date_words.NEAR:
            assert found == Years(first, last)
        else:  # Over the turn of a century, and far: nobody shortens so. A month or nothing.
            assert found in (None, Years(first, first))


def test_further_words_never_make_an_end_earlier() -> None:
    """Whatever understood word is put before or behind a year, its end is that year, later, or open."""
    vocabulary = date_words.vocabulary()
    phrases = [each for group in vocabulary["words"].values() for each in group]
    phrases += [each for part in vocabulary["parts"] for each in part["words"]]
    for phrase, place in itertools.product(phrases, ("{} 1885", "1885 {}", "1880, {} 1885", "1885 {} 1880")):
        found = read(place.format(phrase))
        assert found is None or found.end is None or found.end >= 1885


def test_words_are_of_kinds_that_the_parser_knows() -> None:
    """A group that the parser passes over would make a word understood that changes nothing."""
    assert set(date_words.vocabulary()["words"]) == {
        *("about", "before", "after", "from", "earlier", "later", "undated", "century", "decade", "bc", "ad", "month"),
        *("made", "reworked", "cast", "published", "reissued", "note"),
    }


def test_several_dates_come_to_the_later_end() -> None:
    """Of dates that disagree, the later end counts, and none where one has none; undated ones say nothing."""
    both = dates.together([Years(1885, 1885), Years(1970, 1970)])
    assert both == dates.together([Years(1970, 1970), Years(), Years(1885, 1885)]) == Years(1885, 1970)
    assert dates.together([Years(1885, 1885), Years(None, None, since=1930)]) == Years(1885, None, since=1930)
    assert dates.together([Years(1950, 1950), Years(1930, None, since=1930)]) == Years(1930, None, since=1950)
    assert dates.together([Years(1885, 1885), Years(reissued=True)]) == Years(1885, None, since=1885, reissued=True)
    assert dates.together([]) == dates.together([Years()]) == Years()


@pytest.mark.parametrize(
    ("text", "made", "end", "said"),
    [
        ("Bronze, posthumous cast 1998", None, 1998, True),
        ("The Thinker (cast 1998)", 1885, 1998, True),
        ("Etching, printed 1950 by Doe", 1885, None, True),
        ("Bronze, cast", None, None, True),
        ("The Thinker (1998 cast)", 1885, None, True),
        ("1998 cast, 1885", 1885, None, True),
        ("Cast of 1885, 1998", 1885, 1998, True),
        ("Radierung, gedruckt", None, None, True),
        *(
            (medium, 1885, None, True)
            for medium in ("Bronze, posthumer Guss", "restrike", "later print", "fonte posthume")
        ),
        *((medium, 1885, None, True) for medium in ("fundición póstuma", "fusione postuma", "posthuum gegoten")),
        ("Etching, printed in brown ink", 1885, None, False),
        ("Bronze, cast 1880", 1885, None, False),
        ("Shadows cast by trees", 1885, None, False),
        ("Castle", None, None, False),
        ("Albumen print", None, None, False),
    ],
)
def test_casts_and_prints_in_a_title_or_medium(text: str, made: int | None, end: int | None, said: bool) -> None:
    """They count where the work is undated, or where they are later than its date, or by their own word."""
    found = dates.issued(text, made)
    assert (found is not None) is said
    assert found is None or (found.end == end and (end is not None or found.reissued))


@pytest.mark.parametrize(
    ("text", "year"),
    [
        *(
            (text, 1910)
            for text in ("† 1910", "gest. 1910", "died 1910", "d. 1910", "mort en 1910", "1836-1910", "1910")
        ),
        *((text, None) for text in ("c. 1910", "gest. um 1910", "1910?", "after 1910", "still alive", "", "n/a")),
        ("Prouts Neck, 1910", None),  # A place that nobody knows may be a word as well: "living, 1910".
    ],
)
def test_years_of_death(text: str, year: int | None) -> None:
    """A year of death may be called one; what is not certain is not known."""
    assert dates.death(text) == year


def test_no_word_ends_another_act() -> None:
    """Whatever understood word is put before a later or earlier year, what goes on after 1930 does not end before."""
    vocabulary = date_words.vocabulary()["words"]
    phrases = [each for group in vocabulary.values() for each in group]
    for phrase, place in itertools.product(
        phrases, ("after 1930, {} 1885", "cast from 1930; {} 1885", "{} after 1930")
    ):
        found = read(place.format(phrase))
        assert found is None or found.end is None or found.end > 1930, (phrase, found)
    for phrase in (*vocabulary["cast"], *vocabulary["published"], *vocabulary["reissued"]):
        for place in ("1885, {}", "1885 ({})", "{}; 1885", "{} after 1905", "modeled 1885, {}"):
            found = read(place.format(phrase))
            assert found is None or found.reissued, phrase


def test_own_years_of_a_museum_come_first() -> None:
    """A museum's own numbers stand; the displayed date is read where the last year is missing, which may be 0."""
    assert known(1873, 1876, "c. 1900") == Years(1873, 1876)
    assert known(None, 1876, "1900") == Years(None, 1876)
    assert known(None, None, "1929–35") == known(0, 0, "1929–35") == Years(1929, 1935)
    assert known(1929, None, "1929–35") == Years(1929, 1935)
    assert known(1890, None, "after 1890") == Years(1890, None, since=1890)
    assert known(1890, None, "xyz") == known(1890, None, "") == Years(1890, None)
    assert known(None, None, "") == Years()
    assert known(1885, 1885, "1885, cast posthumously") == Years(1885, None, since=1885, reissued=True)
    assert known(None, None, "before 1890 or after 1932") == Years(None, None, since=1932)


def test_only_what_hides_a_year_is_said() -> None:
    """The ledger says of a date that it is not understood only where the work's last year hangs on it."""
    assert dates.unread(Years(), "xyz") == ("date 'xyz'",)
    assert dates.unread(Years(1885, 1885), "xyz") == dates.unread(Years(), "n.d.") == dates.unread(Years(), "") == ()
