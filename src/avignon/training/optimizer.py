"""From gradients to weights: one vector in full precision, guarded against all that is not finite.

Nothing here waits for the device: whether a step may be taken is decided where the gradients are, and read later.
"""

import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from avignon.core.errors import RecipeError
from avignon.recipe.schema import Train

GROWTH_INTERVAL = 2000
"""Steps without overflow after which the loss scale is doubled (Micikevicius et al., arXiv:1710.03740)."""

SOUND, LOSS, GRADIENT, SCALE = range(4)
"""What went wrong first: nothing, the loss, a gradient, or every gradient down to a loss scale of 1."""


class FlatParameters:
    """All of an adapter's parameters in one vector of P numbers, a DoRA's magnitudes last.

    `master` is fp32 and what the optimizer sees. The denoiser computes with views of a copy in its own precision, whose
    gradients are gathered into the master's; in fp32 the copy is the master itself. So casting, clipping, the
    optimizer's step, averaging and the sum over processes are one operation each instead of one per layer.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], dtype: torch.dtype) -> None:
        self._parameters = parameters
        self.master = torch.nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]).float())
        self.master.grad = self._gradient = torch.zeros_like(self.master.data)
        same = dtype == torch.float32
        self._values = self.master.data if same else self.master.data.to(dtype)
        self._grads = self._gradient if same else torch.zeros_like(self._values)
        for parameter, value, grad in zip(parameters, self._views(self._values), self._views(self._grads), strict=True):
            parameter.data, parameter.grad = value, grad

    def _views(self, vector: torch.Tensor) -> Iterable[torch.Tensor]:
        """The vector's parts, each in the shape of its parameter."""
        parts = torch.split(vector, [p.numel() for p in self._parameters])
        return (part.view(parameter.shape) for part, parameter in zip(parts, self._parameters, strict=True))

    def gather(self) -> torch.Tensor:
        """Add the gradients of the last backward pass to the master's, which is returned."""
        if self._grads is not self._gradient:
            self._gradient.add_(self._grads)
            self._grads.zero_()
        return self._gradient

    def spread(self) -> None:
        """Bring the copy up to date with the master."""
        if self._grads is not self._gradient:
            self._values.copy_(self.master.data)

    @contextmanager
    def swapped(self, vector: torch.Tensor) -> Iterator[None]:
        """Compute with these values for a while, such as the moving average."""
        before = self._values.clone()
        self._values.copy_(vector)
        try:
            yield
        finally:
            self._values.copy_(before)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        self._grads.zero_()
        self._gradient.zero_()

    def release(self, vector: torch.Tensor) -> None:
        """Leave these values in the adapter's own parameters, in fp32; the best ones were kept on the CPU."""
        values = vector.detach().to(self.master.device, copy=True)
        for parameter, value in zip(self._parameters, self._views(values), strict=True):
            parameter.grad = None
            parameter.data = value


@dataclass(frozen=True)
class Fault:
    """The first step that could not be taken."""

    step: int
    reason: int
    scale: float


class OptimizerStep:
    """Takes the steps: unscale, clip, guard, optimize, average.

    The last `magnitudes` of the factors do not decay.
    """

    def __init__(self, factors: FlatParameters, settings: Train, *, scaled: bool, magnitudes: int = 0) -> None:
        self._factors, self._settings, self._scaled = factors, settings, scaled
        device = factors.master.device
        self.optimizer = new_optimizer(factors.master, settings, magnitudes)
        self.scale = torch.tensor(2.0**16 if scaled else 1.0, device=device)
        self.clean = torch.zeros((), device=device)
        """Steps since the last overflow."""
        self.fault = torch.zeros(2, dtype=torch.int64, device=device)
        """(reason, step) of the first step that failed; no later one is taken."""
        self.average = factors.master.detach().clone() if settings.ema else None

    @torch.no_grad()
    def apply(self, step: int, loss: torch.Tensor, rate: float) -> torch.Tensor:
        """Take step `step` (from 0) at this rate with the gathered gradients; returns their norm.

        A loss or a gradient that is not finite leaves weights and optimizer as they were, for good. In fp16 gradients
        that overflow are the loss scale's to lower; only where it is down to 1 is that a fault.
        """
        settings, gradient = self._settings, self._factors.gather()
        gradient.div_(self.scale)
        norm: torch.Tensor = torch.linalg.vector_norm(gradient)
        overflow = ~norm.isfinite()
        # Guard: the first fault is kept, and no step is taken from then on.
        of_gradient = torch.where(self.scale <= 1, SCALE, SOUND) if self._scaled else overflow * GRADIENT
        reason = torch.where(loss.isfinite(), torch.where(overflow, of_gradient, SOUND), LOSS)
        found = torch.stack([reason, torch.full_like(reason, step)])
        self.fault = torch.where(self.fault[0] == SOUND, found, self.fault)
        skip = overflow | (self.fault[0] != SOUND)
        # Clip, and step.
        gradient.mul_((settings.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if isinstance(self.optimizer, torch.optim.AdamW):
            self.optimizer.found_inf = skip.float()  # type: ignore[attr-defined]  # what a GradScaler sets: no step
            self.optimizer.step()
        elif not bool(skip):  # The others ask the host.
            self.optimizer.step()
        if self._scaled:
            clean = torch.where(overflow, 0.0, self.clean + 1)
            grown = torch.where(clean >= GROWTH_INTERVAL, self.scale * 2, self.scale)
            self.scale = torch.where(overflow, (self.scale / 2).clamp(min=1.0), grown)
            self.clean = torch.where(clean >= GROWTH_INTERVAL, 0.0, clean)
        if self.average is not None:  # Early on it forgets faster.
            keep = min(settings.ema, (1 + step) / (10 + step))
            self.average.lerp_(self._factors.master.data, torch.where(skip, 0.0, 1 - keep))
        self._factors.spread()
        self._factors.zero_grad()
        return norm

    def first_fault(self) -> Fault | None:
        """Whether a step failed, and why. This waits for the device."""
        reason, step = self.fault.tolist()
        return Fault(step, reason, float(self.scale)) if reason != SOUND else None

    @property
    def result(self) -> torch.Tensor:
        """The weights to keep: the average where there is one."""
        return self._factors.master.data if self.average is None else self.average

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on as if it had never stopped."""
        return {
            "master": self._factors.master.detach().cpu(),
            "optimizer": self.optimizer.state_dict(),
            "scale": self.scale.cpu(),
            "clean": self.clean.cpu(),
            "average": None if self.average is None else self.average.cpu(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave."""
        self._factors.master.copy_(state["master"])
        self._factors.spread()
        self.optimizer.load_state_dict(state["optimizer"])
        self.scale.copy_(state["scale"])
        self.clean.copy_(state["clean"])
        if self.average is not None:
            self.average.copy_(state["average"])


def new_optimizer(weights: torch.nn.Parameter, settings: Train, magnitudes: int = 0) -> Any:
    """The recipe's optimizer over one vector, whose last `magnitudes` numbers do not decay.

    Raises:
        RecipeError: the optimizer's package is not installed.
    """
    module, name, options = OPTIMIZERS[settings.optimizer]
    try:
        kind = getattr(importlib.import_module(module), name)
    except ImportError:
        raise RecipeError(
            f"train.optimizer: {settings.optimizer!r} needs `pip install avignon[optimizers]`; adamw needs nothing"
        ) from None
    groups = _groups(weights, magnitudes)
    return kind(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, **options)


OPTIMIZERS: dict[str, tuple[str, str, dict[str, bool]]] = {
    "adamw": ("torch.optim", "AdamW", {"fused": True}),  # Loshchilov & Hutter, arXiv:1711.05101
    "adamw-8bit": ("bitsandbytes.optim", "AdamW8bit", {}),  # Dettmers et al., arXiv:2110.02861
    # Mishchenko & Defazio, arXiv:2306.06101: it finds the rate itself, `learning_rate` is a factor.
    "prodigy": ("prodigyopt", "Prodigy", {"safeguard_warmup": True, "use_bias_correction": True}),
}
"""Module, class and options by the names that recipes have for them (`recipe.schema.Train.optimizer`)."""


def _groups(weights: torch.nn.Parameter, magnitudes: int) -> list[dict[str, Any]]:
    """The vector as an optimizer is given it: in one, or a DoRA's in two views, of which the second does not decay.

    Decay leads factors back to the base, but a magnitude to a layer of zeros.
    """
    if not magnitudes:
        return [{"params": [weights]}]
    assert weights.grad is not None
    sizes = [weights.numel() - magnitudes, magnitudes]
    factors, lengths = (torch.nn.Parameter(part) for part in torch.split(weights.data, sizes))
    factors.grad, lengths.grad = torch.split(weights.grad, sizes)
    return [{"params": [factors]}, {"params": [lengths], "weight_decay": 0.0}]
