"""A flow: both ends of a logged packet, the verdict, and its decider; the newest flows, and their writers.

A writer writes one JSON object a line to a file with rotation or to standard output, or the journal's fields.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TextIO, assert_never

from sgagent.core.clauses import DecidedBy
from sgagent.core.errors import count, printable
from sgagent.core.model import Direction, Family, Mode, Policy
from sgagent.json_model import to_json
from sgagent.settings.tables import FlowLogSettings, FlowOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowEnd:
    """One end: its address, and its interface and groups by the definitions in force."""

    address: str
    port: int | None = None
    """None for protocols without ports, and for packets too short to hold any."""

    network_interface_id: str | None = None
    """None where the address is on no interface of the definitions, or on several."""

    security_group_ids: tuple[str, ...] = ()
    """The groups of which the address is a member, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A packet that was judged: the first of a session, or of one that is judged again (§6.3)."""

    number: int
    """From 1, in the order in which the agent saw them since it started."""

    seen_at: float
    """When the agent saw it, about a tenth of a second after the kernel; seconds since the epoch."""

    interface: str
    direction: Direction
    """Of the session: the way its first packet went."""

    verdict: Policy
    mode: Mode
    """Whether a drop was carried out, or only observed (§9.1)."""

    decided_by: DecidedBy
    rule_id: str | None = None
    security_group_id: str | None = None
    priority: int | None = None
    local: str | None = None
    """In words: the user or unit that the rule is for (§13.3)."""

    family: Family
    protocol: str
    """By name where there is one: ``tcp``, ``icmpv6``, ``47``."""

    source: FlowEnd
    """Who opened the session, also where the packet is an answer; for ICMP, who sent the packet."""

    destination: FlowEnd
    icmp_type: int | None = None
    is_reply: bool = False
    """Whether the packet goes against its session's direction: its session was open, and is judged again."""

    user: int | None = None
    """Who made the socket of this host that sent the packet (§13.3); None without one."""

    bytes: int
    """Of the packet, from the IP header on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowsLeftOut:
    """Packets with the same verdict that the kernel counted but did not log."""

    seen_at: float
    """When the agent noticed, up to two seconds after the packets; seconds since the epoch."""

    interface: str
    direction: Direction
    verdict: Policy
    mode: Mode
    decided_by: DecidedBy
    rule_id: str | None = None
    security_group_id: str | None = None
    local: str | None = None
    left_out: int


def sentence(entry: Flow | FlowsLeftOut) -> str:
    """Return an entry as a sentence."""
    place = f"{done(entry)} on {entry.interface} {entry.direction.value} by {decider(entry)}"
    if isinstance(entry, FlowsLeftOut):
        return printable(f"{count(entry.left_out, 'more packet')} {place}, not logged one by one")
    port = "" if entry.source.port is None else f" port {entry.source.port}"
    whose = "" if entry.user is None else f", of user {entry.user}"
    ends = f"{end(entry.source)}{port} to {end(entry.destination)}"
    return printable(f"{place}: {traffic(entry)} from {ends}{whose}")


def done(entry: Flow | FlowsLeftOut) -> str:
    """Return the outcome in words: ``dropped``, ``would be dropped``, ``accepted``."""
    if entry.verdict is Policy.ACCEPT:
        return "accepted"
    return "would be dropped" if entry.mode is Mode.OBSERVE else "dropped"


def decider(entry: Flow | FlowsLeftOut) -> str:
    """Return the decider in words: ``rule sgr-1 of sg-web for unit x.service``, ``the default``."""
    if entry.rule_id is not None and entry.decided_by is DecidedBy.OVER_LIMIT:
        return f"the limit of rule {entry.rule_id} of {entry.security_group_id}"
    if entry.rule_id is not None:
        whose = "" if entry.local is None else f" for {entry.local}"
        return f"rule {entry.rule_id} of {entry.security_group_id}{whose}"
    return _STEPS[entry.decided_by]


_STEPS = {
    DecidedBy.SESSION: "its session",
    DecidedBy.ALWAYS: "the platform list",
    DecidedBy.FAILSAFE: "the fail-safe list",
    DecidedBy.INNER: "fellow membership",
    DecidedBy.RULE: "a rule",
    DecidedBy.OVER_LIMIT: "the limit of a rule",
    DecidedBy.DEFAULT: "the default",
    DecidedBy.UNBOUND: "nobody",
    DecidedBy.INVALID: "connection tracking, which calls it invalid",
    DecidedBy.SPOOFED: "the source check",
}


def traffic(flow: Flow) -> str:
    """Return the protocol with its port or type: ``tcp 22``, ``icmp type 8``, ``47``."""
    if flow.icmp_type is not None:
        return f"{flow.protocol} type {flow.icmp_type}"
    port = flow.destination.port
    return flow.protocol if port is None else f"{flow.protocol} {port}"


def end(one: FlowEnd) -> str:
    """Return an end by its names, with the address behind them: ``eni-web-1 (sg-web) 10.0.0.11``."""
    groups = ", ".join(one.security_group_ids)
    names = f"{one.network_interface_id} ({groups})" if one.network_interface_id and groups else groups
    return " ".join(word for word in (names or one.network_interface_id or "", one.address) if word)


JOURNAL = Path("/run/systemd/journal/socket")
_IDENTIFIER = "sgagent-flows"
_INFORMATIONAL = 6
_FILE_MODE = 0o640
_LONGEST_WAIT_SECONDS = 2.0

FlowRecord = Flow | FlowsLeftOut


class PartlyWrittenError(OSError):
    """Say that some entries could not be written, and how many."""

    def __init__(self, number: int, reason: str, *, lost: int) -> None:
        """Keep the error's number, its reason, and how many entries are lost."""
        super().__init__(number, reason)
        self.lost = lost


class FlowWriter(Protocol):
    """Somewhere to write to. Belongs to one thread."""

    def write(self, entries: Sequence[FlowRecord]) -> None:
        """Write entries, in their order.

        Raises:
            PartlyWrittenError: some could not be written.
            OSError: none could.
        """


def as_line(entry: FlowRecord) -> str:
    """Return an entry as a line of JSON; everything that is not plain ASCII is escaped."""
    fields = to_json(entry)
    del fields["seen_at"]
    return json.dumps({"time": written_time(entry.seen_at), **fields}) + "\n"


def written_time(seconds: float) -> str:
    """Return a moment as ISO 8601 writes it, in UTC with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class StreamWriter:
    """Write to a stream that is open already."""

    def __init__(self, stream: TextIO) -> None:
        """Take the stream; only its descriptor is used."""
        self._descriptor = stream.fileno()
        self._lines = _Lines()

    def write(self, entries: Sequence[FlowRecord]) -> None:
        """Write a line for each, as long as somebody reads."""
        self._lines.write(self._descriptor, entries)


class _Lines:
    """Write lines to a pipe or terminal; drop the rest if the reader stalls."""

    def __init__(self) -> None:
        self._rest = b""
        """Of a line whose begin was read."""

    def write(self, descriptor: int, entries: Sequence[FlowRecord]) -> None:
        """Write a line for each entry.

        Raises:
            PartlyWrittenError: the reader stalls, or is gone.
        """
        until = time.monotonic() + _LONGEST_WAIT_SECONDS
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        whole = [as_line(entry).encode("ascii") for entry in entries]
        for left, line in zip(range(len(whole), -1, -1), (self._rest, *whole), strict=True):
            self._rest = line
            while self._rest:
                try:
                    if not poll.poll(max(0.0, 1000 * (until - time.monotonic()))):
                        raise BlockingIOError(errno.EAGAIN, "nobody reads it")
                    # What is no longer than this never blocks where poll has found room (pipe(7)).
                    written = os.write(descriptor, self._rest[: select.PIPE_BUF])
                except OSError as error:
                    is_whole = left < len(whole) and self._rest == line
                    self._rest = b"" if is_whole else self._rest
                    lost = left + is_whole
                    raise PartlyWrittenError(error.errno or 0, error.strerror or "", lost=lost) from error
                self._rest = self._rest[written:]


class FileWriter:
    """Write to a file, and begin the next where it is full; ``FILE.1`` is then the one before."""

    def __init__(self, path: Path, *, rotate_bytes: int, keep_files: int) -> None:
        """Take the place; the file is opened for each batch, so that others may move it away.

        Args:
            path: of the file. An existing file is appended to; a symbolic link is refused.
            rotate_bytes: from which on a file is full.
            keep_files: how many earlier ones are kept.
        """
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._keep_files = keep_files
        self._lines = _Lines()

    def write(self, entries: Sequence[FlowRecord]) -> None:
        """Write a line for each: to a file all of them or none, to a FIFO as long as somebody reads."""
        self._make_room()
        # A FIFO that nobody reads would else block here.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, _FILE_MODE)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                _write_whole(descriptor, "".join(map(as_line, entries)).encode("ascii"))
            else:
                self._lines.write(descriptor, entries)
        finally:
            os.close(descriptor)

    def _make_room(self) -> None:
        """Begin the next file if there is a full one."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.lstat().st_size >= self._rotate_bytes:
                self._rotate()

    def _rotate(self) -> None:
        """Move every file on by one; the last is gone."""
        if not self._keep_files:
            self._path.unlink(missing_ok=True)
            return
        for number in range(self._keep_files, 0, -1):
            earlier = self._numbered(number - 1) if number > 1 else self._path
            if earlier.exists():
                earlier.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _write_whole(descriptor: int, text: bytes) -> None:
    """Append a text; of one that has no room, nothing stays behind that is no line."""
    before = os.fstat(descriptor).st_size
    try:
        while text:
            text = text[os.write(descriptor, text) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, before)
        raise


class JournalWriter:
    """Write to systemd's journal, each entry a sentence for people with fields to select by."""

    def __init__(self, path: Path = JOURNAL) -> None:
        """Take the place of the journal's socket; who listens there is looked for at each batch."""
        self._path = path

    def write(self, entries: Sequence[FlowRecord]) -> None:
        """Send a datagram for each, as long as the journal takes them."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            journal.settimeout(_LONGEST_WAIT_SECONDS)
            journal.connect(str(self._path))
            lost, fault = 0, None
            for number, entry in enumerate(entries, 1):
                text = "".join(f"{name}={value}\n" for name, value in _fields(entry).items())
                try:
                    journal.send(text.encode())
                except OSError as error:
                    lost, fault = lost + 1, error
                    if error.errno != errno.EMSGSIZE:  # nor would it take the others
                        lost += len(entries) - number
                        break
        if fault is not None:
            reason = fault.strerror or str(fault)
            raise PartlyWrittenError(fault.errno or errno.EAGAIN, reason, lost=lost) from fault


def _fields(entry: FlowRecord) -> dict[str, object]:
    """Return an entry as fields of the journal; none of its texts can end a line."""
    fields: dict[str, object] = {
        "MESSAGE": sentence(entry),
        "PRIORITY": _INFORMATIONAL,
        "SYSLOG_IDENTIFIER": _IDENTIFIER,
        "SGAGENT_FLOW": as_line(entry).rstrip("\n"),
        "SGAGENT_INTERFACE": entry.interface,
        "SGAGENT_DIRECTION": entry.direction.value,
        "SGAGENT_VERDICT": entry.verdict.value,
        "SGAGENT_DECIDED_BY": entry.decided_by.value,
    }
    if entry.rule_id is not None:
        fields |= {
            "SGAGENT_RULE_ID": json.dumps(entry.rule_id)[1:-1],
            "SGAGENT_SECURITY_GROUP_ID": json.dumps(entry.security_group_id)[1:-1],
        }
    return fields


def make_writer(settings: FlowLogSettings) -> FlowWriter | None:
    """Return the writer of flows; None keeps them in memory only."""
    match settings.output:
        case FlowOutput.NONE:
            return None
        case FlowOutput.JOURNAL:
            return JournalWriter()
        case FlowOutput.STDOUT:
            return StreamWriter(sys.stdout)
        case Path() as path:
            return FileWriter(path, rotate_bytes=settings.rotate_bytes, keep_files=settings.keep_files)
        case _:
            assert_never(settings.output)
