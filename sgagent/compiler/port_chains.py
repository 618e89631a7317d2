"""Port chains: for one class of far ends, the decision on each protocol and port.

First the *port table*: the value for a protocol and a port is a *cell*, the entries that match there, in
order, up to the first that is plain: that matches any source port, near end and maker of the socket. A cell
leads to one counter chain unless an entry before the last is not plain.

A class shares the rules for everyone with all other classes. Its table therefore only holds cells that differ
from those (``base``); a miss continues in the chain of the rules for everyone. Otherwise tables would grow
with the product of rules for everyone and classes.

Then the chains and maps that look the table up (:class:`PortChains`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import itemgetter
from typing import TypeVar

from sgagent.compiler.decision_list import Entry
from sgagent.compiler.linear import ALIKE, settled_rules, up_to
from sgagent.compiler.selectors import Place, Selectors, guards_of_maps, read_twice
from sgagent.core.addresses import append_run, sweep
from sgagent.core.model import ALL_PORTS, LAST_PORT, PORTED_NUMBERS, Protocol
from sgagent.nft import names, ruleset as nft

T = TypeVar("T")

MANY_LINES = 8
"""Entries of a cell are compared one by one up to so many."""

Cell = tuple[int, ...]
"""Indices of entries, in order; only the last can be plain."""

Segment = tuple[int, int, Cell]
"""First port, last port, cell."""

_Ending = tuple[nft.Statement, ...]
"""What a rule ends with: the way on, or what is done at once."""


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
        return _through(indices, lambda index: self.entries[index].is_plain)

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


FEW = 12
"""Up to so many ports are compared one after the other, which costs no more than a look-up and reads better.
Sets are dear to make in bulk: a map for each of thousands of small classes would take the kernel minutes."""


class PortChains:
    """Collect the chain of one class, or of everyone, with the chains and maps to which it leads."""

    def __init__(self, name: str, base: str, entries: Sequence[Entry], place: Place) -> None:
        """Start without any.

        Args:
            name: of the chain of the class.
            base: the chain that decides what the class does not.
            entries: all entries, in order; callers name the entries to compile by their indices.
            place: of the entries.
        """
        self.chains: dict[str, nft.Chain] = {}
        self.verdict_maps: dict[str, nft.VerdictMap] = {}
        self._name = name
        self._base = base
        self._entries = entries
        self._place = place
        self._default = names.default_chain(*place[:2])
        self._ranges: dict[int, str] = {}
        """The maps of the ranges of ports that are many, by protocol."""

    def decide_by_list(self, indices: Iterable[int]) -> None:
        """Go through entries one after the other, where a table would be too large."""
        chosen = (self._entries[index] for index in indices)
        entries, last = up_to(chosen, lambda entry: entry.is_for_all)
        final = (nft.Goto(self._default),) if last is None else last.ending
        self._add_chain(self._name, partial(settled_rules, entries), final)

    def decide_by_table(self, table: PortTable) -> None:
        """Look up protocol and port.

        A few ports are compared one by one. Many single ports are looked up at once, with the protocol, in a
        hash map; many ranges of a protocol in a map of intervals of that protocol; many protocols that are
        decided whatever the port in one of protocols.

        The protocol of which most ports are compared comes last if these are not very few: all others have
        left, so that it need not be asked for at each of them.
        """
        final = self._ending(table.other)
        plain = [one for one in table.protocols if not one.rows and one.short is None]
        numbers = [((nft.Interval.single(one.protocol),), one.rest) for one in plain]
        by_protocol = self._map_of_many(f"protocols/{self._name}", (nft.KeyType.INET_PROTO,), numbers)
        looked_up = plain if by_protocol else []
        ports = [
            ((nft.Interval.single(one.protocol), nft.Interval.single(port)), cell)
            for one in table.protocols
            for port, last, cell in one.rows
            if port == last
        ]
        key_types = nft.KeyType.INET_PROTO, nft.KeyType.INET_SERVICE
        by_port = self._map_of_many(f"ports/{self._name}", key_types, ports)
        protocols = [self._compared(one, by_port) for one in table.protocols if one not in looked_up]
        most = max(protocols, key=lambda one: len(one.rows), default=None)
        comes_last = most is not None and len(most.rows) >= ALIKE and not looked_up

        def rules(reading: Selectors) -> list[nft.Rule]:
            look_up_port = _look_up(reading.protocol_and_port, by_port)
            if not most or not comes_last or reading.is_tracked:
                look_up_protocol = _look_up((reading.protocol,), by_protocol)
                return [*look_up_port, *self._decide(protocols, reading, final), *look_up_protocol]
            others = self._decide([one for one in protocols if one is not most], reading, final)
            settled = Protocol(most.protocol)
            leave = nft.Rule((reading.match_others(settled), *final))
            return [*look_up_port, *others, leave, *self._decide([most], reading.of_protocol(settled), final)]

        self._add_chain(self._name, rules, final)

    def _compared(self, table: ProtocolTable, by_port: str | None) -> ProtocolTable:
        """Return the table with the rows that are compared; look its ranges up in a map if they are many.

        Protocol and port in one map of intervals would make the kernel stand still where many entries leave:
        taking one out of such a map costs it a walk over the whole.
        """
        rows = (row for row in table.rows if row[0] < row[1])
        ranges = [((nft.Interval(first, last),), cell) for first, last, cell in rows]
        prefix = f"{Protocol(table.protocol)}/{self._name}"
        by_range = self._map_of_many(prefix, (nft.KeyType.INET_SERVICE,), ranges, is_interval=True)
        if by_range:
            self._ranges[table.protocol] = by_range
        compared = (row for row in table.rows if not (by_port if row[0] == row[1] else by_range))
        return replace(table, rows=tuple(compared))

    def _decide(self, protocols: list[ProtocolTable], reading: Selectors, final: _Ending) -> list[nft.Rule]:
        """Return the rules for the ports of protocols, and behind them those for each one's other packets."""
        ports = [rule for one in protocols for rule in self._ports(one, reading)]
        return ports + [rule for one in protocols for rule in self._rest(one, reading, final)]

    def _ports(self, table: ProtocolTable, reading: Selectors) -> Iterator[nft.Rule]:
        """Yield the rules for the ports of a protocol that are not looked up together with others'."""
        for first, last, cell in table.rows:
            match = reading.match_port(table.protocol, nft.Interval(first, last))
            yield nft.Rule((*match, *self._ending(cell)))
        if table.protocol in self._ranges:
            before, port = reading.read_port(table.protocol)
            yield nft.Rule((*before, nft.LookUp((port,), self._ranges[table.protocol])))

    def _rest(self, table: ProtocolTable, reading: Selectors, final: _Ending) -> list[nft.Rule]:
        """Return the rules for packets that no row of the protocol matches.

        Packets too short to hold ports are none of conntrack's: it calls them invalid.
        """
        rest, protocol = self._ending(table.rest), reading.match_protocol(table.protocol)
        if reading.is_tracked or table.short is None:
            return [] if rest == final else [nft.Rule((*protocol, *rest))]
        with_ports = reading.match_port(table.protocol, nft.Interval(0, LAST_PORT))
        return [nft.Rule((*with_ports, *rest)), nft.Rule((*protocol, *self._ending(table.short)))]

    def _map_of_many(
        self,
        prefix: str,
        key_types: tuple[nft.KeyType, ...],
        cells: Sequence[tuple[tuple[nft.Interval, ...], Cell | None]],
        *,
        is_interval: bool = False,
    ) -> str | None:
        """Add the map from keys to cells and return its name; None where there are few, to be compared."""
        if len(cells) <= FEW:
            return None
        targets = [(key, self._target(cell)) for key, cell in cells]
        return self._add_map(prefix, key_types, targets, is_interval=is_interval)

    def _target(self, cell: Cell | None) -> str:
        """Return the chain that carries a cell out: the base's, a leaf, or one that looks further."""
        if cell is None:
            return self._base
        return self._target_of(self._lines(cell))

    def _ending(self, cell: Cell | None) -> _Ending:
        """Return what a rule ends with that leads there, or does itself what the leaf does."""
        return (nft.Goto(self._base),) if cell is None else self._ending_of(self._lines(cell))

    def _ending_of(self, lines: tuple[Entry, ...]) -> _Ending:
        is_plain = lines and lines[0].is_plain
        return lines[0].ending if is_plain else (nft.Goto(self._target_of(lines)),)

    def _lines(self, cell: Cell) -> tuple[Entry, ...]:
        return tuple(self._entries[index] for index in cell)

    def _target_of(self, lines: tuple[Entry, ...]) -> str:
        if not lines:
            return self._default
        return lines[0].leaf if lines[0].is_plain else self._cell_chain(lines)

    def _cell_chain(self, lines: tuple[Entry, ...]) -> str:
        """Return the chain that matches source ports and near ends; add it if it is new.

        A few lines become one rule each. Many lines become a lookup of the source port, and then one of the
        near end.
        """
        name = names.cell_chain(*self._place, "\n".join(map(_line_text, lines)))
        if name in self.chains:
            return name
        if len(lines) <= MANY_LINES or all(line.source_ports.is_all and line.local is None for line in lines):
            constrained, plain = up_to(lines, lambda line: line.is_plain)
            self._add_chain(
                name, partial(_line_rules, constrained), self._ending_of((plain,) if plain else ())
            )
        else:
            self._split(name, lines)
        return name

    def _split(self, name: str, lines: tuple[Entry, ...]) -> None:
        """Add the chain and the map that look up the source port, or else the near end, of many lines."""
        family = self._place[2]
        protocol = next((line.protocol for line in lines if not line.source_ports.is_all), None)
        by_port = protocol is not None
        pieces = split_lines(lines, by_port=by_port, last=LAST_PORT if by_port else family.last_address)
        key_type = nft.KeyType.INET_SERVICE if by_port else nft.ADDRESS_TYPES[family]
        elements = [((nft.Interval(first, last),), self._target_of(left)) for first, last, left in pieces]
        look_up = self._add_map(f"split/{name}", (key_type,), elements, is_interval=True)

        def rules(reading: Selectors) -> list[nft.Rule]:
            selector = reading.local if protocol is None else reading.read_source_port(protocol)
            return _look_up((selector,), look_up)

        rest = (line for line in lines if by_port and line.source_ports.is_all)
        self._add_chain(name, rules, self._ending_of(cut_lines(rest)))

    def _add_chain(self, name: str, rules: Callable[[Selectors], list[nft.Rule]], final: _Ending) -> None:
        """Add the chains that read sessions and headers by the rules, and end so."""
        for chain in read_twice(name, self._place, rules, final, guards_of_maps):
            self.chains[chain.name] = chain

    def _add_map(
        self,
        prefix: str,
        key_types: tuple[nft.KeyType, ...],
        targets: Iterable[tuple[tuple[nft.Interval, ...], str]],
        *,
        is_interval: bool,
    ) -> str:
        """Add a map from keys to chains, and return its name."""
        elements = (nft.Element(key, nft.Goto(chain)) for key, chain in targets)
        made = names.fixed_map(prefix, key_types, elements, is_interval=is_interval)
        self.verdict_maps[made.name] = made
        return made.name


def _look_up(selectors: tuple[nft.Selector, ...], verdict_map: str | None) -> list[nft.Rule]:
    """Return the rule that looks a map up, if there is one."""
    return [] if verdict_map is None else [nft.Rule((nft.LookUp(selectors, verdict_map),))]


def _line_text(line: Entry) -> str:
    """Return all that is left of an entry as text, of which the names of chains are made."""
    ports = None if line.source_ports.is_all else line.source_ports.ranges
    user = "" if line.user is None else f" {line.user}"
    user += "" if line.unit is None else f" {line.unit}"
    return f"{line.leaf} {line.protocol or 0} {ports} {line.local}{user}"


def _line_rules(lines: Iterable[Entry], reading: Selectors) -> list[nft.Rule]:
    """Return the rules for the remaining criteria, far end, protocol and port being settled."""
    return [
        nft.Rule((*source_port, *reading.match_ends((), line.local), *user, *line.ending))
        for line in lines
        for source_port in reading.match_source_ports(line.protocol, line.source_ports)
        for user in reading.match_user(line.user, lets_answers_in=line.lets_answers_in)
    ]


def cut_lines(lines: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the lines up to the first plain one, which matches every packet; later ones never decide."""
    return _through(lines, lambda line: line.is_plain)


def _through(items: Iterable[T], is_last: Callable[[T], bool]) -> tuple[T, ...]:
    """Return the items up to the first that is the last of interest."""
    before, last = up_to(items, is_last)
    return before if last is None else (*before, last)


def split_lines(
    lines: tuple[Entry, ...], *, by_port: bool, last: int
) -> list[tuple[int, int, tuple[Entry, ...]]]:
    """Return runs of source ports, or of near ends, with the lines that are left for each.

    Args:
        lines: in order.
        by_port: source ports, or else near ends.
        last: the greatest port or address.
    """
    pieces: list[tuple[int, int, tuple[Entry, ...]]] = []
    everywhere = ((0, last),)
    spans = (
        (number, line.source_ports.ranges if by_port else (line.local,) if line.local else everywhere)
        for number, line in enumerate(lines)
    )
    settled = [
        replace(line, source_ports=ALL_PORTS) if by_port else replace(line, local=None) for line in lines
    ]
    for first, final, here in sweep(spans, last):
        append_run(pieces, first, final, cut_lines(settled[number] for number in here))
    return pieces
