"""What a base in 8 or 4 bits costs: predictions, pictures and losses against the same base in full.

    python benchmarks/quantize.py [--base MODEL --resolution N] [--steps N]

The base is the package's miniature, on the demo's own works, unless another is named. Nothing is timed.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from avignon import pipeline
from avignon.core.events import Reporter
from avignon.generation.sampler import ImageSampler
from avignon.generation.series import SeriesPlan
from avignon.models import frozen, loading
from avignon.models.base import DiffusionBase, Framing
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe

SILENT = Reporter("quantize", lambda _: None)
CPU = torch.device("cpu")
KINDS = ("", "int8", "nf4")
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of noise, as shares of all timesteps, at which predictions are compared."""


def recipe_of(kind: str, options: argparse.Namespace, *more: str) -> Recipe:
    """The demo with the base kept in a way, in fp32."""
    fixed = [f"base.quantize={kind}", "generate.precision=fp32", "train.precision=fp32"]
    other = [f"base.model={options.base}", f"base.resolution={options.resolution}"] if options.base else []
    return load_recipe("demo", overrides=[*fixed, *other, *more])


def load(recipe: Recipe) -> DiffusionBase:
    """The recipe's base."""
    return loading.load(recipe.base, recipe.generate, torch.float32, SILENT)


@torch.no_grad()
def predictions(base: DiffusionBase, latents: torch.Tensor, prompts: list[str]) -> list[torch.Tensor]:
    """What the denoiser says of the same noisy latents, one batch for each level of noise."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    size = Framing.whole(base.resolution, base.resolution)
    told = base.encode_prompts(prompts, CPU, SILENT) | base.size_conditioning([size] * len(prompts), CPU)
    times = [torch.full((len(latents),), int(share * base.num_train_timesteps)) for share in LEVELS]
    return [base.predict(base.add_noise(latents, noise, at), at, told) for at in times]


def losses(kind: str, options: argparse.Namespace) -> np.ndarray:
    """The losses of all steps of the demo's two adapters."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_of(kind, options, f"train.steps={options.steps}", "train.sample_every=0")
        space = pipeline.run(recipe, Path(folder), lambda _: None, until="train")
        logs = [space.adapter(name) / "metrics.jsonl" for name in recipe.adapter_names]
        return np.array([json.loads(line)["loss"] for log in logs for line in log.read_text("utf-8").splitlines()])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="", help="a short name, a repository or a folder; by default the miniature")
    parser.add_argument("--resolution", type=int, default=512, help="of that base")
    parser.add_argument("--steps", type=int, default=30, help="of the trainings; 0: none")
    options = parser.parse_args()
    full = recipe_of("", options)
    prompts = [scene.prompt for scene in full.generate.scenes]
    plan = SeriesPlan(full, "", {}, "fp32")
    frames = [replace(plan.of_prompt(prompt, number), guidance_scale=1.0) for number, prompt in enumerate(prompts)]
    clean, said, shown, lost = torch.empty(0), list[torch.Tensor](), np.empty(0), np.empty(0)
    for kind in KINDS:
        base = load(recipe_of(kind, options))
        layers = [layer for layer in base.denoiser.modules() if isinstance(layer, frozen.Frozen)]
        weights = sum(layer.shape.numel() for layer in layers)
        print(f"{kind or 'in full'}: {weights:,} weights quantised, {base.weight_bytes(torch.float16):,} bytes in fp16")
        sampler = ImageSampler(base, full, CPU, SILENT)
        pictures = np.stack([np.asarray(picture, float) for picture in sampler.paint(frames)])
        clean = clean if len(clean) else sampler.denoise(frames)
        found = predictions(base, clean, prompts)
        if not kind:
            said, shown = found, pictures
        else:
            apart = [
                float((a - b).square().mean().sqrt() / b.square().mean().sqrt())
                for a, b in zip(found, said, strict=True)
            ]
            print(
                "  predictions, relative RMS: "
                + ", ".join(f"{share:g}: {each:.2%}" for share, each in zip(LEVELS, apart, strict=True))
            )
            print(f"  pictures, mean difference of a pixel: {np.abs(pictures - shown).mean():.2f} of 255")
        if options.steps:
            own = losses(kind, options)
            lost = own if not kind else lost
            print(f"  mean loss: {own.mean():.5f}; largest difference of a step's: {np.abs(own / lost - 1).max():.2%}")


if __name__ == "__main__":
    main()
