"""Stable Diffusion 1.x and 2.x, as a UNet over latents."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel

from avignon.models.latent_unet.model import LatentUNet
from avignon.models.stable_diffusion import files


class StableDiffusion(LatentUNet):
    """A Stable Diffusion 1.x or 2.x: its UNet reads the last hidden state of one text encoder."""

    family = "sd"
    layout = files.LAYOUT
    pipeline_class = StableDiffusionPipeline
    text_classes: ClassVar[Mapping[str, Any]] = {"text_encoder": CLIPTextModel}
    pipeline_settings: ClassVar[Mapping[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "image_encoder": None,
    }

    @property
    def architecture(self) -> str:  # noqa: D102 - as in the protocol
        if not self.denoiser.config.use_linear_projection:  # Version 2 alone projects with linear layers.
            return "stable-diffusion-v1"
        return "stable-diffusion-v2-768-v" if self.prediction_type == "v" else "stable-diffusion-v2-512"

    def _read(self, texts: Sequence[str], device: torch.device) -> dict[str, torch.Tensor]:
        [(encoder, tokens, mask)] = self._encoders_on(device, texts)
        masked = getattr(encoder.config, "use_attention_mask", False)
        return {"text": encoder(tokens, attention_mask=mask if masked else None)[0]}


fetch, load, outlined = StableDiffusion.fetch, StableDiffusion.load, StableDiffusion.outlined
