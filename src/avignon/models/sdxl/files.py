"""What a Stable Diffusion XL must be, told by its small JSON files: before weights are fetched or loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon.models.latent_unet.files import Layout, text_width
from avignon.models.latent_unet.noise import check_sampler, noise_schedule

if TYPE_CHECKING:
    from avignon.models.settings import BaseSettings

__all__ = ["LAYOUT", "SIZES", "WEIGHTS", "check", "check_kind", "check_sampler", "checked", "noise_schedule"]

LAYOUT = Layout(
    label="Stable Diffusion XL",
    weights={
        "unet": "diffusion_pytorch_model",
        "vae": "diffusion_pytorch_model",
        "text_encoder": "model",
        "text_encoder_2": "model",
    },
    tokenizers={"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"},
)

WEIGHTS = LAYOUT.weights

SIZES = 6
"""Numbers that the UNet is told of a picture: height and width of the original, top and left of the crop, height and
width of what is painted (Podell et al., arXiv:2307.01952, section 2.2)."""


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
    """Refuse parts that do not fit together, or that need more than a text, sizes and noise.

    Raises:
        ModelError: naming the file, the setting, its value, and what is allowed.
    """
    told = LAYOUT.configs(folder)
    unet, second = told["unet"], told["text_encoder_2"]
    LAYOUT.allow(folder, "unet", "addition_embed_type", unet.get("addition_embed_type"), "text_time")
    width = text_width(told["text_encoder"]) + text_width(second)
    LAYOUT.allow_text_width(folder, unet, width, "hidden_size of both text encoders")
    pooled = second.get("projection_dim", 512) + SIZES * (unet.get("addition_time_embed_dim") or 0)
    name, because = "projection_class_embeddings_input_dim", "the pooled text and six sizes"
    LAYOUT.allow(folder, "unet", name, unet.get(name), pooled, because)
