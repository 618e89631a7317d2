"""The HTTP server for metrics, on real sockets of loopback."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from structlog.testing import capture_logs

from sgagent.agent.serving.exchange import plain
from sgagent.agent.serving.metricsserver import MOST_READERS, MetricsServer
from tests.patience import PATIENCE

WAIT_SECONDS = 5.0 * PATIENCE


@dataclass(frozen=True)
class Served:
    """A server and where it is."""

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
    """Give a registry with one metric."""
    registry = CollectorRegistry()
    Gauge("sgagent_answer", "The answer.", registry=registry).set(42)
    return registry


@pytest.fixture(params=("127.0.0.1", "::1"))
def served(request: pytest.FixtureRequest, registry: CollectorRegistry) -> Iterator[Served]:
    """Give a server on loopback, of either family."""
    with closing(MetricsServer(request.param, 0, registry)) as server:
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
    _, content_type, content = served.request(
        "/metrics", Accept="application/openmetrics-text; version=1.0.0"
    )
    assert content_type.startswith("application/openmetrics-text")
    assert content.endswith("# EOF\n")


def test_the_head_alone_can_be_had(served: Served) -> None:
    """HEAD has no content."""
    assert served.request("/metrics", "HEAD")[::2] == (200, "")


def test_pages_are_served_beside_the_metrics(registry: CollectorRegistry) -> None:
    """Each is made at the request, with a status of its own."""
    contents = iter((plain(HTTPStatus.OK, "ok\n"), plain(HTTPStatus.SERVICE_UNAVAILABLE, "närrisch\n")))
    with closing(MetricsServer("127.0.0.1", 0, registry, {"/healthz": lambda _: next(contents)})) as server:
        served = Served("127.0.0.1", server)
        assert served.request("/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
        assert served.request("/healthz?probe=1")[::2] == (503, "närrisch\n")
        assert served.request("/readyz")[0] == 404


@pytest.mark.parametrize("target", ("/", "/metrics/", "/metrics/../etc/passwd", "/favicon.ico", "*"))
def test_nothing_else_is_served(served: Served, target: str) -> None:
    """There is one page."""
    assert served.request(target)[0] == 404


def test_nothing_can_be_sent(served: Served) -> None:
    """Only reading is understood."""
    assert served.request("/metrics", "POST")[0] == 501


@pytest.mark.parametrize(
    "nonsense", (b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET /metrics HTTP/9.9\r\n\r\n", b"")
)
def test_nonsense_hurts_nobody(served: Served, nonsense: bytes) -> None:
    """After a reader that does not speak HTTP, the next one is served."""
    with capture_logs() as logged, served.connect() as connection:
        connection.sendall(nonsense)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert served.request("/metrics")[0] == 200
    assert logged == []


def test_too_many_readers_are_turned_away(served: Served) -> None:
    """Idle connections take a few threads and no more, and those that go make room."""
    idle = [served.connect() for _ in range(MOST_READERS)]
    with served.connect() as surplus:
        assert surplus.recv(1) == b""
    for connection in idle:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        connection.close()
    _until_served(served)


def test_a_reader_that_never_ends_is_cut_off(registry: CollectorRegistry) -> None:
    """A request that arrives drop by drop does not hold a thread."""
    with (
        closing(MetricsServer("127.0.0.1", 0, registry, longest_seconds=0.05)) as server,
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


def test_a_fault_in_a_metric_is_logged_and_the_server_goes_on(
    served: Served, registry: CollectorRegistry
) -> None:
    """The reader's connection is closed, and the log says why."""
    failing = Failing()
    registry.register(failing)
    with capture_logs() as logged, pytest.raises(http.client.RemoteDisconnected):
        served.request("/metrics")
    registry.unregister(failing)
    assert [entry["event"] for entry in logged] == ["scrape_failed"]
    assert served.request("/metrics")[0] == 200


def test_a_closed_server_frees_its_address(registry: CollectorRegistry) -> None:
    """A restarted agent can take the same address at once, and no thread is left."""
    server = MetricsServer("127.0.0.1", 0, registry)
    port = server.port
    Served("127.0.0.1", server).request("/metrics")
    server.close()
    with closing(MetricsServer("127.0.0.1", port, registry)) as again:
        assert again.port == port
    assert "metrics" not in {thread.name for thread in threading.enumerate()}


def test_an_address_that_is_taken_is_refused(served: Served, registry: CollectorRegistry) -> None:
    """Whoever starts a second agent is told."""
    with pytest.raises(OSError, match="in use"):
        MetricsServer(served.host, served.server.port, registry)


def _until_served(served: Served) -> None:
    """Ask until there is room: a thread ends a moment after its connection."""
    for _ in range(1000):
        try:
            if served.request("/metrics")[0] == 200:
                return
        except (ConnectionError, http.client.HTTPException):
            continue
    pytest.fail("the places of readers that went away were not freed")
