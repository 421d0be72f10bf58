"""Museums behind one small protocol (`protocol.Museum`). One museum, one module.

What listing does not need (the network, the decoder of images) is imported only where images are fetched.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from avignon.core.records import EMBEDDED
from avignon.museums.protocol import Museum

if TYPE_CHECKING:
    from avignon.museums.catalog import Catalog
    from avignon.museums.http import Fetcher
    from avignon.recipe.schema import AnyMuseum, Collect, OnlineMuseum


@contextmanager
def opened(museum: "AnyMuseum", settings: "Collect", warn: Callable[[str], None]) -> Iterator[Museum]:
    """The museum that a recipe names, ready to be asked; its connections close at the end of the block."""
    if museum.kind == "folder":
        from avignon.museums.folder import Folder

        yield Folder(Path(museum.path), warn=warn)
        return
    from avignon.museums.iiif import Images

    with network(museum.api if museum.kind == "artic" else museum.tables, settings, museum) as fetcher:
        images = Images(fetcher, settings.max_edge, settings.max_megabytes * 10**6, museum.widths)
        if museum.kind == "artic":
            from avignon.museums.artic import Artic

            yield Artic(museum.api, images, warn)
        else:
            from avignon.museums import catalog
            from avignon.museums.nga import Nga

            yield Nga(catalog.current(address(museum.tables), fetcher, warn), images)


@contextmanager
def listed(tables: str) -> Iterator[Museum]:
    """The National Gallery for listing alone: the catalog that is there as it is; built where there is none."""
    from avignon.museums import catalog
    from avignon.museums.nga import Nga

    if tables != EMBEDDED:
        with catalog.present(address(tables)) as held:
            if held is not None:
                yield Nga(held)
                return
    yield Nga(catalog_of(tables))


def catalog_of(source: str) -> "Catalog":
    """The catalog that is there; built now where there is none, and asked about anew where that costs nothing."""
    from avignon.museums import catalog

    held = None if source == EMBEDDED else catalog.held(address(source))
    if held is not None:
        return held
    with network(source) as fetcher:
        return catalog.update(address(source), fetcher)


def address(source: str) -> str:
    """Where a recipe's `tables` are, as the network client sees them."""
    from avignon.museums.nga import EMBEDDED_TABLES

    return EMBEDDED_TABLES if source == EMBEDDED else source


@contextmanager
def network(
    source: str, settings: "Collect | None" = None, museum: "OnlineMuseum | None" = None
) -> Iterator["Fetcher"]:
    """A network client at the museum's pace, or at the recipe's own; the museum inside the package needs no pauses."""
    from avignon.museums.http import Fetcher
    from avignon.recipe.schema import Collect, NgaMuseum

    settings, museum = settings or Collect(), museum or NgaMuseum()
    if source != EMBEDDED:
        pause = museum.pause if settings.pause is None else settings.pause
        with Fetcher(pause=pause, timeout=settings.timeout, contact=museum.contact) as fetcher:
            yield fetcher
        return
    from avignon.demo.museum import EmbeddedMuseum

    with Fetcher(pause=0.0, timeout=settings.timeout, mounts={"embedded://": EmbeddedMuseum()}) as fetcher:
        yield fetcher
