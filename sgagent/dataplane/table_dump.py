"""Dumps of nftables' tables: the kernel's netlink messages about them, as they come.

A dump takes several requests. It is of one state of the ruleset if the ruleset's generation is the same
before and after. Where other processes keep changing tables of their own, that never happens. Then it is of
one state if the next dump is equal: what was read first had not changed yet when the rest was read.
"""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass

from sgagent.netlink import NETLINK_NETFILTER, NetlinkSocket, attribute, attributes, payloads_in
from sgagent.nft.ruleset import TABLE

_SUBSYSTEM = 10 << 8
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS, _GET_OBJECT, _GET_FLOWTABLE = (
    _SUBSYSTEM | number for number in (1, 4, 7, 10, 13, 19, 23)
)
_NEW_SET = _SUBSYSTEM | 9
_HEADER = struct.Struct("=BBH")
_INET = 1
_TABLE, _SET = 1, 2


@dataclass(frozen=True, slots=True)
class TableDump:
    """All messages about one table or all of them."""

    program: bytes
    """About what decides about packets."""

    objects: bytes
    """About stateful objects, whose values change with each packet, and flow tables."""

    @property
    def messages(self) -> bytes:
        """Return all messages, for :mod:`sgagent.nft.kernel_table`."""
        return self.program + self.objects


def dump_table(asked: NetlinkSocket) -> TableDump:
    """Return all messages about our table.

    Raises:
        OSError: the kernel refused; a set went meanwhile.
    """
    return _dump(asked, _INET, attribute(_TABLE, TABLE.encode() + b"\0"))


def dump_all(asked: NetlinkSocket) -> TableDump:
    """Return all messages about all tables.

    Raises:
        OSError: the kernel refused; a set went meanwhile.
    """
    return _dump(asked, socket.AF_UNSPEC, b"")


def _dump(asked: NetlinkSocket, family: int, of_table: bytes) -> TableDump:
    request = _HEADER.pack(family, 0, 0)
    described = [asked.dump_unread(kind, request) for kind in (_GET_TABLE, _GET_CHAIN)]
    rules, sets = (asked.dump_unread(kind, request + of_table) for kind in (_GET_RULE, _GET_SET))
    described += (rules, sets)
    for start, stop in payloads_in(sets, _NEW_SET):
        given = attributes(memoryview(sets)[start + _HEADER.size : stop])
        which = attribute(_TABLE, bytes(given[_TABLE])) + attribute(_SET, bytes(given[_SET]))
        described.append(asked.dump_unread(_GET_ELEMENTS, _HEADER.pack(sets[start], 0, 0) + which))
    objects = (asked.dump_unread(kind, request + of_table) for kind in (_GET_OBJECT, _GET_FLOWTABLE))
    return TableDump(b"".join(described), b"".join(objects))


def main() -> None:
    """Print what is in this network namespace, of which nobody else knows."""
    with NetlinkSocket(NETLINK_NETFILTER) as asked:
        sys.stdout.buffer.write(dump_all(asked).messages)
