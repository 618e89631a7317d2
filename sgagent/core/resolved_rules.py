"""Resolve the rules of a group: references become addresses and ports (§5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

from sgagent.core.addresses import NO_ADDRESSES, AddressSet, joined
from sgagent.core.cloud_limits import object_warnings
from sgagent.core.conditions import NO_HOST, Local, LocalFinder, LocalUnit
from sgagent.core.errors import Problem
from sgagent.core.members import is_of_account, whose_group
from sgagent.core.memo import Memo
from sgagent.core.model import (
    NO_PORTS,
    AuthorizationObject,
    CidrBlock,
    GroupReference,
    GroupType,
    NameReference,
    Policy,
    PortListReference,
    PortSet,
    PrefixListReference,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.core.policy import (
    Peer,
    ResolvedRule,
    precedence,
)
from sgagent.core.rule_values import objects_text

UNRESOLVED_NAME = "unresolved_name"
OF_UNKNOWN_USERS = ("unknown_user", "unknown_user_in_drop", "unknown_unit", "unknown_unit_in_drop")
OF_UNKNOWN_OBJECTS = ("unknown_object", "unknown_object_in_drop", UNRESOLVED_NAME, *OF_UNKNOWN_USERS)
"""The codes of problems with references to what is not known."""

KnownNames = Mapping[str, AddressSet]
"""The addresses of each name that the DNS has ever answered for; of a name that has none, an empty set."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A resolved rule, and its problems."""

    rule: ResolvedRule
    precedence: tuple[int, bool, str, str]
    """Of the rule."""

    problems: tuple[Problem, ...]
    names_group: bool
    """Whether a group is among its objects."""

    reached: tuple[str, ...]
    """The ids of the groups that it refers to and that are in the definitions."""

    dns_names: tuple[str, ...] = ()
    """The names among its objects."""


@dataclass(frozen=True)
class ResolvedRules:
    """The resolved rules of a group."""

    found: tuple[Resolved, ...] = ()
    """In the order of rule ids."""

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """Return the problems of the rules."""
        return tuple(chain.from_iterable(map(attrgetter("problems"), self.found)))

    @cached_property
    def group_objects(self) -> int:
        """Return how many rules have a group among their objects."""
        return sum(map(attrgetter("names_group"), self.found))

    @cached_property
    def reached(self) -> frozenset[str]:
        """Return the groups that the rules refer to and that are in the definitions."""
        return frozenset(chain.from_iterable(map(attrgetter("reached"), self.found)))

    @cached_property
    def dns_names(self) -> frozenset[str]:
        """Return the names among the objects of the rules."""
        return frozenset(chain.from_iterable(map(attrgetter("dns_names"), self.found)))

    @cached_property
    def rule_by_id(self) -> Mapping[str, ResolvedRule]:
        """Return the resolved rules by their ids."""
        return {one.rule.rule_id: one.rule for one in self.found}


@dataclass(frozen=True, slots=True)
class _ReferredGroup:
    """All of a group that rules which refer to it depend on."""

    members: AddressSet
    account_id: str | None
    vpc_id: str | None
    group_type: GroupType


class RuleResolver:
    """Resolve the rules of the groups of one snapshot."""

    def __init__(
        self,
        snapshot: Snapshot,
        members: Mapping[str, AddressSet],
        names: KnownNames | None,
        memo: Memo,
        find_local: LocalFinder = NO_HOST,
    ) -> None:
        """Take the definitions.

        Args:
            snapshot: all objects.
            members: of each group.
            names: what the DNS says; None where nobody asked it, which is no problem of the rules.
            memo: of the groups and names that rules referred to before.
            find_local: looks up the host's users and units.
        """
        self._snapshot = snapshot
        self._is_dns_asked = names is not None
        self._names = memo.update("names", partial(_known_if_equal, names or {}))
        self._peers: dict[str, Peer] = {}
        self._unions: dict[tuple[tuple[str, int], ...], Peer] = {}
        groups = {
            name: _ReferredGroup(members[name], group.account_id, group.vpc_id, group.group_type)
            for name, group in snapshot.group_by_id.items()
        }
        self._find_local = find_local
        self._locals: dict[Local, Local] = {}
        self._former_locals: dict[Local, Local] = memo.get("locals", (), dict)
        self._groups: Mapping[str, _ReferredGroup] = memo.update(
            "referred groups", partial(_known_if_equal, groups)
        )

    def resolve(self, group: SecurityGroup, memo: Memo) -> ResolvedRules:
        """Resolve the rules of a group.

        Args:
            group: whose rules to resolve.
            memo: of this group as it is, its rules apart.
        """
        return memo.update("rules", lambda before: self._resolve(group, memo, before))

    def _resolve(self, group: SecurityGroup, memo: Memo, before: ResolvedRules | None) -> ResolvedRules:
        """Resolve the rules that have changed, or whose objects have."""

        def resolve(rule: SecurityGroupRule, *_objects: object) -> Resolved:
            found = self._resolved(group, rule)
            known = before.rule_by_id.get(rule.rule_id) if before is not None else None
            return replace(found, rule=known) if known == found.rule else found

        found = memo.each("each rule", resolve, group.rules, *self._objects(group.rules, memo))
        return before if before is not None and before.found is found else ResolvedRules(found)

    def _objects(self, rules: Sequence[SecurityGroupRule], memo: Memo) -> tuple[list[object], ...]:
        """Return the object or objects of each rule, port list and local end; None where it has none."""
        referred = [tuple(map(self._referred, rule.authorization_objects)) for rule in rules]
        several = (one for one in referred if len(one) > 1)
        known = memo.update("several objects", partial(_known_if_same, several))
        objects = [known[_identities(one)] if len(one) > 1 else one[0] for one in referred]
        port_lists = self._snapshot.port_list_by_id
        referred_ports: list[object] = [
            port_lists.get(ports.port_list_id) if isinstance(ports, PortListReference) else None
            for ports in (rule.ports for rule in rules)
        ]
        return objects, referred_ports, [self._local(rule) for rule in rules]

    def _local(self, rule: SecurityGroupRule) -> Local | None:
        """Return the user or unit of a rule, as the host knows it; equal ones are one object."""
        local = rule.conditions.local
        if local is None:
            return None
        if local not in self._locals:
            found, former = self._find_local(local), self._former_locals.get(local)
            self._locals[local] = self._former_locals[local] = former if former == found else found
        return self._locals[local]

    def _referred(self, named: AuthorizationObject) -> object:
        """Return the referent of an object; None if it has none, or it is not in the definitions."""
        if isinstance(named, CidrBlock):
            return None
        if isinstance(named, GroupReference):
            return self._groups.get(named.security_group_id)
        if isinstance(named, NameReference):
            return self._names.get(named.name)
        return self._snapshot.prefix_list_by_id.get(named.prefix_list_id)

    def _resolved(self, group: SecurityGroup, rule: SecurityGroupRule) -> Resolved:
        problems: list[Problem] = []
        local = self._local(rule)
        is_unknown = local is not None and not local.is_known
        problems += _unknown_local(rule, local)
        values: dict[str, Any] = dict(zip(_COMPARED, _compared_of(rule), strict=True))
        ports = self._ports(rule, problems)
        values["ports"] = NO_PORTS if is_unknown else ports
        values["source_ports"] = _merged(rule.source_ports)
        if local:
            values["conditions"] = replace(rule.conditions, local=local)
        peer = self._peer(group, rule, problems)
        resolved = ResolvedRule(security_group_id=group.security_group_id, peer=peer, **values)
        references = [one for one in rule.authorization_objects if isinstance(one, GroupReference)]
        return Resolved(
            rule=resolved,
            precedence=precedence(resolved),
            problems=tuple(problems),
            names_group=bool(references),
            reached=tuple(one.security_group_id for one in references if self._group(group, one)),
            dns_names=tuple(one.name for one in rule.authorization_objects if isinstance(one, NameReference)),
        )

    def _ports(self, rule: SecurityGroupRule, problems: list[Problem]) -> PortSet:
        """Return the destination ports; an unknown port list is an unknown object (§5.3)."""
        if not isinstance(rule.ports, PortListReference):
            return _merged(rule.ports)
        port_list = self._snapshot.port_list_by_id.get(rule.ports.port_list_id)
        if port_list is None:
            problems.append(_unknown(rule, rule.ports.port_list_id, "port_list_id", "port list"))
            return NO_PORTS
        return _merged(port_list.entries)

    def _peer(self, group: SecurityGroup, rule: SecurityGroupRule, problems: list[Problem]) -> Peer:
        """Return the addresses that the rule's objects stand for; none for those that are unknown (§5.3)."""
        problems.extend(self._family_errors(rule))
        peers = tuple(self._of_one(group, rule, one, problems) for one in rule.authorization_objects)
        if len(peers) == 1:
            return peers[0]
        key = tuple((peer.name, id(peer.addresses)) for peer in peers)
        if key not in self._unions:
            self._unions[key] = Peer(
                name=objects_text(rule.authorization_objects),
                addresses=NO_ADDRESSES.union(*(peer.addresses for peer in peers)),
                parts=peers,
                is_dynamic=any(peer.is_dynamic for peer in peers),
            )
        return self._unions[key]

    def _of_one(
        self, group: SecurityGroup, rule: SecurityGroupRule, one: AuthorizationObject, problems: list[Problem]
    ) -> Peer:
        """Return the addresses of one object of a rule; none where it is unknown."""
        name, addresses, is_dynamic = str(one), NO_ADDRESSES, False
        match one:
            case CidrBlock():
                return self._listed(name, (one,))
            case PrefixListReference():
                prefix_list = self._snapshot.prefix_list_by_id.get(name)
                if prefix_list is not None:
                    return self._listed(name, prefix_list.entries)
                problems.append(_unknown(rule, name, "authorization_object", "prefix list"))
            case GroupReference():
                addresses = self._group_members(group, rule, one, problems)
            case NameReference():
                if one.name not in self._names and self._is_dns_asked:
                    problems.append(_unresolved(rule, name))
                addresses, is_dynamic = self._names.get(one.name, NO_ADDRESSES), True
        return Peer(name=name, addresses=addresses, is_dynamic=is_dynamic)

    def _listed(self, name: str, blocks: Iterable[CidrBlock]) -> Peer:
        if name not in self._peers:
            self._peers[name] = Peer(name=name, addresses=AddressSet.of(blocks))
        return self._peers[name]

    def _family_errors(self, rule: SecurityGroupRule) -> Iterator[Problem]:
        """Yield an error for each prefix list of a family that the rule can't have (§8.1, §12.1)."""
        known = {
            one: found.family
            for one in rule.authorization_objects
            if isinstance(one, PrefixListReference)
            and (found := self._snapshot.prefix_list_by_id.get(one.prefix_list_id))
        }
        if not known:
            return
        blocks = [one for one in rule.authorization_objects if isinstance(one, CidrBlock)]
        families = {None, *known.values(), *(block.family for block in blocks)}
        is_settled = len(known) + len(blocks) == len(rule.authorization_objects)
        wanted = [
            (protocol.only_family, "family_of_protocol", f"protocol {protocol}")
            for protocol in rule.protocols
            if is_settled and protocol.only_family not in families
        ]
        if rule.local_address:
            wanted.append((rule.local_address.family, "mixed_families", "local address"))
        origin = rule.origin.at("authorization_object")
        for family, code, whose in wanted:
            for reference, own in known.items():
                if family is not None and own is not family:
                    message = f"the list is of {own.value}, the rule's {whose} of {family.value}"
                    remedy = f"use a list of {family.value}"
                    yield Problem.error(origin, code, reference.prefix_list_id, message, remedy)

    def _group_members(
        self,
        group: SecurityGroup,
        rule: SecurityGroupRule,
        reference: GroupReference,
        problems: list[Problem],
    ) -> AddressSet:
        """Return the members of the group that is referred to (§5.2)."""
        name, found = str(reference), self._group(group, reference)
        if found is None:
            noun = "security group"
            other = self._snapshot.group_by_id.get(reference.security_group_id)
            if other is not None:
                owner = whose_group(group, reference)
                noun = f"security group of {owner} (that id is account {other.account_id}'s)"
            problems.append(_unknown(rule, name, "authorization_object", noun))
            return NO_ADDRESSES
        if found.vpc_id and group.vpc_id and found.vpc_id != group.vpc_id:
            message = f"the group belongs to {found.vpc_id}, the rule's own group to {group.vpc_id}"
            remedy = "use a CIDR: a group as object reaches only members in its own VPC"
            origin = rule.origin.at("authorization_object")
            problems.append(Problem.error(origin, "other_vpc", name, message, remedy))
            return NO_ADDRESSES
        problems.extend(object_warnings(group, rule, name, found))
        return self._groups[found.security_group_id].members

    def _group(self, own: SecurityGroup, reference: GroupReference) -> SecurityGroup | None:
        """Return the group that a rule of a group refers to; None if it is not in the definitions."""
        found = self._snapshot.group_by_id.get(reference.security_group_id)
        return found if found is not None and is_of_account(found, own, reference) else None


_COMPARED = tuple(field.name for field in fields(SecurityGroupRule) if field.compare)
_compared_of = attrgetter(*_COMPARED)


def _merged(ports: PortSet) -> PortSet:
    """Return the same ports as ranges that neither overlap nor touch."""
    return ports if len(ports.ranges) < 2 else replace(ports, ranges=joined(ports.ranges))


_Referred = TypeVar("_Referred", _ReferredGroup, AddressSet)


def _known_if_equal(
    groups: Mapping[str, _Referred], before: Mapping[str, _Referred] | None
) -> Mapping[str, _Referred]:
    """Return the groups or names; an equal one is the same object as before."""
    known = before or {}
    return {name: known[name] if known.get(name) == group else group for name, group in groups.items()}


def _known_if_same(several: Iterable[tuple[object, ...]], before: _Several | None) -> _Several:
    """Return tuples by their content; one of the same objects as an earlier one is that tuple."""
    known = before or {}
    found = ((_identities(one), one) for one in several)
    return {identities: known.get(identities, one) for identities, one in found}


_Several = Mapping[tuple[int, ...], tuple[object, ...]]
"""By the identities of the objects, which the tuples keep alive."""


def _identities(objects: tuple[object, ...]) -> tuple[int, ...]:
    return tuple(map(id, objects))


def _unknown(rule: SecurityGroupRule, name: str, where: str, noun: str) -> Problem:
    """Return that an object is unknown: ignoring it would open something if the rule drops (§5.3)."""
    origin = rule.origin.at(where)
    remedy = f"add the {noun} to the definitions, or correct the id"
    if rule.policy is Policy.DROP:
        message = f"the {noun} of this drop rule is not in the definitions, so it would drop nothing"
        return Problem.error(origin, "unknown_object_in_drop", name, message, remedy)
    subject = _what_is_void(rule) if where == "authorization_object" else "the rule"
    message = f"the {noun} is not in the definitions, so {subject} matches nothing"
    return Problem.warning(origin, "unknown_object", name, message, remedy)


def _unknown_local(rule: SecurityGroupRule, local: Local | None) -> Iterator[Problem]:
    """Yield that this host can't have such a user or unit (§5.3, §13.3); a unit may be there and not run."""
    if isinstance(local, LocalUnit):
        kind, absence, remedy = "unit", local.absence, "start or add it, or remove the rule"
    else:
        is_absent = local is not None and not local.is_known
        kind, absence = "user", "this host has no such user" if is_absent else None
        remedy = "add the user, or correct the name, or give an id"
    if local is None or absence is None:
        return
    origin = rule.origin.at("local").at(kind)
    if rule.policy is Policy.DROP:
        message = f"{absence}, so this drop rule would drop nothing"
        yield Problem.error(origin, f"unknown_{kind}_in_drop", local.name, message, remedy)
    else:
        message = f"{absence}, so the rule matches nothing"
        yield Problem.warning(origin, f"unknown_{kind}", local.name, message, remedy)


def _unresolved(rule: SecurityGroupRule, name: str) -> Problem:
    """Return that no name server has answered for a name, which is an unknown object (§12.3)."""
    message = f"no name server has answered for the name yet, so {_what_is_void(rule)} matches nothing"
    remedy = "check the spelling, and that this host's name servers answer"
    return Problem.warning(rule.origin.at("authorization_object"), UNRESOLVED_NAME, name, message, remedy)


def _what_is_void(rule: SecurityGroupRule) -> str:
    return "this object of the rule" if len(rule.authorization_objects) > 1 else "the rule"
