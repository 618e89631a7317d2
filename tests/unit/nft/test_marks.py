"""Our bits of the conntrack mark, and the state that gives them a meaning."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, strategies as st

from sgagent.core.model import Direction
from sgagent.nft.marks import (
    NO_SLOTS,
    SLOTS,
    UNCACHED,
    EnforcementState,
    MarkLayout,
    Slots,
    assign_slots,
    decode_state,
    elsewhere_bits,
    elsewhere_marks,
    encode_state,
    first_state,
    is_contiguous,
    is_remembered,
    is_slot_due,
    next_state,
    taken_slots,
)

LAYOUT = MarkLayout(0xFFFF0000)
SMALLEST = MarkLayout(0x7FFF)

contiguous = st.tuples(st.integers(0, 31), st.integers(1, 32)).map(
    lambda drawn: ((1 << min(drawn[1], 32 - drawn[0])) - 1) << drawn[0]
)
link_names = st.text(
    alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/"),
    min_size=1,
    max_size=15,
)


class TestLayout:
    """Where everything stands (design: four bits a slot, the rest is the generation)."""

    @given(contiguous)
    def test_bits_do_not_overlap(self, mask: int) -> None:
        """Every bit of the mask is the generation's or one of twelve others, and none is outside."""
        layout = MarkLayout(mask)
        if not layout.can_cache:
            return
        bits = [layout.direction_bit(slot, way) for slot in range(SLOTS) for way in Direction]
        assert layout.acceptance_mask == sum(bits)
        bits += [layout.elsewhere_bit(slot, way) for slot in range(SLOTS) for way in Direction]
        assert all(one & other == 0 for one, other in combinations([*bits, layout.generation_mask], 2))
        assert layout.generation_mask | sum(bits) == mask
        assert layout.generation_bits(layout.last_generation) == layout.generation_mask
        assert layout.generation_bits(1) == layout.generation_mask & -layout.generation_mask

    @pytest.mark.parametrize(("mask", "can_cache"), ((0x3FFF, False), (0x7FFF, True), (0xFFF << 20, False)))
    def test_fifteen_bits_are_the_fewest(self, mask: int, *, can_cache: bool) -> None:
        """With fewer, sessions are checked at every packet."""
        assert MarkLayout(mask).can_cache is can_cache
        assert (first_state(["eth0"], MarkLayout(mask)) == UNCACHED) is not can_cache

    def test_the_default(self) -> None:
        """The upper half: twelve bits for slots from the lowest on, four for 15 generations."""
        assert LAYOUT.direction_bit(0, Direction.INGRESS) == 0x00010000
        assert LAYOUT.direction_bit(0, Direction.EGRESS) == 0x00020000
        assert LAYOUT.direction_bit(2, Direction.EGRESS) == 0x00200000
        assert LAYOUT.elsewhere_bit(0, Direction.INGRESS) == 0x00400000
        assert LAYOUT.elsewhere_bit(2, Direction.EGRESS) == 0x08000000
        assert LAYOUT.generation_mask == 0xF0000000
        assert LAYOUT.last_generation == 15

    @pytest.mark.parametrize("mask", (0, -1, 0b101, 0xFF00FF00, 1 << 32, 0x7FFFFFFFF))
    def test_a_mask_that_is_none(self, mask: int) -> None:
        """Holes, no bits and more than 32 are refused."""
        assert not is_contiguous(mask)
        with pytest.raises(ValueError, match="contiguous"):
            MarkLayout(mask)

    @pytest.mark.parametrize("mask", (1, 0xFFFFFFFF, 1 << 31, 0xFFFF0000))
    def test_a_mask_that_is_one(self, mask: int) -> None:
        """One unbroken run of bits, wherever."""
        assert is_contiguous(mask)


class TestState:
    """The state as the comment of a chain."""

    @given(
        st.one_of(st.none(), st.integers(1, LAYOUT.last_generation)),
        st.tuples(*[st.one_of(st.none(), link_names)] * 3),
        st.booleans(),
        st.booleans(),
    )
    def test_it_comes_back(self, generation: int | None, slots: Slots, reused: bool, keeps: bool) -> None:  # noqa: FBT001 - drawn
        """What was written is what is read, and fits into a comment of 128 bytes."""
        state = EnforcementState(generation=generation, slots=slots, reused=reused, keeps=keeps)
        comment = encode_state(state, LAYOUT)
        assert len(comment.encode()) <= 128
        assert decode_state(comment, LAYOUT) == state

    def test_other_bits_mean_nothing(self) -> None:
        """A state that was kept for another mask can't be read by this one."""
        assert decode_state(encode_state(first_state(["eth0"], LAYOUT), LAYOUT), SMALLEST) is None

    @pytest.mark.parametrize(
        "comment",
        (
            "",
            "mask 0xffff0000 layout 3 generation 0 slots / / /",
            "mask 0xffff0000 layout 3 generation 16 slots / / /",
            "mask 0xffff0000 layout 3 generation 1 slots / /",
            "mask 0xffff0000 layout 3 generation 1 slots / / / /",
            "mask 0xffff0000 layout 3 generation -1 slots / / /",
            "mask 0xffff0000 layout 3 generation 1 slots / / / else",
            "generation 1",
            "mask 0xffff0000 layout 3 generation 1 slots / / /\n",
            "mask 0xffff0000 generation 1 slots / / /",
        ),
    )
    def test_what_is_not_ours(self, comment: str) -> None:
        """Anything else is no state: marks are cleared rather than believed."""
        assert decode_state(comment, LAYOUT) is None

    def test_a_slot_is_found_by_its_interface(self) -> None:
        """An interface without a slot has none."""
        state = EnforcementState(generation=1, slots=("eth0", None, "eth1"))
        assert [state.slot(name) for name in ("eth0", "eth1", "eth2")] == [0, 2, None]


class TestSlots:
    """Slots are sticky (design)."""

    @pytest.mark.parametrize(
        ("before", "interfaces", "after"),
        (
            (NO_SLOTS, [], NO_SLOTS),
            (NO_SLOTS, ["b", "a"], ("a", "b", None)),
            (("b", None, None), ["b", "a"], ("b", "a", None)),
            (("a", "b", "c"), ["c"], (None, None, "c")),
            ((None, None, "c"), ["c", "a"], ("a", None, "c")),
            (("a", "b", "c"), ["a", "b", "c", "d"], ("a", "b", "c")),
            (("a", "b", "c"), ["b", "c", "d"], (None, "b", "c")),
            ((None, "b", "c"), ["b", "c", "d"], ("d", "b", "c")),
            (NO_SLOTS, ["d", "c", "b", "a"], ("a", "b", "c")),
        ),
    )
    def test_who_has_one_keeps_it(self, before: Slots, interfaces: list[str], after: Slots) -> None:
        """The others take what was free before, in the order of their names."""
        assert assign_slots(before, interfaces) == after
        assert is_slot_due(after, interfaces) is (assign_slots(after, interfaces) != after)

    def test_which_are_taken(self) -> None:
        """Those that have another interface than before, and not those that are given up."""
        assert taken_slots(("a", None, "c"), ("b", "d", None)) == (0, 1)
        assert taken_slots(("a", None, None), ("a", None, None)) == ()

    @given(st.lists(st.lists(st.sampled_from("abcde"), unique=True), max_size=6))
    def test_nobody_moves(self, history: list[list[str]]) -> None:
        """While an interface is bound it stays where it is, and no slot is anybody else's."""
        slots = NO_SLOTS
        for interfaces in history:
            before, slots = slots, assign_slots(slots, interfaces)
            held = [name for name in slots if name is not None]
            assert set(held) <= set(interfaces)
            assert len(set(held)) == len(held)
            settled = assign_slots(slots, interfaces)
            assert len([name for name in settled if name]) == min(SLOTS, len(interfaces))
            assert not is_slot_due(settled, interfaces)
            for place, name in enumerate(before):
                assert name is None or name not in interfaces or slots[place] == name


class TestNext:
    """Under which state a new policy is enforced."""

    state = EnforcementState(generation=5, slots=("eth0", None, None))

    def test_nothing_is_taken_away(self) -> None:
        """The generation stays, and sessions with it."""
        assert next_state(self.state, ["eth0"], LAYOUT, narrows=False) == self.state

    def test_something_is_taken_away(self) -> None:
        """The next generation judges every session again (§6.3)."""
        assert next_state(self.state, ["eth0"], LAYOUT, narrows=True).generation == 6

    def test_a_slot_that_changes_hands(self) -> None:
        """Its bits still speak of the interface before, so the generation is bumped."""
        for interfaces in (["eth0", "eth1"], ["eth1"]):  # the second may have another slot
            assert next_state(self.state, interfaces, LAYOUT, narrows=False).generation == 6

    def test_a_slot_that_is_given_up(self) -> None:
        """It alone is no reason: nobody reads its bits, until it is used anew."""
        given_up = next_state(self.state, [], LAYOUT, narrows=False)
        assert given_up == EnforcementState(generation=5)
        assert next_state(given_up, ["eth0"], LAYOUT, narrows=False).generation == 6

    def test_generations_wrap(self) -> None:
        """After the last comes the first, and old marks have to be cleared; with the second they all are."""
        last = EnforcementState(generation=SMALLEST.last_generation, slots=("eth0", None, None))
        assert SMALLEST.last_generation == 7
        first = next_state(last, ["eth0"], SMALLEST, narrows=True)
        assert (first.generation, first.reused) == (1, True)
        second = next_state(first, ["eth0"], SMALLEST, narrows=True)
        assert (second.generation, second.reused) == (2, False)

    @given(st.integers(1, SMALLEST.last_generation), st.integers(0, SMALLEST.last_generation))
    def test_marks_of_other_generations_are_told(self, generation: int, other: int) -> None:
        """Each meets a test and none of the generation does; the first spares sessions without one."""
        tests = SMALLEST.of_other_generations(generation)
        rest = 0xAB8FFF  # bits of others and of slots
        is_told = any(test.is_met_by(SMALLEST.generation_bits(other) | rest) for test in tests)
        if other:
            assert is_told is (other != generation)
        assert SMALLEST.of_generation(generation).is_met_by(SMALLEST.generation_bits(generation) | rest)
        assert not any(test.is_met_by(rest) for test in SMALLEST.of_other_generations(1))

    def test_uncached_stays_so(self) -> None:
        """Without a generation, or without bits enough, nothing is remembered."""
        for narrows in (False, True):
            assert next_state(UNCACHED, ["eth0"], LAYOUT, narrows=narrows) == UNCACHED
            assert next_state(self.state, ["eth0"], MarkLayout(0x7FF), narrows=narrows) == UNCACHED


class TestWhatAMarkSays:
    """Whether the current policy has allowed a session, by its mark."""

    state = EnforcementState(generation=5, slots=("eth0", "eth1", None))

    @staticmethod
    def mark(generation: int, slot: int, opened: Direction) -> int:
        """Return a mark, with somebody else's bits beside ours."""
        return LAYOUT.generation_bits(generation) | LAYOUT.direction_bit(slot, opened) | 0xBEEF

    def test_its_own_generation_interface_and_direction(self) -> None:
        """All three have to agree."""
        mark = self.mark(5, 1, Direction.EGRESS)
        allowed = [
            (interface, opened)
            for interface in ("eth0", "eth1", "eth2")
            for opened in Direction
            if is_remembered(mark, interface, opened, LAYOUT, self.state)
        ]
        assert allowed == [("eth1", Direction.EGRESS)]

    @pytest.mark.parametrize("generation", (4, 6, LAYOUT.last_generation))
    def test_another_generation(self, generation: int) -> None:
        """Its bits mean nothing any more."""
        mark = self.mark(generation, 0, Direction.INGRESS)
        assert not is_remembered(mark, "eth0", Direction.INGRESS, LAYOUT, self.state)

    def test_a_session_through_two_interfaces(self) -> None:
        """Each has its own bit (§6.4)."""
        mark = self.mark(5, 0, Direction.INGRESS) | self.mark(5, 1, Direction.EGRESS)
        assert is_remembered(mark, "eth0", Direction.INGRESS, LAYOUT, self.state)
        assert is_remembered(mark, "eth1", Direction.EGRESS, LAYOUT, self.state)

    def test_an_entry_that_was_opened_elsewhere(self) -> None:
        """It has a bit for each way through a link with a slot, but that by which it was opened (§6.4)."""
        assert elsewhere_bits(LAYOUT, self.state) == 0x03C00000
        assert elsewhere_bits(LAYOUT, self.state, but=("eth1", Direction.INGRESS)) == 0x02C00000
        assert elsewhere_bits(LAYOUT, self.state, but=("eth9", Direction.EGRESS)) == 0x03C00000
        assert elsewhere_bits(LAYOUT, UNCACHED) == 0
        assert elsewhere_marks("eth1", Direction.EGRESS, LAYOUT, self.state) == (0x02000000, 0x02000000)
        assert elsewhere_marks("eth9", Direction.EGRESS, LAYOUT, self.state) is None
        unknown = replace(self.state, generation=None)
        assert elsewhere_marks("eth0", Direction.EGRESS, LAYOUT, unknown) is None

    def test_where_nothing_is_remembered(self) -> None:
        """No mark says anything."""
        assert not is_remembered(0xFFFFFFFF, "eth0", Direction.INGRESS, LAYOUT, UNCACHED)


def test_slots_without_a_generation_remember_nothing() -> None:
    """The table may say who had a slot, but no mark is believed."""
    state = EnforcementState(generation=None, slots=("eth0", None, None))
    assert not is_remembered(0xFFFFFFFF, "eth0", Direction.INGRESS, LAYOUT, state)
