"""Two procedural painters: programs that paint the embedded world's scenes in two manners.

`atlantic` paints as a realist of the sea does, `avignon` as the cubists did. They are programs, not people, and
are named as what they are wherever their works appear. Their constants were measured on public-domain paintings by
Homer (seven: sea pieces, fields, a schoolroom) and by the cubists (seven: Gleizes, Gris, Delaunay, Léger, Picabia):

- Colours: the six k-means centres of each painting. Homer's are sea greens and greys (#67797c #4e5a59 #76745b),
  ochres (#938363 #a38356 #c29b68) and umbers (#42372e #343224); mean saturation 0.36, mean value 0.44. The cubists' are
  umber, ochre, rose and grey (#252824 #674738 #98845f #8e6155 #b3b4af #ded7cf); saturation 0.28, value 0.44.
- Edges: mean gradient of the luminance at 128 x 128 pixels is 9.4 grey levels for Homer (7.5 to 11.8) and 16.4 for the
  cubists (9.7 to 31); 8 % of Homer's pixels lie on edges steeper than 25 levels, 22 % of the cubists'. Homer's edges
  are mostly level (0.42 of the gradient lies within 30 degrees of the vertical, an even share being 0.33); the
  cubists' are steep and slanting (0.26).

Sizes are (width, height) in pixels; a painting follows from scene, size and seed alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from avignon.demo.drawing import Colour, Floats, Point, Shape, rasterise, to_image
from avignon.demo.world import Composition, Scene, compose, draw

SEA_GREENS: tuple[Colour, ...] = (
    (0.12, 0.14, 0.13),
    (0.20, 0.26, 0.25),
    (0.31, 0.40, 0.39),
    (0.45, 0.53, 0.50),
    (0.62, 0.66, 0.60),
    (0.80, 0.80, 0.72),
    (0.93, 0.91, 0.83),
)
OCHRES: tuple[Colour, ...] = (
    (0.13, 0.10, 0.07),
    (0.26, 0.20, 0.13),
    (0.42, 0.31, 0.18),
    (0.60, 0.46, 0.27),
    (0.74, 0.60, 0.38),
    (0.86, 0.77, 0.58),
    (0.94, 0.90, 0.80),
)
ROSES: tuple[Colour, ...] = (
    (0.14, 0.11, 0.11),
    (0.28, 0.20, 0.19),
    (0.43, 0.29, 0.26),
    (0.58, 0.39, 0.33),
    (0.72, 0.54, 0.46),
    (0.84, 0.73, 0.66),
    (0.93, 0.89, 0.84),
)
GREYS: tuple[Colour, ...] = (
    (0.11, 0.12, 0.12),
    (0.22, 0.23, 0.22),
    (0.36, 0.37, 0.35),
    (0.50, 0.51, 0.48),
    (0.64, 0.65, 0.63),
    (0.78, 0.78, 0.75),
    (0.92, 0.91, 0.87),
)
CLAYS: tuple[Colour, ...] = (
    (0.10, 0.09, 0.08),
    (0.25, 0.19, 0.14),
    (0.42, 0.33, 0.22),
    (0.59, 0.50, 0.34),
    (0.72, 0.63, 0.45),
    (0.84, 0.77, 0.62),
    (0.93, 0.90, 0.80),
)
"""Ramps from dark to light, in equal steps of luminance, through the measured centres."""

LUMA = np.asarray([0.299, 0.587, 0.114], np.float32)


def toned(image: Floats, ramp: tuple[Colour, ...], keep: float) -> Floats:
    """Colours (..., 3) drawn towards the ramp's colour of the same luminance; `keep` of their own hue stays."""
    level = image @ LUMA
    steps = np.linspace(0, 1, len(ramp))
    on_ramp = np.stack([np.interp(level, steps, [c[k] for c in ramp]) for k in range(3)], axis=-1).astype(np.float32)
    own = image - level[..., None]
    base = on_ramp - (on_ramp @ LUMA - level)[..., None]
    return np.asarray(base * (1 - keep * 0.5) + (level[..., None] + own) * (keep * 0.5) + own * keep * 0.5, np.float32)


def noise(size: tuple[int, int], cells: float, rng: np.random.Generator, stretch: float = 1.0) -> Floats:
    """Smooth noise of unit variance (H, W): `cells` blobs along the shorter side, `stretch` times longer than high."""
    width, height = size
    unit = min(size) / cells
    grid = (max(2, math.ceil(width / unit / stretch)), max(2, math.ceil(height / unit)))
    rough = Image.fromarray(rng.standard_normal((grid[1], grid[0]), dtype=np.float32))
    return np.asarray(rough.resize(size, Image.Resampling.BICUBIC), np.float32)


# --- The Atlantic painter -------------------------------------------------------------------------------------------


def atlantic(scene: Scene, size: tuple[int, int], seed: int) -> Image.Image:
    """The scene as a realist of the coast would paint it.

    Air between the distances, broken water, strokes that follow the form, deep darks and few lights.
    """
    rng = np.random.default_rng(seed)
    composition = compose(scene, size)
    airy = replace(composition, shapes=tuple(_in_air(s) for s in composition.shapes))
    image = draw(airy, size)
    image = _sea_light(image, scene, composition, rng)
    image = _warm_and_cool(image)
    image = _brushed(image, composition, rng)
    return _varnished(image, rng)


def _in_air(shape: Shape) -> Shape:
    """Aerial perspective: what is far loses its own shade and colour; what is near gains depth of tone."""
    return replace(shape, shade=shape.shade * (1.7 - 1.3 * shape.depth), soft=shape.soft + 0.008 * shape.depth)


def _sea_light(image: Floats, scene: Scene, composition: Composition, rng: np.random.Generator) -> Floats:
    """Broken light below the horizon, longer towards the viewer, and unrest in the sky."""
    height, width = image.shape[:2]
    size = (width, height)
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    below = np.clip((y - composition.horizon) / (1 - composition.horizon), 0, 1)
    rough = {"stormy": 0.15, "cloudy": 0.10, "foggy": 0.05}.get(scene.weather, 0.08)
    ripples = noise(size, 34, rng, 3.5) * (1 - below) + noise(size, 13, rng, 3.0) * below
    image = image * (1 + rough * ripples * (below > 0) * np.sqrt(below))[..., None]
    sky = np.clip(1 - y / composition.horizon, 0, 1)
    return np.asarray(image * (1 + 0.10 * noise(size, 4, rng, 2.2) * (sky > 0))[..., None], np.float32)


def _warm_and_cool(image: Floats) -> Floats:
    """Lights towards ochre, shadows and water towards sea green, with Homer's depth of tone."""
    warmth = np.clip((image[..., 0] - image[..., 2]) * 4 + 0.5, 0, 1)[..., None]
    painted = toned(image, OCHRES, 0.55) * warmth + toned(image, SEA_GREENS, 0.50) * (1 - warmth)
    level = np.clip(painted, 0, 1)
    curve = level * level * (3 - 2 * level)  # an S-curve: the darks are deep, the lights few
    return np.asarray(0.94 * (0.5 * level + 0.5 * curve) ** 1.05, np.float32)


@dataclass(frozen=True, slots=True)
class Brush:
    """One pass of strokes."""

    count: int
    length: float
    """In units of the shorter side, as the width."""
    width: float
    jitter: float
    """Difference in brightness between one stroke and the next."""
    detail: bool
    """Laid only where the drawing has edges."""


BRUSHES = (
    Brush(1500, 0.085, 0.024, 0.075, False),
    Brush(2800, 0.045, 0.011, 0.085, False),
    Brush(3200, 0.026, 0.006, 0.040, True),
)
"""Broad strokes first, then middling ones, then fine ones where there is something to draw (after Hertzmann 1998)."""


def _brushed(image: Floats, composition: Composition, rng: np.random.Generator) -> Floats:
    """The image laid again in strokes that follow its forms, (H, W, 3)."""
    height, width = image.shape[:2]
    fine = 2 if min(width, height) < 400 else 1
    source = to_image(image)
    sheet = source.resize((width * fine, height * fine), Image.Resampling.BILINEAR)
    angle, edges = _flow(source, composition)
    area = width * height / min(width, height) ** 2
    for brush in BRUSHES:
        scaled = replace(brush, count=int(brush.count * area))
        _strokes(sheet, np.asarray(source, np.float32), angle, edges, scaled, rng)
        if not brush.detail:  # the drawing shows through the broad strokes wherever it has edges
            keep = Image.fromarray((np.clip(edges * 1.2, 0, 0.75) * 255).astype(np.uint8)).resize(sheet.size)
            sheet.paste(source.resize(sheet.size, Image.Resampling.BILINEAR), mask=keep)
    return np.asarray(sheet.reduce(fine), np.float32) * np.float32(1 / 255)


def _flow(source: Image.Image, composition: Composition) -> tuple[Floats, Floats]:
    """Direction of the strokes in radians and strength of the edges 0..1, each (H, W): along forms, else level."""
    level = np.asarray(source.convert("L").filter(ImageFilter.GaussianBlur(min(source.size) / 90)), np.float32)
    gy, gx = np.gradient(level)
    steep = np.hypot(gx, gy) * (min(source.size) / 128)
    weight = np.clip(steep / 14, 0, 1)
    along = np.arctan2(gx, -gy)  # across the gradient
    along = np.where(np.cos(along) < 0, along + math.pi, along)
    y = np.linspace(0, 1, level.shape[0], dtype=np.float32)[:, None]
    still = 0.12 * np.sin(y * 23) + np.where(y < composition.horizon, -0.35, 0.0)
    return np.asarray(still * (1 - weight) + along * weight, np.float32), np.asarray(weight, np.float32)


def _strokes(
    sheet: Image.Image, source: Floats, angle: Floats, edges: Floats, brush: Brush, rng: np.random.Generator
) -> None:
    """One pass of strokes on the sheet, in place; colours are taken from the source (H, W, 3), 0..255."""
    height, width = source.shape[:2]
    unit, fine = min(width, height), sheet.width / width
    x, y = rng.integers(0, width, brush.count), rng.integers(0, height, brush.count)
    if brush.detail:
        wanted = edges[y, x] > rng.random(brush.count)
        x, y = x[wanted], y[wanted]
    turn = angle[y, x] + rng.normal(0, 0.14, len(x))
    long = brush.length * unit / 2 * rng.uniform(0.6, 1.2, len(x)) * (1 - 0.6 * edges[y, x])
    thick = max(0.5, brush.width * unit / 2) * rng.uniform(0.6, 1.1, len(x))
    tone = np.clip(source[y, x] * (1 + rng.normal(0, brush.jitter, (len(x), 1))), 0, 255).astype(np.uint8)
    ax, ay = np.cos(turn) * long, np.sin(turn) * long
    bx, by = -np.sin(turn) * thick, np.cos(turn) * thick
    corners = np.stack(
        [
            x - ax,
            y - ay,
            x - ax * 0.7 + bx,
            y - ay * 0.7 + by,
            x + ax * 0.7 + bx,
            y + ay * 0.7 + by,
            x + ax,
            y + ay,
            x + ax * 0.7 - bx,
            y + ay * 0.7 - by,
            x - ax * 0.7 - bx,
            y - ay * 0.7 - by,
        ],
        1,
    )
    pen = ImageDraw.Draw(sheet)
    for outline, colour in zip((corners * fine).tolist(), map(tuple, tone.tolist()), strict=True):
        pen.polygon(outline, fill=colour)


def _varnished(image: Floats, rng: np.random.Generator) -> Image.Image:
    """Relief of the paint lit from the upper left, the canvas's weave, and old varnish darker towards the edges."""
    height, width = image.shape[:2]
    level = image @ LUMA
    relief = np.clip(level - np.roll(level, (1, 1), (0, 1)), -0.08, 0.08) * 0.6
    relief[0], relief[:, 0] = 0, 0
    weave = 0.018 * noise((width, height), min(400, width, height), rng)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    edge = 1 - 0.16 * np.clip(x * x + y * y - 0.35, 0, 1.2)
    varnish = np.asarray([1.02, 0.995, 0.93], np.float32)
    return to_image((image + (relief + weave)[..., None]) * edge[..., None] * varnish)


# --- The Avignon painter --------------------------------------------------------------------------------------------

FACETS = 26
"""Planes into which a square picture is broken."""
VIEWS = 4
"""Viewpoints from which the planes are seen."""


def avignon(scene: Scene, size: tuple[int, int], seed: int) -> Image.Image:
    """The scene as a cubist would paint it.

    Outlines are cut straight; the picture is broken into planes that each show the subject from another side and carry
    their own light; edges are drawn dark.
    """
    rng = random.Random(seed)
    composition = compose(scene, size)
    views = [_view(composition, size, k, rng) for k in range(VIEWS)]
    facets = _facets(composition, size, rng)
    image = _cubist_tone(views[0], 0)
    for facet in facets:
        _lay_facet(image, views, facet)
    return _outlined(image, facets, size, rng)


def _view(composition: Composition, size: tuple[int, int], k: int, rng: random.Random) -> Floats:
    """The composition seen from viewpoint k: turned, shifted and stretched about the subject, outlines cut straight."""
    unit = min(size)
    centre = np.asarray([composition.focus[0] * size[0] / unit, composition.focus[1] * size[1] / unit], np.float32)
    turn = 0.0 if k == 0 else rng.uniform(0.08, 0.20) * rng.choice((-1, 1))
    wide, high = (1.0, 1.0) if k == 0 else (rng.uniform(0.95, 1.22), rng.uniform(0.95, 1.18))
    c, s = math.cos(turn), math.sin(turn)
    matrix = np.asarray([[c * wide, -s * high], [s * wide, c * high]], np.float32)
    step = 0.0 if k == 0 else 0.10 * composition.reach
    shift = np.asarray([rng.uniform(-step, step), rng.uniform(-step, step)], np.float32)
    shapes = []
    for shape in composition.shapes:
        points = shape.points
        if shape.kind not in ("water", "land", "wall"):
            points = np.asarray((points - centre) @ matrix.T + centre + shift, np.float32)
        shapes.append(replace(shape, points=_straightened(points), shade=shape.shade * 1.8, soft=0.0, ball=False))
    turned = (composition.light, (0.9, -0.3), (-0.9, -0.3), (0.2, 0.9))[k % 4]
    canvas = draw(replace(composition, shapes=()), size)
    return rasterise(canvas, shapes, turned)


def _straightened(points: Floats) -> Floats:
    """A curved outline cut to about six straight edges; straight outlines stay."""
    if len(points) <= 8:
        return points
    return points[:: max(1, math.ceil(len(points) / 7))]


@dataclass(frozen=True, slots=True)
class Facet:
    """One plane: its corners in pixels and what it shows."""

    corners: tuple[Point, ...]
    view: int
    ramp: int
    light: tuple[float, float]
    """Brightness at the plane's two ends."""
    turn: float
    """Direction of the brightness ramp in radians."""


def _facets(composition: Composition, size: tuple[int, int], rng: random.Random) -> list[Facet]:
    """The picture cut again and again by straight lines, finest about the subject."""
    width, height = float(size[0]), float(size[1])
    focus = (composition.focus[0] * width, composition.focus[1] * height)
    pieces: list[tuple[Point, ...]] = [((0.0, 0.0), (width, 0.0), (width, height), (0.0, height))]
    for _ in range(int(FACETS * max(size) / min(size))):
        piece = max(pieces, key=lambda p: _area(p) / (0.55 + 4 * (_distance(p, focus) / min(size)) ** 2))
        pieces.remove(piece)
        pieces += [part for part in _cut(piece, rng) if len(part) >= 3]
    return [_dressed(piece, rng) for piece in pieces]


def _area(piece: tuple[Point, ...]) -> float:
    x, y = np.asarray(piece).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _distance(piece: tuple[Point, ...], to: Point) -> float:
    x, y = np.asarray(piece).mean(axis=0)
    return math.hypot(float(x) - to[0], float(y) - to[1])


ANGLES = (1.57, 1.25, 1.88, 0.95, 2.2, 0.55, 2.6, 0.1)
"""Directions of cuts in radians, steep ones first as in the paintings measured."""


def _cut(piece: tuple[Point, ...], rng: random.Random) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """Both parts of a convex piece cut through near its middle, across its longer extent."""
    points = np.asarray(piece)
    middle = points.mean(axis=0) + np.ptp(points, axis=0) * rng.uniform(-0.14, 0.14)
    wide, high = np.ptp(points, axis=0)
    angle = rng.choice(ANGLES[:5] if wide > 0.75 * high else ANGLES[3:]) + rng.uniform(-0.12, 0.12)
    normal = (-math.sin(angle), math.cos(angle))
    return _half(piece, middle, normal, 1.0), _half(piece, middle, normal, -1.0)


def _half(piece: tuple[Point, ...], middle: Floats, normal: Point, sign: float) -> tuple[Point, ...]:
    """The part of a convex piece on one side of a line (Sutherland-Hodgman)."""
    kept: list[Point] = []
    for a, b in zip(piece, (*piece[1:], piece[0]), strict=True):
        da = sign * ((a[0] - middle[0]) * normal[0] + (a[1] - middle[1]) * normal[1])
        db = sign * ((b[0] - middle[0]) * normal[0] + (b[1] - middle[1]) * normal[1])
        if da >= 0:
            kept.append(a)
        if (da < 0) != (db < 0):
            t = da / (da - db)
            kept.append((float(a[0] + (b[0] - a[0]) * t), float(a[1] + (b[1] - a[1]) * t)))
    return tuple(kept)


def _dressed(piece: tuple[Point, ...], rng: random.Random) -> Facet:
    low = rng.uniform(0.52, 0.86)
    return Facet(
        corners=piece,
        view=rng.choices(range(VIEWS), weights=(4, 2, 2, 2))[0],
        ramp=rng.choices(range(len(FACET_RAMPS)), weights=(4, 3, 3))[0],
        light=(low, low + rng.uniform(0.34, 0.54)),
        turn=rng.uniform(0, 2 * math.pi),
    )


FACET_RAMPS = (CLAYS, GREYS, ROSES)


def _cubist_tone(image: Floats, ramp: int) -> Floats:
    """A plane's colours on one of the three ramps, with half of the thing's own colour left to know it by."""
    level = np.clip(image, 0, 1)
    lifted = np.clip(0.5 + (level - 0.5) * 1.2 + 0.02, 0, 1)
    return toned(lifted, FACET_RAMPS[ramp], 0.50)


def _lay_facet(image: Floats, views: list[Floats], facet: Facet) -> None:
    """One plane on the image (H, W, 3) in place, shaded hard from one end to the other."""
    height, width = image.shape[:2]
    points = np.asarray(facet.corners)
    left, top = (max(0, int(v)) for v in points.min(axis=0))
    right, bottom = min(width, int(points[:, 0].max()) + 2), min(height, int(points[:, 1].max()) + 2)
    mask = Image.new("L", ((right - left) * 2, (bottom - top) * 2))
    ImageDraw.Draw(mask).polygon(((points - (left, top)) * 2).ravel().tolist(), fill=255)
    cover = np.asarray(mask.reduce(2), np.float32)[..., None] / 255
    part = _cubist_tone(views[facet.view][top:bottom, left:right], facet.ramp)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    along = x * math.cos(facet.turn) + y * math.sin(facet.turn)
    ends = points @ np.asarray([math.cos(facet.turn), math.sin(facet.turn)])
    t = np.clip((along - ends.min()) / (np.ptp(ends) + 1e-3), 0, 1)
    part = part * (facet.light[0] + (facet.light[1] - facet.light[0]) * t)[..., None]
    target = image[top:bottom, left:right]
    target += cover * (part - target)


def _outlined(image: Floats, facets: list[Facet], size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Dark and light lines along most planes' edges, and a dry brush over all."""
    fine = 3 if min(size) < 400 else 2
    sheet = Image.new("L", (size[0] * fine, size[1] * fine), 128)
    pen = ImageDraw.Draw(sheet)
    thick = max(1, round(min(size) * fine / 170))
    for facet in facets:
        for a, b in zip(facet.corners, (*facet.corners[1:], facet.corners[0]), strict=True):
            if rng.random() < 0.5:
                tone = rng.choice((40, 60, 80, 190))
                pen.line([a[0] * fine, a[1] * fine, b[0] * fine, b[1] * fine], fill=tone, width=thick)
    lines = np.asarray(sheet.reduce(fine), np.float32)[..., None] / 255 - 0.5
    grain = noise(size, 90, np.random.default_rng(rng.randrange(1 << 30)), 0.35)[..., None] * 0.016
    return to_image(image * (1 + np.minimum(lines, 0) * 1.7) + np.maximum(lines, 0) * 0.5 + grain)


PAINTERS: dict[str, Callable[[Scene, tuple[int, int], int], Image.Image]] = {"atlantic": atlantic, "avignon": avignon}
