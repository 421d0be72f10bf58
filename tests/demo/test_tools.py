"""The tools that made what ships: the museum's tables again, and the miniature's training in a few steps."""

from pathlib import Path

import pytest
import torch

from tests.support.paths import ROOT
from tools import make_museum
from tools.train_miniature import __main__ as entry
from tools.train_miniature import settings, training

TABLES = ROOT / "src" / "avignon" / "demo" / "tables"
RATE = training.learning_rate


def rate_of_two_steps(step: int, steps: int, peak: float) -> float:
    """The learning rate, until an interrupt in the third step."""
    if step == 2:
        raise KeyboardInterrupt
    return RATE(step, steps, peak)


def test_museum_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tools/make_museum.py` writes the tables that ship, byte for byte."""
    monkeypatch.setattr(make_museum, "TABLES", tmp_path)
    make_museum.main()
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in TABLES.iterdir()}


@pytest.mark.slow
def test_training_of_a_part_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps of the text encoder, interrupted after two and run again, end with the weights of one run."""
    monkeypatch.setattr(training, "EVERY", 1)
    monkeypatch.setattr("sys.argv", ["train_miniature", "words", "--steps", "3"])
    states = []
    for place, interrupted in (("whole", False), ("parts", True)):
        monkeypatch.setattr(settings, "CACHE", tmp_path / place)
        monkeypatch.setattr(settings, "DOCS", tmp_path / place / "curves")
        if interrupted:
            with monkeypatch.context() as patch:
                patch.setattr(training, "learning_rate", rate_of_two_steps)
                with pytest.raises(KeyboardInterrupt):
                    entry.main()
        entry.main()
        states.append(torch.load(tmp_path / place / "words.pt", weights_only=True))
    assert all(state["step"] == 3 for state in states)
    whole, parts = (state["average"] for state in states)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
