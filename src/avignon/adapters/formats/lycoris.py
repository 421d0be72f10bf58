"""The tensors of a layer, in any of LyCORIS' ways to write a change, as low-rank factors of the same ΔW.

The package's documentation: github.com/KohakuBlueleaf/LyCORIS, docs/Algo-Details.md; Yeh et al., arXiv:2309.14859.
Where the factors would have no less numbers than ΔW itself, it is kept in full.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch

from avignon.adapters.state import Config, LayerChange, full, rank_and_alpha

Parts = Mapping[str, torch.Tensor]


def layer(kind: str, parts: Parts, path: str, configs: Mapping[str, Config]) -> LayerChange:
    """A layer's change of a kind that `parts.shapes` tells; alpha is a tensor of its own, or peft's configuration's.

    Where neither has one, the scale is 1, as every program takes it.

    Raises:
        KeyError, ValueError: a configuration that says neither, or that does not agree with the tensors.
    """
    component, _, name = path.partition(".")
    alpha: float | None = None
    if "alpha" in parts:
        alpha = float(parts["alpha"])
    elif component in configs:
        alpha = rank_and_alpha(configs[component], name)[1]
    change = _CHANGES[kind](parts, alpha)
    magnitude = parts.get("magnitude", parts.get("dora_scale"))
    if component in configs and kind == "LoRA" and (told := rank_and_alpha(configs[component], name)[0]) != change.rank:
        raise ValueError(f"{name} has a rank of {change.rank}, and by its configuration one of {told}")
    if component in configs and bool(configs[component].get("use_dora")) != (magnitude is not None):
        raise ValueError(f"tensors and metadata do not agree whether {name} has a DoRA's magnitude")
    if magnitude is None:
        return change
    is_by_input = "dora_scale" in parts and len(magnitude) == 1 < len(change.up)
    return replace(change, magnitude=magnitude.flatten(), axis="input" if is_by_input else "output")


def _lora(parts: Parts, alpha: float | None) -> LayerChange:
    down = parts["down"]
    return LayerChange(down, parts["up"], float(len(down)) if alpha is None else alpha)


def _locon(parts: Parts, alpha: float | None) -> LayerChange:
    """A convolution in three: in → r at 1×1, r → r at k×k, r → out at 1×1. The first two are one of k×k."""
    down, mid = parts["down"].float(), parts["mid"].float()
    core = torch.einsum("ijkl,jq->iqkl", mid, down.flatten(1))
    return LayerChange(core, parts["up"].float(), float(len(core)) if alpha is None else alpha)


def _loha(parts: Parts, alpha: float | None) -> LayerChange:
    """ΔW = (α/r)·(B₁A₁)∘(B₂A₂), which is the product of the column-wise and the row-wise Khatri-Rao product.

    Hyeon-Woo et al., arXiv:2108.06098, proposition 1.
    """
    sides = []
    for number in (1, 2):
        up, down = parts[f"hada_w{number}_a"].float(), parts[f"hada_w{number}_b"].float()
        core = parts.get(f"hada_t{number}")
        sides.append(_tucker(core.float(), up, down) if core is not None else (up, down))
    (up, down), (up_2, down_2) = sides
    rank = len(parts["hada_w1_b"])
    scale = 1.0 if alpha is None else alpha / rank
    rest = down.shape[1:]
    wide = (up[:, :, None] * up_2[:, None, :]).flatten(1)  # (out, r₁·r₂)
    tall = (down[:, None] * down_2[None]).flatten(0, 1)  # (r₁·r₂, in, …)
    return _fewest(wide, tall.view(-1, *rest), scale)


def _lokr(parts: Parts, alpha: float | None) -> LayerChange:
    """ΔW = (α/r)·W₁⊗W₂ of Kronecker, where (B₁A₁)⊗(B₂A₂) = (B₁⊗B₂)(A₁⊗A₂); a scale of 1 where both are whole."""
    sides, rank = [], 0
    for number in (1, 2):
        whole = parts.get(f"lokr_w{number}")
        if whole is not None:
            in_full = full(whole.float())
            sides.append((in_full.up.flatten(1), in_full.down))
            continue
        up, down = parts[f"lokr_w{number}_a"].float(), parts[f"lokr_w{number}_b"].float()
        rank = rank or len(down)
        core = parts.get("lokr_t2") if number == 2 else None
        sides.append(_tucker(core.float(), up, down) if core is not None else (up, down))
    (up, down), (up_2, down_2) = sides
    scale = alpha / rank if alpha is not None and rank else 1.0
    narrow = down.reshape(*down.shape, *(1 for _ in down_2.shape[2:]))
    return _fewest(torch.kron(up, up_2), torch.kron(narrow, down_2), scale)


def _tucker(core: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors (out, r) and (r, in, k, k) of a core (r, r, k, k), with `up` (r, out) and `down` (r, in)."""
    return up.T.contiguous(), torch.einsum("ijkl,jq->iqkl", core, down).contiguous()


def _full(parts: Parts, alpha: float | None) -> LayerChange:  # noqa: ARG001 - a whole ΔW has no scale
    return full(parts["diff"])


def _fewest(up: torch.Tensor, down: torch.Tensor, scale: float) -> LayerChange:
    """The change of these factors and this scale, in full where their rank is no less than ΔW's can be."""
    rank, rest = len(down), down.shape[1:]
    if rank >= min(len(up), prod(rest)):
        return full(scale * (up @ down.flatten(1)).view(len(up), *rest))
    return LayerChange(down, up.view(len(up), rank, *(1 for _ in rest[1:])), scale * rank)


_CHANGES = {"LoRA": _lora, "LoCon": _locon, "LoHa": _loha, "LoKr": _lokr, "full": _full}
