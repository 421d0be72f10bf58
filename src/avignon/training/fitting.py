"""`train.memory`: the fastest settings whose memory, by its estimate, is there; chosen before anything is loaded."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from avignon.core.errors import RecipeError
from avignon.core.events import Reporter
from avignon.models.loading import family_of
from avignon.models.outline import outline
from avignon.models.runtime import attention_for, memory_of, precision_for
from avignon.recipe.schema import Recipe, Train
from avignon.training.footprint import USED, Footprint, Place, TrainingFootprint


@dataclass(frozen=True)
class Way:
    """How a step is cut into passes, and how the frozen weights are kept."""

    together: bool
    checkpointing: bool
    size: int
    """Images per pass, of each adapter."""
    quantize: str = ""
    offload: bool = False

    def images(self, adapters: int) -> int:
        """In a pass, of all adapters that share it."""
        return self.size * (adapters if self.together else 1)

    def says(self, recipe: Recipe, share: int) -> str:
        """What is not as the recipe has it, for people; `share` is how many images of each adapter a step has."""
        set_to = recipe.train
        fields = {
            "train.together = false": set_to.together and not self.together,
            "train.gradient_checkpointing = true": self.checkpointing and not set_to.gradient_checkpointing,
            f"train.micro_batch = {self.size}": self.size < min(set_to.micro_batch or share, share),
            f"base.quantize = '{self.quantize}', for training alone, which changes what it computes a little": (
                self.quantize != recipe.base.quantize
            ),
            "train.offload = true": self.offload and not set_to.offload,
        }
        return ", ".join(field for field, chosen in fields.items() if chosen) or "nothing need be given up"


def ways(settings: Train, share: int, adapters: int, *, quantize: str, on: str) -> Iterator[Way]:
    """From the fastest to the leanest: as the ladder goes down where memory runs out, then other weights.

    What a recipe has other than by default stays. The images of a step are always the same.
    """
    size = min(settings.micro_batch or share, share)
    cuts = [Way(True, settings.gradient_checkpointing, size)] if settings.together and adapters > 1 else []
    cuts += [Way(False, checkpointing, size) for checkpointing in (settings.gradient_checkpointing, True)]
    cuts += [Way(False, True, k) for k in range(size - 1, 0, -1) if share % k == 0 and not settings.micro_batch]
    kept = [(quantize, settings.offload)]
    kept += [("int8", settings.offload)] if not quantize else []
    kept += [(quantize, True)] if on == "cuda" and settings.compile != "on" else []
    for weights, offload in dict.fromkeys(kept):
        yield from (replace(cut, quantize=weights, offload=offload) for cut in dict.fromkeys(cuts))


def fitted(recipe: Recipe, device: torch.device, processes: int, reporter: Reporter) -> tuple[Recipe, str]:
    """The recipe with the settings that `train.memory` asks for, and a line of what they are; as it is without.

    Raises:
        RecipeError: none of them fits; the line names the nearest.
    """
    settings = recipe.train
    if not settings.memory:
        return recipe, ""
    total = memory_of(device) if settings.memory == "auto" else int(settings.memory.removesuffix("GB")) * 2**30
    adapters = len(recipe.adapter_names)
    share = settings.batch * (2 if settings.prior_images else 1) // processes
    nearest: tuple[int, Way] | None = None
    for way, found in _estimated(recipe, device, share, adapters, reporter):
        if found.peak <= USED * total:
            said = f"{way.says(recipe, share)}: about {_gib(found.peak)} of {_gib(total)} (estimated)"
            reporter.note(f"train.memory = {settings.memory!r}: {said}")
            return _with(recipe, way, share), said
        nearest = min(filter(None, (nearest, (found.peak, way))), key=lambda each: each[0])
    assert nearest
    raise RecipeError(
        f"train.memory: {settings.memory!r} is {_gib(total)}, of which {USED:.0%} are used; nothing fits, the nearest "
        f"is {nearest[1].says(recipe, share)}: about {_gib(nearest[0])} (estimated). Take a smaller base.resolution or "
        "base, or leave train.memory out to try"
    )


def _estimated(
    recipe: Recipe, device: torch.device, share: int, adapters: int, reporter: Reporter
) -> Iterator[tuple[Way, Footprint]]:
    """Each way with what it takes; an outline serves all that keep the weights alike."""
    settings, base = recipe.train, recipe.base
    family = family_of(base)
    precision = precision_for(settings.precision, "train", device, family.half)
    attention = attention_for(settings.attention, device, base.resolution, masked=family.masks_attention)
    place = Place(device.type, precision, attention)
    images = sum(artist.works for artist in recipe.artists) * recipe.prepare.crops
    told: dict[tuple[str, bool], TrainingFootprint] = {}
    for way in ways(settings, share, adapters, quantize=base.quantize, on=device.type):
        if (key := (way.quantize, way.offload)) not in told:
            told[key] = TrainingFootprint(
                outline(base, reporter), settings.model_copy(update={"offload": way.offload}), place,
                adapters=adapters, images=images, quantize=way.quantize,
            )  # fmt: skip
        yield way, told[key].of(way.images(adapters), checkpointing=way.checkpointing)


def _with(recipe: Recipe, way: Way, share: int) -> Recipe:
    alone = len(recipe.adapter_names) == 1 and recipe.train.together  # There is nothing to take apart.
    train: dict[str, bool | int] = {
        "together": way.together or alone,
        "gradient_checkpointing": way.checkpointing,
        "offload": way.offload,
    }
    if way.size < share:
        train["micro_batch"] = way.size
    return recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update=train),
            "base": recipe.base.model_copy(update={"quantize": way.quantize}),
        }
    )


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
