"""Port tables: for one class of addresses, the entries that decide each protocol and port.

The value for a protocol and a port is a *cell*: the entries that match there, in order, up to the first that
matches any source port and near end. A cell leads to one counter chain unless an entry before the last also
matches source ports or near ends.

A class shares the rules for everyone with all other classes. Its table therefore only holds cells that differ
from those (``base``); a miss continues in the chain of the rules for everyone. Otherwise tables would grow
with the product of rules for everyone and classes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from sgagent.compiler.decision_list import Entry
from sgagent.compiler.linear import MANY_LINES
from sgagent.core.addresses import append_run, sweep
from sgagent.core.model import LAST_PORT, PORTED_NUMBERS

Cell = tuple[int, ...]
"""Indices of entries, in order; only the last can be plain."""

Segment = tuple[int, int, Cell]
"""First port, last port, cell."""


@dataclass(frozen=True, slots=True)
class ProtocolTable:
    """How one protocol is decided, where it differs from what a miss leads to."""

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

    def without_ports(self, protocol: int) -> Cell:
        """Return the cell of a packet of the protocol that has no ports."""
        known = self._without_ports.get(protocol)
        if known is None:
            cell = self.cut(i for i in self._of(protocol) if self.entries[i].ports.is_all)
            known = self._without_ports[protocol] = cell
        return known

    @cached_property
    def _without_ports(self) -> dict[int, Cell]:
        return {}

    def segments(self, protocol: int) -> tuple[Segment, ...]:
        """Return the cells of a protocol with ports; every port that some entry speaks of is in a segment."""
        known = self._segments.get(protocol)
        if known is None:
            known = self._segments[protocol] = self._sweep(self._of(protocol))
        return known

    @cached_property
    def _segments(self) -> dict[int, tuple[Segment, ...]]:
        return {}

    def place(self, protocol: int, port: int) -> int:
        """Return from which segment on to look for what holds at a port: none before reaches that far."""
        starts = self._starts.get(protocol)
        if starts is None:
            starts = self._starts[protocol] = [first for first, _, _ in self.segments(protocol)]
        return max(bisect_right(starts, port) - 1, 0)

    @cached_property
    def _starts(self) -> dict[int, list[int]]:
        return {}

    def _of(self, protocol: int) -> list[int]:
        return [i for i in self.members if self.entries[i].protocol in (None, protocol)]

    def cut(self, indices: Iterable[int]) -> Cell:
        """Return the indices up to the first plain entry: it matches all, so later ones never decide."""
        cell: list[int] = []
        for index in indices:
            cell.append(index)
            if self.entries[index].is_plain:
                break
        return tuple(cell)

    def _sweep(self, indices: Iterable[int]) -> tuple[Segment, ...]:
        segments: list[Segment] = []
        for first, last, here in sweep(
            ((index, self.entries[index].ports.ranges) for index in indices), LAST_PORT
        ):
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
    other = _merge(mine, mine.other, base.other)
    return PortTable(
        protocols=tuple(
            table
            for protocol in sorted(protocols)
            if (table := _protocol_table(protocol, mine, base, other if is_wide else None)) is not None
        ),
        other=other if is_wide and other != base.other else None,
    )


def _protocol_table(protocol: int, mine: Decider, base: Decider, other: Cell | None) -> ProtocolTable | None:
    """Return the table of one protocol; None where a miss already says the same."""
    bare = _merge(mine, mine.without_ports(protocol), base.without_ports(protocol))
    base_bare = base.without_ports(protocol)
    if protocol not in PORTED_NUMBERS:
        cell = None if bare == base_bare else bare
        if other is not None and other == bare and other != base.other:
            return None
        if cell is None and (other is None or other == base.other):
            return None
        return ProtocolTable(protocol=protocol, rows=(), rest=cell, short=None)
    rows, rest = _fewest_rows(protocol, _merged_segments(protocol, mine, base), base, bare)
    led_to = base_bare if rest is None else rest
    short = None if bare == led_to else bare
    is_said = not rows and short is None
    if is_said and rest is None and (other is None or other == base.other):
        return None
    if is_said and rest is not None and other is not None and other != base.other and rest == other:
        return None
    return ProtocolTable(protocol=protocol, rows=rows, rest=rest, short=short)


def _merge(mine: Decider, own: Cell, base: Cell) -> Cell:
    return mine.cut(sorted((*own, *base)))


def _merged_segments(protocol: int, mine: Decider, base: Decider) -> list[Segment]:
    """Return the class's cells at every port that an entry of its own speaks of."""
    base_segments = base.segments(protocol)
    merged: list[Segment] = []
    for first, last, own in mine.segments(protocol):
        reached = first
        place = base.place(protocol, first)
        while reached <= last:
            upto, cell = _base_at(base_segments, place, reached, last)
            append_run(merged, reached, upto, _merge(mine, own, cell))
            reached = upto + 1
            while place < len(base_segments) and base_segments[place][1] < reached:
                place += 1
    return merged


def _base_at(segments: tuple[Segment, ...], place: int, port: int, last: int) -> tuple[int, Cell]:
    """Return the base's cell at a port and up to where, not beyond ``last``, it holds."""
    while place < len(segments) and segments[place][1] < port:
        place += 1
    if place == len(segments) or segments[place][0] > last:
        return last, ()
    if segments[place][0] > port:
        return segments[place][0] - 1, ()
    return min(last, segments[place][1]), segments[place][2]


def _fewest_rows(
    protocol: int, merged: list[Segment], base: Decider, bare: Cell
) -> tuple[tuple[Segment, ...], Cell | None]:
    """Return rows and the cell of the rest, whichever way needs fewer rows.

    Either the rest goes on to the base and the rows say where the class differs; or the rest is the class's
    most frequent cell, which is possible only where the class speaks of every port.
    """
    deltas = tuple(_differing(protocol, merged, base))
    covers_all = _covers_all_ports(merged)
    if not covers_all or not deltas:
        return deltas, None
    frequency = Counter(cell for _, _, cell in merged)
    most = max(frequency, key=lambda cell: (frequency[cell], cell == bare, cell))
    against_most = tuple(segment for segment in merged if segment[2] != most)
    return (against_most, most) if len(against_most) < len(deltas) else (deltas, None)


def _covers_all_ports(segments: list[Segment]) -> bool:
    reached = 0
    for first, last, _ in segments:
        if first != reached:
            return False
        reached = last + 1
    return reached == LAST_PORT + 1


def _differing(protocol: int, merged: list[Segment], base: Decider) -> Iterable[Segment]:
    """Return the class's segments where the base has another cell."""
    base_segments = base.segments(protocol)
    kept: list[Segment] = []
    for first, last, cell in merged:
        reached = first
        place = base.place(protocol, first)
        while reached <= last:
            while place < len(base_segments) and base_segments[place][1] < reached:
                place += 1
            upto, base_cell = _base_at(base_segments, place, reached, last)
            if cell != base_cell:
                append_run(kept, reached, upto, cell)
            reached = upto + 1
    return kept


LARGEST = 20_000
"""Lines that the cells of one class may have, by estimate."""


def is_crowd(entries: Sequence[Entry], own: Iterable[int], everyone: Iterable[int]) -> bool:
    """Return whether a class's table would be too large.

    Args:
        entries: all entries, in order.
        own: indices of the entries that are for the class and not for everyone.
        everyone: indices of the entries that are for everyone.
    """
    own, constrained = tuple(own), [i for i in (*own, *everyone) if not entries[i].is_plain]
    if len(constrained) <= MANY_LINES:
        return False
    return sum(_estimate(entries, own, constrained, protocol) for protocol in PORTED_NUMBERS) > LARGEST


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
