"""Explanations of a packet's verdict, for people and scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from sgagent.core.clauses import DecidedBy
from sgagent.core.conditions import groups_text
from sgagent.core.counter_keys import CounterKey, HitStep
from sgagent.core.errors import UsageError
from sgagent.core.evaluate import Decision, Packet, Tracking, as_opener, evaluate, is_always_allowed
from sgagent.core.model import (
    PROTOCOL_NAMES,
    Direction,
    Mode,
    NetworkInterface,
    Policy,
    Protocol,
    Snapshot,
    address_text,
)
from sgagent.core.policy import ResolvedPolicy, ResolvedRule
from sgagent.core.rule_values import decimal

EPHEMERAL_PORT = 49152
"""The source port that is taken where none is given: the first of IANA's dynamic range."""

_NUMBERS = {name: protocol.number for protocol, name in PROTOCOL_NAMES.items() if protocol.number is not None}
PROTOCOL_WORDS = tuple(sorted(_NUMBERS))
"""The protocols that have a name here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedRule:
    """A rule, as far as one needs to know to find it."""

    rule_id: str
    security_group_id: str
    policy: Policy
    priority: int
    authorization_object: str
    """As documents write it."""

    limit_per_source: str | None = None
    """In words; what exceeds it is dropped (§13.1)."""

    local: str | None = None
    """In words: whose sockets it is for (§13.3)."""


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

    bound_by: str | None = None
    """The pattern by which it is bound (§12.5); None if by its own name, or not at all."""

    mode: Mode | None = None
    """None where nobody judges."""

    by_user: tuple[ExplainedRule, ...] = ()
    """Rules that would decide otherwise if the socket were their user's (§13.3), in order of precedence."""


_REASONS: Mapping[DecidedBy, str] = {
    DecidedBy.SESSION: "it belongs to a session that the policy allows",
    DecidedBy.ALWAYS: "a host needs it to have an address, so no group can block it",
    DecidedBy.FAILSAFE: "the configuration's fail-safe list lets it through",
    DecidedBy.INNER: "it comes from a fellow member of a group whose members may talk",
    DecidedBy.OVER_LIMIT: "its source has opened as many sessions as the rule lets it",
    DecidedBy.DEFAULT: "no rule matches, so the default decides",
    DecidedBy.UNBOUND: "nothing is enforced on this interface",
    DecidedBy.INVALID: "connection tracking calls it invalid",
    DecidedBy.SPOOFED: "the source check refuses its source address",
}

_PLATFORM_REASON = (
    "the configuration's platform list (by default the metadata service 100.100.100.200) lets it through,"
    " whatever the groups say; platform = [] switches that off"
)


def reason(decided_by: DecidedBy, packet: Packet) -> str:
    """Return why a step that is no rule decided about a packet, as a clause."""
    if decided_by is DecidedBy.ALWAYS and not is_always_allowed(packet):
        return _PLATFORM_REASON
    return _REASONS[decided_by]


def explain(policy: ResolvedPolicy, packet: Packet) -> Explanation:
    """Return the verdict on a packet on a link that is identified, with its reasons.

    One without an interface is on a host without bound ones.
    """
    policy = policy.identifying([packet.interface])
    decision = evaluate(policy, as_opener(packet))
    judge = policy.judge(packet.interface)
    return Explanation(
        verdict=decision.verdict,
        decided_by=decision.decided_by,
        rule=_explained(decision.rule) if decision.rule else None,
        shadowed=tuple(map(_explained, decision.shadowed)),
        interface=packet.interface or None,
        bound_by=next((one.judge.name for one in policy.patterns if one.judge is judge), None),
        mode=judge.mode if judge else None,
        by_user=tuple(map(_explained, _deciding_by_user(policy, as_opener(packet), decision))),
    )


def _deciding_by_user(policy: ResolvedPolicy, packet: Packet, decision: Decision) -> Iterator[ResolvedRule]:
    """Yield the rules that would decide otherwise about the packet if it were of their user or unit."""
    judge = policy.judge(packet.interface)
    for rule in judge.toward(packet.direction).rules if judge else ():
        if rule.conditions.local is not None:
            unit = packet.unit if rule.units is None else rule.units[0]
            user = packet.user if rule.units is not None else rule.user
            found = evaluate(policy, replace(packet, user=user, unit=unit, is_of_unknown_user=False))
            if found.rule is rule and found.verdict is not decision.verdict:
                yield rule


def is_evaluated_though_invalid(decided_by: DecidedBy, packet: Packet) -> bool:
    """Return whether conntrack calls a packet invalid, and the configuration has it evaluated (§6.6)."""
    is_invalid = as_opener(packet).tracking is Tracking.INVALID
    return is_invalid and decided_by not in {DecidedBy.INVALID, DecidedBy.UNBOUND}


def describe_packet(packet: Packet) -> str:
    """Return in words a packet and its place; without an interface, as it would be anywhere."""
    name = PROTOCOL_NAMES.get(Protocol(packet.protocol), f"protocol {packet.protocol}")
    source, destination = (address_text(packet.family, end) for end in (packet.source, packet.destination))
    if Protocol(packet.protocol).has_ports:
        source += f" port {packet.source_port}"
        destination += f" port {packet.destination_port}"
    where = f" on {packet.interface}" if packet.interface else ""
    where += f" of user {packet.user}" if packet.user is not None else ""
    where += f" of {groups_text([(packet.unit, packet.unit)])}" if packet.unit is not None else ""
    return f"{packet.direction.value} {name} from {source} to {destination}{where}"


def protocol_number(text: str) -> int | None:
    """Return the number of the protocol that a name or a number stands for; None if it stands for none."""
    number = _NUMBERS.get(text.lower())
    return decimal(text, 255) if number is None else number


def choose_interface(policy: ResolvedPolicy, named: str | None, links: Iterable[str]) -> str | None:
    """Return the interface that is meant; None where nothing is bound and none was named.

    Args:
        policy: what is enforced.
        named: the interface that was asked about.
        links: of the host; one that alone is bound by a pattern stands for that.

    Raises:
        UsageError: several interfaces are bound, and none was named.
    """
    if named is not None or not policy.bound:
        return named
    # where sources are checked, a link of a pattern is bound by itself, and no other is by the pattern
    found = tuple(one for one in policy.bound if one.name in policy.remembering) or policy.bound
    if len(found) > 1:
        names = ", ".join(interface.name for interface in found)
        raise UsageError(f"several interfaces are bound ({names}): say which with --on NAME")
    (bound,) = found
    judged = [name for name in links if policy.patterns and policy.identifying([name]).judge(name) is bound]
    return judged[0] if len(judged) == 1 else bound.name


def interface_of(snapshot: Snapshot, packet: Packet) -> NetworkInterface | None:
    """Return the network interface that a packet comes to, or leaves; None if it is not just one."""
    end = packet.destination if packet.direction is Direction.INGRESS else packet.source
    found = [
        one
        for one in snapshot.network_interfaces
        if any(block.family is packet.family and block.first <= end <= block.last for block in one.addresses)
    ]
    return found[0] if len(found) == 1 else None


def _explained(rule: ResolvedRule) -> ExplainedRule:
    return ExplainedRule(
        rule_id=rule.rule_id,
        security_group_id=rule.security_group_id,
        policy=rule.policy,
        priority=rule.priority,
        authorization_object=rule.peer.name,
        limit_per_source=str(rule.conditions.limit) if rule.conditions.limit else None,
        local=rule.local_text,
    )


def step_of(key: CounterKey) -> DecidedBy:
    """Return the step of §3 that decided on a counter's packets."""
    return DecidedBy.ALWAYS if key.step is HitStep.PLATFORM else DecidedBy(key.step.value)
