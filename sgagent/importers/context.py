"""Gather what several files say, and put it together once all of it is known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from sgagent.core.model import (
    CidrBlock,
    Cloud,
    Family,
    GroupReference,
    GroupType,
    NetworkInterface,
    Policy,
    PortListReference,
    PrefixList,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.documents.field import Field
from sgagent.documents.values import in_order
from sgagent.importers.aws_rules import AwsPermission, Surroundings, allow, what_is_missing
from sgagent.importers.notes import ImportEffect, Notes


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsGroup:
    """A group of AWS, its rules apart."""

    place: Field
    security_group_id: str
    name: str = ""
    vpc_id: str | None = None
    account_id: str | None = None
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class GatheredInterface:
    """An interface as it was told."""

    place: Field
    interface: NetworkInterface
    cloud: Cloud


@dataclass(frozen=True, slots=True)
class LostMember:
    """What has an interface in groups whose addresses nobody knows."""

    place: Field
    reason: str
    groups: frozenset[str] | None
    """None where nobody knows them."""

    network_interface_id: str | None = None
    """Nothing is lost if an interface of this id was read."""

    effect: ImportEffect = ImportEffect.LEFT_OUT


@dataclass(frozen=True, slots=True)
class UnreadResource:
    """A resource that is not read."""

    place: Field
    reason: str
    names: frozenset[str]
    """All in it that may be ids of groups."""

    is_related: bool
    """Whether it is worth a note also if it names no group that was read."""


@dataclass(frozen=True, slots=True)
class NumberedRules:
    """The rules of a group of AWS as one answer tells them, beside the answer about the group."""

    answer: Field
    allowances: list[AwsPermission] = field(default_factory=list)


@dataclass(slots=True)
class PrefixListDraft:
    """What is known of a prefix list so far."""

    place: Field
    family: Family | None = None
    entries: list[CidrBlock] = field(default_factory=list)
    delivered: Field | None = None
    """Where its entries were read; without them it is not defined."""

    def deliver(self, place: Field, entries: Iterable[CidrBlock]) -> None:
        """Take all entries; they may be told twice, but not otherwise."""
        told = list(entries)
        if self.delivered is None:
            self.entries += told
            self.delivered = place
        elif set(told) != set(self.entries):
            message = f"the list has other entries in {self.delivered.origin}"
            place.error("duplicate_id", message, "one of the two")


@dataclass(slots=True)
class Gathered:
    """What was read so far."""

    notes: Notes
    aws_groups: dict[str, AwsGroup] = field(default_factory=dict)
    allowances: list[AwsPermission] = field(default_factory=list)
    numbered: dict[str, NumberedRules] = field(default_factory=dict)
    """Of groups of AWS, what tells their rules again, one by one and with ids."""

    groups: dict[str, SecurityGroup] = field(default_factory=dict)
    """Of Alibaba Cloud, their rules apart."""

    rules: list[tuple[str, SecurityGroupRule]] = field(default_factory=list)
    """Of Alibaba Cloud, each with its group."""

    interfaces: dict[str, GatheredInterface] = field(default_factory=dict)
    attachments: list[tuple[Field, str, str]] = field(default_factory=list)
    """Interfaces and groups that are attached to them beside what the interfaces say, and where."""

    lost: list[LostMember] = field(default_factory=list)
    unread: list[UnreadResource] = field(default_factory=list)

    prefix_lists: dict[str, PrefixListDraft] = field(default_factory=dict)

    def add_aws_group(self, group: AwsGroup) -> None:
        """Take a group of AWS; its id must be new."""
        first = self.aws_groups.setdefault(group.security_group_id, group)
        if first is not group:
            _refuse_second(group.place, first.place)

    def add_group(self, place: Field, group: SecurityGroup) -> None:
        """Take a group of Alibaba Cloud; its id must be new."""
        if self.groups.setdefault(group.security_group_id, group) is not group:
            place.error("duplicate_id", f"{group.security_group_id} stands twice", "one of the two")

    def add_interface(
        self, place: Field, interface: NetworkInterface, cloud: Cloud, *, is_partial: bool = False
    ) -> None:
        """Take an interface; the same one may be told twice, as by an instance, but not otherwise.

        Args:
            place: where it is told.
            interface: what is told.
            cloud: whose it is.
            is_partial: whether something else may tell other addresses of it.
        """
        told = GatheredInterface(place, interface, cloud)
        first = self.interfaces.setdefault(interface.network_interface_id, told)
        if first is told or first.interface == interface:
            return
        merged = _merged(first.interface, interface) if is_partial else None
        if merged is None:
            message = f"{interface.network_interface_id} is otherwise in {first.place.origin}"
            place.error("duplicate_id", message, "one of the two, or both as they are now")
        else:
            self.interfaces[interface.network_interface_id] = GatheredInterface(first.place, merged, cloud)

    def prefix_list(self, prefix_list_id: str, place: Field) -> PrefixListDraft:
        """Return what is known of a prefix list, to add to it."""
        return self.prefix_lists.setdefault(prefix_list_id, PrefixListDraft(place))


def _merged(one: NetworkInterface, other: NetworkInterface) -> NetworkInterface | None:
    """Return what two resources tell of one interface; None if they contradict each other."""
    pairs = (
        (one.mac_address, other.mac_address),
        (one.vpc_id, other.vpc_id),
        (one.instance_id, other.instance_id),
        (one.security_group_ids, other.security_group_ids),
    )
    if any(first and second and first != second for first, second in pairs):
        return None
    return replace(
        one,
        mac_address=one.mac_address or other.mac_address,
        vpc_id=one.vpc_id or other.vpc_id,
        instance_id=one.instance_id or other.instance_id,
        security_group_ids=one.security_group_ids or other.security_group_ids,
        addresses=tuple(dict.fromkeys((*one.addresses, *other.addresses))),
    )


def settle(gathered: Gathered) -> Snapshot:
    """Return what everything together means in our own words."""
    prefix_lists = tuple(_prefix_lists(gathered))
    around = Surroundings(
        vpc_of_group={
            **{key: group.vpc_id for key, group in gathered.aws_groups.items()},
            **{key: group.vpc_id for key, group in gathered.groups.items()},
        },
        account_of_group={key: group.account_id for key, group in gathered.aws_groups.items()},
        family_of_list={entry.prefix_list_id: entry.family for entry in prefix_lists},
    )
    groups = (*_aws_groups(gathered, around), *_alibaba_groups(gathered, around))
    interfaces = tuple(_interfaces(gathered))
    for member in (*gathered.lost, *_unread(gathered)):
        if member.network_interface_id not in gathered.interfaces:
            _tell_of_lost(gathered, member)
    return Snapshot(
        version="",
        security_groups=tuple(sorted(groups, key=lambda group: group.security_group_id)),
        prefix_lists=tuple(sorted(prefix_lists, key=lambda entry: entry.prefix_list_id)),
        network_interfaces=interfaces,
    )


def _refuse_second(second: Field, first: Field) -> None:
    second.error("duplicate_id", f"the same group as {first.origin}", "one of the two")


def _aws_groups(gathered: Gathered, around: Surroundings) -> Iterator[SecurityGroup]:
    """Go through the groups of AWS.

    An advanced group is what a group of AWS is: nothing comes in and nothing goes out but what a rule of one
    of the interface's groups accepts, and members are strangers to one another (§3.4, §3.6).
    """
    rules = _aws_rules(gathered, gathered.allowances, around)
    for key, numbered in gathered.numbered.items():
        again = _aws_rules(gathered, numbered.allowances, around)[key]
        own = rules[key] if key in gathered.aws_groups else ()
        if own and set(map(_without_id, rules[key])) != set(map(_without_id, again)):
            message = f"{key} has other rules in {numbered.answer.origin}"
            gathered.aws_groups[key].place.error(
                "contradiction", message, "answers of one time, with all rules"
            )
        rules[key] += again
    for key, group in gathered.aws_groups.items():
        yield SecurityGroup(
            security_group_id=key,
            group_type=GroupType.ADVANCED,
            inner_access_policy=Policy.DROP,
            account_id=group.account_id,
            vpc_id=group.vpc_id,
            name=group.name,
            tags=group.tags,
            cloud=Cloud.AWS,
            rules=tuple(_once(rules[key])),
            origin=group.place.origin,
        )


def _aws_rules(
    gathered: Gathered, allowances: Iterable[AwsPermission], around: Surroundings
) -> dict[str, list[SecurityGroupRule]]:
    """Return the rules of each group."""
    rules: dict[str, list[SecurityGroupRule]] = defaultdict(list)
    for allowance in allowances:
        if allowance.security_group_id not in gathered.aws_groups:
            _note_orphan(gathered, allowance)
            continue
        rule = allow(allowance, around, gathered.notes)
        if rule is not None:
            rules[allowance.security_group_id].append(rule)
    return rules


def _without_id(rule: SecurityGroupRule) -> SecurityGroupRule:
    """Return a rule as an answer without ids tells it."""
    return replace(rule, rule_id="")


def _note_orphan(gathered: Gathered, allowance: AwsPermission) -> None:
    message = "a rule of a group that is not in what was read"
    gathered.notes.add(ImportEffect.LEFT_OUT, allowance.origin, allowance.security_group_id, message)


def _once(rules: Iterable[SecurityGroupRule]) -> list[SecurityGroupRule]:
    """Return each rule once, where it stood first: a state tells some twice, only once with their ids."""
    found: dict[SecurityGroupRule, SecurityGroupRule] = {}
    for rule in rules:
        same = _without_id(rule)
        if same not in found or not found[same].rule_id:
            found[same] = rule
    return list(found.values())


def _alibaba_groups(gathered: Gathered, around: Surroundings) -> Iterator[SecurityGroup]:
    """Go through the groups of Alibaba Cloud, which are ours already."""
    rules: dict[str, list[SecurityGroupRule]] = {key: [] for key in gathered.groups}
    for key, rule in gathered.rules:
        if key in rules:
            rules[key].append(rule)
            _note_unknown(gathered, key, rule, around)
        else:
            message = "a rule of a group that is not in what was read"
            gathered.notes.add(ImportEffect.LEFT_OUT, rule.origin, key, message)
    for key, group in gathered.groups.items():
        yield replace(group, rules=tuple(_once(rules[key])))


def _note_unknown(gathered: Gathered, key: str, rule: SecurityGroupRule, around: Surroundings) -> None:
    """Note an accept rule whose object or port list is unknown; in a drop rule that is an error (§5.3)."""
    if rule.policy is Policy.DROP:
        return
    missing = what_is_missing(rule.authorization_object, key, around)
    if missing is None and isinstance(rule.ports, PortListReference):
        missing = f"the port list {rule.ports} is not in what was read"
    if missing is not None:
        message = f"{missing}; the rule matches nothing until it is defined"
        gathered.notes.add(ImportEffect.NARROWED, rule.origin, key, message)


def _prefix_lists(gathered: Gathered) -> Iterator[PrefixList]:
    """Go through the prefix lists whose entries were read."""
    for key, draft in gathered.prefix_lists.items():
        if draft.delivered is None:
            message = (
                "its entries were not given (get-managed-prefix-list-entries, in a file named after the list)"
            )
            gathered.notes.add(ImportEffect.LEFT_OUT, draft.place.origin, key, message)
            continue
        family = draft.family or next((entry.family for entry in draft.entries), Family.IPV4)
        own = [entry for entry in draft.entries if entry.family is family]
        if len(own) < len(draft.entries):
            message = f"without its entries that are not {family.value}: a native list has one family"
            gathered.notes.add(ImportEffect.NARROWED, draft.place.origin, key, message)
        yield PrefixList(prefix_list_id=key, family=family, entries=in_order(own), origin=draft.place.origin)


def _interfaces(gathered: Gathered) -> Iterator[NetworkInterface]:
    """Go through the interfaces in the order of their ids, with all groups that are attached to them."""
    beside: dict[str, set[str]] = {}
    for place, key, group in gathered.attachments:
        beside.setdefault(key, set()).add(group)
        if key not in gathered.interfaces:
            message = f"{group} is attached to {key}, which is not in what was read"
            gathered.notes.add(ImportEffect.LEFT_OUT, place.origin, place.reading.subject or key, message)
    for key in sorted(gathered.interfaces):
        told = gathered.interfaces[key]
        attached = sorted({*told.interface.security_group_ids, *beside.get(key, ())})
        _check_member(gathered, told, attached)
        yield replace(told.interface, security_group_ids=tuple(_known(gathered, told, attached)))


def _check_member(gathered: Gathered, told: GatheredInterface, attached: list[str]) -> None:
    """Note what an interface without groups or without addresses loses."""
    if not attached and told.cloud is Cloud.ALIBABA:
        told.place.error("missing_groups", "the interface has no security group", "the groups that it has")
    elif not attached:
        key = told.interface.network_interface_id
        message = "it has no security group; everything is dropped"
        gathered.notes.add(
            ImportEffect.NARROWED, told.place.origin, told.place.reading.subject or key, message
        )
    families = {block.family for block in told.interface.addresses}
    if not families or (told.cloud is Cloud.ALIBABA and Family.IPV4 not in families):
        groups, reason = frozenset(attached) or None, "its primary address is missing"
        gathered.lost.append(LostMember(told.place, reason, groups, effect=ImportEffect.NARROWED))


def _unread(gathered: Gathered) -> Iterator[LostMember]:
    """Go through the resources that are not read, as far as they have to do with groups."""
    known = gathered.aws_groups.keys() | gathered.groups.keys()
    for one in gathered.unread:
        groups = one.names & known
        if groups:
            yield LostMember(one.place, f"{one.reason}; it names {', '.join(sorted(groups))}", groups)
        elif one.is_related:
            yield LostMember(one.place, one.reason, groups)


def _tell_of_lost(gathered: Gathered, member: LostMember) -> None:
    """Note a member whose addresses are lost; an error where a drop rule would miss it."""
    for _, rule in gathered.rules:
        match rule.policy, rule.authorization_object:
            case Policy.DROP, GroupReference(group) if member.groups is None or group in member.groups:
                message = (
                    f"{member.reason}, so that the drop rule at {rule.origin} would miss members of {group}"
                )
                member.place.error("lost_member", message, "what tells the interface with its addresses")
                return
    subject = member.place.reading.subject or member.network_interface_id or "an interface"
    gathered.notes.add(member.effect, member.place.origin, subject, member.reason)


def _known(gathered: Gathered, told: GatheredInterface, attached: list[str]) -> Iterator[str]:
    """Go through the attached groups that were read; others can only be left out if they never drop."""
    key = told.interface.network_interface_id
    for group in attached:
        if group in gathered.aws_groups or group in gathered.groups:
            yield group
        elif told.cloud is Cloud.AWS:
            message = f"attached to {group}, which is not in what was read; what it allows is dropped"
            gathered.notes.add(ImportEffect.NARROWED, told.place.origin, key, message)
        else:
            message = f"{key} has {group}, which is not in what was read"
            told.place.error("dangling_attachment", message, "the file that holds the group as well")
