"""What a IIIF description (`info.json`) says, and what to ask its server for. Pure: nothing is fetched here.

Image API 2.1 (https://iiif.io/api/image/2.1/#image-information) and 3.0 (https://iiif.io/api/image/3.0/). Numbers may
come as text: some servers write `"width": "3000"`.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from avignon.core.errors import FetchError

Size = tuple[int, int]


Region = tuple[int, int, int, int]
"""Of the true image: left, upper, width and height, in pixels."""


@dataclass(frozen=True)
class Tiles:
    """The tiles of an image at one scale."""

    true: Size
    edge: Size
    """Width and height of a tile, as it is sent."""
    scale: int
    """How many pixels of the true image become one."""

    @property
    def size(self) -> Size:
        """Of the joined picture."""
        return _divided(self.true[0], self.scale), _divided(self.true[1], self.scale)

    @property
    def count(self) -> int:
        """How many there are."""
        return math.prod(_divided(side, edge) for side, edge in zip(self.size, self.edge, strict=True))

    def all(self) -> Iterator[tuple[Region, Size, Size]]:
        """Each with its region, and its corner and size in the joined picture; those at two edges are smaller."""
        (width, height), (across, down) = self.true, (side * self.scale for side in self.edge)
        for top in range(0, height, down):
            for left in range(0, width, across):
                region = (left, top, min(across, width - left), min(down, height - top))
                size = (_divided(region[2], self.scale), _divided(region[3], self.scale))
                yield region, (left // self.scale, top // self.scale), size


@dataclass(frozen=True)
class Info:
    """A description of an image."""

    size: Size
    """The true one."""
    level: int
    """Of compliance; 1 where the server does not say, as scaling is what most do."""
    version: int
    """2 or 3."""
    longest: float
    """The longest side that the server says it sends (2.1, 5.2 and 3.0, 5.3: maxWidth, maxHeight, maxArea)."""
    sizes: tuple[Size, ...]
    """Those that are ready, from the smallest."""
    tilings: tuple[Tiles, ...]
    """Those that are ready, from the smallest joined picture."""

    def asked(self, edge: int, widths: tuple[int, ...] = ()) -> tuple[Size, str]:
        """The size that is to come, no more than `edge` on the long side, and how it is asked for."""
        if self.level == 0:  # The smallest size that is ready and large enough, else the largest there is.
            enough = self._enough(edge)
            whole = "max" if self.version >= 3 else "full"
            return (enough[0], self._written(enough[0])) if enough else (self.size, whole)
        scale = min(1.0, edge / max(self.size), self.longest / max(self.size))
        within = [width for width in widths if width <= self.size[0] * scale]
        if within:
            width = max(within)
            return (width, max(1, round(self.size[1] * width / self.size[0]))), f"{width},"
        width, height = (max(1, round(side * scale)) for side in self.size)
        return (width, height), f"!{width},{height}"

    def tiles_for(self, edge: int) -> Tiles | None:
        """Of a server that does not scale and has no size ready that is large enough: the smallest tiles that are."""
        if self.level > 0 or self._enough(edge) or not self.tilings:
            return None
        least = min(edge, max(self.size))
        return next((tiles for tiles in self.tilings if max(tiles.size) >= least), self.tilings[-1])

    def written(self, region: Region, size: Size) -> list[str]:
        """Region and size of a tile: the canonical form (2.1 and 3.0, 4.7), then the one that some tilers write."""
        place, scaled = ",".join(map(str, region)), self._written(size)
        return [f"full/{scaled}", f"{place}/{scaled}"] if region[2:] == self.size else [f"{place}/{scaled}"]

    def _enough(self, edge: int) -> list[Size]:
        return [size for size in self.sizes if max(size) >= min(edge, max(self.size))]

    def _written(self, size: Size) -> str:
        """The canonical form of a size, the only one that a level-0 server need know: `w,` in 2.1 and `w,h` in 3.0."""
        return f"{size[0]},{size[1]}" if self.version >= 3 else f"{size[0]},"


def described(content: bytes) -> Info:
    """What an info.json says.

    Raises:
        FetchError: it is none, or has no width and height.
    """
    try:
        info = json.loads(content)
        size = _size(info)
    except (ValueError, AttributeError):
        size = None
    if size is None:
        raise FetchError("not a IIIF description with width and height")
    profile = info.get("profile")
    first = profile[0] if isinstance(profile, list) and profile else profile
    level = next((level for level in (0, 1, 2) if f"level{level}" in str(first)), 1)
    version = 3 if "image/3" in str(info.get("@context")) or info.get("type") == "ImageService3" else 2
    sizes = {each for each in map(_size, _list(info.get("sizes"))) if each and max(each) <= max(size)}
    return Info(size, level, version, _longest(info, size), tuple(sorted(sizes, key=max)), _tilings(info, size))


def _longest(info: dict[str, Any], true: Size) -> float:
    said = dict(info)
    for part in _list(info.get("profile")):
        said |= part if isinstance(part, dict) else {}
    width, height, area = (_number(said.get(key)) for key in ("maxWidth", "maxHeight", "maxArea"))
    scales = (width / true[0], (height or width) / true[1], math.sqrt(area / (true[0] * true[1])))
    return min(filter(None, scales), default=1.0) * max(true)  # 0 is no limit.


def _tilings(info: dict[str, Any], true: Size) -> tuple[Tiles, ...]:
    """Every tiling at every scale; of two that give the same picture, the one with fewer tiles first."""
    tilings = []
    for each in _list(info.get("tiles")):
        if isinstance(each, dict) and (width := _number(each.get("width"))):
            edge = (width, _number(each.get("height")) or width)
            tilings += [Tiles(true, edge, scale) for scale in map(_number, _list(each.get("scaleFactors"))) if scale]
    return tuple(sorted(tilings, key=lambda tiles: (max(tiles.size), tiles.count)))


def _size(listed: object) -> Size | None:
    if not isinstance(listed, dict):
        return None
    width, height = _number(listed.get("width")), _number(listed.get("height"))
    return (width, height) if width and height else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> int:
    """A whole number above 0, written as one or as text; 0 for anything else."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return 0
    return int(number) if 1 <= number < 2**53 else 0


def _divided(length: int, by: int) -> int:
    """Rounded up, as tiles at the edges are."""
    return -(-length // by)
