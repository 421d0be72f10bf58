"""What adapters and their pictures say of the rights of what they were made from."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from avignon.adapters import cards
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.adapters.formats.registry import AdapterFile
from avignon.core.png import png_bytes
from avignon.recipe.schema import Artist

HOMER = Artist(name="Winslow Homer", works=2, trigger="homer")
PICASSO = Artist(name="Pablo Picasso", works=2, trigger="picasso", rights="acknowledge-restricted")


def rows(artist: Artist, *access: str) -> list[dict[str, str]]:
    """An artist's kept works in the ledger, under these rights."""
    return [{"artist": artist.name, "decision": "kept", "rights": each} for each in access]


def card(folder: Path, artist: Artist, *access: str) -> Path:
    """An adapter's folder with the part of its card that speaks of rights."""
    folder.mkdir()
    fields = {"rights": cards.rights_of([artist], rows(artist, *access)), "dataset": {"works": len(access)}}
    (folder / "card.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


def test_statement_names_whom_it_was_acknowledged_for() -> None:
    """What is not open is counted, and the statement says for whose works the user spoke."""
    said = cards.rights_of([HOMER, PICASSO], [*rows(HOMER, "open"), *rows(PICASSO, "restricted", "unknown")])
    assert (said["open"], said["restricted"], said["unknown"]) == (1, 1, 1)
    assert said["acknowledged"] == ["Pablo Picasso"]
    assert said["statement"].startswith("2 of 3 training images are not known to be free to use.")
    assert "those of Pablo Picasso" in said["statement"]
    assert "Winslow Homer" not in said["statement"]
    assert cards.rights_of([HOMER], [*rows(HOMER, "open"), *rows(PICASSO, "open")])["statement"].startswith(
        "All 1 training images are open"
    )


def opened(folder: Path, metadata: dict[str, str] | None = None) -> AdapterFile:
    """A folder's adapter, whose tensors are of no interest."""
    folder.mkdir(exist_ok=True)
    path = folder / WEIGHTS_FILE
    path.write_bytes(b"weights")
    return AdapterFile((path,), "kohya", {}, {}, metadata or {})


def test_notice_of_a_picture_follows_its_adapters(tmp_path: Path) -> None:
    """A picture says what its adapters say; nothing where all is open, and that nothing is known of a stranger."""
    homer = opened(card(tmp_path / "homer", HOMER, "open", "open"))
    picasso = opened(card(tmp_path / "picasso", PICASSO, "restricted", "open"))
    stranger = opened(tmp_path / "stranger")
    assert cards.notice([homer]) == ""
    assert cards.notice([homer, picasso]).startswith("1 of 2 training images are not known to be free to use.")
    assert cards.notice([picasso, picasso]) == cards.notice([picasso])
    assert cards.notice([homer, stranger]) == UNKNOWN


UNKNOWN = (
    "The adapter pytorch_lora_weights.safetensors (SHA-256 9a129038d9a0) is from elsewhere; "
    "rights of the training images: unknown."
)


def test_notice_says_what_the_header_says(tmp_path: Path) -> None:
    """Of an adapter from elsewhere: author, licence, and of its training what kohya's scripts write."""
    header = {
        "modelspec.author": "Ann",
        "modelspec.license": "CC-BY-4.0",
        "ss_num_train_images": "40",
        "ss_steps": "1600",
        "ss_sd_model_name": "v2-1_512.safetensors",
        "ss_base_model_version": "sd_v2",
    }
    told = cards.notice([opened(tmp_path / "ann", header)])
    assert "; author: Ann; licence: CC-BY-4.0; trained: 40 images, 1600 steps, on v2-1_512.safetensors; " in told
    assert told.endswith("rights of the training images: unknown.")


def test_png_carries_its_notice() -> None:
    """The notice is in the file where image tools look for it; without one there is no such field."""
    image = Image.new("RGB", (8, 8))
    with Image.open(io.BytesIO(png_bytes(image, "p", {"a": 1}, rights="Ask before you share it."))) as told:
        assert told.info["Copyright"] == "Ask before you share it."
    with Image.open(io.BytesIO(png_bytes(image, "p", {"a": 1}))) as silent:
        assert "Copyright" not in silent.info


@pytest.mark.parametrize("text", ["{}", '{"rights": null}', '{"rights": {"open": 3}}'])
def test_card_without_rights_is_unknown(tmp_path: Path, text: str) -> None:
    """B10: a card of another program, which says nothing of rights, leaves them unknown; so does none."""
    assert cards.notice([opened(tmp_path)]) == UNKNOWN
    (tmp_path / "card.json").write_text(text, encoding="utf-8")
    assert cards.notice([opened(tmp_path)]) == UNKNOWN
