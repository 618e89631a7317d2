"""Tables as nft writes them for the kernel, without nft: for tests that need no kernel.

Dependencies stand before the first read that needs them; ends, prefixes and sets as nft 1.1.3 writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from sgagent.core.conditions import GroupPath
from sgagent.nft import ruleset as nft
from sgagent.nft.expressions import Key, PacketBytes
from sgagent.nft.fields import FIELDS, HOST_ORDER_KEYS, KEY_LENGTHS, KEY_TYPES, LENGTHS, KernelField
from sgagent.nft.ruleset import Interval, NamePrefix, Symbol
from tests import bytecode as b
from tests.draws import Draws
from tests.program_faults import alterations, split

_ROWS = {row.selector: row for row in reversed(FIELDS)}
_CODES = {key_type: code for code, key_type in KEY_TYPES.items()}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
Order = Literal["big", "little"]
_OIF = 5
_HOST = frozenset({nft.KeyType.MARK, nft.KeyType.CT_STATE, nft.KeyType.CT_STATUS})


def dump_of(ruleset: nft.Ruleset) -> bytes:
    """Return what the kernel would say of a table."""
    return _Assembler(b.Dump().declare(4)).table(ruleset)


class _Assembler:
    """Write a table."""

    def __init__(self, dump: b.Dump) -> None:
        self._dump = dump
        self._sets = 0
        self._interval_maps: set[str] = set()

    def table(self, ruleset: nft.Ruleset) -> bytes:
        """Return all messages."""
        for chain in ruleset.chains:
            beside = [b.attribute(12, b.comment(chain.comment))] if chain.comment else []
            if chain.hook is not None:
                where = b.number(1, _HOOKS.index(chain.hook.name)), b.number(2, chain.hook.hook_priority)
                beside += [b.nested(4, *where), b.number(5, 1), b.name(7, "filter"), b.number(10, 1)]
            self._dump.chain(chain.name, *beside)
        for verdict_map in ruleset.verdict_maps:
            self._map(verdict_map)
        for one in ruleset.meter_sets:
            timeout = b.attribute(11, struct.pack(">Q", 1000 * one.timeout))
            bounds, code = [b.nested(9, b.number(1, one.size)), timeout], _CODES[one.key_type]
            self._dump.set_of(one.name, LENGTHS[one.key_type], beside=bounds, flags=0x30, key_type=code)
        for chain in ruleset.chains:
            for place, rule in enumerate(chain.rules):
                self._dump.rule(chain.name, *self._written(chain.name, place, rule))
        for counter in ruleset.counters:
            beside = [b.attribute(8, b.comment(counter.comment))] if counter.comment else []
            self._dump.counter(counter.name, *beside)
        return self._dump.content

    def _written(self, _chain: str, _place: int, rule: nft.Rule) -> Iterable[bytes]:
        """Return the instructions of a rule."""
        return self._rule(rule)

    def _map(self, one: nft.VerdictMap) -> None:
        if one.is_interval:
            self._interval_maps.add(one.name)
        lengths = [LENGTHS[key_type] for key_type in one.key_types]
        code = 0
        for key_type in one.key_types:
            code = code << 6 | _CODES[key_type]
        is_wide, flags, beside = len(lengths) > 1, 0x8 | (0x4 if one.is_interval else 0), []
        if is_wide and one.is_interval:
            fields = (b.nested(1, b.number(1, length)) for length in lengths)
            flags, beside = flags | 0x80, [b.nested(9, b.nested(2, *fields))]
        length = sum(length + 3 & ~3 for length in lengths) if is_wide else lengths[0]
        self._dump.set_of(one.name, length, beside=beside, flags=flags, key_type=code)
        for element in one.elements:
            ends = [
                _ends(value, key_type, is_interval=one.is_interval)
                for value, key_type in zip(element.key, one.key_types, strict=True)
            ]
            entries = _entries(ends, _data(element.verdict), is_interval=one.is_interval)
            self._dump.elements(one.name, *entries)

    def _rule(self, rule: nft.Rule) -> Iterator[bytes]:
        said: set[tuple[Key, int]] = set()
        for statement in rule.statements:
            match statement:
                case nft.Match():
                    yield from self._match(statement, said)
                case nft.LookUp(selectors, name):
                    register = 8
                    for selector in selectors:
                        row = _ROWS[selector]
                        yield from _needs(row, said)
                        yield _load(row, register)
                        if row.is_host_order and name in self._interval_maps:
                            yield b.swap(row.length, register)
                        register += (row.length + 3) // 4
                    yield b.look_up(name, is_map=True, register=8)
                case nft.Count(counter):
                    yield b.count(counter)
                case nft.Limit(rate, burst):
                    each = b.attribute(1, struct.pack(">Q", rate)), b.attribute(2, struct.pack(">Q", 1))
                    yield b.expression("limit", *each, b.number(3, burst), b.number(4, 0), b.number(5, 0))
                case nft.Meter(name, selector, rate, seconds, burst):
                    row = _ROWS[selector]
                    yield from _needs(row, said)
                    yield _load(row, 8)
                    each = b.attribute(1, struct.pack(">Q", rate)), b.attribute(2, struct.pack(">Q", seconds))
                    bounds = *each, b.number(3, burst), b.number(4, 0), b.number(5, 1)
                    named = b.name(1, name), b.number(3, 1), b.number(4, 8), b.number(9, 0)
                    limit = b.nested(7, b.name(1, "limit"), b.nested(2, *bounds))
                    yield b.expression("dynset", *named, limit)
                case nft.Log(prefix, group):
                    yield b.expression("log", b.attribute(1, struct.pack(">H", group)), b.name(2, prefix))
                case nft.SetMark(keep, put) if keep == put:
                    yield b.constant(struct.pack("=I", put)) + b.set_mark()
                case nft.SetMark(keep, put):
                    bits = struct.pack("=I", keep & ~put), struct.pack("=I", put)
                    yield b.ct(3) + b.mask(*bits) + b.set_mark()
                case _:
                    yield b.expression("immediate", b.number(1, 0), b.nested(2, _data(statement)))

    def _match(self, one: nft.Match, said: set[tuple[Key, int]]) -> Iterator[bytes]:
        row, key_type = _ROWS[one.selector], one.selector.key_type
        yield from _needs(row, said)
        order = b.EQUAL if one.operator is nft.Operator.EQUAL else b.NOT_EQUAL
        if one.asks_for_a_link:
            yield b.meta(_OIF) + b.compare(bytes(4), order)
            return
        yield _load(row, 1)
        if one.mask is not None:
            yield b.mask(one.mask.to_bytes(row.length, _order(row)))
        if key_type is nft.KeyType.CT_STATE and (len(one.values) > 1 or order == b.EQUAL):
            bits = sum(nft.SYMBOLS[key_type][value.word] for value in one.values if isinstance(value, Symbol))
            yield b.mask(struct.pack("=I", bits)) + b.compare(bytes(4), 1 - order)
        elif len(one.values) == 1:
            yield from self._single(one.values[0], row, order)
        else:
            is_wide = any(_is_wide(value) for value in one.values)
            if is_wide and row.is_host_order:
                yield b.swap(row.length)
            yield b.look_up(self._set(one.values, row, is_wide=is_wide), negated=bool(order))

    def _single(self, value: nft.Comparable, row: KernelField, order: int) -> Iterator[bytes]:
        if isinstance(value, NamePrefix):
            yield b.compare(value.prefix.encode(), order)
        elif not _is_wide(value):
            (first, _) = _ends(value, row.selector.key_type, is_interval=False, length=row.length)
            yield b.compare(first, order)
        else:
            if row.is_host_order:
                yield b.swap(row.length)
            first, last = _ends(value, row.selector.key_type, is_interval=True, length=row.length)
            yield b.within(first, last, negated=bool(order))

    def _set(self, values: Sequence[nft.Comparable], row: KernelField, *, is_wide: bool) -> str:
        name, self._sets = f"__set{self._sets}", self._sets + 1
        self._dump.set_of(name, row.length, flags=0x7 if is_wide else 0x3)
        for value in values:
            ends = _ends(value, row.selector.key_type, is_interval=is_wide, length=row.length)
            self._dump.elements(name, *_entries([ends], b"", is_interval=is_wide))
        return name


def _needs(row: KernelField, said: set[tuple[Key, int]]) -> Iterator[bytes]:
    for key, number in row.needs:
        if (key, number) not in said:
            said.add((key, number))
            order: Order = "little" if key in HOST_ORDER_KEYS else "big"
            yield b.meta(key.key) + b.compare(number.to_bytes(KEY_LENGTHS[key], order))


def _load(row: KernelField, register: int) -> bytes:
    match row.place:
        case PacketBytes(base, offset, length):
            return b.payload(base, offset, length, register)
        case Key("ct", key, direction):
            return b.ct(key, direction, register)
        case Key("exthdr", key):
            return b.extension(key, register)
        case Key(key=key):
            return b.meta(key, register)


def _order(row: KernelField) -> Order:
    return "little" if row.is_host_order else "big"


def _is_wide(value: nft.Comparable) -> bool:
    return isinstance(value, NamePrefix) or (isinstance(value, Interval) and not value.is_single)


def _ends(
    value: nft.Comparable, key_type: nft.KeyType, *, is_interval: bool, length: int | None = None
) -> tuple[bytes, bytes]:
    size = LENGTHS[key_type] if length is None else length
    order: Order = "little" if key_type in _HOST and not is_interval else "big"
    match value:
        case Interval(first, last):
            return first.to_bytes(size, order), last.to_bytes(size, order)
        case NamePrefix(prefix):
            return prefix.encode().ljust(16, b"\0"), prefix.encode().ljust(16, b"\xff")
        case Symbol(word) if key_type is nft.KeyType.IFNAME:
            return (word.encode().ljust(16, b"\0"),) * 2
        case Symbol(word):
            return (nft.SYMBOLS[key_type][word].to_bytes(size, order),) * 2
        case GroupPath():
            raise AssertionError("rules for units are not assembled")


def _entries(ends: Sequence[tuple[bytes, bytes]], data: bytes, *, is_interval: bool) -> Iterable[bytes]:
    if len(ends) > 1:
        first, last = (
            b"".join(end.ljust(len(end) + 3 & ~3, b"\0") for end in side) for side in zip(*ends, strict=True)
        )
        beside = [b.nested(10, b.attribute(1, last))] if is_interval else []
        return [b.element(first, *beside, verdict_of=data)]
    ((first, last),) = ends
    found = [b.element(first, verdict_of=data)]
    behind = int.from_bytes(last, "big") + 1
    if is_interval and behind < 1 << 8 * len(last):
        found.append(b.element(behind.to_bytes(len(last), "big"), b.INTERVAL_END))
    return found


def _data(verdict: object) -> bytes:
    match verdict:
        case nft.Accept():
            return b.verdict_data(b.ACCEPT)
        case nft.Drop():
            return b.verdict_data(b.DROP)
        case nft.Goto(chain):
            return b.verdict_data(b.GOTO, chain)
        case nft.Jump(chain):
            return b.verdict_data(b.JUMP, chain)
        case nft.Return():
            return b.verdict_data(b.RETURN)
        case _:
            raise AssertionError(verdict)


def altered_tables(ruleset: nft.Ruleset, draws: Draws, count: int) -> Iterator[bytes]:
    """Yield the dump of a table with one rule altered, so often."""
    chains = [chain for chain in ruleset.chains if chain.rules]
    for _ in range(count if chains else 0):
        chain = draws.choice(chains)
        place = draws.randint(0, len(chain.rules) - 1)
        yield _Altered(b.Dump().declare(4), chain.name, place, draws).table(ruleset)


class _Altered(_Assembler):
    """Write a table with one rule altered."""

    def __init__(self, dump: b.Dump, chain: str, place: int, draws: Draws) -> None:
        super().__init__(dump)
        self._where = chain, place
        self._draws = draws

    def _written(self, chain: str, place: int, rule: nft.Rule) -> Iterable[bytes]:
        written = tuple(split(b"".join(self._rule(rule))))
        if (chain, place) != self._where:
            return written
        (altered,) = alterations(written, self._draws, 1)
        return altered
