"""One adapter that learns: what it draws, its steps, its checkpoints, what is measured of it, and its metrics.

Only the pass through the denoiser is not its own (see `loop`): who learns beside it changes rounding at most.
"""

import math
from typing import Any

import torch

from avignon.adapters.inject import trainable
from avignon.adapters.layers import dora_magnitudes
from avignon.adapters.route import routed
from avignon.core import distributed
from avignon.core.errors import AvignonError
from avignon.models.base import DiffusionBase
from avignon.models.runtime import DTYPES
from avignon.recipe.schema import Train
from avignon.training.dataset import Batch, sample_batch, sample_batch_with_prior, seed_of, validation_batches
from avignon.training.job import TrainingJob, TrainingSets
from avignon.training.metrics import MetricsLogger, Step
from avignon.training.objective import denoising_losses
from avignon.training.optimizer import GRADIENT, LOSS, SCALE, Fault, FlatParameters, OptimizerStep
from avignon.training.validation import BestCheckpoint, ValidationSampler

SOFTWARE = f"torch {torch.__version__}"

REASONS = {
    LOSS: "the loss is {loss}",
    GRADIENT: "a gradient is not a finite number",
    SCALE: "gradients overflow fp16 even at a loss scale of 1",
}
_HIGHER = "set train.precision to bf16 or fp32, and run again"
ADVICE = dict.fromkeys((LOSS, GRADIENT), f"lower train.learning_rate, or {_HIGHER}") | {SCALE: _HIGHER}


class AdapterTrainer:
    """An adapter on its way from the first step to the last, or to the one at which its patience ends."""

    def __init__(
        self,
        job: TrainingJob,
        base: DiffusionBase,
        sets: TrainingSets,
        sampler: ValidationSampler | None,
        parameters: list[torch.nn.Parameter],
        state: dict[str, Any] | None,
    ) -> None:
        self.name, self.job = job.name, job
        self._base, self._sets, self._sampler = base, sets, sampler
        self._settings, self._accelerator, self._reporter = job.recipe.train, job.accelerator, job.reporter
        self._seed = seed_of(job.recipe.seed, job.name)
        # A magnitude is a factor on all of a weight: rounded to bf16, it would be off by as much as a style moves it.
        dtype = torch.float32 if self._settings.dora else DTYPES[job.runtime.precision]
        self.parameters = FlatParameters(parameters, dtype)
        self.optimizer = OptimizerStep(
            self.parameters,
            self._settings,
            scaled=job.runtime.precision == "fp16",
            magnitudes=sum(length.numel() for length in dora_magnitudes(base.denoiser, job.name).values()),
        )
        self.checkpoints = job.checkpoints(base)
        self._best = BestCheckpoint(self._settings.patience)
        self.share = trainable(base.denoiser, parameters, self._settings.ranks)
        """How much of the denoiser is trained."""
        self._reporter.note(
            f"{self.name}: {self.share['parameters']:,} of {self.share['unet_parameters']:,} parameters are trained "
            f"({self.share['share']:.3%}), {len(sets.train.mean)} images"
        )
        first, is_main = state["step"] if state else 0, self._accelerator.is_main_process
        self.logger = MetricsLogger(job.folder, first, writes=is_main)
        if state:
            self._restore(state)

    def _restore(self, state: dict[str, Any]) -> None:
        if state["software"] != SOFTWARE:
            self._reporter.warn(f"{self.name}: going on from {state['software']} with {SOFTWARE}: the end may differ")
        self.optimizer.load_state_dict(state["updates"])
        self._best.load_state_dict(state["choice"])
        self._reporter.note(f"{self.name}: going on at step {state['step']} of {self._settings.steps}")

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, but for the step."""
        return {"updates": self.optimizer.state_dict(), "choice": self._best.state_dict(), "software": SOFTWARE}

    def is_over(self, done: int) -> bool:
        """Whether it has learned all that it will."""
        return done == self._settings.steps or self._best.is_over

    def sample_batch(self, step: int) -> Batch:
        """Step `step`'s batch (from 0), the same in every process."""
        sets, timesteps = self._sets, self._base.sample_timesteps
        if sets.prior:
            return sample_batch_with_prior(sets.train, sets.prior, self._settings, timesteps, self._seed, step)
        return sample_batch(sets.train, self._settings, timesteps, self._seed, step)

    def update(self, number: int, loss: torch.Tensor) -> Step:
        """Take step `number` with the gathered gradients of all processes; nothing here waits for the device."""
        if self._accelerator.num_processes > 1:
            loss = self._accelerator.reduce(loss, "sum")
            gradient = self.parameters.gather()
            gradient.copy_(self._accelerator.reduce(gradient, "sum"))
        rate = learning_rate(self._settings, number)
        norm = self.optimizer.apply(number, loss, rate)
        return Step(number + 1, rate, loss, norm)

    def measure(self, done: int, size: int) -> dict[str, float]:
        """What is measured after `done` steps, if it is time for that; each measure is taken at the end as well.

        `size` is that of a pass, in images.
        """
        settings, last, found = self._settings, done == self._settings.steps, {}
        if settings.sample_every and (last or done % settings.sample_every == 0):
            found = self._sample(done)
        if self.is_over(done) or (settings.eval_every and done % settings.eval_every == 0):
            found = found | self._validate(size)
        return found

    def result(self, done: int, size: int) -> dict[str, Any]:
        """Leave the weights to keep in the adapter's own parameters; returns what to say of them."""
        best, weights, kept, measured = self._best, self.optimizer.result, done, self.logger.last_validation
        if self._settings.keep == "best" and best.weights is not None:
            with self.parameters.swapped(best.weights):
                weights, kept, measured = best.weights, best.step, {**best.found, **self._validate(size)}
        self.parameters.release(weights)
        return {
            "steps": done,
            "kept_step": kept,
            "final_loss": None if math.isnan(self.logger.recent) else self.logger.recent,
            "seconds": round(self.logger.seconds, 1),
            **measured,
        }

    @torch.no_grad()
    def _validate(self, size: int) -> dict[str, float]:
        """Loss on the works for validation, at fixed times and noises, so that two steps can be compared."""
        if self._sets.validation is None:
            return {}
        draws = validation_batches(self._sets.validation, self._base.num_train_timesteps)
        # Blocks compiled for training would be compiled again, for each adapter alone.
        with routed(self._base.denoiser, [self.name]), torch.compiler.set_stance("force_eager"):
            losses = [denoising_losses(self._base, part) for batch in draws for part in batch.parts(size)]
        loss = float(torch.cat(losses).mean())
        if not math.isfinite(loss):
            raise AvignonError(
                f"{self.name}: the loss on the works held out is {loss}, that on the others is sound; "
                "set train.precision to bf16 or fp32, and run again"
            )
        return {"validation_loss": loss}

    def _sample(self, step: int) -> dict[str, float]:
        """Pictures of the adapter as it is, and what they say of it; the first process paints, all know the result."""
        found: dict[str, float] = {}
        if self._sampler:
            with self.parameters.swapped(self.optimizer.result), routed(self._base.denoiser, [self.name]):
                pictures, found = self._sampler.paint(step, self.optimizer.result)
            self.job.keep_samples(pictures)
            self.logger.show(step, pictures)
        found = distributed.broadcast(found)
        self._best.see(step, found, self.optimizer.result)
        return found

    def explain(self, fault: Fault, loss: float) -> str:
        """What went wrong at which step, on which images, and what can be done, in one line."""
        batch = self.sample_batch(fault.step)
        sets = [data for data in (self._sets.train, self._sets.prior) if data]
        files = [file for data in sets for file in data.files]
        texts = [captions for data in sets for captions in data.captions]
        images = ", ".join(files[i] for i in batch.index.tolist())
        drawn = zip(batch.index.tolist(), batch.caption.tolist(), strict=True)
        captions = "; ".join(repr(texts[i][c] if c >= 0 else "") for i, c in drawn)
        reason = REASONS[fault.reason].format(loss=loss)
        return (
            f"{self.name}: at step {fault.step + 1} {reason} "
            f"(images {images}; captions {captions}; timesteps {batch.timesteps.tolist()}); "
            f"the weights of step {fault.step} are kept in {self.job.folder.checkpoints}; {ADVICE[fault.reason]}"
        )


def learning_rate(settings: Train, step: int) -> float:
    """Linear warm-up from 0, then constant, or falling to 0 at the last step along a line or half a cosine."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / (settings.warmup + 1)
    t = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    factor = {"constant": 1.0, "linear": 1 - t, "cosine": (1 + math.cos(math.pi * t)) / 2}[settings.lr_schedule]
    return settings.learning_rate * factor
