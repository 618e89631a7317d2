"""Conntrack: find sessions, and clear our bits in their marks."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgagent.core.errors import KernelRefusedError, NotPermittedError
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family, Protocol
from sgagent.netlink import (
    NESTED,
    NETLINK_NETFILTER,
    NetlinkSocket,
    attribute,
    attributes,
)
from sgagent.nft.marks import MarkTest

_SUBSYSTEM_CONNTRACK = 1 << 8
_NEW = _SUBSYSTEM_CONNTRACK | 0
_GET = _SUBSYSTEM_CONNTRACK | 1
_HEADER = struct.Struct("=BBH")
_NUMBER = struct.Struct(">I")
_PORT = struct.Struct(">H")
_TUPLE_ORIGINAL = 1
_TUPLE_IP = 1
_TUPLE_PROTOCOL = 2
_MARK = 8
_ZONE = 18
_MARK_MASK = 21
_BATCH = 500


@dataclass(frozen=True, slots=True)
class TrackedSession:
    """A session that conntrack follows, as a packet meets it."""

    mark: int
    opened: Direction
    """Which way it was opened through the interface that the packet passes."""


def find_session(packet: Packet) -> TrackedSession | None:
    """Return the session of the calling thread's network namespace that a packet belongs to.

    The look-up uses addresses and ports as they are on the wire, before or after NAT on this host. An
    incoming packet has the tuple of a session's original direction, or that of its replies. An outgoing
    packet is looked up by the tuple of the packet that would answer it.

    Args:
        packet: of a protocol with ports; sessions of others are not found.

    Raises:
        OSError: the kernel can't be asked.
    """
    if (
        not Protocol(packet.protocol).has_ports
        or packet.source_port is None
        or packet.destination_port is None
    ):
        return None
    incoming = _tuple_of(packet)
    family = socket.AF_INET if packet.family is Family.IPV4 else socket.AF_INET6
    request = _HEADER.pack(family, 0, 0) + attribute(_TUPLE_ORIGINAL | NESTED, incoming)
    try:
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            answer = netlink.ask(_GET, request)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    found = attributes(answer.payload[_HEADER.size :])
    mark = _NUMBER.unpack(found[_MARK])[0] if _MARK in found else 0
    is_original = _parts(found[_TUPLE_ORIGINAL]) == _parts(memoryview(incoming))
    return TrackedSession(mark, Direction.INGRESS if is_original else Direction.EGRESS)


def _tuple_of(packet: Packet) -> bytes:
    """Return what comes in, or would come back, as the kernel writes it."""
    source, destination = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
    if packet.direction is Direction.EGRESS:
        source, destination = destination, source
    kinds, size = ((1, 2), 4) if packet.family is Family.IPV4 else ((3, 4), 16)
    addresses = (
        attribute(k, end[0].to_bytes(size)) for k, end in zip(kinds, (source, destination), strict=True)
    )
    ports = (attribute(k, _PORT.pack(end[1])) for k, end in ((2, source), (3, destination)))
    number = attribute(1, bytes([packet.protocol]))
    return attribute(_TUPLE_IP | NESTED, b"".join(addresses)) + attribute(
        _TUPLE_PROTOCOL | NESTED, number + b"".join(ports)
    )


def _parts(of_tuple: memoryview) -> tuple[dict[int, bytes], ...]:
    """Return the addresses and the ports of a tuple, by kind of attribute."""
    found = attributes(of_tuple)
    return tuple(
        {kind: bytes(value) for kind, value in attributes(found[part]).items()}
        for part in (_TUPLE_IP, _TUPLE_PROTOCOL)
    )


def clear_marks(mask: int, tests: Sequence[MarkTest] = ()) -> int:
    """Clear bits in the mark of every session of the calling thread's network namespace.

    Sessions that end meanwhile are none of our business; other bits of the marks stay.

    Args:
        mask: the bits to clear.
        tests: only of sessions whose mark meets one of these; without any of all. For each the kernel goes
            through all sessions once, and lists those that meet it.

    Returns:
        How many sessions were changed.

    Raises:
        NotPermittedError: the process lacks CAP_NET_ADMIN.
        KernelRefusedError: a session's mark could not be changed.
    """
    changed = 0
    try:
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            for test in tests or (None,):
                orders = list(_orders(netlink, mask, test))
                for start in range(0, len(orders), _BATCH):
                    batch = orders[start : start + _BATCH]
                    changed += len(batch) - _count_ended(netlink.order(batch))
    except PermissionError as error:
        raise NotPermittedError("the marks of sessions can be changed only with CAP_NET_ADMIN") from error
    except OSError as error:
        raise KernelRefusedError(error.strerror or str(error), "marks of sessions") from error
    return changed


def _orders(netlink: NetlinkSocket, mask: int, test: MarkTest | None) -> Iterator[tuple[int, bytes]]:
    """Yield a request for each session with bits to clear: its tuple as the kernel wrote it, and no mark.

    The kernel sets ``mark = (mark & ~CTA_MARK_MASK) ^ CTA_MARK``.
    """
    wanted = b"" if test is None else _mark_attributes(test.value, test.bits)
    cleared = _mark_attributes(0, mask)
    for message in netlink.dump(_GET, _HEADER.pack(socket.AF_UNSPEC, 0, 0) + wanted):
        found = attributes(message.payload[_HEADER.size :])
        mark = _NUMBER.unpack(found[_MARK])[0] if _MARK in found else 0
        if mark & mask == 0 or (test is not None and not test.is_met_by(mark)):
            continue
        zone = attribute(_ZONE, bytes(found[_ZONE])) if _ZONE in found else b""
        original = attribute(_TUPLE_ORIGINAL | NESTED, bytes(found[_TUPLE_ORIGINAL]))
        yield _NEW, bytes(message.payload[: _HEADER.size]) + original + zone + cleared


def _mark_attributes(mark: int, mask: int) -> bytes:
    return attribute(_MARK, _NUMBER.pack(mark)) + attribute(_MARK_MASK, _NUMBER.pack(mask))


def _count_ended(errors: list[int]) -> int:
    """Return how many of the errors say that the session ended meanwhile.

    Raises:
        OSError: one says something else.
    """
    for number in errors:
        if number != errno.ENOENT:
            raise OSError(number, errno.errorcode.get(number, str(number)))
    return len(errors)
