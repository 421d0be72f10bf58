"""Part on request: real architectures on the card, one process each; memory by its allocator, the estimate beside it.

What needs more memory than is free is not run, and says so; so is what the time does not suffice for.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from avignon.core.records import EMBEDDED
from benchmarks.families import HEAD, ROWS, Row, estimated, free, in_its_own_process, line, measured
from benchmarks.gpu_parts.plan import Plan

GOAL = "each family's full size: seconds, share of the matrix peak, memory within 15 % of the estimate"

ON_A_CARD = (
    *ROWS,
    Row("sdxl", "train", 1024, checkpointing=True, quantize="int8"),
    Row("sdxl", "train", 1024, checkpointing=True, quantize="nf4"),
    Row("sdxl", "train", 1024, checkpointing=True, offload=True),
    Row("z-image", "train", 1024, checkpointing=True),
    Row("z-image", "train", 1024, checkpointing=True, quantize="int8"),
    Row("z-image", "train", 1024, checkpointing=True, quantize="nf4"),
    Row("z-image", "paint", 1024),
    Row("flux2-klein-4b", "train", 1024, checkpointing=True),
    Row("flux2-klein-4b", "train", 1024, checkpointing=True, quantize="int8"),
    Row("flux2-klein-4b", "paint", 1024),
)

REHEARSED = (
    Row(EMBEDDED, "train", 64, checkpointing=True, precision="fp32"),
    Row(EMBEDDED, "train", 64, precision="fp32", quantize="int8"),
    Row(EMBEDDED, "paint", 64, precision="fp32"),
)

LONGEST = 60.0
"""Seconds that a row may take, as far as is known."""


def measure(plan: Plan, record: Callable[[str, Any], None]) -> None:
    """Row by row, each as soon as it is known."""
    rows: list[dict[str, Any]] = []
    for row in REHEARSED if plan.rehearse else ON_A_CARD:
        told = estimated(row, plan.device)
        if plan.rehearse:
            found = measured(row, plan.device)
        elif plan.left < LONGEST:
            found = {"failed": "not run: the time did not suffice"}
        elif max(told.values()) > free(plan.device):
            found = {"failed": f"not run: about {max(told.values()) / 2**30:.1f} GiB are needed"}
        else:
            found = in_its_own_process(row)
        rows.append({**found, "estimate": told, "row": asdict(row)})
        record("rows", rows)


def rows(results: dict[str, Any]) -> str:
    """The table."""
    found = results.get("rows", [])
    return "\n".join([HEAD, *(line(Row(**each["row"]), each) for each in found)]) if found else "Not measured."
