"""Pictures from saved adapters: each prompt's own, or base, each adapter alone and the mix, side by side."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from avignon.core import imaging, png
from avignon.core.files import json_text, json_value, write_bytes
from avignon.core.grids import grid
from avignon.core.records import Frame, frame_record
from avignon.generation.series import BASE
from avignon.generation.standalone import SavedAdapter, StandaloneSampler, free_file

MIX = "mix"
"""The stop at which all adapters are on."""

Column = tuple[str, dict[str, float]]
"""A stop, and the weights of the adapters there."""


def columns(adapters: Sequence[SavedAdapter], *, compare: bool) -> list[Column]:
    """What is painted of every seed: all adapters at once; to compare, before that the base, and each alone."""
    alone: list[Column] = [(each.name, {each.name: each.weight}) for each in adapters]
    mix: list[Column] = [(MIX, {each.name: each.weight for each in adapters})] if len(adapters) > 1 else []
    return [(BASE, {}), *alone, *mix] if compare else mix or alone


def sample(sampler: StandaloneSampler, prompt: str, seeds: Sequence[int], *, compare: bool) -> list[Path]:
    """Paint a prompt with every seed; gives the files, to compare with the sheet of all pictures at the end."""
    stops = columns(sampler.adapters, compare=compare)
    frames = [sampler.frame(stop, prompt, seed, weights) for seed in seeds for stop, weights in stops]
    files = sampler.paint(frames)
    return [*files, _sheet(sampler, frames, files, stops)] if compare else files


def _sheet(sampler: StandaloneSampler, frames: Sequence[Frame], files: Sequence[Path], stops: Sequence[Column]) -> Path:
    """One picture of all: a row for every seed, a column for every stop, with labels."""
    fields = {"frames": [frame_record(frame) for frame in frames]}
    path, there = free_file(sampler.folder / "compare.png", partial(_holds, fields))
    rights = " ".join(dict.fromkeys(filter(None, map(sampler.rights, frames))))  # Each sentence once.
    if there and png.png_rights(path) == rights:
        return path
    across = len(stops)
    rows = [[imaging.load(file) for file in files[i : i + across]] for i in range(0, len(files), across)]
    above = [f"{stop}: {_told(weights)}" if stop == MIX else _told(weights) or stop for stop, weights in stops]
    beside = [f"seed {frame.seed}" for frame in frames[::across]]
    words = f"{frames[0].prompt}\n{'; '.join(above)}; {', '.join(beside)}"
    write_bytes(path, png.png_bytes(grid(rows, above, beside), words, fields, rights))
    return path


def _holds(fields: Mapping[str, object], path: Path) -> bool:
    return bool(png.png_fields(path) == json_value(json_text(fields)))


def _told(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
