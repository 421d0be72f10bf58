"""From a TOML file to a recipe that is checked, with its paths made absolute."""

import tomllib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from avignon.core.errors import RecipeError
from avignon.core.naming import slug
from avignon.museums import registry
from avignon.recipe.messages import explain
from avignon.recipe.schema import Recipe
from avignon.recipe.shipped import shipped


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe: a file, or else one that is shipped with the package, by its name.

    `overrides` are `section.key=value` strings, which the same schema checks. A `RecipeError` names the file, the
    field, the value and what is allowed.
    """
    path = Path(path)
    if not path.suffix and (known := shipped().get(str(path))) and not path.is_file():
        path = known
    fields = _read_toml(path)
    for override in overrides:
        _override(fields, override)
    return recipe_from(fields, path)


def recipe_from(fields: dict[str, Any], path: Path) -> Recipe:
    """The recipe that a file's fields say, or a `RecipeError`; paths in it are relative to that of the file."""
    fields.setdefault("name", slug(path.stem))
    artists = fields.get("artists")
    for owner in (fields, *(artists if isinstance(artists, list) else ())):
        if isinstance(owner, dict) and isinstance(owner.get("museum"), dict):
            owner["museum"].setdefault("kind", registry.kind_of(owner["museum"]))  # `[museum]` may have `tables` alone.
    try:
        recipe = Recipe.model_validate(fields, context=path.resolve().parent)
    except ValidationError as invalid:
        raise RecipeError(f"{path}: {explain(invalid)}") from None
    _check_surroundings(recipe, path)
    return recipe


def _check_surroundings(recipe: Recipe, path: Path) -> None:
    """Check what a recipe needs of this machine, before hours are spent on the way to it."""
    for number, scene in enumerate(recipe.generate.scenes):
        if scene.image and not Path(scene.image).is_file():
            raise RecipeError(f"{path}: generate.scenes.{number}.image: {scene.image}: no such file")
    for number, artist in enumerate(recipe.artists):
        if artist.originals and not Path(artist.originals).is_dir():
            raise RecipeError(f"{path}: artists.{number}.originals: {artist.originals}: no such folder")
    encoder = Path(recipe.evaluate.encoder)
    if encoder.is_absolute() and not encoder.is_dir():
        raise RecipeError(f"{path}: evaluate.encoder: {encoder}: no such directory")
    if "mp4" in recipe.exhibit.films and find_spec("av") is None:
        needs = "'mp4' needs `pip install avignon[video]`; others are grid, strip, webp, gif"
        raise RecipeError(f"{path}: exhibit.films: {needs}")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe{_other_recipes(path)}") from None
    except OSError as unreadable:
        raise RecipeError(f"{path}: cannot be read: {unreadable.strerror}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a recipe: not UTF-8 text") from None
    except tomllib.TOMLDecodeError as invalid:
        raise RecipeError(f"{path}: not TOML: {invalid}") from None


def _other_recipes(path: Path) -> str:
    names = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
    near = f"; {path.parent} has {', '.join(names)}" if names else ""
    return near if path.name != str(path) or path.suffix else f"{near}; shipped by name are {', '.join(shipped())}"


def _override(fields: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {text}: expected section.key=value, such as train.steps=50")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()  # A bare word, so that --set base.model=embedded needs no quotes inside quotes.
    *parents, last = key.strip().split(".")
    table: Any = fields
    for name in parents:
        table = table[_index(table, name, text)] if isinstance(table, list) else table.setdefault(name, {})
        if not isinstance(table, dict | list):
            raise RecipeError(f"--set {text}: {name} is a value, not a table")
    table[_index(table, last, text) if isinstance(table, list) else last] = parsed


def _index(table: list[Any], name: str, text: str) -> int:
    if not name.isdecimal() or int(name) >= len(table):
        raise RecipeError(f"--set {text}: {name} is not a place in the list; allowed are 0 to {len(table) - 1}")
    return int(name)
