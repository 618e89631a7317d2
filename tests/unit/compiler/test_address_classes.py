"""Classes of addresses, held to a look at every address."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, strategies as st

from sgagent.compiler.address_classes import Classes, Classified, Peers, classify, reclassify
from sgagent.core.addresses import AddressRanges, merge

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
    assert classify([]) == Classes(addresses={}, networks=())
    assert classify([(), ()]).distinct() == ()


def test_the_ends_of_the_numbers() -> None:
    """The last address of a family is one like any other."""
    last = 2**128 - 1
    classes = classify([((0, last),), ((last, last),), ((0, 0),)])
    assert classes.networks == ((0, last, (0,)),)
    assert classes.addresses == {0: (0, 2), last: (0, 1)}


@given(st.lists(peers, min_size=2, max_size=5))
def test_classes_of_addresses_that_came_and_went(drawn: list[list[AddressRanges]]) -> None:
    """They are the same whatever stood before, and all single addresses that changed are told."""
    before: Classified | None = None
    for now in drawn:
        found, afresh = reclassify(tuple(now), before), Classified.of(tuple(now))
        assert (found.classes, found.distinct, found.sizes) == (afresh.classes, afresh.distinct, afresh.sizes)
        assert len(found.classes.addresses) == len(afresh.classes.addresses)
        if before is not None and found.changed is not None:
            both = before.classes.addresses, found.classes.addresses
            one, other = (dict(addresses) for addresses in both)
            assert found.changed >= {a for a in one.keys() | other.keys() if one.get(a) != other.get(a)}
        before = found


def test_very_many_addresses_one_after_the_other() -> None:
    """Far more than are laid over others: each is found, and those that went are not."""
    held: list[int] = []
    ranges: AddressRanges = ()
    classified = Classified.of(((), ()))
    for number in range(1, 1_500):
        held.append(2 * number)
        if not number % 3:
            del held[number // 3]
        ranges = tuple((address, address) for address in held)
        classified = reclassify((ranges, ranges[:1]), classified)
    assert dict(classified.classes.addresses) == classify((ranges, ranges[:1])).addresses
