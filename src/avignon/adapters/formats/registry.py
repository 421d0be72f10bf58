"""The formats of adapter files, one row each, and the one way to an adapter's file. Torch is loaded by `read` alone.

A format is found by the keys in the file, whatever the file is called.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon.adapters import headers
from avignon.adapters.formats import configs, diffusers, kohya, native, parts, peft
from avignon.adapters.headers import LayerShapes
from avignon.core.errors import AdapterError
from avignon.core.files import digest, sha256_of
from avignon.core.workspace import AdapterFolder
from avignon.models import finite

if TYPE_CHECKING:
    import torch

    from avignon.adapters.state import AdapterState, LayerChange

FORMATS = {"diffusers": diffusers, "kohya": kohya, "peft": peft}
"""Modules by the name of their format. Each has `WEIGHTS_FILE`, `recognizes`, `layer_of`, `configs` and `write`, as
diffusers'; one that is only read needs no `write`."""


@dataclass(frozen=True)
class AdapterFile:
    """A saved adapter as its header describes it."""

    paths: tuple[Path, ...]
    """Its files of tensors: one, but for peft's folders of several components."""
    format: str
    """Its name in `FORMATS`."""
    layers: Mapping[str, LayerShapes]
    """By layer, as `AdapterState` names them."""
    keys: Mapping[str, Mapping[str, str]]
    """By layer of the file, which may be several (`native.parts_of`), the names of its tensors there, by part."""
    metadata: Mapping[str, str]
    """The header's."""

    @property
    def path(self) -> Path:
        """The file; of several the first."""
        return self.paths[0]

    @property
    def card(self) -> Path | None:
        """Avignon's card, where the file lies in an adapter's own folder under the name that it has there."""
        card = AdapterFolder(self.path.parent).card
        return card if self.path.name == diffusers.WEIGHTS_FILE and card.exists() else None

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, or over those of several."""
        hashes = [sha256_of(path) for path in self.paths]
        return hashes[0] if len(hashes) == 1 else digest(hashes)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The ways in which changes of layers are written: LoRA, DoRA, LoCon, LoHa, LoKr, full."""
        return tuple(dict.fromkeys(each.method for each in self.layers.values()))

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that occur, in ascending order."""
        return tuple(sorted({each.rank for each in self.layers.values()}))

    @property
    def _alpha(self) -> str:
        if any("alpha" in keys for keys in self.keys.values()):
            return "an alpha for each layer"
        is_told = diffusers.METADATA in self.metadata
        is_told |= self.format == "peft" and (self.path.parent / peft.CONFIG_FILE).exists()
        return "alpha by its configuration" if is_told else "no alpha (a scale of 1)"

    @property
    def summary(self) -> str:
        """What was read, for people, in a line."""
        count = len(self.layers)
        components = Counter(layer.partition(".")[0] for layer in self.layers)
        ranks = f"rank {self.ranks[0]}" if len(self.ranks) == 1 else f"ranks {self.ranks[0]} to {self.ranks[-1]}"
        where = ", ".join(f"{part} {number}" for part, number in components.items())
        family = headers.family(self.layers)
        kinds = " and ".join(self.kinds)
        return (
            f"{self.path.name}: {self.format} format, {kinds}, {count} of {count} layers read ({where}), {ranks}, "
            f"{self._alpha}, {f'for {family}' if family else 'its base is not told'}"
        )


def find(place: Path) -> AdapterFile:
    """The adapter in a file, or in a folder with one: that of a format's own name, else the only safetensors file.

    Raises:
        AdapterError: there is none, or it is damaged, incomplete, or in no format that is read.
    """
    paths = _weights_in(place)
    found = [headers.adapter(path, diffusers.WEIGHTS_FILE) for path in paths]
    shapes = {
        peft.key_of(path, key): shape for path, (own, _) in zip(paths, found, strict=True) for key, shape in own.items()
    }
    keys = list(shapes)
    name = next((name for name, module in FORMATS.items() if module.recognizes(keys)), "diffusers")
    grouped = parts.grouped(str(paths[0]), keys, FORMATS[name].layer_of)
    layers: dict[str, LayerShapes] = {}
    for layer, own in grouped.items():
        try:
            change = parts.shapes({part: shapes[key] for part, key in own.items()})
        except ValueError:
            raise AdapterError(
                f"{paths[0]}: no complete LoRA or DoRA: of {layer} there is only {', '.join(sorted(own.values()))}"
            ) from None
        except IndexError:
            told = ", ".join(f"{shapes[key]} of {key}" for key in sorted(own.values()))
            raise AdapterError(f"{paths[0]}: damaged: {layer} has tensors of shapes that nothing has: {told}") from None
        headers.check_whole(paths[0], layer, change)
        several = native.parts_of(layer)
        if twice := layers.keys() & several:
            raise AdapterError(f"{paths[0]}: changes {min(twice)} twice: by itself, and as a part of {layer}")
        layers |= dict.fromkeys(several, _share(paths[0], layer, change, len(several)))
    if not layers:
        raise AdapterError(f"{paths[0]}: no complete LoRA or DoRA: it holds no tensor")
    return AdapterFile(paths, name, layers, grouped, found[0][1])


def _share(path: Path, layer: str, change: LayerShapes, count: int) -> LayerShapes:
    """One of so many equal parts of a layer's outputs."""
    out, *rest = change.up
    if out % count:
        raise AdapterError(f"{path}: damaged: {layer} has {out} outputs for {count} layers")
    lengths = tuple(length // count if length == out else length for length in change.magnitude)
    return replace(change, up=(out // count, *rest), magnitude=lengths)


def _weights_in(place: Path) -> tuple[Path, ...]:
    """The files of an adapter; where there is none, the one that is missed."""
    if place.is_file():
        return (place,)
    own = next((place / each.WEIGHTS_FILE for each in FORMATS.values() if (place / each.WEIGHTS_FILE).is_file()), None)
    if own:
        return (own,)
    by_component = sorted(path.parent for path in place.glob(f"*/{peft.CONFIG_FILE}"))
    if by_component:
        return tuple(folder / peft.WEIGHTS_FILE for folder in by_component)
    files = sorted(place.glob("*.safetensors"))
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise AdapterError(f"{place}: holds several adapters: {names}; name one of these files")
    return tuple(files) or (place / diffusers.WEIGHTS_FILE,)


def read(place: Path) -> "AdapterState":
    """The adapter in a file or a folder.

    Raises:
        AdapterError: as by `find`; or its configuration is damaged.
    """
    return read_file(find(place))


def read_file(file: AdapterFile) -> "AdapterState":
    """The adapter of an opened file."""
    from safetensors.torch import load_file

    from avignon.adapters.formats import lycoris
    from avignon.adapters.state import AdapterState

    try:
        read: dict[str, Any] = FORMATS[file.format].configs(file.paths, file.metadata)
        told = {component: configs.checked(config) for component, config in read.items()}
        is_renamed = any(
            layer.startswith("transformer.") and not _names(layer, own) for layer, own in file.keys.items()
        )
        if is_renamed and any(told.get("transformer", {}).get(f"{each}_pattern") for each in ("rank", "alpha")):
            raise ValueError("a configuration with ranks or alphas by other names of layers than diffusers'")
        tensors = {peft.key_of(path, key): tensor for path in file.paths for key, tensor in load_file(path).items()}
        for key, tensor in tensors.items():
            _check_numbers(file.path, key, tensor)
        layers: dict[str, LayerChange] = {}
        for layer, keys in file.keys.items():
            own = {part: tensors[key] for part, key in keys.items()}
            several = native.parts_of(layer)
            change = lycoris.layer(file.layers[several[0]].kind, own, layer, told)
            layers |= zip(several, change.split(len(several)), strict=True)
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError, OverflowError, re.error) as broken:
        kind = "" if isinstance(broken, ValueError) else f"{type(broken).__name__}: "  # Those say what is wrong.
        raise AdapterError(f"{file.path}: damaged: {kind}{broken}".splitlines()[0]) from broken
    for layer, change in layers.items():
        if not math.isfinite(change.alpha):
            raise AdapterError(f"{file.path}: damaged: the alpha of {layer} is {change.alpha}")
    if not any(change.alpha for change in layers.values()):
        raise AdapterError(f"{file.path}: changes nothing: alpha is 0 in all of its {len(layers)} layers")
    own_configs = {part: told[part] for part in {layer.partition(".")[0] for layer in layers} if part in told}
    if is_renamed:  # It names layers that diffusers has not.
        own_configs.pop("transformer", None)
    return AdapterState(layers, file.format, file.metadata, own_configs)


def _names(layer: str, keys: Mapping[str, str]) -> bool:
    """Whether a file's keys have a layer by the name that it has in diffusers."""
    return all(f"{layer.partition('.')[2]}." in key for key in keys.values())


def _check_numbers(path: Path, key: str, tensor: "torch.Tensor") -> None:
    """Every tensor has real numbers, but for an alpha, which may be an integer."""
    if tensor.is_complex() or not (tensor.is_floating_point() or key.endswith(".alpha")):
        raise AdapterError(f"{path}: damaged: {key} is of {str(tensor.dtype).removeprefix('torch.')}; read are floats")
    if not finite.is_finite(tensor):
        raise AdapterError(f"{path}: damaged: NaN or infinity in the tensor {key}")
