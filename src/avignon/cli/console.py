"""How a run's events are shown: bars on a terminal, lines in a log, JSON for programs."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from avignon.core import events
from avignon.core.events import Event, Listener

PACE = 10.0
"""Seconds between two lines of progress in a log."""


@contextmanager
def console(quiet: bool, as_json: bool) -> Iterator[Listener]:
    """What shows the events of a run."""
    if as_json:
        yield lambda event: click.echo(json.dumps(events.event_record(event), ensure_ascii=False))
    elif quiet or not sys.stdout.isatty():
        yield _Lines(quiet).show
    else:
        bars = _Bars()
        with bars.progress:
            yield bars.show


class _Lines:
    """Plain lines, for a log: one at most every `PACE` seconds, besides a stage's start and end."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._started = self._shown = 0.0

    def show(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, events.StageStarted):
            self._started = self._shown = now
        if isinstance(event, events.StageWarning):
            click.echo(f"{event.stage}: warning: {event.text}", err=True)
        elif not self._quiet and not (isinstance(event, events.StageProgress) and now - self._shown < PACE):
            click.echo(f"{event.stage}: {self._line(event, now - self._started)}")
            self._shown = now

    def _line(self, event: Event, seconds: float) -> str:
        if isinstance(event, events.StageDone):
            return f"done in {seconds:.1f} s"
        if isinstance(event, events.StageProgress):
            left = seconds / max(event.done, 1) * (event.total - event.done)
            return f"{event.done}/{event.total}, about {left:.0f} s left; {event.text}"
        return event.text or event.kind


class _Bars:
    """A progress bar with rate and time left, on a terminal."""

    def __init__(self) -> None:
        from rich import progress  # Here, because it takes longer to load than a log's first line.

        self.progress = progress.Progress(
            progress.TextColumn("[bold]{task.fields[stage]:<9}"),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.description}", markup=False),
        )
        self._task: Any = None
        self._first = (0, 0.0)
        """Pieces done, and when, at the first event: a resumed stage starts in the middle."""

    def show(self, event: Event) -> None:
        from rich.text import Text

        if isinstance(event, events.StageNote | events.StageWarning | events.StageSkipped):
            style = "yellow" if isinstance(event, events.StageWarning) else "dim"
            self.progress.console.print(Text(f"{event.stage:<9} {event.text}", style=style))
        elif isinstance(event, events.StageStarted):
            self._task = self.progress.add_task("", total=None, stage=event.stage, rate="")
            self._first = (-1, 0.0)
        elif self._task is not None and isinstance(event, events.StageProgress):
            now = time.monotonic()
            if self._first[0] < 0 or event.done < self._first[0]:
                self._first = (event.done, now)
            pieces, seconds = event.done - self._first[0], now - self._first[1]
            rate = f"{pieces / seconds:.1f}/s" if seconds > 0 and pieces else ""
            text = event.text[:60]
            self.progress.update(self._task, total=event.total, completed=event.done, description=text, rate=rate)
        elif self._task is not None:
            total = self.progress.tasks[-1].total or 1
            self.progress.update(self._task, total=total, completed=total, description="done")
