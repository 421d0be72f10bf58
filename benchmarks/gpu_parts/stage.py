"""The product's stages on a device of one's choice, and with a base that is made in memory."""

import contextlib
import time
from collections.abc import Iterator
from unittest import mock

import torch
from accelerate.state import AcceleratorState

from avignon.models import loading, runtime
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.stages import generate, train
from benchmarks.train import Architecture, random_base


@contextlib.contextmanager
def on(device: torch.device) -> Iterator[None]:
    """Let `train` and `generate` run on this device, whichever is the machine's best."""
    with contextlib.ExitStack() as stack:
        for stage in (train, generate):
            stack.enter_context(mock.patch.object(stage, "best_device", return_value=device))
        # accelerate knows one device for a whole process; it is asked anew.
        AcceleratorState._reset_state(reset_partial_state=True)
        stack.callback(AcceleratorState._reset_state, reset_partial_state=True)
        yield


@contextlib.contextmanager
def with_random_base(architecture: Architecture, device: torch.device) -> Iterator[list[float]]:
    """Let the stages have a base of random weights, made on the device, the same each time, instead of loading one.

    Gives a list of the seconds that each took to make.
    """
    seconds: list[float] = []

    def made(
        _settings: object, _sampling: object, dtype: torch.dtype, _reporter: object, **_how: object
    ) -> StableDiffusion:
        start = time.monotonic()
        base = random_base(architecture, device)
        base.parts = {base.denoiser_part: "random weights"}
        for part in (base.pipeline.unet, base.pipeline.text_encoder):
            runtime.move_to(part, dtype)
        seconds.append(time.monotonic() - start)
        return base

    with mock.patch.object(loading, "load", made):
        yield seconds
