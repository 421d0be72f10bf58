"""collect: a museum's records → works, and the originals of those that may be trained on.

Reads the museum; writes `works/found.jsonl` (every work that was considered) and `works/<artist>/<object_id>.<ext>`.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from avignon.errors import FetchError, ImageError, RightsError
from avignon.imaging import SUFFIXES, size_of
from avignon.museums import opened
from avignon.museums.protocol import Museum
from avignon.recipe import Artist, Recipe, load_decisions, stem
from avignon.records import Access, Decision, Found, Original, Verdict, Voice, Work, plain
from avignon.workspace import Workspace, json_text, sha256_of, write_bytes, write_text


def run(recipe: Recipe, space: Workspace, voice: Voice) -> None:
    """Find every work of every artist, and fetch the images of the best candidates.

    Raises:
        RightsError: the recipe's `rights` leave an artist with too few works.
        InputError: a museum or folder that cannot be read, an artist nobody knows.
    """
    earlier = [f for f in space.read_found() if f.original]
    found: list[Found] = []
    for artist in recipe.artists:
        with opened(recipe.museum_of(artist), recipe.collect, voice.warn) as museum:
            voice.note(f"looking for {artist.name}")
            words = load_decisions(artist)
            considered = _gated(artist, museum.find(artist))
            _tell_strangers(artist, words, considered, voice)
            ranked = _ranked(artist, considered, words, recipe.collect.reserve)
            try:
                found.extend(_fetched(artist, ranked, museum, earlier, space, voice))
            finally:  # What came before an interruption is known to the next run.
                write_text(space.found, _lines([*found, *_not_in(found, earlier)]))
    write_text(space.found, _lines(found))
    space.sweep(space.works, {space.found, space.ledger, *(space.root / f.original.file for f in found if f.original)})


def _not_in(found: list[Found], earlier: list[Found]) -> list[Found]:
    known = {_key(f.work) for f in found}
    return [f for f in earlier if _key(f.work) not in known]


def _tell_strangers(artist: Artist, words: Mapping[str, Decision], found: list[Found], voice: Voice) -> None:
    strangers = sorted(words.keys() - {f.work.object_id for f in found})
    if strangers:
        voice.warn(f"{artist.decisions}: no work of {artist.name} has object_id {', '.join(strangers)}")


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


def _ranked(artist: Artist, found: list[Found], words: Mapping[str, Decision], reserve: int) -> list[Found]:
    """A curator's keeps first, then open works; drops and what lies beyond the number wanted and the reserve last."""
    judged = [_with_word(artist, each, words.get(each.work.object_id)) for each in found]
    judged.sort(key=lambda each: (each.work.object_id not in words, each.work.rights.access is not Access.OPEN))
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
    usable = found.work.image_url and not _is_barred(artist, found.work)
    return replace(found, decision=None) if usable else found


def _fetched(
    artist: Artist, considered: list[Found], museum: Museum, earlier: list[Found], space: Workspace, voice: Voice
) -> Iterator[Found]:
    """Every considered work, the candidates with their originals; what an earlier run has is not received again.

    Raises:
        FetchError: so many images cannot be had that too few are left; the next run tries them again.
    """
    had = {_key(f.work): f.original for f in earlier}
    candidates = [f for f in considered if f.decision is None]
    lost: list[str] = []
    for done, found in enumerate(candidates, start=1):
        each = _kept(found, museum, had.get(_key(found.work)), space) or _received(artist, found, museum, space)
        yield each
        voice.progress(done, len(candidates), f"{artist.name}: {found.work.title}")
        if each.decision:
            lost.append(f"{found.work.title!r}: {each.decision.reason}")
            _check_losses(artist, lost, len(candidates))
    yield from (f for f in considered if f.decision is not None)


def _check_losses(artist: Artist, lost: list[str], candidates: int) -> None:
    if candidates - len(lost) < artist.works <= candidates:
        raise FetchError(
            f"{artist.name}: {artist.works} works are wanted, but of {candidates} images {len(lost)} could not be had "
            f"(first: {lost[0]}); what came is kept: run again, raise collect.reserve, or lower works"
        )


def _kept(found: Found, museum: Museum, original: Original | None, space: Workspace) -> Found | None:
    """The work with the original that an earlier run received, if that is whole and still what would be asked for."""
    if original is None or original.source != museum.source(found.work):
        return None
    return replace(found, original=original) if _is_whole(space.root / original.file, original) else None


def _received(artist: Artist, found: Found, museum: Museum, space: Workspace) -> Found:
    """The work with its original; an image that cannot be had or read is a named reason, not the end of the run."""
    try:
        received = museum.receive(found.work)
        width, height = size_of(received.content)
    except (FetchError, ImageError) as failed:
        return _rejected(found, f"image: {str(failed).removeprefix('image: ')}")
    suffix = received.suffix if received.suffix in SUFFIXES else ".img"
    path = space.works / artist.slug / f"{stem(found.work.object_id)}{suffix}"
    write_bytes(path, received.content)
    digest = hashlib.sha256(received.content).hexdigest()
    source = museum.source(found.work)
    return replace(found, original=Original(space.relative(path), width, height, digest, received.capped, source))


def _key(work: Work) -> tuple[str, str]:
    return work.artist, work.object_id


def _is_whole(path: Path, original: Original) -> bool:
    return path.is_file() and sha256_of(path) == original.sha256
