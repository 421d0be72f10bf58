"""Words for people: titles without marks, and a program that names no page that is not there."""

import csv
import importlib.metadata
import re
from email.message import Message

import pytest

from avignon import __version__
from avignon.core import about, text
from avignon.stages.prepare import captions_of
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Study for _The Fog Warning_", "Study for The Fog Warning"),
        ("<i>Breezing Up</i> (A Fair Wind)", "Breezing Up (A Fair Wind)"),
        ('<em class="x">The Gulf Stream</em><br/>after 1899', "The Gulf Stream after 1899"),
        ("**Guernica**: *study*", "Guernica: study"),
        ("_<i>Sea</i>_", "Sea"),
        ("**_Sea_**", "Sea"),
        ("_**Sea**_", "Sea"),
        ("Boys &amp; Kitten", "Boys & Kitten"),
        ("L&#39;Estaque", "L'Estaque"),
        ("&lt;i&gt;Sea&lt;/i&gt;", "Sea"),
        ("&amp;lt;i&amp;gt;Sea&amp;lt;/i&amp;gt;", "<i>Sea</i>"),
        ("Sea&nbsp;and&nbsp;Sky", "Sea and Sky"),
        ("_One_, _Two_", "One, Two"),
        # What is no mark stays as it is.
        ("<Untitled>", "<Untitled>"),
        ("Study_for_2", "Study_for_2"),
        ("M*A*S*H", "M*A*S*H"),
        ("Number 5 < 6 > 4", "Number 5 < 6 > 4"),
        ("____", "____"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("Arms & Armour", "Arms & Armour"),
        ("Rock&notes; AT&T", "Rock&notes; AT&T"),
        ("Breezing Up (A Fair Wind)", "Breezing Up (A Fair Wind)"),
        ("神奈川沖浪裏", "神奈川沖浪裏"),
        ("", ""),
    ],
)
def test_marks_are_taken_out_of_titles(written: str, read: str) -> None:
    """Tags, entities, stars and underscores that set a title go; letters of it stay."""
    assert text.strip_markup(written) == read


def test_captions_have_no_marks() -> None:
    """A caption reads as a person would say it, title, medium and terms alike."""
    row = {
        "title": "Study for _The Fog Warning_ &amp; <i>Eight Bells</i>",
        "medium": "<b>Oil</b> on canvas",
        "classification": "Painting",
        "terms": "_sea_; boys &amp; men",
    }
    captions = captions_of(row, "in the style of homer", 8)
    assert captions[0] == "Study for The Fog Warning & Eight Bells, in the style of homer"
    assert "in the style of homer, sea, boys & men" in captions
    assert not [caption for caption in captions if re.search(r"[_<>]|&amp;", caption)]


def test_embedded_museum_keeps_its_captions() -> None:
    """The demo's titles are read as they always were, so that its captions and adapters are the same bits."""
    with (ROOT / "src/avignon/demo/tables/objects.csv").open(encoding="utf-8-sig", newline="") as file:
        titles = {row["objectid"]: row["title"] for row in csv.DictReader(file)}
    changed = {
        number: text.strip_markup(title) for number, title in titles.items() if text.strip_markup(title) != title
    }
    assert changed == {"910006": "Haying, <b>Late August</b>"}


def named(monkeypatch: pytest.MonkeyPatch, *entries: str) -> None:
    """Let the installed package's metadata name these places."""
    told = Message()
    for entry in entries:
        told["Project-URL"] = entry
    monkeypatch.setattr("importlib.metadata.metadata", lambda _: told)


def test_program_links_only_to_what_its_metadata_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address the program is its name and version; with one, cards and the User-Agent lead there."""
    named(monkeypatch)
    assert about.program_link() == f"avignon {__version__}"
    assert about.user_agent() == f"avignon/{__version__} (museum open data; one request at a time)"
    named(monkeypatch, "Changelog, https://example.org/changes", "Homepage, https://example.org/avignon")
    assert about.program_link() == f"[avignon {__version__}](https://example.org/avignon)"
    assert about.user_agent("me@example.org").startswith(
        f"avignon/{__version__} (+https://example.org/avignon; me@example.org; "
    )


def test_program_that_is_not_installed_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run from a bare checkout, there is no metadata to ask."""

    def unknown(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.metadata", unknown)
    assert about.homepage() == ""


def test_no_page_of_a_package_index_is_named() -> None:
    """No code, template or document leads to a page of this package on an index, where there is none."""
    files = [
        *(ROOT / "src").rglob("*.py"),
        *(ROOT / "src").rglob("*.html"),
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
    ]
    dead = re.compile(r"pypi\.org/(project|p|pypi)/avignon|pypi\.python\.org")
    assert [path.name for path in files if dead.search(path.read_text(encoding="utf-8"))] == []
