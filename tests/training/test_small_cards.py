"""Trainings for small cards: a quantised base, weights in RAM, and what is in memory at each step."""

import gc
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from avignon.adapters import files, inject
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.core.errors import RecipeError
from avignon.core.events import Event, Reporter, StageNote
from avignon.core.records import Frame
from avignon.core.workspace import Workspace
from avignon.generation.sampler import ImageSampler
from avignon.models import frozen, loading
from avignon.models.base import DiffusionBase
from avignon.recipe.schema import Ranks, Recipe
from avignon.stages import generate, train
from avignon.training import loop, objective
from avignon.training.adapter_trainer import AdapterTrainer
from avignon.training.checkpoints import Checkpoints
from avignon.training.setup import RuntimeConfig
from tests.support.card import DEVICE, alone_on_the_card, pretended
from tests.support.runs import carried, small_recipe
from tests.support.trainings import HOMER, PICASSO, SILENT, card, metrics, run, same, stopped, weights

CPU = torch.device("cpu")
FAMILIES = ("tiny_sd", "tiny_sdxl", "tiny_z_image")
EULER = {"scheduler": "euler"}


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Path:
    """A tiny base of each family."""
    folder: Path = request.getfixturevalue(request.param)
    return folder


def recipe_of(folder: Path, model: Path, kind: str = "", **settings: Any) -> Recipe:
    """A small recipe over a base that is kept in a way."""
    folder.mkdir(parents=True, exist_ok=True)
    return small_recipe(folder, model, base={"quantize": kind}, generate=EULER, train=settings)


def load(recipe: Recipe) -> DiffusionBase:
    """Its base, in fp32."""
    return loading.load(recipe.base, recipe.generate, torch.float32, SILENT)


def trained(folder: Path, model: Path, kind: str, **settings: Any) -> tuple[Recipe, Workspace]:
    """A finished training on a base that is kept in a way."""
    recipe = recipe_of(folder, model, kind, **settings)
    space = carried(recipe, folder / "runs")[0]
    run(recipe, space)
    return recipe, space


# A quantised base -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_quantised_base_trains_nearly_as_the_base(model: Path, tmp_path: Path) -> None:
    """Two adapters in one pass: losses within a few percent. The adapter fits the base in full, and its card tells."""
    losses = {}
    for kind in ("", "int8", "nf4"):
        _, space = trained(tmp_path / (kind or "full"), model, kind, learning_rate=1e-3)
        losses[kind] = torch.tensor([line["loss"] for name in (HOMER, PICASSO) for line in metrics(space, name)])
        told = card(space, HOMER)
        assert told["base"].get("quantized", "") == kind
        files.load(load(recipe_of(tmp_path / f"in full {kind}", model)), HOMER, space.adapter(HOMER))
        assert (kind in (space.adapter(HOMER) / "README.md").read_text(encoding="utf-8")) or not kind
    for kind, most in (("int8", 0.01), ("nf4", 0.1)):
        apart = (losses[kind] - losses[""]).abs() / losses[""]
        assert 0 < float(apart.max()) < most, kind


@pytest.mark.slow
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_quantised_base_is_the_base_with_rounded_weights(
    tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dora: bool
) -> None:
    """Trained and painted with: int8 weights give what the same weights give in full, folded or not, to rounding."""
    recipe, small = trained(tmp_path / "int8", tiny_sd, "int8", dora=dora, steps=2)
    loads, made = loading.load, dict(frozen.weights(load(recipe).denoiser))

    def rounded(*wanted: Any, **how: Any) -> DiffusionBase:
        base = loads(*wanted, **how)
        for name, weight in made.items():
            base.denoiser.get_parameter(name).data = weight.clone()
        return base

    monkeypatch.setattr(loading, "load", rounded)
    _, full = trained(tmp_path / "full", tiny_sd, "", dora=dora, steps=2)
    monkeypatch.undo()
    for name in (HOMER, PICASSO):
        one, other = (weights(space, name) for space in (small, full))
        assert all(torch.allclose(one[key], other[key], atol=2e-3) for key in one)
    frames = [frame({HOMER: 1.0}), frame({HOMER: 0.5, PICASSO: 0.7}), frame({})]
    pictures = []
    in_full = recipe.model_copy(update={"base": recipe.base.model_copy(update={"quantize": ""})})
    for base in (load(recipe), rounded(in_full.base, recipe.generate, torch.float32, SILENT)):
        for name in (HOMER, PICASSO):
            files.load(base, name, small.adapter(name))
        sampler = ImageSampler(base, recipe, CPU, SILENT)
        alone = torch.cat([sampler.denoise([one]) for one in frames])
        pictures.append(alone)
        if not dora:  # Of different weights in one batch, which a DoRA's samples cannot have.
            pictures.append(sampler.denoise(frames))
    assert all(torch.allclose(pictures[0], other, atol=1e-3) for other in pictures[1:])
    assert float((pictures[0][0] - pictures[0][2]).abs().max()) > 0.01, "the adapter changes something"


def frame(weights: Mapping[str, float]) -> Frame:
    """A small frame."""
    return Frame("scene-1", "stop-1", "a boat", "", 3, 3, 5.0, "euler", 64, 64, weights, "", {}, "fp32")


@pytest.mark.slow_but_one
def test_mixing_leaves_quantised_weights_alone(model: Path, tmp_path: Path) -> None:
    """While adapters are mixed, and afterwards, the numbers that are kept are the same; hooks are gone."""
    recipe = recipe_of(tmp_path, model, "int8")
    base = load(recipe)
    inject.add(base.denoiser, base.targets, "new", Ranks(attention=4, projection=3, convolution=2), 0.0, seed=1)
    for key, parameter in base.denoiser.named_parameters():
        if "lora_B" in key:
            parameter.data.normal_(0, 0.1)
    layers = [layer for layer in base.denoiser.modules() if isinstance(layer, frozen.Frozen)]
    before = [[(tensor.data_ptr(), tensor.clone()) for tensor in layer.stored] for layer in layers]
    sampler = ImageSampler(base, recipe, CPU, SILENT)
    plain, worn = (sampler.denoise([frame(each)]) for each in ({}, {"new": 1.0}))
    assert not torch.allclose(plain, worn)
    assert torch.equal(sampler.denoise([frame({})]), plain)
    for layer, numbers in zip(layers, before, strict=True):
        for tensor, (place, copied) in zip(layer.stored, numbers, strict=True):
            assert tensor.data_ptr() == place
            assert torch.equal(tensor, copied)
    assert not any(layer._forward_hooks for layer in base.denoiser.modules())


@pytest.mark.slow
def test_quantised_training_goes_on_where_it_was_killed(tiny_sd: Path, tmp_path: Path) -> None:
    """The same bits as without a stop; another way to keep the base is another adapter."""
    _, space = trained(tmp_path / "whole", tiny_sd, "int8")
    other = recipe_of(tmp_path / "killed", tiny_sd, "int8")
    killed = carried(other, tmp_path / "killed" / "runs")[0]
    stopped(other, killed, after=3)
    run(other, killed)
    assert same(weights(space), weights(killed))
    heard: list[Event] = []
    train.run(recipe_of(tmp_path / "killed", tiny_sd, "nf4"), killed, Reporter("train", heard.append))
    assert any("different quantized of the base" in getattr(event, "text", "") for event in heard)


# What is in memory ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_text_encoders_are_gone_before_the_first_step(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples, prior and preview need no more than was read: no parameter of a text encoder is in memory."""
    parameters: list[Any] = []
    loads, losses = loading.load, objective.denoising_losses

    def loaded(*wanted: Any, **how: Any) -> DiffusionBase:
        base = loads(*wanted, **how)
        parameters.extend(weakref.ref(each) for reader in base.readers for each in reader.parameters())
        return base

    def measured(base: DiffusionBase, drawn: Any) -> torch.Tensor:
        gc.collect()
        assert parameters
        assert not [each for each in parameters if each() is not None]
        return losses(base, drawn)

    monkeypatch.setattr(loading, "load", loaded)
    monkeypatch.setattr(loop, "denoising_losses", measured)
    settings = {"sample_every": 2, "prior_images": 2, "steps": 2, "validation_works": 1}
    _, space = trained(tmp_path, model, "", **settings)
    for name in (HOMER, PICASSO):
        assert len(list((space.adapter(name) / "samples").rglob("*.png"))) == 2
        assert (space.adapter(name) / f"{name}.png").exists()


def is_on_card(network: Any) -> bool:
    """Whether any parameter is on the card."""
    return any(parameter.device.type == "cuda" for parameter in network.parameters())


def decoder(base: Any) -> Any:
    """The VAE."""
    return base.vae if hasattr(base, "vae") else base.pipeline.vae


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny_sd"], indirect=True)  # What Z-Image picks depends on numbers a fake has not.
def test_parts_take_turns_on_the_card(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained and painted: the denoiser is off the card while prompts are read; training has it for itself."""
    recipe = recipe_of(tmp_path, model, sample_every=2, prior_images=2, steps=2, precision="auto", compile="off")
    space = carried(recipe, tmp_path / "runs")[0]
    kind = type(load(recipe))
    seen = dict.fromkeys(("read", "stepped"), 0)
    encode, losses = kind.encode_prompts, objective.denoising_losses

    def encoded(base: DiffusionBase, *rest: Any) -> Any:
        found = encode(base, *rest)
        seen["read"] += 1
        assert all(map(is_on_card, base.readers))
        assert not is_on_card(base.denoiser)
        return found

    def measured(base: DiffusionBase, drawn: Any) -> torch.Tensor:
        seen["stepped"] += 1
        assert is_on_card(base.denoiser)
        assert not is_on_card(decoder(base))
        assert base.readers == ()
        return losses(base, drawn)

    monkeypatch.setattr(train, "Accelerator", alone_on_the_card)
    monkeypatch.setattr(generate, "best_device", lambda: DEVICE)
    monkeypatch.setattr(Checkpoints, "save", lambda *_: None)  # A tensor without numbers cannot be written.
    monkeypatch.setattr(kind, "encode_prompts", encoded)
    monkeypatch.setattr(loop, "denoising_losses", measured)
    with pretended():
        run(recipe, space)
        generate.run(recipe, space, Reporter("generate", lambda _: None))
    assert seen["stepped"] == 2
    assert seen["read"] > 10


# Weights in RAM -------------------------------------------------------------------------------------------------------


def test_offload_is_said_and_nothing_on_a_cpu(tiny_sd: Path, tmp_path: Path) -> None:
    """A card copies weights from RAM and compiles nothing; on a CPU they are in RAM anyway, which is said."""
    recipe = recipe_of(tmp_path, tiny_sd, offload=True)
    chosen = RuntimeConfig.for_device(recipe, DEVICE)
    assert (chosen.offload, chosen.compiled, chosen.cannot_compile) == (True, False, False)
    assert "weights copied from RAM layer by layer" in chosen.describe(1)
    plain = RuntimeConfig.for_device(recipe, CPU)
    assert not plain.offload
    assert "weights are in RAM anyway" in plain.describe(1)


@pytest.mark.slow
def test_weights_in_ram_teach_the_same(tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions and linear layers, plain and quantised: the same adapter, to rounding; it is finished for both."""
    for kind in ("", "int8"):
        recipe, space = trained(tmp_path / f"plain{kind}", tiny_sd, kind)
        with monkeypatch.context() as patch:
            chosen = RuntimeConfig.for_device
            patch.setattr(
                RuntimeConfig,
                "for_device",
                lambda *how: RuntimeConfig(**{**vars(chosen(*how)), "offload": True}),  # noqa: B023
            )
            heard: list[Event] = []
            other = recipe_of(tmp_path / f"offloaded{kind}", tiny_sd, kind, offload=True)
            offloaded = carried(other, tmp_path / f"offloaded{kind}" / "runs")[0]
            run(other, offloaded, heard.append)
        one, two = weights(space), weights(offloaded)
        assert all(torch.allclose(one[key], two[key], atol=2e-3) for key in one)
        before = (space.adapter(HOMER) / WEIGHTS_FILE).read_bytes()
        run(recipe.model_copy(update={"train": recipe.train.model_copy(update={"offload": True})}), space)
        assert (space.adapter(HOMER) / WEIGHTS_FILE).read_bytes() == before


@pytest.mark.slow
def test_weights_in_ram_stay_there(tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card, at every step: what is on it of the base are its biases, norms and embeddings."""
    recipe = recipe_of(tmp_path, tiny_sd, offload=True, steps=1, precision="auto", dora=True, mode="joint")
    space = carried(recipe, tmp_path / "runs")[0]
    losses, notes = objective.denoising_losses, list[str]()

    def measured(base: DiffusionBase, drawn: Any) -> torch.Tensor:
        layers = [layer for layer in base.denoiser.modules() if isinstance(layer, frozen.Frozen)]
        assert len(layers) > 50
        assert all(layer.stored[0].device == CPU and layer.like.device == DEVICE for layer in layers)
        assert {p.device for p in base.denoiser.parameters()} == {DEVICE}
        return losses(base, drawn)

    def listen(event: Event) -> None:
        if isinstance(event, StageNote):
            notes.append(event.text)

    monkeypatch.setattr(train, "Accelerator", alone_on_the_card)
    monkeypatch.setattr(Checkpoints, "save", lambda *_: None)
    monkeypatch.setattr(AdapterTrainer, "_sample", lambda *_: {})
    monkeypatch.setattr(loop, "denoising_losses", measured)
    with pretended():
        run(recipe, space, listen)
    assert any("weights copied from RAM layer by layer" in note for note in notes)


def test_offload_and_compiled_blocks_are_refused(tiny_sd: Path, tmp_path: Path) -> None:
    """A compiled block leaves no room between its layers."""
    with pytest.raises(RecipeError, match=r"train: .*offload"):
        recipe_of(tmp_path, tiny_sd, offload=True, compile="on")
