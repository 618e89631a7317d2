"""Packets of tests as bytes, and the replies to them: whole, too short, in fragments, with extension headers.

Headers are complete and checksums valid, since conntrack calls other packets invalid before the policy sees
them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from sgagent.core.evaluate import Packet
from sgagent.core.model import DCCP, GRE, ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE, Family, Protocol
from sgagent.core.policy import MULTICAST_LISTENER_TYPES

Address = IPv4Address | IPv6Address

HOP_BY_HOP = 0
AUTHENTICATION = 51
DESTINATION_OPTIONS = 60
_FRAGMENT = 44

TCP_SYN = 0x02
TCP_ACK = 0x10

FIRST_SEQUENCE_NUMBER = 1000
"""The initial sequence number of both ends of a TCP session."""

_SCTP_INIT, _SCTP_INIT_ACK = 1, 2
_SCTP_TAG = 1
"""The verification tag of both ends; an INIT itself carries 0 (RFC 9260, 8.5.1)."""

_SCTP_COOKIE = struct.pack("!HHI", 7, 8, 0)
"""The state cookie that an INIT ACK must hold."""

_DCCP_REQUEST, _DCCP_RESPONSE = 0, 1
_DCCP_LONG_NUMBERS = 1
_DCCP_SERVICE = 1

ROUTER_ALERT = b"\x05\x02\x00\x00\x01\x00"
"""The body of a hop-by-hop header with a router alert, as MLD's messages have (§7.1)."""

PADDING = b"\x01\x04\x00\x00\x00\x00"
"""The body of an extension header with nothing but padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """An IPv6 extension header."""

    number: int
    body: bytes = PADDING
    """The bytes after next header and length: 6, and 8 more for each unit of length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WirePacket:
    """An IP packet."""

    source: Address
    destination: Address
    protocol: int
    """The upper-layer protocol, after all extension headers."""

    payload: bytes = b""
    """The upper-layer header and its payload."""

    hop_limit: int = 64
    extensions: tuple[Extension, ...] = ()
    """IPv6 only."""

    fragment_size: int | None = None
    """Bytes of payload in a fragment, a multiple of 8; None sends one datagram."""

    def datagrams(self, identification: int) -> Iterator[bytes]:
        """Yield the datagram, or its fragments in order.

        Args:
            identification: 1 to 65535; IPv4's identification, IPv6's flow label.
        """
        if self.source.version != self.destination.version:
            raise ValueError(f"mixed families: {self.source} to {self.destination}")
        head = self._head_ipv4 if self.source.version == 4 else self._head_ipv6
        for offset, part, more in _pieces(self.payload, self.fragment_size):
            addresses = self.source.packed + self.destination.packed
            yield head(identification, offset, len(part), addresses, more=more) + part

    def _head_ipv4(self, identity: int, offset: int, length: int, addresses: bytes, *, more: bool) -> bytes:
        fragment = (0x2000 if more else 0) | offset >> 3
        lengths = struct.pack("!BBHHH", 0x45, 0, 20 + length, identity, fragment)
        header = lengths + struct.pack("!BBH", self.hop_limit, self.protocol, 0) + addresses
        return _with_checksum(header, 10, b"")

    def _head_ipv6(self, identity: int, offset: int, length: int, addresses: bytes, *, more: bool) -> bytes:
        chain = [(extension.number, extension.body) for extension in self.extensions]
        if self.fragment_size is not None:
            chain.append((_FRAGMENT, struct.pack("!HI", offset | more, identity)))
        first, behind = _chained(chain, self.protocol)
        sizes = struct.pack("!IHBB", 6 << 28 | identity, len(behind) + length, first, self.hop_limit)
        return sizes + addresses + behind


def _packet(source: Address, destination: Address, protocol: Protocol, payload: bytes = b"") -> WirePacket:
    number = protocol.wire_number
    return WirePacket(source=source, destination=destination, protocol=number, payload=payload)


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
    return _checksummed(source, destination, TCP, header, place=16)


def udp(
    source: Address, destination: Address, source_port: int, port: int, content: bytes = b""
) -> WirePacket:
    """Return a UDP packet."""
    datagram = struct.pack("!HHHH", source_port, port, 8 + len(content), 0) + content
    return _checksummed(source, destination, UDP, datagram, place=6)


def udp_lite(source: Address, destination: Address, source_port: int, port: int) -> WirePacket:
    """Return a UDP-Lite packet whose checksum covers all of it (RFC 3828).

    The checksum is the one that conntrack computes, with UDP's number in the pseudo header. RFC 3828 puts
    UDP-Lite's there, and conntrack calls such a packet invalid.
    """
    datagram = struct.pack("!HHHH", source_port, port, 0, 0)
    packet = _checksummed(source, destination, UDP, datagram, place=6)
    return replace(packet, protocol=UDP_LITE.wire_number)


def sctp(
    source: Address, destination: Address, source_port: int, port: int, *, is_reply: bool = False
) -> WirePacket:
    """Return the SCTP packet that opens an association, or the reply to it (RFC 9260, 3.3.2 and 3.3.3)."""
    kind, tag, cookie = (_SCTP_INIT_ACK, _SCTP_TAG, _SCTP_COOKIE) if is_reply else (_SCTP_INIT, 0, b"")
    window, streams, sequence_number = 65536, 1, 1
    length = 20 + len(cookie)
    chunk = struct.pack("!BBHIIHHI", kind, 0, length, _SCTP_TAG, window, streams, streams, sequence_number)
    header = struct.pack("!HHI", source_port, port, tag)
    value = _crc32c(header + bytes(4) + chunk + cookie)
    return _packet(source, destination, SCTP, header + struct.pack("<I", value) + chunk + cookie)


def dccp(
    source: Address, destination: Address, source_port: int, port: int, *, is_reply: bool = False
) -> WirePacket:
    """Return the DCCP packet that opens a connection, or the reply to it (RFC 4340, 5.2 and 5.3)."""
    number = struct.pack("!HI", 0, FIRST_SEQUENCE_NUMBER)  # of 48 bits
    kind, acknowledged = (_DCCP_RESPONSE, b"\0\0" + number) if is_reply else (_DCCP_REQUEST, b"")
    behind = number + acknowledged + struct.pack("!I", _DCCP_SERVICE)
    words = (10 + len(behind)) // 4
    header = struct.pack("!HHBBHBB", source_port, port, words, 0, 0, kind << 1 | _DCCP_LONG_NUMBERS, 0)
    return _checksummed(source, destination, DCCP, header + behind, place=6)


def gre(source: Address, destination: Address) -> WirePacket:
    """Return a GRE packet with an empty payload of the same IP family (RFC 2784)."""
    kind = 0x0800 if source.version == 4 else 0x86DD
    return _packet(source, destination, GRE, struct.pack("!HH", 0, kind))


def icmp(source: Address, destination: Address, kind: int = 8, content: bytes = b"\0\1\0\1") -> WirePacket:
    """Return an ICMP message, by default an echo request. Over IPv6 it is a packet of protocol 1."""
    message = struct.pack("!BBH", kind, 0, 0) + content
    return _packet(source, destination, ICMP, _with_checksum(message, 2, b""))


def icmpv6(
    source: Address,
    destination: Address,
    kind: int = 128,
    content: bytes = b"\0\1\0\1",
    *,
    hop_limit: int = 64,
    extensions: tuple[Extension, ...] = (),
) -> WirePacket:
    """Return an ICMPv6 message, by default an echo request."""
    message = struct.pack("!BBH", kind, 0, 0) + content
    packet = _checksummed(source, destination, ICMPV6, message, place=2)
    return replace(packet, hop_limit=hop_limit, extensions=extensions)


def checksum(octets: bytes) -> int:
    """Return the internet checksum (RFC 1071), computed as the remainder of one large number."""
    if len(octets) % 2:
        octets += b"\0"
    total = int.from_bytes(octets, "big") % 0xFFFF
    return 0xFFFF - total


def _crc32c(octets: bytes) -> int:
    """Return the checksum of SCTP (RFC 9260, appendix A)."""
    remainder = 0xFFFFFFFF
    for octet in octets:
        remainder ^= octet
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def _pieces(payload: bytes, size: int | None) -> Iterator[tuple[int, bytes, bool]]:
    """Return offset, payload and the more-fragments flag of each fragment."""
    if size is None:
        yield 0, payload, False
        return
    for offset in range(0, len(payload), size):
        yield offset, payload[offset : offset + size], offset + size < len(payload)


def _chained(headers: list[tuple[int, bytes]], protocol: int) -> tuple[int, bytes]:
    """Return the number of the first extension header, and all of them linked by next header."""
    numbers = [number for number, _ in headers] + [protocol]
    chain = b"".join(
        struct.pack("!BB", following, 0 if number == _FRAGMENT else len(body) // 8) + body
        for (number, body), following in zip(headers, numbers[1:], strict=True)
    )
    return numbers[0], chain


def _checksummed(
    source: Address, destination: Address, protocol: Protocol, message: bytes, *, place: int
) -> WirePacket:
    """Return a packet with its checksum at the place of the message; it includes a pseudo header."""
    form = "!HH" if source.version == 4 else "!II"
    lengths = struct.pack(form, protocol.wire_number, len(message))
    payload = _with_checksum(message, place, source.packed + destination.packed + lengths)
    return _packet(source, destination, protocol, payload)


def _with_checksum(message: bytes, place: int, pseudo_header: bytes) -> bytes:
    """Return the message with its checksum at the place; 0 becomes 65535, since 0 is "none" in UDP."""
    value = checksum(pseudo_header + message) or 0xFFFF
    return message[:place] + struct.pack("!H", value) + message[place + 2 :]


_TOO_SHORT = b"\0\0"
_CLIENT_PORT, _SERVER_PORT = 40_000, 5_000
"""The ports of protocols whose ports no rule can name."""

_Builder = Callable[[Address, Address, int, int], WirePacket]
"""Makes a packet from its ends and ports."""

_OPENERS: Mapping[Protocol, _Builder] = {TCP: tcp, UDP: udp, DCCP: dccp, SCTP: sctp, UDP_LITE: udp_lite}
_REPLIES: Mapping[Protocol, _Builder] = {
    TCP: partial(tcp, flags=TCP_SYN | TCP_ACK, acknowledges=FIRST_SEQUENCE_NUMBER + 1),
    UDP: udp,
    DCCP: partial(dccp, is_reply=True),
    SCTP: partial(sctp, is_reply=True),
    UDP_LITE: udp_lite,
}
"""What makes the first packet of a session, and what makes the reply."""

_ICMP_REPLIES = {8: 0, 13: 14, 15: 16, 17: 18}
_ICMPV6_REPLIES = {128: 129}
"""The type of each message that opens a session, and the type of its reply."""


def encode_packet(packet: Packet) -> WirePacket:
    """Return the packet as bytes, with valid checksums."""
    (source, destination), protocol = _ends(packet), Protocol(packet.protocol)
    if ports := _ports(packet):
        return _OPENERS[protocol](source, destination, *ports)
    if protocol == GRE:
        return gre(source, destination)
    if packet.icmp_type is None:
        return _packet(source, destination, protocol, _TOO_SHORT if protocol.has_ports else b"")
    if packet.family is Family.IPV4:
        return icmp(source, destination, packet.icmp_type)
    needs_alert = packet.icmp_type in MULTICAST_LISTENER_TYPES
    alert = (Extension(number=HOP_BY_HOP, body=ROUTER_ALERT),) if needs_alert else ()
    hop_limit = 64 if packet.hop_limit is None else packet.hop_limit
    return icmpv6(source, destination, packet.icmp_type, hop_limit=hop_limit, extensions=alert)


def encode_reply(opener: Packet) -> WirePacket | None:
    """Return the reply to the first packet of a session; None if nothing replies to such a packet."""
    (destination, source), protocol = _ends(opener), Protocol(opener.protocol)
    if ports := _ports(opener):
        return _REPLIES[protocol](source, destination, *reversed(ports))
    if opener.icmp_type is not None:
        types, build = (_ICMP_REPLIES, icmp) if opener.family is Family.IPV4 else (_ICMPV6_REPLIES, icmpv6)
        reply_type = types.get(opener.icmp_type)
        return None if reply_type is None else build(source, destination, reply_type)
    if protocol.has_types:
        return None
    return gre(source, destination) if protocol == GRE else _packet(source, destination, protocol)


def _ports(packet: Packet) -> tuple[int, int] | None:
    """Return source and destination port, fixed ones if no rule can name them; None if it holds none."""
    protocol = Protocol(packet.protocol)
    if packet.source_port is not None and packet.destination_port is not None:
        return packet.source_port, packet.destination_port
    return (_CLIENT_PORT, _SERVER_PORT) if protocol in _OPENERS and not protocol.has_ports else None


def _ends(packet: Packet) -> tuple[Address, Address]:
    """Return source and destination in the packet's family."""
    kind = IPv4Address if packet.family is Family.IPV4 else IPv6Address
    return kind(packet.source), kind(packet.destination)
