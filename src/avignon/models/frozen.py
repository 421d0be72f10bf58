"""Frozen layers whose weights are kept small, or in RAM, and made in full where they are computed with.

A frozen layer needs its weights in the forward and in the backward pass, and in between nobody does: they are made
twice and never kept. PyTorch's own layers would keep them all, in full, from one pass to the other.

`int8`: each output channel's weights in 255 even steps. `nf4`: Dettmers et al., arXiv:2305.14314, section 3 and
appendix E: blocks of 64 weights, each in 16 steps that are the quantiles of a normal distribution.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.nn.grad import conv2d_input

if TYPE_CHECKING:
    from avignon.models.base import AdapterTargets

BLOCK = 64
"""Weights that have a scale of their own in nf4."""

LEVELS = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
          -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
          0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
          1.0)  # fmt: skip
"""The 16 steps of nf4, as shares of a block's largest weight (arXiv:2305.14314, appendix E)."""

Stored = tuple[torch.Tensor, ...]


def _to_int8(weight: torch.Tensor) -> Stored:
    """Whole numbers from -127 to 127, and the scale of each output channel, (out, 1)."""
    weight = weight.float()
    scales = weight.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight / scales).round().to(torch.int8), scales


def _from_int8(stored: Stored, shape: torch.Size) -> torch.Tensor:  # noqa: ARG001 - that of the whole numbers
    return stored[0] * stored[1]


def _to_nf4(weight: torch.Tensor) -> Stored:
    """Two steps to a byte, (blocks, 32); the largest weight of each block, (blocks, 1); the steps of every byte."""
    flat = weight.float().flatten()
    blocks = functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    largest = blocks.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    levels = torch.tensor(LEVELS)
    steps = torch.bucketize(blocks / largest, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    every = torch.arange(256)
    return steps[:, ::2] * 16 + steps[:, 1::2], largest, levels[torch.stack([every // 16, every % 16], 1)]


def _from_nf4(stored: Stored, shape: torch.Size) -> torch.Tensor:
    packed, largest, pairs = stored
    return (pairs[packed.int()].flatten(1) * largest).flatten()[: shape.numel()].view(shape)


_WAYS: dict[str, tuple[Callable[[torch.Tensor], Stored], Callable[[Stored, torch.Size], torch.Tensor]]] = {
    "": (lambda weight: (weight,), lambda stored, _: stored[0]),
    "int8": (_to_int8, _from_int8),
    "nf4": (_to_nf4, _from_nf4),
}
"""How weights are kept, and how they are made again."""


class _Product(torch.autograd.Function):
    """A frozen layer's output, and the gradient of its input; there is none of its weights."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: Any) -> torch.Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        output: torch.Tensor = layer.product(x, layer.weight, layer.bias)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.layer.input_gradient(ctx.shape, ctx.layer.weight, gradient), None


class Frozen:
    """Mixed into a layer's class, in whose place `weight` is made whenever it is asked for.

    It has the layer's precision, and is on the layer's device, which are those of `like`.
    """

    plain: type
    """The class of such a layer with weights of its own."""
    kind: str
    shape: torch.Size
    stored: Stored
    in_ram: bool
    like: torch.Tensor

    def __new__(cls, *how: Any, **more: Any) -> Any:
        """A plain layer, where one is made: peft makes those of an adapter of a convolution's own class."""
        return cls.plain(*how, **more) if how else super().__new__(cls)

    def freeze(self: Any, kind: str) -> None:
        """Keep the weights so from now on."""
        weight = self._parameters.pop("weight").detach()
        self.register_buffer("like", weight.new_empty(0), persistent=False)
        self.kind, self.shape, self.in_ram = kind, weight.shape, False
        self.stored = _WAYS[kind][0](weight)

    @property
    def weight(self) -> torch.Tensor:
        """The weights in full."""
        device, dtype = self.like.device, self.like.dtype
        here = tuple(tensor.to(device, non_blocking=True) for tensor in self.stored)
        return _WAYS[self.kind][1](here, self.shape).to(dtype)

    @property
    def stored_bytes(self) -> int:
        """What the weights take as they are kept."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.stored)

    def keep_in_ram(self) -> None:
        """Keep the weights in RAM, whichever device the layer is on."""
        self.in_ram = True
        self.stored = tuple(_pinned(tensor.cpu()) for tensor in self.stored)

    def _apply(self: Any, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """`Module.to`: scales stay in fp32, and what is kept in RAM stays there."""
        super()._apply(fn, recurse)  # type: ignore[misc]  # torch's, of the class that this is mixed into
        moved = [fn(each) if not self.kind else each.to(self.like.device) for each in self.stored]
        self.stored = tuple(moved)
        if self.in_ram:
            self.keep_in_ram()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output."""
        output: torch.Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return output


class FrozenLinear(Frozen, torch.nn.Linear):  # type: ignore[override]  # Its weight is made, and never set.
    """A linear layer."""

    plain = torch.nn.Linear

    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """What such a layer makes of its input with any weights."""
        output: torch.Tensor = functional.linear(x, weight, bias)
        return output

    @staticmethod
    def input_gradient(shape: torch.Size, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        """The gradient of its input, by that of its output."""
        return gradient @ weight


class FrozenConv2d(Frozen, torch.nn.Conv2d):  # type: ignore[override]
    """A convolution."""

    plain = torch.nn.Conv2d

    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """What such a layer makes of its input with any weights."""
        output: torch.Tensor = self._conv_forward(x, weight, bias)
        return output

    def input_gradient(self, shape: torch.Size, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient of its input, by that of its output."""
        how = (self.stride, self.padding, self.dilation, self.groups)
        found: torch.Tensor = conv2d_input(shape, weight, gradient, *how)  # type: ignore[no-untyped-call]
        return found


_CLASSES: dict[type, type] = {each.plain: each for each in (FrozenLinear, FrozenConv2d)}


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    """In memory that a CUDA device copies from by itself, where there is one."""
    return tensor.pin_memory() if torch.cuda.is_available() and not tensor.is_pinned() else tensor


def _freeze(layer: Any, kind: str) -> None:
    layer.__class__ = _CLASSES[type(layer)]
    layer.freeze(kind)


def quantize(network: Any, layers: Iterable[str], kind: str) -> None:
    """Keep the weights of these layers, by their names, in 8 or 4 bits."""
    for name in layers:
        _freeze(network.get_submodule(name), kind)


def freeze(network: Any) -> None:
    """Freeze all linear layers and convolutions that are not yet frozen, with their weights in full."""
    for layer in list(network.modules()):
        if type(layer) in _CLASSES:
            _freeze(layer, "")


def keep_in_ram(network: Any) -> None:
    """Keep the weights of all linear layers and convolutions in RAM; they go to the device as each is computed."""
    freeze(network)
    for layer in network.modules():
        if isinstance(layer, Frozen):
            layer.keep_in_ram()


def linear_layers(network: Any) -> list[str]:
    """Names of the linear layers."""
    return [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear)]


def linear_in_blocks(denoiser: Any, targets: "AdapterTargets") -> list[str]:
    """Names of the layers that are quantised: linear ones within blocks whose output is (B, tokens, C).

    What is left are convolutions, norms, embeddings, the first and the last layers, and what is told of times and sizes
    and scales all tokens alike: a small share of the weights, and the most is lost by them.
    """
    return [
        name
        for name in linear_layers(denoiser)
        if re.match(rf"({targets.blocks})\.", name)
        and targets.per_sample(name, denoiser.get_submodule(name)) == (-1, 1, 1)
    ]


def unquantised(denoiser: Any, targets: "AdapterTargets") -> list[str]:
    """The layers of a denoiser, plain or already quantised, that keep their weights in full; numbers as `*`."""
    chosen = set(linear_in_blocks(denoiser, targets))
    left = (n for n, m in denoiser.named_modules() if (s := shape_of(m)) and len(s) > 1 and n not in chosen)
    return list(dict.fromkeys(re.sub(r"\.\d+(?=\.|$)", ".*", name) for name in left))


def shape_of(layer: Any) -> Sequence[int]:
    """That of a layer's weight, which is not made for it; empty where it has none."""
    weight = layer if isinstance(layer, Frozen) else dict(layer.named_parameters(recurse=False)).get("weight")
    return () if weight is None else tuple(weight.shape)


def weights(network: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """All parameters of a network by name, frozen layers' weights in full, each made as it is asked for."""
    yield from network.named_parameters()
    for name, layer in network.named_modules():
        if isinstance(layer, Frozen):
            yield f"{name}.weight", layer.weight
