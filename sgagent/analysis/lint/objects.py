"""Checks of objects: unknown, empty or redundant groups, prefix lists and addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sgagent.analysis.lint.findings import Finding, FindingSeverity
from sgagent.analysis.lint.rule_reach import RuleKey
from sgagent.analysis.lint.subject import Check, LintSubject, lint_check
from sgagent.analysis.lint.void_rules import duplicate_rules
from sgagent.core.addresses import Ranges, common, joined
from sgagent.core.errors import Slips
from sgagent.core.model import (
    AuthorizationObject,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    NameReference,
    Policy,
    PortListReference,
    PrefixList,
    PrefixListReference,
    SecurityGroup,
    SecurityGroupRule,
)
from sgagent.core.policy import is_of_account


@lint_check(FindingSeverity.WARNING, "a rule whose group, prefix list or port list is not in the definitions")
def unknown_object(subject: LintSubject, check: Check) -> Iterator[Finding]:
    """Find rules whose object or port list is not in the definitions (§5.3)."""
    snapshot = subject.snapshot
    slips = {
        "security group": Slips(snapshot.group_by_id),
        "prefix list": Slips(snapshot.prefix_list_by_id),
        "port list": Slips(snapshot.port_list_by_id),
    }
    for key, (group, rule) in subject.rules.items():
        drops = rule.policy is Policy.DROP
        effect = "the definitions are refused, as a drop would be lost" if drops else "it matches nothing"
        if not drops and len(rule.authorization_objects) > 1:
            effect = "a part of it matches nothing"
        for noun, name in _unknown(subject, group, rule):
            meant = slips[noun].of(name)
            remedy = f"did you mean {' or '.join(meant)}?" if meant else f"add the {noun}, or correct its id"
            message = f"{effect}: the {noun} {name} is not in the definitions"
            finding = check.finding(subject, key, message, remedy, object_id=name)
            yield replace(finding, severity=FindingSeverity.ERROR) if drops else finding


def _unknown(
    subject: LintSubject, group: SecurityGroup, rule: SecurityGroupRule
) -> Iterator[tuple[str, str]]:
    """Yield what a rule refers to and the definitions lack: what it is, and its name."""
    snapshot = subject.snapshot
    for one in rule.authorization_objects:
        match one:
            case GroupReference() as reference:
                found = snapshot.group_by_id.get(reference.security_group_id)
                if found is None or not is_of_account(found, group, reference):
                    yield "security group", str(reference)
            case PrefixListReference(prefix_list_id) if prefix_list_id not in snapshot.prefix_list_by_id:
                yield "prefix list", prefix_list_id
            case _:
                pass
    if isinstance(rule.ports, PortListReference) and (
        rule.ports.port_list_id not in snapshot.port_list_by_id
    ):
        yield "port list", rule.ports.port_list_id


@lint_check(
    FindingSeverity.WARNING, "a rule about a group or list without anything that the rule could match"
)
def empty_object(subject: LintSubject, check: Check) -> Iterator[Finding]:
    """Find groups and lists that rules name, and that have nothing in them that the rules could match."""
    users: dict[tuple[str, bool], list[RuleKey]] = {}
    lacking: dict[tuple[str, str, bool], list[RuleKey]] = {}
    for key, (_, rule) in subject.rules.items():
        is_part = len(rule.authorization_objects) > 1
        ports = _empty_port_list(subject, rule)
        if ports is not None:
            users.setdefault((ports, False), []).append(key)
        for one in rule.authorization_objects:
            name = _empty_object(subject, one)
            if name is not None:
                users.setdefault((name, is_part), []).append(key)
            lack = _without_family(subject, rule, one)
            if lack is not None:
                noun = "IPv4" if lack[1] is Family.IPV4 else "IPv6"
                lacking.setdefault((lack[0], noun, is_part), []).append(key)
    for (name, is_part), keys in sorted(users.items()):
        matched, removal = _EFFECT_OF_EMPTY[is_part]
        yield _about_object(
            subject,
            check,
            name,
            keys,
            message=f"{name} is empty, so that no packet matches{matched}",
            remedy=f"attach interfaces to {name} or list its entries, or remove {removal}",
        )
    for (name, noun, is_part), keys in sorted(lacking.items()):
        matched, removal = _EFFECT_OF_EMPTY[is_part]
        yield _about_object(
            subject,
            check,
            name,
            keys,
            message=f"{name} has no {noun} address, and the rule is for {noun} only:"
            f" no packet matches{matched}",
            remedy=f"attach interfaces with {noun} addresses to {name}, or remove {removal}",
        )


_EFFECT_OF_EMPTY = {False: ("", "the rule"), True: (" this object", "it from the rule")}
"""What no packet matches, and what can be removed, by whether the rule has other objects."""


def _about_object(
    subject: LintSubject, check: Check, name: str, keys: Sequence[RuleKey], *, message: str, remedy: str
) -> Finding:
    others = (rule_id for _, rule_id in keys[1:])
    return check.finding(
        subject, keys[0], message + _likewise(keys[1:]), remedy, others=others, object_id=name
    )


_FEW = 3
"""So many further rules are named."""


def _likewise(keys: Sequence[RuleKey]) -> str:
    """Return the words that name the further rules that a finding is about."""
    if not keys:
        return ""
    named = ", ".join(f"{rule_id} of {group}" for group, rule_id in keys[:_FEW])
    return f"; likewise {named}" + (f" and {len(keys) - _FEW} more" if len(keys) > _FEW else "")


def _without_family(
    subject: LintSubject, rule: SecurityGroupRule, one: AuthorizationObject
) -> tuple[str, Family] | None:
    """Return a group that has members, but none of the only family that the rule is for, and that family."""
    local = rule.local_address
    families = {protocol.only_family for protocol in rule.protocols}
    family = families.pop() if len(families) == 1 else None
    family = family or (local.family if local else None)
    match one:
        case GroupReference(security_group_id) if family is not None:
            members = subject.members.get(security_group_id)
            is_lacking = members and not members.ranges(family)
            return (security_group_id, family) if is_lacking else None
        case _:
            return None


def _empty_object(subject: LintSubject, one: AuthorizationObject) -> str | None:
    match one:
        case GroupReference(security_group_id) if security_group_id in subject.members:
            return None if subject.members[security_group_id] else security_group_id
        case PrefixListReference(prefix_list_id):
            found = subject.snapshot.prefix_list_by_id.get(prefix_list_id)
            return prefix_list_id if found is not None and not found.entries else None
        case _:
            return None


def _empty_port_list(subject: LintSubject, rule: SecurityGroupRule) -> str | None:
    if not isinstance(rule.ports, PortListReference):
        return None
    found = subject.snapshot.port_list_by_id.get(rule.ports.port_list_id)
    return found.port_list_id if found is not None and not found.entries else None


@lint_check(FindingSeverity.NOTICE, "a prefix list, or an entry of one, that adds nothing")
def idle_prefix_list(subject: LintSubject, check: Check) -> Iterator[Finding]:
    """Find prefix lists that no rule names, that only idle rules name, or whose entries hold each other."""
    users: dict[str, list[RuleKey]] = {entry.prefix_list_id: [] for entry in subject.snapshot.prefix_lists}
    for key, (_, rule) in subject.rules.items():
        for one in rule.authorization_objects:
            if isinstance(one, PrefixListReference):
                users.setdefault(one.prefix_list_id, []).append(key)
    idle = _idle_rules(subject)
    for prefix_list in subject.snapshot.prefix_lists:
        keys = users[prefix_list.prefix_list_id]
        message = remedy = None
        if not keys:
            message, remedy = "no rule names it", "remove it, or name it in a rule"
        elif prefix_list.entries and all(key in idle for key in keys):
            message, remedy = (
                "the rules that name it decide nothing by themselves",
                "remove them and the list",
            )
        if message is not None and remedy is not None:
            yield _about_list(check, prefix_list, message, remedy)
        yield from _nested(check, prefix_list)


def _idle_rules(subject: LintSubject) -> frozenset[RuleKey]:
    """Return the rules that could be taken out together without any packet being decided otherwise."""
    duplicates = {key for keys in duplicate_rules(subject) for key in keys[1:]}
    return subject.unreached | subject.removable | duplicates


def _nested(check: Check, prefix_list: PrefixList) -> Iterator[Finding]:
    """Find entries that lie in another entry of their list."""
    entries = sorted(prefix_list.entries, key=lambda block: (block.first, -block.last))
    outer: CidrBlock | None = None
    for block in entries:
        if outer is not None and block.last <= outer.last:
            message = f"its entry {block} lies in its entry {outer}"
            yield _about_list(check, prefix_list, message, "remove the smaller one")
        else:
            outer = block


def _about_list(check: Check, prefix_list: PrefixList, message: str, remedy: str) -> Finding:
    return Finding(
        code=check.code,
        severity=check.severity,
        object_id=prefix_list.prefix_list_id,
        message=message,
        remedy=remedy,
        origin=prefix_list.origin,
    )


@lint_check(
    FindingSeverity.NOTICE, "a CIDR that holds the members of one group and nothing else that is known"
)
def cidr_for_group(subject: LintSubject, check: Check) -> Iterator[Finding]:
    """Find CIDRs that hold the members of one group and nothing else that is known."""
    members = {
        group: {family: joined(found.ranges(family)) for family in Family}
        for group, found in subject.members.items()
    }
    known = {
        family: joined(ranges for by_family in members.values() for ranges in by_family[family])
        for family in Family
    }
    objects = (
        (key, group, one)
        for key, (group, rule) in subject.rules.items()
        for one in (rule.authorization_objects if rule.policy is Policy.ACCEPT else ())
    )
    for key, group, block in objects:
        if not isinstance(block, CidrBlock) or block.is_everything:
            continue
        inside = common(((block.first, block.last),), known[block.family])
        name = _group_of(inside, block.family, members) if inside else None
        if name is not None and name != group.security_group_id:
            yield check.finding(
                subject,
                key,
                f"of what is known, {block} holds the members of {name} and nothing else",
                f"name {name} instead of the CIDR, so that members may come and go",
                object_id=name,
            )


@lint_check(FindingSeverity.WARNING, "an ingress rule about a name: the DNS decides who gets in")
def dns_ingress(subject: LintSubject, check: Check) -> Iterator[Finding]:
    """Find ingress rules that name a name: who controls its addresses gets in (§12.3)."""
    for key, (_, rule) in subject.rules.items():
        names = [one for one in rule.authorization_objects if isinstance(one, NameReference)]
        if names and rule.direction is Direction.INGRESS:
            yield check.finding(
                subject,
                key,
                f"who controls {', '.join(map(str, names))} in the DNS decides who gets in",
                "name addresses, a group or a prefix list",
                object_id=str(names[0]),
            )


def _group_of(inside: Ranges, family: Family, members: Mapping[str, Mapping[Family, Ranges]]) -> str | None:
    """Return the group whose members of a family are just these addresses."""
    return next((name for name in sorted(members) if members[name][family] == inside), None)
