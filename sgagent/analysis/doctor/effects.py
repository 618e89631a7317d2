"""The effect of one rule of another table: an abstract run of its program over registers."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from sgagent.analysis.doctor.conditions import (
    ANY_PACKET,
    BY_WAY_BACK,
    LINKS,
    OTHERWISE,
    SHARE,
    SHARES,
    Narrowing,
    PacketConditions,
    compared,
    narrowed,
    of_links,
    source_of,
)
from sgagent.analysis.doctor.mark_bits import ANY_BITS, SESSION_BITS, MarkBits, constant_bits, number, one_of
from sgagent.analysis.doctor.verdict_maps import WORD_OCTETS, Branch, KeyField, branches_of
from sgagent.nft import ruleset as nft
from sgagent.nft.expressions import (
    Base,
    Bitwise,
    ByteOrder,
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
    Store,
    Unknown,
    ValueSource,
    Xtables,
)
from sgagent.nft.sets import DYNAMIC, KernelSet


class End(enum.Enum):
    """An end of a packet's way: its address or port."""

    SOURCE = "source"
    DESTINATION = "destination"


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
    """Whether it forwards or duplicates packets to another link or host."""

    tproxy: bool = False
    timeout: bool = False
    """Whether it gives sessions another timeout."""

    tracks: bool = False
    """Whether it reads or writes what conntrack knows: it follows all packets of the rule's family then."""

    rewrites: frozenset[End] = frozenset()
    """The ends of packets that it writes, without conntrack."""

    flow_table: str | None = None
    verdict: nft.Verdict | None = None
    """A drop also for a reject."""

    leads_on: bool = False
    """Whether a map that is not known, or that packets fill, says where it jumps."""

    branches: tuple[Branch, ...] = ()
    """Of a map of verdicts, as far as it is known."""

    def spread(self) -> Iterator[RuleEffect]:
        """Yield the effect of the rule, and of each branch."""
        yield self
        for one in self.branches:
            yield RuleEffect(conditions=self.conditions.and_(one.conditions), verdict=one.verdict)

    @property
    def jumps_to(self) -> str | None:
        """Return the chain to which the rule leads."""
        return self.verdict.chain if isinstance(self.verdict, (nft.Jump, nft.Goto)) else None


def effect_of(expressions: Iterable[Expression], sets: Mapping[str, KernelSet]) -> RuleEffect:
    """Return the effect of a rule.

    Args:
        expressions: of the rule.
        sets: those of its table, by their names.
    """
    run = _Run(sets)
    for expression in expressions:
        run.step(expression)
    return run.effect()


@dataclass(slots=True)
class _Run:
    """The state of a run."""

    sets: Mapping[str, KernelSet]
    marks: dict[int, MarkBits] = field(default_factory=dict)
    sources: dict[int, ValueSource | None] = field(default_factory=dict)
    """What was read into each register; None where something was made of it."""

    masks: dict[int, bytes] = field(default_factory=dict)
    conditions: PacketConditions = ANY_PACKET
    branches: tuple[Branch, ...] = ()
    rewrites: set[End] = field(default_factory=set)
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
            conditions=self.conditions,
            writes=self.writes,
            sets=self.ones,
            reads=self.reads,
            zone="zone" in named,
            notrack="notrack" in named,
            synproxy="synproxy" in named,
            sends_elsewhere="sends_elsewhere" in named,
            tproxy="tproxy" in named,
            timeout="timeout" in named,
            tracks="tracks" in named,
            rewrites=frozenset(self.rewrites),
            flow_table=self.flow_table,
            verdict=self.verdict,
            leads_on="leads_on" in named,
            branches=self.branches,
        )

    def step(self, expression: Expression) -> None:
        """Take one expression."""
        match expression:
            case Load(register, source):
                if _is_of_session(source):
                    self.statements.add("tracks")
                self._put(register, SESSION_BITS if source == _SESSION_MARK else ANY_BITS, source)
            case Bitwise(source=source, register=register, mask=mask):
                value = self._bits(source).masked(number(mask), number(expression.flip))
                self._put(register, value, self.sources.get(source), mask)
            case Combine(source, register, operation, other, constant):
                second = self._bits(other) if other is not None else constant_bits(constant)
                self._put(register, self._bits(source).combined(second, operation))
            case Constant(register, value_bytes):
                self._put(register, constant_bits(value_bytes))
            case Compute(register=register, source=source):
                depends = MarkBits(depends=self._bits(source).depends)
                self._put(register, depends, source_of(expression))
            case ByteOrder(register=register, source=source):
                kept = self.sources.get(source)
                share = kept if kept in SHARES else None
                self._put(register, MarkBits(depends=self._bits(source).depends), share)
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
        return ANY_BITS if register is None else self.marks.get(register, ANY_BITS)

    def _put(
        self, register: int, value: MarkBits, source: ValueSource | None = None, mask: bytes = b""
    ) -> None:
        self.marks[register], self.sources[register], self.masks[register] = value, source, mask

    def _write(self, changed: int, ones: int) -> None:
        self.writes |= changed
        self.ones |= ones & changed

    def _narrow(self, conditions: PacketConditions) -> None:
        self.conditions = self.conditions.and_(conditions)

    def _compare(self, test: Compare | CompareRange | SetUpdate) -> None:
        self.reads |= self._bits(test.register).depends
        source, mask = self.sources.get(test.register), self.masks.get(test.register, b"")
        if isinstance(test, Compare) and test.order in (Order.EQUAL, Order.NOT_EQUAL):
            self._narrow(compared(source, test.value, mask, is_equal=test.order is Order.EQUAL))
        else:
            self._narrow(narrowed(source))

    def _look_up(self, look_up: SetLookUp) -> None:
        self.reads |= self._bits(look_up.register).depends
        known = self.sets.get(look_up.name)
        fields = tuple(self._fields(look_up.register, known.key_length if known else _LONGEST_KEY))
        if look_up.is_map and (known is None or known.flags & DYNAMIC):
            self.statements.add("leads_on")
        if known is not None and known.is_verdict_map:
            self.branches = branches_of(known, fields)
        elif known is not None and known.is_of_links and [one.source in LINKS for one in fields] == [True]:
            keys = [entry.key for entry in known.entries]
            self._narrow(of_links(fields[0].source, keys, is_negated=look_up.is_negated))
        else:
            for source in [one.source for one in fields] or [None]:
                self._narrow(narrowed(source))
        if look_up.target is not None:
            self._put(look_up.target, one_of(known.values if known else ()))

    def _fields(self, register: int, length: int) -> Iterator[KeyField]:
        """Yield the fields of a key, by what was put into its registers."""
        place = 0
        while place < length:
            here = register + place // WORD_OCTETS
            one = KeyField(place, self.sources.get(here), self.masks.get(here, b""))
            if here in self.sources:
                yield one
            place += one.octets

    def _store(self, target: ValueSource, value: MarkBits) -> None:
        if _is_of_session(target):
            self.statements.add("tracks")
        match target:
            case Key("ct", 3):
                self._write(value.changed, value.ones | value.at_times)
            case Key("ct", 17):
                self.statements.add("zone")
            case _:
                self.reads |= value.depends
                if isinstance(target, PacketBytes):
                    self.rewrites.update(_ends_within(target))

    def _state(self, statement: Done | Offload | Unknown) -> None:
        match statement:
            case nft.Accept() | nft.Drop() | nft.Goto() | nft.Jump() | nft.Return():
                self.verdict = statement
            case Reject():
                self.verdict = nft.Drop()
            case Offload(flow_table):
                self.flow_table = flow_table
            case Unknown("notrack" | "synproxy" | "tproxy" as name):
                self.statements.add(name)
            case Unknown("ct timeout"):
                self.statements.add("timeout")
            case Unknown("fwd" | "dup"):
                self.statements.add("sends_elsewhere")
            case nft.Limit() | NamedStatement("limit") | Unknown("quota" | "connlimit"):
                self._narrow(SHARE)
            case nft.Count() | nft.Log() | NamedStatement() | Unknown():
                pass
            case _:
                assert_never(statement)

    def _extend(self, extension: Xtables) -> None:
        if extension.is_target:
            self._target(extension)
        elif extension.name == "connmark":
            self.reads |= _word(extension.argument, 1)
            self._narrow(OTHERWISE)
        elif extension.name == "rpfilter":
            is_strict = extension.argument[:1] and extension.argument[0] & _LOOSE_OR_INVERTED == _INVERTED
            self._narrow(BY_WAY_BACK if is_strict else OTHERWISE)
        elif extension.name != "comment":
            self._narrow(_MATCHES.get(extension.name, OTHERWISE))

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
            case "NOTRACK" | "SYNPROXY" | "TPROXY":
                self.statements.add(target.name.lower())
            case "DROP" | "REJECT":
                self.verdict = nft.Drop()
            case "ACCEPT":
                self.verdict = nft.Accept()
            case "TEE":
                self.statements.add("sends_elsewhere")
            case "SNPT" | "DNPT":
                self.rewrites.add(End.SOURCE if target.name == "SNPT" else End.DESTINATION)
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


def _is_of_session(source: ValueSource) -> bool:
    return isinstance(source, Key) and source.kind == "ct"


_LONGEST_KEY = 64
_SESSION_MARK = Key("ct", 3)
_PORTS = PacketConditions(narrowings=frozenset({Narrowing.PROTOCOL}))
_MATCHES = {
    **dict.fromkeys(("tcp", "udp", "sctp", "multiport"), _PORTS),
    **dict.fromkeys(("limit", "hashlimit", "connlimit", "quota", "recent", "statistic", "time"), SHARE),
}
_LOOSE_OR_INVERTED, _INVERTED = 9, 8
"""Flags of rpfilter."""

_FLAGS_AND_ZONE = struct.Struct("=HH")
_NOTRACK, _ZONE_OF_MARK = 0b11, 0b10000
_MODE_AT = (12, 12, 14)
"""Where each revision of CONNMARK has its mode."""

_SET_MARK, _SAVE_MARK, _RESTORE_MARK = b"\0", b"\1", b"\2"


def _word(argument: bytes, place: int) -> int:
    return number(argument[4 * place : 4 * place + 4])


def _ends_within(written: PacketBytes) -> Iterator[End]:
    """Yield the ends of which bytes hold a part."""
    for end, (first, stop) in _ENDS.get((written.base, written.length >= _V6_OCTETS), {}).items():
        if written.offset < stop and first < written.offset + written.length:
            yield end


_V6_OCTETS = 16
_PORTS_AT = {End.SOURCE: (0, 2), End.DESTINATION: (2, 4)}
_ENDS = {
    (Base.TRANSPORT, False): _PORTS_AT,
    (Base.TRANSPORT, True): _PORTS_AT,
    (Base.NETWORK, False): {End.SOURCE: (12, 16), End.DESTINATION: (16, 40)},
    (Base.NETWORK, True): {End.SOURCE: (8, 24), End.DESTINATION: (24, 40)},
}
"""Where headers have them; nft writes addresses of IPv6 whole."""
