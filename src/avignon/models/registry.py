"""The families of base models, one row each: what recipes and the command line know of them before torch is loaded."""

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avignon.core.records import EMBEDDED


@dataclass(frozen=True)
class Family:
    """A family of base models."""

    label: str
    """For people."""
    tag: str
    """By which the Hugging Face Hub finds what belongs to it."""
    pipeline: str
    """The class of diffusers' that its model_index.json names."""
    denoiser: str
    """The folder of the network that adapters are put on."""
    prompt_encoders: tuple[str, ...]
    """The folders of the networks that read prompts, which adapters may change as well."""
    samplers: tuple[str, ...]
    """Names of its samplers, as recipes have them."""
    blocks: str
    """A regular expression for the parts of the denoiser that can have weights of their own."""
    parts: str
    """The same, for people."""
    multiple: int
    """Pixels that both sides of a picture are divisible by: the side of what the denoiser has least of, a latent pixel
    after its halvings, or a token."""
    half: Literal["fp16", "bf16"]
    """The 16-bit precision that a card computes it in, where no other is asked for."""
    masks_attention: bool
    """Whether padding is kept out of its attention by a mask. diffusers' xFormers backend adds such a mask, 1 and 0,
    to what it should replace by −∞ (`attention_dispatch.py`, `_xformers_attention`), so it is not used there."""
    package: str
    """It has `files` (what its small files say; without torch) and `model` (loading)."""

    @property
    def network(self) -> str:
        """The denoiser, for people."""
        return "UNet" if self.denoiser == "unet" else self.denoiser

    @property
    def files(self) -> Any:
        """The module that checks a base's files."""
        return importlib.import_module(f"{self.package}.files")

    @property
    def loader(self) -> Any:
        """The module that fetches and loads a base."""
        return importlib.import_module(f"{self.package}.model")


BETA_SAMPLERS = ("ddim", "pndm", "euler", "dpm++")
"""For noise levels that are betas."""

_UNET: Mapping[str, Any] = {
    "blocks": r"down|mid|up|mid_block\..+|(down|up)_blocks\.\d+(\..+)?",
    "parts": "down, mid, up, and names such as 'up_blocks.1'",
    "half": "fp16",
    "masks_attention": False,
    "multiple": 64,  # 8 of the autoencoder, and three halvings; SDXL, with two, was trained in steps of 64.
}

FAMILIES = {
    "sd": Family(
        label="Stable Diffusion 1.x and 2.x",
        tag="stable-diffusion",
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        prompt_encoders=("text_encoder",),
        samplers=BETA_SAMPLERS,
        **_UNET,
        package="avignon.models.stable_diffusion",
    ),
    "sdxl": Family(
        label="Stable Diffusion XL",
        tag="stable-diffusion-xl",
        pipeline="StableDiffusionXLPipeline",
        denoiser="unet",
        prompt_encoders=("text_encoder", "text_encoder_2"),
        samplers=BETA_SAMPLERS,
        **_UNET,
        package="avignon.models.sdxl",
    ),
    "z-image": Family(
        label="Z-Image",
        tag="z-image",
        pipeline="ZImagePipeline",
        denoiser="transformer",
        prompt_encoders=(),
        samplers=("euler",),
        blocks=r"early|middle|late|(layers|noise_refiner|context_refiner)\.\d+(\..+)?",
        parts="early, middle, late, and names such as 'layers.7'",
        multiple=16,  # 8 of the autoencoder, and tokens of 2 × 2 latent pixels.
        half="bf16",  # What it was trained in; in fp16 it comes to NaN (github.com/Tongyi-MAI/Z-Image/issues/14).
        masks_attention=True,
        package="avignon.models.z_image",
    ),
    "flux2-klein": Family(
        label="FLUX.2 klein",
        tag="flux2-klein",
        pipeline="Flux2KleinPipeline",
        denoiser="transformer",
        prompt_encoders=(),
        samplers=("euler",),
        blocks=r"early|middle|late|(single_)?transformer_blocks\.\d+(\..+)?",
        parts="early, middle, late, and names such as 'single_transformer_blocks.7'",
        multiple=16,
        half="bf16",  # As Z-Image (github.com/kohya-ss/musubi-tuner/issues/897).
        masks_attention=False,
        package="avignon.models.flux2_klein",
    ),
}
"""By the name that registries and cards have for them."""

COMMON_MULTIPLE = math.lcm(*(family.multiple for family in FAMILIES.values()))
"""A multiple of all families' own."""

MINIATURE_MULTIPLE = 32
"""`Family.multiple` of the package's miniature, a Stable Diffusion of two halvings."""

SAMPLERS = tuple(dict.fromkeys(sampler for family in FAMILIES.values() for sampler in family.samplers))
"""Of all families."""


CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""How the names of single files of weights end; only the first is read."""


def is_checkpoint(model: str) -> bool:
    """Whether a base is a single file."""
    return model.endswith(CHECKPOINTS)


def local_folder(model: str) -> Path | None:
    """Where a base, a folder or a single file, lies on this machine; None where that is a hub."""
    if model == EMBEDDED:
        return embedded_folder()
    return Path(model) if Path(model).is_absolute() else None


def embedded_folder() -> Path:
    """Where the miniature lies inside the package."""
    return Path(__file__).parents[1] / "demo" / "base"
