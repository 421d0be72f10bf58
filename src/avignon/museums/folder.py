"""A directory of one's own scans.

With an `index.csv`: column `file` is needed; artist, title, year (or date), medium, classification, terms (separated by
semicolons), rights, artist_died, credit, object_id, accession and source are understood. Without one, the pictures
below a subfolder named after the artist are theirs, or all pictures of the folder where it has no subfolders.
"""

import csv
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from avignon.errors import ImageError, InputError
from avignon.imaging import SUFFIXES, size_of
from avignon.museums import names, rights
from avignon.museums.protocol import Received
from avignon.recipe import Artist, slug
from avignon.records import Decision, Found, Verdict, Work

INDEX = "index.csv"

Row = dict[str, str]


@dataclass
class Folder:
    """A museum of one's own."""

    path: Path
    year: int = field(default_factory=lambda: time.localtime().tm_year)

    def find(self, artist: Artist) -> list[Found]:
        """The folder's pictures of the artist, by the index or by place; unreadable ones carry the reason."""
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such folder")
        index = self.path / INDEX
        rows = _indexed(index) if index.exists() else self._unindexed(artist)
        wanted = [str(name) for name in artist.find or (artist.name,)]
        works = [self._found(artist, row) for name in wanted for row in self._of(name, rows)]
        return sorted(works, key=lambda found: (found.decision is not None, found.work.object_id))

    def receive(self, work: Work) -> Received:
        """The file's bytes as they are."""
        path = self.path / work.image_url
        return Received(path.read_bytes(), path.suffix.lower())

    def _of(self, name: str, rows: list[Row]) -> Iterable[Row]:
        matches = [row for row in rows if not row["artist"] or names.key(row["artist"]) == names.key(name)]
        if not matches:
            raise InputError(f"{self.path}: {names.unknown(name, (row['artist'] for row in rows))}")
        return matches

    def _unindexed(self, artist: Artist) -> list[Row]:
        folders = {slug(p.name): p for p in self.path.iterdir() if p.is_dir() and _pictures(p)}
        wanted = [str(name) for name in artist.find or (artist.name,)]
        if folders:
            rows = [
                {"file": str(p.relative_to(self.path)), "artist": name}
                for name in wanted
                for p in _pictures(folders.get(slug(name)))
            ]
            known: Iterable[str] = (p.name for p in folders.values())
            if not rows:
                raise InputError(f"{self.path}: {names.unknown(artist.name, known)}")
            return rows
        rows = [{"file": p.name, "artist": ""} for p in _pictures(self.path)]
        if not rows:
            raise InputError(f"{self.path}: no pictures here; allowed are {', '.join(SUFFIXES)}")
        return rows

    def _found(self, artist: Artist, row: Row) -> Found:
        path = self.path / row["file"]
        width = height = 0
        decision = None
        try:
            width, height = size_of(path)
        except ImageError as unusable:
            decision = Decision(Verdict.REJECTED, str(unusable).removeprefix(f"{path}: "))
        title = row.get("title") or path.stem.replace("_", " ").replace("-", " ")
        work = Work(
            museum=self.path.name,
            object_id=row.get("object_id") or slug(Path(row["file"]).with_suffix("").as_posix()),
            artist=artist.name,
            title=title,
            image_url=row["file"],
            rights=rights.from_statement(row.get("rights", ""), _number(row.get("artist_died", "")), self.year),
            attributed=row["artist"] or artist.name,
            accession=row.get("accession", ""),
            date=row.get("date") or row.get("year", ""),
            medium=row.get("medium", ""),
            classification=row.get("classification", ""),
            terms=tuple(term.strip() for term in row.get("terms", "").split(";") if term.strip()),
            credit=row.get("credit") or row.get("source", ""),
            width=width,
            height=height,
        )
        return Found(work, decision)


def _pictures(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _indexed(index: Path) -> list[Row]:
    """The rows of an index, each checked to name a file inside the folder.

    Raises:
        InputError: naming the file, the line, the field and the value.
    """
    rows: list[Row] = []
    try:
        with index.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, restval="")
            if "file" not in (reader.fieldnames or ()):
                raise InputError(f"{index}: column file is missing; it names the picture of each row")
            for row in reader:
                if None in row:
                    raise InputError(f"{index}: line {reader.line_num}: more fields than columns")
                _check_file(index, reader.line_num, row["file"])
                rows.append({"artist": "", **row})
    except UnicodeDecodeError as wrong:
        raise InputError(f"{index}: not UTF-8 ({wrong.reason} near byte {wrong.start})") from None
    except csv.Error as broken:
        raise InputError(f"{index}: line {reader.line_num}: not CSV: {broken}") from None
    if not rows:
        raise InputError(f"{index}: names no picture")
    return rows


def _check_file(index: Path, line: int, name: str) -> None:
    path = (index.parent / name).resolve()
    if not path.is_relative_to(index.parent.resolve()):
        raise InputError(f"{index}: line {line}: file: {name!r} lies outside the folder")
    if not path.is_file():
        raise InputError(f"{index}: line {line}: file: {name!r} does not exist")


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None
