"""Adapters of random numbers, for what is done with their files."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from avignon.adapters.formats import names
from avignon.adapters.state import AdapterState, LayerChange

SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "1.5": (
        {"block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8, "cross_attention_dim": 768},
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    ),
    "2.1": (
        {
            "block_out_channels": (320, 640, 1280, 1280),
            "attention_head_dim": (5, 10, 20, 20),
            "cross_attention_dim": 1024,
            "use_linear_projection": True,
        },
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16},
    ),
    "tiny 1": (
        {"block_out_channels": (8, 16, 16, 24), "attention_head_dim": 4, "cross_attention_dim": 12},
        {"hidden_size": 12, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
    ),
    "tiny 2": (
        {
            "block_out_channels": (8, 16, 16, 24),
            "attention_head_dim": 4,
            "cross_attention_dim": 16,
            "use_linear_projection": True,
        },
        {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    ),
}
"""Of UNet and text encoder, by the version of Stable Diffusion; the tiny ones have the same blocks as the real."""


def networks(size: str) -> dict[str, Any]:
    """UNet and text encoder of a size: without weights the real ones, of random numbers the tiny ones."""
    denoiser, encoder = SIZES[size]
    is_tiny = size.startswith("tiny")
    with torch.device("cpu" if is_tiny else "meta"):
        return {
            "unet": UNet2DConditionModel(**denoiser, **({"norm_num_groups": 4} if is_tiny else {})),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**encoder, **({"vocab_size": 99} if is_tiny else {}))),
        }


def layers_of(networks: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of all linear and convolution layers of some networks, as `AdapterState` names them."""
    return {
        names.canonical(f"{component}.{name}"): tuple(module.weight.shape)
        for component, network in networks.items()
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }


def random_state(
    layers: Mapping[str, tuple[int, ...]],
    seed: int,
    *,
    ranks: tuple[int, ...] = (1, 2, 3, 5),
    dora: bool = False,
    dtype: torch.dtype = torch.float32,
) -> AdapterState:
    """A change of each layer, of random numbers, a random rank of `ranks`, and an alpha that is not the rank."""
    random = torch.Generator().manual_seed(seed)
    changes = {}
    for name, (out, *rest) in layers.items():
        rank = ranks[int(torch.randint(len(ranks), (1,), generator=random))]
        alpha = float(torch.randint(1, 9, (1,), generator=random)) / 2
        up = torch.randn((out, rank, *(1 for _ in rest[1:])), generator=random, dtype=dtype)
        down = torch.randn((rank, *rest), generator=random, dtype=dtype)
        magnitude = torch.rand(out, generator=random) + 0.5 if dora else None
        changes[name] = LayerChange(down, up, alpha, magnitude)
    return AdapterState(changes)


def chosen(layers: Iterable[str], pattern: str) -> list[str]:
    """Names of layers in which a pattern is found."""
    return [layer for layer in layers if re.search(pattern, layer)]


def same(one: AdapterState, other: AdapterState) -> bool:
    """Whether two adapters are the same changes of the same layers, bit for bit."""

    def alike(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
        return (a is None) == (b is None) and (a is None or b is None or (a.dtype == b.dtype and torch.equal(a, b)))

    return one.layers.keys() == other.layers.keys() and all(
        alike(a.down, b.down)
        and alike(a.up, b.up)
        and alike(a.magnitude, b.magnitude)
        and (a.alpha, a.axis) == (b.alpha, b.axis)
        for a, b in ((one.layers[name], other.layers[name]) for name in one.layers)
    )
