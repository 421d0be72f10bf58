"""A run: the stages in their order, what each depends on, and what is still up to date.

This page shows the whole house at work: a stage's inputs are the recipe's values that it reads, the files of the user's
that it reads, and the outputs of its parents. It runs when their hash, or a hash of its outputs, has changed.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avignon import __version__, imaging, processes
from avignon.curate import least_edge
from avignon.recipe import EMBEDDED, FolderMuseum, Recipe
from avignon.records import Event, Voice
from avignon.workspace import Workspace, digest, sha256_of, storing, write_text


@dataclass(frozen=True)
class Stage:
    """One stage: the module of its name, the stages whose files it reads, and what else it depends on."""

    name: str
    parents: tuple[str, ...]
    depends: Callable[[Recipe], object]
    shared: bool = False
    """Whether several processes do it together; the others are the first one's alone."""

    def inputs(self, recipe: Recipe, space: Workspace) -> str:
        """One hash over everything that the stage's outputs follow from."""
        return digest([self.depends(recipe), [space.made_by(parent) for parent in self.parents]])

    def run(self, recipe: Recipe, space: Workspace, voice: Voice) -> None:
        """Do the stage's work. Its module is loaded here and not before: training and generating need torch."""
        importlib.import_module(f"avignon.{self.name}").run(recipe, space, voice)


STAGES = (
    Stage("collect", (), lambda r: [_dump(r, "museum", "artists", "collect"), _decisions(r), _folders(r)]),
    Stage("curate", ("collect",), lambda r: [_dump(r, "curate", "artists"), least_edge(r), _decisions(r)]),
    Stage("prepare", ("curate",), lambda r: [_dump(r, "prepare", "artists"), r.base.resolution]),
    Stage("train", ("prepare",), lambda r: [_dump(r, "train", "artists", "base", "seed"), _base(r)], shared=True),
    Stage(
        "generate",
        ("prepare", "train"),
        lambda r: [_dump(r, "generate", "base", "seed", "name"), r.adapter_names, _base(r), _external(r), _sources(r)],
        shared=True,
    ),
    Stage("evaluate", ("prepare", "generate"), lambda r: [_dump(r, "artists", "evaluate"), _local(r.evaluate.encoder)]),
    Stage(
        "exhibit",
        ("curate", "prepare", "train", "generate", "evaluate"),
        lambda r: [_dump(r, "exhibit", "artists", "name"), __version__],
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
    for image in _images(recipe):
        imaging.size_of(image)  # One that cannot be used is told before hours of training lead up to it.
    wanted = STAGES[: NAMES.index(until) + 1]
    if NAMES.index(until) >= NAMES.index("train"):
        _check_base(recipe)
    if not processes.is_first():
        _assist(recipe, space, wanted)
        processes.part()
        return space
    with space.locked():
        write_text(space.recipe, recipe.to_toml())
        for stage in wanted:
            inputs = stage.inputs(recipe, space)
            current = space.is_current(stage.name, inputs)
            if stage.shared:
                processes.agree(current)
            if current:
                listener(Event(stage.name, "skipped", "up to date"))
                continue
            listener(Event(stage.name, "start"))
            with storing(space.root):
                stage.run(recipe, space, Voice(stage.name, listener))
                space.record(stage.name, inputs)
            listener(Event(stage.name, "done"))
    processes.part()
    return space


def _assist(recipe: Recipe, space: Workspace, wanted: Sequence[Stage]) -> None:
    """Take part in the stages that several processes do together; what is up to date is the first one's word."""
    for stage in wanted:
        if stage.shared and not processes.agree(True):
            stage.run(recipe, space, Voice(stage.name, lambda _: None))


def _check_base(recipe: Recipe) -> None:
    """A base that cannot be used is told before anything is fetched."""
    from avignon import bases  # Here, because it brings the hub's client, which the first stages do without.

    bases.check_local(recipe)


def _dump(recipe: Recipe, *sections: str) -> Any:
    return recipe.model_dump(mode="json", include=set(sections))


def _decisions(recipe: Recipe) -> dict[str, str]:
    files = {artist.slug: Path(artist.decisions) for artist in recipe.artists if artist.decisions}
    return {name: sha256_of(path) if path.is_file() else "" for name, path in files.items()}


def _folders(recipe: Recipe) -> list[Any]:
    """Names, sizes and times of the user's own scans."""
    museums = [museum for museum in map(recipe.museum_of, recipe.artists) if isinstance(museum, FolderMuseum)]
    return [_state(Path(museum.path)) for museum in museums]


def _state(root: Path) -> list[Any]:
    files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else []
    return [[p.relative_to(root).as_posix(), p.stat().st_size, p.stat().st_mtime_ns] for p in files]


def _base(recipe: Recipe) -> list[Any]:
    if recipe.base.model == EMBEDDED:
        return _state(Path(__file__).with_name("embedded") / "base")
    return _local(recipe.base.model)


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
