"""Sets of addresses, held to sets of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, strategies as st

from sgagent.core.addresses import NO_ADDRESSES, AddressRanges, AddressSet, joined, merge, sweep
from sgagent.core.model import Family
from tests.words import block, blocks

numbers = st.integers(0, 40)
ranges = st.lists(st.tuples(numbers, numbers).map(lambda ends: (min(ends), max(ends))), max_size=8)


def numbers_in(merged: AddressRanges) -> set[int]:
    """Return every number of some ranges."""
    return {number for first, last in merged for number in range(first, last + 1)}


@given(ranges)
def test_merging_keeps_every_number(drawn: list[tuple[int, int]]) -> None:
    """The union holds what any range holds, sorted and without an overlap."""
    merged = merge(drawn)
    assert numbers_in(merged) == numbers_in(tuple(drawn))
    assert all(one[1] < other[0] for one, other in pairwise(merged))


def test_neighbours_stay_apart() -> None:
    """Two members side by side are two entries, so that one can leave alone; twice the same is one."""
    assert merge([(3, 3), (2, 2), (3, 3)]) == ((2, 2), (3, 3))


@given(ranges, numbers)
def test_a_set_contains_its_numbers(drawn: list[tuple[int, int]], number: int) -> None:
    """In the family that it is asked for, and in no other."""
    addresses = AddressSet(ipv4=merge(drawn))
    assert addresses.contains(Family.IPV4, number) is (number in numbers_in(addresses.ipv4))
    assert not addresses.contains(Family.IPV6, number)


@given(ranges, ranges)
def test_subsets(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    """A set is a subset if all its numbers are in the other, however either is cut into ranges."""
    inner, outer = merge(one), merge(other)
    expected = numbers_in(inner) <= numbers_in(outer)
    assert AddressSet(ipv4=inner).issubset(AddressSet(ipv4=outer)) is expected
    assert AddressSet(ipv6=inner).issubset(AddressSet(ipv6=outer)) is expected


@given(st.lists(ranges, min_size=1, max_size=4))
def test_unions(drawn: list[list[tuple[int, int]]]) -> None:
    """A union holds what any of its sets holds."""
    first, *others = (AddressSet(ipv4=merge(one), ipv6=merge(one[:2])) for one in drawn)
    union = first.union(*others)
    assert numbers_in(union.ipv4) == set().union(*(numbers_in(tuple(one)) for one in drawn))
    assert numbers_in(union.ipv6) == set().union(*(numbers_in(tuple(one[:2])) for one in drawn))


def test_blocks_of_both_families() -> None:
    """Each block goes to its family; the ends are the first and the last address."""
    found = AddressSet.of(blocks("10.0.0.0/30", "10.0.0.1", "2001:db8::/127"))
    assert found.ranges(Family.IPV4) == ((0x0A000000, 0x0A000003),)
    assert found.ranges(Family.IPV6) == ((0x20010DB8 << 96, (0x20010DB8 << 96) + 1),)


def test_the_ends_of_a_family() -> None:
    """The first and the last address of a family are in its whole."""
    for family, whole in ((Family.IPV4, "0.0.0.0/0"), (Family.IPV6, "::/0")):
        everyone = AddressSet.of([block(whole)])
        assert everyone.contains(family, 0)
        assert everyone.contains(family, family.last_address)


def test_an_empty_set_is_false() -> None:
    """A set of one family is not empty."""
    assert not NO_ADDRESSES
    assert AddressSet.of(blocks("10.0.0.1"))
    assert AddressSet.of(blocks("2001:db8::1"))


@given(st.lists(ranges.map(joined), max_size=5))
def test_a_sweep_says_which_sets_hold_each_number(sets: list[AddressRanges]) -> None:
    """The pieces hold every number once, with the keys of its sets in order."""
    pieces = [(first, last, list(here)) for first, last, here in sweep(enumerate(sets), 45)]
    assert [number for first, last, _ in pieces for number in range(first, last + 1)] == list(range(46))
    for first, last, here in pieces:
        for number in range(first, last + 1):
            assert here == [key for key, held in enumerate(sets) if number in numbers_in(held)]
