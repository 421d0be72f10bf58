"""Samples of an adapter that is being trained, what they say of it, and which weights were best by them.

Samples are judged by what `evaluate` measures: how much nearer they are to the artist than the base's own pictures of
the same scenes, less the share that copies a training image. So the weights to keep can be chosen while they learn.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from avignon.adapters.weights import Mix
from avignon.core import imaging
from avignon.core.records import Frame
from avignon.evaluation import copies, style
from avignon.generation.sampler import ImageSampler
from avignon.generation.series import SeriesPlan, in_few_steps
from avignon.models.base import DiffusionBase
from avignon.recipe.schema import Recipe

SCENES = 4
"""Scenes of the recipe that are sampled, at most."""


@dataclass(frozen=True)
class ValidationMetric:
    """Tells what samples have gained in style, and whether they copy."""

    yardstick: style.Yardstick
    artists: tuple[str, ...]
    """Those that the adapter learns from."""
    originals: copies.Originals

    @classmethod
    def over(cls, works: Mapping[str, Sequence[Path]], artists: Sequence[str]) -> "ValidationMetric":
        """`works`: training images by artist, of all artists of the recipe."""
        images = {artist: {file.name: imaging.load(file) for file in files} for artist, files in works.items()}
        seen = {artist: [style.traits(image) for image in own.values()] for artist, own in images.items()}
        learned = {f"{artist}/{name}": image for artist in artists for name, image in images[artist].items()}
        of_work = {name: re.sub(r"-\d+\.png$", "", name) for name in learned}
        return cls(style.yardstick(seen), tuple(artists), copies.Originals(learned, of_work))

    def __call__(self, samples: Sequence[Image.Image], before: Sequence[Image.Image]) -> dict[str, float]:
        """`style_gained`: share of the base's distance from the artist that is gone; `copies`: share of the samples."""
        gained = 1 - self._distance(samples) / self._distance(before)
        copied = [self.originals.nearest(sample).is_copy for sample in samples]
        share = sum(copied) / len(copied)
        return {"style_gained": gained, "copies": share, "sample_score": gained - share}

    def _distance(self, pictures: Sequence[Image.Image]) -> float:
        """From what the pictures have in common to the artists' manners, in the mean."""
        distances = self.yardstick.to_artists(style.mean([style.traits(picture) for picture in pictures]))
        return sum(distances[artist]["combined"] for artist in self.artists) / len(self.artists)


class ValidationSampler:
    """Paints the recipe's first scenes with the adapter that is being trained, always from the same seeds."""

    def __init__(
        self,
        name: str,
        base: DiffusionBase,
        recipe: Recipe,
        metric: ValidationMetric,
        dtype: torch.dtype,
        sampler: ImageSampler,
    ) -> None:
        """Prepare to paint in a precision; all prompts are read now, since what reads them is gone later."""
        self._name, self._base, self._metric, self._sampler = name, base, metric, sampler
        plan = SeriesPlan(recipe, base.identity, {name: ""}, str(dtype))
        scenes = range(1, min(len(recipe.generate.scenes), SCENES) + 1)
        path = recipe.path_adapters
        # Where on the way this adapter is alone, from 0 to 1; a scene's second seed goes with it.
        place = path.index(name) / (len(path) - 1) if name in path[1:] else 0.0
        self._frames = [in_few_steps(plan.frame(scene, "", Mix({name: 1.0}), place)) for scene in scenes]
        self._before: list[Image.Image] = []
        sampler.read(self._frames)

    def paint(self, step: int, weights: torch.Tensor) -> tuple[list[tuple[Frame, Image.Image]], dict[str, float]]:
        """Frames and pictures of the adapter as it is now, whose weights are also given; what is measured on them."""
        sha256 = hashlib.sha256(weights.detach().cpu().numpy().tobytes()).hexdigest()
        frames = [replace(one, stop=f"step-{step}", adapters={self._name: sha256}) for one in self._frames]
        bare = [replace(one, weights={}, adapters={}, block_weights={}) for one in self._frames]
        # Blocks compiled for training would be compiled again for passes without gradients.
        with torch.compiler.set_stance("force_eager"):
            self._before = self._before or self._sampler.paint(bare)
            images = self._sampler.paint(frames)
        self._base.offload()
        return list(zip(frames, images, strict=True)), self._metric(images, self._before)


@dataclass
class BestCheckpoint:
    """The best weights so far by their samples, and how long ago that was."""

    patience: int
    step: int = 0
    found: dict[str, float] = field(default_factory=lambda: {"sample_score": -float("inf")})
    """What was measured on them."""
    weights: torch.Tensor | None = field(default=None, repr=False)
    worse: int = 0
    """Samples since that were not better."""

    def see(self, step: int, found: dict[str, float], weights: torch.Tensor) -> None:
        """Take note of what was measured after `step` steps."""
        if found["sample_score"] > self.found["sample_score"]:
            self.step, self.found, self.worse = step, found, 0
            self.weights = weights.detach().cpu().clone()
        else:
            self.worse += 1

    @property
    def is_over(self) -> bool:
        """Whether it is time to stop."""
        return 0 < self.patience <= self.worse

    def state_dict(self) -> dict[str, Any]:
        """All but the patience, which is the recipe's."""
        return {key: value for key, value in vars(self).items() if key != "patience"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state_dict` gave."""
        vars(self).update(state)
