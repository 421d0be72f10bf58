"""What a model computes on: device, precision, attention."""

import importlib.util
from typing import Any, Literal

import torch

from avignon.core.errors import RecipeError

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Attention = Literal["sdpa", "xformers", "plain"]

PLAIN_UP_TO = 256
"""Pixels of a side up to which two plain matrix products are the faster attention to train with on a CPU."""


def best_device() -> torch.device:
    """The best device of this machine."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def precision_for(asked: Precision | Literal["auto"], stage: str, on: torch.device) -> Precision:
    """The precision a stage works in; `auto` is the device's best: on a CPU bf16 where it multiplies that natively.

    Raises:
        RecipeError: a precision that the device cannot do.
    """
    if asked == "auto":
        if on.type == "cuda":
            return "fp16"
        return "bf16" if on.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"
    if asked == "fp16" and on.type == "cpu":
        raise RecipeError(f"{stage}.precision: 'fp16' needs a GPU and this machine has none; use auto, bf16 or fp32")
    return asked


def attention_for(asked: Attention | Literal["auto"], on: torch.device, trained_at: int = 0) -> Attention:
    """The attention backend to generate with, or to train with at this many pixels a side.

    Raises:
        RecipeError: xFormers is asked for and cannot be used here.
    """
    usable = on.type == "cuda" and importlib.util.find_spec("xformers") is not None
    if asked == "xformers" and not usable:
        raise RecipeError(
            "train.attention: 'xformers' needs a CUDA device and `pip install avignon[xformers]`; use auto or sdpa"
        )
    if asked != "auto":
        return asked
    if usable:
        return "xformers"
    return "plain" if on.type == "cpu" and 0 < trained_at <= PLAIN_UP_TO else "sdpa"


def move_to(module: Any, *where: Any, **how: Any) -> Any:
    """`module.to(…)` without diffusers' own, which warns of parts to be kept in float32 even where there are none."""
    return torch.nn.Module.to(module, *where, **how)
