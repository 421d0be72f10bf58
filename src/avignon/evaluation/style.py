"""Measures of pictures: how near one comes to an artist in colour, brushwork and geometry. No download, no training.

Each aspect turns a picture into a vector. An artist's manner is the mean of these vectors over his works. A picture's
distance from it is in units of how far the artists' own works lie from it, so that 1 is where an artist's own work
typically is, and the aspects can be joined. All sizes are in pixels: compare only pictures of about one area.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from avignon.core.imaging import pixels

Floats = NDArray[np.float64]

_SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_D65 = np.array([0.95047, 1.0, 1.08883])

_DIRECTIONS: Floats = np.random.default_rng(0).normal(size=(32, 3))
_DIRECTIONS /= np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True)
"""Unit vectors in L*a*b*."""

QUANTILES = 64
SCALES = 4
ORIENTATIONS = 4

EDGE_CONTRAST = 2.0
"""Least gradient of an edge, in units of L* per pixel."""

LEAST_LINE = 8
"""Pixels from which on a straight edge counts as a line."""

PRIOR = 4
"""How many works the expected spread of a feature is worth against what was measured on an artist's own."""


def change(one: Image.Image, other: Image.Image) -> float:
    """Root mean square difference of two pictures of one size, in grey levels 0–255. It sees pixels, not style."""
    return float(np.sqrt(np.mean((pixels(one) - pixels(other)) ** 2)) * 255)


def lab(image: Image.Image) -> Floats:
    """CIE L*a*b* (1976, D65) of every pixel, shaped (pixels, 3); a distance of 1 is about just noticeable.

    Source: IEC 61966-2-1 (sRGB) and CIE 15:2004.
    """
    rgb = pixels(image).reshape(-1, 3)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _SRGB_TO_XYZ.T / _D65
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def lightness(image: Image.Image) -> Floats:
    """L* of every pixel, 0 to 100, shaped (height, width)."""
    return lab(image)[:, 0].reshape(image.height, image.width)


# Colour ---------------------------------------------------------------------------------------------------------------


def palette(image: Image.Image) -> Floats:
    """Quantiles of a picture's colours along fixed directions of L*a*b*, shaped (directions, quantiles)."""
    small = image.convert("RGB").resize((64, 64), Image.Resampling.BOX)
    projected = lab(small) @ _DIRECTIONS.T  # (pixels, directions)
    return np.quantile(projected, (np.arange(QUANTILES) + 0.5) / QUANTILES, axis=0).T


def colour_distance(one: Floats, other: Floats) -> float:
    """Sliced 1-Wasserstein distance of two palettes, in units of L*a*b*. It sees colours, not where they are.

    Source: Rabin et al., "Wasserstein barycenter and its application to texture mixing", SSVM 2011.
    """
    return float(np.mean(np.abs(one - other)))


# Brushwork ------------------------------------------------------------------------------------------------------------


def brushwork(image: Image.Image) -> Floats:
    """Statistics of oriented bands of lightness, an octave wide. They see texture, neither colour nor what is painted.

    The entries: energy of each scale, its shares by orientation, its peakedness, its correlation with the next scale.
    Energies are in nats against the whole contrast of the picture, so that its lightness has no part in them.
    Source: the steerable pyramid's statistics of Portilla & Simoncelli, IJCV 40 (2000), with the oriented bands of
    Field, JOSA A 4 (1987), eq. 4 (log-Gabor).
    """
    light = lightness(image)
    light = light - light.mean()
    bands = np.abs(np.fft.ifft2(np.fft.fft2(light) * _log_gabor(light.shape)))  # (scales, orientations, H, W)
    energy = (bands**2).mean((2, 3)) + 1e-6
    scale = energy.sum(1)
    peaks = (bands**4).mean((2, 3)) / energy**2
    joint = [_correlation(one.sum(0), other.sum(0)) for one, other in pairwise(bands)]
    return np.concatenate(
        [
            0.5 * np.log(scale / (light.var() + 1e-2)),
            0.5 * np.log(energy / scale[:, None]).ravel(),
            0.5 * np.log(peaks + 1e-6).mean(1),
            joint,
        ]
    )


def _log_gabor(shape: tuple[int, ...]) -> Floats:
    """Filters in the frequency domain, shaped (scales, orientations, H, W): periods of 3, 6, 12 and 24 pixels."""
    y, x = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None]
    radius = np.hypot(x, y)
    radius[0, 0] = 1.0
    scale = np.arange(SCALES)[:, None, None, None]
    orientation = np.arange(ORIENTATIONS)[:, None, None]
    radial = np.exp(-(np.log(radius * 3 * 2**scale) ** 2) / (2 * np.log(0.65) ** 2))
    radial[..., 0, 0] = 0.0
    away = np.arctan2(y, x) - np.pi * orientation / ORIENTATIONS
    away = np.abs(np.arctan2(np.sin(away), np.cos(away)))  # One half of the plane: the response is analytic.
    filters: Floats = radial * np.exp(-(away**2) / (2 * (np.pi / ORIENTATIONS / 1.5) ** 2))
    return filters


def _correlation(one: Floats, other: Floats) -> float:
    spread = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / spread) if spread > 1e-9 else 0.0


# Geometry -------------------------------------------------------------------------------------------------------------


def geometry(image: Image.Image) -> Floats:
    """What edges tell. It is blind to colour and to texture fainter than an edge.

    The entries: share of edge pixels; share of them on straight lines; mean length of a line (log, against the side of
    a square of the picture's area); shares of level, upright and slanting edges; sharpness (log ratio of the gradient
    at 1 and 2 pixels); facet size (log of the mean distance to the nearest edge, against that side).
    Straight lines are regions of edge pixels of one direction: Burns, Hanson & Riseman, "Extracting straight lines",
    IEEE PAMI 8 (1986), in both of its partitions of directions.
    """
    light = lightness(image)
    dy, dx = (ndimage.gaussian_filter(light, 1.0, order=order) for order in ((1, 0), (0, 1)))
    slope = np.hypot(dx, dy)
    edges = slope > EDGE_CONTRAST
    if edges.sum() < LEAST_LINE:
        return np.array([0.0, 0.0, -3.0, 1 / 3, 1 / 3, 1 / 3, 0.0, -1.0])
    side = math.sqrt(light.size)
    direction = np.arctan2(dy, dx)
    lengths = np.maximum(*(_line_lengths(direction + offset, edges) for offset in (0.0, np.pi / 8)))[edges]
    lines = lengths[lengths >= LEAST_LINE]
    coarse = ndimage.gaussian_gradient_magnitude(light, 2.0)
    facet = ndimage.distance_transform_edt(~edges)[~edges] if not edges.all() else np.ones(1)
    return np.array(
        [
            edges.mean(),
            len(lines) / len(lengths),
            np.log((lines.mean() if len(lines) else 1.0) / side),
            *_shares_by_direction(direction[edges], slope[edges]),
            np.log(slope[edges].mean() / coarse[edges].mean()),
            np.log(facet.mean() / side),
        ]
    )


def _line_lengths(direction: Floats, edges: NDArray[np.bool_]) -> Floats:
    """Length of the line that each edge pixel lies on: the long axis of its region of one direction (in eighths)."""
    eighth = np.floor(direction / (np.pi / 4)).astype(int) % 8
    lengths = np.zeros(edges.shape)
    y, x = np.indices(edges.shape)
    for part in range(8):
        labels, count = ndimage.label(edges & (eighth == part), np.ones((3, 3)))
        area = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        mx, my, mxx, myy, mxy = (
            np.bincount(labels.ravel(), value.ravel(), count + 1)[1:] / area for value in (x, y, x * x, y * y, x * y)
        )
        a, b, c = mxx - mx**2, mxy - mx * my, myy - my**2
        long = np.sqrt(np.maximum(12 * ((a + c) / 2 + np.hypot((a - c) / 2, b)), 0))  # Of a bar of this variance.
        lengths += np.concatenate([[0.0], long])[labels]
    return lengths


def _shares_by_direction(direction: Floats, slope: Floats) -> list[float]:
    """Shares of edges that run level, upright and slanting, within 22.5° of the axes, weighted by their slope."""
    steep = np.abs(np.cos(direction))  # The gradient points across the edge.
    level, upright = steep < np.sin(np.pi / 8), steep > np.cos(np.pi / 8)
    shares = [float(slope[chosen].sum() / slope.sum()) for chosen in (level, upright)]
    return [*shares, 1 - sum(shares)]


# Together -------------------------------------------------------------------------------------------------------------

Traits = Mapping[str, Floats]
"""What the aspects see in one picture, or in the mean of several, by aspect. Of colour, shaped (directions, quantiles),
the mean of several is their Wasserstein barycentre along each direction."""


def trait_distance(one: Floats, other: Floats) -> float:
    """Root mean square difference of traits, which are in standard deviations within an artist's works."""
    return float(np.sqrt(np.mean((one - other) ** 2)))


def angle_distance(one: Floats, other: Floats) -> float:
    """1 less the cosine of the angle between two vectors: 0 for one direction, 1 for a right angle."""
    return max(0.0, float(1 - one @ other / (np.linalg.norm(one) * np.linalg.norm(other))))


@dataclass(frozen=True)
class Aspect:
    """One way of looking at pictures."""

    name: str
    see: Callable[[Image.Image], Floats]
    """Traits of a picture."""
    distance: Callable[[Floats, Floats], float]
    """Of two pictures' traits, each divided by its spread."""
    expected: float | None = None
    """How far an artist's own work lies from his manner, as it is expected before the works are seen; None expects
    nothing: the works alone tell, and where each artist has but one, how far works lie from the mean of all."""
    expected_spread: Floats | float | None = None
    """Standard deviation of each trait within one artist's works, likewise; None where traits have one unit already."""
    is_combined: bool = True
    """Whether it has part in the combined score."""

    def apart(self, one: Traits, other: Traits, spread: Floats | float) -> float:
        """Distance of two pictures' traits, before it is divided by its unit."""
        return self.distance(one[self.name] / spread, other[self.name] / spread)


ASPECTS = (
    Aspect("colour", palette, colour_distance, 9.0),
    Aspect("brushwork", brushwork, trait_distance, 1.0, 0.14),
    Aspect("geometry", geometry, trait_distance, 1.0, np.array([0.08, 0.10, 0.29, 0.10, 0.07, 0.06, 0.10, 0.42])),
)
"""What is always there. What is expected are the values of the two procedural painters (benchmarks/style.py)."""


def learned(see: Callable[[Image.Image], Floats]) -> Aspect:
    """A learned encoder as an aspect. The combined score, which places stops and chooses weights, is without it."""
    return Aspect("encoder", see, angle_distance, is_combined=False)


def traits(image: Image.Image, aspects: Sequence[Aspect] = ASPECTS) -> Traits:
    """Measure one picture in all aspects."""
    return {aspect.name: aspect.see(image) for aspect in aspects}


def mean(several: Sequence[Traits]) -> Traits:
    """What several pictures have in common."""
    return {name: np.mean([one[name] for one in several], axis=0) for name in several[0]}


@dataclass(frozen=True)
class Yardstick:
    """Distances in style, in units of how far the artists' own works lie from their manners."""

    aspects: Sequence[Aspect]
    manners: Mapping[str, Traits]
    """The mean of each artist's works."""
    spreads: Mapping[str, Floats | float]
    """By aspect, standard deviation of each trait within an artist's works; 1 for traits that are in one unit."""
    units: Mapping[str, float]
    """By aspect, how far an artist's work lies from the mean of his others."""

    @property
    def by(self) -> tuple[str, ...]:
        """What distances there are: the aspects' names, and `combined`."""
        return (*(aspect.name for aspect in self.aspects), "combined")

    def between(self, one: Traits, other: Traits) -> dict[str, float]:
        """Distance by each aspect, and `combined`: the root mean square of those that have part in it."""
        distances = {
            aspect.name: aspect.apart(one, other, self.spreads[aspect.name]) / self.units[aspect.name]
            for aspect in self.aspects
        }
        joined = [distances[aspect.name] for aspect in self.aspects if aspect.is_combined]
        return {**distances, "combined": float(np.sqrt(np.mean(np.square(joined))))}

    def to_artists(self, one: Traits) -> dict[str, dict[str, float]]:
        """Distance from every artist's manner."""
        return {artist: self.between(one, manner) for artist, manner in self.manners.items()}

    def position(self, distances: Mapping[str, Mapping[str, float]], ends: tuple[str, str]) -> dict[str, float]:
        """Where a picture of these distances lies, by aspect: 0 at the first artist's manner, 1 at the last one's.

        The scalar projection on the line through both, from the three distances alone: 1/2 + (a² - b²) / 2d². It is
        also the evidence for the last artist against the first, were their works spread alike around their manners:
        Fisher's linear discriminant (Annals of Eugenics 7, 1936). Of colour and of a learned encoder, whose distances
        are not Euclidean, it is an approximation.
        """
        a, b = (distances[end] for end in ends)
        d = self.between(*(self.manners[end] for end in ends))
        return {by: 0.5 + (a[by] ** 2 - b[by] ** 2) / (2 * d[by] ** 2) if d[by] else 0.5 for by in d}

    def nearest(self, one: Traits, by: str = "combined") -> str:
        """The artist whose manner is nearest."""
        distances = self.to_artists(one)
        return min(distances, key=lambda artist: distances[artist][by])


def yardstick(works: Mapping[str, Sequence[Traits]], aspects: Sequence[Aspect] = ASPECTS) -> Yardstick:
    """The measure that follows from the artists' own works; of few works it is drawn towards what is expected."""
    manners = {artist: mean(own) for artist, own in works.items()}
    spreads = {aspect.name: _spread(aspect, works) for aspect in aspects}
    units = {aspect.name: _unit(aspect, works, spreads[aspect.name]) for aspect in aspects}
    return Yardstick(aspects, manners, spreads, units)


def _spread(aspect: Aspect, works: Mapping[str, Sequence[Traits]]) -> Floats | float:
    if aspect.expected_spread is None:
        return 1.0
    rows = [np.stack([one[aspect.name] for one in own]) for own in works.values()]
    squares = np.sum([((row - row.mean(0)) ** 2).sum(0) for row in rows], axis=0)
    freedom = sum(len(row) - 1 for row in rows)
    spread: Floats = np.sqrt((squares + PRIOR * np.square(aspect.expected_spread)) / (freedom + PRIOR))
    return spread


def _unit(aspect: Aspect, works: Mapping[str, Sequence[Traits]], spread: Floats | float) -> float:
    """The mean distance of a work from the mean of the artist's others."""
    several = [own for own in works.values() if len(own) > 1]
    apart = [aspect.apart(one, mean([*own[:i], *own[i + 1 :]]), spread) for own in several for i, one in enumerate(own)]
    if aspect.expected is not None:
        return (sum(apart) + PRIOR * aspect.expected) / (len(apart) + PRIOR)
    if not apart:  # Each artist has one work: distances from the mean of all stand in.
        every = [one for own in works.values() for one in own]
        apart = [aspect.apart(one, mean(every), spread) for one in every]
    return float(np.mean(apart)) or 1.0  # Works that are all alike have no unit.
