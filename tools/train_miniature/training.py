"""The training loop that all three parts share: optimizer, learning rate, averaged weights, checkpoints, log."""

import csv
import math
import time
from collections import deque
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from avignon.models import hub
from avignon.models.runtime import DTYPES, best_device, precision_for
from avignon.models.stable_diffusion.files import LAYOUT
from tools.train_miniature.settings import Run

WORKING = DTYPES[precision_for("auto", "train", best_device(), "bf16")]
"""What networks and Muon compute in: bfloat16, but on a CPU that does not multiply it, where it takes 20 to 40 times as
long as fp32."""


def autocast(device: torch.device) -> torch.autocast:
    """A context in which networks compute in `WORKING`."""
    return torch.autocast(device.type, WORKING, enabled=WORKING is not torch.float32)


EVERY = 500
"""Steps between checkpoints, where steps are counted."""
PAUSE = 60.0
"""Seconds between checkpoints, where the clock is."""
WARMUP = 100
"""Steps until the learning rate is at its peak."""
FLOOR = 0.02
"""The learning rate at the end, as a part of its peak."""
DECAY = 0.998
"""How much of the averaged weights a step keeps, where steps are counted."""
WINDOW = 8
"""The same where the clock counts: (1 - 1/t)^8 at step t, a window of a tenth of all steps however many they become
(Karras et al. 2024, arXiv:2312.02696, section 3.1)."""


def learning_rate(step: int, steps: int, peak: float) -> float:
    """100 steps of warm-up, then a cosine to 2 % of the peak."""
    if step < WARMUP:
        return peak * (step + 1) / WARMUP
    return peak * cosine((step - WARMUP) / max(1, steps - WARMUP))


def cosine(progress: float) -> float:
    """From 1 down to `FLOOR` as the progress goes from 0 to 1."""
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))


class Schedule(Protocol):
    """When a training ends and saves, and how its learning rate and averaging follow its progress."""

    def over(self, step: int) -> bool:
        """Whether the training ends before this step."""
        ...

    def rate(self, step: int, peak: float) -> float:
        """The learning rate of a step."""
        ...

    def keep(self, step: int) -> float:
        """The part of the averaged weights that is kept at a step."""
        ...

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due before this step."""
        ...


class StepSchedule:
    """A number of steps, counted over all calls."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def over(self, step: int) -> bool:  # noqa: D102 - as in the protocol, here and below
        return step >= self._steps

    def rate(self, step: int, peak: float) -> float:  # noqa: D102
        return learning_rate(step, self._steps, peak)

    def keep(self, step: int) -> float:  # noqa: D102 - early on the average forgets faster
        return min(DECAY, (1 + step) / (10 + step))

    def saves(self, step: int) -> bool:  # noqa: D102
        return step % EVERY == 0


class ClockSchedule:
    """The seconds of this call, one step at least. A later call warms up and decays again over its own seconds."""

    def __init__(self, seconds: float, first: int) -> None:
        self._began, self._seconds, self._first = time.monotonic(), seconds, first
        self._saved = self._began

    def over(self, step: int) -> bool:  # noqa: D102
        return step > self._first and time.monotonic() - self._began >= self._seconds

    def rate(self, step: int, peak: float) -> float:  # noqa: D102
        progress = (time.monotonic() - self._began) / max(self._seconds, 1e-9)
        return peak * min(1.0, (step - self._first + 1) / WARMUP) * cosine(min(1.0, progress))

    def keep(self, step: int) -> float:  # noqa: D102
        return float((1 - 1 / (step + 1)) ** WINDOW)

    def saves(self, step: int) -> bool:  # noqa: ARG002, D102
        if time.monotonic() - self._saved < PAUSE:
            return False
        self._saved = time.monotonic()
        return True


class ExponentialMovingAverage:
    """Exponential moving average of the weights, which is what is exported."""

    def __init__(self, module: torch.nn.Module) -> None:
        state = module.state_dict()
        self.weights = {k: v.detach().clone() for k, v in state.items()}
        moving = [k for k, v in state.items() if v.is_floating_point()]
        self._averages, self._values = [self.weights[k] for k in moving], [state[k] for k in moving]

    @torch.no_grad()
    def update(self, keep: float) -> None:
        """Take one step's weights in."""
        torch._foreach_lerp_(self._averages, self._values, 1 - keep)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Go on from these."""
        for name, value in weights.items():
            self.weights[name].copy_(value)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, complete or not at all."""
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


def log(run: Run, stage: str, step: int, **values: float) -> None:
    """One line to the terminal and one to the table of the stage."""
    path = run.report / f"{stage}.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", *values])
        writer.writerow([step, *(f"{v:.5g}" for v in values.values())])
    print(stage, step, " ".join(f"{k} {v:.5g}" for k, v in values.items()), flush=True)


class Muon:
    """Muon (Jordan et al. 2024) on matrices, all of one shape at once: one by one they keep a card waiting.

    What `torch.optim.Muon` computes, up to rounding. Steps are scaled to AdamW's (Liu et al. 2025, arXiv:2502.16982),
    so that one rate serves both.
    """

    MOMENTUM, WEIGHT_DECAY = 0.95, 0.01

    def __init__(self, weights: list[Tensor]) -> None:
        def shape(weight: Tensor) -> tuple[int, ...]:
            return tuple(as_matrix(weight.detach()).shape)

        self._groups = [list(group) for _, group in groupby(sorted(weights, key=shape), key=shape)]
        self.momenta = [torch.stack([torch.zeros_like(as_matrix(w.detach())) for w in group]) for group in self._groups]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One step at the rate `lr`; gradients are used up."""
        for group, momentum in zip(self._groups, self.momenta, strict=True):
            gradients = torch.stack([as_matrix(w.grad) for w in group if w.grad is not None])  # (G, rows, columns)
            momentum.lerp_(gradients, 1 - self.MOMENTUM)
            updates = orthogonal(gradients.lerp(momentum, self.MOMENTUM)).to(momentum.dtype)
            matrices = [as_matrix(w.detach()) for w in group]  # views: the same memory
            torch._foreach_mul_(matrices, 1 - lr * self.WEIGHT_DECAY)
            scaled_rate = lr * 0.2 * math.sqrt(max(matrices[0].shape))
            torch._foreach_add_(matrices, list(updates.unbind()), alpha=-scaled_rate)
            for weight in group:
                weight.grad = None


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly orthogonal matrices (G, rows, columns), by five Newton-Schulz iterations in `WORKING`."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.to(WORKING)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonAndAdamW:
    """Muon for matrices and convolutions, AdamW for the rest."""

    def __init__(self, module: torch.nn.Module, peak: float) -> None:
        tables = {id(m.weight) for m in module.modules() if isinstance(m, torch.nn.Embedding)}
        weights = [p for p in module.parameters() if p.requires_grad]
        wide = [p for p in weights if p.ndim > 1 and min(p.shape[:2]) >= 16 and id(p) not in tables]
        if any(as_matrix(p.detach()).data_ptr() != p.data_ptr() for p in wide):
            raise ValueError("convolutions must lie channels last, or Muon would change copies of them")
        chosen = {id(p) for p in wide}
        self.muon = Muon(list(wide))
        rest = [p for p in weights if id(p) not in chosen]
        self.adam = torch.optim.AdamW(rest, lr=peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)

    def step(self, lr: float) -> None:
        """One step of both at the rate `lr`; gradients are used up."""
        self.muon.step(lr)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"muon": self.muon.momenta, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Both states, as `state_dict` gave them."""
        for momentum, saved in zip(self.muon.momenta, state["muon"], strict=True):
            momentum.copy_(saved)
        self.adam.load_state_dict(state["adam"])


def as_matrix(weight: Tensor) -> Tensor:
    """A linear layer's weight as it is; a convolution's (O, I, h, w) as (O, h·w·I), which is how it lies in memory."""
    return weight if weight.ndim == 2 else weight.permute(0, 2, 3, 1).flatten(1)


def train(
    run: Run,
    stage: str,
    module: torch.nn.Module,
    loss_of: Callable[[int], Tensor],
    steps: int,
    peak: float,
    measure: Callable[[], dict[str, float]],
) -> None:
    """The training loop: resumes, averages, logs and checkpoints. `loss_of(step)` must depend on seed and step only."""
    path = run.cache / f"{stage}.pt"
    optimizer = MuonAndAdamW(module, peak)
    average, step, seconds = ExponentialMovingAverage(module), 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True, map_location=run.device)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimiser"])
        average.load(state["average"])
        step, seconds = state["step"], state["seconds"]
    schedule: Schedule = ClockSchedule(run.clock.left(), step) if run.clock else StepSchedule(steps)
    began, losses, rate = time.monotonic() - seconds, deque[Tensor](maxlen=100), 0.0
    ended = schedule.over(step)
    while not ended:
        loss = loss_of(step)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        rate = schedule.rate(step, peak)
        optimizer.step(rate)
        average.update(schedule.keep(step))
        losses.append(loss.detach())  # read later: a card would wait for it
        step += 1
        ended = schedule.over(step)
        due = ended or schedule.saves(step)
        if due or step % 100 == 0:
            mean = torch.stack(list(losses)).double().mean().item()
            if not math.isfinite(mean):
                raise SystemExit(f"{stage}: the loss is {mean} before step {step}; the last checkpoint is kept")
            if ended or step % 100 == 0:
                log(run, stage, step, loss=mean, rate=rate, seconds=time.monotonic() - began)
        if due:
            save(
                path,
                {
                    "module": module.state_dict(),
                    "optimiser": optimizer.state_dict(),
                    "average": average.weights,
                    "step": step,
                    "seconds": time.monotonic() - began,
                },
            )
            with torch.compiler.set_stance("force_eager"):  # other shapes: not worth a compilation
                print(stage, step, measure(), flush=True)


def averaged(run: Run, stage: str) -> dict[str, Tensor]:
    """The averaged weights of a stage's checkpoint."""
    state: dict[str, Tensor] = torch.load(run.cache / f"{stage}.pt", weights_only=True, map_location="cpu")["average"]
    return state


def weights_of(base: Path, part: str) -> dict[str, Tensor]:
    """The weights of one part of a model in diffusers' format, be they in one file or in shards."""
    files = hub.weight_files(base / part, LAYOUT.weights[part])
    return {name: value for file in files for name, value in load_file(file).items()}
