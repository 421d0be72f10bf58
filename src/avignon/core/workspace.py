"""The only module that knows how a run's files are laid out.

`manifest.json` is written last by each stage (inputs' hash → outputs' hashes), so a run killed anywhere goes on
from what is on disk.
"""

import csv
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avignon.core.errors import WorkspaceError
from avignon.core.files import SCRATCH, damaged, digest, read_json, read_json_lines, sha256_of, storing, write_json
from avignon.core.records import Found, found_from


class AdapterFolder:
    """The folder of one adapter: `adapters/<name>` of a run, or one from elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.card = root / "card.json"
        self.model_card = root / "README.md"
        self.metrics = root / "metrics.jsonl"
        self.tensorboard = root / "tensorboard"
        self.samples = root / "samples"
        self.checkpoints = root / "checkpoints"
        self.prior = self.checkpoints / "prior.safetensors"

    def shared(self, name: str, ending: str = ".safetensors") -> Path:
        """The adapter's one file for all other programs; with `.json` and `.png`, what they show beside it."""
        return self.root / f"{name}{ending}"


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
        return [found_from(fields) for fields in read_json_lines(self.found)] if self.found.exists() else []

    def read_ledger(self) -> list[dict[str, str]]:
        """The rows of the ledger, as `curate` wrote them."""
        with self.ledger.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def read_metadata(self, artist: str) -> list[dict[str, Any]]:
        """An artist's prepared images."""
        return read_json_lines(self.metadata(artist))

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
        """Copy a finished adapter, but for `leave`, to where no stage writes; its place is told apart by its card."""
        name = f"{self.relative(folder).replace('/', '-')}-{sha256_of(folder / 'card.json')[:8]}"
        place = self.root / "set-aside" / name
        scratch = place.with_name(SCRATCH + name)
        with storing(place):
            try:
                if not place.exists():
                    shutil.copytree(folder, scratch, ignore=lambda _, names: set(leave).intersection(names))
                    scratch.replace(place)
            except shutil.Error as failed:
                why = failed.args[0][0][-1]  # It gathers what each file was refused for, without numbers.
                raise WorkspaceError(f"{place}: cannot be written ({why}); free some space and run again") from failed
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return place

    def relative(self, path: Path) -> str:
        """A path as it is written inside the run's files: relative to the run, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of this folder; a `WorkspaceError` where one is using it, or it cannot be written."""
        from filelock import FileLock, Timeout  # Here, so that listing a museum's works does not wait for it.

        with storing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / ".lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                busy = f"{self.root}: in use by another avignon; wait for it or choose --workspace"
                raise WorkspaceError(busy) from None
        try:
            yield
        finally:
            lock.release()

    def hashes(self, paths: Iterable[Path]) -> dict[str, str]:
        """SHA-256 of every file among `paths`, by path; a scrap of a run that was killed is none."""
        files = sorted(path for path in paths if path.is_file() and not path.name.startswith(SCRATCH))
        return {self.relative(path): sha256_of(path) for path in files}

    def is_current(self, stage: str, inputs: str, outputs: Iterable[Path]) -> bool:
        """Whether the stage's outputs are there, whole, and made from these inputs."""
        entry = self._entries().get(stage)
        return entry is not None and entry["inputs"] == inputs and entry["outputs"] == self.hashes(outputs)

    def record(self, stage: str, inputs: str, outputs: Iterable[Path]) -> None:
        """Note that a stage is done: the last thing it writes."""
        entries = self._entries()
        entries[stage] = {"inputs": inputs, "outputs": self.hashes(outputs)}
        write_json(self.manifest, entries)

    def made_by(self, stage: str) -> str:
        """One hash over a finished stage's outputs; what its children depend on. Empty before it is done."""
        entry = self._entries().get(stage)
        return digest(entry["outputs"]) if entry else ""

    def _entries(self) -> dict[str, Any]:
        entries = read_json(self.manifest) if self.manifest.exists() else {}
        if not all(isinstance(each, dict) and each.keys() >= {"inputs", "outputs"} for each in entries.values()):
            raise damaged(self.manifest)
        return entries

    def sweep(self, folder: Path, keep: set[Path]) -> None:
        """Delete the files below `folder` that an earlier recipe left, and folders left empty."""
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_file() and path not in keep:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
