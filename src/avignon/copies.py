"""Does a picture copy a training image? Nearest training image and a score, robust to crops, mirroring and colour.

Both pictures are described patch by patch by histograms of oriented gradients, which know neither colour nor contrast
(Dalal & Triggs, CVPR 2005). The training image is tried whole and in crops, as it is and mirrored; each is compared
where it lies best. The score is the correlation of the descriptions, 1 for the very same picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Floats = NDArray[np.floating]

EDGE = 96
"""Pixels on each side of the grey copies that are compared."""

CELL = 8
BINS = 8

CROPS = (1.0, 0.85, 0.7, 0.55)
"""Sides of the crops tried, as shares of the whole side; each at `PLACES` × `PLACES` places."""

PLACES = 3

THRESHOLD = 0.52
"""Score from which a picture is called a copy; calibrated on planted copies by benchmarks/copies.py."""


@dataclass(frozen=True)
class Match:
    """The training image that a picture is nearest to."""

    file: str
    score: float
    """Correlation, -1 to 1."""

    @property
    def is_copy(self) -> bool:
        """Whether it should be looked at as a copy."""
        return self.score >= THRESHOLD


class Originals:
    """Training images, described once, against which pictures are held."""

    def __init__(self, images: Mapping[str, Image.Image]) -> None:
        self._files: list[str] = []
        rows: list[Floats] = []
        for file, image in images.items():
            views = [describe(view) for view in _views(image)]
            self._files += [file] * len(views)
            rows += views
        self._rows = np.stack(rows)  # (views of all images, numbers of a description)

    def nearest(self, picture: Image.Image) -> Match:
        """The nearest training image; the picture's own crops are tried, too, for a copy that shows more than it."""
        seen = np.stack([describe(view) for view in _crops(picture)])
        scores = self._rows @ seen.T  # (views, crops)
        best = int(scores.max(1).argmax())
        return Match(self._files[best], float(scores[best].max()))


def describe(image: Image.Image) -> Floats:
    """A picture as one vector of length 1: histograms of gradient directions by cell, normalised and centred."""
    grey = np.asarray(image.convert("L").resize((EDGE, EDGE), Image.Resampling.BOX), np.float64)
    dy, dx = np.gradient(grey)
    slope, direction = np.hypot(dx, dy), np.mod(np.arctan2(dy, dx), np.pi) / np.pi * BINS
    low = np.floor(direction)
    share = direction - low
    cells = EDGE // CELL
    histogram = np.zeros((cells, cells, BINS))
    for offset, weight in ((0, 1 - share), (1, share)):
        place = np.mod(low.astype(int) + offset, BINS)
        for part in range(BINS):
            inside = np.where(place == part, slope * weight, 0.0)
            histogram[..., part] += inside.reshape(cells, CELL, cells, CELL).sum((1, 3))
    around = np.sqrt((histogram**2).sum(-1, keepdims=True))
    histogram /= around + 0.3 * around.mean() + 1e-6
    vector = (histogram - histogram.mean((0, 1))).ravel()
    unit: Floats = (vector / (np.linalg.norm(vector) + 1e-9)).astype(np.float32)
    return unit


def _views(image: Image.Image) -> Iterator[Image.Image]:
    """The image and its crops, each as it is and mirrored."""
    for crop in _crops(image):
        yield crop
        yield ImageOps.mirror(crop)


def _crops(image: Image.Image) -> Iterator[Image.Image]:
    for share in CROPS:
        width, height = share * image.width, share * image.height
        for x, y in _corners(image.width - width, image.height - height, 1 if share == 1 else PLACES):
            yield image.crop((round(x), round(y), round(x + width), round(y + height)))


def _corners(right: float, down: float, places: int) -> Sequence[tuple[float, float]]:
    steps = [0.0] if places == 1 else [i / (places - 1) for i in range(places)]
    return [(right * x, down * y) for y in steps for x in steps]


def likeness(one: Image.Image, other: Image.Image) -> float:
    """Correlation of two pictures' descriptions as they lie: how much of a composition is kept, 1 for all of it."""
    return float(describe(one) @ describe(other))
