"""The recipe: what it accepts, how it fills itself in, and what it says of a slip."""

from pathlib import Path

import pytest

from avignon.core.errors import RecipeError
from avignon.core.naming import slug, stem
from avignon.museums.settings import FolderMuseum, NgaMuseum
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Generate, Train
from tests.support import scans
from tests.support.paths import RECIPES


def written(folder: Path, old: str = "", new: str = "", *, more: str = "") -> Path:
    """The small recipe with one thing changed."""
    path = scans.recipe(folder, more=more)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1) if old else text, encoding="utf-8")
    return path


def complaint(path: Path, *overrides: str) -> str:
    """What loading says, without the file's name that it must begin with."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_load(path: Path) -> None:
    """Every recipe in recipes/ passes the schema and is named after its file."""
    assert load_recipe(path).name == path.stem


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    """What a recipe leaves out has the documented value."""
    loaded = load_recipe(scans.recipe(tmp_path, name="Two Voices"))
    assert loaded.name == "two-voices"
    assert (loaded.collect.max_edge, loaded.prepare.captions, loaded.train.ranks.convolution) == (2048, 4, 2)
    assert [artist.rights for artist in loaded.artists] == ["open-only"] * 2
    assert loaded.adapter_names == ("ann-other", "bo-second")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_resolved_recipe_loads_as_the_same(path: Path, tmp_path: Path) -> None:
    """to_toml writes all there is: read back from anywhere, it is the same recipe."""
    loaded = load_recipe(path)
    again = tmp_path / "again.toml"
    again.write_text(loaded.to_toml(), encoding="utf-8")
    assert load_recipe(again) == loaded


def test_resolved_folder_recipe_loads_as_the_same(tmp_path: Path) -> None:
    """to_toml keeps a folder's place, an artist's own museum, decisions and hand-made stops."""
    (tmp_path / "words.csv").write_text("object_id,decision,reason\n", encoding="utf-8")
    path = written(
        tmp_path,
        'name = "Ann Other"\n',
        'name = "Ann Other"\nfind = ["A. Other", 12]\ndecisions = "words.csv"\nmuseum = { tables = "embedded" }\n',
        more='weights = [{ ann-other = 1.0 }, { bo-second = 0.5, far = 0.5 }]\nadapters = { far = "far" }\n',
    )
    loaded = load_recipe(path)
    (tmp_path / "elsewhere").mkdir()
    again = tmp_path / "elsewhere" / "again.toml"
    again.write_text(loaded.to_toml(), encoding="utf-8")
    assert load_recipe(again) == loaded
    assert loaded.museum_of(loaded.artists[0]) == NgaMuseum(tables="embedded")
    assert loaded.artists[0].find == ("A. Other", 12)


@pytest.mark.parametrize(
    ("old", "new", "place", "meant"),
    [
        ("seed = 7", "sede = 7", "sede", "seed"),
        ("[curate]", "[curatee]", "curatee", "curate"),
        ("pause = 0", "pauze = 0", "collect.pauze", "pause"),
        ("resolution = 64", "resolutoin = 64", "base.resolutoin", "resolution"),
        ('trigger = "in the style of bo', 'triger = "in the style of bo', "artists.1.triger", "trigger"),
        ('path = "scans"', 'pth = "scans"', "museum.pth", "path"),
        ("prompt =", "promt =", "generate.scenes.0.promt", "prompt"),
    ],
)
def test_unknown_key_suggests_the_nearest(tmp_path: Path, old: str, new: str, place: str, meant: str) -> None:
    """A misspelt key is an error at its place that names the key that was meant."""
    assert complaint(written(tmp_path, old, new)) == f"{place}: no such key; did you mean {meant!r}?"


def test_unknown_rank_and_artists_museum_suggest_the_nearest(tmp_path: Path) -> None:
    """The suggestion is made three tables deep, too."""
    path = written(tmp_path, more="\n[train]\nranks = { atention = 4 }\n")
    assert complaint(path) == "train.ranks.atention: no such key; did you mean 'attention'?"
    path = written(tmp_path, "[[artists]]\n", '[[artists]]\nmuseum = { tabels = "embedded" }\n')
    assert complaint(path) == "artists.0.museum.tabels: no such key; did you mean 'tables'?"


RENAMED = {
    f"{table}.{old}": new
    for table, section in (("generate", Generate), ("train", Train))
    for new, old in section.formerly.items()
}


def test_every_renamed_key_is_tried() -> None:
    """The keys of avignon 0.1.0 that have another name today."""
    assert RENAMED == {
        "generate.voices": "path_adapters",
        "generate.equal_voices": "equalize_adapters",
        "generate.guidance": "guidance_scale",
        "generate.steps": "num_inference_steps",
        "generate.during": "weight_schedule",
        "generate.blocks": "block_weights",
        "train.schedule": "lr_schedule",
        "train.watch_every": "eval_every",
        "train.held_out": "validation_works",
    }


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_renamed_key_names_the_new_one(tmp_path: Path, old: str, new: str) -> None:
    """A key of before is one line that names the key of today, in a file and in --set."""
    expected = f"{old}: this key is called {new!r} now"
    assert complaint(scans.recipe(tmp_path), f"{old}=1") == expected
    table, key = old.split(".")
    text = f"{key} = 1\n" if table == "generate" else f"[{table}]\n{key} = 1\n"
    assert complaint(scans.recipe(tmp_path, more=text)) == expected


def test_strange_key_lists_the_known(tmp_path: Path) -> None:
    """A key like no other gets the list of those allowed."""
    assert complaint(written(tmp_path, "pause = 0", "zzz = 0")).startswith(
        "collect.zzz: no such key; allowed are reserve, max_edge"
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=many", "seed: 'many' is not allowed; should be a valid integer"),
        ("artists.0.works=true", "artists.0.works: True is not allowed; should be a valid integer"),
        ("train.steps=1.5", "train.steps: 1.5 is not allowed; should be a valid integer"),
        ("train=5", "train: 5 is not allowed; should be a table"),
        ("museum=5", "museum: 5 is not allowed; should be a table"),
        ("artists.0.find=1401", "artists.0.find: 1401 is not allowed; should be a list"),
        (f"artists.0.find=[{10**40}]", f"artists.0.find.0: {10**40} is not allowed; should be"),
        ("artists={name=1}", "artists: {'name': 1} is not allowed; should be a list (a list of tables is written"),
        ("museum={kind='met'}", "museum: kind 'met' is not allowed; it is 'nga', 'folder'"),
        ("museum={kind='folder'}", "museum.path: field required"),
        (
            "train.lr_schedule=steep",
            "train.lr_schedule: 'steep' is not allowed; should be 'constant', 'cosine' or 'linear'",
        ),
        ("artists.0.works=0", "artists.0.works: 0 is not allowed; should be greater than or equal to 1"),
        ("seed=-1", "seed: -1 is not allowed; should be greater than or equal to 0"),
        ("base.model=''", "base.model: '' is not allowed; string should have at least 1 character"),
        ("base.resolution=100", "base.resolution: 100 is not allowed; should be a multiple of 8"),
        ("train.memory=10GB", "train.memory: '10GB' is not allowed; should be '', 'auto', '8GB', '12GB' or '24GB'"),
        ("train.learning_rate=nan", "train.learning_rate: nan is not allowed; should be a finite number"),
        ("train.max_grad_norm=inf", "train.max_grad_norm: inf is not allowed; should be a finite number"),
        ("name=../up", "name: '../up' is not allowed"),
        ("train.ranks={attention=0,projection=0,convolution=0}", "train.ranks: all ranks are 0"),
        ("train={batch=4,micro_batch=3}", "train: micro_batch 3 does not divide batch 4"),
        ("generate.scenes=[{prompt='a',image='no.jpg'}]", "generate.scenes.0.image: "),
        (
            "generate={num_inference_steps=4,scenes=[{prompt='a',image='no.jpg',image_strength=0.2}]}",
            "generate: scenes.0.image_strength: 0.2 of 4 steps is no step at all; at least 0.25 is needed",
        ),
        (
            "prepare={shape='buckets',crops=2}",
            "prepare: crops = 2 are of shape = 'square'; a bucket shows the whole work: set crops = 1",
        ),
        ("prepare.shape='round'", "prepare.shape: 'round' is not allowed; should be 'square' or 'buckets'"),
        ("generate.scenes=[{prompt='a',width=8}]", "generate.scenes.0.width: 8 pixels are too few; at least 32 are"),
        ("generate.scenes=[{prompt='a',height=4096}]", "generate.scenes.0.height: 4096 is not allowed; should be less"),
        ("generate.scenes=[{prompt='a',width=-64}]", "generate.scenes.0.width: -64 is not allowed; should be greater"),
        ("generate.scenes=[]", "generate.scenes: 0 given, at least 1 are needed"),
        (
            "generate.weights=[{ann-othr=1.0}]",
            "recipe: generate.weights: no adapter 'ann-othr'; there are ann-other, bo-",
        ),
        (
            "generate.path_adapters=['ann-othr']",
            "recipe: generate.path_adapters: no adapter 'ann-othr'; there are ann-other, bo-",
        ),
        (
            "generate.path_adapters=['ann-other','ann-other']",
            "recipe: generate.path_adapters: an adapter is named twice",
        ),
        (
            "generate.strengths={ann-othr=1.2}",
            "recipe: generate.strengths: no adapter 'ann-othr'; there are ann-other, bo-",
        ),
        (
            "generate.strengths={ann-other=0}",
            "generate.strengths.ann-other: 0 is not allowed; should be greater than 0",
        ),
        (
            "generate.weight_schedule={ann-othr=[1.0]}",
            "recipe: generate.weight_schedule: no adapter 'ann-othr'; there are ann-other, bo-",
        ),
        (
            "generate.block_weights={ann-other={centre=1.0}}",
            "recipe: generate.block_weights.ann-other: 'centre' is not a part of any base;",
        ),
        ("generate.adapters={ann-other='x'}", "recipe: generate.adapters: 'ann-other' is the name of an adapter that"),
    ],
)
def test_wrong_value_is_named(tmp_path: Path, override: str, expected: str) -> None:
    """A value of the wrong type or out of range is named with its place and with what is allowed."""
    assert complaint(scans.recipe(tmp_path), override).startswith(expected)


def test_joint_mode_has_one_adapter(tmp_path: Path) -> None:
    """In joint mode stops by hand may name the one adapter, and no artist's."""
    path = scans.recipe(tmp_path)
    assert load_recipe(path, ["train.mode=joint", "generate.weights=[{joint=1.0}]"]).adapter_names == ("joint",)
    assert "no adapter 'ann-other'" in complaint(path, "train.mode=joint", "generate.weights=[{ann-other=1.0}]")


@pytest.mark.parametrize("name", ["Ann Other", "ANN OTHER", "Ánn Öther", "ann-other"])
def test_two_artists_need_two_names(tmp_path: Path, name: str) -> None:
    """Names that give one folder are one name, whatever their case and accents."""
    text = complaint(written(tmp_path, '"Bo Second"', f'"{name}"'))
    assert text == f"artists: two artists have one name: 'Ann Other' and {name!r}"


def test_name_without_letters_is_refused(tmp_path: Path) -> None:
    """A name that leaves no letter for a folder says so."""
    assert "has no letter or digit" in complaint(written(tmp_path, '"Bo Second"', '"★"'))


def test_one_artist_is_no_dialogue(tmp_path: Path) -> None:
    """A recipe needs two artists."""
    path = scans.recipe(tmp_path)
    second = path.read_text(encoding="utf-8").index('[[artists]]\nname = "Bo')
    base = path.read_text(encoding="utf-8").index("[base]")
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:second] + text[base:], encoding="utf-8")
    assert complaint(path) == "artists: 1 given, at least 2 are needed"


def test_missing_recipe_lists_its_neighbours(tmp_path: Path) -> None:
    """A recipe that is not there is answered with those that are."""
    scans.recipe(tmp_path, name="pair")
    assert complaint(tmp_path / "pear.toml") == f"no such recipe; {tmp_path} has pair.toml"
    assert complaint(tmp_path / "no" / "pear.toml") == "no such recipe"


def test_unknown_name_lists_the_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without an ending that is neither a file nor a shipped recipe is answered with both."""
    monkeypatch.chdir(tmp_path)
    names = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))
    assert complaint(Path("dmeo")) == f"no such recipe; shipped by name are {names}"
    scans.recipe(tmp_path, name="pair")
    assert complaint(Path("dmeo")) == f"no such recipe; . has pair.toml; shipped by name are {names}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"seed = = 7\n", "not TOML: Invalid value (at line 1, column 8)"),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "not a recipe: not UTF-8 text"),
        (b"\x00\x01\x02", "not TOML: "),
        (b"", "artists: field required (and 2 more)"),
    ],
)
def test_file_that_is_no_recipe(tmp_path: Path, content: bytes, expected: str) -> None:
    """What is not TOML, not text or empty is said to be."""
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    assert complaint(path).startswith(expected)


def test_folder_is_no_recipe(tmp_path: Path) -> None:
    """A folder in place of a recipe is one clear line."""
    assert complaint(tmp_path) == "cannot be read: Is a directory"


def test_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    """A recipe saved by an editor that begins files with a byte order mark loads."""
    path = scans.recipe(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_recipe(path).seed == 7


@pytest.mark.parametrize(
    ("override", "check"),
    [
        ("train.steps=50", lambda r: r.train.steps == 50),
        ("artists.1.works=5", lambda r: (r.artists[0].works, r.artists[1].works) == (3, 5)),
        ('generate.scenes=[{prompt="a"},{prompt="b"}]', lambda r: [s.prompt for s in r.generate.scenes] == ["a", "b"]),
        ("generate.scenes.0.prompt=a red boat", lambda r: r.generate.scenes[0].prompt == "a red boat"),
        ("train.ranks.attention = 4", lambda r: (r.train.ranks.attention, r.train.ranks.projection) == (4, 16)),
        ("base.model=embedded", lambda r: r.base.model == "embedded"),
        ("museum.tables=embedded", None),
    ],
)
def test_set_overrides_one_value(tmp_path: Path, override: str, check: object) -> None:
    """--set changes one value, in tables and lists, by the same schema."""
    path = scans.recipe(tmp_path)
    if check is None:
        assert complaint(path, override).startswith("museum.tables: no such key")
    else:
        assert callable(check)
        assert check(load_recipe(path, [override]))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps", "--set train.steps: expected section.key=value"),
        ("=5", "--set =5: expected section.key=value"),
        ("seed.deep=5", "--set seed.deep=5: seed is a value, not a table"),
        ("artists.9.works=5", "--set artists.9.works=5: 9 is not a place in the list; allowed are 0 to 1"),
        ("artists.first.works=5", "--set artists.first.works=5: first is not a place in the list"),
        ("train.stepz=5", "train.stepz: no such key; did you mean 'steps'?"),
    ],
)
def test_bad_override_is_named(tmp_path: Path, override: str, expected: str) -> None:
    """A --set that leads nowhere is quoted with what is wrong."""
    assert complaint(scans.recipe(tmp_path), override).startswith(expected)


def test_relative_paths_start_at_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders, decisions, base and adapters are relative to the recipe, wherever avignon is called; ~ is home."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "words.csv").write_text("object_id,decision\n", encoding="utf-8")
    path = scans.recipe(tmp_path / "deep", more='adapters = { far = "../far" }\n')
    monkeypatch.chdir("/")
    loaded = load_recipe(
        path, ["artists.0.decisions=../words.csv", "base.model=./base", "artists.1.museum.path=~/mine"]
    )
    assert loaded.museum == FolderMuseum(kind="folder", path=str(tmp_path / "deep" / "scans"))
    assert loaded.artists[0].decisions == str(tmp_path / "words.csv")
    assert loaded.artists[1].museum == FolderMuseum(kind="folder", path=str(Path.home() / "mine"))
    assert loaded.base.model == str(tmp_path / "deep" / "base")
    assert loaded.generate.adapters == {"far": str(tmp_path / "far")}
    assert load_recipe(path, ["base.model=some/model"]).base.model == "some/model"


@pytest.mark.parametrize("path", ["", "  "])
def test_folder_without_a_path_is_refused(tmp_path: Path, path: str) -> None:
    """A folder's empty path is not the recipe's own directory."""
    text = complaint(scans.recipe(tmp_path), f"museum.path='{path}'")
    assert text.startswith(f"museum.path: {path!r} is not allowed; string should ")


def test_slug_and_stem() -> None:
    """Folders are plain ASCII; two object ids never share a file, however alike they look when plain."""
    assert slug("Léger, Fernand") == "leger-fernand"
    assert stem("30228") == "30228"
    ids = ["1943.13.1", "1943-13.1", "1943 13 1", "1943-13-1", "富士", "神奈川", "x" * 300, "x" * 301]
    assert len({stem(number) for number in ids}) == len(ids)
    assert all(stem(number) == slug(stem(number)) and len(stem(number)) < 100 for number in ids)
