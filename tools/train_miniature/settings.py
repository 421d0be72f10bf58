"""Paths, and constants that several stages share."""

from pathlib import Path

from avignon.demo.painters import PAINTERS

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "miniature"
DOCS = ROOT / "docs" / "miniature"
BASE = ROOT / "src" / "avignon" / "demo" / "base"

SEED = 1907
SIZE = 192
"""Pixels of a side; the autoencoder reduces by 8."""
NEUTRAL = 24_000
PAINTED = 3_000
"""Pictures for training: neutral ones, and by each painter."""
CHECKS = 96
"""Held-out pictures, to measure on: the last ones of each kind."""
KINDS = ("neutral", *PAINTERS)
