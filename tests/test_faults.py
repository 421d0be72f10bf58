"""A museum that misbehaves: each fault ends in the right image or in a named reason, and nothing is lost."""

import errno
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from avignon import pipeline
from avignon.core.errors import InputError, WorkspaceError
from avignon.core.events import Event
from avignon.core.workspace import Workspace
from avignon.museums.http import USER_AGENT
from tests.support import Asked, Reply, images
from tests.support.museum import Fault, LocalMuseum, draw, fill
from tests.support.pairs import PAIR, pair

FIRST = "30228"
"""The work whose image the faults meet."""


class Watched(LocalMuseum):
    """A museum that remembers what it was asked, and calls out at each request."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.at_request: Callable[[int], None] = lambda count: None
        super().__init__()

    def answer(self, asked: Asked) -> Reply:
        """Serve as usual."""
        with self._lock:
            self.asked.append(asked)
        self.at_request(len(self.asked))
        return super().answer(asked)


@pytest.fixture
def own() -> Iterator[Watched]:
    """A stocked museum of this test's own, to break."""
    with Watched() as server:
        fill(server)
        yield server


def image_of(server: LocalMuseum, number: str = FIRST) -> str:
    """The uuid of a work's image."""
    rows = server._rows["published_images"]
    return next(str(row["uuid"]) for row in rows if str(row["depictstmsobjectid"]) == number)


def collected(folder: Path, server: LocalMuseum, *overrides: str) -> Workspace:
    """A run as far as curate; no measure is in the way."""
    folder.mkdir(exist_ok=True)
    recipe = pair(folder, server, "curate.min_sharpness=0.0", *overrides)
    return pipeline.run(recipe, folder / "runs", lambda _: None, until="curate")


def state(space: Workspace) -> dict[str, bytes]:
    """Every byte of a run's works: the ledger and the originals."""
    paths = (path for path in space.works.rglob("*") if path.is_file())
    return {space.relative(path): path.read_bytes() for path in paths}


def jpeg(width: int, height: int) -> bytes:
    """A sound JPEG of another size."""
    buffer = io.BytesIO()
    draw(5, width, height).save(buffer, "JPEG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Case:
    """A fault, how often it comes, and what it ends in."""

    faults: tuple[Fault, ...]
    reason: str = ""
    """Part of the reason in the ledger; empty where the right image comes in the end."""
    overrides: tuple[str, ...] = field(default=())


HASTE = ("collect.timeout=1.0",)

FAULTS = {
    "429 without Retry-After": Case((Fault.status(429),)),
    "429 with Retry-After": Case((Fault.status(429, retry_after=0), Fault.status(429, retry_after=1))),
    "429 that asks for an hour": Case((Fault.status(429, retry_after=3600),), "asks to wait 3600 s"),
    "429 for ever": Case((Fault.status(429, retry_after=0),) * 4, "the server answers 429"),
    "500 in passing": Case((Fault.status(500),) * 3),
    "500 for ever": Case((Fault.status(500),) * 4, "the server answers 500"),
    "404": Case((Fault.status(404),), "the server answers 404"),
    "time-out in passing": Case((Fault.hang(2.5),), "", HASTE),
    "time-out for ever": Case((Fault.hang(2.5),) * 4, "no answer in time", HASTE),
    "connection reset in mid-body": Case((Fault.reset(300), Fault.reset(0))),
    "connection reset for ever": Case((Fault.reset(300),) * 4, "could not be reached"),
    "truncated under the whole's Content-Length": Case((Fault.truncate(300),) * 3),
    "truncated under its own Content-Length": Case((Fault.short(900),)),
    "truncated under its own Content-Length for ever": Case((Fault.short(900),) * 4, "truncated or damaged"),
    "empty body": Case((Fault(body=b""),)),
    "HTML in place of an image": Case((Fault.html(),)),
    "HTML for ever": Case((Fault.html(),) * 4, "not a picture; allowed are JPEG"),
    "redirect loop": Case((Fault.redirect("default.jpg"),) * 12, "more than 5 redirects"),
    "redirect to a file": Case((Fault.redirect("file:///etc/hostname"),), "redirects to file:, which is not followed"),
    "redirect to another scheme": Case((Fault.redirect("ftp://127.0.0.1/x"),), "redirects to ftp:, which is not"),
    "redirect into the package": Case((Fault.redirect("embedded://museum/data"),), "redirects to embedded:, which"),
    "redirect to nonsense": Case((Fault.redirect("http://127.0.0.1:port/"),) * 4, "Invalid URL"),
    "303 to a smaller image": Case(
        (Fault.redirect("../../../../OTHER/full/!40,40/0/default.jpg", 303),) * 4, "40×27 pixels came where"
    ),
    "a smaller image": Case((Fault(body=jpeg(60, 40)),) * 4, "60×40 pixels came where 128×85 were promised"),
    "a smaller image in passing": Case((Fault(body=jpeg(60, 40)),)),
    "an upscaled image": Case((Fault(body=jpeg(2400, 1600)),) * 4, "2400×1600 pixels came where"),
    "a body of 3 GB": Case((Fault.huge(3 * 10**9),), "larger than the 200 MB that are accepted"),
    "a body beyond the recipe's limit": Case(
        (Fault(body=bytes(1_500_000)),), "larger than the 1 MB", ("collect.max_megabytes=1",)
    ),
}


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", FAULTS)
def test_fault_ends_well(own: Watched, tmp_path: Path, name: str) -> None:
    """The image comes whole after all, or the ledger names the reason; the other works are what they always are."""
    case = FAULTS[name]
    for fault in case.faults:
        place = fault.headers.get("Location", "").replace("OTHER", image_of(own, "900101"))
        own.fault(
            f"{image_of(own)}/full", replace(fault, headers={**fault.headers, "Location": place}) if place else fault
        )
    space = collected(tmp_path / "spoiled", own, *case.overrides)
    rows = {row["object_id"]: row for row in space.read_ledger()}
    assert all(bool(row["reason"]) or row["decision"] == "kept" for row in rows.values())
    if case.reason:
        assert rows[FIRST]["decision"] == "rejected"
        assert rows[FIRST]["reason"].startswith("image: ")
        assert case.reason in rows[FIRST]["reason"]
        assert not list(space.works.rglob(f"{FIRST}.*"))
    else:
        assert rows[FIRST]["decision"] == "kept"
        assert state(space) == state(collected(tmp_path / "sound", own, *case.overrides))
    assert {asked.headers["user-agent"] for asked in own.asked} == {USER_AGENT}
    assert_nothing_outside(tmp_path)


def assert_nothing_outside(folder: Path) -> None:
    """Only the recipe and the runs' own folders were written, and nothing half."""
    for run in folder.iterdir():
        assert {path.name for path in run.iterdir()} <= {"pair.toml", "runs", "words.csv"}
    assert not [path for path in folder.rglob("*") if path.name.startswith(".part-")]


@pytest.mark.slow_but_one
@pytest.mark.parametrize("target", ["full", "info.json"])
def test_bomb_is_not_unpacked(own: Watched, tmp_path: Path, target: str) -> None:
    """A picture of a few hundred kilobytes that unpacks to gigabytes is refused by its header."""
    body = images.bomb(tmp_path).read_bytes()
    (tmp_path / "bomb.png").unlink()
    own.fault(f"{image_of(own)}/{target}", Fault(body=body), times=4)
    rows = {row["object_id"]: row for row in collected(tmp_path / "run", own).read_ledger()}
    expected = {"full": "at most 200,000,000 are decoded", "info.json": "not a IIIF description"}[target]
    assert expected in rows[FIRST]["reason"]


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", ["../../../../outside", "a\"'b", "a b?c#d", "%2e%2e/x", "…"])
def test_strange_image_ids_stay_inside(own: Watched, tmp_path: Path, name: str) -> None:
    """An image address with dots, slashes or quotes leads to a reason or an image, and never to a file elsewhere."""
    for row in own._rows["published_images"]:
        if str(row["depictstmsobjectid"]) == FIRST:
            row["uuid"] = name
    rows = {row["object_id"]: row for row in collected(tmp_path / "run", own).read_ledger()}
    assert rows[FIRST]["decision"] == "rejected"
    assert rows[FIRST]["reason"].startswith("image: ")
    assert_nothing_outside(tmp_path)


def test_capped_image_is_recorded(own: Watched, tmp_path: Path) -> None:
    """A 303 to `__900` is followed, and the ledger says that the image is capped; open works are not."""
    own._pictures[image_of(own)] = type(own._pictures[image_of(own)])(int(FIRST), 1200, 800, 900, None)
    rows = {row["object_id"]: row for row in collected(tmp_path / "run", own).read_ledger()}
    assert rows[FIRST]["capped"] == "true"
    assert {row["capped"] for number, row in rows.items() if number != FIRST} == {"false"}


def test_table_that_changes_between_two_fetches(own: Watched, tmp_path: Path) -> None:
    """Columns that vanish from the museum's tables are warned of; the run goes on with the catalog that is there."""
    before = state(collected(tmp_path / "run", own))
    text = own.table("objects").replace("accessionnum", "renamed", 1)
    own.fault("/data/objects.csv", Fault(body=text.encode()))
    own.add_work(1, 1401, "New")
    heard: list[Event] = []
    recipe = pair(tmp_path / "run", own, "curate.min_sharpness=0.0", "collect.timeout=6")
    space = pipeline.run(recipe, tmp_path / "run" / "runs", heard.append, until="curate")
    (warning,) = {event.text for event in heard if event.kind == "warning"}
    assert "objects.csv: column accessionnum is missing" in warning
    assert "the catalog of 20" in warning
    assert state(space) == before


@pytest.mark.slow_but_one
@pytest.mark.parametrize("after", [0, 1, 3, 6, 9, 14])
def test_disk_that_fills_up(own: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A full disk ends the run in one line; with room again, it ends as if nothing had been."""
    real, left = os.fsync, [after]

    def fsync(file: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(WorkspaceError, match="the disk is full; what was done so far is kept"):
        collected(tmp_path / "full", own)
    left[0] = 10**9
    assert state(collected(tmp_path / "full", own)) == state(collected(tmp_path / "sound", own))
    assert_nothing_outside(tmp_path)


COMMAND = (sys.executable, "-m", "avignon", "curate", "pair.toml", "--set", "curate.min_sharpness=0.0")


def started(folder: Path, server: LocalMuseum) -> "subprocess.Popen[str]":
    """`avignon curate` in a folder of its own, in the background."""
    folder.mkdir(exist_ok=True)
    (folder / "pair.toml").write_text(PAIR.format(tables=f"{server.url}/data"), encoding="utf-8")
    return subprocess.Popen(COMMAND, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_at_once(own: Watched, tmp_path: Path) -> None:
    """Of two commands on one workspace, one does the work; the other says so in one line, or finds it done."""
    both = [started(tmp_path / "run", own) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert sorted(process.returncode for process in both) in ([0, 0], [0, 2])
    for process, (_, text) in zip(both, said, strict=True):
        assert not process.returncode or "in use by another avignon" in text
    assert state(Workspace(tmp_path / "run" / "runs" / "pair")) == state(collected(tmp_path / "sound", own))


@pytest.mark.slow
@pytest.mark.parametrize("request_number", [1, 5, 8, 11, 14, 19])
def test_killed_anywhere(own: Watched, tmp_path: Path, request_number: int) -> None:
    """SIGKILL at a request, whichever: the next run goes on, and ends as if nothing had been."""
    process = started(tmp_path / "run", own)

    def kill(count: int) -> None:
        if count == request_number:
            process.send_signal(signal.SIGKILL)
            time.sleep(0.05)

    own.at_request = kill
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    own.at_request = lambda count: None
    again = started(tmp_path / "run", own)
    assert again.communicate(timeout=120)[1] == ""
    assert again.returncode == 0
    assert state(Workspace(tmp_path / "run" / "runs" / "pair")) == state(collected(tmp_path / "sound", own))
    assert_nothing_outside(tmp_path)


PASSING = (
    Fault.status(429),
    Fault.status(429, retry_after=0),
    Fault.status(500),
    Fault.status(503),
    Fault.truncate(300),
    Fault.truncate(0),
    Fault.reset(100),
    Fault.reset(700),
    Fault.short(500),
    Fault.html(),
    Fault(body=b""),
    Fault(body=b"{}"),
    Fault(body=jpeg(30, 20)),
    Fault(body=jpeg(2400, 1600)),
    Fault.redirect("http://127.0.0.1:port/"),
)
"""What may be better at the next attempt; for a table, or beyond the attempts, at the next run."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Watched]:
    """One museum for all sequences of faults."""
    with Watched() as server:
        fill(server)
        yield server


@pytest.fixture(scope="module")
def sound(shared: Watched, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run without faults leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return state(collected(tmp_path_factory.mktemp("sound"), shared, "collect.reserve=0"))


def spoil(server: Watched, sound: dict[str, bytes], chance: random.Random) -> None:
    """Plant one to twelve faults: on tables, and at most three on any one image or its description."""
    uuids = [image_of(server, Path(name).stem) for name in sound if name.endswith(".jpg")]
    places = [f"{name}/{what}" for name in uuids for what in ("info.json", "full")] * 3
    places += [f"/data/{table}.csv" for table in ("objects", "constituents", "published_images", "objects_terms")]
    for place in chance.sample(places, chance.randint(1, 12)):
        server.fault(place, chance.choice(PASSING))


def ends_as_if_nothing_had_been(server: Watched, sound: dict[str, bytes], folder: Path, seed: int) -> None:
    """Run again until the run ends well, as a user would, and compare every byte."""
    server._faults.clear()
    spoil(server, sound, random.Random(seed))
    for _ in range(13):  # each of up to twelve faults may end one run
        try:
            space = collected(folder, server, "collect.reserve=0")
        except InputError:
            continue
        break
    else:
        raise AssertionError(f"seed {seed}: no run ended well")
    assert state(space) == sound, f"seed {seed}"
    assert not [path for path in folder.rglob("*") if path.name.startswith(".part-")]


@pytest.mark.slow_but_one
@pytest.mark.parametrize("seed", range(4))
def test_random_faults(
    shared: Watched, sound: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A random sequence of faults ends with the same ledger and the same bytes as a run without faults."""
    monkeypatch.setattr("avignon.museums.http.BACK_OFF", 0.001)
    ends_as_if_nothing_had_been(shared, sound, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_random_faults(
    shared: Watched, sound: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred seeded sequences do, each in a workspace and with a cache of its own."""
    monkeypatch.setattr("avignon.museums.http.BACK_OFF", 0.001)
    for seed in range(100, 300):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{seed}"))
        ends_as_if_nothing_had_been(shared, sound, tmp_path / f"run-{seed}", seed)
