"""Know where in the table the kernel tells of a packet: each leaf by what its log statement says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from sgagent.core.evaluate import DecidedBy
from sgagent.core.kernel.counters import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    ExemptionKind,
    InnerCounter,
    InvalidCounter,
    ObservedDropCounter,
    RuleCounter,
    is_of_drops,
)
from sgagent.core.kernel.names import log_prefix
from sgagent.core.model import Direction, Mode, Policy
from sgagent.core.policy import ResolvedPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
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


Leaves = Mapping[str, Leaf]
"""By the prefix of the log statement."""


def leaves_of(policy: ResolvedPolicy, counters: Mapping[str, CounterKey]) -> Leaves:
    """Return the leaves of a table.

    Args:
        policy: what it enforces.
        counters: what its counters count, by name: each leaf has one of its own name.
    """
    priorities = dict(_priorities(policy))
    return {log_prefix(name): _leaf(key, policy, priorities) for name, key in counters.items()}


def _priorities(policy: ResolvedPolicy) -> Iterator[tuple[tuple[str, Direction, str], int]]:
    for judge in (*policy.interfaces, *((policy.unbound,) if policy.unbound else ())):
        for direction in Direction:
            for rule in judge.toward(direction).rules:
                yield (judge.name, direction, rule.rule_id), rule.priority


def _leaf(
    key: CounterKey, policy: ResolvedPolicy, priorities: Mapping[tuple[str, Direction, str], int]
) -> Leaf:
    direction = Direction.INGRESS if isinstance(key, InnerCounter) else key.direction
    bound = policy.interface(key.interface)
    judge = bound or policy.unbound
    leaf = Leaf(
        key=key,
        interface=key.interface,
        network_interface_id=bound.network_interface_id if bound else None,
        interface_groups=judge.security_group_ids if judge else (),
        direction=direction,
        verdict=Policy.DROP if is_of_drops(key) else Policy.ACCEPT,
        mode=judge.mode if judge else Mode.ENFORCE,
        decided_by=_decided_by(key),
    )
    if not isinstance(key, RuleCounter):
        return leaf
    priority = priorities.get((key.interface, direction, key.rule_id))
    return replace(leaf, rule_id=key.rule_id, security_group_id=key.security_group_id, priority=priority)


def _decided_by(key: CounterKey) -> DecidedBy:
    match key:
        case RuleCounter():
            return DecidedBy.RULE
        case DefaultCounter():
            return DecidedBy.DEFAULT
        case InnerCounter():
            return DecidedBy.INNER
        case InvalidCounter():
            return DecidedBy.INVALID
        case ExemptionCounter(kind=ExemptionKind.PLATFORM):
            return DecidedBy.ALWAYS
        case ExemptionCounter():
            return DecidedBy.FAILSAFE
        case ObservedDropCounter():
            raise ValueError(f"no leaf counts {key}")
        case _:
            assert_never(key)
