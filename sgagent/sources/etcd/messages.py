"""Codec of etcd's v3 API messages, limited to those in use.

The field numbers are those of etcd's ``rpc.proto`` and ``kv.proto``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sgagent.documents import Limits
from sgagent.documents.problems import FULL_DOCUMENTS
from sgagent.sources.etcd.grpc import (
    MalformedGrpcError,
    StoreTooLargeError,
    Value,
    content,
    nested,
    number,
    present_number,
    read_fields,
    signed,
    text,
    unsigned,
)


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
    """What every answer says of the store."""

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
    """Ask for keys, in their order.

    Args:
        asked: which.
        revision: as they stood then; 0 is now.
        limit: at most so many; 0 is all.
        count_only: only how many there are.
    """
    return (
        text(1, asked.first.encode())
        + text(2, asked.end.encode())
        + number(3, limit)
        + number(4, revision)
        + number(9, count_only)
    )


def transaction_request(conditions: Iterable[Unchanged], writes: Iterable[Write]) -> bytes:
    """Ask for writes that are carried out all together, if the conditions hold.

    Args:
        conditions: what must hold.
        writes: what is done then.
    """
    compared = b"".join(nested(1, _condition(condition)) for condition in conditions)
    return compared + b"".join(nested(2, _operation(write)) for write in writes)


def _condition(condition: Unchanged) -> bytes:
    equal, modification = 0, 2
    return (
        number(1, equal)
        + number(2, modification)
        + text(3, condition.key.encode())
        + present_number(6, condition.mod_revision)
    )


def _operation(write: Write) -> bytes:
    match write:
        case PutKey(key, value, lease):
            return nested(2, text(1, key.encode()) + text(2, value) + number(3, lease))
        case DeleteKey(key):
            return nested(3, text(1, key.encode()))


def watch_request(watched: KeyRange, start_revision: int, watch_id: int) -> bytes:
    """Ask for the changes of keys from a revision on, and now and then how far one has come."""
    create = (
        text(1, watched.first.encode())
        + text(2, watched.end.encode())
        + number(3, start_revision)
        + number(4, 1)
        + number(7, watch_id)
    )
    return nested(1, create)


def lease_grant_request(seconds: int) -> bytes:
    """Ask for a lease that ends after so many seconds unless it is renewed."""
    return number(1, seconds)


def lease_request(lease: int) -> bytes:
    """Ask for a lease to be renewed."""
    return number(1, lease)


def authenticate_request(user: str, password: str) -> bytes:
    """Ask for a token."""
    return text(1, user.encode()) + text(2, password.encode())


Fields = Mapping[int, tuple[str, Callable[[Value], object]]]
"""The attribute of each field of a message, and what reads it."""


def _read(message: bytes, fields: Fields) -> dict[str, Any]:
    """Return the known fields of a message by their attributes; of a repeated one, the last."""
    known = ((fields[field], value) for field, value in read_fields(message) if field in fields)
    return {name: read(value) for (name, read), value in known}


def _flag(value: Value) -> bool:
    return bool(unsigned(value))


def _text(value: Value) -> str:
    return content(value).decode(errors="replace")


def _header(value: Value) -> Header:
    return Header(**_read(content(value), _HEADER))


def _key_value(value: Value) -> KeyValue:
    return KeyValue(**_read(content(value), _KEY_VALUE))


def _event(value: Value) -> KeyEvent:
    return KeyEvent(**_read(content(value), _EVENT))


_HEADER: Fields = {1: ("cluster_id", unsigned), 3: ("revision", signed)}
_KEY_VALUE: Fields = {
    1: ("key", _text),
    3: ("mod_revision", signed),
    5: ("value", content),
    6: ("lease", signed),
}
_EVENT: Fields = {1: ("is_deletion", _flag), 2: ("item", _key_value)}
_RANGE: Fields = {1: ("header", _header), 3: ("has_more", _flag), 4: ("count", signed)}
_TRANSACTION: Fields = {1: ("header", _header), 2: ("has_succeeded", _flag)}
_LEASE: Fields = {2: ("number", signed), 3: ("seconds", signed)}
_WATCH: Fields = {
    1: ("header", _header),
    2: ("watch_id", signed),
    3: ("is_created", _flag),
    4: ("is_canceled", _flag),
    5: ("compact_revision", signed),
    6: ("reason", _text),
}


def read_range(message: bytes, limit: int) -> Range:
    """Read the answer to :func:`range_request`, which asked for at most so many keys.

    Raises:
        MalformedMessageError: there are more, or it is no answer.
    """
    items: list[KeyValue] = []

    def take(value: Value) -> None:
        if len(items) == limit:
            raise MalformedGrpcError(f"more than the {limit} keys that were asked for")
        items.append(_key_value(value))

    return Range(**_read(message, {**_RANGE, 2: ("items", take)}) | {"items": tuple(items)})


def read_transaction(message: bytes) -> tuple[Header, bool]:
    """Read the answer to :func:`transaction_request`: the store, and whether the conditions held."""
    found = _read(message, _TRANSACTION)
    return found.get("header", Header()), found.get("has_succeeded", False)


def read_watch(message: bytes, count: Callable[[KeyValue], None]) -> WatchAnswer:
    """Decode a message of a watch.

    Args:
        message: the encoded message.
        count: called with each key before the next one is decoded; an exception ends the decoding.
    """
    events: list[KeyEvent] = []

    def take(value: Value) -> None:
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
    """Read the answer to a question for a lease, new or renewed."""
    return Lease(**_read(message, _LEASE))


def read_token(message: bytes) -> str:
    """Read the answer to :func:`authenticate_request`."""
    return next((content(value).decode() for field, value in read_fields(message) if field == 2), "")


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
