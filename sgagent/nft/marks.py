"""The layout of our bits of the conntrack mark, and the policy generation in them.

Low to high within the mask: two bits (accepted inwards, accepted outwards) for each of three slots, one slot
per bound interface; then two bits for each slot, set if conntrack's entry was not opened inwards, or not
outwards, through it; the rest is the generation, never 0. The current policy has accepted a session whose
mark carries the current generation and the bit of the interface and direction that it was opened in (§6,
design.md). The bits of generation and acceptance change with policies, the others do not.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

from sgagent.core.model import Direction

SLOTS = 3
_BITS_PER_SLOT = 2
_LOW_BITS = 2 * SLOTS * _BITS_PER_SLOT
"""Those below the generation."""

_FEWEST_BITS = _LOW_BITS + 3
"""With seven generations, so that few changes have marks cleared."""

_MARK_BITS = 32


class Sessions(enum.Enum):
    """The treatment of live sessions when the policy changes (§6.3)."""

    REJUDGE = "rejudge"
    KEEP = "keep"


class MarkTest(NamedTuple):
    """A test that some marks meet: those that have certain values in certain bits."""

    bits: int
    value: int

    def is_met_by(self, mark: int) -> bool:
        """Return whether a mark meets it."""
        return mark & self.bits == self.value


@dataclass(frozen=True, slots=True)
class MarkLayout:
    """Where generation and slots stand in the bits that the configuration gives us."""

    mask: int
    """Contiguous bits of the 32."""

    def __post_init__(self) -> None:
        """Refuse a mask with holes, without bits or with too many."""
        if not is_contiguous(self.mask):
            raise ValueError(f"not a contiguous mask of 1 to 32 bits: {self.mask:#x}")

    @property
    def can_cache(self) -> bool:
        """Return whether there are bits enough; with fewer, sessions are judged at every packet."""
        return self.mask.bit_count() >= _FEWEST_BITS

    @property
    def used_mask(self) -> int:
        """Return the bits that are ever set or believed."""
        return self.mask if self.can_cache else 0

    @property
    def _shift(self) -> int:
        return (self.mask & -self.mask).bit_length() - 1

    @property
    def generation_mask(self) -> int:
        """Return the bits that hold the generation."""
        return self.mask & ~(((1 << _LOW_BITS) - 1) << self._shift)

    @property
    def last_generation(self) -> int:
        """Return the greatest generation; the one after it is 1 again."""
        return self.generation_mask >> (self._shift + _LOW_BITS)

    def generation_bits(self, generation: int) -> int:
        """Return a generation in its place in the mark."""
        return generation << (self._shift + _LOW_BITS)

    def of_generation(self, generation: int) -> MarkTest:
        """Return the test that the marks of a generation meet, and no others."""
        return MarkTest(self.generation_mask, self.generation_bits(generation))

    def of_other_generations(self, generation: int) -> tuple[MarkTest, ...]:
        """Return tests for the marks of all other generations; each such mark meets at least one test.

        Marks of the generation itself meet none. Each test checks a bit that this generation lacks, or one
        that only this generation has. If the generation has a single bit, a mark without it has another bit
        or no generation.
        """
        own = self.generation_bits(generation)
        bits = [1 << place for place in range(_MARK_BITS) if self.generation_mask >> place & 1]
        return tuple(MarkTest(bit, bit & ~own) for bit in bits if bit != own)

    def direction_bit(self, slot: int, direction: Direction) -> int:
        """Return the bit of sessions opened in the direction through the interface in the slot."""
        return 1 << (self._shift + _place(slot, direction))

    @property
    def acceptance_mask(self) -> int:
        """Return the bits of all slots and directions."""
        return ((1 << SLOTS * _BITS_PER_SLOT) - 1) << self._shift

    def elsewhere_bit(self, slot: int, opened: Direction) -> int:
        """Return the bit of entries that were not opened in the direction through the interface (§6.4).

        They were opened over another link, or the other way.
        """
        return 1 << (self._shift + SLOTS * _BITS_PER_SLOT + _place(slot, opened))


def _place(slot: int, direction: Direction) -> int:
    return slot * _BITS_PER_SLOT + (0 if direction is Direction.INGRESS else 1)


def allowed_marks(
    interface: str, opened: Direction, layout: MarkLayout, state: EnforcementState
) -> MarkTest | None:
    """Return the test of marks that say that the current policy allowed a session; None if none do.

    Args:
        interface: where the session's packets pass.
        opened: which way it was opened there.
        layout: our bits of the mark.
        state: what they mean now.
    """
    slot = state.slot(interface)
    if slot is None or state.generation is None:
        return None
    bit = layout.direction_bit(slot, opened)
    return MarkTest(layout.generation_mask | bit, layout.generation_bits(state.generation) | bit)


def is_remembered(
    mark: int, interface: str, opened: Direction, layout: MarkLayout, state: EnforcementState
) -> bool:
    """Return whether the mark of a session says that the current policy allowed it at the interface."""
    test = allowed_marks(interface, opened, layout, state)
    return test is not None and test.is_met_by(mark)


def elsewhere_bits(
    layout: MarkLayout, state: EnforcementState, but: tuple[str, Direction] | None = None
) -> int:
    """Return the bits of an entry that was opened over none of the links with a slot, or over one of them.

    0 where nothing is remembered.

    Args:
        layout: our bits of the mark.
        state: what they mean now.
        but: the interface over which it was opened, and which way.
    """
    if state.generation is None:
        return 0
    places = product(enumerate(state.slots), Direction)
    return sum(
        layout.elsewhere_bit(slot, opened)
        for (slot, name), opened in places
        if name is not None and (name, opened) != but
    )


def elsewhere_marks(
    interface: str, opened: Direction, layout: MarkLayout, state: EnforcementState
) -> MarkTest | None:
    """Return the test of marks of entries that were not opened so; None if marks don't say.

    Args:
        interface: where packets pass.
        opened: which way a session is opened of which they would be answers.
        layout: our bits of the mark.
        state: what they mean now.
    """
    slot = state.slot(interface)
    if slot is None or state.generation is None:
        return None
    bit = layout.elsewhere_bit(slot, opened)
    return MarkTest(bit, bit)


def is_contiguous(mask: int) -> bool:
    """Return whether the number is one unbroken run of bits within 32."""
    if not 0 < mask < 1 << _MARK_BITS:
        return False
    low = mask & -mask
    return (mask + low) & mask == 0


Slots = tuple[str | None, ...]
NO_SLOTS: Slots = (None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcementState:
    """The state that has to outlive the agent for sessions to be judged rightly; kept in the table itself."""

    generation: int | None
    """From 1. None: nothing is remembered in marks, every packet is judged, until the marks were cleared."""

    slots: Slots = NO_SLOTS
    """The interface in each slot."""

    reused: bool = False
    """Whether marks of other generations may be about, from before the generations wrapped or from elsewhere:
    they have to be cleared before the next one is used."""

    keeps: bool = False
    """Whether marks may be of sessions that a later policy forbids, as ``sessions = "keep"`` kept them."""

    def slot(self, interface: str) -> int | None:
        """Return the slot of an interface; None: its sessions are judged at every packet."""
        return self.slots.index(interface) if interface in self.slots else None


UNCACHED = EnforcementState(generation=None)


def encode_state(state: EnforcementState, layout: MarkLayout) -> str:
    """Return the state as the comment of the chain that keeps it."""
    generation = "none" if state.generation is None else str(state.generation)
    slots = (slot or _FREE for slot in state.slots)
    flags = ["reused"] * state.reused + ["keeps"] * state.keeps
    return " ".join([f"mask {layout.mask:#x} layout 3 generation {generation} slots", *slots, *flags])


def decode_state(comment: str, layout: MarkLayout) -> EnforcementState | None:
    """Return the state that a comment holds; None where it is not one of ours, or speaks of other bits."""
    stated = stated_state(comment)
    if stated is None:
        return None
    mask, state = stated
    is_ours = mask == layout.mask and (state.generation or 0) <= layout.last_generation
    return state if is_ours else None


def stated_state(comment: str) -> tuple[int, EnforcementState] | None:
    """Return the mask and the state that a comment holds, unchecked; None where it is not one of ours."""
    found = _STATE.fullmatch(comment)
    if found is None:
        return None
    slots = tuple(None if word == _FREE else word for word in found["slots"].split())
    generation = None if found["generation"] == "none" else int(found["generation"])
    return int(found["mask"], 16), EnforcementState(
        generation=generation,
        slots=slots,
        reused=found["reused"] is not None,
        keeps=found["keeps"] is not None,
    )


_FREE = "/"
"""Stands for an empty slot; no link can be called so."""

_STATE = re.compile(
    r"mask (?P<mask>0x[0-9a-f]{1,8}) layout 3 generation (?P<generation>none|[1-9][0-9]{0,9})"
    r" slots (?P<slots>\S+ \S+ \S+)(?P<reused> reused)?(?P<keeps> keeps)?"
)


def assign_slots(slots: Slots, interfaces: Iterable[str]) -> Slots:
    """Return the slots for these interfaces: who has one keeps it, others take free ones in name order.

    One that is given up is free from the next step on: until then the table sets its bit in marks.
    """
    names = sorted(interfaces)
    waiting = [name for name in names if name not in slots]
    return tuple(
        (waiting.pop(0) if waiting else None) if slot is None else slot if slot in names else None
        for slot in slots
    )


def is_slot_due(slots: Slots, interfaces: Iterable[str]) -> bool:
    """Return whether an interface waits for a slot that is free."""
    return None in slots and any(name not in slots for name in interfaces)


def taken_slots(before: Slots, after: Slots) -> tuple[int, ...]:
    """Return the slots that an interface takes; bits of entries opened elsewhere may be left of another."""
    pairs = enumerate(zip(before, after, strict=True))
    return tuple(place for place, (old, new) in pairs if new is not None and new != old)


def next_state(
    state: EnforcementState, interfaces: Iterable[str], layout: MarkLayout, *, narrows: bool
) -> EnforcementState:
    """Return the state under which a new policy is enforced.

    The generation is bumped where the policy may take something away from a live session, and where a slot
    changes hands, as its bits still speak of the interface before.

    Args:
        state: the state in force, with a generation.
        interfaces: the names of the bound interfaces.
        layout: the bits of the mark.
        narrows: whether the new policy may take something away.
    """
    if state.generation is None or not layout.can_cache:
        return UNCACHED
    slots = assign_slots(state.slots, interfaces)
    if not narrows and not taken_slots(state.slots, slots):
        return replace(state, slots=slots)
    if state.generation >= layout.last_generation:
        return EnforcementState(generation=1, slots=slots, reused=True)
    return EnforcementState(generation=state.generation + 1, slots=slots)


def first_state(interfaces: Iterable[str], layout: MarkLayout) -> EnforcementState:
    """Return the state for a host whose marks carry none of our bits."""
    if not layout.can_cache:
        return UNCACHED
    return EnforcementState(generation=1, slots=assign_slots(NO_SLOTS, interfaces))
