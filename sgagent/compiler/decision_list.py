"""Build the decision list of one direction, interface and family, in the order of §3.

Exemptions of the configuration, inner access and rules all become entries. An entry holds the far ends, the
traffic that it matches, and the counter chain for packets that it decides. The default follows the last.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sgagent.core.addresses import AddressRanges
from sgagent.core.memo import Memory, Revised, changed_places, remake
from sgagent.core.model import ALL_PORTS, Direction, Family, PortSet
from sgagent.core.policy import Exemption, ResolvedInterface, ResolvedRule
from sgagent.nft import names

INNER_PEER = "(inner)"
"""No id of a document has parentheses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the list."""

    leaf: str
    """The chain that counts and carries out the verdict."""

    peer: str
    """Names the far end; equal names have equal addresses."""

    family: Family
    """Of the packets that it can match."""

    addresses: AddressRanges
    protocol: int | None
    """None is all."""

    ports: PortSet = ALL_PORTS
    """Destination ports."""

    source_ports: PortSet = ALL_PORTS
    local: tuple[int, int] | None = None
    """First and last address of the near end; None is any."""

    is_exempt: bool = False
    """Whether it stands before the rules."""

    @property
    def is_for_everyone(self) -> bool:
        """Return whether the far end may be any address of the family.

        The family has to say what any is: all of IPv4 has the numbers of ``::/96``, a small part of IPv6.
        """
        return self.addresses == ((0, self.family.last_address),)

    @property
    def is_plain(self) -> bool:
        """Return whether peer, protocol and destination port say whether it matches."""
        return self.source_ports.is_all and self.local is None

    def decides_like(self, other: Entry) -> bool:
        """Return whether both decide alike, whatever addresses they hold for."""
        return self is other or replace(self, addresses=other.addresses) == other

    @property
    def is_for_all(self) -> bool:
        """Return whether it matches all that the far end sends or is sent."""
        return self.is_plain and self.protocol is None


def list_entries(
    interface: ResolvedInterface, direction: Direction, family: Family, memory: Memory
) -> tuple[Entry, ...]:
    """Return the entries that can match packets of the family, the first that decides first."""
    toward = interface.toward(direction)
    entries = [
        _exemption(kind, exemption, interface.name, memory)
        for kind, exemptions in (("platform", toward.platform), ("failsafe", toward.failsafe))
        for exemption in exemptions
        if exemption.can_match(family)
    ]
    inner = toward.inner.ranges(family)
    if inner:
        entries.append(
            memory.part(INNER_PEER).recall((inner,), lambda: _inner(inner, interface.name, family))
        )
    make_entry = partial(_rule, interface=interface.name, family=family)
    of_rules = memory.part("rules").revise(partial(remake, toward.rules, make_entry)).made
    listed: _Listed = memory.part("listed").revise(partial(_listed, tuple(entries), of_rules))
    return listed.entries


@dataclass(frozen=True, slots=True)
class _Listed:
    """All entries, and what they were put together of."""

    before_rules: tuple[Entry, ...]
    of_rules: Revised[Entry | None]
    places: tuple[int, ...]
    """Of the rules that have an entry."""

    entries: Revised[Entry]


def _listed(
    before_rules: tuple[Entry, ...], of_rules: Revised[Entry | None], before: _Listed | None
) -> _Listed:
    """Return all entries; where the same rules have one as before, only those that changed are put in."""
    if before is not None and _are_the_same(before.before_rules, before_rules):
        others = _others(before.of_rules, of_rules)
        if others is not None:
            ahead = len(before_rules)
            revised = {ahead + bisect_left(before.places, place): entry for place, entry in others.items()}
            return _Listed(before_rules, of_rules, before.places, before.entries.but(revised))
    places = tuple(place for place, entry in enumerate(of_rules) if entry is not None)
    return _Listed(before_rules, of_rules, places, Revised((*before_rules, *filter(None, of_rules))))


def _are_the_same(some: tuple[Entry, ...], others: tuple[Entry, ...]) -> bool:
    return len(some) == len(others) and not changed_places(some, others)


def _others(before: Revised[Entry | None], after: Revised[Entry | None]) -> dict[int, Entry] | None:
    """Return the entries that stand in the places of others; None if anything else changed."""
    if len(before) != len(after):
        return None
    places = changed_places(before, after)
    others = {place: entry for place in places if before[place] and (entry := after[place])}
    return others if len(others) == len(places) else None


def _inner(members: AddressRanges, interface: str, family: Family) -> Entry:
    return Entry(
        leaf=names.inner_chain(interface),
        peer=INNER_PEER,
        family=family,
        addresses=members,
        protocol=None,
        is_exempt=True,
    )


def _exemption(kind: str, exemption: Exemption, interface: str, memory: Memory) -> Entry:
    block = exemption.peer
    entry = Entry(
        leaf=names.exemption_chain(kind, exemption.direction, interface),
        peer=str(block),
        family=block.family,
        addresses=((block.first, block.last),),
        protocol=exemption.protocol.number,
        ports=exemption.ports,
        is_exempt=True,
    )
    return memory.part(entry).recall((), lambda: entry)


def _rule(rule: ResolvedRule, interface: str, family: Family) -> Entry | None:
    """Return the entry of a rule; None if it can match nothing of the family."""
    if not rule.can_match(family):
        return None
    return Entry(
        leaf=names.rule_chain(interface, rule.rule_id),
        peer=rule.peer.name,
        family=family,
        addresses=rule.peer.addresses.ranges(family),
        protocol=rule.protocol.number,
        ports=rule.ports,
        source_ports=rule.source_ports,
        local=rule.near_ends,
    )


@dataclass(frozen=True, slots=True)
class Grouped:
    """Entries by their places in the list, the first that decides first."""

    entries: tuple[Entry, ...]
    by_peer: Mapping[str, Sequence[int]]
    """Those of each peer that is not everyone."""

    for_everyone: tuple[int, ...]
    peers: tuple[str, ...]
    """Sorted."""

    addresses: Revised[AddressRanges]
    """Of each of these."""

    def is_like(self, other: Grouped) -> bool:
        """Return whether the same stand at the same places, but for the addresses of some."""
        return self.by_peer is other.by_peer

    def addresses_with(self, changed: Iterable[str], entries: tuple[Entry, ...]) -> Revised[AddressRanges]:
        """Return the addresses of all peers, for entries that are like these but for some that changed."""
        return self.addresses.but(
            {bisect_left(self.peers, peer): entries[self.by_peer[peer][0]].addresses for peer in changed}
        )

    def own(self, peers: tuple[str, ...]) -> list[int]:
        """Return the entries of some peers, in order."""
        return sorted(index for peer in peers for index in self.by_peer[peer])


def group(entries: tuple[Entry, ...], before: Grouped | None) -> Grouped:
    """Return the entries by whom they speak of.

    Args:
        entries: all of them, in order.
        before: what this function returned for others.
    """
    if before is not None and len(before.entries) == len(entries):
        places = changed_places(before.entries, entries)
        if all(_is_alike(before.entries[place], entries[place]) for place in places):
            changed = {entries[place].peer for place in places if not entries[place].is_for_everyone}
            return replace(before, entries=entries, addresses=before.addresses_with(changed, entries))
    by_peer: dict[str, list[int]] = {}
    for_everyone: list[int] = []
    for index, entry in enumerate(entries):
        if entry.is_for_everyone:
            for_everyone.append(index)
        else:
            by_peer.setdefault(entry.peer, []).append(index)
    peers = tuple(sorted(by_peer))
    addresses = Revised(entries[by_peer[peer][0]].addresses for peer in peers)
    return Grouped(entries, by_peer, tuple(for_everyone), peers, addresses)


def _is_alike(one: Entry, other: Entry) -> bool:
    """Return whether two speak of the same peer, whatever its addresses are."""
    return one.peer == other.peer and one.is_for_everyone == other.is_for_everyone
