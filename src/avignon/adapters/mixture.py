"""Which adapters are merged, and how much of each: named one by one, or those of a stop of a series."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from avignon.adapters import export, files, modelspec, sources
from avignon.adapters.export import Source
from avignon.adapters.merge import Merged, Part, merged
from avignon.adapters.weights import block_factor
from avignon.core.errors import AdapterError, RecipeError, WorkspaceError
from avignon.core.events import Reporter
from avignon.core.files import read_json
from avignon.core.records import Frame, series_from
from avignon.core.workspace import Workspace
from avignon.models import loading
from avignon.models.base import DiffusionBase
from avignon.models.registry import FAMILIES
from avignon.recipe.schema import Base, Recipe

DENOISERS = {family.denoiser for family in FAMILIES.values()}
"""Components whose layers lie in blocks; the others read prompts."""


@dataclass(frozen=True)
class Ingredient:
    """An adapter and how much of it."""

    source: Source
    weight: float
    blocks: Mapping[str, float] = field(default_factory=dict)
    """Factors on the weight in parts of the denoiser, as `weights.block_factor` takes them."""
    denoiser_only: bool = False
    """Whether what it changes in prompt encoders is left out."""


@dataclass(frozen=True)
class _Sampling:
    """What is asked of a base that paints nothing."""

    scheduler: str = ""
    num_inference_steps: int = 1
    block_weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sides: Mapping[str, int] = field(default_factory=dict)


def of_places(given: Sequence[str], reporter: Reporter) -> list[Ingredient]:
    """Adapters as a user names them, `ADAPTER=WEIGHT`.

    Raises:
        AdapterError: a weight that is none, an adapter that is missing or damaged.
    """
    found = []
    for each in given:
        place, _, number = each.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not place or not math.isfinite(weight):
            raise AdapterError(f"{each!r}: not ADAPTER=WEIGHT, such as runs/demo/adapters/NAME=0.7")
        found.append(Ingredient(export.named(place, reporter), weight))
    return found


def of_stop(recipe: Recipe, space: Workspace, scene: str, stop: str, reporter: Reporter) -> list[Ingredient]:
    """The adapters of a picture of a series, with the weights (gains among them) that it was painted with.

    Raises:
        WorkspaceError: there is no series yet, or no such picture in it.
        RecipeError: a weight that changes over the denoising steps, which no file can hold.
        AdapterError: an adapter is not that of the series any more.
    """
    frame = _frame(space, scene, stop)
    if changing := ", ".join(frame.weight_schedule):
        raise RecipeError(
            f"{frame.scene}/{frame.stop}: the weight of {changing} changes over the denoising steps (generate.path = "
            "'relay' or generate.weight_schedule); a file has one weight for all steps"
        )
    found = []
    for name, weight in frame.weights.items():
        if not weight:
            continue
        other = recipe.generate.adapters.get(name)
        source = export.opened(sources.place(other, reporter) if other else space.adapter(name))
        if source.sha256 != frame.adapters[name]:
            raise AdapterError(f"{source.path}: not the adapter that the series was painted with; run generate again")
        blocks, denoiser_only = frame.block_weights.get(name, {}), name in frame.denoiser_only
        found.append(Ingredient(source, weight, blocks, denoiser_only))
    if not found:
        raise WorkspaceError(f"{frame.scene}/{frame.stop}: painted by the base alone; name a stop with an adapter")
    return found


def _frame(space: Workspace, scene: str, stop: str) -> Frame:
    if not space.series_index.exists():
        raise WorkspaceError(f"{space.series_index}: no series yet; avignon generate makes it")
    series = series_from(read_json(space.series_index))
    wanted = (f"scene-{scene}" if scene.isdigit() else scene, f"stop-{stop}" if stop.isdigit() else stop)
    for _, frame in series.frames:
        if (frame.scene, frame.stop) == wanted:
            return frame
    there = f"{len(series.scenes)} scenes and {len(series.stops)} stops"
    raise WorkspaceError(f"{space.series_index}: no {'/'.join(wanted)}; there are {there}")


def merge(
    ingredients: Sequence[Ingredient], title: str, rank: int, base: Base | str, reporter: Reporter
) -> tuple[Merged, dict[str, str]]:
    """The sum of adapters, of at most a rank in each layer (0 keeps all), and the header of its file.

    `base`, by its settings or its name, is needed for a DoRA and for weights of blocks; empty: the one on a card.

    Raises:
        AdapterError: adapters of different bases; a DoRA without a rank.
        ModelError: a base that is needed and unavailable.
    """
    _check_one_base([each.source for each in ingredients])
    loaded = _base(ingredients, rank, base, reporter)
    parts = [Part(each.source.name, each.source.state, _weight_of(each, loaded)) for each in ingredients]
    own = {name: layer.weight for name, layer in files.layers_of(loaded).items()} if loaded else {}
    mixed = merged(parts, rank, own)
    told = f"the sum of the adapters' changes of weights, {f'truncated to rank {rank}' if rank else 'exact'}"
    told += f" (relative error {mixed.error:.2g})" if rank else ""
    names = [(each.source.name, each.source.header(), each.weight) for each in ingredients]
    return mixed, modelspec.of_merge(names, export.network(mixed.state), title, told)


def _check_one_base(sources: Sequence[Source]) -> None:
    """Cards say which weights an adapter is for, headers which architecture."""
    first, *others = sources
    for other in others:
        known = [(source.card and source.card.base["fingerprint"], source.architecture) for source in (first, other)]
        (one, kind), (another, other_kind) = known
        if kind != other_kind or (one and another and one != another):
            raise AdapterError(
                f"{first.name} and {other.name}: made for different bases ({kind} {one or ''}, {other_kind} "
                f"{another or ''}); merge adapters of one base"
            )


def _base(ingredients: Sequence[Ingredient], rank: int, base: Base | str, reporter: Reporter) -> DiffusionBase | None:
    """The base, where a DoRA or weights of blocks need it."""
    doras = [each.source.name for each in ingredients if export.network(each.source.state).dora]
    if not (doras and rank) and not any(each.blocks for each in ingredients):
        return None
    known = [each.source.card.recipe["base"] for each in ingredients if each.source.card]
    if isinstance(base, str) and not base and not known:
        return None
    if isinstance(base, str):
        edge = ingredients[0].source.header()["modelspec.resolution"].partition("x")[0]
        told = {"model": base, "resolution": int(edge)} if base else known[0]
        base = Base.model_validate(told, context=Path.cwd())
    # What is written is for any copy of the base, so the sum is taken on its weights in full.
    return loading.load(base.model_copy(update={"quantize": ""}), _Sampling(), torch.float32, reporter)


def _weight_of(each: Ingredient, base: DiffusionBase | None) -> Callable[[str], float]:
    def weight(layer: str) -> float:
        component, _, inside = layer.partition(".")
        if component not in DENOISERS:
            return 0.0 if each.denoiser_only else each.weight
        if not each.blocks or base is None:
            return each.weight
        return each.weight * block_factor(each.blocks, inside, base.targets.part_of(inside))

    return weight
