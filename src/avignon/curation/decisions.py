"""A curator's decisions: a CSV file that a person edits, above measures."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from avignon.core import sheets
from avignon.core.errors import InputError, RecipeError
from avignon.core.files import write_text
from avignon.core.records import Decision, Found, Verdict
from avignon.museums import filters
from avignon.museums.tables import csv_text

_DATA = tomllib.loads(Path(__file__).with_name("decisions.toml").read_text(encoding="utf-8"))

COLUMNS = sheets.Columns("decisions", _DATA["columns"], needed=("object_id", "decision"), grave=_DATA["grave"])
"""Those that are read, by all their names."""

WRITTEN = ("object_id", "decision", "reason", "title", "date", "rights", "condition", "note", "page")
"""Columns of a file to edit; those behind the first three are for whoever edits it."""

_VERDICTS = {"keep": Verdict.KEPT, "kept": Verdict.KEPT, "drop": Verdict.REJECTED, "rejected": Verdict.REJECTED}


def read(file: str) -> dict[str, Decision]:
    """The decisions of a file by object id; lines without a decision are left out. None where no file is named.

    Raises:
        RecipeError: naming the file, the line, and what is allowed.
    """
    if not file:
        return {}
    try:
        sheet = sheets.read(Path(file), COLUMNS)
    except InputError as unreadable:
        raise RecipeError(str(unreadable)) from None
    decisions: dict[str, Decision] = {}
    for line, row in sheet.rows:
        word, number = row["decision"].lower(), row["object_id"]
        where = f"{file}: line {line}"
        if not word and any(each.strip().lower() in _VERDICTS for each in re.split(r"[,;\t|]", number)[1:]):
            raise RecipeError(f"{where}: {number!r} is one field; separate its fields as the first line's are")
        if not word:
            continue
        if word not in _VERDICTS:
            raise RecipeError(f"{where}: decision: {word!r} is not allowed; it is keep, drop or empty")
        if not number:
            raise RecipeError(f"{where}: object_id is empty")
        if number in decisions:
            raise RecipeError(f"{where}: object_id {number!r} is decided on twice")
        decisions[number] = Decision(_VERDICTS[word], row.get("reason", ""))
    return decisions


def write(path: Path, found: Sequence[Found]) -> None:
    """Write a decisions file to edit: a line for each work, with the decisions that the file has already.

    An empty decision leaves a work to the measures; `keep` and `drop` stand above them.
    """
    decided = read(str(path)) if path.exists() else {}
    fields = {number: {"decision": each.verdict.word, "reason": each.reason} for number, each in decided.items()}
    rows = [{**filters.row(each), **fields.get(each.work.object_id, {})} for each in found]
    known = {each.work.object_id for each in found}
    rows += [{"object_id": number, **others} for number, others in fields.items() if number not in known]
    write_text(path, sheets.MARK + csv_text(WRITTEN, rows))  # Without the mark, Excel misreads accents.
