"""The formats of adapter files, one row each: one program, one module."""

import importlib
from pathlib import Path
from typing import Any

FORMATS = {"diffusers": "avignon.adapters.formats.diffusers"}
"""Modules by the name of their format. Each has `WEIGHTS_FILE`, `factors`, `read` and `write`, as diffusers'."""


def find(folder: Path) -> tuple[Any, Path]:
    """The format of the adapter in a folder, by the file that is there, and that file; else diffusers'."""
    modules = [importlib.import_module(module) for module in FORMATS.values()]
    known = [module for module in modules if (folder / module.WEIGHTS_FILE).exists()]
    module = (known or modules)[0]
    return module, folder / module.WEIGHTS_FILE
