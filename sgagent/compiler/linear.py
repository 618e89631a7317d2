"""Linear chains: entries as one rule after another, in the order of §3; the first match decides.

The compiler uses them for policies of a few lines. Comparing a port costs a packet much less than a lookup
does, and a table without classes is smaller and easier to read. ``python -m bench.shapes`` measures up to
which size that holds. The limits are fixed, so a packet still meets a bounded number of rules.

All chains that judge, these and those of look-ups, exist in two variants (:func:`read_twice`). The first
reads the packet's header, which is cheapest, and holds for the first packet of a session. The second, for
live sessions, reads conntrack's tuples, and holds for any packet. Maps exist once and lead to the first
variant; a guard at its head sends packets of live sessions to the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sgagent.compiler.decision_list import INNER_PEER, Entry, Selectors
from sgagent.core.addresses import joined, sweep
from sgagent.core.model import ALL_PORTS, PORTED, Family, PortSet, Protocol
from sgagent.nft import names, ruleset as nft
from sgagent.nft.names import fixed_map

MANY_LINES = 8
"""Entries for one peer, protocol and port that look further are gone through one by one up to so many."""

Piece = tuple[int, int, tuple["ResidualMatch", ...]]
"""First and last number, and the lines that are left for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualMatch:
    """What is left to be looked at of an entry."""

    leaf: str
    protocol: int
    """Matters only where there are source ports."""

    source_ports: PortSet

    local: tuple[int, int] | None

    @classmethod
    def of(cls, entry: Entry) -> ResidualMatch:
        """Return the line that an entry comes to once peer, protocol and destination port are settled."""
        return cls(
            leaf=entry.leaf,
            protocol=entry.protocol or 0,
            source_ports=entry.source_ports,
            local=entry.local,
        )

    @property
    def text(self) -> str:
        """Return all of it as text, of which the names of chains are made."""
        ports = None if self.source_ports.is_all else self.source_ports.ranges
        return f"{self.leaf} {self.protocol} {ports} {self.local}"

    @property
    def is_plain(self) -> bool:
        """Return whether there is nothing left to be looked at."""
        return self.source_ports.is_all and self.local is None

    def ranges(self, *, by_port: bool, last: int) -> tuple[tuple[int, int], ...]:
        """Return the source ports, or the near ends, for which the line is."""
        if by_port:
            return self.source_ports.ranges
        return ((0, last),) if self.local is None else (self.local,)

    def settled(self, *, by_port: bool) -> ResidualMatch:
        """Return the line once its source port, or its near end, is known to fit."""
        return replace(self, source_ports=ALL_PORTS) if by_port else replace(self, local=None)


def cut_lines(lines: Iterable[ResidualMatch]) -> tuple[ResidualMatch, ...]:
    """Return the lines up to the first plain one, which matches every packet; later ones never decide."""
    kept: list[ResidualMatch] = []
    for line in lines:
        kept.append(line)
        if line.is_plain:
            break
    return tuple(kept)


def split_lines(lines: tuple[ResidualMatch, ...], *, by_port: bool, last: int) -> tuple[Piece, ...]:
    """Cut the source ports, or the near ends, into pieces with the lines that are left for each.

    Args:
        lines: in order.
        by_port: source ports, or else near ends.
        last: the greatest port or address.
    """
    pieces: list[Piece] = []
    spans = ((number, line.ranges(by_port=by_port, last=last)) for number, line in enumerate(lines))
    for first, final, here in sweep(spans, last):
        left = cut_lines(lines[number].settled(by_port=by_port) for number in here)
        if pieces and pieces[-1][2] == left:
            pieces[-1] = (pieces[-1][0], final, left)
        else:
            pieces.append((first, final, left))
    return tuple(pieces)


MOST_LINES = 12
"""Of a direction of an interface, for one family."""

MOST_ADDRESSES = 256
"""In all lines together, ranges counted as one. They stand in the rules: each change writes them all anew."""

MOST_MEMBERS = 4_096
"""Likewise, before neighbours are joined: more aren't looked at to tell."""

ALIKE = 3
"""From so many lines on that compare ports of a protocol, it is asked for but once. Two would cost less, too,
but read better as they are."""


def is_short(entries: Sequence[Entry], most_lines: int) -> bool:
    """Return whether the entries are few enough to be compiled as a list.

    Args:
        entries: of a direction of an interface, for one family.
        most_lines: that a list may have.
    """
    if len(entries) > most_lines or sum(len(entry.addresses) for entry in entries) > MOST_MEMBERS:
        return False
    lines = sum(len(entry.ports.ranges) * len(entry.source_ports.ranges) for entry in entries)
    return lines <= most_lines and sum(len(_far_end(entry)) for entry in entries) <= MOST_ADDRESSES


def separate_protocols(entries: Sequence[Entry]) -> tuple[Protocol, ...]:
    """Return the protocols whose ports so many lines compare that a chain of their own is cheaper."""
    return tuple(protocol for protocol in PORTED if _compared(entries, protocol) >= ALIKE)


def _compared(entries: Iterable[Entry], protocol: Protocol) -> int:
    """Return how many lines compare a port of a protocol, and none but the destination's."""
    alike = (entry for entry in entries if entry.protocol == protocol.number and entry.source_ports.is_all)
    return sum(len(entry.ports.ranges) for entry in alike if not entry.ports.is_all)


def up_to(
    entries: Iterable[Entry], is_last: Callable[[Entry], bool]
) -> tuple[tuple[Entry, ...], Entry | None]:
    """Return the entries before the first that decides about all that is left, and that one if there is."""
    kept: list[Entry] = []
    for entry in entries:
        if is_last(entry):
            return tuple(kept), entry
        kept.append(entry)
    return tuple(kept), None


class FarEnds:
    """The addresses that the lines of a list compare, some of them in maps.

    A few single addresses are compared in the rule. As soon as a range is among them it takes a map, since an
    anonymous set of ranges is empty until the end of the commit that brings it.
    """

    def __init__(self, prefix: str, key_types: tuple[nft.KeyType, ...]) -> None:
        """Start without maps.

        Args:
            prefix: of the maps' names.
            key_types: of their keys: an address.
        """
        self._prefix = prefix
        self._key_types = key_types
        self.made: dict[str, nft.VerdictMap] = {}
        """By name."""

    def of(self, entry: Entry) -> tuple[nft.Interval, ...]:
        """Return the addresses that are compared in the rule; none where any will do, or in a map."""
        addresses = _far_end(entry)
        return () if _needs_map(addresses) else addresses

    def ending(self, entry: Entry, reading: Selectors) -> nft.LookUp | nft.Goto:
        """Return what leads to the entry's leaf once all that is compared in the rule matches."""
        addresses = _far_end(entry)
        if not _needs_map(addresses):
            return nft.Goto(entry.leaf)
        elements = (nft.Element((interval,), nft.Goto(entry.leaf)) for interval in addresses)
        peer = "inner" if entry.peer == INNER_PEER else names.part(entry.peer)
        made = fixed_map(f"{self._prefix}/{peer}", self._key_types, elements, is_interval=True)
        self.made[made.name] = made
        return nft.LookUp((reading.peer,), made.name)


def _needs_map(addresses: tuple[nft.Interval, ...]) -> bool:
    return len(addresses) > 1 and not all(interval.is_single for interval in addresses)


def entry_rules(entries: Iterable[Entry], reading: Selectors, far_ends: FarEnds) -> list[nft.Rule]:
    """Return the rules that send a packet to the leaf of the first entry that matches it."""
    return [
        nft.Rule((*matches, far_ends.ending(entry, reading)))
        for entry in entries
        for matches in _matches(entry, far_ends.of(entry), reading)
    ]


def protocol_rules(
    entries: Iterable[Entry], protocol: Protocol, reading: Selectors, far_ends: FarEnds
) -> list[nft.Rule]:
    """Return the same where it is settled that the packet, which is read by its header, is of a protocol.

    Then its port is compared without asking for the protocol once more, unless its source port is, too:
    libnftables lists both ports of a header as those of its protocol.
    """
    settled = reading.of_protocol(protocol)
    return [
        rule
        for entry in entries
        if entry.protocol in (None, protocol.number)
        for rule in entry_rules([entry], settled if entry.source_ports.is_all else reading, far_ends)
    ]


def settled_rules(entries: Iterable[Entry], reading: Selectors) -> list[nft.Rule]:
    """Return the same where it is settled that the far end is among those of all the entries."""
    return [
        nft.Rule((*matches, nft.Goto(entry.leaf)))
        for entry in entries
        for matches in _matches(entry, (), reading)
    ]


def line_rules(lines: Iterable[ResidualMatch], reading: Selectors) -> list[nft.Rule]:
    """Return the rules for what is left to be looked at, far end, protocol and port being settled."""
    return [
        nft.Rule((*source_port, *_ends(line, (), reading), nft.Goto(line.leaf)))
        for line in lines
        for source_port in _source_ports(line, reading)
    ]


def _far_end(entry: Entry) -> tuple[nft.Interval, ...]:
    """Return the addresses that are compared; none where any will do."""
    if entry.is_for_everyone:
        return ()
    return tuple(nft.Interval(first, last) for first, last in joined(entry.addresses))


def _matches(
    entry: Entry, peers: tuple[nft.Interval, ...], reading: Selectors
) -> Iterator[tuple[nft.Match, ...]]:
    """Yield the alternatives in which an entry matches: ports first, since comparing these costs the least.

    The source port stands before the destination port: that is how libnftables lists fields of one header.
    """
    line, number = ResidualMatch.of(entry), entry.protocol
    ends = _ends(line, peers, reading)
    for source_port in _source_ports(line, reading):
        if number is None or (entry.ports.is_all and source_port and not reading.is_tracked):
            # A source port in a header says the protocol, and is listed without it.
            yield (*source_port, *ends)
        elif entry.ports.is_all:
            yield (*reading.match_protocol(number), *source_port, *ends)
        else:
            for ports in entry.ports.ranges:
                *protocol, port = reading.match_port(number, nft.Interval(*ports))
                yield (*protocol, *source_port, port, *ends)


def _source_ports(line: ResidualMatch, reading: Selectors) -> tuple[tuple[nft.Match, ...], ...]:
    """Return the alternatives of a line's source ports, each as what to match."""
    if line.source_ports.is_all:
        return ((),)
    return tuple(
        (reading.match_source_port(line.protocol, nft.Interval(*ports)),)
        for ports in line.source_ports.ranges
    )


def _ends(line: ResidualMatch, peers: tuple[nft.Interval, ...], reading: Selectors) -> tuple[nft.Match, ...]:
    """Return what to match of far and near end, in the order of the header, as libnftables lists them."""
    peer = (nft.Match(reading.peer, peers),) if peers else ()
    local = () if line.local is None else (reading.match_local(nft.Interval(*line.local)),)
    return (*peer, *local) if reading.peer.key.endswith("saddr") else (*local, *peer)


def read_twice(
    name: str,
    ways: tuple[Selectors, Selectors],
    lines: Callable[[Selectors], list[nft.Rule]],
    final: str,
    guards: Callable[[nft.Goto, Family], tuple[nft.Rule, ...]],
) -> tuple[nft.Chain, ...]:
    """Return the chain of the name, which reads headers, and the one beside it, which reads sessions.

    Args:
        name: of the first.
        ways: how sessions are read, and how headers are.
        lines: makes the rules for one of them.
        final: the chain behind.
        guards: makes the rules that send packets from the first to the second.
    """
    by_session, by_header = (lines(reading) for reading in ways)
    on = nft.Rule((nft.Goto(final),))
    if not by_header:
        return (nft.Chain(name=name, rules=(on,)),)
    live = nft.Chain(name=names.live_chain(name), rules=(*by_session, on))
    to_live = nft.Goto(live.name if by_session else final)
    chain = nft.Chain(name=name, rules=(*guards(to_live, ways[1].family), *by_header, on))
    return (chain, live) if by_session else (chain,)


def guards_of_maps(to_live: nft.Goto, family: Family) -> tuple[nft.Rule, ...]:
    """Return the guards of a chain that is the target of maps.

    A packet that is not the first of its session may be a reply, or an ICMP error about the session.
    """
    is_live = nft.Match(nft.CT_STATE, (nft.Symbol("established"), nft.Symbol("related")))
    return (nft.Rule((is_live, to_live)), *guards_of_new(to_live, family))


def guards_of_new(to_live: nft.Goto, family: Family) -> tuple[nft.Rule, ...]:
    """Return the guards of a chain to which only packets come that open a session or have none.

    Behind an authentication header of IPv6 conntrack sees the protocol, but nft does not.
    """
    if family is Family.IPV4:
        return ()
    is_authenticated = nft.Match(nft.META_L4PROTO, (nft.Interval.single(_AUTHENTICATION),))
    return (nft.Rule((is_authenticated, nft.Match(nft.CT_STATE, (nft.Symbol("new"),)), to_live)),)


_AUTHENTICATION = 51
