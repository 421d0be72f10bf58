"""curate: each picture measured, each decision with its reason, and no picture kept twice."""

import csv
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from avignon import pipeline
from avignon.core import imaging
from avignon.core.errors import InputError
from avignon.core.events import Event
from avignon.core.workspace import Workspace
from avignon.curation import ledger
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe
from tests.support import images, scans
from tests.support.museum import draw


def curated(recipe: Recipe, folder: Path) -> list[dict[str, str]]:
    """The ledger of a run as far as curate; written even where too few works pass."""
    try:
        pipeline.run(recipe, folder / "runs", lambda _: None, until="curate")
    finally:
        rows = Workspace(folder / "runs" / recipe.name).read_ledger()
    return rows


def verdicts(rows: list[dict[str, str]]) -> dict[str, str]:
    """Reason of each rejected work by id; a kept one has `kept`."""
    return {row["object_id"]: row["reason"] if row["decision"] == "rejected" else "kept" for row in rows}


@pytest.fixture
def walls(tmp_path: Path) -> Path:
    """Three sound pictures for each of two artists."""
    return scans.scans(tmp_path / "scans")


def add(walls: Path, image: Image.Image, name: str, artist: str = "Ann Other") -> None:
    """Hang a further picture, by the index, behind those that are there."""
    image.convert("RGB").save(walls / name, quality=70)
    with (walls / "index.csv").open("a", encoding="utf-8") as index:
        index.write(f"{name},{artist},,public domain\n")


def test_ledger_has_every_work(walls: Path, tmp_path: Path) -> None:
    """The ledger has its columns, a row for every work, and a reason wherever one was rejected."""
    add(walls, draw(50, 96, 64), "z.png")
    images.truncated_jpeg(walls, name="y.jpg")
    with (walls / "index.csv").open("a", encoding="utf-8") as index:
        index.write("y.jpg,Bo Second,,public domain\n")
    rows = curated(load_recipe(scans.recipe(tmp_path)), tmp_path)
    assert tuple(rows[0]) == ledger.COLUMNS
    assert len(rows) == 8
    assert all((row["decision"] == "rejected") is bool(row["reason"]) for row in rows)
    assert verdicts(rows)["z"] == "passed, but enough others did before it"
    assert verdicts(rows)["y"].startswith("truncated or damaged: ")
    kept = next(row for row in rows if row["decision"] == "kept")
    assert (kept["width"], kept["height"], kept["rights"], kept["museum"]) == ("96", "64", "open", "scans")
    assert len(kept["sha256"]) == 64


def test_small_pictures_are_rejected(walls: Path, tmp_path: Path) -> None:
    """The short side counts: less than the base's resolution, or than min_edge, is too small, 1×1 among it."""
    add(walls, draw(50, 300, 63), "a.png")
    add(walls, Image.new("RGB", (1, 1)), "b.png")
    found = verdicts(curated(load_recipe(scans.recipe(tmp_path)), tmp_path))
    assert found["a"] == "too small: 300×63 pixels, at least 64 on the short side are needed"
    assert found["b"] == "too small: 1×1 pixels, at least 64 on the short side are needed"
    assert verdicts(curated(load_recipe(scans.recipe(tmp_path), ["curate.min_edge=32"]), tmp_path))["a"] == "kept"


def test_duplicates_are_kept_once(walls: Path, tmp_path: Path) -> None:
    """The same bytes, or the same picture saved smaller, are found, under another artist's name, too."""
    first = walls / "ann" / "work-0.png"
    (walls / "ann-copy.png").write_bytes(first.read_bytes())
    with Image.open(first) as image:
        near = image.resize((108, 72))
        far = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        with (walls / "index.csv").open("a", encoding="utf-8") as index:
            index.write("ann-copy.png,Bo Second,,public domain\n")
        add(walls, near, "z-near.jpg")
        add(walls, far, "ann-far.png")
    found = verdicts(curated(load_recipe(scans.recipe(tmp_path), ["artists.0.works=4"]), tmp_path))
    assert found["ann-copy"] == "exact duplicate of ann-work-0 by Ann Other"
    assert found["z-near"].startswith("near duplicate of ann-work-0: ")
    assert "likeness 0.9" in found["z-near"]
    assert found["ann-far"] == "kept"


def test_only_kept_pictures_have_duplicates(walls: Path, tmp_path: Path) -> None:
    """A picture that one artist did not need is no duplicate when the other has it."""
    add(walls, draw(60, 96, 64), "z-spare.png")
    add(walls, draw(60, 96, 64), "a-wanted.png", "Bo Second")
    found = verdicts(curated(load_recipe(scans.recipe(tmp_path)), tmp_path))
    assert found["z-spare"].startswith("passed, but enough others")
    assert found["a-wanted"] == "kept"


def test_blurred_pictures_are_rejected(walls: Path, tmp_path: Path) -> None:
    """A picture without sharp detail is rejected with what was measured and what is needed."""
    noise = Image.effect_noise((200, 150), 80)
    add(walls, noise, "a-sharp.png")
    add(walls, draw(70, 200, 150).filter(ImageFilter.GaussianBlur(12)), "a-soft.png")
    recipe = load_recipe(scans.recipe(tmp_path, works=1), ["curate.min_sharpness=8.0"])
    found = verdicts(curated(recipe, tmp_path))
    assert found["a-sharp"] == "kept"
    assert found["a-soft"].startswith("blurred: sharpness ")
    assert found["a-soft"].endswith(", at least 8 is needed")


def words(folder: Path, *lines: str) -> str:
    """A decisions file, as an override for the first artist."""
    (folder / "words.csv").write_text("object_id,decision,reason\n" + "".join(f"{line}\n" for line in lines))
    return "artists.0.decisions=words.csv"


def test_curators_keep_stands_above_measures(walls: Path, tmp_path: Path) -> None:
    """What the curator keeps is kept though it is small, blurred and a copy, and says so; a broken file does not."""
    add(walls, Image.new("RGB", (20, 20)), "small.png")
    (walls / "copy.png").write_bytes((walls / "ann" / "work-0.png").read_bytes())
    images.truncated_jpeg(walls, name="torn.jpg")
    with (walls / "index.csv").open("a", encoding="utf-8") as index:
        index.write("copy.png,Ann Other,,public domain\ntorn.jpg,Ann Other,,public domain\n")
    said = words(tmp_path, "small,keep,a sketch", "copy,keep,", "torn,keep,", "ann-work-1,drop,not hers")
    rows = curated(load_recipe(scans.recipe(tmp_path), [said, "artists.0.works=3"]), tmp_path)
    found = verdicts(rows)
    assert found["small"] == found["copy"] == "kept"
    assert found["torn"].startswith("truncated or damaged")
    assert found["ann-work-1"] == "dropped by the curator: not hers"
    assert found["ann-work-0"] == "exact duplicate of copy"
    assert next(row["reason"] for row in rows if row["object_id"] == "small") == "kept by the curator: a sketch"


def test_too_few_works_are_counted(walls: Path, tmp_path: Path) -> None:
    """Fewer works than wanted is an error that counts the reasons and shows the first; the ledger has them all."""
    add(walls, Image.new("RGB", (20, 20)), "small.png")
    add(walls, Image.new("RGB", (30, 20)), "tiny.png")
    said = words(tmp_path, "ann-work-0,keep,sure", "ann-work-1,drop,no")
    with pytest.raises(InputError) as caught:
        curated(load_recipe(scans.recipe(tmp_path), [said, "artists.0.works=5"]), tmp_path)
    text = str(caught.value)
    assert text.startswith(
        "Ann Other: 5 works are wanted, 2 of 5 can be used (2 × too small, 1 × dropped by the curator; "
    )
    assert "first: 'small': too small: 20×20 pixels" in text
    ledger = tmp_path / "runs" / "pair" / "works" / "ledger.csv"
    assert text.endswith(f"; lower works in the recipe, or see {ledger}")
    with ledger.open(encoding="utf-8", newline="") as file:
        assert Counter(row["artist"] for row in csv.DictReader(file)) == {"Ann Other": 5, "Bo Second": 3}


def test_strange_texts_keep_their_row(walls: Path, tmp_path: Path) -> None:
    """Commas, quotes and line ends in an index leave every row of the ledger whole."""
    draw(80, 96, 64).save(walls / "odd.png")
    with (walls / "index.csv").open("a", encoding="utf-8", newline="") as index:
        index.write('odd.png,Ann Other,"A ""Sea"",\r\nat\u2028noon",public domain\n')
    rows = curated(load_recipe(scans.recipe(tmp_path)), tmp_path)
    assert len(rows) == 7
    assert next(row["title"] for row in rows if row["object_id"] == "odd") == 'A "Sea", at noon'


def test_contact_sheet_shows_what_was_decided(walls: Path, tmp_path: Path) -> None:
    """One image and one page show every work, kept or rejected, with its reason and the line that overrules it."""
    add(walls, Image.new("RGB", (20, 20)), "small.png")
    images.truncated_jpeg(walls, name="torn.jpg")
    with (walls / "index.csv").open("a", encoding="utf-8") as index:
        index.write('torn.jpg,Bo Second,"<b>A ""Torn"" One</b>",public domain\n')
    curated(load_recipe(scans.recipe(tmp_path)), tmp_path)
    space = Workspace(tmp_path / "runs" / "pair")
    width, height = imaging.size_of(space.contact_sheet)
    assert width > 1000
    assert height > 200
    page = space.contact_page.read_text(encoding="utf-8")
    assert page.count("<li class=") == 8
    assert page.count("data:image/webp;base64,") == 7
    assert "too small: 20×20 pixels, at least 64 on the short side are needed" in page
    assert "<code>small,keep,</code>" in page
    assert "<code>ann-work-0,drop,</code>" in page
    assert "truncated or damaged" in page
    assert "<b>" not in page
    assert "Open: as far as the evidence goes" in page
    assert "No decisions file yet" in page


def test_line_of_the_contact_sheet_overrules(walls: Path, tmp_path: Path) -> None:
    """A line of the page, pasted into the decisions file, is applied when the recipe is run again."""
    add(walls, draw(50, 96, 64), "z.png")
    said = words(tmp_path)
    recipe = load_recipe(scans.recipe(tmp_path), [said])
    assert verdicts(curated(recipe, tmp_path))["z"].startswith("passed, but")
    words(tmp_path, "ann-work-0,drop,", "ann-work-1,keep,")
    rows = curated(recipe, tmp_path)
    assert next(row["reason"] for row in rows if row["object_id"] == "ann-work-1").endswith(": no reason given")
    again = verdicts(rows)
    assert again["z"] == "kept"
    assert again["ann-work-0"] == "dropped by the curator: no reason given"
    page = Workspace(tmp_path / "runs" / "pair").contact_page.read_text(encoding="utf-8")
    assert str(tmp_path / "words.csv") in page


def test_run_with_a_contact_sheet_is_up_to_date(walls: Path, tmp_path: Path) -> None:
    """The contact sheet belongs to curate: a second run does nothing, and a lost sheet is made again."""
    recipe = load_recipe(scans.recipe(tmp_path))

    def done() -> list[str]:
        heard: list[Event] = []
        pipeline.run(recipe, tmp_path / "runs", heard.append, until="curate")
        return [event.stage for event in heard if event.kind == "done"]

    assert done() == ["collect", "curate"]
    assert done() == []
    Workspace(tmp_path / "runs" / "pair").contact_sheet.unlink()
    assert done() == ["curate"]


def test_measures_and_acknowledgement_are_in_the_ledger(walls: Path, tmp_path: Path) -> None:
    """Each measure has its column; what was acknowledged is said of the works that are not open, and of no other."""
    index = walls / "index.csv"
    index.write_text(index.read_text(encoding="utf-8").replace("Work 1 of Ann Other,public domain", "W,in copyright"))
    rows = curated(load_recipe(scans.recipe(tmp_path), ["artists.0.rights=acknowledge-restricted"]), tmp_path)
    assert all(float(row["sharpness"]) > 0 and float(row["colour"]) > 0 for row in rows)
    assert {row["object_id"]: row["acknowledged"] for row in rows if row["acknowledged"] == "true"} == {
        "ann-work-1": "true"
    }


def test_grey_is_a_fault_of_paintings_alone(walls: Path, tmp_path: Path) -> None:
    """A picture without colour is rejected where the work is a painting, and kept where it is a drawing."""
    grey = draw(90, 300, 280).convert("L").convert("RGB")
    for name in ("a-paint.png", "a-draw.png"):
        grey.rotate(0 if name == "a-draw.png" else 180).save(walls / name)
    lines = ["file,artist,title,rights,classification"]
    lines += [
        f"{place}/work-{n}.png,{who},,CC0,"
        for place, who in (("ann", "Ann Other"), ("bo", "Bo Second"))
        for n in (1, 2)
    ]
    lines += ["a-paint.png,Ann Other,,CC0,Painting", "a-draw.png,Ann Other,,CC0,Drawing"]
    (walls / "index.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    overrides = ["artists.1.works=2", "curate.min_detail=0", "curate.max_margin=1.0", "curate.max_blocking=99.0"]
    found = verdicts(curated(load_recipe(scans.recipe(tmp_path), overrides), tmp_path))
    assert found["a-draw"] == "kept"
    assert found["a-paint"].startswith("without colour: colour 0.")
