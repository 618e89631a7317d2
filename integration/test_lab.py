"""The bench itself distinguishes passed packets from dropped ones, against rules written by hand."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from integration.lab import Lab, LabError, lab
from integration.namespaces import network_namespace
from sgagent.policy_test.packet_bytes import ROUTER_ALERT, Extension, WirePacket, icmp, icmpv6, tcp, udp

CLIENT = ip_address("198.51.100.9")
STRANGER = ip_address("203.0.113.9")
HOST = ip_address("10.0.0.11")
CLIENT6 = ip_address("2001:db8::9")
HOST6 = ip_address("2001:db8:1::11")

RULES = """
table inet sgagent {
    counter web { }
    chain edge {
        ct state invalid drop
        ct state established accept
        ip saddr 198.51.100.0/24 tcp dport { 80, 443 } counter name web accept
        ip daddr 198.51.100.0/24 tcp dport 80 accept
        ip6 saddr 2001:db8::/64 tcp dport 80 accept
        ip6 daddr 2001:db8::/64 tcp dport 80 accept
        udp dport 9 accept
        meta l4proto 253 accept
        icmp type echo-request accept
        icmpv6 type { 128, 143 } accept
        drop
    }
    chain in {
        type filter hook prerouting priority -150; policy accept;
        iifname "eth0" goto edge
    }
    chain out {
        type filter hook postrouting priority 300; policy accept;
        oifname "eth0" goto edge
    }
}
"""

INWARDS = [
    (tcp(CLIENT, HOST, 1024, 80), True),
    (tcp(CLIENT, HOST, 1024, 81), False),
    (tcp(STRANGER, HOST, 1024, 80), False),
    (tcp(CLIENT6, HOST6, 1024, 80), True),
    (tcp(CLIENT6, HOST6, 1024, 81), False),
    (udp(STRANGER, HOST, 1024, 9), True),
    (udp(STRANGER, HOST, 1024, 10), False),
    (icmp(STRANGER, HOST), True),
    (icmp(STRANGER, HOST, kind=13), False),
    (icmpv6(CLIENT6, HOST6), True),
    (WirePacket(source=STRANGER, destination=HOST, protocol=253), True),
    (WirePacket(source=STRANGER, destination=HOST, protocol=252), False),
    (WirePacket(source=CLIENT, destination=HOST, protocol=6, payload=b"\0\0"), False),
    (
        icmpv6(
            ip_address("fe80::5"),
            ip_address("ff02::16"),
            143,
            bytes(4),
            hop_limit=1,
            extensions=(Extension(number=0, body=ROUTER_ALERT),),
        ),
        True,
    ),
]


def test_ingress_is_told_apart(one_interface: Lab) -> None:
    """Of packets sent to the host, those are seen to pass that the rules accept, and no others."""
    one_interface.load(RULES)
    assert one_interface.send_ingress([packet for packet, _ in INWARDS]) == [passes for _, passes in INWARDS]


def test_egress_is_told_apart(one_interface: Lab) -> None:
    """Of packets sent by the host, those are seen to pass that the rules accept, and no others."""
    one_interface.load(RULES)
    outwards = [
        (tcp(HOST, CLIENT, 1024, 80), True),
        (tcp(HOST, CLIENT, 1024, 443), False),
        (tcp(HOST6, CLIENT6, 1024, 80), True),
        (udp(HOST6, CLIENT6, 1024, 53), False),
        (udp(HOST, ip_address("255.255.255.255"), 68, 9), True),
        (WirePacket(source=HOST, destination=STRANGER, protocol=253), True),
        (WirePacket(source=HOST, destination=STRANGER, protocol=252), False),
    ]
    assert one_interface.send_egress([packet for packet, _ in outwards]) == [passes for _, passes in outwards]


def test_many_packets_keep_their_verdicts(one_interface: Lab) -> None:
    """Thousands of packets in one batch are told apart, each by its own verdict, and every one is new."""
    one_interface.load(RULES)
    packets = [tcp(CLIENT, HOST, 1024 + number, 80 if number % 3 else 82) for number in range(20_000)]
    assert one_interface.send_ingress(packets) == [bool(number % 3) for number in range(20_000)]
    assert one_interface.counters()["web"][0] == sum(bool(number % 3) for number in range(20_000))


def test_lost_packets_are_no_verdict(one_interface: Lab) -> None:
    """A packet that the kernel throws away before any rule is an error of the bench, not a drop."""
    with pytest.raises(LabError, match="arrived"):
        one_interface.send_ingress([icmpv6(ip_address("::1"), HOST6)])


@pytest.mark.parametrize(("near", "far"), (("10.0.0.11", "198.51.100.7"), ("2001:db8:1::11", "2001:db8::7")))
def test_sessions_are_real(one_interface: Lab, near: str, far: str) -> None:
    """A connection from an address that nobody has carries bytes both ways."""
    one_interface.load(RULES)
    one_interface.add_host_addresses([near])
    listener = one_interface.listen(one_interface.host, near, 80)
    client = one_interface.connect(one_interface.peer, (far, 40_000), (near, 80))
    server, address = listener.accept()
    with listener, client, server:
        client.sendall(b"ping")
        server.sendall(server.recv(4))
        assert client.recv(4) == b"ping"
        assert address[:2] == (far, 40_000)


def test_a_dropped_connection_is_not_made(one_interface: Lab) -> None:
    """A connection that the rules drop ends in a time-out, not in a refusal."""
    one_interface.load(RULES)
    one_interface.add_host_addresses(["10.0.0.11"])
    with one_interface.listen(one_interface.host, "10.0.0.11", 80), pytest.raises(TimeoutError):
        one_interface.connect(one_interface.peer, ("203.0.113.9", 40_000), ("10.0.0.11", 80), seconds=0.3)


def test_interfaces_are_told_apart() -> None:
    """A host with two interfaces judges the packets of each by that one's rules."""
    with lab("eth0", "eth1") as built:
        built.load(RULES)
        packets = [tcp(STRANGER, HOST, 1024, 22)]
        assert built.send_ingress(packets, "eth0") == [False]
        assert built.send_ingress(packets, "eth1") == [True]
        assert built.send_egress(packets, "eth0") == [False]
        assert built.send_egress(packets, "eth1") == [True]


def test_a_namespace_vanishes_with_its_context() -> None:
    """Whatever happens inside, the namespace is gone afterwards."""
    with pytest.raises(RuntimeError), network_namespace() as namespace:  # noqa: PT012 – the name is needed
        kept = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        assert namespace.path.exists()
        kept.close()
        raise RuntimeError
    assert not namespace.path.exists()
