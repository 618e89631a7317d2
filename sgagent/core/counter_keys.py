"""The keys of counters: the cloud's words for each counter of the kernel.

The compiler gives each counter that it declares a key. Totals are kept by key instead of the name in the
kernel (:mod:`sgagent.nft.names`), so they continue when names change.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import ClassVar, assert_never

from sgagent.core.model import Direction, Policy
from sgagent.core.policy import ResolvedRule


class HitStep(enum.Enum):
    """The steps of §3 that count, in their order."""

    INVALID = "invalid"
    SPOOFED = "spoofed"
    PLATFORM = "platform"
    FAILSAFE = "failsafe"
    INNER = "inner"
    RULE = "rule"
    OVER_LIMIT = "over_limit"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class HitTimes:
    """When a counter began to count and was hit last, in seconds since the epoch."""

    counted_since: float
    """From when on it was counted without a gap that is known."""

    last_hit_at: float | None = None
    """None where it was never hit in that time, or before."""


class ExemptionKind(enum.Enum):
    """Why traffic passes that no group was asked about (§7)."""

    PLATFORM = "platform"
    """The platform list of the configuration: the metadata service (§7.3)."""

    FAILSAFE = "failsafe"
    """The fail-safe list of the configuration (§7.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCounter:
    """Count the sessions that a rule decided on an interface."""

    step: ClassVar = HitStep.RULE

    interface: str
    """The link's name, as in every key here."""

    security_group_id: str
    rule_id: str
    direction: Direction
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class OverLimitCounter:
    """Count the packets that a rule drops, as their source has opened more sessions than it may (§13.1)."""

    step: ClassVar = HitStep.OVER_LIMIT

    interface: str
    security_group_id: str
    rule_id: str
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultCounter:
    """Count the sessions that no rule decided (§3.6)."""

    step: ClassVar = HitStep.DEFAULT

    interface: str
    direction: Direction
    verdict: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerCounter:
    """Count the sessions from fellow members (§3.4)."""

    step: ClassVar = HitStep.INNER

    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidCounter:
    """Count the packets that conntrack calls invalid (§6.6)."""

    step: ClassVar = HitStep.INVALID

    interface: str
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoofedCounter:
    """Count the packets that the source check drops (§12.6)."""

    step: ClassVar = HitStep.SPOOFED

    interface: str
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemptionCounter:
    """Count packets that pass without a group being asked (§7)."""

    interface: str
    direction: Direction
    kind: ExemptionKind

    @property
    def step(self) -> HitStep:
        """Return the step of the list."""
        return HitStep(self.kind.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedDropCounter:
    """Count packets that enforcing would have dropped, while the interface was only observed (§9.1).

    No counter of the kernel has this key: the same packets are counted for the rule or default that decided.
    """

    step: ClassVar = HitStep.DEFAULT

    interface: str
    direction: Direction


KernelCounterKey = (
    RuleCounter
    | OverLimitCounter
    | DefaultCounter
    | InnerCounter
    | InvalidCounter
    | SpoofedCounter
    | ExemptionCounter
)
"""The key of a counter of the kernel."""

CounterKey = KernelCounterKey | ObservedDropCounter
"""The key of one total."""


PLAIN_STEPS = (HitStep.INVALID, HitStep.SPOOFED, HitStep.PLATFORM, HitStep.FAILSAFE, HitStep.INNER)
"""Those with one counter for an interface and direction, whatever the policy says."""


def plain_key(step: HitStep, interface: str, direction: Direction) -> KernelCounterKey:
    """Return the key of one of the plain steps.

    Raises:
        ValueError: it is none of them.
    """
    match step:
        case HitStep.INVALID:
            return InvalidCounter(interface=interface, direction=direction)
        case HitStep.SPOOFED:
            return SpoofedCounter(interface=interface, direction=direction)
        case HitStep.PLATFORM | HitStep.FAILSAFE:
            kind = ExemptionKind(step.value)
            return ExemptionCounter(interface=interface, direction=direction, kind=kind)
        case HitStep.INNER:
            return InnerCounter(interface=interface)
        case HitStep.RULE | HitStep.OVER_LIMIT | HitStep.DEFAULT:
            raise ValueError(f"{step.value}: the policy decides what such a counter is of")


def is_of_drops(key: CounterKey) -> bool:
    """Return whether the counted packets are dropped where verdicts are carried out."""
    match key:
        case RuleCounter():
            return key.policy is Policy.DROP
        case DefaultCounter():
            return key.verdict is Policy.DROP
        case InvalidCounter() | SpoofedCounter() | OverLimitCounter():
            return True
        case InnerCounter() | ExemptionCounter() | ObservedDropCounter():
            return False
        case _:
            assert_never(key)


def under_other_policy(key: CounterKey) -> CounterKey | None:
    """Return the key of the same rule or default under the other policy; None for one without a policy."""
    match key:
        case RuleCounter():
            return replace(key, policy=_OTHER[key.policy])
        case DefaultCounter():
            return replace(key, verdict=_OTHER[key.verdict])
        case _:
            return None


_OTHER = {Policy.ACCEPT: Policy.DROP, Policy.DROP: Policy.ACCEPT}


def observed_drop(key: CounterKey) -> ObservedDropCounter | None:
    """Return the key for this key's packets where they would have been dropped; None for no drop."""
    match key:
        case RuleCounter() | OverLimitCounter() | DefaultCounter() | InvalidCounter() | SpoofedCounter() if (
            is_of_drops(key)
        ):
            return ObservedDropCounter(interface=key.interface, direction=key.direction)
        case _:
            return None


def counter_of_rule(interface: str, direction: Direction, rule: ResolvedRule) -> RuleCounter:
    """Return the key of a rule on an interface."""
    return RuleCounter(
        interface=interface,
        security_group_id=rule.security_group_id,
        rule_id=rule.rule_id,
        direction=direction,
        policy=rule.policy,
    )


def over_limit_of(interface: str, direction: Direction, rule: ResolvedRule) -> OverLimitCounter:
    """Return the key of the packets that a rule with a limit drops on an interface."""
    return OverLimitCounter(
        interface=interface,
        security_group_id=rule.security_group_id,
        rule_id=rule.rule_id,
        direction=direction,
    )
