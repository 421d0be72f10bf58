"""Whole runs as a user starts them: `python -m avignon run`, killed, interrupted, offline, with and without rights."""

import csv
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from avignon import pipeline
from avignon.core.events import Event
from avignon.pipeline import NAMES
from avignon.recipe.load import load_recipe
from tests.support.commands import told
from tests.support.hub import LocalHub
from tests.support.museum import LocalMuseum
from tests.support.paths import RECIPES
from tests.support.runner import Runner, outputs
from tests.support.runs import write_recipe

MODEL = "someone/tiny-sd"


@pytest.fixture
def avignon(tmp_path: Path) -> Runner:
    """avignon, with a home of its own."""
    (tmp_path / "home").mkdir()
    return Runner(tmp_path / "home")


@pytest.fixture
def hub(tiny_sd: Path, avignon: Runner) -> Iterator[LocalHub]:
    """A hub with the tiny base, which the runs take for Hugging Face's."""
    with LocalHub() as hub:
        hub.add(MODEL, tiny_sd)
        avignon.environment = hub.environment(avignon.home / "hf")
        yield hub


def small(museum: LocalMuseum) -> list[str]:
    """Overrides that make a real recipe small, and point it at the local museum and hub."""
    settings = {
        "museum.tables": f"{museum.url}/data",
        "base.model": MODEL,
        "base.resolution": "64",
        "collect.pause": "0",
        "collect.max_edge": "128",
        "collect.reserve": "1",
        "curate.min_sharpness": "5",
        "train.steps": "3",
        "train.warmup": "0",
        "train.precision": "fp32",
        "train.ranks.attention": "4",
        "train.ranks.projection": "4",
        "generate.stops": "2",
        "generate.num_inference_steps": "2",
    }
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def lines(text: str) -> list[str]:
    """The lines that avignon itself said last: what failed."""
    return [line for line in text.splitlines() if line.startswith("avignon: ")]


@pytest.mark.slow
def test_original_pair_stops_at_the_rights_gate(avignon: Runner, museum: LocalMuseum, hub: LocalHub) -> None:
    """As it stands the original recipe exits 2: one line names Pablo Picasso and what to write; nothing is fetched."""
    ran = avignon(RECIPES / "atlantic-to-avignon.toml", *small(museum))
    assert ran.returncode == 2
    assert len(lines(ran.stderr)) == len(ran.stderr.strip().splitlines()) == 1
    assert "Pablo Picasso: 17 works are wanted, but only 0 of 17 images are open" in ran.stderr
    assert 'rights = "acknowledge-restricted"' in ran.stderr
    assert not (avignon.home / "runs/atlantic-to-avignon/works/pablo-picasso").exists()


@pytest.mark.slow
def test_original_pair_with_the_word_given(avignon: Runner, museum: LocalMuseum, hub: LocalHub) -> None:
    """With the word given it runs to the page; ledger, adapter and page say restricted; again, it does nothing."""
    recipe = RECIPES / "atlantic-to-avignon.toml"
    options = [*small(museum), "--set", "artists.1.rights=acknowledge-restricted"]
    ran = avignon(recipe, *options)
    assert ran.returncode == 0, ran.stderr
    root = avignon.home / "runs/atlantic-to-avignon"
    assert Path(ran.stdout.splitlines()[-1]) == root / "exhibition/index.html"
    with (root / "works/ledger.csv").open(encoding="utf-8", newline="") as file:
        kept = [row for row in csv.DictReader(file) if row["decision"] == "kept"]
    rights = {
        artist: {row["rights"] for row in kept if row["artist"] == artist} for artist in {r["artist"] for r in kept}
    }
    assert rights == {"Winslow Homer": {"open"}, "Pablo Picasso": {"restricted"}}
    assert len(kept) == 31
    cards = {name: json.loads((root / "adapters" / name / "card.json").read_text(encoding="utf-8"))
             for name in ("winslow-homer", "pablo-picasso")}  # fmt: skip
    assert cards["pablo-picasso"]["rights"]["restricted"] == 17
    assert cards["winslow-homer"]["rights"]["restricted"] == 0
    assert cards["pablo-picasso"]["base"]["revision"] == hub.commit(MODEL)
    assert "restricted" in (root / "exhibition/index.html").read_text(encoding="utf-8")
    asked = len(museum.requests), len(hub.requests)
    again = avignon(recipe, *options, "--json")
    assert again.returncode == 0, again.stderr
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert [(event["stage"], event["kind"]) for event in events] == [(name, "skipped") for name in NAMES]
    assert asked == (len(museum.requests), len(hub.requests))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("atlantic-to-gris", ""),
        ("atlantic-to-gris-sdxl", "tiny_sdxl"),
        ("atlantic-to-gris-z-image", "tiny_z_image"),
        ("atlantic-to-gris-klein", "tiny_flux2_klein"),
    ],
)
def test_open_pair_runs_through(
    avignon: Runner, museum: LocalMuseum, hub: LocalHub, request: pytest.FixtureRequest, name: str, base: str
) -> None:
    """The pair that is open on both sides needs no word, and its page and ledger keep no restricted work."""
    more: list[str] = []
    if base:
        hub.add("someone/tiny", request.getfixturevalue(base))
        more = ["--set", "base.model=someone/tiny", "--set", "base.variant="]
    ran = avignon(RECIPES / f"{name}.toml", *small(museum), *more)
    assert ran.returncode == 0, ran.stderr
    root = avignon.home / "runs" / name
    with (root / "works/ledger.csv").open(encoding="utf-8", newline="") as file:
        assert {row["rights"] for row in csv.DictReader(file) if row["decision"] == "kept"} == {"open"}
    assert (root / "exhibition/index.html").stat().st_size > 10_000


@pytest.mark.slow
def test_offline_museum(avignon: Runner) -> None:
    """Without museum and cache: exit 2 within seconds, in one line that says what was not reached and what to do."""
    with LocalMuseum() as closed:
        overrides = small(closed)
    start = time.monotonic()
    ran = avignon(RECIPES / "atlantic-to-avignon.toml", *overrides)
    assert time.monotonic() - start < 30
    assert ran.returncode == 2
    assert len(ran.stderr.strip().splitlines()) == 1
    assert f"{closed.url}/data/" in ran.stderr
    assert "check the network" in ran.stderr


@pytest.mark.slow
def test_offline_hub(avignon: Runner, tmp_path: Path) -> None:
    """Without hub and cache: exit 2 in one line, the stages before training kept."""
    with LocalHub() as closed:
        avignon.environment = closed.environment(avignon.home / "hf")
    ran = avignon(write_recipe(tmp_path / "recipe", MODEL))
    assert ran.returncode == 2
    assert len(ran.stderr.strip().splitlines()) == 1
    assert closed.url in ran.stderr
    assert "name a local directory in base.model" in ran.stderr
    assert set(json.loads((avignon.home / "runs/small/manifest.json").read_text(encoding="utf-8"))) == set(NAMES[:3])


@dataclass(frozen=True)
class Undisturbed:
    """A run from its beginning to its end."""

    recipe: Path
    runs: Path
    """The folder of runs."""
    before: Path
    """A folder of runs for each stage, by the stage's name: as it was when that stage was about to begin."""
    outputs: dict[str, str]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> Undisturbed:
    """One that nothing disturbed; what it had done before each stage is kept, so that a test may begin there."""
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe, runs, before = write_recipe(folder / "recipe", tiny_sd), folder / "runs", folder / "before"

    def keep(event: Event) -> None:
        if event.kind == "done" and event.stage != NAMES[-1]:
            shutil.copytree(runs, before / NAMES[NAMES.index(event.stage) + 1])

    (before / NAMES[0]).mkdir(parents=True)
    pipeline.run(load_recipe(recipe), runs, keep)
    assert {path.name for path in before.iterdir()} == set(NAMES)
    return Undisturbed(recipe, runs, before, outputs(runs / "small"))


def struck(stage: str, kind: str) -> Callable[[Mapping[str, Any]], bool]:
    """The moment of a stage's first event of this kind."""
    return lambda event: (event["stage"], event["kind"]) == (stage, kind)


EVENTS = {name: "start" if name in ("curate", "prepare") else "progress" for name in NAMES}
"""Where each stage is struck: in the middle of its work, and two of them before it."""


def finished(avignon: Runner, whole: Undisturbed, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command goes on to the end: the outputs of a run that nothing disturbed, and nothing half-written."""
    assert told(capsys, "run", whole.recipe, "--workspace", avignon.home / "runs")[0] == 0
    root = avignon.home / "runs/small"
    assert outputs(root) == whole.outputs
    assert not [path for path in root.rglob(".part-*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("stage", NAMES)
def test_killed_run_goes_on(
    avignon: Runner, undisturbed: Undisturbed, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in any stage loses nothing but the work at hand: the same command ends in the same bytes."""
    shutil.copytree(undisturbed.before / stage, avignon.home / "runs")
    code, _ = avignon.until(undisturbed.recipe, struck(stage, EVENTS[stage]), signal.SIGKILL)
    assert code == -signal.SIGKILL
    finished(avignon, undisturbed, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("stage", NAMES)
def test_interrupted_run_goes_on(
    avignon: Runner, undisturbed: Undisturbed, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in any stage exits 130 with one line; the same command ends in the same bytes."""
    shutil.copytree(undisturbed.before / stage, avignon.home / "runs")
    code, complaint = avignon.until(undisturbed.recipe, struck(stage, "start"), signal.SIGINT)
    assert code == 130, complaint
    assert lines(complaint) == ["avignon: interrupted; what was done is kept, the same command goes on from there"], (
        complaint
    )
    assert len(complaint.strip().splitlines()) == 1
    finished(avignon, undisturbed, capsys)


@pytest.mark.slow
def test_finished_run_does_nothing(
    undisturbed: Undisturbed, avignon: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run skips all seven stages and touches no output; with one picture lost, it makes that one again."""
    root = avignon.home / "runs/small"
    shutil.copytree(undisturbed.runs, avignon.home / "runs")
    again = ("run", undisturbed.recipe, "--workspace", avignon.home / "runs", "--json")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.*") if path.name not in ("recipe.toml", ".lock")}
    events = [json.loads(line) for line in told(capsys, *again)[1].splitlines()]
    assert [(event["stage"], event["kind"]) for event in events] == [(name, "skipped") for name in NAMES]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    (root / "series/scene-1/stop-2.png").unlink()
    events = [json.loads(line) for line in told(capsys, *again)[1].splitlines()]
    assert [event["stage"] for event in events if event["kind"] == "skipped"] == [n for n in NAMES if n != "generate"]
    assert outputs(root) == undisturbed.outputs
