"""The base's own pictures, which it should still paint when an adapter has been trained (prior preservation)."""

import re
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from avignon.core.events import Reporter
from avignon.core.files import digest, write_bytes
from avignon.core.records import Frame, frame_identity
from avignon.generation.sampler import ImageSampler
from avignon.generation.series import SeriesPlan, in_few_steps
from avignon.models import finite
from avignon.models.base import DiffusionBase, Framing
from avignon.models.runtime import DTYPES, move_to
from avignon.recipe.schema import Recipe
from avignon.training.dataset import LatentDataset, encode_texts, seed_of
from avignon.training.setup import RuntimeConfig


def without_trigger(caption: str, trigger: str) -> str:
    """A caption without the phrase that calls the style."""
    return re.sub(r"\s*,\s*,", ",", caption.replace(trigger, "")).strip(" ,:") or "a picture"


def paint_prior(
    base: DiffusionBase,
    recipe: Recipe,
    captions: Sequence[str],
    file: Path,
    runtime: RuntimeConfig,
    sampler: ImageSampler,
    reporter: Reporter,
) -> LatentDataset:
    """What the base paints of `captions`, in turn, as latents to train on; kept in `file` for the next time.

    The denoiser must be without adapters; it is off the device afterwards, where others' captions are read next.
    """
    device = runtime.device
    move_to(base.denoiser, DTYPES[runtime.precision], memory_format=torch.channels_last)
    count, seed = recipe.train.prior_images, seed_of(recipe.seed, "prior")
    plan = SeriesPlan(recipe, base.identity, {}, str(base.denoiser.dtype))
    frames = [in_few_steps(plan.of_prompt(captions[i % len(captions)], seed_of(seed, i))) for i in range(count)]
    job = digest([frame_identity(frame) for frame in frames])
    latents = _kept(file, job)
    if latents is None:
        latents = _painted(sampler, frames, reporter)
        move_to(base.denoiser, "cpu")
        write_bytes(file, safetensors.torch.save({"latents": latents}, metadata={"job": job}))
    conditioning = encode_texts(base, [frame.prompt for frame in frames], device, reporter)
    base.offload()
    mean = latents.to(device)[:, None]  # (N, 1, C, h, w)
    files = tuple(f"prior-{i}" for i in range(1, count + 1))
    prompts = tuple((frame.prompt,) for frame in frames)
    sizes = base.size_conditioning([Framing.whole(frame.width, frame.height) for frame in frames], device)
    return LatentDataset(mean, torch.zeros_like(mean), conditioning, files, prompts, sizes)


def _kept(file: Path, job: str) -> torch.Tensor | None:
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            latents: torch.Tensor = opened.get_tensor("latents")
            return latents if opened.metadata().get("job") == job and finite.is_finite(latents) else None
    except (OSError, safetensors.SafetensorError):  # Not there, or damaged: it is painted again.
        return None


def _painted(sampler: ImageSampler, frames: Sequence[Frame], reporter: Reporter) -> torch.Tensor:
    """Latents in the denoiser's scale, (N, C, h, w), on the CPU."""
    sampler.read(frames)
    latents: dict[int, torch.Tensor] = {}
    for places in sampler.groups(frames):
        part = sampler.denoise([frames[place] for place in places]).cpu()
        latents.update(zip(places, part, strict=True))
        reporter.progress(len(latents), len(frames), "the base's own pictures")
    return torch.stack([latents[place] for place in range(len(frames))])
