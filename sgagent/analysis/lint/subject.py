"""The subject of the checks: definitions, their resolution for each combination of groups, and usage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial

from sgagent.analysis.cells import MOST_CELLS
from sgagent.analysis.lint.edits import MOST_TRIED, Fix, SearchBudget
from sgagent.analysis.lint.findings import MOST_RULES, OFFICES, SEVERITIES, Finding, FindingSeverity
from sgagent.analysis.lint.removals import Removals, find_removals
from sgagent.analysis.lint.rule_reach import OpenPorts, RuleKey, RuleReach, key_of, ports_open_to_everyone
from sgagent.analysis.lint.rule_relations import as_if_of_everyone, is_narrow, is_part, is_uncertain, may_meet
from sgagent.analysis.lint.services import DATABASES, NARROW_PORTS, everything
from sgagent.core.addresses import AddressSet, holds, size
from sgagent.core.binding import Binding, Bindings, HostListener, bind_everywhere
from sgagent.core.clauses import Clause
from sgagent.core.counter_keys import HitTimes, RuleCounter
from sgagent.core.errors import NOWHERE, Origin, Problem
from sgagent.core.members import members_by_group
from sgagent.core.model import (
    TCP,
    Direction,
    Family,
    GroupReference,
    Policy,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.core.policy import ResolvedInterface, ResolvedRule
from sgagent.core.resolve import Exemptions, Scope, living, resolve
from sgagent.core.resolved_rules import KnownNames
from sgagent.core.rule_values import has_ended


@dataclass(frozen=True)
class Attachment:
    """Groups that are attached together somewhere, and their judge there."""

    interfaces: tuple[str, ...]
    """The links or network interfaces; empty where a group is attached nowhere and looked at by itself."""

    judge: ResolvedInterface
    at: datetime | None = None
    """The time that it is the judge of."""

    most: int | None = MOST_CELLS
    """Cells that are looked at in a direction; None is all."""

    @cached_property
    def ingress(self) -> RuleReach:
        """Return the reach of rules inwards."""
        return RuleReach(self.judge, Direction.INGRESS, self.most)

    @cached_property
    def egress(self) -> RuleReach:
        """Return the reach of rules outwards."""
        return RuleReach(self.judge, Direction.EGRESS, self.most)

    @property
    def reaches(self) -> tuple[RuleReach, RuleReach]:
        """Return both directions."""
        return (self.ingress, self.egress)

    @cached_property
    def later(self) -> tuple[ResolvedInterface, ...] | None:
        """Return the judges at other times, or without the DNS; None for too many times, or two zones."""
        times = {rule.expires for rule in self.rules if rule.expires is not None}
        hours = {rule.conditions.active for rule in self.rules if rule.conditions.active is not None}
        starts = times | ({self.at} if self.at is not None else set())
        times |= {edge for start in starts for one in hours for edge in one.edges(start)}
        if len(times) > _MOST_TIMES or len({one.zone for one in hours}) > 1:  # which meet varies with DST
            return None
        found = {_rules_of(judge): judge for judge in (self.judge, *map(self.judge.at, sorted(times)))}
        if len(found) > _MOST_STATES:
            return None
        judges = list(found.values())
        if any(rule.peer.is_dynamic for rule in self.rules):
            judges += [judge.with_rules(lambda rule: not rule.peer.is_dynamic) for judge in judges]
        return tuple(judges[1:])

    @cached_property
    def rules(self) -> tuple[ResolvedRule, ...]:
        """Return all rules, those of other hours included."""
        sides = (self.judge.ingress, self.judge.egress)
        return tuple(rule for side in sides for rule in (*side.rules, *side.dormant))

    @cached_property
    def limited(self) -> tuple[ResolvedRule, ...]:
        """Return the rules with a limit (§13.1)."""
        return tuple(rule for rule in self.rules if rule.conditions.limit is not None)

    def may_meet_limit(self, rule: ResolvedRule) -> bool:
        """Return whether a rule has a limit, or packets in common with one that has."""
        return any(may_meet(rule, one) for one in self.limited)

    @cached_property
    def open_to_everyone(self) -> Mapping[Family, OpenPorts]:
        """Return the ports that rules open to everyone."""
        return {family: ports_open_to_everyone(self.ingress.clauses[family], family) for family in Family}

    def own_database_rules(self, family: Family) -> Mapping[RuleKey, tuple[int, ...]]:
        """Return the accepts of database ports, with these, where a rule opens everything to everyone."""
        broad = everything({TCP.wire_number: self.open_to_everyone[family][TCP.wire_number]})
        found: dict[RuleKey, tuple[int, ...]] = {}
        for clause in self.ingress.clauses[family] if broad else ():
            ports = clause.ports.ranges
            if clause.rule and clause.policy is Policy.ACCEPT and size(ports) <= NARROW_PORTS:
                own = [port for port in DATABASES if holds(ports, port)]
                if own:
                    found[key_of(clause.rule)] = tuple(own)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveHost:
    """The facts of this host while it lives, beside its definitions."""

    bound: tuple[ResolvedInterface, ...] = ()
    """The judges of its bound links."""

    usage: Mapping[RuleCounter, HitTimes] = field(default_factory=dict)
    """The agent's counts of rules."""

    inner_usage: Mapping[str, HitTimes] = field(default_factory=dict)
    """Of fellow members, by link."""

    now: float = 0.0
    listeners: tuple[HostListener, ...] | None = None
    """None where it was not looked."""

    forwarded: tuple[Family, ...] = ()
    """The families that this host forwards to other links."""

    unused_seconds: float | None = None
    """How long a rule may go without a hit; None does not ask."""

    def is_unused(self, usage: HitTimes) -> bool:
        """Return whether something was counted for long enough, and not hit in that time."""
        since = max(usage.counted_since, usage.last_hit_at or 0.0)
        return self.now - since >= (self.unused_seconds or 0.0)


_MOST_TIMES, _MOST_STATES = 256, 9
"""Times at which rules of one interface end or begin, and sets of rules that exist then.

All are looked at before a rule is called needless.
"""


def _rules_of(judge: ResolvedInterface) -> frozenset[int]:
    return frozenset(map(id, (*judge.ingress.rules, *judge.egress.rules)))


NO_HOST = LiveHost()


@dataclass(frozen=True)
class LintSubject:
    """All that checks look at."""

    snapshot: Snapshot
    """Without the rules that have ended."""

    attachments: tuple[Attachment, ...]
    ended: tuple[tuple[SecurityGroup, SecurityGroupRule], ...] = ()
    """The rules that have."""

    problems: tuple[Problem, ...] = ()
    """The problems of resolving the definitions."""

    most_rules: int = MOST_RULES
    offices: Mapping[Family, int] = field(default_factory=lambda: OFFICES)
    """Prefix lengths of the widest networks that still are an office."""

    host: LiveHost = NO_HOST
    names: KnownNames = field(default_factory=dict)
    """The DNS's answers."""

    @cached_property
    def members(self) -> Mapping[str, AddressSet]:
        """Return each group's members (§5.2)."""
        return members_by_group(self.snapshot)

    @cached_property
    def rules(self) -> Mapping[RuleKey, tuple[SecurityGroup, SecurityGroupRule]]:
        """Return every rule as it is written, by group and id, sorted by these."""
        found = {
            (group.security_group_id, rule.rule_id): (group, rule)
            for group in self.snapshot.security_groups
            for rule in group.rules
        }
        return dict(sorted(found.items()))

    @cached_property
    def host_attachments(self) -> tuple[Attachment, ...]:
        """Return the links of this host; results for the same groups elsewhere serve here too."""
        known = {attachment.judge.security_group_ids: attachment for attachment in self.attachments}
        at, most = next(((one.at, one.most) for one in self.attachments), (None, MOST_CELLS))
        return tuple(
            known.get(judge.security_group_ids)
            or Attachment(interfaces=(judge.name,), judge=judge, at=at, most=most)
            for judge in self.host.bound
        )

    def origin(self, key: RuleKey) -> Origin:
        """Return where a rule is written."""
        found = self.rules.get(key)
        return found[1].origin if found else NOWHERE

    @property
    def reaches(self) -> Iterator[tuple[Attachment, RuleReach]]:
        """Return both directions of each attachment."""
        return ((attachment, reach) for attachment in self.attachments for reach in attachment.reaches)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Return in words where not all was looked at, and how much was."""
        not_tried = "edits: not all were tried, so findings may lack one that helps; --exhaustive tries all"
        return (
            *(
                f"{reach.direction.value} of {', '.join(attachment.judge.security_group_ids)}:"
                f" looked at {reach.unfinished[0]} of {reach.unfinished[1]} classes of far ends,"
                " so that no rule there is called needless; --exhaustive looks at all"
                for attachment, reach in self.reaches
                if reach.unfinished
            ),
            *((not_tried,) if self.search.is_cut else ()),
        )

    @cached_property
    def search(self) -> SearchBudget:
        """Return the bound of all searches for edits together."""
        return SearchBudget(math.inf if self.is_exhaustive else MOST_TRIED)

    @cached_property
    def rules_of_a_try(self) -> int:
        """Return the rules that an edit is tried on, times those that cut the packets of others further."""
        narrow = (rule for attachment in self.attachments for rule in attachment.rules if is_narrow(rule))
        return len(self.rules) * max(1, len(set(map(key_of, narrow))))

    @property
    def is_exhaustive(self) -> bool:
        """Return whether all is looked at, however long that takes."""
        return any(attachment.most is None for attachment in self.attachments)

    @cached_property
    def decided(self) -> frozenset[RuleKey]:
        """Return the rules that decide about any packet anywhere."""
        return frozenset(key for _, reach in self.reaches for key in reach.deciding)

    @cached_property
    def matching(self) -> frozenset[RuleKey]:
        """Return the rules that match any packet, whether they decide or not."""
        return frozenset(key for _, reach in self.reaches for key in reach.rules)

    @cached_property
    def unreached(self) -> frozenset[RuleKey]:
        """Return the rules that match, and decide about no packet anywhere."""
        return self.matching - self.decided

    @cached_property
    def duplicates(self) -> Mapping[RuleKey, RuleKey]:
        """Return rules that equal one of their group in all but id and description, each with that one."""
        found: dict[RuleKey, RuleKey] = {}
        for group in self.snapshot.security_groups:
            alike: dict[SecurityGroupRule, RuleKey] = {}
            for rule in sorted(group.rules, key=lambda rule: rule.rule_id):
                key = (group.security_group_id, rule.rule_id)
                first = alike.setdefault(replace(rule, rule_id=""), key)
                if first != key:
                    found[key] = first
        return found

    @cached_property
    def void_drops(self) -> tuple[tuple[Attachment, RuleKey, tuple[Clause, ...]], ...]:
        """Return drops that drop nothing, with attachment and accepts before; of equal rules the first."""
        return tuple(
            (attachment, key, accepting)
            for attachment, reach in self.reaches
            for key, accepting in reach.void_drops.items()
            if key not in self.duplicates
        )

    @cached_property
    def exceptions(self) -> Mapping[RuleKey, Mapping[RuleKey, ResolvedRule]]:
        """Return void drops, each with the accepts that are its exceptions: narrower, and before it."""
        found: dict[RuleKey, dict[RuleKey, ResolvedRule]] = {}
        for attachment, key, _ in self.void_drops:
            for reach in attachment.reaches:
                rules = attachment.judge.toward(reach.direction).rules if key in reach.rules else ()
                for one in rules:
                    drop = reach.rule(key)
                    if one.policy is Policy.ACCEPT and one.priority < drop.priority and is_part(one, drop):
                        found.setdefault(key, {})[key_of(one)] = one
        return found

    @cached_property
    def trapped(self) -> Mapping[RuleKey, Mapping[RuleKey, ResolvedRule]]:
        """Return drops of everything, each with the accepts that decide nowhere because of it."""
        found: dict[RuleKey, dict[RuleKey, ResolvedRule]] = {}
        for _, reach in self.reaches:
            for key, denying in reach.denied.items():
                for deny in denying if key in self.unreached and key not in self.duplicates else ():
                    found.setdefault(key_of(deny), {})[key] = reach.rule(key)
        return found

    @cached_property
    def removals(self) -> Removals:
        """Return the rules without which every packet is decided alike, now and when rules have ended.

        Not those that other findings are about or would keep, nor those whose packets the DNS or a user says.
        """
        staying = {key for _, key, _ in self.void_drops} | self.trapped.keys()
        staying.update(*self.trapped.values(), *self.exceptions.values())
        staying.update(
            key
            for key, (group, rule) in self.rules.items()
            if group.inner_access is Policy.ACCEPT and names_itself(group, rule)
        )
        reaches: list[RuleReach] = []
        for attachment in self.attachments:
            named = as_if_of_everyone(attachment.rules)
            staying.update(*map(attachment.own_database_rules, Family))
            for reach in attachment.reaches:
                later = (RuleReach(judge, reach.direction, reach.most) for judge in attachment.later or ())
                mine = [reach, *later]
                reaches += mine
                rules = {key: one.rule(key) for one in mine for key in one.rules}
                staying.update(
                    key for key, one in rules.items() if attachment.later is None or is_uncertain(one, named)
                )
                # Whoever decides about packets of a rule with a limit stays, and so they are limited alike.
                deciding = (one.rule(key) for one in mine for key in one.deciding if attachment.limited)
                staying.update(key_of(one) for one in deciding if attachment.may_meet_limit(one))
        return find_removals(reaches, staying)


def names_itself(group: SecurityGroup, rule: SecurityGroupRule) -> bool:
    """Return whether a rule of a group accepts what comes from its members."""
    is_admitting = rule.policy is Policy.ACCEPT and rule.direction is Direction.INGRESS
    groups = (one for one in rule.authorization_objects if isinstance(one, GroupReference))
    return is_admitting and any(one.security_group_id == group.security_group_id for one in groups)


def make_subject(
    snapshot: Snapshot,
    exemptions: Exemptions,
    *,
    by_hand: Iterable[Binding] = (),
    only_by_hand: bool = False,
    most_rules: int = MOST_RULES,
    offices: Mapping[Family, int] = OFFICES,
    host: LiveHost = NO_HOST,
    at: datetime | None = None,
    names: KnownNames | None = None,
    most_cells: int | None = MOST_CELLS,
) -> LintSubject:
    """Return the subject of the checks: each combination of groups that is attached anywhere, once.

    A group that is attached nowhere but has rules is checked by itself.

    Args:
        snapshot: the definitions.
        exemptions: the configuration's lists.
        by_hand: bindings of the configuration or the command line.
        only_by_hand: whether nothing else is looked at.
        most_rules: that a group may have.
        offices: prefix lengths of the widest networks that still are an office.
        host: what is known of this host.
        at: the latest time; without it no rule has ended.
        names: what the DNS says of names; None where nobody asked.
        most_cells: that are looked at in a direction; None is all.
    """
    bindings = list(by_hand)
    if not only_by_hand:
        bindings += bind_everywhere(snapshot).bindings
        attached = {group for binding in bindings for group in binding.security_group_ids}
        bindings += [
            _alone(group) for group in snapshot.security_groups if group.security_group_id not in attached
        ]
    links: dict[tuple[str, ...], list[str]] = {}
    chosen: dict[tuple[str, ...], Binding] = {}
    for binding in bindings:
        groups = tuple(sorted(set(binding.security_group_ids)))
        if groups:
            links.setdefault(groups, []).extend([binding.interface] if binding.interface else [])
            chosen.setdefault(groups, binding)
    named = {groups: binding.interface or groups[0] for groups, binding in chosen.items()}
    in_order = sorted(chosen, key=named.__getitem__)  # as resolve sorts its interfaces
    bound = Bindings(bindings=tuple(replace(chosen[one], interface=named[one]) for one in in_order))
    resolution = resolve(snapshot, bound, exemptions, scope=Scope.EVERYTHING, at=at, names=names)
    judges = dict(zip(in_order, resolution.policy.interfaces, strict=True))
    rules = [(group, rule) for group in snapshot.security_groups for rule in group.rules]
    return LintSubject(
        snapshot=living(snapshot, at),
        ended=tuple((group, rule) for group, rule in rules if has_ended(rule, at)),
        attachments=tuple(
            Attachment(
                interfaces=tuple(sorted(links[groups])),
                judge=judges[groups],
                at=at,
                most=most_cells,
            )
            for groups in chosen
        ),
        problems=resolution.problems,
        most_rules=most_rules,
        offices=offices,
        host=host,
        names=names or {},
    )


def _alone(group: SecurityGroup) -> Binding:
    return Binding(
        interface="",
        network_interface=None,
        security_group_ids=(group.security_group_id,) if group.rules else (),
        mode=None,
        origin=group.origin,
    )


FindProblems = Callable[[LintSubject], Iterable[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something to look for."""

    code: str
    severity: FindingSeverity
    summary: str
    """The finding, as a clause without a full stop."""

    find: FindProblems

    def run(self, subject: LintSubject) -> Iterator[Finding]:
        """Yield the findings, with code and severity; a rule's finding is where the rule is written."""
        for found in self.find(subject):
            severity = min(self.severity, found.severity, key=SEVERITIES.index)
            origin = found.origin
            if origin is NOWHERE and found.rule_ids:
                origin = subject.origin((found.security_group_id or "", found.rule_ids[0]))
            yield replace(found, code=self.code, severity=severity, origin=origin)


def rule_finding(
    key: RuleKey,
    message: str,
    remedy: str,
    *,
    others: Iterable[str] = (),
    object_id: str | None = None,
    interfaces: tuple[str, ...] = (),
    fix: Fix | None = None,
) -> Finding:
    """Return a finding about a rule; others are the ids of rules that it is about as well."""
    return Finding(
        message=message,
        remedy=remedy,
        security_group_id=key[0],
        rule_ids=(key[1], *others),
        object_id=object_id,
        interfaces=interfaces,
        fix=fix,
    )


def lint_check(severity: FindingSeverity, summary: str) -> Callable[[FindProblems], Check]:
    """Return a decorator that makes a check of the function of its name."""

    def declare(find: FindProblems) -> Check:
        return Check(code=find.__name__, severity=severity, summary=summary, find=find)

    return declare


error = partial(lint_check, FindingSeverity.ERROR)
warning = partial(lint_check, FindingSeverity.WARNING)
notice = partial(lint_check, FindingSeverity.NOTICE)
