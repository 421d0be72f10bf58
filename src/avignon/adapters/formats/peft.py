"""peft's format: a folder with `adapter_model.safetensors` and `adapter_config.json`, of one component of a pipeline.

An adapter of several components is a folder of such folders, named as diffusers names the components; so do peft's own
examples for Stable Diffusion. SDXL's second text encoder has the same names inside as the first: its folder tells it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon.adapters.formats import names, native
from avignon.adapters.formats.configs import json_object

if TYPE_CHECKING:
    import torch

    from avignon.adapters.state import AdapterState

WEIGHTS_FILE = "adapter_model.safetensors"

CONFIG_FILE = "adapter_config.json"

_BEFORE = "base_model.model."
"""Before every name of a layer."""


def recognizes(keys: list[str]) -> bool:
    """Whether a file with these keys is in this format."""
    return any(key.rpartition("/")[2].startswith(_BEFORE) for key in keys)


def layer_of(stem: str) -> str:
    """The layer that a key without its part is of; its component is before a slash, else its first block tells it."""
    component, _, key = stem.rpartition("/")
    inside = key.removeprefix(_BEFORE)
    if inside == key:
        return ""
    if component in ("", "transformer") and (layer := native.layer_of(inside)):
        return layer
    is_text = re.match(r"text_model\.|encoder\.|embeddings\.|final_layer_norm", inside)
    return names.canonical(f"{component or ('text_encoder' if is_text else 'unet')}.{inside}")


def key_of(path: Path, key: str) -> str:
    """A file's key, behind its component and a slash where the file's folder has a component's name."""
    component = path.parent.name
    return f"{component}/{key}" if path.name == WEIGHTS_FILE and component in names.PREFIXES else key


def configs(paths: Sequence[Path], metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:  # noqa: ARG001 - as diffusers'
    """What `adapter_config.json` beside the weights says, for whichever component they are of.

    A file of another name may have none: it is another program's, with peft's names of layers.

    Raises:
        OSError, ValueError: it is missing or damaged, or not of a LoRA.
    """
    found: dict[str, dict[str, Any]] = {}
    if paths[0].name != WEIGHTS_FILE and not (paths[0].parent / CONFIG_FILE).exists():
        return found
    for folder in (path.parent for path in paths):
        told = json_object((folder / CONFIG_FILE).read_text(encoding="utf-8"), CONFIG_FILE)
        if (kind := told.get("peft_type")) != "LORA":
            raise ValueError(f"{CONFIG_FILE}: peft_type is {kind!r}; only 'LORA' is read")
        found |= {folder.name: told} if len(paths) > 1 else dict.fromkeys(names.PREFIXES, told)
    return found


def write(
    path: Path, state: "AdapterState", metadata: Mapping[str, str], precision: "torch.dtype | None" = None
) -> None:
    """Write an adapter into the folder `path`, in a precision (by default its own); the same bytes each time."""
    from avignon.adapters.formats import safe
    from avignon.adapters.state import lora_config

    own = state.map(lambda layer: layer.to(precision)) if precision else state
    for part in own.components:
        folder = path / part if own.components not in (("unet",), ("text_encoder",)) else path
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{_BEFORE}{key}": tensor for key, tensor in own.tensors(part).items()}
        safe.write(folder / WEIGHTS_FILE, tensors, {**metadata, "format": "pt"})
        told = {key: _plain(value) for key, value in lora_config(own.config(part)).to_dict().items()}
        text = json.dumps(told, indent=2, sort_keys=True, default=str)
        (folder / CONFIG_FILE).write_text(f"{text}\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value
