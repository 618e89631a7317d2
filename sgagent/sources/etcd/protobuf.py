"""Write and read the wire format of protocol buffers, as far as etcd's messages need it.

A message is a sequence of numbered fields. Numbers are told from texts and nested messages by their wire
type; what a field means, the reader has to know.
"""

from __future__ import annotations

from collections.abc import Iterator

Value = int | bytes
"""A number, or the bytes of a text or of a nested message."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10
_UINT64 = (1 << 64) - 1
_SIGN = 1 << 63


class MalformedMessageError(Exception):
    """Say that bytes are no message."""


def number(field: int, value: int) -> bytes:
    """Return a field that holds a number; nothing for 0, which is what a missing one means."""
    return present_number(field, value) if value else b""


def present_number(field: int, value: int) -> bytes:
    """Return a field that holds a number, also where it is 0: one of several alternatives."""
    return _varint(field << 3 | _VARINT) + _varint(value & _UINT64)


def text(field: int, value: bytes) -> bytes:
    """Return a field that holds bytes; nothing for none, which is what a missing one means."""
    return nested(field, value) if value else b""


def nested(field: int, message: bytes) -> bytes:
    """Return a field that holds a message, also where that has no fields itself."""
    return _varint(field << 3 | _LENGTH) + _varint(len(message)) + message


def read_fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """Go through the fields of a message in their order.

    Raises:
        MalformedMessageError: the bytes end in the middle of a field, or hold a type that is not known.
    """
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield field, value
            continue
        if kind == _LENGTH:
            length, at = _read_varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise MalformedMessageError(f"wire type {kind} in field {field}")
        if length > len(message) - at:
            raise MalformedMessageError(f"field {field} ends beyond the message")
        yield field, message[at : at + length]
        at += length


def signed(value: Value) -> int:
    """Return the number of a field of type int64.

    Raises:
        MalformedMessageError: the field holds no number.
    """
    found = unsigned(value)
    return found - (1 << 64) if found & _SIGN else found


def unsigned(value: Value) -> int:
    """Return the number of a field of type uint64, bool or enum.

    Raises:
        MalformedMessageError: the field holds no number.
    """
    if not isinstance(value, int):
        raise MalformedMessageError("bytes where a number should be")
    return value


def content(value: Value) -> bytes:
    """Return the bytes of a field.

    Raises:
        MalformedMessageError: the field holds a number.
    """
    if not isinstance(value, bytes):
        raise MalformedMessageError("a number where bytes should be")
    return value


def _varint(value: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number and where the next field begins."""
    value = 0
    for place in range(_LONGEST_VARINT):
        if at + place >= len(message):
            raise MalformedMessageError("a number ends beyond the message")
        group = message[at + place]
        value |= (group & 0x7F) << (7 * place)
        if group < 0x80:
            return value & _UINT64, at + place + 1
    raise MalformedMessageError("a number of more than 64 bits")
