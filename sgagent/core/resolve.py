"""Resolution of a snapshot for a host: references become addresses, groups ordered rules (§3 to §5, §8)."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from operator import attrgetter

from sgagent.core.addresses import NO_ADDRESSES, AddressSet
from sgagent.core.binding import Binding, Bindings, Link, bind_everywhere, can_be_matched
from sgagent.core.cloud_limits import group_warnings, interface_warnings, overlap_errors
from sgagent.core.conditions import LocalFinder
from sgagent.core.errors import Problem, Severity
from sgagent.core.guardrails import Violation
from sgagent.core.link_patterns import LinkPattern
from sgagent.core.link_topology import VRF, link_problems, lower_devices, may_have_lower_devices, other_names
from sgagent.core.members import members_by_group
from sgagent.core.memo import Memo, Seam
from sgagent.core.model import Direction, Mode, NameReference, Policy, SecurityGroup, Snapshot, SourceCheck
from sgagent.core.policy import (
    UNIDENTIFIED,
    Exemption,
    ResolvedDirection,
    ResolvedInterface,
    ResolvedPattern,
    ResolvedPolicy,
    ResolvedRule,
)
from sgagent.core.resolved_rules import (
    OF_UNKNOWN_OBJECTS,
    OF_UNKNOWN_USERS,
    UNRESOLVED_NAME,
    KnownNames,
    ResolvedRules,
    RuleResolver,
)
from sgagent.core.rule_values import has_ended, is_timed


class Scope(enum.Enum):
    """Whose errors of meaning refuse the snapshot (§8.3)."""

    HOST = "host"
    """Those in what a bound interface depends on; others are warnings."""

    EVERYTHING = "everything"
    """All; for ``check``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemptions:
    """The configuration's lists of traffic that no group can block (§7.3, §7.4)."""

    platform: tuple[Exemption, ...] = ()
    failsafe: tuple[Exemption, ...] = ()
    name_servers: tuple[Exemption, ...] = ()
    """Fail-safe while a rule of a bound interface names a name (§12.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The policy of a snapshot on this host, and the snapshot's problems."""

    policy: ResolvedPolicy
    """Enforceable only if no problem is an error."""

    problems: tuple[Problem, ...] = ()
    unknown_objects: int = 0
    """Distinct authorization objects and port lists that bound interfaces refer to and the snapshot lacks."""

    depends_on_time: bool = False
    """Whether rules of bound interfaces expire, have ended, or have hours."""

    dns_names: frozenset[str] = frozenset()
    """The names that rules of bound interfaces name, or with everything in scope all rules (§12.3)."""

    violations: tuple[Violation, ...] = ()
    """Of guardrails, where these were asked for (§13.4)."""

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
    source_check: SourceCheck = SourceCheck.OFF,
    unbound_closed: bool = False,
    scope: Scope = Scope.HOST,
    at: datetime | None = None,
    names: KnownNames | None = None,
    memo: Memo | None = None,
) -> Resolution:
    """Return the policy for this host's interfaces, and all problems of the snapshot.

    Args:
        snapshot: the definitions.
        bound: which links are bound to which groups.
        exemptions: traffic that no group can block.
        default_mode: for bindings that name none.
        source_check: likewise.
        unbound_closed: whether links that nothing is bound to are closed (§9.3).
        scope: whose errors of meaning count as errors.
        at: the latest time that is known: rules that expired until then do not exist (§12.4). Without it
            none has ended.
        names: what the DNS says of names (§12.3); None where nobody asked.
        memo: of what was resolved before, to spare work; the result is the same without.
    """
    concerned = frozenset(group for binding in bound.all for group in binding.security_group_ids)
    resolver = _Resolver(snapshot, concerned, scope, at, names, bound.facts.find_local, memo or Memo())
    resolver.problems.extend((*bound.problems, *link_problems(bound)))
    bindings = [
        replace(one, mode=one.mode or default_mode, source_check=one.source_check or source_check)
        for one in bound.all
    ]
    groups = [resolver.attached_groups(binding, are_rules_enforced=True) for binding in bindings]
    if exemptions.name_servers and any(rules.dns_names for rules in resolver.rules.values()):
        failsafe = (*exemptions.failsafe, *exemptions.name_servers)
        exemptions = replace(exemptions, failsafe=tuple(dict.fromkeys(failsafe)))
    interfaces = [
        resolver.interface(binding, found, exemptions)
        for binding, found in zip(bindings, groups, strict=True)
    ]
    resolver.check_groups()
    resolver.check_network_interfaces(bound)
    policy = ResolvedPolicy(
        interfaces=tuple(interfaces[: len(bound.bindings)]),
        unbound=closed_interface("*", exemptions, default_mode) if unbound_closed else None,
    )
    patterns = dict(zip(bound.patterns, interfaces[len(bound.bindings) :], strict=True))
    counted = resolver.counted_rules()
    unknown = {p.value for rules in counted for p in rules.problems if p.code in OF_UNKNOWN_OBJECTS}
    return Resolution(
        policy=replace(
            with_links(policy, patterns, bound, exemptions),
            unseen=tuple(name.cause for name in other_names(bound)),
        ),
        problems=tuple(resolver.problems),
        unknown_objects=len(unknown),
        depends_on_time=resolver.depends_on_time,
        dns_names=frozenset().union(*(rules.dns_names for rules in counted)),
    )


def with_links(
    policy: ResolvedPolicy,
    patterns: Mapping[LinkPattern, ResolvedInterface],
    bound: Bindings,
    exemptions: Exemptions,
) -> ResolvedPolicy:
    """Return a policy with the judges of links that patterns mean (§12.5), and of lower devices (§9.5).

    Where sources are checked, what is right depends on a link's addresses, so each link has a judge of its
    own.

    Args:
        policy: of the links that are bound otherwise.
        patterns: what judges the links of each.
        bound: the links that there are, and what is known of others.
        exemptions: traffic that no pattern can block.
    """
    usable = [link for link in bound.facts.links if can_be_matched(link.name)]
    loopback = {link.name for link in usable if link.is_loopback}  # may be called otherwise
    resolved = (
        ResolvedPattern(pattern=replace(one, exclude=tuple(sorted({*one.exclude, *loopback}))), judge=judge)
        for one, judge in patterns.items()
    )
    vrfs = sorted(link.name for link in usable if link.kind == VRF)
    known = replace(policy, patterns=tuple(resolved), passed=tuple(vrfs))
    own = []
    for link in usable if patterns else ():
        judge = None if policy.interface(link.name) else known.meant(link.name)
        if judge is not None and judge.own_addresses is not None:
            addresses = judge.own_addresses.union(AddressSet.of(link.addresses))
            own.append(replace(judge, name=link.name, own_addresses=addresses, pattern=judge.name))
    interfaces = tuple(sorted((*policy.interfaces, *own), key=attrgetter("name")))
    known = _with_lower_devices(replace(known, interfaces=interfaces), policy, bound)
    if known.masters or known.lower_devices or not known.knows_all_by_prefix:
        known = replace(known, guard=closed_interface(UNIDENTIFIED, exemptions, Mode.ENFORCE))
    names = {link.name for link in usable}.union(*(one.pattern.excluded_names for one in known.patterns))
    return known.identifying(names)


def _with_lower_devices(policy: ResolvedPolicy, by_name: ResolvedPolicy, bound: Bindings) -> ResolvedPolicy:
    """Return a policy with the lower devices of bound links, and the names of those that may get some.

    Args:
        policy: with patterns.
        by_name: without them.
        bound: the links that there are, and what is known of others.
    """
    links = {link.name: link for link in bound.facts.links if can_be_matched(link.name)}

    judges = [one.judge for one in policy.patterns]

    def is_bound(name: str) -> bool:
        return policy.interface(name) is not None or policy.meant(name) in judges

    found = lower_devices(links, is_bound)
    if not bound.is_followed:
        return replace(policy, lower_devices=found)
    meant = {one.name: [one.name] for one in by_name.interfaces}
    for one in policy.patterns:
        meant[one.judge.name] = [name for name in links if one.pattern.matches(name)]
    masters = (
        judge for judge, names in meant.items() if any(_may_be_master(bound, links, name) for name in names)
    )
    return replace(policy, lower_devices=found, masters=tuple(sorted(masters)))


def _may_be_master(bound: Bindings, links: Mapping[str, Link], name: str) -> bool:
    """Return whether a link has lower devices or may get some; one that is not there, unless it had none."""
    return may_have_lower_devices(links, name) if name in links else name not in bound.plain


def living(snapshot: Snapshot, at: datetime | None) -> Snapshot:
    """Return the definitions without the rules that have ended."""
    groups = (_by_expiry(group, at)[0] for group in snapshot.security_groups)
    return replace(snapshot, security_groups=tuple(groups))


def _by_expiry(group: SecurityGroup, at: datetime | None) -> tuple[SecurityGroup, SecurityGroup]:
    """Return the group with the rules that exist, and with those that have ended."""
    living = tuple(rule for rule in group.rules if not has_ended(rule, at))
    ended = tuple(rule for rule in group.rules if has_ended(rule, at))
    return replace(group, rules=living), replace(group, rules=ended)


def dns_names(snapshot: Snapshot) -> frozenset[str]:
    """Return the names that rules of the definitions name (§12.3)."""
    rules = (rule for group in snapshot.security_groups for rule in group.rules)
    objects = (one for rule in rules for one in rule.authorization_objects)
    return frozenset(one.name for one in objects if isinstance(one, NameReference))


def closed_interface(
    name: str, exemptions: Exemptions, mode: Mode, *, network_interface_id: str | None = None
) -> ResolvedInterface:
    """Return an interface that only steps 1 to 3 of §3 let anything through."""
    ingress, egress = (
        ResolvedDirection(
            platform=tuple(entry for entry in exemptions.platform if entry.direction is direction),
            failsafe=tuple(entry for entry in exemptions.failsafe if entry.direction is direction),
        )
        for direction in (Direction.INGRESS, Direction.EGRESS)
    )
    return ResolvedInterface(
        name=name, network_interface_id=network_interface_id, mode=mode, ingress=ingress, egress=egress
    )


@dataclass
class _Resolver:
    """Resolve every rule at most once, however many interfaces its group is on, and keep the problems."""

    snapshot: Snapshot
    concerned: frozenset[str]
    """The groups on bound interfaces."""

    scope: Scope
    at: datetime | None
    names: KnownNames | None
    find_local: LocalFinder
    memo: Memo
    problems: list[Problem] = field(default_factory=list)
    rules: dict[str, ResolvedRules] = field(default_factory=dict)
    """Those resolved so far, by group."""

    depends_on_time: bool = False

    def __post_init__(self) -> None:
        self.memo.turn()
        self._members = members_by_group(self.snapshot, self.memo)
        memo = self.memo.part(Seam.RESOLVED_RULES)
        self._resolver = RuleResolver(self.snapshot, self._members, self.names, memo, self.find_local)

    def interface(
        self, binding: Binding, groups: Sequence[SecurityGroup], exemptions: Exemptions
    ) -> ResolvedInterface:
        """Resolve the interface of one link; without groups it is closed."""
        interface_id = binding.network_interface.network_interface_id if binding.network_interface else None
        mode = binding.mode or Mode.ENFORCE
        closed = closed_interface(binding.interface, exemptions, mode, network_interface_id=interface_id)
        closed = replace(closed, invalid=binding.invalid)
        if binding.source_check is SourceCheck.ON:
            closed = replace(closed, own_addresses=binding.own_addresses)
        if not groups:
            return closed
        rules = tuple(self.rules[group.security_group_id] for group in groups)
        members = ((group, self._members[group.security_group_id]) for group in groups)
        fellows = tuple(found for group, found in members if group.inner_access is Policy.ACCEPT)
        group_type = groups[0].group_type
        ingress, egress = (
            replace(
                closed.toward(way).with_sorted(_ordered(rules, way), self.at),
                default=group_type.default(way),
            )
            for way in (Direction.INGRESS, Direction.EGRESS)
        )
        memo = self.memo.part(Seam.RESOLVED_RULES, "interface", binding.interface)
        inner = memo.get("inner", fellows, partial(NO_ADDRESSES.union, *fellows))
        return replace(
            closed,
            security_group_ids=tuple(group.security_group_id for group in groups),
            group_type=group_type,
            ingress=replace(ingress, inner=inner),
            egress=egress,
        )

    def attached_groups(self, binding: Binding, *, are_rules_enforced: bool) -> list[SecurityGroup]:
        """Return the groups of a binding, sorted by id; those that are missing or don't fit are errors.

        An interface has groups of one type and of its own VPC (§3, §8.1).
        """
        groups = []
        for group_id in sorted(set(binding.security_group_ids)):
            group = self.snapshot.group_by_id.get(group_id)
            if group is None:
                message = "a security group of the interface is not in the definitions"
                remedy = "add the group, or detach it from the interface"
                self._error(binding, "dangling_attachment", group_id, message, remedy)
            else:
                groups.append(group)
        interface = binding.network_interface
        name = interface.network_interface_id if interface else binding.interface
        if len({group.group_type for group in groups}) > 1:
            message, remedy = (
                f"interface {name} has basic and advanced groups",
                "attach groups of one type only",
            )
            value = ", ".join(f"{g.security_group_id} ({g.group_type.value})" for g in groups)
            self._error(binding, "mixed_group_types", value, message, remedy)
        vpc_id = interface.vpc_id if interface else None
        for group in groups:
            if vpc_id and group.vpc_id and group.vpc_id != vpc_id:
                message = f"the group belongs to {group.vpc_id}, the interface to {vpc_id}"
                remedy = "attach groups of the interface's own VPC"
                self._error(binding, "other_vpc", group.security_group_id, message, remedy)
        self.problems.extend(interface_warnings(name, binding.origin, groups))
        for group in groups if are_rules_enforced else ():
            self._resolve_rules(group)
        return groups

    def check_groups(self) -> None:
        """Find the problems of every group, also of those that no bound interface depends on."""
        for group in self.snapshot.security_groups:
            if group.rules:
                self._resolve_rules(group)
                found = self.rules[group.security_group_id]
                self.problems.extend(group_warnings(group, found.group_objects))

    def check_network_interfaces(self, bound: Bindings) -> None:
        """Find the problems of the interfaces that are not bound here, and of all of them together.

        An attachment elsewhere is an error here too if it would make members of another VPC in a group that a
        bound interface depends on (§5.2).
        """
        if self.scope is Scope.EVERYTHING:
            self.problems.extend(overlap_errors(self.snapshot.network_interfaces))
        here = {b.network_interface.network_interface_id for b in bound.all if b.network_interface}
        before = len(self.problems)
        for binding in bind_everywhere(self.snapshot).bindings:
            if binding.interface not in here:
                self.attached_groups(binding, are_rules_enforced=False)
        if self.scope is Scope.HOST:
            reached = (rules.reached for name, rules in self.rules.items() if name in self.concerned)
            depended = self.concerned.union(*reached)
            self.problems[before:] = [
                problem if problem.code == "other_vpc" and problem.value in depended else problem.as_warning()
                for problem in self.problems[before:]
            ]

    def counted_rules(self) -> list[ResolvedRules]:
        """Return the rules whose errors of meaning count."""
        return [rules for name, rules in self.rules.items() if self._counts(name)]

    def _counts(self, group_id: str) -> bool:
        return group_id in self.concerned or self.scope is Scope.EVERYTHING

    def _resolve_rules(self, group: SecurityGroup) -> None:
        """Resolve the references of the group's rules, once; report their problems."""
        group_id = group.security_group_id
        if group_id in self.rules:
            return
        memo = self.memo.part(
            Seam.RESOLVED_RULES,
            group_id,
            group.group_type,
            group.inner_access_policy,
            group.cloud,
            group.vpc_id,
            group.account_id,
        )
        if any(map(is_timed, group.rules)):
            self.depends_on_time |= group_id in self.concerned
            group, ended = _by_expiry(group, self.at)
            self.problems.extend(map(_of_ended, _apart_from_names(self._resolver.resolve(ended, Memo()))))
        found = self.rules[group_id] = self._resolver.resolve(group, memo)
        if not self._counts(group_id):
            self.problems.extend(map(Problem.as_warning, _apart_from_names(found)))
        elif group_id in self.concerned:
            self.problems.extend(found.problems)
        else:  # other hosts have other users
            self.problems.extend(one for one in found.problems if one.code not in OF_UNKNOWN_USERS)

    def _error(self, binding: Binding, code: str, value: str, message: str, remedy: str) -> None:
        self.problems.append(Problem.error(binding.attached_at, code, value, message, remedy))


def _apart_from_names(rules: ResolvedRules) -> Iterator[Problem]:
    """Yield the problems of rules that need no names: nobody asks for these, so nobody answered."""
    apart = (UNRESOLVED_NAME, *OF_UNKNOWN_USERS)
    return (problem for problem in rules.problems if problem.code not in apart)


def _of_ended(problem: Problem) -> Problem:
    """Return a problem of a rule that has ended, which refuses nothing (§12.4)."""
    message = f"of a rule that has ended: {problem.message}"
    code = "unknown_object_of_ended" if problem.code in OF_UNKNOWN_OBJECTS else problem.code
    return replace(problem.as_warning(), code=code, message=message)


def _ordered(groups: tuple[ResolvedRules, ...], direction: Direction) -> tuple[ResolvedRule, ...]:
    """Return the rules of several groups in one direction, the one that decides first at the front."""
    found = (one for group in groups for one in group.found if one.rule.direction is direction)
    return tuple(one.rule for one in sorted(found, key=attrgetter("precedence")))
