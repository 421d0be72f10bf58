"""safetensors files whose bytes are the same each time, and never half-written."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import torch as safetensors_torch


def write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata to `path`, which the caller replaces or removes as a whole."""
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    path.write_bytes(safetensors_torch.save(contiguous, dict(metadata)))  # `save_file` shuts others out (mode 600).
    annotate(path, {})


def annotate(path: Path, more: Mapping[str, str]) -> None:
    """Add to a file's metadata, and sort its header, whose order is random, so that equal adapters are equal files."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    held = json.loads(content[8:start])
    held["__metadata__"] = {**held.get("__metadata__", {}), **more}
    header = json.dumps(held, sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # The tensors stay aligned.
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[start:])
