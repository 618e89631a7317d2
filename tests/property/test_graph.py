"""The graph of who may talk to whom is what judging packets between all members at every border says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations, product

from hypothesis import given

from sgagent.analysis.cells import LAST_CODE, code_of
from sgagent.analysis.graph.edges import make_graph
from sgagent.analysis.graph.elements import AllowedTraffic, Side
from sgagent.analysis.lint.one_sided import closed_elsewhere
from sgagent.analysis.lint.rule_reach import RuleKey, key_of
from sgagent.analysis.lint.subject import LintSubject, make_subject
from sgagent.core.addresses import holds, joined
from sgagent.core.binding import bind_everywhere
from sgagent.core.clauses import DecidedBy
from sgagent.core.evaluate import Decision, Packet, evaluate
from sgagent.core.members import members_by_group
from sgagent.core.model import (
    ALL_PORTS,
    PORTED_NUMBERS,
    UDP,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    GroupType,
    NetworkInterface,
    Policy,
    PortSet,
    PrefixListReference,
    Protocol,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.core.policy import DHCP, ResolvedPolicy, ResolvedRule
from sgagent.core.resolve import Exemptions, resolve
from sgagent.core.rule_values import canonical_objects
from tests.draws import Draws
from tests.strategies import draws, examples, noted_snapshot

MOST_RULES = 4
ALWAYS = {code_of(UDP.wire_number, port) for pair in DHCP.values() for port in pair}
"""The ports of DHCP, among which packets pass that no group has a say in (§7.1)."""

Point = tuple[int, int | None]
"""A protocol and a destination port."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Everything that packets of a snapshot are drawn from."""

    snapshot: Snapshot
    policy: ResolvedPolicy

    @property
    def rules(self) -> list[ResolvedRule]:
        """Return every rule on every interface."""
        return [
            rule
            for judge in self.policy.interfaces
            for direction in Direction
            for rule in judge.toward(direction).rules
        ]

    def points(self) -> list[Point]:
        """Return each protocol that anybody names, and one that nobody does, with ports at every border."""
        protocols = {protocol for rule in self.rules for protocol in rule.protocols}
        numbers = {protocol.number for protocol in protocols if protocol.number is not None}
        ranges = [ends for rule in self.rules for ends in rule.ports.ranges]
        ports = {1, *(border for first, last in ranges for border in (first, last + 1) if border <= 65535)}
        plain: list[Point] = [(number, None) for number in sorted({*numbers, 254} - set(PORTED_NUMBERS))]
        ported = product(PORTED_NUMBERS, sorted(ports))
        return plain + [what for what in ported if code_of(*what) not in ALWAYS]

    def source_ports(self) -> list[int]:
        """Return source ports at every border."""
        ranges = [ends for rule in self.rules for ends in rule.source_ports.ranges]
        return sorted({1, *(one for first, last in ranges for one in (first, last + 1) if one <= 65535)})

    def addresses(self, family: Family) -> list[int]:
        """Return addresses at every border."""
        borders = {0}
        for rule in self.rules:
            near = rule.local_address
            ranges = [ends for peer in rule.peer.objects for ends in peer.addresses.ranges(family)]
            ranges += [(near.first, near.last)] if near and near.family is family else []
            borders |= {border for first, last in ranges for border in (first, last + 1)}
        for interface in self.snapshot.network_interfaces:
            own = (block for block in interface.addresses if block.family is family)
            borders |= {border for block in own for border in (block.first, block.last + 1)}
        borders |= {border + 1 for border in borders}  # a packet takes two addresses, maybe of one network
        return sorted(border for border in borders if border <= family.last_address)

    def at(self, interface: NetworkInterface, family: Family) -> list[int]:
        """Return the addresses of an interface that any border tells apart."""
        blocks = [block for block in interface.addresses if block.family is family]
        return [a for a in self.addresses(family) if any(block.first <= a <= block.last for block in blocks)]

    def judged_at(self, interface: NetworkInterface, family: Family) -> list[int]:
        """Return the same; of an interface that lists none of the family, the addresses that nobody has."""
        if any(block.family is family for block in interface.addresses):
            return self.at(interface, family)
        interfaces = self.snapshot.network_interfaces
        taken = [block for one in interfaces for block in one.addresses if block.family is family]
        near = [rule.local_address for rule in self.rules if rule.local_address is not None]
        told_apart = [*taken, *(block for block in near if block.family is family)]
        borders = {0, *(border for block in told_apart for border in (block.first, block.last + 1))}
        borders |= {border + 1 for border in borders}
        return [
            address
            for address in borders
            if address <= family.last_address
            and not any(block.first <= address <= block.last for block in taken)
        ]

    def is_elsewhere(self, here: NetworkInterface, family: Family, near: int, far: int) -> bool:
        """Tell whether a packet may go from an address of an interface to an address that it has, too."""
        return near != far and any(
            other is not here
            and any(block.family is family and block.first <= far <= block.last for block in other.addresses)
            for other in self.snapshot.network_interfaces
        )


def ends_of(snapshot: Snapshot) -> Ends:
    """Resolve definitions wherever groups are attached."""
    return Ends(snapshot, resolve(snapshot, bind_everywhere(snapshot), Exemptions()).policy)


def packet(
    interface: str, direction: Direction, ends: tuple[Family, int, int], what: Point, port: int
) -> Packet:
    """Return a packet between two addresses."""
    family, source, target = ends
    protocol, destination_port = what
    return Packet(
        interface=interface,
        direction=direction,
        family=family,
        source=source,
        destination=target,
        protocol=protocol,
        source_port=None if destination_port is None else port,
        destination_port=destination_port,
    )


def permitted(ends: Ends) -> dict[tuple[str, str], set[Point]]:
    """Return, of each pair of groups, what gets out of one and into the other, by rules that name them."""
    found: dict[tuple[str, str], set[Point]] = defaultdict(set)
    interfaces = ends.snapshot.network_interfaces
    for (one, other), family in product(permutations(interfaces, 2), Family):
        pairs = product(ends.at(one, family), ends.at(other, family))
        for (source, target), what, port in product(pairs, ends.points(), ends.source_ports()):
            if source == target or (what[1] is None and port != 1):
                continue
            way = (family, source, target)
            leaving = packet(one.network_interface_id, Direction.EGRESS, way, what, port)
            coming = packet(other.network_interface_id, Direction.INGRESS, way, what, port)
            decisions = evaluate(ends.policy, leaving), evaluate(ends.policy, coming)
            if all(decision.verdict is Policy.ACCEPT for decision in decisions):
                for pair in named(ends.snapshot, (one, other), decisions, way):
                    found[pair].add(what)
    return found


def named(
    snapshot: Snapshot,
    hosts: tuple[NetworkInterface, NetworkInterface],
    decisions: tuple[Decision, Decision],
    way: tuple[Family, int, int],
) -> Iterator[tuple[str, str]]:
    """Yield the pairs of groups whom the deciding rules name, of whom the two hosts are."""
    (sender, receiver), (out, into) = hosts, decisions
    for target in named_groups(snapshot, out).intersection(receiver.security_group_ids):
        yield out.rule.security_group_id if out.rule else "", target
    for source in named_groups(snapshot, into).intersection(sender.security_group_ids):
        yield source, into.rule.security_group_id if into.rule else ""
    if into.decided_by is DecidedBy.INNER:
        members = members_by_group(snapshot)
        for group_id in receiver.security_group_ids:
            group = snapshot.group_by_id[group_id]
            lets = group.group_type is GroupType.BASIC and group.inner_access_policy is Policy.ACCEPT
            if lets and group_id in sender.security_group_ids and members[group_id].contains(*way[:2]):
                yield group_id, group_id


def named_groups(snapshot: Snapshot, decision: Decision) -> set[str]:
    """Return the groups that are objects of the rule that decided."""
    if decision.rule is None:
        return set()
    group = snapshot.group_by_id[decision.rule.security_group_id]
    (rule,) = [rule for rule in group.rules if rule.rule_id == decision.rule.rule_id]
    return {one.security_group_id for one in rule.authorization_objects if isinstance(one, GroupReference)}


def definitions(draws: Draws) -> Snapshot:
    """Return definitions that often speak of groups, and whose members are all on interfaces."""
    snapshot = noted_snapshot(draws, most_rules=MOST_RULES)
    ids = [group.security_group_id for group in snapshot.security_groups]

    def of_a_group(rule: SecurityGroupRule) -> SecurityGroupRule:
        if not draws.chance(60):
            return rule
        others = () if draws.chance(80) else rule.authorization_objects
        objects = canonical_objects([GroupReference(draws.choice(ids)), *others])
        return replace(rule, authorization_objects=objects)

    return replace(
        snapshot,
        security_groups=tuple(
            replace(group, member_addresses=(), account_id=None, rules=tuple(map(of_a_group, group.rules)))
            for group in snapshot.security_groups
        ),
    )


@examples(30)
@given(draws())
def test_edges_between_groups_are_what_both_ends_let_pass(draws: Draws) -> None:
    """No point at any border passes between members without being on the edge, and none on it fails to."""
    ends = ends_of(definitions(draws))
    graph = make_graph(make_subject(ends.snapshot, Exemptions()))
    drawn = {
        (edge.source.name, edge.target.name): edge.traffic
        for edge in graph.edges
        if edge.source.side is edge.target.side is Side.BOTH
    }
    expected = permitted(ends)
    for pair in {*drawn, *expected}:
        on_edge = {what for what in ends.points() if is_on(drawn.get(pair, AllowedTraffic()), what)}
        assert on_edge == expected.get(pair, set()), pair


def permitted_beyond(ends: Ends) -> dict[tuple[str, str], set[Point]]:
    """Return what passes between groups and what is none, by ids of nodes and the rules that decide."""
    found: dict[tuple[str, str], set[Point]] = defaultdict(set)
    for one, family, direction in product(ends.snapshot.network_interfaces, Family, Direction):
        pairs = [
            (near, far)
            for near, far in product(ends.judged_at(one, family), ends.addresses(family))
            if near != far
            if not any(block.family is family and block.first <= far <= block.last for block in one.addresses)
            or ends.is_elsewhere(one, family, near, far)
        ]
        for (near, far), what, port in product(pairs, ends.points(), ends.source_ports()):
            if what[1] is None and port != 1:
                continue
            inwards = direction is Direction.INGRESS
            way = (family, far, near) if inwards else (family, near, far)
            rule = evaluate(ends.policy, packet(one.network_interface_id, direction, way, what, port)).rule
            if rule is None or rule.policy is Policy.DROP:
                continue
            for name in beyond(ends.snapshot, rule, family, far):
                found[
                    (name, rule.security_group_id) if inwards else (rule.security_group_id, f"to {name}")
                ].add(what)
    return found


def beyond(snapshot: Snapshot, rule: ResolvedRule, family: Family, far: int) -> Iterator[str]:
    """Yield the names of those of a rule's objects that hold a far end and are no groups."""
    group = snapshot.group_by_id[rule.security_group_id]
    (written,) = [one for one in group.rules if one.rule_id == rule.rule_id]
    for what in written.authorization_objects:
        blocks: tuple[CidrBlock, ...] = (what,) if isinstance(what, CidrBlock) else ()
        if isinstance(what, PrefixListReference):
            blocks = snapshot.prefix_list_by_id[what.prefix_list_id].entries
        if any(block.family is family and block.first <= far <= block.last for block in blocks):
            yield "anywhere" if isinstance(what, CidrBlock) and what.is_everything else str(what)


@examples(4)
@given(draws())
def test_edges_beyond_groups_are_what_this_end_lets_pass(draws: Draws) -> None:
    """For networks, lists and anywhere too: each point that an accept decides about, and no other."""
    ends = ends_of(definitions(draws))
    attached = {group for one in ends.snapshot.network_interfaces for group in one.security_group_ids}
    graph = make_graph(make_subject(ends.snapshot, Exemptions()))
    drawn = {
        (str(edge.source), str(edge.target)): edge.traffic
        for edge in graph.edges
        if edge.source.side is not edge.target.side
        if not attached.isdisjoint((edge.source.name, edge.target.name))
    }
    expected = permitted_beyond(ends)
    for pair in {*drawn, *expected}:
        on_edge = {what for what in ends.points() if is_on(drawn.get(pair, AllowedTraffic()), what)}
        assert on_edge == expected.get(pair, set()), pair


@examples(30)
@given(draws())
def test_one_sided_rules_are_those_that_the_other_end_drops(draws: Draws) -> None:
    """No point of what is found passes the other end; of each other part of an accept some point does."""
    drawn = definitions(draws)
    groups = (
        replace(
            group,
            rules=tuple(replace(rule, source_ports=ALL_PORTS, local_address=None) for rule in group.rules),
        )
        for group in drawn.security_groups
    )
    ends = ends_of(replace(drawn, security_groups=tuple(groups)))
    subject = make_subject(ends.snapshot, Exemptions())
    found = {key: codes for _, key, codes in closed_elsewhere(subject)}
    for key, (_, rule) in subject.rules.items():
        what, *others = rule.authorization_objects
        if rule.policy is Policy.DROP or key not in subject.decided:
            continue
        if others or not isinstance(what, GroupReference):
            assert key not in found
            continue
        families = families_decided(subject, key)
        passing = passing_elsewhere(ends, rule.direction, key[0], what.security_group_id, families)
        if passing is None:
            assert key not in found
            continue
        closed = found.get(key, ())
        for first, last in {*closed, *codes_of_rule(rule, families)}:
            if any(first <= code <= last for code in ALWAYS):
                continue  # a part passes, whatever the other end's rules
            asked = {what for what in ends.points() if first <= code_of(what[0], what[1] or 0) <= last}
            assert not asked or bool(asked & passing) is ((first, last) not in closed)


def families_decided(subject: LintSubject, key: RuleKey) -> set[Family]:
    """Return the families in which a rule decides about any packet."""
    return {
        family
        for _, reach in subject.reaches
        for family, clause in reach.deciding_clauses
        if clause.rule is not None and key_of(clause.rule) == key
    }


def passing_elsewhere(
    ends: Ends, direction: Direction, near: str, far: str, families: set[Family]
) -> set[Point] | None:
    """Return what the hosts of a group let pass from or to members of another; None if there are no pairs."""
    interfaces = ends.snapshot.network_interfaces
    here = [one for one in interfaces if near in one.security_group_ids]
    there = [one for one in interfaces if far in one.security_group_ids]
    found, pairs = set[Point](), 0
    for one, other, family in product(here, there, families):
        for mine, theirs in product(ends.at(one, family), ends.at(other, family)):
            pairs += 1
            is_sent = direction is Direction.EGRESS
            way = (family, mine, theirs) if is_sent else (family, theirs, mine)
            opposite = Direction.INGRESS if is_sent else Direction.EGRESS
            for what in ends.points():
                judged = packet(other.network_interface_id, opposite, way, what, 1)
                if evaluate(ends.policy, judged).verdict is Policy.ACCEPT:
                    found.add(what)
    return found if pairs else None


def codes_of_rule(rule: SecurityGroupRule, families: set[Family]) -> Iterator[tuple[int, int]]:
    """Yield the runs of protocols and ports that a rule names, of protocols that any of the families has."""
    for protocol in rule.protocols:
        number = protocol.number
        if protocol.only_family is not None and protocol.only_family not in families:
            continue
        if number is None:
            yield 0, LAST_CODE
        elif protocol.has_ports and isinstance(rule.ports, PortSet):
            ranges = joined(rule.ports.ranges)
            yield from ((code_of(number, first), code_of(number, last)) for first, last in ranges)
        elif not protocol.has_ports:
            yield code_of(number), code_of(number, 65535)


def is_on(traffic: AllowedTraffic, what: Point) -> bool:
    """Tell whether an edge carries a point."""
    protocol, port = what
    return holds(
        traffic.others if port is None else traffic.ports(Protocol(protocol)),
        protocol if port is None else port,
    )
