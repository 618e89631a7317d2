"""Redundancy analysis of long decision lists: which clauses decide any packet, and the deciders without them.

The packets of one direction and family are the cells of tables. The rows of a table are protocols with
destination ports, cut where a clause begins or ends. Its columns are classes of far ends, each with the kinds
of near ends, source ports and users that its clauses distinguish. A set of columns is an integer with one bit
for each column, so one operation handles all columns. A segment tree over the rows keeps the work for a
clause logarithmic in the number of rows.

The analysis is exact, as in :mod:`sgagent.analysis.header_space`. That module also names the packets, but may
need as many boxes as there are pairs of clauses.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

from sgagent.analysis.bit_sets import Columns, Open, Rows, bits_of, number_of
from sgagent.analysis.header_space import Clause
from sgagent.core.addresses import AddressRanges, Ranges
from sgagent.core.model import Policy

LAST_CODE = (256 << 16) - 1


def code_of(protocol: int, port: int = 0) -> int:
    """Return the number by which a protocol with a port is sorted among all."""
    return protocol << 16 | port


def _accepts(clause: Clause) -> bool:
    return clause.policy is Policy.ACCEPT


@dataclass(frozen=True, slots=True)
class Area:
    """The cells of a table that a clause matches."""

    clause: Clause
    place: int
    """Of the clause among all clauses."""

    rows: Rows
    columns: Columns


@dataclass(frozen=True, eq=False)
class Table:
    """Some of the packets of one direction and family, and all clauses that match any of them."""

    starts: Sequence[int]
    """The code of protocol and port at which each row starts."""

    far_ends: Mapping[int, Ranges]
    """The far ends of each class, by the last of its columns."""

    every_column: Columns
    areas: Sequence[Area]
    """In the order in which they decide; the last is everything."""

    def row_of(self, code: int) -> int:
        """Return the row that holds a protocol and port."""
        return bisect_right(self.starts, code) - 1

    def codes(self, first: int, last: int) -> tuple[int, int]:
        """Return the first and last code of a run of rows."""
        is_last = last + 1 == len(self.starts)
        return self.starts[first], LAST_CODE if is_last else self.starts[last + 1] - 1

    def opened(self, within: Sequence[Columns] | None = None) -> Open:
        """Return the cells that nothing has decided about yet.

        Args:
            within: the columns of each row that are of interest; None is all.
        """
        return Open(len(self.starts), self.every_column, within)

    def deciding(self, within: Sequence[Columns] | None = None) -> list[Area]:
        """Return the areas that decide about any of the cells of interest."""
        left = self.opened(within)
        return [area for area in self.areas if left.take(area.rows, area.columns)]

    @cached_property
    def all_verdicts(self) -> Verdicts:
        """Return the verdicts on every cell by all areas."""
        return self.verdicts()

    @cached_property
    def index(self) -> Index:
        """Return the index that finds the areas that meet another one."""
        return Index(self)

    def verdicts(
        self, areas: Iterable[Area] | None = None, accepts: Callable[[Clause], bool] = _accepts
    ) -> Verdicts:
        """Return the verdict on every cell, and where it depends on one clause.

        Args:
            areas: those that count, of which the last is everything; None is all.
            accepts: returns whether a clause counts as accepting.
        """
        verdicts = Verdicts(accepted=[0] * len(self.starts), critical=[0] * len(self.starts))
        items = [
            _Item(first, last, area.columns, accepts(area.clause))
            for area in (self.areas if areas is None else areas)
            for first, last in area.rows
        ]
        _fold(0, len(self.starts) - 1, items, verdicts)
        return verdicts

    def deciders(self, row: int) -> Iterator[tuple[Clause, Columns]]:
        """Yield the deciders about the cells of a row, in order, with the columns."""
        left = self.every_column
        for number in bits_of(self.index.at(row)):
            area = self.areas[number]
            columns = area.columns & left
            if columns:
                yield area.clause, columns
                left ^= columns

    @cached_property
    def _last_columns(self) -> Columns:
        return number_of(sorted(self.far_ends))

    def far_columns(self, columns: Columns) -> Columns:
        """Return the last columns of the classes of which there are any columns."""
        # A sum carries into the last column of a class if any column below is there, and never beyond.
        below = self.every_column ^ self._last_columns
        return (((columns & below) + below) | columns) & self._last_columns

    def whole_classes(self, columns: Columns) -> Columns:
        """Return all columns of the classes of which there are any columns."""
        wanted = set(bits_of(self.far_columns(columns)))
        lasts = pairwise((-1, *sorted(self.far_ends)))
        return sum((2 << last) - (1 << before + 1) for before, last in lasts if last in wanted)

    def far_ranges(self, columns: Columns) -> list[tuple[int, int]]:
        """Return the far ends of some columns, unsorted."""
        return [ends for last in bits_of(self.far_columns(columns)) for ends in self.far_ends[last]]

    @cached_property
    def _ends(self) -> list[tuple[int, int, int]]:
        """Return all runs of far ends, sorted: last and first address, and the last column of the class."""
        return sorted((last, first, column) for column, ends in self.far_ends.items() for first, last in ends)

    def columns_with(self, ranges: AddressRanges) -> Columns:
        """Return the last columns of the classes that hold any far end of some ranges."""
        found: set[int] = set()
        for first, last in ranges:
            for place in range(bisect_left(self._ends, (first,)), len(self._ends)):
                _, start, column = self._ends[place]
                if start > last:
                    break
                found.add(column)
        return number_of(sorted(found))


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The verdicts on the cells of each row."""

    accepted: list[Columns]
    critical: list[Columns]
    """Where the two clauses that match first do not agree."""


@dataclass(frozen=True, slots=True)
class _Item:
    """Cells of a run of rows that one clause decides about if nothing before it does."""

    first: int
    last: int
    columns: Columns
    accepts: bool


@dataclass(slots=True)
class _Pile:
    """Clauses that follow each other and hold all rows that are looked at, as if they were one."""

    accept: Columns = 0
    """Where the first of them accepts."""

    drop: Columns = 0
    accept_next: Columns = 0
    """Where the second of them accepts."""

    drop_next: Columns = 0

    def put(self, columns: Columns, *, accepts: bool) -> None:
        """Put a clause behind the others."""
        some = self.accept | self.drop
        again = columns & (some ^ (self.accept_next | self.drop_next))
        new = columns ^ columns & some
        if accepts:
            self.accept |= new
            self.accept_next |= again
        else:
            self.drop |= new
            self.drop_next |= again

    def put_all(self, other: _Pile) -> None:
        """Put several clauses behind the others."""
        some = self.accept | self.drop
        if not some:  # as most often
            self.accept, self.drop = other.accept, other.drop
            self.accept_next, self.drop_next = other.accept_next, other.drop_next
            return
        once = some ^ (self.accept_next | self.drop_next)
        # What is known in a set, taken out of it by an exclusive or: that needs no negative numbers.
        self.accept_next |= other.accept & once | other.accept_next ^ other.accept_next & some
        self.drop_next |= other.drop & once | other.drop_next ^ other.drop_next & some
        self.accept |= other.accept ^ other.accept & some
        self.drop |= other.drop ^ other.drop & some


def _fold(first: int, last: int, items: Sequence[_Item | _Pile], verdicts: Verdicts) -> None:
    """Find the verdicts of some rows; items that hold none of them are passed over.

    What holds all of the rows is put on piles; only what holds some of them stays apart, so that the work is
    for the borders of clauses, not for clauses times rows.
    """
    kept: list[_Item | _Pile] = []
    pile, settled, is_split = _Pile(), 0, False
    for item in items:
        if isinstance(item, _Pile):
            pile.put_all(item)
            continue
        start, end = item.first, item.last
        if start > last or end < first:
            continue
        columns = item.columns
        if settled:
            columns ^= columns & settled
            if not columns:
                continue
        if start <= first and last <= end:
            pile.put(columns, accepts=item.accepts)
            continue
        if pile.accept or pile.drop:
            settled |= pile.accept_next | pile.drop_next
            kept.append(pile)
            pile = _Pile()
        kept.append(item)
        is_split = True
    if not is_split:
        critical = pile.accept & pile.drop_next | pile.drop & pile.accept_next
        rows = last + 1 - first
        verdicts.accepted[first : last + 1] = [pile.accept] * rows
        verdicts.critical[first : last + 1] = [critical] * rows
        return
    kept.append(pile)
    middle = (first + last) // 2
    _fold(first, middle, kept, verdicts)
    _fold(middle + 1, last, kept, verdicts)


def common_area(one: Area, other: Area) -> tuple[Rows, Columns]:
    """Return the cells that two areas have in common."""
    pairs = product(one.rows, other.rows)
    rows = ((max(here[0], there[0]), min(here[1], there[1])) for here, there in pairs)
    return tuple((first, last) for first, last in rows if first <= last), one.columns & other.columns


class Index:
    """Finds the areas of a table that meet another, as a set of their numbers."""

    def __init__(self, table: Table) -> None:
        """Take the areas of a table."""
        rows: dict[int, int] = {}
        alike: dict[Columns, int] = {}
        for number, area in enumerate(table.areas):
            alike[area.columns] = alike.get(area.columns, 0) | 1 << number
            for first, last in area.rows:
                rows[first] = rows.get(first, 0) ^ 1 << number
                rows[last + 1] = rows.get(last + 1, 0) ^ 1 << number
        columns: dict[int, int] = {}
        for held, numbers in alike.items():
            for border in bits_of(held ^ held << 1):
                columns[border] = columns.get(border, 0) ^ numbers
        self._by_rows = _Crowd(rows, len(table.starts))
        self._by_columns = _Crowd(columns, table.every_column.bit_length())

    def at(self, row: int) -> int:
        """Return the numbers of all areas with a cell in a row, as bits."""
        return self._by_rows.anywhere(((row, row),))

    def meeting(self, area: Area) -> int:
        """Return the numbers of all areas with a cell in common with one, as bits."""
        borders = list(bits_of(area.columns ^ area.columns << 1))
        runs = zip(borders[::2], borders[1::2], strict=True)
        in_columns = self._by_columns.anywhere((first, end - 1) for first, end in runs)
        return in_columns & self._by_rows.anywhere(area.rows)


class _Crowd:
    """Sets that hold runs of places: which of them hold any place of a run."""

    def __init__(self, changes: Mapping[int, int], places: int) -> None:
        """Take which sets begin or end at a place, as bits of their numbers."""
        self._size = 1 << max(places - 1, 0).bit_length()
        nodes, here = [0] * (2 * self._size), 0
        for place in range(places):
            here ^= changes.get(place, 0)
            nodes[self._size + place] = here
        for node in range(self._size - 1, 0, -1):
            left, right = nodes[2 * node], nodes[2 * node + 1]
            nodes[node] = left if left == right else left | right
        self._nodes = nodes

    def anywhere(self, runs: Iterable[tuple[int, int]]) -> int:
        """Return the sets that hold any place of some runs."""
        nodes, found = self._nodes, 0
        for first, last in runs:
            left, right = first + self._size, last + self._size + 1
            while left < right:
                if left & 1:
                    found |= nodes[left]
                    left += 1
                if right & 1:
                    right -= 1
                    found |= nodes[right]
                left >>= 1
                right >>= 1
        return found
