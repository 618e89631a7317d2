"""A suggested policy: rules for the needs of roles, in as few groups and rules as possible.

The unit is an *atom*: one service with one object. Atoms are given to groups, and those of a group become its
rules.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sgagent.analysis.flow_text import cidrs
from sgagent.core.addresses import NO_ADDRESSES, AddressSet, joined, ranges_of
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    ICMP,
    ICMPV6,
    PORTED,
    AuthorizationObject,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    Policy,
    PortSet,
    PrefixListReference,
    Protocol,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.core.rule_values import EVERYTHING, canonical_objects, free_id
from sgagent.suggest.far_ends import FarEnds, FarObject, Measures, Widening
from sgagent.suggest.observations import Observation, Service, screen
from sgagent.suggest.roles import (
    Role,
    free_group_id,
    propose_groups,
    reference_from,
    roles_of,
    seen_at,
    with_attachments,
)

ClientPorts = tuple[int, int]

_MANY_GROUPS = 3
"""From so many on, roles that need the same get a group together."""

CLOSING_PRIORITY = 100
"""Of the rule that drops what leaves and no other rule accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedWidening:
    """A stated widening: the traffic that a group's rules admit beyond the observations."""

    widening: Widening
    group: str
    service: Service
    before: str
    after: str
    addresses: AddressSet = NO_ADDRESSES
    """Of the far ends that it adds."""

    named: AuthorizationObject | None = None
    """The object that stands for these."""


class _Atom(NamedTuple):
    """A service with one object."""

    service: Service
    named: AuthorizationObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Suggested definitions, and the statements about them."""

    snapshot: Snapshot
    roles: tuple[Role, ...]
    statements: tuple[StatedWidening, ...]
    sources: Mapping[tuple[str, Service], ClientPorts]
    """The clients' ports of each group's services, where these are kept."""

    rewritten: frozenset[str]
    """Groups whose rules are suggested."""

    directions: tuple[Direction, ...]
    """That were looked at."""

    kept: frozenset[str] = frozenset()
    """The ids of rules that stay, whatever was seen."""


def draft(
    observations: Sequence[Observation],
    snapshot: Snapshot,
    measures: Measures,
    directions: Collection[Direction] = tuple(Direction),
    kept: frozenset[str] = frozenset(),
) -> Draft:
    """Return definitions that admit the observations, doubtful ones apart; these are marked.

    Args:
        observations: of the directions.
        snapshot: the definitions at hand, with each observed interface, whose rules are replaced.
        measures: from when on something is admitted, or widened.
        directions: rules of another one stay.
        kept: the ids of further rules that stay.
    """
    screen(observations, measures.least_sessions, FarEnds(snapshot, measures).circles)
    seen = seen_at(observations)
    snapshot = propose_groups(snapshot, seen, measures)
    assembly = _Assembly(snapshot, list(roles_of(snapshot, seen, measures)), measures)
    ports = _client_ports(observations)
    assembly.place()
    directions = tuple(one for one in Direction if one in directions)
    return assembly.drafted(ports, directions, kept)


def _client_ports(observations: Iterable[Observation]) -> dict[tuple[str, Service], ClientPorts]:
    """Return the lowest and highest port of clients, by interface and service."""
    found: dict[tuple[str, Service], ClientPorts] = {}
    for one in observations:
        ports, key = one.tally.client_ports, (one.interface, one.service)
        if one.doubt is None and ports is not None:
            found[key] = _around(found.get(key), ports)
    return found


def _around(one: ClientPorts | None, other: ClientPorts) -> ClientPorts:
    return other if one is None else (min(one[0], other[0]), max(one[1], other[1]))


@dataclass
class _Assembly:
    """Gives atoms to groups."""

    snapshot: Snapshot
    roles: list[Role]
    measures: Measures
    placed: dict[str, set[_Atom]] = field(default_factory=lambda: defaultdict(set))
    """By group."""

    statements: list[StatedWidening] = field(default_factory=list)
    covers: dict[frozenset[int], tuple[str, ...]] = field(default_factory=dict)
    """The groups for each set of roles that need the same."""

    own_groups: dict[frozenset[int], str] = field(default_factory=dict)
    """Of roles that need what no group of theirs may have, or what many need."""

    members: dict[str, int] = field(init=False)
    """How many interfaces each group is attached to."""

    def __post_init__(self) -> None:
        """Count the members of groups."""
        attached = (one.security_group_ids for one in self.snapshot.network_interfaces)
        self.members = Counter(group for groups in attached for group in groups)

    def place(self) -> None:
        """Give each atom to the groups that cover the roles that were seen to need it."""
        ends = FarEnds(self.snapshot, self.measures)
        wanted: dict[_Atom, set[int]] = defaultdict(set)
        objects: dict[_Atom, FarObject] = {}
        for number, role in enumerate(self.roles):
            for service, fars in role.seen.items():
                for one in ends.objects(service, fars, role.vpc_id):
                    atom = _Atom(service, one.named)
                    wanted[atom].add(number)
                    if atom not in objects or one.widening is not None:
                        objects[atom] = one
        for atom in sorted(wanted, key=_order):
            needing = frozenset(wanted[atom])
            if needing not in self.covers:
                self.covers[needing] = tuple(self._cover(needing))
            for group in self.covers[needing]:
                self.placed[group].add(atom)
                self._state(group, atom, needing, objects[atom])

    def _cover(self, needing: frozenset[int]) -> Iterator[str]:
        """Yield groups that together have all these roles: few, and with few others.

        Where it took many, and for roles whose groups may not have it, there is a group of their own.
        """
        left, found = set(needing), list[str]()
        while left:
            names = sorted({group for one in left for group in self.roles[one].groups})
            fitting = {group: self._interfaces(group, left) for group in names if self._fits(group, needing)}
            best = max(fitting, key=lambda one: (fitting[one], -self._extra(one, needing)), default=None)
            if best is None:
                break
            found.append(best)
            left = {one for one in left if best not in self.roles[one].groups}
        kinds = {self._kind(one) for one in needing}
        if len(found) + len(left) >= _MANY_GROUPS and len(kinds) == 1:
            yield self._own_group(needing)
            return
        yield from found
        for one in left:
            yield self._own_group(frozenset({one}))

    def _kind(self, number: int) -> tuple[object, ...]:
        """Return the properties that groups need in common to be on the interfaces of a role."""
        first = self.snapshot.group_by_id[self.roles[number].groups[0]]
        return first.group_type, first.account_id, first.vpc_id

    def _interfaces(self, group: str, among: Iterable[int]) -> int:
        """Return how many interfaces of some roles have a group."""
        roles = (self.roles[one] for one in among)
        return sum(len(role.interfaces) for role in roles if group in role.groups)

    def _fits(self, group: str, needing: frozenset[int]) -> bool:
        """Return whether a rule of the group may stand for the observed needs of some of its members."""
        observed = self._interfaces(group, range(len(self.roles)))
        here = self._interfaces(group, needing)
        if Widening.MEMBERS not in self.measures.widenings:
            return here == observed == self.members[group]
        return here == observed or (here >= self.measures.group_from and 2 * here >= observed)

    def _extra(self, group: str, needing: frozenset[int]) -> int:
        """Return how many members of a group were not seen to need something."""
        return self.members[group] - self._interfaces(group, needing)

    def _own_group(self, numbers: frozenset[int]) -> str:
        """Return the group that just these roles have; a new one, unless there is one."""
        if numbers in self.own_groups:
            return self.own_groups[numbers]
        roles = [self.roles[number] for number in sorted(numbers)]
        interfaces = [name for role in roles for name in role.interfaces]
        first = self.snapshot.group_by_id[roles[0].groups[0]]
        wanted = interfaces[0] if len(roles) == 1 else "shared"
        text = ", ".join(interfaces[:3]) + (f" and {len(interfaces) - 3} more" if len(interfaces) > 3 else "")
        made = SecurityGroup(
            security_group_id=free_group_id(wanted, self.snapshot.group_by_id),
            group_type=first.group_type,
            inner_access_policy=Policy.DROP,
            account_id=first.account_id,
            vpc_id=first.vpc_id,
            name=f"what {text} need",
        )
        name = self.own_groups[numbers] = made.security_group_id
        self.snapshot = with_attachments(self.snapshot, dict.fromkeys(interfaces, name), [made])
        for number in numbers:
            role = self.roles[number]
            self.roles[number] = replace(role, groups=tuple(sorted({*role.groups, name})))
        self.members[name] = len(interfaces)
        return name

    def _state(self, group: str, atom: _Atom, needing: frozenset[int], one: FarObject) -> None:
        """Note the traffic that a rule of a group admits beyond the observations."""
        extra, total = self._extra(group, needing), self.members[group]
        if extra:
            self.statements.append(
                StatedWidening(
                    widening=Widening.MEMBERS,
                    group=group,
                    service=atom.service,
                    before=f"seen at {total - extra} of {total} members",
                    after=f"all members of {group}",
                    named=atom.named,
                )
            )
        if one.widening is not None:
            self.statements.append(
                StatedWidening(
                    widening=one.widening,
                    group=group,
                    service=atom.service,
                    before=one.seen,
                    after=str(atom.named),
                    addresses=one.addresses,
                    named=atom.named,
                )
            )

    def drafted(
        self,
        client_ports: Mapping[tuple[str, Service], ClientPorts],
        directions: tuple[Direction, ...],
        kept: frozenset[str],
    ) -> Draft:
        """Return the definitions with rules for all atoms."""
        rewritten = frozenset(group for role in self.roles for group in role.groups)
        sources = self._sources(client_ports)
        closing = self._closing() if Direction.EGRESS in directions else frozenset()

        def stays(rule: SecurityGroupRule) -> bool:
            return rule.direction not in directions or rule.rule_id in kept

        taken = {
            rule.rule_id
            for group in self.snapshot.security_groups
            for rule in group.rules
            if group.security_group_id not in rewritten or stays(rule)
        }
        groups = []
        for group in self.snapshot.security_groups:
            name = group.security_group_id
            if name in rewritten:
                rules = [
                    *filter(stays, group.rules),
                    *_rules(group, self.placed.get(name, set()), sources, taken),
                ]
                if name in closing:
                    rules.append(_closing_rule(name, taken))
                rules.sort(key=lambda rule: rule.rule_id)
                group = replace(group, inner_access_policy=Policy.DROP, rules=tuple(rules))  # noqa: PLW2901 - the same group
            groups.append(group)
        return Draft(
            snapshot=replace(self.snapshot, security_groups=tuple(groups)),
            roles=tuple(self.roles),
            statements=tuple(self.statements),
            sources=sources,
            rewritten=rewritten,
            directions=directions,
            kept=kept,
        )

    def _sources(
        self, client_ports: Mapping[tuple[str, Service], ClientPorts]
    ) -> dict[tuple[str, Service], ClientPorts]:
        """Return the clients' ports that rules name; state where they name none."""
        found: dict[tuple[str, Service], ClientPorts] = {}
        for role in self.roles:
            for name in role.interfaces:
                for group in role.groups:
                    for service in {atom.service for atom in self.placed.get(group, ())}:
                        ports = client_ports.get((name, service))
                        if ports is not None:
                            found[group, service] = _around(found.get((group, service)), ports)
        if Widening.SOURCE_PORTS not in self.measures.widenings:
            return found
        for (group, service), (first, last) in sorted(found.items(), key=str):
            seen = f"source ports {first} to {last}"
            self.statements.append(
                StatedWidening(
                    widening=Widening.SOURCE_PORTS, group=group, service=service, before=seen, after="any"
                )
            )
        return {}

    def _closing(self) -> frozenset[str]:
        """Return groups, as few as possible, that together are on all interfaces which let everything out."""
        left = [role for role in self.roles if self._lets_out(role)]
        found: set[str] = set()
        while left:
            names = sorted({group for role in left for group in role.groups})
            best = max(
                names, key=lambda one: sum(len(role.interfaces) for role in left if one in role.groups)
            )
            found.add(best)
            left = [role for role in left if best not in role.groups]
        return frozenset(found)

    def _lets_out(self, role: Role) -> bool:
        groups = [self.snapshot.group_by_id[one] for one in role.groups if one in self.snapshot.group_by_id]
        return any(group.group_type.default(Direction.EGRESS) is Policy.ACCEPT for group in groups)


def _order(atom: _Atom) -> tuple[object, ...]:
    direction, protocol, port = atom.service
    return direction.value, protocol, -1 if port is None else port, str(atom.named)


def _closing_rule(group: str, taken: set[str]) -> SecurityGroupRule:
    return SecurityGroupRule(
        rule_id=_taking_id(f"sgr-{group.removeprefix('sg-')}-out-closed", taken),
        direction=Direction.EGRESS,
        policy=Policy.DROP,
        priority=CLOSING_PRIORITY,
        protocols=(ALL_PROTOCOLS,),
        ports=ALL_PORTS,
        authorization_objects=EVERYTHING,
    )


def _rules(
    group: SecurityGroup,
    atoms: Iterable[_Atom],
    sources: Mapping[tuple[str, Service], ClientPorts],
    taken: set[str],
) -> Iterator[SecurityGroupRule]:
    """Yield rules for the atoms of a group: services with the same objects share one."""
    objects: dict[Service, set[AuthorizationObject]] = defaultdict(set)
    for atom in atoms:
        named = atom.named
        objects[atom.service].add(
            reference_from(group, named) if isinstance(named, GroupReference) else named
        )
    shapes: dict[tuple[object, ...], list[Service]] = defaultdict(list)
    for service, found in objects.items():
        ends = sources.get((group.security_group_id, service))
        shapes[service.direction, service.protocol, frozenset(found), ends].append(service)
    lines: dict[tuple[object, ...], _Line] = {}
    for services in shapes.values():
        first = services[0]
        line = _Line(
            direction=first.direction,
            protocols=(Protocol(first.protocol),),
            ports=ALL_PORTS if first.port is None else _port_set(services),
            objects=_collapsed(objects[first]),
            sources=sources.get((group.security_group_id, first)),
        )
        known = lines.get(line.shared)
        lines[line.shared] = line if known is None else known.joined(line)
    for line in sorted(
        lines.values(), key=lambda one: (one.direction.value, one.protocols, one.ports.ranges)
    ):
        yield line.rule(group.security_group_id, taken)


def _collapsed(objects: Collection[AuthorizationObject]) -> frozenset[AuthorizationObject]:
    """Return objects with the fewest networks that are just the same addresses."""
    blocks = AddressSet.of(one for one in objects if isinstance(one, CidrBlock))
    others = (one for one in objects if not isinstance(one, CidrBlock))
    texts = (text for family in Family for text in cidrs(joined(blocks.ranges(family)), family))
    return frozenset((*others, *map(CidrBlock.parse, texts)))


def _port_set(services: Iterable[Service]) -> PortSet:
    ports = ranges_of(service.port for service in services if service.port is not None)
    return PortSet.of(*ports)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A rule that is not named yet."""

    direction: Direction
    protocols: tuple[Protocol, ...]
    ports: PortSet
    objects: frozenset[AuthorizationObject]
    sources: ClientPorts | None

    @property
    def shared(self) -> tuple[object, ...]:
        """Return the common part of two lines that are one rule with both protocols."""
        protocol = self.protocols[0]
        if protocol in (ICMP, ICMPV6):  # each matches the objects of its own family alone
            named = frozenset(
                one for one in self.objects if not isinstance(one, (CidrBlock, PrefixListReference))
            )
            return self.direction, "icmp", named
        kind = "ports" if protocol in PORTED else protocol
        return self.direction, kind, self.ports, self.objects, self.sources

    def joined(self, other: _Line) -> _Line:
        """Return the line with the protocols of another."""
        protocols = tuple(sorted({*self.protocols, *other.protocols}))
        return replace(self, protocols=protocols, objects=self.objects | other.objects)

    def rule(self, group: str, taken: set[str]) -> SecurityGroupRule:
        """Return the rule of a group."""
        way = "in" if self.direction is Direction.INGRESS else "out"
        ports = "" if self.ports.is_all else f"-{self.ports.ranges[0][0]}"
        protocols = "-".join(map(str, self.protocols))
        return SecurityGroupRule(
            rule_id=_taking_id(f"sgr-{group.removeprefix('sg-')}-{way}-{protocols}{ports}", taken),
            direction=self.direction,
            policy=Policy.ACCEPT,
            priority=1,
            protocols=self.protocols,
            ports=self.ports,
            source_ports=ALL_PORTS if self.sources is None else PortSet.of(self.sources),
            authorization_objects=canonical_objects(self.objects),
        )


def _taking_id(wanted: str, taken: set[str]) -> str:
    """Return an id that is free, and take it."""
    found = free_id(re.sub(r"[^A-Za-z0-9._:-]", "-", wanted)[:120], taken)
    taken.add(found)
    return found
