"""The daemon and live sessions: from a changed file to the wire, through its death, from before its birth."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from integration.lab import Lab, wait_for
from integration.service import NOTICED_SECONDS, Service, definitions
from integration.traffic import Traffic
from tests.patience import PATIENCE

HOST, CLIENT, OTHER = "10.0.0.11", "198.51.100.7", "198.51.100.8"
FOR_BOTH = definitions("ingress accept 1 tcp 80/82 from 198.51.100.0/24")
FOR_ONE = definitions(f"ingress accept 1 tcp 80/82 from {CLIENT}")


@pytest.fixture
def agent(agent: Service) -> Service:
    """Have an agent of its own program let two clients in; it is not started yet."""
    agent.is_forked = False
    agent.define(FOR_BOTH)
    return agent


def open_both(busy: Traffic) -> None:
    """Open a session of each client."""
    busy.open("stays", busy.lab.peer, CLIENT, busy.lab.host, (HOST, 80))
    busy.open("leaves", busy.lab.peer, OTHER, busy.lab.host, (HOST, 81))


def test_a_session_is_cut_by_a_changed_file(agent: Service, busy: Traffic) -> None:
    """A session that the new documents forbid stops within the time that is promised, the other goes on."""
    agent.start()
    open_both(busy)
    with busy.running():
        busy.wait_until_all_talk()
        written = time.perf_counter()
        agent.define(FOR_ONE)
        agent.wait_for_event("ruleset_applied", 2)
        silent = busy.silent_since(written, NOTICED_SECONDS)
        busy.settle({"stays"})
    assert set(silent) == {"leaves"}
    assert silent["leaves"] < NOTICED_SECONDS * PATIENCE


def test_a_killed_daemon_costs_no_session_a_byte(agent: Service, busy: Traffic) -> None:
    """Sessions go on while the daemon is dead and when it is back, without a second judgement."""
    agent.start()
    open_both(busy)
    with busy.running():
        busy.wait_until_all_talk()
        agent.kill()
        busy.wait_until_all_talk()
        agent.start()
        busy.wait_until_all_talk()
        busy.settle({"stays", "leaves"})
    assert agent.hits("sgr-0") == 2


def test_sessions_that_nobody_followed_are_ended(agent: Service, one_interface: Lab) -> None:
    """Where conntrack did not run before, forbidden sessions at local listeners end with the start (§6.3).

    Otherwise the server's next packet would open them outwards, as if it had been asked.
    """
    agent.define(FOR_ONE)
    lab = one_interface
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(lab.listen(lab.host, HOST, 82))
        clients, servers = {}, {}
        for source in (CLIENT, OTHER):
            clients[source] = opened.enter_context(lab.connect(lab.peer, (source, 0), (HOST, 82)))
            servers[source] = opened.enter_context(listener.accept()[0])
        agent.start()
        forbidden = servers[OTHER]
        wait_for(lambda: forbidden.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0, "its end", 5)
        servers[CLIENT].sendall(b"still here")
        assert clients[CLIENT].recv(10, socket.MSG_WAITALL) == b"still here"
