"""Names of artists: matched, suggested for slips, and read with words of doubt, which are data: `attributions.toml`."""

import difflib
import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from avignon.core.naming import without_accents
from avignon.museums import words

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


def _set_of(text: str) -> frozenset[str]:
    return frozenset(_words(text))


_QUALIFYING = ("doubts", "hands", "beside", "denials")
"""Kinds of words by which a work is not certainly the artist's own."""


@functools.cache
def _known(*kinds: str) -> frozenset[str]:
    """The single words of some kinds, the tables of `attributions.toml`."""
    tables = [words.vocabulary("attributions.toml")[kind] for kind in kinds]
    return _set_of(" ".join(each for table in tables for phrases in table.values() for each in phrases))


@functools.cache
def _joints() -> re.Pattern[str]:
    """What stands between two names."""
    joints = words.vocabulary("attributions.toml")["joints"]
    long, short = ("|".join(map(re.escape, joints[each])) for each in ("words", "short"))
    return re.compile(rf"[;/&+|\r\n]|[\s_](?:(?i:{long})|{short})[\s_]")


def doubt(text: str, wanted: str) -> str | None:
    """Why an artist's column leaves it uncertain that a work is the wanted artist's own; empty where it does not.

    It names the artist with a doubt, with other hands or beside others (`After Winslow Homer`, `Winslow Homer ?`,
    `Homer & La Farge`). None where it is about somebody else.
    """
    more, sought = _beyond(text, wanted), _set_of(wanted)
    if not sought:
        return None
    doubted = "?" in text or not _known(*_QUALIFYING).isdisjoint(more)
    whole = not _beyond(wanted, text)
    if whole and not doubted and (not more or _is_life(text, wanted)):
        return ""
    pieces = _joints().split(text)
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
    more, joined = _beyond(text, wanted), _joints().search(text)
    years, bracketed = [word for word in more if _YEAR.fullmatch(word)], key(_BRACKETS.sub(" ", text)) == key(wanted)
    if all(word in years or word in _known("life", "own") for word in more):
        return bracketed or (bool(years) and not joined)
    numbers = [int(year) for year in years if year.isdigit()]
    lived = bool(numbers) and max(numbers) - min(numbers) >= SHORTEST_LIFE
    others = joined or not _known("own").isdisjoint(more)
    nations = _set_of(" ".join(words.vocabulary("attributions.toml")["life"]["nationalities"]))
    return bracketed and more[0] in nations and lived and not others


def is_qualifier(text: str, name: str = "") -> bool:
    """Whether a text is nothing but words of doubt, other hands, and of `name`: `attributed to`, `Werkstatt des`."""
    more = _set_of(text) - _set_of(name)
    return not more.isdisjoint(_known("doubts", "hands")) and more <= _known(*_QUALIFYING, "fillers", "joints")


def is_doubtful_place(folder: str, artist: str) -> bool:
    """Whether a folder within an artist's says that what is in it is not certainly theirs: `copies by pupils`."""
    more = _set_of(folder) - _set_of(artist)
    telling = more & _known("doubts", "hands", "denials")
    alone = more <= _known(*_QUALIFYING, "fillers", "joints")
    return bool(telling - _known("weak") or (telling and alone) or doubt(folder, artist))


def is_plain_place(folder: str, artist: str) -> bool:
    """Whether a folder's name cannot be another person's: numbers and usual words, as `early oils, 1880s`."""
    more = _set_of(folder) - _set_of(artist) - _known("places", "fillers", "joints", "weak")
    return all(any(map(str.isdigit, word)) for word in more)


def is_own_hand(role: str) -> bool:
    """Whether what stands beside a name (a role, a prefix that joins names, nothing) casts no doubt on it."""
    return "?" not in role and _set_of(_joints().sub(" ", f" {role} ")) <= _known("own", "fillers")


def is_near(text: str, wanted: str) -> bool:
    """Whether an artist's column may mean the wanted one: a slip, a surname alone, initials, or more than the name.

    Blanks make no difference, nor letters of another script that look the same.
    """
    signs = words.vocabulary("attributions.toml")["lookalikes"]
    latin = str.maketrans(signs["others"], signs["latin"])
    text, wanted = (without_accents(each).casefold().translate(latin) for each in (text, wanted))
    sought = _set_of(wanted)
    alike = _is_slip(key(text), key(wanted)) or sorted("".join(_words(text))) == sorted("".join(_words(wanted)))
    return alike or _means(text, sought) or sought <= _set_of(text)


def _is_slip(one: str, other: str) -> bool:
    return difflib.SequenceMatcher(None, one, other).ratio() >= LIKE


def _means(piece: str, sought: frozenset[str]) -> bool:
    """Whether the name in a text is the sought one or a part of it; slips, initials, an s of the genitive count."""
    named = _set_of(piece) - _known(*_QUALIFYING) - (_known("fillers") - sought)
    bare = [word.removesuffix("s") for word in sought]
    whole = {w for w in named if len(w) > 1 and any(_is_slip(w.removesuffix("s"), each) for each in bare)}
    initials = {word[0] for word in sought}
    return bool(whole) and all(word in initials or word[0] in sought for word in named - whole)


def latin(name: str) -> str:
    """A name's words in Latin letters, where it has such words; else the whole name."""
    written = (word for word in name.split() if any(unicodedata.name(c, "").startswith("LATIN") for c in word))
    return " ".join(written) or name


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that have all words of `name`, as a bare surname has, then those most like it."""
    by_key: dict[str, str] = {}
    for each in known:
        by_key.setdefault(key(each), each)
    sought = set(key(name).split())
    fuller = sorted((k for k in by_key if sought and sought <= set(k.split())), key=len)
    alike = difflib.get_close_matches(key(name), by_key, n=count, cutoff=0.5)
    return [by_key[k] for k in dict.fromkeys([*fuller, *alike])][:count]


def unknown(name: str, known: Iterable[str]) -> str:
    """The end of an error line: no such artist, and the nearest names."""
    near = nearest(name, known)
    return f"no artist {name!r}" + (f"; nearest are {', '.join(near)}" if near else "; no name comes near")
