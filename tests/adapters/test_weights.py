"""The weights of adapters along a series: pure arithmetic."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest

from avignon.adapters.weights import (
    Kind,
    Mix,
    MixPath,
    at_step,
    block_factor,
    equal_gains,
    even_places,
    evenly,
    explicit,
    is_monotone,
    over_steps,
    spread,
    weighted,
)
from avignon.core.errors import AdapterError


def path(names: Sequence[str], stops: int, kind: Kind) -> list[dict[str, float]]:
    """Mean weights at evenly placed stops on the way through `names`, both ends included."""
    way = MixPath(tuple(names), kind)
    return [dict(way.at(place).weights) for place in evenly(stops)]


@pytest.mark.parametrize("kind", ["linear", "arc"])
def test_ends_are_one_voice_alone(kind: str) -> None:
    """The first and last stop are exactly one adapter, the others exactly off."""
    stops = path(("a", "b"), 7, kind)  # type: ignore[arg-type]
    assert stops[0] == {"a": 1.0, "b": 0.0}
    assert stops[-1] == {"a": 0.0, "b": 1.0}
    assert len(stops) == 7


def test_linear_goes_evenly() -> None:
    """The linear path is (1-t, t)."""
    assert path(("a", "b"), 5, "linear") == [{"a": 1 - t, "b": t} for t in (0, 0.25, 0.5, 0.75, 1)]


def test_arc_keeps_the_norm() -> None:
    """On the arc the squares of the weights sum to 1 at every stop, and the middle is even."""
    stops = path(("a", "b"), 9, "arc")
    assert [stop["a"] ** 2 + stop["b"] ** 2 for stop in stops] == pytest.approx([1.0] * 9, abs=1e-9)
    assert stops[4]["a"] == stops[4]["b"] == pytest.approx(math.sqrt(0.5))
    assert [stop["b"] for stop in stops] == sorted(stop["b"] for stop in stops)


@pytest.mark.parametrize("kind", ["linear", "arc"])
def test_three_voices_take_turns(kind: str) -> None:
    """With three adapters the middle stop is the second alone, and the third is off until then."""
    stops = path(("a", "b", "c"), 5, kind)  # type: ignore[arg-type]
    assert stops[0] == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert stops[2] == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert stops[4] == {"a": 0.0, "b": 0.0, "c": 1.0}
    assert stops[1]["c"] == stops[3]["a"] == 0.0
    assert min(stops[1]["a"], stops[1]["b"], stops[3]["b"], stops[3]["c"]) > 0


@pytest.mark.parametrize("kind", ["linear", "arc"])
def test_every_name_is_met_exactly(kind: str) -> None:
    """However many voices and stops, a stop that falls on a voice is that voice alone, to the last bit."""
    for count in (2, 3, 8, 23):  # with 23 voices, dividing first misses by rounding
        names = [f"n{i}" for i in range(count)]
        for between in range(1, 12):
            stops = path(names, between * (count - 1) + 1, kind)  # type: ignore[arg-type]
            assert stops[::between] == [{other: float(other == name) for other in names} for name in names]


def test_one_voice_comes_from_the_base() -> None:
    """A joint adapter, with no other voice to come from, rises from nothing to its full weight."""
    assert path(("joint",), 3, "linear") == [{"joint": 0.0}, {"joint": 0.5}, {"joint": 1.0}]
    assert [stop["joint"] for stop in path(("joint",), 3, "arc")] == pytest.approx([0.0, 0.5**0.5, 1.0])


def test_strength_multiplies_the_voice_it_is_for() -> None:
    """Strength is a factor on a voice's weight everywhere, 1 where none is given, and zero stays exactly zero."""
    way = MixPath(("a", "b"), "linear", strengths={"a": 1.5})
    assert [way.at(t).weights for t in (0, 0.5, 1)] == [{"a": 1.5, "b": 0.0}, {"a": 0.75, "b": 0.5}, {"a": 0.0, "b": 1}]


def test_relay_hands_over_during_the_denoising() -> None:
    """At the ends one voice has all steps; between, the later one begins and the earlier one finishes, never both."""
    way = MixPath(("a", "b"), "relay", steps=20, fade=0.2)
    assert way.at(0.0) == Mix({"a": 1.0, "b": 0.0})
    assert way.at(1.0) == Mix({"a": 0.0, "b": 1.0})
    middle = way.at(0.5)
    a, b = middle.weight_schedule["a"], middle.weight_schedule["b"]
    assert (b[0], b[-1], a[0], a[-1]) == (1, 0, 0, 1)
    assert list(b) == sorted(b, reverse=True)
    assert [x + y for x, y in zip(a, b, strict=True)] == pytest.approx([1.0] * 20)
    shares = [way.at(t / 8).weights["b"] for t in range(9)]
    assert shares == sorted(shares)
    assert shares[4] == pytest.approx(0.5)


def test_profile_over_the_steps() -> None:
    """`during` multiplies an adapter's weight, from the first step to the last, on lines through its points."""
    assert over_steps((1.0, 0.0), 5) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert over_steps((0.0, 1.0, 0.0), 5) == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert over_steps((0.5,), 3) == [0.5] * 3
    assert over_steps((0.2, 0.9), 1) == [0.2]
    mix = MixPath(("a", "b"), "linear", steps=3, weight_schedule={"a": (1.0, 0.0)}).at(0.5)
    assert mix == Mix({"a": 0.25, "b": 0.5}, {"a": (0.5, 0.25, 0.0)})
    assert explicit({"a": -2.0, "c": 1.0}, {"a": (1.0, 0.0)}, 2) == Mix({"a": -1.0, "c": 1.0}, {"a": (-2.0, -0.0)})


def test_at_step_is_the_schedule_where_there_is_one() -> None:
    """The weight at a step is the schedule's, or the constant one."""
    assert at_step({"a": 0.5, "b": 2.0}, {"a": (1.0, 0.0)}, 1) == {"a": 0.0, "b": 2.0}


def test_gains_bring_effects_to_one_height() -> None:
    """After the gains all effects are equal, their product as before; without an effect nothing is changed."""
    effects = {"a": 0.1, "b": 0.4}
    gains = equal_gains(effects)
    assert gains == pytest.approx({"a": 2.0, "b": 0.5})
    path = MixPath(("a", "b"), "linear", gains=gains)
    assert path.at(0.5).weights == pytest.approx({"a": 1.0, "b": 0.25}), "whole where they are mixed evenly"
    assert [path.at(place).weights for place in (0.0, 1.0)] == [{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}]
    assert equal_gains({"a": 0.0, "b": 1.0}) == {"a": 1.0, "b": 1.0}


def test_even_places_have_equal_lengths_between_them() -> None:
    """On a path that is fast in the middle, stops gather there, and the measured length between them is equal."""
    probes = evenly(101)
    position = [1 / (1 + math.exp(-12 * (t - 0.4))) for t in probes]
    distances = [after - before for before, after in pairwise(position)]
    places = even_places(probes, distances, 6)
    reached = [1 / (1 + math.exp(-12 * (t - 0.4))) for t in places]
    assert spread([b - a for a, b in pairwise(reached)]) < 1.01
    uniform = [1 / (1 + math.exp(-12 * (t - 0.4))) for t in evenly(6)]
    assert spread([b - a for a, b in pairwise(uniform)]) > 5
    assert (places[0], places[-1]) == (0.0, 1.0)
    assert even_places((0.0, 1.0), (0.0,), 3) == [0.0, 0.5, 1.0]


def test_even_places_pass_a_stretch_without_change() -> None:
    """Where nothing changes there is no stop to place, and none falls off the path."""
    assert even_places((0.0, 0.5, 1.0), (0.0, 2.0), 3) == [0.0, 0.75, 1.0]
    assert even_places((0.0, 0.5, 1.0), (2.0, 0.0), 3) == [0.0, 0.25, 1.0]


def test_blocks_by_name_go_before_their_part() -> None:
    """A block's own name goes before `down`, `mid` and `up`; what is not named keeps its weight."""
    factors = {"up": 0.5, "up_blocks.1": 0.0, "mid": 2.0}
    layers = (
        "up_blocks.0.resnets.0.conv1",
        "up_blocks.1.attentions.0.proj_in",
        "up_blocks.10.x",
        "mid_block.x",
        "conv_in",
    )
    assert [block_factor(factors, layer, layer.partition("_")[0]) for layer in layers] == [0.5, 0.0, 0.5, 2.0, 1.0]


@pytest.mark.parametrize(
    ("way", "monotone"),
    [
        ((0.1, 0.1, 0.5, 0.9), True),
        ((0.1, 0.3, 0.2, 0.9), False),
        ((-0.2, -0.4, 0.5, 1.0), True),
        ((0.0, 0.8, 1.1, 1.05), True),
        ((0.0, 0.8, 1.1, 0.95), False),
        ((1.0, 0.5, 0.0), False),
    ],
)
def test_turning_back_is_between_the_artists(way: tuple[float, ...], monotone: bool) -> None:
    """A fall counts from place 0 to 1; who is beyond an artist's mean and comes back to it has turned to nobody."""
    assert is_monotone(way) is monotone


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("runs/demo/adapters/a", ("runs/demo/adapters/a", 1.0)),
        ("a=0.5", ("a", 0.5)),
        ("a=-2", ("a", -2.0)),
        ("a=.5", ("a", 0.5)),
        ("a=b=1", ("a=b", 1.0)),
        ("a=b", ("a=b", 1.0)),
        ("a=1=0.5", ("a=1", 0.5)),
        ("=2", ("=2", 1.0)),
        ("a=", ("a=", 1.0)),
    ],
)
def test_weight_is_the_number_behind_the_last_sign(text: str, found: tuple[str, float]) -> None:
    """Only a plain number behind the last `=` is a weight; every other sign belongs to the adapter's place."""
    assert weighted(text) == found


@pytest.mark.parametrize("number", ["nan", "NaN", "-inf", "1e3", "0,5", "1.2.3"])
def test_a_weight_that_is_none(number: str) -> None:
    """What is meant as a number is told as one, not as a file that is not there."""
    with pytest.raises(AdapterError, match=f"^style={re.escape(number)}: {re.escape(number)} is no weight; allowed is"):
        weighted(f"style={number}")
