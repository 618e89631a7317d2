"""Reckon with sets of whole numbers as sorted, disjoint ranges that do not touch.

Addresses, ports and protocols are all such numbers. In this canonical form equal sets are equal values.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]
"""Sorted ``(first, last)`` pairs with a gap before each."""

NONE: Ranges = ()


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the union of ranges in any order, in canonical form."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            if last > found[-1][1]:
                found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return tuple(found)


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
    """Tell whether the number is in the set."""
    return any(first <= number <= last for first, last in ranges)


def size(ranges: Ranges) -> int:
    """Return how many numbers are in the set."""
    return sum(last - first + 1 for first, last in ranges)
