"""What a training runs on, and a denoiser made ready for it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from avignon.adapters import inject
from avignon.core.errors import ModelError
from avignon.models import finite, frozen
from avignon.models.base import DiffusionBase
from avignon.models.loading import family_of
from avignon.models.runtime import DTYPES, Attention, Precision, attention_for, compiles, move_to, precision_for
from avignon.recipe.schema import Recipe
from avignon.training.dataset import seed_of

GRAPHS = 64
"""Ways to compile a block, at most, for each shape of the images: one for each shape inside the denoiser (4 in Stable
Diffusion) of all adapters together, of each alone and of each size of a pass. Beyond torch's own limit, 8, blocks would
run uncompiled."""


@dataclass(frozen=True)
class RuntimeConfig:
    """What a training runs on, and what was chosen for it."""

    device: torch.device
    precision: Precision
    attention: Attention
    compiled: bool
    why: tuple[str, ...]
    cannot_compile: bool = False
    """Whether blocks would be compiled if that worked here."""
    offload: bool = False
    """Whether the denoiser's weights are kept in RAM while a card computes with them."""
    useless_offload: bool = False
    """Whether that is asked for on a device that shares its memory with the processor."""

    memory: str = ""
    """What `train.memory` chose, for people; empty where nothing was to be chosen."""

    @property
    def chosen(self) -> dict[str, str]:
        """What a card says of it."""
        return {"memory": self.memory} if self.memory else {}

    @classmethod
    def for_device(cls, recipe: Recipe, device: torch.device) -> "RuntimeConfig":
        """The recipe's choices, with every `auto` decided for this device."""
        settings = recipe.train
        family, edge = family_of(recipe.base), recipe.base.resolution
        precision = precision_for(settings.precision, "train", device, family.half)
        attention = attention_for(settings.attention, device, edge, masked=family.masks_attention)
        # peft's DoRA cannot be traced: a block would fall into a graph for every piece of a layer; nor can layers whose
        # weights are copied from RAM. In buckets, blocks would be compiled for each shape, which takes longer than most
        # trainings gain by it.
        plain = not settings.dora and not settings.offload and recipe.prepare.shape == "square"
        pays = device.type == "cuda" and plain
        wanted = settings.compile == "on" or (settings.compile == "auto" and pays)
        compiled = wanted and (settings.compile == "on" or compiles(device))
        automatic = [name for name in ("precision", "attention", "compile") if getattr(settings, name) == "auto"]
        offload = settings.offload and device.type == "cuda"
        failed, useless = wanted and not compiled, settings.offload and not offload
        return cls(device, precision, attention, compiled, tuple(automatic), failed, offload, useless)

    def describe(self, processes: int) -> str:
        """In one line: what was picked, and which of it by the program itself."""
        parts = [str(self.device), self.precision, f"attention {self.attention}"]
        parts += ["compiled blocks"] if self.compiled else []
        parts += ["blocks not compiled, because torch.compile does not work here"] if self.cannot_compile else []
        parts += ["weights copied from RAM layer by layer"] if self.offload else []
        parts += ["train.offload without use, since weights are in RAM anyway"] if self.useless_offload else []
        parts += [f"{processes} processes"] if processes > 1 else []
        return ", ".join(parts) + (f" (chosen for this machine: {', '.join(self.why)})" if self.why else "")


def prepare_denoiser(
    base: DiffusionBase, names: Sequence[str], recipe: Recipe, runtime: RuntimeConfig, shapes: int = 1
) -> list[list[torch.nn.Parameter]]:
    """Put new adapters on the denoiser and make it ready to train on images of so many shapes.

    Returns what each of them is to train.

    Raises:
        ModelError: its weights overflow in fp16.
    """
    settings, denoiser = recipe.train, base.denoiser
    dtype = DTYPES[runtime.precision]
    move_to(denoiser, runtime.device, dtype, memory_format=torch.channels_last)
    if dtype == torch.float16 and (bad := finite.first_bad(frozen.weights(denoiser))):
        raise ModelError(f"base.model: the denoiser's {bad} overflows in fp16; set train.precision to bf16 or fp32")
    base.set_attention_backend(runtime.attention)
    ranks, alpha, dora = settings.ranks, settings.alpha, settings.dora
    parameters = [
        inject.add(denoiser, base.targets, name, ranks, alpha, seed_of(recipe.seed, name), dora=dora) for name in names
    ]
    denoiser.train()
    if settings.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    if runtime.compiled:
        torch.compiler.reset()  # What adapters before these had compiled would count against the limit.
        limits = torch._dynamo.config
        limits.recompile_limit = GRAPHS * shapes
        limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, limits.recompile_limit)
        denoiser.compile_repeated_blocks(dynamic=False)
    return parameters


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Only algorithms that give the same bits each time; a GPU is slower with them, a CPU is so anyway.

    https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
