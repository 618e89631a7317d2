"""Revocation: whether a new policy may drop sessions that the old one allowed.

Only then are live sessions evaluated again. The answer may be a false yes, never a false no. It is no only if
every accepting entry is still there with no fewer members, and every dropping entry was there before with no
fewer. A packet that an old entry accepted then still meets that entry, and no dropping entry before it: such
an entry would have dropped the packet under the old policy too.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter

from sgagent.core.addresses import NO_ADDRESSES, AddressSet
from sgagent.core.memo import gone_and_come
from sgagent.core.model import Direction, Mode, Policy
from sgagent.core.policy import Exemption, ResolvedDirection, ResolvedInterface, ResolvedPolicy, ResolvedRule

_Match = tuple[object, ...]
"""All of a rule but whom it speaks of."""


def narrows(old: ResolvedPolicy, new: ResolvedPolicy) -> bool:
    """Return whether the new policy may drop a session that the old one allowed, on an interface of both.

    An interface that is newly bound has a slot of its own, in which no session has been allowed yet.

    Args:
        old: the policy in force.
        new: the policy to apply.
    """
    before = {interface.name: interface for interface in old.interfaces}
    return any(
        _interface_narrows(before[interface.name], interface)
        for interface in new.interfaces
        if interface.name in before
    )


def ends_observing(old: ResolvedPolicy, new: ResolvedPolicy) -> bool:
    """Return whether an interface leaves observe mode, so that sessions are judged again (§9.1)."""
    observed = {interface.name for interface in old.interfaces if interface.mode is Mode.OBSERVE}
    return any(i.name in observed and i.mode is Mode.ENFORCE for i in new.interfaces)


def may_cut(old: ResolvedPolicy, new: ResolvedPolicy) -> bool:
    """Return whether a session that lives by the old policy may not by the new one, on any interface.

    Those that are newly judged count, too.
    """
    before = {interface.name for interface in old.interfaces}
    is_newly_judged = any(interface.name not in before for interface in new.interfaces)
    closes_others = new.unbound is not None and new.unbound != old.unbound
    return is_newly_judged or closes_others or narrows(old, new)


def _interface_narrows(old: ResolvedInterface, new: ResolvedInterface) -> bool:
    if old.mode is Mode.OBSERVE and new.mode is Mode.ENFORCE:
        return True  # what was only observed was remembered as allowed (§9.1)
    return any(_direction_narrows(old.toward(direction), new.toward(direction)) for direction in Direction)


def _direction_narrows(old: ResolvedDirection, new: ResolvedDirection) -> bool:
    return (
        (old.default is Policy.ACCEPT and new.default is Policy.DROP)
        or not _exemptions(old) <= _exemptions(new)
        or not old.inner.issubset(new.inner)
        or _rules_narrow(old.rules, new.rules)
    )


def _rules_narrow(old: tuple[ResolvedRule, ...], new: tuple[ResolvedRule, ...]) -> bool:
    """Return whether an accepting rule lost members, or a dropping one gained some.

    Most rules are unchanged objects. Of these, only rules that match the same traffic as a changed rule are
    compared, because they may name the same members.
    """
    if old is new:
        return False
    gone, come = gone_and_come(old, new)
    if not gone and not come:
        return False
    changed = (*gone, *come)
    before, after = _as_urgent(old, changed), _as_urgent(new, changed)
    return not (
        _all_within(_by_match(before, Policy.ACCEPT), _by_match(after, Policy.ACCEPT))
        and _all_within(_by_match(after, Policy.DROP), _by_match(before, Policy.DROP))
    )


def _as_urgent(rules: tuple[ResolvedRule, ...], changed: tuple[ResolvedRule, ...]) -> list[ResolvedRule]:
    """Return those of rules that may match what a changed one does: of its priority, and its first port."""
    priorities = {rule.priority for rule in changed}
    matches = {(rule.priority, rule.ports.ranges[:1]) for rule in changed}
    return [
        rule
        for priority in priorities
        for rule in _of_priority(rules, priority)
        if (priority, rule.ports.ranges[:1]) in matches
    ]


def _of_priority(rules: tuple[ResolvedRule, ...], priority: int) -> tuple[ResolvedRule, ...]:
    first, behind = (find(rules, priority, key=_PRIORITY) for find in (bisect_left, bisect_right))
    return rules[first:behind]


_PRIORITY: Callable[[ResolvedRule], int] = attrgetter("priority")


def _exemptions(toward: ResolvedDirection) -> frozenset[Exemption]:
    return frozenset((*toward.platform, *toward.failsafe))


def _by_match(rules: Iterable[ResolvedRule], policy: Policy) -> Mapping[_Match, AddressSet]:
    """Return whom the rules of one policy speak of, by priority and everything else that they match."""
    found: dict[_Match, list[ResolvedRule]] = {}
    for rule in rules:
        if rule.policy is policy:
            match = (rule.priority, rule.protocol, rule.ports, rule.source_ports, rule.local_address)
            found.setdefault(match, []).append(rule)
    return {match: _union(alike) for match, alike in found.items()}


def _union(rules: list[ResolvedRule]) -> AddressSet:
    if len(rules) == 1:
        return rules[0].peer.addresses
    peers = {id(rule.peer.addresses): rule.peer.addresses for rule in rules}
    return NO_ADDRESSES.union(*peers.values())


def _all_within(inner: Mapping[_Match, AddressSet], outer: Mapping[_Match, AddressSet]) -> bool:
    """Return whether each match has no members in ``inner`` that it lacks in ``outer``."""
    return all(
        not members or (match in outer and (members is outer[match] or members.issubset(outer[match])))
        for match, members in inner.items()
    )
