"""diffusers' format: peft's own names of tensors behind a prefix, and the adapter's configuration as metadata.

What a file's header tells, what it adapts and whether that fits a base, is read without torch.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from avignon.core.errors import AdapterError
from avignon.models.registry import FAMILIES

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"


def factors(path: Path) -> dict[str, dict[str, list[int]]]:
    """Shapes of A, B and a DoRA's magnitude of every adapted layer.

    Raises:
        AdapterError: the file is missing, damaged, or holds anything else than a UNet's LoRA in diffusers' format.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for key, shape in _shapes(path).items():
        match = re.fullmatch(r"unet\.(.+)\.(?:(lora_[AB])\.weight|(lora_magnitude_vector))", key)
        if not match:  # Of a text encoder, say: it would be on in every picture, whatever its weight.
            raise AdapterError(f"{path}: {key} is no part of a LoRA or DoRA for a UNet in diffusers' format")
        found.setdefault(match[1], {})[match[2] or match[3]] = shape
    if not found or any(not parts.keys() >= {"lora_A", "lora_B"} for parts in found.values()):
        raise AdapterError(f"{path}: no complete LoRA or DoRA for a UNet in diffusers' format")
    return found


def _shapes(path: Path) -> dict[str, list[int]]:
    try:
        return _header(path)
    except (FileNotFoundError, NotADirectoryError):
        raise AdapterError(
            f"{path}: no such file; an adapter's folder holds {WEIGHTS_FILE}{_instead(path.parent)}"
        ) from None
    except (OSError, safetensors.SafetensorError) as broken:
        raise AdapterError(f"{path}: damaged: {broken}") from None


def _instead(folder: Path) -> str:
    if folder.is_file():
        return f", and {folder.name} is a file"
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    return f"; here are {', '.join(names)}" if names else ""


def _header(path: Path) -> dict[str, list[int]]:
    with safetensors.safe_open(path, framework="np") as file:
        return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - it is no mapping


def layers_in(base: Path) -> dict[str, Sequence[int]]:
    """Shapes of the weights of a base's denoiser, by layer, from all files; none where one is missing or damaged.

    What is wrong with a base is told where the base is checked.
    """
    shapes: dict[str, Sequence[int]] = {}
    folders = {family.denoiser for family in FAMILIES.values()}
    for path in (path for folder in folders for path in (base / folder).glob("*.safetensors")):
        try:
            shapes |= {k.removesuffix(".weight"): v for k, v in _header(path).items() if k.endswith(".weight")}
        except (OSError, safetensors.SafetensorError):
            return {}
    return shapes


def check_fit(path: Path, layers: Mapping[str, Sequence[int]]) -> None:
    """Everything must fit a layer of the UNet; diffusers drops what does not fit with a log line at most.

    Args:
        path: the adapter's file.
        layers: by name, the shape of the layer's weight.

    Raises:
        AdapterError: as `factors` does, or naming the first layer that does not fit.
    """
    for layer, parts in factors(path).items():
        shape = layers.get(layer)
        if shape is None:
            raise AdapterError(f"{path}: made for another base: the UNet has no layer {layer}")
        # A is (rank, in, …) and B (out, rank, …); of a convolution, A has the kernel's shape as well.
        down, up = parts["lora_A"], parts["lora_B"]
        if not down[0]:
            raise AdapterError(f"{path}: damaged: {layer} has a rank of 0")
        length = [shape[0]] if len(shape) == 2 else [1, shape[0], 1, 1]
        fits = down[1:] == list(shape[1:]) and up[:2] == [shape[0], down[0]]
        if not fits or parts.get("lora_magnitude_vector", length) != length:
            raise AdapterError(f"{path}: made for another base: {layer} is {tuple(shape)} here")


def content_hash(path: Path) -> str:
    """SHA-256 of what follows a safetensors file's header, which metadata do not change (AutoV3 on Civitai).

    Format: eight bytes of length (little-endian), the header in JSON, the tensors.
    """
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()


METADATA = "lora_adapter_metadata"
"""The key of a file's metadata under which diffusers keeps an adapter's configuration, as JSON."""


def write(path: Path, weights: "Mapping[str, Tensor]", config: Mapping[str, Any], prefix: str) -> None:
    """Write an adapter, the same bytes each time.

    Args:
        path: of the file.
        weights: by peft's names.
        config: of the adapter, as peft has it.
        prefix: before every name, such as `unet`.
    """
    from safetensors.torch import save_file  # Here, because it loads torch.

    # peft keeps names of layers in a set, in an order that differs from process to process.
    ordered = {f"{prefix}.{key}": sorted(v) if isinstance(v, set) else v for key, v in config.items()}
    metadata = {"format": "pt", METADATA: json.dumps(ordered, indent=2, sort_keys=True)}
    save_file({f"{prefix}.{key}": tensor for key, tensor in weights.items()}, path, metadata)
    _sort_header(path)


def _sort_header(path: Path) -> None:
    """Sort a file's header, whose metadata is in random order, so that equal adapters are equal files."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # The tensors stay aligned.
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[start:])


def read(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any] | None]":
    """Tensors by their names in the file, and the adapter's configuration; None where the file has none."""
    from safetensors.torch import load_file

    with safetensors.safe_open(path, framework="pt") as file:
        told = (file.metadata() or {}).get(METADATA)
    return load_file(path), json.loads(told) if told else None
