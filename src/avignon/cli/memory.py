"""How much memory a base takes to train and to paint with, setting by setting: `avignon doctor --base`."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avignon import __version__
from avignon.cli.tables import print_table
from avignon.core.files import cache_folder, digest, write_json
from avignon.models import names
from avignon.models.registry import FAMILIES, is_checkpoint

if TYPE_CHECKING:
    from avignon.generation.standalone import WantedBase
    from avignon.training.footprint import Place

GIB = 2**30

CARDS = (8, 12, 24)
"""GiB of the cards that `train.memory` names."""

TRAINED = {
    "train: nothing given up": (8, False, "", False),
    "train: one adapter per pass": (4, False, "", False),
    "train: and checkpointing": (4, True, "", False),
    "train: and 1 image per pass": (1, True, "", False),
    "train: and base.quantize = int8": (1, True, "int8", False),
    "train: or base.quantize = nf4": (1, True, "nf4", False),
    "train: or train.offload": (1, True, "", True),
}
"""Settings of two adapters at batch 4: images per pass of all adapters, checkpointing, quantised, weights in RAM."""

LOADED = "RAM to load the base"

PAINTED = {"paint: 4 pictures at once": 4, "paint: one by one": 1}

Told = dict[str, dict[str, int]]
"""Bytes by setting, then by place."""


def print_memory(model: str) -> None:
    """The table of a base."""
    from avignon.core.events import Reporter
    from avignon.generation.standalone import WantedBase
    from avignon.models import frozen, runtime
    from avignon.models.outline import outline
    from avignon.training.footprint import Place

    path = Path(model).expanduser()
    on_disk = is_checkpoint(model) or model.startswith((".", "/", "~"))
    wanted = WantedBase(str(path.resolve()) if on_disk else model)
    device = runtime.best_device()
    base = outline(wanted, Reporter("doctor", lambda _: None))
    half = FAMILIES[base.family].half
    places = {"a card": Place("cuda", half)}
    if device.type != "cuda":
        places["here"] = Place(device.type, runtime.precision_for("auto", "train", device, half))
    configs = [dict(network.config.to_dict() if hasattr(network.config, "to_dict") else network.config)
               for network in (base.denoiser, base.autoencoder, *base.readers)]  # fmt: skip
    libraries = [version(name) for name in ("torch", "diffusers", "transformers", "peft")]
    key = digest([__version__, libraries, repr(configs), base.resolution, repr(places), repr(TRAINED)])
    cached = cache_folder() / "memory" / f"{key}.json"
    told: Told = json.loads(cached.read_text(encoding="utf-8")) if cached.is_file() else {}
    if not told:
        told = _estimated(wanted, places)
        write_json(cached, told)
    total = runtime.memory_of(device)
    own = list(places)[-1]  # Where this machine would compute.
    fits = {setting: _fits(by, own, total) for setting, by in told.items() if setting != LOADED}
    rows = [(setting, *(_gib(by[place]) if place in by else "" for place in places), fits.get(setting, ""), "estimated")
            for setting, by in told.items()]  # fmt: skip
    rows += [
        (row["what"], *("" for _ in list(places)[1:]), _gib(row["bytes"]), "", _by(row)) for row in measured(model)
    ]
    licence = names.KNOWN[model].licence if model in names.KNOWN else names.licence_of(model)
    print_table(f"{model}, {base.resolution} pixels; licence: {licence}", ("setting", *places, "fits", "by"), rows)
    click.echo(f"base.quantize leaves in full: {', '.join(frozen.unquantised(base.denoiser, base.targets))}")


def _estimated(wanted: "WantedBase", places: dict[str, "Place"]) -> Told:
    """What each setting takes at each place, and what loading takes of RAM."""
    from avignon.core.events import Reporter
    from avignon.models.outline import outline
    from avignon.recipe.schema import Generate, Scene, Train
    from avignon.training.footprint import TrainingFootprint, of_painting

    reporter = Reporter("doctor", lambda _: None)
    told: Told = {setting: {} for setting in (*TRAINED, *PAINTED, LOADED)}
    for name, place in places.items():
        kept: dict[tuple[str, bool], TrainingFootprint] = {}
        for setting, (images, checkpointing, quantize, offload) in TRAINED.items():
            if offload and place.device != "cuda":
                continue
            if (quantize, offload) not in kept:
                kept[quantize, offload] = TrainingFootprint(
                    outline(wanted, reporter), Train(offload=offload), place, quantize=quantize
                )
            found = kept[quantize, offload].of(images, checkpointing=checkpointing)
            told[setting][name] = found.peak
            told[LOADED].setdefault(name, kept[quantize, offload].loading)
        for setting, count in PAINTED.items():
            base = outline(wanted, reporter)
            settings = Generate(scenes=(Scene(prompt=""),), batch=count)
            told[setting][name] = of_painting(base, settings, place, (base.resolution, base.resolution)).peak
    return told


def _fits(by: dict[str, int], own: str, total: int) -> str:
    """The cards, and this machine, that a setting fits; `own` is the place that stands for it."""
    from avignon.training.footprint import USED

    cards = [f"{size}GB" for size in CARDS if by["a card"] <= USED * size * GIB]
    here = ["here"] if own in by and by[own] <= USED * total else []
    return ", ".join(cards[:1] + here) or "none"


def measured(model: str) -> list[dict[str, Any]]:
    """What was measured of a base, row by row: `what`, `bytes`, `machine`, `date`."""
    rows: list[dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))["measured"]
    return [row for row in rows if row["base"] == model]


def in_short(name: str) -> str:
    """A known base's memory on a card, in a line."""
    told = json.loads(_FILE.read_text(encoding="utf-8"))["estimated"]
    if name not in told:
        return f"memory: avignon doctor --base {name}"
    paint = f"to paint {_gib(told[name]['paint'])} (estimated)"
    if names.KNOWN[name].train_on:
        return f"a card's memory {paint}"
    return f"a card's memory to train from {_gib(told[name]['train'])}, {paint}"


_FILE = Path(names.__file__).with_name("memory.json")


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _by(row: dict[str, Any]) -> str:
    return f"measured {row['date']}: {row['machine']}"
