"""What a base is read and computed in, by its family: nothing of it is rounded unasked, overflows or is masked wrongly.

A base that is made ready to train is read in the precision of its files.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from avignon.core.events import Reporter
from avignon.generation.standalone import WantedBase
from avignon.models import loading
from avignon.models.base import DiffusionBase, Framing
from avignon.recipe.schema import Generate, Scene
from avignon.training.setup import RuntimeConfig
from tests.support.families import TINY, TinyFamily
from tests.support.runs import small_recipe
from tests.support.single_files import as_single_file, small_files

Tensors = dict[str, torch.Tensor]


def rewritten(base: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """The base, its files of weights changed."""
    for file in base.rglob("*.safetensors"):
        safetensors.torch.save_file(change(safetensors.torch.load_file(file)), file, {"format": "pt"})
    return base


def halved(tensors: Tensors) -> Tensors:
    """In half the bits, all of them."""
    return {key: tensor.bfloat16() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}


def but_one(tensors: Tensors) -> Tensors:
    """In half the bits but one, which 8 bits of significand do not hold."""
    key = next(key for key, tensor in tensors.items() if tensor.is_floating_point())
    return halved(tensors) | {key: torch.full_like(tensors[key], 1 + 2**-20, dtype=torch.float32)}


def both_ways(family: TinyFamily, base: Path, config: str = "") -> list[DiffusionBase]:
    """The base as `train` reads it, and all of it in fp32."""
    wanted, reporter = WantedBase(str(base), config=config), Reporter("train", lambda _: None)
    generate = Generate(scenes=(Scene(prompt=""),), **family.generate)
    return [loading.load(wanted, generate, torch.float32, reporter, denoiser_as_stored=way) for way in (True, False)]


def assert_same_numbers(one: DiffusionBase, other: DiffusionBase) -> None:
    """Whatever their precision."""
    for ours, theirs in zip(one.denoiser.parameters(), other.denoiser.parameters(), strict=True):
        assert torch.equal(ours.float(), theirs)
    assert one.parts == other.parts


def test_denoiser_is_read_as_stored(family: TinyFamily, tmp_path: Path) -> None:
    """In half the memory; what adapters may change of the readers is in fp32, where their training computes."""
    one, full = both_ways(family, rewritten(family.make(tmp_path / "base"), halved))
    assert {parameter.dtype for parameter in one.denoiser.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in full.denoiser.parameters()} == {torch.float32}
    assert {p.dtype for encoder in one.prompt_encoders.values() for p in encoder.parameters()} <= {torch.float32}
    assert_same_numbers(one, full)


def test_a_file_of_two_precisions_is_not_rounded(family: TinyFamily, tmp_path: Path) -> None:
    """It is read in the one that holds both."""
    one, full = both_ways(family, rewritten(family.make(tmp_path / "base"), but_one))
    assert {parameter.dtype for parameter in one.denoiser.parameters()} == {torch.float32}
    assert_same_numbers(one, full)


@pytest.mark.parametrize("family", [family for family in TINY if family.has_single_file], ids=lambda each: each.name)
def test_single_file_is_read_as_stored(family: TinyFamily, tmp_path: Path) -> None:
    """As artists share them, in fp16."""
    folder = rewritten(family.make(tmp_path / "base"), halved)
    file, config = as_single_file(folder, tmp_path / "mix.safetensors"), small_files(folder, tmp_path / "config")
    one, full = both_ways(family, file, str(config))
    assert {parameter.dtype for parameter in one.denoiser.parameters()} == {torch.bfloat16}
    assert_same_numbers(one, full)


def test_the_card_computes_in_what_the_family_allows(family: TinyFamily, tmp_path: Path) -> None:
    """Transformers come to NaN in fp16, so that `auto` is bf16 of theirs."""
    base = family.make(tmp_path / "base")
    recipe = small_recipe(tmp_path, base, generate=family.generate, train={"precision": "auto"})
    chosen = RuntimeConfig.for_device(recipe, torch.device("cuda"))
    assert chosen.precision == ("fp16" if family.row.network == "UNet" else "bf16")


def test_only_who_says_so_masks_attention(
    family: TinyFamily, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of different lengths in one batch: what attention is given, whoever computes it."""
    masks: list[object] = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def attend(*args: Any, **how: Any) -> torch.Tensor:
        masks.append(how.get("attn_mask"))
        return plain(*args, **how)

    recipe = small_recipe(tmp_path, tiny, generate=family.generate)
    base = loading.load(recipe.base, recipe.generate, torch.float32, Reporter("train", lambda _: None))
    base.set_attention_backend("sdpa")
    told = base.encode_prompts(["a", "a boat on the sea " * 12], torch.device("cpu"), Reporter("", lambda _: None))
    told |= base.size_conditioning([Framing.whole(64, 64)] * 2, torch.device("cpu"))
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    base.predict(torch.zeros(2, *base.latent_shape(64, 64)), torch.full((2,), 500), told)
    assert masks
    assert any(mask is not None for mask in masks) is family.row.masks_attention
