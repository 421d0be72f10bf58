"""Shapes and the one rasteriser of the embedded world.

A picture is a list of `Shape`s, back to front. Lengths are in units of the picture's shorter side, x to the right and
y down, so that one composition serves any size; colours are linear mixes of sRGB values in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[float, float, float]
Point = tuple[float, float]
Floats = NDArray[np.float32]

BLACK: Colour = (0.08, 0.08, 0.09)
WHITE: Colour = (0.95, 0.94, 0.90)


@dataclass(frozen=True, slots=True)
class Shape:
    """A filled polygon and how the light falls on it."""

    points: Floats
    """(N, 2) outline in units of the picture's shorter side."""
    colour: Colour
    shade: float = 0.25
    """Difference in brightness between the lit and the dark side, as a fraction."""
    depth: float = 0.0
    """0 beside the viewer, 1 at the horizon: how much air lies in front."""
    kind: str = "object"
    """sky, water, land, wall, object, figure or glow (glow gives light and takes none)."""
    soft: float = 0.0
    """Radius of the blur of the edge, in the same units as the outline."""
    alpha: float = 1.0
    ball: bool = False
    """Shaded as a ball (True) or as a plane (False)."""


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """The colour a fraction t of the way from a to b."""
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


def scaled(a: Colour, by: float) -> Colour:
    """The colour made lighter (by > 1) or darker (by < 1), kept in range."""
    return (min(1.0, a[0] * by), min(1.0, a[1] * by), min(1.0, a[2] * by))


def smooth(points: Sequence[Point], steps: int = 5) -> list[Point]:
    """A closed Catmull-Rom curve through the points, as a polygon with `steps` corners for each of them."""
    p = np.asarray(points, np.float32)  # (N, 2)
    t = (np.arange(steps, dtype=np.float32) / steps)[None, :, None]
    a, b, c, d = (np.roll(p, k, axis=0)[:, None] for k in (1, 0, -1, -2))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return [(float(x), float(y)) for x, y in curve.reshape(-1, 2)]


def oval(x: float, y: float, rx: float, ry: float, corners: int = 20) -> list[Point]:
    """An ellipse as a polygon."""
    turn = [2 * math.pi * k / corners for k in range(corners)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in turn]


def bar(a: Point, b: Point, width: float, end: float | None = None) -> list[Point]:
    """A straight bar from a to b, `width` thick at a and `end` thick at b."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = math.hypot(dx, dy) or 1.0
    nx, ny = -dy / length / 2, dx / length / 2
    last = width if end is None else end
    return [
        (a[0] + nx * width, a[1] + ny * width),
        (b[0] + nx * last, b[1] + ny * last),
        (b[0] - nx * last, b[1] - ny * last),
        (a[0] - nx * width, a[1] - ny * width),
    ]


@dataclass
class Pen:
    """Draws in a subject's own frame (origin at the middle of its foot, y up, about one high) into the picture's."""

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    flip: float = 1.0
    """-1 turns the subject to look the other way."""
    tilt: float = 0.0
    """Rotation about the foot in radians."""
    depth: float = 0.0
    kind: str = "object"
    shapes: list[Shape] = field(default_factory=list)

    def place(self, points: Iterable[Point]) -> Floats:
        """Own frame to picture frame."""
        p = np.asarray(list(points), np.float32)
        c, s = math.cos(self.tilt), math.sin(self.tilt)
        x, y = p[:, 0] * self.flip, p[:, 1]
        return np.stack([self.x + self.scale * (c * x - s * y), self.y - self.scale * (s * x + c * y)], axis=1)

    def poly(
        self,
        points: Iterable[Point],
        colour: Colour,
        shade: float = 0.25,
        *,
        ball: bool = False,
        kind: str | None = None,
        soft: float = 0.0,
        alpha: float = 1.0,
    ) -> None:
        """Add a polygon."""
        outline = self.place(points)
        self.shapes.append(Shape(outline, colour, shade, self.depth, kind or self.kind, soft * self.scale, alpha, ball))

    def curve(self, points: Sequence[Point], colour: Colour, shade: float = 0.25, *, ball: bool = False) -> None:
        """Add a closed smooth shape through the points."""
        self.poly(smooth(points), colour, shade, ball=ball)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour, shade: float = 0.35) -> None:
        """Add an ellipse shaded as a ball."""
        self.poly(oval(x, y, rx, ry), colour, shade, ball=True)

    def bar(self, a: Point, b: Point, width: float, colour: Colour, end: float | None = None) -> None:
        """Add a straight bar."""
        self.poly(bar(a, b, width, end), colour, 0.15)

    def at(self, x: float, y: float, scale: float = 1.0, tilt: float = 0.0) -> Pen:
        """A pen for a part: its origin at (x, y) of this one's frame, adding to the same list."""
        origin = self.place([(x, y)])[0]
        return replace(
            self, x=float(origin[0]), y=float(origin[1]), scale=self.scale * scale, tilt=self.tilt + tilt * self.flip
        )


def supersampling(size: tuple[int, int]) -> int:
    """How many times finer masks are drawn: small pictures need it most and can best afford it."""
    return 4 if max(size) <= 160 else 3 if max(size) <= 400 else 2


def _mask(outline: Floats, box: tuple[int, int, int, int], fine: int, blur: float) -> Floats:
    """Coverage 0..1 of a polygon (pixels) inside box = (left, top, right, bottom), as (h, w)."""
    left, top, right, bottom = box
    mask = Image.new("L", ((right - left) * fine, (bottom - top) * fine))
    corners = (outline - np.asarray([left, top], np.float32)) * fine
    ImageDraw.Draw(mask).polygon(corners.ravel().tolist(), fill=255)
    mask = mask.reduce(fine)
    if blur > 0.3:
        mask = mask.filter(ImageFilter.GaussianBlur(blur))
    return np.asarray(mask, np.float32) * np.float32(1 / 255)


def _light(shape: Shape, box: tuple[int, int, int, int], outline: Floats, light: Point) -> Floats:
    """Brightness factor (h, w) of the shape's inside under light from the direction `light` (towards the lamp)."""
    low, span = outline.min(axis=0), np.maximum(np.ptp(outline, axis=0), 1e-3)
    x = ((np.arange(box[0], box[2], dtype=np.float32) + 0.5 - low[0]) / span[0] - 0.5)[None]
    y = ((np.arange(box[1], box[3], dtype=np.float32) + 0.5 - low[1]) / span[1] - 0.5)[:, None]
    lean = x * light[0] + y * light[1]
    if shape.ball:
        lean = 0.45 - 1.9 * ((x - 0.22 * light[0]) ** 2 + (y - 0.22 * light[1]) ** 2)
    return np.asarray(1 + shape.shade * lean, np.float32)


def fill(canvas: Floats, shape: Shape, unit: float, fine: int, light: Point) -> None:
    """Lay one shape on the canvas (H, W, 3) in place; `unit` is the number of pixels in one unit of length."""
    outline = shape.points * np.float32(unit)
    blur = shape.soft * unit
    low, high = outline.min(axis=0) - 2.5 * blur, outline.max(axis=0) + 2.5 * blur
    height, width = canvas.shape[:2]
    left, top = max(0, math.floor(float(low[0]))), max(0, math.floor(float(low[1])))
    right, bottom = min(width, math.ceil(float(high[0]))), min(height, math.ceil(float(high[1])))
    if right <= left or bottom <= top:
        return
    box = (left, top, right, bottom)
    cover = _mask(outline, box, fine, blur)[..., None] * np.float32(shape.alpha)  # (h, w, 1)
    tone = _light(shape, box, outline, light)[..., None] * np.asarray(shape.colour, np.float32)  # (h, w, 3)
    part = canvas[top:bottom, left:right]
    part += cover * (tone - part)


def gradient(size: tuple[int, int], stops: Sequence[tuple[float, Colour]]) -> Floats:
    """A vertical gradient (H, W, 3); stops are (height as a fraction from the top, colour)."""
    width, height = size
    y = (np.arange(height, dtype=np.float32) + 0.5) / height
    at = [s[0] for s in stops]
    column = np.stack([np.interp(y, at, [s[1][c] for s in stops]) for c in range(3)], axis=1).astype(np.float32)
    return np.ascontiguousarray(np.broadcast_to(column[:, None], (height, width, 3)))


def rasterise(canvas: Floats, shapes: Iterable[Shape], light: Point) -> Floats:
    """All shapes, back to front, on the canvas (H, W, 3), which is changed and returned."""
    height, width = canvas.shape[:2]
    unit, fine = float(min(width, height)), supersampling((width, height))
    for shape in shapes:
        fill(canvas, shape, unit, fine, light)
    return canvas


def to_image(canvas: Floats) -> Image.Image:
    """Floats 0..1 (H, W, 3) as an RGB picture."""
    return Image.fromarray((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8))
