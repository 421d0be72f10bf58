"""What a statement of rights says, word by word. Pure: the year is an argument.

A statement counts as understood only if all of its words are. So what is not in the vocabulary (a reservation, another
language, a slip of the pen) can make an image unknown, but never free. The vocabulary is data: `statements.toml`.
"""

import functools
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avignon.museums import words
from avignon.records import Access

_GAP = r"[\s\-_:]*"
"""What may stand between the words of a phrase, or not: `public domain` is also `public-domain` and `publicdomain`."""

_NEUTRAL = frozenset(".,;:()[]\"'“”„«»/|&-_")
"""Signs that change nothing. Others, `?` above all, do, or are not understood."""

_ADDRESS = re.compile(
    r"(?:https?:)?(?://)?(?:www\.)?(?P<place>(?:creativecommons|rightsstatements)\.org/[a-z]+/[a-z+-]+)"
    r"(?:/(?P<version>\d\.\d))?(?:/(?!deed|legalcode|rdf)(?P<port>[a-z]+))?"
    r"(?:/(?:deed|legalcode|rdf)(?:\.[\w-]+)?)?/?(?:[?#].*)?"
)
"""An address of a licence or statement, in any of the forms in which its publisher serves it."""


@dataclass(frozen=True)
class Reading:
    """What a statement comes to."""

    access: Access
    condition: str = ""
    """What is asked of whoever uses the image, e.g. `attribution, share-alike (CC BY-SA 4.0)`; empty for nothing."""
    unread: str = ""
    """The words that are not understood."""


@dataclass(frozen=True)
class _Part:
    """A piece of a statement: `claim`, `denial`, `doubt`, `open` or `note` as in the vocabulary; `year`; `unread`."""

    kind: str
    text: str = ""
    condition: str = ""


def read(statement: str, year: int) -> Reading:
    """What a statement says in a given year: the strictest of its parts counts.

    1. A claim of rights restricts; so does freedom that is denied, or that begins in a later year.
    2. What is not understood, doubts, or names no freedom, is unknown.
    3. All else is open. Conditions are kept whatever the access.
    """
    parts = [part for match in _lexer().finditer(words.plain(statement)) if (part := _part(match))]
    kinds = [part.kind for part in parts]
    opened = len(kinds) - kinds[::-1].index("open") if "open" in kinds else 0
    later = any(part.kind == "year" and int(part.text) > year for part in parts)
    if "claim" in kinds or "denial" in kinds[:opened] or (opened and later):
        access = Access.RESTRICTED
    elif not opened or {"unread", "doubt", "denial"}.intersection(kinds):
        access = Access.UNKNOWN
    else:
        access = Access.OPEN
    conditions = dict.fromkeys(part.condition for part in parts if part.condition)
    unread = " ".join(part.text for part in parts if part.kind in ("unread", "denial"))
    return Reading(access, "; ".join(conditions), unread)


def _part(match: re.Match[str]) -> _Part | None:
    """What the lexer found; None for a sign that changes nothing."""
    kind, text = str(match.lastgroup), match[0]
    if kind == "address":
        return _at_address(text.rstrip(".,;:)]}'\""))
    if kind == "licence":
        return _licensed(text)
    if kind == "phrase":
        return _phrases()[words.key(text, _GAP)]
    if kind == "year":
        return _Part("year", text)
    return None if text in _NEUTRAL else _Part("unread", text)


def _at_address(address: str) -> _Part:
    """A licence or statement by its address; any other address is not understood."""
    found, licence = _ADDRESS.fullmatch(address), _vocabulary()["licence"]
    if found is None:
        return _Part("unread", address)
    place = re.sub(r"\.org/(page|data)/", ".org/vocab/", found["place"])
    port = found["port"] or ""
    codes = place.removeprefix(f"{licence['address']}/").split("-")
    known = {element["code"] for element in licence["elements"]}
    if place.startswith(licence["address"]) and known.issuperset(codes) and port in ("", *licence["jurisdictions"]):
        return _of_elements(codes, found["version"] or "", port, address)
    return _addresses().get(place, _Part("unread", address)) if not port else _Part("unread", address)


def _licensed(text: str) -> _Part:
    """A Creative Commons licence by its code or its name."""
    codes = [_elements()[words.key(found[0], _GAP)] for found in _element().finditer(text)]
    version = re.search(r"[1-4]\.[05](?:[\s-]+(?P<port>[a-z]+)\b)?", text)
    port = version["port"] if version and version["port"] in _vocabulary()["licence"]["jurisdictions"] else ""
    return _of_elements(codes, version[0][:3] if version else "", port or "", text)


def _of_elements(codes: Iterable[str], version: str, port: str, text: str) -> _Part:
    """A licence of these elements: it sets the condition of each, and restricts if one of them does."""
    elements = [each for each in _vocabulary()["licence"]["elements"] if each["code"] in codes]
    if elements[0]["code"] != "by" and all(each["kind"] == "open" for each in elements):
        return _Part("unread", text)  # All that are in use ask for attribution, so something is missing here.
    name = " ".join(filter(None, ("CC", "-".join(each["code"] for each in elements), version, port))).upper()
    kind = "claim" if any(each["kind"] == "claim" for each in elements) else "open"
    return _Part(kind, condition=f"{', '.join(each['condition'] for each in elements)} ({name})")


# The vocabulary -------------------------------------------------------------------------------------------------------


@functools.cache
def _vocabulary() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("statements.toml").read_text(encoding="utf-8"))


@functools.cache
def _phrases() -> dict[str, _Part]:
    """Every phrase by its key. Elements of a licence that restrict do so on their own, too; others need the licence."""
    return {
        words.key(phrase, _GAP): _Part(group["kind"], condition=group.get("condition", ""))
        for group in _groups()
        for phrase in group["words"]
    }


def _groups() -> list[dict[str, Any]]:
    restricting = [each for each in _vocabulary()["licence"]["elements"] if each["kind"] == "claim"]
    return [*restricting, *_vocabulary()["phrases"]]


@functools.cache
def _addresses() -> dict[str, _Part]:
    return {
        address: _Part(group["kind"], condition=group.get("condition", ""))
        for group in _vocabulary()["phrases"]
        for address in group.get("addresses", ())
    }


@functools.cache
def _elements() -> dict[str, str]:
    """Codes of a licence's elements by the keys of all their names."""
    elements = _vocabulary()["licence"]["elements"]
    return {words.key(name, _GAP): each["code"] for each in elements for name in (each["code"], *each["words"])}


@functools.cache
def _element() -> re.Pattern[str]:
    elements = _vocabulary()["licence"]["elements"]
    return re.compile(words.any_of((name for each in elements for name in (each["code"], *each["words"])), _GAP))


@functools.cache
def _lexer() -> re.Pattern[str]:
    """What a statement is made of; the first group that fits is taken, and one fits every sign."""
    licence = _vocabulary()["licence"]
    lead, between, after, port = (
        words.any_of(licence[key], _GAP) for key in ("leads", "between", "after", "jurisdictions")
    )
    code = words.any_of((each["code"] for each in licence["elements"]), _GAP)
    elements = rf"{_element().pattern}(?:{_GAP}{_element().pattern})*"
    # A jurisdiction ends the name of a licence before 4.0: in "CC BY 3.0 in copyright", "in" is not India.
    version = rf"(?:{_GAP}|/)v?(?:[1-3]\.[05][\s-]+{port}(?=\s*(?:$|[^\w\s]))|[1-4]\.[05](?!\d))(?:{_GAP}{after})*"
    return re.compile(
        r"(?P<address>(?:(?:https?:)?//|www\.)\S+|[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}/\S*)"
        rf"|(?P<licence>{lead}{_GAP}(?:{between}{_GAP})*{elements}(?:{version})?(?:{_GAP}{after})*"
        rf"|{elements}{version}|{code}(?:-{code})+)"
        rf"|(?P<phrase>{words.any_of((each for group in _groups() for each in group['words']), _GAP)})"
        r"|(?P<year>(?<!\d)[12][0-9]{3}(?!\w))"
        r"|(?P<word>[^\W_]+|\.\.+)"
        r"|(?P<sign>\S)"
    )
