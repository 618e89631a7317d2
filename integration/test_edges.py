"""Packets that are odd, sessions' errors, and interfaces without groups, as the kernel treats them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from ipaddress import ip_address

import pytest

from integration.enforcer import Enforcer, enforcer, one_group, policy_of
from integration.lab import Lab
from integration.traffic import is_open
from sgagent.core.evaluate import Packet
from sgagent.core.explanation import explain
from sgagent.core.model import Direction, Family, Mode, Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.policy_test.packet_bytes import (
    AUTHENTICATION,
    DESTINATION_OPTIONS,
    HOP_BY_HOP,
    ROUTER_ALERT,
    TCP_ACK,
    TCP_SYN,
    Address,
    Extension,
    WirePacket,
    encode_packet,
    icmp,
    icmpv6,
    tcp,
    udp,
)
from tests.waiting import wait_until

HOST, HOST6 = ip_address("10.0.0.11"), ip_address("2001:db8::11")
CLIENT, CLIENT6 = ip_address("198.51.100.7"), ip_address("2001:db8:7::1")
LINK_LOCAL, ALL_ROUTERS = ip_address("fe80::7"), ip_address("ff02::16")
WEB = one_group(
    "ingress accept 1 tcp 80 from 0.0.0.0/0",
    "ingress accept 1 tcp 80 from ::/0",
    "ingress accept 1 udp 53 from 0.0.0.0/0",
    "ingress accept 1 udp 53 from ::/0",
)
SEALED = one_group(
    "ingress drop 1 all -1/-1 from 0.0.0.0/0",
    "ingress drop 1 all -1/-1 from ::/0",
    "egress drop 1 all -1/-1 to 0.0.0.0/0",
    "egress drop 1 all -1/-1 to ::/0",
)


@pytest.fixture
def agent(one_interface: Lab) -> Iterator[Enforcer]:
    """Take hold of a host with two addresses."""
    one_interface.add_host_addresses([str(HOST), str(HOST6)])
    with enforcer(one_interface) as made:
        yield made


def behind_extensions(packet: WirePacket, *numbers: int) -> WirePacket:
    """Return the packet with extension headers before its upper layer."""
    return replace(packet, extensions=tuple(Extension(number=number) for number in numbers))


def in_fragments(packet: WirePacket) -> WirePacket:
    """Return the packet cut into fragments."""
    return replace(packet, fragment_size=512)


def test_the_upper_layer_is_found_behind_extension_headers(agent: Enforcer) -> None:
    """TCP behind hop-by-hop and destination options, and authenticated, is judged by its ports (§4.1)."""
    agent.enforce(policy_of(WEB, eth0="sg-1"))
    packets = [
        behind_extensions(tcp(CLIENT6, HOST6, 1024, port), *chain)
        for chain in ((DESTINATION_OPTIONS,), (HOP_BY_HOP, DESTINATION_OPTIONS), (AUTHENTICATION,))
        for port in (80, 81)
    ]
    assert agent.lab.send_ingress(packets) == [True, False] * 3


@pytest.mark.parametrize(("source", "destination"), ((CLIENT, HOST), (CLIENT6, HOST6)))
def test_a_fragmented_packet_is_judged_whole(agent: Enforcer, source: Address, destination: Address) -> None:
    """Fragments carry no ports of their own: the packet is put together, then judged."""
    agent.enforce(policy_of(WEB, eth0="sg-1"))
    packets = [in_fragments(udp(source, destination, 1024, port, bytes(2000))) for port in (53, 54)]
    assert agent.lab.send_ingress(packets) == [True, False]


def test_an_invalid_packet_is_dropped_and_counted(agent: Enforcer) -> None:
    """A packet that conntrack calls invalid passes in no direction, whatever the rules say (§6.6)."""
    agent.enforce(policy_of(one_group("ingress accept 1 all -1/-1 from 0.0.0.0/0"), eth0="sg-1"))
    broken_checksum = tcp(CLIENT, HOST, 1024, 80)
    broken_checksum = replace(broken_checksum, payload=broken_checksum.payload[:16] + b"\0\0\0\0")
    inwards = [
        tcp(CLIENT, HOST, 1024, 80, TCP_SYN | TCP_ACK),
        tcp(CLIENT, HOST, 1025, 80, 0),
        broken_checksum,
        WirePacket(source=CLIENT, destination=HOST, protocol=6, payload=b"\0\x50"),
        WirePacket(source=CLIENT, destination=HOST, protocol=17),
        icmp(CLIENT, HOST, kind=3),
    ]
    assert agent.lab.send_ingress(inwards) == [False] * 6
    outwards = [tcp(HOST, CLIENT, 1024, 80, TCP_SYN | TCP_ACK), icmp(HOST, CLIENT, kind=11)]
    assert agent.lab.send_egress(outwards) == [False] * 2
    hits = agent.hits()
    assert (hits["invalid/eth0/ingress"], hits["invalid/eth0/egress"]) == (6, 2)


@pytest.mark.parametrize(("source", "destination"), ((CLIENT, HOST), (CLIENT6, HOST6)))
def test_what_may_open_a_session(agent: Enforcer, source: Address, destination: Address) -> None:
    """ICMP of any type and every other protocol fare as ``explain`` says (§3, §4.1)."""
    policy = policy_of(
        one_group("ingress accept 1 all -1/-1 from 0.0.0.0/0", "ingress accept 1 all -1/-1 from ::/0"),
        eth0="sg-1",
    )
    agent.enforce(policy)
    # 137 speaks of a session; whether 151 and 152 are followed depends on the kernel.
    kinds = [kind for kind in range(256) if kind not in (137, 151, 152)]
    ping = icmp if source.version == 4 else icmpv6
    packets = [ping(source, destination, kind) for kind in kinds]
    said = [passes(policy, packet, kind) for packet, kind in zip(packets, kinds, strict=True)]
    # TCP, UDP and pings are not empty; IPv6 drops an empty header of options before any hook.
    own = {6, 17, 1} if source.version == 4 else {6, 17, 58, 0}
    others = [empty(source, destination, number) for number in range(256) if number not in own]
    # Extension headers with nothing behind them, and those that are an upper layer to conntrack.
    headers = (0, 43, 44, 50, 51, 60, 135, 139, 140) if source.version == 6 else ()
    others += [
        WirePacket(source=source, destination=destination, protocol=number, payload=payload)
        for number in headers
        for payload in (bytes(8), b"\x3b" + bytes(7))
    ]
    said += [passes(policy, packet) for packet in others]
    assert agent.lab.send_ingress(packets + others) == said
    assert True in said
    assert False in said


def empty(source: Address, destination: Address, protocol: int) -> WirePacket:
    """Return a packet that holds no more than the protocol asks for."""
    return encode_packet(
        Packet(
            interface="eth0",
            direction=Direction.INGRESS,
            family=Family.IPV4 if source.version == 4 else Family.IPV6,
            source=int(source),
            destination=int(destination),
            protocol=protocol,
        )
    )


def passes(policy: ResolvedPolicy, packet: WirePacket, icmp_type: int | None = None) -> bool:
    """Tell whether ``explain`` says that the packet comes in."""
    question = Packet(
        interface="eth0",
        direction=Direction.INGRESS,
        family=Family.IPV4 if packet.source.version == 4 else Family.IPV6,
        source=int(packet.source),
        destination=int(packet.destination),
        protocol=packet.protocol,
        icmp_type=icmp_type,
        hop_limit=64,
    )
    return explain(policy, question).verdict is Policy.ACCEPT


def test_a_session_that_is_met_midway_is_judged_as_a_new_one(agent: Enforcer) -> None:
    """An acknowledgement of a session that conntrack does not know is judged by its own header (§6.3)."""
    agent.enforce(policy_of(WEB, eth0="sg-1"))
    packets = [tcp(CLIENT, HOST, 1024, port, TCP_ACK) for port in (80, 81)]
    assert agent.lab.send_ingress(packets) == [True, False]


def test_what_a_host_needs_for_its_addresses_is_always_allowed(agent: Enforcer) -> None:
    """DHCP, neighbour discovery and listener reports pass any groups; forgeries of them do not (§7.1)."""
    agent.enforce(policy_of(SEALED, eth0="sg-1"))
    server, server6 = ip_address("192.0.2.1"), ip_address("fe80::1:1")
    alert = (Extension(number=HOP_BY_HOP, body=ROUTER_ALERT),)
    inwards = [
        (udp(server, HOST, 67, 68), True),
        (udp(server, ip_address("255.255.255.255"), 67, 68), True),
        (udp(server, HOST, 67, 69), False),
        (udp(server, HOST, 68, 67), False),
        (udp(server6, LINK_LOCAL, 547, 546), True),
        (udp(server6, LINK_LOCAL, 546, 547), False),
        *((icmpv6(CLIENT6, HOST6, kind, hop_limit=255), True) for kind in (133, 134, 135, 136)),
        *((icmpv6(CLIENT6, HOST6, kind, hop_limit=254), False) for kind in (133, 134, 135, 136)),
        (icmpv6(CLIENT6, HOST6, 137, hop_limit=255), False),
        *(
            (icmpv6(LINK_LOCAL, ALL_ROUTERS, kind, hop_limit=1, extensions=alert), True)
            for kind in (130, 131, 132, 143)
        ),
        (icmpv6(ip_address("::"), ALL_ROUTERS, 143, hop_limit=1, extensions=alert), True),
        (icmpv6(CLIENT6, ALL_ROUTERS, 143, hop_limit=1, extensions=alert), False),
        (icmpv6(LINK_LOCAL, ALL_ROUTERS, 143, hop_limit=2, extensions=alert), False),
    ]
    assert agent.lab.send_ingress([packet for packet, _ in inwards]) == [passes for _, passes in inwards]
    outwards = [
        (udp(HOST, ip_address("255.255.255.255"), 68, 67), True),
        (udp(HOST, server, 68, 67), True),
        (udp(HOST, server, 67, 68), False),
        (udp(LINK_LOCAL, ip_address("ff02::1:2"), 546, 547), True),
        (icmpv6(HOST6, CLIENT6, 135, hop_limit=255), True),
        (icmpv6(HOST6, CLIENT6, 128), False),
        (icmpv6(LINK_LOCAL, ALL_ROUTERS, 143, hop_limit=1, extensions=alert), True),
        (tcp(HOST, ip_address("100.100.100.200"), 1024, 80), True),
    ]
    assert agent.lab.send_egress([packet for packet, _ in outwards]) == [passes for _, passes in outwards]


@pytest.mark.parametrize(("near", "far"), ((HOST, CLIENT), (HOST6, CLIENT6)))
def test_an_error_about_an_allowed_session_comes_in(agent: Enforcer, near: Address, far: Address) -> None:
    """A refusal from far is heard though nothing may open a session inwards (§6.5)."""
    agent.enforce(policy_of(one_group(), eth0="sg-1"))
    lab = agent.lab
    # Only an address that is really there is used as the source of an error.
    lab.peer.ip(f"address add {far} dev lo")
    with lab.connect(lab.host, (str(near), 0), (str(far), 9), socket.SOCK_DGRAM) as sender:
        wait_until(lambda: is_refused(sender), "the refusal of a datagram")


def is_refused(sender: socket.socket) -> bool:
    """Return whether a datagram is refused; a kernel that sent an error lately may keep one back."""
    try:
        sender.send(b"is anybody there?")
        sender.recv(64)
    except ConnectionRefusedError:
        return True
    except TimeoutError:
        return False
    raise AssertionError("something answered")


FTP_HELPER = """
table inet testhelper {
    ct helper ftp-standard {
        type "ftp" protocol tcp
    }
    chain asked {
        type filter hook prerouting priority -160; policy accept
        tcp dport 21 ct helper set "ftp-standard"
    }
    chain asking {
        type filter hook output priority -160; policy accept
        tcp dport 21 ct helper set "ftp-standard"
    }
}
"""
"""Somebody's rules: conntrack reads what FTP says, and expects the session that it announces."""


@pytest.mark.parametrize("number", (2020, 2021))
def test_a_session_that_a_helper_expects_needs_a_rule(agent: Enforcer, number: int) -> None:
    """Conntrack gives it the mark of the session that announced it, which allows it nothing (§6.5)."""
    rules = [f"{way} accept 1 tcp {port} {word} 0.0.0.0/0" for port in (21, number) for way, word in _WAYS]
    agent.enforce(policy_of(one_group(*rules, kind="advanced"), eth0="sg-1"))
    lab = agent.lab
    lab.load(FTP_HELPER)
    ends = (lab.peer, CLIENT), (lab.host, HOST)
    for (client, source), (server, address) in (ends, ends[::-1]):
        with (
            lab.listen(server, str(address), 21) as listener,
            lab.listen(server, str(address), 2020),
            lab.connect(client, (str(source), 0), (str(address), 21)) as asking,
            listener.accept()[0] as asked,
        ):
            announce_data(asking, asked, address)
            opening = partial(lab.connect, client, (str(source), 0), (str(address), 2020), seconds=0.4)
            assert is_open(opening) is (number == 2020)
    assert [agent.hits()[f"rule/eth0/sgr-{place}"] for place in range(4)] == [1, 1, *[number == 2020] * 2]


def announce_data(asking: socket.socket, asked: socket.socket, server: Address) -> None:
    """Have a server of FTP say where it waits for the client's next session."""
    place = f"{','.join(str(server).split('.'))},{2020 >> 8},{2020 & 255}"
    said = (asked, "220 ready"), (asking, "PASV"), (asked, f"227 Entering Passive Mode ({place})")
    for sender, text in said:
        sender.sendall(f"{text}\r\n".encode())
        (asking if sender is asked else asked).recv(128)


_WAYS = (("ingress", "from"), ("egress", "to"))


def test_an_error_that_the_opener_sends_is_no_hit(agent: Enforcer) -> None:
    """It is one packet of the session, like those before it (§6.5, §3)."""
    agent.enforce(policy_of(one_group("egress accept 1 udp 9 to 0.0.0.0/0"), eth0="sg-1"))
    lab = agent.lab
    agent.lab.load(_ERRORS_OUT)
    with lab.listen(lab.peer, str(CLIENT), 9, socket.SOCK_DGRAM) as server:
        with lab.connect(lab.host, (str(HOST), 0), (str(CLIENT), 9), socket.SOCK_DGRAM) as client:
            client.send(b"question")
            _, asker = server.recvfrom(64)
        server.sendto(b"an answer too late", asker)
        wait_until(lambda: lab.counters("testerrors")["out"][0] == 1, "the error to leave")
    assert agent.hits()["rule/eth0/sgr-0"] == 1


_ERRORS_OUT = """
table inet testerrors {
    counter out { }
    chain left {
        type filter hook postrouting priority 301; policy accept
        icmp type destination-unreachable counter name out
    }
}
"""


def test_a_smaller_path_is_heard_of(agent: Enforcer) -> None:
    """Path-MTU errors about an allowed session come in (§7.2)."""
    agent.enforce(policy_of(one_group(), eth0="sg-1"))
    lab = agent.lab
    with lab.connect(lab.host, (str(HOST), 4000), (str(CLIENT), 9), socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        sender.send(bytes(1300))
        original = next(udp(HOST, CLIENT, 4000, 9, bytes(1300)).datagrams(1))[:28]
        too_big = icmp(ip_address("203.0.113.1"), HOST, 3, b"\0\0\x03\xe8" + original)
        fragmentation_needed = replace(too_big, payload=with_code(too_big.payload, 4))
        unrelated = icmp(ip_address("203.0.113.1"), HOST, 3, b"\0\0\x03\xe8" + bytes(28))
        assert lab.send_ingress([fragmentation_needed, unrelated]) == [True, False]


def with_code(message: bytes, code: int) -> bytes:
    """Return an ICMP message with another code, and the checksum that belongs to it."""
    checksum = int.from_bytes(message[2:4], "big") - code
    return message[:1] + bytes((code,)) + checksum.to_bytes(2, "big") + message[4:]


IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2


def test_an_interface_without_groups_is_closed(agent: Enforcer) -> None:
    """It gets no default of either type: nothing goes in or out, but always allowed traffic (§3)."""
    agent.enforce(policy_of(WEB, eth0=""))
    assert agent.lab.send_ingress([tcp(CLIENT, HOST, 1024, 80)]) == [False]
    assert agent.lab.send_egress([tcp(HOST, CLIENT, 1024, 80)]) == [False]
    assert agent.lab.send_egress([icmpv6(HOST6, CLIENT6, 135, hop_limit=255)]) == [True]


def test_what_is_not_bound_is_not_judged(agent: Enforcer) -> None:
    """Loopback and other interfaces pass everything, by default (§2.3)."""
    agent.enforce(policy_of(SEALED, eth9="sg-1"))
    lab = agent.lab
    assert lab.send_ingress([tcp(CLIENT, HOST, 1024, 80)]) == [True]
    assert lab.send_egress([tcp(HOST, CLIENT, 1024, 80)]) == [True]
    with lab.listen(lab.host, "127.0.0.1", 80):
        lab.connect(lab.host, ("127.0.0.1", 0), ("127.0.0.1", 80)).close()


def test_observing_drops_nothing_and_counts_all_the_same(agent: Enforcer) -> None:
    """In observe mode even invalid packets pass, and the rule that would drop has its hit (§9.1)."""
    agent.enforce(policy_of(SEALED, Mode.OBSERVE, eth0="sg-1"))
    packets = [tcp(CLIENT, HOST, 1024, 80), tcp(CLIENT, HOST, 1025, 80, 0)]
    assert agent.lab.send_ingress(packets) == [True, True]
    assert agent.hits()["rule/eth0/sgr-0"] == 1
    assert agent.hits()["invalid/eth0/ingress"] == 1
    agent.enforce(policy_of(SEALED, eth0="sg-1"))
    assert agent.lab.send_ingress(packets) == [False, False]


def test_untracked_packets_are_judged_by_their_own_header(agent: Enforcer) -> None:
    """Somebody's ``notrack`` opens nothing: both ways are judged, without sessions (§6.6)."""
    agent.lab.load(
        """
        table inet testnotrack {
            chain in { type filter hook prerouting priority -300; policy accept; notrack; }
            chain out { type filter hook output priority -300; policy accept; notrack; }
        }
        """
    )
    agent.enforce(
        policy_of(one_group("ingress accept 1 tcp 80 from 0.0.0.0/0", kind="advanced"), eth0="sg-1")
    )
    assert agent.lab.send_ingress([tcp(CLIENT, HOST, 1024, port) for port in (80, 81)]) == [True, False]
    assert agent.lab.send_egress([tcp(HOST, CLIENT, 80, 1024, TCP_SYN | TCP_ACK)]) == [False]
