"""How often the measure of style names the right painter, and where it fails.

    python benchmarks/style.py [--works N] [--trials N] [--art FOLDER] [--encoder MODEL] [--revision REVISION]

True works of the two procedural painters: in every trial 14 and 17 works make the yardstick, as in the demo, and the
others are named. Then the same works degraded and recoloured, which shows what each aspect is blind to. With --art, a
folder of paintings with an index.csv (columns file and artist): every painting is left out in turn, and named as by the
first artist of the index or by one of the others. With --encoder, a learned encoder (a directory, or a repository of a
hub) is one more column.
"""

import argparse
import csv
import io
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from avignon.core import imaging
from avignon.core.events import Reporter
from avignon.demo import world
from avignon.demo.painters import PAINTERS
from avignon.evaluation import style
from avignon.models.image_encoder import ImageEncoder, load

SIZE = 192
SHOWN = dict(zip(PAINTERS, (14, 17), strict=True))


def turned(image: Image.Image) -> Image.Image:
    """All hues turned by a third."""
    hue, saturation, value = image.convert("HSV").split()
    return Image.merge("HSV", (hue.point(lambda h: (h + 85) % 256), saturation, value)).convert("RGB")


def repeated(image: Image.Image) -> Image.Image:
    """Saved as a poor JPEG."""
    return imaging.load(_jpeg(image, 25))


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


CHANGES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "as they are": lambda image: image,
    "mirrored": ImageOps.mirror,
    "hues turned by 120°": turned,
    "without colour": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "half the contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.5),
    "darker by 40 %": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "JPEG of quality 25": repeated,
    "blurred by 1 pixel": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "blurred by 2 pixels": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "centre, enlarged 1.5 times": lambda image: image.crop((32, 32, 160, 160)).resize(
        (192, 192), Image.Resampling.BICUBIC
    ),
}


def paint(hand: str, scene: world.Scene, seed: int) -> Image.Image:
    """A true work, as the museum shows it: painted at twice the size and reduced."""
    return PAINTERS[hand](scene, (2 * SIZE, 2 * SIZE), seed).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def named(ruler: style.Yardstick, truth: Sequence[str], pictures: Sequence[style.Traits]) -> dict[str, float]:
    """Share of pictures that are named right, by each aspect."""
    return {by: float(np.mean([ruler.nearest(p, by) == t for t, p in zip(truth, pictures, strict=True)]))
            for by in ruler.by}  # fmt: skip


def row(name: str, shares: Mapping[str, float], count: int) -> None:
    """One line of the table."""
    print(
        f"| {name} | " + " | ".join(f"{100 * share:.0f} %" for share in shares.values()) + f" | {count} |", flush=True
    )


def painters(works: int, trials: int, aspects: Sequence[style.Aspect]) -> None:
    """The two procedural painters."""
    rng = random.Random(11)
    scenes = [world.sample(rng) for _ in range(works)]
    pictures = {hand: [paint(hand, scene, 40_000 + i) for i, scene in enumerate(scenes)] for hand in PAINTERS}
    truth_of = {hand: [style.traits(picture, aspects) for picture in pictures[hand]] for hand in PAINTERS}
    for what, change in CHANGES.items():
        changed = truth_of if what == "as they are" else {
            hand: [style.traits(change(picture), aspects) for picture in pictures[hand]] for hand in PAINTERS
        }  # fmt: skip
        shares: dict[str, list[float]] = {}
        for _ in range(trials):
            order = {hand: rng.sample(range(works), works) for hand in PAINTERS}
            ruler = style.yardstick({h: [truth_of[h][i] for i in order[h][: SHOWN[h]]] for h in PAINTERS}, aspects)
            asked = [(hand, changed[hand][i]) for hand in PAINTERS for i in order[hand][SHOWN[hand] :]]
            for by, share in named(ruler, [hand for hand, _ in asked], [seen for _, seen in asked]).items():
                shares.setdefault(by, []).append(share)
        row(what, {by: float(np.mean(share)) for by, share in shares.items()}, len(asked))


def art(folder: Path, aspects: Sequence[style.Aspect]) -> None:
    """Real paintings, each left out in turn."""
    with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    first = rows[0]["artist"]
    images = [imaging.load(folder / row["file"]) for row in rows]
    for edge in (192, 512):
        squares = [imaging.fit(image, imaging.square_crops(image.size, 1)[0], edge) for image in images]
        seen = [style.traits(square, aspects) for square in squares]
        who = [row["artist"] if row["artist"] == first else "the others" for row in rows]
        right: dict[str, list[bool]] = {}
        for i, one in enumerate(seen):
            rest = {name: [s for j, s in enumerate(seen) if who[j] == name and j != i] for name in dict.fromkeys(who)}
            ruler = style.yardstick(rest, aspects)
            for by in ruler.by:
                right.setdefault(by, []).append(ruler.nearest(one, by) == who[i])
        row(f"{first} or the others, {edge} pixels", {by: float(np.mean(r)) for by, r in right.items()}, len(seen))
        wrong = [rows[i]["title"] for i, ok in enumerate(right["combined"]) if not ok]
        print(f"|   wrong by the combined score: {'; '.join(wrong) or 'none'} |||||", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--works", type=int, default=60, help="works painted by each painter")
    parser.add_argument("--trials", type=int, default=20, help="draws of the works that are shown")
    parser.add_argument("--art", type=Path, help="a folder of paintings with an index.csv")
    parser.add_argument("--encoder", default="", help="a learned encoder: a directory, or a repository of a hub")
    parser.add_argument("--revision", default="main", help="the repository's branch, tag or commit")
    arguments = parser.parse_args()
    aspects = list(style.ASPECTS)
    if arguments.encoder:
        aspects.append(style.learned(encoder(arguments.encoder, arguments.revision)))
    print("| pictures | " + " | ".join([*(aspect.name for aspect in aspects), "combined"]) + " | named |")
    print("| --- " * (len(aspects) + 3) + "|")
    painters(arguments.works, arguments.trials, aspects)
    if arguments.art:
        art(arguments.art, aspects)


def encoder(model: str, revision: str) -> ImageEncoder:
    """The encoder of a directory, or else of a hub."""
    folder = Path(model).expanduser().resolve()
    found = str(folder) if folder.is_dir() else model
    return load(found, (), revision, Reporter("evaluate", lambda event: print(event.text)))


if __name__ == "__main__":
    main()
