"""What a stage says while it works; the command line and programs listen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """What a stage says while it works; the command line and programs listen."""

    stage: str
    kind: str
    """`start`, `progress`, `note`, `warning`, `done` or `skipped`."""
    text: str = ""
    done: int = 0
    total: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reporter:
    """How a stage speaks: bound to its name, so that stages say only what happened."""

    stage: str
    listener: Callable[[Event], None]

    def note(self, text: str) -> None:
        """A fact worth a line."""
        self.listener(Event(self.stage, "note", text))

    def warn(self, text: str) -> None:
        """Something the user should look at, though work goes on."""
        self.listener(Event(self.stage, "warning", text))

    def progress(self, done: int, total: int, text: str = "", **data: Any) -> None:
        """`done` of `total` pieces of work are finished."""
        self.listener(Event(self.stage, "progress", text, done, total, data))
