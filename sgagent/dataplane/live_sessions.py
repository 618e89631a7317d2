"""This host's TCP sockets, and its listeners.

The sockets show sessions that conntrack did not follow when the agent started, and end those that the policy
forbids (§6.3). Conntrack can't know who opened them, but a listener at the local end shows that the far end
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
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from sgagent.core.binding import HostListener
from sgagent.core.errors import NotPermittedError
from sgagent.core.model import Family, address_text
from sgagent.core.policy import LINK_LOCAL
from sgagent.dataplane.routes import Routes
from sgagent.netlink import NETLINK_SOCK_DIAG, NetlinkSocket, attributes

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
    inode: int
    socket_family: int
    """The family of the socket itself, as a number of the socket module."""

    identity: bytes
    """The kernel's identity of the socket: 48 bytes."""

    user: int = 0
    """Who made or accepted it; root's as long as nobody has accepted it, when the inode is 0, too."""

    group: int | None = None
    """The kernel's identity of the control group in which it was made; None where that was not asked."""

    @property
    def link(self) -> int:
        """Return the number of the link that the socket is bound to; 0 for none."""
        return int.from_bytes(self.identity[_LINK], sys.byteorder)

    def accepts(self, session: TcpSession) -> bool:
        """Return whether this listener could have accepted a session: at its address, on its link.

        And by its user, unless that is root, who may let others accept: anybody may listen at the port of a
        session that has ``SO_REUSEADDR``.
        """
        is_everywhere = self.local_address == 0 and self.family in (session.family, Family.IPV6)
        is_there = (self.family, self.local_address) == (session.family, session.local_address)
        is_same_user = self.user in (0, session.user) or session.inode == 0
        return (
            (is_everywhere or is_there)
            and is_same_user
            and self.local_port == session.local_port
            and self.socket_family == session.socket_family
            and self.link in (0, session.link)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSockets:
    """The TCP sockets of this host at one moment."""

    listeners: tuple[TcpSession, ...]
    """Without a peer."""

    sessions: tuple[TcpSession, ...]
    """Live connections, opened by either end."""

    @property
    def at_listeners(self) -> tuple[TcpSession, ...]:
        """Return the sessions that a listener could have accepted, so that the far end opened them."""
        at_port = dict[int, list[TcpSession]]()
        for listener in self.listeners:
            at_port.setdefault(listener.local_port, []).append(listener)
        return tuple(
            session
            for session in self.sessions
            if any(listener.accepts(session) for listener in at_port.get(session.local_port, ()))
        )


class Ending(enum.Enum):
    """The result of the attempt to end a session."""

    ENDED = "ended"
    GONE = "gone"
    """It had ended already."""

    SUBFLOW_ENDED = "subflow ended"
    """A TCP connection of an MPTCP socket has ended. The kernel closes the socket, which nobody else can end,
    at both ends when it has had none for ``net.mptcp.close_timeout`` seconds."""

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
    """Return the live TCP sessions that a listener could have accepted.

    Of the calling thread's network namespace, loopback included.

    Raises:
        OSError: the kernel can't tell.
    """
    return list_sockets().at_listeners


def link_towards(session: TcpSession, routes: Routes | None = None) -> int | None:
    """Return the number of the link by which this host's packets of a session leave; None if nobody can tell.

    A link-local address may be on several links; its socket knows the one.
    """
    ends = session.local_address, session.peer_address
    if session.family is Family.IPV6 and any(LINK_LOCAL[0] <= end <= LINK_LOCAL[1] for end in ends):
        return session.link or None
    ways = session.family, session.peer_address, session.local_address
    if routes is not None:
        return routes.link_towards(*ways)
    with closing(Routes()) as own:
        return own.link_towards(*ways)


def destroy(session: TcpSession) -> Ending:
    """End a session at once: the process sees an error, the far end a reset.

    Raises:
        NotPermittedError: the process lacks CAP_NET_ADMIN.
        OSError: the kernel refused for another reason.
    """
    return destroy_socket(session.socket_family, session.identity)


def destroy_socket(socket_family: int, identity: bytes) -> Ending:
    """End the session of a socket at once, as :func:`destroy`."""
    request = _REQUEST.pack(socket_family, socket.IPPROTO_TCP, _WITH_UPPER_LAYER, _LIVE, identity)
    with NetlinkSocket(NETLINK_SOCK_DIAG) as netlink:
        is_subflow = _is_subflow(netlink, request)
        errors = netlink.order([(_DESTROY, request)])
    match next(iter(errors), 0):
        case 0:
            return Ending.SUBFLOW_ENDED if is_subflow else Ending.ENDED
        case errno.ENOENT:
            return Ending.GONE
        case errno.EOPNOTSUPP | errno.EINVAL:
            return Ending.UNSUPPORTED
        case errno.EPERM:
            raise NotPermittedError("sessions can be ended only with CAP_NET_ADMIN")
        case error:
            raise OSError(error, os.strerror(error))


def find_socket(socket_family: int, identity: bytes) -> TcpSession | None:
    """Return an established session by the kernel's identity of its socket; None if there is none.

    Raises:
        OSError: the kernel can't tell.
    """
    request = _REQUEST.pack(socket_family, socket.IPPROTO_TCP, 0, _LIVE, identity)
    try:
        with NetlinkSocket(NETLINK_SOCK_DIAG) as netlink:
            answer = netlink.ask(_DIAGNOSE_BY_FAMILY, request)
    except FileNotFoundError:
        return None
    is_there = answer.payload[1] in _WITH_BOTH_ENDS
    return _session(*_ANSWER.unpack_from(answer.payload)) if is_there else None


_WITH_BOTH_ENDS = (1, 8)
"""Established, or closed by the far end alone."""


def _is_subflow(netlink: NetlinkSocket, request: bytes) -> bool:
    """Return whether a socket is a connection of an MPTCP socket; False where there is no such socket."""
    try:
        answer = netlink.ask(_DIAGNOSE_BY_FAMILY, request)
    except OSError:
        return False
    upper = attributes(answer.payload[_ANSWER_BYTES:]).get(_UPPER_LAYER, memoryview(b""))
    return bytes(attributes(upper).get(_NAME, b"")).rstrip(b"\0") == b"mptcp"


_WITH_UPPER_LAYER = 1 << 1
"""An extension of the request: what the kernel knows of TCP, that of the layer above included."""

_ANSWER_BYTES = 72
_UPPER_LAYER, _NAME = 19, 1


def list_in_states(
    netlink: NetlinkSocket, states: int, protocol: int = socket.IPPROTO_TCP, *, with_groups: bool = False
) -> Iterator[TcpSession]:
    """Yield the sockets of both families, TCP's unless said, that are in one of the states."""
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _REQUEST.pack(family, protocol, 0, states, bytes(48))
        for message in netlink.dump(_DIAGNOSE_BY_FAMILY, request):
            one = _session(*_ANSWER.unpack_from(message.payload))
            yield replace(one, group=_group(message.payload)) if with_groups else one


def _group(payload: memoryview) -> int | None:
    """Return the identity of a socket's control group; kernels before 5.9 do not tell."""
    found = attributes(payload[_ANSWER_BYTES:]).get(_CONTROL_GROUP)
    return None if found is None else int.from_bytes(found, sys.byteorder)


_CONTROL_GROUP = 21


def _session(socket_family: int, identity: bytes, user: int, inode: int) -> TcpSession:
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
        user=user,
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


def users_listening(port: int) -> Iterator[tuple[str, int, int]]:
    """Yield address, user and inode of each socket that waits at a TCP port, of the calling thread's network.

    Raises:
        OSError: the kernel can't tell.
    """
    with NetlinkSocket(NETLINK_SOCK_DIAG) as netlink:
        for found in list_in_states(netlink, 1 << LISTEN):
            if found.local_port == port:
                yield address_text(found.family, found.local_address), found.user, found.inode
