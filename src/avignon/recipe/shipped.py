"""The recipes that travel with the package, by name."""

import re
from pathlib import Path

_LABEL = re.compile(r"# ([A-Z][a-z ]*[a-z]) {2,}(.+)")
"""A line of a recipe's head that begins a part, such as `# Cost           some minutes on two CPU cores`."""


def shipped() -> dict[str, Path]:
    """Files by name. An installed package has them inside itself, a checkout beside `src`."""
    package = Path(__file__).parents[1]
    folder = package / "recipes"
    if not folder.is_dir():
        folder = package.parents[1] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem)}


def summary(path: Path) -> dict[str, str]:
    """The labelled parts of the comment that a recipe begins with: `What it does`, `Cost` and others."""
    parts: dict[str, str] = {}
    label = ""
    for line in path.read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines():
        if started := _LABEL.fullmatch(line):
            label, parts[started[1]] = started[1], started[2]
        elif label:
            parts[label] += " " + line.lstrip("# ")
    return parts
