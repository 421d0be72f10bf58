"""A card that is not there: tensors on `cuda:0` with shapes and no numbers, so that code runs as it would on one.

A tensor that was left on the CPU is an error as on a card, and every wait of the host is noted with its place.
Gradients are not computed: autograd refuses a device that torch was not built for.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda:0")  # With its number: without it torch asks the driver for the current one.

_READS = {getattr(torch.Tensor, name) for name in ("item", "__float__", "__bool__", "__int__", "__index__")}
"""By which the host reads the card, and waits for it."""


class Card(FakeTensorMode):  # type: ignore[no-untyped-call]  # torch does not type it
    """Tensors on the card are fake, those on the CPU are real."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.waits: list[str] = []
        """Places at which the host waited for the card, innermost last."""
        self.pinned: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on the CPU what concerns it alone, and nothing but shapes of all else."""
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        to_card = any(isinstance(leaf, torch.device) and leaf.type == "cuda" for leaf in leaves)
        if not to_card and not any(isinstance(leaf, FakeTensor) for leaf in leaves):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default and to_card and not isinstance(args[0], FakeTensor):
            pinned = any(args[0].data_ptr() == one.data_ptr() for one in self.pinned)
            if not (pinned and kwargs.get("non_blocking")):
                self.note()
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") == torch.device("cpu"):
            self.note()
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype", args[0].dtype))
        return super().__torch_dispatch__(func, types, args, kwargs)

    def put(self, parameter: FakeTensor, moved: torch.Tensor) -> None:
        """Move a module's parameter; torch would swap the objects, which fake ones refuse."""
        fake = moved if isinstance(moved, FakeTensor) else self.from_tensor(moved)
        parameter.data, parameter.fake_device = fake.data, fake.fake_device

    def note(self) -> None:
        """The host waits here."""
        own = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
        self.waits.append(" < ".join(f"{frame.name}: {frame.line}" for frame in reversed(own[-6:-1])))


class _Reads(TorchFunctionMode):
    """Answers what only a card with numbers could."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self._card = card

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS and isinstance(args[0], FakeTensor):
            self._card.note()
            return 0.5 if args[0].is_floating_point() else args[0].dtype == torch.bool  # Sound, of a fault.
        if func in _WITHOUT_DRIVER and isinstance(args[0], FakeTensor):
            return _WITHOUT_DRIVER[func](*args, **(kwargs or {}))
        if func is torch.Tensor.copy_ and any(isinstance(tensor, FakeTensor) for tensor in args[:2]):
            if not all(isinstance(tensor, FakeTensor) for tensor in args[:2]):
                self._card.note()
            return args[0]
        if func is torch.Tensor.backward:
            return None
        if func is torch.Tensor.pin_memory:
            self._card.pinned.append(args[0])
            return args[0]
        return func(*args, **(kwargs or {}))


def _indexed(tensor: torch.Tensor, key: Any) -> torch.Tensor:
    """`tensor[key]`, which torch does by way of the driver."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if ... in keys:
        place = keys.index(...)
        left = tensor.dim() - sum(each is not None for each in keys) + 1
        keys[place : place + 1] = [slice(None)] * left
    dim, picked = 0, list[torch.Tensor | None]()
    for each in keys:
        if isinstance(each, int):
            tensor = torch.select(tensor, dim, each)
            continue
        if isinstance(each, slice):
            tensor = torch.ops.aten.slice.Tensor(tensor, dim, each.start, each.stop, each.step or 1)
        elif each is None:
            tensor = torch.unsqueeze(tensor, dim)
        picked.append(torch.as_tensor(each) if isinstance(each, torch.Tensor | list) else None)
        dim += 1
    found: torch.Tensor = torch.ops.aten.index.Tensor(tensor, picked) if any(x is not None for x in picked) else tensor
    return found


_WITHOUT_DRIVER: dict[Any, Callable[..., torch.Tensor]] = {
    torch.Tensor.__getitem__: _indexed,
    torch.Tensor.__invert__: torch.bitwise_not,
    torch.Tensor.contiguous: torch.ops.aten.contiguous,
}
"""What torch's methods do, by ways that do not ask the driver."""


@contextmanager
def pretended() -> Iterator[Card]:
    """Within the block there is a card."""
    card = Card()
    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), card, _Reads(card):
        patch.setattr(torch.utils, "swap_tensors", card.put)
        yield card


def alone_on_the_card(**_: object) -> SimpleNamespace:
    """What a training asks of accelerate, in place of its `Accelerator`: one process, on the card."""
    return SimpleNamespace(
        device=DEVICE,
        num_processes=1,
        process_index=0,
        is_main_process=True,
        wait_for_everyone=lambda: None,
        main_process_first=nullcontext,
    )
