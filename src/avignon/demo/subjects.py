"""The sixteen subjects of the embedded world and the table that says how each is drawn and named.

Eight come from the world of a painter of the Atlantic coast (boats, fishermen, hay fields), eight from that of the
cubists (guitars, harlequins, still lifes, houses on a hill). Every function draws in the frame of its `Pen`: the origin
is the middle of the foot, y points up and the subject is about one unit high.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from avignon.demo.drawing import BLACK, WHITE, Colour, Pen, mix, scaled

WOOD: Colour = (0.42, 0.28, 0.17)
SKIN: Colour = (0.85, 0.64, 0.48)
STONE: Colour = (0.50, 0.48, 0.45)
STRAW: Colour = (0.86, 0.70, 0.32)
LEAF: Colour = (0.24, 0.36, 0.18)
FOAM: Colour = (0.90, 0.94, 0.93)
LAMP: Colour = (1.0, 0.86, 0.45)


@dataclass(frozen=True, slots=True)
class Look:
    """What a drawing function is told of the scene."""

    colour: Colour
    number: int
    rng: random.Random


def sailing_boat(pen: Pen, look: Look) -> None:
    """A cutter under main and jib, heeling a little."""
    hull = mix(WOOD, look.colour, 0.25)
    _reflection(pen, look.colour, 0.30)
    pen = pen.at(0, 0, tilt=-0.05 - 0.08 * look.rng.random())
    pen.bar((-0.02, 0.1), (-0.02, 1.06), 0.03, scaled(WOOD, 0.8), 0.015)
    main = [(-0.05, 0.20), (-0.52, 0.21), (-0.40, 0.50), (-0.22, 0.82), (-0.04, 1.02), (-0.03, 0.6)]
    pen.poly(main, look.colour, 0.5)
    pen.poly([(-0.05, 0.62), (-0.34, 0.61), (-0.37, 0.55), (-0.05, 0.55)], scaled(look.colour, 0.82), 0.2)
    pen.poly([(0.02, 0.96), (0.16, 0.60), (0.48, 0.19), (0.06, 0.24)], mix(look.colour, WHITE, 0.45), 0.5)
    pen.poly([(-0.02, 1.05), (0.10, 1.09), (-0.02, 1.12)], (0.75, 0.2, 0.15), 0.1)
    pen.poly([(-0.48, 0.17), (0.54, 0.20), (0.38, -0.02), (-0.38, -0.02)], hull, 0.5)
    pen.poly([(-0.49, 0.19), (0.55, 0.22), (0.52, 0.16), (-0.47, 0.13)], mix(hull, WHITE, 0.6), 0.2)
    pen.oval(-0.28, 0.25, 0.045, 0.07, scaled(BLACK, 2.2))
    pen.oval(-0.28, 0.34, 0.035, 0.04, SKIN)
    _foam(pen, 0.9)


def _reflection(pen: Pen, colour: Colour, width: float) -> None:
    for k in range(4):
        wide = width * (1 - 0.18 * k)
        y = -0.06 - 0.06 * k
        pen.poly([(-wide, y), (wide, y), (wide * 0.8, y - 0.03), (-wide * 0.8, y - 0.03)], colour, 0.0, alpha=0.28)


def _foam(pen: Pen, width: float) -> None:
    half = width / 2
    pen.curve([(-half, -0.02), (-0.1, 0.02), (half, 0.03), (half * 1.2, -0.03), (0, -0.06)], FOAM, 0.2)


def rowing_boat(pen: Pen, look: Look) -> None:
    """A dory in a swell, its rower seen from the side, a wave before and one behind."""
    swell: Colour = (0.20, 0.33, 0.36)
    pen.curve([(-1.0, -0.05), (-0.55, 0.26), (-0.1, 0.1), (0.5, 0.02), (0.9, -0.1), (0, -0.2)], swell, 0.6)
    boat = pen.at(0, 0.1, tilt=0.16 + 0.1 * look.rng.random())
    boat.poly([(-0.62, 0.34), (0.62, 0.34), (0.50, 0.20), (-0.50, 0.20)], scaled(look.colour, 0.5), 0.1)
    _rower(boat)
    hull = [(-0.66, 0.37), (-0.36, 0.26), (0, 0.23), (0.36, 0.26), (0.66, 0.37), (0.44, 0.0), (-0.44, 0.0)]
    boat.poly(hull, look.colour, 0.6)
    rim = [(-0.66, 0.37), (-0.36, 0.27), (0, 0.24), (0.36, 0.27), (0.66, 0.37), (0.36, 0.22), (0, 0.19), (-0.36, 0.22)]
    boat.poly(rim, mix(look.colour, WHITE, 0.6), 0.1)
    boat.bar((0.06, 0.34), (-0.55, -0.06), 0.035, STRAW, 0.06)
    boat.bar((0.06, 0.34), (0.70, 0.02), 0.035, STRAW, 0.06)
    pen.curve(
        [(-0.9, -0.2), (-0.5, 0.02), (-0.1, 0.06), (0.25, 0.18), (0.6, 0.1), (0.95, -0.15)], scaled(swell, 1.25), 0.6
    )
    pen.curve([(0.05, 0.12), (0.26, 0.2), (0.6, 0.11), (0.28, 0.15)], FOAM, 0.1)
    pen.curve([(-0.75, -0.08), (-0.5, 0.03), (-0.2, 0.05), (-0.5, -0.01)], FOAM, 0.1)


def _rower(pen: Pen) -> None:
    coat: Colour = (0.30, 0.26, 0.20)
    pen.poly([(-0.13, 0.25), (0.12, 0.25), (0.09, 0.58), (-0.03, 0.62), (-0.11, 0.55)], coat, 0.5, kind="figure")
    pen.bar((0.02, 0.54), (0.12, 0.34), 0.08, scaled(coat, 1.2))
    pen.oval(0.0, 0.69, 0.065, 0.08, SKIN)
    pen.poly([(-0.13, 0.71), (0.11, 0.73), (0.05, 0.82), (-0.05, 0.81)], STRAW, 0.4)


def fisherman(pen: Pen, look: Look) -> None:
    """A man in oilskins and sou'wester with a net over his shoulder."""
    coat = look.colour
    pen.poly([(-0.26, 0.0), (0.24, 0.0), (0.3, -0.03), (-0.3, -0.03)], BLACK, 0.0, alpha=0.35)
    for x in (-0.1, 0.08):
        pen.bar((x, 0.32), (x, 0.02), 0.13, (0.24, 0.22, 0.20))
        pen.poly([(x - 0.07, 0.07), (x + 0.07, 0.07), (x + 0.14, 0.0), (x - 0.07, 0.0)], BLACK, 0.2)
    pen.bar((0.26, 0.04), (0.34, 1.1), 0.03, WOOD)
    body = [(-0.15, 0.74), (0.12, 0.74), (0.2, 0.5), (0.22, 0.24), (-0.22, 0.24), (-0.2, 0.5)]
    pen.poly(body, coat, 0.65, kind="figure")
    pen.bar((-0.01, 0.72), (-0.01, 0.26), 0.02, scaled(coat, 0.6))
    pen.bar((0.13, 0.69), (0.3, 0.56), 0.1, scaled(coat, 1.1), 0.07)
    pen.bar((-0.16, 0.7), (-0.24, 0.4), 0.1, scaled(coat, 0.8), 0.08)
    pen.oval(0.3, 0.56, 0.04, 0.04, SKIN)
    pen.oval(-0.01, 0.82, 0.085, 0.1, SKIN)
    pen.poly([(-0.08, 0.8), (0.0, 0.71), (0.08, 0.8), (0.0, 0.77)], (0.75, 0.72, 0.66), 0.2)
    pen.poly([(-0.19, 0.83), (0.14, 0.86), (0.08, 0.97), (-0.04, 0.99), (-0.11, 0.94)], scaled(coat, 0.85), 0.5)
    pen.curve([(-0.24, 0.42), (-0.14, 0.3), (-0.16, 0.1), (-0.3, 0.06), (-0.36, 0.24)], (0.62, 0.55, 0.40), 0.5)
    for k in range(3):
        pen.bar((-0.33 + 0.06 * k, 0.1), (-0.25 + 0.05 * k, 0.38), 0.012, scaled(WOOD, 0.6))


def lighthouse(pen: Pen, look: Look) -> None:
    """A banded tower on a rock, its lamp lit."""
    _rock(pen, 0.0, 0.0, 0.62, 0.22, STONE)
    tower = pen.at(0, 0.14, 0.9)
    tower.poly([(-0.15, 0.0), (0.15, 0.0), (0.09, 0.74), (-0.09, 0.74)], WHITE, 0.55)
    for low in (0.12, 0.40):
        a, b = 0.15 - 0.06 * low / 0.74, 0.15 - 0.06 * (low + 0.14) / 0.74
        tower.poly([(-a, low), (a, low), (b, low + 0.14), (-b, low + 0.14)], look.colour, 0.55)
    tower.poly([(-0.14, 0.74), (0.14, 0.74), (0.12, 0.78), (-0.12, 0.78)], scaled(BLACK, 2.5), 0.3)
    tower.poly([(-0.07, 0.78), (0.07, 0.78), (0.07, 0.90), (-0.07, 0.90)], LAMP, 0.1, kind="glow")
    tower.poly([(0.0, 0.84), (1.1, 1.0), (1.1, 0.72)], LAMP, 0.0, kind="glow", alpha=0.22)
    tower.poly([(0.0, 0.84), (-1.1, 1.0), (-1.1, 0.72)], LAMP, 0.0, kind="glow", alpha=0.22)
    tower.poly([(-0.10, 0.90), (0.10, 0.90), (0.0, 1.02)], look.colour, 0.5)
    tower.poly([(-0.03, 0.0), (0.03, 0.0), (0.03, 0.08), (-0.03, 0.08)], BLACK, 0.1)
    _rock(pen, 0.34, -0.06, 0.3, 0.16, scaled(STONE, 0.8))
    _foam(pen.at(0.05, -0.06), 1.1)


def _rock(pen: Pen, x: float, y: float, width: float, height: float, colour: Colour) -> None:
    """A boulder of three faces: lit top, middle side, dark side."""
    a, b = x - width / 2, x + width / 2
    top = y + height
    pen.poly([(a, y), (x - width * 0.3, top * 0.9 + y * 0.1), (x + width * 0.1, top), (b, y)], colour, 0.4)
    pen.poly([(x + width * 0.1, top), (b, y), (x + width * 0.12, y)], scaled(colour, 0.62), 0.3)
    ridge = [(x - width * 0.3, top * 0.9 + y * 0.1), (x + width * 0.1, top), (x + width * 0.05, y + height * 0.6)]
    pen.poly([*ridge, (x - width * 0.25, y + height * 0.55)], scaled(colour, 1.3), 0.2)


def rocky_shore(pen: Pen, look: Look) -> None:
    """Boulders in the surf, a stack behind them."""
    stone = mix(STONE, look.colour, 0.55)
    pen.poly([(-0.25, 0.3), (-0.12, 0.95), (0.02, 1.0), (0.12, 0.8), (0.3, 0.3)], scaled(stone, 0.9), 0.6)
    pen.poly([(0.02, 1.0), (0.12, 0.8), (0.3, 0.3), (0.06, 0.3)], scaled(stone, 0.58), 0.3)
    for x, y, wide, high in ((-0.42, 0.24, 0.6, 0.42), (0.42, 0.2, 0.62, 0.46), (-0.08, 0.1, 0.55, 0.36)):
        _rock(pen, x, y, wide, high, scaled(stone, 0.9 + 0.25 * look.rng.random()))
        _foam(pen.at(x, y - 0.01), wide * 1.1)
    for x, y, wide, high in ((-0.62, -0.02, 0.4, 0.22), (0.3, -0.04, 0.5, 0.24)):
        _rock(pen, x, y, wide, high, scaled(stone, 0.75))
        _foam(pen.at(x, y - 0.01), wide * 1.2)
    spray = pen.at(0.62, 0.3, 0.9)
    for k in range(7):
        spray.oval(0.10 * (k % 3) - 0.1, 0.08 + 0.06 * k, 0.07, 0.05, FOAM, 0.1)


def harbour(pen: Pen, look: Look) -> None:
    """A quay with gabled houses and fishing boats moored before it."""
    for k, x in enumerate((-0.62, -0.30, 0.02, 0.36, 0.64)):
        wall = mix((0.78, 0.70, 0.58), (0.60, 0.42, 0.34), (k * 0.37) % 1)
        _gable(pen, x, 0.30, 0.30, 0.36 + 0.12 * ((k * 2) % 3), wall, (0.45, 0.25, 0.20))
    pen.poly([(-0.95, 0.32), (0.95, 0.32), (0.95, 0.18), (-0.95, 0.18)], STONE, 0.3)
    pen.poly([(-0.95, 0.35), (0.95, 0.35), (0.95, 0.31), (-0.95, 0.31)], scaled(STONE, 1.35), 0.1)
    spread = (0.0,) if look.number == 1 else (-0.36, 0.36) if look.number == 2 else (-0.56, 0.0, 0.56)
    for k, x in enumerate(spread):
        _moored(pen.at(x, 0.02 - 0.03 * (k % 2), 0.62), look.colour)


def _gable(pen: Pen, x: float, y: float, width: float, height: float, wall: Colour, roof: Colour) -> None:
    half = width / 2
    pen.poly([(x - half, y), (x + half, y), (x + half, y + height), (x - half, y + height)], wall, 0.35)
    eave = y + height
    pen.poly([(x - half * 1.12, eave), (x + half * 1.12, eave), (x, eave + width * 0.6)], roof, 0.6)
    for dx in (-0.45, 0.2):
        a, b = x + half * dx, y + height * 0.45
        pane = [(a, b), (a + half * 0.32, b), (a + half * 0.32, b + height * 0.26), (a, b + height * 0.26)]
        pen.poly(pane, (0.2, 0.22, 0.27), 0.1)


def _moored(pen: Pen, colour: Colour) -> None:
    _reflection(pen, colour, 0.4)
    pen.bar((0.02, 0.15), (0.02, 1.15), 0.035, WOOD, 0.02)
    pen.bar((0.02, 1.1), (-0.5, 0.24), 0.012, WOOD)
    pen.bar((0.02, 0.42), (0.42, 0.6), 0.06, mix(colour, WHITE, 0.5), 0.05)
    pen.poly([(-0.56, 0.26), (0.56, 0.28), (0.40, 0.0), (-0.44, 0.0)], colour, 0.5)
    pen.poly([(-0.57, 0.29), (0.57, 0.31), (0.54, 0.24), (-0.55, 0.22)], mix(colour, WHITE, 0.65), 0.1)


def hay_field(pen: Pen, look: Look) -> None:
    """Haycocks and mowers with scythes."""
    for x, y, s in ((-0.62, 0.32, 0.36), (0.62, 0.36, 0.32)):
        _haycock(pen.at(x, y, s))
    spread = (0.0,) if look.number == 1 else (-0.24, 0.28) if look.number == 2 else (-0.46, 0.02, 0.48)
    for k, x in enumerate(spread):
        _mower(pen.at(x, 0.04 + 0.07 * (k % 2), 0.86), look.colour)
    _haycock(pen.at(-0.58, -0.04, 0.5))


def _haycock(pen: Pen) -> None:
    pen.curve([(-0.5, 0.0), (-0.46, 0.4), (-0.2, 0.8), (0.05, 0.95), (0.3, 0.7), (0.5, 0.3), (0.48, 0.0)], STRAW, 0.7)
    for k in range(5):
        x = -0.36 + 0.18 * k
        pen.bar((x, 0.08), (x * 0.6, 0.62), 0.03, scaled(STRAW, 0.8 if k % 2 else 1.15), 0.01)
    pen.poly([(-0.55, 0.03), (0.6, 0.03), (0.75, -0.05), (-0.4, -0.06)], BLACK, 0.0, alpha=0.25)


def _mower(pen: Pen, shirt: Colour) -> None:
    pen.poly([(-0.2, 0.01), (0.3, 0.02), (0.42, -0.03), (-0.1, -0.04)], BLACK, 0.0, alpha=0.3)
    pen.bar((-0.03, 0.46), (-0.15, 0.0), 0.13, (0.25, 0.24, 0.26), 0.08)
    pen.bar((0.03, 0.46), (0.14, 0.0), 0.13, (0.30, 0.28, 0.28), 0.08)
    pen.poly([(-0.12, 0.44), (0.12, 0.44), (0.17, 0.74), (0.02, 0.79), (-0.1, 0.74)], shirt, 0.55, kind="figure")
    pen.bar((0.12, 0.70), (0.30, 0.50), 0.08, scaled(shirt, 1.1))
    pen.bar((-0.05, 0.70), (0.16, 0.46), 0.08, scaled(shirt, 0.8))
    pen.oval(0.06, 0.85, 0.07, 0.085, SKIN)
    pen.poly([(-0.08, 0.87), (0.22, 0.89), (0.13, 0.97), (0.0, 0.97)], scaled(STRAW, 1.1), 0.3)
    pen.bar((0.10, 0.62), (0.50, 0.06), 0.025, WOOD)
    pen.poly([(0.50, 0.06), (0.30, -0.01), (0.02, 0.04), (0.30, 0.04)], (0.72, 0.76, 0.78), 0.3)


def schoolhouse(pen: Pen, look: Look) -> None:
    """A clapboard schoolhouse with a bell turret, seen from a corner."""
    wall = look.colour
    _tree(pen.at(-0.62, 0.08, 0.8))
    pen.poly([(-0.12, 0.0), (0.62, 0.06), (0.62, 0.44), (-0.12, 0.46)], scaled(wall, 1.05), 0.2)
    pen.poly([(-0.12, 0.46), (0.66, 0.43), (0.40, 0.72), (-0.28, 0.76)], (0.36, 0.33, 0.33), 0.35)
    pen.poly([(-0.46, 0.04), (-0.12, 0.0), (-0.12, 0.46), (-0.28, 0.76), (-0.46, 0.46)], scaled(wall, 0.72), 0.2)
    pen.poly([(-0.35, 0.03), (-0.23, 0.015), (-0.23, 0.28), (-0.35, 0.28)], (0.22, 0.16, 0.12), 0.2)
    for x in (0.0, 0.22, 0.44):
        pane = [(x, 0.18), (x + 0.12, 0.18), (x + 0.12, 0.36), (x, 0.36)]
        pen.poly(pane, WHITE, 0.1)
        pen.poly([(x + 0.02, 0.2), (x + 0.1, 0.2), (x + 0.1, 0.34), (x + 0.02, 0.34)], (0.25, 0.32, 0.38), 0.3)
    pen.poly([(-0.17, 0.72), (-0.03, 0.71), (-0.03, 0.88), (-0.17, 0.88)], WHITE, 0.4)
    pen.poly([(-0.13, 0.75), (-0.07, 0.75), (-0.07, 0.85), (-0.13, 0.85)], BLACK, 0.1)
    pen.poly([(-0.2, 0.88), (0.0, 0.88), (-0.1, 1.04)], (0.36, 0.33, 0.33), 0.5)
    pen.poly([(-0.36, 0.03), (-0.22, 0.01), (0.0, -0.2), (-0.38, -0.2)], (0.74, 0.64, 0.48), 0.2)


def _tree(pen: Pen) -> None:
    pen.bar((0, 0), (0, 0.5), 0.1, WOOD, 0.06)
    for x, y, r in ((-0.18, 0.55, 0.2), (0.18, 0.58, 0.2), (0.0, 0.76, 0.26), (0.02, 0.52, 0.2)):
        pen.oval(x, y, r, r * 0.9, scaled(LEAF, 0.9 + 0.3 * y), 0.6)


def woman_with_guitar(pen: Pen, look: Look) -> None:
    """A woman, half-length, with a guitar across her lap."""
    dress = look.colour
    hair: Colour = (0.18, 0.12, 0.09)
    pen.curve([(-0.17, 0.78), (-0.18, 0.95), (0.0, 1.06), (0.17, 0.95), (0.19, 0.74), (0, 0.66)], hair, 0.4)
    pen.poly(
        [
            (-0.42, 0.0),
            (0.42, 0.0),
            (0.34, 0.35),
            (0.27, 0.62),
            (0.06, 0.7),
            (-0.06, 0.7),
            (-0.27, 0.62),
            (-0.34, 0.35),
        ],
        dress,
        0.6,
        kind="figure",
    )
    pen.poly([(-0.07, 0.72), (0.07, 0.72), (0.13, 0.66), (0.0, 0.54), (-0.13, 0.66)], SKIN, 0.2)
    pen.bar((0, 0.66), (0, 0.8), 0.1, scaled(SKIN, 0.85))
    pen.curve([(-0.11, 0.9), (0, 1.0), (0.11, 0.9), (0.08, 0.78), (0, 0.73), (-0.08, 0.78)], SKIN, 0.5, ball=True)
    _face(pen.at(0, 0.865, 0.11))
    pen.curve([(-0.13, 0.86), (-0.1, 1.0), (0.02, 1.02), (0.13, 0.94), (0.06, 0.96), (-0.06, 0.95)], hair, 0.3)
    pen.bar((0.27, 0.58), (0.45, 0.36), 0.13, scaled(dress, 0.8))
    _guitar(pen.at(-0.08, 0.26, 0.5, tilt=-1.18))
    pen.bar((0.45, 0.36), (0.33, 0.42), 0.09, scaled(dress, 0.9), 0.07)
    pen.oval(0.33, 0.42, 0.05, 0.045, SKIN)
    pen.bar((-0.28, 0.58), (-0.42, 0.32), 0.13, scaled(dress, 1.15))
    pen.bar((-0.42, 0.32), (-0.12, 0.24), 0.11, scaled(dress, 1.1), 0.08)
    pen.oval(-0.1, 0.24, 0.055, 0.045, SKIN)


def _face(pen: Pen) -> None:
    """Eyes, brows, nose and mouth of a head one unit high about the middle."""
    for x in (-0.38, 0.38):
        pen.oval(x, 0.1, 0.2, 0.11, WHITE, 0.1)
        pen.oval(x, 0.1, 0.1, 0.11, BLACK, 0.1)
        pen.bar((x - 0.24, 0.36), (x + 0.24, 0.38), 0.09, (0.2, 0.13, 0.1))
    pen.poly([(0.02, 0.2), (0.17, -0.36), (-0.08, -0.34)], scaled(SKIN, 0.72), 0.2)
    pen.poly([(-0.26, -0.6), (0, -0.54), (0.26, -0.6), (0, -0.74)], (0.62, 0.22, 0.2), 0.2)


def _guitar(pen: Pen) -> None:
    """A guitar upright on its own: body below, head at 1.4."""
    amber: Colour = (0.76, 0.46, 0.18)
    outline = [
        (0, -0.3),
        (-0.32, -0.2),
        (-0.36, 0.08),
        (-0.2, 0.26),
        (-0.27, 0.46),
        (-0.14, 0.6),
        (0, 0.62),
        (0.14, 0.6),
        (0.27, 0.46),
        (0.2, 0.26),
        (0.36, 0.08),
        (0.32, -0.2),
    ]
    pen.curve([(x * 1.08, y * 1.05) for x, y in outline], scaled(amber, 0.45), 0.1)
    pen.curve(outline, amber, 0.5)
    pen.oval(0, 0.34, 0.11, 0.11, (0.15, 0.09, 0.06), 0.1)
    pen.bar((-0.16, -0.05), (0.16, -0.05), 0.07, scaled(amber, 0.4))
    pen.bar((0, 0.44), (0, 1.22), 0.11, scaled(amber, 0.42), 0.09)
    pen.poly([(-0.08, 1.2), (0.08, 1.2), (0.11, 1.42), (-0.11, 1.42)], scaled(amber, 0.6), 0.2)
    for x in (-0.03, 0.0, 0.03):
        pen.bar((x, -0.05), (x, 1.2), 0.012, (0.92, 0.86, 0.7))


def seated_figure(pen: Pen, look: Look) -> None:
    """Someone seated in a chair, in profile, reading."""
    coat, trousers = look.colour, scaled(mix(look.colour, BLACK, 0.62), 1.0)
    chair: Colour = (0.48, 0.30, 0.16)
    pen.poly([(-0.42, 0.0), (0.45, 0.0), (0.5, -0.03), (-0.46, -0.03)], BLACK, 0.0, alpha=0.3)
    pen.bar((-0.32, 0.0), (-0.36, 0.82), 0.06, chair)
    pen.bar((0.12, 0.0), (0.12, 0.36), 0.06, scaled(chair, 0.8))
    pen.poly([(-0.36, 0.38), (0.16, 0.38), (0.16, 0.31), (-0.36, 0.31)], chair, 0.3)
    pen.bar((-0.14, 0.42), (0.28, 0.42), 0.18, trousers, 0.15)
    pen.bar((0.27, 0.44), (0.27, 0.04), 0.14, trousers, 0.09)
    pen.poly([(0.2, 0.06), (0.3, 0.07), (0.44, 0.0), (0.2, 0.0)], BLACK, 0.2)
    torso = [(-0.28, 0.36), (0.0, 0.36), (0.05, 0.56), (0.01, 0.74), (-0.1, 0.8), (-0.24, 0.72), (-0.3, 0.54)]
    pen.poly(torso, coat, 0.6, kind="figure")
    pen.bar((-0.12, 0.7), (-0.02, 0.5), 0.12, scaled(coat, 0.78))
    pen.bar((-0.02, 0.5), (0.2, 0.58), 0.1, scaled(coat, 0.88), 0.07)
    pen.poly([(0.14, 0.55), (0.34, 0.62), (0.36, 0.78), (0.17, 0.7)], WHITE, 0.4)
    pen.oval(0.19, 0.59, 0.045, 0.04, SKIN)
    pen.bar((-0.1, 0.76), (-0.07, 0.86), 0.09, scaled(SKIN, 0.85))
    pen.oval(-0.05, 0.93, 0.1, 0.115, SKIN)
    pen.poly([(0.04, 0.95), (0.085, 0.9), (0.04, 0.885)], SKIN, 0.1)
    pen.curve([(-0.17, 0.9), (-0.14, 1.04), (-0.02, 1.08), (0.06, 1.02), (-0.06, 0.99), (-0.1, 0.88)], (0.2, 0.14, 0.1))


def harlequin(pen: Pen, look: Look) -> None:
    """A harlequin standing, in a suit of lozenges and a two-cornered hat."""
    light = mix(look.colour, WHITE, 0.72)
    pen.poly([(-0.26, 0.0), (0.28, 0.0), (0.32, -0.03), (-0.3, -0.03)], BLACK, 0.0, alpha=0.3)
    for foot, hip, tone in ((-0.14, -0.07, light), (0.16, 0.07, look.colour)):
        pen.bar((hip, 0.44), (foot, 0.04), 0.13, tone, 0.09)
        pen.poly([(foot - 0.05, 0.05), (foot + 0.04, 0.05), (foot + 0.11, 0.0), (foot - 0.05, 0.0)], BLACK, 0.1)
    torso = [(-0.15, 0.4), (0.15, 0.4), (0.13, 0.56), (0.19, 0.74), (0.0, 0.78), (-0.19, 0.74), (-0.13, 0.56)]
    pen.poly(torso, light, 0.4, kind="figure")
    pen.bar((-0.16, 0.72), (-0.3, 0.54), 0.1, look.colour, 0.08)
    pen.bar((-0.3, 0.54), (-0.14, 0.46), 0.08, look.colour, 0.07)
    pen.bar((0.16, 0.72), (0.28, 0.5), 0.1, light, 0.07)
    pen.oval(0.29, 0.48, 0.04, 0.04, SKIN)
    _lozenges(pen, look.colour)
    pen.poly([(-0.14, 0.74), (0.14, 0.74), (0.1, 0.8), (-0.1, 0.8)], WHITE, 0.3)
    pen.oval(0.0, 0.88, 0.08, 0.095, SKIN)
    _face(pen.at(0, 0.875, 0.085))
    pen.poly([(-0.2, 0.93), (0.2, 0.93), (0.1, 1.0), (0.0, 1.06), (-0.1, 1.0)], scaled(BLACK, 1.8), 0.5)


def _lozenges(pen: Pen, colour: Colour) -> None:
    for row, y in enumerate((0.46, 0.55, 0.64, 0.73)):
        for x in (-0.09, 0.0, 0.09) if row % 2 == 0 else (-0.045, 0.045):
            tone = colour if row % 2 == 0 else scaled(colour, 0.6)
            pen.poly([(x - 0.042, y), (x, y + 0.06), (x + 0.042, y), (x, y - 0.06)], tone, 0.2)
    for y in (0.14, 0.26, 0.38):
        pen.poly(
            [
                (-0.16 + y * 0.13, y),
                (-0.125 + y * 0.13, y + 0.06),
                (-0.09 + y * 0.13, y),
                (-0.125 + y * 0.13, y - 0.06),
            ],
            colour,
            0.1,
        )
        pen.poly(
            [(0.16 - y * 0.15, y), (0.125 - y * 0.1, y + 0.06), (0.1 - y * 0.1, y), (0.135 - y * 0.13, y - 0.06)],
            mix(colour, WHITE, 0.7),
            0.1,
        )


def _table(pen: Pen, cloth: Colour) -> None:
    """A table whose top is seen from above: the foot of what stands on it is at y = 0.3."""
    for x in (-0.6, 0.6):
        pen.bar((x, 0.12), (x * 0.96, -0.5), 0.09, scaled(WOOD, 0.7))
    pen.poly([(-0.62, 0.42), (0.62, 0.42), (0.78, 0.12), (-0.78, 0.12)], cloth, 0.35)
    pen.poly([(-0.78, 0.12), (0.78, 0.12), (0.78, 0.03), (-0.78, 0.03)], scaled(cloth, 0.6), 0.2)


def still_life(pen: Pen, look: Look) -> None:
    """Bottles and a bowl of fruit on a table."""
    _table(pen, (0.80, 0.72, 0.58))
    pen.poly([(0.1, 0.42), (0.42, 0.42), (0.56, 0.03), (0.42, -0.18), (0.14, 0.03)], WHITE, 0.4)
    spread = {1: (-0.3,), 2: (-0.46, -0.16), 3: (-0.56, -0.32, -0.08)}[look.number]
    for k, x in enumerate(spread):
        _bottle(pen.at(x, 0.28 - 0.04 * (k % 2), 0.78 - 0.06 * (k % 2)), look.colour)
    fruit: tuple[tuple[float, float, Colour], ...] = (
        (0.16, 0.50, (0.86, 0.55, 0.16)),
        (0.40, 0.50, (0.72, 0.2, 0.14)),
        (0.28, 0.55, (0.82, 0.72, 0.22)),
    )
    for x, y, tone in fruit:
        pen.oval(x, y, 0.11, 0.11, tone, 0.6)
    bowl = [(0.0, 0.48), (0.56, 0.48), (0.48, 0.32), (0.38, 0.24), (0.18, 0.24), (0.08, 0.32)]
    pen.poly(bowl, (0.86, 0.86, 0.88), 0.7)
    pen.poly([(0.0, 0.48), (0.56, 0.48), (0.54, 0.44), (0.02, 0.44)], (0.36, 0.44, 0.6), 0.1)


def _bottle(pen: Pen, colour: Colour) -> None:
    glass = [
        (-0.15, 0.0),
        (0.15, 0.0),
        (0.16, 0.5),
        (0.12, 0.62),
        (0.06, 0.7),
        (0.055, 0.95),
        (-0.055, 0.95),
        (-0.06, 0.7),
        (-0.12, 0.62),
        (-0.16, 0.5),
    ]
    pen.poly([(-0.1, 0.02), (0.2, 0.02), (0.42, -0.07), (0.1, -0.07)], BLACK, 0.0, alpha=0.28)
    pen.poly(glass, scaled(colour, 0.85), 0.8)
    pen.poly([(-0.07, 0.9), (0.07, 0.9), (0.07, 0.98), (-0.07, 0.98)], WOOD, 0.3)
    pen.poly([(-0.15, 0.16), (0.15, 0.16), (0.15, 0.40), (-0.15, 0.40)], WHITE, 0.4)
    pen.bar((-0.1, 0.28), (0.08, 0.28), 0.03, BLACK)
    pen.bar((-0.1, 0.46), (-0.09, 0.58), 0.03, WHITE)


def violin(pen: Pen, look: Look) -> None:
    """A violin and its bow leaning on a table."""
    _table(pen, (0.55, 0.42, 0.30))
    pen.poly([(-0.62, 0.36), (-0.2, 0.38), (-0.28, 0.16), (-0.68, 0.15)], WHITE, 0.2)
    for k in range(4):
        pen.bar((-0.6 - 0.01 * k, 0.33 - 0.04 * k), (-0.26 - 0.02 * k, 0.34 - 0.04 * k), 0.01, BLACK)
    _violin(pen.at(0.1, 0.42, 0.62, tilt=0.42 + 0.15 * look.rng.random()), look.colour)
    pen.bar((-0.42, 0.14), (0.62, 0.55), 0.025, WOOD)


def _violin(pen: Pen, colour: Colour) -> None:
    body = [
        (0, -0.38),
        (-0.25, -0.34),
        (-0.31, -0.12),
        (-0.17, 0.06),
        (-0.18, 0.16),
        (-0.25, 0.34),
        (-0.15, 0.48),
        (0, 0.5),
        (0.15, 0.48),
        (0.25, 0.34),
        (0.18, 0.16),
        (0.17, 0.06),
        (0.31, -0.12),
        (0.25, -0.34),
    ]
    pen.curve([(x * 1.09, y * 1.06) for x, y in body], scaled(colour, 0.4), 0.1)
    pen.curve(body, colour, 0.6)
    for side in (-1, 1):
        pen.bar((side * 0.15, -0.04), (side * 0.10, 0.18), 0.035, BLACK)
        pen.oval(side * 0.16, -0.05, 0.03, 0.03, BLACK, 0.1)
        pen.oval(side * 0.09, 0.19, 0.03, 0.03, BLACK, 0.1)
    pen.poly([(-0.05, -0.06), (0.05, -0.06), (0.045, -0.34), (-0.045, -0.34)], BLACK, 0.2)
    pen.bar((-0.12, -0.01), (0.12, -0.01), 0.05, STRAW)
    pen.bar((0, 0.1), (0, 1.0), 0.1, BLACK, 0.075)
    pen.oval(0, 1.06, 0.07, 0.08, scaled(colour, 0.6))
    for y in (0.9, 0.98):
        pen.bar((-0.12, y), (0.12, y + 0.02), 0.035, BLACK)
    pen.bar((0, -0.04), (0, 0.95), 0.012, WHITE)


def bull(pen: Pen, look: Look) -> None:
    """A bull in profile, head lowered."""
    hide = look.colour
    dark = scaled(hide, 0.62)
    pen.poly([(-0.6, 0.02), (0.55, 0.02), (0.7, -0.05), (-0.5, -0.06)], BLACK, 0.0, alpha=0.3)
    for x in (-0.42, 0.26):
        pen.bar((x + 0.08, 0.4), (x + 0.1, 0.02), 0.13, scaled(dark, 0.8), 0.07)
    body = [
        (-0.62, 0.66),
        (-0.3, 0.7),
        (0.05, 0.74),
        (0.3, 0.86),
        (0.5, 0.74),
        (0.5, 0.48),
        (0.3, 0.32),
        (-0.1, 0.3),
        (-0.45, 0.34),
        (-0.62, 0.45),
    ]
    pen.curve(body, hide, 0.75)
    for x in (-0.52, 0.32):
        pen.bar((x, 0.46), (x - 0.02, 0.02), 0.16, hide, 0.08)
        pen.poly([(x - 0.07, 0.05), (x + 0.03, 0.05), (x + 0.05, 0.0), (x - 0.08, 0.0)], BLACK, 0.1)
    pen.bar((-0.6, 0.62), (-0.7, 0.22), 0.04, dark, 0.03)
    pen.oval(-0.7, 0.19, 0.04, 0.07, BLACK)
    head = [(0.44, 0.74), (0.6, 0.76), (0.72, 0.68), (0.8, 0.46), (0.74, 0.38), (0.64, 0.42), (0.5, 0.54)]
    pen.curve(head, scaled(hide, 0.85), 0.5)
    pen.curve([(0.56, 0.74), (0.66, 0.86), (0.66, 1.0), (0.74, 0.88), (0.7, 0.74)], WHITE, 0.3)
    pen.curve([(0.5, 0.74), (0.46, 0.88), (0.52, 1.02), (0.54, 0.9), (0.58, 0.74)], scaled(WHITE, 0.9), 0.3)
    pen.oval(0.66, 0.62, 0.03, 0.03, BLACK, 0.1)
    pen.oval(0.76, 0.43, 0.05, 0.045, mix(hide, SKIN, 0.6))


def head(pen: Pen, look: Look) -> None:
    """A head and shoulders, face on; the garment and the hat band carry the colour."""
    pen.poly([(-0.5, 0.03), (0.5, 0.03), (0.42, -0.5), (-0.42, -0.5)], scaled(WOOD, 1.2), 0.5)
    pen.curve([(-0.6, 0.0), (-0.5, 0.24), (-0.16, 0.34), (0.16, 0.34), (0.5, 0.24), (0.6, 0.0)], look.colour, 0.6)
    pen.poly([(-0.16, 0.34), (0.16, 0.34), (0.0, 0.14)], WHITE, 0.3)
    pen.bar((0, 0.24), (0, 0.46), 0.24, scaled(SKIN, 0.78))
    hair: Colour = (0.20, 0.13, 0.09)
    pen.curve([(-0.33, 0.5), (-0.34, 0.8), (0, 1.02), (0.34, 0.8), (0.33, 0.5), (0, 0.42)], hair, 0.4)
    face = [(-0.26, 0.74), (-0.2, 0.9), (0, 0.96), (0.2, 0.9), (0.26, 0.74), (0.2, 0.48), (0, 0.35), (-0.2, 0.48)]
    pen.curve(face, SKIN, 0.55, ball=True)
    pen.curve([(0.03, 0.92), (0.22, 0.88), (0.26, 0.72), (0.2, 0.48), (0.05, 0.38), (0.1, 0.6)], scaled(SKIN, 0.8), 0.1)
    _face(pen.at(0, 0.65, 0.28))
    pen.poly([(-0.42, 0.84), (0.42, 0.84), (0.34, 0.9), (-0.34, 0.9)], scaled(look.colour, 0.7), 0.3)
    pen.curve([(-0.28, 0.88), (-0.24, 1.08), (0.0, 1.14), (0.24, 1.08), (0.28, 0.88)], look.colour, 0.6)


def houses_on_a_hill(pen: Pen, look: Look) -> None:
    """Cubes of houses climbing a hill."""
    pen.curve(
        [(-1.1, -0.1), (-0.8, 0.22), (-0.3, 0.52), (0.1, 0.6), (0.55, 0.36), (1.1, -0.1)], (0.50, 0.52, 0.30), 0.5
    )
    spots = (
        (-0.1, 0.54, 0.26),
        (0.2, 0.46, 0.3),
        (-0.4, 0.34, 0.28),
        (0.0, 0.3, 0.32),
        (0.48, 0.26, 0.28),
        (-0.66, 0.1, 0.3),
        (-0.24, 0.06, 0.34),
        (0.24, 0.04, 0.34),
        (0.66, 0.06, 0.28),
    )
    for k, (x, y, wide) in enumerate(spots):
        _cube(
            pen,
            x,
            y,
            wide,
            wide * (0.8 + 0.4 * look.rng.random()),
            mix((0.90, 0.82, 0.66), STONE, 0.12 * (k % 4)),
            look.colour,
        )


def _cube(pen: Pen, x: float, y: float, width: float, height: float, wall: Colour, roof: Colour) -> None:
    """A house seen from a corner: lit wall, dark wall, slanting roof."""
    a, m, b, top = x - width / 2, x + width * 0.12, x + width / 2, y + height
    pen.poly([(a, y), (m, y - 0.02), (m, top), (a, top)], wall, 0.2)
    pen.poly([(m, y - 0.02), (b, y + 0.02), (b, top), (m, top)], scaled(wall, 0.62), 0.2)
    pen.poly([(a - 0.01, top), (m, top), (x - width * 0.02, top + height * 0.42)], scaled(wall, 0.95), 0.2)
    pen.poly(
        [(m, top), (b + 0.02, top), (x + width * 0.3, top + height * 0.4), (x - width * 0.04, top + height * 0.44)],
        roof,
        0.4,
    )
    pen.poly(
        [
            (a + width * 0.2, y + height * 0.4),
            (a + width * 0.36, y + height * 0.4),
            (a + width * 0.36, y + height * 0.7),
            (a + width * 0.2, y + height * 0.7),
        ],
        (0.2, 0.2, 0.24),
        0.1,
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """One row of the table of subjects."""

    draw: Callable[[Pen, Look], None]
    setting: str
    """sea, shore, field or room: what lies around it."""
    names: tuple[str, ...]
    """Its name for one, two and three of it; one name only if the number does not vary. {c} is the colour."""
    several: bool = False
    """Drawn once for each (True), or once with the number inside (False)."""
    size: float = 1.0
    """Height relative to the others."""


SUBJECTS: dict[str, Subject] = {
    "sailing boat": Subject(
        sailing_boat, "sea", ("a {c} sailing boat", "two {c} sailing boats", "three {c} sailing boats"), True
    ),
    "rowing boat": Subject(
        rowing_boat, "sea", ("a {c} rowing boat in a swell", "two {c} rowing boats in a swell"), True, 0.84
    ),
    "fisherman": Subject(
        fisherman, "shore", ("a fisherman in {c}", "two fishermen in {c}", "three fishermen in {c}"), True
    ),
    "lighthouse": Subject(lighthouse, "sea", ("a {c} lighthouse",), False, 1.05),
    "rocky shore": Subject(rocky_shore, "sea", ("a rocky shore with {c} rocks",), False, 0.8),
    "harbour": Subject(
        harbour,
        "sea",
        ("a harbour with a {c} boat", "a harbour with two {c} boats", "a harbour with three {c} boats"),
        False,
        0.92,
    ),
    "hay field": Subject(
        hay_field,
        "field",
        (
            "a hay field with a figure in {c}",
            "a hay field with two figures in {c}",
            "a hay field with three figures in {c}",
        ),
        False,
        0.95,
    ),
    "schoolhouse": Subject(schoolhouse, "field", ("a {c} schoolhouse",), False, 0.95),
    "woman with guitar": Subject(woman_with_guitar, "room", ("a woman in {c} with a guitar",), False, 1.1),
    "seated figure": Subject(seated_figure, "room", ("a seated figure in {c}", "two seated figures in {c}"), True, 1.0),
    "harlequin": Subject(harlequin, "room", ("a harlequin in {c}", "two harlequins in {c}"), True, 1.1),
    "still life": Subject(
        still_life,
        "room",
        (
            "a still life with a {c} bottle and a bowl",
            "a still life with two {c} bottles and a bowl",
            "a still life with three {c} bottles and a bowl",
        ),
        False,
        0.95,
    ),
    "violin": Subject(violin, "room", ("a {c} violin on a table",), False, 0.95),
    "bull": Subject(bull, "field", ("a {c} bull", "two {c} bulls"), True, 0.85),
    "head": Subject(head, "room", ("a head with a {c} hat", "two heads with {c} hats"), True, 1.05),
    "houses on a hill": Subject(houses_on_a_hill, "field", ("houses with {c} roofs on a hill",), False, 0.85),
}
