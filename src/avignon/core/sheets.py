"""CSV that people save from a spreadsheet: read as meant where that is certain, else one line says how to save it.

Spreadsheets write the separator and the encoding of the machine they run on. A separator shows in the header, UTF-8
and UTF-16 show in their bytes; of the encodings of one byte a letter none is certain, so that they are refused.
"""

import codecs
import csv
import difflib
import io
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from textwrap import shorten

from avignon.core.errors import InputError
from avignon.core.naming import without_accents

Row = dict[str, str]

HOW = 'save it as "CSV UTF-8" (a file type in Excel; in LibreOffice the character set Unicode, UTF-8)'
MARK = "\ufeff"
"""Without it at the beginning, Excel takes UTF-8 for the machine's own encoding, and saves what it mistook."""
SEPARATORS = (",", ";", "\t", "|")
PASSED_OVER = "#"
"""A column whose name begins so is for people: it is not read, and not asked about."""
ALIKE = 0.8
"""Likeness (difflib's ratio) from which an unknown column's name is taken for a slip in a known one."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # Before UTF-16, whose mark it begins with.
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How files of Excel and OpenDocument begin, and those of old Excel."""

_DECLARED = re.compile(r'"?sep=(.)"?[,;\t|]*(?:\r\n|\r|\n|$)', re.IGNORECASE)
"""Excel's own first line for a separator."""


@dataclass(frozen=True)
class Columns:
    """The columns that a sheet may have; their names are compared without case, accents, blanks and signs."""

    what: str
    """What the sheet is, in errors: `index`, `decisions`."""
    names: Mapping[str, Sequence[str]]
    """Each column that is read, and the other names it may have."""
    needed: Sequence[str]
    spared: Sequence[str] = ()
    """Columns for people, passed over without a word."""
    grave: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Columns of which no part may be missed, each with stems: an unknown column that has a word of such a column's
    names, or one of the stems within a word, is an error, too."""
    remarks: Sequence[str] = ()
    """Columns for people that are not read either, but whose values the caller looks through."""

    @cached_property
    def by_key(self) -> dict[str, str]:
        """The column that each spelling stands for."""
        return {_key(each): name for name, others in self.names.items() for each in (name, *others)}

    @cached_property
    def passed_over(self) -> frozenset[str]:
        """Spellings of the columns for people."""
        return frozenset(map(_key, self.spared))

    def known(self, header: Sequence[str]) -> int:
        """How many of a header's names are known."""
        read = self.by_key.keys() | self.passed_over
        return sum(_key(each) in read or self.is_remark(each) for each in header)

    def is_remark(self, name: str) -> bool:
        """Whether a column is one of remarks."""
        return _key(name) in map(_key, self.remarks)

    def near(self, name: str) -> str:
        """The column that an unknown name is a slip of, or a part of; empty where none is near."""
        key = _key(name)
        if alike := difflib.get_close_matches(key, self.by_key, n=1, cutoff=ALIKE):
            return self.by_key[alike[0]]
        words = {_key(word) for word in re.findall(r"[^\W_]+", name)}
        for each, column in self.by_key.items():
            if column in self.grave and each in words:
                return column
        # The longest stem counts: `Urheberrechtsvermerk` is of rights, not of an artist.
        stems = [(stem, column) for column, each in self.grave.items() for stem in map(_key, each) if stem in key]
        return max(stems, key=lambda each: len(each[0]), default=("", ""))[1]


@dataclass(frozen=True)
class Sheet:
    """What was read: only rows that hold anything, and only columns that have a name."""

    rows: list[tuple[int, Row]] = field(default_factory=list)
    """Each with the line on which it ends; a column that the sheet lacks is not in a row either."""
    columns: tuple[str, ...] = ()
    """The known ones that it has."""
    strangers: tuple[str, ...] = ()
    """Columns that nobody knows, by the names they have in the sheet; rows hold them, too."""
    remarks: tuple[str, ...] = ()
    """Columns of remarks, likewise."""


def read(path: Path, columns: Columns) -> Sheet:
    """A sheet's rows by the names of `columns`; an `InputError` names file, line or column, value, and what to do."""
    try:
        return _sheet(_text(path, columns.what), columns)
    except InputError as fault:
        raise InputError(f"{path}: {fault}") from None


def _sheet(text: str, columns: Columns) -> Sheet:
    separator = _separator(text, columns)
    records = _records(text, separator)
    _, first = next(records, (0, []))
    header = _unwrapped(first, separator)
    fields = _fields(header, separator, columns)
    rows = []
    for line, record in records:
        # Certain only where the header was one cell, too, or quotes are left: a file's name may hold a separator.
        inner = _unwrapped(record, separator) if header is not first or '"' in record[0] else record
        rows.append((line, _row(line, inner if len(inner) == len(fields) else record, fields)))
    named = [each for each in fields if each]
    others = [each for each in named if each not in columns.names]
    remarks = tuple(filter(columns.is_remark, others))
    strangers = tuple(each for each in others if each not in remarks)
    return Sheet(rows, tuple(each for each in named if each in columns.names), strangers, remarks)


def _key(name: str) -> str:
    return "".join(filter(str.isalnum, without_accents(name))).casefold()


def _text(path: Path, what: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as unreadable:
        raise InputError(f"{what} cannot be read: {unreadable.strerror}") from None
    if content.startswith(_WORKBOOKS):
        raise InputError(f"a workbook, not CSV; {HOW}")
    mark, encoding = next((each for each in _MARKS if content.startswith(each[0])), (b"", "utf-8"))
    content = content[len(mark) :]
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as wrong:
        if mark:
            raise InputError(f"damaged: not {encoding.upper()}, as its first bytes say; {HOW}") from None
        before, after = content[: wrong.start], content[wrong.start :]
        line = len(re.findall(rb"\r\n|\r|\n", before)) + 1
        # The words around it, as Windows-1252, which most machines in Western Europe write.
        word = re.split(rb"[,;\t|\r\n\"]", before)[-1] + re.split(rb"[,;\t|\r\n\"]", after)[0]
        words = shorten(word.decode("cp1252", "replace"), 60)
        raise InputError(f"line {line}: not UTF-8 ({words!r}, if it is Windows-1252); {HOW}") from None
    if "\0" in text:
        raise InputError(f"not text, or UTF-16 without its mark; {HOW}")
    return text


def _separator(text: str, columns: Columns) -> str:
    """The one that the sheet declares, or else under which its header has the most names that are known."""
    if declared := _DECLARED.match(text):
        return declared[1]

    def names(separator: str) -> tuple[int, int]:
        try:
            _, first = next(_records(text, separator), (0, []))
        except InputError:
            return 0, 0
        header = _unwrapped(first, separator)
        return columns.known(header), len(header)

    return max(SEPARATORS, key=names)


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are neither empty (or separators alone) nor `sep=`, each with the line on which it ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    declared = _DECLARED.match(text)
    begins = 1
    try:
        for record in reader:
            begins = reader.line_num + 1
            holds = any(each.strip("".join(SEPARATORS) + string.whitespace) for each in record)
            if holds and not (declared and reader.line_num == 1):
                yield reader.line_num, record
    except csv.Error as broken:
        raise InputError(f"line {begins}: not CSV: {broken}") from None


def _unwrapped(record: list[str], separator: str) -> list[str]:
    """The fields of a line that was saved as one quoted cell, by a program that expected another separator."""
    if len([each for each in record if each.strip()]) != 1 or separator not in record[0]:
        return record
    try:
        return next(csv.reader([record[0]], delimiter=separator, strict=True), record)
    except csv.Error:
        return record


def _fields(header: Sequence[str], separator: str, columns: Columns) -> list[str | None]:
    """What each of a header's columns is: its known name, its own, empty for none, None for one that is passed over."""
    strange = next((each.strip() for each in header if each.strip().endswith(SEPARATORS)), "")
    if strange:
        raise InputError(
            f"column {strange!r} ends in a second separator beside {separator!r}: the spreadsheet took it for "
            f"one column; import the file with the separator {separator!r}, and save it again"
        )
    fields = [_field(each.strip(), columns) for each in header]
    known = [each for each in fields if each in columns.names]
    twice = next((each for each in known if known.count(each) > 1), None)
    if twice:
        both = [written.strip() for written, each in zip(header, fields, strict=True) if each == twice]
        raise InputError(f"columns {' and '.join(map(repr, both))} both mean {twice}; keep one of them")
    missing = [column for column in columns.needed if column not in fields]
    if missing:
        there = shorten(", ".join(each for each in fields if each), 200)
        first = "; the first line has to name the columns" if header and not columns.known(header) else ""
        lacks = f"columns {' and '.join(missing)} are" if len(missing) > 1 else f"column {missing[0]} is"
        raise InputError(f"{lacks} missing; there {f'are: {there}' if there else 'is none'}{first}")
    return fields


def _field(written: str, columns: Columns) -> str | None:
    key = _key(written)
    if written.startswith(PASSED_OVER) or (key and key in columns.passed_over):
        return None
    if not key:
        return ""
    if key in columns.by_key:
        return columns.by_key[key]
    if not columns.is_remark(written) and (near := columns.near(written)):
        raise InputError(
            f"no such column {written!r}; did you mean {near!r}? One that is not to be read begins with {PASSED_OVER}"
        )
    return written


def _row(line: int, record: Sequence[str], fields: Sequence[str | None]) -> Row:
    """A record by its fields' names. Short ones are complete: Excel leaves out empty cells at the end of a line."""
    row = {name: "" for name in fields if name}
    for place, value in enumerate(each.strip() for each in record):
        name = fields[place] if place < len(fields) else ""
        if name:
            row[name] = value
            if not value.isascii():
                _check_letters(line, name, value)
        elif value and name is not None:
            raise InputError(
                f"line {line}: {shorten(value, 60)!r} stands in column {place + 1}, which has no name; "
                "a value that holds the separator is put in quotes"
            )
    return row


def _check_letters(line: int, name: str, value: str) -> None:
    """Refuse letters that were lost or mistaken when the sheet was saved earlier, as `LÃ©ger` for `Léger`."""
    try:  # UTF-8 that was read as Windows-1252, whose five empty places stand for themselves.
        letters = (letter.encode("latin-1" if "\x80" <= letter <= "\x9f" else "cp1252") for letter in value)
        meant = b"".join(letters).decode()
    except UnicodeError:
        meant = ""
    if meant or "\ufffd" in value:
        should = f"probably {meant!r}" if meant else "a letter is lost"
        raise InputError(
            f"line {line}: {name}: {shorten(value, 60)!r} was opened in a wrong encoding ({should}); "
            f"correct it and {HOW}"
        )
