"""Checkpoints of a training: whole or not there, the newest few kept, a damaged one passed over.

A checkpoint is a zip file (torch's format), in which each part has a checksum.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from avignon.core.errors import WorkspaceError
from avignon.core.files import digest, replacing

State = dict[str, Any]


class Checkpoints:
    """The checkpoints of one job in one folder."""

    def __init__(self, folder: Path, job: Mapping[str, str], keep: int, last: int) -> None:
        """Where they lie, whose they are, how many are kept while it trains, and the last step that is wanted."""
        self._folder, self._job, self._keep, self._last = folder, dict(job), keep, last

    @property
    def key(self) -> str:
        """What tells the job from all others."""
        return digest(self._job)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` steps."""
        with replacing(self._path(step)) as scratch:
            try:
                torch.save({"job": self._job, "step": step, **state}, scratch)
            except RuntimeError as refused:  # What torch makes of a full disk.
                raise WorkspaceError(
                    f"{self._path(step)}: cannot be written ({str(refused).splitlines()[0]}); what was done so far is "
                    "kept: free some space and run again"
                ) from refused

    def prune(self, step: int) -> None:
        """Keep the newest up to `step` alone: later ones are of a time before the jobs went back to a common step."""
        kept = [path for path in self._newest_first() if path <= self._path(step)][: self._keep]
        for path in self._newest_first():
            if path not in kept:
                path.unlink()

    def steps(self) -> set[int]:
        """The steps of which there is a file, sound or not."""
        return {step for path in self._newest_first() if (step := _step_of(path)) <= self._last}

    def at(self, step: int) -> State | None:
        """The state after so many steps; None where it is damaged or of another job."""
        state = _read(self._path(step))
        return None if state is None or self._differences(state["job"]) else state

    def newest(self) -> tuple[State | None, list[str]]:
        """The newest sound state, and a line about each file that was passed over.

        Those of another job, or beyond the last step wanted, are set aside, not deleted: the lines say why.
        """
        told: list[str] = []
        for path in self._newest_first():
            state = _read(path)
            if state is None:
                told.append(f"{path}: damaged; the one before it is used if there is one")
            elif differences := self._differences(state["job"]):
                place = self._set_aside(path, state["job"])
                told.append(f"{place}: belongs to another job ({', '.join(differences)}) and was set aside")
            elif _step_of(path) > self._last:
                place = self._set_aside(path, state["job"])
                told.append(f"{place}: beyond the last step wanted, {self._last}, and was set aside")
            else:
                return state, told
        return None, told

    def clear(self, *, keep_last: bool) -> None:
        """Delete the checkpoints of a job that is done, all or all but the last one; what was set aside stays."""
        for path in self._newest_first()[1 if keep_last else 0 :]:
            path.unlink()

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:07}.pt"

    def _newest_first(self) -> list[Path]:
        return sorted(self._folder.glob(f"step-{'[0-9]' * 7}.pt"), reverse=True)

    def _differences(self, other: Mapping[str, str]) -> list[str]:
        return [f"different {key}" for key in {**self._job, **other} if self._job.get(key) != other.get(key)]

    def _set_aside(self, path: Path, job: Mapping[str, str]) -> Path:
        place = path.parent / "set-aside" / f"{path.stem}-{digest(job)[:8]}.pt"
        place.parent.mkdir(exist_ok=True)
        return path.replace(place)


def common(jobs: Sequence[Checkpoints]) -> list[State | None]:
    """Each job's state of the newest step of which all have a sound one; None of each where there is no such step.

    Jobs that are in step save one after the other, and a run may be killed in between.
    """
    for step in sorted(set.intersection(*(job.steps() for job in jobs)), reverse=True):
        states = [job.at(step) for job in jobs]
        if None not in states:
            return states
    return [None] * len(jobs)


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _read(path: Path) -> State | None:
    """A checkpoint whose every part has the checksum that it was written with; None if it has not."""
    try:
        with zipfile.ZipFile(path) as parts:
            if parts.testzip() is not None:
                return None
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError, zipfile.BadZipFile):
        return None
    sound = isinstance(state, dict) and isinstance(state.get("job"), dict) and isinstance(state.get("step"), int)
    return state if sound else None
