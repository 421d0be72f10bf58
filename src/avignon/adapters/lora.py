"""LoRA and DoRA on a UNet: which layers, at which rank, saved so that every tensor comes back.

LoRA: Hu et al., arXiv:2106.09685, eq. 3: W' = W + (α/r)·B·A. DoRA: Liu et al., arXiv:2402.09353, eq. 5:
W' = m·(W + (α/r)·B·A) / ‖W + (α/r)·B·A‖, with a norm and a learned magnitude m for each output channel. The file is
diffusers' format with peft's own key names and the adapter's metadata; the usual conversion of names before saving
loses attention weights without an error when convolutions are adapted too, which is why `save` reloads what it wrote
and compares each tensor.
"""

import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from avignon.adapters.formats.diffusers import WEIGHTS_FILE as WEIGHTS_FILE
from avignon.adapters.formats.diffusers import check_fit
from avignon.adapters.weights import block_factor
from avignon.core.errors import AdapterError, AvignonError, RecipeError
from avignon.core.files import json_value, replacing
from avignon.models import finite
from avignon.models.stable_diffusion.model import Base
from avignon.recipe.schema import Ranks

LAYERS: Mapping[str, tuple[str, ...]] = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "projection": ("proj_in", "proj_out"),
    "convolution": ("conv1", "conv2"),
}
"""The UNet's layers of each kind, by the end of their names."""


def inner(name: str) -> str:
    """An adapter's name inside peft, whatever the user calls it.

    peft and PyTorch make names of parameters with it, in which a dot divides, and find an adapter's by searching for
    its name: one called `lora_A`, `weight` or `0` would be found in every layer.
    """
    return "x" + name.encode().hex()


def outer(inside: str) -> str:
    """The inverse of `inner`; the name itself where it was not made by that."""
    return bytes.fromhex(inside[1:]).decode() if re.fullmatch(r"x(?:[0-9a-f]{2})*", inside) else inside


def lora_config(ranks: Ranks, alpha: float = 0.0, *, dora: bool = False, paths: Iterable[str] = ()) -> LoraConfig:
    """Which layers are adapted, at which rank; `alpha` 0 is each layer's rank, a scale of 1.

    `paths` are all of the UNet's modules; they are needed only where single blocks have ranks of their own.
    """
    kinds = {layer: rank for kind, layers in LAYERS.items() if (rank := getattr(ranks, kind)) for layer in layers}
    if (
        ranks.blocks
    ):  # layer by layer: of several patterns that fit peft takes the first, and files do not keep an order
        kinds = {path: rank for path in paths if (rank := _rank_of(path, kinds, ranks.blocks))}
    pattern = {re.escape(layer): rank for layer, rank in kinds.items()}
    default = next(iter(kinds.values()))
    return LoraConfig(
        r=default,
        lora_alpha=alpha or default,
        rank_pattern=pattern,
        alpha_pattern={layer: alpha or rank for layer, rank in pattern.items()},
        target_modules=list(kinds),
        init_lora_weights="gaussian",
        use_dora=dora,
    )


def _rank_of(path: str, kinds: Mapping[str, int], blocks: Mapping[str, int]) -> int:
    """A module's rank: its block's where that has one, else its kind's; 0 where it is not adapted."""
    own = [rank for kind, rank in kinds.items() if path.endswith(f".{kind}")]
    of_block = [rank for block, rank in blocks.items() if path.startswith(f"{block}.")]
    return (of_block or own)[0] if own else 0


def add(unet: Any, name: str, ranks: Ranks, alpha: float, seed: int, *, dora: bool = False) -> list[torch.nn.Parameter]:
    """Put a new adapter on a frozen UNet and return its parameters, in fp32, a DoRA's magnitudes last.

    The change it makes is still zero.

    Others may be on already; it alone is active then (see `routed`).

    Raises:
        RecipeError: ranks for a block that the UNet has not.
    """
    paths = [path for path, _ in unet.named_modules()]
    blocks = sorted(path for path in paths if re.fullmatch(r"(down|up)_blocks\.\d+|mid_block", path))
    for block in ranks.blocks:
        if block not in blocks:
            raise RecipeError(f"train.ranks.blocks: the UNet has no {block!r}; there are {', '.join(blocks)}")
    with torch.random.fork_rng(devices=[]), _several_wanted():
        torch.manual_seed(seed)
        unet.add_adapter(lora_config(ranks, alpha, dora=dora, paths=paths), adapter_name=inner(name))
    cast_training_params(unet, torch.float32)
    lengths = magnitudes(unet, name)
    for path, magnitude in lengths.items():
        # peft took them in the UNet's precision: in bf16 up to 0.4 % off, which would be a change.
        layer = unet.get_submodule(path)
        weight = layer.get_base_layer().weight.float()
        magnitude.data = layer.lora_magnitude_vector[inner(name)].get_weight_norm(weight, lora_weight=0.0, scaling=1.0)
    last = {id(magnitude) for magnitude in lengths.values()}
    return sorted((p for p in unet.parameters() if p.requires_grad), key=lambda parameter: id(parameter) in last)


def magnitudes(unet: Any, name: str) -> dict[str, torch.nn.Parameter]:
    """A DoRA's magnitudes by layer, (out,) of a linear layer and (1, out, 1, 1) of a convolution; none of a LoRA."""
    return {
        path: module.lora_magnitude_vector[inner(name)].weight
        for path, module in _lora_layers(unet)
        if inner(name) in module.lora_magnitude_vector
    }


def doras(unet: Any) -> set[str]:
    """Names of those adapters on the UNet that are DoRA."""
    return {outer(inside) for _, module in _lora_layers(unet) for inside in module.lora_magnitude_vector}


def trainable(unet: Any, parameters: list[torch.nn.Parameter], ranks: Ranks) -> dict[str, Any]:
    """What is trained: LoRA or DoRA, the adapter's parameters, the UNet's without any, and their share."""
    adapter = sum(parameter.numel() for parameter in parameters)
    total = sum(parameter.numel() for name, parameter in unet.named_parameters() if ".lora_" not in name)
    told = {**ranks.model_dump(exclude={"blocks"}), **ranks.blocks}
    method = "DoRA" if doras(unet) else "LoRA"
    return {
        "method": method,
        "parameters": adapter,
        "unet_parameters": total,
        "share": adapter / total,
        "ranks": told,
    }


def weights_of(unet: Any, name: str) -> dict[str, torch.Tensor]:
    """An adapter's tensors by peft's names, on the CPU."""
    state = get_peft_model_state_dict(unet, adapter_name=inner(name))
    return {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}


def save(unet: Any, name: str, path: Path) -> None:
    """Write an adapter's weights and metadata to the file `path`, and prove that they come back.

    Raises:
        AvignonError: the file, loaded into a fresh UNet, differs from what was trained (and is not kept).
    """
    weights = weights_of(unet, name)
    with replacing(path) as scratch:
        StableDiffusionPipeline.save_lora_weights(
            scratch.parent,
            weight_name=scratch.name,
            unet_lora_layers=dict(weights),
            unet_lora_adapter_metadata=_sorted(unet.peft_config[inner(name)].to_dict()),
        )
        _sort_header(scratch)
        _verify_roundtrip(unet, name, weights, scratch)


def _sorted(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The names of layers, which peft keeps in a set, in an order that is the same in every process."""
    return {key: sorted(value) if isinstance(value, set) else value for key, value in metadata.items()}


def _sort_header(path: Path) -> None:
    """Sort a safetensors file's header, whose metadata is in random order, so that equal adapters are equal files.

    Format: eight bytes of length (little-endian), the header in JSON, the tensors.
    """
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # The tensors stay aligned.
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[start:])


def _verify_roundtrip(unet: Any, name: str, weights: dict[str, torch.Tensor], path: Path) -> None:
    try:
        fresh = _read_back(unet, name, path)
        back = weights_of(fresh, name)
    except Exception as failed:
        raise AvignonError(f"{path}: what was written did not come back: {failed}".splitlines()[0]) from failed
    wrong = [key for key in weights.keys() | back.keys() if not _same(weights.get(key), back.get(key))]
    if wrong:
        raise AvignonError(f"{path}: {len(wrong)} of {len(weights)} tensors did not come back: {min(wrong)}")
    if _scales(unet, name) != _scales(fresh, name):
        raise AvignonError(f"{path}: the scales (alpha / rank) did not come back")


def _read_back(unet: Any, name: str, path: Path) -> Any:
    """A fresh UNet with the adapter that is in the file."""
    with torch.device("meta"):
        fresh = UNet2DConditionModel.from_config(unet.config)
    fresh.to_empty(device="cpu")  # Only the adapter's own tensors are ever written: the rest takes no memory.
    state, _, metadata = StableDiffusionPipeline.lora_state_dict(
        path.parent, weight_name=path.name, return_lora_metadata=True
    )
    fresh.load_lora_adapter(state, prefix="unet", metadata=metadata, adapter_name=inner(name), low_cpu_mem_usage=True)
    return fresh


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and one.dtype == other.dtype and torch.equal(one, other)


def _scales(unet: Any, name: str) -> dict[str, float]:
    inside = inner(name)
    return {path: m.scaling[inside] for path, m in unet.named_modules() if inside in getattr(m, "scaling", {})}


def check(base: Base, folder: Path) -> None:
    """Whether a saved adapter can be put on the base's UNet, as far as its card and its file tell.

    Raises:
        AdapterError: it is missing, damaged, or made for another base.
    """
    _check_card(base, folder)
    modules = base.pipeline.unet.named_modules()
    layers = {name.removesuffix(".base_layer"): m.weight.shape for name, m in modules if hasattr(m, "weight")}
    check_fit(folder / WEIGHTS_FILE, layers)
    if bad := finite.first_bad_in([folder / WEIGHTS_FILE]):
        raise AdapterError(bad)


def load(base: Base, name: str, folder: Path) -> None:
    """Put a saved adapter on the base's UNet.

    Raises:
        AdapterError: it is missing, damaged, or made for another base.
    """
    path = folder / WEIGHTS_FILE
    check(base, folder)
    try:
        _put_on(base.pipeline, name, folder)
    except Exception as failed:
        raise AdapterError(f"{path}: damaged: {failed}".splitlines()[0]) from failed
    for layer, scale in _scales(base.pipeline.unet, name).items():
        if not math.isfinite(scale):
            raise AdapterError(f"{path}: damaged: the scale (alpha / rank) of {layer} is {scale}")


def _put_on(pipeline: Any, name: str, folder: Path) -> None:
    with _several_wanted():
        pipeline.load_lora_weights(folder, weight_name=WEIGHTS_FILE, adapter_name=inner(name))
    _restore_fp32_magnitudes(pipeline.unet, name, folder / WEIGHTS_FILE)


def _restore_fp32_magnitudes(unet: Any, name: str, path: Path) -> None:
    """Give a DoRA's magnitudes the file's precision back, whatever the UNet's is: each is a factor on all of a weight.

    Raises:
        ValueError: the file has magnitudes for more or fewer layers than peft made of it.
    """
    ending, loaded = ".lora_magnitude_vector", magnitudes(unet, name)
    tensors = {
        key.removeprefix("unet.").removesuffix(ending): tensor
        for key, tensor in safetensors.torch.load_file(path).items()
        if key.endswith(ending)
    }
    if unlike := tensors.keys() ^ loaded.keys():
        raise ValueError(f"tensors and metadata do not agree whether {min(unlike)} has a DoRA's magnitude")
    for layer, magnitude in loaded.items():
        magnitude.data = tensors[layer].to(magnitude.device, torch.float32)


@contextmanager
def _several_wanted() -> Iterator[None]:
    """Several adapters on one UNet are no slip: peft's warning of it is not passed on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
        yield


def _check_card(base: Base, folder: Path) -> None:
    """The card, where there is one, says which weights the adapter belongs to."""
    card = folder / "card.json"
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
            f"and the recipe's is {base.model} ({base.fingerprint[:12]})"
        )


class Mixer:
    """Sets how much of every adapter is in each sample of a batch: ΔW = Σ wᵢ·ΔWᵢ, the sum of true deltas.

    Where all samples have the same weights, ΔW is added to the layers' weights once, and the passes are as fast as the
    base's own. Where they differ, each layer's low-rank products are scaled sample by sample (peft's `scaling` may be a
    tensor); a DoRA's ΔWᵢ is no such product, so its samples must have the same weights. The two agree to rounding; all
    weights 0 is the base itself, bit for bit.
    """

    def __init__(self, unet: Any, blocks: Mapping[str, Mapping[str, float]]) -> None:
        self._unet = unet
        self._layers = [(name, module, module.get_base_layer()) for name, module in _lora_layers(unet)]
        self._own = [layer.weight.data for _, _, layer in self._layers]
        self._scales = [dict(module.scaling) for _, module, _ in self._layers]
        self._blocks = {inner(name): factors for name, factors in blocks.items()}
        self._rows: Sequence[Mapping[str, float]] | None = None

    def set(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Weights by adapter, for each sample of the next passes.

        Raises:
            ValueError: samples have different weights of a DoRA.
        """
        if rows == self._rows or not self._layers:
            return
        self._rows = list(rows)
        self.restore()
        rows = [{inner(name): weight for name, weight in row.items()} for row in rows]
        names = list(dict.fromkeys(name for row in rows for name, weight in row.items() if weight))
        same = all(row.get(name, 0.0) == rows[0].get(name, 0.0) for row in rows for name in names)
        if same:
            self._unet.disable_lora()
            self._add(rows[0], names)
        else:
            self._unet.enable_lora()
            self._scale(rows, names)

    def restore(self) -> None:
        """Give every layer its own weights back."""
        for (_, _, layer), own in zip(self._layers, self._own, strict=True):
            layer.weight.data = own

    def _add(self, row: Mapping[str, float], names: Sequence[str]) -> None:
        for (path, module, layer), own, scales in zip(self._layers, self._own, self._scales, strict=True):
            weights = {name: row[name] * self._factor(name, path) for name in names if name in module.lora_A}
            if weights:
                changed = _changed(module, own.flatten(1).float(), scales, weights)
                layer.weight.data = torch.empty_like(own).copy_(changed.view(own.shape))

    def _scale(self, rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
        if unlike := doras(self._unet).intersection(map(outer, names)):
            raise ValueError(f"samples of one batch have different weights of a DoRA: {', '.join(sorted(unlike))}")
        for (path, module, layer), scales in zip(self._layers, self._scales, strict=True):
            module.set_adapter(names)
            for name in (name for name in names if name in module.lora_A):
                scale = self._factor(name, path) * scales[name]
                weights = torch.tensor([row.get(name, 0.0) * scale for row in rows])
                module.scaling[name] = weights.view(_spread(path, layer)).to(layer.weight)

    def _factor(self, name: str, path: str) -> float:
        return block_factor(self._blocks.get(name, {}), path)


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


def _with_factors(module: Any, own: torch.Tensor, scales: Mapping[str, float]) -> torch.Tensor:
    """W + Σ sᵢ·Bᵢ·Aᵢ, as (out, in · kernel); a convolution's B is 1×1, so the product is the same."""
    if not scales:
        return own
    ups = [module.lora_B[name].weight.flatten(1).float() * scale for name, scale in scales.items()]
    downs = [module.lora_A[name].weight.flatten(1).float() for name in scales]
    return torch.addmm(own, torch.cat(ups, 1), torch.cat(downs))


@contextmanager
def mixing(unet: Any, blocks: Mapping[str, Mapping[str, float]]) -> Iterator[Mixer]:
    """A `Mixer` for some passes, after which the UNet and its adapters are exactly as they were, in training as well.

    Args:
        unet: with any number of adapters on.
        blocks: by adapter, factors on its weight in parts of the UNet (see `blend.block_factor`).
    """
    layers = [module for _, module in _lora_layers(unet)]
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    state = [(m, dict(m.scaling), list(m.active_adapters), m.disable_adapters) for m in layers]
    mixer = Mixer(unet, blocks)
    try:
        yield mixer
    finally:
        mixer.restore()
        for module, scaling, active, off in state:
            module.set_adapter(active)
            module.enable_adapters(enabled=not off)
            module.scaling.update(scaling)
        unet.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def routed(unet: Any, names: Sequence[str]) -> Iterator[None]:
    """Within the block each of `len(names)` equal parts of a batch goes through its own adapter alone, and these learn.

    The adapters must be on the same layers. One name is peft's own forward pass with that adapter. One such block may
    lie within another, for what concerns a single adapter.
    """
    layers, inside = [module for _, module in _lora_layers(unet)], [inner(name) for name in names]
    before = [(module, list(module.active_adapters), vars(module).get("forward")) for module in layers]
    for module in layers:
        module.set_adapter(inside)  # Also lets exactly these adapters' factors have gradients.
        _take(module, partial(_routed, module, tuple(inside)) if len(inside) > 1 else None)
    try:
        yield
    finally:
        for module, active, forward in before:
            module.set_adapter(active)
            _take(module, forward)


def _take(module: Any, forward: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
    """Let a layer compute by `forward`; None is its class's own."""
    vars(module).pop("forward", None)
    if forward:
        module.forward = forward


def _routed(module: Any, names: tuple[str, ...], x: torch.Tensor) -> torch.Tensor:
    """A layer of a batch in `len(names)` parts: the base's once for all, then each part's own adapter.

    Samples never meet in a UNet, so a part's loss reaches no adapter but its own.
    """
    base: torch.Tensor = module.base_layer(x)
    parts = list(zip(names, x.chunk(len(names)), strict=True))
    if module.lora_variant:  # One that is more than a sum, such as DoRA, is left to peft.
        results = base.chunk(len(names))
        return torch.cat([_variant(module, *part, result) for part, result in zip(parts, results, strict=True)])
    # Scaled where it is small, between the factors.
    return base + torch.cat([module.lora_B[n](module.lora_A[n](part) * module.scaling[n]) for n, part in parts])


def _variant(module: Any, name: str, x: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """As peft's own forward pass does it for one adapter, whose factors may have a precision of their own."""
    x = x.to(module.lora_A[name].weight.dtype)
    changed: torch.Tensor = module.lora_variant[name].forward(module, active_adapter=name, x=x, result=result)
    return changed.to(result.dtype)


def _lora_layers(unet: Any) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in unet.named_modules() if hasattr(module, "lora_A")]


def _spread(path: str, layer: Any) -> tuple[int, ...]:
    """Shape in which one number per sample meets a layer's output: (B, C, H, W), (B, tokens, C), or (B, C) of times."""
    if isinstance(layer, torch.nn.Conv2d):
        return (-1, 1, 1, 1)
    return (-1, 1) if "time_emb" in path else (-1, 1, 1)
