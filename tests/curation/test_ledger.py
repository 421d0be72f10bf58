"""The ledger: each work with its decision, in columns that do not change."""

import csv
import io
from pathlib import Path

from avignon.core.records import Access, Decision, Found, Original, Rights, Verdict, Work
from avignon.core.workspace import Workspace
from avignon.curation import ledger
from avignon.curation.gate import Decided
from avignon.curation.quality import Measures

WORK = Work("nga", "1", "Ann", "A, B", "https://museum.test/1", Rights(Access.RESTRICTED, "shown", "CC BY"), width=9,
            terms=("sea", "boat"))  # fmt: skip


def test_rows_say_what_was_found_and_decided(tmp_path: Path) -> None:
    """The size is the original's where there is one; lists, flags and missing measures are text."""
    original = Original("works/ann/1.png", 20, 10, "ab", capped=True)
    measures = Measures(*map(float, range(1, 10)))
    kept = Decided(Found(WORK, original=original), Decision(Verdict.KEPT), measures)
    rejected = Decided(Found(WORK), Decision(Verdict.REJECTED, "a doubt"))
    space = Workspace(tmp_path)
    space.works.mkdir()
    space.ledger.write_text(ledger.as_csv([kept, rejected], {"Ann"}), encoding="utf-8")
    first, second = space.read_ledger()
    assert tuple(first) == ledger.COLUMNS
    assert (first["title"], first["width"], first["capped"], first["acknowledged"]) == ("A, B", "20", "true", "true")
    assert (first["terms"], first["condition"], first["ruler"]) == ("sea; boat", "CC BY", "9.0")
    assert (second["width"], second["file"], second["sharpness"], second["reason"]) == ("9", "", "", "a doubt")
    assert ledger.kept(space) == [first]


def test_nobody_acknowledged_nothing() -> None:
    """An open work needs no acknowledgement, and a restricted one has none without the user's word."""
    decided = Decided(Found(WORK), Decision(Verdict.REJECTED, "rights"))
    (row,) = csv.DictReader(io.StringIO(ledger.as_csv([decided], set())))
    assert row["acknowledged"] == "false"
