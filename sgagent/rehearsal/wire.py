"""Build packets byte by byte: the right ones, those too short, in fragments, behind extension headers.

Checksums are right: conntrack calls what has wrong ones invalid, and that would hide what the policy says.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

ICMP = 1
TCP = 6
UDP = 17
ICMPV6 = 58
HOP_BY_HOP = 0
AUTHENTICATION = 51
DESTINATION_OPTIONS = 60
_FRAGMENT = 44

TCP_FIN = 0x01
TCP_SYN = 0x02
TCP_RST = 0x04
TCP_ACK = 0x10

FIRST_SEQUENCE_NUMBER = 1000
"""Of whoever opens a TCP session, and of whoever answers."""

ROUTER_ALERT = b"\x05\x02\x00\x00\x01\x00"
"""The body of a hop-by-hop header with a router alert, as MLD's messages have (§7.1)."""

PADDING = b"\x01\x04\x00\x00\x00\x00"
"""The body of an extension header with nothing but padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """An IPv6 extension header."""

    number: int
    body: bytes = PADDING
    """What follows next header and length: 6 bytes, or 8 more for each unit of length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WirePacket:
    """An IP packet as it stands on the wire."""

    source: Address
    destination: Address
    protocol: int
    """The upper-layer protocol, behind all extension headers."""

    payload: bytes = b""
    """The upper-layer header and what follows it."""

    hop_limit: int = 64
    extensions: tuple[Extension, ...] = ()
    """IPv6 only."""

    fragment_size: int | None = None
    """Bytes of payload in a fragment, a multiple of 8; None sends it whole."""

    def datagrams(self, identification: int) -> Iterator[bytes]:
        """Return what is sent: one datagram, or its fragments in order.

        Args:
            identification: 1 to 65535; stands in the identification of IPv4 and in the flow label of IPv6.
        """
        if isinstance(self.source, IPv4Address) and isinstance(self.destination, IPv4Address):
            return self._datagrams_ipv4(self.source, self.destination, identification)
        if isinstance(self.source, IPv6Address) and isinstance(self.destination, IPv6Address):
            return self._datagrams_ipv6(self.source, self.destination, identification)
        raise ValueError(f"mixed families: {self.source} to {self.destination}")

    def _datagrams_ipv4(
        self, source: IPv4Address, destination: IPv4Address, identity: int
    ) -> Iterator[bytes]:
        for offset, part, more in _pieces(self.payload, self.fragment_size):
            header = struct.pack(
                "!BBHHHBBH4s4s",
                0x45,
                0,
                20 + len(part),
                identity,
                (0x2000 if more else 0) | offset >> 3,
                self.hop_limit,
                self.protocol,
                0,
                source.packed,
                destination.packed,
            )
            yield header[:10] + struct.pack("!H", checksum(header)) + header[12:] + part

    def _datagrams_ipv6(
        self, source: IPv6Address, destination: IPv6Address, identity: int
    ) -> Iterator[bytes]:
        for offset, part, more in _pieces(self.payload, self.fragment_size):
            chain = [(extension.number, extension.body) for extension in self.extensions]
            if self.fragment_size is not None:
                chain.append((_FRAGMENT, struct.pack("!HI", offset | more, identity)))
            first, behind = _chained(chain, self.protocol)
            yield (
                struct.pack(
                    "!IHBB16s16s",
                    6 << 28 | identity,
                    len(behind) + len(part),
                    first,
                    self.hop_limit,
                    source.packed,
                    destination.packed,
                )
                + behind
                + part
            )


def tcp(
    source: Address,
    destination: Address,
    source_port: int,
    port: int,
    flags: int = TCP_SYN,
    *,
    acknowledges: int = 0,
) -> WirePacket:
    """Return a TCP packet without data."""
    header = struct.pack(
        "!HHIIBBHHH", source_port, port, FIRST_SEQUENCE_NUMBER, acknowledges, 5 << 4, flags, 8192, 0, 0
    )
    return WirePacket(
        source=source,
        destination=destination,
        protocol=TCP,
        payload=_with_checksum(header, 16, _pseudo_header(source, destination, TCP, len(header))),
    )


def udp(
    source: Address, destination: Address, source_port: int, port: int, content: bytes = b""
) -> WirePacket:
    """Return a UDP packet."""
    datagram = struct.pack("!HHHH", source_port, port, 8 + len(content), 0) + content
    return WirePacket(
        source=source,
        destination=destination,
        protocol=UDP,
        payload=_with_checksum(datagram, 6, _pseudo_header(source, destination, UDP, len(datagram))),
    )


def icmp(source: Address, destination: Address, kind: int = 8, content: bytes = b"\0\1\0\1") -> WirePacket:
    """Return an ICMP message, an echo request unless said; over IPv6 too, where it is just protocol 1."""
    message = struct.pack("!BBH", kind, 0, 0) + content
    return WirePacket(
        source=source, destination=destination, protocol=ICMP, payload=_with_checksum(message, 2, b"")
    )


def icmpv6(
    source: Address,
    destination: Address,
    kind: int = 128,
    content: bytes = b"\0\1\0\1",
    *,
    hop_limit: int = 64,
    extensions: tuple[Extension, ...] = (),
) -> WirePacket:
    """Return an ICMPv6 message, an echo request unless said."""
    message = struct.pack("!BBH", kind, 0, 0) + content
    return WirePacket(
        source=source,
        destination=destination,
        protocol=ICMPV6,
        payload=_with_checksum(message, 2, _pseudo_header(source, destination, ICMPV6, len(message))),
        hop_limit=hop_limit,
        extensions=extensions,
    )


def checksum(octets: bytes) -> int:
    """Return the internet checksum (RFC 1071): sums modulo 65535 are remainders of the whole as a number."""
    if len(octets) % 2:
        octets += b"\0"
    total = int.from_bytes(octets, "big") % 0xFFFF
    return 0xFFFF - total


def _pieces(payload: bytes, size: int | None) -> Iterator[tuple[int, bytes, bool]]:
    """Return offset, bytes and whether more follow, of each fragment."""
    if size is None:
        yield 0, payload, False
        return
    for offset in range(0, len(payload), size):
        yield offset, payload[offset : offset + size], offset + size < len(payload)


def _chained(headers: list[tuple[int, bytes]], protocol: int) -> tuple[int, bytes]:
    """Return the first header's number and all headers, each of which names the next."""
    numbers = [number for number, _ in headers] + [protocol]
    chain = b"".join(
        struct.pack("!BB", following, 0 if number == _FRAGMENT else len(body) // 8) + body
        for (number, body), following in zip(headers, numbers[1:], strict=True)
    )
    return numbers[0], chain


def _with_checksum(message: bytes, place: int, pseudo_header: bytes) -> bytes:
    """Return the message with its checksum at the place; 0 means none in UDP, and its twin is sent."""
    value = checksum(pseudo_header + message) or 0xFFFF
    return message[:place] + struct.pack("!H", value) + message[place + 2 :]


def _pseudo_header(source: Address, destination: Address, protocol: int, length: int) -> bytes:
    """Return the part of a checksum that stands for the IP header."""
    form = "!HH" if source.version == 4 else "!II"
    return source.packed + destination.packed + struct.pack(form, protocol, length)
