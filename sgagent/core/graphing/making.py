"""Find out who may talk to whom: exactly, by what decides, so that an accept behind a drop is no edge.

Between groups an edge takes both ends: what the source's groups let out, and what the target's let in. Of
what is no group only this end is known. The configuration's lists are left out: no group has a say in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from sgagent.core.addresses import AddressSet
from sgagent.core.comparing.boxes import ALL_PORTS, Box, Columns, cut_into_boxes
from sgagent.core.comparing.clauses import Clause, list_clauses
from sgagent.core.evaluate import DecidedBy
from sgagent.core.graphing.graph import (
    ANYWHERE,
    Edge,
    Graph,
    Node,
    NodeId,
    NodeKind,
    Outward,
    Side,
    order,
)
from sgagent.core.graphing.traffic import NO_TRAFFIC, Traffic
from sgagent.core.intervals import Ranges, common, joined, without
from sgagent.core.lint.reach import key_of
from sgagent.core.lint.subject import Stand, Subject
from sgagent.core.model import (
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    GroupType,
    Policy,
    PrefixListReference,
    SecurityGroup,
)

Tick = Callable[[], None]


def make_graph(subject: Subject, tick: Tick = lambda: None) -> Graph:
    """Return who may talk to whom.

    Args:
        subject: definitions, and what they come to wherever groups are attached.
        tick: is called after each stand.
    """
    places = tuple(_Place(number, subject, stand) for number, stand in enumerate(subject.stands))
    finder = _Finder(subject, places)
    for place in places:
        finder.look_inwards(place)
        finder.look_outwards(place)
        tick()
    return finder.graph()


@dataclass(frozen=True, eq=False)
class _Place:
    """Where groups are attached together, and which addresses are there."""

    number: int
    subject: Subject
    stand: Stand

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the groups that are attached."""
        return self.stand.judge.security_group_ids

    @cached_property
    def addresses(self) -> Mapping[Family, Ranges]:
        """Return the addresses of the interfaces; where a group is attached nowhere, those of its members."""
        interfaces = self.subject.snapshot.interface_by_id
        blocks = [block for name in self.stand.interfaces for block in interfaces[name].addresses]
        found = AddressSet.of(blocks)
        if not self.stand.interfaces:
            found = found.union(*(self.subject.members[group] for group in self.groups))
        return {family: joined(found.ranges(family)) for family in Family}

    @cached_property
    def accepted(self) -> Mapping[Direction, tuple[Box[Clause], ...]]:
        """Return disjoint boxes of what is accepted, each with what decides."""
        return {direction: tuple(self._accepted(direction)) for direction in Direction}

    def _accepted(self, direction: Direction) -> Iterator[Box[Clause]]:
        for family in Family:
            if self.addresses[family]:
                clauses = list_clauses(self.stand.judge, direction, family)
                yield from cut_into_boxes([clauses], family, _accepting, skip=_drops_all)

    def is_here(self, box: Box[Clause]) -> bool:
        """Tell whether a box of packets has a near end here."""
        return bool(common(box.locals, self.addresses[box.family]))

    def is_anywhere_here(self, box: Box[Clause]) -> bool:
        """Tell whether every address of this place is a near end of the box."""
        return not without(self.addresses[box.family], box.locals)


def _accepting(columns: Columns) -> Clause | None:
    ((first, *_),) = columns
    return first if first.policy is Policy.ACCEPT else None


def _drops_all(columns: Columns) -> bool:
    (column,) = columns
    return not any(clause.policy is Policy.ACCEPT for clause in column)


@dataclass(slots=True)
class _Found:
    """What was found of one edge."""

    by_place: dict[int, Traffic] = field(default_factory=dict)
    """Of each place of the group whose rule it is, what may be sent there."""

    rules: set[str] = field(default_factory=set)
    families: set[Family] = field(default_factory=set)
    is_partial: bool = False


class _Finder:
    """Collects edges place by place."""

    def __init__(self, subject: Subject, places: tuple[_Place, ...]) -> None:
        self._subject = subject
        self._edges: dict[tuple[NodeId, NodeId, str], _Found] = {}
        self._at: dict[str, list[_Place]] = {}
        for place in places:
            for group in place.groups:
                self._at.setdefault(group, []).append(place)

    def look_inwards(self, place: _Place) -> None:
        """Find who may talk to the groups of a place."""
        for box in place.accepted[Direction.INGRESS]:
            if not place.is_here(box):
                continue
            clause = box.label
            if clause.decided_by is DecidedBy.INNER:
                for group in self._friendly(place, box):
                    self._add_inwards(place, box, _group(group), _group(group))
            elif clause.rule is not None:
                source = self._object(clause, Side.SOURCE)
                self._add_inwards(place, box, source, _group(clause.rule.security_group_id))

    def _friendly(self, place: _Place, box: Box[Clause]) -> Iterator[str]:
        """Yield the groups of a place whose members may talk, and have some in the box."""
        for group_id in place.groups:
            group = self._subject.snapshot.group_by_id[group_id]
            if group.group_type is GroupType.BASIC and group.inner_access_policy is Policy.ACCEPT:
                members = joined(self._subject.members[group_id].ranges(box.family))
                if common(members, box.peers):
                    yield group_id

    def _add_inwards(self, place: _Place, box: Box[Clause], source: NodeId, target: NodeId) -> None:
        if source.side is Side.BOTH:
            traffic, is_partial = self._beyond(source.name, place, box, Direction.EGRESS)
        else:
            traffic, is_partial = Traffic.of(box), _is_part_of_object(box)
        is_partial = is_partial or not place.is_anywhere_here(box)
        self._add((source, target, target.name), place, box, traffic, is_partial=is_partial)

    def look_outwards(self, place: _Place) -> None:
        """Find whom the groups of a place may talk to."""
        for box in place.accepted[Direction.EGRESS]:
            rule = box.label.rule
            if rule is None or not place.is_here(box):
                continue
            target, source = self._object(box.label, Side.TARGET), _group(rule.security_group_id)
            if target.side is Side.BOTH:
                traffic, is_partial = self._beyond(target.name, place, box, Direction.INGRESS)
            else:
                traffic, is_partial = Traffic.of(box), _is_part_of_object(box)
            is_partial = is_partial or not place.is_anywhere_here(box)
            self._add((source, target, source.name), place, box, traffic, is_partial=is_partial)

    def _beyond(
        self, group: str, place: _Place, box: Box[Clause], direction: Direction
    ) -> tuple[Traffic, bool]:
        """Return what members of a group let through, of what a place does, and whether that is a part.

        Args:
            group: at the far end.
            place: at the near end.
            box: what the place accepts.
            direction: in which it passes the far end.
        """
        members = joined(self._subject.members[group].ranges(box.family))
        due, found, is_partial = Traffic.of(box), NO_TRAFFIC, bool(without(members, box.peers))
        near, free = common(place.addresses[box.family], box.locals), members
        for one in self._at.get(group, ()):
            far = common(one.addresses[box.family], box.peers)
            free = without(free, one.addresses[box.family])
            if far:
                passing = NO_TRAFFIC
                for there in one.accepted[direction]:
                    passing |= _met(box, there, near, far)
                is_partial = is_partial or passing != due
                found |= passing
        if common(
            free, box.peers
        ):  # members on no interface of the documents: nothing is known to judge them
            found = due
        return found, is_partial

    def _add(
        self,
        key: tuple[NodeId, NodeId, str],
        place: _Place,
        box: Box[Clause],
        traffic: Traffic,
        *,
        is_partial: bool,
    ) -> None:
        if not traffic:
            return
        found = self._edges.setdefault(key, _Found())
        found.by_place[place.number] = found.by_place.get(place.number, NO_TRAFFIC) | traffic
        found.families.add(box.family)
        found.is_partial = found.is_partial or is_partial or box.source_ports != ALL_PORTS
        if box.label.rule is not None:
            found.rules.add(box.label.rule.rule_id)

    def _object(self, clause: Clause, side: Side) -> NodeId:
        """Return the node that a rule's object is."""
        assert clause.rule is not None  # noqa: S101 - asked of rules only; for the type checker
        what = self._subject.rules[key_of(clause.rule)][1].authorization_object
        match what:
            case GroupReference():
                return _group(what.security_group_id)
            case PrefixListReference():
                return NodeId(name=what.prefix_list_id, side=side)
            case CidrBlock():
                return NodeId(name=ANYWHERE if what.is_everything else str(what), side=side)

    def graph(self) -> Graph:
        """Return all that was found."""
        merged: dict[tuple[NodeId, NodeId], Edge] = {}
        for (source, target, owner), found in self._edges.items():
            edge = self._edge(source, target, owner, found)
            present = merged.get((source, target))
            merged[source, target] = edge if present is None else _both(present, edge)
        ends = {end for pair in merged for end in pair}
        nodes = [self._group_node(group) for group in self._subject.snapshot.security_groups]
        nodes += [Node(node_id=end, kind=_kind(end.name)) for end in ends if end.side is not Side.BOTH]
        return Graph(
            nodes=tuple(sorted(nodes, key=lambda node: order(node.node_id))),
            edges=tuple(sorted(merged.values(), key=lambda edge: (order(edge.source), order(edge.target)))),
        )

    def _edge(self, source: NodeId, target: NodeId, owner: str, found: _Found) -> Edge:
        traffic = NO_TRAFFIC
        for part in found.by_place.values():
            traffic |= part
        everywhere = all(
            found.by_place.get(place.number) == traffic
            for place in self._at[owner]
            if any(place.addresses.values())
        )
        return Edge(
            source=source,
            target=target,
            traffic=traffic,
            rules=tuple(sorted(found.rules)),
            families=frozenset(found.families),
            is_partial=found.is_partial or not everywhere,
        )

    def _group_node(self, group: SecurityGroup) -> Node:
        group_id = group.security_group_id
        return Node(
            node_id=_group(group_id),
            kind=NodeKind.GROUP,
            title=group.name,
            outward=_outward(self._at.get(group_id, ())),
            together_with=frozenset(
                _group(other)
                for place in self._at.get(group_id, ())
                if any(place.addresses.values())
                for other in place.groups
                if other != group_id
            ),
        )


def _met(here: Box[Clause], there: Box[Clause], near: Ranges, far: Ranges) -> Traffic:
    """Return what passes both ends, between some of the near addresses and some of the far ones."""
    passes = (
        here.family is there.family
        and common(here.source_ports, there.source_ports)
        and common(common(here.locals, there.peers), near)
        and common(common(there.locals, here.peers), far)
    )
    return Traffic.of(here) & Traffic.of(there) if passes else NO_TRAFFIC


def _is_part_of_object(box: Box[Clause]) -> bool:
    """Tell whether a box leaves out some addresses of the object of the rule that decides about it."""
    rule = box.label.rule
    return rule is not None and bool(without(joined(rule.peer.addresses.ranges(box.family)), box.peers))


def _outward(places: Iterable[_Place]) -> Outward | None:
    """Return what becomes of what members open and no rule speaks of; None where there is no member."""
    found = {
        any(
            box.family is family and box.label.decided_by is DecidedBy.DEFAULT and place.is_here(box)
            for box in place.accepted[Direction.EGRESS]
        )
        for place in places
        for family in Family
        if place.addresses[family]
    }
    if not found:
        return None
    return Outward.PARTLY if len(found) > 1 else Outward.OPEN if True in found else Outward.CLOSED


def _both(one: Edge, other: Edge) -> Edge:
    """Return what was found at both ends as one edge; it is whole if either end alone says all of it."""
    traffic = one.traffic | other.traffic
    is_whole = any(edge.traffic == traffic and not edge.is_partial for edge in (one, other))
    return Edge(
        source=one.source,
        target=one.target,
        traffic=traffic,
        rules=tuple(sorted({*one.rules, *other.rules})),
        families=one.families | other.families,
        is_partial=not is_whole,
    )


def _group(group_id: str) -> NodeId:
    return NodeId(name=group_id, side=Side.BOTH)


def _kind(name: str) -> NodeKind:
    if name == ANYWHERE:
        return NodeKind.ANYWHERE
    return NodeKind.NETWORK if _is_cidr(name) else NodeKind.PREFIX_LIST


def _is_cidr(name: str) -> bool:
    try:
        CidrBlock.parse(name)
    except ValueError:
        return False
    return True
