"""Several adapters trained in one pass: each part of a batch goes through its own adapter alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from avignon.adapters.layers import inner, lora_layers
from avignon.core.errors import AvignonError


@contextmanager
def routed(denoiser: Any, names: Sequence[str]) -> Iterator[None]:
    """Within the block each of `len(names)` equal parts of a batch goes through its own adapter alone, and these learn.

    The adapters must be on the same layers. One name is peft's own forward pass with that adapter. One such block may
    lie within another, for what concerns a single adapter.

    Raises:
        AvignonError: a layer does what this pass would not reproduce.
    """
    layers, inside = lora_layers(denoiser), tuple(inner(name) for name in names)
    several = len(inside) > 1
    for path, module in layers if several else ():
        _check_reproduced(path, module, inside)
    before = [(module, list(module.active_adapters), type(module)) for _, module in layers]
    for _, module in layers:
        module.set_adapter(inside)  # Also lets exactly these adapters' factors have gradients.
        module.__class__ = _kind(type(module), several=several)
    try:
        yield
    finally:
        for module, active, kind in before:
            module.set_adapter(active)
            module.__class__ = kind


def _check_reproduced(path: str, module: Any, names: Sequence[str]) -> None:
    """Refuse what peft's own forward pass does and this one does not: dropout, merged weights, other variants."""
    dropouts = [module.lora_dropout[name] for name in names if name in module.lora_dropout]
    found = {
        "LoRA dropout": any(not isinstance(dropout, torch.nn.Identity) for dropout in dropouts),
        "merged adapters": bool(module.merged_adapters),
        "adapters on other layers": any(name not in module.lora_A for name in names),
        "LoRA variants beside plain LoRA": 0 < sum(name in module.lora_variant for name in names) < len(names),
        "another LoRA variant than DoRA": any(
            name in module.lora_variant and name not in module.lora_magnitude_vector for name in names
        ),
    }
    if faults := ", ".join(what for what, is_there in found.items() if is_there):
        told = f"several adapters in one pass do not reproduce {faults}; set train.together = false"
        raise AvignonError(f"{path}: {told}")


class _Routed:
    """Mixed into a layer's class: a batch in as many equal parts as adapters are active, each through its own.

    A class, because compiled blocks share their code where the classes of their layers are the same: a function set on
    each layer would have every block compiled for itself, up to torch's limit, and the others never.
    """

    own: type
    """The layer's class without this."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        """The base's once for all parts; samples never meet, so a part's loss reaches no adapter but its own."""
        base: torch.Tensor = self.base_layer(x)
        names = self.active_adapters
        parts = list(zip(names, x.chunk(len(names)), strict=True))
        if self.lora_variant:  # One that is more than a sum, such as DoRA, is left to peft.
            results = base.chunk(len(names))
            return torch.cat([_variant(self, *part, result) for part, result in zip(parts, results, strict=True)])
        # Scaled where it is small, between the factors.
        return base + torch.cat([self.lora_B[n](self.lora_A[n](part) * self.scaling[n]) for n, part in parts])


def _kind(kind: type, *, several: bool) -> type:
    """A layer's class for several adapters in one pass, or its own."""
    own = kind.own if issubclass(kind, _Routed) else kind
    return _routed_kind(own) if several else own


@cache
def _routed_kind(kind: type) -> type:
    return type(f"Routed{kind.__name__}", (_Routed, kind), {"own": kind})


def _variant(module: Any, name: str, x: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """As peft's own forward pass does it for one adapter, whose factors may have a precision of their own."""
    x = x.to(module.lora_A[name].weight.dtype)
    changed: torch.Tensor = module.lora_variant[name].forward(module, active_adapter=name, x=x, result=result)
    return changed.to(result.dtype)
