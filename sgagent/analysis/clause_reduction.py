"""Reduction of two decision lists to the clauses that matter where their verdicts differ."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sgagent.analysis.bit_sets import Columns, bits_of
from sgagent.analysis.header_space import Clause
from sgagent.analysis.packet_tables import codes_of, make_tables
from sgagent.analysis.redundancy import Area, Table
from sgagent.core.addresses import AddressRanges, Ranges, common, joined, meets, without
from sgagent.core.evaluate import DecidedBy
from sgagent.core.model import Family, Policy


@dataclass(frozen=True, slots=True)
class Narrowed:
    """Two lists of clauses that differ from each other in the same packets as those they were made of."""

    old: tuple[Clause, ...]
    new: tuple[Clause, ...]
    originals: dict[Clause, Clause]
    """What each clause of these lists was before."""


def narrow(old: Sequence[Clause], new: Sequence[Clause], family: Family) -> Narrowed | None:
    """Return what can matter where two lists differ; None where they differ about no packet."""
    changed = _changed(old, new)
    if not changed:
        return None
    addresses = joined(ends for clause in changed for ends in clause.addresses)
    codes = joined(run for clause in changed for run in codes_of(clause))
    lists = [_within(clauses, addresses, codes, family) for clauses in (old, new)]
    originals = {narrowed: clause for pairs in lists for narrowed, clause in pairs}
    (before, after) = ([narrowed for narrowed, _ in pairs] for pairs in lists)
    differing = _differing(before, after, originals, family)
    if differing is None:
        return None
    far_ends, kept = differing
    guard = Clause(
        decided_by=DecidedBy.UNBOUND,
        policy=Policy.ACCEPT,
        addresses=without(((0, family.last_address),), far_ends),
    )
    lists = [
        _within([clause for clause in clauses if clause in kept], far_ends, codes, family)
        for clauses in (before, after)
    ]
    pairs = [pair for found in lists for pair in found]
    return Narrowed(
        old=(guard, *(narrowed for narrowed, _ in lists[0])),
        new=(guard, *(narrowed for narrowed, _ in lists[1])),
        originals={guard: guard, **{narrowed: originals[clause] for narrowed, clause in pairs}},
    )


def _name(clause: Clause) -> tuple[object, ...]:
    """Return what makes a clause what it is, its place among others included."""
    rule = clause.rule
    named = rule and (rule.priority, rule.security_group_id, rule.rule_id)
    return (clause.decided_by, named, clause.content, clause.addresses)


def _changed(old: Sequence[Clause], new: Sequence[Clause]) -> list[Clause]:
    """Return the clauses that only one of the lists has.

    A name includes all members, which take long to hash, so rules that both lists share get no name.
    """
    rules = [{id(clause.rule) for clause in clauses if clause.rule is not None} for clauses in (old, new)]
    in_both = rules[0] & rules[1]
    before, after = (
        {_name(clause): clause for clause in clauses if id(clause.rule) not in in_both}
        for clauses in (old, new)
    )
    return [
        *(clause for name, clause in before.items() if name not in after),
        *(clause for name, clause in after.items() if name not in before),
    ]


def _within(
    clauses: Sequence[Clause], far_ends: Ranges, codes: Ranges, family: Family
) -> list[tuple[Clause, Clause]]:
    """Return the clauses that match packets of some far ends, protocols and ports, narrowed to the far ends.

    Each comes with what it was. The last is left as it is: it matches everything.
    """
    known: dict[int, AddressRanges] = {}
    last = len(clauses) - 1
    found = []
    for place, clause in enumerate(clauses):
        if place == last:
            found.append((replace(clause), clause))
        elif any(meets(run, codes) for run in codes_of(clause)):
            addresses = known.get(id(clause.addresses))
            if addresses is None:
                is_everyone = clause.is_for_everyone(family)
                addresses = far_ends if is_everyone else common(joined(clause.addresses), far_ends)
                known[id(clause.addresses)] = addresses
            if addresses:
                found.append((replace(clause, addresses=addresses), clause))
    return found


def _differing(
    old: Sequence[Clause], new: Sequence[Clause], originals: dict[Clause, Clause], family: Family
) -> tuple[Ranges, Container[Clause]] | None:
    """Return the far ends about which the lists differ, and the clauses that decide about any packet of them.

    A clause that both lists have stays in both if it decides by either: lists that are alike for some packets
    stay so.
    """
    tables = make_tables((*old, *new), family)
    far_ends = joined(
        ends for table in tables for ends in table.far_ranges(_columns_that_differ(table, len(old)))
    )
    if not far_ends:
        return None
    deciding: set[tuple[object, ...]] = set()
    for table in tables:
        columns = table.whole_classes(table.columns_with(far_ends))
        deciding |= _deciding(table, len(old), columns, originals)
    lasts = (old[-1], new[-1])
    kept = {clause for clause in (*old, *new) if clause in lasts or _name(originals[clause]) in deciding}
    return far_ends, kept


def _columns_that_differ(table: Table, olds: int) -> int:
    """Return the columns in which the verdicts of two lists differ in any row; the first is so long."""
    before = [area for area in table.areas if area.place < olds]
    after = [area for area in table.areas if area.place >= olds]
    found, known = 0, None
    accepted = (table.verdicts(areas).accepted for areas in (before, after))
    for pair in zip(*accepted, strict=True):
        if pair != known:
            found |= pair[0] ^ pair[1]
            known = pair
    return found


def _deciding(
    table: Table, olds: int, columns: int, originals: dict[Clause, Clause]
) -> set[tuple[object, ...]]:
    """Return the clauses of both lists that decide about a cell in some columns, by what makes them."""
    found: set[tuple[object, ...]] = set()
    for is_old in (True, False):
        left = table.opened([columns] * len(table.starts))
        for area in table.areas:
            if (area.place < olds) is is_old and left.take(area.rows, area.columns):
                found.add(_name(originals[area.clause]))
    return found


@dataclass(frozen=True, slots=True)
class Index:
    """Finds the areas of a table that meet another, as a set of their numbers."""

    _by_rows: _Crowd
    _by_columns: _Crowd
    _known: dict[Columns, int]

    @classmethod
    def of(cls, table: Table) -> Index:
        """Return the index of a table."""
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
        return cls(_Crowd(rows, len(table.starts)), _Crowd(columns, table.every_column.bit_length()), {})

    def at(self, row: int) -> int:
        """Return the numbers of all areas with a cell in a row, as bits."""
        return self._by_rows.anywhere(((row, row),))

    def meeting(self, area: Area) -> int:
        """Return the numbers of all areas with a cell in common with one, as bits."""
        found = self._known.get(area.columns)
        if found is None:
            borders = list(bits_of(area.columns ^ area.columns << 1))
            runs = zip(borders[::2], borders[1::2], strict=True)
            found = self._by_columns.anywhere((first, end - 1) for first, end in runs)
            self._known[area.columns] = found
        return found & self._by_rows.anywhere(area.rows)


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
