"""Models from where the recipe says: a hub, one of its mirrors, or a directory. Only safetensors are read.

What is missing, incomplete or pickled is a clear line, before gigabytes are loaded.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from avignon.errors import ModelError
from avignon.records import Voice
from avignon.workspace import digest, sha256_of

TIMEOUT = 8
"""Seconds to wait for a hub to say whether it has a model."""

_NOTES = {"_diffusers_version", "_name_or_path", "dtype", "torch_dtype", "transformers_version"}
"""Keys of a configuration that change nothing of what is computed."""


@dataclass(frozen=True)
class Wanted:
    """A model as a recipe asks for it."""

    model: str
    """A repository of the hub, or the absolute path of a directory."""
    mirrors: tuple[str, ...]
    revision: str
    field: str
    """The recipe's field that names the model, for messages; `mirrors_field` likewise."""
    mirrors_field: str


def find(wanted: Wanted, fetch: Callable[[str, bool], str], voice: Voice) -> tuple[str, Path]:
    """The model's name and its folder; a folder on this machine is named without the way to it.

    Args:
        wanted: what the recipe asks for.
        fetch: brings a repository into the hub's cache and gives its folder there; told not to go online, it makes do
            with what the cache holds.
        voice: hears of every repository that cannot be had.

    Raises:
        ModelError: neither the model nor a mirror can be had.
    """
    if Path(wanted.model).is_absolute():
        return Path(wanted.model).name, Path(wanted.model)
    failures = []
    for model in (wanted.model, *wanted.mirrors):
        try:
            return model, _fetched(model, wanted, fetch)
        except ModelError as failed:
            failures.append(str(failed))
            voice.note(f"not available: {failed}")
    raise ModelError("; ".join(failures))


def _fetched(model: str, wanted: Wanted, fetch: Callable[[str, bool], str]) -> Path:
    """The repository's files in the hub's cache, fetched where they are not there yet; HF_ENDPOINT names a mirror."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    where = f"{wanted.field} {model!r} (revision {wanted.revision!r})"
    offline = _why_offline(model, wanted, where, hub)
    try:
        return Path(fetch(model, bool(offline)))
    except GatedRepoError:
        raise ModelError(
            f"{where}: its owner asks for a login: accept the terms on {hub}/{model}, `hf auth login`"
        ) from None
    except Exception as failed:
        raise ModelError(
            f"{where}: could not be had from {hub} ({offline or first_line(failed)}); check the network, "
            f"set HF_ENDPOINT to a mirror, or name a local directory in {wanted.field}"
        ) from failed


def _why_offline(model: str, wanted: Wanted, where: str, hub: str) -> str:
    """Ask the hub once, with a short time-out, whether it has the model; why it cannot be asked, empty if it can.

    The client's own downloads wait for half a minute before they give up on a hub that is not there.
    """
    try:
        HfApi().model_info(model, revision=wanted.revision, timeout=TIMEOUT)
    except GatedRepoError:
        return ""
    except RevisionNotFoundError:
        raise ModelError(f"{where}: no such revision on {hub}") from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"{where}: not on {hub}; name a mirror in {wanted.mirrors_field}, or a local directory"
        ) from None
    except HFValidationError:
        raise ModelError(f"{where}: neither owner/name on a hub nor a path that begins with ./, / or ~") from None
    except Exception as failed:  # noqa: BLE001 - see `_fetched`
        return first_line(failed)
    return ""


def first_line(failed: Exception) -> str:
    """The first line of a library's complaint, which may have many."""
    lines = str(failed).strip().splitlines()
    return lines[0][:200] if lines else type(failed).__name__


def commit_of(folder: Path) -> str:
    """The hub's commit that a folder in its cache holds; empty for a folder from elsewhere."""
    found = re.search(r"/snapshots/([0-9a-f]{40})", folder.as_posix())
    return found[1] if found else ""


def weight_files(folder: Path, stem: str, variant: str = "") -> list[Path]:
    """The files that hold a variant's weights: the single one, the shards that an index lists, or both."""
    ending = f".{variant}" if variant else ""
    files = {folder / f"{stem}{ending}.safetensors"}
    for index in (f"{stem}.safetensors.index{ending}.json", f"{stem}{ending}.safetensors.index.json"):
        if (folder / index).is_file():
            shards = described(folder / index, "no weights").get("weight_map", {})
            files |= {folder / name for name in shards.values()}
    return sorted(file for file in files if file.is_file())


def fingerprint(folder: Path, stem: str, variant: str = "") -> str:
    """SHA-256 of a variant's weights: of the file, or over those of its shards."""
    hashes = [_sha256(file) for file in weight_files(folder, stem, variant)]
    return hashes[0] if len(hashes) == 1 else digest(hashes)


def part(folder: Path, stem: str = "", variant: str = "") -> str:
    """SHA-256 over all that is loaded of one part of a model: what its JSON files and its vocabulary say, its weights.

    Args:
        folder: the part's.
        stem: of its weights' files; empty where it has none.
        variant: of the weights.
    """
    files = [folder / "config.json"] if stem else sorted({*folder.glob("*.json"), *folder.glob("*.txt")})
    words = {file.name: _meaning(file) for file in files}
    return digest([words, fingerprint(folder, stem, variant) if stem else ""])


def _meaning(file: Path) -> object:
    """What a configuration says, without notes of which library wrote it; the hash of any other file."""
    try:
        told = json.loads(file.read_bytes()) if file.suffix == ".json" else None
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return _sha256(file)
    return {key: value for key, value in told.items() if key not in _NOTES}


def rounded(files: Sequence[Path]) -> str:
    """SHA-256 over the tensors of some files, by name, rounded to fp16: one for all precisions, shards and mirrors."""
    hashed = hashlib.sha256()
    with ExitStack() as stack:
        opened = [stack.enter_context(safetensors.safe_open(file, framework="pt")) for file in files]
        for key, file in sorted((key, place) for place, held in enumerate(opened) for key in held.keys()):  # noqa: SIM118
            tensor = opened[file].get_tensor(key)
            hashed.update(f"{key} {tuple(tensor.shape)}\n".encode())
            hashed.update(memoryview(tensor.half().contiguous().numpy()).cast("B"))
    return hashed.hexdigest()


def known_as(folder: Path, stem: str) -> frozenset[str]:
    """SHA-256 of each file of weights, of any variant: one of them is the name that avignon 0.1.0 gave the base."""
    return frozenset(_sha256(file) for file in folder.glob(f"{stem}*.safetensors"))


def _sha256(file: Path) -> str:
    """SHA-256 of a file. In the hub's cache a large file's name is its SHA-256: it need not be read."""
    name = file.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else sha256_of(file)


def described(path: Path, otherwise: str) -> dict[str, Any]:
    """A JSON file of a model, an object; `otherwise` says what the folder is not, where the file is missing."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{path.parent}: {otherwise}: {path.name} is missing") from None
    except (OSError, ValueError):
        told = None
    if not isinstance(told, dict):
        raise ModelError(f"{path}: damaged: not a JSON object")
    return told


def check_weights(folder: Path, stem: str, variant: str = "") -> None:
    """Name what a folder of weights lacks before a library fails in the middle of it."""
    if not (folder / "config.json").exists():
        raise ModelError(f"incomplete: {folder / 'config.json'} is missing")
    names = sorted(p.name for p in folder.iterdir())
    wanted = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
    sharded = f"{wanted}.index.json"
    if wanted in names or sharded in names or any(re.fullmatch(rf"{stem}.*-of-\d+\.safetensors", n) for n in names):
        return
    pickled = [name for name in names if name.endswith((".bin", ".ckpt", ".pt", ".pth"))]
    if pickled:
        raise ModelError(
            f"{folder}: holds only pickle files ({', '.join(pickled)}), which can run code when they are loaded; "
            "convert them to safetensors"
        )
    raise ModelError(f"incomplete: {folder / wanted} is missing")


def read(kind: Any, folder: Path, **how: Any) -> Any:
    """Load weights as a class of diffusers' or transformers'.

    The libraries fill in what a file lacks with random numbers; here that is an error.
    """
    try:
        model, info = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **how
        )
    except Exception as failed:
        raise ModelError(
            f"{folder}: damaged, or not of the shape that config.json says: {first_line(failed)}"
        ) from failed
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{folder}: incomplete: {len(missing)} tensors are missing, the first is {missing[0]}")
    return model
