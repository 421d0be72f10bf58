"""What the words of a date mean, and which years they stand for. Pure. The vocabulary is data: `dates.toml`."""

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from avignon.museums import words

GAP = r"[\s.-]*"
"""What may stand between the words of a phrase, or not: `n d` is also `n.d.`, and `av j c` is `av. J.-C.`."""

NEAR = 10
"""Years by which `1898-02` may go over into the next century, and be no month."""

YEARS = frozenset({"full", "year", "short", "hundred", "ten", "short_ten", "named"})
"""Kinds of words for years. All kinds are groups of `dates.toml` or of `lexer`."""

vocabulary = functools.partial(words.vocabulary, "dates.toml")

Share = tuple[float, float]
"""A part of a century or a decade: where it begins and where it ends, from 0 to 1."""

WHOLE: Share = (0, 1)


@dataclass(frozen=True)
class Span:
    """Years that one word of a date means."""

    begin: int
    end: int
    kind: Literal["year", "decade", "century"] = "year"
    share: Share = WHOLE
    """Which part of them is meant."""

    @property
    def years(self) -> tuple[int, int]:
        """First and last year of the part."""
        count = self.end - self.begin + 1
        return self.begin + math.floor(self.share[0] * count), self.begin + math.ceil(self.share[1] * count) - 1


def span_of(kind: str, text: str, before: Sequence[Span]) -> Span | None:
    """The years that a word of one of the kinds `YEARS` means behind other ones; None where it means none."""
    if kind == "named":
        return century_of(vocabulary()["centuries"][text])
    if kind == "short":
        return _shortened(text)
    if kind == "hundred":  # `1900s`, `18XX`, `18--`: all its years, though some mean its first ten.
        first = 100 * int(text[:2])
        return Span(first, first + 99, "century")
    if kind == "ten":
        first = 10 * int(text[:3])
        return Span(first, first + 9, "decade")
    if kind == "short_ten":  # `90s`, in the century before it, but no earlier: `1885, 70s` may be a hundred years on.
        if not before or before[-1].begin < 0:
            return None
        first = before[-1].begin // 100 * 100 + int(text[:2])
        return Span(first, first + 9, "decade") if first + 9 >= before[-1].end else None
    year = int(re.findall(r"\d{4}", text)[0])
    return Span(year, year) if year else None


def _shortened(text: str) -> Span | None:
    """`1929-35`. What may be a month as well, as `1905-10`, is read as a range; `1910-05` can only be a month."""
    first, last = int(text[:4]), int(re.findall(r"\d+", text)[1])
    size = 10 if len(text) - len(text.rstrip("0123456789")) == 1 else 100
    ahead = (last - first) % size
    if last > first % size or ahead <= NEAR:
        return Span(first, first + ahead)
    return Span(first, first) if 1 <= last <= 12 or 21 <= last <= 24 else None  # 21 to 24 are EDTF's seasons.


def century_of(number: int) -> Span:
    """The years of a century by its number: the 19th is 1801 to 1900."""
    return Span(100 * number - 99, 100 * number, "century")


def roman(text: str) -> int:
    """The value of a Roman numeral of I, V and X; other letters, as in `XIXe`, are passed over."""
    value = {"i": 1, "v": 5, "x": 10}
    values = [value[letter] for letter in text if letter in value]
    return sum(-v if v < following else v for v, following in zip(values, [*values[1:], 0], strict=True))


@functools.cache
def _meanings() -> dict[str, tuple[str, Share]]:
    """The kind of each phrase, by its key, and the part that it names."""
    meanings = {each: (kind, WHOLE) for kind, group in vocabulary()["words"].items() for each in group}
    for part in vocabulary()["parts"]:
        low, high = part["share"]
        meanings |= dict.fromkeys(part["words"], ("part", (low, high)))
    return {words.key(phrase, GAP): meaning for phrase, meaning in meanings.items()}


def phrases_of(*kinds: str) -> str:
    """A pattern for all phrases of some kinds."""
    return words.any_of((each for kind in kinds for each in vocabulary()["words"][kind]), GAP)


def meaning_of(match: re.Match[str]) -> tuple[str, Share]:
    """The kind of a word that `lexer` found, and the part of a century or decade that it names, if it does."""
    group = str(match.lastgroup)
    return _meanings()[words.key(match[0], GAP)] if group == "phrase" else (group, WHOLE)


@functools.cache
def lexer() -> re.Pattern[str]:
    """The words of a date; the first group that fits is taken, and one fits every sign but blanks."""
    phrases = [each for group in vocabulary()["words"].values() for each in group]
    phrases += [each for part in vocabulary()["parts"] for each in part["words"]]
    begins, ends = r"(?<!\d)", r"(?![^\W_])"
    time = r"(?:[t ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:z|[+-]\d\d:?\d\d)?)?"
    many = r"'?(?:s|er|ern)"
    month, day = r"(?:0?[1-9]|1[0-2]|xx)", r"(?:0?[1-9]|[12]\d|3[01])"
    full = (
        rf"\d{{4}}([-.]){month}\2(?:{day}|xx){time}",  # 1885-05-12, 1885-05-12T10:00:00Z, 1885-XX-XX
        r"\d{4}-xx",
        r"\d{4}\.0+",  # 1885.0
        rf"(?:{day}[./-])?{day}[./-]\d{{4}}",  # 12.5.1885, 05/1885
    )
    century = (
        r"(?<=(?:st|nd|rd|th))[\s-]*c(?![a-z])",  # 19th c., where c. 1885 is about
        r"\bs\.?\s*(?=[ivx]+\b)",  # s. XIX
        r"(?<=[ivx\d]e)\s*s(?![^\W_])",  # XIXe s.
        r"(?<=[ivx\d]eme)\s*s(?![^\W_])",
    )
    return re.compile(
        rf"(?P<full>{begins}(?:{'|'.join(full)}){ends})"
        rf"|(?P<hundred>{begins}\d\d(?:00-?{many}|xx|--){ends})"  # 1800s, 18XX, 18--
        rf"|(?P<ten>{begins}\d{{3}}(?:0-?{many}{ends}|x{ends}|-(?!\d)))"  # 1890s, 188X, 188-
        rf"|(?P<short_ten>{begins}\d0{many}{ends})"  # 90s
        rf"|(?P<short>{begins}\d{{4}}\s*[-/]\s*(?:\d\d|\d(?![?~%]))(?!\.\d|[\d']|[^\W_]))"  # 1929-35, 1885/6
        rf"|(?P<year>{begins}\d{{4}}{ends})"
        rf"|(?P<open>\.\.+|[-/]\s*\??\s*[\])]*$|^/)"  # 1885/.., 1890-, 1890-?, /1885
        rf"|(?P<named>\b(?:{'|'.join(vocabulary()['centuries'])})\b)"
        rf"|(?P<century>{'|'.join(century)})"
        rf"|(?P<phrase>{words.any_of(phrases, GAP)})"
        r"|(?P<ordinal>\d{1,2}(?:st|nd|rd|th|eme|er|de|ste|e|o|a|°)(?![^\W_]))"
        r"|(?P<roman>\b[ivx]{1,6}(?:eme|er|e|th)?\b)"
        r"|(?P<number>\d+)"
        r"|(?P<about>[?~%])"
        r"|(?P<outside>^-|[^\W\d_]+)"
        r"|(?P<sign>\S)"
    )
