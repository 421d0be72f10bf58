"""evaluate: series + dataset → report.

Reads `series/` and `dataset/`; writes `report.json` (docs/REPORT.md explains its fields).
"""

from avignon.core.buckets import LEAST_AREA
from avignon.core.events import Reporter
from avignon.core.files import read_json
from avignon.core.records import series_from
from avignon.core.workspace import Workspace
from avignon.evaluation import copies, report, style
from avignon.evaluation.measure import MeasuredImages, StyleReference
from avignon.recipe.schema import Recipe


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Measure every picture and write the report."""
    series = series_from(read_json(space.series_index, "frames", "extras"))
    aspects: tuple[style.Aspect, ...] = style.ASPECTS
    notes, card, asked = [*report.NOTES, *([report.SEEDS_NOTE] if series.extras else [])], None, recipe.evaluate
    shares = [frame.width * frame.height / recipe.base.resolution**2 for _, frame in series.frames]
    if min(shares) < LEAST_AREA or max(shares) > 1 / LEAST_AREA:
        notes.append(report.AREA_NOTE)
    if asked.encoder:
        from avignon.models import image_encoder  # Here: it loads torch, which measuring does without.

        encoder = image_encoder.load(asked.encoder, asked.encoder_mirrors, asked.encoder_revision, reporter)
        aspects += (style.learned(encoder),)
        notes.append(report.ENCODER_NOTE.format(model=encoder.model))
        card = report.EncoderCard(encoder.model, encoder.revision, encoder.fingerprint, encoder.output)
    reference = StyleReference(recipe, space, aspects)
    images = MeasuredImages(series, space.series, reference)
    frames = []
    for file, frame in series.pictures:
        frames.append(images.frame(file, frame))
        reporter.progress(len(frames), len(series.pictures), file)
    flagged = [measured for measured in frames if measured.nearest.is_copy]
    for copy in flagged:
        reporter.warn(f"{copy.file} may copy {copy.nearest.file} (score {copy.nearest.score:.2f})")
    scenes = tuple(images.scene(scene) for scene in series.scenes)
    whole = report.Report(
        series=series.name,
        ends=reference.ends,
        units={aspect: round(unit, 3) for aspect, unit in reference.yardstick.units.items()},
        encoder=card,
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
