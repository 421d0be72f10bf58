"""Painting on a card that is not there: nothing is left on the CPU, and no denoising step waits for the card."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from avignon.core.events import Reporter
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.stages import generate
from tests.support.card import DEVICE, pretended
from tests.support.museum import draw
from tests.support.runs import carried, small_recipe

SCENES = [{"prompt": "a boat on the sea"}, {"prompt": "a guitar on a table", "seed": 3, "to_seed": 4}]


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheduler", ["ddim", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pndm", "euler", "dpm++"))]
)
def test_denoising_does_not_wait(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    """A whole series in fp16, with weights that differ between samples and from step to step, and a source."""
    draw(1, 64, 64).save(tmp_path / "begun.png")
    scenes = [*SCENES, {"prompt": "a tree", "image": "begun.png", "image_strength": 0.5}]
    settings: dict[str, Any] = {"path": "relay", "num_inference_steps": 4, "scheduler": scheduler, "batch": 16}
    recipe = small_recipe(tmp_path, tiny_sd, train={"steps": 1}, generate={**settings, "scenes": scenes})
    space = carried(recipe, tmp_path / "runs", until="train")[0]
    monkeypatch.setattr(generate, "best_device", lambda: DEVICE)
    waits: list[list[str]] = []
    predict = StableDiffusion.predict
    with pretended() as gpu:

        def predicted(base: StableDiffusion, *rest: Any) -> Any:
            waits.append(gpu.waits[:])
            return predict(base, *rest)

        monkeypatch.setattr(StableDiffusion, "predict", predicted)
        generate.run(recipe, space, Reporter("generate", lambda _: None))
    assert len(list(space.series.rglob("*.png"))) == 12
    steps = [after[len(before) :] for before, after in pairwise(waits)]
    between = [waited for waited in steps if not any("denoise" in place and "_begin" in place for place in waited)]
    assert len(steps) > len(between) >= 4
    assert all(waited == [] for waited in between), between
