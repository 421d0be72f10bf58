"""Buckets: the few shapes, of about one area, in which pictures of any shape are learned from.

As NovelAI (https://github.com/NovelAI/novelai-aspect-ratio-bucketing) and sd-scripts (`make_bucket_resolutions` of
`library/model_util.py`) have it, a bucket's area is at most the resolution's square. They keep for every width
the longest height; kept here are only shapes of at least `LEAST_AREA` of that square, so that no picture is learned
from smaller than others. Sizes are (width, height) in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

Size = tuple[int, int]

LEAST_AREA = 0.9
"""Of the resolution's square: the least area of a bucket."""

MOST_ASPECT = 4
"""Long side over short side, at most, as in Stability AI's own buckets for SDXL (arXiv:2307.01952, appendix I)."""

PER_SIDE = 16
"""Steps of a bucket's side in the resolution, about, or fewer: SDXL's 64 pixels of 1024. Finer ones would leave to
every picture a bucket of its own."""

MOST_CUT = 0.25
"""Share of a work that its bucket may cut off: a work of 5.3 : 1, in a bucket of 4 : 1."""


def buckets(resolution: int, multiple: int) -> tuple[Size, ...]:
    """The shapes of a resolution whose sides are multiples, the narrowest first; the mirror of each is one, too.

    They are those neither side of which could be a step longer; there is none where the multiple is too coarse.
    """
    most = resolution**2
    step = multiple * max(1, round(resolution / PER_SIDE / multiple))
    sides = range(step, resolution * MOST_ASPECT + 1, step)
    return tuple(
        (width, height)
        for width, height in product(sides, sides)
        if LEAST_AREA * most <= width * height <= most < min((width + step) * height, width * (height + step))
        and max(width, height) <= MOST_ASPECT * min(width, height)
    )


@dataclass(frozen=True)
class Place:
    """How a picture is learned from: its bucket, and what that costs of it."""

    bucket: Size
    cut: float
    """Share of the picture's area that is cut off."""
    scale: float
    """Pixels of the bucket's side for each of the picture's; above 1 it would be scaled up."""


def best(size: Size, among: Sequence[Size]) -> Place:
    """The bucket that cuts least off a picture; of two alike the larger one, then the wider."""
    return min(
        (_place(size, bucket) for bucket in among), key=lambda p: (p.cut, -p.bucket[0] * p.bucket[1], -p.bucket[0])
    )


def _place(size: Size, bucket: Size) -> Place:
    scales = bucket[0] / size[0], bucket[1] / size[1]
    return Place(bucket, 1 - min(scales) / max(scales), max(scales))
