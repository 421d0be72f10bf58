"""One run in several processes: the same training, the same pictures, and a killed process ends it cleanly."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from avignon.adapters.formats import diffusers as lora_format
from avignon.core import distributed
from avignon.core.workspace import Workspace
from avignon.recipe.load import load_recipe
from tests.support.runs import carried, write_recipe

pytestmark = pytest.mark.slow

SHARED = {"batch": 4, "steps": 24, "learning_rate": 1e-4}
"""How two processes train together: long enough to be struck in the middle."""

BARRIER = """
import sys, time
from pathlib import Path
from avignon.core import distributed
came = Path(sys.argv[1])
assert distributed.broadcast(distributed.process_index()) == 0
if not distributed.is_main_process():
    time.sleep(2)
    came.touch()
distributed.barrier()
assert came.exists(), "the main process went on alone"
distributed.shutdown()
"""


def launched(recipe: Path, folder: Path, count: int, command: str = "train", *overrides: str) -> subprocess.Popen[str]:
    """`torchrun -m avignon COMMAND` in so many processes on the CPU; accelerate joins them."""
    more = [part for override in overrides for part in ("--set", override)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    return subprocess.Popen(
        [*launch, "-m", "avignon", command, str(recipe), "--workspace", str(folder), *more],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output."""
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def result(folder: Path) -> dict[str, torch.Tensor]:
    """The first adapter's tensors."""
    space = Workspace(folder / "small")
    return safetensors.torch.load((space.adapter("winslow-homer") / lora_format.WEIGHTS_FILE).read_bytes())


def curve(folder: Path) -> list[float]:
    """The first adapter's losses."""
    lines = (Workspace(folder / "small").adapter("winslow-homer") / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def alone(recipe: Path, folder: Path, until: str, *overrides: str) -> None:
    """The same work in this process, with as many threads as the launched ones have: bytes may hang on that."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        carried(load_recipe(recipe, overrides), folder, until)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shared_work(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> tuple[Path, Path]:
    """A recipe with many checkpoints, and the folder of a run in which two processes have trained it unbroken."""
    folder = tmp_path_factory.mktemp("shared-work")
    recipe = write_recipe(folder, tiny_sd, train={**SHARED, "checkpoint_every": 1})
    code, output = finished(launched(recipe, folder / "whole", 2))
    assert code == 0, output
    return recipe, folder / "whole"


def test_two_processes_train_as_one(tmp_path: Path, shared_work: tuple[Path, Path]) -> None:
    """Two processes give the loss curve and the weights of one within 1e-5; and a second launch has nothing to do."""
    recipe, whole = shared_work
    alone(recipe, tmp_path, "train")
    one, two = result(tmp_path), result(whole)
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-5
    assert curve(whole) == pytest.approx(curve(tmp_path), abs=1e-5)
    assert len(curve(whole)) == SHARED["steps"]
    code, output = finished(launched(recipe, whole, 2))
    assert code == 0, output
    assert output.count("train: up to date") == 1, "one process speaks"


def test_killed_process_ends_the_run_and_it_goes_on(tmp_path: Path, shared_work: tuple[Path, Path]) -> None:
    """SIGKILL of the second process ends the launch with an error; run again, the end is that of an unbroken run."""
    recipe, unbroken = shared_work
    process = launched(recipe, tmp_path, 2)
    folder = Workspace(tmp_path / "small").adapter("winslow-homer") / "checkpoints"
    kill_second(process, lambda: any(folder.glob("step-*.pt")))
    code, output = finished(launched(recipe, tmp_path, 2))
    assert code == 0, output
    broken, whole = result(tmp_path), result(unbroken)
    assert all(torch.equal(broken[key], whole[key]) for key in whole)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> tuple[Path, Path]:
    """A recipe, and the folder of its run up to the adapters, from which series are made."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = write_recipe(folder, tiny_sd, train={"learning_rate": 0.1, "lr_schedule": "constant"})
    carried(load_recipe(recipe), folder / "trained", "train")
    return recipe, folder / "trained"


def painting(**settings: object) -> list[str]:
    """Overrides that say how series are made."""
    return [f"generate.{key}={json.dumps(value)}" for key, value in settings.items()]


def made(folder: Path) -> dict[str, bytes]:
    """Every file of the series, and the report where there is one."""
    root = folder / "small"
    files = (path for part in ("series", "report.json") for path in (root / part, *(root / part).rglob("*")))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files if path.is_file()}


def test_two_processes_paint_as_one(tmp_path: Path, trained: tuple[Path, Path]) -> None:
    """Measured stops, series, extras, index and report have the bytes of one process; both painted; one speaks."""
    recipe, start = trained
    overrides = painting(equalize_adapters=True, spacing="even", stops=4, extra_seeds=1, batch=2)
    single, both = tmp_path / "single", tmp_path / "both"
    for folder in (single, both):
        shutil.copytree(start, folder)
    left = both / "small" / "series" / "scene-9" / "old.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"")
    for count, folder in ((1, single), (2, both)):
        code, output = finished(launched(recipe, folder, count, "evaluate", *overrides))
        assert code == 0, output
    assert made(both) == made(single)
    assert len(made(both)) == 2 * (5 + 5) + 3
    assert output.count("generate: done") == output.count("evaluate: done") == 1, output
    code, output = finished(launched(recipe, both, 2, "evaluate", *overrides))
    assert code == 0, output
    assert output.count("generate: up to date") == 1


def test_killed_painter_ends_the_run_and_it_goes_on(tmp_path: Path, trained: tuple[Path, Path]) -> None:
    """SIGKILL of the second process ends the launch without an index; run again, the series is that of one process."""
    recipe, start = trained
    overrides = painting(num_inference_steps=10, stops=8, batch=1)
    single, broken = tmp_path / "single", tmp_path / "broken"
    for folder in (single, broken):
        shutil.copytree(start, folder)
    process = launched(recipe, broken, 2, "generate", *overrides)
    kill_second(process, lambda: bool(made(broken)))
    found = made(broken)
    assert "series/series.json" not in found
    code, output = finished(launched(recipe, broken, 2, "generate", *overrides))
    assert code == 0, output
    alone(recipe, single, "generate", *overrides)
    assert len(found) < len(made(single)) == 2 * 9 + 1
    assert made(broken) == made(single)


def kill_second(process: subprocess.Popen[str], is_time: Callable[[], bool]) -> None:
    """SIGKILL to the process of rank 1 once it is time; the launch has to end in an error."""
    deadline = time.monotonic() + 200
    while not is_time():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.kill(_second_of(process.pid), signal.SIGKILL)
    code, _ = finished(process)
    assert code != 0


def _second_of(launcher: int) -> int:
    """The process of rank 1 among a launcher's children."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            of_parent = path.with_name("stat").read_text().rpartition(")")[2].split()[1] == str(launcher)
            if of_parent and b"\0RANK=1\0" in path.read_bytes():
                return int(path.parent.name)
        except OSError:
            continue
    raise AssertionError("no second process")


def test_batch_must_be_shared_evenly(tmp_path: Path, tiny_sd: Path) -> None:
    """A batch that two processes cannot share is refused in one line, and nothing hangs."""
    recipe = write_recipe(tmp_path, tiny_sd, train={"batch": 3})
    code, output = finished(launched(recipe, tmp_path / "runs", 2))
    assert code != 0
    assert "train.batch: 3 cannot be shared evenly by 2 processes" in output


def test_barrier_waits_for_all(tmp_path: Path) -> None:
    """Behind the barrier is what the last to come has done before it."""
    script = tmp_path / "barrier.py"
    script.write_text(BARRIER, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    met = subprocess.run([*launch, str(script), str(tmp_path / "came")], capture_output=True, text=True, timeout=200)
    assert met.returncode == 0, met.stderr


def test_single_process_is_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a launcher there is one process, and its word is its own."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.is_main_process()
    assert distributed.num_processes() == 1
    assert distributed.broadcast("word") == "word"
    assert distributed.broadcast_from_main(lambda: "word") == "word"
    distributed.barrier()
