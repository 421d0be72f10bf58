"""Makers of picture files that a careless reader trips over; each writes one file and returns its path."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def plain(folder: Path, *, name: str = "plain.png", size: tuple[int, int] = (96, 64)) -> Path:
    """A sound RGB picture, for comparison: red in the top left corner, blue elsewhere."""
    return _save(_cornered(size), folder / name)


def truncated_jpeg(folder: Path, *, name: str = "truncated.jpg", size: tuple[int, int] = (320, 240)) -> Path:
    """A JPEG whose second half is missing: its header still tells the full size."""
    out = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(out, "JPEG", quality=90)
    return _write(folder / name, out.getvalue()[: out.tell() // 2])


def not_an_image(folder: Path, *, name: str = "page.jpg") -> Path:
    """A web page under a picture's name."""
    return _write(folder / name, b"<!doctype html><title>404</title><p>There is no such picture.\n" * 20)


def empty(folder: Path, *, name: str = "empty.jpg") -> Path:
    """A file of no bytes."""
    return _write(folder / name, b"")


def one_pixel(folder: Path, *, name: str = "pixel.png") -> Path:
    """A sound picture of one pixel."""
    return _save(Image.new("RGB", (1, 1), (200, 30, 30)), folder / name)


def bomb(folder: Path, *, name: str = "bomb.png", side: int = 40_000) -> Path:
    """A sound PNG of a few hundred kilobytes that unpacks, as RGB, to 4.8 GB; never held unpacked here."""
    row = bytes(1 + (side + 7) // 8)  # a filter byte, then one bit a pixel
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return _write(folder / name, b"\x89PNG\r\n\x1a\n" + chunks)


def cmyk_jpeg(folder: Path, *, name: str = "cmyk.jpg", size: tuple[int, int] = (96, 64)) -> Path:
    """A JPEG in printer's inks, as scans for print are: cyan on the left, yellow on the right."""
    picture = Image.new("CMYK", size, (255, 0, 0, 0))
    picture.paste((0, 0, 255, 0), (size[0] // 2, 0, *size))
    return _save(picture, folder / name)


def sixteen_bit_png(folder: Path, *, name: str = "sixteen.png", size: tuple[int, int] = (96, 64)) -> Path:
    """A greyscale PNG of 16 bits a pixel (Pillow's I;16), a ramp from black to white: clipping turns it all white."""
    ramp = np.linspace(0, 65535, size[0]).astype(np.uint16)
    return _save(Image.fromarray(np.tile(ramp, (size[1], 1))), folder / name)


def rgba_png(folder: Path, *, name: str = "rgba.png", size: tuple[int, int] = (96, 64)) -> Path:
    """A PNG whose left half is see-through: black where transparency is merely dropped."""
    picture = Image.new("RGBA", size, (40, 160, 60, 255))
    picture.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    return _save(picture, folder / name)


def palette_png(folder: Path, *, name: str = "palette.png", size: tuple[int, int] = (96, 64)) -> Path:
    """A PNG of colour numbers (Pillow's P)."""
    return _save(_cornered(size).quantize(4), folder / name)


def animated_gif(folder: Path, *, name: str = "animated.gif", size: tuple[int, int] = (96, 64)) -> Path:
    """A GIF of three frames: red, green, blue."""
    first, *rest = (Image.new("RGB", size, colour) for colour in ("red", "lime", "blue"))
    path = folder / name
    first.save(path, save_all=True, append_images=rest, duration=100)
    return path


def exif_rotated_jpeg(
    folder: Path, *, name: str = "rotated.jpg", size: tuple[int, int] = (96, 64), orientation: int = 6
) -> Path:
    """A JPEG that says how to turn it: at 6, upright it is 64×96 with its red corner at the top right."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = folder / name
    _cornered(size).save(path, quality=95, exif=exif)
    return path


def wide_gamut(
    folder: Path,
    *,
    name: str = "wide.png",
    size: tuple[int, int] = (96, 64),
    colour: tuple[int, int, int] = (200, 60, 60),
) -> Path:
    """A picture in Display P3, which says so in its profile: read as sRGB, its colours are too dull."""
    path = folder / name
    Image.new("RGB", size, colour).save(path, icc_profile=display_p3())
    return path


def broken_profile(folder: Path, *, name: str = "profile.png", size: tuple[int, int] = (96, 64)) -> Path:
    """A sound picture whose colour profile is not one."""
    path = folder / name
    _cornered(size).save(path, icc_profile=b"no profile at all" * 20)
    return path


AWKWARD: dict[str, Callable[[Path], Path]] = {
    "truncated_jpeg": truncated_jpeg,
    "not_an_image": not_an_image,
    "empty": empty,
    "one_pixel": one_pixel,
    "bomb": bomb,
    "cmyk_jpeg": cmyk_jpeg,
    "sixteen_bit_png": sixteen_bit_png,
    "rgba_png": rgba_png,
    "palette_png": palette_png,
    "animated_gif": animated_gif,
    "exif_rotated_jpeg": exif_rotated_jpeg,
    "wide_gamut": wide_gamut,
    "broken_profile": broken_profile,
}
"""Every maker by name, to run one test over all."""


def display_p3() -> bytes:
    """An ICC v4 matrix profile with Display P3's primaries, adapted to D50, and sRGB's curve."""
    curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return _profile(
        {
            b"desc": _text("Display P3 (made for a test)"),
            b"cprt": _text("No rights reserved"),
            b"wtpt": _xyz(0.9642, 1.0, 0.8249),
            b"rXYZ": _xyz(0.51512, 0.24120, -0.00105),
            b"gXYZ": _xyz(0.29198, 0.69225, 0.04189),
            b"bXYZ": _xyz(0.15710, 0.06657, 0.78407),
            b"rTRC": curve,
            b"gTRC": curve,
            b"bTRC": curve,
        }
    )


def grey_gamma(gamma: float) -> bytes:
    """An ICC profile of greys with a plain power curve."""
    curve = b"para" + bytes(4) + struct.pack(">HH", 0, 0) + _fixed(gamma)
    tags = {b"desc": _text("Grey (made for a test)"), b"cprt": _text("No rights reserved")}
    return _profile(tags | {b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"kTRC": curve}, b"GRAY")


def _profile(tags: dict[bytes, bytes], space: bytes = b"RGB ") -> bytes:
    """An ICC file (ICC.1:2010, section 7): a header of 128 bytes, the table of tags, the tags."""
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(">I4sI4s4s4s12s4s", start + len(body), bytes(4), 0x04000000, b"mntr", space, b"XYZ ",
                         struct.pack(">6H", 2026, 1, 1, 0, 0, 0), b"acsp")  # fmt: skip
    header = header.ljust(68, b"\0") + _fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + table + body


def _text(text: str) -> bytes:
    """A multiLocalizedUnicodeType of one text in one language."""
    words = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(words), 28) + words


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _fixed(*values: float) -> bytes:
    """ICC's s15Fixed16Numbers."""
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _cornered(size: tuple[int, int]) -> Image.Image:
    """Blue, with a red top left quarter: turned or mirrored, it shows."""
    picture = Image.new("RGB", size, (30, 60, 200))
    ImageDraw.Draw(picture).rectangle((0, 0, size[0] // 2 - 1, size[1] // 2 - 1), fill=(220, 30, 30))
    return picture


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _save(picture: Image.Image, path: Path) -> Path:
    picture.save(path)
    return path


def _write(path: Path, body: bytes) -> Path:
    path.write_bytes(body)
    return path
