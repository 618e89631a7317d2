"""Faults in programs of rules: conditions more, fields changed, instructions gone or twice.

They are made of bytes as netlink has them, so that no notation has to know them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sgagent.nft.attributes import each
from tests import bytecode as b
from tests.draws import Draws

_NESTED = {("cmp", 3), ("range", 3), ("range", 4), ("bitwise", 4), ("bitwise", 5), ("immediate", 2)}
Rule = tuple[bytes, ...]
"""The instructions of a rule, each as it stands in the list of them."""

CONDITIONS: tuple[bytes, ...] = (
    *(b.ct(7) + b.compare(bytes((family,))) for family in (2, 10)),
    *(b.meta(15) + b.compare(bytes((family,)), order) for family in (2, 10) for order in (0, 1)),
    *(b.meta(8) + b.compare(struct.pack("=H", kind)) for kind in (1, 772)),
    *(b.meta(1) + b.compare(kind) for kind in (b"\x08\0", b"\x86\xdd")),
    *(b.payload(b.LINK, 12, 2) + b.compare(kind) for kind in (b"\x08\0", b"\x86\xdd")),
    *(b.meta(16) + b.compare(bytes((number,))) for number in (1, 6, 17, 51, 58)),
    *(b.ct(10) + b.compare(bytes((number,))) for number in (6, 17)),
    *(b.ct(1) + b.compare(bytes((way,))) for way in (0, 1)),
    b.ct(2) + b.mask(struct.pack("=I", 2)) + b.compare(bytes(4), b.NOT_EQUAL),
    b.payload(b.NETWORK, 9, 1) + b.compare(b"\x06"),
    b.payload(b.NETWORK, 6, 1) + b.compare(b"\x06"),
    b.payload(b.TRANSPORT, 2, 2) + b.compare(b"\0\x50"),
    b.expression("limit", *(b.attribute(kind, bytes(7) + b"\x01") for kind in (1, 2)), b.number(3, 5)),
)
"""What a rule may ask besides; nft takes many of these for implied by what else it reads, and hides them."""


INNER = b.expression(
    "inner",
    *(b.number(1, 0), b.number(2, 1), b.number(3, 0xF), b.number(4, 8)),
    b.nested(5, b.name(1, "payload"), b.nested(2, *(b.number(kind, kind) for kind in range(1, 5)))),
)
"""A read of what is within a VXLAN tunnel."""


def with_condition(rule: Rule, place: int, condition: bytes) -> Rule:
    """Return a rule with a condition more."""
    return (*rule[:place], *split(condition), *rule[place:])


def split(expressions: bytes) -> Rule:
    """Return instructions one by one."""
    return tuple(b.attribute(1 | b.NESTED, expressions[start:stop]) for _, start, stop in each(expressions))


def alterations(rule: Rule, draws: Draws, count: int) -> Iterator[Rule]:
    """Yield so many altered rules."""
    for _ in range(count):
        place = draws.randint(0, len(rule) - 1)
        match draws.randint(0, 9):
            case 0 | 1 | 2:
                yield with_condition(rule, place, draws.choice(CONDITIONS))
            case 3:
                yield (*rule[:place], *draws.choice(((), split(INNER))), *rule[place + 1 :])
            case 4:
                yield (*rule[:place], rule[place], *rule[place:])
            case 5 if place:
                yield (*rule[: place - 1], rule[place], rule[place - 1], *rule[place + 1 :])
            case _:
                yield (*rule[:place], _with_other_field(rule[place], draws), *rule[place + 1 :])


def _with_other_field(expression: bytes, draws: Draws) -> bytes:
    """Return an instruction with another number, text or flag in one of its attributes."""
    given = {kind: expression[start:stop] for kind, start, stop in each(expression, 4)}
    name = given[1].rstrip(b"\0").decode()
    fields = [(kind, given[2][start:stop]) for kind, start, stop in each(given.get(2, b""))]
    if not fields:
        return expression
    chosen = draws.randint(0, len(fields) - 1)
    made = [
        b.attribute(kind, _altered(value, draws, (name, kind)) if place == chosen else value)
        for place, (kind, value) in enumerate(fields)
    ]
    return b.nested(1, b.name(1, name), b.nested(2, *made))


def _altered(value: bytes, draws: Draws, place: tuple[str, int]) -> bytes:
    if place in _NESTED:
        ((kind, start, stop),) = each(value)
        inside = ("verdict", kind) if place == ("immediate", 2) and kind == 2 else ("", 0)
        if inside == ("verdict", 2):
            given = [(one, value[start:stop][first:last]) for one, first, last in each(value[start:stop])]
            chosen = draws.randint(0, len(given) - 1)
            parts = (
                b.attribute(one, _altered(part, draws, ("", 0)) if at == chosen else part)
                for at, (one, part) in enumerate(given)
            )
            return b.nested(kind, *parts)
        return b.attribute(kind, _altered(value[start:stop], draws, inside))
    if not value:
        return value
    at, how = draws.randint(0, len(value) - 1), draws.randint(0, 3)
    match how:
        case 0:
            return value[:at] + bytes((value[at] ^ 1 << draws.randint(0, 7),)) + value[at + 1 :]
        case 1:
            number = int.from_bytes(value, "big") + draws.choice((1, -1))
            return (number % (1 << 8 * len(value))).to_bytes(len(value), "big")
        case 2:
            return value[:-1] if len(value) > 1 and place[0] in ("", "cmp") else value + b"\0"
        case _:
            return bytes(len(value))
