"""How well each measure of quality tells degraded copies of real paintings from sound ones: precision and recall.

Takes a folder of pictures known to be sound (by default the paintings beside the checkout, `../shared/art`), degrades
each in every way, and asks the measures with the recipe's default thresholds. A copy that is flagged for its own
defect is found; a sound picture, or one with another defect, that is flagged for it is a false alarm.

    python benchmarks/quality.py [FOLDER] [--edge 1200] [--values]
"""

import argparse
import io
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from avignon.core import formats, imaging
from avignon.curation import duplicates, quality
from avignon.curation.gate import faults
from avignon.recipe.schema import Curate

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


def gilded(share: float, *, rim: bool, askew: float = 0.0) -> Degrade:
    """In a carved and gilded frame, lit from the upper right; `rim` is its bright fillet, `askew` is in degrees."""

    def degrade(image: Image.Image) -> Image.Image:
        band = round(min(image.size) * share)
        width, height = image.width + 2 * band, image.height + 2 * band
        y, x = np.mgrid[:height, :width].astype(np.float64)
        inwards = np.minimum.reduce([x, y, width - 1 - x, height - 1 - y]) / band  # 0 outside, 1 at the picture
        along = np.where(np.minimum(y, height - 1 - y) < np.minimum(x, width - 1 - x), x, y) / band
        carved = np.sin(8 * along) * np.sin(9 * inwards) + 0.6 * np.sin(24 * along + 4 * inwards)
        worn = np.random.default_rng(0).normal(0, 0.06, (height, width))
        light = 0.6 + 0.18 * carved + 0.1 * np.sin(6 * inwards) + worn
        if rim:
            light = np.where(inwards > 0.93, 0.95, np.where(inwards > 0.88, 0.2, light))
        gold = (light[..., None] * np.array([215, 170, 80])).clip(0, 255).astype(np.uint8)
        canvas = Image.fromarray(gold)
        canvas.paste(image, (band, band))
        lit = np.linspace(1.1, 0.7, height)[:, None, None] * np.linspace(0.8, 1.1, width)[None, :, None]
        framed = Image.fromarray((np.asarray(canvas) * lit).clip(0, 255).astype(np.uint8))
        return _askew(framed, askew) if askew else framed

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
    "scaled up": {"× 2": scaled_up(2), "× 3": scaled_up(3), "× 4": scaled_up(4), "× 8": scaled_up(8)},
    "noisy": {"σ 12": noisy(12), "σ 20": noisy(20), "σ 30": noisy(30)},
    "JPEG blocks": {"quality 20": jpeg(20), "quality 10": jpeg(10), "quality 5": jpeg(5)},
    "without colour": {
        "grey": toned((0, 0, 0), (255, 255, 255)),
        "sepia": toned((40, 20, 5), (250, 235, 200)),
        "blue": toned((5, 15, 45), (235, 245, 255)),
    },
    "margin": {"white 5 %": mounted((250, 250, 250), 0.05), "black 10 %": mounted((5, 5, 5), 0.1)},
    "frame": {
        "carved and gilded, 10 %": gilded(0.1, rim=True),
        "the same, askew by 0.4°": gilded(0.1, rim=True, askew=0.4),
        "askew by 1°": gilded(0.12, rim=True, askew=1),
        "without a rim": gilded(0.08, rim=False),
    },
    "colour target": {"ten patches": with_target},
    "ruler": {
        "millimetres": with_ruler,
        "askew by 1°": lambda i: _askew(with_ruler(i), 1),
    },
}


def printed(image: Image.Image) -> Image.Image:
    """As a print: hatched in three directions, each where the tone is darker than its own level, on pale paper."""
    tone = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(1)), dtype=np.float64)
    y, x = np.mgrid[: tone.shape[0], : tone.shape[1]]
    ink = np.zeros_like(tone, dtype=bool)
    for level, across in ((170, x + y), (110, x - y), (60, x)):
        ink |= (tone < level) & (across % 6 < 2)
    paper = np.array([238, 228, 205])
    return Image.fromarray(np.where(ink[..., None], 40, paper).astype(np.uint8))


def state(seed: int, changes: int, crop: float) -> Degrade:
    """Another state of a print: tone and lines added or burnished away here and there, and cut otherwise."""

    def degrade(image: Image.Image) -> Image.Image:
        random = np.random.default_rng(seed)
        plate = image.copy()
        brush = ImageDraw.Draw(plate, "RGBA")
        for _ in range(changes):
            left, top = random.uniform(0, 0.8, 2) * plate.size
            right, bottom = (left, top) + random.uniform(0.1, 0.25, 2) * plate.size
            tone = (20, 20, 20) if random.random() < 0.6 else (245, 240, 225)
            brush.ellipse((left, top, right, bottom), fill=(*tone, int(random.uniform(60, 150))))
            for height in np.arange(top, bottom, 7):
                brush.line((left, height, right, height + 9), fill=(*tone, 200), width=2)
        shares = random.uniform(0, crop, 4) * (*plate.size, *plate.size)
        return printed(plate).crop(
            (round(shares[0]), round(shares[1]), round(plate.width - shares[2]), round(plate.height - shares[3]))
        )

    return degrade


COPIES: dict[str, Degrade] = {
    "half the size": lambda i: i.resize((i.width // 2, i.height // 2)),
    "JPEG 40": jpeg(40),
    "brighter by a fifth": lambda i: ImageEnhance.Brightness(i).enhance(1.2),
    "without colour": toned((0, 0, 0), (255, 255, 255)),
    "cropped by 3 % at each edge": lambda i: _cropped(i, 0.03),
    "cropped by 6 %": lambda i: _cropped(i, 0.06),
    "cropped unevenly, by up to 8 %": lambda i: _unevenly(i, 0.08),
}
"""Other views of one painting."""

STATES: dict[str, Degrade] = {
    "another state, 3 changes": state(1, 3, 0.03),
    "6 changes, cut by up to 6 %": state(2, 6, 0.06),
    "10 changes, cut by up to 6 %": state(3, 10, 0.06),
}
"""Of one print, each beside its first state."""

KIN = {"blurred": {"scaled up"}, "scaled up": {"blurred"}, "margin": {"frame"}, "frame": {"margin"}}
"""Defects of which the one is rightly seen in the other: what was scaled up is blurred, a flat mount is a frame."""


def _askew(image: Image.Image, degrees: float) -> Image.Image:
    return _cropped(image.rotate(degrees, Image.Resampling.BICUBIC), 0.012)


def _unevenly(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    return image.crop((round(width * share), 0, round(width * (1 - share / 4)), round(height * (1 - share / 2))))


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
    paths = [path for path in sorted(arguments.folder.glob("*")) if path.suffix.lower() in formats.SUFFIXES]
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
    flagged = {"sound": [_flags(image, name, values) for name, image in sound.items()]}
    kinds = {"sound": ""}
    for defect, degrees in DEFECTS.items():
        for degree, degrade in degrees.items():
            key = f"{defect}, {degree}"
            kinds[key] = defect
            flagged[key] = [_flags(degrade(i), f"{key}: {name}", values) for name, i in sound.items()]
    print(f"\nof {len(sound)} of each kind, flagged as: {', '.join(DEFECTS)}")
    for key, each in flagged.items():
        counts = [sum(defect in flags for flags in each) for defect in DEFECTS]
        print(f"{key:<44}" + "".join(f"{count or '·':>5}" for count in counts))
    print()
    for defect in DEFECTS:
        _judged(defect, kinds, flagged)


def _judged(defect: str, kinds: dict[str, str], flagged: dict[str, list[set[str]]]) -> None:
    """Recall over all degrees; precision against sound pictures, and against those with a defect of another kind."""

    def counted(which: Callable[[str], bool]) -> tuple[int, int]:
        flags = [each for key, kind in kinds.items() if which(kind) for each in flagged[key]]
        return sum(defect in each for each in flags), len(flags)

    found, planted = counted(lambda kind: kind == defect)
    on_sound, sound = counted(lambda kind: not kind)
    on_others, others = counted(lambda kind: kind not in ("", defect, *KIN.get(defect, ())))
    precision = found / max(1, found + on_sound + on_others)
    print(
        f"{defect:<16} recall {found / planted:.2f} ({found} of {planted}), precision {precision:.2f} "
        f"(false alarms: {on_sound} of {sound} sound, {on_others} of {others} with another defect)"
    )


def _duplicates(sound: dict[str, Image.Image]) -> None:
    least = Curate().duplicate_likeness
    print(f"\nnear duplicates, from a likeness of {least:g}")
    for what, originals, copies in (
        ("views", sound, COPIES),
        ("states", {name: printed(image) for name, image in sound.items()}, STATES),
    ):
        looks = {name: duplicates.look_at(image) for name, image in originals.items()}
        pairs = [duplicates.likeness(a, b) for a, b in combinations(looks.values(), 2)]
        alarms, found_all = sum(pair >= least for pair in pairs), 0
        for copy, degrade in copies.items():
            # A state is made from the painting and printed; a view is made from the original itself.
            alike = [
                duplicates.likeness(looks[name], duplicates.look_at(degrade(image))) for name, image in sound.items()
            ]
            found = sum(each >= least for each in alike)
            found_all += found
            print(f"{what:<16} {copy:<32} {found:>3} of {len(sound)}   least likeness {min(alike):.3f}")
        print(
            f"{what:<16} recall {found_all / (len(sound) * len(copies)):.2f}, "
            f"precision {found_all / max(1, found_all + alarms):.2f}; "
            f"most alike of {len(pairs)} pairs of different works {max(pairs):.3f}"
        )


if __name__ == "__main__":
    main()
