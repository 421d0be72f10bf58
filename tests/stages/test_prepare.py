"""prepare: square training images of the base's size, each with captions that hold the trigger phrase."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avignon import pipeline
from avignon.core import imaging
from avignon.core.events import Event, StageProgress
from avignon.core.files import sha256_of
from avignon.core.workspace import Workspace
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe
from avignon.stages.prepare import captions_of
from tests.support import images, scans

TRIGGER = "in the style of ann other"


def prepared(recipe: Recipe, folder: Path, listener: Any = lambda _: None) -> Workspace:
    """A run as far as prepare."""
    return pipeline.run(recipe, folder / "runs", listener, until="prepare")


@pytest.fixture
def walls(tmp_path: Path) -> Path:
    """Three sound pictures for each of two artists."""
    return scans.scans(tmp_path / "scans")


def test_layout_is_image_folders(walls: Path, tmp_path: Path) -> None:
    """Each artist has a metadata.jsonl whose every line names a file and its text, and no file is left out."""
    space = prepared(load_recipe(scans.recipe(tmp_path)), tmp_path)
    assert sorted(p.name for p in space.dataset.iterdir()) == ["ann-other", "bo-second"]
    for folder in space.dataset.iterdir():
        lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert {row["file_name"] for row in rows} == {path.name for path in folder.glob("*.png")}
        assert len(list(folder.iterdir())) == len(rows) + 1 == 4
        assert all(list(row)[:2] == ["file_name", "text"] and row["text"] == row["captions"][0] for row in rows)
        assert all(row["sha256"] == sha256_of(folder / row["file_name"]) for row in rows)
        assert all(row["title"] and row["museum"] == "scans" and row["object_id"] for row in rows)


def test_images_are_eight_bit_squares(tmp_path: Path) -> None:
    """Whatever the originals were, the training images are RGB of 8 bits and of the base's resolution."""
    walls = tmp_path / "scans"
    for artist, makers in {
        "ann-other": (images.cmyk_jpeg, images.sixteen_bit_png, images.rgba_png),
        "bo-second": (images.palette_png, images.exif_rotated_jpeg, images.wide_gamut),
    }.items():
        (walls / artist).mkdir(parents=True)
        for maker in makers:
            maker(walls / artist)
    overrides = [f"artists.{n}.rights=acknowledge-restricted" for n in (0, 1)]
    overrides += ["curate.duplicate_likeness=1.0", "curate.min_sharpness=0.0", "base.resolution=48"]
    space = prepared(load_recipe(scans.recipe(tmp_path), overrides), tmp_path)
    pictures = sorted(space.dataset.rglob("*.png"))
    assert len(pictures) == 6
    for path in pictures:
        with Image.open(path) as image:
            assert (image.mode, image.size, image.format) == ("RGB", (48, 48), "PNG")


def test_crops_are_cut_from_the_original(walls: Path, tmp_path: Path) -> None:
    """A training image is its box of the original, resampled; several crops are several files."""
    space = prepared(load_recipe(scans.recipe(tmp_path), ["prepare.crops=2"]), tmp_path)
    rows = space.read_metadata("ann-other")
    assert [row["file_name"] for row in rows[:2]] == ["ann-work-0-1.png", "ann-work-0-2.png"]
    assert [row["box"] for row in rows[:2]] == [[0, 0, 64, 64], [32, 0, 96, 64]]
    assert [row["size"] for row in rows[:2]] == [[96, 64], [96, 64]], "of the original, upright"
    original = imaging.load(walls / "ann" / "work-0.png")
    for row in rows[:2]:
        wanted = imaging.fit(original, tuple(row["box"]), 64)
        assert np.array_equal(
            np.asarray(wanted), np.asarray(imaging.load(space.dataset / "ann-other" / row["file_name"]))
        )
    prepared(load_recipe(scans.recipe(tmp_path)), tmp_path)
    assert len(list((space.dataset / "ann-other").glob("*.png"))) == 3


BUCKETS = ['prepare.shape="buckets"', "base.resolution=128", "artists.0.works=5", "artists.1.works=3"]
"""Of the miniature: sides of multiples of 32, so 64×256, 96×160, 128×128, 160×96 and 256×64."""


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Works of many shapes by the first artist: a strip, a scroll, two that are too small, and pictures."""
    folder = scans.scans(tmp_path / "scans", 3)
    sizes = ((300, 74), (220, 140), (900, 129), (131, 129), (150, 90), (160, 96), (133, 280))
    for number, size in enumerate(sizes):
        scans.scan(folder / f"ann/work-{number}.png", number, size)
    for number in range(3):
        scans.scan(folder / f"bo/work-{number}.png", 100 + number, (140, 130))
    lines = [f"ann/work-{number}.png,Ann Other,Work {number},public domain" for number in range(3, len(sizes))]
    with (folder / "index.csv").open("a", encoding="utf-8") as index:
        index.write("\n".join(lines) + "\n")
    return folder


def test_buckets_show_works_whole(shapes: Path, tmp_path: Path) -> None:
    """Each image has its bucket's size and is its box of the original, and box, size and bucket are recorded.

    What is cut off, and which works have too few pixels or no bucket near to their shape, is in the ledger.
    """
    space = prepared(load_recipe(scans.recipe(tmp_path), BUCKETS), tmp_path)
    rows = {row["object_id"]: row for row in space.read_metadata("ann-other")}
    assert {name: (row["bucket"], row["box"]) for name, row in rows.items()} == {
        "ann-work-0": ([256, 64], [2, 0, 298, 74]),
        "ann-work-1": ([160, 96], [0, 4, 220, 136]),
        "ann-work-3": ([128, 128], [1, 0, 130, 129]),
        "ann-work-5": ([160, 96], [0, 0, 160, 96]),
        "ann-work-6": ([96, 160], [0, 29, 133, 251]),
    }
    for row in rows.values():
        file = space.metadata("ann-other").with_name(row["file_name"])
        original = imaging.load(shapes / "ann" / f"{row['object_id'].removeprefix('ann-')}.png")
        assert tuple(row["size"]) == original.size
        shown = imaging.load(file)
        assert list(shown.size) == row["bucket"]
        assert np.array_equal(np.asarray(shown), np.asarray(imaging.fit(original, tuple(row["box"]), *row["bucket"])))
    told = {row["object_id"]: row for row in space.read_ledger() if row["artist"] == "Ann Other"}
    assert (told["ann-work-0"]["bucket"], told["ann-work-0"]["cut"]) == ("256x64", "0.0133")
    assert told["ann-work-5"]["cut"] == "0.0000"
    assert {name: row["reason"] for name, row in told.items() if row["decision"] == "rejected"} == {
        "ann-work-2": "shape: 900×129 pixels, of which the nearest bucket, 256×64, would cut off 43%; at most 25% is "
        "accepted",
        "ann-work-4": "too small: 150×90 pixels, at least 160×96 are needed of this shape",
    }
    page = space.contact_page.read_text(encoding="utf-8")
    assert "133×280 pixels, learned at 96×160, 20.8% cut off" in page


def test_least_pixels_stated_hold_for_buckets_too(shapes: Path, tmp_path: Path) -> None:
    """With `curate.min_edge` the short side counts, whatever the shape."""
    recipe = load_recipe(scans.recipe(tmp_path), [*BUCKETS, "curate.min_edge=92", "artists.0.works=4"])
    space = prepared(recipe, tmp_path)
    assert [row["bucket"] for row in space.read_metadata("ann-other")] == [[160, 96], [128, 128], [160, 96], [96, 160]]


def test_squares_say_nothing_of_buckets(walls: Path, tmp_path: Path) -> None:
    """A data set of squares has no word of buckets, in its rows or in the ledger: its bytes are as ever."""
    space = prepared(load_recipe(scans.recipe(tmp_path), ['prepare.shape="square"']), tmp_path)
    assert all("bucket" not in row for row in space.read_metadata("ann-other"))
    assert not {"bucket", "cut"} & space.read_ledger()[0].keys()


def test_captions_are_several_and_hold_the_trigger(walls: Path, tmp_path: Path) -> None:
    """Each image has as many captions as asked for, all different, all with the trigger phrase."""
    space = prepared(load_recipe(scans.recipe(tmp_path), ["prepare.captions=8"]), tmp_path)
    for row in space.read_metadata("ann-other"):
        assert len(set(row["captions"])) == 8
        assert all(TRIGGER in caption for caption in row["captions"])
        assert row["title"] in row["text"]


def row(**fields: str) -> dict[str, str]:
    """A ledger's row, as far as captions read it."""
    return {"title": "The Sea", "medium": "", "classification": "", "terms": "", **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"medium": "oil on canvas", "classification": "Painting", "terms": "sea; boat"},
        {"terms": "sea"},
        {"title": ""},
        {"title": "The " + "very " * 400 + "long sea", "medium": "oil " * 100, "terms": "; ".join(["sea"] * 90)},
    ],
)
@pytest.mark.parametrize("count", [1, 4, 8])
def test_captions_stay_within_what_clip_reads(fields: dict[str, str], count: int) -> None:
    """With much or little to say, captions differ, and the trigger is never behind CLIP's 77th token."""
    captions = captions_of(row(**fields), TRIGGER, count)
    assert len(set(captions)) == len(captions) == count
    for caption in captions:
        assert caption == " ".join(caption.split())
        words = caption[: caption.index(TRIGGER) + len(TRIGGER)].replace(",", " ,").split()
        assert len(words) < 75
        assert not caption.startswith(",")


def test_caption_says_what_the_museum_says() -> None:
    """Title, kind, medium and terms of the museum's own are what the captions are made of."""
    captions = captions_of(
        row(medium="Oil on canvas", classification="Painting", terms="sea; boat"), "in the style of x", 4
    )
    assert captions == (
        "The Sea, in the style of x",
        "a painting of sea, boat, in the style of x",
        "in the style of x: The Sea, oil on canvas",
        "The Sea, sea, boat, in the style of x",
    )


def test_same_input_gives_the_same_bytes(walls: Path, tmp_path: Path) -> None:
    """The data set depends on nothing but the recipe and the works."""
    recipe = load_recipe(scans.recipe(tmp_path))
    one, two = prepared(recipe, tmp_path / "1"), prepared(recipe, tmp_path / "2")
    files = [space.hashes(space.dataset.rglob("*")) for space in (one, two)]
    assert files[0] == files[1]
    assert len(files[0]) == 8


def test_progress_ends_at_its_total(walls: Path, tmp_path: Path) -> None:
    """Progress counts the works, from the first to the last and not beyond."""
    heard: list[Event] = []
    prepared(load_recipe(scans.recipe(tmp_path), ["prepare.crops=2"]), tmp_path, heard.append)
    steps = [(e.done, e.total) for e in heard if e.stage == "prepare" and isinstance(e, StageProgress)]
    assert steps == [(n, 6) for n in range(1, 7)]


def test_new_trigger_makes_new_captions(walls: Path, tmp_path: Path) -> None:
    """Another trigger in the recipe is in every caption of the next run."""
    prepared(load_recipe(scans.recipe(tmp_path)), tmp_path)
    space = prepared(load_recipe(scans.recipe(tmp_path), ['artists.0.trigger="as zed does"']), tmp_path)
    assert all("as zed does" in caption for each in space.read_metadata("ann-other") for caption in each["captions"])
