"""Museums behind one small protocol (`protocol.Museum`). One museum, one module."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from httpx import BaseTransport

from avignon.fetch import Fetcher
from avignon.museums.folder import Folder
from avignon.museums.nga import Nga
from avignon.museums.protocol import Museum
from avignon.recipe import EMBEDDED, Collect, FolderMuseum, NgaMuseum


@contextmanager
def opened(museum: NgaMuseum | FolderMuseum, settings: Collect) -> Iterator[Museum]:
    """The museum that a recipe names, ready to be asked; its connections close at the end of the block."""
    if isinstance(museum, FolderMuseum):
        yield Folder(Path(museum.path))
        return
    embedded = museum.tables == EMBEDDED
    mounts = _embedded() if embedded else None
    with Fetcher(pause=0.0 if embedded else settings.pause, timeout=settings.timeout, mounts=mounts) as fetcher:
        yield Nga(museum.tables, fetcher, max_edge=settings.max_edge, max_bytes=settings.max_megabytes * 10**6)


def _embedded() -> dict[str, BaseTransport]:
    from avignon.embedded.museum import EmbeddedMuseum

    return {"embedded://": EmbeddedMuseum()}
