"""A table that can be altered: the places where it can be, and what takes the place of what stands there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from sgagent.nft import ruleset as nft


class Place(NamedTuple):
    """Where a fault is planted; what a kind has no use for is None."""

    chain: str | None = None
    rule: int | None = None
    statement: int | None = None
    verdict_map: str | None = None
    element: int | None = None

    def __str__(self) -> str:
        """Return the place in words."""
        if self.verdict_map is not None:
            return f"map {self.verdict_map}" + ("" if self.element is None else f", element {self.element}")
        rule = "" if self.rule is None else f", rule {self.rule}"
        return f"chain {self.chain}{rule}" + (
            "" if self.statement is None else f", statement {self.statement}"
        )


@dataclass(frozen=True, slots=True)
class Alteration:
    """What takes the place of the objects of the same name."""

    what: str
    """In a few words, for the report."""

    objects: tuple[nft.Chain | nft.VerdictMap, ...] = ()
    removed: str | None = None
    """The name of a chain that goes."""

    foreign: tuple[str, ...] = ()
    """What :func:`sgagent.nft.own_table.decode_ruleset` would name: ``policy`` of a chain, ``table``."""


class AlterableTable:
    """A table with the places where it can be altered, and how."""

    def __init__(self, table: nft.Ruleset) -> None:
        """Take the table that is to be altered."""
        self.original = table

    def is_possible(self, alteration: Alteration) -> bool:
        """Return whether the kernel would take it: keys are disjoint, and no chain leads back to itself."""
        return all(
            _is_disjoint(one) if isinstance(one, nft.VerdictMap) else self._leads_not_back(one)
            for one in alteration.objects
        ) and not any(
            self._leads_back_by_map(one) for one in alteration.objects if isinstance(one, nft.VerdictMap)
        )

    def _leads_not_back(self, altered: nft.Chain) -> bool:
        before = self.original.chain_by_name.get(altered.name)
        known = set(_targets(self.original, before)) if before else set()
        return not any(
            altered.name in self.reachable(target) for target in set(_targets(self.original, altered)) - known
        )

    def _leads_back_by_map(self, altered: nft.VerdictMap) -> bool:
        """Return whether a new target of a map leads to a chain that looks it up."""
        before = set(map(_target, self.original.verdict_map_by_name[altered.name].elements))
        new = set(map(_target, altered.elements)) - before - {None}
        users = self._users.get(altered.name, frozenset())
        return any(users & self.reachable(target) for target in new if target is not None)

    def reachable(self, name: str) -> frozenset[str]:
        """Return the chain and all that it leads to."""
        if name not in self._reachable:
            found = {name}
            for target in _targets(self.original, self.original.chain_by_name[name]):
                found |= self.reachable(target)
            self._reachable[name] = frozenset(found)
        return self._reachable[name]

    @cached_property
    def _reachable(self) -> dict[str, frozenset[str]]:
        return {}

    @cached_property
    def _users(self) -> Mapping[str, frozenset[str]]:
        """Return the chains that look each map up."""
        users: dict[str, set[str]] = {}
        for chain in self.original.chains:
            for name in _maps_of(chain):
                users.setdefault(name, set()).add(chain.name)
        return {name: frozenset(found) for name, found in users.items()}

    @cached_property
    def regular(self) -> tuple[str, ...]:
        """Return the chains that rules can lead to."""
        return tuple(chain.name for chain in self.original.chains if chain.hook is None)

    @cached_property
    def links(self) -> tuple[str, ...]:
        """Return the links that matches of base chains name."""
        return tuple(
            dict.fromkeys(
                value.word
                for chain in self.original.chains
                for rule in chain.rules
                for statement in rule.statements
                if isinstance(statement, nft.Match) and statement.selector.key_type is nft.KeyType.IFNAME
                for value in statement.values
                if isinstance(value, nft.Symbol)
            )
        )

    @cached_property
    def places(self) -> Mapping[str, Sequence[Place]]:
        """Return the places of each sort."""
        chains, maps = self.original.chains, self.original.verdict_maps
        return {
            "table": [Place()],
            "chain": [Place(chain=chain.name) for chain in chains],
            "base chain": [Place(chain=chain.name) for chain in chains if chain.hook],
            "rule": [Place(chain.name, number) for chain in chains for number in range(len(chain.rules))],
            **{sort: [] for sort in SORTS},
            **self._statements,
            "map": [Place(verdict_map=one.name) for one in maps],
            "element": [
                Place(verdict_map=one.name, element=number)
                for one in maps
                for number in range(len(one.elements))
            ],
        }

    @cached_property
    def _statements(self) -> Mapping[str, Sequence[Place]]:
        """Return the places of statements, by each sort that they are of."""
        found: dict[str, list[Place]] = {}
        for chain in self.original.chains:
            for number, rule in enumerate(chain.rules):
                for position, statement in enumerate(rule.statements):
                    for sort, holds in SORTS.items():
                        if holds(statement):
                            found.setdefault(sort, []).append(Place(chain.name, number, position))
        return found

    # What a place holds.

    def chain_at(self, place: Place) -> nft.Chain:
        """Return the chain of a place."""
        assert place.chain is not None
        return self.original.chain_by_name[place.chain]

    def rule_at(self, place: Place) -> nft.Rule:
        """Return the rule of a place."""
        assert place.rule is not None
        return self.chain_at(place).rules[place.rule]

    def statement_at(self, place: Place) -> nft.Statement:
        """Return the statement of a place."""
        assert place.statement is not None
        return self.rule_at(place).statements[place.statement]

    def map_at(self, place: Place) -> nft.VerdictMap:
        """Return the map of a place."""
        assert place.verdict_map is not None
        return self.original.verdict_map_by_name[place.verdict_map]

    def element_at(self, place: Place) -> nft.Element:
        """Return the element of a place."""
        assert place.element is not None
        return self.map_at(place).elements[place.element]

    # What takes its place.

    def rules_in(self, place: Place, what: str, *rules: nft.Rule) -> Alteration:
        """Return the chain with these rules where the place's is."""
        chain, number = self.chain_at(place), place.rule
        assert number is not None
        return with_rules(chain, what, *chain.rules[:number], *rules, *chain.rules[number + 1 :])

    def statements_in(self, place: Place, what: str, *statements: nft.Statement) -> Alteration:
        """Return the chain with these statements where the place's is."""
        rule, position = self.rule_at(place), place.statement
        assert position is not None
        found = (*rule.statements[:position], *statements, *rule.statements[position + 1 :])
        return self.rules_in(place, what, *([nft.Rule(found)] if found else []))

    def elements_in(self, place: Place, what: str, *elements: nft.Element) -> Alteration:
        """Return the map with these elements where the place's is."""
        verdict_map, number = self.map_at(place), place.element
        others = [one for position, one in enumerate(verdict_map.elements) if position != number]
        return Alteration(what, (with_elements(verdict_map, (*others, *elements)),))


def with_alteration(table: nft.Ruleset, alteration: Alteration) -> nft.Ruleset:
    """Return the table with the alteration."""
    chains = {chain.name: chain for chain in table.chains}
    maps = {verdict_map.name: verdict_map for verdict_map in table.verdict_maps}
    for one in alteration.objects:
        if isinstance(one, nft.Chain):
            chains[one.name] = one
        else:
            maps[one.name] = one
    if alteration.removed is not None:
        del chains[alteration.removed]
    return replace(
        table,
        chains=tuple(chains[name] for name in sorted(chains)),
        verdict_maps=tuple(maps[name] for name in sorted(maps)),
    )


def with_rules(chain: nft.Chain, what: str, *rules: nft.Rule) -> Alteration:
    """Return the chain with these rules."""
    return Alteration(what, (replace(chain, rules=rules),))


def with_elements(verdict_map: nft.VerdictMap, elements: Iterable[nft.Element]) -> nft.VerdictMap:
    """Return the map with these elements, in their order."""
    return replace(verdict_map, elements=tuple(sorted(elements, key=lambda one: nft.sort_key(one.key))))


def _maps_of(chain: nft.Chain) -> Iterator[str]:
    for rule in chain.rules:
        for statement in rule.statements:
            if isinstance(statement, nft.LookUp):
                yield statement.verdict_map


def _targets(table: nft.Ruleset, chain: nft.Chain) -> Iterator[str]:
    """Yield the chains that a chain leads to."""
    for rule in chain.rules:
        for statement in rule.statements:
            if isinstance(statement, (nft.Goto, nft.Jump)):
                yield statement.chain
            elif isinstance(statement, nft.LookUp):
                elements = table.verdict_map_by_name[statement.verdict_map].elements
                yield from (target for target in map(_target, elements) if target is not None)


def _target(element: nft.Element) -> str | None:
    return element.verdict.chain if isinstance(element.verdict, (nft.Goto, nft.Jump)) else None


def _is_disjoint(verdict_map: nft.VerdictMap) -> bool:
    """Return whether no packet could meet two elements, and keys are of the map's type."""
    keys = [element.key for element in verdict_map.elements]
    if len(set(keys)) != len(keys):
        return False
    if not verdict_map.is_interval:
        return True
    return not any(
        all(map(_overlap, one, other)) for number, one in enumerate(keys) for other in keys[number + 1 :]
    )


def _overlap(one: nft.Value, other: nft.Value) -> bool:
    if isinstance(one, nft.Interval) and isinstance(other, nft.Interval):
        return one.first <= other.last and other.first <= one.last
    return one == other


SORTS: Mapping[str, Callable[[nft.Statement], bool]] = {
    "statement": lambda _: True,
    "verdict": lambda one: isinstance(one, (nft.Accept, nft.Drop, nft.Goto, nft.Jump)),
    "target": lambda one: isinstance(one, (nft.Goto, nft.Jump)),
    "counter": lambda one: isinstance(one, nft.Count),
    "match": lambda one: isinstance(one, nft.Match),
    "set": lambda one: isinstance(one, nft.Match) and len(one.values) > 1,
    "symbol": lambda one: isinstance(one, nft.Match) and isinstance(one.values[0], nft.Symbol),
    "look-up": lambda one: isinstance(one, nft.LookUp),
    "reading": lambda one: isinstance(one, (nft.LookUp, nft.Match)),
    "mark": lambda one: (
        isinstance(one, nft.SetMark) or (isinstance(one, nft.Match) and one.selector == nft.CT_MARK)
    ),
}
"""Sorts of statements, so that rare ones are drawn where a kind needs them."""
