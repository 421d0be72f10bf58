"""The demo as a user meets it, with fewer steps: the embedded museum and base through the command line."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avignon.core.files import read_json
from avignon.core.png import png_fields
from avignon.core.records import series_from
from avignon.core.workspace import Workspace
from avignon.evaluation import report as reports
from tests.support.paths import ROOT

TABLES = ROOT / "src/avignon/demo/tables"
BASE = ROOT / "src/avignon/demo/base"
FEW = (
    "train.steps=6", "train.precision=fp32", "generate.stops=3", "generate.num_inference_steps=4",
    "generate.precision=fp32", "generate.extra_seeds=0",
)  # fmt: skip

OUTSIDE = """
import json, sys
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
base, run, out, fields = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
pipeline.to(torch.float32)
for name in fields["weights"]:
    pipeline.load_lora_weights(f"{run}/adapters/{name}", adapter_name=name)
if fields["weights"]:
    pipeline.set_adapters(list(fields["weights"]), list(fields["weights"].values()))
picture = pipeline(
    fields["prompt"], negative_prompt=fields["negative_prompt"], num_inference_steps=fields["num_inference_steps"],
    guidance_scale=fields["guidance_scale"], width=fields["width"], height=fields["height"],
    generator=torch.Generator().manual_seed(fields["seed"]),
).images[0]
picture.save(out)
assert not any(name.split(".")[0] == "avignon" for name in sys.modules)
"""


def _avignon(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "avignon", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def _demo(workspace: Path, *overrides: str, until: str = "run") -> subprocess.CompletedProcess[str]:
    options = [text for override in (*FEW, *overrides) for text in ("--set", override)]
    return _avignon(until, "recipes/demo.toml", "--workspace", str(workspace), *options)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished demo with few steps."""
    folder = tmp_path_factory.mktemp("runs")
    done = _demo(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(folder / "demo/exhibition/index.html")
    return Workspace(folder / "demo")


def _picture_outside(demo: Workspace, fields: Mapping[str, Any], out: Path) -> Image.Image:
    """The frame's picture, made in a process that never imports avignon."""
    arguments = [str(BASE), str(demo.root), str(out), json.dumps(fields)]
    subprocess.run([sys.executable, "-c", OUTSIDE, *arguments], check=True, env=dict(os.environ), capture_output=True)
    return Image.open(out)


@pytest.mark.slow
def test_run_has_all_files(demo: Workspace) -> None:
    """A finished run has every file that the architecture lists, and a report on every picture of the series."""
    files = [demo.recipe, demo.found, demo.ledger, demo.series_index, demo.report, demo.page, demo.manifest]
    for name in ("the-atlantic-painter", "the-avignon-painter"):
        parts = ("pytorch_lora_weights.safetensors", "card.json", "README.md", "metrics.jsonl")
        files += [demo.metadata(name), *(demo.adapter(name) / part for part in parts)]
    assert [path for path in files if not path.is_file()] == []
    assert not [path for path in demo.root.rglob("*") if path.name.startswith(".part-")]
    series = series_from(read_json(demo.series_index))
    assert [frame.file for frame in reports.read(demo.report).frames] == [file for file, _ in series.frames]


@pytest.mark.slow
def test_ledger_misses_no_work(demo: Workspace) -> None:
    """Every object of both painters in the tables has one row, decided; each rejected one says why."""
    with (TABLES / "objects_constituents.csv").open(encoding="utf-8", newline="") as file:
        objects = {row["objectid"] for row in csv.DictReader(file) if row["roletype"] == "artist"}
    rows = demo.read_ledger()
    assert sorted(row["object_id"] for row in rows) == sorted(objects)
    assert {row["decision"] for row in rows} == {"kept", "rejected"}
    assert [row for row in rows if row["decision"] == "rejected" and not row["reason"]] == []
    kept = [row["artist"] for row in rows if row["decision"] == "kept"]
    assert (kept.count("The Atlantic Painter"), kept.count("The Avignon Painter")) == (14, 17)


@pytest.mark.slow
def test_rejects_each_planted_fault(demo: Workspace) -> None:
    """The museum's planted faults are all found: rights, size, copies, blur, another hand, no image."""
    reasons = " ".join(row["reason"] for row in demo.read_ledger())
    for planted in (
        "restricted",
        "too small",
        "exact duplicate",
        "near duplicate",
        "blurred",
        "artist after",
        "no image",
    ):
        assert planted in reasons


@pytest.mark.slow
def test_adapters_load_without_avignon(demo: Workspace, tmp_path: Path) -> None:
    """A frame in the middle of the series, made by diffusers alone, equals ours to within 2/255 everywhere."""
    file = demo.series / "scene-1/stop-2.png"
    outside = _picture_outside(demo, png_fields(file), tmp_path / "outside.png")
    difference = np.abs(np.asarray(Image.open(file), dtype=int) - np.asarray(outside, dtype=int))
    assert difference.max() <= 2
    base = np.asarray(Image.open(demo.series / "scene-1/base.png"), dtype=int)
    assert np.abs(np.asarray(outside, dtype=int) - base).max() > 2, (
        "the adapters change nothing: the test holds nothing"
    )


@pytest.mark.slow
def test_all_weights_zero_is_the_base(demo: Workspace, tmp_path: Path) -> None:
    """With all weights 0 the picture is bit for bit the base's own, as diffusers alone makes it."""
    # Without its series: pictures painted several at a time would be kept, and are others in their last bits.
    shutil.copytree(demo.root, tmp_path / "demo", ignore=shutil.ignore_patterns("series"))
    names = ("the-atlantic-painter", "the-avignon-painter")
    zero = ", ".join(f'"{name}" = 0.0' for name in names)
    scene = 'generate.scenes=[{prompt = "a red sailing boat in the middle, close by, at noon, fine weather"}]'
    done = _demo(tmp_path, f"generate.weights=[{{{zero}}}]", scene, "generate.batch=1", until="generate")
    assert done.returncode == 0, done.stderr
    assert "train: up to date" in done.stdout + done.stderr
    series = tmp_path / "demo/series/scene-1"
    silent, base = Image.open(series / "stop-1.png"), Image.open(series / "base.png")
    assert silent.tobytes() == base.tobytes()
    outside = _picture_outside(demo, {**png_fields(series / "base.png"), "weights": {}}, tmp_path / "base.png")
    assert outside.tobytes() == base.tobytes()


@pytest.mark.slow
def test_second_run_does_nothing_again(demo: Workspace) -> None:
    """A second call finds every stage up to date and changes no file."""
    before = {
        path: path.stat().st_mtime_ns for path in demo.root.rglob("*") if path.name not in (".lock", "recipe.toml")
    }
    done = _demo(demo.root.parent)
    assert done.stdout.count("up to date") == 7
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.slow
def test_works_lists_the_embedded_museum() -> None:
    """`avignon works` shows what the embedded museum has, with rights, and suggests names for slips."""
    listed = _avignon("works", "The Atlantic Painter (procedural)", "--tables", "embedded", "--json")
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert {row["work"]["rights"]["access"] for row in rows} == {"open", "restricted"}
    slip = _avignon("works", "The Atlantik Painter", "--tables", "embedded")
    assert slip.returncode == 2
    assert "The Atlantic Painter (procedural)" in slip.stderr
