"""Buckets: about one area, sides of multiples, at most 4 : 1; a picture goes into the one that cuts least off it."""

import random
from fractions import Fraction

import pytest

from avignon.core.buckets import LEAST_AREA, MOST_ASPECT, MOST_CUT, best, buckets
from avignon.core.imaging import middle_box

SEEDED = random.Random(0)


@pytest.mark.parametrize("multiple", [8, 16, 32, 64])
def test_a_bucket_is_what_it_must_be(multiple: int) -> None:
    """Of every resolution: area, sides and aspect within their limits, no side a step too short, mirrors, no twins."""
    for resolution in range(128, 2049, 40):
        found, most = buckets(resolution, multiple), resolution**2
        step = multiple * max(1, round(resolution / 16 / multiple))
        assert len(set(found)) == len(found) <= 25
        assert {(height, width) for width, height in found} == set(found)
        for width, height in found:
            assert width % multiple == height % multiple == 0
            assert LEAST_AREA * most <= width * height <= most
            assert max(width, height) <= MOST_ASPECT * min(width, height)
            assert min((width + step) * height, width * (height + step)) > most
        if resolution % step == 0:
            assert (resolution, resolution) in found


def test_the_buckets_of_usual_resolutions() -> None:
    """Those of SDXL have its own steps and ends; 16 as the multiple gives no more of them; 512 has half as many."""
    found = buckets(1024, 64)
    assert found == buckets(1024, 16)
    assert len(found) == 17
    assert {(1024, 1024), (1152, 896), (1216, 832), (1344, 768), (512, 2048), (2048, 512)} <= set(found)
    halves = {(256, 1024), (320, 768), (384, 640), (448, 576)}
    assert set(buckets(512, 64)) == {(512, 512), *halves, *((height, width) for width, height in halves)}
    assert buckets(192, 64) == ((192, 192),)
    assert buckets(48, 64) == ()


@pytest.mark.parametrize(("resolution", "multiple", "most"), [(1024, 64, 0.125), (512, 16, 0.125), (512, 64, 0.23)])
def test_little_of_a_picture_is_cut_off(resolution: int, multiple: int, most: float) -> None:
    """Of any picture up to 4 : 1; the share is that of the box, which has the bucket's shape, to a pixel."""
    among = buckets(resolution, multiple)
    for _ in range(500):
        short = SEEDED.randint(resolution, 4 * resolution)
        size = (short, round(short * SEEDED.uniform(1, MOST_ASPECT)))
        size = size if SEEDED.random() < 0.5 else size[::-1]
        place = best(size, among)
        assert 0 <= place.cut <= most < MOST_CUT
        assert place.scale <= 1, "nothing is scaled up whose short side has the resolution"
        left, top, right, bottom = middle_box(size, place.bucket)
        area = (right - left) * (bottom - top)
        assert 1 - area / (size[0] * size[1]) == pytest.approx(place.cut, abs=2 / short)
        assert 0 <= left <= size[0] - right + 1
        assert size[0] - right <= left + 1
        assert abs((right - left) / (bottom - top) / (place.bucket[0] / place.bucket[1]) - 1) < 2 / short


def test_the_bucket_is_the_one_that_cuts_least() -> None:
    """No other cuts less, by exact numbers; of two alike the larger is taken, then the wider."""
    among = buckets(1024, 64)
    for _ in range(300):
        size = (SEEDED.randint(300, 4000), SEEDED.randint(300, 4000))
        aspects = [Fraction(size[0], size[1]) / Fraction(*bucket) for bucket in among]
        kept = max(min(aspect, 1 / aspect) for aspect in aspects)
        assert best(size, among).cut == pytest.approx(float(1 - kept), abs=1e-12)
    assert best((100, 100), [(8, 4), (4, 8)]).bucket == (8, 4)
    assert best((100, 100), [(8, 4), (16, 8), (8, 16)]).bucket == (16, 8)
    assert best((2000, 2000), among).bucket == (1024, 1024)
    assert best((6000, 1000), among).cut == pytest.approx(1 / 3)
