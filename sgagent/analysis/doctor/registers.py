"""What one rule of another table does: an abstract run of its program over registers."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from sgagent.analysis.doctor.ruleset import (
    Bitwise,
    Combine,
    Compare,
    Compute,
    End,
    Expression,
    Extension,
    GiveVerdict,
    Load,
    LookUp,
    Operand,
    Operation,
    Put,
    Statement,
    Store,
)

ALL_BITS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class MarkBits:
    """What is known of the 32 bits of a register; a bit that is in no field may be anything."""

    session: int = 0
    """Bits that are the same bit of the session's mark."""

    zeros: int = 0
    ones: int = 0
    depends: int = 0
    """Bits of the session's mark on which the value depends."""

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
        )

    def combined(self, other: MarkBits, operation: Operation) -> MarkBits:
        """Return the value of both, combined."""
        depends = self.depends | other.depends
        match operation:
            case Operation.AND:
                session = self.session & other.ones | self.ones & other.session
                zeros, ones = self.zeros | other.zeros, self.ones & other.ones
                depends = self.depends & ~other.zeros | other.depends & ~self.zeros
            case Operation.OR:
                session = self.session & other.zeros | self.zeros & other.session
                zeros, ones = self.zeros & other.zeros, self.ones | other.ones
            case Operation.XOR:
                session = self.session & other.zeros | self.zeros & other.session
                zeros = self.zeros & other.zeros | self.ones & other.ones
                ones = self.zeros & other.ones | self.ones & other.zeros
            case Operation.SHIFT:
                session = zeros = ones = 0
            case _:
                assert_never(operation)
        return MarkBits(session, zeros, ones, depends)


_UNKNOWN = MarkBits()
_SESSION_MARK = MarkBits(session=ALL_BITS, depends=ALL_BITS)


def _constant(value: bytes) -> MarkBits:
    number = _number(value)
    return MarkBits(zeros=~number & ALL_BITS, ones=number)


class Narrowing(enum.Enum):
    """By what else than links a rule picks packets."""

    PROTOCOL = enum.auto()
    """Protocols and ports."""

    SOURCE = enum.auto()
    DESTINATION = enum.auto()
    """In a way that is not followed."""

    OTHER = enum.auto()


@dataclass(frozen=True, slots=True)
class LinkTest:
    """A test of the link by which a packet comes or goes."""

    is_input: bool
    values: frozenset[str | int]
    """Names, prefixes that end in ``*``, or indexes."""

    is_negated: bool = False

    def admits(self, name: str, index: int) -> bool:
        """Return whether packets of a link pass the test."""
        return any(_is_meant(value, name, index) for value in self.values) is not self.is_negated


def _is_meant(value: str | int, name: str, index: int) -> bool:
    if isinstance(value, int):
        return value == index
    return name.startswith(value[:-1]) if value.endswith("*") else value == name


@dataclass(frozen=True, slots=True)
class Conditions:
    """What has to be true of a packet for a rule to act on it."""

    links: tuple[LinkTest, ...] = ()
    narrowings: frozenset[Narrowing] = frozenset()
    destinations: frozenset[bytes] = frozenset()
    """Beginnings of destination addresses."""

    def and_(self, other: Conditions) -> Conditions:
        """Return both."""
        if other in (self, NO_CONDITIONS):
            return self
        return Conditions(
            links=tuple(dict.fromkeys((*self.links, *other.links))),
            narrowings=self.narrowings | other.narrowings,
            destinations=self.destinations | other.destinations,
        )


NO_CONDITIONS = Conditions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a rule does to the packets that meet its conditions."""

    conditions: Conditions = NO_CONDITIONS
    writes: int = 0
    """Bits of the session's mark that it may change."""

    sets: int = 0
    """Those of them that it sets to one."""

    reads: int = 0
    """Bits of the session's mark on which it depends what else it does."""

    zone: bool = False
    notrack: bool = False
    synproxy: bool = False
    sends_elsewhere: bool = False
    """Whether it forwards or duplicates packets to another link, at a hook of links."""

    flow_table: str | None = None
    ends: End | None = None
    """DROP also for a reject."""

    jumps_to: str | None = None
    leads_on: bool = False
    """Whether a map says where it jumps."""


LinkValues = Mapping[str, frozenset[str | int]]
"""The elements of sets of links, by the sets' names."""


def effect_of(expressions: Iterable[Expression], sets: LinkValues) -> Effect:
    """Return what a rule does.

    Args:
        expressions: of the rule.
        sets: the links in sets of its table.
    """
    run = _Run(sets)
    for expression in expressions:
        run.step(expression)
    return run.effect()


@dataclass(slots=True)
class _Run:
    """The state of a run."""

    sets: LinkValues
    marks: dict[int, MarkBits] = field(default_factory=dict)
    operands: dict[int, Operand] = field(default_factory=dict)
    masks: dict[int, bytes] = field(default_factory=dict)
    links: list[LinkTest] = field(default_factory=list)
    narrowings: set[Narrowing] = field(default_factory=set)
    destinations: set[bytes] = field(default_factory=set)
    writes: int = 0
    ones: int = 0
    reads: int = 0
    statements: set[str] = field(default_factory=set)
    """Names of those that count, as :class:`Effect` names them."""

    flow_table: str | None = None
    verdict: GiveVerdict | None = None

    def effect(self) -> Effect:
        """Return what the rule does."""
        named = self.statements
        return Effect(
            conditions=Conditions(
                tuple(self.links), frozenset(self.narrowings), frozenset(self.destinations)
            ),
            writes=self.writes,
            sets=self.ones,
            reads=self.reads,
            zone="zone" in named,
            notrack="notrack" in named,
            synproxy="synproxy" in named,
            sends_elsewhere="sends_elsewhere" in named,
            flow_table=self.flow_table,
            ends=self.verdict.end if self.verdict else None,
            jumps_to=self.verdict.chain if self.verdict else None,
            leads_on="leads_on" in named,
        )

    def step(self, expression: Expression) -> None:
        """Take one expression."""
        match expression:
            case Load(operand, register):
                is_session = operand is Operand.SESSION_MARK
                self._put(register, _SESSION_MARK if is_session else _UNKNOWN, operand)
            case Bitwise(source, register, mask, toggled):
                before = self.marks.get(source, _UNKNOWN)
                value = before.masked(_number(mask), _number(toggled))
                self._put(register, value, self.operands.get(source, Operand.OTHER), mask)
            case Combine(source, register, operation, other, constant):
                second = self.marks.get(other, _UNKNOWN) if other is not None else _constant(constant)
                value = self.marks.get(source, _UNKNOWN).combined(second, operation)
                self._put(register, value, Operand.OTHER)
            case Put(register, value_bytes):
                self._put(register, _constant(value_bytes), Operand.OTHER)
            case Compute(register, computed_of):
                depends = self.marks.get(computed_of, _UNKNOWN).depends if computed_of is not None else 0
                self._put(register, MarkBits(depends=depends), Operand.OTHER)
            case Compare():
                self._compare(expression)
            case LookUp():
                self._look_up(expression)
            case Store(operand, register):
                self._store(operand, self.marks.get(register, _UNKNOWN))
            case GiveVerdict():
                self.verdict = expression
            case Extension():
                self._extend(expression)
            case Statement(name, argument):
                self._state(name, argument)
            case _:
                assert_never(expression)

    def _put(self, register: int, value: MarkBits, operand: Operand, mask: bytes = b"") -> None:
        self.marks[register], self.operands[register], self.masks[register] = value, operand, mask

    def _write(self, changed: int, ones: int) -> None:
        self.writes |= changed
        self.ones |= ones & changed

    def _compare(self, test: Compare) -> None:
        self.reads |= self.marks.get(test.register, _UNKNOWN).depends
        operand, mask = self.operands.get(test.register, Operand.OTHER), self.masks.get(test.register, b"")
        if operand in _LINKS and test.is_exact:
            values = frozenset({_link_value(operand, test.value)})
            self.links.append(LinkTest(operand in _INPUTS, values, is_negated=not test.is_equal))
        elif operand is Operand.DESTINATION and test.is_exact and test.is_equal and _is_of_octets(mask):
            self.destinations.add(test.value[: len(mask.rstrip(b"\0"))] if mask else test.value)
        elif not (operand is Operand.STATE and not test.is_equal and _number(mask) & _NEW):
            self.narrowings.add(_NARROWINGS.get(operand, Narrowing.OTHER))

    def _look_up(self, look_up: LookUp) -> None:
        self.reads |= self.marks.get(look_up.register, _UNKNOWN).depends
        operands = {one for register, one in self.operands.items() if register >= look_up.register}
        operand = next(iter(operands)) if len(operands) == 1 else Operand.OTHER
        values = self.sets.get(look_up.set_name)
        if look_up.leads_on:
            self.statements.add("leads_on")
        if operand in _LINKS and values is not None and not look_up.leads_on:
            self.links.append(LinkTest(operand in _INPUTS, values, look_up.is_inverted))
        else:
            self.narrowings.update(_NARROWINGS.get(one, Narrowing.OTHER) for one in operands or {operand})
        if look_up.target is not None:
            self._put(look_up.target, _UNKNOWN, Operand.OTHER)

    def _store(self, operand: Operand, value: MarkBits) -> None:
        if operand is Operand.SESSION_MARK:
            self._write(value.changed, value.ones)
        elif operand is Operand.ZONE:
            self.statements.add("zone")
        else:
            self.reads |= value.depends

    def _state(self, name: str, argument: str) -> None:
        match name:
            case "notrack" | "synproxy":
                self.statements.add(name)
            case "flow_offload":
                self.flow_table = argument
            case "fwd" | "dup":
                self.statements.add("sends_elsewhere")
            case "reject":
                self.verdict = _DROP
            case "limit" | "quota" | "connlimit":
                self.narrowings.add(Narrowing.OTHER)
            case _:
                pass

    def _extend(self, extension: Extension) -> None:
        if extension.is_target:
            self._target(extension)
        elif extension.name == "connmark":
            self.reads |= _word(extension.argument, 1)
            self.narrowings.add(Narrowing.OTHER)
        elif extension.name in _PORT_MATCHES:
            self.narrowings.add(Narrowing.PROTOCOL)
        elif extension.name != "comment":
            self.narrowings.add(Narrowing.OTHER)

    def _target(self, target: Extension) -> None:
        match target.name:
            case "CONNMARK":
                self._connmark(target)
            case "CT":
                flags, zone = _FLAGS_AND_ZONE.unpack(target.argument[:4].ljust(4, b"\0"))
                if flags & _NOTRACK:
                    self.statements.add("notrack")
                if zone or flags & _ZONE_OF_MARK:
                    self.statements.add("zone")
            case "NOTRACK" | "SYNPROXY":
                self.statements.add(target.name.lower())
            case "REJECT":
                self.verdict = _DROP
            case "TEE":
                self.statements.add("sends_elsewhere")
            case _:
                pass

    def _connmark(self, target: Extension) -> None:
        """Take ``--set-mark``, ``--save-mark`` or ``--restore-mark``, as xt_connmark.h declares it."""
        ours, mask, of_packet = (_word(target.argument, place) for place in range(3))
        mode = target.argument[_MODE_AT[min(target.revision, 2)] :][:1]
        if mode == _SET_MARK:
            self._write(mask | ours, ours)
        elif mode == _SAVE_MARK:
            self._write(mask | of_packet, 0)
        elif mode == _RESTORE_MARK:
            self.reads |= mask


_INPUTS = frozenset({Operand.INPUT_NAME, Operand.INPUT_INDEX})
_LINKS = _INPUTS | {Operand.OUTPUT_NAME, Operand.OUTPUT_INDEX}
_INDEXES = frozenset({Operand.INPUT_INDEX, Operand.OUTPUT_INDEX})
_NARROWINGS: Mapping[Operand, Narrowing] = {
    Operand.PROTOCOL: Narrowing.PROTOCOL,
    Operand.PORT: Narrowing.PROTOCOL,
    Operand.SOURCE: Narrowing.SOURCE,
    Operand.DESTINATION: Narrowing.DESTINATION,
}
_DROP = GiveVerdict(End.DROP)
_NEW = 8
"""Of the states of a packet, as bits."""

_PORT_MATCHES = frozenset({"tcp", "udp", "sctp", "multiport"})
_FLAGS_AND_ZONE = struct.Struct("=HH")
_NOTRACK, _ZONE_OF_MARK = 0b11, 0b10000
_MODE_AT = (12, 12, 14)
"""Where each revision of CONNMARK has its mode."""

_SET_MARK, _SAVE_MARK, _RESTORE_MARK = b"\0", b"\1", b"\2"


def _number(value: bytes) -> int:
    """Return a value of the host's byte order, of at most 32 bits."""
    return int(struct.unpack("=I", value[:4].ljust(4, b"\0"))[0])


def _word(argument: bytes, place: int) -> int:
    return _number(argument[4 * place : 4 * place + 4])


def _is_of_octets(mask: bytes) -> bool:
    """Return whether a mask keeps whole octets at the beginning, or is none."""
    kept = mask.rstrip(b"\0")
    return all(octet == 0xFF for octet in kept)


def _link_value(operand: Operand, value: bytes) -> str | int:
    """Return what a comparison compares a link with."""
    return _number(value) if operand in _INDEXES else _name(value)


def link_value(value: bytes) -> str | int:
    """Return the link that an element of a set means: by its index, or by its name."""
    return _number(value) if len(value) == _WORD_OCTETS else _name(value)


def _name(value: bytes) -> str:
    """Return a name as rules hold it; one that does not end is a prefix."""
    name, end, _ = value.partition(b"\0")
    return name.decode("utf-8", "backslashreplace") + ("" if end or len(value) >= _NAME_OCTETS else "*")


_WORD_OCTETS, _NAME_OCTETS = 4, 16
