"""evaluate: what was measured on a series.

Reads `series/` and `dataset/`; writes `report.json` (docs/REPORT.md has its schema). Of every picture: how far the
adapters moved it from the base's own, how far it is from each artist in colour, brushwork and geometry, and which
training image it is nearest to. Of every scene and of the whole series: where each stop is on the way from the first
voice to the last, whether that is monotone, and how even the steps are; where the series has extras, how much pictures
of one stop differ from seed to seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from avignon.adapters import weights as blend
from avignon.core import imaging
from avignon.core.events import Reporter
from avignon.core.files import read_json, write_json
from avignon.core.records import Frame, Series, plain, series_from
from avignon.core.workspace import Workspace
from avignon.evaluation import copies, style
from avignon.evaluation.style import Traits
from avignon.recipe.schema import Recipe

if TYPE_CHECKING:
    from avignon.evaluation.encoder import Encoder

SCHEMA = 4

NOTES = (
    "Change from the base is the root mean square difference from the base's own picture of the same prompt and seed, "
    "in grey levels 0–255. It says how much the adapters changed, not how well.",
    "Distances in style are in units of how far the artists' own works lie from what these have in common: at 1 a "
    "picture is as near to the artist as his own works are. Colour compares palettes, brushwork the texture of "
    "lightness at several scales and directions, geometry the edges: how many, how straight, how sharp, which way. "
    "None sees what is painted, and none says whether a picture is good.",
    "The way from the first artist to the last is the place of a picture on the line through what each one's works "
    "have in common: 0 at the first, 1 at the last. What lies off that line, as softness that neither has, counts for "
    "nothing on it. A series is called monotone if it never falls.",
    "Distances between neighbouring stops of the series are taken between the means of all scenes, those of a scene "
    "between its own pictures, which also differ by chance.",
    "The copy score says how far the best match of gradients with a work, or a crop of it, mirrored or not, stands out "
    "from the other works' best matches, in standard deviations. It is blind to colour. From the threshold on, a "
    "picture should be looked at beside that image: it is a copy or repeats a motif. Below it nothing is proved.",
)

SEEDS_NOTE = (
    "From seed to seed, pictures of one scene and stop are compared two by two. In composition they differ by 1 less "
    "the correlation of their gradients: well under the base's value, an adapter paints one picture whatever the seed. "
    "In style they differ by their distance: a sure manner has little of it, and that is no fault. How much the prompt "
    "leaves open shows in what the base's own pictures differ by; the other stops are to be read beside it."
)

ENCODER_NOTE = (
    "The encoder is {model}. Its distance is 1 less the cosine of what it makes of two pictures, in the same units; it "
    "also sees what is painted. It has no part in the combined distance, and placed no stop."
)


@dataclass(frozen=True)
class StyleReference:
    """What pictures are held against."""

    style: style.Yardstick
    works: Mapping[str, Sequence[Traits]]
    """Of each artist's training images."""
    originals: copies.Originals
    ends: tuple[str, str]
    """The artists at the two ends of the way."""

    def traits(self, image: Image.Image) -> Traits:
        """What the ruler's aspects see in a picture."""
        return style.traits(image, self.style.aspects)


@dataclass(frozen=True)
class Seen:
    """A picture of the series and its traits."""

    image: Image.Image
    traits: Traits


MeasuredImages = Mapping[tuple[str, str, int], Seen]
"""All pictures, the extras' among them, by scene, stop and seed."""


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Measure every picture and write the report."""
    series = series_from(read_json(space.series_index, "frames", "extras"))
    encoder = _encoder(recipe, reporter)
    ruler = _ruler(recipe, space, (*style.ASPECTS, *([style.learned(encoder)] if encoder else [])))
    seen: dict[tuple[str, str, int], Seen] = {}
    for file, frame in series.pictures:
        image = imaging.load(space.series / file)
        seen[frame.scene, frame.stop, frame.seed] = Seen(image, ruler.traits(image))
    entries = []
    for file, frame in series.pictures:
        entries.append(_measured(file, frame, seen, ruler, series.base_stop))
        reporter.progress(len(entries), len(series.pictures), file)
    for entry in entries:
        if entry["nearest"]["is_copy"]:
            reporter.warn(
                f"{entry['file']} may copy {entry['nearest']['file']} (score {entry['nearest']['score']:.2f})"
            )
    scenes = [_scene(scene, series, seen, ruler) for scene in series.scenes]
    write_json(
        space.report,
        {
            "schema": SCHEMA,
            "series": series.name,
            "ends": list(ruler.ends),
            "units": _rounded(ruler.style.units),
            "encoder": encoder and encoder.card,
            "own_spread": {artist: _own_spread(works, ruler) for artist, works in ruler.works.items()},
            "copy_threshold": copies.THRESHOLD,
            "copies": sum(entry["nearest"]["is_copy"] for entry in entries),
            "whole": _whole(series, seen, ruler, scenes),
            "scenes": scenes,
            "frames": entries[: len(series.frames)],
            "extras": entries[len(series.frames) :],
            "placing": series.placing,
            "notes": [
                *NOTES,
                *([SEEDS_NOTE] if series.extras else []),
                *([ENCODER_NOTE.format(model=encoder.model)] if encoder else []),
            ],
        },
    )


def _encoder(recipe: Recipe, reporter: Reporter) -> "Encoder | None":
    if not recipe.evaluate.encoder:
        return None
    from avignon.evaluation.encoder import (
        load,  # Here, because it needs torch, which measuring without an encoder does not.
    )

    return load(recipe.evaluate, reporter)


def _ruler(recipe: Recipe, space: Workspace, aspects: Sequence[style.Aspect]) -> StyleReference:
    works = {artist.slug: space.training_images(artist.slug) for artist in recipe.artists}
    images = {space.relative(file): imaging.load(file) for files in works.values() for file in files}
    traits = {
        artist: [style.traits(images[space.relative(file)], aspects) for file in files]
        for artist, files in works.items()
    }
    led = [name for name in recipe.path_adapters if name in works]
    ends = led if len(led) > 1 else list(works)
    return StyleReference(
        style.yardstick(traits, aspects),
        traits,
        copies.Originals(images, _works_of(recipe, space)),
        (ends[0], ends[-1]),
    )


def _works_of(recipe: Recipe, space: Workspace) -> dict[str, str]:
    """Which work every training image was cut from."""
    return {
        space.relative(file): f"{artist.slug}/{row['object_id']}"
        for artist in recipe.artists
        for file, row in zip(space.training_images(artist.slug), space.read_metadata(artist.slug), strict=True)
    }


def _own_spread(works: Sequence[Traits], ruler: StyleReference) -> dict[str, float]:
    """How far an artist's own works scatter along the way: the standard deviation of their places, by each aspect."""
    distances = [ruler.style.to_artists(one) for one in works]
    by_aspect = {by: [ruler.style.way(one, ruler.ends, by) for one in distances] for by in ruler.style.by}
    return {by: round(float(np.std(places)), 3) for by, places in by_aspect.items()}


def _measured(file: str, frame: Frame, seen: MeasuredImages, ruler: StyleReference, base_stop: str) -> dict[str, Any]:
    own, base = (seen[frame.scene, stop, frame.seed] for stop in (frame.stop, base_stop))
    distances = ruler.style.to_artists(own.traits)
    match = ruler.originals.nearest(own.image)
    return {
        "file": file,
        "scene": frame.scene,
        "stop": frame.stop,
        "seed": frame.seed,
        "weights": dict(frame.weights),
        "source": frame.source and plain(frame.source),
        "change_from_base": round(style.change(own.image, base.image), 3),
        "scene_kept": round(copies.likeness(own.image, base.image), 3),
        "distance": {artist: _rounded(distance) for artist, distance in distances.items()},
        "way": {by: round(ruler.style.way(distances, ruler.ends, by), 3) for by in ruler.style.by},
        "nearest": {"file": match.file, "score": round(match.score, 3), "is_copy": match.is_copy},
    }


def _scene(scene: str, series: Series, seen: MeasuredImages, ruler: StyleReference) -> dict[str, Any]:
    stops = [seen[scene, frame.stop, frame.seed] for _, frame in series.of_scene(scene)]
    changes = [round(style.change(one.image, other.image), 3) for one, other in pairwise(stops)]
    return {
        "scene": scene,
        "neighbour_change": changes,
        **_course([stop.traits for stop in stops], ruler),
        "seeds": _seeds(scene, series, seen, ruler),
        "over_seeds": _over_seeds(scene, series, seen, ruler),
    }


def _over_seeds(scene: str, series: Series, seen: MeasuredImages, ruler: StyleReference) -> dict[str, Any]:
    """A scene apart from the chance of one seed: the course of the means of all, and how many seeds never turn back."""
    rows = _rows(scene, series, seen)
    monotone = [_course(row, ruler)["monotone"]["combined"] for row in rows]
    means = [style.mean(several) for several in zip(*rows, strict=True)]
    return {"seeds": len(rows), "monotone_seeds": sum(monotone), **_course(means, ruler)}


def _rows(scene: str, series: Series, seen: MeasuredImages) -> list[list[Traits]]:
    """Traits of a scene's pictures, stop by stop, for each of its seeds; the base is no stop."""
    seeds = dict.fromkeys(frame.seed for _, frame in series.pictures if frame.scene == scene)
    return [[seen[scene, stop, seed].traits for stop in series.stops] for seed in seeds]


def _whole(
    series: Series, seen: MeasuredImages, ruler: StyleReference, scenes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The course of the means of all scenes, and how far apart scenes and seeds are at each stop."""
    traits = {(frame.scene, frame.stop): seen[frame.scene, frame.stop, frame.seed].traits for _, frame in series.frames}
    at_stop = [[traits[scene, stop] for scene in series.scenes] for stop in series.stops]
    base = style.mean([traits[scene, series.base_stop] for scene in series.scenes])
    means, over = [style.mean(several) for several in at_stop], [scene["over_seeds"] for scene in scenes]
    diversity = [
        np.mean([ruler.style.between(one, mean)["combined"] for one in several])
        for several, mean in zip(at_stop, means, strict=True)
    ]
    return {
        **_course(means, ruler),
        "monotone_scenes": round(float(np.mean([one["monotone"]["combined"] for one in over])), 3),
        "monotone_rows": round(sum(one["monotone_seeds"] for one in over) / sum(one["seeds"] for one in over), 3),
        "diversity": [round(float(value), 3) for value in diversity],
        "base_distance": {artist: _rounded(d) for artist, d in ruler.style.to_artists(base).items()},
        "seeds": _beside_base([scene["seeds"] for scene in scenes], series.base_stop),
    }


def _seeds(scene: str, series: Series, seen: MeasuredImages, ruler: StyleReference) -> dict[str, dict[str, float]]:
    """By stop, how much a scene's pictures differ from seed to seed; empty without extras."""
    stops = dict.fromkeys(frame.stop for _, frame in series.extras)
    return {stop: _apart([one for (s, t, _), one in seen.items() if (s, t) == (scene, stop)], ruler) for stop in stops}


def _apart(several: Sequence[Seen], ruler: StyleReference) -> dict[str, float]:
    """Mean differences of two of the pictures: in style, in composition (0 to 2), in pixels (grey levels).

    Unlike the distance from the pictures' own mean, a mean over pairs does not grow with how many pictures there are.
    """
    pairs = [
        {
            **ruler.style.between(one.traits, other.traits),
            "composition": 1 - copies.likeness(one.image, other.image),
            "pixels": style.change(one.image, other.image),
        }
        for one, other in combinations(several, 2)
    ]
    return _rounded(_means(pairs))


def _beside_base(scenes: Sequence[Mapping[str, Mapping[str, float]]], base_stop: str) -> dict[str, dict[str, Any]]:
    """By stop, what `_seeds` found in the mean of the scenes, and its share of what the base alone has."""
    means = {stop: _means([scene[stop] for scene in scenes]) for stop in scenes[0]}
    return {
        stop: {
            "apart": _rounded(mean),
            "of_base": {by: round(mean[by] / own, 3) if own else None for by, own in means[base_stop].items()},
        }
        for stop, mean in means.items()
    }


def _means(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {by: float(np.mean([one[by] for one in several])) for by in several[0]}


def _course(traits: Sequence[Traits], ruler: StyleReference) -> dict[str, Any]:
    """A way through traits, stop by stop: distances, place on the way, monotone or not, evenness."""
    distances = [ruler.style.to_artists(one) for one in traits]
    ways = {by: [round(ruler.style.way(one, ruler.ends, by), 3) for one in distances] for by in ruler.style.by}
    between = [ruler.style.between(one, other) for one, other in pairwise(traits)]
    steps = {by: [round(step[by], 3) for step in between] for by in ruler.style.by}
    return {
        "distance": {
            artist: {by: [round(one[artist][by], 3) for one in distances] for by in ruler.style.by}
            for artist in distances[0]
        },
        "way": ways,
        "monotone": {by: blend.is_monotone(way) for by, way in ways.items()},
        "neighbour_distance": steps,
        "spread": {by: _spread(own) for by, own in steps.items()},
    }


def _spread(steps: Sequence[float]) -> float | None:
    spread = blend.spread(steps)
    return round(spread, 3) if np.isfinite(spread) else None


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}
