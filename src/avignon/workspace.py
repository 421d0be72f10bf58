"""The only module that knows how a run's files are laid out, and the only way to write one.

Writes go to a temporary name, are flushed to disk, then renamed: a file is either whole or not there.
`manifest.json` is written last by each stage (inputs' hash → outputs' hashes), so a run killed anywhere goes on
from what is on disk.
"""

import csv
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avignon.errors import WorkspaceError
from avignon.records import Found, found_from

_SCRATCH = ".part-"
"""Begins the name of every file that is being written; the ending stays, because libraries judge files by it."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON-ready value, independent of key order."""
    return hashlib.sha256(json_text(value, sort_keys=True).encode()).hexdigest()


def json_text(value: Any, **how: Any) -> str:
    """A value as standard JSON, which has neither NaN nor Infinity (RFC 8259, section 6).

    Raises:
        ValueError: naming the place of a number that is not finite.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, **how)
    except ValueError:
        raise ValueError(f"not a finite number at {'.'.join(_place_of_nan(value) or ['?'])}") from None


def _place_of_nan(value: Any) -> list[str] | None:
    """The keys that lead to the first number that is not finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else []
    inside = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    )
    for key, each in inside:
        if (rest := _place_of_nan(each)) is not None:
            return [str(key), *rest]
    return None


def json_value(text: str | bytes) -> Any:
    """The inverse of `json_text`.

    Raises:
        ValueError: no JSON; Python's own reader would take NaN and Infinity for numbers.
    """
    return json.loads(text, parse_constant=_refused, parse_float=_finite)


def _refused(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _finite(text: str) -> float:
    """A number as large as 1e999 is infinite for Python."""
    number = float(text)
    return number if math.isfinite(number) else _refused(text)


ELSEWHERE = "choose another folder with --workspace"

CACHE_ELSEWHERE = "choose another cache with the environment variable XDG_CACHE_HOME"


def cache_folder() -> Path:
    """Where the museum's tables are kept between runs (XDG base directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avignon"


@contextmanager
def storing(path: Path, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Turn what the disk refuses into one clear line about `path`; `elsewhere` says how to choose another place."""
    reasons = {
        errno.ENOSPC: "the disk is full; what was done so far is kept: free some space and run again",
        errno.EDQUOT: "the disk quota is used up; what was done so far is kept: free some space and run again",
        errno.EROFS: f"the file system is read-only; {elsewhere}",
        errno.EACCES: f"permission denied; {elsewhere}",
        errno.EPERM: f"not permitted; {elsewhere}",
        errno.ENOTDIR: f"a file stands where a folder is needed; {elsewhere}",
        errno.EEXIST: f"a file stands where a folder is needed; {elsewhere}",
        errno.EISDIR: f"a folder stands where a file is needed; {elsewhere}",
        errno.ENAMETOOLONG: f"the name is too long; {elsewhere}",
        errno.EFBIG: "the file is larger than is allowed here",
    }
    try:
        yield
    except OSError as refused:
        if refused.errno not in reasons:
            raise
        raise WorkspaceError(f"{refused.filename or path}: {reasons[refused.errno]}") from refused


@contextmanager
def replacing(path: Path, elsewhere: str = ELSEWHERE) -> Iterator[Path]:
    """Give a temporary name beside `path`; when the block ends well, flush it and rename it to `path`."""
    scratch = path.with_name(_SCRATCH + path.name)
    with storing(path, elsewhere):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield scratch
            with scratch.open("r+b") as file:  # Windows flushes only what is open for writing.
                os.fsync(file.fileno())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or none."""
    with replacing(path) as scratch:
        scratch.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or none."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a whole JSON file or none.

    Raises:
        WorkspaceError: a number in it is not finite.
    """
    try:
        write_text(path, json_text(value, indent=2) + "\n")
    except ValueError as wrong:
        raise WorkspaceError(f"{path}: not written: {wrong}; what was measured or read is damaged") from None


def read_json(path: Path, *needed: str) -> dict[str, Any]:
    """Read a JSON file of the run, an object with the keys that are needed.

    Raises:
        WorkspaceError: where it is damaged, with what to do.
    """
    (told,) = _parsed(path, [path.read_bytes()])
    if not (isinstance(told, dict) and told.keys() >= set(needed)):
        raise _damaged(path)
    return told


def _json_lines(path: Path) -> list[Any]:
    """The records of a JSON Lines file. Only a line feed ends one: titles may hold Unicode's other line ends."""
    return _parsed(path, path.read_bytes().splitlines())


def _parsed(path: Path, texts: list[bytes]) -> list[Any]:
    try:
        return [json_value(text) for text in texts]
    except ValueError:
        raise _damaged(path) from None


def _damaged(path: Path) -> WorkspaceError:
    return WorkspaceError(f"{path}: damaged; delete it (or its folder) and run again")


class Workspace:
    """The folder of one run: `<workspace>/<recipe name>`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recipe = root / "recipe.toml"
        self.works = root / "works"
        self.found = self.works / "found.jsonl"
        self.ledger = self.works / "ledger.csv"
        self.contact = root / "contact"
        self.contact_sheet = self.contact / "sheet.jpg"
        self.contact_page = self.contact / "index.html"
        self.dataset = root / "dataset"
        self.adapters = root / "adapters"
        self.series = root / "series"
        self.series_index = self.series / "series.json"
        self.placing = self.series / "placing.json"
        self.report = root / "report.json"
        self.exhibition = root / "exhibition"
        self.page = self.exhibition / "index.html"
        self.films = self.exhibition / "films"
        self.manifest = root / "manifest.json"

    def read_found(self) -> list[Found]:
        """Every work that `collect` considered; empty before its first run."""
        return [found_from(fields) for fields in _json_lines(self.found)] if self.found.exists() else []

    def read_ledger(self) -> list[dict[str, str]]:
        """The rows of the ledger, as `curate` wrote them."""
        with self.ledger.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def read_metadata(self, artist: str) -> list[dict[str, Any]]:
        """An artist's prepared images."""
        return _json_lines(self.metadata(artist))

    def training_images(self, artist: str) -> list[Path]:
        """The files of an artist's prepared images."""
        return [self.metadata(artist).with_name(row["file_name"]) for row in self.read_metadata(artist)]

    def metadata(self, artist: str) -> Path:
        """The list of an artist's prepared images, as Hugging Face's ImageFolder reads it."""
        return self.dataset / artist / "metadata.jsonl"

    def adapter(self, name: str) -> Path:
        """The folder of a trained adapter."""
        return self.adapters / name

    def set_aside(self, folder: Path, leave: Collection[str] = ()) -> Path:
        """Copy a finished adapter, but for `leave`, to where no stage writes; its place is told apart by its card.

        Raises:
            WorkspaceError: the disk does not take it.
        """
        name = f"{self.relative(folder).replace('/', '-')}-{sha256_of(folder / 'card.json')[:8]}"
        place = self.root / "set-aside" / name
        scratch = place.with_name(_SCRATCH + name)
        with storing(place):
            try:
                if not place.exists():
                    shutil.copytree(folder, scratch, ignore=lambda _, names: set(leave).intersection(names))
                    scratch.replace(place)
            except shutil.Error as failed:  # It gathers what each file was refused for, without numbers.
                why = failed.args[0][0][-1]
                raise WorkspaceError(f"{place}: cannot be written ({why}); free some space and run again") from failed
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return place

    def relative(self, path: Path) -> str:
        """A path as it is written inside the run's files: relative to the run, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of this folder.

        Raises:
            WorkspaceError: the folder cannot be written, or another run is using it.
        """
        from filelock import FileLock, Timeout  # Here, so that listing a museum's works does not wait for it.

        with storing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / ".lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise WorkspaceError(
                    f"{self.root}: in use by another avignon; wait for it or choose --workspace"
                ) from None
        try:
            yield
        finally:
            lock.release()

    def outputs(self, stage: str) -> dict[str, str]:
        """SHA-256 of every file that a stage has written, by path."""
        return {self.relative(path): sha256_of(path) for path in sorted(self._files_of(stage))}

    def _files_of(self, stage: str) -> Iterator[Path]:
        folders: Mapping[str, Callable[[], Iterable[Path]]] = {
            "collect": lambda: (p for p in self.works.rglob("*") if p != self.ledger),
            "curate": lambda: (*self.works.glob(self.ledger.name), *self.contact.rglob("*")),
            "prepare": lambda: self.dataset.rglob("*"),
            "train": lambda: self.adapters.rglob("*"),
            "generate": lambda: self.series.rglob("*"),
            "evaluate": lambda: self.root.glob(self.report.name),
            "exhibit": lambda: self.exhibition.rglob("*"),
        }
        return (path for path in folders[stage]() if path.is_file() and not path.name.startswith(_SCRATCH))

    def is_current(self, stage: str, inputs: str) -> bool:
        """Whether the stage's outputs are there, whole, and made from these inputs."""
        entry = self._entries().get(stage)
        return entry is not None and entry["inputs"] == inputs and entry["outputs"] == self.outputs(stage)

    def record(self, stage: str, inputs: str) -> None:
        """Note that a stage is done: the last thing it writes."""
        entries = self._entries()
        entries[stage] = {"inputs": inputs, "outputs": self.outputs(stage)}
        write_json(self.manifest, entries)

    def made_by(self, stage: str) -> str:
        """One hash over a finished stage's outputs; what its children depend on. Empty before it is done."""
        entry = self._entries().get(stage)
        return digest(entry["outputs"]) if entry else ""

    def _entries(self) -> dict[str, Any]:
        entries = read_json(self.manifest) if self.manifest.exists() else {}
        if not all(isinstance(each, dict) and each.keys() >= {"inputs", "outputs"} for each in entries.values()):
            raise _damaged(self.manifest)
        return entries

    def sweep(self, folder: Path, keep: set[Path]) -> None:
        """Delete the files below `folder` that an earlier recipe left, and folders left empty."""
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_file() and path not in keep:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
