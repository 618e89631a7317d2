"""Live sessions: those that conntrack follows, with our bits in their marks, and this host's TCP sockets.

The sockets show sessions that conntrack did not follow when the agent started, and end those that the policy
forbids (§6.3). Conntrack can't know who opened them, but a local port with a listener shows that the far end
did.
"""

from __future__ import annotations

import enum
import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sgagent.core.binding import HostListener
from sgagent.core.errors import KernelRefusedError, NotPermittedError
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family, Protocol
from sgagent.core.policy import LINK_LOCAL
from sgagent.netlink import (
    NESTED,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NETLINK_SOCK_DIAG,
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
_STATUS = 3
_TRANSLATED = 0x30
"""In the status: source or destination are others at the socket than on the wire."""

_PROTOCOL_STATE = 4
_TCP_STATE = 1
_TCP_FLAGS = 4
"""Of the original direction: flags, and a mask."""

_BE_LIBERAL = 8
_EMPTY, _NO_FLAGS, _NO_STATUS = memoryview(b""), memoryview(b"\0"), memoryview(bytes(4))
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

    is_opening_seen: bool = True
    """Whether that is known; else it is the way of the first packet that conntrack met."""

    is_translated: bool = False
    """Whether this host's NAT gives it other ends: on the wire they are not those of the socket."""


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
    ports = packet.source_port, packet.destination_port
    if None in ports or not Protocol(packet.protocol).has_ports:
        return None
    incoming = _tuple_of(packet)
    family = socket.AF_INET if packet.family is Family.IPV4 else socket.AF_INET6
    request = _HEADER.pack(family, 0, 0) + attribute(_TUPLE_ORIGINAL | NESTED, incoming)
    try:
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            answer = netlink.ask(_GET, request)
    except FileNotFoundError:
        return None
    found = attributes(answer.payload[_HEADER.size :])
    is_original = _parts(found[_TUPLE_ORIGINAL]) == _parts(memoryview(incoming))
    opened = Direction.INGRESS if is_original else Direction.EGRESS
    is_translated = bool(_NUMBER.unpack(found.get(_STATUS, _NO_STATUS))[0] & _TRANSLATED)
    return TrackedSession(_mark_in(found), opened, _is_opening_seen(found), is_translated)


def _tuple_of(packet: Packet) -> bytes:
    """Return what comes in, or would come back, as the kernel writes it."""
    source, destination = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
    ends = (source, destination) if packet.direction is Direction.INGRESS else (destination, source)
    kinds, size = ((1, 2), 4) if packet.family is Family.IPV4 else ((3, 4), 16)
    addresses = [attribute(kind, end[0].to_bytes(size)) for kind, end in zip(kinds, ends, strict=True)]
    ports = [attribute(kind, _PORT.pack(end[1])) for kind, end in zip((2, 3), ends, strict=True)]
    protocol = attribute(1, bytes([packet.protocol])) + b"".join(ports)
    of_ip = attribute(_TUPLE_IP | NESTED, b"".join(addresses))
    return of_ip + attribute(_TUPLE_PROTOCOL | NESTED, protocol)


def _parts(of_tuple: memoryview) -> tuple[dict[int, bytes], ...]:
    """Return the addresses and the ports of a tuple, by kind of attribute."""
    found = attributes(of_tuple)
    parts = (attributes(found[part]) for part in (_TUPLE_IP, _TUPLE_PROTOCOL))
    return tuple({kind: bytes(value) for kind, value in part.items()} for part in parts)


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


_DIAGNOSE_BY_FAMILY = 20
_DESTROY = 21
LISTEN = 10
CLOSE = 7
_TIME_WAIT = 6
_LIVE = sum(1 << state for state in range(1, 12) if state not in (LISTEN, CLOSE, _TIME_WAIT))
_REQUEST = struct.Struct("=BBBxI48s")
_ENDS = struct.Struct(">HH16s16s")
_LINK = slice(_ENDS.size, _ENDS.size + 4)
"""In the identity: the number of the link that the socket is bound to; 0 for none."""

_ANSWER = struct.Struct("=B3x48s16xI")
_MAPPED = bytes(10) + b"\xff\xff"
"""How an IPv6 socket writes an IPv4 address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSession:
    """A TCP socket of this host, and the session that it stands for."""

    family: Family
    """Of the addresses on the wire: a session over IPv4 at an IPv6 listener is IPv4."""

    local_address: int
    local_port: int
    peer_address: int
    peer_port: int
    inode: int
    socket_family: int
    """The family of the socket itself, as a number of the socket module."""

    identity: bytes
    """What the kernel knows the socket by: 48 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSockets:
    """The TCP sockets of this host at one moment."""

    listeners: tuple[TcpSession, ...]
    """Without a peer."""

    sessions: tuple[TcpSession, ...]
    """Live connections, opened by either end."""

    @property
    def at_listeners(self) -> tuple[TcpSession, ...]:
        """Return the sessions whose local port has a listener, so that the far end opened them."""
        ports = {listener.local_port for listener in self.listeners}
        return tuple(session for session in self.sessions if session.local_port in ports)


class Ending(enum.Enum):
    """What came of the wish to end a session."""

    ENDED = "ended"
    GONE = "gone"
    """It had ended already."""

    UNSUPPORTED = "unsupported"
    """This kernel can't end sockets."""


def list_sockets() -> TcpSockets:
    """Return the TCP sockets of the calling thread's network namespace, loopback included.

    Raises:
        OSError: the kernel can't tell.
    """
    with NetlinkSocket(NETLINK_SOCK_DIAG) as netlink:
        listeners = tuple(list_in_states(netlink, 1 << LISTEN))
        return TcpSockets(listeners=listeners, sessions=tuple(list_in_states(netlink, _LIVE)))


def sessions_at_listeners() -> tuple[TcpSession, ...]:
    """Return the live TCP sessions whose local port has a listener.

    Of the calling thread's network namespace, loopback included.

    Raises:
        OSError: the kernel can't tell.
    """
    return list_sockets().at_listeners


def link_towards(session: TcpSession) -> int | None:
    """Return the number of the link by which this host's packets of a session leave; None if nobody can tell.

    A link-local address may be on several links; its socket knows the one.
    """
    ends, size = (session.peer_address, session.local_address), session.family.bits // 8
    if session.family is Family.IPV6 and any(LINK_LOCAL[0] <= end <= LINK_LOCAL[1] for end in ends):
        return int.from_bytes(session.identity[_LINK], sys.byteorder) or None
    family = socket.AF_INET if session.family is Family.IPV4 else socket.AF_INET6
    wanted = (attribute(kind, end.to_bytes(size)) for kind, end in enumerate(ends, start=_ROUTE_DESTINATION))
    request = _ROUTE.pack(family, 8 * size, 8 * size) + b"".join(wanted)
    try:
        with NetlinkSocket(NETLINK_ROUTE) as netlink:
            found = attributes(netlink.ask(_GET_ROUTE, request).payload[_ROUTE.size :])
    except OSError:
        return None
    return int.from_bytes(found[_ROUTE_LINK], sys.byteorder) if _ROUTE_LINK in found else None


_GET_ROUTE = 26
_ROUTE = struct.Struct("=BBB9x")
_ROUTE_DESTINATION, _ROUTE_LINK = 1, 4


def destroy(session: TcpSession) -> Ending:
    """End a session at once: the process sees an error, the far end a reset.

    Raises:
        NotPermittedError: the process lacks CAP_NET_ADMIN.
        OSError: the kernel refused for another reason.
    """
    return destroy_socket(session.socket_family, session.identity)


def destroy_socket(socket_family: int, identity: bytes) -> Ending:
    """End the session of a socket at once, as :func:`destroy`."""
    request = _REQUEST.pack(socket_family, socket.IPPROTO_TCP, 0, _LIVE, identity)
    with NetlinkSocket(NETLINK_SOCK_DIAG) as netlink:
        errors = netlink.order([(_DESTROY, request)])
    match next(iter(errors), 0):
        case 0:
            return Ending.ENDED
        case errno.ENOENT:
            return Ending.GONE
        case errno.EOPNOTSUPP | errno.EINVAL:
            return Ending.UNSUPPORTED
        case errno.EPERM:
            raise NotPermittedError("sessions can be ended only with CAP_NET_ADMIN")
        case error:
            raise OSError(error, os.strerror(error))


def list_in_states(
    netlink: NetlinkSocket, states: int, protocol: int = socket.IPPROTO_TCP
) -> Iterator[TcpSession]:
    """Yield the sockets of both families, TCP's unless said, that are in one of the states."""
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _REQUEST.pack(family, protocol, 0, states, bytes(48))
        for message in netlink.dump(_DIAGNOSE_BY_FAMILY, request):
            yield _session(*_ANSWER.unpack_from(message.payload))


def _session(socket_family: int, identity: bytes, inode: int) -> TcpSession:
    local_port, peer_port, local, peer = _ENDS.unpack_from(identity)
    is_ipv4 = socket_family == socket.AF_INET
    if is_ipv4:
        local, peer = local[:4], peer[:4]
    elif local.startswith(_MAPPED):
        is_ipv4, local, peer = True, local[12:], peer[12:]
    return TcpSession(
        family=Family.IPV4 if is_ipv4 else Family.IPV6,
        local_address=int.from_bytes(local),
        local_port=local_port,
        peer_address=int.from_bytes(peer),
        peer_port=peer_port,
        inode=inode,
        socket_family=socket_family,
        identity=identity,
    )


_FIRST_EPHEMERAL = 32_768
"""UDP has no listening: a socket without a peer at such a port is most often that of a client."""


def list_listeners() -> tuple[HostListener, ...]:
    """Return the TCP and UDP ports at which a program waits, but for those at loopback; sorted.

    Of the calling thread's network namespace.

    Raises:
        OSError: the kernel can't tell.
    """
    found: set[HostListener] = set()
    with NetlinkSocket(NETLINK_SOCK_DIAG) as netlink:
        for protocol, state in ((socket.IPPROTO_TCP, LISTEN), (socket.IPPROTO_UDP, CLOSE)):
            for one in list_in_states(netlink, 1 << state, protocol):
                is_client = protocol == socket.IPPROTO_UDP and one.local_port >= _FIRST_EPHEMERAL
                kind = ipaddress.IPv4Address if one.family is Family.IPV4 else ipaddress.IPv6Address
                if one.local_port and not is_client and not kind(one.local_address).is_loopback:
                    ends = {"address": one.local_address, "port": one.local_port}
                    found.add(HostListener(family=one.family, protocol=protocol, **ends))
    return tuple(sorted(found, key=lambda one: (one.protocol, one.port, one.family.bits, one.address)))
