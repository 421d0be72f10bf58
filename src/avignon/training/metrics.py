"""Metrics of a training: a line for each step, for programs and for TensorBoard."""

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from avignon.core.files import json_text, write_text
from avignon.core.records import Frame
from avignon.core.workspace import AdapterFolder


@dataclass(frozen=True)
class Step:
    """What one step gave; loss and norm may still be on their way from the device."""

    number: int
    """Steps done, this one included."""
    rate: float
    loss: torch.Tensor
    norm: torch.Tensor


_EVERY_STEP = {"step", "loss", "learning_rate", "gradient_norm", "seconds"}


class MetricsLogger:
    """`metrics.jsonl` and TensorBoard; a resumed run drops the lines that it is about to write again.

    Seconds are the run's: adapters that learn in one pass have them in common.
    """

    def __init__(self, folder: AdapterFolder, first: int, *, writes: bool) -> None:
        self._path, self._writes = folder.metrics, writes
        lines = self._path.read_text(encoding="utf-8").splitlines() if first and self._path.exists() else []
        records = [json.loads(line) for line in lines[:first]]
        self._losses = [record["loss"] for record in records]
        self.seconds = records[-1]["seconds"] if records else 0.0
        known: dict[str, float] = {name: value for record in records for name, value in record.items()}
        self.last_validation = {name: value for name, value in known.items() if name not in _EVERY_STEP}
        if writes:
            for old in () if first else (folder.tensorboard, folder.samples):
                shutil.rmtree(old, ignore_errors=True)
            self._board = SummaryWriter(str(folder.tensorboard), purge_step=first + 1)
            write_text(self._path, "".join(line + "\n" for line in lines[:first]))
        self._clock = time.monotonic()

    def __enter__(self) -> "MetricsLogger":
        if self._writes:
            self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._writes:
            self._file.close()
            self._board.close()

    @property
    def recent(self) -> float:
        """Mean loss of the last 50 steps: a single step's loss says little, because its timesteps are random.

        NaN where no step is known, as of a resumed run that lost its metrics.
        """
        window = self._losses[-50:]
        return sum(window) / len(window) if window else math.nan

    def write(self, step: Step, measured: dict[str, float]) -> float:
        """Note one step, and what was measured after it; returns its loss."""
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        loss = float(step.loss)
        self._losses.append(loss)
        self.last_validation |= measured
        values = {"loss": loss, "learning_rate": step.rate, "gradient_norm": float(step.norm), **measured}
        if self._writes:
            # In fp16 the norm of a step that was passed over is infinite, which JSON has no word for.
            known = {name: value if math.isfinite(value) else None for name, value in values.items()}
            self._file.write(json_text({"step": step.number, **known, "seconds": round(self.seconds, 3)}) + "\n")
            self._file.flush()
            for name, value in values.items():
                self._board.add_scalar(name, value, step.number)
        return loss

    def show(self, step: int, pictures: Sequence[tuple[Frame, Image.Image]]) -> None:
        """Samples, where TensorBoard shows images."""
        for frame, image in pictures:
            self._board.add_image(frame.scene, np.asarray(image), step, dataformats="HWC")
