"""Elements of a meter's set: the buckets that packets put in, and what others put in.

The kernel lists no bucket's tokens. So those of one limit differ in their source, and in the time that each
has left, and one of them stands for all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from sgagent.nft.attributes import UnreadableError, by_kind, each, messages, number, only, text
from sgagent.nft.names import limit_of_set
from sgagent.nft.ruleset import RATE_WORDS

NEW_ELEMENTS = 10 << 8 | 12
_ELEMENTS = 3
_KEY, _TIMEOUT, _TIME_LEFT, _EXPRESSION, _PADDING = 1, 4, 5, 7, 8
_PARTS = {3: "flags", 6: "a comment", 11: "several statements"}
_NAME, _DATA = 1, 2

_HEAD = struct.Struct("=HHHH")
"""Of the first attribute, which is the key's, and of the key in it."""

_TIME_BYTES = 8
"""Of the time left, which stands last."""


def one_of_each(dumped: bytes) -> bytes:
    """Return those messages about a set's elements that have one of another kind than the messages before."""
    found = list[bytes]()
    known = set[tuple[bytes, bytes]]()
    for kind, start, stop in messages(dumped):
        if kind == NEW_ELEMENTS:
            shapes = set(_shapes(by_kind(dumped, start + 4, stop).get(_ELEMENTS, b"")))
            if not shapes <= known:
                known |= shapes
                found.append(dumped[start - 16 : stop])
    return b"".join(found)


def _shapes(listed: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield all of each element but the key's value and the time left, which say nothing of its kind."""
    read, size = _HEAD.unpack_from, _HEAD.size
    for _, start, stop in each(listed):
        if stop - start < size + _TIME_BYTES:
            yield listed[start:stop], b""
        else:
            key_end = start + (read(listed, start)[0] + 3 & ~3)
            yield listed[start : start + size], listed[key_end : stop - _TIME_BYTES]


def strange_bucket(set_name: str, listed: bytes) -> str | None:
    """Return an element that the rule of a set of ours does not put in, and what it says; None without one.

    Args:
        set_name: which says the limit.
        listed: the attributes of elements.

    Raises:
        UnreadableError: the dump is cut off.
    """
    limit = limit_of_set(set_name)
    wanted = None if limit is None else [_limit_text(*limit)]
    for _, start, stop in each(listed):
        given = by_kind(listed, start, stop)
        said = list(_said(given))
        if said != wanted:
            return f"{_source(given)} with {', '.join(said) or 'no limit'}"
    return None


def _said(given: Mapping[int, bytes]) -> Iterator[str]:
    """Yield what an element says beside its key, and that it goes at some time."""
    if _EXPRESSION in given:
        yield _expression(given[_EXPRESSION])
    if _TIME_LEFT not in given:
        yield "no end"
    if _TIMEOUT in given:
        yield f"timeout {number(given[_TIMEOUT]) // 1000}s"
    for kind in sorted(given.keys() - {_KEY, _EXPRESSION, _TIME_LEFT, _TIMEOUT, _PADDING}):
        yield _PARTS.get(kind, "another attribute")


def _expression(content: bytes) -> str:
    given = by_kind(content)
    if (name := text(given.get(_NAME, b""))) != "limit":
        return name
    data = by_kind(given.get(_DATA, b""))
    rate, seconds, burst, is_of_bytes, flags = (number(data.get(kind, b"")) for kind in range(1, 6))
    return _limit_text(rate, seconds, burst, "over " * (flags == 1), "bytes" if is_of_bytes else "packets")


def _limit_text(rate: int, seconds: int, burst: int, over: str = "over ", unit: str = "packets") -> str:
    return f"limit rate {over}{rate}/{RATE_WORDS.get(seconds, f'{seconds}s')} burst {burst} {unit}"


def _source(given: Mapping[int, bytes]) -> str:
    try:
        return str(ip_address(only(given.get(_KEY, b""), 1)))
    except (UnreadableError, ValueError):
        return "an element"
