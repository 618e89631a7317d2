"""Classes of addresses, held to a look at every address."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from sgagent.compiler.class_chains import (
    MOST_CHANGED,
    AddressElements,
    Classes,
    Peers,
    address_elements,
    address_maps,
    changed_addresses,
    classify,
)
from sgagent.core.addresses import AddressRanges, merge
from sgagent.core.memo import Memo
from sgagent.core.model import Direction, Family
from sgagent.nft.ruleset import Goto, Interval, KeyType

LAST = 40
numbers = st.integers(0, LAST)
ranges = st.lists(
    st.tuples(numbers, numbers, st.booleans()).map(
        lambda drawn: (drawn[0], drawn[0]) if drawn[2] else (min(drawn[:2]), max(drawn[:2]))
    ),
    max_size=6,
).map(merge)
peers = st.lists(ranges, max_size=5)


def peers_of(address: int, drawn: list[AddressRanges]) -> Peers:
    """Return the peers that hold an address, by looking at each."""
    return tuple(
        index for index, held in enumerate(drawn) if any(first <= address <= last for first, last in held)
    )


def looked_up(classes: Classes, address: int) -> Peers:
    """Return what the kernel's two look-ups find: addresses first, networks behind."""
    if address in classes.addresses:
        return classes.addresses[address]
    found = [members for first, last, members in classes.networks if first <= address <= last]
    return found[0] if found else ()


@given(peers)
def test_every_address_finds_all_its_peers(drawn: list[AddressRanges]) -> None:
    """However peers overlap and nest, the first hit says all (§5.4)."""
    classes = classify(drawn)
    for address in range(LAST + 1):
        assert looked_up(classes, address) == peers_of(address, drawn)


@given(peers)
def test_networks_are_disjoint_and_as_few_as_can_be(drawn: list[AddressRanges]) -> None:
    """Sorted, without an overlap, and neighbours that touch differ in their peers."""
    networks = classify(drawn).networks
    for (_, last, members), (first, _, following) in pairwise(networks):
        assert last < first
        assert last + 1 < first or members != following
    assert all(members for _, _, members in networks)


@given(peers)
def test_single_addresses_are_kept_apart(drawn: list[AddressRanges]) -> None:
    """Exactly those that some peer has as such, so that a member is one element of a hash map."""
    singles = {first for held in drawn for first, last in held if first == last}
    assert set(classify(drawn).addresses) == singles


@given(peers)
def test_all_combinations_are_told(drawn: list[AddressRanges]) -> None:
    """Sorted, each once."""
    classes = classify(drawn)
    found = {peers_of(address, drawn) for address in range(LAST + 1)} - {()}
    distinct = classes.distinct()
    assert list(distinct) == sorted(set(distinct))
    assert found <= set(distinct)
    assert set(distinct) - found <= {members for _, _, members in classes.networks}


def test_nobody() -> None:
    """Without peers, or with empty ones only, there is no class."""
    assert classify([]) == Classes(peers=(), addresses={}, networks=())
    assert classify([(), ()]).distinct() == ()


def test_the_ends_of_the_numbers() -> None:
    """The last address of a family is one like any other."""
    last = 2**128 - 1
    classes = classify([((0, last),), ((last, last),), ((0, 0),)])
    assert classes.networks == ((0, last, (0,)),)
    assert classes.addresses == {0: (0, 2), last: (0, 1)}


@given(st.lists(peers, min_size=2, max_size=5))
def test_classes_after_any_change_are_classes_from_nothing(drawn: list[list[AddressRanges]]) -> None:
    """So are the elements of single addresses, whatever stood before."""
    classes: Classes | None = None
    elements: AddressElements | None = None
    for now in drawn:
        classes = classify(now, classes)
        assert classes == classify(now)
        gotos = {members: Goto(f"class/{members}") for members in classes.distinct()}
        elements = address_elements(classes, gotos, elements)
        assert elements == address_elements(classes, gotos, None)
        assert [element.key for element in elements.elements] == [
            (Interval.single(address),) for address in sorted(classes.addresses)
        ]


def test_elements_lead_elsewhere_if_their_class_does() -> None:
    """Though no address came or went."""
    classes = classify([((1, 1),), ((2, 2),)])
    first = address_elements(classes, {(0,): Goto("a"), (1,): Goto("b")}, None)
    second = address_elements(classes, {(0,): Goto("a"), (1,): Goto("c")}, first)
    assert [element.verdict for element in second.elements] == [Goto("a"), Goto("c")]


def test_many_changed_addresses_are_classified_anew() -> None:
    """One by one up to a limit, all of them beyond it; the result is the same."""
    before = classify([(), ((7, 7),)])
    for count in (MOST_CHANGED, MOST_CHANGED + 1):
        held = tuple((address, address) for address in range(count))
        assert (changed_addresses(before.peers, (held, ((7, 7),))) is None) == (count > MOST_CHANGED)
        assert classify([held, ((7, 7),)], before) == classify([held, ((7, 7),)])


@pytest.mark.parametrize(
    ("family", "key_type"), ((Family.IPV4, KeyType.IPV4_ADDR), (Family.IPV6, KeyType.IPV6_ADDR))
)
@pytest.mark.parametrize("held", (((7, 7),), ((10, 20),), ((7, 7), (10, 20))))
def test_maps_are_of_the_familys_addresses(family: Family, key_type: KeyType, held: AddressRanges) -> None:
    """Both the map of single addresses and that of networks, each only if it has elements."""
    place = (Direction.INGRESS, "eth0", family)
    gotos: dict[Peers, Goto] = {(0,): Goto("class")}
    maps = address_maps(classify([held]), gotos, place, "hosts", Memo())
    assert [(found.key_types, found.is_interval) for found in maps] == [
        ((key_type,), first != last) for first, last in held
    ]
    assert all(found.elements for found in maps)
