"""What the exported model can do: reconstruction measured, curves and a sheet of samples drawn."""

import csv
import dataclasses
import math
import random
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

from avignon.demo import world
from tools.train_miniature import settings
from tools.train_miniature.autoencoder import psnr
from tools.train_miniature.settings import SEED, Run


def report(run: Run) -> None:
    """Measure the exported model and draw the curves and the sheet of samples."""
    pipeline = StableDiffusionPipeline.from_pretrained(run.base, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(run.device)
    print("PSNR", psnr(run, pipeline.vae, run.measured if run.clock else settings.CHECKS))
    curves(run).save(run.report / "curves.png", optimize=True)
    sheet(run, pipeline).save(run.report / "samples.jpg", quality=88)


def sheet(run: Run, pipeline: Any, guidance: float = 5.0, steps: int = 30) -> Image.Image:
    """Two samples of each subject below the neutral drawing of its caption, in two bands of eight columns.

    Where the time is up, the rest stays empty.
    """
    columns, rng, side = 8, random.Random(SEED), run.size
    out = Image.new("RGB", (columns * (side + 2), 6 * (side + 2)))
    for k, name in enumerate(world.SUBJECTS):
        if run.clock and run.clock.left() < 0:
            print(f"report: no time for samples of {len(world.SUBJECTS) - k} subjects of {len(world.SUBJECTS)}")
            break
        scene = dataclasses.replace(world.sample(rng), subject=name, number=1, distance="near")
        generator = torch.Generator().manual_seed(k)
        made = pipeline(
            [world.caption(scene)] * 2,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generator,
            height=side,
            width=side,
        ).images
        x, y = k % columns * (side + 2), k // columns * 3 * (side + 2)
        for row, image in enumerate([world.render(scene, side), *made]):
            out.paste(image, (x, y + row * (side + 2)))
    return out


def curves(run: Run, size: tuple[int, int] = (960, 300)) -> Image.Image:
    """The losses of the three trainings over their steps, on a logarithmic scale; what was not trained stays empty."""
    out = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(out)
    for column, stage in enumerate(("vae", "words", "unet")):
        if not (run.report / f"{stage}.csv").exists():
            continue
        with (run.report / f"{stage}.csv").open() as file:
            rows = [(int(r["step"]), math.log10(float(r["loss"]))) for r in csv.DictReader(file)]
        steps, levels = [r[0] for r in rows], [r[1] for r in rows]
        left, wide, high = column * size[0] // 3 + 30, size[0] // 3 - 50, size[1] - 70
        span = max(levels) - min(levels) or 1.0
        line = [(left + wide * s / max(steps), 40 + high * (max(levels) - v) / span) for s, v in rows]
        pen.rectangle([left, 40, left + wide, 40 + high], outline="#999999")
        pen.line(line, fill=("#1f6f78", "#6b6b2f", "#a0522d")[column], width=2)
        pen.text((left, 12), f"{stage}: loss {10 ** levels[0]:.3g} to {10 ** levels[-1]:.3g}", fill="black")
        pen.text((left, 46 + high), f"{max(steps)} steps", fill="black")
    return out
