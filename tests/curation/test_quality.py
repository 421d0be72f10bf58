"""Measures of quality: each moves with its own defect, and leaves a sound picture alone."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from avignon.core import imaging
from avignon.curation import quality
from avignon.curation.gate import faults
from avignon.curation.quality import Measures
from avignon.recipe.schema import Curate
from tests.support.paintings import painted, saved_badly, toned
from tests.support.paths import SHARED_ART

Degrade = Callable[[Image.Image], Image.Image]


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


def _scaled_up(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2)).resize(image.size, Image.Resampling.BICUBIC)


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
    "JPEG blocks": saved_badly,
    "without colour": toned,
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


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_ART / "index.csv").exists(), reason="the paintings are not at hand")
def test_toned_copies_of_real_paintings_are_flagged() -> None:
    """A toned copy of each of the real paintings has no colour."""
    images = [imaging.load(path) for path in sorted(SHARED_ART.glob("*.jpg"))]
    assert all("without colour" in named(toned(image)) for image in images)
