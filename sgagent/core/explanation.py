"""Say of one packet what becomes of it and why, in words that a person or a script reads."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core.errors import UsageError
from sgagent.core.evaluate import DecidedBy, Packet, evaluate
from sgagent.core.model import Mode, Policy
from sgagent.core.policy import ResolvedPolicy, ResolvedRule


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedRule:
    """A rule, as far as one needs to know to find it."""

    rule_id: str
    security_group_id: str
    policy: Policy
    priority: int
    authorization_object: str
    """As documents write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A verdict and how it came about."""

    verdict: Policy
    """In observe mode, the one that enforcing would bring (§9.1)."""

    decided_by: DecidedBy
    rule: ExplainedRule | None = None
    """The rule that decided, if one did."""

    shadowed: tuple[ExplainedRule, ...] = ()
    """Every other rule that matches, in order of precedence, whatever step decided."""

    interface: str | None = None
    """None where none is bound, and none was named."""

    mode: Mode | None = None
    """None where nobody judges."""


def explain(policy: ResolvedPolicy, packet: Packet) -> Explanation:
    """Return what becomes of a packet; one without an interface is on a host without bound ones."""
    decision = evaluate(policy, packet)
    judge = policy.judge(packet.interface)
    return Explanation(
        verdict=decision.verdict,
        decided_by=decision.decided_by,
        rule=_explained(decision.rule) if decision.rule else None,
        shadowed=tuple(map(_explained, decision.shadowed)),
        interface=packet.interface or None,
        mode=judge.mode if judge else None,
    )


def choose_interface(policy: ResolvedPolicy, named: str | None) -> str | None:
    """Return the interface that is meant; None where nothing is bound and none was named.

    Raises:
        UsageError: several interfaces are bound, and none was named.
    """
    if named is not None or not policy.interfaces:
        return named
    if len(policy.interfaces) > 1:
        names = ", ".join(interface.name for interface in policy.interfaces)
        raise UsageError(f"several interfaces are bound ({names}): say which with --on NAME")
    return policy.interfaces[0].name


def _explained(rule: ResolvedRule) -> ExplainedRule:
    return ExplainedRule(
        rule_id=rule.rule_id,
        security_group_id=rule.security_group_id,
        policy=rule.policy,
        priority=rule.priority,
        authorization_object=rule.peer.name,
    )
