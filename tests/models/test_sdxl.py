"""Stable Diffusion XL: its files, its conditioning, its pictures and its trainings, on a tiny one of random weights."""

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline

from avignon.adapters import files, inject
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.core.errors import AdapterError, ModelError
from avignon.core.events import Event, Reporter
from avignon.core.records import Frame
from avignon.generation.sampler import ImageSampler
from avignon.models import loading
from avignon.models.base import DiffusionBase, Framing
from avignon.models.latent_unet.model import LatentUNet
from avignon.models.sdxl.model import StableDiffusionXL
from avignon.recipe.schema import Ranks, Recipe
from avignon.training import dataset
from tests.support.bases import TARGETS
from tests.support.runs import small_recipe
from tests.support.tiny_sdxl import make_tiny_sdxl, sdxl_unet
from tests.support.trainings import (
    HOMER,
    PICASSO,
    SILENT,
    card,
    metrics,
    prepared,
    prepared_in_buckets,
    run,
    same,
    weights,
)

CPU = torch.device("cpu")
GOLDEN = Path(__file__).with_name("golden-loss-sdxl.json")
MIXES: tuple[dict[str, float], ...] = ({}, {"one": 1.0}, {"one": 0.7, "two": 0.6})


def load(model: Path | str, folder: Path, said: Callable[[Event], None] = lambda _: None) -> LatentUNet:
    """The base of a small recipe."""
    recipe = small_recipe(folder, model)
    base = loading.load(recipe.base, recipe.generate, torch.float32, Reporter("train", said))
    assert isinstance(base, LatentUNet)
    return base


@pytest.fixture(scope="module")
def base(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> LatentUNet:
    """The tiny one, loaded."""
    return load(tiny_sdxl, tmp_path_factory.mktemp("sdxl"))


# Files ----------------------------------------------------------------------------------------------------------------


def test_loads_a_directory(tiny_sdxl: Path, tmp_path: Path) -> None:
    """A directory is loaded frozen, in evaluation mode, with nothing to warn; every part counts for its identity."""
    heard: list[Event] = []
    base = load(tiny_sdxl, tmp_path, heard.append)
    assert isinstance(base, StableDiffusionXL)
    for name in base.layout.weights:
        part = getattr(base.pipeline, name)
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())
    assert heard == []
    assert base.card["family"] == "sdxl"
    tokenizers = {"tokenizer", "tokenizer_2"}
    assert set(base.parts) == {*base.layout.weights, *tokenizers, "scheduler", "model_index.json"}
    assert base.pipeline.watermark is None


@pytest.mark.slow
def test_parameters_at_full_size() -> None:
    """The real UNet has 2,567,463,684 parameters; on attention at rank 4, as in diffusers' script, 5,806,080 train.

    At the recipes' ranks, on projections and convolutions as well, it is 24,574,720, 0.957 %.
    """
    for ranks, expected in ((Ranks(attention=4, projection=0, convolution=0), 5_806_080), (Ranks(), 24_574_720)):
        with torch.device("meta"):
            unet = sdxl_unet().requires_grad_(False)
        unet.add_adapter(inject.lora_config(TARGETS, ranks), adapter_name="new")
        share = inject.trainable(unet, [p for p in unet.parameters() if p.requires_grad], ranks)
        assert share["unet_parameters"] == 2_567_463_684
        assert share["parameters"] == expected


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change values of a JSON file."""

    def spoil(folder: Path) -> None:
        told = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(told | changes), encoding="utf-8")

    return spoil


def without(name: str) -> Callable[[Path], None]:
    """Remove a folder."""
    return lambda folder: shutil.rmtree(folder / name)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no second encoder": (without("text_encoder_2"), "text_encoder_2/config.json is missing"),
    "no second tokenizer": (without("tokenizer_2"), "tokenizer_2/vocab.json is missing"),
    "not told of sizes": (
        edited("unet/config.json", addition_embed_type=None),
        "addition_embed_type is None, and",
    ),
    "texts of one encoder": (edited("unet/config.json", cross_attention_dim=16), "only 40 (hidden_size of"),
    "four sizes": (
        edited("unet/config.json", projection_class_embeddings_input_dim=52),
        "only 68 (the pooled",
    ),
    "inpainting": (edited("unet/config.json", in_channels=9), "in_channels is 9"),
    "refiner": (
        edited("model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline"),
        "only Stable",
    ),
    "flow": (edited("scheduler/scheduler_config.json", prediction_type="flow"), "prediction_type is 'flow'"),
}


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD.keys())
def test_bad_directories_are_named(tiny_sdxl: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    """What a directory lacks or holds wrongly is one line that names it."""
    copy = shutil.copytree(tiny_sdxl, tmp_path / "copy")
    spoil(copy)
    with pytest.raises(ModelError) as refused:
        load(copy, tmp_path / "recipe")
    assert said in str(refused.value)
    assert str(copy) in str(refused.value)
    assert "\n" not in str(refused.value)


# Conditioning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [True, False])
def test_texts_are_read_as_diffusers_do(tmp_path: Path, zeros: bool) -> None:
    """Prompts, and the prompt that is not there: hidden states and pooled vectors are those of diffusers' pipeline."""
    base = load(make_tiny_sdxl(tmp_path / "base", zeros=zeros), tmp_path)
    texts = ["a boat on the sea", "", "wood and oil " * 40]
    ours = base.encode_prompts(texts, CPU, SILENT).tensors
    for place, text in enumerate(texts):
        told = {"prompt": "red", "device": CPU, "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
        _, read, _, pooled = base.pipeline.encode_prompt(**told, negative_prompt=text or None)
        assert torch.allclose(ours["text"][place], read[0], atol=1e-5)
        assert torch.allclose(ours["pooled"][place], pooled[0], atol=1e-5)
    assert bool(ours["text"][1].any()) is not zeros
    assert ours["text"].shape == (3, 77, 40)


def test_long_prompts_are_named(base: LatentUNet) -> None:
    """Of a prompt longer than the tokenizers take, the warning names the words that are cut, once."""
    heard: list[Event] = []
    base.encode_prompts(["the sea " * 40], CPU, Reporter("generate", heard.append))
    assert [event.kind for event in heard] == ["warning"]
    assert "longer than the base's 77 tokens" in heard[0].text


def test_sizes_are_told_in_diffusers_order(base: LatentUNet) -> None:
    """Original, corner and target, heights first, as diffusers' pipeline puts them together."""
    told = base.size_conditioning([Framing((640, 480), (30, 20), (64, 32))], CPU).tensors["time_ids"]
    theirs = base.pipeline._get_add_time_ids((480, 640), (20, 30), (32, 64), torch.float32, 20)
    assert torch.equal(told, theirs)


def test_crops_are_told_as_they_were_cut() -> None:
    """The corner is in pixels of the original as resized: of 400×300 cut at 80, then resized to 64×64; mirrored too."""
    plain, mirrored = (Framing.cut((400, 300), (80, 0, 380, 300), (64, 64), mirrored=m) for m in (False, True))
    assert (plain.original, plain.corner, plain.target) == ((400, 300), (round(80 * 64 / 300), 0), (64, 64))
    assert mirrored == replace(plain, corner=(round(20 * 64 / 300), 0))
    wide = Framing.cut((400, 300), (0, 60, 400, 240), (128, 64), mirrored=True)
    assert wide == Framing((400, 300), (0, round(60 * 64 / 180)), (128, 64)), "of a bucket"
    assert Framing.whole(64, 64) == Framing((64, 64), (0, 0), (64, 64))


def test_every_view_trains_with_its_own_sizes(tmp_path: Path, tiny_sdxl: Path) -> None:
    """Drawn images come with the true size and corner of their crop, mirrored views with theirs, dropped captions too.

    The scans of the tests are 96 × 80 pixels, in the middle of which lies the square.
    """
    recipe, space = prepared(tmp_path, tiny_sdxl, flip=True, caption_dropout=0.5)
    rows = space.read_metadata(HOMER)
    assert {tuple(row["size"]) for row in rows} == {(96, 80)}
    rows[0]["box"] = [0, 0, 80, 80]
    del rows[1]["size"]
    examples = [(space.metadata(HOMER).with_name(row["file_name"]), row) for row in rows]
    base = load(tiny_sdxl, tmp_path)
    data = dataset.encode(base, examples, recipe.train, CPU, SILENT)
    assert data.sizes.tensors["time_ids"].tolist() == [
        [80, 96, 0, 0, 64, 64], [80, 96, 0, round(16 * 64 / 80), 64, 64],
        [64, 64, 0, 0, 64, 64], [64, 64, 0, 0, 64, 64],
        [80, 96, 0, round(8 * 64 / 80), 64, 64], [80, 96, 0, round(8 * 64 / 80), 64, 64],
    ]  # fmt: skip
    seen = set()
    for step in range(20):
        batch = dataset.sample_batch(data, recipe.train, base.sample_timesteps, 1, step)
        for index, caption, told in zip(
            batch.index.tolist(), batch.caption.tolist(), batch.conditioning.tensors["time_ids"].tolist(), strict=True
        ):
            assert told in data.sizes.tensors["time_ids"][2 * index : 2 * index + 2].tolist()
            seen.add((index, tuple(told), caption < 0))
    assert len(seen) == 8, "two views of the first image, one of the others, with and without a caption"


def test_a_bucket_is_told_with_its_own_size(tmp_path: Path, tiny_sdxl: Path) -> None:
    """The target is the bucket's, the corner is where the work was cut, in its scale."""
    recipe, space = prepared_in_buckets(tmp_path, tiny_sdxl)
    rows = space.read_metadata(HOMER)
    examples = [(space.metadata(HOMER).with_name(row["file_name"]), row) for row in rows]
    data = dataset.encode(load(tiny_sdxl, tmp_path), examples, recipe.train, CPU, SILENT)
    told = data.sizes.tensors["time_ids"].tolist()
    assert [row["box"] for row in rows] == [[0, 3, 280, 73], [5, 0, 135, 130], [11, 0, 139, 128], [1, 0, 69, 270]]
    assert told == [
        [76, 280, round(3 * 64 / 70), 0, 64, 256], [130, 140, 0, round(5 * 128 / 130), 128, 128],
        [128, 150, 0, 11, 128, 128], [270, 70, 0, round(1 * 64 / 68), 256, 64],
    ]  # fmt: skip
    assert [tuple(one.shape[2:]) for one in data.mean] == [(h // 8, w // 8) for w, h in data.shapes]


# Pictures -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, dict[str, Path]]:
    """A recipe over the tiny base, and two adapters of random change, saved."""
    folder = tmp_path_factory.mktemp("painting")
    recipe = small_recipe(folder, tiny_sdxl, generate={"batch": 8})
    paths = {}
    for seed, name in enumerate(("one", "two")):
        unet = load(tiny_sdxl, folder).denoiser
        inject.add(unet, TARGETS, name, Ranks(attention=4, projection=3, convolution=2), alpha=4.0 * seed, seed=seed)
        torch.manual_seed(seed)
        with torch.no_grad():
            for key, parameter in unet.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(0, 0.1)
        files.save(unet, TARGETS, name, folder / name / WEIGHTS_FILE)
        paths[name] = folder / name
    return recipe, paths


def painter(saved: tuple[Recipe, dict[str, Path]]) -> ImageSampler:
    """A sampler with both adapters on."""
    recipe, paths = saved
    base = loading.load(recipe.base, recipe.generate, torch.float32, SILENT)
    for name, folder in paths.items():
        files.load(base, name, folder)
    return ImageSampler(base, recipe, CPU, SILENT)


def frame(weights: dict[str, float], **changes: Any) -> Frame:
    """A small frame."""
    plain = Frame("scene-1", "stop-1", "a boat on the sea", "", 3, 3, 5.0, "euler", 64, 64, weights, "", {}, "fp32")
    return replace(plain, **changes)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("weights", MIXES)
@pytest.mark.parametrize(("sampler", "negative"), [("euler", ""), ("ddim", "red"), ("ddim", "")])
def test_pictures_are_diffusers_own(
    saved: tuple[Recipe, dict[str, Path]], weights: dict[str, float], sampler: str, negative: str
) -> None:
    """The base, one adapter and two: StableDiffusionXLPipeline's pictures, within 2/255; alone or in a mixed batch."""
    recipe, paths = saved
    theirs = StableDiffusionXLPipeline.from_pretrained(recipe.base.model, add_watermarker=False)
    theirs.set_progress_bar_config(disable=True)
    kinds: dict[str, Any] = {"euler": EulerDiscreteScheduler, "ddim": DDIMScheduler}
    # Without `clip_sample`, DDIM clips latents as if they were pixels; SDXL's own file does not say.
    told = {**theirs.scheduler.config, "clip_sample": False, "set_alpha_to_one": False}
    theirs.scheduler = kinds[sampler].from_config(told)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
        for name in weights:
            theirs.load_lora_weights(paths[name], adapter_name=name)
    if weights:
        theirs.set_adapters(list(weights), list(weights.values()))
    expected = theirs(
        "a boat on the sea", negative_prompt=negative or None, num_inference_steps=3, guidance_scale=5.0,
        width=64, height=64, generator=torch.Generator().manual_seed(3),
    ).images[0]  # fmt: skip
    wanted = frame(weights, scheduler=sampler, negative_prompt=negative)
    others = [replace(wanted, weights=mix, seed=seed) for seed, mix in enumerate(MIXES)]
    ours = painter(saved)
    for picture in (ours.paint([wanted])[0], ours.paint([others[0], wanted, others[2]])[1]):
        assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).max() <= 2


@pytest.mark.slow
def test_blocks_are_weighted_by_name(saved: tuple[Recipe, dict[str, Path]]) -> None:
    """A weight of 0 in all blocks but one leaves that one's change alone; a style's block of SDXL has its own name."""
    sampler = painter(saved)
    whole = sampler.denoise([frame({"one": 1.0})])
    nothing = sampler.denoise([frame({})])
    parts = {"down": 0.0, "mid": 0.0, "up": 0.0}
    assert torch.allclose(sampler.denoise([frame({"one": 1.0}, block_weights={"one": parts})]), nothing, atol=1e-5)
    one = sampler.denoise([frame({"one": 1.0}, block_weights={"one": {**parts, "up_blocks.0.attentions.1": 1.0}})])
    assert not torch.allclose(one, nothing, atol=1e-3)
    assert not torch.allclose(one, whole, atol=1e-3)


def test_adapter_of_another_family(saved: tuple[Recipe, dict[str, Path]], tiny_sd: Path, tmp_path: Path) -> None:
    """An adapter of SDXL on a Stable Diffusion is one line, not a mixture of what happens to fit."""
    with pytest.raises(AdapterError, match="made for another base"):
        files.load(load(tiny_sd, tmp_path), "one", saved[1]["one"])


# Training -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Any]:
    """A finished training of two adapters in one pass."""
    recipe, space = prepared(tmp_path_factory.mktemp("whole"), tiny_sdxl, flip=True)
    run(recipe, space)
    return recipe, space


@pytest.mark.slow
def test_two_adapters_in_one_pass(whole: tuple[Recipe, Any]) -> None:
    """Both learn, each its own; the cards name the family, and the model card is found under it."""
    _, space = whole
    assert not same(weights(space), weights(space, PICASSO))
    assert all(tensor.any() for key, tensor in weights(space).items() if "lora_B" in key)
    assert card(space)["base"]["family"] == "sdxl"
    assert "sizes of the images" in card(space)["metrics"]["job"]
    page = (space.adapter(HOMER) / "README.md").read_text(encoding="utf-8")
    assert "tags: [lora, stable-diffusion-xl, text-to-image, template:sd-lora, avignon]" in page


@pytest.mark.slow
def test_sizes_are_part_of_what_is_learned(whole: tuple[Recipe, Any], tmp_path: Path, tiny_sdxl: Path) -> None:
    """The same images of another true size train another adapter."""
    recipe, space = prepared(tmp_path, tiny_sdxl, flip=True)
    path = space.metadata(HOMER)
    path.write_text(path.read_text(encoding="utf-8").replace('"size": [96, 80]', '"size": [192, 80]'), encoding="utf-8")
    run(recipe, space)
    job, other = (card(one)["metrics"]["job"] for one in (space, whole[1]))
    assert {name for name in job if job[name] != other[name]} == {"sizes of the images"}
    assert not same(weights(space), weights(whole[1]))
    assert same(weights(space, PICASSO), weights(whole[1], PICASSO))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_targets_are_the_formulas(tmp_path: Path, prediction: str) -> None:
    """ε: Ho et al., arXiv:2006.11239, eq. 14; v = √ᾱ·ε − √(1−ᾱ)·x: Salimans & Ho, arXiv:2202.00512, section 4."""
    base: DiffusionBase = load(make_tiny_sdxl(tmp_path / "base", prediction_type=prediction), tmp_path)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([0, 400, 999])
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)[times].float().view(-1, 1, 1, 1)
    noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    assert torch.allclose(base.add_noise(latents, noise, times), noisy, atol=1e-4)
    velocity = kept.sqrt() * noise - (1 - kept).sqrt() * latents
    expected = noise if prediction == "epsilon" else velocity
    assert torch.allclose(base.training_target(latents, noise, times), expected, atol=1e-4)


def curve(folder: Path, tiny: Path) -> list[float]:
    """Losses of eight fp32 steps on both artists, with prior preservation, in one thread."""
    torch.set_num_threads(1)
    settings = {"steps": 8, "batch": 4, "learning_rate": 3e-3, "checkpoint_every": 8, "mode": "joint", "flip": True}
    recipe, space = prepared(folder, tiny, **settings, prior_images=2)
    run(recipe, space)
    return [line["loss"] for line in metrics(space, "joint")]


def test_loss_curve_is_the_golden_one(tmp_path: Path, tiny_sdxl: Path) -> None:
    """Draws, sizes, targets, optimizer and prior together give the losses that were written down, within rounding."""
    assert curve(tmp_path, tiny_sdxl) == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-3)


if __name__ == "__main__":  # Writes the curve anew, for a change that is meant to move it.
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.write_text(json.dumps(curve(Path(scratch), make_tiny_sdxl(Path(scratch) / "base"))) + "\n")
