"""Frames → pictures: the base with its adapters on. `generate` paints the series with it, `train` its samples.

Frames of different weights go through the denoiser in one batch, texts are encoded once, and the pictures are those
that diffusers' own pipeline makes of the same adapters and weights.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from avignon.adapters.layers import adapters_on
from avignon.adapters.mix import mixing, unmixed
from avignon.adapters.weights import at_step
from avignon.core import imaging
from avignon.core.errors import ModelError
from avignon.core.events import Reporter
from avignon.core.files import sha256_of
from avignon.core.records import Frame
from avignon.models import finite
from avignon.models.base import (
    ENCODER_TARGETS,
    Conditioning,
    DiffusionBase,
    Framing,
    LatentMoments,
    to_image,
    to_pixels,
)
from avignon.models.registry import FAMILIES
from avignon.models.runtime import OUT_OF_MEMORY, attention_for, is_out_of_memory, move_to, send
from avignon.recipe.schema import Generate, Train

PROBED = (0.2, 0.4, 0.6, 0.8)
"""Noise levels, as shares of all timesteps, at which an adapter's effect is measured."""


class SamplerSettings(Protocol):
    """What a sampler reads of a recipe, or of a command that has none."""

    @property
    def generate(self) -> Generate: ...  # noqa: D102 - as in recipe.schema.Recipe
    @property
    def train(self) -> Train: ...  # noqa: D102


Reading = tuple[tuple[str, float], ...]
"""Adapters that change how prompts are read, with their weights."""


class ImageSampler:
    """The loaded pipeline with its adapters on, ready to make pictures of frames."""

    def __init__(self, base: DiffusionBase, recipe: SamplerSettings, device: torch.device, reporter: Reporter) -> None:
        self._base, self._device, self._reporter = base, device, reporter
        self._batch = recipe.generate.batch
        masked = FAMILIES[base.family].masks_attention
        base.set_attention_backend(attention_for(recipe.train.attention, device, masked=masked))
        if (guidance := recipe.generate.guidance_scale) > 1 and not base.is_guided:
            reporter.warn(
                f"generate.guidance_scale: {guidance:g} has no effect, nor has a negative prompt: {base.model} is "
                "distilled and has its guidance within; set it to 1"
            )
        self._prompts: dict[tuple[str, Reading], Conditioning] = {}
        self._readers: set[str] = set()
        self._files = {sha256_of(Path(s.image)): Path(s.image) for s in recipe.generate.scenes if s.image}
        self._sources: dict[tuple[str, int, int], LatentMoments] = {}

    def read(self, frames: Sequence[Frame], *, last: bool = False) -> None:
        """Read the prompts of frames that will be painted; after the `last`, what reads them leaves the memory."""
        rows = [frame.weights for frame in frames]
        guided = [frame for frame in frames if frame.guidance_scale > 1]
        self._read([*self._keys(frames, rows), *self._keys(guided, [f.weights for f in guided], negative=True)])
        if last:
            self._base.release_readers()

    def groups(self, frames: Sequence[Frame]) -> list[list[int]]:
        """Places of the frames that `paint` would take into one batch."""
        return list(groups(frames, self._batch, unmixed(self._base.denoiser, self._base.targets)))

    def paint(self, frames: Sequence[Frame]) -> list[Image.Image]:
        """Pictures of any frames, in their order; each as if it were made alone, to rounding."""
        self.read(frames)
        images: dict[int, Image.Image] = {}
        for places in self.groups(frames):
            images.update(zip(places, self._painted([frames[place] for place in places]), strict=True))
        return [images[place] for place in range(len(frames))]

    def _painted(self, frames: Sequence[Frame]) -> list[Image.Image]:
        """One batch; halved where it does not fit into the memory."""
        try:
            return [self._decode(x[None], frame) for x, frame in zip(self.denoise(frames), frames, strict=True)]
        except OUT_OF_MEMORY as failed:
            if len(frames) == 1 or not is_out_of_memory(failed):
                raise
        self._batch = len(frames) // 2
        self._reporter.note(f"{len(frames)} pictures at once do not fit into memory; going on with {self._batch}")
        return [image for part in (frames[: self._batch], frames[self._batch :]) for image in self._painted(part)]

    @torch.no_grad()
    def denoise(self, frames: Sequence[Frame]) -> torch.Tensor:
        """Latents (B, C, h, w) in fp32 of frames that can share a batch: one key of `batch_key`.

        Classifier-free guidance (Ho & Salimans, arXiv:2207.12598, eq. 6): both halves go through the denoiser together.

        Raises:
            ModelError: one of them holds NaN or infinity; this is looked at once, after the last step.
        """
        first = frames[0]
        guided = first.guidance_scale > 1 and self._base.is_guided
        weights = [frame.weights for frame in frames]
        self.read(frames)
        self._put_denoiser()
        conditioning = self._conditioning(frames, weights)
        if guided:
            conditioning = Conditioning.cat([self._conditioning(frames, weights, negative=True), conditioning])
        scheduler = self._base.sampler(first.scheduler, first.num_inference_steps, first.width, first.height)
        x, timesteps = self._begin(frames, scheduler)
        on_device = send(timesteps, self._device)  # A scheduler reads its own, and would wait for the device to do so.
        with mixing(self._base.denoiser, self._base.targets, first.block_weights) as mixer:
            for number, t in enumerate(timesteps):
                step = min(number, first.effective_steps - 1)  # PNDM asks the denoiser once more than it has steps.
                rows = [at_step(frame.weights, frame.weight_schedule, step) for frame in frames]
                mixer.set(rows * 2 if guided else rows)
                noisy = scheduler.scale_model_input(torch.cat([x, x]) if guided else x, t)
                noise = self._base.predict(noisy, on_device[number], conditioning)
                if guided:
                    without, with_text = noise.chunk(2)
                    noise = without + first.guidance_scale * (with_text - without)
                x = scheduler.step(noise, t, x, return_dict=False)[0]
        if not finite.is_finite(x):
            raise self._spoiled(next(f for f, one in zip(frames, x, strict=True) if not finite.is_finite(one)))
        return x

    def _begin(self, frames: Sequence[Frame], scheduler: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What the first step starts on, (B, C, h, w), and the timesteps that are left.

        Pictures with a source begin from its latents, noised as far as the steps that are left can undo (SDEdit, Meng
        et al., arXiv:2108.01073, algorithm 1); numbers are drawn in diffusers' order, so that its pictures are ours.
        """
        noise, first = self._noise(frames), frames[0]
        if first.source is None:
            return noise * scheduler.init_noise_sigma, scheduler.timesteps
        skipped = (first.num_inference_steps - first.effective_steps) * scheduler.order
        timesteps = scheduler.timesteps[skipped:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        clean = torch.cat([self._source(frame) for frame in frames])
        return scheduler.add_noise(clean, noise, timesteps[:1]), timesteps

    def _source(self, frame: Frame) -> torch.Tensor:
        """Latents (1, C, h, w) of a frame's source, drawn from what the encoder says; each is encoded once."""
        assert frame.source is not None
        key = frame.source.sha256, frame.width, frame.height
        if key not in self._sources:
            image, shape = imaging.load(self._files[frame.source.sha256]), (frame.width, frame.height)
            image = imaging.fit(image, imaging.middle_box(image.size, shape), *shape)
            self._sources[key] = self._base.encode_images(to_pixels(image)[None].to(self._device))
        moments = self._sources[key]
        return moments.mean + moments.std * self._drawn(frame)[0].to(self._device)

    @torch.no_grad()
    def effects(self, frames: Sequence[Frame], names: Sequence[str]) -> dict[str, float]:
        """How much each adapter, alone at weight 1, changes what the denoiser predicts: RMS, in units of the noise.

        Measured on the base's own pictures of `frames` (one `batch_key`), noised to `PROBED` of the way.
        """
        frames = [replace(frame, source=None) for frame in frames]
        for row in ({}, *({name: 1.0} for name in names)):
            self._read(self._keys(frames, [row] * len(frames)))
        readings = {name: self._conditioning(frames, [{name: 1.0}] * len(frames)) for name in names}
        conditioning = self._conditioning(frames, [{}] * len(frames))
        clean, noise = self.denoise(frames), self._noise(frames)
        squares = dict.fromkeys(names, 0.0)
        with mixing(self._base.denoiser, self._base.targets, frames[0].block_weights) as mixer:
            for share in PROBED:
                level = int(share * self._base.num_train_timesteps)
                t = torch.full((len(frames),), level, device=self._device)
                noisy = self._base.add_noise(clean, noise, t)
                mixer.set([{}] * len(frames))
                predicted = self._base.predict(noisy, t, conditioning)
                for name in names:
                    mixer.set([{name: 1.0}] * len(frames))
                    squares[name] += float((self._base.predict(noisy, t, readings[name]) - predicted).square().mean())
                    if not math.isfinite(squares[name]):
                        raise self._spoiled(replace(frames[0], weights={name: 1.0}))
        return {name: (square / len(PROBED)) ** 0.5 for name, square in squares.items()}

    def _noise(self, frames: Sequence[Frame]) -> torch.Tensor:
        """What each picture begins from, by its seed alone, drawn on the CPU so that every device has the same."""
        return torch.cat([self._drawn(frame)[-1] for frame in frames]).to(self._device)

    def _drawn(self, frame: Frame) -> list[torch.Tensor]:
        """Standard normal numbers (1, C, h, w): for the source, where there is one, then for the noise."""
        shape = (1, *self._base.latent_shape(frame.width, frame.height))
        own = _normal(shape, frame.seed, 2 if frame.source else 1)
        if frame.to_seed < 0:
            return own
        other = _normal(shape, frame.to_seed, len(own))
        return [slerp(one, two, frame.seed_place) for one, two in zip(own, other, strict=True)]

    def _conditioning(
        self, frames: Sequence[Frame], rows: Sequence[Mapping[str, float]], *, negative: bool = False
    ) -> Conditioning:
        """What the denoiser is told of frames: their prompts, or negative prompts, with weights of adapters; sizes."""
        sizes = [Framing.whole(frame.width, frame.height) for frame in frames]
        read = [self._prompts[key] for key in self._keys(frames, rows, negative=negative)]
        return Conditioning.cat(read) | self._base.size_conditioning(sizes, self._device)

    def _keys(
        self, frames: Sequence[Frame], rows: Sequence[Mapping[str, float]], *, negative: bool = False
    ) -> list[tuple[str, Reading]]:
        """What is read for frames, by which it is known: a prompt, and the adapters that change how it is read."""
        if encoders := self._base.prompt_encoders.values():
            self._readers = {name for encoder in encoders for name in adapters_on(encoder)}
        prompts = [frame.negative_prompt if negative else frame.prompt for frame in frames]
        readings = [tuple(sorted((n, row[n]) for n in self._readers & row.keys() if row[n])) for row in rows]
        return list(zip(prompts, readings, strict=True))

    def _read(self, keys: Sequence[tuple[str, Reading]]) -> None:
        """Encode prompts with weights of adapters, each once for what changes how it is read.

        An adapter's part on a prompt encoder has the weight of the adapter, in the mean over the denoising steps. What
        reads is never on the device together with the denoiser, which may be as large.
        """
        missing = [key for key in dict.fromkeys(keys) if key not in self._prompts]
        if not missing:
            return
        move_to(self._base.denoiser, "cpu")
        with ExitStack() as stack:
            encoders = self._base.prompt_encoders.values() if self._readers else ()
            mixers = [stack.enter_context(mixing(encoder, ENCODER_TARGETS, {})) for encoder in encoders]
            for prompt, reading in missing:
                for mixer in mixers:
                    mixer.set([dict(reading)])
                self._prompts[prompt, reading] = self._base.encode_prompts([prompt], self._device, self._reporter)
        self._base.offload()

    def _put_denoiser(self) -> None:
        """Bring the denoiser to the device, where it is not there yet."""
        if next(self._base.denoiser.parameters()).device.type != self._device.type:
            move_to(self._base.denoiser, self._device)

    def _spoiled(self, frame: Frame) -> ModelError:
        """What to say of a picture that came to NaN or infinity: which one, and what to change."""
        name = "/".join(filter(None, (frame.scene, frame.stop))) or "a picture"
        weights = ", ".join(f"{name} {weight:g}" for name, weight in frame.weights.items()) or "no adapter"
        dtype = self._base.denoiser.dtype
        advice = "lower generate.guidance_scale, generate.strength or the adapters' weights"
        if dtype != torch.float32:
            advice = f"set {self._reporter.stage}.precision to fp32, or {advice}"
        picture = f"{name} ({frame.prompt!r}, seed {frame.seed}, {weights})"
        how = f"{frame.scheduler} in {str(dtype).removeprefix('torch.')}"
        return ModelError(f"{picture} comes to NaN or infinity with {how}: {advice}")

    def _decode(self, latent: torch.Tensor, frame: Frame) -> Image.Image:
        pixels = self._base.decode_latents(latent)[0]
        if not finite.is_finite(pixels):
            raise self._spoiled(frame)
        return to_image(pixels)


def _normal(shape: tuple[int, ...], seed: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def slerp(one: torch.Tensor, other: torch.Tensor, t: float) -> torch.Tensor:
    """Noise a share `t` of the way from one to the other, both of any one shape, along the arc between them.

    Of two independent noises the straight line's middle has 71 % of their length, which no denoiser has ever seen.
    Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985, eq. for Slerp; for the latents of
    generative models White, arXiv:1609.04468, section 2.1.
    """
    cosine = torch.nn.functional.cosine_similarity(one.double().flatten(), other.double().flatten(), dim=0).clamp(-1, 1)
    angle = torch.acos(cosine)
    if float(torch.sin(angle)) < 1e-6:  # One noise: there is no arc.
        return one
    return (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * other) / torch.sin(angle)


def batch_key(frame: Frame) -> tuple[object, ...]:
    """What frames of one batch must have in common."""
    blocks = tuple((name, tuple(factors.items())) for name, factors in frame.block_weights.items())
    return (
        frame.num_inference_steps,
        frame.source and frame.effective_steps,
        frame.guidance_scale > 1 and frame.guidance_scale,
        frame.scheduler,
        frame.width,
        frame.height,
        blocks,
    )


def groups(frames: Sequence[Frame], size: int, unmixed: Collection[str] = ()) -> Iterator[list[int]]:
    """Places of frames that go through the denoiser together, at most `size`.

    Frames of equal weights are the cheapest (see `adapters.Mixer`); only what does not fill half a batch with its like
    is joined with others, and nothing with an adapter of `unmixed`.
    """
    alike: dict[tuple[object, ...], dict[str, list[int]]] = {}
    for place, frame in enumerate(frames):
        weights = repr((sorted(frame.weights.items()), sorted(frame.weight_schedule.items())))
        alike.setdefault(batch_key(frame), {}).setdefault(weights, []).append(place)
    for by_weights in alike.values():
        rest: list[int] = []
        for places in by_weights.values():
            joins = len(places) % size < size / 2 and not frames[places[0]].weights.keys() & set(unmixed)
            whole = len(places) - len(places) % size if joins else len(places)
            yield from (places[i : i + size] for i in range(0, whole, size))
            rest += places[whole:]
        yield from (rest[i : i + size] for i in range(0, len(rest), size))
