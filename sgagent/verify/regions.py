"""Sets of packets and of marks: boxes, which are products of ranges, and cubes of bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from sgagent.core.addresses import Ranges, common, holds, joined, without
from sgagent.verify.expectation import ALL_BITS, MarkChange

Dimension = str
"""What a packet can differ in: ``protocol``, ``near end``, ``hop limit``."""

Box = Mapping[Dimension, Ranges]
"""The packets that have one of each, whatever their far end and mark."""

Constraints = tuple[tuple[Dimension, Ranges], ...]
"""What packets have to have; equivalent to a box whose other dimensions are everything."""


def meet(one: Ranges, other: Ranges) -> Ranges:
    """Return the numbers that are in both."""
    if one is other:
        return one
    if len(one) == len(other) == 1:
        (first, last), (start, end) = one[0], other[0]
        first, last = max(first, start), min(last, end)
        return ((first, last),) if first <= last else ()
    return common(one, other)


def split(box: Box, constraints: Constraints) -> tuple[Box | None, list[Box]]:
    """Return the part of a box that meets all constraints, if any does, and the rest in disjoint boxes."""
    inside, outside = box, list[Box]()
    for dimension, wanted in constraints:
        have = inside[dimension]
        both = meet(have, wanted)
        if not both:
            return None, [box]
        if both != have:
            outside.append({**inside, dimension: without(have, both)})
            inside = {**inside, dimension: both}
    return inside, outside


def is_disjoint(box: Box, constraints: Constraints) -> bool:
    """Return whether no packet of a box meets all constraints; a dimension that it lacks never does."""
    return any(dimension not in box or not meet(box[dimension], wanted) for dimension, wanted in constraints)


def is_within(box: Box, constraints: Constraints) -> bool:
    """Return whether all packets of a box meet all constraints."""
    return all(meet(box[dimension], wanted) == box[dimension] for dimension, wanted in constraints)


@lru_cache(maxsize=64)
def under_mask(bits: int, mask: int, wanted: Ranges) -> Ranges:
    """Return the numbers of so many bits, 16 at most, of which those of a mask are a number wanted."""
    found = (number for number in range(1 << bits) if holds(wanted, number & mask))
    return joined((number, number) for number in found)


Cube = tuple[int, int]
"""Bits that are known, and their values: all marks that have these values in these bits."""

Marks = tuple[Cube, ...]
"""A set of marks: disjoint cubes."""

EVERY_MARK: Marks = ((0, 0),)


def common_marks(marks: Marks, cube: Cube) -> Marks:
    """Return the marks that are in the cube."""
    bits, value = cube
    return tuple((known | bits, have | value) for known, have in marks if not (have ^ value) & known & bits)


def other_marks(marks: Marks, cube: Cube) -> Marks:
    """Return the marks that are not in the cube: for each of its bits those that differ there first."""
    return tuple(part for one in marks for part in _other_cubes(one, cube))


def _other_cubes(one: Cube, cube: Cube) -> Iterator[Cube]:
    (known, have), (bits, value) = one, cube
    if (have ^ value) & known & bits:
        yield one
        return
    left = bits & ~known
    while left:
        bit = left & -left
        left ^= bit
        yield known | bit, have | (bit & ~value)
        known, have = known | bit, have | (bit & value)


def cubes_of(bits: int, first: int, last: int) -> tuple[Cube, ...]:
    """Return the marks of which certain bits, as a number, are from ``first`` to ``last``."""
    found: list[Cube] = []
    while first <= last:
        size = first & -first or ALL_BITS + 1
        while first + size - 1 > last:
            size >>= 1
        fixed = ALL_BITS & ~(size - 1)
        if not first & fixed & ~bits:
            found.append((fixed & bits, first & bits))
        first += size
    return tuple(found)


def before_change(change: MarkChange, cube: Cube) -> Cube | None:
    """Return the marks that are in the cube after a change; None if there are none."""
    bits, value = cube
    constant = bits & (change.put | ~change.keep)
    if (value ^ change.put) & constant:
        return None
    return bits & ~constant, value & ~constant


def after_both(first: MarkChange, second: MarkChange) -> MarkChange:
    """Return the change that two make one after the other."""
    put = first.put & second.keep | second.put
    return MarkChange(keep=first.keep & second.keep | put, put=put)


def difference(marks: Iterable[Cube], one: MarkChange, other: MarkChange) -> int | None:
    """Return a mark of some that two changes make into different ones; None if there is none."""
    for known, have in marks:
        unlike = (one.keep | one.put) ^ (other.keep | other.put)
        mark = have | (unlike & ~known)
        if one.of(mark) != other.of(mark):
            return mark
        if one.of(have) != other.of(have):
            return have
    return None
