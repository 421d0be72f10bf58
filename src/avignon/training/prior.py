"""The base's own pictures, which it should still paint when an adapter has been trained (prior preservation)."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from avignon.core.errors import RecipeError
from avignon.core.events import Reporter
from avignon.core.files import digest, write_bytes
from avignon.core.records import Frame, frame_identity
from avignon.generation.sampler import ImageSampler
from avignon.generation.series import SeriesPlan, in_few_steps
from avignon.models import finite
from avignon.models.base import DiffusionBase, Framing
from avignon.models.runtime import DTYPES, move_to
from avignon.recipe.schema import Recipe
from avignon.training.dataset import LatentDataset, Shape, encode_texts, seed_of
from avignon.training.setup import RuntimeConfig


def without_trigger(caption: str, trigger: str) -> str:
    """A caption without the phrase that calls the style."""
    return re.sub(r"\s*,\s*,", ",", caption.replace(trigger, "")).strip(" ,:") or "a picture"


def paint_prior(
    base: DiffusionBase,
    recipe: Recipe,
    captions: Sequence[str],
    shapes: Sequence[Shape],
    file: Path,
    runtime: RuntimeConfig,
    sampler: ImageSampler,
    reporter: Reporter,
) -> LatentDataset:
    """What the base paints of `captions`, in turn, as latents to train on; kept in `file` for the next time.

    `shapes` are those of the works, whose batches these pictures join: each different one comes first, then as often as
    among the works. The denoiser must be without adapters; it is off the device afterwards, where others' captions are
    read next.

    Raises:
        RecipeError: there are fewer pictures than shapes.
    """
    each = list(dict.fromkeys(shapes))
    if recipe.train.prior_images < len(each):
        raise RecipeError(
            f"train.prior_images: {recipe.train.prior_images} are too few for works in {len(each)} shapes, each of "
            f"which needs one; at least {len(each)} are needed"
        )
    order = itertools.cycle([*each, *shapes])
    device = runtime.device
    move_to(base.denoiser, DTYPES[runtime.precision], memory_format=torch.channels_last)
    count, seed = recipe.train.prior_images, seed_of(recipe.seed, "prior")
    plan = SeriesPlan(recipe, base.identity, {}, str(base.denoiser.dtype))
    frames = [
        in_few_steps(plan.of_prompt(captions[i % len(captions)], seed_of(seed, i), width=width, height=height))
        for i, (width, height) in zip(range(count), order, strict=False)
    ]
    job = digest([frame_identity(frame) for frame in frames])
    latents = _kept(file, job)
    if latents is None:
        latents = _painted(sampler, frames, reporter)
        move_to(base.denoiser, "cpu")
        write_bytes(file, safetensors.torch.save(_stored(latents), metadata={"job": job}))
    conditioning = encode_texts(base, [frame.prompt for frame in frames], device, reporter)
    base.offload()
    mean = [latent.to(device)[None] for latent in latents]  # Each (1, C, h, w).
    files = tuple(f"prior-{i}" for i in range(1, count + 1))
    prompts = tuple((frame.prompt,) for frame in frames)
    sizes = base.size_conditioning([Framing.whole(frame.width, frame.height) for frame in frames], device)
    painted = tuple((frame.width, frame.height) for frame in frames)
    return LatentDataset(mean, [torch.zeros_like(one) for one in mean], conditioning, files, prompts, painted, sizes)


def _stored(latents: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Latents as the file holds them: of one shape as one tensor, else each by its number."""
    if len({latent.shape for latent in latents}) == 1:
        return {"latents": torch.stack(list(latents))}
    return {f"latents.{number}": latent for number, latent in enumerate(latents)}


def _kept(file: Path, job: str) -> list[torch.Tensor] | None:
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            one = list(opened.get_tensor("latents")) if names == ["latents"] else []
            latents = one or [opened.get_tensor(f"latents.{number}") for number in range(len(names))]
            is_sound = opened.metadata().get("job") == job and all(map(finite.is_finite, latents))
            return latents if is_sound else None
    except (OSError, safetensors.SafetensorError):  # Not there, or damaged: it is painted again.
        return None


def _painted(sampler: ImageSampler, frames: Sequence[Frame], reporter: Reporter) -> list[torch.Tensor]:
    """Latents in the denoiser's scale, each (C, h, w), on the CPU."""
    sampler.read(frames)
    latents: dict[int, torch.Tensor] = {}
    for places in sampler.groups(frames):
        part = sampler.denoise([frames[place] for place in places]).cpu()
        latents.update(zip(places, part, strict=True))
        reporter.progress(len(latents), len(frames), "the base's own pictures")
    return [latents[place] for place in range(len(frames))]
