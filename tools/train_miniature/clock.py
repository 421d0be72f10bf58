"""How a call with `--minutes` shares its time among its stages."""

import time
from collections.abc import Sequence

SHARES = {"scenes": 0.20, "vae": 0.25, "latents": 0.03, "decoder": 0.10, "words": 0.05, "unet": 0.36}
SHARES |= {"export": 0.02, "report": 0.04}
"""Shares of the time; only their proportions to one another count."""


def seconds_of(stage: str, stages: Sequence[str], left: float) -> float:
    """Seconds that a stage may take of those `left`: in proportion to its own share and those of the stages after it.

    What a stage leaves over, or takes too much, is so spread over all that follow it.
    """
    rest = stages[stages.index(stage) :]
    return max(0.0, left) * SHARES[stage] / sum(SHARES[each] for each in rest)


class Clock:
    """The time of one call and, once a stage has begun, of that stage; in seconds of `time.monotonic`."""

    def __init__(self, minutes: float, stages: Sequence[str], began: float) -> None:
        self._stages, self._ends = stages, began + 60 * minutes
        self.stage_ends = self._ends

    def begin(self, stage: str) -> float:
        """Begin a stage; gives the seconds that it may take."""
        now = time.monotonic()
        seconds = seconds_of(stage, self._stages, self._ends - now)
        self.stage_ends = now + seconds
        return seconds

    def left(self) -> float:
        """Seconds left to the stage that has begun; negative where it has overrun them."""
        return self.stage_ends - time.monotonic()
