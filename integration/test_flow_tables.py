"""Forwarded sessions that a flow table of another table has taken end when they are revoked (§6.3).

Their packets pass by all hooks but the link's own; the groups do not see them.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from integration.guest import GUEST_ADDRESS, GUEST_ADDRESS6, HOST_ADDRESS6, guest
from integration.lab import Lab, wait_for
from integration.namespaces import CommandError, Namespace, network_namespace
from integration.service import NOTICED_SECONDS, Service, definitions
from integration.traffic import Traffic, traffic
from sgagent.dataplane.flow_tables import FlowTable, list_flow_tables

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
FAR, FAR6, KEPT = "203.0.113.10", "2001:db8:10::1", "198.51.100.7"
WATCH_SECONDS = 3.0
FLOW_TABLE = f"""
table inet testfast {{
    flowtable path {{
        hook ingress priority filter
        devices = {{ eth0, port0 }}
    }}
    chain forwards {{
        type filter hook forward priority filter; policy accept;
        meta l4proto {{ tcp, udp }} flow add @path
    }}
}}
table inet testnat {{
    chain published {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname "eth0" ip daddr {HOST} tcp dport 8080 dnat ip to {GUEST_ADDRESS}:80
        iifname "eth0" ip daddr {HOST} udp dport 5353 dnat ip to {GUEST_ADDRESS}:53
    }}
    chain way_out {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "eth0" ip saddr {GUEST_ADDRESS} masquerade
    }}
}}
"""


_ANY = """
table inet any {
    flowtable path {
        hook ingress priority filter
        devices = { lo }
    }
}
"""


def why_not() -> str:
    """Return why there are no flow tables here; empty if there are."""
    with network_namespace() as made:
        try:
            made.nft("-f", "-", stdin=_ANY)
        except CommandError as error:
            return next(line for line in str(error).splitlines() if "Error" in line)
    return ""


pytestmark = pytest.mark.skipif(bool(_why := why_not()), reason=f"the kernel has no flow tables: {_why}")


@pytest.fixture
def behind(one_interface: Lab) -> Iterator[Namespace]:
    """Put a guest behind the host, with published ports, a way out, and a flow table between."""
    with guest(one_interface) as made:
        one_interface.peer.ip(f"route add {GUEST_ADDRESS6} via fe80::5347:0:1 dev eth0", version=6)
        know_each_other(one_interface.host, made)
        one_interface.load(FLOW_TABLE)
        yield made


def know_each_other(host: Namespace, made: Namespace) -> None:
    """Tell host and guest each other's hardware: a slow machine takes its time to ask over IPv6."""
    host.ip(
        f"neighbour replace {GUEST_ADDRESS6} lladdr {mac_address(made, 'eth0')} dev docker0 nud permanent"
    )
    made.ip(f"neighbour replace {HOST_ADDRESS6} lladdr {mac_address(host, 'docker0')} dev eth0 nud permanent")


def mac_address(namespace: Namespace, link: str) -> str:
    """Return the MAC address of a link."""
    return str(json.loads(namespace.run("ip", "-j", "link", "show", "dev", link))[0]["address"])


INWARDS = (
    *("ingress accept 1 tcp 8080 from 0.0.0.0/0", "ingress accept 1 udp 5353 from 0.0.0.0/0"),
    *("ingress accept 1 tcp 80 from ::/0", "ingress accept 1 udp 53 from ::/0"),
)
OF_KEPT = tuple(rule.replace("0.0.0.0/0", KEPT) for rule in INWARDS[:2])
SHUT = ("egress drop 100 all -1/-1 to 0.0.0.0/0", "egress drop 100 all -1/-1 to ::/0")
OUTWARDS = tuple(
    f"egress accept 1 {protocol} {port} to {far}"
    for protocol, port in (("tcp", 443), ("udp", 5000))
    for far in ("0.0.0.0/0", "::/0")
)
OUT_TO_KEPT = (f"egress accept 1 tcp 443 to {KEPT}", f"egress accept 1 udp 5000 to {KEPT}")


def policy(*rules: str) -> str:
    """Return a policy whose egress is closed but for rules."""
    return definitions(*rules, *SHUT, addresses=f"{HOST}, '{HOST6}'")


def open_all(busy: Traffic, behind: Namespace) -> None:
    """Open sessions with a guest: in and out, over both families and protocols, translated and not."""
    peer, udp = busy.lab.peer, socket.SOCK_DGRAM
    for far in (FAR, KEPT):
        busy.open(f"in tcp {far}", peer, far, behind, (HOST, 8080), listens_at=(GUEST_ADDRESS, 80))
        busy.open(f"in udp {far}", peer, far, behind, (HOST, 5353), kind=udp, listens_at=(GUEST_ADDRESS, 53))
        busy.open(f"out tcp {far}", behind, GUEST_ADDRESS, peer, (far, 443))
        busy.open(f"out udp {far}", behind, GUEST_ADDRESS, peer, (far, 5000), kind=udp)
    busy.open("in tcp 6", peer, FAR6, behind, (GUEST_ADDRESS6, 80))
    busy.open("in udp 6", peer, FAR6, behind, (GUEST_ADDRESS6, 53), kind=udp)
    busy.open("out tcp 6", behind, GUEST_ADDRESS6, peer, (FAR6, 443))
    busy.open("out udp 6", behind, GUEST_ADDRESS6, peer, (FAR6, 5000), kind=udp)


def are_offloaded(host: Namespace, count: int) -> bool:
    """Return whether so many sessions are offloaded."""
    return host.run("conntrack", "-L").count("OFFLOAD") >= count


def test_revoked_sessions_end_others_go_on(agent: Service, one_interface: Lab, behind: Namespace) -> None:
    """In both directions, over both families; the agent names the table."""
    agent.define(policy(*INWARDS, *OUTWARDS))
    agent.start()
    with traffic(one_interface) as busy:
        open_all(busy, behind)
        with busy.running():
            busy.wait_until_all_talk()
            wait_for(lambda: are_offloaded(one_interface.host, len(busy.sessions)), "all to be offloaded")
            agent.define(policy(*OF_KEPT, *OUT_TO_KEPT))
            agent.wait_for_event("conntrack_entries_ended", seconds=2 * NOTICED_SECONDS)
            kept = {name for name in busy.sessions if KEPT in name}
            assert set(busy.silent_since(time.perf_counter(), WATCH_SECONDS)) == set(busy.sessions) - kept
            busy.settle(kept)
        assert "inet testfast path (eth0, port0)" in agent.command("status").output
        assert agent.metric("sgagent_flow_tables") == 1
        assert agent.metric("sgagent_conntrack_entries_ended_total") == len(busy.sessions) - len(kept)


def test_a_published_tcp_session_ends_though_the_guest_may_open_sessions(
    agent: Service, one_interface: Lab, behind: Namespace
) -> None:
    """The guest's next packet opens it anew by no means, while both ends keep sending (§6.3)."""
    agent.define(definitions(*INWARDS, addresses=f"{HOST}, '{HOST6}'"))
    agent.start()
    with traffic(one_interface) as busy:
        busy.open("in", one_interface.peer, FAR, behind, (HOST, 8080), listens_at=(GUEST_ADDRESS, 80))
        busy.open("in over IPv6", one_interface.peer, FAR6, behind, (GUEST_ADDRESS6, 80))
        with busy.running():
            busy.wait_until_all_talk()
            wait_for(lambda: are_offloaded(one_interface.host, 2), "both to be offloaded")
            agent.define(definitions(addresses=f"{HOST}, '{HOST6}'"))
            agent.wait_for_event("conntrack_entries_ended", seconds=2 * NOTICED_SECONDS)
            assert set(busy.silent_since(time.perf_counter(), 2 * WATCH_SECONDS)) == set(busy.sessions)
            assert not are_offloaded(one_interface.host, 1)


def test_one_offloaded_before_the_start_ends(agent: Service, one_interface: Lab, behind: Namespace) -> None:
    """The first policy is a change too."""
    with traffic(one_interface) as busy:
        busy.open("revoked", behind, GUEST_ADDRESS, one_interface.peer, (FAR, 443))
        busy.open("allowed", behind, GUEST_ADDRESS, one_interface.peer, (KEPT, 443))
        with busy.running():
            busy.wait_until_all_talk()
            wait_for(lambda: are_offloaded(one_interface.host, 2), "both to be offloaded")
            agent.define(policy(*OUT_TO_KEPT))
            agent.start()
            agent.wait_for_event("conntrack_entries_ended", seconds=2 * NOTICED_SECONDS)
            assert set(busy.silent_since(time.perf_counter(), WATCH_SECONDS)) == {"revoked"}
            busy.settle({"allowed"})


def test_later_flow_tables_take_nothing_revoked(
    agent: Service, one_interface: Lab, behind: Namespace
) -> None:
    """Nor does one take a session that was silent while it was revoked."""
    host = one_interface.host
    agent.define(policy(*INWARDS, *OUTWARDS))
    agent.start()
    with traffic(one_interface) as busy:
        busy.open("silent", behind, GUEST_ADDRESS, one_interface.peer, (FAR, 443))
        agent.define(policy(*INWARDS))
        agent.wait_for_event("conntrack_entries_ended", seconds=2 * NOTICED_SECONDS)
        with busy.running():
            assert set(busy.silent_since(time.perf_counter(), WATCH_SECONDS)) == {"silent"}
        assert not are_offloaded(host, 1)


def test_flow_tables_are_listed() -> None:
    """With their links; a table without any has none."""
    with network_namespace() as made, made.entered():
        assert list_flow_tables() == ()
        made.nft("-f", "-", stdin=FLOW_TABLE.partition("table inet testnat")[0].replace("eth0, port0", "lo"))
        made.nft("add table ip empty { flowtable none { hook ingress priority 0; } ; }")
        assert list_flow_tables() == (
            FlowTable("inet", "testfast", "path", ("lo",)),
            FlowTable("ip", "empty", "none", ()),
        )
