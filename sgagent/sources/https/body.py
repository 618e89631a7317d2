"""Read the body of an HTTP response: whole, unpacked, and not larger than allowed."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

from sgagent.core.errors import SourceUnavailableError, printable
from sgagent.settings import HttpsUrl
from sgagent.sources.https.inflating import WINDOWS, InflationError, inflate

_PIECE_BYTES = 64 * 1024


class NoAnswerError(SourceUnavailableError):
    """Say that a server gave no answer that can be used, and when it wants to be asked again."""

    def __init__(self, message: str, *, put_off: float = 0.0, status: int | None = None) -> None:
        """Keep the message, and what the server asked for, in seconds, and its status if it sent one."""
        super().__init__(printable(message))
        self.put_off = put_off
        self.status = status


class TooLargeError(Exception):
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
        raise TooLargeError
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
            raise TooLargeError
        yield piece
