"""What the ways of blending do to a series: whether it turns back, and how even its steps are; and a picture of them.

    python benchmarks/blends.py [RUN] [--seeds N] [--stops N] [--steps N] [--picture FILE]

RUN is the folder of a finished run with two artists, by default the demo's. Each of its scenes is painted with N seeds
at every stop of a linear, an arc, an even and a relay series, with and without equal voices where that matters. Traits
are averaged over the seeds, so that what is measured is the blend and not one picture's chance. With --picture, the
first scene of each series is laid into one picture, a series to a row (docs/BLENDING.md shows it).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from avignon.adapters import files as adapter_files
from avignon.adapters import weights as blend
from avignon.core import imaging
from avignon.core.events import Reporter
from avignon.core.records import Frame
from avignon.core.workspace import Workspace
from avignon.evaluation import style
from avignon.generation import sampler as painting
from avignon.generation.spacing import PROBES
from avignon.models import loading, runtime
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe

ROOT = Path(__file__).parents[1]
SILENT = Reporter("benchmark", lambda _: None)


@dataclass(frozen=True)
class Studio:
    """All that a series is painted and measured with."""

    settings: Recipe
    sampler: painting.ImageSampler
    ruler: style.Yardstick
    seeds: int
    steps: int

    def paint(self, mixes: Sequence[blend.Mix]) -> list[list[list[Image.Image]]]:
        """Pictures by mix, scene and seed."""
        size, scenes = self.settings.base.resolution, self.settings.generate.scenes
        frames = [
            Frame("", "", scene.prompt, "", 1000 * number + seed, self.steps, self.settings.generate.guidance_scale,
                  "ddim", size, size, mix.weights, "", {}, "", mix.weight_schedule)
            for mix in mixes for number, scene in enumerate(scenes) for seed in range(self.seeds)
        ]  # fmt: skip
        flat = iter(self.sampler.paint(frames))
        return [[[next(flat) for _ in range(self.seeds)] for _ in scenes] for _ in mixes]


def measure(studio: Studio, pictures: Sequence[Sequence[Sequence[Image.Image]]]) -> tuple[float, float, list[float]]:
    """Share of scenes that never turn back, spread of the steps, and the way in the mean of all scenes."""
    first, last = studio.ruler.manners
    seen = [[style.mean([style.traits(image) for image in scene]) for scene in stop] for stop in pictures]

    def way(one: style.Traits) -> float:
        return studio.ruler.position(studio.ruler.to_artists(one), (first, last))["combined"]

    ways = np.array([[way(scene) for scene in stop] for stop in seen])  # (stops, scenes)
    monotone = float(np.mean([blend.is_monotone(scene) for scene in ways.T.tolist()]))
    means = [style.mean(stop) for stop in seen]
    steps = [studio.ruler.between(one, other)["combined"] for one, other in pairwise(means)]
    return monotone, blend.spread(steps), [way(one) for one in means]


def even(studio: Studio, path: blend.MixPath, stops: int) -> list[float]:
    """Places of stops at equal measured distances, as `spacing = "even"` finds them: other seeds, fewer steps."""
    few = replace(studio, seeds=1, steps=min(studio.steps, 15))
    probes = blend.evenly(PROBES)
    pictures = few.paint([path.at(place) for place in probes])
    means = [style.mean([style.traits(image) for scene in stop for image in scene]) for stop in pictures]
    return blend.even_places(
        probes, [few.ruler.between(one, other)["combined"] for one, other in pairwise(means)], stops
    )


def main() -> None:
    """Print the table, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", nargs="?", type=Path, default=ROOT / "runs" / "demo")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--stops", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    settings = load_recipe(arguments.run / "recipe.toml", ["generate.batch=8"])
    space = Workspace(arguments.run)
    precision = runtime.precision_for("auto", "train", runtime.best_device())
    base = loading.load(settings.base, settings.generate, runtime.DTYPES[precision], SILENT)
    names = settings.adapter_names
    for name in names:
        adapter_files.load(base, name, space.adapter(name))
    works = {a.slug: [style.traits(imaging.load(f)) for f in space.training_images(a.slug)] for a in settings.artists}
    sampler = painting.ImageSampler(base, settings, runtime.best_device(), SILENT)
    studio = Studio(settings, sampler, style.yardstick(works), arguments.seeds, arguments.steps)
    size = settings.base.resolution
    probes = [Frame("", "", s.prompt, "", k, 15, settings.generate.guidance_scale, "ddim", size, size, {}, "", {}, "")
              for k, s in enumerate(settings.generate.scenes[:4])]  # fmt: skip
    gains = blend.equal_gains(sampler.effects(probes, names))
    print("gains:", {name: round(gain, 3) for name, gain in gains.items()}, flush=True)
    strengths = {name: settings.generate.strength_of(name) for name in names}
    arc = blend.MixPath(names, "arc", arguments.steps, strengths, gains)
    plain = replace(arc, gains={})
    series: dict[str, tuple[blend.MixPath, list[float]]] = {
        "linear": (replace(arc, kind="linear"), blend.evenly(arguments.stops)),
        "arc, voices as trained": (plain, blend.evenly(arguments.stops)),
        "arc": (arc, blend.evenly(arguments.stops)),
        "arc, even": (arc, even(studio, arc, arguments.stops)),
        "arc, voices as trained, even": (plain, even(studio, plain, arguments.stops)),
        "relay": (replace(arc, kind="relay"), blend.evenly(arguments.stops)),
    }
    shown = []
    print("| series | scenes that never turn back | longest over shortest step | the way, stop by stop |")
    print("| --- | --- | --- | --- |")
    for name, (path, places) in series.items():
        pictures = studio.paint([path.at(place) for place in places])
        monotone, spread, way = measure(studio, pictures)
        print(f"| {name} | {100 * monotone:.0f} % | {spread:.2f} | {' '.join(f'{w:.2f}' for w in way)} |", flush=True)
        shown.append([stop[0][0] for stop in pictures])
    if arguments.picture:
        sheet_of(shown, size).save(arguments.picture, quality=88)


def sheet_of(rows: Sequence[Sequence[Image.Image]], size: int) -> Image.Image:
    """Series under one another, on white."""
    gap = 4
    sheet = Image.new("RGB", (len(rows[0]) * (size + gap) - gap, len(rows) * (size + 3 * gap) - 3 * gap), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image, (x * (size + gap), y * (size + 3 * gap)))
    return sheet


if __name__ == "__main__":
    main()
