"""The shape of the package: its size, what depends on what, where Stable Diffusion is named, whose names are private.

Two packages or modules directly under `src/avignon` depend on one another where any module of one imports the other:
at its top, inside a function, under TYPE_CHECKING, or by a string that begins `avignon.`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.support.architecture import (
    foreign_imports,
    foreign_words,
    imports_between_stages,
    imports_between_tests,
    long_functions,
    long_modules,
    private_uses,
    strange_folders,
    too_deep,
    too_many_dependencies,
    too_many_lines,
    too_many_units,
)
from tests.support.paths import ROOT

PACKAGE, TESTS = ROOT / "src" / "avignon", ROOT / "tests"

Check = Callable[[Path], list[str]]

CHECKS: Mapping[str, Check] = {
    "modules of 400 lines": long_modules,
    "functions of 60 lines": long_functions,
    "fewer lines than before": too_many_lines,
    "20 packages": too_many_units,
    "depth 11": too_deep,
    "90 dependencies": too_many_dependencies,
    "no class of diffusers": foreign_imports,
    "no word of Stable Diffusion": foreign_words,
    "stages apart": imports_between_stages,
    "private names": private_uses,
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_the_package(check: Check) -> None:
    """The package has none of the faults that the check looks for."""
    assert check(PACKAGE) == []


@pytest.mark.parametrize("users", ["benchmarks", "tools"])
def test_private_names_are_used_by_no_script(users: str) -> None:
    """Benchmarks and tools use public names alone."""
    assert private_uses(PACKAGE, ROOT / users) == []


def test_tests_share_helpers_in_support_alone() -> None:
    """No test imports another test."""
    assert imports_between_tests(TESTS) == []


def test_tests_mirror_the_package() -> None:
    """Every folder of tests is named as the package that it tests."""
    assert strange_folders(TESTS, PACKAGE) == []


# Each check sees a fault ----------------------------------------------------------------------------------------------

SOUND = {
    "avignon/__init__.py": '__version__ = "1"\n',
    "avignon/cli/__init__.py": "from avignon.stages.train import run\n\nprint(run)\n",
    "avignon/stages/__init__.py": "",
    "avignon/stages/train.py": "from avignon import core\nfrom avignon.models.base import Base\n\nrun = core, Base\n",
    "avignon/stages/generate.py": "import json\n",
    "avignon/models/__init__.py": "",
    "avignon/models/base.py": "from diffusers import UNet2DConditionModel as UNet\n\nBase = UNet\n",
    "avignon/adapters/__init__.py": "",
    "avignon/adapters/formats/__init__.py": "import transformers\n",
    "avignon/core/__init__.py": "def _rows(self):\n    self._rows = self._fields\n",
    "avignon/core/files.py": "from avignon.core import _rows\n\nprint(_rows, open(_rows)._rows)\n",
    "avignon/demo/__init__.py": "x = 0\n" * 401,
    "avignon/recipe/schema.py": "x = 0\n" * 401,
    "tests/__init__.py": "",
    "tests/core/__init__.py": "",
    "tests/core/test_files.py": "from tests.support import runs\nfrom tests.support.runs import small\n",
    "tests/support/runs.py": "small = 1\n",
}
"""A small package in which no check finds a fault."""

FEW = {
    "units": partial(too_many_units, most=7),
    "depth": partial(too_deep, most=3),
    "dependencies": partial(too_many_dependencies, most=3),
    "lines": partial(too_many_lines, most=425),
}
"""Checks with limits of its size."""


def planted(folder: Path, faults: Mapping[str, str]) -> Path:
    """The small package with these files added or replaced."""
    for name, text in {**SOUND, **faults}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "avignon"


@pytest.mark.parametrize("check", [*CHECKS.values(), *FEW.values()])
def test_a_sound_tree_passes(tmp_path: Path, check: Check) -> None:
    """No check finds a fault where none is."""
    assert check(planted(tmp_path, {})) == []


@pytest.mark.parametrize(
    ("check", "place", "text", "fault"),
    [
        (long_modules, "core/files.py", "x = 0\n" * 401, "core/files.py: 401 lines"),
        (long_functions, "core/files.py", "async def f():\n" + "    x = 0\n" * 60, "files.f: 61 lines"),
        (long_functions, "demo/x.py", "class A:\n  def f(s):\n" + "    x = 0\n" * 60, "demo.x.f: 61"),
        (FEW["lines"], "core/more.py", "x = 0\n" * 10, "too many"),
        (FEW["units"], "pipeline.py", "", "8 packages and modules: adapters, cli, core"),
        (FEW["depth"], "core/files.py", "import avignon.demo", "4 deep: cli → stages → core → demo"),
        (FEW["depth"], "core/files.py", "def f():\n    from avignon import demo", "cli → stages → core → demo"),
        (FEW["depth"], "core/files.py", "if TYPE_CHECKING:\n    import avignon.demo.x", "core → demo"),
        (FEW["depth"], "core/files.py", "load('avignon.demo.')", "core → demo"),
        (FEW["depth"], "core/files.py", "import avignon.stages.train", "a cycle: "),
        (FEW["dependencies"], "core/files.py", "from ..demo import x", "4 dependencies"),
        (foreign_imports, "core/files.py", "import diffusers.utils", "core.files imports diffusers.utils"),
        (foreign_imports, "core/a.py", "def f():\n    from transformers import A", "imports transformers.A"),
        (foreign_imports, "adapters/x.py", "import_module('diffusers')", "adapters.x imports diffusers"),
        (foreign_words, "core/files.py", "unet = 1", "core.files says unet"),
        (foreign_words, "core/files.py", "def f(*, my_vae): pass", "says my_vae"),
        (foreign_words, "core/files.py", "f(text_encoder=1)", "says text_encoder"),
        (foreign_words, "core/files.py", "a.UNet.b", "says UNet"),
        (foreign_words, "core/files.py", "class TextEncoder: pass", "says TextEncoder"),
        (foreign_words, "core/files.py", "import a as vae", "says vae"),
        (foreign_words, "core/vae.py", "", "avignon.core.vae says avignon.core.vae"),
        (imports_between_stages, "stages/generate.py", "from avignon.stages import train", "stages.train"),
        (imports_between_stages, "stages/generate.py", "from . import train", "imports avignon.stages.train"),
        (private_uses, "cli/x.py", "from avignon.core import _rows", "cli.x imports avignon.core._rows"),
        (private_uses, "cli/x.py", "from avignon import core\ncore._rows()", "cli.x uses core._rows"),
        (private_uses, "cli/x.py", "import avignon.core.files as f\nf._x", "cli.x uses f._x"),
        (private_uses, "cli/x.py", "def f(store):\n    store._rows", "cli.x uses store._rows"),
        (private_uses, "cli/x.py", "from avignon.core._io import read", "imports avignon.core._io.read"),
    ],
)  # fmt: skip
def test_a_fault_in_the_package_is_seen(tmp_path: Path, check: Check, place: str, text: str, fault: str) -> None:
    """A fault that is planted into the sound tree is found, and named."""
    assert fault in "\n".join(check(planted(tmp_path, {f"avignon/{place}": text})))


@pytest.mark.parametrize(
    "text", ["from tests.core.test_files import x", "from tests.core import test_files", "from .test_files import x"]
)
def test_a_test_that_imports_a_test_is_seen(tmp_path: Path, text: str) -> None:
    """Whichever way one test imports another, it is found; what it takes from `support` is none."""
    planted(tmp_path, {"tests/core/test_more.py": text})
    assert [line.split()[0] for line in imports_between_tests(tmp_path / "tests")] == ["tests.core.test_more"]


def test_a_folder_of_tests_without_a_package_is_seen(tmp_path: Path) -> None:
    """A folder named as no package of the program is found."""
    package = planted(tmp_path, {"tests/cores/test_more.py": ""})
    assert strange_folders(tmp_path / "tests", package) == ["cores"]
