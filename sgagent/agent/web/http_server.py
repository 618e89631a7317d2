"""The HTTP server for metrics and pages, which no slow client can block.

One thread accepts connections, reads requests and sends responses, and never waits for a single client.
Workers make the responses.
"""

from __future__ import annotations

import contextlib
import errno
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import TypeAlias, assert_never

import structlog
from prometheus_client import CollectorRegistry

from sgagent.agent.web.client_connection import (
    EVENT_SECONDS,
    REQUEST_TOO_LARGE,
    ClientConnection,
    ConnectionPhase,
    EventStreams,
    HttpExchange,
)
from sgagent.agent.web.metrics import write_page
from sgagent.agent.web.page import Page, Request, Response, plain

MOST_WAITING = 16
"""Clients that wait for one page; the next are refused. One response with metrics serves all that wait."""

Jobs: TypeAlias = Iterator[tuple[Sequence[ClientConnection], Callable[[], Response]]]
"""Connections that get the same response, and the function that makes it."""


class PageWorker:
    """Make the responses for one path, in a thread that runs while clients wait."""

    def __init__(
        self,
        plan: Callable[[Sequence[ClientConnection]], Jobs],
        deliver: Callable[[ClientConnection, Response | None], None],
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """Start no thread yet.

        Args:
            plan: returns the jobs for the connections that wait; see the functions below.
            deliver: takes each response, or None if making it failed; called in the worker's thread.
            most_waiting: at which connections are refused.
        """
        self._plan = plan
        self._deliver = deliver
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._waiting: list[ClientConnection] = []
        self._is_running = False

    def accept(self, connection: ClientConnection) -> bool:
        """Queue a connection; return False if too many wait, or no thread can be started."""
        with self._lock:
            if len(self._waiting) >= self._most_waiting:
                return False
            if not self._is_running:
                try:
                    threading.Thread(target=self._run, name="page", daemon=True).start()
                except RuntimeError:  # the limit of threads is reached
                    return False
            self._is_running = True
            self._waiting.append(connection)
        return True

    def _run(self) -> None:
        while waiting := self._take():
            for connections, make in self._plan(waiting):
                response = _make(make, connections[0].client)
                for connection in connections:
                    self._deliver(connection, response)

    def _take(self) -> list[ClientConnection]:
        """Return all connections that wait; if there are none, the thread is about to end."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._is_running = bool(waiting)
        return waiting


def _make(make: Callable[[], Response], client: str) -> Response | None:
    """Return a response; None if that failed, after logging why."""
    try:
        return make()
    except Exception as fault:  # noqa: BLE001 - the outermost frame of a thread: other pages are served all the same
        _LOG.error("scrape_failed", reader=client, exc_info=fault)
        return None


def one_each(page: Page, waiting: Sequence[ClientConnection]) -> Jobs:
    """Plan a response of its own for each client."""
    for connection in waiting:
        exchange = connection.exchange
        request = Request(query=exchange.target.query, host=exchange.headers.get("Host"))
        yield [connection], partial(page, request)


def one_per_format(registry: CollectorRegistry, waiting: Sequence[ClientConnection]) -> Jobs:
    """Plan one response with metrics for all clients that prefer the same format."""
    by_type: dict[str, list[ClientConnection]] = {}
    for connection in waiting:
        by_type.setdefault(connection.exchange.preferred, []).append(connection)
    for connections in by_type.values():
        yield connections, partial(_metrics, registry, connections[0].exchange.accepted)


def _metrics(registry: CollectorRegistry, accepted: str) -> Response:
    content, content_type = write_page(registry, accepted)
    return Response(status=HTTPStatus.OK, content_type=content_type, content=content)


MOST_CONNECTIONS = 256
"""At the same time. The next replaces the one that has been sending its request for longest."""

MOST_UNREAD_RESPONSES = 16
"""Of one page, that clients have not received in full. The next replaces the one that stalls for longest."""

LONGEST_SECONDS = 10.0
"""From accepting a connection to closing it, whatever the client does."""

_METRICS = "/metrics"
_BACKLOG = 128
_CHUNK = 1 << 16
_PAUSE_SECONDS = 0.1
"""Before the next try to accept a connection, if the system had no resources for one."""

_NO_PAGES: Mapping[str, Page] = MappingProxyType({})


class MetricsServer:
    """Serve ``/metrics`` of a registry, and other pages, on one address."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        pages: Mapping[str, Page] = _NO_PAGES,
        *,
        longest_seconds: float = LONGEST_SECONDS,
        event_seconds: float = EVENT_SECONDS,
    ) -> None:
        """Bind the address and start the thread.

        Args:
            host: an address of either family, or a name of one.
            port: 0 takes a free one.
            registry: read by one thread at a time.
            pages: the other pages by path; one thread at a time calls each.
            longest_seconds: after which the server closes a connection that is no stream of events.
            event_seconds: between two events of a stream.

        Raises:
            OSError: the address is in use, or not one of this host.
        """
        self._listener = _listen(host, port)
        self._longest_seconds = longest_seconds
        self._selector = selectors.DefaultSelector()
        self._streams = EventStreams(self._selector, event_seconds)
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._is_closed = threading.Event()
        self._is_accepting = True
        self._connections: dict[socket.socket, ClientConnection] = {}
        """In the order in which they were accepted."""

        self._responses: queue.SimpleQueue[tuple[ClientConnection, Response | None]] = queue.SimpleQueue()
        """What the workers made."""

        self._workers = {
            path: PageWorker(partial(one_each, page), self._deliver) for path, page in pages.items()
        }
        self._workers[_METRICS] = PageWorker(
            partial(one_per_format, registry), self._deliver, MOST_CONNECTIONS
        )
        for one in (self._listener, self._wake_receiver, self._wake_sender):
            one.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
        for one in (self._listener, self._wake_receiver):
            self._selector.register(one, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Return the port that the server listens on."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Stop the thread and close all connections at once."""
        self._is_closed.set()
        self._wake_up()
        self._thread.join()

    def _deliver(self, connection: ClientConnection, response: Response | None) -> None:
        """Take a response, or None where making it failed; called by workers."""
        self._responses.put((connection, response))
        self._wake_up()

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):  # a wake-up is pending, or the server is closed
            self._wake_sender.send(b"\0")

    def _serve(self) -> None:
        with self._selector, self._listener, self._wake_receiver, self._wake_sender:
            while not self._is_closed.is_set():
                for key, _ in self._selector.select(self._seconds_to_event()):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj is self._wake_receiver:
                        self._wake_receiver.recv(_CHUNK)
                    elif key.data in self._streams:
                        self._streams.end(key.data)
                    elif key.data.socket in self._connections:  # another may have replaced it just now
                        self._continue(key.data)
                self._send_next_response()
                self._streams.send_due()
                while self._seconds_to_deadline() == 0:
                    self._end(next(iter(self._connections.values())))
            for connection in list(self._connections.values()):
                self._end(connection)
            self._streams.close()

    def _seconds_to_event(self) -> float | None:
        """Return how long the thread may wait for sockets."""
        if not self._responses.empty():
            return 0.0
        due = (self._seconds_to_deadline(), self._streams.seconds_to_event)
        return min((seconds for seconds in due if seconds is not None), default=None)

    def _seconds_to_deadline(self) -> float | None:
        """Return the seconds until the oldest connection must end; all get the same time."""
        oldest = next(iter(self._connections.values()), None)
        return None if oldest is None else max(0.0, oldest.ends_at - time.monotonic())

    def _accept(self) -> None:
        """Accept a connection if there is room, or if another can be closed for it."""
        if len(self._connections) >= MOST_CONNECTIONS and not self._end_slowest_request():
            self._selector.unregister(self._listener)
            self._is_accepting = False
            return
        try:
            accepted, client = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _TRANSIENT:
                raise
            if not self._end_slowest_request():
                self._is_closed.wait(_PAUSE_SECONDS)
            return
        accepted.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
        connection = ClientConnection(accepted, str(client), time.monotonic() + self._longest_seconds)
        self._connections[accepted] = connection
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _end_slowest_request(self) -> bool:
        """Close the connection that has been sending its request for longest; return False without one."""
        sending = (one for one in self._connections.values() if one.phase is ConnectionPhase.REQUEST)
        slowest = next(sending, None)
        if slowest is not None:
            self._end(slowest)
        return slowest is not None

    def _end(self, connection: ClientConnection) -> None:
        self._forget(connection)
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_WR)
        connection.socket.close()

    def _forget(self, connection: ClientConnection) -> None:
        """Watch a connection no longer, and accept another in its place."""
        del self._connections[connection.socket]
        if connection.phase is not ConnectionPhase.RESPONSE:
            self._selector.unregister(connection.socket)
        if not self._is_accepting:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._is_accepting = True

    def _continue(self, connection: ClientConnection) -> None:
        """Read or send what is possible without waiting."""
        try:
            match connection.phase:
                case ConnectionPhase.REQUEST:
                    self._read(connection)
                case ConnectionPhase.RESPONSE:
                    pass
                case ConnectionPhase.CLIENT:
                    self._send(connection)
                case _:
                    assert_never(connection.phase)
        except BlockingIOError:
            return
        except OSError:  # the client closed the connection
            self._end(connection)
        except Exception as fault:  # noqa: BLE001 - the outermost frame of a request: others are served all the same
            _LOG.error("scrape_failed", reader=connection.client, exc_info=fault)
            self._end(connection)

    def _read(self, connection: ClientConnection) -> None:
        """Read more of a request; queue a complete one for its worker."""
        received = connection.socket.recv(_CHUNK)
        connection.request += received
        is_too_long = connection.is_request_too_long
        if received and not is_too_long and not connection.is_request_complete:
            return
        connection.phase = ConnectionPhase.RESPONSE
        self._selector.unregister(connection.socket)
        if is_too_long:
            self._start_sending(connection, REQUEST_TOO_LARGE)
        else:
            self._dispatch(connection)

    def _dispatch(self, connection: ClientConnection) -> None:
        """Queue the request for the worker of its path, or refuse it."""
        exchange = connection.exchange = HttpExchange(bytes(connection.request))
        if exchange.is_valid:
            connection.path = exchange.target.path
            worker = self._workers.get(connection.path)
            if worker is not None and worker.accept(connection):
                return
            exchange.refuse(self._workers, is_known=worker is not None)
        self._start_sending(connection, exchange.written())

    def _send_next_response(self) -> None:
        """Start to send one response that a worker made.

        Clients that receive come in between: however many responses begin, these do not count as stalled.
        """
        with contextlib.suppress(queue.Empty):
            connection, response = self._responses.get_nowait()
            if connection.socket not in self._connections:
                return  # its time was over
            if response is None:
                self._end(connection)
                return
            if response.make_event is not None and self._streams.is_full:
                response = _TOO_MANY_STREAMS
            connection.make_event = None if connection.exchange.command == "HEAD" else response.make_event
            self._start_sending(connection, *connection.exchange.format_response(response))

    def _start_sending(self, connection: ClientConnection, *parts: bytes) -> None:
        """Send what the kernel takes at once; the rest follows as the client receives it."""
        connection.unsent.extend(memoryview(part) for part in parts if part)
        connection.phase = ConnectionPhase.CLIENT
        connection.sent_at = time.monotonic()
        self._selector.register(connection.socket, selectors.EVENT_WRITE, connection)
        self._continue(connection)
        sending = (one for one in self._connections.values() if one.phase is ConnectionPhase.CLIENT)
        unread = [one for one in sending if one.path == connection.path]
        if len(unread) > MOST_UNREAD_RESPONSES:
            self._end(min(unread, key=lambda one: one.sent_at))

    def _send(self, connection: ClientConnection) -> None:
        """Send more of the response; close the connection after the last part."""
        while connection.unsent:
            sent = connection.socket.send(connection.unsent[0])
            connection.sent_at = time.monotonic()
            connection.unsent[0] = connection.unsent[0][sent:]
            if not connection.unsent[0]:
                connection.unsent.popleft()
        if connection.make_event is None or self._streams.is_full:
            self._end(connection)
        else:
            self._forget(connection)
            self._streams.add(connection.socket, connection.make_event)


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: the address is in use, or not one of this host.
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


_TOO_MANY_STREAMS = replace(
    plain(HTTPStatus.SERVICE_UNAVAILABLE, "too many streams are open; the page works without one\n"),
    headers=(("Retry-After", "60"),),
)

_TRANSIENT = frozenset({errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of ``accept`` after which a later call may succeed."""

_LOG = structlog.get_logger(__name__)
