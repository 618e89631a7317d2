"""Hold what the rules of a group were resolved to, and of what that depends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

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

    rules: tuple[SecurityGroupRule, ...]
    objects: Mapping[Reference, Object]
    """What they name."""

    found: tuple[Resolved, ...]
    problems: tuple[Problem, ...]
    """What is wrong with them."""

    @classmethod
    def of(
        cls, group: SecurityGroup, objects: Mapping[Reference, Object], found: tuple[Resolved, ...]
    ) -> ResolvedRules:
        """Return what a group's rules were resolved to, and all that is wrong with them."""
        problems = tuple(problem for one in found if one.problems for problem in one.problems)
        return cls(group.rules, objects, found, problems)


@dataclass(frozen=True, slots=True)
class Naming:
    """What the rules of a group name."""

    places: Mapping[Reference, tuple[int, ...]]
    """Which rules name it, by their places."""

    group_objects: int
    """How many rules have a group as their object."""


def naming(group: SecurityGroup, memory: Memory) -> Naming:
    """Return what the rules of a group name."""
    return memory.part("naming").recall((group.rules,), lambda: _naming(group.rules))


def _naming(rules: Sequence[SecurityGroupRule]) -> Naming:
    places: dict[Reference, list[int]] = {}
    for place, rule in enumerate(rules):
        if not isinstance(rule.authorization_object, CidrBlock):
            places.setdefault(rule.authorization_object, []).append(place)
        if isinstance(rule.ports, PortListReference):
            places.setdefault(rule.ports, []).append(place)
    return Naming(
        places={reference: tuple(found) for reference, found in places.items()},
        group_objects=sum(isinstance(rule.authorization_object, GroupReference) for rule in rules),
    )


def ordered(
    groups: tuple[ResolvedRules, ...], direction: Direction, memory: Memory
) -> tuple[ResolvedRule, ...]:
    """Return the rules of several groups in one direction, the one that decides first at the front.

    The order does not depend on what they name, so it stays where only that changed.
    """
    rules = tuple(chain.from_iterable(group.found for group in groups))
    places = memory.part("order", direction).recall(
        tuple(group.rules for group in groups), lambda: _places(rules, direction)
    )
    resolved = tuple(map(_RESOLVED, rules))
    return tuple(map(resolved.__getitem__, places))


_RESOLVED: Callable[[Resolved], ResolvedRule] = attrgetter("resolved")


def _places(rules: tuple[Resolved, ...], direction: Direction) -> tuple[int, ...]:
    """Return the places of the rules of one direction, in order."""
    places = (place for place, one in enumerate(rules) if one.rule.direction is direction)
    return tuple(sorted(places, key=lambda place: precedence(rules[place].resolved)))
