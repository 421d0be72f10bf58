"""The tools that made what ships: the museum's tables again, and the miniature's training in a few steps."""

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from avignon.core.events import Reporter
from avignon.models import hub
from avignon.recipe.load import load_recipe
from benchmarks import miniature
from tests.support.bases import load_base
from tests.support.paths import RECIPES, ROOT
from tools import make_museum
from tools.train_miniature import __main__ as entry
from tools.train_miniature import autoencoder, clock, data, denoiser, settings, text_encoder, training

TABLES = ROOT / "src" / "avignon" / "demo" / "tables"
RATE = training.learning_rate


def rate_of_two_steps(step: int, steps: int, peak: float) -> float:
    """The learning rate, until an interrupt in the third step."""
    if step == 2:
        raise KeyboardInterrupt
    return RATE(step, steps, peak)


def test_museum_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tools/make_museum.py` writes the tables that ship, byte for byte."""
    monkeypatch.setattr(make_museum, "TABLES", tmp_path)
    make_museum.main()
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in TABLES.iterdir()}


def call(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    """`python -m tools.train_miniature` with these words, its time beginning now."""
    monkeypatch.setattr("sys.argv", ["train_miniature", *map(str, words)])
    entry.main(time.monotonic())


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The last line of what such a call says that is refused with exit code 2."""
    with pytest.raises(SystemExit) as refused:
        call(monkeypatch, *words)
    assert refused.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.slow
def test_training_of_a_part_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps of the text encoder, interrupted after two and run again, end with the weights of one run."""
    monkeypatch.setattr(training, "EVERY", 1)
    monkeypatch.setattr(text_encoder, "WORD_BATCH", 4)  # A CPU without bfloat16 of its own takes seconds for 64.
    states = []
    for place, interrupted in (("whole", False), ("parts", True)):
        words = ("words", "--steps", "3", "--cache", tmp_path / place, "--to", tmp_path / place)
        if interrupted:
            with monkeypatch.context() as patch:
                patch.setattr(training, "learning_rate", rate_of_two_steps)
                with pytest.raises(KeyboardInterrupt):
                    call(patch, *words)
        call(monkeypatch, *words)
        states.append(torch.load(tmp_path / place / "words.pt", weights_only=True))
    assert all(state["step"] == 3 for state in states)
    whole, parts = (state["average"] for state in states)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


# Training by the clock ------------------------------------------------------------------------------------------------


def test_shares_spend_the_time_that_is_left() -> None:
    """Stages on time get their shares and end with the time; one that overruns shortens all after it in proportion."""
    stages = [name for name in clock.SHARES if name != "words"]
    left = 480.0
    for name in stages:
        left -= clock.seconds_of(name, stages, left)
    assert left == pytest.approx(0)
    on_time, late = (clock.seconds_of("unet", stages, seconds) for seconds in (200.0, 100.0))
    assert late == pytest.approx(on_time / 2)
    assert clock.seconds_of("scenes", stages, 480) == pytest.approx(480 * 0.2, rel=0.01)
    assert clock.seconds_of("report", stages, -5) == 0


def test_a_later_call_has_its_time_for_what_goes_on() -> None:
    """Without pictures, autoencoder and latents, decoder and denoiser have nine tenths of the minutes."""
    stages = ["decoder", "unet", "export", "report"]
    decoder = clock.seconds_of("decoder", stages, 480)
    assert (decoder + clock.seconds_of("unet", stages, 480 - decoder)) / 480 > 0.88


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that `time.monotonic` gives, in a list of one, to be set."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_rate_and_checkpoints_follow_the_clock(ticks: list[float]) -> None:
    """A warm-up of steps, then a cosine over the seconds, however many steps they hold; a checkpoint each minute."""
    schedule = training.ClockSchedule(200.0, first=5_000)
    assert schedule.rate(5_000, 1.0) == pytest.approx(0.01)
    ticks[0] += 100
    assert schedule.rate(5_100, 1.0) == schedule.rate(9_000, 1.0) == pytest.approx((1 + training.FLOOR) / 2)
    assert [schedule.saves(9_000), schedule.saves(9_001)] == [True, False]
    assert not schedule.over(9_001)
    ticks[0] += 100
    assert schedule.rate(12_000, 1.0) == pytest.approx(training.FLOOR)
    assert schedule.over(12_000)


def test_no_time_is_still_one_step() -> None:
    """A stage whose time is used up makes one step, so that the stages after it find its weights."""
    schedule = training.ClockSchedule(-3.0, first=7)
    assert [schedule.over(7), schedule.over(8)] == [False, True]


@pytest.mark.parametrize("steps", [100, 10_000])
def test_average_spans_a_part_of_all_steps(steps: int) -> None:
    """By the clock the average's weights have a mean age of a ninth of all steps, few or many."""
    schedule, age = training.ClockSchedule(1.0, first=0), 0.0
    for step in range(steps):
        age = (age + 1) * schedule.keep(step)
    assert age / steps == pytest.approx(1 / 9, rel=0.1)


def test_muon_of_all_shapes_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps on convolutions, tall, wide and square matrices are those of `torch.optim.Muon`, up to rounding."""
    monkeypatch.setattr(training, "WORKING", torch.bfloat16)  # As torch's.
    torch.manual_seed(0)
    layers: list[torch.nn.Conv2d | torch.nn.Linear]
    layers = [torch.nn.Conv2d(16, 32, 3), torch.nn.Conv2d(16, 32, 3), torch.nn.Linear(24, 48), torch.nn.Linear(48, 24)]
    module = torch.nn.ModuleList(layers)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = training.MuonAndAdamW(module, 1e-2)
    wide = [layer.weight for layer in layers]
    before = [weight.detach().clone() for weight in wide]
    flat = [torch.nn.Parameter(training.as_matrix(w.detach()).clone()) for w in wide]
    reference = torch.optim.Muon(flat, lr=1e-2, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for weight, matrix in zip(wide, flat, strict=True):
            weight.grad = torch.randn(weight.shape)
            matrix.grad = training.as_matrix(weight.grad).clone()
        optimizer.step(1e-2)
        reference.step()  # type: ignore[no-untyped-call]
    for weight, matrix, old in zip(wide, flat, before, strict=True):
        assert (weight - old).abs().max() > 1e-3
        torch.testing.assert_close(training.as_matrix(weight.detach()), matrix.detach(), rtol=0, atol=1e-4)


def test_rendering_ends_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without time left each kind has its least number of pictures; what is rendered is not rendered again."""
    monkeypatch.setattr(settings, "CHECKS", 4)
    monkeypatch.setattr(
        data, "picture", lambda size, kind, k: torch.full((size, size, 3), k, dtype=torch.uint8).numpy()
    )
    run = settings.Run(size=64, cache=tmp_path, clock=clock.Clock(0, ["scenes"], time.monotonic()))
    data.render(run)
    for kind in settings.KINDS:
        made = data.pictures(run, kind)
        assert made.shape[1:] == (64, 64, 3)
        assert 36 <= len(made) <= 200
        assert [int(each[0, 0, 0]) for each in made[:36]] == list(range(36))
    (tmp_path / "neutral_64.u8").write_bytes(bytes(64 * 64 * 3))
    data.render(run)
    assert len(data.pictures(run, "neutral")) == 1


@pytest.mark.slow
def test_steps_stay_on_their_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a step computes lies on the run's device, not the CPU: torch's `meta` device mixes with none."""
    monkeypatch.setattr(settings, "CHECKS", 4)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # It knows no such device.
    for kind in settings.KINDS:
        (tmp_path / f"{kind}_64.u8").write_bytes(bytes(12 * 64 * 64 * 3))
    np.save(tmp_path / "latents.npy", np.zeros((12, 8, 8, 8), np.float16))
    np.save(tmp_path / "tokens.npy", np.zeros((12, 4, 77), np.int16))
    timed = clock.Clock(1, ["unet"], time.monotonic())
    run = settings.Run(size=64, cache=tmp_path, clock=timed, device=torch.device("meta"))
    vae, unet = (new(run).to("meta") for new in (autoencoder.new_vae, denoiser.new_unet))
    tokenizer = text_encoder.tokenizer_of_run(run)
    text = text_encoder.new_text_encoder(tokenizer).to("meta")
    crops, noise = autoencoder.Crops(run), denoiser.Denoising(run, unet, text, tokenizer)
    words = text_encoder.AttributeTask(text, tokenizer, run.device)
    losses: list[tuple[torch.nn.Module, Callable[[], torch.Tensor]]] = [
        (vae, lambda: autoencoder.vae_loss(vae, crops.batch(0), 0)),
        (vae, lambda: autoencoder.decoder_loss(vae, crops.batch(0), 0)),
        (unet, lambda: noise.loss(0)),
        (words.both, lambda: words.loss(0)),
    ]
    for module, loss_of in losses:
        loss = loss_of()
        assert loss.device.type == "meta"
        loss.backward()  # type: ignore[no-untyped-call]
        average, weights = training.ExponentialMovingAverage(module), list(module.parameters())
        muon = training.Muon([w for w in weights if w.grad is not None and w.ndim > 1 and min(w.shape[:2]) >= 16])
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        muon.step(1e-3)
        average.update(0.9)
        assert {momentum.device.type for momentum in muon.momenta} == {"meta"}


def test_bad_options_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A size, a time, or a model to begin from that cannot be is one line that says what is allowed."""
    monkeypatch.chdir(tmp_path)
    assert "--size: 200 is not allowed; multiples of 32" in refusal(monkeypatch, capsys, "all", "--size", "200")
    assert "--minutes: 0.0 is not allowed" in refusal(monkeypatch, capsys, "all", "--minutes", "0")
    assert "--steps: not together" in refusal(monkeypatch, capsys, "vae", "--minutes", "1", "--steps", "2")
    assert "holds no model_index.json" in refusal(monkeypatch, capsys, "all", "--warm", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_call_by_the_clock_and_one_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some seconds of every stage at 64 pixels give a model in shards that diffusers and the product load.

    A second call keeps its pictures and latents, and trains decoder and denoiser further.
    """
    monkeypatch.setattr(settings, "CHECKS", 4)
    monkeypatch.setattr(settings.Run, "batches", settings.Batches(vae=4, crop=64, unet=4))  # One crop of each kind.
    monkeypatch.setattr("tools.train_miniature.export.SHARD", "3MB")
    cache, result = tmp_path / "cache", tmp_path / "result"
    words = ("all", "--minutes", "0.1", "--size", "64", "--warm", "--cache", cache, "--to", result)
    call(monkeypatch, *words)
    first = torch.load(cache / "unet.pt", weights_only=True)["step"]
    encoder = AutoencoderKL.from_pretrained(result / "base" / "vae").encoder.conv_in.weight
    latents = (cache / "latents.npy").read_bytes()
    assert "scenes: took" in capsys.readouterr().out
    call(monkeypatch, *words)
    assert "scenes, vae, latents: done before" in capsys.readouterr().out
    assert torch.load(cache / "unet.pt", weights_only=True)["step"] > first
    assert (cache / "latents.npy").read_bytes() == latents
    assert torch.equal(AutoencoderKL.from_pretrained(result / "base" / "vae").encoder.conv_in.weight, encoder)

    base = result / "base"
    files = hub.weight_files(base / "unet", "diffusion_pytorch_model")
    assert len(files) > 2
    assert max(file.stat().st_size for file in files) < 3.1e6
    assert json.loads((base / "unet" / "config.json").read_text())["sample_size"] == 8
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a red sailing boat", num_inference_steps=2).images[0].size == (64, 64)
    recipe = load_recipe(RECIPES / "demo.toml", [f"base.model={base}", "base.resolution=64"])
    loaded = load_base(recipe, torch.float32, Reporter("test", lambda _: None)).denoiser.state_dict()
    exported = pipeline.unet.state_dict()
    assert loaded.keys() == exported.keys()
    assert all(torch.equal(loaded[name].float(), exported[name].float()) for name in exported)
    assert (result / "report" / "samples.jpg").is_file()
    with pytest.raises(SystemExit, match="latents of 64 pixels, and --size is 96"):
        call(monkeypatch, "unet", "--minutes", "0.1", "--size", "96", "--cache", cache, "--to", result)


# A candidate beside the shipped miniature -----------------------------------------------------------------------------


def bases(*values: tuple[float, float]) -> list[miniature.Base]:
    """Two bases with a figure that should be more, one that should be less, with a limit, not judged."""
    made = [miniature.Base(Path("shipped")), miniature.Base(Path("candidate"))]
    wanted = ("more", "less", "within", "")
    for base, column in zip(made, zip(*values, strict=True), strict=True):
        base.rows = [
            miniature.Row(f"figure {k}", value, unit="dB", wanted=wish, limit=60)  # type: ignore[arg-type]
            for k, (wish, value) in enumerate(zip(wanted, column, strict=True))
        ]
    return made


def test_candidate_is_better_only_in_every_row() -> None:
    """Each row has its verdict; the last line names the rows in which a candidate is worse, equal or beyond a limit."""
    *rows, last = miniature.compare(*bases((28.0, 29.0), (0.3, 0.2), (43.0, 59.0), (5.0, 1.0)))
    assert [line.split()[-1] for line in rows[1:4]] == ["better", "better", "within"]
    assert rows[1].split() == ["figure", "0", "28.00", "dB", "29.00", "dB", "better"]
    assert last == "better in every row"
    *rows, last = miniature.compare(*bases((28.0, 28.0), (0.3, 0.4), (43.0, 61.0), (5.0, 9.0)))
    assert [line.split()[-1] for line in rows[1:4]] == ["equal", "worse", "beyond"]
    assert last == "the shipped one stays; not better in: figure 0; figure 1; figure 2"
