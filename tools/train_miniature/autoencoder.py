"""The autoencoder: trained on crops, its latents standardised, then its decoder trained alone."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from diffusers import AutoencoderKL
from torch import Tensor

from tools.train_miniature import settings
from tools.train_miniature.data import pictures, scaled, to_tensor
from tools.train_miniature.settings import KINDS, SEED, Run
from tools.train_miniature.training import autocast, averaged, train, weights_of

VAE_CHANNELS = (24, 48, 96, 128)
VAE_GROUPS = 8
VAE_STEPS = 2_600
VAE_RATE = 6e-4
KL = 1e-6
DECODER_STEPS = 2_400
DECODER_RATE = 4e-4


def new_vae(run: Run) -> Any:
    """AutoencoderKL with the four levels of Stable Diffusion's and an eighth of its channels."""
    torch.manual_seed(SEED)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=run.size,
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


class Crops:
    """Batches of random crops, half of them by the Avignon painter, whose edges are the hardest.

    The pictures stay where they lie: on the disk, or on a card as many of them as a quarter of its free memory holds.
    """

    def __init__(self, run: Run) -> None:
        self._count, self._side, self._size = run.batches.vae, min(run.batches.crop, run.size), run.size
        self._sources = {}
        for kind in KINDS:
            count = len(pictures(run, kind))
            file, length = str(run.cache / f"{kind}_{run.size}.u8"), count * run.size**2 * 3
            # Mapped, and privately: numpy's read-only map makes torch warn.
            source = torch.from_file(file, shared=False, size=length, dtype=torch.uint8)
            source = source.view(count, run.size, run.size, 3)[: count - settings.CHECKS]
            if run.device.type == "cuda":
                room = torch.cuda.mem_get_info(run.device)[0] // 4 // len(KINDS) // (run.size**2 * 3)
                source = source[:room]
            self._sources[kind] = source.to(run.device)

    def batch(self, step: int) -> Tensor:
        """The batch of a step: (B, 3, h, w) in -1..1, channels last."""
        rng, side = np.random.default_rng((SEED, step)), self._side
        chosen = []
        for k in range(self._count):
            source = self._sources[(*KINDS, "avignon")[k % 4]]
            index, (x, y) = rng.integers(len(source)), rng.integers(0, (self._size - side) // 4 + 1, 2) * 4
            crop = source[index, y : y + side, x : x + side]
            chosen.append(crop.flip(1) if rng.random() < 0.5 else crop)
        return scaled(torch.stack(chosen)).to(memory_format=torch.channels_last)


def vae_loss(vae: Any, true: Tensor, step: int) -> Tensor:
    """Reconstruction plus a small pull of the posterior towards the unit normal."""
    torch.manual_seed(SEED + step)
    with autocast(true.device):
        posterior = vae.encode(true).latent_dist
        made = vae.decode(posterior.sample()).sample
    loss: Tensor = picture_loss(made.float(), true) + KL * posterior.kl().mean()
    return loss


@torch.no_grad()
def psnr(run: Run, vae: Any, count: int) -> dict[str, float]:
    """Peak signal-to-noise ratio in dB of each kind's held-out pictures, decoded from the posterior's mean."""
    result = {}
    for kind in KINDS:
        errors = []
        for part in np.array_split(pictures(run, kind)[-count:], max(1, count // 16)):
            true = to_tensor(part).to(run.device)
            made = vae.decode(vae.encode(true).latent_dist.mode()).sample.clamp(-1, 1)
            errors += ((made - true) / 2).square().mean((1, 2, 3)).tolist()
        result[kind] = float(np.mean([-10 * math.log10(e) for e in errors]))
    return result


def train_vae(run: Run, steps: int | None) -> None:
    """Train the autoencoder."""
    vae, crops = new_vae(run), Crops(run)
    if run.warm:
        vae.load_state_dict(weights_of(run.warm, "vae"))
    vae.to(run.device)

    def loss(step: int) -> Tensor:
        return vae_loss(vae, crops.batch(step), step)

    train(run, "vae", vae, loss, steps or VAE_STEPS, VAE_RATE, lambda: psnr(run, vae, run.measured))


def trained_vae(run: Run) -> Any:
    """The autoencoder with its averaged weights, or those of a model that is there if none was trained here."""
    vae = new_vae(run)
    vae.load_state_dict(averaged(run, "vae") if (run.cache / "vae.pt").exists() else weights_of(run.words, "vae"))
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
def encode_latents(run: Run) -> None:
    """Encode the neutral pictures once: mean and deviation of the posterior, float16, (N, 8, size/8, size/8)."""
    vae, source, parts = trained_vae(run).to(run.device), pictures(run, "neutral"), []
    for start in range(0, len(source), 64):
        with autocast(run.device):
            posterior = vae.encode(to_tensor(source[start : start + 64]).to(run.device)).latent_dist
        parts.append(torch.cat([posterior.mean, posterior.std], 1).half().cpu().numpy())
    moments = np.concatenate(parts).astype(np.float32)
    mean, std = moments[:, :4].mean((0, 2, 3)), moments[:, :4].std((0, 2, 3))
    moments[:, :4] = (moments[:, :4] - mean[:, None, None]) / std[:, None, None]
    moments[:, 4:] /= std[:, None, None]
    vae.cpu()
    standardise(vae, torch.from_numpy(mean), torch.from_numpy(std))
    vae.register_to_config(scaling_factor=1.0)
    vae.save_pretrained(run.cache / "vae")
    np.save(run.cache / "latents.part.npy", moments.astype(np.float16))
    (run.cache / "latents.part.npy").rename(run.cache / "latents.npy")  # last: it says that the autoencoder is done
    print("latents: mean", mean, "and deviation", std, "before; deviation of the posterior", moments[:, 4:].mean())


def decoder_loss(vae: Any, true: Tensor, step: int) -> Tensor:
    """Root mean square error of each picture, decoded from latents that stay as they are."""
    torch.manual_seed(SEED + step)
    with autocast(true.device):
        with torch.no_grad():
            latents = vae.encode(true).latent_dist.sample()
        made = vae.decode(latents).sample
    loss: Tensor = (made.float() - true).square().mean((1, 2, 3)).sqrt().mean()
    return loss


def train_decoder(run: Run, steps: int | None) -> None:
    """Continue with the decoder alone: the latents, and so the UNet, stay as they are."""
    vae, crops = AutoencoderKL.from_pretrained(run.cache / "vae").to(memory_format=torch.channels_last), Crops(run)
    vae.to(run.device)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)

    def loss(step: int) -> Tensor:
        return decoder_loss(vae, crops.batch(step), step)

    train(run, "decoder", vae, loss, steps or DECODER_STEPS, DECODER_RATE, lambda: psnr(run, vae, run.measured))
    vae.load_state_dict(averaged(run, "decoder"))
    vae.cpu().save_pretrained(run.cache / "vae")
