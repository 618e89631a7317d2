"""Resolved rules of groups, cached with what they depend on."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sgagent.core.addresses import AddressSet
from sgagent.core.errors import Problem
from sgagent.core.memo import Memory, Revised, changed_places, gone_and_come
from sgagent.core.model import (
    CidrBlock,
    Direction,
    GroupReference,
    PortListReference,
    PrefixListReference,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.core.policy import ResolvedRule, precedence

Reference = GroupReference | PrefixListReference | PortListReference
"""What a rule may name that stands elsewhere in the snapshot."""


@dataclass(frozen=True, slots=True, eq=False)
class Same:
    """Compare a value by identity, because comparing large ones by content takes too long."""

    value: object

    def __eq__(self, other: object) -> bool:
        """Return whether both hold the same object."""
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        """Return the identity of the value."""
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
        """Return whether the rule names one of these."""
        peer, ports = self.rule.authorization_object, self.rule.ports
        if not isinstance(peer, CidrBlock) and peer in some:
            return True
        return isinstance(ports, PortListReference) and ports in some


@dataclass(frozen=True, slots=True)
class ResolvedRules:
    """The rules of a group, in the order of their ids."""

    rules: tuple[SecurityGroupRule, ...]
    objects: Objects
    """What they name."""

    found: Revised[Resolved]
    problems: tuple[Problem, ...]
    """What is wrong with them."""

    @classmethod
    def of(cls, group: SecurityGroup, objects: Objects, found: Iterable[Resolved]) -> ResolvedRules:
        """Return what a group's rules were resolved to, and all that is wrong with them."""
        resolved = Revised(found)
        return cls(group.rules, objects, resolved, tuple(_problems(resolved)))

    def but(self, group: SecurityGroup, objects: Objects, others: Mapping[int, Resolved]) -> ResolvedRules:
        """Return the same for rules of which some, by their places, were resolved to something else."""
        found = self.found.but(others)
        are_fine = not self.problems and not any(_problems(others.values()))
        return ResolvedRules(group.rules, objects, found, () if are_fine else tuple(_problems(found)))


def _problems(found: Iterable[Resolved]) -> Iterator[Problem]:
    return (problem for one in found if one.problems for problem in one.problems)


@dataclass(frozen=True, slots=True)
class Naming:
    """What the rules of a group name."""

    places: Mapping[Reference, tuple[int, ...]]
    """Which rules name it, by their places."""

    group_objects: int
    """How many rules have a group as their object."""

    groups: tuple[GroupReference, ...]
    prefix_lists: tuple[PrefixListReference, ...]
    port_lists: tuple[PortListReference, ...]
    ids: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    """Of these three."""

    def standing(self, snapshot: Snapshot, members: Mapping[str, AddressSet]) -> tuple[object, ...]:
        """Return all that there is of what is named, by the interpreter's own loops."""
        groups, prefix_lists, port_lists = self.ids
        return (
            *map(snapshot.group_by_id.get, groups),
            *map(members.get, groups),
            *map(snapshot.prefix_list_by_id.get, prefix_lists),
            *map(snapshot.port_list_by_id.get, port_lists),
        )

    def at(self, places: Iterable[int]) -> set[Reference]:
        """Return what is named by what stands at some places of these."""
        named: tuple[Reference, ...] = (*self.groups, *self.groups, *self.prefix_lists, *self.port_lists)
        return {named[place] for place in places}


def naming(group: SecurityGroup, memory: Memory) -> Naming:
    """Return what the rules of a group name."""
    part = memory.part("naming", group.security_group_id)
    named: _Named = part.revise(partial(_named, group.rules))
    return named.naming


@dataclass(frozen=True, slots=True)
class _Named:
    """Rules, and what they name."""

    rules: tuple[SecurityGroupRule, ...]
    naming: Naming


def _named(rules: tuple[SecurityGroupRule, ...], before: _Named | None) -> _Named:
    """Return what rules name; that is the same if the changed ones name what those did in their places."""
    if before is not None and before.rules is rules:
        return before
    if before is not None and len(before.rules) == len(rules):
        places = changed_places(before.rules, rules)
        if all(_names(before.rules[place]) == _names(rules[place]) for place in places):
            return _Named(rules, before.naming)
    return _Named(rules, _naming(rules))


def _names(rule: SecurityGroupRule) -> tuple[Reference, ...]:
    """Return what a rule names that stands elsewhere."""
    named = (rule.authorization_object, rule.ports)
    return tuple(one for one in named if isinstance(one, Reference))


def _naming(rules: Sequence[SecurityGroupRule]) -> Naming:
    places: dict[Reference, list[int]] = {}
    for place, rule in enumerate(rules):
        for named in _names(rule):
            places.setdefault(named, []).append(place)
    groups = tuple(one for one in places if isinstance(one, GroupReference))
    prefix_lists = tuple(one for one in places if isinstance(one, PrefixListReference))
    port_lists = tuple(one for one in places if isinstance(one, PortListReference))
    return Naming(
        places={reference: tuple(found) for reference, found in places.items()},
        group_objects=sum(len(places[group]) for group in groups),
        groups=groups,
        prefix_lists=prefix_lists,
        port_lists=port_lists,
        ids=(
            tuple(one.security_group_id for one in groups),
            tuple(one.prefix_list_id for one in prefix_lists),
            tuple(one.port_list_id for one in port_lists),
        ),
    )


@dataclass(frozen=True, slots=True)
class Objects:
    """What the rules of a group name, and what that stands for."""

    naming: Naming
    standing: tuple[object, ...]
    by_reference: Mapping[Reference, Object]

    def changed_since(self, before: Objects) -> frozenset[Reference]:
        """Return what is named and stands for something else than before."""
        named: Iterable[Reference] = self.by_reference
        if before.naming is self.naming:
            named = self.naming.at(changed_places(before.standing, self.standing))
        return frozenset(one for one in named if before.by_reference.get(one) != self.by_reference[one])


def objects_named(
    naming: Naming, snapshot: Snapshot, members: Mapping[str, AddressSet], before: Objects | None
) -> Objects:
    """Return the objects that rules name.

    Args:
        naming: which rules name which objects.
        snapshot: the definitions.
        members: of all groups.
        before: the earlier result; objects that have not changed are taken from it.
    """
    standing = naming.standing(snapshot, members)
    make = partial(_object, snapshot, members)
    if before is None or before.naming is not naming:
        return Objects(naming, standing, {one: make(one) for one in naming.places})
    places = changed_places(before.standing, standing)
    if not places:
        return before
    again = {one: make(one) for one in naming.at(places)}
    return Objects(naming, standing, {**before.by_reference, **again})


def _object(snapshot: Snapshot, members: Mapping[str, AddressSet], reference: Reference) -> Object:
    """Return what a reference stands for, and all of it that its resolution depends on."""
    match reference:
        case GroupReference(security_group_id):
            group = snapshot.group_by_id.get(security_group_id)
            if group is None:
                return Object(None)
            return Object(Same(members[security_group_id]), group.account_id, group.vpc_id)
        case PrefixListReference(prefix_list_id):
            return Object(Same(snapshot.prefix_list_by_id.get(prefix_list_id)))
        case PortListReference(port_list_id):
            return Object(Same(snapshot.port_list_by_id.get(port_list_id)))


NO_OBJECTS = Objects(_naming(()), (), {})


def ordered(
    groups: tuple[ResolvedRules, ...], direction: Direction, memory: Memory
) -> tuple[ResolvedRule, ...]:
    """Return the rules of several groups in one direction, the one that decides first at the front."""
    found: _Ordered = memory.part("order", direction).revise(partial(_ordered, groups, direction))
    return found.rules


@dataclass(frozen=True, slots=True)
class _Ordered:
    """Rules of groups in the order in which they decide."""

    groups: tuple[ResolvedRules, ...]
    rules: Revised[ResolvedRule]


_MOST_PUT_IN_PLACE = 64
"""Rules that are put in their places one by one; more are sorted with all others."""


def _ordered(groups: tuple[ResolvedRules, ...], direction: Direction, before: _Ordered | None) -> _Ordered:
    """Return the rules of one direction in order; of those before, only what came and went is looked at."""
    if before is not None and len(before.groups) == len(groups):
        gone, come = _gone_and_come(before.groups, groups, direction)
        if len(gone) + len(come) <= _MOST_PUT_IN_PLACE:
            rules = _put_in_place(before.rules, gone, come)
            if rules is not None:
                return _Ordered(groups, rules)
    all_rules = (one.resolved for group in groups for one in group.found if one.rule.direction is direction)
    return _Ordered(groups, Revised(sorted(all_rules, key=precedence)))


def _gone_and_come(
    before: tuple[ResolvedRules, ...], after: tuple[ResolvedRules, ...], direction: Direction
) -> tuple[list[ResolvedRule], list[ResolvedRule]]:
    """Return the rules of one direction that went, and those that came."""
    gone: list[ResolvedRule] = []
    come: list[ResolvedRule] = []
    for old, new in zip(before, after, strict=True):
        for found, differing in zip((gone, come), gone_and_come(old.found, new.found), strict=True):
            found += [one.resolved for one in differing if one.rule.direction is direction]
    return gone, come


def _put_in_place(
    rules: Revised[ResolvedRule], gone: Sequence[ResolvedRule], come: Sequence[ResolvedRule]
) -> Revised[ResolvedRule] | None:
    """Return rules in order, without some and with others; None where ids are not unique, and so no order."""
    places = {precedence(rule): _place(rules, rule) for rule in gone}
    others = {precedence(rule): rule for rule in come}
    if len(places) < len(gone) or len(others) < len(come):
        return None
    if any(rules[place : place + 1] != (rule,) for place, rule in zip(places.values(), gone, strict=True)):
        return None
    if others.keys() == places.keys():
        return rules.but({place: others[key] for key, place in places.items()})
    kept = list(rules)
    for place in sorted(places.values(), reverse=True):
        del kept[place]
    for key, rule in others.items():
        place = _place(kept, rule)
        if place < len(kept) and precedence(kept[place]) == key:
            return None
        kept.insert(place, rule)
    return Revised(kept)


def _place(rules: Sequence[ResolvedRule], rule: ResolvedRule) -> int:
    return bisect_left(rules, precedence(rule), key=precedence)
