"""Serve metrics over HTTP, and pages beside them, to a few readers at a time."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from types import MappingProxyType
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry

from sgagent.agent.serving.deadline import deadline
from sgagent.agent.serving.exchange import Page, Request, Response
from sgagent.agent.serving.exposition import write_page

MOST_READERS = 8
"""Connections that are served at the same time; the next ones are closed at once."""

LONGEST_SECONDS = 10.0
"""From accepting a connection to its end, whatever the reader does."""

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
            registry: read from several threads.
            pages: what else is served, by path.
            longest_seconds: after which a reader is cut off.

        Raises:
            OSError: the address is taken, or not this host's.
        """
        self._server = _Server(host, port, registry, pages, longest_seconds)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Return the port that is listened on."""
        return int(self._server.socket.getsockname()[1])

    def close(self) -> None:
        """Stop to serve, without waiting for readers."""
        self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which else looks twice a second
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingMixIn, TCPServer):
    """Listen, with a thread for each of a few readers."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        pages: Mapping[str, Page],
        longest_seconds: float,
    ) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        self.registry = registry
        self.pages = pages
        self._longest_seconds = longest_seconds
        self._free = threading.BoundedSemaphore(MOST_READERS)
        super().__init__((str(address[0]), int(address[1])), _Handler)

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Serve in a thread of its own, or close the connection if there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Serve a reader until it is done, goes away or takes too long."""
        try:
            assert isinstance(request, socket.socket)  # noqa: S101 - what a TCP server serves; for the type checker
            with deadline(request, self._longest_seconds):
                super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, _request: object, client_address: object) -> None:
        """Tell what went wrong; that a reader went away did not."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            _LOG.error("scrape_failed", reader=str(client_address), exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    """Answer one request."""

    server: _Server
    server_version = "sgagent"
    sys_version = ""

    def do_GET(self) -> None:
        """Send the metrics, in the format that the reader prefers, or a page."""
        target = urlsplit(self.path)
        if target.path == "/metrics":
            self._send(self._metrics())
        elif target.path in self.server.pages:
            request = Request(query=target.query, host=self.headers.get("Host"))
            self._send(self.server.pages[target.path](request))
        else:
            paths = ", ".join(("/metrics", *self.server.pages))
            self.send_error(HTTPStatus.NOT_FOUND, f"here is only {paths}")

    do_HEAD = do_GET  # noqa: N815  the name that http.server calls

    def _metrics(self) -> Response:
        content, content_type = write_page(self.server.registry, self.headers.get("Accept", ""))
        return Response(status=HTTPStatus.OK, content_type=content_type, content=content)

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in response.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.content)

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape every few seconds is no event."""


_LOG = structlog.get_logger(__name__)
