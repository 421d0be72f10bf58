"""Saved adapters by themselves: on the base that their cards name, painted with and kept as files, without a recipe."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from avignon.adapters import files, headers, sources
from avignon.adapters.formats import registry as formats
from avignon.adapters.formats.registry import AdapterFile
from avignon.adapters.weights import weighted
from avignon.core import prompts
from avignon.core.errors import AdapterError, InputError, WorkspaceError
from avignon.core.events import Reporter
from avignon.core.files import json_value
from avignon.core.naming import stem
from avignon.core.records import EMBEDDED, Frame
from avignon.generation.pictures import Prints, shows
from avignon.generation.sampler import ImageSampler
from avignon.generation.series import bare_frame
from avignon.models import loading
from avignon.models.registry import local_folder
from avignon.models.runtime import DTYPES, best_device, precision_for
from avignon.recipe.schema import Generate, Train, adapter_place


@dataclass(frozen=True)
class WantedBase:
    """Which base is wanted; the resolution 0 asks for what it was trained at."""

    model: str
    revision: str = "main"
    variant: str = ""
    resolution: int = 0
    mirrors: tuple[str, ...] = ()
    vae: str = ""
    vae_mirrors: tuple[str, ...] = ()
    vae_revision: str = "main"
    config: str = ""
    prediction_type: str = ""
    quantize: str = ""


@dataclass(frozen=True)
class SavedAdapter:
    """A finished adapter, and how much of it is wanted."""

    name: str
    """As pictures and files call it."""
    place: Path
    """Its folder, or its file."""
    file: AdapterFile
    weight: float = 1.0
    card: Mapping[str, Any] = field(default_factory=dict)
    """Its card; empty where it has none."""

    @property
    def triggers(self) -> tuple[str, ...]:
        """The phrases by which prompts call it, as far as its card or its header says."""
        told = self.file.metadata.get("modelspec.trigger_phrase", "")
        return tuple(map(str, self.card.get("triggers", [told] if told else [])))

    @property
    def base(self) -> WantedBase | None:
        """The base that its card names, or its header; None where neither does.

        Raises:
            AdapterError: the card is damaged, or names a directory that is not there.
        """
        return self._base_of_card() if "base" in self.card else _base_in(self.file.metadata)

    @property
    def fingerprint(self) -> str:
        """That of the base on its card; empty where none is told."""
        return str(self.card["base"]["fingerprint"]) if "base" in self.card else ""

    @property
    def base_settings(self) -> dict[str, Any]:
        """`[base]` of the recipe on its card.

        Raises:
            AdapterError: the card is damaged.
        """
        try:
            return dict(self.card["recipe"]["base"])
        except (KeyError, TypeError, ValueError):
            raise AdapterError(f"{self.file.card}: damaged: no recipe with a base") from None

    def _base_of_card(self) -> WantedBase:
        path, asked = self.file.card, self.base_settings
        try:
            told = self.card["base"]
            model, fingerprint = str(told["model"]), str(told["fingerprint"])
            place = local_folder(asked["model"])  # A card calls a directory by its name alone, its recipe by its path.
            revision, resolution = told["revision"] or asked["revision"], int(told["resolution"])
            variant = str(asked["variant"])
            further: dict[str, Any] = {
                key: str(asked.get(key, "")) for key in ("config", "prediction_type", "quantize")
            }
            vae, used = str(asked.get("vae", "")), told.get("vae", {})
            further["vae"] = vae if local_folder(vae) else str(used.get("model", ""))
            further["vae_revision"] = str(used.get("revision") or "main")
        except (KeyError, TypeError, ValueError, AttributeError):
            raise AdapterError(f"{path}: damaged: no base with model, fingerprint and resolution") from None
        if place and not place.exists():
            raise AdapterError(
                f"{path}: made for the base {model} ({fingerprint[:12]}), which is not there ({place}); "
                "name it with --base"
            )
        local = str(place) if place and model != EMBEDDED else model
        return WantedBase(local, revision, variant, resolution, **further)


def _base_in(header: Mapping[str, str]) -> WantedBase | None:
    """The base that a header names as trainers write it (`ss_sd_model_name`): a repository; a file's name is none."""
    model = header.get("ss_sd_model_name", "")
    if model != EMBEDDED and not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return None
    size = re.search(r"\d+", header.get("ss_resolution", ""))
    return WantedBase(model, resolution=int(size[0]) if size else 0)


def saved(asked: Sequence[str], reporter: Reporter) -> list[SavedAdapter]:
    """The adapters that a command names, each as `ADAPTER` or `ADAPTER=WEIGHT`; two of one name are told apart.

    An adapter is a folder, a file, a name that `avignon import` gave, or a repository of the hub (`sources.place`).

    Raises:
        AdapterError: one is missing or damaged, or is named twice.
    """
    found: dict[str, SavedAdapter] = {}
    for place, weight in map(weighted, asked):
        here = sources.place(adapter_place(place, Path.cwd()), reporter, "ADAPTER")
        file = formats.find(here)
        if any(file.path == other.file.path for other in found.values()):
            raise AdapterError(f"{place}: named twice; one adapter has one weight")
        own = here.stem if here.is_file() else Path(place.partition("@")[0]).resolve().name  # Not a hub's commit.
        name = next(name for name in _numbered(own) if name not in found)
        found[name] = SavedAdapter(name, here, file, weight, _card(file))
    return list(found.values())


def _card(file: AdapterFile) -> Mapping[str, Any]:
    if not file.card:
        return {}
    try:
        card = json_value(file.card.read_bytes())
    except ValueError:
        card = None
    if not isinstance(card, dict):
        raise AdapterError(f"{file.card}: damaged: no JSON object")
    return card


def base_for(adapters: Sequence[SavedAdapter], asked: str = "", size: int = 0) -> WantedBase:
    """The base to put the adapters on: the one that is asked for, else the one that their cards or headers name.

    One that is asked for predicts what the first card says, and is kept in as many bits.

    Raises:
        InputError: no card names one, or two cards name different ones.
    """
    if asked:
        model = str(Path(asked).expanduser().resolve()) if asked.startswith((".", "/", "~")) else asked
        told = next((each.base_settings for each in adapters if "base" in each.card), {})
        further: dict[str, Any] = {key: str(told.get(key, "")) for key in ("prediction_type", "quantize")}
        return WantedBase(model, resolution=size, **further)
    named = [(each, base) for each in adapters if (base := each.base)]
    if not named:
        raise InputError(
            f"{adapters[0].place}: nothing says for which base it was made; name one with --base "
            f"(a model on the hub, a directory, or `{EMBEDDED}`)"
        )
    (first, wanted), *others = named
    for each, base in others:
        same = each.fingerprint and each.fingerprint == first.fingerprint
        if base.model != wanted.model and not same:
            raise AdapterError(
                f"{each.place}: made for {base.model} ({each.fingerprint[:12]}), and {first.place} for "
                f"{wanted.model} ({first.fingerprint[:12]}); adapters in one picture need one base"
            )
    return replace(wanted, resolution=size or wanted.resolution)


class StandaloneSampler:
    """Saved adapters on a loaded base, ready to paint into a folder.

    A picture that is there already, with its very frame, is kept; nothing else is overwritten.
    """

    train = Train()

    def __init__(
        self, adapters: Sequence[SavedAdapter], wanted: WantedBase, settings: Generate, folder: Path, reporter: Reporter
    ) -> None:
        device = best_device()
        self.adapters, self.generate, self.folder, self._reporter = adapters, settings, folder, reporter
        half = loading.family_of(wanted).half
        self.precision = precision_for(settings.precision, reporter.stage, device, half)
        self.device, self.base = device, loading.load(wanted, settings, DTYPES[self.precision], reporter)
        if not self.base.resolution:
            raise InputError(f"base.resolution: {self.base.model} does not say at which size it was trained")
        for each in adapters:
            files.load(self.base, each.name, each.place, denoiser_only=each.name in settings.denoiser_only)
            if not each.card:
                reporter.note(f"{each.name}: {each.file.summary}")
        (first, *_), edge = settings.scenes, self.base.resolution
        self.size = first.width or edge, first.height or edge
        self.hashes = {each.name: each.file.sha256 for each in adapters}
        contents = {each.name: headers.content_hash(each.file.path) for each in adapters}
        self._sampler = ImageSampler(self.base, self, device, reporter)
        self._prints = Prints(folder, {each.name: each.file for each in adapters}, self.base.model, contents)

    def frame(self, stop: str, prompt: str, seed: int, weights: Mapping[str, float]) -> Frame:
        """A picture of a prompt by the adapters with these weights; of the base alone where there are none."""
        bare = bare_frame(self.generate, prompt, seed, self.size, self.base.identity, self.precision)
        return replace(
            bare,
            stop=stop,
            weights=weights,
            adapters={name: self.hashes[name] for name in weights},
            denoiser_only=tuple(name for name in self.generate.denoiser_only if weights.get(name)),
        )

    def rights(self, frame: Frame) -> str:
        """What a picture must say of its adapters."""
        return self._prints.rights(frame)

    def paint(self, frames: Sequence[Frame]) -> list[Path]:
        """Paint what is not there yet; gives the frames' files, in their order.

        What is missing is made in the batch in which all would be made, so that a second call gives the same bytes.
        """
        names = _names(self.folder, frames)
        missing = {place for place, (_, there) in enumerate(names) if not there}
        for file, frame in ((names[place][0], frames[place]) for place in range(len(frames)) if place not in missing):
            self._prints.restate_rights(file, frame)
        done = len(frames) - len(missing)
        self._sampler.read(frames if missing else [])
        for group in self._sampler.groups(frames):
            if not (wanted := missing.intersection(group)):
                continue
            for place, image in zip(group, self._sampler.paint([frames[place] for place in group]), strict=True):
                if place in wanted:
                    self._prints.write(names[place][0], frames[place], image)
            done += len(wanted)
            self._reporter.progress(done, len(frames), names[group[-1]][0])
        return [self.folder / file for file, _ in names]


def _names(folder: Path, frames: Sequence[Frame]) -> list[tuple[str, bool]]:
    """The file of each frame, by its scene, stop and seed, and whether it is there already."""
    names: dict[str, bool] = {}
    for frame in frames:
        file = "-".join(filter(None, (frame.scene, stem(frame.stop), str(frame.seed)))) + ".png"
        path, there = free_file(folder / file, partial(_shows, frame), names)
        names[path.name] = there
    return list(names.items())


def _shows(frame: Frame, path: Path) -> bool:
    try:
        return shows(path, frame)
    except WorkspaceError:  # A newer avignon painted it.
        return False


def free_file(path: Path, holds: Callable[[Path], bool], taken: Collection[str] = ()) -> tuple[Path, bool]:
    """Where something can be written without overwriting anything else, and whether it is there already.

    The path itself or, where that is a file which does not hold it, or is among `taken`, one with a number.
    """
    for name in _numbered(path.stem):
        file = path.with_stem(name)
        if file.name not in taken and (not file.exists() or holds(file)):
            return file, file.exists()
    raise AssertionError  # There are numbers enough.


def _numbered(name: str) -> Iterator[str]:
    """A name, then the same with a number behind it, from 2."""
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def tell_words(adapters: Sequence[SavedAdapter], texts: Sequence[str], reporter: Reporter) -> None:
    """Say what prompts lack of the adapters' trigger phrases, and what in them is read as letters."""
    for each in adapters:
        bare = [text for text in texts if not any(trigger in text for trigger in each.triggers)]
        if each.triggers and bare:
            reporter.note(f"{each.name}: {bare[0]!r} is without its trigger phrase, {' or '.join(each.triggers)!r}")
    if found := [repr(piece) for text in texts for piece in prompts.markup(text)]:
        reporter.warn(f"read as letters: {', '.join(found)}; adapters and their weights are named before the prompt")
