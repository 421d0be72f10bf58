"""Adapters of other programs on a base: put on, mixed with others, read with, and refused where they do not fit."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avignon.adapters import files
from avignon.adapters.formats import registry
from avignon.adapters.mix import mixing
from avignon.adapters.state import AdapterState, LayerChange
from avignon.core.errors import AdapterError
from avignon.core.events import Reporter
from avignon.core.records import Frame
from avignon.generation.sampler import ImageSampler
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.schema import Recipe
from tests.support.adapters import layers_of, random_state
from tests.support.bases import TARGETS, load_base
from tests.support.runs import small_recipe

SILENT = Reporter("test", lambda _: None)


@pytest.fixture
def recipe(tmp_path: Path, tiny_sd: Path) -> Recipe:
    """A recipe on the tiny base."""
    return small_recipe(tmp_path / "recipe", tiny_sd)


@pytest.fixture
def base(recipe: Recipe) -> StableDiffusion:
    """The tiny base, freshly loaded."""
    return load_base(recipe, torch.float32, SILENT)


def made(base: StableDiffusion, seed: int, pattern: str = "", **how: Any) -> AdapterState:
    """Small changes of those layers of the base in whose names `pattern` is."""
    shapes = {name: shape for name, shape in layers_of(base.networks).items() if pattern in name}
    return random_state(shapes, seed, **how).map(lambda layer: replace(layer, up=layer.up * 0.02))


def put_on(base: StableDiffusion, name: str, adapter: AdapterState, folder: Path, **how: Any) -> registry.AdapterFile:
    """Written in kohya's format and loaded."""
    folder.mkdir(exist_ok=True)
    registry.FORMATS["kohya"].write(folder / f"{name}.safetensors", adapter, {})
    return files.load(base, name, folder / f"{name}.safetensors", **how)


def changed(weight: torch.Tensor, changes: list[tuple[float, LayerChange]]) -> torch.Tensor:
    """W + Σ wᵢ·ΔWᵢ, where a DoRA's ΔWᵢ is m·(W + s·BA)/‖W + s·BA‖ − W, by the definition."""
    total = weight.clone()
    for share, change in changes:
        delta = change.delta
        if change.magnitude is not None:
            moved, kept = weight + delta, 0 if change.axis == "output" else 1
            others = [axis for axis in range(weight.dim()) if axis != kept]
            lengths = moved.square().sum(others, keepdim=True).sqrt()
            delta = change.magnitude.view(lengths.shape) / lengths * moved - weight
        total += share * delta
    return total


def by_hand(recipe: Recipe, mix: list[tuple[float, AdapterState]], component: str = "unet") -> Any:
    """A network of a fresh base with a mixture of adapters in its weights."""
    network = load_base(recipe, torch.float32, SILENT).networks[component]
    with torch.no_grad():
        for name, module in network.named_modules():
            path = name if component == "unet" else f"text_model.{name}"
            own = [(share, adapter.of(component)[path]) for share, adapter in mix if path in adapter.of(component)]
            if own:
                module.weight.copy_(changed(module.weight, own))
    return network


def output(unet: Any) -> torch.Tensor:
    """What the UNet says of fixed inputs, (2, 4, 8, 8)."""
    random = torch.Generator().manual_seed(0)
    noisy, text = torch.randn(2, 4, 8, 8, generator=random), torch.randn(2, 77, 16, generator=random)
    with torch.no_grad():
        said: torch.Tensor = unet(noisy, torch.tensor([10, 700]), text).sample
    return said


KINDS: dict[str, dict[str, Any]] = {"LoRA": {}, "DoRA": {"dora": True}}


@pytest.mark.slow_but_one
@pytest.mark.parametrize("kind", KINDS)
def test_foreign_adapter_is_its_true_change(base: StableDiffusion, recipe: Recipe, tmp_path: Path, kind: str) -> None:
    """On every layer of the UNet, at weight 0.7, it is W + 0.7·ΔW by the definition, and at 0 the base."""
    adapter, before = made(base, 1, "unet.", **KINDS[kind]), output(base.denoiser)
    put_on(base, "a", adapter, tmp_path / "a")
    with mixing(base.denoiser, TARGETS, {}) as mixer:
        mixer.set([{"a": 0.7}])
        assert output(base.denoiser) == pytest.approx(output(by_hand(recipe, [(0.7, adapter)])), abs=2e-4, rel=1e-3)
        mixer.set([{}])
        assert torch.equal(output(base.denoiser), before)


def test_dora_of_input_norms(base: StableDiffusion, recipe: Recipe, tmp_path: Path) -> None:
    """Magnitudes of input channels, (1, in), which peft has not, are the exact ΔW that they come to on the base."""
    adapter = made(base, 1, "mid_block")
    layers = {
        name: replace(each, magnitude=torch.rand(each.shape[1]) + 0.5, axis="input")
        for name, each in adapter.layers.items()
    }
    adapter = AdapterState(layers)
    put_on(base, "a", adapter, tmp_path / "a")
    with mixing(base.denoiser, TARGETS, {}) as mixer:
        mixer.set([{"a": 0.7}])
        assert output(base.denoiser) == pytest.approx(output(by_hand(recipe, [(0.7, adapter)])), abs=2e-4, rel=1e-3)


@pytest.mark.slow
def test_dora_of_some_layers(base: StableDiffusion, recipe: Recipe, tmp_path: Path) -> None:
    """Layers without a magnitude stay plain beside those that have one."""
    plain, dora = made(base, 1, "down_blocks"), made(base, 2, "up_blocks", dora=True)
    adapter = AdapterState({**plain.layers, **dora.layers})
    put_on(base, "a", adapter, tmp_path / "a")
    with mixing(base.denoiser, TARGETS, {}) as mixer:
        mixer.set([{"a": 1.0}])
        assert output(base.denoiser) == pytest.approx(output(by_hand(recipe, [(1.0, adapter)])), abs=2e-4, rel=1e-3)


@pytest.mark.slow
def test_adapters_of_other_layers_mix(base: StableDiffusion, recipe: Recipe, tmp_path: Path) -> None:
    """Adapters that share some layers, or none, mix in one batch with other weights for each sample."""
    adapters = {"a": made(base, 1, "attn"), "b": made(base, 2, "conv"), "c": made(base, 3, "up_blocks.1")}
    for name, adapter in adapters.items():
        put_on(base, name, adapter, tmp_path / name)
    rows = [{"a": 0.8, "b": 0.3}, {"b": 0.5, "c": 1.0}]
    with mixing(base.denoiser, TARGETS, {}) as mixer:
        mixer.set(rows)
        said = output(base.denoiser)
    for place, row in enumerate(rows):
        alone = output(by_hand(recipe, [(weight, adapters[name]) for name, weight in row.items()]))
        assert said[place] == pytest.approx(alone[place], abs=5e-4, rel=1e-3)


@pytest.mark.slow
def test_dora_and_lora_mix(base: StableDiffusion, recipe: Recipe, tmp_path: Path) -> None:
    """A DoRA and a LoRA of other layers are the sum of their true changes."""
    adapters = {"a": made(base, 1, "attn", dora=True), "b": made(base, 2, "unet.")}
    for name, adapter in adapters.items():
        put_on(base, name, adapter, tmp_path / name)
    with mixing(base.denoiser, TARGETS, {}) as mixer:
        mixer.set([{"a": 0.5, "b": 0.9}])
        alone = output(by_hand(recipe, [(0.5, adapters["a"]), (0.9, adapters["b"])]))
        assert output(base.denoiser) == pytest.approx(alone, abs=2e-4, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diffusers", "peft"])
def test_other_formats_load_the_same(base: StableDiffusion, recipe: Recipe, tmp_path: Path, name: str) -> None:
    """An adapter of UNet and text encoder, read from another format, is on both networks what kohya's is."""
    adapter = made(base, 1)
    place = tmp_path / "a" if name == "peft" else tmp_path / "a.safetensors"
    registry.FORMATS[name].write(place, adapter, {})
    files.load(base, "a", place)
    other = load_base(recipe, torch.float32, SILENT)
    put_on(other, "a", adapter, tmp_path / "b")
    for component, network in base.networks.items():
        assert files.scales_of(network, "a") == files.scales_of(other.networks[component], "a")
        ours, theirs = files.weights_of(network, "a"), files.weights_of(other.networks[component], "a")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


# A text encoder's part ------------------------------------------------------------------------------------------------


def frame_of(weights: Mapping[str, float], **changes: Any) -> Frame:
    """A small frame."""
    fields: dict[str, Any] = {
        "scene": "scene-1",
        "stop": "stop-1",
        "prompt": "a boat on the sea",
        "negative_prompt": "",
        "seed": 3,
        "num_inference_steps": 2,
        "guidance_scale": 5.0,
        "scheduler": "ddim",
        "width": 64,
        "height": 64,
        "weights": weights,
        "base": "",
        "adapters": {},
        "precision": "fp32",
    }
    return Frame(**{**fields, **changes})


def latents(base: StableDiffusion, recipe: Recipe, frames: list[Frame]) -> torch.Tensor:
    """What a sampler makes of frames, undecoded."""
    return ImageSampler(base, recipe, torch.device("cpu"), SILENT).denoise(frames)


@pytest.mark.slow
def test_prompts_are_read_with_the_adapters_weight(base: StableDiffusion, recipe: Recipe, tmp_path: Path) -> None:
    """Each picture of a batch has its prompt, and its negative one, read by the text encoder of its own mixture."""
    adapter, other = made(base, 1, "text_encoder."), made(base, 2, "mid_block")
    frames = [frame_of({}), frame_of({"a": 0.6, "b": 0.5}), frame_of({"a": -0.4}), frame_of({"b": 0.5})]
    plain = latents(base, recipe, frames[:1])
    put_on(base, "a", adapter, tmp_path / "a")
    put_on(base, "b", other, tmp_path / "b")
    together = latents(base, recipe, frames)
    assert torch.allclose(together[:1], plain, atol=1e-5), "the base reads as ever"
    for place, (frame, weight) in enumerate(zip(frames, (0.0, 0.6, -0.4, 0.0), strict=True)):
        merged = load_base(recipe, torch.float32, SILENT)
        merged.pipeline.text_encoder = by_hand(recipe, [(weight, adapter)], "text_encoder")
        put_on(merged, "b", other, tmp_path / "again")
        alone = latents(merged, recipe, [replace(frame, weights={"b": frame.weights.get("b", 0.0)})])
        assert torch.allclose(together[place], alone[0], atol=1e-4)
    assert not torch.allclose(together[1], together[3], atol=1e-2), "it shows"


@pytest.mark.slow
def test_denoiser_only_leaves_the_text_encoder_alone(base: StableDiffusion, recipe: Recipe, tmp_path: Path) -> None:
    """Loaded so, an adapter changes nothing of how prompts are read."""
    frame = frame_of({"a": 1.0})
    adapter = made(base, 1)
    put_on(base, "a", adapter, tmp_path / "a", denoiser_only=True)
    unet = AdapterState({name: each for name, each in adapter.layers.items() if name.startswith("unet.")})
    other = load_base(recipe, torch.float32, SILENT)
    put_on(other, "a", unet, tmp_path / "b")
    assert torch.equal(latents(base, recipe, [frame]), latents(other, recipe, [frame]))


def test_effect_counts_what_is_read(base: StableDiffusion, recipe: Recipe, tmp_path: Path) -> None:
    """An adapter of the text encoder alone has an effect, too."""
    put_on(base, "a", made(base, 1, "text_encoder."), tmp_path / "a")
    effects = ImageSampler(base, recipe, torch.device("cpu"), SILENT).effects([frame_of({})], ["a"])
    assert effects["a"] > 1e-3


def test_text_encoder_is_whole_again_after_sampling(base: StableDiffusion, recipe: Recipe, tmp_path: Path) -> None:
    """The encoder's own weights are bit for bit the base's after pictures were made."""
    before = {name: tensor.clone() for name, tensor in base.prompt_encoders["text_encoder"].named_parameters()}
    put_on(base, "a", made(base, 1), tmp_path / "a")
    latents(base, recipe, [frame_of({"a": 0.5})])
    after = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in base.prompt_encoders["text_encoder"].named_parameters()
        if ".lora_" not in name
    }
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


# What does not fit ----------------------------------------------------------------------------------------------------


def refusal(base: StableDiffusion, adapter: AdapterState, folder: Path) -> str:
    """The one line by which an adapter is refused."""
    with pytest.raises(AdapterError) as refused:
        put_on(base, "a", adapter, folder)
    return str(refused.value)


def test_adapter_for_another_family(base: StableDiffusion, tmp_path: Path) -> None:
    """A layer that the base has not is named, others are counted, and the family is told by its marks."""
    xl = [f"unet.down_blocks.1.attentions.0.transformer_blocks.{n}.attn1.to_q" for n in (1, 2)]
    said = refusal(base, random_state(dict.fromkeys(xl, (8, 8)), 1), tmp_path / "a")
    assert "there is no layer unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q here" in said
    assert "nor 1 more of its 2 layers; it seems to be for Stable Diffusion XL" in said
    flux = random_state({"unet.double.blocks.0.img.attn.qkv": (9, 8)}, 1)
    said = refusal(base, flux, tmp_path / "b")
    assert "there is no layer transformer.transformer_blocks.0.attn.to_q here, nor 2 more" in said
    assert said.endswith("; it seems to be for a transformer such as FLUX or Stable Diffusion 3")


def test_adapter_of_another_text_width(base: StableDiffusion, tmp_path: Path) -> None:
    """Cross-attention of another width tells which Stable Diffusion it is for."""
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    change = LayerChange(torch.ones(2, 768), torch.ones(24, 2), 1.0)
    assert "; it seems to be for Stable Diffusion 1.x" in refusal(base, AdapterState({layer: change}), tmp_path / "a")


def test_spoilt_numbers_are_refused(base: StableDiffusion, tmp_path: Path) -> None:
    """NaN in a file, and an alpha that is none, are named before anything is made."""
    adapter = made(base, 1, "mid_block")
    layers = dict(adapter.layers)
    first = next(iter(layers))
    layers[first] = replace(layers[first], down=torch.full_like(layers[first].down, np.nan))
    assert "NaN" in refusal(base, AdapterState(layers), tmp_path / "a")
    layers[first] = replace(adapter.layers[first], alpha=np.inf)
    assert "alpha" in refusal(base, AdapterState(layers), tmp_path / "b")
