"""The noise that a UNet was trained on, told by its scheduler file; without torch.

The file is that of whichever sampler saved it last. Only what the training used is taken from it, because samplers are
built for latents: no clipping, no thresholding, no warm-up of PNDM, no noise but the picture's own.
"""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon.core.errors import ModelError, RecipeError
from avignon.models import hub
from avignon.models.registry import BETA_SAMPLERS

if TYPE_CHECKING:
    from avignon.models.settings import SamplingSettings

Config = Mapping[str, Any]

PREDICTIONS = ("epsilon", "v_prediction", "sample")

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")

NO_SIGNAL = 1e-12
"""Share of the picture's variance that is left at the last noise level, below which it counts as none."""

_FLOWS = ("Flow", "EDM")
"""In the names of schedulers whose noise levels are no betas, whatever their files hold besides."""

_LATENTS: Config = {
    "clip_sample": False,
    "thresholding": False,
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""How Stable Diffusion's own scheduler files have it, SDXL's as well: latents are no pixels in -1…1."""

_CANNOT = {"sample": ("pndm", "euler"), "zero": ("pndm",)}
"""Samplers that cannot follow a base that predicts the sample, or whose last noise level has no signal left."""


def noise_schedule(folder: Path, **changes: Any) -> dict[str, Any]:
    """What samplers and the training take from a base's scheduler file, as diffusers' schedulers are configured.

    Betas, their number, what is predicted, whether the last level is pure noise, and where timesteps lie if that was
    chosen: `linspace` is the default of half the classes, and DDIM and PNDM step past such timesteps.

    `changes` are set in place of what the file says.

    Raises:
        ModelError: the file is damaged, or names another kind of noise.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    told = hub.described(path, "incomplete") | changes
    _check_betas(path, told)
    *kept, last = [1 - beta for beta in _betas(told)]
    if prod(kept) < NO_SIGNAL:
        raise ModelError(
            f"{path}: no signal is left before the last noise level: beta_end or trained_betas are too large"
        )
    zero = bool(told.get("rescale_betas_zero_snr")) or prod(kept) * last < NO_SIGNAL
    predicts = told.get("prediction_type", PREDICTIONS[0])
    if zero and predicts == "epsilon":
        raise ModelError(
            f"{path}: the last noise level has no signal left (rescale_betas_zero_snr, trained_betas or beta_end), and "
            "prediction_type is 'epsilon', which says nothing about the picture there; allowed is 'v_prediction'"
        )
    spacing = "trailing" if zero else told.get("timestep_spacing")
    return {
        **{name: told[name] for name in ("beta_schedule", "beta_start", "beta_end", "trained_betas") if name in told},
        "num_train_timesteps": told.get("num_train_timesteps", 1000),
        "prediction_type": predicts,
        "rescale_betas_zero_snr": zero,
        **({"timestep_spacing": spacing} if spacing in ("leading", "trailing") else {}),
        **_LATENTS,
    }


def _betas(told: Config) -> list[float]:
    """Betas of the noise levels; 0 for the cosine schedule, whose last level always keeps a trace of the picture."""
    if told.get("trained_betas"):
        return list(told["trained_betas"])
    if told.get("beta_schedule") == "squaredcos_cap_v2":
        return [0.0]
    power = 2.0 if told["beta_schedule"] == "scaled_linear" else 1.0
    count = told.get("num_train_timesteps", 1000)
    first, last = (told[name] ** (1 / power) for name in ("beta_start", "beta_end"))
    return [(first + (last - first) * k / max(1, count - 1)) ** power for k in range(count)]


def _check_betas(path: Path, told: Config) -> None:
    """Refuse what is no noise schedule of betas, each strictly between 0 and 1; the last may be 1."""
    saver, count = str(told.get("_class_name", "")), told.get("num_train_timesteps", 1000)
    betas, kind = told.get("trained_betas"), told.get("beta_schedule")
    if any(word in saver for word in _FLOWS) or told.get("use_flow_sigmas"):
        raise ModelError(f"{path}: {saver or 'use_flow_sigmas'}: flow matching and EDM are not understood, only betas")
    if (predicts := told.get("prediction_type", PREDICTIONS[0])) not in PREDICTIONS:
        raise ModelError(f"{path}: prediction_type is {predicts!r}; allowed are {', '.join(PREDICTIONS)}")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ModelError(f"{path}: num_train_timesteps is {count!r}; it is a whole number from 1 on")
    if betas is None and kind not in SCHEDULES:
        raise ModelError(f"{path}: beta_schedule is {kind!r}; allowed are {', '.join(SCHEDULES)}")
    if betas is None and kind != "squaredcos_cap_v2":
        betas, count = [told.get("beta_start"), told.get("beta_end")], 2
    if betas is not None and not (isinstance(betas, list) and len(betas) == count and _are_betas(betas)):
        raise ModelError(
            f"{path}: beta_start and beta_end, or trained_betas: {count} numbers between 0 and 1 are needed; "
            f"there are {str(betas)[:60]}"
        )


def _are_betas(values: Sequence[object]) -> bool:
    numbers = [value for value in values if isinstance(value, int | float) and 0 < value <= 1]
    return len(numbers) == len(values) and all(number < 1 for number in numbers[:-1])


def is_shifted(folder: Path) -> bool:
    """Whether the scheduler that saved the file shifts noise levels (CogVideoX's), as Stable Diffusion's never were."""
    return bool(hub.described(folder / "scheduler" / "scheduler_config.json", "incomplete").get("snr_shift_scale"))


def check_sampler(sampling: "SamplingSettings", noise: Config) -> None:
    """Refuse a sampler, or a number of its steps, that the base's noise schedule does not allow.

    Raises:
        RecipeError: naming the field and what is allowed.
    """
    levels, zero = noise["num_train_timesteps"], noise["rescale_betas_zero_snr"]
    refused = {name for kind in (noise["prediction_type"], "zero" if zero else "") for name in _CANNOT.get(kind, ())}
    if sampling.scheduler in refused:
        why = "has no signal at its last noise level" if zero else f"predicts {noise['prediction_type']!r}"
        raise RecipeError(
            f"generate.scheduler: {sampling.scheduler!r} cannot be used with a base that {why}; "
            f"allowed are {', '.join(name for name in BETA_SAMPLERS if name not in refused)}"
        )
    if sampling.num_inference_steps >= levels:
        raise RecipeError(
            f"generate.num_inference_steps: {sampling.num_inference_steps} is not allowed; the base's noise schedule "
            f"has {levels} levels, so at most {levels - 1}"
        )
