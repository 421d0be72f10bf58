"""Training: targets, draws, schedules, interruption, and what is left on the disk."""

import errno
import itertools
import math
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from avignon import __version__
from avignon.adapters import files, inject
from avignon.adapters.formats import diffusers as lora_format
from avignon.core.errors import AvignonError, RecipeError, WorkspaceError
from avignon.core.events import Event, StageProgress
from avignon.core.files import sha256_of
from avignon.core.workspace import Workspace
from avignon.models import loading
from avignon.models.base import Conditioning
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.schema import Recipe, Train
from avignon.training import adapter_trainer as trainer
from avignon.training import dataset, loop, memory
from avignon.training import job as jobs
from avignon.training.adapter_trainer import learning_rate
from avignon.training.checkpoints import Checkpoints
from avignon.training.objective import denoising_losses
from avignon.training.optimizer import LOSS, SCALE, Fault, FlatParameters, OptimizerStep, new_optimizer
from avignon.training.setup import RuntimeConfig
from tests.support.bases import TARGETS, load_base, uniform, with_denoiser
from tests.support.runs import carried, small_recipe
from tests.support.tiny_sd import make_tiny_sd
from tests.support.trainings import (
    HOMER,
    PICASSO,
    SILENT,
    OutOfMemory,
    card,
    metrics,
    prepared,
    run,
    same,
    stopped,
    weights,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> tuple[Recipe, Workspace]:
    """A training that was never interrupted."""
    recipe, space = prepared(tmp_path_factory.mktemp("whole"), tiny_sd)
    run(recipe, space)
    return recipe, space


@pytest.mark.slow
def test_learning_works(tmp_path: Path, tiny_sd: Path) -> None:
    """One image learned by heart: on the very same draws the loss ends well below where it began."""
    settings = Train(steps=60, batch=4, precision="fp32", learning_rate=2e-2, lr_schedule="constant", caption_dropout=0)
    recipe, space = prepared(tmp_path, tiny_sd, **settings.model_dump(exclude={"ranks"}))
    base = load_base(recipe, torch.float32, SILENT)
    row = space.read_metadata(HOMER)[0]
    example = (space.metadata(HOMER).with_name(row["file_name"]), row)
    data = dataset.encode(base, [example], settings, torch.device("cpu"), SILENT)
    factors = FlatParameters(inject.add(base.denoiser, TARGETS, HOMER, settings.ranks, 0, seed=1), torch.float32)
    updates = OptimizerStep(factors, settings, scaled=False)
    fixed = [dataset.sample_batch(data, settings, uniform(1000), seed=99, step=step) for step in range(4)]

    def loss() -> float:
        with torch.no_grad():
            return sum(float(denoising_losses(base, drawn).mean()) for drawn in fixed) / len(fixed)

    before = loss()
    for step in range(settings.steps):
        drawn = dataset.sample_batch(data, settings, uniform(1000), 1, step)
        error = denoising_losses(base, drawn).mean()
        error.backward()  # type: ignore[no-untyped-call]
        updates.apply(step, error.detach(), settings.learning_rate)
    assert loss() < 0.9 * before


def target(kind: str, latents: torch.Tensor, noise: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
    """What the UNet should predict: epsilon is the noise, v = √ᾱ·ε − √(1−ᾱ)·x, sample is x."""
    root, rest = alphas.sqrt().view(-1, 1, 1, 1), (1 - alphas).sqrt().view(-1, 1, 1, 1)
    return {"epsilon": noise, "v_prediction": root * noise - rest * latents, "sample": latents}[kind]


class Perfect:
    """A UNet that predicts what it is told to, and remembers what it was shown."""

    dtype = torch.float32

    def __init__(self, answer: torch.Tensor) -> None:
        self.answer = answer
        self.shown: list[torch.Tensor] = []

    def __call__(
        self, noisy: torch.Tensor, times: torch.Tensor, text: torch.Tensor, *, return_dict: bool
    ) -> tuple[torch.Tensor]:
        """Predict."""
        self.shown.append(noisy)
        return (self.answer,)


def some_draw() -> dataset.Batch:
    """Latents, noise and times at random."""
    random = torch.Generator().manual_seed(1)
    latents, noise = torch.randn(3, 4, 8, 8, generator=random), torch.randn(3, 4, 8, 8, generator=random)
    times, text = torch.tensor([0, 400, 999]), torch.zeros(3, 77, 16)
    return dataset.Batch(
        torch.arange(3), torch.zeros(3), latents, noise, times, Conditioning({"text": text}), torch.ones(3)
    )


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_targets_are_the_formulas(kind: str) -> None:
    """A UNet that predicts by the formula has loss 0, by any other formula not; it is shown √ᾱ·x + √(1−ᾱ)·ε."""
    drawn = some_draw()
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = torch.cumprod(1 - betas, 0)[drawn.timesteps]
    for other in ("epsilon", "v_prediction", "sample"):
        unet = Perfect(target(other, drawn.latents, drawn.noise, alphas))
        loss = float(denoising_losses(with_denoiser(unet, schedule), drawn).mean())
        assert (loss < 1e-9) == (other == kind)
    root, rest = alphas.sqrt().view(-1, 1, 1, 1), (1 - alphas).sqrt().view(-1, 1, 1, 1)
    assert torch.allclose(unet.shown[0], root * drawn.latents + rest * drawn.noise, atol=1e-5)


def test_unknown_target_is_refused() -> None:
    """A prediction type that is not understood stops the training instead of guessing."""
    schedule = DDPMScheduler(prediction_type="flow_prediction")
    with pytest.raises(AvignonError, match="predicts 'flow_prediction'; epsilon, v_prediction, sample are"):
        denoising_losses(with_denoiser(Perfect(torch.zeros(3, 4, 8, 8)), schedule), some_draw())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_other_bases_train(tmp_path: Path, kind: str) -> None:
    """A base of another prediction type trains by the type that its scheduler says."""
    recipe, space = prepared(tmp_path, make_tiny_sd(tmp_path / "base", prediction_type=kind), steps=1)
    run(recipe, space)
    assert all(math.isfinite(line["loss"]) for line in metrics(space))


def some_data(images: int = 5, views: int = 2, captions: int = 3) -> dataset.LatentDataset:
    """Data in which every image, view and caption can be told from its numbers."""
    number = torch.arange(images * views, dtype=torch.float32).view(images, views, 1, 1, 1)
    text = 1 + torch.arange(images * captions, dtype=torch.float32).view(-1, 1, 1).expand(-1, 77, 2)
    told = Conditioning({"text": torch.cat([text, torch.zeros(1, 77, 2)])})
    mean = number.expand(images, views, 4, 8, 8)
    files = tuple(f"{i}.png" for i in range(images))
    words = tuple(tuple(f"{i}, {k}" for k in range(captions)) for i in range(images))
    shapes = ((64, 64),) * images
    return dataset.LatentDataset(list(mean), list(torch.zeros_like(mean)), told, files, words, shapes)


def test_draws_follow_from_seed_and_step() -> None:
    """A step's draw is the same whatever was drawn before and whatever the global seed; another seed or step is not."""
    settings, data = Train(batch=4), some_data()
    first = dataset.sample_batch(data, settings, uniform(1000), seed=3, step=17)
    torch.manual_seed(123)
    torch.rand(5)
    for step in (0, 40):
        dataset.sample_batch(data, settings, uniform(1000), seed=3, step=step)
    again = dataset.sample_batch(data, settings, uniform(1000), seed=3, step=17)
    for name in ("index", "caption", "latents", "noise", "timesteps"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert torch.equal(first.conditioning.tensors["text"], again.conditioning.tensors["text"])
    assert not torch.equal(first.noise, dataset.sample_batch(data, settings, uniform(1000), seed=4, step=17).noise)
    assert not torch.equal(first.noise, dataset.sample_batch(data, settings, uniform(1000), seed=3, step=18).noise)


def test_draws_pair_images_with_their_own_texts() -> None:
    """Latents are of the image drawn, captions are its own or the empty one, and every view and caption comes up."""
    settings, data = Train(batch=4, caption_dropout=0.2), some_data()
    views, captions = set(), set()
    for step in range(60):
        drawn = dataset.sample_batch(data, settings, uniform(1000), seed=0, step=step)
        for image, latent, text in zip(
            drawn.index.tolist(), drawn.latents, drawn.conditioning.tensors["text"], strict=True
        ):
            shown, said = int(latent[0, 0, 0]), int(text[0, 0]) - 1
            assert shown // 2 == image
            assert said == -1 or said // 3 == image
            views.add(shown)
            captions.add(said)
    assert views == set(range(10))
    assert captions == set(range(-1, 15))


@pytest.mark.parametrize("batch", [1, 2, 5, 7])
def test_every_image_once_per_epoch(batch: int) -> None:
    """Whatever the batch, each image comes once before any comes again, and each epoch has an order of its own."""
    settings, data = Train(batch=batch), some_data()
    steps = (
        dataset.sample_batch(data, settings, uniform(1000), seed=0, step=step).index.tolist() for step in range(15)
    )
    order = list(itertools.chain.from_iterable(steps))
    epochs = [tuple(order[i : i + 5]) for i in range(0, len(order) - 4, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(epochs)) > 1


def test_share_of_dropped_captions() -> None:
    """The share of empty prompts is that of the recipe, within chance; 0 drops none."""
    data = some_data()
    for share in (0.0, 0.3):
        settings = Train(batch=16, caption_dropout=share)
        draws = [dataset.sample_batch(data, settings, uniform(1000), seed=0, step=step) for step in range(100)]
        dropped = sum(int((drawn.conditioning.tensors["text"][:, 0, 0] == 0).sum()) for drawn in draws) / 1600
        assert dropped == pytest.approx(share, abs=0.04)
        assert bool(dropped) is bool(share)


def test_timesteps_cover_the_schedule() -> None:
    """Timesteps are spread evenly over the whole noise schedule."""
    settings, data = Train(batch=16), some_data()
    times = torch.cat(
        [dataset.sample_batch(data, settings, uniform(1000), seed=0, step=step).timesteps for step in range(100)]
    )
    assert 0 <= times.min() < 10
    assert 990 <= times.max() < 1000
    assert Counter((times // 250).tolist()).most_common()[-1][1] > 320


def test_learning_rates() -> None:
    """Warm-up rises by even steps to the full rate; then constant, a line, or half a cosine, towards 0."""
    rates = {
        kind: [learning_rate(Train(steps=10, warmup=2, learning_rate=0.9, lr_schedule=kind), s) for s in range(10)]
        for kind in ("constant", "linear", "cosine")
    }
    for curve in rates.values():
        assert curve[:3] == pytest.approx([0.3, 0.6, 0.9])
    assert rates["constant"][2:] == [0.9] * 8
    assert rates["linear"][2:] == pytest.approx([0.9 * (1 - i / 8) for i in range(8)])
    assert rates["cosine"][2:] == pytest.approx([0.45 * (1 + math.cos(math.pi * i / 8)) for i in range(8)])
    assert learning_rate(Train(steps=1, warmup=1), 0) > 0


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"micro_batch": 1}, {"gradient_checkpointing": True}])
def test_small_cards_learn_the_same(tmp_path: Path, tiny_sd: Path, settings: dict[str, Any]) -> None:
    """Micro-batches and gradient checkpointing give the weights of the full batch within 1e-5."""
    results = []
    for place, changes in enumerate(({}, settings)):
        common = {"mode": "joint", "batch": 4, "steps": 3, "learning_rate": 1e-4}
        recipe, space = prepared(tmp_path / str(place), tiny_sd, **common, **changes)
        run(recipe, space)
        results.append(weights(space, "joint"))
    start, end = results
    assert max(float((start[key] - end[key]).abs().max()) for key in start) < 1e-5
    assert max(float(start[key].abs().max()) for key in start if "lora_B" in key) > 1e-4, "B began at 0: it has moved"


@pytest.mark.parametrize("after", [3, *(pytest.param(after, marks=pytest.mark.slow) for after in (1, 4))])
def test_killed_training_goes_on(whole: tuple[Recipe, Workspace], tmp_path: Path, tiny_sd: Path, after: int) -> None:
    """Stopped after any step and run again: the same bits, each step once in the log, no checkpoint left."""
    recipe, space = prepared(tmp_path, tiny_sd)
    stopped(recipe, space, after)
    notes: list[str] = []
    run(recipe, space, lambda event: notes.append(event.text) if event.kind == "note" else None)
    resumed = (after - 1) // 2 * 2  # a checkpoint every two steps, and the last thing of a step
    assert [note for note in notes if "going on" in note] == (
        [f"{name}: going on at step {resumed} of 4" for name in (HOMER, PICASSO)] if resumed else []
    )
    for adapter in (HOMER, PICASSO):
        assert same(weights(space, adapter), weights(whole[1], adapter))
        lines = metrics(space, adapter)
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
        assert [line["loss"] for line in lines] == [line["loss"] for line in metrics(whole[1], adapter)]
        assert card(space, adapter)["metrics"]["final_loss"] == card(whole[1], adapter)["metrics"]["final_loss"]
        assert not list((space.adapter(adapter) / "checkpoints").glob("*.pt"))


@pytest.mark.slow
def test_interrupt_is_kept_to_the_end_of_the_step(
    whole: tuple[Recipe, Workspace], tmp_path: Path, tiny_sd: Path
) -> None:
    """Ctrl-C stops after the step at hand with a checkpoint of that very step; the end is bit-identical."""
    recipe, space = prepared(tmp_path, tiny_sd, checkpoint_every=100)

    def listen(event: Event) -> None:
        if isinstance(event, StageProgress) and event.done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(recipe, space, listen)
    notes: list[str] = []
    run(recipe, space, lambda event: notes.append(event.text))
    assert f"{HOMER}: going on at step 1 of 4" in notes
    assert same(weights(space), weights(whole[1]))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupted_block(times: int, reached: list[str]) -> None:
    """Get Ctrl-C so many times inside the block, and note how far it came."""
    with loop.deferred_interrupt() as interrupted:
        for number in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(f"{number + 1}: {interrupted()}")
    reached.append("beyond")


@pytest.mark.parametrize("times", [1, 2])
def test_late_interrupt_is_not_lost(times: int) -> None:
    """Ctrl-C that comes after the last look still interrupts when the block is left; a second one acts at once."""
    reached: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted_block(times, reached)
    assert reached == ["1: True"]


@pytest.mark.slow
def test_training_in_a_thread(tmp_path: Path, tiny_sd: Path) -> None:
    """Training works from a thread other than the main one, where no signal can be handled."""
    recipe, space = prepared(tmp_path, tiny_sd, steps=1)
    thread = threading.Thread(target=run, args=(recipe, space))
    thread.start()
    thread.join()
    assert weights(space)


SPOILED: dict[str, Callable[[Path], Any]] = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:500]),
    "no checkpoint at all": lambda path: path.write_bytes(b"not a checkpoint"),
    "empty": lambda path: path.write_bytes(b""),
    "someone else's": lambda path: torch.save({"step": 2}, path),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "one bit": lambda path: path.write_bytes(flipped(path.read_bytes())),
}


def flipped(content: bytes) -> bytes:
    """The same bytes but for one bit of the weights."""
    place = content.index(torch.full((50,), 7.0).numpy().tobytes())
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def some_state(value: float) -> dict[str, Any]:
    """A state that can be told by its value."""
    return {"updates": {"master": torch.full((50,), value)}}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_damaged_checkpoint_is_passed_over(tmp_path: Path, spoil: Callable[[Path], Any]) -> None:
    """The newest sound checkpoint comes back, exactly; a damaged one is named, and the one before it is used."""
    checkpoints = Checkpoints(tmp_path, {"base": "a"}, keep=3, last=9)
    for step, value in ((5, 6.0), (9, 7.0)):
        checkpoints.save(step, some_state(value))
        checkpoints.prune(step)
    state, told = checkpoints.newest()
    assert state is not None
    assert (state["step"], told) == (9, [])
    assert torch.equal(state["updates"]["master"], torch.full((50,), 7.0))
    spoil(tmp_path / "step-0000009.pt")
    state, told = checkpoints.newest()
    assert state is not None
    assert state["step"] == 5
    assert torch.equal(state["updates"]["master"], torch.full((50,), 6.0))
    assert told == [f"{tmp_path / 'step-0000009.pt'}: damaged; the one before it is used if there is one"]


def test_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    """As many as the recipe says, the newest ones; a file of the user's own among them is not touched."""
    (tmp_path / "step-notes.pt").write_text("mine")
    checkpoints = Checkpoints(tmp_path, {}, keep=2, last=1000)
    for step in (100, 200, 300, 1000):
        checkpoints.save(step, {})
        checkpoints.prune(step)
    assert {p.name for p in tmp_path.iterdir()} == {"step-0000300.pt", "step-0001000.pt", "step-notes.pt"}


def test_checkpoint_of_another_job_is_set_aside(tmp_path: Path) -> None:
    """It is not continued and not deleted; the line says what differs."""
    Checkpoints(tmp_path, {"settings": "1", "base": "a", "dataset": "x"}, keep=2, last=9).save(7, some_state(1.0))
    state, told = Checkpoints(tmp_path, {"settings": "1", "base": "b", "dataset": "y"}, keep=2, last=9).newest()
    assert state is None
    (place,) = (tmp_path / "set-aside").glob("step-0000007-*.pt")
    assert told == [f"{place}: belongs to another job (different base, different dataset) and was set aside"]
    assert torch.load(place)["step"] == 7


@pytest.mark.slow
def test_damaged_checkpoint_goes_on_from_the_one_before(
    whole: tuple[Recipe, Workspace], tmp_path: Path, tiny_sd: Path
) -> None:
    """The newest checkpoint cut short: the training goes on from the one before, to the same end, with a whole log."""
    recipe, space = prepared(tmp_path, tiny_sd, checkpoint_every=1)
    stopped(recipe, space, 3)
    assert [p.name for p in sorted((space.adapter(HOMER) / "checkpoints").iterdir())] == [
        "step-0000001.pt",
        "step-0000002.pt",
    ]
    SPOILED["cut short"](space.adapter(HOMER) / "checkpoints" / "step-0000002.pt")
    notes: list[str] = []
    run(recipe, space, lambda event: notes.append(event.text))
    assert f"{HOMER}: going on at step 1 of 4" in notes
    assert same(weights(space), weights(whole[1]))
    assert [line["step"] for line in metrics(space)] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train": {"learning_rate": 1e-3}}, "different settings"),
        ({"prepare": {"captions": 1}}, "different dataset"),
        ({"seed": 8}, "different settings"),
    ],
)
def test_changed_job_starts_afresh_and_loses_nothing(
    tmp_path: Path, tiny_sd: Path, changed: dict[str, Any], said: str
) -> None:
    """Another rate, dataset or seed starts afresh: the weights are those of a run that always had it."""
    recipe, space = prepared(tmp_path / "a", tiny_sd)
    stopped(recipe, space, 3)
    other = small_recipe(tmp_path / "a", tiny_sd, **changed)
    carried(other, tmp_path / "a" / "runs")
    notes: list[str] = []
    run(other, space, lambda event: notes.append(event.text))
    assert any(f"belongs to another job ({said}) and was set aside" in note for note in notes)
    assert list((space.adapter(HOMER) / "checkpoints" / "set-aside").glob("step-0000002-*.pt"))
    fresh = carried(other, tmp_path / "b")[0]
    run(other, fresh)
    assert same(weights(space), weights(fresh))


@pytest.mark.slow
def test_another_base_is_told(tmp_path: Path, tiny_sd: Path) -> None:
    """The base's weights changed under an interrupted training: said, set aside, and trained afresh."""
    recipe, space = prepared(tmp_path, make_tiny_sd(tmp_path / "base"))
    stopped(recipe, space, 3)
    make_tiny_sd(tmp_path / "base", seed=5)
    notes: list[str] = []
    run(recipe, space, lambda event: notes.append(event.text))
    assert any(
        "belongs to another job (different unet of the base, different vae of the base, different text_encoder" in note
        for note in notes
    )
    assert [line["step"] for line in metrics(space)] == [1, 2, 3, 4]


@pytest.mark.slow
def test_other_software_is_told(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint written with another torch goes on, with a warning that the end may differ."""
    recipe, space = prepared(tmp_path, tiny_sd)
    with monkeypatch.context() as before:
        before.setattr(trainer, "SOFTWARE", "torch 2.0")
        stopped(recipe, space, 3)
    notes: list[str] = []
    run(recipe, space, lambda event: notes.append(event.text))
    assert f"{HOMER}: going on from torch 2.0 with torch {torch.__version__}: the end may differ" in notes
    assert f"{HOMER}: going on at step 2 of 4" in notes


@pytest.mark.slow
def test_finished_adapter_is_not_trained_again(tmp_path: Path, tiny_sd: Path) -> None:
    """An adapter that is finished is left as it is; one whose weights were damaged since is trained again."""
    recipe, space = prepared(tmp_path, tiny_sd, together=False)  # In company it is the same up to rounding.
    run(recipe, space)
    steps: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "progress":
            steps.append(event.text.partition(":")[0])

    run(recipe, space, listen)
    assert steps == []
    good = weights(space, PICASSO)
    path = space.adapter(PICASSO) / lora_format.WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    run(recipe, space, listen)
    assert set(steps) == {PICASSO}
    assert same(weights(space, PICASSO), good)


def spoiling(monkeypatch: pytest.MonkeyPatch, place: int, spoil: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Spoil the losses of one pass, counted from 0."""
    calls = iter(range(1000))

    def losses(*arguments: Any) -> torch.Tensor:
        found = denoising_losses(*arguments)
        return spoil(found) if next(calls) == place else found

    monkeypatch.setattr(loop, "denoising_losses", losses)


class Unsound(torch.autograd.Function):
    """A sound loss whose gradient is infinite."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        """The same."""
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        """Infinity."""
        return gradient * math.inf


SPOILS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "loss": (lambda losses: losses * math.nan, "the loss is nan"),
    "gradient": (Unsound.apply, "a gradient is not a finite number"),
}


@pytest.mark.slow_but_one
@pytest.mark.parametrize("what", SPOILS)
def test_no_number_never_reaches_the_weights(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A NaN loss or an infinite gradient stops; all is named; the weights before it are kept, bit for bit."""
    recipe, space = prepared(tmp_path, tiny_sd, caption_dropout=0.0)
    spoil, reason = SPOILS[what]
    spoiling(monkeypatch, 2, spoil)
    with pytest.raises(AvignonError) as failed:
        run(recipe, space)
    said = str(failed.value)
    assert said.startswith(f"{HOMER}: at step 3 {reason} (images ")
    parts = (".png", "captions '", "in the style of homer", "timesteps [", "the weights of step 2 are kept in")
    assert all(part in said for part in (*parts, "train.learning_rate", "train.precision"))
    state, _ = Checkpoints(space.adapter(HOMER) / "checkpoints", {}, 9, 9).newest()
    assert state is None, "of another job: the real one has a name"
    kept = torch.load(next((space.adapter(HOMER) / "checkpoints" / "set-aside").glob("step-0000002-*.pt")))
    sound, other = prepared(tmp_path / "sound", tiny_sd, caption_dropout=0.0, checkpoint_every=1)
    monkeypatch.undo()
    stopped(sound, other, 3)
    expected = torch.load(other.adapter(HOMER) / "checkpoints" / "step-0000002.pt")
    assert torch.equal(kept["updates"]["master"], expected["updates"]["master"])
    assert not (space.adapter(HOMER) / lora_format.WEIGHTS_FILE).exists()
    assert [line["step"] for line in metrics(space)] == [1, 2]


def some_updates(**settings: Any) -> tuple[FlatParameters, OptimizerStep]:
    """Ten weights of 1, fp16's loss scale."""
    factors = FlatParameters([torch.nn.Parameter(torch.ones(10))], torch.float16)
    return factors, OptimizerStep(factors, Train(max_grad_norm=1e9, weight_decay=0, **settings), scaled=True)


def step_with(factors: FlatParameters, updates: OptimizerStep, step: int, gradient: float, loss: float = 1.0) -> None:
    """One step on this gradient of every weight, as a scaled fp16 backward pass leaves it."""
    factors._grads.copy_(torch.full((10,), gradient) * updates.scale)
    updates.apply(step, torch.tensor(loss), 0.1)


def test_updates_survive_an_interruption() -> None:
    """A resumed fp16 run goes on with the loss scale it had, the steps since the last overflow, and its average."""
    factors, updates = some_updates(ema=0.9)
    for step, gradient in enumerate((math.inf, math.inf, 0.5)):
        step_with(factors, updates, step, gradient)
    _, resumed = some_updates(ema=0.9)
    resumed.load_state_dict(updates.state_dict())
    assert resumed.average is not None
    assert torch.equal(resumed.result, updates.result)
    assert not torch.equal(resumed.result, torch.ones(10))
    assert (float(resumed.scale), float(resumed.clean)) == (2.0**14, 1)


def test_loss_scale_falls_on_overflow_and_rises_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An fp16 overflow takes no step and halves the scale; a sound step is the one that AdamW takes in fp32."""
    monkeypatch.setattr("avignon.training.optimizer.GROWTH_INTERVAL", 3)
    factors, updates = some_updates()
    step_with(factors, updates, 0, 1e6)
    assert float(updates.scale) == 2.0**15
    assert torch.equal(factors.master, torch.ones(10))
    reference = torch.nn.Parameter(torch.ones(10))
    adam = torch.optim.AdamW([reference], lr=0.1, weight_decay=0)
    for step in range(1, 4):
        step_with(factors, updates, step, 0.5)
        reference.grad = torch.full((10,), 0.5)
        adam.step()
        assert torch.allclose(factors.master, reference, atol=1e-6)
    assert float(updates.scale) == 2.0**16, "three sound steps in a row"
    assert updates.first_fault() is None


@pytest.mark.parametrize(("gradient", "expected"), [(3.0, 0.1), (0.001, 0.001 * math.sqrt(10))])
def test_gradients_are_clipped(gradient: float, expected: float) -> None:
    """A gradient longer than `max_grad_norm` is brought to it, a shorter one is left; its own norm is what is told."""
    factors = FlatParameters([torch.nn.Parameter(torch.ones(10))], torch.float32)
    updates = OptimizerStep(factors, Train(max_grad_norm=0.1), scaled=False)
    factors._grads.fill_(gradient)
    norm = updates.apply(0, torch.tensor(1.0), 0.1)
    assert float(norm) == pytest.approx(gradient * math.sqrt(10))
    first_moment = updates.optimizer.state[factors.master]["exp_avg"]
    assert float(first_moment.norm()) == pytest.approx(0.1 * expected, rel=1e-4)


def test_loss_scale_underflow_is_told_apart() -> None:
    """Overflow at every scale ends in its own fault, not in that of a loss; a NaN loss is a fault at once."""
    factors, updates = some_updates()
    for step in range(17):
        assert updates.first_fault() is None
        step_with(factors, updates, step, math.inf)
    fault = updates.first_fault()
    assert fault == Fault(16, SCALE, 1.0)
    assert "overflow fp16 even at a loss scale of 1" in trainer.REASONS[fault.reason]
    assert "bf16 or fp32" in trainer.ADVICE[fault.reason]
    assert torch.equal(factors.master, torch.ones(10))
    factors, updates = some_updates()
    step_with(factors, updates, 0, 0.5, math.nan)
    step_with(factors, updates, 1, 0.5)
    assert updates.first_fault() == Fault(0, LOSS, 2.0**16)
    assert torch.equal(factors.master, torch.ones(10)), "no later step is taken either"


@pytest.mark.slow
def test_joint_mode(tmp_path: Path, tiny_sd: Path) -> None:
    """`joint` trains one adapter on the images of all artists, and its card names them all."""
    recipe, space = prepared(tmp_path, tiny_sd, mode="joint", steps=2)
    run(recipe, space)
    assert [path.name for path in space.adapters.iterdir()] == ["joint"]
    assert card(space, "joint")["artists"] == ["Winslow Homer", "Pablo Picasso"]
    assert card(space, "joint")["dataset"]["images"] == 6


@pytest.mark.slow
def test_adapters_that_are_no_longer_wanted_go(tmp_path: Path, tiny_sd: Path) -> None:
    """Changing the mode leaves only the adapters of the new one."""
    recipe, space = prepared(tmp_path, tiny_sd, steps=1)
    run(recipe, space)
    run(recipe.model_copy(update={"train": recipe.train.model_copy(update={"mode": "joint"})}), space)
    assert [path.name for path in space.adapters.iterdir()] == ["joint"]


@pytest.mark.slow
def test_precision_may_change_within_a_process(tmp_path: Path, tiny_sd: Path) -> None:
    """A second run in one process may have another precision, and its weights are kept in full precision."""
    for place, precision in enumerate(("fp32", "bf16")):
        recipe, space = prepared(tmp_path / str(place), tiny_sd, mode="joint", steps=1, precision=precision)
        run(recipe, space)
        assert card(space, "joint")["environment"]["precision"] == precision
        assert {tensor.dtype for tensor in weights(space, "joint").values()} == {torch.float32}


@pytest.mark.slow
def test_base_stays_frozen(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training leaves every weight of the base as it was, bit for bit, in memory and on disk."""
    recipe, space = prepared(tmp_path, tiny_sd)
    loaded: list[dict[str, Any]] = []
    load, parts = loading.load, ("unet", "vae", "text_encoder")

    def remembered(*arguments: Any, **how: Any) -> Any:
        base: Any = load(*arguments, **how)
        loaded.append({part: getattr(base.pipeline, part) for part in parts})
        return base

    files = {path: sha256_of(path) for path in tiny_sd.rglob("*") if path.is_file()}
    monkeypatch.setattr(loading, "load", remembered)
    run(recipe, space)
    fresh = load_base(recipe, torch.float32, SILENT).pipeline
    for networks in loaded:
        for part, network in networks.items():
            after = {name.replace(".base_layer", ""): tensor for name, tensor in network.state_dict().items()}
            for name, tensor in getattr(fresh, part).state_dict().items():
                assert torch.equal(after[name], tensor), name
    assert files == {path: sha256_of(path) for path in tiny_sd.rglob("*") if path.is_file()}


def test_card_and_page_are_complete(whole: tuple[Recipe, Workspace]) -> None:
    """The card tells base, share, data, rights, recipe, environment and metrics; the page names every work."""
    _, space = whole
    fields = card(space)
    assert set(fields["base"]) == {
        "model",
        "architecture",
        "family",
        "licence",
        "prediction_type",
        "revision",
        "fingerprint",
        "parts",
        "resolution",
    }
    trainable = fields["trainable"]
    assert trainable["share"] == trainable["parameters"] / trainable["unet_parameters"]
    assert trainable["unet_parameters"] == 52_004
    assert fields["dataset"] | {"hash": ""} == {"images": 3, "works": 3, "hash": ""}
    assert len(fields["dataset"]["hash"]) == 64
    assert fields["dataset"]["hash"] != card(space, PICASSO)["dataset"]["hash"]
    assert fields["rights"]["open"] == 3
    assert "All 3 training images are open" in fields["rights"]["statement"]
    assert fields["recipe"]["train"]["steps"] == 4
    assert {"avignon", "torch", "diffusers", "peft", "python", "device", "precision"} <= set(fields["environment"])
    assert fields["metrics"]["steps"] == 4
    assert fields["metrics"]["final_loss"] == pytest.approx(sum(line["loss"] for line in metrics(space)) / 4)
    assert fields["metrics"]["weights"] == sha256_of(space.adapter(HOMER) / lora_format.WEIGHTS_FILE)
    page = (space.adapter(HOMER) / "README.md").read_text(encoding="utf-8")
    for part in (
        "Winslow Homer",
        "in the style of homer",
        "A.0",
        "A.2",
        "A.4",
        "| open |",
        fields["base"]["fingerprint"],
    ):
        assert part in page
    assert "A.1" not in page
    assert f"adapter trained by avignon {__version__} on 3 works" in page  # No link where there is no page.
    assert "pypi.org" not in page


@pytest.mark.slow
def test_restricted_works_are_stated(tmp_path: Path, tiny_sd: Path) -> None:
    """What was learned from acknowledged restricted works says so, in the card and on its page."""
    recipe = small_recipe(tmp_path, tiny_sd, rights="in copyright", train={"steps": 1})
    artists = tuple(artist.model_copy(update={"rights": "acknowledge-restricted"}) for artist in recipe.artists)
    recipe = recipe.model_copy(update={"artists": artists})
    space, _ = carried(recipe, tmp_path / "runs")
    run(recipe, space)
    rights = card(space)["rights"]
    assert (rights["restricted"], rights["open"], rights["acknowledged"]) == (3, 0, ["Winslow Homer"])
    assert "3 of 3 training images are not known to be free to use" in rights["statement"]
    page = (space.adapter(HOMER) / "README.md").read_text(encoding="utf-8")
    assert rights["statement"] in page
    assert page.count("| restricted |") == 3


@pytest.mark.slow
def test_tensorboard_has_every_step_once(tmp_path: Path, tiny_sd: Path) -> None:
    """TensorBoard's events hold each step's loss and rate; a training started afresh leaves none of the earlier."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe, space = prepared(tmp_path, tiny_sd, mode="joint")
    stopped(recipe, space, 3, "joint")
    for changed, count in ((recipe, 2), (recipe.model_copy(update={"seed": 8}), 1)):
        run(changed, space)
        assert len(list((space.adapter("joint") / "tensorboard").iterdir())) == count
        events = EventAccumulator(str(space.adapter("joint") / "tensorboard")).Reload()
        for name in ("loss", "learning_rate"):
            assert [event.step for event in events.Scalars(name)] == [1, 2, 3, 4]


@pytest.mark.slow
def test_events_tell_the_loss(tmp_path: Path, tiny_sd: Path) -> None:
    """Each step is told once, with its place, and each adapter's loss."""
    recipe, space = prepared(tmp_path, tiny_sd, steps=2)
    heard: list[Event] = []
    run(recipe, space, heard.append)
    steps = [event for event in heard if isinstance(event, StageProgress)]
    assert [(event.done, event.total) for event in steps] == [(1, 2), (2, 2)]
    for name in (HOMER, PICASSO):
        assert [event.data["loss"][name] for event in steps] == [line["loss"] for line in metrics(space, name)]
    first = {name: metrics(space, name)[0]["loss"] for name in (HOMER, PICASSO)}
    assert steps[0].text == f"{HOMER}: loss {first[HOMER]:.4f}, {PICASSO}: loss {first[PICASSO]:.4f}"


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weights_are_the_papers(kind: str) -> None:
    """On an error of the clean sample, whatever the target, the weight is min(SNR, γ); no weight is not a number."""
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind)
    times = torch.tensor([0, 1, 300, 700, 999])
    alphas = schedule.alphas_cumprod[times]
    snr = alphas / (1 - alphas)
    # An error e of the clean sample is one of √SNR·e of the noise, and one of e / √(1−ᾱ) of v.
    as_target = {"epsilon": snr, "v_prediction": 1 / (1 - alphas), "sample": torch.ones(5)}[kind]
    assert torch.allclose(
        with_denoiser(None, schedule).loss_weights(times, 5.0) * as_target, snr.clamp(max=5.0), rtol=1e-4
    )


def test_zero_terminal_snr_is_the_schedulers(tmp_path: Path) -> None:
    """With `rescale_betas_zero_snr` in the base's scheduler the last step is pure noise, and every weight is finite."""
    schedule = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    )
    drawn, unet = some_draw(), Perfect(torch.zeros(3, 4, 8, 8))
    losses = denoising_losses(with_denoiser(unet, schedule), drawn)
    assert torch.allclose(unet.shown[0][2], drawn.noise[2], atol=1e-3), "timestep 999 is noise alone"
    assert torch.allclose(losses[2], drawn.latents[2].square().mean(), rtol=1e-2), "and v is −x there"
    for kind in ("epsilon", "v_prediction", "sample"):
        schedule.register_to_config(prediction_type=kind)
        assert bool(with_denoiser(None, schedule).loss_weights(drawn.timesteps, 5.0).isfinite().all())


def test_noise_offset_is_shared_by_a_channels_pixels() -> None:
    """The offset adds one number to each channel of the noise, of the deviation asked for; without it nothing."""
    data = some_data()
    plain = [dataset.sample_batch(data, Train(batch=16), uniform(1000), seed=0, step=step) for step in range(40)]
    offset = [
        dataset.sample_batch(data, Train(batch=16, noise_offset=0.3), uniform(1000), seed=0, step=step)
        for step in range(40)
    ]
    added = torch.cat([b.noise - a.noise for a, b in zip(plain, offset, strict=True)])
    assert float(added.std((2, 3)).max()) < 1e-6
    assert float(added[:, :, 0, 0].std()) == pytest.approx(0.3, rel=0.05)


@pytest.mark.slow
def test_averaged_weights_are_saved(tmp_path: Path, tiny_sd: Path) -> None:
    """With `ema` the adapter is the moving average of the weights after each step, not the last ones."""
    states: list[torch.Tensor] = []

    class Watched(OptimizerStep):
        """Notes the weights after each step."""

        def apply(self, *arguments: Any) -> torch.Tensor:
            """Note them."""
            norm = super().apply(*arguments)
            states.append(self._factors.master.detach().clone())
            return norm

    recipe, space = prepared(tmp_path, tiny_sd, mode="joint", ema=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "OptimizerStep", Watched)
        run(recipe, space)
    base = load_base(recipe, torch.float32, SILENT)
    begun = inject.add(base.denoiser, TARGETS, "joint", recipe.train.ranks, 0, dataset.seed_of(recipe.seed, "joint"))
    average = FlatParameters(begun, torch.float32).master.detach().clone()
    for step, state in enumerate(states):
        average.lerp_(state, 1 - min(0.5, (1 + step) / (10 + step)))
    fresh = load_base(recipe, torch.float32, SILENT)
    files.load(fresh, "joint", space.adapter("joint"))
    loaded = FlatParameters(
        [p for p in fresh.denoiser.parameters() if p.requires_grad] or _factors_of(fresh), torch.float32
    )
    assert torch.allclose(loaded.master, average, atol=1e-7)
    assert not torch.allclose(loaded.master, states[-1], atol=1e-5)


def _factors_of(base: StableDiffusion) -> list[torch.nn.Parameter]:
    return [p for name, p in base.denoiser.named_parameters() if ".lora_" in name]


@pytest.mark.slow
def test_prodigy_learns(tmp_path: Path, tiny_sd: Path) -> None:
    """Prodigy trains, goes on exactly after a stop, and finds a rate of its own."""
    settings = {"mode": "joint", "optimizer": "prodigy", "learning_rate": 1.0}
    recipe, space = prepared(tmp_path / "a", tiny_sd, **settings)
    run(recipe, space)
    other, broken = prepared(tmp_path / "b", tiny_sd, **settings)
    stopped(other, broken, 3, "joint")
    run(other, broken)
    assert same(weights(space, "joint"), weights(broken, "joint"))
    assert max(float(t.abs().max()) for key, t in weights(space, "joint").items() if "lora_B" in key) > 0


def test_adamw_of_8_bits(tmp_path: Path, tiny_sd: Path) -> None:
    """The 8-bit optimizer ends near the full one, where its package is installed."""
    pytest.importorskip("bitsandbytes")
    ends = []
    for optimizer in ("adamw", "adamw-8bit"):
        recipe, space = prepared(tmp_path / optimizer, tiny_sd, mode="joint", optimizer=optimizer, learning_rate=1e-3)
        run(recipe, space)
        ends.append(torch.cat([t.flatten() for t in weights(space, "joint").values()]))
    assert float((ends[0] - ends[1]).norm() / ends[0].norm()) < 0.02


def test_optimizer_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(RecipeError, match=r"train.optimizer: 'prodigy' needs `pip install avignon\[optimizers\]`"):
        new_optimizer(torch.nn.Parameter(torch.ones(3)), Train(optimizer="prodigy"))


@pytest.mark.slow
def test_held_out_works(tmp_path: Path, tiny_sd: Path) -> None:
    """Works held out are never learned from, whole works at a time; their loss is the same for the same weights."""
    recipe, space = prepared(tmp_path, tiny_sd, validation_works=1, eval_every=2)
    seen: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        encode = dataset.encode

        def remembered(base: Any, examples: Any, *rest: Any) -> dataset.LatentDataset:
            seen.update(row["object_id"] for _, row in examples) if len(examples) > 1 else None
            return encode(base, examples, *rest)

        patch.setattr(jobs, "encode", remembered)
        run(recipe, space)
    assert len(seen) == 4, "two of three works of each artist"
    watched = [line.get("validation_loss") for line in metrics(space)]
    assert [value is not None for value in watched] == [False, True, False, True]
    assert card(space)["metrics"]["validation_loss"] == watched[-1]
    again, other = prepared(tmp_path / "again", tiny_sd, validation_works=1)
    run(again, other)
    assert card(other)["metrics"]["validation_loss"] == watched[-1]


def test_all_works_cannot_be_held_out(tmp_path: Path, tiny_sd: Path) -> None:
    """Holding out all is refused with the numbers."""
    recipe, space = prepared(tmp_path, tiny_sd, validation_works=3)
    with pytest.raises(RecipeError, match=r"train.validation_works: 3 of winslow-homer's 3 works leave none"):
        run(recipe, space)


@pytest.mark.slow
@pytest.mark.parametrize(("most", "rungs"), [(4, 1), (2, 2), (1, 3)])
def test_out_of_memory_steps_down(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, most: int, rungs: int
) -> None:
    """The engine steps down until it fits, says so, and ends with the bits of a run that started there."""
    common = {"mode": "joint", "batch": 4, "steps": 2}
    recipe, space = prepared(tmp_path / "a", tiny_sd, **common)
    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "denoising_losses", OutOfMemory(most, checkpointing=True))
        run(recipe, space, lambda event: told.append(event.text) if event.kind == "warning" else None)
    assert len(told) == rungs
    assert all("out of memory: going on with" in line for line in told)
    started, other = prepared(tmp_path / "b", tiny_sd, **common, gradient_checkpointing=True, micro_batch=most % 4)
    run(started, other)
    assert same(weights(space, "joint"), weights(other, "joint"))


@pytest.mark.slow
def test_no_rung_left(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where even one image at a time finds no memory, the error is told and nothing is written."""
    recipe, space = prepared(tmp_path, tiny_sd, mode="joint", batch=2)
    monkeypatch.setattr(loop, "denoising_losses", OutOfMemory(0, checkpointing=False))
    with pytest.raises(RuntimeError, match="not enough memory"):
        run(recipe, space)
    assert not (space.adapter("joint") / lora_format.WEIGHTS_FILE).exists()


@pytest.mark.parametrize(("free", "expected"), [(0, True), (100, True), (2000, False), (8000, False)])
def test_spill_is_foreseen(free: int, expected: bool) -> None:
    """Less than 2 % of free memory is when a driver may turn to the system's."""
    assert memory.will_spill(free, 10_000) is expected


def test_ranks_of_single_blocks(tmp_path: Path, tiny_sd: Path) -> None:
    """A block's own rank is that of all its layers, 0 leaves it frozen, a block that is not there is named."""
    ranks = {"attention": 4, "projection": 3, "convolution": 2, "blocks": {"mid_block": 5, "down_blocks.0": 0}}
    recipe, space = prepared(tmp_path, tiny_sd, mode="joint", steps=1, ranks=ranks)
    run(recipe, space)
    found = {key: len(value) for key, value in weights(space, "joint").items() if "lora_A" in key}
    assert {rank for key, rank in found.items() if ".mid_block." in key} == {5}
    assert not any(".down_blocks.0." in key for key in found)
    assert {rank for key, rank in found.items() if ".up_blocks." in key} == {4, 3, 2}
    wrong = small_recipe(tmp_path, tiny_sd, train={"ranks": {"attention": 4, "blocks": {"mid_blok": 1}}})
    with pytest.raises(RecipeError, match=r"train.ranks.blocks: the denoiser has no 'mid_blok'; there are down_"):
        run(wrong, space)


def test_machine_says_what_it_picked(tmp_path: Path, tiny_sd: Path) -> None:
    """The line names device, precision and attention, and which of them the program chose itself."""
    recipe = small_recipe(tmp_path, tiny_sd, train={"precision": "auto"})
    runtime = RuntimeConfig.for_device(recipe, torch.device("cpu"))
    assert runtime.describe(1).startswith(f"cpu, {runtime.precision}, attention plain (chosen for this machine: ")
    assert "precision" in runtime.describe(1)
    fixed = small_recipe(tmp_path, tiny_sd, train={"precision": "fp32", "attention": "sdpa", "compile": "off"})
    assert RuntimeConfig.for_device(fixed, torch.device("cpu")).describe(2) == "cpu, fp32, attention sdpa, 2 processes"


@pytest.mark.slow
def test_attention_backends_agree(tmp_path: Path, tiny_sd: Path) -> None:
    """Plain and fused attention learn the same within rounding."""
    ends = []
    for attention in ("plain", "sdpa"):
        recipe, space = prepared(tmp_path / attention, tiny_sd, mode="joint", attention=attention, learning_rate=1e-4)
        run(recipe, space)
        ends.append(weights(space, "joint"))
    assert max(float((ends[0][key] - ends[1][key]).abs().max()) for key in ends[0]) < 1e-5


@pytest.mark.slow
def test_same_seed_same_bits(whole: tuple[Recipe, Workspace], tmp_path: Path, tiny_sd: Path) -> None:
    """The same recipe twice gives the same bits; with `deterministic` too, and another seed others."""
    recipe, space = prepared(tmp_path, tiny_sd, deterministic=True)
    torch.rand(7)  # What others have drawn has no part in it.
    asked: list[bool] = []
    run(recipe, space, lambda _: asked.append(torch.are_deterministic_algorithms_enabled()))
    assert same(weights(space), weights(whole[1]))
    assert asked[-1]
    assert not torch.are_deterministic_algorithms_enabled()
    other = recipe.model_copy(update={"seed": 8})
    run(other, space)
    assert not same(weights(space), weights(whole[1]))


@pytest.mark.slow
def test_full_disk_loses_nothing(
    whole: tuple[Recipe, Workspace], tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up within the second adapter's checkpoint: one line, and both go on from the one before."""
    recipe, space = prepared(tmp_path, tiny_sd, keep_checkpoints=1)
    save, calls = torch.save, iter(range(10))

    def full(state: Any, path: Path) -> None:
        if next(calls) == 3:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(WorkspaceError, match="the disk is full; what was done so far is kept: free some space and"):
            run(recipe, space)
    assert [p.name for p in (space.adapter(PICASSO) / "checkpoints").iterdir()] == ["step-0000002.pt"]
    notes: list[str] = []
    run(recipe, space, lambda event: notes.append(event.text))
    for name in (HOMER, PICASSO):
        assert f"{name}: going on at step 2 of 4" in notes
        assert same(weights(space, name), weights(whole[1], name))
