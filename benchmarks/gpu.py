"""Everything that a graphics card must prove, in less than eight minutes, unattended; docs/GPU.md explains it.

    python benchmarks/gpu.py --out FOLDER                             all parts on this machine's card
    python benchmarks/gpu.py --out FOLDER --wheels W --data D         offline: packages and pictures brought along
    python benchmarks/gpu.py --out FOLDER --parts training,painting --seconds training=200
    python benchmarks/gpu.py --out FOLDER --rehearse                  every line of it on a CPU, with tiny models
    python benchmarks/gpu.py --prepare D                              makes the pictures for --data
    python benchmarks/gpu.py --out FOLDER --page-only --page P        the page, from files that are there already

Each part is a process of its own with a time of its own; one that fails or is stopped does not stop the next. Its
results are in FOLDER/<part>.json, its output in FOLDER/<part>.log, and the page, made of the results, in FOLDER/gpu.md.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.gpu_parts import PARTS  # noqa: E402 - it is found by the line above

ON_REQUEST = {"families"}
"""Parts that run only where --parts names them: they take longer than all others."""

GRACE = 5
"""Seconds between the request to end and the end."""

PATIENCE = 600
"""Seconds for each part of a rehearsal: its machine may be slow or busy, and nothing is measured."""

NO_CARD = (
    "gpu: this machine has no CUDA card that torch can use; --rehearse runs every part on the CPU with tiny models"
)


def install(wheels: Path, site: Path) -> list[str]:
    """Unpack wheels that are missing here, or of another version; returns their names. No network is used."""
    wanted = [wheel for wheel in sorted(wheels.glob("*.whl")) if not _is_installed(wheel)]
    if wanted:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        pip += ["--no-index", "--no-deps", "--upgrade", "--target", str(site)]
        subprocess.run([*pip, *map(str, wanted)], check=True)
    return [wheel.name for wheel in wanted]


def _is_installed(wheel: Path) -> bool:
    """Whether this very version is installed; the name of a wheel begins with `name-version-`."""
    name, version, *_ = wheel.name.split("-")
    try:
        return importlib.metadata.version(re.sub(r"[-_.]+", "-", name)) == version
    except importlib.metadata.PackageNotFoundError:
        return False


def environment(site: Path) -> dict[str, str]:
    """Of the parts' processes: the checkout and the unpacked wheels come first on Python's path."""
    path = [str(ROOT), str(ROOT / "src"), str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "GPU_COMMAND": shlex.join(["python", *sys.argv]),
            "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}  # fmt: skip


def run(part: str, seconds: float, asked: argparse.Namespace, env: dict[str, str]) -> dict[str, Any]:
    """One part from start to end, or to the end of its time; returns what is in its file."""
    file = asked.out / f"{part}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu_parts.run", part, "--out", str(asked.out), "--data"]
    command += [str(asked.data), "--seconds", str(seconds), *(["--rehearse"] if asked.rehearse else [])]
    start = time.monotonic()
    with (asked.out / f"{part}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            overran = process.poll() is None
            _end(process)
    return _settled(file, part, overran, round(time.monotonic() - start, 2), asked.rehearse)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a part and whatever it started: politely, then not."""
    for signum, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)


def _settled(file: Path, part: str, overran: bool, seconds: float, rehearsal: bool) -> dict[str, Any]:
    """What a part left, with the state that it could not write itself: it was stopped, or it died."""
    empty = {"part": part, "rehearsal": rehearsal, "card": "", "state": "running", "error": "", "results": {}}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else empty
    if found["state"] == "running":
        log = file.with_suffix(".log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        state = ("overran", "") if overran else ("failed", log[-1] if log else "it died without a word")
        found |= {"state": state[0], "error": state[1]}
    found["seconds"] = seconds
    scratch = file.with_suffix(".tmp")
    scratch.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    scratch.replace(file)
    return found


def budgets(parts: str, seconds: Sequence[str], *, rehearse: bool = False) -> dict[str, float]:
    """The parts to run, in order, and what each may take.

    Raises:
        ValueError: a part that is unknown, or no number of seconds; the text is a line.
    """
    chosen = [name.strip() for name in parts.split(",") if name.strip()]
    given = dict(pair.partition("=")[::2] for each in seconds for pair in each.split(","))
    for name in [*chosen, *given]:
        if name not in PARTS:
            raise ValueError(f"--parts, --seconds: no part {name!r}; there are {', '.join(PARTS)}")
    for name, text in given.items():
        if not re.fullmatch(r"\d+(\.\d+)?", text):
            raise ValueError(f"--seconds {name}={text}: not a number of seconds")
    return {name: float(given.get(name, PATIENCE if rehearse else PARTS[name])) for name in PARTS if name in chosen}


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu", help="for results (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(name for name in PARTS if name not in ON_REQUEST),
                        help="which, separated by commas (default: %(default)s; also: families)")  # fmt: skip
    parser.add_argument("--seconds", action="append", default=[], metavar="PART=N", help="what a part may take")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny models")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to use where a package is missing here")
    parser.add_argument("--data", type=Path, help="what --prepare made (default: OUT/data, made if missing)")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="make the dataset there, and end")
    parser.add_argument("--page", type=Path, help="the page (default: OUT/gpu.md)")
    parser.add_argument("--page-only", action="store_true", help="run nothing: write the page of what is in --out")
    asked = parser.parse_args(arguments)
    asked.out = asked.out.absolute()
    asked.data = (asked.data or asked.out / "data").absolute()
    asked.page = (asked.page or asked.out / "gpu.md").absolute()
    return asked


def prepared(folder: Path, env: dict[str, str]) -> bool:
    """Make the dataset that is not there; in a process of its own, because wheels may be new to this one."""
    command = [sys.executable, "-m", "benchmarks.gpu_parts.data", str(folder)]
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode == 0


def has_card(env: dict[str, str]) -> bool:
    """Whether torch finds a card."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 0 where every part came to its end, 1 where one did not, 2 for bad input."""
    asked = parsed(arguments)
    env = environment(asked.out / "site")
    if asked.prepare:
        return 0 if prepared(asked.prepare.absolute(), env) else 1
    try:
        chosen = budgets(asked.parts, asked.seconds, rehearse=asked.rehearse)
    except ValueError as wrong:
        print(wrong, file=sys.stderr)
        return 2
    states = []
    if not asked.page_only:
        if not (asked.rehearse or has_card(env)):
            print(NO_CARD, file=sys.stderr)
            return 2
        asked.out.mkdir(parents=True, exist_ok=True)
        if asked.wheels:
            print("unpacked:", ", ".join(install(asked.wheels, asked.out / "site")) or "nothing", flush=True)
        if not (asked.rehearse or prepared(asked.data, env)):
            print(
                f"--data: {asked.data} cannot be made here; make it with --prepare where avignon is installed",
                file=sys.stderr,
            )
            return 2
        # On a card one at a time, so that none is in another's way; a rehearsal measures nothing.
        with ThreadPoolExecutor(2 if asked.rehearse else 1) as pool:
            for found in pool.map(lambda part: run(part, chosen[part], asked, env), chosen):
                states.append(found["state"])
                line = f"{found['part']:<10} {found['seconds']:>6.1f} s  {found['state']}  {found['error']}"
                print(line.rstrip(), flush=True)
        shutil.rmtree(asked.out / "scratch", ignore_errors=True)
    page = [sys.executable, "-m", "benchmarks.gpu_parts.page", str(asked.out), str(asked.page)]
    written = subprocess.run(page, cwd=ROOT, env=env, check=False).returncode
    return 0 if written == 0 and set(states) <= {"done", "does not fit"} else 1


if __name__ == "__main__":
    sys.exit(main())
