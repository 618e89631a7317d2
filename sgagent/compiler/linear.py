"""Linear chains: entries as one rule after another, in the order of §3; the first match decides.

The compiler uses them for policies of a few lines. Comparing a port costs a packet much less than a lookup
does, and a table without classes is smaller and easier to read. ``python -m bench.shapes`` measures up to
which size that holds. The limits are fixed, so a packet still meets a bounded number of rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from sgagent.compiler.decision_list import INNER_PEER, Entry
from sgagent.compiler.selectors import Place, Selectors, dhcp_rule, guards_of_new, read_twice, readings
from sgagent.core.addresses import joined
from sgagent.core.model import PORTED, UDP, Protocol
from sgagent.nft import names, ruleset as nft

T = TypeVar("T")

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


def list_chains(
    entries: tuple[Entry, ...], place: Place
) -> tuple[Iterable[nft.Chain], Iterable[nft.VerdictMap]]:
    """Return the chains that go through all entries, behind DHCP, which no group blocks; and their maps."""
    direction, interface, family = place
    entries, last = up_to(entries, lambda entry: entry.has_any_peer and entry.is_for_all)
    final = (nft.Goto(names.default_chain(direction, interface)),) if last is None else last.ending
    far_ends = FarEndMaps(names.of_family("objects", *place), (nft.ADDRESS_TYPES[family],))
    _, by_header = readings(direction, family)
    (_, rules), *others = _by_protocol(entries, by_header, far_ends, place).items()

    def lines(reading: Selectors) -> list[nft.Rule]:
        if reading.is_tracked:
            return [dhcp_rule(reading, *place), *entry_rules(entries, reading, far_ends)]
        return rules

    entry = read_twice(names.peers_chain(*place), place, lines, final, guards_of_new)
    further = (nft.Chain(name=name, rules=(*of_others, nft.Rule(final))) for name, of_others in others)
    return (*entry, *further), far_ends.made.values()


def _by_protocol(
    entries: tuple[Entry, ...], reading: Selectors, far_ends: FarEndMaps, place: Place
) -> dict[str, list[nft.Rule]]:
    """Return the rules of the list that read headers, by chain: one chain for each separated protocol.

    The first chain is the entry point. Packets of other protocols go on to the next chain.
    """
    name, separate, dhcp = names.peers_chain(*place), separate_protocols(entries), dhcp_rule(reading, *place)
    found: dict[str, list[nft.Rule]] = {}
    for protocol in separate:
        others = names.of_family(f"not-{protocol}", *place)
        leave = nft.Rule((reading.match_others(protocol), nft.Goto(others)))
        of_protocol = protocol_rules(entries, protocol, reading, far_ends)
        found[name] = [leave, *([dhcp] if protocol == UDP else []), *of_protocol]
        entries = tuple(entry for entry in entries if entry.protocol != protocol.number)
        name = others
    found[name] = [*([] if UDP in separate else [dhcp]), *entry_rules(entries, reading, far_ends)]
    return found


def separate_protocols(entries: Iterable[Entry]) -> tuple[Protocol, ...]:
    """Return the protocols of which lines compare so many ports that a chain of their own is cheaper.

    Lines that also compare source ports don't count.
    """
    compared: Counter[int | None] = Counter()
    for entry in entries:
        if entry.source_ports.is_all and not entry.ports.is_all:
            compared[entry.protocol] += len(entry.ports.ranges)
    return tuple(protocol for protocol in PORTED if compared[protocol.number] >= ALIKE)


def up_to(items: Iterable[T], is_last: Callable[[T], bool]) -> tuple[tuple[T, ...], T | None]:
    """Return the items before the first that decides about all that is left, and that one if there is."""
    kept: list[T] = []
    for item in items:
        if is_last(item):
            return tuple(kept), item
        kept.append(item)
    return tuple(kept), None


def through(items: Iterable[T], is_last: Callable[[T], bool]) -> tuple[T, ...]:
    """Return the items up to the first that decides about all that is left, with it."""
    before, last = up_to(items, is_last)
    return before if last is None else (*before, last)


class FarEndMaps:
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

    def split(
        self, entry: Entry, reading: Selectors
    ) -> tuple[tuple[nft.Interval, ...], tuple[nft.Statement, ...]]:
        """Return the addresses that the rule compares, none where any will do, and what it ends with."""
        addresses = _far_end(entry)
        if len(addresses) < 2 or all(interval.is_single for interval in addresses):
            return addresses, entry.ending
        elements = (nft.Element((interval,), entry.onward) for interval in addresses)
        peer = "inner" if entry.peer == INNER_PEER else names.part(entry.peer)
        made = names.fixed_map(f"{self._prefix}/{peer}", self._key_types, elements, is_interval=True)
        self.made[made.name] = made
        return (), (nft.LookUp((reading.peer,), made.name),)


def entry_rules(entries: Iterable[Entry], reading: Selectors, far_ends: FarEndMaps) -> list[nft.Rule]:
    """Return the rules that send a packet to the leaf of the first entry that matches it."""
    found = ((entry, *far_ends.split(entry, reading)) for entry in entries)
    return [
        nft.Rule((*matches, *user, *ending))
        for entry, addresses, ending in found
        for matches in _matches(entry, addresses, reading)
        for user in reading.match_user(entry.user, lets_answers_in=entry.lets_answers_in)
    ]


def protocol_rules(
    entries: Iterable[Entry], protocol: Protocol, reading: Selectors, far_ends: FarEndMaps
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
        nft.Rule((*matches, *user, *entry.ending))
        for entry in entries
        for matches in _matches(entry, (), reading)
        for user in reading.match_user(entry.user, lets_answers_in=entry.lets_answers_in)
    ]


def _far_end(entry: Entry) -> tuple[nft.Interval, ...]:
    """Return the addresses that are compared; none where any will do."""
    if entry.has_any_peer:
        return ()
    return tuple(nft.Interval(first, last) for first, last in joined(entry.addresses))


def _matches(
    entry: Entry, peers: tuple[nft.Interval, ...], reading: Selectors
) -> Iterator[tuple[nft.Match, ...]]:
    """Yield the alternatives in which an entry matches: ports first, since comparing these costs the least.

    The source port stands before the destination port: that is how libnftables lists fields of one header.
    """
    number, ends = entry.protocol, reading.match_ends(peers, entry.local)
    for source_port in reading.match_source_ports(number, entry.source_ports):
        if number is None or (entry.ports.is_all and source_port and not reading.is_tracked):
            # A source port in a header says the protocol, and is listed without it.
            yield (*source_port, *ends)
        elif entry.ports.is_all:
            yield (*reading.match_protocol(number), *source_port, *ends)
        else:
            for ports in entry.ports.ranges:
                *protocol, port = reading.match_port(number, nft.Interval(*ports))
                yield (*protocol, *source_port, port, *ends)
