"""How other programs read the text beside a picture, rebuilt from the grammar that each of them accepts.

A1111: the web interface's `modules/infotext_utils.py` (`parse_generation_parameters`, `unquote`). ComfyUI:
`importA1111` of its web front end. Civitai: `src/utils/metadata/automatic.metadata.ts` of the site. What they do not
care for (defaults for missing keys, styles) is left out; where they are careless, these are as careless.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Read:
    """What a reader understood."""

    prompt: str = ""
    negative: str = ""
    values: dict[str, Any] = field(default_factory=dict)


A1111_PAIR = re.compile(
    r"""
    \s* (?P<key> \w [\w\ \-/]+ ) :
    \s* (?P<value> " (?: \\. | [^\\"] )+ " | [^,]* )
    (?: , | $ )
    """,
    re.VERBOSE,
)


def a1111(text: str) -> Read:
    """The last line holds the values if three pairs are found in it; a line that says so begins the negative prompt."""
    lines = text.strip().split("\n")
    pairs = [match.group("key", "value") for match in A1111_PAIR.finditer(lines[-1])]
    if len(pairs) >= 3:
        lines.pop()
    parts: tuple[list[str], list[str]] = ([], [])
    negative = False
    for line in map(str.strip, lines):
        begins = line.startswith("Negative prompt:")
        negative = negative or begins
        parts[negative].append(line[len("Negative prompt:") :].strip() if begins else line)
    read = Read("\n".join(parts[0]), "\n".join(parts[1]))
    for key, value in pairs if len(pairs) >= 3 else ():
        plain = a1111_unquoted(value)
        size = re.match(r"(\d+)x(\d+)$", plain)
        read.values |= {f"{key}-1": size[1], f"{key}-2": size[2]} if size else {key: plain}
    return read


def a1111_unquoted(value: str) -> str:
    """A JSON string as what it says; all else as it is."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value


COMFYUI_PAIR = re.compile(r'\s*([^:]+:\s*(?:[^"{].*?|".*?"|\{.*?\}))\s*(?:,|$)')


def comfyui(text: str) -> Read | None:
    """The line after the last `Steps:`; None where there is no such line, or none with a negative prompt before it.

    Keys are in lower case; of a value only what stands before a second colon is kept. No escapes are known.
    """
    steps = text.rfind("\nSteps:")
    mark = text.rfind("\nNegative prompt:", 0, steps) if steps >= 0 else -1
    if mark < 0:
        return None
    values = {}
    for match in COMFYUI_PAIR.finditer(text[steps:].split("\n")[1]):
        key, value = match[0].split(":")[:2]
        values[key.strip().lower()] = value.removesuffix(",").strip()
    return Read(text[:mark].strip(), text[mark + len("\nNegative prompt: ") : steps].strip(), values)


EXTRA_NETWORK = re.compile(r"<(lora|hypernet):([a-zA-Z0-9_.\-]+):([0-9.]+)>")


def civitai(text: str) -> Read:
    """The first line that begins with `Steps: `; bare JSON after `Hashes:`; quotation marks toggle, with no escapes.

    `hashes` are all by which the site looks for what was used; `networks` are those that the prompt seems to load.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    for template in ("Template: ", "Negative Template: "):
        lines = _without(lines, template)
    details = next((line for line in lines if line.startswith("Steps: ")), "")
    if details:
        lines.remove(details)
    for old in ("Resources: ", "Hashed prompt: ", "Hashed Negative prompt: "):
        details = details.split(old)[0]
    found = re.search(r", Hashes:\s*(\{[^}]+\})", details)
    hashes = dict(json.loads(found[1])) if found else {}
    values = _toggled(details.replace(found[0], "", 1) if found else details)
    prompt, *negative = ("\n".join(lines)).split("Negative prompt:")
    networks = [match[2] for match in EXTRA_NETWORK.finditer(prompt)]
    hashes |= {f"lora:{name}": value for name, value in values.pop("Lora hashes", {}).items()}
    if "Model" in values and "Model hash" in values:
        hashes.setdefault("model", values["Model hash"])
    read = Read(prompt.strip(), " ".join(part.strip() for part in negative).strip(), values)
    read.values |= {"hashes": hashes, "networks": networks}
    return read


def _without(lines: list[str], template: str) -> list[str]:
    """The lines without a template and what follows it, up to the next key."""
    start = next((place for place, line in enumerate(lines) if line.startswith(template)), None)
    if start is None:
        return lines
    end = start + 1
    while end < len(lines) and not re.search(r"[\w\s]+: ", lines[end]):
        end += 1
    return lines[:start] + lines[end:]


def _toggled(line: str) -> dict[str, Any]:
    """Pairs of a line; what is quoted is taken for pairs as well."""
    values: dict[str, Any] = {}
    key = value = ""
    quoted = False
    for sign in line:
        if sign == '"':
            if quoted:
                values[key] = _toggled(value.strip())
                key = ""
            quoted = not quoted
        elif sign == ":" and not quoted:
            key, value = value.strip(), ""
        elif sign == "," and not quoted:
            if key:
                values[key] = value.strip()
            key = value = ""
        else:
            value += sign
    return {**values, key: value.strip()} if key else values
