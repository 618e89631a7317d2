"""Port tables: for one class of far ends, the decision on each protocol and port.

The value for a protocol and a port is a *cell*, the entries that match there, in order, up to the first that
is plain: that matches any source port, near end and maker of the socket. A cell leads to one counter chain
unless an entry before the last is not plain.

A class shares the rules for everyone with all other classes. Its table therefore only holds cells that differ
from those (``base``); a miss continues in the chain of the rules for everyone. Otherwise tables would grow
with the product of rules for everyone and classes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from sgagent.compiler.decision_list import Entry
from sgagent.compiler.linear import through
from sgagent.core.addresses import append_run, sweep
from sgagent.core.model import LAST_PORT, PORTED_NUMBERS

MANY_LINES = 8
"""Entries of a cell are compared one by one up to so many."""

Cell = tuple[int, ...]
"""Indices of entries, in order; only the last can be plain."""

Segment = tuple[int, int, Cell]
"""First port, last port, cell."""


@dataclass(frozen=True, slots=True)
class ProtocolTable:
    """How one protocol is decided, where it differs from the target of a miss."""

    protocol: int
    rows: tuple[Segment, ...]
    """Sorted, disjoint ports; empty for protocols without ports."""

    rest: Cell | None
    """The cell of all other ports, and of protocols without ports; None: go on to the base."""

    short: Cell | None
    """The cell of packets too short to hold ports, where it is not what ``rest`` leads to."""


@dataclass(frozen=True, slots=True)
class PortTable:
    """How a class decides, where it differs from its base."""

    protocols: tuple[ProtocolTable, ...]
    """Sorted by protocol."""

    other: Cell | None
    """The cell of every protocol that is not listed; None: go on to the base."""


class Decider:
    """Answer for a fixed list of entries, some of which hold for everyone."""

    def __init__(self, entries: Sequence[Entry], members: Iterable[int]) -> None:
        """Take the list and the indices, sorted, of the entries to be considered."""
        self.entries = entries
        self.members = tuple(members)
        self._cells: dict[int, tuple[Cell, tuple[Segment, ...]]] = {}

    @cached_property
    def named_protocols(self) -> frozenset[int]:
        """Return the protocols that the entries name."""
        return frozenset(p for i in self.members if (p := self.entries[i].protocol) is not None)

    @cached_property
    def other(self) -> Cell:
        """Return the cell of protocols that no entry names."""
        return self.cut(i for i in self.members if self.entries[i].protocol is None)

    @cached_property
    def constrained(self) -> tuple[int, ...]:
        """Return the entries that look at more than protocol and port."""
        return tuple(i for i in self.members if not self.entries[i].is_plain)

    def cells(self, protocol: int) -> tuple[Cell, tuple[Segment, ...]]:
        """Return the cell of a packet of a protocol that has no ports, and those of its ports if it has any.

        Every port that some entry speaks of is in a segment.
        """
        if protocol not in self._cells:
            indices = [i for i in self.members if self.entries[i].protocol in (None, protocol)]
            without_ports = self.cut(i for i in indices if self.entries[i].ports.is_all)
            segments = self._segments(indices) if protocol in PORTED_NUMBERS else ()
            self._cells[protocol] = without_ports, segments
        return self._cells[protocol]

    def cut(self, indices: Iterable[int]) -> Cell:
        """Return the indices up to the first plain entry: it matches all, so later ones never decide."""
        return through(indices, lambda index: self.entries[index].is_plain)

    def merged(self, own: Cell, base: Cell) -> Cell:
        """Return the joint cell of entries of a class and entries for everyone."""
        return self.cut(sorted((*own, *base)))

    def _segments(self, indices: Iterable[int]) -> tuple[Segment, ...]:
        segments: list[Segment] = []
        spans = ((index, self.entries[index].ports.ranges) for index in indices)
        for first, last, here in sweep(spans, LAST_PORT):
            if here:
                append_run(segments, first, last, self.cut(here))
        return tuple(segments)


def make_table(entries: Sequence[Entry], own: Iterable[int], base: Decider) -> PortTable:
    """Return how a class decides.

    Args:
        entries: all entries, in order.
        own: indices, sorted, of the entries that are for the class and not for everyone.
        base: decides for everyone; what it would say is left out.
    """
    mine = Decider(entries, own)
    is_wide = bool(mine.other)
    protocols = mine.named_protocols | (base.named_protocols | set(PORTED_NUMBERS) if is_wide else set())
    merged = mine.merged(mine.other, base.other)
    other = None if merged == base.other else merged
    tables = (_protocol_table(protocol, mine, base, other) for protocol in sorted(protocols))
    return PortTable(protocols=tuple(table for table in tables if table is not None), other=other)


def _protocol_table(protocol: int, mine: Decider, base: Decider, other: Cell | None) -> ProtocolTable | None:
    """Return the table of one protocol; None where a miss, which leads to ``other``, says the same."""
    own, own_segments = mine.cells(protocol)
    base_cell, base_segments = base.cells(protocol)
    bare = mine.merged(own, base_cell)
    if protocol not in PORTED_NUMBERS:
        if bare == (base_cell if other is None else other):
            return None
        return ProtocolTable(protocol, rows=(), rest=None if bare == base_cell else bare, short=None)
    merged: list[Segment] = []
    differing: list[Segment] = []
    for first, last, cell, below in _overlaid(own_segments, base_segments):
        both = mine.merged(cell, below)
        append_run(merged, first, last, both)
        if both != below:
            append_run(differing, first, last, both)
    rows, rest = _fewest_rows(merged, differing, bare)
    short = None if bare == (base_cell if rest is None else rest) else bare
    if not rows and short is None and rest == other:
        return None
    return ProtocolTable(protocol, tuple(rows), rest, short)


def _overlaid(own: Iterable[Segment], base: Sequence[Segment]) -> Iterator[tuple[int, int, Cell, Cell]]:
    """Cut the ports of a class's segments where the base's begin and end; yield both cells of each piece."""
    for first, last, cell in own:
        reached, place = first, max(bisect_right(base, first, key=itemgetter(0)) - 1, 0)
        while reached <= last:
            while place < len(base) and base[place][1] < reached:
                place += 1
            begins, ends, below = base[place] if place < len(base) else (last + 1, last, ())
            if reached < begins:  # the base says nothing here
                ends, below = begins - 1, ()
            yield reached, min(ends, last), cell, below
            reached = ends + 1


def _fewest_rows(
    merged: list[Segment], differing: list[Segment], bare: Cell
) -> tuple[list[Segment], Cell | None]:
    """Return rows and the cell of the rest, whichever way needs fewer rows.

    Either the rest goes on to the base and the rows say where the class differs; or the rest is the class's
    most frequent cell, which is possible only where the class speaks of every port.
    """
    covers_all = sum(last - first + 1 for first, last, _ in merged) == LAST_PORT + 1
    if not covers_all or not differing:
        return differing, None
    frequency = Counter(cell for _, _, cell in merged)
    most = max(frequency, key=lambda cell: (frequency[cell], cell == bare, cell))
    against_most = [segment for segment in merged if segment[2] != most]
    return (against_most, most) if len(against_most) < len(differing) else (differing, None)


MOST_CELL_LINES = 20_000
"""Lines that the cells of one class may have, by estimate."""


def exceeds_table_limit(entries: Sequence[Entry], own: Sequence[int], everyone: Sequence[int]) -> bool:
    """Return whether a class's table would be too large.

    Args:
        entries: all entries, in order.
        own: indices of the entries that are for the class and not for everyone.
        everyone: indices of the entries that are for everyone.
    """
    constrained = [index for index in (*own, *everyone) if not entries[index].is_plain]
    if len(constrained) <= MANY_LINES:
        return False
    return (
        sum(_estimate(entries, own, constrained, protocol) for protocol in PORTED_NUMBERS) > MOST_CELL_LINES
    )


def _estimate(entries: Sequence[Entry], own: Iterable[int], constrained: Iterable[int], protocol: int) -> int:
    """Return about how many lines the cells of a protocol have at the ports that the class speaks of."""
    borders: dict[int, list[int]] = {}
    for place, indices in enumerate((own, constrained)):
        for index in indices:
            speaks_of_it = entries[index].protocol in (None, protocol)
            for first, last in entries[index].ports.ranges if speaks_of_it else ():
                borders.setdefault(first, [0, 0])[place] += 1
                borders.setdefault(last + 1, [0, 0])[place] -= 1
    spoken_of = depth = lines = 0
    for port in sorted(borders):
        spoken_of += borders[port][0]
        depth += borders[port][1]
        if spoken_of:
            lines += depth * depth if depth > MANY_LINES else depth
    return lines
