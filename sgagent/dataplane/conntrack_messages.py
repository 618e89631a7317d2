"""Conntrack's messages: the requests, attributes and tuples of nfnetlink's subsystem 1."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import NamedTuple

from sgagent.core.model import Family
from sgagent.core.tracked_sessions import FlowTuple
from sgagent.netlink import NESTED, Message, attribute, attributes

_SUBSYSTEM_CONNTRACK = 1 << 8
NEW, GET, DELETE = (_SUBSYSTEM_CONNTRACK | kind for kind in range(3))
HEADER = struct.Struct("=BBH")
NUMBER = struct.Struct(">I")
_PORT = struct.Struct(">H")

TUPLE_ORIGINAL, TUPLE_REPLY = 1, 2
STATUS = 3
PROTOCOL_STATE = 4
TIMEOUT = 7
MARK = 8
IDENTITY = 12
ZONE = 18
MARK_MASK = 21
FILTER = 25

TCP_STATE_PART = 1
"""Of the protocol's state."""

TCP_STATE, TCP_FLAGS_ORIGINAL, TCP_FLAGS_REPLY = 1, 4, 5
"""Of that part. Flags are two bytes: the flags, and a mask."""

BE_LIBERAL = 8
"""The flag of a session whose windows are not checked, as its opening was not seen."""

SEEN_REPLY, ASSURED, CONFIRMED = 1 << 1, 1 << 2, 1 << 3
TRANSLATED, OFFLOADED = 1 << 4 | 1 << 5, 1 << 14 | 1 << 15
"""Bits of the status. Offloaded: the kernel's flow table, or the network card, forwards the packets."""

_TUPLE_IP, _TUPLE_PROTOCOL, TUPLE_ZONE = 1, 2, 3
_PROTOCOL_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3


class ConntrackTuple(NamedTuple):
    """Conntrack's key of a session, without the zone."""

    family: int
    """As a number of the socket module."""

    protocol: int
    ends: FlowTuple

    @property
    def header(self) -> bytes:
        """Return the header of a request about sessions of the family."""
        return HEADER.pack(self.family, 0, 0)

    def encoded(self, zone: int = 0) -> bytes:
        """Return the tuple as the kernel writes it; in the zone of its direction, if that is none of both."""
        kinds, size = ((1, 2), 4) if self.family == socket.AF_INET else ((3, 4), 16)
        addresses = zip(kinds, (self.ends.source, self.ends.destination), strict=True)
        of_ip = b"".join(attribute(kind, address.to_bytes(size)) for kind, address in addresses)
        ports = ((_SOURCE_PORT, self.ends.source_port), (_DESTINATION_PORT, self.ends.destination_port))
        of_protocol = attribute(_PROTOCOL_NUMBER, bytes([self.protocol])) + b"".join(
            attribute(kind, _PORT.pack(port)) for kind, port in ports if port is not None
        )
        of_zone = attribute(TUPLE_ZONE, _PORT.pack(zone)) if zone else b""
        return (
            attribute(_TUPLE_IP | NESTED, of_ip) + attribute(_TUPLE_PROTOCOL | NESTED, of_protocol) + of_zone
        )


def family_number(family: Family) -> int:
    """Return a family as a number of the socket module."""
    return socket.AF_INET if family is Family.IPV4 else socket.AF_INET6


def found_in(message: Message) -> dict[int, memoryview]:
    """Return the attributes of a session."""
    return attributes(message.payload[HEADER.size :])


def tuple_in(message: Message, of_tuple: memoryview) -> ConntrackTuple:
    """Return a tuple of a session; its packets are of a protocol with ports, or of one without."""
    family, found = message.payload[0], attributes(of_tuple)
    of_ip, of_protocol = attributes(found[_TUPLE_IP]), attributes(found[_TUPLE_PROTOCOL])
    source, destination = (of_ip[kind] for kind in ((1, 2) if family == socket.AF_INET else (3, 4)))
    ports = (of_protocol.get(kind) for kind in (_SOURCE_PORT, _DESTINATION_PORT))
    source_port, destination_port = (None if port is None else int.from_bytes(port) for port in ports)
    ends = FlowTuple(int.from_bytes(source), source_port, int.from_bytes(destination), destination_port)
    return ConntrackTuple(family, of_protocol[_PROTOCOL_NUMBER][0], ends)


def protocol_in(found: Mapping[int, memoryview]) -> int:
    """Return the protocol of a session."""
    return attributes(attributes(found[TUPLE_ORIGINAL])[_TUPLE_PROTOCOL])[_PROTOCOL_NUMBER][0]


def zone_in(found: Mapping[int, memoryview], kind: int) -> int:
    """Return the zone of one direction's tuple; 0 is the default one."""
    own = attributes(found[kind]).get(TUPLE_ZONE, found.get(ZONE))
    return 0 if own is None else int.from_bytes(own)


def number_in(found: Mapping[int, memoryview], kind: int) -> int:
    """Return a number among the attributes; 0 where it is missing."""
    return int(NUMBER.unpack(found[kind])[0]) if kind in found else 0


def mark_attributes(mark: int, mask: int) -> bytes:
    """Return the attributes that set bits of a mark: ``mark = (mark & ~CTA_MARK_MASK) ^ CTA_MARK``."""
    return attribute(MARK, NUMBER.pack(mark)) + attribute(MARK_MASK, NUMBER.pack(mask))
