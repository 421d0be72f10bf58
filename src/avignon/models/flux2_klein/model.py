"""FLUX.2 klein: pictures from text by a transformer of two streams that become one, by flow matching.

Made known at https://bfl.ai/blog/flux2-klein-towards-interactive-visual-intelligence, without a paper. What goes in and
out is that of diffusers' Flux2KleinPipeline, whose pictures are ours.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from transformers import Qwen3Model

from avignon.core.files import digest
from avignon.models.base import AdapterTargets, Conditioning, LatentMoments
from avignon.models.flow.files import PATCH
from avignon.models.flow.noise import LEVELS
from avignon.models.flow.transformer import FlowTransformer
from avignon.models.flux2_klein import files
from avignon.models.meta import META
from avignon.models.runtime import move_to
from avignon.models.settings import TrainingSettings


class _Reader(Qwen3Model):  # type: ignore[misc] # transformers' class is untyped
    """Qwen3 without its last layer, which says the next word: 9B's files hold one, 4B's do not."""

    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = ["lm_head.weight"]


_CLASSES = {"transformer": Flux2Transformer2DModel, "vae": AutoencoderKLFlux2, "text_encoder": _Reader}


def _per_sample(layer: str, module: Any) -> tuple[int, ...]:  # noqa: ARG001 - the name alone tells
    """A layer's output is (B, tokens, C); of times and of what they modulate (B, C)."""
    return (-1, 1) if re.match(r"time_guidance_embed|(double|single)_stream_modulation|norm_out", layer) else (-1, 1, 1)


def _targets(double: int, single: int) -> AdapterTargets:
    """The layers to adapt, of so many blocks of two streams and so many of one.

    As `attention` those of diffusers' `train_dreambooth_lora_flux2_klein.py`, and what attends to the text; a block of
    one stream has its attention and its feed-forward network in two layers, of which `to_out` is a list's name in those
    of two. As `projection` the feed-forward networks of those. Thirds of all blocks are early, middle and late.
    """

    def part_of(layer: str) -> str:
        found = re.match(r"(single_)?transformer_blocks\.(\d+)\.", layer)
        number = int(found[2]) + (double if found[1] else 0) if found else 0
        return ("early", "middle", "late")[number * 3 // (double + single)]

    return AdapterTargets(
        kinds={
            "attention": (
                *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
                "to_qkv_mlp_proj",
                *(f"single_transformer_blocks.{number}.attn.to_out" for number in range(single)),
            ),
            "projection": ("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
        },
        blocks=r"(single_)?transformer_blocks\.\d+",
        part_of=part_of,
        per_sample=_per_sample,
        prefix="transformer",
    )


class Flux2Klein(FlowTransformer):
    """A FLUX.2 klein, in evaluation mode, every parameter frozen."""

    family = "flux2-klein"
    pipeline_class = Flux2KleinPipeline
    classes = _CLASSES
    thinking = False
    is_distilled = False
    denoiser_part = "transformer"
    denoiser_files = files.WEIGHTS["transformer"]

    def __init__(self, *loaded: Any) -> None:
        super().__init__(*loaded)
        self.targets = _targets(len(self.denoiser.transformer_blocks), len(self.denoiser.single_transformer_blocks))

    @property
    def architecture(self) -> str:  # noqa: D102 - as in the protocol, here and below
        return files.architecture(self.denoiser.inner_dim)

    @property
    def is_guided(self) -> bool:  # noqa: D102
        return not self.is_distilled

    def check_training(self, settings: TrainingSettings) -> None:  # noqa: D102
        files.check_training(self.model, settings, self.folder)

    def _read(self, texts: Sequence[str], device: torch.device) -> Iterator[Conditioning]:
        """`text`, (1, tokens, 3·width): three of Qwen3's layers side by side, behind the text what it says of padding.

        The denoiser was trained with that: it reads all tokens, and is told of no mask.
        """
        states, _ = self._states(texts, device, padding="max_length")
        for one in torch.cat([states[layer] for layer in files.LAYERS], dim=2):
            yield Conditioning({"text": one[None]})

    def blank_conditioning(self, count: int) -> Conditioning:  # noqa: D102
        width = len(files.LAYERS) * self.text_encoder.config.hidden_size
        return Conditioning({"text": torch.empty(count, self.max_tokens, width, device=META)})

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:  # noqa: D102
        return self.denoiser.config.in_channels, height // self._token_edge, width // self._token_edge

    def _sampling_mu(self, width: int, height: int, steps: int) -> float:
        """By tokens and steps, as the makers measured it (`compute_empirical_mu` of their `sampling.py`)."""
        return float(compute_empirical_mu(self.tokens_of(width, height), steps))

    @property
    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of packed latents, (C, 1, 1) each: the VAE's batch norm."""
        norm = self.autoencoder.bn
        return norm.running_mean.view(-1, 1, 1), (
            norm.running_var + self.autoencoder.config.batch_norm_eps
        ).sqrt().view(-1, 1, 1)

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> LatentMoments:
        """Squares of four latent pixels are the channels of one, brought to mean 0 and deviation 1."""
        posterior = move_to(self.autoencoder, pixels.device, torch.float32).encode(pixels).latent_dist
        mean, std = self._statistics
        packed = pixel_unshuffle(posterior.mean, PATCH), pixel_unshuffle(posterior.std, PATCH)
        return LatentMoments((packed[0] - mean) / std, packed[1] / std)

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:  # noqa: D102
        vae = move_to(self.autoencoder, latents.device, torch.float32)
        mean, std = self._statistics
        unpacked = pixel_shuffle(latents.float() * std + mean, PATCH)
        pixels: torch.Tensor = vae.decode(unpacked, return_dict=False)[0]
        return pixels

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The velocity from picture to noise; σ = t/1000 goes in (diffusers' `pipeline_flux2_klein.py`)."""
        transformer, text = self.denoiser, conditioning.tensors["text"]
        _, _, h, w = noisy.shape
        said = transformer(
            hidden_states=noisy.to(transformer.dtype).flatten(2).transpose(1, 2),  # (B, h·w, C)
            encoder_hidden_states=text.to(transformer.dtype),
            timestep=(timesteps / LEVELS).expand(len(noisy)),
            img_ids=_places(1, h, w, 1, device=noisy.device),
            txt_ids=_places(1, 1, 1, text.shape[1], device=noisy.device),
            return_dict=False,
        )[0]
        velocity: torch.Tensor = said.transpose(1, 2).unflatten(2, (h, w)).float()
        return velocity

    @classmethod
    def load(cls, model: str, folder: Path, *how: Any) -> Self:
        """Check and load a base; see `loading.load`."""
        base = super().load(model, folder, *how)
        base.is_distilled = files.is_distilled(folder)
        base.parts = {**base.parts, "model_index.json": digest(base.is_distilled)}
        return base


def _places(*counts: int, device: torch.device) -> torch.Tensor:
    """Places of tokens on four axes, (tokens, 4): time, height, width, and the order in a text."""
    return torch.cartesian_prod(*(torch.arange(count, device=device) for count in counts))


fetch, load, outlined = Flux2Klein.fetch, Flux2Klein.load, Flux2Klein.outlined
