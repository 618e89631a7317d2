"""The kernel's packet log: bind to a group, and parse its messages.

Binding needs CAP_NET_ADMIN, so the applier opens the socket. Reading does not: the applier passes the socket
to the agent, which alone parses bytes of packets. The agent can't rebind the socket, since the kernel checks
the privilege of the sender of each request.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sgagent.netlink import NETLINK_NETFILTER, NetlinkSocket, attribute, attributes, messages_in

COPIED_BYTES = 64
"""Of each packet: the longest header of IPv4 and the ports behind it, or that of IPv6 with a few extensions.
No more, since what follows is what people say to each other."""

RECEIVE_BYTES = 1 << 16
"""Of one reading; the kernel gathers packets into messages of a few kilobytes."""

LAST_GROUP = (1 << 16) - 1

_GATHERED_PACKETS = 32
_GATHERING_CENTISECONDS = 10
_BUFFER_BYTES = 1 << 20
"""What waits to be read, at most; beyond, the kernel drops copies, and the sequence numbers tell."""

_SUBSYSTEM = 4
_PACKET, _CONFIGURE = 0, 1
_BIND = 1
_COPY_PACKET = 2
_SEQUENCE = 1
_CONFIG_COMMAND, _CONFIG_MODE, _CONFIG_TIMEOUT, _CONFIG_THRESHOLD, _CONFIG_FLAGS = 1, 2, 4, 5, 6
_HEADER_OF_PACKET, _INWARD_INDEX, _OUTWARD_INDEX, _PAYLOAD, _PREFIX, _SEQUENCE_NUMBER = 1, 4, 5, 9, 10, 12
_USER = 11
_OF_NETFILTER = struct.Struct("!BBH")
_HOOK = struct.Struct("!HBx")
_NUMBER = struct.Struct("!I")
_POSTROUTING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedPacket:
    """A packet that the kernel logged."""

    prefix: str
    """The prefix of the log statement; characters outside ASCII are replaced."""

    is_leaving: bool
    """True if the packet was leaving the host (postrouting), False if it had just arrived (prerouting)."""

    link_index: int
    """The index of the link that it arrives or leaves by; 0 if the kernel does not name it."""

    sequence: int
    """Number of the message since the socket was bound, modulo 2³²; a gap shows lost messages."""

    head: bytes
    """At most :data:`COPIED_BYTES`, from the IP header on."""

    user: int | None = None
    """Who made the socket of this host that sent it; None without one."""


def open_log(group: int) -> socket.socket:
    """Listen to a group in the network namespace of the calling thread, and return the socket to read.

    Args:
        group: its number.

    Raises:
        OSError: it needs CAP_NET_ADMIN; another process listens to this group; the kernel has no such log.
    """
    with contextlib.ExitStack() as on_failure:
        netlink = on_failure.enter_context(NetlinkSocket(NETLINK_NETFILTER))
        netlink.enlarge_buffer(_BUFFER_BYTES)
        for configuration in (_BIND_GROUP, _GATHER):
            payload = _OF_NETFILTER.pack(socket.AF_UNSPEC, 0, group) + configuration
            for number in netlink.order([(_SUBSYSTEM << 8 | _CONFIGURE, payload)]):
                raise OSError(number, _REASONS.get(number) or os.strerror(number))
        netlink.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
        on_failure.pop_all()
    return netlink


_BIND_GROUP = attribute(_CONFIG_COMMAND, bytes([_BIND]))
_GATHER = (
    attribute(_CONFIG_MODE, struct.pack("!IBx", COPIED_BYTES, _COPY_PACKET))
    + attribute(_CONFIG_TIMEOUT, _NUMBER.pack(_GATHERING_CENTISECONDS))
    + attribute(_CONFIG_THRESHOLD, _NUMBER.pack(_GATHERED_PACKETS))
    + attribute(_CONFIG_FLAGS, struct.pack("!H", _SEQUENCE))
)
"""How many bytes the kernel copies of a packet, and how many packets it gathers in a message."""

_REASONS = {
    errno.EPERM: "another program listens to it, or CAP_NET_ADMIN is lacking",
    errno.EBUSY: "another program listens to it",
}
"""What the kernel means by these when it refuses a group."""


def read_packets(received: bytes) -> Iterator[LoggedPacket]:
    """Yield the packets of a message; incomplete ones are passed over."""
    for message in messages_in(received):
        if message.kind == _SUBSYSTEM << 8 | _PACKET:
            with contextlib.suppress(KeyError, struct.error):
                yield _packet(attributes(message.payload[_OF_NETFILTER.size :]))


def _packet(found: Mapping[int, memoryview]) -> LoggedPacket:
    _, hook = _HOOK.unpack(found[_HEADER_OF_PACKET])
    is_leaving = hook == _POSTROUTING
    index = found.get(_OUTWARD_INDEX if is_leaving else _INWARD_INDEX)
    return LoggedPacket(
        prefix=bytes(found[_PREFIX]).rstrip(b"\0").decode("ascii", "replace"),
        is_leaving=is_leaving,
        link_index=0 if index is None else _NUMBER.unpack(index)[0],
        sequence=_NUMBER.unpack(found[_SEQUENCE_NUMBER])[0],
        head=bytes(found[_PAYLOAD])[:COPIED_BYTES],
        user=_NUMBER.unpack(found[_USER])[0] if _USER in found else None,
    )
