"""Training speed: avignon against the common way, side by side in one run on the embedded miniature.

The common way is what widely used example scripts do: at every step the images pass through the VAE and the captions
through the text encoder. avignon computes both once. Both train the same LoRA on the same UNet in the same precision,
in turn, so that a busy machine troubles them alike; the median of the ratios is what counts.

    python benchmarks/train.py [--rounds 5] [--steps 10] [--batch 4]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from PIL import Image

from avignon import adapters, diffusion, recipe, train
from avignon.imaging import pixels
from avignon.records import Voice

ROOT = Path(__file__).parents[1]
SILENT = Voice("benchmark", lambda _: None)


def main() -> None:
    """Print images per second of both ways, round by round, and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    arguments = parser.parse_args()
    overrides = [f"train.batch={arguments.batch}", "train.flip=false"]
    settings = recipe.load(ROOT / "recipes/demo.toml", overrides)
    with tempfile.TemporaryDirectory() as folder:
        ours, common = _contestants(settings, Path(folder))
        ratios = []
        print(f"{'round':>5} {'avignon':>10} {'common way':>12} {'ratio':>7}   images/s")
        for number in range(arguments.rounds + 1):
            rates = [arguments.steps * arguments.batch / _seconds(step, arguments.steps) for step in (ours, common)]
            if number:  # The first round warms up.
                ratios.append(rates[0] / rates[1])
                print(f"{number:>5} {rates[0]:>10.1f} {rates[1]:>12.1f} {ratios[-1]:>7.2f}")
        print(
            f"median ratio {statistics.median(ratios):.2f} on {diffusion.device()}, {torch.get_num_threads()} threads"
        )


def _contestants(settings: recipe.Recipe, folder: Path) -> tuple[Callable[[int], None], Callable[[int], None]]:
    device = diffusion.device()
    precision = diffusion.precision_for(settings.train.precision, "train", device)
    base = diffusion.load(settings, torch.float32, SILENT)
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=device.type == "cpu")
    base.pipeline.unet.to(device, diffusion.DTYPES[precision])
    parameters = adapters.add(base.pipeline.unet, "benchmark", settings.train.ranks, 0.0, seed=0)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    unet, optimizer = accelerator.prepare(base.pipeline.unet, optimizer)
    schedule = DDPMScheduler.from_config(base.pipeline.scheduler.config)
    examples = _examples(folder, settings.base.resolution)
    data = train.encode(base, examples, settings.train, device, SILENT)

    def step_on(drawn: train.Draw) -> None:
        train.optimizer_step(accelerator, unet, optimizer, parameters, schedule, drawn, settings.train)

    def ours(step: int) -> None:
        step_on(train.draw(data, settings.train, schedule.config.num_train_timesteps, 0, step))

    def common(step: int) -> None:
        drawn = train.draw(data, settings.train, schedule.config.num_train_timesteps, 0, step)
        step_on(_encoded_again(base, examples, drawn, device))

    return ours, common


@torch.no_grad()
def _encoded_again(base: diffusion.Base, examples: list[Any], drawn: train.Draw, device: torch.device) -> train.Draw:
    """The same draw, with latents and text computed at this step from pixels and words."""
    chosen = [examples[i] for i in drawn.index.tolist()]
    images = torch.stack(
        [torch.from_numpy(pixels(Image.open(path))).float().permute(2, 0, 1) * 2 - 1 for path, _ in chosen]
    )
    vae = base.pipeline.vae.to(device)
    latents = vae.encode(images.to(device)).latent_dist.sample() * vae.config.scaling_factor
    text = diffusion.text_embeddings(base, [row["captions"][0] for _, row in chosen], device, SILENT)
    return train.Draw(drawn.index, latents, drawn.noise, drawn.timesteps, text)


def _examples(folder: Path, edge: int) -> list[tuple[Path, dict[str, Any]]]:
    examples = []
    for number in range(14):
        path = folder / f"{number}.png"
        Image.effect_noise((edge, edge), 60 + number).convert("RGB").save(path)
        examples.append((path, {"captions": [f"picture number {number}", f"a picture, number {number}"]}))
    return examples


def _seconds(step: Callable[[int], None], count: int) -> float:
    start = time.perf_counter()
    for number in range(count):
        step(number)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
