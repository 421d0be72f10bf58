"""The terminal's side of a run: help by job, lines, bars and JSON."""

import json
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from avignon import pipeline
from avignon.cli import console
from avignon.cli.main import JOBS, cli
from avignon.core.events import Event, StageDone, StageNote, StageProgress, StageSkipped, StageStarted, StageWarning
from tests.support.commands import told

EVENTS: tuple[Event, ...] = (
    StageSkipped("collect"),
    StageStarted("train"),
    StageNote("train", "[bold] is no markup"),
    StageProgress("train", "loss 0.5", 1, 4),
    StageProgress("train", "loss 0.4", 4, 4),
    StageWarning("train", "few works"),
    StageDone("train"),
)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_help_groups_commands_by_job(width: int) -> None:
    """Every command stands under its job with its whole first sentence, on one line of 80 cells."""
    text = CliRunner().invoke(cli, ["--help"], terminal_width=width).output
    words = " ".join(text.split())
    assert "..." not in text.partition("\n\n")[2], "nothing but the usage goes on elsewhere"
    places = []
    for job, commands in JOBS.items():
        assert f"\n{job}:\n" in text
        for command in commands:
            sentence = (command.help or "").split(".")[0] + "."
            assert sentence in (text if width >= 80 else words)
            places.append(text.index(f"\n  {command.name} "))
    assert places == sorted(places)
    assert {command.name for commands in JOBS.values() for command in commands} == cli.commands.keys()


def test_stage_commands_are_the_table_of_stages() -> None:
    """Each row of the table is a command with its help, and a choice of --until."""
    for stage in pipeline.STAGES:
        assert (cli.commands[stage.name].help or "").startswith(stage.help)
    (until,) = (option for option in cli.commands["run"].params if option.name == "until")
    assert isinstance(until.type, click.Choice)
    assert tuple(until.type.choices) == pipeline.NAMES


def shown(quiet: bool = False, as_json: bool = False) -> None:
    """Show all kinds of events."""
    with console.console(quiet, as_json) as listener:
        for event in EVENTS:
            listener(event)


def test_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A log has start, end, notes and what is skipped; progress now and then; warnings on stderr."""
    monkeypatch.setattr(console, "PACE", 0.0)
    shown()
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "collect: up to date",
        "train: start",
        "train: [bold] is no markup",
        "train: 1/4, about 0 s left; loss 0.5",
        "train: 4/4, about 0 s left; loss 0.4",
        "train: done in 0.0 s",
    ]
    assert told.err == "train: warning: few works\n"


def test_lines_of_progress_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress within ten seconds of the last line is not shown; quiet shows warnings alone."""
    shown()
    assert "loss" not in capsys.readouterr().out
    shown(quiet=True)
    assert capsys.readouterr() == ("", "train: warning: few works\n")


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Each event is a line of JSON, warnings too."""
    shown(as_json=True)
    told = capsys.readouterr()
    assert [json.loads(line)["kind"] for line in told.out.splitlines()] == [event.kind for event in EVENTS]
    assert told.err == ""


def test_bars(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a stage is a bar; notes, warnings and what is skipped stand above it, as they are."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    shown()
    out = capsys.readouterr().out
    for text in ("collect   up to date", "train     [bold] is no markup", "train     few works", "4/4", "done"):
        assert text in out


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that there is not is told, with exit code 2."""
    code, _, errors = told(capsys, "paint")
    assert code == 2
    assert "No such command 'paint'" in errors[-1]


def test_a_fault_is_one_line_whatever_is_named_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name in somebody's file may have control characters, which terminals obey, line breaks, or many letters."""
    path = tmp_path / "theirs.safetensors"
    save_file({"a\n\x1b]0;mine\x07" + "x" * 100_000: torch.ones(1)}, path)
    code, _, errors = told(capsys, "import", path)
    assert code == 2
    (line,) = errors
    assert line.isprintable()
    assert "a \\x1b]0;mine\\x07xxx" in line
    assert len(line) < 2100
