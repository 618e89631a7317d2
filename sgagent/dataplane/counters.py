"""Parse the kernel's dump of the table's named counters."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from sgagent.netlink import attribute, attributes, payloads_in
from sgagent.nft.ruleset import TABLE
from sgagent.ports import CounterValue

_NEW_OBJECT = 10 << 8 | 18
_HEADER = struct.Struct("=BBH")
_TABLE, _NAME, _TYPE, _DATA, _USE, _HANDLE = 1, 2, 3, 4, 5, 6
_BYTES, _PACKETS = 1, 2

_NAME_AT = _HEADER.size + len(attribute(_TABLE, TABLE.encode() + b"\0"))
"""Offset of the counter's name. It follows the table's name, whose length is fixed."""

_LENGTH_AND_KIND = struct.Struct("=HH")
_REST = struct.Struct("=HH4x HH8x HH4x HH HH8s HH8s")
"""The rest of the message in the layout that kernels use: lengths and types of attributes, and two values."""

_USUAL = (8, _TYPE, 12, _HANDLE, 8, _USE, 28, _DATA, 12, _BYTES, 12, _PACKETS)
_NOTHING = CounterValue(packets=0, bytes=0)
_ZERO = bytes(8)


class CounterReading:
    """Parse successive dumps; cache the result of each message, since most counters have not changed."""

    def __init__(self) -> None:
        """Start with an empty cache."""
        self._parsed: Mapping[bytes, tuple[str, CounterValue]] = {}

    def read(self, answers: bytes) -> Mapping[str, CounterValue]:
        """Return the counters of a dump, by name; an unchanged counter keeps its value object."""
        before = self._parsed
        messages = [answers[start:stop] for start, stop in payloads_in(answers, _NEW_OBJECT)]
        self._parsed = {message: before.get(message) or _read(message) for message in messages}
        return dict(self._parsed.values())


def _read(message: bytes) -> tuple[str, CounterValue]:
    """Return the name and the value of a counter."""
    length, kind = _LENGTH_AND_KIND.unpack_from(message, _NAME_AT)
    rest_at = _NAME_AT + (length + 3 & ~3)
    if kind != _NAME or len(message) < rest_at + _REST.size:
        return _read_otherwise(message)
    *shape, in_bytes, packets_length, packets_kind, packets = _REST.unpack_from(message, rest_at)
    if (*shape, packets_length, packets_kind) != _USUAL:
        return _read_otherwise(message)
    name = message[_NAME_AT + _LENGTH_AND_KIND.size : _NAME_AT + length - 1]
    return name.decode("utf-8", "replace"), _value(packets, in_bytes)


def _read_otherwise(payload: bytes) -> tuple[str, CounterValue]:
    """Return the name and the value from a message of another layout, attribute by attribute."""
    known = attributes(memoryview(payload)[_HEADER.size :])
    counted = attributes(known[_DATA])
    name = str(known[_NAME], "utf-8", "replace").rstrip("\0")
    return name, _value(bytes(counted[_PACKETS]), bytes(counted[_BYTES]))


def _value(packets: bytes, in_bytes: bytes) -> CounterValue:
    if packets == _ZERO and in_bytes == _ZERO:
        return _NOTHING
    return CounterValue(packets=int.from_bytes(packets), bytes=int.from_bytes(in_bytes))
