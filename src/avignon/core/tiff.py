"""TIFF files hold several pages and are laid out in strips or tiles: which page is the picture, and any rows of it.

Source: TIFF 6.0 (Adobe, 1992), section 8 for `NewSubfileType`; Adobe's Technical Note 1 (1995) for SubIFDs.
"""

import io
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from math import ceil
from typing import Any, BinaryIO

from PIL import Image, TiffTags
from PIL.TiffImagePlugin import OPEN_INFO, ImageFileDirectory_v2

from avignon.core.errors import ImageError

SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
STRIPS, SAMPLES, ROWS, STRIP_BYTES, PLANES = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, SUB_IFDS, FORMAT = 322, 323, 324, 325, 330, 339
REDUCED, MASK = 1, 4
"""Bits of `NewSubfileType`: a copy with fewer pixels; a transparency mask."""

_OF_PIXELS = (258, 259, 262, 266, 277, 284, 292, 293, 317, 320, 322, 323, 332, 338, 339, 347, 530, 531, 532)
"""What the pixels of a strip or tile are read by; size and place are a band's own."""
LONGEST_PIECE = 64 * 2**20
"""Bytes that one strip or tile may unpack to; a page in longer pieces is not read in bands."""
MOST_PIXELS = 2**24
"""Of a row of strips or tiles; of more, a page is not read in bands."""

_OLD_JPEG = 6  # A compression whose strips do not stand for themselves.
_YCBCR = 6  # A photometric interpretation whose rows may share their colours.

# Pillow knows 16-bit greys whose 0 is white in one byte order only.
OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))


def pages(stream: BinaryIO) -> tuple[int, int | None]:
    """The page that is the picture, neither a reduced copy nor a mask; and the page that has to be compared with it.

    A pyramid's further pages say that they are reduced copies, or each has half the sides of the one before. Of those
    that are taken for copies by their sizes alone only pixels can prove it: the second number is the smallest one's.
    An `ImageError` says that several pages are pictures, or that the only one is out of reach.
    """
    listed = {number: page for number, page in enumerate(_directories(stream)) if not _subfile(page) & MASK}
    sizes = {number: _size(page) for number, page in listed.items()}
    whole = [number for number, page in listed.items() if not _subfile(page) & REDUCED]
    if whole:
        pairs = (zip(sizes[full], sizes[half], strict=True) for full, half in pairwise(whole))
        if any(abs(2 * small - large) > 1 for pair in pairs for large, small in pair):
            raise ImageError(
                f"of several pages ({len(whole)}), which are not copies of one; one picture is needed: "
                "save the page that is meant as a file of its own"
            )
        return whole[0], whole[-1] if len(whole) > 1 else None
    if any(SUB_IFDS in page for page in listed.values()):
        raise ImageError(
            "a preview with the picture itself behind it in a SubIFD, as camera raw files are, which is not read; "
            "save it as TIFF, PNG or JPEG"
        )
    if not listed:
        raise ImageError("has no page with a picture")
    return max(listed, key=lambda number: sizes[number][0]), None


def _directories(stream: BinaryIO, most: int = 1000) -> list[ImageFileDirectory_v2]:
    """The tags of each page; of a file that links a page to an earlier one, each once."""
    stream.seek(0)
    head = stream.read(8)
    head += stream.read(8) if head[2:4] in (b"+\0", b"\0+") else b""
    place, seen, found = ImageFileDirectory_v2(head).next, set[int](), list[ImageFileDirectory_v2]()
    while place and place not in seen and len(found) < most:
        seen.add(place)
        stream.seek(place)
        page = ImageFileDirectory_v2(head)
        page.load(stream)
        if WIDTH not in page:
            break  # What is linked to lies outside the file.
        found.append(page)
        place = page.next or 0
    return found


def _subfile(page: ImageFileDirectory_v2) -> int:
    return int(page.get(SUBFILE, REDUCED if page.get(OLD_SUBFILE) == 2 else 0))


def _size(page: ImageFileDirectory_v2) -> tuple[int, int]:
    return int(page.get(WIDTH, 0)), int(page.get(HEIGHT, 0))


def size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an opened page as it lies in the file."""
    tags: Any = getattr(image, "tag_v2", {})
    return _size(tags)


def kind(stream: BinaryIO) -> str:
    """What a TIFF's first page says of its pixels, for the line that says that it is not read."""
    page = next(iter(_directories(stream)), None)
    if page is None:
        return "a TIFF without a page"
    bits, samples = page.get(BITS, (1,)), page.get(SAMPLES, 1)
    number = {2: "signed ", 3: "floating-point "}.get(max(page.get(FORMAT, (1,))), "")
    return (
        f"a TIFF of {samples} × {max(bits)} {number}bits, photometric interpretation {page.get(PHOTOMETRIC, 'missing')}"
    )


@dataclass(frozen=True)
class Bands:
    """A page that is read a few rows at a time, so that its pixels are never in memory all at once."""

    stream: BinaryIO
    page: ImageFileDirectory_v2
    pieces: tuple[tuple[int, int], ...]
    """Start and length in bytes of each strip or tile: from the left, row by row, plane by plane."""
    height: int
    """Rows in each."""

    def rows(self, top: int, bottom: int) -> Image.Image:
        """The rows from `top` up to `bottom`, in the page's own mode, lying as they are stored."""
        first, last = top // self.height, ceil(bottom / self.height)
        width, height = _size(self.page)
        start = first * self.height
        with Image.open(self._file(first, last), formats=("TIFF",)) as band:
            return band.crop((0, top - start, width, min(bottom, height) - start))

    def _file(self, first: int, last: int) -> io.BytesIO:
        """Some rows of strips or tiles as a TIFF of their own."""
        width, height = _size(self.page)
        band = ImageFileDirectory_v2(prefix=self.page.prefix)
        for tag in (tag for tag in _OF_PIXELS if tag in self.page):
            band.tagtype[tag] = self.page.tagtype[tag]
            band[tag] = self.page[tag]
        band[WIDTH], band[HEIGHT] = width, min(last * self.height, height) - first * self.height
        if TILES not in self.page:
            band[ROWS] = self.height
        across, down, planes = _grid(self.page, self.height)
        places = (range((down * plane + first) * across, (down * plane + last) * across) for plane in range(planes))
        pieces = [self._read(*self.pieces[place]) for place in chain.from_iterable(places)]
        tiled = TILE_WIDTH in band
        where, how_long = (TILES, TILE_BYTES) if tiled else (STRIPS, STRIP_BYTES)
        band.tagtype[where] = band.tagtype[how_long] = TiffTags.LONG
        band[how_long] = tuple(map(len, pieces))
        band[where] = starts = tuple(accumulate(map(len, pieces[:-1]), initial=0))
        if tiled:  # The starts of strips are moved behind the directory by Pillow itself.
            behind = 8 + len(band.tobytes(8))
            band[where] = tuple(start + behind for start in starts)
        file = io.BytesIO()
        band.save(file)
        file.write(b"".join(pieces))
        file.seek(0)
        return file

    def _read(self, start: int, length: int) -> bytes:
        self.stream.seek(start)
        piece = self.stream.read(length)
        if len(piece) < length:
            raise OSError("the file ends within the picture")
        return piece


def _grid(page: ImageFileDirectory_v2, height: int) -> tuple[int, int, int]:
    """How many strips or tiles lie side by side, how many one below the other, and how often, for separate planes."""
    across = ceil(int(page[WIDTH]) / int(page[TILE_WIDTH])) if TILES in page else 1
    return across, ceil(int(page[HEIGHT]) / height), int(page.get(SAMPLES, 1)) if page.get(PLANES) == 2 else 1


def bands(stream: BinaryIO, number: int) -> Bands | None:
    """A page to be read in bands; None where it cannot be, as one long compressed strip."""
    page = _directories(stream)[number]
    width, rows = _size(page)
    compression, tiled = page.get(COMPRESSION, 1), TILES in page
    height = int(page[TILE_HEIGHT]) if tiled else min(int(page.get(ROWS, rows)), rows)
    starts, lengths = (page.get(tag, ()) for tag in ((TILES, TILE_BYTES) if tiled else (STRIPS, STRIP_BYTES)))
    across, down, planes = _grid(page, height)
    if compression == _OLD_JPEG or not len(starts) == len(lengths) == across * down * planes:
        return None
    bits = int(page.get(SAMPLES, 1)) // planes * int(max(page.get(BITS, (1,))))
    row = ceil(int(page[TILE_WIDTH] if tiled else width) * bits / 8)  # Bytes of a row of a strip or tile.
    if row * height <= LONGEST_PIECE and width * height <= MOST_PIXELS:
        return Bands(stream, page, tuple(zip(starts, lengths, strict=True)), height)
    if compression != 1 or page.get(PHOTOMETRIC) == _YCBCR or tiled or down > 1:
        return None
    short = max(1, 2**20 // row)  # An uncompressed page in one long strip for each plane is cut into short ones.
    tops = range(0, height, short)
    pieces = tuple((start + top * row, min(short, height - top) * row) for start in starts for top in tops)
    return Bands(stream, page, pieces, short)
