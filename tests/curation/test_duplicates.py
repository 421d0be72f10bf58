"""Duplicates: views of one picture are alike, two pictures are not."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from avignon.core import imaging
from avignon.curation import duplicates
from avignon.recipe.schema import Curate
from tests.support.paintings import painted, saved_badly, toned
from tests.support.paths import SHARED_ART

Degrade = Callable[[Image.Image], Image.Image]


@pytest.mark.parametrize("size", [(256, 256), (257, 4000), (1, 1), (300, 301)])
@pytest.mark.parametrize("level", [0, 127, 255])
def test_flat_pictures_break_nothing(size: tuple[int, int], level: int) -> None:
    """A picture of one colour, of whatever shape, gives a number."""
    look = duplicates.look_at(Image.new("RGB", size, (level, level, level)))
    assert np.isfinite(duplicates.likeness(look, look))


def _reworked(image: Image.Image) -> Image.Image:
    """Another state of a print: a part of it darkened, and cut otherwise."""
    state = image.copy()
    part = (60, 40, 160, 120)
    state.paste(ImageEnhance.Brightness(state.crop(part)).enhance(0.6), part)
    return state.crop((12, 0, image.width, image.height - 12))


COPIES: dict[str, Degrade] = {
    "smaller": lambda image: image.resize((233, 166)),
    "saved badly": saved_badly,
    "toned": toned,
    "cropped": lambda image: image.crop((21, 15, image.width - 21, image.height - 15)),
    "cropped unevenly": lambda image: image.crop((40, 0, image.width - 5, image.height - 25)),
    "reworked": _reworked,
}


@pytest.mark.slow_but_one
@pytest.mark.parametrize("copy", COPIES)
def test_views_of_one_picture_are_alike(copy: str) -> None:
    """Another photograph of one picture is like it; two pictures are not."""
    looks = [duplicates.look_at(painted(seed)) for seed in range(4)]
    least = Curate().duplicate_likeness
    assert duplicates.likeness(looks[0], duplicates.look_at(COPIES[copy](painted(0)))) >= least
    assert max(duplicates.likeness(looks[0], other) for other in looks[1:]) < least


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_ART / "index.csv").exists(), reason="the paintings are not at hand")
def test_real_paintings_are_told_apart() -> None:
    """No two of the real paintings are alike."""
    images = [imaging.load(path) for path in sorted(SHARED_ART.glob("*.jpg"))]
    looks = [duplicates.look_at(image) for image in images]
    pairs = [duplicates.likeness(a, b) for i, a in enumerate(looks) for b in looks[:i]]
    assert max(pairs) < Curate().duplicate_likeness
