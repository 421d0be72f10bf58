"""The museums, one row each. Recipes, the command line and labels read these rows.

A row names classes and functions by their place: nothing of a museum is imported before it is needed.
"""

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from avignon.museums.protocol import FetchSettings, Museum
    from avignon.museums.settings import MuseumSettings

Warn = Callable[[str], None]


@dataclass(frozen=True)
class MuseumRow:
    """A museum. Places are written `module:name`."""

    kind: str
    """Its word in a recipe (`kind = "artic"`) and in the ledger."""
    label: str
    """Its name for people. Empty where the ledger has one already, as for a folder."""
    settings: str
    """Place of the class of its table in a recipe, a `MuseumSettings`. Recipes import it: keep its module light."""
    opener: str
    """Place of a function of that table, `FetchSettings` and a receiver of warnings that opens the `Museum`."""
    option: str
    """Its option of `avignon works`, without the dashes."""
    help: str
    """Of that option."""
    field: str = ""
    """The setting that holds the option's value; a recipe's table with it needs no `kind`. Empty: a flag."""
    metavar: str | None = None
    is_folder: bool = False
    """Whether `field` names a folder on this machine."""
    lister: str = ""
    """Place of a function of the option's value that opens it for listing alone, with fewer imports."""

    def settings_class(self) -> "type[MuseumSettings]":
        """The class of its table in a recipe."""
        return cast("type[MuseumSettings]", _at(self.settings))

    def listed(self, value: str | None, warn: Warn) -> "AbstractContextManager[Museum]":
        """The museum by its option of `avignon works`, for listing alone."""
        from avignon.museums.protocol import FetchSettings  # Here, because `avignon --help` reads these rows.

        if self.lister:
            return cast("AbstractContextManager[Museum]", _at(self.lister)(value))
        given = {self.field: value} if self.field else {}
        return opened(self.settings_class()(kind=self.kind, **given), FetchSettings(), warn)


MUSEUMS = (
    MuseumRow(
        kind="nga",
        label="National Gallery of Art, Washington",
        settings="avignon.museums.settings:NgaMuseum",
        opener="avignon.museums.nga:opened",
        option="tables",
        help="URL of the museum's tables, or `embedded`; the National Gallery's by default.",
        field="tables",
        lister="avignon.museums.nga:listed",
    ),
    MuseumRow(
        kind="folder",
        label="",
        settings="avignon.museums.settings:FolderMuseum",
        opener="avignon.museums.folder:opened",
        option="folder",
        help="A directory of your own scans instead.",
        field="path",
        metavar="PATH",
        is_folder=True,
    ),
    MuseumRow(
        kind="artic",
        label="Art Institute of Chicago",
        settings="avignon.museums.artic:ArticMuseum",
        opener="avignon.museums.artic:opened",
        option="artic",
        help="The Art Institute of Chicago instead.",
    ),
)
"""The first is the default."""


def museum_name(kind: str) -> str:
    """A museum's name for people; a folder's own name, and any other, stays as it is."""
    return next((row.label for row in MUSEUMS if row.kind == kind and row.label), kind)


def kind_of(table: Mapping[str, Any]) -> str:
    """The kind of a recipe's table that does not name it."""
    default, *others = MUSEUMS
    return next((row.kind for row in others if row.field and row.field in table), default.kind)


def chosen(options: Mapping[str, Any]) -> tuple[MuseumRow, Any]:
    """The row that the options of `avignon works` choose, and its option's value."""
    default, *others = MUSEUMS
    row = next((row for row in others if options[row.option] not in (None, False)), default)
    return row, options[row.option]


def row_of(museum: "MuseumSettings") -> MuseumRow:
    """The row of a recipe's museum."""
    return next(row for row in MUSEUMS if row.kind == museum.kind)


def folder_of(museum: "MuseumSettings") -> str:
    """The folder on this machine that a museum is; empty for one on the network."""
    row = row_of(museum)
    return str(getattr(museum, row.field)) if row.is_folder else ""


def opened(museum: "MuseumSettings", settings: "FetchSettings", warn: Warn) -> "AbstractContextManager[Museum]":
    """The museum that a recipe names; its connections close at the end of the block."""
    return cast("AbstractContextManager[Museum]", _at(row_of(museum).opener)(museum, settings, warn))


def _at(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
