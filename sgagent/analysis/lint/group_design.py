"""Checks of how groups are designed: too many rules in one, or groups that differ too little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sgagent.analysis.bit_sets import Columns
from sgagent.analysis.header_space import Clause
from sgagent.analysis.lint.exposure import MANAGEMENT
from sgagent.analysis.lint.findings import Finding, FindingSeverity
from sgagent.analysis.lint.rule_reach import is_wide, key_of
from sgagent.analysis.lint.subject import Check, LintSubject, Stand, lint_check
from sgagent.analysis.redundancy import Table
from sgagent.core.addresses import joined, size
from sgagent.core.evaluate import DecidedBy
from sgagent.core.model import (
    AuthorizationObject,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    Policy,
    PortListReference,
    SecurityGroup,
    SecurityGroupRule,
)

_ENVIRONMENT_KEYS = ("environment", "env", "stage")
_PRODUCTION = ("production", "prod", "prd", "live")
_TEST = ("test", "testing", "dev", "development", "staging", "stage", "qa", "uat", "sandbox", "preprod")


@lint_check(FindingSeverity.WARNING, "a group that serves everyone and insiders on different ports")
def mixed_services(subject: LintSubject, check: Check) -> Iterator[Finding]:
    """Find groups that serve everyone, and some inside, on different ports."""
    for group in subject.snapshot.security_groups:
        rules = sorted(group.rules, key=lambda rule: rule.rule_id)
        serving = [rule for rule in rules if _is_service(rule)]
        public = [rule for rule in serving if _is_for_everyone(rule)]
        covered = {(rule.ports, protocol) for rule in public for protocol in rule.protocols}
        inner = [
            rule
            for rule in serving
            if _is_for_insiders(rule)
            and any((rule.ports, protocol) not in covered for protocol in rule.protocols)
        ]
        if public and inner:
            yield Finding(
                code=check.code,
                severity=check.severity,
                security_group_id=group.security_group_id,
                rule_ids=(inner[0].rule_id, public[0].rule_id),
                object_id=group.security_group_id,
                message=f"it serves everyone ({_ids(public)}) and insiders ({_ids(inner)})",
                remedy="use separate groups and hosts for public and internal services",
                origin=group.origin,
            )


def _is_service(rule: SecurityGroupRule) -> bool:
    """Return whether a rule lets others use what a host offers, its administration aside."""
    if rule.policy is not Policy.ACCEPT or rule.direction is not Direction.INGRESS:
        return False
    if not any(protocol.has_ports for protocol in rule.protocols):
        return False
    if isinstance(rule.ports, PortListReference):
        return True
    return not all(first == last and first in MANAGEMENT for first, last in rule.ports.ranges)


def _is_for_everyone(rule: SecurityGroupRule) -> bool:
    return any(isinstance(one, CidrBlock) and one.is_everything for one in rule.authorization_objects)


def _is_for_insiders(rule: SecurityGroupRule) -> bool:
    """Return whether a rule is for a group, or for a private network or address."""
    return not _is_for_everyone(rule) and any(map(_is_inside, rule.authorization_objects))


def _is_inside(one: AuthorizationObject) -> bool:
    match one:
        case CidrBlock() as block:
            return block.network.is_private
        case GroupReference():
            return True
        case _:
            return False


def _ids(rules: list[SecurityGroupRule]) -> str:
    return ", ".join(rule.rule_id for rule in rules[:3]) + (" …" if len(rules) > 3 else "")


@dataclass(frozen=True, slots=True)
class _Contact:
    """A way from one environment into the other."""

    here: str
    """The group of the near end."""

    there: str
    clause: Clause


@lint_check(FindingSeverity.WARNING, "production and test, by their tags, that reach each other")
def mixed_environments(subject: LintSubject, check: Check) -> Iterator[Finding]:
    """Find production and test that reach each other by more than what is open to everyone."""
    environments = {
        group.security_group_id: environment
        for group in subject.snapshot.security_groups
        if (environment := _environment(group)) is not None
    }
    if len(set(environments.values())) < 2:
        return
    found: dict[tuple[str, str, object], tuple[_Contact, set[str]]] = {}
    for stand in subject.stands:
        for contact in _contacts(subject, stand, environments):
            clause = contact.clause
            key = (contact.here, contact.there, clause.rule and key_of(clause.rule))
            found.setdefault(key, (contact, set()))[1].update(stand.interfaces)
    for contact, interfaces in found.values():
        yield _mixed(subject, check, contact, tuple(sorted(interfaces)), environments)


def _contacts(subject: LintSubject, stand: Stand, environments: Mapping[str, bool]) -> Iterator[_Contact]:
    """Yield what lets members of the other environment in at a stand."""
    here = [group for group in stand.judge.security_group_ids if group in environments]
    for own in here[:1]:
        others = [
            other
            for other, environment in environments.items()
            if environment != environments[own] and other not in stand.judge.security_group_ids
        ]
        for family, tables in stand.ingress.tables.items():
            members = {other: subject.members[other].ranges(family) for other in others}
            for table in tables:
                columns = {other: table.columns_with(members[other]) for other in others if members[other]}
                yield from (
                    _Contact(own, other, clause)
                    for clause, met in _narrowly_accepted(table, family)
                    for other, held in columns.items()
                    if met & held
                )


def _narrowly_accepted(table: Table, family: Family) -> Iterator[tuple[Clause, Columns]]:
    """Yield what accepts, with those whom it lets in at some port where it does not let in everyone."""
    left = table.opened()
    for area in table.areas:
        clause = area.clause
        if clause.policy is not Policy.ACCEPT or clause.decided_by not in _OPENING:
            left.take(area.rows, area.columns)
            continue
        if is_wide(joined(clause.addresses), family):
            met = 0
            for _, _, columns in left.pieces(area.rows, area.columns):
                if not is_wide(joined(table.far_ranges(columns)), family):
                    met |= columns
            left.take(area.rows, area.columns)
        else:
            met = left.take(area.rows, area.columns)
        if met:
            yield clause, table.far_columns(met)


_OPENING = (DecidedBy.RULE, DecidedBy.INNER, DecidedBy.DEFAULT)


def _mixed(
    subject: LintSubject,
    check: Check,
    contact: _Contact,
    interfaces: tuple[str, ...],
    environments: Mapping[str, bool],
) -> Finding:
    names = {True: "production", False: "test"}
    rule = contact.clause.rule
    by = f"by {rule.rule_id}" if rule else "by the inner access policy of a group that both share"
    return Finding(
        code=check.code,
        severity=check.severity,
        security_group_id=rule.security_group_id if rule else contact.here,
        rule_ids=(rule.rule_id,) if rule else (),
        object_id=contact.here,
        message=f"members of {contact.there} ({names[environments[contact.there]]}) reach"
        f" {contact.here} ({names[environments[contact.here]]}) {by}",
        remedy="keep the environments in separate groups and networks",
        interfaces=interfaces,
        origin=subject.origin(key_of(rule)) if rule else subject.snapshot.group_by_id[contact.here].origin,
    )


def _environment(group: SecurityGroup) -> bool | None:
    """Return whether a group is production's, by its tags; None if it is neither that nor a test's."""
    for key, value in group.tags:
        if key.lower() in _ENVIRONMENT_KEYS:
            if value.lower() in _PRODUCTION:
                return True
            if value.lower() in _TEST:
                return False
    return None


@lint_check(
    FindingSeverity.NOTICE, "members that may all talk to each other, where nothing shows that they need to"
)
def needless_inner_accept(subject: LintSubject, check: Check) -> Iterator[Finding]:
    """Find groups whose members may all talk, where nothing shows that they need to."""
    for group in subject.snapshot.security_groups:
        reason = _why_needless(subject, group) if group.inner_access is Policy.ACCEPT else None
        if reason is not None:
            yield Finding(
                code=check.code,
                severity=check.severity,
                security_group_id=group.security_group_id,
                object_id=group.security_group_id,
                message=reason,
                remedy="set inner_access_policy to drop, and accept by rules what members need",
                origin=group.origin,
            )


def _why_needless(subject: LintSubject, group: SecurityGroup) -> str | None:
    name = group.security_group_id
    silent = _silent_links(subject, name)
    if silent:
        return f"all is open among its members, and on {', '.join(silent)} no member came for that long"
    if any(_names_itself(group, rule) for rule in group.rules):
        return "all is open among its members, though its own rules say what they need of each other"
    stands = [stand for stand in subject.stands if name in stand.judge.security_group_ids]
    members = subject.members[name]
    if sum(size(joined(members.ranges(family))) for family in Family) < 2 or not stands:
        return None
    if len(stands[0].interfaces) + len(stands) > 2 and not any(map(_serves, stands)):
        return "its members are open to each other, though no rule opens a port of theirs"
    return None


def _silent_links(subject: LintSubject, group: str) -> list[str]:
    """Return the links of this host with the group, if fellow members came by none of them for long."""
    life = subject.life
    links = [judge.name for judge in life.stands if group in judge.security_group_ids]
    counted = [life.inner_usage[link] for link in links if link in life.inner_usage]
    if life.unused_seconds is None or not links or len(counted) < len(links):
        return []
    return links if all(life.is_unused(usage) for usage in counted) else []


def _names_itself(group: SecurityGroup, rule: SecurityGroupRule) -> bool:
    return (
        rule.policy is Policy.ACCEPT
        and rule.direction is Direction.INGRESS
        and any(
            isinstance(one, GroupReference) and one.security_group_id == group.security_group_id
            for one in rule.authorization_objects
        )
    )


def _serves(stand: Stand) -> bool:
    """Return whether a rule lets anybody in."""
    return any(
        clause.policy is Policy.ACCEPT and clause.decided_by is DecidedBy.RULE
        for clauses in stand.ingress.clauses.values()
        for clause in clauses
    )


@lint_check(FindingSeverity.NOTICE, "a group with more rules than anybody can review")
def too_many_rules(subject: LintSubject, check: Check) -> Iterator[Finding]:
    """Find groups with more rules than anybody can review."""
    for group in subject.snapshot.security_groups:
        if len(group.rules) > subject.most_rules:
            yield Finding(
                code=check.code,
                severity=check.severity,
                security_group_id=group.security_group_id,
                object_id=group.security_group_id,
                message=f"it has {len(group.rules)} rules; more than {subject.most_rules} are hard to review",
                remedy=f"split it by purpose into groups of at most {subject.most_rules}, or use lists",
                origin=group.origin,
            )
