"""The weights of adapters along a series: pure arithmetic."""

import math

import pytest

from avignon.blend import path


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


def test_strength_multiplies_all() -> None:
    """Strength is a factor on every weight, and zero stays exactly zero."""
    assert path(("a", "b"), 3, "linear", 1.5) == [{"a": 1.5, "b": 0.0}, {"a": 0.75, "b": 0.75}, {"a": 0.0, "b": 1.5}]
