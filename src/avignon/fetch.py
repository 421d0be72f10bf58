"""The only network client: time-outs, retries with back-off, pacing, size limits, and no surprises on redirects."""

import email.utils
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from avignon import __version__
from avignon.errors import FetchError
from avignon.workspace import read_json, replacing, write_json

T = TypeVar("T")

ELSEWHERE = "choose another cache with the environment variable XDG_CACHE_HOME"

ATTEMPTS = 4
BACK_OFF = 0.5
"""Seconds before the second attempt; doubled before each further one."""

MAX_REDIRECTS = 5
MAX_WAIT = 120.0
"""Seconds; a server that asks for more patience gets an error that says so."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Answer:
    """What came back, and from where after redirects."""

    url: str
    content: bytes
    headers: Mapping[str, str]


class _TryAgain(Exception):  # noqa: N818 - not an error: a pause between two attempts
    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Fetcher:
    """A polite client. `mounts` hands URLs of further schemes to in-process transports, as httpx does.

    Raises:
        FetchError: from each method, in one line: what could not be had and what to do.
    """

    def __init__(
        self,
        *,
        pause: float = 0.2,
        timeout: float = 30.0,
        mounts: Mapping[str, httpx.BaseTransport] | None = None,
        cache: Path | None = None,
    ) -> None:
        self._pause = pause
        self._cache = cache or cache_folder()
        self._schemes = {"http", "https", *(pattern.partition(":")[0] for pattern in mounts or {})}
        self._last: dict[str, float] = {}
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout, pool=None),
            headers={"User-Agent": f"avignon/{__version__} (museum open data; one request at a time)"},
            follow_redirects=False,
            mounts=dict(mounts or {}),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, url: str, *, limit: int) -> Answer:
        """Fetch `url` whole, at most `limit` bytes."""
        return self._attempts(url, lambda: self._get_once(url, limit))

    def table(self, url: str, *, limit: int = 2**31) -> tuple[Path, bool]:
        """A large file through the user's cache; the flag says whether the server confirmed that it is fresh.

        An unreachable server leaves the cached copy in use, if there is one.
        """
        path = self._cache / hashlib.sha256(url.encode()).hexdigest()[:32]
        notes = path.with_suffix(".json")
        known: dict[str, Any] = read_json(notes) if notes.exists() and path.exists() else {}
        try:
            self._attempts(url, lambda: self._store_once(url, path, notes, known.get("etag", ""), limit))
        except FetchError:
            if not known:
                raise
            return path, False
        return path, True

    def _attempts(self, url: str, once: Callable[[], T]) -> T:
        for attempt in range(ATTEMPTS):
            try:
                return once()
            except _TryAgain as failed:
                wait = failed.wait if failed.wait is not None else BACK_OFF * 2**attempt
                if attempt == ATTEMPTS - 1 or wait > MAX_WAIT:
                    asked = f" and asks to wait {wait:.0f} s" if wait > MAX_WAIT else ""
                    raise FetchError(
                        f"{url}: {failed}{asked}; check the network or the address, then run again"
                    ) from None
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _get_once(self, url: str, limit: int) -> Answer:
        with self._opened(url, {}) as response:
            content = b"".join(self._chunks(response, limit))
            return Answer(str(response.url), content, response.headers)

    def _store_once(self, url: str, path: Path, notes: Path, etag: str, limit: int) -> None:
        with self._opened(url, {"If-None-Match": etag} if etag else {}) as response:
            if response.status_code == 304:
                return
            with replacing(path, ELSEWHERE) as scratch, scratch.open("wb") as file:
                for chunk in self._chunks(response, limit):
                    file.write(chunk)
            write_json(notes, {"url": url, "etag": response.headers.get("ETag", ""), "fetched": time.strftime("%F")})

    @contextmanager
    def _opened(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """The response at the end of the redirects, body unread; passing faults become `_TryAgain`."""
        try:
            target = httpx.URL(url)
            for _ in range(MAX_REDIRECTS + 1):
                self._wait_turn(target.host)
                with self._client.stream("GET", target, headers=headers) as response:
                    if not response.has_redirect_location:
                        self._check(response)
                        yield response
                        return
                    target = self._next(target, response)
        except httpx.TimeoutException as late:
            raise _TryAgain(f"no answer in time ({type(late).__name__})") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise FetchError(f"{url}: not an address that can be fetched; allowed are http and https") from None
        except httpx.RequestError as broken:
            raise _TryAgain(f"could not be reached ({broken or type(broken).__name__})") from None
        raise FetchError(f"{url}: more than {MAX_REDIRECTS} redirects")

    def _next(self, target: httpx.URL, response: httpx.Response) -> httpx.URL:
        following = target.join(response.headers["Location"])
        downgraded = target.scheme == "https" and following.scheme == "http"
        if following.scheme not in self._schemes or downgraded:
            raise FetchError(f"{target}: redirects to {following.scheme}:, which is not followed")
        return following

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in _PASSING:
            raise _TryAgain(f"the server answers {status}", _retry_after(response.headers.get("Retry-After", "")))
        if status >= 300 and status != httpx.codes.NOT_MODIFIED:
            raise FetchError(f"{response.url}: the server answers {status} {response.reason_phrase}".rstrip())

    def _chunks(self, response: httpx.Response, limit: int) -> Iterator[bytes]:
        received = 0
        for chunk in response.iter_bytes():
            received += len(chunk)
            if received > limit:
                raise FetchError(f"{response.url}: larger than the {limit / 1e6:.0f} MB that are accepted")
            yield chunk

    def _wait_turn(self, host: str) -> None:
        now = time.monotonic()
        wait = self._last.get(host, -self._pause) + self._pause - now
        if wait > 0:
            time.sleep(wait)
        self._last[host] = time.monotonic()


def _retry_after(value: str) -> float | None:
    """Seconds asked for, as a number or an HTTP date (RFC 9110, 10.2.3)."""
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def cache_folder() -> Path:
    """Where tables are kept between runs (XDG base directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avignon"


def reachable(url: str) -> str:
    """Whether a server answers within five seconds, in words; for `avignon doctor`."""
    try:
        answer = httpx.head(url, timeout=5, follow_redirects=True)
    except httpx.HTTPError as failed:
        return f"{url}: not reached ({type(failed).__name__})"
    return f"{url}: answers {answer.status_code}"
