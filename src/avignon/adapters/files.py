"""Adapters in files: saved so that every tensor comes back, checked and loaded.

The usual conversion of names before saving loses attention weights without an error when convolutions are adapted too,
which is why `save` reloads what it wrote and compares each tensor.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.utils import get_peft_model_state_dict

from avignon.adapters import headers
from avignon.adapters.formats import diffusers
from avignon.adapters.formats import registry as formats
from avignon.adapters.inject import several_wanted
from avignon.adapters.layers import dora_magnitudes, inner
from avignon.core.errors import AdapterError, AvignonError
from avignon.core.files import json_value, replacing
from avignon.core.workspace import AdapterFolder
from avignon.models import finite
from avignon.models.base import AdapterTargets, DiffusionBase

Tensors = Mapping[str, torch.Tensor]


def save(denoiser: Any, targets: AdapterTargets, name: str, path: Path) -> None:
    """Write an adapter's weights and metadata to the file `path`, and prove that they come back.

    Raises:
        AvignonError: the file, loaded into a fresh denoiser, differs from what was trained (and is not kept).
    """
    weights = weights_of(denoiser, name)
    with replacing(path) as scratch:
        diffusers.write(scratch, weights, denoiser.peft_config[inner(name)].to_dict(), targets.prefix)
        verify_roundtrip(denoiser, targets, name, weights, scratch)


def weights_of(denoiser: Any, name: str) -> dict[str, torch.Tensor]:
    """An adapter's tensors by peft's names, on the CPU."""
    state = get_peft_model_state_dict(denoiser, adapter_name=inner(name))
    return {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}


def verify_roundtrip(
    denoiser: Any, targets: AdapterTargets, name: str, weights: dict[str, torch.Tensor], path: Path
) -> None:
    """Load a file into a fresh denoiser and compare every tensor and scale.

    Raises:
        AvignonError: something did not come back.
    """
    try:
        with torch.device("meta"):
            fresh = type(denoiser).from_config(denoiser.config)
        fresh.to_empty(device="cpu")  # Only the adapter's own tensors are ever written: the rest takes no memory.
        _put_on(fresh, targets, name, *diffusers.read(path))
        back = weights_of(fresh, name)
    except Exception as failed:
        raise AvignonError(f"{path}: what was written did not come back: {failed}".splitlines()[0]) from failed
    pairs = {key: (weights[key], back[key]) for key in weights.keys() & back.keys()}
    same = {key for key, (one, other) in pairs.items() if one.dtype == other.dtype and torch.equal(one, other)}
    if wrong := (weights.keys() | back.keys()) - same:
        raise AvignonError(f"{path}: {len(wrong)} of {len(weights)} tensors did not come back: {min(wrong)}")
    if scales_of(denoiser, name) != scales_of(fresh, name):
        raise AvignonError(f"{path}: the scales (alpha / rank) did not come back")


def scales_of(denoiser: Any, name: str) -> dict[str, float]:
    """An adapter's alpha / rank, by layer."""
    inside = inner(name)
    return {path: m.scaling[inside] for path, m in denoiser.named_modules() if inside in getattr(m, "scaling", {})}


def check(base: DiffusionBase, folder: Path) -> None:
    """Whether a saved adapter can be put on the base's denoiser, as far as its card and its file tell.

    Raises:
        AdapterError: it is missing, damaged, or made for another base.
    """
    _check_card(base, folder)
    module, path = formats.find(folder)
    weights = ((name, weight) for name, weight in base.denoiser.named_parameters() if name.endswith(".weight"))
    layers = {name.removesuffix(".weight").removesuffix(".base_layer"): weight.shape for name, weight in weights}
    headers.check_fit(path, module.factors(path), layers)
    if bad := finite.first_bad_in([path]):
        raise AdapterError(bad)


def _check_card(base: DiffusionBase, folder: Path) -> None:
    """The card, where there is one, says which weights the adapter belongs to."""
    card = AdapterFolder(folder).card
    if not card.exists():
        return
    try:
        trained_on = json_value(card.read_text(encoding="utf-8"))["base"]
        model, fingerprint, fits = str(trained_on["model"]), str(trained_on["fingerprint"]), base.fits(trained_on)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AdapterError(f"{card}: damaged: no base with model and fingerprint") from None
    if not fits:
        raise AdapterError(
            f"{folder}: made for another base: {model} ({fingerprint[:12]}), "
            f"and this one is {base.model} ({base.fingerprint[:12]})"
        )


def load(base: DiffusionBase, name: str, folder: Path) -> None:
    """Put a saved adapter on the base's denoiser.

    Raises:
        AdapterError: it is missing, damaged, or made for another base.
    """
    check(base, folder)
    module, path = formats.find(folder)
    try:
        tensors, config = module.read(path)
        _put_on(base.denoiser, base.targets, name, tensors, config)
        restore_fp32_magnitudes(base.denoiser, base.targets, name, tensors)
    except Exception as failed:
        raise AdapterError(f"{path}: damaged: {failed}".splitlines()[0]) from failed
    for layer, scale in scales_of(base.denoiser, name).items():
        if not math.isfinite(scale):
            raise AdapterError(f"{path}: damaged: the scale (alpha / rank) of {layer} is {scale}")


def _put_on(denoiser: Any, targets: AdapterTargets, name: str, tensors: Tensors, config: Any) -> None:
    """Put on what a format has read: tensors by diffusers' names, and peft's configuration."""
    with several_wanted():
        denoiser.load_lora_adapter(
            dict(tensors), prefix=targets.prefix, metadata=config, adapter_name=inner(name), low_cpu_mem_usage=True
        )


def restore_fp32_magnitudes(denoiser: Any, targets: AdapterTargets, name: str, tensors: Tensors) -> None:
    """Give a DoRA's magnitudes the file's precision back, whatever the denoiser's is: each scales all of a weight.

    Raises:
        ValueError: the file has magnitudes for more or fewer layers than peft made of it.
    """
    ending, loaded = ".lora_magnitude_vector", dora_magnitudes(denoiser, name)
    saved = {
        key.removeprefix(f"{targets.prefix}.").removesuffix(ending): tensor
        for key, tensor in tensors.items()
        if key.endswith(ending)
    }
    if unlike := saved.keys() ^ loaded.keys():
        raise ValueError(f"tensors and metadata do not agree whether {min(unlike)} has a DoRA's magnitude")
    for layer, magnitude in loaded.items():
        magnitude.data = saved[layer].to(magnitude.device, torch.float32)
