"""Sessions that are older than the agent: followed by conntrack before, or not (§6.3)."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from integration.guest import GUEST_ADDRESS, guest
from integration.lab import Lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import Service, definitions
from integration.traffic import Traffic, traffic

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
STAYS, LEAVES = "198.51.100.7", "198.51.100.8"
STAYS6, LEAVES6 = "2001:db8:7::1", "2001:db8:8::1"
FAR = "203.0.113.10"
WATCH_SECONDS = 0.6
NARROW = definitions(
    f"ingress accept 1 tcp 22 from {STAYS}",
    f"ingress accept 1 tcp 22 from {STAYS6}",
    addresses=f"{HOST}, '{HOST6}'",
)
FOLLOWED = """
table inet testfollow {
    chain early {
        type filter hook prerouting priority 0; policy accept;
        ct state new accept
    }
}
"""
"""Somebody else's table, which makes conntrack follow sessions."""

REVOKED = {"in from one that leaves", "in over IPv6 from one that leaves"}


agent = agent_with(NARROW, is_started=False)


@contextlib.contextmanager
def sessions_on(lab: Lab) -> Iterator[Traffic]:
    """Open sessions inwards, allowed and not, and one outwards; the host goes on listening."""
    with traffic(lab) as made, contextlib.ExitStack() as listeners:
        for family, address, stays, leaves in (
            ("", HOST, STAYS, LEAVES),
            (" over IPv6", HOST6, STAYS6, LEAVES6),
        ):
            made.open(f"in{family} from one that stays", lab.peer, stays, lab.host, (address, 22))
            made.open(f"in{family} from one that leaves", lab.peer, leaves, lab.host, (address, 22))
            listeners.enter_context(lab.listen(lab.host, address, 22))
        made.open("out", lab.host, HOST, lab.peer, (FAR, 443))
        yield made


def silent(busy: Traffic) -> set[str]:
    """Return which of the sessions carry nothing any more."""
    return set(busy.silent_since(time.perf_counter(), WATCH_SECONDS))


def named(agent: Service, event: str) -> set[tuple[str, int]]:
    """Return the far ends of the sessions that events name, with the local port."""
    return {(found["peer"], found["local_port"]) for found in agent.events(event)}


def test_sessions_known_to_conntrack_are_judged_by_the_kernel(agent: Service, one_interface: Lab) -> None:
    """They are judged by the way they were opened: the forbidden ones stop, the others lose nothing."""
    one_interface.load(FOLLOWED)
    with sessions_on(one_interface) as busy, busy.running():
        busy.wait_until_all_talk()
        agent.start()
        assert silent(busy) == REVOKED
        busy.settle(set(busy.sessions) - REVOKED)


def test_sessions_unknown_to_conntrack_are_ended_and_named(agent: Service, one_interface: Lab) -> None:
    """Of those at local listeners the forbidden ones are ended and logged, whoever sends next (§6.3)."""
    with sessions_on(one_interface) as busy:
        agent.start()
        for name in REVOKED:
            wait_for_error(busy.sessions[name].ends[1].socket)
        assert named(agent, "session_cut") == {(LEAVES, 22), (LEAVES6, 22)}
        assert {event["ending"] for event in agent.events("session_cut")} == {"ended"}
        with busy.running():
            wait_for(lambda: all_heard(busy, set(busy.sessions) - REVOKED), "the allowed ones to go on")
        assert not any(busy.sessions[name].ends[0].heard for name in REVOKED)


def test_a_one_shot_ends_them_too(agent: Service, one_interface: Lab) -> None:
    """`sgagent compile` names and ends forbidden sessions that nobody followed, and lists them as JSON."""
    with sessions_on(one_interface) as busy:
        done = agent.command("compile", "--json", "--yes")  # this very process holds their ends
        assert done.status == 0, done.errors
        assert json.loads(done.output)["outcome"] == "applied"
        for name in REVOKED:
            wait_for_error(busy.sessions[name].ends[1].socket)
        cut = [json.loads(line) for line in done.errors.splitlines()]
        assert {(found["peer"], found["local_port"]) for found in cut} == {(LEAVES, 22), (LEAVES6, 22)}
    again = agent.command("compile", "--json")
    assert json.loads(again.output) == {"outcome": "unchanged", "interfaces": ["eth0"], "operations": 0}


def wait_for_error(ended: socket.socket) -> None:
    """Wait until a socket has an error to tell."""
    wait_for(lambda: error_of(ended) != 0, "the end of a session")


def error_of(ended: socket.socket) -> int:
    """Return the error that a socket waits to tell."""
    return ended.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def all_heard(busy: Traffic, names: set[str]) -> bool:
    """Tell whether both ends of the sessions have heard of each other."""
    return all(end.heard for name in names for end in busy.sessions[name].ends)


def test_sessions_that_do_not_pass_the_link_are_left(agent: Service, one_interface: Lab) -> None:
    """A guest, and the host itself, may talk to the address of a bound link, which judges neither (§2.3)."""
    lab = one_interface
    agent.define(definitions())
    with guest(lab) as behind, traffic(lab) as busy:
        for name, client, source in (("guest", behind, GUEST_ADDRESS), ("host", lab.host, "127.0.0.1")):
            busy.open(name, client, source, lab.host, (HOST, 22))
        busy.open("cut", lab.peer, LEAVES, lab.host, (HOST, 22))
        with lab.listen(lab.host, HOST, 22):
            agent.start()
            wait_for_error(busy.sessions.pop("cut").ends[1].socket)
            agent.wait_for_event("session_cut")
        with busy.running():
            busy.wait_until_all_talk()
    assert named(agent, "session_cut") == {(LEAVES, 22)}


_REDIRECTED = """
table inet testredirect {
    chain early {
        type nat hook prerouting priority dstnat; policy accept;
        ip daddr 10.0.0.11 tcp dport 80 dnat ip to 10.0.0.11:8080
    }
}
"""


_ZONED = """
table inet testzone {{
    chain early {{
        type filter hook prerouting priority raw; policy accept;
        iifname "eth0" ct {zone} set 7
    }}
    chain out {{
        type filter hook output priority raw; policy accept;
        oifname "eth0" ct {zone} set 7
    }}
}}
"""
"""Sessions of the link in a zone of their own, or one of their directions."""


@pytest.mark.sampled(2)
@pytest.mark.parametrize("zone", ("", "zone", "original zone", "reply zone"))
def test_redirected_sessions_are_judged_by_the_wire(agent: Service, one_interface: Lab, zone: str) -> None:
    """At the first start, and at a change that revokes another; the socket's port is not allowed (§2.2)."""
    lab, there = one_interface, (HOST, 8080)
    lab.load(_REDIRECTED + (_ZONED.format(zone=zone) if zone else ""))
    web, other = f"ingress accept 1 tcp 80 from {STAYS}", f"ingress accept 1 tcp 80 from {LEAVES}"
    agent.define(definitions(web, other))
    with traffic(lab) as busy:
        for name, source in (("web", STAYS), ("revoked", LEAVES)):
            busy.open(name, lab.peer, source, lab.host, (HOST, 80), listens_at=there)
        with lab.listen(lab.host, *there), busy.running():
            agent.start()
            busy.wait_until_all_talk()
            assert silent(busy) == set()
            agent.define(definitions(web))
            agent.wait_for_event("ruleset_applied", 2)
            assert silent(busy) == {"revoked"}
            busy.settle({"web"})
    assert not agent.events("session_cut")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("address", ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.0.0.12"))
def test_a_listener_elsewhere_ends_no_own_session(agent: Service, one_interface: Lab, address: str) -> None:
    """Anybody may listen at the local port of a session that is older than conntrack (§6.3)."""
    lab = one_interface
    lab.add_host_addresses(["10.0.0.12"])
    with traffic(lab) as busy:
        for name, host, peer in (("out", HOST, FAR), ("out over IPv6", HOST6, STAYS6)):
            busy.open(name, lab.host, host, lab.peer, (peer, 443))
        ports = [session.ends[0].socket.getsockname()[1] for session in busy.sessions.values()]
        with contextlib.ExitStack() as listeners:
            for port in ports:
                listeners.enter_context(lab.listen(lab.host, address, port))
            agent.start()
            with busy.running():
                busy.wait_until_all_talk()
                busy.settle(set(busy.sessions))
    assert not agent.events("session_cut")


@pytest.mark.parametrize(
    ("configuration", "event"),
    (('mode = "observe"', {(LEAVES, 22), (LEAVES6, 22)}), ('sessions = "keep"', set())),
)
def test_no_session_is_ended_where_none_is_to_be_cut(
    agent: Service, one_interface: Lab, configuration: str, event: set[tuple[str, int]]
) -> None:
    """In observe mode they are only named (§9.1); with ``sessions = "keep"`` they are left alone."""
    agent.configure(f"[enforcement]\n{configuration}\n")
    with sessions_on(one_interface) as busy:
        agent.start()
        assert named(agent, "session_would_be_cut") == event
        assert not agent.events("session_cut")
        assert not any(error_of(session.ends[1].socket) for session in busy.sessions.values())


def test_marks_of_a_table_that_is_gone_mean_nothing(agent: Service, one_interface: Lab) -> None:
    """An earlier table's marks open nothing under a new one, which counts anew."""
    agent.define(NARROW.replace(STAYS, "198.51.100.0/24"))
    agent.start()
    with traffic(one_interface) as busy:
        for name, source in (("stays", STAYS), ("leaves", LEAVES)):
            busy.open(name, one_interface.peer, source, one_interface.host, (HOST, 22))
        with busy.running():
            busy.wait_until_all_talk()
            agent.kill()
            agent.namespace.nft("flush", "ruleset")
            agent.define(NARROW)
            agent.start()
            assert silent(busy) == {"leaves"}
            busy.settle({"stays"})
    assert not agent.events("session_cut")


def test_a_revoked_session_that_is_forgotten_is_ended(agent: Service, one_interface: Lab) -> None:
    """A dropped reset makes conntrack forget it; the host's next packet would open it outwards (§6.3).

    One that conntrack knows is not touched: it goes on where the policy allows it again.
    """
    open_to_all = NARROW.replace(STAYS, "198.51.100.0/24")
    agent.define(open_to_all)
    agent.start()
    lab = one_interface
    with traffic(lab) as busy:
        for name in ("forgotten", "known"):
            busy.open(name, lab.peer, LEAVES, lab.host, (HOST, 22))
        client, server = (end.socket for end in busy.sessions["forgotten"].ends)
        with lab.listen(lab.host, HOST, 22):
            agent.define(NARROW)
            agent.wait_for_event("ruleset_applied", 2)
            server.send(b"goes on")
            source = client.getsockname()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_ONCE)
            client.close()
            with pytest.raises(TimeoutError):  # the packet that opens it anew ends conntrack's entry
                lab.connect(lab.peer, source, (HOST, 22), seconds=0.1)
            agent.wait_for_event("session_cut")
            wait_for_error(server)
        del busy.sessions["forgotten"]
        agent.define(open_to_all)
        with busy.running():
            wait_for(lambda: all_heard(busy, {"known"}), "the other one to go on")
    assert [event["peer_port"] for event in agent.events("session_cut")] == [source[1]]


def test_an_older_session_that_looks_like_the_hosts_own_is_ended(agent: Service, one_interface: Lab) -> None:
    """Its server was the first that conntrack heard; the policy that forbids it later ends it (§6.3).

    One that the host has opened, as conntrack saw, from the port of a listener goes on.
    """
    agent.define(NARROW.replace(STAYS, "198.51.100.0/24"))
    lab = one_interface
    with traffic(lab) as busy:
        busy.open("older", lab.peer, LEAVES, lab.host, (HOST, 22))
        client, server = (end.socket for end in busy.sessions["older"].ends)
        agent.start()
        busy.open("own", lab.host, HOST, lab.peer, (LEAVES, 7000), source_port=22)
        with lab.listen(lab.host, HOST, 22):
            server.send(b"first")
            wait_for(lambda: is_heard(client), "what the server said")
            agent.define(NARROW)
            wait_for_error(server)
            agent.wait_for_event("session_cut")
        del busy.sessions["older"]
        with busy.running():
            busy.wait_until_all_talk()
    assert named(agent, "session_cut") == {(LEAVES, 22)}


def is_heard(end: socket.socket) -> bool:
    """Return whether something has arrived."""
    try:
        return bool(end.recv(64))
    except BlockingIOError:
        return False


_RESET_AT_ONCE = struct.pack("ii", 1, 0)
