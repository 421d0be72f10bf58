"""What a training step reads: images and captions encoded once, and each step's random choices.

Everything random in step n follows from the seed and n alone, so a resumed run draws what the first one would have, and
each of several processes draws the same batch and takes its own share.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
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

Shape = tuple[int, int]
"""Width and height of an image, in pixels."""

TimestepSampler = Callable[[int, torch.Generator, int, int], torch.Tensor]
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

    mean: Sequence[torch.Tensor]
    """Of what the views of each image may be in latents, N times (F, C, h, w), in the denoiser's scale."""
    std: Sequence[torch.Tensor]
    conditioning: Conditioning
    """N · M captions, those of one image after those of another, then the empty prompt."""
    files: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    shapes: tuple[Shape, ...]
    """Of each image."""
    sizes: Conditioning = field(default_factory=Conditioning)
    """What the base is told of where views were cut from, N · F: those of one image after those of another."""

    def conditioning_of(self, index: torch.Tensor, view: torch.Tensor, caption: torch.Tensor) -> Conditioning:
        """The conditioning of images, (B,), by the numbers of their views and captions; -1 is the empty prompt."""
        captions, views = len(self.captions[0]), len(self.mean[0])
        texts = self.conditioning[torch.where(caption < 0, len(self.files) * captions, index * captions + caption)]
        return texts | self.sizes[index * views + view]

    @cached_property
    def buckets(self) -> dict[Shape, list[int]]:
        """The images of each shape, by their numbers."""
        return {shape: [i for i, own in enumerate(self.shapes) if own == shape] for shape in dict.fromkeys(self.shapes)}

    def bucket_of_step(self, seed: int, step: int) -> tuple[Shape, int]:
        """The shape of all images of a step, and how many steps before had the same.

        In a round every bucket comes as often as its share of the images asks, in an order newly shuffled each time;
        the round is the shortest in which these are whole numbers. So after each round the images of a bucket have
        been seen equally often, but for one time, and as often as those of all others in the mean.
        """
        counts = {shape: len(own) for shape, own in self.buckets.items()}
        common = math.gcd(*counts.values())
        slots = [shape for shape, count in counts.items() for _ in range(count // common)]
        past, place = divmod(step, len(slots))
        order = torch.randperm(len(slots), generator=torch.Generator().manual_seed(seed_of(seed, "round", past)))
        *earlier, shape = (slots[slot] for slot in order[: place + 1].tolist())
        return shape, past * slots.count(shape) + earlier.count(shape)

    def latents(self, index: torch.Tensor, view: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w) of views of images of one shape, (B,) on the CPU; `spread` is standard normal."""
        pairs = list(zip(index.tolist(), view.tolist(), strict=True))
        mean, std = (torch.stack([each[i][v] for i, v in pairs]) for each in (self.mean, self.std))
        return mean + std * spread


def encode(
    base: DiffusionBase, examples: Sequence[Example], settings: Train, device: torch.device, reporter: Reporter
) -> LatentDataset:
    """Encode every image and every caption, in fp32, then take what did so off the device.

    Raises:
        ModelError: the base makes NaN or infinity of an image or a caption.
    """
    images = (to_pixels(imaging.load(path))[None].to(device) for path, _ in examples)
    moments = [base.encode_images(torch.cat([one, one.flip(-1)]) if settings.flip else one) for one in images]
    files = tuple(path.name for path, _ in examples)
    if bad := finite.first_bad([*zip(files, (one.mean + one.std for one in moments), strict=True)]):
        raise ModelError(f"the base's VAE makes NaN or infinity of the training image {bad}: choose another base")
    count = max(len(row["captions"]) for _, row in examples)
    captions = tuple(tuple(itertools.islice(itertools.cycle(row["captions"]), count)) for _, row in examples)
    conditioning = encode_texts(base, [caption for own in captions for caption in own], device, reporter)
    base.offload()
    sizes = base.size_conditioning(framings(base, examples, flip=settings.flip), device)
    mean, std = ([getattr(one, name) for one in moments] for name in ("mean", "std"))
    shapes = tuple(shape_of(base, row) for _, row in examples)
    return LatentDataset(mean, std, conditioning, files, captions, shapes, sizes)


def shape_of(base: DiffusionBase, row: Mapping[str, Any]) -> Shape:
    """The size of a prepared image: its bucket's, or the base's square."""
    width, height = row.get("bucket") or (base.resolution, base.resolution)
    return width, height


def framings(base: DiffusionBase, examples: Sequence[Example], *, flip: bool) -> list[Framing]:
    """Where every view of every example was cut from; a dataset that does not say (of 0.2.0) counts as whole."""
    return [
        Framing.cut(row["size"], row["box"], shape_of(base, row), mirrored=mirrored)
        if row.get("size")
        else Framing.whole(*shape_of(base, row))
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
    return _batch(data, settings, timesteps, seed, step, *data.bucket_of_step(seed, step))


def _batch(
    data: LatentDataset, settings: Train, timesteps: TimestepSampler, seed: int, step: int, bucket: Shape, past: int
) -> Batch:
    """A batch of one bucket, which had so many before; of fewer images than a batch some come several times."""
    size, device, images = settings.batch, data.mean[0].device, data.buckets[bucket]
    random = torch.Generator().manual_seed(seed_of(seed, step))
    index = torch.tensor([images[_nth_image(seed, len(images), past * size + i)] for i in range(size)])
    view = torch.randint(len(data.mean[0]), (size,), generator=random)
    caption = torch.randint(len(data.captions[0]), (size,), generator=random)
    dropped = torch.rand(size, generator=random) < settings.caption_dropout
    caption = torch.where(dropped, -1, caption)
    shape = (size, *data.mean[images[0]].shape[1:])
    spread, noise = torch.randn(shape, generator=random), torch.randn(shape, generator=random)
    times = timesteps(size, random, *bucket)
    if settings.noise_offset:  # one number for each channel: N. Guttenberg, "Diffusion with offset noise", 2023
        noise = noise + settings.noise_offset * torch.randn(*shape[:2], 1, 1, generator=random)
    at, v, said, spread, noise, times = (send(each, device) for each in (index, view, caption, spread, noise, times))
    return Batch(
        index=index,
        caption=caption,
        latents=data.latents(index, view, spread),
        noise=noise,
        timesteps=times,
        conditioning=data.conditioning_of(at, v, said),
        weight=torch.ones(size, device=device),
    )


def sample_batch_with_prior(
    data: LatentDataset, prior: LatentDataset, settings: Train, timesteps: TimestepSampler, seed: int, step: int
) -> Batch:
    """A step's batch, then as many of the base's own pictures of its shape, numbered after the images of `data`.

    Prior preservation: Ruiz et al., arXiv:2208.12242, eq. 2.
    """
    bucket, past = data.bucket_of_step(seed, step)
    own = _batch(data, settings, timesteps, seed, step, bucket, past)
    others = _batch(prior, settings, timesteps, seed_of(seed, "prior"), step, bucket, past)
    weight = torch.full_like(others.weight, settings.prior_weight)
    return Batch.cat([own, replace(others, index=others.index + len(data.files), weight=weight)])


def _nth_image(seed: int, images: int, n: int) -> int:
    """The n-th image of an endless order in which every image comes once per epoch, newly shuffled each time."""
    epoch, place = divmod(n, images)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed_of(seed, "epoch", epoch)))
    return int(order[place])


TIMES = 8
"""Timesteps at which the loss on an image for validation is measured."""


def validation_batches(data: LatentDataset, timesteps: int) -> list[Batch]:
    """Every image at `TIMES` evenly spread timesteps with fixed noise and its first caption, in a batch per bucket."""
    return [_validation_batch(data, timesteps, images) for images in data.buckets.values()]


def _validation_batch(data: LatentDataset, timesteps: int, images: Sequence[int]) -> Batch:
    """B = len(images) · TIMES samples of images of one shape."""
    device = data.mean[0].device
    index = torch.tensor(images).repeat_interleave(TIMES)
    times = ((torch.arange(TIMES) + 0.5) * timesteps / TIMES).long().repeat(len(images))
    clean = torch.stack([data.mean[image][0] for image in index.tolist()])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    first = torch.zeros_like(index)
    at, zero = index.to(device), first.to(device)
    return Batch(
        index=index,
        caption=first,
        latents=clean,
        noise=noise.to(device),
        timesteps=times.to(device),
        conditioning=data.conditioning_of(at, zero, zero),
        weight=torch.ones(len(index), device=device),
    )
