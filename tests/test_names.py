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
