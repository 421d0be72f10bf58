"""Z-Image: pictures from text by a transformer of one stream (Z-Image team, arXiv:2511.22699), by flow matching.

What goes in and out is that of diffusers' ZImagePipeline, whose pictures are ours.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, ZImagePipeline, ZImageTransformer2DModel
from transformers import Qwen3Model

from avignon.models.base import AdapterTargets, Conditioning, LatentMoments
from avignon.models.flow.noise import LEVELS
from avignon.models.flow.transformer import FlowTransformer
from avignon.models.meta import META, TOKENS
from avignon.models.runtime import move_to
from avignon.models.settings import TrainingSettings
from avignon.models.z_image import files

_CLASSES = {"transformer": ZImageTransformer2DModel, "vae": AutoencoderKL, "text_encoder": Qwen3Model}


def _per_sample(layer: str, module: Any) -> tuple[int, ...]:  # noqa: ARG001 - the name alone tells
    """A layer's output is (B, tokens, C); of times (B, C); of embedders it has the tokens of all samples in one row."""
    if re.search(r"adaLN_modulation|t_embedder", layer):
        return (-1, 1)
    return () if re.search(r"x_embedder|cap_embedder", layer) else (-1, 1, 1)


def _targets(layers: int) -> AdapterTargets:
    """The layers to adapt: attention, as in diffusers' script, and the feed-forward networks.

    The latter is OneTrainer's preset `attn-mlp` (https://github.com/Nerogar/OneTrainer/pull/1195).

    Thirds of the blocks are early, middle and late; the two refiners of each input come before all of them.
    """

    def part_of(layer: str) -> str:
        found = re.match(r"layers\.(\d+)\.", layer)
        return ("early", "middle", "late")[int(found[1]) * 3 // layers if found else 0]

    return AdapterTargets(
        kinds={
            "attention": ("to_q", "to_k", "to_v", "to_out.0"),
            "projection": ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
        },
        blocks=r"(layers|noise_refiner|context_refiner)\.\d+",
        part_of=part_of,
        per_sample=_per_sample,
        prefix="transformer",
    )


class ZImage(FlowTransformer):
    """A Z-Image, in evaluation mode, every parameter frozen."""

    family = "z-image"
    pipeline_class = ZImagePipeline
    thinking = True
    denoiser_part = "transformer"
    denoiser_files = files.WEIGHTS["transformer"]
    architecture = "Z-Image"  # As kohya's musubi-tuner writes it: ModelSpec names no Z-Image.
    classes = _CLASSES

    def __init__(self, *loaded: Any) -> None:
        super().__init__(*loaded)
        self.targets = _targets(len(self.denoiser.layers))

    def check_training(self, settings: TrainingSettings) -> None:  # noqa: D102 - as in the protocol, here and below
        files.check_training(self.model, settings, self.folder)

    def _read(self, texts: Sequence[str], device: torch.device) -> Iterator[Conditioning]:
        """`text`, (1, tokens, width): Qwen3's last hidden states but one, without padding; `length`, (1,), theirs."""
        states, mask = self._states(texts, device, padding=True)
        for one, own in zip(states[-2], mask, strict=True):
            yield Conditioning({"text": one[own][None], "length": own.sum()[None]})

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:  # noqa: D102
        return self.denoiser.config.in_channels, height // self.vae_scale_factor, width // self.vae_scale_factor

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> LatentMoments:  # noqa: D102
        vae = move_to(self.autoencoder, pixels.device, torch.float32)
        posterior, scale = vae.encode(pixels).latent_dist, vae.config.scaling_factor
        return LatentMoments((posterior.mean - vae.config.shift_factor) * scale, posterior.std * scale)

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:  # noqa: D102
        vae = move_to(self.autoencoder, latents.device, torch.float32)
        unscaled = latents.float() / vae.config.scaling_factor + vae.config.shift_factor
        pixels: torch.Tensor = vae.decode(unscaled, return_dict=False)[0]
        return pixels

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The velocity from picture to noise.

        The transformer's time runs from noise, 0, to the picture, 1, and so does its velocity: (1000 − t)/1000 goes in,
        and what comes out is negated (diffusers' `pipeline_z_image.py`; `train_dreambooth_lora_z_image.py`).
        """
        told, dtype = conditioning.tensors, self.denoiser.dtype
        pairs = zip(told["text"].to(dtype), told["length"].tolist(), strict=True)
        times = ((LEVELS - timesteps) / LEVELS).expand(len(noisy))
        pictures = list(noisy.to(dtype).unsqueeze(2))  # Each (C, 1, h, w).
        said = self.denoiser(pictures, times, [text[:length] for text, length in pairs], return_dict=False)[0]
        return -torch.stack(said).squeeze(2).float()

    def blank_conditioning(self, count: int) -> Conditioning:  # noqa: D102
        text = torch.empty(count, TOKENS, self.text_encoder.config.hidden_size, device=META)
        return Conditioning({"text": text, "length": torch.full((count,), TOKENS)})


fetch, load, outlined = ZImage.fetch, ZImage.load, ZImage.outlined
