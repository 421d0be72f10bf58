"""How other programs find a layer by its name in a kohya file, written from their published rules.

Each rule is the program's own: from what it calls its model's layers to the names that it looks for, or back.
"""

import bisect
import itertools
import re
from collections.abc import Collection, Iterable
from functools import cache
from typing import Any

ATTENTION = [f"attn{n}_{part}" for n in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out_0")]
TRANSFORMER = ["proj_in", "proj_out"] + [
    f"transformer_blocks_0_{part}" for part in (*ATTENTION, "ff_net_0_proj", "ff_net_2")
]
RESNET = ["conv1", "conv2", "time_emb_proj"]
CLIP = ["mlp_fc1", "mlp_fc2", *(f"self_attn_{part}" for part in ("k_proj", "q_proj", "v_proj", "out_proj"))]


def comfyui(encoder_layers: int) -> set[str]:
    """Names of ComfyUI's key map for Stable Diffusion 1 and 2 (`comfy/lora.py`, `model_lora_keys_unet` and `…_clip`).

    It walks the blocks of its own model (`comfy/utils.py`, `unet_to_diffusers`), and takes diffusers' names with
    underscores behind `lora_unet_`; a text encoder's behind `lora_te_`.
    """
    found = set()
    for block in range(4):
        for layer in range(2):
            found |= _inside(f"down_blocks_{block}", layer, attends=block < 3, shortcut=layer == 0 and block in (1, 2))
        for layer in range(3):
            found |= _inside(f"up_blocks_{block}", layer, attends=block > 0, shortcut=True)
        found |= {f"down_blocks_{block}_downsamplers_0_conv"} if block < 3 else set()
        found |= {f"up_blocks_{block}_upsamplers_0_conv"} if block < 3 else set()
    found |= {f"mid_block_attentions_0_{part}" for part in TRANSFORMER}
    found |= {f"mid_block_resnets_{layer}_{part}" for layer in range(2) for part in RESNET}
    found |= {"conv_in", "conv_out", "time_embedding_linear_1", "time_embedding_linear_2"}
    texts = {f"lora_te_text_model_encoder_layers_{n}_{part}" for n in range(encoder_layers) for part in CLIP}
    return {f"lora_unet_{name}" for name in found} | texts


def _inside(block: str, layer: int, *, attends: bool, shortcut: bool) -> set[str]:
    found = {f"{block}_resnets_{layer}_{part}" for part in RESNET}
    found |= {f"{block}_resnets_{layer}_conv_shortcut"} if shortcut else set()
    return found | ({f"{block}_attentions_{layer}_{part}" for part in TRANSFORMER} if attends else set())


_SUFFIXES = {
    "attentions": {},
    "resnets": {
        "conv1": "in_layers_2",
        "conv2": "out_layers_3",
        "time_emb_proj": "emb_layers_1",
        "conv_shortcut": "skip_connection",
    },
}


def automatic1111(key: str) -> str:
    """The module of the original model that A1111 and Forge give a key to (`extensions-builtin/Lora/networks.py`).

    `convert_diffusers_name_to_compvis`, for a model of version 1, whose text encoder is called `transformer`.
    """
    match = re.fullmatch(r"lora_unet_(down|up)_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", key)
    if match:
        suffix = _SUFFIXES[match[3]].get(match[5], match[5])
        inner = 1 if match[3] == "attentions" else 0
        number = int(match[2]) * 3 + int(match[4])
        if match[1] == "down":
            return f"diffusion_model_input_blocks_{1 + number}_{inner}_{suffix}"
        return f"diffusion_model_output_blocks_{number}_{inner}_{suffix}"
    match = re.fullmatch(r"lora_unet_mid_block_(attentions|resnets)_(\d+)_(.+)", key)
    if match:
        number = 1 if match[1] == "attentions" else int(match[2]) * 2
        return f"diffusion_model_middle_block_{number}_{_SUFFIXES[match[1]].get(match[3], match[3])}"
    match = re.fullmatch(r"lora_unet_down_blocks_(\d+)_downsamplers_0_conv", key)
    if match:
        return f"diffusion_model_input_blocks_{3 + int(match[1]) * 3}_0_op"
    match = re.fullmatch(r"lora_unet_up_blocks_(\d+)_upsamplers_0_conv", key)
    if match:
        return f"diffusion_model_output_blocks_{2 + int(match[1]) * 3}_{2 if int(match[1]) > 0 else 1}_conv"
    match = re.fullmatch(r"lora_te_text_model_encoder_layers_(\d+)_(.+)", key)
    if match:
        return f"transformer_text_model_encoder_layers_{match[1]}_{match[2]}"
    outside = {
        "lora_unet_conv_in": "diffusion_model_input_blocks_0_0",
        "lora_unet_conv_out": "diffusion_model_out_2",
        "lora_unet_time_embedding_linear_1": "diffusion_model_time_embed_0",
        "lora_unet_time_embedding_linear_2": "diffusion_model_time_embed_2",
    }
    return outside.get(key, key)


def original_modules(encoder_layers: int) -> set[str]:
    """Layers of the original Stable Diffusion 1 (`ldm/modules/diffusionmodules/openaimodel.py`), by underscores."""
    found = {"input_blocks_0_0", "out_2", "time_embed_0", "time_embed_2"}
    resnet = ["in_layers_2", "out_layers_3", "emb_layers_1"]
    for number in range(1, 12):
        if number % 3 == 0:
            found.add(f"input_blocks_{number}_0_op")
            continue
        found |= {f"input_blocks_{number}_0_{part}" for part in resnet}
        found |= {f"input_blocks_{number}_0_skip_connection"} if number in (4, 7) else set()
        found |= {f"input_blocks_{number}_1_{part}" for part in TRANSFORMER} if number < 9 else set()
    for number in range(12):
        found |= {f"output_blocks_{number}_0_{part}" for part in (*resnet, "skip_connection")}
        found |= {f"output_blocks_{number}_1_{part}" for part in TRANSFORMER} if number > 2 else set()
    found |= {"output_blocks_2_1_conv", "output_blocks_5_2_conv", "output_blocks_8_2_conv"}
    found |= {f"middle_block_{number}_{part}" for number in (0, 2) for part in resnet}
    found |= {f"middle_block_1_{part}" for part in TRANSFORMER}
    texts = {f"transformer_text_model_encoder_layers_{n}_{part}" for n in range(encoder_layers) for part in CLIP}
    return {f"diffusion_model_{name}" for name in found} | texts


def invokeai(network: Any, key: str, prefix: str) -> str:
    """The module that InvokeAI gives a key to (`patches/model_patcher.py`, `_resolve_lora_key`).

    It walks down the modules of diffusers' network, joining parts of the name until a child has it.
    """
    parts = key.removeprefix(f"{prefix}_").split("_")
    module, path, name = network, [], parts.pop(0)
    while True:
        if name in dict(module.named_children()):
            module = getattr(module, name)
            path.append(name)
            if not parts:
                return ".".join(path)
            name = parts.pop(0)
        elif parts:
            name += f"_{parts.pop(0)}"
        else:
            return ""


# Stable Diffusion XL --------------------------------------------------------------------------------------------------

DEPTHS = (0, 2, 10)
"""Transformers' blocks by level of SDXL's UNet (`transformer_depth`); the middle has as many as the last."""


@cache
def sdxl_modules() -> frozenset[str]:
    """Layers of the original SDXL (`sgm/modules/diffusionmodules/openaimodel.py`), by underscores, without prefix."""
    found = {"input_blocks_0_0", "out_2", "time_embed_0", "time_embed_2", "label_emb_0_0", "label_emb_0_2"}
    resnet = ["in_layers_2", "out_layers_3", "emb_layers_1"]
    for number in (1, 2, 4, 5, 7, 8):
        found |= {f"input_blocks_{number}_0_{part}" for part in resnet}
        found |= {f"input_blocks_{number}_1_{part}" for part in _transformer(DEPTHS[number // 3])}
    found |= {"input_blocks_3_0_op", "input_blocks_6_0_op"}
    found |= {"input_blocks_4_0_skip_connection", "input_blocks_7_0_skip_connection"}
    for number in range(9):
        found |= {f"output_blocks_{number}_0_{part}" for part in (*resnet, "skip_connection")}
        found |= {f"output_blocks_{number}_1_{part}" for part in _transformer(DEPTHS[2 - number // 3])}
    found |= {"output_blocks_2_2_conv", "output_blocks_5_2_conv"}
    found |= {f"middle_block_{number}_{part}" for number in (0, 2) for part in resnet}
    return frozenset(found | {f"middle_block_1_{part}" for part in _transformer(DEPTHS[2])})


def _transformer(depth: int) -> list[str]:
    inside = (*ATTENTION, "ff_net_0_proj", "ff_net_2")
    blocks = [f"transformer_blocks_{block}_{part}" for block in range(depth) for part in inside]
    return ["proj_in", "proj_out", *blocks] if depth else []


def comfyui_sdxl() -> dict[str, str]:
    """By diffusers' name of each layer, the name that ComfyUI looks for: its own model's behind `lora_unet_`.

    `comfy/utils.py`, `unet_to_diffusers`, gives the layer; `comfy/lora.py`, `model_lora_keys_unet`, the name;
    `model_lora_keys_clip` those of the encoders, `clip_l` and `clip_g`.
    """
    found = {
        "conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
    }  # fmt: skip
    for level in range(3):
        for layer in range(2):
            place = f"input_blocks.{1 + 3 * level + layer}"
            shortcut = level > 0 and layer == 0
            found |= _resnet(f"down_blocks.{level}.resnets.{layer}", f"{place}.0", shortcut=shortcut)
            found |= _attends(f"down_blocks.{level}.attentions.{layer}", f"{place}.1", DEPTHS[level])
        for layer in range(3):
            place = f"output_blocks.{3 * level + layer}"
            found |= _resnet(f"up_blocks.{level}.resnets.{layer}", f"{place}.0", shortcut=True)
            found |= _attends(f"up_blocks.{level}.attentions.{layer}", f"{place}.1", DEPTHS[2 - level])
        if level < 2:
            found[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{3 * level + 3}.0.op"
            found[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{3 * level + 2}.2.conv"
    found |= _attends("mid_block.attentions.0", "middle_block.1", DEPTHS[2])
    for layer in range(2):
        found |= _resnet(f"mid_block.resnets.{layer}", f"middle_block.{2 * layer}", shortcut=False)
    unet = {f"unet.{own}": f"lora_unet_{theirs.replace('.', '_')}" for own, theirs in found.items()}
    dotted = {part: re.sub(r"^(mlp|self_attn)_", r"\1.", part) for part in CLIP}
    texts = {}
    for own, theirs, layers in (("text_encoder", "lora_te1", 12), ("text_encoder_2", "lora_te2", 32)):
        for n, part in itertools.product(range(layers), CLIP):
            name = f"{own}.text_model.encoder.layers.{n}.{dotted[part]}"
            texts[name] = f"{theirs}_text_model_encoder_layers_{n}_{part}"
    return unet | texts


def _resnet(own: str, theirs: str, *, shortcut: bool) -> dict[str, str]:
    parts = {"conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3"}
    parts |= {"conv_shortcut": "skip_connection"} if shortcut else {}
    return {f"{own}.{part}": f"{theirs}.{original}" for part, original in parts.items()}


def _attends(own: str, theirs: str, depth: int) -> dict[str, str]:
    attention = [f"attn{n}.{part}" for n in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")]
    parts = [
        f"transformer_blocks.{n}.{part}" for n in range(depth) for part in (*attention, "ff.net.0.proj", "ff.net.2")
    ]
    parts += ["proj_in", "proj_out"] if depth else []
    return {f"{own}.{part}": f"{theirs}.{part}" for part in parts}


def automatic1111_sdxl(key: str) -> str:
    """The module that A1111 and Forge give a key to (`load_network`), of SDXL; empty where there is none.

    The second encoder has query, key and value in one module, which takes all three.
    """
    found = automatic1111(key)
    second = re.fullmatch(r"lora_te2_text_model_encoder_layers_(\d+)_(.+)", key)
    if second:
        inside = second[2].replace("mlp_fc1", "mlp_c_fc").replace("mlp_fc2", "mlp_c_proj").replace("self_attn", "attn")
        found = re.sub(r"_[qkv]_proj$", "", f"1_model_transformer_resblocks_{second[1]}_{inside}")
    if not _is_of_sdxl(found):
        found = found.replace("lora_unet", "diffusion_model").replace("lora_te1_text_model", "0_transformer_text_model")
    return found if _is_of_sdxl(found) else ""


def _is_of_sdxl(module: str) -> bool:
    return module in sdxl_encoders() or module.removeprefix("diffusion_model_") in sdxl_modules()


@cache
def sdxl_encoders() -> frozenset[str]:
    """Layers of the original SDXL's text encoders, as A1111 numbers them: transformers' CLIP and OpenCLIP's."""
    first = {f"0_transformer_text_model_encoder_layers_{n}_{part}" for n in range(12) for part in CLIP}
    inside = ("mlp_c_fc", "mlp_c_proj", "attn", "attn_out_proj")
    return frozenset(first | {f"1_model_transformer_resblocks_{n}_{part}" for n in range(32) for part in inside})


def _invokeai_prefixes() -> dict[str, str]:
    """`SDXL_UNET_STABILITY_TO_DIFFUSERS_MAP` of InvokeAI's `sdxl_lora_conversion_utils.py`."""
    found = {f"middle_block.{2 * n}": f"mid_block.resnets.{n}" for n in range(2)}
    for level in range(3):
        found |= {f"input_blocks.{3 * level + n + 1}.0": f"down_blocks.{level}.resnets.{n}" for n in range(2)}
        found |= {f"output_blocks.{3 * level + n}.0": f"up_blocks.{level}.resnets.{n}" for n in range(3)}
    parts = {"in_layers.2": "conv1", "out_layers.3": "conv2", "emb_layers.1": "time_emb_proj"}
    parts["skip_connection"] = "conv_shortcut"
    found = {f"{a}.{c}": f"{b}.{d}" for a, b in found.items() for c, d in parts.items()}
    for level in range(3):
        found |= {f"input_blocks.{3 * level + n + 1}.1": f"down_blocks.{level}.attentions.{n}" for n in range(2)}
        found |= {f"output_blocks.{3 * level + n}.1": f"up_blocks.{level}.attentions.{n}" for n in range(3)}
        found[f"input_blocks.{3 * level + 3}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
        found[f"output_blocks.{3 * level + 2}.2"] = f"up_blocks.{level}.upsamplers.0"
    found |= {"middle_block.1": "mid_block.attentions.0", "input_blocks.0.0": "conv_in", "out.2": "conv_out"}
    for n in range(2):
        found |= {f"time_embed.{2 * n}": f"time_embedding.linear_{n + 1}"}
        found |= {f"label_emb.0.{2 * n}": f"add_embedding.linear_{n + 1}"}
    return {a.replace(".", "_"): b.replace(".", "_") for a, b in found.items()}


def invokeai_sdxl(keys: Collection[str]) -> dict[str, str]:
    """Each key as InvokeAI renames it before it walks (`convert_sdxl_keys_to_diffusers_format`).

    Raises:
        ValueError: where InvokeAI raises: a prefix that it does not know, or names of both kinds in one file.
    """
    prefixes = _invokeai_prefixes()
    ordered, found = sorted(prefixes), {}
    for key in keys:
        if not key.startswith(("lora_unet_", "lora_te1_", "lora_te2_")):
            raise ValueError(f"Unrecognized SDXL LoRA key prefix: {key}")
        inside = key.removeprefix("lora_unet_")
        nearest = ordered[bisect.bisect_right(ordered, inside) - 1]
        is_renamed = key != inside and inside.startswith(nearest)
        found[key] = key.replace(nearest, prefixes[nearest]) if is_renamed else key
    denoiser = [key != new for key, new in found.items() if key.startswith("lora_unet_")]
    if any(denoiser) and not all(denoiser):
        raise ValueError("The SDXL LoRA could only be partially converted to diffusers format.")
    return found


def stability(names: Iterable[str]) -> dict[str, str]:
    """Kohya's names with StabilityAI's blocks, by those with diffusers'; only of layers of the UNet."""
    return {
        name: automatic1111(name).replace("diffusion_model_", "lora_unet_", 1)
        for name in names
        if name.startswith("lora_unet_")
    }
