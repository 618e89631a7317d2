"""Edges say neither more nor less than judging every packet does, in a universe of few addresses and ports.

What lint finds open is on an arrow, no rule that it calls idle decides about any packet, and the compiled
table is proved to do what decided about them (what ``explain`` says).

The universe lies at the ends of what there is: the last addresses of a family, and the first and last ports.
No two interfaces have the same address.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

import hypothesis
from hypothesis import given

from sgagent.analysis.graph.edges import make_graph
from sgagent.analysis.graph.elements import Edge, Side
from sgagent.analysis.lint.rule_reach import key_of
from sgagent.analysis.lint.subject import LintSubject, make_subject
from sgagent.compiler.compilation import compile_
from sgagent.core.addresses import AddressSet, holds
from sgagent.core.binding import Binding, Bindings, bind_everywhere
from sgagent.core.clauses import DecidedBy
from sgagent.core.errors import NOWHERE
from sgagent.core.evaluate import Packet, evaluate
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    GRE,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    AuthorizationObject,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    GroupType,
    NameReference,
    NetworkInterface,
    Policy,
    PortSet,
    PrefixList,
    PrefixListReference,
    Protocol,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.core.policy import ResolvedPolicy, ResolvedRule
from sgagent.core.resolve import Exemptions, resolve
from sgagent.core.rule_values import canonical_objects
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.verify import Outcome
from sgagent.verify.proof import prove
from sgagent.verify.verified_table import table_of
from tests.draws import Draws
from tests.generators import ShownDocument
from tests.strategies import draws, examples

INSIDE = {family: range(family.last_address - 3, family.last_address + 1) for family in Family}
OUTSIDE = {family: (family.last_address - 8, family.last_address - 4) for family in Family}
"""The first is in no network but the whole family."""
PORTS = (0, 1, 2, 65535)
SOURCE_PORTS = (0, 1, 2, 65535)
UNKNOWN = {family: family.last_address - 16 for family in Family}
"""Stands for where a name is of which nobody knows."""
EVERYWHERE = {family: (UNKNOWN[family], *OUTSIDE[family], *INSIDE[family]) for family in Family}
NAMES = ("known.example.org", "known.example.org", "unknown.example.org")
"""The DNS answers for the first."""
Point = tuple[int, int | None]
"""A protocol and a destination port."""

POINTS: tuple[Point, ...] = (*product((6, 17), PORTS), (1, None), (58, None), (47, None), (254, None))
PORT_RANGES = ((1, 1), (2, 2), (1, 2), (2, 65535), (1, 65535))
PROTOCOLS = (TCP, TCP, TCP, UDP, ICMP, ICMPV6, GRE, ALL_PROTOCOLS, ALL_PROTOCOLS)


class Drawing:
    """Draws definitions."""

    def __init__(self, draws: Draws) -> None:
        """Draw the ids that rules will refer to."""
        self.draws = draws
        self.groups = [f"sg-{number}" for number in range(draws.choice((1, 2, 2, 3)))]
        self.lists = tuple(
            PrefixList(
                prefix_list_id=f"pl-{family.value}",
                family=family,
                entries=tuple(sorted({self.block(family) for _ in range(draws.randint(0, 2))})),
            )
            for family in Family
        )
        self.taken: list[CidrBlock] = []
        known = (self.block(family) for family in Family)
        self.names = {"known.example.org": AddressSet.of(one for one in known if draws.chance(50))}
        self.families = draws.choice(((Family.IPV4,), (Family.IPV6,), tuple(Family), tuple(Family)))

    def block(self, family: Family, widths: tuple[int, ...] = (0, 0, 0, 1, 1, 2, 3)) -> CidrBlock:
        """Draw a network; often a single address, and the widest is half outside."""
        length = family.bits - self.draws.choice(widths)
        return CidrBlock.around(family, self.draws.choice(INSIDE[family]), length)

    def addresses(self) -> tuple[CidrBlock, ...]:
        """Draw what a host has, or a group lists."""
        number = self.draws.choice((0, 1, 1, 1, 2))
        drawn = {self.block(self.draws.choice(self.families), (0, 0, 0, 1, 2)) for _ in range(number)}
        return tuple(sorted(drawn, key=str))

    def free_addresses(self) -> tuple[CidrBlock, ...]:
        """Draw what an interface has: nothing that another has."""
        free = tuple(
            block for block in self.addresses() if not any(overlap(block, one) for one in self.taken)
        )
        self.taken += free
        return free

    def rule(self, number: int) -> SecurityGroupRule:
        """Draw a rule that the documents would take."""
        draws = self.draws
        protocol = draws.choice(PROTOCOLS)
        what, family = self.object(protocol)
        ports, source = (PortSet.of(draws.choice(PORT_RANGES)) for _ in range(2))
        near = family or draws.choice(self.families)
        local = self.block(near) if protocol.only_family in (None, near) and draws.chance(20) else None
        policy = draws.choice((Policy.ACCEPT, Policy.ACCEPT, Policy.ACCEPT, Policy.DROP))
        if policy is Policy.ACCEPT and draws.chance(15):
            what, family = NameReference(draws.choice(NAMES)), None
        others = draws.many(lambda _: self.object(protocol)[0], 3) if not local and draws.chance(30) else ()
        second = {TCP: UDP, UDP: TCP}.get(protocol) if draws.chance(25) else None
        return SecurityGroupRule(
            rule_id=f"r-{number}",
            direction=draws.choice(tuple(Direction)),
            policy=policy,
            priority=draws.choice((1, 1, 2, 3)),
            protocols=tuple(sorted({protocol, second or protocol})),
            ports=ALL_PORTS if not protocol.has_ports or draws.chance(10) else ports,
            source_ports=source if protocol.has_ports and draws.chance(30) else ALL_PORTS,
            authorization_objects=canonical_objects([what, *others]),
            local_address=local,
        )

    def object(self, protocol: Protocol) -> tuple[AuthorizationObject, Family | None]:
        """Draw the other end of a rule, and its family if it has one."""
        draws = self.draws
        if draws.chance(60):
            return GroupReference(draws.choice(self.groups)), None
        family = protocol.only_family or draws.choice(self.families)
        if draws.chance(20):
            return PrefixListReference(f"pl-{family.value}"), family
        if draws.chance(30):
            return CidrBlock.around(family, 0, 0), family
        return self.block(family), family

    def snapshot(self) -> Snapshot:
        """Draw all."""
        draws, count = self.draws, iter(range(1000))
        types = {group: draws.choice(tuple(GroupType)) for group in self.groups}
        groups = tuple(
            SecurityGroup(
                security_group_id=group,
                group_type=types[group],
                inner_access_policy=draws.choice(tuple(Policy)),
                member_addresses=self.addresses() if draws.chance(40) else (),
                rules=tuple(self.rule(next(count)) for _ in range(draws.randint(0, 4))),
            )
            for group in self.groups
        )
        interfaces = tuple(
            NetworkInterface(
                network_interface_id=f"eni-{number}",
                addresses=self.free_addresses(),
                security_group_ids=self.attached(types),
            )
            for number in range(draws.choice((0, 2, 3, 4, 5)))
        )
        return Snapshot(
            version="drawn", security_groups=groups, prefix_lists=self.lists, network_interfaces=interfaces
        )

    def attached(self, types: dict[str, GroupType]) -> tuple[str, ...]:
        """Draw groups of one type; now and then none."""
        kind = self.draws.choice(tuple(types.values()))
        of_kind = [group for group, found in types.items() if found is kind]
        return tuple(
            sorted(self.draws.sample(of_kind, min(self.draws.choice((0, 1, 1, 1, 2, 2, 3)), len(of_kind))))
        )


def overlap(one: CidrBlock, other: CidrBlock) -> bool:
    """Return whether two blocks have an address in common."""
    return one.family is other.family and one.first <= other.last and other.first <= one.last


@dataclass(frozen=True, slots=True)
class Host:
    """An address of somebody, and who judges what goes out and comes in there."""

    name: str
    """The interface, or the address itself where it is on none."""

    address: int
    family: Family
    judge: str | None
    """None where nothing is known."""


Verdict = tuple[bool, ResolvedRule | None, bool]
"""Whether it passes, by which rule, and whether because it is a fellow member's."""


@dataclass
class World:
    """Definitions, and everybody in them."""

    snapshot: Snapshot
    names: dict[str, AddressSet]
    verdicts: dict[tuple[str, Direction, Family, int, int, Point, int], Verdict] = field(default_factory=dict)
    nobodys: dict[str, list[Host]] = field(default_factory=dict)

    @cached_property
    def policy(self) -> ResolvedPolicy:
        """Return what judges at interfaces, and what would where a group is attached nowhere."""
        alone = [
            Binding(
                interface=f"alone {group}",
                network_interface=None,
                security_group_ids=(group,),
                mode=None,
                origin=NOWHERE,
            )
            for group in self.alone
        ]
        bound = bind_everywhere(self.snapshot)
        somewhere = AddressSet(*(((UNKNOWN[family], UNKNOWN[family]),) for family in Family))
        names = {NAMES[-1]: somewhere, **self.names}
        bindings = Bindings(bindings=(*bound.bindings, *alone))
        return resolve(self.snapshot, bindings, Exemptions(), names=names).policy

    @cached_property
    def alone(self) -> set[str]:
        """Return the groups with rules that are attached nowhere."""
        attached = {g for one in self.snapshot.network_interfaces for g in one.security_group_ids}
        return {
            group.security_group_id
            for group in self.snapshot.security_groups
            if group.rules and group.security_group_id not in attached
        }

    def hosts(self, family: Family, address: int) -> list[Host]:
        """Return who has an address: interfaces, or somebody of whom nothing is known."""
        found = [
            Host(one.network_interface_id, address, family, one.network_interface_id)
            for one in self.snapshot.network_interfaces
            if any(b.family is family and b.first <= address <= b.last for b in one.addresses)
        ]
        return found or [Host(f"{family} {address}", address, family, None)]

    def of(self, group: str, *, owner: bool) -> list[Host]:
        """Return the members of a group; where it is attached nowhere, its own rules may judge them."""
        hosts = [
            host
            for family in Family
            for address in INSIDE[family]
            for host in self.hosts(family, address)
            if self.is_member(host, group)
        ]
        if owner and group in self.alone:
            return [replace(host, judge=host.judge or f"alone {group}") for host in hosts]
        return hosts

    def unlisted(self, group: str) -> list[Host]:
        """Return where a group judges addresses that nobody lists, as the host lists none of the family."""
        if group not in self.nobodys:
            self.nobodys[group] = self._unlisted(group)
        return self.nobodys[group]

    def _unlisted(self, group: str) -> list[Host]:
        attached = [one for one in self.snapshot.network_interfaces if group in one.security_group_ids]
        judges = {
            family: [
                one.network_interface_id
                for one in attached
                if not any(block.family is family for block in one.addresses)
            ]
            for family in Family
        }
        if group in self.alone:
            members = self.snapshot.group_by_id[group].member_addresses
            for family in Family:
                judges[family] += [f"alone {group}"] * (not any(one.family is family for one in members))
        return [
            Host(judge, address, family, judge)
            for family in Family
            for judge in judges[family]
            for address in EVERYWHERE[family]
            if all(host.judge is None for host in self.hosts(family, address))
        ]

    def is_member(self, host: Host, group: str) -> bool:
        """Return whether a host is attached to a group or listed by it."""
        interface = self.snapshot.interface_by_id.get(host.name)
        listed = self.snapshot.group_by_id[group].member_addresses
        return (interface is not None and group in interface.security_group_ids) or any(
            block.family is host.family and block.first <= host.address <= block.last for block in listed
        )

    def beyond(self, addresses: AddressSet) -> list[Host]:
        """Return who has one of some addresses."""
        return [
            host
            for family in Family
            for address in EVERYWHERE[family]
            if addresses.contains(family, address)
            for host in self.hosts(family, address)
        ]

    def passes(self, direction: Direction, ways: tuple[Host, Host], what: Point, port: int) -> Verdict:
        """Judge a packet at one of its ends."""
        source, target = ways
        judge = source.judge if direction is Direction.EGRESS else target.judge
        if judge is None:
            return True, None, False
        key = (judge, direction, source.family, source.address, target.address, what, port)
        if key not in self.verdicts:
            packet = Packet(
                interface=judge,
                direction=direction,
                family=source.family,
                source=source.address,
                destination=target.address,
                protocol=what[0],
                source_port=None if what[1] is None else port,
                destination_port=what[1],
            )
            found = evaluate(self.policy, packet)
            accepted = found.verdict is Policy.ACCEPT
            self.verdicts[key] = accepted, found.rule, found.decided_by is DecidedBy.INNER
        return self.verdicts[key]


Key = tuple[str, str]
"""The names of the ends of an edge; ``to`` stands before a target that is no group."""


@dataclass
class Expected:
    """What is to be on an edge."""

    points: set[Point] = field(default_factory=set)
    owners: set[str] = field(default_factory=set)
    rules: set[str] = field(default_factory=set)
    families: set[Family] = field(default_factory=set)
    beyond: set[Host] = field(default_factory=set)


def packets() -> Iterator[tuple[Point, int]]:
    """Yield everything that is sent."""
    for what in POINTS:
        for port in SOURCE_PORTS if what[1] is not None else SOURCE_PORTS[:1]:
            yield what, port


def are_two(one: Host, other: Host) -> bool:
    """Return whether a packet may go from one to the other."""
    is_other = one.name != other.name and one.address != other.address
    return one.family is other.family and is_other


def edges(world: World) -> dict[Key, Expected]:
    """Return what passes both ends by a rule, at one of them, that names the other."""
    found: dict[Key, Expected] = defaultdict(Expected)
    for owner, direction in product(world.snapshot.group_by_id, Direction):
        for near in (*world.of(owner, owner=True), *world.unlisted(owner)):
            if near.judge is not None:
                for address in EVERYWHERE[near.family]:
                    for far in world.hosts(near.family, address):
                        if are_two(near, far):
                            look(world, owner, direction, (near, far), found)
    return found


def look(
    world: World, owner: str, direction: Direction, ends: tuple[Host, Host], found: dict[Key, Expected]
) -> None:
    """Note what passes between two hosts by a rule of a group, or because both are fellow members."""
    near, far = ends
    is_listed = near not in world.unlisted(owner)
    inwards = direction is Direction.INGRESS
    ways = (far, near) if inwards else (near, far)
    for what, port in packets():
        accepted, rule, is_inner = world.passes(direction, ways, what, port)
        if not accepted:
            continue
        other = Direction.EGRESS if inwards else Direction.INGRESS
        if is_inner and is_listed:
            group = world.snapshot.group_by_id[owner]
            judge = next(one for one in world.policy.interfaces if one.name == near.judge)
            lets = group.group_type is GroupType.BASIC and group.inner_access_policy is Policy.ACCEPT
            lets = lets and owner in judge.security_group_ids and world.is_member(far, owner)
            if lets and world.passes(other, ways, what, port)[0]:
                note(found[owner, owner], owner, what, near.family)
        if rule is None or rule.security_group_id != owner:
            continue
        written = next(one for one in world.snapshot.group_by_id[owner].rules if one.rule_id == rule.rule_id)
        beyond: dict[str, list[AddressSet]] = defaultdict(list)
        for one, peer in zip(written.authorization_objects, rule.peer.objects, strict=True):
            match one:
                case GroupReference(security_group_id=name):
                    if is_listed and world.is_member(far, name) and world.passes(other, ways, what, port)[0]:
                        expected = found[(name, owner) if inwards else (owner, name)]
                        note(expected, owner, what, near.family, rule)
                case CidrBlock() | PrefixListReference() | NameReference():
                    is_everything = isinstance(one, CidrBlock) and one.is_everything
                    beyond["anywhere" if is_everything else str(one)].append(peer.addresses)
        for name, addresses in beyond.items():
            if any(held.contains(far.family, far.address) for held in addresses):
                expected = found[(name, owner) if inwards else (owner, f"to {name}")]
                note(expected, owner, what, near.family, rule)
                for held in addresses:
                    expected.beyond.update(world.beyond(held))


def note(
    expected: Expected, owner: str, what: Point, family: Family, rule: ResolvedRule | None = None
) -> None:
    """Note a packet of an edge."""
    expected.points.add(what)
    expected.owners.add(owner)
    expected.families.add(family)
    if rule is not None:
        expected.rules.add(rule.rule_id)


def is_partial(world: World, key: Key, expected: Expected) -> bool:
    """Return whether anything that an edge says does not pass between some of its ends."""
    return all(loses_some(world, key, expected, owner) for owner in expected.owners)


def loses_some(world: World, key: Key, expected: Expected, owner: str) -> bool:
    """Return whether, judged as the group does by whose rules there is an edge, something is lost."""
    source, target = (
        world.of(name, owner=name == owner) if name in world.snapshot.group_by_id else expected.beyond
        for name in key
    )
    beyond_source, beyond_target = (name not in world.snapshot.group_by_id for name in key)
    if beyond_source:
        target = [*target, *world.unlisted(key[1])]
    if beyond_target:
        source = [*source, *world.unlisted(key[0])]
    return any(
        not (
            (beyond_source or world.passes(Direction.EGRESS, ways, what, port)[0])
            and (beyond_target or world.passes(Direction.INGRESS, ways, what, port)[0])
        )
        for ways in product(source, target)
        if are_two(*ways)
        for what, port in packets()
        if what in expected.points
    )


def is_on(edge: Edge, what: Point) -> bool:
    """Return whether an edge carries a point."""
    protocol, port = what
    return holds(
        edge.traffic.others if port is None else edge.traffic.ports(Protocol(protocol)),
        protocol if port is None else port,
    )


def lint_agrees(subject: LintSubject, world: World, drawn: dict[Key, Edge]) -> None:
    """Ports that a rule opens to everyone are on its arrow, in the family; idle rules decide nothing.

    Not rules for some near ends, which nobody may have.
    """
    for attachment in subject.attachments:
        for family in Family:
            for number, by_rule in attachment.open_to_everyone[family].items():
                for (group, rule_id), ports in by_rule.items() if attachment.interfaces else ():
                    if subject.rules[group, rule_id][1].local_address is not None:
                        continue
                    edge = drawn["anywhere", group]
                    assert family in edge.families, (group, rule_id)
                    assert rule_id in edge.rules
                    points = [what for what in POINTS if what[0] == number and holds(ports, what[1] or 0)]
                    assert all(is_on(edge, what) for what in points), (group, rule_id)
    decided = {key_of(rule) for _, rule, _ in world.verdicts.values() if rule is not None}
    assert decided.isdisjoint(subject.unreached)
    on_arrows = {rule_id for edge in drawn.values() for rule_id in edge.rules}
    known = {rule_id for _, rule_id in subject.decided}
    unresolved = {
        rule.rule_id
        for group in world.snapshot.security_groups
        for rule in group.rules
        if NameReference(NAMES[-1]) in rule.authorization_objects
    }
    assert on_arrows - unresolved <= known


@examples(80)
@given(draws())
def test_an_edge_says_what_judging_every_packet_says(draws: Draws) -> None:
    """Its traffic, its rules and families, and whether all of it passes between all at both ends."""
    drawing = Drawing(draws)
    world = World(drawing.snapshot(), drawing.names)
    hypothesis.note(ShownDocument(world.snapshot))
    subject = make_subject(world.snapshot, Exemptions(), names=world.names)
    graph = make_graph(subject)
    drawn = {(str(edge.source), str(edge.target)): edge for edge in graph.edges}
    expected = edges(world)
    assert drawn.keys() == expected.keys()
    for key, edge in drawn.items():
        one = expected[key]
        assert {what for what in POINTS if is_on(edge, what)} == one.points, key
        assert set(edge.rules) == one.rules, key
        assert edge.families == one.families, key
        assert edge.is_partial == is_partial(world, key, one), key
        assert (edge.source.side is Side.BOTH) == (key[0] in world.snapshot.group_by_id)
    lint_agrees(subject, world, drawn)


@examples(8)
@given(draws())
def test_the_table_decides_so(draws: Draws) -> None:
    """It is proved to decide each packet as what the arrows are held to does."""
    drawing = Drawing(draws)
    policy = World(drawing.snapshot(), drawing.names).policy
    links = tuple(replace(judge, name=f"eth{number}") for number, judge in enumerate(policy.interfaces))
    named, layout = replace(policy, interfaces=links), MarkLayout(0xFFFF0000)
    table = compile_(named, layout, first_state(named.remembering, layout)).ruleset
    assert prove(table_of(table), named).outcome is Outcome.PROVED
