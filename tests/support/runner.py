"""avignon as its user starts it: `python -m avignon run` in a process of its own, which may be struck at any moment."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avignon.core.files import sha256_of


@dataclass
class Runner:
    """Starts avignon in processes of its own, with fresh caches."""

    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, recipe: Path, *options: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "avignon", "run", str(recipe), "--workspace", str(self.home / "runs"), *options]

    def variables(self) -> dict[str, str]:
        """The process's environment: no one else's caches, nothing but the local servers."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        caches = {"HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / "cache"), "HF_HOME": str(self.home / "hf")}
        return {**inherited, **caches, "PYTHONUNBUFFERED": "1", **self.environment}

    def __call__(self, recipe: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return subprocess.run(
            self.command(recipe, *options), env=self.variables(), cwd=self.home, text=True, capture_output=True
        )

    def until(
        self, recipe: Path, moment: Callable[[Mapping[str, Any]], bool], number: signal.Signals
    ) -> tuple[int, str]:
        """Run until an event of this kind, then signal the process group; the exit code and complaint."""
        process = subprocess.Popen(
            self.command(recipe, "--json"),
            env=self.variables(),
            cwd=self.home,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if moment(json.loads(line)):
                os.killpg(process.pid, number)
                break
        _, complaint = process.communicate(timeout=60)
        return process.returncode, complaint


def outputs(root: Path) -> dict[str, str]:
    """What a run is for: the ledger, the training images, the adapters' weights, the pictures and the report."""
    wanted = (".csv", ".png", ".safetensors")
    files = [
        path for path in root.rglob("*") if path.suffix in wanted or path.name in ("report.json", "metadata.jsonl")
    ]
    return {path.relative_to(root).as_posix(): sha256_of(path) for path in files}
