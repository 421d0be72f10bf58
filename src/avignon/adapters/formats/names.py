"""Names of layers: diffusers' with dots, kohya's with underscores, StabilityAI's blocks. Needs no torch.

diffusers' own converter (`StableDiffusionPipeline.lora_state_dict`) is not used: it drops `dora_scale`, knows two kinds
of layers of LyCORIS, needs the UNet's configuration, and stops at the first key that it does not know without saying
which file has it. The names follow one rule with a list of exceptions, which is shorter than mending its results.
`tests/adapters/test_names.py` holds this module against every layer of the real networks, and against diffusers.
"""

import re

from avignon.adapters.formats import native

PREFIXES = {
    "unet": "lora_unet",
    "text_encoder": "lora_te",
    "text_encoder_2": "lora_te2",
    "transformer": "lora_unet",
}
"""kohya's prefixes by diffusers' components, as of Stable Diffusion 1 and 2. A transformer's is that of a UNet."""

SDXL_PREFIXES = {**PREFIXES, "text_encoder": "lora_te1"}
"""Those of SDXL."""

_COMPONENTS = {
    "lora_unet": "unet",
    "lora_te": "text_encoder",
    "lora_te1": "text_encoder",
    "lora_te2": "text_encoder_2",
}

# Parts of a name that hold an underscore themselves; every other underscore of kohya's stands for a dot.
_WORDS = (
    *("down_blocks", "up_blocks", "mid_block", "transformer_blocks", "time_embedding", "add_embedding", "linear_1"),
    *("linear_2", "to_q", "to_k", "to_v", "to_out", "proj_in", "proj_out", "time_emb_proj", "conv_shortcut", "conv_in"),
    *("conv_out", "conv_norm_out", "group_norm", "add_k_proj", "add_q_proj", "add_v_proj", "text_model"),
    *("text_projection", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "layer_norm1", "layer_norm2"),
    *("final_layer_norm", "token_embedding", "position_embedding"),
    *("noise_refiner", "context_refiner", "feed_forward", "adaLN_modulation", "all_x_embedder", "all_final_layer"),
    *("cap_embedder", "t_embedder"),
    *("single_transformer_blocks", "to_qkv_mlp_proj", "to_add_out", "ff_context", "linear_in", "linear_out"),
    *("x_embedder", "context_embedder", "time_guidance_embed", "timestep_embedder", "norm_out"),
    *("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation"),
    *("double_blocks", "single_blocks", "img_attn", "txt_attn", "img_mlp", "txt_mlp", "img_in", "txt_in"),
    *("time_in", "in_layer", "out_layer"),
)
_WORD = re.compile("|".join(sorted(_WORDS, key=len, reverse=True)) + "|_")

_INSIDE = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
"""Parts of a residual block, by StabilityAI's names."""

_OUTSIDE = {
    "input_blocks_0_0": "conv_in",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
}
"""Layers outside the blocks, by StabilityAI's names."""

_STABILITY = {theirs: own for own, theirs in (_INSIDE | _OUTSIDE).items()}
"""StabilityAI's names of both."""

_MIDDLE = {"resnets_0": 0, "attentions_0": 1, "resnets_1": 2}
"""Places in StabilityAI's middle block."""

_PER_BLOCK = 3
"""Of StabilityAI's blocks in one of diffusers': two residual ones and one more (`layers_per_block` 2, SD 1 to XL)."""


def kohya(layer: str, *, sdxl: bool = False) -> str:
    """Kohya's name of a layer: `unet.mid_block.attentions.0.proj_in` → `lora_unet_mid_block_attentions_0_proj_in`.

    For SDXL the UNet's blocks are StabilityAI's, `lora_unet_middle_block_1_proj_in`, and a transformer's are its
    makers', `lora_unet_double_blocks_0_img_attn_proj`: programs have those networks. Empty where there is no such name.
    """
    component, _, inside = layer.partition(".")
    if component == "transformer" and not (inside := native.makers_name(inside)):
        return ""
    name = inside.replace(".", "_")
    if not sdxl:
        return f"{PREFIXES[component]}_{name}"
    return f"{SDXL_PREFIXES[component]}_{_to_stability(name) if component == 'unet' else name}"


def from_kohya(name: str) -> str:
    """The inverse, of StabilityAI's block names as well; empty where the name has none of kohya's prefixes."""
    match = re.fullmatch(r"(lora_unet|lora_te[12]?|lora_transformer)_(.+)", name)
    if not match:
        return ""
    dotted = _WORD.sub(lambda found: "." if found[0] == "_" else found[0], _from_stability(match[2]))
    if not match[1].startswith("lora_te") and (layer := native.layer_of(dotted)):
        return layer
    return canonical(f"{_COMPONENTS[match[1]]}.{dotted}") if match[1] in _COMPONENTS else ""


def canonical(layer: str) -> str:
    """A layer of a text encoder by the name that files have for it.

    transformers 5 took `text_model` out of CLIP's modules; files of every program keep it.
    """
    return re.sub(r"^(text_encoder(?:_\d)?)\.(?=encoder\.|embeddings\.|final_layer_norm)", r"\1.text_model.", layer)


def _from_stability(name: str) -> str:
    """Diffusers' name, with underscores, of a layer that may have StabilityAI's."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    match = re.fullmatch(r"(input_blocks|output_blocks)_(\d+)_(\d+)_(.+)", name)
    if match:
        return _in_block(match[1], int(match[2]), int(match[3]), match[4])
    match = re.fullmatch(r"middle_block_([012])_(.+)", name)
    if match:
        place = list(_MIDDLE)[int(match[1])]
        return f"mid_block_{place}_{_INSIDE.get(match[2], match[2])}"
    return name


def _to_stability(name: str) -> str:
    """The inverse, for SDXL: two residual blocks a block, and upsamplers behind attention alone."""
    if name in _STABILITY:
        return _STABILITY[name]
    match = re.fullmatch(r"mid_block_(resnets_[01]|attentions_0)_(.+)", name)
    if match:
        return f"middle_block_{_MIDDLE[match[1]]}_{_STABILITY.get(match[2], match[2])}"
    match = re.fullmatch(r"(down|up)_blocks_(\d+)_(resnets|attentions|downsamplers|upsamplers)_(\d+)_(.+)", name)
    if not match:
        return name
    side, kind, inside = "input" if match[1] == "down" else "output", match[3], match[5]
    number = _PER_BLOCK * int(match[2]) + (side == "input")
    if kind.endswith("samplers"):
        place = "0_op" if kind == "downsamplers" else "2_conv"
        return f"{side}_blocks_{number + _PER_BLOCK - 1}_{place}"
    part = int(kind == "attentions")
    return f"{side}_blocks_{number + int(match[4])}_{part}_{_STABILITY.get(inside, inside)}"


def _in_block(side: str, number: int, part: int, inside: str) -> str:
    """The same in the numbered block of a side, at a place in it: residual block, attention, change of size."""
    block, layer = divmod(number - (side == "input_blocks"), _PER_BLOCK)
    name = "down_blocks" if side == "input_blocks" else "up_blocks"
    if inside == "op":
        return f"{name}_{block}_downsamplers_0_conv"
    if inside == "conv":
        return f"{name}_{block}_upsamplers_0_conv"
    kind = "attentions" if part else "resnets"
    return f"{name}_{block}_{kind}_{layer}_{_INSIDE.get(inside, inside)}"
