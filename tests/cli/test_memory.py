"""`avignon doctor --base`: what each setting takes, where it fits, and what cannot be told."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.support.commands import avignon, told

CPU = torch.device("cpu")


@pytest.fixture
def cells(tiny_sd: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The table of a tiny base on a machine without a card, by setting."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("avignon.models.runtime.best_device", lambda: CPU)
    code, out, _ = told(capsys, "doctor", "--base", tiny_sd)
    assert code == 0
    rows = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    return {name: own for name, *own in rows if own}


def test_memory_is_told_for_a_card_and_for_here(cells: dict[str, list[str]]) -> None:
    """In GiB, marked as estimated, with the smallest card that it fits; RAM fits no card, and offload is a card's."""
    assert cells["setting"] == ["a card", "here", "fits", "by"]
    for setting in ("train: nothing given up", "paint: one by one"):
        card, here, fits, by = cells[setting]
        assert card.endswith(" GiB")
        assert here.endswith(" GiB")
        assert (fits, by) == ("8GB, here", "estimated")
    card, here, by = cells["RAM to load the base"]
    assert (card, by) == (here, "estimated"), "loading takes the same wherever it is computed"
    assert cells["train: or train.offload"][1:] == ["8GB", "estimated"], "a processor has its weights in RAM anyway"


def test_a_base_that_does_not_say_its_size_is_a_line(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its memory depends on it, and `doctor` cannot guess."""
    base = shutil.copytree(tiny_sd, tmp_path / "base")
    config = base / "unet" / "config.json"
    unet = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**unet, "sample_size": None}), encoding="utf-8")
    code, errors = avignon(capsys, "doctor", "--base", base)
    assert (code, len(errors)) == (2, 1)
    assert "does not say at which size it was trained" in errors[0]
