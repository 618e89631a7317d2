"""Sets and maps as the kernel has them: keys as bytes, and their meaning as values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from operator import attrgetter
from typing import Literal, NoReturn

from sgagent.core.binding import check_interface_name
from sgagent.nft import ruleset as nft
from sgagent.nft.attributes import COMMENT, HEADER, KIND_MASK, UnreadableError, by_kind, user_data
from sgagent.nft.expression_reader import read_verdict
from sgagent.nft.expressions import NamedStatement
from sgagent.nft.fields import HOST_ORDER_TYPES, IS_BIG_ENDIAN, LENGTHS

ANONYMOUS, CONSTANT, INTERVAL, MAP, OBJECTS, CONCATENATED = 0x1, 0x2, 0x4, 0x8, 0x40, 0x80
DYNAMIC = 0x20
METER = 0x10 | DYNAMIC
"""Of a set that packets put elements in, which go after a time."""

LINK_TYPES = frozenset({20, 41})
"""Of keys: index and name of a link, as nft numbers them."""

VERDICT_TYPE, MARK_TYPE = 0xFFFFFF00, 19
"""Of what maps lead to."""

_INTERVAL_END = 0x1


@dataclass(frozen=True, slots=True)
class KernelElement:
    """One element as the kernel has it."""

    key: bytes
    """Empty for the element of all other keys."""

    verdict: nft.Verdict | None
    last: bytes | None = None
    """Of a range of several fields, the last key."""

    is_end: bool = False
    """Whether an interval ends before this key."""


@dataclass(slots=True, kw_only=True)
class KernelSet:
    """A set or a map."""

    name: str
    flags: int
    key_length: int
    key_types: tuple[nft.KeyType, ...] | None
    """As its maker calls them; None where sgagent knows no such type."""

    is_of_links: bool = False
    """Whether its keys are names or indexes of links, and no ranges."""

    field_lengths: tuple[int, ...] = ()
    """Of ranges of several fields, what the kernel takes each field to be."""

    is_verdict_map: bool
    has_particulars: bool = False
    """Whether it has something that our own have not and that has no part in what is looked up."""

    oddity: str | None = None
    """The part of it that is not understood."""

    size: int | None = None
    timeout: int | None = None
    """Of elements, in milliseconds."""

    strange_bucket: str | None = None
    """Of a meter's set, an element that its packets don't put in."""

    entries: list[KernelElement] = field(default_factory=list)
    """Where there is an oddity, as far as they are understood."""

    values: set[bytes] = field(default_factory=set)
    """What a map that is none of verdicts leads to."""

    @property
    def is_anonymous(self) -> bool:
        """Return whether it belongs to a rule."""
        return bool(self.flags & ANONYMOUS)

    @property
    def is_interval(self) -> bool:
        """Return whether keys may be ranges."""
        return bool(self.flags & INTERVAL)

    @property
    def is_lasting(self) -> bool:
        """Return whether only changes of the ruleset change it."""
        return not self.flags & ~(ANONYMOUS | CONSTANT | INTERVAL | MAP | CONCATENATED)


class ElementReader:
    """Read elements; most of the bytes of a large table are here, so this is one loop."""

    def __init__(self) -> None:
        """Start without verdicts; there are few, and many elements."""
        self._verdicts: dict[bytes, nft.Verdict | NamedStatement | bytes] = {}

    def read(self, into: KernelSet, data: bytes) -> None:
        """Add the elements of a message to their set."""
        try:
            for entry in self._entries(into, data):
                into.entries.append(entry)
                into.has_particulars |= self._has_comment
        except UnreadableError as error:
            into.oddity = str(error)

    def _entries(self, into: KernelSet, data: bytes) -> Iterator[KernelElement]:
        unpack, size = HEADER.unpack_from, HEADER.size
        place, stop = 0, len(data)
        self._has_comment = False
        while place < stop:
            length, _ = unpack(data, place)
            end = place + length
            inner = place + size
            place += length + 3 & ~3
            key, last, verdict, flags = b"", None, None, 0
            while inner < end:
                length, kind = unpack(data, inner)
                kind &= KIND_MASK
                if kind in (_KEY, _KEY_END):
                    value_length, _ = unpack(data, inner + size)
                    value = data[inner + 2 * size : inner + size + value_length]
                    if kind == _KEY:
                        key = value
                    else:
                        last = value
                elif kind == _VERDICT:
                    verdict = self._verdict(into, data[inner + size : inner + length])
                elif kind == _FLAGS:
                    flags = data[inner + length - 1]
                elif kind == _USER_DATA:
                    self._has_comment |= COMMENT in user_data(data[inner + size : inner + length])
                elif kind in _PARTS and length >= size:
                    into.oddity = _PARTS[kind]
                else:
                    raise UnreadableError("an element")
                inner += length + 3 & ~3
            if flags & ~_INTERVAL_END:
                into.oddity = "an element for all other keys"
            yield KernelElement(key, verdict, last, bool(flags & _INTERVAL_END))

    def _verdict(self, into: KernelSet, data: bytes) -> nft.Verdict | None:
        found = self._verdicts.get(data)
        if found is None:
            value = by_kind(data).get(_VALUE)
            found = self._verdicts[data] = read_verdict(data) if value is None else value
        if isinstance(found, bytes):
            into.values.add(found)
        if isinstance(found, nft.Return | NamedStatement | bytes):
            into.oddity = "a verdict of an element"
            return None
        return found


_VALUE = 1
_KEY, _VERDICT, _FLAGS, _USER_DATA, _KEY_END = 1, 2, 3, 6, 10
_PARTS = {4: "timeout", 5: "timeout", 7: "a statement of an element", 9: "an object of an element"}


def padded(length: int) -> int:
    """Return how many bytes a field takes in a key of several."""
    return length + 3 & ~3


def meter_set_of(one: KernelSet) -> nft.MeterSet | None:
    """Return the buckets of a meter, if they are of a kind that sgagent makes."""
    key_types = one.key_types or ()
    if one.flags != METER or one.has_particulars or one.oddity is not None or len(key_types) != 1:
        return None
    if one.size is None or one.timeout is None or one.timeout % 1000:
        return None
    return nft.MeterSet(
        name=one.name,
        key_type=key_types[0],
        size=one.size,
        timeout=one.timeout // 1000,
        strange_bucket=one.strange_bucket,
    )


def elements_of(one: KernelSet, types: Sequence[nft.KeyType]) -> list[nft.Element]:
    """Return the elements of a verdict map whose key has these types, sorted.

    Raises:
        UnreadableError: they are none of such a map.
    """
    one.entries.sort(key=attrgetter("key"))  # sooner than by their values, and mostly the same
    found = []
    for key, verdict in decoded(one, types):
        if verdict is None:
            raise UnreadableError(f"map {one.name}")
        found.append(nft.Element(key, verdict))  # type: ignore[arg-type]  # only rules compare prefixes
    if not HOST_ORDER_TYPES.isdisjoint(types) or (one.is_interval and len(types) > 1):
        found.sort(key=lambda element: nft.sort_key(element.key))
    return found


def values_of(one: KernelSet, key_type: nft.KeyType) -> tuple[nft.Comparable, ...]:
    """Return the values of a set, sorted.

    Raises:
        UnreadableError: it is no set of such values, or changes by itself.
    """
    if not one.is_lasting or one.oddity is not None or one.flags & MAP:
        raise UnreadableError(f"set {one.name}" if one.oddity is None else f"set {one.name} ({one.oddity})")
    values = [key[0] for key, _ in decoded(one, (key_type,))]
    return tuple(sorted(values, key=lambda value: nft.sort_key((value,))))


Decoded = tuple[tuple[nft.Comparable, ...], nft.Verdict | None]


def decoded(one: KernelSet, types: Sequence[nft.KeyType]) -> Iterator[Decoded]:
    """Yield the keys of a set as values, with the verdicts of a map.

    Raises:
        UnreadableError: what is in it are no keys of these types.
    """
    lengths = [LENGTHS[key_type] for key_type in types]
    whole = lengths[0] if len(types) == 1 else sum(map(padded, lengths))
    if one.key_length != whole:
        raise UnreadableError(f"set {one.name}")
    if len(types) == 1:
        spans = _intervals(one.entries) if one.is_interval else _singles(one.entries)
        read = field_reader(types[0], is_interval=one.is_interval)
        yield from (((read(first, last),), verdict) for first, last, verdict in spans)
        return
    if one.is_interval and one.field_lengths != tuple(lengths):
        raise UnreadableError(f"set {one.name}")
    readers = [field_reader(key_type, is_interval=one.is_interval) for key_type in types]
    places = [sum(map(padded, lengths[:number])) for number in range(len(types))]
    cuts = [slice(place, place + length) for place, length in zip(places, lengths, strict=True)]
    for entry in one.entries:
        if entry.is_end or (entry.last is not None and not one.is_interval) or len(entry.key) != whole:
            raise UnreadableError(f"set {one.name}")
        last = entry.key if entry.last is None else entry.last
        fields = (read(entry.key[cut], last[cut]) for read, cut in zip(readers, cuts, strict=True))
        yield tuple(fields), entry.verdict


Span = tuple[bytes, bytes, nft.Verdict | None]


def _singles(entries: Iterable[KernelElement]) -> Iterator[Span]:
    for entry in entries:
        if entry.is_end or entry.last is not None:
            raise UnreadableError("an interval in a set without")
        yield entry.key, entry.key, entry.verdict


def _intervals(entries: Sequence[KernelElement]) -> Iterator[Span]:
    """Yield intervals; the kernel finds the greatest key that is no greater than the number looked up."""
    ordered = sorted(entries, key=lambda entry: (entry.key, not entry.is_end))
    for entry, following in pairwise([*ordered, None]):
        if entry is None or entry.is_end:
            continue
        if entry.last is not None:
            raise UnreadableError("an interval with two ends")
        size = len(entry.key)
        stop = 1 << 8 * size if following is None else int.from_bytes(following.key, "big")
        if following is not None and following.key == entry.key:
            raise UnreadableError("an interval that is empty")
        yield entry.key, (stop - 1).to_bytes(size, "big"), entry.verdict


FieldReader = Callable[[bytes, bytes], nft.Comparable]


def field_reader(key_type: nft.KeyType, *, is_interval: bool) -> FieldReader:
    """Return the reader that makes a value of the first and the last bytes of a field.

    Args:
        key_type: what the bytes are.
        is_interval: whether the kernel compares by order, for which all numbers have the network's.
    """
    if key_type is nft.KeyType.IFNAME:
        return _link_names
    is_reversed = key_type in HOST_ORDER_TYPES and not is_interval and not IS_BIG_ENDIAN
    if key_type in nft.SYMBOLS:
        return partial(_symbol, key_type, "little" if is_reversed else "big")
    return _reversed_numbers if is_reversed else _numbers


def _numbers(first: bytes, last: bytes) -> nft.Interval:
    return nft.Interval(int.from_bytes(first, "big"), int.from_bytes(last, "big"))


def _reversed_numbers(first: bytes, last: bytes) -> nft.Interval:
    return nft.Interval(int.from_bytes(first, "little"), int.from_bytes(last, "little"))


def _symbol(key_type: nft.KeyType, order: Literal["little", "big"], first: bytes, last: bytes) -> nft.Symbol:
    return symbol(key_type, int.from_bytes(first, order)) if first == last else _no_value(key_type)


def symbol(key_type: nft.KeyType, number: int) -> nft.Symbol:
    """Return a constant of the kernel.

    Raises:
        UnreadableError: there is none of this number.
    """
    for word, value in nft.SYMBOLS[key_type].items():
        if value == number:
            return nft.Symbol(word)
    return _no_value(key_type)


def _no_value(key_type: nft.KeyType) -> NoReturn:
    raise UnreadableError(f"a value of type {key_type.value}")


def _link_names(first: bytes, last: bytes) -> nft.Symbol | nft.NamePrefix:
    if first == last:
        return link_name(first)
    begin = first.rstrip(b"\0")
    if last != begin + b"\xff" * (len(first) - len(begin)):
        _no_value(nft.KeyType.IFNAME)
    return link_prefix(begin)


def link_name(content: bytes) -> nft.Symbol:
    """Return the name of a link, which the kernel fills up with zeros.

    Raises:
        UnreadableError: it is none.
    """
    try:
        name = content.rstrip(b"\0").decode()
        check_interface_name(name)
    except ValueError:
        _no_value(nft.KeyType.IFNAME)
    return nft.Symbol(name)


def link_prefix(content: bytes) -> nft.NamePrefix:
    """Return the beginning of the names of links.

    Raises:
        UnreadableError: it is none.
    """
    return nft.NamePrefix(link_name(content).word)
