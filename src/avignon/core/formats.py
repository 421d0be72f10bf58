"""Which formats of pictures are read: a file is what its content says."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from avignon.core import tiff
from avignon.core.errors import ImageError

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000", "BMP", "HEIF")
"""What museums, scanners and cameras deliver, by Pillow's names; HEIF is read with the extra `heic` alone.

Formats with a history of decoder faults stay out (PSD, EPS, PDF, camera raw files), and so do those that hold drawings
instead of pixels.
"""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".gif", ".avif"),
    *(".jp2", ".j2k", ".jpx", ".jpf", ".bmp", ".heic", ".heif", ".hif"),
)
"""Names that pictures of these formats go by."""

_UNREAD = (
    (b"8BPS", "a Photoshop file (PSD)"),
    (b"%!PS", "PostScript (EPS)"),
    (b"\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (b"%PDF", "a PDF"),
    (b"gimp xcf", "a GIMP file (XCF)"),
    (b"AT&TFORM", "a DjVu file"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
)
"""First bytes of what people send as pictures and what is not read."""

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
"""Of HEVC-coded pictures (ISO 23008-12, annex B)."""

BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, struct.error, zlib.error)
"""What Pillow's decoders raise at damaged files; found by damaging files."""


@contextmanager
def identified(source: Path | bytes) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """A picture that is not decoded yet, and its file.

    Whatever its decoder trips over within the block becomes an `ImageError`, one line that names the file.
    """
    name = str(source) if isinstance(source, Path) else "image"
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # Whoever decodes it has a limit of its own.
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        # Ignored are Pillow's own size warning, and its remarks on damaged metadata.
        with warnings.catch_warnings(action="ignore"), file as stream, _opened(stream) as image:
            yield image, stream
    except ImageError as unusable:
        raise ImageError(f"{name}: {unusable}") from None
    except OSError as refused:  # What the disk says has a number; what a decoder says has none.
        said = f"cannot be opened: {refused.strerror}" if refused.errno else f"truncated or damaged: {refused}"
        raise ImageError(f"{name}: {said}") from None
    except BROKEN as broken:
        raise ImageError(f"{name}: truncated or damaged: {broken}") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _opened(stream: BinaryIO) -> Image.Image:
    head = stream.read(64)
    stream.seek(0)
    try:
        return Image.open(stream, formats=_formats(head))
    except UnidentifiedImageError:
        raise ImageError(_unidentified(head, stream)) from None


def _formats(head: bytes) -> tuple[str, ...]:
    """What a file may be; HEIC is told by its brands, and read where the extra is installed."""
    brands = {head[8:12], *(head[place : place + 4] for place in range(16, head[3] if head[:3] == bytes(3) else 0, 4))}
    if head[4:8] != b"ftyp" or b"avif" in brands or not brands & _HEIF_BRANDS:
        return FORMATS[:-1]
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ImageError('HEIC, which is read with an extra: pip install "avignon[heic]"') from None
    register_heif_opener()
    return FORMATS[-1:]


def _unidentified(head: bytes, stream: BinaryIO) -> str:
    """Why a file is not read, by its first bytes."""
    for magic, kind in _UNREAD:
        if head.startswith(magic):
            return f"{kind}, which is not read; save it as TIFF, PNG or JPEG"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return f"{tiff.kind(stream)}, which is not read; save it with 8 or 16 bits a channel, grey or RGB"
    return f"not a picture; allowed are {', '.join(FORMATS)}"
