"""Checks of how groups are designed: too many rules in one, or groups that differ too little."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from sgagent.analysis.cells import LAST_CODE, Cells, FarEndClass, PacketCell
from sgagent.analysis.lint.findings import Finding
from sgagent.analysis.lint.rule_reach import RuleKey, is_wide, key_of
from sgagent.analysis.lint.services import MANAGEMENT
from sgagent.analysis.lint.subject import Attachment, LintSubject, names_itself, notice, warning
from sgagent.core.addresses import common, joined, size, sweep
from sgagent.core.clauses import Clause, DecidedBy
from sgagent.core.cloud_quotas import quota_uses
from sgagent.core.errors import NOWHERE
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
_PRODUCTION = ("production", "prod", "prd")
_TEST = ("test", "testing", "dev", "development", "staging", "qa", "uat", "sandbox", "preprod", "nonprod")
_NAMED = dict.fromkeys(_PRODUCTION, "production") | dict.fromkeys(_TEST, "test")
"""The environments of the words in a name."""

_ENVIRONMENTS = _NAMED | {"live": "production", "stage": "test"}
"""The environments of tags' values."""

_NO_PRODUCTION = re.compile(r"(pre|non)[-_. ]?prod(uction)?")


@warning("a group that serves everyone and insiders on different ports")
def mixed_services(subject: LintSubject) -> Iterator[Finding]:
    """Find groups that serve everyone, and some inside, on different ports."""
    for group in subject.snapshot.security_groups:
        rules = sorted(group.rules, key=lambda rule: rule.rule_id)
        serving = [rule for rule in rules if _is_service(rule)]
        public = [rule for rule in serving if _is_for_everyone(rule)]
        covered = {(rule.ports, protocol) for rule in public for protocol in rule.protocols}
        inner = [
            rule
            for rule in serving
            if not _is_for_everyone(rule)
            and any(map(_is_inside, rule.authorization_objects))
            and any((rule.ports, protocol) not in covered for protocol in rule.protocols)
        ]
        if public and inner:
            yield _group_finding(
                group,
                f"it serves everyone ({_ids(public)}) and insiders ({_ids(inner)})",
                "use separate groups and hosts for public and internal services",
                (inner[0].rule_id, public[0].rule_id),
            )


def _is_service(rule: SecurityGroupRule) -> bool:
    """Return whether a rule lets others use a host's services, its administration aside."""
    if rule.policy is not Policy.ACCEPT or rule.direction is not Direction.INGRESS:
        return False
    if not any(protocol.has_ports for protocol in rule.protocols):
        return False
    if isinstance(rule.ports, PortListReference):
        return True
    return not all(first == last and first in MANAGEMENT for first, last in rule.ports.ranges)


def _is_for_everyone(rule: SecurityGroupRule) -> bool:
    return any(isinstance(one, CidrBlock) and one.is_everything for one in rule.authorization_objects)


def _is_inside(one: AuthorizationObject) -> bool:
    """Return whether an object is a group, or a private network or address."""
    match one:
        case CidrBlock() as block:
            return block.network.is_private
        case GroupReference():
            return True
        case _:
            return False


def _ids(rules: list[SecurityGroupRule]) -> str:
    return ", ".join(rule.rule_id for rule in rules[:3]) + (" …" if len(rules) > 3 else "")


@warning("production and test, by tag or name, that reach or name each other")
def mixed_environments(subject: LintSubject) -> Iterator[Finding]:
    """Find production and test that name each other, or reach each other beside ports open to everyone."""
    environments = {
        group.security_group_id: environment
        for group in subject.snapshot.security_groups
        if (environment := _environment(group)) is not None
    }
    if len(set(environments.values())) < 2:
        return
    found: dict[_Contact, set[str]] = {}
    for attachment in subject.attachments:
        for contact in _contacts(subject, attachment, environments):
            found.setdefault(contact, set()).update(attachment.interfaces)
    named = [contact for contact in _namings(subject, environments) if contact not in found]
    for (here, there, rule), interfaces in (found | {contact: set[str]() for contact in named}).items():
        do = "may reach" if (here, there, rule) in named else "reach"
        by = f"by {rule[1]}" if rule else "by the inner access policy of a group that both share"
        yield Finding(
            security_group_id=rule[0] if rule else here,
            rule_ids=(rule[1],) if rule else (),
            object_id=here,
            message=f"members of {there} ({environments[there]}) {do} {here} ({environments[here]}) {by}",
            remedy="keep the environments in separate groups and networks",
            interfaces=tuple(sorted(interfaces)),
            origin=NOWHERE if rule else subject.snapshot.group_by_id[here].origin,
        )


_Contact = tuple[str, str, RuleKey | None]
"""A way between environments: the group that is reached, the one that members reach it from, and the rule."""


def _contacts(
    subject: LintSubject, attachment: Attachment, environments: Mapping[str, str]
) -> Iterator[_Contact]:
    """Yield the contacts that let members of the other environment in at an attachment."""
    groups = attachment.judge.security_group_ids
    for own in [group for group in groups if group in environments][:1]:
        others = [one for one in environments if environments[one] != environments[own] and one not in groups]
        for family, cells in attachment.ingress.cells.items():
            members = {other: joined(subject.members[other].ranges(family)) for other in others}
            for clause, far in _narrowly_accepted(cells):
                met = joined(ends for one in far for ends in one.ranges)
                rule = key_of(clause.rule) if clause.rule else None
                yield from ((own, other, rule) for other, ranges in members.items() if common(met, ranges))


def _namings(subject: LintSubject, environments: Mapping[str, str]) -> Iterator[_Contact]:
    """Yield the accepts that name a group of the other environment, whether or not it has members."""
    for key, (group, rule) in subject.rules.items():
        own = environments.get(group.security_group_id)
        for one in rule.authorization_objects if own and rule.policy is Policy.ACCEPT else ():
            named = one.security_group_id if isinstance(one, GroupReference) else ""
            if environments.get(named, own) != own:
                is_inwards = rule.direction is Direction.INGRESS
                yield (key[0], named, key) if is_inwards else (named, key[0], key)


def _narrowly_accepted(cells: Cells) -> Iterator[tuple[Clause, set[FarEndClass]]]:
    """Yield accepting clauses, with those whom they let in at some port where they don't let in everyone."""
    decided: dict[int, list[PacketCell]] = {}
    for cell in cells.each():
        decided.setdefault(cell.decider, []).append(cell)
    for place, found in sorted(decided.items()):
        clause = cells.clauses[place]
        if clause.policy is Policy.ACCEPT and clause.decided_by in _OPENING:
            is_broad = is_wide(joined(clause.addresses), cells.family)
            yield clause, _not_of_everyone(found, cells.family) if is_broad else {cell.far for cell in found}


def _not_of_everyone(found: Sequence[PacketCell], family: Family) -> set[FarEndClass]:
    """Return the far ends of cells at the ports at which these are not for everyone."""
    met: set[FarEndClass] = set()
    for _, _, here in sweep(enumerate(((cell.first, cell.last),) for cell in found), LAST_CODE):
        far = {found[place].far for place in here}
        if not is_wide(joined(ends for one in far for ends in one.ranges), family):
            met |= far
    return met


_OPENING = (DecidedBy.RULE, DecidedBy.INNER, DecidedBy.DEFAULT)


def _environment(group: SecurityGroup) -> str | None:
    """Return the environment of a group by its tags, name or id; None if it is neither of the two."""
    values = (value.lower() for key, value in group.tags if key.lower() in _ENVIRONMENT_KEYS)
    tagged = (_ENVIRONMENTS[value] for value in values if value in _ENVIRONMENTS)
    return next(tagged, None) or _named(group.name) or _named(group.security_group_id)


def _named(name: str) -> str | None:
    """Return the only environment of which a name has a word."""
    words = re.split(r"[^a-z0-9]+", _NO_PRODUCTION.sub("nonprod", name.lower()))
    found = {_NAMED[word] for word in words if word in _NAMED}
    return found.pop() if len(found) == 1 else None


@notice("members that may all talk to each other, where nothing shows that they need to")
def needless_inner_accept(subject: LintSubject) -> Iterator[Finding]:
    """Find groups whose members may all talk, where nothing shows that they need to."""
    for group in subject.snapshot.security_groups:
        reason = _why_needless(subject, group) if group.inner_access is Policy.ACCEPT else None
        if reason is not None:
            remedy = "set inner_access_policy to drop, and accept by rules what members need"
            yield _group_finding(group, reason, remedy)


def _why_needless(subject: LintSubject, group: SecurityGroup) -> str | None:
    name = group.security_group_id
    silent = _silent_links(subject, name)
    if silent:
        return f"all is open among its members, and on {', '.join(silent)} no member came for that long"
    if any(names_itself(group, rule) for rule in group.rules):
        return "all is open among its members, though its own rules say what they need of each other"
    attachments = [
        attachment for attachment in subject.attachments if name in attachment.judge.security_group_ids
    ]
    members = subject.members[name]
    if sum(size(joined(members.ranges(family))) for family in Family) < 2 or not attachments:
        return None
    if len(attachments[0].interfaces) + len(attachments) > 2 and not any(map(_serves, attachments)):
        return "its members are open to each other, though no rule opens a port of theirs"
    return None


def _silent_links(subject: LintSubject, group: str) -> list[str]:
    """Return the links of this host with the group, if fellow members came by none of them for long."""
    host = subject.host
    links = [judge.name for judge in host.bound if group in judge.security_group_ids]
    counted = [host.inner_usage[link] for link in links if link in host.inner_usage]
    if host.unused_seconds is None or not links or len(counted) < len(links):
        return []
    return links if all(host.is_unused(usage) for usage in counted) else []


def _serves(attachment: Attachment) -> bool:
    """Return whether a rule lets anybody in."""
    return any(
        clause.policy is Policy.ACCEPT and clause.decided_by is DecidedBy.RULE
        for clauses in attachment.ingress.clauses.values()
        for clause in clauses
    )


@notice("a group with more rules than anybody can review")
def too_many_rules(subject: LintSubject) -> Iterator[Finding]:
    """Find groups with more rules than anybody can review."""
    for group in subject.snapshot.security_groups:
        if len(group.rules) > subject.most_rules:
            yield _group_finding(
                group,
                f"it has {len(group.rules)} rules; more than {subject.most_rules} are hard to review",
                f"split it by purpose into groups of at most {subject.most_rules}, or use lists",
            )


NEAR = 0.9
"""The share of a limit of the cloud from which on it is reported."""


@warning("a limit of the cloud that is used to 90 % or more, as the cloud counts")
def cloud_quota(subject: LintSubject) -> Iterator[Finding]:
    """Find interfaces and groups that come near to the cloud's limits, or exceed them (§8.2)."""
    for use in quota_uses(subject.snapshot):
        if use.ratio >= NEAR:
            yield Finding(
                object_id=use.object_id,
                message=f"{use.used} of {use.most} {use.limit.value.replace('_', ' ')}, as the cloud counts",
                remedy="make room: fewer entries in lists, fewer objects and ports in rules, or other groups",
                origin=use.origin,
            )


def _group_finding(group: SecurityGroup, message: str, remedy: str, ids: tuple[str, ...] = ()) -> Finding:
    return Finding(
        security_group_id=group.security_group_id,
        rule_ids=ids,
        object_id=group.security_group_id,
        message=message,
        remedy=remedy,
        origin=group.origin,
    )
