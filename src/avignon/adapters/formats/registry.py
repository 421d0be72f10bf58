"""The formats of adapter files, one row each: one program, one module."""

from pathlib import Path
from typing import Any

from avignon.adapters.formats import diffusers

FORMATS = {"diffusers": diffusers}
"""Modules by the name of their format. Each has `WEIGHTS_FILE`, `factors`, `read` and `write`, as diffusers'."""


def find(folder: Path) -> tuple[Any, Path]:
    """The format of the adapter in a folder, by the file that is there, and that file; else diffusers'."""
    there = (module for module in FORMATS.values() if (folder / module.WEIGHTS_FILE).exists())
    module = next(there, diffusers)
    return module, folder / module.WEIGHTS_FILE
