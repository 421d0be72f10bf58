"""sample, and evaluate ADAPTER --against FOLDER: what they paint and write, and what they refuse in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from avignon.adapters import files, inject
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.core import imaging, png
from avignon.core.events import Event, Reporter
from avignon.core.files import sha256_of, write_json
from avignon.core.grids import GAP
from avignon.core.records import EMBEDDED, frame_from
from avignon.generation import standalone, trial
from avignon.models import loading
from avignon.recipe.schema import Generate, Ranks, Scene
from tests.support import images
from tests.support.commands import avignon, told
from tests.support.museum import draw
from tests.support.saved import ATLANTIC, AVIGNON, BASE, RUN, saved

SILENT = Reporter("test", lambda _: None)

QUICK = ("--steps", 2, "--precision", "fp32")


def texts(path: Path) -> dict[str, str]:
    """What a PNG says of itself."""
    with Image.open(path) as image:
        image.load()
        return dict(image.text)  # type: ignore[attr-defined]


def test_sample_paints_on_the_base_of_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture says all that one of a series says; a second call keeps it, and other settings overwrite nothing."""
    restricted = {"open": 0, "restricted": 2, "unknown": 0, "statement": "2 of 2 are not free."}
    adapter = saved(tmp_path, rights=restricted)
    command = ("sample", f"{adapter}=0.5", "--prompt", "a boat", "--seed", 3, "--to", tmp_path / "out")
    code, out, _ = told(capsys, *command, *QUICK)
    picture = tmp_path / "out" / f"{AVIGNON}-3.png"
    assert (code, out.splitlines()[-1]) == (0, str(picture))
    assert f"{AVIGNON}: 'a boat' is without its trigger phrase, 'in the style of the avignon painter'" in out
    frame = frame_from(png.png_fields(picture))
    assert (frame.prompt, frame.seed, frame.weights, frame.num_inference_steps) == ("a boat", 3, {AVIGNON: 0.5}, 2)
    assert frame.adapters == {AVIGNON: sha256_of(adapter / WEIGHTS_FILE)}
    assert (frame.width, frame.precision) == (64, "fp32")
    said = texts(picture)
    assert said["parameters"].startswith("a boat\nNegative prompt: \nSteps: 2, Sampler: DDIM, CFG scale: 7.5, Seed: 3")
    assert "Lora hashes: " in said["parameters"]
    assert said["Copyright"] == "2 of 2 are not free."
    assert "trainedAlgorithmicMedia" in said["XML:com.adobe.xmp"]

    written = picture.stat().st_mtime_ns
    assert told(capsys, *command, *QUICK)[0] == 0
    assert picture.stat().st_mtime_ns == written, "kept"
    assert told(capsys, *command, "--steps", 1, "--precision", "fp32", "--quiet")[1] == (
        f"{tmp_path / 'out' / f'{AVIGNON}-3-2.png'}\n"
    )
    assert picture.stat().st_mtime_ns == written, "not overwritten"


def test_sample_paints_wide_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A width alone leaves the height at the base's side; the sheet that compares is as wide."""
    command = ("sample", saved(tmp_path), "--prompt", "a boat", "--width", 128, "--compare", "--to", tmp_path / "out")
    assert told(capsys, *command, *QUICK)[0] == 0
    frame = frame_from(png.png_fields(tmp_path / "out" / f"{AVIGNON}-0.png"))
    assert (frame.width, frame.height) == (128, 64)
    with Image.open(tmp_path / "out" / "compare.png") as sheet:
        assert sheet.width > 2 * 128


@pytest.mark.slow
def test_compare_shows_base_each_alone_and_the_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row for every seed, in it base, each adapter alone and the mix; one sheet has them all, with labels."""
    one, other = saved(tmp_path, AVIGNON), saved(tmp_path, ATLANTIC)
    command = ("sample", f"{one}=3", other, "--prompt", "a boat", "--seed", 1, "--seed", 2, "--compare", "--quiet")
    code, out, _ = told(capsys, *command, "--to", tmp_path / "out", *QUICK)
    painted = [Path(line) for line in out.splitlines()]
    stops = ("base", AVIGNON, ATLANTIC, "mix")
    assert code == 0
    names = [f"{stop}-{seed}.png" for seed in (1, 2) for stop in stops]
    assert [file.name for file in painted] == [*names, "compare.png"]
    weights = [frame_from(png.png_fields(file)).weights for file in painted[:4]]
    assert weights == [{}, {AVIGNON: 3.0}, {ATLANTIC: 1.0}, {AVIGNON: 3.0, ATLANTIC: 1.0}]
    assert len({file.read_bytes() for file in painted[:4]}) == 4
    sheet = np.asarray(Image.open(painted[-1]))
    height, width = sheet.shape[:2]
    for place, file in enumerate(painted[:-1]):
        down, across = divmod(place, 4)
        top, left = height - (2 - down) * (64 + GAP) + GAP, width - (4 - across) * (64 + GAP) + GAP
        assert np.array_equal(sheet[top : top + 64, left : left + 64], np.asarray(Image.open(file)))
    above, beside = sheet[: height - 2 * 64 - GAP], sheet[:, : width - 4 * (64 + GAP) + GAP]
    assert above.min() < 100, "labels above"
    assert beside.min() < 100, "labels beside"
    assert [frame["seed"] for frame in png.png_fields(painted[-1])["frames"]] == [1] * 4 + [2] * 4
    assert "mix: the-avignon-painter 3, the-atlantic-painter 1" in texts(painted[-1])["parameters"]


Broken = Callable[[Path], tuple[Any, ...]]


def _other_base(folder: Path) -> tuple[Any, ...]:
    other = saved(folder, ATLANTIC, model="someone/other", base={"model": "someone/other", "fingerprint": "f" * 64})
    return saved(folder), other


def _no_card(folder: Path) -> tuple[Any, ...]:
    adapter = saved(folder)
    (adapter / "card.json").unlink()
    return (adapter,)


def _twice(folder: Path) -> tuple[Any, ...]:
    adapter = saved(folder)
    return adapter, f"{adapter}=0.5"


def _damaged_card(folder: Path) -> tuple[Any, ...]:
    adapter = saved(folder)
    (adapter / "card.json").write_text("[1", encoding="utf-8")
    return (adapter,)


def _half_a_card(folder: Path) -> tuple[Any, ...]:
    return (saved(folder, recipe={}),)


def _of_another_target(folder: Path) -> tuple[Any, ...]:
    """Learned on the same weights, which were read as another prediction."""
    adapter = saved(folder)
    card = json.loads((adapter / "card.json").read_text(encoding="utf-8"))
    card["base"]["prediction_type"] = "v"
    (adapter / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return (adapter,)


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (_other_base, "adapters in one picture need one base"),
        (_no_card, "nothing says for which base it was made; name one with --base"),
        (_twice, "named twice"),
        (_damaged_card, "card.json: damaged"),
        (_half_a_card, "card.json: damaged: no recipe with a base"),
        (_of_another_target, "learned what a base predicts as 'v', and base is read as predicting 'epsilon'"),
        (lambda folder: (saved(folder, model=str(folder / "gone")),), "which is not there"),
        (lambda folder: (folder / "nothing=0.5",), "no such file"),
        (lambda folder: (saved(folder), "--base", folder / "gone"), "--base: "),
        (lambda folder: (saved(folder), "--base", folder), "model_index.json is missing"),
        (lambda folder: (saved(folder), "--steps", 1000), "--steps: 1000 is not allowed"),
        (lambda folder: (saved(folder), "--size", 68), "--size: 68 is not a multiple of"),
        (
            lambda folder: (saved(folder), "--height", 80),
            "--height: 80 is not a multiple of 64, as the base needs; 64 or",
        ),
    ],
)
def test_what_cannot_be_painted_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: Broken, line: str
) -> None:
    """Exit code 2, one line that names options and not a recipe's fields, and nothing is written."""
    code, errors = avignon(capsys, "sample", *broken(tmp_path), "--prompt", "a boat", "--to", tmp_path / "out")
    assert (code, len(errors)) == (2, 1)
    assert line in errors[0]
    assert "generate." not in errors[0]
    assert "base." not in errors[0]
    assert not (tmp_path / "out").exists()


def test_base_that_is_named_goes_before_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An adapter as a file of any name, without a card, paints on `--base`, at that one's size."""
    bare = shutil.copy(saved(tmp_path) / WEIGHTS_FILE, tmp_path / "style.safetensors")
    command = ("sample", bare, "--prompt", "a boat", "--to", tmp_path / "out", "--base", BASE, "--quiet")
    code, out, _ = told(capsys, *command, *QUICK)
    picture = Path(out.strip())
    assert (code, picture.name) == (0, "style-0.png")
    assert frame_from(png.png_fields(picture)).width == 64
    assert "rights of the training images: unknown" in texts(picture)["Copyright"]


def test_base_that_is_named_predicts_what_the_card_says(tmp_path: Path) -> None:
    """The same weights elsewhere are read as they were when the adapter learned."""
    adapter = saved(tmp_path)
    card = json.loads((adapter / "card.json").read_text(encoding="utf-8"))
    card["recipe"]["base"] |= {"prediction_type": "v_prediction", "quantize": "int8"}
    (adapter / "card.json").write_text(json.dumps(card), encoding="utf-8")
    wanted = standalone.base_for(standalone.saved([str(adapter)], SILENT), str(BASE))
    assert (wanted.model, wanted.prediction_type, wanted.quantize) == (str(BASE), "v_prediction", "int8")


def headed(folder: Path, **header: str) -> Path:
    """An adapter without a card, whose file's header says so much."""
    adapter = saved(folder)
    (adapter / "card.json").unlink()
    file = adapter / WEIGHTS_FILE
    with safetensors.safe_open(file, framework="np") as opened:
        held = dict(opened.metadata())
    safetensors.torch.save_file(safetensors.torch.load_file(file), file, {**held, **header})
    return adapter


def test_header_names_base_and_trigger_where_no_card_does(tmp_path: Path) -> None:
    """A repository in the header is the base, at the size that it says; a checkpoint's file name is none."""
    told = {"ss_sd_model_name": "someone/sd", "ss_resolution": "(512, 512)", "modelspec.trigger_phrase": "a phrase"}
    (adapter,) = standalone.saved([str(headed(tmp_path, **told))], SILENT)
    assert standalone.base_for([adapter]) == standalone.WantedBase("someone/sd", resolution=512)
    assert adapter.triggers == ("a phrase",)
    (foreign,) = standalone.saved([str(headed(tmp_path / "more", ss_sd_model_name="v1-5-pruned.safetensors"))], SILENT)
    assert foreign.base is None


def test_adapters_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Two runs may each have an adapter of one name; weights and files keep them apart."""
    one, other = saved(tmp_path / "one"), saved(tmp_path / "other")
    found = standalone.saved([f"{one}=0.5", str(other)], SILENT)
    assert [(each.name, each.place, each.weight) for each in found] == [
        (AVIGNON, one, 0.5),
        (f"{AVIGNON}-2", other, 1.0),
    ]


@pytest.mark.slow
def test_adapter_of_the_embedded_base_needs_no_base_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A card that names the miniature inside the package is enough; the picture has its 192 pixels."""
    base = loading.load(standalone.WantedBase(EMBEDDED), Generate(scenes=(Scene(prompt=""),)), torch.float32, SILENT)
    assert base.resolution == 192
    inject.add(base.denoiser, base.targets, "new", Ranks(attention=1, projection=0, convolution=0), 0.0, 1)
    files.save(base.denoiser, base.targets, "new", tmp_path / "new" / WEIGHTS_FILE)
    card = {
        "triggers": [],
        "base": base.card,
        "recipe": {"base": {"model": EMBEDDED, "revision": "main", "variant": ""}},
    }
    write_json(tmp_path / "new" / "card.json", card)
    command = ("sample", tmp_path / "new", "--prompt", "a boat", "--to", tmp_path / "out", "--quiet", "--steps", 1)
    code, out, _ = told(capsys, *command)
    assert (code, imaging.size_of(Path(out.strip()))) == (0, (192, 192))


# evaluate ADAPTER --against FOLDER ------------------------------------------------------------------------------------


def works(folder: Path) -> Path:
    """Works of several sizes; one is too small, one damaged, and a text lies beside them."""
    (folder / "more").mkdir(parents=True)
    draw(1, 96, 80).save(folder / "one.png")
    draw(2, 64, 200).save(folder / "more" / "two.jpg")
    draw(3, 90, 63).save(folder / "small.png")
    images.truncated_jpeg(folder)
    (folder / "notes.txt").write_text("not a picture", encoding="utf-8")
    return folder


@pytest.mark.slow
def test_evaluate_writes_one_result_with_all_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Adapter, base, settings, seeds, versions, machine, works and figures; a second run changes no byte."""
    adapter, folder = saved(tmp_path), works(tmp_path / "works")
    command = ("evaluate", f"{adapter}=2", "--against", folder, "--seeds", 2, "--to", tmp_path / "out", *QUICK)
    code, out, errors = told(capsys, *command)
    path = tmp_path / "out" / "evaluation.json"
    assert (code, out.splitlines()[-1]) == (0, str(path))
    assert [error.partition(f"{folder}/")[2] for error in errors if "passed over" in error] == [
        "small.png: passed over: 90×63 pixels; the short side needs 64",
        next(error.partition(f"{folder}/")[2] for error in errors if "truncated.jpg" in error),
    ]
    result = json.loads(path.read_text(encoding="utf-8"))
    assert (result["schema"], result["adapter"]["name"], result["adapter"]["weight"]) == (1, AVIGNON, 2.0)
    assert result["adapter"]["sha256"] == sha256_of(adapter / WEIGHTS_FILE)
    assert result["adapter"]["card"]["triggers"] == ["in the style of the avignon painter"]
    assert (result["base"]["model"], result["base"]["resolution"]) == ("base", 64)
    assert result["settings"]["prompts"] == ["a boat on the sea"]
    assert (result["settings"]["seeds"], result["settings"]["num_inference_steps"]) == ([0, 1], 2)
    assert result["environment"].keys() >= {"avignon", "torch", "device", "device_name", "precision", "system"}
    assert set(result["works"]["images"]) == {"one.png", "more/two.jpg"}
    assert set(result["works"]["passed_over"]) == {"small.png", "truncated.jpg"}
    assert str(tmp_path) not in path.read_text(encoding="utf-8"), "no one's folders"
    aspects = {"colour", "brushwork", "geometry", "combined"}
    for part in ("by_adapter", "by_base"):
        assert set(result[part]["style_distance"]) == aspects
        assert set(result[part]["seed_difference"]) == aspects | {"composition", "pixels"}
        assert result[part]["prompt_difference"] == {}
    assert [picture["seed"] for picture in result["pictures"]] == [0, 1]
    for picture in result["pictures"]:
        frame = frame_from(png.png_fields(path.with_name(picture["file"])))
        assert (frame.prompt, frame.seed, frame.weights) == (picture["prompt"], picture["seed"], {AVIGNON: 2.0})
        assert picture["change_from_base"] > 0
        assert picture["nearest"]["file"] in result["works"]["images"]
    figures = {line.partition("  ")[0]: line.split()[-3:] for line in out.splitlines() if "  " in line}
    combined = [result[part]["style_distance"]["combined"] for part in ("by_adapter", "by_base", "works")]
    assert figures["style distance, combined"] == [f"{one:.2f}" for one in combined]
    content, written = path.read_bytes(), path.stat().st_mtime_ns
    assert told(capsys, *command)[0] == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, written)


def test_evaluate_takes_works_in_buckets_as_they_are(tmp_path: Path) -> None:
    """An image that its data set names as one in a bucket is used whole; another as narrow has too few pixels."""
    folder, heard = tmp_path / "works", list[Event]()
    folder.mkdir()
    for name in ("wide.png", "other.png"):
        draw(1, 256, 64).save(folder / name)
    (folder / "metadata.jsonl").write_text('{"file_name": "wide.png", "object_id": "1", "bucket": [256, 64]}\n')
    works = trial.prepared(folder, 128, Reporter("evaluate", heard.append))
    assert works.images["wide.png"].size == (256, 64)
    assert works.passed_over == {"other.png": "256×64 pixels; the short side needs 128"}


@pytest.mark.slow
def test_evaluate_finds_a_copy_by_the_dataset_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the adapter paints, laid among the works, is found as a copy of itself; the base's result stays apart."""
    adapter, folder = saved(tmp_path), tmp_path / "works"
    shutil.copytree(RUN / "dataset" / AVIGNON, folder)
    command = ("evaluate", adapter, "--against", folder, "--seeds", 1, "--to", tmp_path / "out", "--quiet", *QUICK)
    assert told(capsys, *command)[0] == 0
    first = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert first["by_adapter"]["copy_count"] == 0
    shutil.copy(tmp_path / "out" / first["pictures"][0]["file"], folder / "leaked.png")
    code, out, errors = told(capsys, *command)
    second = json.loads(Path(out.strip()).read_text(encoding="utf-8"))
    assert (code, Path(out.strip()).name) == (0, "evaluation-2.json"), "the first result is not overwritten"
    assert second["by_adapter"]["copy_count"] == 1
    assert second["pictures"][0]["nearest"]["file"] == "leaked.png"
    assert any("may copy leaked.png" in error for error in errors)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--against", "gone"), "gone: no such folder; --against names one with pictures of works"),
        (("--against", "."), ".: no pictures; read are .jpg"),
        (("--prompt", "a boat"), "No such option '--prompt'"),
        (("--against", ".", "--set", "seed=1"), "No such option '--set'"),
    ],
)
def test_evaluate_of_recipe_and_of_adapter_keep_apart(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    line: str,
) -> None:
    """What the one form takes, the other refuses by name; a folder without works is a line before a base is loaded."""
    monkeypatch.chdir(tmp_path)
    code, errors = avignon(capsys, "evaluate", "adapter", *arguments)
    assert code == 2
    assert line in errors[-1]


def test_adapter_without_scenes_needs_a_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no card says what was painted, the line asks for --prompt."""
    (adapter,) = _no_card(tmp_path)
    code, errors = avignon(capsys, "evaluate", adapter, "--against", works(tmp_path / "works"), "--base", BASE)
    assert (code, len(errors)) == (2, 1)
    assert "say what to paint with --prompt" in errors[0]
