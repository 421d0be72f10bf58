"""Rows as plain text in columns, for the terminal.

rich draws tables, too, but importing it and drawing one took a fifth of the time of `avignon works`.
"""

import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import click

GAP = "   "
"""Between two columns."""
NARROW = 6
"""Cells below which no column is made narrower, whatever the width; words are no longer read then."""


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as the terminal, or 160 cells wide where there is none."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
    click.echo("\n".join(table(title, header, rows, width)))


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Lines of a table at most `width` cells wide, as far as its columns allow."""
    cells = [[_printable(cell) for cell in row] for row in (header, *rows)]
    widths = _fitted([max(map(_cells, column)) for column in zip(*cells, strict=True)], width)
    yield _printable(title)
    yield ""
    for number, row in enumerate(cells):
        for parts in zip_longest(*map(_folded, row, widths), fillvalue=""):
            padded = (part + " " * (each - _cells(part)) for part, each in zip(parts, widths, strict=True))
            yield GAP.join(padded).rstrip()
        if number == 0:
            yield GAP.join("─" * each for each in widths)


def _printable(text: str) -> str:
    """Text without line breaks or what a terminal would obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _cells(text: str) -> int:
    """How many cells of a terminal a text takes: none for an accent of its own, two for a wide character."""
    if text.isascii():
        return len(text)
    letters = [c for c in text if not unicodedata.combining(c)]
    return len(letters) + sum(unicodedata.east_asian_width(c) in "WF" for c in letters)


def _fitted(widths: list[int], width: int) -> list[int]:
    """The columns' widths, the widest made narrower until all fit."""
    room = width - len(GAP) * (len(widths) - 1)
    fitted = list(widths)
    while sum(fitted) > room and (widest := max(fitted)) > NARROW:
        fitted[fitted.index(widest)] -= 1
    return fitted


def _folded(text: str, width: int) -> Iterator[str]:
    """A cell's lines. A word that is too long is broken, never shortened: an address that is cut off leads nowhere."""
    if _cells(text) <= width:
        yield text
        return
    line = ""
    for word in text.split():
        if line and _cells(f"{line} {word}") > width:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
        while _cells(line) > width:  # It is a single word.
            end = next(end for end in range(1, len(line)) if _cells(line[: end + 1]) > width)
            yield line[:end]
            line = line[end:]
    yield line
