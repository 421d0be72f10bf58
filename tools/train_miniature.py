"""Train the miniature Stable Diffusion that ships in src/avignon/demo/base, from nothing.

    python tools/train_miniature.py all            every stage; goes on from the newest checkpoint if there is one
    python tools/train_miniature.py vae --steps N  one stage, another number of steps

    python tools/train_miniature.py vae --warm     no checkpoint here: go on from the weights that ship

Stages: `scenes` renders the training pictures once, `vae` trains the autoencoder on neutral and painted ones, `latents`
encodes the neutral ones, `decoder` goes on with the decoder alone, `words` teaches the text encoder what captions mean,
`unet` trains the denoiser on both, `export` writes the newest averaged weights as a diffusers directory, `report` draws
curves and samples. Work files lie in .cache/miniature, curves and samples in docs/miniature.

The numbers of steps below are what two CPU cores can do in an hour; with a night, or more cores, raise them.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import random
import re
import string
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from avignon.demo import world
from avignon.demo.painters import PAINTERS

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "miniature"
DOCS = ROOT / "docs" / "miniature"
BASE = ROOT / "src" / "avignon" / "demo" / "base"

SEED = 1907
SIZE = 192
"""Pixels of a side; the autoencoder reduces by 8."""
NEUTRAL = 24_000
PAINTED = 3_000
"""Pictures for training: neutral ones, and by each painter."""
CHECKS = 96
"""The last so many pictures of each kind are kept from training, to measure on."""
KINDS = ("neutral", *PAINTERS)

VAE_CHANNELS = (24, 48, 96, 128)
VAE_GROUPS = 8
VAE_STEPS = 2_600
VAE_BATCH = 16
VAE_CROP = 64
VAE_RATE = 6e-4
KL = 1e-6
DECODER_STEPS = 2_400
DECODER_RATE = 4e-4

UNET_CHANNELS = (64, 128, 256)
UNET_HEADS = (2, 4, 8)
UNET_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
"""No attention at the finest level: it costs a third of the time there, and subjects are larger than that."""
TEXT_WIDTH = 128
TEXT_LAYERS = 4
VOCABULARY = 1_024
WORD_STEPS = 500
WORD_BATCH = 64
WORD_RATE = 1e-3
UNET_STEPS = 3_600
UNET_BATCH = 32
UNET_RATE = 1e-3
EMPTY = 0.12
"""Share of captions replaced by the empty prompt, for classifier-free guidance (Ho & Salimans 2022)."""
SNR_CAP = 5.0
"""Gamma of min-SNR weighting (Hang et al. 2023)."""
EVERY = 500
"""Steps between checkpoints."""

# --- Pictures and words -----------------------------------------------------------------------------------------------


def scene_of(kind: str, index: int) -> world.Scene:
    """The index-th training scene of a kind, every second one plain; held-out combinations never occur."""
    rng = random.Random(f"{SEED}/{kind}/{index}")
    while True:
        scene = world.sample(rng)
        if not world.held_out(scene) and (index % 2 == 0 or is_plain(scene)):
            return scene


def is_plain(scene: world.Scene) -> bool:
    """One subject, close by, in clear or cloudy daylight."""
    near = scene.number == 1 and scene.distance == "near"
    return near and scene.time != "night" and scene.weather in ("fine", "cloudy")


def picture(kind: str, index: int) -> NDArray[np.uint8]:
    """The index-th training picture of a kind, (SIZE, SIZE, 3)."""
    scene = scene_of(kind, index)
    if kind == "neutral":
        return np.asarray(world.render(scene, SIZE))
    rng = random.Random(index)
    side = rng.choice((SIZE, SIZE, SIZE * 3 // 2))  # some larger ones, cropped: fine strokes at another scale
    x, y = rng.randint(0, side - SIZE), rng.randint(0, side - SIZE)
    painted = PAINTERS[kind](scene, (2 * side, 2 * side), index)  # reduced, as pictures of a museum are
    return np.asarray(painted.resize((side, side), Image.Resampling.LANCZOS))[y : y + SIZE, x : x + SIZE]


def _pictures(task: tuple[str, int, int]) -> NDArray[np.uint8]:
    kind, start, stop = task
    return np.stack([picture(kind, k) for k in range(start, stop)])


def pictures(kind: str, mode: Literal["r", "w+"] = "r") -> np.memmap[Any, np.dtype[np.uint8]]:
    """The pictures of a kind as a memory map (N, SIZE, SIZE, 3)."""
    count = NEUTRAL if kind == "neutral" else PAINTED
    return np.memmap(CACHE / f"{kind}_{SIZE}.u8", np.uint8, mode, shape=(count, SIZE, SIZE, 3))


def stage_scenes(_: argparse.Namespace) -> None:
    """Render every kind once; a kind whose file is there is left alone."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        done = CACHE / f"{kind}_{SIZE}.done"
        if done.exists():
            continue
        out = pictures(kind, "w+")
        tasks = [(kind, k, min(k + 100, len(out))) for k in range(0, len(out), 100)]
        with ProcessPoolExecutor() as pool:
            for task, part in zip(tasks, pool.map(_pictures, tasks), strict=True):
                out[task[1] : task[2]] = part
        out.flush()
        done.touch()
        print(f"scenes: {len(out)} {kind}", flush=True)


def training_caption(scene: world.Scene, rng: random.Random) -> str:
    """The caption as a user might put it: parts left out or moved, unknown names added, sometimes nothing at all."""
    if rng.random() < EMPTY:
        return ""
    what, *rest = world.phrases(scene)
    if rng.random() < 0.10:
        rest = []
    rest = [part for part in rest if rng.random() < 0.85]
    if rng.random() < 0.3:
        rng.shuffle(rest)
    joint = ", " if rng.random() < 0.6 else " "
    text = joint.join([what, *rest])
    if rng.random() < 0.15:
        text = rng.choice(("a painting of ", "a picture of ", "an oil painting of ", "a drawing of ")) + text
    if rng.random() < 0.30:
        name = " ".join(_unknown_word(rng) for _ in range(rng.randint(1, 3)))
        text = rng.choice((f"{text}, in the style of {name}", f"{name}, {text}", f"{text}, {name}", f"{name} {text}"))
    return text


def _unknown_word(rng: random.Random) -> str:
    """A word that means nothing, so that words the model never saw come to mean nothing."""
    return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(2, 9)))


# --- What every stage shares ------------------------------------------------------------------------------------------


def to_tensor(batch: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) bytes to (B, 3, H, W) floats in -1..1."""
    return torch.from_numpy(np.array(batch)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def rate(step: int, steps: int, peak: float) -> float:
    """Learning rate: 100 steps of warm-up, then a cosine to 2 % of the peak."""
    if step < 100:
        return peak * (step + 1) / 100
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - 100) / max(1, steps - 100))))


class Average:
    """Exponential moving average of the weights, which is what is exported."""

    def __init__(self, module: torch.nn.Module, decay: float = 0.998) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def update(self, module: torch.nn.Module, step: int) -> None:
        """Take one step's weights in; early on the average forgets faster."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value.detach(), 1 - keep)


def save(path: Path, state: dict[str, Any]) -> None:
    """A checkpoint, complete or not there at all."""
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


def log(stage: str, step: int, **values: float) -> None:
    """One line to the terminal and one to the table of the stage."""
    path = DOCS / f"{stage}.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", *values])
        writer.writerow([step, *(f"{v:.5g}" for v in values.values())])
    print(stage, step, " ".join(f"{k} {v:.5g}" for k, v in values.items()), flush=True)


class Optimiser:
    """Muon for matrices and convolutions (Jordan et al. 2024), AdamW for the rest.

    Muon's steps are scaled to AdamW's (Liu et al. 2025, arXiv:2502.16982), so that one rate serves both.
    """

    def __init__(self, module: torch.nn.Module, peak: float) -> None:
        tables = {id(m.weight) for m in module.modules() if isinstance(m, torch.nn.Embedding)}
        weights = [p for p in module.parameters() if p.requires_grad]
        self.wide = [p for p in weights if p.ndim > 1 and min(p.shape[:2]) >= 16 and id(p) not in tables]
        chosen = {id(p) for p in self.wide}
        self.flat = [torch.nn.Parameter(as_matrix(p.detach())) for p in self.wide]  # views: the same memory
        self.muon = torch.optim.Muon(self.flat, lr=peak, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        rest = [p for p in weights if id(p) not in chosen]
        self.adam = torch.optim.AdamW(rest, lr=peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)

    def step(self, lr: float) -> None:
        """One step of both at the rate `lr`; gradients are used up."""
        for flat, wide in zip(self.flat, self.wide, strict=True):
            flat.grad = None if wide.grad is None else as_matrix(wide.grad)
        for part in (self.muon, self.adam):
            for group in part.param_groups:
                group["lr"] = lr
            part.step()  # type: ignore[no-untyped-call]
        for weight in self.wide:
            weight.grad = None
        self.adam.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Both states, as `state_dict` gave them."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


def as_matrix(weight: Tensor) -> Tensor:
    """A linear layer's weight as it is; a convolution's (O, I, h, w) as (O, h·w·I), which is how it lies in memory."""
    return weight if weight.ndim == 2 else weight.permute(0, 2, 3, 1).flatten(1)


def train(
    stage: str,
    module: torch.nn.Module,
    loss_of: Callable[[int], Tensor],
    steps: int,
    peak: float,
    measure: Callable[[], dict[str, float]],
) -> None:
    """The training loop: resumes, averages, logs and checkpoints. `loss_of(step)` must depend on seed and step only."""
    path = CACHE / f"{stage}.pt"
    optimiser = Optimiser(module, peak)
    average, first, seconds = Average(module), 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        average.weights, first, seconds = state["average"], state["step"], state["seconds"]
    began, losses = time.monotonic() - seconds, []
    for step in range(first, steps):
        loss = loss_of(step)
        if not torch.isfinite(loss):
            raise SystemExit(f"{stage}: the loss is {loss.item()} at step {step}; the last checkpoint is kept")
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step(rate(step, steps, peak))
        average.update(module, step)
        losses.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            now = time.monotonic() - began
            log(stage, step + 1, loss=float(np.mean(losses[-100:])), rate=rate(step, steps, peak), seconds=now)
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            save(
                path,
                {
                    "module": module.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "average": average.weights,
                    "step": step + 1,
                    "seconds": time.monotonic() - began,
                },
            )
            with torch.compiler.set_stance("force_eager"):  # other shapes: not worth a compilation
                print(stage, step + 1, measure(), flush=True)


# --- The autoencoder --------------------------------------------------------------------------------------------------


def new_vae() -> Any:
    """AutoencoderKL with the four levels of Stable Diffusion's and an eighth of its channels."""
    from diffusers import AutoencoderKL

    torch.manual_seed(SEED)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=SIZE,
        layers_per_block=1,
        block_out_channels=VAE_CHANNELS,
        norm_num_groups=VAE_GROUPS,
        mid_block_add_attention=False,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).to(memory_format=torch.channels_last)


def picture_loss(made: Tensor, true: Tensor) -> Tensor:
    """Root mean square error of each picture, and an L1 of its Laplacian pyramid, lest fine edges be bought last."""
    error = made - true  # the pyramid is linear
    loss = 2 * error.square().mean((1, 2, 3)).sqrt().mean()
    for _ in range(2):
        small = F.avg_pool2d(error, 2)
        loss = loss + 0.3 * (error - F.interpolate(small, scale_factor=2.0, mode="nearest")).abs().mean()
        error = small
    return loss


def crops(step: int) -> Tensor:
    """A batch of random crops, half of them by the Avignon painter, whose edges are the hardest: (B, 3, h, w)."""
    rng = np.random.default_rng((SEED, step))
    chosen = []
    for k in range(VAE_BATCH):
        source = pictures((*KINDS, "avignon")[k % 4])
        index, (x, y) = rng.integers(len(source) - CHECKS), rng.integers(0, (SIZE - VAE_CROP) // 4 + 1, 2) * 4
        crop = source[index, y : y + VAE_CROP, x : x + VAE_CROP]
        chosen.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return to_tensor(np.stack(chosen))


def vae_loss(vae: Any, step: int) -> Tensor:
    """Reconstruction plus a small pull of the posterior towards the unit normal."""
    true = crops(step).to(memory_format=torch.channels_last)
    torch.manual_seed(SEED + step)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(true).latent_dist
        made = vae.decode(posterior.sample()).sample
    loss: Tensor = picture_loss(made.float(), true) + KL * posterior.kl().mean()
    return loss


@torch.no_grad()
def psnr(vae: Any, count: int = CHECKS) -> dict[str, float]:
    """Peak signal-to-noise ratio in dB of each kind's pictures kept from training, by way of the posterior's mean."""
    result = {}
    for kind in KINDS:
        errors = []
        for part in np.array_split(pictures(kind)[-count:], max(1, count // 16)):
            true = to_tensor(part)
            made = vae.decode(vae.encode(true).latent_dist.mode()).sample.clamp(-1, 1)
            errors += ((made - true) / 2).square().mean((1, 2, 3)).tolist()
        result[kind] = float(np.mean([-10 * math.log10(e) for e in errors]))
    return result


def stage_vae(args: argparse.Namespace) -> None:
    """Train the autoencoder."""
    vae = new_vae()
    if args.warm:
        vae.load_state_dict(shipped("vae/diffusion_pytorch_model.safetensors"))
    train("vae", vae, lambda step: vae_loss(vae, step), args.steps or VAE_STEPS, VAE_RATE, lambda: psnr(vae, 32))


def shipped(name: str) -> dict[str, Tensor]:
    """The weights of one part of the shipped model."""
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = load_file(BASE / name)
    return weights


def trained_vae() -> Any:
    """The autoencoder with its averaged weights, or the shipped ones if none was trained here."""
    vae = new_vae()
    if (CACHE / "vae.pt").exists():
        vae.load_state_dict(torch.load(CACHE / "vae.pt", weights_only=True)["average"])
    elif (BASE / "vae").exists():
        vae.load_state_dict(shipped("vae/diffusion_pytorch_model.safetensors"))
    return vae.eval()


def standardise(vae: Any, mean: Tensor, std: Tensor) -> None:
    """Shift and scale the latents by (4,) each, inside the 1 × 1 convolutions on either side of them.

    The diffusers format knows one scaling factor for all channels; this way each has mean 0 and deviation 1.
    """
    into, out = vae.quant_conv, vae.post_quant_conv  # moments (mean, log variance), latents
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= std[:, None, None]
    into.bias[:4] = (into.bias[:4] - mean) / std
    into.bias[4:] -= 2 * std.log()
    into.weight[:4] /= std[:, None, None, None]


@torch.no_grad()
def stage_latents(_: argparse.Namespace) -> None:
    """Encode the neutral pictures once: mean and deviation of the posterior, float16, (N, 8, SIZE/8, SIZE/8)."""
    vae, source, parts = trained_vae(), pictures("neutral"), []
    for start in range(0, NEUTRAL, 64):
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(to_tensor(source[start : start + 64])).latent_dist
        parts.append(torch.cat([posterior.mean, posterior.std], 1).half().numpy())
    moments = np.concatenate(parts).astype(np.float32)
    mean, std = moments[:, :4].mean((0, 2, 3)), moments[:, :4].std((0, 2, 3))
    moments[:, :4] = (moments[:, :4] - mean[:, None, None]) / std[:, None, None]
    moments[:, 4:] /= std[:, None, None]
    np.save(CACHE / "latents.npy", moments.astype(np.float16))
    standardise(vae, torch.from_numpy(mean), torch.from_numpy(std))
    vae.register_to_config(scaling_factor=1.0)
    vae.save_pretrained(CACHE / "vae")
    print("latents: mean", mean, "and deviation", std, "before; deviation of the posterior", moments[:, 4:].mean())


def decoder_loss(vae: Any, step: int) -> Tensor:
    """Root mean square error of each picture, by way of latents that stay as they are."""
    true = crops(step).to(memory_format=torch.channels_last)
    torch.manual_seed(SEED + step)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            latents = vae.encode(true).latent_dist.sample()
        made = vae.decode(latents).sample
    loss: Tensor = (made.float() - true).square().mean((1, 2, 3)).sqrt().mean()
    return loss


def stage_decoder(args: argparse.Namespace) -> None:
    """Go on with the decoder alone: the latents, and with them the UNet, stay as they are."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(CACHE / "vae").to(memory_format=torch.channels_last)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    steps = args.steps or DECODER_STEPS
    train("decoder", vae, lambda step: decoder_loss(vae, step), steps, DECODER_RATE, lambda: psnr(vae, 32))
    vae.load_state_dict(torch.load(CACHE / "decoder.pt", weights_only=True)["average"])
    vae.save_pretrained(CACHE / "vae")


# --- Words ------------------------------------------------------------------------------------------------------------


def tokenizer_of_run() -> Any:
    """The tokenizer that the weights at hand were trained with: this run's, else the shipped one, else a new one.

    Ids without their weights mean nothing, so what was learnt once is kept beside the checkpoints.
    """
    from transformers import CLIPTokenizer

    for folder in (CACHE / "tokenizer", BASE / "tokenizer"):
        if folder.exists():
            return CLIPTokenizer.from_pretrained(folder)
    tokenizer = new_tokenizer()
    tokenizer.save_pretrained(CACHE / "tokenizer")
    return tokenizer


def new_tokenizer() -> Any:
    """CLIP's tokenizer with a byte-level vocabulary of its own, learnt from the captions."""
    from transformers import CLIPTokenizer

    corpus = [world.caption(scene_of("neutral", k)) for k in range(4_000)]
    filler = "a painting of an oil painting, a picture, a drawing, in the style of"
    counts = Counter(re.findall("[a-z]+|[^a-z ]+", " ".join([*corpus, *[filler] * len(corpus)])))
    merges = learn_merges(counts, VOCABULARY - 514)
    alphabet = sorted(ByteLevel.alphabet())
    words = dict.fromkeys([*alphabet, *(a + "</w>" for a in alphabet), *(a + b for a, b in merges)])
    vocabulary = {w: k for k, w in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def learn_merges(counts: Counter[str], most: int) -> list[tuple[str, str]]:
    """Byte-pair merges of words with their counts (Sennrich et al. 2016), ties broken by the alphabet.

    The tokenizers library's trainer breaks ties anew in every process: the same words, but other ids.
    """
    split = {word: [*word[:-1], word[-1] + "</w>"] for word in counts}
    merges: list[tuple[str, str]] = []
    while len(merges) < most:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = {word: _merged(parts, best) for word, parts in split.items()}
    return merges


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


def new_text_encoder(tokenizer: Any) -> Any:
    """CLIP's text model, four layers of 128."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(SEED + 1)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=TEXT_WIDTH // 32,
            max_position_embeddings=77,
            projection_dim=TEXT_WIDTH,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def token_ids(tokenizer: Any, texts: list[str]) -> Tensor:
    """Ids (B, 77), padded and cut as Stable Diffusion's pipeline does."""
    ids: Tensor = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return ids


def attributes(scene: world.Scene) -> list[int]:
    """What a caption says, as the index of each value among its attribute's."""
    return [
        list(values).index(value)
        for values, value in (
            (world.SUBJECTS, scene.subject),
            (world.COLOURS, scene.colour),
            ((1, 2, 3), scene.number),
            (world.TIMES, scene.time),
            (world.WEATHERS, scene.weather),
            (world.SIDES, scene.side),
            (world.DISTANCES, scene.distance),
        )
    ]


ATTRIBUTES = (len(world.SUBJECTS), len(world.COLOURS), 3, len(world.TIMES), len(world.WEATHERS), 3, 2)
"""How many values each has."""


class Words:
    """The text encoder's own lesson: from the end of a caption, and from any padding after it, tell what it said.

    Denoising alone would teach it the same in the end, by a longer way.
    """

    def __init__(self, text: Any, tokenizer: Any) -> None:
        self.text, self.tokenizer = text, tokenizer
        self.heads = torch.nn.Linear(TEXT_WIDTH, sum(ATTRIBUTES))
        self.both = torch.nn.ModuleDict({"text": text, "heads": self.heads})

    def loss(self, step: int) -> Tensor:
        """Cross-entropy over all attributes, at the end of the caption and at one place after it."""
        rng = random.Random(f"{SEED}/words/{step}")
        scenes = [scene_of("words", step * WORD_BATCH + k) for k in range(WORD_BATCH)]
        texts = [training_caption(scene, rng) for scene in scenes]
        wanted = torch.tensor([attributes(scene) for scene in scenes])  # (B, 7)
        ids = token_ids(self.tokenizer, texts)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.text(ids).last_hidden_state  # (B, 77, C)
        end = (ids == self.tokenizer.eos_token_id).int().argmax(1)
        after = torch.tensor([rng.randint(min(int(k) + 1, 76), 76) for k in end])
        row = torch.arange(WORD_BATCH)
        told = torch.stack([hidden[row, end], hidden[row, after]]).float()  # (2, B, C)
        parts = self.heads(told).flatten(0, 1).split(ATTRIBUTES, -1)
        errors = [F.cross_entropy(part, wanted[:, k].repeat(2)) for k, part in enumerate(parts)]
        return torch.stack(errors).sum()


def stage_words(args: argparse.Namespace) -> None:
    """Train the text encoder."""
    tokenizer = tokenizer_of_run()
    lesson = Words(new_text_encoder(tokenizer), tokenizer)
    train("words", lesson.both, lesson.loss, args.steps or WORD_STEPS, WORD_RATE, dict)


def trained_text_encoder(tokenizer: Any) -> Any:
    """The text encoder with its averaged weights, or the shipped ones if none was trained here; it changes no more."""
    text = new_text_encoder(tokenizer)
    if (CACHE / "words.pt").exists():
        state = torch.load(CACHE / "words.pt", weights_only=True)["average"]
        text.load_state_dict({k.removeprefix("text."): v for k, v in state.items() if k.startswith("text.")})
    else:
        text.load_state_dict(shipped("text_encoder/model.safetensors"))
    return text.eval().requires_grad_(False)


# --- The denoiser -----------------------------------------------------------------------------------------------------


def new_unet() -> Any:
    """UNet2DConditionModel in the manner of Stable Diffusion 2: linear projections, cross-attention but at one end.

    Stable Diffusion leaves attention out at its coarsest level, this one at its finest.
    """
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    torch.manual_seed(SEED + 2)
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=UNET_CHANNELS,
        down_block_types=UNET_BLOCKS,
        up_block_types=tuple(name.replace("Down", "Up") for name in reversed(UNET_BLOCKS)),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=UNET_HEADS,
        use_linear_projection=True,
    ).to(memory_format=torch.channels_last)
    unet.set_attn_processor(AttnProcessor())  # torch's fused attention is far slower backwards on CPUs
    return unet


def new_scheduler() -> Any:
    """The noise schedule of Stable Diffusion 2.1-base."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


class Denoising:
    """What one step of the denoiser's training needs: latents, words, noise schedule."""

    def __init__(self, unet: Any, text: Any, tokenizer: Any) -> None:
        self.unet, self.text, self.tokenizer = unet, text, tokenizer
        self.moments = np.load(CACHE / "latents.npy", mmap_mode="r")
        self.kept: Tensor = new_scheduler().alphas_cumprod

    def loss(self, step: int) -> Tensor:
        """Min-SNR-weighted error of the predicted noise."""
        rng = np.random.default_rng((SEED, step))
        words = random.Random(f"{SEED}/{step}")
        chosen = np.sort(rng.choice(len(self.moments) - CHECKS, size=UNET_BATCH))
        moments = torch.from_numpy(self.moments[chosen]).float()  # (B, 8, h, w)
        texts = [training_caption(scene_of("neutral", int(k)), words) for k in chosen]
        torch.manual_seed(SEED + step)
        clean = moments[:, :4] + moments[:, 4:] * torch.randn_like(moments[:, 4:])
        times = (torch.arange(UNET_BATCH) + torch.rand(UNET_BATCH)) * (1000 / UNET_BATCH)  # one from each stratum
        return self.error(clean, times.long(), texts).mean()

    def error(self, clean: Tensor, times: Tensor, texts: list[str]) -> Tensor:
        """Weighted squared error of each sample, (B,)."""
        kept = self.kept[times][:, None, None, None]
        noise = torch.randn_like(clean)
        noisy = (kept.sqrt() * clean + (1 - kept).sqrt() * noise).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                words = self.text(token_ids(self.tokenizer, texts)).last_hidden_state  # (B, 77, C)
            made = self.unet(noisy, times, words).sample
        snr = (kept / (1 - kept)).flatten()
        weight = snr.clamp(max=SNR_CAP) / snr
        error: Tensor = (made.float() - noise).square().mean((1, 2, 3)) * weight
        return error

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The same error on pictures kept from training, at fixed times and noise."""
        torch.manual_seed(SEED)
        moments = torch.from_numpy(np.array(self.moments[-CHECKS:])).float()
        times = torch.arange(CHECKS) * 1000 // CHECKS
        first = len(self.moments) - CHECKS
        texts = [world.caption(scene_of("neutral", first + k)) for k in range(CHECKS)]
        return {"held": float(self.error(moments[:, :4], times, texts).mean())}


def stage_unet(args: argparse.Namespace) -> None:
    """Train the denoiser."""
    tokenizer, unet = tokenizer_of_run(), new_unet()
    if args.warm:
        unet.load_state_dict(shipped("unet/diffusion_pytorch_model.safetensors"))
    work = Denoising(unet, trained_text_encoder(tokenizer), tokenizer)
    unet.compile(dynamic=False)
    train("unet", unet, work.loss, args.steps or UNET_STEPS, UNET_RATE, work.measure)


# --- Export -----------------------------------------------------------------------------------------------------------


def stage_export(_: argparse.Namespace) -> None:
    """Write the newest averaged weights as a Stable Diffusion directory; every file appears whole.

    The text encoder stays in float32: transformers loads it as it was stored, and plain `from_pretrained` gives
    float32 for the rest.
    """
    from diffusers import AutoencoderKL, StableDiffusionPipeline

    tokenizer, unet = tokenizer_of_run(), new_unet()
    unet.load_state_dict(torch.load(CACHE / "unet.pt", weights_only=True)["average"])
    vae = AutoencoderKL.from_pretrained(CACHE / "vae")
    vae.register_to_config(_name_or_path="")  # where it was trained is of no use to others
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=trained_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made = CACHE / "base"
    pipeline.save_pretrained(made)
    tokenizer.backend_tokenizer.model.save(str(made / "tokenizer"))  # vocab.json and merges.txt, for other programs
    for file in sorted(p for p in made.rglob("*") if p.is_file()):
        target = BASE / file.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_bytes(file.read_bytes())
        part.replace(target)
    print("export:", sum(p.stat().st_size for p in BASE.rglob("*")) / 2**20, "MiB in", BASE)


def stage_report(_: argparse.Namespace) -> None:
    """Measure the exported model and draw the curves and the sheet of samples."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(BASE, torch_dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    print("PSNR", psnr(pipeline.vae))
    sheet(pipeline).save(DOCS / "samples.jpg", quality=88)
    curves().save(DOCS / "curves.png", optimize=True)


def sheet(pipeline: Any, guidance: float = 5.0, steps: int = 30) -> Image.Image:
    """Two samples of each subject below the neutral drawing of its caption, in two bands of eight columns."""
    columns, rng = 8, random.Random(SEED)
    out = Image.new("RGB", (columns * (SIZE + 2), 6 * (SIZE + 2)))
    for k, name in enumerate(world.SUBJECTS):
        scene = dataclasses.replace(world.sample(rng), subject=name, number=1, distance="near")
        generator = torch.Generator().manual_seed(k)
        made = pipeline(
            [world.caption(scene)] * 2,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generator,
            height=SIZE,
            width=SIZE,
        ).images
        x, y = k % columns * (SIZE + 2), k // columns * 3 * (SIZE + 2)
        for row, image in enumerate([world.render(scene, SIZE), *made]):
            out.paste(image, (x, y + row * (SIZE + 2)))
    return out


def curves(size: tuple[int, int] = (960, 300)) -> Image.Image:
    """The losses of the three trainings over their steps, on a logarithmic scale."""
    out = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(out)
    for column, stage in enumerate(("vae", "words", "unet")):
        with (DOCS / f"{stage}.csv").open() as file:
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


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "scenes": stage_scenes,
    "vae": stage_vae,
    "latents": stage_latents,
    "decoder": stage_decoder,
    "words": stage_words,
    "unet": stage_unet,
    "export": stage_export,
    "report": stage_report,
}


def main() -> None:
    """Parse the stage and run it."""
    parser = argparse.ArgumentParser(description="Train the miniature Stable Diffusion.")
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("--steps", type=int, help="steps of training of this stage, instead of the constant's")
    parser.add_argument("--warm", action="store_true", help="begin from the shipped weights")
    args = parser.parse_args()
    DOCS.mkdir(parents=True, exist_ok=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    for name, stage in STAGES.items():
        if args.stage in (name, "all"):
            stage(args)


if __name__ == "__main__":
    main()
