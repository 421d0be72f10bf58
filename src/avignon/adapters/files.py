"""Adapters in files: saved so that every tensor comes back, checked and loaded.

The usual conversion of names before saving loses attention weights without an error when convolutions are adapted too,
which is why `save` reloads what it wrote and compares each tensor.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import inject_adapter_in_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

from avignon.adapters import headers
from avignon.adapters.formats import diffusers, names
from avignon.adapters.formats import registry as formats
from avignon.adapters.formats.registry import AdapterFile
from avignon.adapters.inject import several_wanted
from avignon.adapters.layers import dora_magnitudes, inner
from avignon.adapters.state import AdapterState, LayerChange, from_tensors, full, lora_config
from avignon.core.errors import AdapterError, AvignonError
from avignon.core.files import json_value, replacing
from avignon.models.base import AdapterTargets, DiffusionBase
from avignon.models.frozen import shape_of


def save(denoiser: Any, targets: AdapterTargets, name: str, path: Path) -> None:
    """Write an adapter's weights and metadata to the file `path`, and prove that they come back.

    Raises:
        AvignonError: the file, loaded into a fresh denoiser, differs from what was trained (and is not kept).
    """
    with replacing(path) as scratch:
        diffusers.write(scratch, state_of(denoiser, targets, name), {})
        verify_roundtrip(denoiser, targets, name, weights_of(denoiser, name), scratch)


def state_of(denoiser: Any, targets: AdapterTargets, name: str) -> AdapterState:
    """An adapter that is on a denoiser, on the CPU."""
    return from_tensors(targets.prefix, weights_of(denoiser, name), denoiser.peft_config[inner(name)].to_dict())


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
        _put_on_denoiser(fresh, targets, name, formats.read(path))
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


def check(base: DiffusionBase, place: Path) -> AdapterFile:
    """Whether a saved adapter can be put on the base, as far as its card and its file tell.

    Raises:
        AdapterError: it is missing, damaged, or made for another base.
    """
    return _checked(base, place)[0]


def _checked(base: DiffusionBase, place: Path) -> tuple[AdapterFile, AdapterState]:
    file = formats.find(place)
    if file.card:
        _check_card(base, file.card)
    headers.check_fit(file.path, file.layers, {name: shape_of(layer) for name, layer in layers_of(base).items()})
    return file, formats.read_file(file)


def layers_of(base: DiffusionBase) -> dict[str, Any]:
    """The layers of the base's networks that have weights, as `AdapterState` names them."""
    return {
        names.canonical(f"{component}.{path.removesuffix('.base_layer')}"): layer
        for component, network in base.networks.items()
        for path, layer in network.named_modules()
        if shape_of(layer) and ".lora_" not in path
    }


def _check_card(base: DiffusionBase, card: Path) -> None:
    """The card says which weights the adapter belongs to."""
    try:
        trained_on = json_value(card.read_text(encoding="utf-8"))["base"]
        model, fingerprint, fits = str(trained_on["model"]), str(trained_on["fingerprint"]), base.fits(trained_on)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AdapterError(f"{card}: damaged: no base with model and fingerprint") from None
    if not fits:
        raise AdapterError(
            f"{card.parent}: made for another base: {model} ({fingerprint[:12]}), "
            f"and this one is {base.model} ({base.fingerprint[:12]})"
        )
    if (told := trained_on.get("prediction_type", base.prediction_type)) != base.prediction_type:
        raise AdapterError(
            f"{card.parent}: learned what a base predicts as {told!r}, and {base.model} is read as predicting "
            f"{base.prediction_type!r}; a recipe says which by prediction_type"
        )


def load(base: DiffusionBase, name: str, place: Path, *, denoiser_only: bool = False) -> AdapterFile:
    """Put a saved adapter on the base's denoiser and, unless `denoiser_only`, what it has for them on its encoders.

    Raises:
        AdapterError: it is missing, damaged, or made for another base.
    """
    file, state = _checked(base, place)
    known = layers_of(base)
    try:
        layers = {layer: _fitted(change, known[layer]) for layer, change in state.layers.items()}
        state = replace(state, layers=layers)
        for component in state.components:
            if component == base.targets.prefix:
                _put_on_denoiser(base.denoiser, base.targets, name, state)
                restore_fp32_magnitudes(base.denoiser, name, state.of(component))
            elif not denoiser_only:
                _put_on_encoder(base.networks[component], component, name, state)
            else:
                continue
            count = sum(key.endswith(".lora_A.weight") for key in weights_of(base.networks[component], name))
            if count != len(state.of(component)):  # peft leaves out what is no linear layer and no convolution.
                raise ValueError(f"of {len(state.of(component))} layers in {component} only {count} can be adapted")
    except AdapterError:
        raise
    except Exception as failed:
        raise AdapterError(f"{file.path}: damaged: {failed}".splitlines()[0]) from failed
    return file


def _fitted(change: LayerChange, layer: Any) -> LayerChange:
    """A layer's change in fp32, in the shape of the layer's weight; norms of inputs as the ΔW that they come to."""
    shape = shape_of(layer)
    ones = (1,) * (len(shape) - 2)
    down = change.down.float().reshape(change.rank, *shape[1:])
    change = replace(change, down=down, up=change.up.float().reshape(shape[0], change.rank, *ones))
    if change.axis == "output" or change.magnitude is None:
        return change
    own = layer.weight.detach().float().cpu()
    moved = own + change.delta
    lengths = torch.linalg.vector_norm(moved.transpose(0, 1).flatten(1), dim=1)
    return full((change.magnitude.float() / lengths).view(1, -1, *ones) * moved - own)


def _put_on_denoiser(denoiser: Any, targets: AdapterTargets, name: str, state: AdapterState) -> None:
    prefix = targets.prefix
    tensors = {f"{prefix}.{key}": tensor for key, tensor in state.tensors(prefix).items()}
    config = {f"{prefix}.{key}": value for key, value in state.config(prefix).items()}
    with several_wanted():
        denoiser.load_lora_adapter(
            tensors, prefix=prefix, metadata=config, adapter_name=inner(name), low_cpu_mem_usage=True
        )


def _put_on_encoder(network: Any, component: str, name: str, state: AdapterState) -> None:
    """Put the part of a prompt encoder on it; transformers' names of its modules may differ from those in files."""
    modules = {names.canonical(f"{component}.{path}"): path for path, _ in network.named_modules()}
    own = {f"{component}.{modules[layer]}": change for layer, change in state.layers.items() if layer in modules}
    renamed = AdapterState(own)  # Its configuration names every layer in full.
    config, tensors = lora_config(renamed.config(component)), renamed.tensors(component)
    with several_wanted():
        inject_adapter_in_model(config, network, adapter_name=inner(name), low_cpu_mem_usage=True)
        set_peft_model_state_dict(network, tensors, adapter_name=inner(name), low_cpu_mem_usage=True)
    network.requires_grad_(False)
    restore_fp32_magnitudes(network, name, renamed.of(component))


def restore_fp32_magnitudes(network: Any, name: str, layers: Mapping[str, LayerChange]) -> None:
    """Give a DoRA's magnitudes the file's precision back, whatever the network's is: each scales all of a weight.

    `layers` are by their names in the network. peft makes a DoRA of all of them or of none; those that have no
    magnitude in the file are made plain again.

    Raises:
        ValueError: the file has magnitudes for layers of which peft made no DoRA.
    """
    loaded = dora_magnitudes(network, name)
    if missing := {layer for layer, change in layers.items() if change.magnitude is not None} - loaded.keys():
        raise ValueError(f"no magnitude was loaded for {min(missing)}")
    for layer, magnitude in loaded.items():
        saved = layers[layer].magnitude
        if saved is None:
            module = network.get_submodule(layer)
            del module.lora_magnitude_vector[inner(name)], module.lora_variant[inner(name)]
        else:
            magnitude.data = saved.to(magnitude.device, torch.float32).view(magnitude.shape)
