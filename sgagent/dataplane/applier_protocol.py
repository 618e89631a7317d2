"""The protocol between agent and applier: framed messages, and one form for the values in them.

A message is a kind, a length and a content. A content is a list of values in JSON; an object is its class and
its fields, ``{"Goto":["rule/eth0/web"]}``. Elements of a map, which are most of a plan, are rows of a verdict
and the ends of all keys that have it. Dumps of the table and of counters pass unchanged.
:mod:`sgagent.dataplane.request_validation` checks what the agent sends.
"""

from __future__ import annotations

import enum
import json
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any, get_args

from sgagent.core.conditions import GroupPath
from sgagent.core.errors import KernelRefusedError, NotPermittedError, SgagentError, UsageError
from sgagent.core.model import Direction, Family
from sgagent.core.tracked_sessions import ConntrackEntry, FlowTuple
from sgagent.dataplane.conntrack import TrackedSession
from sgagent.dataplane.flow_tables import FlowTable
from sgagent.dataplane.generation import RulesetChange, RulesetNumber
from sgagent.dataplane.live_sessions import Ending
from sgagent.dataplane.table import Applied, TableListing
from sgagent.nft import ruleset as nft, transactions as ops
from sgagent.nft.ruleset import SELECTORS
from sgagent.nft.text import selector_text


class MalformedMessageError(Exception):
    """Say that no agent in its right mind sends such a message."""


class Verb(enum.IntEnum):
    """The verbs of the agent's requests; the applier can do nothing else."""

    BEGIN = 1
    """Say once, before all else, which bits of the session mark are the agent's."""

    READ_GENERATION = 2
    LIST_TABLE = 3
    LIST_COUNTERS = 4
    APPLY = 5
    CLEAR_MARKS = 6
    REFUSE_ANOTHER_OWNER = 7
    FIND_SESSIONS = 8
    END_SESSION = 9
    ALLOW_LOG = 10
    """Say once, before it has read any document, to which group of the kernel's packet log rules may log."""

    OPEN_LOG = 11
    """Listen to that group; the socket to read follows the answer."""

    OPEN_LISTING = 12
    """List the table in a process of its own; the socket to read it from follows the answer."""

    OPEN_RULESET = 13
    """Read the tables of others in a process of its own; the socket to read it from follows the answer."""

    BEGIN_ENTRIES = 14
    """Begin to list conntrack's entries."""

    NEXT_ENTRIES = 15
    END_ENTRIES = 16
    RESTORE_ENTRY = 17
    """Make the entry of a TCP session at a socket of this host, as one that the far end opened."""

    LIST_FLOW_TABLES = 18
    READ_NUMBER = 19
    TAKE_UP = 20
    """Take the table up unlisted, if the ruleset still has a number."""

    CAN_ASK_FOR_GROUPS = 21
    """Try whether the kernel has rules that ask for the control group of a socket."""


class Reply(enum.IntEnum):
    """How an answer begins."""

    DONE = 1
    REFUSED = 2


LONGEST_REQUEST = 256 << 20
"""A plan of 1,000,000 addresses takes a tenth of it."""

LONGEST_ANSWER = 1 << 30
"""A dump is several times as long as the plan that made the table."""

LARGE_BYTES = 1 << 18
"""Size of a plan from which it is worth its time to give memory back."""

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


def send_socket(channel: socket.socket, given: socket.socket) -> None:
    """Give the other side a socket, behind a message.

    Raises:
        OSError: the other side is gone, or takes nothing.
    """
    socket.send_fds(channel, [_TOKEN], [given.fileno()])


def receive_socket(channel: socket.socket) -> socket.socket:
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
    """Return the verb of a message's kind.

    Raises:
        MalformedMessageError: nothing that there is.
    """
    try:
        return Verb(kind)
    except ValueError as error:
        raise MalformedMessageError("no such verb") from error


def _ends(values: Iterable[nft.Comparable]) -> Iterator[object]:
    """Yield both ends of each value; a word is the first, and None the last."""
    for value in values:
        yield from (value.first, value.last) if isinstance(value, nft.Interval) else (value, None)


def _values(ends: Sequence[Any]) -> Iterator[nft.Comparable]:
    pairs = zip(ends[::2], ends[1::2], strict=True)
    return (first if last is None else nft.Interval(first, last) for first, last in pairs)


_ElementOperation = ops.AddElements | ops.DeleteElements


def _write_elements(operation: _ElementOperation) -> list[object]:
    """Return the rows: the verdict of neighbours, and the ends of all fields of their keys."""
    rows = (
        [verdict, *_ends(field for element in neighbours for field in element.key)]
        for verdict, neighbours in groupby(operation.elements, attrgetter("verdict"))
    )
    return [operation.verdict_map, operation.key_types, *rows]


def _read_elements(
    kind: type[_ElementOperation], name: str, key_types: Sequence[Any], *rows: Sequence[Any]
) -> _ElementOperation:
    elements = list[nft.Element]()
    for verdict, *ends in rows:
        keys = zip(*[_values(ends)] * len(key_types), strict=True)
        elements += map(nft.Element, keys, repeat(verdict))
    return kind(name, tuple(key_types), tuple(elements))


def _write_fields(value: Any) -> list[object]:  # noqa: ANN401 - one of many classes
    if isinstance(value, enum.Enum):
        return [value.value]
    return [getattr(value, name) for name in value.__match_args__]


_SELECTORS = {selector_text(selector): selector for selector in SELECTORS}

_FORMS: Mapping[type, tuple[Callable[[Any], Sequence[object]], Callable[..., object]]] = {
    **{
        kind: (_write_fields, kind)
        for kind in (
            *(ops.AddTable, ops.DestroyTable, ops.AddCounter, ops.AddResetWatch, ops.Flush, ops.Delete),
            *(nft.Count, nft.Limit, nft.Log, nft.SetMark),
            *(ops.AddMeterSet,),
            *(nft.Accept, nft.Drop, nft.Goto, nft.Jump, nft.Return),
            *(nft.Counter, nft.Hook, nft.KeyType, nft.Symbol, nft.NamePrefix),
            *(GroupPath,),
            *(Direction, Family, Applied, FlowTuple, ConntrackEntry, FlowTable),
            *(TrackedSession, Ending, RulesetChange, RulesetNumber),
        )
    },
    **{kind: (_write_elements, partial(_read_elements, kind)) for kind in get_args(_ElementOperation)},
    ops.AddRule: (
        lambda it: [it.chain, *it.rule.statements],
        lambda chain, *statements: ops.AddRule(chain, nft.Rule(statements)),
    ),
    ops.AddChain: (
        lambda it: [it.chain.name, it.chain.hook, it.chain.comment],
        lambda name, hook, comment: ops.AddChain(nft.Chain(name=name, hook=hook, comment=comment)),
    ),
    ops.AddVerdictMap: (
        lambda it: [it.verdict_map.name, it.verdict_map.is_interval, *it.verdict_map.key_types],
        lambda name, is_interval, *key_types: ops.AddVerdictMap(
            nft.VerdictMap(name=name, key_types=key_types, is_interval=is_interval)
        ),
    ),
    nft.MeterSet: (
        lambda it: [it.name, it.key_type, it.size, it.timeout],
        lambda name, key_type, size, timeout: nft.MeterSet(
            name=name, key_type=key_type, size=size, timeout=timeout
        ),
    ),
    nft.Meter: (
        lambda it: [it.meter_set, selector_text(it.selector), it.rate, it.seconds, it.burst],
        lambda name, selector, *numbers: nft.Meter(name, _SELECTORS[selector], *numbers),
    ),
    nft.LookUp: (
        lambda it: [it.verdict_map, *map(selector_text, it.selectors)],
        lambda name, *selectors: nft.LookUp(tuple(map(_SELECTORS.__getitem__, selectors)), name),
    ),
    nft.Match: (
        lambda it: [selector_text(it.selector), it.operator.value, it.mask, *_ends(it.values)],
        lambda selector, operator, mask, *ends: nft.Match(
            _SELECTORS[selector], tuple(_values(ends)), nft.Operator(operator), mask
        ),
    ),
}
"""What writes the fields of each value that a message may hold, and what makes it of them.

They are frozen values that do nothing when they are made.
"""

_READERS = {kind.__name__: read for kind, (_, read) in _FORMS.items()}


def encode(*values: object) -> bytes:
    """Return values as a content."""
    return _ENCODER.encode(values).encode("ascii")


def _as_json(value: object) -> Mapping[str, Sequence[object]]:
    kind = type(value)
    write, _ = _FORMS[kind]
    return {kind.__name__: write(value)}


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_as_json, check_circular=False)


def decode(content: bytes) -> tuple[Any, ...]:
    """Return the values of a content.

    Their classes are among the known ones, and nothing else is sure about them.

    Raises:
        MalformedMessageError: it is no list of values.
    """
    try:
        values = json.loads(content.decode("ascii") or "[]", object_pairs_hook=_value)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise MalformedMessageError("no values that can be read") from error
    if type(values) is not list:
        raise MalformedMessageError("no list of values")
    return tuple(values)


def _value(content: list[tuple[str, Any]]) -> object:
    """Return the value of a JSON object."""
    [(name, fields)] = content
    return _READERS[name](*fields)


def encode_listing(listing: TableListing) -> bytes:
    """Return a listing as a content: a line of values, and the dump unchanged."""
    head = encode(listing.generation, listing.dump is not None)
    return head + b"\n" + (listing.dump or b"")


def decode_listing(content: bytes) -> TableListing:
    """Return a listing."""
    head, _, dump = content.partition(b"\n")
    generation, stands = json.loads(head)
    return TableListing(generation, dump if stands else None)


ApplierRefusal = SgagentError | OSError | MalformedMessageError
"""What the applier answers instead of doing something."""


def encode_refusal(refusal: ApplierRefusal) -> bytes:
    """Return a refusal as a content."""
    if isinstance(refusal, KernelRefusedError):
        return encode("kernel", refusal.reason, refusal.subject)
    if isinstance(refusal, OSError):
        return encode("system", refusal.strerror or str(refusal), refusal.errno)
    kinds = {NotPermittedError: "not permitted", MalformedMessageError: "malformed"}
    return encode(kinds.get(type(refusal), "use"), str(refusal), None)


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
