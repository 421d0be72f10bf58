"""evaluate: what was measured on a series.

Reads `series/` and `dataset/`; writes `report.json`: for every frame, how far the adapters moved it from the base's own
picture, and how far its colours are from each artist's training images; for every scene, how far neighbours are apart.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avignon import imaging, style
from avignon.recipe import Recipe
from avignon.records import Frame, Series, Voice, series_from
from avignon.workspace import Workspace, read_json, write_json

SCHEMA = 1

NOTES = (
    "Change from the base is the root mean square difference from the base's own picture of the same prompt and seed, "
    "in grey levels 0–255. It says how much the adapters changed, not how well.",
    "Distance in colour is the sliced Wasserstein distance of a picture's palette from that of all an artist's "
    "training images, in CIE L*a*b*. It sees colour alone, neither brushwork nor composition.",
    "Nothing here says whether a picture copies a training image.",
)

Palette = NDArray[np.float64]


def run(recipe: Recipe, space: Workspace, voice: Voice) -> None:
    """Measure every frame and write the report."""
    series = series_from(read_json(space.series_index))
    images = {file: imaging.load(space.series / file) for file, _ in series.frames}
    palettes = {artist.slug: _palette_of(space, artist.slug) for artist in recipe.artists}
    by_place = {(frame.scene, frame.stop): images[file] for file, frame in series.frames}
    frames = []
    for file, frame in series.frames:
        frames.append(_measured(file, frame, by_place, palettes, series.base_stop))
        voice.progress(len(frames), len(series.frames), file)
    scenes = [{"scene": scene, "neighbour_change": _neighbours(scene, series, by_place)} for scene in series.scenes]
    write_json(
        space.report, {"schema": SCHEMA, "series": series.name, "frames": frames, "scenes": scenes, "notes": NOTES}
    )


def _palette_of(space: Workspace, artist: str) -> Palette:
    """The mean of an artist's palettes: the Wasserstein barycentre along each direction."""
    files = [space.metadata(artist).with_name(row["file_name"]) for row in space.read_metadata(artist)]
    mean: Palette = np.mean([style.palette(imaging.load(f)) for f in files], axis=0)
    return mean


def _measured(
    file: str,
    frame: Frame,
    by_place: dict[tuple[str, str], Image.Image],
    palettes: dict[str, Palette],
    base_stop: str,
) -> dict[str, object]:
    image = by_place[frame.scene, frame.stop]
    own = style.palette(image)
    return {
        "file": file,
        "scene": frame.scene,
        "stop": frame.stop,
        "weights": dict(frame.weights),
        "change_from_base": round(style.change(image, by_place[frame.scene, base_stop]), 3),
        "colour_distance": {name: round(style.colour_distance(own, palette), 3) for name, palette in palettes.items()},
    }


def _neighbours(scene: str, series: Series, by_place: dict[tuple[str, str], Image.Image]) -> list[float]:
    images = [by_place[scene, stop] for stop in series.stops]
    return [round(style.change(one, other), 3) for one, other in pairwise(images)]
