"""What a model computes on: device, precision, attention."""

import importlib
import importlib.util
import os
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


def memory_of(device: torch.device) -> int:
    """Bytes of memory that a device has, whatever is in it; 0 where that is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def precision_for(
    asked: Precision | Literal["auto"], stage: str, on: torch.device, half: Precision = "fp16"
) -> Precision:
    """The precision a stage works in; `auto` is the device's best: on a CPU bf16 where it multiplies that natively.

    `half` is the one that the base's family is computed in on a card.

    Raises:
        RecipeError: a precision that the device cannot do.
    """
    if asked == "auto":
        if on.type == "cuda":
            return half
        return "bf16" if on.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"
    if asked == "fp16" and on.type == "cpu":
        raise RecipeError(f"{stage}.precision: 'fp16' needs a GPU and this machine has none; use auto, bf16 or fp32")
    return asked


def attention_for(
    asked: Attention | Literal["auto"], on: torch.device, trained_at: int = 0, *, masked: bool = False
) -> Attention:
    """The attention backend to generate with, or to train with at this many pixels a side.

    `masked` says that the base's family keeps padding out by a mask (`Family.masks_attention`).

    Raises:
        RecipeError: xFormers is asked for and cannot be used here, or not with a mask.
    """
    if asked == "xformers" and masked:
        raise RecipeError(
            "train.attention: 'xformers' reads the base's masks wrongly, in diffusers; use auto, sdpa or plain"
        )
    usable = asked in ("auto", "xformers") and not masked and on.type == "cuda" and has_xformers(on)
    if asked == "xformers" and not usable:
        raise RecipeError(
            "train.attention: 'xformers' needs a CUDA device and `pip install avignon[xformers]`, built for this "
            "PyTorch; use auto or sdpa"
        )
    if asked != "auto":
        return asked
    if usable:
        return "xformers"
    return "plain" if on.type == "cpu" and 0 < trained_at <= PLAIN_UP_TO else "sdpa"


def has_xformers(on: torch.device) -> bool:
    """Whether xFormers is there and has kernels, forward and backward: one built for another PyTorch has none."""
    if importlib.util.find_spec("xformers") is None:
        return False
    try:
        attend = importlib.import_module("xformers.ops").memory_efficient_attention
        q = torch.zeros((1, 8, 1, 64), device=on, dtype=torch.float16, requires_grad=True)
        attend(q, q, q).sum().backward()
    except Exception:  # noqa: BLE001 - whatever it is, it does not work here
        return False
    return True


def compiles(on: torch.device) -> bool:
    """Whether torch can compile for a device, tried on a sum: it needs a C compiler, and on CUDA Triton and Volta."""
    try:
        torch.compile(torch.neg, dynamic=False)(torch.zeros(8, device=on))
    except Exception:  # noqa: BLE001 - whatever it is, it does not work here
        return False
    return True


OUT_OF_MEMORY = (MemoryError, RuntimeError)
"""What may be raised where memory runs out; `is_out_of_memory` tells whether it did."""


def is_out_of_memory(failed: BaseException) -> bool:
    """Whether memory ran out; only PyTorch's own allocators for GPUs have an error of their own for that."""
    known = isinstance(failed, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(failed) for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = (
    "not enough memory",  # A CPU.
    "out of memory",  # CUDA's driver; Apple's GPU; what a compiled block raises of either.
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device; the host does not wait for a CUDA device, which is only so from pinned memory."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def move_to(module: Any, *where: Any, **how: Any) -> Any:
    """`module.to(…)` without diffusers' own, which warns of parts to be kept in float32 even where there are none."""
    return torch.nn.Module.to(module, *where, **how)
