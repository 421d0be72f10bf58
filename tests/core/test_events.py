"""Events: one class per kind, the same in JSON and back."""

import json
from collections.abc import Callable

import pytest

from avignon.core import events
from avignon.core.events import Event, Reporter, StageDone, StageProgress, StageSkipped, StageStarted

EVENTS = (
    StageStarted("train"),
    StageProgress("train", "Homer: loss 0.1", 3, 8, {"loss": {"homer": 0.1}}),
    events.StageNote("train", "going on at step 4"),
    events.StageWarning("collect", "a “warning”\nof two lines"),
    StageDone("train"),
    StageSkipped("curate"),
)


def test_every_kind_is_tried() -> None:
    """Each class has a kind of its own, and is tried below."""
    assert {type(event) for event in EVENTS} == set(events.KINDS.values()) == set(Event.__subclasses__())
    assert [event.kind for event in EVENTS] == list(events.KINDS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_events_come_back_from_json(event: Event) -> None:
    """What is read back is what was sent, of the same class."""
    text = json.dumps(events.event_record(event), allow_nan=False)
    assert events.event_from(json.loads(text)) == event


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_json_has_the_keys_that_programs_read(event: Event) -> None:
    """`--json` has the same six keys for every kind, as in avignon 0.1.0."""
    record = events.event_record(event)
    assert list(record) == ["stage", "kind", "text", "done", "total", "data"]
    assert (record["kind"], record["text"]) == (event.kind, event.text)


def test_kinds_are_stable() -> None:
    """Programs tell events apart by these words."""
    assert list(events.KINDS) == ["start", "progress", "note", "warning", "done", "skipped"]


def test_unknown_kind_is_refused() -> None:
    """A kind that there is not is an error, not another event."""
    with pytest.raises(KeyError, match="paused"):
        events.event_from({"stage": "train", "kind": "paused", "text": ""})


@pytest.mark.parametrize(
    ("report", "event"),
    [
        (lambda reporter: reporter.note("text"), events.StageNote("train", "text")),
        (lambda reporter: reporter.warn("text"), events.StageWarning("train", "text")),
        (
            lambda reporter: reporter.progress(1, 2, "text", loss=0.5),
            StageProgress("train", "text", 1, 2, {"loss": 0.5}),
        ),
    ],
)
def test_reporter_is_bound_to_its_stage(report: Callable[[Reporter], None], event: Event) -> None:
    """What a stage reports is an event of its own."""
    heard: list[Event] = []
    report(Reporter("train", heard.append))
    assert heard == [event]
