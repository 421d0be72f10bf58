"""Names of layers: ours against the rules of the programs that read them, at the real sizes."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from avignon.adapters.formats import names, native
from tests.support import programs
from tests.support.adapters import layers_of, networks
from tests.support.tiny_flux2_klein import flux2_klein_transformer
from tests.support.tiny_sdxl import sdxl_networks
from tests.support.tiny_z_image import z_image_transformer

ENCODER_LAYERS = {"1.5": 12, "2.1": 23}


@pytest.mark.parametrize("size", ENCODER_LAYERS)
def test_every_layer_comes_back(size: str) -> None:
    """Every linear layer and convolution of UNet and text encoder has a name of kohya's that leads back to it alone."""
    layers = list(layers_of(networks(size)))
    written = [names.kohya(layer) for layer in layers]
    assert len(set(written)) == len(layers) > 300
    assert [names.from_kohya(name) for name in written] == layers
    assert [names.from_kohya(name.replace("lora_te_", "lora_te1_")) for name in written] == layers


@pytest.mark.parametrize("size", ENCODER_LAYERS)
def test_comfyui_finds_every_layer(size: str) -> None:
    """Every layer is in ComfyUI's key map by our name, and it has no name that we do not."""
    ours = {names.kohya(layer) for layer in layers_of(networks(size))}
    assert ours == programs.comfyui(ENCODER_LAYERS[size])


def test_automatic1111_finds_every_layer() -> None:
    """Every layer's name leads A1111 and Forge to one layer of the original model, and all of those are met."""
    ours = [names.kohya(layer) for layer in layers_of(networks("1.5"))]
    found = {programs.automatic1111(name) for name in ours}
    assert len(found) == len(ours)
    assert found == programs.original_modules(12)


@pytest.mark.parametrize("size", ENCODER_LAYERS)
def test_invokeai_finds_every_layer(size: str) -> None:
    """Walking down the modules by our name, InvokeAI arrives at the very layer."""
    for component, network in networks(size).items():
        for layer in layers_of({component: network}):
            path = layer.removeprefix(f"{component}.")
            name = names.kohya(layer)
            if not hasattr(network, "text_model"):  # transformers 5 has no such module; InvokeAI's own version has.
                path, name = path.removeprefix("text_model."), name.replace("_text_model_", "_")
            assert programs.invokeai(network, name, names.PREFIXES[component]) == path


def test_names_of_stabilityai_are_read() -> None:
    """Each layer's name with StabilityAI's blocks leads to the same layer as that with diffusers'."""
    layers = [layer for layer in layers_of(networks("1.5")) if layer.startswith("unet.")]
    others = programs.stability(names.kohya(layer) for layer in layers)
    assert [names.from_kohya(others[names.kohya(layer)]) for layer in layers] == layers


# Stable Diffusion XL, at its full size --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sdxl() -> dict[str, Any]:
    """UNet and both text encoders, without weights."""
    return sdxl_networks()


def test_every_layer_of_sdxl_comes_back(sdxl: dict[str, Any]) -> None:
    """Of UNet and both encoders, by StabilityAI's names and by diffusers', which some trainers write."""
    layers = list(layers_of(sdxl))
    for is_sdxl in (True, False):
        written = [names.kohya(layer, sdxl=is_sdxl) for layer in layers]
        assert len(set(written)) == len(layers) == 794 + 72 + 193
        assert [names.from_kohya(name) for name in written] == layers


def test_comfyui_finds_every_layer_of_sdxl(sdxl: dict[str, Any]) -> None:
    """Each name is the one of that very layer in ComfyUI's map, which has no further ones.

    The second encoder's last projection is in no program's map; avignon trains no encoder.
    """
    ours = {layer: names.kohya(layer, sdxl=True) for layer in layers_of(sdxl)}
    assert ours.pop("text_encoder_2.text_projection") == "lora_te2_text_projection"
    assert ours == programs.comfyui_sdxl()
    of_denoiser = {name.removeprefix("lora_unet_") for name in ours.values() if name.startswith("lora_unet_")}
    assert of_denoiser == programs.sdxl_modules()


def test_automatic1111_finds_every_layer_of_sdxl(sdxl: dict[str, Any]) -> None:
    """Every layer leads A1111 and Forge to a module of the original SDXL, and all of those are met.

    By diffusers' names the first upsampler is lost, and so is all of an encoder that is called `lora_te`.
    """
    layers = [layer for layer in layers_of(sdxl) if layer != "text_encoder_2.text_projection"]
    found = [programs.automatic1111_sdxl(names.kohya(layer, sdxl=True)) for layer in layers]
    assert set(found) == programs.sdxl_encoders() | {f"diffusion_model_{name}" for name in programs.sdxl_modules()}
    assert len(found) - len(set(found)) == 2 * 32, "query, key and value of the second encoder share a module"
    lost = [layer for layer in layers if not programs.automatic1111_sdxl(names.kohya(layer))]
    assert "unet.up_blocks.0.upsamplers.0.conv" in lost
    assert {layer.partition(".")[0] for layer in lost} == {"unet", "text_encoder"}


def test_invokeai_finds_every_layer_of_sdxl(sdxl: dict[str, Any]) -> None:
    """InvokeAI renames the UNet's layers to diffusers' and then walks down the modules to the very layer."""
    layers = layers_of(sdxl)
    renamed = programs.invokeai_sdxl([names.kohya(layer, sdxl=True) for layer in layers])
    for layer in layers:
        component, _, path = layer.partition(".")
        network, name = sdxl[component], renamed[names.kohya(layer, sdxl=True)]
        if component != "unet" and not hasattr(network, "text_model"):
            path, name = path.removeprefix("text_model."), name.replace("_text_model_", "_")
        assert programs.invokeai(network, name, names.SDXL_PREFIXES[component]) == path
    with pytest.raises(ValueError, match="prefix: lora_te_"):
        programs.invokeai_sdxl([names.kohya(layer) for layer in layers])


# Transformers, at their full size ------------------------------------------------------------------------------------


def flux_2_modules() -> set[str]:
    """Linear layers of the 4B model in its makers' code, but for the last two: see `native`."""
    streams = [
        f"{stream}_{layer}" for stream in ("img", "txt") for layer in ("attn_qkv", "attn_proj", "mlp_0", "mlp_2")
    ]
    double = {f"double_blocks_{number}_{layer}" for number in range(5) for layer in streams}
    single = {f"single_blocks_{number}_linear{layer}" for number in range(20) for layer in (1, 2)}
    modulations = {f"{each}_lin" for each in ("double_stream_modulation_img", "double_stream_modulation_txt")}
    outside = {"img_in", "txt_in", "time_in_in_layer", "time_in_out_layer", "single_stream_modulation_lin"}
    return double | single | modulations | outside


def z_image_modules() -> set[str]:
    """Those of Z-Image, but for the first and the last of pictures."""
    inside = ("attention_qkv", "attention_out", "feed_forward_w1", "feed_forward_w2", "feed_forward_w3")
    blocks = [("layers", 30, True), ("noise_refiner", 2, True), ("context_refiner", 2, False)]
    return {
        f"{name}_{number}_{layer}"
        for name, count, told in blocks
        for number in range(count)
        for layer in (*inside, *(["adaLN_modulation_0"] if told else []))
    } | {"cap_embedder_1", "t_embedder_mlp_0", "t_embedder_mlp_2"}


@pytest.mark.parametrize(
    ("made", "theirs", "unsure"),
    [
        (flux2_klein_transformer, flux_2_modules, r"norm_out|proj_out"),
        (z_image_transformer, z_image_modules, r"all_x_embedder|all_final_layer"),
    ],
)
def test_every_layer_of_a_transformer_comes_back(
    made: Callable[[], Any], theirs: Callable[[], set[str]], unsure: str
) -> None:
    """Each is a layer of its makers' code behind kohya's prefix, or a third of one; all of those are met."""
    with torch.device("meta"):
        layers = list(layers_of({"transformer": made()}))
    sure = [layer for layer in layers if not re.match(rf"transformer\.({unsure})", layer)]
    assert not any(names.kohya(layer) for layer in layers if layer not in sure)
    written = {native.whole_of(layer): names.kohya(native.whole_of(layer)) for layer in sure}
    assert {name.removeprefix("lora_unet_") for name in written.values()} == theirs()
    assert [names.from_kohya(name) for name in written.values()] == list(written)
    assert sorted(part for whole in written for part in native.parts_of(whole)) == sorted(sure)
    for prefix in ("lora_unet", "lora_transformer"):  # By diffusers' names.
        own = [f"{prefix}_{layer.removeprefix('transformer.').replace('.', '_')}" for layer in sure]
        assert [names.from_kohya(name) for name in own] == sure


@pytest.mark.parametrize("name", ["", "lora_unet", "unet_down_blocks_0", "lora_prior_te_x", "lora_transformer_x"])
def test_other_names_are_none(name: str) -> None:
    """What has none of kohya's prefixes for these bases is no layer."""
    assert names.from_kohya(name) == ""
