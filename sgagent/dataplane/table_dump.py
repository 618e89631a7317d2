"""Dumps of nftables' tables: the kernel's netlink messages about them, as they come.

A dump takes several requests. It is of one state of the ruleset if the ruleset's generation is the same
before and after. Where other processes keep changing tables of their own, that never happens. Then it is of
one state if the next dump is equal: what was read first had not changed yet when the rest was read.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sgagent.core.errors import NotPermittedError
from sgagent.dataplane.libnftables import RefusedError, result_of
from sgagent.dataplane.privileges import NET_ADMIN, capabilities, fork
from sgagent.netlink import NETLINK_NETFILTER, NetlinkSocket, attribute, attributes, payloads_in
from sgagent.nft.buckets import one_of_each
from sgagent.nft.ruleset import TABLE
from sgagent.nft.sets import DYNAMIC, INTERVAL, LINK_TYPES, MARK_TYPE, METER, VERDICT_TYPE

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


def dump_buckets(asked: NetlinkSocket, dump: TableDump) -> bytes:
    """Return the messages about the buckets of a dump's meters, of equal ones one at least.

    Packets change them, so they are of no state of the ruleset.

    Raises:
        OSError: the kernel refused; a set went meanwhile.
    """
    return b"".join(map(one_of_each, _elements(asked, dump.program, _is_meter)))


def read_others() -> bytes:
    """Return the messages about all tables that decide about packets, of ours only the chains' names.

    Raises:
        NotPermittedError: CAP_NET_ADMIN is lacking.
        OSError: the kernel refused, or another process keeps changing the ruleset.
    """
    if not capabilities()["Eff"] >> NET_ADMIN & 1:
        raise NotPermittedError("only root may read them")
    return _dump_others(_changes_by_rules_alone)


def read_ruleset() -> bytes:
    """Return the same for the doctor, who needs no elements of sets but links, verdicts and marks.

    Raises:
        OSError: the kernel refused, as without CAP_NET_ADMIN, or another process keeps changing the ruleset.
    """
    return _dump_others(_matters_to_doctor)


def read_in_background(writing: socket.socket) -> int:
    """Fork a process that reads the ruleset into a socket and ends; return its process id, to be waited for.

    It writes a result as :func:`sgagent.dataplane.libnftables.result_of` returns it.
    """
    return fork(lambda: writing.sendall(result_of(_read_or_refuse, RefusedError)))


def _read_or_refuse() -> bytes:
    try:
        return read_ruleset()
    except OSError as error:
        raise RefusedError(error.strerror or str(error)) from error


_Wanted = Callable[[Mapping[int, memoryview]], bool]
"""Whether the elements of a set are wanted, by its attributes."""


def _dump_others(is_wanted: _Wanted) -> bytes:
    for _ in range(_ATTEMPTS):
        with NetlinkSocket(NETLINK_NETFILTER) as asked:
            try:
                return b"".join(_others(asked, is_wanted))
            except (InterruptedError, FileNotFoundError):  # a table has just changed, or gone
                continue
    raise OSError(errno.EINTR, "another process keeps changing the ruleset")


_ATTEMPTS = 10
"""Readings while another process keeps changing the ruleset."""


def _others(asked: NetlinkSocket, is_wanted: _Wanted) -> Iterator[bytes]:
    """Yield the messages, dump by dump.

    Raises:
        InterruptedError: a change mixed two states in a dump.
    """
    for dumped in _unchecked_others(asked, is_wanted):
        if asked.was_interrupted:
            raise InterruptedError
        yield dumped


def _unchecked_others(asked: NetlinkSocket, is_wanted: _Wanted) -> Iterator[bytes]:
    request = _HEADER.pack(socket.AF_UNSPEC, 0, 0)
    tables = asked.dump_unread(_GET_TABLE, request)
    yield tables
    yield asked.dump_unread(_GET_CHAIN, request)
    yield asked.dump_unread(_GET_FLOWTABLE, request)
    for start, stop in payloads_in(tables, _NEW_TABLE):
        name = bytes(attributes(memoryview(tables)[start + _HEADER.size : stop])[_TABLE])
        if (tables[start], name) != (_INET, TABLE.encode() + b"\0"):
            yield from _rules_and_sets(asked, tables[start], attribute(_TABLE, name), is_wanted)


def _matters_to_doctor(about: Mapping[int, memoryview]) -> bool:
    key_type, flags, leads_to = (
        int.from_bytes(about.get(kind, b""), "big") for kind in (_KEY_TYPE, _SET_FLAGS, _DATA_TYPE)
    )
    return leads_to in (VERDICT_TYPE, MARK_TYPE) or (key_type in LINK_TYPES and not flags & INTERVAL)


def _changes_by_rules_alone(about: Mapping[int, memoryview]) -> bool:
    """Return False for sets that packets change: what is in them says nothing of the ruleset."""
    return not int.from_bytes(about.get(_SET_FLAGS, b""), "big") & DYNAMIC


def _is_meter(about: Mapping[int, memoryview]) -> bool:
    return int.from_bytes(about.get(_SET_FLAGS, b""), "big") == METER


_SET_FLAGS, _KEY_TYPE, _DATA_TYPE = 3, 4, 6


def _dump(asked: NetlinkSocket, family: int, of_table: bytes) -> TableDump:
    request = _HEADER.pack(family, 0, 0)
    described = [asked.dump_unread(kind, request) for kind in (_GET_TABLE, _GET_CHAIN)]
    described += _rules_and_sets(asked, family, of_table)
    objects = (asked.dump_unread(kind, request + of_table) for kind in (_GET_OBJECT, _GET_FLOWTABLE))
    return TableDump(b"".join(described), b"".join(objects))


def _rules_and_sets(
    asked: NetlinkSocket, family: int, of_table: bytes, is_wanted: _Wanted = _changes_by_rules_alone
) -> Iterator[bytes]:
    """Yield the messages about rules, sets, and the elements that are wanted."""
    request = _HEADER.pack(family, 0, 0) + of_table
    yield asked.dump_unread(_GET_RULE, request)
    sets = asked.dump_unread(_GET_SET, request)
    yield sets
    yield from _elements(asked, sets, is_wanted)


def _elements(asked: NetlinkSocket, sets: bytes, is_wanted: _Wanted) -> Iterator[bytes]:
    for start, stop in payloads_in(sets, _NEW_SET):
        given = attributes(memoryview(sets)[start + _HEADER.size : stop])
        if is_wanted(given):
            which = attribute(_TABLE, bytes(given[_TABLE])) + attribute(_SET, bytes(given[_SET]))
            yield asked.dump_unread(_GET_ELEMENTS, _HEADER.pack(sets[start], 0, 0) + which)


def main() -> None:
    """Print the ruleset of this network namespace, of which nobody else knows."""
    with NetlinkSocket(NETLINK_NETFILTER) as asked:
        dump = dump_all(asked)
        sys.stdout.buffer.write(dump.messages + dump_buckets(asked, dump))
