"""Paths, constants that several stages share, and what one call has chosen."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from avignon.demo.painters import PAINTERS
from tools.train_miniature.clock import Clock

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "miniature"
DOCS = ROOT / "docs" / "miniature"
BASE = ROOT / "src" / "avignon" / "demo" / "base"

SEED = 1907
SIZE = 192
"""Pixels of a side of the miniature that ships; the autoencoder reduces by 8."""
NEUTRAL = 24_000
PAINTED = 3_000
"""Pictures for training: neutral ones, and by each painter; with `--minutes`, at most twice as many."""
CHECKS = 96
"""Held-out pictures, to measure on: the last ones of each kind."""
KINDS = ("neutral", *PAINTERS)
CPU = torch.device("cpu")
LARGE_CARD = 20 * 2**30
"""Bytes of a card's memory that suffice for the large batches."""


class Batches(NamedTuple):
    """Samples per step, and the autoencoder's pixels per side of one."""

    vae: int
    crop: int
    unet: int


@dataclass(frozen=True)
class Run:
    """One call: the size of pictures, its folders, the weights to begin from, its time, its device."""

    size: int = SIZE
    cache: Path = CACHE
    base: Path = BASE
    """Where the model is written."""
    report: Path = DOCS
    """Where curves and samples are written."""
    warm: Path | None = None
    """A model whose weights are taken where there is no checkpoint yet."""
    clock: Clock | None = None
    """None where stages count steps."""
    device: torch.device = CPU

    @property
    def words(self) -> Path:
        """The model whose text encoder and tokenizer serve where none was trained in this cache."""
        return self.warm or BASE

    @property
    def batches(self) -> Batches:
        """What a step takes; a card is busy only with much at once."""
        if self.device.type != "cuda":
            return Batches(vae=16, crop=64, unet=32)
        large = torch.cuda.get_device_properties(self.device).total_memory >= LARGE_CARD
        return Batches(vae=32, crop=128, unet=256) if large else Batches(vae=16, crop=128, unet=64)

    @property
    def measured(self) -> int:
        """Held-out pictures of a kind to measure on as training goes; few where the time is short and the CPU works."""
        return 4 if self.clock and self.device.type == "cpu" else 32
