"""The package as others install it: a wheel alone, far from the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.paths import RECIPES, ROOT

pytestmark = pytest.mark.slow


def run(command: Sequence[str | Path], folder: Path, **variables: str) -> str:
    """Run a program that ends well; its output."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=folder, env=inherited | variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and what it depends on from the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "environment", with_pip=True)
    programs = folder / "environment" / "bin"
    (packages,) = (folder / "environment").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # Its own .pth files are not followed.
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, "--no-deps", "--no-index", str(wheel)], folder)
    return programs


def test_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """`avignon run demo` by name, in an empty folder with a home of its own, uses nothing of the checkout."""
    (tmp_path / "home").mkdir()
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home" / "cache")}
    where = run([installed / "python", "-c", "import avignon; print(avignon.__file__)"], tmp_path, **home)
    assert Path(where.strip()).is_relative_to(installed.parent)
    out = run([installed / "avignon", "run", "demo", "--until", "curate"], tmp_path, **home)
    assert "curate: done" in out
    assert (tmp_path / "runs" / "demo" / "contact" / "index.html").is_file()
    assert str(ROOT) not in (tmp_path / "runs" / "demo" / "recipe.toml").read_text(encoding="utf-8")


def test_recipes_are_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    """All recipes of the checkout are listed and can be begun from."""
    out = run([installed / "avignon", "recipes"], tmp_path)
    assert all(f"\n{path.stem} " in out for path in RECIPES.glob("*.toml"))
    run([installed / "avignon", "new", "mine.toml", "--artists", "Ann", "Bo"], tmp_path)
    assert (tmp_path / "mine.toml").is_file()
