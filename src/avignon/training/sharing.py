"""What a finished adapter's folder holds for other programs: one file, the JSON beside it, and a picture."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from avignon.adapters import cards, export, headers, modelspec
from avignon.adapters.formats import registry as formats
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.adapters.weights import Mix
from avignon.core import imaging, png
from avignon.core.errors import ModelError
from avignon.core.events import Reporter
from avignon.core.files import read_json, sha256_of, write_bytes
from avignon.core.records import Card, Frame, frame_record, series_from
from avignon.core.workspace import AdapterFolder, Workspace
from avignon.generation import png_info
from avignon.generation.sampler import ImageSampler
from avignon.generation.series import SeriesPlan
from avignon.models.base import DiffusionBase
from avignon.models.runtime import OUT_OF_MEMORY, is_out_of_memory
from avignon.recipe.schema import Artist, Recipe
from avignon.training.setup import RuntimeConfig


def preview(name: str, artists: Iterable[Artist], base: DiffusionBase, recipe: Recipe, runtime: RuntimeConfig) -> Frame:
    """The picture to show of an adapter: the first scene with its trigger, by it alone at weight 1."""
    frame = SeriesPlan(recipe, base.identity, {name: ""}, runtime.precision).frame(1, "preview", Mix({name: 1.0}))
    prompt = ", ".join((frame.prompt, *(artist.trigger for artist in artists)))
    return replace(frame, prompt=prompt, to_seed=-1, seed_place=0.0, source=None, block_weights={})


def paint(
    card: Card, folder: AdapterFolder, frame: Frame, base: DiffusionBase, sampler: ImageSampler, reporter: Reporter
) -> None:
    """Paint the preview, with the adapter that is on the base alone.

    An adapter without a preview is finished as well: what goes wrong here is a warning.
    """
    weights = folder.root / WEIGHTS_FILE
    frame = replace(frame, adapters={card.name: sha256_of(weights)})
    try:
        # Blocks compiled for training would be compiled again for passes without gradients.
        with torch.compiler.set_stance("force_eager"):
            (image,) = sampler.paint([frame])
    except (ModelError, *OUT_OF_MEMORY) as failed:
        if not isinstance(failed, ModelError) and not is_out_of_memory(failed):
            raise
        reporter.warn(f"{card.name}: no preview: {' '.join(str(failed).split())[:200]}")
        folder.shared(card.name, ".png").unlink(missing_ok=True)
        return
    finally:
        base.offload()
    told = png_info.text(frame, base.model, {card.name: headers.content_hash(weights)})
    content = png.png_bytes(image, told, frame_record(frame), cards.notice_from(card.rights))
    write_bytes(folder.shared(card.name, ".png"), content)


def share(card: Card, folder: AdapterFolder, captions: Mapping[str, Iterable[str]], space: Workspace) -> None:
    """Write the file for other programs and the JSON beside it, from the adapter's own file.

    Where no picture is there, one of the series is taken in which the adapter alone is on, as in a run of before.
    """
    weights, preview = folder.root / WEIGHTS_FILE, folder.shared(card.name, ".png")
    if not preview.exists() and (picture := _in_series(card.name, sha256_of(weights), space)):
        write_bytes(preview, picture.read_bytes())
    thumbnail = ""
    if preview.exists():
        rights = cards.notice_from(card.rights)
        if png.png_fields(preview) is not None and png.png_rights(preview) != rights:
            write_bytes(preview, png.with_rights(preview, rights))
        thumbnail = modelspec.thumbnail(imaging.load(preview))
    state = formats.read(weights)
    export.share(folder, card.name, state, modelspec.of_card(card, export.network(state), captions, thumbnail))


def _in_series(name: str, weights: str, space: Workspace) -> Path | None:
    """The first picture of the run's series that is by this adapter alone."""
    if not space.series_index.exists():
        return None
    for file, frame in series_from(read_json(space.series_index)).frames:
        if frame.only == name and frame.adapters[name] == weights and (space.series / file).exists():
            return space.series / file
    return None
