"""Sets of addresses as sorted, disjoint ranges of plain integers, one tuple per family."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import TypeVar

from sgagent.core.model import CidrBlock, Family

T = TypeVar("T")

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
        """Return whether the address, given as a number, is in the set."""
        ranges = self.ranges(family)
        place = bisect_right(ranges, (address, 1 << 128)) - 1
        return place >= 0 and address <= ranges[place][1]

    def union(self, *others: AddressSet) -> AddressSet:
        """Return the addresses that are in any."""
        sets = (self, *others)
        return AddressSet(merge(chain(*(s.ipv4 for s in sets))), merge(chain(*(s.ipv6 for s in sets))))

    def issubset(self, other: AddressSet) -> bool:
        """Return whether every address of this set is in the other."""
        return not without(self.ipv4, other.ipv4) and not without(self.ipv6, other.ipv6)

    def __bool__(self) -> bool:
        """Return whether the set holds any address."""
        return bool(self.ipv4 or self.ipv6)


NO_ADDRESSES = AddressSet()


def merge(ranges: Iterable[tuple[int, int]], *, farthest: int = 0) -> AddressRanges:
    """Return the union of ranges, sorted; those that overlap become one, neighbours do not.

    Args:
        ranges: in any order.
        farthest: how far behind the end of a range another one becomes part of it; 1 for neighbours.
    """
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + farthest:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return tuple(merged)


Ranges = tuple[tuple[int, int], ...]
"""Sorted ``(first, last)`` pairs with a gap before each."""

NONE: Ranges = ()


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the union of ranges in any order, in canonical form."""
    return merge(ranges, farthest=1)


def ranges_of(numbers: Iterable[int]) -> Ranges:
    """Return numbers in any order as a set."""
    return joined((number, number) for number in numbers)


def common(one: Ranges, other: Ranges) -> Ranges:
    """Return the numbers that are in both."""
    if not one or not other:
        return NONE
    found: list[tuple[int, int]] = []
    left = max(bisect_right(one, (other[0][0] + 1,)) - 1, 0)  # nothing before these can be in both
    right = max(bisect_right(other, (one[0][0] + 1,)) - 1, 0)
    last_of_both = min(one[-1][1], other[-1][1])
    while left < len(one) and right < len(other):
        if one[left][0] > last_of_both or other[right][0] > last_of_both:
            break
        first, last = max(one[left][0], other[right][0]), min(one[left][1], other[right][1])
        if first <= last:
            found.append((first, last))
        if one[left][1] < other[right][1]:
            left += 1
        else:
            right += 1
    return tuple(found)


def without(whole: Ranges, part: Ranges) -> Ranges:
    """Return the numbers of ``whole`` that are not in ``part``."""
    found: list[tuple[int, int]] = []
    place = 0
    for first, last in whole:
        reached = first
        while place < len(part) and part[place][1] < reached:
            place += 1
        following = place
        while following < len(part) and part[following][0] <= last:
            if part[following][0] > reached:
                found.append((reached, part[following][0] - 1))
            reached = part[following][1] + 1
            following += 1
        if reached <= last:
            found.append((reached, last))
    return tuple(found)


def holds(ranges: Ranges, number: int) -> bool:
    """Return whether the number is in the set."""
    return any(first <= number <= last for first, last in ranges)


def meets(run: tuple[int, int], ranges: Ranges) -> bool:
    """Return whether a run of numbers and a set have a number in common."""
    place = bisect_left(ranges, run[0], key=itemgetter(1))
    return place < len(ranges) and ranges[place][0] <= run[1]


def size(ranges: Ranges) -> int:
    """Return how many numbers are in the set."""
    return sum(last - first + 1 for first, last in ranges)


def append_run(runs: list[tuple[int, int, T]], first: int, last: int, value: T) -> None:
    """Append a run of numbers, or lengthen the last one if it is its neighbour and has the same value."""
    if runs and runs[-1][1] + 1 == first and runs[-1][2] == value:
        runs[-1] = (runs[-1][0], last, value)
    else:
        runs.append((first, last, value))


def sweep(spans: Iterable[tuple[int, Ranges]], last: int) -> Iterator[tuple[int, int, Sequence[int]]]:
    """Cut the numbers from 0 to the last at the borders of sets of them.

    Args:
        spans: each set with the key that stands for it; no key stands for two.
        last: the greatest number.

    Yields:
        Each piece's first and last number, and the keys, sorted, of the sets that hold it. The sequence of
        keys changes with the next piece.
    """
    borders: dict[int, list[tuple[int, bool]]] = {0: []}
    for key, ranges in spans:
        for first, final in ranges:
            borders.setdefault(first, []).append((key, True))
            borders.setdefault(final + 1, []).append((key, False))
    here: list[int] = []
    places = sorted(place for place in borders if place <= last)
    for place, following in zip(places, [*places[1:], last + 1], strict=True):
        for key, begins in borders[place]:
            if begins:
                insort(here, key)
            else:
                del here[bisect_left(here, key)]
        yield place, following - 1, here
