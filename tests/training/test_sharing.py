"""What a finished adapter's folder holds for other programs, beside the trained weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from avignon import pipeline
from avignon.adapters import files
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.core import png
from avignon.core.events import Event, StageWarning
from avignon.core.files import sha256_of
from avignon.core.records import frame_from
from avignon.core.workspace import Workspace
from avignon.generation.sampler import ImageSampler
from avignon.recipe.schema import Recipe
from avignon.training import sharing
from tests.support.bases import load_base
from tests.support.exports import by_underscores, header, pixels
from tests.support.runs import carried
from tests.support.trainings import HOMER, PICASSO, SILENT, prepared, run, weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> tuple[Recipe, Workspace]:
    """Two finished adapters whose alpha is not their rank."""
    recipe, space = prepared(tmp_path_factory.mktemp("shared"), tiny_sd, alpha=3.0, learning_rate=0.05)
    run(recipe, space)
    return recipe, space


def test_one_file_for_all_other_programs(trained: tuple[Recipe, Workspace]) -> None:
    """The same numbers under kohya's names, with the true alpha of each layer; JSON and picture of the same stem."""
    _, space = trained
    for name in (HOMER, PICASSO):
        folder, own = space.adapter(name), weights(space, name)
        shared = by_underscores(safetensors.torch.load_file(folder / f"{name}.safetensors"))
        layers = {key.removesuffix(".lora_A.weight") for key in own if key.endswith(".lora_A.weight")}
        assert shared.keys() == {"lora_" + layer.replace(".", "_") for layer in layers}
        for layer in layers:
            up, down, alpha = shared["lora_" + layer.replace(".", "_")]
            assert torch.equal(up, own[f"{layer}.lora_B.weight"])
            assert torch.equal(down, own[f"{layer}.lora_A.weight"])
            assert alpha == 3.0
        told = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        held = header(folder / f"{name}.safetensors")
        assert told["activation text"] == held["modelspec.trigger_phrase"]
        assert told["description"] == held["modelspec.description"]
        assert json.loads(held["ss_tag_frequency"]).keys() == {name}


def test_preview_is_painted_by_the_adapter_alone(trained: tuple[Recipe, Workspace]) -> None:
    """The first scene with the trigger, at weight 1: what the sampler paints of its frame with the saved file."""
    recipe, space = trained
    picture = space.adapter(HOMER) / f"{HOMER}.png"
    frame = frame_from(png.png_fields(picture))
    assert frame.prompt == "a boat on the sea, in the style of homer"
    assert (dict(frame.weights), frame.width) == ({HOMER: 1.0}, recipe.base.resolution)
    assert frame.adapters == {HOMER: sha256_of(space.adapter(HOMER) / WEIGHTS_FILE)}
    base = load_base(recipe, torch.float32, SILENT)
    files.load(base, HOMER, space.adapter(HOMER))
    (again,) = ImageSampler(base, recipe, torch.device("cpu"), SILENT).paint([frame])
    assert np.abs(pixels(again) - pixels(picture)).max() <= 1
    with Image.open(picture) as image:
        assert "Lora weights" in image.text["parameters"]  # type: ignore[attr-defined]
    assert header(space.adapter(HOMER) / f"{HOMER}.safetensors")["modelspec.thumbnail"].startswith("data:image/jpeg")


@pytest.mark.slow
def test_painting_changes_no_weight(
    trained: tuple[Recipe, Workspace], tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters that finish one after the other have the same bytes whether a preview is painted between them or not."""
    _, space = trained
    monkeypatch.setattr(sharing, "paint", lambda *_: None)
    recipe, plain = prepared(tmp_path, tiny_sd, alpha=3.0, learning_rate=0.05)
    run(recipe, plain)
    for name in (HOMER, PICASSO):
        assert not (plain.adapter(name) / f"{name}.png").exists()
        assert sha256_of(plain.adapter(name) / WEIGHTS_FILE) == sha256_of(space.adapter(name) / WEIGHTS_FILE)


@pytest.mark.slow
def test_without_a_preview_an_adapter_is_finished_as_well(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory runs out while the preview is painted, that is a warning; nothing that was trained is lost."""

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    recipe, space = prepared(tmp_path, tiny_sd, mode="joint")
    heard: list[Event] = []
    with monkeypatch.context() as patch:
        patch.setattr(ImageSampler, "paint", full)
        run(recipe, space, heard.append)
    told = [event.text for event in heard if isinstance(event, StageWarning)]
    assert told == ["joint: no preview: CUDA out of memory"]
    folder = space.adapter("joint")
    assert not (folder / "joint.png").exists()
    assert "modelspec.thumbnail" not in header(folder / "joint.safetensors")
    before = sha256_of(folder / WEIGHTS_FILE)
    carried(recipe, space.root.parent, "generate")
    assert sha256_of(folder / WEIGHTS_FILE) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
    ],
)
def test_a_lost_file_is_written_again_without_training(
    tmp_path: Path, tiny_sd: Path, spoil: Callable[[Path], None]
) -> None:
    """The manifest knows the file: one that is lost or cut is made again, the same bytes, and nothing is trained."""
    recipe, space = prepared(tmp_path, tiny_sd, mode="joint")
    carried(recipe, space.root.parent, "train")
    shared = space.adapter("joint") / "joint.safetensors"
    before = shared.read_bytes()
    spoil(shared)
    _, heard = carried(recipe, space.root.parent, "train")
    assert shared.read_bytes() == before
    assert not any(": loss" in event.text for event in heard)
    _, heard = carried(recipe, space.root.parent, "train")
    assert {event.kind for event in heard} == {"skipped"}


@pytest.mark.slow
def test_a_run_of_before_gets_the_files_and_is_not_measured_again(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was finished before the files were known gets them, a picture of its series too; nothing else is new."""
    recipe, space = prepared(tmp_path, tiny_sd)
    with monkeypatch.context() as before:
        before.setattr(pipeline, "ADAPTER_FILES", 1)
        before.setattr(sharing, "paint", lambda *_: None)
        before.setattr(sharing, "share", lambda *_: None)
        carried(recipe, space.root.parent, "evaluate")
    assert not (space.adapter(HOMER) / f"{HOMER}.safetensors").exists()
    _, heard = carried(recipe, space.root.parent, "evaluate")
    assert [e.stage for e in heard if e.kind == "skipped"] == ["collect", "curate", "prepare", "evaluate"]
    assert not any(event.kind == "progress" for event in heard)
    for name, stop in ((HOMER, "stop-1"), (PICASSO, "stop-3")):
        preview = space.adapter(name) / f"{name}.png"
        assert preview.read_bytes() == (space.series / "scene-1" / f"{stop}.png").read_bytes()
        assert header(space.adapter(name) / f"{name}.safetensors")["modelspec.thumbnail"]


def test_one_card_gives_one_file(trained: tuple[Recipe, Workspace]) -> None:
    """The files are written again with the same bytes: nothing in them is of the clock or of chance."""
    recipe, space = trained
    folder = space.adapter(HOMER)
    before = {path.name: sha256_of(path) for path in folder.iterdir() if path.is_file()}
    (folder / f"{HOMER}.json").unlink()
    run(recipe, space)
    assert {path.name: sha256_of(path) for path in folder.iterdir() if path.is_file()} == before
