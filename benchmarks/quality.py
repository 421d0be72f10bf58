"""How well each measure of quality tells degraded copies of real paintings from sound ones: precision and recall.

Takes a folder of pictures known to be sound (by default the paintings beside the checkout, `../shared/art`), degrades
each in every way, and asks the measures with the recipe's default thresholds. A copy that is flagged for its own
defect is found; a sound picture, or one with another defect, that is flagged for it is a false alarm.

    python benchmarks/quality.py [FOLDER] [--edge 1200] [--values]
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from avignon import imaging, quality
from avignon.curate import faults
from avignon.recipe import Curate

ART = Path(__file__).parents[2] / "shared" / "art"

Degrade = Callable[[Image.Image], Image.Image]


def jpeg(level: int) -> Degrade:
    """Saved as JPEG once more."""

    def degrade(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=level)
        return imaging.load(buffer.getvalue())

    return degrade


def noisy(sigma: float) -> Degrade:
    """With a camera's noise."""

    def degrade(image: Image.Image) -> Image.Image:
        values = np.asarray(image, dtype=np.float64)
        values = values + np.random.default_rng(0).normal(0, sigma, values.shape)
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))

    return degrade


def scaled_up(factor: float) -> Degrade:
    """With fewer true pixels than it has."""

    def degrade(image: Image.Image) -> Image.Image:
        small = image.resize((round(image.width / factor), round(image.height / factor)), Image.Resampling.LANCZOS)
        return small.resize(image.size, Image.Resampling.BICUBIC)

    return degrade


def toned(dark: tuple[int, int, int], light: tuple[int, int, int]) -> Degrade:
    """As a photograph without colours, toned from dark to light."""

    def degrade(image: Image.Image) -> Image.Image:
        share = np.asarray(image.convert("L"), dtype=np.float64)[..., None] / 255
        values = np.array(dark) * (1 - share) + np.array(light) * share
        return Image.fromarray(values.round().astype(np.uint8))

    return degrade


def mounted(level: tuple[int, int, int], share: float) -> Degrade:
    """With a mount or a wall around it."""

    def degrade(image: Image.Image) -> Image.Image:
        band = round(max(image.size) * share)
        canvas = Image.new("RGB", (image.width + 2 * band, image.height + 2 * band), level)
        canvas.paste(image, (band, band))
        return canvas

    return degrade


PATCHES = ("#735244", "#c29682", "#627a9d", "#d67e2c", "#383d96", "#469449", "#af363c", "#e7c71f", "#bb5695", "#0885a1")
"""Of a common colour target."""


def with_target(image: Image.Image) -> Image.Image:
    """With a colour target below it."""
    band = round(image.height * 0.08)
    canvas = Image.new("RGB", (image.width, image.height + band), "#202020")
    canvas.paste(image, (0, 0))
    brush, width = ImageDraw.Draw(canvas), image.width // (len(PATCHES) + 1)
    for place, patch in enumerate(PATCHES):
        left, top = round(width * (place + 0.5)), image.height + band // 6
        brush.rectangle((left, top, left + round(width * 0.85), canvas.height - band // 6), fill=patch)
    return canvas


def with_ruler(image: Image.Image) -> Image.Image:
    """With a ruler along its lower edge."""
    band = round(image.height * 0.05)
    canvas = Image.new("RGB", (image.width, image.height + band), "#f0ead8")
    canvas.paste(image, (0, 0))
    brush = ImageDraw.Draw(canvas)
    for place, left in enumerate(range(0, image.width, 12)):
        reach = band * (0.9 if place % 10 == 0 else 0.7 if place % 5 == 0 else 0.5)
        brush.line((left, image.height, left, image.height + reach), fill="black", width=2)
    return canvas


DEFECTS: dict[str, dict[str, Degrade]] = {
    "blurred": {
        "radius 0.6 % of the long side": lambda i: i.filter(ImageFilter.GaussianBlur(max(i.size) * 0.006)),
        "radius 1 %": lambda i: i.filter(ImageFilter.GaussianBlur(max(i.size) * 0.01)),
    },
    "scaled up": {"× 2": scaled_up(2), "× 3": scaled_up(3), "× 4": scaled_up(4)},
    "noisy": {"σ 12": noisy(12), "σ 20": noisy(20), "σ 30": noisy(30)},
    "JPEG blocks": {"quality 20": jpeg(20), "quality 10": jpeg(10), "quality 5": jpeg(5)},
    "without colour": {
        "grey": toned((0, 0, 0), (255, 255, 255)),
        "sepia": toned((40, 20, 5), (250, 235, 200)),
        "blue": toned((5, 15, 45), (235, 245, 255)),
    },
    "margin": {"white 5 %": mounted((250, 250, 250), 0.05), "black 10 %": mounted((5, 5, 5), 0.1)},
    "colour target": {"ten patches": with_target},
    "ruler": {"millimetres": with_ruler},
}

COPIES: dict[str, Degrade] = {
    "half the size": lambda i: i.resize((i.width // 2, i.height // 2)),
    "JPEG 40": jpeg(40),
    "brighter by a fifth": lambda i: ImageEnhance.Brightness(i).enhance(1.2),
    "without colour": toned((0, 0, 0), (255, 255, 255)),
    "cropped by 3 % at each edge": lambda i: _cropped(i, 0.03),
    "cropped by 6 %": lambda i: _cropped(i, 0.06),
}


def _cropped(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    box = (round(width * share), round(height * share), round(width * (1 - share)), round(height * (1 - share)))
    return image.crop(box)


def main() -> None:
    """Print one line for each defect and degree, then those of near-duplicates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ART)
    parser.add_argument("--edge", type=int, default=1200, help="longest side at which pictures are judged")
    parser.add_argument("--values", action="store_true", help="print every measure, to set thresholds by")
    arguments = parser.parse_args()
    paths = [path for path in sorted(arguments.folder.glob("*")) if path.suffix.lower() in imaging.SUFFIXES]
    if not paths:
        print(f"{arguments.folder}: no pictures here, nothing is measured")
        return
    sound = {path.stem: _shrunk(imaging.load(path), arguments.edge) for path in paths}
    print(f"{len(sound)} sound pictures, {arguments.edge} pixels at most")
    _defects(sound, arguments.values)
    _duplicates(sound)


def _shrunk(image: Image.Image, edge: int) -> Image.Image:
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    return image


def _flags(image: Image.Image, title: str, values: bool) -> set[str]:
    measures = quality.measure(image)
    if values:
        print(f"    {title:<60} {measures}")
    return {fault.partition(":")[0] for fault in faults(measures, Curate(), in_colour=True)}


def _defects(sound: dict[str, Image.Image], values: bool) -> None:
    flagged = {"sound": {name: _flags(image, name, values) for name, image in sound.items()}}
    for defect, degrees in DEFECTS.items():
        for degree, degrade in degrees.items():
            key = f"{defect}, {degree}"
            flagged[key] = {name: _flags(degrade(i), f"{key}: {name}", values) for name, i in sound.items()}
    print(f"{'defect':<16} {'degree':<32} {'found':>9}   false alarms among sound and otherwise degraded pictures")
    for defect, degrees in DEFECTS.items():
        others = [flags for key, each in flagged.items() if not key.startswith(defect) for flags in each.values()]
        alarms, all_found = sum(defect in flags for flags in others), 0
        for degree in degrees:
            found = sum(defect in flags for flags in flagged[f"{defect}, {degree}"].values())
            all_found += found
            print(f"{defect:<16} {degree:<32} {found:>3} of {len(sound)}")
        total = len(sound) * len(degrees)
        precision = all_found / (all_found + alarms) if all_found + alarms else 0.0
        on_sound = sum(defect in flags for flags in flagged["sound"].values())
        print(
            f"{defect:<16} recall {all_found / total:.2f}, precision {precision:.2f}; "
            f"{on_sound} of {len(sound)} sound ones flagged, {alarms} of {len(others)} altogether"
        )


def _duplicates(sound: dict[str, Image.Image]) -> None:
    least = Curate().duplicate_likeness
    looks = {name: quality.look_at(image) for name, image in sound.items()}
    names = list(looks)
    pairs = [quality.likeness(looks[a], looks[b]) for i, a in enumerate(names) for b in names[:i]]
    alarms = sum(pair >= least for pair in pairs)
    found_all = 0
    for copy, degrade in COPIES.items():
        alike = [quality.likeness(looks[name], quality.look_at(degrade(image))) for name, image in sound.items()]
        found = sum(each >= least for each in alike)
        found_all += found
        print(f"near duplicate   {copy:<32} {found:>3} of {len(sound)}   least likeness {min(alike):.3f}")
    total = len(sound) * len(COPIES)
    print(
        f"near duplicate   recall {found_all / total:.2f}, precision {found_all / (found_all + alarms):.2f}; "
        f"most alike of {len(pairs)} pairs of different paintings {max(pairs):.3f}"
    )


if __name__ == "__main__":
    main()
