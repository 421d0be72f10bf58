"""Memory told before it is spent: the outline's count is that of real tensors, and the fastest that fits is taken."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from avignon.adapters import inject
from avignon.core.errors import RecipeError
from avignon.core.events import Event, Reporter, StageNote
from avignon.generation.standalone import WantedBase
from avignon.models import names, runtime
from avignon.models.base import DiffusionBase
from avignon.models.loading import load
from avignon.models.memory import counted, weight_bytes
from avignon.models.meta import META
from avignon.models.outline import known, outline
from avignon.recipe.schema import Ranks, Train
from avignon.training import fitting, footprint
from avignon.training.dataset import Batch
from avignon.training.fitting import Way, fitted, ways
from avignon.training.footprint import Footprint, Place, TrainingFootprint
from avignon.training.job import NOT_IDENTITY
from avignon.training.objective import denoising_losses
from avignon.training.optimizer import FlatParameters
from tests.support.families import TINY, TinyFamily
from tests.support.runs import carried, small_recipe

SILENT = Reporter("test", lambda _: None)
CPU = torch.device("cpu")
SMALL = Train(ranks=Ranks(attention=2, projection=2, convolution=2))


class _Nothing:
    """What is painted with: nothing."""

    scheduler, num_inference_steps, block_weights = "", 1, dict[str, Any]()
    sides: ClassVar[Mapping[str, int]] = {}


def real_peak(base: DiffusionBase, drawn: DiffusionBase, settings: Train, *, checkpointing: bool) -> int:
    """The most bytes of tensors that a real step of one image has at once, beside what was there before."""
    factors = inject.add(base.denoiser, base.targets, "one", settings.ranks, 0.0, seed=0, dora=settings.dora)
    kept = FlatParameters(factors, torch.float32)
    base.denoiser.train()
    if checkpointing:
        base.denoiser.enable_gradient_checkpointing()
    side = base.resolution
    blank = footprint.blank_batch(drawn, 1)
    with counted() as live:
        told = {name: torch.randn(t.shape) if t.is_meta else t for name, t in blank.conditioning.tensors.items()}
        latents = torch.randn(1, *base.latent_shape(side, side))
        batch = Batch(blank.index, blank.caption, latents, torch.randn_like(latents), torch.full((1,), 500),
                      type(blank.conditioning)(told), torch.ones(1))  # fmt: skip
        denoising_losses(base, batch).sum().backward()  # type: ignore[no-untyped-call]
    assert kept.master.grad is not None
    return live.peak


@pytest.mark.slow_but_one
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", TINY, ids=lambda family: family.name)
def test_an_outline_counts_what_real_tensors_take(family: TinyFamily, checkpointing: bool, tmp_path: Path) -> None:
    """On the meta device a step has the peak that it has on a CPU, to 4 %, of each family."""
    wanted = WantedBase(str(family.make(tmp_path / "base")), resolution=64)
    base = load(wanted, _Nothing(), torch.float32, SILENT)
    told = TrainingFootprint(outline(wanted, SILENT), SMALL, Place("cuda", "fp32"), adapters=1, images=0)
    one, two = (told.of(count, checkpointing=checkpointing).device["train"] for count in (1, 2))
    real = real_peak(base, outline(wanted, SILENT), SMALL, checkpointing=checkpointing)
    assert two - one == pytest.approx(real, rel=0.04)


def test_weights_are_counted_as_they_are_kept(tmp_path: Path) -> None:
    """What is loaded has the outline's bytes, in full and in 8 bits."""
    wanted = WantedBase(str(TINY[0].make(tmp_path / "base")))
    base, drawn = load(wanted, _Nothing(), torch.float32, SILENT), outline(wanted, SILENT)
    for network in ("denoiser", "autoencoder"):
        sizes = [weight_bytes(getattr(each, network), torch.float32) for each in (base, drawn)]
        assert sizes[0] == sizes[1] > 0
    full = weight_bytes(drawn.denoiser, torch.float32)
    base.quantize("int8", torch.float32)
    with META:
        drawn.quantize("int8", torch.float32)
    assert weight_bytes(base.denoiser, torch.float32) == weight_bytes(drawn.denoiser, torch.float32) < full


COUNTS = {
    "sd-1.5": (859_520_964, [123_060_480]),
    "sd-2.1": (865_910_724, [340_387_840]),
    "sdxl": (2_567_463_684, [123_060_480, 694_659_840]),
    "z-image": (6_154_908_736, [4_022_468_096]),
    "flux2-klein-4b": (3_875_544_576, [4_022_468_096]),
    "flux2-klein-9b": (9_078_581_248, [7_568_405_504]),
}
"""Parameters of the published weights: denoiser, and what reads texts."""


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", COUNTS)
def test_known_bases_have_their_parameters(name: str) -> None:
    """The shapes that the package has of a known base are those of its weights."""
    family, configs = known(name)
    drawn = family.loader.outlined(configs, names.KNOWN[name].resolution)
    counts = [sum(p.numel() for p in network.parameters()) for network in (drawn.denoiser, *drawn.readers)]
    assert (counts[0], counts[1:]) == COUNTS[name]
    channels, h, w = drawn.latent_shape(512, 512)
    assert channels * h * w == drawn.autoencoder.config.latent_channels * 64 * 64


def test_every_known_base_has_a_shape() -> None:
    """So that `doctor` can tell its memory without fetching anything."""
    assert all(known(name)[1] for name in names.KNOWN)


def test_ways_go_from_the_fastest_to_the_leanest() -> None:
    """As the ladder where memory runs out; then 8 bits; then weights in RAM, on a card alone."""
    found = list(ways(Train(batch=4), 4, 2, quantize="", on="cuda"))
    assert found[:5] == [
        Way(True, False, 4), Way(False, False, 4), Way(False, True, 4), Way(False, True, 2), Way(False, True, 1)
    ]  # fmt: skip
    assert [(way.quantize, way.offload) for way in found[5::5]] == [("int8", False), ("", True)]
    assert not any(way.offload for way in ways(Train(batch=4), 4, 2, quantize="", on="cpu"))


def test_what_a_recipe_has_set_stays() -> None:
    """Nothing that is not at its default is chosen otherwise."""
    settings = Train(batch=4, micro_batch=2, gradient_checkpointing=True, together=False)
    assert set(ways(settings, 4, 2, quantize="nf4", on="cpu")) == {Way(False, True, 2, quantize="nf4")}


def heard_of(folder: Path, model: Path, memory: str, **train: Any) -> tuple[Any, str, list[str]]:
    """What is made of a recipe on a CPU, and what is said."""
    heard: list[Event] = []
    recipe = small_recipe(folder, model, train={"batch": 4, "memory": memory, **train})
    changed, said = fitted(recipe, CPU, 1, Reporter("train", heard.append))
    return changed, said, [event.text for event in heard if isinstance(event, StageNote)]


def peaks(of: Callable[[TrainingFootprint, int, bool], float], patch: pytest.MonkeyPatch) -> None:
    """Let the estimate be this many GiB, by images of a pass and checkpointing."""

    def told(self: TrainingFootprint, images: int, *, checkpointing: bool) -> Footprint:
        return Footprint({"train": int(of(self, images, checkpointing) * 2**30)})

    patch.setattr(TrainingFootprint, "of", told)


def test_the_fastest_that_fits_is_taken_and_said(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images of a step stay; what is chosen is in the recipe of the training, and in a line."""
    peaks(lambda _, images, checkpointing: images * (1.5 if checkpointing else 6), monkeypatch)
    changed, said, notes = heard_of(tmp_path, tiny_sd, "8GB")
    assert (changed.train.batch, changed.train.together, changed.train.gradient_checkpointing) == (4, False, True)
    assert (changed.train.micro_batch, changed.base.quantize) == (0, "")
    assert said == "train.together = false, train.gradient_checkpointing = true: about 6.0 GiB of 8.0 GiB (estimated)"
    assert notes == [f"train.memory = '8GB': {said}"]


@pytest.mark.slow
def test_roomy_memory_gives_nothing_up(tmp_path: Path, tiny_sd: Path) -> None:
    """`auto` asks the machine; a small base fits as it is, by its true estimate."""
    changed, said, _ = heard_of(tmp_path, tiny_sd, "auto")
    assert changed.train.together
    assert not changed.train.gradient_checkpointing
    assert said.startswith("nothing need be given up: about")


def test_only_what_is_chosen_is_said(tmp_path: Path, tiny_sd: Path) -> None:
    """What the recipe has set itself was given up by the user."""
    settings = Train(batch=4, micro_batch=2, gradient_checkpointing=True, together=False)
    recipe = small_recipe(tmp_path, tiny_sd).model_copy(update={"train": settings})
    [way] = set(ways(settings, 4, 2, quantize="", on="cpu")) - {Way(False, True, 2, quantize="int8")}
    assert way.says(recipe, 4) == "nothing need be given up"
    assert replace(way, quantize="int8").says(recipe, 4).startswith("base.quantize = 'int8', for training alone")


def test_what_is_chosen_is_a_recipe(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pictures of the base's own a step has twice as many images, of which two may be a pass."""
    peaks(lambda _, images, __: images * 2.5, monkeypatch)
    changed, _, _ = heard_of(tmp_path, tiny_sd, "8GB", batch=3, prior_images=4)
    assert changed.train.micro_batch == 2
    assert Train.model_validate(changed.train.model_dump()) == changed.train


def test_without_it_nothing_is_counted(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the recipe is the very same, and no outline is made."""
    monkeypatch.setattr(fitting, "outline", None)
    recipe = small_recipe(tmp_path, tiny_sd)
    assert fitted(recipe, CPU, 1, SILENT) == (recipe, "")
    assert "memory" in NOT_IDENTITY


@pytest.mark.slow
def test_where_nothing_fits_the_nearest_is_named(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line: what is there, what would come nearest, what to do."""
    peaks(lambda _, images, checkpointing: 20 + images, monkeypatch)
    with pytest.raises(RecipeError) as refused:
        heard_of(tmp_path, tiny_sd, "12GB")
    line = str(refused.value)
    assert line.startswith("train.memory: '12GB' is 12.0 GiB, of which 90% are used; nothing fits, the nearest is ")
    assert "train.micro_batch = 1" in line
    assert "about 21.0 GiB" in line
    assert "\n" not in line


def test_a_devices_memory_is_known() -> None:
    """Of a CPU it is the machine's."""
    assert runtime.memory_of(CPU) > 2**30


@pytest.mark.slow
def test_a_training_says_what_was_chosen(tmp_path: Path, tiny_sd: Path) -> None:
    """The line is on the finished adapter's card."""
    space, _ = carried(small_recipe(tmp_path, tiny_sd, train={"memory": "auto"}), tmp_path, until="train")
    for artist in ("winslow-homer", "pablo-picasso"):
        card = json.loads(space.adapter(artist).joinpath("card.json").read_text(encoding="utf-8"))
        assert card["environment"]["memory"].startswith("nothing need be given up: about")
        assert card["recipe"]["train"]["memory"] == "auto"
