"""The one way to a loaded base: found, told apart by its small files, checked, and only then loaded."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from avignon.core.errors import ModelError, RecipeError
from avignon.core.events import Reporter
from avignon.core.records import EMBEDDED
from avignon.models import hub, names
from avignon.models.latent_unet.single_file import Checkpoint
from avignon.models.registry import FAMILIES, Family, embedded_folder, is_checkpoint, local_folder

if TYPE_CHECKING:  # Checking a base loads no torch.
    import torch

    from avignon.models.base import BaseSettings, DiffusionBase, SamplingSettings

SMALL_FILES = ("model_index.json", "*/config.json", "scheduler/scheduler_config.json")
"""Of a base in diffusers' format: what tells whether its gigabytes are worth fetching."""


CONFIG_FILES = (*SMALL_FILES, "tokenizer*/*")
"""What a single file of weights lacks."""


def family_in(folder: Path) -> Family:
    """The family of a base in diffusers' format.

    Raises:
        ModelError: it is of none, or its model_index.json is missing or damaged.
    """
    index = folder / "model_index.json"
    kind = hub.described(index, "no Stable Diffusion in diffusers' format").get("_class_name", "")
    for family in FAMILIES.values():
        if family.pipeline == kind:
            return family
    known = ", ".join(f"{family.pipeline} ({family.label})" for family in FAMILIES.values())
    raise ModelError(f"{index}: _class_name is {kind!r}; only {known} is understood")


def check_local(settings: "BaseSettings", sampling: "SamplingSettings") -> None:
    """Refuse a base in a directory that cannot be used; one on a hub is looked at when it is there.

    Raises:
        ModelError: it is incomplete, or of a kind that is not understood.
        RecipeError: there is no such directory, or the sampler cannot be used with it.
    """
    folder = local_folder(settings.model)
    if is_checkpoint(settings.model):
        checkpoint = Checkpoint.read(Path(settings.model))
        checkpoint.noise(settings.prediction_type)
        folder = local_folder(settings.config or checkpoint.config)
    if folder and not folder.is_dir():
        field = "base.config" if is_checkpoint(settings.model) else "base.model"
        raise RecipeError(f"{field}: {folder}: no such directory")
    if folder and settings.model != EMBEDDED:
        family = family_in(folder)
        check_asked(family, sampling)
        family.files.check_sampler(sampling, family.files.checked(folder, settings))


def load(
    settings: "BaseSettings", sampling: "SamplingSettings", dtype: "torch.dtype", reporter: Reporter
) -> "DiffusionBase":
    """Find, check and load a base in a precision; every parameter is frozen. The sampler is checked before weights are.

    Raises:
        ModelError: it cannot be reached, is incomplete, holds only pickle files, NaN or infinity, or is of no family.
        RecipeError: the recipe's resolution or sampler cannot be used with it.
    """
    if settings.model == EMBEDDED:
        model, folder = EMBEDDED, embedded_folder()
    elif is_checkpoint(settings.model):
        model, folder = Path(settings.model).name, _config(settings, reporter)
    else:
        first, *others = names.homes_of(settings.model)
        mirrors = (*others, *settings.mirrors)
        wanted = hub.Wanted(first, mirrors, settings.revision, "base.model", "base.mirrors")
        model, folder = hub.find(wanted, lambda name, access: _fetched(name, settings, access), reporter)
    family = family_in(folder)
    check_asked(family, sampling)
    # What is quantised is read as its files have it: in fp32 it would take four times its memory, for a moment.
    precision = None if settings.quantize else dtype
    base: DiffusionBase = family.loader.load(model, folder, settings, sampling, precision, reporter)
    if settings.quantize:
        base.quantize(settings.quantize, dtype)
    return base


def unquantised(settings: "BaseSettings", reporter: Reporter) -> list[str]:
    """The layers that `base.quantize` leaves in full, by the base's small files, which are fetched if need be.

    Raises:
        ModelError: the base cannot be reached, or is of no family.
    """
    if settings.model == EMBEDDED:
        folder = embedded_folder()
    elif is_checkpoint(settings.model):
        folder = _config(settings, reporter)
    else:
        first, *others = names.homes_of(settings.model)
        wanted = hub.Wanted(first, (*others, *settings.mirrors), settings.revision, "base.model", "base.mirrors")
        folder = hub.find(
            wanted, lambda name, access: hub.download(name, settings.revision, access, SMALL_FILES), reporter
        )[1]
    named: list[str] = family_in(folder).loader.unquantised(folder)
    return named


def check_asked(family: Family, sampling: "SamplingSettings") -> None:
    """Refuse a sampler, or parts of the denoiser, that a family has not.

    Raises:
        RecipeError: naming the field and what is allowed.
    """
    if sampling.scheduler and sampling.scheduler not in family.samplers:
        allowed = ", ".join(family.samplers)
        raise RecipeError(f"generate.scheduler: {sampling.scheduler!r} is none of {family.label}; allowed: {allowed}")
    for name, factors in sampling.block_weights.items():
        for block in factors:
            if not re.fullmatch(family.blocks, block):
                raise RecipeError(
                    f"generate.block_weights.{name}: {block!r} is not a part of {family.label}; allowed are "
                    f"{family.parts}"
                )


def _config(settings: "BaseSettings", reporter: Reporter) -> Path:
    """The folder of a single file's configuration and tokenizers, fetched where it is on a hub."""
    first, *others = names.homes_of(settings.config or Checkpoint.read(Path(settings.model)).config)
    wanted = hub.Wanted(first, tuple(others), "main", "base.config", "base.config")
    return hub.find(wanted, lambda name, access: hub.download(name, "main", access, CONFIG_FILES), reporter)[1]


def _fetched(model: str, settings: "BaseSettings", access: hub.Access) -> Path:
    """Bring a repository into the hub's cache; its small files come first, and say what it is."""
    folder = hub.download(model, settings.revision, access, SMALL_FILES)
    fetched: Path = family_in(folder).loader.fetch(model, folder, settings, access)
    return fetched
