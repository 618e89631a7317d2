"""Inbound sessions that conntrack forgets go on, whoever speaks next, where egress is closed (§6.3)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from integration.enforcer import one_group
from integration.lab import HOST_MAC, Lab, wait_for
from integration.service import Service
from integration.test_daemon_sessions import _REDIRECTED, _ZONED, is_heard
from integration.traffic import Traffic, traffic

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
STAYS, LEAVES, STAYS6 = "198.51.100.7", "198.51.100.8", "2001:db8:7::1"
ALLOWED = (f"ingress accept 1 tcp 22 from {STAYS}", f"ingress accept 1 tcp 22 from {STAYS6}")
CLOSED = ("egress drop 100 all -1/-1 to 0.0.0.0/0", "egress drop 100 all -1/-1 to ::/0")
INTERFACE = f"""
network_interfaces:
  - network_interface_id: eni-1
    mac_address: '{HOST_MAC % 0}'
    addresses: [{HOST}, '{HOST6}']
    security_group_ids: [sg-1]
"""
ADVANCED = f"version: 1\n{one_group(*ALLOWED, kind='advanced')}{INTERFACE}"
BASIC = f"version: 1\n{one_group(*ALLOWED, *CLOSED)}{INTERFACE}"


@contextlib.contextmanager
def listening(lab: Lab, agent: Service) -> Iterator[None]:
    """Let the host go on listening, until the agent must have seen the open sessions."""
    with lab.listen(lab.host, HOST, 22), lab.listen(lab.host, HOST6, 22):
        agent.wait_for_turns()
        yield


def open_both(busy: Traffic) -> list[tuple[socket.socket, socket.socket]]:
    """Open a session over each family, and return both ends of each: the client's, and the server's."""
    for near, far in ((HOST, STAYS), (HOST6, STAYS6)):
        busy.open(far, busy.lab.peer, far, busy.lab.host, (near, 22))
    ends = [session.ends for session in busy.sessions.values()]
    return [(client.socket, server.socket) for client, server in ends]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("documents", (ADVANCED, BASIC), ids=("advanced", "basic with closed egress"))
@pytest.mark.parametrize("forgets", (("-F",), ("-D", "-p", "tcp"), ("-D", "-f", "ipv6", "-p", "tcp")))
def test_who_speaks_is_heard(agent: Service, busy: Traffic, documents: str, forgets: tuple[str, ...]) -> None:
    """Over both families, however conntrack forgot them; then the client is heard too."""
    agent.define(documents)
    agent.start()
    ends = open_both(busy)
    with listening(busy.lab, agent):
        busy.lab.host.run("conntrack", *forgets)
        for client, server in ends:
            talk(server, client)
            talk(client, server)
    assert sum(event["sessions"] for event in agent.events("sessions_restored")) >= 1
    assert not agent.events("session_cut")


@pytest.mark.parametrize("zone", ("zone", "original zone", "reply zone"))
def test_a_session_is_restored_in_its_zone(agent: Service, busy: Traffic, zone: str) -> None:
    """Rules of others put its packets there."""
    busy.lab.load(_ZONED.format(zone=zone))
    agent.define(ADVANCED)
    agent.start()
    ends = open_both(busy)
    with listening(busy.lab, agent):
        busy.lab.host.run("conntrack", "-F")
        for client, server in ends:
            talk(server, client)


def talk(speaker: socket.socket, hearer: socket.socket) -> None:
    """Say something, and wait until it is heard."""
    speaker.send(b"something")
    wait_for(lambda: is_heard(hearer), "what was said")


def test_a_redirected_session_waits_for_its_client(agent: Service, one_interface: Lab) -> None:
    """Its socket does not show the port that is allowed, to which the client's next packet goes (§2.2)."""
    lab, there = one_interface, (HOST, 8080)
    lab.load(_REDIRECTED)
    rules = one_group(f"ingress accept 1 tcp -1/-1 from {STAYS}", kind="advanced")
    agent.define(f"version: 1\n{rules}{INTERFACE}")
    with traffic(lab) as busy:
        busy.open("web", lab.peer, STAYS, lab.host, (HOST, 80), listens_at=there)
        client, server = (end.socket for end in busy.sessions["web"].ends)
        with lab.listen(lab.host, *there):
            agent.start()
            talk(client, server)
            agent.wait_for_turns()
            lab.host.run("conntrack", "-F")
            agent.wait_for_turns()
            talk(client, server)
            talk(server, client)
    assert not agent.events("sessions_restored")


def test_what_is_revoked_meanwhile_is_not_restored(agent: Service, busy: Traffic) -> None:
    """It ends, as any that conntrack has forgotten (§6.3)."""
    agent.define(ADVANCED.replace(STAYS, "198.51.100.0/24"))
    agent.start()
    busy.open("revoked", busy.lab.peer, LEAVES, busy.lab.host, (HOST, 22))
    _, server = (end.socket for end in busy.sessions["revoked"].ends)
    with listening(busy.lab, agent):
        agent.define(ADVANCED)
        agent.wait_for_event("ruleset_applied", 2)
        busy.lab.host.run("conntrack", "-F")
        agent.wait_for_event("session_cut")
    wait_for(lambda: server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0, "the end of the session")
    assert not agent.events("sessions_restored")
