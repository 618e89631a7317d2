"""What the doctor says of a rule that computes a mark holds for every session, packet and constant."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from operator import and_, or_, xor

from hypothesis import given, strategies as st

from sgagent.analysis.doctor.effects import effect_of
from sgagent.analysis.doctor.mark_bits import ALL_BITS
from sgagent.nft.expressions import Bitwise, Combination, Combine, Constant, Expression, Key, Load, Store

SESSION_MARK, PACKET_MARK = Key("ct", 3), Key("meta", 3)
REGISTERS = range(3)
numbers = st.integers(0, ALL_BITS) | st.sampled_from([0, ALL_BITS, 0xFFFF0000, 0xFFFF, 1, 0x00410000])
registers = st.sampled_from(REGISTERS)
COMPUTED = {Combination.AND: and_, Combination.OR: or_, Combination.XOR: xor}


def octets(number: int) -> bytes:
    """Return a number as rules hold it."""
    return struct.pack("=I", number)


steps: st.SearchStrategy[Expression] = st.one_of(
    st.builds(Load, registers, st.sampled_from([SESSION_MARK, PACKET_MARK])),
    st.builds(Constant, registers, numbers.map(octets)),
    st.builds(Bitwise, registers, registers, st.just(4), numbers.map(octets), numbers.map(octets)),
    st.builds(Combine, registers, registers, st.sampled_from(list(COMPUTED)), registers),
    st.builds(Combine, registers, registers, st.sampled_from(list(COMPUTED)), st.none(), numbers.map(octets)),
    st.builds(Combine, registers, registers, st.just(Combination.SHIFT_LEFT), st.none(), st.just(octets(1))),
)


@dataclass(slots=True)
class Machine:
    """The registers of a packet."""

    session: int
    packet: int
    shift: int
    values: dict[int, int]

    def run(self, step: Expression) -> None:
        """Do one step as the kernel does."""
        match step:
            case Load(register, source):
                is_session = source == SESSION_MARK
                self.values[register] = self.session if is_session else self.packet
            case Constant(register, value):
                self.values[register] = number(value)
            case Bitwise(source, register, _, mask, toggled):
                self.values[register] = self.values[source] & number(mask) ^ number(toggled)
            case Combine(source, register, Combination.SHIFT_LEFT):
                self.values[register] = self.values[source] << self.shift & ALL_BITS
            case Combine(source, register, operation, other, constant):
                second = number(constant) if other is None else self.values[other]
                self.values[register] = COMPUTED[operation](self.values[source], second)


def number(value: bytes) -> int:
    """Return a number of a rule."""
    return int(struct.unpack("=I", value)[0])


def result(program: list[Expression], session: int, packet: int, shift: int) -> int:
    """Return what the program leaves in the first register, of which all begin with the packet's mark."""
    machine = Machine(session, packet, shift, dict.fromkeys(REGISTERS, packet))
    for step in program:
        machine.run(step)
    return machine.values[0]


BEGIN: list[Expression] = [Load(register, PACKET_MARK) for register in REGISTERS]
programs = st.lists(steps, max_size=8)
shifts = st.integers(0, 31)


@given(programs, numbers, numbers, shifts)
def test_a_bit_said_to_stay_stays(program: list[Expression], session: int, packet: int, shift: int) -> None:
    """Bits that are not among the written ones are the same in the session's mark afterwards."""
    effect = effect_of([*BEGIN, *program, Store(SESSION_MARK, 0)], {})
    assert not (result(program, session, packet, shift) ^ session) & ~effect.writes


@given(programs, numbers, numbers, shifts)
def test_a_bit_said_to_be_set_is(program: list[Expression], session: int, packet: int, shift: int) -> None:
    """Whatever the marks were before."""
    effect = effect_of([*BEGIN, *program, Store(SESSION_MARK, 0)], {})
    assert result(program, session, packet, shift) & effect.sets == effect.sets


@given(programs, numbers, numbers, numbers, shifts)
def test_a_bit_that_is_said_not_to_matter_does_not(
    program: list[Expression], session: int, other: int, packet: int, shift: int
) -> None:
    """Two sessions whose marks differ only there give the packet the same mark."""
    effect = effect_of([*BEGIN, *program, Store(PACKET_MARK, 0)], {})
    alike = session & effect.reads | other & ~effect.reads & ALL_BITS
    assert result(program, session, packet, shift) == result(program, alike, packet, shift)
