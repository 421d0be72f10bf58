"""Finished adapters as a user has them: folders with weights and a card, made on a base that is in the checkout."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.paths import FIXTURES

BASE = FIXTURES / "finished-run" / "base"
"""The base on which the adapters of the finished runs were trained; its pictures have 64 pixels a side."""

RUN = FIXTURES / "finished-run-2" / "workspace" / "dialogue"

AVIGNON, ATLANTIC = "the-avignon-painter", "the-atlantic-painter"


def saved(
    folder: Path, name: str = AVIGNON, *, model: str = str(BASE), base: Mapping[str, Any] | None = None, **card: Any
) -> Path:
    """A finished adapter in `folder`, whose card names a base in the checkout; `base` and `card` replace values."""
    place = folder / name
    shutil.copytree(RUN / "adapters" / name, place, ignore=shutil.ignore_patterns("checkpoints"))
    told = json.loads((place / "card.json").read_text(encoding="utf-8"))
    told["recipe"]["base"]["model"] = model
    told = {**told, **card, "base": {**told["base"], **(base or {})}}
    (place / "card.json").write_text(json.dumps(told), encoding="utf-8")
    return place
