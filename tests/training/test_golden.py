"""A change to training keeps the loss curve of the miniature, or says why not.

python -m tests.training.test_golden    writes the curve anew, for a change that is meant to move it
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch

from avignon.core.events import Reporter
from avignon.stages import train
from tests.support.runs import carried, small_recipe

CURVE = Path(__file__).with_name("golden-loss.json")


def curve(folder: Path) -> list[float]:
    """Losses of twelve fp32 steps of the first adapter on the embedded miniature, in one thread."""
    torch.set_num_threads(1)
    settings = {"steps": 12, "batch": 4, "learning_rate": 3e-3, "checkpoint_every": 12, "mode": "joint"}
    recipe = small_recipe(folder, "embedded", train=settings)
    space = carried(recipe, folder / "runs")[0]
    train.run(recipe, space, Reporter("train", lambda _: None))
    lines = (space.adapter("joint") / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.slow
def test_loss_curve_is_the_golden_one(tmp_path: Path) -> None:
    """Draws, targets, optimizer and schedule together give the losses that were written down, within rounding."""
    assert curve(tmp_path) == pytest.approx(json.loads(CURVE.read_text()), rel=1e-3)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        CURVE.write_text(json.dumps(curve(Path(scratch))) + "\n")
