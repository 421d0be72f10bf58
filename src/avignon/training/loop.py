"""Adapters that learn in step: each draws its own batch, and all go through the frozen base in one pass.

The base computes on all samples at once, each layer's factors on their own adapter's alone (`adapters.routed`), and the
loss is the sum of the adapters' losses, so that gradients, steps and faults stay apart. One adapter by itself is the
same loop with nothing to route.
"""

import gc
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler

from avignon.adapters import lora as adapters
from avignon.core.errors import AvignonError
from avignon.core.events import Reporter
from avignon.models.stable_diffusion import model as diffusion
from avignon.recipe.schema import Train
from avignon.training.adapter_trainer import AdapterTrainer
from avignon.training.dataset import Batch, joined
from avignon.training.metrics import Step
from avignon.training.objective import denoising_losses, min_snr_weights
from avignon.training.optimizer import Fault

T = TypeVar("T")

REPORT_EVERY = 20
"""Steps between two looks at what a device has computed; on a CPU looking costs nothing, so it is every step there."""


class MultiAdapterTrainer:
    """The loop: passes, updates, checkpoints, reports, and the way down when memory runs out."""

    def __init__(
        self,
        base: diffusion.Base,
        trainers: Sequence[AdapterTrainer],
        settings: Train,
        accelerator: Accelerator,
        reporter: Reporter,
    ) -> None:
        self._settings, self._cohort, self._reporter = settings, accelerator, reporter
        self._trainers = list(trainers)
        self._unet = base.pipeline.unet
        self._schedule = DDPMScheduler.from_config(base.pipeline.scheduler.config)
        self._share = settings.batch * (2 if settings.prior_images else 1) // accelerator.num_processes
        self._fallback = OomFallback(self._unet, settings, self._share)
        self._pending: list[list[Step]] = []
        """Steps that nobody has looked at yet, of each learner."""

    def run(self, done: int) -> Iterator[tuple[AdapterTrainer, dict[str, Any]]]:
        """Train from step `done` on; gives each learner that is over, and what to say of it, as soon as it is.

        All are saved then, so that an interrupted run goes on in the same company.

        Raises:
            AvignonError: a loss or a gradient is no longer a number; the last good weights of all are kept.
        """
        while self._trainers:
            self._fallback.apart |= len(self._trainers) == 1
            with adapters.routed(self._unet, [trainer.name for trainer in self._trainers]):
                done = self._until_one_is_over(done)
            over = [trainer for trainer in self._trainers if trainer.is_over(done)]
            self._trainers = [trainer for trainer in self._trainers if trainer not in over]
            for trainer in over:
                yield trainer, trainer.result(done, self._fallback.size)

    def _until_one_is_over(self, done: int) -> int:
        beat = 1 if self._cohort.device.type == "cpu" else REPORT_EVERY
        with deferred_interrupt() as stopping:
            while not self._is_one_over(done):
                self._pending.append(self._step(done))
                done += 1
                found = [trainer.look(done, self._fallback.size) for trainer in self._trainers]
                saving = done % self._settings.checkpoint_every == 0 or self._is_one_over(done)
                if len(self._pending) == beat or saving or any(found):
                    self._report(found)
                stop = stopping()
                if saving or stop:
                    self._report([{} for _ in found])
                    self._save(done)
                if stop:
                    break
        return done

    def _is_one_over(self, done: int) -> bool:
        return any(trainer.is_over(done) for trainer in self._trainers)

    # A step ----------------------------------------------------------------------------------------------------------

    def _step(self, number: int) -> list[Step]:
        """One optimizer step of each; nothing here waits for the device."""
        losses = self._fallback.climb(lambda: self._passes(number), self._start_over)
        return [trainer.update(number, loss) for trainer, loss in zip(self._trainers, losses, strict=True)]

    def _passes(self, number: int) -> list[torch.Tensor]:
        """Gradients of this process's share of each batch, as the ladder says; the sum of each learner's losses."""
        if len(self._trainers) == 1 or not self._fallback.apart:
            return self._passes_of(self._trainers, number)
        losses: list[torch.Tensor] = []
        for trainer in self._trainers:
            with adapters.routed(self._unet, [trainer.name]):
                losses += self._passes_of([trainer], number)
        return losses

    def _passes_of(self, trainers: Sequence[AdapterTrainer], number: int) -> list[torch.Tensor]:
        totals = [torch.zeros((), device=self._cohort.device) for _ in trainers]
        draws = [
            list(trainer.sample_batch(number).parts(self._share))[self._cohort.process_index] for trainer in trainers
        ]
        for parts in zip(*(drawn.parts(self._fallback.size) for drawn in draws), strict=True):
            losses = self._losses(parts)
            scaled = [loss * trainer.updates.scale for trainer, loss in zip(trainers, losses, strict=True)]
            torch.stack(scaled).sum().backward()  # type: ignore[no-untyped-call]
            for total, trainer, loss in zip(totals, trainers, losses, strict=True):
                trainer.factors.gather()
                total += loss.detach()
        return totals

    def _losses(self, parts: Sequence[Batch]) -> list[torch.Tensor]:
        """Each part's share of its batch's loss, from one pass of them all."""
        drawn = joined(parts)
        losses = denoising_losses(self._unet, self._schedule, drawn) * drawn.weight
        if self._settings.min_snr_gamma:
            losses = losses * min_snr_weights(self._schedule, drawn.timesteps, self._settings.min_snr_gamma)
        return [own.sum() / self._settings.batch for own in losses.chunk(len(parts))]

    def _start_over(self, line: str) -> None:
        self._reporter.warn(f"{', '.join(trainer.name for trainer in self._trainers)}: {line}")
        for trainer in self._trainers:
            trainer.factors.forget()

    # What is kept of it ----------------------------------------------------------------------------------------------

    def _save(self, done: int) -> None:
        """All have written this step before the first lets an older one go: one step is always common to all."""
        if self._cohort.is_main_process:
            self._write(dict.fromkeys(self._trainers, done))
            for trainer in self._trainers:
                trainer.checkpoints.prune(done)

    def _write(self, steps: dict[AdapterTrainer, int]) -> None:
        in_step = [trainer.checkpoints.key for trainer in steps]
        for trainer, step in steps.items():
            trainer.checkpoints.save(step, {**trainer.state(), "in_step": in_step})

    def _report(self, found: Sequence[dict[str, float]]) -> None:
        """Look at what was computed and not yet told; stop at the first step that failed."""
        faults = {trainer: fault for trainer in self._trainers if (fault := trainer.updates.first_fault())}
        for steps in self._pending:
            if any(steps[0].number > fault.step for fault in faults.values()):
                self._stop(faults, steps)
            extra = found if steps is self._pending[-1] else [{} for _ in found]
            losses = {
                trainer.name: trainer.logger.write(step, measured)
                for trainer, step, measured in zip(self._trainers, steps, extra, strict=True)
            }
            text = ", ".join(f"{trainer.name}: loss {trainer.logger.recent:.4f}" for trainer in self._trainers)
            self._reporter.progress(steps[0].number, self._settings.steps, text, loss=losses)
        self._pending.clear()
        self._fallback.look(self._reporter)

    def _stop(self, faults: dict[AdapterTrainer, Fault], steps: Sequence[Step]) -> None:
        """Keep everyone's last good weights, and say what the first learner of those with a fault at this step has."""
        done = self._pending[-1][0].number
        if self._cohort.is_main_process:
            self._write({trainer: faults[trainer].step if trainer in faults else done for trainer in self._trainers})
        trainer, step = next(
            (trainer, step)
            for trainer, step in zip(self._trainers, steps, strict=True)
            if trainer in faults and step.number > faults[trainer].step
        )
        raise AvignonError(trainer.explain(faults[trainer], float(step.loss)))


@dataclass
class OomFallback:
    """How a step is fitted into memory: whole, adapter by adapter, with checkpointing, then in ever smaller passes.

    The cheapest comes first: passes apart cost what one pass for all had gained, checkpointing a third more time. It
    gives the same bits. Other passes differ in rounding only; as memory runs out at the first step or never, a run
    that steps down there ends as if it had begun there.
    """

    unet: Any
    settings: Train
    share: int
    """Images of a step that are this process's, of each adapter."""
    size: int = field(init=False)
    """Images per pass, of each adapter."""
    apart: bool = False
    """Whether each adapter has passes of its own, as the only one has."""
    warned: bool = False

    def __post_init__(self) -> None:
        self.size = min(self.settings.micro_batch or self.share, self.share)

    def climb(self, passes: Callable[[], T], start_over: Callable[[str], None]) -> T:
        """Do a step's passes; where memory runs out, say so, step down and do them again."""
        while True:
            try:
                return passes()
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as failed:
                if not _is_out_of_memory(failed) or not self._has_a_rung():
                    raise
            start_over(self._down())  # Outside the handler: the error's traceback holds the tensors.

    def _has_a_rung(self) -> bool:
        return self.size > 1 or not self.unet.is_gradient_checkpointing or not self.apart

    def _down(self) -> str:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self.apart:
            self.apart = True
            return "out of memory: going on with one adapter per pass (train.together = false)"
        if not self.unet.is_gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            return "out of memory: going on with gradient checkpointing (train.gradient_checkpointing = true)"
        self.size = next(k for k in range(self.size // 2, 0, -1) if self.share % k == 0)
        return f"out of memory: going on with {self.size} images per pass (train.micro_batch = {self.size})"

    def look(self, reporter: Reporter) -> None:
        """Warn once where a GPU's memory is so full that a driver would move it to the system's."""
        if self.warned or not torch.cuda.is_available():
            return
        free, total = torch.cuda.mem_get_info()
        if will_spill(free, total):
            self.warned = True
            reporter.warn(
                f"GPU memory is full ({free / 2**20:.0f} MiB of {total / 2**20:.0f} are free): some drivers now use "
                "the system's, many times slower; set train.gradient_checkpointing or a smaller train.micro_batch"
            )


def will_spill(free: int, total: int) -> bool:
    """Whether so few bytes are free that the next allocation may go to system memory."""
    return free < 0.02 * total


def _is_out_of_memory(failed: BaseException) -> bool:
    """PyTorch has an error of its own for GPUs; on the CPU it says so in words."""
    return isinstance(failed, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(failed)


@contextmanager
def deferred_interrupt() -> Iterator[Any]:
    """Hold back the first Ctrl-C until the block is left; the value says whether one came. A second acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Signals are the main thread's.
        return
    came: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
