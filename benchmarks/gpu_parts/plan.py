"""What a part is given: where it runs, how long it may, and where its files lie."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class DoesNotFit(Exception):  # noqa: N818 - it is said of a card, nothing is wrong
    """The card has too little memory for this part; the text says how much is needed."""


@dataclass(frozen=True)
class Plan:
    """One part's share of the run."""

    device: "torch.device"
    """What is measured: the card, or in a rehearsal the CPU."""
    rehearse: bool
    """Whether this is the rehearsal: tiny models, few steps, figures that mean nothing."""
    seconds: float
    """The budget; the process is killed soon after."""
    scratch: Path
    """An empty folder of the part's own, deleted at its end."""
    data: Path
    """The prepared dataset: `demo/` and `original/`, each a run's folder with everything that `prepare` wrote."""
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that are left of the budget; negative when it is over."""
        return self.started + self.seconds - time.monotonic()
