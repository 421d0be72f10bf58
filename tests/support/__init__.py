"""Stand-ins for the world outside: a small Stable Diffusion, servers on 127.0.0.1, awkward pictures.

This module holds what the servers share: one listens in a thread on a free port, remembers what it was asked,
and can break an answer off the way real servers and networks do.
"""

import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

# Long enough for the bytes before a reset to leave the kernel's buffer, which a reset would throw away.
DRAIN_SECONDS = 0.05


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    method: str
    target: str
    """Path and query as sent, still percent-encoded."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""

    @property
    def path(self) -> str:
        """The decoded path, without the query."""
        return unquote(urlsplit(self.target).path)

    @property
    def parts(self) -> tuple[str, ...]:
        """The path's segments, split before they are decoded: a branch `refs/pr/1` travels as `refs%2Fpr%2F1`."""
        return tuple(unquote(part) for part in urlsplit(self.target).path.strip("/").split("/"))

    @property
    def query(self) -> dict[str, str]:
        """The query's values by name."""
        return dict(parse_qsl(urlsplit(self.target).query))


@dataclass(frozen=True)
class Reply:
    """One answer, and how its sending goes wrong if it is to."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Send only so many bytes of the body, though Content-Length promises all."""
    cut_by: Literal["close", "reset"] = "close"
    """How the connection ends there: in good order (FIN), or torn (RST)."""
    wait: float = 0.0
    """Seconds of silence before the first byte."""
    promise: int | None = None
    """Content-Length, where it is not the body's: the connection is closed after the body."""


class LocalServer:
    """A quiet HTTP/1.1 server on 127.0.0.1; a subclass says in `answer` what it replies."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        """(method, decoded path without query) of each request, in order."""
        self._lock = threading.Lock()
        self._http: _Listener | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        """Where it listens, without a final slash; the same after a pause."""
        return f"http://127.0.0.1:{self._port}"

    def answer(self, asked: Asked) -> Reply:
        """What to reply; runs in the connection's own thread."""
        raise NotImplementedError

    def start(self) -> None:
        """Listen: on a free port the first time, on the same one after."""
        self._http = _Listener(self, self._port)
        self._port = self._http.server_address[1]
        # The default poll of half a second would be paid at every close.
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Stop listening and break off every open connection: whoever calls next is refused."""
        if self._http is not None:
            self._http.stop()
            self._http = None

    @property
    def offline(self) -> bool:
        """Whether connections are refused; set it to pull the plug, or to put it back."""
        return self._http is None

    @offline.setter
    def offline(self, offline: bool) -> None:
        if offline:
            self.close()
        elif self._http is None:
            self.start()

    def asked_for(self, part: str, method: str = "GET") -> int:
        """How many requests of this method had `part` in their path."""
        return sum(1 for seen, path in self.requests if seen == method and part in path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _handle(self, asked: Asked) -> Reply:
        with self._lock:
            self.requests.append((asked.method, asked.path))
        return self.answer(asked)


class _Listener(ThreadingHTTPServer):
    """The socket's side of a LocalServer."""

    def __init__(self, owner: LocalServer, port: int) -> None:
        self.owner = owner
        self.stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def enter(self, connection: socket.socket) -> None:
        with self._open_lock:
            self._open.add(connection)

    def leave(self, connection: socket.socket) -> None:
        with self._open_lock:
            self._open.discard(connection)

    def stop(self) -> None:
        self.stopped.set()
        self.shutdown()
        self.server_close()
        with self._open_lock:
            for connection in self._open:
                _shut(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the game: nothing is printed."""


class _Handler(BaseHTTPRequestHandler):
    """Turns a request into `Asked` and a `Reply` into bytes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: the second would wait 40 ms for the first
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self.server.enter(self.connection)

    def finish(self) -> None:
        self.server.leave(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Say nothing: a test's output is the test's own."""

    def do_GET(self) -> None:
        """Answer any method."""
        reply = self.server.owner._handle(self._asked())
        if reply.wait:
            self.server.stopped.wait(reply.wait)
        if self.server.stopped.is_set():
            self.close_connection = True
        else:
            self._send(reply)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815  (the base class's names)

    def _asked(self) -> Asked:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        bodiless = reply.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if not bodiless:
            self.send_header("Content-Length", str(len(reply.body) if reply.promise is None else reply.promise))
            self.close_connection = self.close_connection or reply.promise is not None
        self.end_headers()
        if self.command != "HEAD" and not bodiless:
            self.wfile.write(reply.body[: reply.cut_after])
            if reply.cut_after is not None:
                self._cut(reply.cut_by)

    def _cut(self, how: Literal["close", "reset"]) -> None:
        self.close_connection = True
        if how == "reset":
            self.server.stopped.wait(DRAIN_SECONDS)
            # Lingering for zero seconds makes the close an RST; every file on the socket must be closed for it.
            self.server.leave(self.connection)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()


def _shut(connection: socket.socket) -> None:
    """End a connection that another thread may be ending, too."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
