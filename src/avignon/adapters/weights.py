"""The weights of adapters: along a series, over denoising steps, in parts of the denoiser. Pure arithmetic: no torch.

A dialogue is a path: `place` 0 is the first adapter alone, 1 the last, the others lie between at equal distances.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal

from avignon.core.errors import AdapterError

BASE = ""
"""Stands for the base, which is there without any weight."""

Kind = Literal["linear", "arc", "relay"]


@dataclass(frozen=True)
class Mix:
    """How much of every adapter is in one picture."""

    weights: Mapping[str, float]
    """The mean over the denoising steps."""
    weight_schedule: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Weight at every step, of the adapters whose weight is not the same at all of them."""


@dataclass(frozen=True)
class MixPath:
    """The way from adapter to adapter.

    `linear` is (1-t, t) between two neighbours, t from 0 to 1. `arc` is (cos πt/2, sin πt/2): two unrelated changes of
    weights are nearly orthogonal, so their mixture at ½ + ½ keeps only 71 % of their norm; on the arc it keeps all of
    it. `relay` does not mix but hands over during the denoising: the later adapter begins and settles the composition,
    the earlier one finishes; the hand-over moves from the first step to the last.
    """

    names: tuple[str, ...]
    """Adapters in order; for a single one the way leads from the base without it."""
    kind: Kind = "arc"
    steps: int = 1
    """Denoising steps."""
    strengths: Mapping[str, float] = field(default_factory=dict)
    """Factors on the adapters' weights; 1 where there is none."""
    gains: Mapping[str, float] = field(default_factory=dict)
    """Factors that bring the adapters to equal effect where they are mixed; 1 where there is none.

    They come in with the mixture, g^(4t(1-t)): whole in the middle, 1 at the ends, where nothing competes and a
    weight beyond what was trained costs the subject.
    """
    fade: float = 0.25
    """Share of the denoising over which a relay hands over."""
    weight_schedule: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By adapter, factors on its weight from the first denoising step to the last, joined by straight lines."""

    def at(self, place: float) -> Mix:
        """The mix at a place from 0 to 1."""
        way = self.names if len(self.names) > 1 else (BASE, *self.names)
        position = _exact(place * (len(way) - 1))  # A stop that falls on an adapter is it alone.
        before = min(int(position), len(way) - 2)
        t = position - before
        pair = self._pair(t)
        rows = dict.fromkeys(self.names, (0.0,) * self.steps) | dict(zip(way[before : before + 2], pair, strict=True))
        gains = {name: gain ** (4 * t * (1 - t)) for name, gain in self.gains.items()}
        return mixed({name: self._row(name, rows[name], gains.get(name, 1.0)) for name in self.names})

    def _pair(self, t: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Weights of two neighbours at every step."""
        if self.kind == "relay":
            later = tuple(relay(t, (step + 0.5) / self.steps, self.fade) for step in range(self.steps))
            return tuple(1 - weight for weight in later), later
        angle = math.pi * t / 2
        one, other = (1 - t, t) if self.kind == "linear" else (_exact(math.cos(angle)), _exact(math.sin(angle)))
        return (one,) * self.steps, (other,) * self.steps

    def _row(self, name: str, row: Sequence[float], gain: float) -> list[float]:
        factor = self.strengths.get(name, 1.0) * gain
        profile = over_steps(self.weight_schedule.get(name, (1.0,)), self.steps)
        return [weight * factor * part for weight, part in zip(row, profile, strict=True)]


def weighted(text: str) -> tuple[str, float]:
    """An adapter and its weight from `ADAPTER=WEIGHT`; the weight is 1 where no number stands behind the last `=`.

    Raises:
        AdapterError: what stands there is meant as a number and is none that is allowed.
    """
    name, _, number = text.rpartition("=")
    if name and re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)", number):
        return name, float(number)
    if name and re.fullmatch(r"[+-]?(nan|inf(inity)?|[\d.,]*\d(e[+-]?\d+)?)", number, re.IGNORECASE):
        raise AdapterError(f"{text}: {number} is no weight; allowed is a number such as 0.7 or -1")
    return text, 1.0


def evenly(stops: int) -> list[float]:
    """Places of `stops` (at least 2) at equal distances, from 0 to 1."""
    return [stop / (stops - 1) for stop in range(stops)]


def mixed(rows: Mapping[str, Sequence[float]]) -> Mix:
    """A mix from every adapter's weight at every step; a weight that never changes needs no schedule."""
    constant = {name: len(set(row)) == 1 for name, row in rows.items()}
    weights = {name: row[0] if constant[name] else math.fsum(row) / len(row) for name, row in rows.items()}
    return Mix(weights, {name: tuple(row) for name, row in rows.items() if not constant[name]})


def explicit(weights: Mapping[str, float], weight_schedule: Mapping[str, Sequence[float]], steps: int) -> Mix:
    """A stop whose weights are given by hand, with the profiles over the denoising steps."""
    profiles = {name: over_steps(weight_schedule.get(name, (1.0,)), steps) for name in weights}
    return mixed({name: [weight * part for part in profiles[name]] for name, weight in weights.items()})


def over_steps(points: Sequence[float], steps: int) -> list[float]:
    """Values at every step of the lines that join `points`, the first at the first step and the last at the last."""
    if len(points) == 1 or steps == 1:
        return [points[0]] * steps
    values = []
    for spot in (step * (len(points) - 1) / (steps - 1) for step in range(steps)):
        before = min(int(spot), len(points) - 2)
        values.append(points[before] + (spot - before) * (points[before + 1] - points[before]))
    return values


def relay(t: float, progress: float, fade: float) -> float:
    """Weight of the later adapter where a share `progress` of the denoising is done.

    It begins, and hands over at about `progress` = t, over a share `fade` of the denoising; 0 at t = 0, 1 at t = 1.
    """
    edge = t * (1 + fade) - fade / 2
    return min(max((edge - progress) / fade + 0.5, 0.0), 1.0)


def _exact(value: float) -> float:
    """Cos π/2 is 6e-17 in floating point; an adapter that is off must be exactly off."""
    return round(value, 12)


def equal_gains(effects: Mapping[str, float]) -> dict[str, float]:
    """Factors that bring adapters of these effects (at weight 1) to their geometric mean.

    An adapter without any effect cannot be brought to one: then all keep their weight.
    """
    if min(effects.values(), default=0.0) <= 0.0:
        return dict.fromkeys(effects, 1.0)
    middle = math.exp(math.fsum(math.log(effect) for effect in effects.values()) / len(effects))
    return {name: middle / effect for name, effect in effects.items()}


def even_places(probes: Sequence[float], distances: Sequence[float], stops: int) -> list[float]:
    """Places of stops, both ends included, between which the measured length of the path is equal.

    `distances` lead from each of `probes`, places that rise from 0 to 1, to the next.
    """
    lengths = [0.0, *accumulate(distances)]
    if lengths[-1] <= 0:
        return evenly(stops)
    inner = [_inverse(probes, lengths, lengths[-1] * place) for place in evenly(stops)[1:-1]]
    return [0.0, *inner, 1.0]


def _inverse(places: Sequence[float], lengths: Sequence[float], wanted: float) -> float:
    """The place at which the length is `wanted`, on straight lines between those that are known."""
    for (a, b), (start, end) in zip(pairwise(places), pairwise(lengths), strict=True):
        if wanted <= end and end > start:
            return a + (b - a) * (wanted - start) / (end - start)
    return places[-1]


def spread(distances: Sequence[float]) -> float:
    """Longest over shortest distance between neighbours: 1 is perfectly even, infinite where two do not differ."""
    return max(distances) / min(distances) if min(distances, default=0.0) > 0 else math.inf


def is_monotone(way: Sequence[float]) -> bool:
    """Whether places on the way from one artist (0) to another (1) never turn back.

    A fall counts between the two only: who is beyond an artist and comes back to him has turned to nobody.
    """
    between = [min(max(place, 0.0), 1.0) for place in way]
    return between == sorted(between)


def at_step(weights: Mapping[str, float], schedule: Mapping[str, Sequence[float]], step: int) -> dict[str, float]:
    """Every adapter's weight at one denoising step (from 0): its schedule's, where it has one."""
    return {name: schedule[name][step] if name in schedule else weight for name, weight in weights.items()}


def block_factor(factors: Mapping[str, float], layer: str, part: str) -> float:
    """The factor on an adapter's weight in a layer, such as `up_blocks.1.attentions.0.proj_in` in the part `up`.

    `factors` are by part: `down`, `mid`, `up`, or a block by its own name (`up_blocks.1`), which goes before its part.
    """
    own = [name for name in factors if "." in name and f"{layer}.".startswith(f"{name}.")]
    if own:
        return factors[max(own, key=len)]
    return factors.get(part, 1.0)
