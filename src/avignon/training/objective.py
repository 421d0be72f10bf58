"""How far a denoiser's prediction is off."""

import torch
import torch.nn.functional as nn

from avignon.models.base import DiffusionBase
from avignon.training.dataset import Batch


def denoising_losses(base: DiffusionBase, batch: Batch) -> torch.Tensor:
    """Mean squared error of each sample's prediction, (B,), in what the base was trained to predict."""
    noisy = base.add_noise(batch.latents, batch.noise, batch.timesteps)  # (B, C, h, w)
    predicted = base.predict(noisy, batch.timesteps, batch.conditioning)
    target = base.training_target(batch.latents, batch.noise, batch.timesteps)
    return nn.mse_loss(predicted, target.float(), reduction="none").mean((1, 2, 3))
