"""A base as its small files describe it, on torch's meta device: every shape, and no weights.

What runs on it allocates nothing and takes a second, so its memory can be counted before it is spent (`memory`).
"""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from avignon.core.errors import ModelError
from avignon.core.events import Reporter
from avignon.models import hub, loading, names
from avignon.models.latent_unet.single_file import Checkpoint
from avignon.models.registry import FAMILIES, Family, is_checkpoint, local_folder

if TYPE_CHECKING:
    from avignon.models.base import DiffusionBase
    from avignon.models.meta import Configs
    from avignon.models.settings import BaseSettings


def outline(settings: "BaseSettings", reporter: Reporter) -> "DiffusionBase":
    """A base's outline. Of a repository without a short name the small files are fetched.

    Raises:
        ModelError: it cannot be reached, is incomplete, or is of no family.
    """
    model = settings.model
    if is_checkpoint(model):
        model = settings.config or Checkpoint.read(settings).config
    if model in names.KNOWN:
        family, configs = known(model)
        drawn: DiffusionBase = family.loader.outlined(configs, settings.resolution or names.KNOWN[model].resolution)
        return drawn
    folder = local_folder(model) or loading.find(settings, reporter, whole=False)[1]
    family = loading.family_in(folder)
    family.files.check_kind(folder)
    configs = {path.parent.name: hub.described(path, "incomplete") for path in folder.glob("*/config.json")}
    outlined: DiffusionBase = family.loader.outlined(configs, settings.resolution)
    if not outlined.resolution:
        raise ModelError(f"base.resolution: {settings.model} does not say at which size it was trained; set it")
    return outlined


def known(name: str) -> tuple[Family, "Configs"]:
    """The family of a base with a short name, and its parts' configurations."""
    shapes = tomllib.loads(Path(__file__).with_name("architectures.toml").read_text(encoding="utf-8"))
    own, shared = shapes[names.KNOWN[name].shape], shapes["parts"]
    family = FAMILIES[own.pop("family")]
    return family, {part: shared[told] if isinstance(told, str) else told for part, told in own.items()}
