"""FLUX.2 klein: its files, its texts, its pictures and its trainings, on a tiny one of random weights."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline
from safetensors.torch import save_file

from avignon import pipeline as stages
from avignon.adapters import export, files, headers, inject
from avignon.adapters.formats import registry as formats
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.adapters.state import AdapterState, LayerChange, joined
from avignon.core.errors import AdapterError, AvignonError, ModelError, RecipeError
from avignon.core.events import Event, Reporter
from avignon.core.records import Frame
from avignon.generation.sampler import ImageSampler
from avignon.models import loading
from avignon.models.flux2_klein import model as flux2_klein
from avignon.models.flux2_klein.model import Flux2Klein
from avignon.models.names import KNOWN
from avignon.models.runtime import Attention
from avignon.recipe.schema import Ranks, Recipe
from tests.support.hub import LocalHub, take_for_the_hub
from tests.support.runs import carried, small_recipe
from tests.support.tiny_flux2_klein import TOKENS, flux2_klein_transformer, make_tiny_flux2_klein
from tests.support.trainings import HOMER, PICASSO, SILENT, card, metrics, run, same, stopped, weights

CPU = torch.device("cpu")
GOLDEN = Path(__file__).with_name("golden-loss-flux2-klein.json")
MIXES: tuple[dict[str, float], ...] = ({}, {"one": 1.0}, {"one": 0.7, "two": 0.6})
EULER = {"scheduler": "euler"}
PROMPT = "a boat on the sea"


def load(model: Path | str, folder: Path, said: Callable[[Event], None] = lambda _: None) -> Flux2Klein:
    """The base of a small recipe."""
    recipe = small_recipe(folder, model, generate=EULER)
    base = loading.load(recipe.base, recipe.generate, torch.float32, Reporter("train", said))
    assert isinstance(base, Flux2Klein)
    return base


@pytest.fixture(scope="module")
def base(tiny_flux2_klein: Path, tmp_path_factory: pytest.TempPathFactory) -> Flux2Klein:
    """The tiny one, loaded."""
    return load(tiny_flux2_klein, tmp_path_factory.mktemp("klein"))


# Files ----------------------------------------------------------------------------------------------------------------


def test_loads_a_directory(tiny_flux2_klein: Path, tmp_path: Path) -> None:
    """A directory is loaded frozen, in evaluation mode, with nothing to warn; every part counts for its identity."""
    heard: list[Event] = []
    base = load(tiny_flux2_klein, tmp_path, heard.append)
    for part in (base.denoiser, base.autoencoder, base.text_encoder):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())
    assert heard == []
    said = base.card["family"], base.card["architecture"], base.card["prediction_type"]
    assert said == ("flux2-klein", "Flux.2-klein-4b", "flow")
    assert set(base.parts) == {"transformer", "vae", "text_encoder", "tokenizer", "scheduler", "model_index.json"}


@pytest.mark.parametrize(
    ("name", "change", "part"),
    [
        ("scheduler/scheduler_config.json", {"max_shift": 1.3}, "scheduler"),
        ("vae/config.json", {"batch_norm_eps": 1e-3}, "vae"),
        ("tokenizer/chat_template.jinja", "{{ messages[0].content }}", "tokenizer"),
        ("model_index.json", {"is_distilled": True}, "model_index.json"),
    ],
)
def test_every_setting_counts(
    base: Flux2Klein, tiny_flux2_klein: Path, tmp_path: Path, name: str, change: Any, part: str
) -> None:
    """What changes pictures changes the hash of its part, and of no other."""
    copy = shutil.copytree(tiny_flux2_klein, tmp_path / "copy")
    if isinstance(change, str):
        (copy / name).write_text(change, encoding="utf-8")
    else:
        edited(name, **change)(copy)
    other = load(copy, tmp_path / "recipe")
    assert {each for each in base.parts if base.parts[each] != other.parts[each]} == {part}


def test_parameters_at_full_size() -> None:
    """4B's transformer has 3,875,544,576 parameters; on attention at rank 4 those of 8 + 2 layers a block train.

    At the recipe's ranks, on feed-forward networks as well, it is 24,084,480, 0.621 %.
    """
    with torch.device("meta"):
        transformer = flux2_klein_transformer().requires_grad_(False)
    targets = flux2_klein._targets(5, 20)
    ranks = Ranks(attention=4, projection=0, convolution=0)
    transformer.add_adapter(inject.lora_config(targets, ranks), adapter_name="new")
    share = inject.trainable(transformer, [p for p in transformer.parameters() if p.requires_grad], ranks)
    assert share["unet_parameters"] == 3_875_544_576
    wide, hidden = 3072, 3 * 3072
    double, single = 8 * 4 * (wide + wide), 4 * (wide + 3 * wide + 2 * hidden) + 4 * (wide + hidden + wide)
    assert share["parameters"] == 5 * double + 20 * single == 4_669_440
    forward = 4 * (wide + 2 * hidden) + 4 * (hidden + wide)
    assert 4 * (share["parameters"] + 5 * 2 * forward) == 24_084_480
    blocks = [f"transformer_blocks.{n}" for n in range(5)] + [f"single_transformer_blocks.{n}" for n in range(20)]
    parts = [targets.part_of(f"{block}.attn.to_q") for block in blocks]
    assert [parts.count(part) for part in ("early", "middle", "late")] == [9, 8, 8]
    assert parts == sorted(parts, key=("early", "middle", "late").index)


def test_blocks_have_ranks_of_their_own(base: Flux2Klein) -> None:
    """A block of one stream by its number, not that of two streams with the same number, nor the other way round."""
    paths = [path for path, _ in base.denoiser.named_modules()]
    blocks = {"single_transformer_blocks.1": 5, "transformer_blocks.1": 3}
    config = inject.lora_config(
        base.targets, Ranks(attention=2, projection=0, convolution=0, blocks=blocks), paths=paths
    )
    ranks = {re.sub(r"\\", "", path): rank for path, rank in config.rank_pattern.items()}
    assert ranks["single_transformer_blocks.1.attn.to_out"] == 5
    assert ranks["transformer_blocks.1.attn.to_out.0"] == 3
    assert ranks["single_transformer_blocks.0.attn.to_qkv_mlp_proj"] == 2
    assert len(ranks) == 2 * 8 + 3 * 2


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change values of a JSON file."""

    def spoil(folder: Path) -> None:
        told = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(told | changes), encoding="utf-8")

    return spoil


def without(name: str) -> Callable[[Path], None]:
    """Remove a folder or a file."""
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def without_statistics(folder: Path) -> None:
    """A VAE whose file lacks its batch norm's."""
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    vae = AutoencoderKLFlux2.from_pretrained(folder / "vae")
    save_file({key: each for key, each in vae.state_dict().items() if not key.startswith("bn.")}, path)


SCHEDULER = "scheduler/scheduler_config.json"
TEXT, TRANSFORMER, VAE = "text_encoder/config.json", "transformer/config.json", "vae/config.json"

BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no encoder": (without("text_encoder"), "text_encoder/config.json is missing"),
    "no transformer": (
        without("transformer/diffusion_pytorch_model.safetensors"),
        "transformer/diffusion_pytorch_model.safetensors is missing",
    ),
    "no tokenizer": (without("tokenizer"), "tokenizer/vocab.json is missing"),
    "no scheduler": (without("scheduler"), "scheduler_config.json is missing"),
    "no chat template": (without("tokenizer/chat_template.jinja"), "has no chat_template, which prompts need"),
    "no statistics": (without_statistics, "tensors are missing, the first is bn.running_mean"),
    "another encoder": (edited(TEXT, model_type="mistral3"), "model_type is 'mistral3', and only 'qwen3'"),
    "a wider encoder": (edited(TEXT, hidden_size=20), "joint_attention_dim is 48, and only 60"),
    "a shallow encoder": (edited(TEXT, num_hidden_layers=27), "num_hidden_layers is 27; texts are read after layer 27"),
    "guidance in it": (edited(TRANSFORMER, guidance_embeds=True), "guidance_embeds is True, and only False"),
    "another VAE": (edited(VAE, _class_name="AutoencoderKL"), "_class_name is 'AutoencoderKL', and only"),
    "other latents": (edited(VAE, latent_channels=4), "in_channels is 32, and only 16"),
    "no epsilon": (edited(VAE, batch_norm_eps=0), "batch_norm_eps is 0; it is a number above 0"),
    "betas": (edited(SCHEDULER, _class_name="DDIMScheduler"), "_class_name is 'DDIMScheduler', and only"),
    "no number": (edited(SCHEDULER, max_shift="1"), "max_shift is '1'; it is a number above 0"),
    "half distilled": (edited("model_index.json", is_distilled="yes"), "is_distilled is 'yes', neither true nor false"),
    "dev": (edited("model_index.json", _class_name="Flux2Pipeline"), "_class_name is 'Flux2Pipeline'; only"),
}


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD.keys())
def test_bad_directories_are_named(
    tiny_flux2_klein: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    """What a folder lacks, or holds that is not understood, is one line that names the file."""
    copy = shutil.copytree(tiny_flux2_klein, tmp_path / "copy")
    spoil(copy)
    with pytest.raises(ModelError, match=re.escape(said)) as refused:
        load(copy, tmp_path / "recipe")
    assert "\n" not in str(refused.value)


ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "ddim": ({"generate": {"scheduler": "ddim"}}, "generate.scheduler: 'ddim' is none of FLUX.2 klein; allowed: euler"),
    "pndm": ({"generate": {"scheduler": "pndm"}}, "generate.scheduler: 'pndm' is none of FLUX.2 klein; allowed: euler"),
    "steps": ({"generate": {**EULER, "num_inference_steps": 1000}}, "at most 999"),
    "a UNet's block": (
        {"generate": {**EULER, "block_weights": {HOMER: {"mid": 0.5}}}},
        "'mid' is not a part of FLUX.2 klein; allowed are early, middle, late, and names such as",
    ),
    "a prediction type": (
        {"generate": EULER, "base": {"prediction_type": "epsilon"}},
        "base.prediction_type: FLUX.2 is trained by flow matching",
    ),
}


@pytest.mark.parametrize(("sections", "said"), ASKED.values(), ids=ASKED.keys())
def test_what_the_family_has_not(tiny_flux2_klein: Path, tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    """Samplers, blocks and settings of other families are one line, before anything is loaded."""
    recipe = small_recipe(tmp_path, tiny_flux2_klein, **sections)
    for check in (
        lambda: loading.check_local(recipe.base, recipe.generate),
        lambda: loading.load(recipe.base, recipe.generate, torch.float32, SILENT),
    ):
        with pytest.raises(RecipeError, match=re.escape(said)):
            check()


def test_resolution_is_whole_tokens(tiny_flux2_klein: Path, tmp_path: Path) -> None:
    """A side is a multiple of 16 pixels: of the two latent pixels that are packed into one."""
    recipe = small_recipe(tmp_path, tiny_flux2_klein, generate=EULER, base={"resolution": 72})
    with pytest.raises(RecipeError, match=r"base.resolution: 72 is not a multiple of 16"):
        loading.load(recipe.base, recipe.generate, torch.float32, SILENT)


# Texts ----------------------------------------------------------------------------------------------------------------


def test_texts_are_read_as_diffusers_do(tmp_path: Path) -> None:
    """What layers 9, 18 and 27 say of a prompt, of the empty and of a long one, padding as well, is diffusers' own."""
    folder = make_tiny_flux2_klein(tmp_path / "base", tokens=2048)
    base, theirs = load(folder, tmp_path), Flux2KleinPipeline.from_pretrained(folder)
    texts = [PROMPT, "", "wood and oil " * 200]
    expected, _ = theirs.encode_prompt(list(texts))
    ours = base.encode_prompts(texts, CPU, SILENT).tensors["text"]
    assert ours.shape == (3, 512, 48)
    assert torch.allclose(ours, expected, atol=1e-5)
    assert torch.equal(ours[:1], base.encode_prompts(texts[:1], CPU, SILENT).tensors["text"])


def test_long_prompts_are_named(base: Flux2Klein) -> None:
    """Of a prompt longer than the encoder is given, the warning names the words that are cut, once."""
    heard: list[Event] = []
    base.encode_prompts(["the sea " * 300], CPU, Reporter("generate", heard.append))
    assert [event.kind for event in heard] == ["warning"]
    assert f"longer than the base's {TOKENS} tokens" in heard[0].text
    assert base.reads_whole("the sea " * 30)
    assert not base.reads_whole("the sea " * 70)


# Noise ----------------------------------------------------------------------------------------------------------------


def test_a_right_prediction_leads_to_the_picture(base: Flux2Klein) -> None:
    """The sampler, told the training's target at every step, ends at the very picture: the two have one sign."""
    latents, noise = torch.randn(2, 1, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    sampler = base.sampler("euler", 5, 64, 64)
    x = noise * sampler.init_noise_sigma
    for t in sampler.timesteps:
        assert torch.allclose(x, base.add_noise(latents, noise, t[None]), atol=1e-5)
        assert torch.equal(base.training_target(latents, noise, t[None]), noise - latents)
        x = sampler.step(noise - latents, t, x, return_dict=False)[0]
    assert torch.allclose(x, latents, atol=1e-5)


def test_the_transformer_is_asked_as_it_was_trained(base: Flux2Klein, monkeypatch: pytest.MonkeyPatch) -> None:
    """σ goes in beside packed latents with their places, in diffusers' order; what comes out is not negated."""
    asked: list[dict[str, Any]] = []

    def transformer(**how: Any) -> Any:
        asked.append(how)
        return (2 * how["hidden_states"],)

    monkeypatch.setattr(base.denoiser, "forward", transformer)
    noisy, told = torch.randn(2, 32, 4, 6), base.encode_prompts([PROMPT, ""], CPU, SILENT)
    assert torch.equal(base.predict(noisy, torch.tensor([250.0, 1000.0]), told), 2 * noisy)
    assert torch.equal(base.predict(noisy, torch.tensor(100.0), told), 2 * noisy)
    assert torch.equal(asked[0]["timestep"], torch.tensor([0.25, 1.0]))
    assert torch.allclose(asked[1]["timestep"], torch.tensor([0.1, 0.1]))
    assert torch.equal(asked[0]["hidden_states"], Flux2KleinPipeline._pack_latents(noisy))
    assert torch.equal(asked[0]["img_ids"], Flux2KleinPipeline._prepare_latent_ids(noisy)[0])
    assert torch.equal(asked[0]["txt_ids"], Flux2KleinPipeline._prepare_text_ids(told.tensors["text"])[0])


def test_timesteps_are_logit_normal_and_shifted(base: Flux2Klein) -> None:
    """Quantiles of σ are sigmoid(z) moved by s: s·σ/(1 + (s − 1)·σ), with s that of musubi-tuner's `flux2_shift`.

    ln s is linear from 0.5 at 256 tokens to 1.15 at 4096; 64 pixels are 16 tokens, 1024 are 4096.
    """
    drawn = base.sample_timesteps(20_000, torch.Generator().manual_seed(0), 64, 64) / 1000
    shift = float(np.exp(0.5 + (1.15 - 0.5) * (16 - 256) / (4096 - 256)))
    for share, z in ((0.1587, -1.0), (0.5, 0.0), (0.8413, 1.0)):
        sigma = 1 / (1 + np.exp(-z))
        assert float(drawn.quantile(share)) == pytest.approx(shift * sigma / (1 + (shift - 1) * sigma), abs=0.01)
    assert base.tokens_of(1024, 1024) == 4096
    assert base._mu(1024, 1024) == pytest.approx(1.15)
    assert torch.equal(base.loss_weights(drawn, 0.0), torch.ones(len(drawn)))


def test_latents_and_back(base: Flux2Klein) -> None:
    """Latents are packed two by two and normalised as diffusers' pipeline and training script have it, and back."""
    pixels = torch.rand(1, 3, 64, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    moments, own = base.encode_images(pixels), base.autoencoder.encode(pixels).latent_dist
    norm = base.autoencoder.bn
    deviation = (norm.running_var + base.autoencoder.config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
    packed = Flux2KleinPipeline._patchify_latents(own.mean)
    assert torch.allclose(moments.mean, (packed - norm.running_mean.view(1, -1, 1, 1)) / deviation)
    assert torch.allclose(moments.std, Flux2KleinPipeline._patchify_latents(own.std) / deviation)
    assert torch.allclose(base.decode_latents(moments.mean), base.autoencoder.decode(own.mean).sample, atol=1e-5)
    assert base.latent_shape(64, 32) == (32, 2, 4) == tuple(moments.mean.transpose(2, 3).shape[1:])


# Pictures -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tiny_flux2_klein: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, dict[str, Path]]:
    """A recipe over the tiny base, and two adapters of random change, saved."""
    folder = tmp_path_factory.mktemp("painting")
    recipe = small_recipe(folder, tiny_flux2_klein, generate={**EULER, "batch": 8})
    paths = {}
    for seed, name in enumerate(("one", "two")):
        base = load(tiny_flux2_klein, folder)
        ranks = Ranks(attention=4, projection=3, convolution=2)
        inject.add(base.denoiser, base.targets, name, ranks, alpha=4.0 * seed, seed=seed)
        torch.manual_seed(seed)
        with torch.no_grad():
            for key, parameter in base.denoiser.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(0, 0.1)
        files.save(base.denoiser, base.targets, name, folder / name / WEIGHTS_FILE)
        paths[name] = folder / name
    return recipe, paths


def painter(saved: tuple[Recipe, dict[str, Path]]) -> ImageSampler:
    """A sampler with both adapters on."""
    recipe, paths = saved
    base = loading.load(recipe.base, recipe.generate, torch.float32, SILENT)
    for name, folder in paths.items():
        files.load(base, name, folder)
    return ImageSampler(base, recipe, CPU, SILENT)


def theirs(model: str | Path, paths: dict[str, Path], weights: dict[str, float]) -> Any:
    """Diffusers' pipeline with adapters on."""
    made = Flux2KleinPipeline.from_pretrained(model)
    made.set_progress_bar_config(disable=True)
    for name in weights:
        made.load_lora_weights(paths[name], adapter_name=name)
    if weights:
        made.set_adapters(list(weights), list(weights.values()))
    return made


def frame(weights: dict[str, float], **changes: Any) -> Frame:
    """A small frame."""
    plain = Frame("scene-1", "stop-1", PROMPT, "", 3, 4, 5.0, "euler", 64, 64, weights, "", {}, "fp32")
    return replace(plain, **changes)


def off(picture: Any, other: Any) -> int:
    """The greatest difference of two pictures, of 255."""
    return int(np.abs(np.asarray(picture, int) - np.asarray(other, int)).max())


@pytest.mark.slow_but_one
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
@pytest.mark.parametrize("weights", MIXES)
@pytest.mark.parametrize(("guidance", "size"), [(5.0, (64, 64)), (3.5, (96, 64)), (1.0, (64, 64))])
def test_pictures_are_diffusers_own(
    saved: tuple[Recipe, dict[str, Path]], weights: dict[str, float], guidance: float, size: tuple[int, int]
) -> None:
    """The base, one adapter and two: Flux2KleinPipeline's pictures, within 2/255; alone or among others."""
    recipe, paths = saved
    how: dict[str, Any] = {
        "max_sequence_length": TOKENS,
        "width": size[0],
        "height": size[1],
        "generator": torch.Generator().manual_seed(3),
    }
    pipeline = theirs(recipe.base.model, paths, weights)
    expected = pipeline(prompt=PROMPT, num_inference_steps=4, guidance_scale=guidance, **how)
    wanted = frame(weights, guidance_scale=guidance, width=size[0], height=size[1])
    others = [replace(wanted, weights=mix, seed=seed, prompt=PROMPT * 3) for seed, mix in enumerate(MIXES)]
    ours = painter(saved)
    for picture in (ours.paint([wanted])[0], ours.paint([others[0], wanted, others[2]])[1]):
        assert off(picture, expected.images[0]) <= 2
    assert np.asarray(expected.images[0]).std() > 20


@pytest.mark.slow_but_one
@pytest.mark.parametrize("steps", [4, 9])
@pytest.mark.parametrize("dynamic", [False, True])
def test_shift_is_that_of_diffusers_pipeline(tmp_path: Path, dynamic: bool, steps: int) -> None:
    """A shift by the file, and one that follows size and steps, give Flux2KleinPipeline's pictures."""
    folder = make_tiny_flux2_klein(tmp_path / "base", dynamic=dynamic)
    recipe = small_recipe(tmp_path, folder, generate=EULER)
    base = loading.load(recipe.base, recipe.generate, torch.float32, SILENT)
    how: dict[str, Any] = {
        "max_sequence_length": TOKENS,
        "width": 128,
        "height": 64,
        "generator": torch.Generator().manual_seed(3),
    }
    expected = theirs(folder, {}, {})(prompt=PROMPT, num_inference_steps=steps, guidance_scale=5.0, **how)
    picture = ImageSampler(base, recipe, CPU, SILENT).paint([frame({}, width=128, num_inference_steps=steps)])[0]
    assert off(picture, expected.images[0]) <= 2


def test_a_negative_prompt_is_the_other_text(saved: tuple[Recipe, dict[str, Path]]) -> None:
    """Diffusers' pipeline takes it as what the encoder says of it."""
    recipe, _ = saved
    pipeline = theirs(recipe.base.model, {}, {})
    read, _ = pipeline.encode_prompt("red", max_sequence_length=TOKENS)
    how: dict[str, Any] = {
        "max_sequence_length": TOKENS,
        "width": 64,
        "height": 64,
        "generator": torch.Generator().manual_seed(3),
    }
    expected = pipeline(prompt=PROMPT, negative_prompt_embeds=read, num_inference_steps=4, guidance_scale=5.0, **how)
    ours = painter(saved)
    picture, plain = ours.paint([frame({}, negative_prompt="red"), frame({})])
    assert off(picture, expected.images[0]) <= 2
    assert off(picture, plain) > 2


def test_distilled_is_painted_without_guidance(tmp_path: Path) -> None:
    """One pass a step, whatever guidance is asked for, as in diffusers' pipeline; that it has no effect is said."""
    folder = make_tiny_flux2_klein(tmp_path / "base", distilled=True)
    recipe = small_recipe(tmp_path, folder, generate={**EULER, "guidance_scale": 5.0})
    heard: list[Event] = []
    base = loading.load(recipe.base, recipe.generate, torch.float32, SILENT)
    sampler = ImageSampler(base, recipe, CPU, Reporter("generate", heard.append))
    assert [event.kind for event in heard] == ["warning"]
    assert "generate.guidance_scale: 5 has no effect" in heard[0].text
    how: dict[str, Any] = {
        "max_sequence_length": TOKENS,
        "width": 64,
        "height": 64,
        "generator": torch.Generator().manual_seed(3),
    }
    expected = theirs(folder, {}, {})(prompt=PROMPT, num_inference_steps=4, guidance_scale=5.0, **how)
    pictures = sampler.paint([frame({}), frame({}, guidance_scale=1.0)])
    assert all(off(picture, expected.images[0]) <= 2 for picture in pictures)
    heard.clear()
    recipe = small_recipe(tmp_path, folder, generate={**EULER, "guidance_scale": 1.0})
    ImageSampler(base, recipe, CPU, Reporter("generate", heard.append))
    assert heard == []


@pytest.mark.slow
def test_blocks_are_weighted_by_name(saved: tuple[Recipe, dict[str, Path]]) -> None:
    """A weight of 0 in all thirds but one leaves that one's change alone; a block has a weight of its own."""
    sampler = painter(saved)
    whole, nothing = sampler.denoise([frame({"one": 1.0})]), sampler.denoise([frame({})])
    parts = {"early": 0.0, "middle": 0.0, "late": 0.0}
    assert torch.allclose(sampler.denoise([frame({"one": 1.0}, block_weights={"one": parts})]), nothing, atol=1e-5)
    made = {}
    for block in (
        "transformer_blocks.0",
        "single_transformer_blocks.0",
        "single_transformer_blocks.2",
        "early",
        "late",
    ):
        made[block] = sampler.denoise([frame({"one": 1.0}, block_weights={"one": {**parts, block: 1.0}})])
        assert not torch.allclose(made[block], nothing, atol=1e-3)
        assert not torch.allclose(made[block], whole, atol=1e-3)
    late = {"single_transformer_blocks.1": 0.0, "late": 1.0}  # Blocks 4 and 5 of five are late.
    both = sampler.denoise([frame({"one": 1.0}, block_weights={"one": {**parts, **late}})])
    assert torch.equal(both, made["single_transformer_blocks.2"])


def test_weights_of_samples_in_every_layer(tiny_flux2_klein: Path, tmp_path: Path) -> None:
    """Mixed in one batch, pictures are those made alone, with changes of layers that see times as well."""
    base = load(tiny_flux2_klein, tmp_path)
    recipe = small_recipe(tmp_path, tiny_flux2_klein, generate={**EULER, "batch": 8})
    sampler = ImageSampler(base, recipe, CPU, SILENT)
    outside = ("x_embedder", "context_embedder", "norm_out.linear", "proj_out", "single_stream_modulation.linear")
    times = ("timestep_embedder.linear_1", "double_stream_modulation_img.linear", "double_stream_modulation_txt.linear")
    kinds = {"attention": (*outside, *times, "to_q", "to_qkv_mlp_proj")}
    inject.add(base.denoiser, replace(base.targets, kinds=kinds), "one", Ranks(), alpha=0, seed=1)
    with torch.no_grad():
        for key, parameter in base.denoiser.named_parameters():
            if "lora_B" in key:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    frames = [frame({"one": 1.0}), frame({"one": 0.5}), frame({})]
    assert [sorted(group) for group in sampler.groups(frames)] == [[0, 1, 2]]
    alone = torch.cat([sampler.denoise([one]) for one in frames])
    assert torch.allclose(sampler.denoise(frames), alone, atol=1e-4)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)


@pytest.mark.parametrize("backend", ["sdpa", "plain"])
def test_attention_backends_agree(base: Flux2Klein, backend: Attention) -> None:
    """Both ways to compute attention on a CPU say the same, and every layer is told which."""
    told = base.encode_prompts([PROMPT, PROMPT * 3], CPU, SILENT)
    noisy = torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = base.predict(noisy, torch.tensor(500.0), told)
    base.set_attention_backend(backend)
    chosen = {name: each._attention_backend for name, each in base.denoiser.attn_processors.items()}
    assert len(chosen) == 5
    assert len(set(chosen.values())) == 1
    assert torch.allclose(base.predict(noisy, torch.tensor(500.0), told), expected, atol=1e-5)
    base.set_attention_backend("sdpa")


# Adapters -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow_but_one
@pytest.mark.parametrize("kind", ["kohya", "diffusers", "peft"])
def test_adapters_in_every_format(saved: tuple[Recipe, dict[str, Path]], tmp_path: Path, kind: str) -> None:
    """Exported and imported again an adapter is the same, and every file says which bases it is for."""
    source = export.opened(saved[1]["two"])
    place = tmp_path / ("two" if kind == "peft" else "two.safetensors")
    export.write(place, source.state, kind, source.header())
    file = formats.find(place)
    assert file.format == kind
    assert "(transformer 30)" in file.summary
    assert "for FLUX.2" in file.summary
    assert source.header()["modelspec.architecture"] == "Flux.2-klein-4b/lora"
    implementation = "https://github.com/black-forest-labs/flux2" if kind == "kohya" else "diffusers"
    assert file.metadata["modelspec.implementation"] == implementation
    recipe, _ = saved
    pair = [loading.load(recipe.base, recipe.generate, torch.float32, SILENT) for _ in range(2)]
    for base, path in zip(pair, (saved[1]["two"], place), strict=True):
        files.load(base, "two", path)
    one, other = (ImageSampler(base, recipe, CPU, SILENT).denoise([frame({"two": 1.0})]) for base in pair)
    assert torch.equal(one, other)


def test_kohyas_names_are_read_by_diffusers(saved: tuple[Recipe, dict[str, Path]], tmp_path: Path) -> None:
    """Diffusers' own converter finds every layer of the file for other programs, with its scale."""
    source = export.opened(saved[1]["two"])
    export.write(tmp_path / "two.safetensors", source.state, "kohya", source.header())
    read: Any = Flux2KleinPipeline.lora_state_dict(tmp_path / "two.safetensors")
    layers = source.state.layers
    assert {key.rpartition(".lora_")[0] for key in read} == set(layers)
    for layer, change in layers.items():
        made = read[f"{layer}.lora_B.weight"] @ read[f"{layer}.lora_A.weight"]
        assert torch.allclose(made, change.delta, atol=1e-6)


def test_what_kohyas_format_cannot_hold(saved: tuple[Recipe, dict[str, Path]], tmp_path: Path) -> None:
    """A query without its key and value, and layers that nobody else has so, are a line that names the other format."""
    layers = dict(export.opened(saved[1]["two"]).state.layers)
    query = "transformer.transformer_blocks.0.attn.to_q"
    alone = {layer: change for layer, change in layers.items() if not layer.endswith(".to_k")}
    other = layers | {query: replace(layers[query], alpha=1.0)}
    outside = {"transformer.norm_out.linear": layers[query]}
    for state, said in ((alone, "in one layer, and they are not there"), (other, "same rank and alpha"),
                        (outside, "no name for transformer.norm_out.linear")):  # fmt: skip
        with pytest.raises(AdapterError, match=f"{said}.*; use --format diffusers"):
            export.write(tmp_path / "a.safetensors", AdapterState(state), "kohya", {})
        export.write(tmp_path / "a.safetensors", AdapterState(state), "diffusers", {})


def ai_toolkit(state: AdapterState) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA whose query, key and value share their A, as ai-toolkit's files of FLUX.2 have them."""
    numbers = torch.Generator().manual_seed(0)
    shapes = {layer: change.shape for layer, change in state.layers.items()}
    inside = "transformer.transformer_blocks.0"
    names = {
        "double_blocks.0.img_attn.qkv": (*3 * [shapes[f"{inside}.attn.to_q"]],),
        "double_blocks.0.txt_attn.qkv": (*3 * [shapes[f"{inside}.attn.add_q_proj"]],),
        "double_blocks.0.img_attn.proj": (shapes[f"{inside}.attn.to_out.0"],),
        "double_blocks.0.txt_mlp.2": (shapes[f"{inside}.ff_context.linear_out"],),
        "single_blocks.1.linear1": (shapes["transformer.single_transformer_blocks.1.attn.to_qkv_mlp_proj"],),
        "single_blocks.1.linear2": (shapes["transformer.single_transformer_blocks.1.attn.to_out"],),
    }
    tensors = {}
    for name, parts in names.items():
        tensors[f"{name}.lora_A.weight"] = torch.randn(6, parts[0][1], generator=numbers)
        tensors[f"{name}.lora_B.weight"] = torch.randn(sum(part[0] for part in parts), 6, generator=numbers)
    return tensors


@pytest.mark.parametrize("prefix", ["diffusion_model.", "base_model.model."])
def test_names_of_other_programs(saved: tuple[Recipe, dict[str, Path]], tmp_path: Path, prefix: str) -> None:
    """ai-toolkit's and ComfyUI's names, and peft's prefix before them, are the layers that diffusers makes of them."""
    tensors = {f"{prefix}{key}": each for key, each in ai_toolkit(export.opened(saved[1]["two"]).state).items()}
    save_file(tensors, tmp_path / "a.safetensors")
    read: Any = Flux2KleinPipeline.lora_state_dict(tmp_path / "a.safetensors")
    ours = formats.read(tmp_path / "a.safetensors")
    assert set(ours.layers) == {key.rpartition(".lora_")[0] for key in read}
    assert len(ours.layers) == 3 + 3 + 4
    for layer, change in ours.layers.items():
        assert torch.allclose(change.delta, read[f"{layer}.lora_B.weight"] @ read[f"{layer}.lora_A.weight"], atol=1e-5)
    base = loading.load(saved[0].base, saved[0].generate, torch.float32, SILENT)
    files.load(base, "one", tmp_path / "a.safetensors")


def test_a_configuration_beside_other_programs_names(tmp_path: Path) -> None:
    """Peft's scale counts for the makers' names too; ranks by names that diffusers has not are a line."""
    stem = "base_model.model.double_blocks.0.img_attn.qkv"
    save_file({f"{stem}.lora_A.weight": torch.ones(2, 32), f"{stem}.lora_B.weight": torch.ones(96, 2)},
              tmp_path / "adapter_model.safetensors")  # fmt: skip
    told: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["qkv"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(told), encoding="utf-8")
    read = formats.read(tmp_path)
    assert {change.alpha for change in read.layers.values()} == {6}
    assert read.config("transformer")["target_modules"] == sorted(read.of("transformer"))
    (tmp_path / "adapter_config.json").write_text(json.dumps(told | {"alpha_pattern": {"qkv": 4}}), encoding="utf-8")
    with pytest.raises(AdapterError, match="ranks or alphas by other names of layers than diffusers'"):
        formats.read(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        formats.read(tmp_path)


def test_names_that_lead_to_one_layer(saved: tuple[Recipe, dict[str, Path]], tmp_path: Path) -> None:
    """A query by itself and within the three, outputs that are no three, and unsure names are each a line."""
    whole = "diffusion_model.double_blocks.0.img_attn.qkv"
    good = {f"{whole}.lora_A.weight": torch.ones(2, 32), f"{whole}.lora_B.weight": torch.ones(96, 2)}
    own = "transformer.transformer_blocks.0.attn.to_q"
    twice = good | {f"{own}.lora_A.weight": torch.ones(2, 32), f"{own}.lora_B.weight": torch.ones(32, 2)}
    last = "diffusion_model.final_layer.adaLN_modulation.1"
    unsure = {f"{last}.lora_A.weight": torch.ones(2, 32), f"{last}.lora_B.weight": torch.ones(64, 2)}
    cases = [
        (twice, f"changes {own} twice"),
        (good | {f"{whole}.lora_B.weight": torch.ones(95, 2)}, "to_qkv has 95 outputs for 3 layers"),
        (good | {f"{whole}.dora_scale": torch.ones(1, 32)}, "a DoRA with norms of inputs, of several layers in one"),
        (good | unsure, "final_layer.adaLN_modulation.1.lora_A.weight .and 1 more. is no part of an adapter"),
    ]
    for tensors, said in cases:
        save_file(tensors, tmp_path / "a.safetensors")
        with pytest.raises(AdapterError, match=said):
            formats.read(tmp_path / "a.safetensors")


def test_three_layers_as_one_and_back() -> None:
    """Joined, three changes are that of the layer with all their outputs; split, each is the very one it was."""
    made = [LayerChange(torch.randn(4, 8), torch.randn(6, 4), 3.0, torch.rand(6)) for _ in range(3)]
    whole = joined(made)
    assert torch.allclose(whole.delta, torch.cat([each.delta for each in made]), atol=1e-6)
    for one, other in zip(made, whole.split(3), strict=True):
        assert (one.alpha, one.rank) == (other.alpha, other.rank)
        assert one.magnitude is not None
        assert other.magnitude is not None
        assert all(map(torch.equal, (one.down, one.up, one.magnitude), (other.down, other.up, other.magnitude)))
    mixed = LayerChange(torch.randn(6, 8), torch.randn(18, 6), 6.0)
    assert torch.allclose(torch.cat([each.delta for each in mixed.split(3)]), mixed.delta, atol=1e-6)


def test_adapters_of_other_families(
    saved: tuple[Recipe, dict[str, Path]], tiny_sd: Path, tiny_z_image: Path, tmp_path: Path
) -> None:
    """An adapter of klein on another family is one line, by the files alone as well; so is FLUX.1's on klein."""
    file = formats.find(saved[1]["one"])
    for number, model in enumerate((tiny_sd, tiny_z_image)):
        generate = EULER if model == tiny_z_image else {}
        recipe = small_recipe(tmp_path / str(number), model, generate=generate)
        other = loading.load(recipe.base, recipe.generate, torch.float32, SILENT)
        with pytest.raises(AdapterError, match=r"made for another base.*it seems to be for FLUX.2"):
            files.load(other, "one", saved[1]["one"])
        with pytest.raises(AdapterError, match="made for another base"):
            headers.check_fit(file.path, file.layers, headers.layers_in(model))
    headers.check_fit(file.path, file.layers, headers.layers_in(Path(saved[0].base.model)))
    flux_1 = "transformer.transformer_blocks.18.attn.to_q"
    save_file({f"{flux_1}.lora_A.weight": torch.ones(2, 32), f"{flux_1}.lora_B.weight": torch.ones(32, 2)},
              tmp_path / "flux1.safetensors")  # fmt: skip
    base = loading.load(saved[0].base, saved[0].generate, torch.float32, SILENT)
    with pytest.raises(AdapterError, match=r"there is no layer transformer.transformer_blocks.18.attn.to_q here"):
        files.load(base, "one", tmp_path / "flux1.safetensors")


# Training -------------------------------------------------------------------------------------------------------------


def trained(folder: Path, base: Path, **settings: Any) -> tuple[Recipe, Any]:
    """A recipe with these values in `train`, and its run up to the prepared images."""
    recipe = small_recipe(folder, base, train=settings, generate=EULER)
    return recipe, carried(recipe, folder / "runs")[0]


@pytest.fixture(scope="module")
def whole(tiny_flux2_klein: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Any]:
    """A finished training of two adapters in one pass."""
    recipe, space = trained(tmp_path_factory.mktemp("whole"), tiny_flux2_klein, flip=True)
    run(recipe, space)
    return recipe, space


@pytest.mark.slow
def test_two_adapters_in_one_pass(whole: tuple[Recipe, Any]) -> None:
    """Both learn, each its own, on all kinds of layers; the cards name the family; the file for others is kohya's."""
    _, space = whole
    assert not same(weights(space), weights(space, PICASSO))
    assert all(tensor.any() for key, tensor in weights(space).items() if "lora_B" in key)
    kinds = {re.sub(r"transformer\.(\w+)\.\d+\.|\.lora_.*", "", key) for key in weights(space)}
    attention = {f"attn.{each}" for each in ("to_q", "to_k", "to_v", "to_out.0", "to_out", "to_qkv_mlp_proj")}
    added = {f"attn.{each}" for each in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")}
    assert kinds == attention | added | {f"{ff}.linear_{way}" for ff in ("ff", "ff_context") for way in ("in", "out")}
    assert card(space)["base"]["family"] == "flux2-klein"
    assert formats.find(space.adapter(HOMER) / f"{HOMER}.safetensors").format == "kohya"


@pytest.mark.slow
def test_in_one_pass_as_one_by_one(whole: tuple[Recipe, Any], tmp_path: Path, tiny_flux2_klein: Path) -> None:
    """Trained by itself an adapter has the same losses, to rounding."""
    recipe, space = trained(tmp_path, tiny_flux2_klein, flip=True, together=False)
    run(recipe, space)
    for name in (HOMER, PICASSO):
        losses = [[line["loss"] for line in metrics(each, name)] for each in (space, whole[1])]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow
def test_killed_training_goes_on(whole: tuple[Recipe, Any], tmp_path: Path, tiny_flux2_klein: Path) -> None:
    """Stopped after three of four steps, the same bits come out as without a stop."""
    recipe, space = trained(tmp_path, tiny_flux2_klein, flip=True)
    stopped(recipe, space, after=3)
    run(recipe, space)
    for name in (HOMER, PICASSO):
        assert same(weights(space, name), weights(whole[1], name))


@pytest.mark.slow
def test_checkpointing_learns_the_same(whole: tuple[Recipe, Any], tmp_path: Path, tiny_flux2_klein: Path) -> None:
    """Activations computed again give the same losses."""
    recipe, space = trained(tmp_path, tiny_flux2_klein, flip=True, gradient_checkpointing=True)
    run(recipe, space)
    losses = [[line["loss"] for line in metrics(each)] for each in (space, whole[1])]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_dora_is_trained_and_written(tmp_path: Path, tiny_flux2_klein: Path) -> None:
    """A DoRA's norms of query, key and value are those of the one layer in kohya's format, and come back."""
    recipe, space = trained(tmp_path, tiny_flux2_klein, dora=True, steps=2)
    run(recipe, space)
    own, shared = (formats.read(space.adapter(HOMER) / name) for name in (WEIGHTS_FILE, f"{HOMER}.safetensors"))
    assert own.layers.keys() == shared.layers.keys()
    assert all(each.magnitude is not None for each in shared.layers.values())


@pytest.mark.slow
def test_what_cannot_be_trained(tmp_path: Path, tiny_flux2_klein: Path) -> None:
    """A distilled one is not trained on; min-SNR has no meaning; ranks of absent kinds train nothing."""
    distilled = make_tiny_flux2_klein(tmp_path / "klein", distilled=True)
    ranks = {"attention": 0, "projection": 0, "convolution": 2}
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (distilled, {}, "base.model: klein is a distilled FLUX.2 klein .*train on its base, such as flux2-klein-4b"),
        (tiny_flux2_klein, {"min_snr_gamma": 5.0}, "train.min_snr_gamma: 5 has no meaning for .*flow matching"),
        (tiny_flux2_klein, {"ranks": ranks}, "train.ranks: all of the base's kinds .attention, projection. are 0"),
    ]
    for number, (model, settings, said) in enumerate(cases):
        recipe, space = trained(tmp_path / str(number), model, **settings)
        with pytest.raises(AvignonError, match=said):
            run(recipe, space)


def curve(folder: Path, tiny: Path) -> list[float]:
    """Losses of eight fp32 steps on both artists, with prior preservation, in one thread."""
    torch.set_num_threads(1)
    settings = {"steps": 8, "batch": 4, "learning_rate": 3e-3, "checkpoint_every": 8, "mode": "joint", "flip": True}
    recipe, space = trained(folder, tiny, **settings, prior_images=2)
    run(recipe, space)
    return [line["loss"] for line in metrics(space, "joint")]


def test_loss_curve_is_the_golden_one(tmp_path: Path, tiny_flux2_klein: Path) -> None:
    """Draws, targets, optimizer and prior together give the losses that were written down, within rounding."""
    assert curve(tmp_path, tiny_flux2_klein) == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-3)


# The whole way --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_scans_to_the_exhibition(tiny_flux2_klein: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short name's repository is fetched, trained on, painted with, measured and shown; and nothing is done again."""
    home = KNOWN["flux2-klein-4b"].homes[0]
    with LocalHub() as hub:
        hub.add(home, tiny_flux2_klein)
        take_for_the_hub(hub, tmp_path / "cache", monkeypatch)
        weighted = {HOMER: {"early": 0.5, "single_transformer_blocks.2": 2.0}}
        generate = {**EULER, "equalize_adapters": True, "block_weights": weighted}
        recipe = small_recipe(tmp_path, "flux2-klein-4b", generate=generate, train={"validation_works": 1})
        space, _ = carried(recipe, tmp_path / "runs", "exhibit")
        assert (space.root / "exhibition/index.html").stat().st_size > 10_000
        assert card(space)["base"]["model"] == home
        assert card(space)["base"]["licence"] == "Apache-2.0"
        assert card(space)["base"]["revision"] == hub.commit(home)
        assert json.loads((space.root / "report.json").read_text(encoding="utf-8"))
        heard: list[Event] = []
        stages.run(recipe, tmp_path / "runs", heard.append, until="exhibit")
        assert {event.kind for event in heard} == {"skipped"}


def test_missing_weights_are_named_before_they_are_fetched(
    tiny_flux2_klein: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a repository lacks is told by its list of files."""
    copy = shutil.copytree(tiny_flux2_klein, tmp_path / "copy")
    (copy / "transformer/diffusion_pytorch_model.safetensors").unlink()
    with LocalHub() as hub:
        hub.add("someone/tiny-klein", copy)
        take_for_the_hub(hub, tmp_path / "cache", monkeypatch)
        with pytest.raises(ModelError, match=r"transformer/diffusion_pytorch_model.safetensors is missing"):
            load("someone/tiny-klein", tmp_path)
        assert not list((tmp_path / "cache").rglob("*.safetensors"))


if __name__ == "__main__":  # Writes the curve anew, for a change that is meant to move it.
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.write_text(json.dumps(curve(Path(scratch), make_tiny_flux2_klein(Path(scratch) / "base"))) + "\n")
