"""The wire format of protocol buffers."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, strategies as st

from sgagent.sources.etcd.grpc import MalformedGrpcError
from sgagent.sources.etcd.messages import (
    content,
    nested,
    number,
    present_number,
    read_fields,
    signed,
    text,
    unsigned,
)


@given(st.integers(min_value=1, max_value=2**29 - 1), st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_numbers_come_back(field: int, value: int) -> None:
    """Negative ones too; 0 is not written at all, unless it has to be there."""
    written = present_number(field, value)
    assert [(name, signed(found)) for name, found in read_fields(written)] == [(field, value)]
    assert number(field, value) == (written if value else b"")


@given(st.lists(st.tuples(st.integers(min_value=1, max_value=100), st.binary(max_size=300))))
def test_texts_come_back(fields: list[tuple[int, bytes]]) -> None:
    """In their order, and with repeated fields."""
    written = b"".join(nested(field, value) for field, value in fields)
    assert list(read_fields(written)) == fields


def test_known_bytes() -> None:
    """The examples of the format's own description."""
    assert number(1, 150) == b"\x08\x96\x01"
    assert text(2, b"testing") == b"\x12\x07testing"
    assert text(2, b"") == b""
    assert nested(3, number(1, 150)) == b"\x1a\x03\x08\x96\x01"


def test_fields_of_fixed_length_are_passed_by() -> None:
    """Nothing here has such fields, but a later server may."""
    assert list(read_fields(b"\x0d\x01\x02\x03\x04\x11ABCDEFGH")) == [
        (1, b"\x01\x02\x03\x04"),
        (2, b"ABCDEFGH"),
    ]


@pytest.mark.parametrize(
    "message", (b"\x08", b"\x08\x96", b"\x12\x07test", b"\x0b", b"\x08" + b"\xff" * 11, b"\x11ABC")
)
def test_what_is_no_message(message: bytes) -> None:
    """Bytes that end early, or hold what is not known, are refused."""
    with pytest.raises(MalformedGrpcError):
        list(read_fields(message))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    """Nothing else comes of them."""
    with contextlib.suppress(MalformedGrpcError):
        assert sum(1 for _ in read_fields(message)) <= len(message)


def test_fields_are_of_their_type() -> None:
    """A number is no text and a text no number."""
    with pytest.raises(MalformedGrpcError):
        content(1)
    with pytest.raises(MalformedGrpcError):
        unsigned(b"1")
