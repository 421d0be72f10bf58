"""The workspace: files are whole or not there, the disk's refusals are one line, and what is done is known."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from avignon.core.errors import WorkspaceError
from avignon.core.files import digest, read_json, replacing, sha256_of, storing, write_bytes, write_json, write_text
from avignon.core.records import Access, Found, Original, Rights, Work, plain
from avignon.core.workspace import Workspace
from avignon.pipeline import NAMES, STAGES


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    """A run with one original, its list and a ledger."""
    run = Workspace(tmp_path / "runs" / "pair")
    write_bytes(run.works / "ann" / "1.jpg", b"picture")
    write_text(run.found, "{}\n")
    write_text(run.ledger, "museum\n")
    return run


def outputs(space: Workspace, stage: str) -> Iterable[Path]:
    """What a stage writes, by the table of stages."""
    return STAGES[NAMES.index(stage)].outputs(space)


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    """A write that fails half-way leaves the old file as it was, and no scrap."""
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with pytest.raises(TypeError), replacing(path) as scratch, scratch.open("w") as file:
        file.writelines(["ne", None])  # type: ignore[list-item]  # breaks off after the first piece
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_scratch_keeps_the_ending(tmp_path: Path) -> None:
    """Libraries that judge a file by its ending can write to the temporary name."""
    with replacing(tmp_path / "a.safetensors") as scratch:
        assert scratch.suffix == ".safetensors"
        assert scratch.parent == tmp_path
        scratch.write_bytes(b"")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only; choose another folder with --workspace"),
        (errno.EACCES, "permission denied; choose another folder with --workspace"),
        (errno.EPERM, "not permitted; choose another folder with --workspace"),
        (errno.ENOTDIR, "a file stands where a folder is needed; choose another folder with --workspace"),
        (errno.EISDIR, "a folder stands where a file is needed; choose another folder with --workspace"),
        (errno.ENAMETOOLONG, "the name is too long; choose another folder with --workspace"),
    ],
)
def test_refusals_of_the_disk_are_one_line(tmp_path: Path, number: int, expected: str) -> None:
    """What the disk refuses names the place and what to do; the file that the system names comes first."""
    with pytest.raises(WorkspaceError, match=expected) as caught, storing(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"{tmp_path / 'a'}: ")
    with pytest.raises(WorkspaceError) as caught, storing(tmp_path / "a"):
        raise OSError(number, os.strerror(number), str(tmp_path / "b"))
    assert str(caught.value).startswith(f"{tmp_path / 'b'}: ")


def test_other_errors_pass(tmp_path: Path) -> None:
    """What is not the disk's refusal is not called one."""
    with pytest.raises(FileNotFoundError), storing(tmp_path):
        (tmp_path / "none").read_bytes()


def test_file_in_the_way(tmp_path: Path) -> None:
    """A file where the workspace or one of its folders should be is told by name."""
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(WorkspaceError, match=r"runs.*a file stands where a folder is needed"):
        write_text(tmp_path / "runs" / "pair" / "recipe.toml", "")
    with pytest.raises(WorkspaceError, match="a file stands"), Workspace(tmp_path / "runs").locked():
        pass
    (tmp_path / "ledger.csv" / "deep").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="a folder stands where a file is needed"):
        write_text(tmp_path / "ledger.csv", "")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte, where the tests may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if sys.platform != "linux" or not mount or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_full_disk(full_disk: Path) -> None:
    """On a disk that is really full the old file stays, no scrap is left, and the line says what to do."""
    path = full_disk / "runs" / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(
        WorkspaceError, match=r"a\.bin: the disk is full; what was done so far is kept: free some space"
    ):
        write_bytes(path, bytes(2_000_000))
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_second_run_is_kept_out(space: Workspace) -> None:
    """While one run holds the folder another is refused at once; after it, even after a failure, the next may."""
    other = (
        "import sys; from pathlib import Path; from avignon.core.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])).locked(): print('in')"
    )
    command = [sys.executable, "-c", other, str(space.root)]
    with space.locked():
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert f"WorkspaceError: {space.root}: in use by another avignon; wait for it or choose" in run.stderr
    with pytest.raises(FileNotFoundError), space.locked():
        (space.root / "none").read_bytes()
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == "in\n"


def test_finished_stage_is_current(space: Workspace) -> None:
    """A stage is up to date once it is recorded, for its inputs alone; the ledger is not collect's."""
    assert not space.is_current("collect", "inputs", outputs(space, "collect"))
    space.record("collect", "inputs", outputs(space, "collect"))
    assert space.is_current("collect", "inputs", outputs(space, "collect"))
    assert not space.is_current("collect", "others", outputs(space, "collect"))
    assert not space.is_current("curate", "inputs", outputs(space, "curate"))
    write_text(space.ledger, "changed")
    assert space.is_current("collect", "inputs", outputs(space, "collect"))


@pytest.mark.parametrize("harm", ["change", "delete", "add", "rename"])
def test_changed_outputs_are_not_current(space: Workspace, harm: str) -> None:
    """An output that was changed, has vanished, came in addition or moved makes the stage due again."""
    space.record("collect", "inputs", outputs(space, "collect"))
    picture = space.works / "ann" / "1.jpg"
    match harm:
        case "change":
            picture.write_bytes(b"Picture")
        case "delete":
            picture.unlink()
        case "add":
            (space.works / "ann" / "2.jpg").write_bytes(b"other")
        case "rename":
            picture.rename(picture.with_name("3.jpg"))
    assert not space.is_current("collect", "inputs", outputs(space, "collect"))


def test_scraps_of_a_killed_run_do_not_count(space: Workspace) -> None:
    """A temporary file that a killed run left is no output, and the next sweep takes it."""
    space.record("collect", "inputs", outputs(space, "collect"))
    scrap = space.works / "ann" / ".part-2.jpg"
    scrap.write_bytes(b"half")
    assert space.is_current("collect", "inputs", outputs(space, "collect"))
    space.sweep(space.works, {space.found, space.ledger, space.works / "ann" / "1.jpg"})
    assert not scrap.exists()


def test_children_depend_on_outputs(space: Workspace) -> None:
    """What a stage hands on changes with its outputs, and is nothing before it is done."""
    assert space.made_by("collect") == ""
    space.record("collect", "one", outputs(space, "collect"))
    first = space.made_by("collect")
    space.record("collect", "two", outputs(space, "collect"))
    assert space.made_by("collect") == first
    write_bytes(space.works / "ann" / "1.jpg", b"another")
    space.record("collect", "two", outputs(space, "collect"))
    assert space.made_by("collect") not in ("", first)


def test_sweep_takes_what_was_left(space: Workspace) -> None:
    """Files of an earlier recipe go, with folders left empty; what is to be kept stays."""
    for place in ("old/9.jpg", "old/deep/8.jpg", "ann/2.jpg"):
        write_bytes(space.works / place, b"old")
    kept = {space.found, space.ledger, space.works / "ann" / "1.jpg"}
    space.sweep(space.works, kept)
    assert {path for path in space.works.rglob("*") if path.is_file()} == kept
    assert not (space.works / "old").exists()


def test_damaged_files_say_what_to_do(space: Workspace) -> None:
    """A damaged file of the run is named with what to do, not a riddle from a parser."""
    for path, read in ((space.manifest, lambda: space.made_by("collect")), (space.found, space.read_found)):
        path.write_bytes(b'{"half": ')
        with pytest.raises(WorkspaceError) as caught:
            read()
        assert str(caught.value) == f"{path}: damaged; delete it (or its folder) and run again"


def test_found_works_come_back(space: Workspace) -> None:
    """Every work comes back as it was written, whatever line ends and signs its texts hold."""
    rights = Rights(Access.OPEN, "openaccess=1")
    work = Work("m", "1", "Ann", "a\u2028b\u0085c\x0bd “é” 富士\r\n", "u", rights, terms=("sea", "boat"), medium="\x1c")
    found = [Found(work), Found(work, original=Original("works/ann/1.jpg", 4, 3, "00", True, "u/full"))]
    lines = [json.dumps(plain(each), ensure_ascii=False) for each in found]
    write_text(space.found, "".join(f"{line}\n" for line in lines))
    assert space.read_found() == found
    space.found.unlink()
    assert space.read_found() == []


def test_hashes(tmp_path: Path) -> None:
    """A value's hash does not depend on the order of keys; a file's is its bytes' SHA-256."""
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
    write_json(tmp_path / "a.json", {"é": 1})
    assert read_json(tmp_path / "a.json") == {"é": 1}
    write_bytes(tmp_path / "b", b"")
    assert sha256_of(tmp_path / "b") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
