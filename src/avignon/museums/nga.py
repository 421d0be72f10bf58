"""The National Gallery of Art, Washington: open data tables and IIIF images.

Tables: https://github.com/NationalGalleryOfArt/opendata. Images: IIIF Image API 2.1. The data is CC0; the images are no
part of that grant, so each image's rights are read from its own row (`rights.judged`).
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from avignon.core.errors import InputError
from avignon.core.records import EMBEDDED, NGA_TABLES, Decision, Found, Verdict, Work
from avignon.museums import catalog, dates, names, rights
from avignon.museums.catalog import Catalog, Row
from avignon.museums.protocol import ArtistQuery, FetchSettings, Received, one_line, preference

if TYPE_CHECKING:
    from avignon.museums.http import Fetcher
    from avignon.museums.iiif import Images
    from avignon.museums.settings import NgaMuseum

Ask = Callable[..., list[Row]]

EMBEDDED_TABLES = "embedded://museum/data"
"""Where the tables inside the package lie, as the network client sees them."""

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

_NAMED = "SELECT constituentid, bool_and(other) AS other FROM names WHERE key = ? GROUP BY ALL ORDER BY ALL"
_PERSON = "SELECT * FROM constituents WHERE artistofngaobject <> '0' AND constituentid = ?"
_OBJECTS = """
    SELECT COLUMNS('objectid|accessionnum|title|displaydate|beginyear|endyear|medium|classification|creditline')
    FROM objects WHERE objectid IN (SELECT unnest(?))
"""
"""Of the columns that there are: `COLUMNS` takes those whose whole name matches, and passes over others."""
_IMAGES = """
    SELECT COLUMNS('iiifurl|sequence|width|height|maxpixels|openaccess|depictstmsobjectid|assistivetext')
    FROM published_images
    WHERE viewtype = 'primary' AND depictstmsobjectid IN (SELECT unnest(?)) ORDER BY rowid
"""
_ROLES = """
    SELECT objectid, constituentid, role, prefix FROM objects_constituents
    WHERE roletype = 'artist' AND constituentid = ? ORDER BY rowid
"""
_TERMS = """
    SELECT objectid, termtype, term FROM objects_terms WHERE objectid IN (SELECT unnest(?)) ORDER BY rowid
"""


@contextmanager
def opened(museum: "NgaMuseum", settings: FetchSettings, warn: Callable[[str], None]) -> Iterator["Nga"]:
    """The museum that a recipe describes, with the catalog of its present tables."""
    from avignon.museums.iiif import Images  # Here, because a listing needs neither network nor images.

    with client(museum.tables, museum, settings) as fetcher:
        images = Images(fetcher, settings.max_edge, settings.max_bytes, museum.widths)
        yield Nga(catalog.current(address(museum.tables), fetcher, warn), images)


@contextmanager
def listed(tables: str | None) -> Iterator["Nga"]:
    """The museum for listing alone: the catalog as it is; built where there is none."""
    source = tables or NGA_TABLES
    if source != EMBEDDED:
        with catalog.present(address(source)) as held:
            if held is not None:
                yield Nga(held)
                return
    yield Nga(catalog_of(source))


def catalog_of(source: str) -> Catalog:
    """The catalog as it is; built where there is none, and updated where that costs nothing."""
    held = None if source == EMBEDDED else catalog.held(address(source))
    if held is not None:
        return held
    with client(source) as fetcher:
        return catalog.update(address(source), fetcher)


def address(source: str) -> str:
    """Where a recipe's `tables` are, as the network client sees them."""
    return EMBEDDED_TABLES if source == EMBEDDED else source


def client(source: str, museum: "NgaMuseum | None" = None, settings: FetchSettings | None = None) -> "Fetcher":
    """A network client for some tables; those inside the package need no pauses."""
    from avignon.museums import http  # Here, because a listing needs no network.
    from avignon.museums.settings import NgaMuseum

    settings = settings or FetchSettings()
    if source != EMBEDDED:
        return http.client_of(museum or NgaMuseum(), settings)
    from avignon.demo.museum import EmbeddedMuseum

    return http.Fetcher(pause=0.0, timeout=settings.timeout, mounts={"embedded://": EmbeddedMuseum()})


@dataclass
class Nga:
    """The museum's tables and, where images are wanted, its image server."""

    catalog: Catalog
    images: "Images | None" = None
    year: int = field(default_factory=lambda: time.localtime().tm_year)

    def find(self, artist: ArtistQuery) -> list[Found]:
        """Every object that names the artist as artist, with its primary image."""
        with self.catalog.asked() as ask:
            people = self._people(artist, ask)
            roles = _roles(list(people), ask)
            objects = ask(_OBJECTS, list(roles))
            images = _primary_images(list(roles), ask)
            terms = _subjects(list(roles), ask)
        found = []
        for row in objects:
            number, role = row["objectid"], roles[row["objectid"]]
            person, image = people[role["constituentid"]], images.get(number, {})
            found.append(self._found(artist, row, person, role, image, terms.get(number, [])))
        return sorted(found, key=preference)

    def source(self, work: Work) -> str:
        """What would be requested from the image server."""
        assert self.images, "opened for its tables alone"
        return self.images.source(work.image_url, work.most)

    def receive(self, work: Work) -> Received:
        """The image from the museum's server."""
        assert self.images, "opened for its tables alone"
        return self.images.receive(work.image_url, work.most)

    def _people(self, artist: ArtistQuery, ask: Ask) -> dict[int, Row]:
        """The constituents that the recipe's artist stands for, by id."""
        people: dict[int, Row] = {}
        where = self.catalog.about.tables
        for wanted in artist.wanted:
            matches = _matching(wanted, ask)
            if not matches:
                raise InputError(f"{where}: {names.unknown(str(wanted), _near(str(wanted), ask))}")
            if len(matches) > 1:
                who = ", ".join(f"{number} ({row['displaydate']})" for number, row in matches.items())
                raise InputError(f"{where}: {wanted!r} names {len(matches)} artists: {who}; put the id into find")
            people |= matches
        return people

    def _found(self, artist: ArtistQuery, row: Row, person: Row, role: Row, image: Row, terms: list[str]) -> Found:
        number = str(row["objectid"])
        ours = self.catalog.about.tables == EMBEDDED_TABLES
        years = dates.known(row.get("beginyear"), row.get("endyear"), row["displaydate"])
        cap = image.get("maxpixels", "")
        unread_cap = [f"maxpixels {cap.strip()!r}"] if cap.strip() and not _pixels(cap) else []
        evidence = rights.Evidence(
            died=person["endyear"],
            born=person.get("beginyear"),
            years=years,
            unread=(*dates.unread(years, row["displaydate"]), *unread_cap),
            flag=image.get("openaccess"),
            flag_name="openaccess",
            cap=cap,
        )
        work = Work(
            museum="procedural museum" if ours else "nga",
            object_id=number,
            artist=artist.name,
            title=one_line(row["title"]),
            image_url=image.get("iiifurl", ""),
            rights=rights.judged(evidence, self.year),
            attributed=person["forwarddisplayname"] or person["preferreddisplayname"],
            accession=row["accessionnum"],
            date=one_line(row["displaydate"]),
            medium=one_line(row["medium"]),
            classification=row["classification"],
            terms=tuple(terms),
            credit=one_line(row["creditline"]),
            width=image.get("width") or 0,
            height=image.get("height") or 0,
            page="" if ours else OBJECT_PAGE.format(number),
            begin=years.begin,
            end=years.end,
            depicts=one_line(image.get("assistivetext") or ""),
            most=_pixels(cap),
        )
        reason = _doubt(role) or artist.exclusion(row["classification"]) or ("" if image else "no image published")
        return Found(work, Decision(Verdict.REJECTED, reason) if reason else None)


def _pixels(cap: str) -> int:
    """The longest side that the museum sends of an image; 0 where it sets no limit, or none that can be read."""
    found = re.fullmatch(r"\s*(\d{1,6})(?:\.0*)?\s*", cap or "")
    return int(found[1]) if found else 0


def _matching(wanted: int | str, ask: Ask) -> dict[int, Row]:
    """Artists by id, or by a name in either of its forms; by their other names where it is no artist's own."""
    if isinstance(wanted, int):
        numbers = [wanted]
    else:
        named = ask(_NAMED, names.key(wanted))
        numbers = [row["constituentid"] for row in [row for row in named if not row["other"]] or named]
    return {number: row for number in numbers for row in ask(_PERSON, number)}


def _near(wanted: str, ask: Ask) -> list[str]:
    """Names to compare with a slip, the most similar ones: a museum has tens of thousands."""
    key = names.key(wanted)
    sql = """
        SELECT name FROM names ORDER BY
            len(list_intersect(string_split(key, ' '), string_split($1, ' '))) DESC,
            jaro_winkler_similarity(key, $1) DESC, length(key), name
        LIMIT 40
    """
    alike = "SELECT name FROM names ORDER BY damerau_levenshtein(key, $1), name LIMIT 20"
    return [row["name"] for row in (*ask(sql, key), *ask(alike, key))]


def _roles(people: list[int], ask: Ask) -> dict[int, Row]:
    """For each object the row that names one of the people as artist; the best where there are several."""
    roles: dict[int, Row] = {}
    for row in sorted((row for person in people for row in ask(_ROLES, person)), key=lambda row: bool(_doubt(row))):
        roles.setdefault(row["objectid"], row)
    return roles


def _primary_images(objects: list[int], ask: Ask) -> dict[int, Row]:
    images: dict[int, Row] = {}
    for row in sorted(ask(_IMAGES, objects), key=_sequence):
        images.setdefault(row["depictstmsobjectid"], row)
    return images


def _subjects(objects: list[int], ask: Ask) -> dict[int, list[str]]:
    terms: dict[int, list[str]] = {}
    for row in ask(_TERMS, objects):
        if row["termtype"] in SUBJECT_TERMS:
            terms.setdefault(row["objectid"], []).append(row["term"])
    return terms


def _doubt(role: Row) -> str:
    """Why a row of objects_constituents does not make the work the artist's own; empty if it does."""
    if role["role"] not in OWN_HAND:
        return f"role is {role['role']!r}, not the artist's own hand"
    if role["prefix"].strip() not in JOINING_PREFIXES:
        return f"attribution is {role['prefix'].strip()!r}"
    return ""


def _sequence(row: Row) -> tuple[bool, float]:
    """`sequence` is text in the export; what is not a number comes last."""
    try:
        return False, float(row["sequence"])
    except ValueError:
        return True, 0.0
