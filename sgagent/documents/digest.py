"""Name the content of a snapshot, so that equal snapshots have equal versions and others do not."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Iterator
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
        hashed.update("\n".join(_canonical(thing)).encode() + b"\n")
    return "sha256:" + hashed.hexdigest()[:_DIGITS]


def _canonical(value: object) -> Iterator[str]:
    """Go through a value as lines that no other value has; texts are quoted."""
    if isinstance(value, CidrBlock):
        yield str(value)
    elif isinstance(value, enum.Enum):
        yield repr(value.value)
    elif isinstance(value, tuple):
        yield f"({len(value)}"
        for item in value:
            yield from _canonical(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__
        for name in _compared(type(value)):
            yield from _canonical(getattr(value, name))
    else:
        yield repr(value)


@cache
def _compared(kind: type[Any]) -> tuple[str, ...]:
    """Return the fields of a dataclass that count when its values are compared."""
    return tuple(field.name for field in dataclasses.fields(kind) if field.compare)
