"""What a museum is to the rest of the package: it finds an artist's works, and gives their images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from avignon.core.records import Found, Work


@dataclass(frozen=True)
class ArtistQuery:
    """An artist to look up."""

    name: str
    """As the works found will be labelled."""
    find: tuple[int | str, ...] = ()
    """Names or the museum's ids to look up; the name itself where there are none."""
    classification: tuple[str, ...] = ()
    """Only works that the museum classes so; empty takes all."""

    @property
    def wanted(self) -> tuple[int | str, ...]:
        """What to look up."""
        return self.find or (self.name,)

    def exclusion(self, classification: str) -> str:
        """Why a work of this classification is left out; empty if it is not."""
        if self.classification and classification not in self.classification:
            return f"classification is {classification or 'empty'}; wanted {', '.join(self.classification)}"
        return ""


@dataclass(frozen=True)
class FetchSettings:
    """How images are fetched; the defaults are those of a recipe's `collect`."""

    max_edge: int = 2048
    """Longest side asked for, in pixels."""
    max_bytes: int = 200_000_000
    """Largest image accepted."""
    pause: float | None = None
    """Least seconds between two requests to one host; None: as the museum asks."""
    timeout: float = 30.0
    """Seconds to wait for a connection or for the next bytes."""


@dataclass(frozen=True)
class Received:
    """The bytes of a work's image, as the museum keeps or sends them."""

    content: bytes
    suffix: str
    capped: bool = False
    """The museum sent a smaller image than it has."""


def one_line(text: str) -> str:
    """Text as a record holds it: line breaks and runs of blanks become one space."""
    return " ".join(text.split())


def file_source(path: Path) -> str:
    """What `Museum.source` says of a file."""
    state = path.stat()
    return f"{path}; {state.st_size} bytes; {state.st_mtime_ns}"


def preference(found: Found) -> tuple[bool, bool, int, str]:
    """A key to sort by: rejected works last, paintings first; then by id, which is stable."""
    work = found.work
    return (found.decision is not None, work.classification != "Painting", len(work.object_id), work.object_id)


class Museum(Protocol):
    """A source of works and of their images."""

    def find(self, artist: ArtistQuery) -> list[Found]:
        """Every work of the artist, best candidates first; those that the record rules out are rejected.

        Raises:
            InputError: the artist is unknown (with the nearest names), or the museum's data cannot be read.
        """

    def source(self, work: Work) -> str:
        """What `receive` would read, so exactly that the same answer means the same bytes; nothing is fetched."""

    def receive(self, work: Work) -> Received:
        """The image of one work.

        Raises:
            FetchError, ImageError: with the reason.
        """
