"""Commands on a museum: what it has of an artist, and its tables."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avignon.cli.tables import print_table
from avignon.core.errors import InputError
from avignon.core.naming import NOT_UTF8, shown
from avignon.museums import registry

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from avignon.core.records import Found
    from avignon.museums.catalog import Catalog
    from avignon.museums.protocol import Museum

TABLES = click.option("--tables", default="", help=registry.MUSEUMS[0].help)


def _museum_options(command: Callable[..., None]) -> Callable[..., None]:
    for row in reversed(registry.MUSEUMS):
        command = click.option(f"--{row.option}", is_flag=not row.field, metavar=row.metavar, help=row.help)(command)
    return command


@click.command()
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
    row, value = registry.chosen(options)
    if row.is_folder:
        if not value.strip():
            raise InputError(f"--{row.option} is empty; a directory is needed, `.` for this one")
        value = str(Path(value).resolve())
        if shown(value) != value:
            raise InputError(f"{shown(value)}: {NOT_UTF8}")
    return row.listed(value, lambda text: click.echo(f"avignon: warning: {text}", err=True))


def _print_works(artist: str, found: "Sequence[Found]") -> None:
    from avignon.core.text import strip_markup

    header = ("id", "title", "date", "medium", "class", "pixels", "rights", "note", "page")
    rows = []
    for each in found:
        work, note = each.work, each.decision.reason if each.decision else ""
        what = (work.object_id, strip_markup(work.title), work.date, work.medium, work.classification)
        rows.append((*what, f"{work.width}×{work.height}", work.rights.brief, note, work.page))
    print_table(f"{artist}: {len(rows)} works", header, rows)


def _print_query(tables: str | None, sql: str, as_csv: bool, as_json: bool) -> None:
    from avignon.core.records import NGA_TABLES
    from avignon.museums.nga import catalog_of

    columns, rows = catalog_of(tables or NGA_TABLES).query(sql)
    if as_json:
        for row in rows:
            click.echo(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, default=str))
    elif as_csv:
        import csv

        csv.writer(sys.stdout, lineterminator="\n").writerows([columns, *rows])
    else:
        cells = [tuple("" if value is None else " ".join(str(value).split()) for value in row) for row in rows]
        print_table(f"{len(rows)} rows", tuple(columns), cells)


@click.group()
def catalog() -> None:
    """Keep a museum's tables at hand: update them, or say what is there."""


@catalog.command("update")
@TABLES
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
@TABLES
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
    print_table("catalog", ("what", "here"), rows)
