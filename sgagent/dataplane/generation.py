"""The generation of the kernel's ruleset and the owner of a table, read without listing anything."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sgagent.netlink import NETLINK_NETFILTER, NetlinkSocket, attribute, attributes
from sgagent.nft.ruleset import TABLE

APPLIER_NAME = "sgagent-applier"
"""Of the process that owns the table for an agent."""

_SUBSYSTEM_NFTABLES = 10 << 8
_GET_TABLE = _SUBSYSTEM_NFTABLES | 1
_GET_GENERATION = _SUBSYSTEM_NFTABLES | 16
_HEADER = struct.Struct("=BBH")
_INET = 1
_TABLE_NAME = 1
_TABLE_OWNER = 7
_GENERATION_ID = 1
_LARGEST = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that owns our table."""

    port: int
    """The address of its netlink socket."""

    def __str__(self) -> str:
        """Return the process by number and name where they can be found out, else its netlink port."""
        inode = _socket_inode(self.port)
        for directory in Path("/proc").glob("[0-9]*") if inode else ():
            with contextlib.suppress(OSError):
                if any(link.readlink() == Path(f"socket:[{inode}]") for link in (directory / "fd").iterdir()):
                    return _process(directory)
        with contextlib.suppress(OSError):
            # Another agent's applier lets nobody look, but its port is its number.
            process = _process(Path("/proc", str(self.port)))
            if process.endswith(f"({APPLIER_NAME})"):
                return process
        return f"netlink port {self.port}"

    def ends_within(self, seconds: float) -> bool:
        """Wait for the process to end, whose number is the port; return whether it did or is gone."""
        try:
            process = os.pidfd_open(self.port)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):  # the port is no number of a process
            return False
        try:
            end = select.poll()
            end.register(process, select.POLLIN)
            return bool(end.poll(seconds * 1000))
        finally:
            os.close(process)


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


class RulesetGeneration:
    """The number that the kernel gives to each state of a network namespace's ruleset."""

    def __init__(self) -> None:
        """Watch the network namespace of the calling thread."""
        self._netlink = NetlinkSocket(NETLINK_NETFILTER)

    def read(self) -> int:
        """Return the number of the ruleset that stands now."""
        answer = self._netlink.ask(_GET_GENERATION, _HEADER.pack(socket.AF_UNSPEC, 0, 0))
        (number,) = struct.unpack(">I", attributes(answer.payload[_HEADER.size :])[_GENERATION_ID])
        return int(number)

    def table_stands(self) -> bool:
        """Return whether there is a table of ours; no, where we may not ask."""
        return self._table() is not None

    def owner(self) -> Owner | None:
        """Return who owns our table; None where nobody does, where there is none, or where we may not ask."""
        port = (self._table() or {}).get(_TABLE_OWNER)
        return None if port is None else Owner(struct.unpack(">I", port)[0])

    def _table(self) -> Mapping[int, memoryview] | None:
        name = attribute(_TABLE_NAME, TABLE.encode() + b"\0")
        try:
            answer = self._netlink.ask(_GET_TABLE, _HEADER.pack(_INET, 0, 0) + name)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EPERM):
                return None
            raise
        return attributes(answer.payload[_HEADER.size :])

    def close(self) -> None:
        """Stop watching."""
        self._netlink.close()


def following(number: int) -> int:
    """Return the number that the kernel gives to the next state; it leaves out 0."""
    return 1 if number == _LARGEST else number + 1


_GET_OBJECT = 10 << 8 | 19
_COUNTER_TABLE, _COUNTER_TYPE = 1, 3
_COUNTER = struct.pack(">I", 1)
_COUNTERS_OF_TABLE = (
    struct.pack("=BBH", 1, 0, 0)
    + attribute(_COUNTER_TABLE, TABLE.encode() + b"\0")
    + attribute(_COUNTER_TYPE, _COUNTER)
)

_ATTEMPTS = 100
"""Dumps until giving up. A dump that a change of the ruleset interrupts mixes two states."""


def list_counters(netlink: NetlinkSocket) -> bytes:
    """Return the kernel's netlink messages about the counters of our table; empty if there is no table.

    Raises:
        OSError: the dump failed; EINTR if another process keeps changing the ruleset.
    """
    for _ in range(_ATTEMPTS):
        answers = netlink.dump_unread(_GET_OBJECT, _COUNTERS_OF_TABLE)
        if not netlink.was_interrupted:
            return answers
    raise OSError(errno.EINTR, "another process keeps changing the ruleset")
