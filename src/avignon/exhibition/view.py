"""What the page's template receives: a contract, held by tests/exhibition/test_view.py.

`build` fills it in from the run's folders; `templates/page.html` says how it looks. What was measured comes as the
report's own records, under the report's own names.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avignon.core.records import Access, Frame, Origin
from avignon.evaluation.report import Course, FrameReport, Report

RIBBON = 7
"""Pictures above the title, at most."""

Row = Mapping[str, str]


@dataclass(frozen=True)
class Picture:
    """An image inside the page."""

    source: str
    """A data URI."""
    width: int
    height: int


@dataclass(frozen=True)
class TrainingExample:
    """What the model saw of a work, and the words it read beside it."""

    box: tuple[int, int, int, int]
    """The crop: left, upper, right, lower, in pixels."""
    captions: tuple[str, ...]
    bucket: tuple[int, int] | None = None
    """Width and height in which it was learned; None of a square."""


@dataclass(frozen=True)
class WallLabel:
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
    examples: tuple[TrainingExample, ...]

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
    """The number of the artist's colour."""
    hung: tuple[WallLabel, ...]
    not_hung: tuple[WallLabel, ...]
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
        """Why works were not hung, the most frequent reason first; what follows a colon differs from work to work."""
        return Counter(label.row["reason"].partition(":")[0] for label in self.not_hung).most_common()


@dataclass(frozen=True)
class MixedAdapter:
    """An adapter that the series mixes."""

    name: str
    title: str
    """The artists it learned from, or its own name."""
    tone: int
    """The number of its colour."""
    sha256: str
    """Of the weights; empty for an adapter that no picture was made with."""
    card: Mapping[str, Any] | None
    """None for an adapter from outside the run: nothing is known of its training."""
    works: tuple[WallLabel, ...]
    origin: Origin | None = None
    """Of one from outside the run: what its file says of itself."""


@dataclass(frozen=True)
class AdapterShare:
    """How much of one adapter is in a picture."""

    adapter: MixedAdapter
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
class Original:
    """The training image that a picture is nearest to."""

    picture: Picture
    work: WallLabel
    """From which it was cut."""


@dataclass(frozen=True)
class Curves:
    """A course, drawn: the positions of its stops by aspect."""

    course: Course
    lines: tuple[tuple[str, str], ...]
    """By aspect, the points of its curve: x from 0 to the number of stops, y from 0 (the last artist's side) to 1."""
    halfway: float
    """The height of position 0.5."""


@dataclass(frozen=True)
class Cell:
    """One picture of the dialogue, and everything that is known of it."""

    id: str
    """The anchor of its panel."""
    stop: Stop
    scene: int
    """From 1."""
    frame: Frame
    measured: FrameReport
    small: Picture
    large: Picture
    shares: tuple[AdapterShare, ...]
    original: Original | None
    """None where the nearest training image is not one of the run's."""
    before: str
    after: str
    above: str
    below: str
    """Anchors of the neighbours in the grid; empty at its edge."""

    @property
    def alt(self) -> str:
        """What the picture is, for those who do not see it."""
        mix = ", ".join(f"{s.adapter.title} at {s.weight:.2f}" for s in self.shares)
        mix = mix or "the base model, without adapters"
        return f"Picture made by a trained model, not by a painter. Prompt: {self.frame.prompt}. Mixed from: {mix}"


@dataclass(frozen=True)
class SceneRow:
    """A row of the grid: one prompt and one seed at every stop."""

    number: int
    """From 1."""
    prompt: str
    cells: tuple[Cell, ...]
    neighbour_change: tuple[float, ...]
    """Root mean square difference of grey levels between neighbouring stops."""
    curves: Curves | None
    """None for a single stop."""


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    title: str
    introduction: tuple[str, ...]
    """Its paragraphs."""
    name: str
    """Of the run."""
    version: str
    """Of avignon."""
    walls: tuple[ArtistWall, ...]
    artist_names: Mapping[str, str]
    """By slug."""
    stops: tuple[Stop, ...]
    """The base alone first."""
    scenes: tuple[SceneRow, ...]
    report: Report
    curves: Curves | None
    """Of the means of all scenes; None for a single stop."""
    adapters: tuple[MixedAdapter, ...]
    """Those of the run, which have cards, first."""
    films: tuple[str, ...]
    """The series as files for others, relative to the page."""

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Widths and heights of the pictures of the dialogue, each once."""
        return list(dict.fromkeys((s.cells[0].frame.width, s.cells[0].frame.height) for s in self.scenes))

    @property
    def ribbon(self) -> list[Cell]:
        """The first scene at a glance, without the base."""
        cells = [cell for cell in self.scenes[0].cells if cell.stop.number]
        count = min(RIBBON, len(cells))
        return [cells[round(i * (len(cells) - 1) / max(count - 1, 1))] for i in range(count)]

    @property
    def copies(self) -> list[Cell]:
        """Pictures that may copy a training image."""
        cells = (cell for scene in self.scenes for cell in scene.cells)
        return [cell for cell in cells if cell.original and cell.measured.nearest.is_copy]
