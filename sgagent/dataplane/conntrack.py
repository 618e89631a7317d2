"""Clear our bits in the marks of the sessions that the kernel follows."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from sgagent.core.errors import KernelRefusedError, NotPermittedError
from sgagent.dataplane.netlink import (
    NESTED,
    NETLINK_NETFILTER,
    NetlinkSocket,
    attribute,
    attributes,
)

_SUBSYSTEM_CONNTRACK = 1 << 8
_NEW = _SUBSYSTEM_CONNTRACK | 0
_GET = _SUBSYSTEM_CONNTRACK | 1
_HEADER = struct.Struct("=BBH")
_NUMBER = struct.Struct(">I")
_TUPLE_ORIGINAL = 1
_MARK = 8
_ZONE = 18
_MARK_MASK = 21
_BATCH = 500


def clear_marks(mask: int, value: int | None = None) -> int:
    """Clear bits in the mark of every session of the calling thread's network namespace.

    Sessions that end meanwhile are none of our business; other bits of the marks stay.

    Args:
        mask: the bits to clear.
        value: only for sessions with ``mark & mask == value``; None: whatever they have.

    Returns:
        How many sessions were changed.

    Raises:
        NotPermittedError: the process lacks CAP_NET_ADMIN.
        KernelRefusedError: a session's mark could not be changed.
    """
    changed = 0
    try:
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            orders = list(_orders(netlink, mask, value))
            for start in range(0, len(orders), _BATCH):
                batch = orders[start : start + _BATCH]
                changed += len(batch) - _count_ended(netlink.order(batch))
    except PermissionError as error:
        raise NotPermittedError("the marks of sessions can be changed only with CAP_NET_ADMIN") from error
    except OSError as error:
        raise KernelRefusedError(error.strerror or str(error), "marks of sessions") from error
    return changed


def _orders(netlink: NetlinkSocket, mask: int, value: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield a request for each session with bits to clear: its tuple as the kernel wrote it, and no mark.

    The kernel sets ``mark = (mark & ~CTA_MARK_MASK) ^ CTA_MARK``.
    """
    wanted = b"" if value is None else _mark_attributes(value, mask)
    cleared = _mark_attributes(0, mask)
    for message in netlink.dump(_GET, _HEADER.pack(socket.AF_UNSPEC, 0, 0) + wanted):
        found = attributes(message.payload[_HEADER.size :])
        mark = _NUMBER.unpack(found[_MARK])[0] if _MARK in found else 0
        if mark & mask == 0 or (value is not None and mark & mask != value):
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
