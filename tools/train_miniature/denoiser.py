"""The denoiser: a UNet that predicts the noise in the standardised latents of the neutral pictures."""

import random
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from avignon.demo import world
from tools.train_miniature import settings
from tools.train_miniature.data import scene_of, training_caption
from tools.train_miniature.settings import SEED, SIZE
from tools.train_miniature.text_encoder import TEXT_WIDTH, token_ids, tokenizer_of_run, trained_text_encoder
from tools.train_miniature.training import shipped, train

UNET_CHANNELS = (64, 128, 256)
UNET_HEADS = (2, 4, 8)
UNET_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
"""No attention at the finest level: it costs a third of the time there, and subjects are larger than that."""
UNET_STEPS = 3_600
UNET_BATCH = 32
UNET_RATE = 1e-3
SNR_CAP = 5.0
"""Gamma of min-SNR weighting (Hang et al. 2023)."""


def new_unet() -> Any:
    """UNet2DConditionModel as in Stable Diffusion 2: linear projections, cross-attention at all levels but one.

    Stable Diffusion leaves attention out at its coarsest level, this one at its finest.
    """
    torch.manual_seed(SEED + 2)
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=UNET_CHANNELS,
        down_block_types=UNET_BLOCKS,
        up_block_types=tuple(name.replace("Down", "Up") for name in reversed(UNET_BLOCKS)),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=UNET_HEADS,
        use_linear_projection=True,
    ).to(memory_format=torch.channels_last)
    unet.set_attn_processor(AttnProcessor())  # torch's fused attention is far slower backwards on CPUs
    return unet


def new_scheduler() -> Any:
    """The noise schedule of Stable Diffusion 2.1-base."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


class Denoising:
    """What one step of the denoiser's training needs: latents, words, noise schedule."""

    def __init__(self, unet: Any, text: Any, tokenizer: Any) -> None:
        self.unet, self.text, self.tokenizer = unet, text, tokenizer
        self.moments = np.load(settings.CACHE / "latents.npy", mmap_mode="r")
        self.kept: Tensor = new_scheduler().alphas_cumprod

    def loss(self, step: int) -> Tensor:
        """Min-SNR-weighted error of the predicted noise."""
        rng = np.random.default_rng((SEED, step))
        words = random.Random(f"{SEED}/{step}")
        chosen = np.sort(rng.choice(len(self.moments) - settings.CHECKS, size=UNET_BATCH))
        moments = torch.from_numpy(self.moments[chosen]).float()  # (B, 8, h, w)
        texts = [training_caption(scene_of("neutral", int(k)), words) for k in chosen]
        torch.manual_seed(SEED + step)
        clean = moments[:, :4] + moments[:, 4:] * torch.randn_like(moments[:, 4:])
        times = (torch.arange(UNET_BATCH) + torch.rand(UNET_BATCH)) * (1000 / UNET_BATCH)  # one from each stratum
        return self.error(clean, times.long(), texts).mean()

    def error(self, clean: Tensor, times: Tensor, texts: list[str]) -> Tensor:
        """Weighted squared error of each sample, (B,)."""
        kept = self.kept[times][:, None, None, None]
        noise = torch.randn_like(clean)
        noisy = (kept.sqrt() * clean + (1 - kept).sqrt() * noise).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                words = self.text(token_ids(self.tokenizer, texts)).last_hidden_state  # (B, 77, C)
            made = self.unet(noisy, times, words).sample
        snr = (kept / (1 - kept)).flatten()
        weight = snr.clamp(max=SNR_CAP) / snr
        error: Tensor = (made.float() - noise).square().mean((1, 2, 3)) * weight
        return error

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The same error on held-out pictures, at fixed timesteps and noise."""
        torch.manual_seed(SEED)
        moments = torch.from_numpy(np.array(self.moments[-settings.CHECKS :])).float()
        times = torch.arange(settings.CHECKS) * 1000 // settings.CHECKS
        first = len(self.moments) - settings.CHECKS
        texts = [world.caption(scene_of("neutral", first + k)) for k in range(settings.CHECKS)]
        return {"held": float(self.error(moments[:, :4], times, texts).mean())}


def train_unet(steps: int | None, *, warm: bool) -> None:
    """Train the denoiser."""
    tokenizer, unet = tokenizer_of_run(), new_unet()
    if warm:
        unet.load_state_dict(shipped("unet/diffusion_pytorch_model.safetensors"))
    work = Denoising(unet, trained_text_encoder(tokenizer), tokenizer)
    unet.compile(dynamic=False)
    train("unet", unet, work.loss, steps or UNET_STEPS, UNET_RATE, work.measure)
