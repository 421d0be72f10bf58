"""What a statement of rights says, word by word. Pure: the year is an argument.

A statement counts as understood only if all of its words are. So what is not in the vocabulary (a reservation, another
language, a slip of the pen) can make an image unknown, but never free. The vocabulary is data: `statements.toml`.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from avignon.core.records import Access
from avignon.museums import words

_vocabulary = functools.partial(words.vocabulary, "statements.toml")

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


_BESIDE = frozenset({"note", "link", "article", "label", "element", "sign"})
"""What may stand between `rights` and what they are."""

_SPOKEN_OF = frozenset({"note", "article", "label", "open", "claim", "denial", "doubt"})
"""What an article may stand before."""


@dataclass(frozen=True)
class _Part:
    """A piece of a statement."""

    kind: str
    """What it does: a group of `statements.toml` by its name, or `element`, `year`, `sign` or `unread`."""
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
    parts = _in_context(statement)
    kinds = [part.kind for part in parts]
    until_open = len(kinds) - kinds[::-1].index("open") if "open" in kinds else 0
    later = any(re.fullmatch(r"[12]\d{3}", part.text) and int(part.text) > year for part in parts)
    if "claim" in kinds or "denial" in kinds[:until_open] or (until_open and later):
        access = Access.RESTRICTED
    elif not until_open or {"unread", "doubt", "denial"}.intersection(kinds):
        access = Access.UNKNOWN
    else:
        access = Access.OPEN
    conditions = dict.fromkeys(part.condition for part in parts if part.condition and part.kind != "element")
    unread = " ".join(part.text for part in parts if part.kind in ("unread", "denial"))
    return Reading(access, "; ".join(conditions), unread)


def is_nothing(statement: str) -> bool:
    """Whether a statement is a blank, in words: `-`, `n/a`."""
    said = words.plain(statement).strip()
    return not said.strip("-") or re.sub(r"[\s.]+", "", said) in _vocabulary()["nothing"]


def claims(text: str, year: int, *, surely: bool = False) -> bool:
    """Whether rights are claimed, or freedom is denied, in text of any kind, as a credit line.

    `surely` counts only words that cannot mean anything else, as `©`; `protected` may be a title's.
    """
    if surely:
        return any(part.sure for part in _parts(text))
    return read(text, year).access is Access.RESTRICTED


def _parts(statement: str) -> Iterator[_Part]:
    """The pieces of a statement, without those that change nothing."""
    for match in _lexer().finditer(words.plain(statement)):
        kind, text = str(match.lastgroup), match[0]
        if kind == "address":
            yield _at_address(text.rstrip(".,;:)]}'\""))
        elif kind == "licence":
            yield _licensed(match)
        elif kind == "phrase":
            yield replace(_phrases()[words.key(text, _GAP)], text=text)
        elif kind == "year" or (kind == "sign" and text in words.NEUTRAL):
            yield _Part(kind, text)
        elif kind not in ("tag", "holder"):
            yield _Part("unread", text)


def _in_context(statement: str) -> list[_Part]:
    """The parts; those that say nothing without another that is not there are not understood.

    Nor are words of two capitals among others that are not: `DE` is Germany where `de` is an article.
    """
    parts = list(_parts(statement))
    capitals = re.findall(r"\b[A-Z]{2}\b", statement) if statement != statement.upper() else ()
    shouted = {word.lower() for word in capitals}
    known = [_is_complete(parts, place) and each.text not in shouted for place, each in enumerate(parts)]
    return [each if is_known else replace(each, kind="unread") for each, is_known in zip(parts, known, strict=True)]


def _is_complete(parts: Sequence[_Part], place: int) -> bool:
    """Whether a part has beside it what it needs to be understood."""
    part, before, after = parts[place], parts[:place], parts[place + 1 :]
    if part.kind == "label" or part.text == ":":  # Freedom follows, before anything else is spoken of.
        named = (each.kind for each in reversed(before) if each.text != "-")
        value = (each.kind for each in after if each.kind not in _BESIDE or each.text in _SEPARATORS)
        is_behind = part.text in _vocabulary()["licence"]["between"] and next(named, "") == "open"  # "CC0-Lizenz"
        return next(value, "") == "open" or is_behind
    if part.kind == "article":
        return bool(after) and after[0].kind in _SPOKEN_OF
    if part.kind == "link":
        return bool(after) and (after[0].kind != "sign" or after[0].text in _OPENING)
    if part.kind == "element":
        return any(each.kind == "open" and part.condition in each.condition for each in parts)
    # What may stand between freedom and the year in which it began: "public domain (since 2014)".
    told = (each.kind for each in reversed(before) if each.kind not in ("link", "sign") or each.text == ":")
    return part.kind != "year" or next(told, "") == "open"


def _at_address(address: str) -> _Part:
    """A licence or statement by its address; any other address is not understood."""
    found, licence, unread = _ADDRESS.fullmatch(address), _vocabulary()["licence"], _Part("unread", address)
    if found is None:
        return unread
    place = re.sub(r"\.org/(page|data)/", ".org/vocab/", found["place"])
    port = found["port"] or ""
    codes = place.removeprefix(f"{licence['address']}/").split("-")
    known = {element["code"] for element in licence["elements"]}
    if place.startswith(licence["address"]) and known.issuperset(codes) and port in ("", *licence["jurisdictions"]):
        return _of_elements(codes, found["version"] or "", port, address)
    groups = _vocabulary()["phrases"] if not port else ()
    return next((_said(group) for group in groups if place in group.get("addresses", ())), unread)


def _licensed(match: re.Match[str]) -> _Part:
    """A Creative Commons licence by its code or its name. Codes alone may be other words: `Photo: by-sa`."""
    element, known = _elements()
    codes = [known[words.key(found[0], _GAP)] for found in element.finditer(match[0])]
    part = _of_elements(codes, match["version"] or "", match["port"] or "", match[0])
    return part if match["name"] or match["version"] or part.kind == "claim" else _Part("unread", match[0])


def _of_elements(codes: Iterable[str], version: str, port: str, text: str) -> _Part:
    """A licence of these elements: it sets the condition of each, and restricts if one of them does."""
    elements = [each for each in _vocabulary()["licence"]["elements"] if each["code"] in codes]
    if elements[0]["code"] != "by" and all(each["kind"] == "open" for each in elements):
        return _Part("unread", text)  # All that are in use ask for attribution, so something is missing here.
    name = " ".join(filter(None, ("CC", "-".join(each["code"] for each in elements), version, port))).upper()
    kind = "claim" if any(each["kind"] == "claim" for each in elements) else "open"
    return _Part(kind, condition=f"{', '.join(each['condition'] for each in elements)} ({name})")


@functools.cache
def _phrases() -> dict[str, _Part]:
    """Every phrase by its key. Elements of a licence that restrict do so on their own, too; others need the licence."""
    return {words.key(phrase, _GAP): _said(group) for group in _groups() for phrase in group["words"]}


def _said(group: dict[str, Any]) -> _Part:
    return _Part(group["kind"], condition=group.get("condition", ""), sure=group.get("sure", False))


def _groups() -> list[dict[str, Any]]:
    elements = _vocabulary()["licence"]["elements"]
    alone = [each if each["kind"] == "claim" else each | {"kind": "element"} for each in elements]
    return [*alone, *_vocabulary()["phrases"]]


@functools.cache
def _elements() -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern for the names and codes of a licence's elements, and their codes by the keys of both."""
    elements = _vocabulary()["licence"]["elements"]
    codes = {name: each["code"] for each in elements for name in (each["code"], *each["words"])}
    return re.compile(words.any_of(codes, _GAP)), {words.key(name, _GAP): code for name, code in codes.items()}


@functools.cache
def _lexer() -> re.Pattern[str]:
    """What a statement is made of; the first group that fits is taken, and one fits every sign."""
    licence = _vocabulary()["licence"]
    lists = ("leads", "between", "after", "jurisdictions")
    lead, between, after, port = (words.any_of(licence[each], _GAP) for each in lists)
    code = words.any_of((each["code"] for each in licence["elements"]), _GAP)
    name = words.any_of((name for each in licence["elements"] for name in each["words"]), _GAP)
    element = _elements()[0].pattern
    more = rf"(?:{_GAP}{element})*"
    number = rf"(?:{_GAP}|/)v?[1-4]\.[05](?!\d)"
    # A jurisdiction ends the name of a licence before 4.0: in "CC BY 3.0 in copyright", "in" is not India.
    ported = rf"(?<=[1-3]\.[05])[\s-]+(?P<port>{port})(?=\s*(?:$|[^\w\s]))"
    version = rf"(?:{_GAP}|/)v?(?P<version>[1-4]\.[05])(?!\d)(?:{ported})?"
    holder = words.any_of(_vocabulary()["holders"], _GAP)
    freed = words.any_of((each for group in _groups() if group["kind"] == "open" for each in group["words"]), _GAP)
    return re.compile(
        r"(?P<address>(?:(?:https?:)?//|www\.)\S+|[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}/\S*)"
        rf"|(?P<licence>(?:(?P<name>{lead}{_GAP}(?:{between}{_GAP})*{element}|{name}(?={more}{number})){more}"
        rf"|{code}(?:{_GAP}{code})+(?={number})|{code}(?:-{code})+)(?:{version})?(?:{_GAP}{after})*)"
        rf"|(?P<holder>{holder}\s*:\s*(?={freed}))"  # "Copyright: public domain"; any other is a claim.
        rf"|(?P<phrase>{words.any_of((each for group in _groups() for each in group['words']), _GAP)})"
        r"|(?P<year>(?<!\d)[12][0-9]{3}(?!\w))"
        r"|(?P<tag></?(?:p|br|div|span|b|i|em|strong)\s*/?>)"
        r"|(?P<box>[(\[]\s*[)\]])"  # That which is not ticked.
        r"|(?P<word>[^\W_]+|\.\.+)"
        r"|(?P<sign>\S)"
    )
