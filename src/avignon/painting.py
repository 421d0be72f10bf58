"""Frames → pictures: the base with its adapters on. `generate` paints the series with it, `train` its samples."""

from typing import Any

import torch
from PIL import Image

from avignon import adapters, diffusion
from avignon.recipe import Recipe
from avignon.records import Frame, Voice


class Painter:
    """The loaded pipeline with its adapters on, ready to make pictures of frames."""

    def __init__(self, base: diffusion.Base, recipe: Recipe, device: torch.device, voice: Voice) -> None:
        self._base, self._device, self._voice = base, device, voice
        self._pipeline = base.pipeline.to(device)
        self._pipeline.scheduler = diffusion.scheduler(base, recipe.generate.scheduler)
        self._pipeline.set_progress_bar_config(disable=True)
        # Decoded in fp32: the VAE of some models overflows to black pictures in fp16.
        self._pipeline.vae.to(torch.float32)
        diffusion.use_attention(self._pipeline.unet, diffusion.attention_for(recipe.train.attention, device))
        self._texts: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def paint(self, frames: list[Frame]) -> list[Image.Image]:
        """Pictures of frames that share weights, steps and guidance; each as if it were made alone."""
        first = frames[0]
        adapters.set_weights(self._pipeline.unet, first.weights)
        latents = self._pipeline(
            prompt_embeds=self._text([frame.prompt for frame in frames]),
            negative_prompt_embeds=self._text([frame.negative_prompt for frame in frames]),
            generator=[torch.Generator().manual_seed(frame.seed) for frame in frames],
            num_inference_steps=first.steps,
            guidance_scale=first.guidance,
            width=first.width,
            height=first.height,
            output_type="latent",
        ).images  # (B, 4, H/8, W/8)
        return [self._decode(latent[None]) for latent in latents]

    def _text(self, prompts: list[str]) -> torch.Tensor:
        """Embeddings (B, tokens, width); each prompt is encoded once per run."""
        for prompt in prompts:
            if prompt not in self._texts:
                self._texts[prompt] = diffusion.text_embeddings(self._base, [prompt], self._device, self._voice)
        return torch.cat([self._texts[prompt] for prompt in prompts])

    def _decode(self, latent: torch.Tensor) -> Image.Image:
        vae: Any = self._pipeline.vae
        pixels = vae.decode(latent.float() / vae.config.scaling_factor, return_dict=False)[0]  # (1, 3, H, W) in -1…1
        image: Image.Image = self._pipeline.image_processor.postprocess(pixels)[0]
        return image
