"""Parser for the headers of a logged packet, which an attacker may have written.

A truncated header yields no ports. Bytes that are not IP yield nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sgagent.core.model import ICMP, ICMPV6, Family

_IPV4 = struct.Struct("!BxHxxHxBxxII")
_IPV6 = struct.Struct("!IHBx16s16s")
_PORTS = struct.Struct("!HH")
_SHORTEST_IPV4 = 20
_FRAGMENT_OFFSET = 0x1FFF
_IPV6_FRAGMENT_OFFSET = 0xFFF8
_WITH_PORTS = frozenset({6, 17, 33, 132, 136})
"""TCP, UDP, DCCP, SCTP and UDP-Lite begin with their two ports."""

_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = frozenset({0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135, 139, 140})
_MOST_EXTENSIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketHead:
    """Who sends what to whom, as far as it could be read."""

    family: Family
    source: int
    destination: int
    protocol: int
    """For IPv6 behind the extension headers that could be read."""

    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    bytes: int
    """Of the whole packet, as its IP header says."""


def read_head(head: bytes) -> PacketHead | None:
    """Return what the first bytes of a packet say; None if they are no IP header.

    Args:
        head: from the IP header on, cut off somewhere.
    """
    version = head[0] >> 4 if head else 0
    if version == 4:
        return _ipv4(head)
    return _ipv6(head) if version == 6 else None


def _ipv4(head: bytes) -> PacketHead | None:
    if len(head) < _SHORTEST_IPV4:
        return None
    first, length, fragment, protocol, source, destination = _IPV4.unpack_from(head)
    begin = 4 * (first & 0xF)
    if begin < _SHORTEST_IPV4:
        return None
    rest = b"" if fragment & _FRAGMENT_OFFSET else head[begin:]
    return _with_rest(Family.IPV4, (source, destination), protocol, rest, length)


def _ipv6(head: bytes) -> PacketHead | None:
    if len(head) < _IPV6.size:
        return None
    _, length, protocol, source, destination = _IPV6.unpack_from(head)
    protocol, rest = _behind_extensions(protocol, head[_IPV6.size :])
    ends = int.from_bytes(source), int.from_bytes(destination)
    return _with_rest(Family.IPV6, ends, protocol, rest, _IPV6.size + length)


def _behind_extensions(protocol: int, rest: bytes) -> tuple[int, bytes]:
    """Return the upper-layer protocol and its bytes; of a later fragment, or where they end, no bytes."""
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in _EXTENSIONS or len(rest) < 8:
            break
        following = rest[0]
        if protocol == _FRAGMENT:
            size, is_later = 8, bool(int.from_bytes(rest[2:4]) & _IPV6_FRAGMENT_OFFSET)
        elif protocol == _AUTHENTICATION:
            size, is_later = 4 * (rest[1] + 2), False
        else:
            size, is_later = 8 * (rest[1] + 1), False
        protocol, rest = following, b"" if is_later else rest[size:]
        if is_later:
            break
    return protocol, rest


def _with_rest(family: Family, ends: tuple[int, int], protocol: int, rest: bytes, length: int) -> PacketHead:
    """Return a head with the fields of the header that follows the IP header."""
    ports: tuple[int | None, int | None] = (None, None)
    if protocol in _WITH_PORTS and len(rest) >= _PORTS.size:
        ports = _PORTS.unpack_from(rest)
    is_icmp = protocol == (ICMP if family is Family.IPV4 else ICMPV6).number
    return PacketHead(
        family=family,
        source=ends[0],
        destination=ends[1],
        protocol=protocol,
        source_port=ports[0],
        destination_port=ports[1],
        icmp_type=rest[0] if is_icmp and rest else None,
        bytes=length,
    )
