"""Write flows down, one JSON object a line: to a file with rotation, the journal, or standard output."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TextIO

from sgagent.agent.flows.flow import Flow, FlowsLeftOut
from sgagent.agent.flows.words import sentence

JOURNAL = Path("/run/systemd/journal/socket")
_IDENTIFIER = "sgagent-flows"
_INFORMATIONAL = 6
_FILE_MODE = 0o640
_LONGEST_WAIT_SECONDS = 2.0

Entry = Flow | FlowsLeftOut


class FlowWriter(Protocol):
    """Somewhere to write to. Belongs to one thread."""

    def write(self, entries: Sequence[Entry]) -> None:
        """Write entries, in their order.

        Raises:
            OSError: they could not be written, or not all of them.
        """
        ...


def as_line(entry: Entry) -> str:
    """Return an entry as a line of JSON; everything that is not plain ASCII is escaped."""
    fields = asdict(entry, dict_factory=_named_values)
    del fields["seen_at"]
    return json.dumps({"time": written_time(entry.seen_at), **fields}) + "\n"


def _named_values(fields: list[tuple[str, object]]) -> dict[str, object]:
    """Return fields with the words of enums in their place."""
    return {name: value.value if isinstance(value, enum.Enum) else value for name, value in fields}


def written_time(seconds: float) -> str:
    """Return a moment as ISO 8601 writes it, in UTC with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class NoWriter:
    """Write nothing: what is remembered has to do."""

    def write(self, entries: Sequence[Entry]) -> None:
        """Let the entries go."""


class StreamWriter:
    """Write to a stream that is open already."""

    def __init__(self, stream: TextIO) -> None:
        """Take the stream."""
        self._stream = stream

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a line for each."""
        self._stream.write("".join(map(as_line, entries)))
        self._stream.flush()


class FileWriter:
    """Write to a file, and begin the next where it is full; ``FILE.1`` is then the one before."""

    def __init__(self, path: Path, *, rotate_bytes: int, keep_files: int) -> None:
        """Take the place; the file is opened for each batch, so that others may move it away.

        Args:
            path: of the file. What stands there is gone on with; a link is not followed.
            rotate_bytes: from which on a file is full.
            keep_files: how many earlier ones are kept.
        """
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._keep_files = keep_files

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a line for each, all of them or none."""
        self._make_room()
        text = "".join(map(as_line, entries)).encode("ascii")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, _FILE_MODE)
        try:
            _write_whole(descriptor, text)
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

    def write(self, entries: Sequence[Entry]) -> None:
        """Send a datagram for each."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            journal.settimeout(_LONGEST_WAIT_SECONDS)
            journal.connect(str(self._path))
            for entry in entries:
                journal.send("".join(f"{name}={value}\n" for name, value in _fields(entry).items()).encode())


def _fields(entry: Entry) -> dict[str, object]:
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
