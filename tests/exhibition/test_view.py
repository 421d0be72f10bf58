"""The contract between the view and its templates: all that a template asks for is there, and all there is is shown."""

import dataclasses
import re
from importlib import resources
from typing import Any

from jinja2 import Environment, nodes

from avignon.core.records import Frame, Origin, Source
from avignon.evaluation import report
from avignon.exhibition import view
from tests.support.exhibition import card, recipe_of, row

TEMPLATES = resources.files("avignon.exhibition") / "templates"


def fields_of(kind: type) -> set[str]:
    """Names of a dataclass's fields and properties."""
    properties = {name for name, value in vars(kind).items() if isinstance(value, property)}
    return {field.name for field in dataclasses.fields(kind)} | properties


def keys_of(value: Any) -> set[str]:
    """All keys of nested dictionaries."""
    return set(value) | {key for own in value.values() for key in keys_of(own)} if isinstance(value, dict) else set()


def read_by_templates() -> set[str]:
    """Every attribute that the page and its macros read, with those that filters name."""
    names = set()
    for name in ("page.html", "macros.html"):
        tree = Environment(autoescape=True).parse((TEMPLATES / name).read_text(encoding="utf-8"))
        names |= {node.attr for node in tree.find_all(nodes.Getattr)}
        names |= {node.value.value for node in tree.find_all(nodes.Keyword) if node.key == "attribute"}  # type: ignore[attr-defined]
    return names


VIEW = [kind for kind in vars(view).values() if isinstance(kind, type) and kind.__module__ == view.__name__]
MEASURED = [kind for kind in vars(report).values() if isinstance(kind, type) and kind.__module__ == report.__name__]


def test_templates_read_only_what_is_there() -> None:
    """Each attribute is a field of the view, of a record or ledger row in it, of a card, or Python's or Jinja's own."""
    known = set().union(*map(fields_of, (*VIEW, *MEASURED, Frame, Source, Origin)))
    known |= row(1, "").keys() | keys_of(card(recipe_of(), "joint"))
    known |= {"combined", "items", "get", "partition", "split", "format", "last", "index"}
    assert read_by_templates() - known == set()


def test_all_of_the_view_is_read() -> None:
    """A field that no template reads is not carried along."""
    unread = {(kind.__name__, name) for kind in VIEW for name in fields_of(kind) - read_by_templates()}
    assert unread == set()


def test_script_and_style_are_plain_files() -> None:
    """What is inlined holds nothing of a template, so that a linter or a server can take the same files."""
    for name in ("page.js", "page.css", "contact_sheet.css"):
        assert not re.search(r"\{\{|\{%|\{#|</", (TEMPLATES / name).read_text(encoding="utf-8")), name
