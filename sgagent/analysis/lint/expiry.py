"""Checks of rules that expire (§12.4)."""

from __future__ import annotations

from collections.abc import Iterator

from sgagent.analysis.compare import Effect, compare_judges
from sgagent.analysis.flow_text import ObjectNames, traffic_text
from sgagent.analysis.lint.findings import Finding, FindingSeverity
from sgagent.analysis.lint.rule_reach import key_of
from sgagent.analysis.lint.subject import Check, LintSubject, Stand
from sgagent.core.model import (
    Direction,
    Policy,
)
from sgagent.core.policy import ResolvedPolicy, ResolvedRule
from sgagent.core.rule_values import has_ended, instant_text

_FEW = 3
"""Flows that are named; the rest is counted."""


def _find_ended(subject: LintSubject, check: Check) -> Iterator[Finding]:
    """Find rules that have ended, which the definitions still have."""
    for group, rule in subject.ended:
        if rule.expires is not None:
            yield Finding(
                code=check.code,
                severity=check.severity,
                security_group_id=group.security_group_id,
                rule_ids=(rule.rule_id,),
                message=f"it ended at {instant_text(rule.expires)} and does not exist any more",
                remedy="take it out, or give it a later end",
                origin=rule.origin,
            )


def _find_ending_drops(subject: LintSubject, check: Check) -> Iterator[Finding]:
    """Find drops whose end opens something."""
    for stand in subject.stands:
        for direction in Direction:
            for rule in stand.judge.toward(direction).rules:
                is_ending_drop = rule.policy is Policy.DROP and rule.expires is not None
                opened = _opened_by_end_of(rule, stand, direction) if is_ending_drop else []
                if opened and rule.expires is not None:
                    more = f" and {len(opened) - _FEW} more" if len(opened) > _FEW else ""
                    yield Finding(
                        code=check.code,
                        severity=check.severity,
                        security_group_id=rule.security_group_id,
                        rule_ids=(rule.rule_id,),
                        message=f"it drops until {instant_text(rule.expires)} only, and then opens"
                        f" {'; '.join(opened[:_FEW])}{more}",
                        remedy="remove expires if that is to stay closed",
                        interfaces=stand.interfaces,
                        origin=subject.origin(key_of(rule)),
                    )


def _opened_by_end_of(rule: ResolvedRule, stand: Stand, direction: Direction) -> list[str]:
    """Return in words what a rule's end opens, given the rules that last as long."""
    ends = rule.expires
    before = stand.judge.with_rules(lambda one: one.expires == ends or not has_ended(one.expires, ends))
    after = before.with_rules(lambda one: one is not rule)
    names = ObjectNames.of(ResolvedPolicy(interfaces=(before,)))
    return [
        traffic_text(box, direction, names.text(box.peers, box.family, rule.peer.objects))
        for box in compare_judges(before, after, direction)
        if box.label.effect is Effect.OPENS
    ]


CHECKS = (
    Check(
        code="expiring_drop",
        severity=FindingSeverity.WARNING,
        summary="a drop that expires, and what its end opens",
        find=_find_ending_drops,
    ),
    Check(
        code="expired_rule",
        severity=FindingSeverity.NOTICE,
        summary="a rule that has ended",
        find=_find_ended,
    ),
)
