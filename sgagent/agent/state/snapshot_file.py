"""Write the documents that were enforced into a file, and read them back.

A file has three lines: its format with a checksum, a short head that is enough for lists, and the documents.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field

from sgagent.core.binding import ExpectedLink
from sgagent.documents import DocumentFile
from sgagent.json_model import UNREADABLE, checksum, from_json, to_json

_FORMAT = 3

LONGEST_HEAD = 1 << 14
"""Bytes from the beginning of a file that hold its head, unless that is unusually long."""


class DamagedStateError(Exception):
    """Report that a state file is damaged; its name and the reason are the message."""


class Trigger(enum.Enum):
    """What had documents enforced."""

    SOURCE = "source"
    APPLY = "apply"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How large the compiled table was."""

    interfaces: int
    rules: int
    """Of all interfaces; a group's rules count on each."""

    chains: int
    elements: int
    """Of all maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Until when documents on trial have to be confirmed. Seconds are of the boot's monotonic clock."""

    boot_id: str
    began: float
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How documents came to be enforced, and what was compiled from them."""

    origin: Trigger = Trigger.SOURCE
    enforced_at: float | None = None
    """When they were enforced first, in seconds since the epoch; None in files that do not have it."""

    held_back: str | None = None
    """The source's version that is not enforced as long as the source has no other, if there is one."""

    extent: Extent | None = None
    terms: Terms | None = None
    """Only of documents that are or were on trial."""


@dataclass(frozen=True, slots=True)
class KeptDocuments:
    """Documents that were enforced."""

    version: str
    documents: tuple[DocumentFile, ...]
    links: tuple[ExpectedLink, ...] = ()
    """Where network interfaces were found: their rules apply to these links until they are found again."""

    record: Record = field(default_factory=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotHead:
    """A summary of kept documents, which is read without them."""

    version: str
    record: Record
    documents: int
    bytes: int
    """Of all documents."""


@dataclass(frozen=True, slots=True)
class _FirstLine:
    """The first line of a file."""

    format: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class _Body:
    """The last line of a file."""

    documents: tuple[DocumentFile, ...]
    links: tuple[ExpectedLink, ...] = ()


def encode_kept(kept: KeptDocuments) -> bytes:
    """Return the content of a file."""
    head = json.dumps(to_json(_head_of(kept)))
    # In ASCII, as a file's name need not be text.
    body = json.dumps(to_json(_Body(kept.documents, kept.links)))
    rest = f"{head}\n{body}\n".encode()
    first = json.dumps({"format": _FORMAT, "sha256": checksum(rest)})
    return first.encode() + b"\n" + rest


def may_be_of_version(beginning: bytes, version: str) -> bool:
    """Return whether a file may hold documents of a version; False only where it names another.

    Args:
        beginning: the first LONGEST_HEAD bytes of the file; the checksum is not compared.
        version: of documents.
    """
    try:
        first, head, _ = beginning.split(b"\n", 2)
        named = from_json(SnapshotHead, json.loads(head)).version
        return from_json(_FirstLine, json.loads(first)).format != _FORMAT or named == version
    except UNREADABLE:
        return True


def decode_head(content: bytes, place: str) -> SnapshotHead:
    """Return the head of a file whose content is whole.

    Args:
        content: of the file.
        place: its name, for the message.

    Raises:
        DamagedStateError: it is not.
    """
    try:
        return from_json(SnapshotHead, json.loads(_lines(content, place)[0]))
    except UNREADABLE as error:
        raise _damaged(place, error) from error


def decode_kept(content: bytes, place: str) -> KeptDocuments:
    """Return the documents of a file.

    Raises:
        DamagedStateError: its content is not whole, or none of ours.
    """
    try:
        head, body = (json.loads(line) for line in _lines(content, place))
        summary, rest = from_json(SnapshotHead, head), from_json(_Body, body)
        return KeptDocuments(summary.version, rest.documents, rest.links, summary.record)
    except UNREADABLE as error:
        raise _damaged(place, error) from error


def _lines(content: bytes, place: str) -> list[bytes]:
    """Return head and body."""
    first, _, rest = content.partition(b"\n")
    line = from_json(_FirstLine, json.loads(first))
    if line.format != _FORMAT:
        raise DamagedStateError(f"{place}: of format {line.format!r}, which this version does not read")
    if line.sha256 != checksum(rest):
        raise DamagedStateError(f"{place}: damaged: the checksum does not agree")
    lines = rest.split(b"\n", 2)[:2]
    if len(lines) != 2:
        raise ValueError("a line is missing")
    return lines


def _head_of(kept: KeptDocuments) -> SnapshotHead:
    return SnapshotHead(
        version=kept.version,
        record=kept.record,
        documents=len(kept.documents),
        bytes=sum(len(file.content) for file in kept.documents),
    )


def _damaged(place: str, error: Exception) -> DamagedStateError:
    return DamagedStateError(f"{place}: damaged: not a file of kept documents: {error}")
