"""A client's connection: its request, the response that it has yet to take, and a stream of events after it.

A few clients hear every two seconds how often what the pages show has changed. An event is a few bytes, and a
socket's buffer holds hundreds of them. A client whose socket does not take one at once has stopped reading
long ago and is closed, so nothing waits for it and nothing is stored for it.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import io
import re
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from sgagent.agent.web.metrics import page_type
from sgagent.agent.web.page import Response

LONGEST_REQUEST = 16 * 1024
"""Bytes, with all headers."""

REQUEST_TOO_LARGE = b"HTTP/1.0 431 Request Header Fields Too Large\r\n\r\n"

_END_OF_REQUEST = re.compile(rb"\n\r?\n")


class ConnectionPhase(enum.Enum):
    """What the connection waits for."""

    REQUEST = enum.auto()
    """The client, to send the rest of its request."""

    RESPONSE = enum.auto()
    """A worker, to make the response."""

    CLIENT = enum.auto()
    """The client, to receive the rest of the response."""


@dataclass(slots=True, eq=False)
class ClientConnection:
    """A connection and its state. Only the thread of the server changes it."""

    socket: socket.socket
    client: str
    """The client's address, for the log."""

    ends_at: float
    """When the server closes it at the latest, by the monotonic clock."""

    phase: ConnectionPhase = ConnectionPhase.REQUEST
    request: bytearray = field(default_factory=bytearray)
    exchange: HttpExchange = field(init=False)
    """Set when the request is complete."""

    path: str = ""
    """Of the page; empty until the request is complete, and if it is invalid."""

    unsent: collections.deque[memoryview] = field(default_factory=collections.deque)
    sent_at: float = 0.0
    """When the client last took a part of the response, by the monotonic clock."""

    make_event: Callable[[], bytes] | None = None
    """Set where a stream of events follows the response."""

    @property
    def is_request_complete(self) -> bool:
        """Return whether the end of the headers has arrived."""
        return _END_OF_REQUEST.search(self.request) is not None

    @property
    def is_request_too_long(self) -> bool:
        """Return whether the client sent more than a request may have."""
        return len(self.request) > LONGEST_REQUEST


class HttpExchange(BaseHTTPRequestHandler):
    """Parse a request and format the response, in memory.

    On a socket, the standard library's handler would wait for the client.
    """

    server_version = "sgagent"
    sys_version = ""

    def __init__(self, request: bytes) -> None:
        """Parse a request; if it is invalid, the response with the error is ready."""
        self.rfile = io.BytesIO(request)
        self.wfile = self._response = io.BytesIO()
        self.target = urlsplit("")
        self.accepted = ""
        """The header ``Accept``."""

        self.preferred = ""
        """The type of the metrics that the client prefers."""

        self.raw_requestline = self.rfile.readline()
        self.is_valid = bool(self.raw_requestline) and self.parse_request() and self._is_supported()

    def _is_supported(self) -> bool:
        """Parse method, target and format; return False after an error was written."""
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
        """Write that too many clients wait for the page, or that there is no such page."""
        if is_known:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests for this page; try again")
        else:
            self.send_error(HTTPStatus.NOT_FOUND, f"no such page; available: {', '.join(paths)}")

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
        """Return what was written so far."""
        return self._response.getvalue()

    def log_message(self, *_: object) -> None:
        """Log no requests: a scrape every few seconds is no event."""


MOST_STREAMS = 8
"""At the same time. The next client gets 503 and shows the page without a stream."""

EVENT_SECONDS = 2.0
"""Between two events."""

STREAM_SECONDS = 900.0
"""After which the server ends a stream, so that none is held for ever; browsers open another."""


@dataclass(slots=True)
class _Stream:
    make_event: Callable[[], bytes]
    ends_at: float
    """By the monotonic clock."""


class EventStreams:
    """The open streams. Only the thread of the server uses them."""

    def __init__(
        self, selector: selectors.BaseSelector, event_seconds: float, stream_seconds: float = STREAM_SECONDS
    ) -> None:
        """Start without a stream.

        Args:
            selector: tells the server when a client has closed its stream.
            event_seconds: between two events.
            stream_seconds: after which a stream ends.
        """
        self._stream_seconds = stream_seconds
        self._selector = selector
        self._event_seconds = event_seconds
        self._streams: dict[socket.socket, _Stream] = {}
        self._next_at = 0.0

    def __contains__(self, client: object) -> bool:
        """Return whether a socket is a stream."""
        return client in self._streams

    @property
    def is_full(self) -> bool:
        """Return whether the next client has to be refused."""
        return len(self._streams) >= MOST_STREAMS

    @property
    def seconds_to_event(self) -> float | None:
        """Return the seconds until the next event; None where there is no stream."""
        return max(0.0, self._next_at - time.monotonic()) if self._streams else None

    def add(self, client: socket.socket, make_event: Callable[[], bytes]) -> None:
        """Take a client that has the head of the response; its first event is due at once.

        Args:
            client: a socket that never blocks.
            make_event: returns the next event at once.
        """
        self._streams[client] = _Stream(make_event, time.monotonic() + self._stream_seconds)
        self._selector.register(client, selectors.EVENT_READ, client)
        self._next_at = 0.0

    def send_due(self) -> None:
        """Send each client an event if it is time, and close those that are slow or have had their time."""
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + self._event_seconds
        for client, stream in list(self._streams.items()):
            event = stream.make_event()
            try:
                is_taken = client.send(event) == len(event)
            except OSError:
                is_taken = False
            if not is_taken or now >= stream.ends_at:
                self.end(client)

    def close(self) -> None:
        """Close all streams."""
        for client in list(self._streams):
            self.end(client)

    def end(self, client: socket.socket) -> None:
        """Close a stream. A client that can be read has closed it, or sends what no browser sends."""
        del self._streams[client]
        self._selector.unregister(client)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        client.close()
