"""Recipes that travel with the package, and new ones to edit."""

import tomllib
from pathlib import Path

import pytest

from avignon.models.names import KNOWN
from avignon.models.registry import FAMILIES
from avignon.museums.registry import MUSEUMS
from avignon.recipe.load import load_recipe
from avignon.recipe.shipped import shipped, summary
from tests.support import scans
from tests.support.commands import avignon, told
from tests.support.paths import RECIPES

Captured = pytest.CaptureFixture[str]

ARTISTS = ('Ann "Quote" Other', "Bo\\Second", "Léger, Fernand", "C'est # [x] = 1")


def test_recipes_are_known_by_name() -> None:
    """A name stands for the file in recipes/, and loads as the file does."""
    assert list(shipped()) == sorted(path.stem for path in RECIPES.glob("*.toml"))
    for name, path in shipped().items():
        assert load_recipe(name) == load_recipe(path)


def test_shipped_recipes_suit_their_bases() -> None:
    """A sampler that the base's family has, and no more pixels than it was trained at."""
    recipes = [load_recipe(path) for path in shipped().values()]
    named = [(recipe, KNOWN[recipe.base.model]) for recipe in recipes if recipe.base.model in KNOWN]
    assert {known.family for _, known in named} >= {"sdxl", "z-image", "flux2-klein"}
    for recipe, known in named:
        assert recipe.generate.scheduler in FAMILIES[known.family].samplers
        assert recipe.base.resolution <= known.resolution


def test_file_goes_before_a_shipped_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a shipped recipe's name is what is meant; a folder of that name is not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert load_recipe("demo").seed == 1876
    (tmp_path / "demo").rmdir()
    scans.recipe(tmp_path).rename(tmp_path / "demo")
    assert load_recipe("demo").seed == 7


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_summary_is_read_from_the_head(path: Path) -> None:
    """Each part of a recipe's head is read whole, over its lines; none of it is lost."""
    parts = summary(path)
    assert list(parts)[:2] == ["What it does", "Cost"]
    head = path.read_text(encoding="utf-8").split("\n\n")[0].split("\n#\n")[1]
    assert " ".join(f"{label} {text}" for label, text in parts.items()) == " ".join(head.replace("#", " ").split())


def test_recipes_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`avignon recipes` has each with what it does and what it costs."""
    code, out, errors = told(capsys, "recipes")
    assert (code, errors) == (0, [])
    words = set(out.split())
    for name, path in shipped().items():
        assert {name, *summary(path)["What it does"].split(), *summary(path)["Cost"].split()} <= words


@pytest.mark.parametrize("museum", [row.kind for row in MUSEUMS])
def test_new_recipe_loads(capsys: Captured, tmp_path: Path, museum: str) -> None:
    """A new recipe loads, with the names, the museum and the base that were given, whatever signs they hold."""
    path = tmp_path / "my-dialogue.toml"
    options = ("--museum", museum, "--base", "someone/a-model")
    assert avignon(capsys, "new", path, "--artists", *ARTISTS, *options) == (0, [])
    loaded = load_recipe(path)
    assert tuple(artist.name for artist in loaded.artists) == ARTISTS
    assert (loaded.name, loaded.museum.kind, loaded.base.model) == ("my-dialogue", museum, "someone/a-model")
    assert all(summary(path)[part] for part in ("What it does", "Cost"))


@pytest.mark.parametrize("base", KNOWN)
def test_new_recipe_suits_its_base(capsys: Captured, tmp_path: Path, base: str) -> None:
    """A base's short name gives the resolution that it was trained at, and a sampler that its family has."""
    path = tmp_path / "new.toml"
    assert avignon(capsys, "new", path, "--artists", "Ann", "Bo", "--base", base) == (0, [])
    loaded = load_recipe(path)
    assert loaded.base.resolution == KNOWN[base].resolution
    assert loaded.generate.scheduler in FAMILIES[KNOWN[base].family].samplers


def test_new_recipe_shows_the_defaults(capsys: Captured, tmp_path: Path) -> None:
    """What stands behind a # is the default: with all of it switched on, the recipe is the same."""
    path = tmp_path / "new.toml"
    assert avignon(capsys, "new", path, "--artists", "Ann", "--artists", "Bo") == (0, [])
    lines = path.read_text(encoding="utf-8").split("\n\n", 1)[1].splitlines()
    switched = "\n".join(line.removeprefix("# ") if " = " in line else line for line in lines)
    assert switched.count("#") < len(lines)
    (tmp_path / "on").mkdir()
    (tmp_path / "on" / "new.toml").write_text(switched, encoding="utf-8")
    assert len(tomllib.loads(switched)["train"]) == 5
    assert load_recipe(tmp_path / "on" / "new.toml") == load_recipe(path)


@pytest.mark.parametrize(
    ("artists", "options", "expected"),
    [
        (("Ann",), (), "new.toml: artists: 1 given, at least 2 are needed"),
        (("Ann", "ANN"), (), "new.toml: artists: two artists have one name: 'Ann' and 'ANN'"),
        (("Ann", " "), (), "new.toml: artists.1.name: '' is not allowed; string should have at least 1 character"),
        (("Ann", "Bo"), ("--museum", "met"), "--museum met: no such museum; allowed are "),
    ],
)
def test_new_recipe_that_would_not_load(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    artists: tuple[str, ...],
    options: tuple[str, ...],
    expected: str,
) -> None:
    """What a recipe cannot hold is one line, and no file is written."""
    code, errors = avignon(capsys, "new", tmp_path / "new.toml", "--artists", *artists, *options)
    assert (code, len(errors)) == (2, 1)
    assert expected in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_new_recipe_overwrites_nothing(capsys: Captured, tmp_path: Path) -> None:
    """A file that is there stays as it is, and so does a link that leads nowhere."""
    for path in (tmp_path / "mine.toml", tmp_path / "link.toml"):
        path.write_text("mine") if path.name == "mine.toml" else path.symlink_to(tmp_path / "nowhere")
        code, errors = avignon(capsys, "new", path, "--artists", "Ann", "Bo")
        assert (code, errors) == (2, [f"avignon: {path}: exists already, and is left as it is; name another file"])
    assert (tmp_path / "mine.toml").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
