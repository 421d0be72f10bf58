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
from tools.train_miniature.settings import SEED, Run
from tools.train_miniature.text_encoder import TEXT_WIDTH, token_ids, tokenizer_of_run, trained_text_encoder
from tools.train_miniature.training import autocast, train, weights_of

UNET_CHANNELS = (64, 128, 256)
UNET_HEADS = (2, 4, 8)
UNET_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
"""No attention at the finest level: it costs a third of the time there, and subjects are larger than that."""
UNET_STEPS = 3_600
UNET_RATE = 1e-3
COMPILE_SECONDS = 600
"""Seconds of training from which compiling pays: it takes a minute or two itself."""
SNR_CAP = 5.0
"""Gamma of min-SNR weighting (Hang et al. 2023)."""


def new_unet(run: Run) -> Any:
    """UNet2DConditionModel as in Stable Diffusion 2: linear projections, cross-attention at all levels but one.

    Stable Diffusion leaves attention out at its coarsest level, this one at its finest.
    """
    torch.manual_seed(SEED + 2)
    unet = UNet2DConditionModel(
        sample_size=run.size // 8,
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
    if run.device.type == "cpu":
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

    def __init__(self, run: Run, unet: Any, text: Any, tokenizer: Any) -> None:
        self.unet, self.text, self.tokenizer = unet, text, tokenizer
        self.device, self.batch = run.device, run.batches.unet
        self.moments = latents_of(run)
        self.tokens = None
        if run.clock and (run.cache / "tokens.npy").exists():
            self.tokens = torch.from_numpy(np.load(run.cache / "tokens.npy")).to(run.device)  # (N, captions, 77)
        self.kept: Tensor = new_scheduler().alphas_cumprod.to(run.device)

    def loss(self, step: int) -> Tensor:
        """Min-SNR-weighted error of the predicted noise."""
        rng = np.random.default_rng((SEED, step))
        words = random.Random(f"{SEED}/{step}")
        chosen = np.sort(rng.choice(len(self.moments) - settings.CHECKS, size=self.batch))
        rows = torch.from_numpy(chosen).to(self.device)
        moments = self.moments[rows].float()  # (B, 8, h, w)
        if self.tokens is None:
            ids = token_ids(self.tokenizer, [training_caption(scene_of("neutral", int(k)), words) for k in chosen])
        else:
            ids = self.tokens[rows, step % self.tokens.shape[1]].long()
        torch.manual_seed(SEED + step)
        clean = moments[:, :4] + moments[:, 4:] * torch.randn_like(moments[:, 4:])
        strata = torch.arange(self.batch, device=self.device) + torch.rand(self.batch, device=self.device)
        return self.error(clean, (strata * (1000 / self.batch)).long(), ids).mean()

    def error(self, clean: Tensor, times: Tensor, ids: Tensor) -> Tensor:
        """Weighted squared error of each sample, (B,); `ids` are those of its caption, (B, 77)."""
        kept = self.kept[times][:, None, None, None]
        noise = torch.randn_like(clean)
        noisy = (kept.sqrt() * clean + (1 - kept).sqrt() * noise).to(memory_format=torch.channels_last)
        with autocast(self.device):
            with torch.no_grad():
                words = self.text(ids.to(self.device)).last_hidden_state  # (B, 77, C)
            made = self.unet(noisy, times, words).sample
        snr = (kept / (1 - kept)).flatten()
        weight = snr.clamp(max=SNR_CAP) / snr
        error: Tensor = (made.float() - noise).square().mean((1, 2, 3)) * weight
        return error

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The same error on held-out pictures, at fixed timesteps and noise."""
        torch.manual_seed(SEED)
        moments = self.moments[-settings.CHECKS :].float()
        times = torch.arange(settings.CHECKS, device=self.device) * 1000 // settings.CHECKS
        first = len(self.moments) - settings.CHECKS
        texts = [world.caption(scene_of("neutral", first + k)) for k in range(settings.CHECKS)]
        return {"held": float(self.error(moments[:, :4], times, token_ids(self.tokenizer, texts)).mean())}


def latents_of(run: Run) -> Tensor:
    """The latents in the cache, on the device; they say for which size of pictures the cache was made."""
    moments = np.load(run.cache / "latents.npy", mmap_mode=None if run.device.type == "cuda" else "c")
    if moments.shape[-1] * 8 != run.size:
        found = moments.shape[-1] * 8
        raise SystemExit(
            f"{run.cache}: holds latents of {found} pixels, and --size is {run.size}; name another --cache"
        )
    return torch.from_numpy(moments).to(run.device)


def train_unet(run: Run, steps: int | None) -> None:
    """Train the denoiser."""
    tokenizer, unet = tokenizer_of_run(run), new_unet(run)
    if run.warm:
        unet.load_state_dict(weights_of(run.warm, "unet"))
    unet.to(run.device)
    work = Denoising(run, unet, trained_text_encoder(run, tokenizer).to(run.device), tokenizer)
    if not run.clock or run.clock.left() >= COMPILE_SECONDS:
        unet.compile(dynamic=False)
    train(run, "unet", unet, work.loss, steps or UNET_STEPS, UNET_RATE, work.measure)
