"""Where adapters come from: files, the user's own collection, and a hub on 127.0.0.1."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from avignon.adapters import sources
from avignon.adapters.formats import registry
from avignon.core.errors import AdapterError, ModelError
from avignon.core.events import Reporter
from avignon.recipe.load import load_recipe
from tests.support.adapters import random_state, same
from tests.support.commands import told
from tests.support.hub import LocalHub, take_for_the_hub
from tests.support.runs import write_recipe

SILENT = Reporter("test", lambda _: None)
LAYERS = {"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (8, 768), "unet.conv_in": (8, 4, 3, 3)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def written(place: Path, name: str = "kohya", seed: int = 1) -> Path:
    """An adapter's file or folder."""
    place.parent.mkdir(parents=True, exist_ok=True)
    registry.FORMATS[name].write(place, random_state(LAYERS, seed), {"modelspec.author": "Ann"})
    return place


@pytest.mark.parametrize("form", ["kohya", "diffusers", "peft"])
def test_import_keeps_a_copy(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    """`avignon import` copies a file or a folder into the cache; `avignon adapters` lists it; recipes name it."""
    place = written(tmp_path / ("given" if form == "peft" else "given/My style (v2).safetensors"), form)
    code, out, _ = told(capsys, "import", place, "--as", "mine")
    assert code == 0
    assert out.startswith("mine: ")
    assert f"{form} format, LoRA, 2 of 2 layers read (unet 2), " in out
    assert "for Stable Diffusion 1.x" in out
    kept = sources.local("mine")
    assert kept == cache / "avignon" / "adapters" / "mine"
    assert same(registry.read(kept), registry.read(place))
    code, out, _ = told(capsys, "adapters")
    assert code == 0
    row = next(line for line in out.splitlines() if line.startswith("mine"))
    assert row.split()[1] == form
    assert "".join(str(place).split()) in "".join(out.split())  # A long path is folded.
    assert "Stable Diffusion 1.x" in row


def test_import_names_by_the_file(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --as the file's name is taken, without what a name has not."""
    code, out, _ = told(capsys, "import", written(tmp_path / "My style (v2).safetensors"))
    assert (code, out.partition(":")[0]) == (0, "My-style-v2")
    assert list(sources.imported()) == ["My-style-v2"]


def test_import_again(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same adapter again is no error; another one of the same name is, and the first is kept."""
    one, other = (
        written(tmp_path / "one" / "style.safetensors"),
        written(tmp_path / "two" / "style.safetensors", seed=2),
    )
    assert told(capsys, "import", one)[0] == told(capsys, "import", one)[0] == 0
    code, _, lines = told(capsys, "import", other)
    assert code == 2
    assert "style: another adapter has this name" in lines[-1]
    assert same(registry.read(cache / "avignon/adapters/style"), registry.read(one))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nowhere.safetensors",), "no such file"),
        (("notes.safetensors",), "damaged: "),
        (("style.safetensors", "--as", "../up"), "a name has letters, digits"),
        (("style.safetensors", "--as", "x" * 300), "at most 60 in all"),
        (("unknown",), "neither a file nor an adapter that `avignon import` keeps; nothing was imported yet"),
    ],
)
def test_import_that_fails(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    line: str,
) -> None:
    """What cannot be imported is one line, exit code 2, and leaves nothing in the cache."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "style.safetensors")
    (tmp_path / "notes.safetensors").write_text("no tensors", encoding="utf-8")
    code, _, lines = told(capsys, "import", *arguments)
    assert code == 2
    assert line in lines[-1]
    assert not list(cache.rglob("*.safetensors"))


def test_import_that_was_killed_is_no_import(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a killed import left is in no list, and the next import of the name replaces it."""
    left = cache / "avignon" / "adapters" / ".part-mine"
    left.mkdir(parents=True)
    (left / "source.json").write_text("{}", encoding="utf-8")
    assert sources.imported() == {}
    assert told(capsys, "import", written(tmp_path / "mine.safetensors"))[0] == 0
    assert list(sources.imported()) == ["mine"]
    assert not left.exists()


def test_recipe_names_an_adapter_in_each_way(tmp_path: Path, tiny_sd: Path, cache: Path) -> None:
    """A path that is there or looks like one is made absolute; names and repositories stay as they are."""
    written(tmp_path / "loras" / "style" / "a.safetensors")
    adapters = {
        "there": "loras/style",
        "file": "loras/style/a.safetensors",
        "dots": "./loras/none",
        "named": "mine",
        "hub": "ann/style@v1",
        "hub file": "ann/style/a.safetensors@v1",
    }
    path = write_recipe(tmp_path, tiny_sd, generate={"adapters": adapters})
    found = load_recipe(path).generate.adapters
    assert found == {
        "there": str(tmp_path / "loras/style"),
        "file": str(tmp_path / "loras/style/a.safetensors"),
        "dots": str(tmp_path / "loras/none"),
        "named": "mine",
        "hub": "ann/style@v1",
        "hub file": "ann/style/a.safetensors@v1",
    }


# A hub ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with a repository of one adapter, and one of two."""
    written(tmp_path / "one" / "style.safetensors")
    for seed, name in enumerate("ab"):
        written(tmp_path / "two" / f"{name}.safetensors", seed=seed)
    with LocalHub() as server:
        server.add("ann/style", tmp_path / "one")
        server.add("ann/both", tmp_path / "two")
        take_for_the_hub(server, tmp_path / "hub-cache", monkeypatch)
        yield server


def test_repository_with_one_adapter(hub: LocalHub, tmp_path: Path) -> None:
    """By its name, or with a branch or a commit."""
    expected = registry.read(tmp_path / "one")
    for value in ("ann/style", "ann/style@main", f"ann/style@{hub.commit('ann/style')}"):
        assert same(registry.read(sources.place(value, SILENT)), expected)


def test_repository_with_several(hub: LocalHub, tmp_path: Path) -> None:
    """The line asks for one and lists them; named by its file, it is fetched, and the other is not."""
    with pytest.raises(AdapterError, match=r"Name it as ann/both/FILE; it holds a\.safetensors, b\.safetensors"):
        sources.place("ann/both", SILENT)
    found = sources.place("ann/both/b.safetensors", SILENT)
    assert same(registry.read(found), registry.read(tmp_path / "two" / "b.safetensors"))
    assert not (found.parent / "a.safetensors").exists()


def test_hub_that_has_not_got_it(hub: LocalHub) -> None:
    """A repository or a revision that is not there is one line that names the field."""
    with pytest.raises(ModelError, match=r"generate\.adapters 'ann/none' \(revision 'main'\)"):
        sources.place("ann/none", SILENT)
    with pytest.raises(ModelError, match="no such revision"):
        sources.place("ann/style@v9", SILENT)


def test_import_from_the_hub(hub: LocalHub, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An import from a hub is kept whole, and needs the hub no more."""
    code, out, _ = told(capsys, "import", "ann/style@main")
    assert (code, out.partition(":")[0]) == (0, "style")
    hub.close()
    assert registry.find(sources.place("style", SILENT)).path.is_file()
