"""A frame as the text beside a picture that other programs read: prompt, negative prompt, then `key: value, …`.

The grammar is that of Automatic1111's web interface (`modules/infotext_utils.py`): the last line holds the values, and
one with a comma, a colon or a line break in it is a JSON string. ComfyUI's import and Civitai read the same text in
simpler ways, so that what is a user's own word is written as all three read it.
"""

import json
import re
from collections.abc import Iterable, Mapping

from avignon.core.records import Frame

SAMPLERS: Mapping[str, Mapping[str, object]] = {
    "ddim": {"Sampler": "DDIM"},
    "pndm": {"Sampler": "PLMS"},
    "euler": {"Sampler": "Euler", "Schedule type": "Uniform"},
    "dpm++": {"Sampler": "DPM++ 2M", "Schedule type": "Uniform"},
}
"""The recipe's schedulers by the names that those programs have for the same method and the same spacing of steps."""


def text(frame: Frame, model: str = "", contents: Mapping[str, str] | None = None) -> str:
    """The frame in words.

    There is no `Model hash`: it would be that of a checkpoint in one file, which a base in diffusers' format is not.
    `contents` has each adapter's `headers.content_hash`; only adapters in it are told by hash.
    """
    values = {
        "Steps": frame.num_inference_steps,
        **SAMPLERS.get(frame.scheduler, {"Sampler": frame.scheduler}),
        "CFG scale": f"{frame.guidance_scale:g}",
        "Seed": frame.seed,
        "Size": f"{frame.width}x{frame.height}",
        "RNG": "CPU",
        "Base hash": frame.base[:10],
    }
    if frame.to_seed >= 0:
        values |= {"Variation seed": frame.to_seed, "Variation seed strength": f"{frame.seed_place:.3g}"}
    if frame.source:
        values |= {"Denoising strength": f"{frame.source.strength:g}", "Init image hash": frame.source.sha256[:10]}
    pairs = {key: quoted(value) for key, value in values.items()} | _adapters(frame, contents or {})
    # Last, because a reader that stumbles over a user's own word then misses nothing else.
    pairs |= {"Model": quoted(model), "Init image": quoted(frame.source.file if frame.source else "")}
    told = ", ".join(f"{key}: {value}" for key, value in pairs.items() if value)
    return f"{one_line(frame.prompt)}\nNegative prompt: {one_line(frame.negative_prompt)}\n{told}"


def _adapters(frame: Frame, contents: Mapping[str, str]) -> dict[str, str]:
    """Weights of the adapters; of those that are on, the hashes by which sites know their files.

    `Lora hashes` has Automatic1111's, the first 12 digits of the SHA-256 of all that follows the file's header (AutoV3
    on Civitai). `Hashes` has those of Civitai's own extension, the first 10 of the whole file's (AutoV2), as bare JSON.
    """
    labels = _labels(frame.weights)
    is_on = {name: weight or name in frame.weight_schedule for name, weight in frame.weights.items()}
    known = {name: label for name, label in labels.items() if name in contents and is_on[name]}
    files = {f"lora:{label}": frame.adapters[name][:10] for name, label in known.items()}
    return {
        "Lora weights": quoted(", ".join(f"{labels[name]}: {weight:g}" for name, weight in frame.weights.items())),
        "Lora hashes": quoted(", ".join(f"{label}: {contents[name][:12]}" for name, label in known.items())),
        "Hashes": json.dumps(files, ensure_ascii=False) if files else "",
    }


def _labels(names: Iterable[str]) -> dict[str, str]:
    """Names without what divides names and values; those that were told apart by nothing else get a mark."""
    labels: dict[str, str] = {}
    for name in names:
        label = " ".join(re.sub(r'[:,"{}\\]', "", name).split()) or "adapter"
        while label in labels.values():
            label += "_"
        labels[name] = label
    return labels


def quoted(value: object) -> str:
    r"""A value as it stands between two commas: bare, or as a JSON string.

    Quotation marks, backslashes and braces are written as \u0022 and so on: readers that know no escapes would take the
    first quotation mark for the end of the value, and what follows for further keys.
    """
    plain = str(value)
    if re.fullmatch(r"(?! )[\w .()/+-]*(?<! )", plain):
        return plain
    escaped = re.sub(r'["\\{}]', lambda sign: f"\\u{ord(sign[0]):04x}", plain)
    return '"' + "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in escaped) + '"'


def one_line(prompt: str) -> str:
    """A prompt as a line in which no reader finds a key of the text, or an adapter that was not there.

    A blank before a colon, and blanks for line breaks, change no token of CLIP's.
    """
    return re.sub(r"(?i)(negative prompt|steps|template|<\w+)(?=:)", r"\1 ", " ".join(prompt.split()))
