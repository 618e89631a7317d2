"""Content digest of a snapshot: equal snapshots have equal versions."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, partial
from operator import attrgetter
from typing import Any

from sgagent.core.memo import Memory, Remade, Revised, changed_places, remake
from sgagent.core.model import (
    CidrBlock,
    NetworkInterface,
    PortList,
    PortSet,
    PrefixList,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)

_DIGITS = 12


def digest(snapshot: Snapshot, memory: Memory | None = None) -> str:
    """Return ``sha256:`` and 12 hexadecimal digits of the fields that snapshots are compared by.

    Files, their names and order, comments, names and descriptions do not change the digest.

    Args:
        snapshot: all objects.
        memory: caches the digests of objects; it never changes the result.
    """
    memory = memory or Memory()
    things: tuple[_Thing, ...] = (
        *snapshot.security_groups,
        *snapshot.prefix_lists,
        *snapshot.port_lists,
        *snapshot.network_interfaces,
    )
    digested: _Digested = memory.part("things").revise(partial(_digested, things, memory))
    return "sha256:" + hashlib.sha256(b"".join(digested.digests)).hexdigest()[:_DIGITS]


_Thing = SecurityGroup | PrefixList | PortList | NetworkInterface


@dataclass(frozen=True, slots=True)
class _Digested:
    """Objects, and the digest of each."""

    things: tuple[_Thing, ...]
    digests: Revised[bytes]


def _digested(things: tuple[_Thing, ...], memory: Memory, before: _Digested | None) -> _Digested:
    """Return the digest of each object; an object equal to its predecessor differs at most in its place."""
    if before is not None and len(before.things) == len(things):
        others = {
            place: _digest(things[place], _texts(things[place], memory))
            for place in changed_places(before.things, things)
            if things[place] != before.things[place]
        }
        return _Digested(things, before.digests.but(others))
    known = {} if before is None else dict(zip(map(id, before.things), before.digests, strict=True))
    digests = (known.get(id(thing)) or _digest(thing, _texts(thing, memory)) for thing in things)
    return _Digested(things, Revised(digests))


_MANY = 100
"""Groups with at least this many rules cache the text of each rule."""


def _texts(thing: object, memory: Memory) -> Memory | None:
    """Return the cache of rule texts of a large group; None for any other object."""
    if isinstance(thing, SecurityGroup) and len(thing.rules) >= _MANY:
        return memory.apart(thing.security_group_id)
    return None


def _digest(thing: object, texts: Memory | None) -> bytes:
    """Return the digest of one object."""
    if texts is not None:
        texts.turn()
    return hashlib.sha256(_text(thing, texts).encode()).digest()


def _text(value: object, texts: Memory | None = None) -> str:
    """Return an unambiguous text of a value; strings are quoted."""
    lines: list[str] = []
    _write(value, lines, texts)
    return "\n".join(lines)


_RuleTexts = Remade[SecurityGroupRule, str]


def _rule_texts(rules: tuple[SecurityGroupRule, ...], before: _RuleTexts | None) -> _RuleTexts:
    """Return the text of each rule of a group; the rules are sorted by id."""
    return remake(rules, _text if before is None else partial(_text_again, before), before)


def _text_again(before: _RuleTexts, rule: SecurityGroupRule) -> str:
    """Return the text of a rule, from the cache if an equal rule had the same id."""
    place = bisect_left(before.given, rule.rule_id, key=attrgetter("rule_id"))
    return before.made[place] if before.given[place : place + 1] == (rule,) else _text(rule)


def _write(value: object, lines: list[str], texts: Memory | None) -> None:
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
            lines += texts.revise(partial(_rule_texts, value)).made
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
