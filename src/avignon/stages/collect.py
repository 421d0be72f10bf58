"""collect: a museum's records → works, and the originals of those that may be trained on.

Reads the museum; writes `works/found.jsonl` (every work that was considered) and `works/<artist>/<object_id>.<ext>`.
"""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from avignon.core.errors import FetchError, ImageError, InputError, RightsError, TurnedAway
from avignon.core.events import Reporter
from avignon.core.files import json_text, sha256_of, write_bytes, write_text
from avignon.core.formats import SUFFIXES
from avignon.core.imaging import size_of
from avignon.core.naming import stem
from avignon.core.records import Access, Decision, Found, Original, Verdict, Work, plain
from avignon.core.text import strip_markup
from avignon.core.wording import museum_name
from avignon.core.workspace import Workspace
from avignon.curation.decisions import load_decisions
from avignon.museums import opened
from avignon.museums.by_hand import ByHand, in_folder
from avignon.museums.protocol import Museum, Received
from avignon.recipe.schema import AnyMuseum, Artist, FolderMuseum, Recipe

INSISTENT = 3
"""Images in a row from which a server turned the program away, before it is left alone for this run."""


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Find every work of every artist, and fetch the images of the best candidates.

    Raises:
        RightsError: the recipe's `rights` leave an artist with too few works.
        TurnedAway: a museum's server shows pages for people where images should be, and too few are there without it;
            by then all artists' works are listed.
        InputError: a museum or folder that cannot be read, an artist nobody knows.
    """
    earlier = [f for f in space.read_found() if f.original]
    found: list[Found] = []
    whose: dict[tuple[str, str], str] = {}
    warn = functools.cache(reporter.warn)  # Artists of one folder share its index, and what is said of it.
    turned_away: list[str] = []
    for artist in recipe.artists:
        with opened(recipe.museum_of(artist), recipe.collect, warn) as museum:
            reporter.note(f"looking for {artist.name}")
            words = load_decisions(artist)
            of_artist = museum.find(artist)
            _check_whose(artist, recipe.museum_of(artist), of_artist, whose)
            considered = _gated(artist, of_artist)
            _tell_strangers(artist, words, considered, reporter)
            hand = in_folder(artist.originals)
            ranked = _ranked(artist, considered, words, recipe.collect.reserve, hand)
            _tell_unused(artist, hand, ranked, reporter)
            try:
                found.extend(_fetched(artist, ranked, _Source(museum, hand), earlier, space, reporter))
            except TurnedAway as refused:
                turned_away.append(str(refused))
            finally:  # What came before an interruption is known to the next run.
                write_text(space.found, _lines([*found, *_not_in(found, earlier)]))
    if turned_away:
        raise TurnedAway(f"{'; '.join(turned_away)}. {_HOW_BY_HAND.format(list=space.found)}")
    write_text(space.found, _lines(found))
    space.sweep(space.works, {space.found, space.ledger, *(space.root / f.original.file for f in found if f.original)})


def _check_whose(artist: Artist, museum: AnyMuseum, found: list[Found], whose: dict[tuple[str, str], str]) -> None:
    """Raise where two artists would have one picture because nothing says whose it is; `whose` grows by what is found.

    Raises:
        InputError: naming the folder, the picture and both artists.
    """
    if not isinstance(museum, FolderMuseum):
        return
    for work in (f.work for f in found if f.decision is None and not f.work.attributed):
        other = whose.setdefault((museum.path, work.image_url), artist.name)
        if other != artist.name:
            raise InputError(
                f"{museum.path}: nothing says whether {work.image_url!r} is by {other} or {artist.name}; "
                "name the artists in a column artist of index.csv, or give each a subfolder of that name"
            )


_HOW_BY_HAND = (
    "All works are listed in {list}. Run again later; or save the images in a browser into one folder for each artist, "
    'each named by its object id, and name that folder in the recipe under the artist, as originals = "by-hand"'
)


@dataclass
class _Source:
    """Where an artist's images come from: added by hand, else from the museum, as long as it answers programs."""

    museum: Museum
    hand: ByHand
    refused: int = 0
    """Images that the museum's server turned the program away from, and how many of them in a row up to now."""
    in_a_row: int = 0

    def name(self, work: Work) -> str:
        """What would be read, as `protocol.Museum.source`."""
        return self.hand.source(work) or self.museum.source(work)

    def receive(self, work: Work) -> tuple[Received, bool]:
        """The image of a work, and whether it was added by hand.

        Raises:
            FetchError, ImageError: with the reason.
        """
        added = self.hand.receive(work)
        if added is not None:
            return added, True
        if self.in_a_row >= INSISTENT:
            raise TurnedAway(f"{museum_name(work.museum)} turns programs away at the moment; not asked for")
        try:
            received = self.museum.receive(work)
        except TurnedAway:
            self.refused, self.in_a_row = self.refused + 1, self.in_a_row + 1
            raise
        self.in_a_row = 0
        return received, False


def _not_in(found: list[Found], earlier: list[Found]) -> list[Found]:
    known = {_key(f.work) for f in found}
    return [f for f in earlier if _key(f.work) not in known]


def _tell_strangers(artist: Artist, words: Mapping[str, Decision], found: list[Found], reporter: Reporter) -> None:
    strangers = sorted(words.keys() - {f.work.object_id for f in found})
    if strangers:
        reporter.warn(f"{artist.decisions}: no work of {artist.name} has object_id {', '.join(strangers)}")


def _tell_unused(artist: Artist, hand: ByHand, ranked: list[Found], reporter: Reporter) -> None:
    """Say of every file added by hand that is not used why it is not."""
    reasons = {path.name: each.decision.reason for each in ranked if each.decision and (path := hand.of(each.work))}
    strangers = hand.unused([each.work for each in ranked])
    for name, reason in (
        *reasons.items(),
        *((name, f"no work of {artist.name} has this object id") for name in strangers),
    ):
        reporter.warn(f"{hand.folder}: {name} is not used: {reason}")


def _lines(found: list[Found]) -> str:
    return "".join(json_text(plain(each)) + "\n" for each in found)


def _is_barred(artist: Artist, work: Work) -> bool:
    """The rights gate: works that are not open pass only where the recipe acknowledges it for this artist."""
    return work.rights.access is not Access.OPEN and artist.rights != "acknowledge-restricted"


def _gated(artist: Artist, found: list[Found]) -> list[Found]:
    """The rights gate over all of an artist's works.

    Raises:
        RightsError: it leaves too few, where the works themselves would have been enough.
    """
    candidates = [f.work for f in found if f.decision is None]
    barred = [work for work in candidates if _is_barred(artist, work)]
    is_open = len(candidates) - len(barred)
    if barred and is_open < artist.works:
        raise RightsError(
            f"{artist.name}: {artist.works} works are wanted, but only {is_open} of {len(candidates)} images are open; "
            f"the others are not known to be free to use (first: {barred[0].title!r}, {barred[0].rights.evidence}). "
            "Choose an artist whose works are open, or, if you may use these images, state so in the recipe with "
            'rights = "acknowledge-restricted" under this artist; the ledger, the adapter and the page will then say so'
        )
    return [_rejected(f, _rights_reason(f.work)) if not f.decision and _is_barred(artist, f.work) else f for f in found]


def _rights_reason(work: Work) -> str:
    return f"rights are {work.rights.access}: {work.rights.evidence}"


def _rejected(found: Found, reason: str) -> Found:
    return replace(found, decision=Decision(Verdict.REJECTED, reason))


def _ranked(
    artist: Artist, found: list[Found], words: Mapping[str, Decision], reserve: int, hand: ByHand
) -> list[Found]:
    """A curator's keeps first, then images added by hand, then open works; last what is dropped, or beyond need."""
    judged = [_with_word(artist, each, words.get(each.work.object_id)) for each in found]

    def rank(each: Found) -> tuple[bool, bool, bool]:
        is_open = each.work.rights.access is Access.OPEN
        return each.work.object_id not in words, hand.of(each.work) is None, not is_open

    judged.sort(key=rank)
    candidates = [f for f in judged if f.decision is None]
    limit = artist.works + reserve
    beyond = [_rejected(f, f"not needed: {artist.works} wanted, {reserve} in reserve") for f in candidates[limit:]]
    return [*candidates[:limit], *beyond, *(f for f in judged if f.decision)]


def _with_word(artist: Artist, found: Found, word: Decision | None) -> Found:
    """A drop always holds. A keep overrides a doubt of the record's, never the rights and never a missing image."""
    if word is None:
        return found
    if word.verdict is Verdict.REJECTED:
        return _rejected(found, f"dropped by the curator: {word.reason or 'no reason given'}")
    if _is_barred(artist, found.work):
        said = dict.fromkeys([*([found.decision.reason] if found.decision else []), _rights_reason(found.work)])
        return _rejected(found, f"{'; '.join(said)}; the curator's keep does not stand above rights")
    return replace(found, decision=None) if found.work.image_url else found


def _fetched(
    artist: Artist, considered: list[Found], source: _Source, earlier: list[Found], space: Workspace, reporter: Reporter
) -> Iterator[Found]:
    """Every considered work, the candidates with their originals; what an earlier run has is not received again.

    Raises:
        FetchError: so many images cannot be had that too few are left; the next run tries them again.
    """
    had = {_key(f.work): f.original for f in earlier}
    candidates = [f for f in considered if f.decision is None]
    lost: list[Found] = []
    for done, found in enumerate(candidates, start=1):
        each = _kept(found, source, had.get(_key(found.work)), space) or _received(artist, found, source, space)
        yield each
        reporter.progress(done, len(candidates), f"{artist.name}: {found.work.title}")
        if each.decision:
            lost.append(each)
            if not source.refused:
                _check_losses(artist, lost, len(candidates))
    yield from (f for f in considered if f.decision is not None)
    if source.refused:
        _check_refusals(artist, lost, len(candidates), reporter)
    _check_losses(artist, lost, len(candidates))


def _check_losses(artist: Artist, lost: list[Found], candidates: int) -> None:
    if candidates - len(lost) < artist.works <= candidates:
        raise FetchError(
            f"{artist.name}: {artist.works} works are wanted, but of {candidates} images {len(lost)} could not be had "
            f"(first: {_said(lost[0])}); what came is kept: run again, raise collect.reserve, or lower works"
        )


def _check_refusals(artist: Artist, lost: list[Found], candidates: int, reporter: Reporter) -> None:
    """What a server that turns programs away leaves: a warning where enough came, else what to save by hand."""
    museum = museum_name(lost[0].work.museum)
    if candidates - len(lost) >= artist.works:
        reporter.warn(f"{artist.name}: {museum} turns programs away at the moment; {len(lost)} of {candidates} images "
                   f"were not fetched (first: {_said(lost[0])})")  # fmt: skip
        return
    wanted = [f"{stem(f.work.object_id)}.jpg from {f.work.page or f.work.image_url}" for f in lost]
    more = f", and {len(wanted) - 3} more" if len(wanted) > 3 else ""
    raise TurnedAway(
        f"{artist.name}: {museum} turns programs away at the moment: {artist.works} works are wanted, but of "
        f"{candidates} images {len(lost)} could not be had (first: {_said(lost[0])}); to be saved: "
        f"{', '.join(wanted[:3])}{more}"
    )


def _said(lost: Found) -> str:
    """A work and why its image is not there."""
    return f"{strip_markup(lost.work.title)!r}: {lost.decision.reason if lost.decision else ''}"


def _kept(found: Found, source: _Source, original: Original | None, space: Workspace) -> Found | None:
    """The work with the original that an earlier run received, if that is whole and still what would be asked for."""
    if original is None or original.source != source.name(found.work):
        return None
    return replace(found, original=original) if _is_whole(space.root / original.file, original) else None


def _received(artist: Artist, found: Found, source: _Source, space: Workspace) -> Found:
    """The work with its original; an image that cannot be had or read is a named reason, not the end of the run."""
    try:
        received, by_hand = source.receive(found.work)
        width, height = size_of(received.content)
    except (FetchError, ImageError) as failed:
        return _rejected(found, f"image: {str(failed).removeprefix('image: ')}")
    suffix = received.suffix if received.suffix in SUFFIXES else ".img"
    path = space.works / artist.slug / f"{stem(found.work.object_id)}{suffix}"
    write_bytes(path, received.content)
    digest = hashlib.sha256(received.content).hexdigest()
    name = source.name(found.work)
    original = Original(space.relative(path), width, height, digest, received.capped, name, by_hand)
    return replace(found, original=original)


def _key(work: Work) -> tuple[str, str]:
    return work.artist, work.object_id


def _is_whole(path: Path, original: Original) -> bool:
    return path.is_file() and sha256_of(path) == original.sha256
