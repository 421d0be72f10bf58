"""A disk that gives back another adapter than was written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from avignon.adapters import files
from avignon.adapters.formats import diffusers as lora_format
from avignon.core.errors import AvignonError
from tests.support.bases import TARGETS

Tensors = dict[str, torch.Tensor]


def refuses_spoiled(unet: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensors], None]) -> None:
    """Saving the UNet's adapter `new`, spoiled on the way to the file, is an error, and no file is left."""
    write = safetensors.torch.save

    def spoiled(tensors: Tensors, metadata: dict[str, str]) -> bytes:
        spoil(tensors)
        return write(tensors, metadata)

    monkeypatch.setattr(safetensors.torch, "save", spoiled)
    with pytest.raises(AvignonError, match="did not come back"):
        files.save(unet, TARGETS, "new", folder / lora_format.WEIGHTS_FILE)
    assert not any(folder.iterdir())
