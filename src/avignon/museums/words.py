"""Phrases of a vocabulary found in what people write: without case, accents, or one way to put blanks and hyphens."""

import functools
import re
import tomllib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_ALIKE = str.maketrans(
    {"ⓒ": "©", "Ⓒ": "©", "’": "'", "‘": "'", "´": "'", "œ": "oe", "Œ": "oe", "æ": "ae", "Æ": "ae"}
    | dict.fromkeys("‐‑‒–—―−", "-")
)

NEUTRAL = frozenset(".,;:()[]\"'“”„«»/|&-")
"""Signs that change nothing by themselves. Others, `?` above all, do, or are not understood."""

_ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0308\u030a\u0327\u030c")
"""Grave, acute, circumflex, tilde, diaeresis, ring, cedilla, caron. Others stay: text that is struck out, by whatever
stroke, line or cross upon its letters, must not read as if it were not."""


@functools.cache
def vocabulary(file: str) -> dict[str, Any]:
    """A vocabulary that ships with this package, by the name of its file."""
    return tomllib.loads(Path(__file__).with_name(file).read_text(encoding="utf-8"))


def plain(text: str) -> str:
    """Text for comparison: without case and accents, with one sign for each kind of apostrophe and hyphen."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text.translate(_ALIKE)).casefold())
    return "".join(c for c in folded if c not in _ACCENTS)


def any_of(phrases: Iterable[str], gap: str) -> str:
    """A pattern for any of these phrases, as whole words, the longest first; `gap` is one for what may part words."""
    longest = sorted({plain(phrase) for phrase in phrases}, key=len, reverse=True)
    return f"(?:{'|'.join(_pattern(phrase, gap) for phrase in longest)})"


def key(phrase: str, gap: str) -> str:
    """What is the same of a phrase however it is written."""
    return re.sub(gap, "", plain(phrase))


def _pattern(phrase: str, gap: str) -> str:
    words = gap.join(map(re.escape, re.split(r"[\s-]+", phrase)))
    return _edge(phrase[0], "(?<!{})") + words + _edge(phrase[-1], "(?!{})")


def _edge(sign: str, beside: str) -> str:
    """A word ends where its letters do, a number where letters and digits do: `c1885` is two of them, `cc01` is not."""
    if sign.isdigit():
        return beside.format(r"[^\W_]")
    return beside.format(r"[^\W\d_]") if sign.isalpha() else ""
