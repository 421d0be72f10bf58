"""The only way to write a file, and to read one of the run's own.

Writes go to a temporary name, are flushed to disk, then renamed: a file is either whole or not there.
"""

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avignon.core.errors import WorkspaceError

SCRATCH = ".part-"
"""Begins the name of every file that is being written; the ending stays, because libraries judge files by it."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON-ready value, independent of key order."""
    return hashlib.sha256(json_text(value, sort_keys=True).encode()).hexdigest()


def json_text(value: Any, **how: Any) -> str:
    """A value as standard JSON (RFC 8259); a `ValueError` names the place of a number that is not finite."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, **how)
    except ValueError:
        raise ValueError(f"not a finite number at {'.'.join(_place_of_nan(value) or ['?'])}") from None


def _place_of_nan(value: Any) -> list[str] | None:
    """The keys that lead to the first number that is not finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else []
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    for key, each in value.items() if isinstance(value, Mapping) else ():
        if (rest := _place_of_nan(each)) is not None:
            return [str(key), *rest]
    return None


def json_value(text: str | bytes) -> Any:
    """The inverse of `json_text`; a `ValueError` also at NaN and Infinity, which Python's own reader accepts."""
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    """A number; one as large as 1e999 is infinite for Python."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number


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
    scratch = path.with_name(SCRATCH + path.name)
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
    """Write a whole JSON file or none; a `WorkspaceError` where a number is not finite."""
    try:
        write_text(path, json_text(value, indent=2) + "\n")
    except ValueError as wrong:
        raise WorkspaceError(f"{path}: not written: {wrong}; what was measured or read is damaged") from None


def read_json(path: Path, *needed: str) -> dict[str, Any]:
    """Read a JSON file of the run: an object with the keys that are needed, else a `WorkspaceError` says what to do."""
    (value,) = _parsed(path, [path.read_bytes()])
    if not (isinstance(value, dict) and value.keys() >= set(needed)):
        raise damaged(path)
    return value


def read_json_lines(path: Path) -> list[Any]:
    """The records of a JSON Lines file. Only a line feed ends one: titles may hold Unicode's other line ends."""
    return _parsed(path, path.read_bytes().splitlines())


def _parsed(path: Path, texts: list[bytes]) -> list[Any]:
    try:
        return [json_value(text) for text in texts]
    except ValueError:
        raise damaged(path) from None


def damaged(path: Path) -> WorkspaceError:
    """What to say of a file that is not what this program wrote."""
    return WorkspaceError(f"{path}: damaged; delete it (or its folder) and run again")
