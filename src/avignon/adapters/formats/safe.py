"""safetensors files whose bytes are the same each time, and never half-written."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import torch as safetensors_torch


def write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata to `path`, which the caller replaces or removes as a whole."""
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    safetensors_torch.save_file(contiguous, path, dict(metadata))
    _sort_header(path)


def _sort_header(path: Path) -> None:
    """Sort a file's header, whose metadata is in random order, so that equal adapters are equal files."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # The tensors stay aligned.
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[start:])
