"""Notifications of ruleset changes: nfnetlink's group for nftables, read in the applier.

The kernel sends a message for each object that a transaction touches, and then one that names the new
generation of the ruleset and the process that made it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.netlink import NETLINK_NETFILTER, attributes
from sgagent.nft.ruleset import TABLE

_GROUP = 7
_SUBSYSTEM_NFTABLES = 10
_NEW_GENERATION = 15
_INET = 1
_HEADER = struct.Struct("=IHHII")
_OF_NETFILTER = struct.Struct("=BBH")
_NUMBER = struct.Struct(">I")
_TABLE_NAME = 1
_GENERATION_ID, _PROCESS_ID, _PROCESS_NAME = 1, 2, 3
_RECEIVE_BYTES = 1 << 18
_BUFFER_BYTES = 8 << 20
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
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
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            NETLINK_NETFILTER,
        )
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        if own_port is not None:
            _leave_out(self._socket, own_port)
        self._socket.bind((0, 1 << _GROUP - 1))
        self._is_of_table = False
        """Whether the transaction whose messages are being read concerns our table."""

    def fileno(self) -> int:
        """Return the number to wait on."""
        return self._socket.fileno()

    def read(self) -> Iterator[RulesetChange]:
        """Yield what happened since it was read last, without waiting."""
        while True:
            try:
                received = memoryview(self._socket.recv(_RECEIVE_BYTES))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._is_of_table = True
                yield MISSED
            else:
                yield from self._changes(received)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def _changes(self, received: memoryview) -> Iterator[RulesetChange]:
        place = 0
        while place + _HEADER.size <= len(received):
            length, kind, _, _, _ = _HEADER.unpack_from(received, place)
            if kind >> 8 == _SUBSYSTEM_NFTABLES:
                yield from self._change(kind & 0xFF, received[place + _HEADER.size : place + length])
            place += max(length, _HEADER.size) + 3 & ~3

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
