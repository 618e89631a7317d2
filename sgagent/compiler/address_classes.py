"""Address classes: two addresses are in one class if they are in the same peers.

Peers that hold every address are not part of a class, since all classes have them. Single addresses and
networks are separate, because the kernel looks them up separately: first the hash map of addresses, then the
interval map of networks. The class of a single address includes the networks around it, so that the first hit
decides.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from sgagent.compiler.decision_list import Place
from sgagent.core.addresses import AddressRanges, append_run
from sgagent.core.memo import Memo, Seam
from sgagent.nft import names, ruleset as nft
from sgagent.nft.names import fixed_map

Peers = tuple[int, ...]
"""Sorted indices of the peers that the addresses of a class are in."""

Networks = tuple[tuple[int, int, Peers], ...]
"""First and last address, and what they are in; sorted, disjoint; neighbours differ in their peers."""


@dataclass(frozen=True, slots=True)
class Classes:
    """All addresses that are in any peer, with what they are in."""

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
    starts = [first for first, _, _ in networks]
    for address, others in changed.items():
        around = _network_around(address, starts, networks)
        indices = set(addresses.pop(address, ())).difference(around).symmetric_difference(others)
        if indices:
            addresses[address] = tuple(sorted(indices.union(around)))
    return Classes(peers, addresses, networks)


def _classify(peers: tuple[AddressRanges, ...]) -> Classes:
    singles: dict[int, list[int]] = {}
    blocks: list[tuple[int, int, int]] = []
    for index, ranges in enumerate(peers):
        for first, last in ranges:
            if first == last:
                singles.setdefault(first, []).append(index)
            else:
                blocks.append((first, last, index))
    networks = _sweep(blocks)
    starts = [first for first, _, _ in networks]
    return Classes(
        peers=peers,
        addresses={
            address: tuple(sorted({*indices, *around}))
            if (around := _network_around(address, starts, networks))
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


def _sweep(blocks: list[tuple[int, int, int]]) -> Networks:
    """Cut overlapping blocks into disjoint pieces, each with the blocks that cover it."""
    borders: dict[int, list[tuple[int, int]]] = {}
    for first, last, index in blocks:
        borders.setdefault(first, []).append((index, 1))
        borders.setdefault(last + 1, []).append((index, -1))
    depth: dict[int, int] = {}
    pieces: list[tuple[int, int, Peers]] = []
    places = sorted(borders)
    for place, following in pairwise(places):
        for index, step in borders[place]:
            depth[index] = depth.get(index, 0) + step
            if not depth[index]:
                del depth[index]
        if depth:
            append_run(pieces, place, following - 1, tuple(sorted(depth)))
    return tuple(pieces)


def _network_around(address: int, starts: list[int], networks: Networks) -> Peers:
    """Return the peers of the network around an address; none where there is no network."""
    place = bisect_right(starts, address) - 1
    return () if place < 0 or networks[place][1] < address else networks[place][2]


Gotos = Mapping[Peers, nft.Goto]
"""Where each class leads."""


def address_classes(peers: tuple[AddressRanges, ...], place: Place, memo: Memo) -> Classes:
    """Return the classes of the addresses of each peer, as :func:`classify` does."""
    return memo.part(Seam.ADDRESS_MAP, *place).update("classes", lambda before: classify(peers, before))


def address_maps(
    classes: Classes, gotos: Gotos, place: Place, name: str, memo: Memo
) -> tuple[nft.VerdictMap, ...]:
    """Return the maps from the far end to where its class leads, in the order of lookup; none is empty.

    Args:
        classes: of all addresses.
        gotos: where each class leads.
        place: of the entries.
        name: of the map of single addresses.
        memo: of the maps of the last step.
    """
    memo = memo.part(Seam.ADDRESS_MAP, *place)
    found = memo.update("elements", partial(address_elements, classes, gotos)).elements
    key_types = (nft.ADDRESS_TYPES[place[2]],)
    singles = memo.get(
        f"map {name}", (found,), lambda: nft.VerdictMap(name=name, key_types=key_types, elements=found)
    )
    if not classes.networks:
        return (singles,) if found else ()
    networks = memo.get(
        "networks",
        (classes.networks, memo.same("gotos", gotos)),
        lambda: fixed_map(
            names.networks_map(*place), key_types, network_elements(classes.networks, gotos), is_interval=True
        ),
    )
    return (singles, networks) if found else (networks,)


def network_elements(networks: Networks, gotos: Gotos) -> tuple[nft.Element, ...]:
    """Return the elements of all networks."""
    return tuple(
        nft.Element((nft.Interval(first, last),), gotos[members]) for first, last, members in networks
    )


@dataclass(frozen=True, slots=True)
class AddressElements:
    """Elements for all single addresses, and what they were made of."""

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
