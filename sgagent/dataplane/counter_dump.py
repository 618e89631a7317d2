"""Dump the table's named counters from the kernel, unparsed.

The privileged process does not parse the dump; :mod:`sgagent.dataplane.counters` does, without privilege.
libnftables would print and parse JSON for each counter: four times the work, each second, for a policy of
ten thousand rules.
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
"""Dumps until giving up. A dump that a change of the ruleset interrupts mixes two states."""


def list_counters(netlink: NetlinkSocket) -> bytes:
    """Return the kernel's netlink messages about the counters of our table; empty if there is no table.

    Raises:
        OSError: the dump failed; EINTR if another process keeps changing the ruleset.
    """
    for _ in range(_ATTEMPTS):
        answers = netlink.dump_unread(_GET_OBJECT, _REQUEST)
        if not netlink.was_interrupted:
            return answers
    raise OSError(errno.EINTR, "another process keeps changing the ruleset")
