"""One adapter that learns: what it draws, its loss, its steps, its checkpoints and its journal.

Only the pass through the UNet is not its own (see `lockstep`): who learns beside it changes nothing but last digits.
"""

import math
from typing import Any

import torch
from diffusers import DDPMScheduler

from avignon.adapters import lora as adapters
from avignon.core import distributed
from avignon.core.errors import AvignonError
from avignon.models.stable_diffusion import model as diffusion
from avignon.recipe.schema import Train
from avignon.training import validation as studies
from avignon.training.dataset import Batch, sample_batch, sample_batch_with_prior, seed_of, validation_batch
from avignon.training.job import TrainingJob, TrainingSets
from avignon.training.metrics import MetricsLogger, Step
from avignon.training.objective import denoising_losses
from avignon.training.optimizer import GRADIENT, LOSS, Fault, FlatParameters, OptimizerStep


class AdapterTrainer:
    """An adapter on its way from the first step to the last, or to the one at which its patience ends."""

    def __init__(
        self,
        job: TrainingJob,
        base: diffusion.Base,
        sets: TrainingSets,
        parameters: list[torch.nn.Parameter],
        sampler: studies.ValidationSampler | None,
        state: dict[str, Any] | None,
    ) -> None:
        self.name, self.job = job.name, job
        self._sets, self._sampler = sets, sampler
        self._settings, self._cohort, self._reporter = job.recipe.train, job.accelerator, job.reporter
        self._unet = base.pipeline.unet
        self._schedule = DDPMScheduler.from_config(base.pipeline.scheduler.config)
        self._seed = seed_of(job.recipe.seed, job.name)
        # A magnitude is a factor on all of a weight: rounded to bf16, it would be off by as much as a style moves it.
        self.factors = FlatParameters(
            parameters, torch.float32 if self._settings.dora else diffusion.DTYPES[job.runtime.precision]
        )
        lengths = adapters.magnitudes(self._unet, job.name).values()
        self.updates = OptimizerStep(
            self.factors,
            self._settings,
            scaled=job.runtime.precision == "fp16",
            magnitudes=sum(length.numel() for length in lengths),
        )
        self.checkpoints = job.checkpoints(base)
        self._choice = studies.BestCheckpoint(self._settings.patience)
        self.share = adapters.trainable(self._unet, parameters, self._settings.ranks)
        """How much of the UNet is trained."""
        self._reporter.note(
            f"{self.name}: {self.share['parameters']:,} of {self.share['unet_parameters']:,} parameters are trained "
            f"({self.share['share']:.3%}), {len(sets.works.mean)} images"
        )
        self.logger = MetricsLogger(job.folder, state["step"] if state else 0, writes=self._cohort.is_main_process)
        if state:
            self._restore(state)

    def _restore(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint holds."""
        if state["software"] != _software():
            self._reporter.warn(
                f"{self.name}: going on from {state['software']} with {_software()}: the end may differ"
            )
        self.updates.load_state_dict(state["updates"])
        self._choice.load_state_dict(state["choice"])
        self._reporter.note(f"{self.name}: going on at step {state['step']} of {self._settings.steps}")

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, but for the step."""
        return {"updates": self.updates.state_dict(), "choice": self._choice.state_dict(), "software": _software()}

    def is_over(self, done: int) -> bool:
        """Whether it has learned all that it will."""
        return done == self._settings.steps or self._choice.is_over

    # A step ----------------------------------------------------------------------------------------------------------

    def sample_batch(self, number: int) -> Batch:
        """Step `number`'s batch (from 0), the same in every process."""
        times, sets = self._schedule.config.num_train_timesteps, self._sets
        if sets.prior:
            return sample_batch_with_prior(sets.works, sets.prior, self._settings, times, self._seed, number)
        return sample_batch(sets.works, self._settings, times, self._seed, number)

    def update(self, number: int, loss: torch.Tensor) -> Step:
        """Take step `number` with the gathered gradients of all processes; nothing here waits for the device."""
        if self._cohort.num_processes > 1:
            loss = self._cohort.reduce(loss, "sum")
            gradient = self.factors.gather()
            gradient.copy_(self._cohort.reduce(gradient, "sum"))
        rate = learning_rate(self._settings, number)
        norm = self.updates.apply(number, loss, rate)
        return Step(number + 1, rate, loss, norm)

    # Measures --------------------------------------------------------------------------------------------------------

    def look(self, done: int, size: int) -> dict[str, float]:
        """What is measured after `done` steps, if it is time for that; each measure is taken at the end as well.

        Args:
            done: steps.
            size: images per pass.
        """
        settings, last, found = self._settings, done == self._settings.steps, {}
        if settings.sample_every and (last or done % settings.sample_every == 0):
            found = self._sample(done)
        if self.is_over(done) or (settings.eval_every and done % settings.eval_every == 0):
            found = found | self._watch(size)
        return found

    def result(self, done: int, size: int) -> dict[str, Any]:
        """Leave the weights to keep in the adapter's own parameters; returns what to say of them."""
        weights, of_step, measured = self._kept(done, size)
        self.factors.release(weights)
        return {
            "steps": done,
            "kept_step": of_step,
            "final_loss": None if math.isnan(self.logger.recent) else self.logger.recent,
            "seconds": round(self.logger.seconds, 1),
            **measured,
        }

    def _kept(self, done: int, size: int) -> tuple[torch.Tensor, int, dict[str, float]]:
        """The weights to save, the step they are of, and what was measured on them."""
        best = self._choice
        if self._settings.keep == "last" or best.weights is None:
            return self.updates.result, done, self.logger.last_validation
        with self.factors.swapped(best.weights):
            return best.weights, best.step, {**best.found, **self._watch(size)}

    @torch.no_grad()
    def _watch(self, size: int) -> dict[str, float]:
        """Loss on the works held out, at fixed times and noises, so that two steps can be compared.

        Raises:
            AvignonError: it is no number.
        """
        if self._sets.unseen is None:
            return {}
        draws = validation_batch(self._sets.unseen, self._schedule.config.num_train_timesteps)
        # Blocks compiled for training would be compiled again, for each adapter alone.
        with adapters.routed(self._unet, [self.name]), torch.compiler.set_stance("force_eager"):
            losses = [denoising_losses(self._unet, self._schedule, part) for part in draws.parts(size)]
        loss = float(torch.cat(losses).mean())
        if not math.isfinite(loss):
            raise AvignonError(
                f"{self.name}: the loss on the works held out is {loss}, that on the others is sound; "
                "set train.precision to bf16 or fp32, and run again"
            )
        return {"held_out_loss": loss}

    def _sample(self, step: int) -> dict[str, float]:
        """Pictures of the adapter as it is, and what they say of it; the first process paints, all know the result."""
        found: dict[str, float] = {}
        if self._sampler:
            with self.factors.swapped(self.updates.result), adapters.routed(self._unet, [self.name]):
                pictures, found = self._sampler.paint(step, self.updates.result)
            self.job.keep_samples(pictures)
            self.logger.show(step, pictures)
        found = distributed.broadcast(found)
        self._choice.see(step, found, self.updates.result)
        return found

    # Faults ----------------------------------------------------------------------------------------------------------

    def explain(self, fault: Fault, loss: float) -> str:
        """What went wrong at which step, on which images, and what can be done, in one line."""
        drawn = self.sample_batch(fault.step)
        shown = [data for data in (self._sets.works, self._sets.prior) if data]
        files = [file for data in shown for file in data.files]
        texts = [captions for data in shown for captions in data.captions]
        images = [files[i] for i in drawn.index.tolist()]
        captions = [
            texts[i][c] if c >= 0 else "" for i, c in zip(drawn.index.tolist(), drawn.caption.tolist(), strict=True)
        ]
        return (
            f"{self.name}: at step {fault.step + 1} {_reason(fault, loss)} (images {', '.join(images)}; captions "
            f"{'; '.join(map(repr, captions))}; timesteps {drawn.timesteps.tolist()}); the weights of step "
            f"{fault.step} are kept in {self.job.folder / 'checkpoints'}; {_advice(fault)}"
        )


def _reason(fault: Fault, loss: float) -> str:
    if fault.reason == LOSS:
        return f"the loss is {loss}"
    if fault.reason == GRADIENT:
        return "a gradient is not a finite number"
    return "gradients overflow fp16 even at a loss scale of 1"


def _advice(fault: Fault) -> str:
    if fault.reason in (LOSS, GRADIENT):
        return "lower train.learning_rate, or set train.precision to bf16 or fp32, and run again"
    return "set train.precision to bf16 or fp32, and run again"


def _software() -> str:
    return f"torch {torch.__version__}"


def learning_rate(settings: Train, step: int) -> float:
    """Linear warm-up from 0, then constant, or falling to 0 at the last step along a line or half a cosine."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / (settings.warmup + 1)
    t = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    factor = {"constant": 1.0, "linear": 1 - t, "cosine": (1 + math.cos(math.pi * t)) / 2}[settings.lr_schedule]
    return settings.learning_rate * factor
