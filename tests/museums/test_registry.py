"""The registry: one row for each museum, which recipes, the command line and labels read."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from avignon.cli.museum import works
from avignon.museums import registry
from avignon.museums.protocol import FetchSettings
from avignon.museums.settings import MuseumSettings
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Collect
from tests.support import scans
from tests.support.pairs import PAIR


@pytest.mark.parametrize("row", registry.MUSEUMS, ids=lambda row: row.kind)
def test_rows_lead_somewhere(row: registry.MuseumRow) -> None:
    """What a row names is there: the class with its kind and field, the functions, the option with its help."""
    kind = row.settings_class().model_fields["kind"].annotation
    assert kind is not None
    assert kind.__args__ == (row.kind,)
    assert issubclass(row.settings_class(), MuseumSettings)
    assert not row.field or row.field in row.settings_class().model_fields
    assert all(callable(registry._at(place)) for place in (row.opener, row.lister) if place)
    (option,) = (each for each in works.params if each.name == row.option)
    assert option.to_info_dict()["help"] == row.help


@pytest.mark.parametrize(
    ("short", "name"),
    [("nga", "National Gallery of Art, Washington"), ("artic", "Art Institute of Chicago"), ("my-scans", "my-scans")],
)
def test_museums_have_names(short: str, name: str) -> None:
    """The ledger's short word is a museum's name wherever people read it; what is none stays."""
    assert registry.museum_name(short) == name


def test_fetch_settings_are_a_recipes_defaults() -> None:
    """Whoever lists works without a recipe asks as a recipe that says nothing does."""
    collect = Collect()
    assert FetchSettings() == FetchSettings(
        collect.max_edge, collect.max_megabytes * 10**6, collect.pause, collect.timeout
    )


@pytest.mark.parametrize(
    ("table", "kind"),
    [({}, "nga"), ({"tables": "embedded"}, "nga"), ({"path": "."}, "folder"), ({"path": ".", "tables": ""}, "folder")],
)
def test_table_without_a_kind(table: dict[str, str], kind: str) -> None:
    """A recipe's table is known by the field of its own that it has; else it is the first museum's."""
    assert registry.kind_of(table) == kind


def test_only_a_folder_is_a_folder(tmp_path: Path) -> None:
    """The folder of a museum is where the recipe says; a museum on the network is none."""
    assert registry.folder_of(load_recipe(scans.recipe(tmp_path)).museum) == str(tmp_path / "scans")
    path = tmp_path / "online.toml"
    path.write_text(PAIR.format(tables="embedded"), encoding="utf-8")
    assert registry.folder_of(load_recipe(path).museum) == ""


def test_loading_a_recipe_imports_no_museum(tmp_path: Path) -> None:
    """A recipe is read without DuckDB, network client and decoder."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom avignon.recipe.load import load_recipe\n"
        f"load_recipe(Path({str(scans.recipe(tmp_path))!r}))\n"
        "print([name for name in ('_duckdb', 'duckdb', 'httpx', 'PIL', 'numpy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


TOY = '''
"""A museum of toys."""

import io
from contextlib import contextmanager
from typing import Literal

import numpy as np
from PIL import Image

from avignon.core.records import Access, Found, Rights, Work
from avignon.museums.protocol import Received
from avignon.museums.settings import OnlineMuseum


class ToyMuseum(OnlineMuseum):
    """A museum of toys."""

    kind: Literal["toy"]
    shelf: str = "top"
    """Where the toys are."""


@contextmanager
def opened(museum, settings, warn):
    yield Toys(museum.shelf, settings.max_edge)


class Toys:
    def __init__(self, shelf, edge):
        self.shelf, self.edge = shelf, edge

    def find(self, artist):
        rights = Rights(Access.OPEN, "a toy")
        return [
            Found(Work("toy", f"{self.shelf}-{n}", artist.name, f"Toy {n}", f"toy:{artist.name}:{n}", rights))
            for n in range(3)
        ]

    def source(self, work):
        return work.image_url

    def receive(self, work):
        chance = np.random.default_rng(list(work.image_url.encode()))
        picture = Image.fromarray(chance.integers(0, 256, (12, 12, 3), np.uint8)).resize((self.edge, self.edge))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return Received(buffer.getvalue(), ".png")
'''

ROW = """
import json, sys
from pathlib import Path
from avignon.museums import registry

registry.MUSEUMS += (
    registry.MuseumRow(
        kind="toy",
        label="Museum of Toys",
        settings="toy:ToyMuseum",
        opener="toy:opened",
        option="toy",
        help="The museum of toys instead.",
    ),
)
"""

VISIT = """
from click.testing import CliRunner

from avignon import pipeline
from avignon.cli.main import cli
from avignon.core.errors import RecipeError
from avignon.recipe.load import load_recipe

def complaint(override):
    try:
        load_recipe(Path("pair.toml"), [override])
    except RecipeError as wrong:
        return str(wrong)

recipe = load_recipe(Path("pair.toml"))
space = pipeline.run(recipe, Path("runs"), lambda _: None, until="curate")
print(json.dumps({
    "shelf": recipe.museum.shelf,
    "slip": complaint("museum={kind='toy',shelve='low'}"),
    "unknown": complaint("museum={kind='met'}"),
    "label": registry.museum_name("toy"),
    "help": CliRunner().invoke(cli, ["works", "--help"]).output,
    "works": CliRunner().invoke(cli, ["works", "Ann", "--toy", "--csv"]).output,
    "kept": [row["object_id"] for row in space.read_ledger() if row["decision"] == "kept"],
}))
"""

LENIENT = """
[curate]
min_sharpness = 0
min_detail = 0
max_noise = 1000
max_blocking = 1000
max_margin = 1
max_frame = 1
max_target = 1
max_ruler = 1
"""


@pytest.mark.slow
def test_one_module_and_one_row_add_a_museum(tmp_path: Path) -> None:
    """A museum of toys: recipes, error lines, the command line, labels and a run know it by its module and its row."""
    (tmp_path / "toy.py").write_text(TOY, encoding="utf-8")
    text = PAIR.replace('tables = "{tables}"', 'kind = "toy"\nshelf = "low"').replace("works = 4", "works = 3")
    (tmp_path / "pair.toml").write_text(text.replace("{{", "{").replace("}}", "}") + LENIENT, encoding="utf-8")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, '.'){ROW}{VISIT}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["shelf"] == "low"
    assert told["slip"].endswith("museum.shelve: no such key; did you mean 'shelf'?")
    assert told["unknown"].endswith("kind 'met' is not allowed; it is 'nga', 'folder', 'artic', 'toy'")
    assert told["label"] == "Museum of Toys"
    assert "--toy" in told["help"]
    assert "The museum of toys instead." in told["help"]
    assert told["works"].splitlines()[1].startswith("top-0,Toy 0,")
    assert told["kept"] == ["low-0", "low-1", "low-2"] * 2
