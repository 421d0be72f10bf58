"""One run in several processes (`accelerate launch`, `torchrun`): the first one decides, all compute."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""How long the others wait for the first, which may have a museum's images to fetch. One that dies ends all at once."""


def count() -> int:
    """How many processes carry out this run together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this process decides, and writes what there is once."""
    return rank() == 0


def agree(value: T) -> T:
    """The first process's value, in all of them."""
    if count() == 1:
        return value
    from accelerate import PartialState  # with torch, which a run in one process may not need
    from accelerate.utils import broadcast_object_list

    joined: Any = PartialState(cpu=not _has_gpu(), timeout=PATIENCE)
    del joined
    word = [value]
    broadcast_object_list(word)
    return word[0]


def told(find: Callable[[], T]) -> T:
    """What the first process finds, in all of them; the others do not look, they wait."""
    return agree(cast(T, find() if is_main_process() else None))


def meet() -> None:
    """Wait until all have come here. To `agree` is not enough: the first goes on before the others have heard."""
    if count() > 1:
        import torch

        torch.distributed.barrier()


def part() -> None:
    """Leave the company in good order: a process that ends while others still speak to it ends in an error."""
    if count() == 1:
        return
    import torch

    if torch.distributed.is_initialized():
        meet()
        torch.distributed.destroy_process_group()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
