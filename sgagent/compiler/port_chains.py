"""Port chains: the lookup by protocol and port for one address class, and residual matches after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from sgagent.compiler.decision_list import Entry, Selectors, readings
from sgagent.compiler.linear import (
    ALIKE,
    MANY_LINES,
    ResidualMatch,
    cut_lines,
    guards_of_maps,
    line_rules,
    read_twice,
    settled_rules,
    split_lines,
    up_to,
)
from sgagent.compiler.port_table import Cell, PortTable, ProtocolTable, Segment
from sgagent.core.model import LAST_PORT, PORTED, Direction, Family, Protocol
from sgagent.nft import names, ruleset as nft
from sgagent.nft.names import fixed_map

FEW = 12
"""Up to so many ports are compared one after the other, which costs no more than a look-up and reads better.
Sets are dear to make in bulk: a map for each of thousands of small classes would take the kernel minutes."""


@dataclass(frozen=True, slots=True)
class _PortMaps:
    """The maps in which a chain looks up ports that are too many to be compared one by one."""

    exact: str | None
    """Of single ports, by protocol and port."""

    intervals: Mapping[int, str]
    """Of ranges, by their protocol."""

    def left(self, table: ProtocolTable) -> list[Segment]:
        """Return the rows of a protocol that are in none of them."""
        return [
            row
            for row in table.rows
            if not (self.exact if _is_single(row) else table.protocol in self.intervals)
        ]

    def compared(self, tables: Iterable[ProtocolTable], protocol: Protocol) -> int:
        """Return how many ports, or ranges of them, of a protocol are compared one by one."""
        return sum(len(self.left(table)) for table in tables if table.protocol == protocol.number)


def _is_single(row: Segment) -> bool:
    first, last, _ = row
    return first == last


class PortChains:
    """Collect the chains and maps that decide, for one interface, direction and family."""

    def __init__(
        self, interface: str, direction: Direction, family: Family, entries: tuple[Entry, ...]
    ) -> None:
        """Start without any.

        Args:
            interface: the link's name.
            direction: in which sessions are opened.
            family: of their packets.
            entries: all entries, in order; callers name the entries to compile by their indices.
        """
        self.family = family
        self.entries = entries
        self.chains: dict[str, nft.Chain] = {}
        self.verdict_maps: dict[str, nft.VerdictMap] = {}
        self._place = (direction, interface, family)
        self._default = names.default_chain(direction, interface)
        self._readings = readings(direction, family)

    def list_chain(self, name: str, indices: Iterable[int]) -> None:
        """Add a chain that goes through entries one after the other, where a table would be too large."""
        chosen = (self.entries[index] for index in indices)
        entries, last = up_to(chosen, lambda entry: entry.is_for_all)
        final = self._default if last is None else last.leaf
        self._add(name, partial(settled_rules, entries), final)

    def table_chain(self, name: str, table: PortTable, base: str) -> None:
        """Add a chain that decides by protocol and port.

        The protocol of which most ports are compared comes last if these are not very few: all others have
        left, so that it need not be asked for at each of them.
        """
        final = base if table.other is None else self._target(table.other)
        plain_protocols = [t for t in table.protocols if not t.rows and t.short is None]
        many = len(plain_protocols) > FEW
        by_protocol = self._protocol_map(name, plain_protocols, base) if many else None
        maps = self._port_maps(name, table.protocols)
        asked = [t for t in table.protocols if not (many and t in plain_protocols)]
        most = max(PORTED, key=lambda protocol: maps.compared(asked, protocol))
        apart = not many and maps.compared(asked, most) >= ALIKE

        def of(protocols: Iterable[ProtocolTable], reading: Selectors) -> list[nft.Rule]:
            ports = [rule for t in protocols for rule in self._ports(t, maps, reading)]
            return ports + [rule for t in protocols for rule in self._rest(t, reading, base, final)]

        def lines(reading: Selectors) -> list[nft.Rule]:
            rules = [nft.Rule((nft.LookUp(reading.protocol_and_port, maps.exact),))] if maps.exact else []
            if apart and not reading.is_tracked:
                rules += of([t for t in asked if t.protocol != most.number], reading)
                rules.append(nft.Rule((reading.match_others(most), nft.Goto(final))))
                return rules + of([t for t in asked if t.protocol == most.number], reading.of_protocol(most))
            rules += of(asked, reading)
            if by_protocol:
                rules.append(nft.Rule((nft.LookUp((reading.protocol,), by_protocol),)))
            return rules

        self._add(name, lines, final)

    def _port_maps(self, name: str, tables: Iterable[ProtocolTable]) -> _PortMaps:
        """Add what maps the ports of a chain need.

        A few are compared one by one. Many single ports are looked up at once, with the protocol, in a hash
        map; many ranges of a protocol in a map of intervals of that protocol.
        """
        singles = [(t.protocol, row) for t in tables for row in t.rows if _is_single(row)]
        intervals: dict[int, str] = {}
        for table in tables:
            ranges = [row for row in table.rows if not _is_single(row)]
            if len(ranges) > FEW:
                intervals[table.protocol] = self._interval_map(name, table.protocol, ranges)
        return _PortMaps(self._exact_map(name, singles) if len(singles) > FEW else None, intervals)

    def _ports(self, table: ProtocolTable, maps: _PortMaps, reading: Selectors) -> Iterator[nft.Rule]:
        """Yield the rules for the ports of a protocol that are not looked up together with others'."""
        for first, last, cell in maps.left(table):
            match = reading.match_port(table.protocol, nft.Interval(first, last))
            yield nft.Rule((*match, nft.Goto(self._target(cell))))
        if table.protocol in maps.intervals:
            before, port = reading.read_port(table.protocol)
            yield nft.Rule((*before, nft.LookUp((port,), maps.intervals[table.protocol])))

    def _exact_map(self, chain: str, rows: list[tuple[int, Segment]]) -> str | None:
        """Add the map of single ports, by protocol and port."""
        elements = tuple(
            nft.Element(
                (nft.Interval.single(protocol), nft.Interval.single(port)), nft.Goto(self._target(cell))
            )
            for protocol, (port, _, cell) in rows
        )
        key_types = (nft.KeyType.INET_PROTO, nft.KeyType.INET_SERVICE)
        return self._verdict_map(names.ports_map(chain), key_types, elements, is_interval=False)

    def _interval_map(self, chain: str, protocol: int, rows: list[Segment]) -> str:
        """Add the map of one protocol's ranges of ports.

        Protocol and port in one map of intervals would make the kernel stand still where many entries leave:
        taking one out of such a map costs it a walk over the whole.
        """
        prefix = names.port_ranges_map(chain, Protocol(protocol))
        elements = tuple(
            nft.Element((nft.Interval(first, last),), nft.Goto(self._target(cell)))
            for first, last, cell in rows
        )
        made = fixed_map(prefix, (nft.KeyType.INET_SERVICE,), elements, is_interval=True)
        self.verdict_maps[made.name] = made
        return made.name

    def _protocol_map(self, chain: str, tables: list[ProtocolTable], base: str) -> str | None:
        """Add the map of protocols that are decided whatever the port."""
        elements = tuple(
            nft.Element(
                (nft.Interval.single(table.protocol),),
                nft.Goto(base if table.rest is None else self._target(table.rest)),
            )
            for table in tables
        )
        return self._verdict_map(f"protocols/{chain}", (nft.KeyType.INET_PROTO,), elements, is_interval=False)

    def _rest(self, table: ProtocolTable, reading: Selectors, base: str, final: str) -> list[nft.Rule]:
        """Return the rules for what no row of the protocol spoke of.

        Packets too short to hold ports are none of conntrack's: it calls them invalid.
        """
        rest = base if table.rest is None else self._target(table.rest)
        protocol = reading.match_protocol(table.protocol)
        if reading.is_tracked or table.short is None:
            return [] if rest == final else [nft.Rule((*protocol, nft.Goto(rest)))]
        with_ports = reading.match_port(table.protocol, nft.Interval(0, 65535))
        return [
            nft.Rule((*with_ports, nft.Goto(rest))),
            nft.Rule((*protocol, nft.Goto(self._target(table.short)))),
        ]

    def _target(self, cell: Cell) -> str:
        """Return the chain that carries a cell out: a leaf, or a chain that looks further."""
        return self._target_of(tuple(ResidualMatch.of(self.entries[index]) for index in cell))

    def _target_of(self, lines: tuple[ResidualMatch, ...]) -> str:
        if not lines:
            return self._default
        return lines[0].leaf if lines[0].is_plain else self._cell_chain(lines)

    def _cell_chain(self, lines: tuple[ResidualMatch, ...]) -> str:
        """Return the chain that matches source ports and near ends; add it if it is new.

        A few lines become one rule each. Many lines become a lookup of the source port, and then one of the
        near end.
        """
        name = names.cell_chain(*self._place, "\n".join(line.text for line in lines))
        if name in self.chains:
            return name
        if len(lines) <= MANY_LINES:
            final = lines[-1].leaf if lines[-1].is_plain else self._default
            constrained = lines[:-1] if lines[-1].is_plain else lines
            self._add(name, partial(line_rules, constrained), final)
        else:
            self._split(name, lines)
        return name

    def _split(self, name: str, lines: tuple[ResidualMatch, ...]) -> None:
        """Add the chain and the map that look up the source port, or else the near end, of many lines."""
        by_port = any(not line.source_ports.is_all for line in lines)
        protocol = next((line.protocol for line in lines if not line.source_ports.is_all), 0)
        pieces = split_lines(lines, by_port=by_port, last=LAST_PORT if by_port else self.family.last_address)
        address_type = nft.ADDRESS_TYPES[self.family]
        elements = tuple(
            nft.Element((nft.Interval(first, last),), nft.Goto(self._target_of(rest)))
            for first, last, rest in pieces
        )
        key_type = nft.KeyType.INET_SERVICE if by_port else address_type
        look_up = self._verdict_map(names.split_map(name), (key_type,), elements, is_interval=True)
        rest = tuple(line for line in lines if line.source_ports.is_all) if by_port else ()

        def rules(reading: Selectors) -> list[nft.Rule]:
            selector = reading.source_port_of(protocol) if by_port else reading.local
            return [nft.Rule((nft.LookUp((selector,), look_up),))] if look_up else []

        self._add(name, rules, self._target_of(cut_lines(rest)))

    def _add(self, name: str, lines: Callable[[Selectors], list[nft.Rule]], final: str) -> None:
        """Add the chains that read sessions and headers by the lines, and then go on to the last one."""
        for chain in read_twice(name, self._readings, lines, final, guards_of_maps):
            self.chains[chain.name] = chain

    def _verdict_map(
        self,
        prefix: str,
        key_types: tuple[nft.KeyType, ...],
        elements: tuple[nft.Element, ...],
        *,
        is_interval: bool,
    ) -> str | None:
        """Add a map and return its name; None if it would be empty."""
        if not elements:
            return None
        made = fixed_map(prefix, key_types, elements, is_interval=is_interval)
        self.verdict_maps[made.name] = made
        return made.name
