"""What the first bytes of a packet say, and what they do not."""

from __future__ import annotations

import struct

import pytest

from sgagent.agent.flowlog.enrichment import read_head
from sgagent.core.model import Family
from tests.unit.agent.flowlog.flows import ipv4, ipv6, ports

SYN = ipv4("203.0.113.9", "10.0.0.11", 6, ports(40_000, 22))


def test_ends_and_ports_of_a_segment() -> None:
    """As its two headers say."""
    head = read_head(SYN)
    assert head is not None
    assert (head.family, head.protocol, head.bytes) == (Family.IPV4, 6, 40)
    assert (head.source, head.destination) == (0xCB007109, 0x0A00000B)
    assert (head.source_port, head.destination_port, head.icmp_type) == (40_000, 22, None)


def test_options_stand_before_the_ports() -> None:
    """The header says how long it is."""
    with_options = bytes([0x47]) + SYN[1:20] + bytes(8) + SYN[20:]
    head = read_head(with_options)
    assert head is not None
    assert head.destination_port == 22


@pytest.mark.parametrize("fragment", (1, 0x2001, 0x1FFF))
def test_a_later_fragment_has_no_ports(fragment: int) -> None:
    """What stands where they would is somebody's content."""
    head = read_head(ipv4("203.0.113.9", "10.0.0.11", 6, ports(40_000, 22), fragment=fragment))
    assert head is not None
    assert (head.source_port, head.destination_port) == (None, None)


def test_the_first_fragment_has_ports() -> None:
    """They are there: whoever looks at it drops it by them."""
    head = read_head(ipv4("203.0.113.9", "10.0.0.11", 6, ports(40_000, 22), fragment=0x2000))
    assert head is not None
    assert head.destination_port == 22


def test_icmp_has_a_type_and_no_ports() -> None:
    """In either family."""
    for packet, number in (
        (ipv4("203.0.113.9", "10.0.0.11", 1, b"\x08\x00\x00\x00\x00\x01"), 8),
        (ipv6("2001:db8::9", "2001:db8::11", 58, b"\x80\x00\x00\x00\x00\x01"), 128),
    ):
        head = read_head(packet)
        assert head is not None
        assert (head.icmp_type, head.source_port) == (number, None)


def test_icmp_of_the_other_family_is_just_a_number() -> None:
    """ICMP over IPv6 is nothing that anybody speaks."""
    head = read_head(ipv6("2001:db8::9", "2001:db8::11", 1, b"\x08\x00\x00\x00"))
    assert head is not None
    assert (head.protocol, head.icmp_type) == (1, None)


def extension(following: int, length: int = 8) -> bytes:
    """Return a header of options."""
    return bytes([following, length // 8 - 1]) + bytes(length - 2)


def test_extension_headers_are_walked() -> None:
    """Hop-by-hop options, a routing header, authentication and a first fragment, then the datagram."""
    authentication = bytes([44, 4]) + bytes(22)
    fragment = struct.pack("!BBHI", 17, 0, 1, 7)
    rest = extension(43) + extension(51, 16) + authentication + fragment + ports(53, 5353)
    head = read_head(ipv6("2001:db8::9", "2001:db8::11", 0, rest))
    assert head is not None
    assert (head.protocol, head.source_port, head.destination_port) == (17, 53, 5353)
    assert head.bytes == 40 + len(rest)


def test_a_later_fragment_of_ipv6_has_no_ports() -> None:
    """Its protocol is that of what was cut up."""
    rest = struct.pack("!BBHI", 17, 0, 8 << 3, 7) + ports(53, 5353)
    head = read_head(ipv6("2001:db8::9", "2001:db8::11", 44, rest))
    assert head is not None
    assert (head.protocol, head.destination_port) == (17, None)


def test_a_chain_of_headers_without_end_is_not_followed() -> None:
    """Nor one that is cut off."""
    for rest in (b"".join(extension(60) for _ in range(20)), extension(60)[:5], b""):
        head = read_head(ipv6("2001:db8::9", "2001:db8::11", 60, rest))
        assert head is not None
        assert (head.protocol, head.destination_port) == (60, None)


@pytest.mark.parametrize("length", range(20, 24))
def test_a_head_that_ends_early_has_no_ports(length: int) -> None:
    """Half a port is none."""
    head = read_head(SYN[:length])
    assert head is not None
    assert (head.source_port, head.destination_port) == (None, None)


@pytest.mark.parametrize(
    "head",
    (b"", SYN[:19], bytes([0x44]) + SYN[1:], bytes([0x55]) + SYN[1:], ipv6("2001:db8::9", "::", 6, b"")[:39]),
    ids=("nothing", "too short", "a header that ends in itself", "another version", "IPv6 that is too short"),
)
def test_what_is_no_ip_is_no_head(head: bytes) -> None:
    """Nobody knows whose it is."""
    assert read_head(head) is None
