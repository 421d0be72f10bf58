"""Z-Image: its files, its texts, its pictures and its trainings, on a tiny one of random weights."""

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
from diffusers import ZImageImg2ImgPipeline, ZImagePipeline
from safetensors.torch import save_file

from avignon.adapters import export, files, headers, inject
from avignon.adapters.formats import registry as formats
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.core import imaging
from avignon.core.errors import AdapterError, AvignonError, ModelError, RecipeError
from avignon.core.events import Event, Reporter
from avignon.core.files import sha256_of
from avignon.core.records import Frame, Source
from avignon.generation.sampler import ImageSampler
from avignon.models import loading
from avignon.models.base import Conditioning
from avignon.models.runtime import Attention
from avignon.models.z_image import model as z_image
from avignon.models.z_image.model import ZImage
from avignon.recipe.schema import Ranks, Recipe
from tests.support.museum import draw
from tests.support.runs import carried, small_recipe
from tests.support.tiny_z_image import make_tiny_z_image, z_image_transformer
from tests.support.trainings import HOMER, PICASSO, SILENT, card, metrics, run, same, weights

CPU = torch.device("cpu")
GOLDEN = Path(__file__).with_name("golden-loss-z-image.json")
MIXES: tuple[dict[str, float], ...] = ({}, {"one": 1.0}, {"one": 0.7, "two": 0.6})
EULER = {"scheduler": "euler"}
PROMPT = "a boat on the sea"


def load(model: Path | str, folder: Path, said: Callable[[Event], None] = lambda _: None) -> ZImage:
    """The base of a small recipe."""
    recipe = small_recipe(folder, model, generate=EULER)
    base = loading.load(recipe.base, recipe.generate, torch.float32, Reporter("train", said))
    assert isinstance(base, ZImage)
    return base


@pytest.fixture(scope="module")
def base(tiny_z_image: Path, tmp_path_factory: pytest.TempPathFactory) -> ZImage:
    """The tiny one, loaded."""
    return load(tiny_z_image, tmp_path_factory.mktemp("z-image"))


# Files ----------------------------------------------------------------------------------------------------------------


def test_loads_a_directory(tiny_z_image: Path, tmp_path: Path) -> None:
    """A directory is loaded frozen, in evaluation mode, with nothing to warn; every part counts for its identity."""
    heard: list[Event] = []
    base = load(tiny_z_image, tmp_path, heard.append)
    for part in (base.denoiser, base.autoencoder, base.text_encoder):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())
    assert heard == []
    assert (base.card["family"], base.card["architecture"], base.card["prediction_type"]) == (
        "z-image",
        "Z-Image",
        "flow",
    )
    assert set(base.parts) == {"transformer", "vae", "text_encoder", "tokenizer", "scheduler"}


@pytest.mark.parametrize(
    ("name", "change", "part"),
    [
        ("scheduler/scheduler_config.json", {"shift": 5.0}, "scheduler"),
        ("vae/config.json", {"shift_factor": 0.2}, "vae"),
        ("tokenizer/chat_template.jinja", "{{ messages[0].content }}", "tokenizer"),
    ],
)
def test_every_setting_counts(
    base: ZImage, tiny_z_image: Path, tmp_path: Path, name: str, change: Any, part: str
) -> None:
    """What changes pictures changes the hash of its part, and of no other; the chat template as well."""
    copy = shutil.copytree(tiny_z_image, tmp_path / "copy")
    if isinstance(change, str):
        (copy / name).write_text(change, encoding="utf-8")
    else:
        edited(name, **change)(copy)
    other = load(copy, tmp_path / "recipe")
    assert {each for each in base.parts if base.parts[each] != other.parts[each]} == {part}


def test_parameters_at_full_size() -> None:
    """The real transformer has 6,154,908,736 parameters; on attention at rank 4 4,177,920 train, in all its blocks."""
    with torch.device("meta"):
        transformer = z_image_transformer().requires_grad_(False)
    targets = z_image._targets(len(transformer.layers))
    ranks = Ranks(attention=4, projection=0, convolution=0)
    transformer.add_adapter(inject.lora_config(targets, ranks), adapter_name="new")
    share = inject.trainable(transformer, [p for p in transformer.parameters() if p.requires_grad], ranks)
    assert share["unet_parameters"] == 6_154_908_736
    assert share["parameters"] == (30 + 2 + 2) * 4 * 4 * (3840 + 3840)
    parts = [targets.part_of(f"layers.{number}.attention.to_q") for number in range(30)]
    assert [parts.count(part) for part in ("early", "middle", "late")] == [10, 10, 10]
    assert parts == sorted(parts, key=("early", "middle", "late").index)


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change values of a JSON file."""

    def spoil(folder: Path) -> None:
        told = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(told | changes), encoding="utf-8")

    return spoil


def without(name: str) -> Callable[[Path], None]:
    """Remove a folder or a file."""
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


SCHEDULER = "scheduler/scheduler_config.json"

BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no encoder": (without("text_encoder"), "text_encoder/config.json is missing"),
    "no tokenizer": (without("tokenizer"), "tokenizer/vocab.json is missing"),
    "no scheduler": (without("scheduler"), "scheduler_config.json is missing"),
    "no chat template": (without("tokenizer/chat_template.jinja"), "has no chat_template, which prompts"),
    "another encoder": (
        edited("text_encoder/config.json", model_type="gemma"),
        "model_type is 'gemma', and only",
    ),
    "texts of another width": (edited("transformer/config.json", cap_feat_dim=20), "cap_feat_dim is 20, and only 16"),
    "other latents": (edited("vae/config.json", latent_channels=4), "in_channels is 16, and only 4"),
    "no shift of latents": (edited("vae/config.json", shift_factor=None), "shift_factor is None; it is a number"),
    "omni": (edited("transformer/config.json", siglip_feat_dim=8), "siglip_feat_dim is 8, and only null"),
    "betas": (edited(SCHEDULER, _class_name="DDIMScheduler"), "_class_name is 'DDIMScheduler', and only"),
    "karras": (edited(SCHEDULER, use_karras_sigmas=True), "use_karras_sigmas is True, and only"),
    "no number": (edited(SCHEDULER, shift=-1.0), "shift is -1.0; it is a number above 0"),
    "a word for a flag": (edited(SCHEDULER, use_dynamic_shifting="no"), "use_dynamic_shifting is 'no'; allowed are"),
    "a slope between equals": (
        edited(SCHEDULER, base_image_seq_len=64, max_image_seq_len=64),
        "base_image_seq_len and max_image_seq_len are both 64; they differ",
    ),
    "image to image": (edited("model_index.json", _class_name="ZImageOmniPipeline"), "only StableDiffusionPipeline"),
}


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD.keys())
def test_bad_directories_are_named(
    tiny_z_image: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    """What a directory lacks or holds wrongly is one line that names it."""
    copy = shutil.copytree(tiny_z_image, tmp_path / "copy")
    spoil(copy)
    with pytest.raises(ModelError) as refused:
        load(copy, tmp_path / "recipe")
    assert said in str(refused.value)
    assert str(copy) in str(refused.value)
    assert "\n" not in str(refused.value)


ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "another sampler": (
        {"generate": {"scheduler": "ddim"}},
        "generate.scheduler: 'ddim' is none of Z-Image; allowed: euler",
    ),
    "blocks of a UNet": (
        {"generate": {**EULER, "block_weights": {HOMER: {"up_blocks.1": 0.5}}}},
        f"generate.block_weights.{HOMER}: 'up_blocks.1' is not a part of Z-Image; allowed are early, middle, late, and",
    ),
    "steps": ({"generate": {**EULER, "num_inference_steps": 1000}}, "at most 999"),
    "a prediction type": (
        {"generate": EULER, "base": {"prediction_type": "epsilon"}},
        "base.prediction_type: Z-Image is",
    ),
}


@pytest.mark.parametrize(("sections", "said"), ASKED.values(), ids=ASKED.keys())
def test_what_the_family_has_not(tiny_z_image: Path, tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    """Samplers, blocks and settings of other families are one line, before anything is loaded."""
    recipe = small_recipe(tmp_path, tiny_z_image, **sections)
    for check in (
        lambda: loading.check_local(recipe.base, recipe.generate),
        lambda: loading.load(recipe.base, recipe.generate, torch.float32, SILENT),
    ):
        with pytest.raises(RecipeError, match=re.escape(said)):
            check()


def test_parts_of_z_image_on_another_family(tiny_sd: Path, tmp_path: Path) -> None:
    """Thirds of a transformer's layers are refused for a UNet, where they would change nothing."""
    recipe = small_recipe(tmp_path, tiny_sd, generate={"block_weights": {HOMER: {"early": 0.5}}})
    with pytest.raises(RecipeError, match=r"'early' is not a part of Stable Diffusion 1.x and 2.x; allowed are"):
        loading.check_local(recipe.base, recipe.generate)


def test_resolution_is_whole_tokens(tiny_z_image: Path, tmp_path: Path) -> None:
    """A side is a multiple of 16 pixels: of a token's two latent pixels."""
    recipe = small_recipe(tmp_path, tiny_z_image, generate=EULER, base={"resolution": 72})
    with pytest.raises(RecipeError, match=r"base.resolution: 72 is not a multiple of 16"):
        loading.load(recipe.base, recipe.generate, torch.float32, SILENT)


# Texts ----------------------------------------------------------------------------------------------------------------


def test_texts_are_read_as_diffusers_do(base: ZImage, tiny_z_image: Path) -> None:
    """Hidden states of each prompt, of the empty one and of a long one, are those of diffusers' pipeline."""
    theirs = ZImagePipeline.from_pretrained(tiny_z_image)
    texts = [PROMPT, "", "wood and oil " * 200]
    ours = base.encode_prompts(texts, CPU, SILENT).tensors
    expected, _ = theirs.encode_prompt(list(texts), do_classifier_free_guidance=False)
    assert ours["length"].tolist() == [len(one) for one in expected]
    assert int(ours["length"].max()) == 512
    for text, length, one in zip(ours["text"], ours["length"].tolist(), expected, strict=True):
        assert torch.allclose(text[:length], one, atol=1e-5)
        assert not text[length:].any()


def test_texts_of_any_length_are_joined(base: ZImage) -> None:
    """Joined with longer ones and put in another order, each text stays what it was, and so does its picture."""
    one, two = (base.encode_prompts([text], CPU, SILENT) for text in (PROMPT, f"{PROMPT}, " * 12))
    both = Conditioning.cat([one, two])
    assert both.tensors["text"].shape[1] == two.tensors["text"].shape[1] > one.tensors["text"].shape[1]
    noisy = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([300.0, 700.0])
    together = base.predict(noisy, times, both[torch.tensor([1, 0])])
    alone = [base.predict(noisy[:1], times[:1], two), base.predict(noisy[1:], times[1:], one)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_long_prompts_are_named(base: ZImage) -> None:
    """Of a prompt longer than the encoder is given, the warning names the words that are cut, once."""
    heard: list[Event] = []
    base.encode_prompts(["the sea " * 300], CPU, Reporter("generate", heard.append))
    assert [event.kind for event in heard] == ["warning"]
    assert "longer than the base's 512 tokens" in heard[0].text
    assert base.reads_whole("the sea " * 100)
    assert not base.reads_whole("the sea " * 300)


# Noise ----------------------------------------------------------------------------------------------------------------


def test_noise_and_target_are_the_formulas(base: ZImage) -> None:
    """Z = (1 − σ)·x + σ·ε and its velocity ε − x: Esser et al., arXiv:2403.03206, eq. 1 and 13; weights are 1."""
    latents, noise = torch.randn(2, 3, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([0.0, 250.0, 1000.0])
    noisy = base.add_noise(latents, noise, times)
    assert torch.equal(noisy[0], latents[0])
    assert torch.equal(noisy[2], noise[2])
    assert torch.allclose(noisy[1], 0.75 * latents[1] + 0.25 * noise[1])
    assert torch.equal(base.training_target(latents, noise, times), noise - latents)
    assert torch.equal(base.loss_weights(times, 5.0), torch.ones(3))


def test_a_right_prediction_leads_to_the_picture(base: ZImage) -> None:
    """The sampler, told the training's target at every step, ends at the very picture: the two have one sign."""
    latents, noise = torch.randn(2, 1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    sampler = base.sampler("euler", 5, 64, 64)
    x = noise * sampler.init_noise_sigma
    for t in sampler.timesteps:
        assert torch.allclose(x, base.add_noise(latents, noise, t[None]), atol=1e-5)
        x = sampler.step(base.training_target(latents, noise, t[None]), t, x, return_dict=False)[0]
    assert torch.allclose(x, latents, atol=1e-5)


def test_the_transformer_is_asked_as_it_was_trained(base: ZImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """(1000 − t)/1000 goes in, and what comes out is negated, as in diffusers' pipeline and its training script."""
    asked: list[torch.Tensor] = []

    def transformer(pictures: list[torch.Tensor], times: torch.Tensor, texts: Any, **_: Any) -> Any:
        asked.append(times)
        return ([2 * picture for picture in pictures],)

    monkeypatch.setattr(base.denoiser, "forward", transformer)
    noisy = torch.randn(2, 16, 8, 8)
    told = base.encode_prompts([PROMPT, ""], CPU, SILENT)
    assert torch.equal(base.predict(noisy, torch.tensor([250.0, 1000.0]), told), -2 * noisy)
    assert torch.equal(base.predict(noisy, torch.tensor(100.0), told), -2 * noisy)
    assert torch.allclose(asked[0], torch.tensor([0.75, 0.0]))
    assert torch.allclose(asked[1], torch.tensor([0.9, 0.9]))


@pytest.mark.parametrize("dynamic", [False, True])
def test_timesteps_are_logit_normal_and_shifted(tmp_path: Path, dynamic: bool) -> None:
    """Quantiles of σ are sigmoid(z) moved by the shift s: s·σ/(1 + (s − 1)·σ), the file's s or that of the size.

    By size, ln s is linear from 0.5 at 256 tokens to 1.15 at 4096; 64 pixels are 16 tokens.
    """
    base = load(make_tiny_z_image(tmp_path / "base", dynamic=dynamic), tmp_path)
    drawn = base.sample_timesteps(20_000, torch.Generator().manual_seed(0), 64, 64) / 1000
    shift = float(np.exp(0.5 + (1.15 - 0.5) * (16 - 256) / (4096 - 256))) if dynamic else 6.0
    for share, z in ((0.1587, -1.0), (0.5, 0.0), (0.8413, 1.0)):
        sigma = 1 / (1 + np.exp(-z))
        assert float(drawn.quantile(share)) == pytest.approx(shift * sigma / (1 + (shift - 1) * sigma), abs=0.01)


# Pictures -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tiny_z_image: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, dict[str, Path]]:
    """A recipe over the tiny base, and two adapters of random change, saved."""
    folder = tmp_path_factory.mktemp("painting")
    draw(1, 96, 80).save(folder / "boat.png")
    scenes = [{"prompt": PROMPT, "image": str(folder / "boat.png")}]
    recipe = small_recipe(folder, tiny_z_image, generate={**EULER, "batch": 8, "scenes": scenes})
    paths = {}
    for seed, name in enumerate(("one", "two")):
        base = load(tiny_z_image, folder)
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


def theirs(kind: Any, model: str | Path, paths: dict[str, Path], weights: dict[str, float]) -> Any:
    """A pipeline of diffusers' with adapters on."""
    made = kind.from_pretrained(model)
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
@pytest.mark.parametrize(
    ("guidance", "negative", "size"), [(5.0, "", (64, 64)), (3.5, "red", (96, 64)), (1.0, "", (64, 64))]
)
def test_pictures_are_diffusers_own(
    saved: tuple[Recipe, dict[str, Path]],
    weights: dict[str, float],
    guidance: float,
    negative: str,
    size: tuple[int, int],
) -> None:
    """The base, one adapter and two: ZImagePipeline's pictures, within 2/255; alone or among longer prompts.

    Its guidance is ours less 1: it adds its multiple of the difference to the prediction with the text.
    """
    recipe, paths = saved
    how: dict[str, Any] = {"width": size[0], "height": size[1], "generator": torch.Generator().manual_seed(3)}
    pipeline = theirs(ZImagePipeline, recipe.base.model, paths, weights)
    expected = pipeline(PROMPT, negative_prompt=negative, num_inference_steps=4, guidance_scale=guidance - 1, **how)
    wanted = frame(weights, guidance_scale=guidance, negative_prompt=negative, width=size[0], height=size[1])
    others = [replace(wanted, weights=mix, seed=seed, prompt=PROMPT * 9) for seed, mix in enumerate(MIXES)]
    ours = painter(saved)
    for picture in (ours.paint([wanted])[0], ours.paint([others[0], wanted, others[2]])[1]):
        assert off(picture, expected.images[0]) <= 2
    assert np.asarray(expected.images[0]).std() > 20


@pytest.mark.parametrize("dynamic", [False, True])
def test_shift_is_that_of_diffusers_pipeline(tmp_path: Path, dynamic: bool) -> None:
    """Another shift, and one that follows the picture's size, give ZImagePipeline's pictures as well."""
    folder = make_tiny_z_image(tmp_path / "base", shift=2.0, dynamic=dynamic)
    recipe = small_recipe(tmp_path, folder, generate=EULER)
    base = loading.load(recipe.base, recipe.generate, torch.float32, SILENT)
    how: dict[str, Any] = {"width": 128, "height": 64, "generator": torch.Generator().manual_seed(3)}
    expected = theirs(ZImagePipeline, folder, {}, {})(PROMPT, num_inference_steps=4, guidance_scale=4.0, **how)
    picture = ImageSampler(base, recipe, CPU, SILENT).paint([frame({}, width=128)])[0]
    assert off(picture, expected.images[0]) <= 2


@pytest.mark.slow_but_one
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_pictures_from_a_source_are_diffusers_own(saved: tuple[Recipe, dict[str, Path]], strength: float) -> None:
    """From an image, latents noised as far as the steps left can undo: ZImageImg2ImgPipeline's pictures."""
    recipe, paths = saved
    path, mix = Path(recipe.generate.scenes[0].image), MIXES[2]
    pipeline = theirs(ZImageImg2ImgPipeline, recipe.base.model, paths, mix)
    expected = pipeline(
        PROMPT, image=imaging.fit(imaging.load(path), (8, 0, 88, 80), 64), strength=strength, width=64, height=64,
        num_inference_steps=6, sigmas=np.linspace(1.0, 1 / 6, 6).tolist(), guidance_scale=4.0,
        generator=torch.Generator().manual_seed(3),
    ).images[0]  # fmt: skip
    one = frame(mix, num_inference_steps=6, source=Source("boat.png", sha256_of(path), strength))
    assert off(painter(saved).paint([one])[0], expected) <= 2


def test_blocks_are_weighted_by_name(saved: tuple[Recipe, dict[str, Path]]) -> None:
    """A weight of 0 in all thirds but one leaves that one's change alone; a layer has a weight of its own."""
    sampler = painter(saved)
    whole, nothing = sampler.denoise([frame({"one": 1.0})]), sampler.denoise([frame({})])
    parts = {"early": 0.0, "middle": 0.0, "late": 0.0}
    assert torch.allclose(sampler.denoise([frame({"one": 1.0}, block_weights={"one": parts})]), nothing, atol=1e-5)
    made = []
    for block in ("noise_refiner.0", "layers.0", "layers.1", "layers.2", "early"):
        one = sampler.denoise([frame({"one": 1.0}, block_weights={"one": {**parts, block: 1.0}})])
        assert not torch.allclose(one, nothing, atol=1e-3)
        assert not torch.allclose(one, whole, atol=1e-3)
        made.append(one)
    assert torch.equal(sampler.denoise([frame({"one": 1.0}, block_weights={"one": {**parts, "late": 1.0}})]), made[3])
    assert not torch.allclose(made[0] + made[1], made[4], atol=1e-3)


def test_weights_change_over_the_steps(saved: tuple[Recipe, dict[str, Path]]) -> None:
    """An adapter that is on in the first steps only, or in the last, is neither it nor the base; a constant one is."""
    sampler = painter(saved)
    rows = {
        name: {"one": row}
        for name, row in {"on": (1.0,) * 4, "first": (1.0, 1.0, 0, 0), "last": (0, 0, 1.0, 1.0)}.items()
    }
    made = {name: sampler.denoise([frame({"one": 0.5}, weight_schedule=row)]) for name, row in rows.items()}
    assert torch.equal(made["on"], sampler.denoise([frame({"one": 1.0})]))
    others = (made["on"], sampler.denoise([frame({})]), made["last"])
    assert not any(torch.allclose(made["first"], other, atol=1e-3) for other in others)


def test_adapters_on_embedders_paint_alone(tiny_z_image: Path, tmp_path: Path) -> None:
    """Embedders see the tokens of all samples in one row: pictures of other weights take another batch."""
    base = load(tiny_z_image, tmp_path)
    recipe = small_recipe(tmp_path, tiny_z_image, generate={**EULER, "batch": 8})
    sampler = ImageSampler(base, recipe, CPU, SILENT)
    kinds = {"attention": ("cap_embedder.1", "to_q")}
    inject.add(base.denoiser, replace(base.targets, kinds=kinds), "one", Ranks(), alpha=0, seed=1)
    frames = [frame({"one": 1.0}), frame({"one": 0.5}), frame({})]
    assert sorted(sampler.groups(frames)) == [[0], [1], [2]]
    with pytest.raises(ValueError, match=r"different weights of .* what changes embedders: one"):
        sampler.denoise(frames)


def test_times_are_weighted_sample_by_sample(tiny_z_image: Path, tmp_path: Path) -> None:
    """Layers of embedded times have one row for each sample: mixed in one batch, pictures are those made alone."""
    base = load(tiny_z_image, tmp_path)
    sampler = ImageSampler(base, small_recipe(tmp_path, tiny_z_image, generate={**EULER, "batch": 8}), CPU, SILENT)
    kinds = {"attention": ("layers.1.adaLN_modulation.0", "adaLN_modulation.1", "t_embedder.mlp.0", "to_q")}
    inject.add(base.denoiser, replace(base.targets, kinds=kinds), "one", Ranks(), alpha=0, seed=1)
    with torch.no_grad():
        for key, parameter in base.denoiser.named_parameters():
            if "lora_B" in key:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    frames = [frame({"one": 1.0}), frame({"one": 0.5}), frame({})]
    alone = torch.cat([sampler.denoise([one]) for one in frames])
    assert torch.allclose(sampler.denoise(frames), alone, atol=1e-4)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)


@pytest.mark.parametrize("backend", ["sdpa", "plain"])
def test_attention_backends_agree(base: ZImage, backend: Attention) -> None:
    """Both ways to compute attention on a CPU say the same, with texts of different lengths as well."""
    told = base.encode_prompts([PROMPT, PROMPT * 9], CPU, SILENT)
    noisy = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = base.predict(noisy, torch.tensor(500.0), told)
    base.set_attention_backend(backend)
    assert torch.allclose(base.predict(noisy, torch.tensor(500.0), told), expected, atol=1e-5)
    base.set_attention_backend("sdpa")


def test_latents_and_back(base: ZImage) -> None:
    """Latents are (x − shift)·scale, as diffusers' training script has it, and decoding takes both off again."""
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    moments, own = base.encode_images(pixels), base.autoencoder.encode(pixels).latent_dist
    assert torch.allclose(moments.mean, (own.mean - 0.1159) * 0.3611)
    assert torch.allclose(moments.std, own.std * 0.3611)
    assert torch.allclose(base.decode_latents(moments.mean), base.autoencoder.decode(own.mean).sample, atol=1e-5)
    assert base.latent_shape(64, 32) == (16, 4, 8)


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
    assert "(transformer 35)" in file.summary
    assert "for Z-Image" in file.summary
    assert source.header()["modelspec.architecture"] == "Z-Image/lora"
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
    read: Any = ZImagePipeline.lora_state_dict(tmp_path / "two.safetensors")
    layers = source.state.layers
    assert {key.rpartition(".lora_")[0] for key in read} == set(layers)
    for layer, change in layers.items():
        made = read[f"{layer}.lora_B.weight"] @ read[f"{layer}.lora_A.weight"]
        assert torch.allclose(made, change.delta, atol=1e-6)


@pytest.mark.parametrize("prefix", ["diffusion_model.", "base_model.model.", "lora_unet_", "lora_transformer_", ""])
def test_names_of_other_programs(saved: tuple[Recipe, dict[str, Path]], tmp_path: Path, prefix: str) -> None:
    """ComfyUI's, ai-toolkit's, peft's, kohya's, OneTrainer's and DiffSynth's names, the makers' and diffusers'."""
    state = export.opened(saved[1]["two"]).state
    renamed = {layer: layer.removeprefix("transformer.") for layer in state.layers}
    if prefix.startswith("lora_"):
        renamed = {layer: name.replace(".", "_") for layer, name in renamed.items()}
    else:
        renamed = {layer: name.replace("attention.to_out.0", "attention.out") for layer, name in renamed.items()}
    tensors: dict[str, torch.Tensor] = {}
    for layer, change in state.layers.items():
        stem = f"{prefix}{renamed[layer]}"
        tensors |= {f"{stem}.lora_down.weight": change.down, f"{stem}.lora_up.weight": change.up}
        tensors[f"{stem}.alpha"] = torch.tensor(change.alpha)
    save_file(tensors, tmp_path / "a.safetensors")
    back = formats.read(tmp_path / "a.safetensors").layers
    assert back.keys() == state.layers.keys()
    assert all(torch.equal(back[layer].delta, change.delta) for layer, change in state.layers.items())


def test_query_key_and_value_in_one(tmp_path: Path) -> None:
    """The makers' one layer, as diffusers splits it: each third of the outputs, with all of the rank."""
    stem = "lora_unet_layers_0_attention_qkv"
    down, up = torch.randn(4, 8), torch.randn(18, 4)
    alpha = torch.tensor(2.0)
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": alpha}
    save_file(tensors, tmp_path / "a.safetensors")
    read: Any = ZImagePipeline.lora_state_dict(tmp_path / "a.safetensors")
    ours = formats.read(tmp_path / "a.safetensors").layers
    assert list(ours) == [f"transformer.layers.0.attention.to_{part}" for part in "qkv"]
    for layer, change in ours.items():
        assert torch.allclose(change.delta, read[f"{layer}.lora_B.weight"] @ read[f"{layer}.lora_A.weight"], atol=1e-6)
    assert torch.allclose(torch.cat([each.delta for each in ours.values()]), 0.5 * up @ down, atol=1e-6)


def test_adapters_of_other_families(
    saved: tuple[Recipe, dict[str, Path]], tiny_sd: Path, tiny_sdxl: Path, tmp_path: Path
) -> None:
    """An adapter of Z-Image on a Stable Diffusion is one line, by the files alone as well."""
    file = formats.find(saved[1]["one"])
    for number, model in enumerate((tiny_sd, tiny_sdxl)):
        recipe = small_recipe(tmp_path / str(number), model)
        other = loading.load(recipe.base, recipe.generate, torch.float32, SILENT)
        with pytest.raises(AdapterError, match=r"made for another base.*it seems to be for Z-Image"):
            files.load(other, "one", saved[1]["one"])
        with pytest.raises(AdapterError, match="made for another base"):
            headers.check_fit(file.path, file.layers, headers.layers_in(model))
    headers.check_fit(file.path, file.layers, headers.layers_in(Path(saved[0].base.model)))


# Training -------------------------------------------------------------------------------------------------------------


def trained(folder: Path, base: Path, **settings: Any) -> tuple[Recipe, Any]:
    """A recipe with these values in `train`, and its run up to the prepared images."""
    recipe = small_recipe(folder, base, train=settings, generate=EULER)
    return recipe, carried(recipe, folder / "runs")[0]


@pytest.fixture(scope="module")
def whole(tiny_z_image: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Any]:
    """A finished training of two adapters in one pass."""
    recipe, space = trained(tmp_path_factory.mktemp("whole"), tiny_z_image, flip=True)
    run(recipe, space)
    return recipe, space


@pytest.mark.slow
def test_two_adapters_in_one_pass(whole: tuple[Recipe, Any]) -> None:
    """Both learn, each its own, on attention and feed-forward layers; the cards name the family."""
    _, space = whole
    assert not same(weights(space), weights(space, PICASSO))
    assert all(tensor.any() for key, tensor in weights(space).items() if "lora_B" in key)
    kinds = {re.sub(r"transformer\.\w+\.\d+\.|\.lora_.*", "", key) for key in weights(space)}
    attention = {f"attention.to_{each}" for each in ("q", "k", "v", "out.0")}
    assert kinds == attention | {f"feed_forward.w{number}" for number in (1, 2, 3)}
    assert card(space)["base"]["family"] == "z-image"
    assert formats.find(space.adapter(HOMER) / f"{HOMER}.safetensors").format == "kohya"


@pytest.mark.slow
def test_checkpointing_learns_the_same(whole: tuple[Recipe, Any], tmp_path: Path, tiny_z_image: Path) -> None:
    """Activations computed again give the same losses."""
    recipe, space = trained(tmp_path, tiny_z_image, flip=True, gradient_checkpointing=True)
    run(recipe, space)
    losses = [[line["loss"] for line in metrics(each)] for each in (space, whole[1])]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_what_cannot_be_trained(tmp_path: Path, tiny_z_image: Path) -> None:
    """Turbo is painted with and not trained on; min-SNR has no meaning; ranks of absent kinds train nothing."""
    turbo = make_tiny_z_image(tmp_path / "turbo", shift=3.0)
    ranks = {"attention": 0, "projection": 0, "convolution": 2}
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (turbo, {}, "base.model: turbo is the distilled Z-Image-Turbo"),
        (tiny_z_image, {"min_snr_gamma": 5.0}, "train.min_snr_gamma: 5 has no meaning for .*flow matching"),
        (tiny_z_image, {"ranks": ranks}, "train.ranks: all of the base's kinds .attention, projection. are 0"),
    ]
    for number, (model, settings, said) in enumerate(cases):
        recipe, space = trained(tmp_path / str(number), model, **settings)
        with pytest.raises(AvignonError, match=said):
            run(recipe, space)
    recipe = small_recipe(tmp_path / "paint", turbo, generate=EULER)
    base = loading.load(recipe.base, recipe.generate, torch.float32, SILENT)
    how: dict[str, Any] = {"width": 64, "height": 64, "generator": torch.Generator().manual_seed(3)}
    expected = theirs(ZImagePipeline, turbo, {}, {})(PROMPT, num_inference_steps=4, guidance_scale=0.0, **how)
    picture = ImageSampler(base, recipe, CPU, SILENT).paint([frame({}, guidance_scale=1.0)])[0]
    assert off(picture, expected.images[0]) <= 2


TRAINED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a Turbo's folder": ({"shift": 3.0}, {}, "base.model: tiny is the distilled Z-Image-Turbo"),
    "min-SNR": ({}, {"train": {"min_snr_gamma": 5.0}}, "train.min_snr_gamma: 5 has no meaning for tiny, which is"),
    "a Turbo's name": ({}, {"base": {"model": "z-image-turbo"}}, "base.model: z-image-turbo is distilled"),
    "its home": ({}, {"base": {"model": "Tongyi-MAI/Z-Image-Turbo"}}, "its distillation; train on z-image"),
}


@pytest.mark.parametrize(("how", "sections", "said"), TRAINED.values(), ids=TRAINED.keys())
def test_training_is_refused_at_the_start(
    tmp_path: Path, how: dict[str, Any], sections: dict[str, Any], said: str
) -> None:
    """What is known of a base on this machine, or by its name, is told before a work is fetched."""
    tiny = make_tiny_z_image(tmp_path / "tiny", **how)
    recipe = small_recipe(tmp_path, tiny, generate=EULER, **sections)
    with pytest.raises(RecipeError, match=re.escape(said)):
        carried(recipe, tmp_path / "runs", "train")
    assert not (tmp_path / "runs").exists()
    carried(recipe, tmp_path / "runs", "curate")


def curve(folder: Path, tiny: Path) -> list[float]:
    """Losses of eight fp32 steps on both artists, with prior preservation, in one thread."""
    torch.set_num_threads(1)
    settings = {"steps": 8, "batch": 4, "learning_rate": 3e-3, "checkpoint_every": 8, "mode": "joint", "flip": True}
    recipe, space = trained(folder, tiny, **settings, prior_images=2)
    run(recipe, space)
    return [line["loss"] for line in metrics(space, "joint")]


@pytest.mark.slow
def test_loss_curve_is_the_golden_one(tmp_path: Path, tiny_z_image: Path) -> None:
    """Draws, targets, optimizer and prior together give the losses that were written down, within rounding."""
    assert curve(tmp_path, tiny_z_image) == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-3)


if __name__ == "__main__":  # Writes the curve anew, for a change that is meant to move it.
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.write_text(json.dumps(curve(Path(scratch), make_tiny_z_image(Path(scratch) / "base"))) + "\n")
