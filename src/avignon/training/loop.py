"""The training loop: adapters that learn together, each from its own batch, in one pass through the frozen denoiser.

The denoiser computes on all samples at once, each layer's factors on their own adapter's alone (`adapters.route`). The
loss is the sum of the adapters' losses, so that gradients, steps and faults stay apart. One adapter alone is the same
loop with nothing to route.
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch

from avignon.adapters.route import routed
from avignon.core.errors import AvignonError
from avignon.models.base import DiffusionBase
from avignon.models.runtime import OUT_OF_MEMORY
from avignon.training.adapter_trainer import AdapterTrainer
from avignon.training.dataset import Batch
from avignon.training.memory import OomFallback
from avignon.training.metrics import Step
from avignon.training.objective import denoising_losses
from avignon.training.optimizer import Fault

REPORT_EVERY = 20
"""Steps between two looks at what a device has computed; on a CPU looking costs nothing, so it is every step there."""


class MultiAdapterTrainer:
    """Adapters trained in step with each other, by one process of those that share the batches."""

    def __init__(self, base: DiffusionBase, trainers: Sequence[AdapterTrainer]) -> None:
        self._base, self._trainers, job = base, list(trainers), trainers[0].job
        self._settings, self._accelerator, self._reporter = job.recipe.train, job.accelerator, job.reporter
        share = self._settings.batch * (2 if self._settings.prior_images else 1) // self._accelerator.num_processes
        self._memory = OomFallback(base.denoiser, self._settings, share)
        self._pending: list[list[Step]] = []
        """Steps that nobody has looked at yet, of each trainer."""

    def run(self, step: int) -> Iterator[tuple[AdapterTrainer, dict[str, Any]]]:
        """Train from `step` on; gives each adapter's trainer that is over, and what to say of it, as soon as it is.

        All are saved then, so that an interrupted run goes on in the same cohort.

        Raises:
            AvignonError: a loss or a gradient is not finite any more; the last good weights of all are kept.
        """
        while self._trainers:
            self._memory.apart |= len(self._trainers) == 1
            with routed(self._base.denoiser, [trainer.name for trainer in self._trainers]):
                step = self._train(step)
            over = [trainer for trainer in self._trainers if trainer.is_over(step)]
            self._trainers = [trainer for trainer in self._trainers if trainer not in over]
            for trainer in over:
                yield trainer, trainer.result(step, self._memory.size)

    def _train(self, step: int) -> int:  # noqa: C901 - a step is read on one page
        """The steps until an adapter is over, or the user interrupts; returns how many are done."""
        settings, memory, trainers = self._settings, self._memory, self._trainers
        device, process = self._accelerator.device, self._accelerator.process_index
        report_every = 1 if device.type == "cpu" else REPORT_EVERY
        with deferred_interrupt() as interrupted:
            while not any(trainer.is_over(step) for trainer in trainers):
                # Draw: each adapter's batch is the same in every process, which takes its share of it.
                batches = [list(trainer.sample_batch(step).parts(memory.share))[process] for trainer in trainers]
                losses = [torch.zeros((), device=device) for _ in trainers]
                try:
                    for group, parts in memory.passes(batches):
                        names = [trainers[i].name for i in group]  # All together they are routed already.
                        with routed(self._base.denoiser, names) if len(names) < len(trainers) else nullcontext():
                            # Predict, and measure how far off each sample is: (samples,)
                            batch = Batch.cat(parts)
                            errors = denoising_losses(self._base, batch) * batch.weight
                            if settings.min_snr_gamma:
                                errors = errors * self._base.loss_weights(batch.timesteps, settings.min_snr_gamma)
                            # Loss of each adapter; backward from their sum, in which no loss has another's gradient.
                            means = [own.sum() / settings.batch for own in errors.chunk(len(parts))]
                            scaled = [trainers[i].optimizer.scale * mean for i, mean in zip(group, means, strict=True)]
                            torch.stack(scaled).sum().backward()  # type: ignore[no-untyped-call]
                        for i, mean in zip(group, means, strict=True):
                            trainers[i].parameters.gather()
                            losses[i] += mean.detach()
                except OUT_OF_MEMORY as failed:
                    if not memory.can_step_down(failed):
                        raise
                    losses.clear()
                if not losses:  # Outside the handler, whose traceback holds tensors, as these names do.
                    errors = means = scaled = None  # type: ignore[assignment]
                    self._reporter.warn(f"{', '.join(trainer.name for trainer in trainers)}: {memory.step_down()}")
                    for trainer in trainers:
                        trainer.parameters.zero_grad()
                    continue
                # Step: sum over processes, clip, guard, optimize. Nothing up to here has waited for the device.
                self._pending.append([t.update(step, loss) for t, loss in zip(trainers, losses, strict=True)])
                step += 1
                # Measure, report, checkpoint.
                measured = [trainer.measure(step, memory.size) for trainer in trainers]
                saving = step % settings.checkpoint_every == 0 or any(trainer.is_over(step) for trainer in trainers)
                if len(self._pending) == report_every or saving or any(measured):
                    self._report(measured)
                stop = interrupted()
                if saving or stop:
                    self._report([{} for _ in measured])
                    if self._accelerator.is_main_process:
                        # All have written this step before the first lets an older one go: all have one in common.
                        self._write(dict.fromkeys(trainers, step))
                        for trainer in trainers:
                            trainer.checkpoints.prune(step)
                if stop:
                    break
        return step

    def _write(self, steps: dict[AdapterTrainer, int]) -> None:
        cohort = [trainer.checkpoints.key for trainer in steps]
        for trainer, step in steps.items():
            trainer.checkpoints.save(step, {**trainer.state(), "in_step": cohort})

    def _report(self, measured: Sequence[dict[str, float]]) -> None:
        """Look at what was computed and not yet told; stop at the first step that failed."""
        faults = {trainer: fault for trainer in self._trainers if (fault := trainer.optimizer.first_fault())}
        for steps in self._pending:
            if any(steps[0].number > fault.step for fault in faults.values()):
                self._stop(faults, steps)
            extra = measured if steps is self._pending[-1] else [{} for _ in measured]
            losses = {
                trainer.name: trainer.logger.write(step, own)
                for trainer, step, own in zip(self._trainers, steps, extra, strict=True)
            }
            text = ", ".join(f"{trainer.name}: loss {trainer.logger.recent:.4f}" for trainer in self._trainers)
            self._reporter.progress(steps[0].number, self._settings.steps, text, loss=losses)
        self._pending.clear()
        self._memory.warn_if_full(self._reporter)

    def _stop(self, faults: dict[AdapterTrainer, Fault], steps: Sequence[Step]) -> None:
        """Keep everyone's last good weights, and say what the first trainer of those with a fault at this step has."""
        done = self._pending[-1][0].number
        if self._accelerator.is_main_process:
            self._write({trainer: faults[trainer].step if trainer in faults else done for trainer in self._trainers})
        trainer, step = next(
            (trainer, step)
            for trainer, step in zip(self._trainers, steps, strict=True)
            if trainer in faults and step.number > faults[trainer].step
        )
        raise AvignonError(trainer.explain(faults[trainer], float(step.loss)))


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
