"""The protocol between agent and applier: a few verbs, each with one form of answer.

A message is a kind, a length and a content. Contents are numbers of fixed width, a plan
(:mod:`sgagent.dataplane.plan_encoder`) or libnftables' listing, unchanged.
"""

from __future__ import annotations

import enum
import json
import socket
import struct
from collections.abc import Sequence
from typing import assert_never

from sgagent.compiler.marks import MarkTest
from sgagent.core.errors import KernelRefusedError, NotPermittedError, SgagentError, UsageError
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family
from sgagent.dataplane.conntrack import TrackedSession
from sgagent.dataplane.monitor import RulesetChange
from sgagent.dataplane.plan_decoder import MalformedPlanError
from sgagent.dataplane.sockets import Ending, TcpSession
from sgagent.dataplane.table import Applied, TableListing


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


class Reply(enum.IntEnum):
    """How an answer begins."""

    DONE = 1
    REFUSED = 2


LONGEST_REQUEST = 256 << 20
"""A plan of 1,000,000 addresses takes a fifth of it."""

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
        MalformedError: it is longer.
        OSError: it does not arrive.
    """
    header = _receive(channel, _HEADER.size)
    if header is None:
        return None
    kind, length = _HEADER.unpack(header)
    if length > longest:
        raise MalformedPlanError("longer than any message")
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
        MalformedError: none does.
        OSError: it does not arrive.
    """
    received, descriptors, _, _ = socket.recv_fds(channel, len(_TOKEN), 1)
    taken = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    if received != _TOKEN or len(taken) != 1:
        raise MalformedPlanError("no socket, where one was to come")
    taken[0].set_inheritable(False)
    return taken[0]


_TOKEN = b"."
"""What a socket travels with."""


def verb(kind: int) -> Verb:
    """Return what the kind of a message asks for.

    Raises:
        MalformedError: nothing that there is.
    """
    try:
        return Verb(kind)
    except ValueError as error:
        raise MalformedPlanError("no such verb") from error


NUMBER = struct.Struct(">I")
"""A mask, a generation of the ruleset, or how many."""

_APPLIED = struct.Struct(">?II?")
_LISTING = struct.Struct(">?I???")
_MARK_TEST = struct.Struct(">II")
_MOST_MARK_TESTS = 32
_PACKET = struct.Struct(">BBB16s16sHH")
_TRACKED = struct.Struct(">?IB")
_SOCKET = struct.Struct(">B48s")
_WIDTHS = {Family.IPV4: 4, Family.IPV6: 16}
_FAMILIES = tuple(Family)
_DIRECTIONS = tuple(Direction)
_ENDINGS = tuple(Ending)


def unpacked(form: struct.Struct, content: bytes) -> tuple[int, ...]:
    """Return the numbers of a content.

    Raises:
        MalformedError: it is longer or shorter.
    """
    if len(content) != form.size:
        raise MalformedPlanError("of another length")
    return form.unpack(content)


def write_applied(applied: Applied, *, is_owner: bool) -> bytes:
    """Return when a plan was carried out as a content."""
    return _APPLIED.pack(applied.before is not None, applied.before or 0, applied.after, is_owner)


def read_applied(content: bytes) -> tuple[Applied, bool]:
    """Return when a plan was carried out, and whether the table is owned."""
    known, before, after, is_owner = _APPLIED.unpack(content)
    return Applied(before if known else None, after), is_owner


def write_listing(listing: TableListing, *, is_owner: bool) -> bytes:
    """Return a listing as a content."""
    known = listing.generation is not None
    stands = listing.text is not None
    head = _LISTING.pack(known, listing.generation or 0, is_owner, stands, listing.is_unreadable)
    return head + (listing.text or b"")


def read_listing(content: bytes) -> tuple[TableListing, bool]:
    """Return a listing, and whether the table is owned."""
    known, generation, is_owner, stands, is_unreadable = _LISTING.unpack_from(content)
    text = content[_LISTING.size :] if stands else None
    return TableListing(generation if known else None, text, is_unreadable), is_owner


def write_marks(mask: int, tests: Sequence[MarkTest]) -> bytes:
    """Return which bits of which marks are meant as a content."""
    return NUMBER.pack(mask) + b"".join(_MARK_TEST.pack(*test) for test in tests)


def read_marks(content: bytes) -> tuple[int, tuple[MarkTest, ...]]:
    """Return which bits of which marks are meant.

    Raises:
        MalformedError: it does not say, or has more tests than there are bits.
    """
    head, rest = content[: NUMBER.size], content[NUMBER.size :]
    if len(rest) % _MARK_TEST.size or len(rest) > _MOST_MARK_TESTS * _MARK_TEST.size:
        raise MalformedPlanError("of another length")
    (mask,) = unpacked(NUMBER, head)
    return mask, tuple(MarkTest(bits, value) for bits, value in _MARK_TEST.iter_unpack(rest))


def write_packet(packet: Packet) -> bytes:
    """Return the ends of a packet as a content."""
    width = _WIDTHS[packet.family]
    return _PACKET.pack(
        _DIRECTIONS.index(packet.direction),
        _FAMILIES.index(packet.family),
        packet.protocol,
        packet.source.to_bytes(width),
        packet.destination.to_bytes(width),
        packet.source_port or 0,
        packet.destination_port or 0,
    )


def read_packet(content: bytes) -> Packet:
    """Return a packet with these ends.

    Raises:
        MalformedError: there is none.
    """
    if len(content) != _PACKET.size:
        raise MalformedPlanError("of another length")
    direction, family_number, protocol, source, destination, source_port, port = _PACKET.unpack(content)
    if direction >= len(_DIRECTIONS) or family_number >= len(_FAMILIES):
        raise MalformedPlanError("no such direction or family")
    family = _FAMILIES[family_number]
    width = _WIDTHS[family]
    return Packet(
        interface="",
        direction=_DIRECTIONS[direction],
        family=family,
        source=int.from_bytes(source[:width]),
        destination=int.from_bytes(destination[:width]),
        protocol=protocol,
        source_port=source_port,
        destination_port=port,
    )


def write_session(session: TrackedSession | None) -> bytes:
    """Return a session that was found, or that there is none, as a content."""
    if session is None:
        return _TRACKED.pack(False, 0, 0)  # noqa: FBT003 - the fields of the structure
    return _TRACKED.pack(True, session.mark, _DIRECTIONS.index(session.opened))  # noqa: FBT003 - as above


def read_session(content: bytes) -> TrackedSession | None:
    """Return the session that was found."""
    found, mark, opened = _TRACKED.unpack(content)
    return TrackedSession(mark, _DIRECTIONS[opened]) if found else None


def write_socket(session: TcpSession) -> bytes:
    """Return which socket is meant as a content."""
    return _SOCKET.pack(session.socket_family, session.identity)


def read_socket(content: bytes) -> tuple[int, bytes]:
    """Return the family and the identity of the socket that is meant.

    Raises:
        MalformedError: it does not say.
    """
    if len(content) != _SOCKET.size:
        raise MalformedPlanError("of another length")
    family, identity = _SOCKET.unpack(content)
    if family not in (socket.AF_INET, socket.AF_INET6):
        raise MalformedPlanError("no such family")
    return family, identity


def write_ending(ending: Ending) -> bytes:
    """Return what came of a session as a content."""
    return bytes([_ENDINGS.index(ending)])


def read_ending(content: bytes) -> Ending:
    """Return what came of a session."""
    return _ENDINGS[content[0]]


_CHANGE = struct.Struct(">II16s?")
CHANGE_BYTES = _CHANGE.size


def write_change(change: RulesetChange) -> bytes:
    """Return a change of the ruleset by another process as a message of its own."""
    name = change.process_name.encode("utf-8", "replace")
    return _CHANGE.pack(change.generation, change.process_id, name, change.is_of_table)


def read_change(content: bytes) -> RulesetChange:
    """Return a change of the ruleset by another process."""
    generation, process_id, name, is_of_table = _CHANGE.unpack(content)
    return RulesetChange(
        generation=generation,
        process_id=process_id,
        process_name=name.rstrip(b"\0").decode("utf-8", "replace"),
        is_of_table=is_of_table,
    )


def write_flag(flag: bool) -> bytes:  # noqa: FBT001 - the content itself
    """Return yes or no as a content."""
    return bytes([flag])


def read_flag(content: bytes) -> bool:
    """Return yes or no."""
    return bool(content[0])


Refusal = SgagentError | OSError | MalformedPlanError
"""What the applier answers instead of doing something."""


def write_refusal(refusal: Refusal) -> bytes:
    """Return a refusal as a content."""
    match refusal:
        case KernelRefusedError(reason=reason, subject=subject):
            fields: list[str | int | None] = ["kernel", reason, subject]
        case NotPermittedError():
            fields = ["not permitted", str(refusal), None]
        case OSError():
            fields = ["system", refusal.strerror or str(refusal), refusal.errno]
        case MalformedPlanError():
            fields = ["malformed", str(refusal), None]
        case SgagentError():
            fields = ["use", str(refusal), None]
        case _:
            assert_never(refusal)
    return json.dumps(fields).encode("ascii")


def read_refusal(content: bytes) -> SgagentError | OSError:
    """Return the refusal as the exception that it would have been in this process."""
    kind, text, more = json.loads(content)
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
