"""Files of adapters and bases by their headers, without torch: what an adapter changes and whether that fits a base."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import safetensors

from avignon.adapters.formats.names import canonical
from avignon.core.errors import AdapterError
from avignon.models.registry import FAMILIES


@dataclass(frozen=True)
class LayerShapes:
    """A layer's change, by the shapes of the low-rank factors that it comes to."""

    kind: str
    """How it is written: LoRA, LoCon, LoHa, LoKr, full."""
    down: tuple[int, ...]
    """Of A, (r, in) or (r, in, k, k); (r, in·k·k) where the file does not tell the kernel."""
    up: tuple[int, ...]
    """Of B, (out, r) or (out, r, 1, 1)."""
    magnitude: tuple[int, ...] = ()
    """Of a DoRA's magnitudes, as the file has them."""

    @property
    def rank(self) -> int:
        """The width r between A and B."""
        return self.down[0]

    @property
    def method(self) -> str:
        """The kind, or DoRA."""
        return "DoRA" if self.magnitude and self.kind == "LoRA" else self.kind

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether it is a change of a weight of this shape, (out, in) or (out, in, k, k)."""
        out, rest = shape[0], tuple(shape[1:])
        is_flat = self.kind in ("LoHa", "LoKr", "full") and self.down[1:] == (prod(rest),)
        if not (is_flat or self.down[1:] == rest) or self.up[:2] != (out, self.rank):
            return False
        # peft's shape, then LyCORIS' for norms of outputs and of inputs.
        ones = (1,) * len(rest[1:])
        lengths = [(out,) if len(shape) == 2 else (1, out, *ones), (out, 1, *ones), (1, rest[0], *ones)]
        return not self.magnitude or self.magnitude in lengths


def shapes(path: Path) -> dict[str, list[int]]:
    """Shapes of the tensors of a safetensors file."""
    return _header(path)[0]


def _header(path: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    with safetensors.safe_open(path, framework="np") as file:
        held = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - it is no mapping
        return held, file.metadata() or {}


def adapter(path: Path, name: str) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Shapes of the tensors of an adapter's file, and its metadata; `name` is what such a file is usually called.

    Raises:
        AdapterError: it is missing or damaged.
    """
    try:
        return _header(path)
    except (FileNotFoundError, NotADirectoryError):
        raise AdapterError(
            f"{path}: no such file; an adapter's folder holds {name}, or one safetensors file of another name"
        ) from None
    except (OSError, safetensors.SafetensorError) as broken:
        raise AdapterError(f"{path}: damaged: {broken}") from None


def layers_in(base: Path) -> dict[str, Sequence[int]]:
    """Shapes of the weights of a base's networks that adapters can change, by layer as `AdapterState` names them.

    From all files; none where one is missing or damaged.
    """
    found: dict[str, Sequence[int]] = {}
    components = {each for family in FAMILIES.values() for each in (family.denoiser, *family.prompt_encoders)}
    for path in (path for component in components for path in (base / component).glob("*.safetensors")):
        try:
            own = {k.removesuffix(".weight"): v for k, v in shapes(path).items() if k.endswith(".weight")}
        except (OSError, safetensors.SafetensorError):
            return {}
        found |= {canonical(f"{path.parent.name}.{layer}"): shape for layer, shape in own.items()}
    return found


def check_whole(path: Path, layer: str, change: LayerShapes) -> None:
    """The factors of a layer fit each other, whatever base they are for; `path` is for messages.

    Raises:
        AdapterError: naming the layer and both shapes.
    """
    down, up = change.down, change.up
    if not change.rank:
        raise AdapterError(f"{path}: damaged: {layer} has a rank of 0")
    if change.kind == "full" and len(down) == 1:
        raise AdapterError(f"{path}: changes of normalisation layers are not read: {layer}.diff")
    is_whole = len(down) in (2, 4) and len(up) in (2, 4) and up[1] == change.rank and all((*down, *up))
    if not (is_whole and all(edge == 1 for edge in up[2:])):
        raise AdapterError(f"{path}: damaged: {layer} has factors that do not fit each other: B {up} by A {down}")
    numbers, lengths = prod(change.magnitude), (up[0], down[1])
    if change.magnitude and numbers not in lengths:
        raise AdapterError(
            f"{path}: damaged: {layer} has {numbers} magnitudes; a DoRA has one for each of its {up[0]} outputs or "
            f"{down[1]} inputs"
        )


def check_fit(path: Path, changes: Mapping[str, LayerShapes], layers: Mapping[str, Sequence[int]]) -> None:
    """Everything must fit one of `layers`, the shapes of a base's weights by layer; `path` is for messages.

    diffusers drops what does not fit with a log line at most.

    Raises:
        AdapterError: naming the first layer that does not fit, and how many there are.
    """
    unknown = [layer for layer in changes if layer not in layers]
    if unknown:
        rest = f", nor {len(unknown) - 1} more of its {len(changes)} layers" if len(unknown) > 1 else ""
        raise AdapterError(f"{path}: made for another base: there is no layer {unknown[0]} here{rest}{seems(unknown)}")
    for layer, change in changes.items():
        if not change.fits(layers[layer]):
            raise AdapterError(
                f"{path}: made for another base: {layer} is {tuple(layers[layer])} here, and its change is "
                f"B {change.up} by A {change.down}{_meant_for(changes)}"
            )


_TEXT_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}


def family(changes: Mapping[str, LayerShapes]) -> str:
    """Which bases an adapter is for, by names and widths of its layers; empty where unknown."""
    if seems(changes).endswith(_Z_IMAGE):
        return _Z_IMAGE
    if seems(changes).endswith(_FLUX_2):
        width = next(each.down[1] for layer, each in changes.items() if re.search(_FAMILIES[_FLUX_2], layer))
        return _FLUX_2_WIDTHS.get(width, _FLUX_2)
    widths = {each.down[1] for layer, each in changes.items() if layer.endswith(("attn2.to_k", "attn2.to_v"))}
    return next((_TEXT_WIDTHS[width] for width in widths if width in _TEXT_WIDTHS), "")


_Z_IMAGE, _FLUX_2 = "Z-Image or Lumina", "FLUX.2"
_FLUX_2_WIDTHS = {3072: "FLUX.2 klein 4B", 4096: "FLUX.2 klein 9B", 6144: "FLUX.2 [dev]"}

_FAMILIES = {
    "Stable Diffusion XL": r"lora_te2_|text_encoder_2\.|attentions\.\d\.transformer_blocks\.[1-9]\.|add_embedding",
    _FLUX_2: r"to_qkv_mlp_proj|ff(_context)?[._]linear_in",
    "FLUX": r"(double|single)[._](transformer[._])?blocks|single_transformer_blocks",
    "Stable Diffusion 3": r"joint[._]blocks|ff[._]context",
    "Wan or another model of videos": r"(^|[._])blocks[._]\d+[._](self_attn|cross_attn)",
    _Z_IMAGE: r"(^|[._])layers[._]\d+[._](attention|feed_forward|adaLN)",
    "a transformer such as FLUX or Stable Diffusion 3": r"^(transformer|diffusion_model|lora_transformer)[._]",
}
"""Marks of other families of bases in the names of an adapter's layers."""


def _meant_for(changes: Mapping[str, LayerShapes]) -> str:
    meant = family(changes)
    return seems(changes) or (f"; it seems to be for {meant}" if meant else "")


def seems(names: Iterable[str]) -> str:
    """`; it seems to be for …`, where names of layers have the marks of another family of bases; else nothing."""
    text = list(names)
    found = (family for family, marks in _FAMILIES.items() if any(re.search(marks, name) for name in text))
    family = next(found, "")
    return f"; it seems to be for {family}" if family else ""


def is_sdxl(layers: Iterable[str], metadata: Mapping[str, str]) -> bool:
    """Whether an adapter is for Stable Diffusion XL: its header says so, or layers that only such a base has."""
    architecture, version = (metadata.get(key, "") for key in ("modelspec.architecture", "ss_base_model_version"))
    is_told = architecture.startswith("stable-diffusion-xl") or version.startswith("sdxl")
    return is_told or seems(layers).endswith("Stable Diffusion XL")


def makers(layers: Iterable[str], metadata: Mapping[str, str]) -> str:
    """The family whose makers' names kohya's format has for an adapter's layers; empty where those are diffusers'."""
    transformer = [layer for layer in layers if layer.startswith("transformer.")]
    if transformer:
        return "flux2" if any("transformer_blocks." in layer for layer in transformer) else "z-image"
    return "sdxl" if is_sdxl(layers, metadata) else ""


def content_hash(path: Path) -> str:
    """SHA-256 of what follows a safetensors file's header, which metadata do not change (AutoV3 on Civitai).

    Format: eight bytes of length (little-endian), the header in JSON, the tensors.
    """
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()
