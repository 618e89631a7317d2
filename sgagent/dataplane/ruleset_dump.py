"""The kernel's messages about the tables of others, unread: what needs CAP_NET_ADMIN.

libnftables is not asked, as what others load may crash it. Of our own table no rule is read.
:mod:`sgagent.dataplane.foreign_ruleset` reads the messages.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping

from sgagent.dataplane.libnftables import RefusedError, result_of
from sgagent.dataplane.privileges import fork
from sgagent.netlink import NETLINK_NETFILTER, NetlinkSocket, attribute, attributes, messages_in
from sgagent.nft.ruleset import FAMILY, TABLE

_NFTABLES = 10 << 8
NEW_TABLE, _GET_TABLE = _NFTABLES | 0, _NFTABLES | 1
NEW_CHAIN, _GET_CHAIN = _NFTABLES | 3, _NFTABLES | 4
NEW_RULE, _GET_RULE = _NFTABLES | 6, _NFTABLES | 7
_NEW_SET, _GET_SET = _NFTABLES | 9, _NFTABLES | 10
NEW_ELEMENTS, _GET_ELEMENTS = _NFTABLES | 12, _NFTABLES | 13
NEW_FLOW_TABLE, _GET_FLOW_TABLE = _NFTABLES | 22, _NFTABLES | 23
HEADER = struct.Struct("=BBH")
_NUMBER = struct.Struct(">I")
FAMILIES: Mapping[int, str] = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_ATTEMPTS = 10
"""Readings while another process keeps changing the ruleset."""

_LINK_TYPES = frozenset({20, 41})
"""Of the keys of sets: index and name of a link, as libnftables numbers them."""

_TABLE_NAME = 1
_OF_TABLE, _OF_SET = 1, 2
"""In each request: the table, and the set."""

_SET_NAME, _SET_FLAGS, _SET_KEY_TYPE = 2, 3, 4
_INTERVAL = 4
"""Of a set: its elements are the ends of ranges."""


def read_ruleset() -> bytes:
    """Return the kernel's messages about the tables of the calling thread's network namespace.

    Raises:
        OSError: the kernel refused, as without CAP_NET_ADMIN, or another process keeps changing the ruleset.
    """
    for _ in range(_ATTEMPTS):
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            try:
                return b"".join(_dumps(netlink))
            except (InterruptedError, FileNotFoundError):  # a table has just changed, or gone
                continue
    raise OSError(errno.EINTR, "another process keeps changing the ruleset")


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


def _dumps(netlink: NetlinkSocket) -> Iterator[bytes]:
    """Yield the messages, dump by dump: of each other table its rules, and its sets of links.

    Raises:
        InterruptedError: a change mixed two states in a dump.
    """
    tables = _dump(netlink, _GET_TABLE, socket.AF_UNSPEC)
    yield tables
    yield _dump(netlink, _GET_CHAIN, socket.AF_UNSPEC)
    yield _dump(netlink, _GET_FLOW_TABLE, socket.AF_UNSPEC)
    for family, table in _payloads(tables, NEW_TABLE):
        name = bytes(table[_TABLE_NAME])
        if FAMILIES.get(family) == FAMILY and name.rstrip(b"\0") == TABLE.encode():
            continue
        of_table = attribute(_OF_TABLE, name)
        yield _dump(netlink, _GET_RULE, family, of_table)
        for _, one in _payloads(_dump(netlink, _GET_SET, family, of_table), _NEW_SET):
            if _holds_links(one):
                of_set = of_table + attribute(_OF_SET, bytes(one[_SET_NAME]))
                yield _dump(netlink, _GET_ELEMENTS, family, of_set)


def _holds_links(about: Mapping[int, memoryview]) -> bool:
    key_type, flags = (_NUMBER.unpack(about.get(kind, bytes(4)))[0] for kind in (_SET_KEY_TYPE, _SET_FLAGS))
    return key_type in _LINK_TYPES and not flags & _INTERVAL


def _dump(netlink: NetlinkSocket, kind: int, family: int, filters: bytes = b"") -> bytes:
    answers = netlink.dump_unread(kind, HEADER.pack(family, 0, 0) + filters)
    if netlink.was_interrupted:
        raise InterruptedError
    return answers


def _payloads(received: bytes, kind: int) -> Iterator[tuple[int, Mapping[int, memoryview]]]:
    """Yield family and attributes of the messages of a kind."""
    for message in messages_in(received):
        if message.kind == kind:
            (family, _, _) = HEADER.unpack_from(message.payload)
            yield family, attributes(message.payload[HEADER.size :])
