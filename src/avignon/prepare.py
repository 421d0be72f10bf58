"""prepare: kept works → square training images with captions, in Hugging Face's ImageFolder layout.

Reads `works/ledger.csv` and the originals; writes `dataset/<artist>/metadata.jsonl` and its PNG files.
Layout: https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import hashlib
import json
from pathlib import Path
from textwrap import shorten

from avignon import imaging
from avignon.recipe import Artist, Recipe, stem
from avignon.records import Example, Verdict, Voice, plain
from avignon.workspace import Workspace, write_bytes, write_text

Row = dict[str, str]


def run(recipe: Recipe, space: Workspace, voice: Voice) -> None:
    """Crop, resample and caption every kept work."""
    kept = [row for row in space.read_ledger() if row["decision"] == Verdict.KEPT]
    written: set[Path] = set()
    pictures = 0
    for artist in recipe.artists:
        examples: list[Example] = []
        for row in (row for row in kept if row["artist"] == artist.name):
            examples += _examples(artist, row, recipe, space)
            pictures += 1
            voice.progress(pictures, len(kept), row["title"])
        write_text(space.metadata(artist.slug), "".join(_line(example) for example in examples))
        folder = space.metadata(artist.slug).parent
        written |= {space.metadata(artist.slug), *(folder / example.file for example in examples)}
    space.sweep(space.dataset, written)


def _examples(artist: Artist, row: Row, recipe: Recipe, space: Workspace) -> list[Example]:
    crops = imaging.crops(space.root / row["file"], recipe.prepare.crops, recipe.base.resolution)
    captions = captions_of(row, artist.trigger, recipe.prepare.captions)
    examples = []
    for place, (box, image) in enumerate(crops, start=1):
        content = imaging.png_bytes(image)
        name = f"{stem(row['object_id'])}-{place}.png"
        write_bytes(space.metadata(artist.slug).with_name(name), content)
        digest = hashlib.sha256(content).hexdigest()
        identity = (row["object_id"], row["accession"], row["title"], row["museum"])
        examples.append(Example(name, captions, digest, *identity, box))
    return examples


def captions_of(row: Row, trigger: str, count: int) -> tuple[str, ...]:
    """Up to `count` captions from the museum's own title, medium and terms; each holds the trigger phrase.

    Long texts are shortened: CLIP reads 77 tokens, and a trigger behind the last of them would not be learned.
    """
    title = shorten(row["title"], 120, placeholder=" …") or "untitled"
    medium = shorten(row["medium"].lower(), 60, placeholder=" …")
    kind = shorten((row["classification"] or "picture").lower(), 40, placeholder=" …")
    terms = shorten(", ".join(term.lower() for term in row["terms"].split("; ") if term), 80, placeholder=" …")
    candidates = [
        f"{title}, {trigger}",
        f"a {kind} of {terms}, {trigger}" if terms else f"a {kind}, {trigger}",
        f"{trigger}: {title}, {medium}" if medium else f"{trigger}: {title}",
        f"{title}, {terms}, {trigger}" if terms else f"{title}, a {kind}, {trigger}",
        f"{kind} {trigger}, {title}",
        f"{title}, {medium}, {trigger}" if medium else f"{title}, {kind}, {trigger}",
        f"{trigger}, {terms}" if terms else f"{trigger}, {kind}",
        f"{trigger}",
    ]
    return tuple(dict.fromkeys(candidates))[:count]


def _line(example: Example) -> str:
    fields = plain(example)
    return (
        json.dumps({"file_name": fields.pop("file"), "text": example.captions[0], **fields}, ensure_ascii=False) + "\n"
    )
