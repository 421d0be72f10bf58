"""What a run tells while it works: one class per kind of event; the command line and other programs listen."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """Something happened in a stage."""

    kind: ClassVar[str]
    """Names the class in JSON; it stays when a class gets another name."""
    stage: str
    text: str = ""
    """One line for people; may be empty."""


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage begins."""

    kind = "start"


@dataclass(frozen=True)
class StageProgress(Event):
    """`done` of `total` pieces of a stage's work are finished."""

    kind = "progress"
    done: int = 0
    total: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
    """Measurements at this point, JSON-ready, e.g. the training's losses."""


@dataclass(frozen=True)
class StageNote(Event):
    """A fact worth a line."""

    kind = "note"


@dataclass(frozen=True)
class StageWarning(Event):
    """Something the user should look at, though work goes on."""

    kind = "warning"


@dataclass(frozen=True)
class StageDone(Event):
    """A stage has ended well."""

    kind = "done"


@dataclass(frozen=True)
class StageSkipped(Event):
    """A stage is up to date."""

    kind = "skipped"
    text: str = "up to date"


Listener = Callable[[Event], None]

KINDS = {each.kind: each for each in (StageStarted, StageProgress, StageNote, StageWarning, StageDone, StageSkipped)}


def event_record(event: Event) -> dict[str, Any]:
    """An event as JSON has it: the same keys for all kinds."""
    return {"stage": "", "kind": event.kind, "text": "", "done": 0, "total": 0, "data": {}} | dataclasses.asdict(event)


def event_from(record: Mapping[str, Any]) -> Event:
    """The inverse of `event_record`; a `KeyError` where a key is missing, or there is no such kind."""
    kind = KINDS[record["kind"]]
    return kind(**{each.name: record[each.name] for each in dataclasses.fields(kind)})


@dataclass(frozen=True)
class Reporter:
    """How a stage reports: bound to its name, so that stages say only what happened."""

    stage: str
    listener: Listener

    def note(self, text: str) -> None:
        """A fact worth a line."""
        self.listener(StageNote(self.stage, text))

    def warn(self, text: str) -> None:
        """Something the user should look at, though work goes on."""
        self.listener(StageWarning(self.stage, text))

    def progress(self, done: int, total: int, text: str = "", **data: Any) -> None:
        """`done` of `total` pieces of work are finished."""
        self.listener(StageProgress(self.stage, text, done, total, data))
