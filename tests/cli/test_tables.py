"""columns: plain tables that fit the terminal and lose nothing."""

import pytest

from avignon.cli.tables import table

PAGE = "https://www.nga.gov/collection/art-object-page.30228.html"


def test_columns_stand_under_each_other() -> None:
    """A title, a header, a rule, and rows in columns; nothing at the lines' ends."""
    lines = list(table("Homer: 2 works", ("id", "title"), [("30228", "Breezing Up"), ("7", "Sloop")], 80))
    assert lines == [
        *("Homer: 2 works", ""),
        "id      title",
        "─────   ───────────",
        "30228   Breezing Up",
        "7       Sloop",
    ]


@pytest.mark.parametrize("width", [100, 60, 40])
def test_what_is_too_wide_goes_over(width: int) -> None:
    """No line is wider than the terminal, and every letter of a long address stays."""
    rows = [("30228", "Breezing Up (A Fair Wind), with a boy at the tiller", PAGE)]
    lines = list(table("x", ("id", "title", "page"), rows, width))[4:]
    assert max(map(len, lines)) <= width
    assert len(lines) > 1
    assert sorted("".join(lines).replace(" ", "")) == sorted("".join(rows[0]).replace(" ", ""))


def test_no_terminal_is_too_narrow() -> None:
    """Where nothing fits, columns stay readable and lines become longer than the terminal."""
    assert list(table("x", ("a" * 20, "b" * 20), [], 3))[2].startswith("aaaaaa   bbbbbb")


def test_wide_letters_and_accents_keep_the_columns() -> None:
    """A wide character takes two cells and a combining accent none."""
    lines = list(table("x", ("title", "n"), [("日本", "1"), ("e\u0301te", "2"), ("", "")], 80))
    assert lines[4:] == ["日本    1", "e\u0301te     2", ""]


def test_terminals_are_told_nothing() -> None:
    """What a terminal would obey, and line breaks, become spaces."""
    assert list(table("a\x1b[2Jb", ("t",), [("one\r\ntwo\x07",)], 80))[-1] == "one  two"
    assert next(table("a\x1b[2Jb", ("t",), [], 80)) == "a [2Jb"
