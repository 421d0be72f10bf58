"""The pictures that the parts read.

    python -m benchmarks.gpu_parts.data FOLDER      makes those that are not there

    demo/       the demo's recipe, as it ships
    original/   the same 31 works as 31 pictures of 512 pixels, four captions each: as many as the original's job had

Each is a run's folder with what `train`, `generate` and `exhibit` read; the museum's originals are made
small. It is made where all of avignon's dependencies are; the machine with the card needs the folder alone.
"""

import hashlib
import io
import random
import shutil
import sys
from pathlib import Path

from avignon import pipeline
from avignon.core import imaging
from avignon.core.files import json_text, read_json_lines, write_bytes, write_text
from avignon.core.workspace import Workspace
from avignon.curation.ledger import COLUMNS
from avignon.demo import world
from avignon.demo.painters import PAINTERS
from avignon.museums.tables import csv_text
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Artist, Recipe

ROOT = Path(__file__).parents[2]

OVERRIDES: dict[str, tuple[str, ...]] = {
    "demo": (),
    "original": ("base.resolution=512", "collect.max_edge=1280", "prepare.crops=1", "prepare.captions=4"),
}


def recipe_of(name: str, *overrides: str) -> Recipe:
    """The demo's recipe with what a dataset changes in it, and then `overrides`."""
    changes = [f"name={name}", *OVERRIDES.get(name, ()), *overrides]
    return load_recipe(ROOT / "recipes/demo.toml", changes)


def prepare(folder: Path) -> None:
    """Make what is not there; a dataset that is there is whole, because it gets its name last."""
    for name in OVERRIDES:
        if (folder / name).exists():
            continue
        scratch = folder / "unfinished"
        shutil.rmtree(scratch, ignore_errors=True)
        space = pipeline.run(recipe_of(name), scratch, lambda _: None, until="prepare")
        shutil.rmtree(space.contact)
        for original in space.works.glob("*/*.jpg"):
            _shrink(original)
        if name == "original":
            for artist in recipe_of(name).artists:
                _as_jpeg(space.metadata(artist.slug))
        space.root.replace(folder / name)
        shutil.rmtree(scratch)


def _shrink(original: Path) -> None:
    """Make one of the museum's pictures as small as the page shows it."""
    image = imaging.load(original)
    image.thumbnail((320, 320))
    image.save(original, "JPEG", quality=80)


def _as_jpeg(metadata: Path) -> None:
    """Make an artist's pictures JPEG files, a quarter of their size: they are carried to the machine with the card."""
    rows = read_json_lines(metadata)
    for row in rows:
        file = metadata.with_name(row["file_name"])
        buffer = io.BytesIO()
        imaging.load(file).save(buffer, "JPEG", quality=80)
        file.unlink()
        row["file_name"], row["sha256"] = f"{file.stem}.jpg", hashlib.sha256(buffer.getvalue()).hexdigest()
        write_bytes(metadata.with_name(row["file_name"]), buffer.getvalue())
    write_text(metadata, "".join(json_text(row) + "\n" for row in rows))


def workspace(data: Path, name: str, folder: Path) -> Workspace:
    """A copy of a dataset, to work in."""
    return Workspace(Path(shutil.copytree(data / name, folder / name)))


def drawn(recipe: Recipe, folder: Path, pictures: int) -> Workspace:
    """A run's folder with `pictures` of each artist, painted small by the demo's two painters; no museum is asked."""
    space = Workspace(folder)
    rows = [
        _drawn(space, artist, painter, number, recipe.base.resolution)
        for artist, painter in zip(recipe.artists, PAINTERS, strict=True)
        for number in range(pictures)
    ]
    write_text(space.ledger, csv_text(COLUMNS, rows))
    space.adapters.mkdir(parents=True, exist_ok=True)
    return space


def _drawn(space: Workspace, artist: Artist, painter: str, number: int, edge: int) -> dict[str, str]:
    """One picture with its line of metadata; returns its row of the ledger."""
    scene = world.sample(random.Random(number))
    buffer = io.BytesIO()
    PAINTERS[painter](scene, (edge, edge), number).save(buffer, "PNG")
    metadata, title = space.metadata(artist.slug), world.caption(scene)
    work = {"object_id": f"{painter}-{number}", "accession": f"{number}", "title": title, "museum": "drawn"}
    line = {
        "file_name": f"{number}.png",
        "captions": [f"{title}, {artist.trigger}", artist.trigger],
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        **work,
        "box": [0, 0, edge, edge],
        "rights": "open",
    }
    write_bytes(metadata.with_name(f"{number}.png"), buffer.getvalue())
    with metadata.open("a", encoding="utf-8") as file:
        file.write(json_text(line) + "\n")
    return {
        **dict.fromkeys(COLUMNS, ""),
        **work,
        "artist": artist.name,
        "rights": "open",
        "decision": "kept",
        "page": "-",
    }


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
