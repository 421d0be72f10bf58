"""What is measured on pictures against works: distances, copies, differences from seed to seed and prompt to prompt."""

import pytest

from avignon.evaluation import style
from avignon.evaluation.adapter_report import Measures, SetReport, gained
from avignon.evaluation.measure import MeasuredImage
from tests.support.paintings import painted

SIZE = (64, 64)
WORKS = {f"{number}.png": painted(number, SIZE) for number in range(4)}
MEASURES = Measures(WORKS, {file: file for file in WORKS})


def seen(*numbers: int) -> list[MeasuredImage]:
    """Pictures; those of numbers below 4 are works."""
    return [MeasuredImage(image, style.traits(image)) for image in (painted(number, SIZE) for number in numbers)]


def measured(*rows: list[MeasuredImage]) -> SetReport:
    """The measures of pictures, a row for each prompt."""
    return MEASURES.of_set(rows, [MEASURES.nearest(each.image) for row in rows for each in row])


@pytest.mark.slow
def test_pictures_that_are_works_are_copies_at_no_distance() -> None:
    """The works themselves have all copies, and what they have in common is at no distance from the works."""
    report = measured(seen(0, 1), seen(2, 3))
    assert (report.copy_count, report.copy_share) == (4, 1.0)
    assert report.distance_of_mean["combined"] == pytest.approx(0, abs=1e-3)
    assert report.style_distance["combined"] > 0.3
    assert measured(seen(10, 11), seen(12, 13)).copy_count == 0


def test_one_picture_for_all_has_no_diversity() -> None:
    """One picture whatever the seed leaves nothing between seeds; whatever the prompt, nothing between prompts."""
    by_seed = measured(seen(10, 10), seen(11, 11))
    assert max(by_seed.seed_difference.values()) < 1e-6
    assert min(by_seed.prompt_difference.values()) > 0.05
    by_prompt = measured(seen(10, 11), seen(10, 11))
    assert max(by_prompt.prompt_difference.values()) < 1e-6
    assert min(by_prompt.seed_difference.values()) > 0.05
    assert by_seed.style_distance_std["combined"] > 0


def test_one_seed_or_one_prompt_says_nothing_of_the_other() -> None:
    """Where there is no pair, no difference is given."""
    assert measured(seen(10), seen(11)).seed_difference == {}
    assert measured(seen(10, 11)).prompt_difference == {}


def test_style_gained_is_the_share_of_the_bases_distance() -> None:
    """Works gain all of it, the base's own pictures nothing."""
    base = measured(seen(10, 11))
    share = gained(measured(seen(0, 1, 2, 3)), base)["combined"]
    assert share == pytest.approx(1, abs=0.01)
    assert set(gained(base, base).values()) == {0.0}


def test_works_are_measured_against_the_others() -> None:
    """A work's distance is about one unit; a single work has no others."""
    report = MEASURES.of_works("works", {}, {})
    assert 0.5 < report.style_distance["combined"] < 2
    assert report.difference["composition"] > 0.1
    single = Measures({"0.png": WORKS["0.png"]}, {"0.png": "0.png"}).of_works("works", {}, {})
    assert (single.style_distance, single.difference) == ({}, {})
