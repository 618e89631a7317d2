"""Compressed bodies."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from sgagent.sources.https.exchange import InflationError, inflate

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}


@given(content=st.binary(max_size=2_000), size=st.integers(1, 50), encoding=st.sampled_from(sorted(PACKERS)))
def test_what_was_packed_is_unpacked(content: bytes, size: int, encoding: str) -> None:
    """However it is cut into pieces."""
    packed = PACKERS[encoding](content)
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    assert b"".join(inflate(pieces, encoding)) == content


@given(content=st.binary(max_size=200), cut=st.integers(1, 20), encoding=st.sampled_from(sorted(PACKERS)))
def test_what_was_cut_off_is_told(content: bytes, cut: int, encoding: str) -> None:
    """Nothing passes for whole that is not."""
    packed = PACKERS[encoding](content)
    with pytest.raises(InflationError):
        b"".join(inflate([packed[:-cut]], encoding))


@pytest.mark.parametrize("pieces", ((b"more",), (b"", b"more"), (b"m", b"ore")))
def test_what_stands_behind_the_end_is_told(pieces: tuple[bytes, ...]) -> None:
    """In the same piece or in one that follows."""
    first, *others = pieces
    with pytest.raises(InflationError, match="after the end"):
        list(inflate([gzip.compress(b"x") + first, *others], "gzip"))


def test_a_bomb_comes_in_small_pieces() -> None:
    """Whoever has enough stops there; no more is held than that."""
    pieces = inflate([gzip.compress(bytes(50_000_000))], "gzip")
    assert max(len(next(pieces)) for _ in range(10)) <= 256 * 1024
