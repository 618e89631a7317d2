"""Checks for rules without effect: they decide nothing, the verdicts are equal without them, or they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, groupby

from sgagent.analysis.bit_sets import bits_of
from sgagent.analysis.compare import Effect, compare_judges
from sgagent.analysis.flow_text import ObjectNames, decider_text, port_text, traffic_text
from sgagent.analysis.header_space import Clause
from sgagent.analysis.lint.findings import Finding
from sgagent.analysis.lint.rule_reach import RuleKey, RuleReach, key_of, known_by
from sgagent.analysis.lint.subject import LintSubject, Stand, error, notice, rule_finding, warning
from sgagent.analysis.redundancy import Area, Table, common_area
from sgagent.core.addresses import common, size
from sgagent.core.evaluate import DecidedBy
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    Direction,
    Family,
    Policy,
    Protocol,
    Protocols,
    SecurityGroupRule,
)
from sgagent.core.policy import ResolvedPolicy, ResolvedRule
from sgagent.core.rule_values import has_ended, instant_text, protocols_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """Two rules that contradict each other."""

    drop: ResolvedRule
    accept: ResolvedRule
    traffic: str
    """What they both match, in words."""


def ties(stand: Stand) -> Iterator[Tie]:
    """Yield the ties of a stand, each pair once."""
    for reach in stand.reaches:
        seen: set[tuple[RuleKey, RuleKey]] = set()
        for tables in reach.tables.values():
            found = (pair for table in tables for pair in _pairs(table))
            for drop, accept in sorted(found, key=lambda pair: (pair[0].place, pair[1].place)):
                tie = _tie(drop.clause, accept.clause)
                pair = (key_of(tie.drop), key_of(tie.accept))
                if pair not in seen:
                    seen.add(pair)
                    yield tie


def _pairs(table: Table) -> Iterator[tuple[Area, Area]]:
    """Yield drops and accepts of one priority that match a packet which nothing before them decides."""
    left = table.opened()
    numbered = groupby(
        enumerate(table.areas), key=lambda found: found[1].clause.rule and found[1].clause.rule.priority
    )
    for priority, found in numbered:
        areas = list(found)
        drops = [area for _, area in areas if area.clause.policy is Policy.DROP]
        accepts = sum(1 << number for number, area in areas if area.clause.policy is Policy.ACCEPT)
        if priority is not None and drops and accepts:
            for drop in drops:
                for other in map(table.areas.__getitem__, bits_of(table.index.meeting(drop) & accepts)):
                    if left.has(*common_area(drop, other)):
                        yield drop, other
        for _, area in areas:
            left.take(area.rows, area.columns)


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


def denies_all(rule: ResolvedRule, families: Iterable[Family] = tuple(Family)) -> bool:
    """Return whether a rule drops everything from or to everyone of any of some families."""
    everyone = [EVERYONE[family] for family in families]
    return (
        rule.policy is Policy.DROP
        and ALL_PROTOCOLS in rule.protocols
        and any(peer.name in everyone for peer in rule.peer.objects)
        and rule.local_address is None
    )


EVERYONE = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}


@error("a drop of everything at or before the priority of the accepts that it should follow")
def deny_before_accepts(subject: LintSubject) -> Iterator[Finding]:
    """Find the trap: a drop of everything at or before the priority of the accepts that it should follow."""
    found: dict[RuleKey, dict[RuleKey, ResolvedRule]] = {}
    rules: dict[RuleKey, ResolvedRule] = {}
    for _, reach in subject.reaches:
        for key, denying in _denied(reach).items():
            for deny in denying:
                rules[key_of(deny)] = deny
                found.setdefault(key_of(deny), {})[key] = reach.rule(key)
    for key, accepts in found.items():
        voided = {accept: rule for accept, rule in accepts.items() if accept in subject.unreached}
        if not voided:
            continue
        priorities, deny = sorted({rule.priority for rule in voided.values()}), rules[key]
        is_one = priorities == [deny.priority]
        at = "the same priority, where drop wins" if is_one else f"priority {deny.priority}"
        ids = [rule_id for _, rule_id in voided]
        yield rule_finding(
            key,
            f"it drops everything at {at}, so that no packet reaches the accepts {', '.join(ids)}",
            f"give it a number greater than {priorities[-1]}, so that it follows the accepts",
            others=ids,
        )


def _denied(reach: RuleReach) -> Mapping[RuleKey, tuple[ResolvedRule, ...]]:
    """Return the accepts that decide nothing for a drop of everything, with the drops."""
    found: dict[RuleKey, tuple[ResolvedRule, ...]] = {}
    for key, instead in reach.unreached.items():
        if reach.rule(key).policy is Policy.ACCEPT:
            denying = tuple(c.rule for c in instead if c.rule is not None and denies_all(c.rule))
            if denying:
                found[key] = denying
    return found


@error("a drop that drops nothing, as accepts come before it")
def void_drop(subject: LintSubject) -> Iterator[Finding]:
    """Find drops that decide nothing, as what they should drop is accepted before."""
    breadth = cache(lambda clause: size(clause.addresses))
    for stand, reach in subject.reaches:
        for key, instead in reach.unreached.items():
            accepting = [clause for clause in instead if clause.policy is Policy.ACCEPT]
            if accepting and reach.rule(key).policy is Policy.DROP:
                accepting.sort(key=breadth, reverse=True)
                yield _void(stand, key, accepting)


def _void(stand: Stand, key: RuleKey, accepting: list[Clause]) -> Finding:
    priorities = [clause.rule.priority for clause in accepting if clause.rule is not None]
    if priorities:
        remedy = f"give it priority {max(priorities)}: at equal priority drop wins"
    elif any(clause.decided_by is DecidedBy.INNER for clause in accepting):
        remedy = "set the inner access policy of the shared group to drop, as it comes before all rules"
    else:
        remedy = "remove it, or remove its object from the configuration's lists"
    return rule_finding(
        key,
        f"it drops nothing: all its traffic is accepted before, by {_names(accepting)}",
        remedy,
        others=_ids(accepting),
        interfaces=stand.interfaces,
    )


@warning("a rule that no packet reaches, as others decide before it")
def never_reached(subject: LintSubject) -> Iterator[Finding]:
    """Find the other rules that decide nothing anywhere, with those that decide instead."""
    traps = ((found.security_group_id, found.rule_ids[1:]) for found in deny_before_accepts.run(subject))
    voids = ((found.security_group_id, found.rule_ids[:1]) for found in void_drop.run(subject))
    reported = {(group or "", rule_id) for group, ids in chain(traps, voids) for rule_id in ids}
    instead: dict[RuleKey, list[Clause]] = {}
    for _, reach in subject.reaches:
        for key, clauses in reach.unreached.items():
            instead.setdefault(key, []).extend(clauses)
    for key in sorted(subject.unreached - reported - duplicate_rules(subject).keys()):
        verb = "decides" if len(set(map(known_by, instead[key]))) == 1 else "decide"
        yield rule_finding(
            key,
            f"no packet reaches it: {_names(instead[key])} {verb} before",
            "remove it, or give it a smaller number if it should decide",
            others=_ids(instead[key]),
        )


@notice("a rule without which every packet would be decided alike")
def redundant_rule(subject: LintSubject) -> Iterator[Finding]:
    """Find rules without which every packet would be decided alike.

    All that name no rule that has to stay can be taken out together, with all that are never reached.
    """
    behind: dict[RuleKey, dict[tuple[object, ...], Clause]] = {}
    for _, reach in subject.reaches:
        for key, clauses in reach.behind(subject.redundant).items():
            behind.setdefault(key, {}).update({known_by(clause): clause for clause in clauses})
    for key, named in behind.items():
        found = list(named.values())
        verb = subject.rules[key][1].policy.value
        relied_on = []
        if key not in subject.removable:  # other findings suggest removing these
            suggested = subject.redundant | subject.unreached
            relied_on = [clause for clause in found if clause.rule and key_of(clause.rule) in suggested]
        yield rule_finding(
            key,
            f"all that it {verb}s, {_names(found)} would {verb} without it",
            f"remove it, but then keep {_names(relied_on)}"
            if relied_on
            else "remove it, or say in its description why it is there",
            others=_ids(found),
            not_with=_ids(relied_on),
        )


@notice("an accept and a drop of one priority that match the same packets")
def contradicting_tie(subject: LintSubject) -> Iterator[Finding]:
    """Find accepts and drops of one priority that match the same packets: drop wins."""
    trapped = {
        (key_of(deny), accept)
        for _, reach in subject.reaches
        for accept, denying in _denied(reach).items()
        for deny in denying
    }
    found: dict[tuple[RuleKey, RuleKey], Tie] = {}
    for tie in chain.from_iterable(map(ties, subject.stands)):
        found.setdefault((key_of(tie.drop), key_of(tie.accept)), tie)
    for (drop, accept), tie in found.items():
        if (drop, accept) in trapped:
            continue
        owner = "" if accept[0] == drop[0] else f" of {accept[0]}"
        yield rule_finding(
            drop,
            f"it and {accept[1]}{owner} have priority {tie.drop.priority} and contradict each other"
            f" on {tie.traffic}, where drop wins",
            "give the one that should decide the smaller number",
            others=(accept[1],),
        )


def duplicate_rules(subject: LintSubject) -> dict[RuleKey, RuleKey]:
    """Return the rules that equal another one of their group in all but id and description, and that one."""
    found: dict[RuleKey, RuleKey] = {}
    for group in subject.snapshot.security_groups:
        alike: dict[tuple[object, ...], RuleKey] = {}
        for rule in sorted(group.rules, key=lambda rule: rule.rule_id):
            key = (group.security_group_id, rule.rule_id)
            first = alike.setdefault(_content(rule), key)
            if first != key:
                found[key] = first
    return found


def _content(rule: SecurityGroupRule) -> tuple[object, ...]:
    return (
        rule.direction,
        rule.policy,
        rule.priority,
        rule.protocols,
        rule.ports,
        rule.source_ports,
        rule.authorization_objects,
        rule.local_address,
    )


@warning("a rule that is twice in a group")
def duplicate_rule(subject: LintSubject) -> Iterator[Finding]:
    """Find rules that are twice in a group."""
    for key, (_, first) in duplicate_rules(subject).items():
        message = f"it equals {first} in all but id and description"
        yield rule_finding(key, message, "remove one of them", others=(first,))


def _ids(clauses: Iterable[Clause]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(clause.rule.rule_id for clause in clauses if clause.rule is not None))


def _names(clauses: Iterable[Clause]) -> str:
    """Return what decides, in words; of many the first."""
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
        if rule.expires is not None:
            yield Finding(
                security_group_id=group.security_group_id,
                rule_ids=(rule.rule_id,),
                message=f"it ended at {instant_text(rule.expires)} and does not exist any more",
                remedy="take it out, or give it a later end",
                origin=rule.origin,
            )


@warning("a drop that expires, and what its end opens")
def expiring_drop(subject: LintSubject) -> Iterator[Finding]:
    """Find drops whose end opens something."""
    for stand in subject.stands:
        for direction in Direction:
            for rule in stand.judge.toward(direction).rules:
                if rule.policy is not Policy.DROP or rule.expires is None:
                    continue
                opened = _opened_by_end_of(rule, stand, direction)
                if opened:
                    yield rule_finding(
                        key_of(rule),
                        f"it drops until {instant_text(rule.expires)} only, and then opens"
                        f" {_few('; ', opened)}",
                        "remove expires if that is to stay closed",
                        interfaces=stand.interfaces,
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
