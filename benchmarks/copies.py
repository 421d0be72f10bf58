"""How well planted copies are found, and how often a picture that is none is called one.

    python benchmarks/copies.py [--works N] [--others N] [--art FOLDER]

The originals are true works of the two procedural painters (or the pictures of a folder). Copies are made of them by
crops of 60 to 100 %, mirroring, other colours, blur and noise, all at once. What is no copy are other works by the same
painters: of other subjects, of the same subjects in other scenes (this world draws a subject the same way each time, so
these are repetitions of a motif), and of the very scenes painted anew. The table gives the share found at
the threshold in use, and the threshold that a false-alarm rate of 1 % would ask for.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from avignon.core import formats, imaging
from avignon.demo import world
from avignon.demo.painters import PAINTERS
from avignon.evaluation import copies

SIZE = 192


def paint(hand: str, scene: world.Scene, seed: int) -> Image.Image:
    """A true work, as the museum shows it: painted at twice the size and reduced."""
    return PAINTERS[hand](scene, (2 * SIZE, 2 * SIZE), seed).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def planted(image: Image.Image, rng: random.Random) -> Image.Image:
    """A copy as an overfitted model makes it: another crop, side, colour and sharpness."""
    share = rng.uniform(0.6, 1.0)
    edge = share * image.width
    x, y = rng.uniform(0, image.width - edge), rng.uniform(0, image.height - edge)
    box = (round(x), round(y), round(x + edge), round(y + edge))
    copy = image.crop(box).resize(image.size, Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        copy = ImageOps.mirror(copy)
    hue, saturation, value = copy.convert("HSV").split()
    turn = rng.randrange(256)
    copy = Image.merge("HSV", (hue.point(lambda h: (h + turn) % 256), saturation, value)).convert("RGB")
    copy = ImageEnhance.Color(copy).enhance(rng.uniform(0.0, 1.5))
    copy = ImageEnhance.Brightness(copy).enhance(rng.uniform(0.7, 1.3))
    copy = (
        ImageEnhance.Contrast(copy).enhance(rng.uniform(0.6, 1.4)).filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))
    )
    noise = np.random.default_rng(rng.randrange(2**32)).normal(0, rng.uniform(0, 8), (*copy.size[::-1], 3))
    return Image.fromarray((np.asarray(copy, float) + noise).clip(0, 255).astype(np.uint8))


def report(name: str, true: Sequence[float], false: Sequence[float]) -> None:
    """One line of the table."""
    copied, other = np.asarray(true), np.asarray(false)
    strict = float(np.quantile(other, 0.99))
    found, alarms, left = (100 * float(np.mean(x)) for x in (copied >= copies.THRESHOLD, other >= copies.THRESHOLD,
                                                             copied >= strict))  # fmt: skip
    print(
        f"| {name} | {found:.1f} % of {len(true)} | {alarms:.1f} % of {len(false)} | {strict:.3f} | {left:.1f} % |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--works", type=int, default=12, help="originals by each painter")
    parser.add_argument("--others", type=int, default=80, help="scenes by each painter that are no copies")
    parser.add_argument("--art", type=Path, help="a folder of pictures to plant copies of, besides")
    arguments = parser.parse_args()
    rng = random.Random(7)
    print(f"| pictures | planted copies found at {copies.THRESHOLD} | false alarms | threshold at 1 % | found there |")
    print("| --- | --- | --- | --- | --- |")
    scenes = [world.sample(rng) for _ in range(arguments.works)]
    works = {f"{hand}-{i}": paint(hand, scene, i) for hand in PAINTERS for i, scene in enumerate(scenes)}
    originals = copies.Originals(works)
    true = [originals.nearest(planted(image, rng)).score for image in works.values() for _ in range(5)]
    subjects = {scene.subject for scene in scenes}
    drawn = [world.sample(rng) for _ in range(arguments.others)]
    for name, known in (("other subjects", False), ("the same subjects, other scenes", True)):
        some = [scene for scene in drawn if (scene.subject in subjects) is known]
        false = [
            originals.nearest(paint(hand, scene, 5000 + i)).score for hand in PAINTERS for i, scene in enumerate(some)
        ]
        report(f"procedural painters; {name}", true, false)
    again = [paint(hand, scene, 9000 + i) for hand in PAINTERS for i, scene in enumerate(scenes)]
    report("procedural painters; the same scenes painted anew", true, [originals.nearest(x).score for x in again])
    if arguments.art:
        files = sorted(path for path in arguments.art.iterdir() if path.suffix in formats.SUFFIXES)
        art = [imaging.load(file) for file in files]
        squares = {file.name: imaging.fit(im, imaging.square_crops(im.size, 1)[0], 512)
                   for file, im in zip(files, art, strict=True)}  # fmt: skip
        held, false = copies.Originals(squares), []
        for name in squares:  # Each painting against all the others.
            without = copies.Originals({other: image for other, image in squares.items() if other != name})
            false += [without.nearest(squares[name]).score, without.nearest(planted(squares[name], rng)).score]
        true = [held.nearest(planted(image, rng)).score for image in squares.values() for _ in range(10)]
        report(f"paintings in {arguments.art.name}", true, false)


if __name__ == "__main__":
    main()
