"""A table prepared for whole sets of packets: rules as operations on states, maps as trees."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from sgagent.core.addresses import Ranges, holds, joined, sweep, without
from sgagent.core.conditions import GroupPath
from sgagent.core.model import Family, Policy
from sgagent.nft import ruleset as nft
from sgagent.verify.packets import Constraints, Cube, Marks, Phase, cubes_of, under_mask
from sgagent.verify.verified_table import (
    Unread,
    UnsupportedStatementError,
    VerifiedChain,
    VerifiedStatement,
    VerifiedTable,
    by_name,
    selectors_of,
)
from sgagent.verify.views import Read, SelectorReading, Settled, Special, View


class PacketFate(NamedTuple):
    """The verdict on packets with some marks, and its effects."""

    marks: Marks | None
    verdict: Policy
    counters: tuple[str, ...]
    change: nft.SetMark


@dataclass(slots=True)
class MapNode:
    """The targets of one field of the key: the next fields, or behind the last one the verdicts."""

    words: dict[str, MapNode | nft.Verdict] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    lasts: list[int] = field(default_factory=list)
    children: list[MapNode | nft.Verdict] = field(default_factory=list)
    """Of the disjoint ranges, sorted."""

    def child_of(self, number: int) -> MapNode | nft.Verdict | None:
        """Return the target of a number."""
        place = bisect_right(self.starts, number) - 1
        return self.children[place] if place >= 0 and number <= self.lasts[place] else None

    def places_between(self, first: int, last: int) -> tuple[int, int]:
        """Return the first place, and the one behind the last, of the ranges that meet a range."""
        start = bisect_right(self.starts, first) - 1
        if start < 0 or self.lasts[start] < first:
            start += 1
        return start, bisect_right(self.starts, last)


def map_tree(elements: Sequence[nft.Element]) -> MapNode:
    """Return the tree of a map's elements."""
    singles = [element.key[0] for element in elements if len(element.key) == 1]
    ranges = [value for value in singles if isinstance(value, nft.Interval)]
    if len(ranges) == len(elements) and all(one.last < other.first for one, other in pairwise(ranges)):
        starts, lasts = [value.first for value in ranges], [value.last for value in ranges]
        return MapNode({}, starts, lasts, [element.verdict for element in elements])
    return _node([(element.key, element.verdict) for element in elements])


_Item = tuple[tuple[nft.Value, ...], nft.Verdict]


def _node(items: Sequence[_Item]) -> MapNode:
    words: dict[str, list[_Item]] = {}
    ranges: dict[tuple[int, int], list[_Item]] = {}
    for (value, *others), verdict in items:
        match value:
            case nft.Symbol(word):
                words.setdefault(word, []).append((tuple(others), verdict))
            case nft.Interval(first, last):
                ranges.setdefault((first, last), []).append((tuple(others), verdict))
    node = MapNode({word: _child(some) for word, some in words.items()})
    by_range, greatest = list(ranges.values()), max((last for _, last in ranges), default=0)
    for first, last, here in sweep(enumerate((ends,) for ends in ranges), greatest):
        if here:
            node.starts.append(first)
            node.lasts.append(last)
            node.children.append(_child([item for number in here for item in by_range[number]]))
    return node


def _child(items: Sequence[_Item]) -> MapNode | nft.Verdict:
    return _node(items) if items[0][0] else items[0][1]


@dataclass(frozen=True, slots=True)
class FarEndIn:
    """Compare the far end."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class MarkIn:
    """Compare the mark."""

    cubes: tuple[Cube, ...]
    is_in: bool


@dataclass(frozen=True, slots=True)
class Find:
    """Look something up in a map."""

    verdict_map: str
    readings: tuple[SelectorReading, ...]
    needs: Constraints


@dataclass(frozen=True, slots=True)
class Narrow:
    """Compare a number."""

    constraints: Constraints


Comparison = FarEndIn | MarkIn | Narrow
Operation = Comparison | Find | nft.Limit | nft.Meter | nft.Count | nft.SetMark | nft.Verdict

OF_TAILS = (
    *(nft.CT_MARK, nft.CT_STATE, nft.CT_DIRECTION),
    *(nft.CT_STATUS, nft.META_L4PROTO, nft.TCP_FLAGS),
)
"""What tails may read. The last three tell sessions that others announced, and answers that open
nothing, and are read of few packets."""

_HEAVY = 8
"""Rules of a chain, and elements in the maps that they look up, from which on it counts as a junction."""


class CompiledTable:
    """The common part of views: rules as operations on states, and maps as trees."""

    def __init__(self, table: VerifiedTable) -> None:
        """Compile nothing yet."""
        self.table = table
        self.address_statements: dict[tuple[str, Family], Sequence[nft.Match | nft.LookUp]] = {}
        """The statements that distinguish addresses, by link and family."""

        self._rules: dict[tuple[object, ...], tuple[tuple[Operation, ...], ...]] = {}
        self._sets: dict[frozenset[nft.Selector], frozenset[nft.Selector]] = {}
        self.fates: dict[tuple[object, ...], tuple[PacketFate, ...] | None] = {}
        """Of packets with some marks in chains that read nothing else but what is settled in a view; None of
        those that do."""

    @by_name
    def tree(self, name: str) -> MapNode:
        """Return a map as a tree."""
        return map_tree(self.table.verdict_maps[name].elements)

    @by_name
    def selectors(self, name: str) -> tuple[nft.Selector, ...]:
        """Return the selectors that the rules of a chain read, each once."""
        read = (selector for one in self.table.chains[name].statements for selector in selectors_of(one))
        return tuple(dict.fromkeys(read))

    @by_name
    def reads(self, name: str) -> frozenset[nft.Selector]:
        """Return the selectors that a chain reads, with all chains that it leads to."""
        return self._shared(frozenset(self.selectors(name)).union(*map(self.reads, self.table.targets(name))))

    @by_name
    def reads_before_junctions(self, name: str) -> frozenset[nft.Selector]:
        """Return the selectors that a chain reads, with all chains that it leads to before a junction."""
        below = map(self.reads_before_junctions, set(self.table.targets(name)) - self.junctions)
        return self._shared(frozenset(self.selectors(name)).union(*below))

    def _shared(self, reads: frozenset[nft.Selector]) -> frozenset[nft.Selector]:
        """Return an equal set that was there before, if there was one: few sets serve many chains."""
        return self._sets.setdefault(reads, reads)

    def is_tail(self, name: str) -> bool:
        """Return whether the fate of a view's packet in a chain depends on nothing but its mark.

        It may read the fields that distinguish answers; the exploration has to see whether it does.
        """
        return self.reads(name).issubset(OF_TAILS)

    @by_name
    def never_returns(self, name: str) -> bool:
        """Return whether each packet that goes to a chain meets a verdict there, or behind it."""
        chain = self.table.chains[name]
        *before, last = (chain.rules[-1] if chain.rules else ()) or (None,)
        return (
            isinstance(last, (nft.Accept, nft.Drop, nft.Goto))
            and all(isinstance(one, (nft.Count, nft.Log)) for one in before)
            and not any(isinstance(one, nft.Return) for one in chain.statements)
            and all(map(self.never_returns, self._gone_to(chain)))
        )

    def _gone_to(self, chain: VerifiedChain) -> Iterator[str]:
        """Yield the chains that packets go to from a chain, and do not come back from."""
        for one in chain.statements:
            if isinstance(one, nft.Goto):
                yield one.chain
            elif isinstance(one, nft.LookUp):
                elements = self.table.verdict_maps[one.verdict_map].elements
                found = {element.verdict for element in elements}
                yield from (verdict.chain for verdict in found if isinstance(verdict, nft.Goto))

    @cached_property
    def junctions(self) -> frozenset[str]:
        """Return the chains with many rules to which several chains lead: those of the rules for everyone."""
        counts = Counter[str]()
        for name in self.table.reached:
            counts.update(self.table.targets(name))
        return frozenset(
            name
            for name, count in counts.items()
            if count > 1 and self._weight(name) >= _HEAVY and not self.is_tail(name)
        )

    def _weight(self, name: str) -> int:
        """Return how many rules a chain has, and elements in the maps that they look up."""
        chain = self.table.chains[name]
        maps = {one.verdict_map for one in chain.statements if isinstance(one, nft.LookUp)}
        return len(chain.rules) + sum(len(self.table.verdict_maps[one].elements) for one in maps)

    def rules(self, name: str, view: View, phase: Phase) -> tuple[tuple[Operation, ...], ...]:
        """Return the rules of a chain as operations; views that read the same share them."""
        readings = {selector: view.read(selector, phase) for selector in self.selectors(name)}
        key = (name, *readings.values())
        if key not in self._rules:
            rules = (tuple(_operations(rule, readings)) for rule in self.table.chains[name].rules)
            self._rules[key] = tuple(rule for rule in rules if not all(map(_only_compares, rule)))
        return self._rules[key]


def _operations(
    statements: Iterable[VerifiedStatement], readings: dict[nft.Selector, SelectorReading]
) -> Iterator[Operation]:
    """Yield the operations of a rule, up to a comparison that no packet meets."""
    for statement in statements:
        match statement:
            case nft.Match():
                found = _compile_match(statement, readings[statement.selector])
                if found is False:
                    return
                if found is not True:
                    yield found
            case nft.LookUp(selectors, name):
                fields = tuple(readings[selector] for selector in selectors)
                if Special.NOTHING in fields:
                    return
                needs = (need for one in fields if isinstance(one, Read) for need in one.needs)
                yield Find(name, fields, tuple(needs))
            case nft.Meter(selector=selector) if readings[selector] is Special.NOTHING:
                return
            case nft.Log():
                pass
            case Unread():
                raise UnsupportedStatementError(str(statement))
            case _:
                yield statement


def _only_compares(operation: Operation) -> bool:
    return isinstance(operation, (FarEndIn, MarkIn, Narrow, nft.Limit))


def _compile_match(match: nft.Match, reading: SelectorReading) -> Operation | bool:
    """Return the operation of a comparison on a state; else whether all its packets meet it, or none."""
    is_in = match.operator is nft.Operator.EQUAL
    match reading:
        case Settled(value):
            if isinstance(value, str):
                found = match.has_word(value)
            else:
                found = holds(ranges_in(match), value if match.mask is None else value & match.mask)
            return found is is_in
        case Special.NOTHING:
            return False
        case Special.MARK:
            bits = 0xFFFFFFFF if match.mask is None else match.mask
            cubes = (cube for first, last in ranges_in(match) for cube in cubes_of(bits, first, last))
            return MarkIn(tuple(cubes), is_in)
        case Special.FAR_END | Read():
            wanted, bits = ranges_in(match), nft.BITS[match.selector.key_type]
            if match.mask is not None:
                wanted = under_mask(bits, match.mask, wanted)
            if not is_in:
                wanted = without(((0, (1 << bits) - 1),), wanted)
            if isinstance(reading, Special):
                return FarEndIn(wanted)
            return Narrow((*reading.needs, (reading.dimension, wanted))) if wanted else False


def ranges_in(match: nft.Match) -> Ranges:
    """Return the numbers that a comparison has on its right side."""
    ranges = ((one.first, one.last) for one in match.values if isinstance(one, nft.Interval))
    return joined((*ranges, *(one.numbers for one in match.values if isinstance(one, GroupPath))))
