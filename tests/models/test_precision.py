"""A base that is made ready to train is read in the precision of its files, and not a number of it is rounded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from avignon.core.events import Reporter
from avignon.generation.standalone import WantedBase
from avignon.models import loading
from avignon.models.base import DiffusionBase
from avignon.recipe.schema import Generate, Scene
from tests.support.families import TINY, TinyFamily
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
