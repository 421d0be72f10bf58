"""What a Z-Image must be, told by its small JSON files: before weights are fetched or loaded."""

from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon.core.errors import ModelError, RecipeError
from avignon.models.flow import noise as flow
from avignon.models.flow.files import WEIGHTS, Parts, check_asked, check_whole
from avignon.models.flow.noise import check_sampler, noise_schedule

if TYPE_CHECKING:
    from avignon.models.settings import BaseSettings, TrainingSettings

__all__ = [
    "TURBO_SHIFT",
    "WEIGHTS",
    "check",
    "check_kind",
    "check_sampler",
    "check_training",
    "checked",
    "noise_schedule",
]

TURBO_SHIFT = 3.0
"""The shift in the scheduler file of the distilled Z-Image-Turbo; the base's is 6.0, and nothing else in their small
files tells them apart (https://github.com/unslothai/unsloth/pull/8291)."""


def checked(folder: Path, settings: "BaseSettings") -> dict[str, Any]:
    """The noise schedule of a base that is as it must be.

    Raises:
        ModelError: naming the file.
        RecipeError: naming the field that cannot be used with it.
    """
    check_asked("Z-Image", settings)
    check(folder, settings.variant)
    return noise_schedule(folder)


def check(folder: Path, variant: str) -> None:
    """Name what a directory lacks, or holds that is not understood, before a library fails in the middle of it.

    Raises:
        ModelError: naming the file.
    """
    check_whole(folder, variant)
    check_kind(folder)


def check_kind(folder: Path) -> None:
    """Refuse parts that do not fit together, or that need more than a text and noise.

    Raises:
        ModelError: naming the file, the setting, its value, and what is allowed.
    """
    parts = Parts.read("Z-Image", folder, WEIGHTS)
    vae, text = parts.told["vae"], parts.told["text_encoder"]
    for name in ("scaling_factor", "shift_factor"):
        value = vae.get(name)
        if not isinstance(value, int | float) or not 0 < value < inf:
            raise ModelError(f"{folder / 'vae/config.json'}: {name} is {value!r}; it is a number above 0")
    parts.allow("transformer", "_class_name", "ZImageTransformer2DModel", "ZImageTransformer2DModel")
    parts.allow("transformer", "all_patch_size", [2], [2])
    parts.allow("transformer", "all_f_patch_size", [1], [1])
    parts.allow("transformer", "siglip_feat_dim", None, None)
    parts.allow("transformer", "in_channels", 16, vae.get("latent_channels", 4))
    parts.allow("transformer", "cap_feat_dim", 2560, text.get("hidden_size"))
    parts.allow("vae", "_class_name", "AutoencoderKL", "AutoencoderKL")
    for name in ("latents_mean", "latents_std"):
        parts.allow("vae", name, None, None)
    parts.allow("text_encoder", "model_type", "qwen3", "qwen3")
    noise_schedule(folder)


def check_training(model: str, settings: "TrainingSettings", folder: Path) -> None:
    """A step-distilled base must not be trained on bare.

    What it learns is to make pictures in many steps again (https://github.com/SceneWorks/SceneWorks/pull/126).

    Raises:
        RecipeError: it is one, or a setting has no meaning for it.
    """
    flow.check_training(model, settings)
    if noise_schedule(folder)["shift"] == TURBO_SHIFT:
        raise RecipeError(
            f"base.model: {model} is the distilled Z-Image-Turbo (its scheduler's shift is {TURBO_SHIFT:g}, the base's "
            "is 6): it can be painted with, but training undoes its distillation; train on z-image"
        )
