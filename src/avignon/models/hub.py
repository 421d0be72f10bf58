"""Models from where the recipe says: a hub, one of its mirrors, or a directory. Only safetensors are read."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from huggingface_hub import HfApi, errors, get_token, snapshot_download

from avignon.core.errors import InputError, ModelError
from avignon.core.events import Reporter
from avignon.core.files import digest, sha256_of
from avignon.models import cache, finite

TIMEOUT = 8
"""Seconds to wait for a hub to say whether it has a model."""

WORDS = ("json", "txt", "jinja")
"""Endings of the names of files beside weights: configurations, a tokenizer's vocabulary, its chat template."""

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


@dataclass(frozen=True)
class Access:
    """How a repository can be had."""

    offline: str = ""
    """Why only from the cache; empty where the hub has it."""
    token: bool | None = None
    """False where the client's own token is not to be sent, because the hub refuses it."""
    gone: bool = False
    """Whether the hub has no such repository, or shows it to nobody without a login."""


Fetch = Callable[[str, Access], Path]
"""Brings a repository into the hub's cache and gives its folder there; offline, it makes do with what is there."""


def download(model: str, revision: str, access: Access, patterns: Sequence[str]) -> Path:
    """Bring a repository's files of these patterns into the hub's cache; gives its folder there."""
    how: dict[str, Any] = {"token": access.token, "local_files_only": bool(access.offline)}
    return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns), **how))


def files_of(model: str, revision: str, access: Access) -> list[str]:
    """Names of all files of a repository."""
    return list(HfApi().list_repo_files(model, revision=revision, token=access.token))


def check_listed(model: str, weights: Mapping[str, str], revision: str, variant: str, access: Access) -> None:
    """Name what a repository on the hub lacks of a base's weights: stems of files' names by folder.

    Raises:
        ModelError: naming the file.
    """
    names = [Path(name) for name in files_of(model, revision, access)]
    for part, stem in weights.items():
        within = [name.name for name in names if name.parent == Path(part)]
        check_names(within, Path(model, part), stem, variant, "base.variant")


def find(wanted: Wanted, fetch: Fetch, reporter: Reporter) -> tuple[str, Path]:
    """The model's name and its folder; a folder on this machine is named without the way to it.

    Raises:
        ModelError: neither the model nor a mirror is available.
    """
    if Path(wanted.model).is_absolute():
        return Path(wanted.model).name, Path(wanted.model)
    failures = []
    for model in (wanted.model, *wanted.mirrors):
        try:
            return model, _fetched(model, wanted, fetch, reporter)
        except ModelError as failed:
            failures.append(str(failed))
            reporter.note(f"not available: {failed}")
    raise ModelError("; ".join(failures))


def _fetched(model: str, wanted: Wanted, fetch: Fetch, reporter: Reporter) -> Path:
    """The repository's files in the hub's cache, fetched where they are not there yet; HF_ENDPOINT names a mirror."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    where = f"{wanted.field} {model!r} (revision {wanted.revision!r})"
    access = _access(model, wanted, where, hub)
    if access.token is False:
        reporter.warn(
            f"{hub} refuses the token of this machine (HF_TOKEN or `hf auth login`): it is expired, mistyped or lacks "
            f"permission; going on without it for {model}"
        )
    known = cache.blobs(model)
    try:
        folder = fetch(model, access)
    except InputError:
        raise
    except errors.GatedRepoError:
        raise ModelError(
            f"{where}: its owner asks for a login: accept the terms on {hub}/{model}, `hf auth login`"
        ) from None
    except Exception as failed:
        why = (
            f"could not be had from {hub} ({access.offline or first_line(failed)}); check the network, set HF_ENDPOINT "
            f"to a mirror, or name a local directory in {wanted.field}"
        )
        if access.gone:
            why = f"{access.offline}; name a mirror in {wanted.mirrors_field}, or a local directory"
        raise ModelError(f"{where}: {why}") from failed
    finally:
        cache.check_arrived(cache.blobs(model) - known, f"{where}: {{}} arrived damaged from {hub}")
    if access.gone:
        reporter.warn(f"{where}: {access.offline}; going on with the copy in the cache")
    return folder


def _access(model: str, wanted: Wanted, where: str, hub: str, token: bool | None = None) -> Access:
    """Ask the hub once, with a short time-out, whether it has the model; once more without a token that it refuses.

    The client's own downloads wait for half a minute before they give up on a hub that is not there.
    """
    try:
        HfApi().model_info(model, revision=wanted.revision, timeout=TIMEOUT, token=token)
    except errors.GatedRepoError:
        return Access(token=token)
    except errors.RevisionNotFoundError:
        raise ModelError(f"{where}: no such revision on {hub}") from None
    except errors.HFValidationError:
        raise ModelError(f"{where}: neither owner/name on a hub nor a path that begins with ./, / or ~") from None
    except Exception as failed:  # noqa: BLE001 - the client raises many kinds, and those of its own libraries
        status = failed.response.status_code if isinstance(failed, errors.HfHubHTTPError) else 0
        is_refusal = status in (401, 403) or isinstance(failed, UnicodeError)  # A letter in a token that HTTP lacks.
        if is_refusal and token is None and get_token():
            return _access(model, wanted, where, hub, token=False)
        if isinstance(failed, errors.RepositoryNotFoundError):
            refused = ", or not to be seen without the token, which is refused" if token is False else ""
            return Access(f"not on {hub}{refused}", token, gone=True)
        return Access(first_line(failed))
    return Access(token=token)


def first_line(failed: Exception) -> str:
    """The first line of a library's complaint, which may have many."""
    lines = str(failed).strip().splitlines()
    return lines[0][:200] if lines else type(failed).__name__


def commit_of(folder: Path) -> str:
    """The hub's commit that a folder in its cache holds; empty for a folder from elsewhere."""
    found = re.search(r"/snapshots/([0-9a-f]{40})", folder.as_posix())
    return found[1] if found else ""


def weight_files(folder: Path, stem: str, variant: str = "") -> list[Path]:
    """The files that hold a variant's weights: the single one, the shards that an index lists, or both.

    Raises:
        ModelError: an index is damaged, or lists what is not in the folder.
    """
    single, *indexes = (folder / name for name in _names(stem, variant))
    files = {single} if single.is_file() else set()
    for index in filter(Path.is_file, indexes):
        shards = described(index, "no weights").get("weight_map")
        if not isinstance(shards, dict):
            raise ModelError(f"{index}: damaged: no weight_map")
        for name in sorted(map(str, shards.values())):
            if Path(name).name != name or not (folder / name).is_file():
                raise ModelError(f"{index}: incomplete: it lists {name!r}, which is no file beside it")
            files.add(folder / name)
    return sorted(files)


def _names(stem: str, variant: str) -> tuple[str, str, str]:
    """Of a variant's single file, and of an index of its shards in both spellings."""
    ending = f".{variant}" if variant else ""
    single = f"{stem}{ending}.safetensors"
    return single, f"{stem}.safetensors.index{ending}.json", f"{single}.index.json"


def fingerprint(folder: Path, stem: str, variant: str = "") -> str:
    """SHA-256 of a variant's weights: of the file, or over those of its shards."""
    hashes = [_sha256(file) for file in weight_files(folder, stem, variant)]
    return hashes[0] if len(hashes) == 1 else digest(hashes)


def part(folder: Path, stem: str = "", variant: str = "") -> str:
    """SHA-256 over all that is loaded of one part of a model: what its JSON files and its vocabulary say, its weights.

    `stem` is that of its weights' files; empty where it has none.
    """
    files = (
        [folder / "config.json"] if stem else sorted(path for ending in WORDS for path in folder.glob(f"*.{ending}"))
    )
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
    with ExitStack() as stack:
        opened = [stack.enter_context(safetensors.safe_open(file, framework="pt")) for file in files]
        keys = sorted((key, place) for place, held in enumerate(opened) for key in held.keys())  # noqa: SIM118
        return rounded_tensors((key, opened[file].get_tensor(key)) for key, file in keys)


def rounded_tensors(tensors: Iterable[tuple[str, Any]]) -> str:
    """The same of tensors with their names, which come in the order of these."""
    hashed = hashlib.sha256()
    for key, tensor in tensors:
        hashed.update(f"{key} {tuple(tensor.shape)}\n".encode())
        hashed.update(memoryview(tensor.half().contiguous().numpy()).cast("B"))
    return hashed.hexdigest()


def known_as(folder: Path, stem: str) -> frozenset[str]:
    """SHA-256 of each file of weights, of any variant: one of them is the name that avignon 0.1.0 gave the base."""
    return frozenset(_sha256(file) for file in folder.glob(f"{stem}*.safetensors"))


def _sha256(file: Path) -> str:
    """SHA-256 of a file. In the hub's cache a large file's name is its SHA-256: it need not be read."""
    name = file.resolve().name
    return name if re.fullmatch(cache.SHA256, name) else sha256_of(file)


def described(path: Path, otherwise: str) -> dict[str, Any]:
    """A JSON file of a model, an object; `otherwise` says what the folder is not, where the file is missing.

    Infinity is taken: DPM-Solver writes it for a limit that it has not.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{path.parent}: {otherwise}: {path.name} is missing") from None
    except (OSError, ValueError):
        told = None
    if not isinstance(told, dict):
        raise ModelError(f"{path}: damaged: not a JSON object")
    return told


def check_weights(folder: Path, stem: str, variant: str = "", field: str = "") -> None:
    """Name what a folder of weights lacks before a library fails in the middle of it.

    `stem` begins the names of the files, `variant` is the one wanted of several, such as `fp16`, `field` the recipe's
    in which it is chosen.
    """
    if not (folder / "config.json").exists():
        raise ModelError(f"incomplete: {folder / 'config.json'} is missing")
    check_names([p.name for p in folder.iterdir()], folder, stem, variant, field)
    weight_files(folder, stem, variant)


def by_variant(names: Collection[str], stem: str) -> dict[str, list[str]]:
    """Of some files, those that hold weights, in order, by their variant."""
    shard = r"(?:-\d+-of-\d+)?"
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        if match := re.fullmatch(rf"{stem}{shard}(?:\.(\w+?))?{shard}\.safetensors", name):
            found.setdefault(match[1] or "", []).append(name)
    return found


def check_names(names: Collection[str], folder: Path, stem: str, variant: str = "", field: str = "") -> None:
    """The same by the names of a folder's files, which may still be on a hub."""
    there = by_variant(names, stem)
    if variant in there:
        _check_shards(names, folder, _names(stem, variant), there[variant][0])
        return
    pickled = [name for name in sorted(names) if name.endswith((".bin", ".ckpt", ".pt", ".pth"))]
    if pickled and not there:
        raise ModelError(
            f"{folder}: holds only pickle files ({', '.join(pickled)}), which can run code when they are loaded; "
            "convert them to safetensors"
        )
    found = f", there is {', '.join(files[-1] for files in there.values())}" if there else ""
    choice = "fp16" if "fp16" in there else ""
    advice = f'; set {field} = "{choice}"' if field and choice in there else ""
    wanted = folder / (f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors")
    raise ModelError(f"incomplete: {wanted} is missing{found}{advice}")


def _check_shards(names: Collection[str], folder: Path, own: tuple[str, str, str], one: str) -> None:
    """Name what is missing beside `one` of a variant's files, a shard or their index; `own` are its `_names`."""
    found = re.search(r"-(\d+)-of-(\d+)", one)
    if own[0] in names or not found:
        return
    digits = len(found[1])
    shards = [one.replace(found[0], f"-{k:0{digits}}-of-{found[2]}") for k in range(1, int(found[2]) + 1)]
    missing = [name for name in shards if name not in names]
    if not missing and not any(index in names for index in own[1:]):
        missing = [own[1]]
    if missing:
        raise ModelError(f"incomplete: {folder / missing[0]} is missing, there is {one}")


def read(kind: Any, folder: Path, *, dtype: Any = None, **how: Any) -> Any:
    """Load weights as a class of diffusers' or transformers', in a precision, or in that of the files.

    In that of the files they are mapped, and take no memory of their own. The libraries fill in
    what a file lacks with random numbers; here that is an error, as is NaN or infinity.
    """
    try:
        how["dtype"] = dtype or _dtype_in(folder, how.get("variant"))
        model, info = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **how
        )
    except Exception as failed:
        why = first_line(failed)
        raise ModelError(f"{folder}: damaged, or not of the shape that config.json says: {why}") from failed
    # A batch norm's count of the batches that it was trained on is not used.
    missing = sorted(key for key in info["missing_keys"] if not key.endswith(".num_batches_tracked"))
    if missing:
        raise ModelError(f"{folder}: incomplete: {len(missing)} tensors are missing, the first is {missing[0]}")
    if bad := finite.first_bad(model.named_parameters()) or finite.first_bad(model.named_buffers()):
        raise ModelError(
            finite.first_bad_in(sorted(folder.glob("*.safetensors")))
            or f"{folder}: {bad} overflows in {model.dtype}; set precision to fp32 or bf16"
        )
    return model


def _dtype_in(folder: Path, variant: str | None) -> Any:
    names = [path.name for path in folder.iterdir()]
    there = by_variant(names, "diffusion_pytorch_model") | by_variant(names, "model")
    return dtype_of(folder / name for name in there[variant or ""])


def dtype_of(files: Iterable[Path]) -> Any:
    """The precision of weights, by the headers of their files: fp32 if there is more than one."""
    import torch  # Here, because looking for a base needs none.

    kinds: set[str] = set()
    for file in files:
        with safetensors.safe_open(file, framework="pt") as opened:
            kinds |= {opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118 - it is no dict
    half = {"F16": torch.float16, "BF16": torch.bfloat16}
    floating = [kind for kind in kinds if "F" in kind]
    return half.get(floating[0], torch.float32) if len(floating) == 1 else torch.float32


def upload(folder: Path, repository: str) -> str:
    """Upload a folder to the hub as a model, with the user's own token; gives its address.

    Raises:
        ModelError: the hub refuses it or cannot be reached, in one line.
    """
    place = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        api = HfApi()
        api.create_repo(repository, repo_type="model", exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Adapter, model card and pictures")
    except errors.HFValidationError:
        raise ModelError(f"--upload {repository!r}: not OWNER/NAME") from None
    except Exception as failed:
        status = failed.response.status_code if isinstance(failed, errors.HfHubHTTPError) else 0
        advice = {
            401: "it knows no valid token of yours: `hf auth login`, or set HF_TOKEN",
            403: "your token may not write there: make one with the role `write`, and check OWNER",
        }.get(status, first_line(failed))
        raise ModelError(
            f"--upload {repository!r}: {place} refuses it ({advice}); {folder} is ready all the same"
        ) from failed
    return f"{place}/{repository}"
