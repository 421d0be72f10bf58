"""The catalog of a museum's tables: exchanged whole or not at all, and quick to ask."""

import codecs
import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import httpx
import pytest

from avignon.cli import main as cli
from avignon.core.errors import FetchError, InputError
from avignon.core.files import cache_folder
from avignon.curation import decisions
from avignon.museums import catalog
from avignon.museums.http import USER_AGENT, Fetcher
from avignon.museums.nga import Nga
from avignon.museums.protocol import ArtistQuery
from tests.support import Asked, Reply, fullsize
from tests.support.museum import Fault, LocalMuseum, fill
from tests.support.tables import FromFolder

Captured = pytest.CaptureFixture[str]


class Ranged(LocalMuseum):
    """A museum whose tables can be had in parts, as its real server gives them."""

    asked: list[Asked]

    def answer(self, asked: Asked) -> Reply:
        """Serve the rest of a file to who asks for it under its own ETag."""
        self.asked = [*getattr(self, "asked", []), asked]
        reply = super().answer(asked)
        begin = asked.headers.get("range", "").removeprefix("bytes=").removesuffix("-")
        if not begin or reply.status != 200 or asked.headers.get("if-range") != reply.headers.get("ETag"):
            return reply
        body = reply.body[int(begin) :]
        place = f"bytes {begin}-{len(reply.body) - 1}/{len(reply.body)}"
        if not body:
            return Reply(416, b"")
        return Reply(206, body, {**reply.headers, "Content-Range": place}, reply.cut_after, reply.cut_by)


@pytest.fixture
def own() -> Iterator[Ranged]:
    """A stocked museum of one's own."""
    with Ranged() as server:
        fill(server)
        yield server


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    """A client without pauses."""
    with Fetcher(pause=0, timeout=5) as client:
        yield client


def tables(server: LocalMuseum) -> str:
    """Where the tables are."""
    return f"{server.url}/data"


def titles(source: str) -> set[str]:
    """Titles in the catalog that is there."""
    held = catalog.held(source)
    assert held is not None
    with held.asked() as ask:
        return {row["title"] for row in ask("SELECT title FROM objects")}


def test_unchanged_export_is_not_sent_again(own: Ranged, fetcher: Fetcher) -> None:
    """A second update asks for each table with its ETag, gets no body, and leaves the file as it is."""
    first = catalog.update(tables(own), fetcher)
    before = first.path.stat().st_mtime_ns
    own.asked.clear()
    again = catalog.update(tables(own), fetcher)
    assert again == first
    assert again.path.stat().st_mtime_ns == before
    assert len(own.asked) == 8
    assert all(asked.headers["if-none-match"] for asked in own.asked)
    assert {asked.headers["user-agent"] for asked in own.asked} == {USER_AGENT}


def test_changed_table_is_taken(own: Ranged, fetcher: Fetcher) -> None:
    """What the museum adds is in the next catalog, and its description counts it."""
    before = catalog.update(tables(own), fetcher).about.rows["objects"]
    own.add_work(1, 1401, "A New Work")
    assert catalog.update(tables(own), fetcher).about.rows["objects"] == before + 1
    assert "A New Work" in titles(tables(own))


@pytest.mark.parametrize("fault", [Fault.truncate(900), Fault.reset(900)])
def test_broken_off_table_goes_on(own: Ranged, fetcher: Fetcher, fault: Fault) -> None:
    """A table that breaks off is asked for from where it ended, under its ETag, and is whole in the end."""
    own.fault("/data/objects.csv", fault)
    catalog.update(tables(own), fetcher)
    ranges = [asked.headers.get("range") for asked in own.asked if asked.path.endswith("/objects.csv")]
    assert ranges == [None, "bytes=900-"]
    assert len(titles(tables(own))) > 20


def test_part_of_another_edition_is_thrown_away(own: Ranged, fetcher: Fetcher) -> None:
    """Half a table of yesterday is not joined to half a table of today."""
    own.fault("/data/objects.csv", Fault.truncate(900), times=4)
    with pytest.raises(FetchError):
        catalog.update(tables(own), fetcher)
    own.add_work(1, 1401, "A New Work")
    text = own.table("objects").encode()
    catalog.update(tables(own), fetcher)
    kept = next(path for path in cache_folder().iterdir() if path.read_bytes() == text)
    assert not kept.name.startswith(".part-")


SPOILED: dict[str, tuple[Callable[[str], str], str]] = {
    "column": (lambda text: text.replace("accessionnum", "number", 1), "column accessionnum is missing"),
    "ragged": (lambda text: text + "1,2,3\n", "as many fields as columns are needed"),
    "encoding": (lambda text: text + "\udce9\n", "not UTF-8"),
    "quote": (lambda text: text + '"', "not CSV"),
    "twice": (lambda text: text.replace("wikidataid", "medium", 1), "column medium is there twice"),
    "id": (lambda text: text + "x" + "," * (text.splitlines()[0].count(",")) + "\n", "a row has no number there"),
    "half": (lambda text: "".join(text.splitlines(keepends=True)[:20]), "looks half-made"),
    "empty": (lambda text: "", "column objectid"),
    "page": (lambda text: "<!doctype html><p>Sorry\n", "column objectid"),
}


@pytest.mark.slow_but_one
@pytest.mark.parametrize("kind", SPOILED)
def test_broken_export_never_replaces_a_good_one(own: Ranged, fetcher: Fetcher, kind: str) -> None:
    """Whatever is wrong with a new table, it is named, and the catalog that is there still answers."""
    spoil, expected = SPOILED[kind]
    good = catalog.update(tables(own), fetcher)
    whole = good.path.read_bytes()
    own.add_work(1, 1401, "A New Work")
    body = spoil(LocalMuseum.table(own, "objects")).encode("utf-8", "surrogateescape")
    own.fault("/data/objects.csv", Fault(body=body))
    with pytest.raises(InputError, match=expected) as caught:
        catalog.update(tables(own), fetcher)
    assert str(caught.value).startswith(f"{tables(own)}/objects.csv: ")
    assert good.path.read_bytes() == whole
    warnings: list[str] = []
    own.fault("/data/objects.csv", Fault(body=body))
    assert catalog.current(tables(own), fetcher, warnings.append).about.rows == good.about.rows
    assert [expected in text and "the catalog of 20" in text for text in warnings] == [True]
    assert "A New Work" in titles(tables(own)) or catalog.update(tables(own), fetcher)
    assert "A New Work" in titles(tables(own))


def test_smaller_export_can_be_accepted(own: Ranged, fetcher: Fetcher) -> None:
    """An export that did shrink is taken when its reader says so."""
    catalog.update(tables(own), fetcher)
    own._rows["objects"] = own._rows["objects"][:20]
    with pytest.raises(InputError, match=r"has 20 rows where the last export had 53"):
        catalog.update(tables(own), fetcher)
    assert catalog.update(tables(own), fetcher, accept_fewer=True).about.rows["objects"] == 20


def test_offline_the_catalog_serves(own: Ranged, fetcher: Fetcher) -> None:
    """Without the museum the catalog that is there is used, and says that nobody confirmed it."""
    first = catalog.update(tables(own), fetcher)
    own.offline = True
    assert first.about.confirmed
    assert not catalog.update(tables(own), fetcher).about.confirmed


@pytest.mark.parametrize("damage", [b"", b"not a database" * 1000])
def test_damaged_catalog_is_built_anew(own: Ranged, fetcher: Fetcher, damage: bytes) -> None:
    """A catalog that cannot be read counts as none."""
    path = catalog.update(tables(own), fetcher).path
    path.write_bytes(damage)
    assert catalog.held(tables(own)) is None
    assert catalog.update(tables(own), fetcher).about.rows["objects"] == 53


def test_tables_for_sql_alone_may_be_missing(own: Ranged, fetcher: Fetcher) -> None:
    """An export without dimensions and texts still serves; one without images does not."""
    own.fault("objects_dimensions", Fault.status(404))
    own.fault("objects_text_entries", Fault.status(404))
    about = catalog.update(tables(own), fetcher).about
    assert set(about.rows) == set(catalog._NEEDED) - {"objects_dimensions", "objects_text_entries"}
    own.fault("published_images", Fault.status(404))
    own._rows["published_images"].pop()
    assert not catalog.update(tables(own), fetcher).about.confirmed


def _update_beside(source: str, barrier: str) -> None:
    while not Path(barrier).exists():
        time.sleep(0.005)
    with Fetcher(pause=0, timeout=30) as client:
        catalog.update(source, client)


@pytest.mark.slow
def test_two_processes_at_once(own: Ranged, tmp_path: Path) -> None:
    """Processes that update at once take turns: all succeed, and the tables are sent once."""
    barrier = tmp_path / "go"
    context = multiprocessing.get_context("spawn")
    beside = [context.Process(target=_update_beside, args=(tables(own), str(barrier))) for _ in range(3)]
    for process in beside:
        process.start()
    barrier.touch()
    for process in beside:
        process.join(60)
    assert [process.exitcode for process in beside] == [0, 0, 0]
    sent = [asked for asked in own.asked if "if-none-match" not in asked.headers]
    assert len(sent) == 8
    assert len(titles(tables(own))) > 20


KILLED = """
import os, signal, sys
from avignon.museums.http import Fetcher
from avignon.museums import catalog
point, real = sys.argv[2], getattr(catalog, sys.argv[2])
def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(catalog, point, die)
with Fetcher(pause=0) as client:
    catalog.update(sys.argv[1], client)
"""


@pytest.mark.slow_but_one
@pytest.mark.parametrize("point", ["_fetched", "_built", "_load", "_index_names"])
def test_killed_update_leaves_the_old_catalog(own: Ranged, fetcher: Fetcher, point: str) -> None:
    """SIGKILL in the middle of an update leaves the old catalog readable, and the next update ends well."""
    catalog.update(tables(own), fetcher)
    own.add_work(1, 1401, "A New Work")
    killed = subprocess.run([sys.executable, "-c", KILLED, tables(own), point], check=False, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    assert "A New Work" not in titles(tables(own))
    catalog.update(tables(own), fetcher)
    assert "A New Work" in titles(tables(own))
    assert not [path for path in cache_folder().iterdir() if path.name.startswith(".part-")]


def test_newest_commit_is_pinned(own: Ranged) -> None:
    """Tables of a public repository are fetched at its newest commit, all at one, and the catalog says which."""
    commit = "5" * 40
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if request.url.host == "api.github.com":
            return httpx.Response(
                200, json=[{"sha": commit, "commit": {"committer": {"date": "2026-11-24T08:00:00Z"}}}]
            )
        return httpx.Response(200, text=own.table(request.url.path.rpartition("/")[2].removesuffix(".csv")))

    source = "https://raw.githubusercontent.com/SomeMuseum/opendata/main/data"
    with Fetcher(pause=0, mounts={"https://": httpx.MockTransport(answer)}) as client:
        about = catalog.update(source, client).about
    assert (about.commit, about.committed, about.tables) == (commit, "2026-11-24T08:00:00Z", source)
    assert asked[0].startswith("https://api.github.com/repos/SomeMuseum/opendata/commits?sha=main&path=data")
    assert all(
        url.startswith(f"https://raw.githubusercontent.com/SomeMuseum/opendata/{commit}/data/") for url in asked[1:]
    )


def test_commit_that_nobody_tells_is_not_known(own: Ranged) -> None:
    """Where the repository's interface does not answer, the tables still come, and no commit is claimed."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "api.github.com":
            return httpx.Response(403)
        return httpx.Response(200, text=own.table(request.url.path.rpartition("/")[2].removesuffix(".csv")))

    with Fetcher(pause=0, mounts={"https://": httpx.MockTransport(answer)}) as client:
        about = catalog.update("https://raw.githubusercontent.com/SomeMuseum/opendata/main/data", client).about
    assert about.commit == ""
    assert about.rows["objects"] == 53


@pytest.mark.parametrize("old", [False, True])
def test_quirks_of_the_export_survive(tmp_path: Path, old: bool) -> None:
    """Every title, with its quotes and line breaks, comes out as Python's own CSV reader reads it; ids are numbers."""
    folder = fullsize.make(tmp_path / "data", share=0.01, old_columns=old)
    held = catalog.update("https://museum.test/data", FromFolder(folder))
    with (folder / "objects.csv").open(encoding="utf-8", newline="") as file:
        expected = {int(row["objectid"]): (row["title"], row["provenancetext"]) for row in csv.DictReader(file)}
    with held.asked() as ask:
        rows = ask("SELECT objectid, title, provenancetext FROM objects")
    assert {row["objectid"]: (row["title"], row["provenancetext"]) for row in rows} == expected
    quirks = "".join(title for title, _ in expected.values())
    assert all(quirk in quirks for quirk in ('"', "\r\n", "\n(", "\u2028", "é"))
    found = Nga(held, year=2026).find(ArtistQuery("Homer, Winslow"))
    assert found
    assert all(
        ("openaccess not in this export" in each.work.rights.evidence) is old for each in found if each.work.image_url
    )


# The command


def listed(capsys: Captured, *arguments: object, code: int = 0) -> str:
    """What `avignon works` prints; what it says on stderr where it fails."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(each) for each in arguments])
    out, err = capsys.readouterr()
    assert left.value.code == code, err
    return err if code else out


@pytest.fixture
def wide(own: Ranged) -> Ranged:
    """Works that the options tell apart."""
    own.add_artist(7, "Léger, Fernand", "Fernand Léger", begin=1881, end=1955)
    own.add_work(701, 7, "Étude", beginyear=1910, endyear=1912, width=500, height=900, terms=[("Theme", "still life")])
    own.add_work(702, 7, "Smoke", endyear=1920, classification="Drawing")
    own.add_work(703, 7, "Closed", endyear=1913, openaccess=0, maxpixels=900)
    own.add_work(704, 7, "By Another", role="artist after", endyear=1913)
    own.add_work(705, 7, "Undated")
    own._rows["published_images"][-1]["assistivetext"] = "We look at a café table with a bottle."
    return own


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {"701", "702", "703", "704", "705"}),
        (("--open-only",), {"701", "702", "705"}),
        (("--classification", "drawing"), {"702"}),
        (("--classification", "Drawing", "--classification", "Painting", "--open-only"), {"701", "702", "705"}),
        (("--between", 1911, 1913), {"701", "703", "704"}),
        (("--min-size", 600), {"702", "703", "704", "705"}),
        (("--like", "etude"), {"701"}),
        (("--like", "LIFE still"), {"701"}),
        (("--like", "cafe bottle"), {"705"}),
        (("--like", "nothing such"), set()),
    ],
)
def test_options_choose(capsys: Captured, wide: Ranged, options: tuple[object, ...], expected: set[str]) -> None:
    """Each option leaves out what it says, and no more; accents and case do not matter."""
    text = listed(capsys, "works", "Fernand Leger", "--tables", tables(wide), "--json", *options)
    assert {json.loads(line)["work"]["object_id"] for line in text.splitlines()} == expected


def test_hands_are_told_apart(capsys: Captured, wide: Ranged) -> None:
    """'Artist after', workshop and attribution are listed with what they are, and are not among the artist's own."""
    for number, prefix in ((711, "Workshop of"), (712, "Attributed to"), (713, "and")):
        wide.add_work(number, 7, prefix)
        wide._rows["objects_constituents"][-1]["prefix"] = prefix
    rows = list(
        csv.DictReader(listed(capsys, "works", "Léger, Fernand", "--tables", tables(wide), "--csv").splitlines())
    )
    notes = {row["object_id"]: row["note"] for row in rows}
    assert notes["704"] == "role is 'artist after', not the artist's own hand"
    assert notes["711"] == "attribution is 'Workshop of'"
    assert notes["712"] == "attribution is 'Attributed to'"
    assert notes["713"] == notes["701"] == ""


def test_table_shows_rights_and_page(capsys: Captured, wide: Ranged) -> None:
    """The table in the terminal has title, date, medium, class, true size, rights and the object's page."""
    text = listed(capsys, "works", "Fernand Leger", "--tables", tables(wide), "--like", "etude")
    assert all(each in text for each in ("Étude", "oil on canvas", "Painting", "500×900", "open", "701"))
    assert "https://www.nga.gov/" in text
    assert "…" not in text


def test_slip_is_told(capsys: Captured, wide: Ranged) -> None:
    """A name that nobody bears is one line with the nearest names."""
    text = listed(capsys, "works", "Fernand Legre", "--tables", tables(wide), code=2)
    assert "no artist 'Fernand Legre'; nearest are Fernand Léger" in text
    assert len(text.splitlines()) == 1


def test_works_asks_no_network_once_built(capsys: Captured, wide: Ranged) -> None:
    """Once the catalog is there, listing works without the museum."""
    listed(capsys, "works", "Fernand Leger", "--tables", tables(wide))
    asked = len(wide.asked)
    wide.offline = True
    assert "Étude" in listed(capsys, "works", "Fernand Leger", "--tables", tables(wide))
    assert len(wide.asked) == asked


def test_sql_is_for_reading(capsys: Captured, wide: Ranged) -> None:
    """Whoever knows the tables may ask them; nothing is changed, and no file is read or written."""
    wide_tables = ("--tables", tables(wide))
    text = listed(capsys, "works", *wide_tables, "--csv", "--sql", "SELECT title FROM objects WHERE objectid = 702")
    assert text.splitlines() == ["title", "Smoke"]
    for query in (
        "DELETE FROM objects",
        "SELECT nothing",
        "COPY objects TO 'out.csv'",
        "SELECT * FROM read_csv('x.csv')",
    ):
        assert "--sql: " in listed(capsys, "works", *wide_tables, "--sql", query, code=2)
    assert len(titles(tables(wide))) > 50
    assert not Path("out.csv").exists()


def test_decisions_file_is_for_editing(capsys: Captured, wide: Ranged, tmp_path: Path) -> None:
    """The file has a line for each work; words that are in it stay when it is written again."""
    path = tmp_path / "words.csv"
    command = ("works", "Fernand Leger", "--tables", tables(wide), "--decisions", path)
    listed(capsys, *command)
    assert decisions.read(str(path)) == {}
    assert path.read_bytes().startswith(
        codecs.BOM_UTF8
    )  # C1: or Excel takes an accent for two letters, and saves them.
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 5
    path.write_text("object_id,decision,reason\n701,drop,too small\n12,keep,\n", encoding="utf-8")
    listed(capsys, *command, "--open-only")
    words = decisions.read(str(path))
    assert {number: (word.verdict.word, word.reason) for number, word in words.items()} == {
        "701": ("drop", "too small"),
        "12": ("keep", ""),
    }
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1 + 3 + 1


def test_catalog_commands(capsys: Captured, wide: Ranged) -> None:
    """`info` says that there is none, `update` makes one, `info` then shows it; offline, `update` says so and fails."""
    assert "no catalog yet" in listed(capsys, "catalog", "info", "--tables", tables(wide), code=2)
    assert "58 rows" in listed(capsys, "catalog", "update", "--tables", tables(wide))
    assert "58 rows" in listed(capsys, "catalog", "info", "--tables", tables(wide))
    wide.offline = True
    assert "what is shown is what was there" in listed(capsys, "catalog", "update", "--tables", tables(wide), code=2)


def test_listing_loads_neither_network_nor_images(wide: Ranged, fetcher: Fetcher) -> None:
    """`works` on a built catalog imports no network client, decoder, schema, progress bars or torch: they cost time."""
    catalog.update(tables(wide), fetcher)
    code = (
        "import sys\nfrom avignon.cli import main as cli\n"
        f"try:\n    cli.main(['works', 'Fernand Leger', '--tables', {tables(wide)!r}])\n"
        "except SystemExit as done:\n    assert not done.code\n"
        "heavy = ('torch', 'httpx', 'PIL', 'numpy', 'pydantic', 'rich', 'filelock')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# Other names


@pytest.fixture
def named(own: Ranged) -> Ranged:
    """The museum, which knows some artists by other names, too."""
    own.add_artist(1118, "Greco, El", "El Greco", begin=1541, end=1614)
    own.add_work(77, 1118, "Laocoön")
    own.add_name(1118, "Theotokópoulos, Doménikos", "Doménikos Theotokópoulos")
    own.add_name(1118, "Theotocopuli, Dominico")  # The older exports have no second form.
    own.add_name(847, "Picasso, Marina Ruiz", "Marina Ruiz Picasso")  # A donor is no artist by any name.
    own.add_name(1118, "Homer, Winslow", "Winslow Homer")  # Somebody else's own name.
    return own


@pytest.mark.parametrize(
    "name", ["El Greco", "Doménikos Theotokópoulos", "theotokopoulos, DOMENIKOS", "Dominico Theotocopuli"]
)
def test_artist_is_found_by_any_name(named: Ranged, fetcher: Fetcher, name: str) -> None:
    """Any of the museum's names for an artist, in either form, leads to the works (issue 14, C: other names)."""
    (found,) = Nga(catalog.update(tables(named), fetcher)).find(ArtistQuery(name))
    assert (found.work.object_id, found.work.attributed) == ("77", "El Greco")


def test_own_name_stands_before_anothers_other_name(named: Ranged, fetcher: Fetcher) -> None:
    """Who bears a name as their own is meant, not who was once called so; a donor stays none."""
    museum = Nga(catalog.update(tables(named), fetcher))
    assert {found.work.attributed for found in museum.find(ArtistQuery("Winslow Homer"))} == {"Winslow Homer"}
    with pytest.raises(InputError, match="no artist 'Marina Ruiz Picasso'"):
        museum.find(ArtistQuery("Marina Ruiz Picasso"))


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("Domenikos Theotokopulos", "Doménikos Theotokópoulos"), ("Theotocopuli", "Theotocopuli, Dominico")],
)
def test_suggestions_know_other_names(named: Ranged, fetcher: Fetcher, slip: str, meant: str) -> None:
    """A slip in another name of an artist leads to that name."""
    with pytest.raises(InputError, match=f"no artist '{slip}'; nearest are {meant}"):
        Nga(catalog.update(tables(named), fetcher)).find(ArtistQuery(slip))


def test_other_name_of_two_artists_needs_an_id(named: Ranged, fetcher: Fetcher) -> None:
    """A name that two artists have gone by is told with both ids."""
    named.add_name(1359, "Theotocopuli, Dominico")
    with pytest.raises(InputError, match=r"names 2 artists: 1118 .*, 1359 .*; put the id into find"):
        Nga(catalog.update(tables(named), fetcher)).find(ArtistQuery("Dominico Theotocopuli"))


def test_export_without_other_names_serves(named: Ranged, fetcher: Fetcher) -> None:
    """Older exports have no such table: own names lead to the works, and the catalog is whole."""
    named.fault("constituents_altnames", Fault.status(404))
    held = catalog.update(tables(named), fetcher)
    assert "constituents_altnames" not in held.about.rows
    assert held.about.confirmed
    assert len(Nga(held).find(ArtistQuery("El Greco"))) == 1


def test_passing_trouble_with_other_names_is_asked_again(named: Ranged, fetcher: Fetcher) -> None:
    """A server in trouble is not taken for an older export: the catalog says so, and the next update has the names."""
    named.fault("constituents_altnames", Fault.status(500), times=4)
    assert not catalog.update(tables(named), fetcher).about.confirmed
    held = catalog.update(tables(named), fetcher)
    assert held.about.confirmed
    assert len(Nga(held).find(ArtistQuery("Dominico Theotocopuli"))) == 1


def test_catalog_of_the_version_before_is_built_anew(named: Ranged, fetcher: Fetcher) -> None:
    """A catalog without other names is of another version, and is not read as one that has them."""
    path = catalog.update(tables(named), fetcher).path
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE about SET json = replace(json, '\"version\": 2', '\"version\": 1')")
    assert catalog.held(tables(named)) is None
    assert len(Nga(catalog.update(tables(named), fetcher)).find(ArtistQuery("Dominico Theotocopuli"))) == 1
