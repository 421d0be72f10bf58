"""Tensors that hold NaN or infinity: found where they come in, and named, before they spread over every picture.

One such number in one weight makes every pixel black, and nothing in between complains.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors


def is_finite(tensor: Any) -> bool:
    """Whether all numbers of a torch tensor are finite; this waits for its device, once.

    On a CPU, where a base of a billion weights is looked through, its least and greatest are found in one pass without
    a copy, about a second in all: NaN wins over both.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.device.type != "cpu":
        return bool(tensor.isfinite().all())
    numbers = tensor.detach() if tensor.element_size() > 1 else tensor.float()  # There is no least of 8 bits.
    return all(math.isfinite(float(extreme)) for extreme in numbers.aminmax())


def first_bad(tensors: Iterable[tuple[str, Any]]) -> str:
    """The name of the first tensor that holds NaN or infinity; empty where all are finite."""
    return next((name for name, tensor in tensors if not is_finite(tensor)), "")


def first_bad_in(files: Iterable[Path]) -> str:
    """The same of safetensors files: the file and the tensor's name in it, for a message."""
    for path in files:
        with safetensors.safe_open(path, framework="pt") as file:
            bad = first_bad((key, file.get_tensor(key)) for key in file.keys())  # noqa: SIM118 - it is no mapping
        if bad:
            return f"{path}: damaged: NaN or infinity in the tensor {bad}"
    return ""
