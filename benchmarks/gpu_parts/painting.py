"""Part 4: painting at the size of Stable Diffusion 2.1, against diffusers, on one card.

Everyone has the same two adapters of random change on the same base, in the same precision, and paints whole
pictures, decoding included. All frames of a batch have the same weights, as diffusers needs it, but those of `MIXED`.
The product does not compile the denoiser to paint. Here one of its painters is given a denoiser with compiled blocks.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from avignon.adapters.layers import inner
from avignon.core.events import Reporter
from avignon.core.records import Frame
from avignon.generation.sampler import ImageSampler
from avignon.models.runtime import DTYPES, attention_for, precision_for
from benchmarks import generate, train
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

GOAL = "≥ 3 × diffusers one by one; ≥ 40 % of the matrix peak"

Record = Callable[[str, Any], None]

THEIRS, BATCHED = "diffusers, one by one", "diffusers, one batch"
OURS, COMPILED, MIXED = "avignon", "avignon, compiled blocks", "avignon, other weights in each picture"

COMBINATIONS = [
    (8, (THEIRS, BATCHED, OURS)),
    (16, (THEIRS, OURS, COMPILED)),
    (4, (THEIRS, BATCHED, OURS, COMPILED)),
    (1, (THEIRS, OURS, COMPILED)),
    (8, (THEIRS, COMPILED)),
    (16, (THEIRS, BATCHED)),
    (8, (THEIRS, MIXED)),
]
"""Batches, and who takes turns: what the goals ask for first. diffusers one by one takes turns of one picture."""

REHEARSED = [(2, (THEIRS, BATCHED, OURS, COMPILED)), (2, (THEIRS, MIXED))]

STEPS, ROUNDS = 30, 3


@dataclass
class Painter:
    """A contestant on the card."""

    paint: Callable[[Sequence[Frame]], Any]
    footprint: Footprint
    notes: list[Any]
    """What it said; a painter that halves its batch says so."""
    paint_together: Callable[[Sequence[Frame]], Any] | None = None
    """diffusers' other way."""


def measure(plan: Plan, record: Record) -> None:
    """Every batch that there is time for."""
    studio = _Studio(plan, record)
    combinations: list[tuple[int, tuple[str, ...]]] = [*(REHEARSED if plan.rehearse else COMBINATIONS)]
    if not studio.alternating:  # In an order in which each painter is made once.
        in_turn = (OURS, MIXED, THEIRS, BATCHED, COMPILED)
        pairs = ((batch, way) for way in in_turn for batch, ways in combinations if way in ways)
        combinations = [(batch, (way,)) for batch, way in dict.fromkeys(pairs)]
    waiting = list(combinations)
    record("left_out", [_told(*one) for one in waiting])
    for batch, ways in combinations:
        if studio.run(batch, ways):
            waiting.remove((batch, ways))
            record("left_out", [_told(*one) for one in waiting])


def _told(batch: int, ways: Sequence[str]) -> str:
    return f"batch {batch} ({'; '.join(ways)})"


class _Studio:
    def __init__(self, plan: Plan, record: Record) -> None:
        self._plan, self._record, self._budget = plan, record, Budget(plan)
        self.alternating = is_roomy(plan.device)
        self._precision = precision_for("auto", "generate", plan.device)
        self._painters: dict[str, Painter | None] = {}
        self._results: list[dict[str, Any]] = []
        self._built: dict[str, Any] = {}
        self._steps = 2 if plan.rehearse else STEPS
        self._peak = train.matrix_peak(self._precision, plan.device, (256,) if plan.rehearse else ())
        self._flops: float | None = None
        """Of a picture: what the base and the decoder compute."""
        facts = {"precision": self._precision, "attention": attention_for("auto", plan.device), "steps": self._steps}
        record("setting", {**facts, "tf32": tf32(), "peak": self._peak, "alternating": self.alternating})

    def run(self, batch: int, ways: Sequence[str]) -> bool:
        """One batch; False where the time does not suffice for it."""
        kind = "compiled" if COMPILED in ways else "not compiled"
        if not self._budget.allows(kind, 25 if COMPILED in ways else 15):
            return False
        self._budget.spend(kind, lambda: self._batch(batch, ways))
        return True

    def _batch(self, batch: int, ways: Sequence[str]) -> None:
        forget_compiled()
        found: dict[str, Any] = {way: dict(NOT_FIT) for way in ways}
        self._results.append({"batch": batch, "ways": found})
        turns: dict[str, Callable[[], Any]] = {}
        for way in ways:
            painter, frames = self._painter(way), self._frames(way, batch)
            if painter is None or (warm := attempt(partial(self._warm, painter, frames))) is None or painter.notes:
                continue
            found[way] = warm
            turns[way] = partial(painter.paint, frames)
            self._record("runs", self._results)
        self._results[-1]["compiled"] = compiled()
        seconds = rounds(turns, 1 if self._plan.rehearse else ROUNDS, self._plan.device, self._budget.is_over)
        for way, taken in seconds.items():
            rates = [len(self._frames(way, batch)) / each for each in taken]
            rate = statistics.median(rates)
            share = rate * self._flops / self._peak if self._flops else None
            found[way] |= {"rates": rates, "pictures_per_second": rate, "share": share}
            if way != ways[0] and "rates" in found[ways[0]]:
                found[way]["faster"] = ratio(rates, found[ways[0]]["rates"])
        self._record("runs", self._results)

    def _warm(self, painter: Painter, frames: Sequence[Frame]) -> dict[str, Any]:
        """Two steps, which compile; then two whose memory is measured."""
        painter.notes.clear()
        few = [replace(frame, num_inference_steps=2) for frame in frames]
        first = painter.footprint.keeps(lambda: train.seconds_of(partial(painter.paint, few), self._plan.device))
        return {"first_call_seconds": first, "memory": painter.footprint.peak(partial(painter.paint, few))}

    def _frames(self, way: str, batch: int) -> list[Frame]:
        """Pictures of one turn: scenes and seeds at the middle of the way, or stops along it."""
        settings = recipe_of(self._plan)
        if way == MIXED:
            return generate.frames_of(settings, settings.adapter_names, batch, self._steps)[:: generate.SCENES]
        stops = generate.frames_of(settings, settings.adapter_names, 3, self._steps)
        middle = stops[generate.SCENES : 2 * generate.SCENES]
        return [replace(middle[k % len(middle)], seed=k) for k in range(1 if way == THEIRS else batch)]

    def _painter(self, way: str) -> Painter | None:
        """The painter of a way, made once; None where it does not fit."""
        kind = {BATCHED: THEIRS, MIXED: OURS}.get(way, way)
        if kind not in self._painters:
            if not self.alternating:
                self._painters.clear()
                free()
            start = self._plan.left
            self._painters[kind] = attempt(partial(self._made, kind))
            self._built[kind] = {"seconds": start - self._plan.left}
            self._record("built", self._built)
        painter = self._painters[kind]
        if way == BATCHED and painter and painter.paint_together:
            return replace(painter, paint=painter.paint_together)
        return painter

    def _made(self, kind: str) -> Painter:
        device, notes = self._plan.device, list[Any]()
        footprint = Footprint(device)
        recipe = recipe_of(self._plan, "generate.batch=256")
        base = footprint.keeps(lambda: base_of(self._plan))

        def adapted() -> None:
            base.pipeline.to(DTYPES[self._precision])
            for seed, name in enumerate(recipe.adapter_names):
                generate.put_on(base.denoiser, name, seed)
            base.denoiser.requires_grad_(False)

        footprint.keeps(adapted)
        if kind == THEIRS:
            theirs = generate.Theirs(base.pipeline, inner)
            return Painter(theirs.paint, footprint, notes, theirs.paint_together)
        if kind == COMPILED:  # On a CPU traced alone: machine code for it takes minutes.
            with_ = {"backend": "eager"} if device.type == "cpu" else {}
            base.denoiser.compile_repeated_blocks(dynamic=False, **with_)
        reporter = Reporter("generate", lambda event: notes.append(event) if event.kind == "note" else None)
        sampler = ImageSampler(base, recipe, device, reporter)
        footprint.keeps(lambda: base.denoiser.to(device))
        if kind == OURS:
            self._flops = self._count(sampler)
            self._record("flops_per_picture", self._flops)
        return Painter(sampler.paint, footprint, notes)

    def _count(self, sampler: ImageSampler) -> float | None:
        """FLOPs of a picture, by those of one step, of two, and of what is done once."""
        frame = self._frames(THEIRS, 1)[0]

        def of(steps: int) -> int:
            return train.flops_of(partial(sampler.paint, [replace(frame, num_inference_steps=steps)]))

        sampler.paint([replace(frame, num_inference_steps=1)])  # Texts are encoded once.
        counted = attempt(lambda: (of(1), of(2)))
        return counted and counted[0] + (self._steps - 1) * (counted[1] - counted[0])


# --- The page ---------------------------------------------------------------------------------------------------------


def rows(results: dict[str, Any]) -> str:
    """The section of the page."""
    setting, runs = results.get("setting"), results.get("runs", [])
    lines = []
    if setting:
        turns = "Painters took turns." if setting["alternating"] else "One after the other: the card is too small."
        flops = results.get("flops_per_picture")
        lines += [
            f"{setting['steps']} guided steps and decoding, all in {setting['precision']} but avignon's decoding, in "
            f"fp32; attention {setting['attention']}. Matrix peak: {setting['peak'] / 1e12:.3g} TFLOP/s; "
            f"a picture is {figure(flops, '.3g', 1e-12)} TFLOP, counted of avignon.",
            f"{turns} Medians of rounds. Memory is that of tensors at the peak of two steps and decoding (10⁹",
            "bytes), in brackets what the allocator asked for.",
            "The product does not compile the denoiser to paint: that row is a trial.",
            "",
        ]
    head = ("batch", "way", "pictures/s", "share of the peak", "memory, GB", "first call of 2 steps, s", "× one by one")
    lines += table(head, [[str(run["batch"]), way, *_cells(own)] for run in runs for way, own in run["ways"].items()])
    lines += ["", *_verdicts(runs), *given_up(runs)]
    if results.get("left_out"):
        lines += ["", "The time did not suffice for " + "; ".join(results["left_out"]) + "."]
    return "\n".join(lines) + "\n"


def _cells(found: dict[str, Any]) -> list[str]:
    if found.get("state"):
        return [found["state"], "–", "–", "–", "–"]
    return [
        figure(found.get("pictures_per_second"), ".3g"),
        figure(found.get("share"), ".0%"),
        memory_cell(found["memory"]),
        figure(found["first_call_seconds"], ".1f"),
        figure(found.get("faster"), ".2f"),
    ]


def _verdicts(runs: list[dict[str, Any]]) -> list[str]:
    """Of the product as it is, and of the trial with compiled blocks beside it."""
    lines = []
    one_by_one = [own["pictures_per_second"] for run in runs for own in _measured(run, THEIRS)]
    for way in (OURS, COMPILED):
        ratios = [
            (own.get("faster", own["pictures_per_second"] / max(one_by_one)), run["batch"])
            for run in runs
            for own in _measured(run, way)
            if one_by_one
        ]
        shares = [(own["share"], run["batch"]) for run in runs for own in _measured(run, way) if own["share"]]
        fastest, fullest = max(ratios, default=None), max(shares, default=None)
        lines += [
            verdict(
                f"{way}: ≥ 3 × diffusers one by one",
                f"{fastest[0]:.2f} × at batch {fastest[1]}" if fastest else "",
                met=fastest[0] >= 3 if fastest else None,
            ),
            verdict(
                f"{way}: ≥ 40 % of the matrix peak",
                f"{fullest[0]:.0%} at batch {fullest[1]}" if fullest else "",
                met=fullest[0] >= 0.4 if fullest else None,
            ),
        ]
    return lines


def _measured(run: dict[str, Any], way: str) -> list[dict[str, Any]]:
    return [own for name, own in run["ways"].items() if name == way and "pictures_per_second" in own]
