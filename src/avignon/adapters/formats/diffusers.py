"""diffusers' format: peft's own names of tensors behind a prefix, and the adapter's configuration as metadata.

`factors` needs no torch.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from avignon.adapters import headers
from avignon.core.errors import AdapterError
from avignon.models.registry import FAMILIES

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"

_PREFIXES = "|".join(re.escape(family.denoiser) for family in FAMILIES.values())
"""Before the names of layers: diffusers calls a denoiser by the folder that it lies in."""


def factors(path: Path) -> dict[str, dict[str, list[int]]]:
    """Shapes of A, B and a DoRA's magnitude of every adapted layer.

    Raises:
        AdapterError: the file is missing, damaged, or holds anything else than a UNet's LoRA in diffusers' format.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for key, shape in headers.adapter(path, WEIGHTS_FILE).items():
        match = re.fullmatch(rf"(?:{_PREFIXES})\.(.+)\.(?:(lora_[AB])\.weight|(lora_magnitude_vector))", key)
        if not match:  # Of a text encoder, say: it would be on in every picture, whatever its weight.
            raise AdapterError(f"{path}: {key} is no part of a LoRA or DoRA for a UNet in diffusers' format")
        found.setdefault(match[1], {})[match[2] or match[3]] = shape
    if not found or any(not parts.keys() >= {"lora_A", "lora_B"} for parts in found.values()):
        raise AdapterError(f"{path}: no complete LoRA or DoRA for a UNet in diffusers' format")
    return found


METADATA = "lora_adapter_metadata"
"""The key of a file's metadata under which diffusers keeps an adapter's configuration, as JSON."""


def write(path: Path, weights: "Mapping[str, Tensor]", config: Mapping[str, Any], prefix: str) -> None:
    """Write an adapter's weights and configuration, by peft's names behind a prefix; the same bytes each time."""
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
