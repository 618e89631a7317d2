"""The expressions of a rule, the instructions that the kernel runs: bytes to values, one by one.

Each form is exact. An expression with an attribute that is not expected is an :class:`Unknown` one.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from sgagent.nft import ruleset as nft
from sgagent.nft.attributes import UnreadableError, by_kind, each, number, only, text


class Base(enum.IntEnum):
    """Where the offset of a read from a packet begins."""

    LINK = 0
    NETWORK = 1
    TRANSPORT = 2


@dataclass(frozen=True, slots=True)
class PacketBytes:
    """Bytes of a packet, whatever they are."""

    base: Base
    offset: int
    length: int

    def __str__(self) -> str:
        """Return it as nft writes a raw payload."""
        name = {Base.LINK: "ll", Base.NETWORK: "nh", Base.TRANSPORT: "th"}[self.base]
        return f"@{name},{8 * self.offset},{8 * self.length}"


@dataclass(frozen=True, slots=True)
class Key:
    """Something else that the kernel knows of a packet or its session."""

    kind: str
    """``ct`` or ``meta``."""

    key: int
    """The kernel's number for it."""

    direction: int | None = None
    """0 for a session's original tuple, 1 for its reply tuple."""

    def __str__(self) -> str:
        """Return it as nft writes it."""
        name = _KEY_NAMES[self.kind].get(self.key, str(self.key))
        if self.direction is not None:
            name = f"{('original', 'reply')[self.direction & 1]} {name}"
        return f"{self.kind} {name}"


_CT_NAMES = """
    state direction status mark secmark expiration helper l3proto saddr daddr protocol proto-src proto-dst
    label packets bytes avgpkt zone event
"""
_META_NAMES = """
    length protocol priority mark iif oif iifname oifname iiftype oiftype skuid skgid nftrace rtclassid
    secmark nfproto l4proto ibrname obrname pkttype cpu iifgroup oifgroup cgroup random ipsec iifkind oifkind
    ibrpvid ibrvproto time day hour sdif sdifname broute ibrhwaddr
"""
_KEY_NAMES: Mapping[str, Mapping[int, str]] = {
    "ct": dict(enumerate(_CT_NAMES.split())),
    "meta": dict(enumerate(_META_NAMES.split())),
}

Source = PacketBytes | Key


@dataclass(frozen=True, slots=True)
class Load:
    """Read something into a register; without it the rule ends."""

    register: int
    source: Source


@dataclass(frozen=True, slots=True)
class Constant:
    """Put bytes into a register."""

    register: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Bitwise:
    """Replace the bits outside of a mask, and flip some."""

    source: int
    register: int
    length: int
    mask: bytes
    flip: bytes


@dataclass(frozen=True, slots=True)
class ByteOrder:
    """Change between the byte orders of the host and of the network."""

    source: int
    register: int
    length: int
    size: int
    """Of each number."""


class Order(enum.IntEnum):
    """How bytes are compared, in the order of the network."""

    EQUAL = 0
    NOT_EQUAL = 1
    LESS = 2
    AT_MOST = 3
    GREATER = 4
    AT_LEAST = 5


@dataclass(frozen=True, slots=True)
class Compare:
    """Go on only if a register compares so."""

    register: int
    order: Order
    value: bytes


@dataclass(frozen=True, slots=True)
class Range:
    """Go on only if a register is within two ends, or is not."""

    register: int
    is_negated: bool
    first: bytes
    last: bytes


@dataclass(frozen=True, slots=True)
class SetLookUp:
    """Look registers up in a set, or in a map of verdicts."""

    register: int
    name: str
    is_negated: bool
    is_map: bool


@dataclass(frozen=True, slots=True)
class SetSessionMark:
    """Set the mark of the session from a register."""

    register: int


@dataclass(frozen=True, slots=True)
class Reject:
    """Drop the packet, and tell its sender if that can be done."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that does not decide about packets, and that our own rules never have."""

    name: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that is not understood."""

    name: str


Done = nft.Verdict | nft.Count | nft.Limit | nft.Log | Reject | Note
"""What reads no register."""

Expression = (
    Load | Constant | Bitwise | ByteOrder | Compare | Range | SetLookUp | SetSessionMark | Done | Unknown
)

_NAME, _DATA = 1, 2
_LIST_ELEMENT = 1


def split_expressions(listed: bytes) -> Iterator[bytes]:
    """Yield the bytes of each expression of a rule.

    Raises:
        UnreadableError: they are cut off.
    """
    for kind, start, stop in each(listed):
        if kind != _LIST_ELEMENT:
            raise UnreadableError("expressions in another form")
        yield listed[start:stop]


def read_expression(content: bytes) -> Expression:
    """Return an expression of its bytes; an unknown one where anything of it is not understood."""
    name = "an expression"
    try:
        found = by_kind(content)
        name = text(found.pop(_NAME))
        given = by_kind(found.pop(_DATA, b""))
        if found or name not in _FORMS:
            return Unknown(name)
        return _FORMS[name](given)
    except UnreadableError as error:
        return Unknown(str(error))
    except (KeyError, ValueError, struct.error):
        return Unknown(name)


Given = dict[int, bytes]


def _of(given: Given, *kinds: int, beside: tuple[int, ...] = ()) -> list[bytes]:
    """Return the values of attributes that have to be there.

    Raises:
        KeyError: one is lacking.
        ValueError: there is one that is neither among these nor may stand beside them.
    """
    if not given.keys() <= {*kinds, *beside}:
        raise ValueError("an attribute that is not expected")
    return [given[kind] for kind in kinds]


_VALUE, _VERDICT = 1, 2
_CODE, _CHAIN = 1, 2
_VERDICTS: Mapping[int, Callable[[], nft.Verdict | Note]] = {
    0: nft.Drop,
    1: nft.Accept,
    -1: partial(Note, "continue"),
    -5: nft.Return,
}
_TO_CHAIN: Mapping[int, type[nft.Jump | nft.Goto]] = {-3: nft.Jump, -4: nft.Goto}


def read_verdict(data: bytes) -> nft.Verdict | Note:
    """Return the verdict in the data of an element or an immediate expression.

    Raises:
        UnreadableError: it is another.
    """
    given = by_kind(only(data, _VERDICT))
    code = int.from_bytes(given.pop(_CODE, b"\0\0\0\2"), "big", signed=True)
    if code in _TO_CHAIN and given.keys() == {_CHAIN}:
        return _TO_CHAIN[code](text(given[_CHAIN]))
    if code in _VERDICTS and not given:
        return _VERDICTS[code]()
    raise UnreadableError("a verdict")


def _payload(given: Given) -> Load:
    register, base, offset, length = map(number, _of(given, 1, 2, 3, 4))
    if not 0 < length <= 16 * 4:
        raise UnreadableError("payload")
    return Load(register, PacketBytes(Base(base), offset, length))


def _key(kind: str, register: int, key: int, direction: int | None) -> Callable[[Given], Expression]:
    """Return the reader of a load; ``kind`` with a register that is read changes something."""

    def read(given: Given) -> Expression:
        if register not in given:
            return _change(kind, key, given)
        values = _of(given, register, key, beside=() if direction is None else (direction,))
        tuple_direction = None if direction is None or direction not in given else number(given[direction])
        return Load(number(values[0]), Key(kind, number(values[1]), tuple_direction))

    return read


_CT_SOURCE, _META_SOURCE = 4, 3
_CT_MARK = 3


def _change(kind: str, key: int, given: Given) -> Expression:
    source, changed = _of(given, _CT_SOURCE if kind == "ct" else _META_SOURCE, key)
    if (kind, number(changed)) == ("ct", _CT_MARK):
        return SetSessionMark(number(source))
    return Unknown(f"set {Key(kind, number(changed))}")


def _compare(given: Given) -> Compare:
    register, order, data = _of(given, 1, 2, 3)
    return Compare(number(register), Order(number(order)), only(data, _VALUE))


def _range(given: Given) -> Range:
    register, operator, first, last = _of(given, 1, 2, 3, 4)
    is_negated = {0: False, 1: True}[number(operator)]
    return Range(number(register), is_negated, only(first, _VALUE), only(last, _VALUE))


def _bitwise(given: Given) -> Bitwise:
    source, register, length, mask, flip = _of(given, 1, 2, 3, 4, 5, beside=(6,))
    if number(given.get(6, b"")):
        raise UnreadableError("shift")
    return Bitwise(number(source), number(register), number(length), only(mask, _VALUE), only(flip, _VALUE))


def _byte_order(given: Given) -> ByteOrder:
    source, register, operator, length, size = map(number, _of(given, 1, 2, 3, 4, 5))
    if operator > 1:
        raise UnreadableError("byteorder")
    return ByteOrder(source, register, length, size)


def _look_up(given: Given) -> SetLookUp:
    name, source = _of(given, 1, 2, beside=(3, 4, 5))
    flags, target = number(given.get(5, b"")), given.get(3)
    if flags > 1 or (target is not None and (number(target) or flags)):
        raise UnreadableError("lookup")
    return SetLookUp(number(source), text(name), bool(flags), target is not None)


def _immediate(given: Given) -> Expression:
    register, data = _of(given, 1, 2)
    if number(register):
        return Constant(number(register), only(data, _VALUE))
    return read_verdict(data)


OBJECTS: Mapping[int, str] = {
    1: "counter",
    2: "quota",
    3: "ct helper",
    4: "limit",
    5: "ct count",
    6: "tunnel",
    7: "ct timeout",
    8: "secmark",
    9: "ct expectation",
    10: "synproxy",
}
"""The kinds of stateful objects, by nft's names."""


def _object(given: Given) -> nft.Count | Note:
    if not given.keys() & {1}:
        raise UnreadableError("an object that a map chooses")
    code, name = _of(given, 1, 2)
    match OBJECTS.get(number(code), "object"):
        case "counter":
            return nft.Count(text(name))
        case "limit":
            return Note("limit")
        case kind:
            raise UnreadableError(kind)


def _limit(given: Given) -> nft.Limit | Note:
    rate, unit, burst = map(number, _of(given, 1, 2, 3, beside=(4, 5, 6)))
    kind, flags = number(given.get(4, b"")), number(given.get(5, b""))
    is_ours = (unit, kind, flags) == (1, 0, 0) and rate and burst
    return nft.Limit(rate, burst) if is_ours else Note("limit")


def _log(given: Given) -> nft.Log | Note:
    given = {kind: value for kind, value in given.items() if kind not in (3, 4) or number(value)}
    if given.keys() != {1, 2}:
        return Note("log")
    return nft.Log(prefix=text(given[2]), group=number(given[1]))


def _noted(name: str, _: Given) -> Note:
    return Note(name)


_FORMS: Mapping[str, Callable[[Given], Expression]] = {
    "payload": _payload,
    "meta": _key("meta", 1, 2, None),
    "ct": _key("ct", 1, 2, 3),
    "cmp": _compare,
    "range": _range,
    "bitwise": _bitwise,
    "byteorder": _byte_order,
    "lookup": _look_up,
    "immediate": _immediate,
    "objref": _object,
    "limit": _limit,
    "log": _log,
    "counter": partial(_noted, "counter"),
    "last": partial(_noted, "last"),
    "reject": lambda _: Reject(),
}
