"""Adapters through every format and back: the same changes, layer by layer."""

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_kohya
from peft import PeftModel
from safetensors.torch import load_file

from avignon.adapters import state
from avignon.adapters.formats import names, registry
from avignon.adapters.state import AdapterState, LayerChange
from avignon.core.errors import AdapterError
from tests.support.adapters import layers_of, networks, random_state, same
from tests.support.tiny_sdxl import sdxl_networks, tiny_sdxl_networks

ROUND = ("kohya", "diffusers", "peft", "kohya")


def written(adapter: AdapterState, name: str, folder: Path, **how: Any) -> Path:
    """The adapter in a format, in a new folder."""
    folder.mkdir(parents=True)
    place = folder if name == "peft" else folder / f"{name}.safetensors"
    registry.FORMATS[name].write(place, adapter, {}, **how)
    return place


def carried(adapter: AdapterState, folder: Path) -> AdapterState:
    """The adapter, written and read in each of the formats in turn."""
    for number, name in enumerate(ROUND):
        adapter = registry.read(written(adapter, name, folder / f"{number}"))
        assert adapter.format == name
    return adapter


@pytest.mark.slow_but_one
@pytest.mark.parametrize("seed", range(12))
def test_round_through_all_formats(tmp_path: Path, seed: int) -> None:
    """Kohya → diffusers → peft → kohya keeps every factor, alpha and magnitude bit for bit: only names change."""
    layers = layers_of(networks(f"tiny {1 + seed % 2}"))
    adapter = random_state(layers, seed, dora=seed % 3 == 0, dtype=(torch.float32, torch.float16)[seed % 4 == 1])
    back = carried(adapter, tmp_path)
    assert same(adapter, back)
    for name, change in adapter.layers.items():
        assert torch.equal(change.delta, back.layers[name].delta)
    assert (tmp_path / "0/kohya.safetensors").read_bytes() == (tmp_path / "3/kohya.safetensors").read_bytes()


@pytest.mark.slow_but_one
@pytest.mark.parametrize("seed", range(6))
def test_round_of_sdxl(tmp_path: Path, seed: int) -> None:
    """The same of SDXL's UNet and two text encoders, or of one of them alone, under its own names in kohya's format."""
    nets = tiny_sdxl_networks()
    parts = (tuple(nets), ("unet",), ("text_encoder_2",))[seed % 3]
    adapter = random_state(layers_of({part: nets[part] for part in parts}), seed, dora=seed % 2 == 0)
    assert same(adapter, carried(adapter, tmp_path))
    stems = {key.split(".")[0] for key in load_file(tmp_path / "3/kohya.safetensors")}
    assert stems == {names.kohya(layer, sdxl=True) for layer in adapter.layers}
    assert not [stem for stem in stems if re.match(r"lora_te_|lora_unet_(up|down|mid)_", stem)]


@pytest.mark.slow
def test_round_of_sdxl_at_the_real_shape(tmp_path: Path) -> None:
    """The same for the 616 layers that recipes adapt on SDXL."""
    denoiser = layers_of({"unet": sdxl_networks()["unet"]})
    layers = {name: shape for name, shape in denoiser.items() if _is_adapted(name)}
    assert len(layers) == 616
    adapter = random_state(layers, 1, ranks=(1, 2))
    assert same(adapter, carried(adapter, tmp_path))


def _is_adapted(layer: str) -> bool:
    return layer.endswith(("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "conv1", "conv2"))


def test_round_at_the_real_shape(tmp_path: Path) -> None:
    """The same for the 204 layers that recipes adapt on Stable Diffusion 2.1."""
    layers = {name: shape for name, shape in layers_of({"unet": networks("2.1")["unet"]}).items() if _is_adapted(name)}
    assert len(layers) == 204
    adapter = random_state(layers, 1, ranks=(1, 2, 4))
    assert same(adapter, carried(adapter, tmp_path))


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", ["kohya", "diffusers", "peft"])
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float32])
def test_precision_of_a_file(tmp_path: Path, name: str, precision: torch.dtype) -> None:
    """Factors are written in the precision that is asked for; alphas and magnitudes keep their own."""
    adapter = random_state(layers_of({"unet": networks("tiny 2")["unet"]}), 1, dora=True)
    back = registry.read(written(adapter, name, tmp_path / name, precision=precision))
    assert same(adapter.map(lambda layer: layer.to(precision)), back)


@pytest.mark.parametrize("name", ["kohya", "diffusers", "peft"])
def test_equal_adapters_are_equal_files(tmp_path: Path, name: str) -> None:
    """Written twice, an adapter is the same bytes."""
    adapter = random_state(layers_of(networks("tiny 2")), 1)
    files = [written(adapter, name, tmp_path / f"{number}").parent for number in range(3)]
    folders = [folder if name != "peft" else folder / str(place) for place, folder in enumerate(files)]
    contents = [{p.name: p.read_bytes() for p in folder.rglob("*.safetensors")} for folder in folders]
    assert contents[0]
    assert contents[0] == contents[1] == contents[2]


def test_full_change_of_any_rank() -> None:
    """A ΔW is kept exactly, with an identity on the smaller side, for linear layers and convolutions."""
    for shape in ((3, 7), (7, 3), (4, 2, 3, 3), (40, 2, 3, 3), (5, 9, 1, 1)):
        delta = torch.randn(shape)
        change = state.full(delta)
        assert change.rank == min(len(delta), delta[0].numel())
        assert change.shape == shape
        assert torch.equal(change.delta, delta)


@pytest.mark.parametrize("name", ["diffusers", "peft"])
def test_norms_of_inputs_are_in_no_other_format(tmp_path: Path, name: str) -> None:
    """A DoRA of input norms is kept by kohya's format, and refused by the others in one line."""
    change = LayerChange(torch.ones(2, 4), torch.ones(8, 2), 1.0, torch.ones(4), "input")
    adapter = AdapterState({"unet.conv_in": change})
    assert same(adapter, registry.read(written(adapter, "kohya", tmp_path / "kohya")))
    with pytest.raises(AdapterError, match="conv_in: peft's names have no DoRA with norms of inputs"):
        written(adapter, name, tmp_path / name)


def test_configuration_names_layers_in_full() -> None:
    """Every layer's rank and alpha is found again by peft's own rule, also where one name ends with another."""
    a = LayerChange(torch.ones(2, 4), torch.ones(4, 2), 1.0)
    b = LayerChange(torch.ones(3, 4), torch.ones(4, 3), 6.0)
    adapter = AdapterState({"unet.conv_in": a, "unet.down_blocks.0.conv_in": b, "unet.mid": a})
    config = adapter.config("unet")
    for name, layer in adapter.of("unet").items():
        assert state.rank_and_alpha(config, name) == (layer.rank, layer.alpha)


def test_rank_stabilised_scale() -> None:
    """With use_rslora the scale is α/√r (arXiv:2312.03732, equation 4)."""
    config = {"r": 4, "lora_alpha": 6, "use_rslora": True}
    rank, alpha = state.rank_and_alpha(config, "x")
    assert alpha / rank == pytest.approx(6 / 2)


# What libraries make of the files, and why their converters are not used ---------------------------------------------


def loaded_by_diffusers(adapter: AdapterState, folder: Path, unet: Any) -> dict[str, Any]:
    """The layers that diffusers' own reader makes of a kohya file of ours."""
    tensors, alphas = StableDiffusionPipeline.lora_state_dict(written(adapter, "kohya", folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The following alpha_pattern keys did not match")
        StableDiffusionPipeline.load_lora_into_unet(tensors, alphas, unet, adapter_name="a")
    return {name: module for name, module in unet.named_modules() if hasattr(module, "lora_A")}


def test_diffusers_reads_our_kohya_file(tmp_path: Path) -> None:
    """Diffusers' own reader finds every layer of a kohya file of ours; where all have one alpha, with the same ΔW."""
    unet = networks("tiny 2")["unet"]
    adapter = random_state(layers_of({"unet": unet}), 3)
    adapter = adapter.map(lambda layer: replace(layer, alpha=2.0))
    found = loaded_by_diffusers(adapter, tmp_path / "kohya", unet)
    assert found.keys() == adapter.of("unet").keys()
    for name, change in adapter.of("unet").items():
        assert torch.allclose(found[name].get_delta_weight("a"), change.delta, atol=1e-5)


def test_diffusers_loses_alphas_of_attention(tmp_path: Path) -> None:
    """It keeps the alphas of a kohya file under names that no attention layer has; look again once it is mended."""
    unet = networks("tiny 2")["unet"]
    adapter = random_state(layers_of({"unet": unet}), 3)
    found = loaded_by_diffusers(adapter, tmp_path / "kohya", unet)
    wrong = [n for n, c in adapter.of("unet").items() if abs(found[n].scaling["a"] - c.scale) > 1e-6]
    assert wrong
    assert all(re.search(r"\.attn\d\.", name) for name in wrong), wrong


def test_peft_reads_our_folder(tmp_path: Path) -> None:
    """Peft alone loads the folder onto a network: the same ΔW."""
    unet = networks("tiny 2")["unet"]
    adapter = random_state(layers_of({"unet": unet}), 3)
    model = PeftModel.from_pretrained(unet, written(adapter, "peft", tmp_path / "peft"))
    for name, change in adapter.of("unet").items():
        assert torch.allclose(
            model.base_model.model.get_submodule(name).get_delta_weight("default"), change.delta, atol=1e-5
        )


def test_why_diffusers_writer_of_kohya_is_not_used() -> None:
    """Its faults, each of which `formats.kohya` avoids; once one is mended here, look whether it can be used."""
    tensors = {
        "unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.ones(2, 8),
        "unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.ones(8, 2),
        "unet.mid_block.attentions.0.proj_in.lora_magnitude_vector": torch.ones(8),
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 8),
    }
    theirs = convert_state_dict_to_kohya(tensors)
    assert float(theirs["lora_unet_mid_block_attentions_0_proj_in.alpha"]) == 2, "alpha is not to be had"
    assert "lora_unet_mid_block_attentions_0_proj_in.dora_scale" not in theirs
    assert any(key.startswith("lora_te1_") for key in theirs), "a single text encoder is lora_te_"


def test_why_diffusers_reader_of_kohya_is_not_used(tmp_path: Path) -> None:
    """It drops `dora_scale`; once that is mended, look whether `formats.names` is still needed."""
    adapter = random_state({"unet.mid_block.attentions.0.proj_in": (8, 8)}, 1, dora=True)
    place = written(adapter, "kohya", tmp_path / "kohya")
    assert any("dora_scale" in key for key in load_file(place))
    tensors, _ = StableDiffusionPipeline.lora_state_dict(place)
    assert not any("magnitude" in key or "dora" in key for key in tensors)


def test_metadata_of_a_diffusers_file(tmp_path: Path) -> None:
    """Configurations are written by component, and come back as they were."""
    adapter = random_state(layers_of(networks("tiny 2")), 1)
    back = registry.read(written(adapter, "diffusers", tmp_path / "out"))
    told = json.loads(back.metadata["lora_adapter_metadata"])
    assert {key.partition(".")[0] for key in told} == {"unet", "text_encoder"} == set(back.components)
    again = registry.read(written(back, "diffusers", tmp_path / "again"))
    assert again.metadata == back.metadata
