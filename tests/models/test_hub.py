"""Bases of every family on a hub: fetched, resumed, refused in a line, had from a mirror or the cache; not loaded."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from avignon.core.errors import ModelError
from avignon.core.events import Event, Reporter
from avignon.models import hub as models
from avignon.models import loading
from tests.support.families import TinyFamily
from tests.support.hub import LocalHub, take_for_the_hub
from tests.support.runs import small_recipe

Spoil = Callable[[Path, TinyFamily], object]


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of it, to spoil."""
    return shutil.copytree(tiny, tmp_path / "copy")


@pytest.fixture
def hub(family: TinyFamily, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with the tiny base, which huggingface_hub takes for the real one, and an empty cache."""
    with LocalHub() as hub:
        hub.add(family.repository, tiny)
        take_for_the_hub(hub, tmp_path / "cache", monkeypatch)
        yield hub


@dataclass
class Fetch:
    """Fetches bases by recipe, without loading them, and remembers what was said."""

    folder: Path
    family: TinyFamily
    heard: list[Event] = field(default_factory=list)
    name: str = ""
    """How the last base is called."""

    def __call__(self, model: str = "", **base: Any) -> Path:
        """The folder that a base is loaded from, checked as before its weights are loaded."""
        recipe = small_recipe(
            self.folder, model or self.family.repository, base=base, generate=dict(self.family.generate)
        )
        self.heard.clear()
        self.name, folder = loading.find(recipe.base, Reporter("train", self.heard.append))
        self.family.row.files.checked(folder, recipe.base)
        return folder

    def refused(self, model: str = "", **base: Any) -> str:
        """The one line by which a base is refused."""
        with pytest.raises(ModelError) as refused:
            self(model, **base)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    @property
    def warnings(self) -> list[str]:
        """The warnings of the last fetch."""
        return [event.text for event in self.heard if event.kind == "warning"]


@pytest.fixture
def fetch(tmp_path: Path, family: TinyFamily) -> Fetch:
    """A fetch with a folder of its own."""
    return Fetch(tmp_path / "recipe", family)


def contents(folder: Path) -> dict[str, bytes]:
    """What every file of a folder holds."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow_but_one
def test_download_by_branch_and_commit(fetch: Fetch, hub: LocalHub, copy: Path) -> None:
    """All files come as they are, of a branch's newest commit or of the commit that is named."""
    old, before = hub.commit(fetch.family.repository), contents(copy)
    (copy / "README.md").write_text("newer", encoding="utf-8")
    (copy / "model_index.json").write_text((copy / "model_index.json").read_text() + "\n", encoding="utf-8")
    newer = hub.add(fetch.family.repository, copy, revision="next")
    main, following, pinned = fetch(), fetch(revision="next"), fetch(revision=old)
    assert contents(main) == before
    assert [models.commit_of(folder) for folder in (main, following, pinned)] == [old, newer, old]
    assert fetch.heard == []


@pytest.mark.slow_but_one
@pytest.mark.parametrize("cut_by", ["close", "reset"])
def test_a_cut_download_goes_on(fetch: Fetch, hub: LocalHub, cut_by: Any) -> None:
    """A connection lost in mid-download is taken up where it broke, or is one line and the next call goes on there."""
    hub.cut_after, hub.cuts_left, hub.cut_by = 20_000, 1, cut_by
    if cut_by == "reset":
        assert "check the network" in fetch.refused()
    assert models.commit_of(fetch()) == hub.commit(fetch.family.repository)
    assert hub.cuts_left == 0


def test_what_the_hub_has_not(fetch: Fetch, hub: LocalHub) -> None:
    """An unknown repository, revision, or a name that is none: one line each, with what to do."""
    assert "not on http" in (line := fetch.refused("no/such"))
    assert "name a mirror in base.mirrors" in line
    assert "'no-such'): no such revision" in fetch.refused(revision="no-such")
    assert "neither owner/name" in fetch.refused("bad name//x")


@pytest.mark.parametrize("status", [401, 403])
def test_gated(fetch: Fetch, hub: LocalHub, tiny: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """A gated repository, without a login or before its terms are accepted: one line that says where to accept them."""
    hub.add("someone/gated", tiny, gated=True)
    if status == 403:
        hub.tokens, hub.accepted = frozenset({"hf_good"}), False
        monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert f"accept the terms on {hub.url}/someone/gated" in fetch.refused("someone/gated")
    assert not any(".safetensors" in path for _, path in hub.requests)


def test_refused_token(fetch: Fetch, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token that the hub does not take, what is public is had without it, and a warning says so."""
    hub.tokens = frozenset({"hf_good"})
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert models.commit_of(fetch()) == hub.commit(fetch.family.repository)
    assert ["refuses the token of this machine" in line for line in fetch.warnings] == [True]


def test_wrong_hash(fetch: Fetch, hub: LocalHub) -> None:
    """What arrives with other bytes than the hub says is one line, and is fetched anew by the next call."""
    hub.garbled = 1
    line = fetch.refused()
    assert "arrived damaged" in line
    assert fetch.family.repository in line
    assert contents(fetch()) == hub.files(fetch.family.repository)


def test_mirror(fetch: Fetch, hub: LocalHub) -> None:
    """The first mirror that has the base is used; if none has, the line names all."""
    fetch("gone/away", mirrors=("gone/too", fetch.family.repository))
    assert fetch.name == fetch.family.repository
    assert [event.kind for event in fetch.heard] == ["note", "note"]
    line = fetch.refused("gone/away", mirrors=("gone/too",))
    assert "gone/away" in line
    assert "gone/too" in line


def test_offline(fetch: Fetch, hub: LocalHub) -> None:
    """Without a hub: from the cache by branch and by commit; without a cache, one line within seconds."""
    hub.offline = True
    start = time.monotonic()
    line = fetch.refused()
    assert hub.url in line
    assert "name a local directory in base.model" in line
    hub.offline = False
    first = fetch()
    hub.status["/api/"] = 503
    assert fetch() == first
    hub.offline = True
    assert fetch() == fetch(revision=models.commit_of(first)) == first
    assert time.monotonic() - start < 10


# What a repository lacks ----------------------------------------------------------------------------------------------


def without(name: str) -> Spoil:
    """Remove a file."""
    return lambda base, family: (base / name.format(denoiser=family.row.denoiser)).unlink()


def pickled(base: Path, _: TinyFamily) -> None:
    """Keep pickle files alone, as old repositories have them."""
    for path in list(base.glob("*/*.safetensors")):
        torch.save(safetensors.torch.load_file(path), path.with_suffix(".bin"))
        path.unlink()


def halved(base: Path, _: TinyFamily) -> None:
    """Keep the weights of one variant alone."""
    for path in list(base.glob("*/*.safetensors")):
        path.rename(path.with_suffix(".fp16.safetensors"))


def shards(folder: Path, stem: str, variant: str = "") -> list[Path]:
    """Write a part's weights as two shards and their index, as diffusers and transformers save them."""
    whole = folder / f"{stem}.safetensors"
    tensors = safetensors.torch.load(whole.read_bytes())
    whole.unlink()
    ending = f".{variant}" if variant else ""
    names = [f"{stem}{ending}-{number:05}-of-00002.safetensors" for number in (1, 2)]
    index = {key: names[place % 2] for place, key in enumerate(sorted(tensors))}
    for name in names:
        safetensors.torch.save_file({k: t for k, t in tensors.items() if index[k] == name}, folder / name)
    told = {"metadata": {"total_size": 0}, "weight_map": index}
    (folder / f"{stem}.safetensors.index{ending}.json").write_text(json.dumps(told), encoding="utf-8")
    return [folder / name for name in names]


def sharded(base: Path, variant: str = "") -> dict[str, list[Path]]:
    """Write all parts so."""
    stems = {path.parent: path.stem for path in base.glob("*/*.safetensors")}
    return {folder.name: shards(folder, stem, variant) for folder, stem in stems.items()}


def without_shard(base: Path, _: TinyFamily) -> None:
    """Lose one of two."""
    sharded(base)["text_encoder"][1].unlink()


def without_index(base: Path, _: TinyFamily) -> None:
    """Lose what says which tensor is where."""
    sharded(base)
    (base / "text_encoder/model.safetensors.index.json").unlink()


LACKS: dict[str, tuple[Spoil, str]] = {
    "weights": (without("{denoiser}/diffusion_pytorch_model.safetensors"), "model.safetensors is missing"),
    "text encoder": (without("text_encoder/model.safetensors"), "text_encoder/model.safetensors is missing"),
    "configuration": (without("{denoiser}/config.json"), "config.json is missing"),
    "index": (without("model_index.json"), "model_index.json is missing"),
    "scheduler": (without("scheduler/scheduler_config.json"), "scheduler_config.json is missing"),
    "no variant": (halved, 'fp16.safetensors; set base.variant = "fp16"'),
    "safetensors": (pickled, "holds only pickle files"),
    "a shard": (without_shard, "text_encoder/model-00002-of-00002.safetensors is missing"),
    "the shards' index": (without_index, "text_encoder/model.safetensors.index.json is missing"),
}


@pytest.mark.parametrize(("spoil", "said"), LACKS.values(), ids=LACKS.keys())
def test_what_is_missing_is_named_before_weights_are_fetched(
    fetch: Fetch, hub: LocalHub, copy: Path, spoil: Spoil, said: str
) -> None:
    """What a repository lacks is told by its small files and its list of files, in one line."""
    spoil(copy, fetch.family)
    hub.add("someone/else", copy)
    assert said in fetch.refused("someone/else")
    assert not any(".safetensors" in path and ".index" not in path for _, path in hub.requests)
    assert not any(path.endswith(".bin") for _, path in hub.requests)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("variant", ["", "fp16"])
def test_shards_are_fetched_and_loaded(fetch: Fetch, hub: LocalHub, tiny: Path, copy: Path, variant: str) -> None:
    """Weights in several files are the base of the single files: the same fingerprint; a lost shard is named."""
    parts = sharded(copy, variant)
    hub.add("someone/sharded", copy)
    folder = fetch("someone/sharded", variant=variant)
    assert {p.name for p in folder.rglob("*.safetensors")} == {p.name for each in parts.values() for p in each}
    silent = Reporter("train", lambda _: None)
    recipes = [
        small_recipe(fetch.folder, place, base={"variant": own}, generate=dict(fetch.family.generate))
        for place, own in ((folder, variant), (tiny, ""))
    ]
    one, other = (loading.load(recipe.base, recipe.generate, torch.float32, silent) for recipe in recipes)
    assert one.fingerprint == other.fingerprint
    weights = one.denoiser.state_dict()
    assert all(torch.equal(tensor, weights[key]) for key, tensor in other.denoiser.state_dict().items())
    assert one.parts.keys() == other.parts.keys()


LISTED: dict[str, tuple[dict[str, Any], str]] = {
    "another shard": ({"weight_map": {"x": "model-00003-of-00002.safetensors"}}, "lists 'model-00003-of-00002.safe"),
    "a file elsewhere": ({"weight_map": {"x": "../vae/diffusion_pytorch_model.safetensors"}}, "lists '../vae/diffus"),
    "nothing": ({}, "damaged: no weight_map"),
}


@pytest.mark.parametrize(("told", "said"), LISTED.values(), ids=LISTED.keys())
def test_index_that_lists_what_is_not_there(fetch: Fetch, copy: Path, told: dict[str, Any], said: str) -> None:
    """An index of shards that does not belong to them is named, before weights are loaded."""
    shards(copy / "text_encoder", "model")
    (copy / "text_encoder/model.safetensors.index.json").write_text(json.dumps(told), encoding="utf-8")
    line = fetch.refused(str(copy))
    assert line.startswith(str(copy / "text_encoder/model.safetensors.index.json"))
    assert said in line
