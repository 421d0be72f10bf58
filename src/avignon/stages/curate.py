"""curate: originals → the works to train on, and a ledger in which no considered work is missing.

Reads `works/found.jsonl` and the originals; writes `works/ledger.csv`, and a contact sheet for human eyes.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields

from avignon.core import imaging, pages
from avignon.core.errors import ImageError, InputError
from avignon.core.events import Reporter
from avignon.core.files import write_bytes, write_text
from avignon.core.records import Access, Decision, Found, Original, Verdict, Work
from avignon.core.text import strip_markup
from avignon.core.workspace import Workspace
from avignon.curation import contact_sheet as contact
from avignon.curation.decisions import load_decisions
from avignon.curation.quality import Look, Measures, likeness, look_at, measure
from avignon.recipe.schema import Artist, Curate, Recipe

LEDGER = (
    *("museum", "object_id", "accession", "title", "artist", "year", "image_url", "width", "height", "sha256"),
    *("rights", "evidence", "decision", "reason"),
    *("file", "medium", "classification", "credit", "page", "capped", "by_hand", "terms", "acknowledged", "condition"),
    *(each.name for each in fields(Measures)),
)


@dataclass(frozen=True)
class Decided:
    """A work with its decision, and what was measured of its picture, if there is one."""

    found: Found
    decision: Decision
    measures: Measures | None = None
    thumbnail: bytes = b""
    """A small WebP, for the contact sheet."""

    @property
    def is_kept(self) -> bool:
        """Whether it goes into the training set."""
        return self.decision.verdict is Verdict.KEPT


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Decide on every work that was found, and write the ledger.

    Raises:
        InputError: fewer works pass than the recipe wants; the line counts the reasons.
    """
    found = space.read_found()
    gate = _Gate(recipe, space)
    decided: list[Decided] = []
    for artist in recipe.artists:
        for each in gate.decide(artist, [f for f in found if f.work.artist == artist.name]):
            decided.append(each)
            reporter.progress(len(decided), len(found), each.found.work.title)
    write_text(space.ledger, _ledger(recipe, decided))
    _write_contact(recipe, decided, space)
    reporter.note(f"look them over before training: {space.contact_page}")
    for artist in recipe.artists:
        _check_number(artist, [each for each in decided if each.found.work.artist == artist.name], space)


@dataclass
class _Gate:
    """Measures pictures, and remembers those that were hung, so that no picture hangs twice."""

    recipe: Recipe
    space: Workspace
    by_bytes: dict[str, Work] = field(default_factory=dict)
    by_look: list[tuple[Look, Work]] = field(default_factory=list)

    def decide(self, artist: Artist, found: list[Found]) -> Iterator[Decided]:
        """A decision for each of an artist's works, until the number wanted is kept."""
        words = load_decisions(artist)
        kept = 0
        for each in found:
            word = words.get(each.work.object_id)
            decided = self._measured(each, word, artist.works - kept) if each.decision is None else None
            yield decided or Decided(each, each.decision or Decision(Verdict.REJECTED))
            kept += bool(decided and decided.is_kept)

    def _measured(self, found: Found, word: Decision | None, wanted: int) -> Decided:
        """What the picture itself says, and whether it is still wanted.

        A curator's `keep` stands above every measure, but not above a broken file.
        """
        original = found.original
        assert original is not None, "collect decides on every work that it has no image of"
        try:
            scan = imaging.scan(self.space.root / original.file)
        except ImageError as unusable:
            reason = str(unusable).removeprefix(f"{self.space.root / original.file}: ")
            return Decided(found, Decision(Verdict.REJECTED, reason))
        measures, look = measure(scan.image, scan.middle), look_at(scan.image)
        reason = "" if word else self._fault(found.work, scan.size, original, measures, look)
        if reason:
            decision = Decision(Verdict.REJECTED, reason)
        elif wanted <= 0:
            decision = Decision(Verdict.REJECTED, "passed, but enough others did before it")
        else:
            self.by_bytes[original.sha256] = found.work
            self.by_look.append((look, found.work))
            decision = Decision(Verdict.KEPT, _by_curator(word) if word else "")
        return Decided(found, decision, measures, pages.webp_bytes(scan.image, contact.EDGE))

    def _fault(self, work: Work, size: tuple[int, int], original: Original, measures: Measures, look: Look) -> str:
        """The first fault of a picture; empty if it has none."""
        least = self.recipe.least_edge
        if min(size) < least:
            told = f"too small: {size[0]}×{size[1]} pixels, at least {least} on the short side are needed"
            return told + (f"; {_CAPPED}: lower curate.min_edge" if original.capped else "")
        if original.sha256 in self.by_bytes:
            return f"exact duplicate of {_named(self.by_bytes[original.sha256], work)}"
        for other, hung in self.by_look:
            if (alike := likeness(look, other)) >= self.recipe.curate.duplicate_likeness:
                return f"near duplicate of {_named(hung, work)}: likeness {alike:.2f}"
        limits = self.recipe.curate
        fault = next(iter(faults(measures, limits, in_colour=_is_in_colour(work))), "")
        is_soft = measures.sharpness < limits.min_sharpness or measures.detail < limits.min_detail
        return f"{fault}; {_CAPPED}" if is_soft and original.capped else fault


_CAPPED = "the museum sends no larger image of this work"


def _named(hung: Work, work: Work) -> str:
    """A picture that hangs already, with its artist where that is another than the work's: one of them is wrong."""
    return hung.object_id if hung.artist == work.artist else f"{hung.object_id} by {hung.artist}"


def _by_curator(word: Decision) -> str:
    return f"kept by the curator: {word.reason or 'no reason given'}"


def _is_in_colour(work: Work) -> bool:
    """Whether the work itself has colours, so that a picture without any is a photograph of old."""
    words = f"{work.classification} {work.medium}".lower()
    return "paint" in words or "oil on" in words


def faults(measures: Measures, curate: Curate, *, in_colour: bool) -> Iterator[str]:
    """What a picture's measures say against it, each with the measure and what is asked."""
    if measures.sharpness < curate.min_sharpness:
        yield f"blurred: sharpness {measures.sharpness:.1f}, at least {curate.min_sharpness:g} is needed"
    if measures.detail < curate.min_detail:
        yield f"scaled up: detail {measures.detail:.2f}, at least {curate.min_detail:g} is needed"
    if measures.noise > curate.max_noise:
        yield f"noisy: noise {measures.noise:.1f}, at most {curate.max_noise:g} is accepted"
    if measures.blocking > curate.max_blocking:
        yield f"JPEG blocks: blocking {measures.blocking:.2f}, at most {curate.max_blocking:g} is accepted"
    if in_colour and measures.colour < curate.min_colour:
        yield f"without colour: colour {measures.colour:.1f}, at least {curate.min_colour:g} is needed of a painting"
    if measures.margin > curate.max_margin:
        yield f"margin: {measures.margin:.1%} of a side is flat, at most {curate.max_margin:.1%} is accepted"
    if measures.frame > curate.max_frame:
        yield f"frame: {measures.frame:.2f}, at most {curate.max_frame:g} is accepted"
    if measures.target > curate.max_target:
        yield f"colour target: {measures.target:.2f}, at most {curate.max_target:g} is accepted"
    if measures.ruler > curate.max_ruler:
        yield f"ruler: {measures.ruler:.2f}, at most {curate.max_ruler:g} is accepted"


def _ledger(recipe: Recipe, decided: list[Decided]) -> str:
    acknowledged = {artist.name for artist in recipe.artists if artist.rights == "acknowledge-restricted"}
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, LEDGER, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(_row(each, acknowledged) for each in decided)
    return buffer.getvalue()


def _write_contact(recipe: Recipe, decided: list[Decided], space: Workspace) -> None:
    prints = [
        contact.Print(
            artist=each.found.work.artist,
            object_id=each.found.work.object_id,
            title=strip_markup(each.found.work.title),
            about=_about(each),
            kept=each.is_kept,
            reason=each.decision.reason,
            rights=each.found.work.rights.label,
            picture=each.thumbnail,
        )
        for each in decided
    ]
    decisions = {artist.name: artist.decisions for artist in recipe.artists}
    write_bytes(space.contact_sheet, contact.sheet(prints))
    write_text(space.contact_page, contact.page(recipe.name, prints, decisions))


def _about(decided: Decided) -> str:
    original = decided.found.original
    pixels = f"{original.width}×{original.height} pixels" if original else ""
    return ", ".join(filter(None, (decided.found.work.date, pixels)))


def _row(decided: Decided, acknowledged: set[str]) -> dict[str, object]:
    work, original, decision = decided.found.work, decided.found.original, decided.decision
    closed = work.rights.access is not Access.OPEN
    return {
        "museum": work.museum,
        "object_id": work.object_id,
        "accession": work.accession,
        "title": work.title,
        "artist": work.artist,
        "year": work.date,
        "image_url": work.image_url,
        "width": original.width if original else work.width,
        "height": original.height if original else work.height,
        "sha256": original.sha256 if original else "",
        "rights": work.rights.access,
        "evidence": work.rights.evidence,
        "decision": decision.verdict,
        "reason": decision.reason,
        "file": original.file if original else "",
        "medium": work.medium,
        "classification": work.classification,
        "credit": work.credit,
        "page": work.page,
        "capped": str(bool(original and original.capped)).lower(),
        "by_hand": str(bool(original and original.by_hand)).lower(),
        "terms": "; ".join(work.terms),
        # The user stated that they may use this artist's images though this one is not open.
        "acknowledged": str(closed and work.artist in acknowledged).lower(),
        "condition": work.rights.condition,
        **(asdict(decided.measures) if decided.measures else {}),
    }


def _check_number(artist: Artist, decided: list[Decided], space: Workspace) -> None:
    kept = sum(each.is_kept for each in decided)
    if kept >= artist.works:
        return
    rejected = [each for each in decided if not each.is_kept]
    reasons = Counter(each.decision.reason.partition(":")[0] for each in rejected)
    counted = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common(4))
    first = next((f"; first: {each.found.work.title!r}: {each.decision.reason}" for each in rejected), "")
    raise InputError(
        f"{artist.name}: {artist.works} works are wanted, {kept} of {len(decided)} can be used"
        f"{f' ({counted}{first})' if counted else ''}; lower works in the recipe, or see {space.ledger}"
    )
