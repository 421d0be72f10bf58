"""An adapter of Stable Diffusion XL for other programs and from them: names, header, pictures."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from avignon.adapters import export
from avignon.adapters.formats import registry as formats
from avignon.adapters.state import AdapterState
from avignon.core import png
from avignon.core.events import Reporter
from avignon.core.files import read_json
from avignon.core.records import Frame, frame_from, series_from
from avignon.core.workspace import Workspace
from avignon.models import loading
from avignon.recipe.schema import Recipe
from tests.support.adapters import layers_of, random_state, same
from tests.support.commands import told
from tests.support.exports import by_diffusers, header, pixels
from tests.support.runs import carried, small_recipe
from tests.support.tiny_sdxl import make_tiny_sdxl

HOMER, PICASSO = "winslow-homer", "pablo-picasso"
CLOSE = 2
"""Of 255, between two programs' pictures."""

NATIVE = re.compile(
    r"lora_unet_(input_blocks_[1-8]|output_blocks_[0-8])_(0_(in_layers_2|out_layers_3)|1_(proj_in|proj_out|"
    r"transformer_blocks_[01]_attn[12]_to_(q|k|v|out_0)))|lora_unet_middle_block_([02]_(in_layers_2|out_layers_3)|"
    r"1_(proj_in|proj_out|transformer_blocks_[01]_attn[12]_to_(q|k|v|out_0)))"
)
"""What sd-scripts calls layers that avignon adapts, in this base of two transformers' blocks at most."""

TOLD = {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}

QUICK = ("--steps", 3, "--precision", "fp32", "--quiet")


@dataclass(frozen=True)
class Run:
    """A finished series on a tiny base with SDXL's blocks."""

    recipe: Recipe
    base: Path
    space: Workspace

    @property
    def adapter(self) -> Path:
        """The first adapter's folder."""
        return self.space.adapter(HOMER)

    def frame(self, stop: str) -> tuple[Path, Frame]:
        """A picture of the first scene, and its frame."""
        series = series_from(read_json(self.space.series_index))
        file, frame = next(each for each in series.frames if (each[1].scene, each[1].stop) == ("scene-1", stop))
        return self.space.series / file, frame

    def by_diffusers(self, file: Path, frame: Frame, out: Path) -> NDArray[np.int64]:
        """The frame, painted by diffusers' own pipeline with an adapter's file."""
        return by_diffusers(
            *(self.base, file, out / "theirs.png"),
            prompt=frame.prompt,
            seed=frame.seed,
            steps=frame.num_inference_steps,
            guidance=frame.guidance_scale,
            classes=("StableDiffusionXLPipeline", "EulerDiscreteScheduler"),
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One whose adapters change pictures visibly; the alpha is no layer's rank."""
    folder = tmp_path_factory.mktemp("sdxl")
    base = make_tiny_sdxl(folder / "tiny", layers=2)
    train = {"alpha": 6.0, "learning_rate": 0.05, "steps": 6}
    generate = {"precision": "fp32", "num_inference_steps": 3, "scheduler": "euler"}
    recipe = small_recipe(folder, base, train=train, generate=generate)
    space, _ = carried(recipe, folder / "runs", "generate")
    return Run(recipe, base, space)


def stems(file: Path) -> set[str]:
    """Names of the layers in a kohya file."""
    return {key.split(".")[0] for key in safetensors.torch.load_file(file)}


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_way_out_writes_native_names(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The finished adapter's file, `export`, `merge` and `publish`: StabilityAI's names, and the header that fits."""
    shared, published = run.adapter / f"{HOMER}.safetensors", tmp_path / "hub" / f"{HOMER}.safetensors"
    exported, merged = tmp_path / "exported.safetensors", tmp_path / "merged.safetensors"
    assert told(capsys, "export", run.adapter, "--format", "kohya", "--to", exported)[0] == 0
    other = run.space.adapter(PICASSO)
    assert told(capsys, "merge", f"{run.adapter}=0.7", f"{other}=0.4", "--to", merged)[0] == 0
    assert told(capsys, "publish", run.adapter, "--to", tmp_path / "hub")[0] == 0
    trained = formats.read(run.adapter)
    for file in (shared, exported, merged, published):
        assert all(NATIVE.fullmatch(stem) for stem in stems(file))
        assert len(stems(file)) == len(trained.layers) == 17 * 8 + 11 * 2 + 17 * 2
        held = header(file)
        assert held["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
        assert held["modelspec.implementation"] == "https://github.com/Stability-AI/generative-models"
        assert (held["ss_base_model_version"], held["ss_v2"]) == ("sdxl_base_v1-0", "False")
        assert (held["modelspec.resolution"], held["ss_resolution"]) == ("64x64", "(64, 64)")
        assert held["modelspec.prediction_type"] == "epsilon"
    for file in (shared, exported, published):
        assert same(formats.read(file), trained)
    assert json.loads((run.adapter / f"{HOMER}.json").read_text(encoding="utf-8"))["sd version"] == "SDXL"


def test_file_elsewhere_and_back(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The kohya file alone, to diffusers' format and back: the header tells whose names each file has."""
    theirs, back = tmp_path / "theirs.safetensors", tmp_path / "back.safetensors"
    shared = run.adapter / f"{HOMER}.safetensors"
    assert told(capsys, "export", shared, "--format", "diffusers", "--to", theirs)[0] == 0
    assert header(theirs)["modelspec.implementation"] == "diffusers"
    assert told(capsys, "export", theirs, "--to", back)[0] == 0
    assert stems(back) == stems(shared)
    assert header(back)["modelspec.implementation"] == "https://github.com/Stability-AI/generative-models"
    assert same(formats.read(back), formats.read(shared))


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", {}),
        ("text_encoder_2", {}),
        ("mid_block", {}),
        ("resnets", {"ss_base_model_version": "sdxl_base_v0-9"}),
        ("resnets", TOLD),
        ("text_encoder.", TOLD),
    ],
)
def test_family_is_told_by_layers_or_header(
    run: Run, tmp_path: Path, pattern: str, said: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of another program is exported as SDXL's: by layers that only SDXL has, else by what its header says."""
    state = guest(run, pattern)
    formats.FORMATS["diffusers"].write(tmp_path / "theirs.safetensors", state, said)
    assert told(capsys, "export", tmp_path / "theirs.safetensors", "--to", tmp_path / "ours.safetensors")[0] == 0
    wanted = re.compile(
        r"lora_te1_|lora_te2_|lora_unet_(input|output|middle)_block|lora_unet_(time|label)_emb|lora_unet_out_2"
    )
    assert all(wanted.match(stem) for stem in stems(tmp_path / "ours.safetensors"))
    held = header(tmp_path / "ours.safetensors")
    assert held["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert held["ss_base_model_version"].startswith("sdxl_base_v")
    assert same(formats.read(tmp_path / "ours.safetensors"), state)


# Pictures -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_exported_file_paints_the_series_picture_elsewhere(run: Run, tmp_path: Path) -> None:
    """The file for other programs, through StableDiffusionXLPipeline without avignon: the series' picture."""
    own, frame = run.frame("stop-1")
    made = run.by_diffusers(run.adapter / f"{HOMER}.safetensors", frame, tmp_path)
    assert np.abs(made - pixels(own)).max() <= CLOSE
    assert np.abs(pixels(own) - pixels(run.frame("base")[0])).max() > 4 * CLOSE, "the adapter changes the picture"


def guest(run: Run, pattern: str) -> AdapterState:
    """Random changes of those layers of the base in whose names `pattern` is, of one rank and alpha.

    diffusers gives attention layers the alpha that most layers have.
    """
    base = loading.load(run.recipe.base, run.recipe.generate, torch.float32, Reporter("test", lambda _: None))
    layers = {layer: shape for layer, shape in layers_of(base.networks).items() if pattern in layer}
    return random_state(layers, 1, ranks=(2,)).map(lambda each: replace(each, up=each.up * 0.2, alpha=1.0))


def sampled(capsys: pytest.CaptureFixture[str], to: Path, *arguments: object) -> tuple[NDArray[np.int64], Frame]:
    """The picture of `avignon sample`, and its frame."""
    code, out, errors = told(capsys, "sample", *arguments, "--prompt", "a boat", "--seed", 5, *QUICK, "--to", to)
    assert (code, errors) == (0, [])
    return pixels(Path(out.strip())), frame_from(png.png_fields(Path(out.strip())))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["text_encoder.", "text_encoder_2.", ""])
def test_encoders_of_an_imported_adapter_are_used(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    """`lora_te1_`, `lora_te2_`, or all of an adapter change the picture of `sample` as they change diffusers'."""
    state = guest(run, part)
    export.write(tmp_path / "guest.safetensors", state, "kohya", TOLD)
    prefixes = {re.match(r"lora_(te1|te2|unet)_", stem)[1] for stem in stems(tmp_path / "guest.safetensors")}  # type: ignore[index]
    assert prefixes == {"text_encoder.": {"te1"}, "text_encoder_2.": {"te2"}, "": {"te1", "te2", "unet"}}[part]
    where = ("--base", run.base, "--sampler", "euler")
    ours, frame = sampled(capsys, tmp_path / "ours", tmp_path / "guest.safetensors", *where)
    bare, _ = sampled(capsys, tmp_path / "bare", f"{tmp_path / 'guest.safetensors'}=0", *where)
    assert np.abs(ours - run.by_diffusers(tmp_path / "guest.safetensors", frame, tmp_path)).max() <= CLOSE
    assert np.abs(ours - bare).max() > 2 * CLOSE


@pytest.mark.slow
def test_denoiser_only_leaves_both_encoders_out(run: Run, tmp_path: Path) -> None:
    """The recipe's key: an adapter of encoders alone then changes nothing; without the key it does."""
    formats.FORMATS["kohya"].write(tmp_path / "guest.safetensors", guest(run, "text_encoder"), {})
    found = {}
    for name, only in (("with", []), ("without", ["guest"])):
        mix = {"adapters": {"guest": str(tmp_path / "guest.safetensors")}, "denoiser_only": only}
        settings = {"path_adapters": [HOMER, "guest"], "precision": "fp32", **mix}
        recipe = small_recipe(tmp_path / name, run.base, train={"steps": 1}, generate=settings)
        space, _ = carried(recipe, tmp_path / "runs" / name, "generate")
        found[name] = {stop: pixels(space.series / "scene-1" / f"{stop}.png") for stop in ("base", "stop-3")}
    assert np.array_equal(found["without"]["stop-3"], found["without"]["base"])
    assert not np.array_equal(found["with"]["stop-3"], found["with"]["base"])


# Standalone -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sample_paints_on_the_base_of_the_card(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --base, and by the kohya file with it: the same picture, with the card's sampler and size."""
    own, frame = sampled(capsys, tmp_path / "card", run.adapter, "--sampler", "euler")
    assert (frame.width, frame.scheduler) == (64, "euler")
    file, where = run.adapter / f"{HOMER}.safetensors", ("--base", run.base, "--sampler", "euler")
    assert np.abs(sampled(capsys, tmp_path / "file", file, *where)[0] - own).max() <= 1


@pytest.mark.slow
def test_evaluate_against_its_works(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Style and copies of a finished adapter, painted on the base that its card names."""
    works, to = run.space.root / "dataset" / HOMER, tmp_path / "out"
    command = ("evaluate", run.adapter, "--against", works, "--prompt", "a boat", "--seeds", 2, "--to", to)
    code, _, errors = told(capsys, *command, "--steps", 2, "--precision", "fp32", "--quiet")
    assert (code, errors) == (0, [])
    result = json.loads(next(to.rglob("evaluation.json")).read_text(encoding="utf-8"))
    assert result["base"]["family"] == "sdxl"
    assert result["base"]["model"] == run.base.name
    assert len(result["pictures"]) == 2
    assert all(picture["change_from_base"] > 0 for picture in result["pictures"])
    assert set(result["works"]["images"]) == {path.name for path in works.glob("*.png")}
