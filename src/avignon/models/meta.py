"""Shapes without numbers: torch's meta device, and networks on it."""

from collections.abc import Mapping
from typing import Any

import torch

Configs = Mapping[str, Mapping[str, Any]]
"""What the config.json of each part of a base says, by its folder."""

META = torch.device("meta")
"""Where tensors have shapes and no numbers."""

TOKENS = 128
"""Of a text of which nothing is known, where a base reads texts of any length: a long caption."""


def without_weights(kind: Any, config: Mapping[str, Any]) -> Any:
    """A frozen network on the meta device, of a class and by a configuration of diffusers' or transformers'."""
    with META:
        made = kind.from_config(dict(config)) if hasattr(kind, "from_config") else kind(kind.config_class(**config))
    return made.requires_grad_(requires_grad=False).eval()
