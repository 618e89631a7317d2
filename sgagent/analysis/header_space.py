"""Header space: partition the packets of one direction and family into boxes that the same clauses decide.

A box is a set of far ends, times a set of protocols, destination ports, source ports, near ends, users and
units. The partition is exact: far ends are sorted into classes by the clauses that name them, then a sweep
cuts the rest, one after the other. Several decision lists may be cut together, to compare them. Parts in
which they agree are not cut.

A packet too short to hold ports is decided as one from port 0 to port 0, which no document can name.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, pairwise
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

from sgagent.compiler.class_chains import classify
from sgagent.core.addresses import AddressRanges, Ranges, joined, ranges_of, sweep, without
from sgagent.core.conditions import NO_UNIT, NO_USER
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


@dataclass(frozen=True, slots=True, eq=False)
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

    user: int | None = None
    """The user whose sockets of this host it is about; None is all packets (§13.3)."""

    units: tuple[int, int] | None = None
    """The same of control groups, by the first and last number."""

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
    def makers(self) -> tuple[Ranges | None, Ranges | None]:
        """Return the users and the control groups whose sockets it is about; None is all packets."""
        users = None if self.user is None else ((self.user, self.user),)
        return users, None if self.units is None else (self.units,)

    @property
    def is_anybodys(self) -> bool:
        """Return whether it matches sockets of all users and units, and packets without one."""
        return self.user is None and self.units is None

    @property
    def content(self) -> tuple[object, ...]:
        """Return all but the addresses and the identity: equal contents decide alike."""
        return (self.policy, self.protocols, self.ports, self.source_ports, self.local, *self.makers)


def list_clauses(judge: ResolvedInterface | None, direction: Direction, family: Family) -> tuple[Clause, ...]:
    """Return the clauses that can match a packet of the family, the first that decides first.

    Args:
        judge: what judges the packets of a link; None where nothing does (§2.3).
        direction: which way sessions are opened.
        family: of the packets.
    """
    everyone = ((0, family.last_address),)
    if judge is None:
        return (Clause(DecidedBy.UNBOUND, Policy.ACCEPT, everyone),)
    toward = judge.toward(direction)
    clauses = list(_spoofed(judge, direction, family))
    clauses += _exemptions(toward.platform, DecidedBy.ALWAYS, family)
    clauses += _exemptions(toward.failsafe, DecidedBy.FAILSAFE, family)
    inner = toward.inner.ranges(family)
    if inner:
        clauses.append(Clause(DecidedBy.INNER, Policy.ACCEPT, inner))
    clauses += (_rule(rule, family) for rule in toward.rules if rule.can_match(family))
    clauses.append(Clause(DecidedBy.DEFAULT, toward.default, everyone))
    return tuple(clauses)


def _spoofed(judge: ResolvedInterface, direction: Direction, family: Family) -> Iterator[Clause]:
    """Yield the clauses of the source check's drops, DHCP apart (§12.6)."""
    if judge.own_addresses is None:
        return
    own, everyone = joined(judge.own_addresses.ranges(family)), ((0, family.last_address),)
    if direction is Direction.INGRESS and own:
        yield Clause(DecidedBy.SPOOFED, Policy.DROP, own)
    for local in without(everyone, own) if direction is Direction.EGRESS else ():
        yield Clause(DecidedBy.SPOOFED, Policy.DROP, everyone, local=local)


def dhcp_clause(direction: Direction, family: Family) -> Clause:
    """Return the clause that lets DHCP pass, before all others (§7.1)."""
    server, client = DHCP[family]
    source, destination = (server, client) if direction is Direction.INGRESS else (client, server)
    return Clause(
        DecidedBy.ALWAYS,
        Policy.ACCEPT,
        ((0, family.last_address),),
        (UDP.wire_number,),
        ports=PortSet.of((destination, destination)),
        source_ports=PortSet.of((source, source)),
    )


def _exemptions(entries: tuple[Exemption, ...], decided_by: DecidedBy, family: Family) -> Iterator[Clause]:
    for entry in entries:
        if entry.can_match(family):
            peers, numbers = ((entry.peer.first, entry.peer.last),), numbers_of((entry.protocol,))
            yield Clause(decided_by, Policy.ACCEPT, peers, numbers, ports=entry.ports, exemption=entry)


def numbers_of(protocols: Protocols) -> tuple[int, ...] | None:
    """Return the numbers of protocols; None for all of them."""
    return None if ALL_PROTOCOLS in protocols else tuple(one.wire_number for one in protocols)


def _rule(rule: ResolvedRule, family: Family) -> Clause:
    return Clause(
        DecidedBy.RULE,
        rule.policy,
        rule.peer.addresses.ranges(family),
        numbers_of(rule.protocols_of(family)),
        ports=rule.ports,
        source_ports=rule.source_ports,
        local=rule.near_ends,
        user=rule.user,
        units=rule.units,
        rule=rule,
    )


Label = TypeVar("Label", bound=Hashable)

Column = tuple[Clause, ...]
"""The clauses of one list that are left for a part of all packets, the first that decides first."""

Columns = tuple[Column, ...]

ALL_PROTOCOL_NUMBERS: Ranges = ((0, 255),)
EVERYBODY: Ranges = ((0, NO_USER),)
ALL_UNITS: Ranges = ((0, NO_UNIT),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box(Generic[Label]):
    """All packets that have one of each, with a label."""

    family: Family
    peers: Ranges
    """Far ends."""

    protocols: Ranges
    ports: Ranges
    """Destination ports; all of them for protocols without."""

    source_ports: Ranges
    locals: Ranges
    """Near ends."""

    users: Ranges = EVERYBODY
    """Who made the socket; of packets without one it is nobody."""

    units: Ranges = ALL_UNITS
    """In which control groups; of packets without a socket it is none."""

    label: Label


BOX_ORDER = attrgetter("protocols", "ports", "peers", "source_ports", "locals", "users", "units")
"""Sorts boxes of one family."""


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
    dimensions = _dimensions(family)
    cutter = _Cutter(label, skip, depth)
    boxes = [_box(family, row) for row in cutter.rows(tuple(map(tuple, lists)), dimensions)]
    return tuple(sorted(boxes, key=BOX_ORDER))


def find_box(
    lists: Sequence[Sequence[Clause]],
    family: Family,
    label: Callable[[Columns], Label | None],
    *,
    skip: Callable[[Columns], bool] = lambda _: False,
) -> Box[Label] | None:
    """Return a box that has a label; None if none has one.

    It is one of those that :func:`cut_into_boxes` returns for the same arguments, or a part of it. No more
    packets are cut than it takes to find it.
    """
    row = _Cutter(label, skip, depth=1).first(tuple(map(tuple, lists)), _dimensions(family))
    return None if row is None else _box(family, row)


def _box(family: Family, row: tuple[Any, ...]) -> Box[Any]:
    peers, protocols, ports, source_ports, near_ends, users, units, found = row
    return Box(
        family=family,
        peers=peers,
        protocols=protocols,
        ports=ports,
        source_ports=source_ports,
        locals=near_ends,
        users=users,
        units=units,
        label=found,
    )


_Part = tuple[Iterable[tuple[int, int]], Columns]
"""Some numbers of one dimension, and the clauses that are left for their packets."""


class _Dimension(NamedTuple):
    """A dimension by which packets are cut, once those before are settled."""

    cut: Callable[[Columns], Iterable[_Part]]
    is_settled: Callable[[Clause], bool] | None = None
    """Whether a clause matches whatever the later dimensions are; None: that is not asked yet."""


def _dimensions(family: Family) -> tuple[_Dimension, ...]:
    return (
        _Dimension(partial(_classes, family=family)),
        _Dimension(_protocols),
        _Dimension(partial(_pieces, last=LAST_PORT, wanted=_ports), _is_plain),
        _Dimension(partial(_pieces, last=LAST_PORT, wanted=_source_ports), _is_anywhere),
        _Dimension(partial(_pieces, last=family.last_address, wanted=_near_end), attrgetter("is_anybodys")),
        _Dimension(partial(_pieces, last=NO_USER, wanted=_user), _is_any_units),
        _Dimension(partial(_pieces, last=NO_UNIT, wanted=_units), lambda _: True),
    )


def _classes(lists: Columns, family: Family) -> Iterator[_Part]:
    """Yield far ends, class by class, with the clauses that speak of them; all far ends occur once."""
    speaking: dict[Ranges, list[list[int]]] = {}  # by far ends and list
    everyone: list[list[int]] = [[] for _ in lists]
    for column, clauses in enumerate(lists):
        for index, clause in enumerate(clauses):
            if clause.is_for_everyone(family):
                everyone[column].append(index)
            else:
                speaking.setdefault(clause.addresses, [[] for _ in lists])[column].append(index)
    by_peer = list(speaking.values())
    for peers, ranges in far_ends_by_class(speaking, family).items():
        columns = (
            sorted((*everyone[column], *(index for peer in peers for index in by_peer[peer][column])))
            for column in range(len(lists))
        )
        yield ranges, tuple(tuple(map(one.__getitem__, at)) for one, at in zip(lists, columns, strict=True))


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
    """Cuts packets by one dimension after the other."""

    label: Callable[[Columns], Label | None]
    skip: Callable[[Columns], bool]
    depth: int

    def rows(self, columns: Columns, dimensions: Sequence[_Dimension]) -> Iterator[tuple[Any, ...]]:
        """Yield ranges of each dimension, and the label; rows that differ in one dimension are one.

        Args:
            columns: the clauses that are left for the packets.
            dimensions: by which the packets are not cut yet.
        """
        if not dimensions:
            label = self.label(columns)
            yield from () if label is None else ((label,),)
            return
        rows: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
        for left, some in self._parts(columns, dimensions[0]):
            for row in self.rows(left, dimensions[1:]):
                rows.setdefault(row, []).extend(some)
        for row, found in rows.items():
            yield (joined(found), *row)

    def first(self, columns: Columns, dimensions: Sequence[_Dimension]) -> tuple[Any, ...] | None:
        """Return the first row, as :meth:`rows` does, or a part of it; None where there is none."""
        if not dimensions:
            label = self.label(columns)
            return None if label is None else (label,)
        for left, some in self._parts(columns, dimensions[0]):
            row = self.first(left, dimensions[1:])
            if row is not None:
                return (joined(some), *row)
        return None

    def _parts(
        self, columns: Columns, dimension: _Dimension
    ) -> Iterator[tuple[Columns, list[tuple[int, int]]]]:
        """Yield the clauses that are left for parts of the packets, and the numbers of each part."""
        numbers: dict[Columns, list[tuple[int, int]]] = {}
        for ranges, left in dimension.cut(columns):
            is_settled = dimension.is_settled
            cut = left if is_settled is None else tuple(self._leading(one, is_settled) for one in left)
            numbers.setdefault(cut, []).extend(ranges)
        return ((left, some) for left, some in numbers.items() if not self.skip(left))

    def _leading(self, column: Column, is_settled: Callable[[Clause], bool]) -> Column:
        """Return the clauses up to the one that reaches ``depth``; later ones can't change the label."""
        settled = 0
        for place, clause in enumerate(column, 1):
            settled += is_settled(clause)
            if settled == self.depth:
                return column[:place]
        return column


def _protocols(columns: Columns) -> Iterator[_Part]:
    """Yield each protocol that has to be looked at by itself, and all others together."""
    numbers = set(PORTED_NUMBERS)
    numbers.update(number for column in columns for c in column for number in c.protocols or ())
    for number in sorted(numbers):
        yield ((number, number),), _of_protocol(columns, number)
    rest = without(ALL_PROTOCOL_NUMBERS, ranges_of(numbers))
    if rest:
        yield rest, _of_protocol(columns, None)


def _of_protocol(columns: Columns, number: int | None) -> Columns:
    """Return the clauses that can match a packet of the protocol, or of one that no clause names."""
    return tuple(
        tuple(c for c in column if c.may_have(number) and (number in PORTED_NUMBERS or not c.speaks_of_ports))
        for column in columns
    )


def _pieces(columns: Columns, last: int, wanted: Callable[[Clause], Ranges | None]) -> Iterator[_Part]:
    """Cut numbers at the borders of clauses' ranges, with the clauses that remain for each piece."""
    clauses = list(chain.from_iterable(columns))
    found = [wanted(clause) for clause in clauses]
    if all(ranges is None for ranges in found):
        yield ((0, last),), columns
        return
    borders = [0, *accumulate(map(len, columns))]
    spans = enumerate(((0, last),) if ranges is None else ranges for ranges in found)
    for first, final, here in sweep(spans, last):
        places = pairwise(bisect_left(here, border) for border in borders)
        yield ((first, final),), tuple(tuple(map(clauses.__getitem__, here[i:j])) for i, j in places)


def _ports(clause: Clause) -> Ranges | None:
    return None if clause.ports.is_all else clause.ports.ranges


def _source_ports(clause: Clause) -> Ranges | None:
    return None if clause.source_ports.is_all else clause.source_ports.ranges


def _near_end(clause: Clause) -> Ranges | None:
    return None if clause.local is None else (clause.local,)


def _user(clause: Clause) -> Ranges | None:
    return clause.makers[0]


def _units(clause: Clause) -> Ranges | None:
    return clause.makers[1]


def _is_plain(clause: Clause) -> bool:
    """Return whether a clause matches whatever the source port, the near end and the maker are."""
    return clause.source_ports.is_all and _is_anywhere(clause)


def _is_anywhere(clause: Clause) -> bool:
    """Return whether a clause matches whatever the near end and the maker are."""
    return clause.local is None and clause.is_anybodys


def _is_any_units(clause: Clause) -> bool:
    """Return whether a clause matches whatever the unit is."""
    return clause.units is None
