"""The two gates between a museum and a training set: the rights of a work, then the measures of its picture.

`collect` applies the first, `curate` the second. A curator's decisions stand above measures, but not above rights.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from avignon.core import imaging, pages
from avignon.core.buckets import MOST_CUT, Place, best
from avignon.core.errors import ImageError, InputError, RightsError
from avignon.core.records import Access, Decision, Found, Original, Verdict, Work
from avignon.curation.duplicates import Look, likeness, look_at
from avignon.curation.quality import Measures, measure
from avignon.recipe.schema import Artist, Curate

THUMBNAIL = 220
"""Longest side of a thumbnail, in pixels."""

_CAPPED = "the museum sends no larger image of this work"


def rejected(found: Found, reason: str) -> Found:
    """The work, rejected before its picture is measured."""
    return replace(found, decision=Decision(Verdict.REJECTED, reason))


def apply_rights(artist: Artist, found: list[Found]) -> list[Found]:
    """An artist's works; those that the recipe's `rights` do not admit are rejected.

    Raises:
        RightsError: too few are left, though there are enough works.
    """
    candidates = [f.work for f in found if f.decision is None]
    barred = [work for work in candidates if _bar(artist, work)]
    is_open = len(candidates) - len(barred)
    if barred and is_open < artist.works:
        raise RightsError(
            f"{artist.name}: {artist.works} works are wanted, but only {is_open} of {len(candidates)} images are open; "
            f"the others are not known to be free to use (first: {barred[0].title!r}, {barred[0].rights.evidence}). "
            "Choose an artist whose works are open, or, if you may use these images, state so in the recipe with "
            'rights = "acknowledge-restricted" under this artist; the ledger, the adapter and the page will then say so'
        )
    return [rejected(f, bar) if not f.decision and (bar := _bar(artist, f.work)) else f for f in found]


def _bar(artist: Artist, work: Work) -> str:
    """Why rights keep a work out; empty where it is open, or the recipe acknowledges for this artist that it is not."""
    is_admitted = work.rights.access is Access.OPEN or artist.rights == "acknowledge-restricted"
    return "" if is_admitted else f"rights are {work.rights.access}: {work.rights.evidence}"


def choose_candidates(
    artist: Artist,
    found: list[Found],
    decisions: Mapping[str, Decision],
    reserve: int,
    is_at_hand: Callable[[Work], bool],
) -> list[Found]:
    """The works whose images are wanted, then the others, rejected.

    Decided works come first, then those whose image is at hand, then open ones. `reserve` images are fetched beyond
    the number wanted.
    """

    def rank(each: Found) -> tuple[bool, bool, bool]:
        is_open = each.work.rights.access is Access.OPEN
        return each.work.object_id not in decisions, not is_at_hand(each.work), not is_open

    judged = [_overruled(artist, f, decisions.get(f.work.object_id)) for f in sorted(found, key=rank)]
    candidates, limit = [f for f in judged if f.decision is None], artist.works + reserve
    beyond = [rejected(f, f"not needed: {artist.works} wanted, {reserve} in reserve") for f in candidates[limit:]]
    return [*candidates[:limit], *beyond, *(f for f in judged if f.decision)]


def _overruled(artist: Artist, found: Found, decision: Decision | None) -> Found:
    """A drop always holds. A keep overrules a doubt of the record, but neither rights nor a missing image."""
    if decision is None:
        return found
    if decision.verdict is Verdict.REJECTED:
        return rejected(found, f"dropped by the curator: {decision.reason or 'no reason given'}")
    if bar := _bar(artist, found.work):
        reasons = dict.fromkeys([*([found.decision.reason] if found.decision else []), bar])
        return rejected(found, f"{'; '.join(reasons)}; the curator's keep does not stand above rights")
    return replace(found, decision=None) if found.work.image_url else found


def claim(artist: str, folder: str, found: list[Found], owners: dict[tuple[str, str], str]) -> None:
    """Note in `owners`, by folder and file, the artist of pictures of which nothing in the folder says whose they are.

    Raises:
        InputError: another artist has one of the pictures already.
    """
    for work in (f.work for f in found if f.decision is None and not f.work.attributed):
        other = owners.setdefault((folder, work.image_url), artist)
        if other != artist:
            raise InputError(
                f"{folder}: nothing says whether {work.image_url!r} is by {other} or {artist}; "
                "name the artists in a column artist of index.csv, or give each a subfolder of that name"
            )


@dataclass(frozen=True)
class Decided:
    """A work with its decision, and what was measured of its picture, if there is one."""

    found: Found
    decision: Decision
    measures: Measures | None = None
    thumbnail: bytes = b""
    """A small WebP, for the contact sheet."""
    place: Place | None = None
    """How it would be learned from; None where images are square."""

    @property
    def is_kept(self) -> bool:
        """Whether it goes into the training set."""
        return self.decision.verdict is Verdict.KEPT


@dataclass
class MeasuringGate:
    """Measures pictures, and remembers those that were kept, so that none is kept twice."""

    root: Path
    """The run's folder, which the files of originals are relative to."""
    limits: Curate
    min_edge: int
    buckets: Sequence[tuple[int, int]] = ()
    """The shapes of training images; none where they are square."""
    by_bytes: dict[str, Work] = field(default_factory=dict)
    by_look: list[tuple[Look, Work]] = field(default_factory=list)

    def decide(self, found: list[Found], decisions: Mapping[str, Decision], wanted: int) -> Iterator[Decided]:
        """A decision on each of an artist's works, in order, until the number wanted is kept."""
        for each in found:
            if each.decision:
                yield Decided(each, each.decision)
                continue
            decided = self._measured(each, decisions.get(each.work.object_id), wanted)
            wanted -= decided.is_kept
            yield decided

    def _measured(self, found: Found, word: Decision | None, wanted: int) -> Decided:
        """What the picture shows, and whether it is still wanted. `word` is a curator's `keep`, above all measures."""
        original = found.original
        assert original is not None, "collect decides on every work that it has no image of"
        path = self.root / original.file
        try:
            scan = imaging.scan(path)
        except ImageError as unusable:
            return Decided(found, Decision(Verdict.REJECTED, str(unusable).removeprefix(f"{path}: ")))
        measures, look = measure(scan.image, scan.middle), look_at(scan.image)
        reason = "" if word else self._fault(found.work, scan.size, original, measures, look)
        if not reason and wanted <= 0:
            reason = "passed, but enough others did before it"
        decision = Decision(Verdict.REJECTED, reason)
        if not reason:
            self.by_bytes[original.sha256] = found.work
            self.by_look.append((look, found.work))
            by_curator = f"kept by the curator: {word.reason or 'no reason given'}" if word else ""
            decision = Decision(Verdict.KEPT, by_curator)
        return Decided(found, decision, measures, pages.webp_bytes(scan.image, THUMBNAIL), self._place(scan.size))

    def _place(self, size: tuple[int, int]) -> Place | None:
        return best(size, self.buckets) if self.buckets else None

    def _fault(self, work: Work, size: tuple[int, int], original: Original, measures: Measures, look: Look) -> str:
        """The first fault of a picture; empty if it has none."""
        place = self._place(size)
        if place and place.cut > MOST_CUT:
            nearest = "{}×{}".format(*place.bucket)
            return (
                f"shape: {size[0]}×{size[1]} pixels, of which the nearest bucket, {nearest}, would cut off "
                f"{place.cut:.0%}; at most {MOST_CUT:.0%} is accepted"
            )
        if small := self._small(size, place):
            return small + (f"; {_CAPPED}: lower curate.min_edge" if original.capped else "")
        if original.sha256 in self.by_bytes:
            return f"exact duplicate of {_named(self.by_bytes[original.sha256], work)}"
        for other, kept in self.by_look:
            if (alike := likeness(look, other)) >= self.limits.duplicate_likeness:
                return f"near duplicate of {_named(kept, work)}: likeness {alike:.2f}"
        words = f"{work.classification} {work.medium}".lower()  # A painting without colours is an old photograph.
        fault = next(faults(measures, self.limits, in_colour="paint" in words or "oil on" in words), "")
        is_soft = measures.sharpness < self.limits.min_sharpness or measures.detail < self.limits.min_detail
        return f"{fault}; {_CAPPED}" if is_soft and original.capped else fault

    def _small(self, size: tuple[int, int], place: Place | None) -> str:
        """That a picture has too few pixels: for its bucket, or for what the recipe asks; empty where it has enough."""
        pixels = f"too small: {size[0]}×{size[1]} pixels, at least"
        if place and not self.limits.min_edge:
            width, height = (math.ceil(side * place.scale) for side in size)
            return f"{pixels} {width}×{height} are needed of this shape" if place.scale > 1 else ""
        return f"{pixels} {self.min_edge} on the short side are needed" if min(size) < self.min_edge else ""


def _named(kept: Work, work: Work) -> str:
    """A picture that was kept, with its artist where that is another than the work's: one of them is wrong."""
    return kept.object_id if kept.artist == work.artist else f"{kept.object_id} by {kept.artist}"


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
