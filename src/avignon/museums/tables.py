"""CSV tables of programs: written, and read by column name; an error names the file and the line."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten

from avignon.core.errors import InputError

Row = dict[str, str]

csv.field_size_limit(2**24)  # Provenance texts pass the module's default of 128 kB.


def rows(path: Path, columns: tuple[str, ...], name: str = "") -> Iterator[tuple[int, Row]]:
    """The rows of a UTF-8 table, each with the line on which it ends.

    These `columns` must be there; further ones are kept, too. Errors call the table `name`, or by its path.

    Raises:
        InputError: naming the table, and the column or the line.
    """
    name = name or str(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        begins = 1
        try:
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                there = shorten(", ".join(reader.fieldnames or ()), 200) or "none"
                raise InputError(f"{name}: column {', '.join(missing)} is missing; there are: {there}")
            begins = reader.line_num + 1
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(f"{name}: line {reader.line_num}: as many fields as columns are needed")
                yield reader.line_num, row
                begins = reader.line_num + 1
        except UnicodeDecodeError as wrong:
            raise InputError(f"{name}: line {_undecodable(path)}: not UTF-8 ({wrong.reason})") from None
        except csv.Error as broken:
            raise InputError(f"{name}: line {begins}: not CSV: {broken}") from None


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """A table of these columns as CSV; a field that a row lacks is empty, and others are left out."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, lineterminator="\n", restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _undecodable(path: Path) -> int:
    """The first line that is not UTF-8; the decoder itself reads ahead, and knows only its own block."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    raise AssertionError("all lines are UTF-8")
