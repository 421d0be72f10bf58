"""curate: originals → the works to train on, and a ledger in which no considered work is missing.

Reads `works/found.jsonl` and the originals; writes `works/ledger.csv`.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import Image

from avignon import imaging
from avignon.errors import ImageError, InputError
from avignon.recipe import Artist, Recipe, load_decisions
from avignon.records import Decision, Found, Original, Verdict, Voice
from avignon.workspace import Workspace, write_text

LEDGER = (
    *("museum", "object_id", "accession", "title", "artist", "year", "image_url", "width", "height", "sha256"),
    *("rights", "evidence", "decision", "reason"),
    *("file", "medium", "classification", "credit", "page", "capped", "terms"),
)

Decided = tuple[Found, Decision]


def run(recipe: Recipe, space: Workspace, voice: Voice) -> None:
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
            voice.progress(len(decided), len(found), each[0].work.title)
    write_text(space.ledger, _ledger(decided))
    for artist in recipe.artists:
        _check_number(artist, [each for each in decided if each[0].work.artist == artist.name], space)


@dataclass
class _Gate:
    """Measures pictures, and remembers those that were hung, so that no picture hangs twice."""

    recipe: Recipe
    space: Workspace
    by_bytes: dict[str, str] = field(default_factory=dict)
    by_look: dict[int, str] = field(default_factory=dict)

    def decide(self, artist: Artist, found: list[Found]) -> Iterator[Decided]:
        """A decision for each of an artist's works, until the number wanted is kept."""
        words = load_decisions(artist)
        kept = 0
        for each in found:
            decision = each.decision or self._measured(each, words.get(each.work.object_id), artist.works - kept)
            kept += decision.verdict is Verdict.KEPT
            yield each, decision

    def _measured(self, found: Found, word: Decision | None, wanted: int) -> Decision:
        """What the picture itself says, and whether it is still wanted.

        A curator's `keep` stands above every measure, but not above a broken file.
        """
        original = found.original
        assert original is not None, "collect decides on every work that it has no image of"
        try:
            image = imaging.load(self.space.root / original.file)
        except ImageError as unusable:
            return Decision(Verdict.REJECTED, str(unusable).removeprefix(f"{self.space.root / original.file}: "))
        look = imaging.difference_hash(image)
        reason = "" if word else self._fault(image, original, look)
        if reason:
            return Decision(Verdict.REJECTED, reason)
        if wanted <= 0:
            return Decision(Verdict.REJECTED, "passed, but enough others did before it")
        self.by_bytes[original.sha256] = self.by_look[look] = found.work.object_id
        return Decision(Verdict.KEPT, f"kept by the curator: {word.reason}" if word else "")

    def _fault(self, image: Image.Image, original: Original, look: int) -> str:
        curate = self.recipe.curate
        edge, least = min(image.size), least_edge(self.recipe)
        if edge < least:
            return f"too small: {image.width}×{image.height} pixels, at least {least} on the short side are needed"
        if original.sha256 in self.by_bytes:
            return f"exact duplicate of {self.by_bytes[original.sha256]}"
        for other, number in self.by_look.items():
            if (differing := (look ^ other).bit_count()) <= curate.duplicate_bits:
                return f"near duplicate of {number}: {differing} of 64 bits differ"
        sharp = imaging.sharpness(image)
        if sharp < curate.min_sharpness:
            return f"blurred: sharpness {sharp:.1f}, at least {curate.min_sharpness:g} is needed"
        return ""


def least_edge(recipe: Recipe) -> int:
    """Least pixels that a work needs on its short side."""
    return recipe.curate.min_edge or recipe.base.resolution


def _ledger(decided: list[Decided]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, LEDGER, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(found, decision) for found, decision in decided)
    return buffer.getvalue()


def _row(found: Found, decision: Decision) -> dict[str, object]:
    work, original = found.work, found.original
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
        "terms": "; ".join(work.terms),
    }


def _check_number(artist: Artist, decided: list[Decided], space: Workspace) -> None:
    kept = sum(decision.verdict is Verdict.KEPT for _, decision in decided)
    if kept >= artist.works:
        return
    reasons = Counter(
        decision.reason.partition(":")[0] for _, decision in decided if decision.verdict is Verdict.REJECTED
    )
    counted = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common(4))
    first = next((f"; first: {f.work.title!r}: {d.reason}" for f, d in decided if d.verdict is Verdict.REJECTED), "")
    raise InputError(
        f"{artist.name}: {artist.works} works are wanted, {kept} of {len(decided)} can be used"
        f"{f' ({counted}{first})' if counted else ''}; lower works in the recipe, or see {space.ledger}"
    )
