"""The nouns: frozen, no I/O. What each stage hands to the next is made of these."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from avignon.core.errors import WorkspaceError

EMBEDDED = "embedded"
"""The word in a recipe for the museum, and for the base, inside the package."""
NGA_TABLES = "https://raw.githubusercontent.com/NationalGalleryOfArt/opendata/main/data"
"""Where the National Gallery of Art publishes its tables."""


class Access(StrEnum):
    """What may be done with the image of a work, as far as the evidence goes."""

    OPEN = "open"
    RESTRICTED = "restricted"
    UNKNOWN = "unknown"

    @property
    def sentence(self) -> str:
        """What a wall label says."""
        return {
            Access.OPEN: "Open: as far as the evidence goes, this image may be used freely.",
            Access.RESTRICTED: "Restricted: this image has not been released for free use.",
            Access.UNKNOWN: "Rights unknown: nothing shows that this image may be used freely.",
        }[self]

    def under(self, condition: str) -> str:
        """What a wall label says of an image whose licence sets a condition; `sentence` where it sets none."""
        if not condition:
            return self.sentence
        if self is Access.OPEN:
            return f"Open with a condition: as far as the evidence goes, this image may be used under {condition}."
        return f"{self.sentence} Its licence names a condition: {condition}."


@dataclass(frozen=True)
class Rights:
    """Access, and what it rests on. Never set from hope: no evidence means unknown."""

    access: Access
    evidence: str
    """Field values and reasoning in one line, e.g. `openaccess=0; maxpixels=900; artist died 1973`."""
    condition: str = ""
    """What its licence asks of whoever uses it, e.g. `attribution, share-alike (CC BY-SA 4.0)`; empty for nothing."""

    @property
    def label(self) -> str:
        """What a wall label says."""
        return self.access.under(self.condition)

    @property
    def brief(self) -> str:
        """Access and condition, for a cell of a table."""
        return brief(self.access, self.condition)


def brief(access: str, condition: str) -> str:
    """Access and condition as a cell of a table has them, e.g. `open: attribution (CC BY 4.0)`."""
    return f"{access}: {condition}" if condition else str(access)


@dataclass(frozen=True)
class Work:
    """One museum object with one image."""

    museum: str
    object_id: str
    artist: str
    """The name in the recipe, so that a work found under a spelling of the museum's still joins its artist."""
    title: str
    image_url: str
    """Where the pixels come from: a IIIF image's base URI, or a path inside the user's folder."""
    rights: Rights
    attributed: str = ""
    """The artist as the museum names them."""
    accession: str = ""
    date: str = ""
    """As displayed, e.g. `1873-1876`."""
    medium: str = ""
    classification: str = ""
    terms: tuple[str, ...] = ()
    credit: str = ""
    width: int = 0
    """True width in pixels as the museum states it; 0 where it does not."""
    height: int = 0
    page: str = ""
    """The object's page for people, where the museum has one."""
    begin: int | None = None
    """First and last year in which the work was made; None where the museum does not say."""
    end: int | None = None
    depicts: str = ""
    """What is to be seen, in the museum's own words for those who cannot see it."""
    most: int = 0
    """Longest side, in pixels, of the image that the museum sends; 0 where it sets no limit."""


class Verdict(StrEnum):
    """Kept or rejected; there is no third."""

    KEPT = "kept"
    REJECTED = "rejected"

    @property
    def word(self) -> str:
        """What a curator writes for it in a decisions file."""
        return "keep" if self is Verdict.KEPT else "drop"


@dataclass(frozen=True)
class Decision:
    """Why a work is in the training set, or is not."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class Original:
    """An image as received: its place in the run, its true size and its SHA-256."""

    file: str
    width: int
    height: int
    sha256: str
    capped: bool = False
    """The museum sent a smaller image than it has (National Gallery of Art: a redirect to `…__900`)."""
    source: str = ""
    """What was asked for; while that stays the same, the image is not received again."""
    by_hand: bool = False
    """Whoever runs this added it, in place of fetching."""


@dataclass(frozen=True)
class Found:
    """A work that was considered: rejected on its record alone, or with its original."""

    work: Work
    decision: Decision | None = None
    """Set when the record alone (rights, role, size) rejected the work, and no image was fetched."""
    original: Original | None = None


@dataclass(frozen=True)
class Example:
    """A prepared training image with its captions and the work it came from."""

    file: str
    captions: tuple[str, ...]
    sha256: str
    """Of the prepared PNG."""
    object_id: str
    accession: str
    title: str
    museum: str
    box: tuple[int, int, int, int]
    """The crop: left, upper, right, lower, in pixels of the original turned upright."""
    rights: str = Access.OPEN
    """Access and condition of the work's image, as `brief` writes them."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the original turned upright, in pixels; earlier versions did not write it."""
    bucket: tuple[int, int] | None = None
    """Width and height of the image, of a data set in buckets; else it is the base's square, and not written."""


@dataclass(frozen=True)
class Card:
    """What an adapter is and where it comes from; `card.json` beside the weights."""

    name: str
    artists: tuple[str, ...]
    triggers: tuple[str, ...]
    base: Mapping[str, Any]
    """Model, revision and fingerprint of the base the adapter belongs to."""
    trainable: Mapping[str, Any]
    """Parameters trained, parameters of the denoiser, their share, rank per kind of layer."""
    dataset: Mapping[str, Any]
    """Images, works, and a hash over the prepared images and captions."""
    rights: Mapping[str, Any]
    """Counts of works per access and condition, whose restricted works were acknowledged, the sentence that follows."""
    recipe: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: Mapping[str, Any]
    """Steps, final loss (mean of the last 50 steps), seconds, and the identity of the training job."""
    works: Sequence[Mapping[str, str]] = ()
    """What it learned from: of every work the ledger's columns that tell whose it is and under which rights."""
    date: str = ""
    """The day on which its training ended (ISO 8601, UTC); empty where that was not written down."""


@dataclass(frozen=True)
class Source:
    """A picture of the user's that a generated one begins from."""

    file: str
    """Its name, without the folder, which is nobody's business."""
    sha256: str
    strength: float
    """Share of the denoising steps that are done on it."""


@dataclass(frozen=True)
class Frame:
    """One generated image's full description: the same frame always gives the same picture."""

    scene: str
    stop: str
    prompt: str
    negative_prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str
    width: int
    height: int
    weights: Mapping[str, float]
    """Weight of every adapter, in the mean over the denoising steps; empty for the base alone."""
    base: str
    """Fingerprint of the base model."""
    adapters: Mapping[str, str]
    """SHA-256 of each adapter's weights file."""
    precision: str
    weight_schedule: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Weight at every denoising step, of the adapters whose weight is not the same at all of them."""
    block_weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By adapter, factors on its weight in parts of the denoiser: `down`, `mid`, `up`, or a block by its own name."""
    to_seed: int = -1
    """A second seed, towards whose noise that of `seed` is turned; -1 for none."""
    seed_place: float = 0.0
    """How far it is turned: 0 is `seed`'s noise, 1 is `to_seed`'s."""
    source: Source | None = None
    """None where the picture begins from noise."""
    denoiser_only: Sequence[str] = ()
    """Adapters whose part on the prompt encoders is left out."""

    @property
    def only(self) -> str:
        """The adapter that alone is on; empty where none is, or several are."""
        is_on = [name for name, weight in self.weights.items() if weight or name in self.weight_schedule]
        return is_on[0] if len(is_on) == 1 else ""

    @property
    def effective_steps(self) -> int:
        """Denoising steps that are done: where the picture begins from a source, the last of `num_inference_steps`."""
        return int(self.num_inference_steps * self.source.strength) if self.source else self.num_inference_steps


@dataclass(frozen=True)
class Origin:
    """What is known of an adapter that no card of avignon's comes with: its file, and what its header says."""

    file: str
    sha256: str
    format: str
    author: str = ""
    license: str = ""
    training: str = ""
    """Of its images, steps and base."""
    rights: str = "unknown"
    """Of the images that it was trained on."""


@dataclass(frozen=True)
class Series:
    """An ordered grid: scenes down, stops across. Frame files are relative to the series folder."""

    name: str
    scenes: tuple[str, ...]
    stops: tuple[str, ...]
    frames: tuple[tuple[str, Frame], ...]
    """Pairs of a file name and the frame it shows."""
    base_stop: str = "base"
    """The stop at which every adapter is off."""
    placing: Mapping[str, Any] = field(default_factory=dict)
    """How the stops came to their weights: `gains` by adapter, `places` of the stops, and what was measured."""
    extras: tuple[tuple[str, Frame], ...] = ()
    """The frames with further seeds, which have no place in the grid."""
    base_parts: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of every part of the base; empty in a series by avignon 0.1.0."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Of the adapters that have no card, by their names in the recipe."""

    @property
    def pictures(self) -> tuple[tuple[str, Frame], ...]:
        """Everything that is painted: the grid, then the extras."""
        return self.frames + self.extras

    def of_scene(self, scene: str) -> list[tuple[str, Frame]]:
        """Files and frames of a scene's stops in their order, without the base's."""
        frames = {frame.stop: (file, frame) for file, frame in self.frames if frame.scene == scene}
        return [frames[stop] for stop in self.stops]


def plain(record: Any) -> dict[str, Any]:
    """A record as JSON-ready dictionaries and lists."""
    return dataclasses.asdict(record)


def work_from(fields: Mapping[str, Any]) -> Work:
    """The inverse of `plain` for a work."""
    stated = fields["rights"]
    rights = Rights(Access(stated["access"]), stated["evidence"], stated.get("condition", ""))
    return Work(**{**fields, "rights": rights, "terms": tuple(fields["terms"])})


def found_from(fields: Mapping[str, Any]) -> Found:
    """The inverse of `plain` for a found work."""
    decision, original = fields["decision"], fields["original"]
    return Found(
        work=work_from(fields["work"]),
        decision=decision and Decision(Verdict(decision["verdict"]), decision["reason"]),
        original=original and Original(**original),
    )


SCHEMA = 2
"""Of frames and series in files: raise it where a field gets another name or another meaning."""

FORMER_NAMES = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "weight_schedule": "schedule",
    "block_weights": "blocks",
}
"""Names of a frame's fields in schema 1, whose files state no number. Hashes keep them, so that identities stay."""

LATER_FIELDS = frozenset({"denoiser_only"})
"""Fields of a frame that schema 1 had not."""


def frame_record(frame: Frame) -> dict[str, Any]:
    """A frame as files hold it, with its schema number; fields that schema 1 had not, where they say something."""
    return {"schema": SCHEMA, **_said(frame)}


def series_record(series: Series) -> dict[str, Any]:
    """A series as its file holds it, with its schema number; `origins`, which is newer, where there are any."""
    return {"schema": SCHEMA, **{name: value for name, value in plain(series).items() if value or name != "origins"}}


def frame_identity(frame: Frame) -> dict[str, Any]:
    """A frame as hashes cover it: its fields under the names of schema 1, and new ones where they say something."""
    return {FORMER_NAMES.get(name, name): value for name, value in _said(frame).items()}


def _said(frame: Frame) -> dict[str, Any]:
    return {name: value for name, value in plain(frame).items() if value or name not in LATER_FIELDS}


def frame_from(fields: Mapping[str, Any], schema: int = 1) -> Frame:
    """The inverse of `frame_record`; `schema` is for fields that state none. A `WorkspaceError` at an unknown one."""
    given = dict(fields)
    if _known(given.pop("schema", schema), "frame") == 1:
        given = {name: given.pop(old) for name, old in FORMER_NAMES.items() if old in given} | given
    rows = {name: tuple(row) for name, row in given.pop("weight_schedule", {}).items()}
    source = given.pop("source", None)
    only = tuple(given.pop("denoiser_only", ()))
    return Frame(**given, weight_schedule=rows, source=source and Source(**source), denoiser_only=only)


def _known(schema: Any, what: str) -> int:
    """A schema number, if this version reads it."""
    if schema not in (1, SCHEMA):
        raise WorkspaceError(
            f"this {what} has schema {schema!r}, but this version of avignon reads 1 to {SCHEMA}; use the version that "
            "wrote it, or another --workspace"
        )
    return int(schema)


def series_from(fields: Mapping[str, Any]) -> Series:
    """The inverse of `series_record`; a `WorkspaceError` at an unknown schema."""
    given = dict(fields)
    schema = _known(given.pop("schema", 1), "series")
    for key in ("frames", "extras"):
        given[key] = tuple((file, frame_from(frame, schema)) for file, frame in given[key])
    given["origins"] = {name: Origin(**each) for name, each in given.get("origins", {}).items()}
    return Series(**given | {key: tuple(given[key]) for key in ("scenes", "stops")})
