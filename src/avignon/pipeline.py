"""A run: the stages in their order, what each depends on, and what is still up to date.

This page shows the whole house at work: a stage's inputs are the recipe's values that it reads, the files of the user's
that it reads, and the outputs of its parents. It runs when their hash, or a hash of its outputs, has changed.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avignon import __version__
from avignon.adapters.formats import diffusers as lora_files
from avignon.core import distributed, imaging, prompts
from avignon.core.errors import RecipeError
from avignon.core.events import Event, Reporter
from avignon.core.files import digest, sha256_of, storing, write_text
from avignon.core.naming import shown
from avignon.core.records import EMBEDDED
from avignon.core.workspace import Workspace
from avignon.evaluation.report import SCHEMA as REPORT
from avignon.recipe.schema import SCHEMA, FolderMuseum, Recipe
from avignon.stages.curate import least_edge


@dataclass(frozen=True)
class Stage:
    """One stage: the module of its name, the stages whose files it reads, and what else it depends on."""

    name: str
    parents: tuple[str, ...]
    sections: tuple[str, ...]
    """The parts of the recipe that it reads."""
    depends: Callable[[Recipe], Sequence[object]] = lambda _: ()
    """What else it depends on: the user's files, values of other parts."""
    shared: bool = False
    """Whether several processes do it together; the others are the first one's alone."""

    def inputs(self, recipe: Recipe, space: Workspace) -> str:
        """One hash over everything that the stage's outputs follow from."""
        return digest([SCHEMA, recipe.chosen(*self.sections), *self.depends(recipe), self._parents(space)])

    def is_current(self, recipe: Recipe, space: Workspace) -> bool:
        """Whether it need not run: its inputs and outputs are those of its last run, be it one of avignon 0.1.0."""
        earlier = digest([[recipe.as_in_schema_1(*self.sections), *self.depends(recipe)], self._parents(space)])
        return any(space.is_current(self.name, inputs) for inputs in (self.inputs(recipe, space), earlier))

    def _parents(self, space: Workspace) -> list[str]:
        return [space.made_by(parent) for parent in self.parents]

    def run(self, recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
        """Do the stage's work. Its module is loaded here and not before: training and generating need torch."""
        importlib.import_module(f"avignon.stages.{self.name}").run(recipe, space, reporter)


STAGES = (
    Stage("collect", (), ("museum", "artists", "collect"), lambda r: (_decisions(r), _folders(r))),
    Stage("curate", ("collect",), ("curate", "artists"), lambda r: (least_edge(r), _decisions(r))),
    Stage("prepare", ("curate",), ("prepare", "artists"), lambda r: (r.base.resolution,)),
    Stage(
        "train",
        ("prepare",),
        ("train", "artists", "base", "seed"),
        lambda r: (_base(r), *([r.painted_in_training, _sources(r)] if r.painted_in_training else ())),
        shared=True,
    ),
    Stage(
        "generate",
        ("prepare", "train"),
        ("generate", "base", "seed", "name"),
        lambda r: (r.adapter_names, _base(r), _external(r), _sources(r)),
        shared=True,
    ),
    # A report of an older schema is measured again.
    Stage("evaluate", ("prepare", "generate"), ("artists", "evaluate"), lambda r: (_local(r.evaluate.encoder), REPORT)),
    Stage(
        "exhibit",
        ("curate", "prepare", "train", "generate", "evaluate"),
        ("exhibit", "artists", "name"),
        lambda _: (__version__,),
    ),
)

NAMES = tuple(stage.name for stage in STAGES)


def run(recipe: Recipe, folder: Path, listener: Callable[[Event], None], *, until: str = NAMES[-1]) -> Workspace:
    """Carry a recipe through its stages up to `until`, doing again only what is not up to date.

    Args:
        recipe: what to do.
        folder: the workspace; the run is in its subfolder of the recipe's name.
        listener: hears every event.
        until: name of the last stage wanted.

    Raises:
        InputError: the user's input or surroundings are at fault; everything done before is kept.
    """
    space = Workspace(folder / recipe.name)
    wanted = STAGES[: NAMES.index(until) + 1]
    _check_files(recipe)
    if any(stage.name == "train" for stage in wanted):  # The stages before it go on without a base.
        _check_base(recipe)
    if not distributed.is_main_process():
        _assist(recipe, space, wanted)
        distributed.part()
        return space
    with space.locked():
        write_text(space.recipe, recipe.to_toml())
        _warn_of_markup(recipe, wanted, listener)
        for stage in wanted:
            inputs, current = stage.inputs(recipe, space), stage.is_current(recipe, space)
            if stage.shared:
                distributed.agree(current)
            if current:
                listener(Event(stage.name, "skipped", "up to date"))
                continue
            listener(Event(stage.name, "start"))
            with storing(space.root):
                stage.run(recipe, space, Reporter(stage.name, listener))
                space.record(stage.name, inputs)
            listener(Event(stage.name, "done"))
    distributed.part()
    return space


def _check_files(recipe: Recipe) -> None:
    """What the user's own files lack is told before anything is fetched, and hours of training lead up to them."""
    for image in _images(recipe):
        imaging.size_of(image)
    base = _base_folder(recipe)
    layers = lora_files.layers_in(base / "unet") if base and recipe.generate.adapters else {}
    for folder in recipe.generate.adapters.values():
        path = Path(folder) / lora_files.WEIGHTS_FILE
        if layers:
            lora_files.check_fit(path, layers)
        else:  # Whether it fits a base that is yet to be fetched, `train` tells before it trains.
            lora_files.factors(path)
    encoder = Path(recipe.evaluate.encoder)
    if encoder.is_absolute():
        from avignon.models import hub  # Here, because it takes a while to load.

        hub.described(encoder / "config.json", "no encoder in transformers' format")
        hub.check_weights(encoder, "model")


def _check_base(recipe: Recipe) -> None:
    """The same of a base in a directory; one on a hub is looked at when it is there."""
    base = _base_folder(recipe)
    if base and not base.is_dir():
        raise RecipeError(f"base.model: {base}: no such directory")
    if base and recipe.base.model != EMBEDDED:
        from avignon.models.stable_diffusion import (
            files as bases,  # Here, because it brings the hub's client, which takes a while to load.
        )

        bases.check_local(recipe)


def _warn_of_markup(recipe: Recipe, wanted: Sequence[Stage], listener: Callable[[Event], None]) -> None:
    """Say once, and early, what in the prompts is read as letters though other programs read more."""
    settings = recipe.generate
    texts = {f"generate.scenes.{number}.prompt": scene.prompt for number, scene in enumerate(settings.scenes)}
    texts |= {"generate.negative_prompt": settings.negative_prompt}
    texts |= {f"artists.{number}.trigger": artist.trigger for number, artist in enumerate(recipe.artists)}
    found = [f"{piece!r} ({field})" for field, text in texts.items() for piece in prompts.markup(text)]
    if found and "generate" in [stage.name for stage in wanted]:
        Reporter("generate", listener).warn(
            f"read as letters: {', '.join(found)}; prompts have no weights, adapters, alternatives or parts here: "
            "adapters are mixed by generate.weights or generate.path_adapters"
        )


def _assist(recipe: Recipe, space: Workspace, wanted: Sequence[Stage]) -> None:
    """Take part in the stages that several processes do together; what is up to date is the first one's word."""
    for stage in wanted:
        if stage.shared and not distributed.agree(True):
            stage.run(recipe, space, Reporter(stage.name, lambda _: None))


def _decisions(recipe: Recipe) -> dict[str, str]:
    files = {artist.slug: Path(artist.decisions) for artist in recipe.artists if artist.decisions}
    return {name: sha256_of(path) if path.is_file() else "" for name, path in files.items()}


def _folders(recipe: Recipe) -> list[Any]:
    """Names, sizes and times of the user's own scans, and of images added by hand."""
    museums = [museum for museum in map(recipe.museum_of, recipe.artists) if isinstance(museum, FolderMuseum)]
    added = [artist.originals for artist in recipe.artists if artist.originals]
    return [_state(Path(folder)) for folder in (*(museum.path for museum in museums), *added)]


def _state(root: Path) -> list[Any]:
    files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else []
    return [[shown(p.relative_to(root).as_posix()), p.stat().st_size, p.stat().st_mtime_ns] for p in files]


def _base(recipe: Recipe) -> list[Any]:
    folder = _base_folder(recipe)
    return _state(folder) if folder else []


def _base_folder(recipe: Recipe) -> Path | None:
    """Where the base is; None where that is a hub."""
    model = recipe.base.model
    if model == EMBEDDED:
        return Path(__file__).with_name("demo") / "base"
    return Path(model) if Path(model).is_absolute() else None


def _local(model: str) -> list[Any]:
    """A local model's files; one on a hub is told apart by its name and revision."""
    return _state(Path(model)) if Path(model).is_absolute() else []


def _images(recipe: Recipe) -> list[Path]:
    return [Path(scene.image) for scene in recipe.generate.scenes if scene.image]


def _sources(recipe: Recipe) -> list[str]:
    """The pictures that scenes begin from."""
    return [sha256_of(path) if path.is_file() else "" for path in _images(recipe)]


def _external(recipe: Recipe) -> list[Any]:
    return [_state(Path(folder)) for folder in recipe.generate.adapters.values()]
