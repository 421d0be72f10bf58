"""The dataset that the parts read: the embedded museum's works, collected, judged and prepared, small enough to carry.

    demo/       the demo's recipe, as it ships
    original/   the same 31 works as 31 pictures of 512 pixels, four captions each: what the original's job learned from

Each is a run's folder with what `train`, `generate` and `exhibit` read; the museum's originals and the contact sheet
are left out. It needs all of avignon's dependencies; the machine with the card does not.
"""

import shutil
from pathlib import Path

from avignon import pipeline
from avignon.core.workspace import Workspace
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe

ROOT = Path(__file__).parents[2]

OVERRIDES: dict[str, tuple[str, ...]] = {
    "demo": (),
    "original": (
        "base.resolution=512", "collect.max_edge=1280", "prepare.crops=1", "prepare.captions=4",
    ),
}  # fmt: skip


def recipe_of(name: str, *overrides: str) -> Recipe:
    """The demo's recipe with what this dataset changes in it."""
    return load_recipe(ROOT / "recipes/demo.toml", [f"name={name}", *OVERRIDES[name], *overrides])


def prepare(folder: Path) -> None:
    """Make what is not there; a folder that is there is whole, because it gets its name last."""
    for name in OVERRIDES:
        if (folder / name).exists():
            continue
        scratch = folder / "unfinished"
        shutil.rmtree(scratch, ignore_errors=True)
        space = pipeline.run(recipe_of(name), scratch, lambda _: None, until="prepare")
        for extra in [space.contact, *(each for each in space.works.iterdir() if each.is_dir())]:
            shutil.rmtree(extra)
        space.root.replace(folder / name)
        shutil.rmtree(scratch)


def workspace(data: Path, name: str, folder: Path) -> Workspace:
    """A copy of a dataset to work in: a run's folder, prepared."""
    return Workspace(Path(shutil.copytree(data / name, folder / name)))
