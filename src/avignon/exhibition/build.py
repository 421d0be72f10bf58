"""From the run's folders to what the page shows."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from avignon import __version__
from avignon.core import imaging, pages
from avignon.core.errors import ImageError
from avignon.core.events import Reporter
from avignon.core.files import read_json
from avignon.core.records import Access, Series, Verdict, series_from
from avignon.core.text import strip_markup
from avignon.core.workspace import AdapterFolder, Workspace
from avignon.evaluation import report as reports
from avignon.evaluation.report import Course, Report
from avignon.exhibition import view
from avignon.exhibition.view import AdapterShare, ArtistWall, MixedAdapter, Picture, Row, Stop, WallLabel
from avignon.museums.registry import museum_name
from avignon.recipe.schema import Artist, Recipe

WALL_EDGE = 640
"""Longest side in pixels at which an open work is shown."""

STUDY_EDGE = 256
"""The same for a work whose image is not open: enough to recognise it by, no substitute for it."""

STORE_EDGE = 128
"""The same for a work that was considered and not hung."""

GRID_EDGE = 320
"""The same for a picture in the grid."""

TONES = 6
"""Colours by which the style sheet tells adapters apart; a seventh adapter begins again."""

Step = Callable[[str], None]
"""Reports one more picture on the page, by its name."""


def build(recipe: Recipe, space: Workspace, reporter: Reporter, films: Sequence[Path]) -> view.Page:
    """Everything the page shows of a run that is finished up to the report; `films` are the series as files.

    Raises:
        ImageError: a picture of the series, or a work that was trained on, cannot be read.
        WorkspaceError: a file of the run is damaged, or the report has another schema.
    """
    series = series_from(read_json(space.series_index, "frames", "extras"))
    report, rows, done = reports.read(space.report), space.read_ledger(), count(1)
    total = len(rows) + len(series.frames)

    def step(text: str) -> None:
        reporter.progress(next(done), total, text)

    cards = {name: read_json(AdapterFolder(space.adapter(name)).card) for name in recipe.adapter_names}
    learned = {
        (artist.name, space.relative(file)): fields
        for artist in recipe.artists
        for file, fields in zip(space.training_images(artist.slug), space.read_metadata(artist.slug), strict=True)
    }
    labels = _labels(space, rows, learned, step)
    works = {(label.row["artist"], label.row["object_id"]): label for label in labels}
    originals = {file: works[artist, fields["object_id"]] for (artist, file), fields in learned.items()}
    adapters = _adapters(recipe, series, cards, labels)
    stops = _stops(series, adapters)
    return view.Page(
        title=recipe.exhibit.title,
        introduction=tuple(text for text in recipe.exhibit.introduction.split("\n\n") if text.strip()),
        name=recipe.name,
        version=__version__,
        walls=tuple(_wall(artist, tone, labels, cards) for tone, artist in enumerate(recipe.artists)),
        artist_names={artist.slug: artist.name for artist in recipe.artists},
        stops=stops,
        scenes=_scenes(space, series, report, stops, adapters, originals, step),
        report=report,
        curves=_curves(report.overall.course, _span(report)),
        adapters=adapters,
        films=tuple(file.relative_to(space.exhibition).as_posix() for file in films),
    )


def _labels(
    space: Workspace, rows: Sequence[Row], learned: Mapping[tuple[str, str], Mapping[str, Any]], step: Step
) -> list[WallLabel]:
    """Of every row of the ledger; `learned` has what is known of each training image, by artist and file."""
    examples: defaultdict[tuple[str, str], list[view.TrainingExample]] = defaultdict(list)
    for (artist, _), fields in learned.items():
        left, upper, right, lower = fields["box"]
        bucket = tuple(fields["bucket"]) if "bucket" in fields else None
        example = view.TrainingExample((left, upper, right, lower), tuple(fields["captions"]), bucket)
        examples[artist, fields["object_id"]].append(example)
    labels: list[WallLabel] = []
    for row in rows:
        label = WallLabel(
            id=f"work-{len(labels) + 1}",
            row=row,
            title=strip_markup(row["title"]),
            museum=museum_name(row["museum"]),
            # A table may hold anything; only addresses that a browser opens as a page become links.
            page=row["page"] if urlsplit(row["page"]).scheme in ("http", "https") else "",
            picture=_work_picture(space, row),
            examples=tuple(examples[row["artist"], row["object_id"]]),
        )
        labels.append(label)
        step(row["title"])
    return labels


def _work_picture(space: Workspace, row: Row) -> Picture | None:
    """The work's picture in the size it may be shown; None where none was fetched, or a rejected one is damaged."""
    if not row["file"]:
        return None
    kept = row["decision"] == Verdict.KEPT
    edge = STORE_EDGE if not kept else WALL_EDGE if row["rights"] == Access.OPEN else STUDY_EDGE
    try:
        return _pictures(space.root / row["file"], edge)[0]
    except ImageError:
        if kept:
            raise
        return None


def _wall(artist: Artist, tone: int, labels: list[WallLabel], cards: Mapping[str, Mapping[str, Any]]) -> ArtistWall:
    own = [label for label in labels if label.row["artist"] == artist.name]
    rights = [card["rights"] for card in cards.values()]
    return ArtistWall(
        name=artist.name,
        slug=artist.slug,
        tone=tone % TONES,
        hung=tuple(label for label in own if label.row["decision"] == Verdict.KEPT),
        not_hung=tuple(label for label in own if label.row["decision"] != Verdict.KEPT),
        acknowledgement=next((each["statement"] for each in rights if artist.name in each["acknowledged"]), ""),
    )


def _adapters(
    recipe: Recipe, series: Series, cards: Mapping[str, Mapping[str, Any]], labels: list[WallLabel]
) -> tuple[MixedAdapter, ...]:
    """Every adapter of the run, then those from outside that the series mixes in."""
    sums = {name: sha for _, frame in series.frames for name, sha in frame.adapters.items()}
    kept = [label for label in labels if label.row["decision"] == Verdict.KEPT]
    adapters = []
    for place, name in enumerate(dict.fromkeys([*recipe.adapter_names, *sums])):
        card = cards.get(name)
        artists = card["artists"] if card else ()
        works = tuple(label for label in kept if label.row["artist"] in artists)
        title = " and ".join(artists) or name
        tone, known = place % TONES, series.origins.get(name)
        adapters.append(MixedAdapter(name, title, tone, sums.get(name, ""), card, works, known))
    return tuple(adapters)


def _shares(weights: Mapping[str, float], adapters: Iterable[MixedAdapter]) -> tuple[AdapterShare, ...]:
    """The weight of every adapter of the series in one picture, 0 where it is not named; none for the base alone."""
    if not weights:
        return ()
    total = sum(abs(weight) for weight in weights.values()) or 1.0
    mixed = ((adapter, weights.get(adapter.name, 0.0)) for adapter in adapters if adapter.sha256)
    return tuple(AdapterShare(adapter, weight, abs(weight) / total) for adapter, weight in mixed)


def _stops(series: Series, adapters: tuple[MixedAdapter, ...]) -> tuple[Stop, ...]:
    """The columns, the base alone first."""
    shares = {frame.stop: _shares(frame.weights, adapters) for _, frame in series.frames}
    stops = []
    for number, stop in enumerate(dict.fromkeys([series.base_stop, *series.stops])):
        if stop in shares:
            active = [share.adapter.title for share in shares[stop] if share.weight]
            title = active[0] if len(active) == 1 < len(shares[stop]) else ""
            stops.append(Stop(stop, number, title, shares[stop]))
    return tuple(stops)


def _scenes(
    space: Workspace,
    series: Series,
    report: Report,
    stops: tuple[Stop, ...],
    adapters: tuple[MixedAdapter, ...],
    originals: Mapping[str, WallLabel],
    step: Step,
) -> tuple[view.SceneRow, ...]:
    """The rows of the grid."""
    frames = {(frame.scene, frame.stop): (file, frame) for file, frame in series.frames}
    measured = {frame.file: frame for frame in report.frames}
    span, pictures = _span(report), len(series.frames)
    # A long series is shown smaller, so that a browser can still hold the page.
    edge = 1024 if pictures <= 150 else 512 if pictures <= 600 else 256

    def anchor(scene: int, stop: int) -> str:
        """Of a place in the grid; empty beyond its edge."""
        inside = 0 <= scene < len(report.scenes) and 0 <= stop < len(stops)
        return f"picture-{scene + 1}-{stops[stop].number}" if inside else ""

    rows = []
    for y, scene in enumerate(report.scenes):
        cells = []
        for x, stop in enumerate(stops):
            file, frame = frames[scene.scene, stop.id]
            small, large = _pictures(space.series / file, GRID_EDGE, edge)
            nearest = measured[file].nearest.file
            work = originals.get(nearest)
            cell = view.Cell(
                id=anchor(y, x),
                stop=stop,
                scene=y + 1,
                frame=frame,
                measured=measured[file],
                small=small,
                large=large,
                shares=_shares(frame.weights, adapters),
                original=view.Original(_pictures(space.root / nearest, STORE_EDGE)[0], work) if work else None,
                before=anchor(y, x - 1),
                after=anchor(y, x + 1),
                above=anchor(y - 1, x),
                below=anchor(y + 1, x),
            )
            cells.append(cell)
            step(file)
        curves = _curves(scene.course, span)
        rows.append(view.SceneRow(y + 1, cells[0].frame.prompt, tuple(cells), scene.neighbour_change, curves))
    return tuple(rows)


def _span(report: Report) -> tuple[float, float]:
    """The lowest and highest position that all the curves of the page show, so that they can be compared.

    At most half a way past either artist: colours that two artists share leave a picture's position far outside, and
    the other curves flat.
    """
    courses = [report.overall.course, *(scene.course for scene in report.scenes)]
    values = [value for course in courses for position in course.position.values() for value in position]
    return max(min([*values, 0.45]), -0.5), min(max([*values, 0.55]), 1.5)


def _curves(course: Course, span: tuple[float, float]) -> view.Curves | None:
    """A report's course as curves; a single stop has none."""
    low, high = span

    def height(value: float) -> float:
        return (high - min(max(value, low), high)) / (high - low)

    lines = tuple(
        (by, " ".join(f"{i + 0.5:g},{height(value):.3f}" for i, value in enumerate(position)))
        for by, position in course.position.items()
    )
    return view.Curves(course, lines, height(0.5)) if len(course.position["combined"]) > 1 else None


def _pictures(path: Path, *edges: int) -> tuple[Picture, ...]:
    """A picture of the run, brought into the page in one or more sizes."""
    image = imaging.load(path)
    contents = [pages.webp_bytes(image, edge) for edge in edges]
    return tuple(Picture(pages.data_uri(content), *imaging.size_of(content)) for content in contents)
