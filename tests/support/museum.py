"""The National Gallery of Art on 127.0.0.1: its open data's tables, and its images by IIIF Image API 2.

Where the real image server's behaviour is not known, the choice made here is named in `LocalMuseum.answer_image`.
Pictures are drawn from their object's id: none is anyone's work, and no two look alike.
"""

import csv
import hashlib
import io
import json
import random
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from PIL import Image, ImageDraw

from tests.support import Asked, LocalServer, Reply

COLUMNS = {
    "objects": (
        "objectid uuid accessioned accessionnum locationid title displaydate beginyear endyear visualbrowsertimespan "
        "medium dimensions inscription markings attributioninverted attribution provenancetext creditline "
        "classification subclassification visualbrowserclassification parentid isvirtual departmentabbr portfolio "
        "series volume watermarks lastdetectedmodification wikidataid customprinturl"
    ),
    "objects_constituents": (
        "objectid constituentid displayorder roletype role prefix suffix displaydate beginyear endyear country zipcode"
    ),
    "constituents": (
        "constituentid uuid ulanid preferreddisplayname forwarddisplayname lastname displaydate artistofngaobject "
        "beginyear endyear visualbrowsertimespan nationality visualbrowsernationality constituenttype wikidataid"
    ),
    "published_images": (
        "uuid iiifurl iiifthumburl viewtype sequence width height maxpixels openaccess created modified "
        "depictstmsobjectid assistivetext"
    ),
    "objects_terms": "termid objectid termtype term visualbrowsertheme visualbrowserstyle",
    "objects_dimensions": "objectid element dimensiontype dimension unitname",
    "objects_text_entries": "objectid text texttype year",
    "constituents_altnames": "altnameid constituentid lastname displayname forwarddisplayname nametype",
}
"""Each table's columns in the newer exports."""

ABSENT = ("constituents_altnames",)
"""Tables that the older exports lack."""

NEWER = {"objects": {"uuid"}, "constituents": {"uuid"}, "published_images": {"openaccess"}}
"""Columns that the older exports lack."""

LONGEST = 4096
"""The longest side, in pixels, of anything served."""

Row = dict[str, str | int | None]


@dataclass(frozen=True)
class Fault:
    """One way in which an answer goes wrong; used up by the request it meets."""

    code: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    keep: int | None = None
    cut_after: int | None = None
    torn: bool = False
    wait: float = 0.0
    promise: int | None = None

    @staticmethod
    def status(code: int, *, retry_after: int | None = None) -> "Fault":
        """Answer with a status, and with Retry-After in seconds if given."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return Fault(code=code, headers=headers, body=b"")

    @staticmethod
    def truncate(after: int) -> "Fault":
        """Promise the whole body and close in good order after so many bytes."""
        return Fault(cut_after=after)

    @staticmethod
    def reset(after: int) -> "Fault":
        """Promise the whole body and tear the connection down (RST) after so many bytes."""
        return Fault(cut_after=after, torn=True)

    @staticmethod
    def short(length: int) -> "Fault":
        """Send only so many bytes and call it all: sound HTTP, so that only a decoder can tell."""
        return Fault(keep=length)

    @staticmethod
    def html() -> "Fault":
        """Answer 200 with a page, as an access gate or a proxy's apology does."""
        page = b"<!doctype html><title>One moment</title><p>Please sign in to the network."
        return Fault(code=200, headers={"Content-Type": "text/html"}, body=page)

    @staticmethod
    def redirect(target: str, code: int = 302) -> "Fault":
        """Send the client elsewhere."""
        return Fault(code=code, headers={"Location": target}, body=b"")

    @staticmethod
    def huge(length: int) -> "Fault":
        """Promise so many bytes, and begin to send."""
        return Fault(body=bytes(1000), promise=length)

    @staticmethod
    def hang(seconds: float) -> "Fault":
        """Say nothing for so long, then answer properly."""
        return Fault(wait=seconds)

    def spoil(self, reply: Reply) -> Reply:
        """The reply as it comes out."""
        body = reply.body if self.body is None else self.body
        return Reply(
            status=self.code or reply.status,
            body=body if self.keep is None else body[: self.keep],
            headers=reply.headers if self.body is None else self.headers,
            cut_after=self.cut_after,
            cut_by="reset" if self.torn else "close",
            wait=self.wait,
            promise=self.promise,
        )


@dataclass(frozen=True)
class _Picture:
    """One published image."""

    objectid: int
    width: int
    height: int
    maxpixels: int | None
    image: Image.Image | None

    def original(self) -> Image.Image:
        """The picture at its true size."""
        return draw(self.objectid, self.width, self.height) if self.image is None else self.image


class LocalMuseum(LocalServer):
    """The museum: add artists and works, read `/data/<table>.csv`, and look at `/iiif/<uuid>/…`."""

    def __init__(self, *, old_columns: bool = False) -> None:
        self.old_columns = old_columns
        """Write the tables as the older exports are: no `uuid` as second column, no `openaccess`."""
        self.info_redirects = False
        """Whether a capped image's info.json, too, is that of its smaller stand-in."""
        self.cap_redirects = True
        """Whether a capped image is redirected to its stand-in; else that is sent, scaled up, from the same address."""
        self._rows: dict[str, list[Row]] = {table: [] for table in COLUMNS}
        self._pictures: dict[str, _Picture] = {}
        self._faults: list[tuple[str, Fault]] = []
        self._jpegs: dict[tuple[str, int | None, str], bytes] = {}
        super().__init__()

    def add_artist(
        self,
        constituentid: int,
        name: str,
        forward: str,
        *,
        begin: int | None = None,
        end: int | None = None,
        nationality: str = "",
        artist: bool = True,
    ) -> None:
        """Add a row to constituents; not every one is an artist."""
        dates = f"{begin} - {end}" if begin and end else f"born {begin}" if begin else ""
        self._add(
            "constituents",
            constituentid=constituentid,
            uuid=_uuid("constituent", constituentid),
            preferreddisplayname=name,
            forwarddisplayname=forward,
            lastname=name.split(",")[0],
            displaydate=", ".join(filter(None, (nationality, dates))),
            artistofngaobject=int(artist),
            beginyear=begin,
            endyear=end,
            nationality=nationality,
            visualbrowsernationality=nationality or "Other",
            constituenttype="individual",
        )

    def add_name(self, constituentid: int, name: str, forward: str = "", *, nametype: str = "Variant Name") -> None:
        """Give a constituent another name; the older exports leave its second form empty."""
        number = 1 + len(self._rows["constituents_altnames"])
        names = {"lastname": name.split(",")[0], "displayname": name, "forwarddisplayname": forward}
        self._add("constituents_altnames", altnameid=number, constituentid=constituentid, **names, nametype=nametype)

    def add_work(
        self,
        objectid: int,
        artist: int,
        title: str,
        *,
        role: str = "artist",
        displaydate: str = "",
        endyear: int | None = None,
        beginyear: int | None = None,
        medium: str = "oil on canvas",
        classification: str = "Painting",
        accession: str | None = None,
        width: int = 1200,
        height: int = 800,
        openaccess: int = 1,
        maxpixels: int | None = None,
        image: Image.Image | None = None,
        viewtype: str = "primary",
        terms: Iterable[tuple[str, str]] = (),
    ) -> str:
        """Add an object, its artist's row and its image; returns the image's uuid. The image's own size wins."""
        self._add(
            "objects",
            objectid=objectid,
            uuid=_uuid("object", objectid),
            accessioned=1,
            accessionnum=accession or f"2000.1.{objectid}",
            title=title,
            displaydate=displaydate,
            beginyear=endyear if beginyear is None else beginyear,
            endyear=endyear,
            medium=medium,
            classification=classification,
            attribution=self._name(artist),
            attributioninverted=self._name(artist, "preferreddisplayname"),
            creditline="Made for a test",
            isvirtual=0,
        )
        self.add_role(objectid, artist, role=role)
        for kind, term in terms:
            self.add_term(objectid, kind, term)
        for side, centimetres in (("width", width / 20), ("height", height / 20)):
            self._dimension(objectid, side, centimetres)
        return self.add_image(
            objectid,
            width=width,
            height=height,
            openaccess=openaccess,
            maxpixels=maxpixels,
            image=image,
            viewtype=viewtype,
        )

    def add_role(self, objectid: int, constituentid: int, *, role: str = "artist", roletype: str = "artist") -> None:
        """Say that a constituent had a part in an object; rows of an object are ordered as they are added."""
        rows = self._rows["objects_constituents"]
        order = 1 + sum(1 for row in rows if row["objectid"] == objectid)
        parts: Row = {"objectid": objectid, "constituentid": constituentid, "displayorder": order}
        self._add("objects_constituents", **parts, roletype=roletype, role=role)

    def add_term(self, objectid: int, termtype: str, term: str) -> None:
        """Add a term, such as ("Theme", "sea")."""
        number = int(hashlib.sha1(f"{termtype}:{term}".encode(), usedforsecurity=False).hexdigest()[:6], 16)
        self._add("objects_terms", termid=number, objectid=objectid, termtype=termtype, term=term)

    def add_text(self, objectid: int, text: str, texttype: str = "bibliography", year: int | None = None) -> None:
        """Add a text entry."""
        self._add("objects_text_entries", objectid=objectid, text=text, texttype=texttype, year=year)

    def add_image(
        self,
        objectid: int,
        *,
        width: int = 1200,
        height: int = 800,
        openaccess: int = 1,
        maxpixels: int | None = None,
        image: Image.Image | None = None,
        viewtype: str = "primary",
    ) -> str:
        """Publish an image of an object, perhaps a further one; returns its uuid."""
        sequence = sum(1 for row in self._rows["published_images"] if row["depictstmsobjectid"] == objectid)
        name = _uuid("image", f"{objectid}/{sequence}")
        width, height = image.size if image else (width, height)
        # A second view is another picture: as an object id of its own it is drawn differently.
        drawn = objectid if sequence == 0 else objectid * 1000 + sequence
        self._pictures[name] = _Picture(drawn, width, height, maxpixels, image)
        self._add(
            "published_images",
            uuid=name,
            viewtype=viewtype,
            sequence=str(sequence),
            width=width,
            height=height,
            maxpixels=maxpixels,
            openaccess=openaccess,
            created="2010-09-07 15:08:48-04",
            modified="2026-01-02 03:04:05-05",
            depictstmsobjectid=objectid,
        )
        return name

    def fault(self, path_part: str, fault: Fault, times: int = 1) -> None:
        """Spoil the next `times` answers to paths that contain `path_part`; faults are used up in order."""
        with self._lock:
            self._faults += [(path_part, fault)] * times

    def table(self, name: str) -> str:
        """A table as CSV, with the image addresses of this server."""
        dropped = NEWER.get(name, set()) if self.old_columns else set()
        columns = [column for column in COLUMNS[name].split() if column not in dropped]
        out = io.StringIO()
        writer = csv.DictWriter(out, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._addressed(row) if name == "published_images" else row for row in self._rows[name])
        return out.getvalue()

    def answer(self, asked: Asked) -> Reply:
        """Serve tables and images, spoiled by the first fault that fits."""
        fault = self._next_fault(asked.path)
        reply = self._proper(asked)
        return fault.spoil(reply) if fault else reply

    def answer_image(self, name: str, rest: Sequence[str]) -> Reply:
        """Serve `/iiif/<name>/<rest>`.

        Known of the real server: info.json tells the true size, a capped image answers 303 to `<uuid>__900` and is
        scaled up to what was asked, an unknown uuid redirects to `__300`. Assumed here: info.json of a capped image is
        not redirected (unless `info_redirects`), the redirected unknown is a 404, and an open image, too, is scaled up.
        """
        base, _, cap = name.partition("__")
        picture = self._pictures.get(base)
        if picture is None:
            return _status(404) if cap else self._elsewhere(name, 300, rest)
        redirects = self.info_redirects or rest != ["info.json"]
        if picture.maxpixels and not cap and redirects:
            if self.cap_redirects:
                return self._elsewhere(name, picture.maxpixels, rest)
            cap = str(picture.maxpixels)
        match rest:
            case ["info.json"]:
                return self._information(name, picture, _cap(cap))
            case ["full", size, "0", "default.jpg"]:
                return self._jpeg(base, picture, _cap(cap), size)
        return _status(400)

    def _add(self, table: str, **values: str | int | None) -> None:
        self._rows[table].append(dict(values))

    def _name(self, constituentid: int, form: str = "forwarddisplayname") -> str:
        rows = self._rows["constituents"]
        return next((str(row[form]) for row in rows if row["constituentid"] == constituentid), "")

    def _dimension(self, objectid: int, side: str, value: float) -> None:
        number = f"{value:.10f}"
        self._add(
            "objects_dimensions",
            objectid=objectid,
            element="overall",
            dimensiontype=side,
            dimension=number,
            unitname="centimeters",
        )

    def _addressed(self, row: Row) -> Row:
        address = f"{self.url}/iiif/{row['uuid']}"
        return row | {"iiifurl": address, "iiifthumburl": f"{address}/full/!200,200/0/default.jpg"}

    def _next_fault(self, path: str) -> Fault | None:
        with self._lock:
            place = next((place for place, (part, _) in enumerate(self._faults) if part in path), None)
            return None if place is None else self._faults.pop(place)[1]

    def _proper(self, asked: Asked) -> Reply:
        match asked.parts:
            case ("data", file) if PurePosixPath(file).suffix == ".csv" and PurePosixPath(file).stem in COLUMNS:
                if self.old_columns and PurePosixPath(file).stem in ABSENT:
                    return _status(404)
                return self._data(PurePosixPath(file).stem, asked.headers.get("if-none-match"))
            case ("iiif", name, *rest):
                return self.answer_image(name, rest)
        return _status(404)

    def _data(self, table: str, known: str | None) -> Reply:
        body = self.table(table).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()}"'
        headers = {"Content-Type": "text/plain; charset=utf-8", "ETag": tag}
        return Reply(304, b"", headers) if known == tag else Reply(200, body, headers)

    def _elsewhere(self, name: str, cap: int, rest: Sequence[str]) -> Reply:
        place = "/".join((self.url, "iiif", f"{name}__{cap}", *rest))
        return Reply(303, b"", {"Location": place})

    def _information(self, name: str, picture: _Picture, cap: int | None) -> Reply:
        width, height = _stored(picture, cap)
        info = {
            "@context": "http://iiif.io/api/image/2/context.json",
            "@id": f"{self.url}/iiif/{name}",
            "protocol": "http://iiif.io/api/image",
            "width": width,
            "height": height,
            "tiles": [{"width": 256, "height": 256, "scaleFactors": [1, 2, 4]}],
            "profile": [
                "http://iiif.io/api/image/2/level1.json",
                {"formats": ["jpg"], "qualities": ["default"], "supports": ["sizeByForcedWh", "sizeByWh"]},
            ],
        }
        return Reply(200, json.dumps(info).encode(), {"Content-Type": "application/ld+json"})

    def _jpeg(self, name: str, picture: _Picture, cap: int | None, size: str) -> Reply:
        wanted = wanted_size(size, _stored(picture, cap))
        if wanted is None:
            return _status(400)
        key = (name, cap, size)
        if key not in self._jpegs:
            image = picture.original().convert("RGB")
            out = io.BytesIO()
            # Through the stored size: what was capped stays blurred when it is scaled up.
            image.resize(_stored(picture, cap)).resize(wanted).save(out, "JPEG", quality=90)
            self._jpegs[key] = out.getvalue()
        return Reply(200, self._jpegs[key], {"Content-Type": "image/jpeg"})


def wanted_size(size: str, true: tuple[int, int]) -> tuple[int, int] | None:
    """The pixels that an IIIF size means: `full`, `max`, `!W,H`, `W,H`, `W,` or `,H`; None if it means nothing."""
    if size in ("full", "max"):
        return _fit(true, (LONGEST, LONGEST)) if max(true) > LONGEST else true
    match = re.fullmatch(r"(!?)(\d*),(\d*)", size)
    if match is None:
        return None
    width, height = (min(int(text or 0), LONGEST) for text in match.groups()[1:])
    if width and height:
        return _fit(true, (width, height)) if match[1] else (width, height)
    # One side is enough, but not to fit a box by.
    return _fit(true, (width or LONGEST, height or LONGEST)) if (width or height) and not match[1] else None


def draw(seed: int, width: int, height: int) -> Image.Image:
    """A colourful picture that another seed's cannot be mistaken for: a ground of four corners, and shapes on it."""
    chance = random.Random(seed)
    corners = Image.new("RGB", (2, 2))
    corners.putdata([_colour(chance) for _ in range(4)])
    picture = corners.resize((width, height), Image.Resampling.BILINEAR)
    brush = ImageDraw.Draw(picture)
    for _ in range(chance.randint(5, 12)):
        points = [(chance.randint(0, width), chance.randint(0, height)) for _ in range(chance.randint(3, 5))]
        chance.choice((_polygon, _ellipse, _stroke))(brush, points, _colour(chance))
    return picture


def fill(museum: LocalMuseum) -> None:
    """Stock the original pair, the pair that is free, and the rows that lead astray.

    Winslow Homer has 15 open works (14 "artist", one "painter") and 3 by others after him; Pablo Picasso 17 that are
    restricted; Juan Gris 17 open ones; Homer Dodge Martin one; Marina Picasso is a donor.
    """
    museum.add_artist(1401, "Homer, Winslow", "Winslow Homer", begin=1836, end=1910, nationality="American")
    museum.add_artist(1783, "Picasso, Pablo", "Pablo Picasso", begin=1881, end=1973, nationality="Spanish")
    museum.add_artist(1359, "Gris, Juan", "Juan Gris", begin=1887, end=1927, nationality="Spanish")
    museum.add_artist(2647, "Martin, Homer Dodge", "Homer Dodge Martin", begin=1836, end=1897, nationality="American")
    museum.add_artist(847, "Picasso, Marina, Ms.", "Ms. Marina Picasso", artist=False)
    museum.add_artist(990001, "Engraver, An", "An Engraver", begin=1830, end=1900, nationality="American")
    _fill_homer(museum)
    _fill_cubists(museum)


def _fill_homer(museum: LocalMuseum) -> None:
    museum.add_work(
        30228,
        1401,
        "Breezing Up (A Fair Wind)",
        role="painter",
        displaydate="1873-1876",
        beginyear=1873,
        endyear=1876,
        accession="1943.13.1",
        terms=[("Theme", "sea")],
    )
    for number in range(14):
        subject = ("sea", "boat", "boy", "field", "shore")[number % 5]
        _made_up(museum, 900101 + number, 1401, subject, number, 1866 + 2 * number)
    for number in range(3):
        _engraving(museum, 900151 + number, number)
    _made_up(museum, 900191, 2647, "field", 0, 1870)


def _engraving(museum: LocalMuseum, objectid: int, number: int) -> None:
    """Add what another cut after Homer: he has a row as "artist after", and it is not his work."""
    museum.add_work(
        objectid,
        990001,
        f"Wood Engraving No. {number + 1}",
        displaydate=str(1868 + number),
        endyear=1868 + number,
        classification="Print",
        medium="wood engraving",
    )
    museum.add_role(objectid, 1401, role="artist after")


def _fill_cubists(museum: LocalMuseum) -> None:
    title = "Family of Saltimbanques"
    museum.add_work(46665, 1783, title, displaydate="1905", endyear=1905, openaccess=0, maxpixels=900)
    for number in range(16):
        subject = ("figure", "guitar")[number % 2]
        _made_up(museum, 900201 + number, 1783, subject, number, 1906 + number, openaccess=0, maxpixels=900)
    museum.add_role(900201, 847, role="donor", roletype="donor")
    for number in range(17):
        subject = ("guitar", "glass", "table", "window")[number % 4]
        _made_up(museum, 900301 + number, 1359, subject, number, 1911 + number % 16)


def _made_up(
    museum: LocalMuseum,
    objectid: int,
    artist: int,
    subject: str,
    number: int,
    year: int,
    *,
    openaccess: int = 1,
    maxpixels: int | None = None,
) -> None:
    """Add a work that the real museum does not have, in one of three formats."""
    width, height = ((1200, 800), (800, 1100), (1000, 1000))[number % 3]
    museum.add_work(
        objectid,
        artist,
        f"The {subject.capitalize()}, No. {number + 1}",
        displaydate=str(year),
        endyear=year,
        width=width,
        height=height,
        openaccess=openaccess,
        maxpixels=maxpixels,
        terms=[("Theme", subject)],
    )


def _colour(chance: random.Random) -> tuple[int, int, int]:
    return chance.randrange(256), chance.randrange(256), chance.randrange(256)


Points = list[tuple[int, int]]
Colour = tuple[int, int, int]


def _polygon(brush: ImageDraw.ImageDraw, points: Points, colour: Colour) -> None:
    brush.polygon(points, fill=colour)


def _ellipse(brush: ImageDraw.ImageDraw, points: Points, colour: Colour) -> None:
    (left, right), (top, bottom) = (sorted((points[0][axis], points[1][axis])) for axis in (0, 1))
    brush.ellipse((left, top, right, bottom), fill=colour)


def _stroke(brush: ImageDraw.ImageDraw, points: Points, colour: Colour) -> None:
    brush.line(points, fill=colour, width=40, joint="curve")


def _fit(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the same shape that is within the box, be it larger or smaller."""
    scale = min(box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _stored(picture: _Picture, cap: int | None) -> tuple[int, int]:
    """The pixels there are: the true ones, or no more than the cap on the long side."""
    size = picture.width, picture.height
    return size if cap is None or max(size) <= cap else _fit(size, (cap, cap))


def _cap(text: str) -> int | None:
    return int(text) if text else None


def _status(code: int) -> Reply:
    return Reply(code, b"", {"Content-Type": "text/plain"})


def _uuid(kind: str, name: object) -> str:
    """The same in every run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://museum.invalid/{kind}/{name}"))
