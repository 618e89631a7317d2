"""The sessions that conntrack follows: find one, and clear our bits in their marks."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sgagent.core.errors import KernelRefusedError, NotPermittedError
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family, Protocol
from sgagent.netlink import NESTED, NETLINK_NETFILTER, Message, NetlinkSocket, attribute, attributes
from sgagent.nft.marks import MarkTest

_SUBSYSTEM_CONNTRACK = 1 << 8
_NEW = _SUBSYSTEM_CONNTRACK | 0
_GET = _SUBSYSTEM_CONNTRACK | 1
_HEADER = struct.Struct("=BBH")
_NUMBER = struct.Struct(">I")
_PORT = struct.Struct(">H")
_TUPLE_ORIGINAL, _TUPLE_REPLY = 1, 2
_TUPLE_IP = 1
_TUPLE_PROTOCOL = 2
_STATUS = 3
_TRANSLATED = 0x30
"""In the status: source or destination are others at the socket than on the wire."""

_PROTOCOL_STATE = 4
_TCP_STATE = 1
_TCP_FLAGS = 4
"""Of the original direction: flags, and a mask."""

_BE_LIBERAL = 8
_EMPTY, _NO_FLAGS = memoryview(b""), memoryview(b"\0")
_MARK = 8
_ZONE = 18
_MARK_MASK = 21
_FILTER = 25
_COMPARED: Mapping[int, int] = {socket.AF_INET: 1 | 2 | 8 | 16 | 32, socket.AF_INET6: 8 | 16 | 32}
"""The parts of a tuple that a filtered dump compares: addresses, protocol and ports. Asked for one address of
IPv6, kernels up to 6.18 dump all others."""

_BATCH = 500


@dataclass(frozen=True, slots=True)
class FlowTuple:
    """The ends of one direction of a session, as its packets have them before this host's NAT."""

    source: int
    source_port: int | None
    """None for protocols without ports."""

    destination: int
    destination_port: int | None


@dataclass(frozen=True, slots=True)
class TrackedSession:
    """A session that conntrack follows, as a packet meets it."""

    mark: int
    opened: Direction
    """Which way it was opened through the interface that the packet passes."""

    is_opening_seen: bool = True
    """Whether that is known; else it is the way of the first packet that conntrack met."""

    is_translated: bool = False
    """Whether this host's NAT gives it other ends: on the wire they are not those of the socket."""

    original: FlowTuple | None = None
    """Of the packet that opened it."""


def find_session(packet: Packet) -> TrackedSession | None:
    """Return the session that a packet belongs to, as :func:`find_sessions` does."""
    return find_sessions([packet])[0]


def find_sessions(packets: Sequence[Packet]) -> list[TrackedSession | None]:
    """Return the session of the calling thread's network namespace that each packet belongs to.

    The look-up uses addresses and ports as they are on the wire, before or after NAT on this host. An
    incoming packet has the tuple of a session's original direction, or that of its replies. An outgoing
    packet is looked up by the tuple of the packet that would answer it. Rules of others put packets into
    zones: where the default zone has no such session, all are searched, and one whose opening was seen is
    preferred.

    Args:
        packets: of protocols with ports; sessions of others are not found.

    Raises:
        OSError: the kernel can't be asked.
    """
    wanted = [_wanted(packet) if _has_ports(packet) else None for packet in packets]
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        found = {one: _in_default_zone(netlink, one) for one in wanted if one is not None}
        found.update(_in_any_zone(netlink, [one for one, session in found.items() if session is None]))
    return [None if one is None else found[one] for one in wanted]


def _has_ports(packet: Packet) -> bool:
    has_both = None not in (packet.source_port, packet.destination_port)
    return has_both and Protocol(packet.protocol).has_ports


class _Wanted(NamedTuple):
    """What a session is looked up by."""

    family: int
    """As a number of the socket module."""

    protocol: int
    ends: FlowTuple

    @property
    def header(self) -> bytes:
        """Return the header of a request about sessions of the family."""
        return _HEADER.pack(self.family, 0, 0)

    @property
    def encoded(self) -> bytes:
        """Return the tuple as the kernel writes it."""
        kinds, size = ((1, 2), 4) if self.family == socket.AF_INET else ((3, 4), 16)
        addresses = zip(kinds, (self.ends.source, self.ends.destination), strict=True)
        of_ip = b"".join(attribute(kind, address.to_bytes(size)) for kind, address in addresses)
        ports = ((_SOURCE_PORT, self.ends.source_port), (_DESTINATION_PORT, self.ends.destination_port))
        of_protocol = attribute(_PROTOCOL_NUMBER, bytes([self.protocol])) + b"".join(
            attribute(kind, _PORT.pack(port)) for kind, port in ports if port is not None
        )
        return attribute(_TUPLE_IP | NESTED, of_ip) + attribute(_TUPLE_PROTOCOL | NESTED, of_protocol)


_PROTOCOL_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3


def _wanted(packet: Packet) -> _Wanted:
    """Return what comes in, or would come back."""
    source, destination = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
    ends = (source, destination) if packet.direction is Direction.INGRESS else (destination, source)
    family = socket.AF_INET if packet.family is Family.IPV4 else socket.AF_INET6
    return _Wanted(family, packet.protocol, FlowTuple(*ends[0], *ends[1]))


def _in_default_zone(netlink: NetlinkSocket, wanted: _Wanted) -> TrackedSession | None:
    request = wanted.header + attribute(_TUPLE_ORIGINAL | NESTED, wanted.encoded)
    try:
        return _session(netlink.ask(_GET, request), wanted)
    except FileNotFoundError:
        return None


def _in_any_zone(netlink: NetlinkSocket, wanted: Sequence[_Wanted]) -> dict[_Wanted, TrackedSession]:
    """Return those sessions that there are in any zone; a kernel before 5.8 compares nothing for us."""
    found = dict[_Wanted, TrackedSession]()
    for request in _searches(wanted):
        for message in netlink.dump(_GET, request):
            for one in set(wanted).intersection(_keys(message)):
                session = _session(message, one)
                found[one] = max(found.get(one, session), session, key=lambda known: known.is_opening_seen)
    return found


_FEW = 4
"""Sessions that the kernel searches one by one; for more, one dump of all takes less time."""


def _searches(wanted: Sequence[_Wanted]) -> Iterator[bytes]:
    """Yield requests for dumps that hold all sessions with these tuples."""
    if len(wanted) > _FEW:
        yield _HEADER.pack(socket.AF_UNSPEC, 0, 0)
        return
    for one in wanted:
        for kind, compared in ((_TUPLE_ORIGINAL, 1), (_TUPLE_REPLY, 2)):
            parts = attribute(compared, struct.pack("=I", _COMPARED[one.family]))
            filtered = attribute(_FILTER | NESTED, parts)
            yield one.header + attribute(kind | NESTED, one.encoded) + filtered


def _keys(message: Message) -> Iterator[_Wanted]:
    """Yield what a session can be looked up by: its tuples."""
    family, found = message.payload[0], attributes(message.payload[_HEADER.size :])
    for kind in (_TUPLE_ORIGINAL, _TUPLE_REPLY):
        yield _key(family, found[kind])


def _key(family: int, of_tuple: memoryview) -> _Wanted:
    found = attributes(of_tuple)
    of_ip, of_protocol = attributes(found[_TUPLE_IP]), attributes(found[_TUPLE_PROTOCOL])
    source, destination = (of_ip[kind] for kind in ((1, 2) if family == socket.AF_INET else (3, 4)))
    ports = (of_protocol.get(kind) for kind in (_SOURCE_PORT, _DESTINATION_PORT))
    source_port, destination_port = (None if port is None else int.from_bytes(port) for port in ports)
    ends = FlowTuple(int.from_bytes(source), source_port, int.from_bytes(destination), destination_port)
    return _Wanted(family, of_protocol[_PROTOCOL_NUMBER][0], ends)


def _session(message: Message, wanted: _Wanted) -> TrackedSession:
    """Return a session as a packet with a tuple meets it."""
    found = attributes(message.payload[_HEADER.size :])
    original = _key(message.payload[0], found[_TUPLE_ORIGINAL])
    return TrackedSession(
        mark=_mark_in(found),
        opened=Direction.INGRESS if original == wanted else Direction.EGRESS,
        is_opening_seen=_is_opening_seen(found),
        is_translated=bool(_status_in(found) & _TRANSLATED),
        original=original.ends,
    )


def _status_in(found: Mapping[int, memoryview]) -> int:
    return int(_NUMBER.unpack(found[_STATUS])[0]) if _STATUS in found else 0


def _is_opening_seen(found: Mapping[int, memoryview]) -> bool:
    """Return whether conntrack met a session's first packet; else it does not check TCP's windows."""
    of_protocol = attributes(found.get(_PROTOCOL_STATE, _EMPTY))
    flags = attributes(of_protocol.get(_TCP_STATE, _EMPTY)).get(_TCP_FLAGS, _NO_FLAGS)
    return not flags[0] & _BE_LIBERAL


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
        mark = _mark_in(found)
        if mark & mask == 0 or (test is not None and not test.is_met_by(mark)):
            continue
        zone = attribute(_ZONE, bytes(found[_ZONE])) if _ZONE in found else b""
        original = attribute(_TUPLE_ORIGINAL | NESTED, bytes(found[_TUPLE_ORIGINAL]))
        yield _NEW, bytes(message.payload[: _HEADER.size]) + original + zone + cleared


def _mark_in(found: Mapping[int, memoryview]) -> int:
    return int(_NUMBER.unpack(found[_MARK])[0]) if _MARK in found else 0


def _mark_attributes(mark: int, mask: int) -> bytes:
    return attribute(_MARK, _NUMBER.pack(mark)) + attribute(_MARK_MASK, _NUMBER.pack(mask))


def _count_ended(errors: list[int]) -> int:
    """Return how many sessions ended meanwhile, if the errors say nothing else."""
    for number in errors:
        if number != errno.ENOENT:
            raise OSError(number, errno.errorcode.get(number, str(number)))
    return len(errors)
