"""A training that is killed again and again ends with the very bits of one that never was."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from avignon.core.events import Reporter
from avignon.core.files import sha256_of
from avignon.core.workspace import Workspace
from avignon.recipe.schema import Recipe
from avignon.stages import train
from tests.support.runs import carried, small_recipe

KILLS = 30


def work(recipe: Recipe, root: Path) -> None:
    """A process's whole life: the training stage alone, in one thread."""
    torch.set_num_threads(1)
    train.run(recipe, Workspace(root), Reporter("train", lambda _: None))


def outputs(root: Path) -> dict[str, str]:
    """What must not differ: weights, and the log but for its seconds."""
    found = {path.relative_to(root).as_posix(): sha256_of(path) for path in root.rglob("*.safetensors")}
    for path in root.rglob("metrics.jsonl"):
        lines = [line.partition(', "seconds"')[0] for line in path.read_text().splitlines()]
        found[path.relative_to(root).as_posix()] = "\n".join(lines)
    return found


@pytest.mark.slow
def test_thirty_kills_change_nothing(tmp_path: Path, tiny_sd: Path) -> None:
    """SIGKILL at 30 random moments, run again after each: weights and loss curve are those of an unbroken run."""
    # Two adapters in step; in passes of one image of each, the bits tell if one of them went on by itself.
    settings = {"steps": 40, "checkpoint_every": 3, "keep_checkpoints": 1, "micro_batch": 1}
    recipe = small_recipe(tmp_path, tiny_sd, train=settings)
    prepared = carried(recipe, tmp_path / "runs")[0].root
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.test_killed"])
    random.seed(5)

    def started(root: Path) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=work, args=(recipe, root))
        process.start()
        return process

    whole = shutil.copytree(prepared, tmp_path / "whole")
    started(whole).join()  # the first one also waits for the imports
    whole = shutil.copytree(prepared, tmp_path / "whole again")
    begin = time.monotonic()
    started(whole).join()
    seconds, expected = time.monotonic() - begin, outputs(whole)
    assert len(expected) == 6  # Of each adapter both files and the log.
    assert outputs(tmp_path / "whole") == expected

    kills, number = 0, 0
    while kills < KILLS:
        root = shutil.copytree(prepared, tmp_path / f"broken {number}")
        number += 1
        while True:
            process = started(root)
            process.join(random.uniform(0.02, 0.8) * seconds)
            if process.exitcode is not None or kills == KILLS:
                process.join()
                break
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            kills += 1
        assert process.exitcode == 0
        assert outputs(root) == expected
