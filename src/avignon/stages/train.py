"""train: prepared images → LoRA adapters on a frozen base model.

Reads `dataset/`; writes `adapters/<name>/`: weights, card, model card, metrics. What does not change is computed once
(`training.dataset`); the loop then asks the device for nothing until it reports. `accelerate launch -m avignon train
RECIPE` spreads each batch over several processes, of which the main one alone writes.
"""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from textwrap import shorten

import torch
from accelerate import Accelerator

from avignon.adapters import files, sources
from avignon.core import distributed
from avignon.core.errors import RecipeError
from avignon.core.events import Reporter
from avignon.core.workspace import Workspace
from avignon.generation.sampler import ImageSampler
from avignon.models import frozen, loading
from avignon.models.base import DiffusionBase
from avignon.models.runtime import best_device
from avignon.recipe.schema import Recipe
from avignon.training.adapter_trainer import AdapterTrainer
from avignon.training.checkpoints import common
from avignon.training.fitting import fitted
from avignon.training.job import TrainingJob, finished
from avignon.training.loop import MultiAdapterTrainer
from avignon.training.setup import RuntimeConfig, deterministic, prepare_denoiser


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Train every adapter of the recipe that is not finished yet.

    Raises:
        InputError: a base, precision, optimizer or attention backend that is unavailable here.
        AvignonError: the loss or a gradient is not finite any more; the last good weights are kept.
    """
    settings = recipe.train
    accelerator = Accelerator(mixed_precision="no", cpu=best_device().type == "cpu")
    if settings.batch % (count := accelerator.num_processes):
        raise RecipeError(f"train.batch: {settings.batch} cannot be shared evenly by {count} processes")
    recipe, memory = fitted(recipe, accelerator.device, count, reporter)
    settings = recipe.train
    runtime = replace(RuntimeConfig.for_device(recipe, accelerator.device), memory=memory)
    reporter.note(f"training on {runtime.describe(count)}")
    learners = [("joint", recipe.artists)] if settings.mode == "joint" else [(a.slug, (a,)) for a in recipe.artists]
    jobs = [TrainingJob(name, artists, recipe, space, reporter, runtime, accelerator) for name, artists in learners]
    with deterministic(settings.deterministic):
        load = partial(loading.load, recipe.base, recipe.generate, torch.float32, reporter, denoiser_as_stored=True)
        base = load()
        base.check_training(settings)
        _check_with(base, recipe, reporter)
        waiting = [job for job in jobs if not job.is_done(base)]
        accelerator.wait_for_everyone()  # All have read the cards before the first process takes one away.
        if accelerator.is_main_process:
            for job in (job for job in jobs if job not in waiting):
                job.restate(base)
        for place, group in enumerate(_groups(waiting, base, together=settings.together)):
            if place:  # The one before has adapters on, in another precision.
                base = load()
            _train(group, base)
    if accelerator.is_main_process:
        _keep_others(space, {job.name for job in jobs}, reporter)


def _keep_others(space: Workspace, names: set[str], reporter: Reporter) -> None:
    """Set aside finished adapters that this recipe does not train; unfinished ones may go on."""
    for folder in sorted(space.adapters.iterdir()):
        if folder.name not in names and finished(folder):
            place = space.set_aside(folder)
            shutil.rmtree(folder)
            reporter.warn(
                f"{folder.name}: the recipe does not train it any more; the finished adapter is kept in {place}"
            )


def _check_with(base: DiffusionBase, recipe: Recipe, reporter: Reporter) -> None:
    """What only the base can tell of the user's words and files, told before anything is trained."""
    for name, value in recipe.generate.adapters.items():
        reporter.note(f"{name}: {files.check(base, sources.place(value, reporter)).summary}")
    for number, artist in enumerate(recipe.artists):
        if not base.reads_whole(artist.trigger):
            raise RecipeError(
                f"artists.{number}.trigger: {shorten(artist.trigger, 60)!r} is longer than the base's text encoder "
                f"reads ({base.max_tokens} tokens with the marks of start and end); shorten it"
            )


def _groups(waiting: Sequence[TrainingJob], base: DiffusionBase, *, together: bool) -> list[list[TrainingJob]]:
    """The jobs that train in step: all new ones, and an interrupted one with those of its cohort that are not done.

    The cohort changes rounding, and so the bits; a job goes on in the one that its checkpoint names. One without a
    checkpoint may be named as well: the run was killed while its cohort saved for the first time.
    """
    cohorts = distributed.broadcast_from_main(lambda: [_cohort(job, base) for job in waiting])
    if not together:
        return [[job] for job in waiting]
    keys = [job.checkpoints(base).key for job in waiting]
    groups: dict[frozenset[str], list[TrainingJob]] = {}
    for job, key, own in zip(waiting, keys, cohorts, strict=True):
        cohort = own or next((other for other in cohorts if key in other), own)
        groups.setdefault(cohort.intersection(keys), []).append(job)
    return list(groups.values())


def _cohort(job: TrainingJob, base: DiffusionBase) -> frozenset[str]:
    """Keys of the jobs in step with this one, itself included, when it was interrupted; none if it was not."""
    state, told = job.checkpoints(base).newest()
    for line in told:
        job.reporter.warn(line)
    return frozenset(state["in_step"] if state else ())


def _train(group: Sequence[TrainingJob], base: DiffusionBase) -> None:
    """Train in step; save, verify and write the cards of each adapter as soon as it is over."""
    first, names, accelerator = group[0], [job.name for job in group], group[0].accelerator
    if len(group) > 1:
        first.reporter.note(f"{len(group)} adapters in one pass: {', '.join(names)}")
    if accelerator.is_main_process:
        for job in group:
            job.set_aside(base)
            job.folder.card.unlink(missing_ok=True)
    if first.runtime.offload:
        frozen.keep_in_ram(base.denoiser)
    painter = ImageSampler(base, first.recipe, first.runtime.device, first.reporter)
    sets = [job.sets(base, painter) for job in group]
    samplers = [job.sampler(base, painter) for job in group]
    # All that will be asked for is read by now: the text encoder, maybe as large as the denoiser, leaves the memory.
    painter.read([job.preview(base) for job in group], last=True)
    shapes = {shape for own in sets for shape in own.train.shapes}
    parameters = prepare_denoiser(base, names, first.recipe, first.runtime, len(shapes))
    states = distributed.broadcast_from_main(lambda: common([job.checkpoints(base) for job in group]))
    trainers = [
        AdapterTrainer(job, base, own, sampler, factors, state)
        for job, own, sampler, factors, state in zip(group, sets, samplers, parameters, states, strict=True)
    ]
    with ExitStack() as loggers:
        for trainer in trainers:
            loggers.enter_context(trainer.logger)
        done = states[0]["step"] if states[0] else 0
        for trainer, metrics in MultiAdapterTrainer(base, trainers).run(done):
            if accelerator.is_main_process:
                trainer.job.finish(base, trainer.share, metrics, painter)
            accelerator.wait_for_everyone()
