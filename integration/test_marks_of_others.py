"""Programs that save and restore the whole conntrack mark, and route by it, beside bound links."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.enforcer import one_group
from integration.lab import Lab, lab
from integration.namespaces import Namespace
from integration.service import Service, service_on
from sgagent.policy_test.packet_bytes import TCP_ACK, tcp

FIRST, FIRST6 = "10.0.0.11", "2001:db8::11"
SECOND, SECOND6 = "10.0.1.11", "2001:db8:1::11"
PEER, PEER6 = "198.51.100.7", "2001:db8:7::7"
ALLOWED, DENIED = 80, 81
RULES = tuple(f"ingress accept 1 tcp {ALLOWED} from {everyone}" for everyone in ("0.0.0.0/0", "::/0"))
WAIT_SECONDS = 2.0

UPLINKS = """
table inet testuplinks {
    chain pre {
        type filter hook prerouting priority mangle; policy accept;
        ct mark != 0 meta mark set ct mark
        ct mark 0 iifname "eth1" ct mark set 2
    }
    chain out {
        type route hook output priority mangle; policy accept;
        ct mark 0 ip saddr 10.0.1.11 ct mark set 2
        ct mark 0 ip6 saddr 2001:db8:1::11 ct mark set 2
        ct mark != 0 meta mark set ct mark
    }
}
"""
"""The usual rules for several uplinks: sessions stay on theirs by the mark, which nothing masks."""

ANTI_SPOOFING = """
table inet testprovider {
    chain early {
        type filter hook prerouting priority raw; policy accept;
        iifname "eth0" ip saddr 10.0.1.11 drop
        iifname "eth0" ip6 saddr 2001:db8:1::11 drop
        iifname "eth1" ip saddr 10.0.0.11 drop
        iifname "eth1" ip6 saddr 2001:db8::11 drop
    }
}
"""
"""A provider takes nothing from the addresses of another."""


@pytest.fixture
def uplinks() -> Iterator[Lab]:
    """Give a host two links to the world, the second one for marked packets."""
    with lab("eth0", "eth1") as built:
        built.add_host_addresses([FIRST, FIRST6], "eth0")
        built.add_host_addresses([SECOND, SECOND6], "eth1")
        built.peer.nft("-f", "-", stdin=ANTI_SPOOFING)
        built.host.ip(
            "route add 0.0.0.0/0 via 172.31.254.6 dev eth1 table 2",
            "route add ::/0 via fe80::5347:1:2 dev eth1 table 2",
            "rule add fwmark 2 table 2",
        )
        built.host.ip("rule add fwmark 2 table 2", version=6)
        yield built


@pytest.fixture
def agent(uplinks: Lab, tmp_path: Path) -> Iterator[Service]:
    """Give it a program that is not run yet."""
    with service_on(uplinks.host, tmp_path) as made:
        yield made


def enforce(agent: Service, enforcement: str, *links: str) -> None:
    """Enforce a group on links."""
    agent.define(f"version: 1\n{one_group(*RULES)}\n")
    tables = (f'[[interface]]\nname = "{link}"\nsecurity_group_ids = ["sg-1"]\n' for link in links)
    agent.configure(f"[enforcement]\n{enforcement}\n{''.join(tables)}")
    done = agent.command("compile", "--yes")
    assert done.status == 0, done.errors


def talks(lab: Lab, client: Namespace, source: str, server: Namespace, place: tuple[str, int]) -> bool:
    """Tell whether a session opens and carries a message both ways."""
    try:
        with (
            lab.listen(server, *place) as listener,
            lab.connect(client, (source, 0), place, seconds=WAIT_SECONDS) as opener,
        ):
            listener.settimeout(WAIT_SECONDS)
            with listener.accept()[0] as other:
                return _arrives(opener, other) and _arrives(other, opener)
    except TimeoutError:
        return False


def _arrives(sender: socket.socket, receiver: socket.socket) -> bool:
    receiver.settimeout(WAIT_SECONDS)
    sender.sendall(b"message")
    return receiver.recv(7) == b"message"


def sessions(lab: Lab) -> dict[str, bool]:
    """Return which sessions over which uplink carry something."""
    found = {}
    for name, host in (("first", FIRST), ("first6", FIRST6), ("second", SECOND), ("second6", SECOND6)):
        peer = PEER if ip_address(host).version == 4 else PEER6
        found[f"in by the {name}"] = talks(lab, lab.peer, peer, lab.host, (host, ALLOWED))
        found[f"out by the {name}"] = talks(lab, lab.host, host, lab.peer, (peer, ALLOWED))
    return found


@pytest.mark.parametrize("loaded_first", ("theirs", "ours"))
@pytest.mark.parametrize("links", (("eth0", "eth1"), ("eth0",), ("eth1",)))
def test_sessions_stay_on_their_uplink_where_we_leave_the_mark_alone(
    links: tuple[str, ...], loaded_first: str, agent: Service, uplinks: Lab
) -> None:
    """A mask too small for our bits does that, whosever rules see a packet first; the policy is enforced."""
    if loaded_first == "theirs":
        uplinks.load(UPLINKS)
    enforce(agent, "mark_mask = 0x1", *links)
    if loaded_first == "ours":
        uplinks.load(UPLINKS)
    assert set(sessions(uplinks).values()) == {True}
    for link, host in (("eth0", FIRST), ("eth1", SECOND), ("eth0", FIRST6), ("eth1", SECOND6)):
        peer = PEER if ip_address(host).version == 4 else PEER6
        is_let_in = talks(uplinks, uplinks.peer, peer, uplinks.host, (host, DENIED))
        assert is_let_in is (link not in links)


def test_sessions_of_the_second_uplink_are_lost_by_default(agent: Service, uplinks: Lab) -> None:
    """Its mark has bits of ours, so no rule finds it; the doctor names the rules that read and write it."""
    uplinks.load(UPLINKS)
    enforce(agent, "", "eth0", "eth1")
    lost = {name for name, talked in sessions(uplinks).items() if not talked}
    assert lost == {f"{way} by the {name}" for way in ("in", "out") for name in ("second", "second6")}
    assert doctors_codes(agent) >= {"mark_reader", "mark_writer"}
    enforce(agent, "mark_mask = 0x1", "eth0", "eth1")
    assert not doctors_codes(agent) & {"mark_reader", "mark_writer"}


def doctors_codes(agent: Service) -> set[str]:
    """Return the codes of the doctor's findings."""
    done = agent.command("doctor", "--json")
    return {one["code"] for one in json.loads(done.output)["findings"]}


@pytest.mark.parametrize(("mask", "passes"), (("0xffff0000", True), ("0x1", False)))
def test_marks_of_another_host_are_taken_for_ours(
    agent: Service, uplinks: Lab, mask: str, *, passes: bool
) -> None:
    """A session that another host's policy accepted comes with its mark, as conntrackd brings it."""
    enforce(agent, f"mark_mask = {mask}", "eth0")
    first = ("--src", PEER, "--sport", "1024", "--dst", FIRST, "--dport", str(DENIED))
    state = ("--state", "ESTABLISHED", "--status", "ASSURED,SEEN_REPLY", "--timeout", "60")
    uplinks.host.run("conntrack", "--create", "--proto", "tcp", *first, *state, "--mark", "0x10810000")
    segment = tcp(ip_address(PEER), ip_address(FIRST), 1024, DENIED, TCP_ACK)
    assert uplinks.send_ingress([segment]) == [passes]
