"""Read the body of an HTTP response: whole, unpacked, and not larger than allowed."""

from __future__ import annotations

import http.client
import zlib
from collections.abc import Iterable, Iterator

from sgagent.core.errors import SourceUnavailableError, printable
from sgagent.settings import HttpsUrl

_GZIP = zlib.MAX_WBITS | 16
_ZLIB = zlib.MAX_WBITS
_INFLATED_PIECE_BYTES = 256 * 1024
"""Unpacked at a time, so that no more than this is ever held beyond a limit."""

WINDOWS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}
"""By the word for the encoding (RFC 9110, section 8.4.1)."""


class InflationError(Exception):
    """Say that a body is not what its encoding says."""


def inflate(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Return what packed pieces hold, in pieces that are small however much comes out.

    Whoever takes the pieces decides how many are enough; what is not taken is not unpacked.

    Raises:
        InflationError: the body is damaged, cut off, or goes on behind its end.
    """
    unpacker = zlib.decompressobj(WINDOWS[encoding])
    for piece in pieces:
        if unpacker.eof:
            raise InflationError(f"something stands behind the end of the {encoding} body")
        packed = piece
        while packed and not unpacker.eof:
            yield _unpack(unpacker, packed, encoding)
            packed = unpacker.unconsumed_tail
        if unpacker.unused_data:
            raise InflationError(f"something stands behind the end of the {encoding} body")
    if not unpacker.eof:
        raise InflationError(f"the {encoding} body ends before its end")


def _unpack(unpacker: zlib._Decompress, packed: bytes, encoding: str) -> bytes:
    """Return the next piece."""
    try:
        return unpacker.decompress(packed, _INFLATED_PIECE_BYTES)
    except zlib.error as error:
        raise InflationError(f"the body is no {encoding}: {error}") from error


_PIECE_BYTES = 64 * 1024


class NoAnswerError(SourceUnavailableError):
    """Say that a server gave no answer that can be used, and when it wants to be asked again."""

    def __init__(self, message: str, *, put_off: float = 0.0, status: int | None = None) -> None:
        """Keep the message, and what the server asked for, in seconds, and its status if it sent one."""
        super().__init__(printable(message))
        self.put_off = put_off
        self.status = status


class BodyTooLargeError(Exception):
    """Say that a body is larger than allowed."""


def read_body(response: http.client.HTTPResponse, url: HttpsUrl, most_bytes: int) -> bytes:
    """Return the whole body, unpacked.

    Args:
        response: of which nothing but the head was read.
        url: for messages.
        most_bytes: as packed, and unpacked.

    Raises:
        NoAnswerError: it did not come whole, or is packed in a way that was not asked for.
        TooLargeError: it is too large; no more of it is read.
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
        raise NoAnswerError(f"{url}: packed as {encoding!r}, which was not asked for")
    try:
        return b"".join(pieces)
    except InflationError as error:
        raise NoAnswerError(f"{url}: {error}") from error


def _pieces(response: http.client.HTTPResponse, url: HttpsUrl) -> Iterator[bytes]:
    """Go through a body as it was sent.

    Raises:
        NoAnswerError: it ends before the end that the server announced.
    """
    try:
        while piece := response.read(_PIECE_BYTES):
            yield piece
    except http.client.IncompleteRead as error:
        raise NoAnswerError(f"{url}: the answer was cut off") from error
    if response.length:
        raise NoAnswerError(f"{url}: the answer was cut off, {response.length} bytes before its end")


def _bounded(pieces: Iterator[bytes], most_bytes: int) -> Iterator[bytes]:
    """Go through pieces until they are too many."""
    room = most_bytes
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            raise BodyTooLargeError
        yield piece
