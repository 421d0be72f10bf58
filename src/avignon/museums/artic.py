"""The Art Institute of Chicago: its public API and IIIF images.

API: https://api.artic.edu/docs/ (the data is CC0 but for descriptions, which are not read). A search is one JSON value
in the address, as the museum asks of programs. Guests may not read beyond the 1,000th record of a search
(https://github.com/art-institute-of-chicago/api-data/issues/5), so each page is a search of its own: the records with
an id above the last one's. `is_public_domain` is the museum's own word on each work.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast
from urllib.parse import urlencode

from pydantic import Field

from avignon.core.errors import FetchError, InputError
from avignon.core.files import json_value
from avignon.core.records import Decision, Found, Verdict, Work
from avignon.museums import dates, names, rights
from avignon.museums.protocol import ArtistQuery, FetchSettings, Received, one_line, preference
from avignon.museums.settings import OnlineMuseum

if TYPE_CHECKING:
    from avignon.museums.iiif import Images

PAGE = 100
"""Records a request; the API gives no more."""

OBJECT_PAGE = "https://www.artic.edu/artworks/{}"

_AGENTS = "id,title,alt_titles,birth_date,death_date,is_artist"
_ARTWORKS = (
    "id,title,main_reference_number,date_start,date_end,date_display,artist_display,artist_title,medium_display,"
    "artwork_type_title,subject_titles,credit_line,is_public_domain,image_id,thumbnail"
)

QUALIFIERS = frozenset(
    {"after", "assistant", "assistants", "attributed", "circle", "copy", "copied", "follower", "imitator", "manner"}
    | {"possibly", "probably", "pupil", "pupils", "school", "student", "studio", "style", "workshop"}
)
"""Words within brackets behind a name that doubt or deny the authorship; others there name and date the artist."""

_BRACKETS = re.compile(r"\(([^()]*)\)")

Record = dict[str, Any]


class ArticMuseum(OnlineMuseum):
    """The Art Institute of Chicago's public API. What it asks of programs: https://api.artic.edu/docs/#scraping."""

    kind: Literal["artic"]
    api: str = "https://api.artic.edu/api/v1"
    """Where the API is."""
    pause: float = Field(default=1.0, ge=0, le=60)
    """As above; this museum asks for no more than one request a second."""
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(843, 1686), strict=False)
    """As above; images of these widths are in this museum's cache, all others are made anew for each request."""


@contextmanager
def opened(museum: ArticMuseum, settings: FetchSettings, warn: Callable[[str], None]) -> Iterator["Artic"]:
    """The museum that a recipe describes."""
    from avignon.museums import http, iiif  # Here, because every recipe's loading imports this module.

    with http.client_of(museum, settings) as fetcher:
        images = iiif.Images(fetcher, settings.max_edge, settings.max_bytes, museum.widths)
        yield Artic(museum.api, images, warn)


@dataclass
class Artic:
    """The museum's API and its image server."""

    api: str
    images: "Images"
    warn: Callable[[str], None] = lambda _: None
    year: int = field(default_factory=lambda: time.localtime().tm_year)

    def find(self, artist: ArtistQuery) -> list[Found]:
        """Every artwork whose preferred artist is the one sought."""
        people = self._people(artist)
        works = [(person, record, images) for person in people for record, images in self._artworks(person)]
        return sorted((self._found(artist, *each) for each in works), key=preference)

    def source(self, work: Work) -> str:
        """What would be requested from the image server."""
        return self.images.source(work.image_url)

    def receive(self, work: Work) -> Received:
        """The image from the museum's server."""
        return self.images.receive(work.image_url)

    def _people(self, artist: ArtistQuery) -> list[Record]:
        """The agents that the artist stands for."""
        people: dict[int, Record] = {}
        for wanted in artist.wanted:
            known = self._agents(wanted) or self._agents(names.key(str(wanted)))  # Without accents, at the second try.
            own = [agent for agent in known if names.key(str(agent.get("title"))) == names.key(str(wanted))]
            matches = {
                agent["id"]: agent
                for agent in own or known
                if (agent["id"] == wanted if isinstance(wanted, int) else _keys([wanted]) & _keys(_names(agent)))
            }
            if not matches:
                raise InputError(f"{self.api}: {names.unknown(str(wanted), (str(each['title']) for each in known))}")
            if len(matches) > 1:
                who = ", ".join(f"{n} ({a.get('birth_date')}-{a.get('death_date') or ''})" for n, a in matches.items())
                raise InputError(f"{self.api}: {wanted!r} names {len(matches)} artists: {who}; put the id into find")
            people |= matches
        return list(people.values())

    def _agents(self, wanted: int | str) -> list[Record]:
        asked: Record = {"query": {"term": {"id": wanted}}} if isinstance(wanted, int) else {"q": wanted}
        records = self._search("agents", asked, _AGENTS)["data"]
        return [agent for agent in records if agent.get("is_artist") is not False]

    def _artworks(self, person: Record) -> Iterator[tuple[Record, str]]:
        """All records of an artist's works, each with the image server's address; a warning counts missing ones."""
        last, seen, total = -1, 0, None
        while True:
            own, later = {"term": {"artist_id": person["id"]}}, {"range": {"id": {"gt": last}}}
            asked = {"query": {"bool": {"must": [own, later]}}, "sort": [{"id": "asc"}]}
            body = self._search("artworks", asked, _ARTWORKS)
            records = [record for record in body["data"] if record["id"] > last]
            total = body["pagination"]["total"] if total is None else total
            for record in records:
                yield record, body["config"]["iiif_url"]
            seen += len(records)
            if not records or len(records) >= body["pagination"]["total"]:
                break
            last = max(record["id"] for record in records)
        if seen < total:
            came = f"{seen:,} of {total:,} records came; the others are not considered"
            self.warn(f"{self.api}: {person['title']}: {came}")

    def _search(self, kind: str, asked: Record, fields: str) -> Record:
        """The first records of a search, as the API answers; `FetchError` where it is unavailable."""
        params = json.dumps({**asked, "fields": fields, "limit": PAGE}, ensure_ascii=False, separators=(",", ":"))
        url = f"{self.api}/{kind}/search?{urlencode({'params': params})}"
        headers = {"AIC-User-Agent": self.images.fetcher.user_agent}
        answer = self.images.fetcher.get(url, limit=50_000_000, check=_checked, headers=headers)
        return cast(Record, json.loads(answer.content))

    def _found(self, artist: ArtistQuery, person: Record, record: Record, images: str) -> Found:
        image, thumbnail = record.get("image_id") or "", record.get("thumbnail") or {}
        classification = record.get("artwork_type_title") or ""
        flag, display = record.get("is_public_domain"), record.get("date_display") or ""
        years = dates.known(record.get("date_start"), record.get("date_end"), display)
        evidence = rights.Evidence(
            died=person.get("death_date"),
            born=person.get("birth_date"),
            years=years,
            unread=dates.unread(years, display),
            flag="" if flag is None else str(int(flag)),
            flag_name="is_public_domain",
        )
        work = Work(
            museum="artic",
            object_id=str(record["id"]),
            artist=artist.name,
            title=one_line(record.get("title") or ""),
            image_url=f"{images}/{image}" if image else "",
            rights=rights.judged(evidence, self.year),
            attributed=str(person["title"]),
            accession=record.get("main_reference_number") or "",
            date=one_line(display),
            medium=one_line(record.get("medium_display") or ""),
            classification=classification,
            terms=tuple(record.get("subject_titles") or ()),
            credit=one_line(record.get("credit_line") or ""),
            width=int(thumbnail.get("width") or 0),
            height=int(thumbnail.get("height") or 0),
            page=OBJECT_PAGE.format(record["id"]),
            begin=years.begin,
            end=years.end,
            depicts=one_line(thumbnail.get("alt_text") or ""),
        )
        reason = _doubt(person, record) or artist.exclusion(classification) or ("" if image else "no image published")
        return Found(work, Decision(Verdict.REJECTED, reason) if reason else None)


def _checked(content: bytes) -> None:
    """What the rest of the module relies on, of any answer."""
    try:
        body = json_value(content)
        rows = [(record["id"], body["config"]["iiif_url"]) for record in body["data"]]
        whole = all(isinstance(number, int) and isinstance(place, str) for number, place in rows)
        if not whole or not isinstance(body["pagination"]["total"], int):
            raise ValueError("other types")
    except (ValueError, LookupError, TypeError):
        raise FetchError("not an answer of the museum's API, with data, pagination and config") from None


def _names(agent: Record) -> list[str]:
    """The museum's names for an artist, those in brackets among them."""
    known = [str(name) for name in (agent.get("title"), *(agent.get("alt_titles") or ())) if name]
    return [*known, *(inner for name in known for inner in _BRACKETS.findall(name))]


def _keys(written: Iterable[str]) -> set[str]:
    """The keys of names as they are, without what is in brackets, and without the letters of further scripts.

    `Le Corbusier (Charles-Édouard Jeanneret)` is also Le Corbusier; `Katsushika Hokusai 葛飾 北斎` Katsushika Hokusai.
    """
    plain = {each for name in written for each in (name, _unbracketed(name))}
    return {key for each in plain for key in (names.key(each), names.key(names.latin(each))) if key}


def _unbracketed(label: str) -> str:
    """Without what is in brackets; one that is not closed reaches to the end."""
    return _BRACKETS.sub(" ", label if ")" in label else label.partition("(")[0])


def _doubt(person: Record, record: Record) -> str:
    """Why a work is not the artist's own: its label's first line (`After Winslow Homer`) is more than the name.

    What follows in brackets, or behind a comma with a year, names and dates the artist (`died after 1734`), unless it
    is a qualifier without a year.
    """
    label = one_line(next(iter(str(record.get("artist_display") or "").strip().splitlines()), ""))
    remarks = " ".join(remark for remark in _BRACKETS.findall(label) if not re.search(r"\d", remark))
    doubted = "?" in label or QUALIFIERS.intersection(names.key(remarks).split())
    undated = re.sub(r",[^,]*(?:,[^,]*)?\d{3,4}.*$", "", _unbracketed(label))
    if label and (doubted or not _keys([label, undated]) & _keys(_names(person))):
        return f"attribution is {label!r}"
    return ""
