"""A folder in diffusers' format as the single file that artists share: Stability AI's names of its tensors.

The inverse of what diffusers' `from_single_file` does, for a UNet with one layer to a block; by the names of
Stability AI's `openaimodel.py` and `model.py`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

Tensors = dict[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}

_ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}

_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}

_OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def as_single_file(base: Path, path: Path, *, metadata: Mapping[str, str] | None = None, **more: torch.Tensor) -> Path:
    """Write a tiny base of diffusers' format as one file; `more` are further tensors, such as `v_pred`."""
    unet = {_unet(key): tensor for key, tensor in _read(base / "unet").items()}
    tensors = {f"model.diffusion_model.{_upsampled(key, unet)}": tensor for key, tensor in unet.items()}
    vae = {_vae(key): tensor for key, tensor in _read(base / "vae").items()}
    shaped = {key: t[..., None, None] if ".attn_1." in key and t.dim() == 2 else t for key, t in vae.items()}
    tensors |= {f"first_stage_model.{key}": tensor for key, tensor in shaped.items()}
    if (base / "text_encoder_2").is_dir():
        tensors |= _clip(base / "text_encoder", "conditioner.embedders.0.transformer.")
        tensors |= _open_clip(base / "text_encoder_2", "conditioner.embedders.1.model.")
    else:
        tensors |= _clip(base / "text_encoder", "cond_stage_model.transformer.")
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {key: tensor.contiguous() for key, tensor in (tensors | more).items()}
    safetensors.torch.save_file(whole, path, dict(metadata or {}))
    return path


def small_files(base: Path, folder: Path) -> Path:
    """The same base without its weights: what a single file takes from a repository."""
    for path in base.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            target = folder / path.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def _read(folder: Path) -> Tensors:
    [file] = folder.glob("*.safetensors")
    return safetensors.torch.load_file(file)


def _unet(key: str) -> str:
    layer, _, kind = key.rpartition(".")
    if layer in _ENDS:
        return f"{_ENDS[layer]}.{kind}"
    part, number, rest = _split(key)
    if part == "mid":
        inner = re.match(r"(resnets|attentions)\.(\d)\.(.+)", rest)
        assert inner
        place = 1 if inner[1] == "attentions" else 2 * int(inner[2])
        return f"middle_block.{place}.{_resnet(inner[3]) if inner[1] == 'resnets' else inner[3]}"
    inner = re.match(r"(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)", rest)
    assert inner
    block, layer_number = 2 * number, int(inner[2])
    if inner[1] == "downsamplers":
        return f"input_blocks.{block + 2}.0.{inner[3].replace('conv', 'op')}"
    blocks, first = ("input_blocks", 1) if part == "down" else ("output_blocks", 0)
    if inner[1] == "upsamplers":
        return f"output_blocks.{block + 1}.1.{inner[3]}"
    within = f"0.{_resnet(inner[3])}" if inner[1] == "resnets" else f"1.{inner[3]}"
    return f"{blocks}.{block + first + layer_number}.{within}"


def _upsampled(key: str, unet: Mapping[str, Any]) -> str:
    """An upsampler comes after the attention, if its block has one."""
    found = re.fullmatch(r"(output_blocks\.\d+)\.1\.(conv\..+)", key)
    return f"{found[1]}.2.{found[2]}" if found and f"{found[1]}.1.norm.weight" in unet else key


def _split(key: str) -> tuple[str, int, str]:
    """`down`, `mid` or `up`, the block's number, and what is within."""
    if key.startswith("mid_block."):
        return "mid", 0, key.removeprefix("mid_block.")
    found = re.match(r"(down|up)_blocks\.(\d)\.(.+)", key)
    assert found, key
    return found[1], int(found[2]), found[3]


def _resnet(key: str) -> str:
    layer, _, kind = key.partition(".")
    return f"{_RESNET[layer]}.{kind}"


def _vae(key: str) -> str:
    key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    for new, old in _ATTENTION.items():
        key = key.replace(f"mid_block.attentions.0.{new}.", f"mid.attn_1.{old}.")
    return key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")


def _clip(folder: Path, prefix: str) -> Tensors:
    return {f"{prefix}text_model.{key.removeprefix('text_model.')}": tensor for key, tensor in _read(folder).items()}


def _open_clip(folder: Path, prefix: str) -> Tensors:
    """OpenCLIP has query, key and value in one tensor."""
    told = {key.removeprefix("text_model."): tensor for key, tensor in _read(folder).items()}
    found: Tensors = {
        f"{prefix}positional_embedding": told["embeddings.position_embedding.weight"],
        f"{prefix}token_embedding.weight": told["embeddings.token_embedding.weight"],
        f"{prefix}ln_final.weight": told["final_layer_norm.weight"],
        f"{prefix}ln_final.bias": told["final_layer_norm.bias"],
        f"{prefix}text_projection": told["text_projection.weight"].T,
    }
    layers: int = json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    for number in range(layers):
        own, theirs = f"encoder.layers.{number}.", f"{prefix}transformer.resblocks.{number}."
        for kind in ("weight", "bias"):
            parts = [told[f"{own}self_attn.{name}_proj.{kind}"] for name in "qkv"]
            found[f"{theirs}attn.in_proj_{kind}"] = torch.cat(parts)
            found[f"{theirs}attn.out_proj.{kind}"] = told[f"{own}self_attn.out_proj.{kind}"]
            found |= {f"{theirs}{new}.{kind}": told[f"{own}{old}.{kind}"] for old, new in _OPEN_CLIP.items()}
    return found
