"""collect: a museum's records → works, and the originals of those that may be trained on.

Reads the museum; writes `works/found.jsonl` (every work that was considered) and `works/<artist>/<object_id>.<ext>`.
"""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import replace

from avignon.core.errors import FetchError, ImageError, TurnedAway
from avignon.core.events import Reporter
from avignon.core.files import json_text, sha256_of, write_bytes, write_text
from avignon.core.formats import SUFFIXES
from avignon.core.imaging import size_of
from avignon.core.naming import stem
from avignon.core.records import Found, Original, plain
from avignon.core.text import strip_markup
from avignon.core.workspace import Workspace
from avignon.curation import decisions, gate
from avignon.museums import registry
from avignon.museums.by_hand import ImageSource, in_folder
from avignon.museums.protocol import ArtistQuery, FetchSettings
from avignon.recipe.schema import Artist, Recipe


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Find every work of every artist, and fetch the images of the best candidates.

    Raises:
        RightsError: the recipe's `rights` leave an artist with too few works.
        TurnedAway: a museum's server shows pages for people where images should be, and too few are there without it;
            by then all artists' works are listed.
        InputError: a museum or folder that cannot be read, an unknown artist.
    """
    earlier = {_key(f): f for f in space.read_found() if f.original}
    found: list[Found] = []
    turned_away: list[str] = []
    owners: dict[tuple[str, str], str] = {}
    asked = recipe.collect
    settings = FetchSettings(asked.max_edge, asked.max_megabytes * 10**6, asked.pause, asked.timeout)
    warn = functools.cache(reporter.warn)  # Artists of one folder share its index, and its warnings.
    for artist in recipe.artists:
        with registry.opened(recipe.museum_of(artist), settings, warn) as museum:
            reporter.note(f"looking for {artist.name}")
            source = ImageSource(museum, in_folder(artist.originals))
            works = museum.find(ArtistQuery(artist.name, artist.find, artist.classification))
            if folder := registry.folder_of(recipe.museum_of(artist)):
                gate.claim(artist.name, folder, works, owners)
            works = _candidates(artist, works, source, asked.reserve, reporter)
            try:
                found.extend(_fetched(artist, works, source, earlier, space, reporter))
            except TurnedAway as refused:
                turned_away.append(str(refused))
            finally:  # What came before an interruption is known to the next run.
                rest = earlier.keys() - {_key(f) for f in found}
                write_text(space.found, _lines([*found, *(f for key, f in earlier.items() if key in rest)]))
    if turned_away:
        raise TurnedAway(
            f"{'; '.join(turned_away)}. All works are listed in {space.found}. Run again later; or save the images in "
            "a browser into one folder for each artist, each named by its object id, and name that folder in the "
            'recipe under the artist, as originals = "by-hand"'
        )
    write_text(space.found, _lines(found))
    space.sweep(space.works, {space.found, space.ledger, *(space.root / f.original.file for f in found if f.original)})


def _key(found: Found) -> tuple[str, str]:
    return found.work.artist, found.work.object_id


def _lines(found: list[Found]) -> str:
    return "".join(json_text(plain(each)) + "\n" for each in found)


def _candidates(
    artist: Artist, found: list[Found], source: ImageSource, reserve: int, reporter: Reporter
) -> list[Found]:
    """The works behind the rights gate, candidates first; decisions and images that match no work are warned of."""
    decided, by_hand = decisions.read(artist.decisions), source.by_hand
    found = gate.apply_rights(artist, found)
    if strangers := sorted(decided.keys() - {f.work.object_id for f in found}):
        reporter.warn(f"{artist.decisions}: no work of {artist.name} has object_id {', '.join(strangers)}")
    found = gate.choose_candidates(artist, found, decided, reserve, lambda work: by_hand.of(work) is not None)
    for name, reason in by_hand.unused(found, artist.name).items():
        reporter.warn(f"{by_hand.folder}: {name} is not used: {reason}")
    return found


def _fetched(
    artist: Artist,
    works: list[Found],
    source: ImageSource,
    earlier: dict[tuple[str, str], Found],
    space: Workspace,
    reporter: Reporter,
) -> Iterator[Found]:
    """Every work, the candidates with their originals; what an earlier run has is not fetched again.

    Raises:
        FetchError: so many images are unavailable that too few are left; the next run tries them again.
    """
    candidates = [f for f in works if f.decision is None]
    lost: list[Found] = []
    for done, candidate in enumerate(candidates, start=1):
        known = earlier.get(_key(candidate))
        if known and _is_as_it_was(known.original, source.name(candidate.work), space):
            each = replace(candidate, original=known.original)
        else:
            each = _received(artist, candidate, source, space)
        yield each
        reporter.progress(done, len(candidates), f"{artist.name}: {candidate.work.title}")
        if each.decision:
            lost.append(each)
            if not source.refused and len(candidates) - len(lost) < artist.works <= len(candidates):
                raise FetchError(
                    f"{artist.name}: {_too_few(artist, lost, len(candidates))}; what came is kept: run again, raise "
                    "collect.reserve, or lower works"
                )
    yield from (f for f in works if f.decision is not None)
    if source.refused:
        _check_refusals(artist, lost, len(candidates), reporter)


def _is_as_it_was(original: Original | None, source: str, space: Workspace) -> bool:
    """Whether what an earlier run received is what would be asked for now, and whole."""
    if original is None or original.source != source:
        return False
    path = space.root / original.file
    return path.is_file() and sha256_of(path) == original.sha256


def _received(artist: Artist, found: Found, source: ImageSource, space: Workspace) -> Found:
    """The work with its original; rejected with the reason where its image is unavailable or unreadable."""
    try:
        received, by_hand = source.receive(found.work)
        width, height = size_of(received.content)
    except (FetchError, ImageError) as failed:
        return gate.rejected(found, f"image: {str(failed).removeprefix('image: ')}")
    suffix = received.suffix if received.suffix in SUFFIXES else ".img"
    path = space.works / artist.slug / f"{stem(found.work.object_id)}{suffix}"
    write_bytes(path, received.content)
    digest = hashlib.sha256(received.content).hexdigest()
    name = source.name(found.work)
    original = Original(space.relative(path), width, height, digest, received.capped, name, by_hand)
    return replace(found, original=original)


def _check_refusals(artist: Artist, lost: list[Found], candidates: int, reporter: Reporter) -> None:
    """What a server that turns programs away leaves: a warning where enough came, else what to save by hand."""
    turns_away = f"{artist.name}: {registry.museum_name(lost[0].work.museum)} turns programs away at the moment"
    if candidates - len(lost) >= artist.works:
        reporter.warn(f"{turns_away}; {len(lost)} of {candidates} images were not fetched {_first(lost)}")
        return
    wanted = [f"{stem(f.work.object_id)}.jpg from {f.work.page or f.work.image_url}" for f in lost]
    more = f", and {len(wanted) - 3} more" if len(wanted) > 3 else ""
    raise TurnedAway(f"{turns_away}: {_too_few(artist, lost, candidates)}; to be saved: {', '.join(wanted[:3])}{more}")


def _too_few(artist: Artist, lost: list[Found], candidates: int) -> str:
    return f"{artist.works} works are wanted, but of {candidates} images {len(lost)} are unavailable {_first(lost)}"


def _first(lost: list[Found]) -> str:
    """The first of the works without an image, and why."""
    reason = lost[0].decision.reason if lost[0].decision else ""
    return f"(first: {strip_markup(lost[0].work.title)!r}: {reason})"
