"""Pictures as files: what each says of itself, and which are there already."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from avignon.adapters import cards
from avignon.adapters.formats.registry import AdapterFile
from avignon.core import imaging, png
from avignon.core.errors import WorkspaceError
from avignon.core.events import Reporter
from avignon.core.files import json_text, json_value, read_json, write_bytes
from avignon.core.records import Frame, Series, frame_from, frame_record, plain
from avignon.core.workspace import Workspace
from avignon.generation import png_info
from avignon.models.base import DiffusionBase


@dataclass(frozen=True)
class Prints:
    """Pictures as files: what each says of itself and of its rights."""

    folder: Path
    adapters: Mapping[str, AdapterFile]
    model: str
    contents: Mapping[str, str]
    """Hashes by which other programs know the adapters."""

    def rights(self, frame: Frame) -> str:
        """What a picture must say of its adapters, and of the picture that it began from."""
        used = [name for name, weight in frame.weights.items() if weight or name in frame.weight_schedule]
        begun = f"It began from {frame.source.file}, for whose rights its user answers." if frame.source else ""
        return " ".join(filter(None, (cards.notice(self.adapters[name] for name in used), begun)))

    def write(self, file: str, frame: Frame, image: Image.Image) -> None:
        """Write one picture."""
        told = png_info.text(frame, self.model, self.contents)
        write_bytes(self.folder / file, png.png_bytes(image, told, frame_record(frame), self.rights(frame)))

    def restate_rights(self, file: str, frame: Frame) -> None:
        """Write a picture anew, the same pixels, where what it says of its rights no longer holds."""
        if png.png_rights(self.folder / file) != self.rights(frame):
            self.write(file, frame, imaging.load(self.folder / file))


class FinishedPictures:
    """Pictures of this version and of avignon 0.1.0, in one run's folder."""

    def __init__(self, space: Workspace, base: DiffusionBase) -> None:
        self.space, self._base = space, base

    def missing(self, series: Series) -> set[int]:
        """Places of the pictures that are not there, or not as asked for."""
        return {place for place, picture in enumerate(series.pictures) if not self._is_finished(*picture)}

    def _is_finished(self, file: str, frame: Frame) -> bool:
        """Whether the picture is there and carries this very frame."""
        return shows(self.space.series / file, *self.as_ever_named(frame))

    def as_ever_named(self, frame: Frame) -> Iterator[Frame]:
        """A frame, and the same as avignon 0.1.0 wrote it, which knew the base by one file."""
        yield frame
        yield from (replace(frame, base=name) for name in sorted(self._base.earlier_identities))

    def tell_changes(self, series: Series, missing: int, reporter: Reporter) -> None:
        """Say which parts of the base made the pictures of the last run other than those asked for now."""
        known = read_json(self.space.series_index) if self.space.series_index.exists() else {}
        parts = known.get("base_parts", {})
        changed = [part for part, hashed in series.base_parts.items() if parts.get(part, hashed) != hashed]
        if changed and missing:
            names = ", ".join(changed)
            reporter.note(f"the base has a different {names} than in the last run: {missing} pictures to make")


def shows(path: Path, *frames: Frame) -> bool:
    """Whether a picture is there, whole, and carries one of these frames.

    Raises:
        WorkspaceError: a newer avignon wrote it.
    """
    fields = png.png_fields(path)
    try:
        return fields is not None and any(_holds(fields, frame) for frame in frames)
    except WorkspaceError as newer:
        raise WorkspaceError(f"{path}: {newer}") from None


def _holds(fields: Mapping[str, Any], frame: Frame) -> bool:
    """Whether a picture's own description is this frame; what it does not name has the value that it had before."""
    try:
        return plain(frame_from(fields)) == plain(frame_from(json_value(json_text(frame_record(frame)))))
    except (TypeError, KeyError, AttributeError):
        return False
