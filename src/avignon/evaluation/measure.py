"""Measuring a series against the artists' own works: pictures → the parts of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from avignon.adapters import weights as blend
from avignon.core import imaging
from avignon.core.records import Frame, Series
from avignon.core.workspace import Workspace
from avignon.evaluation import copies, style
from avignon.evaluation.report import Course, FrameReport, Overall, OverSeeds, SceneReport, SeedDifference
from avignon.evaluation.style import Traits, Yardstick
from avignon.recipe.schema import Recipe


class StyleReference:
    """What pictures are measured against: the training images of a run."""

    def __init__(self, recipe: Recipe, space: Workspace, aspects: Sequence[style.Aspect]) -> None:
        images: dict[str, Image.Image] = {}
        traits: dict[str, list[Traits]] = {}
        work_of: dict[str, str] = {}
        for artist in recipe.artists:
            files = [space.relative(file) for file in space.training_images(artist.slug)]
            images |= {file: imaging.load(space.root / file) for file in files}
            traits[artist.slug] = [style.traits(images[file], aspects) for file in files]
            rows = space.read_metadata(artist.slug)
            work_of |= {file: f"{artist.slug}/{row['object_id']}" for file, row in zip(files, rows, strict=True)}
        on_path = [name for name in recipe.path_adapters if name in traits]
        artists = on_path if len(on_path) > 1 else list(traits)
        self.ends = artists[0], artists[-1]  # The artists at positions 0 and 1.
        self.works = traits
        self.yardstick = style.yardstick(traits, aspects)
        self.originals = copies.Originals(images, work_of)

    def position_std(self) -> dict[str, dict[str, float]]:
        """By artist and aspect, the standard deviation of the positions of the artist's own works."""
        spreads = {}
        for artist, works in self.works.items():
            places = [self.yardstick.position(self.yardstick.to_artists(work), self.ends) for work in works]
            spreads[artist] = {by: round3(np.std([place[by] for place in places])) for by in self.yardstick.by}
        return spreads

    def course(self, traits: Sequence[Traits]) -> Course:
        """Measure a series of traits, stop by stop."""
        distances = [self.yardstick.to_artists(one) for one in traits]
        position = self._by_aspect([self.yardstick.position(one, self.ends) for one in distances])
        between = self._by_aspect([self.yardstick.between(one, other) for one, other in pairwise(traits)])
        ratios = {by: blend.spread(own) for by, own in between.items()}
        return Course(
            distance={artist: self._by_aspect([one[artist] for one in distances]) for artist in self.works},
            position=position,
            monotone={by: blend.is_monotone(places) for by, places in position.items()},
            neighbour_distance=between,
            step_ratio={by: round3(ratio) if np.isfinite(ratio) else None for by, ratio in ratios.items()},
        )

    def _by_aspect(self, stops: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
        return {by: tuple(round3(stop[by]) for stop in stops) for by in self.yardstick.by}


class MeasuredImage(NamedTuple):
    """A picture and its traits."""

    image: Image.Image
    traits: Traits


def pair_difference(several: Sequence[MeasuredImage], yardstick: Yardstick) -> dict[str, float]:
    """How much two of several pictures differ, in the mean of all pairs, whose number has no part in it.

    By aspect in units of style, `composition` (1 less the correlation of gradients), `pixels` (grey levels 0–255).
    """
    pairs = [
        {
            **yardstick.between(one.traits, other.traits),
            "composition": 1 - copies.likeness(one.image, other.image),
            "pixels": style.change(one.image, other.image),
        }
        for one, other in combinations(several, 2)
    ]
    return mean_record(pairs)


class MeasuredImages:
    """All pictures of a series in a folder, extras included, and what is measured on them."""

    def __init__(self, series: Series, folder: Path, reference: StyleReference) -> None:
        self.series, self.reference = series, reference
        self.images: dict[tuple[str, str, int], MeasuredImage] = {}  # By scene, stop and seed.
        for file, frame in series.pictures:
            image = imaging.load(folder / file)
            measured = MeasuredImage(image, style.traits(image, reference.yardstick.aspects))
            self.images[frame.scene, frame.stop, frame.seed] = measured

    def frame(self, file: str, frame: Frame) -> FrameReport:
        """Measure one picture."""
        own, base = (self.images[frame.scene, stop, frame.seed] for stop in (frame.stop, self.series.base_stop))
        distance = self.reference.yardstick.to_artists(own.traits)
        nearest = self.reference.originals.nearest(own.image)
        return FrameReport(
            file=file,
            scene=frame.scene,
            stop=frame.stop,
            seed=frame.seed,
            weights=frame.weights,
            source=frame.source,
            change_from_base=round3(style.change(own.image, base.image)),
            composition_similarity=round3(copies.likeness(own.image, base.image)),
            distance={artist: rounded(one) for artist, one in distance.items()},
            position=rounded(self.reference.yardstick.position(distance, self.reference.ends)),
            nearest=replace(nearest, score=round3(nearest.score)),
        )

    def scene(self, scene: str) -> SceneReport:
        """Measure one scene: as it hangs, and in the mean of its seeds."""
        stops = [self.images[scene, frame.stop, frame.seed] for _, frame in self.series.of_scene(scene)]
        seeds = dict.fromkeys(frame.seed for _, frame in self.series.pictures if frame.scene == scene)
        rows = [[self.images[scene, stop, seed].traits for stop in self.series.stops] for seed in seeds]
        return SceneReport(
            scene=scene,
            neighbour_change=tuple(round3(style.change(one.image, other.image)) for one, other in pairwise(stops)),
            course=self.reference.course([stop.traits for stop in stops]),
            seed_difference=self._seed_difference(scene),
            over_seeds=OverSeeds(
                seed_count=len(rows),
                monotone_seed_count=sum(self.reference.course(row).monotone["combined"] for row in rows),
                course=self.reference.course([style.mean(several) for several in zip(*rows, strict=True)]),
            ),
        )

    def _seed_difference(self, scene: str) -> dict[str, dict[str, float]]:
        """By stop, mean differences of two of a scene's pictures; the number of pictures has no part in them."""
        differences = {}
        for stop in dict.fromkeys(frame.stop for _, frame in self.series.extras):
            several = [image for key, image in self.images.items() if key[:2] == (scene, stop)]
            differences[stop] = rounded(pair_difference(several, self.reference.yardstick))
        return differences

    def overall(self, scenes: Sequence[SceneReport]) -> Overall:
        """Measure the means of all scenes, and how far apart scenes and seeds are at each stop."""
        series, ruler = self.series, self.reference.yardstick
        traits = {(f.scene, f.stop): self.images[f.scene, f.stop, f.seed].traits for _, f in series.frames}
        at_stop = [[traits[scene, stop] for scene in series.scenes] for stop in series.stops]
        means = [style.mean(several) for several in at_stop]
        base = style.mean([traits[scene, series.base_stop] for scene in series.scenes])
        over = [scene.over_seeds for scene in scenes]
        return Overall(
            course=self.reference.course(means),
            monotone_scene_share=round3(np.mean([one.course.monotone["combined"] for one in over])),
            monotone_row_share=round3(sum(o.monotone_seed_count for o in over) / sum(o.seed_count for o in over)),
            scene_diversity=tuple(
                round3(np.mean([ruler.between(one, mean)["combined"] for one in several]))
                for several, mean in zip(at_stop, means, strict=True)
            ),
            base_distance={artist: rounded(distance) for artist, distance in ruler.to_artists(base).items()},
            seed_difference=_beside_base([scene.seed_difference for scene in scenes], series.base_stop),
        )


def _beside_base(scenes: Sequence[Mapping[str, Mapping[str, float]]], base_stop: str) -> dict[str, SeedDifference]:
    """By stop, the mean of the scenes' seed differences, and its share of the base's."""
    means = {stop: mean_record([scene[stop] for scene in scenes]) for stop in scenes[0]}
    shares = {
        stop: {by: round3(mean[by] / own) if own else None for by, own in means[base_stop].items()}
        for stop, mean in means.items()
    }
    return {stop: SeedDifference(rounded(mean), shares[stop]) for stop, mean in means.items()}


def mean_record(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each of several records' numbers, by name."""
    return {by: float(np.mean([one[by] for one in several])) for by in several[0]}


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Numbers to three places, as reports have them."""
    return {name: round3(value) for name, value in values.items()}


def round3(value: float | np.floating) -> float:
    """A number to three places."""
    return round(float(value), 3)
