"""gRPC: message framing, call status, exceptions, and deadlines of concurrent answers.

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
from collections.abc import Iterable
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


class MalformedGrpcError(ConnectionLostError):
    """An endpoint whose answer can't be read."""


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
    refused_bytes: int = 0
    """The size of a message that is too large, so that nothing more of it has to be sent; 0 for none."""

    def add(self, content: bytes) -> None:
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
                self.refused_bytes = length
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

    def raise_refusal(self) -> None:
        """Raise the server's refusal, unless all is well.

        Raises:
            AnswerTooLargeError: the answer exceeds the size limit.
            ConnectionLostError: it did not answer as a server of gRPC.
            CallRefusedError: it answered with an error.
        """
        if self.refused_bytes:
            message = f"an answer of {self.refused_bytes} bytes, where {self.largest_message} are the most"
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


STEP_BYTES = 1 << 20
"""Bytes of an incomplete answer that count as progress, like a complete answer."""


@dataclass(slots=True)
class AnswerDeadline:
    """The time budget of concurrent requests; only time spent waiting for an answer counts."""

    each_seconds: float
    """Timeout of one answer, or of one step of progress."""

    all_seconds: float
    """Timeout of all answers together."""

    waited_seconds: float = 0.0
    """For earlier answers."""

    _begun_at: float = 0.0
    _moved_at: float = 0.0
    """When the wait for this answer began, or its last step came."""

    _received: int = 0
    """By then."""

    def begin(self, now: float, received: int) -> None:
        """Begin to wait for another answer.

        Args:
            now: by the monotonic clock.
            received: the number of bytes received so far.
        """
        self._begun_at, self._moved_at, self._received = now, now, received

    def deadline(self, now: float, received: int) -> float:
        """Return until when the answer or another step of it has to come.

        Raises:
            TooSlowError: the deadline has passed.
        """
        if received >= self._received + STEP_BYTES:
            self._moved_at, self._received = now, received
        end_of_this = self._moved_at + self.each_seconds
        if now >= end_of_this:
            raise TooSlowError(f"no answer within {self.each_seconds:.2g} seconds")
        end_of_all = self._begun_at + self.all_seconds - self.waited_seconds
        if now >= end_of_all:
            raise TooSlowError(f"not all answers within {self.all_seconds:.3g} seconds")
        return min(end_of_this, end_of_all)

    def end(self, now: float) -> None:
        """Count the time of the wait."""
        self.waited_seconds += now - self._begun_at
