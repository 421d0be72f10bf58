"""The National Gallery of Art, Washington: open data tables and IIIF images.

Tables: https://github.com/NationalGalleryOfArt/opendata (columns are read by name; the older and the newer sets both
serve). Images: IIIF Image API 2.1, https://iiif.io/api/image/2.1/. The data is CC0; the images are not part of that
grant, so each image's rights are read from its own row (`rights.from_museum`).
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from avignon.errors import FetchError, ImageError, InputError
from avignon.fetch import Fetcher
from avignon.imaging import size_of
from avignon.museums import names, rights, tables
from avignon.museums.protocol import Received, one_line, outside
from avignon.museums.tables import Row
from avignon.recipe import EMBEDDED, Artist
from avignon.records import Decision, Found, Verdict, Work

_EMBEDDED_TABLES = "embedded://museum/data"

OBJECT_PAGE = "https://www.nga.gov/collection/art-object-page.{}.html"

OWN_HAND = frozenset(
    {"artist", "painter", "sculptor", "printmaker", "draftsman", "photographer", "medalist", "etcher", "engraver"}
    | {"lithographer", "wood-engraver", "ceramist"}
)
"""Roles in which a work is the artist's own. 'artist after' is not: another hand made it after the artist's design."""

JOINING_PREFIXES = frozenset({"", "and", ",", "with"})
"""Prefixes that join names; all others ('Circle of', 'Attributed to', '?') doubt or deny the authorship."""

SUBJECT_TERMS = frozenset({"Theme", "Keyword"})
"""Kinds of terms that say what is to be seen; the others name schools, places and catalogues."""


@dataclass
class Nga:
    """The museum's tables and image server."""

    tables: str
    fetcher: Fetcher
    max_edge: int = 2048
    max_bytes: int = 200_000_000
    year: int = field(default_factory=lambda: time.localtime().tm_year)

    def find(self, artist: Artist) -> list[Found]:
        """Every object that names the artist as artist, with its primary image."""
        people = self._people(artist)
        roles = self._roles(set(people))
        objects = {row["objectid"]: row for row in self._rows("objects", _OBJECTS) if row["objectid"] in roles}
        images = self._primary_images(set(objects))
        terms = self._terms(set(objects))
        found = [
            self._found(artist, row, people, roles[number], images.get(number), terms.get(number, ()))
            for number, row in objects.items()
        ]
        return sorted(found, key=_preference)

    def source(self, work: Work) -> str:
        """The image's address and the size asked for at most."""
        return f"{work.image_url}/full/!{self.max_edge},{self.max_edge}"

    def receive(self, work: Work) -> Received:
        """The image, at most `max_edge` pixels on its long side and never more than its true size."""
        width, height = self._true_size(work.image_url)
        scale = min(1.0, self.max_edge / max(width, height))
        wanted = (max(1, round(width * scale)), max(1, round(height * scale)))
        url = f"{work.image_url}/full/!{wanted[0]},{wanted[1]}/0/default.jpg"
        answer = self.fetcher.get(url, limit=self.max_bytes)
        capped = "__" in answer.url.removeprefix(work.image_url)  # The museum redirects capped images to `{uuid}__900`.
        if not capped:
            _check_size(url, size_of(answer.content), wanted)
        return Received(answer.content, ".jpg", capped)

    def _true_size(self, image: str) -> tuple[int, int]:
        answer = self.fetcher.get(f"{image}/info.json", limit=1_000_000)
        try:
            info = json.loads(answer.content)
            width, height = int(info["width"]), int(info["height"])
            if min(width, height) < 1:
                raise ValueError("no pixels")
        except (ValueError, KeyError, TypeError, OverflowError):
            raise FetchError(f"{image}/info.json: not a IIIF description with width and height") from None
        return width, height

    def _people(self, artist: Artist) -> dict[str, Row]:
        """The constituents that the recipe's artist stands for, by id."""
        known = {
            row["constituentid"]: row
            for row in self._rows("constituents", _CONSTITUENTS)
            if row["artistofngaobject"] != "0"
        }
        people: dict[str, Row] = {}
        for wanted in artist.find or (artist.name,):
            matches = _matching(wanted, known)
            if not matches:
                all_names = (row["forwarddisplayname"] or row["preferreddisplayname"] for row in known.values())
                raise InputError(f"{self.tables}: {names.unknown(str(wanted), all_names)}")
            if len(matches) > 1:
                who = ", ".join(f"{number} ({row['displaydate']})" for number, row in matches.items())
                raise InputError(f"{self.tables}: {wanted!r} names {len(matches)} artists: {who}; put the id into find")
            people |= matches
        return people

    def _roles(self, people: set[str]) -> dict[str, Row]:
        """For each object the row that names one of the people as artist; the best where there are several."""
        roles: dict[str, Row] = {}
        for row in self._rows("objects_constituents", _OBJECTS_CONSTITUENTS):
            if row["constituentid"] in people and row["roletype"] == "artist":
                held = roles.get(row["objectid"])
                if held is None or (_doubt(held) and not _doubt(row)):
                    roles[row["objectid"]] = row
        return roles

    def _primary_images(self, objects: set[str]) -> dict[str, Row]:
        images: dict[str, Row] = {}
        for row in self._rows("published_images", _PUBLISHED_IMAGES):
            number = row["depictstmsobjectid"]
            if number in objects and row["viewtype"] == "primary":
                held = images.get(number)
                if held is None or _sequence(row) < _sequence(held):
                    images[number] = row
        return images

    def _terms(self, objects: set[str]) -> dict[str, tuple[str, ...]]:
        terms: dict[str, tuple[str, ...]] = {}
        for row in self._rows("objects_terms", _OBJECTS_TERMS):
            if row["objectid"] in objects and row["termtype"] in SUBJECT_TERMS:
                terms[row["objectid"]] = (*terms.get(row["objectid"], ()), row["term"])
        return terms

    def _found(
        self, artist: Artist, row: Row, people: dict[str, Row], role: Row, image: Row | None, terms: Iterable[str]
    ) -> Found:
        person = people[role["constituentid"]]
        died = _year(person["endyear"])
        image = image or {}
        number = row["objectid"]
        work = Work(
            museum="nga" if self.tables != EMBEDDED else "procedural museum",
            object_id=number,
            artist=artist.name,
            title=one_line(row["title"]),
            image_url=image.get("iiifurl", ""),
            rights=rights.from_museum(image.get("openaccess"), image.get("maxpixels", ""), died, self.year),
            attributed=person["forwarddisplayname"] or person["preferreddisplayname"],
            accession=row["accessionnum"],
            date=one_line(row["displaydate"]),
            medium=one_line(row["medium"]),
            classification=row["classification"],
            terms=tuple(terms),
            credit=one_line(row["creditline"]),
            width=_year(image.get("width", "")) or 0,
            height=_year(image.get("height", "")) or 0,
            page=OBJECT_PAGE.format(number) if self.tables != EMBEDDED else "",
        )
        reason = _doubt(role) or outside(artist, row["classification"]) or ("" if image else "no image published")
        return Found(work, Decision(Verdict.REJECTED, reason) if reason else None)

    def _rows(self, table: str, columns: tuple[str, ...]) -> Iterator[Row]:
        """The rows of a table by column name.

        Raises:
            InputError: the table cannot be had, or is not the CSV that it should be (file, line, what is missing).
        """
        root = _EMBEDDED_TABLES if self.tables == EMBEDDED else self.tables.rstrip("/")
        url = f"{root}/{table}.csv"
        path, _ = self.fetcher.table(url)
        return (row for _, row in tables.rows(path, columns, url))


_OBJECTS = ("objectid", "accessionnum", "title", "displaydate", "medium", "classification", "creditline")
_CONSTITUENTS = (
    *("constituentid", "preferreddisplayname", "forwarddisplayname", "displaydate", "endyear"),
    "artistofngaobject",
)
_OBJECTS_CONSTITUENTS = ("objectid", "constituentid", "roletype", "role", "prefix")
_PUBLISHED_IMAGES = ("iiifurl", "viewtype", "sequence", "width", "height", "maxpixels", "depictstmsobjectid")
_OBJECTS_TERMS = ("objectid", "termtype", "term")


def _matching(wanted: int | str, known: dict[str, Row]) -> dict[str, Row]:
    if isinstance(wanted, int):
        return {str(wanted): known[str(wanted)]} if str(wanted) in known else {}
    key = names.key(wanted)
    return {
        number: row
        for number, row in known.items()
        if key in (names.key(row["preferreddisplayname"]), names.key(row["forwarddisplayname"]))
    }


def _doubt(role: Row) -> str:
    """Why a row of objects_constituents does not make the work the artist's own; empty if it does."""
    if role["role"] not in OWN_HAND:
        return f"role is {role['role']!r}, not the artist's own hand"
    if role["prefix"].strip() not in JOINING_PREFIXES:
        return f"attribution is {role['prefix'].strip()!r}"
    return ""


def _preference(found: Found) -> tuple[bool, bool, int, str]:
    """Paintings before works on paper and the rest; then by object id, which is stable from export to export."""
    work = found.work
    return (found.decision is not None, work.classification != "Painting", len(work.object_id), work.object_id)


def _sequence(row: Row) -> tuple[bool, float]:
    """`sequence` is text in the export; what is not a number comes last."""
    try:
        return (False, float(row["sequence"]))
    except ValueError:
        return (True, 0.0)


def _year(text: str) -> int | None:
    try:
        return int(float(text))
    except ValueError:
        return None


def _check_size(url: str, received: tuple[int, int], wanted: tuple[int, int]) -> None:
    """A IIIF server scales to fit the box asked for; a pixel of rounding aside, less is a fault worth naming."""
    if any(got > ask + 1 or got < ask - 1 for got, ask in zip(received, wanted, strict=True)):
        raise ImageError(f"{url}: {received[0]}×{received[1]} pixels came where {wanted[0]}×{wanted[1]} were promised")
