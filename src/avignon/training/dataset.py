"""What a training step reads: images and captions encoded once, and each step's random choices.

Everything random in step n follows from the seed and n alone, so a resumed run draws what the first one would have, and
each of several processes draws the same batch and takes its own share.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from avignon.core import imaging
from avignon.core.errors import ModelError
from avignon.core.events import Reporter
from avignon.core.prompts import fit
from avignon.models import finite
from avignon.models.base import Conditioning, DiffusionBase, Framing, to_pixels
from avignon.models.runtime import send
from avignon.recipe.schema import Train

Example = tuple[Path, dict[str, Any]]
"""A prepared image and its row of metadata."""

TimestepSampler = Callable[[int, torch.Generator], torch.Tensor]
"""As `DiffusionBase.sample_timesteps`."""


def seed_of(seed: int, *names: str | int) -> int:
    """A seed for one purpose, independent of all others: 63 bits of a hash."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def fit_captions(
    base: DiffusionBase, examples: Sequence[Example], triggers: Mapping[str, str], reporter: Reporter
) -> list[Example]:
    """The examples with captions that the base reads whole: a trigger behind its last token is never learned.

    How many tokens a text has is the base's to say: a Cyrillic or Chinese letter has up to three. `triggers` has, by
    the folder of an artist's examples, the phrase that stays whole in every caption.
    """
    pairs = [(caption, triggers[path.parent.name]) for path, row in examples for caption in row["captions"]]
    cut = {pair: fit(*pair, base.reads_whole) for pair in pairs if not base.reads_whole(pair[0])}
    if cut:
        reporter.note(
            f"{len(cut)} captions are longer than the base's {base.max_tokens} tokens and were shortened in front of "
            f"the trigger or behind it, as {next(iter(cut.values()))!r}"
        )
    return [
        (path, {**row, "captions": [cut.get((c, triggers[path.parent.name]), c) for c in row["captions"]]})
        for path, row in examples
    ]


@dataclass(frozen=True)
class LatentDataset:
    """What training reads at every step, computed once. N images, F views (plain, mirrored), M captions each."""

    mean: torch.Tensor
    """Of what each view may be in latents, (N, F, C, h, w), in the denoiser's scale."""
    std: torch.Tensor
    conditioning: Conditioning
    """N · M captions, those of one image after those of another, then the empty prompt."""
    files: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    sizes: Conditioning = field(default_factory=Conditioning)
    """What the base is told of where views were cut from, N · F: those of one image after those of another."""

    def conditioning_of(self, index: torch.Tensor, view: torch.Tensor, caption: torch.Tensor) -> Conditioning:
        """The conditioning of images, (B,), by the numbers of their views and captions; -1 is the empty prompt."""
        captions, views = len(self.captions[0]), self.mean.shape[1]
        texts = self.conditioning[torch.where(caption < 0, len(self.files) * captions, index * captions + caption)]
        return texts | self.sizes[index * views + view]


def encode(
    base: DiffusionBase, examples: Sequence[Example], settings: Train, device: torch.device, reporter: Reporter
) -> LatentDataset:
    """Encode every image and every caption, in fp32, then take what did so off the device.

    Raises:
        ModelError: the base makes NaN or infinity of an image or a caption.
    """
    images = (to_pixels(imaging.load(path))[None].to(device) for path, _ in examples)
    moments = [base.encode_images(torch.cat([one, one.flip(-1)]) if settings.flip else one) for one in images]
    mean, std = (torch.stack([getattr(one, name) for one in moments]) for name in ("mean", "std"))
    if bad := finite.first_bad([*zip((path.name for path, _ in examples), mean + std, strict=True)]):
        raise ModelError(f"the base's VAE makes NaN or infinity of the training image {bad}: choose another base")
    count = max(len(row["captions"]) for _, row in examples)
    captions = tuple(tuple(itertools.islice(itertools.cycle(row["captions"]), count)) for _, row in examples)
    conditioning = encode_texts(base, [caption for own in captions for caption in own], device, reporter)
    base.offload()
    sizes = base.size_conditioning(framings(base, examples, flip=settings.flip), device)
    return LatentDataset(mean, std, conditioning, tuple(path.name for path, _ in examples), captions, sizes)


def framings(base: DiffusionBase, examples: Sequence[Example], *, flip: bool) -> list[Framing]:
    """Where every view of every example was cut from; a dataset that does not say (of 0.2.0) counts as whole."""
    side = base.resolution
    return [
        Framing.cut(row["size"], row["box"], (side, side), mirrored=mirrored)
        if row.get("size")
        else Framing.whole(side, side)
        for _, row in examples
        for mirrored in ((False, True) if flip else (False,))
    ]


def encode_texts(base: DiffusionBase, texts: Sequence[str], device: torch.device, reporter: Reporter) -> Conditioning:
    """Captions, and the empty prompt after them."""
    return Conditioning.cat([base.encode_prompts(part, device, reporter) for part in (texts, [""])])


@dataclass(frozen=True)
class Batch:
    """The random choices of one step, for B images."""

    index: torch.Tensor
    """Which image, (B,), on the CPU."""
    caption: torch.Tensor
    """Which of its captions, (B,), -1 where it was dropped; on the CPU."""
    latents: torch.Tensor
    """(B, C, h, w)"""
    noise: torch.Tensor
    timesteps: torch.Tensor
    conditioning: Conditioning
    weight: torch.Tensor
    """Of each sample's loss, (B,)"""

    def parts(self, size: int) -> Iterator["Batch"]:
        """The batch in micro-batches of `size`."""
        columns = (getattr(self, each.name).split(size) for each in fields(self))
        return itertools.starmap(Batch, zip(*columns, strict=True))

    @staticmethod
    def cat(batches: Sequence["Batch"]) -> "Batch":
        """Several batches as one, in their order."""
        columns = {each.name: [getattr(batch, each.name) for batch in batches] for each in fields(Batch)}
        conditioning = Conditioning.cat(columns.pop("conditioning"))
        return Batch(**{name: torch.cat(column) for name, column in columns.items()}, conditioning=conditioning)


def sample_batch(data: LatentDataset, settings: Train, timesteps: TimestepSampler, seed: int, step: int) -> Batch:
    """Step `step`'s images, captions, latents, noise and timesteps; on the CPU, so that every device draws the same."""
    images, views = data.mean.shape[:2]
    size, device = settings.batch, data.mean.device
    random = torch.Generator().manual_seed(seed_of(seed, step))
    index = torch.tensor([_nth_image(seed, images, step * size + i) for i in range(size)])
    view = torch.randint(views, (size,), generator=random)
    caption = torch.randint(len(data.captions[0]), (size,), generator=random)
    dropped = torch.rand(size, generator=random) < settings.caption_dropout
    caption = torch.where(dropped, -1, caption)
    shape = (size, *data.mean.shape[2:])
    spread, noise = torch.randn(shape, generator=random), torch.randn(shape, generator=random)
    times = timesteps(size, random)
    if settings.noise_offset:  # one number for each channel: N. Guttenberg, "Diffusion with offset noise", 2023
        noise = noise + settings.noise_offset * torch.randn(*shape[:2], 1, 1, generator=random)
    at, v, said, spread, noise, times = (send(each, device) for each in (index, view, caption, spread, noise, times))
    return Batch(
        index=index,
        caption=caption,
        latents=data.mean[at, v] + data.std[at, v] * spread,
        noise=noise,
        timesteps=times,
        conditioning=data.conditioning_of(at, v, said),
        weight=torch.ones(size, device=device),
    )


def sample_batch_with_prior(
    data: LatentDataset, prior: LatentDataset, settings: Train, timesteps: TimestepSampler, seed: int, step: int
) -> Batch:
    """A step's batch, and as many of the base's own pictures after it, numbered after the images of `data`.

    Prior preservation: Ruiz et al., arXiv:2208.12242, eq. 2.
    """
    own = sample_batch(data, settings, timesteps, seed, step)
    others = sample_batch(prior, settings, timesteps, seed_of(seed, "prior"), step)
    weight = torch.full_like(others.weight, settings.prior_weight)
    return Batch.cat([own, replace(others, index=others.index + len(data.files), weight=weight)])


def _nth_image(seed: int, images: int, n: int) -> int:
    """The n-th image of an endless order in which every image comes once per epoch, newly shuffled each time."""
    epoch, place = divmod(n, images)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed_of(seed, "epoch", epoch)))
    return int(order[place])


TIMES = 8
"""Timesteps at which the loss on an image for validation is measured."""


def validation_batch(data: LatentDataset, timesteps: int) -> Batch:
    """Every image at `TIMES` evenly spread timesteps with fixed noise and its first caption: B = N · TIMES samples."""
    images, device = len(data.mean), data.mean.device
    index = torch.arange(images).repeat_interleave(TIMES)
    times = ((torch.arange(TIMES) + 0.5) * timesteps / TIMES).long().repeat(images)
    noise = torch.randn((len(index), *data.mean.shape[2:]), generator=torch.Generator().manual_seed(0))
    first = torch.zeros_like(index)
    at, zero = index.to(device), first.to(device)
    return Batch(
        index=index,
        caption=first,
        latents=data.mean[index, 0],
        noise=noise.to(device),
        timesteps=times.to(device),
        conditioning=data.conditioning_of(at, zero, zero),
        weight=torch.ones(len(index), device=device),
    )
