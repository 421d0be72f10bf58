"""Where an artist's images come from: a folder of images that a person saved, else the museum's server."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from avignon.core.errors import InputError, TurnedAway
from avignon.core.formats import SUFFIXES
from avignon.core.naming import shown, stem
from avignon.core.records import Found, Work
from avignon.museums.protocol import Museum, Received, file_source
from avignon.museums.registry import museum_name

MOST_REFUSALS = 3
"""Refusals in a row after which a server that turns programs away is not asked again in this run."""


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

    def unused(self, found: Collection[Found], artist: str) -> dict[str, str]:
        """The files that are not used, by name, each with the reason."""
        rejected = {path: each.decision.reason for each in found if each.decision and (path := self.of(each.work))}
        known = {self.of(each.work) for each in found}
        strangers = [path for path in self.files.values() if path not in known]
        reasons = rejected | dict.fromkeys(strangers, f"no work of {artist} has this object id")
        return {shown(path.name): reason for path, reason in reasons.items()}


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


@dataclass
class ImageSource:
    """The images of an artist's works: those added by hand, else the museum's, as long as it answers programs."""

    museum: Museum
    by_hand: ByHand
    refused: int = 0
    """Images that the museum's server refused to a program."""
    in_a_row: int = 0
    """How many of the last ones it refused."""

    def name(self, work: Work) -> str:
        """What would be read, as `protocol.Museum.source`."""
        path = self.by_hand.of(work)
        return file_source(path) if path else self.museum.source(work)

    def receive(self, work: Work) -> tuple[Received, bool]:
        """The image of a work, and whether it was added by hand.

        Raises:
            FetchError, ImageError: with the reason.
        """
        if path := self.by_hand.of(work):
            return Received(path.read_bytes(), path.suffix.lower()), True
        if self.in_a_row >= MOST_REFUSALS:
            raise TurnedAway(f"{museum_name(work.museum)} turns programs away at the moment; not asked for")
        try:
            received = self.museum.receive(work)
        except TurnedAway:
            self.refused, self.in_a_row = self.refused + 1, self.in_a_row + 1
            raise
        self.in_a_row = 0
        return received, False
