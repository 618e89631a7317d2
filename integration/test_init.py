"""``sgagent init`` on a host with links, listeners and sessions: the agent follows, and drops nothing."""

from __future__ import annotations

import json
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from integration.lab import Lab
from integration.service import Service, is_let_in

HOST, HOST6 = ip_address("10.0.0.11"), ip_address("2001:db8::11")
CLIENT, CLIENT6 = ip_address("198.51.100.7"), ip_address("2001:db8:7::1")
FRIEND, STRANGER = ip_address("192.0.2.9"), ip_address("203.0.113.5")
OBSERVE = '[enforcement]\nmode = "observe"\n'


@pytest.fixture
def agent(agent: Service) -> Service:
    """Return an agent that waits for its first documents."""
    agent.configure(OBSERVE)
    return agent


def test_the_first_policy_is_followed_and_drops_nothing(one_interface: Lab, agent: Service) -> None:
    """``check`` finds nothing wrong; open sessions have a rule, and strangers get in until it is enforced."""
    with ExitStack() as stack:
        for far, near in ((str(CLIENT), str(HOST)), (str(CLIENT6), str(HOST6))):
            listener = stack.enter_context(one_interface.listen(one_interface.host, near, 5432))
            stack.enter_context(one_interface.connect(one_interface.peer, (far, 0), (near, 5432)))
            stack.enter_context(listener.accept()[0])
        agent.start()
        made = agent.command("init", "--ssh-from", "192.0.2.0/24", "--json")
        assert made.status == 0, made.errors
        written = json.loads(made.output)
        assert written["interfaces"] == ["eth0"]
        assert "tcp 22 from 192.0.2.0/24" in written["admitted"]
        agent.wait_for_event("ruleset_applied")
        checked = agent.command("check")
        assert (checked.status, checked.output, checked.errors) == (0, "ok: nothing wrong\n", "")
        assert agent.as_json("status")["posture"] == "observing"
    assert is_let_in(one_interface, STRANGER, HOST, 22)
    assert agent.command("mode", "enforce").status == 0
    for source, port, is_admitted in (
        (STRANGER, 22, False),
        (FRIEND, 22, True),
        (CLIENT, 5432, True),
        (STRANGER, 5432, False),
    ):
        assert is_let_in(one_interface, source, HOST, port) is is_admitted, (source, port)
    again = agent.command("init")
    assert again.status == 2
    assert "there are documents already" in again.errors
