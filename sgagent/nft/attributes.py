"""Attributes of netlink messages as bytes: the parts of the kernel's messages about a table."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

HEADER = struct.Struct("=HH")
"""Of an attribute: its length with this header, and its kind."""

KIND_MASK = 0x3FFF
"""Without the flags that say how to read a value."""

_MESSAGE = struct.Struct("=IHHII")


class UnreadableError(Exception):
    """Say that something in a table is not understood; the text names it in nft's words."""


def messages(dump: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the kind of each netlink message, and where its payload begins and ends.

    Raises:
        UnreadableError: there is no whole message where one should be.
    """
    place, size = 0, _MESSAGE.size
    while place < len(dump):
        if place + size > len(dump):
            raise UnreadableError("a message that is cut off")
        length, kind, _, _, _ = _MESSAGE.unpack_from(dump, place)
        if not size <= length <= len(dump) - place:
            raise UnreadableError("a message that is cut off")
        yield kind, place + size, place + length
        place += length + 3 & ~3


def each(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Yield the kind of each attribute, and where its value begins and ends.

    Raises:
        UnreadableError: there is no whole attribute where one should be.
    """
    place, stop = start, len(data) if stop is None else stop
    while place < stop:
        if place + HEADER.size > stop:
            raise UnreadableError("an attribute that is cut off")
        length, kind = HEADER.unpack_from(data, place)
        if not HEADER.size <= length <= stop - place:
            raise UnreadableError("an attribute that is cut off")
        yield kind & KIND_MASK, place + HEADER.size, place + length
        place += length + 3 & ~3


def by_kind(data: bytes, start: int = 0, stop: int | None = None) -> dict[int, bytes]:
    """Return the values of attributes by kind.

    Raises:
        UnreadableError: they are cut off, or one stands twice.
    """
    found: dict[int, bytes] = {}
    for kind, first, last in each(data, start, stop):
        if kind in found:
            raise UnreadableError("an attribute that stands twice")
        found[kind] = data[first:last]
    return found


def only(data: bytes, kind: int) -> bytes:
    """Return the value of an attribute beside which there is no other.

    Raises:
        UnreadableError: there is another, or this one is not there.
    """
    found = by_kind(data)
    if found.keys() != {kind}:
        raise UnreadableError("another attribute than expected")
    return found[kind]


def number(value: bytes) -> int:
    """Return a number: in netlink messages about tables, all have the network's byte order."""
    return int.from_bytes(value, "big")


def text(value: bytes) -> str:
    """Return a name; one that is not UTF-8 is none of ours, and stays apart from all that are."""
    return value.rstrip(b"\0").decode("utf-8", "backslashreplace")


def user_data(value: bytes) -> Mapping[int, bytes]:
    """Return the data that programs wrote beside an object, which means nothing to the kernel.

    Raises:
        UnreadableError: it has not the form that nft gives it.
    """
    found: dict[int, bytes] = {}
    place = 0
    while place < len(value):
        if place + 2 > len(value) or place + 2 + value[place + 1] > len(value):
            raise UnreadableError("user data")
        kind, length = value[place], value[place + 1]
        found[kind] = value[place + 2 : place + 2 + length]
        place += 2 + length
    return found


COMMENT = 0
"""The kind of a comment in the user data of chains, rules, objects and elements; a set's is another."""
