"""What the small files of a transformer's folder must say, checked without torch; for every family of them alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from avignon.core.errors import ModelError, RecipeError
from avignon.models import hub
from avignon.models.registry import is_checkpoint

if TYPE_CHECKING:
    from avignon.models.settings import BaseSettings

WEIGHTS = {"transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""The parts that hold weights, and the stem of their files."""

PATCH = 2
"""The VAE's latent pixels of a token's side."""


@dataclass(frozen=True)
class Parts:
    """What the config.json of a base's parts say."""

    label: str
    """The family, for people."""
    folder: Path
    told: Mapping[str, Mapping[str, Any]]
    """By part."""

    @classmethod
    def read(cls, label: str, folder: Path, parts: Iterable[str]) -> Self:
        """Those of a folder; a `ModelError` names the one that is missing or damaged."""
        return cls(label, folder, {part: hub.described(folder / part / "config.json", "incomplete") for part in parts})

    def allow(self, part: str, name: str, default: object, allowed: object) -> None:
        """Refuse a setting that is not the one that is understood; what the file lacks has the library's default.

        Raises:
            ModelError: naming the file, the setting, its value, and what is allowed.
        """
        found = self.told[part].get(name, default)
        if found != allowed:
            expected = "null" if allowed is None else repr(allowed)
            place = self.folder / part / "config.json"
            raise ModelError(
                f"{place}: {name} is {found!r}, and only {expected} is understood here, as in {self.label}"
            )


def check_asked(label: str, settings: "BaseSettings") -> None:
    """Refuse what a recipe says of a base and these families have not.

    Raises:
        RecipeError: naming the field.
    """
    if is_checkpoint(settings.model):
        raise RecipeError(f"base.model: a {label} in a single file is not read; name a folder in diffusers' format")
    if settings.prediction_type:
        raise RecipeError(f"base.prediction_type: {label} is trained by flow matching and has none; leave it out")


def check_whole(folder: Path, variant: str) -> None:
    """Name what a directory lacks of weights and tokenizer, before a library fails in the middle of it.

    Raises:
        ModelError: naming the file.
    """
    for part, stem in WEIGHTS.items():
        hub.check_weights(folder / part, stem, variant, "base.variant")
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / "tokenizer" / name).exists()]
    if missing and not (folder / "tokenizer/tokenizer.json").exists():
        raise ModelError(f"{folder}: incomplete: tokenizer/{missing[0]} is missing")
