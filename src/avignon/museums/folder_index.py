"""The index of a folder of scans, `index.csv`: a row for each picture, read as a spreadsheet saves it."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import shorten

from avignon.core import sheets
from avignon.core.errors import InputError
from avignon.core.naming import slug, stem
from avignon.core.records import Access
from avignon.core.sheets import Row
from avignon.museums import names, statements, words
from avignon.museums.files import TABLES, Files, composed, is_read

INDEX = "index.csv"

Listed = tuple[Row, str]
"""A picture's row, and why it is no artist's work; empty where that depends on the artist."""


@functools.cache
def columns() -> sheets.Columns:
    """The columns of an index."""
    data = words.vocabulary("index.toml")
    spared, remarks = data["spared"]["columns"], data["remarks"]["columns"]
    return sheets.Columns("index", data["columns"], ("file",), spared, data["grave"], remarks)


def index_in(files: Files) -> str:
    """The name of the folder's index, in whatever case; empty where there is none.

    Raises:
        InputError: there is one, but not as CSV.
    """
    for path in files.root.iterdir():
        if path.name.casefold() == INDEX and path.is_dir():
            raise InputError(f"{path}: a folder stands where the index is expected; give it another name")
    top = [each for each in files.all if "/" not in each]
    found = [each for each in top if each.casefold() == INDEX]
    if found:
        return INDEX if INDEX in found else found[0]
    for name in top:
        if name.casefold().startswith("index") and Path(name).suffix.lower() in TABLES | {".txt"}:
            raise InputError(f"{files.root / name}: not read; the index is called {INDEX}: {sheets.HOW}")
    return ""


def read(index: Path, files: Files, wanted: Sequence[str], year: int, warn: Callable[[str], None]) -> list[Listed]:
    """The index's rows, each with a file inside the folder, and a row for each picture that it does not name.

    Raises:
        InputError: naming the file, the line, the field and the value.
    """
    sheet = sheets.read(index, columns())
    if not sheet.rows:
        raise InputError(f"{index}: names no picture")
    if "artist" in sheet.columns and not any(row["artist"] for _, row in sheet.rows):
        raise InputError(f"{index}: column artist names nobody; write each picture's artist into it, or take it out")
    _check_strangers(index, sheet, wanted, year)
    if sheet.strangers:
        text = f"{index}: columns that are not read: {', '.join(sheet.strangers)}; read: {', '.join(sheet.columns)}"
        if "artist" not in sheet.columns:
            text += "; none names an artist, so that all works count as those of whoever is asked for"
        warn(text)
    rows = [row | {"file": _located(index, line, row["file"], files)} for line, row in sheet.rows]
    named = {composed(row["file"]) for row in rows}
    others = [each for each in files.pictures if composed(each) not in named]
    listed = with_ids([*((row, "") for row in rows), *(({"file": each}, f"not in {index.name}") for each in others)])
    _check_twice(index, [line for line, _ in sheet.rows], rows)
    return listed


def with_ids(listed: Sequence[Listed]) -> list[Listed]:
    """The rows, each with an id: its own, or its file's name without suffix where no other file has that.

    A file that is not used has its id after those that are, which would change where one is put beside them.
    """
    used = [not reason and is_read(row["file"]) for row, reason in listed]
    taken = {row["object_id"] for row, _ in listed if row.get("object_id")}
    for wanted in (True, False):
        rows = [row for (row, _), each in zip(listed, used, strict=True) if each is wanted and not row.get("object_id")]
        plain = {row["file"]: slug(Path(row["file"]).with_suffix("").as_posix()) for row in rows}
        counts = Counter(plain.values())
        for row in rows:
            name = plain[row["file"]]
            row["object_id"] = name if name and counts[name] == 1 and name not in taken else stem(row["file"])
        taken |= set(plain.values())
    return list(listed)


def _located(index: Path, line: int, name: str, files: Files) -> str:
    """The file that a row names, as it is called on this disk."""
    if not name:
        raise InputError(f"{index}: line {line}: file is empty")
    short = name if len(name) <= 255 else f"{name[:255]}…"
    where = f"{index}: line {line}: file: {short!r}"
    for each in (name, name.replace("\\", "/")):  # It may be written as in Windows.
        path = index.parent / each
        if not path.resolve().is_relative_to(index.parent.resolve()):
            raise InputError(f"{where} lies outside the folder")
        if os.path.isfile(path):  # noqa: PTH113 - false, where `Path.is_file` raises, for a name that is too long
            return Path(os.path.normpath(each)).as_posix()
        if composed(each) in files.by_name:
            return files.by_name[composed(each)]
    near = files.nearest(name.replace("\\", "/"))
    what = "is a folder" if os.path.isdir(index.parent / name) else "does not exist"  # noqa: PTH112 - as above
    raise InputError(f"{where} {what}" + (f"; nearest is {near!r}" if near else ""))


def _check_strangers(index: Path, sheet: sheets.Sheet, wanted: Sequence[str], year: int) -> None:
    """Raise for a column that is not read but says who made a work, who did not, or what may be done with it."""
    named = "artist" in sheet.columns
    for line, row in sheet.rows:
        for column in (*sheet.strangers, *sheet.remarks):
            if should := _meant(row[column], wanted, year, named=named, remark=column in sheet.remarks):
                raise InputError(
                    f"{index}: line {line}: column {column!r} says {shorten(row[column], 100)!r}, but no column of "
                    f"that name is read; call it {should}, or {sheets.PASSED_OVER}{column} where it is not to be read"
                )


def _meant(value: str, wanted: Sequence[str], year: int, *, named: bool, remark: bool) -> str:
    """The column in which a value of one that is not read belongs; empty where it seems to be none that matters.

    `named`: the index has a column for the artist. `remark`: names and rights need no column of their own there.
    """
    if not (named or remark) and any(names.doubt(value, name) is not None for name in wanted):
        return "artist"
    if any(names.is_qualifier(value, name) for name in wanted):
        return "qualifier"
    if remark:  # What it claims of rights restricts the work (`folder`).
        return ""
    stated = statements.read(value, year)
    return "rights" if stated.access is not Access.UNKNOWN or stated.condition else ""


def _check_twice(index: Path, lines: Sequence[int], rows: Sequence[Row]) -> None:
    """Raise where two lines name one file, however it is written, or an artist has two works of one id."""
    seen: dict[tuple[object, ...], tuple[int, str]] = {}
    for line, row in zip(lines, rows, strict=True):
        state = (index.parent / row["file"]).stat()
        for what, identity in (
            (f"file: {row['file']!r}", (state.st_dev, state.st_ino)),
            (f"object_id {row['object_id']!r}", (names.key(row.get("artist", "")), row["object_id"])),
        ):
            if identity in seen:
                before, file = seen[identity]
                alias = f" as {file!r}" if file != row["file"] and what.startswith("file") else ""
                twice = f"{what} is there twice (first in line {before}{alias}); each work needs its own"
                raise InputError(f"{index}: line {line}: {twice}")
            seen[identity] = line, row["file"]
