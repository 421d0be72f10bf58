"""Names of artists: matched without accents, case or order, suggested for slips, and read with words of doubt.

The words of doubt are data: `attributions.toml`.
"""

import difflib
import functools
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from avignon.core.naming import without_accents

LIKE = 0.88
"""Likeness (difflib's ratio) from which one name is taken for a slip in another."""

SHORTEST_LIFE = 15
"""Years from which two numbers behind a name are a life's, and not a work's."""

_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_YEAR = re.compile(r"(?:ca?)?\d{4}s?")


def key(name: str) -> str:
    """A name for comparison: `Homer, Winslow` and `Winslow HOMER` have one key; accents fall away."""
    return " ".join(sorted(_words(name)))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", without_accents(text).casefold())


@dataclass(frozen=True)
class Vocabulary:
    """The words around a name, as `attributions.toml` has them."""

    words: Mapping[str, frozenset[str]]
    """By kind, the tables of that file."""
    nationalities: frozenset[str]
    joints: re.Pattern[str]
    lookalikes: Mapping[int, int]

    @functools.cached_property
    def qualifiers(self) -> frozenset[str]:
        """All by which a work is not certainly the artist's own."""
        return self.of("doubts", "hands", "beside", "denials")

    def of(self, *kinds: str) -> frozenset[str]:
        """The words of some kinds."""
        return frozenset().union(*(self.words[kind] for kind in kinds))


@functools.cache
def vocabulary() -> Vocabulary:
    """The words that ship with the package."""
    data = tomllib.loads(Path(__file__).with_name("attributions.toml").read_text(encoding="utf-8"))
    lookalikes = data.pop("lookalikes")
    lists = {kind: [word for words in table.values() for word in words] for kind, table in data.items()}
    plain = {kind: frozenset(word for each in words for word in _words(each)) for kind, words in lists.items()}
    nationalities = frozenset(word for each in data["life"]["nationalities"] for word in _words(each))
    long, short = ("|".join(map(re.escape, data["joints"][each])) for each in ("words", "short"))
    joints = re.compile(rf"[;/&+|\r\n]|[\s_](?:(?i:{long})|{short})[\s_]")
    return Vocabulary(plain, nationalities, joints, str.maketrans(lookalikes["others"], lookalikes["latin"]))


def doubt(text: str, wanted: str) -> str | None:
    """Why an artist's column leaves it uncertain that a work is the wanted artist's own.

    Returns:
        Empty where it does; a reason where it names the artist with a doubt, with other hands or beside others
        (`After Winslow Homer`, `Winslow Homer ?`, `Homer & La Farge`); None where it is about somebody else.
    """
    more, sought = _beyond(text, wanted), frozenset(_words(wanted))
    if not sought:
        return None
    doubted = "?" in text or not vocabulary().qualifiers.isdisjoint(more)
    whole = not _beyond(wanted, text)
    if whole and not doubted and (not more or _is_life(text, wanted)):
        return ""
    pieces = vocabulary().joints.split(text)
    named = whole or any(_means(piece, sought) for piece in pieces)
    beside = any(key(part) == key(wanted) for part in (*text.split(","), _BRACKETS.sub(" ", text)))
    return f"attribution is {text!r}" if beside or (named and (doubted or len(pieces) > 1)) else None


def _beyond(text: str, name: str) -> list[str]:
    """A text's words beyond those of a name."""
    return list((Counter(_words(text)) - Counter(_words(name))).elements())


def _is_life(text: str, wanted: str) -> bool:
    """Whether all that a text has beyond a name is what museums put there: years, a nation, words as `born`, a role.

    In brackets, or with a year, as `Homer, Winslow, 1836-1910`: without either, `French` is a name. Only between a
    nation and the years of a life, in brackets, may stand places.
    """
    known, more, outside = vocabulary(), _beyond(text, wanted), _BRACKETS.sub(" ", text)
    years, bracketed = [word for word in more if _YEAR.fullmatch(word)], key(outside) == key(wanted)
    if all(_YEAR.fullmatch(word) or word in known.of("life", "own") for word in more):
        return bracketed or (bool(years) and not known.joints.search(text))
    numbers = [int(year) for year in years if year.isdigit()]
    lived = bool(numbers) and max(numbers) - min(numbers) >= SHORTEST_LIFE
    others = not known.of("own").isdisjoint(more) or known.joints.search(text)
    return bracketed and more[0] in known.nationalities and lived and not others


def is_qualifier(text: str, name: str = "") -> bool:
    """Whether a text is nothing but words of doubt, other hands, and of `name`: `attributed to`, `Werkstatt des`."""
    words, known = frozenset(_words(text)) - frozenset(_words(name)), vocabulary()
    return not words.isdisjoint(known.of("doubts", "hands")) and words <= known.qualifiers | known.of(
        "fillers", "joints"
    )


def is_doubtful_place(folder: str, artist: str) -> bool:
    """Whether a folder within an artist's says that what is in it is not certainly theirs: `copies by pupils`."""
    words, known = frozenset(_words(folder)) - frozenset(_words(artist)), vocabulary()
    telling = words & known.of("doubts", "hands", "denials")
    strong = telling - known.of("weak")
    alone = words <= known.qualifiers | known.of("fillers", "joints")
    return bool(strong or (telling and alone) or doubt(folder, artist))


def is_plain_place(folder: str, artist: str) -> bool:
    """Whether a folder's name cannot be another person's: numbers and usual words, as `early oils, 1880s`."""
    words = (
        frozenset(_words(folder)) - frozenset(_words(artist)) - vocabulary().of("places", "fillers", "joints", "weak")
    )
    return all(any(map(str.isdigit, word)) for word in words)


def is_own_hand(role: str) -> bool:
    """Whether what stands beside a name (a role, a prefix that joins names, nothing) casts no doubt on it."""
    joined = vocabulary().joints.sub(" ", f" {role} ")
    return "?" not in role and frozenset(_words(joined)) <= vocabulary().of("own", "fillers")


def is_near(text: str, wanted: str) -> bool:
    """Whether an artist's column may mean the wanted one: a slip, a surname alone, initials, or more than the name.

    Blanks make no difference, nor letters of another script that look the same.
    """
    text, wanted = (without_accents(each).casefold().translate(vocabulary().lookalikes) for each in (text, wanted))
    sought = frozenset(_words(wanted))
    alike = _is_slip(key(text), key(wanted)) or sorted("".join(_words(text))) == sorted("".join(_words(wanted)))
    return alike or _means(text, sought) or sought <= frozenset(_words(text))


def _is_slip(one: str, other: str) -> bool:
    return difflib.SequenceMatcher(None, one, other).ratio() >= LIKE


def _means(piece: str, sought: frozenset[str]) -> bool:
    """Whether the name in a text is the sought one or a part of it; slips, initials, an s of the genitive count."""
    known = vocabulary()
    words = frozenset(_words(piece)) - known.qualifiers - (known.of("fillers") - sought)
    whole = {
        word
        for word in words
        if len(word) > 1 and any(_is_slip(word.removesuffix("s"), s.removesuffix("s")) for s in sought)
    }
    initials = {s[0] for s in sought}
    short = {s for s in sought if len(s) == 1}
    return bool(whole) and all(word in initials or word[0] in short for word in words - whole)


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
    """The end of an error line: no such artist, and the nearest names."""
    near = nearest(name, known)
    return f"no artist {name!r}" + (f"; nearest are {', '.join(near)}" if near else "; no name comes near")
