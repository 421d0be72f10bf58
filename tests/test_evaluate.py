"""Measures of pictures, and the report on a series."""

import colorsys
import json
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from avignon import evaluate, imaging, style
from avignon.blend import path
from avignon.generate import Easel, unmeasured
from avignon.records import Event, Voice, plain
from avignon.workspace import Workspace, write_bytes, write_json
from tests.support.museum import draw
from tests.support.runs import carried, small_recipe


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


def test_report_measures_every_frame(tmp_path: Path) -> None:
    """The report has each frame once with its weights, change and distances, each scene's neighbours, and the notes."""
    recipe = small_recipe(tmp_path, tmp_path / "no-base-is-needed")
    space, _ = carried(recipe, tmp_path / "runs")
    series = Easel(recipe, "b" * 64, dict.fromkeys(recipe.adapter_names, "a" * 64), "fp32").series(unmeasured(recipe))
    for number, (file, frame) in enumerate(series.frames):
        same = frame.stop == "stop-1"  # Shows the base's own picture: it did not change.
        picture = draw(number - same, 64, 64)
        write_bytes(space.series / file, imaging.png_bytes(picture, "", plain(frame)))
    write_json(space.series_index, plain(series))
    heard: list[Event] = []
    evaluate.run(recipe, space, Voice("evaluate", heard.append))
    report = json.loads(space.report.read_text(encoding="utf-8"))
    assert [frame["file"] for frame in report["frames"]] == [file for file, _ in series.frames]
    assert [event.done for event in heard] == list(range(1, len(series.frames) + 1))
    for frame in report["frames"]:
        assert set(frame["colour_distance"]) == {"winslow-homer", "pablo-picasso"}
        assert (frame["change_from_base"] == 0) == (frame["stop"] in ("base", "stop-1"))
    weights = [frame["weights"] for frame in report["frames"] if frame["scene"] == "scene-1"]
    assert weights == [{}, *path(recipe.adapter_names, 3, "arc")]
    assert [scene["scene"] for scene in report["scenes"]] == list(series.scenes)
    assert all(len(scene["neighbour_change"]) == 2 for scene in report["scenes"])
    assert len(report["notes"]) == 3


def test_training_images_are_nearest_to_their_own_artist(tmp_path: Path) -> None:
    """A frame that is one artist's only training image has colour distance 0 to that artist, and not to the other."""
    recipe = small_recipe(tmp_path, tmp_path / "no-base-is-needed", works=1)
    space, _ = carried(recipe, tmp_path / "runs")
    shown = _training_image(space, "pablo-picasso")
    series = Easel(recipe, "b" * 64, dict.fromkeys(recipe.adapter_names, "a" * 64), "fp32").series(unmeasured(recipe))
    for file, frame in series.frames:
        write_bytes(space.series / file, imaging.png_bytes(shown, "", plain(frame)))
    write_json(space.series_index, plain(series))
    evaluate.run(recipe, space, Voice("evaluate", lambda _: None))
    for frame in json.loads(space.report.read_text(encoding="utf-8"))["frames"]:
        assert frame["colour_distance"]["pablo-picasso"] == 0
        assert frame["colour_distance"]["winslow-homer"] > 1


def _training_image(space: Workspace, artist: str) -> Image.Image:
    row = space.read_metadata(artist)[0]
    return imaging.load(space.metadata(artist).with_name(row["file_name"]))
