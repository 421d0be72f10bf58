"""LoRA on a UNet: sizes, saving that proves itself, mixing, and what other programs make of the file."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from avignon.adapters import files, inject, layers, mix, route
from avignon.adapters.formats import diffusers as lora_format
from avignon.core.errors import AdapterError, AvignonError
from avignon.core.events import Reporter
from avignon.core.records import Frame
from avignon.generation.sampler import ImageSampler
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.schema import Ranks, Recipe
from tests.support.bases import TARGETS, load_base
from tests.support.runs import small_recipe
from tests.support.saving import refuses_spoiled
from tests.support.tiny_sd import make_tiny_sd

RANKS = Ranks(attention=4, projection=3, convolution=2)
SILENT = Reporter("test", lambda _: None)


@pytest.fixture
def recipe(tmp_path: Path, tiny_sd: Path) -> Recipe:
    """A recipe on the tiny base."""
    return small_recipe(tmp_path / "recipe", tiny_sd)


@pytest.fixture
def base(recipe: Recipe) -> StableDiffusion:
    """The tiny base, freshly loaded."""
    return load_base(recipe, torch.float32, SILENT)


def learned(
    unet: Any, name: str, seed: int = 1, alpha: float = 0.0, ranks: Ranks = RANKS, *, dora: bool = False
) -> None:
    """An adapter that changes something: as if it had been trained, its B factors are not zero."""
    parameters = inject.add(unet, TARGETS, name, ranks, alpha, seed, dora=dora)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.3)


@pytest.fixture
def saved(base: StableDiffusion, tmp_path: Path) -> Path:
    """The folder of a saved adapter of the tiny base."""
    learned(base.denoiser, "winslow-homer")
    files.save(base.denoiser, TARGETS, "winslow-homer", tmp_path / "adapter" / lora_format.WEIGHTS_FILE)
    base.denoiser.delete_adapters(layers.inner("winslow-homer"))
    return tmp_path / "adapter"


def output(unet: Any) -> torch.Tensor:
    """What the UNet says to fixed inputs."""
    random = torch.Generator().manual_seed(0)
    noisy, text = torch.randn(2, 4, 8, 8, generator=random), torch.randn(2, 77, 16, generator=random)
    with torch.no_grad():
        said: torch.Tensor = unet(noisy, torch.tensor([10, 700]), text).sample
    return said


def sd21_unet() -> Any:
    """The UNet of Stable Diffusion 2.1, without its weights."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            attention_head_dim=(5, 10, 20, 20),
            cross_attention_dim=1024,
            use_linear_projection=True,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        ).requires_grad_(False)


def test_parameters_on_stable_diffusion_2() -> None:
    """On the real UNet's shapes: 5,097,728 of 865,910,724 parameters, 0.589 %, at the recipes' ranks."""
    unet = sd21_unet()
    unet.add_adapter(inject.lora_config(TARGETS, Ranks()), adapter_name="new")
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    share = inject.trainable(unet, parameters, Ranks())
    assert share["unet_parameters"] == 865_910_724
    assert share["parameters"] == 5_097_728
    assert f"{share['share']:.3%}" == "0.589%"
    assert share["ranks"] == {"attention": 16, "projection": 16, "convolution": 2}


def test_magnitudes_on_stable_diffusion_2() -> None:
    """A DoRA of the real UNet has 165,120 magnitudes more than a LoRA, one for each channel of an adapted layer."""
    unet = sd21_unet()
    unet.add_adapter(inject.lora_config(TARGETS, Ranks(), dora=True), adapter_name="new")
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    share = inject.trainable(unet, parameters, Ranks())
    assert share["unet_parameters"] == 865_910_724
    assert share["parameters"] == 5_097_728 + 165_120


def ranks_of(unet: Any) -> dict[str, set[int]]:
    """The ranks found on each kind of layer."""
    found: dict[str, set[int]] = {}
    for name, module in unet.named_modules():
        kinds = [kind for kind, ends in TARGETS.kinds.items() if name.endswith(ends)]
        if kinds and hasattr(module, "r"):
            found.setdefault(kinds[0], set()).update(module.r.values())
    return found


def test_each_kind_has_its_rank(base: StableDiffusion) -> None:
    """Attention, projection and convolution layers each get their own rank, and no other layer is adapted."""
    unet = base.denoiser
    parameters = inject.add(unet, TARGETS, "new", RANKS, 0.0, seed=1)
    assert ranks_of(unet) == {"attention": {4}, "projection": {3}, "convolution": {2}}
    adapted = [name for name, module in unet.named_modules() if hasattr(module, "lora_A")]
    ends = tuple(end for names in TARGETS.kinds.values() for end in names)
    assert all(name.endswith(ends) for name in adapted)
    assert len(parameters) == 2 * len(adapted)
    assert {parameter.dtype for parameter in parameters} == {torch.float32}


@pytest.mark.parametrize("kind", ["attention", "projection", "convolution"])
def test_rank_zero_leaves_a_kind_out(base: StableDiffusion, kind: str) -> None:
    """A rank of 0 adapts no layer of that kind, and changes nothing for the others."""
    inject.add(base.denoiser, TARGETS, "new", RANKS.model_copy(update={kind: 0}), 0.0, seed=1)
    expected = {other: {rank} for other, rank in RANKS.model_dump(exclude={"blocks"}).items() if other != kind}
    assert ranks_of(base.denoiser) == expected


def test_a_new_adapter_changes_nothing_yet(base: StableDiffusion) -> None:
    """A fresh adapter changes nothing; its own seed alone sets its A factors, and the global one is left alone."""
    before = output(base.denoiser)
    torch.manual_seed(5)
    inject.add(base.denoiser, TARGETS, "new", RANKS, 0.0, seed=1)
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(5)))
    first = files.weights_of(base.denoiser, "new")
    assert torch.equal(output(base.denoiser), before)
    for seed, same in ((1, True), (2, False)):
        base.denoiser.delete_adapters(layers.inner("new"))
        inject.add(base.denoiser, TARGETS, "new", RANKS, 0.0, seed=seed)
        again = files.weights_of(base.denoiser, "new")
        assert all(torch.equal(first[key], again[key]) for key in first if "lora_A" in key) is same


@pytest.mark.slow_but_one
@pytest.mark.parametrize("alpha", [0.0, 1.0, 8.0])
def test_saved_adapter_comes_back(base: StableDiffusion, recipe: Recipe, tmp_path: Path, alpha: float) -> None:
    """Saved and loaded on a fresh base, an adapter says the same, with the scale alpha / rank of every layer."""
    learned(base.denoiser, "new", alpha=alpha)
    scales = files.scales_of(base.denoiser, "new")
    kinds = {value: (alpha or value) / value for value in RANKS.model_dump(exclude={"blocks"}).values()}
    assert set(scales.values()) == set(kinds.values())
    files.save(base.denoiser, TARGETS, "new", tmp_path / "out" / lora_format.WEIGHTS_FILE)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [lora_format.WEIGHTS_FILE]
    fresh = load_base(recipe, torch.float32, SILENT)
    files.load(fresh, "new", tmp_path / "out")
    assert files.scales_of(fresh.denoiser, "new") == scales
    assert torch.equal(output(fresh.denoiser), output(base.denoiser))


SAVE_AGAIN = """
import sys
from pathlib import Path
import torch
from avignon.adapters import files, inject
from avignon.core.events import Reporter
from avignon.models import loading
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Ranks

recipe = load_recipe(Path(sys.argv[1]))
base = loading.load(recipe.base, recipe.generate, torch.float32, Reporter("test", lambda _: None))
ranks = Ranks(attention=4, projection=3, convolution=2)
inject.add(base.denoiser, base.targets, "new", ranks, 0.0, seed=1)
files.save(base.denoiser, base.targets, "new", Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_equal_adapters_are_equal_files(base: StableDiffusion, recipe: Recipe, tmp_path: Path) -> None:
    """The same adapter is the same bytes, saved often or in processes that hash strings differently."""
    inject.add(base.denoiser, TARGETS, "new", RANKS, 0.0, seed=1)
    for number in range(6):  # The library's own order of the header is another every second time.
        files.save(base.denoiser, TARGETS, "new", tmp_path / f"{number}.safetensors")
    arguments = [str(tmp_path / "recipe/small.toml"), str(tmp_path / "other.safetensors")]
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    subprocess.run([sys.executable, "-c", SAVE_AGAIN, *arguments], check=True, env=environment)
    assert len({path.read_bytes() for path in tmp_path.glob("*.safetensors")}) == 1


def lose_one(layers: dict[str, torch.Tensor]) -> None:
    """Forget one tensor."""
    layers.pop(next(iter(layers)))


def change_one(layers: dict[str, torch.Tensor]) -> None:
    """Change one number a little."""
    key = next(iter(layers))
    layers[key] = layers[key].clone()
    layers[key].view(-1)[0] += 1e-3


def halve_one(layers: dict[str, torch.Tensor]) -> None:
    """Store one tensor in half precision."""
    key = next(iter(layers))
    layers[key] = layers[key].half()


@pytest.mark.parametrize("spoil", [lose_one, change_one, halve_one])
def test_saving_proves_itself(
    base: StableDiffusion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[dict[str, torch.Tensor]], None],
) -> None:
    """A tensor lost or changed on the way to the file is an error, and no file is left."""
    learned(base.denoiser, "new")
    refuses_spoiled(base.denoiser, tmp_path / "out", monkeypatch, spoil)


def test_saving_proves_the_scales(base: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata left out of the file (and alpha with it) is an error, and no file is left."""
    learned(base.denoiser, "new", alpha=8.0)
    write = safetensors.torch.save
    monkeypatch.setattr(safetensors.torch, "save", lambda tensors, _: write(tensors, {"format": "pt"}))
    with pytest.raises(AvignonError, match="scales"):
        files.save(base.denoiser, TARGETS, "new", tmp_path / "out" / lora_format.WEIGHTS_FILE)
    assert not any((tmp_path / "out").iterdir())


PLAIN_DIFFUSERS = """
import json, sys
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

base, adapter, out, fields = sys.argv[1:]
frame = json.loads(fields)
pipeline = StableDiffusionPipeline.from_pretrained(base)
pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
pipeline.load_lora_weights(adapter)
pipeline(
    frame["prompt"],
    negative_prompt=frame["negative_prompt"],
    num_inference_steps=frame["num_inference_steps"],
    guidance_scale=frame["guidance_scale"],
    width=frame["width"],
    height=frame["height"],
    generator=torch.Generator().manual_seed(frame["seed"]),
).images[0].save(out)
assert "avignon" not in sys.modules
"""


def frame_of(base: StableDiffusion, weights: dict[str, float], **changes: Any) -> Frame:
    """A small frame."""
    fields = {
        "scene": "scene-1",
        "stop": "stop-1",
        "prompt": "a boat on the sea",
        "negative_prompt": "",
        "seed": 3,
        "num_inference_steps": 3,
        "guidance_scale": 5.0,
        "scheduler": "ddim",
        "width": 64,
        "height": 64,
        "weights": weights,
        "base": base.fingerprint,
        "adapters": {},
        "precision": "fp32",
    }
    return Frame(**{**fields, **changes})


@pytest.mark.slow
def test_plain_diffusers_draws_the_same(
    base: StableDiffusion, recipe: Recipe, saved: Path, tiny_sd: Path, tmp_path: Path
) -> None:
    """With diffusers alone, a process without avignon loads the folder and draws the same picture within 2/255."""
    frame = frame_of(base, {"winslow-homer": 1.0}, negative_prompt="red")
    arguments = [str(tiny_sd), str(saved), str(tmp_path / "theirs.png"), json.dumps(frame.__dict__)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", PLAIN_DIFFUSERS, *arguments], check=True, env=environment, cwd=tmp_path)
    files.load(base, "winslow-homer", saved)
    painter = ImageSampler(base, recipe, torch.device("cpu"), SILENT)
    ours, without = painter.paint([frame])[0], painter.paint([frame_of(base, {}, negative_prompt="red")])[0]
    theirs = Image.open(tmp_path / "theirs.png")
    assert np.abs(np.asarray(ours, np.int16) - np.asarray(theirs, np.int16)).max() <= 2
    assert np.abs(np.asarray(ours, np.int16) - np.asarray(without, np.int16)).max() > 10, "the adapter shows"


def test_all_weights_zero_is_the_base(base: StableDiffusion, saved: Path) -> None:
    """With all weights 0, after others, the UNet is bit for bit the base's."""
    unet = base.denoiser
    before = output(unet)
    files.load(base, "a", saved)
    with mix.mixing(unet, TARGETS, {}) as mixer:
        for weight in (0.0, 0.7, 0.0, 0.7):
            mixer.set([{"a": weight}])
            assert torch.equal(output(unet), before) is (weight == 0)
        mixer.set([{}])
        assert torch.equal(output(unet), before)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("weights", [{"a": 1.0, "b": 0.0}, {"a": 0.3, "b": 0.9}, {"a": -0.5, "b": 2.0}])
def test_mixture_sums_true_changes(base: StableDiffusion, recipe: Recipe, weights: dict[str, float]) -> None:
    """A mixture is the base with ΔW = Σ wᵢ·(αᵢ/rᵢ)·Bᵢ·Aᵢ added by hand, for adapters of different alpha."""
    unet = base.denoiser
    learned(unet, "a", seed=1, alpha=8.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
        learned(unet, "b", seed=2)
    by_hand = load_base(recipe, torch.float32, SILENT).pipeline.unet
    modules = dict(by_hand.named_modules())
    with torch.no_grad():
        for name, module in unet.named_modules():
            for adapter, weight in weights.items() if hasattr(module, "lora_A") else ():
                inside = layers.inner(adapter)
                down, up = module.lora_A[inside].weight, module.lora_B[inside].weight
                scale = module.lora_alpha[inside] / module.r[inside]
                change = up.flatten(1) @ down.flatten(1)  # a convolution's B is 1×1: the product is the same
                modules[name].weight += weight * scale * change.reshape(modules[name].weight.shape)
    with mix.mixing(unet, TARGETS, {}) as mixer:
        mixer.set([{"a": 5.0, "b": 5.0}])  # What was set before leaves no trace.
        mixer.set([weights])
        assert output(unet) == pytest.approx(output(by_hand), abs=2e-4, rel=1e-3)


@pytest.mark.parametrize("rows", [[{"a": 1.0}] * 2, [{"a": 1.0}, {"a": 0.0}]])
def test_weight_is_on_the_scale_that_peft_loaded(base: StableDiffusion, rows: list[dict[str, float]]) -> None:
    """A file's scale need not be alpha / rank (rsLoRA's is alpha / √rank): weight 1 is the adapter as peft has it."""
    unet = base.denoiser
    learned(unet, "a")
    for module in (module for module in unet.modules() if hasattr(module, "lora_A")):
        module.scaling[layers.inner("a")] *= 0.37
    theirs = output(unet)
    unet.disable_lora()
    assert not torch.allclose(theirs, output(unet), atol=1e-2), "the adapter shows"
    unet.enable_lora()
    with mix.mixing(unet, TARGETS, {}) as mixer:
        mixer.set(rows)
        assert output(unet)[:1] == pytest.approx(theirs[:1], abs=2e-4, rel=1e-3)


def card(folder: Path, **base: Any) -> None:
    """Write a card that says what the adapter's base is."""
    (folder / "card.json").write_text(json.dumps({"base": base}), encoding="utf-8")


def refusal(base: StableDiffusion, folder: Path) -> str:
    """The one line by which an adapter is refused."""
    with pytest.raises(AdapterError) as refused:
        files.load(base, "new", folder)
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)
    return str(refused.value)


def test_card_of_another_base_is_refused(base: StableDiffusion, saved: Path) -> None:
    """An adapter whose card names other UNet weights is refused with both names; one of the same weights is loaded."""
    card(saved, model="someone/other", fingerprint="0" * 64)
    said = refusal(base, saved)
    assert "someone/other" in said
    assert base.fingerprint[:12] in said
    card(saved, model="another name", fingerprint=base.fingerprint)
    files.load(base, "new", saved)
    card(saved, model="as avignon 0.1.0 named it", fingerprint=min(base.earlier_names))
    files.load(base, "other", saved)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("text", ["{", "[]", '{"base": {}}', '{"base": null}'])
def test_damaged_card_is_refused(base: StableDiffusion, saved: Path, text: str) -> None:
    """A card that says nothing of a base is named as damaged."""
    (saved / "card.json").write_text(text, encoding="utf-8")
    assert "card.json: damaged" in refusal(base, saved)


@pytest.fixture
def spoilt(saved: Path) -> Callable[[Callable[[dict[str, torch.Tensor]], None]], Path]:
    """Rewrites the saved adapter's tensors."""

    def rewrite(change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
        tensors = safetensors.torch.load_file(saved / lora_format.WEIGHTS_FILE)
        change(tensors)
        safetensors.torch.save_file(tensors, saved / lora_format.WEIGHTS_FILE)
        return saved

    return rewrite


SHAPES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], None], str]] = {
    "other layer": (
        lambda t: t.update({k.replace("mid_block", "middle"): t.pop(k) for k in list(t) if "mid_block" in k}),
        "there is no layer unet.middle.attentions.0.",
    ),
    "wider input": (lambda t: t.update({k: torch.zeros(4, 99) for k in t if k.endswith("to_q.lora_A.weight")}), "here"),
    "wider output": (
        lambda t: t.update({k: torch.zeros(99, 4) for k in t if k.endswith("to_q.lora_B.weight")}),
        "here",
    ),
    "two ranks": (
        lambda t: t.update({k: t[k][:2].clone() for k in t if k.endswith("to_q.lora_A.weight")}),
        "factors that do not fit each other: B (8, 4) by A (2, 8)",
    ),
    "convolution": (
        lambda t: t.update({k: t[k][..., None, None] for k in t if k.endswith("to_q.lora_A.weight")}),
        "here",
    ),
    "half a pair": (lambda t: t.__delitem__(next(k for k in t if "lora_B" in k)), "no complete LoRA or DoRA"),
    "text encoder": (lambda t: t.update({"text_encoder.x.lora_A.weight": torch.zeros(4, 16)}), "text_encoder.x"),
    "other names": (
        lambda t: t.update({k.replace("unet.", "model/"): t.pop(k) for k in list(t)}),
        "is no part of an adapter that is read",
    ),
    "nothing": (lambda t: t.clear(), "no complete LoRA or DoRA"),
}


@pytest.mark.slow_but_one
@pytest.mark.parametrize("change", SHAPES.values(), ids=SHAPES.keys())
def test_shapes_of_another_base_are_refused(
    base: StableDiffusion,
    spoilt: Callable[[Callable[[dict[str, torch.Tensor]], None]], Path],
    change: tuple[Callable[[dict[str, torch.Tensor]], None], str],
) -> None:
    """Without a card, tensors that do not fit the UNet, or that it would not use, are named."""
    assert change[1] in refusal(base, spoilt(change[0]))


def test_missing_and_damaged_files_are_refused(base: StableDiffusion, saved: Path, tmp_path: Path) -> None:
    """No folder, an empty one, a truncated file, an empty one, and a pickle under its name: one line each."""
    assert "no such file" in refusal(base, tmp_path / "nowhere")
    weights = saved / lora_format.WEIGHTS_FILE
    whole = weights.read_bytes()
    for content in (whole[:-10], whole[:4], b"", b"\0" * 100):
        weights.write_bytes(content)
        assert "damaged" in refusal(base, saved)
    torch.save({"unet": torch.zeros(1)}, weights)
    assert "damaged" in refusal(base, saved)
    shutil.move(weights, weights.with_suffix(".bin"))
    assert f"an adapter's folder holds {lora_format.WEIGHTS_FILE}" in refusal(base, saved)


def test_damaged_metadata_is_refused(base: StableDiffusion, saved: Path) -> None:
    """Metadata that is no JSON (the scales are lost with it) is a damaged file."""
    tensors = safetensors.torch.load_file(saved / lora_format.WEIGHTS_FILE)
    safetensors.torch.save_file(tensors, saved / lora_format.WEIGHTS_FILE, {"lora_adapter_metadata": "{"})
    assert "damaged" in refusal(base, saved)


def test_adapter_of_other_weights_of_the_same_shape(saved: Path, tmp_path: Path) -> None:
    """A base of other weights but the same shapes takes an adapter that has no card: nothing says that it is wrong."""
    other = small_recipe(tmp_path / "other", make_tiny_sd(tmp_path / "other-sd", seed=9))
    files.load(load_base(other, torch.float32, SILENT), "new", saved)


# Each part of a batch through its own adapter -------------------------------------------------------------------------


def said_of(unet: Any, samples: list[int]) -> torch.Tensor:
    """What the UNet says of samples that are told by their seeds."""
    draws = [torch.Generator().manual_seed(seed) for seed in samples]
    noisy = torch.cat([torch.randn(1, 4, 8, 8, generator=draw) for draw in draws])
    text = torch.cat([torch.randn(1, 77, 16, generator=draw) for draw in draws])
    said: torch.Tensor = unet(noisy, torch.tensor([100 * (seed % 10) for seed in samples]), text).sample
    return said


def passed(unet: Any, names: list[str], samples: list[int], *, learn: bool = False) -> torch.Tensor:
    """The same, as they go through these adapters in equal parts."""
    with route.routed(unet, names), torch.set_grad_enabled(learn):
        said = said_of(unet, samples)
        if learn:
            said.square().sum().backward()  # type: ignore[no-untyped-call]
    return said.detach()


def gradients(unet: Any, name: str) -> torch.Tensor:
    """Of one adapter, which are then forgotten; nothing else may have any."""
    found = {key: p for key, p in unet.named_parameters() if p.grad is not None}
    own = torch.cat([p.grad.flatten() for key, p in found.items() if f".{layers.inner(name)}." in key])
    for parameter in found.values():
        parameter.grad = None
    return own


METHODS = ["LoRA", "DoRA"]


def two_learned(unet: Any, method: str) -> None:
    """Adapters a and b on a UNet; DoRA, which peft computes itself, scales what the base says as well."""
    with pytest.MonkeyPatch.context() as patch:
        config = inject.lora_config
        patch.setattr(
            inject,
            "lora_config",
            lambda *rest, **more: dataclasses.replace(config(*rest, **more), use_dora=method == "DoRA"),
        )
        for seed, name in enumerate("ab"):
            learned(unet, name, seed, alpha=2.0)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_each_part_goes_through_its_own_adapter(base: StableDiffusion, method: str, checkpointing: bool) -> None:
    """What the UNet says of each part, and each adapter's gradients, are those of that adapter alone on that part."""
    unet = base.denoiser
    two_learned(unet, method)
    unet.train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    both = passed(unet, ["a", "b"], [1, 2, 3, 4], learn=True)
    found = {key: p.grad.clone() for key, p in unet.named_parameters() if p.grad is not None}
    inside = tuple(f".{layers.inner(name)}." for name in "ab")
    assert all(any(part in key for part in inside) for key in found), "the base is frozen"
    unet.zero_grad()
    for name, samples, part in (("a", [1, 2], both[:2]), ("b", [3, 4], both[2:])):
        assert torch.allclose(passed(unet, [name], samples, learn=True), part, atol=1e-5)
        for key, parameter in unet.named_parameters():
            if f".{layers.inner(name)}." in key:
                assert parameter.grad is not None
                assert torch.allclose(parameter.grad, found[key], rtol=1e-3, atol=1e-4 * float(found[key].abs().max()))
        unet.zero_grad()
    assert not torch.allclose(passed(unet, ["b", "a"], [1, 2, 3, 4]), both, atol=1e-2)


def test_factors_may_have_a_precision_of_their_own(base: StableDiffusion) -> None:
    """DoRA's factors in fp32 on a UNet in bf16: each part is what peft makes of it, in the UNet's precision."""
    unet = base.denoiser.to(torch.bfloat16)
    two_learned(unet, "DoRA")
    inputs = torch.ones(4, 4, 8, 8), torch.full((4,), 300), torch.ones(4, 77, 16)
    noisy, times, text = (tensor.to(torch.bfloat16) for tensor in inputs)
    with torch.no_grad():
        with route.routed(unet, ["a", "b"]):
            both = unet(noisy, times, text).sample
        for name, part in (("a", both[:2]), ("b", both[2:])):
            with route.routed(unet, [name]):
                assert torch.allclose(unet(noisy, times, text).sample[:2], part, rtol=0.02, atol=0.02)
    assert both.dtype == torch.bfloat16


def test_gradients_are_free_of_the_others_data(base: StableDiffusion) -> None:
    """Other samples, even such as are no numbers, in the other adapter's part move no bit of an adapter's gradients."""
    unet = base.denoiser
    two_learned(unet, "LoRA")
    alone: list[torch.Tensor] = []
    for others in ([3, 4], [5, 6]):
        passed(unet, ["a", "b"], [1, 2, *others], learn=True)
        alone.append(gradients(unet, "a"))
    assert torch.equal(*alone)
    with torch.no_grad():
        next(p for key, p in unet.named_parameters() if f".lora_B.{layers.inner('b')}." in key).fill_(torch.nan)
    passed(unet, ["a", "b"], [1, 2, 3, 4], learn=True)
    assert torch.equal(gradients(unet, "a"), alone[0])


def test_layers_are_as_before_after_routing(base: StableDiffusion) -> None:
    """Routes may lie within routes; afterwards peft's layers, what is active and what learns are as they were."""
    unet = base.denoiser
    two_learned(unet, "LoRA")
    wrapped = [module for module in unet.modules() if hasattr(module, "lora_A")]
    before, together = output(unet), passed(unet, ["a", "b"], [1, 2])
    state = [(list(m.active_adapters), vars(m).get("forward")) for m in wrapped]
    learning = [p.requires_grad for p in unet.parameters()]
    with route.routed(unet, ["a", "b"]):
        passed(unet, ["b"], [1])
        with route.routed(unet, ["b"]), mix.mixing(unet, TARGETS, {}) as mixer:
            mixer.set([{"b": 1.0}])
        assert torch.equal(said_of(unet, [1, 2]), together)
        learns = {key.split(".")[-2] for key, p in unet.named_parameters() if p.requires_grad}
        assert {layers.outer(inside) for inside in learns} == {"a", "b"}
    assert [(list(m.active_adapters), vars(m).get("forward")) for m in wrapped] == state
    assert [p.requires_grad for p in unet.parameters()] == learning
    assert torch.equal(output(unet), before)


def test_another_adapter_is_no_part_of_one(base: StableDiffusion, tmp_path: Path) -> None:
    """With another one on, an adapter begins, is counted and is saved as if it were alone."""
    unet = base.denoiser
    first = inject.add(unet, TARGETS, "homer", RANKS, 0.0, seed=1)
    begun = torch.cat([p.detach().flatten() for p in first])
    share = inject.trainable(unet, first, RANKS)
    files.save(unet, TARGETS, "homer", tmp_path / "alone.safetensors")
    unet.delete_adapters(layers.inner("homer"))
    inject.add(unet, TARGETS, "homer-2", RANKS, 0.0, seed=2)
    second = inject.add(unet, TARGETS, "homer", RANKS, 0.0, seed=1)
    assert torch.equal(torch.cat([p.detach().flatten() for p in second]), begun)
    assert inject.trainable(unet, second, RANKS) == share
    files.save(unet, TARGETS, "homer", tmp_path / "both.safetensors")
    assert (tmp_path / "both.safetensors").read_bytes() == (tmp_path / "alone.safetensors").read_bytes()


# Names ----------------------------------------------------------------------------------------------------------------

NAMES = ("style_v1.5", "lora_A", "weight", "0", "to_q", "lora_magnitude_vector", "a b: c, d", "葛飾 北斎", "xab")


def test_inner_names_are_unique_and_come_back() -> None:
    """B9: each name has its own inside peft, in letters that no path of a UNet has, and is known again."""
    inside = [layers.inner(name) for name in NAMES]
    assert len(set(inside)) == len(NAMES)
    assert [layers.outer(one) for one in inside] == list(NAMES)
    assert all(one.isalnum() and one.isascii() for one in inside)
    assert layers.outer("default") == "default"


@pytest.mark.slow_but_one
@pytest.mark.parametrize("dora", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_an_adapter(base: StableDiffusion, recipe: Recipe, tmp_path: Path, name: str, dora: bool) -> None:
    """B9: whatever it is called, an adapter is trained, saved and mixed beside another as one called `a` is."""
    with_name, plain = base.denoiser, load_base(recipe, torch.float32, SILENT).pipeline.unet
    outputs, paths = [], []
    for unet, called in ((with_name, name), (plain, "a")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            learned(unet, called, dora=dora)
            learned(unet, "other", seed=2, dora=dora)
        paths.append(tmp_path / f"{called == name}.safetensors")
        files.save(unet, TARGETS, called, paths[-1])
        assert layers.doras(unet) == ({called, "other"} if dora else set())
        with route.routed(unet, [called, "other"]), torch.no_grad():
            outputs.append([said_of(unet, [1, 2])])
        with mix.mixing(unet, TARGETS, {called: {"up": 0.5}}) as mixer:
            for rows in ([{called: 0.7, "other": 0.2}] * 2, [{called: 0.7}, {"other": 0.5}]):
                if not dora or rows[0] == rows[1]:
                    mixer.set(rows)
                    outputs[-1].append(output(unet))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_loaded(base: StableDiffusion, recipe: Recipe, saved: Path, name: str) -> None:
    """B9: a saved adapter is put on under any name, beside one of another name, and works as under its own."""
    files.load(base, name, saved)
    files.load(base, "other", saved)
    pictures = [ImageSampler(base, recipe, torch.device("cpu"), SILENT).paint([frame_of(base, {one: 1.0})])[0]
                for one in (name, "other")]  # fmt: skip
    assert pictures[0].tobytes() == pictures[1].tobytes()
    assert files.scales_of(base.denoiser, name) == files.scales_of(base.denoiser, "other") != {}
