"""Frozen layers: weights in 8 or 4 bits or in RAM, made in full where they are computed with."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy.stats import norm

from avignon.core.events import Reporter
from avignon.models import frozen, loading
from avignon.models.base import DiffusionBase
from avignon.models.frozen import BLOCK, LEVELS
from avignon.models.outline import outline
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.models.z_image.model import ZImage
from tests.support.adapters import networks
from tests.support.card import DEVICE, pretended
from tests.support.runs import small_recipe
from tests.support.single_files import as_single_file, small_files
from tests.support.tiny_sdxl import sdxl_unet
from tests.support.tiny_z_image import z_image_transformer

SILENT = Reporter("train", lambda _: None)
LAYERS = {
    "linear": (torch.nn.Linear(96, 130), (3, 5, 96)),
    "convolution": (torch.nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), (2, 8, 9, 9)),
}
KINDS = [("linear", ""), ("linear", "int8"), ("linear", "nf4"), ("convolution", "")]


def kept(layer: torch.nn.Module, kind: str) -> Any:
    """A frozen copy of a layer, its weights kept in a way; in full, they are in RAM."""
    parent = torch.nn.Sequential(copy.deepcopy(layer)).requires_grad_(requires_grad=False)
    if kind:
        frozen.quantize(parent, ["0"], kind)
    else:
        frozen.keep_in_ram(parent)
    return parent[0]


def load(folder: Path, model: Path, **base: Any) -> DiffusionBase:
    """A tiny base as a recipe with these settings loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = small_recipe(folder, model, base=base, generate={"scheduler": "euler"})
    return loading.load(recipe.base, recipe.generate, torch.float32, SILENT)


# A layer --------------------------------------------------------------------------------------------------------------


def test_levels_are_quantiles_of_a_normal_distribution() -> None:
    """Dettmers et al., arXiv:2305.14314, appendix E: 8 above 0 and 7 below it, in even steps of probability."""
    offset = (1 - 1 / (2 * 15) + 1 - 1 / (2 * 16)) / 2
    above, below = (norm.ppf(np.linspace(offset, 0.5, count)[:-1]) for count in (9, 8))
    levels = np.sort([*above, 0.0, *(-below)])
    assert np.allclose(LEVELS, levels / levels.max(), atol=1e-6)


def test_weights_are_rounded_to_the_nearest_step() -> None:
    """int8: to half a step of each channel, a channel of zeros as well. nf4: to the nearest of a block's 16 weights."""
    layer = torch.nn.Linear(100, 7)
    with torch.no_grad():
        layer.weight[2] = 0
        layer.weight[3, 5] = 4.0
    made = kept(layer, "int8").weight
    step = layer.weight.abs().amax(1, keepdim=True) / 127
    assert ((made - layer.weight).abs() <= step / 2 * 1.001).all()
    assert (made[2] == 0).all()
    flat = layer.weight.detach().flatten()
    made = kept(layer, "nf4").weight.flatten()
    for start in range(0, len(flat), BLOCK):
        block = flat[start : start + BLOCK]
        allowed = block.abs().max() * torch.tensor(LEVELS)
        nearest = allowed[(block[:, None] - allowed).abs().argmin(1)]
        assert torch.allclose(made[start : start + BLOCK], nearest)


@pytest.mark.parametrize(("layer", "kind"), KINDS)
def test_it_computes_as_a_plain_layer_with_its_weights(layer: str, kind: str) -> None:
    """Outputs and gradients of inputs are the same bits; for the backward pass it keeps nothing at all."""
    module, shape = LAYERS[layer]
    one, plain = kept(module, kind), copy.deepcopy(module).requires_grad_(requires_grad=False)
    assert type(one.weight) is torch.Tensor
    plain.weight.data = one.weight
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):  # type: ignore[func-returns-value]
        ours = one(inputs[0])
    theirs = plain(inputs[1])
    gradient = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    ours.backward(gradient)
    theirs.backward(gradient)
    assert torch.equal(ours, theirs)
    assert torch.equal(inputs[0].grad, inputs[1].grad)  # type: ignore[arg-type]
    assert saved == []
    assert frozen.shape_of(one) == tuple(module.weight.shape)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_scales_keep_their_precision(kind: str) -> None:
    """In bf16 weights are those of fp32, rounded once; a channel's scale is a factor on all of it."""
    one = kept(LAYERS["linear"][0], kind)
    before = one.weight
    one.to(torch.bfloat16)
    assert torch.equal(one.weight, before.bfloat16())
    assert one(torch.ones(2, 96, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert torch.equal(one.to(torch.float32).weight, before)


def test_what_they_take() -> None:
    """A byte a weight and 4 a channel; half a byte and 4 a block of 64, with one table of 2 KiB."""
    layer = torch.nn.Linear(1024, 512)
    assert kept(layer, "int8").stored_bytes == 1024 * 512 + 4 * 512
    assert kept(layer, "nf4").stored_bytes == 1024 * 512 // 2 + 4 * 1024 * 512 // BLOCK + 2048


def test_fp16_does_not_overflow() -> None:
    """Weights are made before they are multiplied: whole numbers up to 127 would sum beyond fp16's 65,504."""
    layer = torch.nn.Linear(2048, 64)
    x = torch.full((1, 2048), 20.0, dtype=torch.float16)
    assert kept(layer, "int8").to(torch.float16)(x).isfinite().all()
    assert not (x @ (layer.weight * 127 / layer.weight.abs().max()).sign().mul(64).half().T.abs()).isfinite().all()


@pytest.mark.parametrize(("layer", "kind"), [*KINDS, ("linear", "in RAM")])
def test_weights_in_ram_go_to_the_card_when_they_are_computed(layer: str, kind: str) -> None:
    """The layer is on the card, its weights are not, and yet it computes there; others go where the layer goes."""
    module, shape = LAYERS[layer]
    one = kept(module, "int8" if kind == "in RAM" else kind)
    if kind == "in RAM":
        one.keep_in_ram()
    with pretended():
        one.to(DEVICE, torch.float16)
        assert one.weight.device == DEVICE
        assert one(torch.zeros(shape, device=DEVICE, dtype=torch.float16)).device == DEVICE
        is_here = {tensor.device.type for tensor in one.stored} == {"cpu"}
    assert is_here is (kind in ("", "in RAM"))


@pytest.mark.slow
def test_a_frozen_layer_compiles() -> None:
    """In one graph, forward and backward."""
    module = torch.nn.Sequential(kept(torch.nn.Linear(64, 64), "nf4"), torch.nn.ReLU())
    compiled: Any = torch.compile(module, dynamic=False, fullgraph=True)
    inputs = [torch.randn(4, 64, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    module(inputs[0]).sum().backward()
    compiled(inputs[1]).sum().backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-6)  # type: ignore[arg-type]


# Which layers ---------------------------------------------------------------------------------------------------------

LEFT_OF_A_UNET = {
    "conv_in", "time_embedding.linear_1", "time_embedding.linear_2", "conv_out",
    *(f"{block}.resnets.*.{layer}" for block in ("down_blocks.*", "mid_block", "up_blocks.*")
      for layer in ("time_emb_proj", "conv1", "conv2")),
    *(f"{block}.resnets.*.conv_shortcut" for block in ("down_blocks.*", "up_blocks.*")),
    "down_blocks.*.downsamplers.*.conv", "up_blocks.*.upsamplers.*.conv",
}  # fmt: skip
LEFT_OF_Z_IMAGE = {
    "all_x_embedder.2-1", "all_final_layer.2-1.linear", "all_final_layer.2-1.adaLN_modulation.*",
    "noise_refiner.*.adaLN_modulation.*", "layers.*.adaLN_modulation.*",
    "t_embedder.mlp.*", "cap_embedder.*",
}  # fmt: skip


FULL_SIZE: dict[str, Callable[[], Any]] = {
    "2.1": lambda: networks("2.1")["unet"],
    "1.5": lambda: networks("1.5")["unet"],
    "sdxl": sdxl_unet,
    "z-image": z_image_transformer,
}


@pytest.mark.parametrize("family", FULL_SIZE)
def test_layers_left_in_full(family: str) -> None:
    """Of the real shapes: what sees tokens within blocks is quantised, and that is most; the rest is named."""
    with torch.device("meta"):
        denoiser = FULL_SIZE[family]()
    targets = StableDiffusion.targets
    if family == "z-image":
        parts = {"transformer": denoiser, "vae": None, "text_encoder": None, "tokenizer": None}
        targets = ZImage(parts, {}, "", Path(), "", 64, {}).targets
    left = set(frozen.unquantised(denoiser, targets))
    wanted = LEFT_OF_Z_IMAGE if family == "z-image" else LEFT_OF_A_UNET
    if family == "1.5":  # Its projections are convolutions of 1×1.
        blocks = ("down_blocks.*", "mid_block", "up_blocks.*")
        wanted = wanted | {f"{block}.attentions.*.{layer}" for block in blocks for layer in ("proj_in", "proj_out")}
    if family == "sdxl":
        wanted = wanted | {"add_embedding.linear_1", "add_embedding.linear_2"}
    assert left == wanted
    chosen = frozen.linear_in_blocks(denoiser, targets)
    share = sum(denoiser.get_submodule(name).weight.numel() for name in chosen) / denoiser.num_parameters()
    assert round(share, 2) == {"2.1": 0.32, "1.5": 0.28, "sdxl": 0.86, "z-image": 0.98}[family]


def test_layers_left_in_full_are_named_without_weights(tiny_z_image: Path, tmp_path: Path) -> None:
    """By a base's small files alone, as `avignon doctor` does; the same as of the loaded base."""
    base = load(tmp_path, tiny_z_image, quantize="int8")
    recipe = small_recipe(tmp_path, tiny_z_image, generate={"scheduler": "euler"})
    drawn = outline(recipe.base, SILENT)
    named = frozen.unquantised(drawn.denoiser, drawn.targets)
    assert named == frozen.unquantised(base.denoiser, base.targets)
    assert set(named) <= LEFT_OF_Z_IMAGE


@pytest.mark.slow
def test_base_says_how_it_is_kept(tiny_sd: Path, tiny_sdxl: Path, tiny_z_image: Path, tmp_path: Path) -> None:
    """Its identity and its card do, its fingerprint does not: adapters fit the base in full, and take each other's."""
    for number, model in enumerate((tiny_sd, tiny_sdxl, tiny_z_image)):
        plain, small, other = (load(tmp_path / f"{number}{k}", model, quantize=k) for k in ("", "int8", "nf4"))
        assert len({plain.identity, small.identity, other.identity}) == 3
        assert "quantized" not in plain.card
        assert small.card == {**plain.card, "quantized": "int8", "parts": {**plain.parts, **small.parts}}
        assert plain.fits(small.card)
        assert small.fits(plain.card)
        assert small.weight_bytes(torch.float32) < plain.weight_bytes(torch.float32)
        assert {parameter.dtype for parameter in small.denoiser.parameters()} == {torch.float32}
        readers = [any(isinstance(m, frozen.Frozen) for m in reader.modules()) for reader in small.readers]
        assert set(readers) == {model == tiny_z_image}, "a language model is kept in 8 bits, a CLIP in full"


@pytest.mark.slow
def test_single_file_is_quantised_like_its_folder(tiny_sdxl: Path, tmp_path: Path) -> None:
    """The same weights, whichever way they are read."""
    file, config = as_single_file(tiny_sdxl, tmp_path / "mix.safetensors"), small_files(tiny_sdxl, tmp_path / "config")
    one = load(tmp_path / "one", tiny_sdxl, quantize="int8")
    other = load(tmp_path / "other", file, quantize="int8", config=str(config))
    ours, theirs = (dict(frozen.weights(base.denoiser)) for base in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_files_precision_is_read_and_quantised_from_it(tiny_z_image: Path, tmp_path: Path) -> None:
    """A base whose files are in bf16 is that of fp32 with the same numbers: nothing is rounded twice."""
    pair = []
    for name, dtype in (("half", torch.bfloat16), ("full", torch.float32)):
        copied = tmp_path / name / "base"
        for path in (p for p in tiny_z_image.rglob("*") if p.is_file()):
            target = copied / path.relative_to(tiny_z_image)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            if path.suffix == ".safetensors":
                tensors = {k: t.bfloat16().to(dtype) for k, t in safetensors.torch.load_file(path).items()}
                safetensors.torch.save_file(tensors, target, {"format": "pt"})
        pair.append(load(tmp_path / name, copied, quantize="int8"))
    half, full = (dict(frozen.weights(base.denoiser)) for base in pair)
    assert half.keys() == full.keys()
    assert all(torch.equal(half[key], full[key]) for key in half)
    read = [base.encode_prompts(["a boat"], torch.device("cpu"), SILENT).tensors["text"] for base in pair]
    assert [text.dtype for text in read] == [torch.bfloat16, torch.float32]  # A language model stays as its files are.
    assert torch.cosine_similarity(read[0].float().flatten(), read[1].flatten(), 0) > 0.999
