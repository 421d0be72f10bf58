"""Part 6: one training step and one denoising step under torch's profiler, and what their figures say to do next.

The training step is the product's: two adapters in one pass, blocks compiled where `auto` compiles them. What is read
is the profiler's trace (Chrome's format), of which the categories `kernel`, `gpu_memcpy` and `gpu_memset` are the
device's, `cuda_runtime` and `cuda_driver` the host's calls. On a CPU operators stand for kernels.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from avignon.adapters.mix import mixing
from avignon.models.runtime import DTYPES, attention_for, precision_for
from benchmarks import generate, train
from benchmarks.gpu_parts.contest import base_of, free, recipe_of, table
from benchmarks.gpu_parts.plan import Plan

GOAL = "the ten largest kernels, launch gaps and host waits of a training step and a denoising step; what to do next"

BATCH = 4
STEP = "the step"
"""The profiler's mark of what is looked at."""

DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
HOST = {"cuda_runtime", "cuda_driver"}
WAITS = re.compile(r"cu(da)?(Stream|Device|Event|Ctx)Synchronize|cu(da)?Memcpy(DtoH)?")
"""Calls that return only when the device has done its work; copies whose name has `Async` are looked at themselves."""

KINDS = {
    "attention": r"flash|fmha|attention|attn|sdpa|softmax",
    "layout": r"nchw_?to_?nhwc|nhwc_?to_?nchw|transpose",
    "matrix product": r"gemm|cutlass|xmma|conv|wgrad|dgrad|fprop|nvjet|addmm|\bmm\b|bmm|linear|cublas|splitk|matmul",
    "norm": r"norm|moments|gammabeta|welford",
    "copy or cast": r"copy|cast|memcpy|memset|fill|\bcat\b|catarray|_to_copy",
    "optimizer": r"adam|multi_tensor",
    "elementwise": r"elementwise|triton_poi|vectorized|add|mul|div|silu|gelu|sigmoid|reduce|triton_red|triton_per",
}
"""Kernels by their names, the first that fits; others are `other`."""

Record = Callable[[str, Any], None]
Event = dict[str, Any]


def measure(plan: Plan, record: Record) -> None:
    """A denoising step, then a training step, whose first one compiles."""
    for name, made in (("denoising", _denoising), ("training", _training)):
        with ExitStack() as stack:
            facts, step = made(plan, stack)
            for _ in range(3):
                step()
            record(name, {**facts, **profiled(step, plan.device, plan.scratch)})
            del step
        free()


def _denoising(plan: Plan, stack: ExitStack) -> tuple[dict[str, Any], Callable[[], Any]]:
    """One guided step of `BATCH` pictures, as `ImageSampler.denoise` takes it, with adapters folded in."""
    device, recipe = plan.device, recipe_of(plan)
    precision = precision_for("auto", "generate", device)
    base = base_of(plan)
    base.pipeline.to(DTYPES[precision])
    for seed, name in enumerate(recipe.adapter_names):
        generate.put_on(base.denoiser, name, seed)
    base.denoiser.to(device)
    base.set_attention_backend(attention_for("auto", device))
    scheduler = base.sampler("ddim", 30, base.resolution, base.resolution)
    t = scheduler.timesteps[10].to(device)
    x = torch.randn(BATCH, *base.latent_shape(base.resolution, base.resolution), device=device)
    conditioning = base.encode_prompts(["a boat on the sea"] * 2 * BATCH, device, train.SILENT)
    mixer = stack.enter_context(mixing(base.denoiser, base.targets, {}))
    mixer.set([dict.fromkeys(recipe.adapter_names, 0.7)] * 2 * BATCH)
    stack.enter_context(torch.no_grad())

    def step() -> torch.Tensor:
        without, with_text = base.predict(torch.cat([x, x]), t, conditioning).chunk(2)
        taken: torch.Tensor = scheduler.step(without + 5.0 * (with_text - without), t, x, return_dict=False)[0]
        return taken

    return {"what": f"{BATCH} pictures, guided, {precision}, blocks not compiled"}, step


def _training(plan: Plan, stack: ExitStack) -> tuple[dict[str, Any], Callable[[], Any]]:
    """One step of two adapters in one pass, without checkpointing."""
    precision = precision_for("auto", "train", plan.device)
    fixed = [f"train.batch={BATCH}", "train.gradient_checkpointing=false", f"train.precision={precision}"]
    settings = recipe_of(plan, *fixed)
    examples = train.examples_in(plan.scratch, settings.base.resolution)
    contestant = train.together(base_of(plan), settings, examples, plan.device)
    stack.callback(contestant.routes.close)
    compiled = "compiled" if plan.device.type == "cuda" else "not compiled"
    what = f"2 × {BATCH} pictures, two adapters in one pass, {precision}, blocks {compiled}"
    return {"what": what}, partial(contestant.step, 0, settings.train)


# --- From a trace to figures ------------------------------------------------------------------------------------------


def profiled(step: Callable[[], Any], device: torch.device, scratch: Path) -> dict[str, Any]:
    """The figures of one step."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    train.synchronize(device)
    with profile(activities=activities) as found:
        with record_function(STEP):
            step()
        train.synchronize(device)  # Outside the step: this wait is ours.
    path = scratch / "trace.json"
    found.export_chrome_trace(str(path))
    trace: list[Event] = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    path.unlink()
    return figures(trace)


def figures(trace: Iterable[Event]) -> dict[str, Any]:
    """What a step's trace says: its largest kernels, the device's idle time, the host's waits. Times are in µs."""
    events = [event for event in trace if event.get("ph") == "X" and "dur" in event]
    step = next(event for event in events if event["name"] == STEP and event["cat"] == "user_annotation")
    start, end = step["ts"], step["ts"] + step["dur"]
    within = [event for event in events if start <= event["ts"] <= end]
    on_device = [event for event in events if event["cat"] in DEVICE and event["ts"] >= start]
    work = on_device or _alone(event for event in within if event["cat"] == "cpu_op")
    times: dict[str, list[float]] = defaultdict(list)
    for event in work:
        times[event["name"]].append(event["dur"])
    total = sum(map(sum, times.values()))
    kernels: list[dict[str, Any]] = [
        {"name": name, "kind": kind_of(name), "count": len(each), "us": sum(each), "share": sum(each) / total}
        for name, each in times.items()
    ]
    kernels.sort(key=lambda kernel: -kernel["us"])
    kinds: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        kinds[kernel["kind"]] += kernel["share"]
    waits = [e for e in within if e["cat"] in HOST and WAITS.fullmatch(e["name"].partition("_v")[0])]
    copies = [e for e in on_device if e["cat"] == "gpu_memcpy" and "DtoH" in e["name"]]
    span = max(event["ts"] + event["dur"] for event in work) - min(event["ts"] for event in work)
    return {
        "on_device": bool(on_device),
        "host_us": step["dur"],
        "span_us": span,
        "idle_share": 1 - _covered(work) / span,
        "launches": len(work),
        "kernels": kernels[:10],
        "others_us": sum(kernel["us"] for kernel in kernels[10:]),
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1])),
        "waits": {"count": len(waits), "us": sum(e["dur"] for e in waits), "names": sorted({e["name"] for e in waits})},
        "copies_to_host": {"count": len(copies), "us": sum(e["dur"] for e in copies)},
    }


def kind_of(name: str) -> str:
    """What a kernel does, by its name."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name, re.IGNORECASE)), "other")


def _alone(operators: Iterable[Event]) -> list[Event]:
    """Operators, each with the time that it took beside those that it called."""
    open_by_thread: dict[Any, list[Event]] = defaultdict(list)
    found = []
    for event in sorted(operators, key=lambda event: (event["ts"], -event["dur"])):
        callers = open_by_thread[event.get("tid")]
        while callers and callers[-1]["end"] <= event["ts"]:
            callers.pop()
        if callers:
            callers[-1]["dur"] -= event["dur"]
        found.append({**event, "end": event["ts"] + event["dur"]})
        callers.append(found[-1])
    return found


def _covered(events: Iterable[Event]) -> float:
    """µs in which at least one of the events is under way."""
    covered, until = 0.0, float("-inf")
    for event in sorted(events, key=lambda event: float(event["ts"])):
        begin, end = event["ts"], event["ts"] + event["dur"]
        covered += max(end - max(begin, until), 0.0)
        until = max(until, end)
    return covered


# --- The page ---------------------------------------------------------------------------------------------------------


def rows(results: dict[str, Any]) -> str:
    """The section of the page."""
    sections = [_section(name, results.get(name)) for name in ("training", "denoising")]
    return "\n".join(sections)


def _section(name: str, found: dict[str, Any] | None) -> str:
    title = f"### One {name} step"
    if not found:
        return f"{title}\n\nNot measured.\n"
    kernels = [
        [f"`{_short(k['name'])}`", k["kind"], str(k["count"]), f"{k['us'] / 1000:.2f}", f"{k['share']:.1%}"]
        for k in found["kernels"]
    ]
    kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in found["kinds"].items())
    whole = (
        f"{found['what']}. {found['span_us'] / 1000:.1f} ms from the first of {found['launches']} kernels to the last "
        f"one's end, {found['idle_share']:.0%} of it idle; the host was done after {found['host_us'] / 1000:.1f} ms."
    )
    blind = "The trace has no kernels (a CPU, or a card that cannot be looked into): operators stand for them."
    noted = [] if found["on_device"] else [blind, ""]
    return "\n".join([
        title, "", whole, "", *noted,
        *table(("kernel", "kind", "launches", "ms", "share"), kernels),
        "", f"All others: {found['others_us'] / 1000:.2f} ms. By kind: {kinds}.",
        "", "What it says to do next:", "", *(f"- {line}" for line in advice(found)), "",
    ])  # fmt: skip


def _short(name: str) -> str:
    """A kernel's name on one line of a table."""
    name = re.sub(r"^void ", "", name).replace("|", "/").replace("`", "")
    return name if len(name) <= 80 else name[:77] + "…"


def advice(found: dict[str, Any]) -> list[str]:
    """What follows from the figures, by fixed rules."""
    kinds, idle, waits, copies = found["kinds"], found["idle_share"], found["waits"], found["copies_to_host"]
    products = kinds.get("matrix product", 0.0) + kinds.get("attention", 0.0)
    lines = []
    if idle > 0.2:
        lines.append(
            f"The device is idle {idle:.0%} of the step: launches bound it. Fewer and larger ones: CUDA graphs, or "
            "more than the repeated blocks compiled."
        )
    else:
        lines.append(f"The device is idle {idle:.0%} of the step: kernels bound it, launches do not.")
    lines.append(f"Matrix products, convolutions and attention take {products:.0%} of the kernels' time.")
    if (attention := kinds.get("attention", 0.0)) > 0.25:
        lines.append(f"Attention alone takes {attention:.0%}: compare SDPA's backends and xFormers.")
    if (layout := kinds.get("layout", 0.0)) > 0.02:
        lines.append(f"Changes of memory layout take {layout:.0%}: something is not channels-last.")
    light = {kind: kinds.get(kind, 0.0) for kind in ("elementwise", "copy or cast", "norm", "other")}
    if (share := sum(light.values())) > 0.2:
        largest = next((k for k in found["kernels"] if k["kind"] in light), None)
        named = f", `{_short(largest['name'])}` above all ({largest['share']:.1%})" if largest else ""
        parts = ", ".join(f"{kind} {own:.0%}" for kind, own in light.items() if own)
        lines.append(f"Kernels that only move data take {share:.0%} ({parts}){named}: fuse them.")
    if (optimizer := kinds.get("optimizer", 0.0)) > 0.05:
        lines.append(f"The optimizer takes {optimizer:.0%}.")
    if waits["count"] or copies["count"]:
        lines.append(
            f"The host waits {waits['count']} times, {waits['us'] / 1000:.2f} ms ({', '.join(waits['names']) or '–'}), "
            f"and {copies['count']} copies go to it: a step needs none."
        )
    else:
        lines.append("The host waits for nothing within the step.")
    return lines
