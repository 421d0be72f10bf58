"""The command line: all commands by their job, and exit codes. It owns the terminal, and alone catches broadly."""

import os
import re
import sys
from typing import Any

import click

from avignon import __version__
from avignon.cli.adapters import export, merge, publish
from avignon.cli.doctor import doctor
from avignon.cli.imports import adapters, import_adapter
from avignon.cli.museum import catalog, works
from avignon.cli.run import new, recipes, run, stages
from avignon.cli.standalone import sample
from avignon.core.errors import AvignonError, InputError
from avignon.core.naming import NOT_UTF8, shown

JOBS: dict[str, tuple[click.Command, ...]] = {
    "The run and its stages, in their order": (new, recipes, run, *stages),
    "Adapters": (sample, import_adapter, adapters, export, merge, publish),
    "Museum": (works, catalog),
    "Machine": (doctor,),
}

LONGEST = 2000
"""Characters of a line about a fault: a name of a tensor in somebody's file may have millions."""


class _ByJob(click.Group):
    """Lists the commands by their job, each with its whole first sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        for job, commands in JOBS.items():
            with formatter.section(job):
                formatter.write_dl([(str(each.name), each.get_short_help_str(limit=1000)) for each in commands])


@click.group(
    cls=_ByJob,
    commands=[command for commands in JOBS.values() for command in commands],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="avignon")
def cli() -> None:
    """A dialogue of eras: two artists from a museum's open data, two LoRA adapters, a series of images between them."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 the input is at fault, 130 interrupted, 1 anything else."""
    for library in ("TRANSFORMERS", "DIFFUSERS"):  # Their hints are for their callers, not for our users.
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    try:
        code: Any = cli.main(arguments, prog_name="avignon", standalone_mode=False)
        sys.exit(code or 0)
    except click.ClickException as misused:
        misused.show()
        sys.exit(2)
    except AvignonError as failed:
        _complain(failed)
        sys.exit(2 if isinstance(failed, InputError) else 1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("avignon: interrupted; what was done is kept, the same command goes on from there", err=True)
        sys.exit(130)
    except UnicodeEncodeError as garbled:
        sys.exit(_misnamed(garbled))
    except Exception as unforeseen:
        if os.environ.get("AVIGNON_DEBUG"):
            raise
        _complain(f"{type(unforeseen).__name__}: {unforeseen} (AVIGNON_DEBUG=1 shows where)")
        sys.exit(1)


def _misnamed(garbled: UnicodeEncodeError) -> int:
    """Say which name of a file is not UTF-8, where that is what could not be written; the exit code."""
    if not all("\udc80" <= letter <= "\udcff" for letter in garbled.object[garbled.start : garbled.end]):
        _complain(f"UnicodeEncodeError: {garbled} (set the terminal, or PYTHONIOENCODING, to UTF-8)")
        return 1
    before, after = garbled.object[: garbled.start], garbled.object[garbled.start :]
    name = re.split(r"[\"\n]", before)[-1] + re.split(r"[\"\n]", after)[0]  # Out of a text of many, as JSON is.
    _complain(f"{shown(name)}: {NOT_UTF8}")
    return 2


def _complain(what: object) -> None:
    """One line, whatever line breaks or control characters a file's name or a library's message holds."""
    line = " ".join(str(what).split())
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
    click.echo(f"avignon: {''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line)}", err=True)
