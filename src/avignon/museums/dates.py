"""Years that a date means, as museums write dates. Pure. Words are read by `date_words`.

Understood are the Extended Date/Time Format, level 1 (ISO 8601-2:2019, https://www.loc.gov/standards/datetime/), and
the usual spellings in six languages. A date is understood only if all of it is. Where a spelling has two usual
readings, the later end counts, which frees a work later; `1898-12` is a month alone, as ISO 8601 has it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from avignon.museums import date_words, words
from avignon.museums.date_words import GAP, WHOLE, YEARS, Share, Span, phrases_of

_BREAKS = frozenset(",;/|&")
"""Signs between `cast` and a year, by which that year may be another's."""

RECENT = 1500
"""Before Christ, years from here on are more likely modern ones: `1985 BC` was painted in British Columbia."""


@dataclass(frozen=True)
class Years:
    """First and last year, None where it is not known. Years before Christ are negative: 500 B.C. is -500."""

    begin: int | None = None
    end: int | None = None
    about: bool = False
    """Whether the date says of itself that it is not certain; the margin is in the years already."""
    since: int | None = None
    """Where the last year is not known: the latest year that is named."""
    reissued: bool = False
    """Whether it was cast or printed in a year that is not known: perhaps after the artist's death."""

    @property
    def latest(self) -> int | None:
        """The last year, or else the latest that is named."""
        return max((year for year in (self.end, self.since, self.begin) if year is not None), default=None)


def together(dated: Sequence[Years]) -> Years:
    """Several dates of one work combined: the later end counts, and none where one of them has none."""
    dated = [each for each in dated if each != Years()]
    begins = [each.begin for each in dated if each.begin is not None]
    ends = [each.end for each in dated if each.end is not None]
    named = [each.latest for each in dated if each.latest is not None]
    is_open = len(ends) < len(dated)
    return Years(
        min(begins, default=None),
        None if is_open else max(ends, default=None),
        any(each.about for each in dated),
        max(named, default=None) if is_open else None,
        any(each.reissued for each in dated),
    )


def read(text: str) -> Years | None:
    """The years that a date means; no years where it says `undated`; None where it is not understood."""
    date = words.plain(text).strip()
    if not date.strip("-"):
        return Years()
    tokens = [(*date_words.meaning_of(match), match[0]) for match in date_words.lexer().finditer(date)]
    said = [token for token in tokens if token[2] not in words.NEUTRAL]
    if said and said[0][0] == "undated":
        if len(said) == 1:
            return Years()
        tokens.remove(said[0])  # Years behind it are the cataloguer's: "n.d. (1885)".
    parser = _DateParser({kind for kind, _, _ in tokens})
    return parser.years() if all(parser.feed(*token) for token in tokens) else None


def known(begin: int | None, end: int | None, text: str) -> Years:
    """A museum's own years of a work, 0 being none; those of its displayed date where the last one is missing.

    A cast or print of an unknown year leaves the end open whatever the museum's own years are.
    """
    said = read(text) or Years()
    own = Years(begin or None, end or None)
    if said.reissued:
        return together([own, said])
    return own if end or said == Years() else said


def unread(years: Years, text: str) -> tuple[str, ...]:
    """For the ledger: a date that is not understood; nothing where the last year is known without it."""
    return (f"date {text!r}",) if years.end is None and text.strip() and read(text) is None else ()


def death(text: str) -> int | None:
    """An artist's year of death, e.g. of `died 1910` or `1836-1910`; None where it is not known for certain."""
    died = words.any_of(date_words.vocabulary()["death"], GAP)
    found = re.fullmatch(rf"\s*(?:{died})?[\s.:]*(.*)", words.plain(text))
    years = read(found[1]) if found else None
    return None if years is None or years.about or years.reissued else years.end


def issued(text: str, made: int | None) -> Years | None:
    """The years of a cast or print that a title or a medium mentions.

    None where it mentions none, or no more than that the work was cast or printed in `made`, the last year of its date.
    """
    plain = words.plain(text)
    found = re.search(phrases_of("cast", "reissued"), plain)
    if not found:
        return None
    rest = plain[found.start() :].strip("()[]., ")
    named = max((int(year) for year in re.findall(r"(?<!\d)[12]\d{3}(?!\d)", plain)), default=None)
    years = read(rest)
    if years is None or (named or 0) > (years.latest or 0):
        years = Years(since=named, reissued=True)
    late = re.search(phrases_of("reissued"), rest)
    return years if made is None or late or (years.latest or made) > made else None


_ISSUES = frozenset({"cast", "published", "reissued"})
_ACTS = _ISSUES | {"made", "reworked"}


@dataclass
class _DateParser:
    """Parses a date word by word; the fields are its state."""

    kinds: set[str]
    """Kinds of all the words in the date."""
    spans: list[Span] = field(default_factory=list)
    with_era: int = 0
    """Number of spans whose era is known."""
    about: bool = False
    # Pending until the next year.
    parts: list[Share] = field(default_factory=list)
    limit: str = ""
    """`before`, `after` or `from`."""
    is_decade: bool = False
    issue: bool = False
    rework: bool = False
    # The ends of the range.
    no_begin: bool = False
    open_by: str = ""
    """Why the last year is open: `after`, which only `before` ends, or `from`, which any year does."""
    open_since: int = 0
    """The latest year at which the end is open."""
    acted: bool = False
    """Whether another act was named since, e.g. `after 1917; modeled before 1985`: its year closes nothing."""
    stays_open: bool = False
    """Whether an act has no year, so that no later year closes the range."""
    reissued: bool = False

    def feed(self, kind: str, share: Share, text: str) -> bool:
        """Parse one word; returns whether it is understood."""
        if kind in YEARS:
            return self._add(date_words.span_of(kind, text, () if self.acted else self.spans))
        if kind in ("ordinal", "number", "roman"):
            return self._number(kind, text)
        if kind in ("bc", "ad"):
            return self._set_era(backwards=kind == "bc")
        if kind in _ACTS:
            return self._act(kind)
        if kind == "sign":
            if text in _BREAKS:
                self._leave_undated()
            return text in words.NEUTRAL
        if kind in ("later", "open", "earlier"):
            self._open_end(kind)
        elif kind in ("before", "after", "from"):
            self.limit = kind
        elif kind == "part":
            self.parts.append(share)
        self.about |= kind == "about"
        self.is_decade |= kind == "decade"
        return kind not in ("outside", "undated")

    def _add(self, span: Span | None) -> bool:
        if span is None:
            return False
        if self.is_decade and span.begin == span.end and span.begin % 10 == 0:
            span = Span(span.begin, span.begin + 9, "decade")
        if self.limit == "before" and not self.spans:
            self.no_begin = True
        self.spans.append(self._narrowed(span))
        self._close_or_open(span.end)
        self.limit, self.is_decade, self.issue, self.rework = "", False, False, False
        return True

    def _close_or_open(self, year: int) -> None:
        """Open the end at a year, or close it with one that is no earlier and of the same act."""
        if self.limit in ("after", "from"):
            self._open_at(self.limit, year)
        elif year >= self.open_since and not self.acted and (self.limit or self.open_by == "from"):
            self.open_by = ""
        if not self.open_by:
            self.acted = False

    def _open_at(self, by: str, year: int) -> None:
        is_later = not self.open_by or year > self.open_since
        self.open_since = max(year, self.open_since) if self.open_by else year
        self.open_by = "after" if "after" in (by, self.open_by) else by
        self.acted = self.acted and not is_later

    def _open_end(self, kind: str) -> None:
        if kind == "earlier" or (kind == "open" and not self.spans):
            self.no_begin = True
        elif self.spans:
            self._open_at("after", self.spans[-1].end)
        else:
            self.stays_open = True

    def _act(self, kind: str) -> bool:
        """An act, such as a cast: its year follows, or is not given."""
        if kind == "made":
            self._leave_undated()
        self.issue |= kind in _ISSUES
        self.rework |= kind == "reworked"
        self.acted = True
        return not self.parts  # "late cast"

    def _leave_undated(self) -> None:
        """Acts that are still pending have no year."""
        self.reissued |= self.issue
        self.stays_open |= self.issue or self.rework
        self.issue = self.rework = False

    def _narrowed(self, span: Span) -> Span:
        """The part of a span that was named before it: `early to mid` is from the first part to the last."""
        parts, self.parts = self.parts, []
        if not parts or span.kind == "year":
            return span
        return replace(span, share=(min(low for low, _ in parts), max(high for _, high in parts)))

    def _number(self, kind: str, text: str) -> bool:
        """A number is a century, a day or a year, depending on the rest of the date."""
        value = date_words.roman(text) if kind == "roman" else int(re.sub(r"\D", "", text))
        if "century" in self.kinds and 1 <= value <= 21:
            return self._add(date_words.century_of(value))
        if kind != "roman" and "month" in self.kinds and 1 <= value <= 31:
            return True
        has_era = not self.kinds.isdisjoint({"bc", "ad"})
        return kind == "number" and has_era and value > 0 and self._add(Span(value, value))

    def _set_era(self, *, backwards: bool) -> bool:
        """Apply an era to the spans since the last one; false where modern years would be before Christ."""
        new = self.spans[self.with_era :]
        if backwards:
            self.spans[self.with_era :] = [replace(span, begin=-span.end, end=-span.begin) for span in new]
        self.with_era = len(self.spans)
        return not backwards or (bool(new) and all(span.end < RECENT for span in new))

    def years(self) -> Years | None:
        """All spans together, with the margin of an uncertain date; None where a word is left over."""
        self._leave_undated()
        if self.parts and self.spans and self.spans[-1].kind != "year" and self.spans[-1].share == WHOLE:
            self.spans.append(self._narrowed(self.spans.pop()))  # "19th century, second half"
        if not self.spans or self.limit or self.parts or self.is_decade:
            return None
        scale = "century" if any(span.kind == "century" for span in self.spans) else "year"
        margin = date_words.vocabulary()["margins"][scale] if self.about else 0
        begin = None if self.no_begin else min(span.years[0] for span in self.spans) - margin
        end = max(span.years[1] for span in self.spans) + margin
        if not (self.open_by or self.stays_open):
            return Years(begin, end, self.about)
        return Years(begin, None, self.about, end, self.reissued or not self.kinds.isdisjoint(_ISSUES))
