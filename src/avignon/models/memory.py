"""Memory counted before it is spent: a base's outline does its work on the meta device, and every tensor is counted.

Nothing is computed there, and nothing allocated: what is left of a training step or a denoising step are the storages
that it makes, as they come and go, and their peak. This counts what an allocator is asked for; what it loses between
its blocks, and what a kernel takes for itself, is not in it.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch.utils._python_dispatch import TorchDispatchMode

from avignon.models.frozen import Frozen


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type it
    """Counts the bytes of all storages that are made within it and still there; `peak` is the most there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let an operator do its work, and see what it made."""
        kwargs = kwargs or {}
        for tensor in _tensors((*args, *kwargs.values())):
            self._see(tensor, was_there=True)
        made = func(*args, **kwargs)
        for tensor in _tensors(made if isinstance(made, tuple | list) else (made,)):
            self._see(tensor, was_there=False)
        return made

    def _see(self, tensor: torch.Tensor, *, was_there: bool) -> None:
        """Count a storage once: views have that of what they are of, which may be older than this block."""
        storage = tensor.untyped_storage()
        if (key := storage._cdata) not in self._seen:
            size = 0 if was_there else storage.nbytes()
            self._seen[key] = weakref.ref(storage, lambda _: self._forget(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _forget(self, key: int, size: int) -> None:
        del self._seen[key]
        self.now -= size


def _fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """PyTorch's attention as the fused kernels of any device do it; the meta device has only the one that is not.

    They keep queries, keys, values, the result and a number for each query; no matrix of all with all.
    """
    if enable_gqa:
        key, value = (each.repeat_interleave(query.size(-3) // each.size(-3), -3) for each in (key, value))
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    made: torch.Tensor = kernel(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return made


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Those among an operator's arguments or results, lists of them included."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


@contextmanager
def counted() -> Iterator[LiveBytes]:
    """Within the block tensors are counted."""
    # A mode for functions would be off while a backward pass computes checkpointed layers again.
    with LiveBytes() as live, patch.object(F, "scaled_dot_product_attention", _fused):
        yield live


def weight_bytes(network: Any, dtype: torch.dtype) -> int:
    """Bytes of a network's parameters and buffers in a precision, and of frozen layers' weights as they are kept."""
    own = [*network.parameters(), *network.buffers()]
    plain = sum(tensor.numel() * (dtype if tensor.is_floating_point() else tensor.dtype).itemsize for tensor in own)
    return int(plain) + sum(layer.stored_bytes for layer in network.modules() if isinstance(layer, Frozen))
