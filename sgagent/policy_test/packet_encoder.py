"""Encode the packets of a policy test, and the replies to them, as bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from sgagent.core.evaluate import Packet
from sgagent.core.implicit_allows import MULTICAST_LISTENER_TYPES
from sgagent.core.model import DCCP, GRE, SCTP, TCP, UDP, UDP_LITE, Family, Protocol
from sgagent.policy_test.packet_bytes import (
    FIRST_SEQUENCE_NUMBER,
    ROUTER_ALERT,
    TCP_ACK,
    TCP_SYN,
    Address,
    Extension,
    WirePacket,
    dccp_request,
    dccp_response,
    gre,
    icmp,
    icmpv6,
    sctp_init,
    sctp_init_ack,
    tcp,
    udp,
    udp_lite,
)

_TOO_SHORT = b"\0\0"
_CLIENT_PORT, _SERVER_PORT = 40_000, 5_000
"""The ports of protocols whose ports no rule can name."""

_Builder = Callable[[Address, Address, int, int], WirePacket]
"""Makes a packet from its ends and ports."""

_OPENERS: Mapping[Protocol, _Builder] = {
    TCP: tcp,
    UDP: udp,
    DCCP: dccp_request,
    SCTP: sctp_init,
    UDP_LITE: udp_lite,
}
_REPLIES: Mapping[Protocol, _Builder] = {
    TCP: partial(tcp, flags=TCP_SYN | TCP_ACK, acknowledges=FIRST_SEQUENCE_NUMBER + 1),
    UDP: udp,
    DCCP: dccp_response,
    SCTP: sctp_init_ack,
    UDP_LITE: udp_lite,
}
"""What makes the first packet of a session, and what makes the reply."""

_ICMP_REPLIES = {8: 0, 13: 14, 15: 16, 17: 18}
_ICMPV6_REPLIES = {128: 129}
"""The type of each message that opens a session, and the type of its reply."""


def encode_packet(packet: Packet) -> WirePacket:
    """Return the packet as bytes, with valid checksums."""
    source, destination = _ends(packet)
    if packet.source_port is not None and packet.destination_port is not None:
        build = _OPENERS[Protocol(packet.protocol)]
        return build(source, destination, packet.source_port, packet.destination_port)
    if packet.icmp_type is None:
        return _without_ports(source, destination, Protocol(packet.protocol))
    if packet.family is Family.IPV4:
        return icmp(source, destination, packet.icmp_type)
    alert = (Extension(number=0, body=ROUTER_ALERT),) if packet.icmp_type in MULTICAST_LISTENER_TYPES else ()
    hop_limit = 64 if packet.hop_limit is None else packet.hop_limit
    return icmpv6(source, destination, packet.icmp_type, hop_limit=hop_limit, extensions=alert)


def encode_reply(opener: Packet) -> WirePacket | None:
    """Return the reply to the first packet of a session; None if nothing replies to such a packet."""
    destination, source = _ends(opener)
    protocol = Protocol(opener.protocol)
    if opener.source_port is not None and opener.destination_port is not None:
        return _REPLIES[protocol](source, destination, opener.destination_port, opener.source_port)
    if opener.icmp_type is None:
        return None if protocol.has_types else _reply_without_ports(source, destination, protocol)
    types, build = (_ICMP_REPLIES, icmp) if opener.family is Family.IPV4 else (_ICMPV6_REPLIES, icmpv6)
    reply_type = types.get(opener.icmp_type)
    return None if reply_type is None else build(source, destination, reply_type)


def _without_ports(source: Address, destination: Address, protocol: Protocol) -> WirePacket:
    """Return the first packet of a session without ports that a rule can name, or too short to hold them."""
    if protocol in _OPENERS and not protocol.has_ports:
        return _OPENERS[protocol](source, destination, _CLIENT_PORT, _SERVER_PORT)
    if protocol == GRE:
        return gre(source, destination)
    payload = _TOO_SHORT if protocol.has_ports else b""
    return WirePacket(source=source, destination=destination, protocol=protocol.wire_number, payload=payload)


def _reply_without_ports(source: Address, destination: Address, protocol: Protocol) -> WirePacket:
    """Return the reply to a packet of :func:`_without_ports`."""
    if protocol in _REPLIES and not protocol.has_ports:
        return _REPLIES[protocol](source, destination, _SERVER_PORT, _CLIENT_PORT)
    if protocol == GRE:
        return gre(source, destination)
    return WirePacket(source=source, destination=destination, protocol=protocol.wire_number)


def _ends(packet: Packet) -> tuple[Address, Address]:
    """Return source and destination in the packet's family."""
    kind = IPv4Address if packet.family is Family.IPV4 else IPv6Address
    return kind(packet.source), kind(packet.destination)
