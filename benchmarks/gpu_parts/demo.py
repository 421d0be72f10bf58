"""Part 2: the demo on the card, from its prepared dataset: the stages from `train` to `exhibit`, as they are."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from avignon.core import imaging
from avignon.core.events import Event, Reporter, StageNote, StageWarning
from avignon.core.files import read_json
from avignon.core.workspace import Workspace
from avignon.recipe.schema import Recipe
from avignon.stages import evaluate, exhibit, generate, train
from benchmarks.gpu_parts import data, stage
from benchmarks.gpu_parts.plan import Plan

GOAL = "`train` and `generate` of the demo's recipe: seconds; the page looks as the CPU's does"

SMALL = ("base.resolution=64", "train.steps=3", "train.batch=2", "generate.num_inference_steps=2", "generate.stops=2",
         "generate.extra_seeds=0", "generate.spacing=uniform")  # fmt: skip
"""What the rehearsal changes; the model stays the demo's."""

STAGES = {"train": train.run, "generate": generate.run, "evaluate": evaluate.run, "exhibit": exhibit.run}


def measure(plan: Plan, record: Callable[[str, Any], None]) -> None:
    """Seconds of each stage, what it said, how the adapters ended, and pictures to look at."""
    recipe = data.recipe_of("demo", *(SMALL if plan.rehearse else ()))
    space = workspace(plan, recipe)
    said: list[str] = []
    seconds: dict[str, float] = {}
    with stage.on(plan.device):
        for name, run in STAGES.items():
            start = time.monotonic()
            run(recipe, space, Reporter(name, lambda event: _hear(said, event)))
            seconds[name] = round(time.monotonic() - start, 2)
            record("seconds", seconds)
            record("said", said)
            if name == "generate":
                record("pictures", _keep(plan, recipe, space))
    record("report", _report(space))
    shutil.copy(space.page, plan.scratch.parents[1] / "demo-page.html")


def workspace(plan: Plan, recipe: Recipe) -> Workspace:
    """The prepared dataset; a rehearsal without one draws its own."""
    if plan.rehearse and not (plan.data / "demo").exists():
        return data.drawn(recipe, plan.scratch / "demo", 3)
    return data.workspace(plan.data, "demo", plan.scratch)


def _hear(said: list[str], event: Event) -> None:
    if isinstance(event, StageNote | StageWarning):
        said.append(f"{event.stage}: {event.text}")


def _keep(plan: Plan, recipe: Recipe, space: Workspace) -> dict[str, Any]:
    """All scenes and stops as one picture beside the results, for a person to look at."""
    scenes = sorted(folder for folder in space.series.iterdir() if folder.is_dir())
    grid = [[np.asarray(imaging.load(file)) for file in _stops(folder)] for folder in scenes]
    Image.fromarray(np.vstack([np.hstack(row) for row in grid])).save(plan.scratch.parents[1] / "demo-series.png")
    made = len(list(space.series.rglob("*.png")))
    return {"made": made, "shown": sum(map(len, grid)), "edge": recipe.base.resolution, "file": "demo-series.png"}


def _stops(folder: Path) -> list[Path]:
    """The pictures of a scene's first seed."""
    return [file for file in sorted(folder.glob("*.png")) if "-seed-" not in file.name]


def _report(space: Workspace) -> dict[str, Any]:
    """The adapters' last losses."""
    cards = {folder.name: read_json(folder / "card.json") for folder in sorted(space.adapters.iterdir())}
    return {name: {"final_loss": card["metrics"]["final_loss"], "seconds": card["metrics"]["seconds"],
                   "precision": card["environment"]["precision"]} for name, card in cards.items()}  # fmt: skip


def rows(results: dict[str, Any]) -> str:
    """Seconds of the stages, and what was said."""
    lines = ["| stage | seconds |", "| --- | --- |"]
    lines += [f"| {name} | {seconds:.1f} |" for name, seconds in results.get("seconds", {}).items()]
    if pictures := results.get("pictures"):
        made = f"{pictures['made']} pictures of {pictures['edge']} pixels were made"
        lines += ["", f"{made}; `{pictures['file']}` beside the results shows {pictures['shown']} of them."]
    for name, card in results.get("report", {}).items():
        lines += [
            "",
            f"{name}: final loss {card['final_loss']:.4f} in {card['precision']}, {card['seconds']:.1f} s of steps.",
        ]
    return "\n".join(lines)
