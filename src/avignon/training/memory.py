"""A training step fitted into memory: whole, adapter by adapter, with checkpointing, then in ever smaller passes."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from avignon.core.events import Reporter
from avignon.models.runtime import is_out_of_memory
from avignon.recipe.schema import Train
from avignon.training.dataset import Batch


@dataclass
class OomFallback:
    """What to do less of at once where memory runs out.

    The cheapest comes first: passes apart cost what one pass for all had gained, checkpointing a third more time. It
    gives the same bits. Other passes differ in rounding only; as memory runs out at the first step or never, a run
    that steps down there ends as if it had begun there.
    """

    denoiser: Any
    settings: Train
    share: int
    """Images of a step that are this process's, of each adapter."""
    size: int = field(init=False)
    """Images per pass, of each adapter."""
    apart: bool = False
    """Whether each adapter has passes of its own, as the only one has."""
    warned: bool = False

    def __post_init__(self) -> None:
        self.size = min(self.settings.micro_batch or self.share, self.share)

    def passes(self, batches: Sequence[Batch]) -> Iterator[tuple[list[int], tuple[Batch, ...]]]:
        """The passes of one step: the numbers of the adapters that share a pass, and the part of each one's batch.

        Adapters whose batches are of another shape have a pass of their own: what one learns from at a step must not
        depend on who learns beside it.
        """
        alike: dict[object, list[int]] = {}
        for number, batch in enumerate(batches):
            alike.setdefault(number if self.apart else batch.latents.shape, []).append(number)
        for group in alike.values():
            for parts in zip(*(batches[number].parts(self.size) for number in group), strict=True):
                yield group, parts

    def can_step_down(self, failed: BaseException) -> bool:
        """Whether memory ran out, and less can be done at once."""
        can_do_less = self.size > 1 or not self.denoiser.is_gradient_checkpointing or not self.apart
        return can_do_less and is_out_of_memory(failed)

    def step_down(self) -> str:
        """Do less at once from now on; says what. To be called once the error and what its traceback holds are gone."""
        gc.collect()
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
        if not self.apart:
            self.apart = True
            return "out of memory: going on with one adapter per pass (train.together = false)"
        if not self.denoiser.is_gradient_checkpointing:
            self.denoiser.enable_gradient_checkpointing()
            return "out of memory: going on with gradient checkpointing (train.gradient_checkpointing = true)"
        self.size = next(k for k in range(self.size // 2, 0, -1) if self.share % k == 0)
        return f"out of memory: going on with {self.size} images per pass (train.micro_batch = {self.size})"

    def warn_if_full(self, reporter: Reporter) -> None:
        """Warn once where a GPU's memory is so full that a driver would move it to the system's."""
        if self.warned or not torch.cuda.is_available():
            return
        free, total = torch.cuda.mem_get_info()
        self.warned = will_spill(free, total)
        if self.warned:
            reporter.warn(
                f"GPU memory is full ({free / 2**20:.0f} MiB of {total / 2**20:.0f} are free): some drivers now use "
                "the system's, many times slower; set train.gradient_checkpointing or a smaller train.micro_batch"
            )


def will_spill(free: int, total: int) -> bool:
    """Whether so few bytes are free that the next allocation may go to system memory."""
    return free < 0.02 * total
