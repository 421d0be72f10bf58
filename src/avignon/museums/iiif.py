"""Images by the IIIF Image API: never more than the true size, and what comes is checked against what was promised.

Versions 2.1 (https://iiif.io/api/image/2.1/) and 3.0 (https://iiif.io/api/image/3.0/). A description (`info.json`)
tells the true size and what its server can do: one that scales (level 1 and 2) is asked for the size wanted; one that
does not (level 0) is asked for the smallest size that it has ready and that is large enough.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from avignon.errors import FetchError, ImageError
from avignon.fetch import Fetcher
from avignon.imaging import scan
from avignon.museums.protocol import Received

Size = tuple[int, int]


@dataclass(frozen=True)
class Images:
    """A museum's image server."""

    fetcher: Fetcher
    max_edge: int = 2048
    max_bytes: int = 200_000_000

    def source(self, image: str) -> str:
        """The image's address and the size asked for at most."""
        return f"{image}/full/!{self.max_edge},{self.max_edge}"

    def receive(self, image: str) -> Received:
        """The image, at most `max_edge` pixels on its long side and never more than its true size.

        Raises:
            FetchError, ImageError: with the reason.
        """
        description = self.fetcher.get(f"{image}/info.json", limit=1_000_000, check=_described)
        wanted, parameter = _asked(_described(description.content), self.max_edge)
        url = f"{image}/full/{parameter}/0/default.jpg"
        answer = self.fetcher.get(url, limit=self.max_bytes, check=lambda content: _check_size(content, wanted))
        # The National Gallery redirects capped images to `{uuid}__900`, their info.json perhaps, too.
        capped = any("__" in _tail(place, image) for place in (description.url, answer.url))
        return Received(answer.content, ".jpg", capped)


def _described(content: bytes) -> dict[str, Any]:
    """What an info.json says, with width and height as numbers."""
    try:
        info = json.loads(content)
        info = {**info, "width": int(info["width"]), "height": int(info["height"])}
        if min(info["width"], info["height"]) < 1:
            raise ValueError("no pixels")
    except (ValueError, KeyError, TypeError, OverflowError):
        raise FetchError("not a IIIF description with width and height") from None
    return info


def _tail(place: str, image: str) -> str:
    """What follows the last part of the image's own address: empty, `__900` or another image's name."""
    name = image.rpartition("/")[2]
    return place.rpartition(name)[2] if name in place else place


def _asked(info: dict[str, Any], max_edge: int) -> tuple[Size, str]:
    """The size that is to come, and how it is asked for."""
    true = (info["width"], info["height"])
    limit = _limit(info, true)
    if _level(info) == 0:
        return _ready(info, true, max_edge)
    scale = min(1.0, max_edge / max(true), limit / max(true))
    wanted = (max(1, round(true[0] * scale)), max(1, round(true[1] * scale)))
    return wanted, f"!{wanted[0]},{wanted[1]}"


def _limit(info: dict[str, Any], true: Size) -> float:
    """The longest side that the server says it sends (2.1, 5.2 and 3.0, 5.3: maxWidth, maxHeight, maxArea)."""
    profile = info.get("profile")
    said = dict(info)
    for part in profile if isinstance(profile, list) else ():
        said |= part if isinstance(part, dict) else {}
    width = _positive(said.get("maxWidth"))
    height = _positive(said.get("maxHeight")) or width
    area = _positive(said.get("maxArea"))
    scales = [width / true[0]] if width else []
    scales += [height / true[1]] if height else []
    scales += [math.sqrt(area / (true[0] * true[1]))] if area else []
    return min(scales, default=1.0) * max(true)


def _positive(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 < value < math.inf else 0.0


def _level(info: dict[str, Any]) -> int:
    """The server's level of compliance; level 1 where it does not say, as scaling is what most do."""
    profile = info.get("profile")
    first = profile[0] if isinstance(profile, list) and profile else profile
    return next((level for level in (0, 1, 2) if f"level{level}" in str(first)), 1)


def _ready(info: dict[str, Any], true: Size, max_edge: int) -> tuple[Size, str]:
    """The smallest of a level-0 server's sizes that is large enough for `max_edge`, else the largest there is."""
    listed = info.get("sizes")
    sizes = [_size(each) for each in listed] if isinstance(listed, list) else []
    known = sorted({size for size in sizes if size and max(size) <= max(true)}, key=max)
    enough = [size for size in known if max(size) >= min(max_edge, max(true))]
    if enough:
        return enough[0], _written(info, enough[0])
    whole = "max" if _version(info) >= 3 else "full"
    return true, whole


def _size(listed: object) -> Size | None:
    if isinstance(listed, dict) and isinstance(listed.get("width"), int) and isinstance(listed.get("height"), int):
        return listed["width"], listed["height"]
    return None


def _written(info: dict[str, Any], size: Size) -> str:
    """The canonical form of a size, the only one that a level-0 server need know: `w,` in 2.1 and `w,h` in 3.0."""
    return f"{size[0]},{size[1]}" if _version(info) >= 3 else f"{size[0]},"


def _version(info: dict[str, Any]) -> int:
    """3 where the context or the type says so; 3.0 names an image by `id`, 2.1 by `@id`."""
    return 3 if "image/3" in str(info.get("@context")) or info.get("type") == "ImageService3" else 2


def _check_size(content: bytes, wanted: Size) -> None:
    """A IIIF server scales to fit the box asked for; a pixel of rounding aside, any other size is a fault.

    Decoded to the last pixel: a body that was cut off under the right length still has the header of the whole.
    """
    received = scan(content).size
    if any(got > ask + 1 or got < ask - 1 for got, ask in zip(received, wanted, strict=True)):
        raise ImageError(f"{received[0]}×{received[1]} pixels came where {wanted[0]}×{wanted[1]} were promised")
