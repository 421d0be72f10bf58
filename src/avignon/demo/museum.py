"""The embedded museum: an httpx transport that answers as the National Gallery of Art's servers do.

    embedded://museum/data/<table>.csv                     the tables, in the museum's own columns
    embedded://museum/iiif/<uuid>/info.json                true width and height
    embedded://museum/iiif/<uuid>/full/!W,H/0/default.jpg  the picture, painted when asked for

The image server speaks the part of the IIIF Image API 2.1 (https://iiif.io/api/image/2.1/) that asks for whole
pictures. Like the real one it sends capped images to `<uuid>__900` with a 303 and scales those up to what was asked;
unlike it, it never gives more pixels than the true size. Its pictures are by the procedural `painters`, and say so.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import io
import json
import re
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

import httpx
from PIL import Image, ImageEnhance, ImageFilter

from avignon.demo.painters import PAINTERS
from avignon.demo.world import Scene

QUALITY = 92
CAP = 900
"""Pixels of the long side of a capped image, as at the real museum."""

_TABLE = re.compile(r"/data/([a-z_]+)\.csv")
_INFO = re.compile(r"/iiif/([0-9a-f-]{36})(__900)?/info\.json")
_IMAGE = re.compile(r"/iiif/([0-9a-f-]{36})(__900)?/full/(full|max|!?\d*,\d*)/0/default\.jpg")

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Painting:
    """How one picture of the museum is made."""

    painter: str
    scene: Scene
    seed: int
    size: Size
    """True width and height in pixels."""
    capped: bool = False
    """Shown at no more than `CAP` pixels: a work whose image is not released."""
    blur: float = 0.0
    """Radius in pixels of the camera's shake."""
    crop: float = 0.0
    """Share cut off at every edge by another photographer."""
    light: float = 1.0
    """Brightness of that photograph."""

    def paint(self) -> Image.Image:
        """The picture at its true size."""
        width, height = self.size
        scale = 1 - 2 * self.crop
        image = PAINTERS[self.painter](self.scene, (round(width / scale), round(height / scale)), self.seed)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
        if self.light != 1.0:
            image = ImageEnhance.Brightness(image).enhance(self.light)
        return image.filter(ImageFilter.GaussianBlur(self.blur)) if self.blur else image


def assets() -> Traversable:
    """The folder of shipped tables."""
    return importlib.resources.files("avignon.demo") / "tables"


@functools.cache
def paintings() -> dict[str, Painting]:
    """Every picture of the museum by its uuid."""
    rows: dict[str, dict[str, Any]] = json.loads((assets() / "paintings.json").read_text(encoding="utf-8"))
    return {
        uuid: Painting(**{**row, "scene": Scene(**row["scene"]), "size": (row["size"][0], row["size"][1])})
        for uuid, row in rows.items()
    }


@functools.lru_cache(maxsize=4)
def _painted(painting: Painting) -> Image.Image:
    return painting.paint()


def jpeg(painting: Painting, size: Size, *, capped: bool = False) -> bytes:
    """The picture as JPEG of exactly `size`; a capped one holds no more detail than `CAP` pixels do."""
    image = _painted(painting)
    if capped:
        image = image.resize(_fit(image.size, (CAP, CAP)), Image.Resampling.LANCZOS)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _fit(true: Size, box: Size) -> Size:
    """The largest size of the same proportions within the box, never more than the true size."""
    scale = min(1.0, box[0] / true[0], box[1] / true[1])
    return max(1, round(true[0] * scale)), max(1, round(true[1] * scale))


def _asked(true: Size, text: str) -> Size | None:
    """The size a IIIF size parameter asks for: full, max, `w,`, `,h` or `!w,h`; None if it is not one of these."""
    if text in ("full", "max"):
        return true
    width, height = text.removeprefix("!").split(",")
    if not (width or height) or (width and height and not text.startswith("!")):
        return None
    box = (int(width or true[0]), int(height or true[1]))
    return _fit(true, box) if min(box) > 0 else None


class EmbeddedMuseum(httpx.BaseTransport):
    """Serves the embedded museum to an httpx client that mounts it at `embedded://`."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a GET for a table, a description or a picture; anything else is 404."""
        path = request.url.path
        if request.method in ("GET", "HEAD") and request.url.host == "museum":
            if found := _TABLE.fullmatch(path):
                return _table(found[1], request)
            if found := _INFO.fullmatch(path):
                return _info(request, found[1], bool(found[2]))
            if found := _IMAGE.fullmatch(path):
                return _image(request, found[1], bool(found[2]), found[3])
        return _missing(request)


def _missing(request: httpx.Request) -> httpx.Response:
    return httpx.Response(404, text=f"the embedded museum has nothing at {request.url.path}", request=request)


def _table(name: str, request: httpx.Request) -> httpx.Response:
    file = assets() / f"{name}.csv"
    if not file.is_file():
        return _missing(request)
    content = file.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"content-type": "text/csv; charset=utf-8", "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return httpx.Response(304, headers=headers, request=request)
    return httpx.Response(200, headers=headers, content=content, request=request)


def _info(request: httpx.Request, uuid: str, small: bool) -> httpx.Response:
    painting = paintings().get(uuid)
    if painting is None:
        return _missing(request)
    width, height = _fit(painting.size, (CAP, CAP)) if small else painting.size
    description = {
        "@context": "http://iiif.io/api/image/2/context.json",
        "@id": str(request.url).removesuffix("/info.json"),
        "protocol": "http://iiif.io/api/image",
        "width": width,
        "height": height,
        "profile": ["http://iiif.io/api/image/2/level2.json", {"formats": ["jpg"], "qualities": ["default"]}],
    }
    return httpx.Response(200, json=description, request=request)


def _image(request: httpx.Request, uuid: str, small: bool, wanted: str) -> httpx.Response:
    painting = paintings().get(uuid)
    if painting is None:
        return _missing(request)
    if painting.capped and not small:
        place = str(request.url).replace(uuid, f"{uuid}__{CAP}", 1)
        return httpx.Response(303, headers={"location": place}, request=request)
    size = _asked(painting.size, wanted)
    if size is None:
        return httpx.Response(400, text=f"size {wanted!r}: full, max, `w,`, `,h` or `!w,h`", request=request)
    content = jpeg(painting, size, capped=small)
    return httpx.Response(200, headers={"content-type": "image/jpeg"}, content=content, request=request)
