"""The header of an adapter's file for other programs, and the JSON file beside it.

`modelspec.*`: the Stability.AI Model Metadata Standard, 1.0.1 (https://github.com/Stability-AI/ModelSpec). `ss_*`: what
sd-scripts writes and A1111 and Forge read (https://github.com/kohya-ss/sd-scripts, `train_network.py`).
Nothing here depends on the clock: one card gives one header.
"""

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from avignon.adapters import headers
from avignon.core.records import Card, brief
from avignon.core.text import strip_markup
from avignon.museums.registry import museum_name

VERSION = "1.0.1"
MUST = ("sai_model_spec", "architecture", "implementation", "title", "resolution")
"""Keys without which a header is none by ModelSpec."""

UNKNOWN_RIGHTS = "rights of the training images: unknown"
"""What is said of an adapter whose file says nothing."""

THUMBNAIL = 256
"""Pixels of a thumbnail's long side, as the standard recommends."""

BASES: Mapping[str, tuple[str, str, int]] = {
    "stable-diffusion-v1": ("sd_v1", "SD1", 512),
    "stable-diffusion-v2-512": ("sd_v2", "SD2", 512),
    "stable-diffusion-v2-768-v": ("sd_v2_v", "SD2", 768),
    "stable-diffusion-xl-v1-base": ("sdxl_base_v1-0", "SDXL", 1024),
}
"""By ModelSpec's architecture: sd-scripts' `ss_base_model_version`, A1111's `sd version`, pixels of a side."""


IMPLEMENTATIONS = {
    "": "diffusers",
    "sdxl": "https://github.com/Stability-AI/generative-models",
    "flux2": "https://github.com/black-forest-labs/flux2",
    "z-image": "https://github.com/Tongyi-MAI/Z-Image",
}
"""Whose code the names of a file's layers are of, by the family whose makers' they are (sd-scripts'
`determine_implementation`, musubi-tuner's `sai_model_spec.py`)."""


@dataclass(frozen=True)
class Network:
    """An adapter's layers, as far as a header speaks of them."""

    linear: frozenset[tuple[int, float]]
    """Ranks and alphas of the linear layers and 1×1 convolutions."""
    convolution: frozenset[tuple[int, float]]
    """Those of the larger convolutions."""
    dora: bool

    def keys(self) -> dict[str, str]:
        """`ss_network_*`; a number that differs by layer is `Dynamic`, as sd-scripts' `resize_lora.py` has it."""
        rank, alpha = (_common(pair[part] for pair in self.linear or self.convolution) for part in (0, 1))
        arguments = {}
        if self.convolution:
            arguments["conv_dim"], arguments["conv_alpha"] = (
                _common(pair[part] for pair in self.convolution) for part in (0, 1)
            )
        if self.dora:  # sd-scripts has none: it is LyCORIS' algorithm `lora` with decomposed weights.
            arguments |= {"algo": "lora", "dora_wd": "True"}
        return {
            "ss_network_module": "lycoris.kohya" if self.dora else "networks.lora",
            "ss_network_dim": rank,
            "ss_network_alpha": alpha,
            "ss_network_args": json.dumps(arguments, sort_keys=True),
        }


def _common(numbers: Iterable[float]) -> str:
    different = set(numbers)
    return f"{different.pop():g}" if len(different) == 1 else "Dynamic"


def of_card(card: Card, network: Network, captions: Mapping[str, Iterable[str]], thumbnail: str = "") -> dict[str, str]:
    """The header of an adapter that was trained here; `captions` are those of its images, by folder.

    The hash is not in it: it is that of the tensors as they are written (see `hashes`).
    """
    base = card.base
    architecture = str(base.get("architecture", ""))
    edge = base.get("resolution") or card.recipe["base"]["resolution"]
    trigger, statement = ", ".join(card.triggers), card.rights["statement"]
    spec = {
        "sai_model_spec": VERSION,
        "architecture": f"{architecture}/lora",
        "implementation": IMPLEMENTATIONS[""],
        "title": card.name,
        "resolution": f"{edge}x{edge}",
        "description": _description(card),
        "author": f"trained with avignon {card.environment['avignon']}",
        "date": card.date,
        "license": statement,
        "usage_hint": f"Trigger phrase: {trigger}. Base: {base['model']}. Weight 1 is as trained.",
        "trigger_phrase": trigger,
        "tags": ", ".join(["style", "museum open data", "avignon", *card.artists]),
        "thumbnail": thumbnail,
        "prediction_type": str(base.get("prediction_type", "")),
    }
    texts = {folder: list(own) for folder, own in captions.items()}
    images = card.dataset["images"]
    trained = {
        "ss_output_name": card.name,
        "ss_sd_model_name": Path(base["model"]).name,
        "ss_resolution": f"({edge}, {edge})",
        "ss_enable_bucket": "True" if card.recipe.get("prepare", {}).get("shape") == "buckets" else "",
        "ss_num_train_images": str(images),
        "ss_tag_frequency": json.dumps({folder: _tags(own) for folder, own in texts.items()}, ensure_ascii=False),
    }
    return _told({**_spec(spec), **trained, **_versions(architecture), **network.keys()})


def of_header(held: Mapping[str, str], network: Network, title: str, architecture: str) -> dict[str, str]:
    """The header of an adapter from elsewhere: what its own says, and what it must say and does not."""
    edge = BASES[architecture][2] if architecture in BASES else 512
    missing = {
        "sai_model_spec": VERSION,
        "architecture": f"{architecture}/lora",
        "implementation": IMPLEMENTATIONS[""],
        "title": title,
        "resolution": f"{edge}x{edge}",
        "license": UNKNOWN_RIGHTS,
    }
    own = {key: value for key, value in held.items() if key.startswith(("modelspec.", "ss_")) and key != HASH}
    return _told({"ss_output_name": title, **_spec(missing), **_versions(architecture), **own, **network.keys()})


def of_merge(
    parts: Sequence[tuple[str, Mapping[str, str], float]], network: Network, title: str, told: str
) -> dict[str, str]:
    """The header of several adapters merged: each one's name, header and weight; `told` says how they were merged.

    Rights are those of all.
    """
    every = [held for _, held, _ in parts]
    mixed = ", ".join(f"{name} ({weight:g})" for name, _, weight in parts)
    first = every[0]
    spec = {
        **{f"modelspec.{key}": first.get(f"modelspec.{key}", "") for key in (*MUST, "author", "prediction_type")},
        "modelspec.title": title,
        "modelspec.merged_from": ", ".join(held.get("modelspec.title", name) for name, held, _ in parts),
        "modelspec.license": " ".join(_each(every, "modelspec.license")) or UNKNOWN_RIGHTS,
        "modelspec.trigger_phrase": ", ".join(_each(every, "modelspec.trigger_phrase")),
        "modelspec.tags": ", ".join(dict.fromkeys(", ".join(_each(every, "modelspec.tags")).split(", "))),
        "modelspec.description": "\n\n".join([f"{mixed}; {told}", *_each(every, "modelspec.description")]),
    }
    kept = ("ss_base_model_version", "ss_v2", "ss_sd_model_name", "ss_resolution")
    base = {key: first.get(key, "") for key in kept}
    return _told({**spec, **base, "ss_output_name": title, **network.keys()})


def _each(headers_: Iterable[Mapping[str, str]], key: str) -> list[str]:
    return list(dict.fromkeys(held[key] for held in headers_ if held.get(key)))


HASH = "modelspec.hash_sha256"


def hashes(path: Path) -> dict[str, str]:
    """The keys that say what a file's tensors are: SHA-256 of all that follows its header.

    sd-scripts' `precalculate_safetensors_hashes` hashes the same bytes, of the file as safetensors writes it.
    """
    content = headers.content_hash(path)
    return {HASH: f"0x{content}", "sshs_model_hash": content}


def sidecar(header: Mapping[str, str]) -> dict[str, Any]:
    """The JSON file beside an adapter, by the names that A1111 and Forge edit and InvokeAI reads."""
    architecture = header.get("modelspec.architecture", "").removesuffix("/lora")
    return {
        "description": header.get("modelspec.description", ""),
        "sd version": BASES[architecture][1] if architecture in BASES else "Unknown",
        "activation text": header.get("modelspec.trigger_phrase", ""),
        "preferred weight": 1.0,
        "negative text": "",
        "notes": header.get("modelspec.license", ""),
    }


def thumbnail(image: Image.Image) -> str:
    """A picture as a small JPEG in a data URL."""
    small, buffer = image.convert("RGB"), io.BytesIO()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _spec(keys: Mapping[str, str]) -> dict[str, str]:
    return {f"modelspec.{key}": value for key, value in keys.items()}


def _told(keys: Mapping[str, str]) -> dict[str, str]:
    """Without what is not known."""
    return {key: value for key, value in keys.items() if value}


def _versions(architecture: str) -> dict[str, str]:
    """The base as sd-scripts has it; Forge and A1111 tell Stable Diffusion 2 by `ss_v2`."""
    if architecture not in BASES:
        return {}
    return {"ss_base_model_version": BASES[architecture][0], "ss_v2": str("-v2-" in architecture)}


def _tags(captions: Iterable[str]) -> dict[str, int]:
    """How often each part of a caption between commas occurs, as sd-scripts counts."""
    parts = (part.strip() for caption in captions for part in re.split(",", caption))
    return dict(sorted(Counter(filter(None, parts)).items()))


def _description(card: Card) -> str:
    """What it is, and every training work with its accession number, in Markdown."""
    artists = " and ".join(card.artists)
    works = card.dataset["works"]
    first = (
        f"A {card.trainable['method']} adapter trained on {works} {'work' if works == 1 else 'works'} of {artists}. "
        f"What it makes are pictures by a trained model. None of them is a work of {artists}."
    )
    return "\n".join([first, "", *(f"- {_work(work)}" for work in card.works)]).rstrip()


def _work(work: Mapping[str, str]) -> str:
    title = strip_markup(work["title"])
    known = (
        f"{title} ({work['year']})" if work["year"] else title,
        work["accession"] or work["object_id"],
        work["page"] or museum_name(work["museum"]),
        brief(work["rights"], work["condition"]),
        work["credit"] if work["condition"] else "",
    )
    return ", ".join(filter(None, known))
