"""DoRA: magnitudes that are learned, saved and loaded whole, and mixed as true changes of the weights."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from avignon.adapters import files, inject, layers, mix
from avignon.adapters.formats import diffusers as lora_format
from avignon.core.errors import AdapterError
from avignon.core.events import Event, Reporter, StageProgress
from avignon.core.records import Frame
from avignon.core.workspace import Workspace
from avignon.generation import sampler as painting
from avignon.models import runtime
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.schema import Ranks, Recipe
from avignon.stages import train
from avignon.training import job as jobs
from avignon.training import loop
from avignon.training.dataset import seed_of
from avignon.training.objective import denoising_losses
from avignon.training.setup import RuntimeConfig
from tests.support.bases import TARGETS, load_base
from tests.support.runs import carried, small_recipe
from tests.support.saving import Tensors, refuses_spoiled

RANKS = Ranks(attention=4, projection=3, convolution=2)
SILENT = Reporter("test", lambda _: None)
CPU = torch.device("cpu")
HOMER = "winslow-homer"


@pytest.fixture
def recipe(tmp_path: Path, tiny_sd: Path) -> Recipe:
    """A recipe on the tiny base."""
    return small_recipe(tmp_path / "recipe", tiny_sd, generate={"batch": 8})


@pytest.fixture
def base(recipe: Recipe) -> StableDiffusion:
    """The tiny base, freshly loaded."""
    return load_base(recipe, torch.float32, SILENT)


def learned(unet: Any, name: str, seed: int = 1, alpha: float = 0.0, *, dora: bool = True) -> None:
    """An adapter that changes something: as if it had been trained, it is not what it began with."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
        inject.add(unet, TARGETS, name, RANKS, alpha, seed, dora=dora)
    lengths = {id(length) for length in layers.dora_magnitudes(unet, name).values()}
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in unet.named_parameters():
            if f".{layers.inner(name)}." in key:
                noise = torch.randn(parameter.shape, generator=random)
                parameter.copy_(parameter * (1 + 0.2 * noise) if id(parameter) in lengths else 0.1 * noise)


def output(unet: Any) -> torch.Tensor:
    """What the UNet says to fixed inputs, in fp32."""
    random = torch.Generator().manual_seed(0)
    noisy, text = torch.randn(2, 4, 8, 8, generator=random), torch.randn(2, 77, 16, generator=random)
    with torch.no_grad():
        said: torch.Tensor = unet(noisy.to(unet.dtype), torch.tensor([10, 700]), text.to(unet.dtype)).sample
    return said.float()


def bases(unet: Any) -> Tensors:
    """The weights that the adapted layers compute with, in fp64."""
    return {
        name: module.get_base_layer().weight.detach().double().clone()
        for name, module in unet.named_modules()
        if hasattr(module, "lora_A")
    }


def changes(unet: Any, name: str) -> Tensors:
    """W' − W of every adapted layer by the papers' formulas, in fp64."""
    modules, own, found = dict(unet.named_modules()), bases(unet), {}
    for layer, weight in own.items():
        module, inside = modules[layer], layers.inner(name)
        down, up = module.lora_A[inside].weight.double(), module.lora_B[inside].weight.double()
        low_rank = (up.flatten(1) @ down.flatten(1)).view(weight.shape) * module.lora_alpha[inside] / module.r[inside]
        changed = weight + low_rank
        if inside in module.lora_magnitude_vector:
            for channel, magnitude in enumerate(module.lora_magnitude_vector[inside].weight.flatten().double()):
                changed[channel] *= magnitude / changed[channel].square().sum().sqrt()
        found[layer] = (changed - weight).detach()
    return found


@pytest.fixture
def saved(base: StableDiffusion, tmp_path: Path) -> Path:
    """The folder of a saved DoRA of the tiny base."""
    learned(base.denoiser, "new", alpha=8.0)
    files.save(base.denoiser, TARGETS, "new", tmp_path / "adapter" / lora_format.WEIGHTS_FILE)
    base.denoiser.delete_adapters(layers.inner("new"))
    return tmp_path / "adapter"


# Beginning, saving, loading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_new_dora_changes_nothing_yet(recipe: Recipe, dtype: torch.dtype) -> None:
    """A fresh DoRA changes nothing; its magnitudes, the last of its parameters, are the weights' lengths in fp32."""
    unet = load_base(recipe, dtype, SILENT).pipeline.unet
    before = output(unet)
    parameters = inject.add(unet, TARGETS, "new", RANKS, 0.0, seed=1, dora=True)
    assert torch.equal(output(unet), before)
    lengths = layers.dora_magnitudes(unet, "new")
    assert len(parameters) == 3 * len(lengths)
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert [id(parameter) for parameter in parameters[-len(lengths) :]] == [id(each) for each in lengths.values()]
    for layer, weight in bases(unet).items():
        assert lengths[layer].detach().flatten().double() == pytest.approx(weight.flatten(1).norm(dim=1), rel=1e-6)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("alpha", [0.0, 8.0])
def test_saved_dora_comes_back(base: StableDiffusion, recipe: Recipe, tmp_path: Path, alpha: float) -> None:
    """Saved and loaded on a fresh base, a DoRA has the same tensors, the same scales, and says the same."""
    learned(base.denoiser, "new", alpha=alpha)
    files.save(base.denoiser, TARGETS, "new", tmp_path / "out" / lora_format.WEIGHTS_FILE)
    fresh = load_base(recipe, torch.float32, SILENT)
    files.load(fresh, "new", tmp_path / "out")
    before, after = (files.weights_of(unet, "new") for unet in (base.denoiser, fresh.denoiser))
    assert before.keys() == after.keys()
    assert any("lora_magnitude_vector" in key for key in before)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert files.scales_of(fresh.denoiser, "new") == files.scales_of(base.denoiser, "new")
    assert torch.equal(output(fresh.denoiser), output(base.denoiser))


@pytest.mark.slow
def test_magnitudes_keep_their_precision(recipe: Recipe, saved: Path) -> None:
    """On a base in bf16, magnitudes are still those of the file."""
    base = load_base(recipe, torch.bfloat16, SILENT)
    files.load(base, "new", saved)
    tensors = safetensors.torch.load_file(saved / lora_format.WEIGHTS_FILE)
    for layer, magnitude in layers.dora_magnitudes(base.denoiser, "new").items():
        assert torch.equal(magnitude, tensors[f"unet.{layer}.lora_magnitude_vector"])


def lose_one(tensors: Tensors) -> None:
    """Forget a convolution's magnitude."""
    del tensors[next(key for key in tensors if key.endswith("conv1.lora_magnitude_vector"))]


def change_one(tensors: Tensors) -> None:
    """Change a magnitude a little."""
    key = next(key for key in tensors if key.endswith("to_q.lora_magnitude_vector"))
    tensors[key] = tensors[key] * 1.001


@pytest.mark.slow_but_one
@pytest.mark.parametrize("spoil", [lose_one, change_one])
def test_saving_proves_the_magnitudes(
    base: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensors], None]
) -> None:
    """A magnitude lost or changed on the way to the file is an error, and no file is left."""
    learned(base.denoiser, "new")
    refuses_spoiled(base.denoiser, tmp_path / "out", monkeypatch, spoil)


def lose_all(tensors: Tensors) -> None:
    """Forget all magnitudes; only the metadata still says that it is a DoRA."""
    for key in [key for key in tensors if "magnitude" in key]:
        del tensors[key]


def lengthen(tensors: Tensors) -> None:
    """Give linear layers a magnitude more than they have channels."""
    tensors.update({k: torch.ones(len(t) + 1) for k, t in tensors.items() if k.endswith("to_q.lora_magnitude_vector")})


def flatten(tensors: Tensors) -> None:
    """Shape the magnitudes of convolutions as those of linear layers are."""
    tensors.update({k: t.flatten() for k, t in tensors.items() if k.endswith("conv1.lora_magnitude_vector")})


def orphan(tensors: Tensors) -> None:
    """Leave a layer nothing but its magnitude."""
    layer = next(key for key in tensors if "lora_A" in key).removesuffix("lora_A.weight")
    del tensors[f"{layer}lora_A.weight"], tensors[f"{layer}lora_B.weight"]


SPOILT = {
    "one missing": (lose_one, "do not agree whether"),
    "all missing": (lose_all, "do not agree whether"),
    "too long": (lengthen, "has 9 magnitudes; a DoRA has one for each of its 8 outputs"),
    "a linear layer's on a convolution": (flatten, "conv1 is ("),
    "alone": (orphan, "no complete LoRA or DoRA"),
}


@pytest.mark.slow_but_one
@pytest.mark.parametrize(("spoil", "told"), SPOILT.values(), ids=SPOILT.keys())
def test_spoilt_magnitudes_are_refused(
    base: StableDiffusion, saved: Path, spoil: Callable[[Tensors], None], told: str
) -> None:
    """Magnitudes that are missing, or do not fit the UNet, are refused in one line."""
    file = saved / lora_format.WEIGHTS_FILE
    with safetensors.safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = safetensors.torch.load_file(file)
    spoil(tensors)
    safetensors.torch.save_file(tensors, file, metadata)
    assert told in refusal(base, saved)


def test_magnitudes_that_metadata_deny_are_refused(base: StableDiffusion, saved: Path) -> None:
    """A file whose metadata call it a plain LoRA, so that its magnitudes would not be used, is refused in one line."""
    file = saved / lora_format.WEIGHTS_FILE
    with safetensors.safe_open(file, framework="pt") as opened:
        fields = json.loads(opened.metadata()["lora_adapter_metadata"])
    metadata = {"lora_adapter_metadata": json.dumps(fields | {"unet.use_dora": False})}
    safetensors.torch.save_file(safetensors.torch.load_file(file), file, metadata)
    assert "do not agree whether" in refusal(base, saved)


def refusal(base: StableDiffusion, folder: Path) -> str:
    """The one line by which an adapter is refused."""
    with pytest.raises(AdapterError) as refused:
        files.load(base, "new", folder)
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)
    return str(refused.value)


# Mixing ---------------------------------------------------------------------------------------------------------------


def test_weight_1_is_pefts_dora(base: StableDiffusion) -> None:
    """At weight 1, a DoRA alone says what peft's own layers say; that is not what its LoRA alone would say."""
    unet = base.denoiser
    learned(unet, "a", alpha=8.0)
    theirs = output(unet)
    with mix.mixing(unet, TARGETS, {}) as mixer:
        mixer.set([{"a": 1.0}])
        ours = output(unet)
        mixer.set([{"a": 0.0}])
        without = output(unet)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.std()
    assert (ours - without).abs().max() > 0.1 * theirs.std(), "the adapter shows"
    assert torch.equal(output(unet), theirs), "what was on before is on again"


def test_weight_0_is_the_base(base: StableDiffusion) -> None:
    """At weight 0, after others, the UNet is bit for bit the base's."""
    unet = base.denoiser
    before = output(unet)
    learned(unet, "a")
    with mix.mixing(unet, TARGETS, {}) as mixer:
        for weight in (0.0, 0.7, 0.0):
            mixer.set([{"a": weight}])
            assert torch.equal(output(unet), before) is (weight == 0)


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    "weights",
    [{"a": 0.5}, {"a": -0.5}, {"a": 1.0, "b": 1.0}, {"a": 0.3, "lora": 0.9}, {"lora": 1.0}],
    ids=["half", "negative", "two", "with a LoRA", "a LoRA beside it"],
)
def test_mixture_sums_true_changes(base: StableDiffusion, weights: Mapping[str, float]) -> None:
    """Every layer's weight is W + Σ wᵢ·(W'ᵢ − W), a straight line in each weight, and in each block's factor."""
    unet = base.denoiser
    for seed, name in enumerate(("a", "b", "lora"), start=1):
        learned(unet, name, seed, alpha=4.0 * seed, dora=name != "lora")
    own, change = bases(unet), {name: changes(unet, name) for name in weights}
    with mix.mixing(unet, TARGETS, {"a": {"up": 0.25}}) as mixer:
        mixer.set([{"a": 5.0, "b": 5.0, "lora": 5.0}])  # What was set before leaves no trace.
        mixer.set([{"lora": 0.2}, {"lora": 0.8}])
        mixer.set([weights])
        for layer, mixed in bases(unet).items():
            factors = {name: 0.25 if name == "a" and layer.startswith("up") else 1.0 for name in weights}
            expected = own[layer] + sum(w * factors[name] * change[name][layer] for name, w in weights.items())
            assert (mixed - expected).abs().max() < 1e-6, layer
    assert all(torch.equal(own[layer], weight) for layer, weight in bases(unet).items())


def test_pefts_own_mixture_is_another(base: StableDiffusion) -> None:
    """What docs/BLENDING.md says of `set_adapters`: at 0 it is not the base, and of two DoRAs the order matters."""
    unet = base.denoiser
    before = output(unet)
    for seed, name in enumerate(("a", "b"), start=1):
        learned(unet, name, seed)
    one, two = layers.inner("a"), layers.inner("b")
    unet.set_adapters([one], [0.0])
    assert (output(unet) - before).abs().max() > 0.01 * before.std()
    there, back = ([unet.set_adapters(names, [1.0, 1.0]), output(unet)][1] for names in ([one, two], [two, one]))
    assert (there - back).abs().max() > 1e-3 * before.std()
    with mix.mixing(unet, TARGETS, {}) as mixer:
        mixer.set([{"a": 1.0, "b": 1.0}])
        ours = output(unet)
        mixer.set([{"b": 1.0, "a": 1.0}])
        assert (output(unet) - ours).abs().max() < 1e-5 * before.std()


MIXES: tuple[dict[str, float], ...] = ({"dora": 1.0}, {"dora": 0.6, "lora": 0.7}, {"lora": 0.5}, {"lora": 1.5}, {})


def frame(weights: dict[str, float], seed: int = 3, **changes: Any) -> Frame:
    """A small frame."""
    plain = Frame(
        "scene-1", "stop-1", "a boat on the sea", "red", seed, 3, 5.0, "ddim", 64, 64, weights, "", {}, "fp32"
    )
    return replace(plain, **changes)


@pytest.fixture
def sampler(base: StableDiffusion, recipe: Recipe) -> painting.ImageSampler:
    """A painter with a DoRA and a LoRA on."""
    for seed, name in enumerate(("dora", "lora"), start=1):
        learned(base.denoiser, name, seed, dora=name == "dora")
    return painting.ImageSampler(base, recipe, CPU, SILENT)


def test_frames_with_a_dora_keep_to_their_weights(sampler: painting.ImageSampler) -> None:
    """Frames of different weights share a batch only where none has a DoRA; all are painted as if alone."""
    frames = [frame(mix, seed) for seed, mix in enumerate((*MIXES, MIXES[1]))]
    assert sampler.groups(frames) == [[0], [1, 5], [2, 3, 4]]
    for group in sampler.groups(frames):
        together = sampler.denoise([frames[place] for place in group])
        alone = torch.cat([sampler.denoise([frames[place]]) for place in group])
        assert (together - alone).abs().max() / alone.std() < 5e-5
    with pytest.raises(ValueError, match="different weights of a DoRA, or of what changes embedders: dora"):
        sampler.denoise(frames[:2])


@pytest.mark.slow
def test_dora_paints_as_diffusers_do(base: StableDiffusion, recipe: Recipe, saved: Path) -> None:
    """At weight 1, a picture is StableDiffusionPipeline's after `load_lora_weights`, within 1/255."""
    pipeline = StableDiffusionPipeline.from_pretrained(recipe.base.model, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.load_lora_weights(saved)
    theirs = pipeline(
        "a boat on the sea", negative_prompt="red", num_inference_steps=3, guidance_scale=5.0, width=64, height=64,
        generator=torch.Generator().manual_seed(3),
    ).images[0]  # fmt: skip
    files.load(base, "new", saved)
    sampler = painting.ImageSampler(base, recipe, CPU, SILENT)
    ours, without = sampler.paint([frame({"new": 1.0}), frame({})])
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1
    assert np.abs(np.asarray(ours, int) - np.asarray(without, int)).max() > 10, "the adapter shows"


@pytest.mark.slow
def test_effect_of_a_dora_is_that_of_all_of_it(sampler: painting.ImageSampler, base: StableDiffusion) -> None:
    """An adapter's measured effect has the magnitudes in it: with larger ones, it is another."""
    before = sampler.effects([frame({})], ["dora"])["dora"]
    for magnitude in layers.dora_magnitudes(base.denoiser, "dora").values():
        magnitude.data *= 1.3
    assert abs(sampler.effects([frame({})], ["dora"])["dora"] - before) > 0.01 * before


# Training -------------------------------------------------------------------------------------------------------------


def prepared(folder: Path, base: Path, **settings: Any) -> tuple[Recipe, Workspace]:
    """A recipe that trains one DoRA, with these values in `train`, and its run up to the prepared images."""
    recipe = small_recipe(folder, base, train={"mode": "joint", "dora": True, **settings})
    return recipe, carried(recipe, folder / "runs")[0]


def run(recipe: Recipe, space: Workspace, listener: Callable[[Event], None] = lambda _: None) -> Tensors:
    """The stage alone; returns the trained tensors."""
    train.run(recipe, space, Reporter("train", listener))
    return safetensors.torch.load((space.adapter("joint") / lora_format.WEIGHTS_FILE).read_bytes())


def same(one: Tensors, other: Tensors) -> bool:
    """Whether two adapters are bit for bit equal."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> tuple[Recipe, Workspace, Tensors]:
    """A training that was never interrupted, and what it learned."""
    recipe, space = prepared(tmp_path_factory.mktemp("whole"), tiny_sd)
    return recipe, space, run(recipe, space)


@pytest.mark.slow
def test_magnitudes_learn(whole: tuple[Recipe, Workspace, Tensors]) -> None:
    """Every layer's magnitude has moved from its weights' length, and not only by what decay would have done."""
    recipe, _, tensors = whole
    unet = load_base(recipe, torch.float32, SILENT).pipeline.unet
    inject.add(unet, TARGETS, "new", recipe.train.ranks, 0.0, seed=1, dora=True)
    for layer, begun in layers.dora_magnitudes(unet, "new").items():
        ratio = tensors[f"unet.{layer}.lora_magnitude_vector"] / begun.detach()
        assert (ratio - 1).abs().max() > 1e-3, layer
        assert ratio.max() > 1, "some grow"


@pytest.mark.slow
def test_loss_falls(tmp_path: Path, tiny_sd: Path) -> None:
    """Forty steps on, the loss on fixed draws of the works held out is lower than after the first one."""
    settings = {
        "steps": 40,
        "batch": 4,
        "validation_works": 1,
        "eval_every": 1,
        "lr_schedule": "constant",
        "caption_dropout": 0,
    }
    recipe, space = prepared(tmp_path, tiny_sd, checkpoint_every=40, **settings)
    run(recipe, space)
    lines = (space.adapter("joint") / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["validation_loss"] for line in lines]
    assert losses[-1] < 0.9 * losses[0]


class Stop(Exception):  # noqa: N818 - it stops a training, nothing is wrong
    """Raised from a listener: the process dies between two steps."""


@pytest.mark.slow
def test_killed_training_goes_on(whole: tuple[Recipe, Workspace, Tensors], tmp_path: Path, tiny_sd: Path) -> None:
    """Stopped after a step and run again: the same bits, those of the magnitudes too."""
    recipe, space = prepared(tmp_path, tiny_sd)

    def listen(event: Event) -> None:
        if isinstance(event, StageProgress) and event.done == 3:
            raise Stop

    with pytest.raises(Stop):
        run(recipe, space, listen)
    notes: list[str] = []
    tensors = run(recipe, space, lambda event: notes.append(event.text))
    assert "joint: going on at step 2 of 4" in notes
    assert same(tensors, whole[2])


@pytest.mark.slow
def test_samples_change_nothing(whole: tuple[Recipe, Workspace, Tensors], tmp_path: Path, tiny_sd: Path) -> None:
    """Samples painted on the way leave every bit of what is learned as it was."""
    recipe, space = prepared(tmp_path, tiny_sd, sample_every=2)
    assert same(run(recipe, space), whole[2])


@pytest.mark.slow
def test_magnitudes_do_not_decay(tmp_path: Path, tiny_sd: Path) -> None:
    """Where gradients are clipped to nothing, decay shrinks the factors and leaves the magnitudes as they began."""
    recipe, space = prepared(tmp_path, tiny_sd, weight_decay=1.0, max_grad_norm=1e-30)
    tensors = run(recipe, space)
    unet = load_base(recipe, torch.float32, SILENT).pipeline.unet
    inject.add(unet, TARGETS, "new", recipe.train.ranks, 0.0, seed_of(recipe.seed, "joint"), dora=True)
    for key, begun in files.weights_of(unet, "new").items():
        left = float(tensors[f"unet.{key}"].norm())
        if "lora_A" in key:
            assert left < 0.99 * float(begun.norm()), key
        else:
            assert left == pytest.approx(float(begun.norm()), rel=1e-5), key


@pytest.mark.slow_but_one
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_does_not_round_magnitudes(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, precision: runtime.Precision
) -> None:
    """Where the UNet computes in half precision, magnitudes are learned, used and saved in fp32."""
    monkeypatch.setattr("avignon.training.setup.precision_for", lambda *_: precision)
    used: set[torch.dtype] = set()

    def watched(base: Any, batch: Any) -> torch.Tensor:
        used.update(magnitude.dtype for magnitude in layers.dora_magnitudes(base.denoiser, "joint").values())
        return denoising_losses(base, batch)

    monkeypatch.setattr(loop, "denoising_losses", watched)
    recipe, space = prepared(tmp_path, tiny_sd, steps=2)
    tensors = run(recipe, space)
    assert used == {torch.float32}
    dtype = runtime.DTYPES[precision]
    lengths = [tensor for key, tensor in tensors.items() if key.endswith("lora_magnitude_vector")]
    assert not all(torch.equal(length, length.to(dtype).float()) for length in lengths)


@pytest.mark.parametrize(("dora", "compiled"), [(False, True), (True, False)])
def test_dora_is_not_compiled_unasked(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, dora: bool, compiled: bool
) -> None:
    """On a CUDA device `auto` compiles a LoRA's blocks but not a DoRA's, and none where that fails; `on` does both."""
    for asked, expected in (("auto", compiled), ("on", True)):
        fixed = {"dora": dora, "compile": asked, "precision": "fp32", "attention": "sdpa"}
        recipe = small_recipe(tmp_path / asked, tiny_sd, train=fixed)
        for works in (True, False):
            monkeypatch.setattr("avignon.training.setup.compiles", lambda _, works=works: works)
            chosen = RuntimeConfig.for_device(recipe, torch.device("cuda"))
            assert chosen.compiled is (expected and (works or asked == "on"))
            assert ("torch.compile does not work here" in chosen.describe(1)) is (expected and not chosen.compiled)


def test_card_and_page_say_dora(
    whole: tuple[Recipe, Workspace, Tensors], base: StableDiffusion, tmp_path: Path, tiny_sd: Path
) -> None:
    """Card and page call it a DoRA and count its magnitudes; a LoRA's call it a LoRA."""
    folder = whole[1].adapter("joint")
    told = json.loads((folder / "card.json").read_text(encoding="utf-8"))["trainable"]
    assert told["method"] == "DoRA"
    assert told["parameters"] == sum(tensor.numel() for tensor in whole[2].values())
    assert "A DoRA adapter trained by" in (folder / "README.md").read_text(encoding="utf-8")
    unet = base.denoiser
    plain = inject.trainable(unet, inject.add(unet, TARGETS, "new", RANKS, 0.0, seed=1), RANKS)
    assert plain["method"] == "LoRA"
    assert plain["unet_parameters"] == told["unet_parameters"]
    assert told["parameters"] - plain["parameters"] == sum(
        tensor.numel() for key, tensor in whole[2].items() if "magnitude" in key
    )


def test_dora_is_part_of_a_trainings_identity(whole: tuple[Recipe, Workspace, Tensors]) -> None:
    """The same recipe without DoRA is another training: nothing of the one is taken for the other's."""
    recipe, space, _ = whole
    base = load_base(recipe, torch.float32, SILENT)

    def identity(**changes: Any) -> Mapping[str, str]:
        changed = recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})
        runtime = RuntimeConfig.for_device(changed, CPU)
        return jobs.TrainingJob("joint", recipe.artists, changed, space, SILENT, runtime, None).identity(base)

    assert identity() == identity(eval_every=1)
    assert identity()["settings"] != identity(dora=False)["settings"]
