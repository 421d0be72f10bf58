"""`gpu.md`, written from the parts' files.

python -m benchmarks.gpu_parts.page FOLDER PAGE
"""

import argparse
import importlib
from pathlib import Path
from typing import Any

from avignon.core.files import read_json, write_text
from benchmarks.gpu_parts import PARTS

NOT_MEASURED = "**Not measured on a GPU.**"

Part = dict[str, Any]


def page(folder: Path) -> str:
    """The page, Markdown, of all parts' files in a folder."""
    found = {name: read_json(folder / f"{name}.json") for name in PARTS if (folder / f"{name}.json").exists()}
    measured = {name: part for name, part in found.items() if part.get("card")}
    lines = [
        "# Everything on a graphics card",
        "",
        "[`docs/GPU.md`](../GPU.md) says what each part measures, and how to run it.",
        "",
    ]
    if measured:
        lines += _machine(next(iter(measured.values())))
    else:
        dates = sorted(part["date"] for part in found.values() if part.get("date"))
        rehearsed = f" Rehearsed on a CPU with tiny models on {dates[-1][:10]}:" if dates else ""
        lines += [f"{NOT_MEASURED}{rehearsed} no figure of it is shown, because none means anything for a card.", ""]
    lines += ["| part | goal | state |", "| --- | --- | --- |"]
    lines += [_row(name, found.get(name)) for name in PARTS]
    for name, part in measured.items():
        lines += ["", f"## {name.capitalize()}", "", *_section(name, part)]
    return "\n".join(lines) + "\n"


def _machine(part: Part) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in part["versions"].items() if number)
    card = f"{part['card']}, {part['memory'] / 2**30:.0f} GiB, compute capability {part['capability']}"
    when = part["date"][:10] + (f", commit {part['commit']}" if part["commit"] else "")
    return [
        f"{card}, driver {part['driver']}; {versions}; {when}.",
        "",
        f"    {part['command']}",
        "",
    ]


def _row(name: str, part: Part | None) -> str:
    try:
        goal = module_of(name).GOAL
    except Exception as failed:  # noqa: BLE001 - a part that cannot be imported has said so in its file
        goal = f"({type(failed).__name__} on import)"
    if part is None:
        return f"| {name} | {goal} | not run |"
    state = part["state"] + (f": {_cell(part['error'])}" if part["error"] else "")
    took = f", {part['seconds']:.0f} s" if part.get("card") else ""
    return f"| {name} | {goal} | {state}{took} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _section(name: str, part: Part) -> list[str]:
    state = [] if part["state"] == "done" else [f"This part is not complete ({part['state']}).", ""]
    try:
        return [*state, module_of(name).rows(part["results"]).strip()]
    except Exception as failed:  # noqa: BLE001 - one part's results, cut short, must not cost the others' page
        return [
            *state,
            f"What was recorded cannot be shown ({type(failed).__name__}: {failed}); it is in `{name}.json`.",
        ]


def module_of(name: str) -> Any:
    """A part's module."""
    return importlib.import_module(f"benchmarks.gpu_parts.{name}")


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("page", type=Path)
    asked = parser.parse_args()
    write_text(asked.page, page(asked.folder))


if __name__ == "__main__":
    main()
