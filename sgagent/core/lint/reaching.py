"""Find rules that decide nothing, or nothing that would not be decided alike without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sgagent.core.comparing.clauses import Clause
from sgagent.core.comparing.wording import decider_text
from sgagent.core.evaluate import DecidedBy
from sgagent.core.intervals import size
from sgagent.core.lint.finding import Check, Finding, Severity
from sgagent.core.lint.reach import Reach, RuleKey, key_of
from sgagent.core.lint.subject import Stand, Subject
from sgagent.core.lint.ties import Tie, ties
from sgagent.core.model import Policy
from sgagent.core.policy import ResolvedRule


def denies_all(rule: ResolvedRule) -> bool:
    """Tell whether a rule drops everything from or to everyone of a family."""
    return (
        rule.policy is Policy.DROP
        and rule.protocol.number is None
        and rule.peer.name in EVERYONE
        and rule.local_address is None
    )


EVERYONE = ("0.0.0.0/0", "::/0")


def _find_deny_before_accepts(subject: Subject, check: Check) -> Iterator[Finding]:
    """Find the trap: a drop of everything at or before the priority of the accepts that it should follow."""
    found: dict[RuleKey, dict[RuleKey, ResolvedRule]] = {}
    rules: dict[RuleKey, ResolvedRule] = {}
    for stand in subject.stands:
        for reach in stand.reaches:
            for key, denying in _denied(reach).items():
                for deny in denying:
                    rules[key_of(deny)] = deny
                    found.setdefault(key_of(deny), {})[key] = reach.rule(key)
    for key, accepts in found.items():
        voided = {accept: rule for accept, rule in accepts.items() if accept in subject.unreached}
        if voided:
            yield _denying(subject, check, rules[key], voided)


def _denied(reach: Reach) -> Mapping[RuleKey, tuple[ResolvedRule, ...]]:
    """Return the accepts that decide nothing for a drop of everything, with the drops."""
    found: dict[RuleKey, tuple[ResolvedRule, ...]] = {}
    for key, instead in reach.unreached.items():
        if reach.rule(key).policy is Policy.ACCEPT:
            denying = tuple(c.rule for c in instead if c.rule is not None and denies_all(c.rule))
            if denying:
                found[key] = denying
    return found


def _denying(
    subject: Subject, check: Check, deny: ResolvedRule, voided: Mapping[RuleKey, ResolvedRule]
) -> Finding:
    priorities = sorted({rule.priority for rule in voided.values()})
    names = ", ".join(rule_id for _, rule_id in voided)
    at = (
        "the same priority, where drop wins" if priorities == [deny.priority] else f"priority {deny.priority}"
    )
    return Finding(
        code=check.code,
        severity=check.severity,
        security_group_id=deny.security_group_id,
        rule_ids=(deny.rule_id, *(rule_id for _, rule_id in voided)),
        message=f"it drops everything at {at}, so that nothing gets to the accepts {names}",
        remedy=f"give it a number greater than {priorities[-1]}, so that it follows the accepts",
        origin=subject.origin(key_of(deny)),
    )


def _find_void_drops(subject: Subject, check: Check) -> Iterator[Finding]:
    """Find drops that decide nothing, as what they should drop is accepted before."""
    breadths: dict[int, int] = {}
    for stand in subject.stands:
        for reach in stand.reaches:
            for key, instead in reach.unreached.items():
                if reach.rule(key).policy is Policy.DROP:
                    accepting = [clause for clause in instead if clause.policy is Policy.ACCEPT]
                    for clause in accepting:
                        if id(clause) not in breadths:
                            breadths[id(clause)] = size(clause.addresses)
                    if accepting:
                        accepting.sort(key=lambda clause: -breadths[id(clause)])
                        yield _void(subject, check, stand, key, accepting)


def _void(subject: Subject, check: Check, stand: Stand, key: RuleKey, accepting: list[Clause]) -> Finding:
    priorities = [clause.rule.priority for clause in accepting if clause.rule is not None]
    if priorities:
        remedy = f"give it priority {max(priorities)}: at equal priority drop wins"
    elif any(clause.decided_by is DecidedBy.INNER for clause in accepting):
        remedy = "set the inner access policy of the shared group to drop, as it comes before all rules"
    else:
        remedy = "take it out, or take its object off the configuration's lists"
    return Finding(
        code=check.code,
        severity=check.severity,
        security_group_id=key[0],
        rule_ids=(key[1], *_ids(accepting)),
        message=f"it drops nothing: all that it names is accepted before, by {_names(accepting)}",
        remedy=remedy,
        interfaces=stand.interfaces,
        origin=subject.origin(key),
    )


def _find_never_reached(subject: Subject, check: Check) -> Iterator[Finding]:
    """Find the other rules that decide nothing anywhere, with those that decide instead."""
    told = {
        key for finding in (*DENY.find(subject, DENY), *VOID.find(subject, VOID)) for key in _about(finding)
    }
    instead: dict[RuleKey, list[Clause]] = {}
    for stand in subject.stands:
        for reach in stand.reaches:
            for key, clauses in reach.unreached.items():
                instead.setdefault(key, []).extend(clauses)
    duplicates = {key for keys in duplicate_rules(subject) for key in keys[1:]}
    for key in sorted(subject.unreached - told - duplicates):
        verb = "decides" if _is_one(instead[key]) else "decide"
        yield Finding(
            code=check.code,
            severity=check.severity,
            security_group_id=key[0],
            rule_ids=(key[1], *_ids(instead[key])),
            message=f"no packet gets to it: {_names(instead[key])} {verb} before",
            remedy="take it out, or give it a smaller number if it should decide",
            origin=subject.origin(key),
        )


def _about(finding: Finding) -> Iterator[RuleKey]:
    """Yield the rules that are void by a finding: of a void drop itself, of a trap those behind it."""
    group = finding.security_group_id or ""
    ids = finding.rule_ids[1:] if finding.code == DENY.code else finding.rule_ids[:1]
    yield from ((group, rule_id) for rule_id in ids)


def _find_redundant(subject: Subject, check: Check) -> Iterator[Finding]:
    """Find rules without which every packet would be decided alike.

    All that name no rule that has to stay can be taken out together, with all that are never reached.
    """
    behind: dict[RuleKey, dict[tuple[object, ...], Clause]] = {}
    for stand in subject.stands:
        for reach in stand.reaches:
            for key, clauses in reach.behind(subject.redundant).items():
                behind.setdefault(key, {}).update({_known_by(clause): clause for clause in clauses})
    for key in sorted(behind, key=lambda key: _priority(subject, key), reverse=True):
        found = list(behind[key].values())
        verb = f"{subject.rules[key][1].policy.value}"
        relied_on = [] if key in subject.removable else [c for c in found if _may_go(subject, c)]
        yield Finding(
            code=check.code,
            severity=check.severity,
            security_group_id=key[0],
            rule_ids=(key[1], *_ids(found)),
            not_with=_ids(relied_on),
            message=f"all that it {verb}s, {_names(found)} would {verb} without it",
            remedy=f"take it out, but then let {_names(relied_on)} stay"
            if relied_on
            else "take it out, or leave it and say in its description why it is there",
            origin=subject.origin(key),
        )


def _known_by(clause: Clause) -> tuple[object, ...]:
    return (clause.decided_by, clause.rule and key_of(clause.rule))


def _may_go(subject: Subject, clause: Clause) -> bool:
    """Tell whether a clause is a rule that others are told could be taken out."""
    return clause.rule is not None and key_of(clause.rule) in subject.redundant | subject.unreached


def _priority(subject: Subject, key: RuleKey) -> tuple[int, bool, RuleKey]:
    rule = subject.rules[key][1]
    return (rule.priority, rule.policy is Policy.ACCEPT, key)


def _find_ties(subject: Subject, check: Check) -> Iterator[Finding]:
    """Find accepts and drops of one priority that match the same packets: drop wins."""
    trapped = {
        (key_of(deny), accept)
        for stand in subject.stands
        for reach in stand.reaches
        for accept, denying in _denied(reach).items()
        for deny in denying
    }
    found: dict[tuple[RuleKey, RuleKey], tuple[Tie, set[str]]] = {}
    for stand in subject.stands:
        for tie in ties(stand):
            pair = (key_of(tie.drop), key_of(tie.accept))
            if pair not in trapped:
                found.setdefault(pair, (tie, set()))[1].update(stand.interfaces)
    for (drop, accept), (tie, _) in found.items():
        owner = "" if accept[0] == drop[0] else f" of {accept[0]}"
        yield Finding(
            code=check.code,
            severity=check.severity,
            security_group_id=drop[0],
            rule_ids=(drop[1], accept[1]),
            message=f"it and {accept[1]}{owner} have priority {tie.drop.priority} and contradict each other"
            f" on {tie.traffic}, where drop wins",
            remedy="give the one that is meant to decide the smaller number, so that it can be read",
            origin=subject.origin(drop),
        )


def duplicate_rules(subject: Subject) -> Iterator[tuple[RuleKey, ...]]:
    """Yield the rules of one group that are equal in all but id and description, the first first."""
    for group in subject.snapshot.security_groups:
        alike: dict[tuple[object, ...], list[RuleKey]] = {}
        for rule in group.rules:
            content = (
                rule.direction,
                rule.policy,
                rule.priority,
                rule.protocol,
                rule.ports,
                rule.source_ports,
                rule.authorization_object,
                rule.local_address,
            )
            alike.setdefault(content, []).append((group.security_group_id, rule.rule_id))
        yield from (tuple(sorted(keys)) for keys in alike.values() if len(keys) > 1)


def _find_duplicates(subject: Subject, check: Check) -> Iterator[Finding]:
    for first, *others in duplicate_rules(subject):
        for key in others:
            yield Finding(
                code=check.code,
                severity=check.severity,
                security_group_id=key[0],
                rule_ids=(key[1], first[1]),
                message=f"it is {first[1]} once more: equal in all but id and description",
                remedy="take one of them out",
                origin=subject.origin(key),
            )


def _ids(clauses: Iterable[Clause]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(clause.rule.rule_id for clause in clauses if clause.rule is not None))


def _names(clauses: Iterable[Clause]) -> str:
    """Return what decides, in words; of many the first."""
    names = list(
        dict.fromkeys(f"the {_STEPS[c.decided_by]}" if c.rule is None else decider_text(c) for c in clauses)
    )
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")


def _is_one(clauses: Iterable[Clause]) -> bool:
    return len(set(map(_known_by, clauses))) == 1


_FEW = 3
_STEPS = {
    DecidedBy.ALWAYS: "list of what no group can block",
    DecidedBy.FAILSAFE: "fail-safe list",
    DecidedBy.INNER: "inner access policy",
    DecidedBy.DEFAULT: "default",
}

DENY = Check(
    code="deny_before_accepts",
    severity=Severity.ERROR,
    summary="a drop of everything at or before the priority of the accepts that it should follow",
    find=_find_deny_before_accepts,
)
VOID = Check(
    code="void_drop",
    severity=Severity.ERROR,
    summary="a drop that drops nothing, as accepts stand before it",
    find=_find_void_drops,
)
CHECKS = (
    DENY,
    VOID,
    Check(
        code="never_reached",
        severity=Severity.WARNING,
        summary="a rule that no packet gets to, as others decide before it",
        find=_find_never_reached,
    ),
    Check(
        code="duplicate_rule",
        severity=Severity.WARNING,
        summary="a rule that stands twice in a group",
        find=_find_duplicates,
    ),
    Check(
        code="contradicting_tie",
        severity=Severity.NOTICE,
        summary="an accept and a drop of one priority that match the same packets",
        find=_find_ties,
    ),
    Check(
        code="redundant_rule",
        severity=Severity.NOTICE,
        summary="a rule without which every packet would be decided alike",
        find=_find_redundant,
    ),
)
