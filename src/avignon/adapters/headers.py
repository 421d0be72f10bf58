"""Files of adapters and bases by their headers, without torch: what an adapter changes and whether that fits a base."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors

from avignon.core.errors import AdapterError
from avignon.models.registry import FAMILIES

Factors = Mapping[str, Mapping[str, Sequence[int]]]
"""By adapted layer, the shapes of `lora_A`, `lora_B` and, of a DoRA, `lora_magnitude_vector`."""


def shapes(path: Path) -> dict[str, list[int]]:
    """Shapes of the tensors of a safetensors file."""
    with safetensors.safe_open(path, framework="np") as file:
        return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - it is no mapping


def adapter(path: Path, name: str) -> dict[str, list[int]]:
    """The same of an adapter's file; `name` is what a file in an adapter's folder is called.

    Raises:
        AdapterError: it is missing or damaged.
    """
    try:
        return shapes(path)
    except (FileNotFoundError, NotADirectoryError):
        names = ", ".join(sorted(each.name for each in path.parent.glob("*.safetensors")))
        instead = f"; here are {names}" if names else ""
        instead = f", and {path.parent.name} is a file" if path.parent.is_file() else instead
        raise AdapterError(f"{path}: no such file; an adapter's folder holds {name}{instead}") from None
    except (OSError, safetensors.SafetensorError) as broken:
        raise AdapterError(f"{path}: damaged: {broken}") from None


def layers_in(base: Path) -> dict[str, Sequence[int]]:
    """Shapes of the weights of a base's denoiser, by layer, from all files; none where one is missing or damaged.

    What is wrong with a base is told where the base is checked.
    """
    found: dict[str, Sequence[int]] = {}
    folders = {family.denoiser for family in FAMILIES.values()}
    for path in (path for folder in folders for path in (base / folder).glob("*.safetensors")):
        try:
            found |= {k.removesuffix(".weight"): v for k, v in shapes(path).items() if k.endswith(".weight")}
        except (OSError, safetensors.SafetensorError):
            return {}
    return found


def check_fit(path: Path, factors: Factors, layers: Mapping[str, Sequence[int]]) -> None:
    """Everything must fit one of `layers`, the shapes of the denoiser's weights by layer; `path` is for messages.

    diffusers drops what does not fit with a log line at most.

    Raises:
        AdapterError: naming the first layer that does not fit.
    """
    for layer, parts in factors.items():
        shape = layers.get(layer)
        if shape is None:
            raise AdapterError(f"{path}: made for another base: the UNet has no layer {layer}")
        # A is (rank, in, …) and B (out, rank, …); of a convolution, A has the kernel's shape as well.
        down, up = parts["lora_A"], parts["lora_B"]
        if not down[0]:
            raise AdapterError(f"{path}: damaged: {layer} has a rank of 0")
        length = [shape[0]] if len(shape) == 2 else [1, shape[0], 1, 1]
        fits = list(down[1:]) == list(shape[1:]) and list(up[:2]) == [shape[0], down[0]]
        if not fits or list(parts.get("lora_magnitude_vector", length)) != length:
            raise AdapterError(f"{path}: made for another base: {layer} is {tuple(shape)} here")


def content_hash(path: Path) -> str:
    """SHA-256 of what follows a safetensors file's header, which metadata do not change (AutoV3 on Civitai).

    Format: eight bytes of length (little-endian), the header in JSON, the tensors.
    """
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()
