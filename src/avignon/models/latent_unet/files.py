"""What a folder of a UNet, a VAE and text encoders must hold, told by its small JSON files; without torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon.core.errors import ModelError
from avignon.models import hub
from avignon.models.latent_unet import noise
from avignon.models.latent_unet.single_file import Checkpoint
from avignon.models.registry import is_checkpoint

if TYPE_CHECKING:
    from avignon.models.settings import BaseSettings

Config = Mapping[str, Any]

_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}

_ABSENT = {
    "unet": ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "time_cond_proj_dim"),
    "vae": ("shift_factor", "latents_mean", "latents_std"),
}
"""Settings by which a part asks for more than text, or scales its latents otherwise, than is understood."""


@dataclass(frozen=True)
class Layout:
    """The parts of a family, by their folders."""

    label: str
    """The family, for people."""
    weights: Mapping[str, str]
    """The parts that hold weights, and the stem of their files in diffusers' format."""
    tokenizers: Mapping[str, str]
    """The tokenizers, and the text encoders that they are for."""

    def check(self, folder: Path, variant: str) -> None:
        """Name what a directory lacks before a library fails in the middle of it.

        Raises:
            ModelError: naming the file.
        """
        for part, stem in self.weights.items():
            hub.check_weights(folder / part, stem, variant, "base.variant")
        self.check_small(folder)

    def checked(
        self, folder: Path, settings: "BaseSettings", check: Callable[[Path, str], None], kind: Callable[[Path], None]
    ) -> dict[str, Any]:
        """The noise schedule of a base that is as it must be: a folder, or a single file whose small files it has.

        Raises:
            ModelError, RecipeError: it is not; `check` and `kind` are the family's own checks.
        """
        if not is_checkpoint(settings.model):
            check(folder, settings.variant)
            stated = settings.prediction_type
            return noise.noise_schedule(folder, **({"prediction_type": stated} if stated else {}))
        checkpoint = Checkpoint.read(settings)
        self.check_small(folder)
        kind(folder)
        checkpoint.check(folder, self.configs(folder)["unet"])
        return noise.noise_schedule(folder, **checkpoint.noise(settings.prediction_type))

    def check_small(self, folder: Path) -> None:
        """The same of what is beside the weights and their configurations.

        Raises:
            ModelError: naming the file.
        """
        for tokenizer in self.tokenizers:
            names = ("vocab.json", "merges.txt")
            missing = [name for name in names if not (folder / tokenizer / name).exists()]
            if missing and not (folder / tokenizer / "tokenizer.json").exists():
                raise ModelError(f"{folder}: incomplete: {tokenizer}/{missing[0]} is missing")
        if not (folder / "scheduler/scheduler_config.json").exists():
            raise ModelError(f"{folder}: incomplete: scheduler/scheduler_config.json is missing")

    def configs(self, folder: Path) -> dict[str, Config]:
        """What the parts' config.json say, by part; of UNet and VAE checked as far as all families have it.

        Raises:
            ModelError: naming the file, the setting, its value, and what is allowed.
        """
        told: dict[str, Config] = {
            part: hub.described(folder / part / "config.json", "incomplete") for part in self.weights
        }
        unet, vae = told["unet"], told["vae"]
        for part, kind in _CLASSES.items():
            self.allow(folder, part, "_class_name", told[part].get("_class_name", kind), kind)
            for name in _ABSENT[part]:
                self.allow(folder, part, name, told[part].get(name), None)
        scale = vae.get("scaling_factor", 0.18215)
        if not isinstance(scale, int | float) or not 0 < scale < inf:
            raise ModelError(f"{folder / 'vae/config.json'}: scaling_factor is {scale!r}; it is a number above 0")
        channels = vae.get("latent_channels", 4)  # What is missing in these files has the library's default.
        for name in ("in_channels", "out_channels"):
            self.allow(folder, "unet", name, unet.get(name, 4), channels, "the channels of the VAE's latents")
        noise.noise_schedule(folder)
        return told

    def allow_text_width(self, folder: Path, unet: Config, width: int, because: str) -> None:
        """Refuse a UNet whose cross attention reads texts of another width."""
        asked = unet.get("cross_attention_dim", 1280)
        for each in asked if isinstance(asked, list) else [asked]:
            self.allow(folder, "unet", "cross_attention_dim", each, width, because)

    def allow(self, folder: Path, part: str, name: str, found: object, allowed: object, because: str = "") -> None:
        """Refuse a setting of a part that is not the one that is understood."""
        if found != allowed:
            expected = f"{allowed!r} ({because})" if because else "null" if allowed is None else repr(allowed)
            raise ModelError(
                f"{folder / part / 'config.json'}: {name} is {found!r}, and only {expected} is understood, as in "
                f"{self.label}: pictures from text alone (no inpainting, depth, upscaling, class-conditional)"
            )


def text_width(config: Config) -> int:
    """How wide a text encoder's hidden states are."""
    return int(config.get("text_config", config).get("hidden_size", 512))
