"""Another VAE in place of a base's own: from a folder, a file and a hub, for every family, and what does not fit."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from avignon import pipeline
from avignon.core.errors import InputError, ModelError
from avignon.core.events import Event, Reporter
from avignon.generation import standalone
from avignon.models import loading
from avignon.models.base import DiffusionBase
from avignon.recipe.schema import Recipe
from tests.support.families import TINY, TinyFamily
from tests.support.hub import LocalHub, take_for_the_hub
from tests.support.runs import carried, small_recipe
from tests.support.single_files import as_single_file, small_files
from tests.support.trainings import HOMER, SILENT, card

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def other(tiny: Path, tmp_path: Path) -> Path:
    """The folder of a VAE of the same kind and other numbers."""
    folder = shutil.copytree(tiny / "vae", tmp_path / "other-vae")
    spoilt(folder, lambda tensors: tensors["decoder.conv_out.bias"].add_(0.5))
    return folder


def spoilt(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any], name: str = WEIGHTS) -> None:
    """Change the tensors of a file."""
    tensors = safetensors.torch.load((folder / name).read_bytes())
    change(tensors)
    safetensors.torch.save_file(tensors, folder / name)


def recipe_of(folder: Path, family: TinyFamily, model: Path | str, **base: Any) -> Recipe:
    """A small recipe over a base."""
    return small_recipe(folder, model, base=base, generate=dict(family.generate))


def load(recipe: Recipe, said: Callable[[Event], None] = lambda _: None) -> DiffusionBase:
    """Its base."""
    return loading.load(recipe.base, recipe.generate, torch.float32, Reporter("train", said))


def decoded(base: DiffusionBase) -> torch.Tensor:
    """A picture of the same latents."""
    shape = base.latent_shape(64, 64)
    return base.decode_latents(torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)))


@pytest.mark.slow_but_one
def test_from_a_folder(family: TinyFamily, tiny: Path, other: Path, tmp_path: Path) -> None:
    """At its root or in `vae/`: it decodes, counts for the identity alone, and is on the card; adapters still fit."""
    own = load(recipe_of(tmp_path, family, tiny))
    inner = tmp_path / "inner"
    shutil.copytree(other, inner / "vae")
    made = [load(recipe_of(tmp_path, family, tiny, vae=str(place))) for place in (other, inner)]
    assert not torch.allclose(decoded(made[0]), decoded(own), atol=1e-3)
    assert torch.equal(decoded(made[0]), decoded(made[1]))
    assert made[0].parts == made[1].parts
    assert {name for name in own.parts if own.parts[name] != made[0].parts[name]} == {"vae"}
    assert made[0].fits(own.card)
    assert made[0].card["vae"] == {"model": "other-vae", "revision": ""}
    assert "vae" not in own.card
    assert load(recipe_of(tmp_path, family, tiny, vae=str(tiny))).parts == own.parts


@pytest.mark.slow_but_one
@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_from_a_single_file(tmp_path: Path, family: TinyFamily, tiny: Path, other: Path, prefix: str) -> None:
    """By diffusers' names, or by Stability AI's: the same network as from the folder."""
    file = tmp_path / "mine.safetensors"
    if not (family.has_single_file if prefix else family.has_single_vae):
        pytest.skip("not written by these names here")
    if prefix:
        copy = shutil.copytree(tiny, tmp_path / "copy")
        shutil.copytree(other, copy / "vae", dirs_exist_ok=True)
        whole = safetensors.torch.load_file(as_single_file(copy, tmp_path / "whole.safetensors"))
        safetensors.torch.save_file({key: t for key, t in whole.items() if key.startswith(prefix)}, file)
    else:
        shutil.copyfile(other / WEIGHTS, file)
    ours = load(recipe_of(tmp_path, family, tiny, vae=str(file)))
    theirs = load(recipe_of(tmp_path, family, tiny, vae=str(other)))
    assert torch.allclose(decoded(ours), decoded(theirs), atol=1e-5)
    assert ours.card["vae"]["model"] == "mine.safetensors"


@pytest.mark.slow_but_one
@pytest.mark.parametrize("missing", [True, False])
def test_for_a_single_file_without_a_good_one(
    family: TinyFamily, tiny: Path, other: Path, tmp_path: Path, missing: bool
) -> None:
    """A checkpoint without a VAE, or with one of NaN, is a whole base with another."""
    if not family.has_single_file:
        pytest.skip("never a single file")
    as_single_file(tiny, tmp_path / "mix.safetensors")

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if key.startswith("first_stage_model.")]:
            tensors[key].mul_(float("nan"))
            if missing:
                del tensors[key]

    spoilt(tmp_path, spoil, "mix.safetensors")
    config = str(small_files(tiny, tmp_path / "config"))
    lacking = recipe_of(tmp_path, family, tmp_path / "mix.safetensors", config=config)
    with pytest.raises(ModelError, match="a VAE is missing .*; set base.vae to one" if missing else "NaN or infinity"):
        load(lacking)
    recipe = recipe_of(tmp_path, family, tmp_path / "mix.safetensors", config=config, vae=str(other))
    loading.check_local(recipe.base, recipe.generate)
    assert torch.equal(decoded(load(recipe)), decoded(load(recipe_of(tmp_path, family, tiny, vae=str(other)))))


@pytest.fixture
def hub(family: TinyFamily, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with the tiny base, which huggingface_hub takes for the real one, and an empty cache."""
    with LocalHub() as hub:
        hub.add(family.repository, tiny)
        take_for_the_hub(hub, tmp_path / "cache", monkeypatch)
        yield hub


@pytest.mark.slow_but_one
def test_from_a_hub(family: TinyFamily, tiny: Path, other: Path, tmp_path: Path, hub: LocalHub) -> None:
    """By name, revision and mirror; one variant of its weights is fetched, nothing beside them; then offline."""
    (other / "README.md").write_text("mine", encoding="utf-8")
    shutil.copyfile(other / WEIGHTS, other / "sd.vae.safetensors")
    shutil.copyfile(other / WEIGHTS, other / "diffusion_pytorch_model.fp16.safetensors")
    sha = hub.add("someone/vae", other, revision="next")
    hub.add("someone/vae", tiny / "vae")
    asked: dict[str, Any] = {"vae": "gone/vae", "vae_mirrors": ["someone/vae"], "vae_revision": "next"}
    recipe = recipe_of(tmp_path, family, family.repository, **asked)
    base = load(recipe)
    assert base.card["vae"] == {"model": "someone/vae", "revision": sha}
    fetched = {path.rpartition("/")[2] for _, path in hub.requests if f"/resolve/{sha}/" in path}
    assert fetched == {"config.json", WEIGHTS}
    assert base.parts == load(recipe_of(tmp_path, family, tiny, vae=str(other))).parts
    hub.offline = True
    assert load(recipe).parts == base.parts
    with pytest.raises(ModelError, match=r"base\.vae 'no/such' .* local directory in base\.vae"):
        load(recipe_of(tmp_path, family, family.repository, vae="no/such"))


def configured(**changes: Any) -> Callable[[Path], object]:
    """Change its configuration."""

    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return spoil


def as_pickle(folder: Path) -> None:
    """Keep a pickle file alone."""
    torch.save({}, folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such directory"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "no VAE in diffusers' format"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
    "a pickle": (as_pickle, "holds only pickle files"),
    "other channels": (configured(latent_channels=12), "latent_channels is 12, and in "),
    "another scale": (configured(scaling_factor=0.5), "scaling_factor is 0.5, and in "),
    "another shift": (configured(shift_factor=0.5), "shift_factor is 0.5, and in "),
    "other levels": (configured(block_out_channels=[8, 8, 8]), "block_out_channels is 3, and in "),
    "another class": (configured(_class_name="AutoencoderTiny"), "_class_name is 'AutoencoderTiny', and in "),
}


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD.keys())
def test_what_does_not_fit(
    family: TinyFamily, tiny: Path, other: Path, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    """One line, before a work is fetched and before the base's weights are loaded."""
    spoil(other)
    recipe = recipe_of(tmp_path, family, tiny, vae=str(other))
    for use in (lambda: load(recipe), lambda: carried(recipe, tmp_path / "runs", "train")):
        with pytest.raises(InputError) as refused:
            use()
        assert said in str(refused.value)
        assert str(other) in str(refused.value)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "runs").exists()


FILES: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], object], str]] = {
    "a pickle": ("vae.pt", lambda _: None, "may run code when it is loaded"),
    "no VAE": ("vae.safetensors", lambda t: t.pop("decoder.conv_in.weight"), "decoder.conv_in.weight is missing"),
    "other channels": (
        "vae.safetensors",
        lambda t: t.update({"decoder.conv_in.weight": torch.zeros(8, 12, 3, 3)}),
        "latent_channels is 12, and in ",
    ),
    "a lost tensor": ("vae.safetensors", lambda t: t.pop("decoder.conv_out.bias"), "incomplete"),
    "NaN": ("vae.safetensors", lambda t: t["decoder.conv_out.bias"].mul_(float("nan")), "NaN or infinity"),
}


@pytest.mark.parametrize(("name", "change", "said"), FILES.values(), ids=FILES.keys())
def test_single_file_that_does_not_fit(
    family: TinyFamily,
    tiny: Path,
    tmp_path: Path,
    name: str,
    change: Callable[[dict[str, torch.Tensor]], object],
    said: str,
) -> None:
    """What a file holds wrongly, or lacks, is one line that names it; so is one that a family never reads."""
    if name.endswith(".safetensors") and not family.has_single_vae and "decoder" not in said:
        said = "a single file is read as AutoencoderKL, and in "
    shutil.copyfile(tiny / "vae" / WEIGHTS, tmp_path / "vae.safetensors")
    spoilt(tmp_path, change, "vae.safetensors")
    (tmp_path / "vae.safetensors").rename(tmp_path / name)
    with pytest.raises(InputError) as refused:
        load(recipe_of(tmp_path, family, tiny, vae=str(tmp_path / name)))
    assert said in str(refused.value)
    assert str(tmp_path / name) in str(refused.value)


def test_mirrors_of_nothing(tiny: Path, family: TinyFamily, tmp_path: Path) -> None:
    """What would be ignored is an error instead."""
    for more in ({"vae_mirrors": ["a/b"]}, {"vae_revision": "x"}):
        with pytest.raises(InputError, match="vae_mirrors and vae_revision belong to vae, which is not set"):
            recipe_of(tmp_path, family, tiny, **more)


@pytest.mark.slow
def test_a_training_with_another(tiny_sd: Path, tmp_path: Path) -> None:
    """Another in its place is trained on again; a saved adapter's base has the VAE of its card."""
    other = shutil.copytree(tiny_sd / "vae", tmp_path / "other-vae")
    recipe = recipe_of(tmp_path, TINY[0], tiny_sd, vae=str(other))
    space, _ = carried(recipe, tmp_path / "runs", "train")
    base = card(space)["base"]
    assert base["vae"]["model"] == "other-vae"
    assert "with the VAE `other-vae`" in (space.adapter(HOMER) / "README.md").read_text(encoding="utf-8")
    wanted = standalone.base_for(standalone.saved([str(space.adapter(HOMER))], SILENT))
    assert (wanted.vae, wanted.vae_revision) == (str(other), "main")
    assert loading.load(wanted, recipe.generate, torch.float32, SILENT).parts == base["parts"]

    def stages() -> list[str]:
        heard: list[Event] = []
        pipeline.run(recipe, tmp_path / "runs", heard.append, until="train")
        return [event.stage for event in heard if event.kind == "done"]

    assert stages() == []
    spoilt(other, lambda tensors: tensors["decoder.conv_out.bias"].add_(0.1))
    assert stages() == ["train"]
    assert card(space)["base"]["parts"]["vae"] != base["parts"]["vae"]
