"""Tables as netlink has them, put together by hand: also what no version of nft writes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NESTED = 0x8000
NEW_TABLE, NEW_CHAIN, NEW_RULE, NEW_SET, NEW_ELEMENTS, NEW_OBJECT, NEW_FLOW_TABLE = 0, 3, 6, 9, 12, 18, 22
INET, IP = 1, 2
ACCEPT, DROP, JUMP, GOTO, RETURN, CONTINUE = 1, 0, -3, -4, -5, -1
LINK, NETWORK, TRANSPORT = 0, 1, 2
EQUAL, NOT_EQUAL, LESS, AT_MOST, GREATER, AT_LEAST = range(6)


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute with its padding."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *values: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | NESTED, b"".join(values))


def number(kind: int, value: int) -> bytes:
    """Return an attribute that is a number."""
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def name(kind: int, value: str) -> bytes:
    """Return an attribute that is a text."""
    return attribute(kind, value.encode() + b"\0")


def expression(kind: str, *values: bytes) -> bytes:
    """Return an instruction of a rule."""
    return nested(1, name(1, kind), nested(2, *values))


def meta(key: int, register: int = 1) -> bytes:
    """Return the load of something that the kernel knows of a packet."""
    return expression("meta", number(1, register), number(2, key))


def ct(key: int, direction: int | None = None, register: int = 1) -> bytes:
    """Return the load of something of a session."""
    side = b"" if direction is None else attribute(3, bytes((direction,)))
    return expression("ct", number(1, register), number(2, key), side)


def extension(header: int, register: int = 1) -> bytes:
    """Return the load of whether an extension header of IPv6 is there."""
    asked = (number(3, 0), number(4, 1), number(5, 1), number(6, 0))
    return expression("exthdr", number(1, register), attribute(2, bytes((header,))), *asked)


def payload(base: int, offset: int, length: int, register: int = 1) -> bytes:
    """Return the load of bytes of a packet."""
    return expression("payload", number(1, register), number(2, base), number(3, offset), number(4, length))


def compare(value: bytes, order: int = EQUAL, register: int = 1) -> bytes:
    """Return a comparison of a register."""
    return expression("cmp", number(1, register), number(2, order), nested(3, attribute(1, value)))


def within(first: bytes, last: bytes, *, negated: bool = False, register: int = 1) -> bytes:
    """Return a comparison with two ends."""
    ends = nested(3, attribute(1, first)), nested(4, attribute(1, last))
    return expression("range", number(1, register), number(2, negated), *ends)


def mask(bits: bytes, flip: bytes | None = None, register: int = 1) -> bytes:
    """Return what cuts bits of a register, and flips some."""
    parts = nested(4, attribute(1, bits)), nested(5, attribute(1, flip or bytes(len(bits))))
    return expression("bitwise", number(1, register), number(2, register), number(3, len(bits)), *parts)


def swap(length: int, register: int = 1) -> bytes:
    """Return what changes between the byte orders."""
    return expression(
        "byteorder", *(number(kind, it) for kind, it in enumerate((register, register, 1, length, length), 1))
    )


def look_up(where: str, *, is_map: bool = False, negated: bool = False, register: int = 1) -> bytes:
    """Return a look-up in a set, or in a map of verdicts."""
    target = number(3, 0) if is_map else b""
    return expression("lookup", name(1, where), number(2, register), target, number(5, negated))


def verdict(code: int, chain: str | None = None) -> bytes:
    """Return a verdict."""
    return expression("immediate", number(1, 0), nested(2, verdict_data(code, chain)))


def verdict_data(code: int, chain: str | None = None) -> bytes:
    """Return the data of a verdict."""
    return nested(2, number(1, code), b"" if chain is None else name(2, chain))


def constant(value: bytes, register: int = 1) -> bytes:
    """Return what puts bytes into a register."""
    return expression("immediate", number(1, register), nested(2, attribute(1, value)))


def set_mark(register: int = 1) -> bytes:
    """Return the change of a session's mark."""
    return expression("ct", number(2, 3), number(4, register))


def count(counter: str) -> bytes:
    """Return what counts by a named counter."""
    return expression("objref", number(1, 1), name(2, counter))


def element(key: bytes, *beside: bytes, verdict_of: bytes = b"") -> bytes:
    """Return an element."""
    return nested(1, nested(1, attribute(1, key)), nested(2, verdict_of) if verdict_of else b"", *beside)


INTERVAL_END = number(3, 1)


def comment(text: str) -> bytes:
    """Return user data with a comment."""
    content = text.encode() + b"\0"
    return bytes((0, len(content))) + content


@dataclass(slots=True)
class Dump:
    """Messages about a table."""

    table: str = "sgagent"
    family: int = INET
    messages: list[bytes] = field(default_factory=list)

    def add(self, kind: int, *values: bytes, named: int = 1) -> Dump:
        """Add a message, and return all."""
        content = struct.pack("=BBH", self.family, 0, 0) + name(named, self.table) + b"".join(values)
        head = struct.pack("=IHHII", 16 + len(content), 10 << 8 | kind, 0, 0, 0)
        self.messages.append(head + content + bytes(-len(content) % 4))
        return self

    def declare(self, flags: int = 0) -> Dump:
        """Add the table itself."""
        return self.add(NEW_TABLE, number(2, flags))

    def chain(self, called: str, *beside: bytes) -> Dump:
        """Add a chain."""
        return self.add(NEW_CHAIN, name(3, called), *beside)

    def base(
        self, called: str, *, hook: int = 0, priority: int = -150, policy: int = 1, kind: str = "filter"
    ) -> Dump:
        """Add a base chain."""
        where = nested(4, number(1, hook), number(2, priority))
        return self.chain(called, where, number(5, policy), name(7, kind), number(10, 1))

    def rule(self, chain: str, *expressions: bytes, beside: bytes = b"") -> Dump:
        """Add a rule."""
        return self.add(NEW_RULE, name(2, chain), nested(4, *expressions), beside)

    def set_of(
        self, called: str, length: int, *, flags: int = 0, key_type: int = 0, beside: Iterable[bytes] = ()
    ) -> Dump:
        """Add a set; with the flag of one, a map of verdicts."""
        leads = (number(6, 0xFFFFFF00), number(7, 0)) if flags & 8 else ()
        return self.add(
            NEW_SET,
            name(2, called),
            number(3, flags),
            number(4, key_type),
            number(5, length),
            *leads,
            *beside,
        )

    def elements(self, called: str, *given: bytes) -> Dump:
        """Add elements of a set."""
        return self.add(NEW_ELEMENTS, name(2, called), nested(3, *given))

    def flow_table(self, called: str, *devices: str) -> Dump:
        """Add a flow table; devices whose names end in ``*`` are prefixes."""
        names = (name(2 if one.endswith("*") else 1, one.rstrip("*")) for one in devices)
        return self.add(NEW_FLOW_TABLE, name(2, called), nested(3, nested(3, *names)))

    def counter(self, called: str, *beside: bytes) -> Dump:
        """Add a counter."""
        return self.add(NEW_OBJECT, name(2, called), number(3, 1), *beside)

    @property
    def content(self) -> bytes:
        """Return all messages."""
        return b"".join(self.messages)


def table_with(*expressions: bytes, others: Sequence[str] = ()) -> Dump:
    """Return a table with one rule in a chain ``a``."""
    dump = Dump().declare()
    for other in ("a", *others):
        dump.chain(other)
    return dump.rule("a", *expressions)
