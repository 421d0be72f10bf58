"""Formats of adapter files: a second one is one module and one row."""

import importlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

from avignon import checks
from avignon.adapters import files, inject
from avignon.adapters.formats import registry
from avignon.core.errors import AdapterError
from avignon.core.events import Reporter
from avignon.recipe.schema import Ranks, Recipe
from tests.support.bases import TARGETS, load_base
from tests.support.runs import small_recipe

SILENT = Reporter("test", lambda _: None)

TOY = '''
"""A toy's format: layers with slashes, behind the toy's name."""

WEIGHTS_FILE = "toy.safetensors"


def recognizes(keys):
    return any(key.startswith("toy/") for key in keys)


def layer_of(stem):
    return "unet." + stem.removeprefix("toy/").replace("/", ".") if stem.startswith("toy/") else ""


def configs(paths, metadata):
    return {}
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module, and its row."""
    (tmp_path / "toy_format.py").write_text(TOY, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.FORMATS, "toy", importlib.import_module("toy_format"))


def saved(recipe: Recipe, folder: Path) -> dict[str, torch.Tensor]:
    """An adapter of random numbers in diffusers' format, and the same in the toy's in `folder`; its tensors."""
    denoiser = load_base(recipe, torch.float32, SILENT).denoiser
    random = torch.Generator().manual_seed(1)
    for parameter in inject.add(denoiser, TARGETS, "new", Ranks(attention=2, projection=0, convolution=0), 0.0, 1):
        parameter.data = torch.randn(parameter.shape, generator=random)
    weights = files.weights_of(denoiser, "new")
    renamed = {}
    for key, tensor in weights.items():
        layer, _, part = key.rpartition(".lora_")
        renamed[f"toy/{layer.replace('.', '/')}.lora_{part}"] = tensor
    folder.mkdir()
    safetensors.torch.save_file(renamed, folder / "toy.safetensors")
    return weights


def test_one_module_and_one_row_add_a_format(tmp_path: Path, tiny_sd: Path, toy: None) -> None:
    """A toy's adapter is checked without torch, loaded, and every tensor is as it was written."""
    recipe = small_recipe(tmp_path / "recipe", tiny_sd)
    weights = saved(recipe, tmp_path / "adapter")
    mixed = {"adapters": {"toy": str(tmp_path / "adapter")}}
    checks.check_files(small_recipe(tmp_path / "mixed", tiny_sd, generate=mixed))
    base = load_base(recipe, torch.float32, SILENT)
    files.load(base, "toy", tmp_path / "adapter")
    back = files.weights_of(base.denoiser, "toy")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)


def test_folder_of_no_format_is_told_as_before(tmp_path: Path, toy: None) -> None:
    """Where no adapter lies in a folder, the line names diffusers' file."""
    (tmp_path / "empty").mkdir()
    told = (
        r"pytorch_lora_weights\.safetensors: no such file; an adapter's folder holds pytorch_lora_weights\.safetensors"
    )
    with pytest.raises(AdapterError, match=told):
        registry.find(tmp_path / "empty")
