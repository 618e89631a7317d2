"""Readers of the metrics' port that are slow keep no scrape and no probe waiting."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from integration.lab import lab
from integration.service import METRICS_PORT, Service, definitions, service_on
from tests.patience import PATIENCE

HOST = ip_address("10.0.0.11")
RULES = [f"ingress accept 1 tcp {port} from 0.0.0.0/0" for port in range(1, 3001)]
ANSWERED_SECONDS = 1.0

_HOLD = """
import socket, sys, time
port, how, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
request = b"GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"
words = {"idle": b"", "half-open": request[:-2], "drips": b"G", "deaf": request, "sips": request}
held = []
while True:
    while len(held) < count:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(words[how])
        connection.setblocking(False)
        held.append(connection)
    if len(held) == count:
        print("holding", flush=True)
    time.sleep(0.05)
    for connection in list(held):
        try:
            if how == "drips":
                connection.send(b"x")
            if how != "deaf" and not connection.recv(1):
                raise OSError
        except BlockingIOError:
            pass
        except OSError:
            connection.close()
            held.remove(connection)
"""
"""Keeps up as many connections as it is told, in the way that it is told, and opens anew what is closed."""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run an agent whose metrics are larger than the kernel's buffer for a reader."""
    with lab() as built, service_on(built.host, tmp_path_factory.mktemp("agent")) as made:
        built.add_host_addresses([str(HOST)])
        made.define(definitions(*RULES))
        made.start()
        yield made


@pytest.mark.sampled(2)
@pytest.mark.parametrize("count", (8, 50))
@pytest.mark.parametrize("how", ("idle", "half-open", "drips", "deaf", "sips"))
def test_slow_readers_keep_no_other_waiting(agent: Service, how: str, count: int) -> None:
    """Each scrape and each probe is answered within a second, whatever others do meanwhile."""
    command = [sys.executable, "-c", _HOLD, str(METRICS_PORT), how, str(count)]
    with agent.namespace.entered():
        readers = subprocess.Popen(command, stdout=subprocess.PIPE)
    with readers:
        try:
            assert readers.stdout is not None
            assert readers.stdout.readline() == b"holding\n"
            for target, word in [
                ("/healthz", "ok\n"),
                ("/metrics", 'rule_id="sgr-2999"'),
                ("/readyz", "ok\n"),
            ] * 10:
                began = time.monotonic()
                status, page = agent.get(target)
                assert time.monotonic() - began < ANSWERED_SECONDS * PATIENCE, target
                assert (status, word in page) == (200, True), target
        finally:
            readers.kill()
