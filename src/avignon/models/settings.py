"""What bases need of a recipe. Protocols, so that they can be asked without one."""

from collections.abc import Mapping
from typing import Protocol


class BaseSettings(Protocol):
    """Which base is wanted and from where, as a recipe says it."""

    @property
    def model(self) -> str: ...  # noqa: D102 - as in recipe.schema.Base
    @property
    def mirrors(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def revision(self) -> str: ...  # noqa: D102
    @property
    def variant(self) -> str: ...  # noqa: D102
    @property
    def resolution(self) -> int: ...  # noqa: D102 - 0 asks for what the base was trained at
    @property
    def vae(self) -> str: ...  # noqa: D102
    @property
    def vae_mirrors(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def vae_revision(self) -> str: ...  # noqa: D102
    @property
    def config(self) -> str: ...  # noqa: D102
    @property
    def prediction_type(self) -> str: ...  # noqa: D102
    @property
    def quantize(self) -> str: ...  # noqa: D102


class SamplingSettings(Protocol):
    """Which sampler is wanted and in how many steps, as a recipe says it."""

    @property
    def scheduler(self) -> str: ...  # noqa: D102 - as in recipe.schema.Generate; empty where nothing is painted
    @property
    def num_inference_steps(self) -> int: ...  # noqa: D102
    @property
    def block_weights(self) -> Mapping[str, Mapping[str, float]]: ...  # noqa: D102
    @property
    def sides(self) -> Mapping[str, int]: ...  # noqa: D102


class TrainingSettings(Protocol):
    """What a family may refuse of a training, as a recipe says it."""

    @property
    def min_snr_gamma(self) -> float: ...  # noqa: D102 - as in recipe.schema.Train
