"""A disk that gives back another adapter than was written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from avignon.adapters import lora as adapters
from avignon.core.errors import AvignonError

Tensors = dict[str, torch.Tensor]


def refuses_spoiled(unet: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensors], None]) -> None:
    """Saving the UNet's adapter `new`, spoiled on the way to the file, is an error, and no file is left."""
    write = StableDiffusionPipeline.save_lora_weights

    def spoiled(into: Path, *, unet_lora_layers: Tensors, **others: Any) -> None:
        spoil(unet_lora_layers)
        write(into, unet_lora_layers=unet_lora_layers, **others)

    monkeypatch.setattr(StableDiffusionPipeline, "save_lora_weights", spoiled)
    with pytest.raises(AvignonError, match="did not come back"):
        adapters.save(unet, "new", folder / adapters.WEIGHTS_FILE)
    assert not any(folder.iterdir())
