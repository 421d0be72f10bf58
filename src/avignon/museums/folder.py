"""A directory of one's own scans.

With an `index.csv`: a row for each picture, by the columns that `index.toml` lists with their other names; `file` is
needed. Without one, the pictures below a subfolder named after the artist are theirs, or all pictures of the folder
where it has no subfolders. Whatever looks like a picture and is not the artist's own for certain carries the reason.
"""

import functools
import os
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import shorten

from avignon.core import sheets
from avignon.core.errors import ImageError, InputError
from avignon.core.formats import SUFFIXES
from avignon.core.imaging import size_of
from avignon.core.naming import slug, stem
from avignon.core.records import Access, Decision, Found, Verdict, Work
from avignon.core.sheets import Row
from avignon.museums import dates, names, rights, statements
from avignon.museums.files import TABLES, Files, candidates, composed, files_of, is_read, unread
from avignon.museums.protocol import Received, Sought, one_line, outside

INDEX = "index.csv"

_NO_PROSE = frozenset({"rights", "file", "artist", "artist_died", "date", "year", "object_id", "accession"})
"""Columns in which no rights are claimed, or that are read for them elsewhere."""

_OF_THE_WORK = frozenset({"title", "medium", "classification", "terms", "qualifier"})

LONGEST = 255
"""Letters of a file's place that an error shows in full."""

Listed = tuple[Row, str]
"""A picture's row, and why it can be nobody's work; empty where that is for its artist to say."""


@functools.cache
def columns() -> sheets.Columns:
    """The columns of an index."""
    data = tomllib.loads(Path(__file__).with_name("index.toml").read_text(encoding="utf-8"))
    spared, remarks = data["spared"]["columns"], data["remarks"]["columns"]
    return sheets.Columns("index", data["columns"], ("file",), spared, data["grave"], remarks)


@dataclass
class Folder:
    """A museum of one's own."""

    path: Path
    year: int = field(default_factory=lambda: time.localtime().tm_year)
    warn: Callable[[str], None] = lambda _: None

    def find(self, artist: Sought) -> list[Found]:
        """The folder's pictures of the artist, by the index or by place; those that are not usable carry the reason."""
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such folder")
        files, wanted = files_of(self.path), [str(name) for name in artist.find or (artist.name,)]
        index = _index(files)
        listed = self._indexed(self.path / index, files, wanted) if index else _unindexed(files)
        self._check_known(wanted, [row for row, _ in listed], index)
        if passed := files.passed_over(index):
            self.warn(f"{self.path}: {passed}")
        stances = ((row, reason or _stance(row, wanted)) for row, reason in listed)
        works = [
            self._found(artist, row, files.misnamed(row["file"]) or reason)
            for row, reason in stances
            if reason is not None
        ]
        self._tell_places([] if index else works)
        return sorted(works, key=lambda found: (found.decision is not None, found.work.object_id))

    def source(self, work: Work) -> str:
        """The file's place, size and time."""
        path = self.path / work.image_url
        state = path.stat()
        return f"{path}; {state.st_size} bytes; {state.st_mtime_ns}"

    def receive(self, work: Work) -> Received:
        """The file's bytes as they are."""
        path = self.path / work.image_url
        try:
            return Received(path.read_bytes(), path.suffix.lower())
        except OSError as unreadable:
            raise ImageError(f"{path}: cannot be read: {unreadable.strerror}") from None

    def _tell_places(self, works: Sequence[Found]) -> None:
        """Warn of folders within an artist's whose names may be anybody's: what is in them counts as the artist's."""
        usable = [each.work for each in works if each.decision is None and each.work.attributed]
        places = [(place, work.attributed) for work in usable for place in work.image_url.split("/")[1:-1]]
        unclear = dict.fromkeys(place for place, artist in places if not names.is_plain_place(place, artist))
        if unclear:
            self.warn(
                f"{self.path}: pictures in {', '.join(map(repr, unclear))} count as the artist's own, since they lie "
                "within the artist's folder; what is not, belongs beside it"
            )

    def _check_known(self, wanted: Sequence[str], rows: Sequence[Row], index: str) -> None:
        """Raise for a name that nobody bears, where rows name their artists."""
        if not any("artist" in row for row in rows):
            return
        known = dict.fromkeys(row["artist"] for row in rows if row.get("artist"))
        for name in wanted:
            if any(names.doubt(each, name) is not None for each in known):
                continue
            empty = [p for p in self.path.iterdir() if p.is_dir() and names.key(p.name) == names.key(name)]
            if empty and not index:
                raise InputError(f"{empty[0]}: no pictures here; allowed are {', '.join(SUFFIXES)}")
            raise InputError(f"{self.path}: {names.unknown(name, known)}")

    def _indexed(self, index: Path, files: Files, wanted: Sequence[str]) -> list[Listed]:
        """The index's rows, each with a file inside the folder, and a row for each picture that it does not name.

        Raises:
            InputError: naming the file, the line, the field and the value.
        """
        sheet = sheets.read(index, columns())
        if not sheet.rows:
            raise InputError(f"{index}: names no picture")
        _check_artists(index, sheet)
        _check_strangers(index, sheet, wanted, self.year)
        if sheet.strangers:
            whose = (
                ""
                if "artist" in sheet.columns
                else "; none names an artist, so that all works count as those of whoever is asked for"
            )
            self.warn(
                f"{index}: columns that are not read: {', '.join(sheet.strangers)}; read: {', '.join(sheet.columns)}"
                f"{whose}"
            )
        rows = [row | {"file": _located(index, line, row["file"], files)} for line, row in sheet.rows]
        named = {composed(row["file"]) for row in rows}
        others = [each for each in files.pictures if composed(each) not in named]
        listed: list[Listed] = [({"file": each}, f"not in {index.name}") for each in others]
        listed = _with_ids([*((row, "") for row in rows), *listed])
        _check_twice(index, [line for line, _ in sheet.rows], rows)
        return listed

    def _found(self, artist: Sought, row: Row, reason: str) -> Found:
        path = self.path / row["file"]
        width = height = 0
        reason = unread(row["file"]) or reason or outside(artist, row.get("classification", ""))
        is_there = path.is_file()  # One whose name is not UTF-8 is listed, but cannot be written about.
        try:
            width, height = size_of(path) if is_there else (0, 0)
        except ImageError as unusable:
            reason = unread(row["file"]) or str(unusable).removeprefix(f"{path}: ")
        years = _years(row)
        title = row.get("title") or path.stem.replace("_", " ").replace("-", " ")
        work = Work(
            museum=self.path.name,
            object_id=row["object_id"],
            artist=artist.name,
            title=one_line(title),
            image_url=row["file"] if is_there else "",
            rights=rights.judged(_evidence(row, self.year), self.year),
            attributed=row.get("artist", ""),
            accession=row.get("accession", ""),
            date=one_line(row.get("date") or row.get("year", "")),
            medium=one_line(row.get("medium", "")),
            classification=row.get("classification", ""),
            terms=tuple(term.strip() for term in row.get("terms", "").split(";") if term.strip()),
            credit=one_line(row.get("credit") or row.get("source", "")),
            width=width,
            height=height,
            begin=years.begin,
            end=years.end,
        )
        return Found(work, Decision(Verdict.REJECTED, reason) if reason else None)


def _stance(row: Row, wanted: Sequence[str]) -> str | None:
    """Why a row's picture is not certainly the wanted artist's: empty where it is, None where it is another's."""
    text, qualifier = row.get("artist"), row.get("qualifier", "")
    doubt = "" if names.is_own_hand(qualifier) else f"attribution is {qualifier!r}"
    if text is None:
        return doubt
    if not text:
        return f"{INDEX} names no artist for it"
    doubts = [each for each in (names.doubt(text, name) for name in wanted) if each is not None]
    if doubts:
        return min(doubts, key=len) or doubt
    near = next((name for name in wanted if names.is_near(text, name)), None)
    return near and f"artist is {text!r}; if that means {near}, add {text!r} to the artist's find in the recipe"


def _index(files: Files) -> str:
    """The name of the folder's index, in whatever case; empty where there is none.

    Raises:
        InputError: there is one, but not as CSV.
    """
    folder = next((p for p in files.root.iterdir() if p.name.casefold() == INDEX and p.is_dir()), None)
    if folder:
        raise InputError(f"{folder}: a folder stands where the index is expected; give it another name")
    top = [each for each in files.all if "/" not in each]
    found = sorted((each for each in top if each.casefold() == INDEX), key=lambda each: each != INDEX)
    if not found:
        kinds = TABLES | {".txt"}
        other = next(
            (p for p in map(Path, top) if p.name.casefold().startswith("index") and p.suffix.lower() in kinds), None
        )
        if other:
            raise InputError(f"{files.root / other}: not read; the index is called {INDEX}: {sheets.HOW}")
    return found[0] if found else ""


def _unindexed(files: Files) -> list[Listed]:
    """A row for each picture: of the artist whose subfolder it is in; of nobody where there are no subfolders.

    Raises:
        InputError: there is no picture, or some lie beside the artists' subfolders.
    """
    if not files.pictures:
        raise InputError(f"{files.root}: no pictures here; allowed are {', '.join(SUFFIXES)}")
    held = [each for each in files.pictures if "/" in each]
    loose = [each for each in files.pictures if "/" not in each]
    usable = [each for each in loose if is_read(each)]
    if not any(map(is_read, held)) and (usable or not held):  # A folder of documents makes nobody an artist.
        return _with_ids([({"file": each}, "") for each in files.pictures])
    if usable:
        artists = ", ".join(dict.fromkeys(each.partition("/")[0] for each in held))
        raise InputError(
            f"{files.root}: {_counted(usable)} beside the subfolders {artists}, so that nothing says whose that is; "
            f"put each picture into its artist's subfolder, or write an {INDEX}"
        )
    beside: list[Listed] = [({"file": each}, "lies beside the artists' subfolders") for each in loose]
    known = {each.partition("/")[0] for each in held}
    return _with_ids([*((_placed(each, known), "") for each in held), *beside])


def _counted(pictures: Sequence[str]) -> str:
    if len(pictures) == 1:
        return f"a picture ({pictures[0]!r}) lies"
    return f"{len(pictures)} pictures (first: {pictures[0]!r}) lie"


def _placed(file: str, artists: Collection[str]) -> Row:
    """A picture in an artist's subfolder; a folder within that doubts it is called so, or after another artist."""
    artist, *deeper = file.split("/")[:-1]
    others = [each for each in artists if names.key(each) != names.key(artist)]
    doubts = (
        place
        for place in deeper
        if names.is_doubtful_place(place, artist) or any(names.is_near(place, other) for other in others)
    )
    return {"file": file, "artist": artist, "qualifier": next(doubts, "")}


def _with_ids(listed: Sequence[Listed]) -> list[Listed]:
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
    where = f"{index}: line {line}: file: {_short(name)!r}" if name else f"{index}: line {line}: file is empty"
    for each in candidates(name) if name else ():
        path = index.parent / each
        if not path.resolve().is_relative_to(index.parent.resolve()):
            raise InputError(f"{where} lies outside the folder")
        if _is(Path.is_file, path):
            return Path(os.path.normpath(each)).as_posix()
        if composed(each) in files.by_name:
            return files.by_name[composed(each)]
    near = files.nearest(name.replace("\\", "/")) if name else ""
    what = "" if not name else " is a folder" if _is(Path.is_dir, index.parent / name) else " does not exist"
    raise InputError(f"{where}{what}" + (f"; nearest is {near!r}" if near else ""))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}…"


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    """Whether a path is a file, or a folder; a name that no file can have (too long) is neither."""
    try:
        return kind(path)
    except OSError:
        return False


def _check_artists(index: Path, sheet: sheets.Sheet) -> None:
    if "artist" in sheet.columns and not any(row["artist"] for _, row in sheet.rows):
        raise InputError(f"{index}: column artist names nobody; write each picture's artist into it, or take it out")


def _check_strangers(index: Path, sheet: sheets.Sheet, wanted: Sequence[str], year: int) -> None:
    """Raise for a column that is not read but says who made a work, who did not, or what may be done with it."""
    named = "artist" in sheet.columns
    for line, row in sheet.rows:
        for column in (*sheet.strangers, *sheet.remarks):
            should = _meant(row[column], wanted, year, named=named, remark=column in sheet.remarks)
            if should:
                raise InputError(
                    f"{index}: line {line}: column {column!r} says {shorten(row[column], 100)!r}, but no column of "
                    f"that name is read; call it {should}, or {sheets.PASSED_OVER}{column} where it is not to be read"
                )


def _meant(value: str, wanted: Sequence[str], year: int, *, named: bool, remark: bool) -> str:
    """The column that a value belongs in; empty where it seems to be none that matters.

    Args:
        value: as it stands in a column that is not read.
        wanted: the artist's names.
        year: in which statements are read.
        named: whether the index has a column for the artist.
        remark: whether the column is one of remarks, in which a name, or rights, need no column of their own.
    """
    if not (named or remark) and any(names.doubt(value, name) is not None for name in wanted):
        return "artist"
    if any(names.is_qualifier(value, name) for name in wanted):
        return "qualifier"
    if remark:  # What it claims of rights restricts the work (`_claims`).
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
                raise InputError(
                    f"{index}: line {line}: {what} is there twice (first in line {before}{alias}); "
                    "each work needs its own"
                )
            seen[identity] = line, row["file"]


def _evidence(row: Row, year: int) -> rights.Evidence:
    years, died = _years(row), dates.death(row.get("artist_died", ""))
    unread = [f"date {text!r}" for text in _dates(row) if dates.read(text) is None]
    if unread:  # It may say of a later year than those that are understood.
        years = replace(years, end=None, since=years.latest)
    if died is None and dates.read(row.get("artist_died", "")) != dates.Years():
        unread.append(f"year of death {row['artist_died']!r}")
    return rights.Evidence(
        died=died, years=years, statement=row.get("rights", ""), unread=tuple(unread), claims=_claims(row, year)
    )


def _years(row: Row) -> dates.Years:
    """The years that an index writes, in all of its dates that are understood, and in words for casts and prints."""
    dated = dates.together([years for text in _dates(row) if (years := dates.read(text))])
    issues = [dates.issued(row.get(column, ""), dated.end) for column in ("title", "medium")]
    return dates.together([dated, *(each for each in issues if each)])


def _dates(row: Row) -> list[str]:
    return [text for column in ("year", "date") if (text := row.get(column, "")).strip()]


def _claims(row: Row, year: int) -> tuple[str, ...]:
    """Rights that are claimed in any other column than `rights`.

    What describes the work may well speak of `protected` or `private use`; there, only what cannot mean anything else
    is a claim.
    """
    others = {column: text for column, text in row.items() if column not in _NO_PROSE}
    return tuple(
        f"{column} says {text!r}"
        for column, text in others.items()
        if statements.claims(text, year, surely=column in _OF_THE_WORK)
    )
