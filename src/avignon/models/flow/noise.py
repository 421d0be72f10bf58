"""The noise of a base trained by flow matching, told by its scheduler file; without torch."""

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon.core.errors import ModelError, RecipeError
from avignon.models import hub

if TYPE_CHECKING:
    from avignon.models.settings import SamplingSettings, TrainingSettings

SCHEDULER = "FlowMatchEulerDiscreteScheduler"

LEVELS = 1000
"""Timesteps of a whole way from picture to noise: t = 1000·σ."""

_DEFAULTS: Mapping[str, Any] = {
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
"""What is taken from the file, with the library's values for what it lacks."""

_UNKNOWN = (
    *("invert_sigmas", "shift_terminal", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
    "stochastic_sampling",
)
"""Settings that make other noise levels of it than are understood."""


def noise_schedule(folder: Path) -> dict[str, Any]:
    """How the base's noise levels are shifted, as diffusers' scheduler is configured.

    Raises:
        ModelError: the file is damaged, or names another kind of noise.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    told = hub.described(path, "incomplete")
    allowed = {"_class_name": SCHEDULER, "num_train_timesteps": LEVELS, "time_shift_type": "exponential"}
    for name, value in allowed.items():
        if told.get(name, value) != value:
            raise ModelError(f"{path}: {name} is {told[name]!r}, and only {value!r} is understood")
    for name in _UNKNOWN:
        if told.get(name):
            raise ModelError(f"{path}: {name} is {told[name]!r}, and only null or false is understood")
    noise = {name: told.get(name, default) for name, default in _DEFAULTS.items()}
    if not isinstance(noise["use_dynamic_shifting"], bool):
        raise ModelError(f"{path}: use_dynamic_shifting is {noise['use_dynamic_shifting']!r}; allowed are true, false")
    for name, value in noise.items():
        if name != "use_dynamic_shifting" and not (isinstance(value, int | float) and 0 < value < inf):
            raise ModelError(f"{path}: {name} is {value!r}; it is a number above 0")
    if noise["base_image_seq_len"] == (length := noise["max_image_seq_len"]):
        raise ModelError(f"{path}: base_image_seq_len and max_image_seq_len are both {length!r}; they differ")
    return {**noise, "num_train_timesteps": LEVELS}


def check_training(model: str, settings: "TrainingSettings") -> None:
    """min-SNR-γ weighs errors of ε, x and v (arXiv:2303.09556); of a velocity it says nothing.

    Raises:
        RecipeError: naming the field and what is allowed.
    """
    if settings.min_snr_gamma:
        raise RecipeError(
            f"train.min_snr_gamma: {settings.min_snr_gamma:g} has no meaning for {model}, which is trained by flow "
            "matching: its timesteps are drawn by a density of their own; allowed is 0"
        )


def check_sampler(sampling: "SamplingSettings", noise: Mapping[str, Any]) -> None:
    """Refuse a number of steps that the noise levels do not allow.

    Raises:
        RecipeError: naming the field and what is allowed.
    """
    if sampling.num_inference_steps >= (levels := noise["num_train_timesteps"]):
        raise RecipeError(
            f"generate.num_inference_steps: {sampling.num_inference_steps} is not allowed; the base has {levels} noise "
            f"levels, so at most {levels - 1}"
        )
