"""Evaluate guardrails on a table, as the kernel runs it, whatever it was compiled from (§13.4).

A statement holds if the table does the same as a policy that has it for its first rule. So what breaks one is
a difference between the table and such a policy, about which that rule decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, summarize_address_range

from sgagent.core.addresses import NO_ADDRESSES, AddressSet
from sgagent.core.guardrails import ResolvedGuardrail
from sgagent.core.model import ALL_PORTS, ALL_PROTOCOLS, CidrBlock, Direction, Family, Policy
from sgagent.core.policy import Peer, ResolvedInterface, ResolvedPolicy, ResolvedRule
from sgagent.verify import Outcome
from sgagent.verify.fate_comparison import ComparisonScope, Counterexample
from sgagent.verify.packets import CtState
from sgagent.verify.proof import prove
from sgagent.verify.verified_table import VerifiedTable

MOST_DIFFERENCES = 1_000
"""That are looked for; if the table does not do what the policy says, not all are violations."""

_STATEMENT = "guardrail"
"""Takes the place of a group's id in rules that stand for statements."""

_SCOPE = ComparisonScope(counters=False, marks=False, revocations=False, others=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableViolation:
    """A packet with which a table breaks a statement."""

    resolved: ResolvedGuardrail
    example: Counterexample
    """What is expected is what the statement demands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailsOnTable:
    """The result of statements on a table."""

    violations: tuple[TableViolation, ...] = ()
    """One of each statement and interface that breaks it, in the order in which they were found."""

    unsupported: tuple[str, ...] = ()
    """Why it is not known of all packets."""

    def outcome_after(self, proof: Outcome) -> Outcome:
        """Return the outcome for a table of which both were asked: the statements, and a proof."""
        if self.violations:
            return Outcome.REFUTED
        return Outcome.UNKNOWN if self.unsupported and proof is Outcome.PROVED else proof


def evaluate_guardrails(
    table: VerifiedTable, policy: ResolvedPolicy, guardrails: Iterable[ResolvedGuardrail]
) -> GuardrailsOnTable:
    """Return which statements a table breaks.

    Args:
        table: as it was read.
        policy: which links are bound to which groups, in which mode, and what no policy can block.
        guardrails: what must hold.
    """
    rails = tuple(guardrails)
    violations: list[TableViolation] = []
    unsupported: dict[str, None] = {}
    for demanded in Policy:
        left = {one.guardrail.guardrail_id: one for one in rails if one.guardrail.demanded is demanded}
        while left:
            found, reasons = _broken(table, policy, left)
            violations += found
            unsupported.update(dict.fromkeys(reasons))
            if not found:
                break
            for one in found:  # they come before others that speak of the same packets
                left.pop(one.resolved.guardrail.guardrail_id, None)
    return GuardrailsOnTable(violations=tuple(violations), unsupported=tuple(unsupported))


def _broken(
    table: VerifiedTable, policy: ResolvedPolicy, guardrails: Mapping[str, ResolvedGuardrail]
) -> tuple[list[TableViolation], tuple[str, ...]]:
    """Return violations of statements that demand the same, and why it is not known of all packets."""
    rails = tuple(guardrails.values())
    first = policy.with_judges(lambda judge: _with_statements(judge, rails))
    proof = prove(table, first, scope=_SCOPE, most_differences=MOST_DIFFERENCES)
    found: dict[tuple[str, str], TableViolation] = {}
    for example in (difference.example for difference in proof.differences):
        rule = example.expected.decision.rule
        opens = example.packet.state in (CtState.NEW, CtState.UNTRACKED)
        if rule is not None and rule.security_group_id == _STATEMENT and opens:
            violation = TableViolation(resolved=guardrails[rule.rule_id], example=example)
            found.setdefault((rule.rule_id, example.packet.interface), violation)
    reasons = proof.unsupported if proof.outcome is Outcome.UNKNOWN else ()
    if not found and len(proof.differences) >= MOST_DIFFERENCES:
        reasons = (f"the table differs from the policy in more than {MOST_DIFFERENCES:,} parts",)
    return list(found.values()), reasons


def _with_statements(judge: ResolvedInterface, guardrails: Sequence[ResolvedGuardrail]) -> ResolvedInterface:
    """Return an interface with statements as its first rules, before inner access."""
    for direction in Direction:
        own = [
            rule for one in guardrails if one.guardrail.direction is direction for rule in _rules(one, judge)
        ]
        if own:
            toward = judge.toward(direction)
            rules = (
                *own,
                replace(_FELLOWS, peer=Peer(name="fellows", addresses=toward.inner)),
                *toward.rules,
            )
            judge = judge.with_side(direction, replace(toward, inner=NO_ADDRESSES, rules=rules))
    return judge


_FELLOWS = ResolvedRule(
    rule_id="inner",
    security_group_id="",
    direction=Direction.INGRESS,
    policy=Policy.ACCEPT,
    priority=1,
    protocols=(ALL_PROTOCOLS,),
    ports=ALL_PORTS,
    authorization_objects=(),
    peer=Peer(name="fellows", addresses=NO_ADDRESSES),
)
"""Takes the place of inner access, which comes before all rules."""


def _rules(resolved: ResolvedGuardrail, judge: ResolvedInterface) -> Iterator[ResolvedRule]:
    """Yield rules that match a statement's packets, and give the verdict that it demands."""
    rail = resolved.guardrail
    for family in Family:
        far_ends = resolved.far_ends.ranges(family)
        addresses = AddressSet(ipv4=far_ends) if family is Family.IPV4 else AddressSet(ipv6=far_ends)
        for first, last in resolved.near_ends_at(judge, family):
            is_anywhere = (first, last) == (0, family.last_address)
            for block in [None] if is_anywhere else _blocks(family, first, last):
                yield replace(
                    _FELLOWS,
                    rule_id=rail.guardrail_id,
                    security_group_id=_STATEMENT,
                    direction=rail.direction,
                    policy=rail.demanded,
                    protocols=rail.protocols,
                    ports=resolved.ports,
                    peer=Peer(name=str(rail), addresses=addresses),
                    local_address=block,
                )


def _blocks(family: Family, first: int, last: int) -> Iterator[CidrBlock]:
    """Yield the networks that a run of addresses consists of."""
    kind = IPv4Address if family is Family.IPV4 else IPv6Address
    for network in summarize_address_range(kind(first), kind(last)):
        yield CidrBlock.around(family, int(network.network_address), network.prefixlen)
