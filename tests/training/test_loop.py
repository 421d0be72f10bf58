"""Adapters that learn in one pass of the base: as if alone, kept apart, and taken up again in the same company."""

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from avignon.core import imaging
from avignon.core.errors import AvignonError
from avignon.core.events import Event
from avignon.core.workspace import Workspace
from avignon.recipe.schema import Recipe
from avignon.training import adapter_trainer as trainer
from avignon.training import job as jobs
from avignon.training import loop, validation
from avignon.training.dataset import Batch
from avignon.training.objective import denoising_losses
from avignon.training.optimizer import OptimizerStep
from tests.support.trainings import (
    HOMER,
    PICASSO,
    OutOfMemory,
    Stop,
    card,
    metrics,
    prepared,
    run,
    same,
    stopped,
    weights,
)

GRIS = "juan-gris"
BOTH = (HOMER, PICASSO)

COMPANY = {"micro_batch": 1}
"""Passes of one image of each, so that the bits tell in which cohort an adapter was: larger ones may round alike."""


def losses(space: Workspace, name: str) -> list[float]:
    """An adapter's loss curve."""
    return [line["loss"] for line in metrics(space, name)]


def notes_of(recipe: Recipe, space: Workspace, kind: str = "note") -> list[str]:
    """Train, and what was said."""
    heard: list[Event] = []
    run(recipe, space, heard.append)
    return [event.text for event in heard if event.kind == kind]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> tuple[Recipe, Workspace]:
    """Two adapters trained in step without an interruption."""
    recipe, space = prepared(tmp_path_factory.mktemp("in-step"), tiny_sd, **COMPANY)
    run(recipe, space)
    return recipe, space


# As if alone ----------------------------------------------------------------------------------------------------------


SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"dora": True},
    {"micro_batch": 1},
    {"gradient_checkpointing": True},
    {"prior_images": 2, "min_snr_gamma": 5.0},
    {"validation_works": 1, "eval_every": 2, "ema": 0.5},
)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [*SETTINGS[:2], *(pytest.param(s, marks=pytest.mark.slow) for s in SETTINGS[2:])])
def test_in_one_pass_as_alone(tmp_path: Path, tiny_sd: Path, settings: dict[str, Any]) -> None:
    """Losses and what is measured are those of training alone within 1e-5, and each adapter's change within 1e-4."""
    ends = {}
    for together in (True, False):
        common = {"batch": 4, "learning_rate": 1e-3, "weight_decay": 0.0, "together": together}
        recipe, space = prepared(tmp_path / str(together), tiny_sd, **common, **settings)
        said = notes_of(recipe, space)
        assert (f"2 adapters in one pass: {HOMER}, {PICASSO}" in said) is together
        ends[together] = space
    for name in BOTH:
        assert losses(ends[True], name) == pytest.approx(losses(ends[False], name), abs=1e-5)
        one, other = weights(ends[True], name), weights(ends[False], name)
        moved = torch.cat([one[key].flatten() for key in one if "lora_B" in key])  # It began at 0.
        apart = torch.cat([(one[key] - other[key]).flatten() for key in one])
        assert float(moved.norm()) > 1e-3
        # Passes of other sizes round differently, and AdamW's first steps go by the signs of tiny gradients:
        # 1.6e-5 was seen.
        assert float(apart.norm()) < (1e-3 if settings.get("micro_batch") else 1e-4) * float(moved.norm())
        measured = [card(space, name)["metrics"].get("validation_loss", 0.0) for space in ends.values()]
        assert measured[0] == pytest.approx(measured[1], abs=1e-5)
        assert card(ends[True], name)["trainable"] == card(ends[False], name)["trainable"]


def test_one_after_the_other(tmp_path: Path, tiny_sd: Path) -> None:
    """With `together` off the second adapter begins when the first one is finished, and is told by itself."""
    recipe, space = prepared(tmp_path, tiny_sd, together=False, steps=2)
    told = notes_of(recipe, space, "progress")
    assert [text.partition(": loss")[0] for text in told] == [HOMER, HOMER, PICASSO, PICASSO]


@pytest.mark.slow
def test_samples_are_of_one_adapter_alone(tmp_path: Path, tiny_sd: Path) -> None:
    """Pictures painted on the way are those of each adapter by itself, the other being on the UNet as well."""
    common = {"sample_every": 2, "steps": 2, "learning_rate": 0.1, "lr_schedule": "constant"}
    pictures = []
    for together in (True, False):
        recipe, space = prepared(tmp_path / str(together), tiny_sd, **common, together=together)
        run(recipe, space)
        files = [space.adapter(name) / "samples" / "step-2" / "scene-1.png" for name in BOTH]
        pictures.append([values(file) for file in files])
    for one, other in zip(*pictures, strict=True):
        assert float((one - other).abs().max()) < 2 / 255
    assert float((pictures[0][0] - pictures[0][1]).abs().max()) > 2 / 255, "their styles differ"


def values(path: Path) -> torch.Tensor:
    """A picture's values, in 0..1."""
    return torch.from_numpy(imaging.pixels(imaging.load(path)))


# Interruptions --------------------------------------------------------------------------------------------------------


def killed_at_save(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, space: Workspace, place: int) -> None:
    """Train, and die at a checkpoint before anything is written, counted from 0."""
    save, calls = torch.save, itertools.count()

    def killed(state: Any, path: Path) -> None:
        if next(calls) == place:
            raise Stop
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed)
        with pytest.raises(Stop):
            run(recipe, space)


@pytest.mark.slow
@pytest.mark.parametrize("place", [1, 3])
def test_killed_between_two_checkpoints(
    whole: tuple[Recipe, Workspace], tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Killed before the second adapter's checkpoint of a step is written, the first ones too: both go on alike."""
    recipe, space = prepared(tmp_path, tiny_sd, keep_checkpoints=1, **COMPANY)
    killed_at_save(monkeypatch, recipe, space, place)
    said = notes_of(recipe, space)
    expected = [f"{name}: going on at step 2 of 4" for name in BOTH] if place == 3 else []
    assert [line for line in said if "going on" in line] == expected
    for name in BOTH:
        assert same(weights(space, name), weights(whole[1], name))
        assert losses(space, name) == losses(whole[1], name)


@pytest.mark.slow
def test_killed_between_two_cards(
    whole: tuple[Recipe, Workspace], tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter that has its card is done; the other one goes on at its last step, and needs none."""
    recipe, space = prepared(tmp_path, tiny_sd, **COMPANY)
    finish = jobs.TrainingJob.finish

    def killed(job: jobs.TrainingJob, *rest: Any) -> None:
        if job.name == PICASSO:
            raise Stop
        finish(job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(jobs.TrainingJob, "finish", killed)
        with pytest.raises(Stop):
            run(recipe, space)
    first = card(space)
    heard: list[Event] = []
    run(recipe, space, heard.append)
    assert [event.text for event in heard if event.kind == "progress"] == []
    assert f"{PICASSO}: going on at step 4 of 4" in [event.text for event in heard]
    assert card(space) == first
    for name in BOTH:
        assert same(weights(space, name), weights(whole[1], name))
        assert card(space, name)["metrics"]["final_loss"] == card(whole[1], name)["metrics"]["final_loss"]


@pytest.mark.slow
def test_finished_company_is_not_needed(tmp_path: Path, tiny_sd: Path) -> None:
    """An artist who comes later is trained alone; who was finished or half done before goes on as without him."""
    pair, space = prepared(tmp_path / "a", tiny_sd, **COMPANY)
    alone = pair.model_copy(update={"artists": pair.artists[:1]})
    run(alone, space)
    finished = card(space)
    assert {text.partition(":")[0] for text in notes_of(pair, space, "progress")} == {PICASSO}
    assert card(space) == finished

    _, other = prepared(tmp_path / "b", tiny_sd, **COMPANY)
    stopped(alone, other, 3)
    said = notes_of(pair, other)
    assert [line for line in said if "going on" in line] == [f"{HOMER}: going on at step 2 of 4"]
    assert not any("in one pass" in line for line in said)
    for name in BOTH:
        assert same(weights(other, name), weights(space, name))


@pytest.mark.slow
def test_together_is_no_part_of_a_job(tmp_path: Path, tiny_sd: Path) -> None:
    """An interrupted pair goes on one after the other, and in step again, where each of them was."""
    recipe, space = prepared(tmp_path, tiny_sd)
    apart = recipe.model_copy(update={"train": recipe.train.model_copy(update={"together": False})})
    stopped(recipe, space, 3)
    stopped(apart, space, 4)
    said = notes_of(recipe, space)
    assert [line for line in said if "going on" in line] == [f"{name}: going on at step 2 of 4" for name in BOTH]
    assert notes_of(apart, space, "progress") == []


@pytest.mark.slow
def test_other_works_of_one_are_not_the_others_matter(tmp_path: Path, tiny_sd: Path) -> None:
    """One artist's images changed under an interrupted pair: he starts afresh, the other goes on where he was."""
    recipe, space = prepared(tmp_path, tiny_sd)
    stopped(recipe, space, 3)
    file = space.metadata(PICASSO)
    file.write_text(file.read_text().replace("in the style of picasso", "as picasso painted"))
    said = notes_of(recipe, space)
    assert [line for line in said if "going on" in line] == [f"{HOMER}: going on at step 2 of 4"]
    assert [line["step"] for line in metrics(space, PICASSO)] == [1, 2, 3, 4]


@pytest.mark.slow
def test_going_back_forgets_later_checkpoints(tmp_path: Path, tiny_sd: Path) -> None:
    """A checkpoint of a step that the others never reached does not take the place of the newer ones after it."""
    recipe, space = prepared(tmp_path, tiny_sd, steps=6, keep_checkpoints=1)
    stopped(recipe, space, 5)
    folder = space.adapter(PICASSO) / "checkpoints"
    (folder / "step-0000004.pt").write_bytes(b"damaged")
    more = recipe.train.model_copy(update={"checkpoint_every": 1})
    stopped(recipe.model_copy(update={"train": more}), space, 4)
    for name in BOTH:
        files = [file.name for file in (space.adapter(name) / "checkpoints").glob("*.pt")]
        assert files == ["step-0000003.pt"]


# One stops early ------------------------------------------------------------------------------------------------------


def judged(monkeypatch: pytest.MonkeyPatch, scores: dict[str, list[float]]) -> None:
    """Let the sample of each adapter after each step have its score."""

    def paint(sampler: Any, step: int, _: torch.Tensor) -> Any:
        score = scores[sampler._name][step - 1]
        return [], {"style_gained": score, "copies": 0.0, "sample_score": score}

    monkeypatch.setattr(validation.ValidationSampler, "paint", paint)


EARLY = {HOMER: [0.5, 0.4, 0.3, 0.2, 0.1, 0.0], PICASSO: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}


@pytest.mark.slow
def test_one_stops_early(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other goes on without it; all are saved at that step before the card; a kill anywhere changes no bit."""
    judged(monkeypatch, EARLY)
    settings = {"steps": 6, "sample_every": 1, "patience": 2, "checkpoint_every": 4, **COMPANY}
    recipe, space = prepared(tmp_path / "whole", tiny_sd, **settings)
    finish, found = jobs.TrainingJob.finish, []

    def watched(job: jobs.TrainingJob, *rest: Any) -> None:
        files = (space.adapter(PICASSO) / "checkpoints").glob("*.pt")
        found.append((job.name, sorted(file.name for file in files)))
        finish(job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(jobs.TrainingJob, "finish", watched)
        run(recipe, space)
    assert found[0] == (HOMER, ["step-0000003.pt"])
    assert [card(space, name)["metrics"]["steps"] for name in BOTH] == [3, 6]
    assert [len(metrics(space, name)) for name in BOTH] == [3, 6]

    def broken(place: str, kill: Any) -> None:
        _, other = prepared(tmp_path / place, tiny_sd, **settings)
        kill(other)
        run(recipe, other)
        for name in BOTH:
            assert same(weights(other, name), weights(space, name)), place
            assert losses(other, name) == losses(space, name)

    broken("before the card", lambda other: killed_in(monkeypatch, recipe, other))
    broken("after the card", lambda other: stopped(recipe, other, 4, PICASSO))


def killed_in(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, space: Workspace) -> None:
    """Train, and die as soon as an adapter is to be finished."""

    def killed(*_: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(jobs.TrainingJob, "finish", killed)
        with pytest.raises(Stop):
            run(recipe, space)


@pytest.mark.slow
def test_company_that_grew_smaller(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three one stops early, and the run is killed between the next saves of the two left: they go on in step."""
    judged(monkeypatch, EARLY | {GRIS: EARLY[PICASSO]})
    settings = {"steps": 6, "sample_every": 1, "patience": 2, "checkpoint_every": 4, **COMPANY}
    ends = []
    for kills in (False, True):
        pair, space = prepared(tmp_path / str(kills), tiny_sd, **settings)
        shutil.copytree(space.metadata(PICASSO).parent, space.metadata(GRIS).parent)
        third = pair.artists[1].model_copy(update={"name": "Juan Gris"})
        recipe = pair.model_copy(update={"artists": (*pair.artists, third)})
        if kills:  # After three saves of step 3 and one of step 4.
            killed_at_save(monkeypatch, recipe, space, 4)
        said = notes_of(recipe, space)
        ends.append(space)
    assert f"2 adapters in one pass: {PICASSO}, {GRIS}" in said
    assert [line for line in said if "going on" in line] == [
        f"{name}: going on at step 3 of 6" for name in (PICASSO, GRIS)
    ]
    for name in (*BOTH, GRIS):
        assert same(weights(ends[0], name), weights(ends[1], name))


# Faults and memory ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_number_of_one_is_not_the_others(
    whole: tuple[Recipe, Workspace], tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN among one adapter's samples stops the run with its name; the good weights of both are kept."""
    recipe, space = prepared(tmp_path, tiny_sd, **COMPANY)
    calls = itertools.count()

    def spoiled(base: Any, drawn: Batch) -> torch.Tensor:
        found = denoising_losses(base, drawn)
        return found * torch.tensor([1.0, math.nan]) if next(calls) == 4 else found  # two passes a step

    with monkeypatch.context() as patch:
        patch.setattr(loop, "denoising_losses", spoiled)
        with pytest.raises(AvignonError, match=f"{PICASSO}: at step 3 the loss is nan"):
            run(recipe, space)
    for name, files in ((HOMER, [2, 3]), (PICASSO, [2])):
        folder = space.adapter(name) / "checkpoints"
        assert sorted(folder.glob("*.pt")) == [folder / f"step-{step:07}.pt" for step in files]
        master = torch.load(folder / f"step-{files[-1]:07}.pt")["updates"]["master"]
        assert bool(master.isfinite().all())
    run(recipe, space)
    for name in BOTH:
        assert same(weights(space, name), weights(whole[1], name)), "whatever spoiled it was gone, and so is its trace"


@pytest.mark.slow
def test_each_has_a_loss_scale_of_its_own(
    whole: tuple[Recipe, Workspace], tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are scaled by their own adapter's scale: powers of two, which leave no trace in the weights."""
    scales = itertools.count(3, 5)

    class Scaled(OptimizerStep):
        """Begins with another scale each time."""

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self.scale = torch.tensor(2.0 ** next(scales))

    recipe, space = prepared(tmp_path, tiny_sd, **COMPANY)
    monkeypatch.setattr(trainer, "OptimizerStep", Scaled)
    run(recipe, space)
    for name in BOTH:
        assert same(weights(space, name), weights(whole[1], name))


@pytest.mark.slow
@pytest.mark.parametrize(("most", "checkpointing", "rungs"), [(4, False, 1), (4, True, 2), (2, True, 3)])
def test_out_of_memory_parts_the_adapters_first(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, most: int, checkpointing: bool, rungs: int
) -> None:
    """Two adapters that find no memory in one pass go on one by one, then step down: the bits of a run begun there."""
    common = {"batch": 4, "steps": 2}
    recipe, space = prepared(tmp_path / "a", tiny_sd, **common)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "denoising_losses", OutOfMemory(most, checkpointing=checkpointing))
        told = notes_of(recipe, space, "warning")
    assert told[0] == (
        f"{HOMER}, {PICASSO}: out of memory: going on with one adapter per pass (train.together = false)"
    )
    assert len(told) == rungs
    small = {"together": False, "gradient_checkpointing": checkpointing, "micro_batch": most % 4}
    started, other = prepared(tmp_path / "b", tiny_sd, **common, **small)
    run(started, other)
    for name in BOTH:
        assert same(weights(space, name), weights(other, name))


@pytest.mark.slow
def test_out_of_memory_within_a_step(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory runs out after some passes of a step, nothing of these is left when it is done again."""
    recipe, space = prepared(tmp_path / "a", tiny_sd, **COMPANY, steps=2)
    calls = itertools.count()

    def second_fails(*arguments: Any) -> torch.Tensor:
        if next(calls) == 1:
            raise MemoryError
        return denoising_losses(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "denoising_losses", second_fails)
        run(recipe, space)
    started, other = prepared(tmp_path / "b", tiny_sd, **COMPANY, steps=2, together=False)
    run(started, other)
    for name in BOTH:
        assert same(weights(space, name), weights(other, name))
