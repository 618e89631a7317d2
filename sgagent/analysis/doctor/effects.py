"""The effect of one rule of another table: an abstract run of its program over registers."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from sgagent.nft import ruleset as nft
from sgagent.nft.expressions import (
    Base,
    Bitwise,
    ByteOrder,
    Combination,
    Combine,
    Compare,
    CompareRange,
    Compute,
    Constant,
    Done,
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
    Source,
    Store,
    Unknown,
    Xtables,
)

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
        return MarkBits(session, zeros, ones, depends)


_ANY = MarkBits()
_SESSION = MarkBits(session=ALL_BITS, depends=ALL_BITS)


def _constant(value: bytes) -> MarkBits:
    number = _number(value)
    return MarkBits(zeros=~number & ALL_BITS, ones=number)


class Narrowing(enum.Enum):
    """The criteria, besides links, by which a rule picks packets."""

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
class PacketConditions:
    """The conditions that a packet must meet for a rule to act on it."""

    links: tuple[LinkTest, ...] = ()
    narrowings: frozenset[Narrowing] = frozenset()
    destinations: frozenset[bytes] = frozenset()
    """Beginnings of destination addresses."""

    def and_(self, other: PacketConditions) -> PacketConditions:
        """Return both."""
        if other in (self, ANY_PACKET):
            return self
        return PacketConditions(
            links=tuple(dict.fromkeys((*self.links, *other.links))),
            narrowings=self.narrowings | other.narrowings,
            destinations=self.destinations | other.destinations,
        )


ANY_PACKET = PacketConditions()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleEffect:
    """The effect of a rule on the packets that meet its conditions."""

    conditions: PacketConditions = ANY_PACKET
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
    verdict: nft.Verdict | None = None
    """A drop also for a reject."""

    leads_on: bool = False
    """Whether a map says where it jumps."""

    @property
    def jumps_to(self) -> str | None:
        """Return the chain to which the rule leads."""
        return self.verdict.chain if isinstance(self.verdict, (nft.Jump, nft.Goto)) else None


LinkValues = Mapping[str, frozenset[str | int]]
"""The elements of sets of links, by the sets' names."""


def effect_of(expressions: Iterable[Expression], sets: LinkValues) -> RuleEffect:
    """Return the effect of a rule.

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
    sources: dict[int, Source | None] = field(default_factory=dict)
    """What was read into each register; None where something was made of it."""

    masks: dict[int, bytes] = field(default_factory=dict)
    links: list[LinkTest] = field(default_factory=list)
    narrowings: set[Narrowing] = field(default_factory=set)
    destinations: set[bytes] = field(default_factory=set)
    writes: int = 0
    ones: int = 0
    reads: int = 0
    statements: set[str] = field(default_factory=set)
    """Names of those that count, as :class:`RuleEffect` names them."""

    flow_table: str | None = None
    verdict: nft.Verdict | None = None

    def effect(self) -> RuleEffect:
        """Return the effect of the rule."""
        named = self.statements
        return RuleEffect(
            conditions=PacketConditions(
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
            verdict=self.verdict,
            leads_on="leads_on" in named,
        )

    def step(self, expression: Expression) -> None:
        """Take one expression."""
        match expression:
            case Load(register, source):
                self._put(register, _SESSION if source == _SESSION_MARK else _ANY, source)
            case Bitwise(source=source, register=register, mask=mask):
                value = self._bits(source).masked(_number(mask), _number(expression.flip))
                self._put(register, value, self.sources.get(source), mask)
            case Combine(source, register, operation, other, constant):
                second = self._bits(other) if other is not None else _constant(constant)
                self._put(register, self._bits(source).combined(second, operation))
            case Constant(register, value_bytes):
                self._put(register, _constant(value_bytes))
            case Compute(register=register, source=source) | ByteOrder(register=register, source=source):
                self._put(register, MarkBits(depends=self._bits(source).depends))
            case Compare() | CompareRange() | SetUpdate():
                self._compare(expression)
            case SetLookUp():
                self._look_up(expression)
            case Store(target, register):
                self._store(target, self._bits(register))
            case Xtables():
                self._extend(expression)
            case _:
                self._state(expression)

    def _bits(self, register: int | None) -> MarkBits:
        return _ANY if register is None else self.marks.get(register, _ANY)

    def _put(self, register: int, value: MarkBits, source: Source | None = None, mask: bytes = b"") -> None:
        self.marks[register], self.sources[register], self.masks[register] = value, source, mask

    def _write(self, changed: int, ones: int) -> None:
        self.writes |= changed
        self.ones |= ones & changed

    def _compare(self, test: Compare | CompareRange | SetUpdate) -> None:
        self.reads |= self._bits(test.register).depends
        source, mask = self.sources.get(test.register), self.masks.get(test.register, b"")
        if not isinstance(test, Compare) or test.order not in (Order.EQUAL, Order.NOT_EQUAL):
            self.narrowings.add(_narrowing(source))
            return
        is_equal = test.order is Order.EQUAL
        if source in _LINKS:
            values = frozenset({_link_value(source, test.value)})
            self.links.append(LinkTest(source in _INPUTS, values, is_negated=not is_equal))
        elif _narrowing(source) is Narrowing.DESTINATION and is_equal and _is_of_octets(mask):
            self.destinations.add(test.value[: len(mask.rstrip(b"\0"))] if mask else test.value)
        elif not (source == _STATE and not is_equal and _number(mask) & _NEW):
            self.narrowings.add(_narrowing(source))

    def _look_up(self, look_up: SetLookUp) -> None:
        self.reads |= self._bits(look_up.register).depends
        sources = {one for register, one in self.sources.items() if register >= look_up.register}
        source = next(iter(sources)) if len(sources) == 1 else None
        values = self.sets.get(look_up.name)
        if look_up.is_map:
            self.statements.add("leads_on")
        if source in _LINKS and values is not None and not look_up.is_map:
            self.links.append(LinkTest(source in _INPUTS, values, look_up.is_negated))
        else:
            self.narrowings.update(map(_narrowing, sources or {source}))
        if look_up.target is not None:
            self._put(look_up.target, _ANY)

    def _store(self, target: Source, value: MarkBits) -> None:
        match target:
            case Key("ct", 3):
                self._write(value.changed, value.ones)
            case Key("ct", 17):
                self.statements.add("zone")
            case _:
                self.reads |= value.depends

    def _state(self, statement: Done | Offload | Unknown) -> None:
        match statement:
            case nft.Accept() | nft.Drop() | nft.Goto() | nft.Jump() | nft.Return():
                self.verdict = statement
            case Reject():
                self.verdict = nft.Drop()
            case Offload(flow_table):
                self.flow_table = flow_table
            case Unknown("notrack" | "synproxy" as name):
                self.statements.add(name)
            case Unknown("fwd" | "dup"):
                self.statements.add("sends_elsewhere")
            case nft.Limit() | NamedStatement("limit") | Unknown("quota" | "connlimit"):
                self.narrowings.add(Narrowing.OTHER)
            case nft.Count() | nft.Log() | NamedStatement() | Unknown():
                pass
            case _:
                assert_never(statement)

    def _extend(self, extension: Xtables) -> None:
        if extension.is_target:
            self._target(extension)
        elif extension.name == "connmark":
            self.reads |= _word(extension.argument, 1)
            self.narrowings.add(Narrowing.OTHER)
        elif extension.name in _PORT_MATCHES:
            self.narrowings.add(Narrowing.PROTOCOL)
        elif extension.name != "comment":
            self.narrowings.add(Narrowing.OTHER)

    def _target(self, target: Xtables) -> None:
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
            case "DROP" | "REJECT":
                self.verdict = nft.Drop()
            case "ACCEPT":
                self.verdict = nft.Accept()
            case "TEE":
                self.statements.add("sends_elsewhere")
            case _:
                pass

    def _connmark(self, target: Xtables) -> None:
        """Take ``--set-mark``, ``--save-mark`` or ``--restore-mark``, as xt_connmark.h declares it."""
        ours, mask, of_packet = (_word(target.argument, place) for place in range(3))
        mode = target.argument[_MODE_AT[min(target.revision, 2)] :][:1]
        if mode == _SET_MARK:
            self._write(mask | ours, ours)
        elif mode == _SAVE_MARK:
            self._write(mask | of_packet, 0)
        elif mode == _RESTORE_MARK:
            self.reads |= mask


_STATE, _SESSION_MARK = Key("ct", 0), Key("ct", 3)
_INDEXES = frozenset({Key("meta", 4), Key("meta", 5)})
_INPUTS = frozenset({Key("meta", 4), Key("meta", 6)})
_LINKS = _INPUTS | {Key("meta", 5), Key("meta", 7)}
_PROTOCOLS = frozenset({Key("meta", 1), Key("meta", 15), Key("meta", 16)})
"""Of either layer."""

_PROTOCOL_AT = frozenset({6, 9})
_ADDRESS_AT = {
    12: Narrowing.SOURCE,
    16: Narrowing.DESTINATION,
    8: Narrowing.SOURCE,
    24: Narrowing.DESTINATION,
}
"""Where the headers of both families have them."""


def _narrowing(source: Source | None) -> Narrowing:
    """Return the criterion by which a comparison picks packets."""
    match source:
        case PacketBytes(Base.TRANSPORT):
            return Narrowing.PROTOCOL
        case PacketBytes(Base.NETWORK, offset, 1) if offset in _PROTOCOL_AT:
            return Narrowing.PROTOCOL
        case PacketBytes(Base.NETWORK, offset, length) if (offset, length) != _TTL:
            return _ADDRESS_AT.get(offset, Narrowing.OTHER)
        case _:
            return Narrowing.PROTOCOL if source in _PROTOCOLS else Narrowing.OTHER


_TTL = (8, 1)
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


def _link_value(source: Source | None, value: bytes) -> str | int:
    """Return the link's name or number in a comparison."""
    return _number(value) if source in _INDEXES else _name(value)


def link_value(value: bytes) -> str | int:
    """Return the link that an element of a set means: by its index, or by its name."""
    return _number(value) if len(value) == _WORD_OCTETS else _name(value)


def _name(value: bytes) -> str:
    """Return a name as rules hold it; one that does not end is a prefix."""
    name, end, _ = value.partition(b"\0")
    return name.decode("utf-8", "backslashreplace") + ("" if end or len(value) >= _NAME_OCTETS else "*")


_WORD_OCTETS, _NAME_OCTETS = 4, 16
