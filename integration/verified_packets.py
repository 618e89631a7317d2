"""Turn packets of the verifier into bytes and sessions of the kernel's, as far as a kernel can meet them."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import replace

from sgagent.core.model import DCCP, PORTED_NUMBERS, SCTP, UDP_LITE, Family
from sgagent.netlink import ACK, NESTED, NETLINK_NETFILTER, REQUEST, NetlinkSocket, attribute, messages_in
from sgagent.policy_test.packet_bytes import (
    AUTHENTICATION,
    TCP_ACK,
    TCP_SYN,
    Address,
    Extension,
    WirePacket,
    dccp,
    icmp,
    icmpv6,
    sctp,
    tcp,
    udp,
    udp_lite,
)
from sgagent.verify.packets import NO_PROTOCOL, CtDirection, CtState, Ends, PacketAtHook, SessionAtHook
from tests.generators import is_ordinary_address

_IPV6_HEADERS = frozenset({0, 43, 44, 51, 59, 60, 135, 139, 140})
"""As the protocol of an IPv6 packet these would be headers before an upper layer, or none."""

_FOLLOWED = frozenset({1, 6, 17, 47, 58, 136, 253})
"""Protocols of which a live session can be put into the kernel's table as it is."""

_OPENERS = {DCCP.wire_number: dccp, SCTP.wire_number: sctp, UDP_LITE.wire_number: udp_lite}
FOLLOWED_BY_PORTS = frozenset({6, 17, 33, 132, 136})
"""Protocols whose sessions conntrack tells apart by ports."""

_POINT_TO_POINT = 1
"""The version of GRE of which conntrack reads more."""

_SHORT = b"\0"
_OPTIONS = 60
"""The extension header with options for the destination, which is longer than a byte."""

ATOMIC = Extension(number=44, body=bytes(6))
"""A fragment header of a whole packet. Conntrack takes it away, and looks for no other one behind it."""

FIRST_PIECE = (ATOMIC, Extension(number=44, body=struct.pack("!HI", 1, 7)))
"""The headers of a first fragment that conntrack puts together with nothing."""

_NO_FLAGS = 0
_PLACE_OF_FLAGS = 13


def as_bytes(packet: PacketAtHook) -> WirePacket | None:
    """Return the packet as bytes; None where no kernel would meet such a packet, or none can be made.

    What conntrack will make of it is what its state says, if its session is there.
    """
    if not _is_possible(packet):
        return None
    source, destination = _address(packet.family, packet.source), _address(packet.family, packet.destination)
    made: WirePacket | None
    if packet.protocol == NO_PROTOCOL:
        made = WirePacket(source=source, destination=destination, protocol=_OPTIONS, payload=_SHORT)
    else:
        made = _upper_layer(packet, source, destination)
    if made is None:
        return None
    pieces = FIRST_PIECE if packet.is_fragment else ()
    return replace(made, hop_limit=packet.hop_limit, extensions=(*pieces, *made.extensions))


def with_flags_as_made(packet: PacketAtHook) -> PacketAtHook:
    """Return the packet with the flags of TCP that it has once it is made, as conntrack would have it."""
    made = as_bytes(replace(packet, is_fragment=False))
    if made is None or made.extensions or packet.protocol != 6 or len(made.payload) <= _PLACE_OF_FLAGS:
        return packet
    return replace(packet, tcp_flags=made.payload[_PLACE_OF_FLAGS])


def with_bytes_of_ports(packet: PacketAtHook) -> PacketAtHook:
    """Return the packet with the bytes in the place of ports where it has none, once it is made.

    The policy has no types of IPv4's ICMP, so a packet that was drawn has none: it is the first byte.
    """
    packet = with_flags_as_made(packet)
    made = as_bytes(replace(packet, is_fragment=False))
    if made is not None and made.payload and (packet.family, packet.protocol) == (Family.IPV4, 1):
        packet = replace(packet, icmp_type=made.payload[0])
    if made is None or made.extensions or packet.source_port is not None or len(made.payload) < 4:
        return packet
    first, second = struct.unpack("!HH", made.payload[:4])
    return replace(packet, source_port=first, destination_port=second)


def _is_possible(packet: PacketAtHook) -> bool:
    ends = (packet.source, packet.destination)
    if (
        not all(is_ordinary_address(packet.family, end) for end in ends)
        or packet.source == packet.destination
    ):
        return False
    if packet.family is Family.IPV6 and packet.protocol in _IPV6_HEADERS and not _is_authenticated(packet):
        return False
    if (packet.source_port is None) is not (packet.destination_port is None):
        return False
    if packet.other_interface:  # the stage forwards nothing
        return False
    if packet.protocol == 47 and (packet.source_port or 0) & 7 == _POINT_TO_POINT:
        return False
    return packet.hop_limit > 0 and _is_session_possible(packet)


def _is_session_possible(packet: PacketAtHook) -> bool:
    """Return whether the session can be in the kernel's table so that the packet is found to be of it."""
    session = packet.session
    if session is None:
        return True
    if session.original == session.reply:  # the kernel takes such a packet for one of either direction
        return packet.state is CtState.NEW and not _is_translated(session)
    if packet.state is CtState.RELATED:
        return session.protocol in PORTED_NUMBERS and packet.destination == _own(session).destination
    if packet.state is CtState.NEW:  # there is no NAT on the host of the test
        return not _is_translated(session)
    return session.protocol in _FOLLOWED and not (packet.hook == "postrouting" and _is_translated(session))


def _is_translated(session: SessionAtHook) -> bool:
    there, back = session.original.swapped, session.reply
    if session.protocol in FOLLOWED_BY_PORTS:
        return there != back
    return (there.source, there.destination) != (back.source, back.destination)


def _is_authenticated(packet: PacketAtHook) -> bool:
    """Return whether the packet has an authentication header before one of TCP or UDP."""
    session = packet.session
    is_open = packet.state in (CtState.NEW, CtState.ESTABLISHED)
    return (
        is_open and packet.protocol == AUTHENTICATION and session is not None and session.protocol in (6, 17)
    )


def _own(session: SessionAtHook) -> Ends:
    """Return the tuple of the packet's direction."""
    return session.original if session.direction is CtDirection.ORIGINAL else session.reply


def _upper_layer(packet: PacketAtHook, source: Address, destination: Address) -> WirePacket | None:
    session = packet.session
    if session is not None and packet.family is Family.IPV6 and _is_authenticated(packet):
        own = _own(session)
        ported = replace(packet, source_port=own.source_port, destination_port=own.destination_port)
        inner = _upper_layer(replace(ported, protocol=session.protocol), source, destination)
        return inner and replace(inner, extensions=(Extension(number=AUTHENTICATION, body=bytes(6)),))
    match packet.state:
        case CtState.NEW:
            return _opener(packet, source, destination)
        case CtState.ESTABLISHED:
            return _later(packet, source, destination)
        case CtState.RELATED:
            return _error(packet, source, destination)
        case CtState.UNTRACKED:
            return _plain(packet, source, destination)
        case CtState.INVALID:
            return _invalid(packet, source, destination)


def _ports(packet: PacketAtHook) -> tuple[int, int] | None:
    if packet.source_port is None or packet.destination_port is None:
        return None
    return packet.source_port, packet.destination_port


def _opener(packet: PacketAtHook, source: Address, destination: Address) -> WirePacket | None:
    ports = _ports(packet)
    if packet.protocol in _OPENERS:
        return None if ports is None else _OPENERS[packet.protocol](source, destination, *ports)
    return _later(packet, source, destination, TCP_SYN)


def _later(
    packet: PacketAtHook, source: Address, destination: Address, flags: int = TCP_ACK
) -> WirePacket | None:
    """Return a packet of a session that there is, or of a protocol in which the first is like the others."""
    ports, session = _ports(packet), packet.session
    match packet.protocol:
        case 6 if ports:
            return tcp(source, destination, *ports, flags, acknowledges=1 if flags & TCP_ACK else 0)
        case 17 if ports:
            return udp(source, destination, *ports)
        case 136 if ports:
            return udp_lite(source, destination, *ports)
        case 1 | 58 if session is not None and (packet.protocol == 58) is (packet.family is Family.IPV6):
            identity = struct.pack("!HH", _own(session).source_port, 1)
            request = 8 if packet.family is Family.IPV4 else 128
            kind = request if packet.icmp_type is None else packet.icmp_type
            return _message(packet, source, destination, kind, identity)
        case 6 | 17 | 33 | 132 | 136 | 1 | 58:
            return None
        case _:
            return _plain(packet, source, destination)


def _message(
    packet: PacketAtHook, source: Address, destination: Address, kind: int, content: bytes
) -> WirePacket:
    build = icmp if packet.family is Family.IPV4 else icmpv6
    return build(source, destination, kind, content)


def _plain(packet: PacketAtHook, source: Address, destination: Address) -> WirePacket:
    """Return a packet of which only the first bytes say something."""
    ports = _ports(packet)
    payload = _SHORT if ports is None else struct.pack("!HH", *ports) + bytes(28)
    if packet.protocol == 58 and packet.family is Family.IPV6 and packet.icmp_type is not None:
        return icmpv6(source, destination, packet.icmp_type, bytes(20))
    return WirePacket(source=source, destination=destination, protocol=packet.protocol, payload=payload)


def _invalid(packet: PacketAtHook, source: Address, destination: Address) -> WirePacket | None:
    ports = _ports(packet)
    match packet.protocol:
        case 6 if ports:
            return tcp(source, destination, *ports, _NO_FLAGS)
        case 17 if ports:
            broken = udp(source, destination, *ports).payload
            return WirePacket(
                source=source, destination=destination, protocol=17, payload=broken[:4] + b"\0\3" + broken[6:]
            )
        case 6 | 17:
            return _plain(packet, source, destination)
        case 1 if packet.family is Family.IPV4:
            return icmp(source, destination, 0)
        case 1 | 58 if (packet.protocol == 58) is (packet.family is Family.IPV4):
            return _plain(packet, source, destination)
        case _:
            return None


def _error(packet: PacketAtHook, source: Address, destination: Address) -> WirePacket | None:
    """Return an error about a packet that went the other way."""
    session = packet.session
    if session is None or packet.icmp_type is None:
        return None
    inner = _own(session).swapped
    ends = _address(packet.family, inner.source), _address(packet.family, inner.destination)
    build = tcp if session.protocol == 6 else udp
    cause = next(build(*ends, inner.source_port, inner.destination_port).datagrams(1))
    return _message(packet, source, destination, packet.icmp_type, bytes(4) + cause)


def _address(family: Family, number: int) -> Address:
    return ipaddress.IPv4Address(number) if family is Family.IPV4 else ipaddress.IPv6Address(number)


# Sessions, as ctnetlink takes them (nfnetlink_conntrack.h).

_NEW, _DELETE = 1 << 8, 1 << 8 | 2
_HEADER = struct.Struct("=BBH")
_MESSAGE = struct.Struct("=IHHII")
_CREATE, _EXCLUSIVE = 0x400, 0x200
_RECEIVED = 65_536
_ORIGINAL, _REPLY, _STATUS, _PROTOCOL_STATE, _TIMEOUT, _MARK = 1, 2, 3, 4, 7, 8
_SEEN_REPLY, _ASSURED, _CONFIRMED = 2, 4, 8
_TCP, _TCP_STATE, _TCP_FLAGS = 1, 1, (4, 5)
_ESTABLISHED, _LIBERAL = 3, 8
_SECONDS = 600


def make_sessions(packets: Sequence[PacketAtHook]) -> list[bool]:
    """Put sessions into conntrack's table in place of all others, in the calling thread's network namespace.

    Returns:
        For each packet whether its session is there, if it needs one.
    """
    made = [True] * len(packets)
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        netlink.order([(_DELETE, _HEADER.pack(0, 0, 0))])
        for place, packet in enumerate(packets):
            if packet.session is not None and packet.state is not CtState.NEW:
                body = _session(packet.family, _with_types(packet, packet.session))
                head = _MESSAGE.pack(
                    _MESSAGE.size + len(body), _NEW, REQUEST | ACK | _CREATE | _EXCLUSIVE, 1, 0
                )
                netlink.send(head + body)
                (answer,) = messages_in(netlink.recv(_RECEIVED))
                made[place] = answer.payload[:4] == bytes(4)
    return made


_ANSWERS = {8: 0, 13: 14, 15: 16, 17: 18, 128: 129, 139: 140}


def _with_types(packet: PacketAtHook, session: SessionAtHook) -> SessionAtHook:
    """Return the session with the type of a request, and of its answer, that the packet is one of."""
    for pair in _ANSWERS.items():
        if packet.state is CtState.ESTABLISHED and packet.icmp_type in pair:
            original, reply = (number << 8 for number in pair)
            return replace(
                session,
                original=replace(session.original, destination_port=original),
                reply=replace(session.reply, destination_port=reply),
            )
    return session


def _session(family: Family, session: SessionAtHook) -> bytes:
    kind = 2 if family is Family.IPV4 else 10
    number = struct.Struct(">I")
    parts = [
        attribute(_ORIGINAL | NESTED, _tuple(family, session.protocol, session.original)),
        attribute(_REPLY | NESTED, _tuple(family, session.protocol, session.reply)),
        attribute(_STATUS, number.pack(_SEEN_REPLY | _ASSURED | _CONFIRMED)),
        attribute(_TIMEOUT, number.pack(_SECONDS)),
        attribute(_MARK, number.pack(session.mark)),
    ]
    if session.protocol == 6:
        flags = b"".join(attribute(one, bytes((_LIBERAL, _LIBERAL))) for one in _TCP_FLAGS)
        state = attribute(_TCP_STATE, bytes((_ESTABLISHED,)))
        parts.append(attribute(_PROTOCOL_STATE | NESTED, attribute(_TCP | NESTED, state + flags)))
    return _HEADER.pack(kind, 0, 0) + b"".join(parts)


def _tuple(family: Family, protocol: int, ends: Ends) -> bytes:
    kinds, size = ((1, 2), 4) if family is Family.IPV4 else ((3, 4), 16)
    addresses = b"".join(
        attribute(kind, end.to_bytes(size))
        for kind, end in zip(kinds, (ends.source, ends.destination), strict=True)
    )
    upper = attribute(1, bytes((protocol,)))
    port = struct.Struct(">H")
    if protocol in (1, 58):
        first = 4 if protocol == 1 else 7
        upper += attribute(first, port.pack(ends.source_port))
        upper += attribute(first + 1, bytes((ends.destination_port >> 8,)))
        upper += attribute(first + 2, bytes((ends.destination_port & 255,)))
    elif protocol != 253:
        upper += attribute(2, port.pack(ends.source_port)) + attribute(3, port.pack(ends.destination_port))
    return attribute(1 | NESTED, addresses) + attribute(2 | NESTED, upper)
