"""Checks for rules without effect: they decide nothing, the verdicts are equal without them, or they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, product

from sgagent.analysis.cells import places_of
from sgagent.analysis.compare import Effect, compare_judges
from sgagent.analysis.flow_text import ObjectNames, decider_text, port_text, traffic_text
from sgagent.analysis.lint import advice
from sgagent.analysis.lint.edits import Fix, RuleEdit, merged
from sgagent.analysis.lint.findings import Finding
from sgagent.analysis.lint.rule_reach import RuleKey, key_of, known_by
from sgagent.analysis.lint.rule_relations import closes_ports
from sgagent.analysis.lint.subject import Attachment, LintSubject, error, notice, rule_finding, warning
from sgagent.core.addresses import common, size
from sgagent.core.clauses import Clause, DecidedBy
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    Direction,
    Policy,
    Protocol,
    Protocols,
    SecurityGroupRule,
)
from sgagent.core.policy import ResolvedPolicy, ResolvedRule
from sgagent.core.rule_values import end_text, has_ended, protocols_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """Two rules that contradict each other."""

    drop: ResolvedRule
    accept: ResolvedRule
    traffic: str
    """The traffic that both match, in words."""


def ties(attachment: Attachment) -> Iterator[Tie]:
    """Yield the ties of an attachment, each pair once."""
    for reach in attachment.reaches:
        seen: set[tuple[RuleKey, RuleKey]] = set()
        for family, found in reach.precedence.items():
            accepts, clauses = reach.cells[family].accepts, reach.clauses[family]
            pairs = {
                pair
                for tied in found.tied
                for pair in product(places_of(tied & ~accepts), places_of(tied & accepts))
            }
            for drop, accept in sorted(pairs):
                tie = _tie(clauses[drop], clauses[accept])
                named = (key_of(tie.drop), key_of(tie.accept))
                if named not in seen:
                    seen.add(named)
                    yield tie


def _tie(drop: Clause, accept: Clause) -> Tie:
    assert drop.rule is not None  # noqa: S101 - only rules are looked at; for the type checker
    assert accept.rule is not None  # noqa: S101 - as above
    traffic = protocols_text(_common_protocols(drop, accept))
    ports = common(drop.ports.ranges, accept.ports.ranges)
    if ports != ALL_PORTS.ranges:
        traffic += f" {port_text(ports)}"
    return Tie(drop=drop.rule, accept=accept.rule, traffic=traffic)


def _common_protocols(drop: Clause, accept: Clause) -> Protocols:
    """Return the protocols that two clauses, which meet, have in common."""
    numbers = accept.protocols if drop.protocols is None else drop.protocols
    if numbers is None:
        return (ALL_PROTOCOLS,)
    return tuple(Protocol(number) for number in numbers if drop.may_have(number) and accept.may_have(number))


@error("a drop of everything at or before the priority of the accepts that it should follow")
def deny_before_accepts(subject: LintSubject) -> Iterator[Finding]:
    """Find the trap: a drop of everything at or before the priority of the accepts that it should follow."""
    for key, voided in subject.trapped.items():
        rules = (reach.rule(key) for _, reach in subject.reaches if key in reach.rules)
        priorities, deny = sorted({rule.priority for rule in voided.values()}), next(rules)
        is_one = priorities == [deny.priority]
        at = "the same priority, where drop wins" if is_one else f"priority {deny.priority}"
        ids = [rule_id for _, rule_id in voided]
        fix = advice.lets_accept(subject, key, voided)
        yield rule_finding(
            key,
            f"it drops everything at {at}, so that no packet reaches the accepts {', '.join(ids)}",
            _trap_remedy(subject, key, fix, priorities[-1]),
            others=ids,
            fix=fix,
        )


def _undecided(subject: LintSubject, reason: str) -> str:
    """Return the remedy where no edit is found, with the reason if all were tried."""
    is_cut = subject.search.is_cut
    return (
        f"decide which of them is meant{'; --exhaustive looks for priorities' if is_cut else f': {reason}'}"
    )


def _trap_remedy(subject: LintSubject, key: RuleKey, fix: Fix | None, last: int) -> str:
    if fix is None:
        return _undecided(subject, "no priorities open just what the accepts say")
    if [edit.key for edit in fix.edits] == [key]:
        return f"give it a number greater than {last}, so that it follows the accepts"
    return f"{_edits_text(fix.edits)}, so that it follows the accepts"


@error("a drop that drops nothing, as accepts come before it")
def void_drop(subject: LintSubject) -> Iterator[Finding]:
    """Find drops that decide nothing, as the packets that they should drop are accepted before."""
    breadth = cache(lambda clause: size(clause.addresses))
    accepting: dict[RuleKey, list[Clause]] = {}
    for _, key, clauses in subject.void_drops:
        accepting.setdefault(key, []).extend(clauses)
    fixes = {key: _void_fix(subject, key, clauses) for key, clauses in accepting.items()}
    for attachment, key, clauses in subject.void_drops:
        widest = sorted(clauses, key=breadth, reverse=True)
        yield rule_finding(
            key,
            f"it drops nothing: all its traffic is accepted before, by {_names(widest)}",
            _void_remedy(subject, key, fixes[key], accepting[key]),
            others=_ids(widest),
            interfaces=attachment.interfaces,
            fix=fixes[key],
        )


def _void_fix(subject: LintSubject, key: RuleKey, accepting: Iterable[Clause]) -> Fix | None:
    rules = {key_of(clause.rule): clause.rule for clause in accepting if clause.rule is not None}
    drops = (reach.rule(key) for _, reach in subject.reaches if key in reach.rules)
    return advice.lets_drop(subject, next(drops), list(rules.values()))


def _void_remedy(subject: LintSubject, key: RuleKey, fix: Fix | None, accepting: Sequence[Clause]) -> str:
    rules = [clause.rule for clause in accepting if clause.rule is not None]
    if fix is not None:
        (own,) = (edit for edit in fix.edits if edit.key == key)
        others = [edit for edit in fix.edits if edit.key != key]
        if others:
            return f"{_edits_text(others)}, and give it priority {own.priority}, behind what is narrower"
        first = min(rule.priority for rule in rules if rule.priority >= (own.priority or 0))
        return f"give it priority {own.priority}, before the accepts at priority {first}"
    if not rules and any(clause.decided_by is DecidedBy.INNER for clause in accepting):
        return "set the inner access policy of the shared group to drop, as it comes before all rules"
    if not rules:
        return "remove it, or remove its object from the configuration's lists"
    return _undecided(subject, "no priority of its own closes just what wider accepts open")


def _edits_text(edits: Iterable[RuleEdit]) -> str:
    return ", ".join(f"give {edit.rule_id} priority {edit.priority}" for edit in edits)


@warning("a rule that no packet reaches, as others decide before it")
def never_reached(subject: LintSubject) -> Iterator[Finding]:
    """Find the other rules that decide nothing anywhere, with those that decide instead."""
    instead: dict[RuleKey, list[Clause]] = {}
    for _, reach in subject.reaches:
        for key, clauses in reach.unreached.items():
            instead.setdefault(key, []).extend(clauses)
    for key in sorted((subject.unreached & subject.removals.every) - subject.duplicates.keys()):
        verb = "decides" if len(set(map(known_by, instead[key]))) == 1 else "decide"
        excess, ahead = _limit_texts(subject.rules[key][1], instead[key])
        yield rule_finding(
            key,
            f"no packet reaches it: {_names(instead[key])} {verb} before{excess}",
            f"remove it: no verdict changes{ahead}",
            others=_ids(instead[key]),
            fix=advice.removal(subject, key),
        )


def _limit_texts(rule: SecurityGroupRule, instead: Iterable[Clause]) -> tuple[str, str]:
    """Return what to add about limits (§13.1) to the message, and to the remedy; nothing without any."""
    deciders = [clause.rule for clause in instead if clause.rule is not None]
    limited = [one for one in deciders if one.conditions.limit is not None]
    if rule.conditions.limit is not None:
        return (
            ", and its limit has no effect",
            f", or put it before {_rule_ids(deciders)} to limit sources",
        )
    if limited:
        return ", and what exceeds the limit is dropped", f", or put it before {_rule_ids(limited)}"
    return "", ""


def _rule_ids(rules: Iterable[ResolvedRule]) -> str:
    return _few(", ", list(dict.fromkeys(rule.rule_id for rule in rules)))


@notice("a rule without which every packet would be decided alike")
def redundant_rule(subject: LintSubject) -> Iterator[Finding]:
    """Find rules without which every packet would be decided alike; all that are found can go together.

    Of rules that stand in for each other one stays, and is not found.
    """
    wanted = subject.removals.every - subject.unreached - subject.duplicates.keys()
    behind: dict[RuleKey, dict[tuple[object, ...], Clause]] = {}
    for _, reach in subject.reaches:
        for key, clauses in reach.behind(wanted).items():
            behind.setdefault(key, {}).update({known_by(clause): clause for clause in clauses})
    for key, named in behind.items():
        fix = advice.removal(subject, key)
        along = {edit.key for edit in fix.edits}
        found = [one for one in named.values() if one.rule is None or key_of(one.rule) not in along]
        verb = subject.rules[key][1].policy.value
        together = [edit.rule_id for edit in fix.edits if edit.key != key]
        yield rule_finding(
            key,
            f"all that it {verb}s, {_names(found)} would {verb} without it",
            f"remove it together with {_few(', ', together)}, which decide nothing before"
            if together
            else "remove it, or say in its description why it is there",
            others=_ids(found),
            fix=fix,
        )


@notice("an accept and a drop of one priority that match the same packets")
def contradicting_tie(subject: LintSubject) -> Iterator[Finding]:
    """Find accepts and drops of one priority that match the same packets: drop wins."""
    found: dict[tuple[RuleKey, RuleKey], Tie] = {}
    for tie in chain.from_iterable(map(ties, subject.attachments)):
        found.setdefault((key_of(tie.drop), key_of(tie.accept)), tie)
    made: tuple[RuleEdit, ...] = ()
    for (drop, accept), tie in found.items():
        is_trap = accept in subject.trapped.get(drop, ())
        if is_trap or not subject.duplicates.keys().isdisjoint((drop, accept)):
            continue
        if closes_ports(tie.drop, tie.accept):
            continue
        needless = next((key for key in (accept, drop) if key in subject.removals.every), None)
        fix = advice.removal(subject, needless) if needless else None
        if fix is None:
            fix = advice.unties(subject, drop, accept, tie.drop.priority, made)
            made = merged((*made, *(fix.edits if fix else ())))
        owner = "" if accept[0] == drop[0] else f" of {accept[0]}"
        yield rule_finding(
            drop,
            f"it and {accept[1]}{owner} have priority {tie.drop.priority} and contradict each other"
            f" on {tie.traffic}, where drop wins",
            _tie_remedy(subject, fix),
            others=(accept[1],),
            fix=fix,
        )


def _tie_remedy(subject: LintSubject, fix: Fix | None) -> str:
    if fix is None:
        return _undecided(subject, "no priority close by sets them apart without effect")
    if all(edit.fields for edit in fix.edits):
        return f"{_edits_text(fix.edits)}, which says what is in force"
    return f"{' and '.join(map(str, fix.edits))}: no verdict changes"


@warning("a rule that is twice in a group")
def duplicate_rule(subject: LintSubject) -> Iterator[Finding]:
    """Find rules that are twice in a group."""
    for key, (_, first) in subject.duplicates.items():
        message = f"it equals {first} in all but id and description"
        fix = Fix(edits=(RuleEdit(security_group_id=key[0], rule_id=key[1]),))
        yield rule_finding(key, message, "remove one of them", others=(first,), fix=fix)


def _ids(clauses: Iterable[Clause]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(clause.rule.rule_id for clause in clauses if clause.rule is not None))


def _names(clauses: Iterable[Clause]) -> str:
    """Return the deciders, in words; of many the first."""
    names = list(
        dict.fromkeys(f"the {_STEPS[c.decided_by]}" if c.rule is None else decider_text(c) for c in clauses)
    )
    return _few(", ", names)


def _few(separator: str, texts: Sequence[str]) -> str:
    """Return texts as one; of many the first, and how many more there are."""
    more = f" and {len(texts) - _FEW} more" if len(texts) > _FEW else ""
    return f"{separator.join(texts[:_FEW])}{more}"


_FEW = 3
_STEPS = {
    DecidedBy.ALWAYS: "list of what no group can block",
    DecidedBy.FAILSAFE: "fail-safe list",
    DecidedBy.INNER: "inner access policy",
    DecidedBy.DEFAULT: "default",
    DecidedBy.SPOOFED: "source check",
}


@notice("a rule that has ended")
def expired_rule(subject: LintSubject) -> Iterator[Finding]:
    """Find rules that have ended, which the definitions still have."""
    for group, rule in subject.ended:
        yield Finding(
            security_group_id=group.security_group_id,
            rule_ids=(rule.rule_id,),
            message=f"it ended at {end_text(rule)} and does not exist any more",
            remedy="take it out, or give it a later end",
            fix=Fix(edits=(RuleEdit(security_group_id=group.security_group_id, rule_id=rule.rule_id),)),
            origin=rule.origin,
        )


@warning("a drop that expires, and what its end opens")
def expiring_drop(subject: LintSubject) -> Iterator[Finding]:
    """Find drops whose end opens something."""
    for attachment in subject.attachments:
        for direction in Direction:
            for rule in attachment.judge.toward(direction).rules:
                if rule.policy is not Policy.DROP or rule.expires is None:
                    continue
                opened = _opened_by_end_of(rule, attachment, direction)
                if opened:
                    yield rule_finding(
                        key_of(rule),
                        f"it drops until {end_text(rule)} only, and then opens {_few('; ', opened)}",
                        "remove expires if that is to stay closed",
                        interfaces=attachment.interfaces,
                    )


def _opened_by_end_of(rule: ResolvedRule, attachment: Attachment, direction: Direction) -> list[str]:
    """Return in words the flows that a rule's end opens, given the rules that last as long."""
    ends = rule.expires
    before = attachment.judge.with_rules(lambda one: one.expires == ends or not has_ended(one, ends))
    after = before.with_rules(lambda one: one is not rule)
    names = ObjectNames.of(ResolvedPolicy(interfaces=(before,)))
    return [
        traffic_text(box, direction, names.text(box.peers, box.family, rule.peer.objects))
        for box in compare_judges(before, after, direction)
        if box.label.effect is Effect.OPENS
    ]
