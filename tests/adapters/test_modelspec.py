"""Headers of adapters' files, held against lists that are written from the programs' published rules."""

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from avignon.adapters import modelspec
from avignon.adapters.formats import safe
from avignon.adapters.modelspec import Network
from avignon.core.records import Card
from tests.support.exports import header as header_of

MUST = ("sai_model_spec", "architecture", "implementation", "title", "resolution")
SHOULD = ("description", "author", "date", "hash_sha256")
CAN = ("license", "usage_hint", "thumbnail", "tags", "trigger_phrase", "prediction_type")
"""ModelSpec 1.0.1's, those that fit a LoRA; without `merged_from` and `timestep_range`."""

READ = {
    *("ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args", "ss_base_model_version", "ss_v2"),
    *("ss_sd_model_name", "ss_resolution", "ss_num_train_images", "ss_tag_frequency", "ss_output_name"),
    "sshs_model_hash",
}
"""What programs use of sd-scripts' keys."""

STATEMENT = "1 of 2 training images are not known to be free to use. Ask before you share it."
WORKS = (
    {"museum": "nga", "object_id": "1", "accession": "1943.13.1", "title": "<i>Breezing Up</i>", "artist": "W. H.",
     "year": "1873", "rights": "open", "condition": "", "credit": "", "page": "https://example.org/1"},
    {"museum": "artic", "object_id": "2", "accession": "", "title": "Sea", "artist": "W. H.", "year": "",
     "rights": "restricted", "condition": "attribution (CC BY 4.0)", "credit": "A giver", "page": ""},
)  # fmt: skip
CARD = Card(
    name="winslow-homer",
    artists=("Winslow Homer",),
    triggers=("in the style of homer",),
    base={"model": "/models/sd-2-1", "architecture": "stable-diffusion-v2-512", "prediction_type": "epsilon",
          "resolution": 512},
    trainable={"method": "LoRA"},
    dataset={"images": 3, "works": 2},
    rights={"statement": STATEMENT},
    recipe={},
    environment={"avignon": "0.2.0"},
    metrics={},
    works=WORKS,
    date="2026-02-03",
)  # fmt: skip
NETWORK = Network(frozenset({(16, 8.0)}), frozenset({(8, 4.0)}), dora=False)
CAPTIONS = {"winslow-homer": ["Sea, in the style of homer", "Sea, oil, in the style of homer"]}
THUMBNAIL = modelspec.thumbnail(Image.new("RGB", (512, 384), "navy"))


def made(card: Card = CARD, network: Network = NETWORK) -> dict[str, str]:
    """The header of the card."""
    return modelspec.of_card(card, network, CAPTIONS, THUMBNAIL)


def written(folder: Path, header: dict[str, str]) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file with this header, in which programs look for hashes; and its tensors."""
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(5, dtype=torch.float16)}
    path = folder / "it.safetensors"
    safetensors.torch.save_file(tensors, path, header)
    safe.annotate(path, modelspec.hashes(path))
    return path, tensors


def test_every_key_that_the_standard_and_programs_know_is_there(tmp_path: Path) -> None:
    """All that ModelSpec says a file must and should have, what it can have and fits, and sd-scripts' keys."""
    header = header_of(written(tmp_path, made())[0])
    assert header.keys() == {f"modelspec.{key}" for key in (*MUST, *SHOULD, *CAN)} | READ
    assert all(isinstance(value, str) and value for value in header.values())
    told = {key: header[f"modelspec.{key}"] for key in MUST}
    assert told == {
        "sai_model_spec": "1.0.1",
        "architecture": "stable-diffusion-v2-512/lora",
        "implementation": "diffusers",
        "title": "winslow-homer",
        "resolution": "512x512",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", header["modelspec.date"])
    assert header["ss_sd_model_name"] == "sd-2-1", "a folder on this machine is nobody's business"


def test_works_and_rights_travel_with_the_file() -> None:
    """The description names every work with its number, source and rights; the licence is the rights sentence."""
    header = made()
    assert header["modelspec.license"] == STATEMENT
    first, second = (line for line in header["modelspec.description"].splitlines() if line.startswith("- "))
    assert first == "- Breezing Up (1873), 1943.13.1, https://example.org/1, open"
    assert second == "- Sea, 2, Art Institute of Chicago, restricted: attribution (CC BY 4.0), A giver"
    assert "None of them is a work of Winslow Homer" in header["modelspec.description"]


def test_hash_is_that_of_sd_scripts(tmp_path: Path) -> None:
    """`sshs_model_hash` is what `precalculate_safetensors_hashes` computes: all bytes after the header."""
    path, tensors = written(tmp_path, made())
    header = header_of(path)
    alone = {key: value for key, value in header.items() if key.startswith("ss_")}
    content = safetensors.torch.save(tensors, alone)
    after = content[8 + int.from_bytes(content[:8], "little") :]
    assert header["sshs_model_hash"] == hashlib.sha256(after).hexdigest()
    assert header["modelspec.hash_sha256"] == f"0x{header['sshs_model_hash']}"


def test_annotated_file_is_the_same_tensors_and_bytes(tmp_path: Path) -> None:
    """Keys that are added change no tensor, and two files of the same content have the same bytes."""
    path, tensors = written(tmp_path, made())
    (tmp_path / "other").mkdir()
    other, _ = written(tmp_path / "other", dict(reversed(made().items())))
    assert path.read_bytes() == other.read_bytes()
    back = safetensors.torch.load_file(path)
    assert all(torch.equal(back[key], tensor) for key, tensor in tensors.items())


@pytest.mark.parametrize(
    ("architecture", "version", "v2", "shown"),
    [
        ("stable-diffusion-v1", "sd_v1", "False", "SD1"),
        ("stable-diffusion-v2-512", "sd_v2", "True", "SD2"),
        ("stable-diffusion-xl-v1-base", "sdxl_base_v1-0", "False", "SDXL"),
        ("stable-diffusion-v2-768-v", "sd_v2_v", "True", "SD2"),
    ],
)
def test_base_is_told_in_each_programs_words(architecture: str, version: str, v2: str, shown: str) -> None:
    """Forge goes by the architecture and the version, A1111 by `ss_v2` and by the JSON's `sd version`."""
    header = made(replace(CARD, base={**CARD.base, "architecture": architecture}))
    assert header["modelspec.architecture"] == f"{architecture}/lora"
    assert (header["ss_base_model_version"], header["ss_v2"]) == (version, v2)
    assert modelspec.sidecar(header)["sd version"] == shown


@pytest.mark.parametrize(
    ("network", "module", "rank", "alpha", "arguments"),
    [
        (NETWORK, "networks.lora", "16", "8", {"conv_dim": "8", "conv_alpha": "4"}),
        (Network(frozenset({(4, 4.0)}), frozenset(), dora=False), "networks.lora", "4", "4", {}),
        (Network(frozenset({(4, 2.0), (8, 2.0)}), frozenset(), dora=False), "networks.lora", "Dynamic", "2", {}),
        (
            Network(frozenset({(4, 2.5)}), frozenset(), dora=True),
            "lycoris.kohya",
            "4",
            "2.5",
            {"algo": "lora", "dora_wd": "True"},
        ),
    ],
)
def test_network_keys(network: Network, module: str, rank: str, alpha: str, arguments: dict[str, Any]) -> None:
    """One number where all layers have it, `Dynamic` where they differ; convolutions have theirs in the arguments."""
    header = made(network=network)
    assert header["ss_network_module"] == module
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == (rank, alpha)
    assert json.loads(header["ss_network_args"]) == arguments


def test_tags_are_counted_as_sd_scripts_does() -> None:
    """By folder, how often each part of a caption between commas occurs."""
    counted = json.loads(made()["ss_tag_frequency"])
    assert counted == {"winslow-homer": {"Sea": 2, "in the style of homer": 2, "oil": 1}}


def test_thumbnail_is_a_small_jpeg() -> None:
    """A data URL of a JPEG no larger than 256 pixels."""
    kind, _, data = THUMBNAIL.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (image.format, image.size) == ("JPEG", (256, 192))


def test_sidecar_has_the_keys_of_its_readers() -> None:
    """A1111's editor writes these keys, its page reads them; InvokeAI reads description, notes, activation text."""
    told = modelspec.sidecar(made())
    assert list(told) == ["description", "sd version", "activation text", "preferred weight", "negative text", "notes"]
    assert (told["activation text"], told["preferred weight"]) == ("in the style of homer", 1.0)
    assert told["notes"] == STATEMENT


def test_header_of_a_stranger_keeps_its_own_words() -> None:
    """What an imported adapter says of itself stays; what it does not say is added, rights as unknown."""
    held = {
        "modelspec.title": "Her style",
        "modelspec.hash_sha256": "0xold",
        "ss_output_name": "hers",
        "ss_seed": "7",
        "format": "pt",
        "ss_network_dim": "128",
    }
    header = modelspec.of_header(held, NETWORK, "file", "stable-diffusion-v1")
    assert (header["modelspec.title"], header["ss_output_name"], header["ss_seed"]) == ("Her style", "hers", "7")
    assert header["modelspec.license"] == "rights of the training images: unknown"
    assert all(header[f"modelspec.{key}"] for key in MUST)
    assert header["ss_network_dim"] == "16", "that of the tensors as they are written"
    assert not header.keys() & {"modelspec.hash_sha256", "format"}
    owned = modelspec.of_header({**held, "modelspec.license": "CC0"}, NETWORK, "file", "stable-diffusion-v1")
    assert owned["modelspec.license"] == "CC0"


def test_header_of_a_merge_names_its_parts_and_all_their_rights() -> None:
    """`merged_from` has the titles, the licence every sentence, the description every work and the weights."""
    other = made(replace(CARD, name="pablo-picasso", triggers=("picasso",), rights={"statement": "All 2 are open."}))
    header = modelspec.of_merge(
        [("homer", made(), 0.6), ("picasso", other, 0.8)], NETWORK, "mix", "the sum of both, exact"
    )
    assert header["modelspec.merged_from"] == "winslow-homer, pablo-picasso"
    assert header["modelspec.title"] == header["ss_output_name"] == "mix"
    assert header["modelspec.license"] == f"{STATEMENT} All 2 are open."
    assert header["modelspec.trigger_phrase"] == "in the style of homer, picasso"
    assert header["modelspec.description"].startswith("homer (0.6), picasso (0.8); the sum of both, exact")
    assert "1943.13.1" in header["modelspec.description"]
    assert all(header[f"modelspec.{key}"] for key in MUST)
    assert "ss_tag_frequency" not in header
