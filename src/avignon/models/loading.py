"""The one way to a loaded base: found, told apart by its small files, checked, and only then loaded."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from avignon.core.errors import ModelError, RecipeError
from avignon.core.events import Reporter
from avignon.core.records import EMBEDDED
from avignon.models import hub, names, vae
from avignon.models.latent_unet.single_file import Checkpoint
from avignon.models.registry import (
    COMMON_MULTIPLE,
    FAMILIES,
    MINIATURE_MULTIPLE,
    Family,
    embedded_folder,
    is_checkpoint,
    local_folder,
)

if TYPE_CHECKING:  # Checking a base loads no torch.
    import torch

    from avignon.models.base import DiffusionBase
    from avignon.models.settings import BaseSettings, SamplingSettings, TrainingSettings

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
    kind = hub.described(index, "no base in diffusers' format").get("_class_name", "")
    for family in FAMILIES.values():
        if family.pipeline == kind:
            return family
    known = ", ".join(f"{family.pipeline} ({family.label})" for family in FAMILIES.values())
    raise ModelError(f"{index}: _class_name is {kind!r}; only {known} is understood")


def check_local(
    settings: "BaseSettings", sampling: "SamplingSettings", training: "TrainingSettings | None" = None
) -> None:
    """Refuse a base in a directory that cannot be used, or not trained on; one on a hub is looked at when it is there.

    Raises:
        ModelError: it is incomplete, or of a kind that is not understood.
        RecipeError: there is no such directory, or the sampler, a picture's size or the training does not go with it.
    """
    if training:
        names.check_training(settings.model)
    if is_checkpoint(settings.model):
        Checkpoint.read(settings).noise(settings.prediction_type)
    folder, _ = _described(settings)
    check_sides(sampling, multiple_of(settings))
    if folder and settings.model != EMBEDDED:
        family = family_in(folder)
        check_asked(family, sampling)
        family.files.check_sampler(sampling, family.files.checked(folder, settings))
        if training and hasattr(family.files, "check_training"):  # Most can be trained with anything.
            family.files.check_training(folder.name, training, folder)
    if other := vae.local(settings):
        other.check(folder)


def _described(settings: "BaseSettings") -> tuple[Path | None, str]:
    """The directory with a base's small files, if it is on this machine; and the base, or whose they are, by name.

    Raises:
        RecipeError: there is no such directory.
    """
    single = is_checkpoint(settings.model)
    name = (settings.config or Checkpoint.read(settings).config) if single else settings.model
    folder = local_folder(name)
    if folder and not folder.is_dir():
        raise RecipeError(f"{'base.config' if single else 'base.model'}: {folder}: no such directory")
    return folder, name


def multiple_of(settings: "BaseSettings") -> int:
    """Pixels that both sides of a picture are divisible by, as far as the recipe and this machine's files tell.

    A repository on a hub that has no short name may be of any family, until it is fetched: it has the multiple that
    all families have in common, so that shapes do not change when it is.
    """
    if settings.model == EMBEDDED:
        return MINIATURE_MULTIPLE
    folder, name = _described(settings)
    if folder:
        return family_in(folder).multiple
    return FAMILIES[names.KNOWN[name].family].multiple if name in names.KNOWN else COMMON_MULTIPLE


def family_of(settings: "BaseSettings") -> Family:
    """The family of a base, by its name, or by its small files, which are fetched where they are not here.

    Raises:
        ModelError: it is on no hub and in no cache, or of no family.
    """
    folder, name = _described(settings)
    if not folder and (known := names.family_of(name)):
        return FAMILIES[known]
    return family_in(folder or find(settings, Reporter("", lambda _: None), whole=False)[1])


def check_sides(sampling: "SamplingSettings", multiple: int) -> None:
    """Refuse widths and heights of pictures that are not divisible by a base's multiple.

    Raises:
        RecipeError: naming the field and the sides beside it that are allowed.
    """
    for field, side in sampling.sides.items():
        if side % multiple:
            low = side // multiple * multiple
            raise RecipeError(f"{field}: {side} is not a multiple of {multiple}, as the base needs; "
                              f"{' or '.join(str(each) for each in (low, low + multiple) if each)} is")  # fmt: skip


def load(
    settings: "BaseSettings",
    sampling: "SamplingSettings",
    dtype: "torch.dtype",
    reporter: Reporter,
    *,
    denoiser_as_stored: bool = False,
) -> "DiffusionBase":
    """Find, check and load a base in a precision; every parameter is frozen. The sampler is checked before weights are.

    `denoiser_as_stored` leaves the denoiser in the precision of its files, for who puts it into another one anyway.

    Raises:
        ModelError: it cannot be reached, is incomplete, holds only pickle files, NaN or infinity, or is of no family.
        RecipeError: the recipe's resolution, sizes or sampler cannot be used with it.
    """
    other = vae.find(settings, reporter)  # It is small, so it comes first.
    model, folder = find(settings, reporter)
    family = family_in(folder)
    check_asked(family, sampling)
    if other:
        other.check(folder)
    check_sides(sampling, MINIATURE_MULTIPLE if settings.model == EMBEDDED else family.multiple)
    # In fp32 a base of billions of weights would take, for a moment, two to four times the memory that it is used in.
    precision = None if settings.quantize or denoiser_as_stored else dtype
    base: DiffusionBase = family.loader.load(model, folder, settings, sampling, precision, reporter)
    base.is_altered = bool(settings.quantize or settings.vae or settings.prediction_type)
    if other:
        other.put_into(base, dtype)
    if settings.quantize:
        base.quantize(settings.quantize, dtype)
    elif denoiser_as_stored:
        from avignon.models.runtime import move_to  # Here, because checking a base loads no torch.

        for encoder in base.prompt_encoders.values():
            move_to(encoder, dtype)
    return base


def find(settings: "BaseSettings", reporter: Reporter, *, whole: bool = True) -> tuple[str, Path]:
    """How the base is called, and the folder of its files, all or the small ones; of a single file, of its small ones.

    Raises:
        ModelError: it is on no hub and in no cache, or is told by its small files to be unusable.
    """
    if settings.model == EMBEDDED:
        return EMBEDDED, embedded_folder()
    if is_checkpoint(settings.model):
        return Path(settings.model).name, _config(settings, reporter)
    first, *others = names.homes_of(settings.model)
    wanted = hub.Wanted(first, (*others, *settings.mirrors), settings.revision, "base.model", "base.mirrors")
    bring = _fetched if whole else _described_by
    return hub.find(wanted, lambda name, access: bring(name, settings, access), reporter)


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
    first, *others = names.homes_of(settings.config or Checkpoint.read(settings).config)
    wanted = hub.Wanted(first, tuple(others), "main", "base.config", "base.config")
    return hub.find(wanted, lambda name, access: hub.download(name, "main", access, CONFIG_FILES), reporter)[1]


def _fetched(model: str, settings: "BaseSettings", access: hub.Access) -> Path:
    """Bring a repository into the hub's cache; its small files come first, and say what it is."""
    folder = _described_by(model, settings, access)
    fetched: Path = family_in(folder).loader.fetch(model, folder, settings, access)
    return fetched


def _described_by(model: str, settings: "BaseSettings", access: hub.Access) -> Path:
    """Bring the small files of a repository into the hub's cache."""
    return hub.download(model, settings.revision, access, SMALL_FILES)
