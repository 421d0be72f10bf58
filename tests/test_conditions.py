"""Conditions of licences: carried from the index into everything that is made from an image."""

import csv
import io
import json
from pathlib import Path

import pytest

from avignon import pipeline
from avignon.adapters import cards
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.cli import main as cli
from avignon.core.errors import RightsError
from avignon.core.files import read_json, sha256_of
from avignon.core.png import png_rights
from avignon.core.records import Access, Rights, found_from, work_from
from avignon.core.workspace import Workspace
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Artist
from tests.support import scans
from tests.support.runs import small_recipe

SHARED = "attribution, share-alike (CC BY-SA 4.0)"
NAMED = "attribution (CC BY 4.0)"
UNPAID = "attribution, non-commercial (CC BY-NC 4.0)"


@pytest.fixture
def walls(tmp_path: Path) -> Path:
    """Three pictures of each of two artists; one of the first is under CC BY-SA, one of the second under CC BY-NC."""
    folder = scans.scans(tmp_path / "scans")
    index = folder / "index.csv"
    text = index.read_text(encoding="utf-8").replace("Work 1 of Ann Other,public domain", "Licensed,CC BY-SA 4.0")
    index.write_text(text.replace("Work 1 of Bo Second,public domain", "Unpaid,CC BY-NC 4.0"), encoding="utf-8")
    return folder


def curated(walls: Path, *artists: str) -> tuple[Workspace, dict[str, dict[str, str]]]:
    """A run as far as curate, with these rights of the artists, and its ledger by title."""
    overrides = [f"artists.{place}.rights={rights}" for place, rights in enumerate(artists)]
    space = pipeline.run(
        load_recipe(scans.recipe(walls.parent), overrides), walls.parent / "runs", lambda _: None, until="curate"
    )
    return space, {row["title"]: row for row in space.read_ledger()}


def test_non_commercial_does_not_pass_unacknowledged(walls: Path) -> None:
    """The gate stops at CC BY-NC where nobody has stated that they may use it, and says why; CC BY-SA passes."""
    with pytest.raises(RightsError, match=r"Bo Second: .* only 2 of 3 images are open.*CC BY-NC 4\.0"):
        curated(walls)


def test_ledger_and_contact_sheet_carry_the_condition(walls: Path) -> None:
    """Ledger, found.jsonl and contact sheet name the condition of an open and of an acknowledged image."""
    space, rows = curated(walls, "open-only", "acknowledge-restricted")
    assert (rows["Licensed"]["rights"], rows["Licensed"]["condition"]) == ("open", SHARED)
    assert (rows["Unpaid"]["rights"], rows["Unpaid"]["condition"]) == ("restricted", UNPAID)
    assert rows["Unpaid"]["acknowledged"] == "true"
    assert {row["condition"] for row in rows.values()} == {"", SHARED, UNPAID}
    assert {found.work.rights.condition for found in space.read_found()} == {"", SHARED, UNPAID}
    page = space.contact_page.read_text(encoding="utf-8")
    assert page.count(f"may be used under {SHARED}.") == page.count(f"names a condition: {UNPAID}.") == 1


def test_works_listing_and_decisions_carry_the_condition(
    walls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`avignon works` names it in its table, in CSV and JSON, and in a decisions file; it counts as open."""
    monkeypatch.setenv("COLUMNS", "400")

    def listed(*options: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["works", "Ann Other", "--folder", str(walls), "--open-only", *options])
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert f"open: {SHARED}" in listed()
    rows = list(csv.DictReader(io.StringIO(listed("--csv"))))
    assert [row["condition"] for row in rows if row["title"] == "Licensed"] == [SHARED]
    assert {row["rights"] for row in rows} == {"open"}
    works = [json.loads(line) for line in listed("--json").splitlines()]
    assert {found_from(work).work.rights.condition for work in works} == {"", SHARED}
    listed("--decisions", str(tmp_path / "ann.csv"))
    assert SHARED in (tmp_path / "ann.csv").read_text(encoding="utf-8")


def test_labels_say_what_a_licence_asks() -> None:
    """An open image with a condition is not called free; without one, the sentences are as they were."""
    assert Rights(Access.OPEN, "").label == Access.OPEN.sentence
    assert Rights(Access.OPEN, "", SHARED).label.startswith("Open with a condition: ")
    assert SHARED in Rights(Access.OPEN, "", SHARED).label
    assert (
        Rights(Access.UNKNOWN, "", NAMED).label == f"{Access.UNKNOWN.sentence} Its licence names a condition: {NAMED}."
    )


def test_records_without_a_condition_are_read() -> None:
    """A run of the version before has no such field; its works have no condition."""
    fields = {"museum": "m", "object_id": "1", "artist": "a", "title": "t", "image_url": "u", "terms": []}
    assert work_from({**fields, "rights": {"access": "open", "evidence": "e"}}).rights == Rights(Access.OPEN, "e", "")


def row(access: str, condition: str = "", artist: str = "Winslow Homer") -> dict[str, str]:
    """An artist's kept work in the ledger, under these rights."""
    return {"artist": artist, "decision": "kept", "rights": access, "condition": condition}


def test_card_counts_conditions_and_its_notice_goes_with_pictures(tmp_path: Path) -> None:
    """A card counts works per condition, its sentence names them, and a picture says so though all works are open."""
    homer = Artist(name="Winslow Homer", works=2, trigger="homer")
    told = cards.rights_of([homer], [row("open", SHARED), row("open", SHARED), row("open", NAMED), row("open")])
    assert told["conditions"] == {SHARED: 2, NAMED: 1}
    assert told["statement"].startswith("All 4 training images are open, some with a condition. 3 of 4 ")
    assert cards.notice_from(told) == told["statement"]
    picasso = Artist(name="Pablo Picasso", works=2, trigger="picasso", rights="acknowledge-restricted")
    mixed = cards.rights_of([picasso], [row("restricted", UNPAID, picasso.name), row("open", "", picasso.name)])
    assert mixed["statement"].startswith("1 of 2 training images are not known to be free to use.")
    assert UNPAID in cards.notice_from(mixed)
    of_before = {"artist": homer.name, "decision": "kept", "rights": "open"}
    plain = cards.rights_of([homer], [row("open"), of_before])
    assert (plain["conditions"], cards.notice_from(plain)) == ({}, "")
    assert cards.notice_from({"open": 2, "restricted": 0, "unknown": 0, "statement": "All."}) == ""  # of before


@pytest.mark.slow
def test_pictures_card_and_page_carry_the_condition_and_follow_a_change(tmp_path: Path, tiny_sd: Path) -> None:
    """A series made from CC BY-SA works says so everywhere; where the index then says CC BY, so does all, untrained."""
    settings = {
        "train": {"steps": 1},
        "generate": {"stops": 2, "num_inference_steps": 1, "scenes": [{"prompt": "a boat"}]},
    }
    recipe = small_recipe(tmp_path, tiny_sd, rights="CC BY-SA 4.0", works=2, exhibit={"films": ["grid"]}, **settings)
    space = pipeline.run(recipe, tmp_path / "runs", lambda _: None)
    assert_carried(space, SHARED)
    before = [sha256_of(space.adapter(name) / WEIGHTS_FILE) for name in recipe.adapter_names]
    trained = [read_json(space.adapter(name) / "card.json")["metrics"] for name in recipe.adapter_names]

    index = tmp_path / "scans" / "index.csv"
    index.write_text(index.read_text(encoding="utf-8").replace("CC BY-SA", "CC BY"), encoding="utf-8")
    pipeline.run(recipe, tmp_path / "runs", lambda _: None)
    assert_carried(space, NAMED)
    assert before == [sha256_of(space.adapter(name) / WEIGHTS_FILE) for name in recipe.adapter_names]
    assert trained == [read_json(space.adapter(name) / "card.json")["metrics"] for name in recipe.adapter_names]


def assert_carried(space: Workspace, condition: str) -> None:
    """Dataset, cards, pictures, film and page name this condition, and not the other."""
    other = SHARED if condition == NAMED else NAMED
    adapted = list(space.series.rglob("stop-*.png"))
    assert len(adapted) == 2
    assert all(condition in png_rights(path) for path in (*adapted, space.films / "grid.png"))
    assert png_rights(space.series / "scene-1" / "base.png") == ""
    for text in (*space.adapters.rglob("README.md"), *space.adapters.rglob("card.json"), space.page, space.ledger):
        assert condition in text.read_text(encoding="utf-8")
        assert other not in text.read_text(encoding="utf-8")
    for metadata in space.dataset.rglob("metadata.jsonl"):
        lines = metadata.read_text(encoding="utf-8").splitlines()
        assert {json.loads(line)["rights"] for line in lines} == {f"open: {condition}"}
    page = space.page.read_text(encoding="utf-8")
    assert page.count("Licences on this wall set a condition") == 2
    assert "Open with a condition:" in page
