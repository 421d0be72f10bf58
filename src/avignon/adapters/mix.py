"""Adapters mixed for a pass: weights for each sample, folded into the layers where all samples have the same.

Into frozen layers, which keep no weights in full, nothing is folded: the same is computed beside them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from avignon.adapters.layers import doras, inner, lora_layers, outer
from avignon.adapters.weights import block_factor
from avignon.models.base import AdapterTargets
from avignon.models.frozen import Frozen
from avignon.models.runtime import send


def unmixed(denoiser: Any, targets: AdapterTargets) -> set[str]:
    """Adapters of which all samples of a batch must have the same weight.

    DoRA, and those on layers that see the tokens of all samples in one row.
    """
    rows = [m for path, m in lora_layers(denoiser) if not targets.per_sample(path, m.get_base_layer())]
    return doras(denoiser) | {outer(name) for module in rows for name in module.lora_A}


class Mixer:
    """Sets how much of every adapter is in each sample of a batch: ΔW = Σ wᵢ·ΔWᵢ, the sum of true deltas.

    Where all samples have the same weights, ΔW is added to the layers' weights once, and the passes are as fast as the
    base's own; a frozen layer (`models.frozen`) is left as it is, and ΔW·x added to its output. Where they differ, each
    layer's low-rank products are scaled sample by sample (peft's `scaling` may be a tensor); a DoRA's ΔWᵢ is no such
    product, so its samples must have the same weights (see `unmixed`). The two agree to rounding; all weights 0 is the
    base itself, bit for bit.
    """

    def __init__(self, denoiser: Any, targets: AdapterTargets, blocks: Mapping[str, Mapping[str, float]]) -> None:
        self._unmixed, self._targets = unmixed(denoiser, targets), targets
        self._layers = [(name, module, module.get_base_layer()) for name, module in lora_layers(denoiser)]
        self._own = [None if isinstance(layer, Frozen) else layer.weight.data for _, _, layer in self._layers]
        self._hooks: list[RemovableHandle] = []
        self._scales = [dict(module.scaling) for _, module, _ in self._layers]
        self._blocks = {inner(name): factors for name, factors in blocks.items()}
        self._rows: Sequence[Mapping[str, float]] | None = None

    def set(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Weights by adapter, for each sample of the next passes.

        Raises:
            ValueError: samples have different weights of an adapter that is `unmixed`.
        """
        if rows == self._rows or not self._layers:
            return
        self._rows = list(rows)
        self.restore()
        rows = [{inner(name): weight for name, weight in row.items()} for row in rows]
        names = list(dict.fromkeys(name for row in rows for name, weight in row.items() if weight))
        if all(row.get(name, 0.0) == rows[0].get(name, 0.0) for row in rows for name in names):
            self._enable(on=False)
            self._add(rows[0], names)
        else:
            self._enable(on=True)
            self._scale(rows, names)

    def restore(self) -> None:
        """Give every layer its own weights back."""
        for (_, _, layer), own in zip(self._layers, self._own, strict=True):
            if own is not None:
                layer.weight.data = own
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _enable(self, *, on: bool) -> None:
        for _, module, _ in self._layers:
            module.enable_adapters(enabled=on)

    def _add(self, row: Mapping[str, float], names: Sequence[str]) -> None:
        for (path, module, layer), own, scales in zip(self._layers, self._own, self._scales, strict=True):
            weights = {name: row[name] * self._factor(name, path) for name in names if name in module.lora_A}
            if not weights:
                continue
            if own is None:
                self._hooks.append(layer.register_forward_hook(_beside(module, layer, scales, weights)))
            else:
                changed = _changed(module, own.flatten(1).float(), scales, weights)
                layer.weight.data = torch.empty_like(own).copy_(changed.view(own.shape))

    def _scale(self, rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
        if unlike := self._unmixed.intersection(map(outer, names)):
            told = "samples of one batch have different weights of a DoRA, or of what changes embedders"
            raise ValueError(f"{told}: {', '.join(sorted(unlike))}")
        places, weights = [], []
        for (path, module, layer), scales in zip(self._layers, self._scales, strict=True):
            module.set_adapter(names)
            for name in (name for name in names if name in module.lora_A):
                scale = self._factor(name, path) * scales[name]
                places.append((module.scaling, name, self._targets.per_sample(path, layer)))
                weights.append([row.get(name, 0.0) * scale for row in rows])
        # All in one copy: each would have the host wait for the device.
        layer = self._layers[0][2]
        own = layer.like if isinstance(layer, Frozen) else layer.weight
        table = send(torch.tensor(weights).to(own.dtype), own.device)
        for (scaling, name, shape), column in zip(places, table, strict=True):
            scaling[name] = column.view(shape)

    def _factor(self, name: str, path: str) -> float:
        return block_factor(self._blocks.get(name, {}), path, self._targets.part_of(path))


def _changed(module: Any, own: torch.Tensor, scales: Mapping[str, float], weights: Mapping[str, float]) -> torch.Tensor:
    """W + Σ wᵢ·ΔWᵢ of a layer whose own weights are given as (out, in · kernel) in fp32.

    The low-rank changes are one product of all their factors side by side, so that W is read and written once.
    """
    plain = [name for name in weights if name not in module.lora_magnitude_vector]
    changed = _with_factors(module, own, {name: weights[name] * scales[name] for name in plain})
    for name in (name for name in weights if name not in plain):
        moved = _with_factors(module, own, {name: scales[name]})
        magnitude = module.lora_magnitude_vector[name].weight.flatten()  # (out,)
        length = torch.linalg.vector_norm(moved, dim=1)
        changed = changed + weights[name] * ((magnitude / length)[:, None] * moved - own)
    return changed


def _beside(module: Any, layer: Any, scales: Mapping[str, float], weights: Mapping[str, float]) -> Callable[..., Any]:
    """A hook that adds Σ wᵢ·ΔWᵢ·x to the output of a frozen layer.

    A DoRA's ΔW is (c − 1)·W + c·s·B·A, with c = m/‖W + s·B·A‖ of each output channel: W·x is the output itself.
    """
    ups, downs, gain = [], [], None
    for name, weight in weights.items():
        up, down = (factor[name].weight.flatten(1).float() for factor in (module.lora_B, module.lora_A))
        up = up * scales[name]
        if name in module.lora_magnitude_vector:
            moved = torch.addmm(layer.weight.flatten(1).float(), up, down)
            turned = module.lora_magnitude_vector[name].weight.flatten() / torch.linalg.vector_norm(moved, dim=1)
            gain = weight * (turned - 1) + (0 if gain is None else gain)
            up = turned[:, None] * up
        ups.append(weight * up)
        downs.append(down)
    dtype, is_convolution = layer.like.dtype, len(layer.shape) > 2
    spread = (-1, 1, 1) if is_convolution else (-1,)  # Channels come before the pixels of a convolution.
    down = torch.cat(downs).to(dtype).view(-1, *layer.shape[1:])
    up = torch.cat(ups, 1).to(dtype).view(len(ups[0]), -1, *(1 for _ in layer.shape[2:]))
    join = functional.conv2d if is_convolution else functional.linear

    def added(_: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        change = join(layer.product(inputs[0], down, None), up)
        if gain is not None:
            own = output if layer.bias is None else output - layer.bias.view(spread)
            change = change + gain.to(dtype).view(spread) * own
        return output + change

    return added


def _with_factors(module: Any, own: torch.Tensor, scales: Mapping[str, float]) -> torch.Tensor:
    """W + Σ sᵢ·Bᵢ·Aᵢ, as (out, in · kernel); a convolution's B is 1×1, so the product is the same."""
    if not scales:
        return own
    ups = [module.lora_B[name].weight.flatten(1).float() * scale for name, scale in scales.items()]
    downs = [module.lora_A[name].weight.flatten(1).float() for name in scales]
    return torch.addmm(own, torch.cat(ups, 1), torch.cat(downs))


@contextmanager
def mixing(denoiser: Any, targets: AdapterTargets, block_weights: Mapping[str, Mapping[str, float]]) -> Iterator[Mixer]:
    """A `Mixer` for some passes, after which the denoiser and its adapters are exactly as before, in training as well.

    `block_weights` has, by adapter, factors on its weight in parts of the denoiser (see `weights.block_factor`).
    """
    layers = [module for _, module in lora_layers(denoiser)]
    trained = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    state = [(m, dict(m.scaling), list(m.active_adapters), m.disable_adapters) for m in layers]
    mixer = Mixer(denoiser, targets, block_weights)
    try:
        yield mixer
    finally:
        mixer.restore()
        for module, scaling, active, off in state:
            module.set_adapter(active)
            module.enable_adapters(enabled=not off)
            module.scaling.update(scaling)
        denoiser.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
