"""How other programs find a layer by its name in a kohya file, written from their published rules.

Each rule is the program's own: from what it calls its model's layers to the names that it looks for, or back.
"""

import re
from collections.abc import Iterable
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


def stability(names: Iterable[str]) -> dict[str, str]:
    """Kohya's names with StabilityAI's blocks, by those with diffusers'; only of layers of the UNet."""
    return {
        name: automatic1111(name).replace("diffusion_model_", "lora_unet_", 1)
        for name in names
        if name.startswith("lora_unet_")
    }
