"""Edges of the graph: who may connect to whom. Exact: an accept that an earlier drop hides is no edge.

An edge between groups needs both ends: egress of the source's groups, and ingress of the target's. For an end
that is no group only the other end's rules count. No packet goes from a host to itself. Exemptions of the
configuration are left out, since no group can change them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_

from sgagent.analysis.graph.elements import (
    ANYWHERE,
    NO_TRAFFIC,
    AllowedTraffic,
    Edge,
    Graph,
    GraphNode,
    NodeId,
    NodeKind,
    Outward,
    Side,
)
from sgagent.analysis.graph.hosts import FamilyRanges, HostAddress, Places, has_two_addresses
from sgagent.analysis.header_space import Box
from sgagent.analysis.lint.rule_reach import key_of
from sgagent.analysis.lint.subject import LintSubject
from sgagent.core.addresses import NO_ADDRESSES, AddressSet, Ranges, common, joined
from sgagent.core.clauses import Clause, DecidedBy
from sgagent.core.model import (
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    Policy,
    SecurityGroup,
)
from sgagent.core.policy import Peer, ResolvedRule

Tick = Callable[[], None]


def make_graph(subject: LintSubject, tick: Tick = lambda: None) -> Graph:
    """Return who may talk to whom.

    Args:
        subject: definitions, and what they come to wherever groups are attached.
        tick: is called after each attachment.
    """
    finder = _Finder(subject, Places(subject))
    for place in finder.places.all:
        for direction in Direction:
            finder.look(place, direction)
        tick()
    return finder.graph()


@dataclass(slots=True)
class _Found:
    """The traffic and rules of one edge, by the rules of one end."""

    traffic: AllowedTraffic = NO_TRAFFIC
    rules: set[str] = field(default_factory=set)
    families: set[Family] = field(default_factory=set)
    beyond: AddressSet = NO_ADDRESSES
    """The addresses of the end that is no group."""


class _Finder:
    """Collects edges place by place."""

    def __init__(self, subject: LintSubject, places: Places) -> None:
        self._subject = subject
        self.places = places
        self._edges: dict[tuple[NodeId, NodeId, str], _Found] = {}

    def look(self, place: HostAddress, direction: Direction) -> None:
        """Find who may talk to the groups of a place, or whom they may talk to."""
        far_side = Side.SOURCE if direction is Direction.INGRESS else Side.TARGET
        for box in place.accepted_here(direction):
            clause = box.label
            if clause.decided_by is DecidedBy.INNER:
                for group in self._friendly(place, box):
                    self._add(place, box, direction, group, _group(group))
            elif clause.rule is not None:
                for node, part in self._parts(clause.rule, far_side, box):
                    self._add(place, part, direction, clause.rule.security_group_id, node)

    def _friendly(self, place: HostAddress, box: Box[Clause]) -> Iterator[str]:
        """Yield the groups of a place whose members may talk, and have some in the box."""
        for group_id in place.groups:
            lets = self._subject.snapshot.group_by_id[group_id].inner_access is Policy.ACCEPT
            if lets and common(self.places.members[group_id][box.family], box.peers):
                yield group_id

    def _add(
        self, place: HostAddress, box: Box[Clause], direction: Direction, owner: str, other: NodeId
    ) -> None:
        """Note the traffic of a box between a group of the place and another node.

        Args:
            place: at the near end.
            box: what the place accepts.
            direction: in which it passes the near end.
            owner: the group.
            other: the node at the far end.
        """
        if other.side is Side.BOTH:
            traffic = self._let_through(place, box, direction, other.name)
        else:
            near = common(box.locals, place.near[box.family])
            traffic = AllowedTraffic.of(box) if place.has_pair(box.family, near, box.peers) else NO_TRAFFIC
        if not traffic:
            return
        ends = (_group(owner), other) if direction is Direction.EGRESS else (other, _group(owner))
        found = self._edges.setdefault((*ends, owner), _Found())
        found.traffic |= traffic
        found.families.add(box.family)
        rule = box.label.rule
        if rule is not None:
            found.rules.add(rule.rule_id)
            objects = self._objects(rule, other.side) if other.side is not Side.BOTH else ()
            found.beyond = found.beyond.union(*(peer.addresses for node, peer in objects if node == other))

    def _let_through(
        self, place: HostAddress, box: Box[Clause], direction: Direction, group: str
    ) -> AllowedTraffic:
        """Return the traffic that members of a group at the far end accept, of a place's traffic."""
        family, due, found = box.family, AllowedTraffic.of(box), NO_TRAFFIC
        near = common(box.locals, place.addresses[family])
        if place.has_pair(family, near, common(self.places.unplaced(group, family), box.peers)):
            return due
        end = _End(place, box, near)
        for far_place, members in self.places.having(group):
            far = common(members[family], box.peers)
            if far:
                for there in far_place.accepted[_OPPOSITE[direction], family]:
                    if found == due:
                        return due
                    if end.meets(_End(far_place, there, far)):
                        found |= due & AllowedTraffic.of(there)
        return found

    def _parts(
        self, rule: ResolvedRule, side: Side, box: Box[Clause]
    ) -> Iterator[tuple[NodeId, Box[Clause]]]:
        """Yield the nodes that a rule's objects are, each with its part of a box that the rule decides."""
        for node, peer in self._objects(rule, side):
            held = joined(peer.addresses.ranges(box.family))
            peers = common(box.peers, held) if rule.peer.parts else box.peers
            if peers:
                yield node, replace(box, peers=peers)

    def _objects(self, rule: ResolvedRule, side: Side) -> Iterator[tuple[NodeId, Peer]]:
        """Yield the nodes that a rule's objects are, with their addresses."""
        objects = self._subject.rules[key_of(rule)][1].authorization_objects
        for what, peer in zip(objects, rule.peer.objects, strict=True):
            match what:
                case GroupReference():
                    yield _group(what.security_group_id), peer
                case CidrBlock(is_everything=True):
                    yield NodeId(name=ANYWHERE, side=side), peer
                case _:
                    yield NodeId(name=str(what), side=side), peer

    def graph(self) -> Graph:
        """Return all that was found."""
        owners: dict[tuple[NodeId, NodeId], dict[str, _Found]] = {}
        for (source, target, owner), found in self._edges.items():
            owners.setdefault((source, target), {})[owner] = found
        edges = [self._edge(source, target, found) for (source, target), found in owners.items()]
        ends = {end for pair in owners for end in pair}
        nodes = [self._group_node(group) for group in self._subject.snapshot.security_groups]
        nodes += [self._node(end) for end in ends if end.side is not Side.BOTH]
        return Graph.of(nodes, edges)

    def _edge(self, source: NodeId, target: NodeId, by_owner: Mapping[str, _Found]) -> Edge:
        """Return the traffic found at one end or both as one edge."""
        traffic = reduce(or_, (found.traffic for found in by_owner.values()))
        return Edge(
            source=source,
            target=target,
            traffic=traffic,
            rules=tuple(sorted({rule for found in by_owner.values() for rule in found.rules})),
            families=frozenset(family for found in by_owner.values() for family in found.families),
            is_partial=all(
                self._drops_some(source, target, owner, found.beyond, traffic)
                for owner, found in by_owner.items()
            ),
        )

    def _drops_some(
        self, source: NodeId, target: NodeId, owner: str, beyond: AddressSet, traffic: AllowedTraffic
    ) -> bool:
        """Return whether either end drops some of an edge's traffic: for some addresses or source ports.

        Args:
            source: of the edge.
            target: of the edge.
            owner: the group whose rules the edge comes from. Where it is attached nowhere, they judge its
                members.
            beyond: what the end that is no group stands for.
            traffic: what the edge says.
        """
        ends = ((source, Direction.EGRESS, target), (target, Direction.INGRESS, source))
        return any(
            _drops_at(place, direction, members, others, traffic)
            for near, direction, far in ends
            if near.side is Side.BOTH
            for others in (self._addresses_of(far, beyond),)
            for place, members in (
                self.places.having(near.name, alone=near.name == owner)
                if far.side is Side.BOTH
                else self.places.judging(near.name)
            )
        )

    def _addresses_of(self, node: NodeId, beyond: AddressSet) -> FamilyRanges:
        """Return the addresses of a node: a group's members, else the given ones."""
        if node.side is Side.BOTH:
            return self.places.members[node.name]
        return {family: joined(beyond.ranges(family)) for family in Family}

    def _node(self, end: NodeId) -> GraphNode:
        title = "not resolved" if end.name in self.places.stand_ins else ""
        return GraphNode(node_id=end, kind=_kind(end.name), title=title)

    def _group_node(self, group: SecurityGroup) -> GraphNode:
        group_id = group.security_group_id
        return GraphNode(
            node_id=_group(group_id),
            kind=NodeKind.GROUP,
            title=group.name,
            outward=_outward(self.places.of(group_id)),
            together_with=frozenset(
                _group(other)
                for place in self.places.of(group_id)
                if place.has_addresses
                for other in place.groups
                if other != group_id
            ),
        )


@dataclass(frozen=True, slots=True)
class _End:
    """The packets that pass one end."""

    place: HostAddress
    box: Box[Clause]
    addresses: Ranges
    """Of whom it is looked at."""

    def meets(self, other: _End) -> bool:
        """Return whether any packet between two hosts passes this end and another."""
        if not common(self.box.source_ports, other.box.source_ports):
            return False
        here = common(common(self.box.locals, other.box.peers), self.addresses)
        there = common(common(other.box.locals, self.box.peers), other.addresses)
        if self.place is other.place:
            return self.place.has_pair_here(self.box.family, here, there)
        return has_two_addresses(here, there)


def _drops_at(
    place: HostAddress,
    direction: Direction,
    here: FamilyRanges,
    there: FamilyRanges,
    traffic: AllowedTraffic,
) -> bool:
    """Return whether a place drops some traffic between hosts there and others."""
    return any(
        traffic & dropped
        and place.has_pair(family, common(box.locals, here[family]), common(box.peers, there[family]))
        for family in Family
        if here[family] and there[family]
        for dropped, box in place.dropped_by_address[direction, family].meeting(there[family])
    )


_OPPOSITE = {Direction.INGRESS: Direction.EGRESS, Direction.EGRESS: Direction.INGRESS}


def _outward(places: Iterable[HostAddress]) -> Outward | None:
    """Return the verdict on members' packets that no rule matches; None where there is no member."""
    found = {
        any(
            box.family is family and box.label.decided_by is DecidedBy.DEFAULT
            for box in place.accepted_here(Direction.EGRESS)
        )
        for place in places
        for family in Family
        if place.near[family]
    }
    if not found:
        return None
    return Outward.PARTLY if len(found) > 1 else Outward.OPEN if True in found else Outward.CLOSED


def _group(group_id: str) -> NodeId:
    return NodeId(name=group_id, side=Side.BOTH)


def _kind(name: str) -> NodeKind:
    if name == ANYWHERE:
        return NodeKind.ANYWHERE
    if name.startswith("dns:"):
        return NodeKind.NAME
    try:
        CidrBlock.parse(name)
    except ValueError:
        return NodeKind.PREFIX_LIST
    return NodeKind.NETWORK
