"""A folder that is ready for a model hub: the adapter in both formats, its card as README.md, pictures."""

import re
import shutil
from pathlib import Path

from avignon.adapters import cards, export
from avignon.adapters.export import Source
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.core import png
from avignon.core.errors import AdapterError
from avignon.core.files import SCRATCH, read_json, storing, write_text
from avignon.core.records import frame_from, series_from
from avignon.core.workspace import AdapterFolder, Workspace


def make(folder: Path, place: Path) -> None:
    """Make the folder of an adapter that was trained here; whole or not at all.

    Raises:
        AdapterError: it is missing or damaged, or nothing names the works that it learned from.
    """
    source = export.opened(place)
    card = source.card
    if card is None:
        raise AdapterError(f"{place}: no card.json of avignon's; only an adapter that was trained here names its works")
    if not card.works:
        raise AdapterError(
            f"{place}: its card, of an earlier version, does not name its works; run its recipe again, which trains "
            "nothing, or name it as RUN/adapters/NAME"
        )
    scratch = folder.with_name(SCRATCH + folder.name)
    with storing(folder, export.ELSEWHERE):
        try:
            shutil.rmtree(scratch, ignore_errors=True)  # Of a call that was killed.
            (scratch / "images").mkdir(parents=True)
            header, shared = source.header(), AdapterFolder(scratch)
            export.write(scratch / WEIGHTS_FILE, source.state, "diffusers", header)
            export.share(shared, source.name, source.state, header)
            pictures = {}
            for name, picture in _pictures(source).items():
                shutil.copyfile(picture, scratch / "images" / name)
                pictures[f"images/{name}"] = frame_from(png.png_fields(picture)).prompt
            if source.preview.exists():
                shutil.copyfile(source.preview, shared.shared(source.name, ".png"))
            write_text(shared.model_card, cards.model_card(card, pictures))
            scratch.replace(folder)
        except (KeyError, TypeError, ValueError, AttributeError) as wrong:
            raise AdapterError(f"{place}: its card is damaged: {type(wrong).__name__}: {wrong}") from wrong
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _pictures(source: Source) -> dict[str, Path]:
    """The preview, and those pictures of the run's series in which the adapter alone is on: each has its parameters."""
    found = {"preview.png": source.preview} if png.png_fields(source.preview) else {}
    run = Workspace(source.path.resolve().parent.parent.parent)
    if run.series_index.exists():
        for file, frame in series_from(read_json(run.series_index)).frames:
            is_its = frame.only == source.name and frame.adapters[source.name] == source.sha256
            if is_its and png.png_fields(run.series / file):
                found[re.sub(r"[^\w.-]", "-", file)] = run.series / file
    return found
