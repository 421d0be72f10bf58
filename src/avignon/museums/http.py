"""The network client of museums: time-outs, retries with back-off, pacing, size limits, and checked redirects."""

import email.utils
import hashlib
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import httpx

from avignon.core.about import user_agent
from avignon.core.errors import FetchError, InputError, TurnedAway
from avignon.core.files import CACHE_ELSEWHERE, cache_folder, storing, write_json
from avignon.museums.protocol import FetchSettings

if TYPE_CHECKING:
    from avignon.museums.settings import OnlineMuseum

T = TypeVar("T")
Check = Callable[[bytes], object]
Headers = Mapping[str, str]

ATTEMPTS = 4
BACK_OFF = 0.5
"""Seconds before the second attempt; doubled before each further one."""

USER_AGENT = user_agent()
"""How the program names itself where no contact is given."""

MAX_REDIRECTS = 5
MAX_WAIT = 120.0
"""Seconds; a longer `Retry-After` is an error that says so."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

_CHALLENGES = re.compile(rb"(?i)challenge-platform|cf[-_]chl|just a moment|captcha|awswaf|cookies to continue")
"""What pages that want to see a person's browser hold, where no header says that they are one."""

_PAGE = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html|head)\b", re.IGNORECASE | re.DOTALL)
_PAGE_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_PAGE_BYTES = 65_536
"""How much of a refusal is read to see what kind it is."""


@dataclass(frozen=True)
class Answer:
    """What came back, and from where after redirects."""

    url: str
    content: bytes


class _TryAgain(Exception):  # noqa: N818 - not an error: a pause between two attempts
    def __init__(self, why: str, wait: float | None = None, last: InputError | None = None) -> None:
        super().__init__(why)
        self.wait = wait
        """Seconds; None: as long as `BACK_OFF` says."""
        self.last = last
        """What the last attempt raises; None: an error that says why."""


class Fetcher(AbstractContextManager["Fetcher"]):
    """A polite client. `mounts` hands URLs of further schemes to in-process transports, as httpx does.

    Raises:
        FetchError: from each method, in one line: what is unavailable and what to do.
    """

    def __init__(
        self,
        *,
        pause: float = 0.2,
        timeout: float = 30.0,
        contact: str = "",
        mounts: Mapping[str, httpx.BaseTransport] | None = None,
        cache: Path | None = None,
    ) -> None:
        self.user_agent = user_agent(contact)
        """How it names itself; `contact` is where a museum can reach whoever runs it."""
        self._pause = pause
        self._cache = cache or cache_folder()
        self._schemes = {"http", "https", *(pattern.partition(":")[0] for pattern in mounts or {})}
        self._last: dict[str, float] = {}
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout, pool=None),
            headers={"User-Agent": self.user_agent},
            follow_redirects=False,
            mounts=dict(mounts or {}),
        )

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, url: str, *, limit: int, check: Check | None = None, headers: Headers | None = None) -> Answer:
        """Fetch `url` whole, at most `limit` bytes.

        What `check` refuses (by an `InputError`) may have been damaged on the way: it is fetched again, and the last
        refusal is raised.
        """

        def once() -> Answer:
            with self._opened(url, headers or {}) as response:
                answer = Answer(str(response.url), b"".join(self._chunks(response, limit)))
            try:
                if check:
                    check(answer.content)
                return answer
            except InputError as refused:
                what = f"{url}: {str(refused).removeprefix('image: ')}"
                error = type(refused)(what)
                if _PAGE.match(answer.content):
                    error = TurnedAway(f"{what}; {_shown(answer.content)} came instead")
                    if _CHALLENGES.search(answer.content):  # Another request would only be refused again.
                        raise error from None
                raise _TryAgain(str(refused), last=error) from None

        return self._attempts(url, once)

    def table(self, url: str, *, limit: int = 2**31, known_as: str = "") -> tuple[Path, bool]:
        """A large file through the user's cache; the flag says whether the server confirmed that it is fresh.

        An unreachable server leaves the cached copy in use, if there is one. The part of an interrupted file is kept,
        and the rest is fetched. One process at a time: the caller holds a lock. `limit` is in bytes; `known_as` names
        the copy, where its address changes from one edition to the next.
        """
        path = self._cache / hashlib.sha256((known_as or url).encode()).hexdigest()[:32]
        with storing(path, CACHE_ELSEWHERE):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._attempts(url, lambda: self._store_once(url, path, limit))
            except FetchError:
                if not path.exists():
                    raise
                return path, False
        return path, True

    def _attempts(self, url: str, once: Callable[[], T]) -> T:
        for attempt in itertools.count(1):
            try:
                return once()
            except _TryAgain as failed:
                wait = failed.wait if failed.wait is not None else BACK_OFF * 2 ** (attempt - 1)
                asked = f" and asks to wait {wait:.0f} s" if wait > MAX_WAIT else ""
                what = f"{url}: {failed}{asked}; check the network or the address, then run again"
                if attempt == ATTEMPTS:
                    raise failed.last or FetchError(what) from None
                if asked:
                    raise FetchError(what) from None
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _store_once(self, url: str, whole: Path, limit: int) -> None:
        """A file under its own name, what has come of a new edition under `.part-`, each beside a note of its ETag."""
        part = whole.with_name(f".part-{whole.name}")
        with self._opened(url, _conditions(whole, part)) as response:
            if response.status_code == httpx.codes.NOT_MODIFIED:
                return
            etag, place = response.headers.get("ETag", ""), response.headers.get("Content-Range", "")
            if response.status_code == httpx.codes.OK:
                _forget(part)
                # Only a strong ETag says that bytes are the same.
                write_json(_note_of(part), {"etag": "" if etag.startswith("W/") else etag})
            elif not place.startswith(f"bytes {part.stat().st_size}-") or etag not in ("", _etag_beside(part)):
                _forget(part)
                raise _TryAgain("the server cannot go on with what has come so far")
            with part.open("ab") as file:
                for chunk in self._chunks(response, limit):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        etag = etag or _etag_beside(part)
        _note_of(whole).unlink(missing_ok=True)  # A file is never beside the note of another.
        part.replace(whole)
        write_json(_note_of(whole), {"url": url, "etag": etag, "fetched": time.strftime("%F")})
        _note_of(part).unlink(missing_ok=True)

    @contextmanager
    def _opened(self, url: str, headers: Headers) -> Iterator[httpx.Response]:
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
                    following = target.join(response.headers["Location"])
                downgraded = target.scheme == "https" and following.scheme == "http"
                if following.scheme not in self._schemes or downgraded:
                    raise FetchError(f"{target}: redirects to {following.scheme}:, which is not followed")
                target = following
        except httpx.TimeoutException as late:
            raise _TryAgain(f"no answer in time ({type(late).__name__})") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise FetchError(f"{url}: not an address that can be fetched; allowed are http and https") from None
        except httpx.RequestError as broken:
            raise _TryAgain(f"could not be reached ({broken or type(broken).__name__})") from None
        raise FetchError(f"{url}: more than {MAX_REDIRECTS} redirects")

    def _check(self, response: httpx.Response) -> None:
        status, wait = response.status_code, _retry_after(response.headers.get("Retry-After", ""))
        if (challenge := _challenge(response)) is not None:
            raise TurnedAway(f"{response.url}: the server turns programs away at the moment ({challenge})", status)
        if status in _PASSING or (status == httpx.codes.FORBIDDEN and wait is not None):
            raise _TryAgain(f"the server answers {status}", wait)  # Some answer 403 to requests that come too fast.
        conditional = (304, 416) if "Range" in response.request.headers else (304,)
        if status >= 300 and status not in conditional:
            raise FetchError(f"{response.url}: the server answers {status} {response.reason_phrase}".rstrip(), status)

    def _chunks(self, response: httpx.Response, limit: int) -> Iterator[bytes]:
        promised, received = response.headers.get("Content-Length", ""), 0
        too_large = FetchError(f"{response.url}: larger than the {limit / 1e6:.0f} MB that are accepted")
        if promised.isdecimal() and int(promised) > limit:
            raise too_large
        for chunk in response.iter_bytes():
            received += len(chunk)
            if received > limit:
                raise too_large
            yield chunk

    def _wait_turn(self, host: str) -> None:
        wait = self._last.get(host, -self._pause) + self._pause - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        self._last[host] = time.monotonic()


def _conditions(whole: Path, part: Path) -> dict[str, str]:
    """Headers that ask for the rest of a part, or for nothing where nothing has changed (RFC 9110, 13 and 14).

    Uncompressed, because a range of a compressed answer is of its compressed bytes.
    """
    headers = {"Accept-Encoding": "identity"}
    begun, known = _etag_beside(part), _etag_beside(whole)
    if begun and part.stat().st_size:
        return {**headers, "Range": f"bytes={part.stat().st_size}-", "If-Range": begun}
    return {**headers, "If-None-Match": known} if known else headers


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _etag_beside(path: Path) -> str:
    """The ETag of a file in the cache; none where the file or its note is missing or damaged."""
    try:
        note = json.loads(_note_of(path).read_bytes()) if path.exists() else {}
        return str(note.get("etag", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _challenge(response: httpx.Response) -> str | None:
    """What a server shows where it wants to see a person, by a header or by its page alone; None where it does not.

    https://developers.cloudflare.com/cloudflare-challenges/challenge-types/challenge-pages/detect-response
    """
    status = response.status_code
    marked = "challenge" in response.headers.get("cf-mitigated", "").lower()
    is_page = "html" in response.headers.get("Content-Type", "")
    if not marked and not (is_page and status in (401, 403, 429, 503)):
        return None
    body = next(response.iter_bytes(_PAGE_BYTES), b"")
    return f"{status}: {_shown(body)}" if marked or _CHALLENGES.search(body) else None


def _shown(page: bytes) -> str:
    """A page in words: by its title, where it has one."""
    title = _PAGE_TITLE.search(page)
    words = " ".join(title[1].decode(errors="replace").split())[:80] if title else ""
    return f"a page for people, {words!r}," if words else "a page for people"


def _retry_after(value: str) -> float | None:
    """Seconds asked for, as a number or an HTTP date (RFC 9110, 10.2.3)."""
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def client_of(museum: "OnlineMuseum", settings: FetchSettings) -> Fetcher:
    """A client at the museum's pace, or at the recipe's own where it sets one."""
    pause = museum.pause if settings.pause is None else settings.pause
    return Fetcher(pause=pause, timeout=settings.timeout, contact=museum.contact)


def reachable(url: str) -> str:
    """Whether a server answers within five seconds, in words; for `avignon doctor`."""
    try:
        answer = httpx.head(url, timeout=5, follow_redirects=True, headers={"User-Agent": USER_AGENT})
    except httpx.HTTPError as failed:
        return f"{url}: not reached ({type(failed).__name__})"
    return f"{url}: answers {answer.status_code}"
