"""Which of an artist's works to list, and the list as CSV."""

from collections.abc import Sequence
from dataclasses import dataclass

from avignon.core.errors import InputError
from avignon.core.naming import without_accents
from avignon.core.records import Access, Found, Work
from avignon.core.text import strip_markup
from avignon.museums.tables import csv_text

COLUMNS = (
    *("object_id", "title", "date", "medium", "classification", "width", "height"),
    *("rights", "condition", "evidence", "note"),
    *("accession", "attributed", "credit", "page", "image_url", "terms", "depicts"),
)
"""Of the list as CSV."""


@dataclass(frozen=True)
class WorkFilter:
    """Conditions on a work; each field that is set must be met. `between` in the wrong order is an `InputError`."""

    open_only: bool = False
    """Only images that are open, if with a condition, of works that the record leaves no doubt about."""
    classification: tuple[str, ...] = ()
    """One of these, as the museum writes it; case does not matter."""
    between: tuple[int, int] | None = None
    """Made, at least in part, within these years, both included; a work without a year is not."""
    min_size: int = 0
    """Least pixels on the short side."""
    like: str = ""
    """All of these words in the title, the terms or the museum's description; case and accents do not matter."""

    def __post_init__(self) -> None:
        if self.between and self.between[0] > self.between[1]:
            first, last = self.between
            raise InputError(f"between: {first} comes after {last}; the first year comes first: {last} {first}")

    def matches(self, found: Found) -> bool:
        """Whether a work meets all conditions."""
        work = found.work
        text = _plain(" ".join(map(strip_markup, (work.title, *work.terms, work.depicts))))
        return (
            (not self.open_only or (found.decision is None and work.rights.access is Access.OPEN))
            and (not self.classification or _plain(work.classification) in map(_plain, self.classification))
            and (self.between is None or _overlaps(work, *self.between))
            and (not self.min_size or min(work.width, work.height) >= self.min_size)
            and all(word in text for word in _plain(self.like).split())
        )


def _overlaps(work: Work, first: int, last: int) -> bool:
    begin = work.end if work.begin is None else work.begin
    end = work.begin if work.end is None else work.end
    return begin is not None and end is not None and begin <= last and end >= first


def _plain(text: str) -> str:
    return without_accents(text).casefold()


def as_csv(found: Sequence[Found]) -> str:
    """The list for a spreadsheet."""
    return csv_text(COLUMNS, [row(each) for each in found])


def row(found: Found) -> dict[str, object]:
    """A found work by the names of `COLUMNS`."""
    return {**fields_of(found.work, COLUMNS), "note": found.decision.reason if found.decision else ""}


def fields_of(work: Work, columns: Sequence[str]) -> dict[str, object]:
    """What a work has of the columns of a table; its terms are one field, and its rights three."""
    fields = {column: getattr(work, column) for column in columns if hasattr(work, column)}
    rights = {"rights": work.rights.access, "condition": work.rights.condition, "evidence": work.rights.evidence}
    return {**fields, **rights, "terms": "; ".join(work.terms)}
