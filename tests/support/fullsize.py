"""The museum's tables at their full size, made up, with the quirks of such exports.

Quotes, commas and line breaks in titles; provenance of many lines; several images per object, alternates among them;
`sequence` as text that is not always a number; empty `maxpixels`; years missing; the older and the newer columns.
Where a folder of real tables is given (constituents and what names objects by them), those are used, and only what is
not there is made up.
"""

import csv
import gzip
import random
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support.museum import ABSENT, COLUMNS, NEWER

OBJECTS, IMAGES, PEOPLE, PARTS, TERMS, DIMENSIONS, TEXTS = 145_000, 120_000, 27_000, 460_000, 380_000, 205_000, 100_000
NAMES = 33_000

SUBJECTS = """
    sea boat breeze boy field shore storm light house road river bridge woman window letter violin bottle table winter
    harvest garden church market soldier horse child mother night morning rock wave net lamp mirror crucifixion virgin
"""
WORDS = SUBJECTS.split()

Row = dict[str, object]


def make(
    folder: Path, *, share: float = 1.0, old_columns: bool = False, seed: int = 0, real: Path | None = None
) -> Path:
    """Write all tables into a folder; `share` makes fewer rows of each.

    Winslow Homer is constituent 1401 and has works in any case.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    copied = _copied(real, folder) if real else set()
    numbers = _ids(folder, copied, round(OBJECTS * share), chance)
    made: dict[str, Iterable[Row]] = {
        "objects": _objects(numbers, chance),
        "published_images": _images(numbers, round(IMAGES * share), chance),
        "constituents": _people(round(PEOPLE * share), chance),
        "objects_constituents": _parts(numbers, round(PARTS * share), round(PEOPLE * share), chance),
        "objects_terms": _terms(numbers, round(TERMS * share), chance),
        "objects_dimensions": _dimensions(numbers, round(DIMENSIONS * share), chance),
        "objects_text_entries": _texts(numbers, round(TEXTS * share), chance),
        "constituents_altnames": _other_names(round(NAMES * share), round(PEOPLE * share), chance),
    }
    for table, rows in made.items():
        if table not in copied and not (old_columns and table in ABSENT):
            _write(folder / f"{table}.csv", table, rows, old_columns)
    return folder


def _copied(real: Path, folder: Path) -> set[str]:
    """Unpack the real tables that there are (`constituents.csv.gz`, `objects_terms.2021.csv.gz`, …)."""
    found = {path.name.partition(".")[0]: path for path in sorted(real.glob("*.csv.gz"))}
    for table, path in found.items():
        with gzip.open(path) as source, (folder / f"{table}.csv").open("wb") as target:
            shutil.copyfileobj(source, target)
    return set(found)


def _ids(folder: Path, copied: set[str], count: int, chance: random.Random) -> list[int]:
    """Object ids: those that the real tables name, and made-up ones up to the number wanted."""
    known: dict[int, None] = {}
    if "objects_constituents" in copied:
        with (folder / "objects_constituents.csv").open(encoding="utf-8", newline="") as file:
            known = dict.fromkeys(int(row["objectid"]) for row in csv.DictReader(file))
    numbers = list(known)[:count]
    return numbers + [900_000 + number for number in range(count - len(numbers))]


def _other_names(count: int, people: int, chance: random.Random) -> Iterator[Row]:
    """Further names; some have no second form, as in the older exports."""
    for number in range(1, count + 1):
        first, last = _words(chance, 1).capitalize(), _words(chance, 1).capitalize()
        forward = f"{first} {last}" if chance.random() < 0.5 else ""
        names = {"lastname": last, "displayname": f"{last}, {first}", "forwarddisplayname": forward}
        yield {
            "altnameid": number,
            "constituentid": 10_000 + chance.randrange(max(1, people)),
            **names,
            "nametype": "Variant",
        }


def _write(path: Path, table: str, rows: Iterable[Row], old_columns: bool) -> None:
    dropped = NEWER.get(table, set()) if old_columns else set()
    columns = [column for column in COLUMNS[table].split() if column not in dropped]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _words(chance: random.Random, count: int) -> str:
    return " ".join(chance.choices(WORDS, k=count))


def _title(chance: random.Random) -> str:
    title = _words(chance, chance.randint(1, 6)).capitalize()
    quirk = chance.random()
    if quirk < 0.02:
        return f'"{title}", said the "{_words(chance, 1)}"'
    if quirk < 0.04:
        return f"{title}\r\n{_words(chance, 2)}"
    if quirk < 0.05:
        return f"{title}\n(étude d'après nature; № {chance.randint(1, 99)})\u2028verso"
    return title


def _objects(numbers: list[int], chance: random.Random) -> Iterator[Row]:
    kinds = ("Print", "Drawing", "Photograph", "Painting", "Sculpture", "Index of American Design")
    for number in numbers:
        end = chance.randint(1400, 1990)
        dated = chance.random() < 0.97
        yield {
            "objectid": number,
            "uuid": uuid.UUID(int=chance.getrandbits(128)),
            "accessioned": 1,
            "accessionnum": f"{chance.randint(1937, 2025)}.{chance.randint(1, 300)}.{chance.randint(1, 999)}",
            "title": _title(chance),
            "displaydate": chance.choice((str(end), f"c. {end}", f"{end - 3}/{end}")) if dated else "",
            "beginyear": end - chance.choice((0, 0, 1, 3)) if dated else "",
            "endyear": end if dated else "",
            "medium": chance.choice(
                ("oil on canvas", "etching", "wood engraving", "graphite on wove paper, laid down")
            ),
            "dimensions": f"overall: {chance.randint(10, 300)} x {chance.randint(10, 300)} cm",
            "attribution": _words(chance, 2).title(),
            "attributioninverted": _words(chance, 2).title(),
            "provenancetext": "\n".join(_words(chance, 14) for _ in range(chance.randint(1, 4))) if dated else "",
            "creditline": f"Gift of {_words(chance, 2).title()}",
            "classification": chance.choices(kinds, (55, 15, 12, 4, 4, 10))[0],
            "isvirtual": 0,
            "departmentabbr": "DPD",
            "lastdetectedmodification": "2026-01-02 03:04:05-05",
        }


def _images(numbers: list[int], count: int, chance: random.Random) -> Iterator[Row]:
    """Images of the first objects: one primary each, and for some several alternates before or after it."""
    left = count
    for number in numbers:
        views = ["primary", *["alternate"] * chance.choices((0, 1, 4), (80, 15, 5))[0]][:left]
        chance.shuffle(views)
        for place, view in enumerate(views):
            yield _image(number, place, view, chance)
        left -= len(views)
        if not left:
            return


def _image(number: int, place: int, view: str, chance: random.Random) -> Row:
    name = uuid.UUID(int=chance.getrandbits(128))
    opened = chance.random() < 0.53
    address = f"https://api.nga.gov/iiif/{name}"
    return {
        "uuid": name,
        "iiifurl": address,
        "iiifthumburl": f"{address}/full/!200,200/0/default.jpg",
        "viewtype": view,
        "sequence": chance.choice((str(place), f"{place}.0", "", "cover")),
        "width": chance.randint(600, 12_000),
        "height": chance.randint(600, 12_000),
        "maxpixels": "" if opened or chance.random() < 0.1 else chance.choice((900, 900, 900, 4000)),
        "openaccess": int(opened),
        "created": "2010-09-07 15:08:48-04",
        "modified": "2026-01-02 03:04:05-05",
        "depictstmsobjectid": number,
        "assistivetext": f"We look across {_words(chance, 12)}." if chance.random() < 0.3 else "",
    }


def _people(count: int, chance: random.Random) -> Iterator[Row]:
    homer = {"constituentid": 1401, "preferreddisplayname": "Homer, Winslow", "forwarddisplayname": "Winslow Homer"}
    yield {**homer, "displaydate": "American, 1836 - 1910", "artistofngaobject": 1, "beginyear": 1836, "endyear": 1910}
    for number in range(10_000, 10_000 + count):
        first, last = _words(chance, 1).title(), f"{_words(chance, 1)}{chance.randint(0, 9999)}".title()
        begin = chance.randint(1400, 1960)
        yield {
            "constituentid": number,
            "preferreddisplayname": f"{last}, {first}",
            "forwarddisplayname": f"{first} {last}",
            "lastname": last,
            "displaydate": f"{begin} - {begin + 60}",
            "artistofngaobject": int(chance.random() < 0.6),
            "beginyear": begin,
            "endyear": begin + 60 if begin < 1930 else "",
        }


def _parts(numbers: list[int], count: int, people: int, chance: random.Random) -> Iterator[Row]:
    for place in range(count):
        homer = place % 1000 == 0  # One in a thousand rows is Homer's, as many as he has in truth.
        artist = homer or chance.random() < 0.35
        yield {
            "objectid": numbers[place % len(numbers)],
            "constituentid": 1401 if homer else 10_000 + chance.randrange(people),
            "displayorder": place // len(numbers) + 1,
            "roletype": "artist" if artist else chance.choice(("donor", "owner")),
            "role": chance.choice(("artist", "artist", "artist after")) if artist else "donor",
            "prefix": chance.choice(("", "", "", "Attributed to")) if artist else "",
        }


def _terms(numbers: list[int], count: int, chance: random.Random) -> Iterator[Row]:
    for _ in range(count):
        kind = chance.choice(("Theme", "Keyword", "Place Executed", "School", "Style"))
        yield {"termid": chance.randint(1, 9**7), "objectid": chance.choice(numbers), "termtype": kind,
               "term": chance.choice(WORDS)}  # fmt: skip


def _dimensions(numbers: list[int], count: int, chance: random.Random) -> Iterator[Row]:
    for place in range(count):
        yield {"objectid": numbers[place // 2 % len(numbers)], "element": "overall",
               "dimensiontype": ("width", "height")[place % 2], "dimension": f"{chance.uniform(5, 300):.10f}",
               "unitname": "centimeters"}  # fmt: skip


def _texts(numbers: list[int], count: int, chance: random.Random) -> Iterator[Row]:
    for _ in range(count):
        kind = chance.choice(("bibliography", "exhibition_history", "documentary_labels_inscriptions"))
        yield {"objectid": chance.choice(numbers), "text": _words(chance, 30), "texttype": kind, "year": 1990}
