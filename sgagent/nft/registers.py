"""The registers of a rule's program, followed symbolically: which fields are compared with which values.

A register holds what was read of a packet, some bits of it, or a constant, never a number of a packet. Each
instruction is carried out over that, so that a comparison says which bits of what it compares with which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from sgagent.core.conditions import GroupPath
from sgagent.nft import ruleset as nft
from sgagent.nft.attributes import UnreadableError
from sgagent.nft.expressions import (
    Bitwise,
    ByteOrder,
    Combine,
    Compare,
    CompareRange,
    Compute,
    Constant,
    Expression,
    Key,
    Load,
    NamedStatement,
    Offload,
    Order,
    PacketBytes,
    Reject,
    SetLookUp,
    SetUpdate,
    Store,
    Unknown,
    ValueSource,
    Xtables,
)
from sgagent.nft.fields import HOST_ORDER_KEYS, IS_BIG_ENDIAN, KEY_LENGTHS, FieldCondition
from sgagent.nft.sets import KernelSet, padded

ProgramStatement = nft.Statement | Reject | NamedStatement
"""The statements of a rule; the last two are never in our own rules."""


@dataclass(frozen=True, slots=True)
class RegisterValue:
    """The value of a register: ``(source & mask) ^ flip``, as a number in the order of its bytes."""

    source: ValueSource
    length: int
    mask: int
    flip: int = 0
    is_swapped: bool = False
    """Whether its bytes are in the other order than the kernel keeps them in."""

    @property
    def is_plain(self) -> bool:
        """Return whether it is all that was read, and nothing else."""
        return self.mask == ones(self.length) and not self.flip


@dataclass(frozen=True, slots=True)
class Test:
    """A comparison of a register's value: whether it is from ``first`` to ``last``, or is not."""

    value: RegisterValue
    is_negated: bool
    first: int
    last: int
    is_by_order: bool = False
    """Whether another one beside it may make a range with it."""

    @property
    def condition(self) -> FieldCondition | None:
        """Return the condition of passing, where it is one number of a source that needs no other one."""
        source = self.value.source
        if (
            self.first != self.last
            or self.is_negated
            or not self.value.is_plain
            or isinstance(source, PacketBytes)
        ):
            return None
        is_reversed = source in HOST_ORDER_KEYS and not IS_BIG_ENDIAN
        return source, turned(self.first, self.value.length) if is_reversed else self.first


@dataclass(frozen=True, slots=True)
class Membership:
    """A look-up in a set, or in a map of verdicts."""

    values: tuple[RegisterValue, ...]
    found: SetLookUp


@dataclass(frozen=True, slots=True)
class Metering:
    """A meter: whether packets of one key are more than a rate."""

    value: RegisterValue
    found: SetUpdate


RegisterComparison = Test | Membership | Metering


class Registers:
    """Run a rule's program over symbolic registers."""

    def __init__(self, sets: Mapping[str, KernelSet]) -> None:
        """Start with nothing in the registers."""
        self._sets = sets
        self._words: dict[int, tuple[RegisterValue | Constant, int]] = {}
        """By number, what each register of 4 bytes holds, and which word of it."""

    def items(self, expressions: Iterable[Expression]) -> Iterator[RegisterComparison | ProgramStatement]:
        """Yield the comparisons and the statements with an effect.

        Raises:
            UnreadableError: something is not understood.
        """
        for one in expressions:
            match one:
                case Load(register, source):
                    length = _length(source)
                    self._put(register, RegisterValue(source, length, ones(length)), length)
                case Constant(register, value):
                    self._put(register, one, len(value))
                case Bitwise(source=register):
                    self._put(one.register, self._masked(self._read(register), one), one.length)
                case ByteOrder(source=register):
                    self._put(one.register, self._turned(self._read(register), one), one.length)
                case Compare(register):
                    yield _compared(self._read(register), one)
                case CompareRange(register):
                    yield _ranged(self._read(register), one)
                case SetLookUp(target=int()):
                    raise UnreadableError("lookup")
                case SetLookUp(register, name):
                    if name not in self._sets:
                        raise UnreadableError(f"set {name}")
                    yield Membership(tuple(self._key(register, self._sets[name].key_length)), one)
                case SetUpdate(register, limit=tuple()):
                    yield Metering(self._read(register), one)
                case Store(target, register) if target == _CT_MARK:
                    yield _marked(self._held(register))
                case Xtables() if (path := _group_path(one)) is not None:
                    yield nft.Match(nft.SOCKET_GROUP, (GroupPath(path),))
                case Combine() | Compute() | SetUpdate() | Store() | Offload() | Xtables() | Unknown():
                    raise UnreadableError(str(one))
                case _:
                    yield one

    def _put(self, register: int, value: RegisterValue | Constant, length: int) -> None:
        for number in range(padded(length) // 4):
            self._words[register + number] = value, number

    def _held(self, register: int) -> RegisterValue | Constant:
        """Return a register's value, from its beginning on."""
        value, number = self._words.get(register, (None, 0))
        if value is None:
            raise UnreadableError("a register that nothing was read into")
        if number:
            raise UnreadableError("a part of what was read")
        length = len(value.value) if isinstance(value, Constant) else value.length
        words = [self._words.get(register + one) for one in range(padded(length) // 4)]
        if words != [(value, one) for one in range(len(words))]:
            raise UnreadableError("a register that was read into twice")
        return value

    def _read(self, register: int) -> RegisterValue:
        value = self._held(register)
        if isinstance(value, Constant):
            raise UnreadableError("a comparison of constants")
        return value

    def _key(self, register: int, length: int) -> Iterator[RegisterValue]:
        """Yield the values that a key of a set consists of, from a register on."""
        value = self._read(register)
        if value.length == length:
            yield value
            return
        left = length
        while left > 0:
            value = self._read(register)
            yield value
            register, left = register + padded(value.length) // 4, left - padded(value.length)
        if left:
            raise UnreadableError("a key of another length")

    def _masked(self, value: RegisterValue, by: Bitwise) -> RegisterValue:
        if by.length != value.length or {len(by.mask), len(by.flip)} != {value.length}:
            raise UnreadableError(f"mask of {value.source}")
        mask, flip = int.from_bytes(by.mask, "big"), int.from_bytes(by.flip, "big")
        return replace(value, mask=value.mask & mask, flip=value.flip & mask ^ flip)

    def _turned(self, value: RegisterValue, by: ByteOrder) -> RegisterValue:
        if (by.length, by.size) != (value.length, value.length):
            raise UnreadableError(f"byteorder of {value.source}")
        if IS_BIG_ENDIAN:
            return value
        mask, flip = (turned(one, value.length) for one in (value.mask, value.flip))
        return replace(value, mask=mask, flip=flip, is_swapped=not value.is_swapped)


def _length(source: ValueSource) -> int:
    """Return how many bytes a read puts into a register.

    Raises:
        UnreadableError: sgagent does not know that.
    """
    length = source.length if isinstance(source, PacketBytes) else KEY_LENGTHS.get(source)
    if length is None:
        raise UnreadableError(str(source))
    return length


def _compared(value: RegisterValue, by: Compare) -> Test:
    """Return a comparison with bytes, of which there may be less than were read.

    Raises:
        UnreadableError: what was read is not compared in the way that it is in a field.
    """
    number, short = int.from_bytes(by.value, "big"), 8 * (value.length - len(by.value))
    if short < 0 or not by.value:
        raise UnreadableError(f"comparison of {value.source}")
    if by.order in (Order.EQUAL, Order.NOT_EQUAL):
        mask = value.mask >> short << short
        number = number << short ^ value.flip & ~(_ones_of_bits(short))
        return Test(replace(value, mask=mask, flip=0), by.order is Order.NOT_EQUAL, number, number)
    most = ones(value.length)
    first, last = {
        Order.LESS: (0, number - 1),
        Order.AT_MOST: (0, number),
        Order.GREATER: (number + 1, most),
        Order.AT_LEAST: (number, most),
    }[by.order]
    if short or value.flip:
        raise UnreadableError(f"comparison of {value.source}")
    return Test(value, is_negated=False, first=first, last=last, is_by_order=True)


def _ranged(value: RegisterValue, by: CompareRange) -> Test:
    if {len(by.first), len(by.last)} != {value.length} or value.flip:
        raise UnreadableError(f"range of {value.source}")
    first, last = (int.from_bytes(end, "big") for end in (by.first, by.last))
    return Test(value, by.is_negated, first, last)


def _marked(value: RegisterValue | Constant) -> nft.SetMark:
    """Return the change of a session's mark.

    One that reads the mark, and then sets all of it, is none of ours: without a session its rule ends there.

    Raises:
        UnreadableError: the mark becomes something else than its own bits and constant ones.
    """
    order: Literal["big", "little"] = "big" if IS_BIG_ENDIAN else "little"
    if isinstance(value, Constant):
        if len(value.value) != 4:
            raise UnreadableError("set ct mark")
        number = int.from_bytes(value.value, order)
        return nft.SetMark(keep=number, put=number)
    keep, put = (int.from_bytes(one.to_bytes(value.length, "big"), order) for one in (value.mask, value.flip))
    if value.source != _CT_MARK or value.is_swapped or keep & put or not keep:
        raise UnreadableError("set ct mark")
    return nft.SetMark(keep=keep | put, put=put)


_CT_MARK = Key("ct", 3)


def _group_path(one: Xtables) -> str | None:
    """Return the path of a match on a control group, and on those below it; None of any other match."""
    flags, path = one.argument[:4], one.argument[4:]
    is_path = (one.is_target, one.name, one.revision, flags) == (False, "cgroup", 2, b"\1\0\0\0")
    text, _, rest = path.partition(b"\0")
    return (
        text.decode("utf-8", "surrogateescape")
        if is_path and text.startswith(b"/") and not any(rest)
        else None
    )


def ones(length: int) -> int:
    """Return the number of so many bytes of which all bits are set."""
    return _ones_of_bits(8 * length)


def _ones_of_bits(bits: int) -> int:
    return (1 << bits) - 1


def turned(number: int, length: int) -> int:
    """Return a number with its bytes in the other order."""
    return int.from_bytes(number.to_bytes(length, "big"), "little")
