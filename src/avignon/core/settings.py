"""A table of settings: what pydantic checks, and what hashes take of it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


def placed(path: str, info: ValidationInfo) -> str:
    """A path made absolute: relative ones are relative to the recipe, whose folder is the context of validation."""
    return str((info.context / Path(path).expanduser()).resolve()) if path and info.context else path


UserPath = Annotated[str, AfterValidator(placed)]

ABSENT = object()
"""In `Section.schema_1`: a field that avignon 0.1.0 did not have."""


class Section(BaseModel):
    """A table of the recipe: frozen, strictly typed, no unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    schema_1: ClassVar[Mapping[str, Any]] = {}
    """What schema 1 had for fields that are at their default: another default, or nothing (`ABSENT`)."""
    formerly: ClassVar[Mapping[str, str]] = {}
    """Names that fields had before, by the names that they have now. Hashes keep the former ones, so that a new name
    changes no identity; in a recipe a former name is an error that names the new one."""

    def chosen(self, *fields: str, exclude: Iterable[str] = ()) -> dict[str, Any]:
        """The values that differ from the defaults, JSON-ready, of some fields or of all."""
        dumped = self.model_dump(mode="json", exclude_defaults=True, include=set(fields) or None, exclude=set(exclude))
        formerly: dict[str, Any] = _formerly(self, dumped)
        return formerly

    def as_in_schema_1(self, *fields: str, exclude: Iterable[str] = ()) -> dict[str, Any]:
        """All values as avignon 0.1.0 hashed them; a newer field counts where it has not its default."""
        dumped = self.model_dump(mode="json", include=set(fields) or None, exclude=set(exclude))
        told = {name: _as_in_schema_1(getattr(self, name), value) for name, value in dumped.items()}
        for name, default in self.schema_1.items():
            if name in told and getattr(self, name) == type(self).model_fields[name].default:
                told |= {name: default}
        return {self.formerly.get(name, name): value for name, value in told.items() if value is not ABSENT}


def _formerly(value: Any, dumped: Any) -> Any:
    """`dumped`, the JSON of `value`, with the names that the fields of sections in it had before."""
    if isinstance(value, Section):
        return {value.formerly.get(name, name): _formerly(getattr(value, name), each) for name, each in dumped.items()}
    if isinstance(value, tuple):
        return [_formerly(one, each) for one, each in zip(value, dumped, strict=True)]
    return dumped


def _as_in_schema_1(value: Any, dumped: Any) -> Any:
    """`dumped` as it is, but for the sections in it."""
    if isinstance(value, Section):
        return value.as_in_schema_1()
    if isinstance(value, tuple):
        return [_as_in_schema_1(one, other) for one, other in zip(value, dumped, strict=True)]
    return dumped
