"""Pixels of any kind → 8-bit sRGB, a piece of a picture at a time; or the reason why they cannot be converted right."""

import io
import struct
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from avignon.core import tiff
from avignon.core.errors import ImageError

_SRGB = ImageCms.createProfile("sRGB")
_LAB = ImageCms.createProfile("LAB")
_SAVE = "save it with 8 or 16 bits a channel"


class Colours:
    """How the pixels of an opened picture are meant; an `ImageError` where nothing tells it."""

    def __init__(self, image: Image.Image, stream: BinaryIO) -> None:
        tags: Any = getattr(image, "tag_v2", {})
        if image.mode == "I":
            raise ImageError(f"greys of 32 bits or with a sign: which are black and white is not known; {_SAVE}")
        if tags and image.mode[0] in "1LIF" and tiff.PHOTOMETRIC not in tags:
            raise ImageError("a TIFF that does not say whether 0 is black or white; save it anew")
        if tags.get(tiff.PLANES) == 2 and tags.get(tiff.COMPRESSION, 1) == 1 and max(tags.get(tiff.BITS, (1,))) > 8:
            # Pillow takes each byte for a sample.
            raise ImageError(
                "a TIFF of 16 bits in separate uncompressed planes, which is not read; save it interleaved"
            )
        # Greys of up to 8 bits are made positive by Pillow.
        self._is_negative = bool(tags) and tags.get(tiff.PHOTOMETRIC) == 0 and image.mode[0] in "IF"
        self._white = 2 ** max(tags.get(tiff.BITS, (16,))) - 1
        self._transparency = image.info.get("transparency")
        self._profile = _profile(image, stream)

    def srgb(self, piece: Image.Image) -> Image.Image:
        """A piece of the picture, in the picture's own mode, as 8-bit RGB in sRGB; transparency is laid on white."""
        plain = _opaque(self._eight_bit(piece))
        if transform := _transform(self._profile, plain.mode):
            return transform.apply(plain)
        plain = plain.convert("RGB")
        plain.info.pop("icc_profile", None)  # It is damaged or of another kind of picture: whoever saves this has none.
        return plain

    def _eight_bit(self, piece: Image.Image) -> Image.Image:
        """Scale greys of 12 and 16 bits, and floating-point ones, by their full range: Pillow itself clips them."""
        if piece.mode.startswith("I"):
            return Image.fromarray(self._greys[np.asarray(piece)])
        if piece.mode != "F":
            return piece
        values = np.asarray(piece, dtype=np.float64)
        # They are 0 to 1 by custom: of any other range nothing says which values are white.
        if not ((values > -0.001) & (values < 1.001)).all():
            raise ImageError(f"floating-point greys of {values.min():g} to {values.max():g}; 0 to 1 are read; {_SAVE}")
        return Image.fromarray(self._scaled(values, 1.0))

    @cached_property
    def _greys(self) -> NDArray[np.uint8]:
        """The grey of 8 bits for each value of up to 16, shaped (65536,)."""
        greys = self._scaled(np.arange(65536.0), self._white)
        if isinstance(self._transparency, int):
            greys[self._transparency] = 255
        return greys

    def _scaled(self, values: NDArray[np.float64], white: float) -> NDArray[np.uint8]:
        values = white - values if self._is_negative else values
        return (values / (white / 255)).round().clip(0, 255).astype(np.uint8)


def _opaque(piece: Image.Image) -> Image.Image:
    """In one of the modes that profiles are for; whatever is transparent, laid on white."""
    if piece.mode in ("La", "RGBa"):  # Colours that were multiplied by their alpha.
        piece = piece.convert(piece.mode.upper())
    if ("A" in piece.getbands() and piece.mode != "LAB") or "transparency" in piece.info:
        laid = Image.alpha_composite(Image.new("RGBA", piece.size, "white"), piece.convert("RGBA"))
        return laid.getchannel(0) if piece.mode in ("L", "LA") else laid.convert("RGB")
    return piece if piece.mode in ("RGB", "CMYK", "L", "LAB") else piece.convert("RGB")


@lru_cache(maxsize=2)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None where a damaged profile, or one of another kind of picture, says nothing."""
    try:
        source = _LAB if mode == "LAB" else ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def _profile(image: Image.Image, stream: BinaryIO) -> bytes:
    """The ICC profile; empty where the colours are sRGB. `ImageError` where they are described in a way not read."""
    if image.format == "JPEG2000":
        return _jp2_profile(stream)
    profile = image.info.get("icc_profile")
    if image.format in ("AVIF", "HEIF") and not profile:
        _check_video_colours(stream)
    return bytes(profile or b"")


_SRGB_LIKE = {12, 15, 16, 17, 18, 0}
"""Enumerated colour spaces of JPEG 2000 (ISO 15444-1, table I.10; 15444-2, M.25) that Pillow converts."""


def _jp2_profile(stream: BinaryIO) -> bytes:
    """The ICC profile in a JPEG 2000's box `colr`, which Pillow passes over (ISO 15444-1, I.5.3.3)."""
    stream.seek(0)
    if stream.read(4) == b"\xff\x4f\xff\x51":
        return b""  # A bare codestream has no boxes.
    for kind, start, end in _boxes(stream, 0, 2**63):
        for inner, first, last in _boxes(stream, start, end) if kind == b"jp2h" else ():
            if inner == b"colr":
                stream.seek(first)
                content = stream.read(last - first)
                if content[0] in (2, 3):
                    return content[3:]
                if (space := int.from_bytes(content[3:7], "big")) not in _SRGB_LIKE:
                    raise ImageError(f"JPEG 2000 in colour space {space}, which is not read; save it as sRGB")
                return b""
    return b""


def _boxes(stream: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and start and end of the content, of each box (ISO 15444-1, I.4)."""
    while place < end:
        stream.seek(place)
        head = stream.read(16)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head[:8])
        start = place + (16 if length == 1 else 8)
        length = struct.unpack(">Q", head[8:])[0] if length == 1 else length
        if kind == b"jp2c" or place + length < start:  # The pixels, or a last box without a length.
            return
        yield kind, start, place + length
        place += length


def _check_video_colours(stream: BinaryIO) -> None:
    """Refuse colours wider than sRGB by numbers (ISO 23091-2), which Pillow passes over: they would come out dull."""
    stream.seek(0)
    head = stream.read(65536)
    place = head.find(b"colrnclx")
    primaries, transfer = struct.unpack(">HH", head[place + 8 : place + 12]) if place >= 0 else (1, 13)
    if primaries in (9, 10, 11, 12, 22) or transfer in (8, 16, 17, 18):
        raise ImageError(
            f"colours by number (primaries {primaries}, transfer {transfer}), wider than sRGB and without a profile; "
            "save it as sRGB, or with an ICC profile"
        )
