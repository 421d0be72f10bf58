"""evaluate: series + dataset → report.

Reads `series/` and `dataset/`; writes `report.json` (docs/REPORT.md explains its fields). Of every picture: how far the
adapters moved it from the base's own, how far it is from each artist in colour, brushwork and geometry, and which
training image it is nearest to. Of every scene and of the whole series: the position of each stop between the two
artists, whether it is monotone, and how even the steps are; where the series has extras, how much pictures of one stop
differ from seed to seed.
"""

from typing import TYPE_CHECKING

from avignon.core.events import Reporter
from avignon.core.files import read_json
from avignon.core.records import series_from
from avignon.core.workspace import Workspace
from avignon.evaluation import copies, report, style
from avignon.evaluation.measure import MeasuredImages, StyleReference
from avignon.recipe.schema import Evaluate, Recipe

if TYPE_CHECKING:
    from avignon.models.image_encoder import ImageEncoder


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Measure every picture and write the report."""
    series = series_from(read_json(space.series_index, "frames", "extras"))
    encoder = _encoder(recipe.evaluate, reporter)
    reference = StyleReference.of(recipe, space, (*style.ASPECTS, *([style.learned(encoder)] if encoder else [])))
    images = MeasuredImages.of(series, space.series, reference)
    frames = []
    for file, frame in series.pictures:
        frames.append(images.frame(file, frame))
        reporter.progress(len(frames), len(series.pictures), file)
    flagged = [measured for measured in frames if measured.nearest.is_copy]
    for copy in flagged:
        reporter.warn(f"{copy.file} may copy {copy.nearest.file} (score {copy.nearest.score:.2f})")
    scenes = tuple(images.scene(scene) for scene in series.scenes)
    notes = [*report.NOTES, *([report.SEEDS_NOTE] if series.extras else [])]
    notes += [report.ENCODER_NOTE.format(model=encoder.model)] if encoder else []
    whole = report.Report(
        series=series.name,
        ends=reference.ends,
        units={aspect: round(unit, 3) for aspect, unit in reference.yardstick.units.items()},
        encoder=_card(encoder) if encoder else None,
        artist_position_std=reference.position_std(),
        copy_threshold=copies.THRESHOLD,
        copy_count=len(flagged),
        overall=images.overall(scenes),
        scenes=scenes,
        frames=tuple(frames[: len(series.frames)]),
        extras=tuple(frames[len(series.frames) :]),
        placing=series.placing,
        notes=tuple(notes),
    )
    report.write(space.report, whole)


def _encoder(settings: Evaluate, reporter: Reporter) -> "ImageEncoder | None":
    if not settings.encoder:
        return None
    from avignon.evaluation.encoder import load  # Here: it loads torch, which measuring does without.

    return load(settings, reporter)


def _card(encoder: "ImageEncoder") -> report.EncoderCard:
    return report.EncoderCard(encoder.model, encoder.revision, encoder.fingerprint, encoder.output)
