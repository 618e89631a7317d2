"""Advice of lint on random definitions, each by its seed: what every fix promises is what it does.

``python -m tests.advice 0 2000`` tries the seeds from 0 to 1999, and prints how many fixes there were.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from sgagent.analysis.compare import FlowChange, compare
from sgagent.analysis.header_space import BOX_ORDER
from sgagent.analysis.lint.edits import Fix, RuleEdit, edit_snapshot, merged
from sgagent.analysis.lint.findings import Finding
from sgagent.analysis.lint.registry import lint
from sgagent.analysis.lint.subject import LintSubject, make_subject
from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.model import Policy, Snapshot
from sgagent.core.policy import ResolvedDirection, ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from tests.draws import SeededDraws
from tests.generators import ENDS, NOW, ShownDocument, random_snapshot

MOST_RULES = 12
ABOUT_EFFECT = {"void_drop", "never_reached", "deny_before_accepts", "contradicting_tie", "duplicate_rule"}
TIMES = (NOW, *(end for end in ENDS if end > NOW))


def examine(definitions: Snapshot) -> Counter[str]:
    """Try all that lint suggests for definitions; return how many fixes of each code there were.

    Raises:
        AssertionError: a fix does something else than it says.
    """
    subject = subject_of(definitions)
    found = [one for one in lint(subject) if one.fix is not None]
    harmless = [one.fix for one in found if one.fix and not one.fix.changes_verdicts]
    removals = [fix for fix in harmless if not any(edit.fields for edit in fix.edits)]
    for some in ([one] for one in harmless):
        assert_no_verdict_changes(subject, some)
    for some in (removals, removals[::2], removals[1::2], harmless):
        assert_no_verdict_changes(subject, some)
    rounds = assert_settled(definitions)
    for one in found:
        if one.fix and one.fix.changes_verdicts:
            assert_does_what_it_says(subject, one, one.fix)
    return Counter({**Counter(one.code for one in found), f"settled in {rounds}": 1})


def subject_of(definitions: Snapshot) -> LintSubject:
    """Return the subject of the checks, at the time of the generators."""
    return make_subject(definitions, Exemptions(), at=NOW)


def assert_no_verdict_changes(subject: LintSubject, fixes: Iterable[Fix]) -> None:
    """Assert that fixes change nothing, now and later."""
    edits = [edit for fix in fixes for edit in fix.edits]
    for time in TIMES:
        for limited in (None, *limited_rules(subject)):
            assert not flows_of(subject, edits, time, limited), (limited, list(map(str, edits)))


def limited_rules(subject: LintSubject) -> list[str]:
    """Return the ids of the rules with a limit."""
    return [rule.rule_id for _, rule in subject.rules.values() if rule.conditions.limit is not None]


def flows_of(
    subject: LintSubject, edits: Sequence[RuleEdit], at: datetime, limited: str | None = None
) -> tuple[FlowChange, ...]:
    """Return what plan finds: both definitions are resolved, and compared.

    Args:
        subject: the definitions.
        edits: that are made.
        at: the time.
        limited: a rule of which the sources have used up the limit, so that it drops (§13.1).
    """
    groups = [attachment.judge.security_group_ids for attachment in subject.attachments]
    old, new = (
        used_up(policy_of(one, groups, at), limited)
        for one in (subject.snapshot, edit_snapshot(subject.snapshot, edits))
    )
    return compare(old, new).flows


def used_up(policy: ResolvedPolicy, limited: str | None) -> ResolvedPolicy:
    """Return a policy in which a rule drops where it stands."""

    def side(one: ResolvedDirection) -> ResolvedDirection:
        dropping = (
            replace(rule, policy=Policy.DROP) if rule.rule_id == limited else rule for rule in one.rules
        )
        return replace(one, rules=tuple(dropping))

    judges = (
        replace(judge, ingress=side(judge.ingress), egress=side(judge.egress)) for judge in policy.interfaces
    )
    return replace(policy, interfaces=tuple(judges))


def policy_of(definitions: Snapshot, groups: Iterable[tuple[str, ...]], at: datetime) -> ResolvedPolicy:
    """Return the policy of a host that has each combination of groups on a link."""
    hands = [
        HandBinding(interface=f"eth{number:04}", security_group_ids=ids) for number, ids in enumerate(groups)
    ]
    return resolve(
        definitions, bind(definitions, hands, HostFacts(), automatically=False), Exemptions(), at=at
    ).policy


def assert_settled(definitions: Snapshot) -> int:
    """Assert that what changes no verdict can all be fixed; return in how many rounds."""
    edits: tuple[RuleEdit, ...] = ()
    for number in range(_MOST_ROUNDS):
        found = lint(subject_of(edit_snapshot(definitions, edits)))
        fixes = [one.fix for one in found if one.fix and not one.fix.changes_verdicts]
        if not fixes:
            assert_no_verdict_changes(subject_of(definitions), [Fix(edits=edits)])
            return number
        edits = merged((*edits, *(edit for fix in fixes for edit in fix.edits)))
    raise AssertionError("there is always something left to fix")


_MOST_ROUNDS = 10


def assert_does_what_it_says(subject: LintSubject, finding: Finding, fix: Fix) -> None:
    """Assert that a fix changes what it says, ends what was found, and makes nothing of that kind."""
    flows, effects = flows_of(subject, fix.edits, NOW), {flow.effect for flow in fix.flows}
    for limited in limited_rules(subject):
        assert {flow.effect for flow in flows_of(subject, fix.edits, NOW, limited)} <= effects, limited
    assert sorted(map(_content, flows)) == sorted(map(_content, fix.flows))
    again = subject_of(edit_snapshot(subject.snapshot, fix.edits))
    before, after = ({_named(one) for one in lint(some) if one.rule_ids} for some in (subject, again))
    assert _named(finding) not in after, _named(finding)
    edited = {edit.key for edit in fix.edits}
    new = {one for one in after - before if one[0] in ABOUT_EFFECT and one[1:3] in edited}
    assert new == set(), (_named(finding), list(map(str, fix.edits)))


def _named(finding: Finding) -> tuple[str, str, str, str]:
    group, thing = finding.security_group_id or "", finding.object_id or ""
    return (finding.code, group, finding.rule_ids[0], thing)


def _content(flow: FlowChange) -> str:
    change, box = flow.box.label, flow.box
    rules = [clause.rule and clause.rule.rule_id for clause in (change.before, change.after)]
    return repr((flow.direction, flow.effect, box.family, BOX_ORDER(box), rules))


def main(first: int, end: int) -> None:
    """Examine some seeds, and print how many fixes of each code were tried."""
    total: Counter[str] = Counter()
    for seed in range(first, end):
        definitions = random_snapshot(SeededDraws(seed), most_rules=MOST_RULES)
        try:
            total += examine(definitions)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {str(error)[:2000]}\n{ShownDocument(definitions)}") from error
    sys.stdout.write(
        f"seeds {first} to {end - 1}, {sum(total.values())} fixes: {dict(sorted(total.items()))}\n"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
