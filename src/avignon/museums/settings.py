"""What recipes say of museums: the base classes, and the tables of two museums.

A museum's class stands in its own module, as in `artic`. Those of `nga` and `folder` stand here: recipes should not
wait for DuckDB and Pillow, nor `avignon works` for pydantic.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from avignon.core.records import NGA_TABLES
from avignon.core.settings import ABSENT, Section, placed


class MuseumSettings(Section):
    """A museum's table in a recipe. Each class adds its `kind`, a literal, which tells the tables apart."""

    if TYPE_CHECKING:
        kind: str


class OnlineMuseum(MuseumSettings):
    """What every museum on the network has: its pace, the widths that it keeps ready, and whom it can write to."""

    schema_1 = {"pause": ABSENT, "widths": ABSENT}

    pause: float = Field(default=0.2, ge=0, le=60)
    """Least seconds between two requests to one of the museum's hosts, as it asks for; `collect.pause` stands above."""
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(), strict=False)
    """Widths in which the museum has its images ready: the largest of them within `collect.max_edge` is asked for, any
    width where none is. Empty: what fits `collect.max_edge`."""
    contact: str = Field(default="", pattern=r"^[ -'*-~]*$", max_length=200, exclude=True)
    """An email address or a page at which the museum can reach you, in plain ASCII without brackets. It goes into the
    User-Agent of every request, and into no file: adapters' cards hold the recipe, and travel."""


class NgaMuseum(OnlineMuseum):
    """The National Gallery of Art's open data, or any museum that publishes the same tables."""

    kind: Literal["nga"] = "nga"
    tables: str = NGA_TABLES
    """URL of the folder of CSV tables, or `embedded` for the procedural museum inside the package."""


class FolderMuseum(MuseumSettings):
    """A directory of one's own scans, with or without an `index.csv`."""

    kind: Literal["folder"]
    path: Annotated[str, Field(min_length=1, pattern=r"\S"), AfterValidator(placed)]
    """The directory; relative paths are relative to the recipe, whose own is `.`"""
