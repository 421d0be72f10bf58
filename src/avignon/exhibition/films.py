"""A series as a file for others: a grid, a strip, or a film from the first stop to the last and back.

Each format says in its own way what it is and under which rights: PNG in its texts, animated WebP in XMP, MP4 in its
tags and in XMP, GIF, which has room for nothing else, in a comment. The same pictures give the same bytes.
"""

import io
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from avignon.core import imaging, png
from avignon.core.files import read_json, write_bytes
from avignon.core.grids import grid
from avignon.core.records import Series, frame_record, series_from
from avignon.core.workspace import Workspace
from avignon.recipe.schema import Recipe

RATE = 25
"""Frames per second of an MP4. A stop is repeated as long as it is shown: players stumble over two frames a second."""

XMP_BOX = uuid.UUID("be7acfcb-97a9-42e8-9c71-999491e3afac")
"""Names the box of an MP4 that holds XMP (Adobe, XMP Specification Part 3, 1.2.7)."""


@dataclass(frozen=True)
class Words:
    """What a file says of itself."""

    title: str
    description: str
    """What is shown and how it was made, in a sentence or two."""
    rights: str
    """What the training images allow; empty where all are open."""
    fields: Mapping[str, Any]
    """The same for programs; only a PNG has room for it."""


def sheet(rows: Sequence[Sequence[Image.Image]], words: Words) -> bytes:
    """A PNG of pictures in rows, each of one size; a single row is a strip."""
    return png.png_bytes(grid(rows), words.description, words.fields, words.rights)


def there_and_back(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """One round of a loop: to the last picture and back to the second, so that neither end is shown twice."""
    return [*pictures, *pictures[-2:0:-1]]


def webp(pictures: Sequence[Image.Image], pace: float, words: Words) -> bytes:
    """An animated WebP that goes there and back for ever, each picture for `pace` seconds."""
    return _animated("WEBP", there_and_back(pictures), pace, quality=90, method=4, xmp=_xmp(words).encode())


def gif(pictures: Sequence[Image.Image], pace: float, words: Words) -> bytes:
    """An animated GIF of 256 colours a picture; its clock knows hundredths of a second."""
    comment = f"{words.title}. {words.description} {png.TRAINED} {words.rights}".strip()
    reduced = [picture.quantize(256, Image.Quantize.MEDIANCUT) for picture in there_and_back(pictures)]
    return _animated("GIF", reduced, round(pace, 2), comment=comment.encode())


def _animated(format_name: str, pictures: Sequence[Image.Image], pace: float, **how: Any) -> bytes:
    buffer = io.BytesIO()
    first, *others = pictures
    first.save(buffer, format_name, save_all=True, append_images=others, duration=round(pace * 1000), loop=0, **how)
    return buffer.getvalue()


def mp4(pictures: Sequence[Image.Image], pace: float, words: Words) -> bytes:
    """An MP4 of one round there and back: H.264 with yuv420p, which every browser and phone plays.

    Both sides of the pictures must be even, as those of a series are.
    """
    import av  # An extra of the package (`avignon[video]`), which `recipe.load` has asked for.

    buffer = io.BytesIO()
    # `bitexact` leaves out the version of the library, one thread makes the bytes those of every machine.
    with av.open(buffer, "w", format="mp4", container_options={"fflags": "bitexact"}) as film:
        film.metadata.update(title=words.title, comment=f"{words.description} {png.TRAINED}")
        if words.rights:
            film.metadata["copyright"] = words.rights
        stream = film.add_stream("libx264", rate=Fraction(RATE), options={"crf": "16", "threads": "1"})
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        for picture in there_and_back(pictures):
            for _ in range(max(round(pace * RATE), 1)):
                film.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        film.mux(stream.encode(None))
    # A box of XMP may follow the others (ISO/IEC 14496-12, 4.2).
    content = XMP_BOX.bytes + _xmp(words).encode()
    return buffer.getvalue() + struct.pack(">I4s", 8 + len(content), b"uuid") + content


def _xmp(words: Words) -> str:
    return png.xmp_trained(words.title, words.description, words.rights)


MOVING: Mapping[str, Callable[[Sequence[Image.Image], float, Words], bytes]] = {"webp": webp, "gif": gif, "mp4": mp4}
"""The films, by the names that a recipe has for them."""


def write(recipe: Recipe, space: Workspace) -> list[Path]:
    """Write what the recipe wants of the series as single files; returns their paths.

    Raises:
        ImageError: a picture of the series cannot be read.
    """
    wanted, pace = recipe.exhibit.films, recipe.exhibit.film_pace
    if not wanted:
        return []
    series = series_from(read_json(space.series_index, "frames", "extras"))
    files: dict[str, bytes] = {}
    for scene in series.scenes if set(wanted) != {"grid"} else ():
        pictures, words = _pictures(space, series, scene), _words(space, series, (scene,))
        if "strip" in wanted:
            files[f"{scene}-strip.png"] = sheet([pictures], words)
        for kind in sorted(set(wanted) & MOVING.keys()):
            files[f"{scene}.{kind}"] = MOVING[kind](pictures, pace, words)
    if "grid" in wanted:
        rows = [_pictures(space, series, scene) for scene in series.scenes]
        files["grid.png"] = sheet(rows, _words(space, series, series.scenes))
    for name, content in files.items():
        write_bytes(space.films / name, content)
    return [space.films / name for name in files]


def _pictures(space: Workspace, series: Series, scene: str) -> list[Image.Image]:
    return [imaging.load(space.series / file) for file, _ in series.of_scene(scene)]


def _words(space: Workspace, series: Series, scenes: Sequence[str]) -> Words:
    frames = [each for scene in scenes for each in series.of_scene(scene)]
    first, last = frames[0][1], frames[-1][1]
    seeds = dict.fromkeys(f"“{frame.prompt}”, seed {frame.seed}" for _, frame in frames)
    ends = [", ".join(f"{name} {weight:.2f}" for name, weight in one.weights.items()) for one in (first, last)]
    rights = dict.fromkeys(png.png_rights(space.series / file) for file, _ in frames)  # Each sentence once.
    return Words(
        title=f"{series.name}: {', '.join(scenes)}",
        description=f"{'; '.join(seeds)}: {len(series.stops)} stops from {ends[0]} to {ends[1]}.",
        rights=" ".join(filter(None, rights)),
        fields={"series": series.name, "frames": [frame_record(frame) for _, frame in frames]},
    )
