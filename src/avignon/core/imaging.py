"""The only decoder of images: from whatever comes in to an upright 8-bit sRGB picture, or a clear reason.

What reads a file raises `ImageError`, one line, for a picture that is truncated, animated, too large, or none at all.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil, lcm
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avignon.core import tiff
from avignon.core.colour import Colours
from avignon.core.errors import ImageError
from avignon.core.formats import BROKEN, identified

MAX_PIXELS = 200_000_000
"""Larger pictures are refused before a pixel is decoded (a decompression bomb of a few kB can ask for gigabytes)."""
MAX_EDGE = 1_000_000
"""Pixels on the long side; a longer picture of at most `MAX_PIXELS` is too narrow to be used."""
MAX_BYTES = 850 * 2**20
"""Memory that decoding may take, so that a stage keeps below 1 GiB (docs/benchmarks/quality.md)."""
BOUND = 4096 * 4096
"""Pixels of the copy that a larger picture is judged and shown by."""
MIDDLE = 2048
"""Pixels a side of what is looked at in full resolution, of a picture that is reduced."""

_DECODERS = {"WEBP": 17, "AVIF": 16, "HEIF": 16, "JPEG2000": 24}
"""Bytes a pixel that decoders take which unpack a picture as a whole (measured: docs/benchmarks/quality.md)."""
_HALVINGS = {"JPEG": 3, "MPO": 3, "JPEG2000": 5}
"""How often a decoder can halve a picture that would take too much whole."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its EXIF orientation."""

Size = tuple[int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Scan:
    """What a picture is judged by: upright, 8-bit RGB in sRGB."""

    size: Size
    """True (width, height) in pixels."""
    image: Image.Image
    """The whole; of more than `BOUND` pixels, a reduced copy."""
    middle: Image.Image | None
    """The middle at full resolution, where the whole is reduced."""


def size_of(source: Path | bytes) -> Size:
    """True (width, height) in pixels, turned upright; of most formats only the header is read."""
    with identified(source) as opened:
        return _Picture(*opened).size


def load(source: Path | bytes) -> Image.Image:
    """An upright 8-bit RGB picture in sRGB; of more than `BOUND` pixels, its sides are reduced by a whole number."""
    with identified(source) as opened:
        return _Picture(*opened).whole()


def scan(source: Path | bytes) -> Scan:
    """A picture as `load` decodes it, its true size, and its middle at full resolution."""
    with identified(source) as opened:
        picture = _Picture(*opened)
        return Scan(picture.size, picture.whole(), picture.middle() if picture.is_reduced else None)


def crops(source: Path | bytes, count: int, edge: int) -> list[tuple[Box, Image.Image]]:
    """The squares of `square_crops`, each with its box in the true picture, at `edge` × `edge` pixels."""
    with identified(source) as opened:
        picture = _Picture(*opened)
        return picture.cut(square_crops(picture.size, count), (edge, edge))


def middle(source: Path | bytes, shape: Size) -> tuple[Box, Image.Image]:
    """The middle of a picture in a shape, with its box in the true picture, at the shape's own pixels."""
    with identified(source) as opened:
        picture = _Picture(*opened)
        return picture.cut([middle_box(picture.size, shape)], shape)[0]


class _Picture:
    """An opened picture, any part of which can be decoded."""

    def __init__(self, image: Image.Image, stream: BinaryIO) -> None:
        _check_size(image)
        self._image, self._stream = image, stream
        is_tiff = image.format == "TIFF"
        page, self._copy = tiff.pages(stream) if is_tiff else (0, None)
        if page:
            image.seek(page)
            _check_size(image)
        # An MPO's second frame is a thumbnail or a depth map; a TIFF's pages were looked at.
        frames = 1 if image.format in ("MPO", "TIFF") else getattr(image, "n_frames", 1)
        if frames > 1:
            raise ImageError(f"animated or of several pages ({frames}); one picture is needed")
        self._orientation = _orientation(image, stream)
        lying = tiff.size(image) if is_tiff else image.size
        self.size: Size = lying[::-1] if self._orientation >= 5 else lying
        self.is_reduced = lying[0] * lying[1] > BOUND
        self._bands = tiff.bands(stream, page) if is_tiff and self.is_reduced else None
        if is_tiff and not self._bands:
            self._orientation = 1  # Pillow turns a TIFF upright as it decodes it.
        self._halvings = 0 if self._bands else _halvings(image)
        self._colours = Colours(image, stream)

    def whole(self) -> Image.Image:
        """All of it, within `BOUND`."""
        image = self.part((0, 0, *self.size))
        if self._copy is not None:
            self._check_copy(image, self._copy)
        return image

    def cut(self, boxes: Sequence[Box], size: Size) -> list[tuple[Box, Image.Image]]:
        """Boxes of it, each with what it shows, resampled to so many pixels."""
        if self.is_reduced:
            parts = ((box, self.part(box)) for box in boxes)
            return [(box, fit(part, (0, 0, *part.size), *size)) for box, part in parts]
        image = self.whole()
        return [(box, fit(image, box, *size)) for box in boxes]

    def middle(self) -> Image.Image:
        """The middle at full resolution, in step with the blocks of 8 × 8 pixels that a JPEG is made of."""
        stored = self._stored((0, 0, *self.size))[2:]
        width, height = (min(side, MIDDLE) // 8 * 8 or side for side in stored)
        left, top = ((side - part) // 16 * 8 for side, part in zip(stored, (width, height), strict=True))
        return self._cut((left, top, left + width, top + height))

    def part(self, box: Box) -> Image.Image:
        """What is in a box of the upright picture, within `BOUND`."""
        return self._cut(self._stored(box))

    def _cut(self, box: Box) -> Image.Image:
        """What is in a box of the picture as it is stored, turned upright; converted a piece at a time.

        Only the stored pixels are in memory as a whole, and of a TIFF not even these.
        """
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        factor = next(each for each in count(1) if ceil(width / each) * ceil(height / each) <= BOUND)
        step = _step(factor, self._bands.height if self._bands else 1, width)
        canvas = Image.new("RGB", (ceil(width / factor), ceil(height / factor)))
        for row in range(top, bottom, step):
            end = min(row + step, bottom)
            if self._bands:
                piece = self._bands.rows(row, end).crop((left, 0, right, end - row))
            else:
                piece = self._image.crop((left, row, right, end))
            piece = self._colours.srgb(piece)
            canvas.paste(piece if factor == 1 else piece.reduce(factor), (0, (row - top) // factor))
            canvas.info = piece.info
        return canvas.transpose(_TURNS[self._orientation]) if self._orientation in _TURNS else canvas

    def _stored(self, box: Box) -> Box:
        """Where a box of the upright picture is in what the decoder gives; decodes the picture first."""
        image: Any = self._image
        if not self._bands and getattr(image, "tile", None):  # It is not decoded yet.
            if self._halvings and image.format == "JPEG2000":
                image.reduce = self._halvings
            elif self._halvings:
                image.draft(None, (image.width >> self._halvings, image.height >> self._halvings))
            image.load()
        left, top, right, bottom = box
        width, height = self.size
        if self._orientation in (2, 3, 6, 7):
            left, right = width - right, width - left
        if self._orientation in (3, 4, 7, 8):
            top, bottom = height - bottom, height - top
        if self._orientation >= 5:  # The axes are exchanged.
            left, top, right, bottom, width, height = top, left, bottom, right, height, width
        if not self._halvings:
            return left, top, right, bottom
        across, down = image.width / width, image.height / height
        return round(left * across), round(top * down), round(right * across), round(bottom * down)

    def _check_copy(self, image: Image.Image, page: int) -> None:
        """What is a copy by its size alone is one by its pixels, too, at up to 16 × 16 of them."""
        self._stream.seek(0)
        with Image.open(self._stream, formats=("TIFF",)) as other:
            other.seek(page)
            copy = Colours(other, self._stream).srgb(other.copy())
        grid = (min(16, copy.width), min(16, copy.height))
        one, two = (
            np.asarray(each.convert("L").resize(grid, Image.Resampling.BOX), dtype=np.float64) for each in (image, copy)
        )
        if np.abs(one - two).mean() > 8:
            raise ImageError(f"of several pages, of which page {page + 1} is another picture; one picture is needed")


def _step(factor: int, height: int, width: int) -> int:
    """Rows that are converted at once: about a megapixel, in step with the factor and the file's strips or tiles."""
    unit = lcm(factor, height)
    unit = unit if unit * width <= tiff.MOST_PIXELS else factor * ceil(height / factor)
    return unit * max(1, 2**20 // (unit * width))


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}×{height} pixels; at most {MAX_PIXELS:,} are decoded")
    if max(width, height) > MAX_EDGE:
        raise ImageError(f"{width}×{height} pixels; at most {MAX_EDGE:,} on a side are decoded")


def _halvings(image: Image.Image) -> int:
    """How often the decoder has to halve a picture to keep within `MAX_BYTES`; an `ImageError` where it cannot."""
    for halvings in range(_HALVINGS.get(image.format or "", 0) + 1):
        if _bytes_of(image, halvings) <= MAX_BYTES:
            return halvings
    kind = "a progressive JPEG" if image.info.get("progressive") else str(image.format)
    kind = "a TIFF in one compressed piece" if image.format == "TIFF" else kind
    needed = _bytes_of(image, 0) / 2**30
    raise ImageError(
        f"{image.width}×{image.height} pixels, which as {kind} take {needed:.1f} GiB to decode; "
        f"at most {MAX_BYTES / 2**30:.2f} are spent: save it as TIFF in strips, PNG or baseline JPEG"
    )


def _bytes_of(image: Image.Image, halvings: int) -> int:
    """Memory that decoding takes at its peak."""
    pixels = image.width * image.height
    kept = {"1": 1, "L": 1, "P": 1, "I": 2}.get(image.mode.partition(";")[0], 4)  # 32-bit greys are not read.
    if image.format == "TIFF":
        return 3 * kept * pixels  # In one piece: the file, the piece unpacked and the picture.
    unpacked = _DECODERS.get(image.format or "", kept) * pixels >> 2 * halvings
    if not image.info.get("progressive"):
        return unpacked
    # A progressive JPEG's coefficients, of 2 bytes each, are all kept until its last scan.
    shares = [int(across * down) for _, across, down, _ in getattr(image, "layer", ())]
    return unpacked + ceil(2 * sum(shares) / max(shares, default=1)) * pixels


def _orientation(image: Image.Image, stream: BinaryIO) -> int:
    """The EXIF orientation, 1 to 8; damaged EXIF data says nothing, and the picture is taken as it lies."""
    said = {"exif", "XML:com.adobe.xmp"} & image.info.keys()
    if image.format == "PNG" and not said and not _says_more(stream):
        return 1  # Pillow would decode it all to look for EXIF data behind the pixels.
    try:
        value = image.getexif().get(0x0112, 1)
    except BROKEN:
        return 1
    return int(value) if value in _TURNS else 1


def _says_more(stream: BinaryIO) -> bool:
    """Whether a PNG has EXIF data or texts behind its pixels."""
    place, behind = stream.tell(), set[bytes]()
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IDAT" or behind:
            behind.add(kind)
        stream.seek(length + 4, io.SEEK_CUR)
    stream.seek(place)  # Pillow goes on from there.
    return b"eXIf" in behind or b"iTXt" in behind


def square_crops(size: Size, count: int) -> list[Box]:
    """`count` square boxes of the short side's length, evenly placed along the long side; one is centred."""
    width, height = size
    edge = min(width, height)
    room = max(width, height) - edge
    places = [room / 2] if count == 1 or room == 0 else [room * i / (count - 1) for i in range(count)]
    corners = [(place, 0) if width > height else (0, place) for place in dict.fromkeys(map(round, places))]
    return [(left, top, left + edge, top + edge) for left, top in corners]


def middle_box(size: Size, shape: Size) -> Box:
    """The largest box of a shape, to whole pixels, in the middle of a picture."""
    width = min(size[0], max(1, round(size[1] * shape[0] / shape[1])))
    height = min(size[1], max(1, round(size[0] * shape[1] / shape[0])))
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return left, top, left + width, top + height


def fit(image: Image.Image, box: Box, width: int, height: int | None = None) -> Image.Image:
    """Crop to a box and resample (Lanczos) to so many pixels; without a height, to a square."""
    return image.resize((width, height or width), Image.Resampling.LANCZOS, box=box)


def sharpness(image: Image.Image) -> float:
    """Standard deviation of the Laplacian in grey levels, at 512 pixels on the long side.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    grey = image.convert("L")
    grey.thumbnail((512, 512), Image.Resampling.LANCZOS)
    g = np.asarray(grey, dtype=np.float64)
    if min(g.shape) < 3:
        return 0.0
    laplacian = g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:] - 4 * g[1:-1, 1:-1]
    return float(laplacian.std())


def pixels(image: Image.Image) -> NDArray[np.float64]:
    """RGB values in 0…1, shaped (height, width, 3)."""
    return np.asarray(image.convert("RGB"), dtype=np.float64) / 255
