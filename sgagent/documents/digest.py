"""Name the content of a snapshot, so that equal snapshots have equal versions and others do not."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from functools import cache
from typing import Any

from sgagent.core.model import CidrBlock, Snapshot

_DIGITS = 12


def digest(snapshot: Snapshot) -> str:
    """Return ``sha256:`` and 12 hexadecimal digits of all that counts when snapshots are compared.

    Files, their names and order, comments, names and descriptions do not count.
    """
    hashed = hashlib.sha256()
    things = (
        snapshot.security_groups,
        snapshot.prefix_lists,
        snapshot.port_lists,
        snapshot.network_interfaces,
    )
    for thing in (thing for kind in things for thing in kind):
        lines: list[str] = []
        _write(thing, lines)
        hashed.update("\n".join(lines).encode() + b"\n")
    return "sha256:" + hashed.hexdigest()[:_DIGITS]


def _write(value: object, lines: list[str]) -> None:
    """Append a value as lines that no other value has; texts are quoted."""
    if isinstance(value, CidrBlock):
        lines.append(str(value))
    elif isinstance(value, tuple):
        lines.append(f"({len(value)}")
        for item in value:
            _write(item, lines)
    elif isinstance(value, enum.Enum):
        lines.append(repr(value.value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        lines.append(type(value).__name__)
        for name in _compared(type(value)):
            _write(getattr(value, name), lines)
    else:
        lines.append(repr(value))


@cache
def _compared(kind: type[Any]) -> tuple[str, ...]:
    """Return the fields of a dataclass that count when its values are compared."""
    return tuple(field.name for field in dataclasses.fields(kind) if field.compare)
