"""Resolution of a snapshot for a host: references become addresses, groups ordered rules (§3 to §5, §8)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sgagent.core.addresses import NO_ADDRESSES, AddressSet, joined
from sgagent.core.binding import Binding, Bindings
from sgagent.core.cloud_limits import group_warnings, interface_warnings, object_warnings, overlap_errors
from sgagent.core.errors import Origin, Problem, Severity
from sgagent.core.memo import Memory, Revised, changed_places, same_if_equal
from sgagent.core.model import (
    NO_PORTS,
    CidrBlock,
    Direction,
    GroupReference,
    Mode,
    Policy,
    PortListReference,
    PortSet,
    PrefixList,
    PrefixListReference,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.core.policy import (
    Exemption,
    Peer,
    ResolvedDirection,
    ResolvedInterface,
    ResolvedPolicy,
    ResolvedRule,
    is_of_account,
    members_by_group,
    whose_group,
)
from sgagent.core.resolved_rules import (
    NO_OBJECTS,
    Reference,
    Resolved,
    ResolvedRules,
    naming,
    objects_named,
    ordered,
)


class Scope(enum.Enum):
    """Whose errors of meaning refuse the snapshot (§8.3)."""

    HOST = "host"
    """Those in what a bound interface depends on; others are warnings."""

    EVERYTHING = "everything"
    """All; for ``check``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemptions:
    """The configuration's lists of what no group can block (§7.3, §7.4)."""

    platform: tuple[Exemption, ...] = ()
    failsafe: tuple[Exemption, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a snapshot comes to on this host, and what is wrong with it."""

    policy: ResolvedPolicy
    """Enforceable only if no problem is an error."""

    problems: tuple[Problem, ...] = ()
    unknown_objects: int = 0
    """Distinct authorization objects and port lists that bound interfaces refer to and the snapshot lacks."""

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Return the problems that refuse the snapshot."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)


def resolve(
    snapshot: Snapshot,
    bound: Bindings,
    exemptions: Exemptions,
    *,
    default_mode: Mode = Mode.ENFORCE,
    unbound_closed: bool = False,
    scope: Scope = Scope.HOST,
    memory: Memory | None = None,
) -> Resolution:
    """Return the policy for this host's interfaces, and all problems of the snapshot.

    Args:
        snapshot: the definitions.
        bound: which links are bound to which groups.
        exemptions: traffic that no group can block.
        default_mode: for bindings that name none.
        unbound_closed: whether links that nothing is bound to are closed (§9.3).
        scope: whose errors of meaning count as errors.
        memory: of what was resolved before, to spare work; the result is the same without.
    """
    concerned = frozenset(group for binding in bound.bindings for group in binding.security_group_ids)
    resolver = _Resolver(snapshot, concerned, scope, memory or Memory())
    resolver.problems.extend(bound.problems)
    interfaces = tuple(
        resolver.interface(binding, exemptions, binding.mode or default_mode) for binding in bound.bindings
    )
    resolver.check_groups()
    resolver.check_network_interfaces(bound)
    policy = ResolvedPolicy(
        interfaces=interfaces,
        unbound=closed_interface("*", exemptions, default_mode) if unbound_closed else None,
    )
    return Resolution(
        policy=policy, problems=tuple(resolver.problems), unknown_objects=len(resolver.unknown_objects)
    )


def resolved_members(snapshot: Snapshot, memory: Memory) -> dict[str, AddressSet]:
    """Return each group's members: the very same values as in what was resolved with the memory, if equal."""
    return members_by_group(snapshot, memory.part("members"))


def closed_interface(
    name: str, exemptions: Exemptions, mode: Mode, *, network_interface_id: str | None = None
) -> ResolvedInterface:
    """Return an interface that only steps 1 to 3 of §3 let anything through."""
    return ResolvedInterface(
        name=name,
        network_interface_id=network_interface_id,
        mode=mode,
        ingress=_closed_direction(Direction.INGRESS, exemptions),
        egress=_closed_direction(Direction.EGRESS, exemptions),
    )


def _closed_direction(direction: Direction, exemptions: Exemptions) -> ResolvedDirection:
    return ResolvedDirection(
        platform=tuple(entry for entry in exemptions.platform if entry.direction is direction),
        failsafe=tuple(entry for entry in exemptions.failsafe if entry.direction is direction),
    )


@dataclass
class _Resolver:
    """Resolve every rule at most once, however many interfaces its group is on, and keep the problems."""

    snapshot: Snapshot
    concerned: frozenset[str]
    """The groups on bound interfaces."""

    scope: Scope
    memory: Memory
    problems: list[Problem] = field(default_factory=list)
    unknown_objects: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    """The groups that rules of concerned groups refer to."""

    def __post_init__(self) -> None:
        self.memory.turn()
        self._members = resolved_members(self.snapshot, self.memory)
        self._rules: dict[str, ResolvedRules] = {}
        self._peers: dict[str, Peer] = {}

    def interface(self, binding: Binding, exemptions: Exemptions, mode: Mode) -> ResolvedInterface:
        """Return what is enforced on one link."""
        groups = self._attached_groups(binding)
        interface_id = binding.network_interface.network_interface_id if binding.network_interface else None
        closed = closed_interface(binding.interface, exemptions, mode, network_interface_id=interface_id)
        if not groups:
            return closed
        rules = tuple(self._resolved_rules(group) for group in groups)
        inner = NO_ADDRESSES
        for group in groups:
            if group.inner_access is Policy.ACCEPT:
                members = self._members[group.security_group_id]
                inner = self.memory.part("inner").recall((inner, members), partial(inner.union, members))
        group_type = groups[0].group_type
        memory = self.memory.part("direction", binding.interface)
        ingress, egress = (
            replace(
                closed.toward(direction),
                rules=ordered(rules, direction, memory),
                default=group_type.default(direction),
            )
            for direction in (Direction.INGRESS, Direction.EGRESS)
        )
        ingress = replace(ingress, inner=inner)
        return replace(
            closed,
            security_group_ids=tuple(group.security_group_id for group in groups),
            group_type=group_type,
            ingress=memory.part(Direction.INGRESS).revise(partial(same_if_equal, ingress)),
            egress=memory.part(Direction.EGRESS).revise(partial(same_if_equal, egress)),
        )

    def _attached_groups(self, binding: Binding) -> tuple[SecurityGroup, ...]:
        """Return the groups of a binding, sorted by id; those that are missing or don't fit are errors."""
        found = []
        for group_id in sorted(set(binding.security_group_ids)):
            group = self.snapshot.group_by_id.get(group_id)
            if group is None:
                message = (
                    "the security group is not in the definitions, so the interface can't be judged by it"
                )
                remedy = "add the group or detach it"
                self._error(binding.attached_at, "dangling_attachment", group_id, message, remedy)
            else:
                found.append(group)
        self._check_attachment(binding, found)
        self.problems.extend(interface_warnings(_named(binding), binding.origin, found))
        return tuple(found)

    def _check_attachment(self, binding: Binding, groups: list[SecurityGroup]) -> None:
        """Refuse groups of both types, and groups of another VPC, on one interface (§3, §8.1)."""
        types = sorted({group.group_type.value for group in groups})
        if len(types) > 1:
            message = f"interface {_named(binding)} has basic and advanced groups"
            value = ", ".join(f"{g.security_group_id} ({g.group_type.value})" for g in groups)
            remedy = "attach groups of one type only"
            self._error(binding.attached_at, "mixed_group_types", value, message, remedy)
        vpc_id = binding.network_interface.vpc_id if binding.network_interface else None
        for group in groups:
            if vpc_id and group.vpc_id and group.vpc_id != vpc_id:
                message = f"the group belongs to {group.vpc_id}, the interface to {vpc_id}"
                remedy = "attach groups of the interface's own VPC"
                self._error(binding.attached_at, "other_vpc", group.security_group_id, message, remedy)

    def check_groups(self) -> None:
        """Find what is wrong with every group, also those that no bound interface depends on."""
        for group in self.snapshot.security_groups:
            if not group.rules:
                continue
            self._resolved_rules(group)
            self.problems.extend(group_warnings(group, naming(group, self.memory).group_objects))

    def check_network_interfaces(self, bound: Bindings) -> None:
        """Find what is wrong with the interfaces that are not bound here, and with all of them together."""
        if self.scope is Scope.EVERYTHING:
            self.problems.extend(overlap_errors(self.snapshot.network_interfaces))
        here = {b.network_interface.network_interface_id for b in bound.bindings if b.network_interface}
        for interface in self.snapshot.network_interfaces:
            if interface.network_interface_id in here:
                continue
            self._attached_groups_elsewhere(
                Binding(
                    interface=interface.network_interface_id,
                    network_interface=interface,
                    security_group_ids=interface.security_group_ids,
                    mode=None,
                    origin=interface.origin,
                )
            )

    def _attached_groups_elsewhere(self, binding: Binding) -> None:
        """Say what is wrong with an attachment elsewhere.

        It is an error here too if it would make members of another VPC in a group that a bound interface
        depends on (§5.2).
        """
        before = len(self.problems)
        self._attached_groups(binding)
        if self.scope is Scope.HOST:
            depended = self.concerned | self.reached
            self.problems[before:] = [
                problem if problem.code == "other_vpc" and problem.value in depended else _as_warning(problem)
                for problem in self.problems[before:]
            ]

    def _resolved_rules(self, group: SecurityGroup) -> ResolvedRules:
        """Return the group's rules with references resolved; what is wrong with them is said once."""
        present = self._rules.get(group.security_group_id)
        if present is not None:
            return present
        is_concerned = group.security_group_id in self.concerned
        counts = is_concerned or self.scope is Scope.EVERYTHING
        rules = self._remembered_rules(group, counts=counts)
        self.problems.extend(rules.problems if counts else map(_as_warning, rules.problems))
        if counts:
            unknown = (p.value or "" for p in rules.problems if p.code in _OF_UNKNOWN_OBJECTS)
            self.unknown_objects.update(unknown)
        if is_concerned:
            self.reached.update(self._reached(group, rules))
        self._rules[group.security_group_id] = rules
        return rules

    def _remembered_rules(self, group: SecurityGroup, *, counts: bool) -> ResolvedRules:
        """Return the group's rules with references resolved, as far as possible as before."""
        if not group.rules:
            return _NO_RULES
        part = self.memory.part(
            group.security_group_id,
            group.group_type,
            group.inner_access_policy,
            group.cloud,
            group.vpc_id,
            group.account_id,
            counts,
        )
        rules: ResolvedRules = part.revise(partial(self._resolve_again, group))
        return rules

    def _reached(self, group: SecurityGroup, rules: ResolvedRules) -> Iterator[str]:
        """Yield the groups that a group's rules refer to and that there are."""
        for reference in rules.objects.by_reference:
            if isinstance(reference, GroupReference):
                found = self.snapshot.group_by_id.get(reference.security_group_id)
                if found is not None and is_of_account(found, group, reference):
                    yield found.security_group_id

    def _resolve_again(self, group: SecurityGroup, before: ResolvedRules | None) -> ResolvedRules:
        """Resolve the rules that are not what they were, or refer to what is not what it was."""
        named = naming(group, self.memory)
        objects = objects_named(named, self.snapshot, self._members, before.objects if before else None)
        if before is None:
            return ResolvedRules.of(group, objects, (self._resolved(group, rule) for rule in group.rules))
        changed = objects.changed_since(before.objects)
        if len(group.rules) != len(before.rules):
            again = self._resolve_some(group, before, changed, range(len(group.rules)))
            return ResolvedRules.of(group, objects, again.values())
        of_changed = {place for reference in changed for place in named.places[reference]}
        concerned = sorted(of_changed.union(changed_places(before.rules, group.rules)))
        if not concerned:  # what is named may have been written anew, but for nothing that rules depend on
            return before if objects is before.objects else replace(before, objects=objects)
        return before.but(group, objects, self._resolve_some(group, before, changed, concerned))

    def _resolve_some(
        self, group: SecurityGroup, before: ResolvedRules, changed: frozenset[Reference], some: Sequence[int]
    ) -> dict[int, Resolved]:
        """Resolve rules that may not be the same as before, by their places; one that only moved is.

        They are all of the rules, or some of as many as before.
        """
        olds = before.found if len(some) == len(group.rules) else [before.found[place] for place in some]
        known = {old.rule.rule_id: old for old in olds}
        found: dict[int, Resolved] = {}
        for place in some:
            rule = group.rules[place]
            old = known.get(rule.rule_id)
            is_same = old is not None and old.rule is rule and not (changed and old.refers_to(changed))
            found[place] = old if old and is_same else self._resolved(group, rule, old)
        return found

    def _resolved(
        self, group: SecurityGroup, rule: SecurityGroupRule, old: Resolved | None = None
    ) -> Resolved:
        """Return a rule with references resolved, the old one if it is equal, and what is wrong with it."""
        known = len(self.problems)
        made = self._resolved_rule(group, rule)
        problems = tuple(self.problems[known:])
        del self.problems[known:]
        return Resolved(rule, old.resolved if old and old.resolved == made else made, problems)

    def _resolved_rule(self, group: SecurityGroup, rule: SecurityGroupRule) -> ResolvedRule:
        return ResolvedRule(
            rule_id=rule.rule_id,
            security_group_id=group.security_group_id,
            policy=rule.policy,
            priority=rule.priority,
            protocol=rule.protocol,
            ports=self._ports(rule),
            source_ports=_merged(rule.source_ports),
            peer=self._peer(group, rule),
            local_address=rule.local_address,
        )

    def _ports(self, rule: SecurityGroupRule) -> PortSet:
        """Return the destination ports; an unknown port list is an unknown object (§5.3)."""
        if not isinstance(rule.ports, PortListReference):
            return _merged(rule.ports)
        port_list = self.snapshot.port_list_by_id.get(rule.ports.port_list_id)
        if port_list is None:
            self._unknown(rule, rule.ports.port_list_id, "port_list_id", "port list")
            return NO_PORTS
        return _merged(port_list.entries)

    def _peer(self, group: SecurityGroup, rule: SecurityGroupRule) -> Peer:
        """Return the addresses that the rule's object stands for; none if it is unknown (§5.3)."""
        match rule.authorization_object:
            case CidrBlock() as block:
                return self._named_peer(str(block), (block,))
            case PrefixListReference(prefix_list_id):
                return self._prefix_list(rule, prefix_list_id)
            case GroupReference() as reference:
                return self._group_members(group, rule, reference)

    def _named_peer(self, name: str, blocks: Iterable[CidrBlock]) -> Peer:
        present = self._peers.get(name)
        if present is None:
            present = self._peers[name] = Peer(name=name, addresses=AddressSet.of(blocks))
        return present

    def _prefix_list(self, rule: SecurityGroupRule, prefix_list_id: str) -> Peer:
        prefix_list = self.snapshot.prefix_list_by_id.get(prefix_list_id)
        if prefix_list is None:
            return self._unknown(rule, prefix_list_id, "authorization_object", "prefix list")
        self._check_family(rule, prefix_list)
        return self._named_peer(prefix_list_id, prefix_list.entries)

    def _check_family(self, rule: SecurityGroupRule, prefix_list: PrefixList) -> None:
        """Refuse a prefix list of a family that the rule can't have (§8.1)."""
        local = rule.local_address.family if rule.local_address else None
        for family, code, whose in (
            (rule.protocol.only_family, "family_of_protocol", f"protocol {rule.protocol}"),
            (local, "mixed_families", "local address"),
        ):
            if family is not None and family is not prefix_list.family:
                message = f"the list is of {prefix_list.family.value}, the rule's {whose} of {family.value}"
                origin = rule.origin.at("authorization_object")
                remedy = f"use a list of {family.value}"
                self._error(origin, code, prefix_list.prefix_list_id, message, remedy)

    def _group_members(
        self, group: SecurityGroup, rule: SecurityGroupRule, reference: GroupReference
    ) -> Peer:
        """Return the members of the group that is referred to (§5.2)."""
        origin = rule.origin.at("authorization_object")
        found = self.snapshot.group_by_id.get(reference.security_group_id)
        if found is not None and not is_of_account(found, group, reference):
            owner = whose_group(group, reference)
            noun = f"security group of {owner} (that id is account {found.account_id}'s)"
            return self._unknown(rule, str(reference), "authorization_object", noun)
        if found is None:
            return self._unknown(rule, str(reference), "authorization_object", "security group")
        if found.vpc_id and group.vpc_id and found.vpc_id != group.vpc_id:
            message = f"the group belongs to {found.vpc_id}, the rule's own group to {group.vpc_id}"
            remedy = "groups reach only members in the same VPC; use a CIDR"
            self._error(origin, "other_vpc", str(reference), message, remedy)
            return Peer(name=str(reference), addresses=NO_ADDRESSES)
        self.problems.extend(object_warnings(group, rule, found))
        return Peer(name=str(reference), addresses=self._members[found.security_group_id])

    def _unknown(self, rule: SecurityGroupRule, name: str, where: str, noun: str) -> Peer:
        """Say that an object is unknown: ignoring it would open something if the rule drops (§5.3)."""
        origin = rule.origin.at(where)
        remedy = f"add the {noun} to the definitions, or correct the id"
        if rule.policy is Policy.DROP:
            message = f"a drop rule refers to a {noun} that is not in the definitions"
            self._error(origin, "unknown_object_in_drop", name, message, remedy)
        else:
            message = f"the rule matches nothing, as the {noun} is not in the definitions"
            self._warn(origin, "unknown_object", name, message, remedy)
        return Peer(name=name, addresses=NO_ADDRESSES)

    def _error(self, origin: Origin, code: str, value: str, message: str, remedy: str) -> None:
        self.problems.append(
            Problem(
                severity=Severity.ERROR,
                code=code,
                origin=origin,
                value=value,
                message=message,
                remedy=remedy,
            )
        )

    def _warn(self, origin: Origin, code: str, value: str, message: str, remedy: str) -> None:
        self._error(origin, code, value, message, remedy)
        self.problems[-1] = _as_warning(self.problems[-1])


_NO_RULES = ResolvedRules((), NO_OBJECTS, Revised(), ())
_OF_UNKNOWN_OBJECTS = ("unknown_object", "unknown_object_in_drop")


def _merged(ports: PortSet) -> PortSet:
    """Return the same ports as ranges that neither overlap nor touch."""
    return ports if len(ports.ranges) < 2 else replace(ports, ranges=joined(ports.ranges))


def _as_warning(problem: Problem) -> Problem:
    return replace(problem, severity=Severity.WARNING)


def _named(binding: Binding) -> str:
    """Return what a person calls an interface: as the documents do, where they know it."""
    known = binding.network_interface
    return known.network_interface_id if known else binding.interface
