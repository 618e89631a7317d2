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
from sgagent.core.addresses import Ranges, joined, ranges_of, sweep, without
from sgagent.core.clauses import Clause
from sgagent.core.conditions import NO_UNIT, NO_USER
from sgagent.core.model import (
    LAST_PORT,
    PORTED_NUMBERS,
    Family,
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
