"""Several adapters as one: ΔW = Σ wᵢ·ΔWᵢ, exact by their factors side by side, or truncated to a rank by an SVD.

Factors of several adapters are never added: (w₁B₁ + w₂B₂)(w₁A₁ + w₂A₂) has cross terms and squares of weights.
Eckart & Young, Psychometrika 1 (1936): the truncated SVD is the nearest matrix of its rank in the Frobenius norm.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from avignon.adapters.state import AdapterState, LayerChange
from avignon.core.errors import AdapterError

Own = Mapping[str, torch.Tensor]
"""The base's own weights by layer, (out, in) or (out, in, k, k)."""

Pair = tuple[torch.Tensor, torch.Tensor]
"""Factors U (out, R) and V (R, in·k·k) in fp32, whose product is a change of a layer."""


@dataclass(frozen=True)
class Part:
    """One of the adapters that are merged."""

    name: str
    state: AdapterState
    weight: Callable[[str], float]
    """How much of it is in a layer, by the layer's name behind its component."""


@dataclass(frozen=True)
class Merged:
    """The sum, and what truncation lost of it."""

    state: AdapterState
    lost: Mapping[str, tuple[float, float]]
    """By layer, the squared Frobenius norms of what is lost and of the whole; empty where nothing was truncated."""

    @property
    def errors(self) -> dict[str, float]:
        """‖lost‖/‖whole‖ by layer, the largest first."""
        shares = {layer: math.sqrt(lost / whole) for layer, (lost, whole) in self.lost.items() if whole}
        return dict(sorted(shares.items(), key=lambda each: -each[1]))

    @property
    def error(self) -> float:
        """The same of all layers together."""
        lost, whole = (math.fsum(pair[k] for pair in self.lost.values()) for k in (0, 1))
        return math.sqrt(lost / whole) if whole else 0.0


def merged(parts: Sequence[Part], rank: int = 0, own: Own = MappingProxyType({})) -> Merged:
    """The sum of adapters as a plain LoRA, of at most this rank in each layer; 0 keeps all ranks, and is exact.

    `own` is needed for a DoRA, whose change depends on the base.

    Raises:
        AdapterError: a DoRA without a rank to truncate to; layers of different shapes.
    """
    layers: dict[str, LayerChange] = {}
    lost: dict[str, tuple[float, float]] = {}
    for layer in dict.fromkeys(layer for part in parts for layer in part.state.layers):
        terms = [(p, p.state.layers[layer], p.weight(layer)) for p in parts if layer in p.state.layers]
        shape = _common_shape(layer, [(part.name, change) for part, change, _ in terms])
        pairs = [_factors(part.name, layer, change, weight, rank, own) for part, change, weight in terms if weight]
        if not pairs:
            continue
        u, v = torch.cat([u for u, _ in pairs], 1), torch.cat([v for _, v in pairs])
        if rank:
            u, v, lost[layer] = _truncated(u, v, rank)
        layers[layer] = _layer(u, v, shape)
    if not layers:
        raise AdapterError(f"nothing is left of {', '.join(part.name for part in parts)}: all weights are 0")
    return Merged(AdapterState(_of_one_alpha(layers)), lost)


def _common_shape(layer: str, changes: Sequence[tuple[str, LayerChange]]) -> tuple[int, ...]:
    (first, one), *others = changes
    for name, other in others:
        if other.shape != one.shape:
            raise AdapterError(
                f"{first} and {name}: made for different bases: {layer} is {one.shape} and {other.shape}; "
                "merge adapters of one base"
            )
    return one.shape


def _factors(name: str, layer: str, change: LayerChange, weight: float, rank: int, own: Own) -> Pair:
    """The factors of w·ΔW; a DoRA's is a full matrix, beside an identity."""
    up, down = change.up.flatten(1).float() * (weight * change.scale), change.down.flatten(1).float()
    if change.magnitude is None:
        return up, down
    if not rank:
        raise AdapterError(f"{name}: a DoRA changes every weight, so that no LoRA is exactly it; name a --rank")
    if layer not in own:
        raise AdapterError(f"{name}: a DoRA's change depends on the base's weights; name its --base")
    delta = weight * dora_delta(change, own[layer].detach().flatten(1).float())
    return torch.eye(len(delta)), delta


def dora_delta(change: LayerChange, own: torch.Tensor) -> torch.Tensor:
    """ΔW of a DoRA, (out, in·k·k), on a base's own weight of that shape: m·(W + sBA)/‖W + sBA‖ − W."""
    assert change.magnitude is not None
    moved = own + change.delta.flatten(1)
    grouped = moved.view(len(own), change.down.shape[1], -1)  # (out, in, k·k)
    is_output = change.axis == "output"
    lengths: torch.Tensor = torch.linalg.vector_norm(grouped, dim=(1, 2) if is_output else (0, 2), keepdim=True)
    turned: torch.Tensor = change.magnitude.float().view(lengths.shape) / lengths * grouped
    return turned.flatten(1) - own


def _truncated(u: torch.Tensor, v: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, tuple[float, float]]:
    """U·V at a rank: the SVD of the small matrix between the factors' orthogonal bases, never of U·V itself.

    Also the squared norms of what is lost and of the whole.
    """
    left, upper = torch.linalg.qr(u.double())
    right, lower = torch.linalg.qr(v.double().T)
    inner, values, other = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    squares = values.square()
    kept = min(rank, len(values))
    root = values[:kept].sqrt()  # On both sides, so that neither factor is large.
    norms = float(squares[kept:].sum()), float(squares.sum())
    return (left @ inner[:, :kept] * root).float(), (root[:, None] * (other[:kept] @ right.T)).float(), norms


def _of_one_alpha(layers: Mapping[str, LayerChange]) -> dict[str, LayerChange]:
    """The same changes with one alpha for all layers.

    diffusers 0.42 gives attention layers of a kohya file the alpha that most layers have, whatever their own is.
    """
    alpha = float(max(each.rank for each in layers.values()))
    return {name: replace(each, up=each.up * (each.alpha / alpha), alpha=alpha) for name, each in layers.items()}


def _layer(u: torch.Tensor, v: torch.Tensor, shape: tuple[int, ...]) -> LayerChange:
    """Factors as a layer's change, with a scale of 1."""
    rank = len(v)
    up = u.reshape(len(u), rank, *(1 for _ in shape[2:])).contiguous()
    return LayerChange(v.reshape(rank, *shape[1:]).contiguous(), up, float(rank))
