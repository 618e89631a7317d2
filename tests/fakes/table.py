"""The table after a plan, computed without the kernel."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, assert_never

from sgagent.nft.ruleset import Counter, Element, MeterSet, Rule, Ruleset, sort_key
from sgagent.nft.transactions import (
    AddChain,
    AddCounter,
    AddElements,
    AddMeterSet,
    AddResetWatch,
    AddRule,
    AddTable,
    AddVerdictMap,
    Delete,
    DeleteElements,
    DeleteTable,
    DestroyTable,
    Flush,
    Operation,
    Plan,
)


def carry_out(plan: Plan, ruleset: Ruleset | None) -> Ruleset | None:
    """Return what stands after the plan; None where no table is left.

    Checks nothing: it is for plans that the kernel has taken. What was foreign is not looked at.

    Args:
        plan: what was carried out.
        ruleset: what stood before; None where there was no table.
    """
    table = FakeTable(ruleset)
    for operation in plan.operations:
        table.carry_out(operation)
    return table.ruleset()


class FakeTable:
    """A table while a transaction is carried out; what is not touched is not copied."""

    def __init__(self, ruleset: Ruleset | None) -> None:
        """Start from what stands; None is no table."""
        self.stands = ruleset is not None
        before = ruleset or Ruleset()
        self.chains = dict(before.chain_by_name)
        self.verdict_maps = dict(before.verdict_map_by_name)
        self.counters: dict[str, Counter] = dict(before.counter_by_name)
        self.meter_sets: dict[str, MeterSet] = dict(before.meter_set_by_name)
        self._rules: dict[str, list[Rule]] = {}
        self._elements: dict[str, list[Element]] = {}
        self._by_kind: Mapping[str, tuple[dict[str, Any], ...]] = {
            "chain": (self.chains, self._rules),
            "map": (self.verdict_maps, self._elements),
            "counter": (self.counters,),
            "set": (self.meter_sets,),
        }

    def rules(self, chain: str) -> list[Rule]:
        """Return the rules of a chain, to be changed."""
        if chain not in self._rules:
            self._rules[chain] = list(self.chains[chain].rules)
        return self._rules[chain]

    def elements(self, verdict_map: str) -> list[Element]:
        """Return the elements of a verdict map, to be changed."""
        if verdict_map not in self._elements:
            self._elements[verdict_map] = list(self.verdict_maps[verdict_map].elements)
        return self._elements[verdict_map]

    def ruleset(self) -> Ruleset | None:
        """Return what stands now, in canonical order."""
        if not self.stands:
            return None
        for name, rules in self._rules.items():
            self.chains[name] = replace(self.chains[name], rules=tuple(rules))
        for name, elements in self._elements.items():
            self.verdict_maps[name] = replace(self.verdict_maps[name], elements=tuple(elements))
        return Ruleset(
            chains=tuple(self.chains[name] for name in sorted(self.chains)),
            verdict_maps=tuple(self.verdict_maps[name] for name in sorted(self.verdict_maps)),
            counters=tuple(self.counters[name] for name in sorted(self.counters)),
            meter_sets=tuple(self.meter_sets[name] for name in sorted(self.meter_sets)),
        )

    def carry_out(self, operation: Operation) -> None:
        """Carry out one operation."""
        match operation:
            case AddTable():
                self.stands = True
            case DestroyTable() | DeleteTable():
                self._destroy()
            case AddChain(declared):
                self.chains.setdefault(declared.name, replace(declared, rules=()))
            case AddRule(chain_name, rule):
                self.rules(chain_name).append(rule)
            case AddVerdictMap(verdict_map):
                self.verdict_maps.setdefault(verdict_map.name, replace(verdict_map, elements=()))
            case AddElements(name, _, elements):
                _insert(self.elements(name), elements)
            case DeleteElements(name, _, elements):
                _remove(self.elements(name), elements)
            case AddMeterSet(meter_set):
                self.meter_sets.setdefault(meter_set.name, meter_set)
            case AddCounter(counter):
                self.counters.setdefault(counter.name, counter)
            case AddResetWatch():
                pass  # it is no part of the ruleset
            case Flush(kind, name):
                self._flush(kind, name)
            case Delete(kind, name):
                for content in self._by_kind.get(kind, ()):
                    content.pop(name, None)
            case _:
                assert_never(operation)

    def _flush(self, kind: str, name: str) -> None:
        """Empty an object, unless it is foreign and so not kept here."""
        if kind == "map":
            self.elements(name).clear()
        elif kind == "set":
            self.meter_sets[name] = replace(self.meter_sets[name], strange_bucket=None)
        elif name in self.chains:
            self.rules(name).clear()

    def _destroy(self) -> None:
        self.stands = False
        for content in chain.from_iterable(self._by_kind.values()):
            content.clear()


_FEW = 100
"""Up to so many elements are put in their places one by one, more are sorted in."""


def _insert(into: list[Element], elements: Iterable[Element]) -> None:
    """Put elements in, so that all stay sorted."""
    coming = list(elements)
    if len(coming) > _FEW:
        into += coming
        into.sort(key=_by_key)
        return
    for element in coming:
        into.insert(bisect_left(into, _by_key(element), key=_by_key), element)


def _remove(out_of: list[Element], elements: Iterable[Element]) -> None:
    """Take the elements with these keys out."""
    keys = {element.key for element in elements}
    out_of[:] = [element for element in out_of if element.key not in keys]


def _by_key(element: Element) -> tuple[tuple[int, int, str], ...]:
    return sort_key(element.key)
