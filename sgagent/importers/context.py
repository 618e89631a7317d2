"""Import context: the objects of all files, and their merge into one snapshot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from sgagent.core import model
from sgagent.core.errors import DocumentError, Origin, Problem
from sgagent.documents import DocumentFile, Limits
from sgagent.documents.field import Field, Reading
from sgagent.documents.parse import read_tree
from sgagent.documents.problems import Budget, Findings, OverBudgetError
from sgagent.documents.values import in_order
from sgagent.importers.aws_rules import (
    AwsPermission,
    ImportEffect,
    Note,
    Notes,
    Surroundings,
    allow,
    what_is_missing,
)

AWS_GROUP = model.SecurityGroup(
    security_group_id="",
    group_type=model.GroupType.ADVANCED,
    inner_access_policy=model.Policy.DROP,
    cloud=model.Cloud.AWS,
)
"""What AWS groups have in common: they are advanced groups, which have the same defaults.

Both admit only traffic that a rule of one of the interface's groups accepts, in either direction. Neither has
implicit access between members (§3.4, §3.6).
"""


@dataclass(frozen=True, slots=True)
class GatheredGroup:
    """A group without its rules, with the place of its definition."""

    place: Field
    group: model.SecurityGroup


@dataclass(frozen=True, slots=True)
class GatheredInterface:
    """An interface with the place of its definition."""

    place: Field
    interface: model.NetworkInterface
    cloud: model.Cloud


@dataclass(frozen=True, slots=True)
class LostMember:
    """A resource that adds an interface with unknown addresses to groups."""

    place: Field
    reason: str
    groups: frozenset[str] | None
    """None if the groups are unknown."""

    network_interface_id: str | None = None
    """The member is not lost if another resource defines an interface with this id."""

    effect: ImportEffect = ImportEffect.LEFT_OUT


@dataclass(frozen=True, slots=True)
class UnreadResource:
    """A resource of a type that no importer reads."""

    place: Field
    reason: str
    names: frozenset[str]
    """Every text in it that looks like a group id."""

    is_related: bool
    """Whether the import notes it even if it names no imported group."""


@dataclass(frozen=True, slots=True)
class NumberedRules:
    """The rules of an AWS group from a separate answer, one by one and with their ids."""

    answer: Field
    allowances: list[AwsPermission] = field(default_factory=list)


@dataclass(slots=True)
class PrefixListDraft:
    """A prefix list that later resources may complete."""

    place: Field
    family: model.Family | None = None
    entries: list[model.CidrBlock] = field(default_factory=list)
    delivered: Field | None = None
    """The place of its entries; None leaves the list undefined."""

    def deliver(self, place: Field, entries: Iterable[model.CidrBlock]) -> None:
        """Set the entries; add an error if an earlier definition has different ones."""
        delivered = list(entries)
        if self.delivered is None:
            self.entries += delivered
            self.delivered = place
        elif set(delivered) != set(self.entries):
            message = f"the list has other entries in {self.delivered.origin}"
            place.error("duplicate_id", message, "one of the two")


@dataclass(slots=True)
class Gathered:
    """The objects of all files read so far."""

    notes: Notes = field(default_factory=Notes)
    groups: dict[str, GatheredGroup] = field(default_factory=dict)
    allowances: list[AwsPermission] = field(default_factory=list)
    numbered: dict[str, NumberedRules] = field(default_factory=dict)
    """Rules of AWS groups from separate answers, by group id."""

    rules: list[tuple[str, model.SecurityGroupRule]] = field(default_factory=list)
    """Rules of Alibaba Cloud with the id of their group."""

    interfaces: dict[str, GatheredInterface] = field(default_factory=dict)
    attachments: list[tuple[Field, str, str]] = field(default_factory=list)
    """Place, interface id and group id of each attachment that a resource of its own defines."""

    lost: list[LostMember] = field(default_factory=list)
    unread: list[UnreadResource] = field(default_factory=list)

    prefix_lists: dict[str, PrefixListDraft] = field(default_factory=dict)

    def groups_of(self, cloud: model.Cloud) -> dict[str, GatheredGroup]:
        """Return the groups of a cloud."""
        return {key: found for key, found in self.groups.items() if found.group.cloud is cloud}

    def add_group(self, place: Field, group: model.SecurityGroup) -> None:
        """Add a group; add an error if its id is taken."""
        added = GatheredGroup(place, group)
        first = self.groups.setdefault(group.security_group_id, added)
        if first is not added:
            place.error("duplicate_id", f"the same group as {first.place.origin}", "one of the two")

    def add_interface(
        self, place: Field, interface: model.NetworkInterface, cloud: model.Cloud, *, is_partial: bool = False
    ) -> None:
        """Add an interface; add an error if an earlier definition, such as that of an instance, differs.

        Args:
            place: the place of the definition.
            interface: the interface.
            cloud: the cloud that it belongs to.
            is_partial: whether another resource may define further addresses of it.
        """
        added = GatheredInterface(place, interface, cloud)
        first = self.interfaces.setdefault(interface.network_interface_id, added)
        if first is added or first.interface == interface:
            return
        merged = _merged(first.interface, interface) if is_partial else None
        if merged is None:
            message = f"{interface.network_interface_id} differs from its definition in {first.place.origin}"
            place.error("duplicate_id", message, "one of the two, or both as they are now")
        else:
            self.interfaces[interface.network_interface_id] = GatheredInterface(first.place, merged, cloud)

    def prefix_list(self, prefix_list_id: str, place: Field) -> PrefixListDraft:
        """Return the draft of a prefix list; create it if needed."""
        return self.prefix_lists.setdefault(prefix_list_id, PrefixListDraft(place))

    def defined_prefix_list(self, prefix_list_id: str, place: Field) -> PrefixListDraft:
        """Return the draft of a prefix list that is defined here; add an error if it was before."""
        draft = self.prefix_list(prefix_list_id, place)
        if draft.delivered is not None:
            message = f"{prefix_list_id} is defined twice, first in {draft.delivered.origin}"
            place.error("duplicate_id", message, "one of the two")
        draft.delivered = place
        return draft


def _merged(one: model.NetworkInterface, other: model.NetworkInterface) -> model.NetworkInterface | None:
    """Return the merge of two definitions of one interface; None if they contradict each other."""
    fields = ("mac_address", "vpc_id", "instance_id", "security_group_ids")
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in fields}
    if any(first and second and first != second for first, second in pairs.values()):
        return None
    addresses = tuple(dict.fromkeys((*one.addresses, *other.addresses)))
    return replace(
        one, addresses=addresses, **{name: first or second for name, (first, second) in pairs.items()}
    )


def settle(gathered: Gathered) -> model.Snapshot:
    """Return the snapshot of all objects; add notes and errors for its losses."""
    prefix_lists = tuple(_prefix_lists(gathered))
    around = Surroundings(
        vpc_of_group={key: found.group.vpc_id for key, found in gathered.groups.items()},
        account_of_group={key: found.group.account_id for key, found in gathered.groups.items()},
        family_of_list={entry.prefix_list_id: entry.family for entry in prefix_lists},
    )
    groups = (*_aws_groups(gathered, around), *_alibaba_groups(gathered, around))
    interfaces = tuple(_interfaces(gathered))
    for member in (*gathered.lost, *_unread(gathered)):
        if member.network_interface_id not in gathered.interfaces:
            _note_lost_member(gathered, member)
    return model.Snapshot(
        version="",
        security_groups=tuple(sorted(groups, key=lambda group: group.security_group_id)),
        prefix_lists=tuple(sorted(prefix_lists, key=lambda entry: entry.prefix_list_id)),
        network_interfaces=interfaces,
    )


def _aws_groups(gathered: Gathered, around: Surroundings) -> Iterator[model.SecurityGroup]:
    """Yield the AWS groups with their rules."""
    groups = gathered.groups_of(model.Cloud.AWS)
    rules = _aws_rules(gathered, gathered.allowances, around)
    for key, numbered in gathered.numbered.items():
        again = _aws_rules(gathered, numbered.allowances, around)[key]
        own = rules[key] if key in groups else ()
        if own and set(map(_without_id, rules[key])) != set(map(_without_id, again)):
            message = f"{key} has other rules in {numbered.answer.origin}"
            groups[key].place.error("contradiction", message, "answers of one time, with all rules")
        rules[key] += again
    for key, found in groups.items():
        yield replace(found.group, rules=tuple(_once(rules[key])))


def _aws_rules(
    gathered: Gathered, allowances: Iterable[AwsPermission], around: Surroundings
) -> dict[str, list[model.SecurityGroupRule]]:
    """Return the rules of each group."""
    rules: dict[str, list[model.SecurityGroupRule]] = defaultdict(list)
    groups = gathered.groups_of(model.Cloud.AWS)
    for allowance in allowances:
        key = allowance.security_group_id
        if key not in groups:
            gathered.notes.add(ImportEffect.LEFT_OUT, allowance.origin, key, _OF_NO_GROUP)
        elif rule := allow(allowance, around, gathered.notes):
            rules[key].append(rule)
    return rules


_OF_NO_GROUP = "a rule of a group that is not in what was read"


def _without_id(rule: model.SecurityGroupRule) -> model.SecurityGroupRule:
    """Return a rule as an answer without rule ids contains it."""
    return replace(rule, rule_id="")


def _once(rules: Iterable[model.SecurityGroupRule]) -> list[model.SecurityGroupRule]:
    """Return each rule once, in the order of first occurrence, preferring the copy with an id.

    A Terraform state may hold a rule twice and its id only once.
    """
    found: dict[model.SecurityGroupRule, model.SecurityGroupRule] = {}
    for rule in rules:
        same = _without_id(rule)
        if same not in found or not found[same].rule_id:
            found[same] = rule
    return list(found.values())


def _alibaba_groups(gathered: Gathered, around: Surroundings) -> Iterator[model.SecurityGroup]:
    """Yield the groups of Alibaba Cloud, which need no translation."""
    groups = gathered.groups_of(model.Cloud.ALIBABA)
    rules: dict[str, list[model.SecurityGroupRule]] = {key: [] for key in groups}
    for key, rule in gathered.rules:
        if key in rules:
            rules[key].append(rule)
            _note_unknown(gathered, key, rule, around)
        else:
            gathered.notes.add(ImportEffect.LEFT_OUT, rule.origin, key, _OF_NO_GROUP)
    for key, found in groups.items():
        yield replace(found.group, rules=tuple(_once(rules[key])))


def _note_unknown(gathered: Gathered, key: str, rule: model.SecurityGroupRule, around: Surroundings) -> None:
    """Add a note on an accept rule with an unknown object or port list; drop rules are refused (§5.3)."""
    if rule.policy is model.Policy.DROP:
        return
    (peer,) = rule.authorization_objects  # the clouds' rules have one
    missing = what_is_missing(peer, key, around)
    if missing is None and isinstance(rule.ports, model.PortListReference):
        missing = f"the port list {rule.ports} is not in what was read"
    if missing is not None:
        message = f"{missing}; the rule matches nothing until it is defined"
        gathered.notes.add(ImportEffect.NARROWED, rule.origin, key, message)


def _prefix_lists(gathered: Gathered) -> Iterator[model.PrefixList]:
    """Yield the prefix lists with entries; add notes on the others."""
    for key, draft in gathered.prefix_lists.items():
        if draft.delivered is None:
            call = "get-managed-prefix-list-entries"
            message = f"its entries were not given ({call}, in a file named after the list)"
            gathered.notes.add(ImportEffect.LEFT_OUT, draft.place.origin, key, message)
            continue
        family = draft.family or next((entry.family for entry in draft.entries), model.Family.IPV4)
        own = [entry for entry in draft.entries if entry.family is family]
        if len(own) < len(draft.entries):
            message = f"without its entries that are not {family.value}: a native list has one family"
            gathered.notes.add(ImportEffect.NARROWED, draft.place.origin, key, message)
        yield model.PrefixList(
            prefix_list_id=key, family=family, entries=in_order(own), origin=draft.place.origin
        )


def _interfaces(gathered: Gathered) -> Iterator[model.NetworkInterface]:
    """Yield the interfaces sorted by id, with all attached groups."""
    beside: dict[str, set[str]] = {}
    for place, key, group in gathered.attachments:
        beside.setdefault(key, set()).add(group)
        if key not in gathered.interfaces:
            message = f"{group} is attached to {key}, which is not in what was read"
            gathered.notes.add(ImportEffect.LEFT_OUT, place.origin, place.reading.subject or key, message)
    for key in sorted(gathered.interfaces):
        member = gathered.interfaces[key]
        attached = sorted({*member.interface.security_group_ids, *beside.get(key, ())})
        _check_member(gathered, member, attached)
        yield replace(member.interface, security_group_ids=tuple(_known(gathered, member, attached)))


def _check_member(gathered: Gathered, member: GatheredInterface, attached: list[str]) -> None:
    """Add notes and errors for an interface without groups or without its primary address."""
    place, interface = member.place, member.interface
    if not attached and member.cloud is model.Cloud.ALIBABA:
        place.error("missing_groups", "the interface has no security group", "the groups that it has")
    elif not attached:
        subject = place.reading.subject or interface.network_interface_id
        message = "it has no security group; everything is dropped"
        gathered.notes.add(ImportEffect.NARROWED, place.origin, subject, message)
    families = {block.family for block in interface.addresses}
    if not families or (member.cloud is model.Cloud.ALIBABA and model.Family.IPV4 not in families):
        groups, reason = frozenset(attached) or None, "its primary address is missing"
        gathered.lost.append(LostMember(place, reason, groups, effect=ImportEffect.NARROWED))


def _unread(gathered: Gathered) -> Iterator[LostMember]:
    """Yield the unread resources that concern groups."""
    for one in gathered.unread:
        groups = one.names & gathered.groups.keys()
        if groups:
            yield LostMember(one.place, f"{one.reason}; it names {', '.join(sorted(groups))}", groups)
        elif one.is_related:
            yield LostMember(one.place, one.reason, groups)


def _note_lost_member(gathered: Gathered, member: LostMember) -> None:
    """Add a note on a member with unknown addresses; an error if a drop rule would miss it."""
    groups = member.groups
    for _, rule in gathered.rules:
        match rule.policy, rule.authorization_objects:
            case model.Policy.DROP, (model.GroupReference(key),) if groups is None or key in groups:
                missed = f"the drop rule at {rule.origin} would miss members of {key}"
                remedy = "the file that defines the interface's addresses"
                member.place.error("lost_member", f"{member.reason}, so that {missed}", remedy)
                return
    subject = member.place.reading.subject or member.network_interface_id or "an interface"
    gathered.notes.add(member.effect, member.place.origin, subject, member.reason)


def _known(gathered: Gathered, member: GatheredInterface, attached: list[str]) -> Iterator[str]:
    """Yield the attached groups that were read.

    An unread AWS group is left out with a note, because its rules never drop. Any other is an error.
    """
    key = member.interface.network_interface_id
    for group in attached:
        if group in gathered.groups:
            yield group
        elif member.cloud is model.Cloud.AWS:
            message = f"attached to {group}, which is not in what was read; what it allows is dropped"
            gathered.notes.add(ImportEffect.NARROWED, member.place.origin, key, message)
        else:
            message = f"{key} has {group}, which is not in what was read"
            member.place.error("dangling_attachment", message, "the file that holds the group as well")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The result of an import."""

    snapshot: model.Snapshot
    """Native definitions; rules without an id have an empty one, and the version is empty."""

    notes: tuple[Note, ...] = ()
    """Differences from the imported definitions."""

    problems: tuple[Problem, ...] = ()
    """Warnings about the syntax and schema of the files."""


def import_files(
    files: Sequence[DocumentFile], limits: Limits, read: Callable[[Field, Gathered], None]
) -> Imported:
    """Return the definitions of all files.

    Args:
        files: all files; one may complete another.
        limits: the largest accepted files.
        read: adds the objects of a file's root value.

    Raises:
        DocumentError: a file has errors, or no file has anything to import; it holds all errors.
    """
    findings, gathered = Findings(limits.problems), Gathered()
    budget = Budget(limits=limits)
    try:
        for file in files:
            reading = Reading(file=file.name, findings=findings, budget=budget)
            root = read_tree(file, reading, "see docs/import.md for what is read")
            if root is not None:
                read(root, gathered)
    except OverBudgetError:
        raise DocumentError(findings.all()) from None
    snapshot = settle(gathered)
    if not findings.has_errors and not (snapshot.security_groups or snapshot.prefix_lists):
        origin = Origin(file=", ".join(file.name for file in files))
        remedy = "see docs/import.md for what is read"
        findings.add(Problem.error(origin, "nothing_to_import", None, "no security group in it", remedy))
    if findings.has_errors:
        raise DocumentError(findings.all())
    return Imported(snapshot=snapshot, notes=tuple(gathered.notes), problems=findings.all())
