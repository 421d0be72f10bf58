"""What an adapter says of itself: `card.json` for programs, `README.md` (a Hugging Face model card) for people."""

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from avignon.core.about import program_link
from avignon.core.files import read_json
from avignon.core.records import Access, Card, Verdict, brief
from avignon.core.text import strip_markup
from avignon.core.workspace import AdapterFolder
from avignon.models.names import UNKNOWN_LICENCE
from avignon.models.registry import FAMILIES
from avignon.museums.registry import museum_name
from avignon.recipe.schema import Artist

Row = Mapping[str, str]

MODEL_CARD = """\
---
library_name: diffusers
base_model: {model}
tags: [lora, {tag}, text-to-image, avignon]
instance_prompt: {prompt}
---
# {name}

A {method} adapter trained by {program} on {works} works ({images} images)
of {artists}. What it makes are pictures by a trained model. None of them is a work of {artists}.

- Trigger phrase: `{trigger}`
- Base: `{model}`, revision `{revision}`, UNet SHA-256 `{fingerprint}`; its licence: {licence}
- {parameters:,} trained parameters, {share:.3%} of the UNet's {unet_parameters:,}; ranks {ranks}
- {steps} steps, final loss {loss} (mean of the last 50 steps)

## Rights

{statement}

## Training works

| accession | title | date | rights | source |
| --- | --- | --- | --- | --- |
{table}

## Use

```python
pipeline.load_lora_weights("path/to/this/folder")
```
"""


def works_of(artists: Sequence[str], ledger: Sequence[Row]) -> list[Row]:
    """The ledger's kept works of these artists."""
    return [row for row in ledger if row["artist"] in artists and row["decision"] == Verdict.KEPT]


def rights_of(artists: Sequence[Artist], ledger: Sequence[Row]) -> dict[str, Any]:
    """How many works under which rights and conditions, what was acknowledged, and the sentence that follows."""
    works = works_of([artist.name for artist in artists], ledger)
    counts: dict[str, Any] = {access.value: sum(row["rights"] == access for row in works) for access in Access}
    conditions = Counter(row["condition"] for row in works if row.get("condition"))
    acknowledged = [artist.name for artist in artists if artist.rights == "acknowledge-restricted"]
    statement = _statement(len(works), len(works) - counts[Access.OPEN], acknowledged, conditions)
    return {**counts, "conditions": dict(conditions), "acknowledged": acknowledged, "statement": statement}


def _statement(works: int, closed: int, acknowledged: Sequence[str], conditions: Mapping[str, int]) -> str:
    if closed:
        said = (
            f"{closed} of {works} training images are not known to be free to use. Whoever made this adapter "
            f"stated that they may use those of {' and '.join(acknowledged)}; that does not pass to you. "
            "Ask before you share it."
        )
    elif conditions:
        said = f"All {works} training images are open, some with a condition."
    else:
        said = f"All {works} training images are open: released by their museum, or in the public domain."
    if not conditions:
        return said
    listed = "; ".join(f"{condition}: {count}" for condition, count in conditions.items())
    # An adapter and its pictures name no makers; the card's table does.
    return (
        f"{said} {sum(conditions.values())} of {works} training images have a condition ({listed}). Meet it where you "
        "share this adapter or what it makes; the adapter's card names the works and their makers."
    )


def notice(folders: Iterable[Path]) -> str:
    """What a picture must say of its adapters, by their folders; empty where all works are open without a condition."""
    notices = []
    for folder in folders:
        path = AdapterFolder(folder).card
        try:
            notices.append(notice_from((read_json(path) if path.exists() else {})["rights"]))
        except (KeyError, TypeError):  # No card, or another program's, which says nothing of rights.
            notices.append(f"It is not known what the adapter {folder.name} learned from.")
    return " ".join(dict.fromkeys(filter(None, notices)))


def notice_from(rights: Mapping[str, Any]) -> str:
    """What `rights_of` has to say wherever a picture goes; empty where all works are open without a condition."""
    closed = sum(rights[access] for access in Access if access != Access.OPEN)
    return str(rights["statement"]) if closed or rights.get("conditions") else ""


def environment(device: str, precision: str) -> dict[str, str]:
    """The versions and the machine that a result depends on."""
    names = ("avignon", "torch", "diffusers", "peft", "transformers", "accelerate")
    libraries = {name: version(name) for name in names}
    return {**libraries, "python": platform.python_version(), "device": device, "precision": precision}


def model_card(card: Card, ledger: Sequence[Row]) -> str:
    """The card as a page in Markdown, with every training work named."""
    facts = {**card.dataset, **card.trainable, **card.metrics, **card.base}
    triggers = ", ".join(card.triggers)
    loss = facts["final_loss"]
    ranks = ", ".join(f"{kind} {rank}" for kind, rank in card.trainable["ranks"].items())
    return MODEL_CARD.format(
        **{"licence": UNKNOWN_LICENCE, **facts, "ranks": ranks, "revision": card.base["revision"] or "-"},
        name=card.name,
        tag=FAMILIES[card.base.get("family", "sd")].tag,  # Cards of earlier versions do not say.
        program=program_link(),
        artists=" and ".join(card.artists),
        trigger=triggers,
        loss="unknown" if loss is None else f"{loss:.4f}",
        prompt=json.dumps(triggers, ensure_ascii=False),  # A JSON string is a YAML string, whatever it holds.
        statement=card.rights["statement"],
        table="\n".join(_line(row) for row in works_of(card.artists, ledger)),
    )


def _line(row: Row) -> str:
    condition = row.get("condition", "")
    source = row["page"] or museum_name(row["museum"])
    cells = (
        row["accession"] or row["object_id"],
        strip_markup(row["title"]),
        row["year"],
        brief(row["rights"], condition),
        ", ".join(filter(None, (source, row["credit"] if condition else ""))),
    )
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"
