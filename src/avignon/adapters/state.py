"""An adapter as numbers, whichever program wrote it: every format reads into this form and writes from it."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from peft import LoraConfig

from avignon.core.errors import AdapterError

Config = Mapping[str, Any]
"""The arguments of a `peft.LoraConfig`."""


@dataclass(frozen=True)
class LayerChange:
    """What an adapter does to one layer: ΔW = (α/r)·B·A, and of a DoRA the magnitudes m of `inject`'s equation.

    A convolution's B is 1×1, so that its product is that of the matrices, A flattened to (r, in·k·k).
    """

    down: torch.Tensor
    """A, (r, in) of a linear layer and (r, in, k, k) of a convolution."""
    up: torch.Tensor
    """B, (out, r) or (out, r, 1, 1)."""
    alpha: float
    magnitude: torch.Tensor | None = None
    """Of a DoRA, (out,): the norm of each output channel; with `axis` input (in,), that of each input channel."""
    axis: Literal["output", "input"] = "output"
    """The channels whose norms `magnitude` has. peft knows those of outputs; LyCORIS can do both."""

    @property
    def rank(self) -> int:
        """The width r between A and B."""
        return len(self.down)

    @property
    def scale(self) -> float:
        """The factor on B·A."""
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the layer's weight: (out, in) or (out, in, k, k)."""
        return len(self.up), *self.down.shape[1:]

    @property
    def delta(self) -> torch.Tensor:
        """ΔW in fp32, in the shape of the layer's weight; of a DoRA without its magnitudes."""
        change = self.scale * (self.up.flatten(1).float() @ self.down.flatten(1).float())
        return change.view(self.shape)

    def split(self, count: int) -> list["LayerChange"]:
        """The changes of so many equal parts of the layer's outputs, one below the other.

        Where each part has a share of the rank for itself, as `joined` makes it, it gets that share alone back.

        Raises:
            ValueError: a DoRA's magnitudes are norms over all parts, which none of them has.
        """
        if count == 1:
            return [self]
        if self.axis == "input" and self.magnitude is not None:
            raise ValueError("a DoRA with norms of inputs, of several layers in one, is not read")
        ups, downs, alpha = self.up.chunk(count), [self.down] * count, self.alpha
        shares = [up.chunk(count, dim=1) for up in ups]
        is_apart = self.rank % count == 0 and not any(
            share.any() for place, own in enumerate(shares) for at, share in enumerate(own) if at != place
        )
        if is_apart:
            ups = tuple(own[place].contiguous() for place, own in enumerate(shares))
            downs, alpha = [down.contiguous() for down in self.down.chunk(count)], self.alpha / count
        lengths = [None] * count if self.magnitude is None else self.magnitude.chunk(count)
        return [replace(self, down=down, up=up.contiguous(), alpha=alpha, magnitude=length)
                for down, up, length in zip(downs, ups, lengths, strict=True)]  # fmt: skip

    def to(self, dtype: torch.dtype) -> "LayerChange":
        """With factors of this precision; magnitudes stay as they are, since each scales all of a weight."""
        return replace(self, down=self.down.to(dtype), up=self.up.to(dtype))


def joined(changes: Sequence[LayerChange]) -> LayerChange:
    """Changes of layers with the same input as that of one with all their outputs: a rank for each, none shared.

    Raises:
        ValueError: their ranks, alphas or kinds differ.
    """
    if len({(each.shape, each.rank, each.alpha, each.magnitude is None, each.axis) for each in changes}) > 1:
        raise ValueError("ranks, alphas or kinds differ")
    magnitudes = [each.magnitude for each in changes if each.magnitude is not None]
    return LayerChange(
        torch.cat([each.down for each in changes]),
        torch.block_diag(*(each.up for each in changes)),  # type: ignore[no-untyped-call]
        changes[0].alpha * len(changes),
        torch.cat(magnitudes) if magnitudes else None,
    )


def full(delta: torch.Tensor) -> LayerChange:
    """A ΔW of any rank, exactly: the factor on the smaller side is an identity."""
    out, rest = len(delta), delta.shape[1:]
    flat = delta.flatten(1)
    if out <= flat.shape[1]:
        down, up = flat, torch.eye(out, dtype=delta.dtype)
    else:
        down, up = torch.eye(flat.shape[1], dtype=delta.dtype), flat
    rank = len(down)
    return LayerChange(down.reshape(rank, *rest), up.reshape(out, rank, *(1 for _ in rest[1:])), float(rank))


@dataclass(frozen=True)
class AdapterState:
    """The layers that an adapter changes, and what its file said beside them."""

    layers: Mapping[str, LayerChange]
    """By the layer's name in diffusers, behind its component: `unet.down_blocks.0…`, `text_encoder.text_model.…`."""
    format: str = ""
    """The one that it was read from, for people; empty where it was not read."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The header's metadata."""
    configs: Mapping[str, Config] = field(default_factory=dict)
    """By component, peft's own configuration, where the adapter came with one."""

    @property
    def components(self) -> tuple[str, ...]:
        """The parts of a pipeline that it changes, in the order of `layers`."""
        return tuple(dict.fromkeys(layer.partition(".")[0] for layer in self.layers))

    def of(self, component: str) -> dict[str, LayerChange]:
        """The layers of one component, by their names inside it."""
        prefix = f"{component}."
        return {name.removeprefix(prefix): each for name, each in self.layers.items() if name.startswith(prefix)}

    def map(self, change: Callable[[LayerChange], LayerChange]) -> "AdapterState":
        """Every layer changed alike."""
        return replace(self, layers={name: change(layer) for name, layer in self.layers.items()})

    def tensors(self, component: str) -> dict[str, torch.Tensor]:
        """The component's tensors by peft's names: `<layer>.lora_A.weight` and so on.

        Raises:
            AdapterError: a DoRA's magnitudes are of inputs, which peft does not know.
        """
        return {key: each for name, layer in self.of(component).items() for key, each in _named(name, layer)}

    def config(self, component: str) -> dict[str, Any]:
        """Arguments of the `peft.LoraConfig` that gives each of the component's layers its rank and scale.

        That which the adapter came with, where it says the same; else one that names every layer in full.
        """
        layers = self.of(component)
        own = self.configs.get(component)
        if own and all((each.rank, each.alpha) == rank_and_alpha(own, name) for name, each in layers.items()):
            return dict(own)
        first = next(iter(layers.values()))
        return {
            "r": first.rank,
            "lora_alpha": first.alpha,
            # `^`, because peft lets a pattern fit the end of a longer name.
            "rank_pattern": {f"^{re.escape(name)}": layer.rank for name, layer in layers.items()},
            "alpha_pattern": {f"^{re.escape(name)}": layer.alpha for name, layer in layers.items()},
            "target_modules": sorted(layers),
            "use_dora": any(layer.magnitude is not None for layer in layers.values()),
        }


def _named(name: str, layer: LayerChange) -> Iterator[tuple[str, torch.Tensor]]:
    yield f"{name}.lora_A.weight", layer.down
    yield f"{name}.lora_B.weight", layer.up
    if layer.magnitude is not None:
        if layer.axis != "output":
            raise AdapterError(f"{name}: peft's names have no DoRA with norms of inputs; only kohya's format has")
        # peft's shape of a convolution's is (1, out, 1, 1).
        lengths = layer.magnitude if layer.up.dim() == 2 else layer.magnitude.view(1, -1, 1, 1)
        yield f"{name}.lora_magnitude_vector", lengths


def from_tensors(component: str, tensors: Mapping[str, torch.Tensor], config: Config) -> AdapterState:
    """The adapter that peft has on a component, by peft's names of its tensors and its configuration."""
    names = dict.fromkeys(key.rpartition(".lora_A.")[0] for key in tensors if key.endswith(".lora_A.weight"))
    layers = {}
    for name in names:
        down, up = tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"]
        magnitude = tensors.get(f"{name}.lora_magnitude_vector")
        _, alpha = rank_and_alpha(config, name)
        layers[f"{component}.{name}"] = LayerChange(down, up, alpha, None if magnitude is None else magnitude.flatten())
    return AdapterState(layers, configs={component: config})


def rank_and_alpha(config: Config, layer: str) -> tuple[int, float]:
    """What a peft configuration says of a layer; a rank-stabilised scale α/√r (arXiv:2312.03732) as the α' of α'/r.

    Raises:
        KeyError: it names neither a rank nor an alpha.
    """
    rank = _by_pattern(config.get("rank_pattern"), layer, config["r"])
    alpha = _by_pattern(config.get("alpha_pattern"), layer, config["lora_alpha"])
    return rank, alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def _by_pattern(patterns: Mapping[str, Any] | None, layer: str, default: Any) -> Any:
    """The value of the first pattern that fits, as peft takes it (`peft.utils.other.get_pattern_key`)."""
    fitting = (value for pattern, value in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", layer))
    return next(fitting, default)


def lora_config(config: Config) -> LoraConfig:
    """Peft's own class of a configuration."""
    return LoraConfig(**config)
