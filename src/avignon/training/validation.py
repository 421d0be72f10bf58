"""Pictures painted for the sake of a training: the base's own, which are to stay as they are, and samples on the way.

Samples are judged by what `evaluate` measures: how much nearer they are to the artist than the base's own pictures of
the same scenes, less the share that copies a training image. So the weights to keep can be chosen while they learn.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from PIL import Image

from avignon.core import imaging
from avignon.core.events import Reporter
from avignon.core.files import digest, write_bytes
from avignon.core.records import Frame, frame_identity
from avignon.evaluation import copies, style
from avignon.generation.sampler import ImageSampler
from avignon.models import finite
from avignon.models.stable_diffusion import model as diffusion
from avignon.recipe.schema import Recipe
from avignon.training.dataset import LatentDataset, seed_of

SCENES = 4
"""Scenes of the recipe that are sampled, at most."""

STEPS = 15
"""Denoising steps of a sample, at most: style is there long before the last detail."""


def frame(recipe: Recipe, prompt: str, seed: int, **fields: Any) -> Frame:
    """A picture of the recipe's size and settings, by the base alone unless `fields` say otherwise."""
    settings, edge = recipe.generate, recipe.base.resolution
    common = {
        "scene": "",
        "stop": "",
        "negative_prompt": settings.negative_prompt,
        "num_inference_steps": min(settings.num_inference_steps, STEPS),
        "guidance_scale": settings.guidance_scale,
        "scheduler": settings.scheduler,
        "width": edge,
        "height": edge,
        "weights": {},
        "base": "",
        "adapters": {},
        "precision": "",
    }
    return Frame(prompt=prompt, seed=seed, **{**common, **fields})


def leave(base: diffusion.Base) -> None:
    """Take what only painting needs off the device."""
    for part in (base.pipeline.vae, base.pipeline.text_encoder):
        diffusion.place(part, "cpu")


# The base's own pictures ----------------------------------------------------------------------------------------------


def untriggered(caption: str, trigger: str) -> str:
    """A caption without the phrase that calls the style."""
    return re.sub(r"\s*,\s*,", ",", caption.replace(trigger, "")).strip(" ,:") or "a picture"


def prior(
    base: diffusion.Base, recipe: Recipe, captions: Sequence[str], file: Path, device: torch.device, reporter: Reporter
) -> LatentDataset:
    """What the base paints of `captions`, in turn, as latents to train on; kept in `file` for the next time.

    The UNet must be without adapters and in the precision to paint with.
    """
    count, seed = recipe.train.prior_images, seed_of(recipe.seed, "prior")
    dtype = str(base.pipeline.unet.dtype)
    frames = [
        frame(recipe, captions[i % len(captions)], seed_of(seed, i), base=base.identity, precision=dtype)
        for i in range(count)
    ]
    job = digest([frame_identity(one) for one in frames])
    latents = _kept(file, job)
    if latents is None:
        latents = _painted(ImageSampler(base, recipe, device, reporter), frames, reporter)
        write_bytes(file, safetensors.torch.save({"latents": latents}, metadata={"job": job}))
    texts = diffusion.text_embeddings(base, [one.prompt for one in frames], device, reporter)
    empty = diffusion.text_embeddings(base, [""], device, reporter)[0]
    leave(base)
    mean = latents.to(device)[:, None]  # (N, 1, C, H/8, W/8)
    files = tuple(f"prior-{i}" for i in range(1, count + 1))
    return LatentDataset(
        mean, torch.zeros_like(mean), texts[:, None], empty, files, tuple((one.prompt,) for one in frames)
    )


def _kept(file: Path, job: str) -> torch.Tensor | None:
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            latents: torch.Tensor = opened.get_tensor("latents")
            return latents if opened.metadata().get("job") == job and finite.is_finite(latents) else None
    except (OSError, safetensors.SafetensorError):  # Not there, or damaged: it is painted again.
        return None


def _painted(painter: ImageSampler, frames: Sequence[Frame], reporter: Reporter) -> torch.Tensor:
    """Latents in the scale that the UNet sees, (N, C, H/8, W/8), on the CPU."""
    latents: dict[int, torch.Tensor] = {}
    for places in painter.groups(frames):
        part = painter.denoise([frames[place] for place in places]).cpu()
        latents.update(zip(places, part, strict=True))
        reporter.progress(len(latents), len(frames), "the base's own pictures")
    return torch.stack([latents[place] for place in range(len(frames))])


# Samples --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ValidationMetric:
    """Tells what samples have gained in style, and whether they copy."""

    yardstick: style.Yardstick
    artists: tuple[str, ...]
    """Those that the adapter learns from."""
    originals: copies.Originals

    @classmethod
    def of(cls, works: Mapping[str, Sequence[Path]], artists: Sequence[str]) -> "ValidationMetric":
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
        base: diffusion.Base,
        recipe: Recipe,
        judge: ValidationMetric,
        device: torch.device,
        reporter: Reporter,
    ) -> None:
        self._name, self._base, self._judge = name, base, judge
        self._painter = ImageSampler(base, recipe, device, reporter)
        self._device = device
        dtype = str(base.pipeline.unet.dtype)
        self._frames = [
            frame(
                recipe,
                scene.prompt,
                recipe.scene_seed(number),
                scene=f"scene-{number}",
                base=base.identity,
                precision=dtype,
            )
            for number, scene in enumerate(recipe.generate.scenes[:SCENES], start=1)
        ]
        self._before: list[Image.Image] = []
        leave(base)

    def paint(self, step: int, weights: torch.Tensor) -> tuple[list[tuple[Frame, Image.Image]], dict[str, float]]:
        """Frames and pictures of the adapter as it is now, whose weights are also given; what is measured on them."""
        told = {self._name: hashlib.sha256(weights.detach().cpu().numpy().tobytes()).hexdigest()}
        frames = [replace(one, stop=f"step-{step}", weights={self._name: 1.0}, adapters=told) for one in self._frames]
        diffusion.place(self._base.pipeline.vae, self._device)  # The text encoder comes by itself, once.
        # Blocks compiled for training would be compiled again for passes without gradients.
        with torch.compiler.set_stance("force_eager"):
            self._before = self._before or self._painter.paint(self._frames)
            images = self._painter.paint(frames)
        leave(self._base)
        return list(zip(frames, images, strict=True)), self._judge(images, self._before)


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
