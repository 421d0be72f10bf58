"""Weights of each adapter along a series. Pure arithmetic: no torch, no files."""

import math
from collections.abc import Sequence
from typing import Literal


def path(
    names: Sequence[str], stops: int, kind: Literal["linear", "arc"], strength: float = 1.0
) -> list[dict[str, float]]:
    """Weights at evenly placed stops on the way through `names`, from the first to the last.

    Between two neighbours, with t from 0 to 1: `linear` is (1-t, t); `arc` is (cos πt/2, sin πt/2). Two unrelated
    changes of weights are nearly orthogonal, so their mixture at ½ + ½ keeps only 71 % of their norm; on the arc it
    keeps all of it.

    Args:
        names: adapters in order; one name gives its full weight at every stop.
        stops: how many, both ends included; at least 2.
        kind: how weights change.
        strength: factor on every weight.
    """
    # Multiplied first: a stop that falls on a name then does so exactly.
    return [_at(names, stop * (len(names) - 1) / (stops - 1), kind, strength) for stop in range(stops)]


def _at(names: Sequence[str], place: float, kind: Literal["linear", "arc"], strength: float) -> dict[str, float]:
    """Weights at `place`: 0 is the first name, 1 the second, and so on."""
    before = min(int(place), max(len(names) - 2, 0))
    t = place - before
    pair = (1 - t, t) if kind == "linear" else (_exact(math.cos(math.pi * t / 2)), _exact(math.sin(math.pi * t / 2)))
    weights = dict.fromkeys(names, 0.0)
    for name, weight in zip(names[before : before + 2], pair, strict=False):
        weights[name] = weight * strength
    return weights


def _exact(value: float) -> float:
    """Cos π/2 is 6e-17 in floating point; an adapter that is off must be exactly off."""
    return round(value, 12)
