"""The tables of others as values, from the kernel's messages: programs of rules over registers, no listing.

A listing leaves out what libnftables takes for implied, and the arguments of iptables' extensions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from sgagent.analysis.doctor import ruleset as doctor
from sgagent.analysis.doctor.ruleset import End, Expression, ForeignRuleset, Operand, Operation, TableKey
from sgagent.dataplane.ruleset_dump import (
    FAMILIES,
    HEADER,
    NEW_CHAIN,
    NEW_ELEMENTS,
    NEW_FLOW_TABLE,
    NEW_RULE,
    NEW_TABLE,
)
from sgagent.netlink import attribute, attributes, messages_in
from sgagent.nft.ruleset import FAMILY, TABLE

_NUMBER, _LONG, _SIGNED = struct.Struct(">I"), struct.Struct(">Q"), struct.Struct(">i")
_OURS = TableKey(FAMILY, TABLE)
_DORMANT, _OWNED, _PERSISTENT = 1, 2, 4
_LIST_ENTRY = 1
_TABLE_NAME, _TABLE_FLAGS = 1, 2

Attributes = Mapping[int, memoryview]


def decode_ruleset(received: bytes) -> ForeignRuleset:
    """Return the tables that the kernel's messages tell of; what is cut off or not known is left out."""
    found = _Found()
    for message in messages_in(received):
        read = _READERS.get(message.kind)
        if read is not None and len(message.payload) >= HEADER.size:
            (family, _, _) = HEADER.unpack_from(message.payload)
            read(found, family, attributes(message.payload[HEADER.size :]))
    return ForeignRuleset(
        chains=tuple(one for one in found.chains if one.table not in found.dormant),
        rules=tuple(one for one in found.rules if one.table not in found.dormant),
        link_sets=tuple(found.link_sets),
        flow_tables=tuple(one for one in found.flow_tables if one.table not in found.dormant),
        own=found.own,
    )


@dataclass(slots=True)
class _Found:
    """What was read so far."""

    chains: list[doctor.ForeignChain] = field(default_factory=list)
    rules: list[doctor.ForeignRule] = field(default_factory=list)
    link_sets: list[doctor.ForeignSet] = field(default_factory=list)
    flow_tables: list[doctor.FlowTable] = field(default_factory=list)
    dormant: set[TableKey] = field(default_factory=set)
    own: doctor.OwnTable | None = None

    def table(self, family: int, found: Attributes) -> None:
        """Take a table."""
        key, flags = _key(family, found.get(_TABLE_NAME)), _number(found.get(_TABLE_FLAGS))
        if key == _OURS:
            self.own = doctor.OwnTable(is_owned=bool(flags & _OWNED), is_persistent=bool(flags & _PERSISTENT))
        elif flags & _DORMANT:
            self.dormant.add(key)

    def chain(self, family: int, found: Attributes) -> None:
        """Take a chain."""
        key = _key(family, found.get(1))
        if key == _OURS:
            return
        hook = attributes(found[4]) if 4 in found else None
        number = None if hook is None else _number(hook.get(1))
        self.chains.append(
            doctor.ForeignChain(
                table=key,
                name=_text(found.get(3)),
                hook=None if number is None else _hook_name(key.family, number),
                priority=_signed((hook or {}).get(2)),
                drops=hook is not None and 5 in found and not _number(found[5]),
                devices=tuple(_devices(hook or {}, one=3, several=4)),
            )
        )

    def rule(self, family: int, found: Attributes) -> None:
        """Take a rule."""
        self.rules.append(
            doctor.ForeignRule(
                table=_key(family, found.get(1)),
                chain=_text(found.get(2)),
                handle=int(_LONG.unpack(found[3])[0]) if len(found.get(3, b"")) == _LONG.size else 0,
                expressions=tuple(_expressions(found.get(4, _EMPTY))),
            )
        )

    def elements(self, family: int, found: Attributes) -> None:
        """Take elements of a set of links; a set of many comes in several messages."""
        keys = (attributes(element).get(1) for element in _list(found.get(3, _EMPTY)))
        values = (attributes(key).get(1) for key in keys if key is not None)
        self.link_sets.append(
            doctor.ForeignSet(
                table=_key(family, found.get(1)),
                name=_text(found.get(2)),
                elements=tuple(bytes(value) for value in values if value is not None),
            )
        )

    def flow_table(self, family: int, found: Attributes) -> None:
        """Take a flow table."""
        hook = attributes(found.get(3, _EMPTY))
        self.flow_tables.append(
            doctor.FlowTable(
                table=_key(family, found.get(1)),
                name=_text(found.get(2)),
                devices=tuple(_devices(hook, one=0, several=3)),
            )
        )


_READERS: Mapping[int, Callable[[_Found, int, Attributes], None]] = {
    NEW_TABLE: _Found.table,
    NEW_CHAIN: _Found.chain,
    NEW_RULE: _Found.rule,
    NEW_ELEMENTS: _Found.elements,
    NEW_FLOW_TABLE: _Found.flow_table,
}
_EMPTY = memoryview(b"")


def _key(family: int, name: memoryview | None) -> TableKey:
    return TableKey(FAMILIES.get(family, str(family)), _text(name))


def _text(value: memoryview | None) -> str:
    """Return a name; bytes that are no text become escapes."""
    return bytes(value or b"").partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _number(value: memoryview | None) -> int:
    """Return a number of 32 bits; 0 for anything else."""
    return int(_NUMBER.unpack(value)[0]) if value is not None and len(value) == _NUMBER.size else 0


def _signed(value: memoryview | None) -> int:
    return int(_SIGNED.unpack(value)[0]) if value is not None and len(value) == _SIGNED.size else 0


def _list(value: memoryview) -> Iterator[memoryview]:
    """Yield the entries of a list, which all have one kind."""
    place = 0
    while place + 4 <= len(value):
        length, kind = struct.unpack_from("=HH", value, place)
        if length < 4:
            return
        if kind & 0x3FFF == _LIST_ENTRY:
            yield value[place + 4 : place + length]
        place += length + 3 & ~3


_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_HOOKS_OF_LINKS = ("ingress", "egress")


def _hook_name(family: str, number: int) -> str:
    names = _HOOKS_OF_LINKS if family == "netdev" else _HOOKS
    return names[number] if number < len(names) else str(number)


def _devices(hook: Attributes, *, one: int, several: int) -> Iterator[str]:
    """Yield the names of a hook's devices; those that are prefixes end in ``*``."""
    if one in hook and one:
        yield _text(hook[one])
    place, value = 0, hook.get(several, _EMPTY)
    while place + 4 <= len(value):
        length, kind = struct.unpack_from("=HH", value, place)
        if length < 4:
            return
        yield _text(value[place + 4 : place + length]) + "*" * (kind & 0x3FFF == _DEVICE_PREFIX)
        place += length + 3 & ~3


_DEVICE_PREFIX = 2


def _expressions(value: memoryview) -> Iterator[Expression]:
    """Yield the expressions of a rule; a counter, which differs from rule to rule, says nothing."""
    for entry in _list(value):
        text = bytes(entry)
        if not text.startswith(_COUNTER):
            yield _expression(text)


_COUNTER = attribute(1, b"counter\0")


@lru_cache(maxsize=2_000)
def _expression(text: bytes) -> Expression:
    """Return an expression; most rules of a host are made of the same."""
    found = attributes(memoryview(text))
    name, data = _text(found.get(1)), attributes(found.get(2, _EMPTY))
    read = _OF_NAME.get(name)
    return doctor.Statement(name) if read is None else read(data)


def _register(value: memoryview | None) -> int:
    """Return the first 32-bit register of a register; the verdict's is -1."""
    number = _number(value)
    if number >= _FIRST_OF_32_BITS:
        return number - _FIRST_OF_32_BITS
    return 4 * (number - 1) if number else -1


_FIRST_OF_32_BITS = 8

_META = {
    3: Operand.PACKET_MARK,
    4: Operand.INPUT_INDEX,
    5: Operand.OUTPUT_INDEX,
    6: Operand.INPUT_NAME,
    7: Operand.OUTPUT_NAME,
    1: Operand.PROTOCOL,
    15: Operand.PROTOCOL,
    16: Operand.PROTOCOL,
}
_CT = {0: Operand.STATE, 3: Operand.SESSION_MARK, 17: Operand.ZONE}


def _meta(data: Attributes) -> Expression:
    operand = _META.get(_number(data.get(2)), Operand.OTHER)
    if 3 in data:
        return doctor.Store(operand, _register(data[3]))
    return doctor.Load(operand, _register(data.get(1)))


def _ct(data: Attributes) -> Expression:
    operand = _CT.get(_number(data.get(2)), Operand.OTHER)
    if 4 in data:
        return doctor.Store(operand, _register(data[4]))
    return doctor.Load(operand, _register(data.get(1)))


_NETWORK, _TRANSPORT = 1, 2
_ADDRESS_AT = {12: Operand.SOURCE, 16: Operand.DESTINATION, 8: Operand.SOURCE, 24: Operand.DESTINATION}
_PROTOCOL_AT = frozenset({6, 9})


def _payload(data: Attributes) -> Expression:
    if 5 in data:
        return doctor.Store(Operand.OTHER, _register(data[5]))
    base, place, length = (_number(data.get(kind)) for kind in (2, 3, 4))
    operand = Operand.OTHER
    if base == _TRANSPORT:
        operand = Operand.PORT
    elif base == _NETWORK and place in _PROTOCOL_AT and length == 1:
        operand = Operand.PROTOCOL
    elif base == _NETWORK and not (place == 8 and length == 1):
        operand = _ADDRESS_AT.get(place, Operand.OTHER)
    return doctor.Load(operand, _register(data.get(1)))


def _value(data: memoryview | None) -> bytes:
    return bytes(attributes(data or _EMPTY).get(1, b""))


_MASK_AND_XOR = 0
_OPERATIONS = {
    1: Operation.SHIFT,
    2: Operation.SHIFT,
    3: Operation.AND,
    4: Operation.OR,
    5: Operation.XOR,
}


def _bitwise(data: Attributes) -> Expression:
    source, register, number = _register(data.get(1)), _register(data.get(2)), _number(data.get(6))
    if number == _MASK_AND_XOR:
        return doctor.Bitwise(source, register, _value(data.get(4)), _value(data.get(5)))
    operation = _OPERATIONS.get(number)
    if operation is None:
        return doctor.Compute(register, source)
    other = _register(data[8]) if 8 in data else None
    return doctor.Combine(source, register, operation, other, _value(data.get(7)))


_EQUAL, _UNEQUAL = 0, 1


def _compare(data: Attributes) -> Expression:
    operator = _number(data.get(2))
    register, value = _register(data.get(1)), _value(data.get(3))
    return doctor.Compare(register, operator == _EQUAL, value, operator in {_EQUAL, _UNEQUAL})


def _range(data: Attributes) -> Expression:
    return doctor.Compare(_register(data.get(1)), not _number(data.get(2)), b"", is_exact=False)


def _look_up(data: Attributes) -> Expression:
    leads_on = 3 in data and not _number(data[3])
    return doctor.LookUp(
        register=_register(data.get(2)),
        set_name=_text(data.get(1)),
        is_inverted=bool(_number(data.get(5))),
        target=_register(data[3]) if 3 in data and not leads_on else None,
        leads_on=leads_on,
    )


_ENDS = {0: End.DROP, 1: End.ACCEPT, -3: End.JUMP, -4: End.JUMP}


def _immediate(data: Attributes) -> Expression:
    value = attributes(data.get(2, _EMPTY))
    if 2 not in value:
        return doctor.Put(_register(data.get(1)), bytes(value.get(1, b"")))
    verdict = attributes(value[2])
    end = _ENDS.get(_signed(verdict.get(1)), End.OTHER)
    return doctor.GiveVerdict(end, _text(verdict[2]) if 2 in verdict else None)


def _extension(data: Attributes, *, is_target: bool) -> Expression:
    if is_target and _text(data.get(1)) in {"DROP", "ACCEPT"}:
        return doctor.GiveVerdict(End[_text(data.get(1))])
    return doctor.Extension(is_target, _text(data.get(1)), _number(data.get(2)), bytes(data.get(3, b"")))


def _computed(data: Attributes) -> Expression:
    """Return what numgen, fib and others put into their first attribute."""
    return doctor.Compute(_register(data.get(1)))


def _converted(data: Attributes) -> Expression:
    """Return what hash and byteorder make of their first attribute."""
    return doctor.Compute(_register(data.get(2)), _register(data.get(1)))


def _dynamic(data: Attributes) -> Expression:
    """Return what depends on the key that a rule adds to a set."""
    return doctor.Compare(_register(data.get(4)), is_equal=True, value=b"", is_exact=False)


_OF_NAME: Mapping[str, Callable[[Attributes], Expression]] = {
    "meta": _meta,
    "ct": _ct,
    "payload": _payload,
    "bitwise": _bitwise,
    "cmp": _compare,
    "range": _range,
    "lookup": _look_up,
    "immediate": _immediate,
    "match": lambda data: _extension(data, is_target=False),
    "target": lambda data: _extension(data, is_target=True),
    "flow_offload": lambda data: doctor.Statement("flow_offload", _text(data.get(1))),
    "numgen": _computed,
    "fib": _computed,
    "rt": _computed,
    "socket": _computed,
    "osf": _computed,
    "tunnel": _computed,
    "xfrm": _computed,
    "exthdr": _computed,
    "hash": _converted,
    "byteorder": _converted,
    "dynset": _dynamic,
}
