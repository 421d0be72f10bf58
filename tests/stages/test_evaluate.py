"""What the report says of a series."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from avignon.adapters.weights import MixPath
from avignon.core import imaging, png
from avignon.core.events import Event, Reporter, StageProgress
from avignon.core.files import write_bytes, write_json
from avignon.core.records import Series, plain
from avignon.core.workspace import Workspace
from avignon.evaluation import report as reports
from avignon.evaluation import style
from avignon.generation.series import SeriesPlan
from avignon.generation.spacing import unmeasured
from avignon.recipe.schema import Recipe
from avignon.stages import evaluate
from tests.support.museum import draw
from tests.support.runs import carried, small_recipe


def test_report_measures_every_frame(tmp_path: Path) -> None:
    """The report has each picture once with its weights, change, distances and nearest image, and the courses."""
    recipe = small_recipe(tmp_path, tmp_path / "no-base-is-needed")
    space, _ = carried(recipe, tmp_path / "runs")
    series = series_of(recipe)
    for number, (file, frame) in enumerate(series.frames):
        same = frame.stop == "stop-1"  # Shows the base's own picture: it did not change.
        picture = draw(100 + number - same, 64, 64)
        write_bytes(space.series / file, png.png_bytes(picture, "", plain(frame)))
    report, heard = evaluated(recipe, space, series)
    assert [frame.file for frame in report.frames] == [file for file, _ in series.frames]
    done = [event.done for event in heard if isinstance(event, StageProgress)]
    assert done == list(range(1, len(series.frames) + 1))
    files = {
        space.relative(file) for name in ("winslow-homer", "pablo-picasso") for file in space.training_images(name)
    }
    for own in report.frames:
        assert set(own.distance) == {"winslow-homer", "pablo-picasso"}
        assert all(
            set(distance) == {"colour", "brushwork", "geometry", "combined"} for distance in own.distance.values()
        )
        assert (own.change_from_base == 0) == (own.stop in ("base", "stop-1"))
        assert (own.composition_similarity == 1) == (own.stop in ("base", "stop-1"))
        assert own.nearest.file in files
    weights = [frame.weights for frame in report.frames if frame.scene == "scene-1"]
    assert weights == [{}, *(MixPath(recipe.adapter_names, "arc").at(place).weights for place in (0, 0.5, 1))]
    assert [scene.scene for scene in report.scenes] == list(series.scenes)
    for course in (report.overall.course, *(scene.course for scene in report.scenes)):
        for by, steps in course.neighbour_distance.items():
            assert len(steps) == 2
            assert course.step_ratio[by] == pytest.approx(max(steps) / min(steps), rel=0.02)
        for by, position in course.position.items():
            between = np.clip(position, 0, 1)
            assert course.monotone[by] == (np.diff(between) >= 0).all()
    assert report.ends == ("winslow-homer", "pablo-picasso")
    assert (report.extras, report.overall.seed_difference) == ((), {})
    assert report.encoder is None
    assert len(report.notes) == len(reports.NOTES)


@pytest.mark.slow
def test_series_between_two_works_is_monotone_and_flagged(tmp_path: Path) -> None:
    """A series of true works goes from one artist to the other, and each picture of it is flagged as a copy."""
    recipe = small_recipe(tmp_path, tmp_path / "no-base-is-needed", works=1)
    space, _ = carried(recipe, tmp_path / "runs")
    homer, picasso = (training_image(space, name) for name in ("winslow-homer", "pablo-picasso"))
    foreign = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    shown = {"base": foreign, "stop-1": homer, "stop-2": ImageOps.mirror(picasso), "stop-3": picasso}
    series = series_of(recipe)
    for file, frame in series.frames:
        write_bytes(space.series / file, png.png_bytes(shown[frame.stop], "", plain(frame)))
    report, heard = evaluated(recipe, space, series)
    flagged = [frame for frame in report.frames if frame.nearest.is_copy]
    assert {frame.stop for frame in flagged} == {"stop-1", "stop-2", "stop-3"}
    assert report.copy_count == len(flagged) == [event.kind for event in heard].count("warning") == 6
    for copy in flagged:
        assert copy.nearest.score >= report.copy_threshold
        own = "winslow-homer" if copy.stop == "stop-1" else "pablo-picasso"
        assert copy.nearest.file.startswith(f"dataset/{own}/")
    first, *_, last = report.scenes[0].course.position["combined"]
    assert (first, last) == (0, 1)


@pytest.mark.slow
def test_adapter_that_paints_one_picture_is_told(tmp_path: Path) -> None:
    """Pictures of a stop are compared seed by seed: where they are all one, no variety is left of the base's."""
    recipe = small_recipe(tmp_path, tmp_path / "no-base-is-needed", generate={"extra_seeds": 2})
    space, _ = carried(recipe, tmp_path / "runs")
    series = series_of(recipe)
    base = [frame.seed for _, frame in series.pictures if frame.stop == "base"]
    copied = training_image(space, "winslow-homer")
    for number, (file, frame) in enumerate(series.pictures):
        shown = {"base": draw(200 + base.index(frame.seed), 64, 64), "stop-3": copied}  # The last stop has collapsed.
        picture = shown.get(frame.stop, draw(300 + number, 64, 64))
        write_bytes(space.series / file, png.png_bytes(picture, "", plain(frame)))
    report, heard = evaluated(recipe, space, series)
    assert [(one.file, one.seed) for one in report.extras] == [(file, f.seed) for file, f in series.extras]
    assert all((one.change_from_base == 0) == (one.stop == "base") for one in report.extras), "its own seed's"
    flagged = [one.file for one in (*report.frames, *report.extras) if one.nearest.is_copy]
    assert {f"scene-1/stop-3-seed-{seed}.png" for seed in (1008, 2008)} < set(flagged)
    assert report.copy_count == len(flagged) == [event.kind for event in heard].count("warning")
    whole = report.overall.seed_difference
    assert list(whole) == ["base", "stop-1", "stop-2", "stop-3"]
    assert set(whole["base"].difference) == {*report.overall.course.position, "composition", "pixels"}
    assert set(whole["base"].share_of_base.values()) == {1.0}
    assert min(whole["base"].difference.values()) > 0.1
    assert max(whole["stop-3"].difference.values()) < 1e-6
    assert set(whole["stop-3"].share_of_base.values()) == {0.0}
    assert all(share and 0.3 < share < 3 for share in whole["stop-1"].share_of_base.values())
    one, two, three = (
        imaging.load(space.series / f"scene-2/base{part}.png") for part in ("", "-seed-1009", "-seed-2009")
    )
    pixels = [style.change(*pair) for pair in ((one, two), (one, three), (two, three))]
    assert report.scenes[1].seed_difference["base"]["pixels"] == pytest.approx(sum(pixels) / 3, abs=1e-3)
    assert whole["base"].difference["pixels"] == pytest.approx(
        (report.scenes[0].seed_difference["base"]["pixels"] + sum(pixels) / 3) / 2, abs=1e-3
    )
    assert report.notes[-1] == reports.SEEDS_NOTE


@pytest.mark.slow
def test_scene_is_judged_by_the_means_of_its_seeds(tmp_path: Path) -> None:
    """One seed of three goes to and fro: the scene's mean never turns back, and of the single rows two do not."""
    recipe = small_recipe(tmp_path, tmp_path / "no-base-is-needed", works=1, generate={"extra_seeds": 2})
    space, _ = carried(recipe, tmp_path / "runs")
    homer, picasso = (training_image(space, name) for name in ("winslow-homer", "pablo-picasso"))
    series = series_of(recipe)
    straight = dict.fromkeys(("base", "stop-1"), homer) | dict.fromkeys(("stop-2", "stop-3"), picasso)
    back = straight | {"stop-1": picasso, "stop-2": homer}
    for file, frame in series.pictures:
        turns = frame.seed == min(one.seed for _, one in series.pictures if one.scene == frame.scene)
        picture = (back if turns else straight)[frame.stop]
        write_bytes(space.series / file, png.png_bytes(picture, "", plain(frame)))
    report, _ = evaluated(recipe, space, series)
    assert (report.overall.monotone_scene_share, report.overall.monotone_row_share) == (1.0, 0.667)
    for scene in report.scenes:
        assert not scene.course.monotone["combined"], "the row that hangs"
        over = scene.over_seeds
        assert (over.seed_count, over.monotone_seed_count, over.course.monotone["combined"]) == (3, 2, True)
        position = over.course.position["combined"]
        assert 0 < position[0] < position[1] < position[2] == 1


@pytest.mark.slow
def test_base_without_variety_is_no_measure(tmp_path: Path) -> None:
    """Where the base's own pictures do not differ, no share of that is given."""
    recipe = small_recipe(tmp_path, tmp_path / "no-base-is-needed", generate={"extra_seeds": 1})
    space, _ = carried(recipe, tmp_path / "runs")
    series = series_of(recipe)
    for number, (file, frame) in enumerate(series.pictures):
        picture = draw(0 if frame.stop == "base" else number, 64, 64)
        write_bytes(space.series / file, png.png_bytes(picture, "", plain(frame)))
    report, _ = evaluated(recipe, space, series)
    assert set(report.overall.seed_difference["stop-1"].share_of_base.values()) == {None}


def test_seeds_are_turned_along_the_series(tmp_path: Path) -> None:
    """A scene with a second seed reaches it at the last stop; the base and other scenes keep to their own."""
    scenes = [{"prompt": "a", "seed": 5, "to_seed": 9}, {"prompt": "b"}]
    for settings in ({}, {"weights": [{"winslow-homer": 1.0}] * 3}):
        recipe = small_recipe(tmp_path, tmp_path / "no-base-is-needed", generate={"scenes": scenes, **settings})
        turned = [(frame.seed, frame.to_seed, frame.seed_place) for _, frame in series_of(recipe).frames]
        assert turned[:4] == [(5, 9, 0.0), (5, 9, 0.0), (5, 9, 0.5), (5, 9, 1.0)]
        assert turned[4:] == [(9, -1, 0.0)] * 4


def series_of(recipe: Recipe) -> Series:
    """The frames that `generate` would make."""
    hashes = dict.fromkeys(recipe.adapter_names, "a" * 64)
    return SeriesPlan(recipe, "b" * 64, hashes, "fp32").series(unmeasured(recipe), {})


def evaluated(recipe: Recipe, space: Workspace, series: Series) -> tuple[reports.Report, list[Event]]:
    """The report on a series whose pictures are there, and what was said."""
    write_json(space.series_index, plain(series))
    heard: list[Event] = []
    evaluate.run(recipe, space, Reporter("evaluate", heard.append))
    return reports.read(space.report), heard


def training_image(space: Workspace, artist: str) -> Image.Image:
    """An artist's first prepared image."""
    return imaging.load(space.training_images(artist)[0])
