"""Drawn pictures that measures take for paintings, and copies of them."""

import io

import numpy as np
from PIL import Image, ImageFilter

from avignon.core import imaging
from tests.support.museum import draw


def painted(seed: int = 1, size: tuple[int, int] = (700, 500)) -> Image.Image:
    """A drawn picture with the grain of brushwork, which has detail at every scale, as paintings have."""
    chance = np.random.default_rng(seed)
    values = np.asarray(draw(seed, *size), dtype=np.float64)
    for edge in (1, 2, 3, 5, 11):  # None of them in step with JPEG's blocks of 8.
        grain = chance.normal(0, 4, (size[1] // edge + 1, size[0] // edge + 1))
        values = values + np.kron(grain, np.ones((edge, edge)))[: size[1], : size[0], None]
    image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(0.6))


def saved_badly(image: Image.Image) -> Image.Image:
    """As a JPEG of the least quality."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=5)
    return imaging.load(buffer.getvalue())


def toned(image: Image.Image) -> Image.Image:
    """In brown, as old photographs are."""
    share = np.asarray(image.convert("L"), dtype=np.float64)[..., None] / 255
    return Image.fromarray((np.array((40, 20, 5)) * (1 - share) + np.array((250, 235, 200)) * share).astype(np.uint8))
