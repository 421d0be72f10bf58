"""Peak memory of judging and cropping one picture, by its size and format: each in a process of its own.

Pictures are made for it: a slope of colours with noise, so that none is compressed to nothing. `judged` is what curate
does with a picture (decoded, measured, compared, a thumbnail), `cropped` what prepare does (two crops of 512 pixels).
The peak is the kernel's (`VmHWM`): it counts the program itself, and the parts of files that are mapped.

    python benchmarks/memory.py [--megapixels 16 70 200] [--folder FOLDER]
"""

import argparse
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

MEASURED = r"""
import re, sys
from pathlib import Path
from avignon.stages import curate
from avignon.core import imaging, pages, png
from avignon.stages import prepare
from avignon.curation import duplicates, quality
path = Path(sys.argv[2])
if sys.argv[1] == "judged":
    scan = imaging.scan(path)
    quality.measure(scan.image, scan.middle), duplicates.look_at(scan.image), pages.webp_bytes(scan.image, 240)
elif sys.argv[1] == "cropped":
    [png.png_bytes(crop) for _, crop in imaging.crops(path, 2, 512)]
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def effective_steps(megapixels: float) -> Image.Image:
    """A slope of colours with noise, 1.28 times as wide as high."""
    height = round((megapixels * 1e6 / 1.28) ** 0.5)
    width = int(megapixels * 1e6 / height)
    noise = np.random.default_rng(0).integers(0, 64, (256, width, 3), dtype=np.uint8)
    slope = np.linspace(0, 190, width)[:, None] * np.array([1, 0.6, 0.3])  # (width, 3)
    strip = Image.fromarray(noise + slope.astype(np.uint8))
    picture = Image.new("RGB", (width, height))
    for top in range(0, height, 256):
        picture.paste(strip, (0, top))
    return picture


def sixteen_bit_tiff(picture: Image.Image, path: Path) -> None:
    """RGB of 16 bits, uncompressed in one strip, which Pillow does not write (TIFF 6.0, section 6)."""
    width, height = picture.size
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8 + 2 + 12 * 9 + 4), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 200), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, width * height * 6)]
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    with path.open("wb") as file:
        file.write((head + bytes(4) + struct.pack("<3H", 16, 16, 16)).ljust(200, b"\0"))
        for top in range(0, height, 256):
            rows = picture.crop((0, top, width, min(top + 256, height)))
            file.write((np.asarray(rows).astype("<u2") * 257).tobytes())


def sixteen_bit_grey(picture: Image.Image) -> Image.Image:
    """As grey of 16 bits."""
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


Write = Callable[[Image.Image, Path], None]

KINDS: dict[str, tuple[str, Write]] = {
    "JPEG": (".jpg", lambda picture, path: picture.save(path, quality=85)),
    "JPEG, progressive": (".jpg", lambda picture, path: picture.save(path, quality=85, progressive=True)),
    "PNG": (".png", lambda picture, path: picture.save(path, compress_level=1)),
    "PNG, 16-bit grey": (".png", lambda picture, path: sixteen_bit_grey(picture).save(path, compress_level=1)),
    "TIFF": (".tif", lambda picture, path: picture.save(path)),
    "TIFF, LZW": (".tif", lambda picture, path: picture.save(path, compression="tiff_lzw")),
    "TIFF, 16-bit": (".tif", sixteen_bit_tiff),
    "TIFF, 16-bit grey, LZW": (".tif", lambda p, path: sixteen_bit_grey(p).save(path, compression="tiff_lzw")),
    "BMP": (".bmp", lambda picture, path: picture.save(path)),
    "WebP": (".webp", lambda picture, path: picture.save(path, method=0)),
    "AVIF": (".avif", lambda picture, path: picture.save(path, speed=10)),
    "JPEG 2000": (".jp2", lambda picture, path: picture.save(path, quality_mode="rates", quality_layers=[20])),
}

ONLY_SMALL = {"WebP", "AVIF", "JPEG 2000"}
"""Formats that unpack a picture as a whole, measured at `--whole` megapixels alone: they are slow to write."""


def peak(what: str, path: Path) -> tuple[str, float]:
    """MiB at the peak, or the reason why the picture is refused; and the seconds it took."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, what, str(path)], capture_output=True, text=True, check=False
    )
    taken = time.monotonic() - start
    if done.returncode:
        return re.sub(r".*: (\d+×)", r"\1", done.stderr.strip().splitlines()[-1]), taken
    return f"{int(done.stdout) / 1024:.0f} MiB", taken


def main() -> None:
    """Print one line for each format and size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megapixels", type=float, nargs="*", default=[16, 70, 200])
    parser.add_argument("--whole", type=float, default=50, help="megapixels for formats that are unpacked as a whole")
    parser.add_argument("--folder", type=Path, help="where the pictures are written; some are of more than a gigabyte")
    arguments = parser.parse_args()
    print(f"the program alone: {peak('nothing', Path())[0]}")
    sizes = dict.fromkeys([*arguments.megapixels, arguments.whole])
    for megapixels in sizes:
        picture = effective_steps(megapixels)
        for kind, (suffix, write) in KINDS.items():
            if (kind in ONLY_SMALL) is not (megapixels == arguments.whole):
                continue
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                path = Path(folder) / f"picture{suffix}"
                write(picture, path)
                told = "".join(f"{text:>12} in {s:5.1f} s" for text, s in (peak("judged", path), peak("cropped", path)))
                size = path.stat().st_size / 1e6
                print(f"{megapixels:>5g} megapixels  {kind:<24}{size:>7.0f} MB {told}", flush=True)


if __name__ == "__main__":
    main()
