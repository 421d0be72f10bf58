"""Measures of quality: each moves with its own defect, and leaves a sound picture alone."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from avignon.core import imaging
from avignon.curation import quality
from avignon.curation.quality import Measures
from avignon.recipe.schema import Curate
from avignon.stages.curate import faults
from tests.support.museum import draw
from tests.support.paths import SHARED_ART

Degrade = Callable[[Image.Image], Image.Image]


def painted(seed: int = 1, size: tuple[int, int] = (700, 500)) -> Image.Image:
    """A drawn picture with the grain of brushwork, which has detail at every scale, as paintings have."""
    chance = np.random.default_rng(seed)
    values = np.asarray(draw(seed, *size), dtype=np.float64)
    for edge in (1, 2, 3, 5, 11):  # None of them in step with JPEG's blocks of 8.
        grain = chance.normal(0, 4, (size[1] // edge + 1, size[0] // edge + 1))
        values = values + np.kron(grain, np.ones((edge, edge)))[: size[1], : size[0], None]
    image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(0.6))


def named(image: Image.Image) -> set[str]:
    """The defects that a picture is flagged for."""
    return {fault.partition(":")[0] for fault in faults(quality.measure(image), Curate(), in_colour=True)}


@pytest.mark.parametrize("seed", range(3))
def test_sound_pictures_pass(seed: int) -> None:
    """A sound picture has no fault."""
    assert named(painted(seed)) == set()


def _noisy(image: Image.Image) -> Image.Image:
    values = np.asarray(image) + np.random.default_rng(0).normal(0, 25, (image.height, image.width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=5)
    return imaging.load(buffer.getvalue())


def _scaled_up(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2)).resize(image.size, Image.Resampling.BICUBIC)


def _sepia(image: Image.Image) -> Image.Image:
    share = np.asarray(image.convert("L"), dtype=np.float64)[..., None] / 255
    return Image.fromarray((np.array((40, 20, 5)) * (1 - share) + np.array((250, 235, 200)) * share).astype(np.uint8))


def _mounted(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (image.width + 100, image.height + 100), (250, 250, 248))
    canvas.paste(image, (50, 50))
    return canvas


def _framed(image: Image.Image) -> Image.Image:
    """In a frame of carved gold with a dark rim."""
    canvas = Image.effect_noise((image.width + 100, image.height + 100), 60).convert("RGB")
    canvas = Image.blend(canvas, Image.new("RGB", canvas.size, (200, 150, 60)), 0.5)
    canvas.paste((30, 20, 10), (46, 46, image.width + 54, image.height + 54))
    canvas.paste(image, (50, 50))
    return canvas


def _with_target(image: Image.Image) -> Image.Image:
    marked = image.copy()
    for place, patch in enumerate(("#d62828", "#e7c71f", "#3ca03c", "#1fb5b5", "#2b3fc4", "#b52bb5")):
        marked.paste(Image.new("RGB", (60, 40), patch), (20 + 64 * place, image.height - 50))
    return marked


def _with_ruler(image: Image.Image) -> Image.Image:
    marked = image.copy()
    marked.paste("white", (0, image.height - 24, image.width, image.height))
    for left in range(0, image.width, 10):
        marked.paste("black", (left, image.height - 24, left + 2, image.height))
    return marked


DEFECTS: dict[str, Degrade] = {
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(9)),
    "scaled up": _scaled_up,
    "noisy": _noisy,
    "JPEG blocks": _jpeg,
    "without colour": _sepia,
    "margin": _mounted,
    "frame": _framed,
    "colour target": _with_target,
    "ruler": _with_ruler,
}


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("seed", range(3))
def test_defect_is_named(defect: str, seed: int) -> None:
    """Each defect is flagged by its own name on a picture that was sound before."""
    sound = painted(seed)
    assert defect not in named(sound)
    assert defect in named(DEFECTS[defect](sound))


def test_every_fault_says_measure_and_threshold() -> None:
    """A fault names what was measured and what is asked; grey is no fault of what is not a painting."""
    worst = Measures(1.0, 0.01, 99.0, 9.0, 0.0, 0.5, 1.0, 1.0, 1.0)
    told = list(faults(worst, Curate(), in_colour=True))
    assert [text.partition(":")[0] for text in told] == list(DEFECTS)
    assert told[2] == "noisy: noise 99.0, at most 5.5 is accepted"
    assert len(list(faults(worst, Curate(), in_colour=False))) == len(told) - 1


def test_small_pictures_are_judged_by_what_they_can_show() -> None:
    """Below 256 pixels only sharpness and colour say something; the others stay neutral."""
    measures = quality.measure(_with_ruler(painted(size=(220, 200))))
    assert (measures.detail, measures.noise, measures.blocking, measures.ruler) == (1.0, 0.0, 1.0, 0.0)
    assert measures.sharpness > 0
    assert measures.colour > 0


@pytest.mark.parametrize("size", [(256, 256), (257, 4000), (1, 1), (300, 301)])
@pytest.mark.parametrize("level", [0, 127, 255])
def test_flat_pictures_break_nothing(size: tuple[int, int], level: int) -> None:
    """A picture of one colour, of whatever shape, gives numbers."""
    flat = Image.new("RGB", size, (level, level, level))
    assert all(np.isfinite(value) for value in vars(quality.measure(flat)).values())
    assert np.isfinite(quality.likeness(quality.look_at(flat), quality.look_at(flat)))


def _reworked(image: Image.Image) -> Image.Image:
    """Another state of a print: a part of it darkened, and cut otherwise."""
    state = image.copy()
    part = (60, 40, 160, 120)
    state.paste(ImageEnhance.Brightness(state.crop(part)).enhance(0.6), part)
    return state.crop((12, 0, image.width, image.height - 12))


COPIES: dict[str, Degrade] = {
    "smaller": lambda image: image.resize((233, 166)),
    "saved badly": _jpeg,
    "toned": _sepia,
    "cropped": lambda image: image.crop((21, 15, image.width - 21, image.height - 15)),
    "cropped unevenly": lambda image: image.crop((40, 0, image.width - 5, image.height - 25)),
    "reworked": _reworked,
}


@pytest.mark.parametrize("copy", COPIES)
def test_views_of_one_picture_are_alike(copy: str) -> None:
    """Another photograph of one picture is like it; two pictures are not."""
    looks = [quality.look_at(painted(seed)) for seed in range(4)]
    least = Curate().duplicate_likeness
    assert quality.likeness(looks[0], quality.look_at(COPIES[copy](painted(0)))) >= least
    assert max(quality.likeness(looks[0], other) for other in looks[1:]) < least


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_ART / "index.csv").exists(), reason="the paintings are not at hand")
def test_real_paintings_are_told_apart() -> None:
    """No two of the real paintings are alike, and a toned copy of each is flagged as one."""
    images = [imaging.load(path) for path in sorted(SHARED_ART.glob("*.jpg"))]
    looks = [quality.look_at(image) for image in images]
    pairs = [quality.likeness(a, b) for i, a in enumerate(looks) for b in looks[:i]]
    assert max(pairs) < Curate().duplicate_likeness
    assert all("without colour" in named(_sepia(image)) for image in images)
