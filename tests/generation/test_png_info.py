"""The text beside a picture, as Automatic1111's web interface, ComfyUI and Civitai read it (support/readers.py)."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from avignon.adapters import headers
from avignon.core.records import Frame, Source
from avignon.generation import png_info as infotext
from tests.support import readers

FRAME = Frame(
    "scene-1", "stop-1", "a boat on the sea", "red", 3, 30, 7.5, "ddim", 512, 384, {"homer": 0.25}, "ab" * 32,
    {"homer": "cd" * 32}, "fp32",
)  # fmt: skip

HOSTILE = "x\nSteps: 99, Sampler: Euler, CFG scale: 99, Seed: 99, Size: 9x9, Model hash: 9999999999"

PROMPTS = (
    HOSTILE,
    HOSTILE.removeprefix("x\n"),
    f"{HOSTILE}\nNegative prompt: blue\n{HOSTILE}",
    "a boat\nNegative prompt: blue",
    "a boat Negative prompt: blue, negative prompt: green",
    "Template: a {boat}\nand more\nNegative Template: none",
    "a boat <lora:other:0.8> <hypernet:more:1>",
    'a "boat", (1885): "it, is", Lora hashes: "x: 0123456789ab"',
    'a boat, Hashes: {"model": "9999999999"}',
    "a boat\r\n\u2028on the\x0bsea\x85\n\n",
    "",
)


def understood(frame: Frame, model: str = "base", contents: dict[str, str] | None = None) -> list[readers.Read]:
    """What each of the three readers makes of the frame: all must have understood the numbers."""
    text = infotext.text(frame, model, contents)
    by_comfyui = readers.comfyui(text)
    assert by_comfyui is not None
    one, two, three = readers.a1111(text), by_comfyui, readers.civitai(text)
    for values, (width, height) in (
        (one.values, ("Size-1", "Size-2")),
        (two.values, ("", "")),
        (three.values, ("", "")),
    ):
        told = {key.lower(): value for key, value in values.items()}
        assert (told["steps"], told["cfg scale"], told["seed"]) == ("30", "7.5", "3")
        assert told["sampler"] == "DDIM"
        assert (values[width], values[height]) == ("512", "384") if width else told["size"] == "512x384"
    return [one, two, three]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("negative", ["", "red", HOSTILE, PROMPTS[3]])
def test_prompts_that_look_like_values(prompt: str, negative: str) -> None:
    """B9: whatever stands in the prompts, every reader finds the picture's own numbers and words."""
    wanted = [infotext.one_line(words) for words in (prompt, negative)]
    for read in understood(replace(FRAME, prompt=prompt, negative_prompt=negative)):
        assert [read.prompt, read.negative] == wanted
    assert readers.civitai(infotext.text(replace(FRAME, prompt=prompt))).values["networks"] == []


def test_ordinary_prompts_are_untouched() -> None:
    """Prompts without keys of the text stand in it letter for letter, colons and brackets too."""
    for prompt in ("a boat (1885), at noon: calm", "two steps, a template", "a <b> c: d", "富嶽三十六景"):
        assert infotext.one_line(prompt) == prompt


NAMES = (
    "style_v1.5",
    "lora_A",
    "x, CFG scale: 99",
    'x", CFG scale: 99, Seed: 99, y: "',
    '", "model": "9999999999", "',
    'x\\", CFG scale: 99',
    "x\\",
    '"',
    '{a}, Hashes: {"model": "9999999999"}',
    "a: 99: b",
    "Resources: all",
    "two\nlines, Seed: 99",
    " blanks ",
    "葛飾 北斎, Größe",
    "e\u0301 \u2028 \x85",
)


@pytest.mark.parametrize("name", NAMES)
def test_base_and_file_names_come_back(name: str) -> None:
    """B9: a base's or a file's name with commas, colons, quotation marks or line breaks changes no other value."""
    frame = replace(FRAME, source=Source(name, "ef" * 32, 0.5))
    by_a1111, _, by_civitai = understood(frame, name)
    assert (by_a1111.values["Model"], by_a1111.values["Init image"]) == (name, name)
    assert by_a1111.values["Denoising strength"] == "0.5"
    assert by_civitai.values["hashes"] == {}, "no file of the base is known to a sharing site"
    assert len(infotext.text(frame, name).splitlines()) == 3


@pytest.mark.parametrize("name", NAMES)
def test_adapters_are_named_with_hashes(name: str) -> None:
    """B9: every reader gets the hashes of the adapters that are on, by name, and nothing else."""
    frame = replace(
        FRAME, weights={name: 0.5, "two": 1.0, "off": 0.0}, adapters={name: "1" * 64, "two": "2" * 64, "off": "3" * 64}
    )
    contents = {name: "a" * 64, "two": "b" * 64, "off": "c" * 64}
    by_a1111, _, by_civitai = understood(frame, contents=contents)
    pairs = [pair.split(": ") for pair in by_a1111.values["Lora hashes"].split(", ")]
    assert [(hash_, len(pair)) for pair in pairs for hash_ in pair[1:]] == [("a" * 12, 2), ("b" * 12, 2)]
    shown = pairs[0][0]
    assert by_a1111.values["Lora weights"] == f"{shown}: 0.5, two: 1, off: 0"
    assert by_civitai.values["hashes"] == {f"lora:{shown}": "a" * 12, "lora:two": "b" * 12}
    assert f'Hashes: {{"lora:{shown}": "1111111111", "lora:two": "2222222222"}}' in infotext.text(frame, "", contents)


def test_names_that_read_alike_stay_apart() -> None:
    """B9: two adapters whose names differ only in what the grammar cannot hold are two."""
    frame = replace(
        FRAME, weights={"a:b": 1.0, "ab": 0.5, ":": 0.1}, adapters=dict.fromkeys(("a:b", "ab", ":"), "1" * 64)
    )
    assert readers.a1111(infotext.text(frame)).values["Lora weights"] == "ab: 1, ab_: 0.5, adapter: 0.1"


def test_plain_names_are_as_the_user_wrote_them() -> None:
    """B9: dots and underscores are shown; a scheduled adapter of mean weight 0 is on; the base alone has none."""
    frame = replace(
        FRAME,
        weights={"style_v1.5": 0.0},
        weight_schedule={"style_v1.5": (1.0, -1.0)},
        adapters={"style_v1.5": "1" * 64},
    )
    assert 'Lora hashes: "style_v1.5: aaaaaaaaaaaa"' in infotext.text(frame, "", {"style_v1.5": "a" * 64})
    assert "Lora" not in infotext.text(replace(FRAME, weights={}, adapters={}), "", {"style_v1.5": "a" * 64})
    assert "hashes" not in infotext.text(FRAME).lower(), "what is no file has no hash"


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        ("ddim", "Sampler: DDIM, CFG"),
        ("pndm", "Sampler: PLMS, CFG"),
        ("euler", "Sampler: Euler, Schedule type: Uniform, CFG"),
        ("dpm++", "Sampler: DPM++ 2M, Schedule type: Uniform, CFG"),
    ],
)
def test_samplers_have_their_common_names(scheduler: str, told: str) -> None:
    """B9: the sampler is called as those programs call the same method; the base is not passed off as a checkpoint."""
    text = infotext.text(replace(FRAME, scheduler=scheduler, to_seed=9, seed_place=0.25), "base")
    assert told in text
    assert "RNG: CPU, Base hash: ababababab, Variation seed: 9, Variation seed strength: 0.25" in text
    assert "Model hash" not in text


def test_content_hash_is_that_of_the_tensors(tmp_path: Path) -> None:
    """B9: the short hash is of what follows the header, so that other metadata leave it, and other tensors do not."""
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for path, (value, metadata) in zip(paths, ((1.5, {"a": "b"}), (1.5, None), (2.5, None)), strict=True):
        save_file({"x": np.full((3,), value, np.float32)}, path, metadata)
    one, two, three = map(headers.content_hash, paths)
    assert one == two == hashlib.sha256(np.full((3,), 1.5, np.float32).tobytes()).hexdigest()
    assert one != three


def test_harmless_lines_have_the_same_tokens(tiny_sd: Path) -> None:
    """B9: what keeps readers from taking a prompt's words for keys changes no token, in prompts of any kind."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(tiny_sd / "tokenizer"))
    for prompt in (*PROMPTS, "steps:: a\n<lora:x>", "STEPS:9 Negative Prompt:x"):
        assert tokenizer(infotext.one_line(prompt)).input_ids == tokenizer(prompt).input_ids
