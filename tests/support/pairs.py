"""A small recipe of two artists of the local museum, Homer and Gris."""

from pathlib import Path

from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe
from tests.support.museum import LocalMuseum

PAIR = """
[museum]
tables = "{tables}"

[[artists]]
name = "Winslow Homer"
find = [1401]
works = 4
trigger = "in the style of winslow homer"

[[artists]]
name = "Juan Gris"
find = [1359]
works = 3
trigger = "in the style of juan gris"

[base]
model = "embedded"
resolution = 64

[collect]
pause = 0
reserve = 2
max_edge = 128
timeout = 5

[generate]
scenes = [{{ prompt = "a boat" }}]
"""


def pair(folder: Path, server: LocalMuseum, *overrides: str) -> Recipe:
    """Homer and Gris, small."""
    path = folder / "pair.toml"
    path.write_text(PAIR.format(tables=f"{server.url}/data"), encoding="utf-8")
    return load_recipe(path, overrides)
