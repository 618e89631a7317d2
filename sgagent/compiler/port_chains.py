"""Port chains: the chains and maps that look up the port table of one class of far ends, or of everyone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from sgagent.compiler.decision_list import Entry
from sgagent.compiler.linear import ALIKE, settled_rules, through, up_to
from sgagent.compiler.port_table import MANY_LINES, Cell, PortTable, ProtocolTable
from sgagent.compiler.selectors import Place, Selectors, guards_of_maps, read_twice
from sgagent.core.addresses import append_run, sweep
from sgagent.core.model import ALL_PORTS, LAST_PORT, Protocol
from sgagent.nft import names, ruleset as nft

_Ending = tuple[nft.Statement, ...]
"""What a rule ends with: the way on, or what is done at once."""

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
    return through(lines, lambda line: line.is_plain)


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
