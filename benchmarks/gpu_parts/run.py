"""One part in a process of its own; `benchmarks/gpu.py` starts it, and stops it when its time is over.

    python -m benchmarks.gpu_parts.run PART --out FOLDER --data FOLDER --seconds 60 [--rehearse]

The part's file, `FOLDER/PART.json`, is written anew with every result, so that a part that is stopped leaves what it
had.
"""

import argparse
import importlib
import os
import platform
import shutil
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from avignon.core.files import write_json
from benchmarks.gpu_parts import PARTS
from benchmarks.gpu_parts.plan import DoesNotFit, Plan

LIBRARIES = ("torch", "diffusers", "peft", "transformers", "accelerate", "triton", "xformers")


class PartFile:
    """What is known of a part, in a file that is always whole."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self._path, self._started = path, time.monotonic()
        self._content: dict[str, Any] = {**facts, "state": "running", "seconds": 0.0, "error": "", "results": {}}
        self._write()

    def record(self, key: str, value: Any) -> None:
        """Add a result, or replace it."""
        self._content["results"][key] = value
        self._write()

    def close(self, state: str, error: str = "") -> None:
        """Say how the part ended."""
        self._content |= {"state": state, "error": error}
        self._write()

    def _write(self) -> None:
        self._content["seconds"] = round(time.monotonic() - self._started, 2)
        write_json(self._path, self._content)


def facts(part: str, device: torch.device, rehearse: bool) -> dict[str, Any]:
    """What a figure depends on: the card, its driver, versions, date and command."""
    card = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "part": part,
        "rehearsal": rehearse,
        "card": card.name if card else "",
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if card else "",
        "capability": f"{card.major}.{card.minor}" if card else "",
        "memory": card.total_memory if card else 0,
        "cpu": {"machine": platform.machine(), "cores": os.cpu_count()},
        "versions": {**{name: _version(name) for name in LIBRARIES}, "cuda": torch.version.cuda or "",
                     "python": platform.python_version()},
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": os.environ.get("GPU_COMMAND", " ".join(sys.argv)),
    }  # fmt: skip


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _output(*command: str) -> str:
    """The first line that a program prints; nothing where there is no such program, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""


def main() -> int:
    """Run one part; 0 where it came to its end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rehearse", action="store_true")
    asked = parser.parse_args()
    device = torch.device("cpu" if asked.rehearse else "cuda")
    file = PartFile(asked.out / f"{asked.part}.json", facts(asked.part, device, asked.rehearse))
    scratch = asked.out / "scratch" / asked.part
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    plan = Plan(device, asked.rehearse, asked.seconds, scratch.absolute(), asked.data.absolute())
    try:
        importlib.import_module(f"benchmarks.gpu_parts.{asked.part}").measure(plan, file.record)
    except (torch.OutOfMemoryError, DoesNotFit) as full:
        file.close("does not fit", _last_line(full))
    except Exception as failed:  # noqa: BLE001 - whatever it is, it stands in the part's file
        traceback.print_exc()
        file.close("failed", _last_line(failed))
    else:
        file.close("done")
        return 0
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 1


def _last_line(failed: BaseException) -> str:
    return "".join(traceback.format_exception_only(failed)).strip().splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
