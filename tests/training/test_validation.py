"""What is painted for a training: the base's own pictures, samples on the way, and the best by them."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from avignon.adapters import files
from avignon.core import imaging, png
from avignon.core.errors import RecipeError
from avignon.core.events import StageProgress
from avignon.core.files import sha256_of
from avignon.generation.sampler import ImageSampler
from avignon.generation.series import SeriesPlan
from avignon.models.base import Conditioning, DiffusionBase
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe, Train
from avignon.training import dataset, loop, prior, validation
from avignon.training.objective import denoising_losses
from avignon.training.setup import RuntimeConfig
from tests.support.bases import load_base, uniform
from tests.support.runs import carried, small_recipe, write_recipe
from tests.support.trainings import HOMER, PICASSO, SILENT, card, metrics, prepared, run, same, weights

SAMPLES = "adapters/winslow-homer/samples"


# Prior preservation ---------------------------------------------------------------------------------------------------


def test_captions_lose_their_trigger() -> None:
    """What is left of a caption is prose again; of nothing but the trigger, a picture."""
    trigger = "in the style of homer"
    assert prior.without_trigger(f"Breezing Up, {trigger}", trigger) == "Breezing Up"
    assert prior.without_trigger(f"{trigger}: Gloucester, oil", trigger) == "Gloucester, oil"
    assert prior.without_trigger(f"a boat, {trigger}, oil", trigger) == "a boat, oil"
    assert prior.without_trigger(trigger, trigger) == "a picture"


def some_data(images: int, offset: float) -> dataset.LatentDataset:
    """Images that are one number each, known exactly."""
    mean = (torch.arange(images) + offset).view(-1, 1, 1, 1, 1).expand(-1, 1, 4, 8, 8).clone()
    told = Conditioning({"text": torch.full((images + 1, 3, 2), offset)})
    files = tuple(f"{offset:g}-{i}" for i in range(images))
    shapes = ((64, 64),) * images
    return dataset.LatentDataset(list(mean), list(torch.zeros_like(mean)), told, files, (("c",),) * images, shapes)


def test_prior_samples_are_added_to_the_batch() -> None:
    """A step has as many of the base's pictures as of the works, after them, with the weight that was asked for."""
    settings = Train(batch=3, prior_images=5, prior_weight=0.25, caption_dropout=0.0)
    works, others = some_data(4, 0.0), some_data(5, 100.0)
    drawn = dataset.sample_batch_with_prior(works, others, settings, uniform(1000), seed=1, step=2)
    alone = dataset.sample_batch(works, settings, uniform(1000), 1, 2)
    assert torch.equal(drawn.latents[:3], alone.latents)
    assert torch.equal(drawn.noise[:3], alone.noise)
    assert (drawn.latents[3:] >= 100).all()
    assert torch.equal(drawn.latents[3:, 0, 0, 0] - 100 + 4, drawn.index[3:].float())
    assert drawn.weight.tolist() == [1, 1, 1, 0.25, 0.25, 0.25]
    assert (drawn.conditioning.tensors["text"][3:] == 100).all()


def base_of(recipe: Recipe) -> StableDiffusion:
    """The recipe's base in fp32."""
    return load_base(recipe, torch.float32, SILENT)


def test_prior_is_what_the_base_paints(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents are those of diffusers' own pipeline, painted once: the second time they are read."""
    recipe = small_recipe(tmp_path, tiny_sd, train={"prior_images": 3})
    file, runtime = tmp_path / "prior.safetensors", RuntimeConfig.for_device(recipe, torch.device("cpu"))
    base = base_of(recipe)
    painter = ImageSampler(base, recipe, torch.device("cpu"), SILENT)
    data = prior.paint_prior(base, recipe, ["a boat", "a guitar"], [(64, 64)], file, runtime, painter, SILENT)
    assert data.captions == (("a boat",), ("a guitar",), ("a boat",))
    assert not any(std.any() for std in data.std)
    pipeline = base.pipeline
    pipeline.scheduler = base.sampler("ddim", 2, 64, 64)
    seed = dataset.seed_of(dataset.seed_of(recipe.seed, "prior"), 1)
    own = pipeline(
        "a guitar", num_inference_steps=2, guidance_scale=recipe.generate.guidance_scale, width=64, height=64,
        generator=torch.Generator().manual_seed(seed), output_type="latent",
    ).images  # fmt: skip
    assert torch.allclose(data.mean[1][0], own[0], atol=1e-4)
    before = sha256_of(file)
    monkeypatch.setattr(prior, "_painted", None)  # Painting again would fail.
    again = prior.paint_prior(base, recipe, ["a boat", "a guitar"], [(64, 64)], file, runtime, painter, SILENT)
    assert all(map(torch.equal, again.mean, data.mean))
    assert sha256_of(file) == before


@pytest.mark.parametrize("content", [b"", b"no safetensors at all"])
def test_damaged_prior_is_painted_again(tmp_path: Path, tiny_sd: Path, content: bytes) -> None:
    """A file that was cut off costs the time to paint it, nothing else."""
    recipe = small_recipe(tmp_path, tiny_sd, train={"prior_images": 1})
    file = tmp_path / "prior.safetensors"
    file.write_bytes(content)
    runtime = RuntimeConfig.for_device(recipe, torch.device("cpu"))
    base = base_of(recipe)
    painter = ImageSampler(base, recipe, torch.device("cpu"), SILENT)
    data = prior.paint_prior(base, recipe, ["a boat"], [(64, 64)], file, runtime, painter, SILENT)
    assert data.mean[0].isfinite().all()
    assert len(file.read_bytes()) > 100


@pytest.mark.slow
def test_prior_counts_in_the_loss(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is the mean of the works' plus the weight times the mean of the base's own; all passes together."""

    def known(base: DiffusionBase, drawn: dataset.Batch) -> torch.Tensor:
        return denoising_losses(base, drawn) * 0 + torch.where(drawn.weight == 1, 2.0, 3.0)

    monkeypatch.setattr(loop, "denoising_losses", known)
    for micro_batch in (0, 1):
        settings = {"prior_images": 2, "prior_weight": 10.0, "micro_batch": micro_batch}
        recipe, space = prepared(tmp_path / str(micro_batch), tiny_sd, **settings)
        run(recipe, space)
        assert [line["loss"] for line in metrics(space)] == [32.0] * 4


# Samples --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_samples_change_nothing_but_what_is_seen(tmp_path: Path, tiny_sd: Path) -> None:
    """Weights with and without samples are bit for bit the same; the samples are the adapter's pictures."""
    recipe, space = prepared(tmp_path / "sampled", tiny_sd, sample_every=2)
    run(recipe, space)
    other, plain = prepared(tmp_path / "plain", tiny_sd)
    run(other, plain)
    assert same(weights(space), weights(plain))
    painted = sorted(
        path.relative_to(space.root / SAMPLES).as_posix() for path in (space.root / SAMPLES).rglob("*.png")
    )
    assert painted == [f"step-{n}/scene-{k}.png" for n in (2, 4) for k in (1, 2)]
    last = space.root / SAMPLES / "step-4"
    fields = png.png_fields(last / "scene-1.png")
    assert fields["prompt"] == "a boat on the sea"
    assert fields["seed"] == recipe.seed + 1, "the seed of the series"
    assert fields["weights"] == {HOMER: 1.0}
    base = base_of(recipe)
    files.load(base, HOMER, space.adapter(HOMER))
    painter = ImageSampler(base, recipe, torch.device("cpu"), SILENT)
    plan = SeriesPlan(recipe, "", {}, "")
    frame = plan.of_prompt(fields["prompt"], fields["seed"], weights={HOMER: 1.0})
    second = plan.of_prompt("a guitar on a table", fields["seed"] + 1, weights={HOMER: 1.0})
    shown = painter.paint([frame, second])
    assert _apart(shown[0], imaging.load(last / "scene-1.png")) <= 1
    lines = metrics(space)
    assert [("style_gained" in line) for line in lines] == [False, True, False, True]
    assert lines[-1]["sample_score"] == pytest.approx(lines[-1]["style_gained"] - lines[-1]["copies"])
    assert card(space)["metrics"]["sample_score"] == lines[-1]["sample_score"]


def _apart(one: Image.Image, other: Image.Image) -> int:
    """Largest difference, in grey levels."""
    return int((imaging.pixels(one) - imaging.pixels(other)).__abs__().max() * 255 + 0.5)


@pytest.mark.slow
def test_samples_of_restricted_works_say_so(tmp_path: Path, tiny_sd: Path) -> None:
    """A sample carries what the adapter's card will say of its rights."""
    path = write_recipe(tmp_path, tiny_sd, rights="© the estate", train={"sample_every": 4})
    recipe = load_recipe(path, ["artists.0.rights=acknowledge-restricted", "artists.1.rights=acknowledge-restricted"])
    space, _ = carried(recipe, tmp_path / "runs")
    run(recipe, space)
    with Image.open(space.root / SAMPLES / "step-4" / "scene-1.png") as image:
        assert "not known to be free to use" in image.text["Copyright"]  # type: ignore[attr-defined]


# The best -----------------------------------------------------------------------------------------------------------


def works(folder: Path, colour: str, seed: int) -> list[Path]:
    """Six works of one hand: bars of one colour, anywhere."""
    folder.mkdir(parents=True)
    dice, files = random.Random(seed), []
    for number in range(6):
        image = Image.new("RGB", (128, 128), "white")
        for _ in range(7):
            x, y = dice.randrange(110), dice.randrange(110)
            box = (x, y, x + dice.randrange(5, 40), y + dice.randrange(5, 40))
            ImageDraw.Draw(image).rectangle(box, fill=colour)
        files.append(folder / f"{number}-1.png")
        image.save(files[-1])
    return files


@pytest.mark.slow
def test_judge_tells_style_from_copies(tmp_path: Path) -> None:
    """Nearer to the artist than before is gained; a copy of a work gains more, and is told as a copy."""
    files = {"red": works(tmp_path / "red", "firebrick", 1), "blue": works(tmp_path / "blue", "navy", 2)}
    metric = validation.ValidationMetric.over(files, ["red"])
    blue = [imaging.load(file) for file in files["blue"]]
    red = [imaging.load(file) for file in works(tmp_path / "new", "firebrick", 3)]
    before = metric(blue, blue)
    assert before == {"style_gained": 0.0, "copies": 0.0, "sample_score": 0.0}
    new = metric(red, blue)
    assert new["style_gained"] > 0.3
    assert new["copies"] < 0.5, "bars fall alike by chance now and then"
    copied = metric([imaging.load(file) for file in files["red"]], blue)
    assert copied["copies"] == 1
    assert copied["sample_score"] < new["sample_score"]


def test_choice_keeps_the_best() -> None:
    """The best weights are kept as they were; so many worse samples end it; its state comes back."""
    best, vector = validation.BestCheckpoint(patience=2), torch.zeros(3)
    for step, score in enumerate((0.1, 0.5, 0.4, 0.5)):
        assert not best.is_over
        vector += 1
        best.see(step, {"sample_score": score}, vector)
    assert best.is_over
    assert best.step == 1
    assert best.weights is not None
    assert best.weights.tolist() == [2, 2, 2]
    other = validation.BestCheckpoint(patience=3)
    other.load_state_dict(best.state_dict())
    assert (other.step, other.found, other.worse, other.is_over) == (1, {"sample_score": 0.5}, 2, False)
    assert not validation.BestCheckpoint(patience=0, worse=99).is_over


class Judged:
    """Scores by the step, whatever is painted."""

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)

    def __call__(self, step: int, vector: torch.Tensor) -> Any:
        """No pictures, but a judgement."""
        score = self.scores[step - 1]
        return [], {"style_gained": score, "copies": 0.0, "sample_score": score}


@pytest.mark.slow
def test_samples_are_frames_of_the_series(tmp_path: Path, tiny_sd: Path) -> None:
    """Samples honour block weights, a scene's image and its second seed, at the place of their adapter on the path."""
    ImageDraw.Draw(photo := Image.new("RGB", (80, 60), "white")).rectangle((10, 10, 40, 50), fill="black")
    photo.save(tmp_path / "boat.png")
    scenes = [{"prompt": "a boat", "to_seed": 9}, {"prompt": "a bull", "image": str(tmp_path / "boat.png")}]
    generate = {"block_weights": {PICASSO: {"up": 0.5}}, "scenes": scenes}
    recipe = small_recipe(tmp_path, tiny_sd, train={"steps": 1, "sample_every": 1}, generate=generate)
    space, _ = carried(recipe, tmp_path / "runs", "train")
    for name, place, blocks in ((HOMER, 0.0, {}), (PICASSO, 1.0, {PICASSO: {"up": 0.5}})):
        turned, begun = (
            png.png_fields(space.adapter(name) / "samples" / "step-1" / f"scene-{number}.png") for number in (1, 2)
        )
        assert (turned["to_seed"], turned["seed_place"], turned["source"]) == (9, place, None)
        assert (begun["to_seed"], begun["source"]["file"]) == (-1, "boat.png")
        assert turned["block_weights"] == begun["block_weights"] == blocks


def judged(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Let every sample have the score of its step."""
    paint = Judged(*scores)
    monkeypatch.setattr(validation.ValidationSampler, "paint", lambda self, step, vector: paint(step, vector))


@pytest.mark.slow
def test_best_weights_are_saved(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With keep = "best" the file holds the weights of the best sample, which differ from the last."""
    judged(monkeypatch, 0.1, 0.9, 0.3, 0.2)
    settings: dict[str, Any] = {"sample_every": 1, "keep": "best", "lr_schedule": "constant"}
    recipe, space = prepared(tmp_path / "best", tiny_sd, **settings)
    run(recipe, space)
    assert card(space)["metrics"]["kept_step"] == 2
    assert card(space)["metrics"]["steps"] == 4
    assert card(space)["metrics"]["sample_score"] == 0.9, "what is told is of the weights that are kept"
    trained = card(space)
    more = recipe.generate.model_copy(update={"extra_seeds": 2})
    run(recipe.model_copy(update={"generate": more}), space)
    assert card(space) == trained, "further seeds of the series are no reason to train again"
    short, other = prepared(tmp_path / "short", tiny_sd, **{**settings, "steps": 2})
    run(short, other)
    assert same(weights(space), weights(other))
    whole, last = prepared(tmp_path / "last", tiny_sd, **{**settings, "keep": "last"})
    run(whole, last)
    assert card(last)["metrics"]["kept_step"] == 4
    assert not same(weights(space), weights(last))


@pytest.mark.slow
def test_training_stops_when_nothing_gets_better(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `patience` samples that are no better it ends, and says at which step; the loss held out is there."""
    judged(monkeypatch, 0.5, 0.4, 0.4, 0.9)
    recipe, space = prepared(tmp_path, tiny_sd, sample_every=1, patience=2, keep="best", validation_works=1)
    run(recipe, space)
    found = card(space)["metrics"]
    assert (found["steps"], found["kept_step"]) == (3, 1)
    assert math.isfinite(found["validation_loss"])
    assert len(metrics(space)) == 3


@pytest.mark.slow
def test_choice_survives_an_interruption(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the best sample and run again, it still keeps that one."""
    judged(monkeypatch, 0.1, 0.9, 0.3, 0.2)
    recipe, space = prepared(tmp_path, tiny_sd, sample_every=1, keep="best")

    class Killed(Exception):  # noqa: N818 - nothing is wrong
        pass

    def kill(event: Any) -> None:
        if isinstance(event, StageProgress) and event.done == 3:
            raise Killed

    with pytest.raises(Killed):
        run(recipe, space, kill)
    run(recipe, space)
    assert card(space)["metrics"]["kept_step"] == 2


@pytest.mark.parametrize("settings", [{"keep": "best"}, {"patience": 2}])
def test_a_choice_needs_samples(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Choosing without samples is refused in the recipe."""
    with pytest.raises(RecipeError, match="set sample_every"):
        small_recipe(tmp_path, "embedded", train=settings)
