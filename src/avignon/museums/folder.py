"""A directory of one's own scans.

With an `index.csv`: column `file` is needed; artist, title, year (or date), medium, classification, terms (separated by
semicolons), rights, artist_died, credit, object_id, accession and source are understood. Without one, the pictures
below a subfolder named after the artist are theirs, or all pictures of the folder where it has no subfolders.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from avignon.errors import ImageError, InputError
from avignon.imaging import SUFFIXES, size_of
from avignon.museums import dates, names, rights, tables
from avignon.museums.protocol import Received, Sought, one_line, outside
from avignon.museums.tables import Row
from avignon.recipe import slug, stem
from avignon.records import Decision, Found, Verdict, Work

INDEX = "index.csv"


@dataclass
class Folder:
    """A museum of one's own."""

    path: Path
    year: int = field(default_factory=lambda: time.localtime().tm_year)

    def find(self, artist: Sought) -> list[Found]:
        """The folder's pictures of the artist, by the index or by place; unreadable ones carry the reason."""
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such folder")
        index = self.path / INDEX
        rows = self._of(artist, _indexed(index) if index.exists() else self._unindexed())
        works = [self._found(artist, row) for row in rows]
        return sorted(works, key=lambda found: (found.decision is not None, found.work.object_id))

    def source(self, work: Work) -> str:
        """The file's place, size and time."""
        path = self.path / work.image_url
        state = path.stat()
        return f"{path}; {state.st_size} bytes; {state.st_mtime_ns}"

    def receive(self, work: Work) -> Received:
        """The file's bytes as they are."""
        path = self.path / work.image_url
        return Received(path.read_bytes(), path.suffix.lower())

    def _of(self, artist: Sought, rows: list[Row]) -> list[Row]:
        """The rows of the artist; where a row names nobody, it is theirs."""
        known = {names.key(row["artist"]) for row in rows}
        wanted = {names.key(str(name)): str(name) for name in artist.find or (artist.name,)}
        for key, name in wanted.items():
            if key not in known and "" not in known:
                raise InputError(f"{self.path}: {names.unknown(name, (row['artist'] for row in rows))}")
        return [row for row in rows if not row["artist"] or names.key(row["artist"]) in wanted]

    def _unindexed(self) -> list[Row]:
        """A row for each picture: of the artist whose subfolder it is in; of nobody where there are no subfolders."""
        folders = [p for p in self.path.iterdir() if p.is_dir() and _pictures(p)]
        pictures = [(p, folder.name) for folder in folders for p in _pictures(folder)]
        pictures = pictures or [(p, "") for p in _pictures(self.path)]
        if not pictures:
            raise InputError(f"{self.path}: no pictures here; allowed are {', '.join(SUFFIXES)}")
        rows = [{"file": p.relative_to(self.path).as_posix(), "artist": name} for p, name in pictures]
        ids = Counter(_id_of(row["file"]) for row in rows)
        for row in rows:
            plain = _id_of(row["file"])
            row["object_id"] = plain if plain and ids[plain] == 1 else stem(row["file"])
        return rows

    def _found(self, artist: Sought, row: Row) -> Found:
        path = self.path / row["file"]
        width = height = 0
        reason = outside(artist, row.get("classification", ""))
        try:
            width, height = size_of(path)
        except ImageError as unusable:
            reason = str(unusable).removeprefix(f"{path}: ")
        years = _years(row)
        title = row.get("title") or path.stem.replace("_", " ").replace("-", " ")
        work = Work(
            museum=self.path.name,
            object_id=row["object_id"],
            artist=artist.name,
            title=one_line(title),
            image_url=row["file"],
            rights=rights.judged(_evidence(row), self.year),
            attributed=row["artist"] or artist.name,
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


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _id_of(file: str) -> str:
    return slug(Path(file).with_suffix("").as_posix())


def _indexed(index: Path) -> list[Row]:
    """The rows of an index, each checked to name a file inside the folder.

    Raises:
        InputError: naming the file, the line, the field and the value.
    """
    rows: list[Row] = []
    seen: set[tuple[str, str]] = set()
    for line, row in tables.rows(index, ("file",), ragged=True):
        _check_file(index, line, row["file"])
        row = {"artist": "", **row, "object_id": row.get("object_id") or _id_of(row["file"]) or stem(row["file"])}
        identity = (names.key(row["artist"]), row["object_id"])
        if identity in seen:
            raise InputError(
                f"{index}: line {line}: object_id {row['object_id']!r} is there twice; each work needs its own"
            )
        seen.add(identity)
        rows.append(row)
    if not rows:
        raise InputError(f"{index}: names no picture")
    return rows


def _check_file(index: Path, line: int, name: str) -> None:
    path = (index.parent / name).resolve()
    if not path.is_relative_to(index.parent.resolve()):
        raise InputError(f"{index}: line {line}: file: {name!r} lies outside the folder")
    if not path.is_file():
        raise InputError(f"{index}: line {line}: file: {name!r} does not exist")


def _evidence(row: Row) -> rights.Evidence:
    years, died = _years(row), dates.read(row.get("artist_died", ""))
    # A death that is only about known is not known: a term of protection hangs on the year.
    last = died.end if died and not died.about else None
    unread = [f"date {text!r}" for text in _dates(row) if dates.read(text) is None]
    if last is None and row.get("artist_died", "").strip():
        unread.append(f"year of death {row['artist_died']!r}")
    return rights.Evidence(
        died=last, made=years.end, begun=years.begin, statement=row.get("rights", ""), unread=tuple(unread)
    )


def _years(row: Row) -> dates.Years:
    """The years that an index writes, in the first of its dates that is understood."""
    read = (years for text in _dates(row) if (years := dates.read(text)))
    return next((years for years in read if years.begin or years.end), dates.Years())


def _dates(row: Row) -> list[str]:
    return [text for column in ("year", "date") if (text := row.get(column, "")).strip()]
