"""How much memory a training or a series takes, told before it is spent: by a base's outline, on the meta device.

The step that is counted is the training's own: its adapters, the loss, the backward pass. What is held beside it is
added up by rule: weights, an adapter's vectors, the optimizer's state, what was encoded. Phases never share a device,
so the most that is needed is that of one of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from avignon.adapters import inject
from avignon.models import frozen
from avignon.models.base import DiffusionBase, Framing
from avignon.models.memory import counted, weight_bytes
from avignon.models.meta import META
from avignon.models.runtime import DTYPES, Attention, Precision, move_to
from avignon.recipe.schema import Generate, Train
from avignon.training.dataset import Batch
from avignon.training.objective import denoising_losses
from avignon.training.optimizer import FlatParameters

PROGRAM = int(0.6 * 2**30)
"""Bytes of the program itself: Python, torch and its libraries."""

USED = 0.9
"""The share of a memory that is given away: the rest is the driver's, other programs', and the estimate's error."""

OPTIMIZER_BYTES = {"adamw": 8, "adamw-8bit": 2, "prodigy": 16}
"""Of an optimizer's state, for each number that is trained: two moments in fp32 or in 8 bits; prodigy has four
vectors."""

CAPTIONS = 4
"""Captions of an image, as recipes have by default."""


@dataclass(frozen=True)
class Place:
    """Where it is computed, and how."""

    device: str
    """`cuda`, `mps` or `cpu`."""
    precision: Precision
    attention: Attention = "sdpa"

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser computes in."""
        return DTYPES[self.precision]


@dataclass(frozen=True)
class Footprint:
    """The most bytes at once of each phase, by its name."""

    device: Mapping[str, int]
    """Of the device that computes. On a CPU the program is among them, and every part of the base."""

    @property
    def peak(self) -> int:
        """The most that the device holds."""
        return max(self.device.values())


class TrainingFootprint:
    """A training on an outline, which is used up: it is quantised, and an adapter is put on it.

    `stored` is the precision of the denoiser's files, where it is not its makers'; `readers` are what reads prompts.
    """

    def __init__(
        self,
        base: DiffusionBase,
        settings: Train,
        place: Place,
        *,
        adapters: int = 2,
        images: int = 20,
        quantize: str = "",
        stored: torch.dtype | None = None,
        readers: Sequence[Any] | None = None,
    ) -> None:
        read_by = base.readers if readers is None else readers
        self._base, self._settings, self._place = base, settings, place
        self._decoder = weight_bytes(base.autoencoder, torch.float32)
        kept = stored or base.stored_in
        self._as_stored = sum(weight_bytes(each, kept) for each in (base.denoiser, base.autoencoder, *read_by))
        if quantize:  # Layer by layer, of what was read.
            with META:
                base.quantize(quantize, torch.float32)
            kept = torch.float32
        self._loaded = (
            weight_bytes(base.denoiser, kept) + self._decoder + _bytes_of_readers(base, read_by, torch.float32)
        )
        self._encoding = max(_encode(base, 2 if settings.flip else 1), _read(base, read_by, base.texts_at_once))
        self._readers = _bytes_of_readers(base, read_by, torch.float32)
        self._weights = _put(base, place, offload=settings.offload)
        own = torch.float32 if settings.dora else place.dtype
        with META:
            factors = inject.add(
                base.denoiser, base.targets, "one", settings.ranks, settings.alpha, 0, dora=settings.dora
            )
        self._vectors = FlatParameters(factors, own)  # Gradients have their place from now on.
        self._held = adapters * self._vectors.master.numel() * self._bytes_of_a_number(own)
        self._held += images * self._bytes_of_an_image()
        base.denoiser.train()

    def _bytes_of_a_number(self, own: torch.dtype) -> int:
        """That is trained: itself and its gradient in fp32 and in the denoiser's precision, what is kept of it."""
        settings, copies = self._settings, 0 if own == torch.float32 else 2 * own.itemsize
        others = 4 * (bool(settings.ema) + (settings.keep == "best"))
        return 8 + copies + others + OPTIMIZER_BYTES[settings.optimizer]

    def _bytes_of_an_image(self) -> int:
        """That was encoded with its captions, in fp32."""
        texts = sum(tensor.numel() for tensor in self._base.blank_conditioning(CAPTIONS).tensors.values())
        side = self._base.resolution
        return 4 * (2 * torch.Size(self._base.latent_shape(side, side)).numel() + texts)

    @property
    def loading(self) -> int:
        """What it takes of RAM to load the base, the program among it."""
        return PROGRAM + max(self._as_stored, self._loaded)

    def of(self, images: int, *, checkpointing: bool) -> Footprint:
        """What it takes to train with so many images, of all adapters, in a pass; then a picture shows what it is."""
        there = self._weights + self._held
        fixed, each = self._checkpointed if checkpointing else self._kept
        work = there + fixed + images * each
        preview = there + self._decoder + self._preview
        if self._place.device == "cpu":
            phases = {"encode": self._loaded + self._encoding, "train": self._decoder + work, "preview": preview}
            return _on_cpu({"load": max(self._as_stored, self._loaded), **phases})
        phases = {"encode": self._decoder + self._readers + self._encoding, "train": work, "preview": preview}
        return Footprint(phases)

    @cached_property
    def _kept(self) -> tuple[int, int]:
        return self._pass()

    @cached_property
    def _checkpointed(self) -> tuple[int, int]:
        self._base.denoiser.enable_gradient_checkpointing()
        try:
            return self._pass()
        finally:
            self._base.denoiser.disable_gradient_checkpointing()

    def _pass(self) -> tuple[int, int]:
        """The peak of a pass, forward and backward: what it has whatever is in it, and what each image adds.

        The former is a DoRA's alone, which makes every layer's changed weights.
        """
        one = _step(self._base, 1)
        each = _step(self._base, 2) - one if self._settings.dora else one
        return one - each, each

    @cached_property
    def _preview(self) -> int:
        size = (self._base.resolution, self._base.resolution)
        return max(2 * _denoise(self._base, size), _decode(self._base, size))


def of_painting(
    base: DiffusionBase,
    settings: Generate,
    place: Place,
    size: tuple[int, int],
    *,
    quantize: str = "",
    readers: Sequence[Any] | None = None,
) -> Footprint:
    """What a series takes at so many pixels, width and height; the outline is used up.

    Prompts are read first, and what reads them leaves the memory.
    """
    read_by = base.readers if readers is None else readers
    if quantize:
        with META:
            base.quantize(quantize, place.dtype)
    reading = _bytes_of_readers(base, read_by, place.dtype)
    weights = _put(base, place, offload=False)
    weights += weight_bytes(base.autoencoder, torch.float32)
    for reader in read_by:
        if reader not in base.language_models:
            move_to(reader, place.dtype)
    count = settings.batch * (2 if settings.guidance_scale > 1 and base.is_guided else 1)
    read, work = _read(base, read_by, 1), {"denoise": count * _denoise(base, size), "decode": _decode(base, size)}
    phases = {name: weights + own for name, own in work.items()}
    if place.device == "cpu":
        return _on_cpu({"read": weights + reading + read, **phases})
    return Footprint({"read": reading + read, **phases})


def _bytes_of_readers(base: DiffusionBase, readers: Sequence[Any], dtype: torch.dtype) -> int:
    """Language models are as in their files, which have half precision; others are in the denoiser's."""
    for reader in base.language_models:
        move_to(reader, torch.bfloat16)
    large = base.language_models
    return sum(weight_bytes(reader, torch.bfloat16 if reader in large else dtype) for reader in readers)


def _put(base: DiffusionBase, place: Place, *, offload: bool) -> int:
    """Make the denoiser ready to compute; gives the bytes of its weights on the device."""
    denoiser = base.denoiser
    move_to(denoiser, place.dtype, memory_format=torch.channels_last)
    # xFormers' kernels keep what PyTorch's own do.
    base.set_attention_backend("plain" if place.attention == "plain" else "sdpa")
    weights = weight_bytes(denoiser, place.dtype)
    if not offload:
        return weights
    frozen.freeze(denoiser)
    in_ram = [layer.stored_bytes for layer in denoiser.modules() if isinstance(layer, frozen.Frozen)]
    largest = max(layer.shape.numel() for layer in denoiser.modules() if isinstance(layer, frozen.Frozen))
    return weights - sum(in_ram) + 2 * largest * place.dtype.itemsize  # One is computed with, one comes.


def _on_cpu(phases: Mapping[str, int]) -> Footprint:
    return Footprint({name: PROGRAM + own for name, own in phases.items()})


def blank_batch(base: DiffusionBase, count: int) -> Batch:
    """A batch of so many images on the meta device."""
    side, none = base.resolution, torch.zeros(count, dtype=torch.long)
    latents = torch.empty(count, *base.latent_shape(side, side), device=META)
    told = base.blank_conditioning(count) | base.size_conditioning([Framing.whole(side, side)] * count, META)
    times = base.sample_timesteps(count, torch.Generator(), side, side).to(META)
    return Batch(none, none, latents, torch.empty_like(latents), times, told, torch.ones(count, device=META))


def _step(base: DiffusionBase, count: int) -> int:
    """The peak of a pass over so many images and back."""
    with counted() as live:
        torch.autograd.backward(denoising_losses(base, blank_batch(base, count)).sum())
    return live.peak


@torch.no_grad()
def _denoise(base: DiffusionBase, size: tuple[int, int]) -> int:
    """The peak of a pass over one picture; every picture adds as much."""
    with counted() as live:
        latents = torch.empty(1, *base.latent_shape(*size), device=META)
        told = base.blank_conditioning(1) | base.size_conditioning([Framing.whole(*size)], META)
        base.predict(latents, torch.ones((), device=META), told)
    return live.peak


@torch.no_grad()
def _decode(base: DiffusionBase, size: tuple[int, int]) -> int:
    latents = torch.empty(1, *base.latent_shape(*size), device=META)
    with counted() as live:
        base.decode_latents(latents)
    return live.peak


@torch.no_grad()
def _encode(base: DiffusionBase, count: int) -> int:
    with counted() as live:
        base.encode_images(torch.empty(count, 3, base.resolution, base.resolution, device=META))
    return live.peak


@torch.no_grad()
def _read(base: DiffusionBase, readers: Sequence[Any], count: int) -> int:
    """The peak of reading texts."""
    tokens = next(iter(base.blank_conditioning(1).tensors.values())).shape[1]
    with counted() as live:
        for reader in readers:
            reader(torch.zeros(count, tokens, dtype=torch.long, device=META), output_hidden_states=True)
    return live.peak
