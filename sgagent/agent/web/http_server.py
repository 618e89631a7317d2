"""The HTTP server for metrics and pages, which no slow client can block, and its address.

Each connection has a thread and a deadline. Where there are too many, the one that has kept the server
waiting for longest makes room. A few clients hear every two seconds how often what pages show has changed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from sgagent.agent.connections import Connection, ConnectionServer
from sgagent.agent.step import EventLog, FaultLog
from sgagent.agent.web.page import Page, Request, Response, plain
from sgagent.settings.listen_address import ListenAddress

LONGEST_REQUEST = 16 * 1024
"""Bytes, with all headers."""

_REQUEST_TOO_LARGE = b"HTTP/1.0 431 Request Header Fields Too Large\r\n\r\n"
_END_OF_REQUEST = re.compile(rb"\n\r?\n")
_CHUNK = 1 << 16


class HttpExchange(BaseHTTPRequestHandler):
    """Parse a request and format the response, in memory.

    On a socket, the standard library's handler would read requests of any length.
    """

    server_version = "sgagent"
    sys_version = ""

    def __init__(self, request: bytes) -> None:
        """Parse a request; if it is invalid, the response with the error is ready."""
        self.rfile = io.BytesIO(request)
        self.wfile = self._response = io.BytesIO()
        self.target = urlsplit("")
        self.encoder = choose_encoder("")
        """The function that writes metrics as the client prefers them, and their content type."""

        self.raw_requestline = self.rfile.readline()
        self.is_valid = bool(self.raw_requestline) and self.parse_request() and self._is_supported()

    def _is_supported(self) -> bool:
        """Parse method, target and format; return False after an error was written."""
        if self.command not in {"GET", "HEAD"}:
            self.send_error(HTTPStatus.NOT_IMPLEMENTED, f"Unsupported method ({self.command!r})")
            return False
        try:
            self.target = urlsplit(self.path)
            self.encoder = choose_encoder(str(self.headers.get("Accept", "")))
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST, "Bad target or format")
            return False
        return True

    def format_response(self, response: Response) -> tuple[bytes, bytes]:
        """Return the head and the content; for HEAD, the content is empty."""
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        if response.make_event is None:
            self.send_header("Content-Length", str(len(response.content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in response.headers:
            self.send_header(name, value)
        self.end_headers()
        return self.written(), b"" if self.command == "HEAD" else response.content

    def written(self) -> bytes:
        """Return the bytes written so far."""
        return self._response.getvalue()

    def log_message(self, *_: object) -> None:
        """Log no requests: a scrape every few seconds is no event."""


MOST_WAITING = 16
"""Clients that wait for one page; the next are refused. One response with metrics serves all that wait."""


_Maker = Callable[[HttpExchange], Response | None]
"""Makes the response for a path, or None where too many clients wait for one; called in their threads."""


def _own_responses(page: Page) -> _Maker:
    """Return a maker of a response of its own for each client, one at a time."""
    turn, places = threading.Lock(), threading.BoundedSemaphore(MOST_WAITING + 1)

    def make(exchange: HttpExchange) -> Response | None:
        if not places.acquire(blocking=False):
            return None
        try:
            with turn:
                return page(Request(query=exchange.target.query, host=exchange.headers.get("Host")))
        finally:
            places.release()

    return make


def _shared_scrapes(registry: CollectorRegistry) -> _Maker:
    """Return a maker of one response with metrics for all clients that wait for the same format."""
    turn, lock = threading.Lock(), threading.Lock()
    waited_for: dict[str, Future[Response]] = {}  # not begun yet, and so newer than a request that comes now

    def make(exchange: HttpExchange) -> Response:
        encode, content_type = exchange.encoder
        with lock:
            is_first = content_type not in waited_for
            shared = waited_for.setdefault(content_type, Future())
        if is_first:
            with turn:
                with lock:
                    del waited_for[content_type]
                try:
                    content = encode(registry)
                    shared.set_result(
                        Response(status=HTTPStatus.OK, content_type=content_type, content=content)
                    )
                except Exception as fault:  # noqa: BLE001 - raised in the thread of each client that waits
                    shared.set_exception(fault)
        return shared.result()

    return make


MOST_CONNECTIONS = 256
"""At the same time. The next replaces the one that has been sending its request for longest."""

MOST_UNREAD_RESPONSES = 16
"""Of one page, that clients have not received in full. The next replaces the one that stalls for longest."""

LONGEST_SECONDS = 10.0
"""From accepting a connection to closing it, whatever the client does."""

MOST_STREAMS = 8
"""Of events, at the same time. The next client gets 503 and shows the page without a stream."""

EVENT_SECONDS = 2.0
"""Between two events."""

STREAM_SECONDS = 900.0
"""After which the server ends a stream, so that none is held for ever; browsers open another."""

_BACKLOG = 128
_NO_PAGES: Mapping[str, Page] = MappingProxyType({})


@dataclass(slots=True, eq=False, kw_only=True)
class _Client(Connection):
    """A connection and its thread's state."""

    address: str
    is_reading: bool = True
    """Whether its request is not complete yet."""

    unread: str = ""
    """The path of the page that it has not received in full."""

    sent_at: float = 0.0
    """When the client last took a part of that, by the monotonic clock."""


class MetricsServer(ConnectionServer[_Client]):
    """Serve ``/metrics`` of a registry, and other pages, on one address."""

    def __init__(
        self,
        listener: socket.socket,
        registry: CollectorRegistry,
        pages: Mapping[str, Page] = _NO_PAGES,
        *,
        longest_seconds: float = LONGEST_SECONDS,
        event_seconds: float = EVENT_SECONDS,
        stream_seconds: float = STREAM_SECONDS,
    ) -> None:
        """Start the thread that accepts connections.

        Args:
            listener: as :func:`listen` returns it; closed with the server. Another process may have it, too.
            registry: read by one thread at a time.
            pages: the other pages by path; one thread at a time calls each.
            longest_seconds: after which the server closes a connection that is no stream of events.
            event_seconds: between two events of a stream.
            stream_seconds: after which the server ends a stream.
        """
        self._longest_seconds = longest_seconds
        self._event_seconds = event_seconds
        self._stream_seconds = stream_seconds
        self._makers = {path: _own_responses(page) for path, page in pages.items()}
        self._makers["/metrics"] = _shared_scrapes(registry)
        self._streams = threading.BoundedSemaphore(MOST_STREAMS)
        super().__init__(listener, name="metrics", most=MOST_CONNECTIONS)

    @property
    def port(self) -> int:
        """Return the port that the server listens on."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Stop the thread and cut all connections at once."""
        super().close()
        with self._lock:
            self.cut(*self._connections.values())

    def admit(self, accepted: socket.socket, address: object) -> _Client:
        """Return the connection; there is room for it."""
        ends_at = time.monotonic() + self._longest_seconds
        return _Client(socket=accepted, address=str(address), ends_at=ends_at)

    def make_room(self) -> bool:
        """Cut the connection that has been sending its request for longest; return False without one."""
        with self._lock:
            slowest = next((client for client in self._connections.values() if client.is_reading), None)
            self.cut(*([slowest] if slowest else []))
        return slowest is not None

    def serve(self, connection: _Client) -> None:
        """Answer one request."""
        try:
            self._answer(connection)
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            raise
        except Exception as fault:  # noqa: BLE001 - the outermost frame of a thread: others are served all the same
            _LOG.error("scrape_failed", reader=connection.address, exc_info=fault)

    def _answer(self, client: _Client) -> None:
        request = _read_request(client.socket)
        client.is_reading = False
        if len(request) > LONGEST_REQUEST:
            client.socket.sendall(_REQUEST_TOO_LARGE)
            return
        exchange = HttpExchange(request)
        response = self._respond(exchange) if exchange.is_valid else None
        if response is None:
            client.socket.sendall(exchange.written())
        elif response.make_event is None:
            self._send(client, exchange, response)
        elif not self._streams.acquire(blocking=False):
            self._send(client, exchange, _TOO_MANY_STREAMS)
        else:
            try:
                self._send(client, exchange, response)
                if exchange.command != "HEAD":
                    self._stream(client, response.make_event)
            finally:
                self._streams.release()

    def _respond(self, exchange: HttpExchange) -> Response | None:
        """Return the response; None after a refusal was written."""
        make = self._makers.get(exchange.target.path)
        response = make(exchange) if make else None
        if response is None and make:
            exchange.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests for this page; try again")
        elif response is None:
            paths = ", ".join(self._makers)
            exchange.send_error(HTTPStatus.NOT_FOUND, f"no such page; available: {paths}")
        return response

    def _send(self, client: _Client, exchange: HttpExchange, response: Response) -> None:
        """Send the bytes that the kernel takes at once; the rest follows as the client receives it."""
        for part in exchange.format_response(response):
            rest = memoryview(part)
            with contextlib.suppress(BlockingIOError):
                rest = rest[client.socket.send(rest, socket.MSG_DONTWAIT) :]
            if rest:
                self._make_room_for(client, exchange.target.path)
            while rest:
                rest = rest[client.socket.send(rest[:_CHUNK]) :]
                client.sent_at = time.monotonic()
        client.unread = ""

    def _make_room_for(self, client: _Client, path: str) -> None:
        """Note that a client has not received a page in full, and cut the one that stalls for longest."""
        client.unread, client.sent_at = path, time.monotonic()
        with self._lock:
            unread = [one for one in self._connections.values() if one.unread == path]
            if len(unread) > MOST_UNREAD_RESPONSES:
                self.cut(min(unread, key=lambda one: one.sent_at))

    def _stream(self, client: _Client, make_event: Callable[[], bytes]) -> None:
        """Send events until the stream has had its time, or the client takes no event at once.

        An event is a few bytes, and a socket's buffer holds hundreds of them: such a client has stopped
        reading long ago. One that can be read has closed the stream, or sends what no browser sends.
        """
        ends_at = time.monotonic() + self._stream_seconds
        client.ends_at = ends_at + self._longest_seconds  # the last event is sent before the server cuts
        poll = select.poll()
        poll.register(client.socket, select.POLLIN)
        while True:
            event = make_event()
            is_taken = client.socket.send(event, socket.MSG_DONTWAIT) == len(event)
            is_over = not is_taken or time.monotonic() >= ends_at
            if is_over or poll.poll(self._event_seconds * 1000):
                return


def _read_request(client: socket.socket) -> bytes:
    """Return a client's request up to the end of the headers; of one that is too long, the beginning."""
    request = bytearray()
    while not _END_OF_REQUEST.search(request) and len(request) <= LONGEST_REQUEST:
        received = client.recv(_CHUNK)
        if not received:
            break
        request += received
    return bytes(request)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Args:
        host: an address of either family, or a name of one.
        port: 0 takes a free one.

    Raises:
        OSError: the address is in use, or not one of this host.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:  # of Python, before it asks: a label is empty or too long
        raise OSError(errno.EINVAL, f"no host name: {error}") from error
    family, _, _, _, address = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


RETRY_SECONDS = 1.0
"""Between two tries."""

FIRST_SECONDS = 2.0
"""That a start waits for the first try: a name of an address may take long to resolve."""


class ServedMetrics:
    """Serve metrics and pages, from when their address can be had until :meth:`close`."""

    def __init__(
        self,
        address: ListenAddress,
        open_server: Callable[[], MetricsServer],
        holder_of: Callable[[int], str | None],
        log: EventLog,
        *,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Try to serve, and go on in a thread.

        Args:
            address: where to serve, for messages.
            open_server: raises OSError if the address can't be had.
            holder_of: returns who listens on a port, as far as that is known; called in the thread.
            log: for the beginning and the end of a fault.
            retry_seconds: between two tries.
        """
        self._address = address
        self._open_server = open_server
        self._holder_of = holder_of
        self._log = log
        self._fault_log = FaultLog(log.error)
        self._retry_seconds = retry_seconds
        self.fault: str | None = None
        """Why nothing is served; None if it is, or was not tried yet. May be read from any thread."""

        self._server: MetricsServer | None = None
        self._is_over, self._is_tried = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, name="metrics address", daemon=True).start()
        self._is_tried.wait(FIRST_SECONDS)

    def close(self) -> None:
        """Stop to serve, and to try; does not wait for a name that is being resolved."""
        self._is_over.set()
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.close()

    def _serve(self) -> None:
        while not self._is_over.is_set():
            try:
                server = self._open_server()
            except OSError as error:
                self._fail(error)
                self._is_tried.set()
                self._is_over.wait(self._retry_seconds)
                continue
            self._begin(server)
            self._is_tried.set()
            return

    def _begin(self, server: MetricsServer) -> None:
        with self._lock:
            if not self._is_over.is_set():
                self._server = server
        if self._server is not server:
            server.close()
        elif self.fault is not None:
            self.fault = None
            self._log.info("metrics_served", address=str(self._address))

    def _fail(self, error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        holder = self._holder_of(self._address.port)
        held = f", held by {holder}" if holder else ""
        self.fault = f"metrics are not served at {self._address}: {reason}{held}; tried again every second"
        self._fault_log.log("metrics_not_served", self.fault)


_TOO_MANY_STREAMS = replace(
    plain(HTTPStatus.SERVICE_UNAVAILABLE, "too many streams are open; the page works without one\n"),
    headers=(("Retry-After", "60"),),
)

_LOG = structlog.get_logger(__name__)
