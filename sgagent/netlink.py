"""Netlink requests and dumps as bytes.

The caller picks the attributes that it needs. An object for every attribute of every message would take half
a minute for the sessions of a busy host.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgagent.core.errors import KernelRefusedError

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NETLINK_XFRM = 6
NETLINK_NETFILTER = 12

REQUEST = 0x1
ACK = 0x4
DUMP = 0x300
CREATE_ONLY = 0x600
_INTERRUPTED = 0x10

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
NESTED = 0x8000
_ERROR = 2
_DONE = 3
_RECEIVE_BYTES = 1 << 20
_SO_RCVBUFFORCE = 33
_BATCH = 500
"""Requests that are sent at once, of a few hundred bytes each."""

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message without its header."""

    kind: int
    flags: int
    sequence: int
    payload: memoryview


def refuse_without_netfilter() -> None:
    """Make sure that this process gets a netlink socket for netfilter.

    Raises:
        KernelRefusedError: it gets none.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER):
            pass
    except OSError as error:
        raise KernelRefusedError(
            f"{error.strerror} (load the modules nfnetlink and nf_tables, or allow sockets of AF_NETLINK)",
            "netlink for netfilter",
        ) from error


class NetlinkSocket(socket.socket):
    """A socket of one netlink family in the network namespace of the thread that makes it."""

    def __init__(self, family: int) -> None:
        """Open a socket of a family of netlink."""
        super().__init__(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self.bind((0, 0))
        self.settimeout(_TIMEOUT_SECONDS)
        self.enlarge_buffer(8 * _RECEIVE_BYTES, socket.SO_RCVBUF)
        self._sequence = 0
        self.was_interrupted = False
        """Whether a change made the newest dump inconsistent, as far as it was read."""

    def enlarge_buffer(self, size: int, option: int = _SO_RCVBUFFORCE) -> None:
        """Set how many bytes may wait to be read; the default option needs CAP_NET_ADMIN."""
        with contextlib.suppress(OSError):
            self.setsockopt(socket.SOL_SOCKET, option, size)

    def ask(self, kind: int, payload: bytes) -> Message:
        """Send a request that has one answer, and return it.

        Raises:
            OSError: the kernel refused.
        """
        self._send([(kind, REQUEST, payload)])
        return next(self._answers())

    def dump(self, kind: int, payload: bytes) -> Iterator[Message]:
        """Send a request for many answers, and yield them.

        Raises:
            OSError: the kernel refused.
        """
        self.was_interrupted = False
        self._send([(kind, REQUEST | DUMP, payload)])
        yield from self._answers()

    def dump_unread(self, kind: int, payload: bytes) -> bytes:
        """Send a request for many answers, and return them as they came, for :func:`payloads_in`.

        Raises:
            OSError: the kernel refused.
        """
        self.was_interrupted = False
        self._send([(kind, REQUEST | DUMP, payload)])
        received: list[bytes] = []
        while True:
            datagram = self.recv(_RECEIVE_BYTES)
            for answer, flags, sequence, start, stop in _headers(datagram):
                if sequence != self._sequence:  # left over from a request that was given up
                    break
                self.was_interrupted |= bool(flags & _INTERRUPTED)
                if answer in {_DONE, _ERROR}:
                    _raise(_error_number(datagram[start:stop]))
                if answer == _DONE:
                    return b"".join([*received, datagram])
            else:
                received.append(datagram)

    def order(self, requests: Sequence[tuple[int, bytes]], *, is_creating: bool = False) -> list[int]:
        """Send requests that answer nothing, and return the error numbers of those that failed.

        They go in batches, since a socket sends some 200 KiB at once. Only the last one of each is
        acknowledged, so that thousands of successes fill no buffer.

        Args:
            requests: their kinds and payloads.
            is_creating: whether they may make something, which must not be there yet.
        """
        flags = REQUEST | CREATE_ONLY if is_creating else REQUEST
        batches = (requests[start : start + _BATCH] for start in range(0, len(requests), _BATCH))
        return [number for batch in batches for number in self._order(batch, flags)]

    def _order(self, requests: Sequence[tuple[int, bytes]], flags: int) -> list[int]:
        *earlier, (kind, payload) = requests
        self._send([*((k, flags, p) for k, p in earlier), (kind, flags | ACK, payload)])
        last, errors = self._sequence, []
        while True:
            for message in self._receive():
                if message.kind == _ERROR:
                    errors.append(_error_number(message.payload))
                if message.sequence == last:
                    return [number for number in errors if number]

    def _send(self, requests: list[tuple[int, int, bytes]]) -> None:
        parts: list[bytes] = []
        for kind, flags, payload in requests:
            self._sequence += 1
            parts.append(_HEADER.pack(_HEADER.size + len(payload), kind, flags, self._sequence, 0))
            parts.append(_padded(payload))
        self.send(b"".join(parts))

    def _answers(self) -> Iterator[Message]:
        while True:
            for message in self._receive():
                if message.sequence != self._sequence:  # left over from a request that was given up
                    continue
                if message.kind in {_DONE, _ERROR}:
                    _raise(_error_number(message.payload))
                if message.kind == _DONE:
                    return
                yield message

    def _receive(self) -> Iterator[Message]:
        for message in messages_in(self.recv(_RECEIVE_BYTES)):
            self.was_interrupted |= bool(message.flags & _INTERRUPTED)
            yield message


def messages_in(received: bytes) -> Iterator[Message]:
    """Yield the messages in received bytes, as far as they are whole."""
    view = memoryview(received)
    for kind, flags, sequence, start, stop in _headers(view):
        yield Message(kind, flags, sequence, view[start:stop])


def payloads_in(received: bytes, kind: int) -> Iterator[tuple[int, int]]:
    """Yield where the payload of each message of a kind begins and ends in bytes received unread."""
    return ((start, stop) for found, _, _, start, stop in _headers(received) if found == kind)


def _headers(received: bytes | memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield kind, flags and sequence number of each message, and where its payload begins and ends."""
    place, size, unpack = 0, _HEADER.size, _HEADER.unpack_from
    while place + size <= len(received):
        length, kind, flags, sequence, _ = unpack(received, place)
        if not size <= length <= len(received) - place:
            return
        yield kind, flags, sequence, place + size, place + length
        place += length + 3 & ~3


def _error_number(payload: bytes | memoryview) -> int:
    """Return the error number of an acknowledgement or the end of a dump; 0 for none."""
    (negative,) = struct.unpack_from("=i", payload)
    return -int(negative)


def _raise(number: int) -> None:
    if number:
        raise OSError(number, os.strerror(number))


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute with its header and padding."""
    return _padded(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value)


def attributes(payload: memoryview) -> dict[int, memoryview]:
    """Return the attributes in a payload by kind, their values without header and padding."""
    found: dict[int, memoryview] = {}
    place = 0
    while place + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, place)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = payload[place + _ATTRIBUTE.size : place + length]
        place += length + 3 & ~3
    return found


def _padded(text: bytes) -> bytes:
    return text + bytes(-len(text) % 4)
