"""Style by colour, brushwork and geometry: what each sees, what each is blind to, and whom they name."""

import colorsys
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from avignon.demo import world
from avignon.demo.painters import PAINTERS
from avignon.evaluation import copies, style
from tests.support.museum import draw


def work(hand: str, number: int, scene: int = -1) -> Image.Image:
    """A true work of one of the two procedural painters, 192 pixels."""
    what = world.sample(random.Random(number if scene < 0 else scene))
    return PAINTERS[hand](what, (384, 384), number).resize((192, 192), Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def works() -> dict[str, list[Image.Image]]:
    """Some works of each painter."""
    return {hand: [work(hand, number) for number in range(16)] for hand in PAINTERS}


@pytest.fixture(scope="module")
def ruler(works: dict[str, list[Image.Image]]) -> style.Yardstick:
    """The measure of both painters' first ten works."""
    return style.yardstick({hand: [style.traits(image) for image in own[:10]] for hand, own in works.items()})


def test_equal_pictures_do_not_differ() -> None:
    """Change is exactly 0 for equal pictures, and so is the distance of their colours."""
    picture = draw(1, 64, 64)
    assert style.change(picture, picture.copy()) == 0
    assert style.colour_distance(style.palette(picture), style.palette(picture.copy())) == 0


def test_change_is_in_grey_levels() -> None:
    """Two flat greys that differ by 10 levels change by 10; black to white is 255."""
    grey = [Image.new("RGB", (8, 8), (level,) * 3) for level in (100, 110)]
    assert style.change(*grey) == pytest.approx(10)
    assert style.change(Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "white")) == pytest.approx(255)


def test_lab_of_known_colours() -> None:
    """CIE L*a*b* of white, black and sRGB's primaries, from the published values."""
    known = {
        (255, 255, 255): (100, 0, 0),
        (0, 0, 0): (0, 0, 0),
        (255, 0, 0): (53.24, 80.09, 67.20),
        (0, 255, 0): (87.73, -86.18, 83.18),
        (0, 0, 255): (32.30, 79.19, -107.86),
    }
    for colour, expected in known.items():
        assert style.lab(Image.new("RGB", (1, 1), colour))[0] == pytest.approx(expected, abs=0.05)


def test_colour_distance_grows_with_a_hue_shift() -> None:
    """Turning all hues further moves the palette further."""
    colours = [colorsys.hsv_to_rgb(hue / 360, 0.7, 0.8) for hue in (0, 20, 40, 80)]
    palettes = [style.palette(Image.new("RGB", (64, 64), tuple(round(255 * c) for c in rgb))) for rgb in colours]
    distances = [style.colour_distance(palettes[0], palette) for palette in palettes]
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert distances[1] > 3


def test_colour_distance_is_a_projection() -> None:
    """Of two flat greys it is in the units of their difference in lightness: no more, and not much less than half."""
    greys = [Image.new("RGB", (64, 64), (level,) * 3) for level in (60, 160)]
    lightness = [style.lab(grey)[0, 0] for grey in greys]
    distance = style.colour_distance(*map(style.palette, greys))
    assert 0.4 < distance / (lightness[1] - lightness[0]) < 1


def test_colour_distance_is_blind_to_places() -> None:
    """A mirrored picture has the same colours, whatever its size; its pixels changed."""
    picture = draw(2, 128, 128)
    flipped = ImageOps.mirror(picture)
    assert style.colour_distance(style.palette(picture), style.palette(flipped)) == pytest.approx(0, abs=1e-9)
    assert style.change(picture, flipped) > 10
    larger = picture.resize((256, 256), Image.Resampling.NEAREST)
    assert style.colour_distance(style.palette(picture), style.palette(larger)) == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_brushwork_is_blind_to_light(works: dict[str, list[Image.Image]]) -> None:
    """Half the contrast is the same brushwork; a blur of two pixels is another."""
    picture = works["atlantic"][0]
    own = style.brushwork(picture)
    assert np.abs(style.brushwork(ImageEnhance.Contrast(picture).enhance(0.6)) - own).max() < 0.25
    assert np.abs(style.brushwork(picture.filter(ImageFilter.GaussianBlur(2))) - own).max() > 0.5


def test_geometry_of_drawn_shapes() -> None:
    """A polygon's edges are straight and a disc's are not; level, upright and slanting are told apart; blur is seen."""

    def drawn(shape: str, points: list[tuple[int, int]]) -> Image.Image:
        picture = Image.new("RGB", (128, 128), "white")
        getattr(ImageDraw.Draw(picture), shape)(points, fill="black")
        return picture

    square = drawn("rectangle", [(30, 30), (98, 98)])
    disc = style.geometry(drawn("ellipse", [(44, 44), (84, 84)]))
    diamond = style.geometry(drawn("polygon", [(64, 14), (114, 64), (64, 114), (14, 64)]))
    level, upright, slanting = style.geometry(square)[3:6]
    assert level == pytest.approx(upright, abs=0.02)
    assert slanting < 0.1
    assert diamond[5] > 0.9
    assert style.geometry(square)[2] > disc[2] + 0.5, "its lines are longer"
    assert style.geometry(square)[6] > style.geometry(square.filter(ImageFilter.GaussianBlur(2)))[6] + 0.1
    stripes = drawn("rectangle", [(30, 30), (40, 98)])
    ImageDraw.Draw(stripes).rectangle([(60, 30), (70, 98)], fill="black")
    assert style.geometry(stripes)[7] < style.geometry(drawn("rectangle", [(60, 60), (68, 68)]))[7]


def test_flat_picture_has_traits() -> None:
    """A picture without any edge is measured without a division by zero."""
    flat = style.traits(Image.new("RGB", (64, 64), "grey"))
    assert all(np.isfinite(seen).all() for seen in flat.values())


@pytest.mark.slow
def test_unseen_works_are_named(works: dict[str, list[Image.Image]], ruler: style.Yardstick) -> None:
    """Of works that were not shown, at least three in four are named right by brushwork, geometry and all together."""
    asked = [(hand, style.traits(image)) for hand, own in works.items() for image in own[10:]]
    for by in ("brushwork", "geometry", "combined"):
        assert np.mean([ruler.nearest(seen, by) == hand for hand, seen in asked]) >= 0.75


@pytest.mark.slow
def test_own_works_are_about_one_unit_away(works: dict[str, list[Image.Image]], ruler: style.Yardstick) -> None:
    """A work that was not shown lies at about 1 from its artist in every aspect; noise lies far from both."""
    for hand, own in works.items():
        distances = [ruler.to_artists(style.traits(image))[hand] for image in own[10:]]
        for by in ruler.by:
            assert 0.5 < np.mean([distance[by] for distance in distances]) < 1.8
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (192, 192, 3), np.uint8))
    assert min(d["combined"] for d in ruler.to_artists(style.traits(noise)).values()) > 3


def test_distance_is_symmetric_and_zero_to_itself(works: dict[str, list[Image.Image]], ruler: style.Yardstick) -> None:
    """A picture has no distance from itself, and two have the same one either way."""
    one, other = (style.traits(works[hand][0]) for hand in PAINTERS)
    assert set(ruler.between(one, one).values()) == {0.0}
    assert ruler.between(one, other) == pytest.approx(ruler.between(other, one))


def test_position_counts_only_what_lies_on_the_line(ruler: style.Yardstick) -> None:
    """A third of the way from one manner to the other is a third, however far off the line; manners are 0 and 1."""
    one, other = ruler.manners
    ends, first, last = (one, other), ruler.manners[one], ruler.manners[other]
    for manner, place in ((first, 0.0), (last, 1.0)):
        positions = ruler.position(ruler.to_artists(manner), ends)
        assert tuple(positions) == ruler.by
        np.testing.assert_allclose(list(positions.values()), place, atol=1e-9)
    along = (last["brushwork"] - first["brushwork"]) / ruler.spreads["brushwork"]
    off = np.random.default_rng(0).normal(size=along.shape)
    off -= along * (off @ along) / (along @ along)
    for far in (0.0, 3.0):
        there = first["brushwork"] + (along / 3 + far * off) * ruler.spreads["brushwork"]
        picture = {**first, "brushwork": there}
        assert ruler.position(ruler.to_artists(picture), ends)["brushwork"] == pytest.approx(1 / 3)


def test_one_work_each_is_enough_to_measure() -> None:
    """With a single work of each artist, what is expected of spreads stands in, and each is nearest to its own."""
    own = {hand: [style.traits(work(hand, 3))] for hand in PAINTERS}
    ruler = style.yardstick(own)
    assert [ruler.nearest(seen) for (seen,) in own.values()] == list(own)


@pytest.mark.slow
def test_planted_copies_are_found(works: dict[str, list[Image.Image]]) -> None:
    """Cropped, mirrored, recoloured and softened, a work is found again; works of other subjects are not."""
    subjects = [world.sample(random.Random(number)).subject for number in range(16)]
    originals = copies.Originals(
        {f"{hand}-{i}": image for hand, own in works.items() for i, image in enumerate(own[:8])}
    )
    for hand, own in works.items():
        for i, image in enumerate(own[:4]):
            crop = image.crop((20, 30, 160, 170)).resize((192, 192)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            grey = ImageEnhance.Color(crop.filter(ImageFilter.GaussianBlur(1))).enhance(0.2)
            match = originals.nearest(ImageEnhance.Brightness(grey).enhance(1.2))
            assert (match.file, match.is_copy) == (f"{hand}-{i}", True)
        others = [image for number, image in enumerate(own) if subjects[number] not in subjects[:8]]
        assert len(others) >= 2
        assert not any(originals.nearest(image).is_copy for image in others)


@pytest.mark.slow
def test_copies_are_found_across_shapes() -> None:
    """A square cut from a wide work is found, and a wide picture that shows a square work; others are no copies."""
    wide = {f"wide-{i}": draw(i, 320, 160) for i in range(6)}
    originals = copies.Originals({**wide, **{f"square-{i}": draw(50 + i, 200, 200) for i in range(6)}})
    for left in (0, 160):
        match = originals.nearest(wide["wide-2"].crop((left, 0, left + 160, 160)).resize((224, 224)))
        assert (match.file, match.is_copy) == ("wide-2", True)
    around = draw(90, 400, 200)
    around.paste(draw(53, 200, 200), (100, 0))
    match = originals.nearest(around)
    assert (match.file, match.is_copy) == ("square-3", True)
    assert not any(originals.nearest(draw(70 + i, 320, 160)).is_copy for i in range(2))


@pytest.mark.slow
def test_likeness_of_compositions() -> None:
    """The same scene by the other hand keeps its composition; another scene does not."""
    one, same, other = work("atlantic", 1, scene=4), work("avignon", 2, scene=4), work("avignon", 3, scene=9)
    assert copies.likeness(one, one) == pytest.approx(1, abs=1e-5)
    assert copies.likeness(one, same) > copies.likeness(one, other)
