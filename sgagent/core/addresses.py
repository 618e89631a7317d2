"""Sets of addresses as sorted, disjoint ranges of plain integers, one tuple per family."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from sgagent.core.model import CidrBlock, Family

AddressRanges = tuple[tuple[int, int], ...]
"""Sorted, disjoint ``(first, last)`` pairs of one family. Neighbours stay apart: a member stays one
address, so that its leaving takes one address away and splits no range."""


@dataclass(frozen=True, slots=True)
class AddressSet:
    """Addresses of both families."""

    ipv4: AddressRanges = ()
    ipv6: AddressRanges = ()

    @classmethod
    def of(cls, blocks: Iterable[CidrBlock]) -> AddressSet:
        """Return the union of the blocks, which may overlap and nest (§5.4)."""
        by_family: dict[Family, list[tuple[int, int]]] = {Family.IPV4: [], Family.IPV6: []}
        for block in blocks:
            by_family[block.family].append((block.first, block.last))
        return cls(merge(by_family[Family.IPV4]), merge(by_family[Family.IPV6]))

    def ranges(self, family: Family) -> AddressRanges:
        """Return the ranges of one family."""
        return self.ipv4 if family is Family.IPV4 else self.ipv6

    def contains(self, family: Family, address: int) -> bool:
        """Tell whether the address, given as a number, is in the set."""
        ranges = self.ranges(family)
        place = bisect_right(ranges, (address, 1 << 128)) - 1
        return place >= 0 and address <= ranges[place][1]

    def union(self, *others: AddressSet) -> AddressSet:
        """Return the addresses that are in any."""
        sets = (self, *others)
        return AddressSet(merge(chain(*(s.ipv4 for s in sets))), merge(chain(*(s.ipv6 for s in sets))))

    def issubset(self, other: AddressSet) -> bool:
        """Tell whether every address of this set is in the other."""
        return _covers(other.ipv4, self.ipv4) and _covers(other.ipv6, self.ipv6)

    def __bool__(self) -> bool:
        """Tell whether the set holds any address."""
        return bool(self.ipv4 or self.ipv6)


NO_ADDRESSES = AddressSet()


def merge(ranges: Iterable[tuple[int, int]]) -> AddressRanges:
    """Return the union of ranges, sorted; those that overlap become one, neighbours do not."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1]:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return tuple(merged)


def _covers(outer: AddressRanges, inner: AddressRanges) -> bool:
    """Tell whether every address of ``inner`` is in ``outer``."""
    place = 0
    for first, last in inner:
        reached = first
        while reached <= last:
            while place < len(outer) and outer[place][1] < reached:
                place += 1
            if place == len(outer) or outer[place][0] > reached:
                return False
            reached = outer[place][1] + 1
    return True
