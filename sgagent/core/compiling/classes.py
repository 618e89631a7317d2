"""Sort addresses into classes: two addresses are of one class if they are in the same peers.

Peers that hold every address are in no class's name, as every class has them. Single addresses are kept apart
from networks, since the kernel looks them up apart: the hash map of addresses first, the intervals of
networks behind it. A single address's class counts the networks around it, so that the first hit is the last
word.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from sgagent.core.addresses import AddressRanges

Peers = tuple[int, ...]
"""Sorted indices of the peers that the addresses of a class are in."""


@dataclass(frozen=True, slots=True)
class Classes:
    """All addresses that are in any peer, with what they are in."""

    addresses: Mapping[int, Peers]
    """Single addresses."""

    networks: tuple[tuple[int, int, Peers], ...]
    """First and last address; sorted, disjoint; neighbours differ in their peers."""

    def distinct(self) -> tuple[Peers, ...]:
        """Return every combination of peers that occurs, sorted."""
        return tuple(sorted({*self.addresses.values(), *(peers for _, _, peers in self.networks)}))


def classify(peers: Iterable[AddressRanges]) -> Classes:
    """Return the classes that the peers, told by their place, sort addresses into."""
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
            address: _with_network(indices, address, starts, networks) for address, indices in singles.items()
        },
        networks=networks,
    )


def _sweep(blocks: list[tuple[int, int, int]]) -> tuple[tuple[int, int, Peers], ...]:
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


def _with_network(
    indices: list[int], address: int, starts: list[int], networks: tuple[tuple[int, int, Peers], ...]
) -> Peers:
    """Return the peers of a single address: those that hold it as such and those of the network around it."""
    place = bisect_right(starts, address) - 1
    if place < 0 or networks[place][1] < address:
        return tuple(indices)
    return tuple(sorted({*indices, *networks[place][2]}))
