"""prepare: kept works → training images with captions, square or in buckets, in Hugging Face's ImageFolder layout.

Reads `works/ledger.csv` and the originals; writes `dataset/<artist>/metadata.jsonl` and its PNG files.
Layout: https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from avignon.core import imaging, png
from avignon.core.buckets import best
from avignon.core.events import Reporter
from avignon.core.files import json_text, write_bytes, write_text
from avignon.core.naming import stem
from avignon.core.prompts import shortened
from avignon.core.records import Example, brief, plain
from avignon.core.text import strip_markup
from avignon.core.workspace import Workspace
from avignon.curation import ledger
from avignon.curation.ledger import Row
from avignon.recipe.schema import Artist, Recipe


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Crop, resample and caption every kept work."""
    kept, buckets = ledger.kept(space), recipe.buckets
    written: set[Path] = set()
    pictures = 0
    for artist in recipe.artists:
        examples: list[Example] = []
        for row in (row for row in kept if row["artist"] == artist.name):
            examples += _examples(artist, row, buckets, recipe, space)
            pictures += 1
            reporter.progress(pictures, len(kept), row["title"])
        write_text(space.metadata(artist.slug), "".join(map(_line, examples)))
        folder = space.metadata(artist.slug).parent
        written |= {space.metadata(artist.slug), *(folder / example.file for example in examples)}
    space.sweep(space.dataset, written)


def _examples(
    artist: Artist, row: Row, buckets: Sequence[imaging.Size], recipe: Recipe, space: Workspace
) -> list[Example]:
    original = space.root / row["file"]
    size = imaging.size_of(original)
    bucket = best(size, buckets).bucket if buckets else None
    if bucket:
        crops = [imaging.middle(original, bucket)]
    else:
        crops = imaging.crops(original, recipe.prepare.crops, recipe.base.resolution)
    captions = captions_of(row, artist.trigger, recipe.prepare.captions)
    examples = []
    for place, (box, image) in enumerate(crops, start=1):
        content = png.png_bytes(image)
        name = f"{stem(row['object_id'])}-{place}.png"
        write_bytes(space.metadata(artist.slug).with_name(name), content)
        work = (row["object_id"], row["accession"], row["title"], row["museum"])
        rights = brief(row["rights"], row.get("condition", ""))
        sha256 = hashlib.sha256(content).hexdigest()
        examples.append(Example(name, captions, sha256, *work, box, rights, size, bucket))
    return examples


def captions_of(row: Row, trigger: str, count: int) -> tuple[str, ...]:
    """Up to `count` captions from the museum's own title, medium and terms; each holds the trigger phrase.

    Long texts are shortened, so that each caption says several things; `training.dataset` shortens further what does
    not fit into the base's text encoder.
    """
    title = _short(strip_markup(row["title"]), 120) or "untitled"
    medium = _short(strip_markup(row["medium"]).lower(), 60)
    kind = _short((row["classification"] or "picture").lower(), 40)
    terms = _short(", ".join(term.lower() for term in strip_markup(row["terms"]).split("; ") if term), 80)
    candidates = [
        f"{title}, {trigger}",
        f"a {kind} of {terms}, {trigger}" if terms else f"a {kind}, {trigger}",
        f"{trigger}: {title}, {medium}" if medium else f"{trigger}: {title}",
        f"{title}, {terms}, {trigger}" if terms else f"{title}, a {kind}, {trigger}",
        f"{kind} {trigger}, {title}",
        f"{title}, {medium or kind}, {trigger}",
        f"{trigger}, {terms or kind}",
        trigger,
    ]
    return tuple(dict.fromkeys(candidates))[:count]


def _short(text: str, width: int) -> str:
    """At most `width` characters, cut between words; within one only where the first is longer than all that."""
    whole = " ".join(text.split())
    short = shorten(whole, width, placeholder=" …")
    if short == "…" != whole:  # Titles without blanks: nothing would be left of them.
        return shortened(whole, lambda start: len(start) <= width - 2) + " …"
    return short


def _line(example: Example) -> str:
    fields = plain(example)
    if not example.bucket:
        del fields["bucket"]
    return json_text({"file_name": fields.pop("file"), "text": example.captions[0], **fields}) + "\n"
