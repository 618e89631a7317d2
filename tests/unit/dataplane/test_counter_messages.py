"""What the kernel tells of counters, byte by byte."""

from __future__ import annotations

import struct

import pytest

from sgagent.dataplane.counter_messages import CounterReading
from sgagent.netlink import NESTED, attribute
from sgagent.ports import CounterValue

NEW_OBJECT, DONE = 0x0A12, 3
TABLE, NAME, TYPE, DATA, USE, HANDLE, PAD, USERDATA = range(1, 9)


def message(kind: int, payload: bytes) -> bytes:
    """Return a message of netlink."""
    return struct.pack("=IHHII", 16 + len(payload), kind, 2, 1, 0) + payload


def counter(name: bytes, packets: int, in_bytes: int, *, before_data: bytes = b"", nested: int = 0) -> bytes:
    """Return what the kernel says of a counter."""
    counted = attribute(1, struct.pack(">Q", in_bytes)) + attribute(2, struct.pack(">Q", packets))
    told = (
        attribute(TABLE, b"sgagent\0"),
        attribute(NAME, name + b"\0"),
        attribute(TYPE, struct.pack(">I", 1)),
        attribute(HANDLE, struct.pack(">Q", 7)),
        attribute(USE, struct.pack(">I", 1)),
        before_data,
        attribute(DATA | nested, counted),
        attribute(USERDATA, b"\0\x04hey\0") if in_bytes else b"",
    )
    return message(NEW_OBJECT, struct.pack("=BBH", 1, 0, 0) + b"".join(told))


def test_values_are_told_by_name() -> None:
    """Names of any length, with a comment behind or without, in any number of messages."""
    names = [b"r" * length for length in range(1, 20)]
    told = b"".join(counter(name, number, 60 * number) for number, name in enumerate(names))
    assert CounterReading().read(told + message(DONE, bytes(4))) == {
        name.decode(): CounterValue(packets=number, bytes=60 * number) for number, name in enumerate(names)
    }


@pytest.mark.parametrize("unusual", ({"before_data": attribute(PAD, b"")}, {"nested": NESTED}))
def test_what_is_written_otherwise_is_read_too(unusual: dict[str, bytes | int]) -> None:
    """Other kernels may order attributes otherwise, pad them, or mark what is nested."""
    told = counter(b"rule/eth0/web", 1 << 40, 1 << 50, **unusual)  # type: ignore[arg-type] # of both types
    assert CounterReading().read(told) == {"rule/eth0/web": CounterValue(packets=1 << 40, bytes=1 << 50)}


def test_a_name_need_not_be_text() -> None:
    """Somebody else may have put anything into the table."""
    assert list(CounterReading().read(counter(b"\xff", 1, 60))) == ["\ufffd"]


def test_no_table_has_no_counters() -> None:
    """The kernel tells only that it is done."""
    assert CounterReading().read(message(DONE, bytes(4))) == {}


def test_values_that_stayed_are_the_very_same() -> None:
    """Those that changed, came or went meanwhile are told as they are now."""
    reading = CounterReading()
    before = reading.read(counter(b"a", 1, 60) + counter(b"b", 2, 120) + counter(b"c", 3, 180))
    after = reading.read(counter(b"d", 1, 60) + counter(b"b", 2, 120) + counter(b"a", 4, 240))
    assert after == {
        "d": CounterValue(packets=1, bytes=60),
        "b": CounterValue(packets=2, bytes=120),
        "a": CounterValue(packets=4, bytes=240),
    }
    assert after["b"] is before["b"]
    assert reading.read(b"") == {}
