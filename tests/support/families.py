"""The families of bases, as tests go through them: a tiny base of each, and what differs. A new one is a row here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from avignon.models.registry import FAMILIES, Family
from tests.support.tiny_flux2_klein import make_tiny_flux2_klein
from tests.support.tiny_sd import make_tiny_sd
from tests.support.tiny_sdxl import make_tiny_sdxl
from tests.support.tiny_z_image import make_tiny_z_image


@dataclass(frozen=True)
class TinyFamily:
    """A family whose tiny base has random weights, and is made in a second."""

    name: str
    """Its row in the registry."""
    make: Callable[[Path], Path]
    """Writes the base in diffusers' format."""
    block: str
    """A part of the denoiser that has weights of its own."""
    generate: Mapping[str, Any] = field(default_factory=dict)
    """What a recipe over it must say of pictures."""
    has_single_vae: bool = True
    """Whether a VAE for it is read from a single file."""
    has_single_file: bool = False
    """Whether it is read from a single file as well (`single_files.as_single_file`)."""

    @cached_property
    def row(self) -> Family:
        """What the program knows of it."""
        return FAMILIES[self.name]

    @property
    def repository(self) -> str:
        """Its tiny base, on the tests' hub."""
        return f"someone/tiny-{self.name}"

    @property
    def weights(self) -> str:
        """The file of the denoiser's weights."""
        return f"{self.row.denoiser}/diffusion_pytorch_model.safetensors"


TINY = (
    TinyFamily("sd", make_tiny_sd, block="up_blocks.1", has_single_file=True),
    TinyFamily("sdxl", make_tiny_sdxl, block="up_blocks.0", has_single_file=True),
    TinyFamily("z-image", make_tiny_z_image, block="layers.2", generate={"scheduler": "euler"}),
    TinyFamily(
        "flux2-klein",
        make_tiny_flux2_klein,
        block="single_transformer_blocks.1",
        generate={"scheduler": "euler"},
        has_single_vae=False,
    ),
)
