"""Every format, kind of pixel and orientation: the right corner and colour, and the size that the header tells."""

import io
import struct
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from avignon.core import formats, imaging, png
from avignon.core.errors import ImageError
from avignon.curation import quality
from tests.support import images, tiffs
from tests.support.museum import draw
from tests.support.tiffs import Order, Page

RED, BLUE = (220, 30, 30), (30, 60, 200)
LIGHT, DARK = (204, 204, 204), (51, 51, 51)
SIZE = (96, 64)

CORNERS = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}
"""Where the corner at the top left comes to lie, by orientation."""

Colour = tuple[int, int, int]


def cornered(corner: Colour = RED, rest: Colour = BLUE) -> Image.Image:
    """A quarter at the top left in a colour of its own."""
    picture = Image.new("RGB", SIZE, rest)
    picture.paste(corner, (0, 0, SIZE[0] // 2, SIZE[1] // 2))
    return picture


def greys(light: int, dark: int, kind: type = np.uint8) -> NDArray[Any]:
    """The same in two levels, shaped (height, width)."""
    levels: NDArray[Any] = np.full((SIZE[1], SIZE[0]), dark, dtype=kind)
    levels[: SIZE[1] // 2, : SIZE[0] // 2] = light
    return levels


def seen(image: Image.Image, orientation: int = 1) -> list[Colour]:
    """The colours in the middle of the quarter that is the corner, and of the one across from it."""
    across, down = CORNERS[orientation]
    places = [(across, down), (1 - across, 1 - down)]
    found = [image.getpixel((image.width * (1 + 2 * x) // 4, image.height * (1 + 2 * y) // 4)) for x, y in places]
    return [(colour[0], colour[1], colour[2]) for colour in found if isinstance(colour, tuple)]


def close(found: list[Colour], *wanted: Colour, by: int = 8) -> bool:
    """Whether colours are those wanted, but for rounding and compression."""
    return bool(np.abs(np.array(found, dtype=int) - np.array(wanted)).max() <= by)


def lab(image: Image.Image) -> Image.Image:
    """As CIE L*a*b*."""
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    assert converted is not None
    converted.info.clear()
    return converted


def sixteen(image: Image.Image) -> Image.Image:
    """As 16-bit grey."""
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def floating(image: Image.Image) -> Image.Image:
    """As floating-point grey, 0 to 1."""
    return Image.fromarray((np.asarray(image.convert("L")) / 255).astype(np.float32))


def key(image: Image.Image) -> Image.Image:
    """As a palette in which nothing is transparent but a colour that is not there."""
    palette = image.quantize(4)
    palette.info["transparency"] = 3
    return palette


Kind = tuple[str, str, dict[str, Any]]

Make = Callable[[Image.Image], Image.Image]
PLAIN: dict[str, Make] = {
    mode: partial(Image.Image.convert, mode=mode) for mode in ("1", "L", "LA", "RGB", "RGBA", "CMYK")
}
MODES: dict[str, Make] = PLAIN | {
    "P": lambda image: image.quantize(4),
    "LAB": lab,
    "I;16": sixteen,
    "F": floating,
    "P and transparency": key,
}

KINDS: list[Kind] = [
    *(("JPEG", mode, {"quality": 95}) for mode in ("L", "RGB", "CMYK")),
    ("JPEG", "RGB", {"progressive": True, "quality": 95}),
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "P and transparency", "RGB", "RGBA", "I;16")),
    *(("TIFF", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "F")),
    *(("TIFF", mode, {"compression": "tiff_lzw"}) for mode in ("L", "RGB", "CMYK", "I;16")),
    ("TIFF", "RGB", {"compression": "jpeg", "quality": 95}),
    ("TIFF", "1", {"compression": "group4"}),
    *(("WEBP", mode, {"lossless": True}) for mode in ("RGB", "RGBA")),
    *(("AVIF", mode, {"quality": 95}) for mode in ("L", "RGB", "RGBA")),
]
"""Formats that carry an orientation."""

FLAT: list[Kind] = [
    *(("JPEG2000", mode, {}) for mode in ("L", "LA", "RGB", "RGBA", "I;16")),
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")),
    *(("GIF", mode, {}) for mode in ("L", "P")),
]
"""Formats that carry none."""


def saved(kind: Kind, orientation: int = 1) -> bytes:
    """The cornered picture in a format and mode."""
    form, mode, options = kind
    grey = mode in ("1", "L", "LA", "I;16", "F")
    picture = MODES[mode](
        cornered((255,) * 3, (0,) * 3) if mode == "1" else cornered(LIGHT, DARK) if grey else cornered()
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    picture.save(buffer, form, **(options | ({"exif": exif} if orientation > 1 else {})))
    return buffer.getvalue()


def wanted(mode: str) -> tuple[Colour, Colour]:
    """The corner's colour and the other one."""
    if mode == "1":
        return (255, 255, 255), (0, 0, 0)
    return (LIGHT, DARK) if mode in ("L", "LA", "I;16", "F") else (RED, BLUE)


def named(value: object) -> str | None:
    """A kind as a test's name has it."""
    return " ".join((value[0], value[1], *map(str, value[2].values()))) if isinstance(value, tuple) else None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_corner_colour_and_size_are_right(kind: Kind, orientation: int) -> None:
    """Turned upright by EXIF, the corner is where it belongs, in its colour; the header tells the same size."""
    content = saved(kind, orientation)
    image = imaging.load(content)
    size = SIZE[::-1] if orientation >= 5 else SIZE
    assert (image.mode, image.size, imaging.size_of(content)) == ("RGB", size, size)
    assert close(seen(image, orientation), *wanted(kind[1]))


@pytest.mark.parametrize("kind", FLAT, ids=named)
def test_formats_without_orientation_are_read(kind: Kind) -> None:
    """JPEG 2000, BMP and GIF come out in their colours (C2)."""
    content = saved(kind)
    image = imaging.load(content)
    assert (image.mode, image.size, imaging.size_of(content)) == ("RGB", SIZE, SIZE)
    assert close(seen(image), *wanted(kind[1]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [*KINDS, *FLAT], ids=named)
def test_reduced_copies_and_parts_are_those_of_the_whole(
    kind: Kind, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture beyond the bound is all of it, reduced, whatever its orientation, and so are its crops (C5)."""
    if kind in FLAT and orientation > 1:
        return
    content = saved(kind, orientation)
    whole = imaging.load(content)
    monkeypatch.setattr(imaging, "BOUND", SIZE[0] * SIZE[1] // 4)
    scan = imaging.scan(content)
    assert scan.size == whole.size
    assert scan.image.tobytes() == whole.reduce(2).tobytes()
    for box, crop in imaging.crops(content, 3, 16):
        part = whole.crop(box).reduce(2)
        assert crop.tobytes() == imaging.fit(part, (0, 0, *part.size), 16).tobytes()


@pytest.mark.parametrize(("form", "options"), [("JPEG", {"quality": 5}), ("TIFF", {"compression": "tiff_lzw"})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_middle_is_at_full_resolution(
    form: str, options: dict[str, Any], orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a reduced picture the middle is the whole's own pixels, in step with a JPEG's blocks as they lie (C5)."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    draw(1, 613, 407).save(buffer, form, exif=exif, **options)
    whole = imaging.load(buffer.getvalue())
    monkeypatch.setattr(imaging, "BOUND", 300 * 300)
    monkeypatch.setattr(imaging, "MIDDLE", 256)
    middle = imaging.scan(buffer.getvalue()).middle
    assert middle is not None
    assert middle.size == (256, 256)
    about = [(side - 256) // 2 for side in whole.size]
    near = [(left, top) for left in range(about[0] - 8, about[0] + 9) for top in range(about[1] - 8, about[1] + 9)]
    assert any(whole.crop((x, y, x + 256, y + 256)).tobytes() == middle.tobytes() for x, y in near)
    blocks = quality.blocking(np.asarray(middle.convert("L"), dtype=np.float64))
    assert (blocks > 1.5) is (form == "JPEG")


SUFFIXED = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf"), "JPEG2000"),
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".avif": "AVIF",
    ".bmp": "BMP",
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIF"),
}


def test_every_suffix_has_a_format_that_is_read() -> None:
    """The names that a folder is searched for are those of the formats that are read, and no format has none (C2)."""
    assert set(SUFFIXED) == set(formats.SUFFIXES)
    assert set(SUFFIXED.values()) == set(formats.FORMATS)


@pytest.mark.parametrize("suffix", [suffix for suffix, form in SUFFIXED.items() if form != "HEIF"])
def test_content_decides_not_the_name(tmp_path: Path, suffix: str) -> None:
    """A PNG under any picture's name is a PNG, and a picture of the name's own format is read under it (C2)."""
    path = tmp_path / f"picture{suffix}"
    for form in ("PNG", SUFFIXED[suffix]):
        cornered().save(path, form)
        assert close(seen(imaging.load(path)), RED, BLUE, by=24)


def ftyp(*brands: bytes) -> bytes:
    """The first box of a HEIF file, and nothing behind it."""
    return struct.pack(">I4s", 16 + 4 * len(brands[1:]), b"ftyp") + brands[0] + bytes(4) + b"".join(brands[1:])


@pytest.mark.parametrize("brands", [(b"heic", b"mif1", b"heic"), (b"mif1", b"heic"), (b"heix",)])
def test_heic_without_its_extra_names_it(
    tmp_path: Path, brands: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A HEIC file, whatever it is called, gives a line with the extra that reads it (C2)."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "phone.jpg"
    path.write_bytes(ftyp(*brands) + bytes(200))
    for read in (imaging.size_of, imaging.load):
        with pytest.raises(ImageError, match=r'phone\.jpg: HEIC, .*pip install "avignon\[heic\]"'):
            read(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_with_its_extra_is_read(orientation: int) -> None:
    """HEIC is upright, in its colours, and of the size that its header tells (C2)."""
    heif = pytest.importorskip("pillow_heif")
    picture, exif, buffer = heif.from_pillow(cornered()), Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    picture.info["exif"] = exif.tobytes()
    picture.save(buffer, quality=95)
    content = buffer.getvalue()
    image = imaging.load(content)
    assert imaging.size_of(content) == image.size == (SIZE[::-1] if orientation >= 5 else SIZE)
    assert close(seen(image, orientation), RED, BLUE, by=12)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"8BPS\0\1", "a Photoshop file (PSD)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript (EPS)"),
        (b"%PDF-1.7", "a PDF"),
        (b"gimp xcf v011", "a GIMP file (XCF)"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a", "JPEG XL"),
        (b"AT&TFORM", "a DjVu file"),
    ],
)
def test_formats_that_stay_out_are_named(tmp_path: Path, head: bytes, kind: str) -> None:
    """A file of a format that is not read, under a picture's name, says what it is and what to save it as (C2)."""
    path = tmp_path / "picture.tif"
    path.write_bytes(head + bytes(500))
    for read in (imaging.size_of, imaging.load):
        with pytest.raises(ImageError) as caught:
            read(path)
        assert str(caught.value) == f"{path}: {kind}, which is not read; save it as TIFF, PNG or JPEG"


@pytest.mark.parametrize("form", ["GIF", "WEBP", "AVIF", "PNG"])
def test_animations_are_refused_by_their_header(form: str) -> None:
    """Several frames are a reason that the header alone gives (C2)."""
    first, *rest = (Image.new("RGB", (32, 24), colour) for colour in ("red", "lime", "blue"))
    buffer = io.BytesIO()
    first.save(buffer, form, save_all=True, append_images=rest, duration=100)
    for read in (imaging.size_of, imaging.load):
        with pytest.raises(ImageError, match=r"animated or of several pages \(3\); one picture is needed"):
            read(buffer.getvalue())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("rows", [0, 7])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_greys_are_positive(
    tmp_path: Path, photometric: int, bits: int, rows: int, deflate: bool, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grey TIFF, WhiteIsZero or not, is positive and of full range at every depth, or a reason (C4)."""
    top = 2**bits - 1
    light, dark = (top, 0) if bits == 1 else (round(0.8 * top), round(0.2 * top))
    levels = greys(light, dark, np.uint16 if bits > 8 else np.uint8)
    page = Page(levels if photometric else top - levels, photometric, bits, rows=rows, deflate=deflate)
    path = tiffs.write(tmp_path / "grey.tif", page, order=order)
    if bits == 12 and (photometric == 0 or order == ">"):
        with pytest.raises(
            ImageError, match=r"a TIFF of 1 × 12 bits, photometric interpretation \d, which is not read"
        ):
            imaging.load(path)
        return
    shades = [(round(level / top * 255),) * 3 for level in (light, dark)]
    assert close(seen(imaging.load(path)), *shades, by=1)
    monkeypatch.setattr(imaging, "BOUND", SIZE[0] * SIZE[1] // 4)
    assert close(seen(imaging.load(path)), *shades, by=1)


@pytest.mark.parametrize("photometric", [0, 1])
def test_floating_greys_are_positive(tmp_path: Path, photometric: int) -> None:
    """Floating-point greys of 0 to 1 keep their level, also in a dark picture, and are positive (C4)."""
    levels = greys(0, 0, np.float32) + np.where(greys(1, 0) > 0, 0.4, 0.2).astype(np.float32)
    path = tiffs.write(tmp_path / "float.tif", Page(levels if photometric else 1 - levels, photometric))
    assert close(seen(imaging.load(path)), (102,) * 3, (51,) * 3, by=1)


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        (greys(900, -3, np.float32), r"floating-point greys of -3 to 900; 0 to 1 are read; save it with 8 or 16 bits"),
        (greys(1, 0, np.float32) * np.nan, r"floating-point greys of nan to nan"),
        (greys(9, 1, np.uint32), r"greys of 32 bits or with a sign"),
        (greys(9, 1, np.int32), r"greys of 32 bits or with a sign"),
        (greys(9, 1, np.int16), r"greys of 32 bits or with a sign"),
        (
            greys(9, 1, np.float64),
            r"a TIFF of 1 × 64 floating-point bits, photometric interpretation 1, which is not read",
        ),
        (np.dstack([greys(1, 0, np.float32)] * 3), r"a TIFF of 3 × 32 floating-point bits"),
        (np.dstack([greys(9, 1, np.uint16)] * 2), r"a TIFF of 2 × 16 bits"),
    ],
    ids=["float range", "float nan", "uint32", "int32", "int16", "float64", "float colour", "16-bit grey and alpha"],
)
def test_greys_of_unknown_range_say_so(tmp_path: Path, levels: NDArray[Any], reason: str) -> None:
    """What says nothing of its black and white is a reason and not a black, white or stretched picture (C4)."""
    path = tiffs.write(tmp_path / "odd.tif", Page(levels, tags={338: 2} if levels.shape[2:] == (2,) else {}))
    with pytest.raises(ImageError, match=reason):
        imaging.load(path)
    if levels.dtype.kind != "f" or levels.ndim == 3 or levels.itemsize == 8:  # Ranges are in no header.
        with pytest.raises(ImageError, match=reason):
            imaging.size_of(path)


def test_grey_that_does_not_say_which_is_black_is_refused(tmp_path: Path) -> None:
    """A TIFF without the tag that tells a negative from a positive is a reason (C4)."""
    path = tiffs.write(tmp_path / "odd.tif", Page(greys(200, 50), tags={262: None}))
    with pytest.raises(ImageError, match="does not say whether 0 is black or white"):
        imaging.size_of(path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", [{}, {"rows": 7}, {"tile": 16}, {"planar": True, "rows": 7}], ids=str)
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_colour_tiffs_of_any_layout_are_read(
    tmp_path: Path, order: Order, layout: dict[str, Any], deflate: bool, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 and 16 bits, either byte order, strips, tiles, planes: each pixel is right, also in bands (C4, C5)."""
    high, low = np.random.default_rng(0).integers(0, 256, (2, SIZE[1], SIZE[0], 3)).astype(kind)
    samples = high * 256 + low if kind is np.uint16 else high
    path = tiffs.write(tmp_path / "colour.tif", Page(samples, 2, deflate=deflate, **layout), order=order)
    if kind is np.uint16 and "planar" in layout and not deflate:
        with pytest.raises(ImageError, match="16 bits in separate uncompressed planes, which is not read"):
            imaging.size_of(path)
        return
    whole = imaging.load(path)
    assert (np.asarray(whole) == high).all()
    monkeypatch.setattr(imaging, "BOUND", SIZE[0] * SIZE[1] // 4)
    assert imaging.load(path).tobytes() == whole.reduce(2).tobytes()


def test_sixteen_bit_png_with_alpha_or_key_is_on_white(tmp_path: Path) -> None:
    """A PNG of 16 bits is white where its alpha or its one transparent colour says so, and as it was elsewhere (C4)."""
    grey = Image.fromarray(greys(60000, 12336, np.uint16))
    grey.save(tmp_path / "key.png", transparency=60000)
    assert close(seen(imaging.load(tmp_path / "key.png")), (255,) * 3, (48,) * 3, by=1)
    alpha = np.dstack([greys(0, 51400, np.uint16)] * 3 + [greys(0, 65535, np.uint16)])
    (tmp_path / "alpha.png").write_bytes(sixteen_bit_png(alpha))
    assert close(seen(imaging.load(tmp_path / "alpha.png")), (255,) * 3, (200,) * 3, by=1)


def sixteen_bit_png(samples: NDArray[Any], key: bytes = b"") -> bytes:
    """A colour PNG of 16 bits, with alpha where there are four samples; the key is a colour that is transparent."""
    height, width, count = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, 6 if count == 4 else 2, 0, 0, 0)
    chunks = [(b"IHDR", header), *([(b"tRNS", key)] if key else []), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(images.chunk(*chunk) for chunk in chunks)


def test_sixteen_bit_colour_png_is_scaled() -> None:
    """A colour PNG of 16 bits keeps its colours, none clipped to white; a transparent one is white (C4)."""
    samples = np.asarray(cornered()).astype(np.uint16) * 257
    assert close(seen(imaging.load(sixteen_bit_png(samples))), RED, BLUE, by=1)
    keyed = sixteen_bit_png(samples, struct.pack(">3H", *(level * 257 for level in RED)))
    assert close(seen(imaging.load(keyed)), (255,) * 3, BLUE, by=1)


def display_p3_jp2(picture: Image.Image) -> bytes:
    """A JPEG 2000 whose box `colr` holds Display P3's profile, where Pillow writes a number."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG2000")
    content, profile = buffer.getvalue(), images.display_p3()
    header, colr = content.index(b"jp2h") - 4, content.index(b"colr") - 4
    size, old = (int.from_bytes(content[place : place + 4], "big") for place in (header, colr))
    box = struct.pack(">I4sBBB", 11 + len(profile), b"colr", 2, 0, 0) + profile
    content = content[:colr] + box + content[colr + old :]
    return content[:header] + struct.pack(">I", size + len(box) - old) + content[header + 4 :]


def test_profile_of_jpeg_2000_is_applied() -> None:
    """A JPEG 2000 with a profile comes out with the colours that the profile gives, as a PNG with it does (C4)."""
    picture, png = Image.new("RGB", SIZE, (200, 60, 60)), io.BytesIO()
    picture.save(png, "PNG", icc_profile=images.display_p3())
    by_png, by_jp2 = imaging.load(png.getvalue()), imaging.load(display_p3_jp2(picture))
    assert close(seen(by_jp2), *seen(by_png), by=2)
    assert not close(seen(by_jp2), (200, 60, 60), (200, 60, 60), by=8)


def test_colour_space_of_jpeg_2000_that_is_not_read_says_so() -> None:
    """A JPEG 2000 in CIE L*a*b* (14) is a reason and not a wrong picture (C4)."""
    content = saved(("JPEG2000", "RGB", {}))
    assert content.count(struct.pack(">4sBBBI", b"colr", 1, 0, 0, 16)) == 1
    content = content.replace(
        struct.pack(">4sBBBI", b"colr", 1, 0, 0, 16), struct.pack(">4sBBBI", b"colr", 1, 0, 0, 14)
    )
    with pytest.raises(ImageError, match="JPEG 2000 in colour space 14, which is not read"):
        imaging.size_of(content)


@pytest.mark.parametrize(("primaries", "transfer"), [(9, 16), (12, 13), (1, 18), (9, 1)])
def test_wide_avif_without_a_profile_says_so(primaries: int, transfer: int) -> None:
    """An AVIF whose numbers say a wide gamut or high dynamic range is a reason; with a profile, that holds (C4)."""
    content = saved(("AVIF", "RGB", {}))
    place = content.index(b"colrnclx") + 8
    numbers = struct.pack(">HH", primaries, transfer)
    with pytest.raises(ImageError, match=rf"primaries {primaries}, transfer {transfer}"):
        imaging.size_of(content[:place] + numbers + content[place + 4 :])
    content = saved(("AVIF", "RGB", {"icc_profile": images.display_p3()}))
    place = content.index(b"colrnclx") + 8
    assert imaging.size_of(content[:place] + numbers + content[place + 4 :]) == SIZE


PROFILES = {
    "damaged": b"no profile at all" * 20,
    "cut": images.display_p3()[:200],
    "of L*a*b*": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    "of colours": images.display_p3(),
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "LA", "CMYK"])
def test_profile_of_another_kind_is_left_out(mode: str, form: str, profile: str) -> None:
    """A profile that does not fit changes no colour, and is not handed on to whoever saves the picture (C4)."""
    if (form, mode) in (("JPEG", "LA"), ("PNG", "CMYK")) or (form == "WEBP" and profile == "of colours"):
        return  # There is no such picture; WebP has colours only, which the profile fits.
    content = saved((form, mode, {"icc_profile": PROFILES[profile], "quality": 95}))
    image = imaging.load(content)
    assert close(seen(image), *wanted(mode), by=10)
    assert "icc_profile" not in image.info
    with Image.open(io.BytesIO(png.png_bytes(image))) as kept:
        assert "icc_profile" not in kept.info


def test_grey_profile_holds_for_grey_with_alpha() -> None:
    """A grey profile is applied to a grey picture, with alpha or without, in 8 bits or 16 (C4)."""
    grey = images.grey_gamma(1.0)
    found = []
    for kind in ("L", "LA", "I;16"):
        content = saved(("PNG", kind, {"icc_profile": grey}))
        found.append(seen(imaging.load(content)))
    assert found[0] == found[1] == found[2]
    assert close(found[0], (231,) * 3, (124,) * 3, by=2)  # 0.8 and 0.2 of full light, as sRGB codes them.


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "JPEG2000"])
def test_decoders_that_can_halve_do_so_before_too_much_memory(
    form: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A progressive JPEG, or JPEG 2000, of many pixels is decoded at half its size; it tells its true one (C5)."""
    if form == "JPEG2000" and orientation > 1:
        return
    content = saved((form, "RGB", {"progressive": True, "quality": 95} if form == "JPEG" else {}), orientation)
    size = SIZE[::-1] if orientation >= 5 else SIZE
    whole = imaging.crops(content, 2, 16)
    monkeypatch.setattr(imaging, "BOUND", SIZE[0] * SIZE[1] // 4)
    monkeypatch.setattr(imaging, "MAX_BYTES", SIZE[0] * SIZE[1] * 6)
    scan = imaging.scan(content)
    assert (scan.size, imaging.size_of(content)) == (size, size)
    assert scan.image.size == (size[0] // 2, size[1] // 2)
    assert close(seen(scan.image, orientation), RED, BLUE, by=12)
    for (box, crop), (true, other) in zip(imaging.crops(content, 2, 16), whole, strict=True):
        assert box == true
        assert np.abs(np.asarray(crop).astype(int) - np.asarray(other)).mean() < 8


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (("JPEG", "RGB", {"progressive": True, "subsampling": 0}), "a progressive JPEG"),
        (("WEBP", "RGB", {}), "WEBP"),
        (("AVIF", "RGB", {}), "AVIF"),
    ],
    ids=["progressive", "WebP", "AVIF"],
)
def test_what_would_take_too_much_memory_says_so(kind: Kind, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that its decoder cannot unpack within the bound is a reason that the header gives (C5)."""
    content = saved(kind)
    monkeypatch.setattr(imaging, "MAX_BYTES", SIZE[0] * SIZE[1] * 6)
    for read in (imaging.size_of, imaging.load):
        with pytest.raises(
            ImageError, match=rf"96×64 pixels, which as {what} take .* GiB to decode; at most .* are spent"
        ):
            read(content)


@pytest.mark.parametrize("size", [(200_000_000, 1), (1, 200_000_000), (1_000_001, 2)])
def test_endless_pictures_are_refused(size: tuple[int, int]) -> None:
    """A picture of few pixels across and very many along is a reason before anything is decoded (C5)."""
    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(images.chunk(*chunk) for chunk in chunks)
    with pytest.raises(ImageError, match=rf"{size[0]}×{size[1]} pixels; at most 1,000,000 on a side are decoded"):
        imaging.size_of(content)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_pictures_without_pixels_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    """No width or no height is a reason, in PNG, BMP, TIFF and GIF (C5)."""
    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + b"".join(images.chunk(*each) for each in [(b"IHDR", header), (b"IEND", b"")])
    bmp = b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, *size, 1, 24, 0, 0, 0, 0, 0, 0)
    tif = tiffs.write(tmp_path / "x.tif", Page(np.zeros((4, 4), np.uint8), tags={256: size[0], 257: size[1]}))
    gif = b"GIF89a" + struct.pack("<HHBBB", *size, 0, 0, 0) + b";"
    for content in (png, bmp, tif.read_bytes(), gif):
        with pytest.raises(ImageError):
            imaging.load(content)


@pytest.mark.parametrize("size", [(3, 100_000), (100_000, 3)])
def test_narrow_pictures_keep_within_the_bound(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """However narrow a picture is, its copy is within the bound, and the measures are numbers (C5)."""
    buffer = io.BytesIO()
    Image.new("RGB", size, RED).save(buffer, "PNG")
    monkeypatch.setattr(imaging, "BOUND", 10_000)
    scan = imaging.scan(buffer.getvalue())
    assert scan.size == size
    assert scan.image.width * scan.image.height <= 10_000
    assert all(np.isfinite(value) for value in vars(quality.measure(scan.image, scan.middle)).values())
    assert [crop.size for _, crop in imaging.crops(buffer.getvalue(), 2, 8)] == [(8, 8)] * 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_behind_the_pixels_of_a_png_is_read(orientation: int) -> None:
    """EXIF data may stand behind a PNG's pixels; where none does, no pixel is decoded to tell the size (C2, C5)."""
    content = saved(("PNG", "RGB", {}), orientation)
    if orientation > 1:
        place = content.index(b"eXIf") - 4
        length = 12 + int.from_bytes(content[place : place + 4], "big")
        exif, content = content[place : place + length], content[:place] + content[place + length :]
        content = content[:-12] + exif + content[-12:]
    size = SIZE[::-1] if orientation >= 5 else SIZE
    assert imaging.size_of(content) == imaging.load(content).size == size
    assert close(seen(imaging.load(content), orientation), RED, BLUE)
    cut = saved(("PNG", "RGB", {}))[:-40]
    assert imaging.size_of(cut) == SIZE
    with pytest.raises(ImageError, match="truncated or damaged"):
        imaging.load(cut)


@pytest.mark.parametrize("kind", [*KINDS, *FLAT], ids=named)
def test_pillows_own_limit_of_pixels_is_not_met(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is accepted is decoded in every format, also beyond the number at which Pillow raises its own error (C5)."""
    content = saved(kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert imaging.load(content).size == SIZE
    assert Image.MAX_IMAGE_PIXELS == 100
