"""The only decoder of images: whatever comes in, an upright 8-bit sRGB picture or a clear reason comes out."""

import base64
import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from avignon.errors import ImageError
from avignon.workspace import json_text, json_value

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF")
"""What museums and scanners deliver. Formats with a history of decoder faults stay out."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".gif")

MAX_PIXELS = 200_000_000
"""Larger pictures are refused before a pixel is decoded (a decompression bomb of a few kB can ask for gigabytes)."""

_SRGB = ImageCms.createProfile("sRGB")

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise at damaged files; found by damaging files."""

TRAINED = "Made by a trained model, not by a painter (IPTC digital source type: trainedAlgorithmicMedia)."
"""What `XMP_TRAINED` says, for people, where a format has room for words only."""

XMP_TRAINED = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
"""IPTC Photo Metadata: made by a trained model (https://cv.iptc.org/newscodes/digitalsourcetype/)."""


def xmp_trained(title: str, description: str, rights: str) -> str:
    """`XMP_TRAINED` with words in Dublin Core, whose texts are in alternatives by language (ISO 16684-1, 8.3)."""
    texts = {"title": title, "description": description, "rights": rights}
    core = "".join(
        f'<dc:{name}><rdf:Alt><rdf:li xml:lang="x-default">{escape(text)}</rdf:li></rdf:Alt></dc:{name}>'
        for name, text in texts.items()
        if text
    )
    opened = 'xmlns:dc="http://purl.org/dc/elements/1.1/">' + core + "</rdf:Description>"
    return XMP_TRAINED.replace('trainedAlgorithmicMedia"/>', f'trainedAlgorithmicMedia" {opened}')


def size_of(source: Path | bytes) -> tuple[int, int]:
    """True (width, height) in pixels, turned upright; of most formats only the header is read.

    Raises:
        ImageError: a picture that is too large, or none at all.
    """
    with _opened(source) as image:
        width, height = image.size
        # EXIF orientation 5–8 exchange the axes; Pillow has done so already where it opens a TIFF.
        sideways = image.format != "TIFF" and _orientation(image) >= 5
    return (height, width) if sideways else (width, height)


def load(source: Path | bytes) -> Image.Image:
    """Decode to an upright 8-bit RGB picture in sRGB; transparency is laid on white.

    Raises:
        ImageError: a picture that is truncated, animated, too large, or none at all.
    """
    with _opened(source) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # An MPO's second frame is a thumbnail or a depth map.
            raise ImageError(f"{_name(source)}: animated or of several pages ({frames}); one picture is needed")
        image.load()
        upright = ImageOps.exif_transpose(image) if _orientation(image) > 1 else image.copy()
        return _to_srgb(_eight_bit(upright), upright.info.get("icc_profile"))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; damaged EXIF data says nothing, and the picture is taken as it lies."""
    try:
        value = image.getexif().get(0x0112, 1)
    except _BROKEN:
        return 1
    return value if isinstance(value, int) else 1


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    """The opened picture; whatever its decoder trips over within the block becomes one `ImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning, and its remarks on damaged metadata.
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # The limit below is the stricter one.
            try:
                image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
            with image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ImageError(f"{_name(source)}: {width}×{height} pixels; at most {MAX_PIXELS:,} are decoded")
                yield image
    except UnidentifiedImageError:
        raise ImageError(f"{_name(source)}: not a picture; allowed are {', '.join(FORMATS)}") from None
    except OSError as refused:
        raise ImageError(f"{_name(source)}: {_refusal(refused)}") from None
    except _BROKEN as broken:
        raise ImageError(f"{_name(source)}: truncated or damaged: {broken}") from None


def _refusal(refused: OSError) -> str:
    """What the disk says has a number (no such file, permission denied); what a decoder says has none."""
    return f"cannot be opened: {refused.strerror}" if refused.errno else f"truncated or damaged: {refused}"


def _name(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else "image"


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit and floating greys to 8 bits by their full range: Pillow's own conversion clips them to white."""
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        return Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        top = float(values.max()) or 1.0
        return Image.fromarray((values / top * 255).round().clip(0, 255).astype(np.uint8))
    return image


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if "A" in image.getbands() or "transparency" in image.info:
        image = _on_white(image.convert("RGBA"))
    elif image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            converted = None  # A damaged or mismatched profile says nothing; the values are taken as they are.
        if converted is not None:
            return converted
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image).convert("RGB")


def square_crops(size: tuple[int, int], count: int) -> list[tuple[int, int, int, int]]:
    """`count` square boxes of the short side's length, evenly placed along the long side; one is centred."""
    width, height = size
    edge = min(width, height)
    room = max(width, height) - edge
    places = [room / 2] if count == 1 or room == 0 else [room * i / (count - 1) for i in range(count)]
    boxes = []
    for place in dict.fromkeys(round(p) for p in places):
        left, top = (place, 0) if width > height else (0, place)
        boxes.append((left, top, left + edge, top + edge))
    return boxes


def fit(image: Image.Image, box: tuple[int, int, int, int], edge: int) -> Image.Image:
    """Crop to a square box and resample to `edge` × `edge` pixels (Lanczos)."""
    return image.resize((edge, edge), Image.Resampling.LANCZOS, box=box)


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


def png_bytes(
    image: Image.Image, parameters: str = "", fields: Mapping[str, Any] | None = None, rights: str = ""
) -> bytes:
    """A PNG; with `fields`, one that carries its own parameters and says that a trained model made it.

    `parameters` is the text that common image tools show; `fields` is the same for programs, as JSON under `avignon`.
    `rights` says what its makers' training images allow (PNG's own keyword `Copyright`, which image tools show).
    """
    info = PngInfo()
    if fields is not None:
        info.add_itxt("parameters", parameters)
        info.add_itxt("avignon", json_text(fields, sort_keys=True))
        info.add_itxt("XML:com.adobe.xmp", XMP_TRAINED)
        if rights:
            info.add_itxt("Copyright", rights)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, optimize=False)
    return buffer.getvalue()


_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk of every PNG (https://www.w3.org/TR/png-3/#11IEND)."""


def png_fields(path: Path) -> Any:
    """The JSON that `png_bytes` wrote; None where there is none or the file is damaged."""
    try:
        content = path.read_bytes()
        if not content.endswith(_PNG_END):  # The pixels may be all there in a file that was cut off.
            return None
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            image.load()
            return json_value(str(getattr(image, "text", {}).get("avignon", "null")))
    except _BROKEN:
        return None


def png_rights(path: Path) -> str:
    """The rights that `png_bytes` wrote; empty where all is open."""
    with _opened(path) as image:
        image.load()  # Texts may stand behind the pixels.
        return str(getattr(image, "text", {}).get("Copyright", ""))


def data_uri(webp: bytes) -> str:
    """A WebP as an address inside a page."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def webp_bytes(image: Image.Image, longest: int, quality: int = 88) -> bytes:
    """A WebP no larger than `longest` pixels on its long side, for the page."""
    small = image.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality, method=6)
    return buffer.getvalue()
