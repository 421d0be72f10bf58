"""What adapters and their pictures say of the rights of what they were made from."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from avignon.adapters import cards
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


def test_notice_of_a_picture_follows_its_adapters(tmp_path: Path) -> None:
    """A picture says what its adapters say; nothing where all is open, and that nothing is known of a stranger."""
    homer = card(tmp_path / "homer", HOMER, "open", "open")
    picasso = card(tmp_path / "picasso", PICASSO, "restricted", "open")
    stranger = tmp_path / "stranger"
    assert cards.notice([homer]) == ""
    assert cards.notice([homer, picasso]).startswith("1 of 2 training images are not known to be free to use.")
    assert cards.notice([picasso, picasso]) == cards.notice([picasso])
    assert cards.notice([homer, stranger]) == "It is not known what the adapter stranger learned from."


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
    unknown = f"It is not known what the adapter {tmp_path.name} learned from."
    assert cards.notice([tmp_path]) == unknown
    (tmp_path / "card.json").write_text(text, encoding="utf-8")
    assert cards.notice([tmp_path]) == unknown
