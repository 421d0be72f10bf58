"""kohya's format, which every program reads: names with underscores, and each layer's alpha as a tensor.

Written for Stable Diffusion 1 and 2 with diffusers' block names, for SDXL with StabilityAI's, as sd-scripts does, and
for transformers with their makers', by which ComfyUI and diffusers know them: query, key and value are one layer there.
Read with any of them, and with LyCORIS' parts.
`diffusers.utils.convert_state_dict_to_kohya` is not used: it writes alpha = rank whatever alpha was, leaves the
dots in the stems of a UNet's DoRA magnitudes, and calls a single text encoder `lora_te1_`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon.adapters import headers
from avignon.adapters.formats import names, native
from avignon.core.errors import AdapterError

if TYPE_CHECKING:
    import torch

    from avignon.adapters.state import AdapterState, LayerChange

WEIGHTS_FILE = ""
"""Such a file has any name."""


def recognizes(keys: list[str]) -> bool:
    """Whether a file with these keys is in this format."""
    return any(key.startswith(("lora_unet_", "lora_te", "lora_transformer_", "lycoris_")) for key in keys)


def layer_of(stem: str) -> str:
    """The layer that a key without its part is of."""
    if not stem.startswith("lycoris_"):
        return names.from_kohya(stem)
    # LyCORIS wraps kohya's networks, or a transformer of diffusers' by itself.
    rest = stem.removeprefix("lycoris_")
    return names.from_kohya(f"lora_{rest}") or names.from_kohya(f"lora_transformer_{rest}")


def configs(paths: Sequence[Path], metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:  # noqa: ARG001 - as the others'
    """None: scales are tensors here."""
    return {}


def write(
    path: Path, state: "AdapterState", metadata: Mapping[str, str], precision: "torch.dtype | None" = None
) -> None:
    """Write an adapter with header metadata, in a precision (by default its own); the same bytes each time.

    Names of layers are those of the family that the metadata or the layers tell.
    A layer's alpha is in fp32, so that it is what it was, and magnitudes keep their precision.

    Raises:
        AdapterError: the family's programs have no such layer.
    """
    import torch

    from avignon.adapters.formats import safe

    tensors, sdxl = {}, headers.is_sdxl(state.layers, metadata)
    for layer, change in sorted(_as_others_have_them(path, state.layers).items()):
        stem, own = names.kohya(layer, sdxl=sdxl), change.to(precision) if precision else change
        tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"] = own.down, own.up
        tensors[f"{stem}.alpha"] = torch.tensor(change.alpha, dtype=torch.float32)
        if change.magnitude is not None:
            ones = [1] * (change.down.dim() - 1)
            tensors[f"{stem}.dora_scale"] = (
                change.magnitude.view(-1, *ones) if change.axis == "output" else change.magnitude.view(1, -1, *ones[1:])
            )
    safe.write(path, tensors, metadata)


def _as_others_have_them(path: Path, layers: Mapping[str, "LayerChange"]) -> "dict[str, LayerChange]":
    """Layers by diffusers' names, with those in one that the family's own code has in one."""
    from avignon.adapters.state import joined

    found: dict[str, LayerChange] = {}
    for layer, change in layers.items():
        whole = native.whole_of(layer)
        if not names.kohya(whole):
            raise AdapterError(f"{path}: kohya's format has no name for {layer}; use --format diffusers")
        if whole == layer:
            found[layer] = change
        elif whole not in found:
            several = native.parts_of(whole)
            try:
                found[whole] = joined([layers[each] for each in several])
            except (KeyError, ValueError):
                raise AdapterError(
                    f"{path}: kohya's format has {', '.join(several)} in one layer, and they are not there with the "
                    "same rank and alpha; use --format diffusers"
                ) from None
    return found
