"""Weights of each adapter along a series. Pure arithmetic: no torch, no files."""

import math
from collections.abc import Sequence
from typing import Literal

BASE = ""
"""Stands for the base, which is there without any weight."""


def path(
    names: Sequence[str], stops: int, kind: Literal["linear", "arc"], strength: float = 1.0
) -> list[dict[str, float]]:
    """Weights at evenly placed stops on the way through `names`, from the first to the last.

    Between two neighbours, with t from 0 to 1: `linear` is (1-t, t); `arc` is (cos πt/2, sin πt/2). Two unrelated
    changes of weights are nearly orthogonal, so their mixture at ½ + ½ keeps only 71 % of their norm; on the arc it
    keeps all of it.

    Args:
        names: adapters in order; for a single one the way leads from the base without it.
        stops: how many, both ends included; at least 2.
        kind: how weights change.
        strength: factor on every weight.
    """
    way = names if len(names) > 1 else (BASE, *names)
    # Multiplied first: a stop that falls on a name then does so exactly.
    mixes = [_at(way, stop * (len(way) - 1) / (stops - 1), kind, strength) for stop in range(stops)]
    return [{name: mix[name] for name in names} for mix in mixes]


def _at(names: Sequence[str], place: float, kind: Literal["linear", "arc"], strength: float) -> dict[str, float]:
    """Weights at `place`: 0 is the first name, 1 the second, and so on."""
    before = min(int(place), len(names) - 2)
    t = place - before
    pair = (1 - t, t) if kind == "linear" else (_exact(math.cos(math.pi * t / 2)), _exact(math.sin(math.pi * t / 2)))
    weights = dict.fromkeys(names, 0.0)
    for name, weight in zip(names[before : before + 2], pair, strict=True):
        weights[name] = weight * strength
    return weights


def _exact(value: float) -> float:
    """Cos π/2 is 6e-17 in floating point; an adapter that is off must be exactly off."""
    return round(value, 12)
