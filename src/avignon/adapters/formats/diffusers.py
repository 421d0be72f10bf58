"""diffusers' format: names of layers with dots behind a component, and peft's configurations as metadata.

Written with peft's own names (`lora_A`, `lora_B`); read with those of diffusers' scripts (`lora.down`), those of 2023
(`processor.to_q_lora`), and the one that a text encoder's layers had then (`lora_linear_layer`) as well. Of
transformers the names of their makers' code are read too, and other programs' prefixes (see `native`).
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon.adapters.formats import names, native
from avignon.adapters.formats.configs import json_object
from avignon.models.registry import FAMILIES

if TYPE_CHECKING:
    import torch

    from avignon.adapters.state import AdapterState

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"

METADATA = "lora_adapter_metadata"
"""The key of a file's metadata under which diffusers keeps an adapter's configuration, as JSON."""

_FOLDERS = {name for family in FAMILIES.values() for name in (family.denoiser, *family.prompt_encoders)}

_COMPONENTS = "|".join(map(re.escape, sorted({*names.PREFIXES, *_FOLDERS})))
"""Before the names of layers: diffusers calls a network by the folder that it lies in."""


def recognizes(keys: list[str]) -> bool:
    """Whether a file with these keys is in this format; of those files that none recognizes, it is the likeliest."""
    return any(re.match(rf"({_COMPONENTS})\.|.*\.processor\.", key) for key in keys)


def layer_of(stem: str) -> str:
    """The layer that a key without its part is of."""
    if re.match(r"(down_blocks|mid_block|up_blocks)\..*\.processor\.", stem):  # Attention processors, saved alone.
        stem = f"unet.{stem}"
    # Behind `diffusion_model.` in ComfyUI's and ai-toolkit's files, behind nothing in DiffSynth's.
    if layer := native.layer_of(stem):
        return layer
    if not re.match(rf"(?!transformer)({_COMPONENTS})\..", stem):  # Another transformer's, or none of these.
        return ""
    if stem.startswith("text_encoder"):  # The names of 2023.
        old = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
        return names.canonical(re.sub(r"\bto_(q|k|v|out)$", lambda found: old[found[0]], stem))
    return re.sub(r"\.to_out$", ".to_out.0", stem.replace(".processor.", "."))


def configs(paths: Sequence[Path], metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:  # noqa: ARG001 - as peft's
    """Peft's configurations by component, as far as the file's metadata have them.

    Raises:
        ValueError: they are no JSON.
    """
    told = json_object(metadata.get(METADATA, "{}"), METADATA)
    found: dict[str, dict[str, Any]] = {}
    for key, value in told.items():
        component, _, field = key.partition(".")
        found.setdefault(component, {})[field] = value
    return found


def write(
    path: Path, state: "AdapterState", metadata: Mapping[str, str], precision: "torch.dtype | None" = None
) -> None:
    """Write an adapter with header metadata, in a precision (by default its own); the same bytes each time."""
    from avignon.adapters.formats import safe

    own = state.map(lambda layer: layer.to(precision)) if precision else state
    told = {f"{part}.{key}": _plain(value) for part in own.components for key, value in own.config(part).items()}
    tensors = {f"{part}.{key}": tensor for part in own.components for key, tensor in own.tensors(part).items()}
    header = {"format": "pt", METADATA: json.dumps(told, indent=2, sort_keys=True)}
    safe.write(path, tensors, {**metadata, **header})


def _plain(value: Any) -> Any:
    """A value for JSON; peft keeps names of layers in a set, in an order that differs from process to process."""
    return sorted(value) if isinstance(value, set) else value
