"""The pictures of a series that are there already, by what they say of themselves."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from avignon.core import png
from avignon.core.errors import WorkspaceError
from avignon.core.events import Reporter
from avignon.core.files import json_text, json_value, read_json
from avignon.core.records import Frame, Series, frame_from, frame_record, plain
from avignon.core.workspace import Workspace
from avignon.models.base import DiffusionBase


class FinishedPictures:
    """Pictures of this version and of avignon 0.1.0, in one run's folder."""

    def __init__(self, space: Workspace, base: DiffusionBase) -> None:
        self.space, self._base = space, base

    def missing(self, series: Series) -> set[int]:
        """Places of the pictures that are not there, or not as asked for."""
        return {place for place, picture in enumerate(series.pictures) if not self._is_finished(*picture)}

    def _is_finished(self, file: str, frame: Frame) -> bool:
        """Whether the picture is there and carries this very frame; one by a newer avignon is a `WorkspaceError`."""
        path = self.space.series / file
        fields = png.png_fields(path)
        try:
            return fields is not None and any(_holds(fields, one) for one in self.as_ever_named(frame))
        except WorkspaceError as newer:
            raise WorkspaceError(f"{path}: {newer}") from None

    def as_ever_named(self, frame: Frame) -> Iterator[Frame]:
        """A frame, and the same as avignon 0.1.0 wrote it, which knew the base by one file."""
        yield frame
        yield from (replace(frame, base=name) for name in sorted(self._base.earlier_names))

    def tell_changes(self, series: Series, missing: int, reporter: Reporter) -> None:
        """Say which parts of the base made the pictures of the last run other than those asked for now."""
        known = read_json(self.space.series_index) if self.space.series_index.exists() else {}
        parts = known.get("base_parts", {})
        changed = [part for part, hashed in series.base_parts.items() if parts.get(part, hashed) != hashed]
        if changed and missing:
            names = ", ".join(changed)
            reporter.note(f"the base has a different {names} than in the last run: {missing} pictures to make")


def _holds(fields: Mapping[str, Any], frame: Frame) -> bool:
    """Whether a picture's own description is this frame; what it does not name has the value that it had before."""
    try:
        return plain(frame_from(fields)) == plain(frame_from(json_value(json_text(frame_record(frame)))))
    except (TypeError, KeyError, AttributeError):
        return False
