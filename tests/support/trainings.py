"""Small trainings: two adapters over drawn scans, stopped and resumed, and what they left on the disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.core.events import Event, Reporter, StageProgress
from avignon.core.workspace import Workspace
from avignon.models.base import DiffusionBase
from avignon.recipe.schema import Recipe
from avignon.stages import train
from avignon.training.dataset import Batch
from avignon.training.objective import denoising_losses
from tests.support.runs import carried, small_recipe

HOMER, PICASSO = "winslow-homer", "pablo-picasso"
SILENT = Reporter("train", lambda _: None)


class Stop(Exception):  # noqa: N818 - it stops a training, nothing is wrong
    """Raised from a listener: the process dies between two steps."""


def run(recipe: Recipe, space: Workspace, listener: Callable[[Event], None] = lambda _: None) -> None:
    """The stage alone."""
    train.run(recipe, space, Reporter("train", listener))


def prepared(folder: Path, base: Path, **settings: Any) -> tuple[Recipe, Workspace]:
    """A recipe with these values in `train`, and its run up to the prepared images."""
    recipe = small_recipe(folder, base, train=settings)
    return recipe, carried(recipe, folder / "runs")[0]


SHAPES = ((280, 76), (140, 130), (150, 128), (70, 270))
"""Of scans: in buckets of 128 pixels a wide one, two squares, a tall one."""


def prepared_in_buckets(folder: Path, base: Path, **settings: Any) -> tuple[Recipe, Workspace]:
    """The same of works of several shapes, four for each artist, in buckets."""
    recipe = small_recipe(
        folder, base, works=4, sizes=SHAPES, base={"resolution": 128}, prepare={"shape": "buckets"}, train=settings
    )
    return recipe, carried(recipe, folder / "runs")[0]


def weights(space: Workspace, name: str = HOMER) -> dict[str, torch.Tensor]:
    """A trained adapter's tensors."""
    return safetensors.torch.load((space.adapter(name) / WEIGHTS_FILE).read_bytes())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two adapters are bit for bit equal."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def metrics(space: Workspace, name: str = HOMER) -> list[dict[str, Any]]:
    """The lines of an adapter's log."""
    text = (space.adapter(name) / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def card(space: Workspace, name: str = HOMER) -> dict[str, Any]:
    """An adapter's card."""
    fields: dict[str, Any] = json.loads((space.adapter(name) / "card.json").read_text(encoding="utf-8"))
    return fields


def stopped(recipe: Recipe, space: Workspace, after: int, name: str = HOMER) -> None:
    """Train, and die after so many steps of one adapter."""

    def listen(event: Event) -> None:
        if isinstance(event, StageProgress) and f"{name}: loss" in event.text and event.done == after:
            raise Stop

    with pytest.raises(Stop):
        run(recipe, space, listen)


class OutOfMemory:
    """Passes of more than so many images at once, or without checkpointing, find no memory."""

    def __init__(self, most: int, *, checkpointing: bool) -> None:
        self.most, self.checkpointing = most, checkpointing

    def __call__(self, base: DiffusionBase, drawn: Batch) -> torch.Tensor:
        """The losses, or no memory."""
        if len(drawn.index) > self.most or (self.checkpointing and not base.denoiser.is_gradient_checkpointing):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried …")
        return denoising_losses(base, drawn)
