"""What is wrong with a recipe, in one line: the field, its value, and what is allowed."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from textwrap import shorten
from typing import Any, get_args

from pydantic import ValidationError

from avignon.core.settings import Section
from avignon.museums.registry import MUSEUMS
from avignon.recipe.schema import Recipe

_BRANCHES = (*(row.kind for row in MUSEUMS), "int", "constrained-int", "str")
"""What pydantic adds to a field's place: which kind of value it tried. No key of a recipe is called so."""


def explain(invalid: ValidationError) -> str:
    """The first error in one line, with how many more there are."""
    found = invalid.errors(include_url=False)
    # A list with a faulty item also counts as too short: what is wrong inside it says more.
    places = {other["loc"][:length] for other in found for length in range(len(other["loc"]))}
    errors = [error for error in found if error["loc"] not in places]
    unknown = [error for error in errors if error["type"] == "extra_forbidden"]
    error = (unknown or errors)[0]  # A misspelt key explains the field that seems to be missing.
    place = [part for part in error["loc"] if part not in _BRANCHES]
    field = ".".join(str(part) for part in place)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 and not unknown else ""
    return f"{field or 'recipe'}: {_complaint(error, place)}{more}"


def _complaint(error: Mapping[str, Any], place: Sequence[int | str]) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown_key(place)
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] == "union_tag_invalid":
        return f"kind {error['ctx']['tag']!r} is not allowed; it is {error['ctx']['expected_tags']}"
    if error["type"] in ("missing", "value_error"):
        return message
    if error["type"] == "too_short":
        return f"{error['ctx']['actual_length']} given, at least {error['ctx']['min_length']} are needed"
    if place[:1] == ["generate"] and len(place) > 2 and isinstance(error["input"], dict):
        return f'{place[-1]!r} is a table here; a name with a dot needs quotation marks, as "style_v1.5"'
    if error["type"] in _SHAPES:
        return f"{shorten(repr(error['input']), 80)} is not allowed; should be {_SHAPES[error['type']]}"
    return f"{error['input']!r} is not allowed; {message.removeprefix('input ')}"


_SHAPES = {
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dict_type": "a table",
    "tuple_type": "a list (a list of tables is written with double brackets, as [[artists]])",
}
"""What the schema's own words for a wrong shape mean in TOML."""


def _unknown_key(place: Sequence[int | str]) -> str:
    sections = _sections_at(place[:-1])
    renamed = [new for section in sections for new, old in section.formerly.items() if old == place[-1]]
    if renamed:
        return f"this key is called {renamed[0]!r} now"
    known = list(dict.fromkeys(key for section in sections for key in section.model_fields))
    nearest = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
    return f"no such key; did you mean {nearest[0]!r}?" if nearest else f"no such key; allowed are {', '.join(known)}"


def _sections_at(place: Sequence[int | str]) -> list[type[Section]]:
    """What a table may be at a place such as `("artists", 0, "museum")`."""
    sections: list[type[Section]] = [Recipe]
    for part in place:
        if isinstance(part, str):
            sections = [child for s in sections if part in s.model_fields for child in _sections_in(s, part)]
    return sections


def _sections_in(section: type[Section], key: str) -> Iterable[type[Section]]:
    pending = [section.model_fields[key].annotation]
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield annotation
        pending.extend(get_args(annotation))
