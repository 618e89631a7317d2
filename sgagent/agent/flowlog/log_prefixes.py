"""Map the prefixes of log statements to the leaves of the table that log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sgagent.core.evaluate import DecidedBy
from sgagent.core.model import Direction, Mode, Policy
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy, ResolvedRule
from sgagent.nft.counter_keys import (
    CounterKey,
    HitStep,
    InnerCounter,
    RuleCounter,
    is_of_drops,
)
from sgagent.nft.names import log_prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedLeaf:
    """Where judging ends, and what that means for a packet."""

    key: CounterKey
    interface: str
    network_interface_id: str | None
    interface_groups: tuple[str, ...]
    """Those of the interface."""

    direction: Direction
    verdict: Policy
    mode: Mode
    decided_by: DecidedBy
    rule_id: str | None = None
    security_group_id: str | None = None
    priority: int | None = None


Leaves = Mapping[str, LoggedLeaf]
"""By the prefix of the log statement."""


def leaves_of(policy: ResolvedPolicy, counters: Mapping[str, CounterKey]) -> Leaves:
    """Return the leaves of a table.

    Args:
        policy: what it enforces.
        counters: what its counters count, by name: each leaf has one of its own name.
    """
    priorities = dict(_priorities(policy))
    judges = {judge.name: judge for judge in _judges(policy)}
    return {
        log_prefix(name): _leaf(key, judges.get(key.interface, policy.unbound), priorities)
        for name, key in counters.items()
    }


def have_same_leaves(one: ResolvedPolicy, other: ResolvedPolicy) -> bool:
    """Return whether two policies, whose tables have the same counters, describe each leaf alike.

    The members of groups make no difference. Unchanged rule objects are not compared.
    """
    return (
        len(one.interfaces) == len(other.interfaces)
        and (one.unbound is None) is (other.unbound is None)
        and all(map(_are_alike, _judges(one), _judges(other)))
    )


def _are_alike(before: ResolvedInterface, after: ResolvedInterface) -> bool:
    about_before, about_after = (
        (judge.name, judge.network_interface_id, judge.security_group_ids, judge.mode)
        for judge in (before, after)
    )
    return about_before == about_after and all(
        _have_same_rules(before.toward(direction).rules, after.toward(direction).rules)
        for direction in Direction
    )


def _have_same_rules(before: tuple[ResolvedRule, ...], after: tuple[ResolvedRule, ...]) -> bool:
    """Return whether rules have the same ids and priorities, one by one."""
    return len(before) == len(after) and all(
        one is other or (one.rule_id, one.priority) == (other.rule_id, other.priority)
        for one, other in zip(before, after, strict=True)
    )


def _judges(policy: ResolvedPolicy) -> tuple[ResolvedInterface, ...]:
    return (*policy.interfaces, *((policy.unbound,) if policy.unbound else ()))


def _priorities(policy: ResolvedPolicy) -> Iterator[tuple[tuple[str, Direction, str], int]]:
    for judge in _judges(policy):
        for direction in Direction:
            for rule in judge.toward(direction).rules:
                yield (judge.name, direction, rule.rule_id), rule.priority


def _leaf(
    key: CounterKey,
    judge: ResolvedInterface | None,
    priorities: Mapping[tuple[str, Direction, str], int],
) -> LoggedLeaf:
    direction = Direction.INGRESS if isinstance(key, InnerCounter) else key.direction
    rule = key if isinstance(key, RuleCounter) else None
    return LoggedLeaf(
        key=key,
        interface=key.interface,
        network_interface_id=judge.network_interface_id if judge else None,
        interface_groups=judge.security_group_ids if judge else (),
        direction=direction,
        verdict=Policy.DROP if is_of_drops(key) else Policy.ACCEPT,
        mode=judge.mode if judge else Mode.ENFORCE,
        decided_by=DecidedBy.ALWAYS if key.step is HitStep.PLATFORM else DecidedBy(key.step.value),
        rule_id=rule.rule_id if rule else None,
        security_group_id=rule.security_group_id if rule else None,
        priority=priorities.get((key.interface, direction, rule.rule_id)) if rule else None,
    )
