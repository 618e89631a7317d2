"""gRPC: message framing, protobuf's fields, call status, exceptions, and deadlines of concurrent answers.

Steady progress extends a deadline, because a slow line or the load of a fleet can make a large answer take
long, and a retry would only add load. A store without progress times out once for all requests together. A
store with little progress times out after a few timeouts. Only complete answers, or steps of a fixed size,
count as progress.
"""

from __future__ import annotations

import enum
import re
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

LESS = "publish fewer or smaller objects, or raise limits.document_bytes"
"""The remedy for oversized content."""


class GrpcStatus(enum.IntEnum):
    """The gRPC status codes in use."""

    OK = 0
    CANCELLED = 1
    DEADLINE_EXCEEDED = 4
    PERMISSION_DENIED = 7
    OUT_OF_RANGE = 11
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class EtcdError(Exception):
    """Base class of the client's exceptions."""

    @property
    def is_passing(self) -> bool:
        """Return whether a retry, at this or another endpoint, may succeed."""
        return False


class ConnectionLostError(EtcdError):
    """An endpoint that can't be reached; another one may work."""

    is_passing = True


class TooSlowError(ConnectionLostError):
    """An endpoint that did not answer in time."""


class StoreTooLargeError(EtcdError):
    """A store with more content than the limits allow."""


class AnswerTooLargeError(StoreTooLargeError):
    """An answer over the size limit; a smaller request may succeed."""


class CallRefusedError(EtcdError):
    """A call that the endpoint answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        """Store the gRPC status code and the server's message."""
        self.code = code
        super().__init__(message or f"gRPC status {code}")

    @property
    def is_passing(self) -> bool:
        """Return whether a retry, at this or another endpoint, may succeed."""
        return self.code in (GrpcStatus.UNAVAILABLE, GrpcStatus.DEADLINE_EXCEEDED, GrpcStatus.CANCELLED)


class CompactedError(EtcdError):
    """A request for a revision that the store has compacted."""


def as_compacted(error: CallRefusedError) -> EtcdError:
    """Return CompactedError for a refused revision, and any other refusal unchanged."""
    return CompactedError(str(error)) if error.code == GrpcStatus.OUT_OF_RANGE else error


_PREFIX = struct.Struct("!BI")
"""Before each message: whether it is compressed, and how long it is."""

_CODE = re.compile("[0-9]{1,9}")


def packed(message: bytes) -> bytes:
    """Return a message as it is sent."""
    return _PREFIX.pack(0, len(message)) + message


@dataclass(slots=True)
class GrpcMessages:
    """A call that is under way."""

    number: int
    is_question: bool
    """Whether its request has ended, so that its answer will."""

    room: int
    """Bytes that the peer may send before more are let in."""

    largest_message: int
    """In bytes; a larger one ends the call."""

    messages: deque[bytes] = field(default_factory=deque)
    """That arrived and were not taken yet."""

    is_over: bool = False
    _partial: bytearray = field(default_factory=bytearray)
    _answer: dict[str, str] = field(default_factory=dict)
    _reset: str = ""
    _refused_bytes: int = 0
    """Of a message that is too large."""

    def take_in(self, content: bytes) -> None:
        """Take bytes of the answer; whole messages become available. One that is too large ends the call.

        Raises:
            ConnectionLostError: the bytes are no messages.
        """
        self._partial += content
        while len(self._partial) >= _PREFIX.size:
            is_compressed, length = _PREFIX.unpack_from(self._partial)
            if is_compressed:
                raise ConnectionLostError("a compressed message, though the request accepts none")
            if length > self.largest_message:
                self._refused_bytes = length
                self._partial.clear()
                return
            end = _PREFIX.size + length
            if len(self._partial) < end:
                return
            with memoryview(self._partial) as arrived:  # which spares a second copy
                self.messages.append(bytes(arrived[_PREFIX.size : end]))
            del self._partial[:end]

    def take_in_headers(self, headers: Iterable[tuple[object, object]]) -> None:
        """Take headers or trailers of the answer."""
        self._answer.update((_word(name), _word(value)) for name, value in headers)

    def end(self, reset: str = "") -> None:
        """Take in that nothing more will arrive."""
        self.is_over, self._reset = True, self._reset or reset

    @property
    def is_too_large(self) -> bool:
        """Return whether a message is too large, so that nothing more of it has to be sent."""
        return self._refused_bytes > 0

    def raise_refusal(self) -> None:
        """Raise what the server said, unless all is well.

        Raises:
            AnswerTooLargeError: the answer exceeds the size limit.
            ConnectionLostError: it did not answer as a server of gRPC.
            CallRefusedError: it answered with an error.
        """
        if self.is_too_large:
            message = f"an answer of {self._refused_bytes} bytes, where {self.largest_message} are the most"
            raise AnswerTooLargeError(message)
        if self._reset:
            raise ConnectionLostError(self._reset)
        code = self._answer.get("grpc-status", "")
        if not _CODE.fullmatch(code):
            raise ConnectionLostError(
                f"no answer of gRPC, but HTTP status {self._answer.get(':status', 'none')}"
            )
        if int(code) != GrpcStatus.OK:
            raise CallRefusedError(int(code), unquote(self._answer.get("grpc-message", "")))


def _word(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


Value = int | bytes
"""A number, or the bytes of a text or of a nested message."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10
_UINT64 = (1 << 64) - 1
_SIGN = 1 << 63


class MalformedGrpcError(Exception):
    """Say that bytes are no message."""


def number(field: int, value: int) -> bytes:
    """Return a field that holds a number; nothing for 0, which is what a missing one means."""
    return present_number(field, value) if value else b""


def present_number(field: int, value: int) -> bytes:
    """Return a field that holds a number, also where it is 0: one of several alternatives."""
    return _varint(field << 3 | _VARINT) + _varint(value & _UINT64)


def text(field: int, value: bytes) -> bytes:
    """Return a field that holds bytes; nothing for none, which is what a missing one means."""
    return nested(field, value) if value else b""


def nested(field: int, message: bytes) -> bytes:
    """Return a field that holds a message, also where that has no fields itself."""
    return _varint(field << 3 | _LENGTH) + _varint(len(message)) + message


def read_fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """Go through the fields of a message in their order.

    Raises:
        MalformedMessageError: the bytes end in the middle of a field, or hold a type that is not known.
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
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise MalformedGrpcError(f"wire type {kind} in field {field}")
        if length > len(message) - at:
            raise MalformedGrpcError(f"field {field} ends beyond the message")
        yield field, message[at : at + length]
        at += length


def signed(value: Value) -> int:
    """Return the number of a field of type int64.

    Raises:
        MalformedMessageError: the field holds no number.
    """
    found = unsigned(value)
    return found - (1 << 64) if found & _SIGN else found


def unsigned(value: Value) -> int:
    """Return the number of a field of type uint64, bool or enum.

    Raises:
        MalformedMessageError: the field holds no number.
    """
    if not isinstance(value, int):
        raise MalformedGrpcError("bytes where a number should be")
    return value


def content(value: Value) -> bytes:
    """Return the bytes of a field.

    Raises:
        MalformedMessageError: the field holds a number.
    """
    if not isinstance(value, bytes):
        raise MalformedGrpcError("a number where bytes should be")
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
            raise MalformedGrpcError("a number ends beyond the message")
        group = message[at + place]
        value |= (group & 0x7F) << (7 * place)
        if group < 0x80:
            return value & _UINT64, at + place + 1
    raise MalformedGrpcError("a number of more than 64 bits")


STEP_BYTES = 1 << 20
"""Bytes of an incomplete answer that count as progress, like a complete answer."""


@dataclass(slots=True)
class AnswerDeadline:
    """The time budget of concurrent requests; only time spent waiting counts."""

    each_seconds: float
    """Timeout of one answer, or of one step of progress."""

    all_seconds: float
    """Timeout of all answers together."""

    waited_seconds: float = 0.0

    def wait(self, now: float, received: int) -> Wait:
        """Begin to wait for another answer.

        Args:
            now: by the monotonic clock.
            received: how many bytes have come so far.
        """
        return Wait(self, now, now, received)


@dataclass(slots=True)
class Wait:
    """A wait for one answer."""

    _allowance: AnswerDeadline
    _begun_at: float
    _moved_at: float
    """When it began, or the last step came."""

    _received: int
    """By then."""

    def deadline(self, now: float, received: int) -> float:
        """Return until when the answer or another step of it has to come.

        Raises:
            TooSlowError: that is over.
        """
        allowance = self._allowance
        if received >= self._received + STEP_BYTES:
            self._moved_at, self._received = now, received
        end_of_this = self._moved_at + allowance.each_seconds
        if now >= end_of_this:
            raise TooSlowError(f"no answer within {allowance.each_seconds:g} seconds")
        end_of_all = self._begun_at + allowance.all_seconds - allowance.waited_seconds
        if now >= end_of_all:
            raise TooSlowError(f"not all answers within {allowance.all_seconds:g} seconds")
        return min(end_of_this, end_of_all)

    def end(self, now: float) -> None:
        """Count what was waited."""
        self._allowance.waited_seconds += now - self._begun_at
