"""Small runs for the tests of single stages: a folder of drawn scans as the museum, and a recipe over it."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from avignon import pipeline
from avignon.core.events import Event
from avignon.core.workspace import Workspace
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe
from tests.support.museum import draw

ARTISTS = ("Winslow Homer", "Pablo Picasso")

SMALL: Mapping[str, Any] = {
    "seed": 7,
    "base": {"resolution": 64},
    "prepare": {"captions": 2},
    "train": {
        "steps": 4,
        "batch": 2,
        "precision": "fp32",
        "learning_rate": 1e-2,
        "checkpoint_every": 2,
        "ranks": {"attention": 4, "projection": 3, "convolution": 2},
    },
    "generate": {
        "stops": 3,
        "num_inference_steps": 2,
        "equalize_adapters": False,
        "scenes": [{"prompt": "a boat on the sea"}, {"prompt": "a guitar on a table"}],
    },
}


Sizes = Sequence[tuple[int, int]]


def scans(folder: Path, *, works: int = 3, rights: str = "CC0", sizes: Sizes = ((96, 80),)) -> Path:
    """A folder museum: `works` drawn pictures of each artist, in these sizes in turn; an index states their rights."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "index.csv").open("w", encoding="utf-8", newline="") as file:
        index = csv.writer(file)
        index.writerow(("file", "artist", "title", "year", "medium", "accession", "rights"))
        for number in range(works * len(ARTISTS)):
            name, artist = f"scan-{number}.png", ARTISTS[number % len(ARTISTS)]
            draw(number, *sizes[number // len(ARTISTS) % len(sizes)]).save(folder / name)
            index.writerow((name, artist, f"Work {number}", 1880 + number, "oil", f"A.{number}", rights))
    return folder


def write_recipe(
    folder: Path,
    model: Path | str,
    *,
    works: int = 3,
    rights: str = "CC0",
    sizes: Sizes = ((96, 80),),
    **sections: Any,
) -> Path:
    """A recipe over scans beside it; `sections` replace single values of `SMALL`."""
    scans(folder / "scans", works=works, rights=rights, sizes=sizes)
    artists = [{"name": name, "works": works, "trigger": f"in the style of {name.split()[1].lower()}"}
               for name in ARTISTS]  # fmt: skip
    start = {"museum": {"path": "scans"}, "artists": artists, **SMALL, "base": {**SMALL["base"], "model": str(model)}}
    path = folder / "small.toml"
    path.write_text(tomli_w.dumps(_merged(start, sections)), encoding="utf-8")
    return path


def small_recipe(folder: Path, model: Path | str, **fields: Any) -> Recipe:
    """The same, loaded."""
    return load_recipe(write_recipe(folder, model, **fields))


def carried(recipe: Recipe, folder: Path, until: str = "prepare") -> tuple[Workspace, list[Event]]:
    """Carry a recipe as far as `until`; also what was said on the way."""
    heard: list[Event] = []
    space = pipeline.run(recipe, folder, heard.append, until=until)
    return space, heard


def _merged(start: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(start)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
