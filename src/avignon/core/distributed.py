"""One run in several processes (`accelerate launch`, `torchrun`): the main process decides, all compute."""

import os
from collections.abc import Callable
from typing import TypeVar, cast

T = TypeVar("T")

TIMEOUT_DAYS = 1
"""How long the others wait for the main process, which may have a museum's images to fetch. One that dies ends all."""


def num_processes() -> int:
    """How many processes carry out this run together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this process decides, and writes what is written once."""
    return process_index() == 0


def broadcast(value: T) -> T:
    """The main process's value, in all processes."""
    if num_processes() == 1:
        return value
    from datetime import timedelta

    import torch  # Here and below, because a run in one process may not need torch.
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=TIMEOUT_DAYS))
    values = [value]
    broadcast_object_list(values)
    return values[0]


def broadcast_from_main(compute: Callable[[], T]) -> T:
    """What `compute` gives in the main process, in all processes; the others do not compute, they wait."""
    return broadcast(cast(T, compute() if is_main_process() else None))


def barrier() -> None:
    """Wait until all processes are here; in `broadcast` the main process goes on before the others have received."""
    if num_processes() > 1:
        import torch

        torch.distributed.barrier()


def shutdown() -> None:
    """Leave the process group in good order: a process that ends while others still communicate ends in an error."""
    if num_processes() == 1:
        return
    import torch

    if torch.distributed.is_initialized():
        barrier()
        torch.distributed.destroy_process_group()
