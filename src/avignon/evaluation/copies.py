"""Does a picture copy a training image? The nearest one and a score, robust to crops, mirroring and colour.

Pictures are described cell by cell by histograms of gradient directions, which know neither colour nor contrast (Dalal
& Triggs, CVPR 2005). A training image is tried whole and in crops, as it is and mirrored, against the picture and its
crops. Works of one composition, a horizon and a boat, are all alike to some degree; so the score says how far the
best work stands out from the others, in standard deviations of their own best matches.
"""

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from avignon.core import imaging
from avignon.evaluation.report import Nearest

Floats = NDArray[np.floating]

EDGE = 64
"""Pixels on each side of the grey copies that are compared."""

CELL = 4
BINS = 8

CROPS = (1.0, 0.85, 0.7, 0.6)
"""Sides of the crops tried, as shares of the whole side; each at `PLACES` × `PLACES` places."""

PLACES = 4

SQUARES = 3
"""Places at which squares are cut from an image that is not square."""

EXPECTED_DEVIATION = 0.04
"""Standard deviation of works' best matches with a picture that copies none, as expected before they are seen."""

PRIOR = 4
"""How many works this expectation is worth."""

THRESHOLD = 5.5
"""Score from which a picture is called a copy; calibrated on planted copies by benchmarks/copies.py."""


class Originals:
    """Training images, described once, against which pictures are held."""

    def __init__(self, images: Mapping[str, Image.Image], works: Mapping[str, str] | None = None) -> None:
        """Describe `images` by file; `works` names the work of each, where several were cut from one."""
        views = [
            (file, describe(view))
            for file, image in images.items()
            for crop in _crops(image)
            for view in (crop, ImageOps.mirror(crop))
        ]
        self._files = [file for file, _ in views]
        self._rows = np.stack([row for _, row in views])
        names = [works[file] if works else file for file in self._files]
        self._work = np.unique(names, return_inverse=True)[1]  # (views,): which work each belongs to

    def nearest(self, picture: Image.Image) -> Nearest:
        """The nearest training image; the picture's own crops are tried, too, for a copy that shows more than it."""
        seen = np.stack([describe(view) for view in _crops(picture)])
        scores = (self._rows @ seen.T).max(1)  # (views,)
        best = int(scores.argmax())
        others = np.full(self._work.max() + 1, -1.0)
        np.maximum.at(others, self._work, scores)
        others = np.delete(others, self._work[best])
        score = _outstanding(float(scores[best]), others)
        return Nearest(self._files[best], score, score >= THRESHOLD)


def _outstanding(best: float, others: Floats) -> float:
    """Deviations of `best` from the mean of the others; their deviation is drawn towards what is expected."""
    others = others if len(others) else np.zeros(1)
    squares = float(((others - others.mean()) ** 2).sum()) + PRIOR * EXPECTED_DEVIATION**2
    return float((best - others.mean()) / (squares / (len(others) - 1 + PRIOR)) ** 0.5)


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


def _crops(image: Image.Image) -> Iterator[Image.Image]:
    """The image, and its crops; of one that is not square its squares and theirs as well.

    Descriptions have no shape, so that a square cut from a wide work is like none of that work's own crops.
    """
    squares = [image.crop(box) for box in imaging.square_crops(image.size, SQUARES)]
    for whole in [image, *squares] if image.width != image.height else [image]:
        for share in CROPS:
            width, height = share * whole.width, share * whole.height
            places = [0.0] if share == 1 else [i / (PLACES - 1) for i in range(PLACES)]
            for down, right in product(places, places):
                x, y = right * (whole.width - width), down * (whole.height - height)
                yield whole.crop((round(x), round(y), round(x + width), round(y + height)))


def likeness(one: Image.Image, other: Image.Image) -> float:
    """Correlation of two pictures' descriptions as they lie: how much of a composition is kept, 1 for all of it."""
    return min(float(describe(one) @ describe(other)), 1.0)
