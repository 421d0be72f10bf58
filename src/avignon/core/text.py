"""Titles and other texts of museums, for people to read."""

import html
import re
from html.entities import html5

_ENTITY = re.compile(r"&(?:(#\d+|#x[0-9a-f]+)|[a-z][a-z0-9]*);", re.IGNORECASE)
_BREAKS = re.compile(r"</?(?:br|p|div|li)\b[^<>]*>", re.IGNORECASE)
_TAGS = re.compile(
    r"</?(?:a|b|bdi|cite|em|font|i|q|s|small|span|strong|sub|sup|title|tt|u)(?:\s[^<>]*)?/?>", re.IGNORECASE
)
_MARKED = (
    re.compile(r"(?<![^\W_])(\*{1,3})(?=[^\s*])(.+?)(?<=[^\s*])\1(?![^\W_])", re.DOTALL),
    re.compile(r"(?<![^\W_])(_{1,3})(?=[^\s_])(.+?)(?<=[^\s_])\1(?![^\W_])", re.DOTALL),
)
"""Words between stars or underscores; those inside a word (`M*A*S*H`, `study_for_2`) are letters of it."""


def strip_markup(text: str) -> str:
    """A title, a medium or a term without HTML's entities and light tags, and without Markdown's stars and underscores.

    Only whole pairs of stars and underscores are marks, and only tags that set letters or break lines: `<Untitled>` is
    a title. Many exports escape their tags: `&lt;i&gt;` is one, `&amp;lt;i&amp;gt;` says that a title has `<i>` in it.
    """
    plain = _TAGS.sub("", _BREAKS.sub(" ", _unescaped(text)))
    for marked in _MARKED:
        plain = marked.sub(r"\2", plain)
    plain = _unescaped(plain)
    return plain if plain == text else " ".join(plain.split())


def _unescaped(text: str) -> str:
    """Whole entities as the letters they stand for; `AT&T` and `Rock&notes` have none."""
    return _ENTITY.sub(lambda found: html.unescape(found[0]) if found[1] or found[0][1:] in html5 else found[0], text)
