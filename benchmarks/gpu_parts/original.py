"""Part 5: the original project's job, whole: 31 pictures, two adapters, 1,200 steps at batch 4, 36 pictures.

The recipe is `atlantic-to-avignon`, with the embedded museum's 14 and 17 works in place of Homer's and Picasso's, and
Stable Diffusion 2.1's architecture with random weights in place of the real ones: no figure of time or memory depends
on what is in a picture or a weight. Where the time ends first, what was reached is there, step by step.
"""

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from avignon.core.events import Event, Reporter, StageNote, StageProgress, StageWarning
from avignon.core.workspace import Workspace
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe
from avignon.stages import generate, train
from benchmarks.gpu_parts import data, stage
from benchmarks.gpu_parts.contest import ROOMY, architecture_of
from benchmarks.gpu_parts.plan import Plan

GOAL = "31 pictures at 512², two adapters, 1,200 steps at batch 4, 36 pictures in 30 steps: ≤ 90 s of training"

LEARNED = 90.0
"""Seconds that the training should take at most; the original took about 15 minutes."""

SMALL = ("train.steps=3", "train.warmup=1", "train.batch=2", "train.ranks.attention=4", "generate.stops=2",
         "generate.num_inference_steps=2", "train.precision=fp32", "base.resolution=64")  # fmt: skip
"""What the rehearsal changes."""


def recipe_of(plan: Plan) -> Recipe:
    """The original's job on the embedded museum's works."""
    is_roomy = not plan.rehearse and torch.cuda.get_device_properties(plan.device).total_memory >= ROOMY
    changes = [*(SMALL if plan.rehearse else ()), *(["train.gradient_checkpointing=false"] if is_roomy else [])]
    job = load_recipe(data.ROOT / "recipes/atlantic-to-avignon.toml", changes)
    own = data.recipe_of("original", *(SMALL if plan.rehearse else ()))
    return own.model_copy(update={"train": job.train, "generate": job.generate, "seed": job.seed})


class Timeline:
    """What the stages tell, and when."""

    def __init__(self, record: Callable[[str, Any], None]) -> None:
        self._record, self._start, self._written = record, time.monotonic(), 0.0
        self.said: list[str] = []
        self._marks: dict[str, dict[str, float]] = {}

    def hear(self, event: Event) -> None:
        """Note when a stage began to work and how far it is; written once a second, so that it costs nothing."""
        now = time.monotonic() - self._start
        marks = self._marks.setdefault(event.stage, {})
        if isinstance(event, StageNote | StageWarning):
            self.said.append(f"{event.stage}: {event.text}")
            marks["ready"] = now  # The last line before the first step says what is trained.
        elif isinstance(event, StageProgress):
            marks.setdefault("first", now)
            marks.setdefault("first_done", event.done)
            marks |= {"last": now, "done": event.done, "total": event.total}
        if now - self._written > 1:
            self.write()

    def stage(self, name: str, run: Callable[[Reporter], None]) -> None:
        """One stage, from start to end."""
        self._start = time.monotonic()
        self._written = 0.0
        run(Reporter(name, self.hear))
        self._marks.setdefault(name, {})["end"] = time.monotonic() - self._start
        self.write()

    def write(self) -> None:
        """Record all marks, in seconds since their stage began."""
        self._written = time.monotonic() - self._start
        self._record("said", self.said)
        for name, marks in self._marks.items():
            self._record(name, {key: round(value, 3) for key, value in marks.items()})


def measure(plan: Plan, record: Callable[[str, Any], None]) -> None:
    """Train and paint; seconds, and the card's peak memory in each."""
    recipe = recipe_of(plan)
    settings = recipe.train
    record("job", {"pictures": [artist.works for artist in recipe.artists], "steps": settings.steps,
                   "batch": settings.batch, "gradient_checkpointing": settings.gradient_checkpointing,
                   "painted": len(recipe.generate.scenes) * recipe.generate.stops})  # fmt: skip
    space, timeline = workspace(plan, recipe), Timeline(record)
    with stage.on(plan.device), stage.with_random_base(architecture_of(plan), plan.device) as made:
        for name, run in (("train", train.run), ("generate", generate.run)):
            if plan.device.type == "cuda":
                gc.collect()  # What an earlier stage has left.
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            timeline.stage(name, lambda reporter, run=run: run(recipe, space, reporter))  # type: ignore[misc]
            record(f"{name}, base made", round(made[-1], 3))
            if plan.device.type == "cuda":
                record(f"{name}, peak bytes", {"allocated": torch.cuda.max_memory_allocated(),
                                               "reserved": torch.cuda.max_memory_reserved()})  # fmt: skip


def workspace(plan: Plan, recipe: Recipe) -> Workspace:
    """The prepared pictures; a rehearsal draws its own, as small as its model."""
    if plan.rehearse:
        return data.drawn(recipe, plan.scratch / "original", 3)
    return data.workspace(plan.data, "original", plan.scratch)


def rows(results: dict[str, Any]) -> str:
    """The job step by step; what was not reached says so."""
    job, lines = results.get("job", {}), ["| step | seconds | |", "| --- | --- | --- |"]
    if marks := results.get("train"):
        lines += _training(marks, results)
    if marks := results.get("generate"):
        lines += _painting(marks, results)
    else:
        lines.append("| paint | | **not reached** |")
    for name in ("train", "generate"):
        if peak := results.get(f"{name}, peak bytes"):
            lines.append(f"| {name}: peak memory | | {peak['allocated'] / 1e9:.1f} GB allocated, "
                         f"{peak['reserved'] / 1e9:.1f} GB reserved |")  # fmt: skip
    on = "on" if job.get("gradient_checkpointing") else "off"
    return "\n".join([*lines, "", f"Gradient checkpointing {on}. " + " · ".join(results.get("said", [])[:2])])


def _training(marks: dict[str, float], results: dict[str, Any]) -> list[str]:
    """Encoded, stepped, saved; the total is without the base, which a real run loads from its disk."""
    made, ready = results.get("train, base made", 0.0), marks.get("ready", 0.0)
    lines = [f"| make the base | {made:.1f} | random weights |", f"| encode | {ready - made:.1f} | |"]
    if "last" not in marks:
        return [*lines, "| steps | | **none was reported** |"]
    compiled = f"the first {marks['first_done']:.0f}, with compilation: {marks['first'] - ready:.1f} s"
    reached = "" if marks["done"] == marks["total"] else f"**{marks['done']:.0f} of {marks['total']:.0f} steps**; "
    lines.append(f"| steps | {marks['last'] - ready:.1f} | {reached}{compiled} |")
    if "end" in marks:
        total = marks["end"] - made
        met = "met" if total <= LEARNED else "**not met**"
        lines.append(f"| save and verify | {marks['end'] - marks['last']:.1f} | |")
        lines.append(f"| **training in all** | **{total:.1f}** | goal {LEARNED:.0f}: {met} |")
    return lines


def _painting(marks: dict[str, float], results: dict[str, Any]) -> list[str]:
    if "end" in marks:
        made = results.get("generate, base made", 0.0)
        return [
            f"| paint {marks['total']:.0f} pictures | {marks['end'] - made:.1f} | adapters loaded, effects measured |"
        ]
    return [
        f"| paint | {marks.get('last', 0.0):.1f} | **{marks.get('done', 0):.0f} pictures** when the time was over |"
    ]
