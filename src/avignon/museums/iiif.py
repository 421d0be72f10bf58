"""Images by the IIIF Image API: never more than the true size, and each is checked against the size asked for.

Versions 2.1 (https://iiif.io/api/image/2.1/) and 3.0 (https://iiif.io/api/image/3.0/). A server that scales (level 1
and 2) is asked for the size wanted; one that does not (level 0) for the smallest size that it has ready and that is
large enough, or for tiles, which are joined.
"""

import re
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

from avignon.core.errors import FetchError, ImageError
from avignon.core.imaging import MAX_PIXELS, load, scan
from avignon.core.png import png_bytes
from avignon.museums.http import Answer, Fetcher
from avignon.museums.iiif_info import Info, Size, Tiles, described
from avignon.museums.protocol import Received

MOST_TILES = 1100
"""Requests for one picture; 4096 pixels in tiles of 256 at twice the scale wanted are 1024."""

_STAND_IN = re.compile(r"__(\d+)(?:/|$)")
"""The National Gallery redirects a capped image to `{uuid}__900`, and scales that up to whatever is asked."""


@dataclass(frozen=True)
class Images:
    """A museum's image server."""

    fetcher: Fetcher
    max_edge: int = 2048
    max_bytes: int = 200_000_000
    widths: tuple[int, ...] = ()
    """Widths that the server has ready; empty where it has none, or they are not known."""

    def source(self, image: str, most: int = 0) -> str:
        """The image's address and the size asked for at most; `most` as in `receive`."""
        edge = min(self.max_edge, most) if most else self.max_edge
        ready = f"; widths {', '.join(map(str, self.widths))}" if self.widths else ""
        return f"{image}/full/!{edge},{edge}{ready}"

    def receive(self, image: str, most: int = 0) -> Received:
        """The image at a base URI, at most `max_edge` pixels on its long side and never more than its true size.

        `most` is the longest side, in pixels, that the museum says it sends; 0 where it sets no limit.

        Raises:
            FetchError, ImageError: with the reason.
        """
        answer = self.fetcher.get(f"{image}/info.json", limit=1_000_000, check=described)
        info = described(answer.content)
        edge = min(self.max_edge, most) if most else self.max_edge
        # A server that redirects the description, too, describes its stand-in.
        capped = "__" in _tail(answer.url, image) or 0 < most < max(info.size)
        tiles = info.tiles_for(edge)
        if tiles:
            return Received(self._joined(image, info, tiles), ".png", capped)
        received = self._whole(image, info, edge)
        stand_in = _STAND_IN.match(_tail(received.url, image))
        if stand_in and 0 < int(stand_in[1]) < min(edge, max(info.size)):
            with suppress(ImageError):  # Better what was scaled up, which curation measures, than nothing.
                received = self._whole(image, info, int(stand_in[1]))
        capped = capped or "__" in _tail(received.url, image)
        return Received(received.content, _suffix(received.content), capped)

    def _whole(self, image: str, info: Info, edge: int) -> Answer:
        """The picture in one piece, its size checked."""
        wanted, parameter = info.asked(edge, self.widths)
        url = f"{image}/full/{parameter}/0/default.jpg"
        try:
            return self.fetcher.get(url, limit=self.max_bytes, check=lambda content: _check_size(content, wanted))
        except FetchError as failed:
            if info.level > 0 or failed.status not in (400, 404, 501):
                raise
            raise FetchError(
                f"{failed}; its server does not scale (IIIF level 0), and lists neither a size that is large enough "
                "nor tiles that can be joined",
                failed.status,
            ) from None

    def _joined(self, image: str, info: Info, tiles: Tiles) -> bytes:
        """The picture put together from its tiles at one scale, as a PNG, which loses nothing."""
        width, height = tiles.size
        if width * height > MAX_PIXELS or tiles.count > MOST_TILES:
            raise ImageError(
                f"{image}: there are only tiles ({tiles.count:,} for {width}×{height} pixels); at most {MOST_TILES:,} "
                "are joined"
            )
        canvas = Image.new("RGB", tiles.size)
        for region, corner, size in tiles.all():
            picture = load(self._tile([f"{image}/{place}/0/default.jpg" for place in info.written(region, size)], size))
            canvas.paste(picture if picture.size == size else picture.resize(size), corner)
        return png_bytes(canvas)

    def _tile(self, urls: list[str], size: Size) -> bytes:
        """A tile from the first of its addresses under which the server has it."""
        first, *others = urls
        try:
            return self.fetcher.get(first, limit=self.max_bytes, check=lambda tile: _check_size(tile, size)).content
        except FetchError as failed:
            if failed.status != 404 or not others:
                raise
            return self._tile(others, size)


def _tail(place: str, image: str) -> str:
    """What follows the last part of the image's own address: empty, `__900` or another image's name."""
    name = image.rpartition("/")[2]
    return place.rpartition(name)[2] if name in place else place


def _suffix(content: bytes) -> str:
    """By the first bytes, as some servers send another format than the JPEG that was asked for."""
    kinds = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"II*\0": ".tif", b"MM\0*": ".tif"}
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for start, suffix in kinds.items() if content.startswith(start)), ".jpg")


def _check_size(content: bytes, wanted: Size) -> None:
    """A IIIF server scales to fit the box asked for; a pixel of rounding aside, any other size is a fault."""
    received = scan(content).size  # Of all pixels: a body that was cut off still has the header of the whole.
    if any(got > ask + 1 or got < ask - 1 for got, ask in zip(received, wanted, strict=True)):
        raise ImageError(f"{received[0]}×{received[1]} pixels came where {wanted[0]}×{wanted[1]} were promised")
