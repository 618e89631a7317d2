"""The address of the metrics: from the service manager, or tried until it can be had."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from prometheus_client import CollectorRegistry

from sgagent.agent.systemd import passed_listener
from sgagent.agent.web.http_server import MetricsServer, ServedMetrics, listen
from sgagent.settings.listen_address import ListenAddress
from tests.fakes.log import FakeLog
from tests.waiting import wait_until


@pytest.fixture(params=("127.0.0.1", "::1"))
def taken(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Give a socket that holds a port, of either family."""
    with closing(listen(request.param, 0)) as held:
        yield held


def served(at: socket.socket, log: FakeLog) -> ServedMetrics:
    """Serve where a socket listens."""
    host, port, *_ = at.getsockname()
    address = ListenAddress(host=host, port=port)

    def open_server() -> MetricsServer:
        return MetricsServer(listen(host, port), CollectorRegistry())

    return ServedMetrics(address, open_server, lambda port: f"whoever has {port}", log, retry_seconds=0.01)


def is_served(at: tuple[str, int]) -> bool:
    """Tell whether somebody answers at an address."""
    try:
        with socket.create_connection(at, timeout=5.0) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return client.makefile("rb").read().startswith(b"HTTP/1.0 200")
    except ConnectionRefusedError:
        return False


def test_a_taken_port_is_served_once_it_is_free(taken: socket.socket) -> None:
    """Until then a fault says who holds it, and the log says so once, and when that ends."""
    log, at = FakeLog(), taken.getsockname()[:2]
    with closing(served(taken, log)) as found:
        assert found.fault is not None
        assert f"address already in use, held by whoever has {at[1]}" in found.fault
        taken.close()
        wait_until(lambda: found.fault is None, "the port")
        assert is_served(at)
    assert log.events() == ["metrics_not_served", "metrics_served"]
    assert not is_served(at)


def test_a_server_that_is_closed_while_it_waits_takes_no_port(taken: socket.socket) -> None:
    """Nobody is left to try."""
    at = taken.getsockname()[:2]
    served(taken, FakeLog()).close()
    taken.close()
    assert not is_served(at)


def test_a_closed_server_leaves_a_socket_of_others_open() -> None:
    """The service manager has the same one, and what connects meanwhile is served after the next start."""
    with listen("127.0.0.1", 0) as kept:
        at = kept.getsockname()[:2]
        with closing(MetricsServer(kept.dup(), CollectorRegistry())):
            assert is_served(at)
        with socket.create_connection(at, timeout=5.0) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            with closing(MetricsServer(kept.dup(), CollectorRegistry())):
                assert client.makefile("rb").read().startswith(b"HTTP/1.0 200")


def test_nothing_is_taken_that_was_passed_to_another() -> None:
    """The variables are of the process that they name, and go in any case."""
    environment = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1", "OTHER": "x"}
    assert passed_listener(environment, os.getpid()) is None
    assert environment == {"OTHER": "x"}
    assert passed_listener({}, os.getpid()) is None


CHILD = """
import os
from sgagent.agent.systemd import passed_listener
from sgagent.core.errors import UsageError
try:
    found = passed_listener(os.environ, os.getpid())
except UsageError as error:
    print(error)
else:
    print("none" if found is None else f"{found.getsockname()[1]} {found.get_inheritable()}")
"""


def passed(opened: socket.socket, count: str = "1") -> str:
    """Return what a process finds that gets a socket as the service manager passes it."""
    command = f'exec 3<&{opened.fileno()}; export LISTEN_PID=$$ LISTEN_FDS={count}; exec "$@"'
    done = subprocess.run(  # noqa: S603 - our own words
        ["/bin/bash", "-c", command, "bash", sys.executable, "-c", CHILD],
        capture_output=True,
        text=True,
        check=True,
        pass_fds=[opened.fileno()],
    )
    return done.stdout.strip()


@pytest.mark.parametrize("host", ("127.0.0.1", "::1"))
def test_a_listening_socket_is_taken(host: str) -> None:
    """And no child of the agent gets it."""
    with closing(listen(host, 0)) as opened:
        assert passed(opened) == f"{opened.getsockname()[1]} False"


@pytest.mark.parametrize(
    ("make", "count", "said"),
    (
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "1", "no listening TCP socket"),
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM), "1", "no listening TCP socket"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), "1", "no listening TCP socket"),
        (lambda: listen("127.0.0.1", 0), "2", "passed 2 sockets: expected one"),
    ),
)
def test_anything_else_is_refused(make: Callable[[], socket.socket], count: str, said: str) -> None:
    """A message says what was passed."""
    with make() as opened:
        assert said in passed(opened, count)
