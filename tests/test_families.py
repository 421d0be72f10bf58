"""Every family the whole way: from a hub, or a single file, to the exhibition; killed, one by one, exported and back.

A family is a row of `tests.support.families`. All tests of one share a run in this process, because nine seconds of ten
that one of its own takes are for loading libraries; only what is killed has one.
"""

import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from avignon.adapters import files
from avignon.core.events import Event
from avignon.core.records import Frame
from avignon.core.workspace import Workspace
from avignon.generation.sampler import ImageSampler
from avignon.models import loading
from avignon.pipeline import NAMES
from avignon.pipeline import run as carry
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe
from tests.support.commands import told
from tests.support.families import TINY, TinyFamily
from tests.support.hub import LocalHub, take_for_the_hub
from tests.support.runner import Runner, outputs
from tests.support.runs import carried, small_recipe, write_recipe
from tests.support.single_files import as_single_file, small_files
from tests.support.trainings import HOMER, PICASSO, SILENT, card, metrics, same, weights

pytestmark = pytest.mark.slow

STEPS = {"steps": 6, "checkpoint_every": 2}


@dataclass(frozen=True)
class Whole:
    """A family's tiny base, and a run on it that nothing disturbed."""

    family: TinyFamily
    base: Path
    hub: LocalHub
    recipe: Path
    space: Workspace

    def sections(self, **train: Any) -> dict[str, Any]:
        """What its recipe has beside the small one."""
        return sections(self.family, **train)


def sections(family: TinyFamily, **train: Any) -> dict[str, Any]:
    """What a family's recipe has beside the small one: another weight in a part, and adapters of equal effect."""
    generate = {"equalize_adapters": True, "block_weights": {HOMER: {family.block: 0.5}}, **family.generate}
    return {"generate": generate, "train": {**STEPS, **train}}


@pytest.fixture(scope="module", params=TINY, ids=lambda family: family.name)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """Each family in turn, fetched from a hub that is there for the other runs of it as well."""
    family: TinyFamily = request.param
    folder = tmp_path_factory.mktemp(family.name)
    base = family.make(folder / "base")
    with LocalHub() as hub, pytest.MonkeyPatch.context() as patched:
        hub.add(family.repository, base)
        take_for_the_hub(hub, folder / "hf" / "hub", patched)
        patched.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        recipe = write_recipe(folder / "recipe", family.repository, **sections(family))
        space, _ = carried(load_recipe(recipe), folder / "runs", "exhibit")
        yield Whole(family, base, hub, recipe, space)


def test_from_the_hub_to_the_exhibition(whole: Whole) -> None:
    """Fetched, trained on, painted with, measured and shown; both adapters learn; and nothing is done again."""
    space = whole.space
    assert (space.root / "exhibition/index.html").stat().st_size > 10_000
    assert json.loads(space.report.read_text(encoding="utf-8"))
    for name in (HOMER, PICASSO):
        base = card(space, name)["base"]
        assert (base["family"], base["model"]) == (whole.family.name, whole.family.repository)
        assert base["revision"] == whole.hub.commit(whole.family.repository)
        assert all(tensor.any() for key, tensor in weights(space, name).items() if "lora_B" in key)
    assert not same(weights(space), weights(space, PICASSO))
    heard: list[Event] = []
    carry(load_recipe(whole.recipe), space.root.parent, heard.append)
    assert [(event.stage, event.kind) for event in heard] == [(name, "skipped") for name in NAMES]


def test_killed_in_training_it_goes_on(whole: Whole, tmp_path: Path) -> None:
    """SIGKILL after a checkpoint of both adapters: the same command trains on from there, to the same bits."""
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # They decide the last bits.
    runner = Runner(tmp_path, {**whole.hub.environment(whole.base.parent / "hf"), **threads})

    def moment(event: Mapping[str, Any]) -> bool:
        return event["stage"] == "train" and f"{PICASSO}: loss" in event.get("text", "") and event["done"] >= 3

    code, complaint = runner.until(whole.recipe, moment, signal.SIGKILL)
    assert code == -signal.SIGKILL, complaint
    kept = Workspace(tmp_path / "runs/small").adapter(HOMER) / "checkpoints"
    assert list(kept.iterdir())
    space, heard = carried(load_recipe(whole.recipe), tmp_path / "runs", "train")
    assert [event.stage for event in heard if event.kind == "skipped"] == list(NAMES[:3])
    expected = outputs(whole.space.root)
    made = {name: found for name, found in outputs(space.root).items() if "sample" not in name}
    assert {name: expected[name] for name in made} == made
    assert f"adapters/{HOMER}/pytorch_lora_weights.safetensors" in made


def test_in_one_pass_as_one_by_one(whole: Whole, tmp_path: Path) -> None:
    """Trained by itself an adapter has the same losses, to rounding: the others beside it change nothing."""
    recipe = small_recipe(tmp_path, whole.base, **whole.sections(together=False))
    space, _ = carried(recipe, tmp_path / "runs", "train")
    for name in (HOMER, PICASSO):
        alone, together = ([line["loss"] for line in metrics(each, name)] for each in (space, whole.space))
        assert len(alone) == STEPS["steps"]
        assert alone == pytest.approx(together, rel=1e-3)


def test_exported_and_imported(whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`avignon export` and `avignon import` lose nothing: it denoises as the adapter of the run."""
    file = tmp_path / "homer.safetensors"
    assert told(capsys, "export", whole.space.adapter(HOMER), "--to", file)[0] == 0
    assert told(capsys, "import", file, "--as", "back")[0] == 0
    settings = {"adapters": {"back": "back"}, "weights": [{"back": 1.0}], **whole.family.generate}
    recipe = small_recipe(tmp_path, whole.base, generate=settings)
    base = loading.load(recipe.base, recipe.generate, torch.float32, SILENT)
    for name, place in ((HOMER, whole.space.adapter(HOMER)), ("back", Path(_collection()) / "back")):
        files.load(base, name, place)
    sampler = ImageSampler(base, recipe, torch.device("cpu"), SILENT)

    def denoised(mix: dict[str, float]) -> torch.Tensor:
        name = recipe.generate.scheduler
        return sampler.denoise([Frame("s", "x", "a boat", "", 3, 3, 5.0, name, 64, 64, mix, "", {}, "fp32")])

    own, back, none = (denoised(mix) for mix in ({HOMER: 1.0}, {"back": 1.0}, {}))
    assert torch.allclose(own, back, atol=1e-4)
    assert not torch.allclose(own, none, atol=1e-3)


def _collection() -> Path:
    from avignon.adapters import sources

    return sources.collection()


def test_from_a_single_file(whole: Whole, tmp_path: Path) -> None:
    """A checkpoint carries a whole run as its folder does; another file in its place is trained on again."""
    if not whole.family.has_single_file:
        pytest.skip("read from folders alone")
    file = as_single_file(whole.base, tmp_path / "mix.safetensors")
    config = small_files(whole.base, tmp_path / "config")
    recipe: Recipe = small_recipe(tmp_path, file, base={"config": str(config)}, **whole.sections())
    space, _ = carried(recipe, tmp_path / "runs", "exhibit")
    assert (space.root / "exhibition/index.html").stat().st_size > 10_000
    before = card(space)["base"]
    assert before["model"] == file.name
    assert before["fingerprint"] == card(whole.space)["base"]["fingerprint"]
    losses = [[line["loss"] for line in metrics(each)] for each in (space, whole.space)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    tensors = safetensors.torch.load(file.read_bytes())
    tensors["model.diffusion_model.out.2.bias"].add_(1)
    safetensors.torch.save_file(tensors, file)
    heard: list[Event] = []
    carry(recipe, tmp_path / "runs", heard.append, until="train")
    assert [event.stage for event in heard if event.kind == "done"] == ["train"]
    assert card(space)["base"]["fingerprint"] != before["fingerprint"]
