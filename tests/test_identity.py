"""What is made again and what stays: exact and compatible bases, settings, upgrades, finished adapters."""

import json
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch

from avignon import pipeline
from avignon.adapters import files
from avignon.adapters.formats import diffusers as lora_format
from avignon.core.errors import AdapterError, WorkspaceError
from avignon.core.events import Event, Reporter, StageProgress
from avignon.core.files import sha256_of
from avignon.core.png import png_fields
from avignon.core.settings import ABSENT, Section
from avignon.core.workspace import Workspace
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe, Train
from tests.support.bases import load_base
from tests.support.exports import header
from tests.support.hub import LocalHub, take_for_the_hub
from tests.support.paths import FIXTURES
from tests.support.runs import carried, small_recipe
from tests.support.tiny_sd import make_tiny_sd

HOMER, PICASSO = "winslow-homer", "pablo-picasso"
OLD_RUNS = ("finished-run", "finished-run-2")
"""Finished before hashes had a schema number (avignon 0.1.0), and before recipe keys and frames had today's names."""
SILENT = Reporter("test", lambda _: None)
REPO = "someone/tiny-sd"
WEIGHTS = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")


def bytes_of(folder: Path, pattern: str) -> dict[str, str]:
    """SHA-256 of the files below a folder that fit a pattern."""
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob(pattern))}


def made(space: Workspace) -> tuple[dict[str, str], dict[str, str]]:
    """The adapters and the pictures of a run."""
    return bytes_of(space.adapters, lora_format.WEIGHTS_FILE), bytes_of(space.series, "*.png")


def run(recipe: Recipe, folder: Path, until: str = "generate") -> tuple[Workspace, list[Event]]:
    """The run up to its series, and what was said."""
    return carried(recipe, folder, until)


def said(events: list[Event], kind: str) -> list[str]:
    """The texts of one kind of event."""
    return [event.text for event in events if event.kind == kind]


def steps_taken(events: list[Event]) -> list[int]:
    """The training steps that were taken."""
    return [event.done for event in events if isinstance(event, StageProgress) and ": loss" in event.text]


def pictures_made(events: list[Event]) -> int:
    """How often painting moved on."""
    return sum(event.stage == "generate" and event.kind == "progress" for event in events)


# An upgrade -----------------------------------------------------------------------------------------------------------


def copied(run: str, folder: Path) -> tuple[Recipe, Path]:
    """An old run, copied together with the base that both share: its recipe, and the folder of its workspace."""
    shutil.copytree(FIXTURES / OLD_RUNS[0] / "base", folder / OLD_RUNS[0] / "base")
    shutil.copytree(FIXTURES / run, folder / run, dirs_exist_ok=True)
    return load_recipe(folder / run / "dialogue.toml"), folder / run / "workspace"


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Recipe, Path]:
    """The run of avignon 0.1.0, and its recipe."""
    return copied(OLD_RUNS[0], tmp_path)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("old", OLD_RUNS)
def test_finished_run_of_the_version_before_stays_finished(tmp_path: Path, old: str) -> None:
    """Works, dataset, adapters, measured path and pictures of older versions are those of this one: none is new.

    The files for other programs are added, with a picture of the series that is there.
    """
    recipe, folder = copied(old, tmp_path)
    before = made(Workspace(folder / recipe.name))
    placing = (folder / recipe.name / "series" / "placing.json").read_bytes()
    space, events = run(recipe, folder)
    assert [e.stage for e in events if e.kind == "skipped"] == ["collect", "curate", "prepare"]
    assert steps_taken(events) == []
    assert pictures_made(events) == 0
    assert not any("measuring" in text for text in said(events, "note"))
    assert made(space) == before
    assert space.placing.read_bytes() == placing
    assert not (space.root / "set-aside").exists()
    for name in recipe.adapter_names:
        place, weights = space.adapter(name), sha256_of(space.adapter(name) / lora_format.WEIGHTS_FILE)
        told = header(place / f"{name}.safetensors")
        assert told["modelspec.architecture"] == "stable-diffusion-v2-512/lora"
        works = json.loads((place / "card.json").read_text(encoding="utf-8"))["works"]
        assert works
        assert all(f", {work['accession']}, " in told["modelspec.description"] for work in works)
        assert "modelspec.date" not in told, "nobody wrote down when it was trained"
        assert json.loads((place / f"{name}.json").read_text(encoding="utf-8"))["sd version"] == "SD2"
        fields = png_fields(place / f"{name}.png")
        assert fields["adapters"][name] == weights
        assert [other for other, weight in fields["weights"].items() if weight] == [name]
    _, again = run(recipe, folder)
    assert [e.kind for e in again] == ["skipped"] * 5


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("changed", "steps", "pictures"),
    [
        ("train.steps=3", [1, 2, 3], True),
        pytest.param("train.learning_rate=2e-2", [1, 2], True, marks=pytest.mark.slow),
        ("generate.guidance_scale=2", [], True),
        ("generate.spacing=uniform", [], True),
        ('base.prediction_type="v_prediction"', [1, 2], True),
        pytest.param('base.quantize="int8"', [1, 2], True, marks=pytest.mark.slow),
    ],
)
def test_a_change_of_an_old_run_is_seen(
    finished: tuple[Recipe, Path], changed: str, steps: list[int], pictures: bool
) -> None:
    """What was asked for anew is made anew, in a run of the version before as well."""
    _, folder = finished
    recipe = load_recipe(folder.parent / "dialogue.toml", [changed])
    _, events = run(recipe, folder)
    assert steps_taken(events) == steps
    assert bool(pictures_made(events)) is pictures


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("changed", "steps", "pictures"),
    [
        ("train.steps=3", [3], True),
        ("train.eval_every=2", [], False),
        ("generate.weight_schedule.the-avignon-painter=[1.0, 0.4]", [], True),
        ("generate.block_weights.the-atlantic-painter.mid=0.4", [], True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ('train.lr_schedule="cosine"', [1, 2], True),
                ("train.validation_works=0", [1, 2], True),
                ("generate.guidance_scale=3", [1, 2], True),
                ("generate.num_inference_steps=3", [1, 2], True),
                ("generate.equalize_adapters=true", [], True),
                ('generate.path_adapters=["the-atlantic-painter", "the-avignon-painter"]', [], True),
            )
        ),
    ],
)
def test_a_renamed_key_of_an_old_run_counts(tmp_path: Path, changed: str, steps: list[int], pictures: bool) -> None:
    """A key that had another name is read under its new one: another value is made anew, or goes on where it may.

    The base's own pictures have a part in this training, so that how they are painted counts for its adapters too.
    """
    _, folder = copied(OLD_RUNS[1], tmp_path)
    priors = bytes_of(folder, "prior.safetensors")
    _, events = run(load_recipe(folder.parent / "dialogue.toml", [changed]), folder)
    assert steps_taken(events) == steps
    assert bool(pictures_made(events)) is pictures
    assert any("going on at step 2 of 3" in text for text in said(events, "note")) is (steps == [3])
    if steps == [3]:
        assert bytes_of(folder, "prior.safetensors") == priors, "the base's own pictures are kept as well"


def test_hashes_have_the_former_names_of_keys() -> None:
    """What is hashed of a recipe has the names and values of the file that the version before wrote."""
    folder = FIXTURES / OLD_RUNS[1]
    before = tomllib.loads((folder / "workspace" / "dialogue" / "recipe.toml").read_text(encoding="utf-8"))
    recipe = load_recipe(folder / "dialogue.toml")
    for name in ("train", "generate"):
        section: Section = getattr(recipe, name)
        hashed = section.chosen()
        assert hashed.keys() >= set(section.formerly.values()) - {"equal_voices"}
        assert _values_of(hashed, before[name]) == hashed


def _values_of(some: Any, others: Any) -> Any:
    """What `others` has at the keys of `some`."""
    if isinstance(some, dict):
        return {key: _values_of(value, others[key]) for key, value in some.items()}
    if isinstance(some, list):
        return [_values_of(*pair) for pair in zip(some, others, strict=True)]
    return others


class Newer(Train):
    """The settings of a training in some later version."""

    patch: int = 0
    """A setting that did not exist before."""


def test_a_new_setting_at_its_default_changes_no_hash() -> None:
    """Hashes cover what differs from the defaults: a field that is new counts once it is used."""
    assert Newer(steps=50).chosen() == Train(steps=50).chosen() == {"steps": 50}
    assert Newer(patch=1).chosen() == {"patch": 1}


class Marked(Section):
    """A section with a field that came after the first schema."""

    schema_1: ClassVar[dict[str, object]] = {"new": ABSENT, "other": 3}
    old: int = 1
    new: int = 2
    other: int = 4


def test_hashes_of_schema_1_do_not_know_newer_fields() -> None:
    """A newer field is left out of the old hash where it has its default, and an old default is what it was."""
    assert Marked().as_in_schema_1() == {"old": 1, "other": 3}
    assert Marked(new=3, other=5).as_in_schema_1() == {"old": 1, "new": 3, "other": 5}


# Exact bases ----------------------------------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    change(fields)
    path.write_text(json.dumps(fields), encoding="utf-8")


def nudge(path: Path) -> None:
    """Change one tensor of a file by a little."""
    tensors = safetensors.torch.load_file(path)
    tensors[max(tensors)].add_(0.01)
    safetensors.torch.save_file(tensors, path)


def shard(folder: Path, stem: str) -> None:
    """Split a file of weights in two, with an index."""
    tensors = safetensors.torch.load_file(folder / f"{stem}.safetensors")
    names = sorted(tensors)
    parts = {"00001": names[: len(names) // 2], "00002": names[len(names) // 2 :]}
    places: dict[str, str] = {}
    for number, own in parts.items():
        file = f"{stem}-{number}-of-00002.safetensors"
        safetensors.torch.save_file({name: tensors[name] for name in own}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(own, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / f"{stem}.safetensors").unlink()


def scheduler_says(key: str, value: object) -> Callable[[Path], None]:
    """Change a value of the scheduler's."""
    return lambda base: rewrite(base / "scheduler/scheduler_config.json", lambda fields: fields.update({key: value}))


CHANGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "prediction type": ("scheduler", scheduler_says("prediction_type", "v_prediction")),
    "betas": ("scheduler", scheduler_says("beta_end", 0.013)),
    "vae": ("vae", lambda base: nudge(base / "vae/diffusion_pytorch_model.safetensors")),
    "text encoder": ("text_encoder", lambda base: nudge(base / "text_encoder/model.safetensors")),
    "layers of the text encoder": (
        "text_encoder",
        lambda base: rewrite(base / "text_encoder/config.json", lambda f: f.update({"hidden_act": "quick_gelu"})),
    ),
    "tokenizer": (
        "tokenizer",
        lambda base: rewrite(base / "tokenizer/tokenizer_config.json", lambda f: f.update({"pad_token": "a"})),
    ),
    "second shard": (
        "unet",
        lambda base: nudge(base / "unet/diffusion_pytorch_model-00002-of-00002.safetensors"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "change"),
    [pytest.param(*case, marks=() if name in ("vae", "second shard") else pytest.mark.slow, id=name)
     for name, case in CHANGES.items()],
)  # fmt: skip
def test_a_changed_part_of_the_base_is_seen_and_named(
    tmp_path: Path, part: str, change: Callable[[Path], None]
) -> None:
    """Whatever part of a base changed after a run: adapters and pictures are made again, and the log names the part."""
    base = make_tiny_sd(tmp_path / "base")
    shard(base / "unet", "diffusion_pytorch_model")
    recipe = small_recipe(tmp_path, base, train={"steps": 1})
    space, _ = run(recipe, tmp_path / "runs")
    before = made(space)
    change(base)
    _, events = run(recipe, tmp_path / "runs")
    assert steps_taken(events) == [1]
    assert all(sha != made(space)[0][name] for name, sha in before[0].items())
    assert all(sha != made(space)[1][name] for name, sha in before[1].items())
    assert any(
        f"was finished with different {part} of the base; that adapter is kept in" in text
        for text in said(events, "warning")
    )
    assert any(f"the base has a different {part} than in the last run" in text for text in said(events, "note"))


@pytest.mark.slow
def test_notes_in_a_base_change_nothing(tmp_path: Path) -> None:
    """Which library wrote a file, and when, is no part of a base."""
    base = make_tiny_sd(tmp_path / "base")
    recipe = small_recipe(tmp_path, base, train={"steps": 1})
    space, _ = run(recipe, tmp_path / "runs")
    before = made(space)
    rewrite(
        base / "unet/config.json", lambda fields: fields.update({"_diffusers_version": "9.9", "_name_or_path": "x"})
    )
    rewrite(base / "scheduler/scheduler_config.json", lambda fields: fields.update({"_diffusers_version": "9.9"}))
    _, events = run(recipe, tmp_path / "runs")
    assert steps_taken(events) == []
    assert pictures_made(events) == 0
    assert made(space) == before


# Compatible bases -----------------------------------------------------------------------------------------------------


def halve(base: Path, *, beside: bool) -> None:
    """Write all weights in fp16 under the variant's names, beside the full ones or in their place."""
    for name in WEIGHTS:
        tensors = safetensors.torch.load_file(base / f"{name}.safetensors")
        half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
        file = base / f"{name}.fp16.safetensors" if beside else base / f"{name}.safetensors"
        safetensors.torch.save_file(half, file, metadata={"format": "pt"})


def test_another_sampler_may_have_saved_the_noise_schedule(tmp_path: Path) -> None:
    """Of the scheduler's file only the noise schedule counts, so that a mirror saved by another sampler is the same."""
    one = make_tiny_sd(tmp_path / "one")
    other = shutil.copytree(one, tmp_path / "other")
    rewrite(
        other / "scheduler/scheduler_config.json",
        lambda fields: fields.update({"_class_name": "UniPCMultistepScheduler", "solver_order": 2}),
    )
    assert tell(other, tmp_path / "b").parts == tell(one, tmp_path / "a").parts


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with a base in full and in fp16 in one commit, and an empty cache."""
    base = make_tiny_sd(tmp_path / "published")
    halve(base, beside=True)
    with LocalHub() as hub:
        hub.add(REPO, base)
        take_for_the_hub(hub, tmp_path / "hub-cache", monkeypatch)
        yield hub


@pytest.mark.slow
def test_fp16_and_full_files_in_one_cache(hub: LocalHub, tmp_path: Path) -> None:
    """Recipe A in fp16, B in full, A again: A stays finished, its own adapters fit, and B is another job."""
    half = small_recipe(tmp_path / "a", REPO, base={"variant": "fp16"}, train={"steps": 1})
    full = small_recipe(tmp_path / "b", REPO, train={"steps": 1})
    space, _ = run(half, tmp_path / "runs-a")
    before = made(space)
    other, _ = run(full, tmp_path / "runs-b")
    assert made(other)[0] != before[0]
    (space.root / "manifest.json").unlink()
    _, events = run(half, tmp_path / "runs-a")
    assert steps_taken(events) == []
    assert pictures_made(events) == 0
    assert made(space) == before


def rounded(base: Path) -> None:
    """In fp16."""
    halve(base, beside=False)


def sharded(base: Path) -> None:
    """In two files."""
    shard(base / "unet", "diffusion_pytorch_model")


def other_vae(base: Path) -> None:
    """With a VAE of its own, as many have."""
    nudge(base / "vae/diffusion_pytorch_model.safetensors")


@pytest.mark.slow_but_one
@pytest.mark.parametrize("change", [rounded, sharded, other_vae])
def test_adapters_fit_the_same_weights_in_other_files(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """An adapter fits a base whose UNet has its weights, rounded to fp16, in whatever files, and with any VAE."""
    card = tell(make_tiny_sd(tmp_path / "one"), tmp_path / "a").card
    changed = make_tiny_sd(tmp_path / "other")
    change(changed)
    other = tell(changed, tmp_path / "b")
    assert other.fits(card)
    assert other.identity != tell(tmp_path / "one", tmp_path / "c").identity


def test_adapters_do_not_fit_other_weights(tmp_path: Path) -> None:
    """One number of one tensor that differs by more than rounding is another base."""
    card = tell(make_tiny_sd(tmp_path / "one"), tmp_path / "a").card
    changed = make_tiny_sd(tmp_path / "other")
    nudge(changed / "unet/diffusion_pytorch_model.safetensors")
    assert not tell(changed, tmp_path / "b").fits(card)


def tell(folder: Path, scratch: Path) -> StableDiffusion:
    """A base as it is loaded."""
    return load_base(small_recipe(scratch, folder), torch.float32, SILENT)


@pytest.mark.slow
def test_external_adapter_of_a_rounded_base(tmp_path: Path) -> None:
    """An adapter trained on the full weights is mixed in on the same weights in fp16; one of other weights is not."""
    full = make_tiny_sd(tmp_path / "full")
    space, _ = run(small_recipe(tmp_path / "a", full, train={"steps": 1}), tmp_path / "runs-a", "train")
    half = shutil.copytree(full, tmp_path / "half")
    halve(half, beside=False)
    files.load(tell(half, tmp_path / "b"), "guest", space.adapter(HOMER))
    with pytest.raises(AdapterError, match="made for another base"):
        files.load(tell(make_tiny_sd(tmp_path / "other", seed=9), tmp_path / "c"), "guest", space.adapter(HOMER))


# Finished adapters ----------------------------------------------------------------------------------------------------


def small(folder: Path, base: Path, **settings: Any) -> Recipe:
    """A recipe with these values in `train`."""
    return small_recipe(folder, base, train=settings)


@pytest.mark.slow
def test_more_steps_at_a_constant_rate_go_on(tmp_path: Path, tiny_sd: Path) -> None:
    """Raised steps go on from the finished state, with the bits of a run that had them at once; nothing is lost."""
    common = {"lr_schedule": "constant", "warmup": 1}
    space, _ = run(small(tmp_path / "a", tiny_sd, steps=3, **common), tmp_path / "runs", "train")
    before, _ = made(space)
    _, events = run(small(tmp_path / "a", tiny_sd, steps=5, **common), tmp_path / "runs", "train")
    assert steps_taken(events) == [4, 5]
    assert f"{HOMER}: going on at step 3 of 5" in said(events, "note")
    whole, _ = run(small(tmp_path / "b", tiny_sd, steps=5, **common), tmp_path / "whole", "train")
    assert made(space)[0] == made(whole)[0]
    lines = (space.adapter(HOMER) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]
    kept = bytes_of(space.root / "set-aside", lora_format.WEIGHTS_FILE)
    assert sorted(kept.values()) == sorted(before.values())
    assert any("different number of steps" in text and "kept in" in text for text in said(events, "warning"))


@pytest.mark.slow
def test_fewer_steps_at_a_constant_rate_begin_anew(tmp_path: Path, tiny_sd: Path) -> None:
    """A state beyond the last step wanted is set aside, and said to be."""
    space, _ = run(small(tmp_path / "a", tiny_sd, steps=4, lr_schedule="constant"), tmp_path / "runs", "train")
    _, events = run(small(tmp_path / "a", tiny_sd, steps=2, lr_schedule="constant"), tmp_path / "runs", "train")
    assert steps_taken(events) == [1, 2]
    assert any("beyond the last step wanted, 2, and was set aside" in text for text in said(events, "warning"))
    assert any("it begins anew, because no state is there" in text for text in said(events, "warning"))
    assert len(list(space.adapters.rglob("set-aside/step-0000004-*.pt"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"lr_schedule": "cosine"}, pytest.param({"lr_schedule": "linear"}, marks=pytest.mark.slow)]
)
def test_more_steps_at_a_falling_rate_begin_anew_and_say_so(
    tmp_path: Path, tiny_sd: Path, settings: dict[str, Any]
) -> None:
    """A falling rate depends on the last step: a line says that it begins anew, and the finished adapter is kept."""
    space, _ = run(small(tmp_path / "a", tiny_sd, steps=2, **settings), tmp_path / "runs", "train")
    before, _ = made(space)
    assert not list(space.adapters.rglob("step-*.pt"))
    _, events = run(small(tmp_path / "a", tiny_sd, steps=3, **settings), tmp_path / "runs", "train")
    assert steps_taken(events) == [1, 2, 3]
    assert any("it begins anew, because the learning rate falls" in text for text in said(events, "warning"))
    assert sorted(bytes_of(space.root / "set-aside", lora_format.WEIGHTS_FILE).values()) == sorted(before.values())


@pytest.mark.slow
def test_a_finished_adapter_of_another_recipe_is_kept(tmp_path: Path, tiny_sd: Path) -> None:
    """Another rate, then other adapters, under one name of recipe: what was finished is kept, and its place named."""
    first, _ = run(small(tmp_path / "a", tiny_sd, steps=1), tmp_path / "runs", "train")
    before = set(made(first)[0].values())
    _, events = run(small(tmp_path / "a", tiny_sd, steps=1, learning_rate=5e-3), tmp_path / "runs", "train")
    warnings = said(events, "warning")
    assert [w for w in warnings if w.startswith((HOMER, PICASSO))] == [
        f"{name}: was finished with different settings; that adapter is kept in {kept_as(first, name, before)}"
        for name in (HOMER, PICASSO)
    ]
    before |= set(made(first)[0].values())
    _, events = run(small(tmp_path / "a", tiny_sd, steps=1, mode="joint"), tmp_path / "runs", "train")
    assert sum("the recipe does not train it any more" in text for text in said(events, "warning")) == 2
    assert set(bytes_of(first.root / "set-aside", lora_format.WEIGHTS_FILE).values()) == before
    assert list(made(first)[0]) == ["joint/pytorch_lora_weights.safetensors"]


def kept_as(space: Workspace, name: str, before: set[str]) -> Path:
    """Where an adapter of this name and one of these hashes was set aside, named by its card."""
    (folder,) = (space.root / "set-aside").glob(f"adapters-{name}-*")
    assert folder.name.endswith(f"-{sha256_of(folder / 'card.json')[:8]}")
    assert sha256_of(folder / lora_format.WEIGHTS_FILE) in before
    return folder


@pytest.mark.slow
def test_checkpoints_set_aside_do_not_replace_one_another(tmp_path: Path, tiny_sd: Path) -> None:
    """Three rates one after the other: the states of the first two are both kept."""
    for rate in (1e-2, 2e-2, 3e-2):
        recipe = small(tmp_path / "a", tiny_sd, steps=1, lr_schedule="constant", learning_rate=rate)
        space, _ = run(recipe, tmp_path / "runs", "train")
    assert len(list((space.adapter(HOMER) / "checkpoints" / "set-aside").iterdir())) == 2


@pytest.mark.slow
def test_an_unfinished_training_survives_another_recipe(tmp_path: Path, tiny_sd: Path) -> None:
    """A training that was broken off goes on where it was, though a recipe of other adapters ran in between."""

    def listen(event: Event) -> None:
        if isinstance(event, StageProgress) and event.stage == "train" and event.done == 3:
            raise KeyboardInterrupt

    recipe = small(tmp_path / "a", tiny_sd)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe, tmp_path / "runs", listen, until="train")
    run(small(tmp_path / "a", tiny_sd, mode="joint", steps=1), tmp_path / "runs", "train")
    _, events = run(recipe, tmp_path / "runs", "train")
    assert steps_taken(events) == [3, 4]


@pytest.mark.slow
def test_a_full_disk_while_setting_aside_is_a_line(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be set aside is not replaced: one line, and no half of a copy stays."""
    space, _ = run(small(tmp_path / "a", tiny_sd, steps=1), tmp_path / "runs", "train")
    before = made(space)

    def full(source: str, target: str) -> str:
        raise OSError(28, "No space left on device", target)

    monkeypatch.setattr(shutil, "copy2", full)
    monkeypatch.setattr(shutil.copytree, "__defaults__", (False, None, full, False, False))
    with pytest.raises(WorkspaceError, match="No space left on device"):
        run(small(tmp_path / "a", tiny_sd, steps=2), tmp_path / "runs", "train")
    assert made(space) == before
    assert not list((space.root / "set-aside").iterdir())


PAINTED = {
    "prior": ({"prior_images": 1, "steps": 1}, {"generate": {"guidance_scale": 3.0}}),
    "judged": ({"sample_every": 1, "keep": "best", "steps": 1}, {"generate": {"scheduler": "euler"}}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "changed"), PAINTED.values(), ids=PAINTED.keys())
def test_what_is_painted_for_a_training_is_part_of_it(
    tmp_path: Path, tiny_sd: Path, settings: dict[str, Any], changed: dict[str, Any]
) -> None:
    """Where the base's own pictures or samples have a part in a training, how they are painted counts."""
    run(small(tmp_path / "a", tiny_sd, **settings), tmp_path / "runs", "train")
    _, events = run(small_recipe(tmp_path / "a", tiny_sd, train=settings, **changed), tmp_path / "runs", "train")
    assert steps_taken(events) == [1]
    _, events = run(small_recipe(tmp_path / "a", tiny_sd, train={"steps": 1}, **changed), tmp_path / "runs", "train")
    _, events = run(small(tmp_path / "a", tiny_sd, steps=1), tmp_path / "runs", "train")
    assert [e.kind for e in events if e.stage == "train"] == ["skipped"], "without them, it does not"


@pytest.mark.slow_but_one
@pytest.mark.parametrize("text", ["[]", "{}", '{"train": {}}', "null"])
@pytest.mark.parametrize("name", ["manifest.json", "series/placing.json", f"adapters/{HOMER}/card.json"])
def test_json_of_another_shape_is_damaged(finished: tuple[Recipe, Path], name: str, text: str) -> None:
    """A file of the run that is JSON but not what it should be is named as damaged, not tripped over."""
    recipe, folder = finished
    path = folder / recipe.name / name.replace(HOMER, recipe.adapter_names[0])
    path.write_text(text, encoding="utf-8")
    if text == "{}" and name == "manifest.json":
        assert run(recipe, folder)[0]  # Nothing is known of what was done: it is looked at anew, and kept.
        return
    with pytest.raises(WorkspaceError, match=f"{path.name}: damaged; delete it"):
        run(recipe, folder)


@pytest.mark.slow
def test_an_unfinished_training_sets_nothing_aside(tmp_path: Path, tiny_sd: Path) -> None:
    """A run whose adapters are what is wanted touches no folder beside."""
    recipe = small(tmp_path / "a", tiny_sd, steps=1)
    space, _ = run(recipe, tmp_path / "runs", "train")
    (space.root / "manifest.json").unlink()
    _, events = run(recipe, tmp_path / "runs", "train")
    assert steps_taken(events) == []
    assert not (space.root / "set-aside").exists()


@pytest.mark.slow
def test_a_stage_depends_on_its_own_sections(tmp_path: Path, tiny_sd: Path) -> None:
    """A value of a section that a stage does not read leaves it up to date."""
    recipe = small_recipe(tmp_path, tiny_sd, train={"steps": 1})
    space, _ = run(recipe, tmp_path / "runs", "train")
    other = recipe.model_copy(update={"exhibit": recipe.exhibit.model_copy(update={"title": "Another"})})
    stages = {stage.name: stage.is_current(other, space) for stage in pipeline.STAGES[:4]}
    assert stages == {"collect": True, "curate": True, "prepare": True, "train": True}
