"""The report: everything that `evaluate` measures on a series, typed and versioned. `exhibit` and tests read it here.

docs/REPORT.md explains each quantity. Numbers are rounded to three places. "By aspect" means by `colour`, `brushwork`,
`geometry`, with a learned encoder also `encoder`, and `combined`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from avignon.core.errors import WorkspaceError
from avignon.core.files import damaged, read_json, write_json
from avignon.core.records import Source, plain

SCHEMA = 5
"""Of report.json: raised where a field gets another name or another meaning."""


@dataclass(frozen=True)
class EncoderCard:
    """The learned encoder that was used."""

    model: str
    """A repository, or the name of a local folder."""
    revision: str
    """The hub's commit; empty for a local folder."""
    sha256: str
    """Of its weights."""
    output: str
    """Which of its outputs is compared."""


@dataclass(frozen=True)
class Nearest:
    """The copy check of one picture: the training image that it is nearest to."""

    file: str
    """Relative to the run."""
    score: float
    """How far that image's work stands out from the other works, in standard deviations."""
    is_copy: bool
    """Whether the score reaches the threshold: the picture should be looked at beside that image."""


@dataclass(frozen=True)
class FrameReport:
    """What was measured on one picture."""

    file: str
    scene: str
    stop: str
    seed: int
    weights: Mapping[str, float]
    source: Source | None
    """The user's picture that this one begins from."""
    change_from_base: float
    """Root mean square difference from the base's picture of the same scene and seed, in grey levels 0–255."""
    composition_similarity: float
    """Correlation of gradients with the base's picture of the same scene and seed, at most 1."""
    distance: Mapping[str, Mapping[str, float]]
    """By artist and aspect."""
    position: Mapping[str, float]
    """By aspect: 0 at the first artist, 1 at the last."""
    nearest: Nearest


@dataclass(frozen=True)
class Course:
    """A series of traits, stop by stop in order."""

    distance: Mapping[str, Mapping[str, tuple[float, ...]]]
    """By artist and aspect, of every stop."""
    position: Mapping[str, tuple[float, ...]]
    """By aspect, of every stop."""
    monotone: Mapping[str, bool]
    """By aspect, whether the position never falls between 0 and 1."""
    neighbour_distance: Mapping[str, tuple[float, ...]]
    """By aspect, between neighbouring stops."""
    step_ratio: Mapping[str, float | None]
    """By aspect, the largest of these distances over the smallest; None where two stops do not differ."""


@dataclass(frozen=True)
class OverSeeds:
    """A scene apart from the chance of one seed."""

    seed_count: int
    monotone_seed_count: int
    """Seeds whose own combined course is monotone."""
    course: Course
    """Of the means of all seeds."""


@dataclass(frozen=True)
class SceneReport:
    """What was measured on one scene."""

    scene: str
    neighbour_change: tuple[float, ...]
    """Root mean square difference between neighbouring stops, in grey levels 0–255."""
    course: Course
    """Of the pictures of the grid, which all have one seed."""
    seed_difference: Mapping[str, Mapping[str, float]]
    """By stop, then by aspect, `composition` and `pixels`; empty without extras."""
    over_seeds: OverSeeds


@dataclass(frozen=True)
class SeedDifference:
    """How much two pictures of one scene and stop differ from seed to seed, in the mean of all pairs and scenes."""

    difference: Mapping[str, float]
    """By aspect, `composition` (1 less its similarity) and `pixels` (grey levels 0–255)."""
    share_of_base: Mapping[str, float | None]
    """The same as shares of the base's; None where the base's pictures do not differ."""


@dataclass(frozen=True)
class Overall:
    """What was measured on all scenes together."""

    course: Course
    """Of the means of all scenes."""
    monotone_scene_share: float
    """Share of scenes whose combined course, in the mean of their seeds, is monotone."""
    monotone_row_share: float
    """The same of single rows: every scene with each of its seeds."""
    scene_diversity: tuple[float, ...]
    """Mean distance of the scenes from their mean, stop by stop."""
    base_distance: Mapping[str, Mapping[str, float]]
    """Of the base's pictures, by artist and aspect."""
    seed_difference: Mapping[str, SeedDifference]
    """By stop; empty without extras."""


@dataclass(frozen=True)
class Report:
    """All of report.json but its schema number."""

    series: str
    """The recipe's name."""
    ends: tuple[str, str]
    """The artists at positions 0 and 1."""
    units: Mapping[str, float]
    """By aspect, the length of one unit of distance."""
    encoder: EncoderCard | None
    artist_position_std: Mapping[str, Mapping[str, float]]
    """By artist and aspect, the standard deviation of the positions of the artist's own works."""
    copy_threshold: float
    copy_count: int
    """Pictures that reach it, extras included."""
    overall: Overall
    scenes: tuple[SceneReport, ...]
    frames: tuple[FrameReport, ...]
    """The pictures of the grid."""
    extras: tuple[FrameReport, ...]
    """Those with further seeds."""
    placing: Mapping[str, Any]
    """How the stops came to their weights, as the series has it."""
    notes: tuple[str, ...]
    """What the measures see and do not see."""


def write(path: Path, report: Report) -> None:
    """Write report.json.

    Raises:
        WorkspaceError: a number in it is not finite.
    """
    write_json(path, {"schema": SCHEMA, **plain(report)})


def read(path: Path) -> Report:
    """Read report.json.

    Raises:
        WorkspaceError: it is damaged, or was written by a version with another schema.
    """
    fields = read_json(path, "schema")
    if fields["schema"] != SCHEMA:
        raise WorkspaceError(f"{path}: has schema {fields['schema']}, needed is {SCHEMA}; delete it and run again")
    try:
        return TypeAdapter(Report).validate_python(fields)
    except ValidationError:
        raise damaged(path) from None


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
"""What the measures see and do not see; the page shows them."""

SEEDS_NOTE = (
    "From seed to seed, pictures of one scene and stop are compared two by two. In composition they differ by 1 less "
    "the correlation of their gradients: well under the base's value, an adapter paints one picture whatever the seed. "
    "In style they differ by their distance: a sure manner has little of it, and that is no fault. How much the prompt "
    "leaves open shows in what the base's own pictures differ by; the other stops are to be read beside it."
)

AREA_NOTE = (
    "Some pictures are larger or smaller than the training images, by more than a tenth of their area. Brushwork and "
    "geometry, whose measures are in pixels, take a smaller picture for one that was reduced, and a larger one for one "
    "that was enlarged."
)

ENCODER_NOTE = (
    "The encoder is {model}. Its distance is 1 less the cosine of what it makes of two pictures, in the same units; it "
    "also sees what is painted. It has no part in the combined distance, and placed no stop."
)
