"""Hold what the rules of a group were resolved to, and of what that depends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sgagent.core.errors import Problem
from sgagent.core.memory import Memory
from sgagent.core.model import (
    CidrBlock,
    Direction,
    GroupReference,
    PortListReference,
    PrefixListReference,
    SecurityGroup,
    SecurityGroupRule,
)
from sgagent.core.policy import ResolvedRule, precedence

Reference = GroupReference | PrefixListReference | PortListReference
"""What a rule may name that stands elsewhere in the snapshot."""


@dataclass(frozen=True, slots=True, eq=False)
class Same:
    """A value that is equal to itself alone: to compare large ones by what is in them would take too long."""

    value: object

    def __eq__(self, other: object) -> bool:
        """Tell whether it is the very same value."""
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        """Return what tells values apart."""
        return id(self.value)


@dataclass(frozen=True, slots=True)
class Object:
    """What a reference stands for, as far as the resolution of a rule depends on it."""

    content: Same | None
    """The members, or the list; None where there is no such object."""

    account_id: str | None = None
    vpc_id: str | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """A rule, what it was resolved to, and what is wrong with it."""

    rule: SecurityGroupRule
    resolved: ResolvedRule
    problems: tuple[Problem, ...]

    def refers_to(self, some: frozenset[Reference]) -> bool:
        """Tell whether the rule names one of these."""
        peer, ports = self.rule.authorization_object, self.rule.ports
        if not isinstance(peer, CidrBlock) and peer in some:
            return True
        return isinstance(ports, PortListReference) and ports in some


@dataclass(frozen=True, slots=True)
class ResolvedRules:
    """The rules of a group, in the order of their ids."""

    objects: Mapping[Reference, Object]
    """What they name."""

    found: tuple[Resolved, ...]


def references(group: SecurityGroup, memory: Memory) -> tuple[Reference, ...]:
    """Return what the rules of a group name, each once."""
    return memory.part("references").recall((group.rules,), lambda: _references(group.rules))


def _references(rules: Sequence[SecurityGroupRule]) -> tuple[Reference, ...]:
    named: dict[Reference, None] = {}
    for rule in rules:
        if not isinstance(rule.authorization_object, CidrBlock):
            named[rule.authorization_object] = None
        if isinstance(rule.ports, PortListReference):
            named[rule.ports] = None
    return tuple(named)


def ordered(
    groups: tuple[ResolvedRules, ...], direction: Direction, memory: Memory
) -> tuple[ResolvedRule, ...]:
    """Return the rules of several groups in one direction, the one that decides first at the front.

    The order does not depend on what they name, so it stays where only that changed.
    """
    rules = tuple(one for group in groups for one in group.found)
    places = memory.part("order", direction).recall(
        tuple(one.rule for one in rules), lambda: _places(rules, direction)
    )
    return tuple(rules[place].resolved for place in places)


def _places(rules: tuple[Resolved, ...], direction: Direction) -> tuple[int, ...]:
    """Return the places of the rules of one direction, in order."""
    places = (place for place, one in enumerate(rules) if one.rule.direction is direction)
    return tuple(sorted(places, key=lambda place: precedence(rules[place].resolved)))
