"""Put the parts of a table together, in the order of their names.

A part is what was compiled at a time: the very same mapping again where nothing changed that it depends on.
So most of a table is put together by the interpreter's own loops, and what is all the same is not even that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from sgagent.core.kernel.counters import CounterKey
from sgagent.core.kernel.ruleset import Chain, Counter, Ruleset, VerdictMap
from sgagent.core.memory import Memory
from sgagent.core.remaking import changed_places

Thing = TypeVar("Thing")


class Parts:
    """Collect parts; no name is in two of them."""

    def __init__(self) -> None:
        """Start without any."""
        self._single: dict[str, Chain] = {}
        self._chains: list[Mapping[str, Chain]] = [self._single]
        self._verdict_maps: list[Mapping[str, VerdictMap]] = []
        self._counters: list[Mapping[str, Counter]] = []
        self.keys: list[Mapping[str, CounterKey]] = []
        """What counters count."""

    def add_chain(self, chain: Chain) -> None:
        """Add a chain that is compiled by itself."""
        if chain.name in self._single:
            raise AssertionError(f"two chains of one name: {chain.name}")
        self._single[chain.name] = chain

    def add_judging(
        self, chains: Sequence[Mapping[str, Chain]], verdict_maps: Sequence[Mapping[str, VerdictMap]]
    ) -> None:
        """Add what judges, by name."""
        self._chains += chains
        self._verdict_maps += verdict_maps

    def add_leaves(
        self, chains: Mapping[str, Chain], counters: Mapping[str, Counter], keys: Mapping[str, CounterKey]
    ) -> None:
        """Add where judging ends, by name."""
        self._chains.append(chains)
        self._counters.append(counters)
        self.keys.append(keys)

    def table(self, memory: Memory) -> Ruleset:
        """Return all of it in canonical order."""
        return Ruleset.by_name(
            chains=_in_order(self._chains, memory.part("chains")),
            verdict_maps=_in_order(self._verdict_maps, memory.part("maps")),
            counters=_in_order(self._counters, memory.part("counters")),
            chain_parts=tuple(self._chains),
        )


@dataclass(frozen=True, slots=True)
class _Joined(Generic[Thing]):
    """Parts, and what they are together."""

    parts: tuple[Mapping[str, Thing], ...]
    things: Mapping[str, Thing]
    """Sorted by name."""


def _in_order(parts: Sequence[Mapping[str, Thing]], memory: Memory) -> Mapping[str, Thing]:
    """Return all of several parts, sorted by name."""
    found: _Joined[Thing] = memory.revise(partial(_join, tuple(parts)))
    return found.things


def _join(parts: tuple[Mapping[str, Thing], ...], before: _Joined[Thing] | None) -> _Joined[Thing]:
    """Put parts together; where no name comes or goes, only those are looked at that are new."""
    if before is None or len(before.parts) != len(parts):
        return _join_anew(parts)
    places = changed_places(before.parts, parts)
    if any(before.parts[place].keys() != parts[place].keys() for place in places):
        return _join_anew(parts)
    if not places:
        return before
    revised = dict(before.things)
    for place in places:
        revised.update(parts[place])
    return _Joined(parts, revised)


def _join_anew(parts: tuple[Mapping[str, Thing], ...]) -> _Joined[Thing]:
    things = joined(parts)
    return _Joined(parts, {name: things[name] for name in sorted(things)})


def joined(parts: Sequence[Mapping[str, Thing]]) -> Mapping[str, Thing]:
    """Return all of several parts; a name that two have is a fault of ours."""
    things: dict[str, Thing] = {}
    for part in parts:
        things.update(part)
    if len(things) < sum(map(len, parts)):
        raise AssertionError("two objects of one name")
    return things
