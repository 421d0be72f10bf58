"""collect: a museum's records → works, and the originals of those that may be trained on.

Reads the museum; writes `works/found.jsonl` (every work that was considered) and `works/<artist>/<object_id>.<ext>`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from avignon.errors import FetchError, ImageError, RightsError
from avignon.imaging import SUFFIXES, size_of
from avignon.museums import opened
from avignon.museums.protocol import Museum
from avignon.recipe import Artist, Recipe, load_decisions, slug
from avignon.records import Access, Decision, Found, Original, Verdict, Voice, Work, plain
from avignon.workspace import Workspace, sha256_of, write_bytes, write_text


def run(recipe: Recipe, space: Workspace, voice: Voice) -> None:
    """Find every work of every artist, and fetch the images of the best candidates.

    Raises:
        RightsError: the recipe's `rights` leave an artist with too few works.
        InputError: a museum or folder that cannot be read, an artist nobody knows.
    """
    had = {_key(f.work): f.original for f in space.read_found() if f.original}
    found: list[Found] = []
    for artist in recipe.artists:
        with opened(recipe.museum_of(artist), recipe.collect) as museum:
            voice.note(f"looking for {artist.name}")
            considered = _ranked(artist, _gated(artist, museum.find(artist)), recipe.collect.reserve)
            found += _fetched(artist, considered, museum, had, space, voice)
            write_text(space.found, _lines(found))
    space.sweep(space.works, {space.found, space.ledger, *(space.root / f.original.file for f in found if f.original)})


def _lines(found: list[Found]) -> str:
    return "".join(json.dumps(plain(each), ensure_ascii=False) + "\n" for each in found)


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


def _ranked(artist: Artist, found: list[Found], reserve: int) -> list[Found]:
    """A curator's keeps first, drops never fetched; nor is what lies beyond the number wanted and the reserve."""
    words = load_decisions(artist)
    judged = [_with_word(artist, each, words.get(each.work.object_id)) for each in found]
    judged.sort(key=lambda each: (each.decision is not None, each.work.object_id not in words))
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
    artist: Artist,
    considered: list[Found],
    museum: Museum,
    had: Mapping[tuple[str, str], Original],
    space: Workspace,
    voice: Voice,
) -> Iterator[Found]:
    candidates = [f for f in considered if f.decision is None]
    for done, found in enumerate(candidates, start=1):
        original = had.get(_key(found.work))
        if original and _is_whole(space.root / original.file, original):
            yield replace(found, original=original)
        else:
            yield _received(artist, found, museum, space)
        voice.progress(done, len(candidates), f"{artist.name}: {found.work.title}")
    yield from (f for f in considered if f.decision is not None)


def _received(artist: Artist, found: Found, museum: Museum, space: Workspace) -> Found:
    """The work with its original; an image that cannot be had or read is a named reason, not the end of the run."""
    try:
        received = museum.receive(found.work)
        width, height = size_of(received.content)
    except (FetchError, ImageError) as failed:
        return _rejected(found, f"image: {failed}")
    suffix = received.suffix if received.suffix in SUFFIXES else ".img"
    path = space.works / artist.slug / f"{slug(found.work.object_id)}{suffix}"
    write_bytes(path, received.content)
    digest = hashlib.sha256(received.content).hexdigest()
    return replace(found, original=Original(space.relative(path), width, height, digest, received.capped))


def _key(work: Work) -> tuple[str, str]:
    return work.image_url, f"{work.artist}/{work.object_id}"


def _is_whole(path: Path, original: Original) -> bool:
    return path.is_file() and sha256_of(path) == original.sha256
