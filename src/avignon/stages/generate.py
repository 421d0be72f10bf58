"""generate: adapters → a series of pictures on the way from one adapter to the next.

Reads `adapters/` and `dataset/`; writes `series/<scene>/<stop>.png`, `series/series.json`, and in `series/placing.json`
what was measured to place the stops. The series' extras have further seeds: `<stop>-seed-<seed>.png`. A picture that
carries the very frame that is asked for is kept, so an interrupted series goes on where it stopped. Pictures made in
one batch differ in the last bit from those made alone, so what is missing is made again in its own batch. Several
processes (`accelerate launch -m avignon generate RECIPE`) share whole batches, so that their number changes no picture.
"""

from dataclasses import replace

import torch

from avignon.adapters import cards, files, headers, sources
from avignon.core import distributed
from avignon.core.errors import WorkspaceError
from avignon.core.events import Reporter
from avignon.core.files import write_json
from avignon.core.records import Series, series_record
from avignon.core.workspace import Workspace
from avignon.generation.pictures import FinishedPictures, Prints
from avignon.generation.sampler import ImageSampler
from avignon.generation.series import SeriesPlan
from avignon.generation.spacing import placing
from avignon.models import loading
from avignon.models.runtime import DTYPES, best_device, move_to, precision_for
from avignon.recipe.schema import Recipe


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Make every picture of the series that is not there yet.

    Raises:
        InputError: a base, precision or adapter that cannot be used; processes that do not share a folder.
    """
    device = best_device()
    precision = precision_for(recipe.generate.precision, "generate", device, loading.family_of(recipe.base).half)
    base = loading.load(recipe.base, recipe.generate, DTYPES[precision], reporter)
    if device.type == "cuda":  # Its convolutions are made for it; a CPU's results stay as they are.
        move_to(base.denoiser, memory_format=torch.channels_last)
    places = {name: space.adapter(name) for name in recipe.adapter_names}
    places |= {name: sources.place(value, reporter) for name, value in recipe.generate.adapters.items()}
    loaded = {}
    for name, place in places.items():
        loaded[name] = files.load(base, name, place, denoiser_only=name in recipe.generate.denoiser_only)
        if name in recipe.generate.adapters:
            reporter.note(f"{name}: {loaded[name].summary}")
    contents = {name: headers.content_hash(file.path) for name, file in loaded.items()}
    sampler, finished = ImageSampler(base, recipe, device, reporter), FinishedPictures(space, base)
    plan = SeriesPlan(recipe, base.identity, {name: file.sha256 for name, file in loaded.items()}, precision)
    placed = distributed.broadcast_from_main(lambda: placing(plan, sampler, finished, reporter))
    origins = {name: cards.origin(file) for name, file in loaded.items() if not file.card}
    series = replace(plan.series(placed, base.parts), origins=origins)
    prints = Prints(space.series, loaded, base.model, contents)
    if distributed.is_main_process():
        _restate_rights(series, finished, prints)
    distributed.barrier()
    _paint(series, sampler, finished, prints, reporter)
    distributed.barrier()
    if distributed.is_main_process():
        _finish(series, finished)


def _restate_rights(series: Series, finished: FinishedPictures, prints: Prints) -> None:
    """Write pictures anew, the same pixels, that say of their rights what no longer holds."""
    missing = finished.missing(series)
    for place, (file, frame) in enumerate(series.pictures):
        if place not in missing:
            prints.restate_rights(file, frame)


def _paint(
    series: Series, sampler: ImageSampler, finished: FinishedPictures, prints: Prints, reporter: Reporter
) -> None:
    """Paint what is missing, each process its share; the others' batches count as painted when it comes to them."""
    pictures = series.pictures
    # Extras keep to themselves, so that the series has the same bytes with and without them.
    grid, extra = (sampler.groups([frame for _, frame in part]) for part in (series.frames, series.extras))
    groups = [*grid, *([len(series.frames) + place for place in group] for group in extra)]
    missing = distributed.broadcast_from_main(lambda: finished.missing(series))
    finished.tell_changes(series, len(missing), reporter)
    done = len(pictures) - len(missing)
    todo = [group for group in groups if missing.intersection(group)]
    sampler.read([pictures[place][1] for group in todo for place in group], last=True)
    for number, group in enumerate(todo):
        wanted = missing.intersection(group)
        if number % distributed.num_processes() == distributed.process_index():
            for place, image in zip(group, sampler.paint([pictures[place][1] for place in group]), strict=True):
                if place in wanted:
                    prints.write(*pictures[place], image)
        done += len(wanted)
        reporter.progress(done, len(pictures), pictures[group[-1]][0])


def _finish(series: Series, finished: FinishedPictures) -> None:
    """Write the index and sweep, once all pictures are there, the other processes' too."""
    space = finished.space
    if distributed.num_processes() > 1 and (unseen := finished.missing(series)):
        raise WorkspaceError(
            f"{space.series / series.pictures[min(unseen)][0]}: not there, or not what was asked for, though another "
            "process painted it; all machines need one --workspace, with the same base and adapters"
        )
    write_json(space.series_index, series_record(series))
    kept = {space.series_index, space.placing, *(space.series / file for file, _ in series.pictures)}
    space.sweep(space.series, kept)
