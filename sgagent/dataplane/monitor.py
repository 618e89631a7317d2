"""Notifications of ruleset changes: nfnetlink's group for nftables, read in the applier.

The kernel sends a message for each object that a transaction touches, and then one that names the new
generation of the ruleset and the process that made it.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sgagent.dataplane.generation import following
from sgagent.dataplane.table import Applied, KernelTable, TableListing
from sgagent.netlink import NETLINK_NETFILTER, NetlinkSocket, attributes, messages_in
from sgagent.nft.ruleset import TABLE
from sgagent.nft.transactions import Plan

_GROUP = 7
_SUBSYSTEM_NFTABLES = 10
_NEW_GENERATION = 15
_INET = 1
_OF_NETFILTER = struct.Struct("=BBH")
_NUMBER = struct.Struct(">I")
_TABLE_NAME = 1
_GENERATION_ID, _PROCESS_ID, _PROCESS_NAME = 1, 2, 3
_RECEIVE_BYTES = 1 << 18
_BUFFER_BYTES = 8 << 20
_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("=HBBI")
_PROGRAM = struct.Struct("@HP")


@dataclass(frozen=True, slots=True)
class RulesetChange:
    """Another process changed the ruleset of this network namespace."""

    generation: int
    """The ruleset's number after it; 0 where changes were missed, as there were too many."""

    process_id: int
    """As the host numbers processes; 0 where it is not known."""

    process_name: str
    """At most 15 characters; empty where it is not known."""

    is_of_table: bool
    """Whether it concerned our table, or may have."""


MISSED = RulesetChange(0, 0, "", is_of_table=True)


class RulesetEvents:
    """The kernel's news of one network namespace."""

    def __init__(self, own_port: int | None) -> None:
        """Listen, in the network namespace of the calling thread.

        Args:
            own_port: the netlink port of our own changes, which are filtered out; None filters nothing.

        Raises:
            OSError: it needs CAP_NET_ADMIN.
        """
        self._netlink = NetlinkSocket(NETLINK_NETFILTER, 1 << _GROUP - 1)
        self._netlink.socket.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
        self._netlink.enlarge_buffer(_BUFFER_BYTES)
        if own_port is not None:
            _leave_out(self._netlink.socket, own_port)
        self._is_of_table = False
        """Whether the transaction whose messages are being read concerns our table."""

    def fileno(self) -> int:
        """Return the number to wait on."""
        return self._netlink.socket.fileno()

    def read(self) -> Iterator[RulesetChange]:
        """Yield what happened since it was read last, without waiting."""
        while True:
            try:
                received = self._netlink.socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._is_of_table = True
                yield MISSED
            else:
                for message in messages_in(received):
                    if message.kind >> 8 == _SUBSYSTEM_NFTABLES:
                        yield from self._change(message.kind & 0xFF, message.payload)

    def close(self) -> None:
        """Listen no more."""
        self._netlink.close()

    def _change(self, kind: int, payload: memoryview) -> Iterator[RulesetChange]:
        """Yield the change that a message completes, if it does."""
        family, _, _ = _OF_NETFILTER.unpack_from(payload)
        found = attributes(payload[_OF_NETFILTER.size :])
        if kind != _NEW_GENERATION:
            name = bytes(found.get(_TABLE_NAME, b"")).rstrip(b"\0")
            self._is_of_table |= family == _INET and name == TABLE.encode()
            return
        yield RulesetChange(
            generation=_number(found.get(_GENERATION_ID)),
            process_id=_number(found.get(_PROCESS_ID)),
            process_name=bytes(found.get(_PROCESS_NAME, b"")).rstrip(b"\0").decode("utf-8", "replace"),
            is_of_table=self._is_of_table,
        )
        self._is_of_table = False


def _number(value: memoryview | None) -> int:
    return 0 if value is None else int(_NUMBER.unpack(value)[0])


def _leave_out(listener: socket.socket, port: int) -> None:
    """Have the kernel tell nothing that this port did: ten thousand rules would be ten thousand messages."""
    instructions = (
        (0x20, 0, 0, 12),  # load the sender's port from the header
        (0x15, 0, 1, socket.htonl(port)),  # which is in the host's order, and loaded in the net's
        (0x06, 0, 0, 0),  # it is that port: nothing
        (0x06, 0, 0, 0xFFFFFFFF),  # else all of it
    )
    program = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*one) for one in instructions))
    listener.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, _PROGRAM.pack(len(instructions), ctypes.addressof(program))
    )


class Freshness:
    """Follow the ruleset from one number to the next; what was not heard of may have been our table."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self.followed: int | None = None
        """The newest number of the ruleset up to which every change was heard of."""

        self._changed = 0

    def hear(self, change: RulesetChange) -> None:
        """Record a change by another process, or that some were missed."""
        if not change.generation:
            self.followed = None
            return
        if change.is_of_table or self.followed is None or change.generation != following(self.followed):
            self._changed = change.generation
        self.followed = change.generation

    def changed_until(self, now: int) -> int:
        """Return the number of the ruleset at which our table may have changed last.

        Args:
            now: the ruleset's number, read before the changes that were heard last.
        """
        if self.followed != now:
            self.change(now)
        return self._changed

    def change(self, now: int) -> None:
        """Record a change of our own, or of a look at the table, with the ruleset's number then."""
        self._changed = self.followed = now


class TrackedTable:
    """The kernel's table, with a number for its state which changes of other tables leave alone."""

    def __init__(self, table: KernelTable, tell: Callable[[RulesetChange], None]) -> None:
        """Listen, in the network namespace of the calling thread.

        Args:
            table: the table.
            tell: called for each change by another process.

        Raises:
            OSError: it needs CAP_NET_ADMIN.
        """
        self._table = table
        self._tell = tell
        self._freshness = Freshness()
        self.events = RulesetEvents(table.port)

    def hear(self) -> None:
        """Read the pending notifications, and pass each on."""
        for change in self.events.read():
            self._freshness.hear(change)
            self._tell(change)

    def read_generation(self) -> int:
        """Return the number of the ruleset at which the table may have changed last."""
        now = self._table.read_generation()
        self.hear()
        return self._freshness.changed_until(now)

    def list_table(self) -> TableListing:
        """Return the table as it is, as :class:`KernelTable` does."""
        listing = self._table.list_table()
        if listing.generation is not None:
            self._freshness.change(listing.generation)
        return listing

    def apply(self, plan: Plan) -> Applied:
        """Carry out a plan, as :class:`KernelTable` does."""
        before = self.read_generation()
        followed = self._freshness.followed
        applied = self._table.apply(plan)
        self._freshness.change(applied.after)
        return Applied(before if applied.before == followed else None, applied.after)

    def close(self) -> None:
        """Listen no more."""
        self.events.close()
