"""Stable Diffusion XL, as a UNet over latents.

Podell et al., arXiv:2307.01952: two text encoders (section 2.1), sizes and crops as conditioning (section 2.2). The
tensors are those of diffusers' StableDiffusionXLPipeline, whose pictures are ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from avignon.core.files import digest
from avignon.models.base import Conditioning, Framing
from avignon.models.latent_unet.model import LatentUNet
from avignon.models.meta import META
from avignon.models.sdxl import files


class StableDiffusionXL(LatentUNet):
    """A Stable Diffusion XL."""

    family = "sdxl"
    layout = files.LAYOUT
    pipeline_class = StableDiffusionXLPipeline
    text_classes: ClassVar[Mapping[str, Any]] = {
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
    }
    pipeline_settings: ClassVar[Mapping[str, Any]] = {
        "feature_extractor": None,
        "image_encoder": None,
        "add_watermarker": False,
    }

    architecture = "stable-diffusion-xl-v1-base"

    @classmethod
    def _further_parts(cls, pipeline: Any) -> dict[str, str]:
        return {"model_index.json": digest(bool(pipeline.config.force_zeros_for_empty_prompt))}

    def _read(self, texts: Sequence[str], device: torch.device) -> dict[str, torch.Tensor]:
        """`text` (B, tokens, width): both encoders' last hidden states but one; `pooled` (B, width), the second's.

        Where the base's model_index.json says force_zeros_for_empty_prompt, the empty text is zeros, as in diffusers'
        pipeline without a negative prompt, and as the texts that Stability AI's training dropped.
        """
        read = [encoder(tokens, output_hidden_states=True) for encoder, tokens, _ in self._encoders_on(device, texts)]
        text, pooled = torch.cat([each.hidden_states[-2] for each in read], dim=-1), read[-1].text_embeds
        if self.pipeline.config.force_zeros_for_empty_prompt:
            empty = torch.tensor([not text for text in texts], device=device)
            text, pooled = text.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
        return {"text": text, "pooled": pooled}

    def blank_conditioning(self, count: int) -> Conditioning:  # noqa: D102 - as in the protocol
        width = self.pipeline.text_encoder_2.config.projection_dim
        return super().blank_conditioning(count) | Conditioning({"pooled": torch.empty(count, width, device=META)})

    def size_conditioning(self, framings: Sequence[Framing], device: torch.device) -> Conditioning:
        """`time_ids`, (B, 6) in fp32: of the original, the crop and the target, heights before widths.

        The order is that of diffusers' `_get_add_time_ids`.
        """
        rows = [[*each.original[::-1], *each.corner[::-1], *each.target[::-1]] for each in framings]
        return Conditioning({"time_ids": torch.tensor(rows, dtype=torch.float32, device=device)})

    def _besides(self, told: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        # Sizes stay in fp32: bf16 has no 1365.
        added = {"text_embeds": told["pooled"].to(self.denoiser.dtype), "time_ids": told["time_ids"]}
        return {"added_cond_kwargs": added}


fetch, load, outlined = StableDiffusionXL.fetch, StableDiffusionXL.load, StableDiffusionXL.outlined
