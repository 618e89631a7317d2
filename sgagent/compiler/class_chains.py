"""Class chains: dispatch sessions of one direction and family by the class of the far end, then by port.

Two addresses are in one class if they are in the same peers. Peers that hold every address are not part of a
class, since all classes have them. Single addresses and networks are separate, because the kernel looks them
up separately: first the hash map of addresses, then the interval map of networks. The class of a single
address includes the networks around it, so that the first hit decides.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import filterfalse
from operator import itemgetter

from sgagent.compiler.decision_list import Entry, Grouped
from sgagent.compiler.port_chains import PortChains
from sgagent.compiler.port_table import Decider, exceeds_table_limit, make_table
from sgagent.compiler.selectors import Place, Selectors, dhcp_rule, guards_of_new, read_twice
from sgagent.core.addresses import AddressRanges, append_run, meets, sweep
from sgagent.core.memo import Memo, Seam, gone_and_come
from sgagent.core.model import Family
from sgagent.nft import names, ruleset as nft


def look_up_chains(
    entries: tuple[Entry, ...], place: Place, renamed: frozenset[str], memo: Memo
) -> tuple[Iterable[nft.Chain], Iterable[nft.VerdictMap]]:
    """Return the chains and maps that look up the far end, then protocol and port.

    Args:
        entries: the decision list.
        place: of the entries.
        renamed: maps of addresses, by their first names, that have their other name.
        memo: of the last step.
    """
    grouped, addresses = Grouped.of(entries), memo.part(Seam.ADDRESS_MAP, *place)
    classes = addresses.update("classes", partial(classify, grouped.addresses))
    found = class_chains(grouped, classes.distinct(), place, memo)
    first = names.peers_chain(*place)
    name = names.second_map(first) if first in renamed else first
    maps = address_maps(classes, found.gotos, place, name, addresses)

    def rules(reading: Selectors) -> list[nft.Rule]:
        lookups = (nft.Rule((nft.LookUp((reading.peer,), one.name),)) for one in maps)
        return [dhcp_rule(reading, *place), *lookups]  # DHCP may come from any far end

    entry = read_twice(first, place, rules, (nft.Goto(found.onward),), guards_of_new)
    parts = (*found.made.values(), *found.shared)  # what classes share is the same in all of them
    chains = {one.name: one for part in parts for one in part.chains.values()}
    made = {one.name: one for part in parts for one in part.verdict_maps.values()}
    return (*chains.values(), *entry), (*made.values(), *maps)


@dataclass(frozen=True, slots=True)
class ClassChain:
    """The chains that decide about some addresses, and where they begin."""

    target: str
    chains: Mapping[str, nft.Chain]
    verdict_maps: Mapping[str, nft.VerdictMap]
    is_list: bool = False
    """Whether the entries for everyone stand in one list with those of the class."""


@dataclass(frozen=True)
class ClassChains:
    """The chains that decide about each class."""

    entries: tuple[Entry, ...]
    """The entries that it was made of."""

    distinct: tuple[Peers, ...]
    """The classes."""

    made: Mapping[tuple[str, ...], ClassChain]
    """By the names of a class's peers, in the order of the classes."""

    onward: str
    """Where packets of no class go."""

    shared: tuple[ClassChain, ...]
    """The chain for everyone, unless nothing leads there."""

    @property
    def gotos(self) -> Gotos:
        """Return where each class leads."""
        targets = (nft.Goto(one.target) for one in self.made.values())
        return dict(zip(self.distinct, targets, strict=True))

    def clean(self, entries: tuple[Entry, ...]) -> Mapping[tuple[str, ...], ClassChain]:
        """Return the classes about which the same is decided with other entries."""
        dirty = dirty_classes(self.entries, entries)
        if dirty is None:
            return {}
        return {
            peers: one
            for peers, one in self.made.items()
            if dirty.peers.isdisjoint(peers) and not (one.is_list and dirty.is_for_everyone)
        }


def class_chains(grouped: Grouped, distinct: tuple[Peers, ...], place: Place, memo: Memo) -> ClassChains:
    """Return the chains of each class: a port table, or a list where that would be too large."""
    entries, memo = grouped.entries, memo.part(Seam.DIRTY_CLASSES, *place)
    base, nobody = Decider(entries, grouped.for_everyone), Decider(entries, ())
    everyone, default = names.everyone_chain(*place), names.default_chain(*place[:2])
    for_everyone = memo.get(
        "for everyone",
        tuple(entries[index] for index in base.members),
        lambda: _decided(everyone, base.members, nobody, default, place),
    )

    def update(before: ClassChains | None) -> ClassChains:
        known = {} if before is None else before.clean(entries)
        in_names = (tuple(grouped.peers[index] for index in peers) for peers in distinct)
        made = {
            peers: known[peers] if peers in known else _class(peers, grouped, base, place)
            for peers in in_names
        }
        if base.members or any(one.chains for one in made.values()):
            return ClassChains(entries, distinct, made, everyone, (for_everyone,))
        return ClassChains(entries, distinct, made, default, ())

    return memo.update("classes", update)


def _class(peers: tuple[str, ...], grouped: Grouped, base: Decider, place: Place) -> ClassChain:
    """Return the chains that decide about addresses of a class.

    They depend on the entries of its peers, on those for everyone that these meet, and on which stand before
    which; the names depend on the peers'. They do not depend on the addresses of entries. Where the first
    entry exempts all traffic there is nothing to decide.
    """
    own, everyone = grouped.own(peers), base.members
    first, is_first = grouped.entries[own[0]], not everyone or everyone[0] > own[0]
    if first.is_exempt and first.protocol is None and first.ports.is_all and is_first:
        return ClassChain(first.leaf, {}, {})
    return _decided(names.class_chain(*place, peers), own, base, names.everyone_chain(*place), place)


def _decided(name: str, own: Sequence[int], base: Decider, onward: str, place: Place) -> ClassChain:
    """Compile the chain of a class, in which its own entries come first; packets that miss these go onward.

    Args:
        name: of the chain.
        own: the entries of its peers, by their places in the decision list.
        base: decides about everyone, in the chain onward.
        onward: where packets go that no entry of its own decides.
        place: direction, interface and family.
    """
    entries = base.entries
    found = PortChains(name, onward, entries, place)
    is_list = exceeds_table_limit(entries, own, base.constrained)
    if is_list:
        found.decide_by_list(sorted((*own, *base.members)))
    else:
        found.decide_by_table(make_table(entries, own, base))
    return ClassChain(name, found.chains, found.verdict_maps, is_list)


@dataclass(frozen=True, slots=True)
class DirtyClasses:
    """The classes about which something else may be decided than before."""

    peers: frozenset[str]
    """Those of any of these peers."""

    is_for_everyone: bool
    """Whether entries for everyone changed, which stand in lists too."""


MOST_FOR_EVERYONE = 32
"""Entries for everyone. If more change, all classes are dirty: comparing each with all entries costs more."""


def dirty_classes(before: Sequence[Entry], after: Sequence[Entry]) -> DirtyClasses | None:
    """Return the classes that a change of entries makes dirty; None if all may be.

    All may be if entries that stayed changed their order, or if entries for everyone changed that match more
    than protocol and port: their number is one of the things that decide between table and list.
    """
    gone, come = gone_and_come(before, after)
    changed = (*gone, *come)
    everyone = [entry for entry in changed if entry.has_any_peer]
    if len(everyone) > MOST_FOR_EVERYONE or not all(entry.is_plain for entry in everyone):
        return None
    if _without(before, gone) != _without(after, come):
        return None
    own = {entry.peer for entry in changed if not entry.has_any_peer}
    met = (entry for other in everyone for entry in after if _meet(entry, other))
    own.update(entry.peer for entry in met if not entry.has_any_peer)
    return DirtyClasses(frozenset(own), bool(everyone))


def _without(entries: Sequence[Entry], some: Sequence[Entry]) -> list[int]:
    """Return the identities of entries, without some of them."""
    return list(filterfalse(set(map(id, some)).__contains__, map(id, entries)))


def _meet(one: Entry, other: Entry) -> bool:
    """Return whether protocol and ports of two entries have something in common."""
    if one.protocol is not None and other.protocol is not None and one.protocol != other.protocol:
        return False
    if one.ports.is_all or other.ports.is_all:
        return True
    return any(meets(mine, other.ports.ranges) for mine in one.ports.ranges)


Peers = tuple[int, ...]
"""Sorted indices of the peers that the addresses of a class are in."""

Networks = tuple[tuple[int, int, Peers], ...]
"""First and last address, and what they are in; sorted, disjoint; neighbours differ in their peers."""


@dataclass(frozen=True, slots=True)
class Classes:
    """All addresses that are in any peer, with their peers."""

    peers: tuple[AddressRanges, ...]
    """The addresses of each peer."""

    addresses: Mapping[int, Peers]
    """Single addresses."""

    networks: Networks

    def distinct(self) -> tuple[Peers, ...]:
        """Return every combination of peers that occurs, sorted."""
        return tuple(sorted({*self.addresses.values(), *(peers for _, _, peers in self.networks)}))


def classify(peers: Iterable[AddressRanges], before: Classes | None = None) -> Classes:
    """Return the classes of addresses. A peer is named by its index.

    Args:
        peers: the addresses of each.
        before: an earlier result; if only single addresses came and went since, only they are classified.
    """
    peers = tuple(peers)
    changed = None if before is None else changed_addresses(before.peers, peers)
    if before is None or changed is None:
        return _classify(peers)
    networks, addresses = before.networks, dict(before.addresses)
    for address, others in changed.items():
        around = _network_around(address, networks)
        indices = set(addresses.pop(address, ())).difference(around).symmetric_difference(others)
        if indices:
            addresses[address] = tuple(sorted(indices.union(around)))
    return Classes(peers, addresses, networks)


def _classify(peers: tuple[AddressRanges, ...]) -> Classes:
    singles: dict[int, list[int]] = {}
    for index, ranges in enumerate(peers):
        for first, last in ranges:
            if first == last:
                singles.setdefault(first, []).append(index)
    blocks = (tuple(ends for ends in ranges if ends[0] < ends[1]) for ranges in peers)
    pieces: list[tuple[int, int, Peers]] = []
    # No address of IPv4 is larger: the one bound serves both families.
    for first, last, here in sweep(enumerate(blocks), Family.IPV6.last_address):
        if here:
            append_run(pieces, first, last, tuple(here))
    networks = tuple(pieces)
    return Classes(
        peers=peers,
        addresses={
            address: tuple(sorted({*indices, *around}))
            if (around := _network_around(address, networks))
            else tuple(indices)
            for address, indices in singles.items()
        },
        networks=networks,
    )


MOST_CHANGED = 256
"""Single addresses; if more change, all are classified again."""


def changed_addresses(
    before: Sequence[AddressRanges], after: Sequence[AddressRanges]
) -> Mapping[int, set[int]] | None:
    """Return which peers gained or lost single addresses, by address; None if there is more to it.

    No peer holds an address both as such and in a network: of what overlaps it has made one.
    """
    if len(before) != len(after):
        return None
    changed: dict[int, set[int]] = {}
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if old is new:
            continue
        for first, last in set(old).symmetric_difference(new):
            changed.setdefault(first, set()).add(index)
            if first != last or len(changed) > MOST_CHANGED:
                return None
    return changed


def _network_around(address: int, networks: Networks) -> Peers:
    """Return the peers of the network around an address; none where there is no network."""
    place = bisect_right(networks, address, key=itemgetter(0)) - 1
    return () if place < 0 or networks[place][1] < address else networks[place][2]


Gotos = Mapping[Peers, nft.Goto]
"""Where each class leads."""


def address_maps(
    classes: Classes, gotos: Gotos, place: Place, name: str, memo: Memo
) -> tuple[nft.VerdictMap, ...]:
    """Return the maps from the far end to where its class leads, in the order of lookup; none is empty.

    Args:
        classes: of all addresses.
        gotos: where each class leads.
        place: of the entries.
        name: of the map of single addresses.
        memo: of the address map, as the last step left it.
    """
    found = memo.update("elements", partial(address_elements, classes, gotos)).elements
    key_types = (nft.ADDRESS_TYPES[place[2]],)
    singles = memo.get(
        f"map {name}", (found,), lambda: nft.VerdictMap(name=name, key_types=key_types, elements=found)
    )
    if not classes.networks:
        return (singles,) if found else ()
    elements = (nft.Element((nft.Interval(*ends),), gotos[peers]) for *ends, peers in classes.networks)
    prefix = names.of_family("networks", *place)
    networks = memo.get(
        "networks",
        (classes.networks, memo.same("gotos", gotos)),
        lambda: names.fixed_map(prefix, key_types, elements, is_interval=True),
    )
    return (singles, networks) if found else (networks,)


@dataclass(frozen=True, slots=True)
class AddressElements:
    """Elements for all single addresses, and the classes and targets they were made of."""

    classes: Classes
    gotos: Gotos
    elements: tuple[nft.Element, ...]
    """Sorted by address."""


def address_elements(classes: Classes, gotos: Gotos, before: AddressElements | None) -> AddressElements:
    """Return the elements of all single addresses.

    Args:
        classes: the addresses and their classes.
        gotos: where each class leads.
        before: an earlier result; if no class leads elsewhere, elements that have not changed are taken
            from it.
    """
    changed = None if before is None else changed_addresses(before.classes.peers, classes.peers)
    if before is None or changed is None or _lead_elsewhere(before.gotos, gotos):
        made = (_element(address, gotos[peers]) for address, peers in sorted(classes.addresses.items()))
        return AddressElements(classes, gotos, tuple(made))
    if not changed:
        return before
    elements = list(before.elements)
    for address in changed:
        place = bisect_left(elements, address, key=_address)
        stop = place + (place < len(elements) and _address(elements[place]) == address)
        peers = classes.addresses.get(address)
        elements[place:stop] = [] if peers is None else [_element(address, gotos[peers])]
    return AddressElements(classes, gotos, tuple(elements))


def _lead_elsewhere(before: Gotos, after: Gotos) -> bool:
    """Return whether a class leads elsewhere than before."""
    return any(before.get(peers, goto) != goto for peers, goto in after.items())


def _element(address: int, goto: nft.Goto) -> nft.Element:
    return nft.Element((nft.Interval(address, address),), goto)


def _address(element: nft.Element) -> int:
    (key,) = element.key
    return key.first if isinstance(key, nft.Interval) else -1
