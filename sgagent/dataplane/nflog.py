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
from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.netlink import ACK, NETLINK_NETFILTER, REQUEST, attribute, attributes

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
_SO_RCVBUFFORCE = 33
_NETLINK_ERROR = 2
_HEADER = struct.Struct("=IHHII")
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


def open_log(group: int) -> socket.socket:
    """Listen to a group in the network namespace of the calling thread, and return the socket to read.

    Args:
        group: its number.

    Raises:
        OSError: it needs CAP_NET_ADMIN; another process listens to this group; the kernel has no such log.
    """
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        opened.bind((0, 0))
        opened.settimeout(_ANSWER_SECONDS)
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        for configuration in (_bind(), _gather()):
            _order(opened, group, configuration)
        opened.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
    except OSError:
        opened.close()
        raise
    return opened


_ANSWER_SECONDS = 10.0


def _bind() -> bytes:
    return attribute(_CONFIG_COMMAND, bytes([_BIND]))


def _gather() -> bytes:
    """Return the attributes that set the bytes copied of a packet and the packets batched in a message."""
    return b"".join(
        (
            attribute(_CONFIG_MODE, struct.pack("!IBx", COPIED_BYTES, _COPY_PACKET)),
            attribute(_CONFIG_TIMEOUT, _NUMBER.pack(_GATHERING_CENTISECONDS)),
            attribute(_CONFIG_THRESHOLD, _NUMBER.pack(_GATHERED_PACKETS)),
            attribute(_CONFIG_FLAGS, struct.pack("!H", _SEQUENCE)),
        )
    )


def _order(opened: socket.socket, group: int, configuration: bytes) -> None:
    """Have the kernel do something, and wait until it has; packets that come before its word are let go."""
    payload = _OF_NETFILTER.pack(socket.AF_UNSPEC, 0, group) + configuration
    kind = _SUBSYSTEM << 8 | _CONFIGURE
    opened.send(_HEADER.pack(_HEADER.size + len(payload), kind, REQUEST | ACK, 0, 0) + payload)
    while True:
        for kind, content in _messages(opened.recv(RECEIVE_BYTES)):
            if kind == _NETLINK_ERROR:
                (negative,) = struct.unpack_from("=i", content)
                if negative:
                    raise OSError(-negative, _REASONS.get(-negative) or os.strerror(-negative))
                return


_REASONS = {
    errno.EPERM: "another program listens to it, or CAP_NET_ADMIN is lacking",
    errno.EBUSY: "another program listens to it",
}
"""What the kernel means by these when it refuses a group."""


def read_packets(received: bytes) -> Iterator[LoggedPacket]:
    """Yield the packets of a message; what has not all that it should is passed over."""
    for kind, content in _messages(received):
        if kind == _SUBSYSTEM << 8 | _PACKET:
            packet = _packet(content)
            if packet is not None:
                yield packet


def _messages(received: bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield the kinds and contents of netlink messages, as far as they are whole."""
    view, place = memoryview(received), 0
    while place + _HEADER.size <= len(view):
        length, kind, _, _, _ = _HEADER.unpack_from(view, place)
        if not _HEADER.size <= length <= len(view) - place:
            return
        yield kind, view[place + _HEADER.size : place + length]
        place += length + 3 & ~3


def _packet(content: memoryview) -> LoggedPacket | None:
    found = attributes(content[_OF_NETFILTER.size :])
    try:
        _, hook = _HOOK.unpack(found[_HEADER_OF_PACKET])
        is_leaving = hook == _POSTROUTING
        index = found.get(_OUTWARD_INDEX if is_leaving else _INWARD_INDEX)
        return LoggedPacket(
            prefix=bytes(found[_PREFIX]).rstrip(b"\0").decode("ascii", "replace"),
            is_leaving=is_leaving,
            link_index=0 if index is None else _NUMBER.unpack(index)[0],
            sequence=_NUMBER.unpack(found[_SEQUENCE_NUMBER])[0],
            head=bytes(found[_PAYLOAD])[:COPIED_BYTES],
        )
    except (KeyError, struct.error):
        return None
