"""Bases as tests load them: a recipe's Stable Diffusion, whose parts they look into."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from avignon.core.events import Reporter
from avignon.models import loading
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.schema import Recipe
from avignon.training.dataset import TimestepSampler

TARGETS = StableDiffusion.targets


def load_base(recipe: Recipe, dtype: torch.dtype, reporter: Reporter) -> StableDiffusion:
    """The recipe's base, as the stages load it."""
    base = loading.load(recipe.base, recipe.generate, dtype, reporter)
    assert isinstance(base, StableDiffusion)
    return base


def uniform(levels: int) -> TimestepSampler:
    """Timesteps drawn from so many, each as likely as any other."""
    return lambda count, generator, *_: torch.randint(levels, (count,), generator=generator)


def with_denoiser(denoiser: Any, scheduler: Any) -> StableDiffusion:
    """A Stable Diffusion of which only the denoiser and the noise schedule are there."""
    pipeline = SimpleNamespace(unet=denoiser, scheduler=scheduler)
    return StableDiffusion(pipeline, "made up", Path(), "", 64, {})
