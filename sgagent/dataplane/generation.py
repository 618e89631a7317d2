"""The generation of the kernel's ruleset: read without a listing, and followed by notifications of changes.

The applier listens to nfnetlink's group for nftables. The kernel sends a message for each object that a
transaction touches, and then one that names the new generation of the ruleset and the process that made it.
The same netlink lists counters, which says nothing of generations.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sgagent.netlink import NETLINK_NETFILTER, NetlinkSocket, attribute, attributes, messages_in
from sgagent.nft.ruleset import TABLE

APPLIER_NAME = "sgagent-applier"
"""Of the process that owns the table for an agent."""

_SUBSYSTEM_NFTABLES = 10
_GET_TABLE = _SUBSYSTEM_NFTABLES << 8 | 1
_NEW_GENERATION = 15
_GET_GENERATION = _SUBSYSTEM_NFTABLES << 8 | 16
_GET_OBJECT = _SUBSYSTEM_NFTABLES << 8 | 19
_GROUP = 7
_HEADER = struct.Struct("=BBH")
_NUMBER = struct.Struct(">I")
_INET = 1
_TABLE_NAME = 1
_TABLE_OWNER = 7
_GENERATION_ID, _PROCESS_ID, _PROCESS_NAME = 1, 2, 3
_LARGEST = 0xFFFFFFFF


def owner_of(port: int) -> str:
    """Return the process that owns a netlink port, by number and name where they can be found out."""
    inode = _socket_inode(port)
    for directory in Path("/proc").glob("[0-9]*") if inode else ():
        with contextlib.suppress(OSError):
            if any(link.readlink() == Path(f"socket:[{inode}]") for link in (directory / "fd").iterdir()):
                return _process(directory)
    with contextlib.suppress(OSError):
        # Another agent's applier lets nobody look, but its port is its number.
        process = _process(Path("/proc", str(port)))
        if process.endswith(f"({APPLIER_NAME})"):
            return process
    return f"netlink port {port}"


def _process(directory: Path) -> str:
    """Return a process by number and name.

    Raises:
        OSError: there is none.
    """
    name = (directory / "comm").read_text(encoding="utf-8", errors="replace").strip()
    return f"process {directory.name} ({name})"


def _socket_inode(port: int) -> str | None:
    """Return the inode of the netfilter socket with that address, in this network namespace."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/netlink").read_text(encoding="ascii").splitlines()[1:]:
            columns = line.split()
            if columns[1] == str(NETLINK_NETFILTER) and columns[2] == str(port):
                return columns[-1]
    return None


@dataclass(frozen=True, slots=True)
class RulesetNumber:
    """A state of the ruleset that no other state of any network namespace has, until the host boots."""

    namespace: int
    """The cookie of the network namespace, which the kernel gives to no other one."""

    generation: int


class RulesetGeneration(NetlinkSocket):
    """The number that the kernel gives to each state of a network namespace's ruleset, and counters."""

    def __init__(self) -> None:
        """Watch the network namespace of the calling thread."""
        super().__init__(NETLINK_NETFILTER)

    def read(self) -> int:
        """Return the number of the ruleset that stands now."""
        answer = self.ask(_GET_GENERATION, _HEADER.pack(socket.AF_UNSPEC, 0, 0))
        return _number(attributes(answer.payload[_HEADER.size :])[_GENERATION_ID])

    def number(self) -> RulesetNumber | None:
        """Return the number of the ruleset that stands now; None on kernels that number no namespaces."""
        try:
            cookie = self.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _COOKIE.size)
        except OSError:  # before Linux 5.14
            return None
        return RulesetNumber(_COOKIE.unpack(cookie)[0], self.read())

    def table_stands(self) -> bool:
        """Return whether there is a table of ours; no, where we may not ask."""
        return self._table() is not None

    def owner(self) -> int | None:
        """Return the netlink port of who owns our table; None without an owner, or where we may not ask."""
        port = (self._table() or {}).get(_TABLE_OWNER)
        return None if port is None else _number(port)

    def _table(self) -> Mapping[int, memoryview] | None:
        name = attribute(_TABLE_NAME, TABLE.encode() + b"\0")
        try:
            answer = self.ask(_GET_TABLE, _HEADER.pack(_INET, 0, 0) + name)
        except (FileNotFoundError, PermissionError):
            return None
        return attributes(answer.payload[_HEADER.size :])

    def list_counters(self, table: str = TABLE) -> bytes:
        """Return the kernel's messages about the counters of a table; empty if there is no table.

        Raises:
            OSError: the dump failed; EINTR if another process keeps changing the ruleset.
        """
        wanted = attribute(_COUNTER_TABLE, table.encode() + b"\0") + attribute(_COUNTER_TYPE, _COUNTER)
        for _ in range(_ATTEMPTS):
            answers = self.dump_unread(_GET_OBJECT, _HEADER.pack(_INET, 0, 0) + wanted)
            if not self.was_interrupted:
                return answers
        raise OSError(errno.EINTR, "another process keeps changing the ruleset")


_SO_NETNS_COOKIE = 71
_COOKIE = struct.Struct("=Q")
_COUNTER_TABLE, _COUNTER_TYPE = 1, 3
_COUNTER = _NUMBER.pack(1)

_ATTEMPTS = 100
"""Dumps until giving up. A dump that a change of the ruleset interrupts mixes two states."""


def following(number: int) -> int:
    """Return the number that the kernel gives to the next state; it leaves out 0."""
    return 1 if number == _LARGEST else number + 1


_RECEIVE_BYTES = 1 << 18
_BUFFER_BYTES = 8 << 20
_SO_ATTACH_FILTER = 26
_SOL_NETLINK, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 270, 1, 2
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


class RulesetEvents(NetlinkSocket):
    """The kernel's notifications of one network namespace."""

    def __init__(self, own_port: int | None) -> None:
        """Open a socket, in the network namespace of the calling thread.

        Args:
            own_port: the netlink port of our own changes, which are filtered out; None filters nothing.
        """
        super().__init__(NETLINK_NETFILTER)
        self.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
        self.enlarge_buffer(_BUFFER_BYTES)
        if own_port is not None:
            _leave_out(self, own_port)
        self._is_of_table = False
        """Whether the transaction whose messages are being read concerns our table."""

    def begin(self) -> None:
        """Listen from now on.

        Raises:
            OSError: it needs CAP_NET_ADMIN.
        """
        self.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)

    def pause(self) -> None:
        """Listen no more until :meth:`begin`; what came so far can still be read."""
        self.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, _GROUP)

    def read(self) -> Iterator[RulesetChange]:
        """Yield the changes since the last reading, without waiting."""
        while True:
            try:
                received = self.recv(_RECEIVE_BYTES)
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

    def _change(self, kind: int, payload: memoryview) -> Iterator[RulesetChange]:
        """Yield the change that a message completes, if it does."""
        family, _, _ = _HEADER.unpack_from(payload)
        found = attributes(payload[_HEADER.size :])
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
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*one) for one in instructions))
    program = _PROGRAM.pack(len(instructions), ctypes.addressof(code))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


class GenerationTracker:
    """Follow the ruleset from one number to the next; an unknown change may have been of our table."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self.followed: int | None = None
        """The newest number of the ruleset up to which every change was heard of."""

        self._changed = 0

    def notify(self, change: RulesetChange) -> None:
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
