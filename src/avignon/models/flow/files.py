"""What the small files of a transformer's folder must say, checked without torch; for every family of them alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from avignon.core.errors import ModelError
from avignon.models import hub


@dataclass(frozen=True)
class Parts:
    """What the config.json of a base's parts say."""

    label: str
    """The family, for people."""
    folder: Path
    told: Mapping[str, Mapping[str, Any]]
    """By part."""

    @classmethod
    def read(cls, label: str, folder: Path, parts: Iterable[str]) -> Self:
        """Those of a folder; a `ModelError` names the one that is missing or damaged."""
        return cls(label, folder, {part: hub.described(folder / part / "config.json", "incomplete") for part in parts})

    def allow(self, part: str, name: str, default: object, allowed: object) -> None:
        """Refuse a setting that is not the one that is understood; what the file lacks has the library's default.

        Raises:
            ModelError: naming the file, the setting, its value, and what is allowed.
        """
        found = self.told[part].get(name, default)
        if found != allowed:
            expected = "null" if allowed is None else repr(allowed)
            place = self.folder / part / "config.json"
            raise ModelError(
                f"{place}: {name} is {found!r}, and only {expected} is understood here, as in {self.label}"
            )


def check_tokenizer(folder: Path) -> None:
    """Name what the tokenizer of a base lacks.

    Raises:
        ModelError: naming the file.
    """
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / "tokenizer" / name).exists()]
    if missing and not (folder / "tokenizer/tokenizer.json").exists():
        raise ModelError(f"{folder}: incomplete: tokenizer/{missing[0]} is missing")
