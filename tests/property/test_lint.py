"""What lint says of rules that decide nothing is what judging every packet at every border says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain

from hypothesis import given

from sgagent.analysis.lint.findings import Finding
from sgagent.analysis.lint.registry import CHECKS, lint
from sgagent.analysis.lint.rule_reach import RuleKey, key_of
from sgagent.analysis.lint.subject import Attachment, LintSubject, make_subject
from sgagent.analysis.lint.void_rules import ties
from sgagent.core.evaluate import Decision, Packet, evaluate
from sgagent.core.model import Direction, Family, Policy, SecurityGroup, Snapshot
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy
from sgagent.core.resolve import Exemptions
from tests.draws import Draws
from tests.generators import Case, described
from tests.points import every_point
from tests.strategies import cases, draws, examples, noted_snapshot

FEW_RULES = 8


def subject_of(case: Case) -> LintSubject:
    """Return the one interface of a case as what lint looks at."""
    judge = case.policy.interfaces[0]
    return LintSubject(
        snapshot=case.snapshot, attachments=(Attachment(interfaces=(judge.name,), judge=judge),)
    )


def found_by(subject: LintSubject, code: str) -> Iterator[Finding]:
    """Yield what one check finds."""
    yield from CHECKS[code].run(subject)


def points(policy: ResolvedPolicy, direction: Direction) -> Iterator[Packet]:
    """Yield a packet for every combination of borders in a direction."""
    for family in Family:
        yield from every_point([policy], "eth0", direction, family)


def keys(findings: Iterable[Finding]) -> set[RuleKey]:
    """Return the first rule of each finding."""
    return {(finding.security_group_id or "", finding.rule_ids[0]) for finding in findings}


Decisions = dict[Direction, list[tuple[Packet, Decision]]]


@examples(40)
@given(cases(interfaces=("eth0",), most_rules=FEW_RULES))
def test_findings_are_what_judging_every_packet_says(case: Case) -> None:
    """Of rules that are never reached, could go, match nothing, or tie: all are found, and no others."""
    policy, subject = case.policy, subject_of(case)
    decisions: Decisions = {
        direction: [(packet, evaluate(policy, packet)) for packet in points(policy, direction)]
        for direction in Direction
    }
    finds_what_is_never_reached(subject, decisions)
    finds_what_can_be_taken_out(policy, subject, decisions)
    finds_which_rules_could_go_alone(policy, subject, decisions)
    finds_rules_that_match_nothing(policy, subject, decisions)
    finds_ties(subject, decisions)


def finds_what_is_never_reached(subject: LintSubject, decisions: Decisions) -> None:
    """A rule that matches a packet is never reached if it decides about none; those named decide instead."""
    for reach in subject.attachments[0].reaches:
        decided, instead = set[RuleKey](), dict[RuleKey, set[object]]()
        for _, decision in decisions[reach.direction]:
            decider = key_of(decision.rule) if decision.rule else decision.decided_by
            if decision.rule:
                decided.add(key_of(decision.rule))
            for rule in decision.shadowed:
                instead.setdefault(key_of(rule), set()).add(decider)
        assert reach.deciding == decided
        assert reach.unreached.keys() == instead.keys() - decided
        for key, clauses in reach.unreached.items():
            named = {key_of(clause.rule) if clause.rule else clause.decided_by for clause in clauses}
            assert named == instead[key]


def finds_what_can_be_taken_out(policy: ResolvedPolicy, subject: LintSubject, decisions: Decisions) -> None:
    """Each fix of a needless rule alone, any of them, and all together leave every verdict as it is."""
    found = [one for code in NEEDLESS for one in found_by(subject, code)]
    fixes = [{edit.key for edit in one.fix.edits} for one in found if one.fix]
    assert len(fixes) == len(found)
    some = [fixes[::2], fixes[1::2], fixes[: len(fixes) // 2], fixes, *([one] for one in fixes)]
    for gone in some:
        kept = ResolvedPolicy(interfaces=(_without(policy.interfaces[0], set().union(*gone)),))
        for packet, decision in chain.from_iterable(decisions.values()):
            assert evaluate(kept, packet).verdict is decision.verdict, described(packet)


NEEDLESS = ("never_reached", "redundant_rule", "duplicate_rule")


def _without(judge: ResolvedInterface, needless: set[RuleKey]) -> ResolvedInterface:
    ingress, egress = (
        replace(toward, rules=tuple(rule for rule in toward.rules if key_of(rule) not in needless))
        for toward in (judge.ingress, judge.egress)
    )
    return replace(judge, ingress=ingress, egress=egress)


def finds_which_rules_could_go_alone(
    policy: ResolvedPolicy, subject: LintSubject, decisions: Decisions
) -> None:
    """Of rules that decide, those are found to go alone without which every packet is decided alike."""
    judge = policy.interfaces[0]
    needed, deciding, behind = set[RuleKey](), set[RuleKey](), dict[RuleKey, set[object]]()
    for direction in Direction:
        rules = {key_of(rule) for rule in judge.toward(direction).rules}
        without = {key: ResolvedPolicy(interfaces=(_without(judge, {key}),)) for key in rules}
        for packet, decision in decisions[direction]:
            if decision.rule is not None:
                key = key_of(decision.rule)
                other = evaluate(without[key], packet)
                deciding.add(key)
                behind.setdefault(key, set()).add(other.rule.rule_id if other.rule else None)
                if other.verdict is not decision.verdict:
                    needed.add(key)
    findings = list(found_by(subject, "redundant_rule"))
    alone = [one for one in findings if one.fix and len(one.fix.edits) == 1]
    assert keys(alone) <= deciding - needed
    for finding in findings:
        key = (finding.security_group_id or "", finding.rule_ids[0])
        named = {rule_id for _, rule_id in keys([finding])}
        along = {edit.rule_id for edit in finding.fix.edits} if finding.fix else named
        assert set(finding.rule_ids[1:]) == behind[key] - {None} - along


def finds_rules_that_match_nothing(
    policy: ResolvedPolicy, subject: LintSubject, decisions: Decisions
) -> None:
    """A rule that matches no packet at any border is named by what is said of its object.

    Of one that matches by other objects of its list, it is said of the one that matches nothing.
    """
    judge = policy.interfaces[0]
    found = {
        (rule_id, finding.code)
        for code in ("empty_object", "unknown_object")
        for finding in found_by(subject, code)
        for rule_id in finding.rule_ids
    }
    for direction in Direction:
        rules = judge.toward(direction).rules
        matching = set[str]()
        for _, decision in decisions[direction]:
            matching |= {rule.rule_id for rule in (decision.rule, *decision.shadowed) if rule}
        for rule in rules:
            codes = {code for rule_id, code in found if rule_id == rule.rule_id}
            assert codes or rule.rule_id in matching, rule
            assert not codes or rule.rule_id not in matching or rule.peer.parts, (rule, codes)


def finds_ties(subject: LintSubject, decisions: Decisions) -> None:
    """A tie is two rules of one priority and both policies, first among all that match some packet."""
    expected = set()
    for _, decision in chain.from_iterable(decisions.values()):
        if decision.rule is None:
            continue
        matching = (decision.rule, *decision.shadowed)
        equal = [rule for rule in matching if rule.priority == decision.rule.priority]
        drops = [rule for rule in equal if rule.policy is Policy.DROP]
        accepts = [rule for rule in equal if rule.policy is Policy.ACCEPT]
        expected |= {(key_of(drop), key_of(accept)) for drop in drops for accept in accepts}
    found = {(key_of(tie.drop), key_of(tie.accept)) for tie in ties(subject.attachments[0])}
    assert found == expected


@examples(60)
@given(draws())
def test_the_order_of_definitions_does_not_matter(draws: Draws) -> None:
    """Shuffled groups and rules are found fault with alike."""
    definitions = noted_snapshot(draws, most_rules=10)
    shuffled = _shuffled(draws, definitions)
    assert lint(make_subject(definitions, Exemptions())) == lint(make_subject(shuffled, Exemptions()))


def _shuffled(draws: Draws, definitions: Snapshot) -> Snapshot:
    groups: list[SecurityGroup] = [
        replace(group, rules=tuple(draws.sample(group.rules, len(group.rules))))
        for group in definitions.security_groups
    ]
    return replace(definitions, security_groups=tuple(groups))
