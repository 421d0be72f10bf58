"""The product's stages on a device of one's choice, with a base of one's choice."""

import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from accelerate.state import AcceleratorState

from avignon.models import loading
from avignon.models.base import DiffusionBase
from avignon.stages import generate, train


@contextlib.contextmanager
def on(device: torch.device) -> Iterator[None]:
    """Let `train` and `generate` run on this device, whichever is the machine's best."""
    with contextlib.ExitStack() as stack:
        for stage in (train, generate):
            stack.enter_context(mock.patch.object(stage, "best_device", lambda: device))
        # accelerate knows one device for a whole process; it is asked anew.
        AcceleratorState._reset_state(reset_partial_state=True)
        stack.callback(AcceleratorState._reset_state, reset_partial_state=True)
        yield


@contextlib.contextmanager
def with_base(made: Callable[[torch.dtype], DiffusionBase]) -> Iterator[None]:
    """Let the stages have a base that is made in memory, in the precision that they ask for, instead of loading one."""
    with mock.patch.object(loading, "load", lambda _settings, _sampling, dtype, _reporter: made(dtype)):
        yield
