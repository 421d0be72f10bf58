"""Write the embedded museum's tables to src/avignon/demo/tables, the same bytes on every run.

    python tools/make_museum.py

Each painter gets good works and some of every kind that a careful reader of a museum's tables must reject: restricted,
too small, copied byte for byte, photographed twice, by another hand after the painter, blurred, without an image.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import random
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avignon.demo import world
from avignon.demo.world import Scene

TABLES = Path(__file__).resolve().parent.parent / "src" / "avignon" / "demo" / "tables"
SEED = 1894
NAMESPACE = uuid.UUID("5ac7e3a4-5d0e-5b43-9f0a-b1d5a0b7c5a1")
SERVER = "embedded://museum/iiif"
CREDIT = "Gift of the program that painted it"
MEDIUM = "procedural oil (pixels on grid)"
MADE = "2026-01-01 00:00:00-05"
"""The rows' dates of creation and change: fixed, so that the tables are."""

COLUMNS: dict[str, str] = {
    "objects": "objectid uuid accessioned accessionnum locationid title displaydate beginyear endyear "
    "visualbrowsertimespan medium dimensions inscription markings attributioninverted attribution provenancetext "
    "creditline classification subclassification visualbrowserclassification parentid isvirtual departmentabbr "
    "portfolio series volume watermarks lastdetectedmodification wikidataid customprinturl",
    "objects_constituents": "objectid constituentid displayorder roletype role prefix suffix displaydate beginyear "
    "endyear country zipcode",
    "constituents": "constituentid uuid ulanid preferreddisplayname forwarddisplayname lastname displaydate "
    "artistofngaobject beginyear endyear visualbrowsertimespan nationality visualbrowsernationality constituenttype "
    "wikidataid",
    "published_images": "uuid iiifurl iiifthumburl viewtype sequence width height maxpixels openaccess created "
    "modified depictstmsobjectid assistivetext",
    "objects_terms": "termid objectid termtype term visualbrowsertheme visualbrowserstyle",
    "objects_text_entries": "objectid text texttype year",
    "objects_dimensions": "objectid element dimensiontype dimension unitname",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Painter:
    """One of the two invented artists."""

    key: str
    number: int
    inverted: str
    name: str
    subjects: tuple[str, ...]
    """Subjects of the good works, in order."""
    titles: dict[int, str]
    """Titles that try a reader's patience, by the work's place."""


ATLANTIC = Painter(
    "atlantic",
    900001,
    "Atlantic Painter (procedural), The",
    "The Atlantic Painter (procedural)",
    (
        "sailing boat",
        "rowing boat",
        "fisherman",
        "lighthouse",
        "rocky shore",
        "harbour",
        "hay field",
        "schoolhouse",
        "sailing boat",
        "bull",
        "houses on a hill",
        "seated figure",
        "still life",
        "head",
    ),
    {
        4: 'Rocks and Surf, or "The Undertow"',
        6: "Haying, &amp;lt;b&amp;gt;Late August&amp;lt;/b&amp;gt;",
        11: "Lecteur assis à la fenêtre, été",
    },
)
AVIGNON = Painter(
    "avignon",
    900002,
    "Avignon Painter (procedural), The",
    "The Avignon Painter (procedural)",
    (
        "woman with guitar",
        "harlequin",
        "still life",
        "violin",
        "head",
        "bull",
        "houses on a hill",
        "seated figure",
        "woman with guitar",
        "violin",
        "still life",
        "harlequin",
        "harbour",
        "lighthouse",
        "sailing boat",
        "fisherman",
        "schoolhouse",
    ),
    {2: "Nature morte à la bouteille, n° 2", 6: 'Houses at <Horta>, "the Reservoir"', 12: "Port; bateaux & mâts"},
)
SIZES = ((1280, 900), (1024, 1024), (900, 1200), (1400, 940), (760, 1000), (1100, 820), (980, 720), (1000, 1240))


@dataclass
class Museum:
    """The rows of all tables, and the recipes of the pictures."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    paintings: dict[str, Row] = field(default_factory=dict)

    def add(self, table: str, **values: Any) -> None:
        """Append a row; columns not named stay empty, unknown ones are an error."""
        unknown = set(values) - set(COLUMNS[table].split())
        if unknown:
            raise KeyError(f"{table} has no column {unknown}")
        self.rows[table].append(values)


def hang(
    museum: Museum,
    painter: Painter,
    number: int,
    scene: Scene,
    seed: int,
    size: tuple[int, int],
    *,
    title: str = "",
    role: str = "artist",
    image: bool = True,
    views: int = 1,
    **how: Any,
) -> None:
    """Give one work its rows and its picture. `how` goes to `Painting`: capped, blur, crop, light."""
    year = 2020 + number % 6
    object_uuid = str(uuid.uuid5(NAMESPACE, f"object {number}"))
    title = title or title_of(scene, number)
    dimensions = (round(size[1] / 12, 1), round(size[0] / 12, 1))
    museum.add(
        "objects",
        objectid=number,
        uuid=object_uuid,
        accessioned=1,
        accessionnum=f"{year}.{number % 1000}.1",
        title=title,
        displaydate=f"{year}",
        beginyear=year,
        endyear=year,
        visualbrowsertimespan="2001 to present",
        medium=MEDIUM,
        dimensions=f"overall: {dimensions[0]} x {dimensions[1]} cm",
        attributioninverted=painter.inverted,
        attribution=painter.name,
        creditline=CREDIT,
        classification="Painting",
        visualbrowserclassification="painting",
        isvirtual=0,
        departmentabbr="CP",
        lastdetectedmodification=MADE,
    )
    museum.add(
        "objects_constituents",
        objectid=number,
        constituentid=painter.number,
        displayorder=1,
        roletype="artist",
        role=role,
        displaydate=str(year),
    )
    museum.add(
        "objects_constituents", objectid=number, constituentid=900003, displayorder=1, roletype="donor", role="donor"
    )
    for element, value in zip(("height", "width"), dimensions, strict=True):
        museum.add(
            "objects_dimensions",
            objectid=number,
            element="overall",
            dimensiontype=element,
            dimension=f"{value:.10f}",
            unitname="centimeters",
        )
    describe(museum, number, scene, title, year)
    for view in range(views if image else 0):
        publish(museum, painter, number, scene, seed + view, size, view, how)


def describe(museum: Museum, number: int, scene: Scene, title: str, year: int) -> None:
    """Terms that say what is to be seen, and a line of text."""
    what, *rest = world.phrases(scene)
    terms = [("Theme", what.removeprefix("a ")), *(("Keyword", part) for part in rest), ("School", "Procedural")]
    for kind, term in terms:
        museum.add(
            "objects_terms",
            termid=700000 + len(museum.rows["objects_terms"]),
            objectid=number,
            termtype=kind,
            term=term,
        )
    museum.add(
        "objects_text_entries",
        objectid=number,
        text=f"{title}: {world.caption(scene)}.",
        texttype="exhibition_history",
        year=year,
    )


def publish(
    museum: Museum, painter: Painter, number: int, scene: Scene, seed: int, size: tuple[int, int], view: int, how: Row
) -> None:
    """One published image, and how the server is to paint it."""
    image_uuid = str(uuid.uuid5(NAMESPACE, f"image {number} {view}"))
    capped = bool(how.get("capped"))
    museum.add(
        "published_images",
        uuid=image_uuid,
        iiifurl=f"{SERVER}/{image_uuid}",
        iiifthumburl=f"{SERVER}/{image_uuid}/full/!200,200/0/default.jpg",
        viewtype="alternate" if view else "primary",
        sequence=str(view),
        width=size[0],
        height=size[1],
        maxpixels=900 if capped else "",
        openaccess=0 if capped else 1,
        created=MADE,
        modified=MADE,
        depictstmsobjectid=number,
        assistivetext=world.caption(scene),
    )
    museum.paintings[image_uuid] = {
        "painter": painter.key,
        "scene": dataclasses.asdict(scene),
        "seed": seed,
        "size": list(size),
        **how,
    }


def title_of(scene: Scene, number: int) -> str:
    """A title as on a museum's wall: "Sailing Boat at Dusk, No. 3"."""
    small = {"a", "with", "on", "in", "the", "at"}
    words = [w if w in small and k else w.capitalize() for k, w in enumerate(scene.subject.split())]
    title = f"{' '.join(words)} {'in the Morning' if scene.time == 'morning' else 'at ' + scene.time.capitalize()}"
    return f"{title}, No. {number % 7 + 2}" if number % 3 else title


def scenes(painter: Painter) -> Iterable[Scene]:
    """The good works' scenes: every hour, weather and colour in turn, near by more often than far."""
    rng = random.Random(f"{SEED}/{painter.key}")
    colours = list(world.COLOURS)
    for k, subject in enumerate(painter.subjects):
        yield dataclasses.replace(
            world.sample(rng),
            subject=subject,
            colour=colours[(k * 5 + 1) % len(colours)],
            number=min(2, len(world.SUBJECTS[subject].names)) if k % 4 == 0 else 1,
            distance="far" if k % 4 == 3 else "near",
            time=("noon", "dusk", "morning", "noon", "night")[k % 5],
            weather=("fine", "cloudy", "stormy")[k % 3],
        )


def collection(museum: Museum, painter: Painter) -> None:
    """All works of one painter, good ones first."""
    museum.add(
        "constituents",
        constituentid=painter.number,
        uuid=str(uuid.uuid5(NAMESPACE, painter.key)),
        preferreddisplayname=painter.inverted,
        forwarddisplayname=painter.name,
        lastname=painter.name.split()[1],
        displaydate="a program",
        artistofngaobject=1,
        nationality="procedural",
        visualbrowsernationality="Other",
        constituenttype="individual",
    )
    first = 910000 if painter is ATLANTIC else 920000
    works = list(scenes(painter))
    for k, scene in enumerate(works):
        hang(
            museum,
            painter,
            first + k,
            scene,
            first + k,
            SIZES[(k * 3 + painter.number) % len(SIZES)],
            title=painter.titles.get(k, ""),
            views=2 if k % 5 == 3 else 1,
        )
    spoil(museum, painter, first, works)


def spoil(museum: Museum, painter: Painter, first: int, works: list[Scene]) -> None:
    """The works that are to be rejected, each for a reason of its own."""
    rng = random.Random(f"{SEED}/{painter.key}/spoilt")
    others = [world.sample(rng) for _ in range(8)]

    def size_of(k: int) -> tuple[int, int]:
        return SIZES[(k * 3 + painter.number) % len(SIZES)]

    at = first + 100
    hang(museum, painter, at, others[0], at, (1200, 900), capped=True)
    hang(museum, painter, at + 1, others[1], at + 1, (900, 1100), capped=True)
    hang(museum, painter, at + 2, others[2], at + 2, (96, 72), title="Sketch for a Sketch")
    hang(museum, painter, at + 3, works[0], first, size_of(0), title=title_of(works[0], first) + " (copy of the file)")
    hang(
        museum,
        painter,
        at + 4,
        works[1],
        first + 1,
        size_of(1),
        title="The Same, Photographed Again",
        crop=0.006,
        light=1.06,
    )
    hang(museum, painter, at + 5, others[5], at + 5, (1000, 800), role="artist after")
    hang(museum, painter, at + 6, others[6], at + 6, (1000, 800), blur=9.0, title="Study, Seen Through Tears")
    hang(museum, painter, at + 7, others[7], at + 7, (1000, 800), image=False, title="Whereabouts Unknown")


def table(name: str, rows: list[Row]) -> str:
    """One table as CSV."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS[name].split(), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def main() -> None:
    """Write all tables and the list of paintings."""
    museum = Museum()
    for painter in (ATLANTIC, AVIGNON):
        collection(museum, painter)
    museum.add(
        "constituents",
        constituentid=900003,
        uuid=str(uuid.uuid5(NAMESPACE, "donor")),
        preferreddisplayname="Seed, A.",
        forwarddisplayname="A. Seed",
        lastname="Seed",
        artistofngaobject=0,
        constituenttype="individual",
    )
    TABLES.mkdir(parents=True, exist_ok=True)
    for name, rows in museum.rows.items():
        (TABLES / f"{name}.csv").write_text(table(name, rows), encoding="utf-8", newline="")
    text = json.dumps(museum.paintings, indent=1, ensure_ascii=False) + "\n"
    (TABLES / "paintings.json").write_text(text, encoding="utf-8", newline="")
    print(f"{len(museum.rows['objects'])} objects, {len(museum.paintings)} images in {TABLES}")


if __name__ == "__main__":
    main()
