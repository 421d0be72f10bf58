"""TIFF files of several pages: the picture is found, or a line says why there is none; by the header alone (C3)."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from avignon.core import imaging, tiff
from avignon.core.errors import ImageError
from tests.support import tiffs
from tests.support.museum import draw
from tests.support.tiffs import Order, Page

REDUCED, MASK = {254: 1}, {254: 4}


def picture(width: int, height: int, seed: int = 1) -> NDArray[Any]:
    """A drawn picture in RGB, a smaller one the same reduced, shaped (height, width, 3)."""
    return np.asarray(draw(seed, 192, 128).resize((width, height), Image.Resampling.BOX))


def page(width: int, height: int, seed: int = 1, **tags: Any) -> Page:
    """The picture on a page of its own."""
    return Page(picture(width, height, seed), 2, tags={int(tag[1:]): value for tag, value in tags.items()})


FULL, HALF, QUARTER = (192, 128), (96, 64), (48, 32)

READ = {
    "one page": [page(*FULL)],
    "pyramid that says so": [page(*FULL), page(*HALF, _254=1), page(*QUARTER, _254=1)],
    "pyramid by its sizes": [page(*FULL), page(*HALF), page(*QUARTER)],
    "pyramid down to a few pixels": [page(*FULL), page(96, 64), page(48, 32), page(24, 16), page(12, 8), page(6, 4)],
    "pyramid of the old tag": [page(*FULL, _255=1), page(60, 40, _255=2)],
    "reduced copies of any size": [page(*FULL), page(150, 100, _254=1), page(20, 13, _254=1)],
    "preview first": [page(*QUARTER, _254=1), page(*FULL)],
    "mask behind": [page(*FULL), Page(np.zeros((128, 192), np.uint8), tags=MASK)],
    "mask first": [Page(np.zeros((128, 192), np.uint8), tags=MASK), page(*FULL)],
    "reduced mask": [page(*FULL), Page(np.zeros((64, 96), np.uint8), tags={254: 5})],
    "page of a document, the only one": [page(*FULL, _254=2)],
    "only reduced copies": [page(*HALF, _254=1), page(*FULL, _254=1)],
    "pyramid in SubIFDs": [page(*FULL, _330=8)],
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("case", READ)
def test_the_full_picture_is_read(tmp_path: Path, case: str, order: Order) -> None:
    """Of pyramids, previews and masks the full picture is read, and its size told by the header (C3)."""
    path = tiffs.write(tmp_path / "scan.tif", *READ[case], order=order)
    assert imaging.size_of(path) == FULL
    assert (np.asarray(imaging.load(path)) == picture(*FULL)).all()


def test_the_full_picture_is_read_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture on a later page is read in bands from there (C3, C5)."""
    monkeypatch.setattr(imaging, "BOUND", FULL[0] * FULL[1] // 4)
    for case in READ:
        path = tiffs.write(tmp_path / "scan.tif", *READ[case])
        assert imaging.load(path).tobytes() == Image.fromarray(picture(*FULL)).reduce(2).tobytes(), case


REFUSED = {
    "two pictures": ([page(*FULL), page(*FULL, 2)], r"of several pages \(2\), which are not copies of one"),
    "two pictures and a preview": ([page(*FULL), page(*QUARTER, _254=1), page(*FULL, 2)], r"of several pages \(2\)"),
    "pages of a document": ([page(*FULL, _254=2), page(*FULL, 2, _254=2)], r"of several pages \(2\)"),
    "a second page of another shape": ([page(*FULL), page(96, 96)], r"of several pages \(2\)"),
    "a second page a third as large": ([page(*FULL), page(64, 43)], r"of several pages \(2\)"),
    "growing pages": ([page(*HALF), page(*FULL)], r"of several pages \(2\)"),
    "a camera's preview": ([page(*QUARTER, _254=1, _330=8)], r"a preview with the picture itself behind it"),
    "masks only": ([Page(np.zeros((9, 9), np.uint8), tags=MASK)], r"has no page with a picture"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_several_pictures_are_a_line(tmp_path: Path, case: str) -> None:
    """Several real pages, or none within reach, are a reason that the header gives and decoding, too (C3)."""
    pages, reason = REFUSED[case]
    path = tiffs.write(tmp_path / "scan.tif", *pages)
    for read in (imaging.size_of, imaging.load):
        with pytest.raises(ImageError, match=rf"scan\.tif: {reason}"):
            read(path)


def test_half_sized_page_of_another_picture_is_found_out(tmp_path: Path) -> None:
    """Two pictures of which one happens to have half the other's sides are told apart by their pixels (C3)."""
    path = tiffs.write(tmp_path / "scan.tif", page(*FULL), page(*HALF, 5))
    with pytest.raises(ImageError, match="of several pages, of which page 2 is another picture"):
        imaging.load(path)


@pytest.mark.parametrize("sizes", [((195, 131), (97, 65), (48, 32)), ((195, 131), (98, 66), (49, 33), (25, 17))])
def test_pyramids_of_odd_sizes_are_read(tmp_path: Path, sizes: list[tuple[int, int]]) -> None:
    """Halves are rounded down by some programs, and up by others (C3)."""
    path = tiffs.write(tmp_path / "scan.tif", *(page(*size) for size in sizes))
    assert imaging.size_of(path) == imaging.load(path).size == (195, 131)


@pytest.mark.parametrize("link", [0, 2**31])
def test_pages_that_go_in_circles_end(tmp_path: Path, link: int) -> None:
    """Where the last page links to the first, each counts once; where it links outside, those before it count (C3)."""
    path = tiffs.write(tmp_path / "scan.tif", page(*FULL), page(*HALF, _254=1))
    content = path.read_bytes()
    first = int.from_bytes(content[4:8], "little")
    links = first + 2 + 12 * content[first]
    second = int.from_bytes(content[links : links + 4], "little")
    end = second + 2 + 12 * content[second]
    content = content[:end] + struct.pack("<I", link or first) + content[end + 4 :]
    assert imaging.size_of(content) == imaging.load(content).size == FULL


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg", "raw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "CMYK", "I;16"])
def test_bands_are_the_page(mode: str, compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a few rows at a time, a page of any compression has the same pixels as read at once (C5)."""
    if compression == "jpeg" and mode in ("1", "RGBA", "I;16"):
        return
    image = draw(1, 700, 500)
    image = (
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        if mode == "I;16"
        else image.convert(mode)
    )
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression=compression)
    whole = imaging.load(buffer.getvalue())
    monkeypatch.setattr(imaging, "BOUND", 250 * 350)
    assert imaging.load(buffer.getvalue()).tobytes() == whole.reduce(2).tobytes()


@pytest.mark.parametrize("rows", [0, 64])
@pytest.mark.parametrize("deflate", [False, True])
def test_bands_beyond_the_end_say_so(tmp_path: Path, rows: int, deflate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A band that the file does not have is a truncated file, and not grey (C5)."""
    starts = [1000] * (2 if rows else 1)
    cut = Page(picture(*FULL), 2, rows=rows, deflate=deflate, tags={273: starts, 279: [2**20] * len(starts)})
    path = tiffs.write(tmp_path / "scan.tif", cut)
    monkeypatch.setattr(imaging, "BOUND", 1000)
    with pytest.raises(ImageError, match="truncated or damaged: the file ends within the picture"):
        imaging.load(path)


@pytest.mark.parametrize("planar", [False, True])
def test_one_long_uncompressed_strip_is_cut(tmp_path: Path, planar: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An uncompressed page in one strip is read in bands all the same (C5)."""
    path = tiffs.write(tmp_path / "scan.tif", Page(picture(*FULL), 2, planar=planar))
    monkeypatch.setattr(imaging, "BOUND", FULL[0] * FULL[1] // 4)
    monkeypatch.setattr(tiff, "LONGEST_PIECE", 5000)
    monkeypatch.setattr(imaging, "MAX_BYTES", 1)  # Of decoding it at once.
    assert imaging.load(path).tobytes() == Image.fromarray(picture(*FULL)).reduce(2).tobytes()


def test_one_long_compressed_strip_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large page in one compressed strip would take too much memory: a reason that the header gives (C5)."""
    path = tiffs.write(tmp_path / "scan.tif", Page(picture(*FULL), 2, deflate=True))
    monkeypatch.setattr(imaging, "BOUND", 1000)
    monkeypatch.setattr(tiff, "LONGEST_PIECE", 5000)
    assert imaging.size_of(path) == FULL
    monkeypatch.setattr(imaging, "MAX_BYTES", 250_000)
    with pytest.raises(ImageError, match="192×128 pixels, which as a TIFF in one compressed piece take"):
        imaging.size_of(path)
