"""Header space: partition the packets of one direction and family into boxes that the same clauses decide.

A box is a set of far ends, times a set of protocols, destination ports, source ports and near ends. The
partition is exact: far ends are sorted into classes by the clauses that name them, then a sweep cuts ports,
source ports and near ends. Several decision lists may be cut together, to compare them. Parts in which they
agree are not cut.

A packet too short to hold ports is decided as one from port 0 to port 0, which no document can name.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from sgagent.compiler.class_chains import classify
from sgagent.core.addresses import AddressRanges, Ranges, joined, ranges_of, sweep, without
from sgagent.core.evaluate import DecidedBy
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    LAST_PORT,
    PORTED_NUMBERS,
    UDP,
    Direction,
    Family,
    Policy,
    PortSet,
    Protocols,
)
from sgagent.core.policy import DHCP, Exemption, ResolvedInterface, ResolvedRule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clause:
    """Something that decides about the packets that it matches, unless a clause before it does.

    A clause is itself only: two that say the same are two.
    """

    decided_by: DecidedBy
    policy: Policy
    addresses: AddressRanges
    """Of the far end, in the family that the list is of."""

    protocols: tuple[int, ...] | None = None
    """Sorted; None is every one."""

    ports: PortSet = ALL_PORTS
    """Destination ports."""

    source_ports: PortSet = ALL_PORTS
    local: tuple[int, int] | None = None
    """First and last address of the near end; None is any."""

    rule: ResolvedRule | None = None
    """The rule, where it is one."""

    exemption: Exemption | None = None
    """The entry of the configuration's lists, where it is one."""

    def is_for_everyone(self, family: Family) -> bool:
        """Return whether the far end may be any address of the family."""
        return self.addresses == ((0, family.last_address),)

    def may_have(self, protocol: int | None) -> bool:
        """Return whether packets of a protocol can match; None is one that no clause names."""
        return self.protocols is None or protocol in self.protocols

    @property
    def speaks_of_ports(self) -> bool:
        """Return whether no packet without ports matches."""
        return not (self.ports.is_all and self.source_ports.is_all)

    @property
    def content(self) -> tuple[object, ...]:
        """Return all but whom it speaks of and what it is called: equal contents decide alike."""
        return (self.policy, self.protocols, self.ports, self.source_ports, self.local)


def list_clauses(judge: ResolvedInterface | None, direction: Direction, family: Family) -> tuple[Clause, ...]:
    """Return the clauses that can match a packet of the family, the first that decides first.

    Args:
        judge: what judges the packets of a link; None where nothing does (§2.3).
        direction: which way sessions are opened.
        family: of the packets.
    """
    everyone = ((0, family.last_address),)
    if judge is None:
        return (Clause(decided_by=DecidedBy.UNBOUND, policy=Policy.ACCEPT, addresses=everyone),)
    toward = judge.toward(direction)
    clauses = list(_spoofed(judge, direction, family))
    clauses += _exemptions(toward.platform, DecidedBy.ALWAYS, family)
    clauses += _exemptions(toward.failsafe, DecidedBy.FAILSAFE, family)
    inner = toward.inner.ranges(family)
    if inner:
        clauses.append(Clause(decided_by=DecidedBy.INNER, policy=Policy.ACCEPT, addresses=inner))
    clauses += (_rule(rule, family) for rule in toward.rules if rule.can_match(family))
    clauses.append(Clause(decided_by=DecidedBy.DEFAULT, policy=toward.default, addresses=everyone))
    return tuple(clauses)


def _spoofed(judge: ResolvedInterface, direction: Direction, family: Family) -> Iterator[Clause]:
    """Yield what the source check drops, DHCP apart (§12.6)."""
    if judge.own_addresses is None:
        return
    own, everyone = joined(judge.own_addresses.ranges(family)), ((0, family.last_address),)
    if direction is Direction.INGRESS and own:
        yield Clause(decided_by=DecidedBy.SPOOFED, policy=Policy.DROP, addresses=own)
    for local in without(everyone, own) if direction is Direction.EGRESS else ():
        yield Clause(decided_by=DecidedBy.SPOOFED, policy=Policy.DROP, addresses=everyone, local=local)


def dhcp_clause(direction: Direction, family: Family) -> Clause:
    """Return what lets DHCP pass, before all others (§7.1)."""
    server, client = DHCP[family]
    source, destination = (server, client) if direction is Direction.INGRESS else (client, server)
    return Clause(
        decided_by=DecidedBy.ALWAYS,
        policy=Policy.ACCEPT,
        addresses=((0, family.last_address),),
        protocols=(UDP.wire_number,),
        ports=PortSet.of((destination, destination)),
        source_ports=PortSet.of((source, source)),
    )


def _exemptions(entries: tuple[Exemption, ...], decided_by: DecidedBy, family: Family) -> Iterator[Clause]:
    for entry in entries:
        if entry.can_match(family):
            yield Clause(
                decided_by=decided_by,
                policy=Policy.ACCEPT,
                addresses=((entry.peer.first, entry.peer.last),),
                protocols=numbers_of((entry.protocol,)),
                ports=entry.ports,
                exemption=entry,
            )


def numbers_of(protocols: Protocols) -> tuple[int, ...] | None:
    """Return the numbers of protocols; None for all of them."""
    return None if ALL_PROTOCOLS in protocols else tuple(one.wire_number for one in protocols)


def _rule(rule: ResolvedRule, family: Family) -> Clause:
    return Clause(
        decided_by=DecidedBy.RULE,
        policy=rule.policy,
        addresses=rule.peer.addresses.ranges(family),
        protocols=numbers_of(rule.protocols_of(family)),
        ports=rule.ports,
        source_ports=rule.source_ports,
        local=rule.near_ends,
        rule=rule,
    )


Label = TypeVar("Label", bound=Hashable)

Column = tuple[Clause, ...]
"""The clauses of one list that are left for a part of all packets, the first that decides first."""

Columns = tuple[Column, ...]

ALL_PROTOCOL_NUMBERS: Ranges = ((0, 255),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box(Generic[Label]):
    """All packets that have one of each, and what was found out about them."""

    family: Family
    peers: Ranges
    """Far ends."""

    protocols: Ranges
    ports: Ranges
    """Destination ports; all of them for protocols without."""

    source_ports: Ranges
    locals: Ranges
    """Near ends."""

    label: Label


def cut_into_boxes(
    lists: Sequence[Sequence[Clause]],
    family: Family,
    label: Callable[[Columns], Label | None],
    *,
    skip: Callable[[Columns], bool] = lambda _: False,
    depth: int = 1,
) -> tuple[Box[Label], ...]:
    """Return disjoint boxes, sorted, which hold every packet but those that the callables leave out.

    Args:
        lists: one or more lists of clauses, each with a last one that matches everything.
        family: of the packets.
        label: is given, for each list, the first clauses that match a packet, at most ``depth`` of them, and
            returns what the box is labelled with; None leaves the packets out.
        skip: returns True for columns of clauses whose packets are of no interest; this prunes early.
        depth: how many matching clauses of each list ``label`` receives.
    """
    cutter = _Cutter(family, label, skip, depth)
    peers_by_row: dict[_Row[Label], list[tuple[int, int]]] = {}
    for ranges, columns in _classes(lists, family):
        if not skip(columns):
            for row in cutter.rows(columns):
                peers_by_row.setdefault(row, []).extend(ranges)
    boxes = [
        Box(
            family=family,
            peers=joined(peers),
            protocols=row[0],
            ports=row[1],
            source_ports=row[2],
            locals=row[3],
            label=row[4],
        )
        for row, peers in peers_by_row.items()
    ]
    return tuple(sorted(boxes, key=_order))


_Row = tuple[Ranges, Ranges, Ranges, Ranges, Label]
"""Protocols, destination ports, source ports, near ends and the label."""


def _order(box: Box[Label]) -> tuple[Ranges, Ranges, Ranges, Ranges, Ranges]:
    return (box.protocols, box.ports, box.peers, box.source_ports, box.locals)


def _classes(
    lists: Sequence[Sequence[Clause]], family: Family
) -> Iterator[tuple[list[tuple[int, int]], Columns]]:
    """Yield far ends, class by class, with the clauses that speak of them; all far ends occur once."""
    places: dict[Ranges, int] = {}
    speaking: list[list[list[int]]] = []  # by far end and list
    everyone: list[list[int]] = [[] for _ in lists]
    for column, clauses in enumerate(lists):
        for index, clause in enumerate(clauses):
            if clause.is_for_everyone(family):
                everyone[column].append(index)
                continue
            place = places.setdefault(clause.addresses, len(places))
            if place == len(speaking):
                speaking.append([[] for _ in lists])
            speaking[place][column].append(index)
    for peers, ranges in far_ends_by_class(places, family).items():
        yield (
            ranges,
            tuple(
                tuple(
                    clauses[index]
                    for index in sorted(
                        (*everyone[column], *(i for peer in peers for i in speaking[peer][column]))
                    )
                )
                for column, clauses in enumerate(lists)
            ),
        )


def far_ends_by_class(
    peers: Iterable[Ranges], family: Family
) -> dict[tuple[int, ...], list[tuple[int, int]]]:
    """Return the far ends that each combination of peers has; no combination is that of all others."""
    classes = classify(peers)
    members: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for address, combination in classes.addresses.items():
        members.setdefault(combination, []).append((address, address))
    singles = ranges_of(classes.addresses)
    starts, ends = [first for first, _ in singles], [last for _, last in singles]
    for first, last, combination in classes.networks:
        inside = singles[bisect_left(ends, first) : bisect_right(starts, last)]
        members.setdefault(combination, []).extend(without(((first, last),), inside))
    known = joined((*singles, *((first, last) for first, last, _ in classes.networks)))
    members[()] = list(without(((0, family.last_address),), known))
    return {combination: ranges for combination, ranges in members.items() if ranges}


@dataclass(frozen=True, slots=True)
class _Cutter(Generic[Label]):
    """Cuts what is left once the far end is settled: protocol, ports, source ports and near ends."""

    family: Family
    label: Callable[[Columns], Label | None]
    skip: Callable[[Columns], bool]
    depth: int

    def rows(self, columns: Columns) -> Iterator[_Row[Label]]:
        """Yield the rows of one class of far ends; those that differ in protocols only are one."""
        protocols: dict[_PortRow[Label], list[tuple[int, int]]] = {}
        for numbers, number in _protocols(columns):
            part = tuple(tuple(_of_protocol(column, number)) for column in columns)
            if not self.skip(part):
                for row in self._port_rows(part, has_ports=number in PORTED_NUMBERS):
                    protocols.setdefault(row, []).extend(numbers)
        for row, found in protocols.items():
            yield (joined(found), *row)

    def _port_rows(self, columns: Columns, *, has_ports: bool) -> Iterator[_PortRow[Label]]:
        """Yield the rows of one protocol; those that differ in destination ports only are one."""
        ports: dict[_EndRow[Label], list[tuple[int, int]]] = {}
        for cell, ranges in self._cells(columns, has_ports=has_ports).items():
            if not self.skip(cell):
                for row in self._source_rows(cell):
                    ports.setdefault(row, []).extend(ranges)
        for row, found in ports.items():
            yield (joined(found), *row)

    def _cells(self, columns: Columns, *, has_ports: bool) -> dict[Columns, list[tuple[int, int]]]:
        """Return the destination ports by what may decide there."""
        if not has_ports:
            return {tuple(map(self._cut_plain, columns)): list(ALL_PORTS.ranges)}
        cells: dict[Columns, list[tuple[int, int]]] = {}
        spans = ((number, clause.ports.ranges) for number, clause in _numbered(columns))
        for first, last, here in sweep(spans, LAST_PORT):
            cell = tuple(map(self._cut_plain, _clauses_at(columns, here)))
            cells.setdefault(cell, []).append((first, last))
        return cells

    def _source_rows(self, columns: Columns) -> Iterator[_EndRow[Label]]:
        """Yield the rows of a cell; those that differ in source ports only are one."""
        source_ports: dict[_NearRow[Label], list[tuple[int, int]]] = {}
        for ranges, part in _pieces(columns, LAST_PORT, _source_ports):
            for row in self._near_rows(tuple(self._cut(column, _is_anywhere) for column in part)):
                source_ports.setdefault(row, []).append(ranges)
        for row, pieces in source_ports.items():
            yield (joined(pieces), *row)

    def _near_rows(self, columns: Columns) -> Iterator[_NearRow[Label]]:
        """Yield the rows of what is settled but for the near end; those of one label are one."""
        near_ends: dict[Label, list[tuple[int, int]]] = {}
        for ranges, part in _pieces(columns, self.family.last_address, _near_end):
            label = self.label(tuple(column[: self.depth] for column in part))
            if label is not None:
                near_ends.setdefault(label, []).append(ranges)
        for label, pieces in near_ends.items():
            yield joined(pieces), label

    def _cut_plain(self, column: Iterable[Clause]) -> Column:
        return self._cut(column, _is_plain)

    def _cut(self, column: Iterable[Clause], is_settled: Callable[[Clause], bool]) -> Column:
        """Return the clauses up to the one that reaches ``depth``; later ones can't change the label."""
        kept: list[Clause] = []
        settled = 0
        for clause in column:
            kept.append(clause)
            settled += is_settled(clause)
            if settled == self.depth:
                break
        return tuple(kept)


_NearRow = tuple[Ranges, Label]
_EndRow = tuple[Ranges, Ranges, Label]
_PortRow = tuple[Ranges, Ranges, Ranges, Label]


def _protocols(columns: Columns) -> Iterator[tuple[Ranges, int | None]]:
    """Yield each protocol that has to be looked at by itself, and all others together as None."""
    numbers = set(PORTED_NUMBERS)
    numbers.update(number for column in columns for c in column for number in c.protocols or ())
    for number in sorted(numbers):
        yield ((number, number),), number
    rest = without(ALL_PROTOCOL_NUMBERS, ranges_of(numbers))
    if rest:
        yield rest, None


def _of_protocol(column: Column, number: int | None) -> Iterator[Clause]:
    """Yield the clauses that can match a packet of the protocol, or of one that no clause names."""
    for clause in column:
        if clause.may_have(number) and (number in PORTED_NUMBERS or not clause.speaks_of_ports):
            yield clause


def _pieces(
    columns: Columns, last: int, wanted: Callable[[Clause], Ranges | None]
) -> Iterator[tuple[tuple[int, int], Columns]]:
    """Cut numbers at the borders of what clauses want, with the clauses that are left for each piece."""
    found = [(number, wanted(clause)) for number, clause in _numbered(columns)]
    if all(ranges is None for _, ranges in found):
        yield (0, last), columns
        return
    spans = ((number, ((0, last),) if ranges is None else ranges) for number, ranges in found)
    for first, final, here in sweep(spans, last):
        yield (first, final), tuple(map(tuple, _clauses_at(columns, here)))


_COLUMN_BITS = 32
"""The numbers of clauses have that of their column above so many bits, and below it their place there."""


def _numbered(columns: Columns) -> Iterator[tuple[int, Clause]]:
    """Yield each clause with its number."""
    for column, clauses in enumerate(columns):
        yield from enumerate(clauses, column << _COLUMN_BITS)


def _clauses_at(columns: Columns, here: Sequence[int]) -> Iterator[Iterable[Clause]]:
    """Yield, for each column, the clauses whose numbers are given."""
    for column, clauses in enumerate(columns):
        lowest = column << _COLUMN_BITS
        first, behind = bisect_left(here, lowest), bisect_left(here, lowest + len(clauses))
        yield (clauses[number - lowest] for number in islice(here, first, behind))


def _is_plain(clause: Clause) -> bool:
    """Return whether a clause matches whatever the source port and the near end are."""
    return clause.source_ports.is_all and clause.local is None


def _is_anywhere(clause: Clause) -> bool:
    """Return whether a clause matches whatever the near end is."""
    return clause.local is None


def _source_ports(clause: Clause) -> Ranges | None:
    return None if clause.source_ports.is_all else clause.source_ports.ranges


def _near_end(clause: Clause) -> Ranges | None:
    return None if clause.local is None else (clause.local,)
