"""However large a picture is, curate and prepare keep within 1 GiB, and without torch (C5)."""

import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from struct import pack

import numpy as np
import pytest
from PIL import Image

from tests.support import images, scans, tiffs
from tests.support.museum import draw

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")

STAGES = """
import re, sys
from pathlib import Path
from avignon import pipeline
from avignon.recipe.load import load_recipe
folder, until = Path(sys.argv[1]), sys.argv[2]
recipe = load_recipe(folder / "pair.toml", ["artists.0.decisions=words.csv"])
pipeline.run(recipe, folder / "runs", lambda _: None, until=until)
assert "torch" not in sys.modules
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""

WIDTH, HEIGHT = 16_000, 12_500
"""200 megapixels, the most that are accepted."""


def png(path: Path, width: int, height: int, depth: int = 8) -> None:
    """A colour PNG, light on the left and dark on the right, written without holding it."""
    row = b"\0" + np.linspace(250, 5, width).astype(np.uint8).repeat(3 * depth // 8).tobytes()
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = [images.chunk(b"IHDR", header), images.chunk(b"IDAT", packed), images.chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def tif(path: Path, width: int, height: int) -> None:
    """A compressed colour TIFF of 16 bits, the same."""
    row = np.linspace(64_000, 1_000, width).astype(np.uint16)[None, :, None]
    tiffs.write(path, tiffs.Page(np.broadcast_to(row, (height, width, 3)), 2, rows=64, deflate=True))


def jpeg(path: Path, width: int, height: int) -> None:
    """A JPEG, the same."""
    row = Image.fromarray(np.linspace(250, 5, width).astype(np.uint8)[None].repeat(8, axis=0)).convert("RGB")
    row.resize((width, height), Image.Resampling.NEAREST).save(path)


def peak(folder: Path, name: str, write: Callable[[Path], None]) -> int:
    """Mebibytes that curate and prepare take at their peak, in a process of their own, for one large picture."""
    walls = folder / "scans"
    for artist in ("ann", "bo"):
        (walls / artist).mkdir(parents=True)
    write(walls / "ann" / name)
    draw(2, 96, 64).save(walls / "bo" / "small.png")
    index = f"file,artist,title,rights\nann/{name},Ann Other,Large,CC0\nbo/small.png,Bo Second,Small,CC0\n"
    (walls / "index.csv").write_text(index, encoding="utf-8")
    (folder / "words.csv").write_text("object_id,decision,reason\nann-large,keep,as large as they come\n")
    scans.recipe(folder, works=1)
    stages(folder, "collect")  # It holds the file as long as it receives it.
    taken = stages(folder, "prepare")
    with Image.open(folder / "runs" / "pair" / "dataset" / "ann-other" / "ann-large-1.png") as crop:
        left, right = crop.getpixel((2, 30)), crop.getpixel((61, 30))
        assert isinstance(left, tuple)
        assert isinstance(right, tuple)
        assert 245 > left[0] > 180 > 80 > right[0] > 10
    return taken


def stages(folder: Path, until: str) -> int:
    """The peak of the stages up to one, in mebibytes."""
    command = [sys.executable, "-c", STAGES, str(folder), until]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
def test_a_scan_of_40_megapixels_takes_little(tmp_path: Path) -> None:
    """A picture of 40 megapixels, of 160 MB decoded, is measured and cropped within 600 MiB (C5)."""
    assert peak(tmp_path, "large.png", lambda path: png(path, 8_000, 5_000)) < 600


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("large.jpg", jpeg),
        ("large.png", png),
        ("large.png", lambda path, width, height: png(path, width, height, 16)),
        ("large.tif", tif),
    ],
    ids=["JPEG", "PNG", "PNG of 16 bits", "TIFF of 16 bits"],
)
def test_a_scan_of_200_megapixels_takes_less_than_a_gibibyte(
    tmp_path: Path, name: str, write: Callable[[Path, int, int], None]
) -> None:
    """The largest picture that is accepted, in each common format (C5)."""
    assert peak(tmp_path, name, lambda path: write(path, WIDTH, HEIGHT)) < 1024
