"""Years that a date means, as museums write dates. Pure. The vocabulary is data: `dates.toml`.

Understood are the Extended Date/Time Format, level 1 (ISO 8601-2:2019, https://www.loc.gov/standards/datetime/), and
the usual spellings in six languages. Where a spelling has two readings, the later end counts, which frees a work later.
A date is understood only if all of it is. `read` never guesses from a part.
"""

import functools
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avignon.museums import words

_GAP = r"[\s.]*"
"""What may stand between the words of a phrase, or not: `n d` is also `n.d.`."""

_NEUTRAL = frozenset(".,;:()[]/&'\"-")

RECENT = 1500
"""Before Christ, years from here on are more likely ours: `1985 BC` was painted in British Columbia."""

NEAR = 10
"""Years by which `1898-02` may go over into the next century, and be no month."""

_ROMAN = {"i": 1, "v": 5, "x": 10}


@dataclass(frozen=True)
class Years:
    """First and last year, None where it is not known. Years before Christ are negative: 500 B.C. is -500."""

    begin: int | None = None
    end: int | None = None
    about: bool = False
    """Whether the date says of itself that it is not certain; the margin is in the years already."""


@dataclass(frozen=True)
class _Span:
    """Years that one word of a date stands for."""

    begin: int
    end: int
    kind: str = "year"
    """`year`, `decade` or `century`."""
    share: tuple[float, float] = (0, 1)
    """Which part of them is meant."""

    @property
    def years(self) -> tuple[int, int]:
        """First and last year of the part."""
        count = self.end - self.begin + 1
        return self.begin + math.floor(self.share[0] * count), self.begin + math.ceil(self.share[1] * count) - 1


def read(text: str) -> Years | None:
    """The years that a date stands for; no years where it says that there are none; None where it is not understood."""
    date = words.plain(text).strip()
    tokens = [(_kind(match), match) for match in _lexer().finditer(date)]
    kinds = {kind for kind, _ in tokens}
    if kinds <= {"undated", "sign"}:
        return Years() if "undated" in kinds or not date else None
    reader = _Reader(has_century="century" in kinds, has_month="month" in kinds, has_era=bool(kinds & {"bc", "ad"}))
    return reader.years() if all(reader.take(kind, match) for kind, match in tokens) else None


def known(begin: int | None, end: int | None, text: str) -> Years:
    """A museum's own years of a work, 0 being none; those of its displayed date where the last one is missing."""
    said = None if end else read(text)
    return said if said and (said.begin or said.end) else Years(begin or None, end or None)


def unread(years: Years, text: str) -> tuple[str, ...]:
    """What the ledger says of a date that is not understood; nothing where the last year is known without it."""
    return (f"date {text!r}",) if years.end is None and text.strip() and read(text) is None else ()


@dataclass
class _Reader:
    """Goes through a date word by word, and holds what it has come to."""

    has_century: bool
    has_month: bool
    has_era: bool
    spans: list[_Span] = field(default_factory=list)
    parts: list[tuple[float, float]] = field(default_factory=list)
    """Such as `early`, waiting for their century."""
    about: bool = False
    opens: bool = False
    """Whether the first year is not known."""
    ends_open: str = ""
    """The word, `after` or `from`, by which the last year is not known; empty where it is."""
    prefix: str = ""
    """Such a word, or `before`, waiting for its year."""
    turned: int = 0
    """How many spans have their era."""
    in_decade: bool = False

    def take(self, kind: str, match: re.Match[str]) -> bool:
        """Take in one word; whether it was understood."""
        if kind in _SPANS:
            return self._add(_SPANS[kind](match, self.spans))
        if kind in ("ordinal", "number", "roman"):
            return self._number(kind, match[0])
        if kind in ("bc", "ad"):
            return self._turn(backwards=kind == "bc")
        if kind in ("before", "after", "from"):
            self.prefix = kind
        elif kind == "later" or (kind == "open" and self.spans):
            self.ends_open = "after"
        elif kind in ("earlier", "open"):
            self.opens = True
        elif kind == "about":
            self.about = True
        elif kind == "decade":
            self.in_decade = True
        elif kind.startswith("part"):
            low, high = _vocabulary()["parts"][int(kind[4:])]["share"]
            self.parts.append((low, high))
        else:
            return kind in ("note", "month", "century") or (kind == "sign" and match[0] in _NEUTRAL)
        return True

    def _add(self, span: _Span | None) -> bool:
        if span is None:
            return False
        if self.in_decade and span.begin == span.end and span.begin % 10 == 0:
            span = _Span(span.begin, span.begin + 9, "decade")
        self.spans.append(self._parted(span))
        if self.prefix == "before":
            self.opens, self.ends_open = self.opens or len(self.spans) == 1, ""
        elif self.prefix or self.ends_open == "from":
            self.ends_open = self.prefix
        self.prefix, self.in_decade = "", False
        return True

    def _parted(self, span: _Span) -> _Span:
        """The part of a span that was named before it: `early to mid` is from the first to the last of them."""
        parts, self.parts = self.parts, []
        if not parts or span.kind == "year":
            return span
        return replace(span, share=(min(low for low, _ in parts), max(high for _, high in parts)))

    def _number(self, kind: str, text: str) -> bool:
        """A number is a century, a day, or a year, by what else the date says."""
        value = _roman(text) if kind == "roman" else int(re.sub(r"\D", "", text))
        if self.has_century and 1 <= value <= 21:
            return self._add(_century(value))
        if kind != "roman" and self.has_month and 1 <= value <= 31:
            return True
        return kind == "number" and self.has_era and value > 0 and self._add(_Span(value, value))

    def _turn(self, *, backwards: bool) -> bool:
        """Put what has been said since the last era into this one; what looks like a year of ours is not believed."""
        new = self.spans[self.turned :]
        if backwards:
            self.spans[self.turned :] = [replace(span, begin=-span.end, end=-span.begin) for span in new]
        self.turned = len(self.spans)
        return not backwards or all(span.end < RECENT for span in new)

    def years(self) -> Years | None:
        """All spans together, with the margin of a date that is not certain; None where a word is left over."""
        if self.parts and self.spans:  # "19th century, second half"
            self.spans.append(self._parted(self.spans.pop()))
        if not self.spans or self.prefix:
            return None
        margins = _vocabulary()["margins"]
        margin = margins["century" if any(span.kind == "century" for span in self.spans) else "year"] * self.about
        begin = min(span.years[0] for span in self.spans) - margin
        end = max(span.years[1] for span in self.spans) + margin
        return Years(None if self.opens else begin, None if self.ends_open else end, self.about)


# What stands for years ------------------------------------------------------------------------------------------------


def _year(match: re.Match[str], _: Sequence[_Span]) -> _Span | None:
    year = int(re.findall(r"\d{4}", match[0])[0])
    return _Span(year, year) if year else None


def _shortened(match: re.Match[str], _: Sequence[_Span]) -> _Span | None:
    """`1929-35`. What may be a month as well, as `1905-10`, is read as a range; `1910-05` can only be a month."""
    first, last = int(match[0][:4]), int(re.findall(r"\d+", match[0])[1])
    size = 10 if len(match[0]) - len(match[0].rstrip("0123456789")) == 1 else 100
    ahead = (last - first) % size
    if last > first % size or ahead <= NEAR:
        return _Span(first, first + ahead)
    return _Span(first, first) if 1 <= last <= 12 or 21 <= last <= 24 else None  # 21 to 24 are EDTF's seasons.


def _hundred(match: re.Match[str], _: Sequence[_Span]) -> _Span:
    """`1900s`, `18XX`, `18--`: all its years, though some mean its first ten."""
    first = 100 * int(match[0][:2])
    return _Span(first, first + 99, "century")


def _ten(match: re.Match[str], _: Sequence[_Span]) -> _Span:
    first = 10 * int(match[0][:3])
    return _Span(first, first + 9, "decade")


def _short_ten(match: re.Match[str], spans: Sequence[_Span]) -> _Span | None:
    """`90s`, after a year of the same century."""
    if not spans or spans[-1].begin < 0:
        return None
    first = spans[-1].begin // 100 * 100 + int(match[0][:2])
    return _Span(first, first + 9, "decade")


def _century(number: int) -> _Span:
    return _Span(100 * number - 99, 100 * number, "century")


def _named_century(match: re.Match[str], _: Sequence[_Span]) -> _Span:
    return _century(_vocabulary()["centuries"][match[0]])


_SPANS: Mapping[str, Callable[[re.Match[str], Sequence[_Span]], _Span | None]] = {
    "full": _year,
    "year": _year,
    "short": _shortened,
    "hundred": _hundred,
    "ten": _ten,
    "short_ten": _short_ten,
    "named": _named_century,
}


def _roman(text: str) -> int:
    values = [_ROMAN[letter] for letter in text if letter in _ROMAN]
    return sum(-v if v < following else v for v, following in zip(values, [*values[1:], 0], strict=True))


# The vocabulary -------------------------------------------------------------------------------------------------------


@functools.cache
def _vocabulary() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("dates.toml").read_text(encoding="utf-8"))


@functools.cache
def _kinds() -> dict[str, str]:
    """Kinds of all phrases by their keys; a part of a century is called by its number."""
    parts = {f"part{number}": part["words"] for number, part in enumerate(_vocabulary()["parts"])}
    groups: dict[str, list[str]] = {**_vocabulary()["words"], **parts}
    return {words.key(phrase, _GAP): kind for kind, phrases in groups.items() for phrase in phrases}


def _kind(match: re.Match[str]) -> str:
    group = str(match.lastgroup)
    return _kinds()[words.key(match[0], _GAP)] if group == "phrase" else group.rstrip("12")


@functools.cache
def _lexer() -> re.Pattern[str]:
    """What a date is made of; the first group that fits is taken, and one fits every sign but blanks."""
    phrases = [*(each for group in _vocabulary()["words"].values() for each in group)]
    phrases += [each for part in _vocabulary()["parts"] for each in part["words"]]
    begins, ends = r"(?<!\d)", r"(?![^\W_])"
    time = r"(?:[t ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:z|[+-]\d\d:?\d\d)?)?"
    many = r"'?(?:s|er|ern)"
    return re.compile(
        rf"(?P<full>{begins}(?:\d{{4}}([-.])(?:0?[1-9]|1[0-2]|xx)\2(?:0?[1-9]|[12]\d|3[01]|xx){time}|\d{{4}}-xx|\d{{4}}\.0+"
        rf"|(?:(?:0?[1-9]|[12]\d|3[01])[./-])?(?:0?[1-9]|[12]\d|3[01])[./-]\d{{4}}){ends})"
        rf"|(?P<hundred>{begins}\d\d(?:00-?{many}|xx|--){ends})"
        rf"|(?P<ten>{begins}\d{{3}}(?:0-?{many}{ends}|x{ends}|-(?!\d)))"
        rf"|(?P<short_ten>{begins}\d0{many}{ends})"
        rf"|(?P<short>{begins}\d{{4}}\s*[-/]\s*\d{{1,2}}(?![\d.'?~%]|[^\W_]))"
        rf"|(?P<year>{begins}\d{{4}}{ends})"
        rf"|(?P<open>\.\.+|[-/]\s*\??\s*[\])]*$|^/)"
        rf"|(?P<named>\b(?:{'|'.join(_vocabulary()['centuries'])})\b)"
        r"|(?P<century1>(?<=(?:st|nd|rd|th))[\s-]*c(?![a-z]))"  # "19th c.", where "c. 1885" is about.
        r"|(?P<century2>\bs\.?\s*(?=[ivx]+\b))"
        rf"|(?P<phrase>{words.any_of(phrases, _GAP)})"
        r"|(?P<ordinal>\d{1,2}(?:st|nd|rd|th|eme|er|de|ste|e|o|a|°)(?![^\W_]))"
        r"|(?P<roman>\b[ivx]{1,6}(?:eme|er|e|th)?\b)"
        r"|(?P<number>\d+)"
        r"|(?P<about>[?~%])"
        r"|(?P<outside>^-|[^\W\d_]+)"
        r"|(?P<sign>\S)"
    )
