"""What a FLUX.2 klein must be, told by its small JSON files: before weights are fetched or loaded."""

from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon.core.errors import ModelError, RecipeError
from avignon.models import hub
from avignon.models.flow import noise as flow
from avignon.models.flow.files import PATCH, WEIGHTS, Parts, check_asked, check_whole
from avignon.models.flow.noise import check_sampler, noise_schedule

if TYPE_CHECKING:
    from avignon.models.settings import BaseSettings, TrainingSettings

__all__ = [
    "LAYERS",
    "WEIGHTS",
    "architecture",
    "check",
    "check_kind",
    "check_sampler",
    "check_training",
    "checked",
    "is_distilled",
    "noise_schedule",
]

LAYERS = (9, 18, 27)
"""The text encoder's layers whose hidden states are read, side by side (`text_encoder_out_layers` of diffusers'
Flux2KleinPipeline; the makers' `OUTPUT_LAYERS_QWEN3`). The 10, 20, 30 of diffusers' training script are FLUX.2 [dev]'s,
whose encoder is another."""

ARCHITECTURES = {3072: "Flux.2-klein-4b", 4096: "Flux.2-klein-9b", 6144: "Flux.2-dev"}
"""By the denoiser's width, as kohya's musubi-tuner writes it: ModelSpec names no FLUX.2."""


def checked(folder: Path, settings: "BaseSettings") -> dict[str, Any]:
    """The noise schedule of a base that is as it must be.

    Raises:
        ModelError: naming the file.
        RecipeError: naming the field that cannot be used with it.
    """
    check_asked("FLUX.2", settings)
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
    parts = Parts.read("FLUX.2 klein", folder, WEIGHTS)
    vae, text = parts.told["vae"], parts.told["text_encoder"]
    channels = vae.get("latent_channels", 32) * PATCH**2
    parts.allow("transformer", "_class_name", "Flux2Transformer2DModel", "Flux2Transformer2DModel")
    parts.allow("transformer", "patch_size", 1, 1)
    parts.allow("transformer", "guidance_embeds", True, False)  # FLUX.2 [dev] is told its guidance.
    parts.allow("transformer", "in_channels", 128, channels)
    if parts.told["transformer"].get("out_channels") is not None:
        parts.allow("transformer", "out_channels", None, channels)
    parts.allow("transformer", "joint_attention_dim", 15360, len(LAYERS) * text.get("hidden_size", 0))
    parts.allow("vae", "_class_name", "AutoencoderKLFlux2", "AutoencoderKLFlux2")
    parts.allow("vae", "patch_size", [PATCH, PATCH], [PATCH, PATCH])
    parts.allow("text_encoder", "model_type", "qwen3", "qwen3")
    layers, eps = text.get("num_hidden_layers"), vae.get("batch_norm_eps", 1e-4)
    if not isinstance(layers, int) or layers <= LAYERS[-1]:
        raise ModelError(
            f"{folder / 'text_encoder/config.json'}: num_hidden_layers is {layers!r}; texts are read after layer "
            f"{LAYERS[-1]}, before the last"
        )
    if not isinstance(eps, int | float) or not 0 < eps < inf:
        raise ModelError(f"{folder / 'vae/config.json'}: batch_norm_eps is {eps!r}; it is a number above 0")
    is_distilled(folder)
    noise_schedule(folder)


def check_training(model: str, settings: "TrainingSettings", folder: Path) -> None:
    """A step-distilled base must not be trained on: what it learns is to make pictures in many steps again.

    Raises:
        RecipeError: it is one, or a setting has no meaning for it.
    """
    flow.check_training(model, settings)
    if is_distilled(folder):
        raise RecipeError(
            f"base.model: {model} is a distilled FLUX.2 klein (is_distilled in its model_index.json): it can be "
            "painted with, but training undoes its distillation; train on its base, such as flux2-klein-4b"
        )


def architecture(width: int) -> str:
    """A FLUX.2's architecture by the width of its denoiser; one of another width is called as the smallest."""
    return ARCHITECTURES.get(width, ARCHITECTURES[3072])


def is_distilled(folder: Path) -> bool:
    """Whether the base paints in a few steps and has its guidance within.

    Raises:
        ModelError: its model_index.json says neither yes nor no.
    """
    index = folder / "model_index.json"
    told = hub.described(index, "incomplete").get("is_distilled", False)
    if not isinstance(told, bool):
        raise ModelError(f"{index}: is_distilled is {told!r}, neither true nor false")
    return told
