"""Workers that make responses, each for one path, so that no page waits for another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http import HTTPStatus
from typing import TypeAlias

import structlog
from prometheus_client import CollectorRegistry

from sgagent.agent.web.client_connection import ClientConnection
from sgagent.agent.web.exposition import write_page
from sgagent.agent.web.responses import Page, Request, Response

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


_LOG = structlog.get_logger(__name__)
