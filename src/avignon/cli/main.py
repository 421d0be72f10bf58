"""The command line: parse, call one function, print. It owns the terminal, and alone catches broadly."""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from avignon import __version__
from avignon.core.errors import AvignonError, InputError
from avignon.core.naming import shown
from avignon.museums import registry

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.progress import TaskID

    from avignon.core.events import Event
    from avignon.core.records import Found
    from avignon.museums.catalog import Catalog
    from avignon.museums.protocol import Museum

STAGES = {
    "collect": "Find the artists' works in the museum and fetch the images.",
    "curate": "Decide which works to train on; write the ledger.",
    "prepare": "Crop, resample and caption the kept works.",
    "train": "Train the LoRA adapters.",
    "generate": "Make the series of pictures.",
    "evaluate": "Measure the series.",
    "exhibit": "Make the page.",
}

Command = Callable[..., None]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="avignon")
def cli() -> None:
    """A dialogue of eras: two artists from a museum's open data, two LoRA adapters, a series of images between them."""


def _run_options(command: Command) -> Command:
    """The options that every command on a recipe takes."""
    for decorate in reversed(
        (
            click.argument("recipe", type=click.Path(path_type=Path)),
            click.option(
                "--workspace",
                default="runs",
                type=click.Path(path_type=Path),
                show_default=True,
                help="Folder of the runs.",
            ),
            click.option(
                "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value, as train.steps=50."
            ),
            click.option("--quiet", is_flag=True, help="Print only warnings, errors and the page's path."),
            click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one a line, for programs."),
        )
    ):
        command = decorate(command)
    return command


@cli.command()
@_run_options
@click.option("--until", type=click.Choice(tuple(STAGES)), default="exhibit", help="Last stage to do.")
def run(recipe: Path, workspace: Path, overrides: tuple[str, ...], quiet: bool, as_json: bool, until: str) -> None:
    """Carry RECIPE from the museum to the page: every stage that is not up to date."""
    _carry(recipe, workspace, overrides, quiet, as_json, until)


def _stage_command(name: str) -> None:
    @cli.command(name, help=f"{STAGES[name]} Stages before it are done where they are not up to date.")
    @_run_options
    def command(recipe: Path, workspace: Path, overrides: tuple[str, ...], quiet: bool, as_json: bool) -> None:
        _carry(recipe, workspace, overrides, quiet, as_json, name)


for _name in STAGES:
    _stage_command(_name)


def _carry(recipe: Path, workspace: Path, overrides: tuple[str, ...], quiet: bool, as_json: bool, until: str) -> None:
    from avignon import pipeline
    from avignon.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    with _console(quiet, as_json) as console:
        space = pipeline.run(loaded, workspace, console.hear, until=until)
    if until == "exhibit" and not as_json:
        click.echo(space.page)


def _museum_options(command: Command) -> Command:
    """An option for each museum."""
    for row in reversed(registry.MUSEUMS):
        option = click.option(f"--{row.option}", is_flag=not row.field, metavar=row.metavar, help=row.help)
        command = option(command)
    return command


@cli.command()
@click.argument("artist", default="")
@_museum_options
@click.option("--open-only", is_flag=True, help="Only the artist's own works whose images are open.")
@click.option(
    "--classification", multiple=True, metavar="NAME", help="Only works of this class, as Painting; repeatable."
)
@click.option("--between", type=(int, int), metavar="YEAR YEAR", help="Only works made within these years.")
@click.option("--min-size", type=click.IntRange(min=0), default=0, metavar="PIXELS", help="Least short side.")
@click.option("--like", default="", metavar="TEXT", help="Words in title, terms or description.")
@click.option("--sql", default="", metavar="QUERY", help="Ask the museum's tables in DuckDB's SQL, without an ARTIST.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--decisions", type=click.Path(path_type=Path), help="Also write a decisions file to edit.")
def works(artist: str, sql: str, as_csv: bool, as_json: bool, decisions: Path | None, **options: Any) -> None:
    """List what a museum has of ARTIST, and under which rights."""
    museum_options = {row.option: options.pop(row.option) for row in registry.MUSEUMS}
    if sql:
        _print_query(museum_options["tables"], sql, as_csv, as_json)
        return
    from avignon.core.records import plain
    from avignon.museums import filters
    from avignon.museums.protocol import ArtistQuery

    if not artist.strip():
        raise InputError("ARTIST is empty; a name is needed")
    wanted = filters.WorkFilter(**options)
    with _museum(museum_options) as museum:
        found = [each for each in museum.find(ArtistQuery(artist)) if wanted.matches(each)]
    if decisions:
        from avignon.curation.decisions import write

        write(decisions, found)
    if as_json:
        for each in found:
            click.echo(json.dumps(plain(each), ensure_ascii=False))
    elif as_csv:
        click.echo(filters.as_csv(found), nl=False)
    else:
        _print_works(artist, found)


def _museum(options: Mapping[str, Any]) -> "AbstractContextManager[Museum]":
    """The museum that the options name."""
    row, value = registry.chosen(options)
    if row.is_folder:
        if not value.strip():
            raise InputError(f"--{row.option} is empty; a directory is needed, `.` for this one")
        value = str(Path(value).resolve())
        if shown(value) != value:
            raise InputError(f"{shown(value)}: {_NOT_UTF8}")
    return row.listed(value, lambda text: click.echo(f"avignon: warning: {text}", err=True))


def _print_works(artist: str, found: "Sequence[Found]") -> None:
    from avignon.core.wording import unmarked

    header = ("id", "title", "date", "medium", "class", "pixels", "rights", "note", "page")
    rows = [
        (
            each.work.object_id,
            unmarked(each.work.title),
            each.work.date,
            each.work.medium,
            each.work.classification,
            f"{each.work.width}×{each.work.height}",
            each.work.rights.brief,
            each.decision.reason if each.decision else "",
            each.work.page,
        )
        for each in found
    ]
    _print_table(f"{artist}: {len(rows)} works", header, rows)


def _print_query(tables: str | None, sql: str, as_csv: bool, as_json: bool) -> None:
    """Answer a user's own SQL from the catalog."""
    from avignon.core.records import NGA_TABLES
    from avignon.museums.nga import catalog_of

    columns, rows = catalog_of(tables or NGA_TABLES).query(sql)
    if as_json:
        for row in rows:
            click.echo(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, default=str))
    elif as_csv:
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([columns, *rows])
    else:
        cells = [tuple("" if value is None else " ".join(str(value).split()) for value in row) for row in rows]
        _print_table(f"{len(rows)} rows", tuple(columns), cells)


@cli.group()
def catalog() -> None:
    """Keep a museum's tables at hand: update them, or say what is there."""


def _tables_option(command: Command) -> Command:
    return click.option(
        "--tables", default="", help="URL of the museum's tables, or `embedded`; the National Gallery's by default."
    )(command)


@catalog.command("update")
@_tables_option
@click.option("--accept-fewer", is_flag=True, help="Accept tables that have lost more than a tenth of their rows.")
def catalog_update(tables: str, accept_fewer: bool) -> None:
    """Fetch the tables that have changed, check them, and exchange the catalog for the new one."""
    from avignon.core.records import NGA_TABLES
    from avignon.museums import catalog as kept
    from avignon.museums.nga import address, client

    source = tables or NGA_TABLES
    with client(source) as fetcher:
        updated = kept.update(address(source), fetcher, accept_fewer=accept_fewer)
    _print_catalog(updated)
    if not updated.about.confirmed:
        raise InputError(f"{source}: not all tables could be asked for; what is shown is what was there")


@catalog.command("info")
@_tables_option
def catalog_info(tables: str) -> None:
    """Say which export the catalog was built from, and what it holds; the network is not asked."""
    from avignon.core.records import NGA_TABLES
    from avignon.museums import catalog as kept
    from avignon.museums.nga import address

    source = tables or NGA_TABLES
    held = kept.held(address(source))
    if held is None:
        raise InputError(f"{source}: no catalog yet; `avignon catalog update` makes one")
    _print_catalog(held)


def _print_catalog(held: "Catalog") -> None:
    about = held.about
    rows = [
        ("tables", about.tables),
        ("commit", f"{about.commit} of {about.committed}" if about.commit else "not known"),
        ("built", about.fetched),
        ("file", f"{held.path}, {held.path.stat().st_size / 1e6:.0f} MB"),
        *((f"  {table}", f"{count:,} rows") for table, count in about.rows.items()),
    ]
    _print_table("catalog", ("what", "here"), rows)


@cli.command()
def doctor() -> None:
    """Say what this machine offers: device, precision, attention, memory, disk, and what can be reached."""
    import platform

    import torch

    from avignon.core.files import cache_folder
    from avignon.core.records import NGA_TABLES
    from avignon.models.stable_diffusion import model as diffusion
    from avignon.museums.http import reachable

    device = diffusion.device()
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    rows = [
        ("avignon", __version__),
        ("python, torch", f"{platform.python_version()}, {torch.__version__}"),
        ("device", f"{device}" + (f" ({torch.cuda.get_device_name()})" if device.type == "cuda" else "")),
        ("processor cores", str(os.cpu_count())),
        ("precision", diffusion.precision_for("auto", "train", device)),
        ("attention", diffusion.attention_for("auto", device)),
        ("memory", f"{memory / 2**30:.1f} GiB" if memory else "unknown"),
        ("free disk here", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB"),
        ("tables' cache", str(cache_folder())),
        ("museum", reachable(f"{NGA_TABLES}/objects.csv")),
        ("model hub", reachable(hub)),
    ]  # fmt: skip
    if device.type == "cuda":
        rows.insert(7, ("GPU memory", f"{torch.cuda.mem_get_info()[1] / 2**30:.1f} GiB"))
    _print_table("doctor", ("what", "here"), rows)


def _print_table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from avignon.cli import tables as columns

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
    click.echo("\n".join(columns.table(title, header, rows, width)))


class _Json:
    """Events for programs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def hear(self, event: "Event") -> None:
        from avignon.core.records import plain

        click.echo(json.dumps(plain(event), ensure_ascii=False))


class _Lines(_Json):
    """Plain lines, for a log: at most one a stage every ten seconds, besides its start and end."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._started = self._said = 0.0

    def hear(self, event: "Event") -> None:
        now = time.monotonic()
        if event.kind == "start":
            self._started = self._said = now
        if event.kind == "warning":
            click.echo(f"{event.stage}: warning: {event.text}", err=True)
        elif not self._quiet and not (event.kind == "progress" and now - self._said < 10):
            click.echo(f"{event.stage}: {self._line(event, now)}")
            self._said = now

    def _line(self, event: "Event", now: float) -> str:
        seconds = now - self._started
        if event.kind == "done":
            return f"done in {seconds:.1f} s"
        if event.kind == "progress":
            left = seconds / max(event.done, 1) * (event.total - event.done)
            return f"{event.done}/{event.total}, about {left:.0f} s left; {event.text}"
        return event.text or event.kind


class _Bars:
    """A progress bar with rate and time left, on a terminal."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress: Progress = Progress(
            TextColumn("[bold]{task.fields[stage]:<9}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self._task: TaskID | None = None
        self._first = (0, 0.0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def hear(self, event: "Event") -> None:
        from rich.text import Text

        if event.kind in ("note", "warning", "skipped"):
            self._progress.console.print(
                Text(f"{event.stage:<9} {event.text}", style="yellow" if event.kind == "warning" else "dim")
            )
        elif event.kind == "start":
            self._task = self._progress.add_task("", total=None, stage=event.stage, rate="")
            self._first = (-1, 0.0)
        elif self._task is not None and event.kind == "progress":
            self._update(self._task, event)
        elif self._task is not None:
            total = self._progress.tasks[-1].total or 1
            self._progress.update(self._task, total=total, completed=total, description="done")

    def _update(self, task: "TaskID", event: "Event") -> None:
        now = time.monotonic()
        if self._first[0] < 0 or event.done < self._first[0]:
            self._first = (event.done, now)  # Counted from the first event: a resumed stage starts in the middle.
        pieces, seconds = event.done - self._first[0], now - self._first[1]
        rate = f"{pieces / seconds:.1f}/s" if seconds > 0 and pieces else ""
        self._progress.update(task, total=event.total, completed=event.done, description=event.text[:60], rate=rate)


def _console(quiet: bool, as_json: bool) -> "_Json | _Lines | _Bars":
    if as_json:
        return _Json()
    return _Bars() if sys.stdout.isatty() and not quiet else _Lines(quiet)


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
    except InputError as fault:
        _complain(fault)
        sys.exit(2)
    except AvignonError as failed:
        _complain(failed)
        sys.exit(1)
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


_NOT_UTF8 = "a name that is not UTF-8; give the file or folder another"


def _misnamed(garbled: UnicodeEncodeError) -> int:
    """Say which name of a file is not UTF-8, where that is what could not be written; the exit code."""
    if not all("\udc80" <= letter <= "\udcff" for letter in garbled.object[garbled.start : garbled.end]):
        _complain(f"UnicodeEncodeError: {garbled} (set the terminal, or PYTHONIOENCODING, to UTF-8)")
        return 1
    before, after = garbled.object[: garbled.start], garbled.object[garbled.start :]
    name = re.split(r"[\"\n]", before)[-1] + re.split(r"[\"\n]", after)[0]  # Out of a text of many, as JSON is.
    _complain(f"{shown(name)}: {_NOT_UTF8}")
    return 2


def _complain(what: object) -> None:
    """One line, whatever line breaks a file's name or a library's message holds."""
    click.echo(f"avignon: {' '.join(str(what).split())}", err=True)
