"""Flow matching: on the straight line from a picture to noise, the denoiser says the direction.

Lipman et al., arXiv:2210.02747; Esser et al., arXiv:2403.03206, whose names these are: z = (1 − σ)·x + σ·ε, and the
velocity is ε − x. A timestep is t = 1000·σ, and need not be whole.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from avignon.models.base import DiffusionBase
from avignon.models.flow.noise import LEVELS, check_training
from avignon.models.settings import TrainingSettings


class FlowEuler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc] # diffusers' class is untyped
    """Euler's method along the line, with the interface that `DiffusionBase.sampler` asks for."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """The latents themselves."""
        return sample

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Latents at the noise level of a timestep of this sampler's own."""
        noisy: torch.Tensor = self.scale_noise(clean, timesteps, noise)
        return noisy


class FlowMatching(DiffusionBase):
    """A base trained by flow matching; `noise` is what `flow.noise.noise_schedule` tells."""

    noise: Mapping[str, Any]

    @abstractmethod
    def tokens_of(self, width: int, height: int) -> int:
        """How many tokens the denoiser makes of a picture of so many pixels."""

    @property
    def prediction_type(self) -> str:  # noqa: D102 - as in the protocol, here and below
        return "flow"

    @property
    def num_train_timesteps(self) -> int:  # noqa: D102
        return LEVELS

    def check_training(self, settings: TrainingSettings) -> None:  # noqa: D102
        check_training(self.model, settings)

    def sample_timesteps(self, count: int, generator: torch.Generator, width: int, height: int) -> torch.Tensor:
        """Logit-normal (Esser et al., arXiv:2403.03206, section 3.1, mean 0, deviation 1), shifted as the base is.

        As diffusers' `train_dreambooth_lora_z_image.py --weighting_scheme=logit_normal`, without its rounding to a
        thousand levels; where the shift follows the size, as musubi-tuner's `flux2_shift`, which counts tokens as here.
        """
        drawn = torch.sigmoid(torch.randn(count, generator=generator))
        return LEVELS * self._shifted(drawn, width, height)

    def _shifted(self, sigma: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """Noise levels moved towards noise, by Esser et al., eq. 23; how far, the base's file or the picture's size."""
        shift = math.exp(self._mu(width, height)) if self.noise["use_dynamic_shifting"] else self.noise["shift"]
        return shift * sigma / (1 + (shift - 1) * sigma)

    def _mu(self, width: int, height: int) -> float:
        """The logarithm of the shift for a size: linear in the number of tokens (diffusers' `calculate_shift`)."""
        low, high = self.noise["base_image_seq_len"], self.noise["max_image_seq_len"]
        least, most = self.noise["base_shift"], self.noise["max_shift"]
        return float(least + (most - least) * (self.tokens_of(width, height) - low) / (high - low))

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:  # noqa: D102
        sigma = (timesteps / LEVELS).view(-1, 1, 1, 1)
        return (1 - sigma) * latents + sigma * noise

    def training_target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """The velocity, from the picture to the noise."""
        return noise - latents

    def loss_weights(self, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:  # noqa: ARG002
        """All 1: the density of timesteps weighs them (diffusers' `compute_loss_weighting_for_sd3`)."""
        return torch.ones_like(timesteps)

    def sampler(self, name: str, steps: int, width: int, height: int) -> Any:  # noqa: ARG002 - there is one
        """At evenly spaced noise levels from 1 to 1/steps, shifted, as diffusers' pipelines of flow matching ask."""
        sampler = FlowEuler(**self.noise)
        levels = np.linspace(1.0, 1 / steps, steps)
        sampler.set_timesteps(sigmas=levels.tolist(), mu=self._sampling_mu(width, height, steps))
        return sampler

    def _sampling_mu(self, width: int, height: int, steps: int) -> float:  # noqa: ARG002 - most ask for the size alone
        """The logarithm of the shift for pictures of a size in so many steps."""
        return self._mu(width, height)
