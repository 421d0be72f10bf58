"""The series: what each picture is made from, what it carries, and what is kept of an interrupted one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from avignon.adapters import headers
from avignon.adapters.formats import diffusers as lora_format
from avignon.core import distributed, imaging, png
from avignon.core.errors import AdapterError, WorkspaceError
from avignon.core.events import Event, Reporter, StageProgress
from avignon.core.files import sha256_of
from avignon.core.records import Series, frame_record, series_from, series_record
from avignon.core.workspace import Workspace
from avignon.recipe.schema import Recipe
from avignon.stages import generate
from tests.support import readers
from tests.support.museum import draw
from tests.support.runs import carried, small_recipe

HOMER, PICASSO = "winslow-homer", "pablo-picasso"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> tuple[Recipe, Path]:
    """A recipe, and the adapters it has trained: strong ones, so that they show."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = small_recipe(folder, tiny_sd, train={"learning_rate": 0.1, "lr_schedule": "constant"})
    space, _ = carried(recipe, folder / "runs", "train")
    return recipe, space.adapters


@pytest.fixture
def make(trained: tuple[Recipe, Path], tmp_path: Path) -> "Maker":
    """Makes series with the trained adapters."""
    return Maker(*trained, tmp_path)


class Maker:
    """Runs the stage by itself, in one workspace, with values replaced in `generate`."""

    def __init__(self, recipe: Recipe, adapters: Path, folder: Path) -> None:
        self.recipe, self.space = recipe, Workspace(folder / "run")
        self.space.root.mkdir()
        self.space.adapters.symlink_to(adapters)
        self.space.dataset.symlink_to(adapters.with_name("dataset"))
        self.heard: list[Event] = []

    def __call__(self, **settings: Any) -> Series:
        """The series of a recipe with these settings, as it is on disk."""
        self.heard.clear()
        settings = self.recipe.generate.model_dump() | settings
        recipe = Recipe.model_validate(self.recipe.model_dump() | {"generate": settings})
        generate.run(recipe, self.space, Reporter("generate", self.heard.append))
        return series_from(json.loads(self.space.series_index.read_text(encoding="utf-8")))

    def pixels(self, file: str) -> NDArray[np.int16]:
        """A picture's values."""
        return np.asarray(Image.open(self.space.series / file), np.int16)

    @property
    def made(self) -> int:
        """How many pictures the last run said it made or found, beyond those it had."""
        steps = [event.done for event in self.heard if isinstance(event, StageProgress)]
        return len(steps)

    def bytes(self) -> dict[str, bytes]:
        """Every picture of the series."""
        root = self.space.series
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def test_series_is_complete(make: Maker) -> None:
    """For each scene the base alone and every stop are there, in order, and the index tells them as they are."""
    series = make()
    assert series.scenes == ("scene-1", "scene-2")
    assert series.stops == ("stop-1", "stop-2", "stop-3")
    assert [file for file, _ in series.frames] == [
        f"{scene}/{stop}.png" for scene in series.scenes for stop in ("base", *series.stops)
    ]
    assert set(make.bytes()) == {file for file, _ in series.frames}
    assert [frame.seed for _, frame in series.frames] == [8] * 4 + [9] * 4
    assert series_from(json.loads(json.dumps(series_record(series)))) == series


@pytest.mark.slow
def test_pictures_are_deterministic(make: Maker) -> None:
    """Made twice, every picture has the same bytes; the stops differ from each other and from the base."""
    make()
    first = make.bytes()
    for path in make.space.series.rglob("*.png"):
        path.unlink()
    make()
    assert make.bytes() == first
    assert len(set(first.values())) == 8


@pytest.mark.slow
def test_batch_equals_each_alone(make: Maker) -> None:
    """Scenes made together are those made one by one, within 1/255."""
    scenes = [{"prompt": "a boat on the sea"}, {"prompt": "a guitar"}, {"prompt": "the house", "seed": 5}]
    make(scenes=scenes, batch=1, negative_prompt="red")
    alone = {file: make.pixels(file) for file in make.bytes()}
    for path in make.space.series.rglob("*.png"):
        path.unlink()
    make(scenes=scenes, batch=3, negative_prompt="red")
    assert len(alone) == 12
    assert max(int(np.abs(make.pixels(file) - picture).max()) for file, picture in alone.items()) <= 1


@pytest.mark.slow
def test_interrupted_series_goes_on(make: Maker) -> None:
    """Pictures that are whole are left untouched; damaged, lost, foreign and bare ones are made again, to the byte."""
    make()
    whole = make.bytes()
    paths = {file: make.space.series / file for file in whole}
    lost, cut, foreign, bare = "scene-1/stop-1.png", "scene-1/stop-2.png", "scene-2/base.png", "scene-2/stop-3.png"
    paths[lost].unlink()
    paths[cut].write_bytes(whole[cut][:-200])
    paths[foreign].write_bytes(whole[lost])
    Image.new("RGB", (64, 64)).save(paths[bare])
    untouched = {
        file: path.stat().st_mtime_ns for file, path in paths.items() if file not in (lost, cut, foreign, bare)
    }
    (make.space.series / "scene-9").mkdir()
    (make.space.series / "scene-9" / "old.png").write_bytes(b"")
    make()
    assert make.bytes() == whole
    assert untouched == {file: paths[file].stat().st_mtime_ns for file in untouched}
    assert make.made == 4
    assert not (make.space.series / "scene-9").exists()


@pytest.mark.slow
def test_only_what_changed_is_made_again(make: Maker) -> None:
    """Another prompt in one scene makes that scene's pictures again, and no other."""
    make()
    before = make.bytes()
    make(scenes=[{"prompt": "a boat on the sea"}, {"prompt": "a bottle"}])
    changed = {file for file, content in make.bytes().items() if content != before[file]}
    assert changed == {file for file in before if file.startswith("scene-2")}
    first = make.heard[0]
    assert isinstance(first, StageProgress)
    assert first.done == 4 + 1


@pytest.mark.slow
def test_pictures_carry_their_frame(make: Maker) -> None:
    """Each PNG carries its parameters as text, its frame as JSON, and the mark of a trained model's work."""
    series = make(negative_prompt="red")
    for file, frame in series.frames:
        path = make.space.series / file
        assert png.png_fields(path) == frame_record(frame)
        with Image.open(path) as image:
            texts: dict[str, str] = image.text  # type: ignore[attr-defined]
        lines = texts["parameters"].splitlines()
        assert lines[:2] == [frame.prompt, "Negative prompt: red"]
        assert f"Steps: 2, Sampler: DDIM, CFG scale: 7.5, Seed: {frame.seed}, Size: 64x64" in lines[2]
        on = [name for name, weight in frame.weights.items() if weight]
        weights = {name: make.space.adapter(name) / lora_format.WEIGHTS_FILE for name in on}
        known = {f"lora:{name}": headers.content_hash(path)[:12] for name, path in weights.items()}
        assert readers.civitai(texts["parameters"]).values["hashes"] == known
        assert all(sha256_of(path)[:10] in lines[2] for path in weights.values())
        assert "digitalsourcetype/trainedAlgorithmicMedia" in texts["XML:com.adobe.xmp"]
        assert frame.adapters.keys() == frame.weights.keys()
    assert dict(series.frames[1][1].weights) == {HOMER: 1.0, PICASSO: 0.0}


def test_weights_by_hand(make: Maker) -> None:
    """Stops by hand replace the path, may name some adapters only, and all off is bit for bit the base's picture."""
    series = make(weights=[{HOMER: 0.5}, {HOMER: 0.0, PICASSO: 0.0}, {PICASSO: -0.5, HOMER: 1.5}])
    assert [dict(frame.weights) for _, frame in series.frames[1:4]] == [
        {HOMER: 0.5},
        {HOMER: 0.0, PICASSO: 0.0},
        {PICASSO: -0.5, HOMER: 1.5},
    ]
    base = make.pixels("scene-1/base.png")
    assert np.array_equal(make.pixels("scene-1/stop-2.png"), base)
    assert not np.array_equal(make.pixels("scene-1/stop-1.png"), base)
    assert not np.array_equal(make.pixels("scene-1/stop-3.png"), make.pixels("scene-1/stop-1.png"))


@pytest.mark.slow
def test_half_strength_is_half_the_weight(make: Maker) -> None:
    """`strength` is the same as weights by hand times that factor."""
    make(strength=0.5, path="linear")
    by_path = make.pixels("scene-1/stop-1.png"), make.pixels("scene-1/stop-2.png")
    make(weights=[{HOMER: 0.5, PICASSO: 0.0}, {HOMER: 0.25, PICASSO: 0.25}])
    assert np.array_equal(by_path[0], make.pixels("scene-1/stop-1.png"))
    assert np.array_equal(by_path[1], make.pixels("scene-1/stop-2.png"))


@pytest.mark.slow
def test_one_voice_may_be_stronger(make: Maker) -> None:
    """`strengths` multiplies the weights of the voices that it names, on the whole path."""
    series = make(strengths={PICASSO: 1.5}, path="linear")
    assert [dict(frame.weights) for _, frame in series.frames[1:4]] == [
        {HOMER: 1.0, PICASSO: 0.0},
        {HOMER: 0.5, PICASSO: 0.75},
        {HOMER: 0.0, PICASSO: 1.5},
    ]


@pytest.mark.slow
def test_scenes_have_sizes_of_their_own(make: Maker) -> None:
    """Scenes of three sizes are one series, measured where stops are even; a new size makes its own row anew alone."""
    scenes = [{"prompt": "the sea", "width": 128}, {"prompt": "a boat"}, {"prompt": "a mast", "height": 128}]
    common: dict[str, Any] = {"stops": 3, "spacing": "even", "equalize_adapters": True, "extra_seeds": 1}
    series = make(scenes=scenes, **common)
    sizes = {"scene-1": (128, 64), "scene-2": (64, 64), "scene-3": (64, 128)}
    for file, frame in series.pictures:
        assert (frame.width, frame.height) == sizes[frame.scene]
        assert make.pixels(file).shape[1::-1] == sizes[frame.scene]
    assert len(series.placing["places"]) == 3
    assert min(series.placing["effects"].values()) > 0
    before = make.bytes()
    even = {**common, "spacing": "uniform", "equalize_adapters": False}
    make(scenes=scenes, **even)
    first = make.bytes()
    make(scenes=[*scenes[:2], {"prompt": "a mast", "height": 192}], **even)
    changed = {name for name, content in make.bytes().items() if content != first[name]}
    assert changed == {name for name in before if name.startswith("scene-3/")}


@pytest.mark.slow
def test_even_stops_and_equal_voices_are_measured_once(make: Maker) -> None:
    """Gains and places come from what was painted and measured; the same job reads them, another measures again."""
    one = {"scenes": [{"prompt": "the sea"}], "stops": 4, "spacing": "even", "equalize_adapters": True, "path": "relay"}
    placing = dict(make(**one).placing)
    assert set(placing["effects"]) == set(placing["gains"]) == {HOMER, PICASSO}
    brought = [placing["effects"][name] * placing["gains"][name] for name in (HOMER, PICASSO)]
    assert brought[0] == pytest.approx(brought[1])
    assert len(placing["places"]) == 4
    assert placing["places"] == sorted(placing["places"])
    assert (placing["places"][0], placing["places"][-1]) == (0, 1)
    assert len(placing["distances"]) == len(placing["probes"]) - 1 == 8
    written = make.space.placing.read_bytes()
    make.heard.clear()
    again = make(**one)
    assert again.placing == placing
    assert make.space.placing.read_bytes() == written
    assert not [event for event in make.heard if event.kind == "note"], "nothing was measured again"
    first, middle = again.frames[1][1], again.frames[2][1]
    assert dict(first.weights) == {HOMER: 1.0, PICASSO: 0.0}
    assert set(middle.weight_schedule) == {HOMER, PICASSO}
    assert make(**one | {"fade": 0.9}).placing != placing


@pytest.mark.slow
def test_series_from_a_photograph(make: Maker, tmp_path: Path) -> None:
    """Every picture names the photograph it began from; another one under the same name is painted anew."""
    photograph = tmp_path / "my boat.png"
    draw(3, 90, 64).save(photograph)
    scenes = [{"prompt": "the sea", "image": str(photograph), "image_strength": 0.5}, {"prompt": "a guitar"}]
    settings = {"scenes": scenes, "num_inference_steps": 4, "path": "relay"}
    series = make(**settings)
    before = make.bytes()
    assert [frame.source and frame.source.strength for _, frame in series.frames] == [0.5] * 4 + [None] * 4
    assert [len(row) for row in series.frames[2][1].weight_schedule.values()] == [2, 2], "steps that are done"
    assert [len(row) for row in series.frames[6][1].weight_schedule.values()] == [4, 4]
    with Image.open(make.space.series / "scene-1/stop-1.png") as image:
        texts: dict[str, str] = image.text  # type: ignore[attr-defined]
    assert "Denoising strength: 0.5, Init image hash: " in texts["parameters"]
    assert texts["parameters"].endswith("Init image: my boat.png")
    assert str(tmp_path) not in str(texts)
    assert "began from my boat.png" in texts["Copyright"]
    draw(4, 90, 64).save(photograph)
    make(**settings)
    changed = {file for file, content in make.bytes().items() if content != before[file]}
    assert changed == {file for file in before if file.startswith("scene-1")}
    even = make(**settings | {"spacing": "even", "stops": 3})
    assert len(even.placing["places"]) == 3


@pytest.mark.slow
def test_extras_are_painted_beside_the_series(make: Maker) -> None:
    """Every picture is made again with further seeds; the series has the same bytes, and all is kept or swept."""
    scenes = [{"prompt": "the sea", "seed": 2**63 - 1}, {"prompt": "a guitar", "seed": 5, "to_seed": 6}]
    make(scenes=scenes, stops=5)
    alone = make.bytes()
    series = make(scenes=scenes, stops=5, extra_seeds=2)
    assert make.made == 6, "24 extras in batches of 4; the 12 pictures of the series are kept"
    assert [file for file, _ in series.extras if file.startswith("scene-2")] == [
        f"scene-2/{stop}-seed-{seed}.png" for stop in ("base", *series.stops) for seed in (1005, 2005)
    ]
    assert {frame.seed for _, frame in series.extras if frame.scene == "scene-1"} == {999, 1999}
    assert {(frame.seed, frame.to_seed) for _, frame in series.extras[12:]} == {(1005, 1006), (2005, 2006)}
    own = dict(series.frames)
    for file, frame in series.extras:
        assert png.png_fields(make.space.series / file) == frame_record(frame)
        same = own[f"{frame.scene}/{frame.stop}.png"]
        assert dict(frame.weights) == dict(same.weights)
    painted = make.bytes()
    assert len(set(painted.values())) == 12 + 24
    assert {file: painted[file] for file in alone} == alone
    lost = "scene-2/stop-3-seed-1005.png"
    (make.space.series / lost).unlink()
    assert make(scenes=scenes, stops=5, extra_seeds=2) == series
    assert (make.made, make.bytes()) == (1, painted)
    make(scenes=scenes, stops=5, extra_seeds=1)
    assert set(make.bytes()) == {file for file in painted if "-seed-1999" not in file and "-seed-2005" not in file}
    make(scenes=scenes, stops=5)
    assert make.bytes() == alone


@pytest.mark.slow
def test_a_share_of_the_pictures_is_no_series(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two processes paints every other batch; what the other one did not put there is missed, not indexed."""
    make(batch=2)
    whole = make.bytes()
    shutil.rmtree(make.space.series)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "broadcast_from_main", lambda find: find())
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    with pytest.raises(WorkspaceError, match=r"scene-.*png: not there, or not what was asked for.*one --workspace"):
        make(batch=2)
    first = make.bytes()
    assert first == {file: whole[file] for file in first}
    assert len(first) == len(whole) / 2
    assert not make.space.series_index.exists()
    monkeypatch.setenv("RANK", "1")
    shutil.rmtree(make.space.series)
    with pytest.raises(FileNotFoundError):  # The maker finds no index: this is not the process that writes it.
        make(batch=2)
    assert make.bytes() == {file: content for file, content in whole.items() if file not in first}


@pytest.mark.slow
def test_extras_leave_what_was_measured(make: Maker) -> None:
    """Asking for further seeds does not measure the placing again, nor move a stop."""
    one = {"scenes": [{"prompt": "the sea"}], "stops": 3, "equalize_adapters": True}
    before = make(**one)
    written = make.space.placing.stat().st_mtime_ns
    assert make(**one, extra_seeds=1).frames == before.frames
    assert make.space.placing.stat().st_mtime_ns == written


@pytest.mark.slow
def test_external_adapter(make: Maker) -> None:
    """A folder named in `adapters` is mixed in by its name, exactly as if it had been trained here."""
    folder = str(make.space.adapter(PICASSO).resolve())
    series = make(adapters={"guest": folder}, weights=[{"guest": 0.7}, {PICASSO: 0.7}])
    guest, own = series.frames[1][1], series.frames[2][1]
    assert guest.adapters["guest"] == own.adapters[PICASSO]
    assert np.array_equal(make.pixels("scene-1/stop-1.png"), make.pixels("scene-1/stop-2.png"))


def test_missing_external_adapter(make: Maker, tmp_path: Path) -> None:
    """An adapter's folder that is not there is named before a picture is made."""
    with pytest.raises(AdapterError, match="nowhere"):
        make(adapters={"guest": str(tmp_path / "nowhere")}, weights=[{"guest": 1.0}])
    assert not make.space.series.exists()


@pytest.mark.slow_but_one
@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "euler", "dpm++"])
@pytest.mark.parametrize("steps", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_every_scheduler_works(make: Maker, scheduler: str, steps: int) -> None:
    """Each scheduler makes a picture in few steps and in several, each its own, and the same one again."""
    one = {"scenes": [{"prompt": "the sea"}], "stops": 2, "scheduler": scheduler, "num_inference_steps": steps}
    make(**one)
    first = make.bytes()
    values = make.pixels("scene-1/base.png")
    assert values.std() > 5, "neither black nor flat"
    (make.space.series / "scene-1/base.png").unlink()
    make(**one)
    assert make.bytes() == first


@pytest.mark.slow
def test_guidance(make: Maker) -> None:
    """Guidance 1 is none (the negative prompt has no part in it); more guidance is another picture."""

    def pictures(**settings: Any) -> NDArray[np.int16]:
        make(scenes=[{"prompt": "the sea"}], stops=2, **settings)
        return make.pixels("scene-1/stop-1.png")

    none = pictures(guidance_scale=1.0)
    assert np.array_equal(none, pictures(guidance_scale=1.0, negative_prompt="red"))
    assert not np.array_equal(none, pictures(guidance_scale=5.0))
    assert not np.array_equal(pictures(guidance_scale=5.0), pictures(guidance_scale=5.0, negative_prompt="red"))


def test_long_prompt_is_warned_of_and_painted(make: Maker) -> None:
    """A prompt that is too long is warned of once, and its pictures are made."""
    make(scenes=[{"prompt": "the sea " * 40 + "lighthouse"}])
    assert [event.kind for event in make.heard].count("warning") == 1
    assert len(make.bytes()) == 4


@pytest.mark.slow
def test_order_of_the_artists_is_the_order_of_the_stops(tmp_path: Path, tiny_sd: Path) -> None:
    """Exchanging the artists turns the series round, though no adapter has to be trained again."""
    recipe = small_recipe(tmp_path, tiny_sd, train={"steps": 1})
    carried(recipe, tmp_path / "runs", "generate")
    turned = recipe.model_copy(update={"artists": recipe.artists[::-1]})
    space, heard = carried(turned, tmp_path / "runs", "generate")
    series = series_from(json.loads(space.series_index.read_text(encoding="utf-8")))
    assert dict(series.frames[1][1].weights) == {PICASSO: 1.0, HOMER: 0.0}
    assert not [event for event in heard if event.stage == "train" and event.kind == "progress"]


@pytest.mark.slow
def test_joint_adapter_comes_from_the_base(tmp_path: Path, tiny_sd: Path) -> None:
    """In joint mode the way leads from the base, whose picture the first stop is, to the one adapter at full weight."""
    recipe = small_recipe(tmp_path, tiny_sd, train={"mode": "joint", "steps": 1}, generate={"path": "linear"})
    space, _ = carried(recipe, tmp_path / "runs", "generate")
    series = series_from(json.loads(space.series_index.read_text(encoding="utf-8")))
    assert [dict(frame.weights) for _, frame in series.frames[:4]] == [{}, {"joint": 0}, {"joint": 0.5}, {"joint": 1}]
    pictures = [imaging.load(space.series / "scene-1" / f"{stop}.png") for stop in ("base", "stop-1", "stop-3")]
    assert pictures[0].tobytes() == pictures[1].tobytes() != pictures[2].tobytes()


@pytest.mark.slow
def test_damaged_adapter_is_named(tmp_path: Path, tiny_sd: Path) -> None:
    """An adapter damaged after its training stops the stage by name, and the whole run mends it."""
    recipe = small_recipe(tmp_path, tiny_sd, train={"steps": 1})
    space, _ = carried(recipe, tmp_path / "runs", "train")
    path = space.adapter(HOMER) / lora_format.WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(AdapterError, match=f"{HOMER}.*damaged"):
        generate.run(recipe, space, Reporter("generate", lambda _: None))
    carried(recipe, tmp_path / "runs", "generate")
    assert path.stat().st_size > 1000


@pytest.mark.slow
def test_pictures_carry_the_rights_of_what_taught_them(tmp_path: Path, tiny_sd: Path) -> None:
    """A picture by an adapter that learned from restricted works says so in its file; the base alone says nothing."""
    recipe = small_recipe(tmp_path, tiny_sd, rights="in copyright", train={"steps": 1})
    artists = tuple(artist.model_copy(update={"rights": "acknowledge-restricted"}) for artist in recipe.artists)
    recipe = recipe.model_copy(update={"artists": artists})
    space, _ = carried(recipe, tmp_path / "runs", until="generate")

    def notice(name: str) -> str:
        with Image.open(space.series / "scene-1" / name) as image:
            image.load()
            return str(image.info.get("Copyright", ""))

    assert "are not known to be free to use" in notice("stop-1.png")
    assert notice("base.png") == ""
