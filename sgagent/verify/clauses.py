"""The clauses of a policy for one interface, direction and family, as boxes, and their far ends.

Clauses only say where to cut. What becomes of a packet is for ``evaluate`` to say, which is asked about one
packet of each part that no clause cuts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sgagent.core.addresses import NO_ADDRESSES, AddressRanges, Ranges, joined, sweep, without
from sgagent.core.evaluate import DecidedBy, Decision, Packet, evaluate
from sgagent.core.model import ICMPV6, LAST_PORT, UDP, Direction, Family, PortSet, Protocols
from sgagent.core.policy import (
    DHCP,
    LINK_LOCAL,
    MULTICAST_LISTENER_TYPES,
    NEIGHBOUR_DISCOVERY_TYPES,
    Exemption,
    ResolvedInterface,
    ResolvedPolicy,
    ResolvedRule,
)
from sgagent.verify.packets import Box, Constraints, is_disjoint, is_within, split
from sgagent.verify.views import HOP_LIMIT, ICMP_TYPE, NEAR_END, PORT, PROTOCOL, SOURCE_PORT


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoxClause:
    """Something that decides about the packets that it matches, unless a clause before it does."""

    place: int
    """In the order of deciding."""

    decided_by: DecidedBy
    peers: AddressRanges | None
    """The far ends; None for any."""

    constraints: Constraints = ()
    rule: ResolvedRule | None = None
    exemption: Exemption | None = None

    @property
    def content(self) -> tuple[object, ...]:
        """Return all that matters of the clause but its far ends and its place."""
        rule = self.rule and (
            self.rule.rule_id,
            self.rule.security_group_id,
            self.rule.policy,
            self.rule.priority,
        )
        return (self.decided_by, self.constraints, rule)


def list_box_clauses(judge: ResolvedInterface, direction: Direction, family: Family) -> tuple[BoxClause, ...]:
    """Return the clauses that can match a packet of the family; the default is none of them."""
    toward = judge.toward(direction)
    made: list[BoxClause] = []
    known: dict[int, tuple[AddressRanges, bool]] = {}
    """Far ends, and whether they are everyone, by their identity: many rules have the same."""

    def add(
        decided_by: DecidedBy,
        peers: AddressRanges | None,
        constraints: Constraints = (),
        rule: ResolvedRule | None = None,
        exemption: Exemption | None = None,
    ) -> None:
        everyone = False
        if peers is not None:
            if id(peers) not in known:
                known[id(peers)] = peers, joined(peers) == ((0, family.last_address),)
            _, everyone = known[id(peers)]
        made.append(
            BoxClause(
                place=len(made),
                decided_by=decided_by,
                peers=None if everyone else peers,
                constraints=constraints,
                rule=rule,
                exemption=exemption,
            )
        )

    for peers, constraints in _always_allowed(direction, family):
        add(DecidedBy.ALWAYS, peers, constraints)
    for peers, constraints in _spoofed(judge, direction, family):
        add(DecidedBy.SPOOFED, peers, constraints)
    for decided_by, entries in (
        (DecidedBy.ALWAYS, toward.platform),
        (DecidedBy.FAILSAFE, toward.failsafe),
    ):
        for entry in entries:
            if entry.can_match(family):
                constraints = _constraints((entry.protocol,), entry.ports)
                add(decided_by, ((entry.peer.first, entry.peer.last),), constraints, exemption=entry)
    if toward.inner.ranges(family):
        add(DecidedBy.INNER, toward.inner.ranges(family))
    for rule in toward.rules:
        if rule.can_match(family):
            protocols = rule.protocols_of(family)
            constraints = _constraints(protocols, rule.ports, rule.source_ports, rule.near_ends)
            add(DecidedBy.RULE, rule.peer.addresses.ranges(family), constraints, rule=rule)
    return tuple(made)


def _constraints(
    protocols: Protocols,
    ports: PortSet,
    source_ports: PortSet | None = None,
    near_ends: tuple[int, int] | None = None,
) -> Constraints:
    found: list[tuple[str, Ranges]] = []
    numbers = [one.number for one in protocols if one.number is not None]
    if len(numbers) == len(protocols):  # else one of them is any
        found.append((PROTOCOL, joined((number, number) for number in numbers)))
    if not ports.is_all:
        found.append((PORT, joined(ports.ranges)))
    if source_ports is not None and not source_ports.is_all:
        found.append((SOURCE_PORT, joined(source_ports.ranges)))
    if near_ends is not None:
        found.append((NEAR_END, (near_ends,)))
    return tuple(found)


def _always_allowed(
    direction: Direction, family: Family
) -> Iterator[tuple[AddressRanges | None, Constraints]]:
    """Yield far ends and constraints of what a host needs to have an address at all (§7.1)."""
    server, client = DHCP[family]
    source, destination = (server, client) if direction is Direction.INGRESS else (client, server)
    ports = ((SOURCE_PORT, ((source, source),)), (PORT, ((destination, destination),)))
    yield None, ((PROTOCOL, ((UDP.wire_number, UDP.wire_number),)), *ports)
    if family is Family.IPV4:
        return
    icmpv6 = (PROTOCOL, ((ICMPV6.wire_number, ICMPV6.wire_number),))
    neighbours = (ICMP_TYPE, _numbers(NEIGHBOUR_DISCOVERY_TYPES))
    yield None, (icmpv6, neighbours, (HOP_LIMIT, ((255, 255),)))
    listeners = (icmpv6, (ICMP_TYPE, _numbers(MULTICAST_LISTENER_TYPES)), (HOP_LIMIT, ((1, 1),)))
    near = ((0, 0), LINK_LOCAL)
    if direction is Direction.INGRESS:
        yield near, listeners
    else:
        yield None, (*listeners, (NEAR_END, near))


def _spoofed(
    judge: ResolvedInterface, direction: Direction, family: Family
) -> Iterator[tuple[AddressRanges | None, Constraints]]:
    """Yield far ends and constraints of what the source check drops (§12.6)."""
    if judge.own_addresses is None:
        return
    own = judge.own_addresses.ranges(family)
    others = without(((0, family.last_address),), joined(own))
    if direction is Direction.EGRESS and others:
        yield None, ((NEAR_END, others),)
    elif direction is Direction.INGRESS and own:
        yield own, ()


def _numbers(numbers: Iterable[int]) -> Ranges:
    return joined((number, number) for number in numbers)


@dataclass(frozen=True, slots=True)
class Cell:
    """A part of all packets in which no clause has a border that could matter, and who decides in it."""

    box: Box
    clause: BoxClause | None
    """The first that matches, which then matches all packets of the box; None for the default."""


def cut(box: Box, clauses: Sequence[BoxClause]) -> Iterator[Cell]:
    """Cut a box by clauses, in order.

    In each cell every clause before the one that decides matches no packet, and that one matches all: so all
    packets have the same first clause that matches.
    """
    waiting: list[tuple[Box, int]] = [(box, 0)]
    while waiting:
        part, first = waiting.pop()
        for number in range(first, len(clauses)):
            clause = clauses[number]
            if is_disjoint(part, clause.constraints):
                continue
            if is_within(part, clause.constraints):
                yield Cell(part, clause)
            else:
                inside, outside = split(part, clause.constraints)
                if inside is not None:
                    yield Cell(inside, clause)
                waiting += ((piece, number + 1) for piece in outside)
            break
        else:
            yield Cell(part, None)


class ClauseIndex:
    """Clauses by protocol and port."""

    def __init__(self, clauses: Sequence[BoxClause]) -> None:
        """Sort clauses into segments of ports."""
        self._portless = [clause for clause in clauses if _ports_of(clause) is None]
        ported = [clause for clause in clauses if _ports_of(clause) is not None]
        spans = ((number, _ports_of(clause) or ()) for number, clause in enumerate(ported))
        self._segments = [
            (first, last, tuple(ported[number] for number in here))
            for first, last, here in sweep(spans, LAST_PORT)
        ]
        self._starts = [first for first, _, _ in self._segments]

    def meeting(self, box: Box) -> tuple[BoxClause, ...]:
        """Return the clauses that match a packet of a box, in order."""
        found = {clause.place: clause for clause in self._portless}
        for first, last in box[PORT]:
            place = max(bisect_right(self._starts, first) - 1, 0)
            while place < len(self._segments) and self._segments[place][0] <= last:
                found.update((clause.place, clause) for clause in self._segments[place][2])
                place += 1
        return tuple(
            found[place] for place in sorted(found) if not is_disjoint(box, found[place].constraints)
        )


def _ports_of(clause: BoxClause) -> Ranges | None:
    return next((ranges for dimension, ranges in clause.constraints if dimension == PORT), None)


class RestrictedPolicy:
    """The policy of one interface and direction, restricted to clauses: all that contain a far end."""

    def __init__(self, judge: ResolvedInterface, direction: Direction) -> None:
        """Restrict nothing yet."""
        self._judge = judge
        self._direction = direction
        self._last: tuple[list[int], ResolvedPolicy] | None = None
        """The places of clauses, and the policy that has them: cells of one box have the same."""

    def decide(self, clauses: Sequence[BoxClause], packet: Packet) -> Decision:
        """Return what the policy says of a packet if it has only these clauses, in order."""
        places = [clause.place for clause in clauses]
        if self._last is None or self._last[0] != places:
            self._last = places, self._policy(clauses)
        return evaluate(self._last[1], packet)

    def _policy(self, clauses: Sequence[BoxClause]) -> ResolvedPolicy:
        toward = self._judge.toward(self._direction)
        exempt = {clause.exemption for clause in clauses if clause.exemption is not None}
        is_inner = any(clause.decided_by is DecidedBy.INNER for clause in clauses)
        toward = replace(
            toward,
            platform=tuple(entry for entry in toward.platform if entry in exempt),
            failsafe=tuple(entry for entry in toward.failsafe if entry in exempt),
            inner=toward.inner if is_inner else NO_ADDRESSES,
            rules=tuple(clause.rule for clause in clauses if clause.rule is not None),
        )
        inwards = self._direction is Direction.INGRESS
        judge = replace(self._judge, ingress=toward) if inwards else replace(self._judge, egress=toward)
        if not any(clause.decided_by is DecidedBy.SPOOFED for clause in clauses):
            judge = replace(judge, own_addresses=None)
        return ResolvedPolicy(unbound=judge)
