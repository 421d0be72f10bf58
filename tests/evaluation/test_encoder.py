"""Learned encoders: loaded from a directory and a hub, what they make of a picture, and what the report then says."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from avignon import pipeline
from avignon.cli.main import main
from avignon.core.errors import ModelError, RecipeError
from avignon.core.events import Event, Reporter
from avignon.core.files import sha256_of
from avignon.core.records import plain
from avignon.evaluation import report as reports
from avignon.evaluation import style
from avignon.models import hub, image_encoder
from avignon.models.image_encoder import ImageEncoder, Preprocessing
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Evaluate
from tests.support.hub import LocalHub, take_for_the_hub
from tests.support.museum import draw
from tests.support.runs import small_recipe, write_recipe
from tests.support.tiny_encoders import ENCODERS, PREPARED, make_encoder

WEIGHTS = "model.safetensors"
REPO = "someone/tiny-dino"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One encoder of each architecture."""
    root = tmp_path_factory.mktemp("encoders")
    return {kind: make_encoder(root / kind, kind) for kind in ENCODERS}


@pytest.fixture
def copy(tiny: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the DINOv2, to spoil."""
    return shutil.copytree(tiny["Dinov2Model"], tmp_path / "copy")


@pytest.fixture
def local(tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with the DINOv2 on it."""
    with LocalHub() as server:
        server.add(REPO, tiny["Dinov2Model"])
        take_for_the_hub(server, tmp_path / "hub-cache", monkeypatch)
        yield server


def test_refused_token(local: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token that the hub refuses, a public encoder is had without it, and a warning says so."""
    local.tokens = frozenset()
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    heard: list[Event] = []
    own = image_encoder.load(REPO, (), "main", Reporter("evaluate", heard.append))
    assert own.revision == local.commit(REPO)
    assert ["refuses the token" in event.text for event in heard] == [True]


def loaded(model: Path | str, mirrors: tuple[str, ...] = (), revision: str = "main") -> ImageEncoder:
    """The encoder that a recipe names so."""
    return image_encoder.load(str(model), mirrors, revision, Reporter("evaluate", lambda _: None))


def refused(model: Path | str, **settings: Any) -> str:
    """The one line by which it is refused."""
    with pytest.raises(ModelError) as told:
        loaded(model, **settings)
    assert "\n" not in str(told.value)
    return str(told.value)


def of_the_model(folder: Path, kind: str, seen: torch.Tensor) -> Any:
    """The vector by transformers' own means, of the whole model."""
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    with torch.no_grad():
        if kind == "CLIPModel":
            return model.get_image_features(pixel_values=seen).pooler_output[0]
        told = model(pixel_values=seen)
        if kind == "CLIPVisionModel":
            return model.post_layernorm(told.last_hidden_state[:, 0])[0]
        return told.image_embeds[0] if "image_embeds" in told else told.last_hidden_state[0, 0]


@pytest.mark.parametrize("kind", ENCODERS)
def test_vector_is_the_models_own(tiny: dict[str, Path], kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of each architecture the vector is its image embedding or class token, at length 1; loading says nothing."""
    own = loaded(tiny[kind])
    assert not caplog.records
    picture = draw(3, 80, 60)
    expected = of_the_model(tiny[kind], kind, torch.from_numpy(own.preprocessing(picture))[None]).double().numpy()
    assert own(picture) == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
    assert np.linalg.norm(own(picture)) == pytest.approx(1)
    assert style.angle_distance(own(picture), own(draw(8, 80, 60))) > 1e-4, "two pictures differ"
    assert (own.model, own.revision, own.fingerprint) == (kind, "", sha256_of(tiny[kind] / WEIGHTS))
    assert not own.network.training
    assert own.network.dtype == torch.float32


PREPARATIONS: dict[str, dict[str, Any]] = {
    "as usual": {},
    "older numbers": {"size": 36, "crop_size": 32},
    "bilinear": {"resample": 2},
    "no crop, to a fixed size": {"size": {"height": 20, "width": 30}, "do_center_crop": False},
    "a crop alone": {"do_resize": False},
    "a crop larger than the picture": {"do_resize": False, "crop_size": {"height": 101, "width": 90}},
    "as it is": {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False},
}


@pytest.mark.parametrize("processor", [CLIPImageProcessorPil, BitImageProcessorPil])
@pytest.mark.parametrize("size", [(80, 60), (61, 97), (33, 33)])
@pytest.mark.parametrize("changes", PREPARATIONS.values(), ids=PREPARATIONS.keys())
def test_preparation_is_that_of_transformers(
    tmp_path: Path, processor: Any, size: tuple[int, int], changes: dict[str, Any]
) -> None:
    """A picture is prepared as transformers' own processors for CLIP and DINOv2 do with Pillow."""
    told = {**PREPARED, **changes}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told), encoding="utf-8")
    own = Preprocessing.read(tmp_path / "preprocessor_config.json")
    (theirs,) = processor(**told)(draw(5, *size))["pixel_values"]
    assert own(draw(5, *size)).shape == theirs.shape
    assert np.abs(own(draw(5, *size)) - theirs).max() < 1e-5


def without(name: str) -> Callable[[Path], None]:
    """Remove a file."""
    return lambda folder: (folder / name).unlink()


def told(name: str, **values: Any) -> Callable[[Path], None]:
    """Change values of a JSON file."""

    def spoil(folder: Path) -> None:
        known = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps({**known, **values}), encoding="utf-8")

    return spoil


def cut(folder: Path) -> None:
    """Keep half of the weights."""
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def pickled(folder: Path) -> None:
    """A pickle in place of safetensors."""
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def text(name: str, content: str) -> Callable[[Path], None]:
    """Another text in a file."""

    def spoil(folder: Path) -> None:
        (folder / name).write_text(content, encoding="utf-8")

    return spoil


PREPARATION = "preprocessor_config.json"
BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (without("config.json"), "config.json is missing"),
    "no preparation": (without(PREPARATION), f"{PREPARATION} is missing"),
    "no weights": (without(WEIGHTS), f"{WEIGHTS} is missing"),
    "pickled": (pickled, "holds only pickle files (pytorch_model.bin)"),
    "truncated": (cut, "damaged"),
    "damaged config": (text("config.json", "{"), "config.json: damaged"),
    "config is a list": (text("config.json", "[]"), "config.json: damaged"),
    "another architecture": (
        told("config.json", architectures=["ViTModel"]),
        "names ViTModel; supported are CLIPModel",
    ),
    "no architecture": (told("config.json", architectures=None), "names nothing"),
    "another width": (told("config.json", hidden_size=32), "not of the shape"),
    "more layers": (told("config.json", num_hidden_layers=3), "tensors are missing"),
    "damaged preparation": (text(PREPARATION, "x"), f"{PREPARATION}: damaged"),
    "no size": (text(PREPARATION, "{}"), f"{PREPARATION}: a value is missing"),
    "two channels": (told(PREPARATION, image_mean=[0, 0]), f"{PREPARATION}: a value"),
    "unknown resampling": (told(PREPARATION, resample=99), f"{PREPARATION}: a value"),
    "a crop of nothing": (told(PREPARATION, crop_size={"height": 0, "width": 0}), "does not fit the model"),
}


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD.keys())
def test_bad_directories_are_named(copy: Path, spoil: Callable[[Path], None], said: str) -> None:
    """Whatever a directory lacks or holds wrongly is one line that names it."""
    spoil(copy)
    line = refused(copy)
    assert said in line
    assert str(copy) in line


def test_clip_of_another_size_is_named(tiny: dict[str, Path], tmp_path: Path) -> None:
    """A CLIP takes pictures of one size: a preparation that gives another is told at once."""
    folder = shutil.copytree(tiny["CLIPModel"], tmp_path / "clip")
    told(PREPARATION, crop_size={"height": 24, "width": 24})(folder)
    assert "does not fit the model" in refused(folder)


def test_code_of_a_repository_is_not_run(copy: Path, tmp_path: Path) -> None:
    """Neither a pickle beside the weights nor code that config.json names is run."""
    (copy / "own.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nDinov2Config = Dinov2Model = object\n")
    told("config.json", auto_map={"AutoConfig": "own.Dinov2Config", "AutoModel": "own.Dinov2Model"})(copy)
    loaded(copy)
    assert not (tmp_path / "sprung").exists()


def test_hub_by_branch_and_commit(local: LocalHub, tiny: dict[str, Path], tmp_path: Path) -> None:
    """A branch is loaded as its newest commit, which is noted, a commit as itself; offline the cache does."""
    old = local.commit(REPO)
    newer = local.add(REPO, make_encoder(tmp_path / "newer", "Dinov2Model", seed=1), revision="next")
    main, following, pinned = loaded(REPO), loaded(REPO, revision="next"), loaded(REPO, revision=old)
    assert (main.model, main.revision, following.revision, pinned.revision) == (REPO, old, newer, old)
    assert main.fingerprint == pinned.fingerprint == sha256_of(tiny["Dinov2Model"] / WEIGHTS) != following.fingerprint
    local.offline = True
    again = loaded(REPO)
    assert (again.revision, again.fingerprint, again.output) == (main.revision, main.fingerprint, main.output)


def test_hub_gives_only_what_is_needed(local: LocalHub, copy: Path) -> None:
    """Of a repository with weights in many formats only the safetensors are fetched; without them it is refused."""
    for name in ("pytorch_model.bin", "tf_model.h5", "open_clip_model.safetensors"):
        (copy / name).write_bytes(b"x" * 100)
    local.add("someone/many", copy)
    loaded("someone/many")
    (copy / WEIGHTS).unlink()
    local.add("someone/pickled", copy)
    assert f"{WEIGHTS} is missing" in refused("someone/pickled")
    assert not any("pytorch_model" in path or "tf_model" in path or "open_clip" in path for _, path in local.requests)


def test_hub_that_has_not_got_it(local: LocalHub, tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown repository or revision, gated, offline, no name: one line each, of this setting; a mirror stands in."""
    assert "name a mirror in evaluate.encoder_mirrors" in refused("no/such")
    assert "evaluate.encoder 'someone/tiny-dino' (revision 'x'): no such revision" in refused(REPO, revision="x")
    assert "neither owner/name" in refused("bad name//x")
    local.add("someone/gated", tiny["Dinov2Model"], gated=True)
    assert "accept the terms" in refused("someone/gated")
    assert loaded("gone/away", mirrors=("gone/too", REPO)).model == REPO
    local.offline = True
    monkeypatch.setattr(hub, "TIMEOUT", 1)
    assert "name a local directory in evaluate.encoder" in refused("someone/else")


def test_missing_directory_is_told_before_anything_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that is not there is the recipe's fault, exit code 2 in one line; relative ones are anchored."""
    path = write_recipe(tmp_path, "embedded", evaluate={"encoder": "./nowhere"})
    with pytest.raises(RecipeError, match=r"evaluate\.encoder: .*nowhere: no such directory"):
        load_recipe(path)
    with pytest.raises(SystemExit) as ended:
        main(["run", str(path), "--workspace", str(tmp_path / "runs")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "nowhere").mkdir()
    assert load_recipe(path).evaluate.encoder == str(tmp_path / "nowhere")


def test_nothing_heavy_without_an_encoder() -> None:
    """The stage itself loads neither torch nor the hub's client."""
    heavy = ("torch", "transformers", "huggingface_hub")
    code = f"import sys, avignon.stages.evaluate\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def bare(value: Any) -> Any:
    """A report without what the encoder adds."""
    if isinstance(value, dict):
        return {key: bare(own) for key, own in value.items() if key not in ("encoder", "notes")}
    return [bare(own) for own in value] if isinstance(value, list | tuple) else value


@pytest.mark.slow
def test_report_and_page_with_an_encoder(tiny: dict[str, Path], tiny_sd: Path, tmp_path: Path) -> None:
    """With an encoder only the report and the page are made again: it is one more aspect there, and all else stays."""
    heard: list[Event] = []

    recipe = small_recipe(tmp_path, tiny_sd, generate={"spacing": "even", "equalize_adapters": True})

    def carried(**settings: Any) -> tuple[Path, set[str]]:
        heard.clear()
        asked = recipe.model_copy(update={"evaluate": Evaluate(**settings)})
        space = pipeline.run(asked, tmp_path / "runs", heard.append)
        return space.root, {event.stage for event in heard if event.kind == "done"}

    root, _ = carried()
    before, page = reports.read(root / "report.json"), (root / "exhibition/index.html").read_text(encoding="utf-8")
    pictures = {file: sha256_of(file) for file in (root / "series").rglob("*") if file.is_file()}
    folder = shutil.copytree(tiny["CLIPModel"], tmp_path / "clip")
    _, redone = carried(encoder=str(folder))
    assert redone == {"evaluate", "exhibit"}
    report = reports.read(root / "report.json")
    assert {file: sha256_of(file) for file in pictures} == pictures
    assert bare(plain(report)) == bare(plain(before))
    assert report.encoder == reports.EncoderCard("clip", "", sha256_of(folder / WEIGHTS), "image_embeds")
    assert before.encoder is None
    assert len(report.notes) == len(before.notes) + 1
    by = {"colour", "brushwork", "geometry", "encoder", "combined"}
    for course in (report.overall.course, *(scene.course for scene in report.scenes)):
        for part in (*course.distance.values(), course.position, course.monotone, course.neighbour_distance,
                     course.step_ratio):  # fmt: skip
            assert set(part) == by
        steps, position = course.neighbour_distance["encoder"], course.position["encoder"]
        assert course.step_ratio["encoder"] == pytest.approx(max(steps) / min(steps), rel=0.05)
        between = [min(max(place, 0.0), 1.0) for place in position]
        assert course.monotone["encoder"] == (between == sorted(between))
    for distances in (*report.overall.base_distance.values(), *report.artist_position_std.values()):
        assert set(distances) == by
    assert set(report.units) == by - {"combined"}
    shown = (root / "exhibition/index.html").read_text(encoding="utf-8")
    for words in ('<polyline class="encoder"', '<i class="encoder"></i>encoder', "The encoder is clip"):
        assert (words in shown, words in page) == (True, False)
    frame = report.frames[1].distance["winslow-homer"]
    assert ", ".join(f"{name} {frame[name]:.2f}" for name in ("geometry", "encoder")) in shown
    assert carried(encoder=str(folder))[1] == set()
    make_encoder(folder, "CLIPModel", seed=1)
    assert carried(encoder=str(folder))[1] == {"evaluate", "exhibit"}
    assert carried(encoder=str(folder), encoder_revision="x")[1] >= {"evaluate"}


def test_units_of_an_encoder() -> None:
    """Its distances, too, are 1 where an artist's own works are; of one work each, the two works are told apart."""

    def seen(angle: float) -> style.Traits:
        return {"encoder": np.array([np.cos(angle), np.sin(angle)]), "plain": np.zeros(1)}

    aspects = [style.learned(lambda image: np.zeros(2)), style.Aspect("plain", style.palette, style.trait_distance, 1)]
    many = {"a": [seen(0.1 * (-1) ** i) for i in range(40)], "b": [seen(1.5 + 0.1 * (-1) ** i) for i in range(40)]}
    ruler = style.yardstick(many, aspects)
    assert ruler.to_artists(seen(0.1))["a"]["encoder"] == pytest.approx(1, rel=0.1)
    assert ruler.to_artists(seen(0.1))["b"]["encoder"] > 50
    few = style.yardstick({"a": [seen(0)], "b": [seen(1)]}, aspects)
    assert [few.nearest(seen(angle), "encoder") for angle in (0.2, 0.8)] == ["a", "b"]
    alike = style.yardstick({"a": [seen(0)], "b": [seen(0)]}, aspects)
    assert alike.to_artists(seen(0))["a"]["encoder"] == 0
    assert style.angle_distance(np.array([3.0, 0]), np.array([0, 2.0])) == pytest.approx(1)


def test_picture_must_not_be_all_one(tiny: dict[str, Path]) -> None:
    """A flat picture has a vector, too."""
    assert np.isfinite(loaded(tiny["CLIPVisionModel"])(Image.new("RGB", (64, 64), "grey"))).all()
