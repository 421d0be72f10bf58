"""Names of artists: matched without accents, case or order, with a suggestion for slips."""

import difflib
import re
import unicodedata
from collections.abc import Iterable


def key(name: str) -> str:
    """A name for comparison: `Homer, Winslow` and `Winslow HOMER` have one key; accents fall away."""
    plain = unicodedata.normalize("NFKD", name)
    plain = "".join(c for c in plain if not unicodedata.combining(c)).casefold()
    return " ".join(sorted(re.findall(r"[^\W_]+", plain)))


def latin(name: str) -> str:
    """A name's words in Latin letters, where it has such words; else the whole name."""
    words = [word for word in name.split() if any(unicodedata.name(c, "").startswith("LATIN") for c in word)]
    return " ".join(words) or name


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that have all words of `name`, as a bare surname has, then those most like it."""
    by_key: dict[str, str] = {}
    for each in known:
        by_key.setdefault(key(each), each)
    words = set(key(name).split())
    fuller = sorted((k for k in by_key if words and words <= set(k.split())), key=len)
    alike = difflib.get_close_matches(key(name), by_key, n=count, cutoff=0.5)
    return [by_key[k] for k in dict.fromkeys([*fuller, *alike])][:count]


def unknown(name: str, known: Iterable[str]) -> str:
    """The end of an error line: nobody of that name, and who is near."""
    near = nearest(name, known)
    return f"no artist {name!r}" + (f"; nearest are {', '.join(near)}" if near else "; no name comes near")
