"""The HTTP server for metrics, on real sockets of loopback."""

from __future__ import annotations

import http.client
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http import HTTPStatus

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from structlog.testing import capture_logs

from sgagent.agent.web.http_server import (
    LONGEST_REQUEST,
    MOST_CONNECTIONS,
    MOST_UNREAD_RESPONSES,
    MOST_WAITING,
    MetricsServer,
    listen,
)
from sgagent.agent.web.page import Request, Response, plain
from tests.patience import PATIENCE

WAIT_SECONDS = 5.0 * PATIENCE


@dataclass(frozen=True)
class Served:
    """A server and its address."""

    host: str
    server: MetricsServer

    def connect(self) -> socket.socket:
        """Return a connection."""
        return socket.create_connection((self.host, self.server.port), timeout=WAIT_SECONDS)

    def request(self, target: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
        """Send a request, and return the status, the type of the content, and the content."""
        with closing(
            http.client.HTTPConnection(self.host, self.server.port, timeout=WAIT_SECONDS)
        ) as connection:
            connection.request(method, target, headers=headers)
            response = connection.getresponse()
            return response.status, response.headers.get("Content-Type", ""), response.read().decode()


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry with one metric."""
    registry = CollectorRegistry()
    Gauge("sgagent_answer", "The answer.", registry=registry).set(42)
    return registry


@pytest.fixture(params=("127.0.0.1", "::1"))
def served(request: pytest.FixtureRequest, registry: CollectorRegistry) -> Iterator[Served]:
    """Return a server on loopback, of either family."""
    with closing(MetricsServer(listen(request.param, 0), registry)) as server:
        yield Served(request.param, server)


@pytest.mark.parametrize("target", ("/metrics", "/metrics?name[]=sgagent_answer"))
def test_metrics_are_served(served: Served, target: str) -> None:
    """A plain request gets the text format."""
    status, content_type, content = served.request(target)
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert "sgagent_answer 42.0\n" in content


def test_the_newer_format_is_served_to_those_who_ask(served: Served) -> None:
    """Prometheus prefers OpenMetrics."""
    _, kind, content = served.request("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert content.endswith("# EOF\n")


def test_the_head_alone_can_be_had(served: Served) -> None:
    """HEAD has no content."""
    assert served.request("/metrics", "HEAD")[::2] == (200, "")


def test_pages_are_served_beside_the_metrics(registry: CollectorRegistry) -> None:
    """Each request makes the page anew, with its own status."""
    contents = iter((plain(HTTPStatus.OK, "ok\n"), plain(HTTPStatus.SERVICE_UNAVAILABLE, "närrisch\n")))
    with closing(
        MetricsServer(listen("127.0.0.1", 0), registry, {"/healthz": lambda _: next(contents)})
    ) as server:
        served = Served("127.0.0.1", server)
        assert served.request("/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
        assert served.request("/healthz?probe=1")[::2] == (503, "närrisch\n")
        assert served.request("/readyz")[0] == 404


@pytest.mark.parametrize("target", ("/", "/metrics/", "/metrics/../etc/passwd", "/favicon.ico", "*"))
def test_nothing_else_is_served(served: Served, target: str) -> None:
    """Any other path is not found."""
    assert served.request(target)[0] == 404


def test_nothing_can_be_sent(served: Served) -> None:
    """Other methods are refused."""
    assert served.request("/metrics", "POST")[0] == 501


@pytest.mark.parametrize(
    "nonsense", (b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET /metrics HTTP/9.9\r\n\r\n", b"")
)
def test_nonsense_hurts_nobody(served: Served, nonsense: bytes) -> None:
    """After a client that does not speak HTTP, the next one is served."""
    with capture_logs() as logged, served.connect() as connection:
        connection.sendall(nonsense)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert served.request("/metrics")[0] == 200
    assert logged == []


HOLDS = {
    "idle": b"",
    "half-open": b"GET /met",
    "without an end": b"GET /metrics HTTP/1.0\r\nX: y\r\n",
    "stalled": b"GET /metrics HTTP/1.0\r\n\r\n",
    "stalled at another page": b"GET /page HTTP/1.0\r\n\r\n",
}
"""What clients send before they stall."""


@pytest.fixture
def large(registry: CollectorRegistry) -> Iterator[Served]:
    """Return a server with pages larger than a socket buffer."""
    gauge = Gauge("sgagent_rule", "x" * 1000, ["rule"], registry=registry)
    for number in range(1000):
        gauge.labels("y" * 10_000 + f"{number}").set(1)
    pages = {
        "/healthz": lambda _: plain(HTTPStatus.OK, "ok\n"),
        "/page": lambda _: plain(HTTPStatus.OK, "p" * 10_000_000),
    }
    with closing(MetricsServer(listen("127.0.0.1", 0), registry, pages, longest_seconds=3600)) as server:
        yield Served("127.0.0.1", server)


@pytest.mark.one_python
@pytest.mark.parametrize(
    ("how", "count"),
    [
        (how, count)
        for how in HOLDS
        for count in ((8, 50) if how.startswith("stalled") else (50, MOST_CONNECTIONS + 50))
    ],
)
def test_readers_that_do_nothing_keep_no_other_waiting(large: Served, how: str, count: int) -> None:
    """A scrape and a probe are answered while clients stall, which the server does not end in this time."""
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(large.connect())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(HOLDS[how])
        for _ in range(3):
            assert large.request("/healthz")[::2] == (200, "ok\n")
            status, _, content = large.request("/metrics")
            assert status == 200
            assert content.count("sgagent_rule{") == 1000


@pytest.mark.one_python
def test_stalled_readers_of_one_page_end_no_scrape(large: Served) -> None:
    """A scrape that pauses gets its whole response, however many clients begin to stall at another page."""
    with ExitStack() as stack:
        scrape = stack.enter_context(large.connect())
        scrape.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = stack.enter_context(scrape.makefile("rb"))
        received = answer.read(1 << 20)
        for _ in range(3 * MOST_UNREAD_RESPONSES):
            stalled = stack.enter_context(large.connect())
            stalled.sendall(b"GET /page HTTP/1.0\r\n\r\n")
            assert stalled.recv(1)
        received += answer.read()
    assert received.count(b"sgagent_rule{") == 1000


def test_a_page_that_takes_its_time_keeps_no_other_waiting(registry: CollectorRegistry) -> None:
    """Each page has its own worker; too many requests for one are refused."""
    go_on = threading.Event()
    begun = threading.Semaphore(0)

    def slow(_request: Request) -> Response:
        begun.release()
        assert go_on.wait(WAIT_SECONDS)
        return plain(HTTPStatus.OK, "at last\n")

    pages = {"/slow": slow, "/healthz": lambda _: plain(HTTPStatus.OK, "ok\n")}
    with closing(MetricsServer(listen("127.0.0.1", 0), registry, pages)) as server, ExitStack() as stack:
        served = Served("127.0.0.1", server)
        waiting = [stack.enter_context(served.connect()) for _ in range(MOST_WAITING + 2)]
        for connection in waiting:
            connection.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
            if connection is waiting[0]:
                assert begun.acquire(timeout=WAIT_SECONDS)
        assert served.request("/healthz")[0] == 200
        assert served.request("/metrics")[0] == 200
        (refused,), _, _ = select.select(waiting, (), (), WAIT_SECONDS)  # whichever thread came last
        with refused.makefile("rb") as answer:
            assert answer.readline().split()[1] == b"503"
        waiting.remove(refused)
        go_on.set()
        for connection in waiting:
            with connection.makefile("rb") as answer:
                assert answer.read().endswith(b"at last\n")


def test_those_who_ask_for_metrics_meanwhile_share_the_next(registry: CollectorRegistry) -> None:
    """All waiting scrapes share one reading, which is newer than they are."""
    collector = Waiting()
    registry.register(collector)
    with closing(MetricsServer(listen("127.0.0.1", 0), registry)) as server, ExitStack() as stack:
        served = Served("127.0.0.1", server)
        readers = []
        for _ in range(21):
            readers.append(stack.enter_context(served.connect()))
            readers[-1].sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            if len(readers) == 1:
                assert collector.begun.acquire(timeout=WAIT_SECONDS)
        assert served.request("/")[0] == 404  # it is accepted after all the others
        collector.go_on.set()
        for reader in readers:
            with reader.makefile("rb") as answer:
                assert b"sgagent_answer 42.0" in answer.read()
    assert 2 <= collector.times < len(readers) / 2  # two, but for threads that begin late


class Waiting(Collector):
    """A collector that blocks until a test releases it."""

    def __init__(self) -> None:
        """Wait."""
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.times = 0

    def describe(self) -> list[Metric]:
        """Return nothing."""
        return []

    def collect(self) -> list[Metric]:
        """Wait, and return nothing."""
        self.times += 1
        self.begun.release()
        assert self.go_on.wait(WAIT_SECONDS)
        return []


def test_a_request_that_is_too_long_is_refused(served: Served) -> None:
    """An invalid target is refused, too."""
    assert served.request("/metrics", X="y" * LONGEST_REQUEST)[0] == 431
    with served.connect() as connection, connection.makefile("rb") as answer:
        connection.sendall(b"GET http://[/metrics HTTP/1.0\r\n\r\n")
        assert b" 400 " in answer.readline()


def test_drop_by_drop_is_a_request_too(served: Served) -> None:
    """Only the end of the headers completes a request."""
    with served.connect() as connection:
        for octet in b"GET /metrics HTTP/1.0\r\nX: y\r\n\r\n":
            connection.sendall(bytes([octet]))
        with connection.makefile("rb") as answer:
            assert b"sgagent_answer 42.0" in answer.read()


def test_a_reader_that_never_ends_is_cut_off(registry: CollectorRegistry) -> None:
    """A request that arrives byte by byte blocks no thread."""
    with (
        closing(MetricsServer(listen("127.0.0.1", 0), registry, longest_seconds=0.05)) as server,
        Served("127.0.0.1", server).connect() as connection,
    ):
        connection.sendall(b"GET /met")
        assert connection.recv(1) == b""


class Failing(Collector):
    """A collector with a fault."""

    def describe(self) -> list[Metric]:
        """Return nothing."""
        return []

    def collect(self) -> list[Metric]:
        """Fail."""
        raise LookupError("lost")


def test_a_metric_fault_is_logged_and_ends_nothing(served: Served, registry: CollectorRegistry) -> None:
    """The connection is closed, and the log has the reason."""
    failing = Failing()
    registry.register(failing)
    with capture_logs() as logged, pytest.raises(http.client.RemoteDisconnected):
        served.request("/metrics")
    registry.unregister(failing)
    assert [entry["event"] for entry in logged] == ["scrape_failed"]
    assert served.request("/metrics")[0] == 200


def test_a_closed_server_frees_its_address(registry: CollectorRegistry) -> None:
    """A restarted agent can take the same address at once, and no thread is left."""
    server = MetricsServer(listen("127.0.0.1", 0), registry)
    port = server.port
    Served("127.0.0.1", server).request("/metrics")
    server.close()
    with closing(MetricsServer(listen("127.0.0.1", port), registry)) as again:
        assert again.port == port
    assert "metrics" not in {thread.name for thread in threading.enumerate()}


def test_an_address_that_is_taken_is_refused(served: Served, registry: CollectorRegistry) -> None:
    """A second server on the same address raises OSError."""
    with pytest.raises(OSError, match="in use"):
        MetricsServer(listen(served.host, served.server.port), registry)
