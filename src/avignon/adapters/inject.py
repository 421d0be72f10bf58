"""New adapters on a frozen denoiser: which layers, at which rank.

LoRA: Hu et al., arXiv:2106.09685, eq. 3: W' = W + (α/r)·B·A. DoRA: Liu et al., arXiv:2402.09353, eq. 5:
W' = m·(W + (α/r)·B·A) / ‖W + (α/r)·B·A‖, with a norm and a learned magnitude m for each output channel.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig

from avignon.adapters.layers import dora_magnitudes, doras, inner
from avignon.core.errors import RecipeError
from avignon.models.base import AdapterTargets
from avignon.models.frozen import Frozen
from avignon.recipe.schema import Ranks


def add(
    denoiser: Any, targets: AdapterTargets, name: str, ranks: Ranks, alpha: float, seed: int, *, dora: bool = False
) -> list[torch.nn.Parameter]:
    """Put a new adapter, which changes nothing yet, on a frozen denoiser.

    Others may be on already; it alone is active then (see `routed`).

    Returns:
        Its parameters, in fp32, a DoRA's magnitudes last.

    Raises:
        RecipeError: ranks for a block that the denoiser has not.
    """
    paths = [path for path, _ in denoiser.named_modules()]
    blocks = sorted(path for path in paths if re.fullmatch(targets.blocks, path))
    if unknown := [block for block in ranks.blocks if block not in blocks]:
        raise RecipeError(f"train.ranks.blocks: the denoiser has no {unknown[0]!r}; there are {', '.join(blocks)}")
    config = lora_config(targets, ranks, alpha, dora=dora, paths=paths)
    with torch.random.fork_rng(devices=[]), several_wanted():
        torch.manual_seed(seed)
        denoiser.add_adapter(config, adapter_name=inner(name))
    trained = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    lengths = dora_magnitudes(denoiser, name)
    for path, magnitude in lengths.items():
        # peft took them in the denoiser's precision: in bf16 up to 0.4 % off, which would be a change.
        layer = denoiser.get_submodule(path)
        weight = layer.get_base_layer().weight.float()
        magnitude.data = layer.lora_magnitude_vector[inner(name)].get_weight_norm(weight, lora_weight=0.0, scaling=1.0)
    last = {id(magnitude) for magnitude in lengths.values()}
    return sorted(trained, key=lambda parameter: id(parameter) in last)


def lora_config(
    targets: AdapterTargets, ranks: Ranks, alpha: float = 0.0, *, dora: bool = False, paths: Iterable[str] = ()
) -> LoraConfig:
    """Which layers are adapted, at which rank; `alpha` 0 is each layer's rank, a scale of 1.

    `paths` are all of the denoiser's modules; they are needed only where single blocks have ranks of their own.
    """
    kinds = {
        layer: rank for kind, layers in targets.kinds.items() if (rank := getattr(ranks, kind)) for layer in layers
    }
    if ranks.blocks:  # Layer by layer: of several patterns that fit peft takes the first, and files keep no order.
        kinds = {path: rank for path in paths if (rank := _rank_of(path, kinds, ranks.blocks))}
    pattern = {re.escape(layer): rank for layer, rank in kinds.items()}
    if not kinds:
        raise RecipeError(f"train.ranks: all of the base's kinds ({', '.join(targets.kinds)}) are 0: nothing to train")
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
    own = [rank for kind, rank in kinds.items() if f".{path}".endswith(f".{kind}")]
    of_block = [rank for block, rank in blocks.items() if path.startswith(f"{block}.")]
    return (of_block or own)[0] if own else 0


@contextmanager
def several_wanted() -> Iterator[None]:
    """Several adapters on one denoiser are no slip: peft's warning of it is not passed on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
        yield


def trainable(denoiser: Any, parameters: list[torch.nn.Parameter], ranks: Ranks) -> dict[str, Any]:
    """What is trained: LoRA or DoRA, the adapter's parameters, the denoiser's without any, and their share."""
    adapter = sum(parameter.numel() for parameter in parameters)
    plain = sum(parameter.numel() for name, parameter in denoiser.named_parameters() if ".lora_" not in name)
    total = plain + sum(layer.shape.numel() for layer in denoiser.modules() if isinstance(layer, Frozen))
    return {
        "method": "DoRA" if doras(denoiser) else "LoRA",
        "parameters": adapter,
        "unet_parameters": total,  # The card's name for it since avignon 0.1.0, whatever the denoiser is.
        "share": adapter / total,
        "ranks": {**ranks.model_dump(exclude={"blocks"}), **ranks.blocks},
    }
