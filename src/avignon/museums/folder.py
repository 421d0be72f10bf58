"""A directory of one's own scans.

With an `index.csv`: a row for each picture, by the columns that `index.toml` lists. Without one, the pictures below a
subfolder named after the artist are theirs, or all pictures of the folder where it has no subfolders. Whatever looks
like a picture and is not the artist's own for certain carries the reason.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from avignon.core.errors import ImageError, InputError
from avignon.core.formats import SUFFIXES
from avignon.core.imaging import size_of
from avignon.core.records import Decision, Found, Verdict, Work
from avignon.core.sheets import Row
from avignon.museums import dates, folder_index, names, rights, statements
from avignon.museums.files import Files, files_of, is_read, unread
from avignon.museums.folder_index import INDEX, Listed, with_ids
from avignon.museums.protocol import ArtistQuery, FetchSettings, Received, file_source, one_line

if TYPE_CHECKING:
    from avignon.museums.settings import FolderMuseum

_NO_PROSE = frozenset({"rights", "file", "artist", "artist_died", "date", "year", "object_id", "accession"})
"""Columns in which no rights are claimed, or that are read for them elsewhere."""

_OF_THE_WORK = frozenset({"title", "medium", "classification", "terms", "qualifier"})


@contextmanager
def opened(museum: "FolderMuseum", _: FetchSettings, warn: Callable[[str], None]) -> Iterator["Folder"]:
    """The folder that a recipe names."""
    yield Folder(Path(museum.path), warn=warn)


@dataclass
class Folder:
    """A museum of one's own."""

    path: Path
    year: int = field(default_factory=lambda: time.localtime().tm_year)
    warn: Callable[[str], None] = lambda _: None

    def find(self, artist: ArtistQuery) -> list[Found]:
        """The folder's pictures of the artist, by the index or by place; unusable ones are rejected with the reason."""
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such folder")
        files, wanted = files_of(self.path), [str(name) for name in artist.wanted]
        if index := folder_index.index_in(files):
            listed = folder_index.read(self.path / index, files, wanted, self.year, self.warn)
        else:
            listed = _unindexed(files)
        self._check_known(wanted, [row for row, _ in listed], index)
        if passed := files.passed_over(index):
            self.warn(f"{self.path}: {passed}")
        stances = ((row, reason or _stance(row, wanted)) for row, reason in listed)
        works = [self._found(artist, row, reason, files) for row, reason in stances if reason is not None]
        if not index:
            self._tell_places(works)
        return sorted(works, key=lambda found: (found.decision is not None, found.work.object_id))

    def source(self, work: Work) -> str:
        """The file's place, size and time."""
        return file_source(self.path / work.image_url)

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
        """Raise for an unknown artist, where rows name their artists."""
        known = dict.fromkeys(row["artist"] for row in rows if row.get("artist"))
        strangers = [name for name in wanted if all(names.doubt(each, name) is None for each in known)]
        for name in strangers if any("artist" in row for row in rows) else ():
            empty = [p for p in self.path.iterdir() if p.is_dir() and names.key(p.name) == names.key(name)]
            if empty and not index:
                raise InputError(f"{empty[0]}: no pictures here; allowed are {', '.join(SUFFIXES)}")
            raise InputError(f"{self.path}: {names.unknown(name, known)}")

    def _found(self, artist: ArtistQuery, row: Row, reason: str, files: Files) -> Found:
        path, misread = self.path / row["file"], unread(row["file"])
        reason = misread or files.misnamed(row["file"]) or reason or artist.exclusion(row.get("classification", ""))
        is_there = path.is_file()  # One whose name is not UTF-8 is listed, but cannot be written about.
        try:
            width, height = size_of(path) if is_there else (0, 0)
        except ImageError as unusable:
            width = height = 0
            reason = misread or str(unusable).removeprefix(f"{path}: ")
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
    if not any(map(is_read, held)) and (usable or not held):  # A folder of documents is not an artist's.
        return with_ids([({"file": each}, "") for each in files.pictures])
    if usable:
        artists = ", ".join(dict.fromkeys(each.partition("/")[0] for each in held))
        some = f"{len(usable)} pictures (first: {usable[0]!r}) lie"
        lie = some if len(usable) > 1 else f"a picture ({usable[0]!r}) lies"
        raise InputError(
            f"{files.root}: {lie} beside the subfolders {artists}, so that nothing says whose that is; "
            f"put each picture into its artist's subfolder, or write an {INDEX}"
        )
    beside: list[Listed] = [({"file": each}, "lies beside the artists' subfolders") for each in loose]
    known = {each.partition("/")[0] for each in held}
    return with_ids([*((_placed(each, known), "") for each in held), *beside])


def _placed(file: str, artists: Collection[str]) -> Row:
    """A picture in an artist's subfolder; a folder within that doubts it is called so, or after another artist."""
    artist, *deeper = file.split("/")[:-1]
    others = [each for each in artists if names.key(each) != names.key(artist)]
    for place in deeper:
        if names.is_doubtful_place(place, artist) or any(names.is_near(place, other) for other in others):
            return {"file": file, "artist": artist, "qualifier": place}
    return {"file": file, "artist": artist, "qualifier": ""}


def _evidence(row: Row, year: int) -> rights.Evidence:
    years, died = _years(row), dates.death(row.get("artist_died", ""))
    unread = [f"date {text!r}" for text in _dates(row) if dates.read(text) is None]
    if unread:  # It may say of a later year than those that are understood.
        years = replace(years, end=None, since=years.latest)
    if died is None and dates.read(row.get("artist_died", "")) != dates.Years():
        unread.append(f"year of death {row['artist_died']!r}")
    # What describes the work may well speak of `protected` or `private use`: what is sure is a claim there, no more.
    claims = tuple(
        f"{column} says {text!r}"
        for column, text in row.items()
        if column not in _NO_PROSE and statements.claims(text, year, surely=column in _OF_THE_WORK)
    )
    return rights.Evidence(died, years=years, statement=row.get("rights", ""), unread=tuple(unread), claims=claims)


def _years(row: Row) -> dates.Years:
    """The years that an index writes, in all of its dates that are understood, and in words for casts and prints."""
    dated = dates.together([years for text in _dates(row) if (years := dates.read(text))])
    issues = [dates.issued(row.get(column, ""), dated.end) for column in ("title", "medium")]
    return dates.together([dated, *(each for each in issues if each)])


def _dates(row: Row) -> list[str]:
    return [text for column in ("year", "date") if (text := row.get(column, "")).strip()]
