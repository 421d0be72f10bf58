"""A checkpoint in one file, as artists share them: what its header tells before its gigabytes are read; without torch.

Names of tensors: Stability AI's `model.diffusion_model.…`, `first_stage_model.…`, and `cond_stage_model.…` (Stable
Diffusion 1.x and 2.x) or `conditioner.embedders.…` (SDXL). What a file predicts is in none of its weights. Some say
it: ModelSpec 1.0.1's `modelspec.prediction_type` and `modelspec.architecture`, and the empty tensors `v_pred` and
`ztsnr` that ComfyUI reads (comfy/supported_models.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from avignon.core.errors import ModelError, RecipeError
from avignon.models import finite, hub

if TYPE_CHECKING:
    from avignon.models.settings import BaseSettings

UNET = "model.diffusion_model."

SD_2_WIDTH = 1024
"""Of the texts that Stable Diffusion 2.x reads; it came as ε at 512 and as v at 768 pixels, of the same shapes."""

_CONFIGS = {768: "sd-1.5", SD_2_WIDTH: "sd-2.1-base", 2048: "sdxl"}
"""By the width of texts, the base whose small files belong to a checkpoint; one of SD 2.x that says v is of 768 px."""

_VAE = "a VAE"

_PARTS = {"a UNet": (UNET,), _VAE: ("first_stage_model.",), "text encoders": ("cond_stage_model.", "conditioner.")}

_SPELLED = {"epsilon": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
"""ModelSpec has `epsilon` and `v`."""


@dataclass(frozen=True)
class Checkpoint:
    """A file's header."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]

    @classmethod
    def read(cls, settings: "BaseSettings") -> "Checkpoint":
        """Read the header of `base.model`.

        Raises:
            ModelError: it is missing, damaged, no safetensors file, or no whole base; of a VAE if `base.vae` has none.
        """
        path = Path(settings.model)
        shapes, metadata = header(path)
        for part, beginnings in _PARTS.items():
            if not any(key.startswith(beginnings) for key in shapes) and not (part == _VAE and settings.vae):
                advice = "; set base.vae to one" if part == _VAE else ""
                raise ModelError(f"{path}: no whole base: {part} is missing ({' or '.join(beginnings)}…){advice}")
        return cls(path, shapes, metadata)

    @property
    def text_width(self) -> int:
        """How wide the texts are that its UNet reads; 0 where it reads none."""
        keys = (key for key in self.shapes if key.startswith(UNET) and key.endswith(".attn2.to_k.weight"))
        return next((self.shapes[key][1] for key in keys), 0)

    @property
    def config(self) -> str:
        """The short name of the base whose configuration and tokenizers belong to it.

        Raises:
            RecipeError: none is known.
        """
        if self.text_width not in _CONFIGS:
            raise RecipeError(
                f"base.config: {self.path.name} reads texts {self.text_width} wide, as no base with a short name does; "
                "set it to a folder or a repository in diffusers' format, whose small files belong to it"
            )
        if self.text_width == SD_2_WIDTH and self.says == "v_prediction":
            return "sd-2.1"
        return _CONFIGS[self.text_width]

    @property
    def says(self) -> str:
        """What the file itself says that it predicts; empty where it says nothing."""
        architecture = self.metadata.get("modelspec.architecture", "")
        if "v_pred" in self.shapes or "-768-v" in architecture:
            return "v_prediction"
        stated = self.metadata.get("modelspec.prediction_type", "")
        return _SPELLED.get(stated, "epsilon" if "stable-diffusion-v2-512" in architecture else "")

    def noise(self, stated: str) -> dict[str, Any]:
        """What of the noise schedule is not as in the configuration; `stated` is the recipe's `prediction_type`.

        Raises:
            RecipeError: nothing says what a Stable Diffusion 2.x predicts, or the file contradicts the recipe.
        """
        if stated and self.says and stated != self.says:
            raise RecipeError(f"base.prediction_type: {stated!r}, but {self.path.name} says of itself {self.says!r}")
        predicts = stated or self.says
        if not predicts and self.text_width == SD_2_WIDTH:
            raise RecipeError(
                f"base.prediction_type: {self.path.name} is a Stable Diffusion 2.x and does not say what it predicts; "
                "set 'epsilon' (those of 512 pixels) or 'v_prediction' (those of 768): the wrong one trains garbage"
            )
        zero = {"rescale_betas_zero_snr": True} if "ztsnr" in self.shapes else {}
        return {**({"prediction_type": predicts} if predicts else {}), **zero}

    def check(self, folder: Path, unet: Mapping[str, Any]) -> None:
        """Refuse a configuration, `unet` in `folder`, of another architecture.

        Raises:
            ModelError: naming both.
        """
        wide = unet.get("cross_attention_dim", 1280)
        channels = self.shapes.get(f"{UNET}input_blocks.0.0.weight", (0, 0))[1]
        found = {"cross_attention_dim": self.text_width, "in_channels": channels}
        wanted = {"cross_attention_dim": wide, "in_channels": unet.get("in_channels", 4)}
        for name, value in found.items():
            if value != wanted[name]:
                raise ModelError(
                    f"{self.path}: its {name} is {value}, and {folder / 'unet/config.json'} has {wanted[name]}: set "
                    "base.config to files of the same architecture (inpainting, depth and refiners are not understood)"
                )


def header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes of a file's tensors, and its metadata.

    Raises:
        ModelError: it is missing, damaged, or no safetensors file.
    """
    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: may run code when it is loaded; convert it to safetensors")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            return shapes, file.metadata() or {}
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except (OSError, safetensors.SafetensorError) as broken:
        raise ModelError(f"{path}: damaged: {broken}") from None


def read(kind: Any, file: Path, config: Path, dtype: Any, **how: Any) -> Any:
    """Load a single file as a class of diffusers', configured by the small files of a folder; None: in its precision.

    Raises:
        ModelError: it is damaged, incomplete, or of another shape.
    """
    from diffusers.utils import logging  # Here, because a look at a header needs no torch.

    told = logging.get_verbosity()
    logging.set_verbosity_error()  # Of every part it warns that nothing had to be kept in fp32.
    how["torch_dtype"] = dtype or hub.dtype_of([file])
    try:
        return kind.from_single_file(str(file), config=str(config), local_files_only=True, **how)
    except Exception as failed:
        why = hub.first_line(failed)
        if "meta tensor" in why:
            raise ModelError(f"{file}: incomplete: tensors that {config} asks for are missing") from failed
        raise ModelError(f"{file}: damaged, or not of the shape that {config} says: {why}") from failed
    finally:
        logging.set_verbosity(told)


def check_read(model: Any, part: str, file: Path) -> None:
    """Refuse a part that was left without tensors, or holds NaN or infinity.

    Raises:
        ModelError: naming the first of them.
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    if missing := [name for name, tensor in tensors if tensor.is_meta]:
        raise ModelError(f"{file}: incomplete: {len(missing)} tensors of {part} are missing, the first is {missing[0]}")
    if bad := finite.first_bad(tensors):
        raise ModelError(
            finite.first_bad_in([file]) or f"{file}: {bad} overflows in {model.dtype}; set precision to fp32 or bf16"
        )
