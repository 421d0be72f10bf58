"""curate: originals → the works to train on, and a ledger in which no considered work is missing.

Reads `works/found.jsonl` and the originals; writes `works/ledger.csv`, and a contact sheet for human eyes.
"""

from collections import Counter

from avignon.core.errors import InputError
from avignon.core.events import Reporter
from avignon.core.files import write_bytes, write_text
from avignon.core.workspace import Workspace
from avignon.curation import contact_sheet, decisions, ledger
from avignon.curation.gate import Decided, MeasuringGate
from avignon.recipe.schema import Artist, Recipe


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Decide on every work that was found, and write the ledger.

    Raises:
        InputError: fewer works pass than the recipe wants; the line counts the reasons.
    """
    found, buckets = space.read_found(), recipe.buckets
    gate = MeasuringGate(space.root, recipe.curate, recipe.least_edge, buckets)
    decided: list[Decided] = []
    for artist in recipe.artists:
        works = [each for each in found if each.work.artist == artist.name]
        for each in gate.decide(works, decisions.read(artist.decisions), artist.works):
            decided.append(each)
            reporter.progress(len(decided), len(found), each.found.work.title)
    acknowledged = {artist.name for artist in recipe.artists if artist.rights == "acknowledge-restricted"}
    write_text(space.ledger, ledger.as_csv(decided, acknowledged, in_buckets=bool(buckets)))
    prints = [contact_sheet.printed(each) for each in decided]
    files = {artist.name: artist.decisions for artist in recipe.artists}
    write_bytes(space.contact_sheet, contact_sheet.sheet(prints))
    write_text(space.contact_page, contact_sheet.page(recipe.name, prints, files))
    reporter.note(f"look them over before training: {space.contact_page}")
    for artist in recipe.artists:
        _check_number(artist, [each for each in decided if each.found.work.artist == artist.name], space)


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
