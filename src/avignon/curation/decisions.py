"""A curator's decisions: a CSV file that a person edits, above measures."""

import re
import tomllib
from pathlib import Path

from avignon.core import sheets
from avignon.core.errors import InputError, RecipeError
from avignon.core.records import Decision, Verdict
from avignon.recipe.schema import Artist

_COLUMNS = tomllib.loads(Path(__file__).with_name("decisions.toml").read_text(encoding="utf-8"))

DECISIONS = sheets.Columns("decisions", _COLUMNS["columns"], needed=("object_id", "decision"), grave=_COLUMNS["grave"])
"""Of a curator's file; further columns are for whoever edits it."""


def load_decisions(artist: Artist) -> dict[str, Decision]:
    """A curator's decisions by object id; empty where the recipe names no file."""
    return decisions_in(Path(artist.decisions)) if artist.decisions else {}


def decisions_in(path: Path) -> dict[str, Decision]:
    """The decisions of a file by object id; lines without a decision are left out.

    Raises:
        RecipeError: naming the file, the line, and what is allowed.
    """
    words = {"keep": Verdict.KEPT, "kept": Verdict.KEPT, "drop": Verdict.REJECTED, "rejected": Verdict.REJECTED}
    decisions: dict[str, Decision] = {}
    try:
        sheet = sheets.read(path, DECISIONS)
    except InputError as unreadable:
        raise RecipeError(str(unreadable)) from None
    for line, row in sheet.rows:
        word, number = row["decision"].lower(), row["object_id"]
        if not word and any(each.strip().lower() in words for each in re.split(r"[,;\t|]", number)[1:]):
            raise RecipeError(
                f"{path}: line {line}: {number!r} is one field; separate its fields as the first line's are"
            )
        if not word:
            continue
        if word not in words:
            raise RecipeError(f"{path}: line {line}: decision: {word!r} is not allowed; it is keep, drop or empty")
        if not number:
            raise RecipeError(f"{path}: line {line}: object_id is empty")
        if number in decisions:
            raise RecipeError(f"{path}: line {line}: object_id {number!r} is decided on twice")
        decisions[number] = Decision(words[word], row.get("reason", ""))
    return decisions
