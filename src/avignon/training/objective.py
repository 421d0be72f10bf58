"""What a denoiser should predict, and how far off it is."""

from typing import Any

import torch
import torch.nn.functional as nn

from avignon.core.errors import AvignonError
from avignon.training.dataset import Batch


def denoising_losses(unet: Any, schedule: Any, drawn: Batch) -> torch.Tensor:
    """Mean squared error of each sample's prediction, (B,), in what the base was trained to predict."""
    noisy = schedule.add_noise(drawn.latents, drawn.noise, drawn.timesteps).to(unet.dtype)  # (B, C, H/8, W/8)
    predicted = unet(noisy, drawn.timesteps, drawn.text.to(unet.dtype)).sample
    return nn.mse_loss(predicted.float(), target(schedule, drawn).float(), reduction="none").mean((1, 2, 3))


def target(schedule: Any, drawn: Batch) -> torch.Tensor:
    """What the UNet should say, (B, C, H/8, W/8).

    epsilon: Ho et al., arXiv:2006.11239, eq. 14. v: Salimans & Ho, arXiv:2202.00512, section 4.

    Raises:
        AvignonError: the base's scheduler predicts something else.
    """
    kind = schedule.config.prediction_type
    if kind == "epsilon":
        return drawn.noise
    if kind == "v_prediction":
        velocity: torch.Tensor = schedule.get_velocity(drawn.latents, drawn.noise, drawn.timesteps)
        return velocity
    if kind == "sample":
        return drawn.latents
    raise AvignonError(f"the base's scheduler predicts {kind!r}; epsilon, v_prediction and sample are understood")


def min_snr_weights(schedule: Any, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Weight of each sample's loss, (B,): min(SNR, γ) on the error of the clean sample, put in terms of the target.

    Hang et al., arXiv:2303.09556, section 3.4: an error of x is one of ε times SNR⁻¹ and one of v times (SNR + 1)⁻¹.
    At a zero terminal SNR (Lin et al., arXiv:2305.08891) ε says nothing about x and its weight is 1, the limit.
    """
    kept: torch.Tensor = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
    snr: torch.Tensor = kept / (1 - kept)
    if schedule.config.prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1.0)
    return snr.clamp(max=gamma) / (snr + 1 if schedule.config.prediction_type == "v_prediction" else 1)
