"""The protocol between agent and applier: framed messages, and one form for the values in them.

A message is a kind, a length and a content. A content is a list of values in JSON; an object is its class and
its fields, ``{"Goto":["rule/eth0/web"]}``. A listing of the table and a dump of counters pass unchanged.
:mod:`sgagent.dataplane.request_validation` checks what the agent sends.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import socket
import struct
from collections.abc import Mapping
from functools import partial
from typing import Any, assert_never, get_args

from sgagent.core.errors import KernelRefusedError, NotPermittedError, SgagentError, UsageError
from sgagent.core.model import Direction, Family
from sgagent.dataplane.generation import RulesetChange
from sgagent.dataplane.live_sessions import Ending, TrackedSession
from sgagent.dataplane.table import Applied, TableListing
from sgagent.nft import ruleset as nft
from sgagent.nft.transactions import Operation


class MalformedMessageError(Exception):
    """Say that a message is not what an agent in its right mind sends."""


class Verb(enum.IntEnum):
    """What the agent can ask for; the applier can do nothing else."""

    BEGIN = 1
    """Say once, before all else, which bits of the session mark are the agent's."""

    READ_GENERATION = 2
    LIST_TABLE = 3
    LIST_COUNTERS = 4
    APPLY = 5
    CLEAR_MARKS = 6
    REFUSE_ANOTHER_OWNER = 7
    FIND_SESSION = 8
    END_SESSION = 9
    ALLOW_LOG = 10
    """Say once, before it has read any document, to which group of the kernel's packet log rules may log."""

    OPEN_LOG = 11
    """Listen to that group; the socket to read follows the answer."""

    OPEN_LISTING = 12
    """List the table in a process of its own; the socket to read it from follows the answer."""


class Reply(enum.IntEnum):
    """How an answer begins."""

    DONE = 1
    REFUSED = 2


LONGEST_REQUEST = 256 << 20
"""A plan of 1,000,000 addresses takes a third of it."""

LONGEST_ANSWER = 1 << 30
"""A listing is several times as long as the plan that made the table."""

_HEADER = struct.Struct(">BI")
_PIECE = 1 << 20


def send(channel: socket.socket, kind: Verb | Reply, content: bytes) -> None:
    """Send a message.

    Raises:
        OSError: the other side is gone, or takes nothing.
    """
    channel.sendall(_HEADER.pack(kind, len(content)))
    if content:  # with nothing to come the other side has all of it, and may be gone
        channel.sendall(content)


def receive(channel: socket.socket, longest: int) -> tuple[int, bytes] | None:
    """Return the kind and the content of the next message; None where the other side is gone.

    Args:
        channel: where to receive.
        longest: how long a content may be. Memory is taken only as it arrives.

    Raises:
        MalformedMessageError: it is longer.
        OSError: it does not arrive.
    """
    header = _receive(channel, _HEADER.size)
    if header is None:
        return None
    kind, length = _HEADER.unpack(header)
    if length > longest:
        raise MalformedMessageError("longer than any message")
    content = _receive(channel, length)
    return None if content is None else (kind, content)


def _receive(channel: socket.socket, length: int) -> bytes | None:
    received = bytearray()
    while len(received) < length:
        piece = channel.recv(min(length - len(received), _PIECE))
        if not piece:
            return None
        received += piece
    return bytes(received)


def hand_over(channel: socket.socket, given: socket.socket) -> None:
    """Give the other side a socket, behind a message.

    Raises:
        OSError: the other side is gone, or takes nothing.
    """
    socket.send_fds(channel, [_TOKEN], [given.fileno()])


def take_over(channel: socket.socket) -> socket.socket:
    """Return the socket that follows a message.

    Raises:
        MalformedMessageError: none does.
        OSError: it does not arrive.
    """
    received, descriptors, _, _ = socket.recv_fds(channel, len(_TOKEN), 1)
    taken = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    if received != _TOKEN or len(taken) != 1:
        raise MalformedMessageError("no socket, where one was to come")
    taken[0].set_inheritable(False)
    return taken[0]


_TOKEN = b"."
"""What a socket travels with."""


def verb(kind: int) -> Verb:
    """Return what the kind of a message asks for.

    Raises:
        MalformedMessageError: nothing that there is.
    """
    try:
        return Verb(kind)
    except ValueError as error:
        raise MalformedMessageError("no such verb") from error


_CLASSES: Mapping[str, type] = {
    kind.__name__: kind
    for kind in (
        *get_args(Operation),
        *get_args(nft.Statement),
        *(
            nft.Chain,
            nft.Counter,
            nft.Element,
            nft.Hook,
            nft.Interval,
            nft.KeyType,
            nft.NamePrefix,
            nft.Operator,
            nft.Rule,
            nft.Selector,
            nft.Symbol,
            nft.TupleDirection,
        ),
        *(nft.VerdictMap, Direction, Family, Applied, TrackedSession, Ending, RulesetChange),
    )
}
"""All that a message may hold: frozen values that do nothing when they are made."""

_FIELDS: Mapping[type, tuple[str, ...]] = {
    kind: tuple(field.name for field in dataclasses.fields(kind))
    for kind in _CLASSES.values()
    if dataclasses.is_dataclass(kind)
}
_KEYWORD_ONLY = frozenset({nft.Chain, nft.Counter, nft.Hook, nft.VerdictMap})


def encode(*values: object) -> bytes:
    """Return values as a content."""
    return _ENCODER.encode(values).encode("ascii")


def _as_json(value: object) -> Mapping[str, list[Any]]:
    kind = type(value)
    fields = _FIELDS.get(kind)
    if fields is not None:
        return {kind.__name__: [getattr(value, name) for name in fields]}
    if isinstance(value, enum.Enum):
        return {kind.__name__: [value.value]}
    raise TypeError(f"no message holds a {kind.__name__}")


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_as_json, check_circular=False)


def decode(content: bytes) -> tuple[Any, ...]:
    """Return the values of a content; a list in a value becomes a tuple.

    Their classes are among the known ones, and nothing else is sure about them.

    Raises:
        MalformedMessageError: it is no list of values.
    """
    try:
        values = json.loads(content.decode("ascii") or "[]", object_pairs_hook=partial(_value, {}))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise MalformedMessageError("no values that can be read") from error
    if type(values) is not list:
        raise MalformedMessageError("no list of values")
    return tuple(values)


def _value(verdicts: dict[str, nft.Goto], content: list[tuple[str, Any]]) -> object:
    """Return the value of a JSON object; very many elements of a map share few verdicts."""
    [(name, fields)] = content
    if name == "Goto":
        (chain,) = fields
        return verdicts.get(chain) or verdicts.setdefault(chain, nft.Goto(chain))
    if name == "Interval":  # as are most of the others
        return nft.Interval(*fields)
    kind = _CLASSES[name]
    values = [tuple(field) if type(field) is list else field for field in fields]
    if kind in _KEYWORD_ONLY:
        return kind(**dict(zip(_FIELDS[kind], values, strict=True)))
    return kind(*values)


def encode_listing(listing: TableListing, *, is_owner: bool) -> bytes:
    """Return a listing as a content: a line of values, and the text unchanged."""
    stands = listing.text is not None
    head = encode(listing.generation, listing.is_unreadable, is_owner, stands)
    return head + b"\n" + (listing.text or b"")


def decode_listing(content: bytes) -> tuple[TableListing, bool]:
    """Return a listing, and whether the table is owned."""
    head, _, text = content.partition(b"\n")
    generation, is_unreadable, is_owner, stands = json.loads(head)
    return TableListing(generation, text if stands else None, is_unreadable), is_owner


Refusal = SgagentError | OSError | MalformedMessageError
"""What the applier answers instead of doing something."""


def encode_refusal(refusal: Refusal) -> bytes:
    """Return a refusal as a content."""
    match refusal:
        case KernelRefusedError(reason=reason, subject=subject):
            return encode("kernel", reason, subject)
        case NotPermittedError():
            return encode("not permitted", str(refusal), None)
        case OSError():
            return encode("system", refusal.strerror or str(refusal), refusal.errno)
        case MalformedMessageError():
            return encode("malformed", str(refusal), None)
        case SgagentError():
            return encode("use", str(refusal), None)
        case _:
            assert_never(refusal)


def decode_refusal(content: bytes) -> SgagentError | OSError:
    """Return the refusal as the exception that it would have been in this process."""
    kind, text, more = decode(content)
    match kind:
        case "kernel":
            return KernelRefusedError(text, more)
        case "not permitted":
            return NotPermittedError(text)
        case "system":
            return OSError(more, text)
        case "malformed":
            return KernelRefusedError(f"the applier takes no such request: {text}")
        case _:
            return UsageError(text)
