"""Codec of etcd's v3 API messages, limited to those in use, in the wire format of protocol buffers.

The field numbers are those of etcd's ``rpc.proto`` and ``kv.proto``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sgagent.documents import Limits
from sgagent.documents.problems import FULL_DOCUMENTS
from sgagent.sources.etcd.grpc import MalformedGrpcError, StoreTooLargeError

T = TypeVar("T")

FieldValue = int | bytes
"""A number, or the bytes of a text or of a nested message."""

_VARINT, _LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}
"""The bytes of the types of fixed length."""

_LONGEST_VARINT = 10
_UINT64 = (1 << 64) - 1
_SIGN = 1 << 63


def number(field: int, value: int) -> bytes:
    """Return a field that holds a number; nothing for 0, which a missing one means."""
    return present_number(field, value) if value else b""


def present_number(field: int, value: int) -> bytes:
    """Return a field that holds a number, also where it is 0: one of several alternatives."""
    return _varint(field << 3 | _VARINT) + _varint(value & _UINT64)


def text(field: int, value: str | bytes) -> bytes:
    """Return a field that holds a text or bytes; nothing for none, which a missing one means."""
    return nested(field, value.encode() if isinstance(value, str) else value) if value else b""


def nested(field: int, message: bytes) -> bytes:
    """Return a field that holds a message, also where that has no fields itself."""
    return _varint(field << 3 | _LENGTH) + _varint(len(message)) + message


def read_fields(message: bytes) -> Iterator[tuple[int, FieldValue]]:
    """Yield the fields of a message in their order.

    Raises:
        MalformedGrpcError: the bytes end in the middle of a field, or hold a type that is not known.
    """
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield field, value
            continue
        if kind == _LENGTH:
            length, at = _read_varint(message, at)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise _malformed(f"wire type {kind} in field {field}")
        if length > len(message) - at:
            raise _malformed(f"field {field} ends beyond the message")
        yield field, message[at : at + length]
        at += length


def signed(value: FieldValue) -> int:
    """Return the number of a field of type int64.

    Raises:
        MalformedGrpcError: the field holds no number.
    """
    found = unsigned(value)
    return found - (1 << 64) if found & _SIGN else found


def unsigned(value: FieldValue) -> int:
    """Return the number of a field of type uint64, bool or enum.

    Raises:
        MalformedGrpcError: the field holds no number.
    """
    if not isinstance(value, int):
        raise _malformed("bytes where a number should be")
    return value


def content(value: FieldValue) -> bytes:
    """Return the bytes of a field.

    Raises:
        MalformedGrpcError: the field holds a number.
    """
    if not isinstance(value, bytes):
        raise _malformed("a number where bytes should be")
    return value


def _varint(value: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number and where the next field begins."""
    value = 0
    for place in range(_LONGEST_VARINT):
        if at + place >= len(message):
            raise _malformed("a number ends beyond the message")
        group = message[at + place]
        value |= (group & 0x7F) << (7 * place)
        if group < 0x80:
            return value & _UINT64, at + place + 1
    raise _malformed("a number of more than 64 bits")


def _malformed(reason: str) -> MalformedGrpcError:
    return MalformedGrpcError(f"an answer that can't be read: {reason}")


@dataclass(frozen=True, slots=True, order=True)
class KeyRange:
    """A key, or all keys from one up to another."""

    first: str
    end: str = ""
    """The first key that is no part of it; empty for a single key."""

    @classmethod
    def below(cls, prefix: str) -> KeyRange:
        """Return the range of all keys that begin with a prefix; its last character must be ASCII."""
        return cls(prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))

    def __contains__(self, key: str) -> bool:
        """Return whether a key lies in the range."""
        return self.first <= key < self.end if self.end else key == self.first


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """A key as it stands in the store."""

    key: str = ""
    value: bytes = b""
    mod_revision: int = 0
    lease: int = 0
    """Under which lease it was written; 0 for none."""


@dataclass(frozen=True, slots=True)
class Header:
    """The store's state in every answer."""

    cluster_id: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The answer to a question for keys."""

    header: Header = Header()
    items: tuple[KeyValue, ...] = ()
    has_more: bool = False
    count: int = 0
    """Keys in the whole range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEvent:
    """A change of a key."""

    item: KeyValue = KeyValue()
    """Without a value where the key was deleted."""

    is_deletion: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchAnswer:
    """A message of a watch."""

    header: Header = Header()
    watch_id: int = 0
    is_created: bool = False
    is_canceled: bool = False
    compact_revision: int = 0
    """Above 0: what was asked for begins before this revision, and is gone."""

    reason: str = ""
    """Why the watch was canceled."""

    events: tuple[KeyEvent, ...] = ()
    """In the order of their revisions."""


@dataclass(frozen=True, slots=True)
class PutKey:
    """Write a key."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class DeleteKey:
    """Delete a key."""

    key: str


Write = PutKey | DeleteKey


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Demand that a key was not written since it was read."""

    key: str
    mod_revision: int
    """0 where there was no such key."""


def range_request(asked: KeyRange, *, revision: int = 0, limit: int = 0, count_only: bool = False) -> bytes:
    """Encode a request for keys, in their order.

    Args:
        asked: the range.
        revision: the store's revision; 0 is now.
        limit: the largest number of keys; 0 is all.
        count_only: request only the number of keys.
    """
    return _range(asked) + number(3, limit) + number(4, revision) + number(9, count_only)


def _range(asked: KeyRange) -> bytes:
    return text(1, asked.first) + text(2, asked.end)


def transaction_request(conditions: Iterable[Unchanged], writes: Iterable[Write]) -> bytes:
    """Encode a request for writes that the store commits together if the conditions hold."""
    compared = b"".join(nested(1, _condition(condition)) for condition in conditions)
    return compared + b"".join(nested(2, _operation(write)) for write in writes)


def _condition(condition: Unchanged) -> bytes:
    equal, modification = 0, 2
    compared = number(1, equal) + number(2, modification) + text(3, condition.key)
    return compared + present_number(6, condition.mod_revision)


def _operation(write: Write) -> bytes:
    match write:
        case PutKey(key, value, lease):
            return nested(2, text(1, key) + text(2, value) + number(3, lease))
        case DeleteKey(key):
            return nested(3, text(1, key))


def watch_request(watched: KeyRange, start_revision: int, watch_id: int) -> bytes:
    """Encode a request for the changes of keys from a revision on, and for regular reports of progress."""
    return nested(1, _range(watched) + number(3, start_revision) + number(4, 1) + number(7, watch_id))


def lease_grant_request(seconds: int) -> bytes:
    """Encode a request for a new lease of some seconds."""
    return number(1, seconds)


def lease_keep_alive_request(lease: int) -> bytes:
    """Encode a request for the renewal of a lease, by its number."""
    return number(1, lease)


def authenticate_request(user: str, password: str) -> bytes:
    """Encode a request for a token."""
    return text(1, user) + text(2, password)


Fields = Mapping[int, tuple[str, Callable[[FieldValue], object]]]
"""The attribute of each field of a message, and what reads it."""


def _read(message: bytes, fields: Fields) -> dict[str, Any]:
    """Return the known fields of a message by their attributes; of a repeated field, the last."""
    known = ((fields[field], value) for field, value in read_fields(message) if field in fields)
    return {name: read(value) for (name, read), value in known}


def _flag(value: FieldValue) -> bool:
    return bool(unsigned(value))


def _text(value: FieldValue) -> str:
    return content(value).decode(errors="replace")


def _nested(declared: Callable[..., T], fields: Fields) -> Callable[[FieldValue], T]:
    """Return a reader of a field that holds a message."""
    return lambda value: declared(**_read(content(value), fields))


_header = _nested(Header, {1: ("cluster_id", unsigned), 3: ("revision", signed)})
_key_value = _nested(
    KeyValue, {1: ("key", _text), 3: ("mod_revision", signed), 5: ("value", content), 6: ("lease", signed)}
)
_event = _nested(KeyEvent, {1: ("is_deletion", _flag), 2: ("item", _key_value)})
_RANGE: Fields = {1: ("header", _header), 3: ("has_more", _flag), 4: ("count", signed)}
_WATCH: Fields = {
    1: ("header", _header),
    2: ("watch_id", signed),
    3: ("is_created", _flag),
    4: ("is_canceled", _flag),
    5: ("compact_revision", signed),
    6: ("reason", _text),
}


def read_range(message: bytes, limit: int) -> Range:
    """Decode the answer to :func:`range_request`.

    Raises:
        MalformedGrpcError: it has more keys than the limit, or is malformed.
    """
    items: list[KeyValue] = []

    def take(value: FieldValue) -> None:
        if len(items) == limit:
            raise _malformed(f"more than the {limit} keys that were asked for")
        items.append(_key_value(value))

    return Range(**_read(message, {**_RANGE, 2: ("items", take)}) | {"items": tuple(items)})


def read_transaction(message: bytes) -> tuple[Header, bool]:
    """Decode the answer to :func:`transaction_request`: the header, and whether the conditions held."""
    found = _read(message, {1: ("header", _header), 2: ("has_succeeded", _flag)})
    return found.get("header", Header()), found.get("has_succeeded", False)


def read_watch(message: bytes, count: Callable[[KeyValue], None]) -> WatchAnswer:
    """Decode a message of a watch.

    Args:
        message: the encoded message.
        count: called with each key before the next one is decoded; an exception ends the decoding.
    """
    events: list[KeyEvent] = []

    def take(value: FieldValue) -> None:
        events.append(_event(value))
        count(events[-1].item)

    return WatchAnswer(**_read(message, {**_WATCH, 11: ("events", take)}) | {"events": tuple(events)})


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as the store sees it."""

    number: int = 0
    seconds: int = 0
    """Until it ends; 0 or less where it has ended."""


def read_lease(message: bytes) -> Lease:
    """Decode the answer to either request about a lease."""
    return Lease(**_read(message, {2: ("number", signed), 3: ("seconds", signed)}))


def read_token(message: bytes) -> str:
    """Decode the answer to :func:`authenticate_request`."""
    try:
        return next((content(value).decode() for field, value in read_fields(message) if field == 2), "")
    except UnicodeDecodeError as error:
        raise _malformed(str(error)) from error


KEY_BYTES = 100
"""Counted for each key in addition to name and value: about half of its overhead in memory."""


_AROUND_BYTES = 1 << 20
"""Size allowance for the rest of a message around a document."""


def largest_message(limits: Limits) -> int:
    """Return the size limit of a message, which fits one document of the largest allowed size."""
    return limits.document_bytes + _AROUND_BYTES


def weight(item: KeyValue) -> int:
    """Return the counted size of a key with its value, in bytes."""
    return KEY_BYTES + len(item.key) + len(item.value)


@dataclass(slots=True)
class SizeBudget:
    """Size budget of keys that are read together."""

    most_bytes: int
    """Limit for all keys together."""

    taken_bytes: int = 0

    def take(self, items: Iterable[KeyValue]) -> None:
        """Count received keys.

        Raises:
            StoreTooLargeError: the keys exceed the budget.
        """
        self.taken_bytes += sum(map(weight, items))
        if self.taken_bytes > self.most_bytes:
            raise too_large(self.most_bytes)


def too_large(most_bytes: int) -> StoreTooLargeError:
    """Return the error of keys over the size limit."""
    reason = f"the keys with their values have more than {most_bytes} bytes"
    return StoreTooLargeError(f"{reason}, {FULL_DOCUMENTS} times limits.document_bytes")
