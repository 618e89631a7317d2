"""This host's TCP sockets, and the end of sessions that the policy forbids (§6.3).

This covers sessions that conntrack did not follow when the agent started. Conntrack can't know who opened
them, but a local port with a listener shows that the far end did.
"""

from __future__ import annotations

import enum
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.core.binding import HostListener
from sgagent.core.errors import NotPermittedError
from sgagent.core.model import Family
from sgagent.netlink import NETLINK_SOCK_DIAG, NetlinkSocket

_DIAGNOSE_BY_FAMILY = 20
_DESTROY = 21
_ESTABLISHED = 1
LISTEN = 10
CLOSE = 7
_TIME_WAIT = 6
_LIVE = sum(1 << state for state in range(1, 12) if state not in (LISTEN, CLOSE, _TIME_WAIT))
_REQUEST = struct.Struct("=BBBxI48s")
_ENDS = struct.Struct(">HH16s16s")
_ANSWER = struct.Struct("=B3x48s12xII")
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
    user_id: int
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
    return _ending(errors[0]) if errors else Ending.ENDED


def _ending(error: int) -> Ending:
    match error:
        case errno.ENOENT:
            return Ending.GONE
        case errno.EOPNOTSUPP | errno.EINVAL:
            return Ending.UNSUPPORTED
        case errno.EPERM:
            raise NotPermittedError("sessions can be ended only with CAP_NET_ADMIN")
        case _:
            raise OSError(error, os.strerror(error))


def list_in_states(
    netlink: NetlinkSocket, states: int, protocol: int = socket.IPPROTO_TCP
) -> Iterator[TcpSession]:
    """Yield the sockets of both families, TCP's unless said, that are in one of the states."""
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _REQUEST.pack(family, protocol, 0, states, bytes(48))
        for message in netlink.dump(_DIAGNOSE_BY_FAMILY, request):
            yield _session(*_ANSWER.unpack_from(message.payload))


def _session(socket_family: int, identity: bytes, user_id: int, inode: int) -> TcpSession:
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
        user_id=user_id,
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
                if one.local_port and not is_client and not _is_loopback(one.family, one.local_address):
                    found.add(
                        HostListener(
                            family=one.family,
                            address=one.local_address,
                            protocol=protocol,
                            port=one.local_port,
                        )
                    )
    return tuple(sorted(found, key=lambda one: (one.protocol, one.port, one.family.bits, one.address)))


def _is_loopback(family: Family, address: int) -> bool:
    kind = ipaddress.IPv4Address if family is Family.IPV4 else ipaddress.IPv6Address
    return kind(address).is_loopback
