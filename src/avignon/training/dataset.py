"""What a training step reads: images and captions encoded once, and each step's random choices.

Everything random in step n follows from the seed and n alone, so a resumed run draws what the first one would have, and
each of several processes draws the same batch and takes its own share.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from avignon.core import imaging
from avignon.core.errors import ModelError
from avignon.core.events import Reporter
from avignon.core.prompts import fit
from avignon.models import finite
from avignon.models.stable_diffusion import model as diffusion
from avignon.recipe.schema import Train

Row = dict[str, Any]


def seed_of(seed: int, *names: str | int) -> int:
    """A seed for one purpose, independent of all others: 63 bits of a hash."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Window:
    """How much of a text the base's text encoder reads."""

    def __init__(self, base: diffusion.Base) -> None:
        self._tokenizer = base.pipeline.tokenizer
        longest = base.pipeline.text_encoder.config.max_position_embeddings
        self.tokens: int = min(self._tokenizer.model_max_length, longest)
        """The marks of start and end are two of them."""

    def holds(self, text: str) -> bool:
        """Whether it reads all of `text`."""
        return len(self._tokenizer(text, truncation=False, verbose=False).input_ids) <= self.tokens


def fitted(
    base: diffusion.Base, examples: Sequence[tuple[Path, Row]], triggers: Mapping[str, str], reporter: Reporter
) -> list[tuple[Path, Row]]:
    """The examples with captions that the text encoder reads whole: a trigger behind its last token is never learned.

    How many tokens a text has is the tokenizer's to say: a Cyrillic or Chinese letter has up to three.

    Args:
        base: its tokenizer counts.
        examples: prepared images, in a folder by artist.
        triggers: by folder, the phrase that stays whole in every caption.
        reporter: hears of captions that were shortened.
    """
    window = Window(base)
    pairs = [(caption, triggers[path.parent.name]) for path, row in examples for caption in row["captions"]]
    cut = {pair: fit(*pair, window.holds) for pair in pairs if not window.holds(pair[0])}
    if cut:
        reporter.note(
            f"{len(cut)} captions are longer than the base's {window.tokens} tokens and were shortened in front of the "
            f"trigger or behind it, as {next(iter(cut.values()))!r}"
        )
    return [
        (path, {**row, "captions": [cut.get((c, triggers[path.parent.name]), c) for c in row["captions"]]})
        for path, row in examples
    ]


@dataclass(frozen=True)
class LatentDataset:
    """What training reads at every step, computed once. N images, F views (plain, mirrored), M captions."""

    mean: torch.Tensor
    """Of the VAE's posterior, scaled, shaped (N, F, C, H/8, W/8)."""
    std: torch.Tensor
    text: torch.Tensor
    """Embeddings of the captions, shaped (N, M, tokens, width)."""
    empty: torch.Tensor
    """Embedding of the empty prompt, shaped (tokens, width)."""
    files: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]


@torch.no_grad()
def encode(
    base: diffusion.Base, examples: list[tuple[Path, Row]], settings: Train, device: torch.device, reporter: Reporter
) -> LatentDataset:
    """Run the VAE over every image and the text encoder over every caption, in fp32, then let both go.

    Raises:
        ModelError: the VAE makes NaN or infinity of an image, or the text encoder of a caption.
    """
    pipeline = base.pipeline
    vae = diffusion.place(pipeline.vae, device, torch.float32)
    posteriors = [vae.encode(_views(path, settings.flip).to(device)).latent_dist for path, _ in examples]
    mean, std = (torch.stack([getattr(posterior, name) for posterior in posteriors]) for name in ("mean", "std"))
    if bad := finite.first_bad([*zip((path.name for path, _ in examples), mean + std, strict=True)]):
        raise ModelError(f"the base's VAE makes NaN or infinity of the training image {bad}: choose another base")
    factor = vae.config.scaling_factor
    count = max(len(row["captions"]) for _, row in examples)
    captions = tuple(tuple(itertools.islice(itertools.cycle(row["captions"]), count)) for _, row in examples)
    every = diffusion.text_embeddings(base, [c for own in captions for c in own], device, reporter)
    empty = diffusion.text_embeddings(base, [""], device, reporter)[0]
    pipeline.to("cpu")
    return LatentDataset(
        mean=mean * factor,
        std=std * factor,
        text=every.reshape(len(examples), count, *every.shape[1:]),
        empty=empty,
        files=tuple(path.name for path, _ in examples),
        captions=captions,
    )


def _views(path: Path, flip: bool) -> torch.Tensor:
    """An image, and its mirror image where wanted: (1 or 2, 3, H, W) in -1..1."""
    pixels = torch.from_numpy(imaging.pixels(imaging.load(path))).float().permute(2, 0, 1)[None] * 2 - 1
    return torch.cat([pixels, pixels.flip(-1)] if flip else [pixels])


@dataclass(frozen=True)
class Batch:
    """The random choices of one step, for a batch of B images."""

    index: torch.Tensor
    """Which image, (B,), on the CPU."""
    caption: torch.Tensor
    """Which of its captions, (B,), -1 where it was dropped; on the CPU."""
    latents: torch.Tensor
    """(B, C, H/8, W/8)"""
    noise: torch.Tensor
    timesteps: torch.Tensor
    text: torch.Tensor
    """(B, tokens, width)"""
    weight: torch.Tensor
    """Of each sample's loss, (B,)"""

    def parts(self, size: int) -> Iterator["Batch"]:
        """The draw in micro-batches of `size`."""
        columns = (torch.split(getattr(self, field.name), size) for field in fields(self))
        return itertools.starmap(Batch, zip(*columns, strict=True))


def joined(draws: Sequence[Batch]) -> Batch:
    """Several draws as one, in their order."""
    return Batch(*(torch.cat([getattr(drawn, field.name) for drawn in draws]) for field in fields(Batch)))


def sample_batch_with_prior(
    data: LatentDataset, prior: LatentDataset, settings: Train, timesteps: int, seed: int, step: int
) -> Batch:
    """A step's draw, and as many of the base's own pictures after it; these are numbered after the images of `data`.

    Prior preservation: Ruiz et al., arXiv:2208.12242, eq. 2.
    """
    own = sample_batch(data, settings, timesteps, seed, step)
    others = sample_batch(prior, settings, timesteps, seed_of(seed, "prior"), step)
    weight = torch.full_like(others.weight, settings.prior_weight)
    return joined([own, replace(others, index=others.index + len(data.files), weight=weight)])


def sample_batch(data: LatentDataset, settings: Train, timesteps: int, seed: int, step: int) -> Batch:
    """Step `step`'s images, captions, latents, noise and timesteps; on the CPU, so that every device draws the same."""
    images, views = data.mean.shape[:2]
    batch = settings.batch
    random = torch.Generator().manual_seed(seed_of(seed, step))
    index = torch.tensor([_nth_image(seed, images, step * batch + i) for i in range(batch)])
    view = torch.randint(views, (batch,), generator=random)
    caption = torch.randint(data.text.shape[1], (batch,), generator=random)
    dropped = torch.rand(batch, generator=random) < settings.caption_dropout
    shape = (batch, *data.mean.shape[2:])
    spread, noise = torch.randn(shape, generator=random), torch.randn(shape, generator=random)
    times = torch.randint(timesteps, (batch,), generator=random)
    if settings.noise_offset:  # one number for each channel: N. Guttenberg, "Diffusion with offset noise", 2023
        noise = noise + settings.noise_offset * torch.randn(*shape[:2], 1, 1, generator=random)
    weight = torch.ones(batch, device=data.mean.device)
    drawn = Batch(index, torch.where(dropped, -1, caption), spread, noise, times, torch.empty(batch, 0), weight)
    return _placed(data, drawn, view)


def _placed(data: LatentDataset, drawn: Batch, view: torch.Tensor) -> Batch:
    """The draw on the data's device, its spread turned into latents. Nothing here waits for the device."""
    device = data.mean.device
    index, view, caption, spread, noise, times = (
        _sent(tensor, device)
        for tensor in (drawn.index, view, drawn.caption, drawn.latents, drawn.noise, drawn.timesteps)
    )
    latents = data.mean[index, view] + data.std[index, view] * spread
    text = torch.where((caption < 0)[:, None, None], data.empty, data.text[index, caption.clamp(min=0)])
    return replace(drawn, latents=latents, noise=noise, timesteps=times, text=text)


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _nth_image(seed: int, images: int, n: int) -> int:
    """The n-th image of an endless order in which every image comes once per epoch, newly shuffled each time."""
    epoch, place = divmod(n, images)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed_of(seed, "epoch", epoch)))
    return int(order[place])


TIMES = 8
"""Timesteps at which the loss on a held-out image is measured."""


def validation_batch(data: LatentDataset, timesteps: int) -> Batch:
    """Every image at `TIMES` evenly spread timesteps with fixed noise and its first caption: B = N · TIMES samples."""
    images, device = len(data.mean), data.mean.device
    index = torch.arange(images).repeat_interleave(TIMES)
    times = ((torch.arange(TIMES) + 0.5) * timesteps / TIMES).long().repeat(images)
    noise = torch.randn((len(index), *data.mean.shape[2:]), generator=torch.Generator().manual_seed(0))
    caption = torch.zeros_like(index)
    weight = torch.ones(len(index), device=device)
    return Batch(index, caption, data.mean[index, 0], noise.to(device), times.to(device), data.text[index, 0], weight)
