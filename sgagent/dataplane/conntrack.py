"""The sessions that conntrack follows: find one, and clear our bits in their marks."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sgagent.core.errors import KernelRefusedError, NotPermittedError
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Protocol
from sgagent.core.tracked_sessions import FlowTuple
from sgagent.dataplane import conntrack_messages as messages
from sgagent.dataplane.conntrack_messages import ConntrackTuple, found_in, number_in, tuple_in
from sgagent.netlink import NESTED, NETLINK_NETFILTER, Message, NetlinkSocket, attribute, attributes
from sgagent.nft.marks import MarkTest

_COMPARED: Mapping[int, int] = {socket.AF_INET: 1 | 2 | 8 | 16 | 32, socket.AF_INET6: 8 | 16 | 32}
"""The parts of a tuple that a filtered dump compares: addresses, protocol and ports. Asked for one address of
IPv6, kernels up to 6.18 dump all others."""


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

    original_zone: int = 0
    reply_zone: int = 0


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


def _wanted(packet: Packet) -> ConntrackTuple:
    """Return the tuple of the packet that comes in, or of the one that would come back."""
    source, destination = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
    ends = (source, destination) if packet.direction is Direction.INGRESS else (destination, source)
    family = messages.family_number(packet.family)
    return ConntrackTuple(family, packet.protocol, FlowTuple(*ends[0], *ends[1]))


def _in_default_zone(netlink: NetlinkSocket, wanted: ConntrackTuple) -> TrackedSession | None:
    request = wanted.header + attribute(messages.TUPLE_ORIGINAL | NESTED, wanted.encoded())
    try:
        return _session(netlink.ask(messages.GET, request), wanted)
    except FileNotFoundError:
        return None


def _in_any_zone(
    netlink: NetlinkSocket, wanted: Sequence[ConntrackTuple]
) -> dict[ConntrackTuple, TrackedSession]:
    """Return those sessions that there are in any zone; a kernel before 5.8 compares nothing for us."""
    found = dict[ConntrackTuple, TrackedSession]()
    for request in _searches(wanted):
        for message in netlink.dump(messages.GET, request):
            for one in set(wanted).intersection(_keys(message)):
                session = _session(message, one)
                found[one] = max(found.get(one, session), session, key=lambda known: known.is_opening_seen)
    return found


_FEW = 4
"""Sessions that the kernel searches one by one; for more, one dump of all takes less time."""


def _searches(wanted: Sequence[ConntrackTuple]) -> Iterator[bytes]:
    """Yield requests for dumps that hold all sessions with these tuples."""
    if len(wanted) > _FEW:
        yield messages.HEADER.pack(socket.AF_UNSPEC, 0, 0)
        return
    for one in wanted:
        for kind, compared in ((messages.TUPLE_ORIGINAL, 1), (messages.TUPLE_REPLY, 2)):
            parts = attribute(compared, struct.pack("=I", _COMPARED[one.family]))
            filtered = attribute(messages.FILTER | NESTED, parts)
            yield one.header + attribute(kind | NESTED, one.encoded()) + filtered


def _keys(message: Message) -> Iterator[ConntrackTuple]:
    """Yield the keys of a session's look-up: its tuples."""
    found = found_in(message)
    for kind in (messages.TUPLE_ORIGINAL, messages.TUPLE_REPLY):
        yield tuple_in(message, found[kind])


def _session(message: Message, wanted: ConntrackTuple) -> TrackedSession:
    """Return a session as a packet with a tuple meets it."""
    found = found_in(message)
    original = tuple_in(message, found[messages.TUPLE_ORIGINAL])
    return TrackedSession(
        mark=number_in(found, messages.MARK),
        opened=Direction.INGRESS if original == wanted else Direction.EGRESS,
        is_opening_seen=_is_opening_seen(found),
        is_translated=bool(number_in(found, messages.STATUS) & messages.TRANSLATED),
        original=original.ends,
        original_zone=messages.zone_in(found, messages.TUPLE_ORIGINAL),
        reply_zone=messages.zone_in(found, messages.TUPLE_REPLY),
    )


def _is_opening_seen(found: Mapping[int, memoryview]) -> bool:
    """Return whether conntrack met a session's first packet; else it does not check TCP's windows."""
    of_protocol = attributes(found.get(messages.PROTOCOL_STATE, _EMPTY))
    of_tcp = attributes(of_protocol.get(messages.TCP_STATE_PART, _EMPTY))
    return not of_tcp.get(messages.TCP_FLAGS_ORIGINAL, _NO_FLAGS)[0] & messages.BE_LIBERAL


_EMPTY, _NO_FLAGS = memoryview(b""), memoryview(b"\0")


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
                changed += len(orders) - _count_ended(netlink.order(orders))
    except PermissionError as error:
        raise NotPermittedError("the marks of sessions can be changed only with CAP_NET_ADMIN") from error
    except OSError as error:
        raise KernelRefusedError(error.strerror or str(error), "marks of sessions") from error
    return changed


def _orders(netlink: NetlinkSocket, mask: int, test: MarkTest | None) -> Iterator[tuple[int, bytes]]:
    """Yield a request for each session with bits to clear: its tuple as the kernel wrote it, and no mark."""
    wanted = b"" if test is None else messages.mark_attributes(test.value, test.bits)
    cleared = messages.mark_attributes(0, mask)
    for message in netlink.dump(messages.GET, messages.HEADER.pack(socket.AF_UNSPEC, 0, 0) + wanted):
        found = found_in(message)
        mark = number_in(found, messages.MARK)
        if mark & mask == 0 or (test is not None and not test.is_met_by(mark)):
            continue
        zone = attribute(messages.ZONE, bytes(found[messages.ZONE])) if messages.ZONE in found else b""
        original = attribute(messages.TUPLE_ORIGINAL | NESTED, bytes(found[messages.TUPLE_ORIGINAL]))
        yield messages.NEW, bytes(message.payload[: messages.HEADER.size]) + original + zone + cleared


def _count_ended(errors: list[int]) -> int:
    """Return how many sessions ended meanwhile, if the errors say nothing else."""
    for number in errors:
        if number != errno.ENOENT:
            raise OSError(number, errno.errorcode.get(number, str(number)))
    return len(errors)
