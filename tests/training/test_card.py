"""Training on a card that is not there: nothing is left on the CPU, and no step waits for the card."""

from pathlib import Path
from typing import Any

import pytest

from avignon.stages import train
from avignon.training.adapter_trainer import AdapterTrainer
from avignon.training.checkpoints import Checkpoints
from tests.support.card import alone_on_the_card, pretended
from tests.support.trainings import HOMER, PICASSO, card, prepared, run

SETTINGS: tuple[dict[str, Any], ...] = (
    {"min_snr_gamma": 5.0, "noise_offset": 0.1, "flip": True},
    {"dora": True, "ema": 0.5, "gradient_checkpointing": True, "validation_works": 1},
    {"together": False, "micro_batch": 1, "prior_images": 2, "sample_every": 2, "keep": "best"},
)


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "dora", "samples"])
def test_steps_do_not_wait(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """In fp16, what CUDA chooses: every tensor is where it is needed, and the host waits between reports only."""
    fixed = {"precision": "auto", "compile": "off", "steps": 3}
    recipe, space = prepared(tmp_path, tiny_sd, **fixed, **settings)
    monkeypatch.setattr(train, "Accelerator", alone_on_the_card)
    monkeypatch.setattr(Checkpoints, "save", lambda *_: None)  # A tensor without numbers cannot be written.
    waited: dict[str, list[list[str]]] = {HOMER: [], PICASSO: []}
    draw, update = AdapterTrainer.sample_batch, AdapterTrainer.update
    with pretended() as gpu:

        def drawn(trainer: AdapterTrainer, step: int) -> Any:
            waited[trainer.name].append(gpu.waits[:])
            return draw(trainer, step)

        def updated(trainer: AdapterTrainer, *rest: Any) -> Any:
            step = update(trainer, *rest)
            waited[trainer.name][-1] = gpu.waits[len(waited[trainer.name][-1]) :]
            return step

        monkeypatch.setattr(AdapterTrainer, "sample_batch", drawn)
        monkeypatch.setattr(AdapterTrainer, "update", updated)
        run(recipe, space)
    for name in (HOMER, PICASSO):
        # The first step brings the noise schedule to the card.
        assert [len(waits) for waits in waited[name]][1:] == [0, 0], waited[name]
        assert card(space, name)["environment"]["precision"] == "fp16"
