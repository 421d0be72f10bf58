"""The user's view of bad input, through the command line: exit code 2, and one line that says what to change."""

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from avignon.core.workspace import Workspace
from tests.support import images, scans
from tests.support.commands import avignon, python, told
from tests.support.museum import Fault, LocalMuseum, fill
from tests.support.pairs import PAIR

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def walls(tmp_path: Path) -> Path:
    """Three sound pictures for each of two artists, and the index that says so."""
    return scans.scans(tmp_path / "scans")


def complaint(capsys: Captured, recipe: Path, *more: object) -> str:
    """What running a recipe as far as prepare says: exactly one line, with exit code 2."""
    command = ("run", recipe, "--workspace", recipe.parent / "runs", "--until", "prepare", "--quiet", *more)
    code, lines = avignon(capsys, *command)
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith("avignon: ")
    return lines[0].removeprefix("avignon: ")


def ledger(folder: Path) -> dict[str, tuple[str, str]]:
    """Decision and reason of every work."""
    rows = Workspace(folder / "runs" / "pair").read_ledger()
    return {row["object_id"]: (row["decision"], row["reason"]) for row in rows}


def test_good_input_is_quiet(capsys: Captured, walls: Path, tmp_path: Path) -> None:
    """The recipe that the others here spoil is sound: exit code 0 and nothing on stderr."""
    command = ("run", scans.recipe(tmp_path), "--workspace", tmp_path / "runs", "--until", "prepare")
    assert avignon(capsys, *command) == (0, [])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seed = 7", "seed = ", "not TOML: Invalid value (at line 2, column 8)"),
        ("seed = 7", "sede = 7", "sede: no such key; did you mean 'seed'?"),
        ("works = 3", 'works = "three"', "artists.0.works: 'three' is not allowed; should be a valid integer"),
        ("works = 3", "works = 0", "artists.0.works: 0 is not allowed; should be greater than or equal to 1"),
        ("Bo Second", "Ann Other", "artists: two artists have one name: 'Ann Other' and 'Ann Other'"),
        ("resolution = 64", "", "base.resolution: field required"),
        (
            "resolution = 64",
            'resolution = 64\nquantize = "int4"',
            "base.quantize: 'int4' is not allowed; should be '', 'int8' or 'nf4'",
        ),
    ],
)
def test_bad_recipe(capsys: Captured, walls: Path, tmp_path: Path, old: str, new: str, expected: str) -> None:
    """A slip in the recipe is told with file, field, value and what is allowed; nothing is written."""
    recipe = scans.recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace(old, new, 1))
    assert complaint(capsys, recipe) == f"{recipe}: {expected}"
    assert not (tmp_path / "runs").exists()


def test_scene_that_begins_from_no_picture(capsys: Captured, walls: Path, tmp_path: Path) -> None:
    """A scene's image that is no picture is told before anything is collected."""
    (tmp_path / "boat.jpg").write_text("no picture")
    text = complaint(capsys, scans.recipe(tmp_path), "--set", "generate.scenes=[{prompt='a boat',image='boat.jpg'}]")
    assert text.startswith(f"{tmp_path / 'boat.jpg'}: not a picture; allowed are JPEG")
    assert not (tmp_path / "runs").exists()


def test_missing_recipe(capsys: Captured, tmp_path: Path) -> None:
    """A recipe that is not there is told with those that are."""
    scans.recipe(tmp_path)
    assert (
        complaint(capsys, tmp_path / "pear.toml")
        == f"{tmp_path / 'pear.toml'}: no such recipe; {tmp_path} has pair.toml"
    )


def test_folder_without_images(capsys: Captured, tmp_path: Path) -> None:
    """A museum folder without a picture, or that is not there, is told by its path."""
    recipe = scans.recipe(tmp_path)
    assert complaint(capsys, recipe) == f"{tmp_path / 'scans'}: no such folder"
    (tmp_path / "scans").mkdir()
    assert complaint(capsys, recipe).startswith(f"{tmp_path / 'scans'}: no pictures here; allowed are .jpg")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda text: text + b"none.png,Ann Other,,CC0\n", "line 8: file: 'none.png' does not exist"),
        (
            lambda text: text.replace(b"file", b"name", 1),
            "column file is missing; there are: name, artist, title, rights",
        ),
        (lambda text: text.replace(b"Work 1 of Ann", b'"Work 1 of Ann', 1), "line 3: not CSV: "),
        (lambda text: text.replace(b"Work 1 of Ann", "Wörk 1 of Ann".encode("latin-1"), 1), "line 3: not UTF-8 ("),
    ],
)
def test_bad_index(
    capsys: Captured, walls: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], expected: str
) -> None:
    """A slip in the index is told by file, line and what is wrong."""
    index = walls / "index.csv"
    index.write_bytes(spoil(index.read_bytes()))
    assert complaint(capsys, scans.recipe(tmp_path)).startswith(f"{index}: {expected}")


def test_works_lists_what_is_not_used(capsys: Captured, walls: Path, tmp_path: Path) -> None:
    """`works` shows every picture of a folder with its reason, and says what it passed over (issue 14, C2)."""
    (walls / "scan.psd").write_bytes(b"8BPS")
    (walls / "README.txt").write_text("mine")
    code, out, errors = told(capsys, "works", "Ann Other", "--folder", walls, "--csv")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("scan,") and ".psd is not read; export" in line]
    assert errors == [f"avignon: warning: {walls}: passed over, as no pictures: 1 × .txt"]


NOT_UTF8 = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="this system keeps all names as UTF-8")


def misnamed(folder: Path, source: Path) -> Path:
    """A copy of a picture under a name that is not UTF-8."""
    path = Path(os.fsdecode(bytes(folder) + b"/Gem\xe4lde.png"))
    shutil.copy(source, path)
    return path


@NOT_UTF8
def test_picture_whose_name_is_not_utf8(capsys: Captured, walls: Path, tmp_path: Path) -> None:
    """The whole run goes on, and the picture is in the ledger with the reason; a keep does not bring it back."""
    misnamed(walls, walls / "ann" / "work-0.png")
    recipe = scans.recipe(tmp_path)
    (tmp_path / "words.csv").write_text("object_id,decision\ngem-xe4lde,keep\n")
    more = ("--set", "artists.0.decisions=words.csv", "--set", "artists.0.rights=acknowledge-restricted")
    command = ("run", recipe, "--workspace", tmp_path / "runs", "--until", "prepare", *more)
    assert avignon(capsys, *command) == (0, [])
    decision, reason = ledger(tmp_path)["gem-xe4lde"]
    assert (decision, reason.partition(";")[0]) == ("rejected", "name is not UTF-8")
    listed = ("works", "Ann Other", "--folder", walls, "--decisions", tmp_path / "list.csv")
    assert avignon(capsys, *listed, "--json") == (0, [])
    assert r"Gem\xe4lde" in (tmp_path / "list.csv").read_text(encoding="utf-8")


@NOT_UTF8
def test_image_by_hand_whose_name_is_not_utf8(capsys: Captured, walls: Path, tmp_path: Path) -> None:
    """A file beside the others in a folder of originals is told as not used, to programs, too."""
    (tmp_path / "hand").mkdir()
    misnamed(tmp_path / "hand", walls / "ann" / "work-0.png")
    command = ("collect", scans.recipe(tmp_path), "--workspace", tmp_path / "runs", "--set", "artists.0.originals=hand")
    code, out, _ = told(capsys, *command, "--json")
    assert code == 0
    assert r"Gem\\xe4lde.png is not used: no work of Ann Other has this object id" in out


@NOT_UTF8
@pytest.mark.parametrize("command", ["works", "collect"])
def test_folder_whose_name_is_not_utf8(capsys: Captured, walls: Path, tmp_path: Path, command: str) -> None:
    """A folder of scans, or a recipe's own, whose name is not UTF-8 is one line."""
    place = Path(os.fsdecode(bytes(tmp_path) + b"/Gem\xe4lde"))
    place.mkdir()
    scans.scans(place / "scans" if command == "collect" else place)
    arguments = {"works": ("Ann Other", "--folder", place, "--csv"), "collect": (place / "pair.toml",)}[command]
    if command == "collect":
        scans.recipe(place)
    code, lines = avignon(capsys, command, *arguments)
    assert (code, len(lines)) == (2, 1)
    assert r"Gem\xe4lde" in lines[0]
    assert "name that is not UTF-8" in lines[0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--between", "1900", "1800"), "between: 1900 comes after 1800; the first year comes first: 1800 1900"),
        (("--folder", ""), "--folder is empty; a directory is needed, `.` for this one"),
        (("--folder", " "), "--folder is empty; a directory is needed, `.` for this one"),
    ],
)
def test_options_of_works(capsys: Captured, walls: Path, options: tuple[str, ...], expected: str) -> None:
    """Years in the wrong order, and a folder of no name, are a line instead of no works, or those of this directory."""
    assert avignon(capsys, "works", "Ann Other", "--folder", walls, *options) == (2, [f"avignon: {expected}"])


def test_unknown_artist(capsys: Captured, walls: Path, tmp_path: Path) -> None:
    """An artist whom the folder does not have is told with the nearest."""
    text = complaint(capsys, scans.recipe(tmp_path), "--set", "artists.0.find=['Ann Othr']")
    assert text == f"{walls}: no artist 'Ann Othr'; nearest are Ann Other"


def test_fewer_works_than_wanted(capsys: Captured, walls: Path, tmp_path: Path) -> None:
    """Fewer works than wanted is told with both numbers."""
    text = complaint(capsys, scans.recipe(tmp_path, works=4))
    assert text.startswith("Ann Other: 4 works are wanted, 3 of 3 can be used; lower works in the recipe, or see ")


AWKWARD = {
    "truncated_jpeg": "truncated or damaged: ",
    "not_an_image": "not a picture; allowed are JPEG, PNG, TIFF, WEBP, GIF",
    "empty": "not a picture; allowed are JPEG, PNG, TIFF, WEBP, GIF",
    "one_pixel": "too small: 1×1 pixels, at least 64 on the short side are needed",
    "bomb": "40000×40000 pixels; at most 200,000,000 are decoded",
    "animated_gif": "animated or of several pages (3); one picture is needed",
    "cmyk_jpeg": "",
    "sixteen_bit_png": "",
    "rgba_png": "",
    "palette_png": "",
    "exif_rotated_jpeg": "",
    "wide_gamut": "",
    "broken_profile": "",
}


@pytest.mark.parametrize(("kind", "reason"), AWKWARD.items())
def test_awkward_pictures(capsys: Captured, walls: Path, tmp_path: Path, kind: str, reason: str) -> None:
    """A usable picture passes; an unusable one is in the ledger with the reason, and where it was needed is told."""
    path = images.AWKWARD[kind](walls)
    with (walls / "index.csv").open("a") as index:
        index.write(f"{path.name},Ann Other,Odd,public domain\n")
    recipe = scans.recipe(tmp_path)
    if reason:
        text = complaint(capsys, recipe, "--set", "artists.0.works=4")
        assert text.startswith("Ann Other: 4 works are wanted, 3 of 4 can be used (1 × ")
        assert f"first: 'Odd': {reason}" in text
        assert ledger(tmp_path)[path.stem][0] == "rejected"
        assert ledger(tmp_path)[path.stem][1].startswith(reason)
    else:
        command = ("run", recipe, "--workspace", tmp_path / "runs", "--until", "prepare", "--set", "artists.0.works=4")
        assert avignon(capsys, *command) == (0, [])
        assert ledger(tmp_path)[path.stem] == ("kept", "")


def test_all_artists_of_awkward_scans_are_covered() -> None:
    """Every maker of awkward pictures is tried above."""
    assert AWKWARD.keys() == images.AWKWARD.keys()


def test_workspace_that_is_a_file(capsys: Captured, walls: Path, tmp_path: Path) -> None:
    """A file where the workspace should be is told, and is not touched."""
    (tmp_path / "runs").write_text("mine")
    text = complaint(capsys, scans.recipe(tmp_path))
    assert text.startswith(f"{tmp_path / 'runs'}")
    assert text.endswith(": a file stands where a folder is needed; choose another folder with --workspace")
    assert (tmp_path / "runs").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.EROFS, "the file system is read-only; choose another"), (errno.ENOSPC, "the disk is full; what was done")],
)
def test_disk_that_refuses(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, walls: Path, tmp_path: Path, number: int, expected: str
) -> None:
    """A disk that is full or read-only in the middle of the work is told; when it takes files again, work goes on."""
    whole = Path.write_bytes

    def refuse(path: Path, content: bytes) -> int:
        if path.suffix == ".png":
            raise OSError(number, os.strerror(number))
        return whole(path, content)

    recipe = scans.recipe(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", refuse)
        text = complaint(capsys, recipe)
    assert text.startswith(f"{tmp_path / 'runs'}")
    assert f".png: {expected}" in text
    assert not list((tmp_path / "runs").rglob(".part-*"))
    command = ("run", recipe, "--workspace", tmp_path / "runs", "--until", "prepare")
    assert avignon(capsys, *command) == (0, [])


@pytest.fixture
def museums(tmp_path: Path) -> tuple[LocalMuseum, Path]:
    """A stocked museum and a recipe on it."""
    server = LocalMuseum()
    fill(server)
    path = tmp_path / "pair.toml"
    path.write_text(PAIR.format(tables=f"{server.url}/data"))
    return server, path


def test_no_network(capsys: Captured, museums: tuple[LocalMuseum, Path]) -> None:
    """Without a network there is one line: what could not be had, and what to do."""
    server, recipe = museums
    server.offline = True
    text = complaint(capsys, recipe)
    assert text.startswith(f"{server.url}/data/objects.csv: could not be reached (")
    assert text.endswith("; check the network or the address, then run again")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"constituentid,name\n1,A\n", "column preferreddisplayname, forwarddisplayname, "),
        (b'constituentid,"name\n1,A\n', "line 1: not CSV: "),
        (b"constituentid,n\xe4me\n", "line 1: not UTF-8 ("),
    ],
)
def test_bad_table(capsys: Captured, museums: tuple[LocalMuseum, Path], body: bytes, expected: str) -> None:
    """A museum's table that is not what it should be is told by its address."""
    server, recipe = museums
    with server:
        server.fault("constituents", Fault(body=body))
        assert complaint(capsys, recipe).startswith(f"{server.url}/data/constituents.csv: {expected}")


def test_restricted_works(capsys: Captured, museums: tuple[LocalMuseum, Path]) -> None:
    """The rights gate is one line of the same kind, and `works` shows the same rights beforehand."""
    server, recipe = museums
    with server:
        find = ("--set", "artists.1.find=[1783]", "--set", "artists.1.name=Pablo Picasso")
        assert "Pablo Picasso: 3 works are wanted, but only 0 of 17 images are open" in complaint(capsys, recipe, *find)
        assert avignon(capsys, "works", "Pablo Picasso", "--tables", f"{server.url}/data", "--json")[0] == 0
        code, lines = avignon(capsys, "works", "Pablo Picaso", "--tables", f"{server.url}/data")
        assert (code, lines) == (
            2,
            [f"avignon: {server.url}/data: no artist 'Pablo Picaso'; nearest are Pablo Picasso"],
        )


@pytest.mark.parametrize("arguments", [("works", ""), ("works", "Ann", "--folder", "/no/such"), ("works", "\n")])
def test_works_of_nobody(capsys: Captured, arguments: tuple[str, ...]) -> None:
    """`works` without a name, or in a folder that is not there, is one line."""
    code, lines = avignon(capsys, *arguments)
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("avignon: ")


def test_line_breaks_stay_in_one_line(capsys: Captured, tmp_path: Path) -> None:
    """A name with a line break in it does not make two lines of an error."""
    assert "no such recipe" in complaint(capsys, tmp_path / "a\nb.toml")


@pytest.mark.slow_but_one
@pytest.mark.parametrize("command", ["--help", "recipes", "new", "works", "collect", "curate", "prepare"])
def test_torch_is_not_loaded(walls: Path, tmp_path: Path, command: str) -> None:
    """Nothing up to prepare loads torch, diffusers or transformers."""
    recipe = (scans.recipe(tmp_path), "--workspace", tmp_path / "runs")
    arguments = {
        "--help": (),
        "recipes": (),
        "new": (tmp_path / "new.toml", "--artists", "Ann Other", "Bo Second"),
        "works": ("Ann Other", "--folder", walls),
    }.get(command, recipe)
    heavy = ("torch", "diffusers", "transformers", "peft", "accelerate")
    code = (
        "import sys\nfrom avignon.cli.main import main\ntry:\n    main()\n"
        f"finally:\n    print('loaded:', [name for name in {heavy} if name in sys.modules])"
    )
    run = python("-c", code, command, *arguments)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[-1] == "loaded: []"
