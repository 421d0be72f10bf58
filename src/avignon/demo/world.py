"""A grammar of scenes, with the words for each and a plain picture of it.

`sample` draws a `Scene`, `caption` says it in words, `render` shows it neutrally: clean, softly shaded, in no
painter's manner. `painters` paints the same compositions in two manners. Everything follows from the scene alone,
so that the same scene gives the same bytes anywhere.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace

from PIL import Image

from avignon.demo.drawing import (
    WHITE,
    Colour,
    Floats,
    Pen,
    Point,
    Shape,
    gradient,
    mix,
    oval,
    rasterise,
    scaled,
    smooth,
    to_image,
)
from avignon.demo.subjects import FOAM, SUBJECTS, Look, Subject

COLOURS: dict[str, Colour] = {
    "red": (0.76, 0.19, 0.14),
    "blue": (0.16, 0.34, 0.66),
    "green": (0.20, 0.50, 0.28),
    "yellow": (0.91, 0.73, 0.20),
    "white": (0.94, 0.92, 0.87),
    "brown": (0.47, 0.29, 0.17),
}
TIMES: dict[str, str] = {"morning": "in the morning", "noon": "at noon", "dusk": "at dusk", "night": "at night"}
WEATHERS: dict[str, str] = {
    "fine": "fine weather",
    "cloudy": "cloudy weather",
    "stormy": "stormy weather",
    "foggy": "foggy weather",
}
SIDES: dict[str, str] = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
DISTANCES: dict[str, str] = {"near": "close by", "far": "far away"}

HELD_OUT = 0.05
"""Share of the combinations of subject, colour, time and weather that no training picture shows."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in a picture, apart from any manner of painting it."""

    subject: str
    colour: str
    number: int
    time: str
    weather: str
    side: str
    distance: str
    jitter: int = 0
    """Seed of the small differences between two pictures of the same words."""


@dataclass(frozen=True, slots=True)
class Air:
    """Light and weather of one time of day: sky above, sky at the horizon, tint of what it falls on, lamp height."""

    top: Colour
    low: Colour
    tint: Colour
    height: float


AIRS: dict[str, Air] = {
    "morning": Air((0.56, 0.74, 0.88), (0.98, 0.86, 0.74), (1.04, 0.98, 0.90), 0.45),
    "noon": Air((0.27, 0.55, 0.86), (0.78, 0.90, 0.96), (1.06, 1.05, 1.02), 0.80),
    "dusk": Air((0.36, 0.30, 0.50), (0.97, 0.58, 0.28), (0.92, 0.72, 0.60), 0.22),
    "night": Air((0.05, 0.08, 0.20), (0.20, 0.28, 0.48), (0.56, 0.61, 0.80), 0.70),
}
GREYS: dict[str, float] = {"fine": 0.0, "cloudy": 0.30, "stormy": 0.78, "foggy": 0.50}
"""How far each weather takes the sky towards grey."""


def sample(rng: random.Random) -> Scene:
    """A scene drawn evenly from the grammar."""
    subject = rng.choice(list(SUBJECTS))
    return Scene(
        subject=subject,
        colour=rng.choice(list(COLOURS)),
        number=rng.randint(1, len(SUBJECTS[subject].names)),
        time=rng.choice(list(TIMES)),
        weather=rng.choice(list(WEATHERS)),
        side=rng.choice(list(SIDES)),
        distance=rng.choice(list(DISTANCES)),
        jitter=rng.randrange(1 << 30),
    )


def held_out(scene: Scene) -> bool:
    """Whether the scene's combination is kept from training, to see what a model makes of unseen combinations."""
    words = f"{scene.subject}|{scene.colour}|{scene.time}|{scene.weather}"
    return hashlib.sha256(words.encode()).digest()[0] < HELD_OUT * 256


def phrases(scene: Scene) -> tuple[str, str, str, str, str]:
    """The caption's parts: what, side, distance, time, weather."""
    what = SUBJECTS[scene.subject].names[scene.number - 1].format(c=scene.colour)
    parts = (SIDES[scene.side], DISTANCES[scene.distance], TIMES[scene.time], WEATHERS[scene.weather])
    return (what, *parts)


def caption(scene: Scene) -> str:
    """The scene in words: "a red sailing boat on the left, far away, at dusk, stormy weather"."""
    what, side, *rest = phrases(scene)
    return ", ".join([f"{what} {side}", *rest])


@dataclass(frozen=True, slots=True)
class Composition:
    """A scene laid out for one shape of picture: a sky, the shapes before it, and where light and subject are."""

    stops: tuple[tuple[float, Colour], ...]
    """The sky's (or wall's) vertical gradient; heights are fractions of the picture's."""
    shapes: tuple[Shape, ...]
    light: Point
    """Direction towards the lamp, x right and y down."""
    horizon: float
    """Height of the horizon from the top, as a fraction."""
    focus: Point
    """Middle of the subject, as fractions of width and height."""
    reach: float
    """Height of the subject in units of the shorter side."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Width and height of the picture in units of its shorter side, and the chosen layout."""

    width: float
    height: float
    horizon: float
    lamp: Point
    """Place of sun or moon, in units."""


def sky_of(scene: Scene) -> Air:
    """The scene's air: time of day, greyed by the weather."""
    air, grey = AIRS[scene.time], GREYS[scene.weather]
    level = sum(air.low) / 3
    dull: Colour = (0.72 * level, 0.77 * level, 0.82 * level) if scene.weather == "stormy" else (level, level, level)
    tint = scaled(air.tint, {"stormy": 0.86, "foggy": 0.97}.get(scene.weather, 1.0))
    return Air(mix(air.top, dull, grey), mix(air.low, dull, grey * 0.9), tint, air.height)


def compose(scene: Scene, size: tuple[int, int]) -> Composition:
    """Lay the scene out for a picture of size (width, height) in pixels; only its proportions matter."""
    rng = random.Random(scene.jitter)
    unit = min(size)
    width, height = size[0] / unit, size[1] / unit
    air, setting = sky_of(scene), SUBJECTS[scene.subject].setting
    horizon = (0.60 if setting == "room" else 0.46) + rng.uniform(-0.04, 0.04)
    side = rng.choice((0.2, 0.8)) + rng.uniform(-0.06, 0.06)
    frame = Frame(width, height, horizon * height, (side * width, (1 - air.height) * horizon * height * 0.85 + 0.04))
    shapes = [*BACKDROPS[setting](scene, frame, air, rng), *_subjects(scene, frame, rng)]
    shapes = [_lit(shape, air, scene.weather) for shape in shapes] + _rain(scene, frame, rng)
    x, foot, reach = _place(scene, frame, random.Random(scene.jitter + 1))
    stops = (
        _wall(air, scene)
        if setting == "room"
        else ((0.0, air.top), (horizon * 0.55, mix(air.top, air.low, 0.55)), (horizon, air.low), (1.0, air.low))
    )
    light = (0.8 if side > 0.5 else -0.8, -0.9)
    return Composition(stops, tuple(shapes), light, horizon, (x / width, (foot - reach / 2) / height), reach)


def _place(scene: Scene, frame: Frame, rng: random.Random) -> tuple[float, float, float]:
    """Where the subject stands: x and foot in units, and its height."""
    near = scene.distance == "near"
    reach = (0.66 if near else 0.33) * rng.uniform(0.93, 1.07) * SUBJECTS[scene.subject].size
    spread = SPREADS[scene.number if SUBJECTS[scene.subject].several else 1]
    reach *= min(1.15, 0.8 + 0.2 * max(frame.width, frame.height)) * (1.0 if len(spread) == 1 else 0.84)
    half = reach * max(abs(across) + 0.48 * scale for across, _, scale in spread)
    share = {"left": 0.28, "middle": 0.50, "right": 0.72}[scene.side] + rng.uniform(-0.035, 0.035)
    inside = max(0.0, frame.width / 2 - half + 0.07)  # the subject may overlap the edge by this much, no more
    x = frame.width / 2 + max(-inside, min(inside, (share - 0.5) * frame.width))
    ground = frame.height - frame.horizon
    foot = frame.horizon + ground * ((0.80 if near else 0.34) + rng.uniform(-0.04, 0.04))
    return x, foot, reach


SPREADS: dict[int, tuple[tuple[float, float, float], ...]] = {
    1: ((0.0, 0.0, 1.0),),
    2: ((-0.46, -0.03, 0.76), (0.46, 0.04, 0.80)),
    3: ((-0.66, -0.02, 0.62), (0.62, -0.04, 0.60), (0.0, 0.06, 0.68)),
}
"""Offset across, offset down and size of each of several, in heights of a single one."""


def _subjects(scene: Scene, frame: Frame, rng: random.Random) -> list[Shape]:
    subject = SUBJECTS[scene.subject]
    x, foot, reach = _place(scene, frame, random.Random(scene.jitter + 1))
    look = Look(COLOURS[scene.colour], scene.number, rng)
    shapes: list[Shape] = []
    flip = rng.choice((-1.0, 1.0))
    for across, down, scale in SPREADS[scene.number if subject.several else 1]:
        depth = 0.08 if scene.distance == "near" else 0.42
        pen = Pen(x + across * reach, foot + down * reach, reach * scale, flip, 0.0, depth)
        subject.draw(pen, look)
        shapes += pen.shapes
    return shapes


def _lit(shape: Shape, air: Air, weather: str) -> Shape:
    """The shape under the scene's light, seen through the scene's air."""
    if shape.kind in ("glow", "sky"):
        return shape
    tinted: Colour = (shape.colour[0] * air.tint[0], shape.colour[1] * air.tint[1], shape.colour[2] * air.tint[2])
    veil = {"fine": 0.30, "cloudy": 0.38, "stormy": 0.42, "foggy": 1.30}[weather] * shape.depth
    if weather == "foggy":
        veil += 0.12
    return replace(shape, colour=mix(tinted, air.low, min(0.85, veil)))


def _rain(scene: Scene, frame: Frame, rng: random.Random) -> list[Shape]:
    if scene.weather != "stormy" or SUBJECTS[scene.subject].setting == "room":
        return []
    pen = Pen(y=frame.height, kind="sky")
    for _ in range(14):
        x, y = rng.uniform(0, frame.width), rng.uniform(0.1, 1.0) * frame.height
        long = rng.uniform(0.08, 0.16)
        pen.poly([(x, y), (x + 0.007, y), (x - long * 0.35, y - long)], (0.86, 0.89, 0.93), 0.0, alpha=0.4)
    return pen.shapes


def _clouds(scene: Scene, frame: Frame, air: Air, rng: random.Random) -> list[Shape]:
    """Sun or moon, stars, and banks of cloud."""
    shapes = _lamp(scene, frame)
    count = {"fine": 1, "cloudy": 5, "stormy": 7, "foggy": 0}[scene.weather]
    dark = scene.weather == "stormy"
    base = scaled(air.top, 0.62) if dark else mix(air.low, WHITE, 0.25 if scene.time == "night" else 0.6)
    for _ in range(count):
        x, y = rng.uniform(0, frame.width), rng.uniform(0.08, 0.8) * frame.horizon
        wide = rng.uniform(0.16, 0.34) * (1.5 if dark else 1.0)
        for k in range(3):
            puff = oval(x + (k - 1) * wide * 0.5, y - (0.03 if k == 1 else 0), wide * 0.45, wide * 0.18, 14)
            tone = scaled(base, rng.uniform(0.86, 1.08))
            shapes.append(
                Shape(Pen(0, 0, 1).place([(a, -b) for a, b in puff]), tone, 0.3, 0.9, "sky", 0.016, 0.8, True)
            )
    return shapes


def _lamp(scene: Scene, frame: Frame) -> list[Shape]:
    if scene.weather in ("stormy", "foggy"):
        return []
    x, y = frame.lamp
    pen = Pen(0, 0, 1, kind="sky")
    if scene.time == "night":
        rng = random.Random(scene.jitter + 2)
        for _ in range(12):
            a, b = rng.uniform(0, frame.width), rng.uniform(0.02, 0.8) * frame.horizon
            pen.poly(oval(a, -b, 0.006, 0.006, 6), (0.9, 0.92, 1.0), 0.0)
    tone: Colour = {"noon": (1.0, 0.98, 0.86), "night": (0.93, 0.94, 0.90)}.get(scene.time, (1.0, 0.86, 0.55))
    pen.poly(oval(x, -y, 0.13, 0.13), tone, 0.0, soft=0.05, alpha=0.45)
    pen.poly(oval(x, -y, 0.055, 0.055), tone, 0.0)
    return pen.shapes


def _sea(scene: Scene, frame: Frame, air: Air, rng: random.Random) -> list[Shape]:
    """Sky, the sea in bands that darken towards the viewer, and waves that grow with wind and nearness."""
    shapes = _clouds(scene, frame, air, rng)
    far, near = (0.30, 0.50, 0.56), (0.08, 0.26, 0.34)
    ground = frame.height - frame.horizon
    pen = Pen(0, frame.height, 1, kind="water")
    for k in range(6):
        top = ground * (1 - (k / 6) ** 1.5)
        pen.depth = 0.9 * (1 - k / 6)
        pen.poly([(0, top), (frame.width, top), (frame.width, 0), (0, 0)], mix(far, near, k / 5), 0.0)
    shapes += pen.shapes
    shapes += _glitter(scene, frame)
    return shapes + _waves(scene, frame, rng)


def _glitter(scene: Scene, frame: Frame) -> list[Shape]:
    """The path of sun or moon on the water."""
    if scene.weather not in ("fine", "cloudy") or scene.time == "noon":
        return []
    tone: Colour = (0.85, 0.88, 0.95) if scene.time == "night" else (1.0, 0.80, 0.50)
    pen = Pen(frame.lamp[0], frame.height, 1, kind="glow")
    for k in range(7):
        y = (frame.height - frame.horizon) * (0.95 - 0.12 * k)
        wide = 0.03 + 0.012 * k
        pen.poly([(-wide, y), (wide, y), (wide * 0.6, y - 0.012), (-wide * 0.6, y - 0.012)], tone, 0.0, alpha=0.5)
    return pen.shapes


def _waves(scene: Scene, frame: Frame, rng: random.Random) -> list[Shape]:
    rough = {"fine": 0.35, "cloudy": 0.6, "stormy": 1.5, "foggy": 0.3}[scene.weather]
    ground = frame.height - frame.horizon
    pen = Pen(0, frame.height, 1, kind="water")
    for _ in range(round(16 * max(1.0, frame.width))):
        nearness = rng.random() ** 0.8
        x, y = rng.uniform(-0.05, frame.width), ground * (1 - nearness) * 0.97
        wide, high = 0.05 + 0.13 * nearness, (0.006 + 0.020 * nearness) * rough
        pen.depth = 0.8 * (1 - nearness)
        dark = mix((0.26, 0.46, 0.52), (0.05, 0.19, 0.27), nearness)
        pen.poly(smooth([(x - wide, y - high), (x, y + high), (x + wide, y - high)], 4), dark, 0.3)
        if rough > 1:
            crest = [(x - wide * 0.5, y + high * 0.3), (x, y + high * 1.1), (x + wide * 0.4, y + high * 0.3)]
            pen.poly(smooth(crest, 3), FOAM, 0.0, alpha=0.85)
    return pen.shapes


def _shore(scene: Scene, frame: Frame, air: Air, rng: random.Random) -> list[Shape]:
    """The sea with a beach before it."""
    shapes = _sea(scene, frame, air, rng)
    ground = frame.height - frame.horizon
    pen = Pen(0, frame.height, 1, kind="land", depth=0.1)
    edge = ground * 0.72
    beach = [(-0.1, edge), (frame.width * 0.4, edge * 1.04), (frame.width + 0.1, edge * 0.9), (frame.width + 0.1, -0.1)]
    pen.poly([(a, b + 0.02) for a, b in beach[:3]] + [(frame.width + 0.1, edge * 0.8), (-0.1, edge * 0.9)], FOAM, 0.0)
    pen.poly([*beach, (-0.1, -0.1)], (0.80, 0.69, 0.50), 0.25)
    for _ in range(5):
        x, y, r = rng.uniform(0, frame.width), rng.uniform(0, edge * 0.8), rng.uniform(0.01, 0.03)
        pen.oval(x, y, r * 1.5, r, (0.48, 0.44, 0.40))
    return shapes + pen.shapes


def _field(scene: Scene, frame: Frame, air: Air, rng: random.Random) -> list[Shape]:
    """Sky, hills, a meadow (a golden one for hay)."""
    shapes = _clouds(scene, frame, air, rng)
    ground, wide = frame.height - frame.horizon, frame.width
    pen = Pen(0, frame.height, 1, kind="land", depth=0.85)
    lift = rng.uniform(0.05, 0.12)
    pen.poly(
        smooth(
            [
                (-0.3, ground),
                (wide * 0.25, ground + lift),
                (wide * 0.6, ground + lift * 0.4),
                (wide + 0.3, ground + lift * 1.2),
                (wide + 0.3, ground - 0.2),
                (-0.3, ground - 0.2),
            ]
        ),
        (0.36, 0.46, 0.44),
        0.2,
    )
    gold = scene.subject == "hay field"
    far: Colour = (0.80, 0.68, 0.36) if gold else (0.50, 0.58, 0.30)
    near: Colour = (0.66, 0.48, 0.18) if gold else (0.28, 0.40, 0.16)
    for k in range(5):
        pen.depth = 0.7 * (1 - k / 5)
        top = ground * (1 - 0.04 - (k / 5) ** 1.4)
        pen.poly(
            [(0, top), (wide, top + rng.uniform(-0.02, 0.02)), (wide, -0.1), (0, -0.1)], mix(far, near, k / 4), 0.1
        )
    for _ in range(round(14 * wide)):
        near_by = rng.random()
        x, y, high = rng.uniform(0, wide), ground * 0.9 * (1 - near_by), 0.015 + 0.03 * near_by
        pen.depth = 0.6 * (1 - near_by)
        tuft = [(x - 0.02, y), (x - 0.012, y + high), (x, y + 0.3 * high), (x + 0.014, y + high), (x + 0.02, y)]
        pen.poly(tuft, scaled(mix(far, near, near_by), 0.8), 0.0)
    return shapes + pen.shapes


def _wall(air: Air, scene: Scene) -> tuple[tuple[float, Colour], ...]:
    base: Colour = WALLS[scene.jitter % len(WALLS)]
    lit: Colour = (base[0] * air.tint[0], base[1] * air.tint[1], base[2] * air.tint[2])
    return ((0.0, scaled(lit, 0.86)), (0.6, lit), (1.0, scaled(lit, 0.8)))


WALLS: tuple[Colour, ...] = ((0.72, 0.66, 0.54), (0.60, 0.64, 0.60), (0.70, 0.58, 0.52))


def _room(scene: Scene, frame: Frame, air: Air, rng: random.Random) -> list[Shape]:
    """A wall, a floor, and a window that shows the hour and the weather outside."""
    pen = Pen(0, frame.height, 1, kind="wall", depth=0.1)
    ground, wide = frame.height - frame.horizon, frame.width
    pen.poly([(0, ground), (wide, ground), (wide, 0), (0, 0)], (0.46, 0.34, 0.24), -0.3)
    pen.poly([(0, ground), (wide, ground), (wide, ground - 0.025), (0, ground - 0.025)], (0.36, 0.26, 0.19), 0.0)
    for k in range(-3, 4):
        x = wide / 2 + k * wide * 0.2
        pen.bar((x, ground), (wide / 2 + k * wide * 0.42, 0), 0.004, (0.32, 0.23, 0.16), 0.01)
    left = scene.side == "right" or (scene.side == "middle" and rng.random() < 0.5)
    _window(pen, scene, air, (0.20 if left else 0.80) * wide, ground + 0.22, rng)
    return pen.shapes


def _window(pen: Pen, scene: Scene, air: Air, x: float, y: float, rng: random.Random) -> None:
    """A window 0.26 by 0.32 units, its lower edge at y above the picture's."""
    frame: Colour = (0.80, 0.76, 0.68)
    pen.poly([(x - 0.15, y - 0.02), (x + 0.15, y - 0.02), (x + 0.15, y + 0.34), (x - 0.15, y + 0.34)], frame, 0.2)
    for k in range(4):
        low = y + 0.08 * k
        tone = mix(air.low, air.top, k / 3)
        pen.poly(
            [(x - 0.13, low), (x + 0.13, low), (x + 0.13, low + 0.081), (x - 0.13, low + 0.081)], tone, 0, kind="sky"
        )
    if scene.weather == "fine":
        lamp: Colour = (0.95, 0.95, 0.88) if scene.time in ("night", "noon") else (1.0, 0.80, 0.45)
        pen.poly(
            oval(x + 0.06, y + {"noon": 0.26, "night": 0.25}.get(scene.time, 0.12), 0.03, 0.03), lamp, 0, kind="sky"
        )
    if scene.weather in ("cloudy", "stormy"):
        tone = scaled(air.top, 0.6) if scene.weather == "stormy" else mix(air.low, WHITE, 0.5)
        for dx, dy in ((-0.05, 0.24), (0.05, 0.2), (-0.02, 0.14)):
            pen.poly(oval(x + dx, y + dy, 0.075, 0.03, 12), tone, 0.2, kind="sky")
    if scene.weather == "stormy":
        for _ in range(7):
            a, b = x + rng.uniform(-0.09, 0.12), y + rng.uniform(0.06, 0.3)
            pen.poly([(a, b), (a + 0.006, b), (a - 0.02, b - 0.05)], (0.9, 0.92, 0.95), 0, kind="sky", alpha=0.7)
    pen.bar((x, y - 0.01), (x, y + 0.33), 0.016, frame)
    pen.bar((x - 0.14, y + 0.16), (x + 0.14, y + 0.16), 0.016, frame)


BACKDROPS = {"sea": _sea, "shore": _shore, "field": _field, "room": _room}


def render(scene: Scene, size: int) -> Image.Image:
    """The scene in a neutral, softly shaded drawing of size by size pixels."""
    return to_image(draw(compose(scene, (size, size)), (size, size)))


def draw(composition: Composition, size: tuple[int, int]) -> Floats:
    """A composition as plain colours (H, W, 3), 0..1."""
    return rasterise(gradient(size, composition.stops), composition.shapes, composition.light)


__all__ = [
    "COLOURS",
    "SUBJECTS",
    "Composition",
    "Scene",
    "Subject",
    "caption",
    "compose",
    "draw",
    "held_out",
    "phrases",
    "render",
    "sample",
    "sky_of",
]
