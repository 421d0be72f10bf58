"""Names of layers in transformers: diffusers', and those of the makers' own code, which most programs use. No torch.

As diffusers converts them (its `convert_flux2_to_diffusers.py`; `_convert_non_diffusers_z_image_lora_to_diffusers`).
What is not sure is left out: `final_layer.linear` and `x_embedder` may be of FLUX.2 or of Z-Image, and the rows of
FLUX.2's `final_layer.adaLN_modulation.1` have another order in diffusers.
"""

import re

_LAYERS = re.compile(
    r"""
    # FLUX.2
      transformer_blocks\.\d+\.attn\.(to_[qkv]|to_qkv|to_out\.0|add_[qkv]_proj|to_added_qkv|to_add_out)
    | transformer_blocks\.\d+\.ff(_context)?\.linear_(in|out)
    | single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)
    | x_embedder | context_embedder | proj_out | norm_out\.linear
    | (double_stream_modulation_(img|txt)|single_stream_modulation)\.linear
    | time_guidance_embed\.timestep_embedder\.linear_[12]
    # Z-Image
    | (layers|noise_refiner|context_refiner)\.\d+\.
      (attention\.(to_[qkv]|qkv|to_out\.0)|feed_forward\.w[123]|adaLN_modulation\.\d)
    | all_x_embedder\..+ | all_final_layer\..+ | cap_embedder\..+ | t_embedder\..+
    """,
    re.VERBOSE,
)
"""diffusers' names of the layers that can be adapted, and of those that other programs have in one."""

_DOUBLE = {
    "img_attn.qkv": "attn.to_qkv",
    "img_attn.proj": "attn.to_out.0",
    "img_mlp.0": "ff.linear_in",
    "img_mlp.2": "ff.linear_out",
    "txt_attn.qkv": "attn.to_added_qkv",
    "txt_attn.proj": "attn.to_add_out",
    "txt_mlp.0": "ff_context.linear_in",
    "txt_mlp.2": "ff_context.linear_out",
}
_SINGLE = {"linear1": "attn.to_qkv_mlp_proj", "linear2": "attn.to_out"}
_Z_IMAGE = {
    "attention.qkv": "attention.qkv",
    "attention.out": "attention.to_out.0",
    **{name: name for name in ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")},
    **{name: name for name in ("adaLN_modulation.0", "adaLN_modulation.1")},
}
"""Layers in blocks, by the makers' names: FLUX.2's of two streams and of one, Z-Image's."""

_BLOCKS = {
    "double_blocks": ("transformer_blocks", _DOUBLE),
    "single_blocks": ("single_transformer_blocks", _SINGLE),
    **{blocks: (blocks, _Z_IMAGE) for blocks in ("layers", "noise_refiner", "context_refiner")},
}
"""Blocks by the makers' names: diffusers' name, and the layers in them."""

_OUTSIDE = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    **{name: name for name in ("cap_embedder.1", "t_embedder.mlp.0", "t_embedder.mlp.2")},
}
"""The same outside the blocks."""

_FUSED = {
    "attn.to_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "attn.to_added_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
}
"""Query, key and value, which the makers' code has in one layer, one below the other."""

_BLOCK = re.compile(r"(\w+)\.(\d+)\.(.+)")


def layer_of(name: str) -> str:
    """A transformer's layer as `AdapterState` names it, `transformer.…`, from its name in any program's file with dots.

    Empty where it is none. One that holds query, key and value has a name of its own: see `parts_of`.
    """
    inside = _diffusers(re.sub(r"^(transformer|diffusion_model)\.", "", name))
    return f"transformer.{inside}" if _LAYERS.fullmatch(inside) else ""


def _diffusers(inside: str) -> str:
    if inside in _OUTSIDE:
        return _OUTSIDE[inside]
    found = _BLOCK.fullmatch(inside)
    if not found:
        return inside
    blocks, names = _BLOCKS.get(found[1], (found[1], {}))
    return f"{blocks}.{found[2]}.{names.get(found[3], found[3])}"


def makers_name(inside: str) -> str:
    """What the makers call a layer, by diffusers' name in the transformer; empty where they have none that is sure."""
    found = _BLOCK.fullmatch(inside)
    for theirs, (own, names) in _BLOCKS.items():
        if found and found[1] == own:
            return next((f"{theirs}.{found[2]}.{each}" for each, name in names.items() if name == found[3]), "")
    return next((theirs for theirs, own in _OUTSIDE.items() if own == inside), "")


def parts_of(layer: str) -> tuple[str, ...]:
    """The layers of diffusers' that one of a file is: query, key and value, or itself."""
    for whole, parts in _FUSED.items():
        if layer.endswith(f".{whole}"):
            return tuple(layer.removesuffix(whole) + part for part in parts)
    return (layer,)


def whole_of(layer: str) -> str:
    """The makers' one layer that a layer of diffusers' is a part of; the layer itself where it is none."""
    for whole, parts in _FUSED.items():
        for part in parts:
            if layer.startswith("transformer.") and layer.endswith(f".{part}"):
                return layer.removesuffix(part) + whole
    return layer
