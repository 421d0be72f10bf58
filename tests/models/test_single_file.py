"""Single files of weights: the same base as the folder, what they do not say, and what is wrong with them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from avignon.adapters import files, inject
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.core.errors import InputError, ModelError, RecipeError
from avignon.core.files import write_json
from avignon.generation.sampler import ImageSampler
from avignon.generation.series import SeriesPlan
from avignon.generation.standalone import WantedBase
from avignon.models import loading
from avignon.models.base import DiffusionBase
from avignon.models.latent_unet import single_file
from avignon.models.latent_unet.model import LatentUNet
from avignon.models.latent_unet.single_file import UNET, Checkpoint
from avignon.models.names import KNOWN
from avignon.recipe.schema import Ranks, Recipe
from tests.support.bases import TARGETS
from tests.support.hub import LocalHub, take_for_the_hub
from tests.support.runs import small_recipe
from tests.support.single_files import as_single_file, small_files
from tests.support.trainings import SILENT

CPU = torch.device("cpu")


@pytest.fixture(params=["tiny_sd", "tiny_sdxl"])
def folder(request: pytest.FixtureRequest) -> Path:
    """A tiny base of each family."""
    found: Path = request.getfixturevalue(request.param)
    return found


def single(base: Path, place: Path, **how: Any) -> tuple[Path, Path]:
    """A base as a single file, and its small files in a folder."""
    return as_single_file(base, place / "artist-mix.safetensors", **how), small_files(base, place / "config")


def recipe_of(place: Path, model: Path | str, **base: Any) -> Recipe:
    """A small recipe over it."""
    return small_recipe(place, model, base=base)


def load(recipe: Recipe, dtype: torch.dtype = torch.float32) -> LatentUNet:
    """Its base."""
    base = loading.load(recipe.base, recipe.generate, dtype, SILENT)
    assert isinstance(base, LatentUNet)
    return base


def latents(base: DiffusionBase, recipe: Recipe) -> torch.Tensor:
    """Of a picture of the base alone."""
    plan = SeriesPlan(recipe, base.identity, {}, "fp32")
    return ImageSampler(base, recipe, CPU, SILENT).denoise([plan.of_prompt("a boat on the sea", 3)])


@pytest.mark.slow
def test_is_the_base_of_the_folder(folder: Path, tmp_path: Path) -> None:
    """The same tensors, and pictures up to rounding; adapters of one fit the other, by the fingerprint."""
    file, config = single(folder, tmp_path)
    one, other = recipe_of(tmp_path / "one", folder), recipe_of(tmp_path / "other", file, config=str(config))
    theirs, ours = load(one), load(other)
    for name in theirs.layout.weights:
        own, read = (getattr(base.pipeline, name).state_dict() for base in (theirs, ours))
        assert own.keys() == read.keys()
        assert all(torch.equal(tensor, read[key]) for key, tensor in own.items())
    assert torch.allclose(latents(theirs, one), latents(ours, other), atol=1e-4)
    assert load(other, torch.bfloat16).fingerprint == ours.fingerprint == theirs.fingerprint
    assert ours.fits(theirs.card)
    assert theirs.fits(ours.card)
    assert (ours.card["model"], ours.card["revision"]) == ("artist-mix.safetensors", "")
    assert ours.parts.keys() == theirs.parts.keys()
    assert ours.earlier_names == frozenset()
    inject.add(theirs.denoiser, TARGETS, "one", Ranks(), 0, seed=1)
    files.save(theirs.denoiser, TARGETS, "one", tmp_path / "one" / WEIGHTS_FILE)
    write_json(tmp_path / "one" / "card.json", {"base": theirs.card})
    files.load(ours, "one", tmp_path / "one")


def test_other_weights_are_another_base(tiny_sd: Path, tmp_path: Path) -> None:
    """A file whose UNet differs in a number has another fingerprint and other parts."""
    file, config = single(tiny_sd, tmp_path)
    before = load(recipe_of(tmp_path / "one", file, config=str(config)))
    assert before.fingerprint
    spoilt(file, lambda tensors: tensors[f"{UNET}out.2.bias"].add_(1))
    after = load(recipe_of(tmp_path / "two", file, config=str(config)))
    assert before.fingerprint != after.fingerprint
    assert not after.fits(before.card)


# Configuration --------------------------------------------------------------------------------------------------------


def test_small_files_come_from_the_short_names_repository(
    tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without base.config they are those of the architecture's short name; no weights are fetched; then offline."""
    file, _ = single(tiny_sd, tmp_path)
    monkeypatch.setitem(single_file._CONFIGS, 16, "sd-1.5")
    recipe = recipe_of(tmp_path, file)
    with LocalHub() as hub:
        take_for_the_hub(hub, tmp_path / "cache", monkeypatch)
        with pytest.raises(ModelError, match=r"base\.config 'stable-diffusion-v1-5/stable-diffusion-v1-5'"):
            load(recipe)
        hub.add(KNOWN["sd-1.5"].homes[1], tiny_sd)
        online = load(recipe)
        assert not any(".safetensors" in path for _, path in hub.requests)
    assert load(recipe).identity == online.identity


def header(path: Path, width: int, metadata: dict[str, str] | None = None, **more: tuple[int, ...]) -> Checkpoint:
    """A file with as much as tells what it is."""
    shapes = {
        f"{UNET}input_blocks.0.0.weight": (8, 4, 3, 3),
        f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, width),
        "first_stage_model.x": (1,),
        "cond_stage_model.x": (1,),
        **more,
    }
    safetensors.torch.save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, path, metadata or {})
    return Checkpoint.read(WantedBase(str(path)))


def test_short_names_by_the_width_of_texts(tmp_path: Path) -> None:
    """768, 1024 and 2048 are known architectures; another width needs base.config."""
    path = tmp_path / "x.safetensors"
    found = [header(path, width).config for width in (768, 1024, 2048)]
    assert found == ["sd-1.5", "sd-2.1-base", "sdxl"]
    assert header(path, 1024, {"modelspec.prediction_type": "v"}).config == "sd-2.1", "it came at 768 pixels"
    with pytest.raises(RecipeError, match=r"base\.config: x\.safetensors reads texts 16 wide"):
        _ = header(path, 16).config


V: dict[str, tuple[dict[str, str], dict[str, tuple[int, ...]], str]] = {
    "modelspec v": ({"modelspec.prediction_type": "v"}, {}, "v_prediction"),
    "modelspec epsilon": ({"modelspec.prediction_type": "epsilon"}, {}, "epsilon"),
    "768 v": ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, {}, "v_prediction"),
    "512": ({"modelspec.architecture": "stable-diffusion-v2-512"}, {}, "epsilon"),
    "ComfyUI's mark": ({}, {"v_pred": (0,)}, "v_prediction"),
}


@pytest.mark.parametrize(("metadata", "more", "expected"), V.values(), ids=V.keys())
def test_what_a_file_proves(
    tmp_path: Path, metadata: dict[str, str], more: dict[str, tuple[int, ...]], expected: str
) -> None:
    """What the file says of itself counts; a recipe that says otherwise is an error."""
    found = header(tmp_path / "x.safetensors", 1024, metadata, **more)
    assert found.noise("") == {"prediction_type": expected}
    other = "epsilon" if expected == "v_prediction" else "v_prediction"
    with pytest.raises(RecipeError, match=f"base.prediction_type: '{other}', but x.safetensors says of itself"):
        found.noise(other)


def test_stable_diffusion_2_is_never_guessed(tmp_path: Path) -> None:
    """Without a word in the file or the recipe, a Stable Diffusion 2.x is one line; others are as configured."""
    path = tmp_path / "x.safetensors"
    with pytest.raises(RecipeError, match=r"base\.prediction_type: x\.safetensors is a Stable Diffusion 2\.x and does"):
        header(path, 1024).noise("")
    assert header(path, 1024).noise("v_prediction") == {"prediction_type": "v_prediction"}
    assert header(path, 768).noise("") == {}
    assert header(path, 2048, ztsnr=(0,), v_pred=(0,)).noise("") == {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
    }


def test_stated_prediction_is_trained(tiny_sd: Path, tmp_path: Path) -> None:
    """base.prediction_type stands above the scheduler file, of a folder as well; the identity is another."""
    file, config = single(tiny_sd, tmp_path)
    plain = load(recipe_of(tmp_path / "one", tiny_sd))
    for number, model in enumerate((file, tiny_sd)):
        more = {"config": str(config)} if model == file else {}
        base = load(recipe_of(tmp_path / f"v{number}", model, prediction_type="v_prediction", **more))
        clean, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        assert not torch.equal(base.training_target(clean, noise, torch.tensor([400])), noise)
        assert base.sampler("ddim", 2, 64, 64).config.prediction_type == "v_prediction"
        assert base.parts["scheduler"] != plain.parts["scheduler"]


# Faults ---------------------------------------------------------------------------------------------------------------


def spoilt(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors of a file."""
    tensors = safetensors.torch.load(file.read_bytes())
    change(tensors)
    safetensors.torch.save_file(tensors, file)


def without(beginning: str) -> Callable[[Path, Path], None]:
    """Lose tensors."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if key.startswith(beginning)]:
            del tensors[key]

    return lambda file, _: spoilt(file, change)


def _nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{UNET}out.2.bias"][0] = float("nan")


def configured(**changes: Any) -> Callable[[Path, Path], None]:
    """Change the UNet's configuration."""

    def spoil(_: Path, config: Path) -> None:
        path = config / "unet/config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return spoil


BAD: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "damaged": (lambda file, _: file.write_bytes(file.read_bytes()[:100]), "damaged"),
    "gone": (lambda file, _: file.unlink(), "no such file"),
    "no text encoder": (without("cond_stage_model."), "text encoders is missing"),
    "no VAE": (without("first_stage_model."), "a VAE is missing"),
    "an adapter": (without("model."), "a UNet is missing"),
    "a lost tensor": (without(f"{UNET}out.2.bias"), "incomplete: tensors that"),
    "a lost tensor of texts": (without("cond_stage_model.transformer.text_model.final"), "of text_encoder are missing"),
    "NaN": (lambda file, _: spoilt(file, _nan), "NaN or infinity in the tensor"),
    "no tokenizer": (lambda _, config: shutil.rmtree(config / "tokenizer"), "tokenizer/vocab.json is missing"),
    "no configuration": (lambda _, config: shutil.rmtree(config), "no such directory"),
    "other channels": (configured(block_out_channels=[8, 16, 32]), "not of the shape that"),
}


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD.keys())
def test_bad_files_are_named(tiny_sd: Path, tmp_path: Path, spoil: Callable[[Path, Path], Any], said: str) -> None:
    """Whatever is wrong is one line that names it."""
    file, config = single(tiny_sd, tmp_path)
    recipe = recipe_of(tmp_path, file, config=str(config))
    spoil(file, config)

    def use() -> None:
        loading.check_local(recipe.base, recipe.generate)
        load(recipe)

    with pytest.raises(InputError) as refused:
        use()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_configuration_of_another_family(tiny_sd: Path, tiny_sdxl: Path, tmp_path: Path) -> None:
    """A Stable Diffusion's file with SDXL's small files is refused, before weights are read."""
    file, _ = single(tiny_sd, tmp_path)
    recipe = recipe_of(tmp_path, file, config=str(tiny_sdxl))
    with pytest.raises(ModelError, match=r"its cross_attention_dim is 16, and .*config\.json has 40: set base"):
        loading.check_local(recipe.base, recipe.generate)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ({"model": "someone/else", "config": "sdxl"}, "config belongs to a single file of weights, and model is none"),
        ({"model": "./mix.safetensors", "variant": "fp16"}, "variant chooses among a repository's files"),
    ],
)
def test_settings_without_effect_are_refused(tmp_path: Path, base: dict[str, str], said: str) -> None:
    """What would be ignored is an error instead."""
    model = base.pop("model")
    with pytest.raises(InputError, match=said):
        recipe_of(tmp_path, model, **base)


def test_pickles_are_never_opened(tiny_sd: Path, tmp_path: Path) -> None:
    """A .ckpt is one line, without a look into it."""
    path = tmp_path / "old.ckpt"
    path.write_bytes(b"not looked at")
    recipe = recipe_of(tmp_path, path, config=str(tiny_sd))
    with pytest.raises(ModelError, match=r"old\.ckpt: may run code when it is loaded; convert it to safetensors"):
        load(recipe)
