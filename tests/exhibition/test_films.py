"""The series as a grid, a strip and films: what they show, what they say of themselves, and the same bytes twice."""

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from avignon.core import grids, png
from avignon.core.errors import RecipeError
from avignon.core.events import Reporter
from avignon.core.files import write_bytes
from avignon.core.workspace import Workspace
from avignon.exhibition import films
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe
from avignon.stages import exhibit
from tests.support import scans
from tests.support.exhibition import Reader, hang, recipe_of, series_of
from tests.support.museum import draw

PICTURES = [draw(number, 64, 48) for number in range(3)]
RIGHTS = "1 of 3 training images is not known to be free to use & <so on>."
WORDS = films.Words("small: scene-1", "“a boat”, seed 7: 3 stops.", RIGHTS, {"series": "small"})
MARK = "digitalsourcetype/trainedAlgorithmicMedia"


def test_a_round_shows_neither_end_twice() -> None:
    """There and back, and the next round goes on from the second picture."""
    assert films.there_and_back(PICTURES) == [*PICTURES, PICTURES[1]]
    assert films.there_and_back(PICTURES[:2]) == PICTURES[:2]
    assert films.there_and_back(PICTURES[:1]) == PICTURES[:1]


def test_sheet() -> None:
    """Pictures lie in rows, pixel by pixel, on white; the PNG carries mark, rights and fields."""
    content = films.sheet([PICTURES, PICTURES[::-1]], WORDS)
    with Image.open(io.BytesIO(content)) as image:
        values, texts = np.asarray(image), image.text  # type: ignore[attr-defined]
    assert values.shape == (2 * 48 + grids.GAP, 3 * 64 + 2 * grids.GAP, 3)
    assert np.array_equal(values[:48, :64], np.asarray(PICTURES[0]))
    assert np.array_equal(values[-48:, :64], np.asarray(PICTURES[2]))
    assert (values[:, 64 : 64 + grids.GAP] == 255).all()
    assert MARK in texts["XML:com.adobe.xmp"]
    assert (texts["Copyright"], json.loads(texts["avignon"])) == (RIGHTS, {"series": "small"})


def test_rows_of_other_shapes() -> None:
    """Each row has its own height, its pictures in the middle of the columns, which are as wide as the widest."""
    tall = [draw(number, 32, 80) for number in range(3)]
    with Image.open(io.BytesIO(films.sheet([PICTURES, tall], WORDS))) as image:
        values = np.asarray(image)
    assert values.shape == (48 + grids.GAP + 80, 3 * 64 + 2 * grids.GAP, 3)
    assert np.array_equal(values[:48, :64], np.asarray(PICTURES[0]))
    assert np.array_equal(values[-80:, 16:48], np.asarray(tall[0]))
    assert np.array_equal(values[-80:, -48:-16], np.asarray(tall[2]))
    assert (values[-80:, :16] == 255).all()


def test_long_sheet_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """No side of a grid is longer than what is allowed."""
    monkeypatch.setattr(grids, "LONGEST", 100)
    with Image.open(io.BytesIO(films.sheet([PICTURES], WORDS))) as image:
        assert image.width <= 100


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_animation(kind: str) -> None:
    """It loops for ever, there and back, at the pace, and says what it is; twice, it is the same."""
    content = films.MOVING[kind](PICTURES, 0.25, WORDS)
    assert content == films.MOVING[kind](PICTURES, 0.25, WORDS)
    with Image.open(io.BytesIO(content)) as image:
        assert image.info["loop"] == 0
        assert image.n_frames == 4  # type: ignore[attr-defined]
        said = image.info["xmp" if kind == "webp" else "comment"].decode()
        for place, picture in enumerate(films.there_and_back(PICTURES)):
            image.seek(place)
            shown = np.asarray(image.convert("RGB"), float)
            assert image.info["duration"] == 250
            assert np.abs(shown - np.asarray(picture, float)).mean() < 12
    assert "trainedAlgorithmicMedia" in said
    assert ("&amp; &lt;so on&gt;" if kind == "webp" else RIGHTS) in said
    assert "seed 7" in said


def test_mp4() -> None:
    """H.264 in yuv420p, 25 frames a second, each stop as long as wanted; tags and XMP say what it is; same bytes."""
    content = films.mp4(PICTURES, 0.2, WORDS)
    assert content == films.mp4(PICTURES, 0.2, WORDS)
    with av.open(io.BytesIO(content), "r") as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == films.RATE
        assert film.metadata["copyright"] == RIGHTS
        assert "trainedAlgorithmicMedia" in film.metadata["comment"]
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
    assert len(frames) == 4 * 5
    assert frames[0].shape == (48, 64, 3)
    for place, picture in enumerate(films.there_and_back(PICTURES)):
        assert np.abs(frames[place * 5 + 2].astype(float) - np.asarray(picture, float)).mean() < 20
    assert films.XMP_BOX.bytes in content
    assert content.endswith(b'<?xpacket end="w"?>')


def test_films_hang_beside_the_page(tmp_path: Path) -> None:
    """What the recipe wants is there, linked from the page and made again to the byte; what it no longer wants, not."""
    wanted = recipe_of(exhibit={"films": ["grid", "strip", "gif"], "film_pace": 0.1})
    space = hang(wanted, tmp_path)
    for number, (file, frame) in enumerate(series_of(wanted).frames):
        write_bytes(space.series / file, png.png_bytes(draw(number, 64, 64), "", {"stop": frame.stop}, RIGHTS))
    assert hung(wanted, space) == ["grid.png", "scene-1-strip.png", "scene-1.gif", "scene-2-strip.png", "scene-2.gif"]
    links = [fields["href"] for fields in Reader(space.page.read_text(encoding="utf-8")).all("a")]
    assert {"films/grid.png", "films/scene-1.gif"} <= set(links)
    before = {path.name: path.read_bytes() for path in space.films.iterdir()}
    assert hung(wanted, space) == sorted(before)
    assert before == {path.name: path.read_bytes() for path in space.films.iterdir()}
    with Image.open(space.films / "grid.png") as grid:
        texts = grid.text  # type: ignore[attr-defined]
    assert texts["Copyright"] == RIGHTS, "the pictures' own rights, once"
    assert len(json.loads(texts["avignon"])["frames"]) == 6
    assert hung(recipe_of(), space) == []


def hung(wanted: Recipe, space: Workspace) -> list[str]:
    """Hang the exhibition; names of the films that are there then."""
    exhibit.run(wanted, space, Reporter("exhibit", lambda _: None))
    return sorted(path.name for path in space.films.glob("*"))


def test_films_that_cannot_be_made_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that there is not, and MP4 where its library is missing, are one line when the recipe is read."""
    path = scans.recipe(tmp_path)
    with pytest.raises(RecipeError, match=r"exhibit\.films\.0: 'avi' is not allowed; should be 'grid', 'strip', "):
        load_recipe(path, ["exhibit.films=['avi']"])
    monkeypatch.setattr("avignon.recipe.load.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"'mp4' needs `pip install avignon\[video\]`"):
        load_recipe(path, ["exhibit.films=['mp4']"])
