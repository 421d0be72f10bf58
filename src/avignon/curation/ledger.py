"""The ledger: one row for each work that was considered, with its decision and the reason."""

from collections.abc import Iterable
from dataclasses import asdict, fields

from avignon.core.records import Access, Verdict
from avignon.core.workspace import Workspace
from avignon.curation.gate import Decided
from avignon.curation.quality import Measures
from avignon.museums.filters import fields_of
from avignon.museums.tables import csv_text

Row = dict[str, str]
"""A row as it is read; ledgers of earlier versions lack the newest columns."""

COLUMNS = (
    *("museum", "object_id", "accession", "title", "artist", "year", "image_url", "width", "height", "sha256"),
    *("rights", "evidence", "decision", "reason"),
    *("file", "medium", "classification", "credit", "page", "capped", "by_hand", "terms", "acknowledged", "condition"),
    *(each.name for each in fields(Measures)),
)


SHAPE_COLUMNS = ("bucket", "cut")
"""Where works are learned from in buckets: the shape in pixels, and the share of the work that it cuts off."""


def kept(space: Workspace) -> list[Row]:
    """The rows of the works to train on."""
    return [row for row in space.read_ledger() if row["decision"] == Verdict.KEPT]


def as_csv(decided: Iterable[Decided], acknowledged: set[str], *, in_buckets: bool = False) -> str:
    """The ledger's text; `acknowledged` are the artists whose restricted images the user may use, by their word."""
    columns = (*COLUMNS, *(SHAPE_COLUMNS if in_buckets else ()))
    return csv_text(columns, [_row(each, acknowledged) for each in decided])


def _row(decided: Decided, acknowledged: set[str]) -> dict[str, object]:
    work, original = decided.found.work, decided.found.original
    is_closed = work.rights.access is not Access.OPEN
    return {
        **fields_of(work, COLUMNS),
        **(asdict(original) if original else {}),
        **(asdict(decided.measures) if decided.measures else {}),
        **({"bucket": "{}x{}".format(*place.bucket), "cut": f"{place.cut:.4f}"} if (place := decided.place) else {}),
        "year": work.date,
        "decision": decided.decision.verdict,
        "reason": decided.decision.reason,
        "capped": str(bool(original and original.capped)).lower(),
        "by_hand": str(bool(original and original.by_hand)).lower(),
        # The user stated that they may use this artist's images though this one is not open.
        "acknowledged": str(is_closed and work.artist in acknowledged).lower(),
    }
