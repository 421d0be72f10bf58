"""NaN and infinity: named where they come in, wherever that is, and never in a picture or a JSON file."""

import json
import math
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

from avignon.adapters import cards, files, inject
from avignon.adapters.formats import diffusers as lora_format
from avignon.cli.main import main
from avignon.core import png
from avignon.core.errors import AdapterError, AvignonError, ModelError, RecipeError, WorkspaceError
from avignon.core.events import Reporter
from avignon.core.files import digest, json_text, json_value, read_json, write_json
from avignon.core.records import Frame
from avignon.core.workspace import AdapterFolder
from avignon.generation import sampler as painting
from avignon.models import finite
from avignon.models.base import to_pixels
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Ranks, Recipe
from avignon.stages import generate, train
from avignon.training import dataset, prior
from avignon.training.metrics import MetricsLogger, Step
from avignon.training.setup import RuntimeConfig, prepare_denoiser
from tests.support.bases import TARGETS, load_base
from tests.support.runs import carried, small_recipe, write_recipe
from tests.support.tiny_encoders import make_encoder

SILENT = Reporter("generate", lambda _: None)
CPU = torch.device("cpu")
BAD = {"NaN": math.nan, "infinity": math.inf, "minus infinity": -math.inf}
UNET = "unet/diffusion_pytorch_model.safetensors"
RANKS = Ranks(attention=4, projection=3, convolution=2)


def spoiled(path: Path, value: float, name: str = "") -> str:
    """Write one bad number into one tensor of a safetensors file, the last number of the last one; returns its name."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    name = name or max(tensors)
    tensors[name].view(-1)[-1] = value
    safetensors.torch.save_file(tensors, path, metadata=metadata)
    return name


@pytest.fixture
def copy(tiny_sd: Path, tmp_path: Path) -> Path:
    """A copy of the tiny base, to spoil."""
    return shutil.copytree(tiny_sd, tmp_path / "copy")


@pytest.fixture
def recipe(tiny_sd: Path, tmp_path: Path) -> Recipe:
    """A recipe over the tiny base."""
    return small_recipe(tmp_path / "recipe", tiny_sd)


def loaded(recipe: Recipe) -> StableDiffusion:
    """Its base."""
    return load_base(recipe, torch.float32, SILENT)


@pytest.mark.parametrize("value", [*BAD.values(), 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_every_bad_number_is_seen(value: float, dtype: torch.dtype) -> None:
    """Anywhere in a tensor of any precision; large finite numbers, whole numbers and empty tensors are sound."""
    for place in (0, 511, 1023):
        tensor = torch.full((32, 32), 6e4).to(dtype)
        tensor.view(-1)[place] = value
        assert finite.is_finite(tensor) is (value == 1e4)
    assert finite.is_finite(torch.zeros(0))
    assert finite.is_finite(torch.arange(3))
    assert finite.is_finite(torch.ones(4).to(torch.float8_e4m3fn))


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("file", [UNET, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_bad_number_in_a_base(copy: Path, tmp_path: Path, file: str, value: float) -> None:
    """One bad number in any part of the base: the line names file and tensor, before anything is trained."""
    name = spoiled(copy / file, value)
    recipe = small_recipe(tmp_path / "recipe", copy)
    with pytest.raises(ModelError) as refused:
        loaded(recipe)
    assert f"{copy / file}: damaged: NaN or infinity in the tensor {name}" in str(refused.value)


def test_bad_number_in_a_base_is_not_the_learning_rates_fault(copy: Path, tmp_path: Path) -> None:
    """A training on such a base says so, and nothing of rates."""
    spoiled(copy / UNET, math.nan)
    with pytest.raises(ModelError, match="NaN or infinity in the tensor") as refused:
        carried(small_recipe(tmp_path, copy), tmp_path / "runs", "train")
    assert "rate" not in str(refused.value)


def test_a_base_that_overflows(copy: Path, tmp_path: Path) -> None:
    """A weight beyond fp16's range is named as that, and the file is not called damaged."""
    name = spoiled(copy / UNET, 1e6)
    recipe = small_recipe(tmp_path / "recipe", copy)
    with pytest.raises(ModelError, match=rf"unet: {name} overflows in torch\.float16; set precision to fp32 or bf16"):
        load_base(recipe, torch.float16, SILENT)
    runtime = replace(RuntimeConfig.for_device(recipe, CPU), precision="fp16")
    with pytest.raises(ModelError, match=rf"{name} overflows in fp16; set train\.precision to bf16 or fp32"):
        prepare_denoiser(loaded(recipe), ["new"], recipe, runtime)


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_bad_number_in_an_encoder(tmp_path: Path, value: float) -> None:
    """An encoder is read with the same care."""
    from avignon.models import image_encoder

    folder = make_encoder(tmp_path / "dino", "Dinov2Model")
    name = spoiled(folder / "model.safetensors", value)
    with pytest.raises(ModelError, match=rf"model\.safetensors: damaged: NaN or infinity in the tensor {name}"):
        image_encoder.load(str(folder), (), "main", SILENT)


def saved(recipe: Recipe, folder: Path, *, dora: bool = False) -> Path:
    """An adapter's file."""
    unet = loaded(recipe).pipeline.unet
    inject.add(unet, TARGETS, "new", RANKS, alpha=4.0, seed=1, dora=dora)
    files.save(unet, TARGETS, "new", folder / lora_format.WEIGHTS_FILE)
    return folder / lora_format.WEIGHTS_FILE


@pytest.mark.slow_but_one
@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("part", ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"])
def test_bad_number_in_an_adapter(recipe: Recipe, tmp_path: Path, part: str, value: float) -> None:
    """One bad number in one tensor of a LoRA or DoRA: the line names file and tensor."""
    path = saved(recipe, tmp_path / "new", dora="magnitude" in part)
    name = next(key for key in safetensors.torch.load_file(path) if key.endswith(part))
    spoiled(path, value, name)
    with pytest.raises(AdapterError) as refused:
        files.load(loaded(recipe), "new", path.parent)
    assert str(refused.value) == f"{path}: damaged: NaN or infinity in the tensor {name}"


def test_bad_scale_of_an_adapter(recipe: Recipe, tmp_path: Path) -> None:
    """An alpha that is no number, in the file's metadata, is named as well."""
    path = saved(recipe, tmp_path / "new")
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = {key: text.replace(": 4.0", ": NaN") for key, text in file.metadata().items()}
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata=metadata)
    with pytest.raises(AdapterError, match=r"damaged: .*lora_alpha is 'nan'"):
        files.load(loaded(recipe), "new", path.parent)


@pytest.mark.slow
def test_series_with_a_bad_adapter(recipe: Recipe, tmp_path: Path) -> None:
    """A run stops before a picture is made, and no file of the series is left."""
    space, _ = carried(recipe, tmp_path / "runs", "train")
    spoiled(space.adapter("pablo-picasso") / lora_format.WEIGHTS_FILE, math.nan)
    with pytest.raises(
        AdapterError, match=r"pablo-picasso/pytorch_lora_weights\.safetensors: damaged: NaN or infinity"
    ):
        generate.run(recipe, space, SILENT)
    assert not space.series.exists()


# What is computed -----------------------------------------------------------------------------------------------------


def frame(number: int = 1, **changes: Any) -> Frame:
    """A small frame."""
    return Frame(**{**vars(Frame(f"scene-{number}", "stop-1", f"boat {number}", "", number, 3, 5.0, "ddim", 64, 64, {},
                                 "", {}, "fp32")), **changes})  # fmt: skip


def bad_where(text: torch.Tensor, value: float) -> Callable[..., Any]:
    """A UNet's forward pass, in place of its own, that is bad for the samples of a text."""

    def forward(noisy: torch.Tensor, t: Any, encoder_hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        hit = (encoder_hidden_states == text).all(-1).all(-1)[:, None, None, None]
        return (torch.where(hit, value, 0.1 * noisy),)

    return forward


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_latents_name_their_picture(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Of a batch, the line names the one picture that came to nothing, and what to change."""
    base = loaded(recipe)
    sampler = painting.ImageSampler(base, recipe, CPU, SILENT)
    bad = base.encode_prompts(["boat 2"], CPU, SILENT).tensors["text"]
    monkeypatch.setattr(base.denoiser, "forward", bad_where(bad, value))
    sampler.paint([frame(1), frame(3)])
    with pytest.raises(ModelError) as refused:
        sampler.paint([frame(1), frame(2), frame(3)])
    assert str(refused.value) == (
        "scene-2/stop-1 ('boat 2', seed 2, no adapter) comes to NaN or infinity with ddim in float32: lower "
        "generate.guidance_scale, generate.strength or the adapters' weights"
    )


def test_half_precision_is_named_as_the_cause(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another precision than fp32, that is the first thing to change, in the words of the stage that paints."""
    base = load_base(recipe, torch.bfloat16, SILENT)
    for stage in ("train", "generate"):
        sampler = painting.ImageSampler(base, recipe, CPU, Reporter(stage, lambda _: None))
        monkeypatch.setattr(base.denoiser, "forward", lambda noisy, *_, **__: (noisy * math.nan,))
        with pytest.raises(ModelError, match=rf"in bfloat16: set {stage}\.precision to fp32, or lower"):
            sampler.denoise([frame()])


def test_pixels_name_their_picture(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """So do pixels that the VAE spoils."""
    base = loaded(recipe)
    sampler = painting.ImageSampler(base, recipe, CPU, SILENT)
    monkeypatch.setattr(base.pipeline.vae, "decode", lambda x, **_: (torch.full((1, 3, 64, 64), math.inf),))
    with pytest.raises(ModelError, match=r"scene-4/stop-1 .* comes to NaN or infinity"):
        sampler.paint([frame(4)])


@pytest.mark.slow
def test_effects_name_their_adapter(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured of an adapter is finite, or the line names the adapter."""
    base, path = loaded(recipe), saved(recipe, tmp_path / "new")
    files.load(base, "new", path.parent)
    sampler = painting.ImageSampler(base, recipe, CPU, SILENT)
    assert math.isfinite(sampler.effects([frame()], ["new"])["new"])
    with torch.no_grad():
        for key, parameter in base.denoiser.named_parameters():
            if "lora_" in key:
                parameter.fill_(1e30)
    with pytest.raises(ModelError, match=r"new 1\) comes to NaN or infinity"):
        sampler.effects([frame()], ["new"])


def test_training_image_is_named(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image whose latents are no numbers stops the training before its first step, by its name."""
    space, _ = carried(recipe, tmp_path / "runs")
    rows = space.read_metadata("winslow-homer")
    examples = [(space.metadata("winslow-homer").with_name(row["file_name"]), row) for row in rows]
    base, read, factors = loaded(recipe), to_pixels, iter((1, math.nan, 1))
    monkeypatch.setattr(dataset, "to_pixels", lambda image: read(image) * next(factors))
    with pytest.raises(ModelError, match=rf"NaN or infinity of the training image {examples[1][0].name}"):
        dataset.encode(base, examples, recipe.train, CPU, SILENT)


def test_embedding_is_named(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does a text of which the text encoder makes no numbers."""
    base = loaded(recipe)
    encoder = base.pipeline.text_encoder
    forward = encoder.forward

    def last_bad(*given: Any, **named: Any) -> Any:
        found = forward(*given, **named)
        found[0][-1] = math.nan
        return found

    monkeypatch.setattr(encoder, "forward", last_bad)
    with pytest.raises(ModelError, match=r"makes NaN or infinity of 'sea' in torch\.float32; set train\.precision"):
        base.encode_prompts(["boat", "sea"], CPU, Reporter("train", lambda _: None))


@pytest.mark.slow
def test_samples_and_held_out_works_while_training(
    tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample painted on the way, and the loss on held-out works, stop the training, and its checkpoints are kept."""
    recipe = small_recipe(tmp_path, tiny_sd, train={"sample_every": 3, "validation_works": 1})
    space, _ = carried(recipe, tmp_path / "runs")
    with monkeypatch.context() as patch:
        predict = StableDiffusion.predict

        def painted(*arguments: Any) -> torch.Tensor:
            return predict(*arguments) * (1 if torch.is_grad_enabled() else math.nan)

        patch.setattr(StableDiffusion, "predict", painted)
        with pytest.raises(ModelError, match=r"scene-1.* comes to NaN or infinity with ddim in float32"):
            train.run(recipe, space, Reporter("train", lambda _: None))
    assert list((space.adapter("winslow-homer") / "checkpoints").glob("step-*.pt"))
    monkeypatch.setattr(
        "avignon.training.adapter_trainer.validation_batches",
        lambda *_: [_infinite(batch) for batch in dataset.validation_batches(*_)],
    )
    with pytest.raises(AvignonError, match="the loss on the works held out is nan"):
        train.run(recipe, space, Reporter("train", lambda _: None))


def _infinite(sample_batch: dataset.Batch) -> dataset.Batch:
    return replace(sample_batch, latents=sample_batch.latents * math.nan)


def test_the_bases_own_pictures_are_made_again(tmp_path: Path) -> None:
    """Latents of the base's own pictures that an earlier version wrote as NaN are not taken from the file."""
    path = tmp_path / "prior.safetensors"
    for value, known in ((1.0, True), (math.nan, False)):
        latents = torch.full((2, 4, 8, 8), value)
        path.write_bytes(safetensors.torch.save({"latents": latents}, metadata={"job": "x"}))
        assert (prior._kept(path, "x") is not None) is known


# JSON -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_no_json_holds_a_bad_number(tmp_path: Path, value: float) -> None:
    """What would be written is refused with its place, and the file before it is kept."""
    path = tmp_path / "report.json"
    write_json(path, {"frames": []})
    with pytest.raises(WorkspaceError, match=rf"{path}: not written: not a finite number at frames\.1\.way; "):
        write_json(path, {"frames": [{"way": 1.0}, {"way": value}]})
    assert read_json(path) == {"frames": []}
    for write in (json_text, digest, lambda fields: png.png_bytes(Image.new("RGB", (8, 8)), "", fields)):
        with pytest.raises(ValueError, match="not a finite number at way"):
            write({"way": value})


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_no_bad_number_is_read_from_json(tmp_path: Path, text: str) -> None:
    """Python's reader takes them, and Chrome, jq and pandas do not: such a file is damaged."""
    path = tmp_path / "report.json"
    path.write_text(f'{{"way": [{text}]}}', encoding="utf-8")
    with pytest.raises(WorkspaceError, match=f"{path}: damaged; delete it"):
        read_json(path)
    with pytest.raises(ValueError, match="is not a finite number"):
        json_value(f'{{"way": {text}}}')
    assert json_value('{"way": [1e308, -2.5, 3]}') == {"way": [1e308, -2.5, 3]}


def test_card_with_a_bad_number(recipe: Recipe, tmp_path: Path) -> None:
    """A card that holds NaN is damaged, and says so."""
    path = saved(recipe, tmp_path / "new")
    base = loaded(recipe)
    card = {"base": {"model": base.model, "fingerprint": base.fingerprint}, "loss": math.nan}
    (path.parent / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(AdapterError, match=r"card\.json: damaged"):
        files.load(base, "new", path.parent)


def test_journal_has_no_word_for_infinity(tmp_path: Path) -> None:
    """The norm of a step that fp16 passed over is null in the metrics; one with Infinity, of before, is still read."""
    with MetricsLogger(AdapterFolder(tmp_path), 0, writes=True) as logger:
        logger.write(Step(1, 0.1, torch.tensor(0.5), torch.tensor(math.inf)), {})
    text = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    assert json_value(text)["gradient_norm"] is None
    (tmp_path / "metrics.jsonl").write_text(text.replace("null", "Infinity"), encoding="utf-8")
    with MetricsLogger(AdapterFolder(tmp_path), 1, writes=True) as logger:
        assert logger.recent == 0.5


@pytest.mark.slow
def test_card_of_a_training_that_lost_its_journal(tiny_sd: Path, tmp_path: Path) -> None:
    """Where no loss is known any more, the card says null and its page `unknown`."""
    recipe = small_recipe(tmp_path, tiny_sd, train={"mode": "joint", "checkpoint_every": 4})
    space, _ = carried(recipe, tmp_path / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cards, "model_card", None)  # Fails after the last step, with its checkpoint written.
        with pytest.raises(TypeError):
            train.run(recipe, space, Reporter("train", lambda _: None))
    (space.adapter("joint") / "metrics.jsonl").unlink()
    train.run(recipe, space, Reporter("train", lambda _: None))
    assert read_json(space.adapter("joint") / "card.json")["metrics"]["final_loss"] is None
    assert "final loss unknown" in (space.adapter("joint") / "README.md").read_text(encoding="utf-8")


# Recipes --------------------------------------------------------------------------------------------------------------

PLACES: dict[str, Any] = {
    "guidance": lambda x: {"generate": {"guidance_scale": x}},
    "weights": lambda x: {"generate": {"weights": [{"winslow-homer": x}]}},
    "block_weights": lambda x: {"generate": {"block_weights": {"winslow-homer": {"up": x}}}},
    "weight_schedule": lambda x: {"generate": {"weight_schedule": {"winslow-homer": [1.0, x]}}},
    "strengths": lambda x: {"generate": {"strengths": {"winslow-homer": x}}},
    "learning_rate": lambda x: {"train": {"learning_rate": x}},
    "image_strength": lambda x: {"generate": {"scenes": [{"prompt": "sea", "image": "a.png", "image_strength": x}]}},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_recipe_with_a_bad_number(tmp_path: Path, place: str, value: str) -> None:
    """TOML has words for them; in a recipe they are refused by their place, inside tables and lists as well."""
    path = write_recipe(tmp_path, "embedded", **PLACES[place](tomllib.loads(f"x = {value}")["x"]))
    with pytest.raises(RecipeError, match=place):
        load_recipe(path)


def test_bad_number_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So is one of `--set`."""
    path = write_recipe(tmp_path, "embedded")
    with pytest.raises(SystemExit) as ended:
        main(["run", str(path), "--set", "generate.weights=[{winslow-homer = nan}]", "--workspace", str(tmp_path)])
    assert ended.value.code == 2
    assert "generate.weights.0.winslow-homer" in capsys.readouterr().err
