"""What cannot be used is told before anything is fetched or trained: the user's adapters, base and encoder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from avignon import checks, pipeline
from avignon.adapters import files, inject
from avignon.adapters.formats import diffusers as lora_format
from avignon.core.errors import AdapterError, AvignonError, ModelError, RecipeError
from avignon.core.events import Event, Reporter
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Base, Ranks, Recipe
from avignon.stages import train
from tests.support.bases import TARGETS, load_base
from tests.support.commands import python
from tests.support.runs import carried, small_recipe
from tests.support.tiny_sd import make_tiny_sd

SILENT = Reporter("test", lambda _: None)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> Path:
    """The folder of an adapter for the tiny base, with a card."""
    folder = tmp_path_factory.mktemp("guest")
    base = load_base(small_recipe(folder / "recipe", tiny_sd), torch.float32, SILENT)
    inject.add(base.denoiser, TARGETS, "guest", Ranks(attention=2, projection=2, convolution=2), 0.0, seed=1)
    files.save(base.denoiser, TARGETS, "guest", folder / "adapter" / lora_format.WEIGHTS_FILE)
    (folder / "adapter" / "card.json").write_text(json.dumps({"base": base.card}), encoding="utf-8")
    return folder / "adapter"


def with_guest(folder: Path, model: Path | str, guest: Path, **sections: Any) -> Recipe:
    """A recipe that mixes an external adapter, called as peft would not have it."""
    settings = {"adapters": {"style_v1.5": str(guest)}, "weights": [{"style_v1.5": 1.0}]}
    return small_recipe(folder, model, generate=settings, **sections)


def refusal(recipe: Recipe, folder: Path, kind: type[AvignonError] = AdapterError) -> str:
    """The line by which a run is refused before a stage begins, and before it has a folder."""
    heard: list[Event] = []
    with pytest.raises(kind) as refused:
        pipeline.run(recipe, folder / "runs", heard.append)
    assert heard == []
    assert not (folder / "runs").exists()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """Changes what an adapter's file holds."""

    def spoil(folder: Path) -> None:
        held = safetensors.torch.load_file(folder / lora_format.WEIGHTS_FILE)
        change(held)
        safetensors.torch.save_file(held, folder / lora_format.WEIGHTS_FILE)

    return spoil


def two_files(folder: Path) -> None:
    """Two files of other names in place of the one."""
    content = (folder / lora_format.WEIGHTS_FILE).read_bytes()
    (folder / lora_format.WEIGHTS_FILE).unlink()
    for name in ("one.safetensors", "two.safetensors"):
        (folder / name).write_bytes(content)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such file; an adapter's folder holds pytorch_lora_weights.safetensors"),
    "two files": (two_files, "holds several adapters: one.safetensors, two.safetensors; name one of these files"),
    "cut off": (
        lambda f: (f / lora_format.WEIGHTS_FILE).write_bytes((f / lora_format.WEIGHTS_FILE).read_bytes()[:-9]),
        "damaged: ",
    ),
    "empty": (lambda f: (f / lora_format.WEIGHTS_FILE).write_bytes(b""), "damaged: "),
    "of another program": (
        tensors(lambda t: t.update({k.replace("unet.", "model/"): t.pop(k) for k in list(t)})),
        "is no part of an adapter that is read",
    ),
    "of a text encoder": (
        tensors(lambda t: t.update({"text_encoder.x.lora_A.weight": torch.zeros(4, 16)})),
        "of text_encoder.x there is only text_encoder.x.lora_A.weight",
    ),
    "half": (tensors(lambda t: t.__delitem__(next(k for k in t if "lora_B" in k))), "no complete LoRA or DoRA"),
    "wider": (
        tensors(lambda t: t.update({k: torch.zeros(2, 99) for k in t if k.endswith("to_q.lora_A.weight")})),
        "made for another base: ",
    ),
    "other layer": (
        tensors(lambda t: t.update({k.replace("mid_block", "middle"): t.pop(k) for k in list(t) if "mid_block" in k})),
        "made for another base: there is no layer unet.middle.attentions",
    ),
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT.keys())
def test_adapter_that_cannot_be_used(
    guest: Path, tiny_sd: Path, tmp_path: Path, spoilt: tuple[Callable[[Path], object], str]
) -> None:
    """B10: an external adapter that is missing, damaged, foreign or does not fit is named before all else."""
    own = shutil.copytree(guest, tmp_path / "guest")
    spoilt[0](own)
    said = refusal(with_guest(tmp_path, tiny_sd, own), tmp_path)
    assert said.startswith((f"{own / lora_format.WEIGHTS_FILE}: ", f"{own}: "))
    assert spoilt[1] in said


def test_adapter_of_a_larger_base(guest: Path, tmp_path: Path) -> None:
    """B10: the miniature's layers are known, too: an adapter of the tiny base does not fit them."""
    recipe = with_guest(tmp_path, "embedded", guest, base={"resolution": 192})
    assert "made for another base: " in refusal(recipe, tmp_path)


def test_sharded_base_is_read_whole(guest: Path, tiny_sd: Path, tmp_path: Path) -> None:
    """B10: layers are looked for in all files of a base; of a damaged base nothing is concluded about an adapter."""
    base = shutil.copytree(tiny_sd, tmp_path / "base")
    whole = base / "unet" / "diffusion_pytorch_model.safetensors"
    held = safetensors.torch.load_file(whole)
    for number, keys in enumerate((sorted(held)[::2], sorted(held)[1::2]), start=1):
        part = whole.with_name(f"diffusion_pytorch_model-0000{number}-of-00002.safetensors")
        safetensors.torch.save_file({key: held[key] for key in keys}, part)
    whole.unlink()
    recipe = with_guest(tmp_path, base, guest)
    checks.check_files(recipe)
    part.write_bytes(b"damaged")
    checks.check_files(recipe)


def refused_by_train(recipe: Recipe, folder: Path) -> str:
    """The line by which training is refused once the base is there; nothing was trained."""
    space, _ = carried(recipe, folder / "runs")
    with pytest.raises(AdapterError) as refused:
        train.run(recipe, space, SILENT)
    assert not space.adapters.exists()
    return str(refused.value)


def test_card_of_another_base(guest: Path, tmp_path: Path) -> None:
    """B10: an adapter whose card names other weights of the same shapes is refused before anything is trained."""
    recipe = with_guest(tmp_path, make_tiny_sd(tmp_path / "other", seed=9), guest)
    assert "made for another base: tiny-sd" in refused_by_train(recipe, tmp_path)


def test_base_that_was_yet_to_be_fetched(
    guest: Path, tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B10: of a base on a hub, `train` tells what does not fit as soon as it is there; the file is read before."""
    own = shutil.copytree(guest, tmp_path / "guest")
    SPOILT["wider"][0](own)
    recipe = with_guest(tmp_path, tiny_sd, own)
    monkeypatch.setattr(Base, "folder", None)
    assert "made for another base: " in refused_by_train(recipe, tmp_path)
    SPOILT["half"][0](own)
    shutil.rmtree(tmp_path / "runs")
    assert "no complete LoRA" in refusal(recipe, tmp_path)


@pytest.mark.slow
def test_usable_adapter_is_taken(guest: Path, tiny_sd: Path, tmp_path: Path) -> None:
    """B9: the run of a sound adapter with a dot in its name ends well, and its pictures are told by that name."""
    recipe = with_guest(tmp_path, tiny_sd, guest, train={"steps": 1})
    space, _ = carried(recipe, tmp_path / "runs", "generate")
    index = json.loads(space.series_index.read_text(encoding="utf-8"))
    assert index["frames"][1][1]["weights"] == {"style_v1.5": 1.0}
    page = pipeline.run(recipe, tmp_path / "runs", lambda _: None).page
    assert "style_v1.5" in page.read_text(encoding="utf-8")


CODE = """
import sys
from pathlib import Path
from avignon import checks, pipeline
from avignon.recipe.load import load_recipe
heard = []
pipeline.run(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]), heard.append, until="generate")
print([event.kind for event in heard], [name for name in ("torch", "diffusers", "peft") if name in sys.modules])
"""


@pytest.mark.slow
def test_checks_need_no_torch(guest: Path, tiny_sd: Path, tmp_path: Path) -> None:
    """B10: a run that is up to date looks at the adapter again, and loads no torch for it."""
    recipe = with_guest(tmp_path, tiny_sd, guest, train={"steps": 1})
    carried(recipe, tmp_path / "runs", "generate")
    done = python("-c", CODE, tmp_path / "small.toml", tmp_path / "runs")
    assert done.stdout == f"{['skipped'] * 5} []\n", done.stderr


def test_missing_base_is_told_at_once(tmp_path: Path) -> None:
    """B10: a base whose directory is not there is told by field and value before anything is fetched."""
    nowhere = tmp_path / "nowhere"
    assert (
        refusal(small_recipe(tmp_path, nowhere), tmp_path, RecipeError) == f"base.model: {nowhere}: no such directory"
    )


@pytest.mark.parametrize(
    ("name", "said"), [("config.json", "config.json is missing"), ("model.safetensors", "incomplete: ")]
)
def test_encoder_that_is_incomplete(tiny_sd: Path, tmp_path: Path, name: str, said: str) -> None:
    """B10: an encoder's directory without its configuration or weights is told before anything is fetched."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    for file in {"config.json", "model.safetensors"} - {name}:
        (folder / file).write_text("{}", encoding="utf-8")
    recipe = small_recipe(tmp_path, tiny_sd, evaluate={"encoder": str(folder)})
    assert said in refusal(recipe, tmp_path, ModelError)


SIDES: dict[str, tuple[dict[str, Any], str]] = {
    "a scene's width": (
        {"generate": {"scenes": [{"prompt": "a boat"}, {"prompt": "a boat", "width": 96}]}},
        "generate.scenes.1.width: 96 is not a multiple of 64, as the base needs; 64 or 128 is",
    ),
    "a scene's height, of a base that is on a hub": (
        {"base": {"model": "z-image"}, "generate": {"scheduler": "euler", "scenes": [{"prompt": "a", "height": 40}]}},
        "generate.scenes.0.height: 40 is not a multiple of 16, as the base needs; 32 or 48 is",
    ),
    "a repository of any family": (
        {"base": {"model": "some/one"}, "generate": {"scenes": [{"prompt": "a boat", "height": 48}]}},
        "generate.scenes.0.height: 48 is not a multiple of 64, as the base needs; 64 is",
    ),
    "no bucket but the square": (
        {"prepare": {"shape": "buckets"}},
        "prepare.shape: 'buckets' have sides of multiples of 64, as the base needs, and about the area of 64 × 64: "
        "there is no such shape beside the square; use 'square', or a larger base.resolution",
    ),
}


@pytest.mark.parametrize(("sections", "said"), SIDES.values(), ids=SIDES.keys())
def test_sizes_that_the_base_cannot_have(tiny_sd: Path, tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    """B10: sizes of pictures follow from the base's family; what does not is told before anything is fetched."""
    assert refusal(small_recipe(tmp_path, tiny_sd, **sections), tmp_path, RecipeError) == said


@pytest.mark.parametrize("name", ["", " ", "two\nlines", "a\x00b"])
def test_names_that_cannot_be_shown(tiny_sd: Path, tmp_path: Path, name: str) -> None:
    """B9: an adapter's name needs something to be seen, in one line."""
    with pytest.raises(RecipeError, match=r"generate\.adapters: .* is not a name") as refused:
        small_recipe(tmp_path, tiny_sd, generate={"adapters": {name: "x"}})
    assert "\n" not in str(refused.value)


LINES = (
    "weights = [{ style_v1.5 = 1.0 }]",
    "adapters = { style_v1.5 = 'x' }",
    "strengths = { a.b = 1.0 }",
    "weight_schedule = { a.b = [1.0] }",
)


@pytest.mark.parametrize("line", LINES)
def test_dotted_name_without_quotation_marks(tiny_sd: Path, tmp_path: Path, line: str) -> None:
    """B9: TOML makes a table of a name with a dot: the line says that it needs quotation marks."""
    field, value = line.split(" = ", 1)
    small_recipe(tmp_path, tiny_sd)
    with pytest.raises(RecipeError, match="is a table here; a name with a dot needs quotation marks"):
        load_recipe(tmp_path / "small.toml", [f"generate.{field}={value}"])
