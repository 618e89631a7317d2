"""The daemon without a snapshot, in observe mode, and with ``sessions = "keep"`` (§9)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import Lab, wait_for
from integration.service import NOTICED_SECONDS, Service, definitions, is_let_in, service_on
from sgagent.policy_test.packet_bytes import TCP_ACK, TCP_SYN, tcp

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
METADATA = ip_address("100.100.100.200")
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
DNS = "ingress accept 1 udp 53 from 0.0.0.0/0"
BROKEN = "version: 1\nsecurity_groups: 7\n"
BOUND = """
[[interface]]
name = "eth0"
security_group_ids = ["sg-1"]
"""
FAIL_CLOSED = "[enforcement]\nfail_closed = true\n"
OBSERVE = '[enforcement]\nmode = "observe"\n'


@pytest.fixture
def agent(one_interface: Lab, tmp_path: Path) -> Iterator[Service]:
    """Give the host an address, and an agent without documents that is not started yet."""
    one_interface.add_host_addresses([str(HOST)])
    with service_on(one_interface.host, tmp_path) as made:
        yield made


@contextmanager
def web_session(lab: Lab) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Open a session from the client to port 80; return both ends, the client's first."""
    with lab.listen(lab.host, str(HOST), 80) as listener:
        client = lab.connect(lab.peer, (str(CLIENT), 0), (str(HOST), 80))
        listener.settimeout(2)
        server, _ = listener.accept()
    with client, server:
        server.settimeout(0.5)
        yield client, server


def arrives(client: socket.socket, server: socket.socket) -> bool:
    """Return whether the client's message gets to the server."""
    client.sendall(b"word")
    try:
        return bool(server.recv(64))
    except TimeoutError:
        return False


@pytest.mark.parametrize("document", (None, BROKEN))
def test_a_new_host_stays_open_and_it_is_said(
    agent: Service, one_interface: Lab, document: str | None
) -> None:
    """A host that never enforced anything is left as it is, with a loud word about it (§9.2)."""
    agent.configure(BOUND)
    if document:
        agent.define(document)
    agent.start()
    assert not agent.table()
    assert is_let_in(one_interface, CLIENT, HOST, 81)
    level = "error" if document else "warning"  # without a document it is as after an installation
    assert [event["level"] for event in agent.events("nothing_enforced")] == [level]
    assert not agent.events("source_failed")
    assert agent.metric("sgagent_interface_info", interface="eth0", state="unbound") == 1
    assert agent.metric("sgagent_snapshot_info") is None
    agent.define(definitions(WEB))
    wait_for(lambda: not is_let_in(one_interface, CLIENT, HOST, 81), "the policy", NOTICED_SECONDS)
    assert is_let_in(one_interface, CLIENT, HOST, 80)


def assert_closed(agent: Service, lab: Lab) -> None:
    """Check that steps 1 to 3 of §3 alone let anything pass, and that the agent says so."""
    assert not is_let_in(lab, CLIENT, HOST, 80)
    assert lab.send_egress([tcp(HOST, CLIENT, 1024, 443), tcp(HOST, METADATA, 1024, 80)]) == [False, True]
    assert agent.events("host_closed")[-1]["level"] == "error"
    assert agent.metric("sgagent_interface_info", interface="eth0", state="closed") == 1
    assert not agent.events("nothing_enforced")


def test_a_new_host_may_be_closed(agent: Service, one_interface: Lab) -> None:
    """With ``fail_closed`` the interfaces of the configuration are closed without a snapshot (§9.2)."""
    agent.configure(BOUND + FAIL_CLOSED)
    agent.start()
    assert_closed(agent, one_interface)
    agent.define(definitions(WEB))
    wait_for(lambda: is_let_in(one_interface, CLIENT, HOST, 80), "the policy", NOTICED_SECONDS)
    assert agent.metric("sgagent_interface_info", interface="eth0", state="bound") == 1


def test_a_closed_host_stays_closed_whatever_happens(agent: Service, one_interface: Lab) -> None:
    """Steps that still find no snapshot keep the host closed, and say nothing else of it."""
    agent.configure(BOUND + FAIL_CLOSED)
    agent.start()
    agent.reload()
    agent.define(BROKEN)
    agent.wait_for_event("problem_found")
    assert_closed(agent, one_interface)
    agent.kill()
    agent.start()
    assert_closed(agent, one_interface)


def test_a_host_that_enforced_and_lost_its_state_is_closed(agent: Service, one_interface: Lab) -> None:
    """The last policy can't be read any more: the interfaces of the configuration are closed (§9.2)."""
    agent.configure(BOUND)
    agent.define(definitions(WEB))
    agent.start()
    agent.stop()
    agent.namespace.nft("flush", "ruleset")
    (agent.documents / "policy.yaml").unlink()
    for kept in (agent.state / "history").iterdir():
        kept.write_text("scribble")
    agent.start()
    assert_closed(agent, one_interface)
    assert str(agent.state) in agent.events("state_damaged")[0]["reason"]


def test_the_rules_that_stand_are_better_than_closed(agent: Service, one_interface: Lab) -> None:
    """With everything lost but the table, the table stays in force."""
    agent.configure(BOUND)
    agent.define(definitions(WEB))
    agent.start()
    agent.stop()
    before = agent.table()
    (agent.documents / "policy.yaml").unlink()
    for kept in (agent.state / "history").iterdir():
        kept.write_text("scribble")
    agent.start()
    assert agent.events("older_rules_kept")
    assert agent.table().splitlines()[2:] == before.splitlines()[2:]  # all but who owns it
    assert is_let_in(one_interface, CLIENT, HOST, 80)
    assert not is_let_in(one_interface, CLIENT, HOST, 81)
    agent.namespace.nft("flush", "ruleset")
    assert not is_let_in(one_interface, CLIENT, HOST, 81)


def test_a_damaged_file_falls_back_on_the_one_before(agent: Service, one_interface: Lab) -> None:
    """Of the two kept snapshots the older one is taken where the newer can't be read."""
    agent.configure(BOUND)
    agent.define(definitions(WEB))
    agent.start()
    agent.define(definitions(WEB, DNS))
    agent.wait_for_event("ruleset_applied", 2)
    agent.stop()
    agent.namespace.nft("flush", "ruleset")
    (agent.documents / "policy.yaml").unlink()
    max((agent.state / "history").iterdir()).write_text("scribble")
    agent.start()
    assert is_let_in(one_interface, CLIENT, HOST, 80)
    assert not is_let_in(one_interface, CLIENT, HOST, 53, is_udp=True)
    assert agent.events("state_damaged")


def test_observing_drops_nothing_and_counts(agent: Service, one_interface: Lab) -> None:
    """In observe mode everything passes, and a session that would have been dropped is a hit (§9.1)."""
    agent.configure(OBSERVE)
    agent.define(definitions("ingress drop 1 tcp 80 from 0.0.0.0/0"))
    agent.start()
    assert agent.metric("sgagent_mode", interface="eth0", mode="observe") == 1
    with web_session(one_interface) as (client, server):
        for _ in range(5):
            assert arrives(client, server)
    assert agent.hits("sgr-0") == 1
    assert is_let_in(one_interface, CLIENT, HOST, 81)
    ingress = {"interface": "eth0", "direction": "ingress"}
    assert agent.metric("sgagent_default_packets_total", verdict="drop", **ingress) == 1
    invalid = tcp(CLIENT, HOST, 1024, 80, TCP_SYN | TCP_ACK)
    assert one_interface.send_ingress([invalid]) == [True]
    assert agent.metric("sgagent_invalid_packets_total", **ingress) == 1


def test_leaving_observe_mode_judges_every_session_again(agent: Service, one_interface: Lab) -> None:
    """A session that was only observed is cut when the mode becomes enforce (§9.1)."""
    agent.configure(OBSERVE)
    agent.define(definitions(DNS))
    agent.start()
    with web_session(one_interface) as (client, server):
        assert arrives(client, server)
        agent.stop()
        agent.configure()
        agent.start()
        assert not arrives(client, server)


def test_sessions_may_be_kept(agent: Service, one_interface: Lab) -> None:
    """With ``sessions = "keep"`` a change of policy leaves accepted sessions alone until they end (§6.3)."""
    agent.configure('[enforcement]\nsessions = "keep"\n')
    agent.define(definitions(WEB))
    agent.start()
    with web_session(one_interface) as (client, server):
        agent.define(definitions(DNS))
        agent.wait_for_event("ruleset_applied", 2)
        assert not is_let_in(one_interface, CLIENT, HOST, 80)
        assert arrives(client, server)
        agent.kill()
        agent.start()
        assert arrives(client, server)
