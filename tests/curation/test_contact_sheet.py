"""The contact sheet: one picture of any number of works, and a page that says what overrules each decision."""

from dataclasses import replace

import pytest
from PIL import Image

from avignon.core import imaging, pages
from avignon.curation import contact_sheet as contact
from avignon.curation.gate import THUMBNAIL


def a_print(number: int, *, kept: bool = True, title: str = "A Boat") -> contact.Print:
    """A work on the sheet, with a picture of 8 × 6 pixels."""
    picture = pages.webp_bytes(Image.new("RGB", (8, 6), "navy"), 8)
    return contact.Print("Ann", str(number), title, "1873, 8×6 pixels", kept, "" if kept else "x", "Open.", picture)


@pytest.mark.slow
def test_contact_sheet_of_many_is_a_picture_still() -> None:
    """A JPEG is no higher than 65,500 pixels: of very many works the sheet becomes wider."""
    width, height = imaging.size_of(contact.sheet([a_print(n) for n in range(1300)]))
    assert width > 6 * THUMBNAIL
    assert height < 65500


def test_contact_sheet_stands_artist_by_artist() -> None:
    """Each artist begins a row of their own, under a heading; a sheet without works is a picture, too."""
    one = imaging.size_of(contact.sheet([a_print(1)]))
    two = imaging.size_of(contact.sheet([a_print(1), replace(a_print(2), artist="Bo")]))
    assert two == (one[0], 2 * one[1])
    assert imaging.size_of(contact.sheet([]))[1] == 1


def test_contact_sheet_draws_what_its_font_has() -> None:
    """Accents fall away and unknown letters become question marks, where Pillow's font would draw empty boxes."""
    drawn = contact.sheet([a_print(1, title="Étude à 96×72, 海")])
    assert drawn == contact.sheet([a_print(1, title="Etude a 96x72, ?")])


def test_page_says_what_overrules_and_leaves_out_empty_walls() -> None:
    """The page tells where the decisions go, shows date and size, and has no heading without works."""
    page = contact.page("x", [a_print(1)], {"Ann": ""})
    assert "copy it into the" in page
    assert "1873, 8×6 pixels" in page
    assert "<h3>Kept</h3>" in page
    assert "Rejected" not in page
