"""The bits of a register that may become a session's mark, as far as they are known."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import assert_never

from sgagent.nft.expressions import Combination

ALL_BITS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class MarkBits:
    """The known ones of the 32 bits of a register; a bit that is in no field may be anything."""

    session: int = 0
    """Bits that are the same bit of the session's mark."""

    zeros: int = 0
    ones: int = 0
    depends: int = 0
    """Bits of the session's mark on which the value depends."""

    at_times: int = 0
    """Bits that some of a map's values set, and others may not."""

    @property
    def changed(self) -> int:
        """Return the bits that change if this becomes the session's mark."""
        return ~self.session & ALL_BITS

    def masked(self, mask: int, toggled: int) -> MarkBits:
        """Return the value ``self & mask ^ toggled``."""
        zeros, ones = self.zeros | ~mask & ALL_BITS, self.ones & mask
        is_in_place = not self.depends & ~self.session
        return MarkBits(
            session=self.session & mask & ~toggled,
            zeros=zeros & ~toggled | ones & toggled,
            ones=ones & ~toggled | zeros & toggled,
            depends=self.depends & mask if is_in_place else self.depends,
            at_times=self.at_times & mask,
        )

    def combined(self, other: MarkBits, operation: Combination) -> MarkBits:
        """Return the value of both, combined."""
        depends = self.depends | other.depends
        match operation:
            case Combination.AND:
                session = self.session & other.ones | self.ones & other.session
                zeros, ones = self.zeros | other.zeros, self.ones & other.ones
                depends = self.depends & ~other.zeros | other.depends & ~self.zeros
            case Combination.OR:
                session = self.session & other.zeros | self.zeros & other.session
                zeros, ones = self.zeros & other.zeros, self.ones | other.ones
            case Combination.XOR:
                session = self.session & other.zeros | self.zeros & other.session
                zeros = self.zeros & other.zeros | self.ones & other.ones
                ones = self.zeros & other.ones | self.ones & other.zeros
            case Combination.SHIFT_LEFT | Combination.SHIFT_RIGHT:
                session = zeros = ones = 0
            case _:
                assert_never(operation)
        return MarkBits(session, zeros, ones, depends, (self.at_times | other.at_times) & ~zeros)


ANY_BITS = MarkBits()
SESSION_BITS = MarkBits(session=ALL_BITS, depends=ALL_BITS)


def constant_bits(value: bytes) -> MarkBits:
    """Return the value of a constant."""
    constant = number(value)
    return MarkBits(zeros=~constant & ALL_BITS, ones=constant)


def one_of(values: Collection[bytes]) -> MarkBits:
    """Return what is known of one of a map's values; nothing where none is known."""
    if not values:
        return ANY_BITS
    zeros = ones = ALL_BITS
    at_times = 0
    for constant in map(number, values):
        zeros, ones, at_times = zeros & ~constant, ones & constant, at_times | constant
    return MarkBits(zeros=zeros, ones=ones, at_times=at_times)


def number(value: bytes) -> int:
    """Return a value of the host's byte order, of at most 32 bits."""
    return int(struct.unpack("=I", value[:4].ljust(4, b"\0"))[0])
