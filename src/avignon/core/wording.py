"""What people read: titles without their marks, the program and where it lives.

Files keep what the museum wrote; these are for captions, labels and cards.
"""

import html
import re
from html.entities import html5

from avignon import __version__

_ENTITY = re.compile(r"&(?:#\d+|#x[0-9a-f]+|[a-z][a-z0-9]*);", re.IGNORECASE)
_BREAKS = re.compile(r"</?(?:br|p|div|li)\b[^<>]*>", re.IGNORECASE)
_TAGS = re.compile(
    r"</?(?:a|b|bdi|cite|em|font|i|q|s|small|span|strong|sub|sup|title|tt|u)(?:\s[^<>]*)?/?>", re.IGNORECASE
)
_MARKED = (
    re.compile(r"(?<![^\W_])(\*{1,3})(?=[^\s*])(.+?)(?<=[^\s*])\1(?![^\W_])", re.DOTALL),
    re.compile(r"(?<![^\W_])(_{1,3})(?=[^\s_])(.+?)(?<=[^\s_])\1(?![^\W_])", re.DOTALL),
)
"""Words between stars or underscores; those inside a word (`M*A*S*H`, `study_for_2`) are letters of it."""


def unmarked(text: str) -> str:
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
    return _ENTITY.sub(lambda found: html.unescape(found[0]) if _is_entity(found[0]) else found[0], text)


def _is_entity(text: str) -> bool:
    return text[1] == "#" or text[1:] in html5


def homepage() -> str:
    """The project's address, as the installed package's own metadata has it; empty where it names none."""
    from importlib import metadata  # Here, because a listing reads titles, and importing this takes longer than that.

    try:
        entries = metadata.metadata("avignon").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return ""
    places = {label.strip().lower(): place.strip() for label, _, place in (entry.partition(",") for entry in entries)}
    named = [places[label] for label in ("homepage", "home", "repository", "source", "source code") if label in places]
    return next((place for place in (*named, *places.values()) if place.startswith(("http://", "https://"))), "")


def program() -> str:
    """The program and its version in Markdown, with a link where there is a place to lead to."""
    place = homepage()
    return f"[avignon {__version__}]({place})" if place else f"avignon {__version__}"


def user_agent(contact: str = "") -> str:
    """How the program names itself to servers (RFC 9110, 10.1.5), with the address of whoever runs it."""
    about = (f"+{homepage()}" if homepage() else "", contact, "museum open data", "one request at a time")
    return f"avignon/{__version__} ({'; '.join(filter(None, about))})"
