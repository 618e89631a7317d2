"""Counters that packets add to, by their names, and before them the meters' answers (§13.1)."""

from __future__ import annotations

from sgagent.core.clauses import DecidedBy
from sgagent.core.conditions import MOST_SOURCES
from sgagent.core.counter_keys import (
    DefaultCounter,
    HitStep,
    KernelCounterKey,
    counter_of_rule,
    over_limit_of,
    plain_key,
)
from sgagent.core.evaluate import Decision, Packet, is_always_allowed
from sgagent.core.model import Family
from sgagent.core.policy import ResolvedInterface
from sgagent.nft import names
from sgagent.nft.ruleset import IP6_SADDR, IP_SADDR, Meter, MeterSet


def counters_of(judge: ResolvedInterface, opener: Packet, decision: Decision, *notes: str) -> tuple[str, ...]:
    """Return the counter that a packet adds to, if to any, behind what meters say of the packet."""
    link, direction = judge.name, opener.direction
    key: KernelCounterKey
    match decision.decided_by:
        case DecidedBy.RULE if decision.rule is not None:
            key = counter_of_rule(link, direction, decision.rule)
        case DecidedBy.OVER_LIMIT if decision.rule is not None:
            key = over_limit_of(link, direction, decision.rule)
        case DecidedBy.DEFAULT:
            key = DefaultCounter(interface=link, direction=direction, verdict=decision.verdict)
        case DecidedBy.ALWAYS if not is_always_allowed(opener):
            key = plain_key(HitStep.PLATFORM, link, direction)
        case DecidedBy.FAILSAFE | DecidedBy.INNER | DecidedBy.INVALID | DecidedBy.SPOOFED as step:
            key = plain_key(HitStep(step.value), link, direction)
        case _:
            return notes
    return (*notes, names.counter_name(key))


def notes_of(link: str, decision: Decision, family: Family) -> tuple[str, str] | None:
    """Return what the meter of the rule that decided says within its limit, and beyond; None without."""
    rule = decision.rule
    if rule is None or rule.conditions.limit is None or decision.decided_by is not DecidedBy.RULE:
        return None
    limit, name = rule.conditions.limit, names.meter_set(link, rule.rule_id, family, rule.conditions.limit)
    selector = IP_SADDR if family is Family.IPV4 else IP6_SADDR
    return meter_notes(
        Meter(name, selector, limit.rate, limit.seconds, limit.burst),
        MeterSet(name=name, key_type=selector.key_type, size=MOST_SOURCES, timeout=limit.refill),
    )


def meter_notes(meter: Meter, meter_set: MeterSet) -> tuple[str, str]:
    """Return what stands among the counters of packets that a meter finds within its rate, and beyond it.

    So packets have what they have to have only behind the very meter that the policy demands.
    """
    what = f"{meter.rate} in {meter.seconds} s, burst {meter.burst}, by {meter.selector.key}"
    where = f"{meter_set.name} of {meter_set.size}, {meter_set.key_type.value}, {meter_set.timeout} s"
    if meter_set.strange_bucket is not None:
        where += f", in it {meter_set.strange_bucket}"
    return f"within {what}, {where}", f"over {what}, {where}"
