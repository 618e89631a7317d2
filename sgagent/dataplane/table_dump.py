"""Dumps of nftables' tables: the kernel's netlink messages about them, as they come.

A dump takes several requests. It is of one state of the ruleset if the ruleset's generation is the same
before and after. Where other processes keep changing tables of their own, that never happens. Then it is of
one state if the next dump is equal: what was read first had not changed yet when the rest was read.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.core.errors import NotPermittedError
from sgagent.dataplane.privileges import NET_ADMIN, capabilities
from sgagent.netlink import NETLINK_NETFILTER, NetlinkSocket, attribute, attributes, payloads_in
from sgagent.nft.ruleset import TABLE

_SUBSYSTEM = 10 << 8
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS, _GET_OBJECT, _GET_FLOWTABLE = (
    _SUBSYSTEM | number for number in (1, 4, 7, 10, 13, 19, 23)
)
_NEW_TABLE, _NEW_SET = _SUBSYSTEM, _SUBSYSTEM | 9
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


def read_others() -> bytes:
    """Return what decides about packets in all tables but ours, of which only the chains' names are there.

    Raises:
        NotPermittedError: CAP_NET_ADMIN is lacking.
        OSError: the kernel refused; a set went meanwhile.
    """
    if not capabilities()["Eff"] >> NET_ADMIN & 1:
        raise NotPermittedError("only root may read them")
    with NetlinkSocket(NETLINK_NETFILTER) as asked:
        return _dump_others(asked)


def _dump_others(asked: NetlinkSocket) -> bytes:
    request = _HEADER.pack(socket.AF_UNSPEC, 0, 0)
    tables, chains = (asked.dump_unread(kind, request) for kind in (_GET_TABLE, _GET_CHAIN))
    described = [tables, chains]
    for start, stop in payloads_in(tables, _NEW_TABLE):
        family, name = (
            tables[start],
            bytes(attributes(memoryview(tables)[start + _HEADER.size : stop])[_TABLE]),
        )
        if (family, name) != (_INET, TABLE.encode() + b"\0"):
            described += _rules_and_sets(asked, family, attribute(_TABLE, name))
    return b"".join(described)


def _dump(asked: NetlinkSocket, family: int, of_table: bytes) -> TableDump:
    request = _HEADER.pack(family, 0, 0)
    described = [asked.dump_unread(kind, request) for kind in (_GET_TABLE, _GET_CHAIN)]
    described += _rules_and_sets(asked, family, of_table)
    objects = (asked.dump_unread(kind, request + of_table) for kind in (_GET_OBJECT, _GET_FLOWTABLE))
    return TableDump(b"".join(described), b"".join(objects))


def _rules_and_sets(asked: NetlinkSocket, family: int, of_table: bytes) -> Iterator[bytes]:
    """Yield the messages about rules, sets, and their elements."""
    request = _HEADER.pack(family, 0, 0) + of_table
    rules, sets = (asked.dump_unread(kind, request) for kind in (_GET_RULE, _GET_SET))
    yield from (rules, sets)
    for start, stop in payloads_in(sets, _NEW_SET):
        given = attributes(memoryview(sets)[start + _HEADER.size : stop])
        which = attribute(_TABLE, bytes(given[_TABLE])) + attribute(_SET, bytes(given[_SET]))
        yield asked.dump_unread(_GET_ELEMENTS, _HEADER.pack(sets[start], 0, 0) + which)


def main() -> None:
    """Print what is in this network namespace, of which nobody else knows."""
    with NetlinkSocket(NETLINK_NETFILTER) as asked:
        sys.stdout.buffer.write(dump_all(asked).messages)
