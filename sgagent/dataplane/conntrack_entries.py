"""Conntrack's entries: list them piece by piece, end some, and restore the one of a TCP socket (§6.3)."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

from sgagent.core.model import TCP, Family
from sgagent.core.tracked_sessions import ConntrackEntry, FlowTuple, can_be_reopened
from sgagent.dataplane import conntrack_messages as messages
from sgagent.dataplane.conntrack_messages import ConntrackTuple, found_in, number_in, tuple_in, zone_in
from sgagent.dataplane.live_sessions import find_socket
from sgagent.netlink import NESTED, NETLINK_NETFILTER, Message, NetlinkSocket, attribute
from sgagent.nft.marks import MarkTest

PIECE = 500
"""Entries that one piece of a listing is chosen from: some milliseconds."""


class Piece(NamedTuple):
    """A piece of a listing."""

    entries: tuple[ConntrackEntry, ...]
    is_last: bool


class EntryListing:
    """List entries piece by piece: the kernel goes on in its table with each piece that is read.

    What begins or ends meanwhile may be missing.
    """

    def __init__(self, tests: Sequence[MarkTest], *, all_protocols: bool) -> None:
        """Begin a listing of the calling thread's network namespace.

        Args:
            tests: entries whose mark meets one of these are left out, but for offloaded ones.
            all_protocols: whether to list those of protocols that :func:`can_be_reopened` excludes, too.

        Raises:
            OSError: the kernel can't be asked.
        """
        self._tests = tests
        self._all_protocols = all_protocols
        self._netlink = NetlinkSocket(NETLINK_NETFILTER)
        self._messages = self._netlink.dump(messages.GET, messages.HEADER.pack(socket.AF_UNSPEC, 0, 0))

    def next_piece(self) -> Piece:
        """Return the next piece; after the last one the listing is closed.

        Raises:
            OSError: the kernel can't tell.
        """
        seen, chosen = 0, list[ConntrackEntry]()
        for message in islice(self._messages, PIECE):
            seen += 1
            entry = self._entry(message)
            if entry is not None:
                chosen.append(entry)
        if seen < PIECE:
            self.close()
        return Piece(tuple(chosen), is_last=seen < PIECE)

    def close(self) -> None:
        """List nothing more."""
        self._netlink.close()

    def _entry(self, message: Message) -> ConntrackEntry | None:
        """Return an entry, if it belongs into the list."""
        if message.payload[0] not in (socket.AF_INET, socket.AF_INET6):
            return None
        found = found_in(message)
        protocol, mark = messages.protocol_in(found), number_in(found, messages.MARK)
        is_offloaded = bool(number_in(found, messages.STATUS) & messages.OFFLOADED)
        is_chosen = self._all_protocols or can_be_reopened(protocol)
        if not is_offloaded and (not is_chosen or any(test.is_met_by(mark) for test in self._tests)):
            return None
        original, reply = (
            tuple_in(message, found[kind]) for kind in (messages.TUPLE_ORIGINAL, messages.TUPLE_REPLY)
        )
        return ConntrackEntry(
            family=Family.IPV4 if original.family == socket.AF_INET else Family.IPV6,
            protocol=protocol,
            original=original.ends,
            reply=reply.ends,
            mark=mark,
            is_offloaded=is_offloaded,
            identity=number_in(found, messages.IDENTITY),
            original_zone=zone_in(found, messages.TUPLE_ORIGINAL),
            reply_zone=zone_in(found, messages.TUPLE_REPLY),
        )


def end_entries(entries: Sequence[ConntrackEntry], mask: int) -> int:
    """End entries of the calling thread's network namespace, and with them their entries in flow tables.

    Those of protocols whose next packet opens a session anew are deleted. In the place of one of TCP stands
    then one that is closing: the next packet of either end is part of it, so it opens nothing, and no flow
    table takes it. Entries that have ended meanwhile are left.

    Args:
        entries: that were listed.
        mask: our bits of marks; closing entries keep the other ones.

    Returns:
        How many were ended.

    Raises:
        OSError: the kernel refused.
    """
    with closing(NetlinkSocket(NETLINK_NETFILTER)) as netlink:
        return sum(_is_ended(netlink, entry, mask) for entry in entries)


def _is_ended(netlink: NetlinkSocket, entry: ConntrackEntry, mask: int) -> bool:
    """End an entry, and return whether it was there."""
    deletion = (
        messages.DELETE,
        _named(entry) + attribute(messages.IDENTITY, messages.NUMBER.pack(entry.identity)),
    )
    if entry.protocol != TCP.wire_number:
        return not _refused(netlink.order([deletion]), {errno.ENOENT})
    by_name, making = (messages.DELETE, _named(entry)), (messages.NEW, _closing(entry, mask))
    errors = netlink.order([deletion, making], is_creating=True)
    if errno.ENOENT in errors:  # it had ended before
        if errno.EEXIST not in errors:
            netlink.order([by_name])  # which was made in the place of none
        return False
    for _ in range(_TRIES):
        if not _refused(errors, {errno.ENOENT, errno.EEXIST}):
            return True
        errors = netlink.order([by_name, making], is_creating=True)  # a packet came in between
    return False


_TRIES = 5


def _refused(errors: Sequence[int], expected: set[int]) -> bool:
    """Return whether there is an error, if it is one of those that are expected."""
    for number in errors:
        if number not in expected:
            raise OSError(number, os.strerror(number))
    return bool(errors)


def _named(entry: ConntrackEntry) -> bytes:
    """Return an entry's identity in a request: its original tuple, and its zones."""
    return _header(entry) + _tuple(entry, messages.TUPLE_ORIGINAL) + _zone(entry)


def _header(entry: ConntrackEntry) -> bytes:
    return messages.HEADER.pack(messages.family_number(entry.family), 0, 0)


def _tuple(entry: ConntrackEntry, kind: int) -> bytes:
    is_original = kind == messages.TUPLE_ORIGINAL
    ends = entry.original if is_original else entry.reply
    own_zone = entry.original_zone if is_original else entry.reply_zone
    zone = own_zone if entry.original_zone != entry.reply_zone else 0
    encoded = ConntrackTuple(messages.family_number(entry.family), entry.protocol, ends).encoded(zone)
    return attribute(kind | NESTED, encoded)


def _zone(entry: ConntrackEntry) -> bytes:
    """Return the zone of both directions; where only one has one, it is in its tuple."""
    if entry.original_zone != entry.reply_zone or not entry.original_zone:
        return b""
    return attribute(messages.ZONE, entry.original_zone.to_bytes(2))


_ESTABLISHED, _TIME_WAIT = 3, 7
_CLOSING_SECONDS = 120
"""As the kernel's own. It keeps the state, and counts anew, with each later packet that opens nothing."""


def _closing(entry: ConntrackEntry, mask: int) -> bytes:
    """Return the entry of a TCP session that has ended."""
    tuples = _tuple(entry, messages.TUPLE_ORIGINAL) + _tuple(entry, messages.TUPLE_REPLY)
    mark = attribute(messages.MARK, messages.NUMBER.pack(entry.mark & ~mask))
    return _header(entry) + tuples + _zone(entry) + mark + _tcp_state(_TIME_WAIT, _CLOSING_SECONDS)


def _tcp_state(state: int, seconds: int) -> bytes:
    """Return a state of TCP without windows, as nobody knows them any more."""
    liberal = bytes([messages.BE_LIBERAL, messages.BE_LIBERAL])
    of_tcp = (
        attribute(messages.TCP_STATE, bytes([state]))
        + attribute(messages.TCP_FLAGS_ORIGINAL, liberal)
        + attribute(messages.TCP_FLAGS_REPLY, liberal)
    )
    of_protocol = attribute(messages.TCP_STATE_PART | NESTED, of_tcp)
    timeout = attribute(messages.TIMEOUT, messages.NUMBER.pack(seconds))
    return timeout + attribute(messages.PROTOCOL_STATE | NESTED, of_protocol)


_RESTORED_SECONDS = 300
"""Until the kernel's own timeout for established sessions, from the next packet on."""


def restore_entry(socket_family: int, identity: bytes, original_zone: int = 0, reply_zone: int = 0) -> bool:
    """Restore the entry of a TCP session that was opened inwards, in the calling thread's network namespace.

    The next packet of either end is judged as part of that session.

    Args:
        socket_family: of the socket, as a number of the socket module.
        identity: what the kernel knows the socket by. It has to be that of an established session.
        original_zone: of the entry, for the direction of the packet that opened it.
        reply_zone: for the other one.

    Returns:
        Whether there was such a socket, and no entry.

    Raises:
        OSError: the kernel refused.
    """
    found = find_socket(socket_family, identity)
    if found is None:
        return False
    request = FlowTuple(found.peer_address, found.peer_port, found.local_address, found.local_port)
    entry = ConntrackEntry(
        family=found.family,
        protocol=TCP.wire_number,
        original=request,
        reply=request.turned,
        mark=0,
        is_offloaded=False,
        identity=0,
        original_zone=original_zone,
        reply_zone=reply_zone,
    )
    tuples = _tuple(entry, messages.TUPLE_ORIGINAL) + _tuple(entry, messages.TUPLE_REPLY)
    bits = messages.SEEN_REPLY | messages.ASSURED | messages.CONFIRMED
    status = attribute(messages.STATUS, messages.NUMBER.pack(bits))
    made = _header(entry) + tuples + _zone(entry) + status + _tcp_state(_ESTABLISHED, _RESTORED_SECONDS)
    with closing(NetlinkSocket(NETLINK_NETFILTER)) as netlink:
        return not _refused(netlink.order([(messages.NEW, made)], is_creating=True), {errno.EEXIST})
