"""From a TOML file to a recipe that is checked, with its paths made absolute."""

import tomllib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from avignon.core.errors import RecipeError
from avignon.core.naming import slug
from avignon.core.settings import Section
from avignon.museums import registry
from avignon.museums.settings import MuseumSettings
from avignon.recipe.messages import explain
from avignon.recipe.schema import Recipe
from avignon.recipe.shipped import shipped

AnySection = TypeVar("AnySection", bound=Section)


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe: a file, or one that is shipped with the package, by its name.

    Args:
        path: a file of this name goes before a shipped recipe.
        overrides: `section.key=value` strings checked by the same schema.

    Raises:
        RecipeError: naming the file, the field, the value and what is allowed.
    """
    path = Path(path)
    if not path.suffix and (known := shipped().get(str(path))) and not path.is_file():
        path = known
    fields = _read_toml(path)
    for override in overrides:
        _override(fields, override)
    return recipe_from(fields, path)


def recipe_from(fields: dict[str, Any], path: Path) -> Recipe:
    """The recipe that a file's fields say; `path` is the file, to which relative paths in it are relative.

    Raises:
        RecipeError: as `load_recipe`.
    """
    fields.setdefault("name", slug(path.stem))
    _museum_kinds(fields)
    try:
        recipe = Recipe.model_validate(fields)
    except ValidationError as invalid:
        raise RecipeError(f"{path}: {explain(invalid)}") from None
    recipe = _anchor(recipe, path.resolve().parent)
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
        raise RecipeError(f"{path}: exhibit.films: 'mp4' needs `pip install avignon[video]`; others are grid, strip, "
                          "webp, gif")  # fmt: skip


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
    *parents, last = key.strip().split(".")
    table: Any = fields
    for name in parents:
        table = _descend(table, name, text)
    if isinstance(table, list):
        table[_index(table, last, text)] = _toml_value(value)
    else:
        table[last] = _toml_value(value)


def _descend(table: Any, name: str, text: str) -> Any:
    child = table[_index(table, name, text)] if isinstance(table, list) else table.setdefault(name, {})
    if not isinstance(child, dict | list):
        raise RecipeError(f"--set {text}: {name} is a value, not a table")
    return child


def _index(table: list[Any], name: str, text: str) -> int:
    if not name.isdecimal() or int(name) >= len(table):
        raise RecipeError(f"--set {text}: {name} is not a place in the list; allowed are 0 to {len(table) - 1}")
    return int(name)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()  # A bare word, so that --set base.model=embedded needs no quotes inside quotes.


def _museum_kinds(fields: dict[str, Any]) -> None:
    """Fill in the kind, so that `[museum]` with `tables` alone is understood."""
    artists = fields.get("artists")
    for owner in (fields, *(artists if isinstance(artists, list) else ())):
        if isinstance(owner, dict) and isinstance(owner.get("museum"), dict):
            owner["museum"].setdefault("kind", registry.kind_of(owner["museum"]))


def _changed(section: AnySection, **fields: Any) -> AnySection:
    return section.model_copy(update=fields)


def _anchor(recipe: Recipe, folder: Path) -> Recipe:
    """Relative paths in a recipe are relative to the recipe; from here on they are absolute."""

    def placed(path: str) -> str:
        return str((folder / Path(path).expanduser()).resolve())

    def located(model: str) -> str:
        return placed(model) if model.startswith((".", "/", "~")) else model

    def anchored(museum: MuseumSettings) -> MuseumSettings:
        row = registry.row_of(museum)
        return _changed(museum, **{row.field: placed(registry.folder_of(museum))}) if row.is_folder else museum

    artists = tuple(
        _changed(
            artist,
            museum=artist.museum and anchored(artist.museum),
            decisions=artist.decisions and placed(artist.decisions),
            originals=artist.originals and placed(artist.originals),
        )
        for artist in recipe.artists
    )
    scenes = tuple(_changed(scene, image=scene.image and placed(scene.image)) for scene in recipe.generate.scenes)
    adapters = {name: placed(place) for name, place in recipe.generate.adapters.items()}
    return _changed(
        recipe,
        museum=anchored(recipe.museum),
        artists=artists,
        base=_changed(recipe.base, model=located(recipe.base.model)),
        generate=_changed(recipe.generate, adapters=adapters, scenes=scenes),
        evaluate=_changed(recipe.evaluate, encoder=located(recipe.evaluate.encoder)),
    )
