"""What parts 3 to 6 share: a base of random weights, contestants in turn on one card, and what is measured of them."""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch._dynamo.utils import counters

from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.schema import Recipe
from benchmarks.gpu_parts.plan import Plan
from benchmarks.train import SD21, Architecture, random_base, seconds_of, settings_of

T = TypeVar("T")

TINY = Architecture(
    unet={
        "sample_size": 8, "block_out_channels": (8, 16), "attention_head_dim": (1, 2), "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 4, "cross_attention_dim": 16, "use_linear_projection": True,
    },
    vae={
        "sample_size": 64, "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "latent_channels": 4,
    },
    text={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    resolution=64,
)  # fmt: skip
"""The rehearsal's: blocks of the same kinds, fewer and a few channels wide."""

ROOMY = 40e9
"""Bytes of a card's memory from which on contestants can lie on it side by side."""

NOT_FIT = {"state": "does not fit"}


def architecture_of(plan: Plan) -> Architecture:
    """What is measured, or rehearsed with."""
    return TINY if plan.rehearse else SD21


def base_of(plan: Plan) -> StableDiffusion:
    """A base of random weights on the plan's device, in fp32."""
    return random_base(architecture_of(plan), plan.device)


@cache
def recipe_of(plan: Plan, *overrides: str) -> Recipe:
    """The original pair's recipe at the size of the base."""
    return settings_of("sd21", f"base.resolution={architecture_of(plan).resolution}", *overrides)


def is_roomy(device: torch.device) -> bool:
    """Whether contestants can lie on the device side by side, to take turns."""
    return device.type != "cuda" or torch.cuda.get_device_properties(device).total_memory >= ROOMY


def free() -> None:
    """Give what nothing refers to back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def attempt(call: Callable[[], T]) -> T | None:
    """What a call returns; None where the card's memory ran out."""
    try:
        return call()
    except torch.OutOfMemoryError:
        pass  # Left at once: what the traceback holds cannot be freed before.
    free()
    return None


def allocated(device: torch.device) -> int:
    """Bytes that tensors have on a card; 0 on a CPU, which does not count them."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


@dataclass
class Footprint:
    """What one contestant holds on a card that others hold something on as well: the sum of what its calls added."""

    device: torch.device
    held: int = 0

    def keeps(self, call: Callable[[], T]) -> T:
        """Make a call that leaves something on the card, such as weights or an optimizer's state."""
        before = allocated(self.device)
        result = call()
        self.held += allocated(self.device) - before
        return result

    def peak(self, call: Callable[[], Any]) -> dict[str, int]:
        """Bytes at the peak of a call: of tensors, and of the blocks that torch's allocator had to ask for."""
        if self.device.type != "cuda":
            call()
            return {}
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        before, reserved = allocated(self.device), torch.cuda.memory_reserved(self.device)
        call()
        torch.cuda.synchronize(self.device)
        grown = torch.cuda.max_memory_reserved(self.device) - reserved
        return {
            "allocated": torch.cuda.max_memory_allocated(self.device) - before + self.held,
            "reserved": grown + self.held,
        }


class Budget:
    """Whether there is time for one more piece of work, by what its like has taken so far."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._taken: dict[str, float] = {}

    def allows(self, kind: str, guess: float) -> bool:
        """Whether the time that is left suffices for work of a kind; `guess` seconds until one was done."""
        return self._plan.left > self._taken.get(kind, 0.0 if self._plan.rehearse else guess)

    def spend(self, kind: str, call: Callable[[], T]) -> T:
        """Do it, and remember how long it took."""
        start = time.monotonic()
        result = call()
        self._taken[kind] = max(self._taken.get(kind, 0.0), time.monotonic() - start)
        return result

    def is_over(self) -> bool:
        """Whether rounds have to stop."""
        return self._plan.left < (0 if self._plan.rehearse else 2)


def rounds(
    turns: Mapping[str, Callable[[], Any]],
    count: int,
    device: torch.device,
    over: Callable[[], bool],
    before: Mapping[str, Callable[[], Any]] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each contestant's turns, which alternate; one round at least.

    With `before`, untimed calls, nobody's turn has to wait for memory that the one before has not given back.
    """
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(count):
        if number and over():
            break
        for name, turn in turns.items():
            if before:
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                before[name]()
            seconds[name].append(seconds_of(turn, device))
    return seconds


def ratio(rates: Iterable[float], others: Iterable[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(one / other for one, other in zip(rates, others, strict=True))


def forget_compiled() -> None:
    """Have blocks compiled anew, for the next size alone, as in a run that has no other."""
    torch.compiler.reset()
    counters.clear()


def compiled() -> dict[str, int]:
    """How often torch was to compile something since `forget_compiled`, and how often it did.

    It gives up at a limit of variants of one function, with a warning alone, and runs the rest uncompiled.
    """
    return {"asked": counters["frames"]["total"], "done": counters["frames"]["ok"]}


def tf32() -> dict[str, bool]:
    """Whether products and convolutions of fp32 are computed in TF32."""
    return {"products": torch.backends.cuda.matmul.allow_tf32, "convolutions": torch.backends.cudnn.allow_tf32}


# --- For the page -----------------------------------------------------------------------------------------------------


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> list[str]:
    """A table in Markdown."""
    titles = list(head)
    rows = [titles, ["---"] * len(titles), *lines]
    return ["| " + " | ".join(row) + " |" for row in rows]


def figure(value: float | None, form: str, factor: float = 1.0) -> str:
    """A number as text; a dash where there is none."""
    return "–" if value is None else format(value * factor, form)


def memory_cell(memory: Mapping[str, int]) -> str:
    """What `Footprint.peak` found, in GB of 10⁹ bytes."""
    return f"{memory['allocated'] / 1e9:.2f} ({memory['reserved'] / 1e9:.2f})" if memory else "–"


def given_up(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence where torch gave compiling up."""
    lines = [
        f"At batch {run['batch']} torch compiled {run['compiled']['done']} of {run['compiled']['asked']} variants and "
        "gave up: the other blocks ran uncompiled."
        for run in runs
        if run.get("compiled", {}).get("done", 0) < run.get("compiled", {}).get("asked", 0)
    ]
    return ["", *dict.fromkeys(lines)] if lines else []


def verdict(goal: str, value: str, *, met: bool | None) -> str:
    """A goal with the figure beside it; `met` is None where it was not measured."""
    return f"- {goal}: {'not measured' if met is None else f'{value}: **' + ('met' if met else 'missed') + '**'}."
