"""exhibit: what hangs on the page, what is said of it, and that nothing on the page can act or reach out."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from avignon.core import pages
from avignon.core.errors import ImageError, WorkspaceError
from avignon.core.events import Event, Reporter, StageProgress
from avignon.core.files import read_json, write_json
from avignon.core.records import Frame
from avignon.evaluation import report as reports
from avignon.exhibition import build
from avignon.stages import exhibit
from tests.support.exhibition import (
    NASTY,
    SEA,
    STATEMENT,
    TABLE,
    Reader,
    hang,
    hang_all,
    ledger,
    recipe_of,
    save,
    series_of,
    shown,
)
from tests.support.images import truncated_jpeg


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The page of the plain run."""
    return shown(recipe_of(), tmp_path_factory.mktemp("run"))


def pictures() -> Iterator[tuple[str, Frame]]:
    """Every picture's anchor, and its frame."""
    for _, frame in series_of(recipe_of()).frames:
        yield f"picture-{frame.scene[-1]}-{0 if frame.stop == 'base' else frame.stop[-1]}", frame


def test_curves_stay_inside_their_bands(page: Reader) -> None:
    """A place far outside the way is drawn at the edge, and flattens no other curve."""
    curves = {line["class"]: line["points"] for line in page.all("polyline")}
    colour, combined = ([float(point.split(",")[1]) for point in curves[by].split()] for by in ("colour", "combined"))
    assert colour == [1.0, 0.5, 0.0]
    assert max(combined) - min(combined) == pytest.approx(0.25 / 2, abs=1e-3)


def test_nothing_from_a_table_becomes_markup(page: Reader) -> None:
    """Titles, artists, reasons, prompts, captions and notes with markup in them are text, and are all there."""
    assert len(page.all("script")) == 1
    for place in ("work-2", "work-3", "wall-table-script-alert-1-script-son", "picture-1-1", "making"):
        assert NASTY in page.text(place), place
    assert page.all("h1")
    assert any(NASTY in fields["alt"] for fields in page.all("img"))


def test_the_page_reaches_out_to_nothing(page: Reader) -> None:
    """Every image is inside the page; the only addresses are museums' object pages, which a visitor may follow."""
    assert all(fields["src"].startswith("data:image/webp;base64,") for fields in page.all("img") if "src" in fields)
    assert not page.all("link")
    assert all("src" not in fields for fields in page.all("script"))
    outside = [fields["href"] for fields in page.all("a") if not fields["href"].startswith(("#", "../series/"))]
    assert outside == ["https://museum.test/1?a=1&b=2"]
    assert not any("url(" in fields.get("style", "") for _, fields in page.elements)


def test_the_browser_is_told_to_stay_at_home(page: Reader) -> None:
    """The content security policy allows the page's own script by its hash, inlined images, and nothing else."""
    policy = next(f["content"] for f in page.all("meta") if f.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}='", policy)


def test_the_script_is_the_one_the_policy_names(tmp_path: Path) -> None:
    """The hash in the policy is that of the script's bytes; else a browser would refuse to run it."""
    space = hang(recipe_of(), tmp_path)
    exhibit.run(recipe_of(), space, Reporter("exhibit", lambda event: None))
    html = space.page.read_text(encoding="utf-8")
    script = html.partition("<script>")[2].partition("</script>")[0]
    assert pages.script_fingerprint(script) in html


def test_every_kept_work_has_a_wall_label(page: Reader) -> None:
    """Artist, title, date, medium, credit, number, rights in plain words with their evidence, and what was learned."""
    label = page.text("work-1")
    for words in (SEA, "Work 1", "1873-1876", "oil", "Gift of W. L.", "1943.13.1", "openaccess=1; case 1"):
        assert words in label
    assert "Open: as far as the evidence goes" in label
    assert "caption of 1" in label
    assert "60 × 60 pixels at 10, 0" in label
    assert "object 2" in page.text("work-2")
    assert "kept by the curator" in page.text("work-7")


def test_label_reads_as_people_do(page: Reader) -> None:
    """The museum's name instead of the ledger's short word, the title without marks, and an image added by hand."""
    label = page.text("work-7")
    assert "Art Institute of Chicago, T.7" in label
    assert "artic" not in label
    assert "Work 7 & more, 1873-1876" in label
    assert "this image was added by hand" in label
    assert "by hand" not in page.text("work-5")


def test_ledger_of_the_version_before_is_shown(tmp_path: Path) -> None:
    """A ledger without the column for images added by hand is read as one that has none."""
    space = hang(recipe_of(), tmp_path)
    with space.ledger.open(encoding="utf-8", newline="") as file:
        rows = [{key: value for key, value in each.items() if key != "by_hand"} for each in csv.DictReader(file)]
    with space.ledger.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    exhibit.run(recipe_of(), space, Reporter("exhibit", lambda event: None))
    assert "by hand" not in Reader(space.page.read_text(encoding="utf-8")).text("work-7")


def test_what_is_not_open_is_marked_and_stated(page: Reader) -> None:
    """Restricted and unknown works say so on their labels, and their wall carries what was acknowledged."""
    assert "Restricted: this image has not been released" in page.text("work-5")
    assert "the museum sends no larger image" in page.text("work-5")
    assert "Rights unknown: nothing shows" in page.text("work-6")
    assert "Evidence: none" in page.text("work-6")
    wall = page.text("wall-table-script-alert-1-script-son")
    assert "2 of the 3 images on this wall are not open" in wall
    assert STATEMENT in wall
    assert "not open" not in page.text("wall-the-sea-painter")


def test_what_is_not_open_is_shown_small(tmp_path: Path) -> None:
    """No copy of a restricted image larger than needed for study goes into the page."""
    space = hang(recipe_of(), tmp_path)
    for number in (1, 5):
        save(space.root / f"works/a/{number}.jpg", (2000, 1500))
    exhibit.run(recipe_of(), space, Reporter("exhibit", lambda event: None))
    widths = {
        f["alt"][:6]: int(f["width"])
        for f in Reader(space.page.read_text()).all("img")
        if "alt" in f and f["alt"].startswith("Work")
    }
    assert widths["Work 1"] == build.WALL_EDGE
    assert widths["Work 5"] == build.STUDY_EDGE


def test_every_rejected_work_has_its_reason(page: Reader) -> None:
    """Works that do not hang are listed with title and reason, whether or not their image exists or can be read."""
    rejected = [each for each in ledger(recipe_of()) if each["decision"] == "rejected"]
    assert len(rejected) == 4
    for each in rejected:
        line = page.text(f"work-{each['object_id']}")
        assert each["title"] in line
        assert each["reason"] in line
        assert "What the model saw" not in line


def test_every_picture_says_how_it_was_made(page: Reader) -> None:
    """Prompt, negative prompt, seed, settings, the weight of every adapter, and what was measured."""
    for anchor, frame in pictures():
        panel = page.text(anchor)
        for words in (frame.prompt, "watermark", f"Seed{frame.seed}", "Steps30", "Guidance7.5", "dpm++", "bf16"):
            assert words in panel, (anchor, words)
        for name, weight in zip((SEA, TABLE), frame.weights.values(), strict=False):
            assert f"{name} {weight:.2f}" in panel
        assert ("12.3 of 255 grey levels" in panel) == bool(frame.weights)
        assert f"Distance from {SEA}2.60: colour 3.21, brushwork 2.50, geometry 1.75" in panel


def test_a_picture_leads_back_to_its_works(page: Reader) -> None:
    """Picture, adapter, dataset, works with accession numbers; every link on the page has a place to arrive at."""
    panel = page.text("picture-2-1")
    for words in ("the-sea-pain", "0.589 %", "1200 steps", "7 images", "da7ada7ada7a", "Work 1, 1943.13.1"):
        assert words in panel
    assert "T.5" not in panel, "an adapter of weight 0 is not in the picture"
    assert "T.5" in page.text("picture-2-2")
    assert "no adapter was at work" in page.text("picture-2-0")
    ids = [fields["id"] for _, fields in page.elements if "id" in fields]
    assert len(ids) == len(set(ids))
    assert {f["href"][1:] for f in page.all("a") if f["href"].startswith("#")} <= set(ids)


def test_no_picture_passes_for_a_painters_work(page: Reader) -> None:
    """The statement stands in the dialogue, beside every picture, in every alternative text, and in the markup."""
    assert "were made by a trained model; no painter made them" in page.text("dialogue")
    for anchor, _ in pictures():
        assert "Made by a trained model; no painter made it." in page.text(anchor)
    made = [f["alt"] for f in page.all("img") if f.get("alt") and "Prompt:" in f["alt"]]
    assert len(made) == 8 + 8 + 3  # grid, panels, and the ribbon above the title
    assert all(alt.startswith("Picture made by a trained model, not by a painter.") for alt in made)
    assert sum(f.get("data-digital-source-type") == "trainedAlgorithmicMedia" for f in page.all("figure")) == 8 + 2


def test_the_full_pictures_are_linked(tmp_path: Path) -> None:
    """Every picture links to its PNG in the series' folder, by a path that exists beside the page."""
    reader = shown(recipe_of(), tmp_path)
    links = {f["href"] for f in reader.all("a") if f["href"].startswith("../series/")}
    assert len(links) == 8
    assert all((tmp_path / "exhibition" / link).resolve().is_file() for link in links)


def test_no_path_of_this_machine_is_shown(tmp_path: Path) -> None:
    """The cards hold the whole recipe; where the user's folders are is nobody's business."""
    reader = shown(recipe_of(museum={"kind": "folder", "path": "/home/someone/scans"}), tmp_path)
    assert "/home/someone" not in " ".join(reader.texts.values())


def test_one_adapter_for_all_artists(tmp_path: Path) -> None:
    """In joint mode every picture leads back to the works of all artists."""
    reader = shown(recipe_of(train={"mode": "joint"}), tmp_path)
    assert "T.5" in reader.text("picture-1-1")
    assert "1943.13.1" in reader.text("picture-1-1")
    assert STATEMENT in reader.text("wall-table-script-alert-1-script-son")


def test_three_artists_and_an_adapter_from_outside(tmp_path: Path) -> None:
    """Weights by hand may leave adapters out or bring in one without a card: it is shown, and said to be unrecorded."""
    artists = [*recipe_of().model_dump()["artists"], {"name": "Third", "works": 1, "trigger": "x"}]
    weights = [{"the-sea-painter": 1.0}, {"the-sea-painter": 0.5, "far": -0.25}]
    generate = recipe_of().generate.model_dump() | {"weights": weights, "adapters": {"far": "/elsewhere"}}
    reader = shown(recipe_of(artists=artists, generate=generate), tmp_path)
    assert "far -0.25" in reader.text("picture-1-2")
    assert "far 0.00" in reader.text("picture-1-1")
    assert "no record of what it was trained on" in reader.text("picture-1-2")
    assert "no record of what it was trained on" in reader.text("adapter-far")
    assert "Third" in reader.text("wall-third")


@pytest.mark.parametrize("size", [64, 128, 512])
def test_pictures_keep_their_size(size: int, tmp_path: Path) -> None:
    """Large copies have all the pixels of the picture, at any resolution of the base; small ones at most the grid's."""
    reader = shown(recipe_of(base={"model": "embedded", "resolution": size}), tmp_path)
    large = [f for f in reader.all("img") if f.get("class") == "large"]
    assert {(f["width"], f["height"]) for f in large} == {(str(size), str(size))}
    assert max(int(f["width"]) for f in reader.all("img") if "width" in f and f not in large) <= max(
        build.GRID_EDGE, 80
    )


def test_a_kept_work_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A damaged file is excused for a rejected work only; a wall with an empty frame would mislead."""
    space = hang(recipe_of(), tmp_path)
    truncated_jpeg(space.root / "works/a", name="1.jpg")
    with pytest.raises(ImageError, match=r"1\.jpg"):
        exhibit.run(recipe_of(), space, Reporter("exhibit", lambda event: None))
    assert not space.page.exists()


def test_seed_differences(tmp_path: Path, page: Reader) -> None:
    """With extras a table says how various pictures are, beside the base; extras that may copy are linked, not hung."""
    recipe = recipe_of()
    space = hang_all(recipe, tmp_path)
    exhibit.run(recipe, space, Reporter("exhibit", lambda event: None))
    hung = Reader(space.page.read_text(encoding="utf-8"))
    room = hung.text("dialogue")
    assert "Each scene with 3 seeds" in room
    assert "In the mean of 3 seeds 1 of 2 scenes never turn back; of the 6 single rows, 2." in room
    assert "Base0.501.2540" in room.replace(" ", "")
    assert "Stop10.50(42%)1.2540(80%)" in room.replace(" ", "")
    assert "Stop30.50(100%)1.25(100%)40(100%)" in room.replace(" ", "")
    assert "1 may copy a training image: scene-1/base-seed-5001.png" in room
    assert "../series/scene-1/base-seed-5001.png" in [fields["href"] for fields in hung.all("a")]
    assert "seeds: how much" not in page.text("dialogue")


def test_progress_ends_where_it_said(tmp_path: Path) -> None:
    """Each work and each picture is one step, and the last step is the total."""
    events: list[Event] = []
    exhibit.run(recipe_of(), hang(recipe_of(), tmp_path), Reporter("exhibit", events.append))
    steps = [(event.done, event.total) for event in events if isinstance(event, StageProgress)]
    assert steps == [(n, 17) for n in range(1, 18)]


def test_copies_are_marked(tmp_path: Path) -> None:
    """A picture that the report flags is marked in the grid, named below it, and shown beside the training image."""
    recipe = recipe_of()
    space = hang_all(recipe, tmp_path)
    exhibit.run(recipe, space, Reporter("exhibit", lambda event: None))
    reader = Reader(space.page.read_text(encoding="utf-8"))
    assert "a copy?" in reader.text("cell-picture-1-1")
    assert "1 picture may copy a training image: scene 1, stop 1." in reader.text("dialogue")
    assert "This may be a copy." in reader.text("picture-1-1")
    assert "Score 0.70; from 0.50 on a picture is flagged." in reader.text("picture-1-1")
    assert "No copy was found." in reader.text("picture-1-2")
    assert "Copy check" not in reader.text("picture-2-1"), "its image is not of this run"


def test_a_report_of_another_schema_is_refused(tmp_path: Path) -> None:
    """Neither an older report nor a damaged one becomes a page: one line says which file, and what to do."""
    space = hang(recipe_of(), tmp_path)
    fields = read_json(space.report)
    for changes, said in (
        ({"schema": 4}, f"has schema 4, needed is {reports.SCHEMA}; delete it and run again"),
        ({"frames": [{}]}, "damaged; delete it"),
        ({"overall": None}, "damaged; delete it"),
    ):
        write_json(space.report, {**fields, **changes})
        with pytest.raises(WorkspaceError, match=rf"report\.json: {said}"):
            exhibit.run(recipe_of(), space, Reporter("exhibit", lambda event: None))
