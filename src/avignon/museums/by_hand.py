"""Images that a person saved and put into a folder, in place of a museum's server that turns programs away."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from avignon.core.errors import InputError
from avignon.core.formats import SUFFIXES
from avignon.core.naming import shown, stem
from avignon.core.records import Work
from avignon.museums.protocol import Received


@dataclass(frozen=True)
class ByHand:
    """The files of a folder by the object ids that name them; `25800.jpg` is the image of object 25800."""

    folder: str = ""
    """Empty for none."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """By the name without its ending."""

    def of(self, work: Work) -> Path | None:
        """The image of a work: by its object id, or by that as it is written into a file's name."""
        return self.files.get(work.object_id) or self.files.get(stem(work.object_id))

    def source(self, work: Work) -> str | None:
        """The file's place, size and time: while they stay, so does the image. None where there is no file."""
        path = self.of(work)
        if path is None:
            return None
        state = path.stat()
        return f"{path}; {state.st_size} bytes; {state.st_mtime_ns}"

    def receive(self, work: Work) -> Received | None:
        """The file's bytes as they are; None where there is no file."""
        path = self.of(work)
        return Received(path.read_bytes(), path.suffix.lower()) if path else None

    def unused(self, works: Collection[Work]) -> list[str]:
        """Names of the files that are the image of none of these works."""
        used = {self.of(work) for work in works}
        return [shown(path.name) for path in self.files.values() if path not in used]


def in_folder(folder: str) -> ByHand:
    """The images of a folder; none where its name is empty.

    Raises:
        InputError: there is no such folder, or two files are named after one object.
    """
    if not folder:
        return ByHand()
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; originals names one of images added by hand")
    files: dict[str, Path] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in files:
            raise InputError(f"{folder}: {files[path.stem].name} and {path.name} are both named {path.stem}; keep one")
        files[path.stem] = path
    return ByHand(folder, files)
