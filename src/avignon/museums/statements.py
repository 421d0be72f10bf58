"""What a statement of rights says, word by word. Pure: the year is an argument.

A statement counts as understood only if all of its words are. So what is not in the vocabulary (a reservation, another
language, a slip of the pen) can make an image unknown, but never free. The vocabulary is data: `statements.toml`.
"""

import functools
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from avignon.core.records import Access
from avignon.museums import words

_GAP = r"[\s\-_:]*"
"""What may stand between the words of a phrase, or not: `public domain` is also `public-domain` and `publicdomain`."""

_SEPARATORS = frozenset(",;|")
"""Signs behind which something else is spoken of."""

_OPENING = frozenset("([\"'“„«")

_ADDRESS = re.compile(
    r"(?:https?:)?(?://)?(?:www\.)?(?P<place>(?:creativecommons|rightsstatements)\.org/[a-z]+/[a-z+-]+)"
    r"(?:/(?P<version>\d\.\d))?(?:/(?!deed|legalcode|rdf)(?P<port>[a-z]+))?"
    r"(?:/(?:deed|legalcode|rdf)(?:\.[\w-]+)?)?/?(?:[?#][\w=&-]*)?"
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


class Kind(Enum):
    """What a piece of a statement does: the groups of `statements.toml` by their names, and what the lexer finds."""

    CLAIM = "claim"
    DENIAL = "denial"
    DOUBT = "doubt"
    OPEN = "open"
    NOTE = "note"
    LINK = "link"
    ARTICLE = "article"
    LABEL = "label"
    ELEMENT = "element"
    YEAR = "year"
    SIGN = "sign"
    UNREAD = "unread"


_BESIDE = frozenset({Kind.NOTE, Kind.LINK, Kind.ARTICLE, Kind.LABEL, Kind.ELEMENT, Kind.SIGN})
"""What may stand between `rights` and what they are."""

_SPOKEN_OF = frozenset({Kind.NOTE, Kind.ARTICLE, Kind.LABEL, Kind.OPEN, Kind.CLAIM, Kind.DENIAL, Kind.DOUBT})
"""What an article may stand before."""


@dataclass(frozen=True)
class _Part:
    """A piece of a statement."""

    kind: Kind
    text: str = ""
    condition: str = ""
    sure: bool = False
    """Of a claim: whether it cannot mean anything else, wherever it stands."""


def read(statement: str, year: int) -> Reading:
    """What a statement says in a given year: the strictest of its parts counts.

    1. A claim of rights restricts; so does freedom that is denied, or that begins in a later year.
    2. What is not understood, doubts, or names no freedom, is unknown.
    3. All else is open. Conditions are kept whatever the access.
    """
    parts = _in_context(_parts(statement), _shouted(statement))
    kinds = [part.kind for part in parts]
    until_open = len(kinds) - kinds[::-1].index(Kind.OPEN) if Kind.OPEN in kinds else 0
    later = any(re.fullmatch(r"[12]\d{3}", part.text) and int(part.text) > year for part in parts)
    if Kind.CLAIM in kinds or Kind.DENIAL in kinds[:until_open] or (until_open and later):
        access = Access.RESTRICTED
    elif not until_open or {Kind.UNREAD, Kind.DOUBT, Kind.DENIAL}.intersection(kinds):
        access = Access.UNKNOWN
    else:
        access = Access.OPEN
    conditions = dict.fromkeys(part.condition for part in parts if part.condition and part.kind is not Kind.ELEMENT)
    unread = " ".join(part.text for part in parts if part.kind in (Kind.UNREAD, Kind.DENIAL))
    return Reading(access, "; ".join(conditions), unread)


def is_nothing(statement: str) -> bool:
    """Whether a statement is a blank, in words: `-`, `n/a`."""
    said = words.plain(statement).strip()
    return not said.strip("-") or re.sub(r"[\s.]+", "", said) in _vocabulary()["nothing"]


def claims(text: str, year: int, *, surely: bool = False) -> bool:
    """Whether rights are claimed, or freedom is denied, in text of any kind.

    Args:
        text: such as a credit line.
        year: the present one.
        surely: count only words that cannot mean anything else, as `©`; `protected` may be a title's.
    """
    if surely:
        return any(part.sure for part in _parts(text))
    return read(text, year).access is Access.RESTRICTED


def _parts(statement: str) -> list[_Part]:
    return [part for match in _lexer().finditer(words.plain(statement)) if (part := _part(match))]


def _part(match: re.Match[str]) -> _Part | None:
    """What the lexer found; None for what changes nothing."""
    kind, text = str(match.lastgroup), match[0]
    if kind == "address":
        return _at_address(text.rstrip(".,;:)]}'\""))
    if kind == "licence":
        return _licensed(match)
    if kind == "phrase":
        return replace(_phrases()[words.key(text, _GAP)], text=text)
    if kind in ("year", "sign"):
        return _Part(Kind.UNREAD if kind == "sign" and text not in words.NEUTRAL else Kind(kind), text)
    return None if kind in ("tag", "holder") else _Part(Kind.UNREAD, text)


# What a part says beside the others -----------------------------------------------------------------------------------


def _shouted(statement: str) -> frozenset[str]:
    """Words of two capitals among others that are not: `DE` is Germany where `de` is an article."""
    capitals = re.findall(r"\b[A-Z]{2}\b", statement)
    return frozenset() if statement == statement.upper() else frozenset(map(str.lower, capitals))


def _in_context(parts: Sequence[_Part], shouted: frozenset[str]) -> list[_Part]:
    """The parts; those that say nothing without another that is not there are not understood."""
    return [
        each if _is_complete(parts, place) and each.text not in shouted else replace(each, kind=Kind.UNREAD)
        for place, each in enumerate(parts)
    ]


def _is_complete(parts: Sequence[_Part], place: int) -> bool:
    """Whether a part has beside it what it needs to be understood."""
    part, before, after = parts[place], parts[:place], parts[place + 1 :]
    if part.kind is Kind.LABEL or part.text == ":":
        named = next((each for each in reversed(before) if each.text != "-"), None)  # "CC0-Lizenz"
        return _has_value(after) or (part.text in _vocabulary()["licence"]["between"] and _is_open(named))
    if part.kind is Kind.ARTICLE:
        return bool(after) and after[0].kind in _SPOKEN_OF
    if part.kind is Kind.LINK:
        return bool(after) and (after[0].kind is not Kind.SIGN or after[0].text in _OPENING)
    if part.kind is Kind.ELEMENT:
        return any(each.kind is Kind.OPEN and part.condition in each.condition for each in parts)
    # What may stand between freedom and the year in which it began: "public domain (since 2014)".
    told = (each for each in reversed(before) if each.kind not in (Kind.LINK, Kind.SIGN) or each.text == ":")
    return part.kind is not Kind.YEAR or _is_open(next(told, None))


def _has_value(after: Sequence[_Part]) -> bool:
    """Whether `rights` or a colon is followed by freedom, before anything else is spoken of."""
    ends = (each for each in after if each.kind not in _BESIDE or each.text in _SEPARATORS)
    return _is_open(next(ends, None))


def _is_open(part: _Part | None) -> bool:
    return part is not None and part.kind is Kind.OPEN


# Licences -------------------------------------------------------------------------------------------------------------


def _at_address(address: str) -> _Part:
    """A licence or statement by its address; any other address is not understood."""
    found, licence = _ADDRESS.fullmatch(address), _vocabulary()["licence"]
    if found is None:
        return _Part(Kind.UNREAD, address)
    place = re.sub(r"\.org/(page|data)/", ".org/vocab/", found["place"])
    port = found["port"] or ""
    codes = place.removeprefix(f"{licence['address']}/").split("-")
    known = {element["code"] for element in licence["elements"]}
    if place.startswith(licence["address"]) and known.issuperset(codes) and port in ("", *licence["jurisdictions"]):
        return _of_elements(codes, found["version"] or "", port, address)
    return _addresses().get(place, _Part(Kind.UNREAD, address)) if not port else _Part(Kind.UNREAD, address)


def _licensed(match: re.Match[str]) -> _Part:
    """A Creative Commons licence by its code or its name. Codes alone may be other words: `Photo: by-sa`."""
    codes = [_elements()[words.key(found[0], _GAP)] for found in _element().finditer(match[0])]
    part = _of_elements(codes, match["version"] or "", match["port"] or "", match[0])
    return part if match["name"] or match["version"] or part.kind is Kind.CLAIM else _Part(Kind.UNREAD, match[0])


def _of_elements(codes: Iterable[str], version: str, port: str, text: str) -> _Part:
    """A licence of these elements: it sets the condition of each, and restricts if one of them does."""
    elements = [each for each in _vocabulary()["licence"]["elements"] if each["code"] in codes]
    if elements[0]["code"] != "by" and all(each["kind"] == "open" for each in elements):
        return _Part(Kind.UNREAD, text)  # All that are in use ask for attribution, so something is missing here.
    name = " ".join(filter(None, ("CC", "-".join(each["code"] for each in elements), version, port))).upper()
    kind = Kind.CLAIM if any(each["kind"] == "claim" for each in elements) else Kind.OPEN
    return _Part(kind, condition=f"{', '.join(each['condition'] for each in elements)} ({name})")


# The vocabulary -------------------------------------------------------------------------------------------------------


@functools.cache
def _vocabulary() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("statements.toml").read_text(encoding="utf-8"))


@functools.cache
def _phrases() -> dict[str, _Part]:
    """Every phrase by its key. Elements of a licence that restrict do so on their own, too; others need the licence."""
    return {words.key(phrase, _GAP): _said(group) for group in _groups() for phrase in group["words"]}


def _said(group: dict[str, Any]) -> _Part:
    return _Part(Kind(group["kind"]), condition=group.get("condition", ""), sure=group.get("sure", False))


def _groups() -> list[dict[str, Any]]:
    elements = _vocabulary()["licence"]["elements"]
    alone = [each if each["kind"] == "claim" else each | {"kind": "element"} for each in elements]
    return [*alone, *_vocabulary()["phrases"]]


@functools.cache
def _addresses() -> dict[str, _Part]:
    return {address: _said(group) for group in _vocabulary()["phrases"] for address in group.get("addresses", ())}


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
    name = words.any_of((name for each in licence["elements"] for name in each["words"]), _GAP)
    more = rf"(?:{_GAP}{_element().pattern})*"
    number = rf"(?:{_GAP}|/)v?[1-4]\.[05](?!\d)"
    # A jurisdiction ends the name of a licence before 4.0: in "CC BY 3.0 in copyright", "in" is not India.
    ported = rf"(?<=[1-3]\.[05])[\s-]+(?P<port>{port})(?=\s*(?:$|[^\w\s]))"
    version = rf"(?:{_GAP}|/)v?(?P<version>[1-4]\.[05])(?!\d)(?:{ported})?"
    holder = words.any_of(_vocabulary()["holders"], _GAP)
    freed = words.any_of((each for group in _groups() if group["kind"] == "open" for each in group["words"]), _GAP)
    return re.compile(
        r"(?P<address>(?:(?:https?:)?//|www\.)\S+|[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}/\S*)"
        rf"|(?P<licence>(?:(?P<name>{lead}{_GAP}(?:{between}{_GAP})*{_element().pattern}|{name}(?={more}{number})){more}"
        rf"|{code}(?:{_GAP}{code})+(?={number})|{code}(?:-{code})+)(?:{version})?(?:{_GAP}{after})*)"
        rf"|(?P<holder>{holder}\s*:\s*(?={freed}))"  # "Copyright: public domain"; any other is a claim.
        rf"|(?P<phrase>{words.any_of((each for group in _groups() for each in group['words']), _GAP)})"
        r"|(?P<year>(?<!\d)[12][0-9]{3}(?!\w))"
        r"|(?P<tag></?(?:p|br|div|span|b|i|em|strong)\s*/?>)"
        r"|(?P<box>[(\[]\s*[)\]])"  # That which is not ticked.
        r"|(?P<word>[^\W_]+|\.\.+)"
        r"|(?P<sign>\S)"
    )
