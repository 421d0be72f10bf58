"""Names of layers: ours against the rules of the programs that read them, at the real sizes."""

import pytest
from diffusers import UNet2DConditionModel

from avignon.adapters.formats import names
from tests.support import programs
from tests.support.adapters import layers_of, networks

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


def test_names_of_sdxl_are_unambiguous() -> None:
    """The rule holds for SDXL's UNet too, whose transformers have up to ten blocks."""
    import torch

    with torch.device("meta"):
        denoiser = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    for layer in layers_of({"unet": denoiser}):
        assert names.from_kohya(names.kohya(layer)) == layer


@pytest.mark.parametrize("name", ["", "lora_unet", "unet_down_blocks_0", "lora_prior_te_x", "lora_transformer_x"])
def test_other_names_are_none(name: str) -> None:
    """What has none of kohya's prefixes for these bases is no layer."""
    assert names.from_kohya(name) == ""
