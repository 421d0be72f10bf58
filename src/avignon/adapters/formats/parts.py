"""The tensors of one adapted layer, under the names that programs have for them. Needs no torch.

A key of a file is a layer's name and a part: what the tensor is to that layer. Names of layers differ from format to
format; parts are told here once for all of them.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod

from avignon.adapters.headers import LayerShapes, seems
from avignon.core.errors import AdapterError

Shape = Sequence[int]
Split = Callable[[str], str]
"""From a layer's name in a file to that of `AdapterState`; empty where the format has no such name."""

_ENDINGS = {
    "down": r"\.lora_A\.weight|\.lora_A\.default\.weight|\.lora_down\.weight|\.lora\.down\.weight"
    r"|\.lora_linear_layer\.down\.weight|_lora\.down\.weight",
    "up": r"\.lora_B\.weight|\.lora_B\.default\.weight|\.lora_up\.weight|\.lora\.up\.weight"
    r"|\.lora_linear_layer\.up\.weight|_lora\.up\.weight",
    "mid": r"\.lora_mid\.weight",
    "alpha": r"\.alpha",
    "magnitude": r"\.lora_magnitude_vector(?:\.weight|\.default\.weight)?",
    "dora_scale": r"\.dora_scale",
    "diff": r"\.diff",
    **{name: rf"\.{name}" for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")},
    **{name: rf"\.{name}" for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")},
    "lokr_t2": r"\.lokr_t2",
}
_PART = re.compile("(?P<layer>.+?)(?:" + "|".join(f"(?P<{name}>{ends})" for name, ends in _ENDINGS.items()) + ")")

_REFUSED = {
    r"\.oft_(blocks|diag|R)\b.*|\.rescale": "OFT adapters",
    r"\.[wb]_norm": "changes of normalisation layers",
    r"\.diff_b|\.lora_[AB]\.bias|\.lora_(up|down)\.bias|\.bias(_\w+)?": "changes of biases",
    r"\.[ab][12]\.weight": "GLoRA adapters",
    r"\.on_input": "IA3 adapters",
    r"\.scalar": "LyCORIS' factors of their own (`scalar`)",
    r"\.lora_embedding_[AB]": "changes of token embeddings",
    r"\.set_weight": "whole weights in place of changes",
    r"\.vera_lambda_\w+|\.glora_\w+|\.boft_\w+": "adapters of this method",
}
"""By the endings of their keys, what is not read."""


def grouped(path: str, keys: Iterable[str], layer_of: Split) -> dict[str, dict[str, str]]:
    """By layer, its keys by part; `path` is for messages.

    Raises:
        AdapterError: naming the first key that is of no layer or part that is read, and how many there are.
    """
    found: dict[str, dict[str, str]] = {}
    unread = []
    for key in keys:
        match = _PART.fullmatch(key)
        layer = layer_of(match["layer"]) if match else ""
        if match and layer:
            part = match.lastgroup or ""
            if part in (parts := found.setdefault(layer, {})):
                raise AdapterError(f"{path}: {key} and {parts[part]} are the same part of one layer")
            parts[part] = key
        else:
            unread.append(key)
    if unread:
        raise AdapterError(f"{path}: {_why_unread(unread)}")
    return found


def _why_unread(keys: Sequence[str]) -> str:
    rest = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
    for ending, what in _REFUSED.items():
        if refused := [key for key in keys if re.search(rf"(?:{ending})$", key)]:
            return f"{what} are not read: {refused[0]}{rest}"
    return f"{min(keys)}{rest} is no part of an adapter that is read{seems(keys)}"


def shapes(parts: Mapping[str, Shape]) -> LayerShapes:
    """What a layer's tensors come to as low-rank factors, by their shapes.

    Raises:
        ValueError: parts are missing, or some belong to different kinds of changes.
    """
    names = parts.keys() - {"alpha", "magnitude", "dora_scale"}
    magnitude = tuple(parts.get("magnitude", parts.get("dora_scale", ())))
    kind, (up, down) = _factors(parts, names)
    return LayerShapes(kind, tuple(down), tuple(up), magnitude)


def _factors(parts: Mapping[str, Shape], names: set[str]) -> tuple[str, tuple[Shape, Shape]]:
    """The kind of a change, and the shapes of its factors B and A."""
    if names == {"up", "down"}:
        return "LoRA", (parts["up"], parts["down"])
    if names == {"up", "down", "mid"}:
        return "LoCon", (parts["up"], (*parts["down"][:2], *parts["mid"][2:]))
    if names == {"diff"}:
        return "full", _in_full(parts["diff"])
    if names - {"hada_t1", "hada_t2"} == {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}:
        return "LoHa", _loha(parts)
    if names and all(name.startswith("lokr_") for name in names):
        return "LoKr", _lokr(parts)
    raise ValueError("incomplete")


def _loha(parts: Mapping[str, Shape]) -> tuple[Shape, Shape]:
    """By Tucker's decomposition A is (r, out) as LyCORIS stores it, else (out, r)."""
    first = parts["hada_w1_a"]
    out = first[1] if "hada_t1" in parts else first[0]
    rank = prod(parts[f"hada_w{number}_b"][0] for number in (1, 2))
    rest = (parts["hada_w1_b"][1], *parts.get("hada_t1", (0, 0))[2:])
    return _smaller(out, rank, rest)


def _lokr(parts: Mapping[str, Shape]) -> tuple[Shape, Shape]:
    sides = []
    for number in (1, 2):
        whole, left, right = (parts.get(f"lokr_w{number}{end}") for end in ("", "_a", "_b"))
        core = parts.get("lokr_t2") if number == 2 else None
        if whole:
            sides.append((whole[0], min(whole[0], prod(whole[1:])), whole[1:]))
        elif left and right:
            sides.append((left[1] if core else left[0], right[0], (right[1], *(core or ())[2:])))
        else:
            raise ValueError("incomplete")
    (out, rank, rest), (out_2, rank_2, rest_2) = sides
    return _smaller(out * out_2, rank * rank_2, (rest[0] * rest_2[0], *rest_2[1:]))


def _smaller(out: int, rank: int, rest: Shape) -> tuple[Shape, Shape]:
    """Factors of this rank, or of the full ΔW where that has no more."""
    if rank >= min(out, prod(rest)):
        return _in_full((out, *rest))
    return (out, rank, *(1 for _ in rest[1:])), (rank, *rest)


def _in_full(delta: Shape) -> tuple[Shape, Shape]:
    rank = min(delta[0], prod(delta[1:]))
    return (delta[0], rank, *(1 for _ in delta[2:])), (rank, *delta[1:])
