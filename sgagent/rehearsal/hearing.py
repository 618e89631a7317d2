"""Understand what was heard of a packet in the kernel: whether it passed, and which counters it moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from sgagent.compiler.compile import Compiled
from sgagent.core.evaluate import DecidedBy, Decision
from sgagent.core.model import ICMPV6, Family, Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.counter_keys import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    ExemptionKind,
    InnerCounter,
    InvalidCounter,
    ObservedDropCounter,
    RuleCounter,
)
from sgagent.packets import ExpectedReply, ExpectedTraffic, LeftOut, Outcome, specified

_FOLLOWED_BY_SOME_KERNELS = frozenset({137, 151, 152})
"""ICMPv6 types about which versions of conntrack differ: redirects, and multicast routers' advertisements and
solicitations (RFC 4861, RFC 4286). Some leave them alone, to others they are invalid."""

_UNCOUNTED = (DecidedBy.SESSION, DecidedBy.ALWAYS)
"""What lets packets pass and counts nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the kernel did with a packet."""

    passed: bool
    counted: tuple[str, ...]
    """The names of the counters that moved."""


def outcome(
    policy: ResolvedPolicy, compiled: Compiled, entry: ExpectedTraffic, heard: Heard | LeftOut
) -> Outcome:
    """Return what became of a packet.

    Where the kernel does not do what the specification says, that is a fault of sgagent, and the outcome
    says so. A packet about which kernels differ is left out where this one calls it invalid.
    """
    if isinstance(heard, LeftOut):
        return Outcome(entry=entry, answer=heard)
    due = specified(policy, entry)
    seen = _decision(policy, compiled, heard, due)
    if _agree(seen, due, entry):
        return Outcome(entry=entry, answer=due)
    if seen.decided_by is DecidedBy.INVALID and _depends_on_kernel(entry):
        return Outcome(
            entry=entry, answer=LeftOut(reason="this kernel calls such a message invalid; others do not")
        )
    by = due.rule.rule_id if due.rule else due.decided_by.value
    suspicion = f"this is a fault of sgagent, as the specification says {due.verdict.value} by {by}"
    return Outcome(entry=entry, answer=seen, suspicion=suspicion)


def _depends_on_kernel(entry: ExpectedTraffic) -> bool:
    packet = entry.opener.packet if isinstance(entry, ExpectedReply) else entry.packet
    is_message = packet.family is Family.IPV6 and packet.protocol == ICMPV6.number
    return is_message and packet.icmp_type in _FOLLOWED_BY_SOME_KERNELS


def _agree(seen: Decision, due: Decision, entry: ExpectedTraffic) -> bool:
    """Return whether kernel and specification agree.

    Of answers the verdict is looked at: where sessions are not remembered they are judged anew, and counted.
    """
    if isinstance(entry, ExpectedReply):
        return seen.verdict is due.verdict
    return (seen.verdict, seen.decided_by, seen.rule) == (due.verdict, due.decided_by, due.rule)


def _decision(policy: ResolvedPolicy, compiled: Compiled, heard: Heard, due: Decision) -> Decision:
    """Return what the kernel has decided, and by what, as far as it counts."""
    verdict = Policy.ACCEPT if heard.passed else Policy.DROP
    keys = [compiled.counters[name] for name in heard.counted if name in compiled.counters]
    if not keys:
        decided_by = due.decided_by if due.decided_by in _UNCOUNTED else DecidedBy.SESSION
        return Decision(verdict=verdict, decided_by=decided_by)
    return _counted(policy, verdict, keys[0])


def _counted(policy: ResolvedPolicy, verdict: Policy, key: CounterKey) -> Decision:
    match key:
        case RuleCounter():
            judge = policy.judge(key.interface)
            rules = judge.toward(key.direction).rules if judge else ()
            name = (key.security_group_id, key.rule_id)
            rule = next((one for one in rules if (one.security_group_id, one.rule_id) == name), None)
            return Decision(verdict=verdict, decided_by=DecidedBy.RULE, rule=rule)
        case DefaultCounter():
            decided_by = DecidedBy.DEFAULT
        case InnerCounter():
            decided_by = DecidedBy.INNER
        case InvalidCounter():
            decided_by = DecidedBy.INVALID
        case ExemptionCounter():
            is_platform = key.kind is ExemptionKind.PLATFORM
            decided_by = DecidedBy.ALWAYS if is_platform else DecidedBy.FAILSAFE
        case ObservedDropCounter():
            decided_by = DecidedBy.DEFAULT
        case _:
            assert_never(key)
    return Decision(verdict=verdict, decided_by=decided_by)
