"""What is measured on a saved adapter against works: one result that holds all facts, typed and versioned.

docs/REPORT.md explains each quantity. Numbers are rounded to three places. "By aspect" is as in `report`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from avignon.evaluation import copies, report, style
from avignon.evaluation.measure import MeasuredImage, mean_record, pair_difference, round3, rounded
from avignon.evaluation.report import Nearest

SCHEMA = 1
"""Of the result: raised where a field gets another name or another meaning."""


@dataclass(frozen=True)
class PictureReport:
    """What was measured on one picture by the adapter."""

    file: str
    prompt: str
    seed: int
    style_distance: Mapping[str, float]
    """By aspect, from what the works have in common."""
    change_from_base: float
    """Root mean square difference from the base's picture of the same prompt and seed, in grey levels 0–255."""
    composition_similarity: float
    """Correlation of gradients with that picture, at most 1."""
    nearest: Nearest
    """The copy check; its file is relative to the works' folder."""


@dataclass(frozen=True)
class SetReport:
    """What was measured on a set of pictures: the adapter's, or the base's own of the same prompts and seeds."""

    style_distance: Mapping[str, float]
    """By aspect, from what the works have in common, in the mean of the pictures."""
    style_distance_std: Mapping[str, float]
    """By aspect, the standard deviation over the pictures."""
    distance_of_mean: Mapping[str, float]
    """By aspect, of what the pictures have in common from what the works have in common."""
    copy_count: int
    copy_share: float
    max_copy_score: float
    seed_difference: Mapping[str, float]
    """By aspect, `composition` and `pixels`, between pictures of one prompt; empty with one seed."""
    prompt_difference: Mapping[str, float]
    """The same between pictures of one seed; empty with one prompt."""


@dataclass(frozen=True)
class WorksReport:
    """The works that the adapter was measured against, and the same measures on them."""

    folder: str
    """Its name, without the way to it."""
    images: Mapping[str, str]
    """SHA-256 of every work's file, by file."""
    passed_over: Mapping[str, str]
    """Why a picture in the folder was not used, by file."""
    units: Mapping[str, float]
    """By aspect, the length of one unit of distance."""
    style_distance: Mapping[str, float]
    """By aspect, of a work from what the others have in common, in the mean; empty with one work."""
    difference: Mapping[str, float]
    """By aspect, `composition` and `pixels`, between two works; empty with one."""


@dataclass(frozen=True)
class AdapterReport:
    """The whole result but its schema number."""

    adapter: Mapping[str, Any]
    """Name, file, `sha256`, `content_sha256`, weight; of its card what it learned from and how."""
    base: Mapping[str, Any]
    """Model, revision, fingerprint, parts and resolution."""
    settings: Mapping[str, Any]
    """Prompts, seeds, and how the pictures were painted."""
    environment: Mapping[str, Any]
    """Versions and machine."""
    works: WorksReport
    copy_threshold: float
    style_gained: Mapping[str, float | None]
    """By aspect, the share of the base's `distance_of_mean` that is gone; None where the base has none."""
    by_adapter: SetReport
    by_base: SetReport
    pictures: tuple[PictureReport, ...]
    notes: tuple[str, ...] = ()


class Measures:
    """Works, and what pictures are measured by against them."""

    def __init__(self, works: Mapping[str, Image.Image], work_of: Mapping[str, str]) -> None:
        """`works`: images by file, all of one size; `work_of` names the work of each, where one has several."""
        self._works = [MeasuredImage(image, style.traits(image)) for image in works.values()]
        self.yardstick = style.yardstick({"works": [each.traits for each in self._works]})
        self._originals = copies.Originals(works, work_of)

    def distance(self, traits: style.Traits) -> dict[str, float]:
        """From what the works have in common, by aspect."""
        return self.yardstick.to_artists(traits)["works"]

    def nearest(self, image: Image.Image) -> Nearest:
        """The copy check of a picture."""
        return self._originals.nearest(image)

    def of_works(self, folder: str, images: Mapping[str, str], passed_over: Mapping[str, str]) -> WorksReport:
        """Measure the works themselves."""
        seen = [each.traits for each in self._works]
        others = [style.mean([*seen[:i], *seen[i + 1 :]]) for i in range(len(seen))] if len(seen) > 1 else []
        apart = [self.yardstick.between(one, mean) for one, mean in zip(seen, others, strict=False)]
        return WorksReport(
            folder=folder,
            images=images,
            passed_over=passed_over,
            units=rounded(self.yardstick.units),
            style_distance=rounded(mean_record(apart)) if apart else {},
            difference=self._difference([self._works]),
        )

    def of_set(self, rows: Sequence[Sequence[MeasuredImage]], nearest: Sequence[Nearest]) -> SetReport:
        """Measure pictures, a row for each prompt and in it one for each seed; `nearest` has their copy checks."""
        seen = [each.traits for row in rows for each in row]
        distances = [self.distance(one) for one in seen]
        copied = sum(each.is_copy for each in nearest)
        return SetReport(
            style_distance=rounded(mean_record(distances)),
            style_distance_std={by: round3(np.std([one[by] for one in distances])) for by in self.yardstick.by},
            distance_of_mean=rounded(self.distance(style.mean(seen))),
            copy_count=copied,
            copy_share=round3(copied / len(seen)),
            max_copy_score=round3(max(each.score for each in nearest)),
            seed_difference=self._difference(rows),
            prompt_difference=self._difference(list(zip(*rows, strict=True))),
        )

    def _difference(self, rows: Sequence[Sequence[MeasuredImage]]) -> dict[str, float]:
        """Between two pictures of one row, in the mean of all rows."""
        if len(rows[0]) < 2:
            return {}
        return rounded(mean_record([pair_difference(row, self.yardstick) for row in rows]))


def gained(adapter: SetReport, base: SetReport) -> dict[str, float | None]:
    """Share of the base's distance from the works that is gone, by aspect; negative where the adapter is further."""
    return {
        by: round3(1 - adapter.distance_of_mean[by] / own) if own else None for by, own in base.distance_of_mean.items()
    }


NOTES = (
    report.NOTES[1],
    "Style gained is the share of the base's own distance that the adapter has taken away, between what all pictures "
    "have in common and what the works have in common: 1 would be no distance left, 0 no gain.",
    report.NOTES[-1],
    "Differences from seed to seed and from prompt to prompt are taken two by two. In composition they are 1 less the "
    "correlation of gradients: well under the base's, the adapter paints one picture whatever is asked for. The works' "
    "own differences stand beside them.",
)
"""What the measures see and do not see."""
