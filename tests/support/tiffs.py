"""TIFF files of any kind, written tag by tag: most of what scanners write, Pillow itself cannot."""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SHORT, LONG = 3, 4


@dataclass(frozen=True)
class Page:
    """Samples shaped (height, width) or (height, width, samples), and how they are laid out."""

    samples: NDArray[Any]
    photometric: int = 1
    bits: int = 0
    """Of a sample; 0 takes those of the array's type."""
    rows: int = 0
    """Of a strip; 0 puts all rows into one."""
    tile: int = 0
    """Side of square tiles; 0 writes strips."""
    deflate: bool = False
    planar: bool = False
    tags: Mapping[int, int | Sequence[int] | bytes | None] = field(default_factory=dict)
    """Further ones; None leaves one out."""


Order = Literal["<", ">"]


def write(path: Path, *pages: Page, order: Order = "<") -> Path:
    """Write pages one behind the other; `order` is `<` for Intel's and `>` for Motorola's."""
    with path.open("wb") as file:
        file.write((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
        link = 4
        for page in pages:
            starts, lengths = [], []
            for piece in _pieces(page, order):
                starts.append(file.tell())
                lengths.append(file.write(piece))
            place = file.tell() + file.write(bytes(file.tell() % 2))
            directory, next_link = _directory(_tags(page, starts, lengths), place, order)
            file.write(directory)
            file.seek(link)
            file.write(struct.pack(order + "I", place))
            file.seek(0, 2)
            link = next_link
    return path


def _tags(page: Page, starts: list[int], lengths: list[int]) -> dict[int, Any]:
    samples = page.samples.shape[2] if page.samples.ndim == 3 else 1
    bits = page.bits or page.samples.dtype.itemsize * 8
    kind = {"f": 3, "i": 2}.get(page.samples.dtype.kind, 1)
    tags: dict[int, Any] = {256: page.samples.shape[1], 257: page.samples.shape[0], 258: [bits] * samples}
    tags |= {259: 8 if page.deflate else 1, 262: page.photometric, 277: samples, 339: [kind] * samples}
    tags |= {284: 2} if page.planar else {}
    if page.tile:
        tags |= {322: page.tile, 323: page.tile, 324: starts, 325: lengths}
    else:
        tags |= {273: starts, 278: page.rows or page.samples.shape[0], 279: lengths}
    return {tag: value for tag, value in {**tags, **page.tags}.items() if value is not None}


def _pieces(page: Page, order: Order) -> Iterator[bytes]:
    """Each strip or tile as bytes."""
    samples, edge = page.samples, page.tile
    rows = edge or page.rows or samples.shape[0]
    for plane in [samples[..., [n]] for n in range(samples.shape[2])] if page.planar else [samples]:
        for top in range(0, plane.shape[0], rows):
            for left in range(0, plane.shape[1], edge or plane.shape[1]):
                part = plane[top : top + rows, left : left + edge] if edge else plane[top : top + rows]
                if edge:
                    part = np.pad(part, [(0, edge - part.shape[0]), (0, edge - part.shape[1]), (0, 0)][: part.ndim])
                piece = _packed(part, page.bits, order)
                yield zlib.compress(piece, 1) if page.deflate else piece


def _packed(part: NDArray[Any], bits: int, order: Order) -> bytes:
    if not bits or bits % 8 == 0:
        return part.astype(part.dtype.newbyteorder(order)).tobytes()
    flat = part.reshape(part.shape[0], -1)
    each = (flat[..., None] >> np.arange(bits)[::-1]) & 1  # (rows, samples, bits), the highest bit first
    return np.packbits(each.reshape(part.shape[0], -1).astype(np.uint8), axis=1).tobytes()


def _directory(tags: dict[int, Any], place: int, order: str) -> tuple[bytes, int]:
    """The directory as it stands at `place`, and where its link to the next one is."""
    entries, behind = b"", b""
    far = place + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        if isinstance(value, bytes):
            kind, count, data = 7, len(value), value
        else:
            values = [value] if isinstance(value, int) else list(value)
            kind = LONG if tag in (256, 257, 273, 279, 324, 325, 330) else SHORT
            count, data = len(values), struct.pack(f"{order}{len(values)}{'I' if kind == LONG else 'H'}", *values)
        if len(data) > 4:
            entries += struct.pack(order + "HHII", tag, kind, count, far + len(behind))
            behind += data + bytes(len(data) % 2)
        else:
            entries += struct.pack(order + "HHI", tag, kind, count) + data.ljust(4, b"\0")
    head = struct.pack(order + "H", len(tags)) + entries
    return head + bytes(4) + behind, place + len(head)
