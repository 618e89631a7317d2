"""Relations of two rules by their packets: whether they meet, and whether one is a part of the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sgagent.core.addresses import joined, meets, without
from sgagent.core.guardrails import EVERYONE
from sgagent.core.model import ALL_PROTOCOLS, Family, Policy, Protocols
from sgagent.core.policy import Peer, ResolvedRule
from sgagent.core.rule_values import ANY


def may_meet(one: ResolvedRule, other: ResolvedRule) -> bool:
    """Return whether two rules may match the same packet; source ports and near ends are left out."""
    is_same_user = None in (one.user, other.user) or one.user == other.user
    return (
        is_same_user
        and (one.units is None or other.units is None or meets(one.units, (other.units,)))
        and any(meets(run, other.ports.ranges) for run in one.ports.ranges)
        and any(_meet(one, other, family) for family in Family)
    )


def as_if_of_everyone(rules: Iterable[ResolvedRule]) -> tuple[ResolvedRule, ...]:
    """Return the rules that name names, each for every address that the DNS may give these."""
    return tuple(replace(one, peer=_EVERYONE) for one in rules if one.peer.is_dynamic)


_EVERYONE = Peer(name=ANY, addresses=EVERYONE)


def is_uncertain(rule: ResolvedRule, named: Iterable[ResolvedRule]) -> bool:
    """Return whether other answers, or users of which two are one, may change what a rule is needed for.

    Args:
        rule: to look at.
        named: rules that name names, as if of everyone.
    """
    return (
        rule.peer.is_dynamic
        or rule.conditions.local is not None
        or any(
            (one.policy is not rule.policy or one.conditions.limit is not None) and may_meet(rule, one)
            for one in named
            if one.priority >= rule.priority
        )
    )


def _meet(one: ResolvedRule, other: ResolvedRule, family: Family) -> bool:
    peers = other.peer.addresses.ranges(family)
    return (
        any(meets(run, peers) for run in one.peer.addresses.ranges(family))
        and _share_a_protocol(one.protocols_of(family), other.protocols_of(family))
        and one.can_match(family)
        and other.can_match(family)
    )


def _share_a_protocol(one: Protocols, other: Protocols) -> bool:
    return ALL_PROTOCOLS in one or ALL_PROTOCOLS in other or not set(one).isdisjoint(other)


def is_narrow(rule: ResolvedRule) -> bool:
    """Return whether a rule is for some source ports, near ends, users or units only."""
    wanted = (rule.near_ends, rule.user, rule.units)
    return not rule.source_ports.is_all or any(one is not None for one in wanted)


def lies_within(one: ResolvedRule, other: ResolvedRule) -> bool:
    """Return whether all that a rule matches another one matches, and more besides."""
    return is_part(one, other) and not is_part(other, one)


def is_part(one: ResolvedRule, other: ResolvedRule) -> bool:
    """Return whether another rule matches all that a rule does."""
    return (
        (other.ports.is_all or not without(one.ports.ranges, other.ports.ranges))
        and (other.source_ports.is_all or not without(one.source_ports.ranges, other.source_ports.ranges))
        and other.user in (None, one.user)
        and all(
            wide is None or (own is not None and wide[0] <= own[0] and own[1] <= wide[1])
            for own, wide in ((one.near_ends, other.near_ends), (one.units, other.units))
        )
        and all(_is_part_of_family(one, other, family) for family in Family if one.can_match(family))
    )


def _is_part_of_family(one: ResolvedRule, other: ResolvedRule, family: Family) -> bool:
    return (
        other.can_match(family)
        and (ALL_PROTOCOLS in other.protocols or set(one.protocols_of(family)) <= set(other.protocols))
        and not without(one.peer.addresses.ranges(family), joined(other.peer.addresses.ranges(family)))
    )


def closes_ports(drop: ResolvedRule, accept: ResolvedRule) -> bool:
    """Return whether a drop closes some ports of an accept from the same far ends.

    That is the guide's own closing drop (case 3), which would do nothing if it did not win.
    """
    return drop.peer.addresses == accept.peer.addresses and lies_within(drop, accept)


def contradict(one: ResolvedRule, other: ResolvedRule) -> bool:
    """Return whether two rules of one priority and different policies may match the same packet."""
    drop, accept = (one, other) if one.policy is Policy.DROP else (other, one)
    is_tie = one.priority == other.priority and one.policy is not other.policy
    return is_tie and may_meet(one, other) and not closes_ports(drop, accept)
