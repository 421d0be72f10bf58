"""The autoencoder: trained on crops, its latents standardised, then its decoder trained alone."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from diffusers import AutoencoderKL
from torch import Tensor

from tools.train_miniature import settings
from tools.train_miniature.data import pictures, to_tensor
from tools.train_miniature.settings import KINDS, SEED, SIZE
from tools.train_miniature.training import shipped, train

VAE_CHANNELS = (24, 48, 96, 128)
VAE_GROUPS = 8
VAE_STEPS = 2_600
VAE_BATCH = 16
VAE_CROP = 64
VAE_RATE = 6e-4
KL = 1e-6
DECODER_STEPS = 2_400
DECODER_RATE = 4e-4


def new_vae() -> Any:
    """AutoencoderKL with the four levels of Stable Diffusion's and an eighth of its channels."""
    torch.manual_seed(SEED)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=SIZE,
        layers_per_block=1,
        block_out_channels=VAE_CHANNELS,
        norm_num_groups=VAE_GROUPS,
        mid_block_add_attention=False,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).to(memory_format=torch.channels_last)


def picture_loss(made: Tensor, true: Tensor) -> Tensor:
    """Root mean square error of each picture, plus an L1 loss of its Laplacian pyramid, which favours fine edges."""
    error = made - true  # the pyramid is linear
    loss = 2 * error.square().mean((1, 2, 3)).sqrt().mean()
    for _ in range(2):
        small = F.avg_pool2d(error, 2)
        loss = loss + 0.3 * (error - F.interpolate(small, scale_factor=2.0, mode="nearest")).abs().mean()
        error = small
    return loss


def crops(step: int) -> Tensor:
    """A batch of random crops, half of them by the Avignon painter, whose edges are the hardest: (B, 3, h, w)."""
    rng = np.random.default_rng((SEED, step))
    chosen = []
    for k in range(VAE_BATCH):
        source = pictures((*KINDS, "avignon")[k % 4])
        index, (x, y) = rng.integers(len(source) - settings.CHECKS), rng.integers(0, (SIZE - VAE_CROP) // 4 + 1, 2) * 4
        crop = source[index, y : y + VAE_CROP, x : x + VAE_CROP]
        chosen.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return to_tensor(np.stack(chosen))


def vae_loss(vae: Any, step: int) -> Tensor:
    """Reconstruction plus a small pull of the posterior towards the unit normal."""
    true = crops(step).to(memory_format=torch.channels_last)
    torch.manual_seed(SEED + step)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(true).latent_dist
        made = vae.decode(posterior.sample()).sample
    loss: Tensor = picture_loss(made.float(), true) + KL * posterior.kl().mean()
    return loss


@torch.no_grad()
def psnr(vae: Any, count: int = settings.CHECKS) -> dict[str, float]:
    """Peak signal-to-noise ratio in dB of each kind's held-out pictures, decoded from the posterior's mean."""
    result = {}
    for kind in KINDS:
        errors = []
        for part in np.array_split(pictures(kind)[-count:], max(1, count // 16)):
            true = to_tensor(part)
            made = vae.decode(vae.encode(true).latent_dist.mode()).sample.clamp(-1, 1)
            errors += ((made - true) / 2).square().mean((1, 2, 3)).tolist()
        result[kind] = float(np.mean([-10 * math.log10(e) for e in errors]))
    return result


def train_vae(steps: int | None, *, warm: bool) -> None:
    """Train the autoencoder."""
    vae = new_vae()
    if warm:
        vae.load_state_dict(shipped("vae/diffusion_pytorch_model.safetensors"))
    train("vae", vae, lambda step: vae_loss(vae, step), steps or VAE_STEPS, VAE_RATE, lambda: psnr(vae, 32))


def trained_vae() -> Any:
    """The autoencoder with its averaged weights, or the shipped ones if none was trained here."""
    vae = new_vae()
    if (settings.CACHE / "vae.pt").exists():
        vae.load_state_dict(torch.load(settings.CACHE / "vae.pt", weights_only=True)["average"])
    elif (settings.BASE / "vae").exists():
        vae.load_state_dict(shipped("vae/diffusion_pytorch_model.safetensors"))
    return vae.eval()


def standardise(vae: Any, mean: Tensor, std: Tensor) -> None:
    """Shift and scale the latents by (4,) each, inside the 1 × 1 convolutions on either side of them.

    The diffusers format has one scaling factor for all channels; this way each channel has mean 0 and deviation 1.
    """
    into, out = vae.quant_conv, vae.post_quant_conv  # moments (mean, log variance), latents
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= std[:, None, None]
    into.bias[:4] = (into.bias[:4] - mean) / std
    into.bias[4:] -= 2 * std.log()
    into.weight[:4] /= std[:, None, None, None]


@torch.no_grad()
def encode_latents() -> None:
    """Encode the neutral pictures once: mean and deviation of the posterior, float16, (N, 8, SIZE/8, SIZE/8)."""
    vae, source, parts = trained_vae(), pictures("neutral"), []
    for start in range(0, settings.NEUTRAL, 64):
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(to_tensor(source[start : start + 64])).latent_dist
        parts.append(torch.cat([posterior.mean, posterior.std], 1).half().numpy())
    moments = np.concatenate(parts).astype(np.float32)
    mean, std = moments[:, :4].mean((0, 2, 3)), moments[:, :4].std((0, 2, 3))
    moments[:, :4] = (moments[:, :4] - mean[:, None, None]) / std[:, None, None]
    moments[:, 4:] /= std[:, None, None]
    np.save(settings.CACHE / "latents.npy", moments.astype(np.float16))
    standardise(vae, torch.from_numpy(mean), torch.from_numpy(std))
    vae.register_to_config(scaling_factor=1.0)
    vae.save_pretrained(settings.CACHE / "vae")
    print("latents: mean", mean, "and deviation", std, "before; deviation of the posterior", moments[:, 4:].mean())


def decoder_loss(vae: Any, step: int) -> Tensor:
    """Root mean square error of each picture, decoded from latents that stay as they are."""
    true = crops(step).to(memory_format=torch.channels_last)
    torch.manual_seed(SEED + step)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            latents = vae.encode(true).latent_dist.sample()
        made = vae.decode(latents).sample
    loss: Tensor = (made.float() - true).square().mean((1, 2, 3)).sqrt().mean()
    return loss


def train_decoder(steps: int | None) -> None:
    """Continue with the decoder alone: the latents, and so the UNet, stay as they are."""
    vae = AutoencoderKL.from_pretrained(settings.CACHE / "vae").to(memory_format=torch.channels_last)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    steps = steps or DECODER_STEPS
    train("decoder", vae, lambda step: decoder_loss(vae, step), steps, DECODER_RATE, lambda: psnr(vae, 32))
    vae.load_state_dict(torch.load(settings.CACHE / "decoder.pt", weights_only=True)["average"])
    vae.save_pretrained(settings.CACHE / "vae")
