"""Bodies of HTTP responses: complete, decompressed, and within a size limit."""

from __future__ import annotations

import http.client
import zlib
from collections.abc import Iterable, Iterator

from sgagent.core.errors import SourceUnavailableError, printable
from sgagent.settings import HttpsUrl

_GZIP = zlib.MAX_WBITS | 16
_ZLIB = zlib.MAX_WBITS
_INFLATED_PIECE_BYTES = 256 * 1024
"""Bytes decompressed in one step; the memory use exceeds the limit by at most this."""

WINDOWS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}
"""The zlib window of each content coding (RFC 9110, section 8.4.1)."""


class InflationError(Exception):
    """A body that does not match its content coding."""


def inflate(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the decompressed body in pieces of bounded size.

    The generator decompresses only as many pieces as the caller takes.

    Raises:
        InflationError: the body is damaged or truncated, or has data after its end.
    """
    unpacker = zlib.decompressobj(WINDOWS[encoding])
    for piece in pieces:
        if unpacker.eof:
            raise InflationError(f"data after the end of the {encoding} body")
        packed = piece
        while packed and not unpacker.eof:
            yield _unpack(unpacker, packed, encoding)
            packed = unpacker.unconsumed_tail
        if unpacker.unused_data:
            raise InflationError(f"data after the end of the {encoding} body")
    if not unpacker.eof:
        raise InflationError(f"the {encoding} body is truncated")


def _unpack(unpacker: zlib._Decompress, packed: bytes, encoding: str) -> bytes:
    """Return the next piece."""
    try:
        return unpacker.decompress(packed, _INFLATED_PIECE_BYTES)
    except zlib.error as error:
        raise InflationError(f"the body is no {encoding}: {error}") from error


_PIECE_BYTES = 64 * 1024


class NoAnswerError(SourceUnavailableError):
    """A server without a usable answer, with the time that it asks clients to wait."""

    def __init__(self, message: str, *, put_off: float = 0.0, status: int | None = None) -> None:
        """Store the message, the seconds that the server asks to wait, and the HTTP status, if any."""
        super().__init__(printable(message))
        self.put_off = put_off
        self.status = status


class BodyTooLargeError(Exception):
    """A body over the size limit."""


def read_body(response: http.client.HTTPResponse, url: HttpsUrl, most_bytes: int) -> bytes:
    """Return the complete, decompressed body.

    Args:
        response: the response after its headers.
        url: for messages.
        most_bytes: the limit, both compressed and decompressed.

    Raises:
        NoAnswerError: the body is truncated, or has a coding that the request did not accept.
        BodyTooLargeError: the body exceeds the limit; the rest is not read.
    """
    if response.length is None and not response.chunked:
        raise NoAnswerError(f"{url}: the answer does not say where it ends (no Content-Length)")
    if (response.length or 0) > most_bytes:
        raise BodyTooLargeError
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    pieces = _bounded(_pieces(response, url), most_bytes)
    if encoding in WINDOWS:
        pieces = _bounded(inflate(pieces, encoding), most_bytes)
    elif encoding != "identity":
        raise NoAnswerError(f"{url}: the content coding {encoding!r} was not accepted in the request")
    try:
        return b"".join(pieces)
    except InflationError as error:
        raise NoAnswerError(f"{url}: {error}") from error


def _pieces(response: http.client.HTTPResponse, url: HttpsUrl) -> Iterator[bytes]:
    """Yield the body as sent.

    Raises:
        NoAnswerError: the body is shorter than announced.
    """
    try:
        while piece := response.read(_PIECE_BYTES):
            yield piece
    except http.client.IncompleteRead as error:
        raise NoAnswerError(f"{url}: the answer was cut off") from error
    if response.length:
        raise NoAnswerError(f"{url}: the answer was cut off, {response.length} bytes before its end")


def _bounded(pieces: Iterator[bytes], most_bytes: int) -> Iterator[bytes]:
    """Yield pieces; raise BodyTooLargeError beyond the limit."""
    room = most_bytes
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            raise BodyTooLargeError
        yield piece
