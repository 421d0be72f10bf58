"""Part 1: the same numbers on the card as on the CPU, on every path that a training or a series can take.

Everything is done by the product's stages on one small model: each trial is a run's folder of its own, and what is
compared is what lies there in the end: the losses of every step, the adapters' tensors, the pictures.
"""

import contextlib
import functools
import gc
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load_file

from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.core import imaging
from avignon.core.events import Event, Reporter, StageProgress, StageWarning
from avignon.core.workspace import Workspace
from avignon.models.base import DiffusionBase
from avignon.recipe.schema import Recipe
from avignon.stages import generate, train
from avignon.training import loop
from avignon.training.dataset import Batch
from avignon.training.objective import denoising_losses
from benchmarks.gpu_parts import data, stage
from benchmarks.gpu_parts.contest import TINY
from benchmarks.gpu_parts.plan import Plan

GOAL = "losses within 1e-3, pictures within 2/255 in fp32; each said number by number"

CPU = torch.device("cpu")
LOSS, PICTURE = 1e-3, 2.0
"""Largest relative difference of a loss, and largest difference of a pixel in 255ths, between two ways in fp32."""
Record = Callable[[str, Any], None]
Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]


SCENE = '{ prompt = "a red sailing boat in the middle, close by, at noon, fine weather" }'
SMALL = ("base.resolution=64", "train.batch=2", "train.ranks={ attention = 4, projection = 4, convolution = 4 }")


class Stopped(Exception):  # noqa: N818 - it stops a training, nothing is wrong
    """Raised from a listener: the training ends between two steps."""


class Trials:
    """Trainings and series of one small model: on the CPU or on the card, in one way or another."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.device = plan, plan.device
        self.steps = 4 if plan.rehearse else 20
        self._common = [
            *(f"train.steps={self.steps}", f"train.checkpoint_every={self.steps}", "train.flip=false"),
            *("train.precision=fp32", "train.attention=sdpa", "train.compile=off", "generate.precision=fp32"),
            *("generate.extra_seeds=0", "generate.stops=3", "generate.spacing=uniform", "generate.strengths={}"),
            *(f"generate.scenes=[{SCENE}]", f"generate.num_inference_steps={2 if plan.rehearse else 10}"),
            *(SMALL if plan.rehearse else ()),
        ]
        self._drawn = data.drawn(self.recipe(), plan.scratch / "drawn", 4)

    def recipe(self, *overrides: str) -> Recipe:
        """The common settings with these changes."""
        return data.recipe_of("agreement", *self._common, *overrides)

    def folder(self, name: str, adapters: Workspace | None = None) -> Workspace:
        """A run's folder, prepared; with another's adapters, where given."""
        space = Workspace(Path(shutil.copytree(self._drawn.root, self.plan.scratch / name)))
        if adapters:
            shutil.copytree(adapters.adapters, space.adapters, dirs_exist_ok=True)
        return space

    def train(
        self,
        to: str | Workspace,
        device: torch.device,
        *overrides: str,
        listener: Callable[[Event], None] = lambda _: None,
    ) -> Workspace:
        """A training; what was compiled for an earlier one is forgotten."""
        torch.compiler.reset()
        gc.collect()  # An earlier model has cycles, and its memory would count against a limit.
        space = to if isinstance(to, Workspace) else self.folder(to)
        with self._on(device):
            train.run(self.recipe(*overrides), space, Reporter("train", listener))
        return space

    @contextlib.contextmanager
    def _on(self, device: torch.device) -> Iterator[None]:
        """The stages on a device; a rehearsal's base is smaller than the miniature that they load otherwise."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(stage.on(device))
            if self.plan.rehearse:
                stack.enter_context(stage.with_random_base(TINY, device))
            yield

    def paint(self, name: str, device: torch.device, adapters: Workspace, *overrides: str) -> Workspace:
        """A series of trained adapters."""
        space = self.folder(name, adapters)
        with self._on(device):
            generate.run(self.recipe(*overrides), space, Reporter("generate", lambda _: None))
        return space

    # What several trials are compared with.

    @cached_property
    def on_cpu(self) -> Workspace:
        """Trained on the CPU in fp32: what all else should come to."""
        return self.train("cpu", CPU)

    @cached_property
    def painted_on_cpu(self) -> Workspace:
        """Its series, painted on the CPU in fp32."""
        return self.paint("cpu-painted", CPU, self.on_cpu)

    @cached_property
    def plain(self) -> Workspace:
        """Trained on the card in fp32, eager, without TF32."""
        return self.train("plain", self.device)

    @cached_property
    def painted(self) -> Workspace:
        """The CPU's adapters, painted on the card in fp32."""
        return self.paint("painted", self.device, self.on_cpu)


# --- Differences ------------------------------------------------------------------------------------------------------


def losses(space: Workspace) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The losses of all adapters at all steps, (adapters, steps)."""
    files = sorted(space.adapters.glob("*/metrics.jsonl"))
    return np.array([[json.loads(line)["loss"] for line in file.read_text().splitlines()] for file in files])


def loss_gap(one: Workspace, other: Workspace) -> float:
    """The largest relative difference of two trainings' losses, NaN where one of them is not finite."""
    a, b = losses(one), losses(other)
    return float(np.max(np.abs(a - b) / np.abs(b)))


def weight_gap(one: Workspace, other: Workspace) -> float:
    """The norm of the difference of two trainings' tensors, as a share of the second's norm."""
    a, b = _tensors(one), _tensors(other)
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def _tensors(space: Workspace) -> torch.Tensor:
    files = sorted(space.adapters.glob(f"*/{WEIGHTS_FILE}"))
    return torch.cat([tensor.double().flatten() for file in files for _, tensor in sorted(load_file(file).items())])


def picture_gap(one: Workspace, other: Workspace) -> dict[str, float]:
    """The largest and the mean difference of the pixels of two series, in 255ths."""
    names = sorted(path.relative_to(one.series) for path in one.series.rglob("*.png"))
    gaps = np.stack([np.abs(_pixels(one.series / name) - _pixels(other.series / name)) for name in names])
    return {"largest": float(gaps.max()), "mean": round(float(gaps.mean()), 4)}


def _pixels(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(imaging.load(path), np.float64)


# --- The rows ---------------------------------------------------------------------------------------------------------


def judged(value: float, limit: float | None, unit: str, **more: Any) -> dict[str, Any]:
    """A row: a difference, and the limit that it is held to; without one it is only reported."""
    met = None if limit is None else bool(value <= limit)  # NaN meets no limit
    return {"value": value, "limit": limit, "met": met, "unit": unit, **more}


def fp32(trials: Trials) -> Rows:
    """The card against the CPU."""
    yield "training fp32, card against CPU: losses", judged(loss_gap(trials.plain, trials.on_cpu), LOSS, "relative")
    yield "training fp32, card against CPU: adapters", judged(weight_gap(trials.plain, trials.on_cpu), None, "relative")
    gap = picture_gap(trials.painted, trials.painted_on_cpu)
    yield "painting fp32, card against CPU", judged(gap["largest"], PICTURE, "of 255", mean=gap["mean"])


def compiler(trials: Trials) -> Rows:
    """Whether torch's compiler works here at all, on a layer of its own."""
    if trials.device.type == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        yield "compiler", {"skipped": "no C++ compiler"}
        return
    start, layer = time.monotonic(), torch.nn.Linear(8, 8).to(trials.device)
    x = torch.randn(4, 8, device=trials.device)
    gap = (torch.compile(layer)(x) - layer(x)).abs().max()
    yield "compiler: one layer", judged(float(gap), LOSS, "absolute", seconds=round(time.monotonic() - start, 1))


def compiled(trials: Trials, precision: str = "fp32", *more: str) -> Rows:
    """Compiled blocks against eager ones."""
    fixed = [f"train.precision={precision}", *more]
    name = " ".join(["compiled", precision, *(each.rpartition(".")[2] for each in more)])
    eager = trials.plain if fixed == ["train.precision=fp32"] else trials.train(f"{name} eager", trials.device, *fixed)
    counters = torch._dynamo.utils.counters
    counters.clear()
    with traced_only() if trials.plan.rehearse else contextlib.nullcontext():
        space = trials.train(name, trials.device, *fixed, "train.compile=on")
    limit = LOSS if precision == "fp32" else None
    graphs = {"graphs": counters["stats"]["unique_graphs"], "graph breaks": sum(counters["graph_break"].values())}
    yield f"{name} against eager: losses", judged(loss_gap(space, eager), limit, "relative", **graphs)


@contextlib.contextmanager
def traced_only() -> Iterator[None]:
    """Blocks are traced and differentiated as for the compiler, but run by PyTorch: code for a CPU takes minutes."""
    traced = functools.partialmethod(torch.nn.Module.compile, backend="aot_eager")
    with mock.patch.object(torch.nn.Module, "compile", traced):
        yield


def low_precision(trials: Trials, precision: str) -> Rows:
    """A 16-bit precision on the card against fp32 on the CPU: reported, and judged only by being finite."""
    if precision == "fp16" and trials.device.type == "cpu":
        yield f"training {precision}", {"skipped": "a CPU does not train in fp16"}
        return
    space = trials.train(precision, trials.device, f"train.precision={precision}")
    finite = bool(np.isfinite(losses(space).astype(float)).all())
    gap = loss_gap(space, trials.on_cpu)
    yield f"training {precision} against fp32 on the CPU: losses", {**judged(gap, None, "relative"), "met": finite}
    painted = trials.paint(f"{precision}-painted", trials.device, trials.on_cpu, f"generate.precision={precision}")
    pictures = picture_gap(painted, trials.painted_on_cpu)
    yield (
        f"painting {precision} against fp32 on the CPU",
        judged(pictures["largest"], None, "of 255", mean=pictures["mean"]),
    )


def tf32(trials: Trials) -> Rows:
    """TF32 in convolutions and matrix products against neither."""
    if trials.device.type == "cpu":
        yield "TF32", {"skipped": "a CPU has none"}
        return
    plain, painted = trials.plain, trials.painted
    with tensor_cores(True):
        space = trials.train("tf32", trials.device)
        series = trials.paint("tf32-painted", trials.device, trials.on_cpu)
    yield "training with TF32 against without: losses", judged(loss_gap(space, plain), None, "relative")
    gap = picture_gap(series, painted)
    yield "painting with TF32 against without", judged(gap["largest"], None, "of 255", mean=gap["mean"])


@contextlib.contextmanager
def tensor_cores(allowed: bool) -> Iterator[None]:
    """TF32 in fp32's products, or not: torch's default allows it in convolutions alone."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def xformers(trials: Trials) -> Rows:
    """XFormers against PyTorch's own attention."""
    if trials.device.type == "cpu" or importlib.util.find_spec("xformers") is None:
        yield "xFormers against SDPA", {"skipped": "not installed" if trials.device.type != "cpu" else "needs a card"}
        return
    space = trials.train("xformers", trials.device, "train.attention=xformers")
    yield "xFormers against SDPA: losses", judged(loss_gap(space, trials.plain), LOSS, "relative")


def one_by_one(trials: Trials) -> Rows:
    """Two adapters in one pass of the base against one after the other; then pictures in one batch against alone."""
    space = trials.train("apart", trials.device, "train.together=false")
    yield "two adapters in one pass against one by one: losses", judged(loss_gap(trials.plain, space), LOSS, "relative")
    alone = trials.paint("alone", trials.device, trials.on_cpu, "generate.batch=1")
    gap = picture_gap(trials.painted, alone)
    yield "pictures of different weights in one batch against alone", judged(gap["largest"], PICTURE, "of 255")


def checkpointing(trials: Trials) -> Rows:
    """Activations computed again in the backward pass against kept ones."""
    space = trials.train("checkpointing", trials.device, "train.gradient_checkpointing=true")
    yield "gradient checkpointing against none: losses", judged(loss_gap(space, trials.plain), LOSS, "relative")


def resumed(trials: Trials) -> Rows:
    """A training that was stopped and went on against one that was not; the same bits where algorithms are fixed."""
    half = trials.steps // 2
    fixed = ["train.deterministic=true", f"train.checkpoint_every={half}"]
    whole = trials.train("whole", trials.device, *fixed)
    space = trials.folder("resumed")

    def stop(event: Event) -> None:
        if isinstance(event, StageProgress) and event.done == half + 1:
            raise Stopped

    with contextlib.suppress(Stopped):
        trials.train(space, trials.device, *fixed, listener=stop)
    stopped_at = max(int(path.stem.removeprefix("step-")) for path in space.adapters.rglob("step-*.pt"))
    trials.train(space, trials.device, *fixed)
    equal = bool(torch.equal(_tensors(space), _tensors(whole)))
    row = judged(weight_gap(space, whole), 0.0, "relative", equal_bits=equal, stopped_at=stopped_at)
    yield "resumed against uninterrupted, deterministic: adapters", row


def ladder(trials: Trials) -> Rows:
    """Memory runs out, less is done at once, and the losses stay."""
    wide = ["train.batch=4", "train.steps=3"] if trials.plan.rehearse else ["train.batch=16", "train.steps=4"]
    if trials.device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    whole = trials.train("wide", trials.device, *wide)
    peak = torch.cuda.max_memory_reserved() if trials.device.type == "cuda" else 0
    for share in (0.6, 0.4, 0.28, 0.2, 0.14):
        told: list[str] = []
        heard = partial(_out_of_memory, told)
        with limited(trials.device, share, peak):
            try:
                space = trials.train(f"ladder-{share}", trials.device, *wide, listener=heard)
            except torch.OutOfMemoryError:
                yield (
                    f"out of memory at {share:.0%} of what it takes",
                    {"rungs": told, "note": "too little for any step"},
                )
                return
        if told:
            row = judged(loss_gap(space, whole), LOSS, "relative", rungs=told)
            yield f"out of memory at {share:.0%} of what it takes: losses", row
        if any("images per pass" in each for each in told):
            return


def _out_of_memory(told: list[str], event: Event) -> None:
    if isinstance(event, StageWarning) and "out of memory" in event.text:
        told.append(event.text.partition("out of memory: going on with ")[2])


@contextlib.contextmanager
def limited(device: torch.device, share: float, peak: int) -> Iterator[None]:
    """So much of what a training took before; a CPU, which has no such limit, counts samples instead."""
    if device.type == "cpu":
        with mock.patch.object(loop, "denoising_losses", partial(_narrow, 8 * share)):
            yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(share * peak / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def _narrow(most: float, base: DiffusionBase, batch: Batch) -> torch.Tensor:
    if len(batch.index) > most:
        raise RuntimeError("DefaultCPUAllocator: not enough memory (a limit of the rehearsal)")
    return denoising_losses(base, batch)


def dora(trials: Trials) -> Rows:
    """DoRA, trained and painted."""
    reference = trials.train("dora-cpu", CPU, "train.dora=true")
    space = trials.train("dora", trials.device, "train.dora=true")
    yield "DoRA fp32, card against CPU: losses", judged(loss_gap(space, reference), LOSS, "relative")
    pictures = [
        trials.paint(f"dora-painted-{each}", each, reference)
        for each in (trials.device, CPU)[: 1 + (trials.device != CPU)]
    ]
    gap = picture_gap(pictures[0], pictures[-1])
    yield "DoRA painted fp32, card against CPU", judged(gap["largest"], PICTURE, "of 255", mean=gap["mean"])


WAYS: tuple[Callable[[Trials], Rows], ...] = (
    fp32,
    partial(low_precision, precision="fp16"),
    partial(low_precision, precision="bf16"),
    one_by_one,
    checkpointing,
    resumed,
    ladder,
    dora,
    xformers,
    tf32,
    compiler,
    compiled,
)
"""In this order: what compiles comes last, because a first compilation takes longest."""

ON_A_CARD = (
    partial(compiled, precision="fp16"),
    lambda trials: compiled(trials, "fp16", "train.gradient_checkpointing=true"),
)
"""What `auto` takes on a card."""


def measure(plan: Plan, record: Record) -> None:
    """Every way; one that fails stands in the results with its error, and the others go on.

    Raises:
        RuntimeError: some could not be compared.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for what runs deterministically, before cuBLAS starts
    trials, failed = Trials(plan), []
    with tensor_cores(False):
        for way in (*WAYS, *(() if plan.rehearse else ON_A_CARD)):
            name = getattr(getattr(way, "func", way), "__name__", "way")
            try:
                for key, row in way(trials):
                    record(key, row)
            except Exception as error:  # noqa: BLE001 - the others are worth knowing all the same
                failed.append(name)
                record(f"{name}", {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]})
    if failed:
        raise RuntimeError(f"{len(failed)} of the comparisons failed: {', '.join(failed)}")


def rows(results: dict[str, Any]) -> str:
    """One line for each comparison."""
    lines = ["| compared | difference | limit | |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *(_row(key, row) for key, row in results.items())])


def _row(key: str, row: dict[str, Any]) -> str:
    if note := row.get("error") or row.get("skipped") or row.get("note"):
        return f"| {key} | | | {'failed: ' if 'error' in row else ''}{note} |"
    more = {k: v for k, v in row.items() if k not in {"value", "limit", "met", "unit"}}
    said = {True: "met", False: "**not met**", None: "reported"}[row["met"]]
    limit = "" if row["limit"] is None else f"{row['limit']:g}"
    details = "; ".join(f"{k.replace('_', ' ')} {', '.join(v) if isinstance(v, list) else v}" for k, v in more.items())
    return f"| {key} | {row['value']:.3g} {row['unit']} | {limit} | {said}{'; ' + details if details else ''} |"
