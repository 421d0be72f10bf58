"""Whether two pictures show the same work: they are compared by their slopes, which survive toning and rescaling.

How well that finds views and states of one picture was measured: docs/benchmarks/quality.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 128
"""Of the small grey copy that two pictures are compared by, whatever their shape."""

Cut = Sequence[float]
"""Shares cut off at the left, top, right and bottom."""

CUTS: tuple[Cut, ...] = (
    *((share,) * 4 for share in (0.0, 0.03, 0.06)),
    *((left, top, 0.06 - left, 0.06 - top) for left in (0.0, 0.06) for top in (0.0, 0.06)),
)
"""Tried first: another photograph of one picture shows more or less of it, on all sides or towards one corner."""

UNLIKE = 0.3
"""Likeness below which no other cut is looked for: two paintings come to no more."""


@dataclass(frozen=True)
class Look:
    """What two pictures are compared by."""

    small: Image.Image
    """Grey, `SIDE` × `SIDE` pixels."""
    slopes: NDArray[np.float64]
    """At each of `CUTS`, shaped (cuts, slopes)."""


def look_at(image: Image.Image) -> Look:
    """The small copy of a picture, and its slopes at each of `CUTS`."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return Look(small, np.stack([_slopes(small, cut) for cut in CUTS]))


def _slopes(small: Image.Image, cut: Cut) -> NDArray[np.float64]:
    """Slopes of 34 × 34 cells of what is left, of unit length."""
    left, top, right, bottom = (SIDE * share for share in cut)
    cells = small.resize((34, 34), Image.Resampling.BOX, box=(left, top, SIDE - right, SIDE - bottom))
    grey = np.asarray(cells, dtype=np.float64)
    across, down = grey[1:-1, 2:] - grey[1:-1, :-2], grey[2:, 1:-1] - grey[:-2, 1:-1]  # (32, 32) each
    slopes = np.concatenate([across.ravel(), down.ravel()])
    length = float(np.linalg.norm(slopes))
    return slopes / length if length else slopes


def likeness(a: Look, b: Look) -> float:
    """Correlation of the slopes of two pictures, cut as they agree best; 1 for one picture, near 0 for two."""
    table = a.slopes @ b.slopes.T  # (cuts of a, cuts of b)
    best = float(table.max())
    if best < UNLIKE or best > 0.95:
        return best
    mine, other = np.unravel_index(int(table.argmax()), table.shape)
    return _best_cut(a, b, [x - y for x, y in zip(CUTS[mine], CUTS[other], strict=True)], best)


def _best_cut(a: Look, b: Look, cut: Cut, best: float) -> float:
    """The likeness when each edge is moved for itself, as states and views of one print are cut unevenly.

    A positive share is cut from `a`, a negative one from `b`. Edges move by ever smaller steps while that helps.
    """
    for step in (0.04, 0.02, 0.01):
        moved = True
        while moved:
            moved = False
            for edge, way in product(range(4), (step, -step)):
                tried = [*cut]
                tried[edge] = min(max(cut[edge] + way, -0.12), 0.12)
                if (alike := _alike(a, b, tried)) > best + 1e-6:
                    cut, best, moved = tried, alike, True
    return best


def _alike(a: Look, b: Look, cut: Cut) -> float:
    mine = _slopes(a.small, [max(share, 0.0) for share in cut])
    other = _slopes(b.small, [max(-share, 0.0) for share in cut])
    return float(mine @ other)
