"""A saved adapter measured against works: painted by itself and by the base alone, style, copies and diversity."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from avignon.adapters import cards, headers
from avignon.core import imaging
from avignon.core.buckets import LEAST_AREA
from avignon.core.errors import AdapterError, ImageError, InputError
from avignon.core.events import Reporter
from avignon.core.files import json_text, json_value, read_json_lines, sha256_of, write_json
from avignon.core.formats import SUFFIXES
from avignon.core.records import plain
from avignon.evaluation import copies, style
from avignon.evaluation.adapter_report import NOTES, SCHEMA, AdapterReport, Measures, PictureReport, gained
from avignon.evaluation.measure import MeasuredImage, round3, rounded
from avignon.generation.series import BASE
from avignon.generation.standalone import SavedAdapter, StandaloneSampler, free_file


@dataclass(frozen=True)
class Works:
    """Pictures of a folder, prepared as training images are: their middle square, resampled, or in their bucket."""

    folder: Path
    images: Mapping[str, Image.Image]
    passed_over: Mapping[str, str]
    """Why a picture was not used, by file."""
    work_of: Mapping[str, str]
    """The work that a picture shows, where a folder made by avignon says it; else its own name."""


def pictures_in(folder: Path) -> list[str]:
    """The files in a folder, and below it, that are pictures by their names.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --against names one with pictures of works")
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    names = [path.as_posix() for path in files if not any(part.startswith(".") for part in path.parts)]
    if not names:
        raise InputError(f"{folder}: no pictures; read are {', '.join(SUFFIXES)}")
    return names


def prepared(folder: Path, edge: int, reporter: Reporter) -> Works:
    """The works of a folder at `edge` pixels a side; those that avignon prepared in buckets of that area as they are.

    Raises:
        InputError: not one of its pictures can be used.
    """
    images: dict[str, Image.Image] = {}
    passed: dict[str, str] = {}
    listed = folder / "metadata.jsonl"
    rows = read_json_lines(listed) if listed.exists() else []
    buckets = {row["file_name"]: row["bucket"] for row in rows if {"file_name", "bucket"} <= row.keys()}
    for name in pictures_in(folder):
        try:
            size = imaging.size_of(folder / name)
            if buckets.get(name) == list(size) and LEAST_AREA * edge**2 <= size[0] * size[1] <= edge**2:
                images[name] = imaging.load(folder / name)
            elif min(size) >= edge:
                images[name] = imaging.crops(folder / name, 1, edge)[0][1]
            else:  # Scaled up it would be soft, which no work is.
                passed[name] = f"{size[0]}×{size[1]} pixels; the short side needs {edge}"
        except ImageError as unusable:
            passed[name] = str(unusable).removeprefix(f"{folder / name}: ")
    for name, why in passed.items():
        reporter.warn(f"{folder / name}: passed over: {why}")
    if not images:
        raise InputError(f"{folder}: none of {len(passed)} pictures can be used; the first, {next(iter(passed))}: "
                         f"{next(iter(passed.values()))}")  # fmt: skip
    known = {row["file_name"]: str(row["object_id"]) for row in rows if {"file_name", "object_id"} <= row.keys()}
    return Works(folder, images, passed, {name: known.get(name, name) for name in images})


def scenes_of(adapter: SavedAdapter) -> tuple[str, ...]:
    """The prompts of the recipe that an adapter was trained by, from its card.

    Raises:
        AdapterError: it has none.
    """
    try:
        prompts = tuple(str(scene["prompt"]) for scene in adapter.card["recipe"]["generate"]["scenes"])
    except (KeyError, TypeError):
        prompts = ()
    if not prompts:
        raise AdapterError(f"{adapter.place}: no card with the scenes of a recipe; say what to paint with --prompt")
    return tuple(dict.fromkeys(prompts))


def evaluate(
    sampler: StandaloneSampler, works: Works, prompts: Sequence[str], seeds: Sequence[int], reporter: Reporter
) -> AdapterReport:
    """Paint every prompt with every seed, by the base alone and with the adapter, and measure both."""
    (adapter,) = sampler.adapters
    weights = {adapter.name: adapter.weight}
    pairs = [(prompt, seed) for prompt in prompts for seed in seeds]
    bare = [
        replace(sampler.frame(BASE, prompt, seed, {}), scene=f"prompt-{number}")
        for number, prompt in enumerate(prompts, 1)
        for seed in seeds
    ]
    worn = [replace(one, stop=adapter.name, weights=weights, adapters=sampler.hashes) for one in bare]
    files = sampler.paint([*bare, *worn])
    seen = [MeasuredImage(image, style.traits(image)) for image in map(imaging.load, files)]
    by_base, by_adapter = seen[: len(pairs)], seen[len(pairs) :]
    measures = Measures(works.images, works.work_of)
    found = [measures.nearest(each.image) for each in seen]
    pictures = tuple(
        PictureReport(
            file=file.name,
            prompt=prompt,
            seed=seed,
            style_distance=rounded(measures.distance(own.traits)),
            change_from_base=round3(style.change(own.image, base.image)),
            composition_similarity=round3(copies.likeness(own.image, base.image)),
            nearest=replace(nearest, score=round3(nearest.score)),
        )
        for (prompt, seed), file, own, base, nearest in zip(
            pairs, files[len(pairs) :], by_adapter, by_base, found[len(pairs) :], strict=True
        )
    )
    for copy in (picture for picture in pictures if picture.nearest.is_copy):
        reporter.warn(f"{copy.file} may copy {copy.nearest.file} (score {copy.nearest.score:.2f})")
    painted = (
        measures.of_set(_rows(by_adapter, len(seeds)), found[len(pairs) :]),
        measures.of_set(_rows(by_base, len(seeds)), found[: len(pairs)]),
    )
    hashes = {name: sha256_of(works.folder / name) for name in works.images}
    return AdapterReport(
        adapter=_adapter(sampler, adapter),
        base=sampler.base.card,
        settings=_settings(sampler, prompts, seeds),
        environment=_environment(sampler),
        works=measures.of_works(works.folder.resolve().name, hashes, works.passed_over),
        copy_threshold=copies.THRESHOLD,
        style_gained=gained(*painted),
        by_adapter=painted[0],
        by_base=painted[1],
        pictures=pictures,
        notes=NOTES,
    )


def _rows(several: Sequence[MeasuredImage], length: int) -> list[Sequence[MeasuredImage]]:
    return [several[start : start + length] for start in range(0, len(several), length)]


def write(folder: Path, report: AdapterReport) -> Path:
    """Write a result as JSON, beside those of other settings; gives its file."""
    result = {"schema": SCHEMA, **plain(report)}
    path, there = free_file(folder / "evaluation.json", partial(_holds, json_value(json_text(result))))
    if not there:
        write_json(path, result)
    return path


def _holds(result: object, path: Path) -> bool:
    try:
        return bool(json_value(path.read_bytes()) == result)
    except ValueError:
        return False


def _adapter(sampler: StandaloneSampler, adapter: SavedAdapter) -> dict[str, Any]:
    told = ("artists", "triggers", "dataset", "trainable", "rights", "metrics")
    return {
        "name": adapter.name,
        "file": adapter.file.path.name,
        "format": adapter.file.format,
        "sha256": sampler.hashes[adapter.name],
        "content_sha256": headers.content_hash(adapter.file.path),
        "weight": adapter.weight,
        "card": {key: adapter.card[key] for key in told if key in adapter.card},
    }


def _settings(sampler: StandaloneSampler, prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    named = ("negative_prompt", "num_inference_steps", "guidance_scale", "scheduler")
    told = {name: getattr(sampler.generate, name) for name in named}
    return {
        "prompts": list(prompts),
        "seeds": list(seeds),
        **told,
        "denoiser_only": bool(sampler.generate.denoiser_only),
    }


def _environment(sampler: StandaloneSampler) -> dict[str, Any]:
    """Versions, and the machine: what rounding depends on."""
    device = sampler.device
    return {
        **cards.environment(device.type, sampler.precision),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "system": platform.system(),
        "processor_cores": os.cpu_count(),
    }
