"""Measures of pictures. Each is plain numpy, takes pictures of any size, and says what it does not see."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avignon.imaging import pixels

_SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_D65 = np.array([0.95047, 1.0, 1.08883])

DIRECTIONS = 32
QUANTILES = 64


def change(one: Image.Image, other: Image.Image) -> float:
    """Root mean square difference of two pictures of one size, in grey levels 0–255. It sees pixels, not style."""
    return float(np.sqrt(np.mean((pixels(one) - pixels(other)) ** 2)) * 255)


def lab(image: Image.Image) -> NDArray[np.float64]:
    """CIE L*a*b* (1976, D65) of every pixel, shaped (pixels, 3); a distance of 1 is about just noticeable.

    Source: IEC 61966-2-1 (sRGB) and CIE 15:2004.
    """
    rgb = pixels(image).reshape(-1, 3)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _SRGB_TO_XYZ.T / _D65
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def palette(image: Image.Image) -> NDArray[np.float64]:
    """Quantiles of a picture's colours along fixed directions of L*a*b*, shaped (directions, quantiles)."""
    small = image.convert("RGB").resize((64, 64), Image.Resampling.BOX)
    projected = lab(small) @ _directions().T  # (pixels, directions)
    return np.quantile(projected, (np.arange(QUANTILES) + 0.5) / QUANTILES, axis=0).T


def _directions() -> NDArray[np.float64]:
    vectors = np.random.default_rng(0).normal(size=(DIRECTIONS, 3))
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def colour_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Sliced 1-Wasserstein distance of two palettes, in units of L*a*b*. It sees colours, not where they are.

    Source: Rabin et al., "Wasserstein barycenter and its application to texture mixing", SSVM 2011.
    """
    return float(np.mean(np.abs(one - other)))
