"""Where adapters come from: files and folders, the user's own collection in the cache, repositories on a hub."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from avignon.adapters.formats import registry as formats
from avignon.core.errors import AdapterError
from avignon.core.events import Reporter
from avignon.core.files import CACHE_ELSEWHERE, SCRATCH, cache_folder, read_json, storing, write_json
from avignon.recipe.schema import adapter_place

if TYPE_CHECKING:
    from avignon.models.hub import Access

SOURCE_FILE = "source.json"
"""Beside an imported adapter: where it came from."""

LONGEST_NAME = 60
"""Letters of an import's name; each has four bytes at most, and a folder's name 255."""


def collection() -> Path:
    """Where imported adapters are kept, a folder each."""
    return cache_folder() / "adapters"


def imported() -> dict[str, Path]:
    """The folders of imported adapters, by name."""
    kept = (path.parent for path in sorted(collection().glob(f"*/{SOURCE_FILE}")))
    return {folder.name: folder for folder in kept if not folder.name.startswith(SCRATCH)}


def local(value: str) -> Path | None:
    """Where an adapter lies on this machine, by a recipe's `generate.adapters`; None where that is a hub.

    Raises:
        AdapterError: it is a name that nothing was imported by.
    """
    if Path(value).is_absolute():
        return Path(value)
    if "/" in value:
        return None
    if value not in (known := imported()):
        there = f"there are {', '.join(known)}" if known else "nothing was imported yet"
        raise AdapterError(f"{value}: neither a file nor an adapter that `avignon import` keeps; {there}")
    return known[value]


def place(value: str, reporter: Reporter, field: str = "generate.adapters") -> Path:
    """The same, with a repository fetched into the hub's cache; `field` is for messages.

    Raises:
        AdapterError: as by `local`; or the repository holds no adapter, or several.
        ModelError: the repository cannot be reached.
    """
    here = local(value)
    if here:
        return here
    from avignon.models import hub  # Here, because the hub's client takes long to load.

    repository, _, revision = value.partition("@")
    owner, name, *rest = repository.split("/", 2)
    wanted = hub.Wanted(f"{owner}/{name}", (), revision or "main", field, field)
    inside = rest[0] if rest else ""
    _, folder = hub.find(wanted, lambda model, access: _fetched(model, wanted.revision, inside, access), reporter)
    return folder / inside if inside else folder


def _fetched(model: str, revision: str, inside: str, access: "Access") -> Path:
    """Bring one adapter's files into the hub's cache; gives the repository's folder there."""
    from avignon.models import hub

    patterns = ["*.safetensors", "*.json", "README.md"]
    if not access.offline:
        names = hub.files_of(model, revision, access)
        weights = [name for name in names if name.endswith(".safetensors") and "/" not in name]
        own = {each.WEIGHTS_FILE for each in formats.FORMATS.values()}
        chosen = inside or next((name for name in weights if name in own), weights[0] if len(weights) == 1 else "")
        if chosen not in names:
            there = ", ".join(sorted(name for name in names if name.endswith(".safetensors"))) or "no safetensors file"
            raise AdapterError(f"{model}: which adapter is wanted? Name it as {model}/FILE; it holds {there}")
        patterns = [chosen, f"{chosen.rpartition('/')[0]}/*.json".lstrip("/")]
    return hub.download(model, revision, access, patterns)


def keep(value: str, name: str, reporter: Reporter) -> tuple[str, formats.AdapterFile]:
    """Copy an adapter from a file, a folder or a hub into the collection; gives its name there.

    What can be told without a base is checked first. An adapter of the same name is replaced by the same one only.

    Raises:
        AdapterError: it cannot be read, or the name is taken.
    """
    value = adapter_place(value, Path.cwd())
    found = place(value, reporter, "avignon import")
    name = name or _name_of(value, found)
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith(".") or len(name) > LONGEST_NAME:
        raise AdapterError(
            f"--as {name[: LONGEST_NAME + 1]!r}: a name has letters, digits, `_`, `-` and dots inside it, at most "
            f"{LONGEST_NAME} in all"
        )
    file = formats.find(found)
    formats.read_file(file)  # What its header does not tell, such as a damaged configuration.
    folder = collection() / name
    if folder.exists():
        known = formats.find(folder)
        if known.sha256 != file.sha256:
            raise AdapterError(f"{name}: another adapter has this name ({known.path}); choose one with --as")
        return name, known
    scratch = folder.with_name(SCRATCH + name)
    with storing(collection(), CACHE_ELSEWHERE):
        shutil.rmtree(scratch, ignore_errors=True)  # Of an import that was interrupted.
        scratch.mkdir(parents=True)
        _copy(file, scratch)
        write_json(scratch / SOURCE_FILE, {"source": value, "sha256": file.sha256})
        scratch.rename(folder)
    return name, formats.find(folder)


def _name_of(value: str, found: Path) -> str:
    """A file's stem, or the last name of a folder or a repository."""
    last = found.stem if found.is_file() else Path(value.partition("@")[0]).name
    return re.sub(r"[^\w.-]+", "-", last).strip(".-")[:LONGEST_NAME] or "adapter"


def _copy(file: formats.AdapterFile, folder: Path) -> None:
    """An adapter's files, and the card and the picture that lie beside it."""
    root = file.path.parent if len(file.paths) == 1 else file.path.parent.parent
    beside = [each for path in file.paths for each in path.parent.glob("*.json") if len(file.paths) > 1]
    if file.path.name in {each.WEIGHTS_FILE for each in formats.FORMATS.values()}:
        beside += [root / each for each in ("card.json", "README.md")]
    if file.format == "peft":  # Its scale.
        beside.append(root / "adapter_config.json")
    beside += [file.path.with_suffix(ending) for ending in (".json", ".png")]
    for path in dict.fromkeys([*file.paths, *filter(Path.is_file, beside)]):
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def source_of(folder: Path) -> str:
    """Where an imported adapter came from."""
    return str(read_json(folder / SOURCE_FILE).get("source", ""))
