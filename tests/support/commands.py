"""The program as its user meets it: commands in this process, and Python in one of its own."""

import subprocess
import sys

import pytest

from avignon.cli.main import main


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, list[str]]:
    """Run a command in this process: its exit code, stdout, and the lines on stderr."""
    with pytest.raises(SystemExit) as left:
        main([str(each) for each in arguments])
    assert isinstance(left.value.code, int)
    captured = capsys.readouterr()
    return left.value.code, captured.out, captured.err.splitlines()


def avignon(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str]]:
    """Run a command in this process: its exit code, and the lines on stderr."""
    code, _, errors = told(capsys, *arguments)
    return code, errors


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own."""
    command = [sys.executable, *(str(each) for each in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
