"""Artists' names: found in any order, without accents or case, and suggested where they are slips."""

import pytest

from avignon.museums import names

KNOWN = ["Homer, Winslow", "Martin, Homer Dodge", "Picasso, Pablo", "Léger, Fernand", "Gogh, Vincent van", "Gris, Juan"]


@pytest.mark.parametrize(
    "name",
    ["Winslow Homer", "Homer, Winslow", "HOMER, winslow", "  winslow   homer ", "winslow_homer", "Winslow-Homer"],
)
def test_one_person_has_one_key(name: str) -> None:
    """Order, case, commas, blanks and a folder's hyphens make no other person."""
    assert names.key(name) == names.key("Winslow Homer")


def test_accents_fall_away() -> None:
    """A name is found with its accents, composed or not, and without."""
    assert names.key("Léger") == names.key("Le\u0301ger") == names.key("LEGER")


def test_others_keep_their_own_key() -> None:
    """A part of a name, or another name, is not the name."""
    assert len({names.key(name) for name in (*KNOWN, "Homer", "Marina Picasso")}) == len(KNOWN) + 2


@pytest.mark.parametrize(
    ("slip", "first"),
    [
        ("Winslow Homr", "Homer, Winslow"),
        ("Picaso", "Picasso, Pablo"),
        ("Homer", "Homer, Winslow"),
        ("van Gogh", "Gogh, Vincent van"),
        ("Fernando Leger", "Léger, Fernand"),
    ],
)
def test_nearest_is_suggested(slip: str, first: str) -> None:
    """A slip of the pen, or a bare surname, is answered with the name that was meant."""
    assert names.nearest(slip, KNOWN)[0] == first
    assert names.unknown(slip, KNOWN).startswith(f"no artist {slip!r}; nearest are {first}")


def test_surname_gives_all_who_bear_it() -> None:
    """A bare surname names every bearer, and no more than three names are given."""
    assert names.nearest("homer", KNOWN)[:2] == ["Homer, Winslow", "Martin, Homer Dodge"]
    assert len(names.nearest("ann", [f"Ann {letter}" for letter in "ABCDE"])) == 3


@pytest.mark.parametrize("name", ["Qwxyz", "", "★"])
def test_stranger_has_no_neighbours(name: str) -> None:
    """Where no name comes near, the line says so instead of guessing."""
    assert names.unknown(name, KNOWN) == f"no artist {name!r}; no name comes near"


HOMER = "Winslow Homer"


@pytest.mark.parametrize(
    "text",
    [
        *("Winslow Homer", "HOMER, Winslow", "Winslow Homer (1836-1910)", "Homer, Winslow (American, 1836–1910)"),
        *("Homer, Winslow, 1836-1910", "Homer, Winslow, 1836-1910, artist.", "Winslow Homer 1836-1910"),
        *("Winslow Homer (American)", "Winslow Homer [américain]", "Winslow Homer, American, 1836-1910"),
        *("Winslow Homer (b. 1836, d. 1910)", "Winslow Homer (geb. 1836, gest. 1910)", "Winslow Homer (c1836 - 1910)"),
        *("Winslow Homer (Amerikaner, *1836 †1910)", "Winslow Homer (né en 1836)", "Winslow Homer (peintre)"),
        "Winslow Homer (American, Boston, Massachusetts 1836–1910 Prouts Neck, Maine)",
    ],
)
def test_certain_attribution(text: str) -> None:
    """A8: the name in any order, with the dates of a life or none, is certain."""
    assert names.doubt(text, HOMER) == ""


@pytest.mark.parametrize(
    "text",
    [
        *("After Winslow Homer", "AFTER HOMER", "Attributed to Winslow Homer", "Homer, Winslow (attributed to)"),
        *(
            "Winslow Homer ?",
            "Winslow Homer (?)",
            "[Winslow Homer?]",
            "Possibly by W. Homer",
            "Winslow Homer (after 1880)",
        ),
        *("Workshop of Winslow Homer", "Circle of Homer", "Follower of Winslow Homer", "Copy after Winslow Homer"),
        *("School of Winslow Homer", "Manner of Homer", "Winslow Homer's studio", "formerly attributed to Homer"),
        *("nach Winslow Homer", "Winslow Homer zugeschrieben", "Werkstatt Winslow Homers", "Homer, Winslow (Umkreis)"),
        *("Schule des Winslow Homer", "Kopie nach Homer", "wohl Winslow Homer", "Art des Winslow Homer"),
        *(
            "attribué à Winslow Homer",
            "d'après Winslow Homer",
            "D’APRÈS HOMER",
            "atelier de Winslow Homer",
            "École de Homer",
        ),
        *("atribuido a Winslow Homer", "taller de Homer", "según Winslow Homer", "círculo de Winslow Homer"),
        *("attribuito a Winslow Homer", "bottega di Homer", "scuola di Winslow Homer", "cerchia di Homer"),
        *("naar Winslow Homer", "toegeschreven aan Winslow Homer", "navolger van Homer", "omgeving van Winslow Homer"),
        *(
            "Winslow Homer; John La Farge",
            "Homer & La Farge",
            "Homer and La Farge",
            "La Farge / Homer",
            "Homer und Gris",
        ),
        *(
            "Winslow Homer, John La Farge",
            "Homer et La Farge",
            "Homer y Gris",
            "Homer AND Gris",
            "Winslow Homer et al.",
        ),
        *(
            "Engraved by John Smith after Winslow Homer",
            "Winslow Homer, American",
            "After_Winslow_Homer",
            "Winslow Homer - Copy",
        ),
        *(
            "Winslow Homer (with John La Farge, 1885)",
            "Winslow Homer (engraver Doe, 1850)",
            "Winslow Homer [Doe, 1885]",
        ),
        *("Winslow Homer (forged in 1950)", "Winslow Homer (Fälscher, 1950)", "Winslow Homer (reproduced 1950)"),
        *("Winslow Homer (not, 1950)", "Winslow Homer (gravé par Doe, 1850)", "Winslow Homer (gefälscht 1950)"),
        *("Winslow Homer & French (1885)", "Winslow Homer (American engraver Doe, 1850-1890)", "not by Homer"),
        *("Winslow Homer (American; Doe 1850-1890)", "Winslow Homer (American, Doe 1885-1886)", "nicht Homer"),
        *("Kopien nach Homer", "forgeries of Homer", "copias de Homer", "imitazioni di Homer", "kopieën naar Homer"),
    ],
)
def test_doubtful_attribution(text: str) -> None:
    """A8: words of doubt or of other hands, in six languages, and names beside: neither certain nor absent."""
    assert names.doubt(text, HOMER) == f"attribution is {text!r}"


def test_words_of_a_name_are_no_doubt() -> None:
    """An artist may be called like a doubt or a nation, with the dates of a life, too."""
    assert names.doubt("Pas, Crispijn van de (1564-1637)", "Crispijn van de Pas") == ""
    assert names.doubt("French, Daniel Chester, 1850-1931", "Daniel Chester French") == ""
    assert names.doubt("★", "★") is None


@pytest.mark.parametrize(
    "text", ["", "John La Farge", "After Picasso", "Homer Martin", "Circle of Homer Martin", "Unknown", "Bo & Ann", "?"]
)
def test_attribution_to_others(text: str) -> None:
    """A8: what is about somebody else is no doubt of this artist's."""
    assert names.doubt(text, HOMER) is None


def test_names_that_hold_such_words() -> None:
    """A8: a name keeps its own words: an artist may be called van, La or School."""
    assert names.doubt("naar Van Gogh", "Vincent van Gogh") == "attribution is 'naar Van Gogh'"
    assert names.doubt("La Farge, John", "John La Farge") == ""
    assert names.doubt("After Winslow Homer", "After Winslow Homer") == ""
    assert names.doubt("Theo van Gogh", "Vincent van Gogh") is None
    assert names.doubt("Ortega y Gasset", "Ortega y Gasset") == ""


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Homer",
            "W. Homer",
            "Winslow Homr",
            "Winslow Homer Jr.",
            "Homer, W.",
            "WinslowHomer",
            "Homr",
            "HomerWinslow",
        ),
        *("Winslow Hоmer", "Wіnslow Homer"),  # One letter of each is Cyrillic.
    ],
)
def test_near_names(text: str) -> None:
    """A8: a part, initials, a slip or more than the name is near; a namesake is not."""
    assert names.is_near(text, HOMER)
    assert not names.is_near("Homer Martin", HOMER)
    assert not names.is_near("Marina Picasso", "Pablo Picasso")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Gerard Terborch", "Gerard ter Borch"),
        ("Ter Borch, Gerard", "Gerard Terborch"),
        ("Cranach der Ältere", "Lucas Cranach d. Ä."),
        ("Lucas Cranach d. Ä.", "Lucas Cranach der Ältere"),
        ("葛飾 北斎", "葛飾北斎"),
        ("Winslow Homer", "W. Homer"),
    ],
)
def test_near_spellings(text: str, wanted: str) -> None:
    """Blanks within a name and shortened parts of it do not hide it; a namesake's initials are not enough."""
    assert names.is_near(text, wanted)
    assert not names.is_near("Albrecht Dürer", wanted)


def test_roles_and_qualifiers() -> None:
    """A8: what stands beside a name alone: an own hand, a joining word, or a doubt."""
    assert all(map(names.is_own_hand, ("", "artist", "Painter, printmaker", "and", "Maler und Zeichner", "schilder")))
    assert all(map(names.is_own_hand, ("creator", "author", "maker", "Urheber", "Autor", "Grafiker", "Radierer")))
    assert all(map(names.is_own_hand, ("Druckgrafikerin", "illustrator", "créateur", "autore", "creadora", "etser")))
    assert not any(map(names.is_own_hand, ("artist after", "Attributed to", "?", "publisher", "painter (?)")))
    assert all(map(names.is_qualifier, ("attributed to", "zugeschrieben", "Werkstatt des", "d'après", "after_")))
    assert not any(map(names.is_qualifier, ("", "early", "1885", "after the storm", "of the", "Art", "suite")))


@pytest.mark.parametrize(
    "folder",
    [
        *("Kopien", "Fälschungen", "Zuschreibungen", "forgeries", "fakes", "attributions", "attributed works"),
        *("doubtful attributions", "after Homer", "Umkreis Homer", "not Homer", "fraglich (Müller)", "copies by Smith"),
        *("Nachahmer und Kopisten", "contrefaçons", "copies d'élèves", "atribuciones", "imitazioni", "kopieën"),
        *("Homer & La Farge", "Homer?", "not by him", "nach", "after", "d'après Homer", "toegeschreven werken"),
    ],
)
def test_folders_that_doubt(folder: str) -> None:
    """A folder within the artist's that has a word of doubt or other hands, in the plural, or with a name."""
    assert names.is_doubtful_place(folder, HOMER)


@pytest.mark.parametrize(
    ("folder", "plain"),
    [
        *((each, True) for each in ("early", "1885", "Aquarelle, 1880s", "after 1880", "vol2", "Homer watercolors")),
        *((each, False) for each in ("after the storm", "not scanned", "Prouts Neck", "John La Farge", "Müller")),
    ],
)
def test_folders_that_do_not_doubt(folder: str, plain: bool) -> None:
    """A folder of a period or a technique is the artist's; one that may be called after anybody is not certain."""
    assert not names.is_doubtful_place(folder, HOMER)
    assert names.is_plain_place(folder, HOMER) == plain
