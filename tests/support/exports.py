"""Adapters as files: random ones, and what another program makes of one."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from avignon.adapters import files, inject
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.core.events import Reporter
from avignon.recipe.schema import Ranks, Recipe
from tests.support.bases import TARGETS, load_base
from tests.support.commands import python

SILENT = Reporter("test", lambda _: None)
RANKS = Ranks(attention=4, projection=3, convolution=2)

OF_DIFFUSERS = """
import sys
import torch
import diffusers
base, adapter, out, prompt, seed, steps, guidance, weight, pipeline, scheduler = sys.argv[1:]
pipe = getattr(diffusers, pipeline).from_pretrained(base)
pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
folder, _, name = adapter.rpartition("/")
pipe.load_lora_weights(folder, weight_name=name, adapter_name="it")
pipe.set_adapters("it", float(weight))
made = pipe(prompt, generator=torch.Generator().manual_seed(int(seed)), num_inference_steps=int(steps),
            guidance_scale=float(guidance), height=64, width=64)
made.images[0].save(out)
assert not any(name.startswith("avignon") for name in sys.modules)
"""
"""A picture by diffusers alone."""


def saved(
    recipe: Recipe, folder: Path, name: str, *, seed: int, alpha: float = 0.0, dora: bool = False, size: float = 0.1
) -> Path:
    """An adapter of random change for the recipe's base, in a folder of its own; returns the folder."""
    base = load_base(recipe, torch.float32, SILENT)
    parameters = inject.add(base.denoiser, TARGETS, name, RANKS, alpha=alpha, seed=seed, dora=dora)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            change = torch.randn(parameter.shape, generator=generator)
            is_magnitude = parameter.dim() == 1 or parameter.shape[0] == 1
            parameter.mul_(1 + 0.2 * change) if is_magnitude else parameter.add_(change, alpha=size)
    files.save(base.denoiser, TARGETS, name, folder / name / WEIGHTS_FILE)
    return folder / name


def by_diffusers(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    prompt: str,
    seed: int,
    steps: int,
    guidance: float,
    weight: float = 1.0,
    classes: tuple[str, str] = ("StableDiffusionPipeline", "DDIMScheduler"),
) -> NDArray[np.int64]:
    """Pixels of a picture that diffusers paints with an adapter's file, in a process that never imports avignon."""
    told = (base, adapter, out, prompt, seed, steps, guidance, weight, *classes)
    done = python("-W", "ignore", "-c", OF_DIFFUSERS, *told)
    assert done.returncode == 0, done.stderr
    return pixels(out)


def pixels(picture: Path | Image.Image) -> NDArray[np.int64]:
    """Pixels of a picture, as numbers that can be subtracted."""
    image = Image.open(picture) if isinstance(picture, Path) else picture
    return np.asarray(image.convert("RGB")).astype(np.int64)


def header(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself."""
    import safetensors

    with safetensors.safe_open(path, framework="np") as file:
        return dict(file.metadata() or {})


def by_underscores(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """B, A and alpha by layer, of kohya's names: `lora_unet_<layer>`, whose parts underscores join."""
    layers = {key.split(".")[0] for key in tensors}
    return {
        name: (
            tensors[f"{name}.lora_up.weight"],
            tensors[f"{name}.lora_down.weight"],
            float(tensors[f"{name}.alpha"]),
        )
        for name in layers
    }
