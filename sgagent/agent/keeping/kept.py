"""Write down what was enforced, and read it back: the documents as delivered, and what they came to.

A file is three lines: what it is and its checksum, a short head that is read for lists, and the documents.
Files of earlier formats are one JSON object, and are read too.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sgagent.core.host_facts import ExpectedLink
from sgagent.documents import DocumentFile

_FORMAT = 3
_SINGLE_OBJECT_FORMATS = (1, 2)
"""The first of these lacks the links, both lack the record."""

_UNLIKE_OURS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a file raises that this program has not written."""


class DamagedStateError(Exception):
    """A kept file does not hold what it should; its name and the reason are the message."""


class Origin(enum.Enum):
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

    origin: Origin = Origin.SOURCE
    enforced_at: float | None = None
    """When they were enforced first, in seconds since the epoch; None where that was not written down."""

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
    """Where network interfaces were found, so that they are judged by name before they can be found again."""

    record: Record = field(default_factory=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is told of kept documents without reading them."""

    version: str
    record: Record
    documents: int
    bytes: int
    """Of all documents."""


def encode_kept(kept: KeptDocuments) -> bytes:
    """Return the content of a file."""
    head = json.dumps(
        {
            "version": kept.version,
            "record": _encode_record(kept.record),
            "documents": len(kept.documents),
            "bytes": sum(len(file.content) for file in kept.documents),
        }
    )
    # In ASCII, as a file's name need not be text.
    body = json.dumps(
        {
            "documents": [{"name": file.name, "content": file.content.decode()} for file in kept.documents],
            "links": [
                {"interface": link.interface, "network_interface_id": link.network_interface_id}
                for link in kept.links
            ],
        }
    )
    rest = f"{head}\n{body}\n".encode()
    first = json.dumps({"format": _FORMAT, "sha256": hashlib.sha256(rest).hexdigest()})
    return first.encode() + b"\n" + rest


LONGEST_HEAD = 1 << 14
"""Bytes at the beginning of a file, in which its head is, but for the longest."""


def may_be_of_version(beginning: bytes, version: str) -> bool:
    """Return whether a file may hold documents of a version; no, only where it names another.

    Args:
        beginning: as much of the file as its head may take; whether it is whole is not asked.
        version: of documents.
    """
    try:
        outer, head, _ = beginning.split(b"\n", 2)
        named = _text(json.loads(head)["version"])
        return json.loads(outer)["format"] != _FORMAT or named == version
    except _UNLIKE_OURS:
        return True


def decode_head(content: bytes, place: str) -> Head:
    """Return the head of a file whose content is whole.

    Args:
        content: of the file.
        place: its name, for the message.

    Raises:
        DamagedStateError: it is not.
    """
    try:
        lines = _lines(content, place)
        if len(lines) == 1:
            return _head_of(_decode_single_object(lines[0], place))
        head = json.loads(lines[0])
        return Head(
            version=_text(head["version"]),
            record=_decode_record(head["record"]),
            documents=int(head["documents"]),
            bytes=int(head["bytes"]),
        )
    except _UNLIKE_OURS as error:
        raise _damaged(place, error) from error


def decode_kept(content: bytes, place: str) -> KeptDocuments:
    """Return the documents of a file.

    Raises:
        DamagedStateError: its content is not whole, or none of ours.
    """
    try:
        lines = _lines(content, place)
        if len(lines) == 1:
            return _decode_single_object(lines[0], place)
        head, body = (json.loads(line) for line in lines)
        return _decode_body(body, _text(head["version"]), _decode_record(head["record"]))
    except _UNLIKE_OURS as error:
        raise _damaged(place, error) from error


def _lines(content: bytes, place: str) -> list[bytes]:
    """Return head and body, or the one object of an earlier format."""
    first, _, rest = content.partition(b"\n")
    outer = json.loads(first)
    if outer["format"] in _SINGLE_OBJECT_FORMATS:
        return [first]
    if outer["format"] != _FORMAT:
        raise DamagedStateError(f"{place}: of format {outer['format']!r}, which this version does not read")
    _compare(outer["sha256"], rest, place)
    return rest.split(b"\n", 2)[:2]


def _compare(checksum: object, content: bytes, place: str) -> None:
    """Hold content against its checksum."""
    if checksum != hashlib.sha256(content).hexdigest():
        raise DamagedStateError(f"{place}: damaged: the checksum does not agree")


def _decode_single_object(line: bytes, place: str) -> KeptDocuments:
    outer = json.loads(line)
    _compare(outer["sha256"], outer["body"].encode(), place)
    body = json.loads(outer["body"])
    return _decode_body(body, _text(body["version"]), Record())


def _head_of(kept: KeptDocuments) -> Head:
    return Head(
        version=kept.version,
        record=kept.record,
        documents=len(kept.documents),
        bytes=sum(len(file.content) for file in kept.documents),
    )


def _decode_body(body: Mapping[str, Any], version: str, record: Record) -> KeptDocuments:
    documents = tuple(
        DocumentFile(name=file["name"], content=file["content"].encode()) for file in body["documents"]
    )
    links = tuple(
        ExpectedLink(interface=link["interface"], network_interface_id=link["network_interface_id"])
        for link in body.get("links", ())
    )
    return KeptDocuments(version=version, documents=documents, links=links, record=record)


def _encode_record(record: Record) -> dict[str, object]:
    extent, terms = record.extent, record.terms
    return {
        "origin": record.origin.value,
        "enforced_at": record.enforced_at,
        "held_back": record.held_back,
        "extent": extent
        and {
            "interfaces": extent.interfaces,
            "rules": extent.rules,
            "chains": extent.chains,
            "elements": extent.elements,
        },
        "terms": terms and {"boot_id": terms.boot_id, "began": terms.began, "deadline": terms.deadline},
    }


def _decode_record(record: Mapping[str, Any]) -> Record:
    extent, terms = record["extent"], record["terms"]
    return Record(
        origin=Origin(record["origin"]),
        enforced_at=None if record["enforced_at"] is None else float(record["enforced_at"]),
        held_back=None if record["held_back"] is None else _text(record["held_back"]),
        extent=None if extent is None else Extent(**{name: int(extent[name]) for name in _EXTENT}),
        terms=None
        if terms is None
        else Terms(
            boot_id=_text(terms["boot_id"]), began=float(terms["began"]), deadline=float(terms["deadline"])
        ),
    )


_EXTENT = ("interfaces", "rules", "chains", "elements")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r}")
    return value


def _damaged(place: str, error: Exception) -> DamagedStateError:
    return DamagedStateError(f"{place}: damaged: not a file of kept documents: {error}")
