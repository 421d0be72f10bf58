"""What an adapter says of itself: `card.json` for programs, `README.md` (a Hugging Face model card) for people."""

import json
import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from avignon import __version__
from avignon.adapters.formats.registry import AdapterFile
from avignon.core.about import program_link
from avignon.core.files import read_json
from avignon.core.records import Access, Card, Origin, Verdict, brief
from avignon.core.text import strip_markup
from avignon.models.names import UNKNOWN_LICENCE
from avignon.models.registry import FAMILIES
from avignon.museums.registry import museum_name
from avignon.recipe.schema import Artist

Row = Mapping[str, str]

REPOSITORY = r"[\w-][\w.-]*/[\w.-]+"
"""A model's name on a hub, as `owner/name`; no directory and not the embedded one."""

MODEL_CARD = """\
---
library_name: diffusers
pipeline_tag: text-to-image
{base}license: other
license_name: see-rights-below
license_link: README.md
tags: [{method_tag}, {tag}, text-to-image, template:sd-lora, avignon]
instance_prompt: {prompt}
{widget}---
# {name}

A {method} adapter trained by {program} on {works} works ({images} images)
of {artists}. What it makes are pictures by a trained model. None of them is a work of {artists}.

- Trigger phrase: `{trigger}`
- Base: `{model}`, revision `{revision}`, {network} SHA-256 `{fingerprint}`; its licence: {licence}{further}{kept}
- {parameters:,} trained parameters, {share:.3%} of the {network}'s {unet_parameters:,}; ranks {ranks}
- {steps} steps, final loss {loss} (mean of the last 50 steps)

## Rights

{statement}

## Training works

| accession | title | date | rights | source |
| --- | --- | --- | --- | --- |
{table}

## Use

`{name}.safetensors` is for {programs}. With diffusers:

```python
pipeline.load_lora_weights("path/to/this/folder", weight_name="pytorch_lora_weights.safetensors")
```
"""


_TEXTS = ("artists", "triggers")


def fault(card: Card) -> str:
    """What is wrong with a card that may be a stranger's: its name becomes a file's, its texts lines of a page."""
    if not (isinstance(card.name, str) and re.fullmatch(r"\w[\w.-]*", card.name)):
        return f"name is {card.name!r}; it has letters, digits, `_`, `-` and dots inside it"
    for field in _TEXTS:
        if not (isinstance(texts := getattr(card, field), list) and texts and all(map(_is_line, texts))):
            return f"{field} is {texts!r}, no list of texts of one line"
    tables = ("base", "trainable", "dataset", "rights", "recipe", "environment", "metrics")
    if wrong := next((field for field in tables if not isinstance(getattr(card, field), dict)), ""):
        return f"{wrong} is no JSON object"
    if not _is_line(card.rights.get("statement")):
        return "rights.statement is no text of one line"
    if wrong := next((field for field in ("model", "fingerprint") if not _is_line(card.base.get(field))), ""):
        return f"base.{wrong} is no text of one line"
    for number, work in enumerate(card.works, 1):
        if not (isinstance(work, dict) and all(isinstance(work.get(column), str) for column in WORK)):
            return f"work {number} is without one of {', '.join(WORK)}"
    return ""


def _is_line(text: object) -> bool:
    return isinstance(text, str) and text.isprintable()


def works_of(artists: Sequence[str], ledger: Sequence[Row]) -> list[Row]:
    """The ledger's kept works of these artists."""
    return [row for row in ledger if row["artist"] in artists and row["decision"] == Verdict.KEPT]


WORK = ("museum", "object_id", "accession", "title", "artist", "year", "rights", "condition", "credit", "page")
"""Columns of the ledger that a card keeps of each work."""


def work_records(artists: Sequence[str], ledger: Sequence[Row]) -> list[dict[str, str]]:
    """What a card says of every work that these artists' adapter learns from."""
    return [{column: row.get(column, "") for column in WORK} for row in works_of(artists, ledger)]


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


def notice(adapters: Iterable[AdapterFile]) -> str:
    """What a picture must say of its adapters; empty where all works are open without a condition."""
    notices = [_notice(each) for each in adapters]
    return " ".join(dict.fromkeys(filter(None, notices)))


def _notice(adapter: AdapterFile) -> str:
    rights = _rights_on_card(adapter)
    if rights is not None:
        return notice_from(rights)
    known = origin(adapter)
    said = {"author": known.author, "licence": known.license, "trained": known.training}
    told = "".join(f"; {what}: {value}" for what, value in said.items() if value)
    return (
        f"The adapter {known.file} (SHA-256 {known.sha256[:12]}) is from elsewhere{told}; "
        f"rights of the training images: {known.rights}."
    )


def _rights_on_card(adapter: AdapterFile) -> Mapping[str, Any] | None:
    """What the card beside an adapter says of rights; None without one, or where it is another program's."""
    try:
        rights = (read_json(adapter.card) if adapter.card else {})["rights"]
        notice_from(rights)
    except (KeyError, TypeError):
        return None
    return dict(rights)


def origin(adapter: AdapterFile) -> Origin:
    """What an adapter's header says of itself, by the keys of ModelSpec and of kohya's scripts."""
    said = {key: _shown(value) for key, value in adapter.metadata.items()}
    facts = {
        "{} images": said.get("ss_num_train_images", ""),
        "{} steps": said.get("ss_steps", ""),
        "on {}": said.get("ss_sd_model_name", "") or said.get("ss_base_model_version", ""),
    }
    return Origin(
        file=adapter.path.name,
        sha256=adapter.sha256,
        format=adapter.format,
        author=said.get("modelspec.author", ""),
        license=said.get("modelspec.license", ""),
        training=", ".join(form.format(fact) for form, fact in facts.items() if fact not in ("", "None")),
    )


def _shown(text: str) -> str:
    """What somebody's header says, as a short line without control characters."""
    return "".join(c if c.isprintable() else "" for c in " ".join(text.split()))[:200]


def notice_from(rights: Mapping[str, Any]) -> str:
    """What `rights_of` has to say wherever a picture goes; empty where all works are open without a condition."""
    closed = sum(rights[access] for access in Access if access != Access.OPEN)
    return str(rights["statement"]) if closed or rights.get("conditions") else ""


def environment(device: str, precision: str) -> dict[str, str]:
    """The versions and the machine that a result depends on."""
    names = ("torch", "diffusers", "peft", "transformers", "accelerate")
    libraries = {name: version(name) for name in names}
    own = {"avignon": __version__, **libraries}  # A checkout need not be installed to train.
    return {**own, "python": platform.python_version(), "device": device, "precision": precision}


def model_card(card: Card, pictures: Mapping[str, str] | None = None) -> str:
    """The card as a page in Markdown, with every training work named.

    The header in YAML is a model hub's (https://huggingface.co/docs/hub/model-cards). `pictures` are shown there: files
    beside the page, and their prompts.
    """
    facts = {**card.dataset, **card.trainable, **card.metrics, **card.base}
    triggers = ", ".join(card.triggers)
    family = FAMILIES[card.base.get("family", "sd")]  # Cards of earlier versions do not say.
    loss = facts["final_loss"]
    ranks = ", ".join(f"{kind} {rank}" for kind, rank in card.trainable["ranks"].items())
    return MODEL_CARD.format(
        **{"licence": UNKNOWN_LICENCE, **facts, "ranks": ranks, "revision": card.base["revision"] or "-"},
        further=f"; with the VAE `{others['model']}`" if (others := card.base.get("vae")) else "",
        kept=f"; its weights were kept in {kind} as it trained" if (kind := card.base.get("quantized")) else "",
        base=f"base_model: {card.base['model']}\n" if re.fullmatch(REPOSITORY, card.base["model"]) else "",
        method_tag=card.trainable["method"].lower(),
        widget=_widget(pictures or {}),
        name=card.name,
        tag=family.tag,
        network=family.network,
        programs="ComfyUI, A1111, Forge, InvokeAI and SD.Next" if family.network == "UNet" else "ComfyUI",
        program=program_link(),
        artists=" and ".join(card.artists).replace("<", "&lt;"),
        trigger=triggers,
        loss="unknown" if loss is None else f"{loss:.4f}",
        prompt=json.dumps(triggers, ensure_ascii=False),
        statement=card.rights["statement"],
        table="\n".join(_line(row) for row in card.works),
    )


def _widget(pictures: Mapping[str, str]) -> str:
    """The pictures that a hub shows beside the page."""
    # A JSON string is a YAML string, whatever it holds.
    shown = "".join(
        f"- text: {json.dumps(prompt, ensure_ascii=False)}\n  output:\n    url: {json.dumps(file)}\n"
        for file, prompt in pictures.items()
    )
    return f"widget:\n{shown}" if shown else ""


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
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"
