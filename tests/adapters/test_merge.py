"""Several adapters as one: held against dense computations, and against the pictures of a series."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch

from avignon.adapters.merge import Part, merged
from avignon.adapters.state import AdapterState, LayerChange
from avignon.core.errors import AdapterError

Axis = Literal["output", "input"]

SHAPES = {"unet.a": (12, 9), "unet.b": (10, 6, 3, 3), "text_encoder.c": (7, 7)}
"""Weights of some layers: linear ones, and a convolution."""


def change(shape: tuple[int, ...], rank: int, alpha: float, seed: int) -> LayerChange:
    """A random LoRA of a layer."""
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn((rank, *shape[1:]), generator=generator)
    up = torch.randn((shape[0], rank, *(1 for _ in shape[2:])), generator=generator)
    return LayerChange(down, up, alpha)


def adapter(seed: int, rank: int, alpha: float, layers: tuple[str, ...] = tuple(SHAPES)) -> AdapterState:
    """A random adapter."""
    return AdapterState({name: change(SHAPES[name], rank, alpha, seed + i) for i, name in enumerate(layers)})


ONE, TWO = adapter(1, 3, 1.5), adapter(100, 2, 8.0, ("unet.b", "unet.a"))
WEIGHTS = {"unet.a": 0.6, "unet.b": -0.3, "text_encoder.c": 0.6}
PARTS = (Part("one", ONE, WEIGHTS.__getitem__), Part("two", TWO, lambda _: 0.8))


def dense(layer: str) -> torch.Tensor:
    """Σ wᵢ·(αᵢ/rᵢ)·BᵢAᵢ as (out, in·k·k), in double precision and step by step."""
    total = torch.zeros(SHAPES[layer][0], math.prod(SHAPES[layer][1:]), dtype=torch.float64)
    for part in PARTS:
        if layer in part.state.layers:
            own = part.state.layers[layer]
            product = own.up.flatten(1).double() @ own.down.flatten(1).double()
            total += part.weight(layer) * own.alpha / own.rank * product
    return total


def test_sum_is_exact_by_all_factors_side_by_side() -> None:
    """Every layer of either is Σ wᵢ·ΔWᵢ, text encoders' too, with the ranks added."""
    mix = merged(PARTS)
    assert mix.state.layers.keys() == SHAPES.keys()
    for layer, own in mix.state.layers.items():
        assert own.shape == SHAPES[layer]
        assert own.alpha == 5.0, "one for all layers"
        assert own.rank == sum(part.state.layers[layer].rank for part in PARTS if layer in part.state.layers)
        torch.testing.assert_close(own.delta.flatten(1).double(), dense(layer), rtol=1e-5, atol=1e-5)
    assert mix.error == 0.0
    assert mix.errors == {}


@pytest.mark.parametrize("rank", [1, 2, 4, 50])
def test_truncation_is_the_nearest_of_its_rank_and_its_errors_are_right(rank: int) -> None:
    """The factors' SVD is that of the whole matrix: the same nearest matrix, and the errors of a dense computation."""
    mix = merged(PARTS, rank)
    lost = whole = 0.0
    for layer, own in mix.state.layers.items():
        matrix = dense(layer)
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        nearest = u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank]
        assert own.rank <= rank
        torch.testing.assert_close(own.delta.flatten(1).double(), nearest, rtol=1e-4, atol=1e-5)
        error = float((matrix - own.delta.flatten(1).double()).norm() / matrix.norm())
        assert mix.errors[layer] == pytest.approx(error, abs=2e-6)
        lost += float((matrix - nearest).norm()) ** 2
        whole += float(matrix.norm()) ** 2
    assert mix.error == pytest.approx(math.sqrt(lost / whole), abs=1e-6)
    assert list(mix.errors.values()) == sorted(mix.errors.values(), reverse=True)
    if rank <= 2:
        assert mix.error > 0.02
    if rank == 50:
        assert mix.error < 1e-6


def as_dora(state: AdapterState, axis: Axis) -> tuple[AdapterState, dict[str, torch.Tensor]]:
    """The same adapter with random magnitudes, and weights of a base."""
    generator = torch.Generator().manual_seed(5)
    own = {layer: torch.randn(shape, generator=generator) for layer, shape in SHAPES.items()}
    channels = {"output": 0, "input": 1}[axis]
    layers = {
        layer: replace(each, magnitude=torch.rand(SHAPES[layer][channels], generator=generator) + 0.5, axis=axis)
        for layer, each in state.layers.items()
    }
    return AdapterState(layers), own


@pytest.mark.parametrize("axis", ["output", "input"])
def test_dora_is_its_change_of_the_base(axis: Axis) -> None:
    """At full rank, base and merged LoRA are (1 - w)·W + w·m·V/‖V‖, V = W + sBA, with the norm over its own axis."""
    dora, own = as_dora(ONE, axis)
    mix = merged([Part("dora", dora, lambda _: 0.7)], 64, own)
    for layer, each in dora.layers.items():
        moved = own[layer] + each.delta
        over = [d for d in range(moved.dim()) if d != {"output": 0, "input": 1}[axis]]
        lengths = moved.pow(2).sum(over, keepdim=True).sqrt()
        assert each.magnitude is not None
        wanted = 0.3 * own[layer] + 0.7 * each.magnitude.view(lengths.shape) * moved / lengths
        torch.testing.assert_close(own[layer] + mix.state.layers[layer].delta, wanted, rtol=1e-4, atol=1e-4)
        assert mix.state.layers[layer].magnitude is None


def test_what_cannot_be_merged_is_refused_in_a_line() -> None:
    """A DoRA without a rank or a base, layers of different shapes, weights that are all 0."""
    dora, own = as_dora(ONE, "output")
    with pytest.raises(AdapterError, match=r"dora: a DoRA changes every weight, .* name a --rank"):
        merged([Part("dora", dora, lambda _: 1.0)], own=own)
    with pytest.raises(AdapterError, match="dora: a DoRA's change depends on the base's weights; name its --base"):
        merged([Part("dora", dora, lambda _: 1.0)], 4)
    other = AdapterState({"unet.a": change((12, 8), 2, 2.0, 0)})
    with pytest.raises(AdapterError, match=r"one and other: made for different bases: unet.a is \(12, 9\) and \(12, 8"):
        merged([Part("one", ONE, lambda _: 1.0), Part("other", other, lambda _: 1.0)])
    with pytest.raises(AdapterError, match="nothing is left of one: all weights are 0"):
        merged([Part("one", ONE, lambda _: 0.0)])
