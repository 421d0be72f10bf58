"""`benchmarks/gpu.py`: what is to be measured on a card, rehearsed without one."""

import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from avignon import __version__
from avignon.adapters import cards
from avignon.core import imaging
from avignon.core.files import read_json_lines
from benchmarks import gpu
from benchmarks.gpu_parts import PARTS, agreement, data, original, page
from tests.support.paths import ROOT

CARD = {
    "rehearsal": False,
    "card": "NVIDIA Test 9000",
    "driver": "580.1",
    "capability": "9.0",
    "memory": 24 * 2**30,
    "versions": {"torch": "2.11.0", "cuda": "13.0", "xformers": ""},
    "commit": "abc1234",
    "date": "2026-11-27T10:00:00+00:00",
    "command": "python benchmarks/gpu.py",
    "seconds": 12.0,
    "error": "",
}

FAKES = {
    "fine": "    record('value', 1)\n",
    "broken": "    record('value', 2)\n    raise ValueError('the first line\\nthe last line')\n",
    "slow": "    record('value', 3)\n    import subprocess\n    subprocess.run(['sleep', '600'])\n",
    "dies": "    record('value', 4)\n    import os\n    print('a word', flush=True)\n    os._exit(9)\n",
    "large": "    from benchmarks.gpu_parts.plan import DoesNotFit\n    raise DoesNotFit('needs 20 GB')\n",
    "last": "    record('value', 6)\n",
}


def tree(folder: Path) -> Path:
    """A checkout whose parts are `FAKES`; returns its gpu.py."""
    parts = folder / "benchmarks" / "gpu_parts"
    parts.mkdir(parents=True)
    for name in ("gpu.py", "__init__.py", "gpu_parts/run.py", "gpu_parts/page.py", "gpu_parts/plan.py"):
        shutil.copy(ROOT / "benchmarks" / name, folder / "benchmarks" / name)
    (parts / "__init__.py").write_text(f"PARTS = {dict.fromkeys(FAKES, 60)}\n")
    for name, body in FAKES.items():
        rows = "def rows(results):\n    return str(results)\n"
        (parts / f"{name}.py").write_text(f"GOAL = 'a goal'\n{rows}\ndef measure(plan, record):\n{body}")
    return folder / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_a_part_that_fails_or_overruns_stops_no_other(tmp_path: Path) -> None:
    """Every part leaves its file: what it recorded, how it ended, and the last line of what went wrong."""
    out = tmp_path / "out"
    command = [sys.executable, str(tree(tmp_path)), "--rehearse", "--out", str(out), "--seconds", "slow=30"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    found = {name: json.loads((out / f"{name}.json").read_text()) for name in FAKES}
    assert done.returncode == 1
    assert {name: (part["state"], part["error"]) for name, part in found.items()} == {
        "fine": ("done", ""),
        "broken": ("failed", "the last line"),
        "slow": ("overran", ""),
        "dies": ("failed", "a word"),
        "large": ("does not fit", "benchmarks.gpu_parts.plan.DoesNotFit: needs 20 GB"),
        "last": ("done", ""),
    }
    assert [part["results"].get("value") for part in found.values()] == [1, 2, 3, 4, None, 6]
    assert all(
        part["versions"]["torch"] and part["date"] and "--rehearse" in part["command"] for part in found.values()
    )
    assert "| slow | a goal | overran |" in (out / "gpu.md").read_text()
    assert not (out / "scratch").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_rehearsal(tmp_path: Path) -> None:
    """All parts of it run to their end on a CPU; the page says that nothing was measured, and shows no figure."""
    assert gpu.main(["--rehearse", "--out", str(tmp_path), "--parts", ",".join(PARTS)]) == 0
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in PARTS}
    assert {part["state"] for part in found.values()} == {"done"}
    rows = found["agreement"]["results"]
    assert [key for key, row in rows.items() if row.get("met") is False] == []
    assert sum("out of memory" in key for key in rows) == 2
    text = (tmp_path / "gpu.md").read_text()
    assert page.NOT_MEASURED in text
    assert found["original"]["date"][:10] in text
    assert "##" not in text
    for name, part in found.items():
        assert "|" in page.module_of(name).rows(part["results"]), name


def test_parts_and_their_time() -> None:
    """The defaults leave room in eight minutes; parts keep their order; what is unknown is refused."""
    assert sum(seconds for name, seconds in PARTS.items() if name not in gpu.ON_REQUEST) <= 420
    assert "families" not in gpu.parsed([]).parts
    chosen = gpu.budgets("original, agreement", ["agreement=7.5", "demo=3"])
    assert list(chosen.items()) == [("agreement", 7.5), ("original", float(PARTS["original"]))]
    with pytest.raises(ValueError, match=r"no part 'paintings'; there are agreement, demo"):
        gpu.budgets("paintings", [])
    with pytest.raises(ValueError, match=r"--seconds demo=ten: not a number of seconds"):
        gpu.budgets("demo", ["demo=ten"])


def test_bad_input_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An unknown part, or no card, ends with a line and code 2; nothing is written."""
    assert gpu.main(["--parts", "none", "--out", str(tmp_path / "out")]) == 2
    assert capfd.readouterr().err.startswith("--parts, --seconds: no part 'none'")
    if not torch.cuda.is_available():
        assert gpu.main(["--out", str(tmp_path / "out")]) == 2
        assert capfd.readouterr().err == gpu.NO_CARD + "\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_wheels_that_are_missing_are_unpacked(tmp_path: Path) -> None:
    """A package that is not here, or in another version, is; one that is here is not."""
    here = importlib.metadata.version("pytest")
    for name, version in (("gpuprobe", "1.0"), ("pytest", here), ("pluggy", "0.0.1")):
        with zipfile.ZipFile(tmp_path / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            info = f"{name}-{version}.dist-info"
            wheel.writestr(f"{name}/__init__.py", "VALUE = 7\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    site = tmp_path / "site"
    assert [name.split("-")[0] for name in gpu.install(tmp_path, site)] == ["gpuprobe", "pluggy"]
    command = [sys.executable, "-c", "import gpuprobe, pluggy; print(gpuprobe.VALUE, pluggy.VALUE)"]
    done = subprocess.run(command, env=gpu.environment(site), check=True, capture_output=True, text=True)
    assert done.stdout == "7 7\n"


def write(folder: Path, name: str, **content: Any) -> None:
    """A part's file."""
    (folder / f"{name}.json").write_text(json.dumps({"part": name, **CARD, **content}))


def test_page_of_a_card(tmp_path: Path) -> None:
    """It says card, driver, versions, date and command, and what of a part that was stopped was reached."""
    row = agreement.judged(2e-4, 1e-3, "relative")
    write(tmp_path, "agreement", state="done", results={"losses": row, "xFormers": {"skipped": "not installed"}})
    marks = {"ready": 20.0, "first": 31.0, "first_done": 20, "last": 80.0, "done": 640, "total": 1200}
    write(tmp_path, "original", state="overran", results={"job": {}, "train": marks, "train, base made": 4.0})
    text = page.page(tmp_path)
    assert "NVIDIA Test 9000, 24 GiB, compute capability 9.0, driver 580.1; torch 2.11.0, cuda 13.0; 2026-11-27" in text
    assert "    python benchmarks/gpu.py\n" in text
    assert "| losses | 0.0002 relative | 0.001 | met |" in text
    assert "| xFormers | | | not installed |" in text
    assert "This part is not complete (overran)." in text
    assert "**640 of 1200 steps**; the first 20, with compilation: 11.0 s" in text
    assert "| paint | | **not reached** |" in text
    assert "| demo | " in text
    assert "not run" in text
    assert page.NOT_MEASURED not in text


def test_page_without_a_card(tmp_path: Path) -> None:
    """It says so, with the rehearsal's date and how each part ended, and shows nothing that was timed."""
    bare = {"card": "", "driver": "", "memory": 0, "rehearsal": True}
    write(tmp_path, "original", state="done", results={"train": {"end": 3.25}}, **bare)
    write(tmp_path, "demo", state="failed", results={}, **{**bare, "error": "a | b"})
    text = page.page(tmp_path)
    assert f"{page.NOT_MEASURED} Rehearsed on a CPU with tiny models on 2026-11-27" in text
    assert "failed: a \\| b" in text
    assert "3.25" not in text
    assert "##" not in text


def test_no_number_meets_no_limit() -> None:
    """A loss that is NaN is not within a limit."""
    assert agreement.judged(float("nan"), 1e-3, "relative")["met"] is False
    assert agreement.judged(1e-3, 1e-3, "relative")["met"] is True
    assert agreement.judged(5.0, None, "relative")["met"] is None


def test_results_cut_short_anywhere_have_rows() -> None:
    """A part may be stopped after any of its records."""
    results = {
        "job": {"gradient_checkpointing": True},
        "said": ["train: on cuda"],
        "train": {
            "ready": 9.0,
            "first": 12.0,
            "first_done": 20,
            "last": 70.0,
            "done": 1200,
            "total": 1200,
            "end": 75.0,
        },
        "train, base made": 5.0,
        "train, peak bytes": {"allocated": 9e9, "reserved": 11e9},
        "generate": {"first": 9.0, "first_done": 4, "last": 20.0, "done": 12, "total": 40},
    }
    for count in range(len(results) + 1):
        assert original.rows(dict(list(results.items())[:count])).startswith("| step |")
    assert "| **training in all** | **70.0** | goal 90: met |" in original.rows(results)
    assert "**12 pictures** when the time was over" in original.rows(results)


def test_a_checkout_need_not_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter's card names avignon's version where Python knows of no such package."""

    def version(name: str) -> str:
        if name == "avignon":
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.version(name)

    monkeypatch.setattr(cards, "version", version)
    assert cards.environment("cpu", "fp32")["avignon"] == __version__


@pytest.mark.slow
def test_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the pictures that the recipe names, with their true hashes, and the museum's as small ones."""
    few = ("artists.0.works=1", "artists.1.works=2", "collect.reserve=1")
    monkeypatch.setattr(data, "OVERRIDES", {"original": (*data.OVERRIDES["original"], *few)})
    data.prepare(tmp_path)
    space = data.workspace(tmp_path, "original", tmp_path / "copy")
    for artist, count in zip(data.recipe_of("original").artists, (1, 2), strict=True):
        rows = read_json_lines(space.metadata(artist.slug))
        assert len(rows) == count
        for row, file in zip(rows, space.training_images(artist.slug), strict=True):
            assert file.suffix == ".jpg"
            assert hashlib.sha256(file.read_bytes()).hexdigest() == row["sha256"]
            assert len(row["captions"]) == 4
    assert max(max(imaging.load(file).size) for file in space.works.glob("*/*.jpg")) <= 320
