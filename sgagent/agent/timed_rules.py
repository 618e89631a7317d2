"""Rules of this host that time ends, or that it switches on and off."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sgagent.agent.clock import timestamp
from sgagent.core.hours import Hours
from sgagent.core.model import Policy
from sgagent.core.policy import ResolvedPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiringRule:
    """A rule in force that will end (§12.4)."""

    rule_id: str
    security_group_id: str
    policy: Policy
    expires_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurringRule:
    """A rule that has hours (§13.2)."""

    rule_id: str
    security_group_id: str
    policy: Policy
    hours: Hours
    is_active: bool

    def __str__(self) -> str:
        """Return the rule in words, and whether its hours hold."""
        state = "on" if self.is_active else "off"
        return f"{self.rule_id} of {self.security_group_id}, {self.policy.value}: {self.hours}, {state}"

    def as_json(self) -> dict[str, object]:
        """Return the rule as scripts read it."""
        return {
            "rule_id": self.rule_id,
            "security_group_id": self.security_group_id,
            "policy": self.policy.value,
            "hours": str(self.hours),
            "is_active": self.is_active,
        }

    def status(self, now: float) -> RecurringStatus:
        """Return the rule as the status has it; the time is in seconds since the epoch."""
        return RecurringStatus(
            rule_id=self.rule_id,
            security_group_id=self.security_group_id,
            policy=self.policy,
            hours=str(self.hours),
            is_active=self.is_active,
            changes_at=change_of(self.hours, now),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurringStatus:
    """A rule that has hours, as of a time."""

    rule_id: str
    security_group_id: str
    policy: Policy
    hours: str
    """In words."""

    is_active: bool
    changes_at: float | None
    """When its hours end or begin next, in seconds since the epoch; None where the calendar is over."""


def expiring_rules(policy: ResolvedPolicy | None) -> tuple[ExpiringRule, ...]:
    """Return the rules in force that will end, the one that ends first at the front."""
    return tuple(
        ExpiringRule(
            rule_id=rule.rule_id,
            security_group_id=rule.security_group_id,
            policy=rule.policy,
            expires_at=timestamp(rule.expires),
        )
        for rule in (policy.expiring if policy else ())
        if rule.expires is not None
    )


def recurring_rules(policy: ResolvedPolicy | None) -> tuple[RecurringRule, ...]:
    """Return the rules that have hours, sorted by group and id."""
    return tuple(
        RecurringRule(
            rule_id=rule.rule_id,
            security_group_id=rule.security_group_id,
            policy=rule.policy,
            hours=rule.conditions.active,
            is_active=is_active,
        )
        for rule, is_active in (policy.recurring if policy else ())
        if rule.conditions.active is not None
    )


def next_edge(expiring: Iterable[ExpiringRule], recurring: Iterable[RecurringRule], after: float) -> float:
    """Return when a rule ends, or hours do or begin, first after a time; infinity for never.

    All times are in seconds since the epoch.
    """
    ends = (rule.expires_at for rule in expiring if rule.expires_at > after)
    edges = (change_of(hours, after) for hours in {rule.hours for rule in recurring})
    return min((*ends, *(edge for edge in edges if edge is not None)), default=math.inf)


def change_of(hours: Hours, after: float) -> float | None:
    """Return when hours end or begin first after a time; None where the calendar is over."""
    edge = hours.next_edge(datetime.fromtimestamp(after, UTC))
    return None if edge is None else timestamp(edge)
