"""Names of artists: matched without accents, case or order, suggested for slips, and read with what doubts them.

The words of doubt are data: `attributions.toml`.
"""

import difflib
import functools
import re
import tomllib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LIKE = 0.88
"""Likeness (difflib's ratio) from which one name is taken for a slip in another."""

_DATES = re.compile(r"\([^()]*\d{4}[^()]*\)")
"""Brackets with the dates of a life, as museums put them behind a name."""


def key(name: str) -> str:
    """A name for comparison: `Homer, Winslow` and `Winslow HOMER` have one key; accents fall away."""
    return " ".join(sorted(_words(name)))


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", text)
    return re.findall(r"[^\W_]+", "".join(c for c in plain if not unicodedata.combining(c)).casefold())


@dataclass(frozen=True)
class Vocabulary:
    """The words around a name, as `attributions.toml` has them."""

    doubts: frozenset[str]
    hands: frozenset[str]
    beside: frozenset[str]
    fillers: frozenset[str]
    joints: re.Pattern[str]
    own: frozenset[str]

    @property
    def qualifiers(self) -> frozenset[str]:
        """All by which a work is not certainly the artist's own."""
        return self.doubts | self.hands | self.beside


@functools.cache
def vocabulary() -> Vocabulary:
    """The words that ship with the package."""
    data = tomllib.loads(Path(__file__).with_name("attributions.toml").read_text(encoding="utf-8"))
    lists = {kind: [word for words in table.values() for word in words] for kind, table in data.items()}
    plain = {kind: frozenset(word for each in words for word in _words(each)) for kind, words in lists.items()}
    long, short = ("|".join(map(re.escape, data["joints"][each])) for each in ("words", "short"))
    joints = re.compile(rf"[;/&+|\r\n]|[\s_](?:(?i:{long})|{short})[\s_]")
    return Vocabulary(plain["doubts"], plain["hands"], plain["beside"], plain["fillers"], joints, plain["own"])


def doubt(text: str, wanted: str) -> str | None:
    """Why an artist's column does not make a work certainly the wanted artist's own.

    Returns:
        Empty where it does; a reason where it names the artist with a doubt, with other hands or beside others
        (`After Winslow Homer`, `Winslow Homer ?`, `Homer & La Farge`); None where it is about somebody else.
    """
    plain = text if is_doubted(text) else _DATES.sub("", text)
    if key(plain) == key(wanted) and "?" not in text:
        return ""
    sought = frozenset(_words(wanted))
    pieces = vocabulary().joints.split(plain)
    named = sought <= frozenset(_words(plain)) or any(_means(piece, sought) for piece in pieces)
    beside = any(key(part) == key(wanted) for part in plain.split(","))
    return f"attribution is {text!r}" if beside or (named and (is_doubted(text) or len(pieces) > 1)) else None


def is_doubted(text: str) -> bool:
    """Whether there is a word or a sign of doubt, or of another hand, in a text."""
    return "?" in text or not vocabulary().qualifiers.isdisjoint(_words(text))


def is_qualifier(text: str, *, doubts_alone: bool = False) -> bool:
    """Whether a text is nothing but such words: `attributed to`, `Werkstatt des`."""
    words, known = frozenset(_words(text)), vocabulary()
    telling = known.doubts if doubts_alone else known.doubts | known.hands
    return not words.isdisjoint(telling) and words <= known.qualifiers | known.fillers


def is_own_hand(role: str) -> bool:
    """Whether what stands beside a name (a role, a prefix that joins names, nothing) casts no doubt on it."""
    known = vocabulary()
    joined = known.joints.sub(" ", f" {role} ")
    return "?" not in role and frozenset(_words(joined)) <= (known.own | known.fillers)


def is_near(text: str, wanted: str) -> bool:
    """Whether an artist's column may mean the wanted one: a slip, a surname alone, initials, or more than the name."""
    sought = frozenset(_words(wanted))
    alike = difflib.SequenceMatcher(None, key(text), key(wanted)).ratio() >= LIKE
    return alike or _means(text, sought) or sought <= frozenset(_words(text))


def _means(piece: str, sought: frozenset[str]) -> bool:
    """Whether the name in a text is the sought one or a part of it; initials, and an s of the genitive, count."""
    known = vocabulary()
    words = frozenset(_words(piece)) - known.qualifiers - (known.fillers - sought)
    fits = (
        word in sought or word.removesuffix("s") in sought or (len(word) == 1 and any(s[0] == word for s in sought))
        for word in words
    )
    return any(len(word) > 1 for word in words) and all(fits)


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
