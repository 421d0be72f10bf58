"""What a museum is to the rest of the package: it finds an artist's works, and gives their images."""

from dataclasses import dataclass
from typing import Protocol

from avignon.core.records import Found, Work


@dataclass(frozen=True)
class Name:
    """An artist to look up, as `find` reads one: a recipe's artist is one, too."""

    name: str
    find: tuple[int | str, ...] = ()
    classification: tuple[str, ...] = ()


class Sought(Protocol):
    """What a museum reads of an artist."""

    @property
    def name(self) -> str:
        """As the works found will be labelled."""

    @property
    def find(self) -> tuple[int | str, ...]:
        """Names or the museum's ids to look up; the name itself where there are none."""

    @property
    def classification(self) -> tuple[str, ...]:
        """Only works that the museum classes so; empty takes all."""


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


def outside(artist: Sought, classification: str) -> str:
    """Why the recipe's `classification` leaves a work out; empty if it does not."""
    if artist.classification and classification not in artist.classification:
        return f"classification is {classification or 'empty'}; wanted {', '.join(artist.classification)}"
    return ""


class Museum(Protocol):
    """A museum turns its records into works or reasons, and a work into the bytes of its image."""

    def find(self, artist: Sought) -> list[Found]:
        """Every work of the artist, best candidates first; those that the record rules out carry the reason.

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
