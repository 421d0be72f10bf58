"""The layers of a denoiser that hold adapters, and what adapters are called inside peft."""

import re
from typing import Any

import torch


def inner(name: str) -> str:
    """An adapter's name inside peft, whatever the user calls it.

    peft and PyTorch make names of parameters with it, in which a dot divides, and find an adapter's by searching for
    its name: one called `lora_A`, `weight` or `0` would be found in every layer.
    """
    return "x" + name.encode().hex()


def outer(inside: str) -> str:
    """The inverse of `inner`; the name itself where it was not made by that."""
    return bytes.fromhex(inside[1:]).decode() if re.fullmatch(r"x(?:[0-9a-f]{2})*", inside) else inside


def lora_layers(denoiser: Any) -> list[tuple[str, Any]]:
    """Names and modules of the layers that peft has wrapped."""
    return [(name, module) for name, module in denoiser.named_modules() if hasattr(module, "lora_A")]


def dora_magnitudes(denoiser: Any, name: str) -> dict[str, torch.nn.Parameter]:
    """A DoRA's magnitudes by layer, (out,) of a linear layer and (1, out, 1, 1) of a convolution; none of a LoRA."""
    return {
        path: module.lora_magnitude_vector[inner(name)].weight
        for path, module in lora_layers(denoiser)
        if inner(name) in module.lora_magnitude_vector
    }


def adapters_on(network: Any) -> set[str]:
    """Names of the adapters that change any layer of a network."""
    return {outer(inside) for _, module in lora_layers(network) for inside in module.lora_A}


def doras(denoiser: Any) -> set[str]:
    """Names of those adapters on the denoiser that are DoRA."""
    return {outer(inside) for _, module in lora_layers(denoiser) for inside in module.lora_magnitude_vector}
