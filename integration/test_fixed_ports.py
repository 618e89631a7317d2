"""Sessions with fixed ports, of which a change forbids one direction and allows the other (§6.3).

Conntrack knows one session, whoever sends. Where it was opened outwards and that is revoked, the far end may
open it anew by its next packet; where it was opened inwards and that is revoked, it has to stop.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from integration.enforcer import one_group
from integration.guest import GUEST_ADDRESS, guest
from integration.lab import HOST_MAC, IP_TRANSPARENT, Lab, lab, wait_for
from integration.namespaces import Namespace
from integration.service import Service, definitions, service_on
from integration.traffic import Traffic, traffic

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
FAR, FAR6 = "203.0.113.10", "2001:db8:7::1"
ADDRESSES = f"{HOST}, '{HOST6}'"
WATCH_SECONDS = 1.5
"""Longer than a turn of the agent's loop."""

PORTS = (51820, 123, 500, 5060)
"""WireGuard, NTP, IKE, SIP."""

INWARDS, OUTWARDS = (
    [f"{way} accept 1 udp {port} {word} {far}" for port in PORTS for far in ("0.0.0.0/0", "::/0")]
    for way, word in (("ingress", "from"), ("egress", "to"))
)
CLOSED = ("egress drop 100 all -1/-1 to 0.0.0.0/0", "egress drop 100 all -1/-1 to ::/0")


def policy(*rules: str) -> str:
    """Return a policy whose egress is closed but for rules."""
    return definitions(*rules, *CLOSED, addresses=ADDRESSES)


def open_all(busy: Traffic, *, outwards: bool) -> None:
    """Open sessions of both families at all ports."""
    host, peer = busy.lab.host, busy.lab.peer
    for port in PORTS:
        for near, far in ((HOST, FAR), (HOST6, FAR6)):
            ends = (host, near, peer, (far, port)) if outwards else (peer, far, host, (near, port))
            busy.open(f"{port} {far}", *ends, kind=socket.SOCK_DGRAM, source_port=port)


@pytest.mark.parametrize("mask", ("0xffff0000", "0x3"), ids=("remembered", "judged at every packet"))
def test_the_far_end_opens_anew_what_the_host_may_not_open(agent: Service, busy: Traffic, mask: str) -> None:
    """Both ends are heard again, whoever keeps sending; an entry each is ended, and no other."""
    agent.configure(f"[enforcement]\nmark_mask = {mask}\n")
    agent.define(policy(*INWARDS, *OUTWARDS))
    agent.start()
    open_all(busy, outwards=True)
    busy.open("allowed", busy.lab.peer, FAR, busy.lab.host, (HOST, PORTS[0]), kind=socket.SOCK_DGRAM)
    with busy.running():
        busy.wait_until_all_talk()
        agent.define(policy(*INWARDS))
        agent.wait_for_event("conntrack_entries_ended")
        busy.wait_until_all_talk()
        busy.settle({"allowed"})
    ended = [event["entries"] for event in agent.events("conntrack_entries_ended")]
    assert sum(ended) == len(busy.sessions) - 1


def test_what_the_host_may_open_no_more_stays_shut_until_another_does(agent: Service, busy: Traffic) -> None:
    """Where the far end is silent, nothing that the host keeps sending gets out."""
    agent.define(policy(*INWARDS, *OUTWARDS))
    agent.start()
    open_all(busy, outwards=True)
    agent.define(policy(*INWARDS))
    agent.wait_for_event("conntrack_entries_ended")
    for session in busy.sessions.values():
        with contextlib.suppress(PermissionError):
            session.ends[0].socket.send(b"denied")
        drain(session.ends[1].socket)
    wait_seconds(0.3)
    assert not any(drain(session.ends[1].socket) for session in busy.sessions.values())


@pytest.mark.parametrize("egress", ("rules", "default"))
def test_what_the_far_end_opened_stops_whatever_leaves(agent: Service, busy: Traffic, egress: str) -> None:
    """In both directions, at once and for good, while both ends keep sending (§6.3)."""
    rules = (*OUTWARDS, *CLOSED) if egress == "rules" else ()
    agent.define(definitions(*INWARDS, *rules, addresses=ADDRESSES))
    agent.start()
    open_all(busy, outwards=False)
    with busy.running():
        busy.wait_until_all_talk()
        agent.define(definitions(*rules, addresses=ADDRESSES))
        agent.wait_for_event("ruleset_applied", 2)
        assert set(busy.silent_since(time.perf_counter(), 2 * WATCH_SECONDS)) == set(busy.sessions)
    assert not agent.events("conntrack_entries_ended")


def test_what_neither_end_may_open_stops_and_goes_on_when_it_may_again(agent: Service, busy: Traffic) -> None:
    """Its entry stays; a policy that lets the far end open it later has it ended then."""
    agent.define(policy(*INWARDS, *OUTWARDS))
    agent.start()
    open_all(busy, outwards=True)
    with busy.running():
        busy.wait_until_all_talk()
        agent.define(policy())
        agent.wait_for_event("ruleset_applied", 2)
        assert set(busy.silent_since(time.perf_counter(), WATCH_SECONDS)) == set(busy.sessions)
        assert not agent.events("conntrack_entries_ended")
        agent.define(policy(*INWARDS))
        busy.wait_until_all_talk()


def test_an_agent_that_died_before_ending_them_does_at_its_start(agent: Service, busy: Traffic) -> None:
    """The one that enforced the change is gone."""
    agent.define(policy(*INWARDS, *OUTWARDS))
    agent.start()
    open_all(busy, outwards=True)
    agent.kill()
    agent.define(policy(*INWARDS))
    assert agent.command("compile", "--yes").status == 0
    with busy.running():
        agent.start()
        busy.wait_until_all_talk()


def test_a_tcp_session_is_never_opened_anew(agent: Service, busy: Traffic) -> None:
    """Conntrack would take any of its packets for the first one of the other direction."""
    ways = ("ingress accept 1 tcp -1/-1 from 0.0.0.0/0", "egress accept 1 tcp 443 to 0.0.0.0/0")
    agent.define(policy(*ways))
    agent.start()
    busy.open("out", busy.lab.host, HOST, busy.lab.peer, (FAR, 443), source_port=443)
    with busy.running():
        busy.wait_until_all_talk()
        agent.define(policy(ways[0]))
        agent.wait_for_event("ruleset_applied", 2)
        assert set(busy.silent_since(time.perf_counter(), 2 * WATCH_SECONDS)) == {"out"}


_NAT = f"""
table inet testnat {{
    chain published {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname "eth0" udp dport 5060 dnat ip to {GUEST_ADDRESS}
    }}
    chain way_out {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "eth0" ip saddr {GUEST_ADDRESS} snat ip to {HOST}
    }}
}}
"""


@pytest.mark.sampled(2)
@pytest.mark.parametrize("is_translated", (True, False), ids=("translated", "routed"))
@pytest.mark.parametrize("outwards", (True, False), ids=("out", "in"))
def test_a_guests_sessions_do_as_the_hosts_own(
    agent: Service, one_interface: Lab, *, is_translated: bool, outwards: bool
) -> None:
    """Behind NAT by the host, and without: opened outwards the far end opens it anew, inwards it stops."""
    near = HOST if is_translated else GUEST_ADDRESS
    agent.define(policy(*INWARDS, *OUTWARDS))
    with guest(one_interface) as behind, traffic(one_interface) as busy:
        if is_translated:
            one_interface.load(_NAT)
        else:
            one_interface.peer.ip(f"route add {GUEST_ADDRESS} via 172.31.254.1 dev eth0 onlink")
        agent.start()
        open_a_call(busy, behind, near, outwards=outwards)
        with busy.running():
            busy.wait_until_all_talk()
            agent.define(policy(*(INWARDS if outwards else OUTWARDS)))
            agent.wait_for_event("ruleset_applied", 2)
            if outwards:
                busy.wait_until_all_talk()
            else:
                assert set(busy.silent_since(time.perf_counter(), 2 * WATCH_SECONDS)) == {"call"}


def open_a_call(busy: Traffic, behind: Namespace, near: str, *, outwards: bool) -> None:
    """Open a session between a guest and the far end."""
    peer, udp = busy.lab.peer, socket.SOCK_DGRAM
    if outwards:
        busy.open("call", behind, GUEST_ADDRESS, peer, (FAR, 5060), kind=udp, source_port=5060)
    else:
        there = (GUEST_ADDRESS, 5060)
        busy.open("call", peer, FAR, behind, (near, 5060), kind=udp, source_port=5060, listens_at=there)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("protocol", (47, 50, 4, 99))
def test_protocols_without_ports_have_equal_ends(agent: Service, one_interface: Lab, protocol: int) -> None:
    """A tunnel that the host opened; the far end opens it anew."""
    ways = [f"ingress accept 1 {protocol} -1/-1 from {FAR}", f"egress accept 1 {protocol} -1/-1 to {FAR}"]
    agent.define(policy(*ways))
    agent.start()
    with raw(one_interface.host, HOST, protocol) as near, raw(one_interface.peer, FAR, protocol) as far:
        near.sendto(_PAYLOAD, (FAR, 0))
        wait_for(lambda: bool(drain(far)), "the first packet outwards")
        far.sendto(_PAYLOAD, (HOST, 0))
        wait_for(lambda: bool(drain(near)), "the answer")
        agent.define(policy(ways[0]))
        agent.wait_for_event("conntrack_entries_ended")
        with contextlib.suppress(PermissionError):
            near.sendto(_PAYLOAD, (FAR, 0))
        far.sendto(_PAYLOAD, (HOST, 0))
        wait_for(lambda: bool(drain(near)), "a packet of the far end")
        assert not drain(far)
        near.sendto(_PAYLOAD, (FAR, 0))
        wait_for(lambda: bool(drain(far)), "the answer to it")


_PAYLOAD = bytes(2) + b"\x88\x0b" + bytes(60)
"""A GRE header of version 0, which is as good as any for the others."""


@contextlib.contextmanager
def raw(namespace: Namespace, address: str, protocol: int) -> Iterator[socket.socket]:
    """Return a socket for packets of a protocol at an address, the namespace's own or not."""
    with namespace.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as made:
        made.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        made.bind((address, 0))
        made.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
        yield made


def drain(end: socket.socket) -> list[bytes]:
    """Return the arrived messages."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(end.recv(256, socket.MSG_DONTWAIT))
    return found


def wait_seconds(seconds: float) -> None:
    """Wait until sent packets must have arrived."""
    end = time.perf_counter() + seconds
    wait_for(lambda: time.perf_counter() >= end, "time to pass", 2 * seconds)


def test_links_without_a_slot_are_swept_too(tmp_path: Path) -> None:
    """Of five links, two remember nothing of sessions."""
    names = ("eth0", "eth1", "eth2", "eth3", "eth4")
    with lab(*names) as built, service_on(built.host, tmp_path) as agent, traffic(built) as busy:
        for number, name in enumerate(names):
            give_a_way_out(built, name, f"10.0.{number}.11")
        agent.define(on_each(names, "ingress accept 1 udp 500 from 0.0.0.0/0"))
        agent.start()
        for number, name in enumerate(names):
            near, far = f"10.0.{number}.11", (f"203.0.113.{number + 1}", 500)
            busy.open(name, built.host, near, built.peer, far, kind=socket.SOCK_DGRAM, source_port=500)
        with busy.running():
            busy.wait_until_all_talk()
            agent.define(on_each(names, "ingress accept 1 udp 500 from 0.0.0.0/0", *CLOSED))
            agent.wait_for_event("conntrack_entries_ended")
            busy.wait_until_all_talk()


def give_a_way_out(built: Lab, name: str, address: str) -> None:
    """Give a link an address, and packets from it a route by that link."""
    number = built.interfaces.index(name)
    built.add_host_addresses([address], name)
    built.host.ip(f"rule add from {address} lookup {100 + number}")
    built.host.ip(f"route add default via 172.31.254.{4 * number + 2} dev {name} table {100 + number}")


def on_each(names: Sequence[str], *rules: str) -> str:
    """Return a document that binds each link to the group with the rules."""
    lines = [
        f"  - {{network_interface_id: eni-{number}, mac_address: '{HOST_MAC % number}',"
        f" addresses: [10.0.{number}.11], security_group_ids: [sg-1]}}"
        for number in range(len(names))
    ]
    return "\n".join(["version: 1", one_group(*rules), "network_interfaces:", *lines, ""])
