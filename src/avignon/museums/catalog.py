"""The National Gallery's tables as one DuckDB file in the user's cache.

    fetch each table (ETag, resumed) → check columns, rows, encoding → build beside → rename

A broken or half-fetched export never replaces a good catalog, and whoever reads one meanwhile goes on reading it.
Tables: https://github.com/NationalGalleryOfArt/opendata, columns by name, in the older and the newer sets. Ids, years
and sizes are numbers; all else is the export's own text (`maxpixels` and `openaccess` too: what is not understood must
not turn into "nothing").
"""

import csv
import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _duckdb as duckdb  # DuckDB's own module: the package around it takes four times as long to import.

from avignon.core.errors import FetchError, InputError
from avignon.core.files import CACHE_ELSEWHERE, cache_folder, replacing, storing
from avignon.museums import names, tables

if TYPE_CHECKING:
    from avignon.museums.http import Fetcher

Row = dict[str, Any]

VERSION = 2
"""Of what this module builds; a catalog of another version is built anew."""

FEWEST = 0.9
"""Share of its rows that a table must keep from export to export; no collection loses a tenth overnight."""

MEMORY = "640MB"
"""DuckDB's own limit while it builds; the process around it takes about 100 MB more."""

COMMITS = "https://api.github.com/repos/{}/commits?sha={}&path={}&per_page=1"
"""https://docs.github.com/en/rest/commits/commits#list-commits"""

_RAW = re.compile(r"https://raw\.githubusercontent\.com/(?P<repo>[^/]+/[^/]+)/(?P<ref>[^/]+)/(?P<path>.+)")

_IDS = ("objectid", "constituentid", "depictstmsobjectid")
_NUMBERS = (*_IDS, "termid", "displayorder", "beginyear", "endyear", "year", "width", "height", "parentid")

_NEEDED = {
    "objects": "objectid accessionnum title displaydate medium classification creditline",
    "constituents": "constituentid preferreddisplayname forwarddisplayname displaydate endyear artistofngaobject",
    "objects_constituents": "objectid constituentid roletype role prefix",
    "published_images": "iiifurl viewtype sequence width height maxpixels depictstmsobjectid",
    "objects_terms": "objectid termtype term",
    "objects_dimensions": "objectid element dimensiontype dimension unitname",
    "objects_text_entries": "objectid text texttype year",
    "constituents_altnames": "constituentid displayname",
}
"""The tables and the columns without which each says nothing."""

_SPARED = ("objects_dimensions", "objects_text_entries", "constituents_altnames")
"""Tables without which works are found all the same: older exports lack one, and the others are for `--sql`."""


@dataclass(frozen=True)
class About:
    """What a catalog was built from."""

    tables: str
    """The folder of the export."""
    fetched: str
    """When the catalog was built, UTC."""
    commit: str = ""
    """The export's commit, where the tables lie in a public repository on GitHub."""
    committed: str = ""
    """When that commit was made."""
    version: int = VERSION
    rows: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    """Size and time of each table's file; the same files need no new catalog."""
    confirmed: bool = True
    """Whether the server said, when last asked, that this is the present export."""


@dataclass(frozen=True)
class Catalog:
    """A built catalog. Each block of questions opens the file anew, so that a newer one is seen by the next."""

    path: Path
    about: About

    @contextmanager
    def asked(self) -> Iterator[Callable[..., list[Row]]]:
        """A function that takes SQL and values, and gives rows as dictionaries."""
        with _opened(self.path) as connection:

            def rows(sql: str, *values: object) -> list[Row]:
                answer = connection.execute(sql, values)
                columns = [column[0] for column in answer.description]
                return [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]

            yield rows

    def query(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Columns and rows of a user's own SQL. The file is read-only, and nothing outside it can be reached.

        Raises:
            InputError: DuckDB does not understand it.
        """
        with _opened(self.path) as connection:
            try:
                connection.execute("RESET threads; SET enable_external_access = false; SET lock_configuration = true")
                answer = connection.execute(sql)
                return [column[0] for column in answer.description or ()], answer.fetchall()
            except duckdb.Error as refused:
                raise InputError(f"--sql: {' '.join(str(refused).split())}") from None


def place(source: str) -> Path:
    """Where the catalog of a folder of tables is kept."""
    return cache_folder() / f"catalog-{hashlib.sha256(source.encode()).hexdigest()[:16]}.duckdb"


def _opened(path: Path) -> duckdb.DuckDBPyConnection:
    """A connection that reads. One thread: a question takes milliseconds, and starting threads takes more of them."""
    return duckdb.connect(str(path), read_only=True, config={"threads": 1})


@contextmanager
def present(source: str) -> Iterator[Catalog | None]:
    """The catalog in the cache; None where there is none, or one that this version cannot read.

    Its file stays open for the block: connections of one process share it, and opening it takes longer than a query.
    """
    path, catalog = place(source), None
    with ExitStack() as stack:
        with suppress(duckdb.Error, ValueError, TypeError, LookupError):
            if path.exists():
                connection = stack.enter_context(_opened(path))
                (text,) = connection.execute("SELECT json FROM about").fetchall()[0]
                about = About(**json.loads(text))
                catalog = Catalog(path, about) if about.version == VERSION else None
        yield catalog


def held(source: str) -> Catalog | None:
    """The catalog in the cache, as `present`, but closed: it may be replaced meanwhile."""
    with present(source) as catalog:
        return catalog


def current(source: str, fetcher: "Fetcher", warn: Callable[[str], None]) -> Catalog:
    """The catalog of the present export; the earlier one, with a warning, where the export cannot be used."""
    try:
        return update(source, fetcher)
    except InputError as broken:
        catalog = held(source)
        if catalog is None:
            raise
        warn(f"{broken}; the catalog of {catalog.about.fetched} is used")
        return catalog


def update(source: str, fetcher: "Fetcher", *, accept_fewer: bool = False) -> Catalog:
    """Fetch what has changed, check it, and build the catalog anew if anything did. Two processes take turns.

    `accept_fewer` takes an export in which a table has lost more than a tenth of its rows.

    Raises:
        InputError: a table is unavailable, or not what it should be; the present catalog stays.
    """
    from filelock import FileLock  # Here, so that listing does not wait for it.

    path = place(source)
    with storing(path, CACHE_ELSEWHERE):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            files, about = _fetched(source, fetcher)
            known = held(source)
            if known and known.about.files == about.files:
                return Catalog(path, dataclasses.replace(known.about, confirmed=about.confirmed))
            return _built(path, files, about, {} if accept_fewer or not known else known.about.rows)


def _fetched(source: str, fetcher: "Fetcher") -> tuple[dict[str, Path], About]:
    """The file of each table, of one commit where the repository names it: never halves of two exports."""
    folder, commit, committed = _pinned(source.rstrip("/"), fetcher)
    files: dict[str, Path] = {}
    confirmed = True
    for table in _NEEDED:
        try:
            files[table], fresh = fetcher.table(f"{folder}/{table}.csv", known_as=_name(source, table))
            confirmed = confirmed and fresh
        except FetchError as missing:
            if table not in _SPARED:
                raise
            confirmed = confirmed and missing.status in (404, 410)  # Else it may be there, and is asked for next time.
    states = {table: path.stat() for table, path in files.items()}
    identity = {table: [state.st_size, state.st_mtime_ns] for table, state in states.items()}
    known = (commit, committed) if confirmed else ("", "")
    return files, About(source, "", *known, files=identity, confirmed=confirmed)


def _name(source: str, table: str) -> str:
    return f"{source.rstrip('/')}/{table}.csv"


def _pinned(folder: str, fetcher: "Fetcher") -> tuple[str, str, str]:
    """The folder at its newest commit, that commit and its date; the folder as it is where the commit is unknown."""
    found = _RAW.fullmatch(folder)
    with suppress(FetchError, ValueError, LookupError, TypeError):
        if found:
            answer = fetcher.get(COMMITS.format(found["repo"], found["ref"], found["path"]), limit=10**6)
            newest = json.loads(answer.content)[0]
            commit, date = str(newest["sha"]), str(newest["commit"]["committer"]["date"])
            if re.fullmatch(r"[0-9a-f]{40}", commit):
                return f"https://raw.githubusercontent.com/{found['repo']}/{commit}/{found['path']}", commit, date
    return folder, "", ""


def _built(path: Path, files: Mapping[str, Path], about: About, before: Mapping[str, int]) -> Catalog:
    """Build beside and rename; `before` has how many rows each table had."""
    counts: dict[str, int] = {}
    with replacing(path, CACHE_ELSEWHERE) as scratch:
        scratch.unlink(missing_ok=True)  # A build that was killed leaves a file that DuckDB would go on with.
        with duckdb.connect(str(scratch), config={"memory_limit": MEMORY, "threads": 2}) as connection:
            for table, file in files.items():
                try:
                    counts[table] = _load(connection, table, file, _name(about.tables, table), before.get(table, 0))
                except InputError:
                    file.unlink()  # Or the server would go on saying that this very file is the present one.
                    raise
            _index_names(connection)
            now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            about = dataclasses.replace(about, fetched=now, rows=counts)
            connection.execute("CREATE TABLE about AS SELECT ? AS json", [json.dumps(dataclasses.asdict(about))])
    return Catalog(path, about)


def _load(connection: duckdb.DuckDBPyConnection, table: str, file: Path, name: str, before: int) -> int:
    """Read a CSV file into a table; how many rows it has. An error if it is broken, or has far fewer than `before`."""
    needed = tuple(_NEEDED[table].split())
    next(tables.rows(file, needed, name), None)  # An error where one of these columns is missing.
    with file.open(encoding="utf-8-sig", newline="") as text:
        columns = next(csv.reader(text))
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise InputError(f"{name}: column {twice[0]} is there twice")
    texts = ", ".join(f"{_literal(column)}: 'VARCHAR'" for column in columns)
    options = (
        "auto_detect=false, header=true, delim=',', quote='\"', escape='\"', max_line_size=16777216, "
        f"columns={{{texts}}}, force_not_null=[{', '.join(map(_literal, columns))}]"
    )
    fields = ", ".join(map(_typed, columns))
    try:
        connection.execute(f"CREATE TABLE {table} AS SELECT {fields} FROM read_csv({_literal(str(file))}, {options})")
    except duckdb.Error as refused:
        for _ in tables.rows(file, needed, name):  # The slow reader names the line that the fast one tripped over.
            pass
        raise InputError(f"{name}: not CSV: {str(refused).splitlines()[0]}") from None
    for column in set(needed).intersection(_IDS):
        if connection.execute(f"SELECT count(*) FROM {table} WHERE {column} IS NULL").fetchall()[0][0]:
            raise InputError(f"{name}: column {column}: a row has no number there")
    count = int(connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])
    if count < before * FEWEST:
        raise InputError(
            f"{name}: has {count:,} rows where the last export had {before:,}; it looks half-made: try again later, or "
            "accept it with `avignon catalog update --accept-fewer`"
        )
    return count


def _literal(text: str) -> str:
    """Text inside SQL: a table cannot be created from a prepared statement's values."""
    return "'" + text.replace("'", "''") + "'"


def _typed(column: str) -> str:
    quoted = '"' + column.replace('"', '""') + '"'
    kind = "BIGINT" if column in _NUMBERS else "DOUBLE" if column == "dimension" else ""
    # `trim` keeps the cast out of DuckDB's CSV reader, whose own conversion fails at an empty field.
    return f"TRY_CAST(trim({quoted}) AS {kind}) AS {quoted}" if kind else quoted


_MAIN_NAMES = """
    SELECT false, constituentid, unnest([preferreddisplayname, forwarddisplayname]),
        coalesce(nullif(forwarddisplayname, ''), preferreddisplayname)
    FROM constituents WHERE artistofngaobject <> '0'
"""
_OTHER_NAMES = """
    SELECT true, other.constituentid, unnest([other.displayname, {forward}]),
        coalesce(nullif({forward}, ''), other.displayname)
    FROM constituents_altnames other JOIN constituents person USING (constituentid)
    WHERE person.artistofngaobject <> '0'
"""


def _index_names(connection: duckdb.DuckDBPyConnection) -> None:
    """A table of names for comparison: both forms of each name of an artist, and the one that is shown.

    `other` marks the names in `constituents_altnames`, which older exports lack.
    """
    sql = "SELECT column_name FROM information_schema.columns WHERE table_name = 'constituents_altnames'"
    columns = [row[0] for row in connection.execute(sql).fetchall()]
    rows = connection.execute(_MAIN_NAMES).fetchall()
    if columns:
        forward = "other.forwarddisplayname" if "forwarddisplayname" in columns else "''"
        rows += connection.execute(_OTHER_NAMES.format(forward=forward)).fetchall()
    keyed = sorted({(names.key(name), number, shown, other) for other, number, name, shown in rows if name})
    connection.execute("CREATE TABLE names (key VARCHAR, constituentid BIGINT, name VARCHAR, other BOOLEAN)")
    if keyed:
        lists = [list(column) for column in zip(*keyed, strict=True)]
        connection.execute("INSERT INTO names SELECT unnest($1), unnest($2), unnest($3), unnest($4)", lists)
