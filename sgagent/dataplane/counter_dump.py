"""Have the kernel tell of the table's named counters.

libnftables would write JSON about each, and that would be read again: four times the work, each second, for a
policy of ten thousand rules. What the kernel tells is not even looked at here, beside the privilege.
"""

from __future__ import annotations

import errno
import struct

from sgagent.netlink import NetlinkSocket, attribute
from sgagent.nft.ruleset import TABLE

_GET_OBJECT = 10 << 8 | 19
_HEADER = struct.pack("=BBH", 1, 0, 0)
"""Of family inet."""

_TABLE, _TYPE = 1, 3
_COUNTER = struct.pack(">I", 1)
_REQUEST = _HEADER + attribute(_TABLE, TABLE.encode() + b"\0") + attribute(_TYPE, _COUNTER)

_ATTEMPTS = 100
"""Readings while somebody else keeps changing the ruleset: of two states no sum can be made."""


def list_counters(netlink: NetlinkSocket) -> bytes:
    """Return what the kernel tells of the counters of our table, unread; nothing where there is no table.

    Raises:
        OSError: the kernel tells nothing; EINTR where somebody keeps changing the ruleset.
    """
    for _ in range(_ATTEMPTS):
        answers = netlink.dump_unread(_GET_OBJECT, _REQUEST)
        if not netlink.was_interrupted:
            return answers
    raise OSError(errno.EINTR, "somebody keeps changing the ruleset")
