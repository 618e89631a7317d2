"""The program of a rule as statements: its effect on a packet in the kernel, whatever wrote the rule.

A read of a packet's bytes is a field only behind the comparison that makes it one in that very rule, such as
``ip saddr`` behind ``meta nfproto ipv4``. That comparison is then no statement of its own: the selector says
it. Any other comparison is one, and what has no row in :data:`sgagent.nft.fields.FIELDS` makes the rule
unreadable. So two rules are equal only if they do the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sgagent.core.policy import LOOPBACK
from sgagent.nft import ruleset as nft
from sgagent.nft.attributes import UnreadableError
from sgagent.nft.expressions import Expression, Key, PacketBytes, Reject, Unknown
from sgagent.nft.fields import BY_KEY, IN_PACKET, IS_BIG_ENDIAN, LINK_INDEX, FieldCondition, KernelField
from sgagent.nft.registers import (
    Membership,
    Metering,
    ProgramStatement,
    RegisterComparison,
    Registers,
    RegisterValue,
    Test,
    ones,
    turned,
)
from sgagent.nft.sets import KernelSet, link_name, link_prefix, padded, values_of

_LAST = (nft.LookUp, nft.Accept, nft.Drop, nft.Goto, nft.Jump, nft.Return, Reject)
"""Nothing in a rule comes behind one of these: there is a verdict, or the rule has ended."""

_NAMES = {0: nft.NO_LINK, 1: nft.Symbol(LOOPBACK)}
_Compared = nft.Match | nft.LookUp | nft.Meter | Unknown


def statements_of(
    expressions: Iterable[Expression], sets: Mapping[str, KernelSet], given: Iterable[FieldCondition] = ()
) -> tuple[ProgramStatement, ...]:
    """Return the statements of a rule.

    Args:
        expressions: of the rule.
        sets: of its table, by name.
        given: what is known of all packets of the table.

    Raises:
        UnreadableError: something is not understood; names it.
    """
    known = dict(given)
    found: list[ProgramStatement] = []
    waiting: list[RegisterComparison] = []
    for item in Registers(sets).items(expressions):
        if isinstance(item, (Test, Membership, Metering)):
            waiting.append(item)
            if not isinstance(item, Metering):  # behind a meter is another place: it changes its bucket
                continue
        if waiting:
            found += _comparisons(waiting, known, sets)
            waiting.clear()
        if not isinstance(item, (Test, Membership, Metering)):
            found.append(item)
    if waiting:
        found += _comparisons(waiting, known, sets)
    if any(isinstance(one, _LAST) for one in found[:-1]):
        raise UnreadableError("something behind a verdict")
    return tuple(found)


def _comparisons(
    items: Sequence[RegisterComparison], known: dict[Key, int], sets: Mapping[str, KernelSet]
) -> Iterator[nft.Match | nft.LookUp | nft.Meter]:
    """Yield comparisons without an effect in between, so that their order does not matter.

    Args:
        items: comparisons and look-ups.
        known: what has passed before; what these let pass is added.
        sets: of the table, by name.
    """
    said: list[FieldCondition | None] = [item.condition if isinstance(item, Test) else None for item in items]
    for condition in said:
        if condition is not None:
            known.setdefault(*condition)
    made: list[tuple[_Compared, FieldCondition | None]] = []
    implied = set[FieldCondition]()
    for item, condition in zip(items, said, strict=True):
        for statement, needs in _made(item, known, sets):
            implied.update(needs)
            if made and (both := _within_both(made[-1][0], statement, item)) is not None:
                made[-1] = both, None
            else:
                made.append((statement, condition))
    for statement, condition in made:
        if condition is not None and condition in implied:
            continue
        if isinstance(statement, Unknown):
            raise UnreadableError(statement.name)
        yield statement


_Made = Iterator[tuple[_Compared, tuple[FieldCondition, ...]]]
"""Statements, and the conditions that each implies."""


def _made(item: RegisterComparison, known: Mapping[Key, int], sets: Mapping[str, KernelSet]) -> _Made:
    match item:
        case Test():
            yield from _matches(item, known)
        case Metering(value, found):
            (row,) = _looked_up(value, known, sets[found.name])
            if not value.is_plain or found.limit is None:
                raise UnreadableError(f"set {found.name}")
            yield nft.Meter(found.name, row.selector, *found.limit), row.implied
        case Membership(values, found) if found.is_map:
            rows = [row for value in values for row in _looked_up(value, known, sets[found.name])]
            if any(not value.is_plain for value in values):
                raise UnreadableError(f"mask before map {found.name}")
            selectors = tuple(row.selector for row in rows)
            yield nft.LookUp(selectors, found.name), tuple(one for row in rows for one in row.implied)
        case Membership(values, found):
            rows = [row for value in values for row in _looked_up(value, known, sets[found.name])]
            if len(rows) > 1 or values[0].flip:
                raise UnreadableError(f"set {found.name}")
            selector, operator = rows[0].selector, _operator(is_negated=found.is_negated)
            wanted = values_of(sets[found.name], selector.key_type)
            yield nft.Match(selector, wanted, operator, _mask_of(values[0], rows[0])), rows[0].implied


def _looked_up(value: RegisterValue, known: Mapping[Key, int], where: KernelSet) -> list[KernelField]:
    """Return the fields of a part of a key.

    Raises:
        UnreadableError: it has others, or numbers in another byte order than those of the set.
    """
    rows = _whole_fields(value, known)
    is_reversed = rows[0].is_host_order and where.is_interval and not IS_BIG_ENDIAN
    if rows[0].length > 1 and value.is_swapped is not is_reversed:
        raise UnreadableError(str(value.source))
    return rows


def _within_both(before: _Compared, statement: _Compared, item: RegisterComparison) -> nft.Match | None:
    """Return one match in the place of two by order: some versions of nft write a range so."""
    match before, statement, item:
        case (
            nft.Match(selector, (nft.Interval() as one,), nft.Operator.EQUAL, mask),
            nft.Match(other_selector, (nft.Interval() as other,), nft.Operator.EQUAL, other_mask),
            Test(is_by_order=True),
        ) if (selector, mask) == (other_selector, other_mask):
            first, last = max(one.first, other.first), min(one.last, other.last)
            return nft.Match(selector, (nft.Interval(first, last),), mask=mask) if first <= last else None
        case _:
            return None


def _operator(*, is_negated: bool) -> nft.Operator:
    return nft.Operator.NOT_EQUAL if is_negated else nft.Operator.EQUAL


def _matches(test: Test, known: Mapping[Key, int]) -> _Made:
    """Yield a match for each field that is compared.

    Raises:
        UnreadableError: some of what is compared is no field.
    """
    source = test.value.source
    if isinstance(source, Key) and source in LINK_INDEX:
        yield _of_number(test, LINK_INDEX[source]), ()
    elif isinstance(source, Key) and source not in BY_KEY:
        yield Unknown(str(source)), ()
    elif test.first != test.last:
        rows = _whole_fields(test.value, known)
        if len(rows) > 1:
            raise UnreadableError(str(source))
        yield _in_order(test, rows[0]), rows[0].implied
    else:
        parts = tuple(_parts(test.value, test.first, known))
        if test.is_negated and len(parts) != 1:
            raise UnreadableError(str(source))
        for row, mask, number in parts:
            yield _equal(row, mask, number, is_negated=test.is_negated), row.implied


def _of_number(test: Test, selector: nft.Selector) -> nft.Match:
    """Return the comparison of a link's number, if it says the same of its name in every namespace."""
    number = turned(test.first, 4) if not IS_BIG_ENDIAN else test.first
    is_whole = test.first == test.last and test.value.is_plain and not test.value.is_swapped
    if not is_whole or number not in _NAMES:
        raise UnreadableError(str(test.value.source))
    return nft.Match(selector, (_NAMES[number],), _operator(is_negated=test.is_negated))


def _in_order(test: Test, row: KernelField) -> nft.Match:
    """Return a match on numbers between two, which the kernel compares in the order of the network."""
    value, key_type = test.value, row.selector.key_type
    if key_type not in nft.BITS or not _is_in_order(value, row):
        raise UnreadableError(str(value.source))
    values = (nft.Interval(test.first, test.last),) if test.first <= test.last else ()
    return nft.Match(row.selector, values, _operator(is_negated=test.is_negated), _mask_of(value, row))


def _is_in_order(value: RegisterValue, row: KernelField) -> bool:
    """Return whether the bytes in a register are in the order of the network."""
    return row.length == 1 or value.is_swapped is (row.is_host_order and not IS_BIG_ENDIAN)


def _mask_of(value: RegisterValue, row: KernelField) -> int | None:
    """Return the bits that are compared; None for all."""
    if value.mask == ones(value.length):
        return None
    return value.mask if _is_in_order(value, row) else turned(value.mask, value.length)


def _equal(row: KernelField, mask: int, number: int, *, is_negated: bool) -> nft.Match:
    """Return a match on bits of a field.

    Raises:
        UnreadableError: they are no value of the field.
    """
    selector, whole, operator = row.selector, ones(row.length), _operator(is_negated=is_negated)
    if number & ~mask:
        return nft.Match(selector, (), operator)  # nothing can be that
    if selector.key_type in nft.SYMBOLS:
        return _constants(selector, mask, number, is_negated=is_negated)
    if selector.key_type is nft.KeyType.IFNAME:
        return nft.Match(selector, (_link(mask, number, row),), operator)
    rest = whole & ~mask
    if selector.key_type is nft.KeyType.MARK or rest & rest + 1:
        return nft.Match(selector, (nft.Interval.single(number),), operator, None if mask == whole else mask)
    return nft.Match(selector, (nft.Interval(number, number | rest),), operator)


def _link(mask: int, number: int, row: KernelField) -> nft.Symbol | nft.NamePrefix:
    rest = ones(row.length) & ~mask
    if rest & rest + 1 or rest.bit_length() % 8:
        raise UnreadableError(str(row.place))
    content = number.to_bytes(row.length, "big")[: row.length - rest.bit_length() // 8]
    return link_name(content) if not rest or content.endswith(b"\0") else link_prefix(content)


def _constants(selector: nft.Selector, mask: int, number: int, *, is_negated: bool) -> nft.Match:
    """Return a match on constants, of which there are few; a state of a session is one bit of several."""
    words = nft.SYMBOLS[selector.key_type]
    passing = {word for word, value in words.items() if (value & mask == number) is not is_negated}
    negates = is_negated if selector.key_type is not nft.KeyType.CT_STATE else is_negated is (number != 0)
    chosen = words.keys() - passing if negates else passing
    if not chosen or len(chosen) == len(words):
        raise UnreadableError(f"{selector.kind} {selector.key}")
    return nft.Match(selector, tuple(sorted(map(nft.Symbol, chosen))), _operator(is_negated=negates))


_Part = tuple[KernelField, int, int]
"""A field, the bits of it that are compared, and the number that they have to be."""


def _parts(value: RegisterValue, number: int, known: Mapping[Key, int]) -> Iterator[_Part]:
    """Yield the fields of which bits are compared.

    Raises:
        UnreadableError: bits are compared that are of no field, or nothing is.
    """
    if isinstance(value.source, Key):
        row = BY_KEY[value.source]
        if row.length != value.length:
            raise UnreadableError(str(value.source))
        if not _is_in_order(value, row):
            yield row, turned(value.mask, row.length), turned(number, row.length)
        else:
            yield row, value.mask, number
        return
    if value.is_swapped or number & ~value.mask:
        raise UnreadableError(str(value.source))
    left, stop = value.mask, value.source.offset + value.length
    for place, row in _rows(value.source, known):
        shift = 8 * (stop - place.offset - place.length)  # negative where the field goes on behind the read
        whole = ones(place.length)
        mask, wanted = _shifted(left, shift) & whole, _shifted(number, shift) & whole
        if mask:
            left &= ~_shifted(whole, -shift)
            yield row, mask, wanted
    if left:
        raise UnreadableError(str(value.source))
    if not value.mask:  # any value of a field, which has to be there
        yield from ((row, 0, number) for row in _whole_fields(value, known))


def _shifted(number: int, bits: int) -> int:
    return number >> bits if bits >= 0 else number << -bits


def _rows(source: PacketBytes, known: Mapping[Key, int]) -> list[tuple[PacketBytes, KernelField]]:
    """Return the fields that a read has bytes of, in order; of two of the same bytes the more specific."""
    found: dict[int, tuple[PacketBytes, KernelField]] = {}
    for place, row in IN_PACKET[source.base]:
        is_behind = source.offset + source.length <= place.offset
        is_before = place.offset + place.length <= source.offset
        if not is_behind and not is_before and all(known.get(key) == number for key, number in row.needs):
            found.setdefault(place.offset, (place, row))
    return [found[offset] for offset in sorted(found)]


def _whole_fields(value: RegisterValue, known: Mapping[Key, int]) -> list[KernelField]:
    """Return the fields that a read consists of, each of them whole.

    Raises:
        UnreadableError: it consists of something else.
    """
    source = value.source
    if isinstance(source, Key):
        row = BY_KEY.get(source)
        if row is None or row.length != value.length:
            raise UnreadableError(str(source))
        return [row]
    rows = _rows(source, known)
    end = source.offset
    for place, _ in rows:
        if place.offset != end or (len(rows) > 1 and padded(place.length) != place.length):
            raise UnreadableError(str(source))
        end += place.length
    if not rows or end != source.offset + source.length:
        raise UnreadableError(str(source))
    return [row for _, row in rows]
