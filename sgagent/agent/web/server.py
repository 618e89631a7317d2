"""Serve metrics over HTTP, and pages beside them, whatever some of the readers do.

One thread accepts connections, reads requests and writes answers, and never waits for a single reader. Other
threads make the pages, one for each path as long as somebody asks for it, so that no page waits for another.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import errno
import io
import queue
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import TypeAlias, assert_never
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry

from sgagent.agent.web.exposition import page_type, write_page
from sgagent.agent.web.messages import Page, Request, Response

MOST_CONNECTIONS = 256
"""At the same time. The next one takes the place of the one that has been sending its request for longest."""

MOST_UNREAD_ANSWERS = 16
"""Of which a part still waits for its reader. The next one takes the place of the one that stalls longest."""

MOST_WAITING = 16
"""Requests for one page that wait until it is made; the next are refused. Metrics are made once for all."""

LONGEST_SECONDS = 10.0
"""From accepting a connection to its end, whatever the reader does."""

LONGEST_REQUEST = 16 * 1024
"""Bytes, with all headers."""

_METRICS = "/metrics"
_BACKLOG = 128
_CHUNK = 1 << 16
_PAUSE_SECONDS = 0.1
"""Before the next connection is taken, where there was no room for one."""

_NO_PAGES: Mapping[str, Page] = MappingProxyType({})


class MetricsServer:
    """Serve ``/metrics`` of a registry, and other pages, on one address."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        pages: Mapping[str, Page] = _NO_PAGES,
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        """Bind and start to serve.

        Args:
            host: an address of either family, or a name that stands for one.
            port: 0 takes any that is free.
            registry: read by one thread at a time.
            pages: what else is served, by path; each is made by one thread at a time.
            longest_seconds: after which a reader is cut off.

        Raises:
            OSError: the address is taken, or not this host's.
        """
        self._listener = _listen(host, port)
        self._longest_seconds = longest_seconds
        self._selector = selectors.DefaultSelector()
        self._bell, self._rope = socket.socketpair()
        self._is_closed = threading.Event()
        self._is_accepting = True
        self._connections: dict[socket.socket, _Connection] = {}
        """In the order in which they were accepted."""

        self._made: queue.SimpleQueue[tuple[_Connection, Response | None]] = queue.SimpleQueue()
        """What other threads have made."""

        self._makers = {
            path: _Maker(partial(_one_by_one, page), self._hand_over) for path, page in pages.items()
        }
        self._makers[_METRICS] = _Maker(partial(_together, registry), self._hand_over, MOST_CONNECTIONS)
        for one in (self._listener, self._bell, self._rope):
            one.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
        for one in (self._listener, self._bell):
            self._selector.register(one, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Return the port that is listened on."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Stop to serve, without waiting for readers."""
        self._is_closed.set()
        self._ring()
        self._thread.join()

    def _hand_over(self, connection: _Connection, response: Response | None) -> None:
        """Take what was made for a connection, None where that failed; called by other threads."""
        self._made.put((connection, response))
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # it rings already, or the server is closed
            self._rope.send(b"\0")

    def _serve(self) -> None:
        with self._selector, self._listener, self._bell, self._rope:
            while not self._is_closed.is_set():
                for key, _ in self._selector.select(self._seconds_to_wait()):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj is self._bell:
                        self._bell.recv(_CHUNK)
                    elif key.data.socket in self._connections:  # another may have taken its place just now
                        self._go_on(key.data)
                self._take_what_was_made()
                while self._seconds_to_wait() == 0:
                    self._end(next(iter(self._connections.values())))
            for connection in list(self._connections.values()):
                self._end(connection)

    def _seconds_to_wait(self) -> float | None:
        """Return in how many seconds a connection has to end; all get the same time."""
        oldest = next(iter(self._connections.values()), None)
        return None if oldest is None else max(0.0, oldest.ends_at - time.monotonic())

    def _accept(self) -> None:
        """Take a connection, if there is room for one or if some other can end for it."""
        if len(self._connections) >= MOST_CONNECTIONS and not self._end_slowest_request():
            self._selector.unregister(self._listener)
            self._is_accepting = False
            return
        try:
            accepted, reader = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _PASSING:
                raise
            if not self._end_slowest_request():
                self._is_closed.wait(_PAUSE_SECONDS)
            return
        accepted.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
        connection = _Connection(accepted, str(reader), time.monotonic() + self._longest_seconds)
        self._connections[accepted] = connection
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _end_slowest_request(self) -> bool:
        """End the connection that has been sending its request for longest, if there is one."""
        asking = (one for one in self._connections.values() if one.phase is _Phase.ASKS)
        slowest = next(asking, None)
        if slowest is not None:
            self._end(slowest)
        return slowest is not None

    def _end(self, connection: _Connection) -> None:
        del self._connections[connection.socket]
        if connection.phase is not _Phase.WAITS:
            self._selector.unregister(connection.socket)
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_WR)
        connection.socket.close()
        if not self._is_accepting:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._is_accepting = True

    def _go_on(self, connection: _Connection) -> None:
        """Read or write what is possible without waiting."""
        try:
            match connection.phase:
                case _Phase.ASKS:
                    self._read(connection)
                case _Phase.WAITS:
                    pass
                case _Phase.TAKES:
                    self._write(connection)
                case _:
                    assert_never(connection.phase)
        except BlockingIOError:
            return
        except OSError:  # the reader has gone
            self._end(connection)
        except Exception as fault:  # noqa: BLE001 - the outermost frame of a request: others are served all the same
            _LOG.error("scrape_failed", reader=connection.reader, exc_info=fault)
            self._end(connection)

    def _read(self, connection: _Connection) -> None:
        """Read more of a request; a whole one is given to who makes the page."""
        received = connection.socket.recv(_CHUNK)
        connection.request += received
        is_too_long = len(connection.request) > LONGEST_REQUEST
        if received and not is_too_long and not _END_OF_REQUEST.search(connection.request):
            return
        connection.phase = _Phase.WAITS
        self._selector.unregister(connection.socket)
        if is_too_long:
            self._begin_to_write(connection, _TOO_LARGE)
        else:
            self._ask(connection)

    def _ask(self, connection: _Connection) -> None:
        """Have a page made, or refuse the request."""
        exchange = connection.exchange = _Exchange(bytes(connection.request))
        if exchange.is_understood:
            maker = self._makers.get(exchange.target.path)
            if maker is not None and maker.ask(connection):
                return
            exchange.refuse(self._makers, is_known=maker is not None)
        self._begin_to_write(connection, exchange.written())

    def _take_what_was_made(self) -> None:
        """Begin to write what other threads have made meanwhile."""
        with contextlib.suppress(queue.Empty):
            while True:
                connection, response = self._made.get_nowait()
                if connection.socket not in self._connections:
                    continue  # it took too long
                if response is None:
                    self._end(connection)
                else:
                    head = connection.exchange.head_of(response)
                    content = b"" if connection.exchange.command == "HEAD" else response.content
                    self._begin_to_write(connection, head, content)

    def _begin_to_write(self, connection: _Connection, *parts: bytes) -> None:
        """Write what the kernel takes at once; the rest follows as the reader takes it."""
        connection.unsent.extend(memoryview(part) for part in parts if part)
        connection.phase = _Phase.TAKES
        connection.took_at = time.monotonic()
        self._selector.register(connection.socket, selectors.EVENT_WRITE, connection)
        self._go_on(connection)
        taking = [one for one in self._connections.values() if one.phase is _Phase.TAKES]
        if len(taking) > MOST_UNREAD_ANSWERS:
            self._end(min(taking, key=lambda one: one.took_at))

    def _write(self, connection: _Connection) -> None:
        """Write on; the connection ends when its reader has all."""
        while connection.unsent:
            sent = connection.socket.send(connection.unsent[0])
            connection.took_at = time.monotonic()
            connection.unsent[0] = connection.unsent[0][sent:]
            if not connection.unsent[0]:
                connection.unsent.popleft()
        self._end(connection)


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: the address is taken, or not this host's.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


_PASSING = frozenset({errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of accepting after which the next connection may be well."""


class _Phase(enum.Enum):
    """Who has to do something about a connection."""

    ASKS = enum.auto()
    """The reader has not sent its whole request."""

    WAITS = enum.auto()
    """The page is being made."""

    TAKES = enum.auto()
    """The reader has not taken the whole answer."""


@dataclass(slots=True, eq=False)
class _Connection:
    """A reader. Belongs to the thread that serves."""

    socket: socket.socket
    reader: str
    """Its address, for the log."""

    ends_at: float
    """By the monotonic clock."""

    phase: _Phase = _Phase.ASKS
    request: bytearray = field(default_factory=bytearray)
    exchange: _Exchange = field(init=False)
    """There once the request is whole."""

    unsent: collections.deque[memoryview] = field(default_factory=collections.deque)
    took_at: float = 0.0
    """When the reader took something of the answer last; by the monotonic clock."""


_END_OF_REQUEST = re.compile(rb"\n\r?\n")
_TOO_LARGE = b"HTTP/1.0 431 Request Header Fields Too Large\r\n\r\n"


class _Exchange(BaseHTTPRequestHandler):
    """Understand one request and word the answer to it, without a connection."""

    server_version = "sgagent"
    sys_version = ""

    def __init__(self, request: bytes) -> None:
        """Understand a request; what is wrong with one that is not understood is written already."""
        self.rfile = io.BytesIO(request)
        self.wfile = self._written = io.BytesIO()
        self.target = urlsplit("")
        self.accepted = self.preferred = ""
        self.raw_requestline = self.rfile.readline()
        self.is_understood = bool(self.raw_requestline) and self.parse_request() and self._is_reading()

    def _is_reading(self) -> bool:
        """Return whether the request is one for a page, and keep which, and in which format."""
        if self.command not in {"GET", "HEAD"}:
            self.send_error(HTTPStatus.NOT_IMPLEMENTED, f"Unsupported method ({self.command!r})")
            return False
        try:
            self.target = urlsplit(self.path)
            self.accepted = str(self.headers.get("Accept", ""))
            self.preferred = page_type(self.accepted)
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST, "Bad target or format")
            return False
        return True

    def refuse(self, paths: Iterable[str], *, is_known: bool) -> None:
        """Say that there is no such page, or that too many want it."""
        if is_known:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "too many ask for this page")
        else:
            self.send_error(HTTPStatus.NOT_FOUND, f"here is only {', '.join(paths)}")

    def head_of(self, response: Response) -> bytes:
        """Return what stands before the content of an answer."""
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in response.headers:
            self.send_header(name, value)
        self.end_headers()
        return self.written()

    def written(self) -> bytes:
        """Return what is written so far."""
        return self._written.getvalue()

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape every few seconds is no event."""


_Made: TypeAlias = Iterator[tuple[Sequence[_Connection], Callable[[], Response]]]
"""Connections that get the same page, and what makes it."""


class _Maker:
    """Make one page, in a thread that ends when nobody waits for it any more."""

    def __init__(
        self,
        make: Callable[[Sequence[_Connection]], _Made],
        hand_over: Callable[[_Connection, Response | None], None],
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._make = make
        self._hand_over = hand_over
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._waiting: list[_Connection] = []
        self._is_running = False

    def ask(self, connection: _Connection) -> bool:
        """Have the page made for a connection; tell whether it will be."""
        with self._lock:
            if len(self._waiting) >= self._most_waiting:
                return False
            if not self._is_running:
                try:
                    threading.Thread(target=self._run, name="page", daemon=True).start()
                except RuntimeError:  # there may be no more threads
                    return False
            self._is_running = True
            self._waiting.append(connection)
        return True

    def _run(self) -> None:
        while waiting := self._take():
            for connections, make in self._make(waiting):
                response = _made(make, connections[0].reader)
                for connection in connections:
                    self._hand_over(connection, response)

    def _take(self) -> list[_Connection]:
        """Return all that wait; once there are none, the thread is about to end."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._is_running = bool(waiting)
        return waiting


def _made(make: Callable[[], Response], reader: str) -> Response | None:
    """Return a page; None if making it failed, which the log explains."""
    try:
        return make()
    except Exception as fault:  # noqa: BLE001 - the outermost frame of a thread: other pages are served all the same
        _LOG.error("scrape_failed", reader=reader, exc_info=fault)
        return None


def _one_by_one(page: Page, waiting: Sequence[_Connection]) -> _Made:
    """Make a page anew for each."""
    for connection in waiting:
        exchange = connection.exchange
        request = Request(query=exchange.target.query, host=exchange.headers.get("Host"))
        yield [connection], partial(page, request)


def _together(registry: CollectorRegistry, waiting: Sequence[_Connection]) -> _Made:
    """Read the metrics once for all who prefer the same format."""
    by_type: dict[str, list[_Connection]] = {}
    for connection in waiting:
        by_type.setdefault(connection.exchange.preferred, []).append(connection)
    for connections in by_type.values():
        yield connections, partial(_metrics, registry, connections[0].exchange.accepted)


def _metrics(registry: CollectorRegistry, accepted: str) -> Response:
    content, content_type = write_page(registry, accepted)
    return Response(status=HTTPStatus.OK, content_type=content_type, content=content)


_LOG = structlog.get_logger(__name__)
