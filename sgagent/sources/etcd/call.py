"""Put messages of gRPC together from the bytes of a call, and tell how the call ended."""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from sgagent.sources.etcd.failures import AnswerTooLargeError, CallRefusedError, ConnectionLostError, Status

_PREFIX = struct.Struct("!BI")
"""Before each message: whether it is compressed, and how long it is."""

_CODE = re.compile("[0-9]{1,9}")


def packed(message: bytes) -> bytes:
    """Return a message as it is sent."""
    return _PREFIX.pack(0, len(message)) + message


@dataclass(slots=True)
class Call:
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
                raise ConnectionLostError("a compressed message, which nobody asked for")
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
        """Tell whether a message is too large, so that nothing more of it has to be sent."""
        return self._refused_bytes > 0

    def raise_refusal(self) -> None:
        """Raise what the server said, unless all is well.

        Raises:
            AnswerTooLargeError: it said too much.
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
        if int(code) != Status.OK:
            raise CallRefusedError(int(code), unquote(self._answer.get("grpc-message", "")))


def _word(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
