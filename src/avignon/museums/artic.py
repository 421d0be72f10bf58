"""The Art Institute of Chicago: its public API and IIIF images.

API: https://api.artic.edu/docs/ (artworks and agents; the data is CC0 but for descriptions, which are not read).
Images: IIIF Image API at the address that each answer names (`config.iiif_url`). `is_public_domain` is the museum's
own word on each work; what it does not call so is not released.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from avignon.errors import FetchError, InputError
from avignon.fetch import USER_AGENT
from avignon.museums import names, rights
from avignon.museums.iiif import Images
from avignon.museums.protocol import Received, Sought, one_line, outside
from avignon.records import Decision, Found, Verdict, Work
from avignon.workspace import json_value

PAGE = 100
"""Records a request; the API gives no more."""

MOST = 10_000
"""Records that the API's search pages through."""

OBJECT_PAGE = "https://www.artic.edu/artworks/{}"

_AGENTS = "id,title,alt_titles,birth_date,death_date,is_artist"
_ARTWORKS = (
    "id,title,main_reference_number,date_start,date_end,date_display,artist_display,artist_title,medium_display,"
    "artwork_type_title,subject_titles,credit_line,is_public_domain,image_id,thumbnail"
)

Record = dict[str, Any]


@dataclass
class Artic:
    """The museum's API and its image server."""

    api: str
    images: Images
    year: int = field(default_factory=lambda: time.localtime().tm_year)

    def find(self, artist: Sought) -> list[Found]:
        """Every artwork whose preferred artist is the one sought."""
        found = []
        for person in self._people(artist):
            for record, images in self._records("artworks", {"query[term][artist_id]": person["id"]}, _ARTWORKS):
                found.append(self._found(artist, person, record, images))
        return sorted(found, key=_preference)

    def source(self, work: Work) -> str:
        """What the image server would be asked for."""
        return self.images.source(work.image_url)

    def receive(self, work: Work) -> Received:
        """The image from the museum's server."""
        return self.images.receive(work.image_url)

    def _people(self, artist: Sought) -> list[Record]:
        """The agents that the artist stands for."""
        people: dict[int, Record] = {}
        for wanted in artist.find or (artist.name,):
            known = self._agents(wanted) or self._agents(names.key(str(wanted)))  # Without accents, at the second try.
            matches = {agent["id"]: agent for agent in known if _is(agent, wanted)}
            if not matches:
                raise InputError(f"{self.api}: {names.unknown(str(wanted), (str(each['title']) for each in known))}")
            if len(matches) > 1:
                who = ", ".join(f"{n} ({a.get('birth_date')}-{a.get('death_date') or ''})" for n, a in matches.items())
                raise InputError(f"{self.api}: {wanted!r} names {len(matches)} artists: {who}; put the id into find")
            people |= matches
        return list(people.values())

    def _agents(self, wanted: int | str) -> list[Record]:
        asked: dict[str, object] = {"query[term][id]": wanted} if isinstance(wanted, int) else {"q": wanted}
        records = self._records("agents", asked, _AGENTS, most=PAGE)
        return [agent for agent, _ in records if agent.get("is_artist") is not False]

    def _records(
        self, kind: str, asked: dict[str, object], fields: str, most: int = MOST
    ) -> Iterator[tuple[Record, str]]:
        """The records of a search, page by page, each with the address of the image server.

        Raises:
            InputError: the API cannot be had, or answers with something else.
        """
        for page in range(1, most // PAGE + 1):
            query = urlencode({**asked, "fields": fields, "limit": PAGE, "page": page}, safe="[],")
            url = f"{self.api}/{kind}/search?{query}"
            headers = {"AIC-User-Agent": USER_AGENT}
            answer = self.images.fetcher.get(url, limit=50_000_000, check=_checked, headers=headers)
            body = json.loads(answer.content)
            for record in body["data"]:
                yield record, body["config"]["iiif_url"]
            if page >= body["pagination"]["total_pages"]:
                return

    def _found(self, artist: Sought, person: Record, record: Record, images: str) -> Found:
        image, thumbnail = record.get("image_id") or "", record.get("thumbnail") or {}
        classification = record.get("artwork_type_title") or ""
        flag = record.get("is_public_domain")
        evidence = rights.Evidence(
            died=person.get("death_date"),
            born=person.get("birth_date"),
            made=record.get("date_end") or record.get("date_start"),
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
            date=one_line(record.get("date_display") or ""),
            medium=one_line(record.get("medium_display") or ""),
            classification=classification,
            terms=tuple(record.get("subject_titles") or ()),
            credit=one_line(record.get("credit_line") or ""),
            width=int(thumbnail.get("width") or 0),
            height=int(thumbnail.get("height") or 0),
            page=OBJECT_PAGE.format(record["id"]),
            begin=record.get("date_start"),
            end=record.get("date_end"),
            depicts=one_line(thumbnail.get("alt_text") or ""),
        )
        reason = _doubt(person, record) or outside(artist, classification) or ("" if image else "no image published")
        return Found(work, Decision(Verdict.REJECTED, reason) if reason else None)


def _checked(content: bytes) -> None:
    """What the rest of the module relies on, of any answer."""
    try:
        body = json_value(content)
        rows = [(record["id"], body["config"]["iiif_url"]) for record in body["data"]]
        whole = all(isinstance(number, int) and isinstance(place, str) for number, place in rows)
        if not whole or not isinstance(body["pagination"]["total_pages"], int):
            raise ValueError("other types")
    except (ValueError, LookupError, TypeError):
        raise FetchError("not an answer of the museum's API, with data, pagination and config") from None


def _is(agent: Record, wanted: int | str) -> bool:
    if isinstance(wanted, int):
        return bool(agent["id"] == wanted)
    known = (agent.get("title"), *(agent.get("alt_titles") or ()))
    return names.key(wanted) in {names.key(str(name)) for name in known if name}


def _doubt(person: Record, record: Record) -> str:
    """Why a work is not the artist's own: its label's first line (`After Winslow Homer`) is more than the name."""
    lines = str(record.get("artist_display") or "").splitlines()
    label = lines[0].partition("(")[0].strip() if lines else ""
    if label and names.key(label) != names.key(str(person["title"])):
        return f"attribution is {label!r}"
    return ""


def _preference(found: Found) -> tuple[bool, bool, int, str]:
    """Paintings before works on paper and the rest; then by id."""
    work = found.work
    return (found.decision is not None, work.classification != "Painting", len(work.object_id), work.object_id)
