"""exhibit: everything the run has made → one page that opens from disk, with no network.

Reads all the stages' folders; writes `exhibition/index.html`, and the series as single files to `exhibition/films/`.
This module says what hangs where; how it looks is said in `templates/exhibition.html`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from PIL import Image

from avignon import __version__
from avignon.core import imaging, pages, png
from avignon.core.errors import ImageError
from avignon.core.events import Reporter
from avignon.core.files import read_json, write_bytes, write_text
from avignon.core.records import Access, Frame, Series, Verdict, frame_record, series_from
from avignon.core.text import strip_markup
from avignon.core.workspace import Workspace
from avignon.exhibition import films
from avignon.museums.registry import museum_name
from avignon.recipe.schema import Artist, Recipe

WALL_EDGE = 640
"""Longest side in pixels at which an open work is shown."""

STUDY_EDGE = 256
"""The same for a work whose image is not open: enough to recognise it by, no substitute for it."""

STORE_EDGE = 128
"""The same for a work that was considered and not hung."""

GRID_EDGE = 320
"""The same for a picture in the grid; its large copy follows `_large_edge`."""

RIBBON = 7
"""Pictures above the title, at most."""

TONES = 6
"""Colours by which the template tells adapters apart; a seventh adapter begins again."""

Row = Mapping[str, str]


@dataclass(frozen=True)
class Picture:
    """An image inside the page."""

    source: str
    """A data URI."""
    width: int
    height: int


@dataclass(frozen=True)
class Lesson:
    """One training image: what the model saw of a work, and the words it read beside it."""

    box: tuple[int, int, int, int]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Label:
    """A work's wall label; also its line among the works that were not hung."""

    id: str
    """The anchor on the page."""
    row: Row
    """As the ledger has it."""
    title: str
    """Without the marks that the ledger keeps."""
    museum: str
    page: str
    """The museum's page of the object; empty where there is none that a browser may open."""
    picture: Picture | None
    lessons: tuple[Lesson, ...]

    @property
    def is_open(self) -> bool:
        """Whether the image may be used freely, as far as the evidence goes."""
        return self.row["rights"] == Access.OPEN

    @property
    def condition(self) -> str:
        """What the image's licence asks; empty for nothing, and in a ledger that has no such column yet."""
        return self.row.get("condition") or ""

    @property
    def sentence(self) -> str:
        """What the label says of the rights, and of what the user stated where they are not open."""
        stated = " Whoever ran this stated that they may use it." if self.row.get("acknowledged") == "true" else ""
        return Access(self.row["rights"]).under(self.condition) + stated


@dataclass(frozen=True)
class ArtistWall:
    """One artist's wall in the first room."""

    name: str
    slug: str
    tone: int
    hung: tuple[Label, ...]
    not_hung: tuple[Label, ...]
    acknowledgement: str
    """What the user stated about works that are not open; empty where nothing was acknowledged."""

    @property
    def not_open(self) -> int:
        """How many of the works that hang are restricted or of unknown rights."""
        return sum(not label.is_open for label in self.hung)

    @property
    def conditions(self) -> list[str]:
        """What the licences of the works that hang ask, each once."""
        return list(dict.fromkeys(label.condition for label in self.hung if label.condition))

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why works were not hung, the commonest first; what follows a colon differs from work to work."""
        return Counter(label.row["reason"].partition(":")[0] for label in self.not_hung).most_common()


@dataclass(frozen=True)
class Part:
    """An adapter that the series mixes."""

    name: str
    title: str
    """The artists it learned from, or its own name."""
    tone: int
    sha256: str
    """Of the weights; empty for an adapter that no picture was made with."""
    card: Mapping[str, Any] | None
    """None for an adapter from outside the run: nothing is known of its training."""
    works: tuple[Label, ...]


@dataclass(frozen=True)
class AdapterShare:
    """How much of one adapter is in a picture."""

    part: Part
    weight: float
    share: float
    """Of all weights in the picture, 0 to 1, for the bar."""


@dataclass(frozen=True)
class Stop:
    """A column of the grid; all its pictures have the same weights."""

    id: str
    number: int
    """From 1; 0 for the base alone."""
    title: str
    """The one adapter at work; empty where several are, or where the series has no other."""
    shares: tuple[AdapterShare, ...]


@dataclass(frozen=True)
class Nearest:
    """The copy check of one picture: the training image it is nearest to."""

    picture: Picture
    work: Label
    score: float
    threshold: float

    @property
    def is_copy(self) -> bool:
        """Whether the picture should be looked at as a copy."""
        return self.score >= self.threshold


@dataclass(frozen=True)
class Course:
    """Where the stops of one scene, or of all in the mean, are on the way from the first artist to the last."""

    lines: tuple[tuple[str, str], ...]
    """By aspect, the points of its curve: x from 0 to the number of stops, y from 0 (the last artist's side) to 1."""
    ways: Mapping[str, tuple[float, ...]]
    monotone: bool
    spread: float | None
    """Largest over smallest distance between neighbouring stops; None where two do not differ."""
    halfway: float
    """The height at which a picture is equally far from both."""


@dataclass(frozen=True)
class Variety:
    """How much pictures of one stop differ from seed to seed, in the mean of all scenes."""

    stop: Stop
    apart: Mapping[str, float]
    """By aspect of style, `combined`, `composition` and `pixels` (grey levels)."""
    of_base: Mapping[str, float | None]
    """The same as shares of what the base's pictures differ by; None where those do not differ."""


@dataclass(frozen=True)
class Cell:
    """One picture of the dialogue, and everything that is known of it."""

    id: str
    stop: Stop
    scene: int
    """From 1."""
    frame: Frame
    file: str
    href: str
    """The full PNG, relative to the page."""
    small: Picture
    large: Picture
    shares: tuple[AdapterShare, ...]
    change: float | None
    """Root mean square difference of grey levels from the base's picture; None for the base itself."""
    kept: float | None
    """Likeness of its composition to that of the base's picture, at most 1; None for the base itself."""
    distances: tuple[tuple[str, Mapping[str, float]], ...]
    """Distance from each artist's works by aspect, and combined."""
    nearest: Nearest | None
    before: str
    after: str
    above: str
    below: str
    """Anchors of the neighbours in the grid; empty at its edge."""

    @property
    def alt(self) -> str:
        """What the picture is, for those who do not see it."""
        mix = ", ".join(f"{d.part.title} at {d.weight:.2f}" for d in self.shares) or "the base model, without adapters"
        return f"Picture made by a trained model, not by a painter. Prompt: {self.frame.prompt}. Mixed from: {mix}"


@dataclass(frozen=True)
class SceneRow:
    """A row of the grid: one prompt and one seed at every stop."""

    id: str
    number: int
    prompt: str
    seed: int
    cells: tuple[Cell, ...]
    changes: tuple[float, ...]
    """Root mean square difference of grey levels between neighbouring stops."""
    course: Course | None


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    title: str
    introduction: tuple[str, ...]
    name: str
    version: str
    walls: tuple[ArtistWall, ...]
    stops: tuple[Stop, ...]
    scenes: tuple[SceneRow, ...]
    course: Course | None
    """Of the means of all scenes."""
    ends: tuple[str, str]
    """Names of the artists at the two ends of the way."""
    monotone_scenes: float
    """Share of the scenes that never turn back, in the mean of their seeds."""
    monotone_rows: float
    """The same of every scene with each of its seeds."""
    parts: tuple[Part, ...]
    cards: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]
    native: int
    """True width in pixels of the pictures of the dialogue."""
    films: tuple[str, ...]
    """The series as files for others, relative to the page."""
    seeds: int
    """Pictures of a scene's stop that were compared, each with its own seed; 1 where the series has no extras."""
    varieties: tuple[Variety, ...]
    """How various they are, the base first; empty without extras."""
    copied_extras: tuple[str, ...]
    """Extras that may copy a training image, relative to the page: they hang nowhere, and are not kept quiet."""

    @property
    def ribbon(self) -> list[Cell]:
        """The first scene at a glance, without the base."""
        cells = [cell for cell in self.scenes[0].cells if cell.stop.number]
        count = min(RIBBON, len(cells))
        return [cells[round(i * (len(cells) - 1) / max(count - 1, 1))] for i in range(count)]

    @property
    def copies(self) -> list[Cell]:
        """Pictures that may copy a training image."""
        return [cell for scene in self.scenes for cell in scene.cells if cell.nearest and cell.nearest.is_copy]

    @property
    def picture_count(self) -> int:
        """Pictures in the dialogue, those without adapters included."""
        return sum(len(scene.cells) for scene in self.scenes)


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Hang the exhibition: one self-contained page.

    Raises:
        ImageError: a picture of the series, or a work that was trained on, cannot be read.
    """
    beside = _films(recipe, space)
    page = _page(recipe, space, reporter, tuple(file.relative_to(space.exhibition).as_posix() for file in beside))
    write_text(space.page, render(page))
    space.sweep(space.exhibition, {space.page, *beside})
    reporter.note(f"{page.picture_count} pictures and {sum(len(wall.hung) for wall in page.walls)} works hang")


def render(page: Page) -> str:
    """The page as HTML."""
    return pages.rendered("exhibition.html", page=page)


def _page(recipe: Recipe, space: Workspace, reporter: Reporter, beside: tuple[str, ...]) -> Page:
    series = series_from(read_json(space.series_index, "frames", "extras"))
    report = read_json(space.report)
    rows = space.read_ledger()
    progress = _Progress(reporter, len(rows) + len(series.frames))
    cards = _cards(recipe, space)
    labels = _labels(recipe, space, rows, progress)
    parts = _parts(recipe, series, cards, labels)
    stops = _stops(series, parts)
    dialogue = _Dialogue(
        space=space,
        scenes=series.scenes,
        stops=stops,
        parts=parts,
        artists={artist.slug: artist.name for artist in recipe.artists},
        frames={(frame.scene, frame.stop): (file, frame) for file, frame in series.frames},
        measured={entry["file"]: entry for entry in report["frames"]},
        courses={entry["scene"]: entry for entry in report["scenes"]},
        span=_span(report),
        originals=_originals(recipe, space, labels),
        threshold=report["copy_threshold"],
        edge=_large_edge(len(series.frames)),
    )
    return Page(
        title=recipe.exhibit.title,
        introduction=tuple(text for text in recipe.exhibit.introduction.split("\n\n") if text.strip()),
        name=recipe.name,
        version=__version__,
        walls=tuple(_wall(artist, tone, labels, cards) for tone, artist in enumerate(recipe.artists)),
        stops=stops,
        scenes=dialogue.rows(progress),
        course=_course(report["whole"], dialogue.span),
        ends=(dialogue.artists[report["ends"][0]], dialogue.artists[report["ends"][1]]),
        monotone_scenes=report["whole"]["monotone_scenes"],
        monotone_rows=report["whole"]["monotone_rows"],
        parts=parts,
        cards=tuple(cards.values()),
        notes=tuple(report["notes"]),
        native=series.frames[0][1].width,
        films=beside,
        seeds=1 + len({frame.seed for _, frame in series.extras if frame.scene == series.scenes[0]}),
        varieties=_varieties(report["whole"]["seeds"], stops),
        copied_extras=tuple(_href(entry["file"]) for entry in report["extras"] if entry["nearest"]["is_copy"]),
    )


class _Progress:
    """Counts pictures as they are brought onto the page."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self._reporter = reporter
        self._total = total
        self._done = 0

    def step(self, text: str) -> None:
        """One more is done."""
        self._done += 1
        self._reporter.progress(self._done, self._total, text)


# The series as files for others ---------------------------------------------------------------------------------------


def _films(recipe: Recipe, space: Workspace) -> list[Path]:
    """Write what the recipe wants of the series as one file; returns the files."""
    series, wanted = series_from(read_json(space.series_index, "frames", "extras")), recipe.exhibit.films
    files = {name: content for scene in series.scenes for name, content in _films_of(recipe, space, series, scene)}
    if "grid" in wanted:
        rows = [_shown(space, series, scene) for scene in series.scenes]
        files["grid.png"] = films.sheet(rows, _words(space, series, series.scenes))
    for name, content in files.items():
        write_bytes(space.films / name, content)
    return [space.films / name for name in files]


def _films_of(recipe: Recipe, space: Workspace, series: Series, scene: str) -> Iterator[tuple[str, bytes]]:
    """One scene's strip and films, by name."""
    wanted, pace = set(recipe.exhibit.films) - {"grid"}, recipe.exhibit.film_pace
    if not wanted:
        return
    pictures, words = _shown(space, series, scene), _words(space, series, (scene,))
    if "strip" in wanted:
        yield f"{scene}-strip.png", films.sheet([pictures], words)
    for name in sorted(wanted & films.MOVING.keys()):
        yield f"{scene}.{name}", films.MOVING[name](pictures, pace, words)


def _shown(space: Workspace, series: Series, scene: str) -> list[Image.Image]:
    """The pictures of a scene, stop by stop."""
    return [imaging.load(space.series / file) for file, _ in series.of_scene(scene)]


def _words(space: Workspace, series: Series, scenes: Sequence[str]) -> films.Words:
    frames = [each for scene in scenes for each in series.of_scene(scene)]
    first, last = frames[0][1], frames[-1][1]
    seeds = dict.fromkeys(f"“{frame.prompt}”, seed {frame.seed}" for _, frame in frames)
    ends = [", ".join(f"{name} {weight:.2f}" for name, weight in one.weights.items()) for one in (first, last)]
    return films.Words(
        title=f"{series.name}: {', '.join(scenes)}",
        description=f"{'; '.join(seeds)}: {len(series.stops)} stops from {ends[0]} to {ends[1]}.",
        rights=films.rights_of(png.png_rights(space.series / file) for file, _ in frames),
        fields={"series": series.name, "frames": [frame_record(frame) for _, frame in frames]},
    )


# The works ------------------------------------------------------------------------------------------------------------


def _labels(recipe: Recipe, space: Workspace, rows: Sequence[Row], progress: _Progress) -> list[Label]:
    lessons = {artist.name: _lessons(space, artist) for artist in recipe.artists}
    labels = []
    for number, row in enumerate(rows, start=1):
        learned = lessons[row["artist"]].get(row["object_id"], ())
        labels.append(_label(f"work-{number}", row, _image(space, row), tuple(learned)))
        progress.step(row["title"])
    return labels


def _label(anchor: str, row: Row, picture: Picture | None, lessons: tuple[Lesson, ...]) -> Label:
    return Label(
        id=anchor,
        row=row,
        title=strip_markup(row["title"]),
        museum=museum_name(row["museum"]),
        # A table may hold anything; only addresses that a browser opens as a page become links.
        page=row["page"] if urlsplit(row["page"]).scheme in ("http", "https") else "",
        picture=picture,
        lessons=lessons,
    )


def _image(space: Workspace, row: Row) -> Picture | None:
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


def _lessons(space: Workspace, artist: Artist) -> dict[str, list[Lesson]]:
    """An artist's training images by object id."""
    lessons: dict[str, list[Lesson]] = {}
    for fields in space.read_metadata(artist.slug):
        left, upper, right, lower = fields["box"]
        lesson = Lesson((left, upper, right, lower), tuple(fields["captions"]))
        lessons.setdefault(fields["object_id"], []).append(lesson)
    return lessons


def _wall(artist: Artist, tone: int, labels: list[Label], cards: Mapping[str, Mapping[str, Any]]) -> ArtistWall:
    own = [label for label in labels if label.row["artist"] == artist.name]
    statements = [
        card["rights"]["statement"] for card in cards.values() if artist.name in card["rights"]["acknowledged"]
    ]
    return ArtistWall(
        name=artist.name,
        slug=artist.slug,
        tone=tone % TONES,
        hung=tuple(label for label in own if label.row["decision"] == Verdict.KEPT),
        not_hung=tuple(label for label in own if label.row["decision"] != Verdict.KEPT),
        acknowledgement=statements[0] if statements else "",
    )


# The adapters ---------------------------------------------------------------------------------------------------------


def _cards(recipe: Recipe, space: Workspace) -> dict[str, Mapping[str, Any]]:
    """The cards of the adapters that this run trained."""
    return {name: read_json(space.adapter(name) / "card.json") for name in recipe.adapter_names}


def _parts(
    recipe: Recipe, series: Series, cards: Mapping[str, Mapping[str, Any]], labels: list[Label]
) -> tuple[Part, ...]:
    """Every adapter of the run, then those from outside that the series mixes in."""
    sums = {name: sha for _, frame in series.frames for name, sha in frame.adapters.items()}
    names = dict.fromkeys([*recipe.adapter_names, *sums])
    return tuple(
        _part(name, tone % TONES, sums.get(name, ""), cards.get(name), labels) for tone, name in enumerate(names)
    )


def _part(name: str, tone: int, sha256: str, card: Mapping[str, Any] | None, labels: list[Label]) -> Part:
    artists = card["artists"] if card else ()
    works = (label for label in labels if label.row["artist"] in artists and label.row["decision"] == Verdict.KEPT)
    return Part(name, " and ".join(artists) or name, tone, sha256, card, tuple(works))


def _doses(weights: Mapping[str, float], parts: Iterable[Part]) -> tuple[AdapterShare, ...]:
    """The weight of every adapter of the series in one picture, 0 where it is not named; none for the base alone."""
    if not weights:
        return ()
    total = sum(abs(weight) for weight in weights.values()) or 1.0
    mixed = ((part, weights.get(part.name, 0.0)) for part in parts if part.sha256)
    return tuple(AdapterShare(part, weight, abs(weight) / total) for part, weight in mixed)


# The dialogue ---------------------------------------------------------------------------------------------------------


def _stops(series: Series, parts: tuple[Part, ...]) -> tuple[Stop, ...]:
    """The columns, the base alone first."""
    weights = {frame.stop: frame.weights for _, frame in series.frames}
    ids = [series.base_stop, *(stop for stop in series.stops if stop != series.base_stop)]
    return tuple(
        _stop(stop, number, _doses(weights[stop], parts)) for number, stop in enumerate(ids) if stop in weights
    )


def _varieties(seeds: Mapping[str, Any], stops: tuple[Stop, ...]) -> tuple[Variety, ...]:
    return tuple(Variety(stop, **seeds[stop.id]) for stop in stops if stop.id in seeds)


def _stop(stop: str, number: int, shares: tuple[AdapterShare, ...]) -> Stop:
    active = [dose.part.title for dose in shares if dose.weight]
    return Stop(stop, number, active[0] if len(active) == 1 < len(shares) else "", shares)


@dataclass(frozen=True)
class _Dialogue:
    """What the pictures of the grid are made of, looked up by place."""

    space: Workspace
    scenes: tuple[str, ...]
    stops: tuple[Stop, ...]
    parts: tuple[Part, ...]
    artists: Mapping[str, str]
    """Names by slug."""
    frames: Mapping[tuple[str, str], tuple[str, Frame]]
    """File and frame by scene and stop."""
    measured: Mapping[str, Mapping[str, Any]]
    """The report's entry by file."""
    courses: Mapping[str, Mapping[str, Any]]
    """The report's entry by scene."""
    span: tuple[float, float]
    """Least and greatest place on the way that the curves show."""
    originals: Mapping[str, tuple[Path, Label]]
    """Training images by their path in the run: the file, and the work it shows."""
    threshold: float
    """Copy score from which a picture is flagged."""
    edge: int
    """Longest side of the large copies."""

    def rows(self, progress: _Progress) -> tuple[SceneRow, ...]:
        """All scenes, in order."""
        return tuple(self._row(place, progress) for place in range(len(self.scenes)))

    def _row(self, scene: int, progress: _Progress) -> SceneRow:
        cells = []
        for stop in range(len(self.stops)):
            cells.append(self._cell(scene, stop))
            progress.step(cells[-1].file)
        frame = cells[0].frame
        entry = self.courses[frame.scene]
        return SceneRow(
            id=f"scene-{scene + 1}",
            number=scene + 1,
            prompt=frame.prompt,
            seed=frame.seed,
            cells=tuple(cells),
            changes=tuple(entry["neighbour_change"]),
            course=_course(entry, self.span),
        )

    def _cell(self, scene: int, stop: int) -> Cell:
        column = self.stops[stop]
        file, frame = self.frames[self.scenes[scene], column.id]
        entry = self.measured[file]
        small, large = _pictures(self.space.series / file, GRID_EDGE, self.edge)
        return Cell(
            id=self._anchor(scene, stop),
            stop=column,
            scene=scene + 1,
            frame=frame,
            file=file,
            href=_href(file),
            small=small,
            large=large,
            shares=_doses(frame.weights, self.parts),
            change=entry["change_from_base"] if column.number else None,
            kept=entry["scene_kept"] if column.number else None,
            distances=tuple((self.artists[artist], distance) for artist, distance in entry["distance"].items()),
            nearest=self._nearest(entry["nearest"]),
            before=self._anchor(scene, stop - 1),
            after=self._anchor(scene, stop + 1),
            above=self._anchor(scene - 1, stop),
            below=self._anchor(scene + 1, stop),
        )

    def _nearest(self, entry: Mapping[str, Any]) -> Nearest | None:
        if entry["file"] not in self.originals:
            return None
        file, work = self.originals[entry["file"]]
        return Nearest(_pictures(file, STORE_EDGE)[0], work, entry["score"], self.threshold)

    def _anchor(self, scene: int, stop: int) -> str:
        """The anchor of a place in the grid; empty beyond its edge."""
        inside = 0 <= scene < len(self.scenes) and 0 <= stop < len(self.stops)
        return f"picture-{scene + 1}-{self.stops[stop].number}" if inside else ""


def _span(report: Mapping[str, Any]) -> tuple[float, float]:
    """The places on the way that all the curves of the page lie between, so that they can be compared.

    At most half a way past either artist: colours that two artists share leave a picture's place far outside, and the
    other curves flat.
    """
    courses = [report["whole"], *report["scenes"]]
    values = [value for course in courses for way in course["way"].values() for value in way]
    return max(min([*values, 0.45]), -0.5), min(max([*values, 0.55]), 1.5)


def _course(entry: Mapping[str, Any], span: tuple[float, float]) -> Course | None:
    """A report's course as curves; a single stop has none."""
    low, high = span
    ways = {by: tuple(way) for by, way in entry["way"].items()}

    def height(value: float) -> float:
        return (high - min(max(value, low), high)) / (high - low)

    lines = {by: " ".join(f"{i + 0.5:g},{height(v):.3f}" for i, v in enumerate(way)) for by, way in ways.items()}
    monotone, spread = entry["monotone"]["combined"], entry["spread"]["combined"]
    return Course(tuple(lines.items()), ways, monotone, spread, height(0.5)) if len(ways["combined"]) > 1 else None


def _originals(recipe: Recipe, space: Workspace, labels: list[Label]) -> dict[str, tuple[Path, Label]]:
    """Every training image by its path in the run, with the work it was cut from."""
    works = {(label.row["artist"], label.row["object_id"]): label for label in labels}
    return {
        space.relative(file): (file, works[artist.name, row["object_id"]])
        for artist in recipe.artists
        for file, row in zip(space.training_images(artist.slug), space.read_metadata(artist.slug), strict=True)
    }


def _href(file: str) -> str:
    """A picture of the series, relative to the page."""
    return "../series/" + quote(file)


def _large_edge(frames: int) -> int:
    """Longest side of the large copies: a long series is shown smaller, so that a browser can still hold the page."""
    return 1024 if frames <= 150 else 512 if frames <= 600 else 256


def _pictures(path: Path, *edges: int) -> tuple[Picture, ...]:
    """A picture of the run, brought into the page in one or more sizes."""
    image = imaging.load(path)
    return tuple(_inlined(image, edge) for edge in edges)


def _inlined(image: Image.Image, edge: int) -> Picture:
    content = pages.webp_bytes(image, edge)
    return Picture(pages.data_uri(content), *imaging.size_of(content))
