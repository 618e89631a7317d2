"""Unpack compressed bodies without trusting how large they become."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

_GZIP = zlib.MAX_WBITS | 16
_ZLIB = zlib.MAX_WBITS
_PIECE_BYTES = 256 * 1024
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
        return unpacker.decompress(packed, _PIECE_BYTES)
    except zlib.error as error:
        raise InflationError(f"the body is no {encoding}: {error}") from error
