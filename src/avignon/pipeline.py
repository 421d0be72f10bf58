"""A run: the table of stages, what each depends on, and what is still up to date.

This page shows the whole house at work: a stage's inputs are the recipe's values that it reads, the files of the user's
that it reads, and the outputs of its parents. It runs when their hash, or a hash of its outputs, has changed.
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon import __version__
from avignon.core import distributed
from avignon.core.naming import shown
from avignon.museums import registry

if TYPE_CHECKING:  # The command line lists its commands from the table: what takes long to load is loaded by `run`.
    from avignon.core.events import Listener
    from avignon.core.workspace import Workspace
    from avignon.recipe.schema import Recipe


ADAPTER_FILES = 2
"""What a finished adapter's folder holds: raised where that changes, so that what is new is added, without training."""


@dataclass(frozen=True)
class Stage:
    """A row of the table: the module of its name does the work."""

    name: str
    help: str
    """What it does, in a sentence."""
    parents: tuple[str, ...]
    """The stages whose files it reads."""
    outputs: Callable[["Workspace"], Iterable[Path]]
    """The files that it writes, with folders and scraps among them."""
    sections: tuple[str, ...]
    """The parts of the recipe that it reads."""
    depends: Callable[["Recipe"], Sequence[object]] = lambda _: ()
    """What else it depends on: the user's files, values of other parts."""
    shared: bool = False
    """Whether several processes do it together; the others are the main process's alone."""

    def inputs(self, recipe: "Recipe", space: "Workspace") -> str:
        """One hash over everything that the stage's outputs follow from."""
        from avignon.core.files import digest
        from avignon.recipe.schema import SCHEMA

        return digest([SCHEMA, recipe.chosen(*self.sections), *self.depends(recipe), self._parents(space)])

    def is_current(self, recipe: "Recipe", space: "Workspace") -> bool:
        """Whether it need not run: its inputs and outputs are those of its last run, be it one of avignon 0.1.0."""
        from avignon.core.files import digest

        earlier = digest([[recipe.as_in_schema_1(*self.sections), *self.depends(recipe)], self._parents(space)])
        hashes = (self.inputs(recipe, space), earlier)
        return any(space.is_current(self.name, inputs, self.outputs(space)) for inputs in hashes)

    def _parents(self, space: "Workspace") -> list[str]:
        return [space.made_by(parent) for parent in self.parents]

    def work(self, recipe: "Recipe", space: "Workspace", listener: "Listener") -> None:
        """Do the stage's work. Its module is loaded here and not before: training and generating need torch."""
        from avignon.core.events import Reporter

        importlib.import_module(f"avignon.stages.{self.name}").run(recipe, space, Reporter(self.name, listener))


STAGES = (
    Stage(
        "collect",
        "Find the artists' works in the museum and fetch the images.",
        parents=(),
        outputs=lambda space: {*space.works.rglob("*")} - {space.ledger},
        sections=("museum", "artists", "collect"),
        depends=lambda recipe: (_decisions(recipe), _folders(recipe)),
    ),
    Stage(
        "curate",
        "Decide which works to train on; write the ledger.",
        parents=("collect",),
        outputs=lambda space: (space.ledger, *space.contact.rglob("*")),
        sections=("curate", "artists"),
        depends=lambda recipe: (recipe.least_edge, _decisions(recipe), *_buckets(recipe)),
    ),
    Stage(
        "prepare",
        "Crop, resample and caption the kept works.",
        parents=("curate",),
        outputs=lambda space: space.dataset.rglob("*"),
        sections=("prepare", "artists"),
        depends=lambda recipe: (recipe.base.resolution, *_buckets(recipe)),
    ),
    Stage(
        "train",
        "Train the LoRA adapters.",
        parents=("prepare",),
        outputs=lambda space: space.adapters.rglob("*"),
        sections=("train", "artists", "base", "seed"),
        depends=lambda recipe: (
            ADAPTER_FILES,
            *_base(recipe),
            *((painted, _sources(recipe)) if (painted := recipe.painted_in_training) else ()),
        ),
        shared=True,
    ),
    Stage(
        "generate",
        "Make the series of pictures.",
        parents=("prepare", "train"),
        outputs=lambda space: space.series.rglob("*"),
        sections=("generate", "base", "seed", "name"),
        depends=lambda recipe: (
            recipe.adapter_names,
            *_base(recipe),
            [_adapter(value) for value in recipe.generate.adapters.values()],
            _sources(recipe),
        ),
        shared=True,
    ),
    Stage(
        "evaluate",
        "Measure the series.",
        parents=("prepare", "generate"),
        outputs=lambda space: (space.report,),
        sections=("artists", "evaluate"),
        depends=lambda recipe: _measures(recipe),
    ),
    Stage(
        "exhibit",
        "Make the page.",
        parents=("curate", "prepare", "train", "generate", "evaluate"),
        outputs=lambda space: space.exhibition.rglob("*"),
        sections=("exhibit", "artists", "name"),
        depends=lambda _: (__version__,),
    ),
)

NAMES = tuple(stage.name for stage in STAGES)


def run(recipe: "Recipe", folder: Path, listener: "Listener", *, until: str = NAMES[-1]) -> "Workspace":
    """Carry a recipe through its stages up to the one named `until`, doing again only what is not up to date.

    The run is in the subfolder of `folder` that has the recipe's name. An `InputError` says what is at fault in the
    user's input or surroundings; everything done before is kept.
    """
    from avignon import checks
    from avignon.core.events import Reporter, StageDone, StageSkipped, StageStarted
    from avignon.core.files import storing, write_text
    from avignon.core.workspace import Workspace

    space = Workspace(folder / recipe.name)
    wanted = STAGES[: NAMES.index(until) + 1]
    names = {stage.name for stage in wanted}
    checks.check_files(recipe)
    if "train" in names:  # The stages before it go on without a base.
        from avignon.models import loading  # It loads the hub's client, which takes a while.

        loading.check_local(recipe.base, recipe.generate, recipe.train)
    if not distributed.is_main_process():  # It takes part in what several do together; the main one says when.
        for stage in wanted:
            if stage.shared and not distributed.broadcast(True):
                stage.work(recipe, space, lambda _: None)
        distributed.shutdown()
        return space
    with space.locked():
        write_text(space.recipe, recipe.to_toml())
        if "generate" in names:
            checks.warn_of_markup(recipe, Reporter("generate", listener))
        for stage in wanted:
            inputs, current = stage.inputs(recipe, space), stage.is_current(recipe, space)
            if stage.shared:
                distributed.broadcast(current)
            if current:
                listener(StageSkipped(stage.name))
                continue
            listener(StageStarted(stage.name))
            with storing(space.root):
                stage.work(recipe, space, listener)
                space.record(stage.name, inputs, stage.outputs(space))
            listener(StageDone(stage.name))
    distributed.shutdown()
    return space


def _buckets(recipe: "Recipe") -> list[Any]:
    """The shapes of training images, where they are not all square."""
    return [found] if (found := recipe.buckets) else []


def _decisions(recipe: "Recipe") -> dict[str, str]:
    return {artist.slug: _sha256(Path(artist.decisions)) for artist in recipe.artists if artist.decisions}


def _folders(recipe: "Recipe") -> list[Any]:
    """Names, sizes and times of the user's own scans, and of images added by hand."""
    museums = [registry.folder_of(recipe.museum_of(artist)) for artist in recipe.artists]
    added = [artist.originals for artist in recipe.artists]
    return [_state(Path(folder)) for folder in museums + added if folder]


def _measures(recipe: "Recipe") -> tuple[Any, ...]:
    """A local encoder's files (one on a hub is told apart by its name and revision), and the report's schema."""
    from avignon.evaluation.report import SCHEMA

    encoder = Path(recipe.evaluate.encoder)
    return _state(encoder) if encoder.is_absolute() else [], SCHEMA


def _sources(recipe: "Recipe") -> list[str]:
    """The pictures that scenes begin from."""
    return [_sha256(Path(scene.image)) for scene in recipe.generate.scenes if scene.image]


def _adapter(value: str) -> list[Any]:
    """An adapter's files; one on a hub is told apart by its name and revision."""
    from avignon.adapters import sources

    place = sources.local(value)
    if place and place.is_file():
        return [[place.stat().st_size, place.stat().st_mtime_ns]]
    return _state(place)


def _base(recipe: "Recipe") -> list[Any]:
    """The state of the base's files on this machine, and of others that it is read from."""
    return [_state(recipe.base.folder), *map(_state, recipe.base.further_places)]


def _state(root: Path | None) -> list[Any]:
    """Name, size and time of every file in a folder, or of the file; of none where there is nothing."""
    if not root or not root.exists():
        return []
    files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
    return [[shown(p.relative_to(root).as_posix()), p.stat().st_size, p.stat().st_mtime_ns] for p in files]


def _sha256(path: Path) -> str:
    from avignon.core.files import sha256_of

    return sha256_of(path) if path.is_file() else ""
