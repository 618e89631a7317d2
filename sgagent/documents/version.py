"""Content digest of a snapshot: equal snapshots have equal versions."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from functools import cache
from typing import Any

from sgagent.core.memo import Memo, Seam
from sgagent.core.model import (
    CidrBlock,
    PortSet,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)

_DIGITS = 12


def digest(snapshot: Snapshot, memo: Memo | None = None) -> str:
    """Return ``sha256:`` and 12 hexadecimal digits of the fields that snapshots are compared by.

    Files, their names and order, comments, names and descriptions do not change the digest.

    Args:
        snapshot: all objects.
        memo: of the digests of objects; it never changes the result.
    """
    memo = memo or Memo()
    things = (
        *snapshot.security_groups,
        *snapshot.prefix_lists,
        *snapshot.port_lists,
        *snapshot.network_interfaces,
    )
    digests = memo.each("digests", _digest, things, [_texts(thing, memo) for thing in things])
    return "sha256:" + hashlib.sha256(b"".join(digests)).hexdigest()[:_DIGITS]


_MANY = 100
"""Groups with at least this many rules memoize the text of each rule."""


def _texts(thing: object, memo: Memo) -> Memo | None:
    """Return the memo of the rules' texts of a large group; None for any other object."""
    if isinstance(thing, SecurityGroup) and len(thing.rules) >= _MANY:
        return memo.part(Seam.PARSE_CACHE, "texts", thing.security_group_id)
    return None


def _digest(thing: object, texts: Memo | None) -> bytes:
    """Return the digest of one object."""
    return hashlib.sha256(_text(thing, texts).encode()).digest()


def _text(value: object, texts: Memo | None = None) -> str:
    """Return an unambiguous text of a value; strings are quoted."""
    lines: list[str] = []
    _write(value, lines, texts)
    return "\n".join(lines)


def _write(value: object, lines: list[str], texts: Memo | None) -> None:
    if isinstance(value, CidrBlock):
        lines.append(str(value))
    elif isinstance(value, PortSet):
        ranges = () if value.is_all else value.ranges
        lines.append(f"({len(ranges)}")
        lines += (f"PortRange\n{first}\n{last}" for first, last in ranges)
    elif isinstance(value, tuple):
        lines.append(f"({len(value)}")
        if value and isinstance(value[0], CidrBlock):  # then all are
            lines += map(str, value)
        elif value and isinstance(value[0], SecurityGroupRule) and texts is not None:
            lines += texts.each("texts", _text, value)
        else:
            for item in value:
                _write(item, lines, texts)
    elif isinstance(value, enum.Enum):
        lines.append(repr(value.value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        lines.append(type(value).__name__)
        for name in _compared(type(value)):
            _write(getattr(value, name), lines, texts)
    else:
        lines.append(repr(value))


@cache
def _compared(kind: type[Any]) -> tuple[str, ...]:
    """Return the fields that ``==`` compares."""
    return tuple(field.name for field in dataclasses.fields(kind) if field.compare)
