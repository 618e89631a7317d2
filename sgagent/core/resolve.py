"""Resolution of a snapshot for a host: references become addresses, groups ordered rules (§3 to §5, §8)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from operator import attrgetter

from sgagent.core.addresses import NO_ADDRESSES, AddressSet
from sgagent.core.binding import Binding, Bindings, Link, bind_everywhere, can_be_matched
from sgagent.core.cloud_limits import group_warnings, interface_warnings, overlap_errors
from sgagent.core.errors import Origin, Problem, Severity
from sgagent.core.link_patterns import LinkPattern
from sgagent.core.memo import Memo, Seam
from sgagent.core.model import (
    Direction,
    Mode,
    NameReference,
    Policy,
    SecurityGroup,
    Snapshot,
    SourceCheck,
)
from sgagent.core.policy import (
    UNIDENTIFIED,
    Exemption,
    ResolvedDirection,
    ResolvedInterface,
    ResolvedPattern,
    ResolvedPolicy,
    ResolvedRule,
    members_by_group,
)
from sgagent.core.resolved_rules import (
    OF_UNKNOWN_OBJECTS,
    UNRESOLVED_NAME,
    KnownNames,
    ResolvedRules,
    RuleResolver,
)
from sgagent.core.rule_values import has_ended


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
    name_servers: tuple[Exemption, ...] = ()
    """Fail-safe while a rule of a bound interface names a name (§12.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a snapshot comes to on this host, and what is wrong with it."""

    policy: ResolvedPolicy
    """Enforceable only if no problem is an error."""

    problems: tuple[Problem, ...] = ()
    unknown_objects: int = 0
    """Distinct authorization objects and port lists that bound interfaces refer to and the snapshot lacks."""

    depends_on_time: bool = False
    """Whether rules of bound interfaces expire, or have ended."""

    dns_names: frozenset[str] = frozenset()
    """The names that rules of bound interfaces name, or with everything in scope all rules (§12.3)."""

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
    resolver = _Resolver(snapshot, concerned, scope, at, names, memo or Memo())
    resolver.problems.extend(bound.problems)

    def resolved(binding: Binding) -> ResolvedInterface:
        return replace(
            resolver.interface(binding, exemptions, binding.mode or default_mode),
            own_addresses=resolver.own_addresses(binding, binding.source_check or source_check),
        )

    interfaces = tuple(map(resolved, bound.bindings))
    patterns = {pattern: resolved(binding) for pattern, binding in bound.patterns.items()}
    if resolver.dns_names and exemptions.name_servers:
        failsafe = (*exemptions.failsafe, *exemptions.name_servers)
        exemptions = replace(exemptions, failsafe=tuple(dict.fromkeys(failsafe)))
        interfaces = tuple(resolver.with_egress(one, exemptions.failsafe) for one in interfaces)
        patterns = {key: resolver.with_egress(one, exemptions.failsafe) for key, one in patterns.items()}
    resolver.check_groups()
    resolver.check_network_interfaces(bound)
    policy = with_patterns(
        ResolvedPolicy(
            interfaces=interfaces,
            unbound=closed_interface("*", exemptions, default_mode) if unbound_closed else None,
        ),
        patterns,
        bound.links,
        exemptions,
    )
    return Resolution(
        policy=policy,
        problems=tuple(resolver.problems),
        unknown_objects=len(resolver.unknown_objects),
        depends_on_time=resolver.depends_on_time,
        dns_names=frozenset(resolver.dns_names),
    )


def with_patterns(
    policy: ResolvedPolicy,
    patterns: Mapping[LinkPattern, ResolvedInterface],
    links: Iterable[Link],
    exemptions: Exemptions,
) -> ResolvedPolicy:
    """Return a policy with what judges the links that patterns mean (§12.5).

    Where sources are checked, what is right depends on a link's addresses, so each link has a judge of its
    own.

    Args:
        policy: of the links that are bound otherwise.
        patterns: what judges the links of each.
        links: those that there are.
        exemptions: traffic that no pattern can block.
    """
    if not patterns:
        return policy
    usable = [link for link in links if can_be_matched(link.name)]
    loopback = {link.name for link in usable if link.is_loopback}  # may be called otherwise
    resolved = (
        ResolvedPattern(pattern=replace(one, exclude=tuple(sorted({*one.exclude, *loopback}))), judge=judge)
        for one, judge in patterns.items()
    )
    known = replace(policy, patterns=tuple(resolved))
    if not known.knows_all_by_prefix:
        known = replace(known, guard=closed_interface(UNIDENTIFIED, exemptions, Mode.ENFORCE))
    names = {link.name for link in usable}.union(*(one.pattern.excluded_names for one in known.patterns))
    own = []
    for link in usable:
        if policy.interface(link.name):
            continue
        judge = known.meant(link.name)
        if judge is not None and judge.own_addresses is not None:
            addresses = judge.own_addresses.union(AddressSet.of(link.addresses))
            own.append(replace(judge, name=link.name, own_addresses=addresses, pattern=judge.name))
    interfaces = tuple(sorted((*policy.interfaces, *own), key=attrgetter("name")))
    return replace(known, interfaces=interfaces).identifying(names)


def living(snapshot: Snapshot, at: datetime | None) -> Snapshot:
    """Return the definitions without the rules that have ended."""

    def left(group: SecurityGroup) -> SecurityGroup:
        rules = tuple(rule for rule in group.rules if not has_ended(rule.expires, at))
        return group if len(rules) == len(group.rules) else replace(group, rules=rules)

    return replace(snapshot, security_groups=tuple(map(left, snapshot.security_groups)))


def dns_names(snapshot: Snapshot) -> frozenset[str]:
    """Return the names that rules of the definitions name (§12.3)."""
    rules = (rule for group in snapshot.security_groups for rule in group.rules)
    objects = (one for rule in rules for one in rule.authorization_objects)
    return frozenset(one.name for one in objects if isinstance(one, NameReference))


def resolved_members(snapshot: Snapshot, memo: Memo) -> dict[str, AddressSet]:
    """Return each group's members: the same objects as in what was resolved with the memo, if equal."""
    return members_by_group(snapshot, memo.part(Seam.RESOLVED_RULES, "members"))


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
    at: datetime | None
    names: KnownNames | None
    memo: Memo
    problems: list[Problem] = field(default_factory=list)
    unknown_objects: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    """The groups that rules of concerned groups refer to."""

    depends_on_time: bool = False
    dns_names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.memo.turn()
        self._members = resolved_members(self.snapshot, self.memo)
        memo = self.memo.part(Seam.RESOLVED_RULES)
        self._resolver = RuleResolver(self.snapshot, self._members, self.names, memo)
        self._rules: dict[str, ResolvedRules] = {}

    def interface(self, binding: Binding, exemptions: Exemptions, mode: Mode) -> ResolvedInterface:
        """Return what is enforced on one link."""
        groups = self._attached_groups(binding)
        interface_id = binding.network_interface.network_interface_id if binding.network_interface else None
        closed = closed_interface(binding.interface, exemptions, mode, network_interface_id=interface_id)
        if not groups:
            return closed
        rules = tuple(self._resolved_rules(group) for group in groups)
        fellows = tuple(
            self._members[group.security_group_id] for group in groups if group.inner_access is Policy.ACCEPT
        )
        group_type = groups[0].group_type
        memo = self.memo.part(Seam.RESOLVED_RULES, "interface", binding.interface)
        inner = memo.get("inner", fellows, partial(NO_ADDRESSES.union, *fellows))
        ingress, egress = (
            replace(
                closed.toward(way),
                rules=memo.get(f"{way.value} rules", rules, partial(_ordered, rules, way)),
                default=group_type.default(way),
            )
            for way in (Direction.INGRESS, Direction.EGRESS)
        )
        ingress = replace(ingress, inner=inner)
        return replace(
            closed,
            security_group_ids=tuple(group.security_group_id for group in groups),
            group_type=group_type,
            ingress=memo.same("ingress", ingress),
            egress=memo.same("egress", egress),
        )

    def with_egress(self, interface: ResolvedInterface, failsafe: tuple[Exemption, ...]) -> ResolvedInterface:
        """Return an interface with another fail-safe list on egress."""
        found = tuple(entry for entry in failsafe if entry.direction is Direction.EGRESS)
        memo = self.memo.part(Seam.RESOLVED_RULES, "interface", interface.name)
        egress = replace(interface.egress, failsafe=found)
        return replace(interface, egress=memo.same("egress to name servers", egress))

    def own_addresses(self, binding: Binding, source_check: SourceCheck) -> AddressSet | None:
        """Return the addresses by which sources are checked on a link; None where they are not (§12.6)."""
        if source_check is SourceCheck.OFF:
            return None
        memo = self.memo.part(Seam.RESOLVED_RULES, "interface", binding.interface)
        return memo.same("own addresses", binding.own_addresses)

    def _attached_groups(self, binding: Binding) -> tuple[SecurityGroup, ...]:
        """Return the groups of a binding, sorted by id; those that are missing or don't fit are errors."""
        found = []
        for group_id in sorted(set(binding.security_group_ids)):
            group = self.snapshot.group_by_id.get(group_id)
            if group is None:
                message = "a security group of the interface is not in the definitions"
                remedy = "add the group, or detach it from the interface"
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
            rules = self._resolved_rules(group)
            self.problems.extend(group_warnings(group, rules.group_objects))

    def check_network_interfaces(self, bound: Bindings) -> None:
        """Find what is wrong with the interfaces that are not bound here, and with all of them together."""
        if self.scope is Scope.EVERYTHING:
            self.problems.extend(overlap_errors(self.snapshot.network_interfaces))
        here = {b.network_interface.network_interface_id for b in bound.all if b.network_interface}
        for binding in bind_everywhere(self.snapshot).bindings:
            if binding.interface not in here:
                self._attached_groups_elsewhere(binding)

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
                problem if problem.code == "other_vpc" and problem.value in depended else problem.as_warning()
                for problem in self.problems[before:]
            ]

    def _resolved_rules(self, group: SecurityGroup) -> ResolvedRules:
        """Return the group's rules with references resolved; what is wrong with them is reported once."""
        present = self._rules.get(group.security_group_id)
        if present is not None:
            return present
        is_concerned = group.security_group_id in self.concerned
        memo = self._memo_of(group)
        living, ended = self._by_expiry(group, memo)
        if living is not group:
            self.depends_on_time |= is_concerned
            self.problems.extend(map(_of_ended, _apart_from_names(self._resolver.resolve(ended, Memo()))))
        rules = self._rules[group.security_group_id] = self._resolver.resolve(living, memo)
        counts = is_concerned or self.scope is Scope.EVERYTHING
        self.problems.extend(rules.problems if counts else map(Problem.as_warning, _apart_from_names(rules)))
        if counts:
            unknown = (p.value or "" for p in rules.problems if p.code in OF_UNKNOWN_OBJECTS)
            self.unknown_objects.update(unknown)
            self.dns_names.update(rules.dns_names)
        if is_concerned:
            self.reached.update(rules.reached)
        return rules

    def _by_expiry(self, group: SecurityGroup, memo: Memo) -> tuple[SecurityGroup, SecurityGroup]:
        """Return the group with the rules that exist, and with those that have ended.

        Where no rule expires, the first is the very group.
        """
        expiring = memo.get(
            "expiring",
            (group.rules,),
            lambda: frozenset(rule.rule_id for rule in group.rules if rule.expires is not None),
        )
        if not expiring:
            return group, group
        ended = tuple(rule for rule in group.rules if has_ended(rule.expires, self.at))
        living = tuple(rule for rule in group.rules if not has_ended(rule.expires, self.at))
        return replace(group, rules=living), replace(group, rules=ended)

    def _memo_of(self, group: SecurityGroup) -> Memo:
        """Return the memo of a group as it is, its rules and members apart."""
        return self.memo.part(
            Seam.RESOLVED_RULES,
            group.security_group_id,
            group.group_type,
            group.inner_access_policy,
            group.cloud,
            group.vpc_id,
            group.account_id,
        )

    def _error(self, origin: Origin, code: str, value: str, message: str, remedy: str) -> None:
        self.problems.append(Problem.error(origin, code, value, message, remedy))


def _apart_from_names(rules: ResolvedRules) -> Iterator[Problem]:
    """Yield what is wrong with rules that need no names: nobody asks for these, so nobody answered."""
    return (problem for problem in rules.problems if problem.code != UNRESOLVED_NAME)


def _of_ended(problem: Problem) -> Problem:
    """Return a problem of a rule that has ended, which refuses nothing (§12.4)."""
    message = f"of a rule that has ended: {problem.message}"
    code = "unknown_object_of_ended" if problem.code in OF_UNKNOWN_OBJECTS else problem.code
    return replace(problem.as_warning(), code=code, message=message)


def _ordered(groups: tuple[ResolvedRules, ...], direction: Direction) -> tuple[ResolvedRule, ...]:
    """Return the rules of several groups in one direction, the one that decides first at the front."""
    found = (one for group in groups for one in group.found if one.direction is direction)
    return tuple(one.rule for one in sorted(found, key=attrgetter("precedence")))


def _named(binding: Binding) -> str:
    """Return what a person calls an interface: as the documents do, where they know it."""
    known = binding.network_interface
    return known.network_interface_id if known else binding.interface
