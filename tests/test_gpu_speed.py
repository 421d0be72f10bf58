"""Training, painting and profile of the GPU script: what is written of their figures, and a rehearsal of each."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from benchmarks import train
from benchmarks.gpu_parts import contest, painting, profile, training
from benchmarks.gpu_parts.plan import Plan

CPU = torch.device("cpu")


def plan_in(folder: Path, seconds: float = 600) -> Plan:
    """A rehearsal."""
    return Plan(CPU, rehearse=True, seconds=seconds, scratch=folder, data=folder)


def results_of(part: ModuleType, plan: Plan) -> dict[str, Any]:
    """What a part records, through JSON."""
    found: dict[str, Any] = {}

    def record(key: str, value: Any) -> None:
        found[key] = json.loads(json.dumps(value, allow_nan=False))

    part.measure(plan, record)
    return found


# What is written of the figures ---------------------------------------------------------------------------------------


def way(rate: float, share: float, gigabytes: float, **more: float) -> dict[str, Any]:
    """A contestant's figures."""
    memory = {"allocated": int(gigabytes * 1e9), "reserved": int(gigabytes * 1.1e9)}
    both = {"images_per_second": rate, "pictures_per_second": rate, "share": share, "memory": memory, "rates": [rate]}
    return {**both, "first_step_seconds": 30.0, "first_call_seconds": 9.0, **more}


SETTING = {
    "precision": "fp16", "attention": "sdpa", "compiled": True, "alternating": True, "steps": 30, "peak": 7e14,
    "peaks": {"fp16": 7e14, "fp32": 5e13}, "tf32": {"products": False, "convolutions": True},
}  # fmt: skip

TRAINED: dict[str, Any] = {
    "setting": SETTING,
    "runs": [
        {"batch": 4, "checkpointing": False, "ways": {
            training.TOGETHER: way(80, 0.41, 20), training.SAME: way(40, 0.3, 12, first_is=2.0),
            training.DEFAULT: dict(contest.NOT_FIT)}},
        {"batch": 4, "checkpointing": True, "ways": {
            training.TOGETHER: way(60, 0.31, 9.5), training.SAME: way(31, 0.3, 8, first_is=1.9)}},
        {"batch": 1, "checkpointing": True, "ways": {training.TOGETHER: way(40, 0.2, 5.75)}},
        {"batch": 8, "checkpointing": False, "ways": {training.ONE: way(90, 0.46, 30), training.SAME: way(1, 0.1, 3)}},
    ],
    "left_out": ["batch 8 with checkpointing (avignon, two in one pass)"],
}  # fmt: skip

PAINTED: dict[str, Any] = {
    "setting": SETTING, "flops_per_picture": 5.1e13,
    "runs": [
        {"batch": 4, "ways": {painting.THEIRS: way(0.5, 0.04, 4), painting.OURS: way(1.4, 0.1, 6, faster=2.8),
                              painting.COMPILED: way(2, 0.15, 6, faster=4.0)}},
        {"batch": 16, "ways": {painting.THEIRS: way(0.5, 0.04, 4), painting.OURS: way(1.5, 0.42, 6, faster=2.9),
                               painting.COMPILED: dict(contest.NOT_FIT)}},
    ],
    "left_out": [],
}  # fmt: skip


def test_training_is_judged_by_its_goals() -> None:
    """Each goal has its figure and whether it is met; what does not fit or was left out is said."""
    lines = training.rows(TRAINED).splitlines()
    same = next(line for line in lines if line.startswith("- ≥ 1.8 ×"))
    assert same.endswith("2.00 × at batch 4; 1.90 × at batch 4 with checkpointing: **met**.")
    assert "- ≥ 45 % of the matrix peak at the best batch: 46% at batch 8: **met**." in lines
    assert "- ≤ 5.5 GB at batch 1 with checkpointing: 5.75 GB, two in one pass: **missed**." in lines
    assert "- ≤ 12 GB at batch 4 with checkpointing: 9.50 GB, two in one pass: **met**." in lines
    assert f"| 4 | off | {training.DEFAULT} | does not fit | – | – | – | – |" in lines
    assert lines[-1] == "The time did not suffice for batch 8 with checkpointing (avignon, two in one pass)."


def test_one_slow_combination_misses_the_ratio() -> None:
    """The ratio is met where every combination meets it."""
    slow = json.loads(json.dumps(TRAINED))
    slow["runs"][1]["ways"][training.SAME]["first_is"] = 1.7
    assert "1.70 × at batch 4 with checkpointing: **missed**" in training.rows(slow)


def test_blocks_that_ran_uncompiled_are_named() -> None:
    """Where torch gave compiling up, the figures are not those of compiled blocks."""
    runs = [{**run, "compiled": {"asked": 9, "done": 8}} for run in TRAINED["runs"]]
    assert training.rows({**TRAINED, "runs": runs}).count("torch compiled 8 of 9 variants and gave up") == 3
    assert "gave up" not in training.rows(TRAINED)


def test_ways_measured_one_after_the_other_are_compared() -> None:
    """On a small card each way has a run of its own; the ratio is then that of the medians."""
    runs = [{"batch": 4, "checkpointing": True, "ways": {name: way(rate, 0.3, 7)}}
            for name, rate in ((training.TOGETHER, 19), (training.SAME, 10))]  # fmt: skip
    text = training.rows({"setting": {**SETTING, "alternating": False}, "runs": runs})
    assert "1.90 × at batch 4 with checkpointing: **met**" in text
    assert "the card is too small" in text


def test_painting_is_judged_by_its_goals() -> None:
    """The product and the trial with compiled blocks are judged apart, each by its best batch."""
    lines = painting.rows(PAINTED).splitlines()
    assert "- avignon: ≥ 3 × diffusers one by one: 2.90 × at batch 16: **missed**." in lines
    assert "- avignon: ≥ 40 % of the matrix peak: 42% at batch 16: **met**." in lines
    assert "- avignon, compiled blocks: ≥ 3 × diffusers one by one: 4.00 × at batch 4: **met**." in lines
    assert f"| 16 | {painting.COMPILED} | does not fit | – | – | – | – |" in lines


def without_rates(found: dict[str, Any]) -> dict[str, Any]:
    """As a part that is stopped during the rounds leaves it."""
    cut: dict[str, Any] = json.loads(json.dumps(found))
    for run in cut["runs"]:
        for own in run["ways"].values():
            for key in ("images_per_second", "pictures_per_second", "share", "rates", "first_is", "faster"):
                own.pop(key, None)
    return cut


@pytest.mark.parametrize(("part", "whole"), [(training, TRAINED), (painting, PAINTED)])
def test_what_was_not_measured_is_said(part: Any, whole: dict[str, Any]) -> None:
    """Whatever was recorded until a part was stopped, its section can be written, and claims nothing else."""
    stopped: list[dict[str, Any]] = [{}, {"setting": SETTING}, {"runs": []}, without_rates(whole)]
    for cut in stopped:
        text = part.rows(cut)
        speed = [line for line in text.splitlines() if line.startswith("- ") and "×" in line]
        assert speed
        assert all(line.endswith("not measured.") for line in speed)


# The profile ----------------------------------------------------------------------------------------------------------


def event(category: str, name: str, start: float, length: float, **more: Any) -> dict[str, Any]:
    """One event of a trace, as Kineto writes it."""
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": length, "pid": 0, "tid": 7, **more}


GEMM = "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_kernel__5x_cublas"
TRACE = [
    {"ph": "M", "name": "process_name"},
    event("user_annotation", profile.STEP, 1000, 100),
    event("gpu_user_annotation", profile.STEP, 1010, 200),
    event("cuda_runtime", "cudaLaunchKernel", 1005, 5),
    event("cuda_runtime", "cudaMemcpyAsync", 1040, 5),
    event("cuda_runtime", "cudaStreamSynchronize", 1045, 20),
    event("cuda_runtime", "cudaDeviceSynchronize", 1105, 90),
    event("kernel", "of the step before", 900, 50),
    event("kernel", GEMM, 1010, 60),
    event("kernel", GEMM, 1110, 40),
    event("kernel", "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add>", 1060, 20),
    event("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", 1150, 10),
]
"""A step whose device works from 1010 to 1080 and from 1110 to 1160."""


def test_a_trace_says_what_the_device_did() -> None:
    """Idle time is what no kernel covers; the wait after the step and the marks on the device count for nothing."""
    found = profile.figures(TRACE)
    assert found["on_device"]
    assert found["span_us"] == 150
    assert found["idle_share"] == pytest.approx(30 / 150)
    assert found["waits"] == {"count": 1, "us": 20, "names": ["cudaStreamSynchronize"]}
    assert found["copies_to_host"] == {"count": 1, "us": 10}
    first = found["kernels"][0]
    assert (first["name"], first["kind"], first["count"], first["us"]) == (GEMM, "matrix product", 2, 100)
    assert first["share"] == pytest.approx(100 / 130)
    assert sum(found["kinds"].values()) == pytest.approx(1)


def test_operators_stand_for_kernels_where_there_are_none() -> None:
    """An operator's time is what it took beside those that it called, thread by thread."""
    timed = {"aten::linear": (0, 30), "aten::mm": (5, 20), "aten::empty": (6, 4)}
    calls = [event("cpu_op", name, *when) for name, when in timed.items()]
    other = {**event("cpu_op", "aten::add", 8, 50), "tid": 8}
    found = profile.figures([event("user_annotation", profile.STEP, 0, 100), *calls, other])
    times = {kernel["name"]: kernel["us"] for kernel in found["kernels"]}
    assert times == {"aten::linear": 10, "aten::mm": 16, "aten::empty": 4, "aten::add": 50}
    assert not found["on_device"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob", "attention"),
        ("sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckcrs_nhwc_tilesize128x128x32", "matrix product"),
        ("void cudnn::ops::nchwToNhwcKernel<__half, __half, float, false, true>", "layout"),
        ("void at::native::(anonymous namespace)::RowwiseMomentsCUDAKernel<c10::Half, float>", "norm"),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy_aligned16_contig<>", "copy or cast"),
        ("triton_poi_fused_mul_silu_3", "elementwise"),
        ("triton_red_fused_native_layer_norm_0", "norm"),
        ("something new", "other"),
    ],
)
def test_kernels_are_told_by_their_names(name: str, kind: str) -> None:
    """Names as CUDA's libraries, PyTorch and Triton give them."""
    assert profile.kind_of(name) == kind


def test_advice_follows_from_the_figures() -> None:
    """Launches or kernels bound the step, light kernels and waits are named: by fixed rules."""
    found = profile.figures(TRACE)
    bound = "\n".join(profile.advice({**found, "idle_share": 0.35}))
    assert "idle 35% of the step: launches bound it" in bound
    assert "The host waits 1 times, 0.02 ms (cudaStreamSynchronize), and 1 copies go to it" in bound
    assert "only move data take 23% (elementwise 15%, copy or cast 8%)" in bound
    nothing = {"count": 0, "us": 0, "names": []}
    quiet = {**found, "idle_share": 0.1, "waits": nothing, "copies_to_host": nothing, "kinds": {"attention": 0.6}}
    calm = "\n".join(profile.advice(quiet))
    assert "kernels bound it" in calm
    assert "Attention alone takes 60%" in calm
    assert "waits for nothing" in calm


def test_the_profile_is_written_as_far_as_it_went() -> None:
    """A step that was not profiled is named so."""
    text = profile.rows({"denoising": {**profile.figures(TRACE), "what": "4 pictures"}})
    assert "### One training step\n\nNot measured." in text
    assert "| `sm90_xmma_gemm" in text
    assert profile.rows({}).count("Not measured.") == 2


# What parts share -----------------------------------------------------------------------------------------------------


def out_of_memory(*_: Any) -> Any:
    """What a card raises."""
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_running_out_of_memory_is_a_result() -> None:
    """None says that something does not fit; any other fault is one."""
    assert contest.attempt(out_of_memory) is None
    assert contest.attempt(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        contest.attempt(lambda: 1 / 0)


def test_work_is_left_out_where_its_like_took_longer_than_is_left(tmp_path: Path) -> None:
    """A kind of work is judged by the longest of its like, before that by a guess."""
    plan = Plan(CPU, rehearse=False, seconds=5, scratch=tmp_path, data=tmp_path)
    budget = contest.Budget(plan)
    assert budget.allows("short", 1)
    assert not budget.allows("long", 60)
    assert budget.spend("long", lambda: 7) == 7
    assert budget.allows("long", 60)


def test_turns_alternate() -> None:
    """Every round has a turn of each, after an untimed call; one round is made even where the time is over."""
    told: list[str] = []
    turns: dict[str, Callable[[], Any]] = {name: partial(told.append, name) for name in "ab"}
    before: dict[str, Callable[[], Any]] = {name: partial(told.append, f"({name})") for name in "ab"}
    found = contest.rounds(turns, 2, CPU, lambda: False, before)
    assert told == ["(a)", "a", "(b)", "b"] * 2
    assert [len(each) for each in found.values()] == [2, 2]
    assert [len(each) for each in contest.rounds(turns, 3, CPU, lambda: True).values()] == [1, 1]


# Rehearsals -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_is_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way trains in each combination; one that does not fit says so and the others go on."""
    monkeypatch.setitem(train.WAYS, "avignon", out_of_memory)
    before = dict(AcceleratorState._shared_state)
    found = results_of(training, plan_in(tmp_path))
    assert AcceleratorState._shared_state == before  # The next training of this process may be in another precision.
    assert found["left_out"] == []
    first, second, third = (run["ways"] for run in found["runs"])
    for run in (first, second):
        assert list(run) == [training.TOGETHER, training.SAME, training.DEFAULT]
        assert all(own["images_per_second"] > 0 and own["share"] > 0 and own["loss"] > 0 for own in run.values())
        assert all(run[name]["first_is"] > 0 for name in (training.SAME, training.DEFAULT))
    assert third[training.ONE] == contest.NOT_FIT
    assert third[training.SAME]["images_per_second"] > 0
    assert "does not fit" in training.rows(found)


@pytest.mark.slow
def test_flops_are_counted_whether_blocks_are_compiled_or_not(tmp_path: Path) -> None:
    """The counter does not see into compiled code, so that is left aside; two in one pass take as many an image."""
    plan, counted = plan_in(tmp_path), {}
    examples = train.examples_in(tmp_path, 64)
    for name, compiled in (("together", "off"), ("together", "on"), ("avignon", "off")):
        settings = contest.recipe_of(plan, "train.batch=1", f"train.compile={compiled}", "train.precision=fp32")
        made = train.WAYS[name](contest.base_of(plan), settings, examples, CPU)
        flops = train.flops_of(partial(made.step, 0, settings.train))
        counted[name, compiled] = flops / train.images_of(name, 1)
        made.routes.close()
    assert counted["together", "on"] == counted["together", "off"] == pytest.approx(counted["avignon", "off"], rel=1e-3)


@pytest.mark.slow
def test_painting_is_rehearsed(tmp_path: Path) -> None:
    """Every way paints, and is compared with diffusers one by one."""
    found = results_of(painting, plan_in(tmp_path))
    assert found["left_out"] == []
    assert {name for run in found["runs"] for name in run["ways"]} == {
        painting.THEIRS, painting.BATCHED, painting.OURS, painting.COMPILED, painting.MIXED
    }  # fmt: skip
    assert found["runs"][0]["compiled"]["done"] == found["runs"][0]["compiled"]["asked"] > 0
    for run in found["runs"]:
        assert all(own["pictures_per_second"] > 0 for own in run["ways"].values())
        assert all(own["faster"] > 0 for name, own in run["ways"].items() if name != painting.THEIRS)
    assert found["flops_per_picture"] > 0


@pytest.mark.slow
def test_the_profile_is_rehearsed(tmp_path: Path) -> None:
    """Both steps have ten operators, shares that are shares, and advice."""
    found = results_of(profile, plan_in(tmp_path))
    for name in ("denoising", "training"):
        step = found[name]
        assert len(step["kernels"]) == 10
        assert 0 <= step["idle_share"] < 1
        assert sum(step["kinds"].values()) == pytest.approx(1)
        assert step["kinds"]["matrix product"] > 0
    assert profile.rows(found).count("What it says to do next") == 2


@pytest.mark.slow
def test_what_the_time_does_not_suffice_for_is_named(tmp_path: Path) -> None:
    """With no time at all everything is left out, by name."""
    found = results_of(training, plan_in(tmp_path, seconds=-1))
    assert len(found["left_out"]) == 3
    assert "The time did not suffice for batch 1 without checkpointing" in training.rows(found)
