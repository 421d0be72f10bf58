"""The network client: patient with passing faults, brief with lasting ones, and never fooled."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from avignon.core import files
from avignon.core.errors import FetchError, InputError, TurnedAway, WorkspaceError
from avignon.core.imaging import load
from avignon.museums import http as fetch
from avignon.museums.http import Fetcher
from tests.support import Asked, LocalServer, Reply
from tests.support.artic import challenge
from tests.support.museum import Fault, LocalMuseum
from tests.support.patience import WAIT_TURN

BODY = b"0123456789" * 5000


class Scripted(LocalServer):
    """A server that answers with what it is given, in order, and then with BODY for ever."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.asked: list[Asked] = []
        super().__init__()

    def answer(self, asked: Asked) -> Reply:
        """The next reply."""
        self.asked.append(asked)
        return self.replies.pop(0) if self.replies else Reply(200, BODY)


@pytest.fixture
def server() -> Iterator[Scripted]:
    """A server that does as told."""
    with Scripted() as scripted:
        yield scripted


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have slept; it does not."""
    waits: list[float] = []
    monkeypatch.setattr("avignon.museums.http.time.sleep", waits.append)
    monkeypatch.setattr(fetch, "BACK_OFF", 0.5)
    return waits


@pytest.fixture
def fetcher(tmp_path: Path) -> Iterator[Fetcher]:
    """A client without pauses, with a cache of its own."""
    with Fetcher(pause=0, timeout=5, cache=tmp_path / "cache") as client:
        yield client


def got(fetcher: Fetcher, server: LocalServer, path: str = "/a", *, limit: int = 10**6) -> bytes:
    """What comes from a path."""
    return fetcher.get(f"{server.url}{path}", limit=limit).content


def fault(call: Callable[[], object]) -> str:
    """The one line that a call ends in."""
    with pytest.raises(FetchError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_passing_faults_are_tried_again(server: Scripted, fetcher: Fetcher, slept: list[float], status: int) -> None:
    """A server in passing trouble is asked again, each time after twice the wait."""
    server.replies = [Reply(status)] * 3
    assert got(fetcher, server) == BODY
    assert slept == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_lasting_faults_are_not(server: Scripted, fetcher: Fetcher, slept: list[float], status: int) -> None:
    """What will not pass is an error at once, with its number."""
    server.replies = [Reply(status)]
    assert f"the server answers {status}" in fault(lambda: got(fetcher, server))
    assert slept == []


def test_retry_after_is_heeded(server: Scripted, fetcher: Fetcher, slept: list[float]) -> None:
    """A server that names a time is given it, in seconds or as a date; nonsense counts as nothing named."""
    late = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    waits = ({"Retry-After": "7"}, {"Retry-After": late}, {"Retry-After": "soon"})
    server.replies = [Reply(429, headers=headers) for headers in waits]
    assert got(fetcher, server) == BODY
    assert slept[0] == 7
    assert 27 < slept[1] <= 30
    assert slept[2] == 2.0


def test_too_much_patience_is_an_error(server: Scripted, fetcher: Fetcher, slept: list[float]) -> None:
    """A server that asks for an hour gets an error that says so."""
    server.replies = [Reply(503, headers={"Retry-After": "3600"})]
    text = fault(lambda: got(fetcher, server))
    assert text.startswith(f"{server.url}/a: the server answers 503 and asks to wait 3600 s; check the network")
    assert slept == []


def test_gives_up_in_one_line(server: Scripted, fetcher: Fetcher, slept: list[float]) -> None:
    """After four attempts the error names the address, the reason and what to do."""
    server.replies = [Reply(500)] * 9
    text = fault(lambda: got(fetcher, server))
    assert text == f"{server.url}/a: the server answers 500; check the network or the address, then run again"
    assert len(server.asked) == fetch.ATTEMPTS == 4


def test_unreachable_server(server: Scripted, fetcher: Fetcher) -> None:
    """A refused connection is tried again and then told; a server that comes back serves."""
    server.offline = True
    assert "could not be reached" in fault(lambda: got(fetcher, server))
    server.offline = False
    assert got(fetcher, server) == BODY


@pytest.mark.parametrize("how", ["close", "reset"])
def test_broken_off_bodies_are_tried_again(server: Scripted, fetcher: Fetcher, how: str) -> None:
    """A body that ends early, in good order or torn, is never taken for the whole."""
    server.replies = [Reply(200, BODY, cut_after=100, cut_by="reset" if how == "reset" else "close")] * 2
    assert got(fetcher, server) == BODY
    assert len(server.asked) == 3


def test_nonsense_in_the_encoding_is_tried_again(server: Scripted, fetcher: Fetcher) -> None:
    """A body that says gzip and is not is a passing fault, not a crash."""
    server.replies = [Reply(200, b"no gzip", {"Content-Encoding": "gzip"})]
    assert got(fetcher, server) == BODY


def test_hanging_server_times_out(server: Scripted, tmp_path: Path) -> None:
    """A server that says nothing is given up after the time-out, and asked again."""
    server.replies = [Reply(200, BODY, wait=30)]
    with Fetcher(pause=0, timeout=0.2, cache=tmp_path) as hasty:
        start = time.monotonic()
        assert got(hasty, server) == BODY
        assert time.monotonic() - start < 3
        server.replies = [Reply(200, BODY, wait=30)] * 4
        assert "no answer in time (ReadTimeout)" in fault(lambda: got(hasty, server))


def test_size_is_limited(server: Scripted, fetcher: Fetcher) -> None:
    """More bytes than accepted are an error, and are not read to the end."""
    assert len(got(fetcher, server, limit=len(BODY))) == len(BODY)
    server.replies = [Reply(200, bytes(3_000_000))]
    assert fault(lambda: got(fetcher, server, limit=2_000_000)).endswith("larger than the 2 MB that are accepted")


def test_redirects_are_followed(server: Scripted, fetcher: Fetcher) -> None:
    """A redirect, absolute or relative, is followed, and the answer knows where it came from."""
    server.replies = [Reply(303, headers={"Location": f"{server.url}/b"}), Reply(301, headers={"Location": "c?d=1"})]
    answer = fetcher.get(f"{server.url}/a", limit=10**6)
    assert (answer.url, answer.content) == (f"{server.url}/c?d=1", BODY)


def test_redirect_loops_end(server: Scripted, fetcher: Fetcher) -> None:
    """A server that sends round and round is left after five redirects."""
    server.replies = [Reply(302, headers={"Location": "/a"})] * 20
    assert fault(lambda: got(fetcher, server)) == f"{server.url}/a: more than 5 redirects"
    assert len(server.asked) == 6


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "embedded://museum/data"])
def test_redirects_keep_to_the_web(server: Scripted, fetcher: Fetcher, target: str) -> None:
    """A redirect to anything but http and https is refused, and named."""
    server.replies = [Reply(302, headers={"Location": target})]
    scheme = target.partition(":")[0]
    assert fault(lambda: got(fetcher, server)) == f"{server.url}/a: redirects to {scheme}:, which is not followed"


def test_redirect_never_drops_encryption(tmp_path: Path) -> None:
    """A redirect from https does not lead to http."""
    down = httpx.MockTransport(lambda _: httpx.Response(302, headers={"Location": "http://museum.test/b"}))
    with Fetcher(pause=0, cache=tmp_path, mounts={"https://": down}) as client:
        text = fault(lambda: client.get("https://museum.test/a", limit=10))
    assert text == "https://museum.test/a: redirects to http:, which is not followed"


@pytest.mark.parametrize("address", ["museum/data", "file:///etc/passwd", "http://[broken", "http://a b/"])
def test_what_is_no_address(fetcher: Fetcher, slept: list[float], address: str) -> None:
    """A text that is no address on the web is an error in one line."""
    assert fault(lambda: fetcher.get(address, limit=10)).startswith(address)


def test_redirect_to_no_address(server: Scripted, fetcher: Fetcher) -> None:
    """A redirect to nonsense, or to nowhere, is an error in one line."""
    server.replies = [Reply(302, headers={"Location": "http://museum.test:port/"})] * 4
    assert "Invalid URL in location header" in fault(lambda: got(fetcher, server))
    server.replies = [Reply(302)]
    assert "the server answers 302" in fault(lambda: got(fetcher, server))


# Tables


def test_unchanged_table_comes_from_the_cache(museum: LocalMuseum, fetcher: Fetcher) -> None:
    """A table is fetched once; after that the server's 304 is enough, until it changes."""
    with LocalMuseum() as own:
        url = f"{own.url}/data/objects.csv"
        first, fresh = fetcher.table(url)
        before = first.stat().st_mtime_ns
        again, still = fetcher.table(url)
        assert (again, fresh, still) == (first, True, True)
        assert again.stat().st_mtime_ns == before
        own.add_work(1, 1, "New")
        assert b"New" in fetcher.table(url)[0].read_bytes()


def test_unreachable_server_leaves_the_copy(fetcher: Fetcher) -> None:
    """Offline, the cached table serves and says that it is not confirmed; where there is none it is an error."""
    with LocalMuseum() as own:
        url = f"{own.url}/data/objects.csv"
        path, _ = fetcher.table(url)
        own.offline = True
        assert fetcher.table(url) == (path, False)
        assert "could not be reached" in fault(lambda: fetcher.table(f"{own.url}/data/constituents.csv"))


@pytest.mark.parametrize("spoil", [Fault.truncate(40), Fault.reset(40), Fault.status(500)])
def test_half_a_table_never_replaces_a_whole_one(fetcher: Fetcher, tmp_path: Path, spoil: Fault) -> None:
    """However a new table breaks off, the old one stays whole; what came of the new one is no table."""
    with LocalMuseum() as own:
        url = f"{own.url}/data/objects.csv"
        path, _ = fetcher.table(url)
        whole = path.read_bytes()
        own.add_work(1, 1, "New")
        own.fault("/data/", spoil, times=4)
        assert fetcher.table(url) == (path, False)
        assert path.read_bytes() == whole
        assert b"New" in fetcher.table(url)[0].read_bytes()


def test_half_a_table_is_none(fetcher: Fetcher, tmp_path: Path) -> None:
    """A first table that breaks off is an error, and nothing is taken for it later."""
    with LocalMuseum() as own:
        own.fault("/data/", Fault.truncate(40), times=4)
        fault(lambda: fetcher.table(f"{own.url}/data/objects.csv"))
        assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".part-")] == []


def test_cache_that_cannot_be_written_says_how(tmp_path: Path, museum: LocalMuseum) -> None:
    """A cache in the way of a file is told with the variable that moves it, not with the workspace's option."""
    (tmp_path / "cache").write_text("a file")
    with Fetcher(pause=0, cache=tmp_path / "cache") as client, pytest.raises(WorkspaceError, match="XDG_CACHE_HOME"):
        client.table(f"{museum.url}/data/objects.csv")


def test_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is where XDG_CACHE_HOME says, or in the home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / "avignon"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path.home() / ".cache" / "avignon"


def test_requests_to_a_host_are_paced(server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two requests to one host lies the pause, less the time that has gone by anyway; another host is free."""
    now = [100.0]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(round(seconds, 6))
        now[0] += seconds

    monkeypatch.setattr(Fetcher, "_wait_turn", WAIT_TURN)
    monkeypatch.setattr("avignon.museums.http.time.monotonic", lambda: now[0])
    monkeypatch.setattr("avignon.museums.http.time.sleep", sleep)
    elsewhere = httpx.MockTransport(lambda _: httpx.Response(200))
    with Fetcher(pause=2, cache=tmp_path, mounts={"https://": elsewhere}) as client:
        got(client, server)
        got(client, server)
        now[0] += 0.5
        got(client, server)
        client.get("https://other.test/", limit=10)
        now[0] += 60
        got(client, server)
    assert waits == [2.0, 1.5]


def test_reachable_says_it_in_words(museum: LocalMuseum) -> None:
    """What `doctor` prints of a server: its answer, or that there is none."""
    assert fetch.reachable(f"{museum.url}/data/objects.csv").endswith("answers 200")
    assert "not reached (" in fetch.reachable("http://127.0.0.1:9/")


# Pages for people, and museums that ask for patience (issue 14, C)


@pytest.mark.parametrize("status", [200, 403, 429, 503])
def test_challenge_is_told_at_once(server: Scripted, fetcher: Fetcher, slept: list[float], status: int) -> None:
    """A challenge page, by its header, is no picture and no passing fault: it is named, and not asked for again."""
    server.replies = [challenge(status)] * 4
    with pytest.raises(TurnedAway) as caught:
        got(fetcher, server)
    text = str(caught.value)
    assert text.startswith(f"{server.url}/a: the server turns programs away at the moment ({status}: a page for people")
    assert "'Just a moment...'" in text
    assert len(server.asked) == 1
    assert slept == []


@pytest.mark.parametrize("status", [200, 403, 503])
def test_challenge_without_a_header_is_seen_by_its_page(server: Scripted, fetcher: Fetcher, status: int) -> None:
    """Others than Cloudflare name it nowhere but on the page."""
    page = b"<!DOCTYPE html><title>Are you a robot?</title><div class='g-recaptcha'></div>"
    server.replies = [Reply(status, page, {"Content-Type": "text/html"})]
    with pytest.raises(TurnedAway, match=r"a page for people, 'Are you a robot\?'"):
        fetcher.get(f"{server.url}/a", limit=10**6, check=load)
    assert len(server.asked) == 1


def test_plain_refusal_is_none(server: Scripted, fetcher: Fetcher) -> None:
    """A 403 with an ordinary page is one file's refusal, not the museum's to programs."""
    server.replies = [Reply(403, b"<html><title>Forbidden</title>", {"Content-Type": "text/html"})]
    text = fault(lambda: got(fetcher, server))
    assert text.endswith("the server answers 403 Forbidden")


def test_sign_in_page_is_named(server: Scripted, fetcher: Fetcher, slept: list[float]) -> None:
    """A redirect to a sign-in page with 200 may pass: it is asked for again, and named by its title in the end."""
    page = b"\n<!-- proxy --><html><head><title> Please\n sign in </title>"
    server.replies = [Reply(302, headers={"Location": "/login"}), Reply(200, page, {"Content-Type": "text/html"})] * 4
    with pytest.raises(InputError, match=r"not a picture.*; a page for people, 'Please sign in', came instead"):
        fetcher.get(f"{server.url}/a", limit=10**6, check=load)
    assert len(slept) == 3


@pytest.mark.parametrize("wait", ["30", "2.5"])
def test_forbidden_with_a_time_is_a_pause(server: Scripted, fetcher: Fetcher, slept: list[float], wait: str) -> None:
    """Some museums answer 403 to who asks too fast; one that says when to come again is heeded."""
    server.replies = [Reply(403, headers={"Retry-After": wait})]
    assert got(fetcher, server) == BODY
    assert slept == [float(wait)]


def test_failure_has_its_status(server: Scripted, fetcher: Fetcher) -> None:
    """Who calls can tell what is not there from what could not be reached."""
    server.replies = [Reply(404)]
    with pytest.raises(FetchError) as caught:
        got(fetcher, server)
    assert caught.value.status == 404
    server.offline = True
    with pytest.raises(FetchError) as caught:
        got(fetcher, server)
    assert caught.value.status == 0


def test_contact_is_in_the_user_agent(server: Scripted, tmp_path: Path) -> None:
    """A museum can write to whoever runs it."""
    with Fetcher(pause=0, cache=tmp_path, contact="me@museum.test") as client:
        got(client, server)
    assert server.asked[0].headers["user-agent"].startswith("avignon/")
    assert "me@museum.test; museum open data" in server.asked[0].headers["user-agent"]
    assert "pypi" not in fetch.USER_AGENT
