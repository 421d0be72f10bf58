"""What a Stable Diffusion 1.x or 2.x must be, told by its small JSON files: before weights are fetched or loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon.models.latent_unet.files import Layout, text_width
from avignon.models.latent_unet.noise import check_sampler, noise_schedule

if TYPE_CHECKING:
    from avignon.models.settings import BaseSettings

__all__ = ["LAYOUT", "WEIGHTS", "check", "check_kind", "check_sampler", "checked", "noise_schedule"]

LAYOUT = Layout(
    label="Stable Diffusion 1.x and 2.x",
    weights={"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"},
    tokenizers={"tokenizer": "text_encoder"},
)

WEIGHTS = LAYOUT.weights


def checked(folder: Path, settings: "BaseSettings") -> dict[str, Any]:
    """The noise schedule of a base, a folder or a single file with small files from `folder`, that is as it must be.

    Raises:
        ModelError: naming the file.
        RecipeError: naming the field that must be set.
    """
    return LAYOUT.checked(folder, settings, check, check_kind)


def check(folder: Path, variant: str) -> None:
    """Name what a directory lacks, or holds that is not understood, before a library fails in the middle of it.

    Raises:
        ModelError: naming the file.
    """
    LAYOUT.check(folder, variant)
    check_kind(folder)


def check_kind(folder: Path) -> None:
    """Refuse parts that do not fit together, or that need more than a text and noise: inpainting, depth, upscaling.

    Raises:
        ModelError: naming the file, the setting, its value, and what is allowed.
    """
    told = LAYOUT.configs(folder)
    LAYOUT.allow(folder, "unet", "addition_embed_type", told["unet"].get("addition_embed_type"), None)
    LAYOUT.allow_text_width(folder, told["unet"], text_width(told["text_encoder"]), "the text encoder's hidden_size")
