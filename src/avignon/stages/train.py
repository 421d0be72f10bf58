"""train: prepared images → LoRA adapters on a frozen Stable Diffusion.

Reads `dataset/`; writes `adapters/<name>/`: weights, card, model card, metrics. What does not change is computed once
(`batches`); the loop then asks the device for nothing until it reports. `accelerate launch -m avignon train RECIPE`
spreads each batch over several processes, of which the first one alone writes.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from accelerate import Accelerator

from avignon.adapters import lora as adapters
from avignon.core import distributed
from avignon.core.errors import ModelError, RecipeError
from avignon.core.events import Reporter
from avignon.core.workspace import Workspace
from avignon.models import finite
from avignon.models.stable_diffusion import model as diffusion
from avignon.recipe.schema import Artist, Recipe
from avignon.training import dataset as batches
from avignon.training.adapter_trainer import AdapterTrainer
from avignon.training.checkpoints import common
from avignon.training.dataset import seed_of
from avignon.training.job import RuntimeConfig, TrainingJob, finished
from avignon.training.loop import MultiAdapterTrainer


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Train every adapter of the recipe that is not finished yet.

    Raises:
        InputError: a base, precision, optimizer or attention backend that cannot be had here.
        AvignonError: the loss or a gradient is no longer a number; the last good weights are kept.
    """
    settings = recipe.train
    accelerator = Accelerator(mixed_precision="no", cpu=diffusion.device().type == "cpu")
    if settings.batch % accelerator.num_processes:
        raise RecipeError(
            f"train.batch: {settings.batch} cannot be shared evenly by {accelerator.num_processes} processes"
        )
    runtime = RuntimeConfig.of(recipe, accelerator.device)
    reporter.note(f"training on {runtime.describe(accelerator.num_processes)}")
    jobs = [TrainingJob(*job, recipe, space, reporter, runtime, accelerator) for job in _jobs(recipe)]
    with _deterministic(settings.deterministic):
        base = diffusion.load(recipe, torch.float32, reporter)
        _check_with(base, recipe)
        waiting = [job for job in jobs if not job.is_done(base)]
        accelerator.wait_for_everyone()  # All have read the cards before the first process takes one away.
        if accelerator.is_main_process:
            for job in (job for job in jobs if job not in waiting):
                job.restate_rights()
        for place, group in enumerate(_groups(waiting, base, together=settings.together)):
            if place:  # The one before has adapters on, in another precision.
                base = diffusion.load(recipe, torch.float32, reporter)
            _train(group, base)
    if accelerator.is_main_process:
        _keep_others(space, {job.name for job in jobs}, reporter)


def _keep_others(space: Workspace, names: set[str], reporter: Reporter) -> None:
    """Set aside the finished adapters of an earlier recipe that this one does not train; unfinished ones may go on."""
    for folder in sorted(space.adapters.iterdir()):
        if folder.name not in names and finished(folder):
            place = space.set_aside(folder)
            shutil.rmtree(folder)
            reporter.warn(
                f"{folder.name}: the recipe does not train it any more; the finished adapter is kept in {place}"
            )


def _check_with(base: diffusion.Base, recipe: Recipe) -> None:
    """What only the base can tell of the user's words and files, told before anything is trained."""
    for folder in recipe.generate.adapters.values():
        adapters.check(base, Path(folder))
    window = batches.Window(base)
    for number, artist in enumerate(recipe.artists):
        if not window.holds(artist.trigger):
            raise RecipeError(
                f"artists.{number}.trigger: {shorten(artist.trigger, 60)!r} is longer than the base's text encoder "
                f"reads ({window.tokens} tokens with the marks of start and end); shorten it"
            )


def _jobs(recipe: Recipe) -> list[tuple[str, tuple[Artist, ...]]]:
    """The adapters by name, and the artists that each learns from."""
    if recipe.train.mode == "joint":
        return [("joint", recipe.artists)]
    return [(artist.slug, (artist,)) for artist in recipe.artists]


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Only algorithms that give the same bits each time; a GPU is slower with them, a CPU is so anyway.

    https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _groups(waiting: Sequence[TrainingJob], base: diffusion.Base, *, together: bool) -> list[list[TrainingJob]]:
    """The jobs that learn in step: all new ones, and an interrupted one with those of its company that are not done.

    Company changes last digits, and so the bits; a job goes on in the one that its checkpoint names. One without a
    checkpoint may be named as well: the run was killed while its company saved for the first time.
    """
    cohorts = distributed.broadcast_from_main(lambda: [_cohort(job, base) for job in waiting])
    if not together:
        return [[job] for job in waiting]
    keys = [job.checkpoints(base).key for job in waiting]
    groups: dict[frozenset[str], list[TrainingJob]] = {}
    for job, key, own in zip(waiting, keys, cohorts, strict=True):
        accelerator = own or next((other for other in cohorts if key in other), own)
        groups.setdefault(accelerator.intersection(keys), []).append(job)
    return list(groups.values())


def _cohort(job: TrainingJob, base: diffusion.Base) -> frozenset[str]:
    """Keys of the jobs in step with this one, itself included, when it was interrupted; none if it was not."""
    state, told = job.checkpoints(base).newest()
    for line in told:
        job.reporter.warn(line)
    return frozenset(state["in_step"] if state else ())


def _train(group: Sequence[TrainingJob], base: diffusion.Base) -> None:
    """Learn in step; save, prove and write the cards of each as soon as it is over."""
    recipe, runtime, accelerator, reporter = group[0].recipe, group[0].runtime, group[0].accelerator, group[0].reporter
    names = [job.name for job in group]
    if len(group) > 1:
        reporter.note(f"{len(group)} adapters in one pass: {', '.join(names)}")
    if accelerator.is_main_process:
        for job in group:
            job.set_aside(base)
            (job.folder / "card.json").unlink(missing_ok=True)
    sets = [job.sets(base) for job in group]
    parameters = prepare_unet(base.pipeline.unet, names, recipe, runtime)
    states = distributed.broadcast_from_main(lambda: common([job.checkpoints(base) for job in group]))
    trainers = [
        AdapterTrainer(job, base, own, factors, job.sampler(base), state)
        for job, own, factors, state in zip(group, sets, parameters, states, strict=True)
    ]
    with ExitStack() as journals:
        for trainer in trainers:
            journals.enter_context(trainer.logger)
        done = states[0]["step"] if states[0] else 0
        for trainer, metrics in MultiAdapterTrainer(base, trainers, recipe.train, accelerator, reporter).run(done):
            if accelerator.is_main_process:
                trainer.job.finish(base, trainer.share, metrics)
            accelerator.wait_for_everyone()


def prepare_unet(
    unet: Any, names: Sequence[str], recipe: Recipe, runtime: RuntimeConfig
) -> list[list[torch.nn.Parameter]]:
    """Put new adapters on the UNet and make it ready to train on this machine; returns what each is to train."""
    settings = recipe.train
    dtype = diffusion.DTYPES[runtime.precision]
    diffusion.place(unet, runtime.device, dtype, memory_format=torch.channels_last)
    if dtype == torch.float16 and (bad := finite.first_bad(unet.named_parameters())):
        raise ModelError(f"base.model: the UNet's {bad} overflows in fp16; set train.precision to bf16 or fp32")
    diffusion.set_attention_backend(unet, runtime.attention)
    parameters = [
        adapters.add(unet, name, settings.ranks, settings.alpha, seed_of(recipe.seed, name), dora=settings.dora)
        for name in names
    ]
    unet.train()
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if runtime.compiled:
        unet.compile_repeated_blocks()
    return parameters
