"""Compile how one class of addresses is decided about: by protocol and port, and by what is left if need be.

Every chain here reads tracked sessions first. For an untracked packet those reads find nothing, and the rule
goes on to the next; behind them stands a guard that sends the tracked ones on, and then the same once more by
header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sgagent.core.compiling.entries import Entry
from sgagent.core.compiling.lines import MANY_LINES, Line, cut_lines, split_lines
from sgagent.core.compiling.selectors import Reading, readings
from sgagent.core.compiling.tables import PORTED, Cell, PortTable, ProtocolTable, Segment
from sgagent.core.kernel import names, ruleset
from sgagent.core.kernel.ruleset import (
    Chain,
    Element,
    Goto,
    Interval,
    KeyType,
    LookUp,
    Match,
    Operator,
    Rule,
    Statement,
    Symbol,
    VerdictMap,
)
from sgagent.core.model import LAST_PORT, Direction, Family, Protocol

FEW = 4
"""Up to so many ports are compared one after the other, which costs no more than a look-up and reads better.
Sets are dear to make in bulk: a map for each of thousands of small classes would take the kernel minutes."""


class Deciding:
    """Collect the chains and maps that decide, for one interface, direction and family."""

    def __init__(
        self, interface: str, direction: Direction, family: Family, entries: tuple[Entry, ...]
    ) -> None:
        """Start without any.

        Args:
            interface: the link's name.
            direction: in which sessions are opened.
            family: of their packets.
            entries: all entries, in order; what is to be compiled is told by their places.
        """
        self.family = family
        self.entries = entries
        self.chains: dict[str, Chain] = {}
        self.verdict_maps: dict[str, VerdictMap] = {}
        self._place = (direction, interface, family)
        self._default = names.default_chain(direction, interface)
        self._readings = readings(direction, family)

    def list_chain(self, name: str, indices: Iterable[int]) -> None:
        """Add a chain that goes through entries one after the other, where a table would be too large."""
        entries: list[Entry] = []
        final = self._default
        for entry in (self.entries[index] for index in indices):
            if entry.is_plain and entry.protocol is None:
                final = entry.leaf
                break
            entries.append(entry)

        def lines(reading: Reading) -> list[Rule]:
            return [
                Rule((*matches, Goto(entry.leaf)))
                for entry in entries
                for matches in _whole_matches(entry, reading)
            ]

        self._add(name, read_twice(self._readings, lines, final))

    def table_chain(self, name: str, table: PortTable, base: str) -> None:
        """Add a chain that decides by protocol and port."""
        final = base if table.other is None else self._target(table.other)
        plain_protocols = [t for t in table.protocols if not t.rows and t.short is None]
        many = len(plain_protocols) > FEW
        rows = [(t.protocol, row) for t in table.protocols for row in t.rows]
        port_lines = self._port_lines(name, rows)
        by_protocol = self._protocol_map(name, plain_protocols, base) if many else None

        def lines(reading: Reading) -> list[Rule]:
            rules = port_lines(reading)
            for protocol_table in table.protocols:
                if not (many and protocol_table in plain_protocols):
                    rules += self._rest(protocol_table, reading, base, final)
            if by_protocol:
                rules.append(Rule((LookUp((reading.protocol,), by_protocol),)))
            return rules

        self._add(name, read_twice(self._readings, lines, final))

    def _port_lines(self, chain: str, rows: list[tuple[int, Segment]]) -> Callable[[Reading], list[Rule]]:
        """Add what maps the rows need, and return how to write the rules that look them up.

        A few rows are compared one by one. Many single ports are looked up at once, with the protocol, in a
        hash map; many ranges of a protocol in a map of intervals of that protocol.
        """
        singles = [row for row in rows if row[1][0] == row[1][1]]
        ranges = [row for row in rows if row[1][0] != row[1][1]]
        exact = self._exact_map(chain, singles) if len(singles) > FEW else None
        in_line = [] if exact else singles
        interval_maps: list[tuple[int, str]] = []
        for protocol in PORTED:
            of_protocol = [row for row in ranges if row[0] == protocol]
            if len(of_protocol) > FEW:
                interval_maps.append((protocol, self._interval_map(chain, protocol, of_protocol)))
            else:
                in_line += of_protocol

        def lines(reading: Reading) -> list[Rule]:
            rules = [Rule((LookUp(reading.protocol_and_port, exact),))] if exact else []
            for protocol, (first, last, cell) in in_line:
                match = reading.match_port(protocol, Interval(first, last))
                rules.append(Rule((*match, Goto(self._target(cell)))))
            for protocol, name in interval_maps:
                before, port = reading.read_port(protocol)
                rules.append(Rule((*before, LookUp((port,), name))))
            return rules

        return lines

    def _exact_map(self, chain: str, rows: list[tuple[int, Segment]]) -> str | None:
        """Add the map of single ports, by protocol and port."""
        elements = tuple(
            Element((Interval.single(protocol), Interval.single(port)), Goto(self._target(cell)))
            for protocol, (port, _, cell) in rows
        )
        key_types = (KeyType.INET_PROTO, KeyType.INET_SERVICE)
        return self._verdict_map(names.ports_map(chain), key_types, elements, is_interval=False)

    def _interval_map(self, chain: str, protocol: int, rows: list[tuple[int, Segment]]) -> str:
        """Add the map of one protocol's ranges of ports.

        Protocol and port in one map of intervals would make the kernel stand still where many entries leave:
        taking one out of such a map costs it a walk over the whole.
        """
        name = names.port_ranges_map(chain, Protocol(protocol))
        elements = tuple(
            Element((Interval(first, last),), Goto(self._target(cell))) for _, (first, last, cell) in rows
        )
        self._verdict_map(name, (KeyType.INET_SERVICE,), elements, is_interval=True)
        return name

    def _protocol_map(self, chain: str, tables: list[ProtocolTable], base: str) -> str | None:
        """Add the map of protocols that are decided whatever the port."""
        elements = tuple(
            Element(
                (Interval.single(table.protocol),),
                Goto(base if table.rest is None else self._target(table.rest)),
            )
            for table in tables
        )
        return self._verdict_map(f"protocols/{chain}", (KeyType.INET_PROTO,), elements, is_interval=False)

    def _rest(self, table: ProtocolTable, reading: Reading, base: str, final: str) -> list[Rule]:
        """Return the rules for what no row of the protocol spoke of.

        Packets too short to hold ports are none of conntrack's: it calls them invalid.
        """
        rest = base if table.rest is None else self._target(table.rest)
        protocol = reading.match_protocol(table.protocol)
        if reading.is_tracked or table.short is None:
            return [] if rest == final else [Rule((*protocol, Goto(rest)))]
        with_ports = reading.match_port(table.protocol, Interval(0, 65535))
        return [Rule((*with_ports, Goto(rest))), Rule((*protocol, Goto(self._target(table.short))))]

    def _target(self, cell: Cell) -> str:
        """Return the chain that carries a cell out: a leaf, or a chain that looks further."""
        return self._target_of(tuple(Line.of(self.entries[index]) for index in cell))

    def _target_of(self, lines: tuple[Line, ...]) -> str:
        if not lines:
            return self._default
        return lines[0].leaf if lines[0].is_plain else self._cell_chain(lines)

    def _cell_chain(self, lines: tuple[Line, ...]) -> str:
        """Return the chain that looks at source ports and near ends, made if need be.

        A few lines are gone through one after the other; many are told apart by a look-up of the source port,
        and what that leaves by one of the near end.
        """
        name = names.cell_chain(*self._place, "\n".join(map(str, lines)))
        if name in self.chains:
            return name
        if len(lines) <= MANY_LINES:
            final = lines[-1].leaf if lines[-1].is_plain else self._default
            constrained = lines[:-1] if lines[-1].is_plain else lines
            self._add(
                name, read_twice(self._readings, lambda reading: _line_rules(constrained, reading), final)
            )
        else:
            self._split(name, lines)
        return name

    def _split(self, name: str, lines: tuple[Line, ...]) -> None:
        """Add the chain and the map that tell many lines apart by source port, or else by near end."""
        by_port = any(line.source_ports is not None for line in lines)
        protocol = next((line.protocol for line in lines if line.source_ports is not None), 0)
        pieces = split_lines(lines, by_port=by_port, last=LAST_PORT if by_port else self.family.last_address)
        address_type = KeyType.IPV4_ADDR if self.family is Family.IPV4 else KeyType.IPV6_ADDR
        elements = tuple(
            Element((Interval(first, last),), Goto(self._target_of(rest))) for first, last, rest in pieces
        )
        key_type = KeyType.INET_SERVICE if by_port else address_type
        look_up = self._verdict_map(names.split_map(name), (key_type,), elements, is_interval=True)
        rest = tuple(line for line in lines if line.source_ports is None) if by_port else ()

        def rules(reading: Reading) -> list[Rule]:
            selector = reading.source_port_of(protocol) if by_port else reading.local
            return [Rule((LookUp((selector,), look_up),))] if look_up else []

        self._add(name, read_twice(self._readings, rules, self._target_of(cut_lines(rest))))

    def _add(self, name: str, rules: Iterable[Rule]) -> None:
        self.chains[name] = Chain(name=name, rules=tuple(rules))

    def _verdict_map(
        self, name: str, key_types: tuple[KeyType, ...], elements: tuple[Element, ...], *, is_interval: bool
    ) -> str | None:
        """Add a map and return its name; None if it would be empty."""
        if not elements:
            return None
        elements = tuple(sorted(elements, key=lambda element: ruleset.sort_key(element.key)))
        self.verdict_maps[name] = VerdictMap(
            name=name, key_types=key_types, is_interval=is_interval, elements=elements
        )
        return name


def read_twice(
    ways: tuple[Reading, Reading], lines: Callable[[Reading], list[Rule]], final: str
) -> tuple[Rule, ...]:
    """Return rules for tracked sessions, then for untracked packets, and where both go on to.

    Args:
        ways: how each of the two is read.
        lines: makes the rules for one of them.
        final: the chain behind.
    """
    tracked, untracked = (lines(reading) for reading in ways)
    on = Rule((Goto(final),))
    if not untracked:
        return (*tracked, on)
    guard = Rule((Match(ruleset.CT_STATE, (Symbol("untracked"),), Operator.NOT_EQUAL), Goto(final)))
    return (*tracked, guard, *untracked, on)


def _line_rules(lines: Iterable[Line], reading: Reading) -> list[Rule]:
    """Return the rules that go through lines one after the other."""
    return [
        Rule((*matches, Goto(line.leaf))) for line in lines for matches in _further_matches(line, reading)
    ]


def _further_matches(line: Line, reading: Reading) -> list[tuple[Match, ...]]:
    """Return the alternatives in which a line matches."""
    local = () if line.local is None else (reading.match_local(Interval(*line.local)),)
    if line.source_ports is None:
        return [local]
    return [
        (reading.match_source_port(line.protocol, Interval(first, last)), *local)
        for first, last in line.source_ports
    ]


def _whole_matches(entry: Entry, reading: Reading) -> list[tuple[Statement, ...]]:
    """Return the alternatives in which an entry matches, the far end being settled.

    The source port stands before the destination port: that is how libnftables lists fields of one header.
    """
    number = entry.protocol
    further = _further_matches(Line.of(entry), reading)
    if number is None or (entry.ports is None and entry.source_ports and not reading.is_tracked):
        return [*further]  # a source port in a header says the protocol itself, and is listed without it
    if entry.ports is None:
        return [(*reading.match_protocol(number), *matches) for matches in further]
    return [
        _in_header_order(reading.match_port(number, Interval(ports.first, ports.last)), matches)
        for ports in entry.ports
        for matches in further
    ]


def _in_header_order(port: tuple[Match, ...], further: tuple[Match, ...]) -> tuple[Statement, ...]:
    """Return matches on a protocol and port, and on what else a line looks at, as they are listed."""
    *protocol, destination = port
    sources = [match for match in further if match.selector.key_type is KeyType.INET_SERVICE]
    others = [match for match in further if match not in sources]
    return (*protocol, *sources, destination, *others)
