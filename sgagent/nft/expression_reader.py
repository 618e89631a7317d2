"""The expressions of a rule: bytes to values, one by one.

Each form is exact. An expression with an attribute that is not expected is an :class:`Unknown` one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from sgagent.nft import ruleset as nft
from sgagent.nft.attributes import UnreadableError, by_kind, each, number, only, text
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
    Xtables,
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
        data = found.pop(_DATA, b"")
        return Unknown(name) if found or name not in _FORMS else _FORMS[name](by_kind(data))
    except UnreadableError as error:
        return Unknown(str(error))
    except (KeyError, ValueError, struct.error):
        return Unknown(name)


Given = dict[int, bytes]


def _of(given: Given, *kinds: int, beside: tuple[int, ...] = ()) -> list[bytes]:
    """Return the values of attributes that have to be there.

    Raises:
        KeyError: one is lacking.
        ValueError: there is one that is neither among these nor among those that may be there.
    """
    if not given.keys() <= {*kinds, *beside}:
        raise ValueError("an attribute that is not expected")
    return [given[kind] for kind in kinds]


_VALUE, _VERDICT = 1, 2
_CODE, _CHAIN = 1, 2
_VERDICTS: Mapping[int, Callable[[], nft.Verdict | NamedStatement]] = {
    0: nft.Drop,
    1: nft.Accept,
    -1: partial(NamedStatement, "continue"),
    -5: nft.Return,
}
_TO_CHAIN: Mapping[int, type[nft.Jump | nft.Goto]] = {-3: nft.Jump, -4: nft.Goto}


def read_verdict(data: bytes) -> nft.Verdict | NamedStatement:
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


def _register(value: bytes) -> int:
    """Return the first word of a register; the first four are of 16 bytes, in the place of the others.

    Raises:
        UnreadableError: there is no such register.
    """
    code = number(value)
    if 1 <= code <= 4:
        return 4 * (code - 1)
    if _FIRST_WORD <= code < _FIRST_WORD + 16:
        return code - _FIRST_WORD
    raise UnreadableError("a register")


_FIRST_WORD = 8


def _payload(given: Given) -> Load | Store:
    is_store = _PAYLOAD_SOURCE in given
    kinds = (_PAYLOAD_SOURCE, 2, 3, 4) if is_store else (1, 2, 3, 4)
    register, *place = _of(given, *kinds, beside=_CHECKSUM if is_store else ())
    base, offset, length = map(number, place)
    if not 0 < length <= 16 * 4:
        raise UnreadableError("payload")
    where = PacketBytes(Base(base), offset, length)
    return Store(where, _register(register)) if is_store else Load(_register(register), where)


_PAYLOAD_SOURCE = 5
_CHECKSUM = (6, 7, 8)


def _key(kind: str, source: int, beside: tuple[int, ...], given: Given) -> Load | Store:
    """Return the load of a key, or its change.

    Args:
        kind: ``ct`` or ``meta``.
        source: the attribute of the register that the key is set from.
        beside: the attribute of the direction, if there is one.
        given: all attributes.
    """
    is_store = source in given
    register, code = _of(given, source if is_store else 1, 2, beside=beside)
    direction = next((number(given[one]) for one in beside if one in given), None)
    key = Key(kind, number(code), direction)
    return Store(key, _register(register)) if is_store else Load(_register(register), key)


def _compare(given: Given) -> Compare:
    register, order, data = _of(given, 1, 2, 3)
    return Compare(_register(register), Order(number(order)), only(data, _VALUE))


def _range(given: Given) -> CompareRange:
    register, operator, first, last = _of(given, 1, 2, 3, 4)
    is_negated = {0: False, 1: True}[number(operator)]
    return CompareRange(_register(register), is_negated, only(first, _VALUE), only(last, _VALUE))


def _bitwise(given: Given) -> Bitwise | Combine:
    operation = number(given.get(6, b""))
    if operation:
        source, register, _ = _of(given, 1, 2, 3, beside=(6, 7, 8))
        other = _register(given[8]) if 8 in given else None
        constant = only(given[7], _VALUE) if 7 in given else b""
        return Combine(_register(source), _register(register), Combination(operation), other, constant)
    source, register, length, mask, flip = _of(given, 1, 2, 3, 4, 5, beside=(6,))
    bits, flipped = only(mask, _VALUE), only(flip, _VALUE)
    return Bitwise(_register(source), _register(register), number(length), bits, flipped)


def _byte_order(given: Given) -> ByteOrder:
    source, register, operator, length, size = _of(given, 1, 2, 3, 4, 5)
    if number(operator) > 1:
        raise UnreadableError("byteorder")
    return ByteOrder(_register(source), _register(register), number(length), number(size))


def _computed(name: str, register: int, source: int | None, given: Given) -> Compute:
    """Return the computation of a register, whatever its other attributes are.

    Args:
        name: the kernel's.
        register: the attribute of the register.
        source: that of the register which is read, if any.
        given: all attributes.
    """
    read = None if source is None or source not in given else _register(given[source])
    return Compute(name, _register(given[register]), read)


def _fib(given: Given) -> Compute:
    register, found, flags = _of(given, 1, 2, 3)
    return Compute("fib", _register(register), looks_up=(number(found), number(flags)))


def _extension(given: Given) -> Load | Compute:
    """Return the load of whether IPv6 has an extension header; other reads of headers are not followed."""
    asked = {kind: number(given.get(kind, b"")) for kind in (3, 4, 5, 6)}
    if asked == {3: 0, 4: 1, 5: _PRESENT, 6: 0} and given.keys() <= {1, 2, *asked}:
        return Load(_register(given[1]), Key("exthdr", number(given[2])))
    return _computed("exthdr", 1, None, given)


_PRESENT = 1


def _look_up(given: Given) -> SetLookUp:
    name, source = _of(given, 1, 2, beside=(3, 4, 5))
    flags, target = number(given.get(5, b"")), given.get(3)
    if flags > 1 or (target is not None and flags):
        raise UnreadableError("lookup")
    is_map = target is not None and not number(target)
    found = None if target is None or is_map else _register(target)
    return SetLookUp(_register(source), text(name), bool(flags), is_map, found)


def _immediate(given: Given) -> Expression:
    register, data = _of(given, 1, 2)
    if number(register):
        return Constant(_register(register), only(data, _VALUE))
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


def _object(given: Given) -> nft.Count | NamedStatement:
    if not given.keys() & {1}:
        raise UnreadableError("an object that a map chooses")
    code, name = _of(given, 1, 2)
    match OBJECTS.get(number(code), "object"):
        case "counter":
            return nft.Count(text(name))
        case "limit":
            return NamedStatement("limit")
        case kind:
            raise UnreadableError(kind)


def _limit(given: Given) -> nft.Limit | NamedStatement:
    rate, unit, burst = map(number, _of(given, 1, 2, 3, beside=(4, 5, 6)))
    kind, flags = number(given.get(4, b"")), number(given.get(5, b""))
    is_ours = (unit, kind, flags) == (1, 0, 0) and rate and burst
    return nft.Limit(rate, burst) if is_ours else NamedStatement("limit")


def _set_update(given: Given) -> SetUpdate:
    """Return a change of a set, with the limit of a meter of ours where it has exactly such."""
    register = _register(given[4])
    try:
        name, operation, content = _of(given, 1, 3, 7, beside=(4, 6, 9))
        nested = by_kind(content)
        rate, seconds, burst, kind, flags = map(number, _of(by_kind(nested[_DATA]), 1, 2, 3, 4, 5))
        is_plain = not number(given.get(6, b"")) and not number(given.get(9, b""))
        is_meter = is_plain and (text(nested[_NAME]), number(operation), kind) == ("limit", _UPDATE, 0)
    except (KeyError, ValueError):
        return SetUpdate(register)
    return (
        SetUpdate(register, text(name), (rate, seconds, burst))
        if is_meter and flags == _OVER
        else SetUpdate(register)
    )


_UPDATE, _OVER = 1, 1


def _log(given: Given) -> nft.Log | NamedStatement:
    given = {kind: value for kind, value in given.items() if kind not in (3, 4) or number(value)}
    if given.keys() != {1, 2}:
        return NamedStatement("log")
    return nft.Log(prefix=text(given[2]), group=number(given[1]))


def _xtables(given: Given, *, is_target: bool) -> Xtables:
    return Xtables(is_target, text(given[1]), number(given.get(2, b"")), given.get(3, b""))


def _named(name: str, _: Given) -> NamedStatement:
    return NamedStatement(name)


_COMPUTING = {"numgen": 1, "rt": 1, "socket": 2, "osf": 1, "tunnel": 2, "xfrm": 1}
"""By name, the attribute of the register that each puts something into."""

_FORMS: Mapping[str, Callable[[Given], Expression]] = {
    "payload": _payload,
    "meta": partial(_key, "meta", 3, ()),
    "ct": partial(_key, "ct", 4, (3,)),
    "cmp": _compare,
    "range": _range,
    "bitwise": _bitwise,
    "byteorder": _byte_order,
    "fib": _fib,
    "exthdr": _extension,
    "lookup": _look_up,
    "dynset": _set_update,
    "immediate": _immediate,
    "objref": _object,
    "limit": _limit,
    "log": _log,
    "counter": partial(_named, "counter"),
    "last": partial(_named, "last"),
    "reject": lambda _: Reject(),
    "flow_offload": lambda given: Offload(text(given[1])),
    "match": partial(_xtables, is_target=False),
    "target": partial(_xtables, is_target=True),
    "hash": partial(_computed, "hash", 2, 1),
    **{name: partial(_computed, name, register, None) for name, register in _COMPUTING.items()},
}
