"""A series of pictures: avignon's painter against diffusers' pipeline, frame by frame, in one run.

    python benchmarks/generate.py [--adapters FOLDER FOLDER] [--stops 9] [--steps 30] [--repeats 3]
    python benchmarks/generate.py --real [--batch 4]        the architecture of Stable Diffusion 2.1, random weights

Both make the same frames (4 scenes at each stop) from the same adapters: diffusers with `set_adapters` before every
picture, as its documentation shows; avignon in batches, in fp32 and, where the processor has it, in bf16. Repeats
alternate, the median counts. The largest difference of the pictures in fp32 is printed beside the times. With --real
single steps and changes of the weights are timed, and what a picture takes is computed from both.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from avignon.adapters import files as adapter_files
from avignon.adapters import inject, layers, mix
from avignon.adapters import weights as blend
from avignon.adapters.formats import diffusers as lora_format
from avignon.core.events import Reporter
from avignon.core.records import Frame
from avignon.generation import sampler as painting
from avignon.models import loading, runtime
from avignon.models.base import DiffusionBase
from avignon.models.registry import embedded_folder
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Ranks, Recipe

ROOT = Path(__file__).parents[1]
SILENT = Reporter("benchmark", lambda _: None)
SCENES = 4
TARGETS = StableDiffusion.targets


def frames_of(settings: Recipe, names: Sequence[str], stops: int, steps: int) -> list[Frame]:
    """4 scenes at every stop of an arc."""
    size, arc = settings.base.resolution, blend.MixPath(tuple(names), "arc")
    return [
        Frame("", "", scene.prompt, "", number, steps, 5.0, "ddim", size, size, arc.at(place).weights, "", {}, "fp32")
        for place in blend.evenly(stops)
        for number, scene in enumerate(settings.generate.scenes[:SCENES])
    ]


def untrained(base: DiffusionBase, folder: Path, name: str, seed: int) -> Path:
    """An adapter of random change, saved: its time is that of a trained one."""
    put_on(base.denoiser, name, seed)
    adapter_files.save(base.denoiser, TARGETS, name, folder / name / lora_format.WEIGHTS_FILE)
    base.denoiser.delete_adapters(layers.inner(name))
    return folder / name


def put_on(denoiser: Any, name: str, seed: int) -> None:
    """An adapter of random change, in the denoiser's precision, as a loaded one is."""
    parameters = inject.add(denoiser, TARGETS, name, Ranks(attention=16, projection=16, convolution=2), 0.0, seed)
    random = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.data = (torch.randn(parameter.shape, generator=random) * 0.02).to(denoiser.device, denoiser.dtype)


class Theirs:
    """diffusers alone, with adapters that are on already, which the pipeline may call by other names than frames do."""

    def __init__(self, pipeline: Any, called: Callable[[str], str] = str) -> None:
        self.pipeline, self.called = pipeline, called
        self.pipeline.scheduler = DDIMScheduler.from_config(self.pipeline.scheduler.config)
        self.pipeline.set_progress_bar_config(disable=True)

    def paint(self, frames: Sequence[Frame]) -> list[Any]:
        """One after the other, as the documentation shows it."""
        return [picture for frame in frames for picture in self.paint_together([frame])]

    def paint_together(self, frames: Sequence[Frame]) -> list[Any]:
        """Frames of the same weights, steps, guidance and size in one batch."""
        first = frames[0]
        self.pipeline.set_adapters([self.called(name) for name in first.weights], list(first.weights.values()))
        made = self.pipeline(
            [frame.prompt for frame in frames], width=first.width, height=first.height,
            num_inference_steps=first.num_inference_steps, guidance_scale=first.guidance_scale,
            generator=[torch.Generator().manual_seed(frame.seed) for frame in frames],
        )  # fmt: skip
        return list(made.images)


def ours(settings: Recipe, folders: dict[str, Path], precision: runtime.Precision) -> painting.ImageSampler:
    """The product's painter."""
    base = loading.load(settings.base, settings.generate, runtime.DTYPES[precision], SILENT)
    for name, folder in folders.items():
        adapter_files.load(base, name, folder)
    return painting.ImageSampler(base, settings, torch.device("cpu"), SILENT)


def precisions() -> list[runtime.Precision]:
    """fp32, and bf16 where the processor multiplies it natively: elsewhere it is many times slower."""
    return ["fp32", "bf16"] if torch.cpu._is_avx512_bf16_supported() else ["fp32"]


def timed(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each way, in turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def miniature(arguments: argparse.Namespace, scratch: Path) -> None:
    """The series on the miniature, whole pictures."""
    settings = load_recipe(ROOT / "recipes/demo.toml", [f"generate.batch={arguments.batch}"])
    names = settings.adapter_names
    if arguments.adapters:
        folders = dict(zip(names, arguments.adapters, strict=True))
    else:
        base = loading.load(settings.base, settings.generate, torch.float32, SILENT)
        folders = {name: untrained(base, scratch, name, seed) for seed, name in enumerate(names)}
    frames = frames_of(settings, names, arguments.stops, arguments.steps)
    pipeline = StableDiffusionPipeline.from_pretrained(embedded_folder(), safety_checker=None)
    for name, folder in folders.items():
        pipeline.load_lora_weights(folder, adapter_name=name)
    theirs = Theirs(pipeline)
    painters = {precision: ours(settings, folders, precision) for precision in precisions()}
    ways: dict[str, Callable[[], Any]] = {"diffusers, frame by frame, fp32": lambda: theirs.paint(frames)}
    for precision, sampler in painters.items():
        ways[f"avignon, batches of {arguments.batch}, {precision}"] = partial(sampler.paint, frames)
    print(f"{len(frames)} pictures of {settings.base.resolution} pixels, {arguments.steps} steps, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)  # fmt: skip
    few = [
        replace(frame, num_inference_steps=min(arguments.steps, 10)) for frame in frames[:: max(len(frames) // 6, 1)]
    ]
    pairs = zip(theirs.paint(few), painters["fp32"].paint(few), strict=True)
    difference = max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)
    print(f"largest difference of {len(few)} pictures in fp32: {difference} of 255", flush=True)
    table(timed(ways, arguments.repeats), len(frames), "picture")


def real(arguments: argparse.Namespace) -> None:
    """The real architecture with random weights: a guided step of each way, and what a change of the weights costs."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), attention_head_dim=(5, 10, 20, 20),
        cross_attention_dim=1024, use_linear_projection=True,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    ).eval().requires_grad_(False)  # fmt: skip
    for seed, name in enumerate("ab"):
        inject.add(unet, TARGETS, name, Ranks(attention=16, projection=16, convolution=2), 0.0, seed)
    unet.requires_grad_(False)
    noise, text = torch.randn(2 * arguments.batch, 4, 64, 64), torch.randn(2 * arguments.batch, 77, 1024)

    def alone() -> None:
        for k in range(arguments.batch):
            unet(noise[2 * k : 2 * k + 2], 500, text[2 * k : 2 * k + 2])

    first = "diffusers, one by one, fp32"
    names = [layers.inner(name) for name in "ab"]
    changing: dict[str, Callable[[], Any]] = {first: lambda: unet.set_adapters(names, [0.6, 0.8])}
    stepping: dict[str, Callable[[], Any]] = {first: alone}
    with torch.no_grad(), ExitStack() as stack:
        for precision in precisions():
            own = deepcopy(unet).to(dtype := runtime.DTYPES[precision])
            mixer = stack.enter_context(mix.mixing(own, TARGETS, {}))
            name = f"avignon, one batch, {precision}"
            changing[name] = partial(mixed_anew, mixer, 2 * arguments.batch)
            stepping[name] = partial(own, noise.to(dtype), 500, text.to(dtype))
        print(f"{arguments.batch} pictures of 512 pixels, {torch.get_num_threads()} threads, torch {torch.__version__}")
        changes, steps = timed(changing, arguments.repeats), timed(stepping, arguments.repeats)
    changes[first] *= arguments.batch  # before every picture
    print("weights changed (by diffusers for every picture, by avignon for every batch), seconds a picture:")
    table(changes, arguments.batch, "picture")
    print("one guided step, seconds a picture:")
    table(steps, arguments.batch, "step of a picture")
    print(f"a picture of {arguments.steps} steps, computed from both (nothing was decoded):")
    table({name: changes[name] + arguments.steps * steps[name] for name in steps}, arguments.batch, "picture")


def mixed_anew(mixer: mix.Mixer, samples: int) -> None:
    """New weights, the same for all samples."""
    mixer.set([{"a": 0.6, "b": 0.8 + torch.rand(1).item()}] * samples)


def table(times: dict[str, float], count: int, unit: str) -> None:
    """The times, and their ratio to the first."""
    first = next(iter(times.values()))
    print(f"| way | seconds a {unit} | ratio |\n| --- | --- | --- |")
    for name, seconds in times.items():
        print(f"| {name} | {seconds / count:.2f} | {first / seconds:.2f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--real", action="store_true", help="the real architecture with random weights")
    parser.add_argument("--adapters", type=Path, nargs=2, help="folders of the demo's adapters; random ones otherwise")
    parser.add_argument("--stops", type=int, default=9)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        real(arguments) if arguments.real else miniature(arguments, Path(scratch))


if __name__ == "__main__":
    main()
