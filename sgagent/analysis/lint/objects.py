"""Checks of objects: unknown, empty or redundant groups, prefix lists and addresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sgagent.analysis.lint import advice
from sgagent.analysis.lint.findings import Finding, FindingSeverity
from sgagent.analysis.lint.rule_reach import RuleKey
from sgagent.analysis.lint.subject import LintSubject, notice, rule_finding, warning
from sgagent.core.addresses import common, joined
from sgagent.core.errors import Slips
from sgagent.core.members import is_of_account
from sgagent.core.model import (
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
from sgagent.core.rule_values import FAMILY_NAMES, canonical_objects


@warning("a rule whose group, prefix list or port list is not in the definitions")
def unknown_object(subject: LintSubject) -> Iterator[Finding]:
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
            finding = rule_finding(key, message, remedy, object_id=name)
            yield replace(finding, severity=FindingSeverity.ERROR) if drops else finding


def _unknown(
    subject: LintSubject, group: SecurityGroup, rule: SecurityGroupRule
) -> Iterator[tuple[str, str]]:
    """Yield a rule's references that the definitions lack: their kind, and their name."""
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


@warning("a rule about a group or list without anything that the rule could match")
def empty_object(subject: LintSubject) -> Iterator[Finding]:
    """Find groups and lists that rules name, and that have nothing in them that the rules could match."""
    users: dict[tuple[str, str, bool], list[RuleKey]] = {}
    for key, (_, rule) in subject.rules.items():
        for empty in _empty_objects(subject, rule):
            users.setdefault(empty, []).append(key)
    for (name, family, is_part), keys in sorted(users.items()):
        matched, removal = (" this object", "it from the rule") if is_part else ("", "the rule")
        if family:
            message = f"{name} has no {family} address, and the rule is for {family} only: no packet matches"
            remedy = f"attach interfaces with {family} addresses to {name}"
        else:
            message = f"{name} is empty, so that no packet matches"
            remedy = f"attach interfaces to {name} or list its entries"
        yield rule_finding(
            keys[0],
            f"{message}{matched}{_likewise(keys[1:])}",
            f"{remedy}, or remove {removal}",
            others=(rule_id for _, rule_id in keys[1:]),
            object_id=name,
        )


_FEW = 3
"""So many further rules are named."""


def _likewise(keys: Sequence[RuleKey]) -> str:
    """Return the words that name the further rules that a finding is about."""
    if not keys:
        return ""
    named = ", ".join(f"{rule_id} of {group}" for group, rule_id in keys[:_FEW])
    return f"; likewise {named}" + (f" and {len(keys) - _FEW} more" if len(keys) > _FEW else "")


def _empty_objects(subject: LintSubject, rule: SecurityGroupRule) -> Iterator[tuple[str, str, bool]]:
    """Yield a rule's objects that match nothing, with the family that each lacks, if it has the other one.

    The last value is whether the rule has other objects.
    """
    snapshot, is_part = subject.snapshot, len(rule.authorization_objects) > 1
    if isinstance(rule.ports, PortListReference):
        port_list = snapshot.port_list_by_id.get(rule.ports.port_list_id)
        if port_list is not None and not port_list.entries:
            yield port_list.port_list_id, "", False
    for one in rule.authorization_objects:
        match one:
            case GroupReference(name) if name in subject.members:
                members, family = subject.members[name], _only_family(rule)
                if not members:
                    yield name, "", is_part
                elif family is not None and not members.ranges(family):
                    yield name, FAMILY_NAMES[family], is_part
            case PrefixListReference(name) if name in snapshot.prefix_list_by_id:
                if not snapshot.prefix_list_by_id[name].entries:
                    yield name, "", is_part
            case _:
                pass


def _only_family(rule: SecurityGroupRule) -> Family | None:
    """Return the only family that a rule is for."""
    families = {protocol.only_family for protocol in rule.protocols}
    family = families.pop() if len(families) == 1 else None
    return family or (rule.local_address.family if rule.local_address else None)


@notice("a prefix list, or an entry of one, that adds nothing")
def idle_prefix_list(subject: LintSubject) -> Iterator[Finding]:
    """Find prefix lists that no rule names, that only idle rules name, or whose entries hold each other."""
    users: dict[str, list[RuleKey]] = {entry.prefix_list_id: [] for entry in subject.snapshot.prefix_lists}
    for key, (_, rule) in subject.rules.items():
        for one in rule.authorization_objects:
            if isinstance(one, PrefixListReference):
                users.setdefault(one.prefix_list_id, []).append(key)
    idle = subject.removals.every | subject.duplicates.keys()
    for prefix_list in subject.snapshot.prefix_lists:
        keys = users[prefix_list.prefix_list_id]
        if not keys:
            yield _about_list(prefix_list, "no rule names it", "remove it, or name it in a rule")
        elif prefix_list.entries and all(key in idle for key in keys):
            message = "the rules that name it decide nothing by themselves"
            yield _about_list(prefix_list, message, "remove them and the list")
        yield from _nested(prefix_list)


def _nested(prefix_list: PrefixList) -> Iterator[Finding]:
    """Find entries that lie in another entry of their list."""
    entries = sorted(prefix_list.entries, key=lambda block: (block.first, -block.last))
    outer: CidrBlock | None = None
    for block in entries:
        if outer is not None and block.last <= outer.last:
            message = f"its entry {block} lies in its entry {outer}"
            yield _about_list(prefix_list, message, "remove the smaller one")
        else:
            outer = block


def _about_list(prefix_list: PrefixList, message: str, remedy: str) -> Finding:
    return Finding(
        object_id=prefix_list.prefix_list_id,
        message=message,
        remedy=remedy,
        origin=prefix_list.origin,
    )


@notice("a CIDR that holds the members of one group and nothing else that is known")
def cidr_for_group(subject: LintSubject) -> Iterator[Finding]:
    """Find CIDRs that hold the members of one group and nothing else that is known."""
    members = {
        group: {family: joined(found.ranges(family)) for family in Family}
        for group, found in subject.members.items()
    }
    known = {
        family: joined(ranges for by_family in members.values() for ranges in by_family[family])
        for family in Family
    }
    named = {
        (family, members[one][family]): one for one in sorted(members, reverse=True) for family in Family
    }
    for key, (group, rule) in subject.rules.items():
        found: dict[str, list[CidrBlock]] = {}
        for block in rule.authorization_objects if rule.policy is Policy.ACCEPT else ():
            if not isinstance(block, CidrBlock) or block.is_everything:
                continue
            inside = common(((block.first, block.last),), known[block.family])
            name = named.get((block.family, inside)) if inside else None
            if name is not None and name != group.security_group_id:
                found.setdefault(name, []).append(block)
        for name, blocks in found.items():
            yield _names_group(subject, key, blocks, name)


def _names_group(subject: LintSubject, key: RuleKey, blocks: Sequence[CidrBlock], name: str) -> Finding:
    (group, rule), other = subject.rules[key], subject.snapshot.group_by_id[name]
    others = (one for one in rule.authorization_objects if one not in blocks)
    objects = canonical_objects((*others, GroupReference(name)))
    is_near = (group.account_id, group.vpc_id) == (other.account_id, other.vpc_id)
    is_plain = all(isinstance(one, CidrBlock) for one in rule.authorization_objects)
    return rule_finding(
        key,
        f"of what is known, {blocks[0]} holds the members of {name} and nothing else",
        f"name {name} instead of the CIDR, so that members may come and go",
        object_id=name,
        fix=advice.names_instead(subject, key, objects) if is_near and is_plain else None,
    )


@warning("an ingress rule about a name: the DNS decides who gets in")
def dns_ingress(subject: LintSubject) -> Iterator[Finding]:
    """Find ingress rules that name a name: who controls its addresses gets in (§12.3)."""
    for key, (_, rule) in subject.rules.items():
        names = [one for one in rule.authorization_objects if isinstance(one, NameReference)]
        if names and rule.direction is Direction.INGRESS:
            yield rule_finding(
                key,
                f"who controls {', '.join(map(str, names))} in the DNS decides who gets in",
                "name addresses, a group or a prefix list",
                object_id=str(names[0]),
            )
