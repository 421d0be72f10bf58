"""Part 3: training at the size of Stable Diffusion 2.1, against the common way, on one card.

Contestants are those of `benchmarks/train.py`, in one process: they are built once, their batch and checkpointing are
changed between two combinations, and they take turns where the card holds them side by side. Combinations come in the
order of what the goals ask for; those for which the time does not suffice are named.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from avignon.models.runtime import Precision, precision_for
from avignon.recipe.schema import Recipe, Train
from avignon.training.setup import RuntimeConfig
from benchmarks import train
from benchmarks.gpu_parts.contest import (
    NOT_FIT,
    Budget,
    Footprint,
    attempt,
    base_of,
    compiled,
    figure,
    forget_compiled,
    free,
    given_up,
    is_roomy,
    memory_cell,
    ratio,
    recipe_of,
    rounds,
    table,
    tf32,
    verdict,
)
from benchmarks.gpu_parts.plan import Plan

GOAL = (
    "≥ 1.8 × the common way in the same precision; ≥ 45 % of the matrix peak at the best batch; "
    "≤ 5.5 GB at batch 1 with checkpointing, ≤ 12 GB at batch 4"
)

Record = Callable[[str, Any], None]
Combination = tuple[int, bool]
"""Batch, and whether there is checkpointing."""

TOGETHER, ONE = "avignon, two in one pass", "avignon, one by one"
SAME, DEFAULT = "common way, same precision", "common way, fp32 (its default)"
WAYS = {TOGETHER: "together", ONE: "avignon", SAME: "common", DEFAULT: "common"}

GROUPS: list[tuple[tuple[str, ...], list[Combination]]] = [
    ((TOGETHER, SAME, DEFAULT), [(4, False), (4, True), (1, True), (1, False), (8, False), (8, True)]),
    ((ONE, SAME), [(4, False), (1, True), (8, False)]),
]
"""Who takes turns, in which combinations: the goals first. A change of the batch is what has blocks compiled anew."""

REHEARSED: list[tuple[tuple[str, ...], list[Combination]]] = [
    ((TOGETHER, SAME, DEFAULT), [(1, False), (2, True)]),
    ((ONE, SAME), [(1, False)]),
]

ROUNDS, TURN, MOST_STEPS = 5, 0.4, 10
"""Rounds; seconds that a turn should take, and the most steps of one."""


@dataclass
class Entrant:
    """A contestant on the card."""

    contestant: train.Contestant
    footprint: Footprint
    flops: float | None = None
    """Of one image, without checkpointing: what is computed a second time is no use of the card."""
    steps: int = 0
    losses: list[float] = field(default_factory=list)

    def take(self, steps: int, choices: Train) -> torch.Tensor:
        """Some steps; returns the last one's loss."""
        numbers = range(self.steps, self.steps + steps)
        self.steps += steps
        return train.steps_of(self.contestant, numbers, choices)


def measure(plan: Plan, record: Record) -> None:
    """Every combination that there is time for."""
    race = _Race(plan, record)
    groups = REHEARSED if plan.rehearse else GROUPS
    if not race.alternating:
        groups = [((way,), combinations) for ways, combinations in groups for way in ways]
    waiting = [(ways, combination) for ways, combinations in groups for combination in combinations]
    record("left_out", [_told(*one) for one in waiting])
    for ways, combinations in groups:
        entrants = race.enter(ways)
        for combination in combinations:
            if entrants and race.run(entrants, ways, combination):
                waiting.remove((ways, combination))
                record("left_out", [_told(*one) for one in waiting])
        entrants.clear()
        free()


def _told(ways: Sequence[str], combination: Combination) -> str:
    batch, checkpointing = combination
    return f"batch {batch} {'with' if checkpointing else 'without'} checkpointing ({'; '.join(ways)})"


class _Race:
    def __init__(self, plan: Plan, record: Record) -> None:
        self._plan, self._record, self._budget = plan, record, Budget(plan)
        self.alternating = is_roomy(plan.device)
        self._precision = precision_for("auto", "train", plan.device)
        self._examples = train.examples_in(plan.scratch, recipe_of(plan).base.resolution)
        self._batch = 0
        self._results: list[dict[str, Any]] = []
        self._built: dict[str, Any] = {}
        self._flops: dict[str, float | None] = {}
        sizes = (256,) if plan.rehearse else ()
        precisions: set[Precision] = {self._precision, "fp32"}
        self._peaks = {each: train.matrix_peak(each, plan.device, sizes) for each in sorted(precisions)}
        config = RuntimeConfig.for_device(self._settings(TOGETHER), plan.device)
        facts = {"precision": self._precision, "attention": config.attention, "compiled": config.compiled}
        record("setting", {**facts, "tf32": tf32(), "peaks": self._peaks, "alternating": self.alternating})

    def _settings(self, way: str) -> Recipe:
        """Without checkpointing, which is switched on and off later."""
        fixed = ["train.batch=1", "train.gradient_checkpointing=false", f"train.precision={self._precision_of(way)}"]
        return recipe_of(self._plan, *fixed)

    def _precision_of(self, way: str) -> Precision:
        return "fp32" if way == DEFAULT else self._precision

    def enter(self, ways: Sequence[str]) -> dict[str, Entrant | None]:
        """Build contestants, where there is time to build and to run them; None is one that does not fit."""
        if not self._budget.allows("build", 15):
            return {}
        self._batch = 0  # New contestants have nothing compiled.
        return self._budget.spend("build", lambda: {way: attempt(partial(self._entrant, way)) for way in ways})

    def _entrant(self, way: str) -> Entrant:
        settings, device = self._settings(way), self._plan.device
        footprint, start = Footprint(device), time.monotonic()
        made = footprint.keeps(lambda: train.WAYS[WAYS[way]](base_of(self._plan), settings, self._examples, device))
        entrant, taken = Entrant(made, footprint), time.monotonic() - start
        whose = "common" if WAYS[way] == "common" else "avignon"  # An image's are the same in a pass of one's own.
        if whose not in self._flops:
            step = partial(entrant.take, 1, settings.train)
            flops = footprint.keeps(lambda: attempt(lambda: train.flops_of(step)))
            self._flops[whose] = flops and flops / train.images_of(WAYS[way], 1)
        entrant.flops = self._flops[whose]
        self._built[way] = {"seconds": taken, "flops_per_image": entrant.flops}
        self._record("built", self._built)
        return entrant

    def run(self, entrants: dict[str, Entrant | None], ways: Sequence[str], combination: Combination) -> bool:
        """One combination; False where the time does not suffice for it."""
        batch, checkpointing = combination
        kind = "the batch before" if batch == self._batch else "another batch"
        if not self._budget.allows(kind, 10 if batch == self._batch else 20):
            return False
        if batch != self._batch:
            forget_compiled()
            self._batch = batch
        self._budget.spend(kind, lambda: self._combination(entrants, ways, batch, checkpointing))
        return True

    def _combination(
        self, entrants: dict[str, Entrant | None], ways: Sequence[str], batch: int, checkpointing: bool
    ) -> None:
        found: dict[str, Any] = {way: dict(NOT_FIT) for way in ways}
        self._results.append({"batch": batch, "checkpointing": checkpointing, "ways": found})
        before: dict[str, Callable[[], Any]] = {}
        turns: dict[str, Callable[[], Any]] = {}
        for way in ways:
            entrant = entrants[way]
            choices = self._settings(way).train.model_copy(update={"batch": batch})
            if entrant is None or (warm := attempt(partial(self._warm, entrant, choices, checkpointing))) is None:
                continue
            found[way], steps = warm
            before[way], turns[way] = (partial(entrant.take, many, choices) for many in (1, steps))
            found[way]["images"] = train.images_of(WAYS[way], batch) * steps
            self._record("runs", self._results)
        self._results[-1]["compiled"] = compiled()
        count = 1 if self._plan.rehearse else ROUNDS
        seconds = rounds(turns, count, self._plan.device, self._budget.is_over, before=before)
        for way, taken in seconds.items():
            images, entrant = found[way].pop("images"), entrants[way]
            rates = [images / each for each in taken]
            rate, peak = statistics.median(rates), self._peaks[self._precision_of(way)]
            share = entrant.flops * rate / peak if entrant and entrant.flops else None
            found[way] |= {"rates": rates, "images_per_second": rate, "share": share}
        for way in ways[1:]:
            if "rates" in found[way] and "rates" in found[ways[0]]:
                found[way]["first_is"] = ratio(found[ways[0]]["rates"], found[way]["rates"])
        self._record("runs", self._results)

    def _warm(self, entrant: Entrant, choices: Train, checkpointing: bool) -> tuple[dict[str, Any], int]:
        """The first step, which compiles, then one for its memory and one for its time; how many make a turn."""
        denoiser, device = entrant.contestant.denoiser, self._plan.device
        (denoiser.enable_gradient_checkpointing if checkpointing else denoiser.disable_gradient_checkpointing)()
        step = partial(entrant.take, 1, choices)
        first = entrant.footprint.keeps(lambda: train.seconds_of(step, device))
        memory = entrant.footprint.peak(step)
        taken = train.seconds_of(step, device)
        loss = float(step())
        steps = 1 if self._plan.rehearse else min(max(math.ceil(TURN / taken), 1), MOST_STEPS)
        facts = {"first_step_seconds": first, "memory": memory, "loss": loss if math.isfinite(loss) else None}
        return facts, steps


# --- The page ---------------------------------------------------------------------------------------------------------


def rows(results: dict[str, Any]) -> str:
    """The section of the page."""
    setting, runs = results.get("setting"), results.get("runs", [])
    lines = []
    if setting:
        peaks = ", ".join(f"{precision} {peak / 1e12:.3g}" for precision, peak in setting["peaks"].items())
        turns = "Contestants took turns." if setting["alternating"] else "One after the other: the card is too small."
        lines += [
            f"avignon in {setting['precision']}, attention {setting['attention']}, blocks "
            f"{'compiled' if setting['compiled'] else 'not compiled'}. Matrix peak, TFLOP/s: {peaks}. TF32 in fp32: "
            f"products {_yes(setting['tf32']['products'])}, convolutions {_yes(setting['tf32']['convolutions'])}.",
            f"{turns} Medians of rounds. FLOPs are those without checkpointing: a second computation is no use of "
            "the card. Memory is that of tensors at the peak of a step (GB: 10⁹ bytes), in brackets what the allocator",
            "asked for; the CUDA context is not in it.",
            "",
        ]
    head = ("batch", "checkpointing", "way", "images/s", "share of the peak", "memory, GB", "first step, s")
    ratios = "the first is"
    lines += table([*head, ratios], [line for run in runs for line in _lines(run)])
    lines += ["", *_verdicts(runs), *given_up(runs)]
    if results.get("left_out"):
        lines += ["", "The time did not suffice for " + "; ".join(results["left_out"]) + "."]
    return "\n".join(lines) + "\n"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _lines(run: dict[str, Any]) -> list[list[str]]:
    place = [str(run["batch"]), "on" if run["checkpointing"] else "off"]
    return [[*place, way, *_cells(found)] for way, found in run["ways"].items()]


def _cells(found: dict[str, Any]) -> list[str]:
    if found.get("state"):
        return [found["state"], "–", "–", "–", "–"]
    return [
        figure(found.get("images_per_second"), ".3g"),
        figure(found.get("share"), ".0%"),
        memory_cell(found["memory"]),
        figure(found["first_step_seconds"], ".1f"),
        figure(found.get("first_is"), ".2f") + (" ×" if "first_is" in found else ""),
    ]


def _verdicts(runs: list[dict[str, Any]]) -> list[str]:
    found: dict[Combination, dict[str, Any]] = {}
    for run in runs:
        measured = {way: own for way, own in run["ways"].items() if "memory" in own}
        place = found.setdefault((run["batch"], run["checkpointing"]), {})
        place |= {way: own for way, own in measured.items() if way not in place}
    ratios = {where: value for where, ways in found.items() if (value := _ratio(ways))}
    shares = [
        (ways[way]["share"], *where)
        for where, ways in found.items()
        for way in (TOGETHER, ONE)
        if ways.get(way, {}).get("share")
    ]
    best = max(shares, default=None)
    return [
        verdict(
            "≥ 1.8 × the common way in the same precision",
            "; ".join(f"{value:.2f} × at {_named(*where)}" for where, value in ratios.items()),
            met=min(ratios.values()) >= 1.8 if ratios else None,
        ),
        verdict(
            "≥ 45 % of the matrix peak at the best batch",
            f"{best[0]:.0%} at {_named(*best[1:])}" if best else "",
            met=best[0] >= 0.45 if best else None,
        ),
        _memory(found.get((1, True), {}), 1, 5.5),
        _memory(found.get((4, True), {}), 4, 12.0),
    ]


def _ratio(ways: dict[str, Any]) -> float | None:
    """How many times as fast as the common way two in one pass are; of medians, where they did not take turns."""
    ours, theirs = (ways.get(way, {}) for way in (TOGETHER, SAME))
    if "images_per_second" not in ours or "images_per_second" not in theirs:
        return None
    return float(theirs.get("first_is", ours["images_per_second"] / theirs["images_per_second"]))


def _memory(ways: dict[str, Any], batch: int, goal: float) -> str:
    """Of avignon's ways with checkpointing, which the recipe has."""
    sizes = {way: ways[way]["memory"]["allocated"] / 1e9 for way in (TOGETHER, ONE) if ways.get(way, {}).get("memory")}
    named = "; ".join(f"{size:.2f} GB, {way.removeprefix('avignon, ')}" for way, size in sizes.items())
    met = max(sizes.values()) <= goal if sizes else None
    return verdict(f"≤ {goal:g} GB at batch {batch} with checkpointing", named, met=met)


def _named(batch: int, checkpointing: bool) -> str:
    return f"batch {batch}" + (" with checkpointing" if checkpointing else "")
