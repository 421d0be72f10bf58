"""Adapters for other programs: one file in any format, with a header, proved by reading it again."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from avignon.adapters import cards, headers, modelspec, sources
from avignon.adapters.formats import registry as formats
from avignon.adapters.formats import safe
from avignon.adapters.state import AdapterState, LayerChange
from avignon.core import imaging
from avignon.core.errors import AdapterError, AvignonError, WorkspaceError
from avignon.core.events import Reporter
from avignon.core.files import SCRATCH, read_json, replacing, storing, write_json
from avignon.core.records import Card
from avignon.core.workspace import AdapterFolder, Workspace
from avignon.models.flux2_klein.files import architecture as flux2_architecture
from avignon.recipe.schema import adapter_place

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

ELSEWHERE = "name another place with --to"

NAMELESS = ("pytorch_lora_weights", "adapter_model")
"""Names of files that say nothing of the adapter; its folder's does."""


@dataclass(frozen=True)
class Source:
    """An adapter that is there: trained here, or anybody's."""

    name: str
    path: Path
    """Its file of weights."""
    sha256: str
    state: AdapterState
    card: Card | None
    """Where it was trained here."""

    @property
    def architecture(self) -> str:
        """The base's, in ModelSpec's words."""
        return str(self.card.base["architecture"]) if self.card else architecture_of(self.state)

    @property
    def preview(self) -> Path:
        """The picture beside it, which may be missing."""
        return self.path.parent / f"{self.name}.png"

    def header(self) -> dict[str, str]:
        """What its file for other programs says, or would say."""
        shared = AdapterFolder(self.path.parent).shared(self.name)
        told = self.state.metadata
        if self.card and shared.exists():
            told = dict(formats.find(shared).metadata)
        elif self.card:
            thumbnail = modelspec.thumbnail(imaging.load(self.preview)) if self.preview.exists() else ""
            return modelspec.of_card(self.card, network(self.state), {}, thumbnail)
        return modelspec.of_header(told, network(self.state), self.name, self.architecture)


def named(value: str, reporter: Reporter) -> Source:
    """The adapter that a user names: a file, a folder such as `RUN/adapters/NAME`, an imported name, a repository.

    Raises:
        AdapterError: it is missing, damaged, or of a kind that is not understood.
        ModelError: a repository cannot be reached.
    """
    return opened(sources.place(adapter_place(value, Path.cwd()), reporter, "ADAPTER"))


def opened(place: Path) -> Source:
    """The adapter in a file or a folder; an `AdapterError` where there is none."""
    file = formats.find(place)
    state, card = formats.read_file(file), _card(file.path)
    stem = file.path.parent.resolve().name if file.path.stem in NAMELESS else file.path.stem
    if card and not card.base.get("architecture"):
        card = replace(card, base={**card.base, "architecture": architecture_of(state)})
    return Source(card.name if card else stem, file.path, file.sha256, state, card)


def _card(path: Path) -> Card | None:
    """The card of an adapter that was trained here, with its works; one of before has them in the run's ledger."""
    try:
        place = AdapterFolder(path.parent).card
        card = Card(**read_json(place))
    except (OSError, TypeError, WorkspaceError):  # None, or another program's.
        return None
    if wrong := cards.fault(card):
        raise AdapterError(f"{place}: damaged: {wrong}")
    if path.stem not in (*NAMELESS, card.name):
        return None
    run = Workspace(path.resolve().parent.parent.parent)
    if not card.works and run.ledger.exists():
        return replace(card, works=tuple(cards.work_records(card.artists, run.read_ledger())))
    return card


def architecture_of(state: AdapterState) -> str:
    """The base's architecture in ModelSpec's words: what the file says, else by the shapes of its layers."""
    told = state.metadata.get("modelspec.architecture", "").removesuffix("/lora")
    if told:
        return told
    version = state.metadata.get("ss_base_model_version", "")
    by_version = {name: architecture for architecture, (name, _, _) in modelspec.BASES.items()}
    if version in by_version:
        return by_version[version]
    if headers.is_sdxl(state.layers, state.metadata):
        return "stable-diffusion-xl-v1-base"
    if "transformer" in state.components:  # Of two families names are read.
        edges = [min(each.shape) for layer, each in state.layers.items() if "transformer_blocks." in layer]
        return flux2_architecture(min(edges)) if edges else "Z-Image"
    ends = {layer.rpartition(".transformer_blocks.0.")[2]: each for layer, each in state.layers.items()}
    text = next((ends[end].down.shape[1] for end in ("attn2.to_k", "attn2.to_v") if end in ends), 0)
    widths = {768: "stable-diffusion-v1", 1024: "stable-diffusion-v2-512", 2048: "stable-diffusion-xl-v1-base"}
    if text in widths:
        return widths[text]
    projections = [each for layer, each in state.layers.items() if layer.endswith((".proj_in", ".proj_out"))]
    # Version 1 projects with 1×1 convolutions.
    is_linear = any(each.down.dim() == 2 for each in projections)
    return "stable-diffusion-v2-512" if is_linear else "stable-diffusion-v1"


def network(state: AdapterState) -> modelspec.Network:
    """What a header says of the layers."""
    kinds: dict[bool, set[tuple[int, float]]] = {False: set(), True: set()}
    for change in state.layers.values():
        kinds[any(edge > 1 for edge in change.down.shape[2:])].add((change.rank, change.alpha))
    is_dora = any(change.magnitude is not None for change in state.layers.values())
    return modelspec.Network(frozenset(kinds[False]), frozenset(kinds[True]), is_dora)


def share(folder: AdapterFolder, name: str, state: AdapterState, header: Mapping[str, str]) -> None:
    """Write an adapter's one file for all other programs, and the JSON that they show beside it.

    Raises:
        AvignonError: the file, read again, differs from the adapter (and is not kept).
    """
    write(folder.shared(name), state, "kohya", header)
    write_json(folder.shared(name, ".json"), modelspec.sidecar(header))


def write(path: Path, state: AdapterState, kind: str, header: Mapping[str, str], precision: str = "") -> None:
    """Write an adapter in a format: a file, or for peft a folder. In a precision, by default its own.

    Raises:
        AdapterError: the format cannot hold it.
        AvignonError: what was written, read again, differs from the adapter (and is not kept).
    """
    if kind != "kohya" and any(each.axis == "input" and each.magnitude is not None for each in state.layers.values()):
        raise AdapterError(f"{path}: a DoRA with norms of inputs, which {kind} has no name for; use --format kohya")
    if kind == "peft":  # Weights and configuration are two files.
        _write_folder(path, state, kind, header, precision)
        return
    with replacing(path, ELSEWHERE) as scratch:
        _write(scratch, state, kind, header, precision)


def _write_folder(path: Path, state: AdapterState, kind: str, header: Mapping[str, str], precision: str) -> None:
    scratch = path.with_name(SCRATCH + path.name)
    with storing(path, ELSEWHERE):
        try:
            shutil.rmtree(scratch, ignore_errors=True)  # Of a call that was killed.
            scratch.mkdir(parents=True)
            _write(scratch, state, kind, header, precision)
            scratch.replace(path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _write(place: Path, state: AdapterState, kind: str, header: Mapping[str, str], precision: str) -> None:
    dtype = PRECISIONS[precision] if precision else None
    family = headers.makers(state.layers, header) if kind == "kohya" else ""
    told = {**header, "modelspec.implementation": modelspec.IMPLEMENTATIONS[family]}
    formats.FORMATS[kind].write(place, state, told, dtype)
    file = formats.find(place)
    for path in file.paths:
        safe.annotate(path, modelspec.hashes(path))
    back, wanted = formats.read_file(file), state.map(lambda each: each.to(dtype)) if dtype else state
    both = wanted.layers.keys() & back.layers.keys()
    same = {layer for layer in both if _same(wanted.layers[layer], back.layers[layer])}
    if wrong := (wanted.layers.keys() | back.layers.keys()) - same:
        raise AvignonError(f"{place}: {len(wrong)} of {len(wanted.layers)} layers did not come back: {min(wrong)}")


def _same(one: LayerChange, other: LayerChange) -> bool:
    """Whether every number is equal; alpha as a number of 32 bits, as which kohya's format has it."""
    tensors = ((one.down, other.down), (one.up, other.up), (one.magnitude, other.magnitude))
    alphas = torch.tensor([one.alpha, other.alpha], dtype=torch.float32)
    return bool(alphas[0] == alphas[1]) and all(
        (a is None and b is None) or (a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b))
        for a, b in tensors
    )
