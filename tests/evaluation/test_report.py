"""The report as a file: what is written is read back, and its numbers are those of the version before."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from avignon.core.errors import WorkspaceError
from avignon.core.events import Reporter
from avignon.core.files import json_value
from avignon.core.records import plain
from avignon.core.workspace import Workspace
from avignon.evaluation import report as reports
from avignon.recipe.load import load_recipe
from avignon.stages import evaluate
from tests.support.exhibition import hang_all, recipe_of
from tests.support.paths import FIXTURES
from tests.support.runs import carried

Fields = Mapping[str, Any]


def course(old: Fields) -> dict[str, Any]:
    """A course of schema 4 under its new names (docs/REPORT.md has the map)."""
    same = {name: old[name] for name in ("distance", "monotone", "neighbour_distance")}
    return {**same, "position": old["way"], "step_ratio": old["spread"]}


def frame(old: Fields) -> dict[str, Any]:
    """A picture of schema 4 under its new names."""
    renamed = {"scene_kept": "composition_similarity", "way": "position"}
    return {renamed.get(name, name): value for name, value in old.items()}


def scene(old: Fields) -> dict[str, Any]:
    """A scene of schema 4 under its new names."""
    over = old["over_seeds"]
    return {
        "scene": old["scene"],
        "neighbour_change": old["neighbour_change"],
        "course": course(old),
        "seed_difference": old["seeds"],
        "over_seeds": {
            "seed_count": over["seeds"],
            "monotone_seed_count": over["monotone_seeds"],
            "course": course(over),
        },
    }


def renamed(old: Fields) -> dict[str, Any]:
    """A report of schema 4 under its new names."""
    whole = old["whole"]
    return {
        "schema": reports.SCHEMA,
        **{name: old[name] for name in ("series", "ends", "units", "encoder", "copy_threshold", "placing", "notes")},
        "artist_position_std": old["own_spread"],
        "copy_count": old["copies"],
        "overall": {
            "course": course(whole),
            "monotone_scene_share": whole["monotone_scenes"],
            "monotone_row_share": whole["monotone_rows"],
            "scene_diversity": whole["diversity"],
            "base_distance": whole["base_distance"],
            "seed_difference": {
                stop: {"difference": own["apart"], "share_of_base": own["of_base"]}
                for stop, own in whole["seeds"].items()
            },
        },
        "scenes": [scene(each) for each in old["scenes"]],
        "frames": [frame(each) for each in old["frames"]],
        "extras": [frame(each) for each in old["extras"]],
    }


def numbers(value: Any, place: str = "") -> dict[str, Any]:
    """Every leaf of a JSON value by the way to it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {place: value}
    return {place: type(value)} | {k: v for key, own in items for k, v in numbers(own, f"{place}.{key}").items()}


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", ["finished-run", "finished-run-2"])
def test_numbers_are_those_of_the_version_before(name: str, tmp_path: Path) -> None:
    """Of the same pictures, each number of a report that avignon 0.1.0 wrote is in the new one, under its new name."""
    shutil.copytree(FIXTURES / name / "workspace/dialogue", tmp_path / "dialogue")
    space = Workspace(tmp_path / "dialogue")
    expected = numbers(renamed(json_value(space.report.read_text(encoding="utf-8"))))
    evaluate.run(load_recipe(FIXTURES / name / "dialogue.toml"), space, Reporter("evaluate", lambda _: None))
    measured = numbers(json_value(space.report.read_text(encoding="utf-8")))
    assert measured.keys() == expected.keys()
    for place, value in expected.items():
        same = value if isinstance(value, str | bool | type | None) else pytest.approx(value, abs=0.002)
        assert measured[place] == same, place


@pytest.mark.slow
def test_report_of_the_version_before_is_measured_again(tmp_path: Path) -> None:
    """A run that avignon 0.1.0 finished gets a new report and page, once; nothing else is made again."""
    shutil.copytree(FIXTURES / "finished-run", tmp_path / "kept")
    recipe = load_recipe(tmp_path / "kept" / "dialogue.toml")
    space, events = carried(recipe, tmp_path / "kept" / "workspace", "exhibit")
    assert {event.stage for event in events if event.kind == "progress"} == {"evaluate", "exhibit"}
    assert reports.read(space.report).series == "dialogue"
    assert space.page.is_file()
    _, again = carried(recipe, tmp_path / "kept" / "workspace", "exhibit")
    assert [event.kind for event in again] == ["skipped"] * 7


def test_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every field survives the file, and the file is the record's fields and the schema's number."""
    written = reports.read(hang_all(recipe_of(), tmp_path).report)
    reports.write(tmp_path / "again.json", written)
    assert reports.read(tmp_path / "again.json") == written
    fields = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    assert fields == json.loads(json.dumps({"schema": reports.SCHEMA, **plain(written)}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "damaged; delete it"),
        ("[]", "damaged; delete it"),
        ("{}", "damaged; delete it"),
        (json.dumps({"schema": reports.SCHEMA}), "damaged; delete it"),
        ('{"schema": 4, "whole": {}}', f"has schema 4, needed is {reports.SCHEMA}; delete it and run again"),
    ],
)
def test_damaged_and_older_reports_are_named(text: str, said: str, tmp_path: Path) -> None:
    """One line names the file and says what to do."""
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WorkspaceError, match=f"report.json: {said}"):
        reports.read(path)
