"""Records in files: what is written is read back, under the names of today and of before."""

import json
from typing import Any

import pytest

from avignon.core.errors import WorkspaceError
from avignon.core.records import (
    SCHEMA,
    Frame,
    Series,
    Source,
    frame_from,
    frame_identity,
    frame_record,
    plain,
    series_from,
    series_record,
)

FRAME = Frame(
    scene="scene-1",
    stop="stop-2",
    prompt="a boat on the sea",
    negative_prompt="blurred",
    seed=4,
    num_inference_steps=30,
    guidance_scale=5.0,
    scheduler="ddim",
    width=64,
    height=48,
    weights={"homer": 0.5},
    base="0a",
    adapters={"homer": "0b"},
    precision="fp32",
    weight_schedule={"homer": (1.0, 0.5)},
    block_weights={"homer": {"mid": 0.5}},
    to_seed=9,
    seed_place=0.25,
    source=Source("sea.png", "0c", 0.6),
    denoiser_only=("homer",),
)
SERIES = Series(
    name="dialogue",
    scenes=("scene-1",),
    stops=("stop-2",),
    frames=(("scene-1/stop-2.png", FRAME),),
    placing={"gains": {"homer": 1.0}, "places": [0.0]},
    extras=(("scene-1/stop-2-seed-1004.png", FRAME),),
    base_parts={"scheduler": "0d"},
)


def through_json(fields: dict[str, Any]) -> dict[str, Any]:
    """What a file gives back."""
    read: dict[str, Any] = json.loads(json.dumps(fields))
    return read


def of_schema_1(frame: Frame) -> dict[str, Any]:
    """A frame as the version before wrote it: former names, no number."""
    fields = plain(frame)
    for old, new in (
        ("steps", "num_inference_steps"),
        ("guidance", "guidance_scale"),
        ("schedule", "weight_schedule"),
        ("blocks", "block_weights"),
    ):
        fields[old] = fields.pop(new)
    return fields


def test_frame_round_trip() -> None:
    """A frame with every field set is the same after it was written and read; the file states its schema."""
    assert all(getattr(FRAME, name) for name in Frame.__dataclass_fields__), "a new field belongs in here"
    record = through_json(frame_record(FRAME))
    assert record["schema"] == SCHEMA
    assert frame_from(record) == FRAME


def test_series_round_trip() -> None:
    """The same for a series, with its grid, its extras and what was measured for it."""
    record = through_json(series_record(SERIES))
    assert record["schema"] == SCHEMA
    assert series_from(record) == SERIES


def test_schema_1_is_read_by_its_former_names() -> None:
    """A frame and a series of the version before, which state no schema, are read under today's names."""
    assert frame_from(through_json(of_schema_1(FRAME))) == FRAME
    old = plain(SERIES) | {
        key: [(file, of_schema_1(frame)) for file, frame in getattr(SERIES, key)] for key in ("frames", "extras")
    }
    assert series_from(through_json(old)) == SERIES


def test_identity_of_a_frame_is_that_of_schema_1() -> None:
    """Hashes over frames keep the former names: a new name alone makes no picture anew."""
    assert frame_identity(FRAME) == of_schema_1(FRAME)


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, "2", None])
def test_unknown_schema_is_an_error(schema: Any) -> None:
    """A number that this version does not know stops it with a line that says what it reads."""
    line = f"has schema {schema!r}, but this version of avignon reads 1 to {SCHEMA}; use the version that wrote it"
    with pytest.raises(WorkspaceError, match=f"this frame {line}"):
        frame_from({**frame_record(FRAME), "schema": schema})
    with pytest.raises(WorkspaceError, match=f"this series {line}"):
        series_from({**series_record(SERIES), "schema": schema})
