"""The training loop that all three parts share: optimizer, learning rate, averaged weights, checkpoints, log."""

import csv
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from tools.train_miniature import settings

EVERY = 500
"""Steps between checkpoints."""


def learning_rate(step: int, steps: int, peak: float) -> float:
    """100 steps of warm-up, then a cosine to 2 % of the peak."""
    if step < 100:
        return peak * (step + 1) / 100
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - 100) / max(1, steps - 100))))


class ExponentialMovingAverage:
    """Exponential moving average of the weights, which is what is exported."""

    def __init__(self, module: torch.nn.Module, decay: float = 0.998) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def update(self, module: torch.nn.Module, step: int) -> None:
        """Take one step's weights in; early on the average forgets faster."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value.detach(), 1 - keep)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, complete or not at all."""
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


def log(stage: str, step: int, **values: float) -> None:
    """One line to the terminal and one to the table of the stage."""
    path = settings.DOCS / f"{stage}.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", *values])
        writer.writerow([step, *(f"{v:.5g}" for v in values.values())])
    print(stage, step, " ".join(f"{k} {v:.5g}" for k, v in values.items()), flush=True)


class MuonAndAdamW:
    """Muon for matrices and convolutions (Jordan et al. 2024), AdamW for the rest.

    Muon's steps are scaled to AdamW's (Liu et al. 2025, arXiv:2502.16982), so that one rate serves both.
    """

    def __init__(self, module: torch.nn.Module, peak: float) -> None:
        tables = {id(m.weight) for m in module.modules() if isinstance(m, torch.nn.Embedding)}
        weights = [p for p in module.parameters() if p.requires_grad]
        self.wide = [p for p in weights if p.ndim > 1 and min(p.shape[:2]) >= 16 and id(p) not in tables]
        chosen = {id(p) for p in self.wide}
        self.flat = [torch.nn.Parameter(as_matrix(p.detach())) for p in self.wide]  # views: the same memory
        self.muon = torch.optim.Muon(self.flat, lr=peak, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        rest = [p for p in weights if id(p) not in chosen]
        self.adam = torch.optim.AdamW(rest, lr=peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)

    def step(self, lr: float) -> None:
        """One step of both at the rate `lr`; gradients are used up."""
        for flat, wide in zip(self.flat, self.wide, strict=True):
            flat.grad = None if wide.grad is None else as_matrix(wide.grad)
        for part in (self.muon, self.adam):
            for group in part.param_groups:
                group["lr"] = lr
            part.step()  # type: ignore[no-untyped-call]
        for weight in self.wide:
            weight.grad = None
        self.adam.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Both states, as `state_dict` gave them."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


def as_matrix(weight: Tensor) -> Tensor:
    """A linear layer's weight as it is; a convolution's (O, I, h, w) as (O, h·w·I), which is how it lies in memory."""
    return weight if weight.ndim == 2 else weight.permute(0, 2, 3, 1).flatten(1)


def train(
    stage: str,
    module: torch.nn.Module,
    loss_of: Callable[[int], Tensor],
    steps: int,
    peak: float,
    measure: Callable[[], dict[str, float]],
) -> None:
    """The training loop: resumes, averages, logs and checkpoints. `loss_of(step)` must depend on seed and step only."""
    path = settings.CACHE / f"{stage}.pt"
    optimizer = MuonAndAdamW(module, peak)
    average, first, seconds = ExponentialMovingAverage(module), 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimiser"])
        average.weights, first, seconds = state["average"], state["step"], state["seconds"]
    began, losses = time.monotonic() - seconds, []
    for step in range(first, steps):
        loss = loss_of(step)
        if not torch.isfinite(loss):
            raise SystemExit(f"{stage}: the loss is {loss.item()} at step {step}; the last checkpoint is kept")
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step(learning_rate(step, steps, peak))
        average.update(module, step)
        losses.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            now = time.monotonic() - began
            log(stage, step + 1, loss=float(np.mean(losses[-100:])), rate=learning_rate(step, steps, peak), seconds=now)
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            save(
                path,
                {
                    "module": module.state_dict(),
                    "optimiser": optimizer.state_dict(),
                    "average": average.weights,
                    "step": step + 1,
                    "seconds": time.monotonic() - began,
                },
            )
            with torch.compiler.set_stance("force_eager"):  # other shapes: not worth a compilation
                print(stage, step + 1, measure(), flush=True)


def shipped(name: str) -> dict[str, Tensor]:
    """The weights of one part of the shipped model."""
    weights: dict[str, Tensor] = load_file(settings.BASE / name)
    return weights
