"""Address classes: two addresses are in one class if they are in the same peers.

Peers that hold every address are not part of a class, since all classes have them. Single addresses and
networks are separate, because the kernel looks them up separately: first the hash map of addresses, then the
interval map of networks. The class of a single address includes the networks around it, so that the first hit
decides.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from sgagent.core.addresses import AddressRanges
from sgagent.core.memo import changed_places
from sgagent.nft.maps import Elements
from sgagent.nft.ruleset import Element, Goto, Interval

Peers = tuple[int, ...]
"""Sorted indices of the peers that the addresses of a class are in."""

Networks = tuple[tuple[int, int, Peers], ...]
"""First and last address, and what they are in; sorted, disjoint; neighbours differ in their peers."""


@dataclass(frozen=True, slots=True)
class Classes:
    """All addresses that are in any peer, with what they are in."""

    addresses: Mapping[int, Peers]
    """Single addresses."""

    networks: Networks

    def distinct(self) -> tuple[Peers, ...]:
        """Return every combination of peers that occurs, sorted."""
        return _distinct(self.addresses.values(), self.networks)


def _distinct(of_addresses: Iterable[Peers], networks: Networks) -> tuple[Peers, ...]:
    return tuple(sorted({*of_addresses, *(peers for _, _, peers in networks)}))


def classify(peers: Iterable[AddressRanges]) -> Classes:
    """Return the classes of addresses: those in the same peers form a class. A peer is named by its index."""
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
        addresses={
            address: tuple(sorted({*indices, *around}))
            if (around := _network_around(address, starts, networks))
            else tuple(indices)
            for address, indices in singles.items()
        },
        networks=networks,
    )


@dataclass(frozen=True, slots=True)
class Classified:
    """Classes, and what they were made of."""

    peers: tuple[AddressRanges, ...]
    classes: Classes
    distinct: tuple[Peers, ...]
    """Every combination of peers that occurs, sorted."""

    sizes: Mapping[Peers, int]
    """How many single addresses each class has."""

    changed: frozenset[int] | None
    """The single addresses that came, went, or are in other peers than before; None where all may be."""

    before: object = None
    """The ``mark`` of the classification that this one was updated from."""

    mark: object = field(default_factory=object, compare=False)
    """Identifies this classification, for the ``before`` of the next one."""

    @classmethod
    def of(cls, peers: tuple[AddressRanges, ...]) -> Classified:
        """Return the classes that peers sort addresses into."""
        classes = classify(peers)
        return cls(peers, classes, classes.distinct(), Counter(classes.addresses.values()), None)


MOST_CHANGED = 256
"""Single addresses up to which it is worth while to look at each of them."""


def reclassify(peers: tuple[AddressRanges, ...], before: Classified | None) -> Classified:
    """Return what :meth:`Classified.of` does; single addresses that came or went are all that is looked at.

    Args:
        peers: as for that function.
        before: what this one returned for other peers.
    """
    changed = None if before is None else _changed_addresses(before.peers, peers)
    if before is None or changed is None:
        return Classified.of(peers)
    networks = before.classes.networks
    starts = [first for first, _, _ in networks]
    addresses, sizes = before.classes.addresses, Counter(before.sizes)
    others: dict[int, Peers] = {}
    for address, other in changed.items():
        around = _network_around(address, starts, networks)
        members = addresses.get(address, ())
        if members:
            sizes[members] -= 1
        indices = set(members).difference(around).symmetric_difference(other)
        others[address] = tuple(sorted(indices.union(around))) if indices else ()
        if indices:
            sizes[others[address]] += 1
    classes, sizes = Classes(addresses=_overlaid(addresses, others), networks=networks), +sizes
    distinct = before.distinct if sizes.keys() == before.sizes.keys() else _distinct(sizes, networks)
    return Classified(peers, classes, distinct, sizes, frozenset(changed), before.mark)


class _Overlaid(Mapping[int, Peers]):
    """The peers of very many addresses, with those of a few laid over, so that only the few are copied."""

    def __init__(self, many: Mapping[int, Peers], few: Mapping[int, Peers]) -> None:
        """Take the peers of all addresses, and those of addresses that came or changed; none if one went."""
        self.many = many
        self.few = few

    def __getitem__(self, address: int) -> Peers:
        """Return the peers of an address."""
        found = self.few.get(address)
        if found is None:
            return self.many[address]
        if not found:
            raise KeyError(address)
        return found

    def __iter__(self) -> Iterator[int]:
        """Yield all addresses."""
        yield from (address for address in self.many if address not in self.few)
        yield from (address for address, found in self.few.items() if found)

    def __len__(self) -> int:
        """Return how many addresses there are."""
        return sum(1 for _ in self)


_MOST_OVERLAID = 1024
"""Addresses; with more of them, all are copied once more."""


def _overlaid(addresses: Mapping[int, Peers], others: Mapping[int, Peers]) -> Mapping[int, Peers]:
    """Return the peers of addresses, some of which have others now, or none if they went."""
    many, few = addresses, others
    if isinstance(addresses, _Overlaid):
        many, few = addresses.many, {**addresses.few, **others}
    overlaid = _Overlaid(many, few)
    return dict(overlaid) if len(few) > _MOST_OVERLAID else overlaid


def _changed_addresses(
    before: tuple[AddressRanges, ...], after: tuple[AddressRanges, ...]
) -> Mapping[int, set[int]] | None:
    """Return which peers gained or lost single addresses, by address; None if there is more to it.

    No peer holds an address both as such and in a network: of what overlaps it has made one.
    """
    if len(before) != len(after):
        return None
    changed: dict[int, set[int]] = {}
    for index in changed_places(before, after):
        for first, last in set(before[index]).symmetric_difference(after[index]):
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
            _append(pieces, place, following - 1, tuple(sorted(depth)))
    return tuple(pieces)


def _append(pieces: list[tuple[int, int, Peers]], first: int, last: int, peers: Peers) -> None:
    """Append a piece, or lengthen the last one if it is its neighbour and of the same class."""
    if pieces and pieces[-1][1] + 1 == first and pieces[-1][2] == peers:
        pieces[-1] = (pieces[-1][0], last, peers)
    else:
        pieces.append((first, last, peers))


def _network_around(address: int, starts: list[int], networks: Networks) -> Peers:
    """Return the peers of the network around an address; none where there is no network."""
    place = bisect_right(starts, address) - 1
    return () if place < 0 or networks[place][1] < address else networks[place][2]


Gotos = Mapping[Peers, Goto]
"""Where each class leads."""


def lead(classes: tuple[Peers, ...], targets: tuple[str, ...], before: Gotos | None) -> Gotos:
    """Return the goto of each class; the same mapping as before if no target has changed.

    Args:
        classes: all classes.
        targets: the chain of each.
        before: the earlier result.
    """
    if before is not None and tuple(before) == classes:
        standing = tuple(goto.chain for goto in before.values())
        if standing == targets:
            return before
    return {members: Goto(target) for members, target in zip(classes, targets, strict=True)}


def network_elements(networks: Networks, gotos: Gotos) -> tuple[Element, ...]:
    """Return the elements of all networks."""
    return tuple(Element((Interval(first, last),), gotos[members]) for first, last, members in networks)


@dataclass(frozen=True, slots=True)
class Addressed:
    """Elements for all single addresses, and what they were made of."""

    elements: Elements
    """Sorted by address."""

    gotos: Gotos
    mark: object
    """Of the classes."""


def address_elements(classified: Classified, gotos: Gotos, before: Addressed | None) -> Addressed:
    """Return the elements of all single addresses.

    Args:
        classified: the addresses and their classes.
        gotos: where each class leads.
        before: what this function returned for the classes before; only addresses that changed are looked at.
    """
    changed, addresses = classified.changed, classified.classes.addresses
    if before is None or changed is None or before.mark is not classified.before or _differ(before, gotos):
        every = [_element(address, gotos[addresses[address]]) for address in sorted(addresses)]
        return Addressed(Elements.of(every), gotos, classified.mark)
    elements = before.elements
    for address in changed:
        members = addresses.get(address)
        elements = elements.but(address, None if members is None else _element(address, gotos[members]))
    return Addressed(elements, gotos, classified.mark)


def _differ(before: Addressed, gotos: Gotos) -> bool:
    """Return whether a class leads elsewhere than before."""
    return before.gotos is not gotos and any(
        before.gotos.get(members, goto) != goto for members, goto in gotos.items()
    )


def _element(address: int, goto: Goto) -> Element:
    return Element((Interval(address, address),), goto)
