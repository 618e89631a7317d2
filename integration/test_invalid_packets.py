"""Packets that conntrack calls invalid by design: dropped on one link, alive on another (§6.6).

What the policy denies is denied either way. Neighbours of sgagent make such packets: load balancers, proxies
and routes that see one half of a session. Those whose module this kernel lacks run on Debian's, in a guest.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

import pytest

from integration.enforcer import one_group
from integration.guest import GUEST_ADDRESS, GUEST_ADDRESS6, guest
from integration.lab import Lab, wait_for
from integration.namespaces import Namespace, network_namespace
from integration.service import Service
from integration.verified_packets import ATOMIC
from sgagent.policy_test.packet_bytes import icmp, tcp, udp

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
CLIENT, CLIENT6 = "198.51.100.7", "2001:db8:7::7"
CONTAINER, CONTAINER6 = "10.0.0.77", "2001:db8::77"
ALLOWED, DENIED = 80, 81
RULES = tuple(f"ingress accept 1 tcp {ALLOWED} from {everyone}" for everyone in ("0.0.0.0/0", "::/0"))
ANSWERS = tuple(f"egress accept 1 tcp 1024/65535 to {everyone}" for everyone in ("0.0.0.0/0", "::/0"))
TCP_RESET, SYN_ACK = 0x04, 0x12
FORMS = ((ALLOWED, None), (ALLOWED, 8), (DENIED, None), (DENIED, 8))
"""Port, and bytes in a fragment: of an answer that nobody asked for."""

OF_SENTINEL = 1
"""Packets that the bench sends behind those of a test, and that no rule allows."""

WAIT_SECONDS = 2.0
"""For a session that may open or not: its first packet is sent twice."""

SYNPROXY = """
table inet testproxy {
    chain early {
        type filter hook prerouting priority raw; policy accept;
        iifname "eth0" tcp dport 80-81 tcp flags syn notrack
    }
    chain late {
        type filter hook input priority filter; policy accept;
        iifname "eth0" tcp dport 80-81 ct state invalid,untracked synproxy mss 1400 wscale 7 timestamp
    }
}
"""
_ADD_SERVICE, _ADD_SERVER = 1154, 1159
"""Options of sockets by which IPVS is configured."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A server that stands where its answers are invalid to the host."""

    namespace: Namespace
    listens_at: tuple[str, ...]
    reached_at: tuple[str, ...]
    """From the peer, in the same order."""


@contextlib.contextmanager
def ipvs(lab: Lab) -> Iterator[Neighbour]:
    """Balance by NAT to a guest, which IPVS does without conntrack unless it is told otherwise."""
    load("ip_vs", "ip_vs_rr")
    with guest(lab) as behind:
        with lab.host.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as control:
            for port in (ALLOWED, DENIED):
                at = ip_address(HOST).packed, port.to_bytes(2)
                service = struct.pack("=H2x4s2s2xI16sII4s", socket.IPPROTO_TCP, *at, 0, b"rr", 0, 0, bytes(4))
                server = struct.pack("=4s2s2xIiII", ip_address(GUEST_ADDRESS).packed, at[1], 0, 1, 0, 0)
                control.setsockopt(socket.IPPROTO_IP, _ADD_SERVICE, service)
                control.setsockopt(socket.IPPROTO_IP, _ADD_SERVER, service + server)
        yield Neighbour(behind, (GUEST_ADDRESS,), (HOST,))


@contextlib.contextmanager
def synproxy(lab: Lab) -> Iterator[Neighbour]:
    """Answer in the place of the host's own server, as another table has it."""
    lab.host.sysctl({"net.netfilter.nf_conntrack_tcp_loose": 0, "net.ipv4.tcp_syncookies": 1})
    lab.load(SYNPROXY)
    yield Neighbour(lab.host, (HOST, HOST6), (HOST, HOST6))


@contextlib.contextmanager
def asymmetric(lab: Lab) -> Iterator[Neighbour]:
    """Forward requests to a guest whose answers go another way, without following half-seen sessions."""
    with guest(lab) as behind:
        lab.host.sysctl({"net.netfilter.nf_conntrack_tcp_loose": 0})
        behind.ip(f"link add direct type veth peer name direct netns {lab.peer.name}")
        for end, number in ((behind, 1), (lab.peer, 2)):
            end.ip(
                "link set direct up",
                f"address add 192.168.77.{number}/30 dev direct",
                f"address add fd77::{number}/64 dev direct nodad",
            )
        behind.ip("route replace 0.0.0.0/0 via 192.168.77.2", "route replace ::/0 via fd77::2")
        route(lab, GUEST_ADDRESS, GUEST_ADDRESS6)
        yield Neighbour(behind, (GUEST_ADDRESS, GUEST_ADDRESS6), (GUEST_ADDRESS, GUEST_ADDRESS6))


@contextlib.contextmanager
def ipvlan(lab: Lab) -> Iterator[Neighbour]:
    """Put a container above the bound link: its incoming packets pass the host by."""
    load("ipvlan")
    with network_namespace("container") as made:
        lab.host.ip(f"link add link eth0 name above0 netns {made.name} type ipvlan mode l3")
        made.ip(
            "link set above0 up",
            f"address add {CONTAINER}/32 dev above0",
            f"address add {CONTAINER6}/128 dev above0 nodad",
            "route add 0.0.0.0/0 dev above0",
            "route add ::/0 dev above0",
        )
        route(lab, CONTAINER, CONTAINER6)
        yield Neighbour(made, (CONTAINER, CONTAINER6), (CONTAINER, CONTAINER6))


def load(*modules: str) -> None:
    """Load modules of the kernel, or skip the test."""
    for module in modules:
        done = subprocess.run(("modprobe", module), capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"this kernel has no {module}")


def route(lab: Lab, *addresses: str) -> None:
    """Have the peer send to some addresses by way of the host."""
    for address in addresses:
        host = "172.31.254.1" if ip_address(address).version == 4 else "fe80::5347:0:1"
        lab.peer.ip(f"route add {address} via {host} dev eth0 onlink")


def enforce(
    agent: Service, invalid: str, *rules: str, kind: str = "basic", name: str = "eth0", groups: str = '"sg-1"'
) -> None:
    """Enforce a group on the link, or none."""
    agent.define(f"version: 1\n{one_group(*rules, kind=kind)}\n")
    table = f'[[interface]]\nname = "{name}"\nsecurity_group_ids = [{groups}]\ninvalid = "{invalid}"\n'
    agent.configure(table)
    done = agent.command("compile", "--yes")
    assert done.status == 0, done.errors


def talks(lab: Lab, neighbour: Neighbour, place: int, port: int) -> bool:
    """Tell whether a client's session opens and carries something both ways."""
    listens_at, reached_at = neighbour.listens_at[place], neighbour.reached_at[place]
    source = CLIENT if ip_address(reached_at).version == 4 else CLIENT6
    try:
        with lab.listen(neighbour.namespace, listens_at, port) as listener:
            listener.settimeout(WAIT_SECONDS)
            with lab.connect(lab.peer, (source, 0), (reached_at, port), seconds=WAIT_SECONDS) as client:
                client.sendall(b"request")
                server, _ = listener.accept()
                with server:
                    server.settimeout(WAIT_SECONDS)
                    assert server.recv(100) == b"request"
                    server.sendall(b"answer")
                    return client.recv(100) == b"answer"
    except TimeoutError:
        return False
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EHOSTUNREACH, errno.ECONNRESET}:
            raise
        return False


def heard(lab: Lab, neighbour: Neighbour, port: int) -> list[bool]:
    """Return which of the places of a neighbour talk at a port."""
    return [talks(lab, neighbour, place, port) for place in range(len(neighbour.listens_at))]


NEIGHBOURS = {"ipvs": ipvs, "synproxy": synproxy, "asymmetric": asymmetric}


@pytest.mark.parametrize("kind", NEIGHBOURS)
def test_what_is_dead_by_default_lives_if_evaluated(kind: str, agent: Service, one_interface: Lab) -> None:
    """Traffic that the policy denies is dead before and after."""
    with NEIGHBOURS[kind](one_interface) as neighbour:
        everywhere = [True] * len(neighbour.listens_at)
        wait_for(lambda: heard(one_interface, neighbour, ALLOWED) == everywhere, "the neighbour without us")
        enforce(agent, "drop", *RULES)
        assert not any(heard(one_interface, neighbour, ALLOWED))
        enforce(agent, "evaluate", *RULES)
        wait_for(lambda: heard(one_interface, neighbour, ALLOWED) == everywhere, "the neighbour beside us")
        assert not any(heard(one_interface, neighbour, DENIED))
        enforce(agent, "drop", *RULES)
        assert not any(heard(one_interface, neighbour, ALLOWED))


def test_an_advanced_group_lets_answers_out_by_a_rule(agent: Service, one_interface: Lab) -> None:
    """An answer is invalid, so it is judged as egress of its own, whose default drops."""
    with synproxy(one_interface) as neighbour:
        enforce(agent, "evaluate", *RULES, kind="advanced")
        assert heard(one_interface, neighbour, ALLOWED) == [False, False]
        enforce(agent, "evaluate", *RULES, *ANSWERS, kind="advanced")
        wait_for(lambda: heard(one_interface, neighbour, ALLOWED) == [True, True], "the answers")
        assert heard(one_interface, neighbour, DENIED) == [False, False]


def test_containers_by_ipvlan_live_and_are_not_filtered_inwards(agent: Service, one_interface: Lab) -> None:
    """They receive past the host: denied packets reach them, as UDP does by default, too."""
    with ipvlan(one_interface) as neighbour:
        wait_for(lambda: heard(one_interface, neighbour, ALLOWED) == [True, True], "the container")
        enforce(agent, "drop", *RULES)
        assert heard(one_interface, neighbour, ALLOWED) == [False, False]
        assert receives(one_interface, neighbour)
        enforce(agent, "evaluate", *RULES)
        wait_for(lambda: heard(one_interface, neighbour, ALLOWED) == [True, True], "the container")
        assert receives(one_interface, neighbour)
        # What it answers can be denied, by an advanced group or a rule.
        enforce(agent, "evaluate", *RULES, *ANSWERS[:1], kind="advanced")
        wait_for(lambda: heard(one_interface, neighbour, ALLOWED) == [True, False], "what it may answer")


def receives(lab: Lab, neighbour: Neighbour) -> bool:
    """Tell whether a datagram that no rule allows arrives."""
    with (
        lab.listen(neighbour.namespace, neighbour.listens_at[0], DENIED, socket.SOCK_DGRAM) as server,
        lab.connect(lab.peer, (CLIENT, 0), (neighbour.reached_at[0], DENIED), socket.SOCK_DGRAM) as client,
    ):
        server.settimeout(WAIT_SECONDS)
        client.send(b"request")
        try:
            return server.recv(100) == b"request"
        except TimeoutError:
            return False


@pytest.mark.parametrize(("host", "client"), ((HOST, CLIENT), (HOST6, CLIENT6)))
def test_a_blind_reset_ends_no_session(host: str, client: str, agent: Service, one_interface: Lab) -> None:
    """It does not fit: where its header is allowed the host refuses it, as without us, else we drop it."""
    lab = one_interface
    enforce(agent, "evaluate", *RULES)
    with (
        lab.listen(lab.host, host, ALLOWED) as inward,
        lab.listen(lab.peer, client, DENIED) as outward,
        lab.connect(lab.peer, (client, 40_000), (host, ALLOWED)) as of_peer,
        lab.connect(lab.host, (host, 40_001), (client, DENIED)) as of_host,
        inward.accept()[0] as at_host,
        outward.accept()[0] as at_peer,
    ):
        before = lab.counters()
        ends = ip_address(client), ip_address(host)
        resets = (tcp(*ends, *ports, TCP_RESET) for ports in ((40_000, ALLOWED), (DENIED, 40_001)))
        lab.put_on_wire("eth0", list(enumerate(resets, start=1)))
        rule = f"rule/eth0/sgr-{int(host is HOST6)}"
        dropped = 1 + OF_SENTINEL
        wait_for(lambda: grown(lab, before, rule, "default/eth0/ingress") == (1, dropped), "both resets")
        for one, other in ((of_peer, at_host), (at_host, of_peer), (of_host, at_peer), (at_peer, of_host)):
            one.sendall(b"still here")
            assert other.recv(100) == b"still here"


def grown(lab: Lab, before: dict[str, tuple[int, int]], *names: str) -> tuple[int, ...]:
    """Return by how many packets counters have grown."""
    now = lab.counters()
    return tuple(now[name][0] - before[name][0] for name in names)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("host", "client"), ((HOST, CLIENT), (HOST6, CLIENT6)))
@pytest.mark.parametrize("name", ("eth0", "eth*"))
def test_every_form_of_an_invalid_packet_is_judged_by_its_header(
    name: str, host: str, client: str, agent: Service, one_interface: Lab
) -> None:
    """Whole or in fragments, in and out, also by a pattern; on a closed link nothing passes."""
    lab, ends = one_interface, (ip_address(client), ip_address(host))
    shunned = f"egress drop 1 tcp 1024/65535 to {client}"
    answers = [replace(tcp(*ends, 40_000, port, SYN_ACK), fragment_size=size) for port, size in FORMS]
    leaving = [replace(tcp(*ends[::-1], port, 40_000, SYN_ACK), fragment_size=size) for port, size in FORMS]
    for invalid, rules, lets_in, lets_out in (
        ("drop", RULES, (False,) * 4, (False,) * 4),
        ("evaluate", RULES, (True, True, False, False), (True,) * 4),
        ("evaluate", (*RULES, shunned), (True, True, False, False), (False,) * 4),
        ("evaluate", None, (False,) * 4, (False,) * 4),
    ):
        enforce(agent, invalid, *(rules or ()), name=name, groups='"sg-1"' if rules else "")
        assert tuple(lab.send_ingress(answers)) == lets_in, (invalid, rules)
        assert tuple(lab.send_egress(leaving)) == lets_out, (invalid, rules)


NOTRACK = """
table inet testnotrack {
    chain early {
        type filter hook prerouting priority -450; policy accept;
        iifname "eth0" notrack
    }
}
"""
"""Before conntrack puts fragments together, which it does with those that it follows."""

TRACKING = """
table inet testtracking {
    chain late {
        type filter hook input priority 500; policy accept;
        ct state established accept
    }
}
"""

OPTIONS = bytes((60, 1, 30, 12)) + bytes(12) + bytes((17, 0, 1, 4)) + bytes(4)
"""Two headers for options in front of UDP. With the first piece of 8 bytes, nobody finds the second one, and
no kernel takes the piece for one that is cut off in front of its upper layer (RFC 8200, 4.5)."""


@pytest.mark.parametrize("is_untracked", (True, False), ids=("untracked", "invalid"))
def test_a_fragment_hides_no_port(agent: Service, one_interface: Lab, *, is_untracked: bool) -> None:
    """Its header for options is cut off, so that no rule finds the protocol; who gets it puts it together."""
    lab = one_interface
    shunned = f"ingress drop 1 udp {DENIED} from ::/0", "ingress accept 2 all -1/-1 from ::/0"
    with guest(lab) as behind:
        lab.load(NOTRACK if is_untracked else TRACKING)
        namespace, address = (lab.host, HOST6) if is_untracked else (behind, GUEST_ADDRESS6)
        whole = udp(ip_address(CLIENT6), ip_address(address), 40_000, DENIED, b"request")
        pieces = replace(whole, protocol=60, payload=OPTIONS + whole.payload, fragment_size=8)
        hidden = pieces if is_untracked else replace(pieces, extensions=(ATOMIC,))
        with lab.listen(namespace, address, DENIED, socket.SOCK_DGRAM) as server:
            server.settimeout(WAIT_SECONDS)
            lab.put_on_wire("eth0", [(1, hidden)])
            assert server.recv(100) == b"request"
            enforce(agent, "evaluate", *shunned)
            before = lab.counters()
            lab.put_on_wire("eth0", [(2, whole), (3, hidden)])
            sent = 1, len(list(hidden.datagrams(3)))
            names = "rule/eth0/sgr-0", "invalid/eth0/ingress"
            wait_for(lambda: grown(lab, before, *names) == sent, "all of them")
            server.settimeout(0.1)
            with pytest.raises(TimeoutError):
                server.recv(100)


def test_an_error_about_no_session_needs_a_rule(agent: Service, one_interface: Lab) -> None:
    """It is ICMP like any other."""
    about = tcp(ip_address(HOST), ip_address(CLIENT), 40_000, 443)
    unreachable = bytes(4) + next(about.datagrams(1))[:28]
    error = icmp(ip_address(CLIENT), ip_address(HOST), 3, unreachable)
    for rules, passes in ((RULES, False), ((*RULES, "ingress accept 1 icmp -1/-1 from 0.0.0.0/0"), True)):
        enforce(agent, "evaluate", *rules)
        assert one_interface.send_ingress([error]) == [passes]
