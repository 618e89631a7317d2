"""Readings of the table's named counters, from the kernel's messages about them."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from sgagent.netlink import attributes, payloads_in
from sgagent.ports import CounterValue

_NEW_OBJECT = 10 << 8 | 18
_HEADER = struct.Struct("=BBH")
_NAME, _DATA = 2, 4
_BYTES, _PACKETS = 1, 2

_NOTHING = CounterValue(packets=0, bytes=0)
"""Of the many counters that nothing has hit."""


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
    known = attributes(memoryview(message)[_HEADER.size :])
    counted = attributes(known[_DATA])
    name = str(known[_NAME], "utf-8", "replace").rstrip("\0")
    packets, in_bytes = int.from_bytes(counted[_PACKETS]), int.from_bytes(counted[_BYTES])
    return name, CounterValue(packets=packets, bytes=in_bytes) if packets or in_bytes else _NOTHING
